/* choose: a job of policy neargpu that fits one node and wants to start now is placed
 * by match_best, as a server would. Everything else goes by a loop over the same facts:
 * the other policies, gangs (of nodes as large as each site has them), and starts in
 * the future, where each place occupies its GPUs for another length, because it slows
 * the job down differently. */
#include "server/sim/choose.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/money.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

static const char *const policy_names[SIM_POLICIES] = {"neargpu", "nearest", "cheapest",
                                                       "random"};

const char *sim_policy_name(enum sim_policy policy)
{
    return policy_names[policy];
}

const char *sim_why_name(int why)
{
    switch (why) {
    case SIM_NO_PRICE: return "no_price";
    case SIM_ENDLESS: return "endless";
    default: return match_why_name((enum match_why)why);
    }
}

uint64_t sim_draw(uint64_t seed, uint64_t a, uint64_t b)
{
    uint64_t x = seed;
    const uint64_t in[] = {0, a, b};
    for (size_t i = 0; i < sizeof in / sizeof in[0]; i++) {
        x = (x ^ in[i]) + UINT64_C(0x9e3779b97f4a7c15);
        x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
        x ^= x >> 31;
    }
    return x;
}

/* match_best sees prices in thousandths of a micro-unit: amounts rounded to whole ones
 * make places equal that are not, for a job of some seconds. */
#define PRICE_SCALE 1000

/* ---- the market ---- */

/* Does the wish "A|B" name this model? "" is any. */
static bool wish_fits(const char *wish, const char *model)
{
    if (wish[0] == '\0') {
        return true;
    }
    while (*wish != '\0') {
        size_t len = strcspn(wish, "|");
        char part[256];
        assert(len < sizeof part);
        memcpy(part, wish, len);
        part[len] = '\0';
        if (match_model_fits(model, part)) {
            return true;
        }
        wish += len + (wish[len] == '|');
    }
    return false;
}

static void fill_wish(struct sim_market *m, const char *text, struct sim_wish *wish)
{
    const struct sim_world *w = m->world;
    wish->offers = xcalloc(m->offer_count + 1, sizeof *wish->offers);
    wish->ids = xcalloc(m->offer_count + 1, sizeof *wish->ids);
    wish->no_offer = MATCH_MODEL;
    for (int i = 0; i < w->models.count; i++) {
        if (wish_fits(text, w->models.items[i])) {
            wish->no_offer = SIM_NO_PRICE; /* nodes it has */
        }
    }
    for (size_t i = 0; i < m->offer_count; i++) {
        if (wish_fits(text, m->offers[i].gpu_model)) {
            wish->offers[wish->count] = m->offers[i];
            wish->offers[wish->count].price_micro *= PRICE_SCALE;
            wish->ids[wish->count++] = (int)i;
            wish->largest =
                wish->largest > m->largest[i] ? wish->largest : m->largest[i];
        }
    }
}

/* One offer per (site, model) in order of site, then model. */
static void fill_offers(struct sim_market *m)
{
    const struct sim_world *w = m->world;
    size_t models = (size_t)w->models.count;
    size_t cells = (size_t)w->sites.count * models;
    int *largest = xcalloc(cells, sizeof *largest);
    int *whole = xcalloc(cells, sizeof *whole);
    for (size_t i = 0; i < w->node_count; i++) {
        const struct sim_node *n = &w->nodes[i];
        size_t cell = (size_t)n->site * models + (size_t)n->model;
        if (n->gpus > largest[cell]) {
            largest[cell] = n->gpus;
            whole[cell] = 0;
        }
        whole[cell] += n->gpus == largest[cell];
    }
    m->offers = xcalloc(cells, sizeof *m->offers);
    for (size_t i = 0; i < cells; i++) {
        if (largest[i] == 0 || w->price_micro[i] == SIM_PRICE_UNKNOWN) {
            continue;
        }
        m->offers[m->offer_count] =
            (struct match_offer){.site = (int)(i / models),
                                 .model = (int)(i % models),
                                 .site_name = w->sites.items[i / models],
                                 .provider_name = "",
                                 .gpu_model = w->models.items[i % models],
                                 .residency = "",
                                 .price_micro = w->price_micro[i],
                                 .reliability_ppm = MATCH_PPM,
                                 .up = true};
        largest[m->offer_count] = largest[i]; /* never ahead of i */
        whole[m->offer_count++] = whole[i];
    }
    m->largest = largest;
    m->whole = whole;
}

