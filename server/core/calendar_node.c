/* calendar_node: the bookings and windows of one node, exact to the microsecond.
 *
 * Invariants: bookings are sorted by from_us; none is longer than longest_us, so those
 * that can touch [t,t+len) lie between two binary searches; windows are sorted and do
 * not touch.
 *
 * The earliest start jumps: when GPU g is busy until u for a start t, it stays busy for
 * every start in [t,u). The next start worth a look is therefore the smallest, over all
 * places a run could lie, of the largest such u in the run. */
#include <assert.h>
#include <string.h>

#include "client/lib/xalloc.h"
#include "server/core/calendar_int.h"

/* ---- runs of bits ---- */

/* Doubles the length while runs of it start somewhere, then adds the halves that fit.
 */
int run_longest(uint64_t mask)
{
    uint64_t starts[7] = {mask}; /* of runs of 1, 2, 4 … 64 */
    int level = 0;
    if (mask == 0) {
        return 0;
    }
    while (level < 6) {
        uint64_t twice = starts[level] & starts[level] >> (1 << level);
        if (twice == 0) {
            break;
        }
        starts[++level] = twice;
    }
    int longest = 1 << level;
    uint64_t at = starts[level];
    while (level-- > 0) {
        uint64_t longer = longest < 64 ? at & starts[level] >> longest : 0;
        if (longer != 0) {
            at = longer;
            longest += 1 << level;
        }
    }
    return longest;
}

int run_pick(uint64_t mask, int count, int *ret_len)
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

/* ---- the list ---- */

/* First booking with from_us >= t. Bookings are spread over time more or less evenly,
 * so the search begins where it would be if they were, and doubles its steps from
 * there: one or two lines of the cache instead of one per halving. */
