/* model_calendar: the calendar against plain lists of bookings, on random operations.
 * The lists know no slots, no bit tricks and no jumps: each start that can be the first
 * (the begin of the range, an end of a booking, the begin of a window) is tried on each
 * node. Worlds of different shapes follow each other: all within one slot, starts at
 * the edges of slots and 1 us beside, far beyond what is indexed, nodes of 64 GPUs,
 * groups of more nodes than a word has bits; time moves on in each.
 *
 * Usage: model_calendar [SEED [OPERATIONS]]; SEED may come from NEARGPU_SEED. Prints
 * the seed; exit 1 with the operation at the first difference. */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "server/core/calendar.h"

#define NODES       160
#define IDS         900
#define PER_NODE    40 /* bookings */
#define WINDOWS_MAX 3
#define STARTS_MAX  (NODES * (PER_NODE + WINDOWS_MAX) + 1)
#define GANG_MAX    20

#define MINUTE INT64_C(60000000)
#define SLOT   (15 * MINUTE)
#define HOUR   (60 * MINUTE)
#define DAY    (24 * HOUR)

struct shape {
    int nodes, sites, models, domains, ids, life; /* life: operations */
    int64_t unit_us;
    int span, len; /* units: of starts, of lengths */
    int sizes[8];
};
static const struct shape shapes[] = {
    {12, 1, 2, 2, 120, 2500, 1, 120, 25, {1, 2, 4, 8, 8, 8, 8, 6}},
    {14, 2, 1, 2, 200, 4000, 5 * MINUTE, 100, 40, {8, 8, 8, 8, 8, 4, 2, 1}},
    {12, 1, 1, 3, 300, 4000, SLOT, 1400, 100, {8, 8, 8, 8, 8, 8, 8, 4}},
    {12, 1, 2, 2, 150, 3000, SLOT, 200, 60, {16, 16, 12, 9, 8, 32, 64, 64}},
    {10, 1, 1, 2, 100, 2500, 6 * HOUR, 160, 30, {8, 8, 8, 8, 8, 64, 2, 1}},
    {11, 1, 1, 2, 250, 3000, HOUR / 2, 700, 500, {64, 64, 64, 64, 48, 33, 32, 8}},
    {150, 1, 1, 5, 900, 1500, SLOT, 60, 12, {8, 8, 8, 8, 8, 8, 8, 4}},
    {140, 1, 1, 9, 700, 700, 7 * MINUTE, 60, 30, {8, 8, 8, 8, 16, 16, 8, 4}},
};
#define SHAPES (sizeof shapes / sizeof shapes[0])

struct model_booking {
    int64_t id;
    int first, count;
    int64_t from, to;
};
struct model_node {
    bool is_set;
    int site, model, domain, gpus, window_count, booking_count;
    uint64_t offered;
    struct calendar_span windows[WINDOWS_MAX];
    struct model_booking bookings[PER_NODE];
};

static struct model_node nodes[NODES];
static int owner[IDS]; /* node of a booking, -1: not booked */
static int booking_count;
static const struct shape *shape;
static int64_t now_us;
static uint64_t seed, rng_state, operation, found, missed, gangs;

static void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "seed %" PRIu64 " operation %" PRIu64 " shape %d: ", seed,
            operation, (int)(shape - shapes));
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    exit(EXIT_FAILURE);
}

/* xorshift64* (Marsaglia, Vigna): the same numbers on every machine. */
static uint64_t rng(void)
{
    rng_state ^= rng_state >> 12;
    rng_state ^= rng_state << 25;
    rng_state ^= rng_state >> 27;
    return rng_state * UINT64_C(2685821657736338717);
}

static int below(int n)
{
    return (int)((rng() >> 33) % (uint64_t)n);
}

/* Often at the edge of a unit, often beside it. */
static int64_t jitter(int64_t us)
{
    switch (below(8)) {
    case 0: return us - 1;
    case 1: return us + 1;
    case 2: return us + (int64_t)(rng() % (uint64_t)shape->unit_us);
    default: return us;
    }
}

/* From shortly before the present on; sometimes very far. */
static int64_t random_time(void)
{
    if (below(300) == 0) {
        return now_us + below(400) * DAY;
    }
    int64_t begin = now_us - now_us % shape->unit_us;
    return jitter(begin + (below(shape->span) - shape->span / 10) * shape->unit_us);
}

