/* calendar: bookings of a node in one array sorted by start, nodes grouped by (site,
 * model), booking ids in an open-addressed table.
 *
 * Invariants: a node's bookings are sorted by from_us; no booking of a node is longer
 * than its longest_us, so the bookings that can touch [t,t+len) lie between two binary
 * searches; a node that is set is in exactly one group; the id table has one entry per
 * booking, with the node and start that find it.
 *
 * Finding the earliest start on a node jumps: when GPU g is busy until u for a start t,
 * it stays busy for every start in [t,u). The next start worth a look is therefore the
 * smallest, over all places a run could lie, of the largest such u in the run. Nothing
 * is allocated while finding. Does not decide conflicts: overlapping bookings are kept
 * as given (the database refuses them). */
#include "server/core/calendar.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"

#define NEVER INT64_MAX

struct booking {
    int64_t id, from_us, to_us;
    uint64_t mask;
};

struct node {
    bool is_set;
    int site, model, gpus;
    uint64_t offered;
    int run;             /* the longest in offered */
    int group, group_at; /* where in which group */
    struct calendar_span *windows;
    size_t window_count;
    struct booking *bookings;
    size_t count, cap;
    int64_t longest_us;
};

struct group {
    int site, model;
    int *nodes;
    size_t count, cap;
    int largest; /* run of its nodes */
};

struct entry {
    int64_t id, from_us;
    int node; /* -1: empty */
};

struct calendar {
    struct node *nodes;
    int node_count;
    struct group *groups;
    size_t group_count, group_cap;
    int *group_table; /* index + 1 into groups, 0: empty */
    size_t group_table_size;
    struct entry *entries;
    size_t entry_count, entry_size; /* size: a power of two */
};

/* ---- hashing ---- */

/* Finaliser of splitmix64 (Vigna): ids are dense, so the low bits need mixing. */
static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 27;
    x *= UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static size_t entry_find(const struct calendar *c, int64_t id)
{
    size_t mask = c->entry_size - 1;
    size_t i = mix((uint64_t)id) & mask;
    while (c->entries[i].node >= 0 && c->entries[i].id != id) {
        i = (i + 1) & mask;
    }
    return i;
}

static void entries_resize(struct calendar *c, size_t size)
{
    struct entry *old = c->entries;
    size_t old_size = c->entry_size;
    c->entries = xreallocarray(NULL, size, sizeof *c->entries);
    c->entry_size = size;
    for (size_t i = 0; i < size; i++) {
        c->entries[i].node = -1;
    }
    for (size_t i = 0; i < old_size; i++) {
        if (old[i].node >= 0) {
            c->entries[entry_find(c, old[i].id)] = old[i];
        }
    }
    free(old);
}

static void entry_add(struct calendar *c, struct entry e)
{
    if ((c->entry_count + 1) * 10 > c->entry_size * 7) {
        entries_resize(c, c->entry_size * 2);
    }
    c->entries[entry_find(c, e.id)] = e;
    c->entry_count++;
}

/* Closes the gap by shifting back (Knuth 6.4 algorithm R), so there are no tombstones.
 */
static void entry_remove(struct calendar *c, size_t hole)
{
    size_t mask = c->entry_size - 1;
    for (size_t i = (hole + 1) & mask; c->entries[i].node >= 0; i = (i + 1) & mask) {
        size_t home = mix((uint64_t)c->entries[i].id) & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            c->entries[hole] = c->entries[i];
            hole = i;
        }
    }
    c->entries[hole].node = -1;
    c->entry_count--;
}

static size_t group_slot(const struct calendar *c, int site, int model)
{
    size_t mask = c->group_table_size - 1;
    size_t i = mix((uint64_t)(uint32_t)site << 32 | (uint32_t)model) & mask;
    for (;; i = (i + 1) & mask) {
        int at = c->group_table[i];
        if (at == 0 ||
            (c->groups[at - 1].site == site && c->groups[at - 1].model == model)) {
            return i;
        }
    }
}

