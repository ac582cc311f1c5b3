/* POST /v1/quotes: the best place now, at a price that binds for some minutes. Nothing
 * is held: booking a quote fails when its GPUs went to somebody else meanwhile. */
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
    char id[UUID_TEXT];
};

static enum flow_turn quote_rank(struct flow *f)
{
    struct quote *s = f->state;
    struct world *w = world_of(f);
    const char *tenant = f->rq->who.tenant_id;
    struct err err;
    if (!db_no_query(f, &err) ||
        request_from_body(f->rq->body, w->currency, f->now_us, &s->rq, &err) != 0)
        return flow_fail(f, &err);
    if (s->rq.quote != NULL) {
        err_set(&err, ERR_BAD_REQUEST, "/quote: a quote cannot be quoted");
        return flow_fail(f, &err);
    }
    if (plan_rank(w, &s->rq, tenant, f->now_us, &s->plan, &err) != 0)
        return flow_fail(f, &err);
    plan_log(w, &s->rq, &s->plan, tenant, "quote", s->plan.fit > 0 ? "ok" : "no_fit");
    if (s->plan.fit == 0) {
        plan_no_fit(w, &s->plan, &err);
        flow_fail_detail(f, "rejected", plan_rejected(w, &s->plan));
        return flow_fail(f, &err);
    }
    if (plan_pick(w, &s->rq, &s->plan, f->now_us, &s->pick, &err) != 0)
        return flow_fail(f, &err);
    return FLOW_MORE;
}

static enum flow_turn quote_keep(struct flow *f)
{
    struct quote *s = f->state;
    uint8_t random[10], hash[SHA256_LEN];
    digest_random(random, sizeof(random));
    uuid_v7(f->now_us, random, s->id);
    db_idem(f, &s->idem);
    json_t *plan = plan_pick_save(world_of(f), &s->pick);
    char *text = jsonx_dump(plan);
    digest_sha256(text, strlen(text), hash);
    free(text);
    enum flow_turn turn = db_call(
        f, STORE_QUOTE_PUT,
        STORE_ARGS(S_TEXT(s->id), S_TEXT(f->rq->who.tenant_id), S_INT(f->now_us),
                   S_INT(f->now_us + QUOTE_LIFE_US), S_JSON(s->rq.tree), S_JSON(plan),
                   S_BYTES(hash, SHA256_LEN), DB_IDEM(s->idem)));
    json_decref(plan);
    return turn;
}

/* Prices are net. What the invoice will add, should all of it be used; there it is
 * computed once on the sum of lines and rounded to the minor unit. */
static json_t *tax_json(const struct world *w, int64_t total_micro)
{
    int64_t micro;
    if (money_mul(total_micro, w->tax_ppm, MONEY_MICRO, &micro, NULL) != 0)
        return json_null();
    return json_pack("{s:s, s:I, s:I}", "currency", w->currency, "micro",
                     (json_int_t)micro, "rate_ppm", (json_int_t)w->tax_ppm);
}

static enum flow_turn quote_reply(struct flow *f)
{
    struct quote *s = f->state;
    if (db_failed(f))
        return db_fail(f);
    /* A repeated key answers with the first quote's id and life. */
    const char *id = json_string_value(json_object_get(s->db.json, "id"));
    struct plan_resv who = {id, f->rq->who.name, "waiting", f->now_us};
    json_t *resv = plan_resv(world_of(f), &s->pick, &who);
    json_t *reply = json_pack(
        "{s:s, s:o, s:o, s:o}", "id", id, "expires_at",
        jsonx_time(json_integer_value(json_object_get(s->db.json, "expires_us"))),
        "plan", render_resv(resv), "tax", tax_json(world_of(f), s->pick.total_micro));
    json_decref(resv);
    return flow_reply_json(f, 201, reply);
}

static void quote_done(struct flow *f)
{
    struct quote *s = f->state;
    plan_done(&s->plan);
    plan_pick_done(&s->pick);
    request_done(&s->rq);
    db_done(f);
}

static const struct flow_step quote_steps[] = {
    {"rank", quote_rank}, {"keep", quote_keep}, {"reply", quote_reply}};
const struct flow_kind flow_quote =
    FLOW_KIND_DONE("flow_quote", struct quote, quote_steps, quote_done);
