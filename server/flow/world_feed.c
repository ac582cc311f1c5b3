/* world_feed: loading the world and keeping it (contract in world.h).
 *
 * Loading takes the feed's head first, then the tables one after another, then the
 * changes since the head: applying one twice is harmless. A change that only names what
 * changed has its row read again. Any read that fails sets `reload`; the next tick
 * starts over. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/clock.h"
#include "client/lib/log.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "server/flow/flows.h"
#include "server/flow/world.h"
#include "server/flow/world_ids.h"

#define CHANGES_AT_ONCE 500
#define OVERDUE_EACH_US (5 * US_PER_S)
#define EXPIRE_EACH_US  (60 * US_PER_S)
#define PRUNE_EACH_US   US_PER_HOUR
#define PRUNE_AGAIN_US  (60 * US_PER_S)
#define NEVER_US        (INT64_C(1000) * 366 * 24 * US_PER_HOUR)
/* A node that never sends its teardown receipt does not keep its lease open. */
#define END_GRACE_US (120 * US_PER_S)
/* A session that lost its client ends its transaction long before this. */
#define UNKNOWN_US (300 * US_PER_S)

static void on_polled(void *arg, uint64_t id, const struct store_result *r);
static void read_revoked(struct world *w, int64_t now_us);

/* ---- the revoked leases ---- */

static int64_t int_of(const json_t *obj, const char *name)
{
    return json_integer_value(json_object_get(obj, name));
}

static void revoked_set(struct world *w, const struct store_result *r, int64_t asked_us)
{
    const json_t *list = json_object_get(r->json, "revoked"), *entry;
    size_t i;
    int64_t seq = int_of(r->json, "seq");
    json_array_clear(w->revoked);
    json_array_foreach(list, i, entry)
        json_array_append(w->revoked, json_object_get(entry, "reservation"));
    json_t *epochs = json_object_get(r->json, "min_epochs");
    json_object_clear(w->min_epochs);
    if (json_is_object(epochs))
        json_object_update(w->min_epochs, epochs);
    if (seq != w->revoked_seq) { /* the shared document would lack the new ones */
        free(w->status_doc);
        w->status_doc = NULL;
    }
    w->revoked_seq = seq;
    w->revoked_at_us = asked_us;
}

static void put_revoked(struct world *w, const struct store_result *r)
{
    revoked_set(w, r, w->load_asked_us);
}

/* ---- loading ---- */

static const struct load_step {
    enum store_op op;
    void (*put)(struct world *w, const struct store_result *r);
    bool takes_null, takes_now;
} load_steps[] = {
    {STORE_WORLD_KEYS, world_put_keys, false, false},
    {STORE_WORLD_SITES, world_put_sites, true, false},
    {STORE_WORLD_NODES, world_put_nodes, true, false},
    {STORE_WORLD_DATASETS, world_put_data, true, false},
    {STORE_WORLD_RTTS, world_put_rtts, true, false},
    {STORE_WORLD_PATHS, world_put_paths, true, false},
    {STORE_WORLD_BOOKINGS, world_put_bookings, false, true},
    {STORE_WORLD_LANES, world_put_lanes, false, true},
    {STORE_STATUS, put_revoked, false, true},
};
#define LOAD_STEPS (sizeof(load_steps) / sizeof(load_steps[0]))

static void on_load_step(void *arg, uint64_t id, const struct store_result *r);

static void load_next(struct world *w)
{
    if (w->load_step == LOAD_STEPS) {
        w->polling = w->loading = false;
        if (!w->loaded || w->reload)
            log_info("world: %zu sites, %zu nodes, %zu offers, %zu bookings",
                     w->site_count, w->node_count, w->offer_count,
                     calendar_booking_count(w->calendar));
        w->loaded = true;
        w->reload = false;
        w->expired_us = 0; /* the next tick indexes the new calendar */
        w->version++;
        world_poll(w);
        return;
    }
    const struct load_step *s = &load_steps[w->load_step];
    w->load_asked_us = clock_now_us();
    struct store_arg arg = s->takes_now ? S_INT(w->load_asked_us) : S_NULL;
    store_call(w->store, s->op, s->takes_now || s->takes_null ? &arg : NULL,
               s->takes_now || s->takes_null ? 1 : 0, store_to(on_load_step, w, 0));
}

