/* pgconn: one pipelined PostgreSQL connection; see the header for the promises. */
#include "server/db/pgconn.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/clock.h"
#include "client/lib/log.h"
#include "client/lib/xalloc.h"

#define BACKOFF_MIN_US     INT64_C(50000)
#define BACKOFF_MAX_US     INT64_C(5000000)
#define CONNECT_MAX_US     INT64_C(5000000)
#define HOUSEKEEP_US       INT64_C(500000)
#define PARAM_FORMAT_TEXT  0
#define RESULT_FORMAT_TEXT 0

enum pgconn_state {
    STATE_DOWN,       /* waiting for the next attempt */
    STATE_CONNECTING, /* PQconnectPoll */
    STATE_SETUP,      /* statements are being prepared: a unit of our own */
    STATE_READY,
};
enum pgconn_what { WHAT_READ, WHAT_WRITE, WHAT_TIMER };

struct unit {
    struct unit *next;
    uint64_t serial; /* given when sent; 0 while waiting */
    int64_t at_us;   /* queued, then sent */
    size_t stmt;
    int count;
    const char **values;
    int *lengths, *formats;
    pgconn_done_fn *done; /* NULL: the setup unit */
    void *arg;
    PGresult *res; /* the result, or the error that came instead or after it */
};
struct unit_list {
    struct unit *head, **tail;
    size_t count;
};

struct pgconn {
    struct event_base *base;
    char *conninfo, *setup, *listen;
    const struct pgconn_stmt *stmts;
    size_t stmt_count;
    struct pgconn_opts opts;
    PGconn *pg;
    enum pgconn_state state;
    struct event *ev_read, *ev_write, *timer;
    bool turning; /* inside pgconn_turn: sends are pumped at its end */
    bool null_seen, closing;
    int64_t since_us, backoff_us, retry_us;
    uint64_t next_serial, next_answer;
    struct unit_list flying, waiting;
    struct unit_list refused; /* the queue was full: told so from the loop */
    struct pgconn_stats stats;
};

static void pgconn_turn(struct pgconn *c, enum pgconn_what what);

/* ---- units -------------------------------------------------------------------- */

static void list_init(struct unit_list *l)
{
    l->head = NULL;
    l->tail = &l->head;
    l->count = 0;
}

static void list_push(struct unit_list *l, struct unit *u)
{
    u->next = NULL;
    *l->tail = u;
    l->tail = &u->next;
    l->count++;
}

static struct unit *list_pop(struct unit_list *l)
{
    struct unit *u = l->head;
    assert(u != NULL && l->count > 0);
    l->head = u->next;
    if (l->head == NULL)
        l->tail = &l->head;
    l->count--;
    return u;
}

static void unit_free(struct unit *u)
{
    if (u->res != NULL)
        PQclear(u->res);
    free(u);
}

/* One block: the unit, its three arrays, then the bytes. */
static struct unit *unit_new(const struct pgconn_call *call, int count)
{
    size_t n = (size_t)count;
    size_t head = sizeof(struct unit) + n * (sizeof(char *) + 2 * sizeof(int));
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++)
        if (call->values[i] != NULL)
            bytes += (call->lengths != NULL && call->formats != NULL &&
                              call->formats[i] != PARAM_FORMAT_TEXT
                          ? (size_t)call->lengths[i]
                          : strlen(call->values[i])) +
                     1;
    struct unit *u = xcalloc(1, head + bytes);
    u->stmt = call->stmt;
    u->count = count;
    u->done = call->done;
    u->arg = call->arg;
    u->values = (const char **)(u + 1);
    u->lengths = (int *)(u->values + n);
    u->formats = u->lengths + n;
    char *at = (char *)(u->formats + n);
    for (size_t i = 0; i < n; i++) {
        if (call->values[i] == NULL)
            continue;
        u->formats[i] = call->formats != NULL ? call->formats[i] : PARAM_FORMAT_TEXT;
        size_t len = u->formats[i] != PARAM_FORMAT_TEXT ? (size_t)call->lengths[i]
                                                        : strlen(call->values[i]);
        memcpy(at, call->values[i], len);
        u->values[i] = at;
        u->lengths[i] = (int)len;
        at += len + 1;
    }
    return u;
}

