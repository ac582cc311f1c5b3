/* enforce_escape_try: see enforce_escape_try.h. Each attempt returns 0 or an errno. */
#include "tests/system/enforce_escape_try.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/io_uring.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

typedef int attempt_fn(const struct escape_args *a);

/* No driver answers the node's number: ENXIO is what an open that was let through says.
 */
static int reach(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0)
        return errno == ENXIO ? 0 : errno;
    close(fd);
    return 0;
}

static int is_held(int fd)
{
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return errno;
    return st.st_rdev == makedev(ESCAPE_HELD_MAJOR, ESCAPE_HELD_MINOR) ? 0 : EBADF;
}

static int granted(long rc)
{
    return rc < 0 ? errno : 0;
}

static int reach_fd(int fd)
{
    char path[40];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return reach(path);
}

static int try_open(const struct escape_args *a)
{
    return reach(a->node);
}

static int make_and_reach(const char *path)
{
    if (mknod(path, S_IFCHR | 0666, makedev(242, 1)) < 0)
        return errno;
    int rc = reach(path);
    (void)unlink(path);
    return rc;
}

static int try_mknod(const struct escape_args *a)
{
    (void)a;
    return make_and_reach("own");
}

static int try_mknod_shm(const struct escape_args *a)
{
    (void)a;
    return make_and_reach("/dev/shm/own");
}

/* A regular file cannot become a device, whatever its mode is set to. */
static int try_own_mounts(void)
{
    if (unshare(CLONE_NEWNS) < 0)
        return errno;
    return granted(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
}

static int try_mount(const struct escape_args *a)
{
    char path[512];
    (void)try_own_mounts(); /* refused to a job, spares the host without */
    (void)mkdir("m", 0700);
    int rc = granted(mount("/", "m", NULL, MS_BIND | MS_REC, NULL));
    snprintf(path, sizeof(path), "m%s", a->node);
    if (rc == 0)
        rc = reach(path);
    (void)umount2("m", MNT_DETACH);
    (void)rmdir("m");
    return rc;
}

static int try_remount(const struct escape_args *a)
{
    (void)try_own_mounts();
    if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL) < 0)
        return errno;
    return reach(a->node);
}

static int try_umount(const struct escape_args *a)
{
    (void)try_own_mounts();
    if (umount2("/run", MNT_DETACH) < 0 && errno != EINVAL)
        return errno;
    return reach(a->node);
}

static int try_open_tree(const struct escape_args *a)
{
    int fd = (int)syscall(SYS_open_tree, AT_FDCWD, a->node, 1u /* clone */);
    if (fd < 0)
        return errno;
    struct mount_attr attr = {.attr_clr = MOUNT_ATTR_NODEV | MOUNT_ATTR_RDONLY};
    if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
        return errno;
    return reach_fd(fd);
}

static int try_chroot(const struct escape_args *a)
{
    if (chroot("/") < 0)
        return errno;
    return reach(a->node);
}

static int try_unshare(const struct escape_args *a)
{
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
        return errno;
    return reach(a->node);
}

static int wait_for(long pid)
{
    int status = 0;
    if (pid < 0)
        return errno;
    if (waitpid((pid_t)pid, &status, 0) < 0)
        return errno;
    return WIFEXITED(status) ? WEXITSTATUS(status) : EINTR;
}

static int try_clone_userns(const struct escape_args *a)
{
    long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL);
    if (pid == 0)
        _exit(reach(a->node));
    return wait_for(pid);
}

static int try_clone3_userns(const struct escape_args *a)
{
    uint64_t args[8] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
    long pid = syscall(SYS_clone3, args, sizeof(args));
    if (pid == 0)
        _exit(reach(a->node));
    return wait_for(pid);
}

