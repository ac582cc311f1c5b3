/* enforce_escape: a hostile program in a job, and the same program with one layer or
 * both left out, so that every refusal is known to be the doing of that layer. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"
#include "tests/system/enforce_escape_try.h"
#include "tests/system/enforce_rig.h"

#define LISTENERS 4

/* What each attempt must come to: in a job; with the gate but no sandbox, as root; with
 * neither. "*": any refusal. Where the kernel was built without a feature, what it says
 * without either layer (ENOSYS, ENODEV…) is as good as OPEN. */
static const struct {
    const char *name, *job, *gate, *neither;
} rows[] = {
    {"open", "EACCES", "EPERM", "OPEN"}, /* all but granted nodes are on nodev mounts */
    {"mknod", "EPERM", "EPERM", "OPEN"},
    {"mknod_shm", "EPERM", "EPERM", "*"}, /* the host's may be nodev */
    {"mount", "EPERM", "EPERM", "OPEN"},
    {"remount", "EPERM", "EPERM", "OPEN"},
    {"umount", "EPERM", "EPERM", "OPEN"},
    {"open_tree", "EPERM", "EPERM", "OPEN"},
    {"chroot", "EPERM", "EPERM", "OPEN"},
    {"unshare", "EPERM", "EPERM", "OPEN"},
    {"clone_userns", "EPERM", "EPERM", "OPEN"},
    {"clone3_userns", "ENOSYS", "EPERM", "OPEN"},
    {"bpf_load", "EPERM", "OPEN", "OPEN"},
    {"cgroup_move", "ENOENT", "OPEN", "OPEN"},
    {"cgroup_mount", "EPERM", "OPEN", "OPEN"},
    {"ptrace", "EPERM", "OPEN", "OPEN"},
    {"ptrace_init", "EPERM", "*", "*"}, /* the machine's may be protected */
    {"proc_fd", "ENOENT", "EPERM", "OPEN"},
    {"proc_root", "EACCES", "EPERM", "OPEN"},
    {"proc_mem", "EACCES", "OPEN", "OPEN"},
    {"setns", "EPERM", "EPERM", "OPEN"},
    {"pidfd_getfd", "EPERM", "OPEN", "OPEN"},
    {"scm_abstract", "EPERM", "OPEN", "OPEN"}, /* landlock's doing */
    {"scm_tmp", "ENOENT", "OPEN", "OPEN"},
    {"scm_run", "ENOENT", "OPEN", "OPEN"},
    {"scm_state", "ENOENT", "OPEN", "OPEN"},
    {"reopen", "EACCES", "EPERM", "OPEN"},
    {"handle", "EPERM", "EPERM", "OPEN"},
    {"handle_open", "EPERM", "OPEN", "OPEN"},
    {"io_uring", "EPERM", "EPERM", "OPEN"},
    {"keyctl", "EPERM", "OPEN", "OPEN"},
    {"perf", "EPERM", "OPEN", "OPEN"},
    {"userfaultfd", "EPERM", "OPEN", "OPEN"},
    {"core_pattern", "EACCES", "OPEN", "OPEN"},
    {"kill", "ESRCH", "OPEN", "OPEN"},
    {"detach", "EPERM", "OPEN", "*"}, /* without a gate there is nothing to detach */
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

struct scene { /* the world outside of the job */
    pid_t accomplice;
    char pid[16], abstract[48], sockets[48], *node, *cgroup, *elsewhere;
    char paths[LISTENERS - 1][160];
};

static int listen_at(const char *path, size_t len)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    memcpy(addr.sun_path, path, len);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&addr,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
                     0);
    ck_assert_int_eq(listen(fd, 8), 0);
    if (path[0] != '\0')
        (void)chmod(path, 0777);
    return fd;
}

static void pass(int listener, int held)
{
    int fd = accept(listener, NULL, NULL);
    char byte = 'x', space[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = space,
                         .msg_controllen = sizeof(space)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &held, sizeof(held));
    (void)sendmsg(fd, &msg, MSG_NOSIGNAL);
    close(fd);
}

