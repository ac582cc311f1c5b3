#include "server/issuer/ca.h"

#include <arpa/inet.h>
#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <string.h>

#include "client/lib/fsx.h"
#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

struct ca {
    char *dir;
    char *pem;
    char sha256[SHA256_HEX];
    X509 *cert;
    EVP_PKEY *key;
};

static int ca_ssl_fail(struct err *err, const char *what)
{
    char why[200];
    ERR_error_string_n(ERR_peek_last_error(), why, sizeof(why));
    ERR_clear_error();
    return err_set(err, ERR_INTERNAL, "%s: %s", what, why);
}

/* ---- PEM in memory ---- */

static char *bio_text(BIO *bio)
{
    char *data;
    long len = BIO_get_mem_data(bio, &data);
    char *text = xstrndup(data, (size_t)len);
    BIO_free(bio);
    return text;
}

static char *cert_to_pem(X509 *cert)
{
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio == NULL || PEM_write_bio_X509(bio, cert) != 1) {
        BIO_free(bio);
        return NULL;
    }
    return bio_text(bio);
}

static char *key_to_pem(EVP_PKEY *key)
{
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio == NULL ||
        PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) != 1) {
        BIO_free(bio);
        return NULL;
    }
    return bio_text(bio);
}

/* A passphrase is never asked for: an encrypted key fails to load. */
static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
    (void)buf, (void)size, (void)rwflag, (void)arg;
    return -1;
}

static X509 *cert_from_pem(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *cert = bio == NULL ? NULL : PEM_read_bio_X509(bio, NULL, no_passphrase, NULL);
    BIO_free(bio);
    return cert;
}

static EVP_PKEY *key_from_pem(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    EVP_PKEY *key =
        bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);
    BIO_free(bio);
    return key;
}

/* ---- one certificate ---- */

struct cert_spec {
    const char *common_name;
    EVP_PKEY *subject_key;
    X509 *issuer; /* NULL: self-signed */
    EVP_PKEY *issuer_key;
    int64_t now_us, life_s;
    const char *eku;      /* NULL: a CA */
    GENERAL_NAMES *names; /* NULL: none; borrowed */
};

static int add_ext(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    int ok = ext != NULL && X509_add_ext(cert, ext, -1) == 1;
    X509_EXTENSION_free(ext);
    return ok ? 0 : -1;
}

static int set_serial_and_dates(X509 *cert, const struct cert_spec *spec)
{
    uint8_t serial[16];
    digest_random(serial, sizeof(serial));
    serial[0] = (uint8_t)((serial[0] & 0x7f) | 0x40); /* positive, full length */
    BIGNUM *bn = BN_bin2bn(serial, sizeof(serial), NULL);
    bool ok = bn != NULL && BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(cert)) != NULL;
    BN_free(bn);
    int64_t now_s = spec->now_us / US_PER_S;
    return ok &&
                   ASN1_TIME_set(X509_getm_notBefore(cert), now_s - CA_BACKDATE_S) !=
                       NULL &&
                   ASN1_TIME_set(X509_getm_notAfter(cert), now_s + spec->life_s) != NULL
               ? 0
               : -1;
}

static int set_names(X509 *cert, const struct cert_spec *spec)
{
    X509_NAME *name = X509_get_subject_name(cert);
    X509 *issuer = spec->issuer != NULL ? spec->issuer : cert;
    if (X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8,
                                   (const unsigned char *)spec->common_name, -1, -1,
                                   0) != 1)
        return -1;
    return X509_set_issuer_name(cert, X509_get_subject_name(issuer)) == 1 ? 0 : -1;
}

static int set_exts(X509 *cert, const struct cert_spec *spec)
{
    X509 *issuer = spec->issuer != NULL ? spec->issuer : cert;
    if (add_ext(cert, issuer, NID_subject_key_identifier, "hash") != 0 ||
        add_ext(cert, issuer, NID_authority_key_identifier, "keyid:always") != 0)
        return -1;
    if (spec->eku == NULL)
        return add_ext(cert, issuer, NID_basic_constraints,
                       "critical,CA:TRUE,pathlen:0") != 0 ||
                       add_ext(cert, issuer, NID_key_usage,
                               "critical,keyCertSign,cRLSign") != 0
                   ? -1
                   : 0;
    if (add_ext(cert, issuer, NID_basic_constraints, "critical,CA:FALSE") != 0 ||
        add_ext(cert, issuer, NID_key_usage, "critical,digitalSignature") != 0 ||
        add_ext(cert, issuer, NID_ext_key_usage, spec->eku) != 0)
        return -1;
    return spec->names == NULL ||
                   X509_add1_ext_i2d(cert, NID_subject_alt_name, spec->names, 0,
                                     X509V3_ADD_DEFAULT) == 1
               ? 0
               : -1;
}

