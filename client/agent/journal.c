/* journal: see journal.h. JSON on disk because a person has to be able to read it when
 * things went wrong; strict on reading all the same. */
#include "client/agent/journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "client/agent/deadline.h"
#include "client/lib/digest.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/xalloc.h"

#define LOCK_WAIT_MS   500
#define LOCK_TRIES     50
#define LEASE_JSON_MAX (64 * 1024) /* 64 GPUs and 256 rules take 20 KiB, 16 keys 4 */
#define SMALL_JSON_MAX 4096

struct journal {
    char *dir;
    int lock_fd;
};

static int id_check(const char *id, struct err *err)
{
    if (!journal_id_is_valid(id))
        return err_set(err, ERR_BAD_REQUEST, "not a usable id: %.80s", id);
    return 0;
}

/* What fsx_write leaves behind when killed before its rename. The lock is held, so no
 * write of ours is under way; names we made ourselves are never removed. */
static void sweep(const char *dir)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
        if (e->d_type == DT_REG && strstr(e->d_name, ".tmp") != NULL)
            (void)unlinkat(dirfd(d), e->d_name, 0);
    if (d != NULL)
        closedir(d);
}

static int list_dir(const char *dir, char ***ret, size_t *ret_count, struct err *err)
{
    DIR *d = opendir(dir);
    if (d == NULL)
        return err_sys(err, errno, "open %s", dir);
    char **names = NULL;
    size_t count = 0;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (!journal_id_is_valid(e->d_name))
            continue;
        names = xreallocarray(names, count + 1, sizeof(*names));
        names[count++] = xstrdup(e->d_name);
    }
    closedir(d);
    *ret = names;
    *ret_count = count;
    return 0;
}

