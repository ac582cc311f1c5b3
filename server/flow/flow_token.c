/* POST /v1/reservations/{id}/tokens: a signed grant for each node of a reservation,
 * bound to the tenant's key. It limits starting to some minutes; running goes on to the
 * lease's end without it. */
#include <stdlib.h>
#include <string.h>

#include "client/lib/digest.h"
#include "client/lib/jsonx.h"
#include "client/lib/jws.h"
#include "client/lib/timefmt.h"
#include "client/lib/token.h"
#include "client/lib/xalloc.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/lease.h"

struct token {
    struct db_slot db;
    char jkt[JWS_KID_MAX];
    const char *node; /* NULL: all; borrows from the request's body */
    unsigned actions;
    json_t *tokens; /* the reply, built before the log is written */
};

static int actions_of(const json_t *list, unsigned *ret, struct err *err)
{
    size_t i;
    const json_t *v;
    if (list == NULL) {
        *ret = TOKEN_LAUNCH | TOKEN_STOP;
        return 0;
    }
    *ret = 0;
    json_array_foreach(list, i, v)
    {
        const char *name = json_is_string(v) ? json_string_value(v) : "";
        if (strcmp(name, "launch") == 0)
            *ret |= TOKEN_LAUNCH;
        else if (strcmp(name, "stop") == 0)
            *ret |= TOKEN_STOP;
        else if (strcmp(name, "adopt") == 0)
            *ret |= TOKEN_ADOPT;
        else
            return err_set(err, ERR_BAD_REQUEST,
                           "/actions/%zu: expected \"launch\", \"stop\" or \"adopt\"",
                           i);
    }
    return 0;
}

static enum flow_turn token_read(struct flow *f)
{
    struct body {
        json_t *jwk, *actions;
        const char *node;
    } body = {NULL, NULL, NULL};
    static const struct jsonx_field fields[] = {
        {"jwk", JSONX_OBJECT, true, offsetof(struct body, jwk)},
        {"node", JSONX_STRING, false, offsetof(struct body, node), 1, NAME_BYTES_MAX},
        {"actions", JSONX_ARRAY, false, offsetof(struct body, actions), 1, 3},
    };
    struct token *s = f->state;
    const char *id = flow_param(f, "id");
    uint8_t pub[JWS_ED25519_LEN];
    struct err err;
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &body, "", &err) != 0 ||
        actions_of(body.actions, &s->actions, &err) != 0)
        return flow_fail(f, &err);
    if (jws_jwk_parse(body.jwk, pub, &err) != 0) {
        err.code = ERR_BAD_REQUEST;
        err_prefix(&err, "/jwk");
        return flow_fail(f, &err);
    }
    if (!uuid_is_valid(id)) {
        err_set(&err, ERR_NOT_FOUND, "there is no reservation '%.60s'", id);
        return flow_fail(f, &err);
    }
    jws_thumbprint(pub, s->jkt);
    s->node = body.node;
    return db_call(f, STORE_RESV_GET,
                   STORE_ARGS(S_TEXT(f->rq->who.tenant_id), S_TEXT(id)));
}

static const char *text_of(const json_t *obj, const char *name)
{
    const char *v = json_string_value(json_object_get(obj, name));
    return v != NULL ? v : "";
}

static void copy_text(char *out, size_t cap, const char *text)
{
    size_t len = strnlen(text, cap - 1);
    memcpy(out, text, len);
    out[len] = '\0';
}

/* The end that a grant may promise. That of a spot lease is no later than a node is
 * told by itself (sql/api/agents.sql): 9/10 of its notice from now, so that a
 * preemption, which cuts the lease a notice ahead, needs no help of a node that is cut
 * off. */
static int64_t promised_end(const struct flow *f, const json_t *allocation)
{
    int64_t end_us = json_integer_value(json_object_get(allocation, "end_us")),
            notice_us = json_integer_value(json_object_get(allocation, "notice_us"));
    int64_t term_us = f->now_us + notice_us / 10 * 9;
    term_us -= term_us % US_PER_S; /* claims carry whole seconds */
    return notice_us > 0 && term_us < end_us ? term_us : end_us;
}

static void fill_lease(const struct flow *f, const json_t *allocation,
                       struct token_lease *l)
{
    const struct token *s = f->state;
    const json_t *gpus = json_object_get(allocation, "gpus"), *gpu;
    size_t i;
    copy_text(l->reservation, sizeof(l->reservation), text_of(s->db.json, "id"));
    l->actions = s->actions;
    json_array_foreach(gpus, i, gpu)
    {
        if (l->gpu_count < GPUS_PER_NODE_MAX)
            copy_text(l->gpus[l->gpu_count++], TOKEN_GPU_UUID_MAX,
                      json_string_value(gpu));
    }
    l->not_before_us = json_integer_value(json_object_get(allocation, "start_us"));
    l->not_after_us = promised_end(f, allocation);
    l->epoch = json_integer_value(json_object_get(allocation, "epoch"));
    l->on_lost = TOKEN_RUN_TO_END;
    l->drain_us = lease_drain_us(l->not_before_us, l->not_after_us);
}

