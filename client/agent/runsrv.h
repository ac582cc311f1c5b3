/* runsrv: where tenants reach their jobs: a TLS listener (the node's certificate, ALPN
 * neargpu-run/1) and a local socket RUNTIME_DIR/agent.sock, both speaking the frames of
 * docs/wire.md. Part of the front: the nonce comes from the warden and the request goes
 * there as it is; only the warden decides, and when it says so and hands over a socket
 * of the job's keeper, frames pass between that and the tenant.
 *
 * Bounds: RUNSRV_CLIENTS_MAX connections, RUNSRV_FIRST_US to show a request, one
 * request a connection. A tenant that goes away ends nothing. */
#ifndef NEARGPU_AGENT_RUNSRV_H
#define NEARGPU_AGENT_RUNSRV_H
#include "client/agent/front.h"

#define RUNSRV_CLIENTS_MAX 256
#define RUNSRV_FIRST_US    INT64_C(15000000)
#define RUNSRV_VERSION     1 /* of the frames */

struct runsrv;
/* Binds, as root; accepts only once the loop runs. */
int runsrv_new(struct front *f, struct runsrv **ret, struct err *err) MUST_USE;
void runsrv_free(struct runsrv *r);
/* Address told to the market, "" when there is no listener. */
const char *runsrv_address(const struct runsrv *r);
/* New connections get the front's certificate as it is now; needed once before any. */
int runsrv_new_identity(struct runsrv *r, struct err *err) MUST_USE;
/* LINK_NONCE and LINK_ANSWER. */
int runsrv_take_nonce(struct runsrv *r, const json_t *doc, struct err *err) MUST_USE;
int runsrv_take_answer(struct runsrv *r, const json_t *doc, int fd_take,
                       struct err *err) MUST_USE;

#endif
