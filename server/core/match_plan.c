/* match_plan: the best plan.
 *
 * One site: offers are taken in the order of the least their plan can cost, and the
 * search ends when that is more than the best plan found: exact. Anywhere (MATCH_ANY):
 * at one start, for each slow-down that may be the slowest member's, the cheapest nodes
 * that are no slower: exact but for zones, where the cheapest node of a zone is taken,
 * and for paths: nodes are taken by the price of GPUs alone, from all sites and from
 * each alone, each site takes the lanes that are left when its turn comes, and two that
 * want the same lanes may miss each other; of a range of starts the first at which
 * there is a plan. Of more than BLOCK offers with free nodes the cheapest are looked
 * at. Federated: the first start at which each group, one after the other, finds its
 * own best place beside those before it;
 * where that fails the groups are tried in other turns: a plan that needs a group to
 * leave its best place for another's sake may be missed. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "client/lib/money.h"
#include "server/core/match_int.h"

/* Offers looked at together: their keys stand on the stack. */
#define BLOCK      512
#define STARTS_MAX 256

/* ---- one site ---- */

/* The order of match_plan_before() but for the start. */
struct key {
    int64_t effective_micro, rtt_us, unreliable_ppm;
    uint32_t spread;
    int offer;
};

static bool is_less(struct key a, struct key b)
{
    if (a.effective_micro != b.effective_micro) {
        return a.effective_micro < b.effective_micro;
    }
    if (a.rtt_us != b.rtt_us) {
        return a.rtt_us < b.rtt_us;
    }
    if (a.unreliable_ppm != b.unreliable_ppm) {
        return a.unreliable_ppm < b.unreliable_ppm;
    }
    return a.spread != b.spread ? a.spread < b.spread : a.offer < b.offer;
}

static void sink(struct key *heap, size_t count, size_t i)
{
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= count) {
            return;
        }
        if (child + 1 < count && is_less(heap[child + 1], heap[child])) {
            child++;
        }
        if (!is_less(heap[child], heap[i])) {
            return;
        }
        struct key k = heap[i];
        heap[i] = heap[child];
        heap[child] = k;
        i = child;
    }
}

static struct key pop(struct key *heap, size_t *count)
{
    struct key top = heap[0];
    heap[0] = heap[--*count];
    sink(heap, *count, 0);
    return top;
}

/* Of those refused: the one that got furthest (the bounds are in one order). */
struct search {
    const struct match_market *m;
    const struct match_query *q;
    struct match_plan plan[2]; /* best, candidate */
    int best;                  /* which of them, -1: none */
    enum match_why why;
};

static void consider(struct search *s, int offer)
{
    struct match_facts f = {.brief = true};
    int next = s->best == 0 ? 1 : 0;
    struct match_plan *plan = &s->plan[next];
    enum match_why why = match_facts(s->m, s->q, &s->m->offers[offer], &f);
    why = why == MATCH_OK ? match_site(s->m, s->q, offer, &f, plan) : why;
    if (why != MATCH_OK) {
        s->why = why > s->why ? why : s->why;
    } else if (s->best < 0 || match_plan_before(s->m, s->q, plan, &s->plan[s->best])) {
        s->best = next;
    }
}

static size_t fill_block(struct search *s, size_t from, size_t to, struct key *heap)
{
    struct match_query q = *s->q; /* without the GPU's name, which is compared here: */
    struct match_facts f = {.brief = true};
    const char *judged = NULL; /* neighbours mostly sell the same one */
    bool fits = true;
    size_t count = 0;
    q.gpu_model = NULL;
    for (size_t i = from; i < to; i++) {
        const struct match_offer *o = &s->m->offers[i];
        if (s->q->gpu_model != NULL &&
            (judged == NULL || strcmp(judged, o->gpu_model) != 0)) {
            judged = o->gpu_model;
            fits = match_model_fits(judged, s->q->gpu_model);
        }
        enum match_why why = fits ? match_facts(s->m, &q, o, &f) : MATCH_MODEL;
        if (why == MATCH_OK) {
            /* A way that is not the cheapest may make up for its price. */
            heap[count++] = (struct key){
                .effective_micro = match_has_choice(&f) ? 0 : f.effective_micro,
                .rtt_us = f.rtt.source == TOPO_UNKNOWN ? INT64_MAX : f.rtt.rtt_us,
                .unreliable_ppm = -o->reliability_ppm,
                .spread = match_spread(s->q->spread, (int)i),
                .offer = (int)i};
        } else if (why > s->why) {
            s->why = why;
        }
    }
    for (size_t i = count / 2; i-- > 0;) {
        sink(heap, count, i);
    }
    return count;
}

