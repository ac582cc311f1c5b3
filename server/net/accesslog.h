/* accesslog: one line per answered request. The query is left out (it may hold what
 * tenants search for), as are keys and bodies. Pure: the caller logs the line. */
#ifndef NEARGPU_ACCESSLOG_H
#define NEARGPU_ACCESSLOG_H
#include "client/lib/strbuf.h"
#include "server/net/http1.h"

/* `POST /v1/reservations 201 1834us 512B tenant:acme [::1]:5004 0198…` */
void accesslog_line(const struct http1_done *done, struct strbuf *out);

#endif
