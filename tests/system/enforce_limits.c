/* enforce_limits: what bounds a lease's jobs besides its GPUs, and that no trick of a
 * job outlives its end: memory, processes and CPUs on v2 or v1 as found, a fork bomb,
 * sessions of its own, ignored signals. With the agent's leases on the real kernel; of
 * two GPUs, index and minor are crossed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/lib/fsx.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "tests/system/enforce_agent.h"

#define A EA_ID("0a")
#define B EA_ID("0b")

static const char *const gpu_a[] = {"GPU-a", NULL};
static const char *const gpu_b[] = {"GPU-b", NULL};
static const char *const two[] = {"GPU-a", "GPU-b", NULL};

static void world(void)
{
    ea_nvml("gpu uuid=GPU-a name=H100 minor=1 pci=00000000:3B:00.0 total=81559 used=4\n"
            "gpu uuid=GPU-b name=H100 minor=0 pci=00000000:AF:00.0 total=81559 "
            "used=4\n");
    ea_node("nvidia0", RIG_MAJOR, 0);
    ea_node("nvidia1", RIG_MAJOR, 1);
    ea_start();
}

/* The text of the lease's file of a controller, wherever that is; "" when there is
 * none. */
static char *limit_of(const char *id, const char *v1, const char *v1_file, bool on_v2,
                      const char *v2_file)
{
    char *dir = cgroup_path(on_v2 ? rig.mounts.v2 : v1, rig.base, id, NULL);
    char *path = xasprintf("%s/%s", dir, on_v2 ? v2_file : v1_file), *text = NULL;
    if (fsx_read(path, 4096, &text, NULL, NULL) != 0)
        text = xstrdup("");
    text[strcspn(text, " \n")] = '\0';
    free(path);
    free(dir);
    return text;
}

#define MEMORY(id)                                                                    \
    limit_of(id, rig.mounts.v1_memory, "memory.limit_in_bytes", rig.mounts.v2_memory, \
             "memory.max")
#define PIDS(id) \
    limit_of(id, rig.mounts.v1_pids, "pids.max", rig.mounts.v2_pids, "pids.max")
#define CPU(id) \
    limit_of(id, rig.mounts.v1_cpu, "cpu.cfs_quota_us", rig.mounts.v2_cpu, "cpu.max")

static void is_text(char *text, const char *want)
{
    ck_assert_str_eq(text, want);
    free(text);
}

START_TEST(test_defaults_of_the_node)
{
    struct err err;
    const char *step;
    world();
    ea.conf.job_cpus = 2;
    ea.conf.job_memory_mib = 512;
    ea.conf.job_pids = 100;
    ea_open(A, two, 60); /* for each of its GPUs */
    is_text(MEMORY(A), "1073741824");
    is_text(PIDS(A), "200");
    is_text(CPU(A), "400000"); /* us of 100 ms */
    leases_end(ea.leases, A, "stopped");
    ck_assert(ea_until(A, LEASE_DONE, 2000));
    struct order o = ea_order(B, gpu_a, 60);
    o.memory_max_bytes = 64 << 20; /* the lease's own go before the defaults */
    o.pids_max = 7;
    rig_ok(leases_open(ea.leases, &o, &step, &err), &err);
    is_text(MEMORY(B), "67108864");
    is_text(PIDS(B), "7");
    is_text(CPU(B), "200000");
    ea_die();
}
END_TEST

START_TEST(test_memory_and_processes)
{
    struct err err;
    const char *step;
    static const char *const eat[] = {RIG_PROBE, "probe", "eat", "256", NULL};
    static const char *const forks[] = {RIG_PROBE, "probe", "fork", NULL};
    world();
    struct order o = ea_order(A, gpu_a, 60);
    o.memory_max_bytes = 64 << 20;
    o.pids_max = 20;
    rig_ok(leases_open(ea.leases, &o, &step, &err), &err);
    ea_launch(A, "j1", eat, NULL);
    char *x, *out = rig_output(A, "j1", 0, 10000, &x);
    ck_assert_msg(x != NULL && strncmp(x, "{\"signal\":9", 11) == 0, "%s", x);
    ck_assert_str_eq(out, "");
    free(out);
    free(x);
    ea_launch(A, "j2", forks, "EAGAIN");
    out = rig_output(A, "j2", 0, 2000, &x);
    ck_assert_int_lt(strtol(out, NULL, 10), 20);
    free(out);
    free(x);
    leases_end(ea.leases, A, "stopped");
    ck_assert(ea_until(A, LEASE_DONE, 3000));
    ea_die();
}
END_TEST

/* Spinning for a second within a fifth of a CPU: the kernel held it back. */
START_TEST(test_cpus)
{
    struct err err;
    char *stat_text, *dir, *path;
    static const char *const spin[] = {
        "/bin/sh", "-c", "timeout 0.6 sh -c 'while :; do :; done'; echo end", NULL};
    if (!rig.mounts.v2_cpu && rig.mounts.v1_cpu[0] == '\0')
        return;
    world();
    ea_open(A, gpu_a, 60);
    const struct journal_lease *j = leases_find(ea.leases, A);
    struct enforce_lease lease = {.id = A,
                                  .devices = j->rules,
                                  .device_count = j->rule_count,
                                  .deadline_boot_us = j->deadline_boot_us,
                                  .cpu_milli = 200};
    rig_ok(rig.enforce->ops->open(rig.enforce, &lease, &err), &err);
    is_text(CPU(A), "20000");
    ea_launch(A, "j1", spin, "end\n");
    dir = cgroup_path(rig.mounts.v2_cpu ? rig.mounts.v2 : rig.mounts.v1_cpu, rig.base,
                      A, NULL);
    path = xasprintf("%s/cpu.stat", dir);
    rig_ok(fsx_read(path, 4096, &stat_text, NULL, &err), &err);
    const char *at = strstr(stat_text, "nr_throttled ");
    ck_assert_ptr_nonnull(at);
    ck_assert_int_gt(strtol(at + 13, NULL, 10), 0);
    free(stat_text);
    free(path);
    free(dir);
    ea_die();
}
END_TEST

