/* policy_file: see policy_file.h. */
#include "client/agent/policy_file.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/lib/bounds.h"
#include "client/lib/fsx.h"
#include "client/lib/log.h"
#include "client/lib/timefmt.h"
#include "client/lib/uuid.h"
#include "client/lib/xalloc.h"

#define FILE_BYTES_MAX (1 << 20) /* some 20,000 tenants */

struct text { /* as in the file */
    int64_t max_gpus_per_tenant, max_duration_us;
    char **allowed_tenants, **denied_tenants, **allowed_hours;
    char *hours_utc_offset;
};

struct policy_file {
    char *path;
    bool seen; /* `was` is what the rest was made of */
    struct stat was;
    int code; /* 0: it is good */
    char why[ERR_TEXT_MAX];
    struct text text;
    struct advert_rule rules[ADVERT_RULES_MAX];
    struct policy policy;
};

#define AT(member) offsetof(struct text, member)
const struct conf_key policy_file_keys[] = {
    {"allowed_tenants", CONF_LIST, AT(allowed_tenants), NULL,
     "Ids of the tenants accepted here; without any: all.", 0, 0},
    {"denied_tenants", CONF_LIST, AT(denied_tenants), NULL,
     "Ids of the tenants not accepted here, whatever else is said.", 0, 0},
    {"max_gpus_per_tenant", CONF_INT, AT(max_gpus_per_tenant), "0",
     "Most GPUs one tenant may hold here at one time; 0: no limit.", 0,
     GPUS_PER_NODE_MAX},
    {"max_duration", CONF_DURATION, AT(max_duration_us), "0",
     "Longest lease accepted here; 0: no limit.", 0, LEASE_MAX_US},
    {"allowed_hours", CONF_LIST, AT(allowed_hours), NULL,
     "Weekly hours in which leases may run, as `mon-fri 18:00-08:00`; without any: "
     "always.",
     0, 0},
    {"hours_utc_offset", CONF_STRING, AT(hours_utc_offset), "Z",
     "Zone of the hours, as +09:00.", 0, 0},
};
const size_t policy_file_key_count =
    sizeof(policy_file_keys) / sizeof(policy_file_keys[0]);

struct policy_file *policy_file_new(const char *path)
{
    struct policy_file *f = xcalloc(1, sizeof(*f));
    f->path = xstrdup(path);
    return f;
}

void policy_file_free(struct policy_file *f)
{
    if (f == NULL)
        return;
    conf_done(policy_file_keys, policy_file_key_count, &f->text);
    free(f->path);
    free(f);
}

static int check_ids(const char *key, char *const *ids, struct err *err)
{
    for (; ids != NULL && *ids != NULL; ids++)
        if (!uuid_is_valid(*ids))
            return err_set(err, ERR_BAD_REQUEST, "%s: \"%.80s\" is no tenant's id", key,
                           *ids);
    return 0;
}

static int take(struct policy_file *f, struct err *err)
{
    struct text *t = &f->text;
    size_t n = 0;
    int offset_s;
    if (check_ids("allowed_tenants", t->allowed_tenants, err) != 0 ||
        check_ids("denied_tenants", t->denied_tenants, err) != 0)
        return -1;
    if (advert_offset_parse(t->hours_utc_offset, &offset_s, err) != 0)
        return err_prefix(err, "hours_utc_offset");
    for (; t->allowed_hours != NULL && t->allowed_hours[n] != NULL; n++) {
        if (n == ADVERT_RULES_MAX)
            return err_set(err, ERR_BAD_REQUEST, "allowed_hours: more than %d",
                           ADVERT_RULES_MAX);
        if (advert_rule_parse(t->allowed_hours[n], &f->rules[n], err) != 0)
            return err_prefix(err, "allowed_hours");
    }
    f->policy = (struct policy){.max_gpus_per_tenant = t->max_gpus_per_tenant,
                                .max_duration_us = t->max_duration_us,
                                .tenants = t->allowed_tenants,
                                .denied = t->denied_tenants,
                                .hours = f->rules,
                                .hour_count = n,
                                .offset_s = offset_s};
    return 0;
}

static int check_owner(const struct policy_file *f, const struct stat *st,
                       struct err *err)
{
    if (!S_ISREG(st->st_mode))
        return err_set(err, ERR_BAD_REQUEST, "%s: not a regular file", f->path);
    if ((st->st_uid != 0 && st->st_uid != geteuid()) || (st->st_mode & 022) != 0)
        return err_set(err, ERR_FORBIDDEN,
                       "%s: must belong to root and be writable by nobody else",
                       f->path);
    return 0;
}

static int load(struct policy_file *f, const struct stat *st, struct err *err)
{
    char *text = NULL;
    size_t len;
    conf_done(policy_file_keys, policy_file_key_count, &f->text);
    memset(&f->text, 0, sizeof(f->text));
    conf_defaults(policy_file_keys, policy_file_key_count, &f->text);
    if (check_owner(f, st, err) != 0 ||
        fsx_read(f->path, FILE_BYTES_MAX, &text, &len, err) != 0)
        return -1;
    int rc = conf_parse(f->path, text, len, policy_file_keys, policy_file_key_count,
                        &f->text, err);
    free(text);
    if (rc == 0 && take(f, err) != 0)
        rc = err_prefix(err, "%s", f->path);
    return rc;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_dev == b->st_dev &&
           a->st_size == b->st_size && a->st_mode == b->st_mode &&
           a->st_uid == b->st_uid && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
           a->st_mtim.tv_nsec == b->st_mtim.tv_nsec &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec &&
           a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

/* What a failed stat says is kept as one state among others: an all-zero stat. */
static void refresh(struct policy_file *f)
{
    struct stat st;
    struct err err;
    int rc = 0;
    memset(&st, 0, sizeof(st));
    if (stat(f->path, &st) != 0) {
        rc = err_sys(&err, errno, "policy file %s", f->path);
        memset(&st, 0, sizeof(st));
    }
    if (f->seen && is_same(&st, &f->was))
        return;
    if (rc == 0)
        rc = load(f, &st, &err);
    f->seen = true;
    f->was = st;
    f->code = rc == 0 ? 0 : ERR_UNAVAILABLE;
    if (rc == 0) {
        log_info("policy file %s: read", f->path);
        return;
    }
    memcpy(f->why, err.text, sizeof(f->why));
    log_error("%s: nothing starts until that is put right", f->why);
}

int policy_file_get(struct policy_file *f, const struct policy **ret, struct err *err)
{
    refresh(f);
    if (f->code != 0)
        return err_set(
            err, ERR_UNAVAILABLE,
            "the provider's policy file cannot be used: nothing starts here");
    *ret = &f->policy;
    return 0;
}

int policy_file_check(const char *path, struct err *err)
{
    struct policy_file *f = policy_file_new(path);
    refresh(f);
    int rc = f->code == 0 ? 0 : err_set(err, ERR_BAD_REQUEST, "%s", f->why);
    policy_file_free(f);
    return rc;
}
