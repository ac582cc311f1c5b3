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
#define TOKEN_ACTIONS_MAX 3

static const struct {
    const char *name;
    enum token_action action;
} token_actions[TOKEN_ACTIONS_MAX] = {
    {"launch", TOKEN_LAUNCH},
    {"adopt", TOKEN_ADOPT},
    {"stop", TOKEN_STOP},
};

static int token_read_type(struct jsonr *r, void *out, struct err *err)
{
    char type[16];
    (void)out;
    if (jsonr_text(r, type, sizeof(type), err) != 0)
        return -1;
    if (strcmp(type, "gpu_lease") != 0)
        return err_set(err, ERR_TOKEN, "expected gpu_lease");
    return 0;
}

static int token_read_time(struct jsonr *r, void *out, struct err *err)
{
    char text[TIMEFMT_MAX];
    if (jsonr_text(r, text, sizeof(text), err) != 0)
        return -1;
    return timefmt_parse(text, out, err);
}

static int token_read_action(struct jsonr *r, void *out, struct err *err)
{
    unsigned *all = out;
    char name[16];
    if (jsonr_text(r, name, sizeof(name), err) != 0)
        return -1;
    for (size_t a = 0; a < TOKEN_ACTIONS_MAX; a++) {
        if (strcmp(name, token_actions[a].name) != 0)
            continue;
        if ((*all & token_actions[a].action) != 0)
            return err_set(err, ERR_TOKEN, "'%s' is there twice", name);
        *all |= token_actions[a].action;
        return 0;
    }
    return err_set(err, ERR_TOKEN, "'%s' is not a known action", name);
}

static int token_read_actions(struct jsonr *r, void *out, struct err *err)
{
    return jsonr_array(r, TOKEN_ACTIONS_MAX, token_read_action, out, err);
}

bool token_is_gpu(const char *uuid)
{
    if ((strncmp(uuid, "GPU-", 4) != 0 && strncmp(uuid, "MIG-", 4) != 0) ||
        uuid[4] == '\0')
        return false;
    for (const char *p = uuid; *p != '\0'; p++)
        if (!((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') ||
              (*p >= 'A' && *p <= 'Z') || *p == '-'))
            return false;
    return true;
}

static int token_read_device(struct jsonr *r, void *out, struct err *err)
{
    static const struct jsonr_field fields[] = {
        {"uuid", true, .cap = TOKEN_GPU_UUID_MAX},
    };
    struct token_lease *lease = out;
    char *uuid = lease->gpus[lease->gpu_count]; /* the array's bound keeps it inside */
    if (jsonr_object(r, fields, JSONR_COUNT(fields), uuid, err) != 0)
        return -1;
    if (!token_is_gpu(uuid))
        return err_set(err, ERR_TOKEN, "/uuid: not a GPU's UUID");
    for (size_t g = 0; g < lease->gpu_count; g++)
        if (strcmp(lease->gpus[g], uuid) == 0)
            return err_set(err, ERR_TOKEN, "/uuid: is there twice");
    lease->gpu_count++;
    return 0;
}

static int token_read_devices(struct jsonr *r, void *out, struct err *err)
{
    return jsonr_array(r, GPUS_PER_NODE_MAX, token_read_device, out, err);
}

static int token_read_limits(struct jsonr *r, void *out, struct err *err)
{
    static const struct jsonr_field fields[] = {
        {"memory_max_bytes", .offset = offsetof(struct token_lease, memory_max_bytes),
         .max = TOKEN_COUNT_MAX},
        {"pids_max", .offset = offsetof(struct token_lease, pids_max),
         .max = TOKEN_COUNT_MAX},
    };
    struct token_lease *lease = out;
    lease->memory_max_bytes = lease->pids_max = -1;
    if (jsonr_object(r, fields, JSONR_COUNT(fields), lease, err) != 0)
        return -1;
    /* 0 stands for "not limited by the token" in the struct, so it is no limit here. */
    if (lease->memory_max_bytes == 0 || lease->pids_max == 0)
        return err_set(err, ERR_TOKEN, "a limit is 0");
    if (lease->memory_max_bytes < 0)
        lease->memory_max_bytes = 0;
    if (lease->pids_max < 0)
        lease->pids_max = 0;
    return 0;
}

static int token_read_on_lost(struct jsonr *r, void *out, struct err *err)
{
    struct {
        char policy[16];
        int64_t after_s;
    } m = {.after_s = -1};
    static const struct jsonr_field fields[] = {
        {"policy", true, offsetof(__typeof__(m), policy), sizeof(m.policy)},
        {"after_s", false, offsetof(__typeof__(m), after_s), .max = TOKEN_SPAN_S_MAX},
    };
    struct token_lease *lease = out;
    if (jsonr_object(r, fields, JSONR_COUNT(fields), &m, err) != 0)
        return -1;
    if (strcmp(m.policy, "run_to_end") == 0 && m.after_s < 0)
        return 0; /* what a lease does unless told otherwise */
    if (strcmp(m.policy, "stop_after") != 0 || m.after_s < 0)
        return err_set(err, ERR_TOKEN,
                       "expected run_to_end, or stop_after with after_s");
    lease->on_lost = TOKEN_STOP_AFTER;
    lease->on_lost_after_us = m.after_s * US_PER_S;
    return 0;
}

static int token_read_drain(struct jsonr *r, void *out, struct err *err)
{
    static const struct jsonr_field fields[] = {
        {"before_end_s", true, .max = TOKEN_SPAN_S_MAX},
    };
    int64_t *drain_us = out, seconds;
    if (jsonr_object(r, fields, JSONR_COUNT(fields), &seconds, err) != 0)
        return -1;
    *drain_us = seconds * US_PER_S;
    return 0;
}

#define LEASE(member) offsetof(struct token_lease, member)
/* In the order token_lease_write() writes them. Readers without an offset get the whole
 * lease. */
static const struct jsonr_field token_detail_fields[] = {
    {"type", true, .read = token_read_type},
    {"identifier", true, LEASE(reservation), UUID_TEXT},
    {"actions", true, LEASE(actions), .read = token_read_actions},
    {"devices", true, .read = token_read_devices},
    {"not_before", true, LEASE(not_before_us), .read = token_read_time},
    {"not_after", true, LEASE(not_after_us), .read = token_read_time},
    {"epoch", true, LEASE(epoch), .max = TOKEN_COUNT_MAX},
    {"limits", .read = token_read_limits},
    {"on_lost", .read = token_read_on_lost},
    {"drain", .offset = LEASE(drain_us), .read = token_read_drain},
};

static int token_read_detail(struct jsonr *r, void *out, struct err *err)
{
    const struct token_lease *lease = out;
    if (jsonr_object(r, token_detail_fields, JSONR_COUNT(token_detail_fields), out,
                     err) != 0)
        return -1;
    if (!uuid_is_valid(lease->reservation))
        return err_set(err, ERR_TOKEN, "/identifier: not a UUID");
    if (lease->not_before_us >= lease->not_after_us)
        return err_set(err, ERR_TOKEN, "/not_after: is not later than not_before");
    return 0;
}

int token_lease_read(struct jsonr *r, struct token_lease *lease, struct err *err)
{
    return jsonr_array(r, 1, token_read_detail, lease, err);
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
