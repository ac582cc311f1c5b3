/* model_place: the placement that the matching core chooses on random small markets
 * against every place, node and start tried one by one, with round trips, slow-downs
 * and prices worked out here from the formulas of docs/matching.md.
 *
 * Usage: model_place [SEED [MARKETS]]; SEED may come from NEARGPU_SEED. Prints the seed
 * and "N questions, M differences"; exit 1 when M is not 0. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/core/match.h"

#define SITES    4
#define MODELS   2
#define NODES    8
#define DATA     3
#define BOOKINGS 30
#define SPAN     40 /* instants of the model; one is UNIT_US */
#define UNIT_US  INT64_C(60000000)
#define OFFERS   (SITES * MODELS)

static const char *const site_names[SITES] = {"tokyo", "osaka", "fukuoka", "sapporo"};
static const char *const model_names[MODELS] = {"H100", "A100 80GB"};

struct market {
    int node_offer[NODES], node_gpus[NODES]; /* -1: no such node */
    bool taken[NODES][8][SPAN * 3];
    int64_t rtt_us[SITES][DATA]; /* 0: unknown */
    struct match_offer offers[OFFERS];
    struct calendar *calendar;
    struct topo *topo;
};
struct answer {
    int offer; /* -1: nothing fits */
    int start; /* instant */
    double effective;
    size_t fitting; /* offers that fit */
};

static uint64_t rng;

static int below(int n)
{
    rng = rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (int)((rng >> 33) % (unsigned)n);
}

/* ---- one market, kept twice ---- */

static void make_offers(struct market *m)
{
    for (int i = 0; i < OFFERS; i++) {
        m->offers[i] =
            (struct match_offer){.site = i / MODELS,
                                 .model = i,
                                 .site_name = site_names[i / MODELS],
                                 .provider_name = i % 3 ? "one" : "two",
                                 .gpu_model = model_names[i % MODELS],
                                 .residency = i < 6 ? "jp" : "us",
                                 .price_micro = 1000 + below(4000000),
                                 .gpu_memory_mib = i % MODELS ? 81920 : 40960,
                                 .reliability_ppm = 900000 + below(100000),
                                 .up = below(12) > 0};
    }
}

static void make_market(struct market *m)
{
    memset(m, 0, sizeof *m);
    m->calendar = calendar_new();
    m->topo = topo_new();
    make_offers(m);
    for (int site = 0; site < SITES; site++) {
        for (int data = 0; data < DATA; data++) {
            m->rtt_us[site][data] = below(8) == 0 ? 0 : 100 + below(40000);
            topo_declared(m->topo, site, data, m->rtt_us[site][data], 0);
        }
    }
    for (int n = 0; n < NODES; n++) {
        int offer = below(OFFERS), gpus = 1 + below(8);
        m->node_offer[n] = offer;
        m->node_gpus[n] = gpus;
        calendar_set_node(m->calendar, n,
                          &(struct calendar_node){.site = offer / MODELS,
                                                  .model = offer,
                                                  .gpus = gpus,
                                                  .offered = (1u << gpus) - 1});
    }
    for (int64_t id = 1; id <= BOOKINGS; id++) {
        int n = below(NODES), count = 1 + below(m->node_gpus[n]);
        int first = below(m->node_gpus[n] - count + 1);
        int from = below(SPAN), to = from + 1 + below(20);
        bool is_free = true;
        for (int g = first; g < first + count; g++) {
            for (int t = from; t < to; t++) {
                is_free = is_free && !m->taken[n][g][t];
            }
        }
        for (int g = first; is_free && g < first + count; g++) {
            for (int t = from; t < to; t++) {
                m->taken[n][g][t] = true;
            }
        }
        if (is_free) {
            calendar_book(m->calendar, id, n, first, count, from * UNIT_US,
                          to * UNIT_US);
        }
    }
}

/* ---- every place, node and start ---- */

static bool run_is_free(const struct market *m, int node, int gpus, int from, int len)
{
    for (int first = 0; first + gpus <= m->node_gpus[node]; first++) {
        bool is_free = true;
        for (int g = first; g < first + gpus; g++) {
            for (int t = from; t < from + len; t++) {
                is_free = is_free && !m->taken[node][g][t];
            }
        }
        if (is_free) {
            return true;
        }
    }
    return false;
}

