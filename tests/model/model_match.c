/* model_match: match_best, match_rank and match_judge against every place tried, on
 * random small markets. The other side knows a market as plain lists: it looks at every
 * minute of every GPU and lane, and shares with the core only the slow-down model and
 * the rule that money is rounded once a product. MODEL [SEED [MARKETS]]. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/core/match.h"

#define MINUTE   INT64_C(60000000)
#define HOUR     (60 * MINUTE)
#define T0       (INT64_C(1700000000) * 1000000)
#define MINUTES  (30 * 60) /* how far the plain lists look */
#define OFFERS   5
#define NODES    3 /* of an offer */
#define SITES    4
#define PATHS    4
#define DATA     3
#define BOOKINGS 60

static uint64_t state;

static uint32_t draw(uint32_t below)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint32_t)((state >> 16) % below);
}

/* ---- the market, both ways ---- */

struct plain_node {
    int offer, gpus, domain;
    uint64_t busy[MINUTES]; /* a bit a GPU; not offered counts as busy */
};
static struct plain {
    struct match_offer offers[OFFERS];
    int offer_count;
    struct plain_node nodes[OFFERS * NODES];
    int node_count;
    struct match_path paths[PATHS];
    uint64_t lanes_busy[PATHS][MINUTES];
    int path_count;
    int64_t rtt_us[SITES][DATA]; /* 0: unknown */
    int data_site[DATA];
} plain;
static struct calendar *calendar, *lanes;
static struct topo *topo;
static struct match_paths paths;
static struct match_market market;

static const char *const site_names[] = {"s0", "s1", "s2", "s3"};
static const char *const zone_names[] = {"", "z1", "z2", "z1"};
static const char *const provider_names[] = {"p0", "p1", "p2"};
static const char *const models[] = {"H100-SXM5-80GB", "A100-SXM4-40GB"};

static void make_nodes(int offer)
{
    for (int k = 1 + (int)draw(NODES); k > 0; k--) {
        int id = plain.node_count++;
        struct plain_node *n = &plain.nodes[id];
        *n = (struct plain_node){
            .offer = offer, .gpus = 1 + (int)draw(8), .domain = (int)draw(2)};
        uint64_t all = (UINT64_C(1) << n->gpus) - 1,
                 offered = draw(4) == 0 ? draw(256) & all : all;
        for (int t = 0; t < MINUTES; t++)
            n->busy[t] = ~offered;
        struct calendar_node c = {.site = plain.offers[offer].site,
                                  .model = offer,
                                  .domain = n->domain,
                                  .gpus = n->gpus,
                                  .offered = offered};
        calendar_set_node(calendar, id, &c);
    }
}

static void make_offers(void)
{
    plain.offer_count = 1 + (int)draw(OFFERS);
    plain.node_count = 0;
    for (int i = 0; i < plain.offer_count; i++) {
        int site = (int)draw(SITES);
        plain.offers[i] =
            (struct match_offer){.site = site,
                                 .model = i,
                                 .site_name = site_names[site],
                                 .zone = zone_names[site],
                                 .provider_name = provider_names[draw(3)],
                                 .gpu_model = models[draw(2)],
                                 .residency = site < 3 ? "jp" : "us",
                                 .price_micro = 1000000 + draw(5) * 500001,
                                 .spot_price_micro = 400000 + draw(3) * 100001,
                                 .notice_us = draw(2) * 2 * MINUTE,
                                 .gpu_memory_mib = draw(2) ? 81559 : 40960,
                                 .reliability_ppm = draw(3) * 1000,
                                 .bandwidth_Bps = draw(2) * INT64_C(12500000000),
                                 .up = draw(10) > 0};
        make_nodes(i);
    }
}

static void make_paths(void)
{
    plain.path_count = (int)draw(PATHS + 1);
    memset(plain.lanes_busy, 0, sizeof plain.lanes_busy);
    for (int i = 0; i < plain.path_count; i++) {
        /* Mostly between the same two, so that there is a choice. */
        int from = (int)draw(2), to = draw(3) == 0 ? 3 : 2;
        plain.paths[i] =
            (struct match_path){.from_site = from,
                                .to_site = to,
                                .lanes = 1 + (int)draw(8),
                                .lane_Bps = 1250000000,
                                .price_micro = 10000 + i, /* no two alike */
                                .rtt_us = draw(3) * 8000,
                                .setup_us = draw(3) * 30 * MINUTE,
                                .up = draw(8) > 0,
                                .lossless = true};
        struct calendar_node c = {.model = i,
                                  .gpus = plain.paths[i].lanes,
                                  .offered = (UINT64_C(1) << plain.paths[i].lanes) - 1};
        calendar_set_node(lanes, i, &c);
    }
}

