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
#include <string.h>

#include "server/core/calendar_int.h"

/* Eight lanes of one line of the cache; the compiler makes of it what the machine has.
 */
typedef uint64_t lanes __attribute__((vector_size(16), aligned(16), may_alias));

#define LINE 64 /* bytes of a line of the cache */

/* Rows that make a window of all slots, and both ends. */
#define ROWS_MAX 64
/* So few nodes are asked for their exact start one by one. */
#define FEW_NODES 16

struct window {
    int64_t first, last; /* slots that it touches, `last` is behind */
    int64_t inner, inner_end;
    bool cuts_first, cuts_last; /* a part of the first, of the last slot */
    bool leaves;                /* it reaches out of the index */
};

struct rows {
    const uint8_t *at[ROWS_MAX];
    int inner, all; /* [0,inner) the whole slots, [inner,all) the cut ones */
};

/* ---- which rows ---- */

static struct window window_of(const struct calendar *c, int64_t from_us, int64_t to_us)
{
    int64_t base = c->base_slot, end = base + SLOTS;
    struct window w = {.first = slot_floor(from_us),
                       .last = slot_ceil(to_us),
                       .inner = slot_ceil(from_us),
                       .inner_end = slot_floor(to_us)};
    w.cuts_first = w.first != w.inner && w.first >= base && w.first < end;
    w.cuts_last = w.last != w.inner_end && w.last > base && w.last <= end;
    w.leaves = w.first < base || w.last > end;
    w.inner = max_i64(w.inner, base);
    w.inner_end = min_i64(w.inner_end, end);
    return w;
}

static void rows_inner(const struct index *x, int64_t from, int64_t to,
                       struct rows *rows)
{
    static const struct {
        int slots, shift, first_row;
    } sizes[] = {
        {32, 5, ROWS_32}, {16, 4, ROWS_16}, {8, 3, ROWS_8}, {4, 2, ROWS_4}, {1, 0, 0}};
    rows->inner = 0;
    size_t ring = slot_ring(from);
    while (from < to) {
        int s = 0;
        while (ring % (size_t)sizes[s].slots != 0 || from + sizes[s].slots > to) {
            s++;
        }
        assert(rows->inner < ROWS_MAX - 2);
        rows->at[rows->inner++] =
            x->rows +
            ((size_t)sizes[s].first_row + (ring >> sizes[s].shift)) * x->stride;
        from += sizes[s].slots;
        ring += (size_t)sizes[s].slots;
        ring = ring == SLOTS ? 0 : ring;
    }
    rows->all = rows->inner;
}

static void rows_cut(const struct index *x, const struct window *w, struct rows *rows)
{
    if (w->cuts_first) {
        rows->at[rows->all++] = x->rows + slot_ring(w->first) * x->stride;
    }
    if (w->cuts_last) {
        rows->at[rows->all++] = x->rows + slot_ring(w->last - 1) * x->stride;
    }
}

/* ---- summaries ---- */

static bool start_hopeless(const struct index *x, int level, int64_t start, int class,
                           int nodes)
{
    size_t at = slot_ring(start);
    return nodes == 1 ? x->tops[level][at] < class
                      : x->counts[level][class - 1][at] < nodes;
}

/* No `nodes` nodes are free during [from,to), slots within the index. */
static bool is_hopeless(const struct index *x, int64_t from, int64_t to, int class,
                        int nodes)
{
    if (from >= to) {
        return false;
    }
    int level = 63 - __builtin_clzll((unsigned long long)(to - from));
    level = level < LEVELS ? level : LEVELS - 1;
    int64_t len = INT64_C(1) << level;
    /* Both ends are read before either decides: two misses of the cache at once. */
    bool hopeless = start_hopeless(x, level, from, class, nodes) |
                    start_hopeless(x, level, to - len, class, nodes);
    for (from += len; from < to - len && !hopeless; from += len) {
        hopeless = start_hopeless(x, level, from, class, nodes);
    }
    return hopeless;
}

/* Sixteen bytes at any address. */
typedef uint8_t tops16 __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint16_t counts8 __attribute__((vector_size(16), aligned(2), may_alias));
typedef uint64_t both __attribute__((vector_size(16), may_alias));

/* First i at which a[i] and b[i] reach `class`; count: none. */
static size_t first_tops(const uint8_t *a, const uint8_t *b, int class, size_t count)
{
    size_t i = 0;
    for (; i + 16 <= count; i += 16) {
        both yes = (both)((*(const tops16 *)(const void *)(a + i) >= (uint8_t) class) &
                          (*(const tops16 *)(const void *)(b + i) >= (uint8_t) class));
        if ((yes[0] | yes[1]) != 0) {
            break;
        }
    }
    while (i < count && (a[i] < class || b[i] < class)) {
        i++;
    }
    return i;
}

