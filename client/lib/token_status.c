/* token_status: the server's signed status document of token.h: signed time, revoked
 * leases, revoked keys and the epochs that GPUs must exceed. Whether it is newer than
 * the one before (no rollback) is decided by who keeps it. */
#include "client/lib/token_impl.h"

#include <stdlib.h>
#include <string.h>

#include "client/lib/b64.h"
#include "client/lib/digest.h"
#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

struct token_status_raw {
    const char *iss;
    int64_t iat, seq, now_us;
    json_t *revoked, *revoked_kids, *min_epochs;
};

#define STATUS(member) offsetof(struct token_status_raw, member)
static const struct jsonx_field token_status_fields[] = {
    {"iss", JSONX_STRING, true, STATUS(iss)},
    {"iat", JSONX_INT, true, STATUS(iat), 0, TOKEN_SECONDS_MAX},
    {"seq", JSONX_INT, true, STATUS(seq), 0, INT64_C(1) << 53},
    {"now_us", JSONX_INT, true, STATUS(now_us), 0, TOKEN_SECONDS_MAX *US_PER_S},
    {"revoked", JSONX_ARRAY, true, STATUS(revoked), 0, STATUS_REVOKED_MAX},
    {"revoked_kids", JSONX_ARRAY, true, STATUS(revoked_kids), 0, KEYRING_KEYS_MAX},
    {"min_epochs", JSONX_OBJECT, false, STATUS(min_epochs), 0, 0},
};

static int token_compare_ids(const void *a, const void *b)
{
    return strcmp(a, b);
}

static int token_status_ids(const json_t *list, struct token_status *status,
                            struct err *err)
{
    status->revoked = xcalloc(json_array_size(list), sizeof(status->revoked[0]));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *id = json_string_value(json_array_get(list, i));
        if (id == NULL || !uuid_is_valid(id))
            return err_set(err, ERR_TOKEN, "/revoked/%zu: not a UUID", i);
        memcpy(status->revoked[status->revoked_count++], id, UUID_TEXT);
    }
    qsort(status->revoked, status->revoked_count, sizeof(status->revoked[0]),
          token_compare_ids);
    return 0;
}

static int token_status_kids(const json_t *list, struct token_status *status,
                             struct err *err)
{
    status->revoked_kids =
        xcalloc(json_array_size(list), sizeof(status->revoked_kids[0]));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *kid = json_string_value(json_array_get(list, i));
        uint8_t hash[SHA256_LEN];
        if (kid == NULL ||
            b64_decode(kid, strlen(kid), hash, sizeof(hash)) != SHA256_LEN)
            return err_set(err, ERR_TOKEN, "/revoked_kids/%zu: not a thumbprint", i);
        memcpy(status->revoked_kids[status->revoked_kid_count++], kid, JWS_KID_MAX);
    }
    return 0;
}

static int token_status_epochs(json_t *object, struct token_status *status,
                               struct err *err)
{
    const char *gpu;
    json_t *v;
    if (json_object_size(object) > STATUS_EPOCHS_MAX)
        return err_set(err, ERR_TOKEN, "/min_epochs: more than %d GPUs",
                       STATUS_EPOCHS_MAX);
    status->min_epochs =
        xcalloc(json_object_size(object), sizeof(status->min_epochs[0]));
    json_object_foreach(object, gpu, v)
    {
        struct token_epoch *e = &status->min_epochs[status->min_epoch_count++];
        if (!token_is_gpu(gpu) || strlen(gpu) >= sizeof(e->gpu))
            return err_set(err, ERR_TOKEN, "/min_epochs/%.60s: not a GPU's UUID", gpu);
        if (!json_is_integer(v) || json_integer_value(v) < 0 ||
            json_integer_value(v) > TOKEN_COUNT_MAX)
            return err_set(err, ERR_TOKEN, "/min_epochs/%.60s: not an epoch", gpu);
        memcpy(e->gpu, gpu, strlen(gpu) + 1);
        e->epoch = json_integer_value(v);
    }
    /* The GPU's name stands first in the struct. */
    if (status->min_epoch_count > 0)
        qsort(status->min_epochs, status->min_epoch_count,
              sizeof(status->min_epochs[0]), token_compare_ids);
    return 0;
}

static int token_status_payload(const json_t *payload, const char *issuer,
                                struct token_status *status, struct err *err)
{
    struct token_status_raw m = {.min_epochs = NULL};
    if (payload == NULL ||
        jsonx_decode(payload, token_status_fields, JSONX_COUNT(token_status_fields), &m,
                     "", err) != 0)
        return -1;
    if (issuer != NULL && strcmp(issuer, m.iss) != 0)
        return err_set(err, ERR_TOKEN, "issued by '%.80s', expected '%s'", m.iss,
                       issuer);
    if (m.now_us / US_PER_S != m.iat)
        return err_set(err, ERR_TOKEN, "iat and now_us disagree");
    status->iat_us = m.now_us;
    status->seq = m.seq;
    if (token_status_ids(m.revoked, status, err) != 0)
        return -1;
    if (token_status_kids(m.revoked_kids, status, err) != 0)
        return -1;
    return m.min_epochs != NULL ? token_status_epochs(m.min_epochs, status, err) : 0;
}

static int token_status_signed(const struct jws_parts *parts,
                               const struct keyring *keys, struct err *err)
{
    const struct keyring_key *key = keyring_find(keys, parts->kid);
    if (strcmp(parts->typ, JWS_TYP_STATUS) != 0)
        return err_set(err, ERR_TOKEN, "typ is not " JWS_TYP_STATUS);
    if (key == NULL || key->revoked)
        return err_set(err, ERR_TOKEN, "kid %s is not in the key set, or revoked",
                       parts->kid);
    return jws_verify(parts, key->pub, err);
}

int token_status_check(const char *text, size_t len, const struct keyring *keys,
                       const char *issuer, struct token_status *ret, struct err *err)
{
    struct jws_parts parts;
    struct token_status status = {0};
    const char *step;
    if (jws_split_max(text, len, STATUS_BYTES_MAX, &parts, &step, err) != 0)
        return err_prefix(err, "status document");
    int rc = token_status_signed(&parts, keys, err);
    if (rc == 0) {
        json_t *payload = token_payload(&parts, STATUS_BYTES_MAX, err);
        rc = token_status_payload(payload, issuer, &status, err);
        json_decref(payload);
    }
    /* The key's dates are judged by the time the document itself proves. */
    const struct keyring_key *key = keyring_find(keys, parts.kid);
    if (rc == 0 &&
        (status.iat_us < key->not_before_us || status.iat_us >= key->not_after_us))
        rc = err_set(err, ERR_TOKEN, "kid %s is outside its dates", parts.kid);
    jws_parts_done(&parts);
    if (rc != 0) {
        token_status_done(&status);
        return token_refuse(&step, "status document", err);
    }
    *ret = status;
    return 0;
}

void token_status_done(struct token_status *s)
{
    free(s->revoked);
    free(s->revoked_kids);
    free(s->min_epochs);
    *s = (struct token_status){0};
}

int64_t token_status_min_epoch(const struct token_status *s, const char *gpu)
{
    const struct token_epoch *e =
        s->min_epoch_count == 0 ? NULL
                                : bsearch(gpu, s->min_epochs, s->min_epoch_count,
                                          sizeof(s->min_epochs[0]), token_compare_ids);
    return e != NULL ? e->epoch : -1;
}
