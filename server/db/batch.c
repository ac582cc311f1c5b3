/* batch: group commit; see the header. */
#include "server/db/batch.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/xalloc.h"
#include "server/db/pgarray.h"

#define TRIES_MAX 5

const char batch_book_sql[] =
    "SELECT outcome, id, bookings, lanes FROM api.book($1::uuid[], $2::uuid[], "
    "$3::uuid[], "
    "$4::bigint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[], $9::text[], "
    "$10::bigint[], $11::bigint[], $12::bigint[], $13::text[], $14::bytea[], "
    "$15::boolean[], $16::text[], $17::bigint[], $18::boolean[], $19::integer[], "
    "$20::integer[], $21::integer[], $22::integer[], $23::integer[], $24::bigint[], "
    "$25::bigint[], $26::bigint[], $27::integer[], $28::integer[], $29::integer[], "
    "$30::integer[], $31::bigint[], $32::bigint[], $33::bigint[], $34::uuid[], "
    "$35::bigint[])";

enum { R_ID, R_TENANT, R_QUOTE, R_NOW, R_START, R_END, R_REQUEST, R_DATA, R_CURRENCY };
enum { R_PER_HOUR = R_CURRENCY + 1, R_TOTAL, R_EFFECTIVE, R_KEY, R_HASH, R_SPOT };
enum { R_EXTRA = R_SPOT + 1, R_HOLD, R_WAITING };
enum {
    B_RESV = R_WAITING + 1,
    B_NODE,
    B_SITE,
    B_FIRST,
    B_COUNT,
    B_FROM,
    B_TO,
    B_PRICE
};
enum { L_RESV = B_PRICE + 1, L_PATH, L_FIRST, L_COUNT, L_FROM, L_TO, L_PRICE };
enum { V_ID = L_PRICE + 1, V_CUT };
static const uint32_t column_types[BATCH_BOOK_PARAMS] = {
    [R_ID] = PGARRAY_UUID,       [R_TENANT] = PGARRAY_UUID,
    [R_QUOTE] = PGARRAY_UUID,    [R_NOW] = PGARRAY_INT8,
    [R_START] = PGARRAY_INT8,    [R_END] = PGARRAY_INT8,
    [R_REQUEST] = PGARRAY_TEXT,  [R_DATA] = PGARRAY_TEXT,
    [R_CURRENCY] = PGARRAY_TEXT, [R_PER_HOUR] = PGARRAY_INT8,
    [R_TOTAL] = PGARRAY_INT8,    [R_EFFECTIVE] = PGARRAY_INT8,
    [R_KEY] = PGARRAY_TEXT,      [R_HASH] = PGARRAY_BYTEA,
    [R_SPOT] = PGARRAY_BOOL,     [B_RESV] = PGARRAY_INT4,
    [B_NODE] = PGARRAY_INT4,     [B_SITE] = PGARRAY_INT4,
    [B_FIRST] = PGARRAY_INT4,    [B_COUNT] = PGARRAY_INT4,
    [B_FROM] = PGARRAY_INT8,     [B_TO] = PGARRAY_INT8,
    [B_PRICE] = PGARRAY_INT8,    [R_EXTRA] = PGARRAY_TEXT,
    [R_HOLD] = PGARRAY_INT8,     [R_WAITING] = PGARRAY_BOOL,
    [L_RESV] = PGARRAY_INT4,     [L_PATH] = PGARRAY_INT4,
    [L_FIRST] = PGARRAY_INT4,    [L_COUNT] = PGARRAY_INT4,
    [L_FROM] = PGARRAY_INT8,     [L_TO] = PGARRAY_INT8,
    [L_PRICE] = PGARRAY_INT8,    [V_ID] = PGARRAY_UUID,
    [V_CUT] = PGARRAY_INT8,
};

/* A booking that waits or is being committed: the caller's, copied. */
struct item {
    struct item *next;
    struct store_book in; /* its pointers lead into this item */
    struct store_to to;
    char *request, *data, *key, *extra;
    uint8_t hash[32];
    struct store_booking *bookings;
    struct store_path_booking *paths;
    struct store_preempt *preempts;
    uint64_t key_hash;
    bool solo;
};
struct flight {
    struct batch *batch;
    struct pgconn *writer;
    struct item *items[BOOK_BATCH_MAX];
    size_t count; /* 0: idle */
    int tries;
};
struct batch {
    struct event *ev_pump;
    struct flight flights[BATCH_WRITERS_MAX];
    int writers;
    size_t stmt;
    struct item *head, **tail;
    struct item *refused; /* too many were waiting: told so at the end of the turn */
    struct batch_stats stats;
};

