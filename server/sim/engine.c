/* engine: a heap of ends, the trace as the list of submissions, a queue. Each node
 * keeps the list of what is booked on it, for numbering its GPUs anew. */
#include "server/sim/engine.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

/* Salts of sim_draw: the site of the data must not depend on the policy's draws. */
#define DRAW_DATA  1
#define DRAW_PLACE 2

static const char *const wait_names[SIM_WAITS] = {"none", "fifo", "backfill"};

const char *sim_wait_name(enum sim_wait wait)
{
    return wait_names[wait];
}

struct held {
    int64_t booking;
    int count;
    int64_t start_us, end_us;
};
struct node_list {
    struct held *items;
    int count, cap;
};
struct end {
    int64_t at_us;
    size_t job;
};
struct engine {
    const struct sim_world *w;
    const struct sim_options *options;
    struct sim_run *run;
    struct sim_market market;
    struct node_list *nodes;
    struct end *ends; /* binary heap: earliest first, then the earlier job */
    size_t end_count;
    size_t *queue; /* of jobs; [queue_head, queue_tail) wait */
    size_t queue_head, queue_tail;
    int64_t last_end_us; /* by then everything booked is over */
    struct sim_choice choice;
};

/* ---- ends ---- */

static bool ends_before(const struct end *a, const struct end *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->job < b->job;
}

