/* desired: see desired.h. */
#include "client/agent/desired.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/keyset.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define F(s, n, t, r, lo, hi)            \
    {                                    \
#n, t, r, offsetof(s, n), lo, hi \
    }

struct order_row {
    const char *reservation, *tenant, *on_lost;
    json_t *gpus, *holders;
    int64_t not_before, not_after, epoch, drain, memory_max_bytes, pids_max, generation;
    bool spot;
};
static const struct jsonx_field lease_fields[] = {
    F(struct order_row, reservation, JSONX_STRING, true, 36, 36),
    F(struct order_row, tenant, JSONX_STRING, true, 36, 36),
    F(struct order_row, gpus, JSONX_ARRAY, true, 1, GPUS_PER_NODE_MAX),
    F(struct order_row, not_before, JSONX_TIME, true, 0, 0),
    F(struct order_row, not_after, JSONX_TIME, true, 0, 0),
    F(struct order_row, epoch, JSONX_INT, true, 0, INT64_MAX),
    F(struct order_row, drain, JSONX_DURATION, false, 0, 24 * US_PER_HOUR),
    F(struct order_row, memory_max_bytes, JSONX_INT, false, 0, INT64_MAX),
    F(struct order_row, pids_max, JSONX_INT, false, 0, INT64_MAX),
    F(struct order_row, on_lost, JSONX_STRING, false, 1, 40),
    F(struct order_row, generation, JSONX_INT, false, 0, INT64_MAX),
    F(struct order_row, spot, JSONX_BOOL, false, 0, 0),
    F(struct order_row, holders, JSONX_ARRAY, false, 0, 1024),
};

/* Decodes only the members the table knows. */
static int decode_known(const json_t *obj, const struct jsonx_field *fields,
                        size_t count, void *out, const char *at, struct err *err)
{
    if (!json_is_object(obj))
        return err_set(err, ERR_BAD_REQUEST, "%s: expected an object", at);
    json_t *known = json_object();
    for (size_t i = 0; i < count; i++) {
        json_t *v = json_object_get(obj, fields[i].name);
        if (v != NULL)
            json_object_set(known, fields[i].name, v);
    }
    int rc = jsonx_decode(known, fields, count, out, at, err);
    json_decref(known); /* values stay alive in obj */
    return rc;
}

static int read_on_lost(const char *text, int64_t *ret_us, struct err *err)
{
    if (text == NULL || strcmp(text, "run_to_end") == 0) {
        *ret_us = -1;
        return 0;
    }
    return timefmt_parse_duration(text, ret_us, err);
}

static int read_gpus(const json_t *list, struct order *o, const char *at,
                     struct err *err)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *uuid = json_string_value(json_array_get(list, i));
        if (uuid == NULL || strlen(uuid) == 0 || strlen(uuid) >= TOKEN_GPU_UUID_MAX)
            return err_set(err, ERR_BAD_REQUEST, "%s/gpus/%zu: expected a GPU's uuid",
                           at, i);
        for (size_t j = 0; j < i; j++)
            if (strcmp(o->gpus[j], uuid) == 0)
                return err_set(err, ERR_BAD_REQUEST, "%s/gpus: %s is there twice", at,
                               uuid);
        snprintf(o->gpus[i], sizeof(o->gpus[i]), "%s", uuid);
    }
    o->gpu_count = json_array_size(list);
    return 0;
}

/* They only open the way in by SSH: one that does not fit is left out, the lease is not
 * refused for it. */
static void read_holders(const json_t *list, struct order *o)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (text == NULL || strlen(text) == 0 || strlen(text) >= JOURNAL_HOLDER_MAX ||
            o->holder_count == JOURNAL_HOLDERS_MAX)
            continue;
        snprintf(o->holders[o->holder_count++], JOURNAL_HOLDER_MAX, "%s", text);
    }
}

