/* world_bookings: bookings, tries and shadows in the calendars, and the table of spot
 * bookings (contract in world.h). The table is an array without holes, for those who
 * look for victims, with an index by booking id beside it: open addressing, linear
 * probing, at most half full. */
#include <stdlib.h>
#include <string.h>

#include "client/lib/clock.h"
#include "client/lib/xalloc.h"
#include "server/flow/world.h"

#define INDEX_MIN 64

/* ---- the index: places + 1, 0: free ---- */

static size_t home_of(const struct world *w, int64_t id)
{
    return (size_t)(((uint64_t)id * UINT64_C(0x9e3779b97f4a7c15)) >> 20) &
           (w->spot_index_cap - 1);
}

/* Where id stands in the index, or the free place where it would. */
static size_t index_of(const struct world *w, int64_t id)
{
    size_t at = home_of(w, id);
    while (w->spot_index[at] != 0 && w->spots[w->spot_index[at] - 1].id != id)
        at = (at + 1) & (w->spot_index_cap - 1);
    return at;
}

static void index_remake(struct world *w)
{
    size_t cap = INDEX_MIN;
    while (cap < 2 * (w->spot_count + 1))
        cap *= 2;
    free(w->spot_index);
    w->spot_index = xcalloc(cap, sizeof(*w->spot_index));
    w->spot_index_cap = cap;
    for (size_t i = 0; i < w->spot_count; i++)
        w->spot_index[index_of(w, w->spots[i].id)] = (int)i + 1;
}

/* Frees a place and moves those behind it that would not be found any more. */
static void index_remove(struct world *w, size_t at)
{
    size_t mask = w->spot_index_cap - 1, hole = at;
    w->spot_index[hole] = 0;
    for (size_t i = (at + 1) & mask; w->spot_index[i] != 0; i = (i + 1) & mask) {
        size_t home = home_of(w, w->spots[w->spot_index[i] - 1].id);
        if (((i - home) & mask) < ((i - hole) & mask))
            continue;
        w->spot_index[hole] = w->spot_index[i];
        w->spot_index[i] = 0;
        hole = i;
    }
}

/* ---- the table ---- */

static void spot_put(struct world *w, const struct world_booking *b)
{
    if (2 * (w->spot_count + 1) > w->spot_index_cap)
        index_remake(w);
    size_t at = index_of(w, b->id);
    if (w->spot_index[at] != 0) {
        w->spots[w->spot_index[at] - 1] = *b;
        return;
    }
    if (w->spot_count == w->spot_cap) {
        w->spot_cap = w->spot_cap == 0 ? 16 : 2 * w->spot_cap;
        w->spots = xreallocarray(w->spots, w->spot_cap, sizeof(*w->spots));
    }
    w->spots[w->spot_count++] = *b;
    w->spot_index[at] = (int)w->spot_count;
}

static void spot_remove(struct world *w, int64_t id)
{
    if (w->spot_count == 0)
        return;
    size_t at = index_of(w, id);
    if (w->spot_index[at] == 0)
        return;
    size_t place = (size_t)w->spot_index[at] - 1, last = w->spot_count - 1;
    index_remove(w, at);
    if (place != last) {
        w->spot_index[index_of(w, w->spots[last].id)] = (int)place + 1;
        w->spots[place] = w->spots[last];
    }
    w->spot_count--;
}

void world_expire_spots(struct world *w, int64_t now_us)
{
    for (size_t i = w->spot_count; i-- > 0;)
        if (w->spots[i].during.to_us <= now_us)
            spot_remove(w, w->spots[i].id);
}

void world_forget_spots(struct world *w)
{
    w->spot_count = 0;
    if (w->spot_index_cap > 0)
        index_remake(w);
}

/* ---- bookings ---- */

void world_want_firm(struct world *w)
{
    if (w->firm != NULL)
        return;
    w->firm = calendar_new();
    world_retell_calendars(w);
    w->reload = true; /* it has no bookings yet */
}

/* A node that grew has new numbers: what was booked under the old ones is over, and its
 * place, counted from the new first GPU, is none. */
