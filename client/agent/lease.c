/* lease: see lease.h. */
#include "client/agent/lease.h"

#include <assert.h>
#include <string.h>

static const struct lease_row rows[] = {
    {LEASE_OPENING, LEASE_EV_OPENED, LEASE_READY, LEASE_ACT_SEND_READY},
    {LEASE_OPENING, LEASE_EV_OPEN_FAILED, LEASE_DENIED, LEASE_ACT_DENY_KILL},
    {LEASE_OPENING, LEASE_EV_EXTENDED, LEASE_OPENING, LEASE_ACT_NONE},
    {LEASE_OPENING, LEASE_EV_SHORTENED, LEASE_OPENING, LEASE_ACT_NONE},
    {LEASE_OPENING, LEASE_EV_END, LEASE_DENIED, LEASE_ACT_DENY_KILL},

    {LEASE_READY, LEASE_EV_JOB_STARTED, LEASE_RUNNING, LEASE_ACT_NONE},
    {LEASE_READY, LEASE_EV_JOBS_GONE, LEASE_READY, LEASE_ACT_NONE},
    {LEASE_READY, LEASE_EV_DRAIN_DUE, LEASE_DRAINING, LEASE_ACT_TERM_JOBS},
    {LEASE_READY, LEASE_EV_EXTENDED, LEASE_READY, LEASE_ACT_REGATE},
    {LEASE_READY, LEASE_EV_SHORTENED, LEASE_READY, LEASE_ACT_REGATE},
    {LEASE_READY, LEASE_EV_END, LEASE_DENIED, LEASE_ACT_DENY_KILL},

    {LEASE_RUNNING, LEASE_EV_JOB_STARTED, LEASE_RUNNING, LEASE_ACT_NONE},
    {LEASE_RUNNING, LEASE_EV_JOBS_GONE, LEASE_READY, LEASE_ACT_NONE},
    {LEASE_RUNNING, LEASE_EV_DRAIN_DUE, LEASE_DRAINING, LEASE_ACT_TERM_JOBS},
    {LEASE_RUNNING, LEASE_EV_EXTENDED, LEASE_RUNNING, LEASE_ACT_REGATE},
    {LEASE_RUNNING, LEASE_EV_SHORTENED, LEASE_RUNNING, LEASE_ACT_REGATE},
    {LEASE_RUNNING, LEASE_EV_END, LEASE_DENIED, LEASE_ACT_DENY_KILL},

    {LEASE_DRAINING, LEASE_EV_JOBS_GONE, LEASE_DRAINING, LEASE_ACT_NONE},
    {LEASE_DRAINING, LEASE_EV_DRAIN_DUE, LEASE_DRAINING, LEASE_ACT_NONE},
    /* RUNNING may be one job too many; the next JOBS_GONE puts that right. */
    {LEASE_DRAINING, LEASE_EV_EXTENDED, LEASE_RUNNING, LEASE_ACT_REGATE},
    {LEASE_DRAINING, LEASE_EV_SHORTENED, LEASE_DRAINING, LEASE_ACT_REGATE},
    {LEASE_DRAINING, LEASE_EV_END, LEASE_DENIED, LEASE_ACT_DENY_KILL},

    {LEASE_DENIED, LEASE_EV_JOBS_GONE, LEASE_DENIED, LEASE_ACT_NONE},
    {LEASE_DENIED, LEASE_EV_END, LEASE_DENIED, LEASE_ACT_DENY_KILL},
    {LEASE_DENIED, LEASE_EV_EMPTIED, LEASE_CLEANING, LEASE_ACT_CLEAN},
    {LEASE_DENIED, LEASE_EV_KILL_TIMEOUT, LEASE_QUARANTINED, LEASE_ACT_ALARM},

    {LEASE_CLEANING, LEASE_EV_END, LEASE_CLEANING, LEASE_ACT_CLEAN},
    {LEASE_CLEANING, LEASE_EV_CLEANED, LEASE_DONE, LEASE_ACT_SEND_TEARDOWN},
    {LEASE_CLEANING, LEASE_EV_CLEAN_FAILED, LEASE_QUARANTINED, LEASE_ACT_ALARM},

    {LEASE_DONE, LEASE_EV_END, LEASE_DONE, LEASE_ACT_NONE},

    {LEASE_QUARANTINED, LEASE_EV_END, LEASE_QUARANTINED, LEASE_ACT_NONE},
    {LEASE_QUARANTINED, LEASE_EV_EMPTIED, LEASE_QUARANTINED, LEASE_ACT_NONE},
    {LEASE_QUARANTINED, LEASE_EV_RELEASED, LEASE_DENIED, LEASE_ACT_DENY_KILL},
};

static const char *const state_names[LEASE_STATE_COUNT] = {
    "opening", "ready",    "running", "draining",
    "denied",  "cleaning", "done",    "quarantined",
};

static const char *const event_names[LEASE_EVENT_COUNT] = {
    "opened",   "open_failed",  "job_started", "jobs_gone", "drain_due",
    "extended", "shortened",    "end",         "emptied",   "kill_timeout",
    "cleaned",  "clean_failed", "released",
};

const struct lease_row *lease_rows(size_t *ret_count)
{
    *ret_count = sizeof(rows) / sizeof(rows[0]);
    return rows;
}

int lease_apply(enum lease_state from, enum lease_event event, enum lease_state *ret_to,
                enum lease_action *ret_action, struct err *err)
{
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        if (rows[i].from != from || rows[i].event != event)
            continue;
        *ret_to = rows[i].to;
        *ret_action = rows[i].action;
        return 0;
    }
    return err_set(err, ERR_CONFLICT, "lease is %s: %s is not possible",
                   lease_state_name(from), lease_event_name(event));
}

const char *lease_state_name(enum lease_state state)
{
    assert((unsigned)state < LEASE_STATE_COUNT);
    return state_names[state];
}

const char *lease_event_name(enum lease_event event)
{
    assert((unsigned)event < LEASE_EVENT_COUNT);
    return event_names[event];
}

bool lease_state_parse(const char *name, enum lease_state *ret_state)
{
    for (int i = 0; i < LEASE_STATE_COUNT; i++) {
        if (strcmp(name, state_names[i]) == 0) {
            *ret_state = (enum lease_state)i;
            return true;
        }
    }
    return false;
}

const char *lease_state_wire(enum lease_state state)
{
    return lease_state_name(state == LEASE_DENIED ? LEASE_CLEANING : state);
}

bool lease_state_may_launch(enum lease_state state)
{
    return state == LEASE_READY || state == LEASE_RUNNING;
}

enum lease_recovery lease_recover(const struct lease_found *f, int64_t now_boot_us)
{
    if (!f->journalled)
        return LEASE_REC_ORPHAN;
    if (f->state == LEASE_QUARANTINED)
        return LEASE_REC_HOLD;
    if (f->state == LEASE_DONE)
        return f->cgroup ? LEASE_REC_ORPHAN : LEASE_REC_FORGET;
    if (f->state == LEASE_DENIED || f->state == LEASE_CLEANING)
        return LEASE_REC_END;
    if (!f->same_boot)
        return f->populated ? LEASE_REC_END : LEASE_REC_REBOOTED;
    if (now_boot_us >= f->deadline_boot_us)
        return LEASE_REC_END;
    if (f->cgroup && f->gated)
        return f->state == LEASE_OPENING ? LEASE_REC_REOPEN : LEASE_REC_KEEP;
    /* Processes without a gate may hold any device open already: not to be trusted. */
    if (f->populated)
        return LEASE_REC_END;
    return LEASE_REC_REOPEN;
}
