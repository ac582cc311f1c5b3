/* token: see token.h. token_check() runs a flat list of named steps; each sees what the
 * ones before it established, and the first that fails names itself. Possession proofs
 * are in token_pop.c, status documents in token_status.c, the lease in token_lease.c.
 */
#include "client/lib/token.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/b64.h"
#include "client/lib/digest.h"
#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "client/lib/token_impl.h"

/* The claims as they stand in the payload. */
struct token_raw {
    const char *iss, *aud, *sub, *client_id, *jti;
    int64_t iat, nbf, exp;
    json_t *cnf, *status, *details;
};

#define RAW(member) offsetof(struct token_raw, member)
/* In the order token_build() writes them: the decoder then finds each at once. */
static const struct jsonx_field token_fields[] = {
    {"iss", JSONX_STRING, true, RAW(iss)},
    {"sub", JSONX_STRING, true, RAW(sub)},
    {"aud", JSONX_STRING, true, RAW(aud)},
    {"client_id", JSONX_STRING, true, RAW(client_id)},
    {"jti", JSONX_STRING, true, RAW(jti)},
    {"iat", JSONX_INT, true, RAW(iat), 0, TOKEN_SECONDS_MAX},
    {"nbf", JSONX_INT, true, RAW(nbf), 0, TOKEN_SECONDS_MAX},
    {"exp", JSONX_INT, true, RAW(exp), 0, TOKEN_SECONDS_MAX},
    {"cnf", JSONX_OBJECT, true, RAW(cnf)},
    {"status", JSONX_OBJECT, true, RAW(status)},
    {"authorization_details", JSONX_ARRAY, true, RAW(details)},
};

/* What one check carries from step to step. */
struct token_run {
    const struct token_check *ctx;
    struct jws_parts parts;
    const struct keyring_key *key;
    json_t *payload;
    struct token_raw raw;
    struct token_claims *claims;
};

int token_refuse(const char **ret_step, const char *step, struct err *err)
{
    *ret_step = step;
    err_prefix(err, "%s", step);
    if (err != NULL)
        err->code = ERR_TOKEN;
    return -1;
}

bool token_copy(char *out, size_t cap, const char *text)
{
    size_t len = strlen(text);
    if (len == 0 || len >= cap)
        return false;
    memcpy(out, text, len + 1);
    return true;
}

json_t *token_payload(const struct jws_parts *parts, size_t max, struct err *err)
{
    return jsonx_parse(parts->payload, parts->payload_len, max, err);
}

static int token_step_type(struct token_run *t, struct err *err)
{
    if (strcmp(t->parts.typ, JWS_TYP_GRANT) != 0)
        return err_set(err, ERR_TOKEN, "typ is not " JWS_TYP_GRANT);
    return 0;
}

static bool token_kid_revoked(const struct token_status *status, const char *kid)
{
    for (size_t i = 0; status != NULL && i < status->revoked_kid_count; i++)
        if (strcmp(status->revoked_kids[i], kid) == 0)
            return true;
    return false;
}

static int token_step_key(struct token_run *t, struct err *err)
{
    const char *kid = t->parts.kid;
    int64_t now_us = t->ctx->now_us;
    t->key = keyring_find(t->ctx->keys, kid);
    if (t->key == NULL)
        return err_set(err, ERR_TOKEN, "kid %s is not in the key set", kid);
    if (t->key->revoked || token_kid_revoked(t->ctx->status, kid))
        return err_set(err, ERR_TOKEN, "kid %s is revoked", kid);
    if (now_us < t->key->not_before_us || now_us >= t->key->not_after_us)
        return err_set(err, ERR_TOKEN, "kid %s is outside its dates", kid);
    return 0;
}

static int token_step_signature(struct token_run *t, struct err *err)
{
    return jws_verify(&t->parts, t->key->pub, err);
}