static void names_free(char **names, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

static int open_dirs(const struct journal *j, struct err *err)
{
    static const char *const sub[] = {"leases", "epochs", "jti"};
    for (size_t i = 0; i < 3; i++) {
        char *path = xasprintf("%s/%s", j->dir, sub[i]);
        int rc = fsx_mkdirs(path, 0700, err);
        free(path);
        if (rc < 0)
            return -1;
    }
    return 0;
}

/* A child of an agent that was killed has its lock until it becomes a keeper. */
static int wait_lock(int fd)
{
    const struct timespec pause = {0, LOCK_WAIT_MS / LOCK_TRIES * 1000000L};
    for (int i = 0; i < LOCK_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return 0;
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    }
    return -1;
}

static int take_lock(struct journal *j, struct err *err)
{
    char *path = xasprintf("%s/journal.lock", j->dir);
    j->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int rc = 0;
    if (j->lock_fd < 0)
        rc = err_sys(err, errno, "open %s", path);
    else if (wait_lock(j->lock_fd) < 0)
        rc = err_set(err, ERR_CONFLICT, "another agent uses %s", j->dir);
    free(path);
    return rc;
}

int journal_open(const char *state_dir, struct journal **ret, struct err *err)
{
    struct journal *j = xcalloc(1, sizeof(*j));
    j->dir = xstrdup(state_dir);
    j->lock_fd = -1;
    char **ids = NULL;
    size_t count = 0;
    if (open_dirs(j, err) < 0 || take_lock(j, err) < 0 ||
        journal_lease_list(j, &ids, &count, err) < 0) {
        journal_free(j);
        return -1;
    }
    for (size_t i = 0; i < count; i++) {
        char *dir = journal_lease_dir(j, ids[i]);
        sweep(dir);
        free(dir);
    }
    names_free(ids, count);
    static const char *const flat[] = {"epochs", "jti"};
    for (size_t i = 0; i < 2; i++) {
        char *dir = xasprintf("%s/%s", j->dir, flat[i]);
        sweep(dir);
        free(dir);
    }
    *ret = j;
    return 0;
}

int journal_open_reader(const char *state_dir, struct journal **ret, struct err *err)
{
    struct journal *j = xcalloc(1, sizeof(*j));
    j->dir = xstrdup(state_dir);
    j->lock_fd = -1;
    char *leases = xasprintf("%s/leases", state_dir);
    int rc = 0;
    if (access(leases, R_OK) < 0)
        rc = err_sys(err, errno, "%s", leases);
    free(leases);
    if (rc < 0)
        journal_free(j);
    else
        *ret = j;
    return rc;
}

void journal_free(struct journal *j)
{
    if (j == NULL)
        return;
    if (j->lock_fd >= 0)
        close(j->lock_fd);
    free(j->dir);
    free(j);
}

char *journal_lease_dir(const struct journal *j, const char *id)
{
    return xasprintf("%s/leases/%s", j->dir, id);
}

static json_t *rules_json(const struct journal_lease *l)
{
    json_t *list = json_array();
    for (size_t i = 0; i < l->rule_count; i++) {
        const struct devprog_rule *r = &l->rules[i];
        json_array_append_new(list,
                              json_pack("[s#,I,I,I]", &r->type, 1, (json_int_t)r->major,
                                        (json_int_t)r->minor, (json_int_t)r->access));
    }
    return list;
}

static json_t *holders_json(const struct journal_lease *l)
{
    json_t *list = json_array();
    for (size_t i = 0; i < l->holder_count; i++)
        json_array_append_new(list, json_string(l->holders[i]));
    return list;
}

static json_t *lease_json(const struct journal_lease *l)
{
    json_t *gpus = json_array();
    for (size_t i = 0; i < l->gpu_count; i++)
        json_array_append_new(gpus, json_string(l->gpus[i]));
    return json_pack(
        "{s:s,s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:s,s:I,s:I,s:I,s:I,s:s,s:b,s:s,s:o,s:o,s:"
        "o}",
        "id", l->id, "tenant", l->tenant, "state", lease_state_name(l->state), "epoch",
        (json_int_t)l->epoch, "generation", (json_int_t)l->generation, "not_before_us",
        (json_int_t)l->not_before_us, "not_after_us", (json_int_t)l->not_after_us,
        "deadline_boot_us", (json_int_t)l->deadline_boot_us, "boot_id", l->boot_id,
        "ended_boot_us", (json_int_t)l->ended_boot_us, "drain_us",
        (json_int_t)l->drain_us, "memory_max_bytes", (json_int_t)l->memory_max_bytes,
        "pids_max", (json_int_t)l->pids_max, "on_lost", l->on_lost, "ordered",
        l->ordered, "reason", l->reason, "gpus", gpus, "rules", rules_json(l),
        "holders", holders_json(l));
}

/* Synced behind what is written into it: then one commit of the disk does for both. */
static int lease_dir_make(const char *dir, bool *ret_new, struct err *err)
{
    *ret_new = mkdir(dir, 0700) == 0;
    return *ret_new || errno == EEXIST ? 0 : err_sys(err, errno, "mkdir %s", dir);
}

static int leases_sync(const struct journal *j, struct err *err)
{
    char *dir = xasprintf("%s/leases", j->dir);
    int rc = fsx_sync_dir(dir, err);
    free(dir);
    return rc;
}

int journal_lease_write(struct journal *j, const struct journal_lease *lease,
                        struct err *err)
{
    if (id_check(lease->id, err) < 0)
        return -1;
    char *dir = journal_lease_dir(j, lease->id);
    char *path = xasprintf("%s/lease.json", dir);
    json_t *doc = lease_json(lease);
    char *text = doc != NULL ? jsonx_dump(doc) : NULL;
    bool is_new = false;
    int rc;
    if (text == NULL)
        rc =
            err_set(err, ERR_INTERNAL, "lease %s cannot be written as JSON", lease->id);
    else
        rc = lease_dir_make(dir, &is_new, err);
    /* The end goes first: a crash between the two leaves no lease without its end. */
    if (rc == 0)
        rc = deadline_write(dir, lease->boot_id, lease->deadline_boot_us, err);
    if (rc == 0)
        rc = fsx_write(path, text, strlen(text), 0600, err);
    if (rc == 0 && is_new)
        rc = leases_sync(j, err);
    json_decref(doc);
    free(text);
    free(path);
    free(dir);
    return rc;
}

struct lease_raw { /* what jsonx hands out, before it is copied */
    const char *id, *tenant, *state, *boot_id, *on_lost, *reason;
    int64_t epoch, generation, not_before_us, not_after_us, deadline_boot_us,
        ended_boot_us, drain_us, memory_max_bytes, pids_max;
    bool ordered;
    json_t *gpus, *rules, *holders;
};

#define RAW(member) offsetof(struct lease_raw, member)
static const struct jsonx_field lease_fields[] = {
    {"id", JSONX_STRING, true, RAW(id), 1, JOURNAL_ID_MAX - 1},
    {"tenant", JSONX_STRING, true, RAW(tenant), 0, JOURNAL_ID_MAX - 1},
    {"state", JSONX_STRING, true, RAW(state), 1, 20},
    {"epoch", JSONX_INT, true, RAW(epoch), 0, INT64_MAX},
    {"generation", JSONX_INT, true, RAW(generation), 0, INT64_MAX},
    {"not_before_us", JSONX_INT, true, RAW(not_before_us), 0, INT64_MAX},
    {"not_after_us", JSONX_INT, true, RAW(not_after_us), 0, INT64_MAX},
    {"deadline_boot_us", JSONX_INT, true, RAW(deadline_boot_us), 0, INT64_MAX},
    {"boot_id", JSONX_STRING, true, RAW(boot_id), 0, JOURNAL_BOOT_ID_MAX - 1},
    {"ended_boot_us", JSONX_INT, false, RAW(ended_boot_us), 0, INT64_MAX},
    {"drain_us", JSONX_INT, true, RAW(drain_us), 0, INT64_MAX},
    {"memory_max_bytes", JSONX_INT, true, RAW(memory_max_bytes), 0, INT64_MAX},
    {"pids_max", JSONX_INT, true, RAW(pids_max), 0, INT64_MAX},
    {"on_lost", JSONX_STRING, true, RAW(on_lost), 0, 23},
    {"ordered", JSONX_BOOL, false, RAW(ordered), 0, 0},
    {"reason", JSONX_STRING, true, RAW(reason), 0, 23},
    {"gpus", JSONX_ARRAY, true, RAW(gpus), 0, GPUS_PER_NODE_MAX},
    {"rules", JSONX_ARRAY, true, RAW(rules), 0, DEVPROG_RULES_MAX},
    {"holders", JSONX_ARRAY, false, RAW(holders), 0, JOURNAL_HOLDERS_MAX},
};

static int rules_read(const json_t *list, struct journal_lease *l, struct err *err)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        const char *type;
        json_int_t major, minor, access;
        if (json_unpack((json_t *)item, "[sIII!]", &type, &major, &minor, &access) !=
                0 ||
            strlen(type) != 1 || major < 0 || major > UINT32_MAX || minor < 0 ||
            minor > UINT32_MAX || access < 0 || access > 3)
            return err_set(err, ERR_BAD_REQUEST, "/rules/%zu: not a device rule", i);
        l->rules[i] = (struct devprog_rule){type[0], (uint32_t)major, (uint32_t)minor,
                                            (uint32_t)access};
    }
    l->rule_count = json_array_size(list);
    return 0;
}

