/* issuer: the signing key and nothing else. It takes a message (plain data), checks it
 * against its own limits, and answers with a signed text. It has no caches, no
 * database and no clock, so that it can move into a process of its own behind a pipe
 * without its callers changing.
 *
 * What it refuses, whoever asks: another market's name, a grant without a holder's key,
 * devices or window, one that starts later than TOKEN_LIFE_MAX_US after its issue, a
 * lease longer than LEASE_MAX_US, a status document with more than STATUS_REVOKED_MAX
 * entries. An edge only in issuer_open (reads or makes DIR/signer.key, 0600). */
#ifndef NEARGPU_ISSUER_H
#define NEARGPU_ISSUER_H
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"
#include "client/lib/token.h"

struct issuer;

/* issuer_url: "https://MARKET", the iss of all it signs. */
int issuer_open(const char *dir, const char *issuer_url, struct issuer **ret,
                struct err *err) MUST_USE;
void issuer_free(struct issuer *is);
const char *issuer_url(const struct issuer *is);
const char *issuer_kid(const struct issuer *is);
/* {"keys":[…]} with kid, alg and use; new reference. */
json_t *issuer_jwks(const struct issuer *is);

/* claims->iss and kid are set by the issuer. Caller frees *ret_token. */
int issuer_grant(const struct issuer *is, const struct token_claims *claims,
                 char **ret_token, struct err *err) MUST_USE;

struct issuer_status {
    int64_t now_us;             /* iat, and the signed server time */
    int64_t seq;                /* grows with every revocation */
    const char *const *revoked; /* reservation ids */
    size_t revoked_count;
};
int issuer_status(const struct issuer *is, const struct issuer_status *doc,
                  char **ret_token, struct err *err) MUST_USE;

#endif