static void answer(struct pgconn *c, struct unit *u, const struct pgconn_answer *a)
{
    switch (a->status) {
    case PGCONN_OK: c->stats.answered++; break;
    case PGCONN_FAILED:
        c->stats.answered++;
        c->stats.failed++;
        break;
    case PGCONN_UNKNOWN: c->stats.unknown++; break;
    case PGCONN_UNSENT: c->stats.unsent++; break;
    }
    if (u->done != NULL)
        u->done(u->arg, a);
    unit_free(u);
}

static void answer_unsent(struct pgconn *c, struct unit *u, const char *why)
{
    struct pgconn_answer a = {.status = PGCONN_UNSENT};
    (void)err_set(&a.err, ERR_UNAVAILABLE, "database: %s", why);
    answer(c, u, &a);
}

/* ---- errors ------------------------------------------------------------------- */

static enum err_code code_of_sqlstate(const char *s)
{
    if (strncmp(s, "NG", 2) == 0)
        return (enum err_code)strtol(s + 2, NULL, 10);
    if (strncmp(s, "08", 2) == 0 || strncmp(s, "57P", 3) == 0 ||
        strncmp(s, "53", 2) == 0)
        return ERR_UNAVAILABLE;
    if (strcmp(s, "57014") == 0) /* statement_timeout */
        return ERR_TIMEOUT;
    return ERR_INTERNAL;
}

void pgconn_error(const PGresult *res, char sqlstate[6], struct err *ret)
{
    const char *s = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    memset(sqlstate, 0, 6);
    memcpy(sqlstate, s != NULL ? s : "XX000", 5);
    enum err_code code = code_of_sqlstate(sqlstate);
    if (strncmp(sqlstate, "NG", 2) == 0)
        (void)err_set(ret, code, "%s", text != NULL ? text : "refused");
    else
        (void)err_set(ret, code, "database: %s (%s)", text != NULL ? text : "no text",
                      sqlstate);
}

/* The session is over: what the transaction came to is known only to the server. */
static bool is_fatal(const PGresult *res)
{
    const char *severity = PQresultErrorField(res, PG_DIAG_SEVERITY_NONLOCALIZED);
    return severity == NULL || strcmp(severity, "FATAL") == 0 ||
           strcmp(severity, "PANIC") == 0;
}

/* ---- connection --------------------------------------------------------------- */

static void drop_events(struct pgconn *c)
{
    if (c->ev_read != NULL)
        event_free(c->ev_read);
    if (c->ev_write != NULL)
        event_free(c->ev_write);
    c->ev_read = c->ev_write = NULL;
}

static void set_timer(struct pgconn *c, int64_t us)
{
    struct timeval tv = {.tv_sec = us / 1000000, .tv_usec = us % 1000000};
    event_add(c->timer, &tv);
}

static int64_t jitter(int64_t us)
{
    uint32_t r;
    evutil_secure_rng_get_bytes(&r, sizeof r);
    return us / 2 + (int64_t)(r % (uint64_t)us);
}

/* Ends the session, whatever its state: those sent are unknown, the next attempt
 * follows after a pause. */
static void lose(struct pgconn *c, const char *why)
{
    bool was_ready = c->state == STATE_READY;
    drop_events(c);
    if (c->pg != NULL)
        PQfinish(c->pg);
    c->pg = NULL;
    c->state = STATE_DOWN;
    c->null_seen = false;
    c->since_us = clock_boot_us();
    if (was_ready)
        c->stats.losses++;
    struct unit_list gone = c->flying;
    if (gone.head == NULL)
        gone.tail = &gone.head;
    list_init(&c->flying);
    c->next_answer = c->next_serial;
    while (gone.head != NULL) {
        struct unit *u = list_pop(&gone);
        struct pgconn_answer a = {.status = PGCONN_UNKNOWN};
        (void)err_set(&a.err, ERR_UNKNOWN,
                      "the database connection was lost before the answer: the outcome "
                      "is not known");
        answer(c, u, &a);
    }
    int64_t pause_us = jitter(c->backoff_us);
    c->retry_us = c->since_us + pause_us;
    set_timer(c, pause_us);
    c->backoff_us =
        c->backoff_us * 2 > BACKOFF_MAX_US ? BACKOFF_MAX_US : c->backoff_us * 2;
    if (was_ready && !c->closing) {
        log_warn("database connection lost: %s", why);
        if (c->opts.on_state != NULL)
            c->opts.on_state(c->opts.arg, false);
    }
}

