/* POST /v1/reservations: the way of one reservation, top to bottom.
 *
 *   check     the request is well formed
 *   quote     a quote names the plan and the price: read it,
 *   quoted    see that it still stands; if its GPUs are held,
 *   confirm   pay for them
 *   rank      the best plan for the request now, by effective price
 *   preempt   no place is free: what would firm demand take from spot leases?
 *   book      GPUs, lanes, cuts, money and event in one commit (server/db/batch.h)
 *   outcome   booked: reply. Lost to another server: rank again without that plan
 *   wait      nothing fits and the request may wait: it joins the standing orders
 *   earlier   before anything is refused: was this very request granted already?
 *
 * A plan is one node, a gang, or a group near each data set, with the paths between; it
 * is booked whole or not at all.
 *
 * The database decides. What is matched on here is a copy; being behind costs a lost
 * race and another candidate, never a GPU sold twice. A reply follows its commit. When
 * the connection breaks between the two, the outcome is read by the idempotency key. */
#include <inttypes.h>
#include <string.h>

#include "client/lib/digest.h"
#include "client/lib/jsonx.h"
#include "client/lib/money.h"
#include "client/lib/timefmt.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/plan.h"
#include "server/flow/render.h"

struct reserve {
    struct db_slot db;
    struct request rq;
    struct plan plan;
    struct plan_pick pick;
    struct db_idem idem;
    char id[UUID_TEXT], quote[UUID_TEXT]; /* quote "": none */
    /* GPUs and lanes we are booking, or lost: taken in this server's calendars until we
     * end. */
    struct world_try tries[RESERVE_CANDIDATES_MAX];
    size_t try_count;
    int64_t booked_us; /* when the last booking was sent */
    bool ranks;        /* not a quote's own plan */
    int waits, rereads;
    struct err refusal; /* what is said when the request was not granted earlier */
};

/* How often a request that finds everything busy waits for bookings in flight. */
#define WAITS_MAX 8
/* After a lost connection the other end may still be committing. */
#define REREADS_MAX   5
#define REREAD_GAP_US INT64_C(200000)

static enum flow_turn reserve_quote(struct flow *f);
static enum flow_turn reserve_quoted(struct flow *f);
static enum flow_turn reserve_confirm(struct flow *f);
static enum flow_turn reserve_confirmed(struct flow *f);
static enum flow_turn reserve_rank(struct flow *f);
static enum flow_turn reserve_preempt(struct flow *f);
static enum flow_turn reserve_book(struct flow *f);
static enum flow_turn reserve_outcome(struct flow *f);
static enum flow_turn reserve_wait(struct flow *f);
static enum flow_turn reserve_waiting(struct flow *f);
static enum flow_turn reserve_earlier(struct flow *f);
static enum flow_turn reserve_found(struct flow *f);

static enum flow_turn reserve_check(struct flow *f)
{
    struct reserve *s = f->state;
    struct err err;
    uint8_t random[10];
    if (!db_no_query(f, &err) || request_from_body(f->rq->body, world_of(f)->currency,
                                                   f->now_us, &s->rq, &err) != 0)
        return flow_fail(f, &err);
    if (s->rq.hold) {
        err_set(&err, ERR_BAD_REQUEST,
                "/hold: a quote can be held; a reservation is booked at once");
        return flow_fail(f, &err);
    }
    digest_random(random, sizeof(random));
    uuid_v7(f->now_us, random, s->id);
    db_idem(f, &s->idem);
    if (s->rq.quote == NULL)
        return flow_goto(f, reserve_rank);
    memcpy(s->quote, s->rq.quote, sizeof(s->quote));
    return flow_goto(f, reserve_quote);
}

static enum flow_turn refuse(struct flow *f)
{
    /* Without a key of the client's there can be no earlier request. */
    struct reserve *s = f->state;
    return s->idem.key != NULL ? flow_goto(f, reserve_earlier)
                               : flow_fail(f, &s->refusal);
}

/* ---- the plan: quoted, … ---- */

static enum flow_turn reserve_quote(struct flow *f)
{
    struct reserve *s = f->state;
    return db_call(f, STORE_QUOTE_GET,
                   STORE_ARGS(S_TEXT(f->rq->who.tenant_id), S_TEXT(s->quote)));
}

/* Members beside "quote" may repeat the quoted request, not change it. */
static int same_request(const json_t *asked, const json_t *quoted, struct err *err)
{
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)asked, name, v)
    {
        if (strcmp(name, "quote") != 0 && !json_equal(v, json_object_get(quoted, name)))
            return err_set(err, ERR_BAD_REQUEST, "/%s: differs from the quote's", name);
    }
    return 0;
}

