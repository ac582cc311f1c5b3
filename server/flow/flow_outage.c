/* The server's own work after an outage or a ban: what was booked on a lost or banned
 * node and has not started finds another place, or is given up with the fault named.
 *
 *   read     the reservations on lost nodes, the next start first
 *   place    plan the next one anew, within its request's own bounds and at no higher
 *            price a GPU-hour; spot is not placed anew
 *   placed   what came of it; the next, or the end
 *
 * The tenant pays what it paid before (keep_price). What runs is left alone: the node
 * may be alive and only cut off; but what runs on a banned one is revoked, all of it
 * where it has several nodes. Several servers may do this at once: the row's lock and
 * its generation let one of them win, the others find a conflict and go on. One that
 * loses a race for the new place tries the next time. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/log.h"
#include "client/lib/xalloc.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/plan.h"
#include "server/flow/replace.h"

struct outage {
    struct db_slot db;
    json_t *list; /* owned */
    size_t next;
    struct world_try blocked;
};

static enum flow_turn outage_place(struct flow *f);
static enum flow_turn outage_placed(struct flow *f);

static const json_t *current(const struct outage *s)
{
    return json_array_get(s->list, s->next);
}

static const char *text_of(const json_t *obj, const char *name)
{
    const char *text = json_string_value(json_object_get(obj, name));
    return text != NULL ? text : "";
}

static enum flow_turn outage_read(struct flow *f)
{
    return db_call(f, STORE_RESV_LOST, STORE_ARGS(S_INT(f->now_us)));
}

static enum flow_turn outage_list(struct flow *f)
{
    struct outage *s = f->state;
    if (db_failed(f))
        return FLOW_DONE; /* the next time */
    s->list = json_incref(json_object_get(s->db.json, "reservations"));
    return FLOW_MORE;
}

/* "node n1 at tokyo lost" */
static char *fault_of(const json_t *resv)
{
    bool banned = json_is_true(json_object_get(resv, "banned"));
    const json_t *lost = json_object_get(resv, "lost"), *a;
    size_t i;
    json_array_foreach(json_object_get(resv, "allocations"), i, a)
    {
        if (json_equal(json_object_get(a, "node_id"), json_array_get(lost, 0)))
            return xasprintf("node %s at %s %s", text_of(a, "node"), text_of(a, "site"),
                             banned ? "banned" : "lost");
    }
    return xstrdup(banned ? "a node of it was banned" : "a node of it was lost");
}

static enum flow_turn give_up(struct flow *f, const char *why)
{
    struct outage *s = f->state;
    const json_t *resv = current(s);
    char *fault = fault_of(resv);
    log_warn("reservation %s is given up: %s; %s", text_of(resv, "id"), fault, why);
    flow_goto(f, outage_placed);
    enum flow_turn turn = db_call(
        f, STORE_RESV_FAIL,
        STORE_ARGS(S_TEXT(text_of(resv, "id")), S_TEXT(fault),
                   S_INT(json_integer_value(json_object_get(resv, "generation"))),
                   S_INT(f->now_us)));
    free(fault);
    return turn;
}

static enum flow_turn move(struct flow *f, const struct plan_pick *pick)
{
    struct outage *s = f->state;
    struct world *w = world_of(f);
    const json_t *resv = current(s);
    int64_t start_us = pick->plan->start_us, end_us = start_us + pick->plan->len_us;
    struct plan_rows rows;
    plan_rows(w, pick, &rows);
    json_t *bookings = plan_bookings_json(pick, &rows);
    json_t *paths = plan_paths_json(pick, &rows), *prices = plan_prices_json(pick);
    s->blocked = world_try_plan(w, pick->plan);
    log_info("reservation %s is placed anew: its node was lost", text_of(resv, "id"));
    flow_goto(f, outage_placed);
    enum flow_turn turn = db_call(
        f, STORE_RESV_MOVE,
        STORE_ARGS(S_NULL, S_TEXT(text_of(resv, "id")),
                   S_INT(json_integer_value(json_object_get(resv, "generation"))),
                   S_JSON(bookings), S_JSON(paths), S_INT(start_us), S_INT(end_us),
                   S_JSON(prices), S_JSON(pick->data), S_JSON(rows.extra), S_BOOL(true),
                   S_BOOL(false), S_INT(f->now_us)));
    json_decref(bookings);
    json_decref(paths);
    json_decref(prices);
    plan_rows_done(&rows);
    return turn;
}

static enum flow_turn outage_place(struct flow *f)
{
    struct outage *s = f->state;
    struct world *w = world_of(f);
    if (s->next == json_array_size(s->list))
        return FLOW_DONE;
    const json_t *resv = current(s);
    if (json_is_true(json_object_get(resv, "begun")))
        return give_up(f, "it has begun");
    if (json_is_true(json_object_get(resv, "spot")))
        return give_up(f, "spot leases are not placed anew");
    struct replace_plan r;
    struct err why;
    if (replace_find(w, resv, NULL, f->now_us, &r, &why) != 0)
        return give_up(f, why.text);
    struct plan_pick pick;
    plan_settle(w, &r.where, r.plan, f->now_us, &pick);
    enum flow_turn turn = move(f, &pick);
    plan_pick_done(&pick);
    replace_done(&r);
    return turn;
}

static enum flow_turn outage_placed(struct flow *f)
{
    struct outage *s = f->state;
    if (s->db.status == STORE_UNKNOWN)
        world_unknown(world_of(f));
    else if (db_failed(f))
        log_info("reservation %s: %s", text_of(current(s), "id"), s->db.err.text);
    world_try_end(world_of(f), &s->blocked);
    world_poll(world_of(f));
    s->next++;
    return flow_goto(f, outage_place);
}

static void outage_done(struct flow *f)
{
    struct outage *s = f->state;
    world_try_end(world_of(f), &s->blocked);
    json_decref(s->list);
    if (world_of(f)->outage_flow == f->id)
        world_of(f)->outage_flow = 0;
    db_done(f);
}

static const struct flow_step outage_steps[] = {{"read", outage_read},
                                                {"list", outage_list},
                                                {"place", outage_place},
                                                {"placed", outage_placed}};
const struct flow_kind flow_outage =
    FLOW_KIND_DONE("flow_outage", struct outage, outage_steps, outage_done);
