/* token_pop: possession proofs of token.h. A token alone opens nothing: the tenant
 * signs the agent's nonce, the token's hash, the action and the argv with the key the
 * token names (cnf.jkt). The nonce makes a proof fresh; used nonces are the agent's to
 * remember. */
#include "client/lib/token_impl.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/b64.h"
#include "client/lib/digest.h"
#include "client/lib/jsonx.h"
#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"

struct token_pop_raw {
    const char *nonce, *aud, *ath, *action, *argv_hash, *image;
    int64_t iat;
    json_t *jwk;
};

#define POP(member) offsetof(struct token_pop_raw, member)
static const struct jsonx_field token_pop_fields[] = {
    {"nonce", JSONX_STRING, true, POP(nonce)},
    {"aud", JSONX_STRING, true, POP(aud)},
    {"ath", JSONX_STRING, true, POP(ath)},
    {"action", JSONX_STRING, true, POP(action)},
    {"argv_hash", JSONX_STRING, true, POP(argv_hash)},
    {"iat", JSONX_INT, true, POP(iat), 0, TOKEN_SECONDS_MAX},
    {"jwk", JSONX_OBJECT, true, POP(jwk)},
    {"image", JSONX_STRING, false, POP(image)},
};

json_t *token_pop_build(const struct token_pop *p, const uint8_t pub[JWS_ED25519_LEN])
{
    json_t *v =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:o}", "nonce", p->nonce, "aud",
                  p->aud, "ath", p->ath, "action", p->action, "argv_hash", p->argv_hash,
                  "iat", (json_int_t)(p->iat_us / US_PER_S), "jwk", jws_jwk(pub));
    assert(v != NULL);
    if (p->image != NULL)
        json_object_set_new(v, "image", json_string(p->image));
    return v;
}

/* The proof's key must be the one the token is bound to, and the one kid names. */
static int token_pop_key(const json_t *jwk, const char *jkt, const char *kid,
                         EVP_PKEY **ret, struct err *err)
{
    uint8_t pub[JWS_ED25519_LEN];
    char thumbprint[JWS_KID_MAX];
    if (jws_jwk_parse(jwk, pub, err) != 0)
        return -1;
    jws_thumbprint(pub, thumbprint);
    if (strcmp(thumbprint, jkt) != 0 || strcmp(thumbprint, kid) != 0)
        return err_set(err, ERR_TOKEN, "not the key the token is bound to");
    *ret = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, pub, sizeof(pub));
    return *ret != NULL ? 0 : err_set(err, ERR_TOKEN, "OpenSSL refuses the key");
}

static int token_pop_binding(const struct token_pop_raw *m,
                             const struct token_pop *want, struct err *err)
{
    const struct {
        const char *name, *got, *want;
    } bound[] = {
        {"nonce", m->nonce, want->nonce},
        {"aud", m->aud, want->aud},
        {"ath", m->ath, want->ath},
        {"action", m->action, want->action},
        {"argv_hash", m->argv_hash, want->argv_hash},
    };
    for (size_t i = 0; i < sizeof(bound) / sizeof(bound[0]); i++)
        if (strcmp(bound[i].got, bound[i].want) != 0)
            return err_set(err, ERR_TOKEN, "%s does not match", bound[i].name);
    if ((m->image == NULL) != (want->image == NULL) ||
        (m->image != NULL && strcmp(m->image, want->image) != 0))
        return err_set(err, ERR_TOKEN, "image does not match");
    return 0;
}

static int token_pop_signature(const struct jws_parts *parts, const json_t *jwk,
                               const char *jkt, const char **ret_step, struct err *err)
{
    EVP_PKEY *key = NULL;
    if (token_pop_key(jwk, jkt, parts->kid, &key, err) != 0)
        return token_refuse(ret_step, "key", err);
    int rc = jws_verify(parts, key, err);
    EVP_PKEY_free(key);
    return rc == 0 ? 0 : token_refuse(ret_step, "signature", err);
}

static int token_pop_payload(const struct jws_parts *parts, const json_t *payload,
                             const char *jkt, struct token_pop_raw *ret,
                             const char **ret_step, struct err *err)
{
    if (strcmp(parts->typ, JWS_TYP_POP) != 0) {
        err_set(err, ERR_TOKEN, "typ is not " JWS_TYP_POP);
        return token_refuse(ret_step, "header", err);
    }
    if (payload == NULL ||
        jsonx_decode(payload, token_pop_fields, JSONX_COUNT(token_pop_fields), ret, "",
                     err) != 0)
        return token_refuse(ret_step, "payload", err);
    return token_pop_signature(parts, ret->jwk, jkt, ret_step, err);
}

int token_pop_check(const char *text, size_t len, const char *jkt,
                    const struct token_pop *want, int64_t now_us, const char **ret_step,
                    struct err *err)
{
    struct jws_parts parts;
    struct token_pop_raw m = {0};
    if (jws_split(text, len, &parts, ret_step, err) != 0)
        return -1;
    json_t *payload = token_payload(&parts, TOKEN_BYTES_MAX, err);
    int rc = token_pop_payload(&parts, payload, jkt, &m, ret_step, err);
    if (rc == 0 && token_pop_binding(&m, want, err) != 0)
        rc = token_refuse(ret_step, "binding", err);
    if (rc == 0) {
        int64_t off_us = m.iat * US_PER_S - now_us;
        /* iat is cut to the second, so the past side has up to one second more. */
        if (off_us > TOKEN_LEEWAY_US || off_us < -(TOKEN_LEEWAY_US + US_PER_S)) {
            err_set(err, ERR_TOKEN,
                    "made at a time %lld s off: check the clock of the machine that "
                    "made it",
                    (long long)(off_us / US_PER_S));
            rc = token_refuse(ret_step, "times", err);
        }
    }
    json_decref(payload);
    jws_parts_done(&parts);
    return rc;
}

void token_argv_hash(const char *const *argv, size_t argc, char out[JWS_KID_MAX])
{
    struct strbuf b = STRBUF_INIT;
    for (size_t i = 0; i < argc; i++)
        strbuf_add(&b, argv[i], strlen(argv[i]) + 1);
    uint8_t hash[SHA256_LEN];
    digest_sha256(strbuf_str(&b), b.len, hash);
    b64_encode(hash, sizeof(hash), out);
    strbuf_done(&b);
}
