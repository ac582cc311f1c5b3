/* confine: see confine.h. */
#include "client/agent/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/landlock.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Newer than the headers of Debian 12 (Linux 6.1). Source: linux/landlock.h of 6.12. */
#define LL_SCOPE_ABSTRACT_UNIX_SOCKET (1ULL << 0)
#define LL_SCOPE_SIGNAL               (1ULL << 1)
struct ll_ruleset_attr {
    uint64_t handled_access_fs;
    uint64_t handled_access_net;
    uint64_t scoped;
};

void confine_fds(void)
{
    (void)close_range(3, UINT_MAX, CLOSE_RANGE_CLOEXEC);
}

static int bounding_set_empty(struct err *err)
{
    for (unsigned long cap = 0; cap < 64; cap++) {
        if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) != 1)
            continue;
        if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0)
            return err_sys(err, errno, "drop capability %lu", cap);
    }
    return 0;
}

static int capset_to(uint64_t keep, struct err *err)
{
    struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    for (int i = 0; i < 2; i++) {
        uint32_t half = (uint32_t)(keep >> (32 * i));
        data[i] = (struct __user_cap_data_struct){half, half, 0};
    }
    if (syscall(SYS_capset, &head, data) < 0)
        return err_sys(err, errno, "capset");
    return 0;
}

int confine_user(uid_t uid, gid_t gid, struct err *err)
{
    if (bounding_set_empty(err) < 0)
        return -1;
    if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 ||
        setresuid(uid, uid, uid) < 0)
        return err_sys(err, errno, "become uid %u gid %u", uid, gid);
    if (capset_to(0, err) < 0)
        return -1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return err_sys(err, errno, "no_new_privs");
    /* Only a bug gets past this line as root. */
    if (getuid() != uid || geteuid() != uid || setuid(0) == 0)
        return err_set(err, ERR_INTERNAL, "privileges were not dropped");
    return 0;
}

int confine_init(struct err *err)
{
    if (bounding_set_empty(err) < 0 || capset_to(1ULL << CAP_KILL, err) < 0)
        return -1;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
        prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return err_sys(err, errno, "prctl");
    return 0;
}

int confine_landlock(struct err *err)
{
    long abi =
        syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi < 1)
        return 0;
    struct ll_ruleset_attr attr = {.handled_access_fs = LANDLOCK_ACCESS_FS_MAKE_CHAR |
                                                        LANDLOCK_ACCESS_FS_MAKE_BLOCK};
    size_t size = sizeof(attr.handled_access_fs);
    /* Any file rule forbids renaming between directories unless REFER is granted. */
    if (abi >= 2)
        attr.handled_access_fs |= LANDLOCK_ACCESS_FS_REFER;
    if (abi >= 6) {
        attr.scoped = LL_SCOPE_ABSTRACT_UNIX_SOCKET | LL_SCOPE_SIGNAL;
        size = sizeof(attr);
    }
    int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, size, 0);
    if (ruleset < 0)
        return err_sys(err, errno, "landlock");
    int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), rc = 0;
    struct landlock_path_beneath_attr refer = {LANDLOCK_ACCESS_FS_REFER, root};
    if (root < 0 ||
        (abi >= 2 && syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH,
                             &refer, 0) < 0) ||
        syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
        rc = err_sys(err, errno, "landlock");
    if (root >= 0)
        close(root);
    close(ruleset);
    return rc;
}

/* Calls a job has no business with; most need privileges it does not have, and a
 * kernel bug in one of them must not be within its reach. */