static int read_lease(const json_t *v, const char *at, struct order *o, struct err *err)
{
    struct order_row row = {0};
    if (jsonx_decode(v, lease_fields, JSONX_COUNT(lease_fields), &row, at, err) != 0)
        return -1;
    memset(o, 0, sizeof(*o));
    if (!uuid_is_valid(row.reservation) || !uuid_is_valid(row.tenant))
        return err_set(err, ERR_BAD_REQUEST,
                       "%s: reservation and tenant must be lower-case UUIDs", at);
    if (row.not_after <= row.not_before)
        return err_set(err, ERR_BAD_REQUEST, "%s: not_after is not after not_before",
                       at);
    snprintf(o->id, sizeof(o->id), "%s", row.reservation);
    snprintf(o->tenant, sizeof(o->tenant), "%s", row.tenant);
    o->not_before_us = row.not_before;
    o->not_after_us = row.not_after;
    o->epoch = row.epoch;
    o->generation = row.generation;
    o->spot = row.spot;
    o->drain_us = row.drain;
    o->memory_max_bytes = row.memory_max_bytes;
    o->pids_max = row.pids_max;
    if (read_on_lost(row.on_lost, &o->on_lost_us, err) != 0)
        return err_prefix(err, "%s/on_lost", at);
    read_holders(row.holders, o);
    return read_gpus(row.gpus, o, at, err);
}

static int read_leases(const json_t *list, struct desired *d, struct err *err)
{
    size_t n = json_array_size(list);
    d->leases = xcalloc(n + 1, sizeof(*d->leases));
    for (size_t i = 0; i < n; i++) {
        char at[40];
        snprintf(at, sizeof(at), "/leases/%zu", i);
        if (read_lease(json_array_get(list, i), at, &d->leases[i], err) != 0)
            return -1;
        d->lease_count++;
    }
    return 0;
}

/* Journalled, logged, shown: printable ASCII, cut to what fits. */
static void plain_copy(char *out, size_t cap, const char *text)
{
    size_t n = 0;
    for (; text[n] != '\0' && n + 1 < cap; n++)
        out[n] = text[n] >= ' ' && text[n] <= '~' ? text[n] : '?';
    out[n] = '\0';
}

static int read_ends(const json_t *list, struct desired *d, struct err *err)
{
    struct row {
        const char *reservation, *reason;
    };
    static const struct jsonx_field fields[] = {
        F(struct row, reservation, JSONX_STRING, true, 36, 36),
        F(struct row, reason, JSONX_STRING, false, 0, 200),
    };
    size_t n = json_array_size(list);
    d->end = xcalloc(n + 1, sizeof(*d->end));
    for (size_t i = 0; i < n; i++) {
        struct row row = {NULL, "ended"};
        char at[40];
        snprintf(at, sizeof(at), "/end/%zu", i);
        if (decode_known(json_array_get(list, i), fields, JSONX_COUNT(fields), &row, at,
                         err) != 0)
            return -1;
        snprintf(d->end[i].id, sizeof(d->end[i].id), "%s", row.reservation);
        plain_copy(d->end[i].reason, sizeof(d->end[i].reason), row.reason);
        d->end_count++;
    }
    return 0;
}

static int read_probes(const json_t *list, struct desired *d, struct err *err)
{
    struct row {
        const char *dataset, *endpoint;
    };
    static const struct jsonx_field fields[] = {
        F(struct row, dataset, JSONX_STRING, true, 1, 63),
        F(struct row, endpoint, JSONX_STRING, true, 1, 511),
    };
    size_t n = json_array_size(list);
    d->probes = xcalloc(n + 1, sizeof(*d->probes));
    for (size_t i = 0; i < n; i++) {
        struct row row = {0};
        char at[40];
        snprintf(at, sizeof(at), "/probes/%zu", i);
        if (decode_known(json_array_get(list, i), fields, JSONX_COUNT(fields), &row, at,
                         err) != 0)
            return -1;
        snprintf(d->probes[i].dataset, sizeof(d->probes[i].dataset), "%s", row.dataset);
        snprintf(d->probes[i].endpoint, sizeof(d->probes[i].endpoint), "%s",
                 row.endpoint);
        d->probe_count++;
    }
    return 0;
}

int desired_parse_acks(const json_t *list, const char *at, struct desired_ack **ret,
                       size_t *ret_count, struct err *err)
{
    struct row {
        const char *reservation;
        int64_t seq;
    };
    static const struct jsonx_field fields[] = {
        F(struct row, reservation, JSONX_STRING, true, 36, 36),
        F(struct row, seq, JSONX_INT, true, 0, INT64_MAX),
    };
    size_t n = json_array_size(list);
    struct desired_ack *acks = xcalloc(n + 1, sizeof(*acks));
    for (size_t i = 0; i < n; i++) {
        struct row row = {0};
        if (decode_known(json_array_get(list, i), fields, JSONX_COUNT(fields), &row, at,
                         err) != 0) {
            free(acks);
            return -1;
        }
        snprintf(acks[i].id, sizeof(acks[i].id), "%s", row.reservation);
        acks[i].seq = row.seq;
    }
    *ret = acks;
    *ret_count = n;
    return 0;
}