static int token_claim_ids(const struct token_raw *raw, struct token_claims *c,
                           struct err *err)
{
    const struct {
        const char *name, *text;
        char *out;
    } ids[] = {
        {"sub", raw->sub, c->sub},
        {"client_id", raw->client_id, c->client_id},
        {"jti", raw->jti, c->jti},
    };
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        if (!uuid_is_valid(ids[i].text))
            return err_set(err, ERR_TOKEN, "/%s: not a UUID", ids[i].name);
        memcpy(ids[i].out, ids[i].text, UUID_TEXT);
    }
    return 0;
}

static int token_step_payload(struct token_run *t, struct err *err)
{
    static const struct jsonx_field cnf[] = {{"jkt", JSONX_STRING, true, 0}};
    static const struct jsonx_field status[] = {
        {"seq", JSONX_INT, true, 0, 0, INT64_C(1) << 53}};
    struct token_claims *c = t->claims;
    const char *jkt;
    uint8_t hash[SHA256_LEN];
    t->payload = token_payload(&t->parts, TOKEN_BYTES_MAX, err);
    if (t->payload == NULL ||
        jsonx_decode(t->payload, token_fields, JSONX_COUNT(token_fields), &t->raw, "",
                     err) != 0 ||
        jsonx_decode(t->raw.cnf, cnf, 1, &jkt, "/cnf", err) != 0 ||
        jsonx_decode(t->raw.status, status, 1, &c->status_seq, "/status", err) != 0 ||
        token_claim_ids(&t->raw, c, err) != 0)
        return -1;
    if (b64_decode(jkt, strlen(jkt), hash, sizeof(hash)) != SHA256_LEN)
        return err_set(err, ERR_TOKEN, "/cnf/jkt: not a thumbprint");
    memcpy(c->jkt, jkt, JWS_KID_MAX);
    memcpy(c->kid, t->parts.kid, JWS_KID_MAX);
    c->iat_us = t->raw.iat * US_PER_S;
    c->nbf_us = t->raw.nbf * US_PER_S;
    c->exp_us = t->raw.exp * US_PER_S;
    return 0;
}

static int token_step_issuer(struct token_run *t, struct err *err)
{
    const char *want = t->ctx->issuer;
    if (!token_copy(t->claims->iss, sizeof(t->claims->iss), t->raw.iss))
        return err_set(err, ERR_TOKEN, "iss is empty or too long");
    if (want != NULL && strcmp(want, t->raw.iss) != 0)
        return err_set(err, ERR_TOKEN, "issued by '%.80s', expected '%s'", t->raw.iss,
                       want);
    return 0;
}

static int token_step_audience(struct token_run *t, struct err *err)
{
    if (!token_copy(t->claims->aud, sizeof(t->claims->aud), t->raw.aud))
        return err_set(err, ERR_TOKEN, "aud is empty or too long");
    if (strcmp(t->ctx->audience, t->raw.aud) != 0)
        return err_set(err, ERR_TOKEN, "meant for '%.120s', this is '%s'", t->raw.aud,
                       t->ctx->audience);
    return 0;
}

static int token_step_times(struct token_run *t, struct err *err)
{
    const struct token_claims *c = t->claims;
    int64_t now_us = t->ctx->now_us;
    if (c->exp_us <= c->iat_us || c->exp_us - c->iat_us > TOKEN_LIFE_MAX_US)
        return err_set(err, ERR_TOKEN, "exp is not within 60 minutes after iat");
    if (c->iat_us > now_us + TOKEN_LEEWAY_US)
        return err_set(err, ERR_TOKEN, "issued in the future (iat)");
    if (c->nbf_us > now_us + TOKEN_LEEWAY_US)
        return err_set(err, ERR_TOKEN, "not valid yet (nbf)");
    if (now_us >= c->exp_us)
        return err_set(err, ERR_TOKEN, "expired: fetch a new one");
    return 0;
}

static int token_compare_id(const void *key, const void *element)
{
    return strcmp(key, element);
}