/* Farthest data set; -1: one is unknown, or there is none. */
static int64_t farthest_us(const struct market *m, const struct match_query *q,
                           int site)
{
    int64_t worst = -1;
    for (size_t i = 0; i < q->data_count; i++) {
        int64_t rtt = m->rtt_us[site][q->data[i]];
        if (rtt == 0) {
            return -1;
        }
        worst = rtt > worst ? rtt : worst;
    }
    return worst;
}

/* stream: max(1, d/X), X = D q/(R + t_s): the GPUs cancel out. To 1e-6, half up. */
static double slowdown(const struct match_query *q, int64_t rtt_us)
{
    const struct slowdown_profile *p = q->profile;
    if (p == NULL || rtt_us < 0) {
        return 1;
    }
    double wait_s = (double)rtt_us * 1e-6 + 0.0005;
    double s =
        p->demand_Bps_per_gpu * wait_s / (p->outstanding_per_gpu * p->request_bytes);
    return floor(fmax(1, s) * 1e6 + 0.5) / 1e6;
}

static bool bounds_allow(const struct market *m, const struct match_query *q, int i)
{
    const struct match_offer *o = &m->offers[i];
    int64_t rtt_us = farthest_us(m, q, o->site);
    bool needs_rtt = q->data_count > 0 && (q->profile != NULL || q->max_rtt_us > 0);
    double cost = (double)o->price_micro * q->gpus * (double)q->len_us / 3600e6;
    return o->up && (q->gpu_model == NULL || strcmp(o->gpu_model, q->gpu_model) == 0) &&
           o->gpu_memory_mib >= q->min_memory_mib &&
           (q->residency == NULL || strcmp(o->residency, q->residency) == 0) &&
           (q->only_site == NULL || strcmp(o->site_name, q->only_site) == 0) &&
           (!needs_rtt || rtt_us >= 0) &&
           (q->max_rtt_us == 0 || rtt_us <= q->max_rtt_us) &&
           (q->max_price_micro == 0 || o->price_micro <= q->max_price_micro) &&
           (q->max_slowdown_ppm == 0 ||
            slowdown(q, rtt_us) * 1e6 <= (double)q->max_slowdown_ppm + 0.5) &&
           (q->max_effective_micro == 0 ||
            cost * slowdown(q, rtt_us) <= (double)q->max_effective_micro);
}

static struct answer try_all(const struct market *m, const struct match_query *q)
{
    struct answer best = {.offer = -1};
    for (int i = 0; i < OFFERS; i++) {
        const struct match_offer *o = &m->offers[i];
        int len = (int)(q->len_us / UNIT_US), start = -1;
        int from = (int)(q->from_us / UNIT_US), latest = (int)(q->latest_us / UNIT_US);
        if (!bounds_allow(m, q, i)) {
            continue;
        }
        for (int at = from; at <= latest && start < 0; at++) {
            for (int n = 0; n < NODES; n++) {
                if (m->node_offer[n] == i && run_is_free(m, n, q->gpus, at, len)) {
                    start = at;
                }
            }
        }
        if (start < 0) {
            continue;
        }
        double effective = (double)o->price_micro * q->gpus * (double)q->len_us /
                           3600e6 * slowdown(q, farthest_us(m, q, o->site));
        best.fitting++;
        if (best.offer < 0 || effective < best.effective) {
            best.offer = i;
            best.start = start;
            best.effective = effective;
        }
    }
    return best;
}

/* ---- questions ---- */

