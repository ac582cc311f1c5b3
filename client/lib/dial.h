/* dial: connections that are not HTTP: TCP or a unix socket, non-blocking,
 * with a bound on the time, and a TLS handshake on top. An edge; blocks. */
#ifndef NEARGPU_DIAL_H
#define NEARGPU_DIAL_H
#include <openssl/ssl.h>

#include "client/lib/err.h"

#define DIAL_TIMEOUT_MS 10000

struct dial_addr {
    char host[256]; /* without brackets; "" for a unix socket */
    char port[8];
    char path[108]; /* unix socket, "" for TCP */
};

/* "https://host[:port][/]"; default port 443. */
int dial_split_url(const char *url, struct dial_addr *ret, struct err *err) MUST_USE;
/* "host:port", "[v6]:port" or "unix:/path". */
int dial_split(const char *text, struct dial_addr *ret, struct err *err) MUST_USE;
/* A connected non-blocking descriptor, or -1 (ERR_UNREACHABLE). */
int dial_tcp(const struct dial_addr *addr, int timeout_ms, struct err *err) MUST_USE;
/* Client handshake on a non-blocking descriptor. Keeps the certificate check of ssl. */
int dial_handshake(SSL *ssl, int fd, int timeout_ms, struct err *err) MUST_USE;
void dial_close(int fd);

#endif
