/* usage: see usage.h. */
#include "client/agent/usage.h"

#include <stdio.h>
#include <string.h>

#include "client/lib/b64.h"
#include "client/lib/digest.h"
#include "client/lib/jsonx.h"

static const char *const kind_names[] = {"ready", "interval", "teardown"};

const char *usage_kind_name(enum usage_kind k)
{
    return kind_names[k];
}

static json_t *figure(int64_t v)
{
    return v < 0 ? json_null() : json_integer(v);
}

static json_t *evidence_json(const struct usage_point *p)
{
    json_t *list = json_array();
    for (size_t i = 0; i < p->evidence_count; i++) {
        const struct usage_evidence *e = &p->evidence[i];
        json_t *o = json_object();
        json_object_set_new(o, "gpu", json_string(e->gpu));
        json_object_set_new(o, "utilisation_ppm", figure(e->utilisation_ppm));
        json_object_set_new(o, "memory_mib", figure(e->memory_mib));
        json_object_set_new(o, "energy_mj", figure(e->energy_mj));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *gaps_json(const struct usage_chain *c, const struct usage_point *p,
                         bool rebooted)
{
    json_t *list = json_array();
    if (rebooted && p->now_us > c->to_us) {
        json_t *o = json_object();
        json_object_set_new(o, "from", jsonx_time(c->to_us));
        json_object_set_new(o, "to", jsonx_time(p->now_us));
        json_object_set_new(o, "why", json_string("reboot"));
        json_array_append_new(list, o);
    }
    return list;
}

static json_t *payload_json(const struct usage_chain *n, const struct usage_point *p,
                            int64_t from_us, int64_t boot_from_us, json_t *gaps)
{
    json_t *o = json_object(), *gpus = json_array();
    for (size_t i = 0; i < p->gpu_count; i++)
        json_array_append_new(gpus, json_string(p->gpus[i]));
    json_object_set_new(o, "iss", json_string(p->issuer));
    json_object_set_new(o, "reservation", json_string(n->reservation));
    json_object_set_new(o, "seq", json_integer(n->seq));
    json_object_set_new(o, "prev", json_string(n->prev));
    json_object_set_new(o, "kind", json_string(usage_kind_name(p->kind)));
    json_object_set_new(o, "boot_id", json_string(p->boot_id));
    json_object_set_new(o, "from", jsonx_time(from_us));
    json_object_set_new(o, "to", jsonx_time(n->to_us));
    json_object_set_new(o, "boot_from_us", json_integer(boot_from_us));
    json_object_set_new(o, "boot_to_us", json_integer(n->boot_to_us));
    json_object_set_new(o, "gpus", gpus);
    json_object_set_new(o, "gpu_ms", json_integer(n->gpu_us / 1000));
    json_object_set_new(o, "epoch", json_integer(p->epoch));
    json_object_set_new(o, "evidence", evidence_json(p));
    json_object_set_new(o, "gaps", gaps);
    return o;
}

int usage_next(const struct usage_chain *c, const struct usage_point *p,
               json_t **ret_payload, struct usage_chain *ret_next, struct err *err)
{
    bool first = c->seq == 0;
    if (first != (p->kind == USAGE_READY))
        return err_set(err, ERR_CONFLICT, "a chain begins with ready, and only so");
    if (!first && c->last == USAGE_TEARDOWN)
        return err_set(err, ERR_CONFLICT, "nothing follows a teardown receipt");
    struct usage_chain n = *c;
    bool rebooted = !first && strcmp(c->boot_id, p->boot_id) != 0;
    n.seq = c->seq + 1;
    n.last = p->kind;
    snprintf(n.boot_id, sizeof(n.boot_id), "%s", p->boot_id);
    /* Neither clock of a receipt runs backwards, whatever the estimate of time did. */
    n.to_us = first || p->now_us > c->to_us ? p->now_us : c->to_us;
    n.boot_to_us =
        first || rebooted || p->boot_us > c->boot_to_us ? p->boot_us : c->boot_to_us;
    int64_t from_us = first ? n.to_us : c->to_us;
    int64_t boot_from_us = first || rebooted ? n.boot_to_us : c->boot_to_us;
    n.gpu_us = c->gpu_us + (n.boot_to_us - boot_from_us) * (int64_t)p->gpu_count;
    *ret_payload =
        payload_json(&n, p, from_us, boot_from_us, gaps_json(c, p, rebooted));
    *ret_next = n;
    return 0;
}

void usage_commit(struct usage_chain *next, const char *text)
{
    uint8_t hash[SHA256_LEN];
    digest_sha256(text, strlen(text), hash);
    b64_encode(hash, sizeof(hash), next->prev);
}

struct receipt_row {
    const char *iss, *reservation, *prev, *kind, *boot_id;
    int64_t seq, from, to, boot_from_us, boot_to_us, gpu_ms, epoch;
    json_t *gpus, *evidence, *gaps;
};

#define F(n, t, r)                                      \
    {                                                   \
#n, t, r, offsetof(struct receipt_row, n), 0, 0 \
    }
static const struct jsonx_field receipt_fields[] = {
    F(iss, JSONX_STRING, true),       F(reservation, JSONX_STRING, true),
    F(seq, JSONX_INT, true),          F(prev, JSONX_STRING, true),
    F(kind, JSONX_STRING, true),      F(boot_id, JSONX_STRING, true),
    F(from, JSONX_TIME, true),        F(to, JSONX_TIME, true),
    F(boot_from_us, JSONX_INT, true), F(boot_to_us, JSONX_INT, true),
    F(gpus, JSONX_ARRAY, true),       F(gpu_ms, JSONX_INT, true),
    F(epoch, JSONX_INT, true),        F(evidence, JSONX_ARRAY, true),
    F(gaps, JSONX_ARRAY, true),
};

int usage_restore(const json_t *payload, const char *text, struct usage_chain *ret,
                  struct err *err)
{
    struct receipt_row row = {0};
    struct usage_chain c = {0};
    int kind = -1;
    if (jsonx_decode(payload, receipt_fields, JSONX_COUNT(receipt_fields), &row, "",
                     err) != 0)
        return -1;
    for (int k = USAGE_READY; k <= USAGE_TEARDOWN; k++)
        if (strcmp(row.kind, kind_names[k]) == 0)
            kind = k;
    if (kind < 0 || row.seq < 1 || !uuid_is_valid(row.reservation))
        return err_set(err, ERR_BAD_REQUEST, "not a receipt of ours");
    snprintf(c.reservation, sizeof(c.reservation), "%s", row.reservation);
    snprintf(c.boot_id, sizeof(c.boot_id), "%s", row.boot_id);
    c.seq = row.seq;
    c.last = (enum usage_kind)kind;
    c.to_us = row.to;
    c.boot_to_us = row.boot_to_us;
    c.gpu_us = row.gpu_ms * 1000;
    usage_commit(&c, text);
    *ret = c;
    return 0;
}
