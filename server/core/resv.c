/* resv: the state table of a reservation and its lookups. */
#include "server/core/resv.h"

#include <string.h>

/* A cancelled waiting or booked reservation never ran and is cancelled; one that runs
 * is ended early, because what ran is metered and billed as any other. */
const struct resv_rule resv_rules[] = {
    {RESV_WAITING, RESV_EV_BOOK, RESV_CONFIRMED},
    {RESV_WAITING, RESV_EV_CANCEL, RESV_CANCELLED},
    {RESV_WAITING, RESV_EV_EXPIRE, RESV_FAILED},
    {RESV_WAITING, RESV_EV_FAIL, RESV_FAILED},
    {RESV_HELD, RESV_EV_CONFIRM, RESV_CONFIRMED},
    {RESV_HELD, RESV_EV_CANCEL, RESV_CANCELLED},
    {RESV_HELD, RESV_EV_EXPIRE, RESV_CANCELLED},
    {RESV_HELD, RESV_EV_FAIL, RESV_FAILED},
    {RESV_CONFIRMED, RESV_EV_START, RESV_ACTIVE},
    {RESV_CONFIRMED, RESV_EV_CANCEL, RESV_CANCELLED},
    {RESV_CONFIRMED, RESV_EV_FAIL, RESV_FAILED},
    {RESV_CONFIRMED, RESV_EV_EXTEND, RESV_CONFIRMED},
    {RESV_CONFIRMED, RESV_EV_PREEMPT, RESV_CONFIRMED},
    {RESV_CONFIRMED, RESV_EV_REQUEUE, RESV_WAITING},
    {RESV_CONFIRMED, RESV_EV_SHRINK, RESV_CONFIRMED},
    {RESV_CONFIRMED, RESV_EV_MOVE, RESV_CONFIRMED},
    {RESV_CONFIRMED, RESV_EV_REPLACE, RESV_CONFIRMED},
    {RESV_ACTIVE, RESV_EV_END, RESV_ENDED},
    {RESV_ACTIVE, RESV_EV_CANCEL, RESV_ENDED},
    {RESV_ACTIVE, RESV_EV_FAIL, RESV_FAILED},
    {RESV_ACTIVE, RESV_EV_EXTEND, RESV_ACTIVE},
    {RESV_ACTIVE, RESV_EV_PREEMPT, RESV_ACTIVE},
};
const size_t resv_rule_count = sizeof resv_rules / sizeof resv_rules[0];

static const char *const state_names[RESV_STATE_COUNT] = {
    [RESV_WAITING] = "waiting", [RESV_HELD] = "held",   [RESV_CONFIRMED] = "confirmed",
    [RESV_ACTIVE] = "active",   [RESV_ENDED] = "ended", [RESV_CANCELLED] = "cancelled",
    [RESV_FAILED] = "failed",
};

static const char *const event_names[RESV_EVENT_COUNT] = {
    [RESV_EV_BOOK] = "book",       [RESV_EV_CONFIRM] = "confirm",
    [RESV_EV_START] = "start",     [RESV_EV_END] = "end",
    [RESV_EV_CANCEL] = "cancel",   [RESV_EV_FAIL] = "fail",
    [RESV_EV_EXPIRE] = "expire",   [RESV_EV_EXTEND] = "extend",
    [RESV_EV_PREEMPT] = "preempt", [RESV_EV_REQUEUE] = "requeue",
    [RESV_EV_SHRINK] = "shrink",   [RESV_EV_MOVE] = "move",
    [RESV_EV_REPLACE] = "replace",
};

const char *resv_state_name(enum resv_state s)
{
    return (unsigned)s < RESV_STATE_COUNT ? state_names[s] : "unknown";
}

bool resv_state_from_name(const char *name, enum resv_state *ret)
{
    for (int s = 0; s < RESV_STATE_COUNT; s++) {
        if (strcmp(name, state_names[s]) == 0) {
            *ret = (enum resv_state)s;
            return true;
        }
    }
    return false;
}

const char *resv_event_name(enum resv_event e)
{
    return (unsigned)e < RESV_EVENT_COUNT ? event_names[e] : "unknown";
}

bool resv_apply(enum resv_state from, enum resv_event event, enum resv_state *ret)
{
    for (size_t i = 0; i < resv_rule_count; i++) {
        if (resv_rules[i].from == from && resv_rules[i].event == event) {
            *ret = resv_rules[i].to;
            return true;
        }
    }
    return false;
}

bool resv_is_final(enum resv_state s)
{
    return s == RESV_ENDED || s == RESV_CANCELLED || s == RESV_FAILED;
}

bool resv_is_blocking(enum resv_state s)
{
    return s == RESV_HELD || s == RESV_CONFIRMED || s == RESV_ACTIVE;
}
