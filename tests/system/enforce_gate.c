/* enforce_gate: the device gate on the real kernel. Processes enter the lease's cgroup
 * directly, with the host's whole file tree, so that nothing but the gate stands
 * between them and a node. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/lib/xalloc.h"
#include "tests/system/enforce_rig.h"

static int open_rdwr(const char *path)
{
    return rig_open_errno(path, O_RDWR);
}

static int open_rdonly(const char *path)
{
    return rig_open_errno(path, O_RDONLY);
}

START_TEST(test_granted_opens_and_others_do_not)
{
    rig_lease("res1", 3, 20000);
    char *dir = rig_cgroup("res1", NULL);
    for (int i = 0; i < 8; i++) {
        char *node = xasprintf("%s/gpu%d", rig.nodes, i);
        ck_assert_int_eq(rig_in_cgroup(dir, 0, open_rdwr, node),
                         i == 3 ? ENXIO : EPERM);
        ck_assert_int_eq(rig_in_cgroup(dir, 0, open_rdonly, node),
                         i == 3 ? ENXIO : EPERM);
        ck_assert_int_eq(rig_open_errno(node, O_RDWR), ENXIO); /* outside: no gate */
        free(node);
    }
    ck_assert_int_eq(rig_in_cgroup(dir, 0, open_rdwr, "/dev/null"), 0);
    ck_assert_int_eq(rig_in_cgroup(dir, 0, open_rdonly, "/dev/urandom"), 0);
    ck_assert_int_eq(rig_in_cgroup(dir, 0, open_rdonly, "/dev/kmsg"), EPERM);
    free(dir);
}
END_TEST

START_TEST(test_another_path_is_no_way_round)
{
    rig_lease("res1", 0, 20000);
    char *dir = rig_cgroup("res1", NULL), *lease = rig_lease_dir("res1");
    char *node = xasprintf("%s/gpu1", rig.nodes);
    char *hard = xasprintf("%s/work/gpu1", lease), *soft = xasprintf("%s/l", rig.dir);
    char *bound = xasprintf("%s/bound", rig.dir);
    ck_assert_int_eq(link(node, hard), 0);
    ck_assert_int_eq(symlink(node, soft), 0);
    int fd = open(bound, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    close(fd);
    ck_assert_int_eq(mount(node, bound, NULL, MS_BIND, NULL), 0);
    ck_assert_int_eq(rig_in_cgroup(dir, 0, open_rdwr, hard), EPERM);
    ck_assert_int_eq(rig_in_cgroup(dir, 0, open_rdwr, soft), EPERM);
    ck_assert_int_eq(rig_in_cgroup(dir, 0, open_rdwr, bound), EPERM);
    umount2(bound, MNT_DETACH);
    /* In a job the work directory is nodev as well: EACCES comes before the gate. */
    char *out = rig_run("res1", "j1", 0,
                        (const char *const[]){RIG_PROBE, "probe", "open",
                                              "/run/neargpu/work/gpu1", NULL});
    ck_assert_str_eq(out, "/run/neargpu/work/gpu1=EACCES");
    free(out);
    free(bound);
    free(soft);
    free(hard);
    free(node);
    free(lease);
    free(dir);
    rig_end("res1");
}
END_TEST

static int make_node(const char *path)
{
    int rc = mknod(path, S_IFCHR | 0600, makedev(RIG_MAJOR, 3)) < 0 ? errno : 0;
    (void)unlink(path);
    return rc;
}

START_TEST(test_own_node_cannot_be_made)
{
    rig_lease("res1", 3, 20000);
    char *dir = rig_cgroup("res1", NULL), *path = xasprintf("%s/own", rig.dir);
    ck_assert_int_eq(make_node(path), 0); /* outside it works */
    ck_assert_int_eq(rig_in_cgroup(dir, 0, make_node, path), EPERM);
    free(path);
    free(dir);
}
END_TEST

/* What a hostile job does: opens its own cgroup directory and detaches the program. */
static int detach(const char *dir)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    attr.target_fd = (uint32_t)fd;
    attr.attach_type = BPF_CGROUP_DEVICE;
    return syscall(SYS_bpf, BPF_PROG_DETACH, &attr, sizeof(attr)) < 0 ? errno : 0;
}

