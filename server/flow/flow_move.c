/* POST /v1/reservations/{id}/move: a reservation that has not started goes to the best
 * place for its request, with the members of the body in place of the stored ones.
 *
 *   check    the members are such as a request may have
 *   ask      the reservation as it is now,
 *   read     its request and where it is
 *   rank     the best plan as if its present place were free
 *   book     the new place booked and the old one freed in one commit; a dry run tries
 *            both and undoes them
 *   outcome  moved, or lost to another: ask again
 *
 * It pays the new place's price. A connection that breaks after the question was sent
 * leaves the outcome unknown: asked again, it is at its best place or moves there. */
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "server/flow/call.h"
#include "server/flow/flow_resv.h"
#include "server/flow/flows.h"
#include "server/flow/plan.h"
#include "server/flow/render.h"
#include "server/flow/replace.h"

struct move {
    struct db_slot db;
    json_t *over; /* owned: the members in place of the stored ones */
    json_t *resv; /* owned: as it is now */
    struct request rq;
    struct plan plan;
    struct plan_pick pick;
    int64_t generation; /* asked for, 0: any */
    bool dry_run;
    struct world_try tries[RESERVE_CANDIDATES_MAX];
    size_t try_count;
};

static enum flow_turn move_ask(struct flow *f);

/* Takes the members that are not the request's out of the body's copy. */
static int move_parse(const struct flow *f, struct move *s, struct err *err)
{
    static const struct jsonx_field fields[] = {
        {"generation", JSONX_INT, false, offsetof(struct move, generation), 1,
         INT32_MAX},
        {"dry_run", JSONX_BOOL, false, offsetof(struct move, dry_run)},
    };
    static const char *const never[] = {"quote", "hold", "wait", "wait_until", "spot"};
    json_t *own = json_object();
    s->over = f->rq->body != NULL ? json_copy(f->rq->body) : json_object();
    for (size_t i = 0; i < JSONX_COUNT(fields); i++) {
        json_t *v = json_object_get(s->over, fields[i].name);
        if (v != NULL)
            json_object_set(own, fields[i].name, v);
        json_object_del(s->over, fields[i].name);
    }
    int rc = jsonx_decode(own, fields, JSONX_COUNT(fields), s, "", err);
    json_decref(own);
    for (size_t i = 0; rc == 0 && i < sizeof(never) / sizeof(never[0]); i++)
        if (json_object_get(s->over, never[i]) != NULL)
            rc = err_set(err, ERR_BAD_REQUEST, "/%s: cannot be changed by moving",
                         never[i]);
    return rc != 0 ? -1 : resv_if_match(f, &s->generation, err);
}

static enum flow_turn move_check(struct flow *f)
{
    struct move *s = f->state;
    const char *id;
    struct err err;
    if (!db_no_query(f, &err) || resv_id(f, &id, &err) != 0 ||
        move_parse(f, s, &err) != 0)
        return flow_fail(f, &err);
    return FLOW_MORE;
}

static enum flow_turn move_ask(struct flow *f)
{
    const char *id = flow_param(f, "id");
    return db_call(f, STORE_RESV_GET,
                   STORE_ARGS(S_TEXT(f->rq->who.tenant_id), S_TEXT(id)));
}

static const char *text_of(const json_t *obj, const char *name)
{
    const char *v = json_string_value(json_object_get(obj, name));
    return v != NULL ? v : "";
}

static int64_t int_of(const json_t *obj, const char *name)
{
    return json_integer_value(json_object_get(obj, name));
}

/* What it is now, not what was asked at first: it may have been extended or shrunk, and
 * a start that was "at once" has become the start it got. */
static json_t *present_request(const json_t *resv)
{
    char duration[TIMEFMT_MAX];
    json_t *out = json_deep_copy(json_object_get(resv, "request"));
    const json_t *first = json_array_get(json_object_get(resv, "allocations"), 0);
    timefmt_duration(int_of(resv, "end_us") - int_of(resv, "start_us"), duration);
    json_object_set_new(out, "duration", json_string(duration));
    json_object_set_new(out, "gpus", json_integer(int_of(first, "count")));
    if (json_object_get(out, "earliest") == NULL &&
        json_object_get(out, "latest") == NULL)
        json_object_set_new(out, "start", jsonx_time(int_of(resv, "start_us")));
    json_object_del(out, "wait");
    json_object_del(out, "wait_until");
    json_object_del(out, "hold");
    json_object_del(out, "quote");
    return out;
}

static enum flow_turn move_read(struct flow *f)
{
    struct move *s = f->state;
    struct err err;
    if (db_failed(f))
        return db_fail(f);
    json_decref(s->resv);
    request_done(&s->rq);
    s->resv = json_incref(s->db.json);
    const char *state = text_of(s->resv, "state");
    int64_t generation = int_of(s->resv, "generation");
    if (strcmp(state, "confirmed") != 0 || int_of(s->resv, "start_us") <= f->now_us) {
        err_set(&err, ERR_CONFLICT,
                "only a reservation that has not started can be moved: this one is %s",
                strcmp(state, "confirmed") == 0 ? "starting" : state);
        return flow_fail(f, &err);
    }
    if (s->generation != 0 && s->generation != generation) {
        err_set(&err, ERR_CONFLICT,
                "the reservation has generation %lld, not %lld: read it again",
                (long long)generation, (long long)s->generation);
        return flow_fail(f, &err);
    }
    json_t *present = present_request(s->resv), *tree = request_merge(present, s->over);
    int rc = request_from_body(tree, world_of(f)->currency, f->now_us, &s->rq, &err);
    json_decref(present);
    json_decref(tree);
    return rc != 0 ? flow_fail(f, &err) : FLOW_MORE;
}

