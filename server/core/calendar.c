/* calendar: nodes, groups and bookings; each change goes to the node's intervals first
 * and then, as a difference of two columns, to the index of its group.
 *
 * Invariants: a node that is set is in exactly one group; a booking has one entry in
 * the table and one in its node's list; a group's index, where there is one, says what
 * the nodes' intervals say. Does not decide conflicts: overlapping bookings are kept as
 * given (the database refuses them). */
#include "server/core/calendar.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"
#include "server/core/calendar_int.h"

/* ---- life ---- */

struct calendar *calendar_new(void)
{
    struct calendar *c = xcalloc(1, sizeof *c);
    table_init(c);
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
        index_free(c->groups[i].index);
        free(c->groups[i].nodes);
        free(c->groups[i].domain_at);
        free(c->groups[i].domains);
    }
    free(c->nodes);
    free(c->first_end_us);
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
        c->first_end_us =
            xreallocarray(c->first_end_us, (size_t)count, sizeof *c->first_end_us);
        memset(c->nodes + c->node_count, 0,
               (size_t)(count - c->node_count) * sizeof *c->nodes);
        for (int i = c->node_count; i < count; i++) {
            c->first_end_us[i] = CALENDAR_NEVER;
        }
        c->node_count = count;
    }
    return &c->nodes[id];
}

/* ---- groups ---- */

static int width_of(int gpus)
{
    return gpus <= 8 ? 1 : gpus <= 16 ? 2 : gpus <= 32 ? 4 : 8;
}

/* A node's run was `old` and is now `run`; -1: it was, or is, none of the group's. */
static void group_run(struct group *g, int old, int run)
{
    if (old >= 0) {
        g->run_count[old]--;
    }
    if (run >= 0) {
        g->run_count[run]++;
    }
    g->largest = run > g->largest ? run : g->largest;
    while (g->largest > 0 && g->run_count[g->largest] == 0) {
        g->largest--;
    }
}

static int group_domain(struct group *g, int id)
{
    size_t i = 0;
    while (i < g->domain_count && g->domains[i].id != id) {
        i++;
    }
    if (i == g->domain_count) {
        g->domains = xreallocarray(g->domains, ++g->domain_count, sizeof *g->domains);
        g->domains[i] = (struct group_domain){.id = id};
    }
    return (int)i;
}

/* The node at `pos` was as c->old says and is as c->new says, all along. */
static void group_change(struct calendar *c, struct group *g, int pos)
{
    index_change(c, g, pos, g->index->base, g->index->base + SLOTS);
}

static void column_now(const struct group *g, const struct node *n, struct column *col)
{
    node_column(n, g->index->base, g->index->base + SLOTS, col);
}

/* What a position says that holds no node. */
static void column_none(const struct group *g, struct column *col)
{
    static const struct node none;
    column_now(g, &none, col);
}

/* The last node of the group takes the place of the one that leaves. */
static void group_leave(struct calendar *c, struct node *n)
{
    struct group *g = &c->groups[n->group];
    int pos = n->group_at, last = (int)g->count - 1, moved = g->nodes[last];
    if (g->index != NULL) {
        column_now(g, n, &c->old);
        column_none(g, &c->new);
        group_change(c, g, pos);
    }
    if (g->index != NULL && last != pos) {
        column_now(g, &c->nodes[moved], &c->old);
        column_none(g, &c->new);
        group_change(c, g, last);
        column_none(g, &c->old);
        column_now(g, &c->nodes[moved], &c->new);
        group_change(c, g, pos);
    }
    g->domains[g->domain_at[pos]].nodes--;
    g->nodes[pos] = moved;
    g->domain_at[pos] = g->domain_at[last];
    c->nodes[moved].group_at = pos;
    g->count--;
    group_run(g, n->run, -1);
}