static const struct group *group_get(const struct calendar *c, int site, int model)
{
    int at = c->group_table[group_slot(c, site, model)];
    return at == 0 ? NULL : &c->groups[at - 1];
}

static int group_make(struct calendar *c, int site, int model)
{
    size_t slot = group_slot(c, site, model);
    if (c->group_table[slot] != 0) {
        return c->group_table[slot] - 1;
    }
    if (c->group_count == c->group_cap) {
        c->group_cap = c->group_cap * 2 + 8;
        c->groups = xreallocarray(c->groups, c->group_cap, sizeof *c->groups);
    }
    c->groups[c->group_count] = (struct group){.site = site, .model = model};
    c->group_table[slot] = (int)++c->group_count;
    if (c->group_count * 2 > c->group_table_size) {
        free(c->group_table);
        c->group_table_size *= 2;
        c->group_table = xcalloc(c->group_table_size, sizeof *c->group_table);
        for (size_t i = 0; i < c->group_count; i++) {
            size_t at = group_slot(c, c->groups[i].site, c->groups[i].model);
            c->group_table[at] = (int)i + 1;
        }
    }
    return (int)c->group_count - 1;
}

/* ---- life and nodes ---- */

struct calendar *calendar_new(void)
{
    struct calendar *c = xcalloc(1, sizeof *c);
    c->group_table_size = 64;
    c->group_table = xcalloc(c->group_table_size, sizeof *c->group_table);
    entries_resize(c, 64);
    return c;
}

void calendar_free(struct calendar *c)
{
    if (c == NULL) {
        return;
    }
    for (int i = 0; i < c->node_count; i++) {
        free(c->nodes[i].windows);
        free(c->nodes[i].bookings);
    }
    for (size_t i = 0; i < c->group_count; i++) {
        free(c->groups[i].nodes);
    }
    free(c->nodes);
    free(c->groups);
    free(c->group_table);
    free(c->entries);
    free(c);
}

static struct node *node_at(struct calendar *c, int id)
{
    assert(id >= 0);
    if (id >= c->node_count) {
        int count = c->node_count * 2 > id + 1 ? c->node_count * 2 : id + 1;
        c->nodes = xreallocarray(c->nodes, (size_t)count, sizeof *c->nodes);
        memset(c->nodes + c->node_count, 0,
               (size_t)(count - c->node_count) * sizeof *c->nodes);
        c->node_count = count;
    }
    return &c->nodes[id];
}

static uint64_t low_bits(int count)
{
    return count >= 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1;
}

static int longest_run(uint64_t mask)
{
    int longest = 0;
    while (mask != 0) {
        mask &= mask >> 1;
        longest++;
    }
    return longest;
}

/* A node's run was `old` and is now `run`; 0: it was, or is, none of the group's. */
static void group_run(struct calendar *c, struct group *g, int old, int run)
{
    if (run >= g->largest) {
        g->largest = run;
    } else if (old == g->largest) {
        g->largest = 0;
        for (size_t i = 0; i < g->count; i++) {
            int other = c->nodes[g->nodes[i]].run;
            g->largest = other > g->largest ? other : g->largest;
        }
    }
}

static void set_offered(struct calendar *c, struct node *n, uint64_t offered)
{
    int old = n->run;
    n->offered = offered & low_bits(n->gpus);
    n->run = longest_run(n->offered);
    group_run(c, &c->groups[n->group], old, n->run);
}

static void group_leave(struct calendar *c, struct node *n)
{
    struct group *g = &c->groups[n->group];
    int last = g->nodes[--g->count];
    g->nodes[n->group_at] = last;
    c->nodes[last].group_at = n->group_at;
    group_run(c, g, n->run, 0);
    n->run = 0;
}

static void group_join(struct calendar *c, int id, struct node *n)
{
    n->group = group_make(c, n->site, n->model);
    struct group *g = &c->groups[n->group];
    if (g->count == g->cap) {
        g->cap = g->cap * 2 + 8;
        g->nodes = xreallocarray(g->nodes, g->cap, sizeof *g->nodes);
    }
    n->group_at = (int)g->count;
    g->nodes[g->count++] = id;
}

