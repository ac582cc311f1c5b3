/* flow: the runner (see flow.h for the contract).
 *
 * Three structures: handles (ids), a FIFO of ready flows, and a binary heap of
 * deadlines in which every flow knows its place, so that moving one costs log n. Ended
 * flows are freed at the end of a turn, after the last use of their pointer. */
#include "server/flow/flow.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"
#include "server/flow/flow_priv.h"

/* ---- deadlines ---- */

static void heap_put(struct flow_runner *r, size_t at, struct flow_cell *c)
{
    r->heap[at] = c;
    c->heap_at = at;
}

static void heap_up(struct flow_runner *r, size_t at)
{
    struct flow_cell *c = r->heap[at];
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (r->heap[parent]->deadline_us <= c->deadline_us)
            break;
        heap_put(r, at, r->heap[parent]);
        at = parent;
    }
    heap_put(r, at, c);
}

static void heap_down(struct flow_runner *r, size_t at)
{
    struct flow_cell *c = r->heap[at];
    for (;;) {
        size_t child = at * 2 + 1;
        if (child >= r->heap_count)
            break;
        if (child + 1 < r->heap_count &&
            r->heap[child + 1]->deadline_us < r->heap[child]->deadline_us)
            child++;
        if (r->heap[child]->deadline_us >= c->deadline_us)
            break;
        heap_put(r, at, r->heap[child]);
        at = child;
    }
    heap_put(r, at, c);
}

static void heap_remove(struct flow_runner *r, struct flow_cell *c)
{
    size_t at = c->heap_at;
    if (at == CELL_NOT_IN_HEAP)
        return;
    c->heap_at = CELL_NOT_IN_HEAP;
    struct flow_cell *last = r->heap[--r->heap_count];
    if (last == c)
        return;
    heap_put(r, at, last);
    heap_up(r, at);
    heap_down(r, last->heap_at);
}

static void heap_add(struct flow_runner *r, struct flow_cell *c)
{
    if (r->heap_count == r->heap_cap) {
        r->heap_cap = r->heap_cap == 0 ? 64 : r->heap_cap * 2;
        r->heap = xreallocarray(r->heap, r->heap_cap, sizeof(*r->heap));
    }
    heap_put(r, r->heap_count++, c);
    heap_up(r, c->heap_at);
}

/* ---- ready list ---- */

static void runner_kick(struct flow_runner *r)
{
    /* Inside a turn nobody needs telling: the turn ends with a kick of its own. */
    if (!r->turning && r->opts.kick != NULL)
        r->opts.kick(r->opts.kick_arg);
}

static void ready_push(struct flow_runner *r, struct flow_cell *c)
{
    c->place = CELL_READY;
    c->next_ready = NULL;
    *r->ready_tail = c;
    r->ready_tail = &c->next_ready;
    r->ready_count++;
    if (r->ready_count == 1)
        runner_kick(r);
}

static struct flow_cell *ready_pop(struct flow_runner *r)
{
    struct flow_cell *c = r->ready_head;
    assert(c != NULL && c->place == CELL_READY);
    r->ready_head = c->next_ready;
    if (r->ready_head == NULL)
        r->ready_tail = &r->ready_head;
    r->ready_count--;
    return c;
}

/* ---- life ---- */

struct flow_runner *flow_runner_new(const struct flow_runner_opts *opts)
{
    struct flow_runner *r = xcalloc(1, sizeof(*r));
    r->opts = *opts;
    r->sink = opts->sink;
    if (r->opts.max_live == 0)
        r->opts.max_live = FLOWS_LIVE_MAX;
    r->ready_tail = &r->ready_head;
    return r;
}

void flow_runner_set_sink(struct flow_runner *r, const struct flow_sink *sink)
{
    r->sink = sink;
}

static void cell_free(struct flow_cell *c)
{
    flow_request_free(c->rq);
    flow_draft_free(c->draft);
    free(c->pub.state);
    free(c);
}

/* The end, once: handle gone first, so that done_fn cannot wake its own flow. */
static void cell_end(struct flow_runner *r, struct flow_cell *c)
{
    assert(c->place != CELL_ENDED && c->place != CELL_READY);
    heap_remove(r, c);
    ids_drop(&r->ids, c->pub.id);
    c->place = CELL_ENDED;
    r->stats.finished++;
    if (c->abandoned)
        r->stats.abandoned++;
    if (c->pub.kind->done_fn != NULL)
        c->pub.kind->done_fn(&c->pub);
    c->next_ready = r->reap;
    r->reap = c;
}

static void runner_reap(struct flow_runner *r)
{
    while (r->reap != NULL) {
        struct flow_cell *c = r->reap;
        r->reap = c->next_ready;
        cell_free(c);
    }
}

void flow_runner_free(struct flow_runner *r)
{
    if (r == NULL)
        return;
    r->turning = r->ending = true; /* no kicks from here on, no wakes */
    while (r->ready_head != NULL)
        ready_pop(r)->place = CELL_ASLEEP;
    for (uint32_t i = 0; i < r->ids.count; i++) {
        struct flow_cell *c = r->ids.slots[i].thing;
        if (c == NULL)
            continue;
        c->abandoned = c->orphan = true;
        cell_end(r, c);
    }
    runner_reap(r);
    ids_done(&r->ids);
    free(r->heap);
    free(r);
}

