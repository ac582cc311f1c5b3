/* keyring: the signing keys an agent (or anyone) accepts, from a JWK Set (RFC 7517) of
 * OKP/Ed25519 keys; the algorithm belongs to the key. Keys have dates (`nbf`, `exp`
 * members, seconds) and can be revoked. Parsed EVP keys and contexts are kept:
 * verifying many tokens builds none. Pure. */
#ifndef NEARGPU_KEYRING_H
#define NEARGPU_KEYRING_H
#include <jansson.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/lib/err.h"
#include "client/lib/jws.h"

struct keyring;

struct keyring_key {
    char kid[JWS_KID_MAX];
    EVP_PKEY *pub;                       /* borrowed */
    EVP_MD_CTX *verifier;                /* borrowed, for jws_verify_ready() */
    int64_t not_before_us, not_after_us; /* INT64_MIN / INT64_MAX when open */
    bool revoked;
};

/* From {"keys":[…]}; a key whose kid is not its thumbprint, an unknown kty/crv, a
 * duplicate kid or more than KEYRING_KEYS_MAX keys is refused. */
int keyring_from_jwks(const json_t *jwks, struct keyring **ret,
                      struct err *err) MUST_USE;
void keyring_free(struct keyring *k);
const struct keyring_key *keyring_find(const struct keyring *k, const char *kid);
void keyring_revoke(struct keyring *k, const char *kid); /* unknown kid: no effect */
size_t keyring_count(const struct keyring *k);

#endif
