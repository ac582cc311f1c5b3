/* signer: see signer.h. */
#include "server/issuer/signer.h"

#include <stdlib.h>
#include <string.h>

#include "client/lib/bounds.h"
#include "client/lib/jws.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

/* A mistake of the caller must not become a signed promise. */
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

static int sign(const struct keystore *keys, const char *typ, const json_t *payload,
                int64_t now_us, char **ret_token, struct err *err)
{
    char kid[JWS_KID_MAX];
    EVP_PKEY *key;
    if (!keystore_signer(keys, now_us, kid, &key))
        return err_set(err, ERR_UNAVAILABLE,
                       "no signing key of the key set is valid now and on this server");
    return jws_sign(key, typ, payload, ret_token, err);
}

int signer_grant(const struct keystore *keys, const struct token_claims *claims,
                 char **ret_token, struct err *err)
{
    const char *iss = keystore_set(keys)->iss;
    if (grant_check(claims, err) != 0)
        return -1;
    struct token_claims *own = xmalloc(sizeof(*own));
    *own = *claims;
    memcpy(own->iss, iss, strlen(iss) + 1); /* both hold KEYSET_ISS_MAX */
    json_t *payload = token_build(own);
    int rc = sign(keys, JWS_TYP_GRANT, payload, claims->iat_us, ret_token, err);
    json_decref(payload);
    free(own);
    return rc;
}

int signer_status(const struct keystore *keys, const struct issuer_status *doc,
                  char **ret_token, struct err *err)
{
    const struct keyset *set = keystore_set(keys);
    if (doc->revoked_count > STATUS_REVOKED_MAX)
        return err_set(err, ERR_TOO_LARGE, "%zu revoked leases, at most %d fit",
                       doc->revoked_count, STATUS_REVOKED_MAX);
    if (json_object_size(doc->min_epochs) > STATUS_EPOCHS_MAX)
        return err_set(err, ERR_TOO_LARGE, "epochs of %zu GPUs, at most %d fit",
                       json_object_size(doc->min_epochs), STATUS_EPOCHS_MAX);
    json_t *revoked = json_array(), *kids = json_array();
    for (size_t i = 0; i < doc->revoked_count; i++)
        json_array_append_new(revoked, json_string(doc->revoked[i]));
    for (size_t i = 0; i < set->count; i++)
        if (set->keys[i].revoked)
            json_array_append_new(kids, json_string(set->keys[i].kid));
    json_t *epochs = doc->min_epochs != NULL
                         ? json_incref((json_t *)(uintptr_t)doc->min_epochs)
                         : json_object();
    json_t *payload =
        json_pack("{s:s, s:I, s:I, s:I, s:o, s:o, s:o}", "iss", set->iss, "iat",
                  (json_int_t)(doc->now_us / US_PER_S), "seq", (json_int_t)doc->seq,
                  "now_us", (json_int_t)doc->now_us, "revoked", revoked, "revoked_kids",
                  kids, "min_epochs", epochs);
    int rc = sign(keys, JWS_TYP_STATUS, payload, doc->now_us, ret_token, err);
    json_decref(payload);
    return rc;
}

static bool is_hash(const char *text)
{
    return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

static bool is_own_node(const char *iss, const char *spiffe_id)
{
    const char *market = iss + strlen("https://");
    size_t len = strlen(market);
    return strncmp(spiffe_id, "spiffe://", 9) == 0 &&
           strncmp(spiffe_id + 9, market, len) == 0 && spiffe_id[9 + len] == '/';
}

int signer_ack(const struct keystore *keys, const struct issuer_ack *ack,
               char **ret_token, struct err *err)
{
    const char *iss = keystore_set(keys)->iss;
    if (!uuid_is_valid(ack->reservation) || !is_own_node(iss, ack->node) ||
        ack->seq < 1 || !is_hash(ack->hash) ||
        (ack->prev_hash[0] == '\0' ? ack->seq != 1 : !is_hash(ack->prev_hash)))
        return err_set(err, ERR_INTERNAL, "issuer refuses to sign an acknowledgement");
    json_t *payload =
        json_pack("{s:s, s:I, s:I, s:s, s:s, s:I, s:s, s:s}", "iss", iss, "iat",
                  (json_int_t)(ack->now_us / US_PER_S), "log_by",
                  (json_int_t)(ack->now_us / US_PER_S + LOG_PROMISE_S), "reservation",
                  ack->reservation, "node", ack->node, "seq", (json_int_t)ack->seq,
                  "hash", ack->hash, "prev_hash", ack->prev_hash);
    int rc = sign(keys, JWS_TYP_ACK, payload, ack->now_us, ret_token, err);
    json_decref(payload);
    return rc;
}