static long bpf(int cmd, union bpf_attr *attr)
{
    return syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

/* As root without a sandbox: find the program by query, detach it by its descriptor. */
static int try_detach(const struct escape_args *a)
{
    union bpf_attr attr;
    uint32_t ids[64] = {0};
    int dir = open(a->cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0) /* to see what the call itself says */
        dir = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    memset(&attr, 0, sizeof(attr));
    attr.query.target_fd = (uint32_t)dir;
    attr.query.attach_type = BPF_CGROUP_DEVICE;
    attr.query.prog_ids = (uint64_t)(uintptr_t)ids;
    attr.query.prog_cnt = 64;
    if (bpf(BPF_PROG_QUERY, &attr) < 0)
        return errno;
    memset(&attr, 0, sizeof(attr));
    attr.prog_id = ids[0];
    long prog = bpf(BPF_PROG_GET_FD_BY_ID, &attr);
    if (prog < 0)
        return errno;
    memset(&attr, 0, sizeof(attr));
    attr.target_fd = (uint32_t)dir;
    attr.attach_bpf_fd = (uint32_t)prog;
    attr.attach_type = BPF_CGROUP_DEVICE;
    if (bpf(BPF_PROG_DETACH, &attr) < 0)
        return errno;
    return reach(a->node);
}

static int try_bpf_load(const struct escape_args *a)
{
    (void)a;
    struct bpf_insn allow[] = {
        {.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 1},
        {.code = BPF_JMP | BPF_EXIT}};
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attr.insns = (uint64_t)(uintptr_t)allow;
    attr.insn_cnt = 2;
    attr.license = (uint64_t)(uintptr_t) "MIT";
    return granted(bpf(BPF_PROG_LOAD, &attr));
}

static int try_cgroup_move(const struct escape_args *a)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/cgroup.procs", a->elsewhere);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    if (write(fd, "0", 1) != 1)
        return errno;
    return reach(a->node);
}

static int try_cgroup_mount(const struct escape_args *a)
{
    (void)a;
    (void)try_own_mounts();
    (void)mkdir("c", 0700);
    int rc = granted(mount("none", "c", "cgroup2", 0, NULL));
    (void)umount2("c", MNT_DETACH);
    (void)rmdir("c");
    return rc;
}

static pid_t accomplice(const struct escape_args *a)
{
    return (pid_t)strtol(a->accomplice, NULL, 10);
}

static int try_ptrace(const struct escape_args *a)
{
    return granted(ptrace(PTRACE_SEIZE, accomplice(a), NULL, NULL));
}

static int try_ptrace_init(const struct escape_args *a)
{
    (void)a; /* the lease-init of a job, the machine's init without */
    return granted(ptrace(PTRACE_SEIZE, 1, NULL, NULL));
}

static int proc_of(const struct escape_args *a, const char *what, int flags)
{
    char path[80];
    snprintf(path, sizeof(path), "/proc/%s/%s", a->accomplice, what);
    return open(path, flags | O_CLOEXEC);
}

static int try_proc_fd(const struct escape_args *a)
{
    char what[20];
    snprintf(what, sizeof(what), "fd/%d", ESCAPE_HELD_FD);
    int fd = proc_of(a, what, O_RDONLY | O_NONBLOCK);
    return fd < 0 ? errno : is_held(fd);
}

/* The accomplice's file tree and memory, or where it cannot be seen, lease-init's. */
static int try_proc_root(const struct escape_args *a)
{
    char path[512];
    snprintf(path, sizeof(path), "/proc/%s/root%s", a->accomplice, a->node);
    int rc = reach(path);
    if (rc != ENOENT)
        return rc;
    snprintf(path, sizeof(path), "/proc/1/root%s", a->node);
    return reach(path);
}

static int try_proc_mem(const struct escape_args *a)
{
    int fd = proc_of(a, "mem", O_RDWR);
    return granted(fd >= 0 ? fd : open("/proc/1/mem", O_RDWR | O_CLOEXEC));
}