static void set_windows(struct node *n, const struct calendar_span *w, size_t count)
{
    /* `w` may be the node's own, so the copy is made before the old one goes. */
    struct calendar_span *copy = NULL;
    size_t kept = 0;
    if (count > 0) {
        copy = xreallocarray(NULL, count, sizeof *copy);
    }
    for (size_t i = 0; i < count; i++) {
        assert(i == 0 || w[i].from_us >= w[i - 1].from_us);
        if (kept > 0 && w[i].from_us <= copy[kept - 1].to_us) {
            if (w[i].to_us > copy[kept - 1].to_us) {
                copy[kept - 1].to_us = w[i].to_us;
            }
        } else {
            copy[kept++] = w[i];
        }
    }
    free(n->windows);
    n->windows = copy;
    n->window_count = kept;
}

void calendar_set_node(struct calendar *c, int id, const struct calendar_node *from)
{
    assert(from->gpus >= 1 && from->gpus <= GPUS_PER_NODE_MAX);
    struct node *n = node_at(c, id);
    bool moves = !n->is_set || n->site != from->site || n->model != from->model;
    if (n->is_set && moves) {
        group_leave(c, n);
    }
    n->is_set = true;
    n->site = from->site;
    n->model = from->model;
    n->gpus = from->gpus;
    set_windows(n, from->windows, from->window_count);
    if (moves) {
        group_join(c, id, n);
    }
    set_offered(c, n, from->offered);
}

void calendar_set_offered(struct calendar *c, int id, uint64_t offered)
{
    struct node *n = node_at(c, id);
    if (n->is_set) {
        set_offered(c, n, offered);
    }
}

/* ---- bookings ---- */

