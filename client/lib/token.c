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
#include "client/lib/jsonr.h"
#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "client/lib/token_impl.h"

/* What one check carries from step to step. */
struct token_run {
    const struct token_check *ctx;
    struct jws_parts parts;
    const struct keyring_key *key;
    bool in_details; /* reading stopped inside authorization_details */
    struct token_claims claims;
};

static int token_read_cnf(struct jsonr *r, void *out, struct err *err)
{
    static const struct jsonr_field fields[] = {{"jkt", true, .cap = JWS_KID_MAX}};
    return jsonr_object(r, fields, JSONR_COUNT(fields), out, err);
}

/* An empty name would read as a grant that nobody delegated. */
static int token_read_act(struct jsonr *r, void *out, struct err *err)
{
    static const struct jsonr_field fields[] = {{"sub", true, .cap = JWS_KID_MAX}};
    char *name = out;
    if (jsonr_object(r, fields, JSONR_COUNT(fields), out, err) != 0)
        return -1;
    return *name != '\0' ? 0 : err_set(err, ERR_TOKEN, "/act/sub: empty");
}

static int token_read_status(struct jsonr *r, void *out, struct err *err)
{
    static const struct jsonr_field fields[] = {{"seq", true, .max = INT64_C(1) << 53}};
    return jsonr_object(r, fields, JSONR_COUNT(fields), out, err);
}

static int token_read_details(struct jsonr *r, void *out, struct err *err)
{
    struct token_run *t = out;
    t->in_details = true;
    if (token_lease_read(r, &t->claims.lease, err) != 0)
        return -1;
    t->in_details = false;
    return 0;
}

#define TEXT(member)                           \
    offsetof(struct token_run, claims.member), \
        sizeof(((struct token_claims *)NULL)->member)
#define CLAIM(member) offsetof(struct token_run, claims.member)
/* In the order token_build() writes them. Times are seconds until they were read. */
static const struct jsonr_field token_fields[] = {
    {"iss", true, TEXT(iss)},
    {"sub", true, TEXT(sub)},
    {"aud", true, TEXT(aud)},
    {"client_id", true, TEXT(client_id)},
    {"jti", true, TEXT(jti)},
    {"iat", true, CLAIM(iat_us), .max = TOKEN_SECONDS_MAX},
    {"nbf", true, CLAIM(nbf_us), .max = TOKEN_SECONDS_MAX},
    {"exp", true, CLAIM(exp_us), .max = TOKEN_SECONDS_MAX},
    {"cnf", true, CLAIM(jkt), .read = token_read_cnf},
    {"act", false, CLAIM(act), .read = token_read_act},
    {"status", true, CLAIM(status_seq), .read = token_read_status},
    {"authorization_details", true, .read = token_read_details},
};

int token_refuse(const char **ret_step, const char *step, struct err *err)
{
    *ret_step = step;
    err_prefix(err, "%s", step);
    if (err != NULL)
        err->code = ERR_TOKEN;
    return -1;
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
    return jws_verify_ready(&t->parts, t->key->verifier, err);
}

static int token_check_ids(const struct token_claims *c, struct err *err)
{
    const struct {
        const char *name, *text;
    } ids[] = {{"sub", c->sub}, {"client_id", c->client_id}, {"jti", c->jti}};
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++)
        if (!uuid_is_valid(ids[i].text))
            return err_set(err, ERR_TOKEN, "/%s: not a UUID", ids[i].name);
    uint8_t hash[SHA256_LEN];
    if (b64_decode(c->jkt, strlen(c->jkt), hash, sizeof(hash)) != SHA256_LEN)
        return err_set(err, ERR_TOKEN, "/cnf/jkt: not a thumbprint");
    if (c->act[0] != '\0' &&
        b64_decode(c->act, strlen(c->act), hash, sizeof(hash)) != SHA256_LEN)
        return err_set(err, ERR_TOKEN, "/act/sub: not a thumbprint");
    return 0;
}

/* Reads the whole payload, the lease included; what is wrong inside the lease is
 * reported as the step "details". */
