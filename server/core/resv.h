/* resv: the states of a reservation, as one table. sql/migrations has the same rows as
 * a constraint and tests/db compares the two. Pure. */
#ifndef NEARGPU_RESV_H
#define NEARGPU_RESV_H
#include <stdbool.h>
#include <stddef.h>

enum resv_state {
    RESV_WAITING,   /* standing order: nothing booked yet */
    RESV_HELD,      /* booked for a quote, expires by itself */
    RESV_CONFIRMED, /* booked and paid for by a hold; not started */
    RESV_ACTIVE,    /* the window has begun */
    RESV_ENDED,     /* over: window passed and observed gone */
    RESV_CANCELLED, /* given back by the tenant or an administrator */
    RESV_FAILED,    /* the market or a provider could not deliver */
    RESV_STATE_COUNT
};
enum resv_event {
    RESV_EV_BOOK,
    RESV_EV_CONFIRM,
    RESV_EV_START,
    RESV_EV_END,
    RESV_EV_CANCEL,
    RESV_EV_FAIL,
    RESV_EV_EXPIRE,
    RESV_EV_EXTEND,  /* the end moves, either way */
    RESV_EV_PREEMPT, /* spot: a node may know of the lease, its end comes earlier */
    RESV_EV_REQUEUE, /* spot: no node knows of it, it waits again */
    RESV_EV_SHRINK,  /* fewer GPUs */
    RESV_EV_MOVE,    /* elsewhere, at the tenant's wish */
    RESV_EV_REPLACE, /* elsewhere, because its node is lost: at the price it had */
    RESV_EVENT_COUNT
};
struct resv_rule {
    enum resv_state from;
    enum resv_event event;
    enum resv_state to;
};
extern const struct resv_rule resv_rules[];
extern const size_t resv_rule_count;

const char *resv_state_name(enum resv_state s); /* "waiting" … */
bool resv_state_from_name(const char *name, enum resv_state *ret);
const char *resv_event_name(enum resv_event e);
/* The state after event, or false when the table has no such row. */
bool resv_apply(enum resv_state from, enum resv_event event, enum resv_state *ret);
bool resv_is_final(enum resv_state s);
/* States whose booking rows block a GPU. */
bool resv_is_blocking(enum resv_state s);

#endif
