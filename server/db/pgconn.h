/* pgconn: one PostgreSQL connection in libpq's pipeline mode on a libevent base.
 *
 * Charter: keeps the connection (connects, prepares a fixed table of statements,
 * listens on a channel, reconnects with jittered back-off) and moves units through it.
 * A unit is one prepared statement and a sync: a failed unit never aborts another one.
 * It knows nothing of what the statements mean, never retries and never logs a value.
 *
 * Invariants
 *  - Units are answered in the order they were given; the serial is asserted on pop.
 *  - A unit is settled by its *sync*, not by its result: the commit happens in between.
 *  - EV_READ is always armed while connected, EV_WRITE only while PQflush() says 1;
 *    PQgetResult() is never called while PQisBusy().
 *  - At most PGCONN_UNITS_MAX units are in flight, PGCONN_QUEUE_MAX wait behind them.
 *  - A lost connection ends every unit already sent as PGCONN_UNKNOWN; those not sent
 *    stay for the next connection, and end as PGCONN_UNSENT when that takes longer than
 *    PGCONN_WAIT_MAX_US.
 *  - done is called exactly once a unit, from the event loop or pgconn_free(), never
 *    from pgconn_send(). It may call pgconn_send(), not
 *    pgconn_free(). */
#ifndef NEARGPU_PGCONN_H
#define NEARGPU_PGCONN_H
#include <event2/event.h>
#include <libpq-fe.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/bounds.h"
#include "client/lib/err.h"

#define PGCONN_QUEUE_MAX 65536 /* a restart of the database under 100k agents */
#define PGCONN_WAIT_MAX_US \
    (INT64_C(10) * 1000000) /* clients wait about that long before they retry */
#define PGCONN_STALL_US                                                   \
    (INT64_C(90) * 1000000) /* over the roles' statement_timeout: nothing \
                               comes any more */

enum pgconn_status {
    PGCONN_OK,
    PGCONN_FAILED,  /* the database refused; rolled back */
    PGCONN_UNKNOWN, /* sent, connection lost before the sync */
    PGCONN_UNSENT,  /* never sent */
};
struct pgconn_answer {
    enum pgconn_status status;
    const PGresult *res; /* OK: tuples or command; FAILED: the error; else NULL */
    char sqlstate[6];    /* FAILED */
    struct err err;      /* not OK: code as store.h's conventions, and text */
};
typedef void pgconn_done_fn(void *arg, const struct pgconn_answer *a);

/* The statements every connection prepares, fixed for its life. */
struct pgconn_stmt {
    const char *name, *sql;
    int param_count;
};
struct pgconn_opts {
    const char *conninfo; /* copied */
    const struct pgconn_stmt *stmts;
    size_t stmt_count;
    const char *setup;  /* one command after connecting ("SET …"), NULL: none */
    const char *listen; /* channel (a plain identifier), NULL: none */
    /* Inside the drain. pid: the session that notified. */
    void (*on_notify)(void *arg, const char *payload, int pid);
    void (*on_state)(void *arg, bool ready); /* connected or lost */
    void *arg;
};
/* What pgconn_send() needs; everything is copied. values[i] NULL is SQL null. lengths
 * and formats may be NULL: all text. Results come as text. */
struct pgconn_call {
    size_t stmt; /* index into the table */
    const char *const *values;
    const int *lengths, *formats;
    pgconn_done_fn *done;
    void *arg;
};
struct pgconn_stats {
    uint64_t sent, answered, failed, unknown, unsent, connects, losses;
    size_t in_flight, waiting;
};

struct pgconn;
struct pgconn *pgconn_new(struct event_base *base, const struct pgconn_opts *opts);
/* Open units end (UNKNOWN or UNSENT) before it returns. NULL is fine. */
void pgconn_free(struct pgconn *c);
void pgconn_send(struct pgconn *c, const struct pgconn_call *call);
bool pgconn_is_ready(const struct pgconn *c);
/* Units given and not yet answered. */
size_t pgconn_load(const struct pgconn *c);
void pgconn_stats(const struct pgconn *c, struct pgconn_stats *ret);
int pgconn_backend_pid(const struct pgconn *c); /* 0 when not connected */

/* The error of a refused statement by the conventions of store.h. */
void pgconn_error(const PGresult *res, char sqlstate[6], struct err *ret);

#endif