/* Each pair as a measurement that does not grow old; one of 0 is allowed. */
static void fill_topo(struct sim_market *m)
{
    int sites = m->world->sites.count;
    for (int i = 0; i < sites * sites; i++) {
        struct topo_rtt rtt = {.source = TOPO_MEASURED,
                               .rtt_us = m->world->rtt_us[i],
                               .count = 1,
                               .at_us = SIM_TIME_MAX_US};
        if (rtt.rtt_us != SIM_RTT_UNKNOWN &&
            topo_measured(m->topo, i / sites, i % sites, &rtt, NULL) != 0) {
            assert(!"a place nobody gave cannot be contradicted");
        }
    }
}

void sim_market_init(struct sim_market *m, const struct sim_world *w)
{
    *m =
        (struct sim_market){.world = w, .calendar = calendar_new(), .topo = topo_new()};
    for (size_t i = 0; i < w->node_count; i++) {
        const struct sim_node *n = &w->nodes[i];
        calendar_set_node(
            m->calendar, (int)i,
            &(struct calendar_node){.site = n->site,
                                    .model = n->model,
                                    .gpus = n->gpus,
                                    .offered = UINT64_MAX >> (64 - n->gpus)});
    }
    fill_topo(m);
    fill_offers(m);
    m->plan = xcalloc(1, sizeof *m->plan);
    m->wishes = xcalloc((size_t)w->wishes.count + 1, sizeof *m->wishes);
    for (int i = 0; i < w->wishes.count; i++) {
        fill_wish(m, w->wishes.items[i], &m->wishes[i]);
    }
}

void sim_market_done(struct sim_market *m)
{
    for (int i = 0; m->wishes != NULL && i < m->world->wishes.count; i++) {
        free(m->wishes[i].offers);
        free(m->wishes[i].ids);
    }
    calendar_free(m->calendar);
    topo_free(m->topo);
    free(m->offers);
    free(m->largest);
    free(m->whole);
    free(m->wishes);
    free(m->plan);
    *m = (struct sim_market){0};
}

/* ---- the order of places ---- */

/* Smaller is better, member by member. */
struct rank {
    int64_t start_us;
    __int128 first;
    int64_t second;
    uint64_t chance;
};

static bool is_better(const struct rank *a, const struct rank *b)
{
    if (a->start_us != b->start_us) {
        return a->start_us < b->start_us;
    }
    if (a->first != b->first) {
        return a->first < b->first;
    }
    return a->second != b->second ? a->second < b->second : a->chance < b->chance;
}

static struct rank rank_of(const struct sim_market *m, const struct sim_ask *ask,
                           const struct sim_choice *c)
{
    int64_t rtt = c->rtt_us == SIM_RTT_UNKNOWN ? INT64_MAX : c->rtt_us;
    int64_t price = m->offers[c->offer].price_micro;
    struct rank r = {.start_us = c->start_us,
                     .chance = sim_draw(ask->chance, (uint64_t)c->offer, 1)};
    switch (ask->policy) {
    case SIM_NEARGPU:
        /* Effective cost per unit of duration, not rounded to micro-units as amounts
         * are: a job of a second would meet ties that are none. */
        r.first = (__int128)price * c->slowdown_ppm * c->gpus * c->nodes;
        r.second = rtt;
        break;
    case SIM_NEAREST:
        r.first = rtt;
        r.second = price;
        break;
    case SIM_CHEAPEST: r.first = price; break;
    case SIM_RANDOM: break;
    }
    return r;
}

/* ---- one node, now: the server's own choice ---- */

/* Duration times slow-down, half up; -1 when it leaves counted time. */
static int64_t occupied_us(int64_t duration_us, int64_t slowdown_ppm)
{
    __int128 us = ((__int128)duration_us * slowdown_ppm + MATCH_PPM / 2) / MATCH_PPM;
    return us > SIM_TIME_MAX_US ? -1 : (int64_t)us;
}