/* ---- items -------------------------------------------------------------------- */

static uint64_t hash_text(uint64_t h, const char *s)
{
    for (; *s != '\0'; s++)
        h = (h ^ (uint8_t)*s) * UINT64_C(1099511628211); /* FNV-1a */
    return h;
}

/* NULL of none. */
static void *copy(const void *from, size_t count, size_t size)
{
    if (count == 0)
        return NULL;
    void *to = xreallocarray(NULL, count, size);
    memcpy(to, from, count * size);
    return to;
}

static struct item *item_new(const struct store_book *in, struct store_to to)
{
    struct item *it = xcalloc(1, sizeof *it);
    assert(in->booking_count >= 1 && in->booking_count <= GANG_NODES_MAX);
    assert(in->path_count <= STORE_PATHS_MAX &&
           in->preempt_count <= STORE_PREEMPTS_MAX);
    it->in = *in;
    it->to = to;
    it->request = jsonx_dump(in->request);
    it->data = in->data != NULL ? jsonx_dump(in->data) : xstrdup("[]");
    it->extra = in->extra != NULL ? jsonx_dump(in->extra) : NULL;
    it->key = xstrdup(in->idem_key[0] != '\0' ? in->idem_key : in->id);
    memcpy(it->hash, in->idem_hash, sizeof it->hash);
    it->bookings = copy(in->bookings, in->booking_count, sizeof *it->bookings);
    it->paths = copy(in->paths, in->path_count, sizeof *it->paths);
    it->preempts = copy(in->preempts, in->preempt_count, sizeof *it->preempts);
    /* api.book takes these alone. */
    it->solo = in->waiting || in->preempt_count > 0;
    it->key_hash =
        hash_text(hash_text(UINT64_C(14695981039346656037), it->key), it->in.tenant_id);
    return it;
}

static void item_free(struct item *it)
{
    free(it->request);
    free(it->data);
    free(it->extra);
    free(it->key);
    free(it->bookings);
    free(it->paths);
    free(it->preempts);
    free(it);
}

static void finish(struct item *it, const struct store_result *r)
{
    it->to.done(it->to.arg, it->to.id, r);
    item_free(it);
}

/* ---- making a batch ------------------------------------------------------------ */

static bool collides(const struct flight *f, const struct item *it)
{
    for (size_t i = 0; i < f->count; i++)
        if (f->items[i]->key_hash == it->key_hash)
            return true;
    return false;
}

static void fill(struct batch *b, struct flight *f)
{
    struct item **at = &b->head;
    while (*at != NULL && f->count < BOOK_BATCH_MAX) {
        struct item *it = *at;
        if ((it->solo && f->count > 0) || collides(f, it)) {
            at = &it->next;
            continue;
        }
        *at = it->next;
        f->items[f->count++] = it;
        b->stats.waiting--;
        if (it->solo)
            break;
    }
    /* Items were taken from anywhere: find the end again. */
    b->tail = &b->head;
    while (*b->tail != NULL)
        b->tail = &(*b->tail)->next;
}

static void add_booking(struct pgarray *col, size_t number,
                        const struct store_booking *k)
{
    pgarray_int(&col[B_RESV], (int64_t)number);
    pgarray_int(&col[B_NODE], k->node_id);
    pgarray_int(&col[B_SITE], k->site_id);
    pgarray_int(&col[B_FIRST], k->first);
    pgarray_int(&col[B_COUNT], k->count);
    pgarray_int(&col[B_FROM], k->from_us);
    pgarray_int(&col[B_TO], k->to_us);
    pgarray_int(&col[B_PRICE], k->per_gpu_hour_micro);
}

static void add_path(struct pgarray *col, size_t number,
                     const struct store_path_booking *k)
{
    pgarray_int(&col[L_RESV], (int64_t)number);
    pgarray_int(&col[L_PATH], k->path_id);
    pgarray_int(&col[L_FIRST], k->first);
    pgarray_int(&col[L_COUNT], k->count);
    pgarray_int(&col[L_FROM], k->from_us);
    pgarray_int(&col[L_TO], k->to_us);
    pgarray_int(&col[L_PRICE], k->price_micro);
}