static size_t first_counts(const uint16_t *a, const uint16_t *b, int nodes,
                           size_t count)
{
    size_t i = 0;
    for (; i + 8 <= count; i += 8) {
        both yes = (both)((*(const counts8 *)(const void *)(a + i) >= (uint16_t)nodes) &
                          (*(const counts8 *)(const void *)(b + i) >= (uint16_t)nodes));
        if ((yes[0] | yes[1]) != 0) {
            break;
        }
    }
    while (i < count && (a[i] < nodes || b[i] < nodes)) {
        i++;
    }
    return i;
}

/* The first slot in [slot,last] after which `whole` slots are not hopeless, as far as
 * the index reaches; last + 1: none. */
static int64_t next_hopeful(const struct search *s, int64_t slot, int64_t last,
                            int64_t whole)
{
    const struct index *x = s->g->index;
    int64_t end = s->c->base_slot + SLOTS;
    int class = index_class(x->width, s->q->gpus);
    int level = whole > 0 ? 63 - __builtin_clzll((unsigned long long)whole) : 0;
    level = level < LEVELS ? level : LEVELS - 1;
    while (slot <= last) {
        int64_t from = slot + 1, to = min_i64(from + whole, end);
        if (to - from == whole && whole > 0) {
            size_t a = slot_ring(from), b = slot_ring(to - (INT64_C(1) << level));
            int64_t count = min_i64(last - slot + 1, end - to + 1);
            count = min_i64(count, (int64_t)(SLOTS - (a > b ? a : b)));
            const uint8_t *tops = x->tops[level];
            const uint16_t *counts = x->counts[level][class - 1];
            size_t at =
                s->nodes == 1
                    ? first_tops(tops + a, tops + b, class, (size_t)count)
                    : first_counts(counts + a, counts + b, s->nodes, (size_t)count);
            slot += (int64_t)at;
            if ((int64_t)at == count) {
                continue;
            }
            from = slot + 1;
            to = from + whole;
        }
        if (!is_hopeless(x, from, to, class, s->nodes)) {
            return slot;
        }
        slot++;
    }
    return last + 1;
}

/* ---- lanes ---- */

struct lane_masks {
    int width, gpus;
    uint64_t top;               /* the highest bit of each mask */
    int step_count, step[6];    /* shifts that leave the starts of runs of `gpus` */
    uint64_t keep[6];           /* bits that did not come from the next mask */
    uint64_t keep_up, keep_run; /* the same for << 1 and >> gpus */
};

static uint64_t repeat(uint64_t mask, int width)
{
    for (int bits = width * 8; bits < 64; bits *= 2) {
        mask |= mask << bits;
    }
    return mask;
}

static struct lane_masks lane_masks_of(int width, int gpus)
{
    int bits = width * 8;
    struct lane_masks m = {.width = width, .gpus = gpus};
    m.top = repeat(UINT64_C(1) << (bits - 1), width);
    for (int have = 1; have < gpus; m.step_count++) {
        int step = have < gpus - have ? have : gpus - have;
        m.step[m.step_count] = step;
        m.keep[m.step_count] = repeat(low_bits(bits - step), width);
        have += step;
    }
    m.keep_up = repeat(low_bits(bits) & ~UINT64_C(1), width);
    m.keep_run = gpus < bits ? repeat(low_bits(bits - gpus), width) : 0;
    return m;
}

static inline lanes lane_starts(lanes v, const struct lane_masks *m)
{
    for (int i = 0; i < m->step_count; i++) {
        v &= (v >> m->step[i]) & m->keep[i];
    }
    return v;
}

/* Runs of exactly `gpus`, of the starts of those of at least as many. */
static inline lanes lane_exact(lanes v, lanes starts, const struct lane_masks *m)
{
    lanes longer = m->gpus < 64 ? (v >> m->gpus) & m->keep_run : v & 0;
    return starts & ~((v << 1) & m->keep_up) & ~longer;
}

/* A bit per mask: it is not 0. */
static inline uint64_t lane_bits(lanes v, const struct lane_masks *m)
{
    lanes any = (((v & ~m->top) + ~m->top) | v) & m->top;
    uint64_t bits = 0;
    for (int i = 0; i < 2; i++) {
        if (m->width == 1) {
            bits |= (((any[i] >> 7) * UINT64_C(0x0102040810204080)) >> 56) << (8 * i);
        } else {
            int each = m->width * 8, count = 8 / m->width;
            for (int k = 0; k < count; k++) {
                bits |= (any[i] >> (each * (k + 1) - 1) & 1) << (count * i + k);
            }
        }
    }
    return bits;
}

