/* cgroup: see cgroup.h. */
#include "client/agent/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"

#define KILL_ROUNDS                                                  \
    50 /* v1-style killing races with fork; each round sees the rest \
        */

/* "ID PARENT MAJ:MIN ROOT MOUNTPOINT OPTIONS [TAGS] - TYPE SOURCE SUPER" */
static bool mount_line(char *line, char **ret_point, char **ret_type, char **ret_super)
{
    char *dash = strstr(line, " - ");
    if (dash == NULL)
        return false;
    *dash = '\0';
    char *save = NULL;
    char *word = strtok_r(line, " ", &save);
    for (int i = 0; word != NULL && i < 4; i++)
        word = strtok_r(NULL, " ", &save);
    *ret_point = word;
    *ret_type = strtok_r(dash + 3, " ", &save);
    char *source = strtok_r(NULL, " ", &save);
    *ret_super = strtok_r(NULL, " ", &save);
    return word != NULL && source != NULL && *ret_super != NULL;
}

static bool has_option(const char *options, const char *want)
{
    size_t len = strlen(want);
    for (const char *p = options; p != NULL; p = strchr(p, ',')) {
        if (*p == ',')
            p++;
        if (strncmp(p, want, len) == 0 && (p[len] == ',' || p[len] == '\0'))
            return true;
    }
    return false;
}

static int mount_copy(char *to, size_t size, const char *point, struct err *err)
{
    if (to[0] != '\0')
        return 0; /* the first mount of a kind will do */
    if ((size_t)snprintf(to, size, "%s", point) >= size)
        return err_set(err, ERR_TOO_LARGE, "mountinfo: path too long: %s", point);
    return 0;
}

int cgroup_parse_mounts(const char *mountinfo, struct cgroup_mounts *ret,
                        struct err *err)
{
    memset(ret, 0, sizeof(*ret));
    char *text = xstrdup(mountinfo), *save = NULL;
    int rc = 0;
    for (char *line = strtok_r(text, "\n", &save); line != NULL && rc == 0;
         line = strtok_r(NULL, "\n", &save)) {
        char *point, *type, *super;
        if (!mount_line(line, &point, &type, &super))
            continue;
        bool v1 = strcmp(type, "cgroup") == 0; /* may be of several controllers */
        if (strcmp(type, "cgroup2") == 0)
            rc = mount_copy(ret->v2, sizeof(ret->v2), point, err);
        if (rc == 0 && v1 && has_option(super, "memory"))
            rc = mount_copy(ret->v1_memory, sizeof(ret->v1_memory), point, err);
        if (rc == 0 && v1 && has_option(super, "pids"))
            rc = mount_copy(ret->v1_pids, sizeof(ret->v1_pids), point, err);
        if (rc == 0 && v1 && has_option(super, "cpu"))
            rc = mount_copy(ret->v1_cpu, sizeof(ret->v1_cpu), point, err);
    }
    free(text);
    if (rc == 0 && ret->v2[0] == '\0')
        return err_set(err, ERR_UNAVAILABLE,
                       "no cgroup2 file system is mounted: mount -t cgroup2 none "
                       "/sys/fs/cgroup");
    return rc;
}

static bool has_word(const char *text, const char *want)
{
    size_t len = strlen(want);
    for (const char *p = text; (p = strstr(p, want)) != NULL; p += len)
        if ((p == text || p[-1] == ' ') &&
            (p[len] == ' ' || p[len] == '\n' || p[len] == '\0'))
            return true;
    return false;
}

int cgroup_find_mounts(struct cgroup_mounts *ret, struct err *err)
{
    char *text;
    if (fsx_read("/proc/self/mountinfo", 1 << 20, &text, NULL, err) < 0)
        return -1;
    int rc = cgroup_parse_mounts(text, ret, err);
    free(text);
    if (rc < 0)
        return -1;
    char *path = xasprintf("%s/cgroup.controllers", ret->v2);
    rc = fsx_read(path, 4096, &text, NULL, err);
    free(path);
    if (rc < 0)
        return -1;
    ret->v2_memory = has_word(text, "memory");
    ret->v2_pids = has_word(text, "pids");
    ret->v2_cpu = has_word(text, "cpu");
    free(text);
    return 0;
}

char *cgroup_path(const char *mount, const char *base, const char *lease,
                  const char *job)
{
    if (base == NULL)
        base = CGROUP_BASE;
    if (lease == NULL)
        return xasprintf("%s/%s", mount, base);
    if (job == NULL)
        return xasprintf("%s/%s/%s", mount, base, lease);
    return xasprintf("%s/%s/%s/job-%s", mount, base, lease, job);
}

