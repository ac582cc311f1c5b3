/* sshsrv: lets sshd's helpers into the leases of this node: serves RUNTIME_DIR/ssh.sock
 * (ssh_proto.h) when the conf names an ssh_user.
 *
 * A public key opens the open leases whose holders name it, and nothing else: before
 * the window and after it sshd is told of no key. A session takes its ticket
 * (ticket.h), passes the status, policy and gate checks of every launch, and becomes a
 * job of the lease; the helper gets the keeper's socket and this part is out of the
 * way. When the helper's connection closes the job is hung up (SIGHUP). The sshd
 * process of a connection is ended when none of the leases its key opened is left, so
 * that forwarded ports do not outlive a lease either.
 *
 * Bounds: SSHSRV_CLIENTS_MAX connections, SSHSRV_SESSIONS_MAX of one lease,
 * SSHSRV_FIRST_US for the request, one request a connection. Does not check signatures:
 * that a key's owner is there is sshd's word. */
#ifndef NEARGPU_AGENT_SSHSRV_H
#define NEARGPU_AGENT_SSHSRV_H
#include <jansson.h>

#include "client/agent/agent.h"

#define SSHSRV_CLIENTS_MAX  256
#define SSHSRV_SESSIONS_MAX 64
#define SSHSRV_FIRST_US     INT64_C(15000000)
#define SSHSRV_GRACE_US     INT64_C(3000000) /* for a session to say its last line */

struct sshsrv;
/* *ret is NULL when the conf has no ssh_user. */
int sshsrv_new(struct agent *a, struct sshsrv **ret, struct err *err) MUST_USE;
void sshsrv_free(struct sshsrv *s);
/* What the market is told: {"port","user","host_key"}; NULL: nothing. New reference. */
json_t *sshsrv_observed(const struct settings *conf);

#endif
