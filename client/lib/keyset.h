/* keyset: which keys may sign for the market, said by its root: a key that is kept
 * offline and pinned by whoever enrols. Compact JWS, typ jwk-set+jwt, kid = thumbprint
 * of the root (RFC 7515, 7517, 7638). Payload:
 *
 *   {iss, iat, exp, seq, keys:[{kty,crv,x,kid,alg,use,nbf,exp}], revoked:[kid…]}
 *
 * seq only grows: an older set is refused (no rollback), and none is believed past exp
 * (no eternal cache). A key outside its dates signs nothing that is believed; a revoked
 * one stays in `revoked` until its exp, so that nobody takes it for unknown. Pure: time
 * and the root are handed in. */
#ifndef NEARGPU_KEYSET_H
#define NEARGPU_KEYSET_H
#include <jansson.h>
#include <openssl/evp.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/bounds.h"
#include "client/lib/err.h"
#include "client/lib/jws.h"
#include "client/lib/keyring.h"

#define KEYSET_BYTES_MAX (64 * 1024)
#define KEYSET_ISS_MAX   200
#define KEYSET_LIFE_US   (INT64_C(90) * 24 * 3600 * 1000000) /* exp - iat as made */
#define KEYSET_FETCH_US  (INT64_C(30) * 1000000)

struct keyset_key {
    uint8_t pub[JWS_ED25519_LEN];
    char kid[JWS_KID_MAX];
    int64_t not_before_us, not_after_us; /* whole seconds */
    bool revoked;
};

struct keyset {
    char iss[KEYSET_ISS_MAX];
    int64_t iat_us, exp_us, seq;
    struct keyset_key keys[KEYRING_KEYS_MAX];
    size_t count;
};

/* What a reader insists on. */
struct keyset_want {
    const uint8_t *root; /* raw public key, JWS_ED25519_LEN bytes */
    const char *issuer;  /* NULL: not compared */
    int64_t now_us;      /* INT64_MIN: time is not known yet, dates are not judged */
    int64_t min_seq;     /* the newest seen */
};
/* Steps: size, parts, base64, header, root, signature, payload, issuer, rollback,
 * times. On failure *ret_step is the step's name and err has ERR_TOKEN. */
int keyset_check(const char *text, size_t len, const struct keyset_want *want,
                 struct keyset *ret, const char **ret_step, struct err *err) MUST_USE;
/* Without a root: what a set says, for those who make its successor and sign that. */
int keyset_read(const char *text, size_t len, struct keyset *ret,
                struct err *err) MUST_USE;

/* Signed by the root. ERR_BAD_REQUEST for a set that a reader would refuse: no issuer,
 * no key, exp not after iat, a key twice. Caller frees *ret_text. */
int keyset_sign(const struct keyset *set, EVP_PKEY *root, char **ret_text,
                struct err *err) MUST_USE;

/* The verifying side of it; revoked keys are in the ring as such. */
int keyset_ring(const struct keyset *set, struct keyring **ret,
                struct err *err) MUST_USE;
/* {"keys":[…]} without revoked ones, as /.well-known/jwks.json; new reference. */
json_t *keyset_jwks(const struct keyset *set);

struct keyset_key *keyset_find(struct keyset *set, const char *kid); /* NULL: none */
/* ERR_TOO_LARGE when it is full, ERR_CONFLICT when it is there. Times are cut to whole
 * seconds. */
int keyset_add(struct keyset *set, const uint8_t pub[JWS_ED25519_LEN],
               int64_t not_before_us, int64_t not_after_us, struct err *err) MUST_USE;
/* Takes keys out whose time is over. */
void keyset_prune(struct keyset *set, int64_t now_us);
/* The key to sign with at now: valid, not revoked, the latest to have begun; NULL:
 * none. `have` says which private keys there are (NULL: all). */
const struct keyset_key *keyset_signer(const struct keyset *set, int64_t now_us,
                                       bool (*have)(void *arg, const char *kid),
                                       void *arg);

/* An unknown kid may be asked for once in KEYSET_FETCH_US, however many tokens name how
 * many. last_us: 0 at first; true: fetch now. */
bool keyset_may_fetch(int64_t *last_us, int64_t boot_us);

#endif