uint64_t flow_start(struct flow_runner *r, const struct flow_kind *kind,
                    struct flow_request *rq_take, uint64_t to, int64_t now_us,
                    struct err *err)
{
    assert(kind->step_count > 0);
    if (r->ids.live >= r->opts.max_live) {
        r->stats.refused++;
        flow_request_free(rq_take);
        (void)err_set(err, ERR_UNAVAILABLE,
                      "the server is busy with %zu requests; try again later",
                      r->ids.live);
        return 0;
    }
    struct flow_cell *c = xcalloc(1, sizeof(*c));
    c->rq = rq_take;
    c->to = to;
    c->deadline_us = INT64_MAX;
    c->heap_at = CELL_NOT_IN_HEAP;
    c->pub = (struct flow){
        .kind = kind,
        .state = xcalloc(1, kind->state_size == 0 ? 1 : kind->state_size),
        .rq = rq_take,
        .now_us = now_us,
        .started_us = now_us,
        .env = r->opts.env,
        .runner = r,
    };
    c->pub.id = ids_add(&r->ids, c);
    r->stats.started++;
    ready_push(r, c);
    return c->pub.id;
}

struct flow *flow_find(struct flow_runner *r, uint64_t id)
{
    struct flow_cell *c = ids_find(&r->ids, id);
    return c == NULL ? NULL : &c->pub;
}

static void cell_wake(struct flow_runner *r, struct flow_cell *c)
{
    if (r->ending)
        return;
    switch (c->place) {
    case CELL_ASLEEP: ready_push(r, c); break;
    case CELL_RUNNING: c->woken = true; break;
    case CELL_READY:
    case CELL_ENDED: break;
    }
}

void flow_wake(struct flow_runner *r, uint64_t id)
{
    struct flow_cell *c = ids_find(&r->ids, id);
    if (c != NULL)
        cell_wake(r, c);
}

void flow_abandon(struct flow_runner *r, uint64_t id)
{
    struct flow_cell *c = ids_find(&r->ids, id);
    if (c == NULL)
        return;
    c->orphan = true;
    if (c->pub.kind->abandon_on_close) {
        c->abandoned = true;
        cell_wake(r, c);
    }
}

bool flow_is_orphan(const struct flow *f)
{
    return ((const struct flow_cell *)f)->orphan;
}

enum flow_turn flow_goto(struct flow *f, flow_step_fn fn)
{
    struct flow_cell *c = cell_of(f);
    assert(c->place == CELL_RUNNING);
    for (size_t i = 0; i < f->kind->step_count; i++)
        if (f->kind->steps[i].fn == fn) {
            c->next = i;
            return FLOW_MORE;
        }
    assert(!"flow_goto: not a step of this kind");
    return FLOW_DONE;
}

void flow_wait_until(struct flow *f, int64_t at_us)
{
    struct flow_cell *c = cell_of(f);
    struct flow_runner *r = f->runner;
    if (c->place == CELL_ENDED)
        return;
    heap_remove(r, c);
    c->deadline_us = at_us;
    if (at_us == INT64_MAX)
        return;
    heap_add(r, c);
    if (c->heap_at == 0)
        runner_kick(r);
}

/* ---- the turn ---- */

/* One step; true when the flow is to be looked at again at once. */
static bool cell_step(struct flow_runner *r, struct flow_cell *c)
{
    const struct flow_kind *kind = c->pub.kind;
    const struct flow_step *step = &kind->steps[c->step];
    c->next = c->step + 1;
    if (r->opts.on_step != NULL)
        r->opts.on_step(r->opts.on_step_arg, &c->pub, step->name);
    r->stats.steps++;
    enum flow_turn turn = step->fn(&c->pub);
    if (c->abandoned)
        turn = FLOW_DONE;
    if (turn != FLOW_AGAIN)
        c->step = c->next;
    if (turn == FLOW_DONE || c->step >= kind->step_count) {
        if (!c->abandoned)
            flow_draft_send(c);
        cell_end(r, c);
        return false;
    }
    if (turn == FLOW_MORE)
        return true;
    if (c->woken) {
        c->woken = false;
        return true;
    }
    c->place = CELL_ASLEEP;
    return false;
}

static void cell_run(struct flow_runner *r, struct flow_cell *c, int64_t now_us)
{
    c->place = CELL_RUNNING;
    c->pub.now_us = now_us;
    if (c->abandoned) {
        cell_end(r, c);
        return;
    }
    for (int i = 0; i < FLOW_STEPS_A_TURN; i++)
        if (!cell_step(r, c))
            return;
    ready_push(r, c);
}

void flow_runner_turn(struct flow_runner *r, int64_t now_us)
{
    assert(!r->turning);
    r->turning = true;
    while (r->heap_count > 0 && r->heap[0]->deadline_us <= now_us) {
        struct flow_cell *c = r->heap[0];
        heap_remove(r, c);
        c->deadline_us = INT64_MAX;
        cell_wake(r, c);
    }
    for (size_t n = r->ready_count; n > 0; n--)
        cell_run(r, ready_pop(r), now_us);
    runner_reap(r);
    r->turning = false;
    if (r->ready_count > 0 || r->heap_count > 0)
        runner_kick(r);
}

int64_t flow_runner_next_us(const struct flow_runner *r)
{
    if (r->ready_count > 0)
        return INT64_MIN;
    return r->heap_count > 0 ? r->heap[0]->deadline_us : INT64_MAX;
}

void flow_runner_stats(const struct flow_runner *r, struct flow_stats *ret)
{
    *ret = r->stats;
    ret->live = r->ids.live;
    ret->ready = r->ready_count;
}

void flow_runner_each(struct flow_runner *r, const struct flow_kind *kind,
                      void (*fn)(void *arg, struct flow *f), void *arg)
{
    for (uint32_t i = 0; i < r->ids.count; i++) {
        struct flow_cell *c = r->ids.slots[i].thing;
        if (c != NULL && (kind == NULL || c->pub.kind == kind))
            fn(arg, &c->pub);
    }
}
