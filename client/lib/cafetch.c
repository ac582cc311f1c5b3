/* cafetch: see cafetch.h. */
#include "client/lib/cafetch.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "client/lib/dial.h"
#include "client/lib/tlsx.h"
#include "client/lib/xalloc.h"

static void cert_sha256(const X509 *cert, char out[SHA256_HEX])
{
    unsigned char *der = NULL;
    int len = i2d_X509(cert, &der);
    digest_sha256_hex(der, len > 0 ? (size_t)len : 0, out);
    OPENSSL_free(der);
}

int cafetch_sha256(const char *pem, char out[SHA256_HEX], struct err *err)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *cert = bio != NULL ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    if (cert == NULL) {
        ERR_clear_error();
        return err_set(err, ERR_USAGE, "no PEM certificate in it");
    }
    int rc = 0;
    if (X509_check_ca(cert) > 0)
        cert_sha256(cert, out);
    else
        rc = err_set(err, ERR_USAGE,
                     "its certificate is no CA's: the market's is ca.pem");
    X509_free(cert);
    return rc;
}

/* The self-signed certificate of the chain whose key has signed the leaf. */
static X509 *find_signer(SSL *ssl)
{
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl);
    X509 *leaf = SSL_get0_peer_certificate(ssl);
    for (int i = 0; leaf != NULL && i < sk_X509_num(chain); i++) {
        X509 *ca = sk_X509_value(chain, i);
        EVP_PKEY *key = X509_get0_pubkey(ca);
        if (key != NULL && X509_check_ca(ca) > 0 && X509_verify(ca, key) == 1 &&
            X509_verify(leaf, key) == 1)
            return ca;
    }
    return NULL;
}

static X509 *find_print(SSL *ssl, const char *sha256_hex)
{
    STACK_OF(X509) *chain = SSL_get_peer_cert_chain(ssl);
    for (int i = 0; i < sk_X509_num(chain); i++) {
        char hex[SHA256_HEX];
        cert_sha256(sk_X509_value(chain, i), hex);
        if (strcasecmp(hex, sha256_hex) == 0)
            return sk_X509_value(chain, i);
    }
    return NULL;
}

static char *cert_pem(X509 *cert)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *data;
    if (bio == NULL || PEM_write_bio_X509(bio, cert) != 1)
        abort();
    long len = BIO_get_mem_data(bio, &data);
    char *pem = xstrndup(data, (size_t)len);
    BIO_free(bio);
    return pem;
}

static int choose(SSL *ssl, const char *server, const char *sha256_hex, char **ret_pem,
                  struct err *err)
{
    X509 *cert = sha256_hex != NULL ? find_print(ssl, sha256_hex) : find_signer(ssl);
    ERR_clear_error(); /* signatures that did not fit */
    if (cert == NULL && sha256_hex != NULL)
        return err_set(err, ERR_FORBIDDEN,
                       "%s does not show a certificate with the fingerprint %.16s…: it "
                       "is not the market that gave the join code, or --ca-sha256 is "
                       "wrong",
                       server, sha256_hex);
    if (cert == NULL)
        return err_set(err, ERR_NOT_FOUND,
                       "%s does not send its CA certificate: get ca.pem from the "
                       "market's administrator and give it with --ca FILE",
                       server);
    *ret_pem = cert_pem(cert);
    return 0;
}

static int shake_hands(SSL_CTX *ctx, const struct dial_addr *addr, int fd, SSL **ret,
                       struct err *err)
{
    struct in_addr v4;
    SSL *ssl = SSL_new(ctx);
    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        return err_set(err, ERR_INTERNAL, "TLS: %s", tlsx_error());
    }
    SSL_set_verify(ssl, SSL_VERIFY_NONE, NULL); /* see cafetch.h */
    if (inet_pton(AF_INET, addr->host, &v4) != 1 && strchr(addr->host, ':') == NULL)
        SSL_set_tlsext_host_name(ssl, addr->host);
    if (dial_handshake(ssl, fd, DIAL_TIMEOUT_MS, err) < 0) {
        SSL_free(ssl);
        return -1;
    }
    *ret = ssl;
    return 0;
}

int cafetch(const char *server, const char *sha256_hex, char **ret_pem, struct err *err)
{
    const struct tlsx_files none = {NULL, NULL, NULL};
    struct dial_addr addr;
    SSL_CTX *ctx = NULL;
    SSL *ssl = NULL;
    if (sha256_hex != NULL &&
        (strlen(sha256_hex) != SHA256_HEX - 1 ||
         strspn(sha256_hex, "0123456789abcdefABCDEF") != SHA256_HEX - 1))
        return err_set(err, ERR_USAGE, "--ca-sha256 takes 64 hexadecimal digits");
    if (dial_split_url(server, &addr, err) < 0)
        return -1;
    int fd = dial_tcp(&addr, DIAL_TIMEOUT_MS, err);
    if (fd < 0)
        return -1;
    int rc = tlsx_client_ctx(&none, &ctx, err);
    if (rc == 0)
        rc = shake_hands(ctx, &addr, fd, &ssl, err);
    if (rc < 0)
        err_prefix(err, "%s", server);
    else
        rc = choose(ssl, server, sha256_hex, ret_pem, err);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    dial_close(fd);
    return rc;
}
