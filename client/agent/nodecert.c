/* nodecert: see nodecert.h. */
#include "client/agent/nodecert.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/lib/fsx.h"
#include "client/lib/timefmt.h"
#include "client/lib/tlsx.h"
#include "client/lib/xalloc.h"

#define PEM_FILE_MAX (64 * 1024)

static void set_paths(struct nodecert *n, const char *dir)
{
    n->dir = xstrdup(dir);
    n->key_file = xasprintf("%s/node.key", dir);
    n->cert_file = xasprintf("%s/node.pem", dir);
    n->new_key_file = xasprintf("%s/node.key.new", dir);
    n->new_cert_file = xasprintf("%s/node.pem.new", dir);
}

void nodecert_done(struct nodecert *n)
{
    char *texts[] = {n->dir,       n->spiffe_id,    n->key_file,
                     n->cert_file, n->new_key_file, n->new_cert_file};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        free(texts[i]);
    memset(n, 0, sizeof(*n));
}

static X509 *pem_cert(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *cert = bio != NULL ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    BIO_free(bio);
    return cert;
}

static X509 *file_cert(const char *path)
{
    char *pem = NULL;
    X509 *cert = NULL;
    if (fsx_read(path, PEM_FILE_MAX, &pem, NULL, NULL) == 0)
        cert = pem_cert(pem);
    free(pem);
    return cert;
}

/* Is the private key in the file the one of the certificate? */
static bool key_fits(const char *key_file, X509 *cert)
{
    char *pem = NULL;
    size_t len;
    bool fits = false;
    if (fsx_read_secret(key_file, PEM_FILE_MAX, &pem, &len, NULL) != 0)
        return false;
    BIO *bio = BIO_new_mem_buf(pem, (int)len);
    EVP_PKEY *key = bio != NULL ? PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL) : NULL;
    if (key != NULL)
        fits = X509_check_private_key(cert, key) == 1;
    EVP_PKEY_free(key);
    BIO_free(bio);
    OPENSSL_cleanse(pem, len);
    free(pem);
    ERR_clear_error();
    return fits;
}

static int64_t asn1_us(const ASN1_TIME *t)
{
    struct tm tm;
    if (ASN1_TIME_to_tm(t, &tm) != 1)
        return 0;
    return (int64_t)timegm(&tm) * US_PER_S;
}

/* What a renewal that was cut off has left. The key is renamed first, so a new
 * certificate that fits the key in place only lacks its own rename. */
static void mend(struct nodecert *n)
{
    X509 *cert = file_cert(n->new_cert_file);
    if (cert != NULL && key_fits(n->key_file, cert))
        (void)rename(n->new_cert_file, n->cert_file);
    else if (cert != NULL && key_fits(n->new_key_file, cert))
        n->has_new = true;
    X509_free(cert);
    if (!n->has_new)
        nodecert_renew_abort(n);
}

static int load_cert(struct nodecert *n, struct err *err)
{
    X509 *cert = file_cert(n->cert_file);
    int rc = 0;
    if (cert == NULL)
        return err_set(err, ERR_NOT_FOUND, "%s: no certificate", n->cert_file);
    if (!key_fits(n->key_file, cert))
        rc = err_set(err, ERR_IO,
                     "%s is not the key of %s, or others may read it; enrol again, or "
                     "chmod 600",
                     n->key_file, n->cert_file);
    n->cert_from_us = asn1_us(X509_get0_notBefore(cert));
    n->cert_to_us = asn1_us(X509_get0_notAfter(cert));
    X509_free(cert);
    return rc;
}

int nodecert_load(const char *dir, const char *spiffe_id, struct nodecert *ret,
                  struct err *err)
{
    struct nodecert n = {0};
    set_paths(&n, dir);
    n.spiffe_id = xstrdup(spiffe_id);
    mend(&n);
    if (load_cert(&n, err) != 0) {
        nodecert_done(&n);
        return -1;
    }
    *ret = n;
    return 0;
}

int nodecert_make_first(const char *dir, const char *name, char **ret_csr,
                        struct err *err)
{
    struct nodecert n = {0};
    char *key = NULL, *csr = NULL;
    set_paths(&n, dir);
    int rc = tlsx_make_csr(name, &key, &csr, err);
    if (rc == 0)
        rc = fsx_write(n.key_file, key, strlen(key), 0600, err);
    if (key != NULL)
        OPENSSL_cleanse(key, strlen(key));
    free(key);
    if (rc == 0)
        *ret_csr = csr;
    else
        free(csr);
    nodecert_done(&n);
    return rc;
}

int nodecert_store_first(const char *dir, const char *pem, struct err *err)
{
    struct nodecert n = {0};
    int rc = 0;
    set_paths(&n, dir);
    X509 *cert = pem_cert(pem);
    if (cert == NULL || !key_fits(n.key_file, cert))
        rc = err_set(err, ERR_BAD_REQUEST,
                     "the certificate that came back is not one for our key");
    X509_free(cert);
    if (rc == 0)
        rc = fsx_write(n.cert_file, pem, strlen(pem), 0600, err);
    nodecert_done(&n);
    return rc;
}

bool nodecert_is_due(const struct nodecert *n, int64_t now_us)
{
    return now_us >= n->cert_from_us + (n->cert_to_us - n->cert_from_us) / 2;
}

int nodecert_renew_begin(struct nodecert *n, char **ret_csr, struct err *err)
{
    char *key = NULL, *csr = NULL;
    if (tlsx_make_csr(n->spiffe_id, &key, &csr, err) != 0)
        return -1;
    int rc = fsx_write(n->new_key_file, key, strlen(key), 0600, err);
    OPENSSL_cleanse(key, strlen(key));
    free(key);
    if (rc != 0)
        free(csr);
    else
        *ret_csr = csr;
    return rc;
}

int nodecert_renew_store(struct nodecert *n, const char *cert_pem, struct err *err)
{
    X509 *cert = pem_cert(cert_pem);
    int rc = 0;
    if (cert == NULL || !key_fits(n->new_key_file, cert))
        rc = err_set(err, ERR_BAD_REQUEST,
                     "the certificate that came back is not one for the new key");
    X509_free(cert);
    if (rc == 0)
        rc = fsx_write(n->new_cert_file, cert_pem, strlen(cert_pem), 0600, err);
    return rc;
}

int nodecert_renew_commit(struct nodecert *n, struct err *err)
{
    if (rename(n->new_key_file, n->key_file) != 0 ||
        rename(n->new_cert_file, n->cert_file) != 0)
        return err_sys(err, errno, "%s: rename", n->dir);
    n->has_new = false;
    return load_cert(n, err);
}

void nodecert_renew_abort(struct nodecert *n)
{
    n->has_new = false;
    (void)unlink(n->new_cert_file);
    (void)unlink(n->new_key_file);
}
