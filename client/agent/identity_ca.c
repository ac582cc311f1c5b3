/* identity_ca: finds the market's CA certificate by its fingerprint, which came with
 * the join code. The handshake is made without believing the server; the only thing
 * taken from it is a certificate whose SHA-256 is the pinned one, so an impostor can do
 * no more than fail. The join code is sent later, over a connection verified with it.
 */
#include <errno.h>
#include <netdb.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "client/agent/identity.h"
#include "client/lib/digest.h"
#include "client/lib/tlsx.h"
#include "client/lib/xalloc.h"

#define CONNECT_TIMEOUT_S 10

/* "https://host:port[/…]" -> host, port; both heap. */
static int split_url(const char *url, char **ret_host, char **ret_port, struct err *err)
{
    const char *at = strncmp(url, "https://", 8) == 0 ? url + 8 : NULL;
    if (at == NULL)
        return err_set(err, ERR_USAGE, "\"%s\" is no https:// URL", url);
    size_t len = strcspn(at, "/");
    char *authority = xstrndup(at, len), *host = authority, *port = NULL;
    char *colon = strrchr(authority, ':');
    if (authority[0] == '[') {
        char *end = strchr(authority, ']');
        host = authority + 1;
        if (end != NULL && end[1] == ':')
            port = end + 2;
        if (end != NULL)
            *end = '\0';
    } else if (colon != NULL) {
        *colon = '\0';
        port = colon + 1;
    }
    *ret_host = xstrdup(host);
    *ret_port = xstrdup(port != NULL && *port != '\0' ? port : "443");
    free(authority);
    return 0;
}

static int dial(const char *host, const char *port, struct err *err)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
    struct timeval tv = {CONNECT_TIMEOUT_S, 0};
    int fd = -1, rc = getaddrinfo(host, port, &hints, &list);
    if (rc != 0)
        return err_set(err, ERR_UNREACHABLE, "%s: %s", host, gai_strerror(rc));
    int why = ECONNREFUSED;
    for (struct addrinfo *a = list; a != NULL && fd < 0; a = a->ai_next) {
        fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd < 0)
            continue;
        (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
        (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof(tv));
        if (connect(fd, a->ai_addr, a->ai_addrlen) != 0) {
            why = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd < 0)
        return err_set(err, ERR_UNREACHABLE, "%s:%s: %s", host, port, strerror(why));
    return fd;
}

static char *cert_pem(X509 *cert)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *data = NULL, *pem = NULL;
    if (bio != NULL && PEM_write_bio_X509(bio, cert) == 1) {
        long len = BIO_get_mem_data(bio, &data);
        pem = xstrndup(data, (size_t)len);
    }
    BIO_free(bio);
    return pem;
}

static char *find_in_chain(SSL *ssl, const char *sha256_hex)
{
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl);
    char *pem = NULL;
    for (int i = 0; chain != NULL && i < sk_X509_num(chain) && pem == NULL; i++) {
        X509 *cert = sk_X509_value(chain, i);
        unsigned char *der = NULL;
        char hex[SHA256_HEX];
        int len = i2d_X509(cert, &der);
        if (len <= 0)
            continue;
        digest_sha256_hex(der, (size_t)len, hex);
        if (strcasecmp(hex, sha256_hex) == 0)
            pem = cert_pem(cert);
        OPENSSL_free(der);
    }
    return pem;
}

static int handshake(int fd, const char *host, const char *sha256_hex, char **ret_pem,
                     struct err *err)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = ctx != NULL ? SSL_new(ctx) : NULL;
    int rc = -1;
    if (ssl == NULL) {
        (void)err_set(err, ERR_INTERNAL, "TLS: %s", tlsx_error());
        goto out;
    }
    SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL); /* see the head of this file */
    SSL_set_min_proto_version(ssl, TLS1_3_VERSION);
    SSL_set_tlsext_host_name(ssl, host);
    SSL_set_fd(ssl, fd);
    if (SSL_connect(ssl) != 1) {
        (void)err_set(err, ERR_UNREACHABLE, "%s: TLS: %s", host, tlsx_error());
        goto out;
    }
    *ret_pem = find_in_chain(ssl, sha256_hex);
    if (*ret_pem == NULL)
        (void)err_set(err, ERR_FORBIDDEN,
                      "%s does not show a certificate with the fingerprint %.16s…: it "
                      "is not the market that gave the join code, or --ca-sha256 is "
                      "wrong",
                      host, sha256_hex);
    else
        rc = 0;
out:
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    return rc;
}

int identity_fetch_ca(const char *server_url, const char *sha256_hex, char **ret_pem,
                      struct err *err)
{
    char *host = NULL, *port = NULL;
    if (strlen(sha256_hex) != SHA256_HEX - 1 ||
        strspn(sha256_hex, "0123456789abcdefABCDEF") != SHA256_HEX - 1)
        return err_set(err, ERR_USAGE, "--ca-sha256 takes 64 hexadecimal digits");
    if (split_url(server_url, &host, &port, err) != 0)
        return -1;
    int fd = dial(host, port, err);
    int rc = fd >= 0 ? handshake(fd, host, sha256_hex, ret_pem, err) : -1;
    if (fd >= 0)
        close(fd);
    free(host);
    free(port);
    return rc;
}