static void block(uint64_t *busy, int first, int count, int from, int len)
{
    for (int t = from; t < from + len && t < MINUTES; t++)
        busy[t] |= ((UINT64_C(1) << count) - 1) << first;
}

static void make_bookings(void)
{
    for (int i = 0; i < BOOKINGS; i++) {
        int from = (int)draw(10 * 60), len = 1 + (int)draw(300);
        bool lane = plain.path_count > 0 && draw(4) == 0;
        int id = (int)draw((uint32_t)(lane ? plain.path_count : plain.node_count));
        int size = lane ? plain.paths[id].lanes : plain.nodes[id].gpus;
        int first = (int)draw((uint32_t)size),
            count = 1 + (int)draw((uint32_t)(size - first));
        calendar_book(lane ? lanes : calendar, i + 1, id, first, count,
                      T0 + from * MINUTE, T0 + (from + len) * MINUTE);
        block(lane ? plain.lanes_busy[id] : plain.nodes[id].busy, first, count, from,
              len);
    }
}

static void make_market(void)
{
    calendar = calendar_new();
    lanes = calendar_new();
    topo = topo_new();
    make_offers();
    make_paths();
    make_bookings();
    for (int d = 0; d < DATA; d++) {
        plain.data_site[d] = draw(2) ? 2 : (int)draw(SITES + 1) - 1;
        for (int s = 0; s < SITES; s++) {
            struct err err;
            plain.rtt_us[s][d] = draw(8) == 0 ? 0 : 300 + draw(40) * 1000;
            struct topo_rtt rtt = {.source = TOPO_MEASURED,
                                   .rtt_us = plain.rtt_us[s][d],
                                   .min_us = plain.rtt_us[s][d],
                                   .p99_us = plain.rtt_us[s][d],
                                   .count = 20,
                                   .at_us = T0};
            if (plain.rtt_us[s][d] > 0 && topo_measured(topo, s, d, &rtt, &err) != 0)
                abort();
        }
    }
    paths = (struct match_paths){plain.paths, (size_t)plain.path_count, lanes};
    market = (struct match_market){calendar, topo, plain.offers,
                                   (size_t)plain.offer_count, &paths};
}

static void drop_market(void)
{
    calendar_free(calendar);
    calendar_free(lanes);
    topo_free(topo);
}

/* ---- the plain way ---- */

static int run_of(uint64_t free, int count) /* lowest place of a run, -1: none */
{
    for (int at = 0; at + count <= 64; at++) {
        int k = 0;
        while (k < count && (free >> (at + k) & 1))
            k++;
        if (k == count)
            return at;
    }
    return -1;
}

static uint64_t free_during(const uint64_t *busy, int from, int len)
{
    uint64_t free = from >= 0 && from + len <= MINUTES ? UINT64_MAX : 0;
    for (int t = from; t < from + len && free != 0; t++)
        free &= ~busy[t];
    return free;
}

static int minute_of(int64_t us)
{
    return (int)((us - T0) / MINUTE);
}

static int nodes_free(const struct match_query *q, int offer, int domain, int start)
{
    int count = 0;
    for (int i = 0; i < plain.node_count; i++) {
        const struct plain_node *n = &plain.nodes[i];
        uint64_t all = (UINT64_C(1) << n->gpus) - 1;
        if (n->offer == offer && (domain < 0 || n->domain == domain))
            count +=
                run_of(free_during(n->busy, start, minute_of(T0 + q->len_us)) & all,
                       q->gpus) >= 0;
    }
    return count;
}

static bool enough_nodes(const struct match_query *q, int offer, int start)
{
    int want = q->nodes > 1 ? q->nodes : 1;
    if (q->together != MATCH_DOMAIN || want == 1)
        return nodes_free(q, offer, -1, start) >= want;
    return nodes_free(q, offer, 0, start) >= want ||
           nodes_free(q, offer, 1, start) >= want;
}

