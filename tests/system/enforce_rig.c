/* enforce_rig: see enforce_rig.h. */
#include "tests/system/enforce_rig.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/agent/deadline.h"
#include "client/agent/keeper.h"
#include "client/lib/clock.h"
#include "client/lib/frame.h"
#include "client/lib/fsx.h"
#include "client/lib/log.h"
#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"
#include "tests/system/enforce_probe.h"

struct rig rig;

int64_t rig_now(void)
{
    return clock_boot_us();
}

void rig_pause_ms(int ms)
{
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) == EINTR)
        ;
}

struct journal *rig_journal(void)
{
    struct err err;
    if (rig.journal == NULL)
        rig_ok(journal_open(rig.state, &rig.journal, &err), &err);
    return rig.journal;
}

char *rig_lease_dir(const char *id)
{
    return xasprintf("%s/leases/%s", rig.state, id);
}

char *rig_cgroup(const char *id, const char *job)
{
    return cgroup_path(rig.mounts.v2, rig.base, id, job);
}

static void open_gate(const char *id, int minor, int64_t deadline)
{
    struct err err;
    struct devprog_rule rule = {'c', RIG_MAJOR, (uint32_t)minor, 3};
    struct enforce_lease lease = {.id = id,
                                  .devices = &rule,
                                  .device_count = minor >= 0 ? 1 : 0,
                                  .deadline_boot_us = deadline,
                                  .pids_max = 64};
    rig_ok(rig.enforce->ops->open(rig.enforce, &lease, &err), &err);
}

static void journal_put(const char *id, int minor, int64_t deadline)
{
    struct err err;
    static struct journal_lease l;
    memset(&l, 0, sizeof(l));
    snprintf(l.id, sizeof(l.id), "%s", id);
    snprintf(l.tenant, sizeof(l.tenant), "tenant-a");
    snprintf(l.boot_id, sizeof(l.boot_id), "%s", rig.boot_id);
    snprintf(l.on_lost, sizeof(l.on_lost), "run_to_end");
    l.state = LEASE_READY;
    l.epoch = 1;
    l.deadline_boot_us = deadline;
    l.pids_max = 64;
    if (minor >= 0) {
        snprintf(l.gpus[0], sizeof(l.gpus[0]), "GPU-%d", minor);
        l.gpu_count = 1;
        l.rules[0] = (struct devprog_rule){'c', RIG_MAJOR, (uint32_t)minor, 3};
        l.rule_count = 1;
    }
    rig_ok(journal_lease_write(rig_journal(), &l, &err), &err);
}

static void copy_self(const char *to)
{
    int in = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0755);
    ck_assert(in >= 0 && out >= 0);
    char block[65536];
    ssize_t n;
    while ((n = read(in, block, sizeof(block))) > 0)
        ck_assert_int_eq(write(out, block, (size_t)n), n);
    fchmod(out, 0755);
    close(in);
    close(out);
}

void rig_lease(const char *id, int minor, int life_ms)
{
    int64_t deadline = rig_now() + life_ms * INT64_C(1000);
    journal_put(id, minor, deadline);
    open_gate(id, minor, deadline);
    char *dir = rig_lease_dir(id), *work = xasprintf("%s/work", dir);
    char *probe = xasprintf("%s/probe", work);
    ck_assert(mkdir(work, 0700) == 0 || errno == EEXIST);
    /* One copy for all leases; the work directory is on the same file system. */
    char *shared = xasprintf("%s/probe", rig.dir);
    if (access(shared, F_OK) != 0)
        copy_self(shared);
    ck_assert(link(shared, probe) == 0 || errno == EEXIST);
    free(shared);
    free(probe);
    free(work);
    free(dir);
}

void rig_extend(const char *id, int minor, int64_t deadline_boot_us)
{
    journal_put(id, minor, deadline_boot_us);
    open_gate(id, minor, deadline_boot_us);
}

bool rig_populated(const char *id)
{
    struct enforce_status st;
    struct err err;
    rig_ok(rig.enforce->ops->status(rig.enforce, id, &st, &err), &err);
    return st.populated;
}

int64_t rig_wait_empty(const char *id, int ms)
{
    int64_t from = rig_now();
    while (rig_populated(id)) {
        if (rig_now() - from > ms * INT64_C(1000))
            return -1;
        rig_pause_ms(1);
    }
    return rig_now() - from;
}

void rig_end(const char *id)
{
    struct err err;
    char *dir = rig_lease_dir(id);
    rig_ok(rig.enforce->ops->deny(rig.enforce, id, &err), &err);
    rig_ok(rig.enforce->ops->kill(rig.enforce, id, &err), &err);
    ck_assert_msg(rig_wait_empty(id, 5000) >= 0, "lease %s cannot be emptied", id);
    rig_ok(launch_close(dir, &err), &err);
    rig_ok(rig.enforce->ops->close(rig.enforce, id, &err), &err);
    rig_ok(journal_lease_remove(rig_journal(), id, &err), &err);
    free(dir);
}

