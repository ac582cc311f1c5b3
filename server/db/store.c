/* store: the pool behind the operations; see the header. */
#include "server/db/store.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/log.h"
#include "client/lib/xalloc.h"
#include "server/db/batch.h"
#include "server/db/matchlog.h"
#include "server/db/pgconn.h"
#include "server/db/store_ops.h"

#define READERS_DEFAULT 4
#define READERS_MAX     32
#define PARAMS_MAX      16
#define TRIES_MAX       4

/* The writers' statements. */
enum { WRITER_BOOK, WRITER_MATCHLOG, WRITER_STMTS };

struct store {
    struct event_base *base;
    struct store_opts opts;
    struct pgconn *readers[READERS_MAX], *writers[BATCH_WRITERS_MAX], *report;
    int reader_count, writer_count;
    struct pgconn_stmt main_stmts[STORE_OP_COUNT], report_stmts[STORE_OP_COUNT];
    struct pgconn_stmt writer_stmts[WRITER_STMTS];
    size_t main_count, report_count, index[STORE_OP_COUNT];
    struct batch *batch;
    struct matchlog *matchlog;
    bool closing;
    uint64_t calls, failed, unknown;
};

/* A call on its way: kept so that it can be sent again. */
struct call {
    struct store *store;
    enum store_op op;
    struct store_to to;
    int count, tries;
    char *values[PARAMS_MAX];
    int lengths[PARAMS_MAX], formats[PARAMS_MAX];
};

/* ---- parameters ---------------------------------------------------------------- */

static bool type_fits(char want, enum store_type got)
{
    switch (got) {
    case STORE_T_NULL: return true;
    case STORE_T_TEXT: return want == 't';
    case STORE_T_INT: return want == 'i';
    case STORE_T_BOOL: return want == 'b';
    case STORE_T_REAL: return want == 'r';
    case STORE_T_BYTES: return want == 'h';
    case STORE_T_JSON: return want == 'j';
    }
    return false;
}

static void encode(struct call *c, int i, const struct store_arg *a)
{
    switch (a->type) {
    case STORE_T_NULL: break;
    case STORE_T_TEXT: c->values[i] = a->text != NULL ? xstrdup(a->text) : NULL; break;
    case STORE_T_INT: c->values[i] = xasprintf("%lld", (long long)a->i); break;
    case STORE_T_BOOL: c->values[i] = xstrdup(a->i ? "t" : "f"); break;
    case STORE_T_REAL: c->values[i] = xasprintf("%.17g", a->d); break;
    case STORE_T_JSON:
        c->values[i] = a->json != NULL ? jsonx_dump(a->json) : NULL;
        break;
    case STORE_T_BYTES:
        c->values[i] = xmalloc(a->len + 1);
        memcpy(c->values[i], a->bytes, a->len);
        c->values[i][a->len] = '\0';
        c->lengths[i] = (int)a->len;
        c->formats[i] = 1;
        break;
    }
}

static void call_free(struct call *c)
{
    for (int i = 0; i < c->count; i++)
        free(c->values[i]);
    free(c);
}

/* ---- sending ------------------------------------------------------------------- */

/* The connection that has least to do, among those connected if any is. */
static struct pgconn *least_loaded(const struct store *s)
{
    struct pgconn *best = s->readers[0];
    for (int i = 1; i < s->reader_count; i++) {
        struct pgconn *c = s->readers[i];
        bool better = pgconn_load(c) < pgconn_load(best);
        if (pgconn_is_ready(c) != pgconn_is_ready(best))
            better = pgconn_is_ready(c);
        if (better)
            best = c;
    }
    return best;
}

static void on_answer(void *arg, const struct pgconn_answer *a);

/* No connection for reports: told from the loop, like every answer. */
static void on_no_report(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct pgconn_answer a = {.status = PGCONN_UNSENT};
    (void)err_set(&a.err, ERR_UNAVAILABLE, "this server gives no reports");
    on_answer(arg, &a);
}

static void send_call(struct call *c)
{
    struct store *s = c->store;
    const struct store_opdef *def = &store_ops[c->op];
    if (def->lane == LANE_REPORT && s->report == NULL) {
        struct timeval now = {0};
        if (event_base_once(s->base, -1, EV_TIMEOUT, on_no_report, c, &now) != 0)
            abort();
        return;
    }
    struct pgconn *on = def->lane == LANE_REPORT ? s->report : least_loaded(s);
    pgconn_send(on, &(struct pgconn_call){.stmt = s->index[c->op],
                                          .values = (const char *const *)c->values,
                                          .lengths = c->lengths,
                                          .formats = c->formats,
                                          .done = on_answer,
                                          .arg = c});
}