static bool named(const struct match_names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++)
        if (strcmp(names->name[i], name) == 0)
            return true;
    return false;
}

static bool wanted(const struct match_query *q, const struct match_offer *o)
{
    return (q->gpu_model == NULL ||
            strncmp(o->gpu_model, q->gpu_model, strlen(q->gpu_model)) == 0) &&
           o->gpu_memory_mib >= q->min_memory_mib &&
           (q->residency == NULL || strcmp(q->residency, o->residency) == 0) &&
           (q->only_site == NULL || strcmp(q->only_site, o->site_name) == 0) &&
           !named(&q->deny_providers, o->provider_name) &&
           !named(&q->avoid_zones, o->zone) && o->up && (!q->spot || o->notice_us > 0);
}

/* Data sets of one site share a way, as wide as all of them need: the first has it. */
static int first_there(const struct match_query *q, int d)
{
    int first = 0;
    while (q->data_site[first] != q->data_site[d])
        first++;
    return first;
}

static int lanes_of(const struct match_query *q, int d)
{
    int64_t need_Bps = 0;
    for (size_t i = 0; i < q->data_count; i++)
        need_Bps += q->data_site[i] == q->data_site[d] ? q->bandwidth_Bps : 0;
    return (int)((need_Bps + 1249999999) / 1250000000);
}

/* Is this path one for the data set? */
static bool leads(const struct match_query *q, int site, int d,
                  const struct match_path *p)
{
    int to = q->data_site[d];
    bool joins = (p->from_site == site && p->to_site == to) ||
                 (p->from_site == to && p->to_site == site);
    return to >= 0 && joins && p->up && p->lanes >= lanes_of(q, d) &&
           (q->max_rtt_us == 0 || p->rtt_us <= q->max_rtt_us);
}

/* Of the ways from a site to a data set: the cheapest that is wide enough; -1: none is
 * needed; -2: none there. Prices grow with the number of the path. */
static int way_to(const struct match_query *q, int site, int d)
{
    if (q->bandwidth_Bps == 0 || q->data_site[d] == site)
        return -1;
    for (int i = 0; i < plain.path_count; i++)
        if (leads(q, site, d, &plain.paths[i]))
            return i;
    return -2;
}

/* One offer by its figures alone: cost, or why not. by: the ways taken, NULL: the
 * cheapest. */
static bool figures_by(const struct match_query *q, int offer, const int *by,
                       int64_t *total, int64_t *ppm)
{
    const struct match_offer *o = &plain.offers[offer];
    int64_t price = q->spot ? o->spot_price_micro : o->price_micro, far_us = 0;
    struct slowdown_input in[DATA];
    bool known = true;
    *total = (int64_t)(((__int128)price * q->gpus * q->len_us + HOUR / 2) / HOUR) *
             (q->nodes > 1 ? q->nodes : 1);
    *ppm = 1000000;
    for (size_t i = 0; i < q->data_count; i++) {
        int way = by != NULL ? by[i] : way_to(q, o->site, (int)i);
        if (way == -2)
            return false;
        int64_t rtt = way >= 0 && plain.paths[way].rtt_us > 0
                          ? plain.paths[way].rtt_us
                          : plain.rtt_us[o->site][q->data[i]];
        known = known && rtt > 0;
        far_us = rtt > far_us ? rtt : far_us;
        in[i] = (struct slowdown_input){
            .path = {.rtt_s = (double)rtt * 1e-6,
                     .bandwidth_Bps = way >= 0 ? lanes_of(q, (int)i) * 1.25e9
                                               : (double)o->bandwidth_Bps,
                     .service_s = SLOWDOWN_SERVICE_S,
                     .lossless = way >= 0},
            .path_id = way + 1};
        if (way >= 0 && first_there(q, (int)i) == (int)i)
            *total += (int64_t)(((__int128)plain.paths[way].price_micro *
                                     lanes_of(q, (int)i) * q->len_us +
                                 HOUR / 2) /
                                HOUR);
    }
    if (q->data_count > 0 && (q->max_rtt_us > 0 || q->profile != NULL) && !known)
        return false;
    if (q->profile != NULL && known) {
        struct slowdown_result r;
        slowdown_predict_inputs(q->profile, in, q->data_count,
                                q->gpus * (q->nodes > 1 ? q->nodes : 1),
                                (double)q->len_us * 1e-6, &r);
        *ppm = (int64_t)(r.job * 1e6 + 0.5);
    }
    return (q->max_rtt_us == 0 || (known && far_us <= q->max_rtt_us)) &&
           (q->max_price_micro == 0 || price <= q->max_price_micro) &&
           (q->max_slowdown_ppm == 0 || *ppm <= q->max_slowdown_ppm);
}

