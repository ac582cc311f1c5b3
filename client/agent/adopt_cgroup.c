/* adopt: the half that touches the kernel; see adopt.h. */
#include "client/agent/adopt.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "client/agent/cgroup.h"
#include "client/agent/journal.h"
#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"

#define XATTR     "trusted.neargpu.adopted"
#define XATTR_MAX (ADOPT_MAX * (ADOPT_PATH_MAX + 32))
#define DEPTH_MAX 32 /* levels of cgroups below an adopted one */

/* --- the list --- */

static int save(const struct adopt_at *at, const struct adopted_list *l,
                struct err *err)
{
    char *dir = cgroup_path(at->mount, at->base, at->id, NULL);
    char *text = adopt_format(l);
    int rc = l->count > 0 ? setxattr(dir, XATTR, text, strlen(text), 0)
                          : removexattr(dir, XATTR);
    if (rc != 0 && l->count == 0 && errno == ENODATA)
        rc = 0;
    if (rc != 0)
        err_sys(err, errno, "write the adopted cgroups of %s", dir);
    free(text);
    free(dir);
    return rc;
}

static int read_list(const struct adopt_at *at, struct adopted_list *ret,
                     struct err *err)
{
    char *dir = cgroup_path(at->mount, at->base, at->id, NULL);
    char *text = xcalloc(1, XATTR_MAX + 1);
    ssize_t n = getxattr(dir, XATTR, text, XATTR_MAX);
    int rc = 0;
    ret->count = 0;
    if (n > 0)
        rc = adopt_parse(text, ret, err);
    else if (n < 0 && errno != ENODATA && errno != ENOENT && errno != EOPNOTSUPP)
        rc = err_sys(err, errno, "read the adopted cgroups of %s", dir);
    free(text);
    free(dir);
    return rc;
}

/* Its directory, if it is still the one that was adopted; caller frees; else NULL. */
static char *find_dir(const struct adopt_at *at, const struct adopted *a)
{
    struct stat st;
    char *dir = xasprintf("%s/%s", at->mount, a->path);
    if (stat(dir, &st) == 0 && (uint64_t)st.st_ino == a->ino)
        return dir;
    free(dir);
    return NULL;
}

static void undo(const struct adopt_at *at, const struct adopted *a)
{
    struct err ignored;
    char *dir = find_dir(at, a);
    if (dir == NULL)
        return;
    if (cgroup_gate_clear(dir, &ignored) != 0)
        (void)ignored;
    cgroup_try_write(dir, "cgroup.freeze", "0");
    free(dir);
}

/* What an agent that died left half done is undone: it may be frozen. */
static int load(const struct adopt_at *at, struct adopted_list *ret, struct err *err)
{
    size_t kept = 0;
    if (read_list(at, ret, err) != 0)
        return -1;
    for (size_t i = 0; i < ret->count; i++) {
        if (!ret->e[i].held)
            undo(at, &ret->e[i]);
        else
            ret->e[kept++] = ret->e[i];
    }
    if (kept == ret->count)
        return 0;
    ret->count = kept;
    return save(at, ret, err);
}

/* --- one cgroup --- */

/* Runs fn for each process of dir and below until it says other than 0. */
static int each_process(const char *dir, int depth, int (*fn)(pid_t pid, void *arg),
                        void *arg, struct err *err)
{
    char *path = xasprintf("%s/cgroup.procs", dir), *text = NULL, *save_at = NULL;
    struct err why;
    int rc = 0;
    if (fsx_read(path, 4 << 20, &text, NULL, &why) != 0 && why.code != ERR_NOT_FOUND) {
        if (err != NULL)
            *err = why;
        rc = -1;
    }
    for (char *w = text != NULL ? strtok_r(text, "\n", &save_at) : NULL;
         rc == 0 && w != NULL; w = strtok_r(NULL, "\n", &save_at))
        rc = fn((pid_t)strtol(w, NULL, 10), arg);
    free(text);
    free(path);
    DIR *d = rc == 0 ? opendir(dir) : NULL;
    if (d != NULL && depth == 0)
        rc = err_set(err, ERR_TOO_LARGE, "%s: more than %d levels of cgroups", dir,
                     DEPTH_MAX);
    for (struct dirent *e; d != NULL && rc == 0 && (e = readdir(d)) != NULL;) {
        if (e->d_type != DT_DIR || e->d_name[0] == '.')
            continue;
        char *sub = xasprintf("%s/%s", dir, e->d_name);
        rc = each_process(sub, depth - 1, fn, arg, err);
        free(sub);
    }
    if (d != NULL)
        closedir(d);
    return rc;
}

