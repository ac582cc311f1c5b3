/* token_lease: authorization_details of a grant (RFC 9396), read and written. Part of
 * token.h; apart because the lease has its own shape and its own steps. Everything the
 * token says about the lease must be understood, or the token is refused: a limit that
 * was skipped would be a right that was never given. */
#include "client/lib/token_impl.h"

#include <assert.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "client/lib/uuid.h"

#define TOKEN_SPAN_S_MAX  (INT64_C(31) * 86400) /* seconds: no longer than a lease */
#define TOKEN_COUNT_MAX   (INT64_C(1) << 53) /* what every JSON reader holds exactly */
#define TOKEN_ACTIONS_MAX 3

static const struct {
    const char *name;
    enum token_action action;
} token_actions[TOKEN_ACTIONS_MAX] = {
    {"launch", TOKEN_LAUNCH},
    {"adopt", TOKEN_ADOPT},
    {"stop", TOKEN_STOP},
};

/* One element of authorization_details, before its parts are read. */
struct token_detail {
    const char *type, *identifier;
    json_t *actions, *devices, *limits, *on_lost, *drain;
    int64_t not_before, not_after, epoch;
};

#define DETAIL(member) offsetof(struct token_detail, member)
static const struct jsonx_field token_detail_fields[] = {
    {"type", JSONX_STRING, true, DETAIL(type)},
    {"identifier", JSONX_STRING, true, DETAIL(identifier)},
    {"actions", JSONX_ARRAY, true, DETAIL(actions), 1, TOKEN_ACTIONS_MAX},
    {"devices", JSONX_ARRAY, true, DETAIL(devices), 1, GPUS_PER_NODE_MAX},
    {"not_before", JSONX_TIME, true, DETAIL(not_before)},
    {"not_after", JSONX_TIME, true, DETAIL(not_after)},
    {"epoch", JSONX_INT, true, DETAIL(epoch), 0, TOKEN_COUNT_MAX},
    {"limits", JSONX_OBJECT, false, DETAIL(limits)},
    {"on_lost", JSONX_OBJECT, false, DETAIL(on_lost)},
    {"drain", JSONX_OBJECT, false, DETAIL(drain)},
};

static int token_read_actions(const json_t *list, unsigned *ret, struct err *err)
{
    unsigned all = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        unsigned bit = 0;
        for (size_t a = 0; a < TOKEN_ACTIONS_MAX; a++)
            if (name != NULL && strcmp(name, token_actions[a].name) == 0)
                bit = token_actions[a].action;
        if (bit == 0)
            return err_set(err, ERR_TOKEN, "/actions/%zu: not a known action", i);
        if ((all & bit) != 0)
            return err_set(err, ERR_TOKEN, "/actions/%zu: '%s' is there twice", i,
                           name);
        all |= bit;
    }
    *ret = all;
    return 0;
}

/* NVML names a device GPU-… or MIG-… with letters, digits and dashes. */
static bool token_is_gpu(const char *uuid)
{
    size_t len = strlen(uuid);
    if (len <= 4 || len >= TOKEN_GPU_UUID_MAX ||
        (strncmp(uuid, "GPU-", 4) != 0 && strncmp(uuid, "MIG-", 4) != 0))
        return false;
    for (const char *p = uuid; *p != '\0'; p++)
        if (!((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') ||
              (*p >= 'A' && *p <= 'Z') || *p == '-'))
            return false;
    return true;
}

static int token_read_devices(const json_t *list, struct token_lease *lease,
                              struct err *err)
{
    lease->gpu_count = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *device = json_array_get(list, i);
        const char *uuid = json_string_value(json_object_get(device, "uuid"));
        if (uuid == NULL || json_object_size(device) != 1)
            return err_set(err, ERR_TOKEN, "/devices/%zu: expected {\"uuid\": …}", i);
        if (!token_is_gpu(uuid))
            return err_set(err, ERR_TOKEN, "/devices/%zu/uuid: not a GPU's UUID", i);
        for (size_t g = 0; g < lease->gpu_count; g++)
            if (strcmp(lease->gpus[g], uuid) == 0)
                return err_set(err, ERR_TOKEN, "/devices/%zu/uuid: is there twice", i);
        memcpy(lease->gpus[lease->gpu_count++], uuid, strlen(uuid) + 1);
    }
    return 0;
}

static int token_read_on_lost(const json_t *obj, struct token_lease *lease,
                              struct err *err)
{
    struct {
        const char *policy;
        int64_t after_s;
    } m = {.after_s = -1};
    static const struct jsonx_field fields[] = {
        {"policy", JSONX_STRING, true, offsetof(__typeof__(m), policy)},
        {"after_s", JSONX_INT, false, offsetof(__typeof__(m), after_s), 0,
         TOKEN_SPAN_S_MAX},
    };
    if (jsonx_decode(obj, fields, JSONX_COUNT(fields), &m, "/on_lost", err) != 0)
        return -1;
    if (strcmp(m.policy, "run_to_end") == 0 && m.after_s < 0) {
        lease->on_lost = TOKEN_RUN_TO_END;
        return 0;
    }
    if (strcmp(m.policy, "stop_after") != 0 || m.after_s < 0)
        return err_set(err, ERR_TOKEN,
                       "/on_lost: expected run_to_end, or stop_after with after_s");
    lease->on_lost = TOKEN_STOP_AFTER;
    lease->on_lost_after_us = m.after_s * US_PER_S;
    return 0;
}

