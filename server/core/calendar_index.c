/* calendar_index: the blocks of time of one group, and summaries over the group.
 *
 * Rows. For each block of 1, 4, 8, 16 and 32 slots one mask per node: the GPUs that are
 * offered and free during the whole block. A window of slots is the AND of O(log) rows.
 * (Blocks of 2 slots would take a fifth of the memory and save one row in four.)
 *
 * Edges. For each slot the set of nodes of which a booking or window begins or ends
 * inside the slot. For any other node a part of the slot is as free as the whole.
 *
 * The slots lie in a ring: moving on by BLOCK_MAX slots fills in the new slots of each
 * node and touches no others. All of it follows from the nodes' intervals; a change
 * computes the column before and after, and writes what differs. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"
#include "server/core/calendar_int.h"

/* Nodes whose index moves on in one call, some 20 ms. */
#define MOVED_NODES 8192

#define LINE 64 /* bytes of a line of the cache: rows begin at one */

/* ---- memory ---- */

/* The parts one behind the other, each at the begin of a line. `at` NULL: only the size
 * is wanted. */
static size_t index_lay(struct index *x, uint8_t *at)
{
    const struct {
        void *part; /* the pointer that is set */
        size_t size;
    } parts[] = {
        {&x->rows, ROWS_ALL * x->stride},
        {&x->edges, SLOTS * x->words * sizeof *x->edges},
        {&x->counts, LEVELS * sizeof *x->counts},
        {&x->tops, LEVELS * sizeof *x->tops},
        {&x->masks, x->stride},
        {&x->sure, x->words * sizeof *x->sure},
        {&x->maybe, x->words * sizeof *x->maybe},
        {&x->exact, x->words * sizeof *x->exact},
        {&x->core, x->words * sizeof *x->core},
    };
    size_t used = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        if (at != NULL) {
            void *part = at + used;
            memcpy(parts[i].part, &part, sizeof part);
        }
        used += (parts[i].size + LINE - 1) / LINE * LINE;
    }
    return used;
}

static struct index *index_new(int width, size_t nodes)
{
    struct index *x = xcalloc(1, sizeof *x);
    x->width = width;
    x->stride = (nodes * (size_t)width + LINE - 1) / LINE * LINE;
    x->words = (x->stride / (size_t)width + 63) / 64;
    x->bytes = index_lay(x, NULL) + LINE;
    x->memory = xcalloc(1, x->bytes);
    uint8_t *at = x->memory;
    index_lay(x, at + (LINE - (uintptr_t)at % LINE) % LINE);
    return x;
}

void index_free(struct index *x)
{
    if (x != NULL) {
        free(x->memory);
        free(x);
    }
}

/* ---- rows ---- */

static void row_put(struct index *x, size_t row, int pos, uint64_t mask)
{
    uint8_t *at = x->rows + row * x->stride + (size_t)pos * (size_t)x->width;
    switch (x->width) {
    case 1: *at = (uint8_t)mask; break;
    case 2: *(uint16_t *)(void *)at = (uint16_t)mask; break;
    case 4: *(uint32_t *)(void *)at = (uint32_t)mask; break;
    default: *(uint64_t *)(void *)at = mask; break;
    }
}

static uint64_t and_of(const uint64_t *masks, int64_t count)
{
    uint64_t all = UINT64_MAX;
    for (int64_t i = 0; i < count; i++) {
        all &= masks[i];
    }
    return all;
}

static void blocks_change(const struct calendar *c, struct index *x, int pos,
                          const int64_t during[2])
{
    static const struct {
        int slots, shift, first_row;
    } sizes[] = {{4, 2, ROWS_4}, {8, 3, ROWS_8}, {16, 4, ROWS_16}, {32, 5, ROWS_32}};
    const struct column *old = &c->old, *new = &c->new;
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        int slots = sizes[s].slots;
        int64_t at = during[0] - (int64_t)(slot_ring(during[0]) % (size_t)slots);
        for (; at < during[1]; at += slots) {
            uint64_t is = and_of(new->free + (at - new->from), slots);
            if (is != and_of(old->free + (at - old->from), slots)) {
                size_t row =
                    (size_t)sizes[s].first_row + (slot_ring(at) >> sizes[s].shift);
                row_put(x, row, pos, is);
            }
        }
    }
}