static void add_item(struct pgarray *col, size_t number, const struct item *it)
{
    const struct store_book *in = &it->in;
    pgarray_uuid(&col[R_ID], in->id);
    pgarray_uuid(&col[R_TENANT], in->tenant_id);
    pgarray_uuid(&col[R_QUOTE], in->quote_id);
    pgarray_int(&col[R_NOW], in->now_us);
    pgarray_int(&col[R_START], in->start_us);
    pgarray_int(&col[R_END], in->end_us);
    pgarray_text(&col[R_REQUEST], it->request);
    pgarray_text(&col[R_DATA], it->data);
    pgarray_text(&col[R_CURRENCY], in->currency);
    pgarray_int(&col[R_PER_HOUR], in->per_hour_micro);
    pgarray_int(&col[R_TOTAL], in->total_micro);
    pgarray_int(&col[R_EFFECTIVE], in->effective_micro);
    pgarray_text(&col[R_KEY], it->key);
    pgarray_bytes(&col[R_HASH], it->hash, sizeof it->hash);
    pgarray_bool(&col[R_SPOT], in->spot);
    if (it->extra != NULL)
        pgarray_text(&col[R_EXTRA], it->extra);
    else
        pgarray_null(&col[R_EXTRA]);
    pgarray_int(&col[R_HOLD], in->hold_until_us);
    pgarray_bool(&col[R_WAITING], in->waiting);
    for (size_t i = 0; i < in->booking_count; i++)
        add_booking(col, number, &it->bookings[i]);
    for (size_t i = 0; i < in->path_count; i++)
        add_path(col, number, &it->paths[i]);
    for (size_t i = 0; i < in->preempt_count; i++) {
        pgarray_uuid(&col[V_ID], it->preempts[i].id);
        pgarray_int(&col[V_CUT], it->preempts[i].cut_us);
    }
}

static void on_answer(void *arg, const struct pgconn_answer *a);

static void send_flight(struct flight *f)
{
    struct pgarray col[BATCH_BOOK_PARAMS];
    const char *values[BATCH_BOOK_PARAMS];
    int lengths[BATCH_BOOK_PARAMS], formats[BATCH_BOOK_PARAMS];
    for (int i = 0; i < BATCH_BOOK_PARAMS; i++)
        pgarray_init(&col[i], column_types[i]);
    for (size_t i = 0; i < f->count; i++)
        add_item(col, i + 1, f->items[i]);
    for (int i = 0; i < BATCH_BOOK_PARAMS; i++) {
        values[i] = pgarray_value(&col[i], &lengths[i]);
        formats[i] = 1;
    }
    pgconn_send(f->writer, &(struct pgconn_call){.stmt = f->batch->stmt,
                                                 .values = values,
                                                 .lengths = lengths,
                                                 .formats = formats,
                                                 .done = on_answer,
                                                 .arg = f});
    for (int i = 0; i < BATCH_BOOK_PARAMS; i++)
        pgarray_done(&col[i]);
}

/* Sends what waits. */
static void launch(struct batch *b, struct flight *f)
{
    fill(b, f);
    f->tries = 0;
    if (f->count == 0)
        return;
    b->stats.batches++;
    if (f->count > b->stats.largest)
        b->stats.largest = f->count;
    send_flight(f);
}

static void pump(struct batch *b)
{
    for (int i = 0; i < b->writers && b->head != NULL; i++) {
        struct flight *f = &b->flights[i];
        /* A lost writer must not hold what the other could take now. */
        if (f->count > 0 || (b->writers > 1 && !pgconn_is_ready(f->writer) &&
                             pgconn_is_ready(b->flights[1 - i].writer)))
            continue;
        launch(b, f);
    }
}

static void answer_all(struct item **list, const char *why)
{
    struct store_result r = {.status = STORE_FAILED};
    (void)err_set(&r.err, ERR_UNAVAILABLE, "database: %s", why);
    while (*list != NULL) {
        struct item *it = *list;
        *list = it->next;
        finish(it, &r);
    }
}

static void on_pump(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct batch *b = arg;
    answer_all(&b->refused, "too many bookings are waiting; try again");
    pump(b);
}

/* At the end of this turn of the loop, so that all that came in it goes together. */
static void pump_soon(struct batch *b)
{
    event_active(b->ev_pump, EV_TIMEOUT, 0);
}

/* ---- answers ------------------------------------------------------------------- */

static enum store_book_outcome outcome_of(const char *name)
{
    static const char *const names[] = {
        [STORE_BOOK_OK] = "ok",
        [STORE_BOOK_DUPLICATE] = "duplicate",
        [STORE_BOOK_KEY_REUSED] = "key_reused",
        [STORE_BOOK_LOST] = "lost",
        [STORE_BOOK_FUNDS] = "funds",
        [STORE_BOOK_BUDGET] = "budget",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], name) == 0)
            return (enum store_book_outcome)i;
    return STORE_BOOK_LOST;
}

