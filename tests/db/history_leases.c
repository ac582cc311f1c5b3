/* history_run: what happens to leases: booked, held, confirmed, changed, used, told in
 * receipts, cut short. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/db/history_run.h"
#include "tests/unit/unit.h"

#define NODE_GPUS  62
#define PATH_LANES 16

static bool meets(int64_t a, int64_t b, int64_t c, int64_t d)
{
    return a < d && c < b;
}

/* Whether nobody but `self` was ever promised any of these GPUs then. */
static bool gpus_free(const struct history *h, int self, int node, int first, int count,
                      int64_t from, int64_t to)
{
    for (int i = 0; i < h->resv_count; i++) {
        const struct h_resv *r = &h->resv[i];
        if (i == self || !meets(r->start, r->blocked_to, from, to))
            continue;
        for (int k = 0; k < r->nodes; k++)
            if (r->chain[k].node == node &&
                meets(r->chain[k].first, r->chain[k].first + r->chain[k].gpus, first,
                      first + count))
                return false;
    }
    return true;
}

static bool lanes_free(const struct history *h, int self, const struct h_lanes *l,
                       int64_t to)
{
    for (int i = 0; i < h->resv_count; i++) {
        const struct h_lanes *o = &h->resv[i].lanes;
        if (i != self && o->count > 0 && o->path == l->path &&
            meets(o->from, h->resv[i].blocked_to, l->from, to) &&
            meets(o->first, o->first + o->count, l->first, l->first + l->count))
            return false;
    }
    return true;
}

/* ---- booking -------------------------------------------------------------------- */

static int64_t price(struct run *x)
{
    static const int64_t prices[] = {0, 3, 999, 1234567, 123456789, 1000000000};
    return run_pick(x, 3) > 0 ? run_pick(x, 900000000) : prices[run_pick(x, 6)];
}

static bool draw_nodes(struct run *x, struct h_resv *r)
{
    struct history *h = &x->h;
    r->nodes = 1 + (run_pick(x, 3) == 0);
    int node = run_pick(x, H_NODES), gpus = 1 + run_pick(x, 4);
    int64_t each = price(x);
    for (int k = 0; k < r->nodes; k++) {
        struct h_chain *c = &r->chain[k];
        *c = (struct h_chain){.node =
                                  (node + k * (1 + run_pick(x, H_NODES - 1))) % H_NODES,
                              .gpus = gpus,
                              .price = k == 0 || run_pick(x, 2) ? each : price(x)};
        c->first = run_pick(x, NODE_GPUS - gpus + 1);
        c->fee_ppm = h_fee_ppm(h, h->node_provider[c->node]);
        if (!gpus_free(h, -1, c->node, c->first, gpus, r->start, r->end))
            return false;
    }
    return r->nodes == 1 || r->chain[0].node != r->chain[1].node;
}

static bool draw_lanes(struct run *x, struct h_resv *r)
{
    struct h_lanes *l = &r->lanes;
    l->path = run_pick(x, H_PATHS);
    l->count = 1 + run_pick(x, 3);
    l->first = run_pick(x, PATH_LANES - l->count + 1);
    l->price = price(x);
    l->from = r->start - (run_pick(x, 2) ? 0 : run_pick(x, 7200) * SEC_US);
    l->to = r->end;
    l->fee_ppm = h_fee_ppm(&x->h, x->h.path_provider[l->path]);
    return lanes_free(&x->h, -1, l, r->end);
}

#define A2(type, f) \
    "(ARRAY[%" type ",%" type "])[:%d]", r->chain[0].f, r->chain[1].f, r->nodes