static void lose_pg(struct pgconn *c, const char *doing)
{
    char text[200];
    const char *m = PQerrorMessage(c->pg);
    size_t n = strcspn(m, "\n");
    if (n > 150)
        n = 150;
    evutil_snprintf(text, sizeof text, "%s: %.*s", doing, (int)n, m);
    if (c->state != STATE_READY)
        log_at(c->backoff_us > 1000000 ? LOG_LVL_WARN : LOG_LVL_DEBUG,
               "database not reachable: %s", text);
    lose(c, text);
}

static void on_fd(evutil_socket_t fd, short events, void *arg)
{
    (void)fd;
    pgconn_turn(arg, (events & EV_READ) != 0 ? WHAT_READ : WHAT_WRITE);
}

static void on_timer(evutil_socket_t fd, short events, void *arg)
{
    (void)fd;
    (void)events;
    pgconn_turn(arg, WHAT_TIMER);
}

/* libpq may change its socket between polls (several hosts), so the events are made
 * anew for each. */
static void watch(struct pgconn *c, bool read, bool write)
{
    drop_events(c);
    int fd = PQsocket(c->pg);
    c->ev_read = event_new(c->base, fd, EV_READ | EV_PERSIST, on_fd, c);
    c->ev_write = event_new(c->base, fd, EV_WRITE, on_fd, c);
    if (c->ev_read == NULL || c->ev_write == NULL)
        abort();
    if (read)
        event_add(c->ev_read, NULL);
    if (write)
        event_add(c->ev_write, NULL);
}

static void notice(void *arg, const char *message)
{
    (void)arg;
    log_debug("database: %.*s", (int)strcspn(message, "\n"), message);
}

static void start_connect(struct pgconn *c)
{
    c->pg = PQconnectStart(c->conninfo);
    if (c->pg == NULL)
        abort();
    PQsetNoticeProcessor(c->pg, notice, NULL);
    c->state = STATE_CONNECTING;
    c->since_us = clock_boot_us();
    if (PQstatus(c->pg) == CONNECTION_BAD) {
        lose_pg(c, "connect");
        return;
    }
    watch(c, false, true); /* "as if PQconnectPoll had returned WRITING" */
    set_timer(c, HOUSEKEEP_US);
}

static int send_command(struct pgconn *c, const char *sql)
{
    return PQsendQueryParams(c->pg, sql, 0, NULL, NULL, NULL, NULL,
                             RESULT_FORMAT_TEXT) == 1
               ? 0
               : -1;
}

/* Prepares all statements and listens, as one unit. */
static int send_setup(struct pgconn *c)
{
    if (PQsetnonblocking(c->pg, 1) != 0 || PQenterPipelineMode(c->pg) != 1)
        return -1;
    if (c->setup != NULL && send_command(c, c->setup) != 0)
        return -1;
    for (size_t i = 0; i < c->stmt_count; i++)
        if (PQsendPrepare(c->pg, c->stmts[i].name, c->stmts[i].sql, 0, NULL) != 1)
            return -1;
    if (c->listen != NULL && send_command(c, c->listen) != 0)
        return -1;
    if (PQpipelineSync(c->pg) != 1)
        return -1;
    struct unit *u = xcalloc(1, sizeof *u);
    u->serial = c->next_serial++;
    u->at_us = clock_boot_us();
    list_push(&c->flying, u);
    return 0;
}

static void poll_connect(struct pgconn *c)
{
    switch (PQconnectPoll(c->pg)) {
    case PGRES_POLLING_READING: watch(c, true, false); return;
    case PGRES_POLLING_WRITING: watch(c, false, true); return;
    case PGRES_POLLING_OK:
        c->state = STATE_SETUP;
        watch(c, true, false);
        if (send_setup(c) != 0)
            lose_pg(c, "set-up");
        return;
    default: lose_pg(c, "connect"); return;
    }
}

static void setup_done(struct pgconn *c, const PGresult *error)
{
    if (error != NULL) {
        char state[6];
        struct err err;
        pgconn_error(error, state, &err);
        log_warn("database connection cannot be set up: %s", err.text);
        lose(c, err.text);
        return;
    }
    c->state = STATE_READY;
    c->backoff_us = BACKOFF_MIN_US;
    c->stats.connects++;
    if (c->opts.on_state != NULL)
        c->opts.on_state(c->opts.arg, true);
}