/* Can none of the rest be better? What costs the same may start earlier, unless the
 * best starts as early as may be; then the keys are in the order of the ties. */
static bool is_settled(const struct search *s, const struct match_plan *best,
                       const struct key *next)
{
    if (next->effective_micro != best->effective_micro) {
        return next->effective_micro > best->effective_micro;
    }
    struct key key = {.effective_micro = best->effective_micro,
                      .offer = best->slots[0].offer};
    const struct topo_rtt *rtt = &best->groups[0].rtt;
    key.rtt_us = rtt->source == TOPO_UNKNOWN ? INT64_MAX : rtt->rtt_us;
    key.unreliable_ppm = -s->m->offers[key.offer].reliability_ppm;
    key.spread = match_spread(s->q->spread, key.offer);
    return best->start_us == s->q->from_us && is_less(key, *next);
}

static void best_site(struct search *s)
{
    struct key heap[BLOCK];
    for (size_t from = 0; from < s->m->offer_count; from += BLOCK) {
        size_t to = from + BLOCK < s->m->offer_count ? from + BLOCK : s->m->offer_count;
        size_t count = fill_block(s, from, to, heap);
        while (count > 0) {
            struct key k = pop(heap, &count);
            if (s->best >= 0 && is_settled(s, &s->plan[s->best], &k)) {
                break;
            }
            consider(s, k.offer);
        }
    }
}

static bool is_over(int64_t have, int64_t bound)
{
    return bound > 0 && have > bound;
}

static enum match_why in_budget(const struct match_query *q, const struct match_plan *p)
{
    return is_over(p->total_micro, q->max_total_micro) ||
                   is_over(p->effective_micro, q->max_effective_micro)
               ? MATCH_OVER_BUDGET
               : MATCH_OK;
}

/* ---- nodes anywhere ---- */

/* What one offer can give at the start that is looked at. */
struct source {
    int offer, count; /* nodes free, as far as they are asked for */
    int64_t slowdown_ppm, gpu_hour_micro;
    struct topo_rtt rtt;
    struct match_slot slot[MATCH_NODES_MAX];
    int ways, way[DATASETS_PER_REQUEST_MAX]; /* paths its lanes are of */
};
/* Large: one at a time, of the caller. */
struct anywhere {
    struct source source[BLOCK];
    int count;
    int64_t next_us; /* start at which some offer has another node */
};

static void sooner(int64_t *next_us, int64_t at_us)
{
    *next_us = at_us < *next_us ? at_us : *next_us;
}

/* One node of the offer at exactly start_us, beside the plan's. */
static bool one_node(const struct match_market *m, const struct match_query *q,
                     int offer, int64_t start_us, struct match_plan *plan)
{
    struct match_query at = *q;
    struct match_facts f = {.route_count = 0};
    at.nodes = 1;
    at.from_us = at.latest_us = start_us;
    return match_find(m, &at, offer, &f, plan) == MATCH_OK;
}

static void later_node(const struct match_market *m, const struct match_query *q,
                       int offer, int64_t start_us, struct match_plan *taken,
                       int64_t *next_us)
{
    struct calendar_query find = {.site = m->offers[offer].site,
                                  .model = m->offers[offer].model,
                                  .gpus = q->gpus,
                                  .from_us = start_us + 1,
                                  .latest_us = q->latest_us,
                                  .len_us = q->len_us,
                                  .spread = q->spread,
                                  .skip = match_leaves_out,
                                  .skip_arg = taken};
    struct calendar_slot slot;
    if (start_us < q->latest_us && calendar_find(m->calendar, &find, &slot)) {
        sooner(next_us, slot.start_us);
    }
}