/* "{12,13}" */
static size_t parse_numbers(const char *text, int64_t *ret, size_t max)
{
    size_t n = 0;
    for (const char *p = text; *p != '\0' && n < max; p++)
        if (*p == '{' || *p == ',') {
            char *end;
            long long v = strtoll(p + 1, &end, 10);
            if (end != p + 1)
                ret[n++] = v;
        }
    return n;
}

/* The next batch leaves before this one is answered: the writer does not wait for what
 * the answers cause. */
static void answer_booked(struct batch *b, struct flight *f, const PGresult *res)
{
    struct item *items[BOOK_BATCH_MAX];
    int64_t numbers[GANG_NODES_MAX], lanes[STORE_PATHS_MAX];
    size_t count = f->count;
    memcpy(items, f->items, count * sizeof(*items));
    f->count = 0;
    launch(b, f);
    for (size_t i = 0; i < count; i++) {
        int row = (int)i;
        struct store_booked booked = {.outcome = outcome_of(PQgetvalue(res, row, 0)),
                                      .booking_id = numbers,
                                      .lane_booking_id = lanes};
        const char *id = PQgetvalue(res, row, 1);
        if (strlen(id) < sizeof booked.id)
            memcpy(booked.id, id, strlen(id) + 1);
        booked.booking_count =
            parse_numbers(PQgetvalue(res, row, 2), numbers, GANG_NODES_MAX);
        booked.lane_booking_count =
            parse_numbers(PQgetvalue(res, row, 3), lanes, STORE_PATHS_MAX);
        b->stats.booked += booked.outcome == STORE_BOOK_OK;
        b->stats.lost += booked.outcome == STORE_BOOK_LOST;
        struct store_result r = {.status = STORE_OK, .booked = &booked};
        finish(items[i], &r);
    }
}

static bool may_repeat(const char *sqlstate)
{
    return strcmp(sqlstate, "40P01") == 0 || strcmp(sqlstate, "40001") == 0;
}

/* Puts all of the batch back at the front, to go one by one. */
static void split(struct batch *b, struct flight *f)
{
    for (size_t i = f->count; i-- > 0;) {
        struct item *it = f->items[i];
        it->solo = true;
        it->next = b->head;
        if (b->head == NULL)
            b->tail = &it->next;
        b->head = it;
        b->stats.waiting++;
    }
}

static void on_answer(void *arg, const struct pgconn_answer *a)
{
    struct flight *f = arg;
    struct batch *b = f->batch;
    if (a->status == PGCONN_FAILED && may_repeat(a->sqlstate) &&
        ++f->tries < TRIES_MAX) {
        send_flight(f);
        return;
    }
    bool whole = a->status == PGCONN_OK && PQntuples(a->res) == (int)f->count;
    if (whole) {
        answer_booked(b, f, a->res);
        return;
    }
    if (a->status == PGCONN_FAILED && f->count > 1) {
        split(b, f);
    } else {
        struct store_result r = {.status = a->status == PGCONN_UNKNOWN ? STORE_UNKNOWN
                                                                       : STORE_FAILED,
                                 .err = a->err};
        memcpy(r.sqlstate, a->sqlstate, sizeof r.sqlstate);
        for (size_t i = 0; i < f->count; i++)
            finish(f->items[i], &r);
    }
    f->count = 0;
    pump_soon(b);
}

/* ---- for the caller ------------------------------------------------------------- */

struct batch *batch_new(struct event_base *base, struct pgconn *const *writers,
                        int count, size_t stmt)
{
    struct batch *b = xcalloc(1, sizeof *b);
    assert(count >= 1 && count <= BATCH_WRITERS_MAX);
    b->writers = count;
    b->stmt = stmt;
    b->tail = &b->head;
    for (int i = 0; i < count; i++) {
        b->flights[i].batch = b;
        b->flights[i].writer = writers[i];
    }
    b->ev_pump = event_new(base, -1, 0, on_pump, b);
    if (b->ev_pump == NULL)
        abort();
    return b;
}

void batch_free(struct batch *b)
{
    if (b == NULL)
        return;
    answer_all(&b->refused, "the server is stopping");
    answer_all(&b->head, "the server is stopping");
    event_free(b->ev_pump);
    free(b);
}

void batch_add(struct batch *b, const struct store_book *in, struct store_to to)
{
    struct item *it = item_new(in, to);
    if (b->stats.waiting >= BATCH_WAITING_MAX) {
        it->next = b->refused;
        b->refused = it;
    } else {
        *b->tail = it;
        b->tail = &it->next;
        b->stats.waiting++;
    }
    pump_soon(b);
}

void batch_stats(const struct batch *b, struct batch_stats *ret)
{
    *ret = b->stats;
}
