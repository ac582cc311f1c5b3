/* model_calendar: the calendar against a plain list of bookings, on random operations.
 * Times are small integers, so that ends meet starts all the time; the model asks every
 * instant and every start, and knows no bit tricks.
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

#define NODES        12
#define SITES        2
#define MODELS       2
#define BOOKINGS_MAX 90
#define WINDOWS_MAX  3
#define SPAN         120 /* instants 0..SPAN+60 */

struct model_booking {
    int64_t id;
    int node, first, count, from, to;
};
struct model_node {
    bool is_set;
    int site, model, gpus, window_count;
    uint64_t offered;
    struct calendar_span windows[WINDOWS_MAX];
};
static struct model_booking bookings[BOOKINGS_MAX];
static int booking_count;
static struct model_node nodes[NODES];

static uint64_t seed, rng_state, operation;

static void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "seed %" PRIu64 " operation %" PRIu64 ": ", seed, operation);
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

/* ---- the naive side ---- */

static bool model_in_window(const struct model_node *n, int at)
{
    for (int i = 0; i < n->window_count; i++) {
        if (n->windows[i].from_us <= at && at < n->windows[i].to_us) {
            return true;
        }
    }
    return n->window_count == 0;
}

static bool model_gpu_free(int node, int gpu, int from, int to)
{
    for (int i = 0; i < booking_count; i++) {
        const struct model_booking *b = &bookings[i];
        if (b->node == node && gpu >= b->first && gpu < b->first + b->count &&
            b->from < to && from < b->to) {
            return false;
        }
    }
    return true;
}

static uint64_t model_free(int node, int from, int to)
{
    const struct model_node *n = &nodes[node];
    if (!n->is_set || from >= to) {
        return 0;
    }
    for (int at = from; at < to; at++) {
        if (!model_in_window(n, at)) {
            return 0;
        }
    }
    uint64_t mask = 0;
    for (int g = 0; g < n->gpus; g++) {
        if ((n->offered >> g & 1) != 0 && model_gpu_free(node, g, from, to)) {
            mask |= UINT64_C(1) << g;
        }
    }
    return mask;
}