static char *book_sql(const struct run *x, const struct h_resv *r, int i)
{
    struct strbuf s = STRBUF_INIT;
    const struct h_lanes *l = &r->lanes;
    const char *id = run_resv_id(i);
    int lanes = l->count > 0;
    strbuf_addf(&s,
                "SELECT outcome FROM api.book(ARRAY['%s'::uuid], ARRAY[(SELECT id FROM "
                "ng.tenant WHERE name = 't%d')], ARRAY['%s'::uuid], ARRAY[%" PRId64
                "], ARRAY[%" PRId64 "], ARRAY[%" PRId64 "], ARRAY['{}'], ARRAY['[]'], ",
                id, r->tenant, id, x->h.now, r->start, r->end);
    strbuf_addf(&s,
                "ARRAY[ng.currency()], ARRAY[0], ARRAY[%" PRId64 "], ARRAY[%" PRId64
                "], ARRAY['%s'], ARRAY[t.hash('%s')], ARRAY[%s], ARRAY[NULL::text], "
                "ARRAY[%" PRId64 "], ARRAY[false], (ARRAY[1, 1])[:%d], ",
                r->total, r->total, id, id, r->spot ? "true" : "false", r->hold_until,
                r->nodes);
    strbuf_addf(&s, "(ARRAY[%d,%d])[:%d], ", r->chain[0].node + 1, r->chain[1].node + 1,
                r->nodes);
    strbuf_addf(&s, "(ARRAY[1,1])[:%d], ", r->nodes);
    strbuf_addf(&s, A2("d", first));
    strbuf_adds(&s, ", ");
    strbuf_addf(&s, A2("d", gpus));
    strbuf_addf(&s,
                ", array_fill(%" PRId64 ", ARRAY[%d]), array_fill(%" PRId64
                ", ARRAY[%d]), ",
                r->start, r->nodes, r->end, r->nodes);
    strbuf_addf(&s, A2(PRId64, price));
    strbuf_addf(&s,
                ", (ARRAY[1])[:%d], (ARRAY[%d])[:%d], (ARRAY[%d])[:%d], "
                "(ARRAY[%d])[:%d], (ARRAY[%" PRId64 "])[:%d], (ARRAY[%" PRId64
                "])[:%d], (ARRAY[%" PRId64 "])[:%d], '{}', '{}')",
                lanes, l->path + 1, lanes, l->first, lanes, l->count, lanes, l->from,
                lanes, l->to, lanes, l->price, lanes);
    return strbuf_steal(&s);
}

static void book(struct run *x)
{
    struct history *h = &x->h;
    if (h->resv_count == RUN_RESVS)
        return;
    struct h_resv r = {
        .tenant = run_pick(x, H_TENANTS),
        .start =
            h->now + (run_pick(x, 3) ? 0 : run_pick(x, 600000) * INT64_C(1000000))};
    int64_t longest = run_pick(x, 5) == 0 ? 72 * 3600 : run_pick(x, 4) ? 4 * 3600 : 90;
    r.end = r.start + 1000 * (1 + run_pick(x, 1000) * longest);
    r.blocked_to = r.end;
    r.state = H_CONFIRMED;
    r.spot = run_pick(x, 5) == 0;
    if (!draw_nodes(x, &r) || (run_pick(x, 4) == 0 && !draw_lanes(x, &r)))
        return;
    r.total = h_price(&r, r.end);
    if (r.start > h->now + HOUR_US && run_pick(x, 2)) {
        r.state = H_HELD;
        r.hold_until = h->now + (1 + run_pick(x, 7200)) * SEC_US;
    }
    int64_t paid = h_hold_end(h, &r, r.start),
            need = r.state == H_HELD ? 0 : h_hold_price(&r, paid),
            room = h_room(h, r.tenant), can = h_spendable(h, r.tenant);
    const char *want = need <= can ? "ok" : can < room ? "budget" : "funds";
    char *sql = book_sql(x, &r, h->resv_count), *got = testdb_one(x->l.pg, sql);
    ck_assert_msg(strcmp(got, want) == 0, "%s is %s, not %s", sql, got, want);
    free(got);
    free(sql);
    if (strcmp(want, "ok") != 0) {
        x->refused++;
        return;
    }
    if (r.state == H_CONFIRMED) {
        h_hold(h, &r, paid);
        if (r.start <= h->now) /* the next turn of the market's clock */
            run_expect(x, "00000", "SELECT api.transitions(%" PRId64 ", 60000000)",
                       h->now);
    }
    h->resv[h->resv_count++] = r;
    h_transitions(h, 60 * SEC_US);
    x->booked++;
}

/* One that is in one of these states; -1: none was found. */
static int find(struct run *x, unsigned states)
{
    for (int tries = 0; tries < 30 && x->h.resv_count > 0; tries++) {
        int n = x->h.resv_count, recent = n > 40 && run_pick(x, 4) ? 40 : n;
        int i = n - 1 - run_pick(x, recent);
        if (states >> x->h.resv[i].state & 1)
            return i;
    }
    return -1;
}

static void confirm(struct run *x)
{
    int i = find(x, 1 << H_HELD);
    struct history *h = &x->h;
    if (i < 0)
        return;
    struct h_resv *r = &h->resv[i];
    int64_t room = h_room(h, r->tenant), can = h_spendable(h, r->tenant);
    int64_t paid = h_hold_end(h, r, h->now);
    bool well = h_hold_price(r, paid) <= can;
    run_expect(x,
               well         ? "00000"
               : can < room ? "NG033"
                            : "NG007",
               "SELECT api.resv_confirm((SELECT id FROM ng.tenant WHERE name = 't%d'), "
               "'%s', NULL, NULL, %" PRId64 ")",
               r->tenant, run_resv_id(i), h->now);
    if (!well)
        return;
    r->state = H_CONFIRMED;
    h_hold(h, r, paid);
}

/* ---- changes -------------------------------------------------------------------- */