int cgroup_make(const char *dir, struct err *err)
{
    if (mkdir(dir, 0755) < 0 && errno != EEXIST)
        return err_sys(err, errno, "mkdir %s", dir);
    return 0;
}

int cgroup_remove(const char *dir, struct err *err)
{
    DIR *d = opendir(dir);
    if (d == NULL)
        return errno == ENOENT ? 0 : err_sys(err, errno, "open %s", dir);
    int rc = 0;
    for (struct dirent *e; rc == 0 && (e = readdir(d)) != NULL;) {
        if (e->d_type != DT_DIR || e->d_name[0] == '.')
            continue;
        char *sub = xasprintf("%s/%s", dir, e->d_name);
        rc = cgroup_remove(sub, err);
        free(sub);
    }
    closedir(d);
    if (rc == 0 && rmdir(dir) < 0 && errno != ENOENT) {
        if (errno == EBUSY)
            return err_set(err, ERR_CONFLICT, "%s still has processes", dir);
        return err_sys(err, errno, "rmdir %s", dir);
    }
    return rc;
}

int cgroup_remove_foreign(const char *base, const char *lease, struct err *err)
{
    char *text, *save = NULL;
    if (fsx_read("/proc/self/mountinfo", 1 << 20, &text, NULL, err) < 0)
        return -1;
    int rc = 0;
    for (char *line = strtok_r(text, "\n", &save); line != NULL && rc == 0;
         line = strtok_r(NULL, "\n", &save)) {
        char *point, *type, *super;
        if (!mount_line(line, &point, &type, &super) || strcmp(type, "cgroup") != 0)
            continue;
        char *dir = cgroup_path(point, base, lease, NULL);
        rc = cgroup_remove(dir, err);
        free(dir);
        dir = cgroup_path(point, base, NULL, NULL);
        (void)rmdir(dir); /* runc made that one too; in use: it stays */
        free(dir);
    }
    free(text);
    return rc;
}

int cgroup_write(const char *dir, const char *file, const char *text, struct err *err)
{
    char *path = xasprintf("%s/%s", dir, file);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int rc = 0;
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        rc = err_sys(err, errno, "write %s to %s", text, path);
    if (fd >= 0)
        close(fd);
    free(path);
    return rc;
}

void cgroup_try_write(const char *dir, const char *file, const char *text)
{
    struct err ignored;
    if (cgroup_write(dir, file, text, &ignored) < 0)
        return;
}

int cgroup_populated(const char *dir, bool *ret, struct err *err)
{
    char *path = xasprintf("%s/cgroup.events", dir), *text;
    struct err why;
    int rc = fsx_read(path, 4096, &text, NULL, &why);
    free(path);
    if (rc < 0) {
        if (why.code == ERR_NOT_FOUND) {
            *ret = false;
            return 0;
        }
        if (err != NULL)
            *err = why;
        return -1;
    }
    *ret = strstr(text, "populated 1") != NULL;
    free(text);
    return 0;
}

/* SIGKILL to every process listed in dir and below. Returns how many there were. */
static int kill_listed(const char *dir)
{
    int seen = 0;
    char *path = xasprintf("%s/cgroup.procs", dir), *text, *save = NULL;
    if (fsx_read(path, 1 << 20, &text, NULL, NULL) == 0) {
        for (char *w = strtok_r(text, "\n", &save); w;
             w = strtok_r(NULL, "\n", &save)) {
            long pid = strtol(w, NULL, 10);
            if (pid > 1 && kill((pid_t)pid, SIGKILL) == 0)
                seen++;
        }
        free(text);
    }
    free(path);
    DIR *d = opendir(dir);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        if (e->d_type != DT_DIR || e->d_name[0] == '.')
            continue;
        char *sub = xasprintf("%s/%s", dir, e->d_name);
        seen += kill_listed(sub);
        free(sub);
    }
    if (d != NULL)
        closedir(d);
    return seen;
}

int cgroup_kill(const char *dir, struct err *err)
{
    char *path = xasprintf("%s/cgroup.kill", dir);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int saved = errno;
    free(path);
    if (fd >= 0) {
        ssize_t n = write(fd, "1", 1);
        saved = errno;
        close(fd);
        if (n == 1)
            return 0;
        return saved == ENODEV ? 0 : err_sys(err, saved, "kill %s", dir);
    }
    if (saved != ENOENT)
        return err_sys(err, saved, "kill %s", dir);
    /* No such file: no such cgroup, or a kernel before 5.14. */
    for (int i = 0; i < KILL_ROUNDS && kill_listed(dir) > 0; i++)
        ;
    return 0;
}
