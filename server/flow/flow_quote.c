/* POST /v1/quotes: the best plan now, at a price that binds for some minutes.
 *
 *   earlier  a repeated key whose GPUs are held: the first quote, with the plan it had
 *   rank     the best plan; not to be held: else one that preempts spot leases
 *   hold     asked for: its GPUs and lanes are booked, without money, until the quote
 *   held     expires by itself; lost to another: rank again
 *   keep     the quote, under its idempotency key
 *   repeat   a repeated key: as above
 *   reply
 *
 * What is held begins when the quote expires at the earliest: until then it could not
 * be told from a lease that nobody paid for. Without hold nothing is kept but the
 * price: booking a quote fails when its GPUs went to somebody else meanwhile. Held
 * first and kept then: a server that dies between the two leaves a hold that nobody
 * knows of, which ends with the quote that never was. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/digest.h"
#include "client/lib/jsonx.h"
#include "client/lib/money.h"
#include "client/lib/timefmt.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/plan.h"
#include "server/flow/render.h"

#define QUOTE_LIFE_US (5 * 60 * US_PER_S)

struct quote {
    struct db_slot db;
    struct db_idem idem;
    struct request rq;
    struct plan plan;
    struct plan_pick pick;
    struct world_try tries[RESERVE_CANDIDATES_MAX]; /* what is held, or was lost */
    size_t try_count;
    char id[UUID_TEXT];
    char hold_key[FLOW_KEY_MAX + 8]; /* "" none was sent */
    int64_t made_us, expires_us;
};

static enum flow_turn quote_earlier(struct flow *f);
static enum flow_turn quote_first(struct flow *f);
static enum flow_turn quote_rank(struct flow *f);
static enum flow_turn quote_hold(struct flow *f);
static enum flow_turn quote_held(struct flow *f);
static enum flow_turn quote_keep(struct flow *f);
static enum flow_turn quote_repeat(struct flow *f);
static enum flow_turn quote_reply(struct flow *f);

static enum flow_turn quote_check(struct flow *f)
{
    struct quote *s = f->state;
    uint8_t random[10];
    struct err err;
    if (!db_no_query(f, &err) || request_from_body(f->rq->body, world_of(f)->currency,
                                                   f->now_us, &s->rq, &err) != 0)
        return flow_fail(f, &err);
    if (s->rq.quote != NULL || s->rq.wait) {
        err_set(&err, ERR_BAD_REQUEST, "/%s: a quote cannot %s",
                s->rq.quote != NULL ? "quote" : "wait",
                s->rq.quote != NULL ? "be quoted" : "wait; reserve with wait instead");
        return flow_fail(f, &err);
    }
    digest_random(random, sizeof(random));
    uuid_v7(f->now_us, random, s->id);
    db_idem(f, &s->idem);
    s->made_us = f->now_us;
    if (!s->rq.hold || s->idem.key == NULL)
        return flow_goto(f, quote_rank);
    /* A reservation may have the same key: this is not it. */
    snprintf(s->hold_key, sizeof(s->hold_key), "quote:%s", s->idem.key);
    return flow_goto(f, quote_earlier);
}

/* ---- was it held earlier? ---- */

static enum flow_turn quote_earlier(struct flow *f)
{
    struct quote *s = f->state;
    flow_goto(f, quote_first);
    return db_call(f, STORE_RESV_BY_KEY,
                   STORE_ARGS(S_TEXT(f->rq->who.tenant_id), S_TEXT(s->hold_key)));
}

static enum flow_turn read_first(struct flow *f, const char *id)
{
    struct quote *s = f->state;
    memcpy(s->id, id, strnlen(id, UUID_TEXT - 1) + 1);
    flow_goto(f, quote_reply);
    return db_call(f, STORE_QUOTE_GET,
                   STORE_ARGS(S_TEXT(f->rq->who.tenant_id), S_TEXT(s->id)));
}