static int try_setns(const struct escape_args *a)
{
    int fd = proc_of(a, "ns/mnt", O_RDONLY);
    if (fd < 0)
        fd = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNS) < 0)
        return errno;
    return reach(a->node);
}

static int try_pidfd_getfd(const struct escape_args *a)
{
    int pidfd = (int)syscall(SYS_pidfd_open, accomplice(a), 0);
    if (pidfd < 0)
        pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (pidfd < 0)
        return errno;
    int fd = (int)syscall(SYS_pidfd_getfd, pidfd, ESCAPE_HELD_FD, 0);
    return fd < 0 ? errno : is_held(fd);
}

/* Connects and takes the descriptor that is sent. */
static int take_fd(const struct sockaddr_un *addr, socklen_t len)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), got = -1;
    if (fd < 0 || connect(fd, (const struct sockaddr *)addr, len) < 0)
        return errno;
    char byte, space[CMSG_SPACE(sizeof(int))];
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = space,
                         .msg_controllen = sizeof(space)};
    if (recvmsg(fd, &msg, 0) < 0)
        return errno;
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    if (c == NULL || c->cmsg_type != SCM_RIGHTS)
        return ENOMSG;
    memcpy(&got, CMSG_DATA(c), sizeof(got));
    return is_held(got);
}

static int try_scm_abstract(const struct escape_args *a)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int len = snprintf(addr.sun_path + 1, sizeof(addr.sun_path) - 1, "%s", a->abstract);
    return take_fd(
        &addr, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len));
}

static int take_at(const char *dir, const char *name)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%.60s/%.40s", dir, name);
    return take_fd(&addr, sizeof(addr));
}

static int try_scm_tmp(const struct escape_args *a)
{
    return take_at("/tmp", a->sockets);
}

static int try_scm_run(const struct escape_args *a)
{
    return take_at("/run", a->sockets);
}

static int try_scm_state(const struct escape_args *a)
{
    return take_at(a->state, a->sockets);
}

static int try_reopen(const struct escape_args *a)
{
    int fd = open(a->node, O_PATH | O_CLOEXEC);
    return fd < 0 ? errno : reach_fd(fd);
}

static int try_handle(const struct escape_args *a)
{
    struct {
        struct file_handle head;
        unsigned char bytes[128];
    } h = {.head = {.handle_bytes = sizeof(h.bytes)}};
    int mount_id;
    if (name_to_handle_at(AT_FDCWD, a->node, &h.head, &mount_id, 0) < 0)
        return errno;
    int root = open("/srv", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = open_by_handle_at(root, &h.head, O_RDWR | O_CLOEXEC);
    return fd >= 0 || errno == ENXIO ? 0 : errno;
}

static int try_handle_open(const struct escape_args *a)
{
    (void)a; /* the second half alone: handles can be guessed */
    struct {
        struct file_handle head;
        unsigned char bytes[8];
    } h = {.head = {.handle_bytes = 8, .handle_type = 1}};
    int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int fd = open_by_handle_at(root, &h.head, O_RDONLY | O_CLOEXEC);
    return fd >= 0 || errno == ESTALE ? 0 : errno;
}

/* One open through a ring: the kernel does it where no filter of calls can look. */
static int try_io_uring(const struct escape_args *a)
{
    struct io_uring_params p;
    memset(&p, 0, sizeof(p));
    int fd = (int)syscall(SYS_io_uring_setup, 1, &p);
    if (fd < 0)
        return errno;
    size_t ring = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
    size_t sq = p.sq_off.array + p.sq_entries * sizeof(uint32_t);
    char *rings = mmap(NULL, ring > sq ? ring : sq, PROT_READ | PROT_WRITE, MAP_SHARED,
                       fd, IORING_OFF_SQ_RING);
    struct io_uring_sqe *sqe = mmap(NULL, sizeof(*sqe), PROT_READ | PROT_WRITE,
                                    MAP_SHARED, fd, IORING_OFF_SQES);
    if (rings == MAP_FAILED || sqe == MAP_FAILED || !(p.features & 1))
        return ENOSYS;
    memset(sqe, 0, sizeof(*sqe));
    sqe->opcode = IORING_OP_OPENAT;
    sqe->fd = AT_FDCWD;
    sqe->addr = (uint64_t)(uintptr_t)a->node;
    sqe->open_flags = O_RDWR | O_NONBLOCK;
    *(uint32_t *)(void *)(rings + p.sq_off.array) = 0;
    __atomic_store_n((uint32_t *)(void *)(rings + p.sq_off.tail), 1, __ATOMIC_RELEASE);
    if (syscall(SYS_io_uring_enter, fd, 1, 1, 1 /* get events */, NULL, 0) < 0)
        return errno;
    int res = ((struct io_uring_cqe *)(void *)(rings + p.cq_off.cqes))->res;
    return res >= 0 || res == -ENXIO ? 0 : -res;
}

static int try_keyctl(const struct escape_args *a)
{
    (void)a;
    return granted(syscall(SYS_keyctl, 0 /* id of */, -3 /* session */, 1, 0, 0));
}

static int try_perf(const struct escape_args *a)
{
    (void)a;
    struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof(attr)};
    return granted(syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0));
}

