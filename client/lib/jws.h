/* jws: compact JWS with Ed25519 keys: making them, and the strict split used by every
 * verifier. RFC 7515, RFC 8037 (EdDSA), RFC 9864 ("Ed25519" is the same key's other
 * name), RFC 7638 (thumbprint as kid). Types never interchange:
 *   at+jwt grant, neargpu-pop+jwt proof, neargpu-status+jwt revocation and time,
 *   neargpu-usage+jwt receipt, jwk-set+jwt signed key set,
 *   neargpu-ack+jwt the market's countersign of a receipt.
 * Pure: keys are handed in. */
#ifndef NEARGPU_JWS_H
#define NEARGPU_JWS_H
#include <jansson.h>
#include <openssl/evp.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"

#define JWS_TYP_GRANT  "at+jwt"
#define JWS_TYP_POP    "neargpu-pop+jwt"
#define JWS_TYP_STATUS "neargpu-status+jwt"
#define JWS_TYP_USAGE  "neargpu-usage+jwt"
#define JWS_TYP_JWKSET "jwk-set+jwt"
#define JWS_TYP_ACK    "neargpu-ack+jwt"

#define JWS_KID_MAX     44 /* 43 base64url characters of SHA-256, and NUL */
#define JWS_ED25519_LEN 32

/* RFC 7638 thumbprint of the OKP JWK with this public key. */
void jws_thumbprint(const uint8_t pub[JWS_ED25519_LEN], char out[JWS_KID_MAX]);
int jws_public(EVP_PKEY *key, uint8_t out[JWS_ED25519_LEN], struct err *err) MUST_USE;
/* {"kty":"OKP","crv":"Ed25519","x":…}; new reference. */
json_t *jws_jwk(const uint8_t pub[JWS_ED25519_LEN]);
/* Strict: exactly kty, crv, x (kid, alg, use, nbf, exp are allowed and ignored here).
 */
int jws_jwk_parse(const json_t *jwk, uint8_t out[JWS_ED25519_LEN],
                  struct err *err) MUST_USE;
/* New random key; caller EVP_PKEY_free()s. */
int jws_keygen(EVP_PKEY **ret_key, struct err *err) MUST_USE;
int jws_key_from_pem(const char *pem, size_t len, EVP_PKEY **ret_key,
                     struct err *err) MUST_USE;
char *jws_key_to_pem(EVP_PKEY *key); /* PKCS#8, caller frees; abort on failure */
/* Signs payload (dumped compact) under header {alg:"EdDSA",kid,typ}, in this order;
 * kid is the thumbprint. Caller frees *ret_token. */
int jws_sign(EVP_PKEY *key, const char *typ, const json_t *payload, char **ret_token,
             struct err *err) MUST_USE;

/* The same by someone who holds the key elsewhere (an SSH agent): sign() makes the raw
 * Ed25519 signature (64 bytes) over the data. */
struct jws_signer {
    uint8_t pub[JWS_ED25519_LEN];
    int (*sign)(void *arg, const void *data, size_t len, uint8_t sig[64],
                struct err *err);
    void *arg;
};
int jws_sign_by(const struct jws_signer *signer, const char *typ, const json_t *payload,
                char **ret_token, struct err *err) MUST_USE;

/* A token cut into its parts and the header decoded: nothing is verified yet. */
struct jws_parts {
    const char *signed_text; /* header.payload, borrowed */
    size_t signed_len;
    char kid[JWS_KID_MAX];
    char typ[32];
    char *payload; /* decoded bytes, heap, NUL-terminated */
    size_t payload_len;
    uint8_t sig[64];
};
/* Size, three parts, strict base64url, header exactly {alg,kid,typ} with alg EdDSA or
 * Ed25519. On failure *ret_step names the step ("size", "parts", "base64", "header", or
 * "signature" when that is not 64 bytes) and err has ERR_TOKEN. */
int jws_split(const char *token, size_t len, struct jws_parts *ret,
              const char **ret_step, struct err *err) MUST_USE;
/* As jws_split, for documents that may be longer than a token: status documents
 * (STATUS_BYTES_MAX) and receipts (RECEIPT_BYTES_MAX). */
int jws_split_max(const char *token, size_t len, size_t max, struct jws_parts *ret,
                  const char **ret_step, struct err *err) MUST_USE;
void jws_parts_done(struct jws_parts *p);
/* Signature over signed_text with the public key. */
int jws_verify(const struct jws_parts *p, EVP_PKEY *pub, struct err *err) MUST_USE;
/* The same with a context made once per key: saves the algorithm look-up. NULL when
 * OpenSSL refuses the key; caller EVP_MD_CTX_free()s. */
EVP_MD_CTX *jws_verifier(EVP_PKEY *pub);
int jws_verify_ready(const struct jws_parts *p, const EVP_MD_CTX *verifier,
                     struct err *err) MUST_USE;

#endif