static int detach_in_user_namespace(const char *dir)
{
    if (unshare(CLONE_NEWUSER) < 0)
        return 125;
    return detach(dir);
}

/* The wrong way of attaching, as a control. */
static void attach_with_flags_0(const char *dir)
{
    union bpf_attr attr;
    struct devprog prog;
    devprog_build_deny(&prog);
    memset(&attr, 0, sizeof(attr));
    attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attr.insns = (uint64_t)(uintptr_t)prog.insns;
    attr.insn_cnt = (uint32_t)prog.count;
    attr.license = (uint64_t)(uintptr_t) "Dual MIT/GPL";
    int fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));
    ck_assert_int_ge(fd, 0);
    memset(&attr, 0, sizeof(attr));
    int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    attr.target_fd = (uint32_t)dir_fd;
    attr.attach_bpf_fd = (uint32_t)fd;
    attr.attach_type = BPF_CGROUP_DEVICE;
    ck_assert_int_eq(syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof(attr)), 0);
    close(fd);
    close(dir_fd);
}

START_TEST(test_a_job_cannot_detach_the_gate)
{
    struct err err;
    rig_lease("res1", 3, 20000);
    char *dir = rig_cgroup("res1", NULL), *weak = rig_cgroup("weak", NULL);
    char *node = xasprintf("%s/gpu1", rig.nodes);
    ck_assert_int_ne(rig_in_cgroup(dir, 65534, detach, dir), 0);
    ck_assert_int_ne(rig_in_cgroup(dir, 65534, detach_in_user_namespace, dir), 0);
    ck_assert_int_eq(rig_in_cgroup(dir, 65534, open_rdwr, node), EPERM);
    /* The same attack on the same kernel opens a gate attached with flags 0. */
    rig_ok(cgroup_make(weak, &err), &err);
    attach_with_flags_0(weak);
    ck_assert_int_eq(rig_in_cgroup(weak, 65534, open_rdwr, node), EPERM);
    ck_assert_int_eq(rig_in_cgroup(weak, 65534, detach, weak), 0);
    ck_assert_int_eq(rig_in_cgroup(weak, 65534, open_rdwr, node), ENXIO);
    attach_with_flags_0(weak);
    ck_assert_int_eq(rig_in_cgroup(weak, 65534, open_rdwr, node), EPERM);
    ck_assert_int_eq(rig_in_cgroup(weak, 65534, detach_in_user_namespace, weak), 0);
    ck_assert_int_eq(rig_in_cgroup(weak, 65534, open_rdwr, node), ENXIO);
    free(node);
    free(weak);
    free(dir);
}
END_TEST

START_TEST(test_the_largest_gate_loads)
{
    struct err err;
    static struct devprog_rule rules[DEVPROG_RULES_MAX];
    size_t base;
    (void)devprog_base_rules(&base);
    struct enforce_lease lease = {.id = "res1",
                                  .devices = rules,
                                  .device_count = DEVPROG_RULES_MAX - base,
                                  .deadline_boot_us = rig_now() + 20000000};
    for (size_t i = 0; i < lease.device_count; i++)
        rules[i] = (struct devprog_rule){'c', RIG_MAJOR, (uint32_t)(1000 + i), 3};
    rules[lease.device_count - 1].minor = 7;
    rig_ok(rig.enforce->ops->open(rig.enforce, &lease, &err), &err);
    char *dir = rig_cgroup("res1", NULL), *last = xasprintf("%s/gpu7", rig.nodes);
    char *other = xasprintf("%s/gpu6", rig.nodes);
    ck_assert_int_eq(rig_in_cgroup(dir, 0, open_rdwr, last), ENXIO);
    ck_assert_int_eq(rig_in_cgroup(dir, 0, open_rdwr, other), EPERM);
    lease.device_count++;
    ck_assert_int_eq(rig.enforce->ops->open(rig.enforce, &lease, &err), -1);
    ck_assert_int_eq(err.code, ERR_TOO_LARGE);
    free(other);
    free(last);
    free(dir);
}
END_TEST

