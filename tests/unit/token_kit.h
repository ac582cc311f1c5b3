/* token_kit: what the tests of tokens share: two keys, a ring that knows one of them, a
 * good grant, and signing of any header and payload text, right or wrong. */
#ifndef NEARGPU_TOKEN_KIT_H
#define NEARGPU_TOKEN_KIT_H
#include <stdio.h>
#include <string.h>

#include "client/lib/b64.h"
#include "client/lib/jsonx.h"
#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"
#include "client/lib/token.h"
#include "client/lib/xalloc.h"

#define KIT_NOW    (INT64_C(1795384392) * US_PER_S)
#define KIT_ISSUER "https://neargpu.local"
#define KIT_NODE   "spiffe://neargpu.local/site/fukuoka/node/n1"
#define KIT_RES    "019307d0-7b3a-7c3e-8a5b-0123456789ad"

struct kit {
    EVP_PKEY *key, *foreign;
    char kid[JWS_KID_MAX], foreign_kid[JWS_KID_MAX];
    uint8_t pub[JWS_ED25519_LEN];
    struct keyring *ring;
    struct token_claims claims;
    struct token_check ctx;
};

/* The RFC 8037 appendix A key, and another: fixed, so that every run is the same. */
static const uint8_t kit_seed[2][32] = {
    {0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a,
     0xf4, 0x92, 0xec, 0x2c, 0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32,
     0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60},
    {1, 2, 3, 4, 5, 6, 7, 8},
};

static inline json_t *kit_jwks(const uint8_t pub[JWS_ED25519_LEN])
{
    char kid[JWS_KID_MAX];
    jws_thumbprint(pub, kid);
    json_t *jwk = jws_jwk(pub);
    json_object_set_new(jwk, "kid", json_string(kid));
    return json_pack("{s:[o]}", "keys", jwk);
}

static inline struct token_claims kit_claims(void)
{
    struct token_claims c = {
        .iss = KIT_ISSUER,
        .aud = KIT_NODE,
        .sub = "019307d0-7b3a-7c3e-8a5b-0123456789ab",
        .client_id = "019307d0-7b3a-7c3e-8a5b-0123456789ab",
        .jti = "019307d0-7b3a-7c3e-8a5b-0123456789ac",
        .jkt = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
        .iat_us = KIT_NOW,
        .nbf_us = KIT_NOW,
        .exp_us = KIT_NOW + TOKEN_LIFE_US,
        .status_seq = 7,
        .lease = {.reservation = KIT_RES,
                  .actions = TOKEN_LAUNCH | TOKEN_STOP,
                  .gpu_count = 2,
                  .gpus = {"GPU-5f7a0c1e-3b2d-4e6f-8a9b-0c1d2e3f4a00",
                           "GPU-5f7a0c1e-3b2d-4e6f-8a9b-0c1d2e3f4a01"},
                  .not_before_us = KIT_NOW,
                  .not_after_us = KIT_NOW + 4 * US_PER_HOUR + 123456,
                  .epoch = KIT_NOW,
                  .memory_max_bytes = INT64_C(1) << 33,
                  .pids_max = 4096,
                  .on_lost = TOKEN_STOP_AFTER,
                  .on_lost_after_us = 300 * US_PER_S,
                  .drain_us = 10 * US_PER_S},
    };
    return c;
}

static inline EVP_PKEY *kit_key(int which)
{
    return EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, kit_seed[which], 32);
}

static inline int kit_init(struct kit *k)
{
    uint8_t foreign[JWS_ED25519_LEN];
    *k = (struct kit){.key = kit_key(0), .foreign = kit_key(1), .claims = kit_claims()};
    if (jws_public(k->key, k->pub, NULL) != 0 ||
        jws_public(k->foreign, foreign, NULL) != 0)
        return -1;
    jws_thumbprint(k->pub, k->kid);
    jws_thumbprint(foreign, k->foreign_kid);
    json_t *jwks = kit_jwks(k->pub);
    int rc = keyring_from_jwks(jwks, &k->ring, NULL);
    json_decref(jwks);
    k->ctx = (struct token_check){.keys = k->ring,
                                  .issuer = KIT_ISSUER,
                                  .audience = KIT_NODE,
                                  .now_us = KIT_NOW + US_PER_S};
    return rc;
}

static inline void kit_done(struct kit *k)
{
    EVP_PKEY_free(k->key);
    EVP_PKEY_free(k->foreign);
    keyring_free(k->ring);
}

/* Any header and payload bytes, correctly signed by key. Caller frees. */
static inline char *kit_sign(EVP_PKEY *key, const char *header, const char *payload)
{
    struct strbuf b = STRBUF_INIT;
    uint8_t sig[64];
    size_t len = sizeof(sig);
    b64_encode_to(&b, header, strlen(header));
    strbuf_addc(&b, '.');
    b64_encode_to(&b, payload, strlen(payload));
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    if (EVP_DigestSignInit(md, NULL, NULL, NULL, key) != 1 ||
        EVP_DigestSign(md, sig, &len, (const uint8_t *)b.data, b.len) != 1)
        abort();
    EVP_MD_CTX_free(md);
    strbuf_addc(&b, '.');
    b64_encode_to(&b, sig, sizeof(sig));
    return strbuf_steal(&b);
}

static inline char *kit_header(const struct kit *k)
{
    return xasprintf("{\"alg\":\"EdDSA\",\"kid\":\"%s\",\"typ\":\"at+jwt\"}", k->kid);
}

static inline char *kit_payload(const struct kit *k)
{
    json_t *v = token_build(&k->claims);
    char *text = jsonx_dump(v);
    json_decref(v);
    return text;
}

/* The good grant as text. Caller frees. */
static inline char *kit_grant(const struct kit *k)
{
    char *header = kit_header(k), *payload = kit_payload(k);
    char *token = kit_sign(k->key, header, payload);
    free(header);
    free(payload);
    return token;
}

#endif
