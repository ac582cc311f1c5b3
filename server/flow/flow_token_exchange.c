/* POST /v1/token-exchange (RFC 8693): the holder of a grant gets another, for another
 * key, that may do no more: the same node and reservation, at most the same GPUs and
 * actions, and no longer. No API key is asked for: the grant and a proof by its key are
 * the credential. The proof covers whom it is for and what is asked, so that it is good
 * for nothing else. What was got by exchange is not exchanged again: who gave it away
 * is always the one that the market knows.
 *
 * A form (the RFC's way) and JSON (ours) are one request: exchange_form makes the same
 * body of a form, and what is checked here knows no difference. For who sent a form,
 * each check says which of OAuth's errors it is.
 *
 *   read   the grant is this market's, valid now and not revoked; the proof is its
 *          key's; what is asked for is not more than it
 *   issue  the reservation still stands: signed
 *   reply  once the log is durable */
#include <stdlib.h>
#include <string.h>

#include "client/lib/digest.h"
#include "client/lib/jsonx.h"
#include "client/lib/keyset.h"
#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"
#include "client/lib/token.h"
#include "client/lib/xalloc.h"
#include "server/flow/call.h"
#include "server/flow/exchange_form.h"
#include "server/flow/flows.h"
#include "server/flow/lease.h"

#define TARGETS_MAX  16 /* one would do: a grant is for one node */
#define GRANT_TYPE   "urn:ietf:params:oauth:grant-type:token-exchange"
#define ACCESS_TOKEN "urn:ietf:params:oauth:token-type:access_token"

struct exchange {
    struct db_slot db;
    struct token_claims claims; /* the subject's, then the new one's */
    json_t *body;               /* as JSON has it */
    json_t *reply;
};
struct body {
    const char *grant_type, *subject, *subject_type, *proof;
    const char *requested_type, *actor, *actor_type, *scope;
    int64_t not_after_us;
    json_t *jwk, *gpus, *actions, *audience, *resource;
};

/* ---- the grant and its proof ---- */

/* Any node's will do: the name is taken from the text, whose signature is checked. */
static int read_audience(const char *text, char ret[TOKEN_AUD_MAX], struct err *err)
{
    struct jws_parts parts;
    const char *step;
    if (jws_split(text, strlen(text), &parts, &step, err) != 0)
        return -1;
    json_t *payload =
        jsonx_parse(parts.payload, parts.payload_len, TOKEN_BYTES_MAX, err);
    const char *aud = json_string_value(json_object_get(payload, "aud"));
    int rc = 0;
    if (aud != NULL && strlen(aud) < TOKEN_AUD_MAX)
        memcpy(ret, aud, strlen(aud) + 1);
    else
        rc = err_set(err, ERR_TOKEN, "audience: not a text");
    json_decref(payload);
    jws_parts_done(&parts);
    return rc;
}

static int check_subject(const struct flow *f, const char *text, struct err *err)
{
    struct exchange *s = f->state;
    const struct world *w = world_of(f);
    const char *set_text = issuer_key_set(w->issuer), *step;
    struct keyset *set = xmalloc(sizeof(*set));
    struct keyring *keys = NULL;
    char aud[TOKEN_AUD_MAX];
    int rc = read_audience(text, aud, err);
    if (rc == 0)
        rc = keyset_read(set_text, strlen(set_text), set, err);
    if (rc == 0)
        rc = keyset_ring(set, &keys, err);
    struct token_check ctx = {.keys = keys,
                              .issuer = issuer_url(w->issuer),
                              .audience = aud,
                              .now_us = f->now_us};
    if (rc == 0)
        rc = token_check(text, strlen(text), &ctx, &s->claims, &step, err);
    keyring_free(keys);
    free(set);
    if (rc == 0 && s->claims.act[0] != '\0')
        rc = err_set(err, ERR_FORBIDDEN,
                     "act: a grant that was delegated is not delegated again");
    for (size_t i = 0; rc == 0 && i < json_array_size(w->revoked); i++)
        if (strcmp(json_string_value(json_array_get(w->revoked, i)),
                   s->claims.lease.reservation) == 0)
            rc = err_set(err, ERR_TOKEN, "status: the lease is revoked");
    return rc;
}

