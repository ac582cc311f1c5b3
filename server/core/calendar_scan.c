/* calendar_scan: questions by a look at each node of the group, exact intervals only.
 * For groups too small for an index, and for times that the index does not reach. */
#include "server/core/calendar_int.h"

void choice_offer(const struct calendar_query *q, struct choice *best, int id,
                  int64_t start_us, uint64_t mask)
{
    int fit, first = run_pick(mask, q->gpus, &fit);
    uint32_t key = (uint32_t)id ^ q->spread;
    if (first < 0) {
        return;
    }
    bool wins = best->node < 0 || start_us < best->start_us ||
                (start_us == best->start_us &&
                 (fit < best->fit || (fit == best->fit && key < best->key)));
    if (wins && (q->skip == NULL || !q->skip(q->skip_arg, id))) {
        *best = (struct choice){
            .node = id, .first = first, .fit = fit, .key = key, .start_us = start_us};
    }
}

static bool scan_one(const struct search *s, int64_t from_us, int64_t latest_us,
                     struct calendar_slot *ret)
{
    const struct calendar_query *q = s->q;
    struct choice best = {.node = -1};
    struct node_ask ask = {q->gpus, q->len_us, from_us, latest_us};
    for (size_t i = 0; i < s->g->count; i++) {
        int id = s->g->nodes[i];
        /* Nothing beats an exact fit at the first instant but a smaller key. */
        if (best.node >= 0 && ask.limit_us == from_us && best.fit == q->gpus &&
            ((uint32_t)id ^ q->spread) > best.key) {
            continue;
        }
        int64_t start_us;
        uint64_t mask;
        if (node_earliest(&s->c->nodes[id], &ask, &start_us, &mask)) {
            choice_offer(q, &best, id, start_us, mask);
            ask.limit_us = best.node >= 0 ? best.start_us : latest_us;
        }
    }
    if (best.node >= 0) {
        *ret = (struct calendar_slot){best.node, best.first, best.start_us};
    }
    return best.node >= 0;
}

/* ---- gangs ---- */

/* The largest of `count` starts first, in the order of a heap. */
static void heap_sink(int64_t *heap, int count, int64_t start_us)
{
    int at = 0;
    for (;;) {
        int child = 2 * at + 1;
        if (child >= count) {
            break;
        }
        if (child + 1 < count && heap[child + 1] > heap[child]) {
            child++;
        }
        if (heap[child] <= start_us) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = start_us;
}

/* Whether the node may serve in the gang; domain: index in the group, -1 any. */
static bool is_member(const struct search *s, size_t pos, int domain)
{
    return (domain < 0 || s->g->domain_at[pos] == domain) &&
           (s->q->skip == NULL || !s->q->skip(s->q->skip_arg, s->g->nodes[pos]));
}

/* When `nodes` of them could first start, each for itself: no gang can before. */
static int64_t gang_bound(const struct search *s, int domain,
                          const struct node_ask *ask)
{
    int64_t heap[GANG_NODES_MAX];
    for (int i = 0; i < s->nodes; i++) {
        heap[i] = CALENDAR_NEVER;
    }
    for (size_t pos = 0; pos < s->g->count; pos++) {
        int64_t start_us;
        uint64_t mask;
        struct node_ask sooner = *ask;
        sooner.limit_us = min_i64(ask->limit_us, heap[0]);
        if (is_member(s, pos, domain) &&
            node_earliest(&s->c->nodes[s->g->nodes[pos]], &sooner, &start_us, &mask) &&
            start_us < heap[0]) {
            heap_sink(heap, s->nodes, start_us);
        }
    }
    return heap[0];
}

static void gang_fill(const struct search *s, int domain, int64_t start_us,
                      struct calendar_slot *ret)
{
    int have = 0, end = s->nodes; /* exact fits from the front, others from the back */
    for (size_t pos = 0; pos < s->g->count && have < s->nodes; pos++) {
        int id = s->g->nodes[pos], fit, first;
        uint64_t mask =
            node_free(&s->c->nodes[id], start_us, add_capped(start_us, s->q->len_us));
        first = run_pick(mask, s->q->gpus, &fit);
        if (first < 0 || !is_member(s, pos, domain)) {
            continue;
        }
        struct calendar_slot slot = {id, first, start_us};
        if (fit == s->q->gpus) {
            ret[have++] = slot;
            end = end < have ? have : end;
        } else if (end > have) {
            ret[--end] = slot;
        }
    }
}

/* Each round's bound is a start that no gang can beat; the first one that holds for
 * all of its nodes is the earliest. */
static bool scan_gang(const struct search *s, int64_t from_us, int64_t latest_us,
                      struct calendar_slot *ret)
{
    bool found = false;
    int domains = s->one_domain ? (int)s->g->domain_count : 1;
    for (int i = 0; i < domains; i++) {
        int domain = s->one_domain ? i : -1;
        if (s->one_domain && s->g->domains[i].nodes < s->nodes) {
            continue;
        }
        struct node_ask ask = {s->q->gpus, s->q->len_us, from_us, latest_us};
        int64_t at = gang_bound(s, domain, &ask);
        while (at != CALENDAR_NEVER && at != ask.from_us) {
            ask.from_us = at;
            at = gang_bound(s, domain, &ask);
        }
        /* A later domain must be sooner. */
        if (at != CALENDAR_NEVER && (!found || at < latest_us)) {
            gang_fill(s, domain, at, ret);
            found = true;
            latest_us = at;
        }
    }
    return found;
}

bool scan_find(const struct search *s, int64_t from_us, int64_t latest_us,
               struct calendar_slot *ret)
{
    if (from_us > latest_us) {
        return false;
    }
    return s->nodes == 1 ? scan_one(s, from_us, latest_us, ret)
                         : scan_gang(s, from_us, latest_us, ret);
}

struct calendar_step scan_capacity(const struct calendar *c, const struct group *g,
                                   int64_t from_us, int64_t to_us)
{
    struct calendar_step step = {0, 0};
    for (size_t i = 0; i < g->count; i++) {
        uint64_t mask = node_free(&c->nodes[g->nodes[i]], from_us, to_us);
        int run = run_longest(mask);
        step.total += __builtin_popcountll(mask);
        step.best_node = run > step.best_node ? run : step.best_node;
    }
    return step;
}
