/* countersign: see countersign.h. */
#include "client/lib/countersign.h"

#include <string.h>

#include "client/lib/bounds.h"
#include "client/lib/jsonx.h"
#include "client/lib/jws.h"

static bool has_text(const json_t *o, const char *name, const char *want)
{
    const char *text = json_string_value(json_object_get(o, name));
    return text != NULL && strcmp(text, want) == 0;
}

static bool payload_is_of(const json_t *p, const struct countersign *want)
{
    const json_t *seq = json_object_get(p, "seq");
    return has_text(p, "iss", want->iss) && has_text(p, "node", want->node) &&
           has_text(p, "reservation", want->reservation) &&
           has_text(p, "hash", want->hash) && json_is_integer(seq) &&
           json_integer_value(seq) == want->seq;
}

bool countersign_is_of(const char *text, const struct countersign *want,
                       const struct keyring *keys, struct countersign_said *ret)
{
    struct jws_parts parts;
    const char *step;
    struct err err;
    json_t *payload = NULL;
    *ret = (struct countersign_said){0};
    if (jws_split_max(text, strlen(text), RECEIPT_BYTES_MAX, &parts, &step, &err) != 0)
        return false;
    const struct keyring_key *key = keys != NULL ? keyring_find(keys, parts.kid) : NULL;
    ret->unknown_key = key == NULL;
    if (key != NULL && !key->revoked && strcmp(parts.typ, JWS_TYP_ACK) == 0 &&
        jws_verify(&parts, key->pub, &err) == 0)
        payload =
            jsonx_parse(parts.payload, parts.payload_len, RECEIPT_BYTES_MAX, &err);
    jws_parts_done(&parts);
    bool is = payload != NULL && payload_is_of(payload, want);
    if (is)
        ret->log_by = json_integer_value(json_object_get(payload, "log_by"));
    json_decref(payload);
    return is;
}