static int64_t random_len(void)
{
    int64_t len = below(below(2) == 0 ? shape->len : shape->len / 4 + 1);
    return below(3) == 0 ? jitter(len * shape->unit_us) : len * shape->unit_us;
}

/* ---- the naive side ---- */

static bool model_in_window(const struct model_node *n, int64_t from, int64_t to)
{
    int64_t until = from; /* what the windows up to here join to */
    for (int i = 0; i < n->window_count; i++) {
        if (n->windows[i].from_us <= until && n->windows[i].to_us > until) {
            until = n->windows[i].to_us;
        }
    }
    return n->window_count == 0 || until >= to;
}

static uint64_t model_free(int node, int64_t from, int64_t to)
{
    const struct model_node *n = &nodes[node];
    if (!n->is_set || from >= to || !model_in_window(n, from, to)) {
        return 0;
    }
    uint64_t busy = 0;
    for (int i = 0; i < n->booking_count; i++) {
        const struct model_booking *b = &n->bookings[i];
        if (b->from < to && from < b->to) {
            for (int g = b->first; g < b->first + b->count; g++) {
                busy |= UINT64_C(1) << g;
            }
        }
    }
    uint64_t all = n->gpus == 64 ? UINT64_MAX : (UINT64_C(1) << n->gpus) - 1;
    return n->offered & all & ~busy;
}

/* Shortest run of at least count; -1 when there is none. */
static int model_pick(uint64_t mask, int count, int *ret_len)
{
    int best = -1, best_len = 65, first = 0;
    for (int g = 0; first < 64 && mask >> first != 0; g++) {
        if (g < 64 && (mask >> g & 1) != 0) {
            continue;
        }
        int len = g - first;
        if (len >= count && len < best_len && len > 0) {
            best = first;
            best_len = len;
        }
        first = g + 1;
    }
    *ret_len = best_len;
    return best;
}

static bool is_asked(const struct calendar_query *q, int id)
{
    const struct model_node *n = &nodes[id];
    return n->is_set && n->site == q->site && n->model == q->model &&
           (q->skip == NULL || !q->skip(q->skip_arg, id));
}