static bool is_base(const struct stat *st)
{
    size_t n;
    const struct devprog_rule *base = devprog_base_rules(&n);
    for (size_t i = 0; i < n; i++)
        if (base[i].type == (S_ISCHR(st->st_mode) ? 'c' : 'b') &&
            base[i].major == major(st->st_rdev) &&
            (base[i].minor == DEVPROG_ANY_MINOR || base[i].minor == minor(st->st_rdev)))
            return true;
    return false;
}

/* Every entry of a directory of /proc leads to no device but those all may have. */
static int check_entries(const char *path, pid_t pid, struct err *err)
{
    DIR *d = opendir(path);
    struct stat st;
    int rc = 0;
    if (d == NULL)
        return errno == ENOENT || errno == ESRCH ? 0 : err_sys(err, errno, "%s", path);
    for (const struct dirent *e; rc == 0 && (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.' || fstatat(dirfd(d), e->d_name, &st, 0) != 0)
            continue;
        if ((S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode)) && !is_base(&st))
            rc = err_set(err, ERR_CONFLICT,
                         "process %d has a device open already (%s %u:%u): adopt a "
                         "container before its programs run",
                         (int)pid, S_ISCHR(st.st_mode) ? "char" : "block",
                         major(st.st_rdev), minor(st.st_rdev));
    }
    closedir(d);
    return rc;
}

/* Threads may have descriptors of their own (CLONE_FILES left out). */
static int check_process(pid_t pid, void *arg)
{
    struct err *err = arg;
    if (pid <= 1 || pid == getpid() || pid == getppid())
        return err_set(err, ERR_CONFLICT,
                       "the agent itself, or a process that cannot be named, is in it");
    char *path = xasprintf("/proc/%d/map_files", (int)pid);
    int rc = check_entries(path, pid, err);
    free(path);
    path = xasprintf("/proc/%d/task", (int)pid);
    DIR *d = rc == 0 ? opendir(path) : NULL;
    for (const struct dirent *e; d != NULL && rc == 0 && (e = readdir(d)) != NULL;) {
        if (e->d_name[0] == '.')
            continue;
        char *fds = xasprintf("%s/%s/fd", path, e->d_name);
        rc = check_entries(fds, pid, err);
        free(fds);
    }
    if (d != NULL)
        closedir(d);
    free(path);
    return rc;
}

static bool is_frozen(const char *dir)
{
    char *path = xasprintf("%s/cgroup.events", dir), *text = NULL;
    bool frozen = fsx_read(path, 4096, &text, NULL, NULL) == 0 &&
                  strstr(text, "frozen 1") != NULL;
    free(text);
    free(path);
    return frozen;
}

/* *ret_thaw: it was not frozen before. */
static int freeze(const char *dir, bool *ret_thaw, struct err *err)
{
    char *path = xasprintf("%s/cgroup.freeze", dir);
    bool can = access(path, F_OK) == 0;
    free(path);
    *ret_thaw = false;
    /* Without a freezer: the gate stands before anything is looked at, so that what is
     * opened meanwhile is allowed. */
    if (!can || is_frozen(dir))
        return 0;
    *ret_thaw = true;
    if (cgroup_write(dir, "cgroup.freeze", "1", err) != 0)
        return -1;
    for (int64_t until = clock_boot_us() + ADOPT_FREEZE_US; !is_frozen(dir);
         (void)poll(NULL, 0, 2)) {
        if (clock_boot_us() > until)
            return err_set(err, ERR_UNAVAILABLE,
                           "its processes could not all be stopped within 1 s");
    }
    return 0;
}

/* --- adopting --- */