static char *retry_node;

/* Opens until it is refused; exit status: ms after the deadline in *arg, at most 125.
 */
static int refused_after_ms(const char *arg)
{
    int64_t deadline = strtoll(arg, NULL, 10), before = 0;
    for (;;) {
        int64_t now = rig_now();
        int rc = rig_open_errno(retry_node, O_RDWR);
        if (rc == ENXIO) {
            before = now;
            continue;
        }
        if (rc != EPERM || before == 0)
            return 124;
        /* `before` is the start of an open that went through: it may not lie behind. */
        if (before >= deadline)
            return 123;
        int64_t late = (rig_now() - deadline) / 1000;
        return late > 120 ? 120 : late < 0 ? 122 : (int)late;
    }
}

START_TEST(test_opens_end_at_the_deadline_with_nobody_alive)
{
    /* No keeper, no lease-init; the "agent" (this test) only waits. */
    rig_lease("res1", 0, 300);
    struct journal_lease l;
    struct err err;
    rig_ok(journal_lease_read(rig_journal(), "res1", &l, &err), &err);
    char *dir = rig_cgroup("res1", NULL);
    char *arg = xasprintf("%ld", (long)l.deadline_boot_us);
    retry_node = xasprintf("%s/gpu0", rig.nodes);
    ck_assert_int_le(rig_in_cgroup(dir, 65534, refused_after_ms, arg), 20);
    ck_assert_int_eq(rig_in_cgroup(dir, 0, open_rdwr, "/dev/null"), EPERM);
    free(arg);
    free(dir);
}
END_TEST

static char *granted_node, *other_node, *denying, *denied;

static void touch(const char *path)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

/* Opens both without pause: the other one never goes through, the granted one always
 * until `denying` is there, and never once `denied` is. */
static int hammer(const char *arg)
{
    (void)arg;
    int64_t until = rig_now() + 20000000;
    int after = 0;
    for (long opens = 0; after < 50; opens++) {
        bool over = access(denied, F_OK) == 0;
        int other = rig_open_errno(other_node, O_RDWR);
        int granted = rig_open_errno(granted_node, O_RDWR);
        if (other != EPERM)
            return 1;
        if (granted != ENXIO && granted != EPERM)
            return 2;
        if (granted == EPERM && access(denying, F_OK) != 0)
            return 3;
        if (over && granted != EPERM)
            return 4;
        after += over;
        if (rig_now() > until)
            return 5;
    }
    return 0;
}

START_TEST(test_swapping_under_load_has_no_gap)
{
    struct err err;
    rig_lease("res1", 0, 20000);
    char *dir = rig_cgroup("res1", NULL);
    denying = xasprintf("%s/denying", rig.state);
    denied = xasprintf("%s/denied", rig.state);
    granted_node = xasprintf("%s/gpu0", rig.nodes);
    other_node = xasprintf("%s/gpu1", rig.nodes);
    pid_t pid = fork();
    if (pid == 0)
        _exit(rig_in_cgroup(dir, 0, hammer, NULL));
    while (!rig_populated("res1"))
        rig_pause_ms(1);
    for (int i = 0; i < 50; i++) {
        struct devprog_rule rule = {'c', RIG_MAJOR, 0, 3};
        struct enforce_lease lease = {.id = "res1",
                                      .devices = &rule,
                                      .device_count = 1,
                                      .deadline_boot_us = rig_now() + 20000000};
        rig_ok(rig.enforce->ops->open(rig.enforce, &lease, &err), &err);
    }
    touch(denying);
    rig_ok(rig.enforce->ops->deny(rig.enforce, "res1", &err), &err);
    touch(denied);
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "hammer: %d",
                  WEXITSTATUS(status));
    uint32_t count;
    bool multi;
    rig_ok(cgroup_gate_query(dir, &count, &multi, &err), &err);
    ck_assert_uint_eq(count, 1);
    ck_assert(multi);
    free(dir);
}
END_TEST

static int hold(const char *arg)
{
    (void)arg;
    rig_pause_ms(300);
    return 0;
}