/* The list's texts with a comma between; what is no text is refused later. */
static void join(struct strbuf *out, const json_t *list)
{
    const json_t *v;
    size_t i;
    json_array_foreach(list, i, v)
    {
        const char *text = json_string_value(v);
        strbuf_addf(out, "%s%s", i > 0 ? "," : "", text != NULL ? text : "");
    }
}

/* The hash is of {thumbprint of the new key, GPUs, not_after, actions} as they were
 * sent, "" for what was not. */
static int check_proof(const struct flow *f, const struct body *b, const char *jkt,
                       struct err *err)
{
    const struct exchange *s = f->state;
    struct token_pop want = {.nonce = "exchange", .action = "exchange"};
    struct strbuf gpus = STRBUF_INIT, actions = STRBUF_INIT;
    const char *url = issuer_url(world_of(f)->issuer), *step;
    const char *end = json_string_value(json_object_get(s->body, "not_after"));
    if (strlen(url) >= sizeof(want.aud))
        return err_set(err, ERR_INTERNAL, "the issuer's name is too long");
    memcpy(want.aud, url, strlen(url) + 1);
    memcpy(want.ath, s->claims.ath, sizeof(want.ath));
    join(&gpus, b->gpus);
    join(&actions, b->actions);
    const char *argv[] = {jkt, strbuf_str(&gpus), end != NULL ? end : "",
                          strbuf_str(&actions)};
    token_argv_hash(argv, 4, want.argv_hash);
    int rc = token_pop_check(b->proof, strlen(b->proof), s->claims.jkt, &want,
                             f->now_us, &step, err);
    strbuf_done(&gpus);
    strbuf_done(&actions);
    return rc == 0 ? 0 : err_prefix(err, "proof");
}

/* ---- not more than it ---- */

static int narrow_gpus(struct token_lease *l, const json_t *gpus, struct err *err)
{
    struct token_lease *was = xmalloc(sizeof(*was));
    const json_t *gpu;
    size_t i;
    int rc = 0;
    *was = *l;
    l->gpu_count = 0;
    json_array_foreach(gpus, i, gpu)
    {
        const char *uuid = json_is_string(gpu) ? json_string_value(gpu) : "";
        size_t at = 0, twice = 0;
        while (at < was->gpu_count && strcmp(was->gpus[at], uuid) != 0)
            at++;
        while (twice < l->gpu_count && strcmp(l->gpus[twice], uuid) != 0)
            twice++;
        if (at == was->gpu_count || twice < l->gpu_count) {
            rc = err_set(err, ERR_FORBIDDEN, "/gpus/%zu: not one of the grant's", i);
            break;
        }
        memcpy(l->gpus[l->gpu_count++], was->gpus[at], TOKEN_GPU_UUID_MAX);
    }
    free(was);
    return rc;
}

static int narrow_actions(struct token_lease *l, const json_t *actions, struct err *err)
{
    static const struct {
        const char *name;
        unsigned bit;
    } known[] = {
        {"launch", TOKEN_LAUNCH}, {"stop", TOKEN_STOP}, {"adopt", TOKEN_ADOPT}};
    unsigned want = 0;
    const json_t *v;
    size_t i;
    json_array_foreach(actions, i, v)
    {
        const char *name = json_is_string(v) ? json_string_value(v) : "";
        unsigned bit = 0;
        for (size_t k = 0; k < 3; k++)
            if (strcmp(known[k].name, name) == 0)
                bit = known[k].bit;
        if ((l->actions & bit) == 0)
            return err_set(err, ERR_FORBIDDEN, "/actions/%zu: not one of the grant's",
                           i);
        want |= bit;
    }
    l->actions = want;
    return 0;
}

