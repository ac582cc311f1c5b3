/* calendar_summary: what of a group is known without a look at its nodes.
 *
 * For each start and some lengths: how many nodes have at least so many neighbours free
 * all that time. Unlike the blocks of an index the windows are there for each start, so
 * the two that cover a longer one from both ends share most of it, and a group that
 * cannot serve is refused by two bytes.
 *
 * The lengths are what requests need whole: of an hour from any instant on, three slots
 * are whole, of two hours seven, of a day 95. */
#include <string.h>

#include "server/core/calendar_int.h"

static const uint8_t level_slots[LEVELS] = {1, 3, 7, 15, 23, 31, 47, SUMMARY_MAX};
/* From one level's masks to the next one's: AND with those so many slots later. */
static const uint8_t level_steps[LEVELS][2] = {{0}, {1, 1}, {3, 1}, {7, 1},
                                               {8}, {8},    {16},   {47, 1}};

/* The longest level within so many slots, at least 1. */
static int level_of(int64_t slots)
{
    int level = LEVELS - 1;
    while (level_slots[level] > slots) {
        level--;
    }
    return level;
}

/* Lengths of runs that are told apart, by the width of the masks: 1, 2, 4, 8 bytes. */
static const uint8_t run_classes[4][CLASSES] = {
    {1, 2, 3, 4, 5, 6, 7, 8},
    {1, 2, 3, 4, 6, 8, 12, 16},
    {1, 2, 4, 8, 12, 16, 24, 32},
    {1, 2, 4, 8, 16, 24, 32, 64},
};

int summary_class(int width, int run)
{
    const uint8_t *classes = run_classes[__builtin_ctz((unsigned)width)];
    int class = 0;
    while (class < CLASSES && classes[class] <= run) {
        class ++;
    }
    return class;
}

/* ---- changes ---- */

/* Plain loops over starts that are worth vector instructions: gcc makes none at -O2. */
#if defined(__GNUC__) && !defined(__clang__)
#define VECTORS __attribute__((optimize("O3")))
#else
#define VECTORS
#endif

/* Classes of the starts of one level, before and after. */
struct classes {
    uint8_t was[SLOTS], is[SLOTS];
};

VECTORS static void fold_bytes(uint8_t *restrict out, const uint8_t *restrict in,
                               size_t count, size_t step)
{
    for (size_t i = 0; i + step < count; i++) {
        out[i] = in[i] & in[i + step];
    }
}

/* Of masks of one byte the class is the longest run. */
VECTORS static void classes_of_bytes(uint8_t *restrict out, const uint8_t *restrict in,
                                     size_t count)
{
    for (size_t i = 0; i < count; i++) {
        uint8_t mask = in[i], class = 0;
        for (int k = 0; k < 8; k++) {
            class = (uint8_t)(class + (mask != 0));
            mask = (uint8_t)(mask & mask >> 1);
        }
        out[i] = class;
    }
}

VECTORS static uint8_t class_differs(const struct classes *of, uint8_t class,
                                     size_t count)
{
    uint8_t any = 0;
    for (size_t i = 0; i < count; i++) {
        any |= (of->was[i] >= class) ^ (of->is[i] >= class);
    }
    return any;
}

VECTORS static void counts_add(uint16_t *restrict counts,
                               const struct classes *restrict of, size_t skip,
                               uint8_t class, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        counts[i] = (uint16_t)(counts[i] + (of->is[skip + i] >= class) -
                               (of->was[skip + i] >= class));
    }
}

VECTORS static void tops_of(uint8_t *restrict tops, uint16_t (*restrict counts)[SLOTS],
                            size_t first, size_t count)
{
    for (size_t i = first; i < first + count; i++) {
        uint8_t top = 0;
        for (int class = 0; class < CLASSES; class ++) {
            top = (uint8_t)(top + (counts[class][i] != 0));
        }
        tops[i] = top;
    }
}

static void tops_change(struct index *x, int level, size_t ring, size_t count)
{
    size_t before = count < SLOTS - ring ? count : SLOTS - ring; /* the ring ends */
    tops_of(x->tops[level], x->counts[level], ring, before);
    tops_of(x->tops[level], x->counts[level], 0, count - before);
}

/* Starts [first, first + count) have the classes of->is and had of->was. Returns
 * whether that makes a difference; tops are left as they are. */
static bool counts_change(struct index *x, int level, int64_t first, size_t count,
                          const struct classes *of)
{
    size_t ring = slot_ring(first);
    size_t before = count < SLOTS - ring ? count : SLOTS - ring;
    bool any = false;
    for (int class = 0; class < CLASSES; class ++) {
        uint16_t *counts = x->counts[level][class];
        if (class_differs(of, (uint8_t)(class + 1), count)) {
            counts_add(counts + ring, of, 0, (uint8_t)(class + 1), before);
            counts_add(counts, of, before, (uint8_t)(class + 1), count - before);
            any = true;
        }
    }
    return any;
}