/* The lanes the offer would take at start_us, alone; its figures are then those of
 * their paths. False: they are taken, or out of bounds that way. */
static bool find_ways(const struct match_market *m, const struct match_query *q,
                      int64_t start_us, struct match_facts *f, struct match_plan *taken,
                      struct source *s, int64_t *next_us)
{
    taken->lanes_count = 0;
    taken->start_us = start_us;
    int64_t later_us = match_lanes_later(m, q, f, taken);
    if (later_us != start_us) {
        sooner(next_us, later_us);
        return false;
    }
    for (int i = 0; i < taken->lanes_count; i++) {
        s->way[i] = taken->lanes[i].path;
    }
    s->ways = taken->lanes_count;
    if (match_facts_by(m, q, taken, s->offer, f) == MATCH_OK) {
        return true;
    }
    sooner(next_us, match_ways_later(m, q, f, start_us));
    return false;
}

/* Room for one more: in place of the dearest when there is none. */
static struct source *room_for(struct anywhere *a, int64_t gpu_hour_micro)
{
    if (a->count < BLOCK) {
        return &a->source[a->count++];
    }
    struct source *dearest = &a->source[0];
    for (int i = 1; i < BLOCK; i++) {
        if (a->source[i].gpu_hour_micro > dearest->gpu_hour_micro) {
            dearest = &a->source[i];
        }
    }
    return dearest->gpu_hour_micro > gpu_hour_micro ? dearest : NULL;
}

/* The nodes that one offer has free at start_us. */
static void look_at_one(const struct match_market *m, const struct match_query *q,
                        int64_t start_us, struct match_plan *scratch,
                        struct anywhere *a, struct source *s)
{
    int most = q->spread_zones ? 1 : match_nodes(q);
    scratch->slot_count = scratch->lanes_count = scratch->group_count = 0;
    while (s->count < most && one_node(m, q, s->offer, start_us, scratch)) {
        s->slot[s->count] = scratch->slots[s->count];
        s->count++;
    }
    if (s->count < most) {
        later_node(m, q, s->offer, start_us, scratch, &a->next_us);
    }
}

/* All offers within the bounds and the nodes they have free at start_us. */
static enum match_why look_at(const struct match_market *m, const struct match_query *q,
                              int64_t start_us, struct match_plan *scratch,
                              struct anywhere *a)
{
    struct match_query one = *q;
    enum match_why why = MATCH_DOWN;
    one.nodes = 1;
    a->count = 0;
    a->next_us = INT64_MAX;
    for (size_t i = 0; i < m->offer_count; i++) {
        struct match_facts f = {.brief = true};
        enum match_why by = match_facts(m, &one, &m->offers[i], &f);
        struct source found = {.offer = (int)i};
        if (by == MATCH_OK) {
            look_at_one(m, q, start_us, scratch, a, &found);
            by = MATCH_BUSY;
        }
        why = by > why ? by : why;
        if (found.count == 0) {
            continue;
        }
        if (q->bandwidth_Bps > 0 &&
            !find_ways(m, &one, start_us, &f, scratch, &found, &a->next_us)) {
            why = MATCH_PATH_BUSY;
            continue;
        }
        struct source *s = room_for(a, f.gpu_hour_micro);
        if (s != NULL) {
            found.slowdown_ppm = f.slowdown_ppm;
            found.gpu_hour_micro = f.gpu_hour_micro;
            found.rtt = f.rtt;
            *s = found;
        }
    }
    return why;
}

static bool is_cheaper(const struct match_query *q, const struct source *a,
                       const struct source *b)
{
    if (a->gpu_hour_micro != b->gpu_hour_micro) {
        return a->gpu_hour_micro < b->gpu_hour_micro;
    }
    if (a->slowdown_ppm != b->slowdown_ppm) {
        return a->slowdown_ppm < b->slowdown_ppm;
    }
    return match_spread(q->spread, a->offer) < match_spread(q->spread, b->offer);
}