static int holders_read(const json_t *list, struct journal_lease *l, struct err *err)
{
    size_t i;
    json_t *item;
    json_array_foreach(list, i, item)
    {
        const char *text = json_string_value(item);
        if (text == NULL || strlen(text) >= JOURNAL_HOLDER_MAX)
            return err_set(err, ERR_BAD_REQUEST, "/holders/%zu: not a public key", i);
        snprintf(l->holders[i], JOURNAL_HOLDER_MAX, "%s", text);
    }
    l->holder_count = json_array_size(list);
    return 0;
}

/* Lengths were checked by the table above. */
static int lease_fill(const struct lease_raw *r, struct journal_lease *l,
                      struct err *err)
{
    memset(l, 0, sizeof(*l));
    snprintf(l->id, sizeof(l->id), "%s", r->id);
    snprintf(l->tenant, sizeof(l->tenant), "%s", r->tenant);
    snprintf(l->boot_id, sizeof(l->boot_id), "%s", r->boot_id);
    snprintf(l->on_lost, sizeof(l->on_lost), "%s", r->on_lost);
    snprintf(l->reason, sizeof(l->reason), "%s", r->reason);
    if (!lease_state_parse(r->state, &l->state))
        return err_set(err, ERR_BAD_REQUEST, "/state: no such state: %s", r->state);
    l->epoch = r->epoch;
    l->generation = r->generation;
    l->not_before_us = r->not_before_us;
    l->not_after_us = r->not_after_us;
    l->deadline_boot_us = r->deadline_boot_us;
    l->ended_boot_us = r->ended_boot_us;
    l->ordered = r->ordered;
    l->drain_us = r->drain_us;
    l->memory_max_bytes = r->memory_max_bytes;
    l->pids_max = r->pids_max;
    size_t i;
    json_t *item;
    json_array_foreach(r->gpus, i, item)
    {
        const char *uuid = json_string_value(item);
        if (uuid == NULL || strlen(uuid) >= JOURNAL_ID_MAX)
            return err_set(err, ERR_BAD_REQUEST, "/gpus/%zu: not a GPU UUID", i);
        snprintf(l->gpus[i], JOURNAL_ID_MAX, "%s", uuid);
    }
    l->gpu_count = json_array_size(r->gpus);
    if (holders_read(r->holders, l, err) != 0)
        return -1;
    return rules_read(r->rules, l, err);
}

