/* enforce_cgroup: the vtable of enforce.h on cgroup2 with a BPF device gate. Memory,
 * pids and cpu limits go to cgroup2 where its controllers are there, else to the v1
 * hierarchies (hybrid systems), else they are refused.
 *
 * Layout: BASE/LEASE (gate and limits) and BASE/LEASE/job-JOB (processes) on cgroup2;
 * BASE/LEASE (limits, processes) on v1. */
#include "client/agent/enforce.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/agent/adopt.h"
#include "client/agent/cgroup.h"
#include "client/agent/journal.h"
#include "client/lib/xalloc.h"

#define CPU_PERIOD_US 100000 /* the kernel's default */

struct enforce_cgroup {
    struct enforce pub;
    char *base;
    struct cgroup_mounts mounts;
};

static struct enforce_cgroup *self_of(struct enforce *e)
{
    return (struct enforce_cgroup *)e;
}

static int id_check(const char *id, struct err *err)
{
    if (!journal_id_is_valid(id))
        return err_set(err, ERR_BAD_REQUEST, "not a usable id for a cgroup: %.80s", id);
    return 0;
}

static struct adopt_at at_of(const struct enforce_cgroup *s, const char *id)
{
    return (struct adopt_at){s->mounts.v2, s->base, id};
}

/* Makes MOUNT/BASE/LEASE; caller frees *ret. */
static int lease_make(const struct enforce_cgroup *s, const char *mount, const char *id,
                      char **ret, struct err *err)
{
    char *base = cgroup_path(mount, s->base, NULL, NULL);
    char *dir = cgroup_path(mount, s->base, id, NULL);
    if (cgroup_make(base, err) < 0 || cgroup_make(dir, err) < 0) {
        free(base);
        free(dir);
        return -1;
    }
    free(base);
    *ret = dir;
    return 0;
}

static bool lease_exists(const struct enforce_cgroup *s, const char *mount,
                         const char *id)
{
    char *dir = cgroup_path(mount, s->base, id, NULL);
    bool is = access(dir, F_OK) == 0;
    free(dir);
    return is;
}

struct limit {
    const char *what;
    bool on_v2;
    const char *v1_mount;
    const char *v2_file, *v1_file;
    const char *v1_none, *v2_none; /* what "no limit" is called */
};

static int limit_set(const struct enforce_cgroup *s, const char *id,
                     const struct limit *l, int64_t value, struct err *err)
{
    char number[32], *dir = NULL;
    snprintf(number, sizeof(number), "%" PRId64, value);
    if (l->on_v2) {
        if (lease_make(s, s->mounts.v2, id, &dir, err) < 0)
            return -1;
        int rc = cgroup_write(dir, l->v2_file, value > 0 ? number : l->v2_none, err);
        free(dir);
        /* Without a limit asked for, a missing file is no failure. */
        return value > 0 ? rc : 0;
    }
    if (l->v1_mount[0] == '\0') {
        if (value <= 0)
            return 0;
        return err_set(err, ERR_UNAVAILABLE,
                       "this node cannot limit %s: no such cgroup controller", l->what);
    }
    /* Nothing to limit, nothing to lift: each directory is half a millisecond. */
    if (value <= 0 && !lease_exists(s, l->v1_mount, id))
        return 0;
    if (lease_make(s, l->v1_mount, id, &dir, err) < 0)
        return -1;
    int rc = cgroup_write(dir, l->v1_file, value > 0 ? number : l->v1_none, err);
    free(dir);
    return value > 0 ? rc : 0;
}

/* Swap must not become a way round the memory limit; absent swap files are fine. */
static void limit_swap(const struct enforce_cgroup *s, const struct enforce_lease *l)
{
    char number[32];
    if (l->memory_max_bytes <= 0)
        return;
    snprintf(number, sizeof(number), "%" PRId64, l->memory_max_bytes);
    const char *mount = s->mounts.v2_memory ? s->mounts.v2 : s->mounts.v1_memory;
    char *dir = cgroup_path(mount, s->base, l->id, NULL);
    if (s->mounts.v2_memory)
        cgroup_try_write(dir, "memory.swap.max", "0");
    else
        cgroup_try_write(dir, "memory.memsw.limit_in_bytes", number);
    free(dir);
}