static void load_failed(struct world *w, const struct store_result *r)
{
    w->reload = true;
    w->polling = w->loading = false;
    log_warn("world: cannot be loaded yet: %s", r->err.text);
}

static void on_load_step(void *arg, uint64_t id, const struct store_result *r)
{
    struct world *w = arg;
    (void)id;
    if (r->status != STORE_OK) {
        load_failed(w, r);
        return;
    }
    int64_t came_us = clock_now_us();
    load_steps[w->load_step].put(w, r);
    world_reads_loaded(&w->reads, (int)load_steps[w->load_step].op);
    log_debug("world: table %zu: read in %" PRId64 " ms, taken in %" PRId64 " ms",
              w->load_step, (came_us - w->load_asked_us) / 1000,
              (clock_now_us() - came_us) / 1000);
    w->load_step++;
    load_next(w);
}

static void on_head(void *arg, uint64_t id, const struct store_result *r)
{
    struct world *w = arg;
    (void)id;
    if (r->status != STORE_OK) {
        load_failed(w, r);
        return;
    }
    free(w->cursor);
    w->cursor = xstrdup(json_string_value(json_object_get(r->json, "cursor")));
    w->load_step = 0;
    load_next(w);
}

static void load(struct world *w)
{
    w->polling = w->loading = true;
    w->late_count = w->late_lanes_count = 0;
    w->reloads++;
    store_call(w->store, STORE_FEED_HEAD, STORE_NO_ARGS, store_to(on_head, w, 0));
}

void world_start(struct world *w, struct store *store, struct flow_runner *runner)
{
    w->store = store;
    w->runner = runner;
    load(w);
}

/* ---- one change ---- */

static void put_row(struct world *w, enum store_op op, const struct store_result *r)
{
    size_t i = 0;
    while (load_steps[i].op != op)
        i++;
    if (r->status == STORE_OK)
        load_steps[i].put(w, r);
    else
        w->reload = true;
}

static void on_read(void *arg, uint64_t number, const struct store_result *r)
{
    struct world *w = arg;
    struct world_reading reading;
    bool newest = world_reads_end(&w->reads, number, &reading);
    if (!newest && r->status == STORE_OK) {
        world_read(w, (enum store_op)reading.table, reading.id, reading.flow_id);
        return;
    }
    put_row(w, (enum store_op)reading.table, r);
    flow_wake(w->runner, reading.flow_id);
}

void world_read(struct world *w, enum store_op op, int64_t id, uint64_t flow_id)
{
    struct store_arg arg = id != 0 ? S_INT(id) : S_NULL;
    size_t number = world_reads_begin(&w->reads, (int)op, id, flow_id);
    store_call(w->store, op, op == STORE_WORLD_KEYS ? NULL : &arg,
               op == STORE_WORLD_KEYS ? 0 : 1, store_to(on_read, w, number));
}

/* What an event only names. */
static void read_again(struct world *w, enum store_op op, const json_t *id)
{
    world_read(w, op, json_integer_value(id), 0);
}

static void booking_changed(struct world *w, const json_t *payload, const json_t *b,
                            const char *reservation)
{
    struct world_booking booking = {
        .id = int_of(b, "booking"),
        .node = world_node_slot(w, (int)int_of(b, "node_id")),
        .first = (int)int_of(b, "first"),
        .count = (int)int_of(b, "count"),
        .during = {int_of(b, "from_us"), int_of(b, "to_us")},
        .spot = json_is_true(json_object_get(payload, "spot")),
        .started_us = int_of(payload, "start_us"),
        .gpu_hour_micro = int_of(b, "per_gpu_hour_micro"),
        .notice_us = int_of(b, "notice_us")};
    size_t len = strnlen(reservation, UUID_TEXT - 1);
    memcpy(booking.reservation, reservation, len);
    world_book(w, &booking);
}

static void lanes_changed(struct world *w, const json_t *l)
{
    int path = world_ids_get(&w->ids->paths, (int)int_of(l, "path_id"));
    if (path < 0) { /* its path.changed event was not read yet */
        w->reload = true;
        return;
    }
    struct world_lanes lanes = {.id = int_of(l, "booking"),
                                .path = path,
                                .first = (int)int_of(l, "first"),
                                .count = (int)int_of(l, "count"),
                                .during = {int_of(l, "from_us"), int_of(l, "to_us")}};
    world_book_lanes(w, &lanes);
}

