/* matchlog: see the header. One batch in flight, one gathering. */
#include "server/db/matchlog.h"

#include <stdlib.h>

#include "client/lib/log.h"
#include "client/lib/xalloc.h"
#include "server/db/pgarray.h"

const char matchlog_sql[] =
    "SELECT api.match_log_put($1::bigint[], $2::uuid[], $3::text[], $4::text[], "
    "$5::bigint[], $6::text[], $7::integer[], $8::bigint[], $9::integer[], "
    "$10::integer[], $11::bigint[], $12::bigint[], $13::text[])";

static const uint32_t column_types[MATCHLOG_PARAMS] = {
    PGARRAY_INT8, PGARRAY_UUID, PGARRAY_TEXT, PGARRAY_TEXT, PGARRAY_INT8,
    PGARRAY_TEXT, PGARRAY_INT4, PGARRAY_INT8, PGARRAY_INT4, PGARRAY_INT4,
    PGARRAY_INT8, PGARRAY_INT8, PGARRAY_TEXT};

struct matchlog {
    struct pgconn *on;
    size_t stmt;
    struct event *timer;
    struct pgarray col[MATCHLOG_PARAMS];
    bool flying;
    uint64_t dropped;
};

static void columns_init(struct matchlog *l)
{
    for (int i = 0; i < MATCHLOG_PARAMS; i++)
        pgarray_init(&l->col[i], column_types[i]);
}

static void columns_done(struct matchlog *l)
{
    for (int i = 0; i < MATCHLOG_PARAMS; i++)
        pgarray_done(&l->col[i]);
}

static void wait_a_little(struct matchlog *l)
{
    struct timeval tv = {.tv_usec = MATCHLOG_PAUSE_US};
    event_add(l->timer, &tv);
}

static void on_answer(void *arg, const struct pgconn_answer *a)
{
    struct matchlog *l = arg;
    l->flying = false;
    if (a->status != PGCONN_OK)
        log_warn("the log of matches has a hole: %s", a->err.text);
    if (l->col[0].count > 0)
        wait_a_little(l);
}

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct matchlog *l = arg;
    const char *values[MATCHLOG_PARAMS];
    int lengths[MATCHLOG_PARAMS], formats[MATCHLOG_PARAMS];
    if (l->flying || l->col[0].count == 0)
        return;
    for (int i = 0; i < MATCHLOG_PARAMS; i++) {
        values[i] = pgarray_value(&l->col[i], &lengths[i]);
        formats[i] = 1;
    }
    l->flying = true;
    pgconn_send(l->on, &(struct pgconn_call){.stmt = l->stmt,
                                             .values = values,
                                             .lengths = lengths,
                                             .formats = formats,
                                             .done = on_answer,
                                             .arg = l});
    columns_done(l);
    columns_init(l);
}

struct matchlog *matchlog_new(struct event_base *base, struct pgconn *on, size_t stmt)
{
    struct matchlog *l = xcalloc(1, sizeof *l);
    l->on = on;
    l->stmt = stmt;
    l->timer = event_new(base, -1, 0, on_timer, l);
    if (l->timer == NULL)
        abort();
    columns_init(l);
    return l;
}

void matchlog_free(struct matchlog *l)
{
    if (l == NULL)
        return;
    columns_done(l);
    event_free(l->timer);
    free(l);
}

void matchlog_add(struct matchlog *l, const struct store_match_log *m)
{
    if (l->col[0].count >= MATCHLOG_WAIT_MAX) {
        l->dropped++;
        return;
    }
    bool first = l->col[0].count == 0;
    pgarray_int(&l->col[0], m->at_us);
    pgarray_uuid(&l->col[1], m->tenant_id);
    pgarray_text(&l->col[2], m->kind);
    pgarray_text(&l->col[3], m->outcome);
    pgarray_int(&l->col[4], m->match_us);
    pgarray_text(&l->col[5], m->gpu_model);
    pgarray_int(&l->col[6], m->gpus);
    pgarray_int(&l->col[7], m->duration_s);
    pgarray_int(&l->col[8], m->site_id);
    pgarray_int(&l->col[9], m->dataset_id);
    pgarray_int(&l->col[10], m->rtt_us);
    pgarray_int(&l->col[11], m->slowdown_ppm);
    pgarray_text(&l->col[12], m->why);
    if (first && !l->flying)
        wait_a_little(l);
}

uint64_t matchlog_dropped(const struct matchlog *l)
{
    return l->dropped;
}
