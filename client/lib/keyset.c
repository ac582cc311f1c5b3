/* keyset: see keyset.h. */
#include "client/lib/keyset.h"

#include <stdlib.h>
#include <string.h>

#include "client/lib/b64.h"
#include "client/lib/digest.h"
#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "client/lib/token_impl.h"
#include "client/lib/xalloc.h"

struct keyset_raw {
    const char *iss;
    int64_t iat, exp, seq;
    json_t *keys, *revoked;
};
#define RAW(member) offsetof(struct keyset_raw, member)
static const struct jsonx_field keyset_fields[] = {
    {"iss", JSONX_STRING, true, RAW(iss), 1, KEYSET_ISS_MAX - 1},
    {"iat", JSONX_INT, true, RAW(iat), 0, TOKEN_SECONDS_MAX},
    {"exp", JSONX_INT, true, RAW(exp), 0, TOKEN_SECONDS_MAX},
    {"seq", JSONX_INT, true, RAW(seq), 1, INT64_C(1) << 53},
    {"keys", JSONX_ARRAY, true, RAW(keys), 1, KEYRING_KEYS_MAX},
    {"revoked", JSONX_ARRAY, true, RAW(revoked), 0, KEYRING_KEYS_MAX},
};

struct key_raw {
    const char *kid, *alg, *use;
    int64_t nbf, exp;
    json_t *ignored;
};
#define KEY(member) offsetof(struct key_raw, member)
static const struct jsonx_field key_fields[] = {
    {"kid", JSONX_STRING, true, KEY(kid)},
    {"alg", JSONX_STRING, true, KEY(alg)},
    {"use", JSONX_STRING, true, KEY(use)},
    {"nbf", JSONX_INT, true, KEY(nbf), 0, TOKEN_SECONDS_MAX},
    {"exp", JSONX_INT, true, KEY(exp), 0, TOKEN_SECONDS_MAX},
    {"kty", JSONX_ANY, true, KEY(ignored)},
    {"crv", JSONX_ANY, true, KEY(ignored)},
    {"x", JSONX_ANY, true, KEY(ignored)},
};

static int read_key(struct keyset *set, const json_t *jwk, size_t i, struct err *err)
{
    struct key_raw m;
    uint8_t pub[JWS_ED25519_LEN];
    char at[32], kid[JWS_KID_MAX];
    snprintf(at, sizeof(at), "/keys/%zu", i);
    if (jsonx_decode(jwk, key_fields, JSONX_COUNT(key_fields), &m, at, err) != 0)
        return -1;
    if (jws_jwk_parse(jwk, pub, err) != 0)
        return err_prefix(err, "%s", at);
    jws_thumbprint(pub, kid);
    if (strcmp(m.kid, kid) != 0)
        return err_set(err, ERR_TOKEN, "%s/kid: is not the key's thumbprint %s", at,
                       kid);
    if (strcmp(m.alg, "EdDSA") != 0 || strcmp(m.use, "sig") != 0)
        return err_set(err, ERR_TOKEN, "%s: is not for EdDSA signatures", at);
    if (m.exp <= m.nbf)
        return err_set(err, ERR_TOKEN, "%s/exp: not after nbf", at);
    if (keyset_add(set, pub, m.nbf * US_PER_S, m.exp * US_PER_S, err) != 0)
        return err_prefix(err, "%s", at);
    return 0;
}

static int read_revoked(struct keyset *set, const json_t *list, struct err *err)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *kid = json_string_value(json_array_get(list, i));
        struct keyset_key *key = kid != NULL ? keyset_find(set, kid) : NULL;
        if (key == NULL || key->revoked)
            return err_set(err, ERR_TOKEN, "/revoked/%zu: no key of the set, or twice",
                           i);
        key->revoked = true;
    }
    return 0;
}

static int read_payload(const struct jws_parts *parts, struct keyset *set,
                        struct err *err)
{
    struct keyset_raw m;
    json_t *payload = token_payload(parts, KEYSET_BYTES_MAX, err);
    int rc = payload == NULL ? -1
                             : jsonx_decode(payload, keyset_fields,
                                            JSONX_COUNT(keyset_fields), &m, "", err);
    memset(set, 0, sizeof(*set));
    if (rc == 0) {
        memcpy(set->iss, m.iss, strlen(m.iss) + 1);
        set->iat_us = m.iat * US_PER_S;
        set->exp_us = m.exp * US_PER_S;
        set->seq = m.seq;
    }
    for (size_t i = 0; rc == 0 && i < json_array_size(m.keys); i++)
        rc = read_key(set, json_array_get(m.keys, i), i, err);
    if (rc == 0)
        rc = read_revoked(set, m.revoked, err);
    json_decref(payload);
    return rc;
}

