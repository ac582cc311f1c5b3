/* spool: receipts on disk until the market has them, and with them the state of every
 * receipt chain: STATE/spool/RES/SEQ holds one receipt's text, fsynced before anything
 * is told to anyone.
 *
 * Invariants: the newest receipt of a chain stays on disk until the chain is closed
 * and acknowledged, so that a killed agent goes on where it was; RES/acked holds the
 * highest acknowledged SEQ; a chain whose teardown was acknowledged is removed. */
#ifndef NEARGPU_AGENT_SPOOL_H
#define NEARGPU_AGENT_SPOOL_H
#include <jansson.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/agent/usage.h"
#include "client/lib/digest.h"
#include "client/lib/err.h"

#define SPOOL_BATCH_MAX   100                /* receipts in one post (docs/wire.md) */
#define SPOOL_HOLD_US     INT64_C(600000000) /* what cannot be sent is tried again then */
#define SPOOL_BATCH_BYTES (160 * 1024)       /* and one more fits into HTTP_BODY_MAX */

struct spool;

/* Reads what is there. `key` signs (borrowed). A chain that cannot be read is set
 * aside with a warning in the log, and never silently restarted. */
int spool_open(const char *state_dir, EVP_PKEY *key, struct spool **ret,
               struct err *err) MUST_USE;
void spool_free(struct spool *s);

/* The chain of a reservation, NULL when it has none (never ready, or all acked). */
const struct usage_chain *spool_chain(const struct spool *s, const char *reservation);
/* Builds, signs and stores the next receipt. A first `ready` begins the chain. */
int spool_add(struct spool *s, const char *reservation, const struct usage_point *p,
              struct err *err) MUST_USE;
/* Up to max texts not yet acknowledged, oldest first within a chain, as a new JSON
 * array; chains on hold are left out, and one that cannot be read is put on hold. */
json_t *spool_pending(struct spool *s, size_t max, int64_t boot_us);
bool spool_has_pending(const struct spool *s, int64_t boot_us);
/* SHA-256 of the text of a receipt that is still there, in hex. */
int spool_hash(const struct spool *s, const char *reservation, int64_t seq,
               char ret[SHA256_HEX], struct err *err) MUST_USE;
/* The market has all receipts up to seq, as it has signed (countersign.h). */
void spool_ack(struct spool *s, const char *reservation, int64_t seq);
/* The market refused one: the chain is not sent again before boot time `until`. */
void spool_hold(struct spool *s, const char *reservation, int64_t until_boot_us);

#endif
