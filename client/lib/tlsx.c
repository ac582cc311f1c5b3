/* tlsx: see tlsx.h. Names are not checked here: a client sets the host name it expects
 * on the SSL (SSL_set1_host) or compares the SPIFFE ID after the handshake. */
#include "client/lib/tlsx.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/b64.h"
#include "client/lib/digest.h"
#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"

#define TLSX_KEY_BYTES_MAX 65536
/* A resumed session carries the client certificate seen at its full handshake, so this
 * also bounds how long a certificate is not looked at again. */
#define TLSX_SESSION_S 3600

const char *tlsx_error(void)
{
    static _Thread_local char text[256];
    unsigned long code = ERR_peek_last_error();
    if (code == 0)
        return "no OpenSSL error";
    ERR_error_string_n(code, text, sizeof(text));
    ERR_clear_error();
    return text;
}

/* Without a callback OpenSSL would ask for a passphrase on the terminal. */
static int tlsx_no_passphrase(char *buf, int size, int writing, void *arg)
{
    (void)buf;
    (void)size;
    (void)writing;
    (void)arg;
    return -1;
}

static int tlsx_use_key(SSL_CTX *ctx, const char *path, struct err *err)
{
    char *pem;
    size_t len;
    if (fsx_read_secret(path, TLSX_KEY_BYTES_MAX, &pem, &len, err) != 0)
        return -1;
    BIO *bio = BIO_new_mem_buf(pem, (int)len);
    if (bio == NULL)
        abort();
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, tlsx_no_passphrase, NULL);
    BIO_free(bio);
    OPENSSL_cleanse(pem, len);
    free(pem);
    int rc = 0;
    if (key == NULL)
        rc = err_set(err, ERR_IO, "%s holds no unencrypted private key: %s", path,
                     tlsx_error());
    else if (SSL_CTX_use_PrivateKey(ctx, key) != 1 ||
             SSL_CTX_check_private_key(ctx) != 1)
        rc = err_set(err, ERR_IO, "key %s does not fit the certificate: %s", path,
                     tlsx_error());
    EVP_PKEY_free(key);
    return rc;
}

static int tlsx_load(SSL_CTX *ctx, const struct tlsx_files *files, struct err *err)
{
    if (files->ca_file != NULL &&
        SSL_CTX_load_verify_locations(ctx, files->ca_file, NULL) != 1)
        return err_set(err, ERR_IO, "cannot read CA certificates from %s: %s",
                       files->ca_file, tlsx_error());
    if (files->cert_file == NULL)
        return 0;
    if (SSL_CTX_use_certificate_chain_file(ctx, files->cert_file) != 1)
        return err_set(err, ERR_IO, "cannot read a certificate from %s: %s",
                       files->cert_file, tlsx_error());
    if (files->key_file == NULL)
        return err_set(err, ERR_INTERNAL, "certificate %s has no key file",
                       files->cert_file);
    return tlsx_use_key(ctx, files->key_file, err);
}

static SSL_CTX *tlsx_new(const SSL_METHOD *method)
{
    SSL_CTX *ctx = SSL_CTX_new(method);
    if (ctx == NULL || SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1)
        abort(); /* no memory, or an OpenSSL without TLS 1.3 */
    /* Partial, moving writes: senders queue in buffers that may be reallocated. */
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                              SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return ctx;
}

static int tlsx_ask_client(SSL_CTX *ctx, const char *ca_file, struct err *err)
{
    /* Without FAIL_IF_NO_PEER_CERT: a wrong certificate ends the handshake, none at
     * all is for dispatch to judge. */
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if (ca_file == NULL)
        return err_set(err, ERR_INTERNAL,
                       "client certificates are asked for without a CA");
    STACK_OF(X509_NAME) *names = SSL_load_client_CA_file(ca_file);
    if (names == NULL)
        return err_set(err, ERR_IO, "cannot read CA names from %s: %s", ca_file,
                       tlsx_error());
    SSL_CTX_set_client_CA_list(ctx, names); /* takes names */
    return 0;
}

int tlsx_server_ctx(const struct tlsx_files *files, bool ask_client, SSL_CTX **ret,
                    struct err *err)
{
    static const unsigned char id[] = "neargpu";
    SSL_CTX *ctx = tlsx_new(TLS_server_method());
    /* Stateful resumption: a ticket would carry the whole client certificate and cost
     * a third of the rate. */
    SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET | SSL_OP_NO_RENEGOTIATION);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_SERVER);
    SSL_CTX_set_timeout(ctx, TLSX_SESSION_S);
    if (SSL_CTX_set_session_id_context(ctx, id, sizeof(id) - 1) != 1)
        abort();
    int rc = files->cert_file == NULL
                 ? err_set(err, ERR_INTERNAL, "a TLS server needs a certificate")
                 : tlsx_load(ctx, files, err);
    if (rc == 0 && ask_client)
        rc = tlsx_ask_client(ctx, files->ca_file, err);
    if (rc != 0) {
        SSL_CTX_free(ctx);
        return rc;
    }
    *ret = ctx;
    return 0;
}

int tlsx_client_ctx(const struct tlsx_files *files, SSL_CTX **ret, struct err *err)
{
    SSL_CTX *ctx = tlsx_new(TLS_client_method());
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if (tlsx_load(ctx, files, err) != 0) {
        SSL_CTX_free(ctx);
        return -1;
    }
    *ret = ctx;
    return 0;
}

static bool tlsx_copy_uri(const GENERAL_NAME *name, char *out, size_t cap)
{
    const ASN1_IA5STRING *uri = name->d.uniformResourceIdentifier;
    const unsigned char *text = ASN1_STRING_get0_data(uri);
    int len = ASN1_STRING_length(uri);
    if (len <= 0 || (size_t)len >= cap || memchr(text, '\0', (size_t)len) != NULL)
        return false;
    memcpy(out, text, (size_t)len);
    out[len] = '\0';
    return true;
}

void tlsx_peer_uri(const SSL *ssl, char *out, size_t cap)
{
    const X509 *cert = SSL_get0_peer_certificate(ssl);
    out[0] = '\0';
    if (cert == NULL || SSL_get_verify_result(ssl) != X509_V_OK)
        return;
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    int uris = 0;
    for (int i = 0; i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (name->type != GEN_URI)
            continue;
        /* SPIFFE (X.509-SVID, section 2): exactly one URI, else no identity. */
        if (++uris > 1 || !tlsx_copy_uri(name, out, cap)) {
            out[0] = '\0';
            break;
        }
    }
    GENERAL_NAMES_free(names);
}

void tlsx_peer_thumbprint(const SSL *ssl, char *out, size_t cap)
{
    const X509 *cert = SSL_get0_peer_certificate(ssl);
    uint8_t *der = NULL, hash[SHA256_LEN];
    out[0] = '\0';
    if (cert == NULL || cap <= B64_ENC_LEN(SHA256_LEN))
        return;
    int len = i2d_X509(cert, &der);
    if (len <= 0)
        return;
    digest_sha256(der, (size_t)len, hash);
    OPENSSL_free(der);
    b64_encode(hash, sizeof(hash), out);
}