/* One side's masks by start and level: in bytes where they fit. */
struct folds {
    uint8_t bytes[2][SLOTS];
    uint64_t *wide;
    size_t count;
    int now; /* which of bytes */
};

static void folds_begin(struct folds *f, struct column *col, int width)
{
    f->count = (size_t)(col->to - col->from);
    f->wide = width == 1 ? NULL : col->free;
    f->now = 0;
    for (size_t i = 0; width == 1 && i < f->count; i++) {
        f->bytes[0][i] = (uint8_t)col->free[i];
    }
}

/* Replaces each mask by the AND of itself and that of `step` slots later. */
static void folds_next(struct folds *f, size_t step)
{
    if (f->wide == NULL) {
        fold_bytes(f->bytes[1 - f->now], f->bytes[f->now], f->count, step);
        f->now = 1 - f->now;
        return;
    }
    for (size_t i = 0; i + step < f->count; i++) {
        f->wide[i] &= f->wide[i + step];
    }
}

static void folds_classes(const struct folds *f, int width, size_t at, size_t count,
                          uint8_t *ret)
{
    if (f->wide == NULL) {
        classes_of_bytes(ret, f->bytes[f->now] + at, count);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        bool same = i > 0 && f->wide[at + i] == f->wide[at + i - 1];
        ret[i] = same ? ret[i - 1]
                      : (uint8_t)summary_class(width, run_longest(f->wide[at + i]));
    }
}

static bool folds_same(const struct folds *a, const struct folds *b, size_t at,
                       size_t count)
{
    return a->wide == NULL
               ? memcmp(a->bytes[a->now] + at, b->bytes[b->now] + at, count) == 0
               : memcmp(a->wide + at, b->wide + at, count * sizeof a->wide[0]) == 0;
}

static void folds_level(struct folds *f, int level)
{
    for (int i = 0; i < 2 && level_steps[level][i] > 0; i++) {
        folds_next(f, level_steps[level][i]);
    }
}

void summary_change(struct calendar *c, struct index *x, const int64_t during[2])
{
    struct folds was, is;
    struct classes of;
    int64_t base = x->base, end = base + SLOTS;
    folds_begin(&was, &c->old, x->width);
    folds_begin(&is, &c->new, x->width);
    for (int level = 0; level < LEVELS; level++) {
        int64_t first = max_i64(base, during[0] - level_slots[level] + 1);
        int64_t last = min_i64(during[1], end - level_slots[level] + 1);
        folds_level(&was, level);
        folds_level(&is, level);
        if (first >= last) {
            continue;
        }
        size_t at = (size_t)(first - c->new.from), count = (size_t)(last - first);
        /* What no window of this length shows, no longer one does. */
        if (folds_same(&was, &is, at, count)) {
            break;
        }
        folds_classes(&was, x->width, at, count, of.was);
        folds_classes(&is, x->width, at, count, of.is);
        if (counts_change(x, level, first, count, &of)) {
            tops_change(x, level, slot_ring(first), count);
        }
    }
}

void summary_add(struct calendar *c, struct index *x)
{
    struct folds is;
    struct classes of;
    folds_begin(&is, &c->new, x->width);
    memset(of.was, 0, sizeof of.was);
    for (int level = 0; level < LEVELS; level++) {
        size_t count = (size_t)(SLOTS - level_slots[level] + 1);
        folds_level(&is, level);
        folds_classes(&is, x->width, 0, count, of.is);
        counts_change(x, level, x->base, count, &of);
    }
}

void summary_finish(struct index *x)
{
    for (int level = 0; level < LEVELS; level++) {
        tops_change(x, level, slot_ring(x->base),
                    (size_t)(SLOTS - level_slots[level] + 1));
    }
}

/* ---- questions ---- */

static bool start_hopeless(const struct index *x, int level, int64_t start, int class,
                           int nodes)
{
    size_t at = slot_ring(start);
    return nodes == 1 ? x->tops[level][at] < class
                      : x->counts[level][class - 1][at] < nodes;
}

bool summary_hopeless(const struct index *x, int64_t from, int64_t to, int class,
                      int nodes)
{
    if (from >= to) {
        return false;
    }
    int level = level_of(to - from);
    int64_t len = level_slots[level];
    /* Both ends are read before either decides: two misses of the cache at once. */
    bool head = start_hopeless(x, level, from, class, nodes);
    bool tail = start_hopeless(x, level, to - len, class, nodes);
    bool hopeless = head || tail;
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

int64_t summary_next(const struct search *s, int64_t slot, int64_t last, int64_t whole)
{
    const struct index *x = s->g->index;
    int64_t end = x->base + SLOTS;
    int class = summary_class(x->width, s->q->gpus);
    int level = whole > 0 ? level_of(whole) : 0;
    while (slot <= last) {
        int64_t from = slot + 1, to = min_i64(from + whole, end);
        if (to - from == whole && whole > 0) {
            size_t a = slot_ring(from), b = slot_ring(to - level_slots[level]);
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
        if (!summary_hopeless(x, from, to, class, s->nodes)) {
            return slot;
        }
        slot++;
    }
    return last + 1;
}
