/* adopt: cgroups that others made, held to a lease: containers of a real runc on the
 * real kernel, with the agent's leases and a library that answers like NVIDIA's.
 *
 * The containers may open every device as far as runc is concerned (on hybrid systems
 * its own word on devices is the v1 controller's): what is refused to them, the lease's
 * gate refuses. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/agent/adopt.h"
#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"
#include "tests/system/enforce_agent.h"

#define A EA_ID("0a")
#define B EA_ID("0b")

static const char *const gpu_a[] = {"GPU-a", NULL}; /* minor 1 */
static const char *const gpu_b[] = {"GPU-b", NULL}; /* minor 0 */

/* A shell's exit status; its output is the test's. */
static int sh(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static int sh(const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    ck_assert_int_ge(vasprintf(&text, fmt, ap), 0);
    va_end(ap);
    pid_t pid = fork();
    if (pid == 0) {
        execl("/bin/sh", "sh", "-c", text, (char *)NULL);
        _exit(127);
    }
    int status = 0;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    free(text);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static void world(void)
{
    ea_nvml("gpu uuid=GPU-a name=H100 minor=1 pci=00000000:3B:00.0 total=81559 used=4\n"
            "gpu uuid=GPU-b name=H100 minor=0 pci=00000000:AF:00.0 total=81559 "
            "used=4\n");
    ea_node("nvidia0", RIG_MAJOR, 0);
    ea_node("nvidia1", RIG_MAJOR, 1);
    ea_node("memory", 1, 11); /* kmsg: a device that can be held open */
    ea_start();
}

/* Containers are named after the rig's base, which is this run's alone. */
static char *name_of(const char *suffix)
{
    return xasprintf("%s-%s", rig.base, suffix);
}

static char *cgroup_of(const char *suffix)
{
    return xasprintf("/%s-%s", rig.base, suffix);
}

static const char config[] =
    "{\"ociVersion\":\"1.0.2\",\"process\":{\"user\":{\"uid\":0,\"gid\":0},\"args\":["
    "\"/bin/sh\",\"-c\",\"%s\"],\"env\":[\"PATH=/usr/bin:/bin\"],\"cwd\":\"/\","
    "\"capabilities\":{\"bounding\":[\"CAP_SYSLOG\"],\"effective\":[\"CAP_SYSLOG\"],"
    "\"permitted\":[\"CAP_SYSLOG\"]}},"
    "\"root\":{\"path\":\"rootfs\"},\"mounts\":["
    "{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\"},"
    "{\"destination\":\"/dev\",\"type\":\"tmpfs\",\"source\":\"tmpfs\"},"
    "{\"destination\":\"/usr\",\"type\":\"bind\",\"source\":\"/usr\",\"options\":["
    "\"rbind\",\"ro\"]},"
    "{\"destination\":\"/t\",\"type\":\"bind\",\"source\":\"%s\",\"options\":["
    "\"rbind\",\"rw\"]}],"
    "\"linux\":{\"cgroupsPath\":\"/%s\",\"resources\":{\"devices\":[{\"allow\":true,"
    "\"access\":\"rwm\"}]},\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"mount\"},"
    "{\"type\":\"ipc\"}]}}";

/* A container that runs `script` (without quotes). */
static void start(const char *suffix, const char *script)
{
    struct err err;
    char *name = name_of(suffix), *dir = xasprintf("%s/c-%s", rig.dir, suffix);
    char *text = xasprintf(config, script, rig.dir, name);
    char *path = xasprintf("%s/config.json", dir);
    ck_assert_int_eq(sh("mkdir -p %s/rootfs/usr %s/rootfs/proc %s/rootfs/dev "
                        "%s/rootfs/t && cd %s/rootfs && for d in bin lib lib64; do "
                        "ln -sfn usr/$d $d; done",
                        dir, dir, dir, dir, dir),
                     0);
    rig_ok(fsx_write(path, text, strlen(text), 0600, &err), &err);
    ck_assert_int_eq(sh("cd %s && timeout 20 runc --root %s/runc run -d %s </dev/null "
                        ">%s/log 2>&1 || { cat %s/log; false; }",
                        dir, rig.dir, name, dir, dir),
                     0);
    free(path);
    free(text);
    free(dir);
    free(name);
}

/* What opening a node says inside a container: the shell's words end in strerror. */
static int open_inside(const char *suffix, const char *node)
{
    char *name = name_of(suffix);
    int rc = sh("timeout 20 runc --root %s/runc exec %s sh -c ': < /t/dev/%s' "
                ">%s/said 2>&1; grep -q 'No such device or address' %s/said && exit 6; "
                "grep -q 'not permitted' %s/said && exit 1; cat %s/said; exit 0",
                rig.dir, name, node, rig.dir, rig.dir, rig.dir, rig.dir);
    free(name);
    return rc; /* ENXIO 6, EPERM 1, 0: it opened */
}

static bool runs(const char *suffix)
{
    bool populated = false;
    char *dir = xasprintf("%s/%s-%s", rig.mounts.v2, rig.base, suffix);
    struct err err;
    rig_ok(cgroup_populated(dir, &populated, &err), &err);
    free(dir);
    return populated;
}

static bool is_frozen(const char *suffix)
{
    int rc = sh("grep -q 'frozen 1' %s/%s-%s/cgroup.events", rig.mounts.v2, rig.base,
                suffix);
    return rc == 0;
}

static int adopt(const char *id, const char *suffix, struct err *err)
{
    const char *step;
    char *path = cgroup_of(suffix);
    int rc = leases_adopt(ea.leases, id, path, 0, &step, err);
    free(path);
    return rc;
}

static void stop(const char *suffix)
{
    char *name = name_of(suffix);
    sh("runc --root %s/runc kill %s KILL 2>/dev/null; for i in 1 2 3 4 5 6 7 8 9 10; "
       "do "
       "runc --root %s/runc delete --force %s 2>/dev/null && break; sleep 0.1; done; "
       "rmdir /sys/fs/cgroup/*/%s 2>/dev/null; true",
       rig.dir, name, rig.dir, name, name);
    free(name);
}

#define LOOP "while :; do sleep 0.1 & wait; done"

START_TEST(test_granted_others_and_end)
{
    struct err err;
    world();
    start("c1", "trap : TERM; while :; do sleep 100 & sleep 0.1; done"); /* many */
    ck_assert_int_eq(open_inside("c1", "nvidia0"), ENXIO); /* no gate as yet */
    ea_open(A, gpu_a, 60);
    rig_ok(adopt(A, "c1", &err), &err);
    ck_assert(!is_frozen("c1"));
    ck_assert_int_eq(ea_state(A), LEASE_RUNNING);
    ck_assert_int_eq(open_inside("c1", "nvidia1"), ENXIO);
    ck_assert_int_eq(open_inside("c1", "nvidia0"), EPERM);
    ck_assert_int_eq(open_inside("c1", "memory"), EPERM);
    rig_ok(adopt(A, "c1", &err), &err); /* again is the same */
    ck_assert(ea_until(A, LEASE_RUNNING, 1500));
    leases_end(ea.leases, A, "stopped");
    ck_assert(ea_until(A, LEASE_DONE, 3000));
    ck_assert(!runs("c1"));
    stop("c1");
    ea_die();
}
END_TEST

START_TEST(test_end_by_the_clock)
{
    struct err err;
    world();
    start("c1", "trap 'echo told >> /t/told' TERM; " LOOP);
    struct order o = ea_order(A, gpu_a, 3);
    const char *step;
    o.drain_us = 1500000;
    rig_ok(leases_open(ea.leases, &o, &step, &err), &err);
    rig_ok(adopt(A, "c1", &err), &err);
    ck_assert(ea_until(A, LEASE_DONE, 6000));
    ck_assert(!runs("c1"));
    char *told = xasprintf("%s/told", rig.dir);
    ck_assert_int_eq(access(told, F_OK), 0); /* SIGTERM came before */
    free(told);
    stop("c1");
    ea_die();
}
END_TEST

/* The gate's own end: nobody is there to kill, and opens are refused all the same. */
START_TEST(test_end_without_an_agent)
{
    struct err err;
    world();
    start("c1", LOOP);
    ea_open(A, gpu_a, 2);
    rig_ok(adopt(A, "c1", &err), &err);
    ea_die();
    ck_assert_int_eq(open_inside("c1", "nvidia1"), ENXIO);
    rig_pause_ms(2200);
    ck_assert_int_eq(open_inside("c1", "nvidia1"), EPERM);
    ck_assert(runs("c1"));
    ea_start(); /* it is overdue */
    ck_assert(ea_until(A, LEASE_DONE, 3000));
    ck_assert(!runs("c1"));
    stop("c1");
    ea_die();
}
END_TEST

START_TEST(test_restart_goes_on)
{
    struct err err;
    world();
    start("c1", LOOP);
    ea_open(A, gpu_a, 60);
    rig_ok(adopt(A, "c1", &err), &err);
    ea_die();
    ea_start();
    ck_assert_int_eq(ea_state(A), LEASE_RUNNING);
    ck_assert(runs("c1"));
    ck_assert_int_eq(open_inside("c1", "nvidia1"), ENXIO);
    ck_assert_int_eq(open_inside("c1", "nvidia0"), EPERM);
    leases_end(ea.leases, A, "revoked");
    ck_assert(ea_until(A, LEASE_DONE, 3000));
    ck_assert(!runs("c1"));
    stop("c1");
    ea_die();
}
END_TEST

START_TEST(test_lost_journal)
{
    struct err err;
    world();
    start("c1", LOOP);
    ea_open(A, gpu_a, 60);
    rig_ok(adopt(A, "c1", &err), &err);
    ea_die();
    rig_ok(journal_lease_remove(rig_journal(), A, &err), &err);
    ea_start();
    for (int i = 0; i < 200 && runs("c1"); i++)
        rig_pause_ms(10);
    ck_assert(!runs("c1"));
    stop("c1");
    ea_die();
}
END_TEST

/* The agent died while it had the container frozen. */
START_TEST(test_half_done_is_undone)
{
    struct err err;
    struct stat st;
    world();
    start("c1", LOOP);
    ea_open(A, gpu_a, 60);
    char *dir = rig_cgroup(A, NULL);
    char *theirs = xasprintf("%s/%s-c1", rig.mounts.v2, rig.base);
    ck_assert_int_eq(stat(theirs, &st), 0);
    char *list = xasprintf("begun %llu %s-c1", (unsigned long long)st.st_ino, rig.base);
    ck_assert_int_eq(sh("python3 -c 'import os,sys; os.setxattr(sys.argv[1], "
                        "\"trusted.neargpu.adopted\", (sys.argv[2]+\"\\n\").encode())' "
                        "%s '%s' && echo 1 > %s/cgroup.freeze",
                        dir, list, theirs),
                     0);
    ea_die();
    ea_start();
    ck_assert(ea_until(A, LEASE_READY, 1500));
    rig_pause_ms(50);
    ck_assert(!is_frozen("c1"));
    ck_assert_int_eq(open_inside("c1", "nvidia0"), ENXIO);
    rig_ok(adopt(A, "c1", &err), &err);
    leases_end(ea.leases, A, "stopped");
    ck_assert(ea_until(A, LEASE_DONE, 3000));
    stop("c1");
    free(list);
    free(theirs);
    free(dir);
    ea_die();
}
END_TEST

START_TEST(test_open_devices_refused)
{
    struct err err;
    world();
    start("c1", "exec 5< /t/dev/memory; " LOOP); /* by descriptor */
    ea_open(A, gpu_a, 60);
    rig_pause_ms(200);
    ck_assert_int_eq(adopt(A, "c1", &err), -1);
    ck_assert_int_eq(err.code, ERR_CONFLICT);
    ck_assert_msg(strstr(err.text, "1:11") != NULL, "%s", err.text);
    ck_assert(!is_frozen("c1")); /* and it was left as it was */
    ck_assert(runs("c1"));
    ck_assert_int_eq(open_inside("c1", "nvidia0"), ENXIO);
    leases_end(ea.leases, A, "stopped");
    ck_assert(ea_until(A, LEASE_DONE, 3000));
    ck_assert(runs("c1")); /* it never was the lease's */
    stop("c1");
    ea_die();
}
END_TEST

START_TEST(test_who_and_what)
{
    struct err err;
    const char *step;
    world();
    start("c1", LOOP);
    char *c1 = cgroup_of("c1"), *ours = xasprintf("/%s", rig.base);
    char *below = xasprintf("/%s/%s", rig.base, A);
    ea_open(A, gpu_a, 60);
    ea_open(B, gpu_b, 60);
    const struct {
        const char *path;
        uid_t uid;
        enum err_code code;
    } cases[] = {
        {"/", 0, ERR_BAD_REQUEST},
        {"c1", 0, ERR_BAD_REQUEST},
        {"/a/../b", 0, ERR_BAD_REQUEST},
        {rig.mounts.v2, 0, ERR_BAD_REQUEST},
        {"/no-such-cgroup", 0, ERR_NOT_FOUND},
        {ours, 0, ERR_CONFLICT},
        {below, 0, ERR_CONFLICT},
        {c1, 1000, ERR_FORBIDDEN},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ck_assert_int_eq(
            leases_adopt(ea.leases, A, cases[i].path, cases[i].uid, &step, &err), -1);
        ck_assert_msg(err.code == cases[i].code, "%s: %s", cases[i].path, err.text);
    }
    rig_ok(adopt(A, "c1", &err), &err);
    ck_assert_int_eq(adopt(B, "c1", &err), -1); /* it is A's */
    ck_assert_int_eq(err.code, ERR_CONFLICT);
    leases_end(ea.leases, B, "stopped");
    ck_assert(ea_until(B, LEASE_DONE, 3000));
    ck_assert(runs("c1"));
    leases_end(ea.leases, A, "stopped");
    ck_assert(ea_until(A, LEASE_DONE, 3000));
    stop("c1");
    free(below);
    free(ours);
    free(c1);
    ea_die();
}
END_TEST

/* Its directory is not ours: it stays, open again. And another cgroup of the same name
 * is not the one that was adopted. */
START_TEST(test_directory_stays_and_is_known_again)
{
    struct err err;
    uint32_t count = 0;
    bool multi;
    world();
    char *dir = xasprintf("%s/%s-bare", rig.mounts.v2, rig.base);
    rig_ok(cgroup_make(dir, &err), &err);
    ea_open(A, gpu_a, 60);
    rig_ok(adopt(A, "bare", &err), &err);
    rig_ok(cgroup_gate_query(dir, &count, &multi, &err), &err);
    ck_assert_uint_eq(count, 1);
    leases_end(ea.leases, A, "stopped");
    ck_assert(ea_until(A, LEASE_DONE, 3000));
    rig_ok(cgroup_gate_query(dir, &count, &multi, &err), &err);
    ck_assert_uint_eq(count, 0);
    ea_open(B, gpu_b, 60);
    rig_ok(adopt(B, "bare", &err), &err);
    ck_assert_int_eq(rmdir(dir), 0);
    rig_ok(cgroup_make(dir, &err), &err);
    pid_t pid = fork();
    if (pid == 0) {
        char *procs = xasprintf("%s/cgroup.procs", dir);
        int fd = open(procs, O_WRONLY | O_CLOEXEC);
        _exit(fd >= 0 && write(fd, "0", 1) == 1 && pause() != 0);
    }
    while (!runs("bare"))
        rig_pause_ms(2);
    leases_end(ea.leases, B, "stopped");
    ck_assert(ea_until(B, LEASE_DONE, 3000));
    ck_assert(runs("bare")); /* another's, which only bears the name */
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    for (int i = 0; i < 100 && rmdir(dir) != 0; i++)
        rig_pause_ms(10);
    free(dir);
    ea_die();
}
END_TEST

/* A device program that suffers no second one, as old runtimes attach theirs. */
static void attach_alone(const char *dir)
{
    union bpf_attr attr;
    struct devprog *prog = xcalloc(1, sizeof(*prog));
    devprog_build_deny(prog);
    memset(&attr, 0, sizeof(attr));
    attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
    attr.insns = (uint64_t)(uintptr_t)prog->insns;
    attr.insn_cnt = (uint32_t)prog->count;
    attr.license = (uint64_t)(uintptr_t) "Dual MIT/GPL";
    int fd = (int)syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));
    ck_assert_int_ge(fd, 0);
    memset(&attr, 0, sizeof(attr));
    int at = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    attr.target_fd = (uint32_t)at;
    attr.attach_bpf_fd = (uint32_t)fd;
    attr.attach_type = BPF_CGROUP_DEVICE;
    ck_assert_int_eq((int)syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof(attr)), 0);
    close(at);
    close(fd);
    free(prog);
}