void world_block(struct world *w, const struct world_booking *b)
{
    bool placed = b->first >= 0 && b->count >= 1 && b->count <= GPUS_PER_NODE_MAX &&
                  b->first <= GPUS_PER_NODE_MAX - b->count;
    if (!placed || b->during.from_us >= b->during.to_us) {
        calendar_release(w->calendar, b->id);
        if (w->firm != NULL)
            calendar_release(w->firm, b->id);
        spot_remove(w, b->id);
        return;
    }
    calendar_book(w->calendar, b->id, b->node, b->first, b->count, b->during.from_us,
                  b->during.to_us);
    if (b->spot) {
        world_want_firm(w);
        spot_put(w, b);
        return;
    }
    spot_remove(w, b->id); /* preempted: it goes on until its notice is over */
    if (w->firm != NULL)
        calendar_book(w->firm, b->id, b->node, b->first, b->count, b->during.from_us,
                      b->during.to_us);
}

void world_block_lanes(struct world *w, const struct world_lanes *b)
{
    if (b->count >= 1 && b->during.from_us < b->during.to_us)
        calendar_book(w->lanes, b->id, b->path, b->first, b->count, b->during.from_us,
                      b->during.to_us);
    else
        calendar_release(w->lanes, b->id);
}

void world_book(struct world *w, const struct world_booking *b)
{
    world_block(w, b);
    if (w->loading) {
        w->late = xreallocarray(w->late, w->late_count + 1, sizeof(*w->late));
        w->late[w->late_count++] = *b;
    }
    world_wake_node(w, b->node);
}

void world_book_lanes(struct world *w, const struct world_lanes *b)
{
    world_block_lanes(w, b);
    if (w->loading) {
        w->late_lanes = xreallocarray(w->late_lanes, w->late_lanes_count + 1,
                                      sizeof(*w->late_lanes));
        w->late_lanes[w->late_lanes_count++] = *b;
    }
}

/* ---- preemption ---- */

/* Ids are random in their second half: that is number enough among spot leases. */
static int64_t number_of(const char *reservation)
{
    uint64_t n = 0;
    for (const char *p = reservation; *p != '\0'; p++)
        if (*p != '-')
            n = n << 4 | (uint64_t)(*p <= '9' ? *p - '0' : (*p | 0x20) - 'a' + 10);
    return (int64_t)(n & INT64_MAX);
}

struct preempt_spot *world_preempt_spots(const struct world *w)
{
    if (w->spot_count == 0)
        return NULL;
    struct preempt_spot *out = xcalloc(w->spot_count, sizeof(*out));
    for (size_t i = 0; i < w->spot_count; i++) {
        const struct world_booking *b = &w->spots[i];
        out[i] = (struct preempt_spot){.reservation = number_of(b->reservation),
                                       .node = b->node,
                                       .first = b->first,
                                       .count = b->count,
                                       .from_us = b->during.from_us,
                                       .to_us = b->during.to_us,
                                       .per_gpu_hour_micro = b->gpu_hour_micro,
                                       .notice_us = b->notice_us};
    }
    return out;
}

const char *world_spot_reservation(const struct world *w, int64_t number)
{
    for (size_t i = 0; i < w->spot_count; i++)
        if (number_of(w->spots[i].reservation) == number)
            return w->spots[i].reservation;
    return NULL;
}

/* ---- tries and shadows ---- */

static struct world_try block_plan(struct world *w, const struct match_plan *plan,
                                   bool firm)
{
    int64_t end_us = plan->start_us + plan->len_us;
    struct world_try t = {.count = plan->slot_count + plan->lanes_count};
    for (int i = 0; i < plan->slot_count; i++) {
        const struct match_slot *s = &plan->slots[i];
        w->try_last--;
        calendar_book(w->calendar, w->try_last, s->node, s->first, plan->gpus,
                      plan->start_us, end_us);
        if (firm && w->firm != NULL)
            calendar_book(w->firm, w->try_last, s->node, s->first, plan->gpus,
                          plan->start_us, end_us);
    }
    for (int i = 0; i < plan->lanes_count; i++) {
        const struct match_lanes *l = &plan->lanes[i];
        w->try_last--;
        calendar_book(w->lanes, w->try_last, l->path, l->first, l->count, l->from_us,
                      end_us);
    }
    t.last = w->try_last;
    return t;
}

struct world_try world_try_plan(struct world *w, const struct match_plan *plan)
{
    w->try_count++;
    return block_plan(w, plan, !plan->spot);
}

