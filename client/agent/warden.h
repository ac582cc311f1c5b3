/* warden: the privileged process's side of the split. Puts this process into a network
 * namespace of its own without interfaces, starts the front (front.h), starts it again
 * when it ends, tells it what the market should hear, and serves what it brings: the
 * market's answers and the tenants' requests. Those are checked here, all of them
 * (runauth.h): a front that was taken over can lose messages, but not launch, extend,
 * read or end a job without a grant and its tenant's proof over a nonce made here.
 *
 * Leases do not depend on the front's life, nor on this process's. */
#ifndef NEARGPU_AGENT_WARDEN_H
#define NEARGPU_AGENT_WARDEN_H
#include <jansson.h>

#include "client/agent/agent.h"
#include "client/agent/link.h"

#define WARDEN_CLIENTS_MAX                                                          \
    256                       /* connections the front may have, RUNSRV_CLIENTS_MAX \
                               */
#define WARDEN_TENANT_MAX 128 /* a process for each GPU of the largest node, twice */
#define WARDEN_RESPAWN_MIN \
    INT64_C(100000) /* a front that ended is started again then, */
#define WARDEN_RESPAWN_MAX INT64_C(30000000) /* … each time later, up to this */
#define WARDEN_STEADY_US   INT64_C(60000000) /* lived that long: begins anew */
#define WARDEN_PUSH_US     INT64_C(10000000) /* observed state is told that often */

struct warden;
/* Leaves the host's network: later children of this process are without one, unless
 * they go back (launch_set_netns). Nothing is started yet. */
int warden_new(struct agent *a, struct warden **ret, struct err *err) MUST_USE;
void warden_start(struct warden *w);
void warden_free(struct warden *w); /* NULL is fine; ends the front */
/* What the market should know has changed, or receipts were written. NULL is fine. */
void warden_changed(struct warden *w);

#endif
