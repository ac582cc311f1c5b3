/* room: per node a sorted list of changes. One sweep over it yields the intervals of
 * starts at which a job fits; the earliest instant that lies in enough nodes' intervals
 * is the start. */
#include "server/sim/room.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"

struct change {
    int64_t at_us;
    int gpus; /* > 0: taken, < 0: given back */
};
struct node_room {
    int used; /* before the first change */
    struct change *changes;
    int count, cap;
};
/* A node on which a job may start at any instant of [lo, hi]. */
struct span {
    int64_t lo_us, hi_us;
    int node, free; /* free: of the node at lo */
};
struct room {
    const struct sim_world *w;
    struct node_room *nodes;
    int *members; /* node numbers by place; place p: [begin[p], begin[p + 1]) */
    int *begin;
    struct span *spans; /* scratch */
    int span_count, span_cap;
};

struct room *room_new(const struct sim_world *w)
{
    struct room *r = xcalloc(1, sizeof *r);
    int places = w->sites.count * w->models.count;
    r->w = w;
    r->nodes = xcalloc(w->node_count + 1, sizeof *r->nodes);
    r->members = xcalloc(w->node_count + 1, sizeof *r->members);
    r->begin = xcalloc((size_t)places + 2, sizeof *r->begin);
    /* Counting sort: begin[p + 1] is the fill mark of place p and ends as its end. */
    for (size_t i = 0; i < w->node_count; i++) {
        r->begin[w->nodes[i].site * w->models.count + w->nodes[i].model + 2]++;
    }
    for (int p = 2; p <= places + 1; p++) {
        r->begin[p] += r->begin[p - 1];
    }
    for (size_t i = 0; i < w->node_count; i++) {
        int p = w->nodes[i].site * w->models.count + w->nodes[i].model;
        r->members[r->begin[p + 1]++] = (int)i;
    }
    return r;
}

void room_free(struct room *r)
{
    if (r == NULL) {
        return;
    }
    for (size_t i = 0; i < r->w->node_count; i++) {
        free(r->nodes[i].changes);
    }
    free(r->nodes);
    free(r->members);
    free(r->begin);
    free(r->spans);
    free(r);
}

/* Changes of one instant are one entry: an end and a start there cancel out. */
static void add_change(struct node_room *n, int64_t at_us, int gpus)
{
    int at = n->count;
    while (at > 0 && n->changes[at - 1].at_us >= at_us) {
        at--;
    }
    if (at < n->count && n->changes[at].at_us == at_us) {
        n->changes[at].gpus += gpus;
        return;
    }
    if (n->count == n->cap) {
        n->cap = n->cap == 0 ? 16 : n->cap * 2;
        n->changes = xreallocarray(n->changes, (size_t)n->cap, sizeof *n->changes);
    }
    memmove(&n->changes[at + 1], &n->changes[at],
            (size_t)(n->count - at) * sizeof *n->changes);
    n->changes[at] = (struct change){at_us, gpus};
    n->count++;
}

void room_take(struct room *r, int node, int gpus, int64_t from_us, int64_t to_us)
{
    if (from_us < to_us) {
        add_change(&r->nodes[node], from_us, gpus);
        add_change(&r->nodes[node], to_us, -gpus);
    }
}

void room_forget(struct room *r, int node, int64_t now_us)
{
    struct node_room *n = &r->nodes[node];
    int past = 0;
    while (past < n->count && n->changes[past].at_us <= now_us) {
        n->used += n->changes[past++].gpus;
    }
    if (past > 0) {
        n->count -= past;
        memmove(n->changes, n->changes + past, (size_t)n->count * sizeof *n->changes);
    }
}

static void add_span(struct room *r, struct span span)
{
    if (r->span_count == r->span_cap) {
        r->span_cap = r->span_cap == 0 ? 256 : r->span_cap * 2;
        r->spans = xreallocarray(r->spans, (size_t)r->span_cap, sizeof *r->spans);
    }
    r->spans[r->span_count++] = span;
}

/* A span that reaches so far need not be followed on. */
static int64_t enough_us(const struct room_query *q, int64_t since_us)
{
    return q->nodes == 1 ? since_us : q->latest_us;
}

/* Adds the spans of starts on one node: there is room from `since` until the next
 * change that takes too much. One node alone needs no more than its first span. */
