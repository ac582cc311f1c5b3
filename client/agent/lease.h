/* lease: the life of one lease on this node, as a table {from, event, to, action}.
 *
 * Pure: no clock, no file, no kernel. lease_apply() only says what comes next; the edge
 * performs the action, and every action is idempotent, so that after a crash the edge
 * may apply the last event again.
 *
 * Invariants: a lease that left READY/RUNNING/DRAINING through LEASE_EV_END never goes
 * back; DONE is reached only through an observed empty cgroup and a clean GPU;
 * QUARANTINED is left only by a person. An event that has no row is an error of the
 * caller, reported, never guessed.
 *
 * Does not hold the lease's data (journal) nor touch the kernel (enforce). */
#ifndef NEARGPU_LEASE_H
#define NEARGPU_LEASE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"

enum lease_state {
    LEASE_OPENING,     /* journalled; cgroup and gate being made */
    LEASE_READY,       /* gate attached, no job */
    LEASE_RUNNING,     /* at least one job */
    LEASE_DRAINING,    /* SIGTERM sent, no new jobs; ends at the deadline */
    LEASE_DENIED,      /* gate closed, being killed, not yet seen empty */
    LEASE_CLEANING,    /* empty; GPUs being checked and scrubbed */
    LEASE_DONE,        /* nothing of it is left on this node */
    LEASE_QUARANTINED, /* could not be emptied or cleaned: GPUs are never granted */
    LEASE_STATE_COUNT
};

enum lease_event {
    LEASE_EV_OPENED,       /* cgroup, limits and gate are in place */
    LEASE_EV_OPEN_FAILED,  /* they are not: take away whatever there is */
    LEASE_EV_JOB_STARTED,  /* a job runs */
    LEASE_EV_JOBS_GONE,    /* no job runs any more */
    LEASE_EV_DRAIN_DUE,    /* deadline minus drain has come */
    LEASE_EV_EXTENDED,     /* a later end was granted */
    LEASE_EV_SHORTENED,    /* an earlier end was ordered */
    LEASE_EV_END,          /* deadline, revocation, stop, or lost market */
    LEASE_EV_EMPTIED,      /* cgroup seen unpopulated after END */
    LEASE_EV_KILL_TIMEOUT, /* still populated LEASE_KILL_US after END */
    LEASE_EV_CLEANED,      /* GPUs clean, cgroup removed */
    LEASE_EV_CLEAN_FAILED, /* holder left, memory above baseline, GPU lost */
    LEASE_EV_RELEASED,     /* a person released the quarantine */
    LEASE_EVENT_COUNT
};

enum lease_action {
    LEASE_ACT_NONE,
    LEASE_ACT_SEND_READY,    /* write the `ready` receipt: billing starts */
    LEASE_ACT_TERM_JOBS,     /* SIGTERM to every job */
    LEASE_ACT_REGATE,        /* enforce open() with the new deadline, journal it */
    LEASE_ACT_DENY_KILL,     /* enforce deny(), then kill() */
    LEASE_ACT_CLEAN,         /* holders, memory, scrub, enforce close() */
    LEASE_ACT_SEND_TEARDOWN, /* write the `teardown` receipt: billing ends */
    LEASE_ACT_ALARM,         /* tell people; GPUs stay out of the market */
};

#define LEASE_KILL_US INT64_C(5000000) /* killed but still populated: quarantine */

struct lease_row {
    enum lease_state from;
    enum lease_event event;
    enum lease_state to;
    enum lease_action action;
};

/* The table, for tests and documentation. */
const struct lease_row *lease_rows(size_t *ret_count);

/* Next state and what to do. ERR_CONFLICT when the event has no row in this state. */
int lease_apply(enum lease_state from, enum lease_event event, enum lease_state *ret_to,
                enum lease_action *ret_action, struct err *err) MUST_USE;

/* Stable names, used in the journal ("denied") and in messages. */
const char *lease_state_name(enum lease_state state);
const char *lease_event_name(enum lease_event event);
bool lease_state_parse(const char *name, enum lease_state *ret_state);
/* The name the market knows (docs/wire.md): as lease_state_name, but `denied` is
 * reported as `cleaning`. */
const char *lease_state_wire(enum lease_state state);
/* True while a job may be started. */
bool lease_state_may_launch(enum lease_state state);

/* What a restarted agent does with one lease, from what it finds. */
struct lease_found {
    bool journalled;          /* lease.json could be read */
    bool same_boot;           /* journalled in this boot */
    enum lease_state state;   /* journalled state (if journalled) */
    bool cgroup;              /* its cgroup exists */
    bool gated;               /* our device program is attached to it */
    bool populated;           /* it has processes */
    int64_t deadline_boot_us; /* if journalled in this boot */
};

enum lease_recovery {
    LEASE_REC_KEEP,     /* inside its time, gate in place: do not touch it */
    LEASE_REC_REOPEN,   /* inside its time, nothing runs: enforce open() again */
    LEASE_REC_REBOOTED, /* of an earlier boot: nothing runs; once there is signed time,
                           compute the deadline anew, then reopen or end */
    LEASE_REC_END,      /* overdue, ending, or processes without a gate: apply
                           LEASE_EV_END */
    LEASE_REC_ORPHAN,   /* cgroup without a journal: deny, kill, close */
    LEASE_REC_FORGET,   /* done; only the journal entry is left */
    LEASE_REC_HOLD,     /* quarantined before: stays quarantined */
};

enum lease_recovery lease_recover(const struct lease_found *found, int64_t now_boot_us);

#endif