static int read_json(const char *path, size_t max, json_t **ret, struct err *err)
{
    char *text;
    size_t len;
    if (fsx_read(path, max, &text, &len, err) < 0)
        return -1;
    *ret = jsonx_parse(text, len, max, err);
    free(text);
    return *ret != NULL ? 0 : err_prefix(err, "%s", path);
}

int journal_lease_read(struct journal *j, const char *id, struct journal_lease *ret,
                       struct err *err)
{
    if (id_check(id, err) < 0)
        return -1;
    char *path = xasprintf("%s/leases/%s/lease.json", j->dir, id);
    json_t *doc = NULL;
    struct lease_raw raw = {0};
    int rc = read_json(path, LEASE_JSON_MAX, &doc, err);
    if (rc == 0)
        rc = jsonx_decode(doc, lease_fields, JSONX_COUNT(lease_fields), &raw, "", err);
    if (rc == 0 && strcmp(raw.id, id) != 0)
        rc = err_set(err, ERR_BAD_REQUEST, "%s: is of lease %s", path, raw.id);
    if (rc == 0)
        rc = lease_fill(&raw, ret, err);
    json_decref(doc);
    free(path);
    return rc;
}

int journal_lease_list(struct journal *j, char ***ret_ids, size_t *ret_count,
                       struct err *err)
{
    char *dir = xasprintf("%s/leases", j->dir);
    int rc = list_dir(dir, ret_ids, ret_count, err);
    free(dir);
    return rc;
}

int journal_lease_remove(struct journal *j, const char *id, struct err *err)
{
    if (id_check(id, err) < 0)
        return -1;
    char *dir = journal_lease_dir(j, id);
    int rc = fsx_remove_tree(dir, err);
    free(dir);
    return rc;
}

static int epoch_read(const char *path, int64_t *ret_epoch, char lease[JOURNAL_ID_MAX],
                      struct err *err)
{
    json_t *doc;
    struct err why;
    *ret_epoch = 0;
    lease[0] = '\0';
    if (read_json(path, SMALL_JSON_MAX, &doc, &why) < 0) {
        if (why.code == ERR_NOT_FOUND)
            return 0;
        if (err != NULL)
            *err = why;
        return -1;
    }
    struct {
        int64_t epoch;
        const char *lease;
    } raw = {0, ""};
    const struct jsonx_field fields[] = {
        {"epoch", JSONX_INT, true, 0, 1, INT64_MAX},
        {"lease", JSONX_STRING, true, sizeof(int64_t), 1, JOURNAL_ID_MAX - 1},
    };
    int rc = jsonx_decode(doc, fields, JSONX_COUNT(fields), &raw, "", err);
    if (rc == 0) {
        *ret_epoch = raw.epoch;
        snprintf(lease, JOURNAL_ID_MAX, "%s", raw.lease);
    }
    json_decref(doc);
    return rc;
}

int journal_epoch_claim(struct journal *j, const char *gpu, int64_t epoch,
                        const char *lease, struct err *err)
{
    if (id_check(gpu, err) < 0 || id_check(lease, err) < 0)
        return -1;
    char *path = xasprintf("%s/epochs/%s", j->dir, gpu);
    char owner[JOURNAL_ID_MAX];
    int64_t seen;
    int rc = epoch_read(path, &seen, owner, err);
    if (rc == 0 && epoch < seen)
        rc = err_set(err, ERR_CONFLICT,
                     "epoch %" PRId64 " of GPU %s is older than %" PRId64, epoch, gpu,
                     seen);
    else if (rc == 0 && epoch <= 0)
        rc = err_set(err, ERR_BAD_REQUEST, "epoch must be positive");
    else if (rc == 0 && epoch == seen && strcmp(owner, lease) != 0)
        rc = err_set(err, ERR_CONFLICT,
                     "epoch %" PRId64 " of GPU %s belongs to lease %s", epoch, gpu,
                     owner);
    else if (rc == 0 && epoch > seen) {
        char *text =
            xasprintf("{\"epoch\":%" PRId64 ",\"lease\":\"%s\"}\n", epoch, lease);
        rc = fsx_write(path, text, strlen(text), 0600, err);
        free(text);
    }
    free(path);
    return rc;
}