static enum flow_turn quote_first(struct flow *f)
{
    struct quote *s = f->state;
    char hash[SHA256_HEX];
    struct err err;
    if (db_failed(f))
        return s->db.err.code == ERR_NOT_FOUND ? flow_goto(f, quote_rank) : db_fail(f);
    const char *first = json_string_value(json_object_get(s->db.json, "idem_hash")),
               *id = json_string_value(json_object_get(s->db.json, "quote_id"));
    digest_hex(s->idem.hash, sizeof(s->idem.hash), hash);
    if (first == NULL || id == NULL || strcmp(first, hash) != 0) {
        err_set(&err, ERR_KEY_REUSED,
                "this Idempotency-Key was used with another request; use a new one");
        return flow_fail(f, &err);
    }
    return read_first(f, id);
}

static enum flow_turn quote_rank(struct flow *f)
{
    struct quote *s = f->state;
    struct world *w = world_of(f);
    const char *tenant = f->rq->who.tenant_id;
    struct err err;
    plan_done(&s->plan);
    plan_pick_done(&s->pick);
    s->expires_us = s->made_us + QUOTE_LIFE_US;
    if (s->rq.hold && s->rq.at_once)
        s->rq.from_us = s->rq.latest_us = s->expires_us;
    if (plan_rank(w, &s->rq, tenant, f->now_us, &s->plan, &err) != 0)
        return flow_fail(f, &err);
    if (!s->plan.fits && !s->rq.hold)
        plan_preempt(w, &s->rq, f->now_us, &s->plan);
    plan_log(w, &s->rq, &s->plan, tenant, "quote", s->plan.fits ? "ok" : "no_fit");
    if (!s->plan.fits) {
        plan_judge(w, &s->rq, f->now_us, &s->plan);
        plan_no_fit(w, &s->plan, &err);
        flow_fail_detail(f, "rejected", plan_rejected(w, &s->plan, &s->rq));
        return flow_fail(f, &err);
    }
    plan_pick(w, &s->plan, f->now_us, &s->pick);
    if (s->rq.hold && s->pick.plan->start_us < s->expires_us)
        s->expires_us = s->pick.plan->start_us;
    return s->rq.hold ? flow_goto(f, quote_hold) : flow_goto(f, quote_keep);
}

/* ---- held until it expires ---- */

static enum flow_turn quote_hold(struct flow *f)
{
    struct quote *s = f->state;
    struct world *w = world_of(f);
    s->tries[s->try_count++] = world_try_plan(w, s->pick.plan);
    struct plan_rows rows;
    plan_rows(w, &s->pick, &rows);
    struct store_book book = {.now_us = f->now_us,
                              .request = s->rq.tree,
                              .idem_key = s->hold_key[0] != '\0' ? s->hold_key : s->id,
                              .idem_hash = s->idem.hash,
                              .hold_until_us = s->expires_us};
    plan_book(w, &s->pick, &rows, &book);
    memcpy(book.id, s->id, sizeof(book.id));
    memcpy(book.quote_id, s->id, sizeof(book.quote_id));
    memcpy(book.tenant_id, f->rq->who.tenant_id, sizeof(book.tenant_id));
    enum flow_turn turn = db_book(f, &book);
    plan_rows_done(&rows);
    return turn;
}

static enum flow_turn quote_held(struct flow *f)
{
    struct quote *s = f->state;
    struct world *w = world_of(f);
    struct err err;
    if (s->db.status == STORE_UNKNOWN)
        world_unknown(w);
    if (db_failed(f))
        return db_fail(f);
    if (s->db.outcome == STORE_BOOK_OK) {
        world_booked(w, &(struct world_booked){.reservation = s->id,
                                               .plan = s->pick.plan,
                                               .booking_id = s->db.booking_id,
                                               .lane_booking_id = s->db.booking_id +
                                                                  s->db.booking_count});
        return flow_goto(f, quote_keep);
    }
    if (s->db.outcome != STORE_BOOK_LOST)
        return flow_goto(f, quote_earlier);
    world_try_lost(w, &s->tries[s->try_count - 1], s->pick.plan);
    world_poll(w); /* somebody else's booking: learn of it */
    if (s->try_count < RESERVE_CANDIDATES_MAX)
        return flow_goto(f, quote_rank);
    err_set(&err, ERR_CONFLICT, "lost %d places in a row to other requests; try again",
            RESERVE_CANDIDATES_MAX);
    return flow_fail(f, &err);
}