/* Whose leases are cut is decided when it is bought, each with its notice from then;
 * what was promised is that it costs no more. */
static enum flow_turn quoted_by_preemption(struct flow *f, const json_t *quote)
{
    struct reserve *s = f->state;
    int64_t made_us = json_integer_value(json_object_get(quote, "created_us"));
    int64_t total_micro = json_integer_value(
        json_object_get(json_object_get(quote, "plan"), "total_micro"));
    struct request asked;
    if (request_from_stored(json_object_get(quote, "request"), world_of(f)->currency,
                            made_us, f->now_us, &asked, &s->refusal) != 0)
        return refuse(f);
    if (asked.max_total_micro == 0 || asked.max_total_micro > total_micro)
        asked.max_total_micro = total_micro;
    request_done(&s->rq);
    s->rq = asked;
    return flow_goto(f, reserve_rank);
}

static enum flow_turn reserve_quoted(struct flow *f)
{
    struct reserve *s = f->state;
    struct world *w = world_of(f);
    if (db_failed(f))
        return db_fail(f);
    const json_t *quote = s->db.json, *plan = json_object_get(quote, "plan");
    int64_t expires_us = json_integer_value(json_object_get(quote, "expires_us"));
    if (same_request(s->rq.tree, json_object_get(quote, "request"), &s->refusal) != 0)
        return flow_fail(f, &s->refusal);
    if (f->now_us >= expires_us) {
        char at[TIMEFMT_MAX];
        timefmt_utc(expires_us, at);
        err_set(&s->refusal, ERR_CONFLICT, "the quote expired at %s; ask for another",
                at);
        return refuse(f);
    }
    if (json_is_true(json_object_get(plan, "held")))
        return flow_goto(f, reserve_confirm);
    if (json_is_true(json_object_get(plan, "preempts")))
        return quoted_by_preemption(f, quote);
    if (plan_pick_load(w, plan, &s->pick, &s->refusal) != 0)
        return refuse(f);
    /* What was asked for stays with the reservation: it may have to move one day. */
    json_t *asked = json_incref(json_object_get(quote, "request"));
    json_decref(s->rq.tree);
    s->rq.tree = asked;
    s->rq.quote = s->rq.gpu = NULL; /* they were the other tree's */
    /* Quoted for "now": the same hours, from the moment they are bought. */
    if (s->pick.plan->start_us < f->now_us)
        plan_pick_start(&s->pick, f->now_us);
    /* The price was promised; that the GPUs are there has to be seen again. */
    if (plan_pick_stands(w, &s->pick, &s->refusal) != 0)
        return refuse(f);
    return flow_goto(f, reserve_book);
}

static enum flow_turn reserve_confirm(struct flow *f)
{
    struct reserve *s = f->state;
    flow_goto(f, reserve_confirmed);
    return db_call(
        f, STORE_RESV_CONFIRM,
        STORE_ARGS(S_TEXT(f->rq->who.tenant_id), S_TEXT(s->quote), S_TEXT(s->idem.key),
                   s->idem.key != NULL ? S_BYTES(s->idem.hash, SHA256_LEN) : S_NULL,
                   S_INT(f->now_us)));
}

static enum flow_turn reserve_confirmed(struct flow *f)
{
    struct reserve *s = f->state;
    if (s->db.status == STORE_UNKNOWN && s->rereads++ < REREADS_MAX) {
        /* Confirming twice is confirming once. */
        flow_wait_until(f, f->now_us + REREAD_GAP_US);
        flow_goto(f, reserve_confirm);
        return FLOW_WAIT;
    }
    if (db_failed(f))
        return db_fail(f);
    world_poll(world_of(f));
    bool again = json_is_true(json_object_get(s->db.json, "replayed"));
    return flow_reply_json(f, again ? 200 : 201, render_resv(s->db.json));
}

/* ---- … or the best one now ---- */

static enum flow_turn reserve_rank(struct flow *f)
{
    struct reserve *s = f->state;
    struct world *w = world_of(f);
    s->ranks = true;
    plan_done(&s->plan);
    plan_pick_done(&s->pick);
    if (plan_rank(w, &s->rq, f->rq->who.tenant_id, f->now_us, &s->plan, &s->refusal) !=
        0)
        return flow_fail(f, &s->refusal);
    if (s->plan.fits) {
        plan_pick(w, &s->plan, f->now_us, &s->pick);
        return flow_goto(f, reserve_book);
    }
    /* What is busy may be another request's that is about to fail. */
    if (w->try_count > 0 && s->waits++ < WAITS_MAX) {
        world_try_wait(w, f->id);
        return FLOW_AGAIN;
    }
    return flow_goto(f, reserve_preempt);
}