static X509 *make_cert(const struct cert_spec *spec)
{
    X509 *cert = X509_new();
    if (cert != NULL && X509_set_version(cert, X509_VERSION_3) == 1 &&
        set_serial_and_dates(cert, spec) == 0 && set_names(cert, spec) == 0 &&
        X509_set_pubkey(cert, spec->subject_key) == 1 && set_exts(cert, spec) == 0 &&
        X509_sign(cert, spec->issuer_key, EVP_sha256()) > 0)
        return cert;
    X509_free(cert);
    return NULL;
}

static EVP_PKEY *new_p256(void)
{
    return EVP_EC_gen("P-256");
}

static GENERAL_NAME *name_new(int type, ASN1_STRING *value)
{
    GENERAL_NAME *gn = GENERAL_NAME_new();
    if (gn != NULL && value != NULL)
        GENERAL_NAME_set0_value(gn, type, value);
    return gn;
}

static int names_add_text(GENERAL_NAMES *names, int type, const char *text)
{
    ASN1_IA5STRING *value = ASN1_IA5STRING_new();
    if (value == NULL || ASN1_STRING_set(value, text, -1) != 1)
        return -1;
    return sk_GENERAL_NAME_push(names, name_new(type, value)) > 0 ? 0 : -1;
}

static GENERAL_NAMES *names_of(const char *const *names, size_t count)
{
    GENERAL_NAMES *out = sk_GENERAL_NAME_new_null();
    for (size_t i = 0; i < count && out != NULL; i++) {
        ASN1_OCTET_STRING *ip = a2i_IPADDRESS(names[i]);
        int rc = ip != NULL
                     ? (sk_GENERAL_NAME_push(out, name_new(GEN_IPADD, ip)) > 0 ? 0 : -1)
                     : names_add_text(out, GEN_DNS, names[i]);
        if (rc != 0) {
            GENERAL_NAMES_free(out);
            return NULL;
        }
    }
    return out;
}

/* ---- the authority ---- */

static int write_pair(const struct ca *ca, const char *name, X509 *cert, EVP_PKEY *key,
                      struct err *err)
{
    char *cert_pem = cert_to_pem(cert), *key_pem = key_to_pem(key);
    char *cert_path = xasprintf("%s/%s.pem", ca->dir, name);
    char *key_path = xasprintf("%s/%s.key", ca->dir, name);
    int rc = -1;
    if (cert_pem == NULL || key_pem == NULL)
        ca_ssl_fail(err, "cannot encode a certificate");
    /* The key first: a certificate without its key would look complete. */
    else if (fsx_write(key_path, key_pem, strlen(key_pem), 0600, err) == 0)
        rc = fsx_write(cert_path, cert_pem, strlen(cert_pem), 0644, err);
    if (key_pem != NULL)
        OPENSSL_cleanse(key_pem, strlen(key_pem));
    free(cert_pem);
    free(key_pem);
    free(cert_path);
    free(key_path);
    return rc;
}