int journal_epoch_get(struct journal *j, const char *gpu, int64_t *ret, struct err *err)
{
    if (id_check(gpu, err) < 0)
        return -1;
    char *path = xasprintf("%s/epochs/%s", j->dir, gpu), owner[JOURNAL_ID_MAX];
    int rc = epoch_read(path, ret, owner, err);
    free(path);
    return rc;
}

struct use_raw {
    const char *jti, *lease, *argv_hash, *job;
    int64_t exp_us;
};

static int use_read(const char *path, json_t **ret_doc, struct use_raw *ret,
                    struct err *err)
{
    static const struct jsonx_field fields[] = {
        {"jti", JSONX_STRING, true, offsetof(struct use_raw, jti), 1, 200},
        {"lease", JSONX_STRING, true, offsetof(struct use_raw, lease), 1, 63},
        {"argv_hash", JSONX_STRING, true, offsetof(struct use_raw, argv_hash), 0, 200},
        {"job", JSONX_STRING, true, offsetof(struct use_raw, job), 1, 63},
        {"exp_us", JSONX_INT, true, offsetof(struct use_raw, exp_us), 0, INT64_MAX},
    };
    if (read_json(path, SMALL_JSON_MAX, ret_doc, err) < 0)
        return -1;
    if (jsonx_decode(*ret_doc, fields, JSONX_COUNT(fields), ret, "", err) < 0) {
        json_decref(*ret_doc);
        *ret_doc = NULL;
        return -1;
    }
    return 0;
}

/* A jti is the token's choice of bytes: its hash is the file name. */
static char *use_path(const struct journal *j, const char *jti)
{
    char hex[SHA256_HEX];
    digest_sha256_hex(jti, strlen(jti), hex);
    hex[60] = '\0'; /* fits an id, 240 bits */
    return xasprintf("%s/jti/%s", j->dir, hex);
}

static int use_write(const char *path, const struct journal_use *use, struct err *err)
{
    json_t *doc = json_pack("{s:s,s:s,s:s,s:s,s:I}", "jti", use->jti, "lease",
                            use->lease, "argv_hash", use->argv_hash, "job", use->job,
                            "exp_us", (json_int_t)use->exp_us);
    if (doc == NULL)
        return err_set(err, ERR_BAD_REQUEST, "jti is not UTF-8 text");
    char *text = jsonx_dump(doc);
    int rc = fsx_write(path, text, strlen(text), 0600, err);
    free(text);
    json_decref(doc);
    return rc;
}

int journal_jti_claim(struct journal *j, const struct journal_use *use,
                      char ret_job[JOURNAL_ID_MAX], struct err *err)
{
    if (use->jti[0] == '\0' || strlen(use->jti) > 200)
        return err_set(err, ERR_BAD_REQUEST, "jti must have 1 to 200 bytes");
    if (id_check(use->lease, err) < 0 || id_check(use->job, err) < 0)
        return -1;
    char *path = use_path(j, use->jti);
    json_t *doc = NULL;
    struct use_raw seen;
    struct err why;
    int rc = 0;
    if (use_read(path, &doc, &seen, &why) == 0) {
        if (strcmp(seen.jti, use->jti) != 0 || strcmp(seen.lease, use->lease) != 0 ||
            strcmp(seen.argv_hash, use->argv_hash) != 0)
            rc = err_set(
                err, ERR_TOKEN,
                "this token has started another command already: get a new one");
        else
            snprintf(ret_job, JOURNAL_ID_MAX, "%s", seen.job);
    } else if (why.code == ERR_NOT_FOUND) {
        rc = use_write(path, use, err);
        if (rc == 0)
            ret_job[0] = '\0';
    } else {
        /* Unreadable: it may have been used, so it counts as used. */
        rc = err_set(err, ERR_TOKEN, "the record of this token is damaged: %.200s",
                     why.text);
    }
    json_decref(doc);
    free(path);
    return rc;
}

int journal_jti_expire(struct journal *j, int64_t now_us, struct err *err)
{
    char *dir = xasprintf("%s/jti", j->dir), **names;
    size_t count;
    int rc = list_dir(dir, &names, &count, err);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        char *path = xasprintf("%s/%s", dir, names[i]);
        json_t *doc = NULL;
        struct use_raw use;
        if (use_read(path, &doc, &use, NULL) == 0 && use.exp_us < now_us)
            (void)unlink(path);
        json_decref(doc);
        free(path);
    }
    if (rc == 0)
        names_free(names, count);
    free(dir);
    return rc;
}

int journal_boot_id(char ret[JOURNAL_BOOT_ID_MAX], struct err *err)
{
    return deadline_boot_id(ret, err);
}
