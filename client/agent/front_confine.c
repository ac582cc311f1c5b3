/* front_confine: see front_confine.h. */
#include "client/agent/front_confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client/agent/confine.h"

/* --- what it sees --- */

static int hide(const char *path, struct err *err)
{
    struct stat st;
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
        return 0;
    if (mount("none", path, "tmpfs",
              MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME,
              "size=4k,mode=0555") < 0)
        return err_sys(err, errno, "hide %s", path);
    return 0;
}

static int hide_all(const struct front_confine *c, struct err *err)
{
    static const char *const always[] = {"/dev",     "/sys",  "/tmp",
                                         "/var/tmp", "/root", "/home"};
    size_t i;
    const json_t *v;
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
        return err_sys(err, errno, "a mount namespace for the front");
    json_array_foreach(c->hide, i, v)
    {
        if (hide(json_string_value(v), err) != 0)
            return -1;
    }
    for (i = 0; i < sizeof(always) / sizeof(always[0]); i++)
        if (hide(always[i], err) != 0)
            return -1;
    if (chdir("/") < 0)
        return err_sys(err, errno, "chdir /");
    return 0;
}

/* --- landlock --- */

#define LL_READ (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define LL_WRITE                                                   \
    (LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_MAKE_REG | \
     LANDLOCK_ACCESS_FS_REMOVE_FILE)
/* All that the first version knows, and TRUNCATE of the third, which is newer than the
 * headers of Debian 12. */
#define LL_ALL_1       ((1ULL << 13) - 1)
#define LL_FS_REFER    (1ULL << 13)
#define LL_FS_TRUNCATE (1ULL << 14)

static int allow(int ruleset, int fd, uint64_t access, struct err *err)
{
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0)
        return 0; /* not on this system */
    if (!S_ISDIR(st.st_mode))
        access &= LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE;
    struct landlock_path_beneath_attr rule = {access, fd};
    if (syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) <
        0)
        return err_sys(err, errno, "landlock");
    return 0;
}

static int allow_all(const struct front_confine *c, int ruleset, uint64_t handled,
                     struct err *err)
{
    static const char *const readable[] = {
        "/etc", "/usr", "/lib", "/lib64", "/proc", "/run/systemd/resolve", "/run/nscd"};
    int rc = allow(ruleset, c->ca_fd, LL_READ, err);
    if (rc == 0)
        rc = allow(ruleset, c->dir_fd, (LL_READ | LL_WRITE | LL_FS_TRUNCATE) & handled,
                   err);
    for (size_t i = 0; rc == 0 && i < sizeof(readable) / sizeof(readable[0]); i++) {
        int fd = open(readable[i], O_PATH | O_CLOEXEC);
        rc = allow(ruleset, fd, LL_READ, err);
        if (fd >= 0)
            close(fd);
    }
    return rc;
}

static int own_landlock(const struct front_confine *c, struct err *err)
{
    long abi =
        syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi < 1)
        return 0; /* a kernel without it: the other layers hold alone */
    uint64_t handled =
        LL_ALL_1 | (abi >= 2 ? LL_FS_REFER : 0) | (abi >= 3 ? LL_FS_TRUNCATE : 0);
    struct landlock_ruleset_attr attr = {.handled_access_fs = handled};
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr,
                               sizeof(attr.handled_access_fs), 0);
    if (ruleset < 0)
        return err_sys(err, errno, "landlock");
    int rc = allow_all(c, ruleset, handled, err);
    if (rc == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
        rc = err_sys(err, errno, "landlock");
    close(ruleset);
    return rc;
}

/* --- system calls, beyond those no job may make either (confine.h) --- */

static const int refused_calls[] = {
    SCMP_SYS(mknod),       SCMP_SYS(mknodat),
    SCMP_SYS(execve),      SCMP_SYS(execveat),
    SCMP_SYS(fork),        SCMP_SYS(vfork),
    SCMP_SYS(pidfd_open),  SCMP_SYS(pidfd_getfd),
    SCMP_SYS(kcmp),        SCMP_SYS(process_vm_readv),
    SCMP_SYS(setuid),      SCMP_SYS(process_vm_writev),
    SCMP_SYS(setgid),      SCMP_SYS(setresuid),
    SCMP_SYS(setresgid),   SCMP_SYS(setgroups),
    SCMP_SYS(personality), SCMP_SYS(process_madvise),
    SCMP_SYS(mlockall),    SCMP_SYS(memfd_create),
    SCMP_SYS(capset),      SCMP_SYS(sched_setscheduler),
    SCMP_SYS(shmget),      SCMP_SYS(msgget),
    SCMP_SYS(semget),      SCMP_SYS(mq_open),
};

/* Only UNIX, INET, INET6 and NETLINK (which asks for the host's addresses). */
static int refuse_sockets(scmp_filter_ctx ctx)
{
    int rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(socket), 1,
                              SCMP_A0(SCMP_CMP_GT, AF_NETLINK));
    for (uint64_t family = 0; family <= AF_NETLINK; family++)
        if (family != AF_UNIX && family != AF_INET && family != AF_INET6 &&
            family != AF_NETLINK)
            rc |= seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(socket), 1,
                                   SCMP_A0(SCMP_CMP_EQ, family));
    return rc;
}

static int own_seccomp(struct err *err)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    int rc = ctx == NULL ? -1 : refuse_sockets(ctx);
    for (size_t i = 0; ctx != NULL && i < sizeof(refused_calls) / sizeof(int); i++)
        rc |= seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), refused_calls[i], 0);
    /* Threads, as a resolver may want one; no processes. */
    if (rc == 0)
        rc = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), 1,
                              SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0));
    if (rc == 0)
        rc = seccomp_load(ctx);
    if (ctx != NULL)
        seccomp_release(ctx);
    return rc == 0 ? 0
                   : err_set(err, ERR_INTERNAL, "the front's seccomp filter: %d", rc);
}

int front_confine(const struct front_confine *c, struct err *err)
{
    if (c->uid == 0 || c->gid == 0)
        return err_set(err, ERR_INTERNAL, "a front must not be root");
    if (hide_all(c, err) != 0 || confine_user(c->uid, c->gid, err) != 0)
        return -1;
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return err_sys(err, errno, "prctl");
    if (confine_landlock(err) != 0 || own_landlock(c, err) != 0)
        return -1;
    if (confine_seccomp(err) != 0)
        return -1;
    return own_seccomp(err);
}