/* ---- results ------------------------------------------------------------------ */

static void settle(struct pgconn *c)
{
    struct unit *u = list_pop(&c->flying);
    assert(u->serial == c->next_answer);
    c->next_answer++;
    bool failed = u->res != NULL && PQresultStatus(u->res) == PGRES_FATAL_ERROR;
    if (u->done == NULL) {
        PGresult *error = failed ? u->res : NULL;
        setup_done(c, error);
        unit_free(u);
        return;
    }
    struct pgconn_answer a = {.status = failed ? PGCONN_FAILED : PGCONN_OK,
                              .res = u->res};
    if (failed)
        pgconn_error(u->res, a.sqlstate, &a.err);
    answer(c, u, &a);
}

/* Takes one result for the unit at the head. 0: go on; -1: the connection is lost. */
static int take_result(struct pgconn *c, PGresult *res)
{
    struct unit *u = c->flying.head;
    switch (PQresultStatus(res)) {
    case PGRES_PIPELINE_SYNC:
        PQclear(res);
        settle(c);
        return c->pg == NULL ? -1 : 0;
    case PGRES_FATAL_ERROR:
        if (is_fatal(res)) {
            char text[120];
            const char *m = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
            if (m == NULL) /* made by libpq itself */
                m = PQresultErrorMessage(res);
            evutil_snprintf(text, sizeof text, "%.*s", (int)strcspn(m, "\n"), m);
            PQclear(res);
            lose(c, text);
            return -1;
        }
        break; /* also after a result: a constraint that is checked at commit */
    case PGRES_PIPELINE_ABORTED: /* the rest of the set-up after its first error */
        PQclear(res);
        return 0;
    default: break;
    }
    if (u->res != NULL) {
        if (PQresultStatus(u->res) == PGRES_FATAL_ERROR) {
            PQclear(res);
            return 0;
        }
        PQclear(u->res);
    }
    u->res = res;
    return 0;
}

static void take_notifies(struct pgconn *c)
{
    PGnotify *n;
    while ((n = PQnotifies(c->pg)) != NULL) {
        if (c->opts.on_notify != NULL)
            c->opts.on_notify(c->opts.arg, n->extra, n->be_pid);
        PQfreemem(n);
    }
}

static void drain(struct pgconn *c)
{
    while (c->flying.head != NULL && PQisBusy(c->pg) == 0) {
        PGresult *res = PQgetResult(c->pg);
        if (res == NULL) {
            /* The end of one statement's results. Two in a row never come while units
             * are in flight: libpq has given up on the connection. */
            if (c->null_seen) {
                lose_pg(c, "read");
                return;
            }
            c->null_seen = true;
            continue;
        }
        c->null_seen = false;
        if (take_result(c, res) != 0)
            return;
    }
    take_notifies(c);
}

/* ---- sending ------------------------------------------------------------------ */

static void flush(struct pgconn *c)
{
    int rc = PQflush(c->pg);
    if (rc < 0)
        lose_pg(c, "write");
    else if (rc == 1)
        event_add(c->ev_write, NULL);
}

static void pump(struct pgconn *c)
{
    bool sent = false;
    while (c->state == STATE_READY && c->waiting.head != NULL &&
           c->flying.count < PGCONN_UNITS_MAX) {
        struct unit *u = list_pop(&c->waiting);
        u->serial = c->next_serial++;
        u->at_us = clock_boot_us();
        list_push(&c->flying, u); /* from here on its outcome may be unknown */
        c->stats.sent++;
        sent = true;
        if (PQsendQueryPrepared(c->pg, c->stmts[u->stmt].name, u->count, u->values,
                                u->lengths, u->formats, RESULT_FORMAT_TEXT) != 1 ||
            PQpipelineSync(c->pg) != 1) {
            lose_pg(c, "send");
            return;
        }
    }
    if (sent && c->state == STATE_READY)
        flush(c);
}

static void readable(struct pgconn *c)
{
    if (PQconsumeInput(c->pg) != 1) {
        /* What had arrived before the end is still to be read: it may hold answers. */
        drain(c);
        if (c->pg != NULL)
            lose_pg(c, "read");
        return;
    }
    drain(c);
}