static int by_time(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Sorted: any earliest start is one of these. */
static int model_starts(const struct calendar_query *q, int64_t *starts)
{
    int count = 0;
    starts[count++] = q->from_us;
    for (int id = 0; id < shape->nodes; id++) {
        const struct model_node *n = &nodes[id];
        if (!is_asked(q, id)) {
            continue;
        }
        for (int i = 0; i < n->booking_count + n->window_count; i++) {
            int64_t at = i < n->booking_count
                             ? n->bookings[i].to
                             : n->windows[i - n->booking_count].from_us;
            if (at > q->from_us && at <= q->latest_us) {
                starts[count++] = at;
            }
        }
    }
    qsort(starts, (size_t)count, sizeof *starts, by_time);
    return count;
}

static bool model_find(const struct calendar_query *q, struct calendar_slot *ret)
{
    static int64_t starts[STARTS_MAX];
    if (q->latest_us < q->from_us) {
        return false;
    }
    int count = model_starts(q, starts);
    for (int i = 0; i < count; i++) {
        int best = -1, best_first = 0, best_len = 0;
        for (int id = 0; id < shape->nodes; id++) {
            int len, first;
            if (!is_asked(q, id)) {
                continue;
            }
            first = model_pick(model_free(id, starts[i], starts[i] + q->len_us),
                               q->gpus, &len);
            if (first >= 0 && (best < 0 || len < best_len ||
                               (len == best_len && ((uint32_t)id ^ q->spread) <
                                                       ((uint32_t)best ^ q->spread)))) {
                best = id;
                best_first = first;
                best_len = len;
            }
        }
        if (best >= 0) {
            *ret = (struct calendar_slot){best, best_first, starts[i]};
            return true;
        }
    }
    return false;
}

/* The earliest start of a gang, INT64_MIN: there is none. */
static int64_t model_gang(const struct calendar_gang *g)
{
    static int64_t starts[STARTS_MAX];
    const struct calendar_query *q = &g->query;
    int count = q->latest_us < q->from_us ? 0 : model_starts(q, starts);
    for (int i = 0; i < count; i++) {
        int free_nodes[16] = {0};
        for (int id = 0; id < shape->nodes; id++) {
            int len;
            if (is_asked(q, id) &&
                model_pick(model_free(id, starts[i], starts[i] + q->len_us), q->gpus,
                           &len) >= 0) {
                free_nodes[g->one_domain ? nodes[id].domain : 0]++;
            }
        }
        for (int d = 0; d < 16; d++) {
            if (free_nodes[d] >= g->nodes) {
                return starts[i];
            }
        }
    }
    return INT64_MIN;
}

static void model_forget(int id)
{
    if (owner[id] < 0) {
        return;
    }
    struct model_node *n = &nodes[owner[id]];
    for (int i = 0; i < n->booking_count; i++) {
        if (n->bookings[i].id == id) {
            n->bookings[i] = n->bookings[--n->booking_count];
        }
    }
    owner[id] = -1;
    booking_count--;
}

/* ---- operations that change ---- */

static uint64_t random_offered(void)
{
    return below(3) == 0 ? rng() | rng() : UINT64_MAX;
}

static void op_set_node(struct calendar *c, int id)
{
    struct model_node *n = &nodes[id];
    n->is_set = true;
    n->site = below(shape->sites);
    n->model = below(shape->models);
    n->domain = below(shape->domains);
    n->gpus = shape->sizes[below(8)];
    n->offered = random_offered();
    n->window_count = 0;
    if (below(5) == 0) {
        int64_t at = now_us - now_us % shape->unit_us - below(10) * shape->unit_us;
        n->window_count = 1 + below(WINDOWS_MAX);
        for (int i = 0; i < n->window_count; i++) {
            n->windows[i].from_us = at;
            at = jitter(at + (2 + below(shape->span / 2)) * shape->unit_us);
            n->windows[i].to_us = at;
            at += below(3) * below(20) * shape->unit_us; /* often touching the next */
        }
    }
    struct calendar_node arg = {.site = n->site,
                                .model = n->model,
                                .domain = n->domain,
                                .gpus = n->gpus,
                                .offered = n->offered,
                                .windows = n->windows,
                                .window_count = (size_t)n->window_count};
    calendar_set_node(c, id, &arg);
}

static void op_book(struct calendar *c)
{
    int id = below(shape->ids), node = below(shape->nodes);
    struct model_node *n = &nodes[node];
    if (n->booking_count == PER_NODE) {
        return;
    }
    int gpus = n->is_set ? n->gpus : 8;
    struct model_booking b = {.id = id, .from = random_time()};
    if (owner[id] >= 0 && below(3) == 0) { /* extend or shorten it */
        node = owner[id];
        n = &nodes[node];
        for (int i = 0; i < n->booking_count; i++) {
            b = n->bookings[i].id == id ? n->bookings[i] : b;
        }
    } else {
        b.first = below(gpus);
        b.count = 1 + below(gpus - b.first);
    }
    b.to = b.from + random_len();
    model_forget(id);
    if (b.to > b.from) {
        n->bookings[n->booking_count++] = b;
        owner[id] = node;
        booking_count++;
    }
    calendar_book(c, id - 100, node, b.first, b.count, b.from, b.to);
}

static void op_release(struct calendar *c)
{
    int id = below(shape->ids);
    model_forget(id);
    calendar_release(c, id - 100);
}

static void op_offered(struct calendar *c)
{
    int id = below(shape->nodes);
    uint64_t offered = below(6) == 0 ? 0 : random_offered();
    nodes[id].offered = offered;
    calendar_set_offered(c, id, offered);
}

static void op_expire(struct calendar *c)
{
    int far = below(60);
    if (far == 0) {
        now_us += below(20) * DAY;
    } else {
        now_us += (int64_t)(rng() % (uint64_t)(shape->unit_us * shape->span / 30 + 1));
    }
    for (int id = 0; id < shape->ids; id++) {
        const struct model_node *n = owner[id] < 0 ? NULL : &nodes[owner[id]];
        for (int i = 0; n != NULL && i < n->booking_count; i++) {
            if (n->bookings[i].id == id && n->bookings[i].to <= now_us) {
                model_forget(id);
                break;
            }
        }
    }
    calendar_expire(c, now_us);
}

/* ---- operations that ask ---- */

static void op_mask(const struct calendar *c)
{
    int node = below(shape->nodes + 2);
    int64_t from = random_time(), to = from + random_len();
    uint64_t want = node < shape->nodes ? model_free(node, from, to) : 0;
    uint64_t got = calendar_free_mask(c, node, from, to);
    if (got != want) {
        fail("free_mask node %d [%" PRId64 ",%" PRId64 "): %" PRIx64
             ", list says %" PRIx64,
             node, from, to, got, want);
    }
    int count = 1 + below(9), len;
    int first = model_pick(want, count, &len);
    if (calendar_pick(want, count) != first) {
        fail("pick %" PRIx64 " %d: %d, list says %d", want, count,
             calendar_pick(want, count), first);
    }
}

static bool skip_node(void *arg, int node)
{
    return (*(uint64_t *)arg >> (node % 64) & 1) != 0;
}

static struct calendar_query random_query(uint64_t *skipped)
{
    int size = shape->sizes[below(8)];
    *skipped = rng() & rng();
    struct calendar_query q = {.site = below(shape->sites),
                               .model = below(shape->models),
                               .gpus = below(2) == 0 ? size : 1 + below(size),
                               .from_us = random_time(),
                               .len_us = random_len(),
                               .spread = (uint32_t)(rng() >> 32) & 255};
    q.latest_us = q.from_us;
    if (below(3) != 0) {
        q.latest_us = jitter(q.from_us + below(shape->span) * shape->unit_us);
    }
    if (below(4) == 0) {
        q.skip = skip_node;
        q.skip_arg = skipped;
    }
    return q;
}

static void op_find(const struct calendar *c)
{
    uint64_t skipped;
    struct calendar_query q = random_query(&skipped);
    struct calendar_slot got = {-1, -1, -1}, want = {-1, -1, -1};
    bool has = calendar_find(c, &q, &got);
    bool should = q.len_us > 0 && model_find(&q, &want);
    if (has != should || got.node != want.node || got.first != want.first ||
        got.start_us != want.start_us) {
        fail("now %" PRId64 " find site %d model %d gpus %d [%" PRId64 ",%" PRId64
             "] len %" PRId64 " spread %u: %d (node %d first %d start %" PRId64
             "), list says %d (node %d first %d start %" PRId64 ")",
             now_us, q.site, q.model, q.gpus, q.from_us, q.latest_us, q.len_us,
             q.spread, has, got.node, got.first, got.start_us, should, want.node,
             want.first, want.start_us);
    }
    found += has;
    missed += !has;
}

/* Which nodes a gang gets is the calendar's; that they are right is checked. */
static void gang_check(const struct calendar_gang *g, const struct calendar_slot *got,
                       int64_t start_us)
{
    const struct calendar_query *q = &g->query;
    for (int i = 0; i < g->nodes; i++) {
        int len, node = got[i].node;
        if (node < 0 || node >= shape->nodes || !is_asked(q, node) ||
            got[i].start_us != start_us ||
            (g->one_domain && nodes[node].domain != nodes[got[0].node].domain) ||
            model_pick(model_free(node, start_us, start_us + q->len_us), q->gpus,
                       &len) != got[i].first) {
            fail("gang %d of %d gpus: node %d first %d at %" PRId64
                 " is not right, start %" PRId64,
                 g->nodes, q->gpus, node, got[i].first, got[i].start_us, start_us);
        }
        for (int k = 0; k < i; k++) {
            if (got[k].node == node) {
                fail("gang: node %d twice", node);
            }
        }
    }
}

static void op_gang(const struct calendar *c)
{
    uint64_t skipped;
    struct calendar_gang g = {.query = random_query(&skipped),
                              .nodes = 1 + below(below(3) == 0 ? GANG_MAX : 4),
                              .one_domain = below(2) == 0};
    struct calendar_slot got[GANG_MAX];
    bool has = calendar_find_gang(c, &g, got);
    int64_t start_us = g.query.len_us > 0 ? model_gang(&g) : INT64_MIN;
    if (has != (start_us != INT64_MIN) || (has && got[0].start_us != start_us)) {
        fail("now %" PRId64 " gang of %d nodes, one domain %d, gpus %d [%" PRId64
             ",%" PRId64 "] len %" PRId64 ": %d at %" PRId64 ", list says %" PRId64,
             now_us, g.nodes, g.one_domain, g.query.gpus, g.query.from_us,
             g.query.latest_us, g.query.len_us, has, has ? got[0].start_us : 0,
             start_us);
    }
    if (has) {
        gang_check(&g, got, start_us);
        gangs++;
    }
}

static struct calendar_step model_capacity(int site, int model, int64_t from,
                                           int64_t to)
{
    struct calendar_step step = {0, 0};
    for (int id = 0; id < shape->nodes; id++) {
        const struct model_node *n = &nodes[id];
        if (!n->is_set || n->site != site || n->model != model) {
            continue;
        }
        uint64_t mask = model_free(id, from, to);
        step.total += __builtin_popcountll(mask);
        for (int count = 1, len; count <= n->gpus; count++) {
            if (model_pick(mask, count, &len) >= 0 && count > step.best_node) {
                step.best_node = count;
            }
        }
    }
    return step;
}

static void op_capacity(const struct calendar *c)
{
    int site = below(shape->sites), model = below(shape->models), want_largest = 0;
    int64_t from = random_time(), step_us = random_len();
    struct calendar_step steps[3];
    calendar_series(c, site, model, from, step_us, 3, steps);
    for (int i = 0; i < 3; i++) {
        struct calendar_step want =
            model_capacity(site, model, from + i * step_us, from + (i + 1) * step_us);
        if (steps[i].best_node != want.best_node || steps[i].total != want.total) {
            fail("capacity from %" PRId64 " step %" PRId64
                 " number %d: %d %d, list says %d %d",
                 from, step_us, i, steps[i].best_node, steps[i].total, want.best_node,
                 want.total);
        }
    }
    for (int id = 0; id < shape->nodes; id++) {
        const struct model_node *n = &nodes[id];
        uint64_t all = n->gpus == 64 ? UINT64_MAX : (UINT64_C(1) << n->gpus) - 1;
        for (int count = 1, len; n->is_set && count <= n->gpus; count++) {
            if (n->site == site && n->model == model && count > want_largest &&
                model_pick(n->offered & all, count, &len) >= 0) {
                want_largest = count;
            }
        }
    }
    if (calendar_largest(c, site, model) != want_largest) {
        fail("largest %d, list says %d", calendar_largest(c, site, model),
             want_largest);
    }
}

static void step(struct calendar *c)
{
    int dice = below(100);
    if (dice < 42) {
        op_book(c);
    } else if (dice < 46) {
        op_release(c);
    } else if (dice < 47) {
        op_set_node(c, below(shape->nodes));
    } else if (dice < 49) {
        op_offered(c);
    } else if (dice < 50) {
        op_expire(c);
    } else if (dice < 62) {
        op_mask(c);
    } else if (dice < 84) {
        op_find(c);
    } else if (dice < 95) {
        op_gang(c);
    } else {
        op_capacity(c);
    }
    if (calendar_booking_count(c) != (size_t)booking_count) {
        fail("%zu bookings, list has %d", calendar_booking_count(c), booking_count);
    }
}

static struct calendar *new_world(const struct shape *next)
{
    struct calendar *c = calendar_new();
    shape = next;
    memset(nodes, 0, sizeof nodes);
    for (int id = 0; id < IDS; id++) {
        owner[id] = -1;
    }
    booking_count = 0;
    now_us = (int64_t)(rng() % (uint64_t)(100 * DAY)) - 50 * DAY;
    for (int id = 0; id < shape->nodes; id++) {
        if (below(8) != 0) {
            op_set_node(c, id);
        }
    }
    return c;
}

int main(int argc, char **argv)
{
    const char *text = argc > 1 ? argv[1] : getenv("NEARGPU_SEED");
    uint64_t operations = argc > 2 ? strtoull(argv[2], NULL, 10) : 1000000;
    seed = text != NULL ? strtoull(text, NULL, 10)
                        : (uint64_t)time(NULL) * UINT64_C(0x9e3779b97f4a7c15) >> 16;
    rng_state = seed * 2 + 1;
    printf("seed %" PRIu64 "\n", seed);
    fflush(stdout);
    struct calendar *c = NULL;
    uint64_t until = 0, worlds = 0;
    for (operation = 0; operation < operations; operation++) {
        if (operation == until) {
            calendar_free(c);
            c = new_world(&shapes[worlds++ % SHAPES]);
            until += (uint64_t)shape->life;
        }
        step(c);
    }
    calendar_free(c);
    printf("%" PRIu64 " operations in %" PRIu64 " worlds, %" PRIu64 " found, %" PRIu64
           " not found, %" PRIu64 " gangs, 0 differences\n",
           operations, worlds, found, missed, gangs);
    if (operations >= 100000 && (found < 1000 || missed < 1000 || gangs < 1000)) {
        fail("the mix of operations tests too little");
    }
    return EXIT_SUCCESS;
}
