/* tlsx: SSL_CTXs for TLS 1.3 only, as clients and servers of the market use them, and
 * the certificate facts the market reads. An edge (reads key files). */
#ifndef NEARGPU_TLSX_H
#define NEARGPU_TLSX_H
#include <openssl/ssl.h>
#include <stdbool.h>

#include "client/lib/err.h"

struct tlsx_files {
    const char *ca_file;   /* PEM, trusted peers; NULL: none asked for */
    const char *cert_file; /* PEM chain of our own; NULL: none */
    const char *key_file;  /* secret, 0600 */
};

/* Server: SSL_OP_NO_TICKET with a session cache, SSL_MODE_RELEASE_BUFFERS; asks for a
 * client certificate when ask_client, and accepts none as well (dispatch decides). */
int tlsx_server_ctx(const struct tlsx_files *files, bool ask_client, SSL_CTX **ret,
                    struct err *err) MUST_USE;
/* Client: verifies the server's certificate against ca_file only; the name is the
 * caller's to check (SSL_set1_host, or the SPIFFE ID after the handshake). */
int tlsx_client_ctx(const struct tlsx_files *files, SSL_CTX **ret,
                    struct err *err) MUST_USE;
/* The URI SAN of the peer's verified certificate ("spiffe://…"); "" when there is none,
 * or more than one. */
void tlsx_peer_uri(const SSL *ssl, char *out, size_t cap);
/* SHA-256 of the peer certificate's DER in base64url (x5t#S256); "" when none. Verified
 * or not: compare it with a thumbprint that is trusted. */
void tlsx_peer_thumbprint(const SSL *ssl, char *out, size_t cap);
/* Newest OpenSSL error as text, for err_set. */
const char *tlsx_error(void);

/* A P-256 key and a CSR (PEM) with one URI SAN; both heap strings. */
int tlsx_make_csr(const char *uri, char **ret_key_pem, char **ret_csr_pem,
                  struct err *err) MUST_USE;

#endif
