/* devnodes: see devnodes.h. */
#include "client/agent/devnodes.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

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

static bool node_is(const char *path, int maj, int min)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISCHR(st.st_mode) &&
           (int)major(st.st_rdev) == maj && (int)minor(st.st_rdev) == min;
}

static int put_gpu(const struct gpu_info *g, struct launch_node *out, size_t *n,
                   struct err *err)
{
    if (!node_is(g->device, g->major, g->minor))
        return err_set(err, ERR_UNAVAILABLE, "GPU %s: %s is not the device node %d:%d",
                       g->uuid, g->device, g->major, g->minor);
    /* Instances of one GPU share its node. */
    for (size_t i = 0; i < *n; i++)
        if (strcmp(out[i].outside, g->device) == 0)
            return 0;
    put(&out[(*n)++], g->device, (unsigned)g->major, (unsigned)g->minor);
    return 0;
}

/* The minors of the capabilities that nobody is ever granted: "mig/config" makes and
 * removes instances, "mig/monitor" sees all of them. */
static bool is_forbidden_cap(const struct gpu_info *g, int minor_number)
{
    static const char *const names[] = {"mig/config", "mig/monitor"};
    static const char root[] = "/capabilities/";
    const char *at = strstr(g->cap_access[0], root);
    bool bad = at == NULL;
    for (size_t i = 0; !bad && i < sizeof(names) / sizeof(names[0]); i++) {
        char *path =
            xasprintf("%.*s%s", (int)(at - g->cap_access[0]) + (int)sizeof(root) - 1,
                      g->cap_access[0], names[i]);
        bad = gpu_cap_minor(path) == minor_number;
        free(path);
    }
    return bad;
}

static int put_caps(const struct gpu_info *g, struct launch_node *out, size_t *n,
                    struct err *err)
{
    const char *slash = strrchr(g->device, '/');
    int dir = slash != NULL ? (int)(slash - g->device) : 0;
    for (int i = 0; i < GPU_CAPS_MAX; i++) {
        int m = gpu_cap_minor(g->cap_access[i]);
        char *path = xasprintf("%.*s/nvidia-caps/nvidia-cap%d", dir, g->device, m);
        if (m < 0 || is_forbidden_cap(g, m) || !node_is(path, g->cap_major, m)) {
            err_set(err, ERR_UNAVAILABLE,
                    "MIG instance %s: %.120s is not its capability node %d:%d", g->uuid,
                    path, g->cap_major, m);
            free(path);
            return -1;
        }
        put(&out[*n], path, (unsigned)g->cap_major, (unsigned)m);
        free(out[*n].inside);
        out[(*n)++].inside = xasprintf("nvidia-caps/nvidia-cap%d", m);
        free(path);
    }
    return 0;
}

int devnodes_find(const struct gpu_info *const *gpus, size_t count,
                  struct launch_node *out, size_t *ret_count, struct err *err)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        if (put_gpu(gpus[i], out, &n, err) != 0 ||
            (gpu_is_instance(gpus[i]) && put_caps(gpus[i], out, &n, err) != 0)) {
            devnodes_done(out, n);
            return -1;
        }
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

size_t devnodes_own(const struct gpu_info *gpu, dev_t *out, size_t cap)
{
    size_t n = 0;
    if (!gpu_is_instance(gpu)) {
        if (gpu->major >= 0 && gpu->minor >= 0 && cap > 0)
            out[n++] = makedev((unsigned)gpu->major, (unsigned)gpu->minor);
        return n;
    }
    for (int i = 0; i < GPU_CAPS_MAX && n < cap; i++) {
        int m = gpu_cap_minor(gpu->cap_access[i]);
        if (m >= 0 && gpu->cap_major >= 0)
            out[n++] = makedev((unsigned)gpu->cap_major, (unsigned)m);
    }
    return n;
}
