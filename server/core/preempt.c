/* preempt: offer by offer, at the earliest start that firm bookings and notices leave:
 * nodes that hold no spot booking first, they cost nothing; then, node after node, the
 * run whose victims add least to what is lost. That is exact as long as no victim
 * stands on two of the nodes. Gangs do: who is lost for one node is lost for all. So
 * each of them is also tried as lost beforehand, and then all choices, those that can
 * still be better, up to a number of steps: beyond it one that is better may be missed.
 *
 * Of a range the first start is looked at that firm bookings leave, and if notices
 * forbid it the first from the end of the next notice on. */
#include "server/core/preempt.h"

#include <stdlib.h>

#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "server/core/match_int.h"

/* Runs whose cost is asked for beyond the first choice of each offer, all offers
 * together: some milliseconds. */
#define STEPS_MAX 50000

struct victim { /* a reservation that may become one */
    int64_t reservation, lost_micro;
    int64_t from_us;   /* the first of its bookings */
    int64_t notice_us; /* the longest of them */
    unsigned seen;     /* the last count that it was in */
    int taken;         /* by the choice that is being made: by its n-th node; 0: not */
    bool several;      /* it stands on more nodes than `node` of those looked at */
    int node;
};
struct entry { /* a spot booking at its place */
    int site, model, domain, node;
    const struct preempt_spot *spot;
    struct victim *victim;
};
/* What is better is less: work lost, then how long the oldest victim runs. */
struct cost {
    int64_t lost_micro;
    int64_t oldest_us; /* when it began; INT64_MAX: no victim */
    int count;         /* of victims */
};
struct span { /* of entries */
    size_t from, to;
};
struct search {
    const struct preempt_market *m;
    const struct match_query *q;
    struct entry *entries; /* by site, model, domain, node */
    size_t entry_count;
    struct victim *victims; /* by reservation */
    size_t victim_count;
    unsigned count; /* for victim.seen */
    int64_t start_us;
    struct preempt_plan best, next;
    struct cost best_cost;
    struct cost here;     /* the best of the nodes that are looked at */
    int steps, steps_max; /* for those */
    bool found;
    enum match_why why;
};

/* ---- tables ---- */

static int compare_i64(int64_t a, int64_t b)
{
    return (a > b) - (a < b);
}

static int compare_victims(const void *a, const void *b)
{
    const struct victim *x = a, *y = b;
    return compare_i64(x->reservation, y->reservation);
}

static int compare_places(const struct entry *a, const struct entry *b)
{
    int by = compare_i64(a->site, b->site);
    by = by != 0 ? by : compare_i64(a->model, b->model);
    by = by != 0 ? by : compare_i64(a->domain, b->domain);
    return by != 0 ? by : compare_i64(a->node, b->node);
}

static int compare_entries(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    int by = compare_places(x, y);
    return by != 0 ? by : compare_i64(x->spot - y->spot, 0);
}