static char **dup_list(const char *const *list)
{
    size_t n = 0;
    while (list[n] != NULL)
        n++;
    char **out = xcalloc(n + 1, sizeof(*out));
    for (size_t i = 0; i < n; i++)
        out[i] = xstrdup(list[i]);
    return out;
}

struct launch_spec rig_spec(const char *lease, const char *job, int minor,
                            const char *const *argv)
{
    struct launch_spec s = {.lease = xstrdup(lease),
                            .job = xstrdup(job),
                            .base = xstrdup(rig.base),
                            .argv = dup_list(argv),
                            .uid = LAUNCH_UID,
                            .gid = LAUNCH_UID};
    if (minor >= 0) {
        s.nodes = xcalloc(1, sizeof(*s.nodes));
        s.nodes[0] =
            (struct launch_node){xasprintf("%s/gpu%d", rig.nodes, minor),
                                 xstrdup("nvidia0"), RIG_MAJOR, (uint32_t)minor};
        s.node_count = 1;
    }
    return s;
}

int rig_start_spec(const struct launch_spec *spec, struct err *err)
{
    char *dir = rig_lease_dir(spec->lease);
    int rc = launch_start(dir, spec, NULL, err);
    free(dir);
    return rc;
}

int rig_start(const char *lease, const char *job, int minor, const char *const *argv,
              struct err *err)
{
    struct launch_spec s = rig_spec(lease, job, minor, argv);
    int rc = rig_start_spec(&s, err);
    launch_spec_done(&s);
    return rc;
}

char *rig_output(const char *lease, const char *job, int64_t offset, int ms,
                 char **ret_x)
{
    struct err err;
    struct strbuf out = STRBUF_INIT, hello = STRBUF_INIT;
    struct frame_reader r;
    struct frame f;
    char *dir = rig_lease_dir(lease),
         *ask = xasprintf("{\"offset\":%ld}", (long)offset);
    int fd, got;
    *ret_x = NULL;
    rig_ok(launch_attach(dir, job, &fd, &err), &err);
    frame_put(&hello, 'a', ask, strlen(ask));
    ck_assert_int_eq(send(fd, hello.data, hello.len, MSG_NOSIGNAL), (int)hello.len);
    frame_reader_init(&r);
    int64_t until = rig_now() + ms * INT64_C(1000);
    for (;;) {
        char block[65536];
        struct pollfd p = {fd, POLLIN, 0};
        int left = (int)((until - rig_now()) / 1000);
        if (left <= 0 || poll(&p, 1, left) <= 0)
            break;
        ssize_t n = recv(fd, block, sizeof(block), 0);
        if (n <= 0)
            break;
        frame_feed(&r, block, (size_t)n);
        while ((got = frame_next(&r, &f, &err)) == 1) {
            if (f.type == 'o' || f.type == 'e')
                strbuf_add(&out, f.data, f.len);
            else if (f.type == 'x' || f.type == 'E')
                *ret_x = xstrndup((const char *)f.data, f.len);
        }
        ck_assert_int_eq(got, 0);
    }
    frame_reader_done(&r);
    close(fd);
    strbuf_done(&hello);
    free(ask);
    free(dir);
    return out.data != NULL ? strbuf_steal(&out) : xstrdup("");
}

char *rig_run(const char *lease, const char *job, int minor, const char *const *argv)
{
    struct err err;
    char *x;
    rig_ok(rig_start(lease, job, minor, argv, &err), &err);
    char *out = rig_output(lease, job, 0, 10000, &x);
    ck_assert_msg(x != NULL, "job %s did not end; output: %s", job, out);
    free(x);
    size_t len = strlen(out);
    if (len > 0 && out[len - 1] == '\n')
        out[len - 1] = '\0';
    return out;
}

int rig_in_cgroup(const char *dir, uid_t uid, int (*fn)(const char *arg),
                  const char *arg)
{
    char *procs = xasprintf("%s/cgroup.procs", dir);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        int fd = open(procs, O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, "0", 1) != 1)
            _exit(126);
        close(fd);
        if (uid != 0 && (setgid(uid) != 0 || setuid(uid) != 0))
            _exit(126);
        _exit(fn(arg));
    }
    free(procs);
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int rig_landlock(void)
{
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, 1 /* the version */);
    return abi > 0 ? (int)abi : 0;
}