static bool zone_taken(const struct match_market *m, const struct match_plan *plan,
                       int offer)
{
    for (int i = 0; i < plan->slot_count; i++) {
        if (match_same_zone(&m->offers[plan->slots[i].offer], &m->offers[offer])) {
            return true;
        }
    }
    return false;
}

static bool site_taken(const struct match_market *m, const struct match_plan *plan,
                       int site)
{
    for (int i = 0; i < plan->slot_count; i++) {
        if (m->offers[plan->slots[i].offer].site == site) {
            return true;
        }
    }
    return false;
}

/* Lanes from the source's site, once a site, along the paths that its figures are for.
 */
static bool take_ways(const struct match_market *m, const struct match_query *q,
                      const struct source *s, struct match_plan *plan)
{
    struct match_query one = *q;
    struct match_facts f = {.brief = true};
    int had = plan->lanes_count;
    if (q->bandwidth_Bps == 0 || site_taken(m, plan, m->offers[s->offer].site)) {
        return true;
    }
    one.nodes = 1;
    bool fits = match_facts(m, &one, &m->offers[s->offer], &f) == MATCH_OK &&
                had + s->ways <= MATCH_PATHS_MAX &&
                match_lanes_later(m, &one, &f, plan) == plan->start_us;
    for (int i = 0; fits && i < s->ways; i++) {
        fits = plan->lanes[had + i].path == s->way[i];
    }
    plan->lanes_count = fits ? plan->lanes_count : had;
    return fits;
}

/* The cheapest nodes of offers no slower than `limit`, of one site or, -1, of all:
 * sources are sorted by price. */
static bool take_cheapest(const struct search *s, const struct anywhere *a,
                          int64_t limit_ppm, int site, struct match_plan *plan)
{
    const struct match_market *m = s->m;
    const struct match_query *q = s->q;
    plan->slot_count = plan->lanes_count = plan->group_count = 0;
    plan->slowdown_ppm = MATCH_PPM;
    for (int i = 0; i < a->count && plan->slot_count < match_nodes(q); i++) {
        const struct source *from = &a->source[i];
        if (from->slowdown_ppm > limit_ppm ||
            (site >= 0 && m->offers[from->offer].site != site) ||
            (q->spread_zones && zone_taken(m, plan, from->offer)) ||
            !take_ways(m, q, from, plan)) {
            continue;
        }
        for (int k = 0; k < from->count && plan->slot_count < match_nodes(q); k++) {
            plan->slots[plan->slot_count++] = from->slot[k];
            if (from->slowdown_ppm > plan->slowdown_ppm) {
                plan->slowdown_ppm = from->slowdown_ppm;
            }
            if (from->rtt.rtt_us >= plan->groups[0].rtt.rtt_us) {
                plan->groups[0].rtt = from->rtt;
            }
        }
    }
    return plan->slot_count == match_nodes(q);
}

/* What the exchange between the sites adds, when the profile has numbers for it. */
static int64_t sync_ppm(const struct match_market *m, const struct match_query *q,
                        const struct match_plan *plan)
{
    if (q->profile == NULL ||
        !(q->profile->sync_Bps > 0 || q->profile->sync_trips_Hz > 0)) {
        return 0;
    }
    struct slowdown_profile sync = *q->profile;
    struct slowdown_path path = {.service_s = SLOWDOWN_SERVICE_S};
    int first = m->offers[plan->slots[0].offer].site;
    bool apart = false;
    for (int i = 1; i < plan->slot_count; i++) {
        const struct match_offer *o = &m->offers[plan->slots[i].offer];
        double rtt_s = (double)topo_sites(m->topo, first, o->site).rtt_us * 1e-6;
        double left = (double)o->bandwidth_Bps;
        apart = apart || o->site != first;
        path.rtt_s = fmax(path.rtt_s, rtt_s);
        if (left > 0 && (path.bandwidth_Bps <= 0 || left < path.bandwidth_Bps)) {
            path.bandwidth_Bps = left;
        }
    }
    struct slowdown_result r = {.steady = 1};
    sync.kind = SLOWDOWN_SYNC;
    if (apart) {
        slowdown_predict(&sync, &path, q->gpus, 0, &r);
    }
    return (int64_t)floor((fmin(r.steady, 1e6) - 1) * (double)MATCH_PPM + 0.5);
}