static int narrow_end(struct flow *f, int64_t not_after_us, struct err *err)
{
    struct exchange *s = f->state;
    struct token_lease *l = &s->claims.lease;
    int64_t end_us = not_after_us - not_after_us % US_PER_S;
    if (not_after_us > l->not_after_us)
        return err_set(err, ERR_FORBIDDEN, "/not_after: later than the grant's");
    if (end_us <= l->not_before_us || end_us <= f->now_us)
        return err_set(err, ERR_BAD_REQUEST, "/not_after: nothing would be left");
    l->not_after_us = end_us;
    l->drain_us = lease_drain_us(l->not_before_us, end_us);
    return 0;
}

/* To stop a lease and to adopt into it reach the whole of it: who is given a part has
 * neither. */
static int narrow(struct flow *f, const struct body *b, struct err *err)
{
    struct exchange *s = f->state;
    struct token_lease *l = &s->claims.lease;
    const size_t gpus = l->gpu_count;
    const int64_t end_us = l->not_after_us;
    if (b->gpus != NULL && narrow_gpus(l, b->gpus, err) != 0)
        return -1;
    if (b->not_after_us != INT64_MIN && narrow_end(f, b->not_after_us, err) != 0)
        return -1;
    if (b->actions != NULL && narrow_actions(l, b->actions, err) != 0)
        return -1;
    if (l->gpu_count == gpus && l->not_after_us == end_us)
        return 0;
    if (b->actions != NULL && (l->actions & ~(unsigned)TOKEN_LAUNCH) != 0)
        return err_set(err, ERR_FORBIDDEN,
                       "/actions: a part of a lease can be used to "
                       "launch only");
    l->actions &= TOKEN_LAUNCH;
    return l->actions != 0 ? 0
                           : err_set(err, ERR_FORBIDDEN,
                                     "/actions: the grant does not allow to launch");
}

/* ---- what is asked for ---- */

static const struct jsonx_field fields[] = {
    {"grant_type", JSONX_STRING, true, offsetof(struct body, grant_type), 1, 100},
    {"subject_token", JSONX_STRING, true, offsetof(struct body, subject), 1,
     TOKEN_BYTES_MAX},
    {"subject_token_type", JSONX_STRING, true, offsetof(struct body, subject_type), 1,
     100},
    {"proof", JSONX_STRING, true, offsetof(struct body, proof), 1, TOKEN_BYTES_MAX},
    {"jwk", JSONX_OBJECT, true, offsetof(struct body, jwk)},
    {"gpus", JSONX_ARRAY, false, offsetof(struct body, gpus), 1, GPUS_PER_NODE_MAX},
    {"actions", JSONX_ARRAY, false, offsetof(struct body, actions), 1, 3},
    {"not_after", JSONX_TIME, false, offsetof(struct body, not_after_us)},
    {"requested_token_type", JSONX_STRING, false, offsetof(struct body, requested_type),
     1, 100},
    {"audience", JSONX_ARRAY, false, offsetof(struct body, audience), 1, TARGETS_MAX},
    {"resource", JSONX_ARRAY, false, offsetof(struct body, resource), 1, TARGETS_MAX},
    {"scope", JSONX_STRING, false, offsetof(struct body, scope), 1, 1000},
    {"actor_token", JSONX_STRING, false, offsetof(struct body, actor), 1,
     TOKEN_BYTES_MAX},
    {"actor_token_type", JSONX_STRING, false, offsetof(struct body, actor_type), 1,
     100},
};

/* What the RFC has and a market has not is refused: who asks would take it for given.
 */
static int check_kind(struct flow *f, const struct body *b, struct err *err)
{
    if (strcmp(b->subject_type, ACCESS_TOKEN) != 0)
        return err_set(err, ERR_BAD_REQUEST,
                       "/subject_token_type: only exchanges of access tokens");
    if (b->requested_type != NULL && strcmp(b->requested_type, ACCESS_TOKEN) != 0)
        return err_set(err, ERR_BAD_REQUEST,
                       "/requested_token_type: only access tokens are issued");
    if (b->actor != NULL || b->actor_type != NULL)
        return err_set(err, ERR_BAD_REQUEST,
                       "/actor_token: who gives a grant on is the holder of its key");
    if (b->scope == NULL)
        return 0;
    flow_fail_as(f, "invalid_scope");
    return err_set(err, ERR_BAD_REQUEST,
                   "/scope: a grant has none; gpus, actions and not_after narrow it");
}