static int64_t add_capped(int64_t a, int64_t b)
{
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

/* What the booking's GPUs have worked so far, at their price. */
static int64_t work_of(const struct preempt_spot *s, int64_t now_us)
{
    int64_t until_us = s->to_us < now_us ? s->to_us : now_us, micro;
    if (until_us <= s->from_us) {
        return 0;
    }
    return match_price(s->count, s->per_gpu_hour_micro, until_us - s->from_us, &micro)
               ? micro
               : INT64_MAX;
}

/* Bookings of one reservation become one victim. */
static void set_victims(struct search *s)
{
    for (size_t i = 0; i < s->m->spot_count; i++) {
        const struct preempt_spot *spot = &s->m->spots[i];
        s->victims[i] = (struct victim){.reservation = spot->reservation,
                                        .lost_micro = work_of(spot, s->q->now_us),
                                        .from_us = spot->from_us,
                                        .notice_us = spot->notice_us};
    }
    qsort(s->victims, s->m->spot_count, sizeof(*s->victims), compare_victims);
    for (size_t i = 0; i < s->m->spot_count; i++) {
        const struct victim *v = &s->victims[i];
        struct victim *last =
            s->victim_count > 0 ? &s->victims[s->victim_count - 1] : NULL;
        if (last == NULL || last->reservation != v->reservation) {
            s->victims[s->victim_count++] = *v;
            continue;
        }
        last->lost_micro = add_capped(last->lost_micro, v->lost_micro);
        last->from_us = v->from_us < last->from_us ? v->from_us : last->from_us;
        last->notice_us =
            v->notice_us > last->notice_us ? v->notice_us : last->notice_us;
    }
}

static void set_entries(struct search *s)
{
    for (size_t i = 0; i < s->m->spot_count; i++) {
        const struct preempt_spot *spot = &s->m->spots[i];
        const struct victim key = {.reservation = spot->reservation};
        struct entry e = {.node = spot->node, .spot = spot};
        if (spot->from_us < spot->to_us &&
            calendar_where(s->m->firm, spot->node, &e.site, &e.model, &e.domain)) {
            e.victim = bsearch(&key, s->victims, s->victim_count, sizeof(key),
                               compare_victims);
            s->entries[s->entry_count++] = e;
        }
    }
    qsort(s->entries, s->entry_count, sizeof(*s->entries), compare_entries);
}

/* First entry that is not before the key. */
static size_t lower_bound(const struct search *s, const struct entry *key)
{
    size_t lo = 0, hi = s->entry_count;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (compare_places(&s->entries[mid], key) < 0) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static struct span span_of(const struct search *s, const struct entry *first,
                           const struct entry *last)
{
    return (struct span){lower_bound(s, first), lower_bound(s, last)};
}

static struct span offer_span(const struct search *s, const struct match_offer *o)
{
    struct entry first = {.site = o->site, .model = o->model, .domain = INT32_MIN};
    struct entry last = {.site = o->site, .model = o->model, .domain = INT32_MAX};
    first.node = -1;
    last.node = INT32_MAX;
    return span_of(s, &first, &last);
}

/* From `at` on those of the same domain, or of the same node. */
static size_t domain_end(const struct search *s, size_t at, size_t end)
{
    int domain = s->entries[at].domain;
    while (at < end && s->entries[at].domain == domain) {
        at++;
    }
    return at;
}

static size_t node_end(const struct search *s, size_t at, size_t end)
{
    int node = s->entries[at].node;
    while (at < end && s->entries[at].node == node) {
        at++;
    }
    return at;
}

/* ---- one run on one node ---- */

static bool is_in_way(const struct search *s, const struct entry *e, int first)
{
    const struct preempt_spot *b = e->spot;
    return b->from_us < s->start_us + s->q->len_us && s->start_us < b->to_us &&
           b->first < first + s->q->gpus && first < b->first + b->count;
}

static int compare_costs(const struct cost *a, const struct cost *b)
{
    int by = compare_i64(a->lost_micro, b->lost_micro);
    return by != 0 ? by : compare_i64(b->oldest_us, a->oldest_us);
}

static const struct cost no_cost = {.oldest_us = INT64_MAX};
static const struct cost any_cost = {INT64_MAX, INT64_MIN, 0};

static void cost_add(struct cost *c, const struct victim *v)
{
    c->lost_micro = add_capped(c->lost_micro, v->lost_micro);
    c->oldest_us = v->from_us < c->oldest_us ? v->from_us : c->oldest_us;
    c->count++;
}

/* What the run adds to what is taken already; false: somebody's notice is longer. */
static bool cost_of(struct search *s, struct span node, int first, struct cost *ret)
{
    *ret = no_cost;
    s->count++;
    s->steps++;
    for (size_t i = node.from; i < node.to; i++) {
        const struct entry *e = &s->entries[i];
        if (!is_in_way(s, e, first)) {
            continue;
        }
        if (add_capped(s->q->now_us, e->victim->notice_us) > s->start_us) {
            return false;
        }
        if (e->victim->taken == 0 && e->victim->seen != s->count) {
            e->victim->seen = s->count;
            cost_add(ret, e->victim);
        }
    }
    return true;
}

struct choice {
    struct span node;
    int first;
    struct cost cost;
};

static struct cost cost_sum(struct cost a, struct cost b)
{
    return (struct cost){add_capped(a.lost_micro, b.lost_micro),
                         a.oldest_us < b.oldest_us ? a.oldest_us : b.oldest_us,
                         a.count + b.count};
}

/* Firsts of the node's runs that no firm booking has: a bit each. */
static uint64_t free_runs(const struct search *s, int node)
{
    uint64_t runs = UINT64_MAX, mask = calendar_free_mask(s->m->firm, node, s->start_us,
                                                          s->start_us + s->q->len_us);
    for (int i = 0; i < s->q->gpus; i++) {
        runs &= mask >> i;
    }
    return runs;
}

/* The run that costs least; ties: fewest victims, then the lowest. */
static bool best_run(struct search *s, struct span node, struct choice *ret)
{
    uint64_t runs = free_runs(s, s->entries[node.from].node);
    bool found = false;
    for (; runs != 0; runs &= runs - 1) {
        int first = __builtin_ctzll(runs);
        struct cost cost;
        if (!cost_of(s, node, first, &cost)) {
            continue;
        }
        int by = found ? compare_costs(&cost, &ret->cost) : -1;
        if (by < 0 || (by == 0 && cost.count < ret->cost.count)) {
            *ret = (struct choice){node, first, cost};
            found = true;
        }
    }
    return found;
}

/* ---- nodes at one start ---- */

static bool is_taken(const struct search *s, int node)
{
    return match_leaves_out((void *)(uintptr_t)&s->next.plan, node);
}

/* The next node: of those with spot bookings in the span the cheapest. */
static bool best_node(struct search *s, struct span of, struct choice *ret)
{
    bool found = false;
    int best = 0;
    for (size_t at = of.from, end; at < of.to; at = end) {
        struct choice c;
        int node = s->entries[at].node, way = (int)((uint32_t)node ^ s->q->spread);
        end = node_end(s, at, of.to);
        if (is_taken(s, node) || !best_run(s, (struct span){at, end}, &c)) {
            continue;
        }
        int by = found ? compare_costs(&c.cost, &ret->cost) : -1;
        by = by != 0 ? by : compare_i64(c.cost.count, ret->cost.count);
        if (by < 0 || (by == 0 && (uint32_t)way < (uint32_t)best)) {
            *ret = c;
            best = way;
            found = true;
        }
    }
    return found;
}

static void take_slot(struct search *s, int offer, int node, int first)
{
    struct match_plan *p = &s->next.plan;
    p->slots[p->slot_count++] = (struct match_slot){node, first, offer, 0};
}

static void take(struct search *s, int offer, const struct choice *c)
{
    take_slot(s, offer, s->entries[c->node.from].node, c->first);
    for (size_t i = c->node.from; i < c->node.to; i++) {
        struct victim *v = s->entries[i].victim;
        if (v->taken == 0 && is_in_way(s, &s->entries[i], c->first)) {
            v->taken = s->next.plan.slot_count;
        }
    }
}

/* The last one taken is given back. */
static void give_back(struct search *s, struct span node)
{
    for (size_t i = node.from; i < node.to; i++) {
        struct victim *v = s->entries[i].victim;
        v->taken = v->taken == s->next.plan.slot_count ? 0 : v->taken;
    }
    s->next.plan.slot_count--;
}

/* For nodes that hold no spot booking: those leave out. */
struct plain {
    const struct search *s;
    const int *domain; /* NULL: any */
};

static bool is_not_plain(void *arg, int node)
{
    const struct plain *p = arg;
    struct entry key = {.node = node};
    if (!calendar_where(p->s->m->firm, node, &key.site, &key.model, &key.domain) ||
        (p->domain != NULL && key.domain != *p->domain) || is_taken(p->s, node)) {
        return true;
    }
    size_t at = lower_bound(p->s, &key);
    return at < p->s->entry_count && compare_places(&p->s->entries[at], &key) == 0;
}

static struct calendar_query firm_query(const struct search *s, int offer,
                                        int64_t from_us, int64_t latest_us)
{
    const struct match_offer *o = &s->m->market->offers[offer];
    return (struct calendar_query){.site = o->site,
                                   .model = o->model,
                                   .gpus = s->q->gpus,
                                   .from_us = from_us,
                                   .latest_us = latest_us,
                                   .len_us = s->q->len_us,
                                   .spread = s->q->spread};
}

/* Nodes without spot bookings, as many as there are and are wanted. */
static void take_plain(struct search *s, int offer, const int *domain)
{
    struct plain plain = {s, domain};
    struct calendar_query find = firm_query(s, offer, s->start_us, s->start_us);
    struct calendar_slot slot;
    find.skip = is_not_plain;
    find.skip_arg = &plain;
    while (s->next.plan.slot_count < match_nodes(s->q) &&
           calendar_find(s->m->firm, &find, &slot)) {
        take_slot(s, offer, slot.node, slot.first);
    }
}

/* ---- plans ---- */

static void begin(struct search *s, struct span of)
{
    s->next.plan.slot_count = 0;
    for (size_t i = of.from; i < of.to; i++) {
        s->entries[i].victim->taken = 0;
    }
}

static bool is_over(int64_t have, int64_t bound)
{
    return bound > 0 && have > bound;
}

/* All that match_site() would say of these nodes. */
static enum match_why complete(struct search *s, int offer, const struct match_facts *f)
{
    struct match_plan *p = &s->next.plan;
    p->start_us = s->start_us;
    p->len_us = s->q->len_us;
    p->gpus = s->q->gpus;
    p->spot = false;
    p->lanes_count = p->coordinator = 0;
    p->group_count = 1;
    p->slowdown_ppm = f->slowdown_ppm;
    p->groups[0] = (struct match_group){.data = -1,
                                        .site = s->m->market->offers[offer].site,
                                        .rtt = f->rtt,
                                        .slowdown_ppm = f->slowdown_ppm};
    if (!match_total(s->m->market, p)) {
        return MATCH_TOO_DEAR;
    }
    return is_over(p->total_micro, s->q->max_total_micro) ||
                   is_over(p->effective_micro, s->q->max_effective_micro)
               ? MATCH_OVER_BUDGET
               : MATCH_OK;
}

/* The victims of the slots, each once; false: too many. */
static bool list_victims(struct search *s, struct span of, struct cost *ret)
{
    struct preempt_plan *p = &s->next;
    *ret = no_cost;
    s->count++;
    p->victim_count = 0;
    for (int k = 0; k < p->plan.slot_count; k++) {
        for (size_t i = of.from; i < of.to; i++) {
            struct entry *e = &s->entries[i];
            if (e->node != p->plan.slots[k].node || e->victim->seen == s->count ||
                !is_in_way(s, e, p->plan.slots[k].first)) {
                continue;
            }
            if (p->victim_count == PREEMPT_VICTIMS_MAX) {
                return false;
            }
            e->victim->seen = s->count;
            cost_add(ret, e->victim);
            p->victims[p->victim_count++] =
                (struct preempt_victim){e->victim->reservation, s->start_us};
        }
    }
    return true;
}

/* The slots are chosen: is that better than what was found so far? */
static void weigh(struct search *s, int offer, struct span of)
{
    const struct match_market *m = s->m->market;
    struct match_facts f = {.brief = true};
    struct cost cost;
    if (!list_victims(s, of, &cost)) {
        return;
    }
    enum match_why why = match_facts(m, s->q, &m->offers[offer], &f);
    why = why == MATCH_OK ? complete(s, offer, &f) : why;
    s->why = why > s->why ? why : s->why;
    s->here = compare_costs(&cost, &s->here) < 0 ? cost : s->here;
    int by = s->found ? compare_costs(&cost, &s->best_cost) : -1;
    if (why == MATCH_OK &&
        (by < 0 ||
         (by == 0 && match_plan_before(m, s->q, &s->next.plan, &s->best.plan)))) {
        s->best = s->next;
        s->best_cost = cost;
        s->found = true;
    }
}

/* One choice of nodes of the span, false: there are too few; `lost`: somebody who is
 * lost beforehand, or NULL. */
static bool choose(struct search *s, int offer, struct span of, const int *domain,
                   struct victim *lost)
{
    struct choice c;
    begin(s, of);
    if (lost != NULL) {
        lost->taken = MATCH_NODES_MAX + 1;
    }
    take_plain(s, offer, domain);
    while (s->next.plan.slot_count < match_nodes(s->q) && best_node(s, of, &c)) {
        take(s, offer, &c);
    }
    if (s->next.plan.slot_count < match_nodes(s->q)) {
        return false;
    }
    weigh(s, offer, of);
    return true;
}

/* All choices of the nodes still wanted among those from `at` on, as long as they can
 * be better than what was found; `so_far`: what the nodes taken cost. */
static void choose_each(struct search *s, int offer, struct span of, size_t at,
                        struct cost so_far)
{
    if (s->next.plan.slot_count == match_nodes(s->q)) {
        weigh(s, offer, of);
        return;
    }
    for (size_t end; at < of.to; at = end) {
        struct choice c = {.node.from = at};
        end = node_end(s, at, of.to);
        c.node.to = end;
        uint64_t runs = free_runs(s, s->entries[at].node);
        for (; runs != 0; runs &= runs - 1) {
            c.first = __builtin_ctzll(runs);
            if (s->steps > s->steps_max) {
                return;
            }
            if (!cost_of(s, c.node, c.first, &c.cost)) {
                continue;
            }
            struct cost cost = cost_sum(so_far, c.cost);
            if (compare_costs(&cost, &s->here) < 0 &&
                (!s->found || compare_costs(&cost, &s->best_cost) <= 0)) {
                take(s, offer, &c);
                choose_each(s, offer, of, end, cost);
                give_back(s, c.node);
            }
        }
    }
}

/* Marks those that stand on more than one node of the span. */
static void find_gangs(struct search *s, struct span of)
{
    for (size_t i = of.from; i < of.to; i++) {
        s->entries[i].victim->node = -1;
        s->entries[i].victim->several = false;
    }
    for (size_t i = of.from; i < of.to; i++) {
        const struct entry *e = &s->entries[i];
        e->victim->several =
            e->victim->several || (e->victim->node >= 0 && e->victim->node != e->node);
        e->victim->node = e->node;
    }
}

static bool choose_all(struct search *s, int offer, struct span of, const int *domain)
{
    s->here = any_cost;
    bool any = choose(s, offer, of, domain, NULL);
    if (!any || match_nodes(s->q) == 1) {
        return any;
    }
    find_gangs(s, of);
    bool has_gangs = false;
    s->steps = 0;
    for (size_t i = of.from; i < of.to && s->steps < s->steps_max; i++) {
        struct victim *v = s->entries[i].victim;
        if (v->several) {
            v->several = false;
            has_gangs = true;
            choose(s, offer, of, domain, v);
        }
    }
    if (has_gangs) {
        begin(s, of);
        take_plain(s, offer, domain);
        choose_each(s, offer, of, of.from, no_cost);
    }
    return true;
}

/* ---- starts ---- */

/* A domain whose nodes without spot bookings are enough. */
static bool choose_plain(struct search *s, int offer, struct span of)
{
    struct calendar_slot slots[MATCH_NODES_MAX];
    struct plain plain = {s, NULL};
    struct calendar_gang gang = {.query =
                                     firm_query(s, offer, s->start_us, s->start_us),
                                 .nodes = match_nodes(s->q),
                                 .one_domain = true};
    gang.query.skip = is_not_plain;
    gang.query.skip_arg = &plain;
    begin(s, of);
    if (!calendar_find_gang(s->m->firm, &gang, slots)) {
        return false;
    }
    for (int i = 0; i < gang.nodes; i++) {
        take_slot(s, offer, slots[i].node, slots[i].first);
    }
    weigh(s, offer, of);
    return true;
}

/* All choices of the offer at s->start_us; false: there is none. */
static bool choose_at(struct search *s, int offer, struct span of)
{
    if (s->q->together != MATCH_DOMAIN || match_nodes(s->q) == 1) {
        return choose_all(s, offer, of, NULL);
    }
    bool any = choose_plain(s, offer, of);
    for (size_t at = of.from, end; at < of.to; at = end) {
        end = domain_end(s, at, of.to);
        int domain = s->entries[at].domain;
        any = choose_all(s, offer, (struct span){at, end}, &domain) || any;
    }
    return any;
}

static bool first_start(struct search *s, int offer, int64_t from_us)
{
    struct calendar_slot slots[MATCH_NODES_MAX];
    struct calendar_gang gang = {.query =
                                     firm_query(s, offer, from_us, s->q->latest_us),
                                 .nodes = match_nodes(s->q),
                                 .one_domain = s->q->together == MATCH_DOMAIN};
    bool fits = gang.nodes == 1 ? calendar_find(s->m->firm, &gang.query, &slots[0])
                                : calendar_find_gang(s->m->firm, &gang, slots);
    if (fits) {
        s->start_us = slots[0].start_us;
    }
    return fits;
}

/* The earliest end of a notice after s->start_us; INT64_MAX: none. */
static int64_t next_notice(const struct search *s, struct span of)
{
    int64_t next_us = INT64_MAX;
    for (size_t i = of.from; i < of.to; i++) {
        int64_t at_us = add_capped(s->q->now_us, s->entries[i].victim->notice_us);
        next_us = at_us > s->start_us && at_us < next_us ? at_us : next_us;
    }
    return next_us;
}

static void look_at(struct search *s, int offer)
{
    struct span of = offer_span(s, &s->m->market->offers[offer]);
    int64_t from_us = s->q->from_us;
    while (from_us <= s->q->latest_us && first_start(s, offer, from_us)) {
        if (choose_at(s, offer, of)) {
            return;
        }
        from_us = next_notice(s, of);
    }
    s->why = MATCH_BUSY > s->why ? MATCH_BUSY : s->why;
}

static bool is_served(const struct match_query *q)
{
    return q->gpus >= 1 && q->gpus <= GPUS_PER_NODE_MAX && q->len_us > 0 &&
           match_nodes(q) <= MATCH_NODES_MAX && !q->spot && !q->federated &&
           q->bandwidth_Bps == 0 && (q->together != MATCH_ANY || match_nodes(q) == 1);
}

enum match_why preempt_find(const struct preempt_market *m, const struct match_query *q,
                            struct preempt_plan *ret)
{
    struct search s = {.m = m, .q = q, .why = MATCH_DOWN};
    if (!is_served(q)) {
        return MATCH_BUSY;
    }
    s.steps_max = STEPS_MAX / (int)(m->market->offer_count + 1);
    s.victims = xcalloc(m->spot_count + 1, sizeof(*s.victims));
    s.entries = xcalloc(m->spot_count + 1, sizeof(*s.entries));
    set_victims(&s);
    set_entries(&s);
    for (size_t i = 0; i < m->market->offer_count; i++) {
        struct match_facts f = {.brief = true};
        enum match_why why = match_facts(m->market, q, &m->market->offers[i], &f);
        if (why == MATCH_OK) {
            look_at(&s, (int)i);
        } else if (why > s.why) {
            s.why = why;
        }
    }
    if (s.found) {
        *ret = s.best;
    }
    free(s.entries);
    free(s.victims);
    return s.found ? MATCH_OK : s.why;
}