static int one_site_of(const struct match_market *m, const struct match_plan *p)
{
    int site = m->offers[p->slots[0].offer].site;
    for (int i = 1; i < p->slot_count; i++) {
        if (m->offers[p->slots[i].offer].site != site) {
            return -1;
        }
    }
    return site;
}

static bool complete(const struct match_market *m, const struct match_query *q,
                     struct match_plan *plan)
{
    plan->len_us = q->len_us;
    plan->gpus = q->gpus;
    plan->spot = q->spot;
    plan->coordinator = 0;
    plan->slowdown_ppm += sync_ppm(m, q, plan);
    plan->group_count = 1;
    plan->groups[0].data = -1;
    plan->groups[0].site = one_site_of(m, plan);
    plan->groups[0].slowdown_ppm = plan->slowdown_ppm;
    plan->groups[0].advice[0] = '\0';
    return match_total(m, plan);
}

static void try_anywhere(struct search *s, const struct anywhere *a, int64_t limit_ppm,
                         int site, int64_t start_us)
{
    int next = s->best == 0 ? 1 : 0;
    struct match_plan *plan = &s->plan[next];
    plan->groups[0].rtt = (struct topo_rtt){0};
    plan->start_us = start_us;
    if (!take_cheapest(s, a, limit_ppm, site, plan) || !complete(s->m, s->q, plan)) {
        return;
    }
    if (in_budget(s->q, plan) != MATCH_OK) {
        s->why = MATCH_OVER_BUDGET;
    } else if (s->best < 0 ||
               plan->effective_micro < s->plan[s->best].effective_micro) {
        s->best = next;
    }
}

/* The best of all at one start, into s->best. */
static void any_at(struct search *s, struct anywhere *a, int64_t start_us)
{
    for (int i = 1; i < a->count;
         i++) { /* by price: few, and nearly sorted next time */
        struct source moved = a->source[i];
        int at = i;
        for (; at > 0 && is_cheaper(s->q, &moved, &a->source[at - 1]); at--) {
            a->source[at] = a->source[at - 1];
        }
        a->source[at] = moved;
    }
    for (int i = 0; i < a->count; i++) {
        int64_t limit_ppm = a->source[i].slowdown_ppm;
        try_anywhere(s, a, limit_ppm, -1, start_us);
        if (s->q->bandwidth_Bps > 0) { /* a site's lanes are paid once */
            int site = s->m->offers[a->source[i].offer].site;
            try_anywhere(s, a, limit_ppm, site, start_us);
        }
    }
}

static void best_anywhere(struct search *s)
{
    struct anywhere a;
    int64_t start_us = s->q->from_us;
    for (int turn = 0; turn < STARTS_MAX && s->best < 0; turn++) {
        enum match_why why = look_at(s->m, s->q, start_us, &s->plan[1], &a);
        s->why = why > s->why ? why : s->why;
        any_at(s, &a, start_us);
        if (a.next_us > s->q->latest_us) {
            break;
        }
        start_us = a.next_us;
    }
}

/* ---- a group near each data set ---- */

/* Is there a place for the group at exactly start_us, beside what the plan has? It is
 * then added; else the start at which there may be one is noted. */
static enum match_why put_group(const struct match_market *m,
                                const struct match_query *one, int group, int offer,
                                struct match_plan *plan, int64_t *next_us)
{
    int slots = plan->slot_count, lanes = plan->lanes_count;
    int64_t start_us = one->from_us;
    struct match_facts f = {.brief = true};
    enum match_why why = match_facts(m, one, &m->offers[offer], &f);
    plan->group_count = group;
    why = why == MATCH_OK ? match_find(m, one, offer, &f, plan) : why;
    if (why != MATCH_OK) {
        return why;
    }
    if (plan->start_us != start_us) {
        sooner(next_us, plan->start_us);
        why = MATCH_BUSY;
    } else {
        why = match_facts_by(m, one, plan, offer, &f);
    }
    if (why != MATCH_OK) {
        plan->slot_count = slots;
        plan->lanes_count = lanes;
        return why;
    }
    for (int i = lanes; i < plan->lanes_count; i++) {
        plan->lanes[i].data = group; /* of the whole query's */
    }
    plan->groups[group] = (struct match_group){.data = group,
                                               .site = m->offers[offer].site,
                                               .rtt = f.rtt,
                                               .slowdown_ppm = f.slowdown_ppm};
    return MATCH_OK;
}