static bool figures(const struct match_query *q, int offer, int64_t *total,
                    int64_t *ppm)
{
    return figures_by(q, offer, NULL, total, ppm);
}

static int64_t effective_of(int64_t total, int64_t ppm)
{
    return (int64_t)(((__int128)total * ppm + 500000) / 1000000);
}

/* Lanes of one path from a start, beside those taken; -1: none. */
static int lane_at(const struct match_query *q, int d, int way, int start)
{
    int setup = minute_of(T0 + plain.paths[way].setup_us), from = start - setup;
    uint64_t all = (UINT64_C(1) << plain.paths[way].lanes) - 1;
    if (T0 + from * MINUTE < q->now_us)
        return -1;
    uint64_t free =
        free_during(plain.lanes_busy[way], from, setup + minute_of(T0 + q->len_us)) &
        all;
    return calendar_pick(free, lanes_of(q, d));
}

/* Ways to all the data from a start, in the order of price. */
static bool ways_at(const struct match_query *q, int site, int start, int ways[DATA])
{
    for (int i = 0; i < (int)q->data_count; i++) {
        ways[i] = way_to(q, site, i);
        if (ways[i] >= 0 && first_there(q, i) < i)
            ways[i] = ways[first_there(q, i)];
        else if (ways[i] >= 0) {
            int first = -1;
            for (int p = ways[i]; p < plain.path_count && first < 0; p++) {
                if (leads(q, site, i, &plain.paths[p])) {
                    first = lane_at(q, i, p, start);
                    ways[i] = p;
                }
            }
            if (first < 0)
                return false;
        }
    }
    return true;
}

static int earliest(const struct match_query *q, int offer, int ways[DATA])
{
    for (int t = minute_of(q->from_us); t <= minute_of(q->latest_us); t++)
        if (enough_nodes(q, offer, t) && ways_at(q, plain.offers[offer].site, t, ways))
            return t;
    return -1;
}

static bool in_budget(const struct match_query *q, int64_t total)
{
    return q->max_total_micro == 0 || total <= q->max_total_micro;
}

/* Lowest effective cost of one site, then earliest start; false: nothing fits. */
static bool try_sites(const struct match_query *q, int64_t *best, int *best_start)
{
    bool found = false;
    for (int i = 0; i < plain.offer_count; i++) {
        int64_t total, ppm;
        int ways[DATA];
        bool fits = wanted(q, &plain.offers[i]) && figures(q, i, &total, &ppm);
        int start = fits ? earliest(q, i, ways) : -1;
        if (start < 0 || !figures_by(q, i, ways, &total, &ppm) || !in_budget(q, total))
            continue;
        int64_t effective = effective_of(total, ppm);
        if (!found || effective < *best ||
            (effective == *best && start < *best_start)) {
            *best = effective;
            *best_start = start;
        }
        found = true;
    }
    return found;
}

/* Every way to draw the nodes of a gang from the offers, at one start. */
static void try_counts(const struct match_query *q, const int *have, int at, int *take,
                       int64_t *best)
{
    if (at == plain.offer_count) {
        int64_t total = 0, worst = 1000000;
        int count = 0;
        for (int i = 0; i < at; i++) {
            struct match_query one = *q;
            int64_t micro, ppm;
            one.nodes = 1;
            if (take[i] > 0 && figures(&one, i, &micro, &ppm)) {
                total += micro * take[i];
                worst = ppm > worst ? ppm : worst;
            }
            count += take[i];
        }
        if (count == q->nodes && in_budget(q, total) &&
            (*best < 0 || effective_of(total, worst) < *best))
            *best = effective_of(total, worst);
        return;
    }
    for (take[at] = 0; take[at] <= have[at]; take[at]++)
        try_counts(q, have, at + 1, take, best);
    take[at] = 0;
}