/* Holds a device open and gives it to whoever can reach one of its sockets. */
static void __attribute__((noreturn)) accomplice(struct pollfd *fds)
{
    alarm(50);
    for (;;) {
        if (poll(fds, LISTENERS, -1) < 0)
            continue;
        for (int i = 0; i < LISTENERS; i++)
            if (fds[i].revents & POLLIN)
                pass(fds[i].fd, ESCAPE_HELD_FD);
    }
}

static void scene_make(struct scene *s)
{
    struct err err;
    struct pollfd fds[LISTENERS];
    const char *const dirs[] = {"/tmp", "/run", rig.state};
    char name[64] = "";
    snprintf(s->sockets, sizeof(s->sockets), "%s.sock", rig.base);
    snprintf(s->abstract, sizeof(s->abstract), "%s", rig.base);
    s->node = xasprintf("%s/gpu1", rig.nodes);
    s->cgroup = rig_cgroup("res1", NULL);
    s->elsewhere = rig_cgroup("elsewhere", NULL);
    rig_ok(cgroup_make(s->elsewhere, &err), &err);
    int len = snprintf(name + 1, sizeof(name) - 1, "%s", s->abstract);
    fds[0] = (struct pollfd){listen_at(name, (size_t)len + 1), POLLIN, 0};
    for (int i = 0; i < LISTENERS - 1; i++) {
        snprintf(s->paths[i], sizeof(s->paths[i]), "%s/%s", dirs[i], s->sockets);
        (void)unlink(s->paths[i]);
        fds[i + 1] =
            (struct pollfd){listen_at(s->paths[i], strlen(s->paths[i]) + 1), POLLIN, 0};
    }
    int held = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ck_assert_int_ge(held, 0);
    ck_assert_int_eq(dup2(held, ESCAPE_HELD_FD), ESCAPE_HELD_FD);
    s->accomplice = fork();
    if (s->accomplice == 0)
        accomplice(fds);
    snprintf(s->pid, sizeof(s->pid), "%d", (int)s->accomplice);
    close(held);
    close(ESCAPE_HELD_FD);
    for (int i = 0; i < LISTENERS; i++)
        close(fds[i].fd);
}

static void scene_done(struct scene *s)
{
    kill(s->accomplice, SIGKILL);
    (void)waitpid(s->accomplice, NULL, 0);
    for (int i = 0; i < LISTENERS - 1; i++)
        (void)unlink(s->paths[i]);
    free(s->node);
    free(s->cgroup);
    free(s->elsewhere);
}

static struct escape_args args_of(const struct scene *s)
{
    return (struct escape_args){s->node,   s->pid,    s->abstract, s->sockets,
                                rig.state, s->cgroup, s->elsewhere};
}

/* The value of "name=" in the output; NULL when it is not there. */
static char *value_of(const char *out, const char *name)
{
    size_t len = strlen(name);
    for (const char *p = out; p != NULL; p = strchr(p, '\n')) {
        p += *p == '\n';
        if (strncmp(p, name, len) == 0 && p[len] == '=')
            return xstrndup(p + len + 1, strcspn(p + len + 1, "\n"));
    }
    return NULL;
}

static bool as_expected(const char *got, const char *want)
{
    return strcmp(want, "*") == 0 || strcmp(got, want) == 0;
}

/* The kernel lacks it: no layer can be seen at work. */
static bool is_missing(const char *got)
{
    return strcmp(got, "ENOSYS") == 0 || strcmp(got, "EOPNOTSUPP") == 0 ||
           strcmp(got, "ENODEV") == 0;
}

static const struct scene *current;
static const char *out_path;

/* Runs the attempts in this process's surroundings, into a file. */
static int run_bare(const char *arg)
{
    struct escape_args args = args_of(current);
    (void)arg;
    if (chdir(rig.dir) < 0 || freopen(out_path, "w", stdout) == NULL)
        return 1;
    return escape_try_all(&args);
}