static void push_end(struct engine *e, struct end end)
{
    size_t at = e->end_count++;
    while (at > 0 && ends_before(&end, &e->ends[(at - 1) / 2])) {
        e->ends[at] = e->ends[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    e->ends[at] = end;
}

static struct end pop_end(struct engine *e)
{
    struct end top = e->ends[0], last = e->ends[--e->end_count];
    size_t at = 0;
    for (;;) {
        size_t child = at * 2 + 1;
        if (child >= e->end_count) {
            break;
        }
        if (child + 1 < e->end_count &&
            ends_before(&e->ends[child + 1], &e->ends[child])) {
            child++;
        }
        if (!ends_before(&e->ends[child], &last)) {
            break;
        }
        e->ends[at] = e->ends[child];
        at = child;
    }
    e->ends[at] = last;
    return top;
}

/* ---- what is booked on a node ---- */

static void hold(struct node_list *list, const struct held *held)
{
    if (list->count == list->cap) {
        list->cap = list->cap == 0 ? 8 : list->cap * 2;
        list->items = xreallocarray(list->items, (size_t)list->cap, sizeof(*held));
    }
    list->items[list->count++] = *held;
}

static void let_go(struct node_list *list, int64_t booking)
{
    for (int i = 0; i < list->count; i++) {
        if (list->items[i].booking == booking) {
            list->items[i] = list->items[--list->count];
            return;
        }
    }
    assert(!"a booking that its node does not have");
}

/* Longest first: what gets free then always lies on one side. */
static int compare_held(const void *pa, const void *pb)
{
    const struct held *a = pa, *b = pb;
    if (a->end_us != b->end_us) {
        return a->end_us > b->end_us ? -1 : 1;
    }
    return a->booking < b->booking ? -1 : a->booking > b->booking;
}

/* Numbers a node's GPUs anew, so that the free ones are neighbours. All that is booked
 * on it is running. */
static void renumber(struct engine *e, int node)
{
    struct node_list *list = &e->nodes[node];
    struct calendar *calendar = e->market.calendar;
    int first = 0;
    if (list->count == 0) {
        return;
    }
    for (int i = 0; i < list->count; i++) {
        calendar_release(calendar, list->items[i].booking);
    }
    qsort(list->items, (size_t)list->count, sizeof *list->items, compare_held);
    for (int i = 0; i < list->count; i++) {
        const struct held *h = &list->items[i];
        calendar_book(calendar, h->booking, node, first, h->count, h->start_us,
                      h->end_us);
        first += h->count;
    }
    assert(first <= e->w->nodes[node].gpus);
}

/* ---- jobs ---- */

static int64_t booking_id(size_t job, int part)
{
    return (int64_t)job * GANG_NODES_MAX + part;
}

static void occupy(struct engine *e, int64_t booking, const struct calendar_slot *slot,
                   const struct sim_outcome *o)
{
    if (e->market.room != NULL) {
        room_take(e->market.room, slot->node, o->gpus, o->start_us, o->end_us);
        return;
    }
    struct held held = {booking, o->gpus, o->start_us, o->end_us};
    hold(&e->nodes[slot->node], &held);
    calendar_book(e->market.calendar, booking, slot->node, slot->first, o->gpus,
                  o->start_us, o->end_us);
}

/* Price x GPUs x time of one node, rounded once: what is printed and summed. The choice
 * has seen that it fits 64 bits. */
static int64_t cost_micro(const struct sim_outcome *o, int64_t duration_us, int64_t ppm)
{
    __int128 cost = (__int128)duration_us * o->gpus * o->price_micro;
    __int128 whole = cost / US_PER_HOUR * ppm + cost % US_PER_HOUR * ppm / US_PER_HOUR;
    return (int64_t)((whole + MATCH_PPM / 2) / MATCH_PPM);
}

static void place(struct engine *e, size_t job)
{
    const struct sim_choice *c = &e->choice;
    struct sim_outcome *o = &e->run->outcomes[job];
    o->why = MATCH_OK;
    o->offer = c->offer;
    o->start_us = c->start_us;
    o->end_us = c->start_us + c->len_us;
    o->rtt_us = c->rtt_us;
    o->slowdown_ppm = c->slowdown_ppm;
    o->price_micro = e->market.offers[c->offer].price_micro;
    o->gpus = c->gpus;
    int64_t duration_us = e->w->jobs[job].duration_us;
    o->charged_micro = cost_micro(o, duration_us, MATCH_PPM);
    o->effective_micro = cost_micro(o, duration_us, c->slowdown_ppm);
    o->node_count = c->nodes;
    o->nodes = xreallocarray(NULL, (size_t)c->nodes, sizeof *o->nodes);
    for (int i = 0; i < c->nodes; i++) {
        const struct calendar_slot *slot = &c->slots[i];
        o->nodes[i] = slot->node;
        if (c->len_us > 0) {
            occupy(e, booking_id(job, i), slot, o);
        }
    }
    if (c->len_us > 0) {
        push_end(e, (struct end){o->end_us, job});
    }
    e->last_end_us = e->last_end_us > o->end_us ? e->last_end_us : o->end_us;
}

static void end_job(struct engine *e, size_t job, int64_t now_us)
{
    const struct sim_outcome *o = &e->run->outcomes[job];
    for (int i = 0; i < o->node_count; i++) {
        int node = o->nodes[i];
        if (e->market.room != NULL) {
            room_forget(e->market.room, node, now_us);
            continue;
        }
        calendar_release(e->market.calendar, booking_id(job, i));
        let_go(&e->nodes[node], booking_id(job, i));
        if (!e->options->fixed_gpus) {
            renumber(e, node);
        }
    }
}

static void note_time(struct sim_run *run, int64_t ns)
{
    if (run->match_count == run->match_cap) {
        run->match_cap = run->match_cap == 0 ? 4096 : run->match_cap * 2;
        run->match_ns =
            xreallocarray(run->match_ns, run->match_cap, sizeof *run->match_ns);
    }
    run->match_ns[run->match_count++] = ns;
}

/* Looks for a place with a start in [now, latest]; the answer is in e->choice. */
static int try_job(struct engine *e, size_t job, int64_t now_us, int64_t latest_us)
{
    const struct sim_options *options = e->options;
    struct sim_ask ask = {.policy = options->policy,
                          .data = e->run->outcomes[job].data,
                          .chance = sim_draw(options->seed, job, DRAW_PLACE),
                          .now_us = now_us,
                          .latest_us = latest_us};
    int64_t before_ns = options->clock_ns != NULL ? options->clock_ns() : 0;
    sim_choose(&e->market, &e->w->jobs[job], &ask, &e->choice);
    int64_t after_ns = options->clock_ns != NULL ? options->clock_ns() : 0;
    note_time(e->run, after_ns - before_ns);
    return e->choice.why;
}

/* Who waits longest starts as soon as it can, and nobody passes it. */
static void serve_queue(struct engine *e, int64_t now_us)
{
    while (e->queue_head < e->queue_tail) {
        size_t job = e->queue[e->queue_head];
        int why = try_job(e, job, now_us, now_us);
        if (why == MATCH_BUSY) {
            return;
        }
        e->queue_head++;
        if (why == MATCH_OK) {
            place(e, job);
        } else {
            e->run->outcomes[job].why = why;
        }
    }
}

static void submit(struct engine *e, size_t job)
{
    int64_t now_us = e->w->jobs[job].submit_us;
    struct sim_outcome *o = &e->run->outcomes[job];
    if (e->options->wait == SIM_WAIT_FIFO) {
        /* Behind others only its turn shows whether it can be served at all: the same
         * refusal, since nothing but BUSY changes with time. */
        e->queue[e->queue_tail++] = job;
        if (e->queue_tail - e->queue_head == 1) {
            serve_queue(e, now_us);
        }
        return;
    }
    int64_t latest_us = now_us;
    if (e->options->wait == SIM_WAIT_BACKFILL && e->last_end_us > now_us) {
        latest_us = e->last_end_us;
    }
    o->why = try_job(e, job, now_us, latest_us);
    if (o->why == MATCH_OK) {
        place(e, job);
    }
}

static void draw_data(struct engine *e)
{
    const struct sim_world *w = e->w;
    for (size_t i = 0; i < w->job_count; i++) {
        int data = w->jobs[i].data;
        if (data == SIM_DATA_DRAWN) {
            uint64_t x = sim_draw(e->options->seed, i, DRAW_DATA);
            data = (int)(((unsigned __int128)x * (unsigned)w->sites.count) >> 64);
        }
        e->run->outcomes[i].data = data;
    }
}

static void replay(struct engine *e)
{
    size_t next = 0;
    while (next < e->w->job_count || e->end_count > 0) {
        bool is_end =
            e->end_count > 0 &&
            (next == e->w->job_count || e->ends[0].at_us <= e->w->jobs[next].submit_us);
        if (!is_end) {
            submit(e, next++);
            continue;
        }
        int64_t now_us = e->ends[0].at_us;
        while (e->end_count > 0 && e->ends[0].at_us == now_us) {
            end_job(e, pop_end(e).job, now_us);
        }
        serve_queue(e, now_us);
    }
    assert(e->queue_head == e->queue_tail);
}

void sim_run(const struct sim_world *w, const struct sim_options *options,
             struct sim_run *ret)
{
    size_t jobs = w->job_count;
    *ret = (struct sim_run){.outcomes = xcalloc(jobs + 1, sizeof *ret->outcomes)};
    int64_t before_ns = options->clock_ns != NULL ? options->clock_ns() : 0;
    struct engine *e = xcalloc(1, sizeof *e); /* a choice is large */
    e->w = w;
    e->options = options;
    e->run = ret;
    e->nodes = xcalloc(w->node_count, sizeof *e->nodes);
    e->ends = xcalloc(jobs + 1, sizeof *e->ends);
    e->queue = xcalloc(jobs + 1, sizeof *e->queue);
    sim_market_init(&e->market, w);
    if (options->wait == SIM_WAIT_BACKFILL && !options->fixed_gpus) {
        e->market.room = room_new(w);
    }
    draw_data(e);
    replay(e);
    room_free(e->market.room);
    sim_market_done(&e->market);
    for (size_t i = 0; i < w->node_count; i++) {
        free(e->nodes[i].items);
    }
    free(e->nodes);
    free(e->ends);
    free(e->queue);
    free(e);
    ret->run_ns = options->clock_ns != NULL ? options->clock_ns() - before_ns : 0;
}

void sim_run_done(struct sim_run *r, const struct sim_world *w)
{
    for (size_t i = 0; r->outcomes != NULL && i < w->job_count; i++) {
        free(r->outcomes[i].nodes);
    }
    free(r->outcomes);
    free(r->match_ns);
    *r = (struct sim_run){0};
}