/* The best place of one group at start_us, beside what the plan has; else start_us
 * becomes the next at which there may be one. */
static enum match_why add_group(const struct match_market *m,
                                const struct match_query *q, int group,
                                struct match_plan *plan, int64_t *start_us)
{
    struct match_query one = match_group_query(q, group);
    struct search s = {.m = m, .q = &one, .best = -1, .why = MATCH_MODEL};
    struct key heap[BLOCK], best = {.offer = -1};
    int64_t next_us = INT64_MAX;
    int slots = plan->slot_count, lanes = plan->lanes_count;
    one.from_us = *start_us;
    one.latest_us = q->latest_us;
    for (size_t from = 0; from < m->offer_count; from += BLOCK) {
        size_t to = from + BLOCK < m->offer_count ? from + BLOCK : m->offer_count;
        size_t count = fill_block(&s, from, to, heap);
        while (count > 0) {
            struct key k = pop(heap, &count);
            if (best.offer >= 0 && !is_less(k, best)) {
                break;
            }
            if (q->spread_zones && zone_taken(m, plan, k.offer)) {
                continue;
            }
            enum match_why why = put_group(m, &one, group, k.offer, plan, &next_us);
            s.why = why > s.why ? why : s.why;
            if (why == MATCH_OK) {
                best = k;
                plan->slot_count = slots;
                plan->lanes_count = lanes;
                break;
            }
        }
    }
    if (best.offer >= 0) {
        return put_group(m, &one, group, best.offer, plan, &next_us);
    }
    *start_us = next_us;
    return s.why;
}

/* The group whose farthest other group is nearest. */
static int coordinator_of(const struct match_market *m, const struct match_plan *p)
{
    int best = 0;
    int64_t best_us = INT64_MAX;
    for (int g = 0; g < p->group_count; g++) {
        int64_t worst_us = 0;
        for (int h = 0; h < p->group_count; h++) {
            struct topo_rtt rtt =
                topo_sites(m->topo, p->groups[g].site, p->groups[h].site);
            int64_t us = p->groups[g].site == p->groups[h].site ? 0
                         : rtt.source == TOPO_UNKNOWN           ? INT64_MAX / 2
                                                                : rtt.rtt_us;
            worst_us = us > worst_us ? us : worst_us;
        }
        if (worst_us < best_us) {
            best_us = worst_us;
            best = g;
        }
    }
    return best;
}

/* Ranks: the coordinator's group first, the others in the order of their data. */
static void set_ranks(struct match_plan *p)
{
    struct match_slot sorted[MATCH_NODES_MAX];
    int count = 0;
    for (int turn = -1; turn < p->group_count; turn++) {
        int group = turn < 0 ? p->coordinator : turn;
        for (int i = 0; i < p->slot_count && (turn < 0 || turn != p->coordinator);
             i++) {
            if (p->slots[i].group == group) {
                sorted[count++] = p->slots[i];
            }
        }
    }
    memcpy(p->slots, sorted, (size_t)count * sizeof(sorted[0]));
}

/* A profile of rounds: the groups' ways to the coordinator decide; else the slowest
 * group. */
