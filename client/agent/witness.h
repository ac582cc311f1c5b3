/* witness: this node as a witness of the market's log (docs/log.md): what the market
 * shows of its heads in a sync is compared with what was seen before, kept, and then
 * cosigned (c2sp.org/tlog-cosignature) with a key that does nothing else.
 *
 *   STATE/witness/key               Ed25519, 0600, made when it is first needed
 *   STATE/witness/heads.json        each log's key and newest head that was cosigned
 *   STATE/witness/refused-LOG.note  the last head of it that was not: with heads.json,
 *                                   two signatures of the market on different logs
 *
 * A key apart from those of receipts and TLS: the market says what is signed here, and
 * must never get its hands on a signature that is worth money; and it outlives an
 * enrolment, as what was seen does. The market believes it because it comes over the
 * node's own connection.
 *
 * Invariants: what is cosigned extends all that was cosigned before, also over a
 * restart: a head is on disk before its cosignature is made. Nothing here holds up a
 * lease or a sync. */
#ifndef NEARGPU_AGENT_WITNESS_H
#define NEARGPU_AGENT_WITNESS_H
#include <jansson.h>
#include <stdint.h>

#include "client/lib/err.h"

struct witness;

struct witness_conf {
    const char *state_dir;
    const char *market, *spiffe_id;
    int64_t interval_us; /* a head is asked for so often */
};

/* ERR_BAD_REQUEST when what was seen is damaged: then nothing is cosigned. */
int witness_open(const struct witness_conf *c, struct witness **ret,
                 struct err *err) MUST_USE;
void witness_free(struct witness *w);
const char *witness_vkey(const struct witness *w);

/* Member "log" of the next sync; NULL: nothing to say. Caller owns. */
json_t *witness_says(const struct witness *w, int64_t boot_us);
/* Member "log" of an answer (NULL: it has none). now_us: signed time. */
void witness_takes(struct witness *w, const json_t *log, int64_t boot_us,
                   int64_t now_us);

#endif
