#include "server/flow/observed.h"

#include <stdlib.h>
#include <string.h>

#include "client/lib/bounds.h"
#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "client/lib/uuid.h"
#include "client/lib/xalloc.h"
#include "server/flow/request.h"

struct body {
    json_t *agent, *gpus, *price, *windows, *leases, *probes, *log;
    const char *version;
    int64_t wait_us;
};

static int decode_at(const json_t *v, const struct jsonx_field *fields, size_t count,
                     void *out, struct err *err, const char *list, size_t i)
{
    char *at = xasprintf("/%s/%zu", list, i);
    int rc = jsonx_decode(v, fields, count, out, at, err);
    free(at);
    return rc;
}

/* ---- the parts ---- */

static int check_ssh(const json_t *ssh, struct err *err)
{
    struct row {
        const char *user, *host_key;
        int64_t port;
    } row;
    static const struct jsonx_field fields[] = {
        {"port", JSONX_INT, true, offsetof(struct row, port), 1, 65535},
        {"user", JSONX_STRING, false, offsetof(struct row, user), 1, 63},
        {"host_key", JSONX_STRING, false, offsetof(struct row, host_key), 1, 1024},
    };
    return jsonx_decode(ssh, fields, JSONX_COUNT(fields), &row, "/agent/ssh", err);
}

static int check_agent(const json_t *agent, struct err *err)
{
    struct row {
        const char *version, *boot_id, *address, *fabric, *instance;
        const json_t *ssh;
        int64_t seq;
    } row = {.ssh = NULL};
    static const struct jsonx_field fields[] = {
        {"version", JSONX_STRING, true, offsetof(struct row, version), 0, 64},
        {"boot_id", JSONX_STRING, true, offsetof(struct row, boot_id), 1, 64},
        {"seq", JSONX_INT, true, offsetof(struct row, seq), 0, INT64_MAX},
        {"address", JSONX_STRING, true, offsetof(struct row, address), 0, 300},
        {"fabric", JSONX_STRING, false, offsetof(struct row, fabric), 0, 63},
        {"ssh", JSONX_OBJECT, false, offsetof(struct row, ssh), 0, 0},
        {"instance", JSONX_STRING, false, offsetof(struct row, instance), 1, 63},
    };
    if (jsonx_decode(agent, fields, JSONX_COUNT(fields), &row, "/agent", err) != 0)
        return -1;
    return row.ssh != NULL ? check_ssh(row.ssh, err) : 0;
}

static int one_of(const char *value, const char *const *allowed, const char *list,
                  size_t i, struct err *err)
{
    for (; *allowed != NULL; allowed++)
        if (strcmp(*allowed, value) == 0)
            return 0;
    return err_set(err, ERR_BAD_REQUEST, "/%s/%zu/state: '%.30s' is none", list, i,
                   value);
}

static int check_gpus(const json_t *list, struct err *err)
{
    static const char *const states[] = {"idle", "leased",      "busy",
                                         "lost", "quarantined", NULL};
    struct row {
        int64_t index, memory_mib, minor;
        const char *uuid, *model, *pci, *state;
    } row;
    static const struct jsonx_field fields[] = {
        {"index", JSONX_INT, true, offsetof(struct row, index), 0, 1023},
        {"uuid", JSONX_STRING, true, offsetof(struct row, uuid), 1, 63},
        {"model", JSONX_STRING, true, offsetof(struct row, model), 1, 64},
        {"memory_mib", JSONX_INT, true, offsetof(struct row, memory_mib), 0, INT32_MAX},
        {"pci", JSONX_STRING, true, offsetof(struct row, pci), 0, 64},
        {"minor", JSONX_INT, true, offsetof(struct row, minor), 0, 1 << 20},
        {"state", JSONX_STRING, true, offsetof(struct row, state), 1, 20},
    };
    size_t i;
    const json_t *v;
    json_array_foreach(
        list, i,
        v) if (decode_at(v, fields, JSONX_COUNT(fields), &row, err, "gpus", i) != 0 ||
               one_of(row.state, states, "gpus", i, err) != 0) return -1;
    return 0;
}

static int take_windows(const json_t *list, json_t *out, struct err *err)
{
    struct row {
        int64_t from_us, to_us;
    } row;
    static const struct jsonx_field fields[] = {
        {"from", JSONX_TIME, true, offsetof(struct row, from_us)},
        {"to", JSONX_TIME, true, offsetof(struct row, to_us)},
    };
    size_t i;
    const json_t *v;
    json_array_foreach(list, i, v)
    {
        if (decode_at(v, fields, JSONX_COUNT(fields), &row, err, "windows", i) != 0)
            return -1;
        if (row.to_us <= row.from_us)
            return err_set(err, ERR_BAD_REQUEST, "/windows/%zu: ends before it starts",
                           i);
        json_array_append_new(out, json_pack("{s:I, s:I}", "from_us",
                                             (json_int_t)row.from_us, "to_us",
                                             (json_int_t)row.to_us));
    }
    return 0;
}