static bool token_is_revoked(const struct token_status *status, const json_t *details)
{
    size_t i;
    const json_t *d;
    json_array_foreach(details, i, d)
    {
        const char *id = json_string_value(json_object_get(d, "identifier"));
        if (id != NULL && status->revoked_count > 0 &&
            bsearch(id, status->revoked, status->revoked_count,
                    sizeof(status->revoked[0]), token_compare_id) != NULL)
            return true;
    }
    return false;
}

static int token_step_status(struct token_run *t, struct err *err)
{
    const struct token_status *status = t->ctx->status;
    if (status == NULL)
        return 0;
    int64_t age_us = t->ctx->now_us - status->iat_us;
    if (age_us > TOKEN_STATUS_STALE_US || age_us < -TOKEN_LEEWAY_US)
        return err_set(err, ERR_TOKEN, "the status document is not fresh");
    if (status->seq < t->claims->status_seq)
        return err_set(err, ERR_TOKEN, "the status document is older than the token's");
    if (token_is_revoked(status, t->raw.details))
        return err_set(err, ERR_TOKEN, "the lease is revoked");
    return 0;
}

static int token_step_details(struct token_run *t, struct err *err)
{
    struct token_lease *lease = &t->claims->lease;
    if (token_lease_read(t->raw.details, lease, err) != 0)
        return -1;
    if (t->ctx->now_us >= lease->not_after_us)
        return err_set(err, ERR_TOKEN, "the lease is over");
    return 0;
}

static const struct {
    const char *name;
    int (*run)(struct token_run *t, struct err *err);
} token_steps[] = {
    {"header", token_step_type},         {"key", token_step_key},
    {"signature", token_step_signature}, {"payload", token_step_payload},
    {"issuer", token_step_issuer},       {"audience", token_step_audience},
    {"times", token_step_times},         {"status", token_step_status},
    {"details", token_step_details},
};

static void token_hash(const char *text, size_t len, char out[JWS_KID_MAX])
{
    uint8_t hash[SHA256_LEN];
    digest_sha256(text, len, hash);
    b64_encode(hash, sizeof(hash), out);
}

/* The claims without the unused rest of the device list, which is most of the struct.
 */
static void token_clear(struct token_claims *c)
{
    size_t from =
        offsetof(struct token_claims, lease) + offsetof(struct token_lease, gpus);
    size_t to = from + sizeof(c->lease.gpus);
    memset(c, 0, from);
    memset((char *)c + to, 0, sizeof(*c) - to);
    c->lease.gpus[0][0] = '\0';
}

int token_check(const char *text, size_t len, const struct token_check *ctx,
                struct token_claims *ret, const char **ret_step, struct err *err)
{
    struct token_claims claims;
    struct token_run t = {.ctx = ctx, .claims = &claims};
    if (jws_split(text, len, &t.parts, ret_step, err) != 0)
        return -1;
    token_clear(&claims);
    int rc = 0;
    for (size_t i = 0; i < sizeof(token_steps) / sizeof(token_steps[0]) && rc == 0; i++)
        if (token_steps[i].run(&t, err) != 0)
            rc = token_refuse(ret_step, token_steps[i].name, err);
    json_decref(t.payload);
    jws_parts_done(&t.parts);
    if (rc != 0)
        return rc;
    token_hash(text, len, claims.ath);
    *ret = claims;
    return 0;
}

json_t *token_build(const struct token_claims *c)
{
    json_t *v = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I, s:{s:s}, s:{s:I}, s:o}", "iss",
        c->iss, "sub", c->sub, "aud", c->aud, "client_id", c->client_id, "jti", c->jti,
        "iat", (json_int_t)(c->iat_us / US_PER_S), "nbf",
        (json_int_t)(c->nbf_us / US_PER_S), "exp", (json_int_t)(c->exp_us / US_PER_S),
        "cnf", "jkt", c->jkt, "status", "seq", (json_int_t)c->status_seq,
        "authorization_details", token_lease_write(&c->lease));
    assert(v != NULL);
    return v;
}

json_t *token_claims_json(const struct token_claims *c)
{
    return token_build(c);
}