struct world_try world_shadow_plan(struct world *w, const struct match_plan *plan)
{
    struct world_try t = block_plan(w, plan, !plan->spot);
    t.shadow = true;
    return t;
}

void world_try_end(struct world *w, struct world_try *t)
{
    if (t->count == 0)
        return;
    for (int64_t id = t->last; id < t->last + t->count; id++) {
        calendar_release(w->calendar, id);
        calendar_release(w->lanes, id);
        if (w->firm != NULL)
            calendar_release(w->firm, id);
    }
    t->count = 0;
    if (t->shadow)
        return;
    w->try_count--;
    for (size_t i = 0; i < w->try_waiter_count; i++)
        flow_wake(w->runner, w->try_waiters[i]);
    w->try_waiter_count = 0;
}

void world_try_lost(struct world *w, struct world_try *t, const struct match_plan *plan)
{
    struct world_try shadow = world_shadow_plan(w, plan);
    world_try_end(w, t);
    *t = shadow;
}

void world_try_wait(struct world *w, uint64_t flow_id)
{
    w->try_waiters =
        xreallocarray(w->try_waiters, w->try_waiter_count + 1, sizeof(*w->try_waiters));
    w->try_waiters[w->try_waiter_count++] = flow_id;
}

void world_booked(struct world *w, const struct world_booked *b)
{
    const struct match_plan *p = b->plan;
    int64_t end_us = p->start_us + p->len_us;
    if (!world_gens_news(w->gens, b->reservation, 0, clock_now_us() + WORLD_NEWS_US))
        return;
    for (int i = 0; i < p->slot_count; i++) {
        const struct match_slot *s = &p->slots[i];
        /* Not the plan's offer: offers may have moved since it was made. */
        const struct world_node *n = &w->nodes[s->node];
        struct world_booking booking = {.id = b->booking_id[i],
                                        .node = s->node,
                                        .first = s->first,
                                        .count = p->gpus,
                                        .during = {p->start_us, end_us},
                                        .spot = p->spot,
                                        .started_us = p->start_us,
                                        .gpu_hour_micro = p->spot ? n->spot_price_micro
                                                                  : n->price_micro,
                                        .notice_us = n->notice_us};
        memcpy(booking.reservation, b->reservation, UUID_TEXT);
        world_book(w, &booking);
    }
    for (int i = 0; i < p->lanes_count; i++) {
        const struct match_lanes *l = &p->lanes[i];
        struct world_lanes lanes = {
            b->lane_booking_id[i], l->path, l->first, l->count, {l->from_us, end_us}};
        world_book_lanes(w, &lanes);
    }
}

/* ---- lifting ---- */

static bool is_blocked(const struct calendar *c, int node, int first, int count,
                       const struct calendar_span *during)
{
    if (first < 0 || count < 1 || first > GPUS_PER_NODE_MAX - count)
        return false;
    uint64_t run = count == 64 ? UINT64_MAX : ((UINT64_C(1) << count) - 1) << first;
    return during->from_us < during->to_us &&
           (calendar_free_mask(c, node, during->from_us, during->to_us) & run) == 0;
}

void world_lift(struct world *w, struct world_lifted *l)
{
    size_t n = 0;
    for (size_t i = 0; i < l->booking_count; i++) {
        const struct world_booking *b = &l->bookings[i];
        if (!is_blocked(w->calendar, b->node, b->first, b->count, &b->during))
            continue; /* it ended meanwhile: it must not come back */
        calendar_release(w->calendar, b->id);
        if (w->firm != NULL)
            calendar_release(w->firm, b->id);
        l->bookings[n++] = *b;
    }
    l->booking_count = n;
    n = 0;
    for (size_t i = 0; i < l->lanes_count; i++) {
        const struct world_lanes *b = &l->lanes[i];
        if (!is_blocked(w->lanes, b->path, b->first, b->count, &b->during))
            continue;
        calendar_release(w->lanes, b->id);
        l->lanes[n++] = *b;
    }
    l->lanes_count = n;
}

void world_put_back(struct world *w, const struct world_lifted *l)
{
    for (size_t i = 0; i < l->booking_count; i++)
        world_block(w, &l->bookings[i]);
    for (size_t i = 0; i < l->lanes_count; i++)
        world_block_lanes(w, &l->lanes[i]);
}