static int token_step_payload(struct token_run *t, struct err *err)
{
    struct token_claims *c = &t->claims;
    struct jsonr r = {t->parts.payload, t->parts.payload + t->parts.payload_len};
    if (jsonr_object(&r, token_fields, JSONR_COUNT(token_fields), t, err) != 0 ||
        jsonr_end(&r, err) != 0 || token_check_ids(c, err) != 0)
        return -1;
    memcpy(c->kid, t->parts.kid, JWS_KID_MAX);
    c->iat_us *= US_PER_S;
    c->nbf_us *= US_PER_S;
    c->exp_us *= US_PER_S;
    return 0;
}

static int token_step_issuer(struct token_run *t, struct err *err)
{
    const char *want = t->ctx->issuer;
    if (want != NULL && strcmp(want, t->claims.iss) != 0)
        return err_set(err, ERR_TOKEN, "issued by '%.80s', expected '%s'",
                       t->claims.iss, want);
    return 0;
}

static int token_step_audience(struct token_run *t, struct err *err)
{
    if (strcmp(t->ctx->audience, t->claims.aud) != 0)
        return err_set(err, ERR_TOKEN, "meant for '%.120s', this is '%s'",
                       t->claims.aud, t->ctx->audience);
    return 0;
}

static int token_step_times(struct token_run *t, struct err *err)
{
    const struct token_claims *c = &t->claims;
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

static bool token_is_revoked(const struct token_status *status, const char *id)
{
    return status->revoked_count > 0 &&
           bsearch(id, status->revoked, status->revoked_count,
                   sizeof(status->revoked[0]), token_compare_id) != NULL;
}

static int token_step_status(struct token_run *t, struct err *err)
{
    const struct token_status *status = t->ctx->status;
    if (status == NULL)
        return 0;
    int64_t age_us = t->ctx->now_us - status->iat_us;
    if (age_us > TOKEN_STATUS_STALE_US || age_us < -TOKEN_LEEWAY_US)
        return err_set(err, ERR_TOKEN, "the status document is not fresh");
    if (status->seq < t->claims.status_seq)
        return err_set(err, ERR_TOKEN, "the status document is older than the token's");
    if (token_is_revoked(status, t->claims.lease.reservation))
        return err_set(err, ERR_TOKEN, "the lease is revoked");
    return 0;
}

static int token_step_details(struct token_run *t, struct err *err)
{
    if (t->ctx->now_us >= t->claims.lease.not_after_us)
        return err_set(err, ERR_TOKEN, "the lease is over");
    return 0;
}

/* What a revoked lease had is not given to its like again: only a later booking may. */
static int token_step_epoch(struct token_run *t, struct err *err)
{
    const struct token_lease *l = &t->claims.lease;
    for (size_t g = 0; t->ctx->status != NULL && g < l->gpu_count; g++)
        if (l->epoch <= token_status_min_epoch(t->ctx->status, l->gpus[g]))
            return err_set(err, ERR_TOKEN, "%s was revoked at this epoch or later",
                           l->gpus[g]);
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
    {"details", token_step_details},     {"epoch", token_step_epoch},
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
    struct token_run t;
    if (jws_split(text, len, &t.parts, ret_step, err) != 0)
        return -1;
    t.ctx = ctx;
    t.in_details = false;
    token_clear(&t.claims);
    int rc = 0;
    for (size_t i = 0; i < sizeof(token_steps) / sizeof(token_steps[0]) && rc == 0; i++)
        if (token_steps[i].run(&t, err) != 0)
            rc = token_refuse(ret_step, t.in_details ? "details" : token_steps[i].name,
                              err);
    jws_parts_done(&t.parts);
    if (rc != 0)
        return rc;
    token_hash(text, len, t.claims.ath);
    *ret = t.claims;
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
    if (c->act[0] != '\0') {
        int rc = json_object_set_new(v, "act", json_pack("{s:s}", "sub", c->act));
        assert(rc == 0);
        (void)rc;
    }
    return v;
}

json_t *token_claims_json(const struct token_claims *c)
{
    return token_build(c);
}