static void sweep(struct room *r, int node, const struct room_query *q)
{
    const struct node_room *n = &r->nodes[node];
    int limit = r->w->nodes[node].gpus - q->gpus;
    int used = n->used, used_since = 0;
    int64_t since_us = q->from_us;
    bool is_open = false;
    if (limit < 0) {
        return;
    }
    int i = 0;
    for (; i < n->count && n->changes[i].at_us <= q->from_us; i++) {
        used += n->changes[i].gpus;
    }
    for (;; i++) {
        if (used <= limit && !is_open) {
            is_open = true;
            used_since = used;
        } else if (used > limit && is_open) {
            int64_t hi_us = n->changes[i - 1].at_us - q->len_us;
            is_open = false;
            if (hi_us >= since_us) {
                int free_gpus = r->w->nodes[node].gpus - used_since;
                add_span(r, (struct span){since_us, hi_us, node, free_gpus});
                if (q->nodes == 1) {
                    return;
                }
            }
        }
        if (i == n->count || (!is_open && n->changes[i].at_us > q->latest_us) ||
            (is_open && n->changes[i].at_us - q->len_us >= enough_us(q, since_us))) {
            break;
        }
        since_us = is_open ? since_us : n->changes[i].at_us;
        used += n->changes[i].gpus;
    }
    if (is_open && since_us <= q->latest_us) {
        int free_gpus = r->w->nodes[node].gpus - used_since;
        add_span(r, (struct span){since_us, INT64_MAX, node, free_gpus});
    }
}

static int compare_lo(const void *pa, const void *pb)
{
    const struct span *a = pa, *b = pb;
    return (a->lo_us > b->lo_us) - (a->lo_us < b->lo_us);
}

/* Earliest instant within `nodes` spans; spans of one node do not overlap. */
static bool earliest(struct room *r, const struct room_query *q, int64_t *ret_us)
{
    if (q->nodes == 1) {
        int64_t best_us = INT64_MAX;
        for (int i = 0; i < r->span_count; i++) {
            best_us = r->spans[i].lo_us < best_us ? r->spans[i].lo_us : best_us;
        }
        *ret_us = best_us;
        return best_us <= q->latest_us;
    }
    qsort(r->spans, (size_t)r->span_count, sizeof *r->spans, compare_lo);
    for (int i = 0; i < r->span_count; i++) {
        /* The earliest start is where some span begins. */
        int64_t at_us = r->spans[i].lo_us;
        int have = 0;
        for (int k = 0; k < r->span_count && r->spans[k].lo_us <= at_us; k++) {
            have += r->spans[k].hi_us >= at_us;
        }
        if (have >= q->nodes) {
            *ret_us = at_us;
            return at_us <= q->latest_us;
        }
    }
    return false;
}

static int compare_fit(const void *pa, const void *pb, void *arg)
{
    const struct span *a = pa, *b = pb;
    uint32_t spread = *(const uint32_t *)arg;
    if (a->free != b->free) {
        return a->free < b->free ? -1 : 1;
    }
    uint32_t ka = (uint32_t)a->node ^ spread, kb = (uint32_t)b->node ^ spread;
    return (ka > kb) - (ka < kb);
}

bool room_find(struct room *r, const struct room_query *q, int64_t *ret_start_us,
               int *ret_nodes)
{
    int place = q->site * r->w->models.count + q->model;
    uint32_t spread = q->spread;
    r->span_count = 0;
    for (int k = r->begin[place]; k < r->begin[place + 1]; k++) {
        sweep(r, r->members[k], q);
    }
    if (r->span_count == 0 || !earliest(r, q, ret_start_us)) {
        return false;
    }
    int fitting = 0;
    for (int i = 0; i < r->span_count; i++) {
        if (r->spans[i].lo_us <= *ret_start_us && r->spans[i].hi_us >= *ret_start_us) {
            r->spans[fitting++] = r->spans[i];
        }
    }
    assert(fitting >= q->nodes);
    qsort_r(r->spans, (size_t)fitting, sizeof *r->spans, compare_fit, &spread);
    for (int i = 0; i < q->nodes; i++) {
        ret_nodes[i] = r->spans[i].node;
    }
    return true;
}
