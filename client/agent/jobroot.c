/* jobroot: see jobroot.h. Uses the mount API of Linux 5.12 (mount_setattr): a kernel
 * without it cannot make a whole tree read-only at once, and is refused. */
#include "client/agent/jobroot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "client/lib/xalloc.h"

#define STAGE "/tmp/dev" /* where the new /dev is put together */

static int mount_new(const char *type, const char *at, unsigned long flags,
                     const char *options, struct err *err)
{
    if (mount(type, at, type, flags | MS_NOSUID, options) < 0)
        return err_sys(err, errno, "mount %s on %s", type, at);
    return 0;
}

/* Covers a directory by an empty one; nothing to do where it does not exist. */
static int hide(const char *dir, struct err *err)
{
    struct stat st;
    if (lstat(dir, &st) < 0 || !S_ISDIR(st.st_mode))
        return 0;
    return mount_new("tmpfs", dir, MS_NODEV | MS_NOEXEC | MS_RDONLY,
                     "mode=0555,size=4k", err);
}

/* Bind-mounts what fd names onto target, with the mount's flags as given (the tree it
 * comes from has become read-only and nodev). */
static int bind_fd(int fd, const char *target, uint64_t set, uint64_t clear,
                   struct err *err)
{
    int tree = open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    if (tree < 0)
        return err_sys(err, errno, "open_tree for %s", target);
    struct mount_attr attr = {.attr_set = set, .attr_clr = clear};
    int rc = 0;
    if (mount_setattr(tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0 ||
        move_mount(tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
        rc = err_sys(err, errno, "bind %s", target);
    close(tree);
    return rc;
}

/* Makes the directories above path (all below STAGE). */
static int make_parents(const char *path, struct err *err)
{
    char *copy = xstrdup(path);
    int rc = 0;
    for (char *p = copy + sizeof(STAGE); rc == 0 && (p = strchr(p, '/')) != NULL; p++) {
        *p = '\0';
        if (mkdir(copy, 0755) < 0 && errno != EEXIST)
            rc = err_sys(err, errno, "mkdir %s", copy);
        *p = '/';
    }
    free(copy);
    return rc;
}

static int add_node(const struct launch_node *n, int fd, struct err *err)
{
    struct stat st;
    char *target = xasprintf(STAGE "/%s", n->inside);
    int rc = make_parents(target, err);
    if (rc == 0 && fstat(fd, &st) < 0)
        rc = err_sys(err, errno, "stat %s", n->outside);
    if (rc == 0 && (!S_ISCHR(st.st_mode) || major(st.st_rdev) != n->major ||
                    minor(st.st_rdev) != n->minor))
        rc = err_set(err, ERR_FORBIDDEN, "%s is not the character device %u:%u",
                     n->outside, n->major, n->minor);
    if (rc == 0) {
        int empty = open(target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (empty < 0)
            rc = err_sys(err, errno, "create %s", target);
        else
            close(empty);
    }
    if (rc == 0)
        rc = bind_fd(fd, target, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
                     MOUNT_ATTR_NODEV | MOUNT_ATTR_RDONLY, err);
    free(target);
    return rc;
}

static int dev_links(struct err *err)
{
    static const char *const links[][2] = {
        {"/proc/self/fd", STAGE "/fd"},       {"/proc/self/fd/0", STAGE "/stdin"},
        {"/proc/self/fd/1", STAGE "/stdout"}, {"/proc/self/fd/2", STAGE "/stderr"},
        {"pts/ptmx", STAGE "/ptmx"},
    };
    for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++)
        if (symlink(links[i][0], links[i][1]) < 0)
            return err_sys(err, errno, "symlink %s", links[i][1]);
    return 0;
}

static const struct launch_node base_nodes[] = {
    {(char *)"/dev/null", (char *)"null", 1, 3},
    {(char *)"/dev/zero", (char *)"zero", 1, 5},
    {(char *)"/dev/full", (char *)"full", 1, 7},
    {(char *)"/dev/random", (char *)"random", 1, 8},
    {(char *)"/dev/urandom", (char *)"urandom", 1, 9},
    {(char *)"/dev/tty", (char *)"tty", 5, 0},
};
#define BASE_COUNT (sizeof(base_nodes) / sizeof(base_nodes[0]))

/* Host directories and nodes by descriptor, opened before any of them is covered. They
 * must come from this mount namespace, else they cannot be bound. */
struct sources {
    int work, resolve;
    int nodes[BASE_COUNT + LAUNCH_NODES_MAX];
    size_t node_count;
};

static const struct launch_node *node_at(const struct launch_spec *spec, size_t i)
{
    return i < BASE_COUNT ? &base_nodes[i] : &spec->nodes[i - BASE_COUNT];
}

static int sources_open(const struct launch_spec *spec, const char *work_dir,
                        struct sources *s, struct err *err)
{
    s->node_count = 0;
    s->work = open(work_dir, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (s->work < 0)
        return err_sys(err, errno, "open %s", work_dir);
    s->resolve = open("/run/systemd/resolve", O_PATH | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < BASE_COUNT + spec->node_count; i++) {
        const struct launch_node *n = node_at(spec, i);
        int fd = open(n->outside, O_PATH | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
            return err_sys(err, errno, "open %s", n->outside);
        s->nodes[s->node_count++] = fd;
    }
    return 0;
}

static void sources_close(struct sources *s)
{
    close(s->work);
    if (s->resolve >= 0)
        close(s->resolve);
    for (size_t i = 0; i < s->node_count; i++)
        close(s->nodes[i]);
}

static int dev_make(const struct launch_spec *spec, const struct sources *s,
                    struct err *err)
{
    if (mkdir(STAGE, 0755) < 0)
        return err_sys(err, errno, "mkdir " STAGE);
    if (mount_new("tmpfs", STAGE, MS_NOEXEC, "mode=0755,size=64k,nr_inodes=1k", err) <
        0)
        return -1;
    for (size_t i = 0; i < s->node_count; i++)
        if (add_node(node_at(spec, i), s->nodes[i], err) < 0)
            return -1;
    if (dev_links(err) < 0)
        return -1;
    if (mkdir(STAGE "/pts", 0755) < 0 || mkdir(STAGE "/shm", 01777) < 0 ||
        mkdir(STAGE "/mqueue", 0755) < 0)
        return err_sys(err, errno, "mkdir in " STAGE);
    if (mount_new("devpts", STAGE "/pts", MS_NOEXEC,
                  "newinstance,ptmxmode=0666,mode=0620", err) < 0 ||
        mount_new("tmpfs", STAGE "/shm", MS_NODEV, "mode=1777", err) < 0)
        return -1;
    /* Kernels without POSIX queues exist; nobody misses the mount. */
    (void)mount("mqueue", STAGE "/mqueue", "mqueue", MS_NOSUID | MS_NODEV | MS_NOEXEC,
                NULL);
    if (mount(STAGE, "/dev", NULL, MS_MOVE, NULL) < 0)
        return err_sys(err, errno, "move " STAGE " to /dev");
    if (rmdir(STAGE) < 0)
        return err_sys(err, errno, "rmdir " STAGE);
    return 0;
}

static int run_make(const struct sources *s, struct err *err)
{
    if (mount_new("tmpfs", "/run", MS_NODEV, "mode=0755,size=64k,nr_inodes=1k", err) <
        0)
        return -1;
    if (mkdir("/run/neargpu", 0755) < 0 || mkdir(LAUNCH_WORK, 0700) < 0)
        return err_sys(err, errno, "mkdir " LAUNCH_WORK);
    if (bind_fd(s->work, LAUNCH_WORK, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID,
                MOUNT_ATTR_RDONLY, err) < 0)
        return -1;
    /* /etc/resolv.conf points into it where systemd-resolved runs. */
    if (s->resolve < 0)
        return 0;
    if (mkdir("/run/systemd", 0755) < 0 || mkdir("/run/systemd/resolve", 0755) < 0)
        return err_sys(err, errno, "mkdir /run/systemd/resolve");
    return bind_fd(s->resolve, "/run/systemd/resolve", MOUNT_ATTR_RDONLY, 0, err);
}

static int hide_all(const struct launch_spec *spec, const char *state_dir,
                    struct err *err)
{
    static const char *const always[] = {
        "/sys/fs",
        "/sys/kernel/debug",
        "/sys/kernel/tracing",
        "/sys/kernel/security",
        "/root",
        "/home",
    };
    for (size_t i = 0; i < sizeof(always) / sizeof(always[0]); i++)
        if (hide(always[i], err) < 0)
            return -1;
    for (size_t i = 0; spec->hide != NULL && spec->hide[i] != NULL; i++)
        if (hide(spec->hide[i], err) < 0)
            return -1;
    return hide(state_dir, err);
}

static int tree_make(const struct launch_spec *spec, const char *state_dir,
                     const struct sources *s, struct err *err)
{
    /* The stage of /dev needs a writable place: the job's own /tmp. */
    if (mount_new("tmpfs", "/tmp", MS_NODEV, "mode=1777", err) < 0 ||
        dev_make(spec, s, err) < 0 ||
        mount_new("proc", "/proc", MS_NODEV | MS_NOEXEC, NULL, err) < 0)
        return -1;
    if (access("/var/tmp", F_OK) == 0 &&
        mount_new("tmpfs", "/var/tmp", MS_NODEV, "mode=1777", err) < 0)
        return -1;
    if (hide_all(spec, state_dir, err) < 0 || run_make(s, err) < 0)
        return -1;
    return chdir("/") == 0 ? 0 : err_sys(err, errno, "chdir /");
}

int jobroot_enter(const struct launch_spec *spec, const char *state_dir,
                  const char *work_dir, struct err *err)
{
    /* Private before anything is mounted, or it would be mounted on the host too. */
    struct mount_attr attr = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID |
                                          MOUNT_ATTR_NODEV,
                              .propagation = MS_PRIVATE};
    if (mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, &attr, sizeof(attr)) < 0)
        return err_sys(err, errno, "make / private and read-only");
    struct sources s = {.work = -1, .resolve = -1};
    mode_t mask = umask(0);
    int rc = sources_open(spec, work_dir, &s, err);
    if (rc == 0)
        rc = tree_make(spec, state_dir, &s, err);
    umask(mask);
    sources_close(&s);
    return rc;
}