/* A cursor is TRANSACTION:EVENT. */
static int64_t event_number(const json_t *event)
{
    const char *cursor = json_string_value(json_object_get(event, "cursor"));
    const char *colon = cursor != NULL ? strchr(cursor, ':') : NULL;
    return colon != NULL ? strtoll(colon + 1, NULL, 10) : 0;
}

static void reservation_changed(struct world *w, const json_t *event)
{
    const json_t *payload = json_object_get(event, "payload"), *b;
    const char *id = json_string_value(json_object_get(event, "reservation_id"));
    size_t i;
    if (id == NULL || !world_gens_news(w->gens, id, event_number(event),
                                       clock_now_us() + WORLD_NEWS_US))
        return;
    json_array_foreach(json_object_get(payload, "bookings"), i, b)
        booking_changed(w, payload, b, id);
    json_array_foreach(json_object_get(payload, "lanes"), i, b) lanes_changed(w, b);
}

static void wake(void *runner, struct flow *f)
{
    flow_wake(runner, f->id);
}

static void apply(struct world *w, const json_t *event)
{
    const char *kind = json_string_value(json_object_get(event, "kind"));
    const json_t *payload = json_object_get(event, "payload");
    const json_t *node = json_object_get(event, "node_id");
    if (kind == NULL)
        return;
    if (strncmp(kind, "reservation.", 12) == 0) {
        reservation_changed(w, event);
        const char *state = json_string_value(json_object_get(payload, "state"));
        if (state != NULL && strcmp(state, "waiting") == 0 &&
            strcmp(kind, "reservation.planned") != 0)
            w->wait_due = true; /* new, or preempted and back */
        if (strcmp(kind, "reservation.cancelled") == 0 ||
            strcmp(kind, "reservation.ended") == 0 ||
            strcmp(kind, "reservation.failed") == 0)
            w->revoked_due = true;
    } else if (strcmp(kind, "node.changed") == 0 ||
               strcmp(kind, "price.changed") == 0) {
        read_again(w, STORE_WORLD_NODES, node);
    } else if (strcmp(kind, "node.probed") == 0) {
        read_again(w, STORE_WORLD_RTTS, node);
    } else if (strcmp(kind, "site.changed") == 0) {
        read_again(w, STORE_WORLD_SITES, json_object_get(payload, "site_id"));
    } else if (strcmp(kind, "key.changed") == 0) {
        read_again(w, STORE_WORLD_KEYS, NULL);
    } else if (strcmp(kind, "dataset.changed") == 0) {
        read_again(w, STORE_WORLD_DATASETS, json_object_get(payload, "dataset_id"));
    } else if (strcmp(kind, "terms.changed") == 0) {
        w->hold_window_us = int_of(payload, "hold_window_us");
    } else if (strcmp(kind, "path.changed") == 0) {
        read_again(w, STORE_WORLD_PATHS, json_object_get(payload, "path_id"));
    }
    w->version++;
    w->changes++;
}

/* ---- the feed ---- */

static void on_polled(void *arg, uint64_t id, const struct store_result *r)
{
    struct world *w = arg;
    (void)id;
    w->polling = false;
    if (r->status != STORE_OK) {
        /* Also a cursor too old to go on from: what was missed is not known. */
        w->reload = true;
        return;
    }
    const json_t *events = json_object_get(r->json, "events"), *event;
    const char *cursor = json_string_value(json_object_get(r->json, "cursor"));
    size_t i;
    int64_t read = int_of(r->json, "read");
    json_array_foreach(events, i, event) apply(w, event);
    if (cursor != NULL) {
        free(w->cursor);
        w->cursor = xstrdup(cursor);
    }
    if (read > 0)
        flow_runner_each(w->runner, &flow_events, wake, w->runner);
    if (w->revoked_due) /* not with the next tick: nodes are woken now */
        read_revoked(w, w->ticked_us);
    if (w->poll_due || read == CHANGES_AT_ONCE) {
        w->poll_due = false;
        world_poll(w);
    }
}

void world_poll(struct world *w)
{
    if (w->polling || !w->loaded) {
        w->poll_due = true;
        return;
    }
    w->polling = true;
    store_call(w->store, STORE_CHANGES,
               STORE_ARGS(S_TEXT(w->cursor), S_INT(CHANGES_AT_ONCE),
                          S_BOOL(clock_boot_us() < w->own_until_us)),
               store_to(on_polled, w, 0));
}

