/* usage: the chain of signed receipts of one lease, from *ready* to *teardown*. Pure:
 * builds payloads; signing is jws's, keeping them is spool's.
 *
 * Invariants: seq grows by one; each receipt names the hash of the text before it;
 * [from, to) of successive receipts touch; gpu_ms is cumulative since ready and never
 * goes down, so any slicing of a lease into receipts bills the same; time between two
 * boots is a gap and is not counted. Shapes: docs/wire.md. */
#ifndef NEARGPU_AGENT_USAGE_H
#define NEARGPU_AGENT_USAGE_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/bounds.h"
#include "client/lib/err.h"
#include "client/lib/jws.h"
#include "client/lib/token.h"

#define USAGE_BOOT_ID_MAX 40

enum usage_kind { USAGE_READY, USAGE_INTERVAL, USAGE_TEARDOWN };
const char *usage_kind_name(enum usage_kind k);

struct usage_evidence {
    char gpu[TOKEN_GPU_UUID_MAX];
    int64_t utilisation_ppm, memory_mib, energy_mj; /* -1: unsupported */
};

/* Where a chain stands after its newest receipt. */
struct usage_chain {
    char reservation[UUID_TEXT];
    int64_t seq; /* 0: nothing yet */
    char prev[JWS_KID_MAX];
    enum usage_kind last;
    char boot_id[USAGE_BOOT_ID_MAX];
    int64_t to_us, boot_to_us;
    int64_t gpu_us; /* cumulative GPU microseconds */
};

/* One moment of a lease, as observed. */
struct usage_point {
    enum usage_kind kind;
    const char *issuer;      /* the node's SPIFFE ID */
    int64_t now_us, boot_us; /* signed time and boot clock; capped at the lease's end */
    const char *boot_id;
    const char (*gpus)[TOKEN_GPU_UUID_MAX];
    size_t gpu_count;
    int64_t epoch;
    const struct usage_evidence *evidence;
    size_t evidence_count;
};

/* The next receipt's payload, and in *ret_next the chain as it will be once its text is
 * committed. ERR_CONFLICT: nothing follows a teardown, only a ready comes first. */
int usage_next(const struct usage_chain *c, const struct usage_point *p,
               json_t **ret_payload, struct usage_chain *ret_next,
               struct err *err) MUST_USE;
/* Sets what the following receipt will name as `prev`. */
void usage_commit(struct usage_chain *next, const char *text);
/* The chain as it stood after this receipt of ours (its payload, decoded). */
int usage_restore(const json_t *payload, const char *text, struct usage_chain *ret,
                  struct err *err) MUST_USE;

#endif
