/* issuer: what the server has signed. A message (plain data) goes to the signer
 * (signer.h), which checks it against its own limits and answers with a signed text.
 * It has no database and no clock: which key signs follows from the time in the message
 * and the key set (keystore.h).
 *
 * What it refuses, whoever asks: another market's name, a grant without a holder's key,
 * devices or window, one that starts later than TOKEN_LIFE_MAX_US after its issue, a
 * lease longer than LEASE_MAX_US, a status document with more than STATUS_REVOKED_MAX
 * entries. An edge only in issuer_open and issuer_renew (files). */
#ifndef NEARGPU_ISSUER_H
#define NEARGPU_ISSUER_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"
#include "client/lib/token.h"

struct issuer;

/* issuer_url: "https://MARKET", the iss of all it signs. */
/* signer: the program that runs as the signer process, "" for this one; NULL: signs in
 * this process (tests of who calls it). */
int issuer_open(const char *dir, const char *issuer_url, int64_t now_us,
                const char *signer, struct issuer **ret, struct err *err) MUST_USE;
void issuer_free(struct issuer *is);
const char *issuer_url(const struct issuer *is);
/* Of the key that signs at this time; "" when none may. */
void issuer_kid(const struct issuer *is, int64_t now_us, char ret_kid[JWS_KID_MAX]);
/* {"keys":[…]} of all that are not revoked; new reference. */
json_t *issuer_jwks(const struct issuer *is);
/* The set signed by the root, and the root to pin: {kty, crv, x}, new reference. */
const char *issuer_key_set(const struct issuer *is);
json_t *issuer_root(const struct issuer *is);
int64_t issuer_seq(const struct issuer *is); /* the set's number */
/* Until when the set is believed, and whether the root's private key is here, where it
 * does not belong. */
int64_t issuer_expires_us(const struct issuer *is);
bool issuer_has_root(const struct issuer *is);
/* A new set in the directory is taken over; with the root at hand an ageing one is
 * followed by the next. *ret_changed: another set than before. */
int issuer_renew(struct issuer *is, int64_t now_us, bool *ret_changed,
                 struct err *err) MUST_USE;

/* claims->iss and kid are set by the issuer. Caller frees *ret_token. */
int issuer_grant(const struct issuer *is, const struct token_claims *claims,
                 char **ret_token, struct err *err) MUST_USE;

struct issuer_status {
    int64_t now_us;             /* iat, and the signed server time */
    int64_t seq;                /* grows with every revocation */
    const char *const *revoked; /* reservation ids */
    size_t revoked_count;
    const json_t *min_epochs; /* {gpu: epoch} that a grant must exceed; NULL: none */
};
int issuer_status(const struct issuer *is, const struct issuer_status *doc,
                  char **ret_token, struct err *err) MUST_USE;

/* The market's countersign of one receipt (typ neargpu-ack+jwt): {iss, iat,
 * log_by, reservation, node, seq, hash, prev_hash}. With it a node cannot later show
 * another receipt under that number, nor the market deny that it had this one, nor
 * leave it out of its log: log_by is the second by which it promises it a place. Hashes
 * are of the receipts' texts, lower-case hex; prev_hash "" only for seq 1. Caller frees
 * *ret_token. */
struct issuer_ack {
    int64_t now_us;
    const char *reservation; /* UUID */
    const char *node;        /* SPIFFE ID of this market */
    int64_t seq;             /* from 1 on */
    const char *hash, *prev_hash;
};
int issuer_ack(const struct issuer *is, const struct issuer_ack *ack, char **ret_token,
               struct err *err) MUST_USE;

#endif
