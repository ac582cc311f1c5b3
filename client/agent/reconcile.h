/* reconcile: compares what the market wants of a node with what the node has, and says
 * what to do. Pure and level-triggered: it is run again after every sync and whenever
 * something changed, from nothing but the two states; doing its actions twice changes
 * nothing.
 *
 * Rules: only a revocation, `end`, the tenant or the deadline end a lease: a lease the
 * market does not mention is left as it is (the market's database may be being
 * restored). Nothing is started without signed time and a fresh status. A GPU passes to
 * the next lease only when the one before is done with it. An order for a GPU that is
 * not here, lost, quarantined or at its owner's work is not opened, and says why. */
#ifndef NEARGPU_AGENT_RECONCILE_H
#define NEARGPU_AGENT_RECONCILE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/agent/advert.h"
#include "client/agent/desired.h"
#include "client/agent/lease.h"

/* One lease the node has. */
struct reconcile_have {
    const char *id;
    enum lease_state state;
    int64_t not_after_us, generation;
    int64_t on_lost_us; /* -1: run to the end */
    const char (*gpus)[TOKEN_GPU_UUID_MAX];
    size_t gpu_count;
};

struct reconcile_in {
    const struct desired *want;
    const struct reconcile_have *have;
    size_t have_count;
    const struct advert *gpus;
    const struct token_status *status; /* the newest that was verified; NULL: none */
    bool time_known;
    int64_t now_us; /* signed time, when known */
};

enum reconcile_kind {
    RECONCILE_OPEN,    /* order */
    RECONCILE_EXTEND,  /* order: later end */
    RECONCILE_SHORTEN, /* order: earlier end */
    RECONCILE_END,     /* id, reason */
    RECONCILE_WAIT,    /* order cannot be opened now; why, retried on the next run */
};

struct reconcile_action {
    enum reconcile_kind kind;
    const struct order *order; /* into want; NULL for END */
    char id[UUID_TEXT];
    char why[120];
};

struct reconcile_out {
    struct reconcile_action *actions; /* heap; reconcile_out_done */
    size_t count;
    int64_t next_us; /* signed time of the next begin; INT64_MAX: none */
};

void reconcile(const struct reconcile_in *in, struct reconcile_out *ret);
void reconcile_out_done(struct reconcile_out *out);

/* Why an order cannot be opened now, "" when it can: the same test a launch by token
 * makes. `id` names the lease it is for, which may hold the GPUs itself. */
void reconcile_obstacle(const struct reconcile_in *in, const struct order *o, char *why,
                        size_t cap);
/* May anything be started: signed time, and a status not older than the bound. */
bool reconcile_may_start(const struct reconcile_in *in, char *why, size_t cap);
bool reconcile_is_revoked(const struct token_status *status, const char *id);

#endif