/* Refuses what has waited too long for a connection. */
static void expire_waiting(struct pgconn *c, int64_t now_us)
{
    while (c->waiting.head != NULL &&
           now_us - c->waiting.head->at_us > PGCONN_WAIT_MAX_US)
        answer_unsent(c, list_pop(&c->waiting), "not reachable now; try again");
}

static void housekeep(struct pgconn *c)
{
    int64_t now_us = clock_boot_us();
    if (c->state == STATE_DOWN) {
        expire_waiting(c, now_us);
        if (now_us < c->retry_us)
            set_timer(c, c->retry_us - now_us);
        else
            start_connect(c);
        return;
    }
    set_timer(c, HOUSEKEEP_US);
    if (c->state == STATE_CONNECTING && now_us - c->since_us > CONNECT_MAX_US)
        lose(c, "connecting takes too long");
    else if (c->flying.head != NULL && now_us - c->flying.head->at_us > PGCONN_STALL_US)
        lose(c, "no answer");
}

static void pgconn_turn(struct pgconn *c, enum pgconn_what what)
{
    assert(!c->turning);
    c->turning = true;
    while (c->refused.head != NULL)
        answer_unsent(c, list_pop(&c->refused), "too much is waiting; try again");
    if (what == WHAT_TIMER)
        housekeep(c);
    else if (c->state == STATE_CONNECTING)
        poll_connect(c);
    else if (what == WHAT_READ)
        readable(c);
    else if (c->pg != NULL)
        flush(c);
    if (c->state == STATE_READY)
        pump(c);
    c->turning = false;
}

/* ---- for the caller ----------------------------------------------------------- */

struct pgconn *pgconn_new(struct event_base *base, const struct pgconn_opts *opts)
{
    struct pgconn *c = xcalloc(1, sizeof *c);
    c->base = base;
    c->opts = *opts;
    c->conninfo = xstrdup(opts->conninfo);
    c->setup = opts->setup != NULL ? xstrdup(opts->setup) : NULL;
    c->listen = opts->listen != NULL ? xasprintf("LISTEN %s", opts->listen) : NULL;
    c->stmts = opts->stmts;
    c->stmt_count = opts->stmt_count;
    c->next_serial = c->next_answer = 1;
    c->backoff_us = BACKOFF_MIN_US;
    list_init(&c->flying);
    list_init(&c->waiting);
    list_init(&c->refused);
    c->timer = event_new(base, -1, 0, on_timer, c);
    if (c->timer == NULL)
        abort();
    set_timer(c, 0);
    return c;
}

void pgconn_free(struct pgconn *c)
{
    if (c == NULL)
        return;
    assert(!c->turning);
    c->turning = true; /* sends from done functions only queue */
    c->closing = true;
    if (c->pg != NULL)
        lose(c, "closed");
    while (c->refused.head != NULL)
        answer_unsent(c, list_pop(&c->refused), "the server is stopping");
    while (c->waiting.head != NULL)
        answer_unsent(c, list_pop(&c->waiting), "the server is stopping");
    event_free(c->timer);
    free(c->conninfo);
    free(c->setup);
    free(c->listen);
    free(c);
}

void pgconn_send(struct pgconn *c, const struct pgconn_call *call)
{
    assert(call->stmt < c->stmt_count);
    struct unit *u = unit_new(call, c->stmts[call->stmt].param_count);
    u->at_us = clock_boot_us();
    if (c->waiting.count >= PGCONN_QUEUE_MAX) {
        list_push(&c->refused, u);
        event_active(c->timer, EV_TIMEOUT, 0);
        return;
    }
    list_push(&c->waiting, u);
    /* Several sends of one turn leave together, from the timer at its end. */
    if (c->state == STATE_READY && !c->turning)
        event_active(c->timer, EV_TIMEOUT, 0);
}

bool pgconn_is_ready(const struct pgconn *c)
{
    return c->state == STATE_READY;
}

size_t pgconn_load(const struct pgconn *c)
{
    return c->flying.count + c->waiting.count;
}

void pgconn_stats(const struct pgconn *c, struct pgconn_stats *ret)
{
    *ret = c->stats;
    ret->in_flight = c->flying.count;
    ret->waiting = c->waiting.count;
}

int pgconn_backend_pid(const struct pgconn *c)
{
    return c->pg != NULL && c->state == STATE_READY ? PQbackendPID(c->pg) : 0;
}
