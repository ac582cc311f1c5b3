/* keyring: see keyring.h. At most 64 keys, so a scan is as quick as a hash and has no
 * order to attack. A set is taken whole or not at all. */
#include "client/lib/keyring.h"

#include <stdlib.h>
#include <string.h>

#include "client/lib/bounds.h"
#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define KEYRING_DATE_MAX INT64_C(253402300799) /* 9999-12-31T23:59:59Z in seconds */

struct keyring {
    size_t count;
    struct keyring_key keys[KEYRING_KEYS_MAX];
};

/* The members of a JWK the ring itself reads; the rest is jws_jwk_parse()'s. */
struct keyring_jwk {
    const char *kid, *alg, *use;
    int64_t nbf, exp;
    json_t *ignored;
};

static const struct jsonx_field keyring_fields[] = {
    {"kid", JSONX_STRING, true, offsetof(struct keyring_jwk, kid)},
    {"alg", JSONX_STRING, false, offsetof(struct keyring_jwk, alg)},
    {"use", JSONX_STRING, false, offsetof(struct keyring_jwk, use)},
    {"nbf", JSONX_INT, false, offsetof(struct keyring_jwk, nbf), 0, KEYRING_DATE_MAX},
    {"exp", JSONX_INT, false, offsetof(struct keyring_jwk, exp), 0, KEYRING_DATE_MAX},
    {"kty", JSONX_ANY, true, offsetof(struct keyring_jwk, ignored)},
    {"crv", JSONX_ANY, true, offsetof(struct keyring_jwk, ignored)},
    {"x", JSONX_ANY, true, offsetof(struct keyring_jwk, ignored)},
};

static int keyring_add(struct keyring *k, const json_t *jwk, const char *at,
                       struct err *err)
{
    struct keyring_jwk m = {.alg = "EdDSA", .use = "sig", .nbf = -1, .exp = -1};
    uint8_t pub[JWS_ED25519_LEN];
    struct keyring_key key = {.not_before_us = INT64_MIN, .not_after_us = INT64_MAX};
    if (jsonx_decode(jwk, keyring_fields, JSONX_COUNT(keyring_fields), &m, at, err) !=
        0)
        return -1;
    if (jws_jwk_parse(jwk, pub, err) != 0)
        return err_prefix(err, "%s", at);
    if (strcmp(m.alg, "EdDSA") != 0 && strcmp(m.alg, "Ed25519") != 0)
        return err_set(err, ERR_BAD_REQUEST, "%s/alg: expected EdDSA", at);
    if (strcmp(m.use, "sig") != 0)
        return err_set(err, ERR_BAD_REQUEST, "%s/use: expected sig", at);
    jws_thumbprint(pub, key.kid);
    if (strcmp(m.kid, key.kid) != 0)
        return err_set(err, ERR_BAD_REQUEST, "%s/kid: is not the key's thumbprint %s",
                       at, key.kid);
    if (keyring_find(k, key.kid) != NULL)
        return err_set(err, ERR_BAD_REQUEST, "%s/kid: %s is there twice", at, key.kid);
    if (m.nbf >= 0)
        key.not_before_us = m.nbf * US_PER_S;
    if (m.exp >= 0)
        key.not_after_us = m.exp * US_PER_S;
    key.pub = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, pub, sizeof(pub));
    key.verifier = key.pub == NULL ? NULL : jws_verifier(key.pub);
    if (key.verifier == NULL) {
        EVP_PKEY_free(key.pub);
        return err_set(err, ERR_BAD_REQUEST, "%s/x: OpenSSL refuses the key", at);
    }
    k->keys[k->count++] = key;
    return 0;
}

int keyring_from_jwks(const json_t *jwks, struct keyring **ret, struct err *err)
{
    json_t *list = NULL;
    static const struct jsonx_field fields[] = {
        {"keys", JSONX_ARRAY, true, 0, 0, KEYRING_KEYS_MAX},
    };
    if (jsonx_decode(jwks, fields, JSONX_COUNT(fields), &list, "", err) != 0)
        return err_prefix(err, "key set");
    struct keyring *k = xcalloc(1, sizeof(*k));
    for (size_t i = 0; i < json_array_size(list); i++) {
        char at[32];
        snprintf(at, sizeof(at), "/keys/%zu", i);
        if (keyring_add(k, json_array_get(list, i), at, err) != 0) {
            keyring_free(k);
            return err_prefix(err, "key set");
        }
    }
    *ret = k;
    return 0;
}

void keyring_free(struct keyring *k)
{
    if (k == NULL)
        return;
    for (size_t i = 0; i < k->count; i++) {
        EVP_MD_CTX_free(k->keys[i].verifier);
        EVP_PKEY_free(k->keys[i].pub);
    }
    free(k);
}

const struct keyring_key *keyring_find(const struct keyring *k, const char *kid)
{
    for (size_t i = 0; i < k->count; i++)
        if (strcmp(k->keys[i].kid, kid) == 0)
            return &k->keys[i];
    return NULL;
}

void keyring_revoke(struct keyring *k, const char *kid)
{
    for (size_t i = 0; i < k->count; i++)
        if (strcmp(k->keys[i].kid, kid) == 0)
            k->keys[i].revoked = true;
}

size_t keyring_count(const struct keyring *k)
{
    return k->count;
}
