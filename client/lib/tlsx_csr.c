/* tlsx_csr: tlsx_make_csr() of tlsx.h. The name extension is built by hand: OpenSSL's
 * text form would read a comma in the URI as the start of another name. */
#include "client/lib/tlsx.h"

#include <assert.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"

static char *tlsx_bio_text(BIO *bio)
{
    char *data;
    long len = BIO_get_mem_data(bio, &data);
    char *text = xstrndup(data, (size_t)len);
    BIO_free(bio);
    return text;
}

static char *tlsx_key_pem(EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio == NULL ||
        PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1)
        abort();
    return tlsx_bio_text(bio);
}

/* subjectAltName with the one URI; NULL when the URI is not plain ASCII. */
static GENERAL_NAMES *tlsx_uri_names(const char *uri)
{
    for (const char *p = uri; *p != '\0'; p++)
        if (*p <= ' ' || *p >= 0x7f)
            return NULL;
    GENERAL_NAMES *names = sk_GENERAL_NAME_new_null();
    GENERAL_NAME *name = GENERAL_NAME_new();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();
    if (names == NULL || name == NULL || text == NULL ||
        ASN1_STRING_set(text, uri, (int)strlen(uri)) != 1)
        abort();
    GENERAL_NAME_set0_value(name, GEN_URI, text);
    if (sk_GENERAL_NAME_push(names, name) == 0)
        abort();
    return names;
}

static bool tlsx_fill_request(X509_REQ *req, EVP_PKEY *key, GENERAL_NAMES *names)
{
    STACK_OF(X509_EXTENSION) *extensions = NULL;
    bool ok = X509_REQ_set_version(req, X509_REQ_VERSION_1) == 1 &&
              X509_REQ_set_pubkey(req, key) == 1 &&
              X509V3_add1_i2d(&extensions, NID_subject_alt_name, names, 0,
                              X509V3_ADD_DEFAULT) == 1 &&
              X509_REQ_add_extensions(req, extensions) == 1 &&
              X509_REQ_sign(req, key, EVP_sha256()) > 0;
    sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
    return ok;
}

int tlsx_make_csr(const char *uri, char **ret_key_pem, char **ret_csr_pem,
                  struct err *err)
{
    GENERAL_NAMES *names = tlsx_uri_names(uri);
    if (names == NULL)
        return err_set(err, ERR_BAD_REQUEST, "'%.100s' is not a URI", uri);
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509_REQ *req = X509_REQ_new();
    BIO *bio = BIO_new(BIO_s_mem());
    int rc = 0;
    if (key == NULL || req == NULL || bio == NULL ||
        !tlsx_fill_request(req, key, names) || PEM_write_bio_X509_REQ(bio, req) != 1)
        rc = err_set(err, ERR_INTERNAL, "cannot make a certificate request: %s",
                     tlsx_error());
    if (rc == 0) {
        *ret_key_pem = tlsx_key_pem(key);
        *ret_csr_pem = tlsx_bio_text(bio);
    } else {
        BIO_free(bio);
    }
    GENERAL_NAMES_free(names);
    X509_REQ_free(req);
    EVP_PKEY_free(key);
    return rc;
}