static char *read_all(const char *path)
{
    struct err err;
    char *text;
    rig_ok(fsx_read(path, 65536, &text, NULL, &err), &err);
    return text;
}

START_TEST(test_a_job_cannot_escape)
{
    struct scene s;
    rig_lease("res1", 0, 50000);
    scene_make(&s);
    char *out = rig_run("res1", "j1", 0,
                        (const char *const[]){RIG_PROBE, "escape", s.node, s.pid,
                                              s.abstract, s.sockets, rig.state,
                                              s.cgroup, s.elsewhere, NULL});
    for (size_t i = 0; i < ROWS; i++) {
        char *got = value_of(out, rows[i].name);
        ck_assert_msg(got != NULL, "%s is missing in: %s", rows[i].name, out);
        if (strcmp(rows[i].name, "scm_abstract") == 0 && rig_landlock() < 6)
            printf("scm_abstract: %s, this kernel's landlock has no scopes\n", got);
        else
            ck_assert_msg(as_expected(got, rows[i].job), "in a job, %s: %s, not %s",
                          rows[i].name, got, rows[i].job);
        free(got);
    }
    /* And the granted one opens: it is not that nothing works. */
    char *granted = rig_run(
        "res1", "j2", 0,
        (const char *const[]){RIG_PROBE, "probe", "open", "/dev/nvidia0", NULL});
    ck_assert_str_eq(granted, "/dev/nvidia0=ENXIO");
    free(granted);
    free(out);
    scene_done(&s);
    rig_end("res1");
}
END_TEST

/* The same attempts, as root on the host's whole file tree. */
static void check_bare(bool gated)
{
    struct scene s;
    struct err err;
    rig_lease("res1", 0, 50000);
    scene_make(&s);
    char *path = xasprintf("%s/out", rig.state), *other = rig_cgroup("bare", NULL);
    current = &s;
    out_path = path;
    rig_ok(cgroup_make(other, &err), &err);
    ck_assert_int_eq(rig_in_cgroup(gated ? s.cgroup : other, 0, run_bare, NULL), 0);
    char *out = read_all(path);
    for (size_t i = 0; i < ROWS; i++) {
        const char *want = gated ? rows[i].gate : rows[i].neither;
        char *got = value_of(out, rows[i].name);
        ck_assert_msg(got != NULL, "%s is missing in: %s", rows[i].name, out);
        ck_assert_msg(as_expected(got, want) || is_missing(got), "%s, %s: %s, not %s",
                      gated ? "with the gate alone" : "with neither", rows[i].name, got,
                      want);
        free(got);
    }
    free(out);
    free(other);
    free(path);
    scene_done(&s);
}

START_TEST(test_the_gate_alone)
{
    check_bare(true);
}
END_TEST

START_TEST(test_without_gate_and_sandbox_all_of_it_works)
{
    check_bare(false);
}
END_TEST

/* A row that no control shows to work would test nothing; those excepted have a twin.
 */
START_TEST(test_every_attempt_can_succeed)
{
    for (size_t i = 0; i < ROWS; i++)
        ck_assert_msg(strcmp(rows[i].gate, "OPEN") == 0 ||
                          strcmp(rows[i].neither, "OPEN") == 0 ||
                          strcmp(rows[i].name, "mknod_shm") == 0 ||
                          strcmp(rows[i].name, "ptrace_init") == 0,
                      "%s", rows[i].name);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("enforce_escape");
    rig_add(s, "job", test_a_job_cannot_escape);
    rig_add(s, "gate_alone", test_the_gate_alone);
    rig_add(s, "neither", test_without_gate_and_sandbox_all_of_it_works);
    rig_add(s, "table", test_every_attempt_can_succeed);
    return s;
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "escape") == 0)
        return escape_main(argc - 1, argv + 1);
    return rig_main(argc, argv, suite);
}