static int64_t try_anywhere(const struct match_query *q)
{
    int have[OFFERS] = {0}, take[OFFERS] = {0};
    int64_t best = -1;
    for (int i = 0; i < plain.offer_count; i++) {
        struct match_query one = *q;
        int64_t total, ppm;
        one.nodes = 1;
        if (wanted(q, &plain.offers[i]) && figures(&one, i, &total, &ppm))
            have[i] = nodes_free(q, i, -1, minute_of(q->from_us));
    }
    try_counts(q, have, 0, take, &best);
    return best;
}

/* ---- comparing ---- */

static const int datas[DATA] = {0, 1, 2};
static uint64_t market_seed;
static const char *const bad_provider[] = {"p1"}, *const bad_zone[] = {"z1"};

static void fail(const char *what, const struct match_query *q, int64_t got,
                 int64_t want)
{
    printf("market seed %" PRIu64 ": %s: got %" PRId64 ", want %" PRId64
           " (gpus %d nodes %d together %d data %zu bandwidth %" PRId64
           " federated %d spot %d from %d latest %d len %d)\n",
           market_seed, what, got, want, q->gpus, q->nodes, (int)q->together,
           q->data_count, q->bandwidth_Bps, q->federated, q->spot,
           minute_of(q->from_us), minute_of(q->latest_us), minute_of(T0 + q->len_us));
    exit(1);
}

static struct match_query make_query(void)
{
    struct match_query q = {.gpus = 1 + (int)draw(6),
                            .nodes = draw(2) ? 1 : 1 + (int)draw(4),
                            .len_us = (1 + draw(200)) * MINUTE,
                            .now_us = T0 + draw(60) * MINUTE,
                            .data = datas,
                            .data_site = plain.data_site,
                            .data_count = draw(DATA + 1),
                            .spread = draw(1000)};
    q.from_us = q.now_us + draw(300) * MINUTE;
    q.latest_us = q.from_us + (draw(2) ? draw(600) * MINUTE : 0);
    q.profile =
        draw(2) ? slowdown_find(draw(2) ? "resnet50_h100" : "unet3d_h100") : NULL;
    q.gpu_model = draw(3) == 0 ? "H100" : NULL;
    q.min_memory_mib = draw(5) == 0 ? 50000 : 0;
    q.residency = draw(5) == 0 ? "jp" : NULL;
    q.only_site = draw(10) == 0 ? "s1" : NULL;
    q.max_rtt_us = draw(4) == 0 ? 5000 + draw(20000) : 0;
    q.max_price_micro = draw(5) == 0 ? 1500000 + draw(1000000) : 0;
    q.max_slowdown_ppm = draw(6) == 0 ? 1200000 : 0;
    q.max_total_micro = draw(6) == 0 ? 1000000 + draw(20000000) : 0;
    q.together = draw(3) == 0 ? MATCH_DOMAIN : MATCH_SITE;
    q.spot = draw(4) == 0;
    if (draw(5) == 0)
        q.deny_providers = (struct match_names){bad_provider, 1};
    if (draw(6) == 0)
        q.avoid_zones = (struct match_names){bad_zone, 1};
    if (q.data_count > 0 && draw(2))
        q.bandwidth_Bps = 1250000000 * (1 + draw(4)) - draw(2);
    return q;
}

/* What is promised is free, and nothing is promised twice. */
static void check_plan(const struct match_query *q, const struct match_plan *p)
{
    int start = minute_of(p->start_us), len = minute_of(T0 + p->len_us);
    if (p->start_us < q->from_us || p->start_us > q->latest_us)
        fail("start out of range", q, start, 0);
    for (int i = 0; i < p->slot_count; i++) {
        const struct match_slot *s = &p->slots[i];
        uint64_t want = ((UINT64_C(1) << p->gpus) - 1) << s->first;
        if ((free_during(plain.nodes[s->node].busy, start, len) & want) != want)
            fail("a slot is not free", q, s->node, s->first);
        if (plain.nodes[s->node].offer != s->offer)
            fail("a slot of another offer", q, plain.nodes[s->node].offer, s->offer);
        for (int k = 0; k < i; k++)
            if (p->slots[k].node == s->node)
                fail("a node twice", q, s->node, k);
    }
    uint64_t taken[PATHS] = {0};
    for (int i = 0; i < p->lanes_count; i++) {
        const struct match_lanes *l = &p->lanes[i];
        uint64_t want = ((UINT64_C(1) << l->count) - 1) << l->first;
        int from = minute_of(l->from_us);
        if (l->from_us < q->now_us ||
            p->start_us - l->from_us != plain.paths[l->path].setup_us)
            fail("set-up time", q, from, start);
        if ((free_during(plain.lanes_busy[l->path], from, start + len - from) & want) !=
                want ||
            (taken[l->path] & want))
            fail("lanes are not free", q, l->path, l->first);
        taken[l->path] |= want;
    }
}

