/* account_ca: the market's CA on first contact. The connection here trusts nothing, and
 * nothing but certificates is read from it. */
#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/account.h"
#include "client/cli/dial.h"
#include "client/lib/digest.h"
#include "client/lib/tlsx.h"
#include "client/lib/xalloc.h"

static void cert_sha256(const X509 *cert, char out[65])
{
    unsigned char *der = NULL;
    int len = i2d_X509(cert, &der);
    digest_sha256_hex(der, len > 0 ? (size_t)len : 0, out);
    OPENSSL_free(der);
}

int account_ca_sha256(const char *pem, char out[65], struct err *err)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
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
static X509 *find_ca(SSL *ssl)
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

static char *cert_pem(X509 *cert)
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *data, *pem = NULL;
    if (bio != NULL && PEM_write_bio_X509(bio, cert) == 1) {
        long len = BIO_get_mem_data(bio, &data);
        pem = xstrndup(data, (size_t)len);
    }
    BIO_free(bio);
    return pem;
}

int account_fetch_ca(const char *server, char **ret_pem, struct err *err)
{
    struct dial_addr addr;
    if (dial_split_url(server, &addr, err) < 0)
        return -1;
    int fd = dial_tcp(&addr, DIAL_TIMEOUT_MS, err);
    if (fd < 0)
        return -1;
    int rc = -1;
    SSL_CTX *ctx = NULL;
    SSL *ssl = NULL;
    const struct tlsx_files none = {NULL, NULL, NULL};
    if (tlsx_client_ctx(&none, &ctx, err) < 0)
        goto out;
    SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
    ssl = SSL_new(ctx);
    if (ssl == NULL || SSL_set_fd(ssl, fd) != 1) {
        err_set(err, ERR_INTERNAL, "TLS: %s", tlsx_error());
        goto out;
    }
    struct in_addr v4;
    if (inet_pton(AF_INET, addr.host, &v4) != 1 && strchr(addr.host, ':') == NULL)
        SSL_set_tlsext_host_name(ssl, addr.host);
    if (dial_handshake(ssl, fd, DIAL_TIMEOUT_MS, err) < 0) {
        err_prefix(err, "%s", server);
        goto out;
    }
    X509 *ca = find_ca(ssl);
    if (ca == NULL || (*ret_pem = cert_pem(ca)) == NULL) {
        err_set(err, ERR_NOT_FOUND,
                "%s does not send its CA certificate: get ca.pem from the market's "
                "administrator and give it with --ca FILE",
                server);
        goto out;
    }
    rc = 0;
out:
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    dial_close(fd);
    return rc;
}
