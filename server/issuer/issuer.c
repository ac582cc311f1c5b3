#include "server/issuer/issuer.h"

#include <stdlib.h>
#include <string.h>

#include "client/lib/bounds.h"
#include "client/lib/jws.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "server/issuer/keystore.h"

struct issuer {
    struct keystore *keys;
    char *url;
};

int issuer_open(const char *dir, const char *url, int64_t now_us, struct issuer **ret,
                struct err *err)
{
    struct issuer *is = xcalloc(1, sizeof(*is));
    is->url = xstrdup(url);
    if (keystore_open(dir, url, now_us, &is->keys, err) != 0) {
        issuer_free(is);
        return -1;
    }
    *ret = is;
    return 0;
}

void issuer_free(struct issuer *is)
{
    if (is == NULL)
        return;
    keystore_free(is->keys);
    free(is->url);
    free(is);
}

const char *issuer_url(const struct issuer *is)
{
    return is->url;
}

void issuer_kid(const struct issuer *is, int64_t now_us, char ret_kid[JWS_KID_MAX])
{
    if (keystore_signer(is->keys, now_us, ret_kid) == NULL)
        ret_kid[0] = '\0';
}

json_t *issuer_jwks(const struct issuer *is)
{
    return keyset_jwks(keystore_set(is->keys));
}

const char *issuer_key_set(const struct issuer *is)
{
    return keystore_text(is->keys);
}

json_t *issuer_root(const struct issuer *is)
{
    return keystore_root_jwk(is->keys);
}

int64_t issuer_seq(const struct issuer *is)
{
    return keystore_set(is->keys)->seq;
}

int64_t issuer_expires_us(const struct issuer *is)
{
    return keystore_set(is->keys)->exp_us;
}

bool issuer_has_root(const struct issuer *is)
{
    return keystore_has_root(is->keys);
}

int issuer_renew(struct issuer *is, int64_t now_us, bool *ret_changed, struct err *err)
{
    bool read, made = false;
    if (keystore_reload(is->keys, now_us, &read, err) != 0)
        return -1;
    int rc = keystore_refresh(is->keys, now_us, &made, err);
    *ret_changed = read || made;
    return rc;
}

static int sign(const struct issuer *is, const char *typ, const json_t *payload,
                int64_t now_us, char **ret_token, struct err *err)
{
    char kid[JWS_KID_MAX];
    EVP_PKEY *key = keystore_signer(is->keys, now_us, kid);
    if (key == NULL)
        return err_set(err, ERR_UNAVAILABLE,
                       "no signing key of the key set is valid now and on this server");
    return jws_sign(key, typ, payload, ret_token, err);
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
    json_t *payload = token_build(own);
    int rc = sign(is, JWS_TYP_GRANT, payload, claims->iat_us, ret_token, err);
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
    const struct keyset *set = keystore_set(is->keys);
    json_t *kids = json_array();
    for (size_t i = 0; i < set->count; i++)
        if (set->keys[i].revoked)
            json_array_append_new(kids, json_string(set->keys[i].kid));
    json_t *payload = json_pack("{s:s, s:I, s:I, s:I, s:o, s:o}", "iss", is->url, "iat",
                                (json_int_t)(doc->now_us / US_PER_S), "seq",
                                (json_int_t)doc->seq, "now_us", (json_int_t)doc->now_us,
                                "revoked", revoked, "revoked_kids", kids);
    int rc = sign(is, JWS_TYP_STATUS, payload, doc->now_us, ret_token, err);
    json_decref(payload);
    return rc;
}

static bool is_hash(const char *text)
{
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

static bool is_own_node(const struct issuer *is, const char *spiffe_id)
{
    const char *market = is->url + strlen("https://");
    size_t len = strlen(market);
    return strncmp(spiffe_id, "spiffe://", 9) == 0 &&
           strncmp(spiffe_id + 9, market, len) == 0 && spiffe_id[9 + len] == '/';
}

int issuer_ack(const struct issuer *is, const struct issuer_ack *ack, char **ret_token,
               struct err *err)
{
    if (!uuid_is_valid(ack->reservation) || !is_own_node(is, ack->node) ||
        ack->seq < 1 || !is_hash(ack->hash) ||
        (ack->prev_hash[0] == '\0' ? ack->seq != 1 : !is_hash(ack->prev_hash)))
        return err_set(err, ERR_INTERNAL, "issuer refuses to sign an acknowledgement");
    json_t *payload =
        json_pack("{s:s, s:I, s:s, s:s, s:I, s:s, s:s}", "iss", is->url, "iat",
                  (json_int_t)(ack->now_us / US_PER_S), "reservation", ack->reservation,
                  "node", ack->node, "seq", (json_int_t)ack->seq, "hash", ack->hash,
                  "prev_hash", ack->prev_hash);
    int rc = sign(is, JWS_TYP_ACK, payload, ack->now_us, ret_token, err);
    json_decref(payload);
    return rc;
}