static uint64_t sites_fit, sites_none, any_fit, any_paths, groups_fit, relaxed;

static void check_site(const struct match_query *q)
{
    static struct match_plan plan;
    struct match_place places[OFFERS];
    int64_t effective = 0;
    int start = 0;
    bool want = try_sites(q, &effective, &start);
    enum match_why why = match_best(&market, q, &plan);
    if ((why == MATCH_OK) != want)
        fail("fits", q, why, want);
    if (want) {
        check_plan(q, &plan);
        if (plan.effective_micro != effective)
            fail("effective", q, plan.effective_micro, effective);
        if (minute_of(plan.start_us) != start)
            fail("start", q, minute_of(plan.start_us), start);
        if (plan.slot_count != (q->nodes > 1 ? q->nodes : 1))
            fail("nodes", q, plan.slot_count, q->nodes);
    }
    size_t fit = match_judge(&market, q, places);
    if ((fit > 0) != want)
        fail("judged to fit", q, (int64_t)fit, want);
    if (want && (places[0].effective_micro != plan.effective_micro ||
                 places[0].offer != plan.slots[0].offer ||
                 places[0].slot.start_us != plan.start_us))
        fail("the first judged is another", q, places[0].offer, plan.slots[0].offer);
    if (want) {
        match_advise(&market, q, &plan);
        if (plan.lanes_count == 0 &&
            strcmp(plan.groups[0].advice, places[0].advice) != 0)
            fail("advice", q, 0, 0);
    }
    *(want ? &sites_fit : &sites_none) += 1;
}

/* Gives way as the proposal says and asks again. */
static void check_relaxed(const struct match_query *q)
{
    struct match_place places[OFFERS], again[OFFERS];
    size_t fit = match_judge(&market, q, places);
    for (size_t i = fit; i < market.offer_count; i++) {
        const struct match_relax *r = &places[i].relax;
        struct match_query by = *q;
        if (strcmp(r->member, "max_rtt") == 0)
            by.max_rtt_us = r->value;
        else if (strcmp(r->member, "start") == 0)
            by.from_us = by.latest_us = r->value;
        else if (strcmp(r->member, "gpus") == 0)
            by.gpus = (int)r->value;
        else if (strcmp(r->member, "nodes") == 0)
            by.nodes = (int)r->value;
        else if (strcmp(r->member, "max_price") == 0)
            by.max_total_micro = r->value;
        else if (strcmp(r->member, "max_price_per_gpu_hour") == 0)
            by.max_price_micro = r->value;
        else if (strcmp(r->member, "max_slowdown") == 0)
            by.max_slowdown_ppm = r->value;
        else if (strcmp(r->member, "bandwidth") == 0)
            by.bandwidth_Bps = r->value;
        else
            continue;
        match_judge(&market, &by, again);
        size_t k = 0;
        while (again[k].offer != places[i].offer)
            k++;
        if (again[k].why != MATCH_OK || r->text[0] == '\0')
            fail(r->text, q, again[k].why, MATCH_OK);
        relaxed++;
    }
}

static void check_anywhere(struct match_query q)
{
    static struct match_plan plan;
    q.together = MATCH_ANY;
    q.nodes = 2 + (int)draw(3);
    q.latest_us = q.from_us;
    q.bandwidth_Bps = 0;
    int64_t want = try_anywhere(&q);
    enum match_why why = match_best(&market, &q, &plan);
    if ((why == MATCH_OK) != (want >= 0))
        fail("anywhere fits", &q, why, want);
    if (want < 0)
        return;
    check_plan(&q, &plan);
    if (plan.effective_micro != want)
        fail("anywhere effective", &q, plan.effective_micro, want);
    any_fit++;
}

