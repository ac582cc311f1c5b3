/* calendar_find: questions to a group with an index.
 *
 * A start is tried in three steps. The summaries refuse a group that cannot serve. The
 * rows of the window are ANDed: a node is `sure` when the answer of its blocks is exact
 * (nothing begins or ends inside the first and last slot, or these are whole), `maybe`
 * when the whole slots of the window are free and a part at either end must be looked
 * up. Then the sure ones are compared, and of the others those that could win.
 *
 * The earliest start in a range: all starts inside one slot share the slots that follow
 * it. Slots are passed over by the summaries, then many at a time by the rows that
 * all of their starts share; only nodes that have those free are asked for an exact
 * start.
 *
 * The scratch of the group's index is written while asking: a calendar belongs to one
 * thread. */
#include <assert.h>

#include "server/core/calendar_int.h"

/* So few nodes are asked for their exact start one by one. */
#define FEW_NODES 16

/* ---- one node ---- */

static void offer_sure(const struct search *s, struct choice *best, const uint64_t *set,
                       int64_t start_us)
{
    struct index *x = s->g->index;
    for (size_t i = 0; i < x->words; i++) {
        for (uint64_t bits = set[i]; bits != 0; bits &= bits - 1) {
            size_t pos = i * 64 + (size_t)__builtin_ctzll(bits);
            choice_offer(s->q, best, s->g->nodes[pos], start_us, index_mask(x, pos));
        }
    }
}

/* Of nodes that fit alike only the smallest key can win. */
static void offer_exact(const struct search *s, struct choice *best, int64_t start_us)
{
    struct index *x = s->g->index;
    uint32_t spread = s->q->spread, least = UINT32_MAX;
    size_t least_pos = SIZE_MAX;
    if (s->q->skip != NULL) {
        offer_sure(s, best, x->exact, start_us);
        return;
    }
    for (size_t i = 0; i < x->words; i++) {
        for (uint64_t bits = x->exact[i]; bits != 0; bits &= bits - 1) {
            size_t pos = i * 64 + (size_t)__builtin_ctzll(bits);
            uint32_t key = (uint32_t)s->g->nodes[pos] ^ spread;
            if (key <= least) {
                least = key;
                least_pos = pos;
            }
        }
    }
    if (least_pos != SIZE_MAX) {
        choice_offer(s->q, best, s->g->nodes[least_pos], start_us,
                     index_mask(x, least_pos));
    }
}

static void offer_maybe(const struct search *s, struct choice *best, int64_t start_us)
{
    struct index *x = s->g->index;
    const struct calendar_query *q = s->q;
    for (size_t i = 0; i < x->words; i++) {
        for (uint64_t bits = x->maybe[i]; bits != 0; bits &= bits - 1) {
            int id = s->g->nodes[i * 64 + (size_t)__builtin_ctzll(bits)];
            bool can_win = best->node < 0 || best->fit > q->gpus ||
                           ((uint32_t)id ^ q->spread) < best->key;
            if (can_win) {
                choice_offer(q, best, id, start_us,
                             node_free(&s->c->nodes[id], start_us,
                                       add_capped(start_us, q->len_us)));
            }
        }
    }
}

static bool one_at(const struct search *s, int64_t start_us, struct choice *best)
{
    if (!index_try(s, start_us)) {
        return false;
    }
    struct index *x = s->g->index;
    offer_exact(s, best, start_us);
    if (best->node < 0) {
        offer_sure(s, best, x->sure, start_us);
    }
    offer_maybe(s, best, start_us);
    return best->node >= 0;
}

/* The earliest start in [from,latest] of the nodes in x->core that are also in `only`
 * (NULL: all). */
static bool one_of_core(const struct search *s, const uint64_t *only, int64_t from_us,
                        int64_t latest_us, struct choice *best)
{
    struct index *x = s->g->index;
    struct node_ask ask = {s->q->gpus, s->q->len_us, from_us, latest_us};
    for (size_t i = 0; i < x->words; i++) {
        uint64_t bits = x->core[i] & (only == NULL ? UINT64_MAX : only[i]);
        for (; bits != 0; bits &= bits - 1) {
            int id = s->g->nodes[i * 64 + (size_t)__builtin_ctzll(bits)];
            int64_t start_us;
            uint64_t mask;
            if (node_earliest(&s->c->nodes[id], &ask, &start_us, &mask)) {
                choice_offer(s->q, best, id, start_us, mask);
                ask.limit_us = best->node >= 0 ? best->start_us : latest_us;
            }
        }
    }
    return best->node >= 0;
}