START_TEST(test_status_and_close)
{
    struct err err;
    struct enforce_status st;
    const struct enforce_ops *ops = rig.enforce->ops;
    rig_ok(ops->status(rig.enforce, "res1", &st, &err), &err);
    ck_assert(!st.exists && !st.gated && !st.populated);
    rig_ok(ops->deny(rig.enforce, "res1", &err), &err); /* nothing there: fine */
    rig_ok(ops->kill(rig.enforce, "res1", &err), &err);
    rig_ok(ops->close(rig.enforce, "res1", &err), &err);
    rig_lease("res1", 0, 20000);
    char *dir = rig_cgroup("res1", NULL);
    pid_t pid = fork();
    if (pid == 0)
        _exit(rig_in_cgroup(dir, 0, hold, NULL));
    while (!rig_populated("res1"))
        rig_pause_ms(1);
    rig_ok(ops->status(rig.enforce, "res1", &st, &err), &err);
    ck_assert(st.exists && st.gated && st.populated);
    ck_assert_int_eq(ops->close(rig.enforce, "res1", &err), -1);
    ck_assert_int_eq(err.code, ERR_CONFLICT);
    char **ids;
    size_t count;
    rig_ok(ops->list(rig.enforce, &ids, &count, &err), &err);
    ck_assert_uint_eq(count, 1);
    ck_assert_str_eq(ids[0], "res1");
    free(ids[0]);
    free(ids);
    rig_ok(ops->kill(rig.enforce, "res1", &err), &err);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    ck_assert(rig_wait_empty("res1", 1000) >= 0);
    rig_ok(ops->close(rig.enforce, "res1", &err), &err);
    ck_assert_int_eq(access(dir, F_OK), -1);
    ck_assert_int_eq(
        ops->open(rig.enforce,
                  &(struct enforce_lease){.id = "../x", .deadline_boot_us = 1}, &err),
        -1);
    free(dir);
}
END_TEST

/* A process that cannot die (state D is made by the v1 freezer): kill() must come back
 * and status must go on saying that it is there; that is what quarantine stands on. */
START_TEST(test_frozen_process_stays_populated)
{
    struct err err;
    if (access(RIG_FREEZER "/cgroup.procs", F_OK) != 0)
        return;
    rig_lease("res1", 0, 20000);
    char *ice = cgroup_path(RIG_FREEZER, rig.base, NULL, NULL),
         *dir = rig_cgroup("res1", NULL);
    rig_ok(cgroup_make(ice, &err), &err);
    pid_t pid = fork();
    if (pid == 0) {
        if (cgroup_write(ice, "cgroup.procs", "0", &err) < 0)
            _exit(1);
        _exit(rig_in_cgroup(dir, 0, hold, NULL));
    }
    while (!rig_populated("res1"))
        rig_pause_ms(1);
    rig_ok(cgroup_write(ice, "freezer.state", "FROZEN", &err), &err);
    rig_ok(rig.enforce->ops->deny(rig.enforce, "res1", &err), &err);
    rig_ok(rig.enforce->ops->kill(rig.enforce, "res1", &err), &err);
    int64_t took = rig_wait_empty("res1", 300);
    rig_ok(cgroup_write(ice, "freezer.state", "THAWED", &err), &err);
    ck_assert_int_eq(took, -1);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    ck_assert_int_ge(rig_wait_empty("res1", 1000), 0);
    rig_ok(cgroup_remove(ice, &err), &err);
    free(ice);
    free(dir);
    rig_end("res1");
}
END_TEST

static size_t count_dir(const char *path)
{
    DIR *d = opendir(path);
    size_t n = 0;
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
        n++;
    if (d != NULL)
        closedir(d);
    return n;
}

