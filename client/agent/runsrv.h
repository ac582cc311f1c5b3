/* runsrv: where tenants reach their jobs: a TLS listener (the node's certificate, ALPN
 * neargpu-run/1) and a local socket RUNTIME_DIR/agent.sock, both speaking the frames of
 * docs/wire.md. Every request carries a grant and a proof of possession and is checked
 * step by step (runauth); then frames pass between the tenant and the job's keeper.
 *
 * Bounds: RUNSRV_CLIENTS_MAX connections, RUNSRV_TENANT_MAX of one tenant,
 * RUNSRV_FIRST_US to show a valid request, one request a connection, a nonce used once.
 * A tenant that goes away ends nothing. */
#ifndef NEARGPU_AGENT_RUNSRV_H
#define NEARGPU_AGENT_RUNSRV_H
#include "client/agent/agent.h"

#define RUNSRV_CLIENTS_MAX 256
#define RUNSRV_TENANT_MAX  128 /* a process for each GPU of the largest node, twice */
#define RUNSRV_FIRST_US    INT64_C(15000000)

struct runsrv;
int runsrv_new(struct agent *a, struct runsrv **ret, struct err *err) MUST_USE;
void runsrv_free(struct runsrv *r);
/* Address told to the market, "" when there is no listener. */
const char *runsrv_address(const struct runsrv *r);
/* New connections get the renewed certificate. */
void runsrv_new_identity(struct runsrv *r);

#endif