/* First booking with from_us >= t. */
static size_t first_from(const struct node *n, int64_t t)
{
    size_t low = 0, high = n->count;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (n->bookings[mid].from_us < t) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

static int64_t add_capped(int64_t a, int64_t b)
{
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? (b > 0 ? INT64_MAX : INT64_MIN) : sum;
}

static int64_t length_us(int64_t from_us, int64_t to_us)
{
    int64_t len;
    return __builtin_sub_overflow(to_us, from_us, &len) ? INT64_MAX : len;
}

void calendar_book(struct calendar *c, int64_t booking, int node, int first, int count,
                   int64_t from_us, int64_t to_us)
{
    assert(first >= 0 && count >= 1 && first + count <= GPUS_PER_NODE_MAX);
    calendar_release(c, booking);
    if (from_us >= to_us) {
        return;
    }
    struct node *n = node_at(c, node);
    if (n->count == n->cap) {
        n->cap = n->cap * 2 + 4;
        n->bookings = xreallocarray(n->bookings, n->cap, sizeof *n->bookings);
    }
    size_t at = first_from(n, from_us);
    memmove(n->bookings + at + 1, n->bookings + at,
            (n->count - at) * sizeof *n->bookings);
    n->bookings[at] = (struct booking){.id = booking,
                                       .from_us = from_us,
                                       .to_us = to_us,
                                       .mask = low_bits(count) << first};
    n->count++;
    int64_t len = length_us(from_us, to_us);
    if (len > n->longest_us) {
        n->longest_us = len;
    }
    entry_add(c, (struct entry){.id = booking, .from_us = from_us, .node = node});
}

void calendar_release(struct calendar *c, int64_t booking)
{
    size_t slot = entry_find(c, booking);
    if (c->entries[slot].node < 0) {
        return;
    }
    struct node *n = &c->nodes[c->entries[slot].node];
    size_t at = first_from(n, c->entries[slot].from_us);
    while (n->bookings[at].id != booking) {
        at++;
        assert(at < n->count);
    }
    memmove(n->bookings + at, n->bookings + at + 1,
            (n->count - at - 1) * sizeof *n->bookings);
    n->count--;
    if (n->count == 0) {
        n->longest_us = 0;
    }
    entry_remove(c, slot);
}

void calendar_expire(struct calendar *c, int64_t now_us)
{
    for (int i = 0; i < c->node_count; i++) {
        struct node *n = &c->nodes[i];
        size_t kept = 0;
        n->longest_us = 0;
        for (size_t k = 0; k < n->count; k++) {
            struct booking b = n->bookings[k];
            if (b.to_us <= now_us) {
                entry_remove(c, entry_find(c, b.id));
                continue;
            }
            n->bookings[kept++] = b;
            int64_t len = length_us(b.from_us, b.to_us);
            n->longest_us = len > n->longest_us ? len : n->longest_us;
        }
        n->count = kept;
    }
}

size_t calendar_booking_count(const struct calendar *c)
{
    return c->entry_count;
}

/* ---- runs of bits ---- */

/* Bits at which a run of at least count set bits starts. */
static uint64_t run_starts(uint64_t mask, int count)
{
    int have = 1;
    while (have < count && mask != 0) {
        int step = have < count - have ? have : count - have;
        mask &= mask >> step;
        have += step;
    }
    return mask;
}

/* The run that calendar_pick cuts from: its first bit and length, -1 when none. */
static int pick_run(uint64_t mask, int count, int *ret_len)
{
    int best = -1, best_len = GPUS_PER_NODE_MAX + 1;
    while (mask != 0) {
        int first = __builtin_ctzll(mask);
        uint64_t rest = ~(mask >> first);
        int len = rest == 0 ? 64 : __builtin_ctzll(rest);
        if (len >= count && len < best_len) {
            best = first;
            best_len = len;
        }
        mask &= ~(low_bits(len) << first);
    }
    *ret_len = best_len;
    return best;
}

int calendar_pick(uint64_t mask, int count)
{
    int len;
    return count < 1 || count > 64 ? -1 : pick_run(mask, count, &len);
}

/* ---- questions ---- */

/* Earliest start >= t for which [start,start+len) lies in one window. */
static int64_t window_start(const struct node *n, int64_t t, int64_t len_us)
{
    if (n->window_count == 0) {
        return t;
    }
    for (size_t i = 0; i < n->window_count; i++) {
        int64_t start = n->windows[i].from_us > t ? n->windows[i].from_us : t;
        if (add_capped(start, len_us) <= n->windows[i].to_us) {
            return start;
        }
    }
    return NEVER;
}

/* Bookings that may overlap [from,to): from the returned index while from_us < to. */
static size_t overlap_begin(const struct node *n, int64_t from_us)
{
    return first_from(n, add_capped(from_us, -n->longest_us));
}

static uint64_t busy_mask(const struct node *n, int64_t from_us, int64_t to_us)
{
    uint64_t busy = 0;
    for (size_t i = overlap_begin(n, from_us);
         i < n->count && n->bookings[i].from_us < to_us; i++) {
        if (n->bookings[i].to_us > from_us) {
            busy |= n->bookings[i].mask;
        }
    }
    return busy;
}

static uint64_t node_free(const struct node *n, int64_t from_us, int64_t to_us)
{
    if (!n->is_set || n->offered == 0 || from_us >= to_us ||
        window_start(n, from_us, length_us(from_us, to_us)) != from_us) {
        return 0;
    }
    return n->offered & ~busy_mask(n, from_us, to_us);
}

uint64_t calendar_free_mask(const struct calendar *c, int node, int64_t from_us,
                            int64_t to_us)
{
    return node >= 0 && node < c->node_count
               ? node_free(&c->nodes[node], from_us, to_us)
               : 0;
}

/* No start in [t, returned) can have `gpus` neighbours. */
static int64_t next_start(const struct node *n, int64_t t, int64_t len_us, int gpus)
{
    int64_t until[GPUS_PER_NODE_MAX];
    for (int g = 0; g < n->gpus; g++) {
        until[g] = (n->offered >> g & 1) != 0 ? t : NEVER;
    }
    int64_t to_us = add_capped(t, len_us);
    for (size_t i = overlap_begin(n, t); i < n->count && n->bookings[i].from_us < to_us;
         i++) {
        const struct booking *b = &n->bookings[i];
        for (uint64_t m = b->mask & n->offered; m != 0 && b->to_us > t; m &= m - 1) {
            int g = __builtin_ctzll(m);
            until[g] = b->to_us > until[g] ? b->to_us : until[g];
        }
    }
    int64_t best = NEVER;
    for (uint64_t m = run_starts(n->offered, gpus); m != 0; m &= m - 1) {
        int first = __builtin_ctzll(m);
        int64_t latest = t;
        for (int g = first; g < first + gpus && latest < best; g++) {
            latest = until[g] > latest ? until[g] : latest;
        }
        best = latest < best ? latest : best;
    }
    return best;
}

/* Earliest start in [from,limit] on this node; the free GPUs there in *ret_mask. */
static bool node_earliest(const struct node *n, const struct calendar_query *q,
                          int64_t limit_us, int64_t *ret_start, uint64_t *ret_mask)
{
    if (run_starts(n->offered, q->gpus) == 0) {
        return false;
    }
    int64_t t = window_start(n, q->from_us, q->len_us);
    while (t <= limit_us && t != NEVER) {
        uint64_t mask = n->offered & ~busy_mask(n, t, add_capped(t, q->len_us));
        if (run_starts(mask, q->gpus) != 0) {
            *ret_start = t;
            *ret_mask = mask;
            return true;
        }
        int64_t next = next_start(n, t, q->len_us, q->gpus);
        assert(next > t);
        t = next > limit_us ? NEVER : window_start(n, next, q->len_us);
    }
    return false;
}

bool calendar_find(const struct calendar *c, const struct calendar_query *q,
                   struct calendar_slot *ret)
{
    const struct group *g = group_get(c, q->site, q->model);
    if (g == NULL || q->gpus < 1 || q->gpus > GPUS_PER_NODE_MAX || q->len_us <= 0) {
        return false;
    }
    struct calendar_slot best = {.node = -1};
    int64_t limit_us = q->latest_us;
    int best_fit = 0;
    uint32_t best_key = 0;
    for (size_t i = 0; i < g->count; i++) {
        int id = g->nodes[i];
        uint32_t key = (uint32_t)id ^ q->spread;
        /* Nothing beats an exact fit at the first instant but a smaller key. */
        if (best.node >= 0 && limit_us == q->from_us && best_fit == q->gpus &&
            key > best_key) {
            continue;
        }
        int64_t start;
        uint64_t mask;
        if (!node_earliest(&c->nodes[id], q, limit_us, &start, &mask)) {
            continue;
        }
        int fit;
        int first = pick_run(mask, q->gpus, &fit);
        bool wins = best.node < 0 || start < best.start_us || fit < best_fit ||
                    (fit == best_fit && key < best_key);
        if (!wins || (q->skip != NULL && q->skip(q->skip_arg, id))) {
            continue;
        }
        best = (struct calendar_slot){.node = id, .first = first, .start_us = start};
        limit_us = start;
        best_fit = fit;
        best_key = key;
    }
    if (best.node >= 0) {
        *ret = best;
    }
    return best.node >= 0;
}

void calendar_capacity(const struct calendar *c, int site, int model, int64_t from_us,
                       int64_t to_us, int *ret_best_node, int *ret_total)
{
    const struct group *g = group_get(c, site, model);
    int best = 0, total = 0;
    for (size_t i = 0; g != NULL && i < g->count; i++) {
        uint64_t mask = node_free(&c->nodes[g->nodes[i]], from_us, to_us);
        total += __builtin_popcountll(mask);
        if (__builtin_popcountll(mask) > best) {
            int run = longest_run(mask);
            best = run > best ? run : best;
        }
    }
    *ret_best_node = best;
    *ret_total = total;
}

int calendar_largest(const struct calendar *c, int site, int model)
{
    const struct group *g = group_get(c, site, model);
    return g == NULL ? 0 : g->largest;
}
