/* enforce_probe: see enforce_probe.h. */
#include "tests/system/enforce_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/lib/clock.h"

static const char *name_of(long rc)
{
    return rc >= 0 ? "OK" : strerrorname_np(errno);
}

static int probe_open(int argc, char **argv)
{
    for (int i = 0; i < argc; i++) {
        int fd = open(argv[i], O_RDWR | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
        printf("%s=%s\n", argv[i], name_of(fd));
        if (fd >= 0)
            close(fd);
    }
    return 0;
}

static int probe_mknod(void)
{
    printf("%s\n",
           name_of(mknod("/run/neargpu/work/own", S_IFCHR | 0666, makedev(242, 0))));
    return 0;
}

static int child_stack(void *arg)
{
    (void)arg;
    return 0;
}

static int probe_calls(void)
{
    static char stack[65536] __attribute__((aligned(16)));
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    printf("mount=%s\n", name_of(mount("none", "/tmp", "tmpfs", 0, NULL)));
    printf("umount=%s\n", name_of(umount2("/run", MNT_DETACH)));
    printf("chroot=%s\n", name_of(chroot("/tmp")));
    printf("unshare=%s\n", name_of(unshare(CLONE_NEWUSER)));
    printf("clone=%s\n", name_of(clone(child_stack, stack + sizeof(stack),
                                       CLONE_NEWUSER | SIGCHLD, NULL)));
    printf("clone3=%s\n", name_of(syscall(SYS_clone3, &attr, 64)));
    printf("setns=%s\n", name_of(setns(open("/proc/self/ns/net", O_RDONLY), 0)));
    printf("ptrace=%s\n", name_of(ptrace(PTRACE_ATTACH, 1, NULL, NULL)));
    printf("bpf=%s\n",
           name_of(syscall(SYS_bpf, BPF_PROG_GET_NEXT_ID, &attr, sizeof(attr))));
    printf("keyctl=%s\n", name_of(syscall(SYS_keyctl, 0, -3, 0, 0, 0)));
    printf("perf=%s\n", name_of(syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0)));
    printf("userfaultfd=%s\n", name_of(syscall(SYS_userfaultfd, 0)));
    printf("io_uring=%s\n", name_of(syscall(SYS_io_uring_setup, 1, &attr)));
    printf("handle=%s\n", name_of(syscall(SYS_open_by_handle_at, -1, &attr, 0)));
    printf("module=%s\n", name_of(syscall(SYS_init_module, "", 0, "")));
    printf("mknod=%s\n", name_of(mknod("/tmp/n", S_IFCHR | 0600, makedev(1, 3))));
    printf("mkblk=%s\n", name_of(mknod("/tmp/n", S_IFBLK | 0600, makedev(8, 0))));
    printf("mkfifo=%s\n", name_of(mkfifo("/tmp/f", 0600)));
    printf("tiocsti=%s\n", name_of(ioctl(0, TIOCSTI, "x")));
    printf("setuid=%s\n", name_of(setuid(0)));
    printf("kill1=%s\n", name_of(kill(1, SIGKILL)));
    return 0;
}

static void ignore_all(void)
{
    for (int s = 1; s < NSIG; s++)
        signal(s, SIG_IGN);
}

static int __attribute__((noreturn)) probe_stubborn(int n)
{
    ignore_all();
    for (int i = 0; i < n; i++) {
        if (fork() == 0) {
            setsid();
            if (fork() == 0)
                setsid();
            for (;;)
                pause();
        }
    }
    printf("ready\n");
    fflush(stdout);
    for (;;)
        pause();
}

static int probe_fork(void)
{
    int n = 0;
    for (; n < 100000; n++) {
        pid_t pid = fork();
        if (pid == 0)
            for (;;)
                pause();
        if (pid < 0)
            break;
    }
    printf("%d %s\n", n, strerrorname_np(errno));
    return 0;
}

static int probe_eat(long mib)
{
    for (long i = 0; i < mib; i++) {
        char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            return 1;
        memset(p, 1, 1 << 20);
    }
    printf("ate %ld\n", mib);
    return 0;
}

static int probe_retry(const char *path)
{
    struct timespec ms = {0, 1000000};
    for (;;) {
        int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0 && errno != ENXIO) {
            printf("%lld %s\n", (long long)clock_boot_us(), strerrorname_np(errno));
            fflush(stdout);
            return 0;
        }
        if (fd >= 0)
            close(fd);
        nanosleep(&ms, NULL);
    }
}

static int probe_abstract(const char *name)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int len = snprintf(addr.sun_path + 1, sizeof(addr.sun_path) - 1, "%s", name);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t size =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
    printf("%s\n", name_of(connect(fd, (struct sockaddr *)&addr, size)));
    return 0;
}

static int probe_whoami(void)
{
    char line[256];
    FILE *f = fopen("/proc/self/status", "r");
    while (f != NULL && fgets(line, sizeof(line), f) != NULL)
        if (strncmp(line, "Uid:", 4) == 0 || strncmp(line, "Gid:", 4) == 0 ||
            strncmp(line, "Groups:", 7) == 0 || strncmp(line, "Cap", 3) == 0 ||
            strncmp(line, "Seccomp:", 8) == 0 || strncmp(line, "NoNewPrivs:", 11) == 0)
            fputs(line, stdout);
    if (f != NULL)
        fclose(f);
    return 0;
}

int probe_main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    const char *arg = argc > 2 ? argv[2] : "0";
    if (strcmp(what, "open") == 0)
        return probe_open(argc - 2, argv + 2);
    if (strcmp(what, "calls") == 0)
        return probe_calls();
    if (strcmp(what, "mknod") == 0)
        return probe_mknod();
    if (strcmp(what, "stubborn") == 0)
        return probe_stubborn((int)strtol(arg, NULL, 10));
    if (strcmp(what, "fork") == 0)
        return probe_fork();
    if (strcmp(what, "eat") == 0)
        return probe_eat(strtol(arg, NULL, 10));
    if (strcmp(what, "retry") == 0)
        return probe_retry(arg);
    if (strcmp(what, "abstract") == 0)
        return probe_abstract(arg);
    if (strcmp(what, "whoami") == 0)
        return probe_whoami();
    fprintf(stderr, "probe: no such thing: %s\n", what);
    return 2;
}