static bool any_torn(const struct h_resv *r)
{
    return r->chain[0].torn || (r->nodes == 2 && r->chain[1].torn);
}

/* Up to where a changed lease is held: what is paid for stays so. */
static int64_t still_paid(const struct history *h, const struct h_resv *was,
                          const struct h_resv *r)
{
    int64_t paid = h_hold_end(h, r, h->now);
    if (paid != 0 && r->start <= h->now) {
        int64_t old = was->paid == 0 ? was->end : was->paid;
        paid = old > paid ? old : paid;
    }
    return paid >= r->end ? 0 : paid;
}

static void nothing_booked(struct h_resv *r)
{
    r->lanes.empty = true;
    for (int k = 0; k < r->nodes; k++)
        r->chain[k].empty = true;
}

static void move_end(struct run *x)
{
    int i = find(x, 1 << H_CONFIRMED | 1 << H_ACTIVE);
    struct history *h = &x->h;
    if (i < 0)
        return;
    struct h_resv *r = &h->resv[i];
    if (r->end <= h->now || any_torn(r))
        return;
    int64_t first = r->start > h->now ? r->start : h->now, end;
    bool later = run_pick(x, 2);
    if (later)
        end = r->end + INT64_C(1000) * (1 + run_pick(x, 2 * 3600000));
    else if (run_pick(x, 3) == 0) /* nearer than a clock may be ahead */
        end = first + INT64_C(1000) * (1 + run_pick(x, 30000));
    else
        end = first + INT64_C(1000) +
              (r->end - first) / 1000 * run_pick(x, 1000) / 1000 * 1000;
    if (end == r->end)
        return;
    later = end > r->end;
    if (later && (end > r->blocked_to)) {
        for (int k = 0; k < r->nodes; k++)
            if (!gpus_free(h, i, r->chain[k].node, r->chain[k].first, r->chain[k].gpus,
                           r->start, end))
                return;
        if (r->lanes.count > 0 && !lanes_free(h, i, &r->lanes, end))
            return;
    }
    struct h_resv with = *r;
    if (later && !with.lanes.empty)
        with.lanes.to = end;
    h_cut_lanes(&with, end);
    with.end = end;
    if (end > with.blocked_to)
        with.blocked_to = end;
    with.total = h_price(&with, end);
    int64_t paid = still_paid(h, r, &with),
            more = h_hold_price(&with, paid) - (r->held - r->released),
            room = h_room(h, r->tenant), can = h_spendable(h, r->tenant);
    bool charged = !later && with.total < r->captured,
         well = !charged && (more <= 0 || more <= can);
    run_expect(x,
               well         ? "00000"
               : charged    ? "NG006"
               : can < room ? "NG033"
                            : "NG007",
               "SELECT api.resv_extend(NULL, '%s', %" PRId64 ", 0, false, %" PRId64 ")",
               run_resv_id(i), end, h->now);
    if (!well) {
        x->refused++;
        return;
    }
    *r = with;
    h_hold(h, r, paid);
}

static void shrink(struct run *x)
{
    int i = find(x, 1 << H_CONFIRMED);
    struct history *h = &x->h;
    if (i < 0 || h->resv[i].start <= h->now || h->resv[i].chain[0].gpus == 1)
        return;
    struct h_resv *r = &h->resv[i];
    int gpus = 1 + run_pick(x, r->chain[0].gpus - 1);
    struct h_resv was = *r;
    for (int k = 0; k < r->nodes; k++)
        r->chain[k].gpus = gpus;
    run_expect(x, "00000",
               "SELECT api.resv_shrink(NULL, '%s', %d, 0, false, %" PRId64 ")",
               run_resv_id(i), gpus, h->now);
    r->total = h_price(r, r->end);
    h_hold(h, r, still_paid(h, &was, r));
}

static void cancel(struct run *x)
{
    int i = find(x, 1 << H_CONFIRMED | 1 << H_ACTIVE | 1 << H_HELD);
    struct history *h = &x->h;
    if (i < 0)
        return;
    struct h_resv *r = &h->resv[i];
    bool fail = r->state != H_HELD && run_pick(x, 3) == 0;
    run_expect(x, "00000",
               fail ? "SELECT api.resv_fail('%s', 'x', 0, %" PRId64 ")"
                    : "SELECT api.resv_cancel(NULL, '%s', 'x', false, %" PRId64 ")",
               run_resv_id(i), h->now);
    if (r->state == H_ACTIVE) {
        h_cut_lanes(r, h->now);
        r->state = fail ? H_FAILED : H_ENDED;
    } else {
        nothing_booked(r);
        h_release_all(h, r);
        r->state = fail ? H_FAILED : H_CANCELLED;
    }
    r->ended_at = h->now < r->end ? h->now : r->end;
}