/* With paths and a range it need not be the best; but what one offer can give alone at
 * some minute of it is found, and what is found is free and has its lanes. */
static void check_anywhere_paths(struct match_query q)
{
    static struct match_plan plan;
    bool exists = false;
    q.together = MATCH_ANY;
    q.nodes = 2 + (int)draw(3);
    q.max_total_micro = 0;
    for (int i = 0; i < plain.offer_count; i++) {
        struct match_query one = q;
        int64_t total, ppm;
        int ways[DATA];
        one.nodes = 1;
        bool fits = wanted(&q, &plain.offers[i]) && figures(&one, i, &total, &ppm);
        for (int t = minute_of(q.from_us); fits && t <= minute_of(q.latest_us); t++)
            exists = exists || (nodes_free(&q, i, -1, t) >= q.nodes &&
                                ways_at(&q, plain.offers[i].site, t, ways) &&
                                figures_by(&one, i, ways, &total, &ppm));
    }
    enum match_why why = match_best(&market, &q, &plan);
    if (exists && why != MATCH_OK)
        fail("one offer would do", &q, why, MATCH_OK);
    if (why != MATCH_OK)
        return;
    check_plan(&q, &plan);
    for (int i = 0; i < plan.slot_count; i++) {
        int site = plain.offers[plan.slots[i].offer].site;
        for (int d = 0; q.bandwidth_Bps > 0 && d < (int)q.data_count; d++) {
            bool has = plain.data_site[d] == site || first_there(&q, d) < d;
            for (int k = 0; k < plan.lanes_count && !has; k++) {
                const struct match_path *way = &plain.paths[plan.lanes[k].path];
                has = plan.lanes[k].data == d &&
                      (way->from_site == site || way->to_site == site);
            }
            if (!has)
                fail("a site without lanes to its data", &q, site, d);
        }
    }
    any_paths++;
}

static void check_groups(struct match_query q)
{
    static struct match_plan plan;
    q.federated = true;
    q.data_count = 2 + draw(2);
    q.max_total_micro = 0;
    if (match_best(&market, &q, &plan) != MATCH_OK)
        return;
    check_plan(&q, &plan);
    int nodes = q.nodes > 1 ? q.nodes : 1;
    if (plan.slot_count != nodes * (int)q.data_count ||
        plan.group_count != (int)q.data_count)
        fail("groups", &q, plan.slot_count, plan.group_count);
    if (plan.slots[0].group != plan.coordinator)
        fail("rank 0 is not at the coordinator", &q, plan.slots[0].group,
             plan.coordinator);
    for (int i = 0; i < plan.slot_count; i++) {
        struct match_query one = q;
        int64_t total, ppm;
        int g = plan.slots[i].group;
        one.federated = false;
        one.data = &datas[g];
        one.data_site = &plain.data_site[g];
        one.data_count = 1;
        if (!wanted(&one, &plain.offers[plan.slots[i].offer]) ||
            !figures(&one, plan.slots[i].offer, &total, &ppm))
            fail("a group out of its bounds", &q, g, plan.slots[i].offer);
    }
    groups_fit++;
}

int main(int argc, char **argv)
{
    uint64_t seed = argc > 1 ? strtoull(argv[1], NULL, 10) : (uint64_t)time(NULL);
    int markets = argc > 2 ? (int)strtol(argv[2], NULL, 10) : 4000;
    printf("seed %" PRIu64 "\n", seed);
    for (int i = 0; i < markets; i++) {
        market_seed = seed + (uint64_t)i;
        state = market_seed * UINT64_C(0x9E3779B97F4A7C15) + 1;
        make_market();
        for (int k = 0; k < 12; k++) {
            struct match_query q = make_query();
            check_site(&q);
            check_relaxed(&q);
            check_anywhere(q);
            check_anywhere_paths(q);
            check_groups(q);
        }
        drop_market();
    }
    printf("%" PRIu64 " requests fitted, %" PRIu64 " did not; %" PRIu64
           " gangs anywhere, %" PRIu64 " in ranges with paths, %" PRIu64
           " federated, %" PRIu64 " relaxations tried\n",
           sites_fit, sites_none, any_fit, any_paths, groups_fit, relaxed);
    printf("100%%: Checks: 1, Failures: 0, Errors: 0\n");
    return 0;
}