static void group_join(struct calendar *c, int id, struct node *n)
{
    n->group = group_make(c, n->site, n->model);
    struct group *g = &c->groups[n->group];
    if (g->count == g->cap) {
        g->cap = g->cap * 2 + 8;
        g->nodes = xreallocarray(g->nodes, g->cap, sizeof *g->nodes);
        g->domain_at = xreallocarray(g->domain_at, g->cap, sizeof *g->domain_at);
    }
    n->group_at = (int)g->count++;
    g->nodes[n->group_at] = id;
    g->domain_at[n->group_at] = group_domain(g, n->domain);
    g->domains[g->domain_at[n->group_at]].nodes++;
    group_run(g, -1, n->run);
    bool wider = width_of(n->gpus) > g->width;
    g->width = wider ? width_of(n->gpus) : g->width;
    bool fits = g->index != NULL && !wider && g->count <= INDEX_NODES_MAX &&
                g->count * (size_t)g->width <= g->index->stride;
    if (fits) {
        column_none(g, &c->old);
        column_now(g, n, &c->new);
        group_change(c, g, n->group_at);
    } else {
        index_build(c, g);
    }
}

/* ---- nodes ---- */

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
            copy[kept - 1].to_us = max_i64(w[i].to_us, copy[kept - 1].to_us);
        } else {
            copy[kept++] = w[i];
        }
    }
    free(n->windows);
    n->windows = copy;
    n->window_count = (uint32_t)kept;
}

static void set_offered(struct node *n, uint64_t offered)
{
    n->offered = offered & low_bits(n->gpus);
    n->run = run_longest(n->offered);
}

static bool is_same_node(const struct node *n, const struct calendar_node *from)
{
    if (!n->is_set || n->site != from->site || n->model != from->model ||
        n->domain != from->domain || n->gpus != from->gpus ||
        n->window_count != from->window_count) {
        return false;
    }
    for (size_t i = 0; i < n->window_count; i++) {
        if (n->windows[i].from_us != from->windows[i].from_us ||
            n->windows[i].to_us != from->windows[i].to_us) {
            return false;
        }
    }
    return true;
}

void calendar_set_node(struct calendar *c, int id, const struct calendar_node *from)
{
    assert(from->gpus >= 1 && from->gpus <= GPUS_PER_NODE_MAX);
    struct node *n = node_at(c, id);
    if (is_same_node(n, from)) {
        calendar_set_offered(c, id, from->offered);
        return;
    }
    if (n->is_set) {
        group_leave(c, n);
    }
    n->is_set = true;
    n->site = from->site;
    n->model = from->model;
    n->domain = from->domain;
    n->gpus = from->gpus;
    set_windows(n, from->windows, from->window_count);
    set_offered(n, from->offered);
    group_join(c, id, n);
}

void calendar_set_offered(struct calendar *c, int id, uint64_t offered)
{
    struct node *n = node_at(c, id);
    if (!n->is_set || n->offered == (offered & low_bits(n->gpus))) {
        return;
    }
    struct group *g = &c->groups[n->group];
    int run = n->run;
    if (g->index != NULL) {
        column_now(g, n, &c->old);
    }
    set_offered(n, offered);
    group_run(g, run, n->run);
    if (g->index != NULL) {
        column_now(g, n, &c->new);
        group_change(c, g, n->group_at);
    }
}

bool calendar_where(const struct calendar *c, int id, int *ret_site, int *ret_model,
                    int *ret_domain)
{
    if (id < 0 || id >= c->node_count || !c->nodes[id].is_set) {
        return false;
    }
    *ret_site = c->nodes[id].site;
    *ret_model = c->nodes[id].model;
    *ret_domain = c->nodes[id].domain;
    return true;
}

/* ---- bookings ---- */

/* The slots of a booking that the index of its node covers; false: none. */
struct touched {
    struct group *g;
    int64_t lo, hi;   /* slots that change */
    int64_t from, to; /* slots that the columns cover */
};

static bool touched_of(const struct calendar *c, const struct node *n,
                       const struct booking *b, struct touched *ret)
{
    if (!n->is_set || c->groups[n->group].index == NULL) {
        return false;
    }
    ret->g = &c->groups[n->group];
    int64_t base = ret->g->index->base, end = base + SLOTS;
    ret->lo = max_i64(slot_floor(b->from_us), base);
    ret->hi = min_i64(slot_ceil(b->to_us), end);
    ret->from = max_i64(ret->lo - SUMMARY_MAX + 1, base);
    ret->to = min_i64(ret->hi + SUMMARY_MAX - 1, end);
    return ret->lo < ret->hi;
}