/* No symbolic link, no other file system, and uid's own. */
static int check_dir(const struct adopt_at *at, uid_t uid, struct adopted *a,
                     struct err *err)
{
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
                           .resolve =
                               RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV};
    struct stat st;
    int rc = 0, root = open(at->mount, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root < 0)
        return err_sys(err, errno, "open %s", at->mount);
    int fd = (int)syscall(SYS_openat2, root, a->path, &how, sizeof(how));
    if (fd < 0 && errno == ENOENT)
        rc = err_set(err, ERR_NOT_FOUND, "no cgroup %s/%s", at->mount, a->path);
    else if (fd < 0 || fstat(fd, &st) != 0)
        rc = err_sys(err, errno, "open %s/%s", at->mount, a->path);
    else if (uid != 0 && st.st_uid != uid)
        rc =
            err_set(err, ERR_FORBIDDEN,
                    "cgroup /%s belongs to user %u: only root or its owner may have it "
                    "adopted",
                    a->path, (unsigned)st.st_uid);
    else
        a->ino = st.st_ino;
    if (fd >= 0)
        close(fd);
    close(root);
    return rc;
}

/* Nothing of ours, nothing that another lease has. */
static int check_others(const struct adopt_at *at, const char *path, struct err *err)
{
    struct adopted_list *l = xcalloc(1, sizeof(*l));
    char *ours = cgroup_path(at->mount, at->base, NULL, NULL);
    int rc = 0;
    if (adopt_overlaps(path, ours + strlen(at->mount) + 1))
        rc = err_set(err, ERR_CONFLICT, "cgroup /%s has the agent's own leases", path);
    DIR *d = rc == 0 ? opendir(ours) : NULL;
    for (const struct dirent *e; d != NULL && rc == 0 && (e = readdir(d)) != NULL;) {
        struct adopt_at other = {at->mount, at->base, e->d_name};
        if (e->d_type != DT_DIR || !journal_id_is_valid(e->d_name))
            continue;
        rc = read_list(&other, l, err);
        for (size_t i = 0; rc == 0 && i < l->count; i++)
            if (adopt_overlaps(l->e[i].path, path))
                rc = err_set(err, ERR_CONFLICT, "lease %.63s has adopted cgroup /%s",
                             e->d_name, l->e[i].path);
    }
    if (d != NULL)
        closedir(d);
    free(ours);
    free(l);
    return rc;
}

static int hold(const struct adopt_at *at, const struct adopted *a,
                const struct devprog *prog, struct err *err)
{
    bool thaw = false;
    char *dir = find_dir(at, a);
    if (dir == NULL)
        return err_set(err, ERR_NOT_FOUND, "no cgroup /%s any more", a->path);
    int rc = freeze(dir, &thaw, err);
    if (rc == 0 && cgroup_gate_set(dir, prog, err) != 0)
        rc = err_prefix(err, "cgroup /%s cannot be gated", a->path);
    if (rc == 0) {
        rc = each_process(dir, DEPTH_MAX, check_process, err, err);
        if (rc != 0 && cgroup_gate_clear(dir, NULL) != 0)
            err_prefix(err, "its gate stays");
    }
    if (thaw)
        cgroup_try_write(dir, "cgroup.freeze", "0");
    free(dir);
    return rc;
}

static struct adopted *in_list(struct adopted_list *l, const struct adopted *a)
{
    for (size_t i = 0; i < l->count; i++)
        if (l->e[i].ino == a->ino && strcmp(l->e[i].path, a->path) == 0)
            return &l->e[i];
    return NULL;
}

/* Those whose directory is gone make room. */
static void forget_gone(const struct adopt_at *at, struct adopted_list *l)
{
    size_t kept = 0;
    for (size_t i = 0; i < l->count; i++) {
        char *dir = find_dir(at, &l->e[i]);
        if (dir != NULL)
            l->e[kept++] = l->e[i];
        free(dir);
    }
    l->count = kept;
}

static int begin(const struct adopt_at *at, struct adopted_list *l,
                 const struct adopted *a, const struct devprog *prog, struct err *err)
{
    if (l->count == ADOPT_MAX)
        return err_set(err, ERR_TOO_LARGE, "%d cgroups are adopted already", ADOPT_MAX);
    l->e[l->count++] = *a;
    if (save(at, l, err) != 0)
        return -1;
    int rc = hold(at, a, prog, err);
    struct err why;
    if (rc == 0)
        l->e[l->count - 1].held = true;
    else
        l->count--;
    if (save(at, l, &why) != 0 && rc == 0) {
        undo(at, a);
        *err = why;
        rc = -1;
    }
    return rc;
}