static void rows_change(const struct calendar *c, struct index *x, int pos,
                        const int64_t during[2])
{
    const struct column *old = &c->old, *new = &c->new;
    uint64_t bit = UINT64_C(1) << (pos % 64);
    for (int64_t slot = during[0]; slot < during[1]; slot++) {
        int64_t i = slot - old->from;
        if (old->free[i] != new->free[i]) {
            row_put(x, ROWS_1 + slot_ring(slot), pos, new->free[i]);
        }
        if (old->edge[i] != new->edge[i]) {
            uint64_t *word = &x->edges[slot_ring(slot) * x->words + (size_t)pos / 64];
            *word = new->edge[i] ? *word | bit : *word & ~bit;
        }
    }
    blocks_change(c, x, pos, during);
}

void index_change(struct calendar *c, struct group *g, int pos, int64_t lo, int64_t hi)
{
    int64_t during[2] = {lo, hi};
    rows_change(c, g->index, pos, during);
    summary_change(c, g->index, during);
}

/* ---- building and moving on ---- */

static void column_clear(struct column *col, int64_t from, int64_t to)
{
    col->from = from;
    col->to = to;
    memset(col->free, 0, (size_t)(to - from) * sizeof col->free[0]);
    memset(col->edge, 0, (size_t)(to - from) * sizeof col->edge[0]);
}

void index_build(struct calendar *c, struct group *g)
{
    index_free(g->index);
    g->index = NULL;
    if (!c->has_base || g->count < INDEX_NODES_MIN || g->count > INDEX_NODES_MAX) {
        return;
    }
    g->index = index_new(g->width, g->count);
    g->index->base = c->base;
    int64_t base = c->base, end = base + SLOTS;
    int64_t during[2] = {base, end};
    column_clear(&c->old, base, end);
    for (size_t pos = 0; pos < g->count; pos++) {
        node_column(&c->nodes[g->nodes[pos]], base, end, &c->new);
        rows_change(c, g->index, (int)pos, during);
        summary_add(c, g->index);
    }
    summary_finish(g->index);
}

/* Slots [from,to) leave the ring, and those that come at their places begin empty. */
static void index_forget(struct index *x, int64_t from, int64_t to)
{
    for (int64_t slot = from; slot < to; slot++) {
        size_t ring = slot_ring(slot);
        for (size_t level = 0; level < LEVELS; level++) {
            for (size_t class = 0; class < CLASSES; class ++) {
                x->counts[level][class][ring] = 0;
            }
            x->tops[level][ring] = 0;
        }
        memset(x->rows + (ROWS_1 + ring) * x->stride, 0, x->stride);
        memset(x->edges + ring * x->words, 0, x->words * sizeof *x->edges);
        memset(x->rows + (ROWS_4 + ring / 4) * x->stride, 0, x->stride);
        memset(x->rows + (ROWS_8 + ring / 8) * x->stride, 0, x->stride);
        memset(x->rows + (ROWS_16 + ring / 16) * x->stride, 0, x->stride);
        memset(x->rows + (ROWS_32 + ring / 32) * x->stride, 0, x->stride);
    }
}

/* Starts whose window did not fit before the old end are summed up for the first time:
 * an index_change from nothing to what is does exactly that. */
static void index_extend(struct calendar *c, struct group *g, int64_t from, int64_t to)
{
    int64_t begin = max_i64(g->index->base, from - SUMMARY_MAX + 1);
    for (size_t pos = 0; pos < g->count; pos++) {
        column_clear(&c->old, begin, to);
        node_column(&c->nodes[g->nodes[pos]], begin, to, &c->new);
        index_change(c, g, (int)pos, from, to);
    }
}

static void index_step(struct calendar *c, struct group *g)
{
    struct index *x = g->index;
    int64_t old = x->base;
    x->base = c->base;
    index_forget(x, old, x->base);
    index_extend(c, g, old + SLOTS, x->base + SLOTS);
}

/* Every eight hours all indexes are a block behind. They follow a few at a time, so
 * that nobody waits for all of them: their horizon is short by minutes meanwhile. */
void index_move(struct calendar *c, int64_t base)
{
    bool first = !c->has_base;
    size_t moved = 0;
    c->has_base = true;
    c->base = base;
    for (size_t i = 0; i < c->group_count; i++) {
        struct group *g = &c->groups[i];
        int64_t behind = g->index == NULL ? 0 : base - g->index->base;
        if (first || behind >= SLOTS) {
            index_build(c, g);
        } else if (behind > BLOCK_MAX || (behind > 0 && moved < MOVED_NODES)) {
            index_step(c, g);
            moved += g->count;
        }
    }
}