/* 0: both loaded; 1: there is none; -1: error. */
static int read_pair(const struct ca *ca, const char *name, X509 **ret_cert,
                     EVP_PKEY **ret_key, struct err *err)
{
    char *cert_path = xasprintf("%s/%s.pem", ca->dir, name);
    char *key_path = xasprintf("%s/%s.key", ca->dir, name);
    char *cert_pem = NULL, *key_pem = NULL;
    struct err why;
    int rc = -1;
    *ret_cert = NULL;
    *ret_key = NULL;
    if (fsx_read(cert_path, CA_PEM_MAX, &cert_pem, NULL, &why) != 0) {
        rc = why.code == ERR_NOT_FOUND ? 1 : -1;
        goto out;
    }
    if (fsx_read_secret(key_path, CA_PEM_MAX, &key_pem, NULL, &why) != 0)
        goto out;
    *ret_cert = cert_from_pem(cert_pem);
    *ret_key = key_from_pem(key_pem);
    OPENSSL_cleanse(key_pem, strlen(key_pem));
    if (*ret_cert != NULL && *ret_key != NULL &&
        X509_check_private_key(*ret_cert, *ret_key) == 1) {
        rc = 0;
    } else {
        err_set(&why, ERR_IO, "%s and %s are not a certificate and its key", cert_path,
                key_path);
        ERR_clear_error();
    }
out:
    if (rc != 0) {
        X509_free(*ret_cert);
        EVP_PKEY_free(*ret_key);
        *ret_cert = NULL;
        *ret_key = NULL;
        if (rc < 0 && err != NULL)
            *err = why;
    }
    free(cert_path);
    free(key_path);
    free(cert_pem);
    free(key_pem);
    return rc;
}

static int ca_make(struct ca *ca, const char *market, int64_t now_us, struct err *err)
{
    char *cn = xasprintf("%.50s market CA", market);
    ca->key = new_p256();
    if (ca->key != NULL) {
        struct cert_spec spec = {.common_name = cn,
                                 .subject_key = ca->key,
                                 .issuer_key = ca->key,
                                 .now_us = now_us,
                                 .life_s = CA_LIFE_S};
        ca->cert = make_cert(&spec);
    }
    free(cn);
    if (ca->cert == NULL)
        return ca_ssl_fail(err, "cannot make the market's CA");
    return write_pair(ca, "ca", ca->cert, ca->key, err);
}

static int cert_digest(X509 *cert, uint8_t out[SHA256_LEN], struct err *err)
{
    unsigned len = SHA256_LEN;
    if (X509_digest(cert, EVP_sha256(), out, &len) != 1 || len != SHA256_LEN)
        return ca_ssl_fail(err, "cannot hash a certificate");
    return 0;
}

int ca_open(const char *dir, const char *market, int64_t now_us, struct ca **ret,
            struct err *err)
{
    struct ca *ca = xcalloc(1, sizeof(*ca));
    uint8_t hash[SHA256_LEN];
    ca->dir = xstrdup(dir);
    if (fsx_mkdirs(dir, 0700, err) != 0)
        goto fail;
    int rc = read_pair(ca, "ca", &ca->cert, &ca->key, err);
    if (rc == 1)
        rc = ca_make(ca, market, now_us, err);
    if (rc != 0 || cert_digest(ca->cert, hash, err) != 0)
        goto fail;
    digest_hex(hash, sizeof(hash), ca->sha256);
    ca->pem = cert_to_pem(ca->cert);
    if (ca->pem == NULL) {
        ca_ssl_fail(err, "cannot encode the market's CA");
        goto fail;
    }
    *ret = ca;
    return 0;
fail:
    ca_free(ca);
    return -1;
}

void ca_free(struct ca *ca)
{
    if (ca == NULL)
        return;
    X509_free(ca->cert);
    EVP_PKEY_free(ca->key);
    free(ca->pem);
    free(ca->dir);
    free(ca);
}

const char *ca_pem(const struct ca *ca)
{
    return ca->pem;
}

const char *ca_sha256(const struct ca *ca)
{
    return ca->sha256;
}

/* ---- the server's certificate ---- */

static bool server_cert_good(const struct ca *ca, X509 *cert, const char *const *names,
                             size_t name_count, int64_t now_us)
{
    time_t soon = (time_t)(now_us / US_PER_S + CA_SERVER_MIN);
    if (X509_cmp_time(X509_get0_notAfter(cert), &soon) <= 0 ||
        X509_verify(cert, X509_get0_pubkey(ca->cert)) != 1) {
        ERR_clear_error();
        return false;
    }
    for (size_t i = 0; i < name_count; i++)
        if (X509_check_ip_asc(cert, names[i], 0) != 1 &&
            X509_check_host(cert, names[i], 0, 0, NULL) != 1)
            return false;
    return true;
}