static int64_t federated_ppm(const struct match_market *m, const struct match_query *q,
                             const struct match_plan *p)
{
    int64_t worst = MATCH_PPM;
    for (int g = 0; g < p->group_count; g++) {
        worst = p->groups[g].slowdown_ppm > worst ? p->groups[g].slowdown_ppm : worst;
    }
    if (q->profile == NULL || q->profile->kind != SLOWDOWN_FEDERATED) {
        return worst;
    }
    struct slowdown_input inputs[MATCH_GROUPS_MAX];
    struct slowdown_result r;
    int centre = p->groups[p->coordinator].site;
    for (int g = 0; g < p->group_count; g++) {
        int64_t us = topo_sites(m->topo, centre, p->groups[g].site).rtt_us;
        inputs[g] = (struct slowdown_input){
            .path = {.rtt_s = p->groups[g].site == centre ? 0 : (double)us * 1e-6,
                     .service_s = SLOWDOWN_SERVICE_S},
            .path_id = g + 1};
    }
    slowdown_predict_inputs(q->profile, inputs, (size_t)p->group_count,
                            (double)q->gpus * match_nodes(q), (double)q->len_us * 1e-6,
                            &r);
    return (int64_t)floor(fmin(r.job, 1e6) * (double)MATCH_PPM + 0.5);
}

/* All groups at one start, beginning with group `turn`. */
static enum match_why groups_at(struct search *s, int turn, int64_t *start_us)
{
    const struct match_query *q = s->q;
    struct match_plan *plan = &s->plan[0];
    int groups = (int)q->data_count;
    plan->slot_count = plan->lanes_count = 0;
    for (int i = 0; i < groups; i++) {
        enum match_why why = add_group(s->m, q, (turn + i) % groups, plan, start_us);
        if (why != MATCH_OK) {
            return why;
        }
    }
    plan->group_count = groups;
    plan->len_us = q->len_us;
    plan->gpus = q->gpus;
    plan->spot = q->spot;
    plan->coordinator = coordinator_of(s->m, plan);
    plan->slowdown_ppm = federated_ppm(s->m, q, plan);
    set_ranks(plan);
    return !match_total(s->m, plan) ? MATCH_TOO_DEAR : in_budget(q, plan);
}

static void best_federated(struct search *s)
{
    int64_t start_us = s->q->from_us;
    for (int count = 0; count < STARTS_MAX && start_us <= s->q->latest_us; count++) {
        int64_t next_us = INT64_MAX;
        for (int turn = 0; turn < (int)s->q->data_count; turn++) {
            int64_t at_us = start_us;
            enum match_why why = groups_at(s, turn, &at_us);
            if (why == MATCH_OK) {
                s->best = 0;
                return;
            }
            s->why = why > s->why ? why : s->why;
            next_us = at_us > start_us && at_us < next_us ? at_us : next_us;
        }
        start_us = next_us;
    }
}

/* ---- */

static bool is_askable(const struct match_query *q)
{
    size_t groups = q->federated ? q->data_count : 1;
    return q->gpus >= 1 && q->gpus <= GPUS_PER_NODE_MAX && q->len_us > 0 &&
           groups >= 1 && groups <= MATCH_GROUPS_MAX &&
           match_nodes(q) * (int)groups <= MATCH_NODES_MAX;
}

static enum match_why answer(const struct search *s, struct match_plan *ret)
{
    if (s->best < 0) {
        return s->why;
    }
    const struct match_plan *p = &s->plan[s->best];
    memcpy(ret, p, offsetof(struct match_plan, lanes));
    memcpy(ret->lanes, p->lanes, (size_t)p->lanes_count * sizeof(p->lanes[0]));
    return MATCH_OK;
}

enum match_why match_best(const struct match_market *m, const struct match_query *q,
                          struct match_plan *ret)
{
    struct search s;
    s.m = m;
    s.q = q;
    s.best = -1;
    s.why = MATCH_DOWN;
    if (!is_askable(q)) {
        return MATCH_TOO_FEW_NODES;
    }
    if (q->federated) {
        best_federated(&s);
    } else if (q->together == MATCH_ANY && match_nodes(q) > 1) {
        best_anywhere(&s);
    } else {
        best_site(&s);
    }
    return answer(&s, ret);
}

enum match_why match_at(const struct match_market *m, const struct match_query *q,
                        int offer, struct match_plan *ret)
{
    struct match_facts f = {.brief = true};
    assert(!q->federated && (q->together != MATCH_ANY || match_nodes(q) == 1));
    if (!is_askable(q)) {
        return MATCH_TOO_FEW_NODES;
    }
    enum match_why why = match_facts(m, q, &m->offers[offer], &f);
    return why == MATCH_OK ? match_site(m, q, offer, &f, ret) : why;
}
