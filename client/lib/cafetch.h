/* cafetch: the market's CA certificate on first contact. The handshake is made without
 * believing the server, and nothing but the certificates it shows is read from it: an
 * impostor can do no more than fail a comparison with a fingerprint that came another
 * way. What is secret is sent later, over a connection verified with that CA. An edge;
 * blocks; the program ignores SIGPIPE. */
#ifndef NEARGPU_CAFETCH_H
#define NEARGPU_CAFETCH_H
#include "client/lib/digest.h"
#include "client/lib/err.h"

/* Connects to server (https://host:port) and returns, as PEM (caller frees), the
 * certificate of its chain with this SHA-256 (hex of the DER, any case): ERR_USAGE when
 * that is no fingerprint, ERR_FORBIDDEN when none has it. sha256_hex NULL: the
 * self-signed CA that has signed the server's certificate, for the caller to compare;
 * ERR_NOT_FOUND when the server does not send it. */
int cafetch(const char *server, const char *sha256_hex, char **ret_pem,
            struct err *err) MUST_USE;
/* SHA-256 of the first certificate's DER in hex. ERR_USAGE when there is none in pem,
 * or it is no CA's. */
int cafetch_sha256(const char *pem, char out[SHA256_HEX], struct err *err) MUST_USE;

#endif