/* A path is lit late, or fails and is dark from then on. */
static void light(struct run *x)
{
    int i = find(x, 1 << H_CONFIRMED | 1 << H_ACTIVE);
    struct history *h = &x->h;
    if (i < 0)
        return;
    struct h_lanes *l = &h->resv[i].lanes;
    if (l->count == 0 || l->from > h->now || l->to <= h->now || l->lit_to != 0)
        return;
    run_expect(x, "00000",
               "SELECT api.path_set(id, '%s', '', %" PRId64 ") FROM ng.path_booking "
               "WHERE reservation_id = '%s'",
               l->lit_from == 0 ? "lit" : "failed", h->now, run_resv_id(i));
    if (l->lit_from == 0)
        l->lit_from = h->now;
    else
        l->lit_to = h->now;
}

/* ---- receipts ------------------------------------------------------------------- */

static void tell(struct run *x, int i, int k, int seq, const char *kind, int64_t ms,
                 const char *want)
{
    char *got =
        ledger_text(&x->l, "SELECT t.receipt('%s', %d, %d, '%s', %" PRId64 ")",
                    run_resv_id(i), x->h.resv[i].chain[k].node + 1, seq, kind, ms);
    ck_assert_msg(strcmp(got, want) == 0, "receipt %s/%d/%d %s is '%s', not '%s'",
                  run_resv_id(i), k, seq, kind, got, want);
    free(got);
    x->receipts++;
}

static void torn(struct history *h, struct h_resv *r)
{
    int64_t last = 0;
    for (int k = 0; k < r->nodes; k++) {
        if (!r->chain[k].torn)
            return;
        if (r->chain[k].torn_at > last)
            last = r->chain[k].torn_at;
    }
    if (r->state != H_ACTIVE)
        return;
    r->state = H_ENDED;
    r->ended_at = last < r->end ? last : r->end;
    h_cut_lanes(r, r->ended_at);
    (void)h;
}

static void receipt(struct run *x)
{
    struct history *h = &x->h;
    int i = find(x, run_pick(x, 8) ? 1U << H_ACTIVE : 1U << H_ENDED | 1U << H_FAILED);
    if (i < 0)
        return;
    struct h_resv *r = &h->resv[i];
    int k = run_pick(x, r->nodes);
    struct h_chain *c = &r->chain[k];
    if (c->empty || c->torn || c->open_count == H_RECEIPTS || r->start >= h->now)
        return;
    /* Its clock may be ahead of the market's; and one in thirty lies. */
    int64_t now = h->now + (run_pick(x, 4) ? 0 : run_pick(x, 59) * SEC_US),
            until = r->end < now ? r->end : now, last = c->sent_ms;
    bool lies = run_pick(x, 30) == 0;
    int64_t most = c->gpus * ((until - r->start) / 1000);
    int64_t ms = last, seq = c->seq + 1;
    if (c->seq > 0 && most > last)
        ms += run_pick(x, 3) ? (most - last) * run_pick(x, 1001) / 1000 : most - last;
    if (c->seq > 0 && lies)
        ms += INT64_C(1000) * run_pick(x, 2 * 3600000);
    bool end = c->seq > 0 && run_pick(x, r->state == H_ACTIVE ? 8 : 2) == 0;
    const char *kind = c->seq == 0 ? "ready" : end ? "teardown" : "interval";
    int trick = run_pick(x, 12);
    if (trick == 0) /* too early: asked for again */
        tell(x, i, k, (int)seq + 1 + run_pick(x, 3), kind, ms, "gap");
    tell(x, i, k, (int)seq, kind, ms, "");
    if (trick == 1)
        tell(x, i, k, (int)seq, kind, ms, "");
    if (trick == 2 && x->forked[i][k] != seq) {
        tell(x, i, k, (int)seq, kind, ms + 1, "fork");
        x->forked[i][k] = (int)seq;
        x->forks++;
    }
    c->seq = (int)seq;
    c->sent_ms = ms;
    c->open[c->open_count++] = (struct h_receipt){.ms = ms, .at = h->now, .last = end};
    if (end) {
        c->torn = true;
        c->torn_at = h->now;
        torn(h, r);
    }
}

/* A node comes back and tells what it has of many leases. */
static void receipts(struct run *x)
{
    for (int n = 1 + run_pick(x, 12); n > 0; n--)
        receipt(x);
}

struct run_event run_leases[] = {
    {"booked", 24, book, 0},       {"confirmed", 4, confirm, 0},
    {"end moved", 6, move_end, 0}, {"fewer GPUs", 2, shrink, 0},
    {"cancelled", 3, cancel, 0},   {"lit or dark", 8, light, 0},
    {"receipts", 34, receipts, 0}, {NULL, 0, NULL, 0},
};
