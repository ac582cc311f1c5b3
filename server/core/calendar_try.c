/* calendar_try: one start, or all starts inside some slots, tried on all nodes of a
 * group by the rows of its index. */
#include <assert.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#include "server/core/calendar_int.h"

/* 16 bytes of masks at a time: a register of each machine we know of. */
typedef uint64_t lanes __attribute__((vector_size(16), aligned(16), may_alias));

#define LINE 64 /* bytes of a line of the cache */

/* Rows that make a window of all slots, and both ends. */
#define ROWS_MAX 64

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

static struct window window_of(const struct index *x, int64_t from_us, int64_t to_us)
{
    int64_t base = x->base, end = base + SLOTS;
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
    uint64_t bits = 0;
#if defined(__SSE2__)
    if (m->width == 1) {
        __m128i none = _mm_cmpeq_epi8((__m128i)v, _mm_setzero_si128());
        return (uint64_t)(~_mm_movemask_epi8(none) & 0xffff);
    }
#endif
    lanes any = (((v & ~m->top) + ~m->top) | v) & m->top;
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

/* A line of the cache: masks of 64, 32, 16 or 8 nodes. */
struct line {
    lanes part[LINE / sizeof(lanes)];
};
#define PARTS (LINE / sizeof(lanes))

static inline void line_and(struct line *l, const uint8_t *row, size_t at)
{
    for (size_t i = 0; i < PARTS; i++) {
        l->part[i] &= *(const lanes *)(const void *)(row + at + i * sizeof(lanes));
    }
}

/* Which masks of the line have a run of m->gpus, and one of just that length. */
struct line_fits {
    uint64_t any, exact;
};

static inline struct line_fits line_fit(const struct line *l,
                                        const struct lane_masks *m)
{
    struct line_fits fits = {0, 0};
    int nodes = (int)sizeof(lanes) / m->width;
    for (int i = (int)PARTS - 1; i >= 0; i--) {
        lanes starts = lane_starts(l->part[i], m);
        fits.any = fits.any << nodes | lane_bits(starts, m);
        fits.exact =
            fits.exact << nodes | lane_bits(lane_exact(l->part[i], starts, m), m);
    }
    return fits;
}

/* ---- trying a start ---- */

static void bits_add(uint64_t *set, size_t at, uint64_t bits)
{
    set[at / 64] |= bits << (at % 64);
}

static const struct line line_full = {
    .part = {{~UINT64_C(0), ~UINT64_C(0)},
             {~UINT64_C(0), ~UINT64_C(0)},
             {~UINT64_C(0), ~UINT64_C(0)},
             {~UINT64_C(0), ~UINT64_C(0)}},
};

/* Nodes free during the whole slots of `rows` are added to x->core. */
static void core_fits(const struct group *g, const struct rows *rows, int gpus)
{
    struct index *x = g->index;
    struct lane_masks m = lane_masks_of(x->width, gpus);
    memset(x->core, 0, x->words * sizeof *x->core);
    for (size_t at = 0; at < x->stride; at += LINE) {
        struct line l = line_full;
        for (int i = 0; i < rows->inner; i++) {
            line_and(&l, rows->at[i], at);
        }
        bits_add(x->core, at / (size_t)x->width, line_fit(&l, &m).any);
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
 * length); x->maybe has the nodes of which the cut rows are not the last word. */
static void rows_fit(const struct group *g, const struct rows *rows, int gpus)
{
    struct index *x = g->index;
    struct lane_masks m = lane_masks_of(x->width, gpus);
    memset(x->sure, 0, x->words * sizeof *x->sure);
    memset(x->exact, 0, x->words * sizeof *x->exact);
    memset(x->core, 0, x->words * sizeof *x->core);
    for (size_t at = 0; at < x->stride; at += LINE) {
        size_t pos = at / (size_t)x->width;
        struct line l = line_full;
        for (int i = 0; i < rows->inner; i++) {
            line_and(&l, rows->at[i], at);
        }
        if (x->maybe[pos / 64] != 0) {
            bits_add(x->core, pos, line_fit(&l, &m).any);
        }
        for (int i = rows->inner; i < rows->all; i++) {
            line_and(&l, rows->at[i], at);
        }
        memcpy(x->masks + at, &l, sizeof l);
        struct line_fits fits = line_fit(&l, &m);
        bits_add(x->sure, pos, fits.any);
        bits_add(x->exact, pos, fits.exact);
    }
    for (size_t i = 0; i < x->words; i++) {
        x->sure[i] &= ~x->maybe[i];
        x->exact[i] &= x->sure[i];
        x->maybe[i] &= x->core[i];
    }
}

/* All lines of the rows are asked for at once, not one after the other; of very long
 * rows the begin, and the processor sees the rest coming. */
static void rows_prefetch(const struct index *x, const struct window *w,
                          const struct rows *rows)
{
    const uint64_t *first = &x->edges[slot_ring(w->first) * x->words];
    const uint64_t *last = &x->edges[slot_ring(w->last - 1) * x->words];
    for (size_t k = 0; k < x->words && k < 16; k += 8) {
        __builtin_prefetch(first + k);
        __builtin_prefetch(last + k);
    }
    size_t lines = x->stride / LINE < 16 ? x->stride / LINE : 16;
    for (int i = 0; i < rows->all; i++) {
        for (size_t k = 0; k < lines; k++) {
            __builtin_prefetch(rows->at[i] + k * LINE);
        }
    }
}

/* What of the group can start at `start`; false: surely nothing that suffices. */
bool index_try(const struct search *s, int64_t start_us)
{
    struct index *x = s->g->index;
    const struct calendar_query *q = s->q;
    struct window w = window_of(x, start_us, add_capped(start_us, q->len_us));
    if (summary_hopeless(x, w.inner, w.inner_end, summary_class(x->width, q->gpus),
                         s->nodes)) {
        return false;
    }
    struct rows rows;
    rows_inner(x, w.inner, w.inner_end, &rows);
    rows_cut(x, &w, &rows);
    rows_prefetch(x, &w, &rows);
    edges_of(s->g, &w, x->maybe);
    rows_fit(s->g, &rows, q->gpus);
    return true;
}

uint64_t index_mask(const struct index *x, size_t pos)
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

/* Looks each maybe node up: it becomes a sure one or none. */
void index_resolve(const struct search *s, int64_t start_us)
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

int index_count(const struct index *x, const uint64_t *set)
{
    int count = 0;
    for (size_t i = 0; i < x->words; i++) {
        count += __builtin_popcountll(set[i]);
    }
    return count;
}

/* Fills x->core with the nodes that are free in all slots that each start inside the
 * slots [first,last) needs whole; returns how many. */
int index_core(const struct search *s, int64_t first, int64_t last)
{
    struct index *x = s->g->index;
    struct rows rows;
    int count = 0;
    rows_inner(x, last, min_i64(first + s->q->len_us / SLOT_US, x->base + SLOTS),
               &rows);
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