/* False: no place has room now; why not is another question. */
static bool choose_best(const struct sim_market *m, const struct sim_job *job,
                        const struct slowdown_profile *profile,
                        const struct sim_ask *ask, struct sim_choice *ret)
{
    const struct sim_wish *wish = &m->wishes[job->wish];
    struct match_market market = {.calendar = m->calendar,
                                  .topo = m->topo,
                                  .offers = wish->offers,
                                  .offer_count = wish->count};
    struct match_query q = {.gpus = job->gpus,
                            .len_us = job->duration_us,
                            .from_us = ask->now_us,
                            .latest_us = ask->now_us,
                            .data = &ask->data,
                            .data_count = 1,
                            .profile = profile,
                            .now_us = ask->now_us,
                            .spread = (uint32_t)ask->chance};
    struct match_plan *plan = m->plan;
    if (match_best(&market, &q, plan) != MATCH_OK) {
        return false;
    }
    const struct match_slot *slot = &plan->slots[0];
    struct topo_rtt rtt = plan->groups[0].rtt;
    ret->why = MATCH_OK;
    ret->offer = wish->ids[slot->offer];
    ret->start_us = plan->start_us;
    ret->rtt_us = rtt.source == TOPO_UNKNOWN ? SIM_RTT_UNKNOWN : rtt.rtt_us;
    ret->slowdown_ppm = plan->slowdown_ppm;
    ret->len_us = occupied_us(job->duration_us, plan->slowdown_ppm);
    ret->nodes = 1;
    ret->gpus = job->gpus;
    ret->slots[0] = (struct calendar_slot){slot->node, slot->first, plan->start_us};
    return ret->len_us >= 0;
}

/* ---- everything else ---- */

/* All but the calendar: what the place costs this job, or why it never serves it. */
static void facts(const struct sim_market *m, const struct sim_job *job,
                  const struct slowdown_profile *profile, const struct sim_ask *ask,
                  struct sim_choice *c)
{
    const struct match_offer *o = &m->offers[c->offer];
    const struct sim_wish *wish = &m->wishes[job->wish];
    bool is_gang = job->gpus > wish->largest;
    int size = m->largest[c->offer];
    c->gpus = is_gang ? size : job->gpus;
    c->nodes = is_gang ? (job->gpus + size - 1) / size : 1;
    c->why = MATCH_OK;
    struct topo_rtt rtt = topo_rtt(m->topo, o->site, ask->data, ask->now_us);
    c->rtt_us = rtt.source == TOPO_UNKNOWN ? SIM_RTT_UNKNOWN : rtt.rtt_us;
    c->slowdown_ppm = MATCH_PPM;
    if (profile != NULL && rtt.source != TOPO_UNKNOWN) {
        struct slowdown_path path = {.rtt_s = (double)rtt.rtt_us * 1e-6,
                                     .service_s = SLOWDOWN_SERVICE_S};
        struct slowdown_result r;
        int64_t len_us = job->duration_us > 0 ? job->duration_us : 1;
        slowdown_predict(profile, &path, c->gpus * c->nodes, (double)len_us * 1e-6, &r);
        c->slowdown_ppm = (int64_t)floor(fmin(r.job, 1e6) * (double)MATCH_PPM + 0.5);
    }
    c->len_us = occupied_us(job->duration_us, c->slowdown_ppm);
    int64_t gpu_us, charged, effective, all;
    bool is_counted =
        !__builtin_mul_overflow(job->duration_us, (int64_t)c->gpus, &gpu_us) &&
        money_mul(gpu_us, o->price_micro, US_PER_HOUR, &charged, NULL) == 0 &&
        money_mul(c->slowdown_ppm, charged, MATCH_PPM, &effective, NULL) == 0 &&
        !__builtin_mul_overflow(effective, (int64_t)c->nodes, &all);
    if (profile != NULL && rtt.source == TOPO_UNKNOWN) {
        c->why = MATCH_NO_RTT;
    } else if (!is_counted) {
        c->why = MATCH_TOO_DEAR;
    } else if (size < c->gpus) {
        c->why = MATCH_NODE_TOO_SMALL;
    } else if (is_gang &&
               (c->nodes > m->whole[c->offer] || c->nodes > GANG_NODES_MAX)) {
        c->why = MATCH_TOO_FEW_NODES;
    } else if (c->len_us < 0) {
        c->why = SIM_ENDLESS;
    }
}