static enum flow_turn reserve_preempt(struct flow *f)
{
    struct reserve *s = f->state;
    struct world *w = world_of(f);
    if (plan_preempt(w, &s->rq, f->now_us, &s->plan)) {
        plan_pick(w, &s->plan, f->now_us, &s->pick);
        return flow_goto(f, reserve_book);
    }
    plan_log(w, &s->rq, &s->plan, f->rq->who.tenant_id, "reserve", "no_fit");
    if (s->rq.wait)
        return flow_goto(f, reserve_wait);
    plan_judge(w, &s->rq, f->now_us, &s->plan);
    plan_no_fit(w, &s->plan, &s->refusal);
    flow_fail_detail(f, "rejected", plan_rejected(w, &s->plan, &s->rq));
    return refuse(f);
}

/* ---- booking it ---- */

static enum flow_turn reserve_book(struct flow *f)
{
    struct reserve *s = f->state;
    struct world *w = world_of(f);
    s->booked_us = f->now_us;
    s->tries[s->try_count++] = world_try_plan(w, s->pick.plan);
    struct plan_rows rows;
    plan_rows(w, &s->pick, &rows);
    struct store_book book = {.now_us = f->now_us,
                              .request = s->rq.tree,
                              .idem_key = s->idem.key != NULL ? s->idem.key : s->id,
                              .idem_hash = s->idem.hash};
    plan_book(w, &s->pick, &rows, &book);
    memcpy(book.id, s->id, sizeof(book.id));
    memcpy(book.tenant_id, f->rq->who.tenant_id, sizeof(book.tenant_id));
    memcpy(book.quote_id, s->quote, sizeof(book.quote_id));
    flow_goto(f, reserve_outcome);
    enum flow_turn turn = db_book(f, &book);
    plan_rows_done(&rows);
    return turn;
}

static void log_outcome(struct flow *f, const char *outcome)
{
    struct reserve *s = f->state;
    if (s->plan.fits)
        plan_log(world_of(f), &s->rq, &s->plan, f->rq->who.tenant_id, "reserve",
                 outcome);
}

static enum flow_turn booked(struct flow *f)
{
    struct reserve *s = f->state;
    struct world *w = world_of(f);
    world_booked(w, &(struct world_booked){.reservation = s->id,
                                           .plan = s->pick.plan,
                                           .booking_id = s->db.booking_id,
                                           .lane_booking_id =
                                               s->db.booking_id + s->db.booking_count});
    if (s->pick.preempt_count > 0)
        world_poll(w); /* whose leases were cut */
    log_outcome(f, "ok");
    struct plan_resv who = {s->id, f->rq->who.name, "confirmed", s->booked_us};
    json_t *resv = plan_resv(w, &s->pick, &who);
    json_t *reply = render_resv(resv);
    json_decref(resv);
    return flow_reply_json(f, 201, reply);
}

static enum flow_turn lost(struct flow *f)
{
    struct reserve *s = f->state;
    log_outcome(f, "lost");
    world_try_lost(world_of(f), &s->tries[s->try_count - 1], s->pick.plan);
    world_poll(world_of(f)); /* somebody else's booking: learn of it */
    if (!s->ranks)
        err_set(&s->refusal, ERR_CONFLICT,
                "the quoted GPUs were booked by somebody else; ask for another quote");
    else if (s->try_count == RESERVE_CANDIDATES_MAX)
        err_set(&s->refusal, ERR_CONFLICT,
                "lost %d places in a row to other requests; try again",
                RESERVE_CANDIDATES_MAX);
    else
        return flow_goto(f, reserve_rank);
    return refuse(f);
}