START_TEST(test_jealous_program_is_refused)
{
    struct err err;
    world();
    char *dir = xasprintf("%s/%s-alone", rig.mounts.v2, rig.base);
    rig_ok(cgroup_make(dir, &err), &err);
    attach_alone(dir);
    ea_open(A, gpu_a, 60);
    ck_assert_int_eq(adopt(A, "alone", &err), -1);
    ck_assert_int_eq(err.code, ERR_UNAVAILABLE);
    ck_assert_msg(strstr(err.text, "allow_multi") != NULL, "%s", err.text);
    leases_end(ea.leases, A, "stopped");
    ck_assert(ea_until(A, LEASE_DONE, 3000));
    ck_assert_int_eq(rmdir(dir), 0);
    free(dir);
    ea_die();
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("adopt");
    rig_add(s, "who", test_who_and_what);
    rig_add(s, "end", test_granted_others_and_end);
    rig_add(s, "clock", test_end_by_the_clock);
    rig_add(s, "no_agent", test_end_without_an_agent);
    rig_add(s, "restart", test_restart_goes_on);
    rig_add(s, "lost_journal", test_lost_journal);
    rig_add(s, "half_done", test_half_done_is_undone);
    rig_add(s, "open_devices", test_open_devices_refused);
    rig_add(s, "directory", test_directory_stays_and_is_known_again);
    rig_add(s, "jealous", test_jealous_program_is_refused);
    return s;
}

int main(int argc, char **argv)
{
    if (access("/usr/sbin/runc", X_OK) != 0 && access("/usr/bin/runc", X_OK) != 0) {
        printf("no runc: nothing makes containers here\n");
        return 77;
    }
    return rig_main(argc, argv, suite);
}