void world_told(struct world *w, const json_t *events)
{
    const json_t *event;
    size_t i;
    if (w->loaded)
        json_array_foreach(events, i, event) apply(w, event);
    world_poll(w);
}

/* Perhaps booked, perhaps being committed still by a session that is cut off: the
 * tables tell the one, the feed the other. */
void world_unknown(struct world *w)
{
    w->reload = true;
    w->own_until_us = clock_boot_us() + UNKNOWN_US;
}

void world_hint(struct world *w, bool own)
{
    if (w->store == NULL)
        return;
    if (own && clock_boot_us() >= w->own_until_us)
        flow_runner_each(w->runner, &flow_events, wake, w->runner);
    else
        world_poll(w);
}

/* ---- by time ---- */

static void on_moved(void *arg, uint64_t id, const struct store_result *r)
{
    static const char *const lists[] = {"started", "ended", "expired", "unknown",
                                        "lost"};
    struct world *w = arg;
    (void)id;
    if (r->status != STORE_OK)
        return;
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        if (json_array_size(json_object_get(r->json, lists[i])) > 0)
            world_poll(w);
}

static void on_revoked(void *arg, uint64_t asked_us, const struct store_result *r)
{
    struct world *w = arg;
    w->revoked_asked = false;
    if (r->status == STORE_OK && (int64_t)asked_us >= w->revoked_at_us)
        revoked_set(w, r, (int64_t)asked_us);
    if (w->revoked_due) /* and more were, meanwhile */
        read_revoked(w, w->ticked_us);
}

static void read_revoked(struct world *w, int64_t now_us)
{
    if (w->revoked_asked ||
        (!w->revoked_due && now_us - w->revoked_at_us < WORLD_STATUS_LIST_US))
        return;
    w->revoked_asked = true;
    w->revoked_due = false;
    store_call(w->store, STORE_STATUS, STORE_ARGS(S_INT(now_us)),
               store_to(on_revoked, w, (uint64_t)now_us));
}

/* Nobody is said to be silent, or lost, before this server has listened for as long. */
static void judge_silence(struct world *w, int64_t now_us)
{
    int64_t listened_us = now_us - w->started_us;
    if (listened_us <= w->unknown_after_us || now_us - w->overdue_us < OVERDUE_EACH_US)
        return;
    w->overdue_us = now_us;
    int64_t lost_us = listened_us > w->lost_after_us ? w->lost_after_us : NEVER_US;
    store_call(w->store, STORE_NODES_OVERDUE,
               STORE_ARGS(S_INT(now_us), S_INT(w->unknown_after_us), S_INT(lost_us)),
               store_to(on_moved, w, 0));
}

static void on_pruned(void *arg, uint64_t id, const struct store_result *r)
{
    struct world *w = arg;
    (void)id;
    if (r->status != STORE_OK) /* again in a while, not at once */
        w->pruned_us += PRUNE_AGAIN_US - PRUNE_EACH_US;
}

void world_tick(struct world *w, int64_t now_us)
{
    w->ticked_us = now_us;
    if (w->reload || !w->loaded) {
        if (!w->polling)
            load(w);
        return;
    }
    world_poll(w);
    read_revoked(w, now_us);
    store_call(w->store, STORE_TRANSITIONS,
               STORE_ARGS(S_INT(now_us), S_INT(END_GRACE_US)),
               store_to(on_moved, w, 0));
    judge_silence(w, now_us);
    if (now_us - w->expired_us >= EXPIRE_EACH_US) {
        w->expired_us = now_us;
        calendar_expire(w->calendar, now_us);
        calendar_expire(w->lanes, now_us);
        if (w->firm != NULL)
            calendar_expire(w->firm, now_us);
        world_expire_spots(w, now_us);
        world_gens_expire(w->gens, now_us);
    }
    if (now_us - w->pruned_us >= PRUNE_EACH_US) {
        w->pruned_us = now_us;
        store_call(w->store, STORE_PRUNE, STORE_ARGS(S_INT(now_us)),
                   store_to(on_pruned, w, 0));
    }
    world_elect_due(w, now_us);
    world_count_up(w);
}