static enum flow_turn reserve_outcome(struct flow *f)
{
    struct reserve *s = f->state;
    char hold[MONEY_TEXT_MAX];
    if (s->db.status == STORE_UNKNOWN) {
        s->refusal = s->db.err;
        world_unknown(world_of(f));
        return flow_goto(f, reserve_earlier);
    }
    if (db_failed(f))
        return db_fail(f);
    switch (s->db.outcome) {
    case STORE_BOOK_OK: return booked(f);
    case STORE_BOOK_LOST: return lost(f);
    case STORE_BOOK_DUPLICATE: return flow_goto(f, reserve_earlier);
    case STORE_BOOK_KEY_REUSED:
        err_set(&s->refusal, ERR_KEY_REUSED,
                "this Idempotency-Key was used with another request; use a new one");
        return flow_fail(f, &s->refusal);
    case STORE_BOOK_FUNDS:
        log_outcome(f, "funds");
        money_format(plan_first_hold(world_of(f), &s->pick), world_of(f)->currency,
                     hold);
        err_set(&s->refusal, ERR_FUNDS, "the wallet does not cover %s %s; top it up",
                hold, world_of(f)->currency);
        return refuse(f);
    case STORE_BOOK_BUDGET:
        log_outcome(f, "funds");
        money_format(plan_first_hold(world_of(f), &s->pick), world_of(f)->currency,
                     hold);
        err_set(&s->refusal, ERR_BUDGET, "your budget does not cover %s %s; raise it",
                hold, world_of(f)->currency);
        return refuse(f);
    }
    return FLOW_DONE;
}

/* ---- nothing fits now: a standing order ---- */

static enum flow_turn reserve_wait(struct flow *f)
{
    struct reserve *s = f->state;
    flow_goto(f, reserve_waiting);
    return db_call(f, STORE_WAIT_PUT,
                   STORE_ARGS(S_TEXT(s->id), S_TEXT(f->rq->who.tenant_id),
                              S_JSON(s->rq.tree), S_INT(s->rq.until_us),
                              S_BOOL(s->rq.spot), S_INT(f->now_us), S_TEXT(s->idem.key),
                              S_BYTES(s->idem.hash, SHA256_LEN)));
}

static enum flow_turn reserve_waiting(struct flow *f)
{
    struct reserve *s = f->state;
    if (s->db.status == STORE_UNKNOWN) {
        s->refusal = s->db.err;
        return flow_goto(f, reserve_earlier);
    }
    if (db_failed(f))
        return db_fail(f);
    world_poll(world_of(f)); /* the list is planned anew */
    bool again = json_is_true(json_object_get(s->db.json, "replayed"));
    return flow_reply_json(f, again ? 200 : 201, render_resv(s->db.json));
}

/* ---- was it granted earlier? ---- */

static enum flow_turn reserve_earlier(struct flow *f)
{
    struct reserve *s = f->state;
    const char *key = s->idem.key != NULL ? s->idem.key : s->id;
    flow_goto(f, reserve_found);
    return db_call(f, STORE_RESV_BY_KEY,
                   STORE_ARGS(S_TEXT(f->rq->who.tenant_id), S_TEXT(key)));
}

static enum flow_turn reserve_found(struct flow *f)
{
    struct reserve *s = f->state;
    char hash[SHA256_HEX];
    if (db_failed(f)) {
        if (s->refusal.code != ERR_UNKNOWN)
            return s->db.err.code == ERR_NOT_FOUND ? flow_fail(f, &s->refusal)
                                                   : db_fail(f);
        if (s->rereads++ == REREADS_MAX)
            return flow_fail(f, &s->refusal);
        flow_wait_until(f, f->now_us + REREAD_GAP_US);
        flow_goto(f, reserve_earlier);
        return FLOW_WAIT;
    }
    const char *first = json_string_value(json_object_get(s->db.json, "idem_hash"));
    digest_hex(s->idem.hash, sizeof(s->idem.hash), hash);
    if (first == NULL || strcmp(first, hash) != 0) {
        err_set(&s->refusal, ERR_KEY_REUSED,
                "this Idempotency-Key was used with another request; use a new one");
        return flow_fail(f, &s->refusal);
    }
    return flow_reply_json(f, 200, render_resv(s->db.json));
}

static void reserve_done(struct flow *f)
{
    struct reserve *s = f->state;
    for (size_t i = 0; i < s->try_count; i++)
        world_try_end(world_of(f), &s->tries[i]);
    plan_done(&s->plan);
    plan_pick_done(&s->pick);
    request_done(&s->rq);
    db_done(f);
}

static const struct flow_step reserve_steps[] = {
    {"check", reserve_check},         {"quote", reserve_quote},
    {"quoted", reserve_quoted},       {"confirm", reserve_confirm},
    {"confirmed", reserve_confirmed}, {"rank", reserve_rank},
    {"preempt", reserve_preempt},     {"book", reserve_book},
    {"outcome", reserve_outcome},     {"wait", reserve_wait},
    {"waiting", reserve_waiting},     {"earlier", reserve_earlier},
    {"found", reserve_found},
};
const struct flow_kind flow_reserve =
    FLOW_KIND_DONE("flow_reserve", struct reserve, reserve_steps, reserve_done);