static int make_server(struct ca *ca, const char *const *names, size_t name_count,
                       int64_t now_us, struct err *err)
{
    GENERAL_NAMES *sans = names_of(names, name_count);
    EVP_PKEY *key = new_p256();
    X509 *cert = NULL;
    int rc = -1;
    if (sans != NULL && key != NULL) {
        struct cert_spec spec = {.common_name = "neargpud",
                                 .subject_key = key,
                                 .issuer = ca->cert,
                                 .issuer_key = ca->key,
                                 .now_us = now_us,
                                 .life_s = CA_SERVER_S,
                                 .eku = "serverAuth",
                                 .names = sans};
        cert = make_cert(&spec);
    }
    if (cert == NULL)
        ca_ssl_fail(err, "cannot make the server's certificate");
    else
        rc = write_pair(ca, "server", cert, key, err);
    GENERAL_NAMES_free(sans);
    X509_free(cert);
    EVP_PKEY_free(key);
    return rc;
}

int ca_ensure_server(struct ca *ca, const char *const *names, size_t name_count,
                     int64_t now_us, struct err *err)
{
    X509 *cert = NULL;
    EVP_PKEY *key = NULL;
    int rc = read_pair(ca, "server", &cert, &key, err);
    bool good = rc == 0 && server_cert_good(ca, cert, names, name_count, now_us);
    X509_free(cert);
    EVP_PKEY_free(key);
    if (rc < 0 || good)
        return rc < 0 ? -1 : 0;
    return make_server(ca, names, name_count, now_us, err);
}

/* ---- agents ---- */

static int csr_read(const char *pem, X509_REQ **ret, struct err *err)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509_REQ *csr =
        bio == NULL ? NULL : PEM_read_bio_X509_REQ(bio, NULL, no_passphrase, NULL);
    BIO_free(bio);
    EVP_PKEY *pub = csr == NULL ? NULL : X509_REQ_get0_pubkey(csr);
    char group[32] = "";
    int rc = 0;
    if (pub == NULL)
        rc = err_set(err, ERR_BAD_REQUEST, "csr: not a PEM certificate request");
    else if (!EVP_PKEY_is_a(pub, "EC") ||
             EVP_PKEY_get_group_name(pub, group, sizeof(group), NULL) != 1 ||
             strcmp(group, "prime256v1") != 0)
        rc = err_set(err, ERR_BAD_REQUEST, "csr: the key must be P-256");
    else if (X509_REQ_verify(csr, pub) != 1)
        rc = err_set(err, ERR_BAD_REQUEST, "csr: not signed by its own key");
    ERR_clear_error();
    if (rc != 0)
        X509_REQ_free(csr);
    else
        *ret = csr;
    return rc;
}

int ca_sign_agent(struct ca *ca, const char *csr_pem, const char *spiffe_uri,
                  int64_t now_us, struct ca_agent_cert *ret, struct err *err)
{
    X509_REQ *csr = NULL;
    if (csr_read(csr_pem, &csr, err) != 0)
        return -1;
    GENERAL_NAMES *sans = sk_GENERAL_NAME_new_null();
    X509 *cert = NULL;
    struct ca_agent_cert out = {NULL};
    int rc = -1;
    if (sans != NULL && names_add_text(sans, GEN_URI, spiffe_uri) == 0) {
        struct cert_spec spec = {.common_name = "neargpu-agent",
                                 .subject_key = X509_REQ_get0_pubkey(csr),
                                 .issuer = ca->cert,
                                 .issuer_key = ca->key,
                                 .now_us = now_us,
                                 .life_s = CA_AGENT_S,
                                 .eku = "clientAuth,serverAuth",
                                 .names = sans};
        cert = make_cert(&spec);
    }
    if (cert == NULL)
        ca_ssl_fail(err, "cannot sign an agent's certificate");
    else if (cert_digest(cert, out.sha256, err) == 0)
        out.pem = cert_to_pem(cert);
    if (out.pem != NULL) {
        *ret = out;
        rc = 0;
    } else if (cert != NULL) {
        ca_ssl_fail(err, "cannot encode an agent's certificate");
    }
    GENERAL_NAMES_free(sans);
    X509_free(cert);
    X509_REQ_free(csr);
    return rc;
}

void ca_agent_cert_done(struct ca_agent_cert *cert)
{
    free(cert->pem);
    cert->pem = NULL;
}