/* ---- the best place, its own counted as free ---- */

static enum flow_turn move_stays(struct flow *f)
{
    struct move *s = f->state;
    json_object_set_new(s->resv, "change",
                        json_pack("{s:i, s:O, s:b, s:b}", "delta_micro", 0,
                                  "new_total_micro",
                                  json_object_get(s->resv, "total_micro"), "dry_run",
                                  s->dry_run, "moved", 0));
    return flow_reply_json(f, 200, render_change(s->resv));
}

/* Without other wishes a place that is no better is no reason to move. */
static bool is_no_better(const struct move *s)
{
    return json_object_size(s->over) == 0 &&
           s->plan.best->effective_micro >= int_of(s->resv, "effective_micro") &&
           s->plan.best->start_us >= int_of(s->resv, "start_us");
}

static enum flow_turn move_rank(struct flow *f)
{
    struct move *s = f->state;
    struct world *w = world_of(f);
    const char *tenant = f->rq->who.tenant_id;
    struct err err;
    plan_done(&s->plan);
    plan_pick_done(&s->pick);
    struct world_lifted own;
    replace_lift(w, s->resv, &own);
    int rc = plan_rank(w, &s->rq, tenant, f->now_us, &s->plan, &err);
    if (rc == 0 && !s->plan.fits)
        plan_judge(w, &s->rq, f->now_us, &s->plan);
    replace_put_back(w, &own);
    if (rc != 0)
        return flow_fail(f, &err);
    if (!s->plan.fits) {
        plan_no_fit(w, &s->plan, &err);
        flow_fail_detail(f, "rejected", plan_rejected(w, &s->plan, &s->rq));
        return flow_fail(f, &err);
    }
    plan_pick(w, &s->plan, f->now_us, &s->pick);
    if (plan_pick_is(w, &s->pick, s->resv) || is_no_better(s))
        return move_stays(f);
    return FLOW_MORE;
}

/* ---- there ---- */

static enum flow_turn move_book(struct flow *f)
{
    struct move *s = f->state;
    struct world *w = world_of(f);
    const struct match_plan *p = s->pick.plan;
    s->tries[s->try_count++] = world_try_plan(w, p);
    struct plan_rows rows;
    plan_rows(w, &s->pick, &rows);
    json_object_set(rows.extra, "request", s->rq.tree);
    json_t *bookings = plan_bookings_json(&s->pick, &rows),
           *paths = plan_paths_json(&s->pick, &rows),
           *prices = plan_prices_json(&s->pick);
    enum flow_turn turn = db_call(
        f, STORE_RESV_MOVE,
        STORE_ARGS(S_TEXT(f->rq->who.tenant_id), S_TEXT(flow_param(f, "id")),
                   S_INT(int_of(s->resv, "generation")), S_JSON(bookings),
                   S_JSON(paths), S_INT(p->start_us), S_INT(p->start_us + p->len_us),
                   S_JSON(prices), S_JSON(s->pick.data), S_JSON(rows.extra),
                   S_BOOL(false), S_BOOL(s->dry_run), S_INT(f->now_us)));
    json_decref(bookings);
    json_decref(paths);
    json_decref(prices);
    plan_rows_done(&rows);
    return turn;
}

static enum flow_turn move_outcome(struct flow *f)
{
    struct move *s = f->state;
    struct world *w = world_of(f);
    if (db_failed(f)) {
        if (s->db.status == STORE_UNKNOWN)
            world_unknown(w);
        world_poll(w); /* what was in the way: a booking, or it has changed itself */
        bool lost = s->db.status == STORE_FAILED && s->db.err.code == ERR_CONFLICT &&
                    s->try_count < RESERVE_CANDIDATES_MAX;
        world_try_lost(w, &s->tries[s->try_count - 1], s->pick.plan);
        return lost ? flow_goto(f, move_ask) : db_fail(f);
    }
    json_object_set_new(json_object_get(s->db.json, "change"), "moved", json_true());
    if (!s->dry_run)
        world_told(w, json_object_get(s->db.json, "events"));
    return flow_reply_json(f, 200, render_change(s->db.json));
}

static void move_done(struct flow *f)
{
    struct move *s = f->state;
    for (size_t i = 0; i < s->try_count; i++)
        world_try_end(world_of(f), &s->tries[i]);
    plan_done(&s->plan);
    plan_pick_done(&s->pick);
    request_done(&s->rq);
    json_decref(s->over);
    json_decref(s->resv);
    db_done(f);
}

static const struct flow_step move_steps[] = {
    {"check", move_check}, {"ask", move_ask},   {"read", move_read},
    {"rank", move_rank},   {"book", move_book}, {"outcome", move_outcome}};
const struct flow_kind flow_move =
    FLOW_KIND_DONE("flow_move", struct move, move_steps, move_done);