/* The new grant is for the node of the old one; naming it is allowed. */
static int check_target(const struct flow *f, const char *name, const json_t *list,
                        struct err *err)
{
    const struct exchange *s = f->state;
    const json_t *v;
    size_t i;
    json_array_foreach(list, i, v)
    {
        const char *text = json_string_value(v);
        if (text == NULL || strcmp(text, s->claims.aud) != 0)
            return err_set(err, ERR_BAD_REQUEST, "/%s/%zu: the grant is for %s", name,
                           i, s->claims.aud);
    }
    return 0;
}

static int check(struct flow *f, const struct body *b, const char *jkt, struct err *err)
{
    if (check_kind(f, b, err) != 0 || check_subject(f, b->subject, err) != 0)
        return -1;
    flow_fail_as(f, "invalid_client"); /* the proof is how the client shows who it is */
    if (check_proof(f, b, jkt, err) != 0)
        return -1;
    flow_fail_as(f, "invalid_target");
    if (check_target(f, "audience", b->audience, err) != 0 ||
        check_target(f, "resource", b->resource, err) != 0)
        return -1;
    flow_fail_as(f, "invalid_scope");
    if (narrow(f, b, err) != 0)
        return -1;
    flow_fail_as(f, NULL);
    return 0;
}

/* The grant type first: of another one nothing else is known. */
static int read_body(struct flow *f, struct body *ret, struct err *err)
{
    struct exchange *s = f->state;
    if (!db_no_query(f, err))
        return -1;
    s->body =
        f->rq->is_form ? exchange_of_form(f->rq->body, err) : json_incref(f->rq->body);
    if (s->body == NULL)
        return -1;
    const char *type = json_string_value(json_object_get(s->body, "grant_type"));
    if (type != NULL && strcmp(type, GRANT_TYPE) != 0) {
        flow_fail_as(f, "unsupported_grant_type");
        return err_set(err, ERR_BAD_REQUEST, "/grant_type: only " GRANT_TYPE);
    }
    return jsonx_decode(s->body, fields, JSONX_COUNT(fields), ret, "", err);
}

static enum flow_turn exchange_read(struct flow *f)
{
    struct body b = {.not_after_us = INT64_MIN};
    struct exchange *s = f->state;
    uint8_t pub[JWS_ED25519_LEN];
    char jkt[JWS_KID_MAX];
    struct err err;
    if (read_body(f, &b, &err) != 0)
        return flow_fail(f, &err);
    if (jws_jwk_parse(b.jwk, pub, &err) != 0) {
        err.code = ERR_BAD_REQUEST;
        err_prefix(&err, "/jwk");
        return flow_fail(f, &err);
    }
    jws_thumbprint(pub, jkt);
    if (check(f, &b, jkt, &err) != 0)
        return flow_fail(f, &err);
    memcpy(s->claims.act, s->claims.jkt, sizeof(s->claims.act));
    memcpy(s->claims.jkt, jkt, sizeof(s->claims.jkt));
    return db_call(
        f, STORE_RESV_GET,
        STORE_ARGS(S_TEXT(s->claims.sub), S_TEXT(s->claims.lease.reservation)));
}

/* ---- the new grant ---- */

static bool has_gpus(const json_t *allocation, const struct token_lease *l)
{
    const json_t *gpus = json_object_get(allocation, "gpus"), *gpu;
    size_t i, found = 0;
    json_array_foreach(gpus, i, gpu)
    {
        for (size_t g = 0; g < l->gpu_count; g++)
            found += strcmp(json_string_value(gpu), l->gpus[g]) == 0;
    }
    return found == l->gpu_count;
}

