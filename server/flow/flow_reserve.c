/* POST /v1/reservations: the way of one reservation, top to bottom.
 *
 *   check    the request is well formed
 *   quote    a quote names the place and the price; else
 *   rank     the best place for it now, by effective price
 *   book     bookings, money and event in one commit, together with all others that
 *            came meanwhile (server/db: group commit)
 *   outcome  booked: reply. Lost to another server: that place counts as taken, rank
 *            again
 *   earlier  before anything is refused: was this very request granted already?
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
    char id[UUID_TEXT];
    /* GPUs we are booking, or lost: taken in this server's calendar until we end. */
    int64_t tries[RESERVE_CANDIDATES_MAX];
    size_t try_count;
    int64_t booked_us; /* when the last booking was sent */
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
static enum flow_turn reserve_rank(struct flow *f);
static enum flow_turn reserve_book(struct flow *f);
static enum flow_turn reserve_outcome(struct flow *f);
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
    digest_random(random, sizeof(random));
    uuid_v7(f->now_us, random, s->id);
    db_idem(f, &s->idem);
    return s->rq.quote != NULL ? flow_goto(f, reserve_quote)
                               : flow_goto(f, reserve_rank);
}

/* ---- the place: quoted, or the best one now ---- */

static enum flow_turn reserve_quote(struct flow *f)
{
    struct reserve *s = f->state;
    return db_call(f, STORE_QUOTE_GET,
                   STORE_ARGS(S_TEXT(f->rq->who.tenant_id), S_TEXT(s->rq.quote)));
}

static enum flow_turn refuse(struct flow *f)
{
    /* Without a key of the client's there can be no earlier request. */
    struct reserve *s = f->state;
    return s->idem.key != NULL ? flow_goto(f, reserve_earlier)
                               : flow_fail(f, &s->refusal);
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

static enum flow_turn reserve_quoted(struct flow *f)
{
    struct reserve *s = f->state;
    if (db_failed(f))
        return db_fail(f);
    const json_t *quote = s->db.json;
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
    if (plan_pick_load(world_of(f), json_object_get(quote, "plan"), &s->pick,
                       &s->refusal) != 0)
        return refuse(f);
    /* Quoted for "now": the same hours, from the moment they are bought. */
    if (s->pick.slot.start_us < f->now_us)
        s->pick.slot.start_us = f->now_us;
    return flow_goto(f, reserve_book);
}

static enum flow_turn reserve_rank(struct flow *f)
{
    struct reserve *s = f->state;
    struct world *w = world_of(f);
    const char *tenant = f->rq->who.tenant_id;
    plan_done(&s->plan);
    plan_pick_done(&s->pick);
    if (plan_rank(w, &s->rq, tenant, f->now_us, &s->plan, &s->refusal) != 0)
        return flow_fail(f, &s->refusal);
    if (s->plan.fit > 0) {
        if (plan_pick(w, &s->rq, &s->plan, f->now_us, &s->pick, &s->refusal) != 0)
            return flow_fail(f, &s->refusal);
        return flow_goto(f, reserve_book);
    }
    /* What is busy may be another request's that is about to fail. */
    if (w->try_count > s->try_count && s->waits++ < WAITS_MAX) {
        world_try_wait(w, f->id);
        return FLOW_AGAIN;
    }
    plan_log(w, &s->rq, &s->plan, tenant, "reserve", "no_fit");
    plan_no_fit(w, &s->plan, &s->refusal);
    flow_fail_detail(f, "rejected", plan_rejected(w, &s->plan));
    return refuse(f);
}

/* ---- booking it ---- */

static enum flow_turn reserve_book(struct flow *f)
{
    struct reserve *s = f->state;
    struct world *w = world_of(f);
    const struct plan_pick *pick = &s->pick;
    const struct world_node *node = &w->nodes[pick->slot.node];
    int64_t end_us = pick->slot.start_us + pick->len_us;

    s->booked_us = f->now_us;
    s->tries[s->try_count++] = world_try(w, &pick->slot, pick->gpus, end_us);
    struct store_booking booking = {.node_id = node->id,
                                    .site_id = w->sites[node->site].id,
                                    .first = pick->slot.first,
                                    .count = pick->gpus,
                                    .from_us = pick->slot.start_us,
                                    .to_us = end_us,
                                    .per_gpu_hour_micro = pick->gpu_hour_micro};
    struct store_book book = {.now_us = f->now_us,
                              .start_us = pick->slot.start_us,
                              .end_us = end_us,
                              .request = s->rq.tree,
                              .data = pick->data,
                              .per_hour_micro = pick->per_hour_micro,
                              .total_micro = pick->total_micro,
                              .effective_micro = pick->effective_micro,
                              .idem_key = s->idem.key != NULL ? s->idem.key : s->id,
                              .idem_hash = s->idem.hash,
                              .bookings = &booking,
                              .booking_count = 1};
    memcpy(book.id, s->id, sizeof(book.id));
    memcpy(book.tenant_id, f->rq->who.tenant_id, sizeof(book.tenant_id));
    memcpy(book.currency, w->currency, sizeof(book.currency));
    if (s->rq.quote != NULL)
        memcpy(book.quote_id, s->rq.quote, sizeof(book.quote_id));
    flow_goto(f, reserve_outcome);
    return db_book(f, &book);
}

static void log_outcome(struct flow *f, const char *outcome)
{
    struct reserve *s = f->state;
    if (s->plan.fit > 0)
        plan_log(world_of(f), &s->rq, &s->plan, f->rq->who.tenant_id, "reserve",
                 outcome);
}

static enum flow_turn booked(struct flow *f)
{
    struct reserve *s = f->state;
    struct world *w = world_of(f);
    struct calendar_span during = {s->pick.slot.start_us,
                                   s->pick.slot.start_us + s->pick.len_us};
    world_book(w, s->db.booking_id, s->pick.slot.node, s->pick.slot.first, s->pick.gpus,
               &during);
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
    world_poll(world_of(f)); /* somebody else's booking: learn of it */
    if (s->rq.quote != NULL)
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
    char total[MONEY_TEXT_MAX];
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
        money_format(s->pick.total_micro, world_of(f)->currency, total);
        err_set(&s->refusal, ERR_FUNDS, "the wallet does not cover %s %s; top it up",
                total, world_of(f)->currency);
        return refuse(f);
    }
    return FLOW_DONE;
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
        world_try_end(world_of(f), s->tries[i]);
    plan_done(&s->plan);
    plan_pick_done(&s->pick);
    request_done(&s->rq);
    db_done(f);
}

static const struct flow_step reserve_steps[] = {
    {"check", reserve_check},     {"quote", reserve_quote},
    {"quoted", reserve_quoted},   {"rank", reserve_rank},
    {"book", reserve_book},       {"outcome", reserve_outcome},
    {"earlier", reserve_earlier}, {"found", reserve_found},
};
const struct flow_kind flow_reserve =
    FLOW_KIND_DONE("flow_reserve", struct reserve, reserve_steps, reserve_done);