/* ---- the quote ---- */

static enum flow_turn quote_keep(struct flow *f)
{
    struct quote *s = f->state;
    uint8_t hash[SHA256_LEN];
    json_t *plan = plan_pick_save(world_of(f), &s->pick);
    json_object_set_new(plan, "held", json_boolean(s->rq.hold));
    json_object_set_new(plan, "preempts", json_boolean(s->pick.preempt_count > 0));
    char *text = jsonx_dump(plan);
    digest_sha256(text, strlen(text), hash);
    free(text);
    flow_goto(f, quote_repeat);
    enum flow_turn turn =
        db_call(f, STORE_QUOTE_PUT,
                STORE_ARGS(S_TEXT(s->id), S_TEXT(f->rq->who.tenant_id),
                           S_INT(s->made_us), S_INT(s->expires_us), S_JSON(s->rq.tree),
                           S_JSON(plan), S_BYTES(hash, SHA256_LEN), DB_IDEM(s->idem)));
    json_decref(plan);
    return turn;
}

static enum flow_turn quote_repeat(struct flow *f)
{
    struct quote *s = f->state;
    if (db_failed(f))
        return db_fail(f);
    const char *id = json_string_value(json_object_get(s->db.json, "id"));
    return id == NULL || strcmp(id, s->id) == 0 ? flow_goto(f, quote_reply)
                                                : read_first(f, id);
}

/* Prices are net. What the invoice will add, should all of it be used; there it is
 * computed once per rate on the sum of lines and rounded to the minor unit. */
static json_t *tax_json(const struct world *w, const json_t *quote)
{
    const json_t *tax = json_object_get(quote, "tax");
    if (!json_is_object(tax)) /* kept by an older server */
        return json_null();
    return json_pack("{s:s, s:O?, s:O?}", "currency", w->currency, "micro",
                     json_object_get(tax, "micro"), "rate_ppm",
                     json_object_get(tax, "rate_ppm"));
}

static enum flow_turn quote_reply(struct flow *f)
{
    struct quote *s = f->state;
    struct err err;
    if (db_failed(f) && s->db.err.code == ERR_NOT_FOUND) {
        err_set(&err, ERR_CONFLICT,
                "the first request with this key was cut off: ask again with another");
        return flow_fail(f, &err);
    }
    if (db_failed(f))
        return db_fail(f);
    const json_t *first = json_object_get(s->db.json, "plan");
    if (first != NULL) { /* a repetition */
        plan_pick_done(&s->pick);
        if (plan_pick_load(world_of(f), first, &s->pick, &err) != 0)
            return flow_fail(f, &err);
    }
    struct plan_resv who = {s->id, f->rq->who.name, s->rq.hold ? "held" : "waiting",
                            s->made_us};
    json_t *resv = plan_resv(world_of(f), &s->pick, &who);
    json_t *reply = json_pack(
        "{s:s, s:o, s:b, s:o, s:o}", "id", s->id, "expires_at",
        jsonx_time(json_integer_value(json_object_get(s->db.json, "expires_us"))),
        "held", s->rq.hold, "plan", render_resv(resv), "tax",
        tax_json(world_of(f), s->db.json));
    json_decref(resv);
    return flow_reply_json(f, 201, reply);
}

static void quote_done(struct flow *f)
{
    struct quote *s = f->state;
    for (size_t i = 0; i < s->try_count; i++)
        world_try_end(world_of(f), &s->tries[i]);
    plan_done(&s->plan);
    plan_pick_done(&s->pick);
    request_done(&s->rq);
    db_done(f);
}

static const struct flow_step quote_steps[] = {
    {"check", quote_check}, {"earlier", quote_earlier}, {"first", quote_first},
    {"rank", quote_rank},   {"hold", quote_hold},       {"held", quote_held},
    {"keep", quote_keep},   {"repeat", quote_repeat},   {"reply", quote_reply}};
const struct flow_kind flow_quote =
    FLOW_KIND_DONE("flow_quote", struct quote, quote_steps, quote_done);