static bool again(const struct call *c, const struct pgconn_answer *a)
{
    if (c->store->closing || c->tries + 1 >= TRIES_MAX)
        return false;
    if (a->status == PGCONN_UNKNOWN)
        return store_ops[c->op].repeat;
    /* Rolled back for the sake of another: nothing was done. */
    return a->status == PGCONN_FAILED &&
           (strcmp(a->sqlstate, "40P01") == 0 || strcmp(a->sqlstate, "40001") == 0);
}

static void read_json(const PGresult *res, struct store_result *r)
{
    json_error_t e;
    const char *text = PQntuples(res) == 1 ? PQgetvalue(res, 0, 0) : "";
    r->json = json_loads(text, JSON_DECODE_ANY, &e);
    if (r->json != NULL)
        return;
    r->status = STORE_FAILED;
    (void)err_set(&r->err, ERR_INTERNAL, "database: an answer that is no JSON: %s",
                  e.text);
}

/* Constraints that only bad input can break: names, ranges, unknown references. */
static void name_refusal(struct store_result *r)
{
    static const struct {
        const char *state;
        enum err_code code;
    } table[] = {
        {"22P02", ERR_BAD_REQUEST}, {"22003", ERR_BAD_REQUEST},
        {"22008", ERR_BAD_REQUEST}, {"23514", ERR_BAD_REQUEST},
        {"23503", ERR_NOT_FOUND},   {"23505", ERR_CONFLICT},
        {"23P01", ERR_CONFLICT},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++)
        if (strcmp(r->sqlstate, table[i].state) == 0)
            r->err.code = table[i].code;
}

static void on_answer(void *arg, const struct pgconn_answer *a)
{
    struct call *c = arg;
    struct store *s = c->store;
    if (again(c, a)) {
        c->tries++;
        send_call(c);
        return;
    }
    struct store_result r = {.status = STORE_OK};
    if (a->status == PGCONN_OK) {
        if (store_ops[c->op].shape == SHAPE_ROWS)
            r.rows = (void *)(uintptr_t)a->res;
        else
            read_json(a->res, &r);
    } else {
        r.status = a->status == PGCONN_UNKNOWN ? STORE_UNKNOWN : STORE_FAILED;
        r.err = a->err;
        memcpy(r.sqlstate, a->sqlstate, sizeof r.sqlstate);
        name_refusal(&r);
        s->failed += r.status == STORE_FAILED;
        s->unknown += r.status == STORE_UNKNOWN;
        if (r.err.code == ERR_INTERNAL)
            log_error("%s: %s", store_ops[c->op].name, r.err.text);
    }
    c->to.done(c->to.arg, c->to.id, &r);
    json_decref(r.json);
    call_free(c);
}

void store_call(struct store *s, enum store_op op, const struct store_arg *args,
                size_t count, struct store_to to)
{
    const struct store_opdef *def = &store_ops[op];
    assert(op < STORE_OP_COUNT && count == strlen(def->types) && count <= PARAMS_MAX);
    struct call *c = xcalloc(1, sizeof *c);
    c->store = s;
    c->op = op;
    c->to = to;
    c->count = (int)count;
    for (size_t i = 0; i < count; i++) {
        assert(type_fits(def->types[i], args[i].type));
        encode(c, (int)i, &args[i]);
    }
    s->calls++;
    send_call(c);
}

void store_book(struct store *s, const struct store_book *b, struct store_to to)
{
    batch_add(s->batch, b, to);
}

void store_log_match(struct store *s, const struct store_match_log *m)
{
    matchlog_add(s->matchlog, m);
}

/* ---- results ------------------------------------------------------------------- */

size_t store_rows(const struct store_result *r)
{
    return (size_t)PQntuples(r->rows);
}

bool store_is_null(const struct store_result *r, size_t row, int col)
{
    return PQgetisnull(r->rows, (int)row, col) == 1;
}

const char *store_text(const struct store_result *r, size_t row, int col)
{
    return PQgetvalue(r->rows, (int)row, col);
}

int64_t store_i64(const struct store_result *r, size_t row, int col)
{
    return strtoll(PQgetvalue(r->rows, (int)row, col), NULL, 10);
}

double store_real(const struct store_result *r, size_t row, int col)
{
    return strtod(PQgetvalue(r->rows, (int)row, col), NULL);
}

/* ---- the pool ------------------------------------------------------------------- */

static void on_notify(void *arg, const char *payload, int pid)
{
    (void)payload;
    struct store *s = arg;
    bool own = false;
    if (s->opts.on_change == NULL || s->closing)
        return;
    for (int i = 0; i < s->writer_count; i++)
        own = own || (pid != 0 && pid == pgconn_backend_pid(s->writers[i]));
    s->opts.on_change(s->opts.arg, own);
}

static void on_listener(void *arg, bool ready)
{
    if (ready) /* what was notified meanwhile went past us */
        on_notify(arg, "", 0);
}