struct root_row {
    const char *desired_version, *status, *key_set;
    json_t *leases, *end, *probes, *settings, *acks;
};
static const struct jsonx_field root_fields[] = {
    F(struct root_row, desired_version, JSONX_STRING, true, 0, DESIRED_VERSION_MAX - 1),
    F(struct root_row, leases, JSONX_ARRAY, true, 0, DESIRED_LEASES_MAX),
    F(struct root_row, end, JSONX_ARRAY, false, 0, DESIRED_LEASES_MAX),
    F(struct root_row, status, JSONX_STRING, false, 0, INT64_C(1) << 20),
    F(struct root_row, key_set, JSONX_STRING, false, 0, KEYSET_BYTES_MAX),
    F(struct root_row, probes, JSONX_ARRAY, false, 0, DESIRED_PROBES_MAX),
    F(struct root_row, settings, JSONX_OBJECT, false, 0, 0),
    F(struct root_row, acks, JSONX_ARRAY, false, 0, DESIRED_LEASES_MAX),
};

static int read_settings(const json_t *obj, struct desired *d, struct err *err)
{
    struct row {
        int64_t probe_interval, receipt_interval;
    } row = {0, 0};
    static const struct jsonx_field fields[] = {
        F(struct row, probe_interval, JSONX_DURATION, false, US_PER_S / 10,
          24 * US_PER_HOUR),
        F(struct row, receipt_interval, JSONX_DURATION, false, US_PER_S / 10,
          24 * US_PER_HOUR),
    };
    if (decode_known(obj, fields, JSONX_COUNT(fields), &row, "/settings", err) != 0)
        return -1;
    d->probe_interval_us = row.probe_interval;
    d->receipt_interval_us = row.receipt_interval;
    return 0;
}

int desired_parse(const json_t *reply, struct desired *ret, struct err *err)
{
    struct root_row root = {0};
    struct desired d = {0};
    if (decode_known(reply, root_fields, JSONX_COUNT(root_fields), &root, "", err) != 0)
        return -1;
    snprintf(d.version, sizeof(d.version), "%s", root.desired_version);
    int rc = read_leases(root.leases, &d, err);
    if (rc == 0 && root.end != NULL)
        rc = read_ends(root.end, &d, err);
    if (rc == 0 && root.probes != NULL)
        rc = read_probes(root.probes, &d, err);
    if (rc == 0 && root.acks != NULL)
        rc = desired_parse_acks(root.acks, "/acks", &d.acks, &d.ack_count, err);
    if (rc == 0 && root.settings != NULL)
        rc = read_settings(root.settings, &d, err);
    if (rc != 0) {
        desired_done(&d);
        return -1;
    }
    if (root.status != NULL && root.status[0] != '\0')
        d.status = xstrdup(root.status);
    if (root.key_set != NULL && root.key_set[0] != '\0')
        d.key_set = xstrdup(root.key_set);
    *ret = d;
    return 0;
}

void desired_done(struct desired *d)
{
    free(d->leases);
    free(d->end);
    free(d->probes);
    free(d->acks);
    free(d->status);
    free(d->key_set);
    memset(d, 0, sizeof(*d));
}

void order_from_token(const struct token_claims *claims, struct order *ret)
{
    const struct token_lease *l = &claims->lease;
    memset(ret, 0, sizeof(*ret));
    snprintf(ret->id, sizeof(ret->id), "%s", l->reservation);
    snprintf(ret->tenant, sizeof(ret->tenant), "%s", claims->sub);
    memcpy(ret->gpus, l->gpus, sizeof(ret->gpus));
    ret->gpu_count = l->gpu_count;
    ret->not_before_us = l->not_before_us;
    ret->not_after_us = l->not_after_us;
    ret->epoch = l->epoch;
    ret->drain_us = l->drain_us;
    ret->memory_max_bytes = l->memory_max_bytes;
    ret->pids_max = l->pids_max;
    ret->on_lost_us = l->on_lost == TOKEN_STOP_AFTER ? l->on_lost_after_us : -1;
}