/* ---- gangs ---- */

static bool is_skipped(const struct search *s, size_t pos)
{
    return s->q->skip != NULL && s->q->skip(s->q->skip_arg, s->g->nodes[pos]);
}

static void set_remove(uint64_t *set, size_t pos)
{
    set[pos / 64] &= ~(UINT64_C(1) << (pos % 64));
}

/* Takes those that are skipped out of the sure ones and counts the others, per domain
 * too. */
static int gang_count(const struct search *s)
{
    const struct group *g = s->g;
    struct index *x = g->index;
    if (s->q->skip == NULL && !s->one_domain) {
        return index_count(x, x->sure);
    }
    int count = 0;
    for (size_t i = 0; i < g->domain_count; i++) {
        g->domains[i].found = 0;
    }
    for (size_t i = 0; i < x->words; i++) {
        for (uint64_t bits = x->sure[i]; bits != 0; bits &= bits - 1) {
            size_t pos = i * 64 + (size_t)__builtin_ctzll(bits);
            if (is_skipped(s, pos)) {
                set_remove(x->sure, pos);
            } else {
                count++;
                g->domains[g->domain_at[pos]].found++;
            }
        }
    }
    return count;
}

/* The domain that keeps the fewest others, of those that suffice; -1: none. */
static int gang_domain(const struct search *s)
{
    int best = -1;
    for (size_t i = 0; i < s->g->domain_count; i++) {
        int found = s->g->domains[i].found;
        if (found >= s->nodes && (best < 0 || found < s->g->domains[best].found)) {
            best = (int)i;
        }
    }
    return best;
}

/* Takes the nodes from the sure ones, from a place on that differs per request. */
static void gang_take(const struct search *s, int domain, int64_t start_us,
                      struct calendar_slot *ret)
{
    const struct group *g = s->g;
    struct index *x = g->index;
    int have = 0, end = s->nodes; /* exact fits from the front, others from the back */
    size_t turn = s->q->spread % x->words;
    for (size_t n = 0; n < x->words && have < s->nodes; n++) {
        size_t i = (n + turn) % x->words;
        for (uint64_t bits = x->sure[i]; bits != 0 && have < s->nodes;
             bits &= bits - 1) {
            size_t pos = i * 64 + (size_t)__builtin_ctzll(bits);
            if (domain >= 0 && g->domain_at[pos] != domain) {
                continue;
            }
            int fit, first = run_pick(index_mask(x, pos), s->q->gpus, &fit);
            struct calendar_slot slot = {g->nodes[pos], first, start_us};
            if (fit == s->q->gpus) {
                ret[have++] = slot;
                end = end < have ? have : end;
            } else if (end > have) {
                ret[--end] = slot;
            }
        }
    }
}

static bool gang_at(const struct search *s, int64_t start_us, struct calendar_slot *ret)
{
    if (!index_try(s, start_us)) {
        return false;
    }
    struct index *x = s->g->index;
    for (int round = 0; round < 2; round++) {
        int count = gang_count(s);
        int domain = s->one_domain && count >= s->nodes ? gang_domain(s) : -1;
        if (count >= s->nodes && (!s->one_domain || domain >= 0)) {
            gang_take(s, domain, start_us, ret);
            return true;
        }
        if (count + index_count(x, x->maybe) < s->nodes) {
            return false;
        }
        index_resolve(s, start_us);
    }
    return false;
}

/* ---- a range of starts ---- */

/* A gang that cannot start at `from`, inside one slot of which x->core is filled: it
 * can only once a node that could not then can; such a one has an edge in the slot. */
static bool gang_inside(const struct search *s, int64_t slot, int64_t from_us,
                        int64_t latest_us, struct calendar_slot *ret)
{
    struct index *x = s->g->index;
    const uint64_t *edges = &x->edges[slot_ring(slot) * x->words];
    while (from_us < latest_us) {
        int64_t next_us = CALENDAR_NEVER;
        struct node_ask ask = {s->q->gpus, s->q->len_us, from_us + 1, latest_us};
        index_core(s, slot, slot + 1);
        for (size_t i = 0; i < x->words; i++) {
            for (uint64_t bits = x->core[i] & edges[i]; bits != 0; bits &= bits - 1) {
                size_t pos = i * 64 + (size_t)__builtin_ctzll(bits);
                const struct node *n = &s->c->nodes[s->g->nodes[pos]];
                int64_t start_us;
                uint64_t mask;
                bool was =
                    run_starts(node_free(n, from_us, add_capped(from_us, s->q->len_us)),
                               s->q->gpus) != 0;
                if (!was && !is_skipped(s, pos) &&
                    node_earliest(n, &ask, &start_us, &mask)) {
                    next_us = min_i64(next_us, start_us);
                    ask.limit_us = next_us;
                }
            }
        }
        if (next_us == CALENDAR_NEVER) {
            return false;
        }
        if (gang_at(s, next_us, ret)) {
            return true;
        }
        from_us = next_us;
    }
    return false;
}

