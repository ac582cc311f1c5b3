/* log_proof: proofs of the verifiable log out of the tiles that come with the
 * database's answer, into the JSON that readers are given (docs/log.md). Pure. */
#ifndef NEARGPU_FLOW_LOG_PROOF_H
#define NEARGPU_FLOW_LOG_PROOF_H
#include <jansson.h>
#include <stdint.h>

#include "client/lib/err.h"

/* head {size, tiles}: "consistency" that it extends the log of `from` leaves (0: none
 * is wanted) in the place of "tiles", which are gone in any case. ERR_BAD_REQUEST when
 * the log was never that long. */
int log_prove_extension(json_t *head, int64_t from, struct err *err) MUST_USE;
/* The entries of one log of a bundle get their proofs, out of bundle {logs, tiles}. */
int log_prove_entries(json_t *bundle, const char *log, struct err *err) MUST_USE;

#endif
