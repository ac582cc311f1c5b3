/* front_selftest: see front_confine.h. The parent stands for the warden: root, with a
 * secret in its memory. The child is confined exactly as a front is and then tries, one
 * after the other, what a front that was taken over would try first. */
#include "client/agent/front_confine.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/lib/xalloc.h"

static const char secret[] = "a secret in the memory of the warden";
static pid_t warden;
static const char *state;
static int dir_fd;

static int try_open(const char *path, int flags)
{
    return open(path, flags | O_CLOEXEC, 0600);
}

static int in_state(const char *name)
{
    char *path = xasprintf("%s/%s", state, name);
    int rc = try_open(path, O_RDONLY);
    free(path);
    return rc;
}

/* The directory it holds was opened when it was root, below all that hides others. */
static int beside(const char *name)
{
    return openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
}

static int of_warden(const char *name, int flags)
{
    char *path = xasprintf("/proc/%ld/%s", (long)warden, name);
    int rc = try_open(path, flags);
    free(path);
    return rc;
}

static int t_bpf(void)
{
    struct bpf_insn code[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = 1},
                              {.code = BPF_JMP | BPF_EXIT}};
    union bpf_attr a = {.prog_type = BPF_PROG_TYPE_SOCKET_FILTER,
                        .insn_cnt = 2,
                        .insns = (uint64_t)(uintptr_t)code,
                        .license = (uint64_t)(uintptr_t) "GPL"};
    return (int)syscall(SYS_bpf, BPF_PROG_LOAD, &a, sizeof(a));
}
static int t_mknod(void)
{
    return mknodat(dir_fd, "null", S_IFCHR | 0600, makedev(1, 3));
}
static int t_device(void)
{
    return try_open("/dev/null", O_RDWR);
}
static int t_nvidia(void)
{
    return try_open("/dev/nvidiactl", O_RDWR);
}
static int t_journal(void)
{
    return in_state("leases");
}
static int t_journal_beside(void)
{
    return beside("../leases");
}
static int t_receipt_key(void)
{
    return in_state("identity/receipt.key");
}
static int t_receipt_key_beside(void)
{
    return beside("../identity/receipt.key");
}
static int t_escape_root(void)
{
    return of_warden("root", O_RDONLY);
}
static int t_own_root(void)
{
    char *path = xasprintf("/proc/self/root%s/identity/receipt.key", state);
    int rc = try_open(path, O_RDONLY);
    free(path);
    return rc;
}
static int t_warden_fds(void)
{
    return of_warden("fd", O_RDONLY);
}
static int t_warden_mem(void)
{
    return of_warden("mem", O_RDWR);
}
static int t_warden_environ(void)
{
    return of_warden("environ", O_RDONLY);
}
static int t_vm_read(void)
{
    char got[sizeof(secret)];
    struct iovec to = {got, sizeof(got)};
    struct iovec from = {(void *)(uintptr_t)secret, sizeof(secret)};
    return (int)process_vm_readv(warden, &to, 1, &from, 1, 0);
}
static int t_ptrace(void)
{
    return (int)ptrace(PTRACE_ATTACH, warden, NULL, NULL);
}
static int t_kill(void)
{
    return kill(warden, 0);
}
static int t_pidfd(void)
{
    return (int)syscall(SYS_pidfd_open, warden, 0);
}
static int t_warden_netns(void)
{
    return of_warden("ns/net", O_RDONLY);
}
static int t_setns(void)
{
    int fd = try_open("/proc/self/ns/net", O_RDONLY);
    return fd < 0 ? -1 : setns(fd, CLONE_NEWNET);
}
static int t_unshare(void)
{
    return unshare(CLONE_NEWUSER);
}
static int t_clone_user(void)
{
    return (int)syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0);
}
static int t_mount(void)
{
    return mount("none", "/tmp", "tmpfs", 0, "");
}
static int t_umount(void)
{
    return umount2("/dev", MNT_DETACH);
}
static int t_handle(void)
{
    char room[sizeof(struct file_handle) + 128] = {0};
    struct file_handle *h = (struct file_handle *)room;
    h->handle_bytes = 8;
    h->handle_type = 1;
    return open_by_handle_at(dir_fd, h, O_RDONLY);
}
static int t_io_uring(void)
{
    char params[256] = {0};
    return (int)syscall(SYS_io_uring_setup, 4, params);
}
static int t_exec(void)
{
    char *const argv[] = {(char *)"true", NULL};
    return execv("/bin/true", argv);
}
static int t_fork(void)
{
    return (int)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}