/* Shortest run of at least count; -1 when there is none. */
static int model_pick(uint64_t mask, int count, int *ret_len)
{
    int best = -1, best_len = 65, first = 0;
    for (int g = 0; g <= 64; g++) {
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

static bool model_find(const struct calendar_query *q, struct calendar_slot *ret)
{
    for (int64_t t = q->from_us; t <= q->latest_us; t++) {
        int best = -1, best_first = 0, best_len = 0;
        for (int id = 0; id < NODES; id++) {
            const struct model_node *n = &nodes[id];
            int len;
            if (!n->is_set || n->site != q->site || n->model != q->model ||
                (q->skip != NULL && q->skip(q->skip_arg, id))) {
                continue;
            }
            int first =
                model_pick(model_free(id, (int)t, (int)(t + q->len_us)), q->gpus, &len);
            if (first < 0) {
                continue;
            }
            if (best < 0 || len < best_len ||
                (len == best_len &&
                 ((uint32_t)id ^ q->spread) < ((uint32_t)best ^ q->spread))) {
                best = id;
                best_first = first;
                best_len = len;
            }
        }
        if (best >= 0) {
            *ret = (struct calendar_slot){
                .node = best, .first = best_first, .start_us = t};
            return true;
        }
    }
    return false;
}

static void model_forget(int64_t id)
{
    for (int i = 0; i < booking_count; i++) {
        if (bookings[i].id == id) {
            bookings[i] = bookings[--booking_count];
            return;
        }
    }
}

/* ---- operations ---- */

static uint64_t random_offered(void)
{
    return below(3) == 0 ? rng() : UINT64_MAX;
}

static void op_set_node(struct calendar *c)
{
    static const int sizes[] = {1, 2, 4, 8, 8, 8, 16, 64};
    int id = below(NODES);
    struct model_node n = {.is_set = true,
                           .site = below(SITES),
                           .model = below(MODELS),
                           .gpus = sizes[below(8)],
                           .offered = random_offered()};
    if (below(3) == 0) {
        int at = below(20);
        n.window_count = 1 + below(WINDOWS_MAX);
        for (int i = 0; i < n.window_count; i++) {
            n.windows[i].from_us = at;
            at += 1 + below(60);
            n.windows[i].to_us = at;
            at += below(3) * below(20); /* often touching the next */
        }
    }
    nodes[id] = n;
    struct calendar_node arg = {.site = n.site,
                                .model = n.model,
                                .gpus = n.gpus,
                                .offered = n.offered,
                                .windows = n.windows,
                                .window_count = (size_t)n.window_count};
    calendar_set_node(c, id, &arg);
}

static void op_book(struct calendar *c)
{
    if (booking_count == BOOKINGS_MAX) {
        return;
    }
    int node = below(NODES);
    int gpus = nodes[node].is_set ? nodes[node].gpus : 8;
    struct model_booking b = {
        .id = below(200) - 100, .node = node, .from = below(SPAN)};
    b.first = below(gpus);
    b.count = 1 + below(gpus - b.first);
    b.to = b.from + below(below(8) == 0 ? 60 : 12);
    model_forget(b.id);
    if (b.to > b.from) {
        bookings[booking_count++] = b;
    }
    calendar_book(c, b.id, node, b.first, b.count, b.from, b.to);
}

static void op_release(struct calendar *c)
{
    int64_t id = below(200) - 100;
    model_forget(id);
    calendar_release(c, id);
}

static void op_offered(struct calendar *c)
{
    int id = below(NODES);
    uint64_t offered = below(6) == 0 ? 0 : random_offered();
    nodes[id].offered = offered;
    calendar_set_offered(c, id, offered);
}

static void op_expire(struct calendar *c)
{
    int now = below(30);
    for (int i = booking_count - 1; i >= 0; i--) {
        if (bookings[i].to <= now) {
            bookings[i] = bookings[--booking_count];
        }
    }
    calendar_expire(c, now);
}

static void op_mask(const struct calendar *c)
{
    int node = below(NODES + 2), from = below(SPAN), to = from + below(20);
    uint64_t want = node < NODES ? model_free(node, from, to) : 0;
    uint64_t got = calendar_free_mask(c, node, from, to);
    if (got != want) {
        fail("free_mask node %d [%d,%d): %" PRIx64 ", list says %" PRIx64, node, from,
             to, got, want);
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
    return (*(uint32_t *)arg >> node & 1) != 0;
}

static uint64_t found, missed;

static void op_find(const struct calendar *c)
{
    static const int sizes[] = {1, 1, 2, 3, 4, 8, 8, 16, 64};
    uint32_t skipped = (uint32_t)(rng() >> 32);
    int from = below(SPAN);
    struct calendar_query q = {.site = below(SITES + 1),
                               .model = below(MODELS),
                               .gpus = sizes[below(9)],
                               .from_us = from,
                               .latest_us = from + (below(3) == 0 ? 0 : below(50) - 2),
                               .len_us = below(25),
                               .spread = (uint32_t)(rng() >> 32) & 15};
    if (below(4) == 0) {
        q.skip = skip_node;
        q.skip_arg = &skipped;
    }
    struct calendar_slot got = {-1, -1, -1}, want = {-1, -1, -1};
    bool has = calendar_find(c, &q, &got), should = model_find(&q, &want);
    if (has != should || got.node != want.node || got.first != want.first ||
        got.start_us != want.start_us) {
        fail("find site %d model %d gpus %d [%" PRId64 ",%" PRId64 "] len %" PRId64
             " spread %u: %d (node %d first %d start %" PRId64
             "), list says %d (node %d first %d start %" PRId64 ")",
             q.site, q.model, q.gpus, q.from_us, q.latest_us, q.len_us, q.spread, has,
             got.node, got.first, got.start_us, should, want.node, want.first,
             want.start_us);
    }
    found += has;
    missed += !has;
}

static void op_capacity(const struct calendar *c)
{
    int site = below(SITES), model = below(MODELS), from = below(SPAN),
        to = from + 1 + below(20);
    int want_best = 0, want_total = 0, want_largest = 0, best, total;
    for (int id = 0; id < NODES; id++) {
        const struct model_node *n = &nodes[id];
        if (!n->is_set || n->site != site || n->model != model) {
            continue;
        }
        uint64_t mask = model_free(id, from, to);
        for (int count = 1, len; count <= n->gpus; count++) {
            want_total += (int)(mask >> (count - 1) & 1);
            if (model_pick(mask, count, &len) >= 0 && count > want_best) {
                want_best = count;
            }
            uint64_t offered = n->gpus == 64
                                   ? n->offered
                                   : n->offered & ((UINT64_C(1) << n->gpus) - 1);
            if (model_pick(offered, count, &len) >= 0 && count > want_largest) {
                want_largest = count;
            }
        }
    }
    calendar_capacity(c, site, model, from, to, &best, &total);
    int largest = calendar_largest(c, site, model);
    if (best != want_best || total != want_total || largest != want_largest) {
        fail("capacity site %d model %d [%d,%d): %d %d %d, list says %d %d %d", site,
             model, from, to, best, total, largest, want_best, want_total,
             want_largest);
    }
}

static void step(struct calendar *c)
{
    int dice = below(100);
    if (dice < 30) {
        op_book(c);
    } else if (dice < 44) {
        op_release(c);
    } else if (dice < 47) {
        op_set_node(c);
    } else if (dice < 50) {
        op_offered(c);
    } else if (dice < 51) {
        op_expire(c);
    } else if (dice < 70) {
        op_mask(c);
    } else if (dice < 92) {
        op_find(c);
    } else {
        op_capacity(c);
    }
    if (calendar_booking_count(c) != (size_t)booking_count) {
        fail("%zu bookings, list has %d", calendar_booking_count(c), booking_count);
    }
}

int main(int argc, char **argv)
{
    const char *text = argc > 1 ? argv[1] : getenv("NEARGPU_SEED");
    uint64_t operations = argc > 2 ? strtoull(argv[2], NULL, 10) : 400000;
    seed = text != NULL ? strtoull(text, NULL, 10)
                        : (uint64_t)time(NULL) * UINT64_C(0x9e3779b97f4a7c15) >> 16;
    rng_state = seed * 2 + 1;
    printf("seed %" PRIu64 "\n", seed);
    fflush(stdout);
    struct calendar *c = calendar_new();
    for (operation = 0; operation < operations; operation++) {
        step(c);
    }
    calendar_free(c);
    printf("%" PRIu64 " operations, %" PRIu64 " found, %" PRIu64
           " not found, 0 differences\n",
           operations, found, missed);
    if (operations >= 100000 && (found < 1000 || missed < 1000)) {
        fail("the mix of operations tests too little");
    }
    return EXIT_SUCCESS;
}