static int limits_set(const struct enforce_cgroup *s, const struct enforce_lease *l,
                      struct err *err)
{
    const struct limit memory = {
        "memory",     s->mounts.v2_memory,     s->mounts.v1_memory,
        "memory.max", "memory.limit_in_bytes", "-1",
        "max"};
    const struct limit pids = {"processes", s->mounts.v2_pids, s->mounts.v1_pids,
                               "pids.max",  "pids.max",        "max",
                               "max"};
    /* Both take the quota in us of a period, which is 100 ms unless someone set it. */
    const struct limit cpu = {"cpu",     s->mounts.v2_cpu,   s->mounts.v1_cpu,
                              "cpu.max", "cpu.cfs_quota_us", "-1",
                              "max"};
    /* v1 refuses a memory limit above memsw: lift that one first. */
    if (!s->mounts.v2_memory && s->mounts.v1_memory[0] != '\0') {
        char *dir = cgroup_path(s->mounts.v1_memory, s->base, l->id, NULL);
        cgroup_try_write(dir, "memory.memsw.limit_in_bytes", "-1");
        free(dir);
    }
    if (limit_set(s, l->id, &memory, l->memory_max_bytes, err) < 0 ||
        limit_set(s, l->id, &pids, l->pids_max, err) < 0 ||
        limit_set(s, l->id, &cpu, l->cpu_milli * (CPU_PERIOD_US / 1000), err) < 0)
        return -1;
    limit_swap(s, l);
    return 0;
}

/* On cgroup2 a controller is there only if every level above passes it down. */
static int controllers_enable(const struct enforce_cgroup *s, struct err *err)
{
    char *base = cgroup_path(s->mounts.v2, s->base, NULL, NULL);
    int rc = cgroup_make(base, err);
    char want[64];
    snprintf(want, sizeof(want), "%s%s%s", s->mounts.v2_memory ? "+memory " : "",
             s->mounts.v2_pids ? "+pids " : "", s->mounts.v2_cpu ? "+cpu" : "");
    if (rc == 0 && want[0] != '\0') {
        rc = cgroup_write(s->mounts.v2, "cgroup.subtree_control", want, err);
        if (rc == 0)
            rc = cgroup_write(base, "cgroup.subtree_control", want, err);
    }
    free(base);
    return rc;
}

static int ec_open(struct enforce *e, const struct enforce_lease *lease,
                   struct err *err)
{
    struct enforce_cgroup *s = self_of(e);
    if (id_check(lease->id, err) < 0)
        return -1;
    struct adopt_at at = at_of(s, lease->id);
    struct devprog *prog = xmalloc(sizeof(*prog));
    char *dir = NULL;
    int rc = devprog_build(lease->devices, lease->device_count, lease->deadline_boot_us,
                           prog, err);
    if (rc == 0)
        rc = controllers_enable(s, err);
    if (rc == 0)
        rc = lease_make(s, s->mounts.v2, lease->id, &dir, err);
    if (rc == 0)
        rc = limits_set(s, lease, err);
    if (rc == 0)
        rc = cgroup_gate_set(dir, prog, err);
    if (rc == 0)
        rc = adopt_gate(&at, prog, err);
    free(dir);
    free(prog);
    return rc;
}

static int ec_deny(struct enforce *e, const char *id, struct err *err)
{
    struct enforce_cgroup *s = self_of(e);
    if (id_check(id, err) < 0)
        return -1;
    struct adopt_at at = at_of(s, id);
    char *dir = cgroup_path(s->mounts.v2, s->base, id, NULL);
    int rc = 0;
    if (access(dir, F_OK) == 0) {
        struct devprog *prog = xmalloc(sizeof(*prog));
        struct err why;
        devprog_build_deny(prog);
        rc = cgroup_gate_set(dir, prog, err);
        /* One that could not be closed must not leave the others open. */
        if (adopt_gate(&at, prog, &why) != 0 && rc == 0) {
            *err = why;
            rc = -1;
        }
        free(prog);
    }
    free(dir);
    return rc;
}

static int ec_kill(struct enforce *e, const char *id, struct err *err)
{
    struct enforce_cgroup *s = self_of(e);
    if (id_check(id, err) < 0)
        return -1;
    struct adopt_at at = at_of(s, id);
    struct err why;
    char *dir = cgroup_path(s->mounts.v2, s->base, id, NULL);
    int rc = cgroup_kill(dir, err);
    if (adopt_kill(&at, &why) != 0 && rc == 0) {
        *err = why;
        rc = -1;
    }
    free(dir);
    return rc;
}

static int ec_adopt(struct enforce *e, const struct enforce_lease *lease,
                    const char *cgroup, uid_t uid, struct err *err)
{
    struct enforce_cgroup *s = self_of(e);
    if (id_check(lease->id, err) < 0)
        return -1;
    struct adopt_at at = at_of(s, lease->id);
    struct devprog *prog = xmalloc(sizeof(*prog));
    int rc = devprog_build(lease->devices, lease->device_count, lease->deadline_boot_us,
                           prog, err);
    if (rc == 0)
        rc = adopt_add(&at, cgroup, uid, prog, err);
    free(prog);
    return rc;
}

static int ec_signal_adopted(struct enforce *e, const char *id, int signo,
                             struct err *err)
{
    struct enforce_cgroup *s = self_of(e);
    if (id_check(id, err) < 0)
        return -1;
    struct adopt_at at = at_of(s, id);
    return adopt_signal(&at, signo, err);
}