/* The booking of the grant; NULL: the reservation has moved away from it. */
static const json_t *allocation_of(const struct exchange *s)
{
    const json_t *a;
    size_t i;
    json_array_foreach(json_object_get(s->db.json, "allocations"), i, a)
    {
        const char *id = json_string_value(json_object_get(a, "spiffe_id"));
        if (id != NULL && strcmp(id, s->claims.aud) == 0 &&
            json_integer_value(json_object_get(a, "epoch")) == s->claims.lease.epoch &&
            has_gpus(a, &s->claims.lease))
            return a;
    }
    return NULL;
}

static int still_stands(const struct flow *f, struct err *err)
{
    struct exchange *s = f->state;
    const char *state = json_string_value(json_object_get(s->db.json, "state"));
    const json_t *a = allocation_of(s);
    if (state == NULL ||
        (strcmp(state, "confirmed") != 0 && strcmp(state, "active") != 0))
        return err_set(err, ERR_CONFLICT, "the reservation is %s",
                       state != NULL ? state : "gone");
    if (a == NULL)
        return err_set(err, ERR_CONFLICT,
                       "the reservation has not those GPUs any more");
    int64_t end_us = json_integer_value(json_object_get(a, "end_us"));
    if (s->claims.lease.not_after_us > end_us)
        s->claims.lease.not_after_us = end_us;
    if (s->claims.lease.not_after_us <= f->now_us)
        return err_set(err, ERR_CONFLICT, "the reservation is over");
    return 0;
}

static enum flow_turn exchange_issue(struct flow *f)
{
    struct exchange *s = f->state;
    struct world *w = world_of(f);
    struct token_claims *c = &s->claims;
    struct err err;
    uint8_t random[10];
    char *text = NULL, kid[JWS_KID_MAX];
    if (db_failed(f))
        return db_fail(f);
    if (still_stands(f, &err) != 0)
        return flow_fail(f, &err);
    json_t *node = json_incref(json_object_get(allocation_of(s), "node_id"));
    digest_random(random, sizeof(random));
    uuid_v7(f->now_us, random, c->jti);
    c->iat_us = f->now_us - f->now_us % US_PER_S;
    c->nbf_us = c->iat_us;
    int64_t life_us = w->token_life_us / US_PER_S * US_PER_S;
    if (c->exp_us > c->iat_us + life_us) /* never after the grant it is of */
        c->exp_us = c->iat_us + life_us;
    c->status_seq = w->revoked_seq;
    issuer_kid(w->issuer, c->iat_us, kid);
    if (issuer_grant(w->issuer, c, &text, &err) != 0) {
        json_decref(node);
        return flow_fail(f, &err);
    }
    s->reply =
        json_pack("{s:s, s:s, s:s, s:I}", "access_token", text, "issued_token_type",
                  ACCESS_TOKEN, "token_type", "N_A", "expires_in",
                  (json_int_t)((c->exp_us - c->iat_us) / US_PER_S));
    json_t *log = json_pack("[{s:s, s:o, s:s, s:s, s:I, s:I}]", "jti", c->jti,
                            "node_id", node, "jkt", c->jkt, "kid", kid, "issued_us",
                            (json_int_t)c->iat_us, "expires_us", (json_int_t)c->exp_us);
    free(text);
    enum flow_turn turn = db_call(
        f, STORE_TOKEN_LOG, STORE_ARGS(S_TEXT(c->lease.reservation), S_JSON(log)));
    json_decref(log);
    return turn;
}

static enum flow_turn exchange_reply(struct flow *f)
{
    struct exchange *s = f->state;
    if (db_failed(f))
        return db_fail(f);
    flow_header(f, "Cache-Control", "no-store");
    flow_header(f, "Pragma", "no-cache"); /* RFC 6749 section 5.1 asks for both */
    return flow_reply_json(f, 200, json_incref(s->reply));
}

static void exchange_done(struct flow *f)
{
    struct exchange *s = f->state;
    json_decref(s->reply);
    json_decref(s->body);
    db_done(f);
}

static const struct flow_step exchange_steps[] = {
    {"read", exchange_read}, {"issue", exchange_issue}, {"reply", exchange_reply}};
const struct flow_kind flow_token_exchange = FLOW_KIND_DONE(
    "flow_token_exchange", struct exchange, exchange_steps, exchange_done);
