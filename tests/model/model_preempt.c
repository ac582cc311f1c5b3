/* model_preempt: preempt_find() against every choice of nodes and runs, on tiny random
 * markets. The plain side knows which minute of which GPU is firm, and the spot
 * bookings as a list; at the start that an offer is looked at it tries all there is.
 *
 * Usage: model_preempt [SEED [MARKETS]]. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/core/preempt.h"

#define MINUTE  INT64_C(60000000)
#define HOUR    (60 * MINUTE)
#define T0      (INT64_C(1700000000) * 1000000)
#define MINUTES 400
#define OFFERS  2
#define NODES   (OFFERS * 4)
#define SPOTS   28

static uint64_t state, market_seed;
static uint64_t found, none, of_nobody, gangs, several;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 16) % below);
}

static struct {
    struct match_offer offers[OFFERS];
    int offer_count, node_count;
    struct calendar_node nodes[NODES];
    struct preempt_spot spots[SPOTS];
    int spot_count;
    uint64_t firm[NODES][MINUTES];
} plain;
static struct calendar *firm;
static struct topo *topo;

static void fail(const char *what)
{
    printf("market %" PRIu64 ": %s\n", market_seed, what);
    exit(1);
}

static int64_t at(int minute)
{
    return T0 + minute * MINUTE;
}

static uint64_t bits(int first, int count)
{
    return ((UINT64_C(1) << count) - 1) << first;
}

static void make_nodes(void)
{
    static const char *const sites[] = {"s0", "s1"};
    plain.offer_count = 1 + (int)draw(OFFERS);
    plain.node_count = 0;
    for (int i = 0; i < plain.offer_count; i++) {
        plain.offers[i] = (struct match_offer){.site = i,
                                               .model = i,
                                               .site_name = sites[i],
                                               .provider_name = "p",
                                               .gpu_model = "H100",
                                               .residency = "jp",
                                               .price_micro = 1000000 * (1 + draw(2)),
                                               .spot_price_micro = 500000,
                                               .notice_us = MINUTE,
                                               .up = draw(12) > 0};
        for (int k = 1 + (int)draw(4); k > 0; k--) {
            int id = plain.node_count++, gpus = 1 + (int)draw(5);
            plain.nodes[id] = (struct calendar_node){.site = i,
                                                     .model = i,
                                                     .domain = (int)draw(2),
                                                     .gpus = gpus,
                                                     .offered = bits(0, gpus)};
            calendar_set_node(firm, id, &plain.nodes[id]);
            for (int t = 0; t < MINUTES; t++) {
                plain.firm[id][t] = ~plain.nodes[id].offered;
            }
        }
    }
}

static void make_firm(void)
{
    for (int i = (int)draw(8); i > 0; i--) {
        int id = (int)draw((uint32_t)plain.node_count);
        int first = (int)draw((uint32_t)plain.nodes[id].gpus);
        int count = 1 + (int)draw((uint32_t)(plain.nodes[id].gpus - first));
        int from = (int)draw(60), to = from + 1 + (int)draw(60);
        calendar_book(firm, i, id, first, count, at(from), at(to));
        for (int t = from; t < to; t++) {
            plain.firm[id][t] |= bits(first, count);
        }
    }
}

/* Begun up to 100 minutes ago. Few reservations: many are gangs. */
static void make_spots(void)
{
    plain.spot_count = 0;
    for (int i = 8 + (int)draw(SPOTS - 7); i > 0; i--) {
        int id = (int)draw((uint32_t)plain.node_count);
        int first = (int)draw((uint32_t)plain.nodes[id].gpus);
        int from = (int)draw(130) - 100;
        plain.spots[plain.spot_count++] = (struct preempt_spot){
            .reservation = 100 + draw(draw(2) ? 4 : 100),
            .node = id,
            .first = first,
            .count = 1 + (int)draw((uint32_t)(plain.nodes[id].gpus - first)),
            .from_us = at(from),
            .to_us = at(from + 1 + (int)draw(200)),
            .per_gpu_hour_micro = 60 * (1 + draw(3)),
            .notice_us = draw(3) * 3 * MINUTE};
    }
}

static struct match_query make_query(void)
{
    int from = (int)draw(20), range = draw(2) ? (int)draw(100) : 0;
    return (struct match_query){.gpus = 1 + (int)draw(4),
                                .nodes = draw(2) ? 1 : 1 + (int)draw(4),
                                .together = draw(2) ? MATCH_SITE : MATCH_DOMAIN,
                                .len_us = (1 + draw(80)) * MINUTE,
                                .from_us = at(from),
                                .latest_us = at(from + range),
                                .max_price_micro = draw(6) == 0 ? 1000000 : 0,
                                .now_us = at(0),
                                .spread = draw(8)};
}

/* ---- the plain way ---- */