static bool find_room(const struct sim_market *m, const struct sim_ask *ask,
                      int64_t latest_us, struct sim_choice *c)
{
    const struct match_offer *o = &m->offers[c->offer];
    struct room_query q = {.site = o->site,
                           .model = o->model,
                           .nodes = c->nodes,
                           .gpus = c->gpus,
                           .from_us = ask->now_us,
                           .latest_us = latest_us,
                           .len_us = c->len_us > 0 ? c->len_us : 1,
                           .spread = (uint32_t)ask->chance};
    int nodes[GANG_NODES_MAX];
    int64_t start_us;
    if (!room_find(m->room, &q, &start_us, nodes)) {
        return false;
    }
    for (int i = 0; i < c->nodes; i++) {
        c->slots[i] = (struct calendar_slot){nodes[i], 0, start_us};
    }
    return true;
}

static bool find_slots(const struct sim_market *m, const struct sim_ask *ask,
                       int64_t latest_us, struct sim_choice *c)
{
    const struct match_offer *o = &m->offers[c->offer];
    if (m->room != NULL) {
        return find_room(m, ask, latest_us, c);
    }
    struct calendar_query q = {.site = o->site,
                               .model = o->model,
                               .gpus = c->gpus,
                               .from_us = ask->now_us,
                               .latest_us = latest_us,
                               .len_us = c->len_us > 0 ? c->len_us : 1,
                               .spread = (uint32_t)ask->chance};
    if (c->nodes == 1) {
        return calendar_find(m->calendar, &q, &c->slots[0]);
    }
    struct calendar_gang gang = {.query = q, .nodes = c->nodes};
    return calendar_find_gang(m->calendar, &gang, c->slots);
}

/* A place that can start later than the best so far is not looked for. */
static void choose_by_facts(const struct sim_market *m, const struct sim_job *job,
                            const struct slowdown_profile *profile,
                            const struct sim_ask *ask, struct sim_choice *ret)
{
    const struct sim_wish *wish = &m->wishes[job->wish];
    int64_t latest_us = ask->latest_us;
    struct rank best = {0};
    ret->why = -1;
    for (size_t i = 0; i < wish->count; i++) {
        struct sim_choice c;
        c.offer = wish->ids[i];
        facts(m, job, profile, ask, &c);
        if (c.why == MATCH_OK && !find_slots(m, ask, latest_us, &c)) {
            c.why = MATCH_BUSY;
        }
        if (c.why != MATCH_OK) {
            /* Busy says more than any other refusal: it will fit. */
            if (ret->why != MATCH_OK && ret->why != MATCH_BUSY &&
                (c.why == MATCH_BUSY || c.why > ret->why)) {
                ret->why = c.why;
            }
            continue;
        }
        c.start_us = c.slots[0].start_us;
        struct rank rank = rank_of(m, ask, &c);
        if (ret->why != MATCH_OK || is_better(&rank, &best)) {
            best = rank;
            latest_us = c.start_us;
            *ret = c;
        }
    }
}

void sim_choose(const struct sim_market *m, const struct sim_job *job,
                const struct sim_ask *ask, struct sim_choice *ret)
{
    const struct sim_wish *wish = &m->wishes[job->wish];
    if (wish->count == 0) {
        ret->why = wish->no_offer;
        return;
    }
    struct slowdown_profile own;
    const struct slowdown_profile *profile =
        sim_job_profile(m->world, job, &own) ? &own : NULL;
    /* A job of no duration costs nothing anywhere: only its rates can be compared. */
    bool is_plain = ask->policy == SIM_NEARGPU && job->gpus <= wish->largest &&
                    job->duration_us > 0 && ask->latest_us == ask->now_us &&
                    m->room == NULL;
    if (!is_plain || !choose_best(m, job, profile, ask, ret)) {
        choose_by_facts(m, job, profile, ask, ret);
    }
}
