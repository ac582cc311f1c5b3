#include "server/issuer/issuer.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/bounds.h"
#include "client/lib/fsx.h"
#include "client/lib/jws.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define SIGNER_PEM_MAX 4096

struct issuer {
    EVP_PKEY *key;
    uint8_t pub[JWS_ED25519_LEN];
    char kid[JWS_KID_MAX];
    char *url;
};

static int signer_make(const char *path, EVP_PKEY **ret, struct err *err)
{
    EVP_PKEY *key = NULL;
    if (jws_keygen(&key, err) != 0)
        return -1;
    char *pem = jws_key_to_pem(key);
    int rc = fsx_write(path, pem, strlen(pem), 0600, err);
    OPENSSL_cleanse(pem, strlen(pem));
    free(pem);
    if (rc == 0)
        *ret = key;
    else
        EVP_PKEY_free(key);
    return rc;
}

static int signer_load(const char *path, EVP_PKEY **ret, struct err *err)
{
    char *pem = NULL;
    size_t len;
    struct err why;
    if (fsx_read_secret(path, SIGNER_PEM_MAX, &pem, &len, &why) != 0) {
        if (why.code == ERR_NOT_FOUND)
            return signer_make(path, ret, err);
        if (err != NULL)
            *err = why;
        return -1;
    }
    int rc = jws_key_from_pem(pem, len, ret, err);
    OPENSSL_cleanse(pem, len);
    free(pem);
    return rc == 0 ? 0 : err_prefix(err, "%s", path);
}

int issuer_open(const char *dir, const char *url, struct issuer **ret, struct err *err)
{
    struct issuer *is = xcalloc(1, sizeof(*is));
    char *path = xasprintf("%s/signer.key", dir);
    is->url = xstrdup(url);
    int rc = fsx_mkdirs(dir, 0700, err);
    if (rc == 0)
        rc = signer_load(path, &is->key, err);
    if (rc == 0)
        rc = jws_public(is->key, is->pub, err);
    free(path);
    if (rc != 0) {
        issuer_free(is);
        return -1;
    }
    jws_thumbprint(is->pub, is->kid);
    *ret = is;
    return 0;
}

void issuer_free(struct issuer *is)
{
    if (is == NULL)
        return;
    EVP_PKEY_free(is->key);
    free(is->url);
    free(is);
}

const char *issuer_url(const struct issuer *is)
{
    return is->url;
}

const char *issuer_kid(const struct issuer *is)
{
    return is->kid;
}

json_t *issuer_jwks(const struct issuer *is)
{
    json_t *jwk = jws_jwk(is->pub);
    json_object_set_new(jwk, "kid", json_string(is->kid));
    json_object_set_new(jwk, "alg", json_string("EdDSA"));
    json_object_set_new(jwk, "use", json_string("sig"));
    return json_pack("{s:[o]}", "keys", jwk);
}

/* The signer's own limits: a mistake of the caller must not become a signed promise. */
static int grant_check(const struct token_claims *c, struct err *err)
{
    const struct token_lease *l = &c->lease;
    const char *what = NULL;
    if (c->jkt[0] == '\0')
        what = "no holder's key";
    else if (c->aud[0] == '\0' || c->sub[0] == '\0')
        what = "no audience or subject";
    else if (!uuid_is_valid(l->reservation) || !uuid_is_valid(c->jti))
        what = "no reservation or token id";
    else if (l->gpu_count == 0 || l->gpu_count > GPUS_PER_NODE_MAX || l->actions == 0)
        what = "no devices or actions";
    else if (c->exp_us <= c->iat_us || c->exp_us - c->iat_us > TOKEN_LIFE_MAX_US)
        what = "life out of bounds";
    else if (l->not_after_us <= l->not_before_us ||
             l->not_after_us - l->not_before_us > LEASE_MAX_US)
        what = "lease window out of bounds";
    if (what != NULL)
        return err_set(err, ERR_INTERNAL, "issuer refuses to sign a grant: %s", what);
    return 0;
}

int issuer_grant(const struct issuer *is, const struct token_claims *claims,
                 char **ret_token, struct err *err)
{
    if (grant_check(claims, err) != 0)
        return -1;
    if (strlen(is->url) >= sizeof(claims->iss))
        return err_set(err, ERR_INTERNAL, "the issuer's name is too long");
    struct token_claims *own = xmalloc(sizeof(*own));
    *own = *claims;
    memcpy(own->iss, is->url, strlen(is->url) + 1);
    memcpy(own->kid, is->kid, sizeof(own->kid));
    json_t *payload = token_build(own);
    int rc = jws_sign(is->key, JWS_TYP_GRANT, payload, ret_token, err);
    json_decref(payload);
    free(own);
    return rc;
}

int issuer_status(const struct issuer *is, const struct issuer_status *doc,
                  char **ret_token, struct err *err)
{
    if (doc->revoked_count > STATUS_REVOKED_MAX)
        return err_set(err, ERR_TOO_LARGE, "%zu revoked leases, at most %d fit",
                       doc->revoked_count, STATUS_REVOKED_MAX);
    json_t *revoked = json_array();
    for (size_t i = 0; i < doc->revoked_count; i++)
        json_array_append_new(revoked, json_string(doc->revoked[i]));
    json_t *payload = json_pack("{s:s, s:I, s:I, s:I, s:o, s:[]}", "iss", is->url,
                                "iat", (json_int_t)(doc->now_us / US_PER_S), "seq",
                                (json_int_t)doc->seq, "now_us", (json_int_t)doc->now_us,
                                "revoked", revoked, "revoked_kids");
    int rc = jws_sign(is->key, JWS_TYP_STATUS, payload, ret_token, err);
    json_decref(payload);
    return rc;
}