int rig_open_errno(const char *path, int flags)
{
    int fd = open(path, flags | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return errno;
    close(fd);
    return 0;
}

static void rig_setup(void)
{
    struct err err;
    log_init("enforce-test", LOG_LVL_WARN);
    /* Not below /tmp: jobs must be able to see the nodes from outside. */
    snprintf(rig.dir, sizeof(rig.dir), "/srv/ngtest-XXXXXX");
    if (mkdtemp(rig.dir) == NULL) {
        fprintf(stderr, "skipped: no directory in /srv: %s\n", strerror(errno));
        exit(77);
    }
    chmod(rig.dir, 0755);
    snprintf(rig.state, sizeof(rig.state), "%s/state", rig.dir);
    snprintf(rig.nodes, sizeof(rig.nodes), "%s/nodes", rig.dir);
    snprintf(rig.base, sizeof(rig.base), "ngtest-%d", (int)getpid());
    mode_t mask = umask(0);
    if (mkdir(rig.nodes, 0755) < 0)
        abort();
    for (int i = 0; i < 8; i++) {
        char path[160];
        snprintf(path, sizeof(path), "%s/gpu%d", rig.nodes, i);
        if (mknod(path, S_IFCHR | 0666, makedev(RIG_MAJOR, (unsigned)i)) < 0) {
            fprintf(stderr, "mknod %s: %s\n", path, strerror(errno));
            exit(77);
        }
    }
    umask(mask);
    if (fsx_mkdirs(rig.state, 0700, &err) < 0 ||
        deadline_boot_id(rig.boot_id, &err) < 0 ||
        cgroup_find_mounts(&rig.mounts, &err) < 0 ||
        enforce_cgroup_new(rig.base, &rig.enforce, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(77);
    }
}

/* In the parent, after every test, also a failed or killed one: nothing of a test may
 * be there for the next. */
static void rig_sweep(void)
{
    const char *const mounts[] = {rig.mounts.v2, rig.mounts.v1_memory,
                                  rig.mounts.v1_pids, rig.mounts.v1_cpu};
    struct err err;
    char *all = cgroup_path(rig.mounts.v2, rig.base, NULL, NULL);
    char *ice = cgroup_path(RIG_FREEZER, rig.base, NULL, NULL);
    if (access(ice, F_OK) == 0)
        cgroup_try_write(ice, "freezer.state", "THAWED");
    for (int i = 0; i < 100; i++) {
        bool populated = false;
        if (access(all, F_OK) == 0 && cgroup_kill(all, &err) < 0)
            fprintf(stderr, "sweep: %s\n", err.text);
        if (cgroup_populated(all, &populated, &err) == 0 && !populated)
            break;
        rig_pause_ms(20);
    }
    free(all);
    if (cgroup_remove(ice, &err) < 0)
        fprintf(stderr, "sweep: %s\n", err.text);
    free(ice);
    for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
        if (mounts[i][0] == '\0')
            continue;
        char *dir = cgroup_path(mounts[i], rig.base, NULL, NULL);
        for (int k = 0; k < 50 && cgroup_remove(dir, &err) < 0; k++)
            rig_pause_ms(20);
        if (access(dir, F_OK) == 0)
            fprintf(stderr, "sweep: %s is left: %s\n", dir, err.text);
        free(dir);
    }
    if (fsx_remove_tree(rig.state, &err) < 0 || fsx_mkdirs(rig.state, 0700, &err) < 0)
        fprintf(stderr, "sweep: %s\n", err.text);
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
}

int rig_main(int argc, char **argv, Suite *(*suite)(void))
{
    if (argc > 1 && strcmp(argv[1], "keeper") == 0)
        return keeper_main(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "probe") == 0) {
        int rc = probe_main(argc - 1, argv + 1);
        fflush(stdout);
        _exit(rc); /* a leak checker at exit needs ptrace, which a job has not */
    }
    if (geteuid() != 0) {
        fprintf(stderr, "skipped: needs root\n");
        return 77;
    }
    /* Keepers whose launcher was killed come to us, not to a PID 1 that may not reap.
     */
    (void)prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
    /* As an agent started with groups: jobs must not have them. */
    static const gid_t groups[] = {0, 6};
    (void)setgroups(2, groups);
    signal(SIGPIPE, SIG_IGN); /* a reader that left must not keep us from cleaning up */
    rig_setup();
    SRunner *runner = srunner_create(suite());
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    rig_sweep();
    rig.enforce->ops->free(rig.enforce);
    struct err err;
    if (fsx_remove_tree(rig.dir, &err) < 0)
        fprintf(stderr, "%s\n", err.text);
    return failed == 0 ? 0 : 1;
}

void rig_add(Suite *suite, const char *name, const TTest *test)
{
    TCase *tc = tcase_create(name);
    tcase_set_timeout(tc, 60);
    tcase_add_unchecked_fixture(tc, NULL, rig_sweep);
    tcase_add_test(tc, test);
    suite_add_tcase(suite, tc);
}