int adopt_add(const struct adopt_at *at, const char *text, uid_t uid,
              const struct devprog *prog, struct err *err)
{
    struct adopted_list *l = xcalloc(1, sizeof(*l));
    struct adopted *a = xcalloc(1, sizeof(*a));
    int rc = adopt_path(at->mount, text, a->path, err);
    if (rc == 0)
        rc = check_dir(at, uid, a, err);
    if (rc == 0)
        rc = load(at, l, err);
    if (rc == 0) {
        forget_gone(at, l);
        if (in_list(l, a) == NULL) {
            rc = save(at, l, err);
            if (rc == 0)
                rc = check_others(at, a->path, err);
            if (rc == 0)
                rc = begin(at, l, a, prog, err);
        }
    }
    free(a);
    free(l);
    return rc;
}

/* --- all of a lease's --- */

static int one_kill(const char *dir, const void *arg, struct err *err)
{
    (void)arg;
    /* A frozen one dies too: of v2's freezer SIGKILL is not held back. */
    return cgroup_kill(dir, err);
}

static int one_gate(const char *dir, const void *arg, struct err *err)
{
    return cgroup_gate_set(dir, arg, err);
}

static int send_signal(pid_t pid, void *arg)
{
    if (pid > 1)
        (void)kill(pid, *(const int *)arg);
    return 0;
}

static int one_signal(const char *dir, const void *arg, struct err *err)
{
    int signo = *(const int *)arg;
    return each_process(dir, DEPTH_MAX, send_signal, &signo, err);
}

static int one_empty(const char *dir, const void *arg, struct err *err)
{
    bool populated = false;
    (void)arg;
    if (cgroup_populated(dir, &populated, err) != 0)
        return -1;
    return populated ? err_set(err, ERR_CONFLICT, "%s still has processes", dir) : 0;
}

static int one_clear(const char *dir, const void *arg, struct err *err)
{
    (void)arg;
    return cgroup_gate_clear(dir, err);
}

/* All of them, also when one fails: the first failure is told. */
static int each(const struct adopt_at *at,
                int (*fn)(const char *dir, const void *arg, struct err *err),
                const void *arg, struct err *err)
{
    struct adopted_list *l = xcalloc(1, sizeof(*l));
    struct err why;
    int rc = load(at, l, err);
    for (size_t i = 0; i < l->count; i++) {
        char *dir = find_dir(at, &l->e[i]);
        /* One that went away meanwhile is done with. */
        if (dir != NULL && fn(dir, arg, &why) != 0 && access(dir, F_OK) == 0 &&
            rc == 0) {
            rc = -1;
            if (err != NULL)
                *err = why;
        }
        free(dir);
    }
    free(l);
    return rc;
}

int adopt_gate(const struct adopt_at *at, const struct devprog *prog, struct err *err)
{
    return each(at, one_gate, prog, err);
}

int adopt_kill(const struct adopt_at *at, struct err *err)
{
    return each(at, one_kill, NULL, err);
}

int adopt_signal(const struct adopt_at *at, int signo, struct err *err)
{
    return each(at, one_signal, &signo, err);
}

int adopt_release(const struct adopt_at *at, struct err *err)
{
    return each(at, one_empty, NULL, err) == 0 ? each(at, one_clear, NULL, err) : -1;
}

struct look {
    bool gated, populated;
};

static int one_look(const char *dir, const void *arg, struct err *err)
{
    struct look *look = (struct look *)(uintptr_t)arg;
    uint32_t count = 0;
    bool multi = false, populated = false;
    if (cgroup_populated(dir, &populated, err) != 0 ||
        cgroup_gate_query(dir, &count, &multi, err) != 0)
        return -1;
    look->gated &= count > 0 && multi;
    look->populated |= populated;
    return 0;
}

int adopt_look(const struct adopt_at *at, bool *ret_gated, bool *ret_populated,
               struct err *err)
{
    struct look look = {.gated = true};
    if (each(at, one_look, &look, err) != 0)
        return -1;
    *ret_gated = look.gated;
    *ret_populated = look.populated;
    return 0;
}
