/* devnodes: see devnodes.h. */
#include "client/agent/devnodes.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"

/* Major of a character driver in /proc/devices, -1: not loaded. */
static int driver_major(const char *name)
{
    char *text = NULL;
    int found = -1;
    if (fsx_read("/proc/devices", 64 * 1024, &text, NULL, NULL) != 0)
        return -1;
    size_t len = strlen(name);
    for (const char *line = text; line != NULL && strncmp(line, "Block", 5) != 0;) {
        char *end;
        long v = strtol(line, &end, 10);
        if (end != line && *end == ' ' && strncmp(end + 1, name, len) == 0 &&
            end[1 + len] == '\n')
            found = (int)v;
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    free(text);
    return found;
}

static void put(struct launch_node *n, const char *path, unsigned maj, unsigned min)
{
    const char *slash = strrchr(path, '/');
    n->outside = xstrdup(path);
    n->inside = xstrdup(slash != NULL ? slash + 1 : path);
    n->major = maj;
    n->minor = min;
}

/* A control node of the driver, when there is one with the number it must have. */
static void put_control(struct launch_node *out, size_t *n, const char *path, int maj,
                        unsigned min)
{
    struct stat st;
    if (maj >= 0 && stat(path, &st) == 0 && S_ISCHR(st.st_mode) &&
        major(st.st_rdev) == (unsigned)maj && minor(st.st_rdev) == min)
        put(&out[(*n)++], path, (unsigned)maj, min);
}

int devnodes_find(const struct gpu_info *const *gpus, size_t count,
                  struct launch_node *out, size_t *ret_count, struct err *err)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        const struct gpu_info *g = gpus[i];
        struct stat st;
        if (stat(g->device, &st) != 0 || !S_ISCHR(st.st_mode) ||
            (int)major(st.st_rdev) != g->major || (int)minor(st.st_rdev) != g->minor) {
            devnodes_done(out, n);
            return err_set(err, ERR_UNAVAILABLE,
                           "GPU %s: %s is not the device node %d:%d", g->uuid,
                           g->device, g->major, g->minor);
        }
        put(&out[n++], g->device, (unsigned)g->major, (unsigned)g->minor);
    }
    int driver = driver_major("nvidia-frontend");
    if (driver < 0)
        driver = driver_major("nvidia");
    put_control(out, &n, "/dev/nvidiactl", driver, 255);
    put_control(out, &n, "/dev/nvidia-uvm", driver_major("nvidia-uvm"), 0);
    *ret_count = n;
    return 0;
}

void devnodes_done(struct launch_node *nodes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(nodes[i].outside);
        free(nodes[i].inside);
    }
}

static bool holds(int proc_fd, const char *pid, const struct gpu_info *const *gpus,
                  size_t count)
{
    char path[300];
    bool found = false;
    snprintf(path, sizeof(path), "%s/fd", pid);
    int fd = openat(proc_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno != ENOENT && errno != ESRCH; /* gone, or not to be judged */
    DIR *d = fdopendir(fd);
    if (d == NULL) {
        close(fd);
        return true;
    }
    const struct dirent *e;
    while (!found && (e = readdir(d)) != NULL) {
        struct stat st;
        if (e->d_name[0] == '.' || fstatat(fd, e->d_name, &st, 0) != 0 ||
            !S_ISCHR(st.st_mode))
            continue;
        for (size_t i = 0; i < count && !found; i++)
            found = (int)major(st.st_rdev) == gpus[i]->major &&
                    (int)minor(st.st_rdev) == gpus[i]->minor;
    }
    closedir(d);
    return found;
}

pid_t devnodes_holder(const struct gpu_info *const *gpus, size_t count, uid_t uid)
{
    DIR *d = opendir("/proc");
    const struct dirent *e;
    pid_t found = d != NULL ? 0 : -1;
    while (found == 0 && (e = readdir(d)) != NULL) {
        struct stat st;
        if (!isdigit((unsigned char)e->d_name[0]) ||
            fstatat(dirfd(d), e->d_name, &st, 0) != 0 || st.st_uid != uid)
            continue;
        if (holds(dirfd(d), e->d_name, gpus, count))
            found = (pid_t)strtol(e->d_name, NULL, 10);
    }
    if (d != NULL)
        closedir(d);
    return found;
}