static bool one_inside(const struct search *s, int64_t slot, int64_t from_us,
                       int64_t latest_us, struct calendar_slot *ret)
{
    struct index *x = s->g->index;
    struct choice best = {.node = -1};
    index_core(s, slot, slot + 1);
    if (!one_of_core(s, &x->edges[slot_ring(slot) * x->words], from_us + 1, latest_us,
                     &best)) {
        return false;
    }
    *ret = (struct calendar_slot){best.node, best.first, best.start_us};
    return true;
}

/* The earliest start in [from,latest], both inside `slot`. */
static bool slot_find(const struct search *s, int64_t slot, int64_t from_us,
                      int64_t latest_us, struct calendar_slot *ret)
{
    if (s->nodes > 1) {
        return gang_at(s, from_us, ret) ||
               gang_inside(s, slot, from_us, latest_us, ret);
    }
    struct choice best = {.node = -1};
    if (one_at(s, from_us, &best)) {
        *ret = (struct calendar_slot){best.node, best.first, from_us};
        return true;
    }
    return from_us < latest_us && one_inside(s, slot, from_us, latest_us, ret);
}

/* Slots of which all starts share enough to be refused, or answered, together: how
 * many from `slot` on; 0: it has to be looked at alone. */
static int64_t slots_together(const struct search *s, int64_t slot, int64_t last,
                              int64_t *from_latest_us, struct choice *best)
{
    int64_t length = s->q->len_us / SLOT_US;
    int64_t many = min_i64(length / 4, last + 1 - slot);
    many = min_i64(many, s->g->index->base + SLOTS - 1 - slot);
    if (many < 2) {
        return 0;
    }
    int count = index_core(s, slot, slot + many);
    if (count < s->nodes) {
        return many;
    }
    if (s->nodes > 1 || count > FEW_NODES) {
        return 0;
    }
    int64_t latest_us = min_i64(from_latest_us[1], (slot + many) * SLOT_US - 1);
    one_of_core(s, NULL, from_latest_us[0], latest_us, best);
    return many;
}

bool index_find(const struct search *s, int64_t from_us, int64_t latest_us,
                struct calendar_slot *ret)
{
    int64_t length = s->q->len_us / SLOT_US;
    int64_t slot = slot_floor(from_us), last = slot_floor(latest_us);
    if (from_us == latest_us) {
        return slot_find(s, slot, from_us, latest_us, ret);
    }
    bool first = true;
    while ((slot = summary_next(s, slot, last, length - 1)) <= last) {
        int64_t range_us[2] = {max_i64(from_us, slot * SLOT_US), latest_us};
        struct choice best = {.node = -1};
        int64_t many = first ? 0 : slots_together(s, slot, last, range_us, &best);
        if (best.node >= 0) {
            *ret = (struct calendar_slot){best.node, best.first, best.start_us};
            return true;
        }
        if (many == 0) {
            if (slot_find(s, slot, range_us[0],
                          min_i64(latest_us, (slot + 1) * SLOT_US - 1), ret)) {
                return true;
            }
            many = 1;
        }
        slot += many;
        first = false;
    }
    return false;
}

/* ---- capacity ---- */

struct calendar_step index_capacity(const struct calendar *c, const struct group *g,
                                    int64_t from_us, int64_t to_us)
{
    struct index *x = g->index;
    struct calendar_step step = {0, 0};
    struct calendar_query q = {.gpus = 1, .len_us = length_us(from_us, to_us)};
    struct search s = {.c = c, .g = g, .q = &q, .nodes = 1};
    if (!index_try(&s, from_us)) {
        return step;
    }
    index_resolve(&s, from_us);
    for (size_t i = 0; i < x->words; i++) {
        for (uint64_t bits = x->sure[i]; bits != 0; bits &= bits - 1) {
            uint64_t mask = index_mask(x, i * 64 + (size_t)__builtin_ctzll(bits));
            int run = run_longest(mask);
            step.total += __builtin_popcountll(mask);
            step.best_node = run > step.best_node ? run : step.best_node;
        }
    }
    return step;
}