static int is_signed_by(const struct jws_parts *parts, const uint8_t *root,
                        const char **ret_step, struct err *err)
{
    char kid[JWS_KID_MAX];
    jws_thumbprint(root, kid);
    *ret_step = "root";
    if (strcmp(kid, parts->kid) != 0)
        return err_set(err, ERR_TOKEN, "signed by %s, the pinned root is %s",
                       parts->kid, kid);
    *ret_step = "signature";
    EVP_PKEY *key =
        EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, root, JWS_ED25519_LEN);
    int rc = key == NULL ? err_set(err, ERR_TOKEN, "the root key is none")
                         : jws_verify(parts, key, err);
    EVP_PKEY_free(key);
    return rc;
}

static int is_wanted(const struct keyset *set, const struct keyset_want *want,
                     const char **ret_step, struct err *err)
{
    *ret_step = "issuer";
    if (want->issuer != NULL && strcmp(want->issuer, set->iss) != 0)
        return err_set(err, ERR_TOKEN, "issued by '%.80s', expected '%.80s'", set->iss,
                       want->issuer);
    *ret_step = "rollback";
    if (set->seq < want->min_seq)
        return err_set(err, ERR_TOKEN, "number %lld, and %lld was seen before",
                       (long long)set->seq, (long long)want->min_seq);
    *ret_step = "times";
    if (set->exp_us <= set->iat_us)
        return err_set(err, ERR_TOKEN, "exp is not after iat");
    if (want->now_us != INT64_MIN && want->now_us >= set->exp_us)
        return err_set(err, ERR_TOKEN, "the key set has expired");
    if (want->now_us != INT64_MIN && set->iat_us > want->now_us + TOKEN_LEEWAY_US)
        return err_set(err, ERR_TOKEN, "the key set is from the future");
    return 0;
}

int keyset_check(const char *text, size_t len, const struct keyset_want *want,
                 struct keyset *ret, const char **ret_step, struct err *err)
{
    struct jws_parts parts;
    if (jws_split_max(text, len, KEYSET_BYTES_MAX, &parts, ret_step, err) != 0)
        return err_prefix(err, "key set");
    struct keyset *set = xmalloc(sizeof(*set));
    int rc = 0;
    *ret_step = "header";
    if (strcmp(parts.typ, JWS_TYP_JWKSET) != 0)
        rc = err_set(err, ERR_TOKEN, "typ is not " JWS_TYP_JWKSET);
    if (rc == 0)
        rc = is_signed_by(&parts, want->root, ret_step, err);
    if (rc == 0) {
        *ret_step = "payload";
        rc = read_payload(&parts, set, err);
    }
    if (rc == 0)
        rc = is_wanted(set, want, ret_step, err);
    if (rc == 0)
        *ret = *set;
    free(set);
    jws_parts_done(&parts);
    if (rc != 0 && err != NULL)
        err->code = ERR_TOKEN;
    return rc == 0 ? 0 : err_prefix(err, "key set");
}

int keyset_read(const char *text, size_t len, struct keyset *ret, struct err *err)
{
    struct jws_parts parts;
    const char *step;
    if (jws_split_max(text, len, KEYSET_BYTES_MAX, &parts, &step, err) != 0)
        return err_prefix(err, "key set");
    struct keyset *set = xmalloc(sizeof(*set));
    int rc = strcmp(parts.typ, JWS_TYP_JWKSET) == 0
                 ? read_payload(&parts, set, err)
                 : err_set(err, ERR_TOKEN, "typ is not " JWS_TYP_JWKSET);
    if (rc == 0)
        *ret = *set;
    free(set);
    jws_parts_done(&parts);
    return rc == 0 ? 0 : err_prefix(err, "key set");
}

/* --- making --- */

static json_t *key_json(const struct keyset_key *key)
{
    json_t *jwk = jws_jwk(key->pub);
    json_object_set_new(jwk, "kid", json_string(key->kid));
    json_object_set_new(jwk, "alg", json_string("EdDSA"));
    json_object_set_new(jwk, "use", json_string("sig"));
    json_object_set_new(jwk, "nbf", json_integer(key->not_before_us / US_PER_S));
    json_object_set_new(jwk, "exp", json_integer(key->not_after_us / US_PER_S));
    return jwk;
}