static int try_userfaultfd(const struct escape_args *a)
{
    (void)a;
    return granted(syscall(SYS_userfaultfd, O_CLOEXEC));
}

static int try_core_pattern(const struct escape_args *a)
{
    (void)a; /* a program the kernel would run as root; only opened */
    return granted(open("/proc/sys/kernel/core_pattern", O_WRONLY | O_CLOEXEC));
}

static int try_kill(const struct escape_args *a)
{
    return granted(kill(accomplice(a), 0));
}

static const struct {
    const char *name;
    attempt_fn *fn;
} attempts[] = {
    {"open", try_open},
    {"mknod", try_mknod},
    {"mknod_shm", try_mknod_shm},
    {"mount", try_mount},
    {"remount", try_remount},
    {"umount", try_umount},
    {"open_tree", try_open_tree},
    {"chroot", try_chroot},
    {"unshare", try_unshare},
    {"clone_userns", try_clone_userns},
    {"clone3_userns", try_clone3_userns},
    {"bpf_load", try_bpf_load},
    {"cgroup_move", try_cgroup_move},
    {"cgroup_mount", try_cgroup_mount},
    {"ptrace", try_ptrace},
    {"ptrace_init", try_ptrace_init},
    {"proc_fd", try_proc_fd},
    {"proc_root", try_proc_root},
    {"proc_mem", try_proc_mem},
    {"setns", try_setns},
    {"pidfd_getfd", try_pidfd_getfd},
    {"scm_abstract", try_scm_abstract},
    {"scm_tmp", try_scm_tmp},
    {"scm_run", try_scm_run},
    {"scm_state", try_scm_state},
    {"reopen", try_reopen},
    {"handle", try_handle},
    {"handle_open", try_handle_open},
    {"io_uring", try_io_uring},
    {"keyctl", try_keyctl},
    {"perf", try_perf},
    {"userfaultfd", try_userfaultfd},
    {"core_pattern", try_core_pattern},
    {"kill", try_kill},
    {"detach", try_detach}, /* the last one: the gate may be gone after it */
};

int escape_try_all(const struct escape_args *args)
{
    for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++) {
        fflush(stdout);
        pid_t pid = fork();
        if (pid == 0)
            _exit(attempts[i].fn(args));
        int rc = wait_for(pid);
        printf("%s=%s\n", attempts[i].name, rc == 0 ? "OPEN" : strerrorname_np(rc));
    }
    fflush(stdout);
    return 0;
}

int escape_main(int argc, char **argv)
{
    if (argc < 8)
        return 2;
    struct escape_args args = {argv[1], argv[2], argv[3], argv[4],
                               argv[5], argv[6], argv[7]};
    return escape_try_all(&args);
}