static inline lanes load(const uint8_t *row, size_t at)
{
    return *(const lanes *)(const void *)(row + at);
}

/* ---- trying a start ---- */

static void bits_add(uint64_t *set, size_t at, uint64_t bits)
{
    set[at / 64] |= bits << (at % 64);
}

/* Nodes free during the whole slots of `rows` are added to x->core. */
static void core_fits(const struct group *g, const struct rows *rows, int gpus)
{
    struct index *x = g->index;
    struct lane_masks m = lane_masks_of(x->width, gpus);
    memset(x->core, 0, x->words * sizeof *x->core);
    for (size_t at = 0; at < x->stride; at += sizeof(lanes)) {
        lanes v = load(rows->at[0], at);
        for (int i = 1; i < rows->inner; i++) {
            v &= load(rows->at[i], at);
        }
        bits_add(x->core, at / (size_t)x->width, lane_bits(lane_starts(v, &m), &m));
    }
}

static void edges_of(const struct group *g, const struct window *w, uint64_t *set)
{
    struct index *x = g->index;
    for (size_t i = 0; i < x->words; i++) {
        size_t rest = g->count > i * 64 ? g->count - i * 64 : 0;
        set[i] = w->leaves ? low_bits(rest < 64 ? (int)rest : 64) : 0;
        if (w->cuts_first) {
            set[i] |= x->edges[slot_ring(w->first) * x->words + i];
        }
        if (w->cuts_last) {
            set[i] |= x->edges[slot_ring(w->last - 1) * x->words + i];
        }
    }
}

/* Fills x->masks and the sets sure, maybe and exact (sure, and a run of just the
 * length). */
static void rows_fit(const struct group *g, const struct rows *rows, int gpus)
{
    struct index *x = g->index;
    struct lane_masks m = lane_masks_of(x->width, gpus);
    memset(x->sure, 0, x->words * sizeof *x->sure);
    memset(x->exact, 0, x->words * sizeof *x->exact);
    memset(x->core, 0, x->words * sizeof *x->core);
    for (size_t at = 0; at < x->stride; at += sizeof(lanes)) {
        lanes inner = {~UINT64_C(0), ~UINT64_C(0)};
        for (int i = 0; i < rows->inner; i++) {
            inner &= load(rows->at[i], at);
        }
        lanes all = inner;
        for (int i = rows->inner; i < rows->all; i++) {
            all &= load(rows->at[i], at);
        }
        *(lanes *)(void *)(x->masks + at) = all;
        lanes starts = lane_starts(all, &m);
        size_t pos = at / (size_t)x->width;
        bits_add(x->sure, pos, lane_bits(starts, &m));
        bits_add(x->exact, pos, lane_bits(lane_exact(all, starts, &m), &m));
        bits_add(x->core, pos, lane_bits(lane_starts(inner, &m), &m));
    }
    for (size_t i = 0; i < x->words; i++) {
        x->sure[i] &= ~x->maybe[i];
        x->exact[i] &= x->sure[i];
        x->maybe[i] &= x->core[i];
    }
}

/* All lines of the rows are asked for at once, not one after the other; of very long
 * rows the begin, and the processor sees the rest coming. */
static void rows_prefetch(const struct index *x, const struct rows *rows)
{
    size_t lines = x->stride / LINE < 16 ? x->stride / LINE : 16;
    for (int i = 0; i < rows->all; i++) {
        for (size_t k = 0; k < lines; k++) {
            __builtin_prefetch(rows->at[i] + k * LINE);
        }
    }
}

/* What of the group can start at `start`; false: surely nothing that suffices. */
static bool try_start(const struct search *s, int64_t start_us)
{
    struct index *x = s->g->index;
    const struct calendar_query *q = s->q;
    struct window w = window_of(s->c, start_us, add_capped(start_us, q->len_us));
    if (is_hopeless(x, w.inner, w.inner_end, index_class(x->width, q->gpus),
                    s->nodes)) {
        return false;
    }
    struct rows rows;
    rows_inner(x, w.inner, w.inner_end, &rows);
    rows_cut(x, &w, &rows);
    rows_prefetch(x, &rows);
    edges_of(s->g, &w, x->maybe);
    rows_fit(s->g, &rows, q->gpus);
    return true;
}