static struct match_query make_query(int *data)
{
    struct match_query q = {.gpus = 1 + below(8),
                            .len_us = (1 + below(20)) * UNIT_US,
                            .from_us = below(SPAN / 2) * UNIT_US,
                            .data = data,
                            .data_count = (size_t)below(3),
                            .spread = (uint32_t)below(1000)};
    q.latest_us = q.from_us + (below(2) ? below(SPAN) * UNIT_US : 0);
    for (size_t i = 0; i < q.data_count; i++) {
        data[i] = below(DATA);
    }
    const struct slowdown_profile *p =
        &slowdown_profiles[below((int)slowdown_profile_count)];
    if (p->kind == SLOWDOWN_STREAM && below(4) > 0) {
        q.profile = p;
    }
    q.gpu_model = below(3) == 0 ? model_names[below(MODELS)] : NULL;
    q.min_memory_mib = below(6) == 0 ? 81920 : 0;
    q.residency = below(6) == 0 ? "jp" : NULL;
    q.only_site = below(10) == 0 ? site_names[below(SITES)] : NULL;
    q.max_rtt_us = below(4) == 0 && q.data_count > 0 ? 1000 + below(40000) : 0;
    q.max_price_micro = below(6) == 0 ? 1 + below(4000000) : 0;
    q.max_slowdown_ppm = below(6) == 0 ? 1000000 + below(3000000) : 0;
    q.max_effective_micro = below(8) == 0 ? 1 + below(3000000) : 0;
    return q;
}

/* Amounts of the core are rounded twice to a micro-unit. */
static bool is_same(const struct market *m, const struct match_query *q,
                    const struct answer *want, const struct match_place *got,
                    size_t fitting)
{
    if (fitting != want->fitting || fitting == 0) {
        return fitting == want->fitting;
    }
    double off = (double)got->effective_micro - want->effective;
    int node = got->slot.node;
    int at = (int)(got->slot.start_us / UNIT_US);
    return fabs(off) <= 1 + (double)got->slowdown_ppm / 1e6 &&
           m->node_offer[node] == got->offer &&
           run_is_free(m, node, q->gpus, at, (int)(q->len_us / UNIT_US)) &&
           (got->offer != want->offer || at == want->start);
}

/* match_best must name match_rank's first place, or nothing when nothing fits. */
static bool best_is_first(const struct market *m, const struct match_query *q,
                          const struct match_place *first, size_t fitting)
{
    static struct match_plan plan;
    struct match_market market = {.calendar = m->calendar,
                                  .topo = m->topo,
                                  .offers = m->offers,
                                  .offer_count = OFFERS};
    if (match_best(&market, q, &plan) != MATCH_OK) {
        return fitting == 0;
    }
    return fitting > 0 && plan.slot_count == 1 && plan.slots[0].offer == first->offer &&
           plan.slots[0].node == first->slot.node &&
           plan.slots[0].first == first->slot.first &&
           plan.start_us == first->slot.start_us &&
           plan.effective_micro == first->effective_micro;
}

int main(int argc, char **argv)
{
    const char *given = getenv("NEARGPU_SEED");
    uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : (uint64_t)time(NULL);
    long markets = 400, questions = 0, differences = 0;
    if (argc > 1) {
        seed = strtoull(argv[1], NULL, 10);
    }
    if (argc > 2) {
        markets = strtol(argv[2], NULL, 10);
    }
    printf("seed %" PRIu64 "\n", seed);
    rng = seed;
    for (long i = 0; i < markets; i++) {
        static struct market m;
        make_market(&m);
        for (int k = 0; k < 25; k++, questions++) {
            int data[DATA];
            struct match_query q = make_query(data);
            struct match_place places[OFFERS];
            size_t fitting =
                match_rank(m.calendar, m.topo, m.offers, OFFERS, &q, places);
            struct answer want = try_all(&m, &q);
            if (!is_same(&m, &q, &want, &places[0], fitting) ||
                !best_is_first(&m, &q, &places[0], fitting)) {
                differences++;
                printf("market %ld question %d: %zu fit, offer %d at %" PRId64
                       " for %" PRId64 "; expected %zu, offer %d at %d for %.1f\n",
                       i, k, fitting, places[0].offer,
                       places[0].slot.start_us / UNIT_US, places[0].effective_micro,
                       want.fitting, want.offer, want.start, want.effective);
            }
        }
        calendar_free(m.calendar);
        topo_free(m.topo);
    }
    printf("%ld questions, %ld differences\n", questions, differences);
    return differences == 0 ? 0 : 1;
}