static void fill_tables(struct store *s)
{
    for (int op = 0; op < STORE_OP_COUNT; op++) {
        const struct store_opdef *def = &store_ops[op];
        struct pgconn_stmt st = {def->name, def->sql, (int)strlen(def->types)};
        assert(def->name != NULL);
        if (def->lane == LANE_REPORT) {
            s->index[op] = s->report_count;
            s->report_stmts[s->report_count++] = st;
        } else {
            s->index[op] = s->main_count;
            s->main_stmts[s->main_count++] = st;
        }
    }
    s->writer_stmts[WRITER_BOOK] =
        (struct pgconn_stmt){"book", batch_book_sql, BATCH_BOOK_PARAMS};
    s->writer_stmts[WRITER_MATCHLOG] =
        (struct pgconn_stmt){"match_log", matchlog_sql, MATCHLOG_PARAMS};
}

/* "SET neargpu.origin = '…'" with nothing but harmless characters. */
static void origin_command(const char *origin, char *out, size_t cap)
{
    char name[64];
    size_t n = 0;
    for (; origin != NULL && origin[n] != '\0' && n < sizeof name - 1; n++)
        name[n] = isalnum((unsigned char)origin[n]) != 0 ? origin[n] : '-';
    name[n] = '\0';
    snprintf(out, cap, "SET neargpu.origin = '%s'", name);
}

static int bounded(int asked, int fallback, int max)
{
    int n = asked > 0 ? asked : fallback;
    return n > max ? max : n;
}

struct store *store_new(struct event_base *base, const struct store_opts *opts)
{
    struct store *s = xcalloc(1, sizeof *s);
    char origin[100];
    s->base = base;
    s->opts = *opts;
    s->reader_count = bounded(opts->readers, READERS_DEFAULT, READERS_MAX);
    s->writer_count = bounded(opts->writers, 1, BATCH_WRITERS_MAX);
    fill_tables(s);
    origin_command(opts->origin, origin, sizeof origin);
    for (int i = 0; i < s->reader_count; i++)
        s->readers[i] = pgconn_new(
            base, &(struct pgconn_opts){.conninfo = opts->conninfo,
                                        .stmts = s->main_stmts,
                                        .stmt_count = s->main_count,
                                        .setup = origin,
                                        .listen = i == 0 ? "neargpu" : NULL,
                                        .on_notify = on_notify,
                                        .on_state = i == 0 ? on_listener : NULL,
                                        .arg = s});
    for (int i = 0; i < s->writer_count; i++)
        s->writers[i] =
            pgconn_new(base, &(struct pgconn_opts){.conninfo = opts->conninfo,
                                                   .stmts = s->writer_stmts,
                                                   .stmt_count = WRITER_STMTS,
                                                   .setup = origin});
    if (opts->report_conninfo != NULL)
        s->report =
            pgconn_new(base, &(struct pgconn_opts){.conninfo = opts->report_conninfo,
                                                   .stmts = s->report_stmts,
                                                   .stmt_count = s->report_count});
    s->batch = batch_new(base, s->writers, s->writer_count, WRITER_BOOK);
    s->matchlog = matchlog_new(base, s->writers[0], WRITER_MATCHLOG);
    return s;
}

void store_free(struct store *s)
{
    if (s == NULL)
        return;
    s->closing = true;
    for (int i = 0; i < s->reader_count; i++)
        pgconn_free(s->readers[i]);
    for (int i = 0; i < s->writer_count; i++)
        pgconn_free(s->writers[i]);
    pgconn_free(s->report);
    batch_free(s->batch);
    matchlog_free(s->matchlog);
    free(s);
}

bool store_is_ready(const struct store *s)
{
    bool reader = false, writer = false;
    for (int i = 0; i < s->reader_count; i++)
        reader = reader || pgconn_is_ready(s->readers[i]);
    for (int i = 0; i < s->writer_count; i++)
        writer = writer || pgconn_is_ready(s->writers[i]);
    return reader && writer;
}

static void add_stats(const struct pgconn *c, struct store_stats *ret)
{
    struct pgconn_stats st;
    pgconn_stats(c, &st);
    ret->connections++;
    ret->connected += pgconn_is_ready(c);
    ret->in_flight += st.in_flight;
    ret->waiting += st.waiting;
    ret->reconnects += st.losses;
}

void store_stats(const struct store *s, struct store_stats *ret)
{
    struct batch_stats b;
    memset(ret, 0, sizeof *ret);
    for (int i = 0; i < s->reader_count; i++)
        add_stats(s->readers[i], ret);
    for (int i = 0; i < s->writer_count; i++)
        add_stats(s->writers[i], ret);
    batch_stats(s->batch, &b);
    ret->calls = s->calls;
    ret->failed = s->failed;
    ret->unknown = s->unknown;
    ret->batches = b.batches;
    ret->booked = b.booked;
    ret->lost = b.lost;
    ret->waiting += b.waiting;
}
