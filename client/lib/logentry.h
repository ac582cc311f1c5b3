/* logentry: what one leaf of the market's log commits to, so that whoever has a record
 * and its nonce can check it, and whoever has neither learns nothing from the log:
 *
 *   leaf data = SHA-256("neargpu-log-v1\n" || nonce (16 bytes) || record)
 *
 * where record is the record's JSON in the canonical form of RFC 8785 (jsonx.h says
 * which part of it). Pure. */
#ifndef NEARGPU_LOGENTRY_H
#define NEARGPU_LOGENTRY_H
#include <jansson.h>
#include <stdint.h>

#include "client/lib/err.h"
#include "client/lib/merkle.h"

#define LOGENTRY_LABEL     "neargpu-log-v1\n"
#define LOGENTRY_NONCE_LEN 16

/* The leaf's hash as it stands in the tree. ERR_BAD_REQUEST for a record that has no
 * canonical form (a fraction, a number beyond 2^53). */
int logentry_leaf(const json_t *record, const uint8_t nonce[LOGENTRY_NONCE_LEN],
                  struct merkle_hash *ret, struct err *err) MUST_USE;

/* Lower-case hex of exactly len bytes; false when it is anything else. */
bool logentry_unhex(const char *text, uint8_t *out, size_t len);

#endif