static size_t first_from(const struct node *n, int64_t t)
{
    size_t count = n->count, low = 0, high = count, step = 2;
    if (count == 0 || t <= n->first_from_us) {
        return 0;
    }
    int64_t ahead = length_us(n->first_from_us, t);
    if (ahead > n->span_us) {
        return count;
    }
    size_t at = (size_t)((double)ahead / (double)n->span_us * (double)(count - 1));
    if (n->bookings[at].from_us < t) {
        for (low = at + 1; low + step < count; step *= 2) {
            if (n->bookings[low + step].from_us >= t) {
                high = low + step;
                break;
            }
            low += step + 1;
        }
    } else {
        for (high = at; high > step; step *= 2) {
            if (n->bookings[high - step].from_us < t) {
                low = high - step + 1;
                break;
            }
            high -= step;
        }
    }
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

static void list_ends(struct node *n)
{
    if (n->count > 0) {
        n->first_from_us = n->bookings[0].from_us;
        n->span_us = length_us(n->first_from_us, n->bookings[n->count - 1].from_us);
    }
}

/* Bookings that may overlap [from,to): from the returned index while from_us < to. */
static size_t overlap_begin(const struct node *n, int64_t from_us)
{
    return first_from(n, add_capped(from_us, -n->longest_us));
}

size_t node_index_of(const struct node *n, int64_t id)
{
    size_t i = 0;
    while (i < n->count && n->bookings[i].id != id) {
        i++;
    }
    return i;
}

void node_insert(struct node *n, const struct booking *b)
{
    if (n->count == n->cap) {
        n->cap = n->cap + n->cap / 4 + 4;
        n->bookings = xreallocarray(n->bookings, n->cap, sizeof *n->bookings);
    }
    size_t at = first_from(n, b->from_us);
    memmove(n->bookings + at + 1, n->bookings + at,
            (n->count - at) * sizeof *n->bookings);
    n->bookings[at] = *b;
    n->count++;
    list_ends(n);
    n->longest_us = max_i64(n->longest_us, length_us(b->from_us, b->to_us));
    n->last_us = n->count == 1 ? b->to_us : max_i64(n->last_us, b->to_us);
}

struct booking node_remove(struct node *n, size_t at)
{
    struct booking gone = n->bookings[at];
    memmove(n->bookings + at, n->bookings + at + 1,
            (n->count - at - 1) * sizeof *n->bookings);
    n->count--;
    list_ends(n);
    if (n->count == 0) {
        n->longest_us = 0;
    }
    return gone;
}

/* ---- questions ---- */

/* Earliest start >= t for which [start,start+len) lies in one window. */
static int64_t window_start(const struct node *n, int64_t t, int64_t len_us)
{
    if (n->window_count == 0) {
        return t;
    }
    for (size_t i = 0; i < n->window_count; i++) {
        int64_t start = max_i64(n->windows[i].from_us, t);
        if (add_capped(start, len_us) <= n->windows[i].to_us) {
            return start;
        }
    }
    return CALENDAR_NEVER;
}

static uint64_t busy_mask(const struct node *n, int64_t from_us, int64_t to_us)
{
    uint64_t busy = 0;
    if (n->count == 0 || n->last_us <= from_us) {
        return 0;
    }
    for (size_t i = overlap_begin(n, from_us);
         i < n->count && n->bookings[i].from_us < to_us; i++) {
        if (n->bookings[i].to_us > from_us) {
            busy |= n->bookings[i].mask;
        }
    }
    return busy;
}

uint64_t node_free(const struct node *n, int64_t from_us, int64_t to_us)
{
    if (!n->is_set || n->offered == 0 || from_us >= to_us ||
        window_start(n, from_us, length_us(from_us, to_us)) != from_us) {
        return 0;
    }
    return n->offered & ~busy_mask(n, from_us, to_us);
}

/* No start in [t, returned) can have `gpus` neighbours. */
static int64_t next_start(const struct node *n, int64_t t, int64_t len_us, int gpus)
{
    int64_t until[GPUS_PER_NODE_MAX];
    for (int g = 0; g < n->gpus; g++) {
        until[g] = (n->offered >> g & 1) != 0 ? t : CALENDAR_NEVER;
    }
    int64_t to_us = add_capped(t, len_us);
    for (size_t i = overlap_begin(n, t); i < n->count && n->bookings[i].from_us < to_us;
         i++) {
        const struct booking *b = &n->bookings[i];
        for (uint64_t m = b->mask & n->offered; m != 0 && b->to_us > t; m &= m - 1) {
            int g = __builtin_ctzll(m);
            until[g] = max_i64(b->to_us, until[g]);
        }
    }
    int64_t best = CALENDAR_NEVER;
    for (uint64_t m = run_starts(n->offered, gpus); m != 0; m &= m - 1) {
        int first = __builtin_ctzll(m);
        int64_t latest = t;
        for (int g = first; g < first + gpus && latest < best; g++) {
            latest = max_i64(until[g], latest);
        }
        best = min_i64(latest, best);
    }
    return best;
}

bool node_earliest(const struct node *n, const struct node_ask *ask, int64_t *ret_start,
                   uint64_t *ret_mask)
{
    if (run_starts(n->offered, ask->gpus) == 0) {
        return false;
    }
    int64_t t = window_start(n, ask->from_us, ask->len_us);
    while (t <= ask->limit_us && t != CALENDAR_NEVER) {
        uint64_t mask = n->offered & ~busy_mask(n, t, add_capped(t, ask->len_us));
        if (run_starts(mask, ask->gpus) != 0) {
            *ret_start = t;
            *ret_mask = mask;
            return true;
        }
        int64_t next = next_start(n, t, ask->len_us, ask->gpus);
        assert(next > t);
        t = next > ask->limit_us ? CALENDAR_NEVER : window_start(n, next, ask->len_us);
    }
    return false;
}

/* ---- slots ---- */

static void column_edge(struct column *col, int64_t at_us)
{
    int64_t slot = slot_floor(at_us);
    if (at_us % SLOT_US != 0 && slot >= col->from && slot < col->to) {
        col->edge[slot - col->from] = true;
    }
}

void node_column(const struct node *n, int64_t from, int64_t to, struct column *col)
{
    assert(to - from <= SLOTS);
    col->from = from;
    col->to = to;
    memset(col->edge, 0, (size_t)(to - from) * sizeof col->edge[0]);
    uint64_t whole = n->window_count == 0 ? n->offered : 0;
    for (int64_t i = 0; i < to - from; i++) {
        col->free[i] = whole;
    }
    for (size_t i = 0; i < n->window_count; i++) {
        int64_t first = max_i64(slot_ceil(n->windows[i].from_us), from);
        int64_t last = min_i64(slot_floor(n->windows[i].to_us), to);
        for (int64_t slot = first; slot < last; slot++) {
            col->free[slot - from] = n->offered;
        }
        column_edge(col, n->windows[i].from_us);
        column_edge(col, n->windows[i].to_us);
    }
    int64_t to_us = to * SLOT_US;
    if (n->count == 0 || n->last_us <= from * SLOT_US) {
        return;
    }
    for (size_t i = overlap_begin(n, from * SLOT_US);
         i < n->count && n->bookings[i].from_us < to_us; i++) {
        const struct booking *b = &n->bookings[i];
        int64_t first = max_i64(slot_floor(b->from_us), from);
        int64_t last = min_i64(slot_ceil(b->to_us), to);
        for (int64_t slot = first; slot < last; slot++) {
            col->free[slot - from] &= ~b->mask;
        }
        column_edge(col, b->from_us);
        column_edge(col, b->to_us);
    }
}
