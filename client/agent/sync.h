/* sync: the one conversation with the market: a long poll that carries observed state
 * up and desired state down, the posting of receipts, and the renewal of the node's
 * certificate. Level-triggered: a lost message costs nothing, a restart of either side
 * is just another sync. Failures are retried with jitter and a capped backoff; no
 * failure here touches a lease. */
#ifndef NEARGPU_AGENT_SYNC_H
#define NEARGPU_AGENT_SYNC_H
#include "client/agent/agent.h"

#define SYNC_WAIT        "20s" /* long poll; the status must not get stale in it */
#define SYNC_TIMEOUT_US  INT64_C(35000000)
#define SYNC_BACKOFF_MIN INT64_C(500000)
#define SYNC_BACKOFF_MAX INT64_C(30000000)

struct sync;
int sync_new(struct agent *a, struct sync **ret, struct err *err) MUST_USE;
void sync_free(struct sync *s);
void sync_start(struct sync *s);
/* Observed state changed: the poll in progress is given up for a new one. */
void sync_poke(struct sync *s);

#endif