static int ec_status(struct enforce *e, const char *id, struct enforce_status *ret,
                     struct err *err)
{
    struct enforce_cgroup *s = self_of(e);
    if (id_check(id, err) < 0)
        return -1;
    char *dir = cgroup_path(s->mounts.v2, s->base, id, NULL);
    struct enforce_status st = {0};
    int rc = 0;
    if (access(dir, F_OK) == 0) {
        uint32_t count = 0;
        bool multi = false;
        st.exists = true;
        rc = cgroup_populated(dir, &st.populated, err);
        if (rc == 0)
            rc = cgroup_gate_query(dir, &count, &multi, err);
        st.gated = count > 0 && multi;
        bool gated = false, populated = false;
        struct adopt_at at = at_of(s, id);
        if (rc == 0)
            rc = adopt_look(&at, &gated, &populated, err);
        st.gated &= gated;
        st.populated |= populated;
    } else if (errno != ENOENT) {
        rc = err_sys(err, errno, "look at %s", dir);
    }
    free(dir);
    if (rc == 0)
        *ret = st;
    return rc;
}

static int ec_close(struct enforce *e, const char *id, struct err *err)
{
    struct enforce_cgroup *s = self_of(e);
    if (id_check(id, err) < 0)
        return -1;
    const char *const mounts[] = {s->mounts.v2, s->mounts.v1_memory, s->mounts.v1_pids,
                                  s->mounts.v1_cpu};
    struct adopt_at at = at_of(s, id);
    int rc = adopt_release(&at, err);
    for (size_t i = 0; rc == 0 && i < sizeof(mounts) / sizeof(mounts[0]); i++) {
        if (mounts[i][0] == '\0')
            continue;
        char *dir = cgroup_path(mounts[i], s->base, id, NULL);
        rc = cgroup_remove(dir, err);
        free(dir);
    }
    return rc == 0 ? cgroup_remove_foreign(s->base, id, err) : rc;
}

static int list_add(const char *dir, char ***ids, size_t *count, struct err *err)
{
    DIR *d = opendir(dir);
    if (d == NULL)
        return errno == ENOENT ? 0 : err_sys(err, errno, "open %s", dir);
    for (struct dirent *entry; (entry = readdir(d)) != NULL;) {
        if (entry->d_type != DT_DIR || !journal_id_is_valid(entry->d_name))
            continue;
        bool known = false;
        for (size_t i = 0; i < *count && !known; i++)
            known = strcmp((*ids)[i], entry->d_name) == 0;
        if (known)
            continue;
        *ids = xreallocarray(*ids, *count + 1, sizeof(**ids));
        (*ids)[(*count)++] = xstrdup(entry->d_name);
    }
    closedir(d);
    return 0;
}

static int ec_list(struct enforce *e, char ***ret_ids, size_t *ret_count,
                   struct err *err)
{
    struct enforce_cgroup *s = self_of(e);
    const char *const mounts[] = {s->mounts.v2, s->mounts.v1_memory, s->mounts.v1_pids,
                                  s->mounts.v1_cpu};
    char **ids = NULL;
    size_t count = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < sizeof(mounts) / sizeof(mounts[0]); i++) {
        if (mounts[i][0] == '\0')
            continue;
        char *dir = cgroup_path(mounts[i], s->base, NULL, NULL);
        rc = list_add(dir, &ids, &count, err);
        free(dir);
    }
    if (rc < 0) {
        for (size_t i = 0; i < count; i++)
            free(ids[i]);
        free(ids);
        return -1;
    }
    *ret_ids = ids;
    *ret_count = count;
    return 0;
}

static void ec_free(struct enforce *e)
{
    if (e == NULL)
        return;
    free(self_of(e)->base);
    free(self_of(e));
}

static const struct enforce_ops cgroup_ops = {
    .open = ec_open,
    .deny = ec_deny,
    .kill = ec_kill,
    .status = ec_status,
    .close = ec_close,
    .list = ec_list,
    .free = ec_free,
    .adopt = ec_adopt,
    .signal_adopted = ec_signal_adopted,
};

int enforce_cgroup_new(const char *base, struct enforce **ret, struct err *err)
{
    struct cgroup_mounts mounts;
    if (base == NULL)
        base = CGROUP_BASE;
    if (!journal_id_is_valid(base))
        return err_set(err, ERR_BAD_REQUEST, "not a usable cgroup name: %.80s", base);
    if (cgroup_find_mounts(&mounts, err) < 0)
        return -1;
    struct enforce_cgroup *s = xcalloc(1, sizeof(*s));
    s->pub.ops = &cgroup_ops;
    s->base = xstrdup(base);
    s->mounts = mounts;
    *ret = &s->pub;
    return 0;
}