/* The end comes while it forks as fast as it can, each in a session of its own and deaf
 * to signals. */
START_TEST(test_fork_bomb_setsid_ignored_signals)
{
    struct err err;
    const char *step;
    static const char *const bomb[] = {
        "/bin/sh", "-c",
        "trap '' TERM HUP INT QUIT USR1 USR2 PIPE ALRM; echo ready; "
        "b() { setsid sh -c \"$1\" _ \"$1\" & setsid sh -c \"$1\" _ \"$1\" & }; "
        "while :; do b 'trap \"\" TERM; setsid sh -c \"$1\" _ \"$1\" & sleep 0.01'; "
        "sleep 0.01; done",
        NULL};
    static const char *const stubborn[] = {RIG_PROBE, "probe", "stubborn", "5", NULL};
    world();
    struct order o = ea_order(A, gpu_a, 60);
    o.pids_max = 60;
    rig_ok(leases_open(ea.leases, &o, &step, &err), &err);
    ea_launch(A, "j1", stubborn, "ready");
    ea_launch(A, "j2", bomb, "ready");
    rig_pause_ms(300);
    leases_end(ea.leases, A, "revoked");
    int64_t us = rig_wait_empty(A, 3000);
    ck_assert_msg(us >= 0, "it outlived its end");
    ck_assert(ea_until(A, LEASE_DONE, 3000));
    printf("fork bomb: empty %ld us after the end\n", (long)us);
    ea_die();
}
END_TEST

START_TEST(test_index_is_not_minor)
{
    world();
    char *n0 = xasprintf("%s/dev/nvidia0", rig.dir);
    char *n1 = xasprintf("%s/dev/nvidia1", rig.dir);
    ea_open(A, gpu_a, 60); /* index 0, minor 1 */
    ck_assert_int_eq(ea_open_errno(A, n1), ENXIO);
    ck_assert_int_eq(ea_open_errno(A, n0), EPERM);
    ea_open(B, gpu_b, 60);
    ck_assert_int_eq(ea_open_errno(B, n0), ENXIO);
    ck_assert_int_eq(ea_open_errno(B, n1), EPERM);
    free(n1);
    free(n0);
    ea_die();
}
END_TEST

static void write_policy(const char *text)
{
    struct err err;
    char *path = xasprintf("%s/policy", rig.dir);
    rig_ok(fsx_write(path, text, strlen(text), 0644, &err), &err);
    free(path);
}

/* The provider's file is above any order and any token, and is read again. */
START_TEST(test_policy_file)
{
    struct err err;
    const char *step;
    char *none[] = {NULL}, *argv[] = {(char *)"/bin/true", NULL};
    char *path = xasprintf("%s/policy", rig.dir);
    struct token_claims *claims = xcalloc(1, sizeof(*claims));
    struct leases_launched out = {0};
    const struct leases_launch in = {
        .claims = claims, .argv_hash = "hash", .argv = argv, .envp = none};
    world();
    leases_free(ea.leases);
    ea.conf.policy_file = path;
    ea.leases = leases_new(&ea);
    struct order o = ea_order(A, two, 60);
    write_policy("max_gpus_per_tenant = 1\n");
    ck_assert_int_eq(leases_open(ea.leases, &o, &step, &err), -1);
    ck_assert_str_eq(step, "policy");
    write_policy("max_gpus_per_tenant = 2\nmax_duration = 3m\n");
    rig_ok(leases_open(ea.leases, &o, &step, &err), &err);
    o.not_after_us += 120 * US_PER_S;
    ck_assert_int_eq(leases_extend(ea.leases, &o, &err), -1);
    ck_assert_int_eq(err.code, ERR_FORBIDDEN);
    /* Tightened while the lease runs: it goes on, and starts nothing more. */
    snprintf(claims->jti, sizeof(claims->jti), "j1");
    snprintf(claims->lease.reservation, sizeof(claims->lease.reservation), A);
    write_policy("denied_tenants = " EA_TENANT "\n");
    ck_assert_int_eq(leases_launch(ea.leases, &in, &out, &err), -1);
    ck_assert_str_eq(out.step, "policy");
    write_policy("nonsense\n");
    ck_assert_int_eq(leases_launch(ea.leases, &in, &out, &err), -1);
    ck_assert_int_eq(err.code, ERR_UNAVAILABLE);
    ck_assert_int_eq(ea_state(A), LEASE_READY);
    write_policy("");
    rig_ok(leases_launch(ea.leases, &in, &out, &err), &err);
    rig_ok(launch_wait_ready(&out.ready, &err), &err);
    free(claims);
    ea_die();
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("enforce_limits");
    rig_add(s, "defaults", test_defaults_of_the_node);
    rig_add(s, "memory_pids", test_memory_and_processes);
    rig_add(s, "cpus", test_cpus);
    rig_add(s, "fork_bomb", test_fork_bomb_setsid_ignored_signals);
    rig_add(s, "minor", test_index_is_not_minor);
    rig_add(s, "policy", test_policy_file);
    return s;
}

int main(int argc, char **argv)
{
    return rig_main(argc, argv, suite);
}
