/* desired: the market's reply to a sync, decoded: which leases a node is to allow,
 * which to end, what to probe. Pure. Shapes: docs/wire.md.
 *
 * A lease order with a member that is not understood is refused (it may restrict what
 * is granted); elsewhere unknown members are ignored, so that a newer server does not
 * stop an older agent. Nothing here is acted upon: reconcile compares it with what the
 * node has. */
#ifndef NEARGPU_AGENT_DESIRED_H
#define NEARGPU_AGENT_DESIRED_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/agent/journal.h"
#include "client/lib/bounds.h"
#include "client/lib/err.h"
#include "client/lib/token.h"

#define DESIRED_VERSION_MAX 128
#define DESIRED_LEASES_MAX  1024 /* a day of one-GPU leases on the largest node */
#define DESIRED_PROBES_MAX  1024 /* data sets one node can measure in an interval */

/* What the market (by sync or by token) orders for one lease. */
struct order {
    char id[UUID_TEXT];
    char tenant[UUID_TEXT];
    char gpus[GPUS_PER_NODE_MAX][TOKEN_GPU_UUID_MAX];
    size_t gpu_count;
    int64_t not_before_us, not_after_us;
    int64_t epoch, generation;
    int64_t drain_us;
    int64_t memory_max_bytes, pids_max; /* 0: the node's default */
    int64_t on_lost_us;                 /* -1: run to the end */
    /* OpenSSH public keys of the tenant; a token's order has none */
    char holders[JOURNAL_HOLDERS_MAX][JOURNAL_HOLDER_MAX];
    size_t holder_count;
    bool spot; /* ordered for a short term at a time; only orders move its end */
};

struct desired_end {
    char id[UUID_TEXT];
    char reason[24];
};

struct desired_ack {
    char id[UUID_TEXT];
    int64_t seq;
};

struct desired_probe {
    char dataset[64];
    char endpoint[512];
};

struct desired {
    char version[DESIRED_VERSION_MAX];
    struct order *leases;
    size_t lease_count;
    struct desired_end *end;
    size_t end_count;
    struct desired_probe *probes;
    size_t probe_count;
    struct desired_ack *acks;
    size_t ack_count;
    char *status;              /* token text, NULL: none */
    char *key_set;             /* its text (keyset.h), NULL: none */
    int64_t probe_interval_us; /* 0: not told */
    int64_t receipt_interval_us;
};

int desired_parse(const json_t *reply, struct desired *ret, struct err *err) MUST_USE;
void desired_done(struct desired *d);
/* The order a valid grant amounts to. */
void order_from_token(const struct token_claims *claims, struct order *ret);
/* {"acks":…} alone, as receipts are answered. */
int desired_parse_acks(const json_t *list, const char *at, struct desired_ack **ret,
                       size_t *ret_count, struct err *err) MUST_USE;

#endif