static int token_read_limits(const struct token_detail *d, struct token_lease *lease,
                             struct err *err)
{
    static const struct jsonx_field limits[] = {
        {"memory_max_bytes", JSONX_INT, false,
         offsetof(struct token_lease, memory_max_bytes), 1, TOKEN_COUNT_MAX},
        {"pids_max", JSONX_INT, false, offsetof(struct token_lease, pids_max), 1,
         TOKEN_COUNT_MAX},
    };
    static const struct jsonx_field drain[] = {
        {"before_end_s", JSONX_INT, true, offsetof(struct token_lease, drain_us), 0,
         TOKEN_SPAN_S_MAX},
    };
    if (d->limits != NULL && jsonx_decode(d->limits, limits, JSONX_COUNT(limits), lease,
                                          "/limits", err) != 0)
        return -1;
    if (d->drain != NULL) {
        if (jsonx_decode(d->drain, drain, JSONX_COUNT(drain), lease, "/drain", err) !=
            0)
            return -1;
        lease->drain_us *= US_PER_S;
    }
    if (d->on_lost != NULL)
        return token_read_on_lost(d->on_lost, lease, err);
    return 0;
}

int token_lease_read(const json_t *details, struct token_lease *lease, struct err *err)
{
    struct token_detail d = {0};
    if (json_array_size(details) != 1)
        return err_set(err, ERR_TOKEN, "expected exactly one gpu_lease");
    if (jsonx_decode(json_array_get(details, 0), token_detail_fields,
                     JSONX_COUNT(token_detail_fields), &d, "", err) != 0)
        return -1;
    if (strcmp(d.type, "gpu_lease") != 0)
        return err_set(err, ERR_TOKEN, "/type: expected gpu_lease");
    if (!uuid_is_valid(d.identifier))
        return err_set(err, ERR_TOKEN, "/identifier: not a UUID");
    if (d.not_before >= d.not_after)
        return err_set(err, ERR_TOKEN, "/not_after: is not later than not_before");
    memcpy(lease->reservation, d.identifier, UUID_TEXT);
    lease->not_before_us = d.not_before;
    lease->not_after_us = d.not_after;
    lease->epoch = d.epoch;
    if (token_read_actions(d.actions, &lease->actions, err) != 0 ||
        token_read_devices(d.devices, lease, err) != 0)
        return -1;
    return token_read_limits(&d, lease, err);
}

static json_t *token_checked(json_t *v)
{
    assert(v != NULL); /* only invalid UTF-8 or no memory could make it NULL */
    return v;
}

static void token_put(json_t *obj, const char *name, json_t *value)
{
    int rc = json_object_set_new(obj, name, token_checked(value));
    assert(rc == 0);
    (void)rc;
}

static void token_write_limits(json_t *obj, const struct token_lease *lease)
{
    json_t *limits = json_object();
    if (lease->memory_max_bytes > 0)
        token_put(limits, "memory_max_bytes", json_integer(lease->memory_max_bytes));
    if (lease->pids_max > 0)
        token_put(limits, "pids_max", json_integer(lease->pids_max));
    if (json_object_size(limits) > 0)
        token_put(obj, "limits", limits);
    else
        json_decref(limits);
    json_t *on_lost = lease->on_lost == TOKEN_RUN_TO_END
                          ? json_pack("{s:s}", "policy", "run_to_end")
                          : json_pack("{s:s, s:I}", "policy", "stop_after", "after_s",
                                      (json_int_t)(lease->on_lost_after_us / US_PER_S));
    token_put(obj, "on_lost", on_lost);
    token_put(
        obj, "drain",
        json_pack("{s:I}", "before_end_s", (json_int_t)(lease->drain_us / US_PER_S)));
}

json_t *token_lease_write(const struct token_lease *lease)
{
    json_t *obj = token_checked(
        json_pack("{s:s, s:s}", "type", "gpu_lease", "identifier", lease->reservation));
    json_t *actions = json_array(), *devices = json_array();
    for (size_t a = 0; a < TOKEN_ACTIONS_MAX; a++)
        if ((lease->actions & token_actions[a].action) != 0)
            json_array_append_new(actions, json_string(token_actions[a].name));
    for (size_t g = 0; g < lease->gpu_count; g++)
        json_array_append_new(devices, json_pack("{s:s}", "uuid", lease->gpus[g]));
    token_put(obj, "actions", actions);
    token_put(obj, "devices", devices);
    token_put(obj, "not_before", jsonx_time(lease->not_before_us));
    token_put(obj, "not_after", jsonx_time(lease->not_after_us));
    token_put(obj, "epoch", json_integer(lease->epoch));
    token_write_limits(obj, lease);
    return token_checked(json_pack("[o]", obj));
}
