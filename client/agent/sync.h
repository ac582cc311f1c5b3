/* sync: the front's conversation with the market: a long poll that carries observed
 * state up and desired state down, the posting of receipts, the fetching of the key
 * set, and the renewal of the node's certificate. What is sent comes from the warden,
 * what is answered goes to it. Level-triggered: a lost message costs nothing, a restart
 * of any side is just another sync. Failures are retried with jitter and a capped
 * backoff; no failure here touches a lease. */
#ifndef NEARGPU_AGENT_SYNC_H
#define NEARGPU_AGENT_SYNC_H
#include "client/agent/front.h"

#define SYNC_WAIT        "20s" /* long poll; the status must not get stale in it */
#define SYNC_TIMEOUT_US  INT64_C(35000000)
#define SYNC_BACKOFF_MIN INT64_C(500000)
#define SYNC_BACKOFF_MAX INT64_C(30000000)

struct sync;
int sync_new(struct front *f, struct sync **ret, struct err *err) MUST_USE;
void sync_free(struct sync *s);
/* Observed state changed: the poll in progress is given up for a new one. */
void sync_poke(struct sync *s);
/* What the next polls tell, borrowed; the first one starts them. fresh: the warden has
 * a status that need not be hurried; changed: as sync_poke. */
void sync_observe(struct sync *s, const json_t *body, bool fresh, bool changed);
/* LINK_RECEIPTS; LINK_ACKED follows, whatever happens. */
int sync_post(struct sync *s, const json_t *doc, struct err *err) MUST_USE;
/* LINK_FETCH; LINK_KEYS follows. */
void sync_fetch_keys(struct sync *s);

#endif