/* The booking was added to the node, or removed from it. The column without it is that
 * with it but for its own GPUs, unless another booking overlaps it: so the one without
 * is read from the intervals, and its GPUs are taken away. */
static void column_take(const struct booking *b, const struct touched *t,
                        struct column *without, struct column *with)
{
    size_t count = (size_t)(without->to - without->from);
    with->from = without->from;
    with->to = without->to;
    memcpy(with->free, without->free, count * sizeof with->free[0]);
    memcpy(with->edge, without->edge, count * sizeof with->edge[0]);
    for (int64_t slot = t->lo; slot < t->hi; slot++) {
        with->free[slot - with->from] &= ~b->mask;
    }
    int64_t cuts_us[] = {b->from_us, b->to_us};
    for (int i = 0; i < 2; i++) {
        int64_t slot = slot_floor(cuts_us[i]);
        if (cuts_us[i] % SLOT_US != 0 && slot >= t->lo && slot < t->hi) {
            with->edge[slot - with->from] = true;
        }
    }
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
    struct booking b = {booking, from_us, to_us, low_bits(count) << first};
    struct touched t;
    if (touched_of(c, n, &b, &t)) {
        node_column(n, t.from, t.to, &c->old);
        column_take(&b, &t, &c->old, &c->new);
        index_change(c, t.g, n->group_at, t.lo, t.hi);
    }
    node_insert(n, &b);
    c->first_end_us[node] = min_i64(c->first_end_us[node], to_us);
    table_add(c, booking, node);
}

void calendar_release(struct calendar *c, int64_t booking)
{
    struct place place;
    struct touched t;
    if (!table_find(c, booking, &place)) {
        return;
    }
    struct node *n = &c->nodes[place.node];
    struct booking b = node_remove(n, place.at);
    table_remove(c, place.entry);
    if (touched_of(c, n, &b, &t)) {
        node_column(n, t.from, t.to, &c->new);
        column_take(&b, &t, &c->new, &c->old);
        index_change(c, t.g, n->group_at, t.lo, t.hi);
    }
}

/* Their slots are over: the index need not hear of them, except of those in the slots
 * since its base, which nobody asks for any more but which have to agree. */
static void node_expire(struct calendar *c, int id, int64_t now_us)
{
    struct node *n = &c->nodes[id];
    int64_t first_end_us = CALENDAR_NEVER;
    for (size_t i = 0; i < n->count;) {
        if (n->bookings[i].to_us <= now_us) {
            calendar_release(c, n->bookings[i].id);
        } else {
            first_end_us = min_i64(first_end_us, n->bookings[i++].to_us);
        }
    }
    n->longest_us = 0;
    for (size_t i = 0; i < n->count; i++) {
        n->longest_us = max_i64(
            n->longest_us, length_us(n->bookings[i].from_us, n->bookings[i].to_us));
    }
    c->first_end_us[id] = first_end_us;
}

void calendar_expire(struct calendar *c, int64_t now_us)
{
    int64_t base = slot_floor(now_us);
    base -= (int64_t)(slot_ring(base) % BLOCK_MAX);
    if (!c->has_base || base >= c->base) {
        index_move(c, base);
    }
    for (int i = 0; i < c->node_count; i++) {
        if (c->first_end_us[i] <= now_us) {
            node_expire(c, i, now_us);
        }
    }
}

size_t calendar_booking_count(const struct calendar *c)
{
    return c->entry_count;
}

/* ---- questions ---- */

uint64_t calendar_free_mask(const struct calendar *c, int node, int64_t from_us,
                            int64_t to_us)
{
    return node >= 0 && node < c->node_count
               ? node_free(&c->nodes[node], from_us, to_us)
               : 0;
}

int calendar_pick(uint64_t mask, int count)
{
    int len;
    return count < 1 || count > 64 ? -1 : run_pick(mask, count, &len);
}