int keyset_sign(const struct keyset *set, EVP_PKEY *root, char **ret_text,
                struct err *err)
{
    json_t *keys, *revoked;
    if (set->iss[0] == '\0' || set->seq < 1 || set->exp_us <= set->iat_us ||
        set->count == 0)
        return err_set(err, ERR_BAD_REQUEST,
                       "a key set has an issuer, a number, an end and a key");
    keys = json_array();
    revoked = json_array();
    for (size_t i = 0; i < set->count; i++) {
        json_array_append_new(keys, key_json(&set->keys[i]));
        if (set->keys[i].revoked)
            json_array_append_new(revoked, json_string(set->keys[i].kid));
    }
    json_t *payload = json_pack("{s:s, s:I, s:I, s:I, s:o, s:o}", "iss", set->iss,
                                "iat", (json_int_t)(set->iat_us / US_PER_S), "exp",
                                (json_int_t)(set->exp_us / US_PER_S), "seq",
                                (json_int_t)set->seq, "keys", keys, "revoked", revoked);
    int rc = jws_sign(root, JWS_TYP_JWKSET, payload, ret_text, err);
    json_decref(payload);
    return rc;
}

json_t *keyset_jwks(const struct keyset *set)
{
    json_t *keys = json_array();
    for (size_t i = 0; i < set->count; i++)
        if (!set->keys[i].revoked)
            json_array_append_new(keys, key_json(&set->keys[i]));
    return json_pack("{s:o}", "keys", keys);
}

int keyset_ring(const struct keyset *set, struct keyring **ret, struct err *err)
{
    json_t *keys = json_array();
    for (size_t i = 0; i < set->count; i++)
        json_array_append_new(keys, key_json(&set->keys[i]));
    json_t *jwks = json_pack("{s:o}", "keys", keys);
    int rc = keyring_from_jwks(jwks, ret, err);
    json_decref(jwks);
    for (size_t i = 0; rc == 0 && i < set->count; i++)
        if (set->keys[i].revoked)
            keyring_revoke(*ret, set->keys[i].kid);
    return rc;
}

struct keyset_key *keyset_find(struct keyset *set, const char *kid)
{
    for (size_t i = 0; i < set->count; i++)
        if (strcmp(set->keys[i].kid, kid) == 0)
            return &set->keys[i];
    return NULL;
}

int keyset_add(struct keyset *set, const uint8_t pub[JWS_ED25519_LEN],
               int64_t not_before_us, int64_t not_after_us, struct err *err)
{
    char kid[JWS_KID_MAX];
    jws_thumbprint(pub, kid);
    if (keyset_find(set, kid) != NULL)
        return err_set(err, ERR_CONFLICT, "key %s is there twice", kid);
    if (set->count == KEYRING_KEYS_MAX)
        return err_set(err, ERR_TOO_LARGE, "a key set has at most %d keys",
                       KEYRING_KEYS_MAX);
    struct keyset_key *key = &set->keys[set->count++];
    memset(key, 0, sizeof(*key));
    memcpy(key->pub, pub, JWS_ED25519_LEN);
    memcpy(key->kid, kid, sizeof(kid));
    key->not_before_us = not_before_us - not_before_us % US_PER_S;
    key->not_after_us = not_after_us - not_after_us % US_PER_S;
    return 0;
}

void keyset_prune(struct keyset *set, int64_t now_us)
{
    size_t kept = 0;
    for (size_t i = 0; i < set->count; i++)
        if (set->keys[i].not_after_us > now_us)
            set->keys[kept++] = set->keys[i];
    set->count = kept;
}

const struct keyset_key *keyset_signer(const struct keyset *set, int64_t now_us,
                                       bool (*have)(void *arg, const char *kid),
                                       void *arg)
{
    const struct keyset_key *best = NULL;
    for (size_t i = 0; i < set->count; i++) {
        const struct keyset_key *key = &set->keys[i];
        if (key->revoked || now_us < key->not_before_us ||
            now_us >= key->not_after_us || (have != NULL && !have(arg, key->kid)))
            continue;
        if (best == NULL || key->not_before_us > best->not_before_us)
            best = key;
    }
    return best;
}

bool keyset_may_fetch(int64_t *last_us, int64_t boot_us)
{
    if (*last_us != 0 && boot_us - *last_us < KEYSET_FETCH_US)
        return false;
    *last_us = boot_us;
    return true;
}