/* A choice: what is lost, and when the oldest victim began. */
struct worth {
    int64_t lost, oldest;
};
struct trial {
    const struct match_query *q;
    int offer, start;
    bool any;
    struct worth best;
    int node[4], first[4];
};

static bool is_firm_free(const struct trial *t, int node, int first)
{
    int len = (int)(t->q->len_us / MINUTE);
    if (first + t->q->gpus > 8) {
        return false;
    }
    for (int m = t->start; m < t->start + len; m++) {
        if (plain.firm[node][m] & bits(first, t->q->gpus)) {
            return false;
        }
    }
    return true;
}

static int64_t work(int64_t reservation, int64_t *from)
{
    int64_t lost = 0;
    *from = INT64_MAX;
    for (int i = 0; i < plain.spot_count; i++) {
        const struct preempt_spot *s = &plain.spots[i];
        if (s->reservation != reservation) {
            continue;
        }
        int64_t until = s->to_us < at(0) ? s->to_us : at(0);
        int64_t ran = until > s->from_us ? until - s->from_us : 0;
        lost += (ran * s->count * s->per_gpu_hour_micro + HOUR / 2) / HOUR;
        *from = s->from_us < *from ? s->from_us : *from;
    }
    return lost;
}

/* Marks victims of one run by their number less 100. */
static bool add_victims(const struct trial *t, int node, int first, bool *is_victim)
{
    for (int i = 0; i < plain.spot_count; i++) {
        const struct preempt_spot *s = &plain.spots[i];
        bool touches = s->node == node &&
                       (bits(s->first, s->count) & bits(first, t->q->gpus)) != 0 &&
                       s->from_us < at(t->start) + t->q->len_us &&
                       s->to_us > at(t->start);
        for (int k = 0; touches && k < plain.spot_count; k++) {
            if (plain.spots[k].reservation == s->reservation &&
                at(0) + plain.spots[k].notice_us > at(t->start)) {
                return false;
            }
        }
        if (touches) {
            is_victim[s->reservation - 100] = true;
        }
    }
    return true;
}

static bool value(const struct trial *t, int nodes, struct worth *ret)
{
    bool is_victim[100] = {false};
    *ret = (struct worth){0, INT64_MAX};
    for (int i = 0; i < nodes; i++) {
        if (!add_victims(t, t->node[i], t->first[i], is_victim)) {
            return false;
        }
    }
    for (int r = 0; r < 100; r++) {
        int64_t from;
        if (is_victim[r]) {
            ret->lost += work(100 + r, &from);
            ret->oldest = from < ret->oldest ? from : ret->oldest;
        }
    }
    return true;
}

static bool is_less(struct worth a, struct worth b)
{
    return a.lost < b.lost || (a.lost == b.lost && a.oldest > b.oldest);
}

/* All choices of the k-th node on. */
static void try_all(struct trial *t, int k, int from)
{
    struct worth w;
    if (k == t->q->nodes) {
        if (value(t, k, &w) && (!t->any || is_less(w, t->best))) {
            t->best = w;
            t->any = true;
        }
        return;
    }
    for (int n = from; n < plain.node_count; n++) {
        bool joins = k == 0 || t->q->together != MATCH_DOMAIN ||
                     plain.nodes[n].domain == plain.nodes[t->node[0]].domain;
        for (int f = 0; plain.nodes[n].model == t->offer && joins && f < 8; f++) {
            t->node[k] = n;
            t->first[k] = f;
            if (is_firm_free(t, n, f)) {
                try_all(t, k + 1, n + 1);
            }
        }
    }
}

static int rooms(const struct trial *t, int domain)
{
    int count = 0;
    for (int n = 0; n < plain.node_count; n++) {
        bool fits = false;
        for (int f = 0; f < 8; f++) {
            fits = fits || is_firm_free(t, n, f);
        }
        count += fits && plain.nodes[n].model == t->offer &&
                 (domain < 0 || plain.nodes[n].domain == domain);
    }
    return count;
}

static bool has_firm_room(const struct trial *t)
{
    int want = t->q->nodes;
    return t->q->together == MATCH_DOMAIN ? rooms(t, 0) >= want || rooms(t, 1) >= want
                                          : rooms(t, -1) >= want;
}

/* The first end after the start of a notice of somebody on the offer's nodes. */
static int next_notice(const struct trial *t)
{
    int next = MINUTES;
    for (int i = 0; i < plain.spot_count; i++) {
        const struct preempt_spot *here = &plain.spots[i];
        bool blocks =
            plain.nodes[here->node].model == t->offer && here->from_us < here->to_us;
        int64_t notice_us = 0;
        for (int k = 0; blocks && k < plain.spot_count; k++) {
            const struct preempt_spot *s = &plain.spots[k];
            if (s->reservation == here->reservation && s->notice_us > notice_us) {
                notice_us = s->notice_us;
            }
        }
        int end = (int)(notice_us / MINUTE);
        next = end > t->start && end < next ? end : next;
    }
    return next;
}