static int take_leases(const json_t *list, json_t *reported, struct err *err)
{
    static const char *const states[] = {"opening",  "ready", "running",     "draining",
                                         "cleaning", "done",  "quarantined", NULL};
    struct row {
        const char *reservation, *state;
        int64_t epoch;
        json_t *gpus;
    } row;
    static const struct jsonx_field fields[] = {
        {"reservation", JSONX_STRING, true, offsetof(struct row, reservation), 36, 36},
        {"state", JSONX_STRING, true, offsetof(struct row, state), 1, 20},
        {"epoch", JSONX_INT, true, offsetof(struct row, epoch), 0, INT64_MAX},
        {"gpus", JSONX_ARRAY, true, offsetof(struct row, gpus), 0, GPUS_PER_NODE_MAX},
    };
    size_t i;
    const json_t *v;
    json_array_foreach(list, i, v)
    {
        if (decode_at(v, fields, JSONX_COUNT(fields), &row, err, "leases", i) != 0 ||
            one_of(row.state, states, "leases", i, err) != 0)
            return -1;
        if (!uuid_is_valid(row.reservation))
            return err_set(err, ERR_BAD_REQUEST, "/leases/%zu/reservation: not an id",
                           i);
        json_array_append_new(reported, json_string(row.reservation));
    }
    return 0;
}

static int take_probes(const json_t *list, int64_t now_us, json_t *out, struct err *err)
{
    struct row {
        const char *dataset;
        int64_t min_us, p50_us, p99_us, count, at_us;
    } row;
    static const struct jsonx_field fields[] = {
        {"dataset", JSONX_STRING, true, offsetof(struct row, dataset), 1, 10},
        {"min_us", JSONX_INT, true, offsetof(struct row, min_us), 1, 60 * US_PER_S},
        {"p50_us", JSONX_INT, true, offsetof(struct row, p50_us), 1, 60 * US_PER_S},
        {"p99_us", JSONX_INT, true, offsetof(struct row, p99_us), 1, 60 * US_PER_S},
        {"count", JSONX_INT, true, offsetof(struct row, count), 1, INT32_MAX},
        {"at", JSONX_TIME, true, offsetof(struct row, at_us)},
    };
    size_t i;
    const json_t *v;
    json_array_foreach(list, i, v)
    {
        int64_t id;
        if (decode_at(v, fields, JSONX_COUNT(fields), &row, err, "probes", i) != 0 ||
            request_int("/probes: dataset", row.dataset, 1, INT32_MAX, &id, err) != 0)
            return -1;
        if (row.min_us > row.p50_us || row.p50_us > row.p99_us)
            return err_set(err, ERR_BAD_REQUEST,
                           "/probes/%zu: min, p50 and p99 are not in order", i);
        if (row.at_us > now_us)
            row.at_us = now_us;
        json_array_append_new(
            out,
            json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "dataset", (json_int_t)id,
                      "min_us", (json_int_t)row.min_us, "p50_us",
                      (json_int_t)row.p50_us, "p99_us", (json_int_t)row.p99_us, "count",
                      (json_int_t)row.count, "at_us", (json_int_t)row.at_us));
    }
    return 0;
}

/* ---- the whole ---- */

static int take_parts(const struct body *b, const char *currency, int64_t now_us,
                      struct observed *o, struct err *err)
{
    json_t *windows = json_array(), *probes = json_array();
    int64_t micro;
    json_object_set(o->store, "agent", b->agent);
    json_object_set(o->store, "gpus", b->gpus);
    json_object_set(o->store, "price", b->price != NULL ? b->price : json_null());
    json_object_set(o->store, "leases", b->leases);
    json_object_set_new(o->store, "windows", windows);
    json_object_set_new(o->store, "probes", probes);
    if (check_agent(b->agent, err) != 0 || check_gpus(b->gpus, err) != 0 ||
        take_windows(b->windows, windows, err) != 0 ||
        take_leases(b->leases, o->reported, err) != 0 ||
        take_probes(b->probes, now_us, probes, err) != 0)
        return -1;
    return b->price == NULL ? 0
                            : request_money(b->price, "/price", currency, &micro, err);
}

int observed_parse(const json_t *body, const char *currency, int64_t now_us,
                   struct observed *ret, struct err *err)
{
    static const struct jsonx_field fields[] = {
        {"agent", JSONX_OBJECT, true, offsetof(struct body, agent)},
        {"gpus", JSONX_ARRAY, true, offsetof(struct body, gpus), 0, GPUS_PER_NODE_MAX},
        {"price", JSONX_OBJECT, false, offsetof(struct body, price)},
        {"windows", JSONX_ARRAY, true, offsetof(struct body, windows), 0,
         OBSERVED_WINDOWS_MAX},
        {"leases", JSONX_ARRAY, true, offsetof(struct body, leases), 0,
         OBSERVED_LEASES_MAX},
        {"probes", JSONX_ARRAY, true, offsetof(struct body, probes), 0,
         OBSERVED_PROBES_MAX},
        {"desired_version", JSONX_STRING, true, offsetof(struct body, version), 0, 128},
        {"wait", JSONX_DURATION, true, offsetof(struct body, wait_us), 0,
         10 * 60 * US_PER_S},
        {"log", JSONX_OBJECT, false, offsetof(struct body, log)},
    };
    struct body b = {.price = NULL};
    struct observed o = {.store = json_object(), .reported = json_array()};
    if (jsonx_decode(body, fields, JSONX_COUNT(fields), &b, "", err) != 0 ||
        take_parts(&b, currency, now_us, &o, err) != 0) {
        observed_done(&o);
        return -1;
    }
    o.version = xstrdup(b.version);
    o.wait_us = b.wait_us;
    o.log = json_incref(b.log);
    *ret = o;
    return 0;
}

void observed_done(struct observed *o)
{
    json_decref(o->store);
    json_decref(o->reported);
    json_decref(o->log);
    free(o->version);
    *o = (struct observed){NULL};
}
