/* identity: see identity.h. */
#include "config.h"

#include "client/agent/identity.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/lib/bounds.h"
#include "client/lib/cafetch.h"
#include "client/lib/fsx.h"
#include "client/lib/httpc.h"
#include "client/lib/jsonx.h"
#include "client/lib/jws.h"
#include "client/lib/timefmt.h"
#include "client/lib/tlsx.h"
#include "client/lib/token.h"
#include "client/lib/xalloc.h"

#define PEM_FILE_MAX  (64 * 1024)
#define ENROL_TIMEOUT (30 * US_PER_S)

static char *in_dir(const struct identity *id, const char *name)
{
    return xasprintf("%s/%s", id->dir, name);
}

static void set_paths(struct identity *id, const char *state_dir)
{
    id->dir = xasprintf("%s/identity", state_dir);
    id->key_file = in_dir(id, "node.key");
    id->cert_file = in_dir(id, "node.pem");
    id->ca_file = in_dir(id, "ca.pem");
    id->new_key_file = in_dir(id, "node.key.new");
    id->new_cert_file = in_dir(id, "node.pem.new");
}

void identity_done(struct identity *id)
{
    char *texts[] = {id->dir,       id->server,  id->market,       id->issuer,
                     id->site,      id->node,    id->spiffe_id,    id->key_file,
                     id->cert_file, id->ca_file, id->new_key_file, id->new_cert_file};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        free(texts[i]);
    json_decref(id->jwks);
    keyring_free(id->keys);
    EVP_PKEY_free(id->receipt_key);
    memset(id, 0, sizeof(*id));
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
static void mend(struct identity *id)
{
    X509 *cert = file_cert(id->new_cert_file);
    if (cert != NULL && key_fits(id->key_file, cert))
        (void)rename(id->new_cert_file, id->cert_file);
    else if (cert != NULL && key_fits(id->new_key_file, cert))
        id->has_new = true;
    X509_free(cert);
    if (!id->has_new)
        identity_renew_abort(id);
}

static int load_cert(struct identity *id, struct err *err)
{
    X509 *cert = file_cert(id->cert_file);
    int rc = 0;
    if (cert == NULL)
        return err_set(err, ERR_NOT_FOUND, "%s: no certificate", id->cert_file);
    if (!key_fits(id->key_file, cert))
        rc = err_set(err, ERR_IO,
                     "%s is not the key of %s, or others may read it; enrol again, or "
                     "chmod 600",
                     id->key_file, id->cert_file);
    id->cert_from_us = asn1_us(X509_get0_notBefore(cert));
    id->cert_to_us = asn1_us(X509_get0_notAfter(cert));
    X509_free(cert);
    return rc;
}

static int load_receipt_key(struct identity *id, struct err *err)
{
    char *path = in_dir(id, "receipt.key"), *pem = NULL;
    size_t len = 0;
    int rc = fsx_read_secret(path, PEM_FILE_MAX, &pem, &len, err);
    if (rc == 0) {
        rc = jws_key_from_pem(pem, len, &id->receipt_key, err);
        OPENSSL_cleanse(pem, len);
    }
    free(pem);
    free(path);
    return rc;
}

struct market_row {
    const char *server, *market, *issuer, *site, *node, *spiffe_id;
    json_t *jwks;
};
#define F(n, t)                                           \
    {                                                     \
#n, t, true, offsetof(struct market_row, n), 0, 0 \
    }
static const struct jsonx_field market_fields[] = {
    F(server, JSONX_STRING), F(market, JSONX_STRING), F(issuer, JSONX_STRING),
    F(site, JSONX_STRING),   F(node, JSONX_STRING),   F(spiffe_id, JSONX_STRING),
    F(jwks, JSONX_OBJECT),
};

static int load_market(struct identity *id, struct err *err)
{
    char *path = in_dir(id, "market.json"), *text = NULL;
    struct market_row row = {0};
    size_t len;
    json_t *doc = NULL;
    int rc = fsx_read(path, JWKS_BYTES_MAX * 2, &text, &len, err);
    if (rc == 0 && (doc = jsonx_parse(text, len, JWKS_BYTES_MAX * 2, err)) == NULL)
        rc = -1;
    if (rc == 0)
        rc =
            jsonx_decode(doc, market_fields, JSONX_COUNT(market_fields), &row, "", err);
    if (rc == 0)
        rc = keyring_from_jwks(row.jwks, &id->keys, err);
    if (rc == 0) {
        id->server = xstrdup(row.server);
        id->market = xstrdup(row.market);
        id->issuer = xstrdup(row.issuer);
        id->site = xstrdup(row.site);
        id->node = xstrdup(row.node);
        id->spiffe_id = xstrdup(row.spiffe_id);
        id->jwks = json_incref(row.jwks);
    } else {
        rc = err_prefix(err, "%s", path);
    }
    json_decref(doc);
    free(text);
    free(path);
    return rc;
}

int identity_load(const char *state_dir, struct identity *ret, struct err *err)
{
    struct identity id = {0};
    set_paths(&id, state_dir);
    char *market = in_dir(&id, "market.json");
    int rc = 0;
    if (access(market, F_OK) != 0)
        rc = err_set(err, ERR_NOT_FOUND,
                     "this node is not enrolled (%s is not there); run `neargpu-agent "
                     "enroll` with a join code of your provider account",
                     market);
    free(market);
    if (rc == 0) {
        mend(&id);
        rc = load_market(&id, err);
    }
    if (rc == 0)
        rc = load_cert(&id, err);
    if (rc == 0)
        rc = load_receipt_key(&id, err);
    if (rc != 0) {
        identity_done(&id);
        return -1;
    }
    *ret = id;
    return 0;
}

static int write_market(const struct identity *id, const struct market_row *row,
                        struct err *err)
{
    json_t *o = json_object();
    json_object_set_new(o, "server", json_string(row->server));
    json_object_set_new(o, "market", json_string(row->market));
    json_object_set_new(o, "issuer", json_string(row->issuer));
    json_object_set_new(o, "site", json_string(row->site));
    json_object_set_new(o, "node", json_string(row->node));
    json_object_set_new(o, "spiffe_id", json_string(row->spiffe_id));
    json_object_set(o, "jwks", row->jwks);
    char *text = jsonx_dump(o), *path = in_dir(id, "market.json");
    int rc = fsx_write(path, text, strlen(text), 0600, err);
    free(path);
    free(text);
    json_decref(o);
    return rc;
}

int identity_set_jwks(struct identity *id, json_t *jwks, struct err *err)
{
    struct keyring *keys;
    if (json_equal(jwks, id->jwks))
        return 0;
    if (keyring_from_jwks(jwks, &keys, err) != 0)
        return err_prefix(err, "the market's key set");
    struct market_row row = {id->server, id->market,    id->issuer, id->site,
                             id->node,   id->spiffe_id, jwks};
    if (write_market(id, &row, err) != 0) {
        keyring_free(keys);
        return -1;
    }
    keyring_free(id->keys);
    json_decref(id->jwks);
    id->keys = keys;
    id->jwks = json_incref(jwks);
    return 0;
}

bool identity_is_due(const struct identity *id, int64_t now_us)
{
    return now_us >= id->cert_from_us + (id->cert_to_us - id->cert_from_us) / 2;
}

int identity_renew_begin(struct identity *id, char **ret_csr, struct err *err)
{
    char *key = NULL, *csr = NULL;
    if (tlsx_make_csr(id->spiffe_id, &key, &csr, err) != 0)
        return -1;
    int rc = fsx_write(id->new_key_file, key, strlen(key), 0600, err);
    OPENSSL_cleanse(key, strlen(key));
    free(key);
    if (rc != 0)
        free(csr);
    else
        *ret_csr = csr;
    return rc;
}

int identity_renew_store(struct identity *id, const char *cert_pem, struct err *err)
{
    X509 *cert = pem_cert(cert_pem);
    int rc = 0;
    if (cert == NULL || !key_fits(id->new_key_file, cert))
        rc = err_set(err, ERR_BAD_REQUEST,
                     "the certificate that came back is not one for the new key");
    X509_free(cert);
    if (rc == 0)
        rc = fsx_write(id->new_cert_file, cert_pem, strlen(cert_pem), 0600, err);
    return rc;
}

int identity_renew_commit(struct identity *id, struct err *err)
{
    if (rename(id->new_key_file, id->key_file) != 0 ||
        rename(id->new_cert_file, id->cert_file) != 0)
        return err_sys(err, errno, "%s: rename", id->dir);
    id->has_new = false;
    return load_cert(id, err);
}

void identity_renew_abort(struct identity *id)
{
    id->has_new = false;
    (void)unlink(id->new_cert_file);
    (void)unlink(id->new_key_file);
}

/* --- enrolment --- */

struct reply_row {
    const char *certificate, *ca, *spiffe_id, *market, *issuer, *site, *node;
    json_t *jwks;
};
#undef F
#define F(n, t, max)                                       \
    {                                                      \
#n, t, true, offsetof(struct reply_row, n), 0, max \
    }
static const struct jsonx_field reply_fields[] = {
    F(certificate, JSONX_STRING, PEM_FILE_MAX),
    F(ca, JSONX_STRING, PEM_FILE_MAX),
    F(spiffe_id, JSONX_STRING, TOKEN_AUD_MAX - 1),
    F(market, JSONX_STRING, 200),
    F(issuer, JSONX_STRING, 199),
    F(site, JSONX_STRING, NAME_BYTES_MAX),
    F(node, JSONX_STRING, NAME_BYTES_MAX),
    F(jwks, JSONX_OBJECT, 0),
};

/* Writes what came back; market.json last, because it is what makes a node enrolled. */
static int store_reply(struct identity *id, const char *server, const json_t *body,
                       struct err *err)
{
    struct reply_row row = {0};
    struct keyring *keys = NULL;
    if (jsonx_decode(body, reply_fields, JSONX_COUNT(reply_fields), &row, "", err) != 0)
        return err_prefix(err, "the market's reply");
    if (keyring_from_jwks(row.jwks, &keys, err) != 0)
        return err_prefix(err, "the market's key set");
    keyring_free(keys);
    X509 *cert = pem_cert(row.certificate);
    bool fits = cert != NULL && key_fits(id->key_file, cert);
    X509_free(cert);
    if (!fits)
        return err_set(err, ERR_BAD_REQUEST,
                       "the certificate that came back is not one for our key");
    if (fsx_write(id->cert_file, row.certificate, strlen(row.certificate), 0600, err) !=
        0)
        return -1;
    struct market_row m = {server,   row.market,    row.issuer, row.site,
                           row.node, row.spiffe_id, row.jwks};
    return write_market(id, &m, err);
}

static int make_keys(struct identity *id, json_t *body, struct err *err)
{
    char *key = NULL, *csr = NULL, *path = in_dir(id, "receipt.key"), *pem = NULL;
    uint8_t pub[JWS_ED25519_LEN];
    EVP_PKEY *receipt = NULL;
    /* The market names the node; what a CSR says of itself has no weight. */
    int rc = tlsx_make_csr("spiffe://neargpu/unnamed", &key, &csr, err);
    if (rc == 0)
        rc = fsx_write(id->key_file, key, strlen(key), 0600, err);
    if (rc == 0)
        rc = jws_keygen(&receipt, err);
    if (rc == 0) {
        pem = jws_key_to_pem(receipt);
        rc = fsx_write(path, pem, strlen(pem), 0600, err);
    }
    if (rc == 0)
        rc = jws_public(receipt, pub, err);
    if (rc == 0) {
        json_object_set_new(body, "csr", json_string(csr));
        json_object_set_new(body, "receipt_jwk", jws_jwk(pub));
    }
    EVP_PKEY_free(receipt);
    free(pem);
    free(path);
    free(key);
    free(csr);
    return rc;
}

static int pin_ca(const struct identity *id, const struct identity_enrol *in,
                  struct err *err)
{
    char *pem = NULL;
    int rc = in->ca_file != NULL ? fsx_read(in->ca_file, PEM_FILE_MAX, &pem, NULL, err)
                                 : cafetch(in->server, in->ca_sha256, &pem, err);
    if (rc == 0)
        rc = fsx_write(id->ca_file, pem, strlen(pem), 0644, err);
    free(pem);
    return rc;
}

static int post_enrol(struct identity *id, const struct identity_enrol *in,
                      json_t *body, struct err *err)
{
    struct httpc_conf conf = {.base_url = in->server,
                              .ca_file = id->ca_file,
                              .user_agent = "neargpu-agent/" PACKAGE_VERSION};
    struct httpc_request rq = {.method = "POST",
                               .path = "/v1/agent/enroll",
                               .body = body,
                               .timeout_us = ENROL_TIMEOUT};
    struct httpc_reply reply = {0};
    struct httpc *http;
    if (httpc_new(&conf, NULL, &http, err) != 0)
        return -1;
    int rc = httpc_call(http, &rq, &reply, err);
    if (rc == 0 && reply.body == NULL)
        rc = err_set(err, ERR_BAD_REQUEST, "the market's reply is no JSON");
    if (rc == 0)
        rc = store_reply(id, in->server, reply.body, err);
    httpc_reply_done(&reply);
    httpc_free(http);
    return rc;
}

int identity_enrol(const struct identity_enrol *in, struct err *err)
{
    struct identity id = {0};
    set_paths(&id, in->state_dir);
    char *market = in_dir(&id, "market.json");
    json_t *body = json_object();
    json_object_set_new(body, "code", json_string(in->join_code));
    int rc = 0;
    if (access(market, F_OK) == 0)
        rc = err_set(err, ERR_CONFLICT,
                     "this node is enrolled already; to enrol it anew end its leases "
                     "and remove %s",
                     id.dir);
    if (rc == 0)
        rc = fsx_mkdirs(id.dir, 0700, err);
    if (rc == 0)
        rc = pin_ca(&id, in, err);
    if (rc == 0)
        rc = make_keys(&id, body, err);
    if (rc == 0)
        rc = post_enrol(&id, in, body, err);
    json_decref(body);
    free(market);
    identity_done(&id);
    return rc;
}