static const int refused_calls[] = {
    SCMP_SYS(mount),
    SCMP_SYS(umount2),
    SCMP_SYS(pivot_root),
    SCMP_SYS(chroot),
    SCMP_SYS(move_mount),
    SCMP_SYS(open_tree),
    SCMP_SYS(fsopen),
    SCMP_SYS(fsconfig),
    SCMP_SYS(fsmount),
    SCMP_SYS(fspick),
    SCMP_SYS(mount_setattr),
    SCMP_SYS(setns),
    SCMP_SYS(unshare),
    SCMP_SYS(ptrace),
    SCMP_SYS(pidfd_getfd),
    SCMP_SYS(bpf),
    SCMP_SYS(kexec_load),
    SCMP_SYS(kexec_file_load),
    SCMP_SYS(init_module),
    SCMP_SYS(finit_module),
    SCMP_SYS(delete_module),
    SCMP_SYS(keyctl),
    SCMP_SYS(add_key),
    SCMP_SYS(request_key),
    SCMP_SYS(perf_event_open),
    SCMP_SYS(userfaultfd),
    SCMP_SYS(io_uring_setup),
    SCMP_SYS(io_uring_enter),
    SCMP_SYS(io_uring_register),
    SCMP_SYS(open_by_handle_at),
    SCMP_SYS(name_to_handle_at),
    SCMP_SYS(swapon),
    SCMP_SYS(swapoff),
    SCMP_SYS(reboot),
    SCMP_SYS(syslog),
    SCMP_SYS(acct),
    SCMP_SYS(quotactl),
    SCMP_SYS(quotactl_fd),
    SCMP_SYS(iopl),
    SCMP_SYS(ioperm),
    SCMP_SYS(settimeofday),
    SCMP_SYS(clock_settime),
    SCMP_SYS(clock_adjtime),
    SCMP_SYS(adjtimex),
    SCMP_SYS(sethostname),
    SCMP_SYS(setdomainname),
    SCMP_SYS(vhangup),
    SCMP_SYS(fanotify_init),
    SCMP_SYS(lookup_dcookie),
    SCMP_SYS(nfsservctl),
};

static int refuse_masked(scmp_filter_ctx ctx, int call, unsigned arg, uint64_t mask,
                         uint64_t value)
{
    return seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), call, 1,
                            SCMP_CMP(arg, SCMP_CMP_MASKED_EQ, mask, value));
}

static int seccomp_rules(scmp_filter_ctx ctx)
{
    int rc = 0;
    for (size_t i = 0; i < sizeof(refused_calls) / sizeof(refused_calls[0]); i++)
        rc |= seccomp_rule_add(ctx, SCMP_ACT_ERRNO(EPERM), refused_calls[i], 0);
    static const uint64_t namespaces[] = {CLONE_NEWUSER,  CLONE_NEWNS,  CLONE_NEWPID,
                                          CLONE_NEWNET,   CLONE_NEWIPC, CLONE_NEWUTS,
                                          CLONE_NEWCGROUP};
    for (size_t i = 0; i < sizeof(namespaces) / sizeof(namespaces[0]); i++)
        rc |= refuse_masked(ctx, SCMP_SYS(clone), 0, namespaces[i], namespaces[i]);
    /* Its flags lie in memory, where no filter can look: libc falls back to clone. */
    rc |= seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
    static const uint64_t kinds[] = {S_IFCHR, S_IFBLK};
    for (size_t i = 0; i < 2; i++) {
        rc |= refuse_masked(ctx, SCMP_SYS(mknod), 1, S_IFMT, kinds[i]);
        rc |= refuse_masked(ctx, SCMP_SYS(mknodat), 2, S_IFMT, kinds[i]);
    }
    /* Typing or pasting into somebody's terminal, and line disciplines, which load
     * modules of the kernel. Only 32 bits of the request count. */
    static const uint64_t requests[] = {TIOCSTI, TIOCLINUX, TIOCSETD};
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
        rc |= refuse_masked(ctx, SCMP_SYS(ioctl), 1, 0xffffffffULL, requests[i]);
    return rc;
}

int confine_seccomp(struct err *err)
{
    scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
    if (ctx == NULL)
        return err_set(err, ERR_INTERNAL, "seccomp: no memory");
    int rc = seccomp_rules(ctx);
    if (rc == 0)
        rc = seccomp_load(ctx);
    seccomp_release(ctx);
    if (rc != 0)
        return err_set(err, ERR_INTERNAL, "seccomp filter refused (%d)", rc);
    return 0;
}