/* Starts before, within and behind what the index covers, in this order. */
static bool search(const struct search *s, struct calendar_slot *ret)
{
    const struct calendar_query *q = s->q;
    if (s->g->index == NULL) {
        return scan_find(s, q->from_us, q->latest_us, ret);
    }
    int64_t base_us = s->g->index->base * SLOT_US, end_us = base_us + SLOTS * SLOT_US;
    int64_t from_us = max_i64(q->from_us, base_us);
    int64_t latest_us = min_i64(q->latest_us, end_us - 1);
    return (q->from_us < base_us &&
            scan_find(s, q->from_us, min_i64(q->latest_us, base_us - 1), ret)) ||
           (from_us <= latest_us && index_find(s, from_us, latest_us, ret)) ||
           (q->latest_us >= end_us &&
            scan_find(s, max_i64(q->from_us, end_us), q->latest_us, ret));
}

/* Nodes whose offered GPUs hold such a run. */
static bool has_nodes(const struct group *g, int run, int nodes)
{
    for (int i = g->largest; i >= run && nodes > 0; i--) {
        nodes -= g->run_count[i];
    }
    return nodes <= 0;
}

static bool search_begin(const struct calendar *c, const struct calendar_query *q,
                         struct search *s)
{
    s->c = c;
    s->q = q;
    s->g = group_get(c, q->site, q->model);
    return s->g != NULL && q->gpus >= 1 && q->gpus <= s->g->largest && q->len_us > 0 &&
           q->from_us <= q->latest_us;
}

bool calendar_find(const struct calendar *c, const struct calendar_query *q,
                   struct calendar_slot *ret)
{
    struct search s = {.nodes = 1};
    return search_begin(c, q, &s) && search(&s, ret);
}

bool calendar_find_gang(const struct calendar *c, const struct calendar_gang *g,
                        struct calendar_slot *ret)
{
    struct search s = {.nodes = g->nodes, .one_domain = g->one_domain};
    return g->nodes >= 1 && g->nodes <= GANG_NODES_MAX &&
           search_begin(c, &g->query, &s) && has_nodes(s.g, g->query.gpus, g->nodes) &&
           search(&s, ret);
}

void calendar_capacity(const struct calendar *c, int site, int model, int64_t from_us,
                       int64_t to_us, int *ret_best_node, int *ret_total)
{
    struct calendar_step step = {0, 0};
    const struct group *g = group_get(c, site, model);
    if (g != NULL && from_us < to_us) {
        int64_t slot = slot_floor(from_us);
        bool indexed =
            g->index != NULL && slot >= g->index->base && slot < g->index->base + SLOTS;
        step = indexed ? index_capacity(c, g, from_us, to_us)
                       : scan_capacity(c, g, from_us, to_us);
    }
    *ret_best_node = step.best_node;
    *ret_total = step.total;
}

void calendar_series(const struct calendar *c, int site, int model, int64_t from_us,
                     int64_t step_us, size_t count, struct calendar_step *ret)
{
    for (size_t i = 0; i < count; i++) {
        int64_t to_us = add_capped(from_us, step_us);
        calendar_capacity(c, site, model, from_us, to_us, &ret[i].best_node,
                          &ret[i].total);
        from_us = to_us;
    }
}

int calendar_largest(const struct calendar *c, int site, int model)
{
    const struct group *g = group_get(c, site, model);
    return g == NULL ? 0 : g->largest;
}

size_t calendar_bytes(const struct calendar *c)
{
    size_t bytes = sizeof *c + c->entry_size * sizeof *c->entries +
                   c->group_table_size * sizeof *c->group_table +
                   c->group_cap * sizeof *c->groups +
                   (size_t)c->node_count * (sizeof *c->nodes + sizeof(int64_t));
    for (int i = 0; i < c->node_count; i++) {
        bytes += c->nodes[i].cap * sizeof(struct booking) +
                 c->nodes[i].window_count * sizeof(struct calendar_span);
    }
    for (size_t i = 0; i < c->group_count; i++) {
        const struct group *g = &c->groups[i];
        bytes += g->cap * (sizeof *g->nodes + sizeof *g->domain_at) +
                 g->domain_count * sizeof *g->domains +
                 (g->index != NULL ? sizeof *g->index + g->index->bytes : 0);
    }
    return bytes;
}