static uint64_t mask_at(const struct index *x, size_t pos)
{
    const uint8_t *at = x->masks + pos * (size_t)x->width;
    switch (x->width) {
    case 1: return *at;
    case 2: return *(const uint16_t *)(const void *)at;
    case 4: return *(const uint32_t *)(const void *)at;
    default: return *(const uint64_t *)(const void *)at;
    }
}

static void mask_put(struct index *x, size_t pos, uint64_t mask)
{
    uint8_t *at = x->masks + pos * (size_t)x->width;
    switch (x->width) {
    case 1: *at = (uint8_t)mask; break;
    case 2: *(uint16_t *)(void *)at = (uint16_t)mask; break;
    case 4: *(uint32_t *)(void *)at = (uint32_t)mask; break;
    default: *(uint64_t *)(void *)at = mask; break;
    }
}

/* ---- one node ---- */

static void offer_sure(const struct search *s, struct choice *best, const uint64_t *set,
                       int64_t start_us)
{
    struct index *x = s->g->index;
    for (size_t i = 0; i < x->words; i++) {
        for (uint64_t bits = set[i]; bits != 0; bits &= bits - 1) {
            size_t pos = i * 64 + (size_t)__builtin_ctzll(bits);
            choice_offer(s->q, best, s->g->nodes[pos], start_us, mask_at(x, pos));
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
                     mask_at(x, least_pos));
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
    if (!try_start(s, start_us)) {
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

/* Looks each maybe node up: it becomes a sure one or none. */
static void resolve(const struct search *s, int64_t start_us)
{
    struct index *x = s->g->index;
    int64_t to_us = add_capped(start_us, s->q->len_us);
    for (size_t i = 0; i < x->words; i++) {
        for (uint64_t bits = x->maybe[i]; bits != 0; bits &= bits - 1) {
            size_t pos = i * 64 + (size_t)__builtin_ctzll(bits);
            uint64_t mask = node_free(&s->c->nodes[s->g->nodes[pos]], start_us, to_us);
            mask_put(x, pos, mask);
            x->sure[i] |= run_starts(mask, s->q->gpus) != 0 ? bits & -bits : 0;
        }
        x->maybe[i] = 0;
    }
}

static int set_count(const struct index *x, const uint64_t *set)
{
    int count = 0;
    for (size_t i = 0; i < x->words; i++) {
        count += __builtin_popcountll(set[i]);
    }
    return count;
}

/* Takes those that are skipped out of the sure ones and counts the others, per domain
 * too. */
static int gang_count(const struct search *s)
{
    const struct group *g = s->g;
    struct index *x = g->index;
    if (s->q->skip == NULL && !s->one_domain) {
        return set_count(x, x->sure);
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
            int fit, first = run_pick(mask_at(x, pos), s->q->gpus, &fit);
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
    if (!try_start(s, start_us)) {
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
        if (count + set_count(x, x->maybe) < s->nodes) {
            return false;
        }
        resolve(s, start_us);
    }
    return false;
}

/* ---- a range of starts ---- */

/* Fills x->core with the nodes that are free in all slots that each start inside the
 * slots [first,last) needs whole; returns how many. */
static int core_of(const struct search *s, int64_t first, int64_t last)
{
    struct index *x = s->g->index;
    struct rows rows;
    int count = 0;
    rows_inner(x, last,
               min_i64(first + s->q->len_us / SLOT_US, s->c->base_slot + SLOTS), &rows);
    if (rows.inner > 0) {
        core_fits(s->g, &rows, s->q->gpus);
    } else {
        struct window all = {.leaves = true};
        edges_of(s->g, &all, x->core);
    }
    for (size_t i = 0; i < x->words; i++) {
        count += __builtin_popcountll(x->core[i]);
    }
    return count;
}

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
        core_of(s, slot, slot + 1);
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
    core_of(s, slot, slot + 1);
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
    many = min_i64(many, s->c->base_slot + SLOTS - 1 - slot);
    if (many < 2) {
        return 0;
    }
    int count = core_of(s, slot, slot + many);
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
    while ((slot = next_hopeful(s, slot, last, length - 1)) <= last) {
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
    if (!try_start(&s, from_us)) {
        return step;
    }
    resolve(&s, from_us);
    for (size_t i = 0; i < x->words; i++) {
        for (uint64_t bits = x->sure[i]; bits != 0; bits &= bits - 1) {
            uint64_t mask = mask_at(x, i * 64 + (size_t)__builtin_ctzll(bits));
            int run = run_longest(mask);
            step.total += __builtin_popcountll(mask);
            step.best_node = run > step.best_node ? run : step.best_node;
        }
    }
    return step;
}