/* One node's grant: into the reply and the log. */
static int grant(struct flow *f, const json_t *allocation, json_t *log, struct err *err)
{
    struct token *s = f->state;
    struct world *w = world_of(f);
    struct token_claims *c = xcalloc(1, sizeof(*c));
    uint8_t random[10];
    char *text = NULL, kid[JWS_KID_MAX];
    fill_lease(f, allocation, &c->lease);
    if (c->lease.not_after_us <= c->lease.not_before_us) {
        free(c);
        return err_set(err, ERR_CONFLICT,
                       "a spot lease is granted for less than its notice at a time: "
                       "ask again when it begins");
    }
    digest_random(random, sizeof(random));
    uuid_v7(f->now_us, random, c->jti);
    copy_text(c->aud, sizeof(c->aud), text_of(allocation, "spiffe_id"));
    copy_text(c->sub, sizeof(c->sub), f->rq->who.tenant_id);
    copy_text(c->client_id, sizeof(c->client_id), f->rq->who.tenant_id);
    memcpy(c->jkt, s->jkt, sizeof(c->jkt));
    /* Whole seconds: that is what the claims carry. */
    c->iat_us = f->now_us - f->now_us % US_PER_S;
    c->nbf_us = c->iat_us;
    c->exp_us = c->iat_us + w->token_life_us / US_PER_S * US_PER_S;
    c->status_seq = w->revoked_seq;
    issuer_kid(w->issuer, c->iat_us, kid);
    int rc = issuer_grant(w->issuer, c, &text, err);
    if (rc == 0) {
        json_array_append_new(
            s->tokens,
            json_pack("{s:s, s:s, s:s, s:s, s:o}", "node", text_of(allocation, "node"),
                      "audience", c->aud, "address", text_of(allocation, "address"),
                      "token", text, "expires_at", jsonx_time(c->exp_us)));
        json_array_append_new(
            log, json_pack("{s:s, s:O, s:s, s:s, s:I, s:I}", "jti", c->jti, "node_id",
                           json_object_get(allocation, "node_id"), "jkt", c->jkt, "kid",
                           kid, "issued_us", (json_int_t)c->iat_us, "expires_us",
                           (json_int_t)c->exp_us));
    }
    free(text);
    free(c);
    return rc;
}

static int may_start(const struct flow *f, struct err *err)
{
    const struct token *s = f->state;
    const char *state = text_of(s->db.json, "state");
    int64_t end_us = json_integer_value(json_object_get(s->db.json, "end_us"));
    if (strcmp(state, "confirmed") != 0 && strcmp(state, "active") != 0)
        return err_set(err, ERR_CONFLICT, "the reservation is %s", state);
    if (f->now_us >= end_us)
        return err_set(err, ERR_CONFLICT, "the reservation is over");
    return 0;
}

static enum flow_turn token_issue(struct flow *f)
{
    struct token *s = f->state;
    struct err err;
    if (db_failed(f))
        return db_fail(f);
    if (may_start(f, &err) != 0)
        return flow_fail(f, &err);
    s->tokens = json_array();
    json_t *log = json_array();
    const json_t *allocation;
    size_t i;
    int rc = 0;
    json_array_foreach(json_object_get(s->db.json, "allocations"), i, allocation)
    {
        if (rc == 0 &&
            (s->node == NULL || strcmp(s->node, text_of(allocation, "node")) == 0))
            rc = grant(f, allocation, log, &err);
    }
    if (rc == 0 && json_array_size(s->tokens) == 0)
        rc = err_set(&err, ERR_NOT_FOUND, "/node: the reservation has no node '%s'",
                     s->node != NULL ? s->node : "");
    enum flow_turn turn =
        rc != 0 ? flow_fail(f, &err)
                : db_call(f, STORE_TOKEN_LOG,
                          STORE_ARGS(S_TEXT(flow_param(f, "id")), S_JSON(log)));
    json_decref(log);
    return turn;
}

/* A token leaves the house only after its line in the log is durable. */
static enum flow_turn token_reply(struct flow *f)
{
    struct token *s = f->state;
    if (db_failed(f))
        return db_fail(f);
    return flow_reply_json(f, 201, json_pack("{s:O}", "tokens", s->tokens));
}

static void token_done(struct flow *f)
{
    struct token *s = f->state;
    json_decref(s->tokens);
    db_done(f);
}

static const struct flow_step token_steps[] = {
    {"read", token_read}, {"issue", token_issue}, {"reply", token_reply}};
const struct flow_kind flow_token =
    FLOW_KIND_DONE("flow_token", struct token, token_steps, token_done);