/* From the first minute, and from each notice's end, on: the first start that firm
 * bookings leave; the first of those that notices leave as well. */
static bool try_offer(struct trial *t)
{
    const struct match_offer *o = &plain.offers[t->offer];
    int from = (int)((t->q->from_us - T0) / MINUTE);
    int latest = (int)((t->q->latest_us - T0) / MINUTE);
    if (!o->up ||
        (t->q->max_price_micro > 0 && o->price_micro > t->q->max_price_micro)) {
        return false;
    }
    for (int base = from; base <= latest;) {
        for (t->start = base; t->start <= latest && !has_firm_room(t); t->start++) {
        }
        if (t->start > latest) {
            return false;
        }
        t->any = false;
        try_all(t, 0, 0);
        if (t->any) {
            return true;
        }
        base = next_notice(t);
    }
    return false;
}

/* ---- both ---- */

static void check_plan(const struct match_query *q, const struct preempt_plan *p,
                       const struct trial *want)
{
    struct trial t = {.q = q, .offer = p->plan.slots[0].offer};
    struct worth w;
    bool is_victim[100] = {false};
    size_t victims = 0;
    t.start = (int)((p->plan.start_us - T0) / MINUTE);
    if (p->plan.slot_count != q->nodes || p->plan.len_us != q->len_us ||
        p->plan.gpus != q->gpus) {
        fail("another plan than asked for");
    }
    for (int i = 0; i < q->nodes; i++) {
        const struct match_slot *s = &p->plan.slots[i];
        t.node[i] = s->node;
        t.first[i] = s->first;
        if (!is_firm_free(&t, s->node, s->first)) {
            fail("firm GPUs taken");
        }
        for (int k = 0; k < i; k++) {
            if (t.node[k] == s->node) {
                fail("a node twice");
            }
        }
        if (plain.nodes[s->node].model != t.offer ||
            (q->together == MATCH_DOMAIN &&
             plain.nodes[s->node].domain != plain.nodes[t.node[0]].domain)) {
            fail("nodes apart");
        }
        if (!add_victims(&t, s->node, s->first, is_victim)) {
            fail("a notice is not kept");
        }
    }
    for (int r = 0; r < 100; r++) {
        victims += is_victim[r];
    }
    if (victims != p->victim_count) {
        fail("another number of victims");
    }
    for (size_t i = 0; i < p->victim_count; i++) {
        if (!is_victim[p->victims[i].reservation - 100] ||
            p->victims[i].cut_us != p->plan.start_us) {
            fail("a wrong victim");
        }
        is_victim[p->victims[i].reservation - 100] = false;
    }
    if (!value(&t, q->nodes, &w) || w.lost != want->best.lost ||
        w.oldest != want->best.oldest) {
        fail("not the least loss");
    }
    of_nobody += victims == 0;
    several += victims > 1;
    gangs += q->nodes > 1;
}

static void check(void)
{
    struct match_query q = make_query();
    struct match_market market = {.calendar = firm,
                                  .topo = topo,
                                  .offers = plain.offers,
                                  .offer_count = (size_t)plain.offer_count};
    struct preempt_market m = {&market, firm, plain.spots, (size_t)plain.spot_count};
    struct trial best = {.any = false};
    for (int o = 0; o < plain.offer_count; o++) {
        struct trial t = {.q = &q, .offer = o};
        if (try_offer(&t) && (!best.any || is_less(t.best, best.best))) {
            best = t;
        }
    }
    static struct preempt_plan p;
    bool fits = preempt_find(&m, &q, &p) == MATCH_OK;
    if (fits != best.any) {
        fail(fits ? "there is none" : "there is one");
    }
    if (fits) {
        check_plan(&q, &p, &best);
    }
    found += fits;
    none += !fits;
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)time(NULL);
    int markets = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 3000;
    printf("seed %" PRIu64 "\n", seed);
    for (int i = 0; i < markets; i++) {
        market_seed = seed + (uint64_t)i;
        state = market_seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
        firm = calendar_new();
        topo = topo_new();
        make_nodes();
        make_firm();
        make_spots();
        if (draw(2)) {
            calendar_expire(firm, at(0));
        }
        for (int k = 0; k < 8; k++) {
            check();
        }
        calendar_free(firm);
        topo_free(topo);
    }
    printf("%" PRIu64 " found (%" PRIu64 " gangs, %" PRIu64
           " without a victim, %" PRIu64 " with several), %" PRIu64 " not\n",
           found, gangs, of_nobody, several, none);
    printf("100%%: Checks: 1, Failures: 0, Errors: 0\n");
    return 0;
}