static int t_root_again(void)
{
    return setuid(0);
}
static int t_packet(void)
{
    return socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
}
static int t_raw(void)
{
    return socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP);
}
static int t_cgroups(void)
{
    return try_open("/sys/fs/cgroup", O_RDONLY | O_DIRECTORY) < 0
               ? -1
               : try_open("/sys/fs/cgroup/cgroup.procs", O_RDWR);
}
static int t_home(void)
{
    return try_open("/root/.bashrc", O_RDONLY);
}
static int t_etc(void)
{
    return try_open("/etc/shadow", O_RDONLY);
}
static int t_write(void)
{
    return try_open("/etc/neargpu-front-was-here", O_RDWR | O_CREAT);
}

static const struct {
    const char *name;
    int (*attempt)(void);
} attempts[] = {
    {"load a bpf program", t_bpf},
    {"make a device node", t_mknod},
    {"open /dev/null", t_device},
    {"open /dev/nvidiactl", t_nvidia},
    {"read the journal", t_journal},
    {"read the journal beside its own directory", t_journal_beside},
    {"read the receipt key", t_receipt_key},
    {"read the receipt key beside its own directory", t_receipt_key_beside},
    {"read the receipt key by /proc/self/root", t_own_root},
    {"open the warden's root directory", t_escape_root},
    {"list the warden's descriptors", t_warden_fds},
    {"open the warden's memory", t_warden_mem},
    {"read the warden's environment", t_warden_environ},
    {"read the warden's memory", t_vm_read},
    {"ptrace the warden", t_ptrace},
    {"signal the warden", t_kill},
    {"get a pidfd of the warden", t_pidfd},
    {"open the warden's network namespace", t_warden_netns},
    {"setns", t_setns},
    {"unshare a user namespace", t_unshare},
    {"clone into a user namespace", t_clone_user},
    {"mount", t_mount},
    {"unmount what hides /dev", t_umount},
    {"open by handle", t_handle},
    {"set up an io_uring", t_io_uring},
    {"execute a program", t_exec},
    {"fork", t_fork},
    {"become root again", t_root_again},
    {"open a packet socket", t_packet},
    {"open a raw socket", t_raw},
    {"reach cgroups", t_cgroups},
    {"read root's files", t_home},
    {"read /etc/shadow", t_etc},
    {"write below /etc", t_write},
};

/* What a front needs has to go on working, or a refusal of everything would pass. */
static int check_able(void)
{
    int sock = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int file = openat(dir_fd, "selftest", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    int etc = try_open("/etc/hosts", O_RDONLY);
    int bad = (sock < 0) + (file < 0) + (unlinkat(dir_fd, "selftest", 0) != 0) +
              (etc < 0) + (if_nametoindex("lo") == 0);
    printf("%s: sockets, its own directory, /etc/hosts, the host's interfaces\n",
           bad == 0 ? "has" : "LACKS");
    return bad;
}

static void __attribute__((noreturn)) confined(uid_t uid, gid_t gid)
{
    json_t *hide = json_pack("[s]", state);
    struct front_confine c = {
        .uid = uid, .gid = gid, .dir_fd = dir_fd, .ca_fd = -1, .hide = hide};
    struct err err;
    int bad = 0;
    if (front_confine(&c, &err) != 0) {
        printf("not confined: %s\n", err.text);
        (void)fflush(stdout);
        _exit(1);
    }
    for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++) {
        errno = 0;
        bool refused = attempts[i].attempt() < 0;
        printf("%s: %s", refused ? "refused" : "ALLOWED", attempts[i].name);
        printf(refused ? " (%s)\n" : "\n", strerror(errno));
        bad += !refused;
    }
    bad += check_able();
    (void)fflush(stdout);
    _exit(bad == 0 ? 0 : 1);
}

int front_selftest(const char *state_dir, uid_t uid, gid_t gid)
{
    char *dir = xasprintf("%s/front", state_dir);
    int status = -1;
    state = state_dir;
    warden = getpid();
    dir_fd = open(dir, O_PATH | O_CLOEXEC);
    free(dir);
    if (dir_fd < 0 || fchownat(dir_fd, "", uid, gid, AT_EMPTY_PATH) < 0) {
        printf("%s/front: %s\n", state_dir, strerror(errno));
        return 1;
    }
    (void)fflush(stdout);
    pid_t pid = fork();
    if (pid == 0)
        confined(uid, gid);
    while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    close(dir_fd);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