/* Id of the program attached to the lease. */
static uint32_t program_of(const char *id)
{
    union bpf_attr attr;
    uint32_t ids[64] = {0};
    char *dir = rig_cgroup(id, NULL);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    memset(&attr, 0, sizeof(attr));
    attr.query.target_fd = (uint32_t)fd;
    attr.query.attach_type = BPF_CGROUP_DEVICE;
    attr.query.prog_ids = (uint64_t)(uintptr_t)ids;
    attr.query.prog_cnt = 64;
    ck_assert_int_eq(syscall(SYS_bpf, BPF_PROG_QUERY, &attr, sizeof(attr)), 0);
    ck_assert_uint_eq(attr.query.prog_cnt, 1);
    close(fd);
    free(dir);
    return ids[0];
}

static size_t programs_left(const uint32_t *ids, size_t count)
{
    size_t left = 0;
    for (size_t i = 0; i < count; i++) {
        union bpf_attr attr;
        memset(&attr, 0, sizeof(attr));
        attr.prog_id = ids[i];
        int fd = (int)syscall(SYS_bpf, BPF_PROG_GET_FD_BY_ID, &attr, sizeof(attr));
        left += fd >= 0;
        if (fd >= 0)
            close(fd);
    }
    return left;
}

static size_t count_children(void)
{
    char *path = xasprintf("/proc/%d/task/%d/children", (int)getpid(), (int)getpid());
    FILE *f = fopen(path, "r");
    size_t n = 0;
    long pid;
    while (f != NULL && fscanf(f, "%ld", &pid) == 1)
        n++;
    if (f != NULL)
        fclose(f);
    free(path);
    return n;
}

START_TEST(test_a_hundred_leases_leave_nothing)
{
    struct err err;
    (void)rig_journal();
    uint32_t programs[100];
    size_t fds = count_dir("/proc/self/fd");
    for (int i = 0; i < 100; i++) {
        char id[32];
        snprintf(id, sizeof(id), "res-%d", i);
        rig_lease(id, i % 8, 20000);
        programs[i] = program_of(id);
        if (i % 4 == 0) {
            char *out = rig_run(id, "j1", i % 8,
                                (const char *const[]){"/bin/echo", "hi", NULL});
            ck_assert_str_eq(out, "hi");
            free(out);
        } else if (i % 4 == 1) {
            rig_ok(rig_start(id, "j1", i % 8,
                             (const char *const[]){"/bin/sleep", "100", NULL}, &err),
                   &err);
        }
        rig_end(id);
    }
    ck_assert_uint_eq(count_dir("/proc/self/fd"), fds);
    for (int i = 0; i < 100 && count_children() > 0; i++) {
        rig_pause_ms(10); /* a keeper has let go of its lock before it is a zombie */
        launch_reap();
    }
    ck_assert_uint_eq(count_children(), 0);
    char *base = rig_cgroup(NULL, NULL), *keepers = rig_cgroup(CGROUP_KEEPERS, NULL);
    rig_ok(cgroup_remove(keepers, &err), &err);
    rig_ok(cgroup_remove(base, &err), &err); /* no lease's cgroup has a process left */
    /* Programs of removed cgroups are freed by a worker of the kernel. */
    for (int i = 0; i < 250 && programs_left(programs, 100) > 0; i++)
        rig_pause_ms(20);
    ck_assert_uint_eq(programs_left(programs, 100), 0);
    char *leases = xasprintf("%s/leases", rig.state);
    ck_assert_uint_eq(count_dir(leases), 2);
    free(leases);
    free(keepers);
    free(base);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("enforce_gate");
    rig_add(s, "granted", test_granted_opens_and_others_do_not);
    rig_add(s, "other_path", test_another_path_is_no_way_round);
    rig_add(s, "mknod", test_own_node_cannot_be_made);
    rig_add(s, "detach", test_a_job_cannot_detach_the_gate);
    rig_add(s, "largest", test_the_largest_gate_loads);
    rig_add(s, "deadline", test_opens_end_at_the_deadline_with_nobody_alive);
    rig_add(s, "swap", test_swapping_under_load_has_no_gap);
    rig_add(s, "status", test_status_and_close);
    rig_add(s, "frozen", test_frozen_process_stays_populated);
    rig_add(s, "leaks", test_a_hundred_leases_leave_nothing);
    return s;
}

int main(int argc, char **argv)
{
    return rig_main(argc, argv, suite);
}
