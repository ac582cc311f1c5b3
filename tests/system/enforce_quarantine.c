/* enforce_quarantine: ends that do not go smoothly, with the agent's leases, the real
 * kernel and GPUs of an NVML of the tests: jobs that cannot die, holders that stay,
 * GPUs that are lost or cannot be scrubbed, journals that are lost. In each the GPU is
 * not lent until it is known to be free. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "tests/system/enforce_agent.h"

#define A EA_ID("0a")
#define B EA_ID("0b")
#define GPU_LINE \
    "gpu uuid=GPU-a name=H100 minor=3 pci=00000000:3B:00.0 total=81559 used=4 mig=0\n"
/* /dev/full under a GPU's name: one that can be held open. */
#define FULL_LINE \
    "gpu uuid=GPU-f name=H100 minor=7 pci=00000000:AF:00.0 total=81559 used=4 mig=0\n"

static const char *const gpu_a[] = {"GPU-a", NULL};
static const char *const gpu_f[] = {"GPU-f", NULL};
static const char *const stubborn[] = {RIG_PROBE, "probe", "stubborn", "3", NULL};
static const char *const sleeper[] = {"/bin/sh", "-c", "echo ready; exec sleep 100",
                                      NULL};

static void world(void)
{
    ea_nvml(GPU_LINE FULL_LINE);
    ea_node("nvidia3", RIG_MAJOR, 3);
    ea_node("nvidia7", 1, 7);
    ea_start();
}

static enum advert_state gpu_state(const char *uuid)
{
    ea_look();
    return advert_find(&ea.advert, uuid)->state;
}

/* Would the agent open an order of this GPU now? */
static bool is_granted(const char *const *gpus)
{
    struct reconcile_have have[16];
    struct reconcile_in in;
    struct order o = ea_order(EA_ID("cc"), gpus, 60);
    char why[160];
    agent_compare(&ea, have, 16, &in);
    reconcile_obstacle(&in, &o, why, sizeof(why));
    return why[0] == '\0';
}

/* Ends with the exit status of the real command; the agent starts again after it, as
 * the clock was put ahead. */
static int release(const char *id)
{
    char *conf = xasprintf("%s/agent.conf", rig.dir);
    char *text = xasprintf("state_dir = %s\n", rig.state);
    struct err err;
    rig_ok(fsx_write(conf, text, strlen(text), 0600, &err), &err);
    pid_t pid = fork();
    if (pid == 0) {
        execl(AGENT_PROGRAM, "neargpu-agent", "release", id, "--conf", conf, NULL);
        _exit(127);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    free(text);
    free(conf);
    ea_die();
    ea_start();
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Every process of the lease into a v1 freezer, frozen: state D, no signal reaches it.
 */
static char *freeze(const char *id)
{
    struct err err;
    char *ice = cgroup_path(RIG_FREEZER, rig.base, NULL, NULL);
    char *dir = rig_cgroup(id, "j1"), *procs = xasprintf("%s/cgroup.procs", dir);
    char *text, *save = NULL;
    rig_ok(cgroup_make(ice, &err), &err);
    rig_ok(fsx_read(procs, 65536, &text, NULL, &err), &err);
    for (char *pid = strtok_r(text, "\n", &save); pid != NULL;
         pid = strtok_r(NULL, "\n", &save))
        rig_ok(cgroup_write(ice, "cgroup.procs", pid, &err), &err);
    rig_ok(cgroup_write(ice, "freezer.state", "FROZEN", &err), &err);
    free(text);
    free(procs);
    free(dir);
    return ice;
}

START_TEST(test_frozen_job_is_quarantined)
{
    struct err err;
    if (access(RIG_FREEZER "/cgroup.procs", F_OK) != 0)
        return;
    world();
    ea_log_begin();
    ck_assert_int_eq(release(A), 5); /* no such lease */
    ea_open(A, gpu_a, 60);
    ck_assert_int_eq(release(A), 6); /* open, not quarantined */
    ea_launch(A, "j1", stubborn, "ready");
    char *ice = freeze(A);
    leases_end(ea.leases, A, "revoked");
    ck_assert(!ea_until(A, LEASE_CLEANING, 300));
    ck_assert_int_eq(ea_state(A), LEASE_DENIED);
    ea_tick_ahead(LEASE_KILL_US + US_PER_S);
    ck_assert_int_eq(ea_state(A), LEASE_QUARANTINED);
    ck_assert_int_eq(gpu_state("GPU-a"), ADVERT_QUARANTINED);
    ck_assert(!is_granted(gpu_a) && is_granted(gpu_f));
    char *log = ea_log();
    ck_assert_ptr_nonnull(strstr(log, "QUARANTINED"));
    ck_assert_ptr_nonnull(strstr(log, "neargpu-agent release " A));
    free(log);
    ea_die();
    ea_start(); /* a new agent knows it */
    ck_assert_int_eq(ea_state(A), LEASE_QUARANTINED);
    ck_assert_int_eq(gpu_state("GPU-a"), ADVERT_QUARANTINED);
    /* Released too early: it is back in quarantine. */
    ck_assert_int_eq(release(A), 0);
    ck_assert(ea_until(A, LEASE_DENIED, 3000));
    ea_tick_ahead(LEASE_KILL_US + 3 * US_PER_S);
    ck_assert_int_eq(ea_state(A), LEASE_QUARANTINED);
    ck_assert(!is_granted(gpu_a));
    rig_ok(cgroup_write(ice, "freezer.state", "THAWED", &err), &err);
    ck_assert_int_ge(rig_wait_empty(A, 2000), 0);
    ck_assert_int_eq(ea_state(A), LEASE_QUARANTINED); /* a person has to look */
    ck_assert_int_eq(release(A), 0);
    ck_assert(ea_until(A, LEASE_DONE, 3000));
    ck_assert_int_eq(gpu_state("GPU-a"), ADVERT_IDLE);
    ck_assert(is_granted(gpu_a));
    rig_ok(cgroup_remove(ice, &err), &err);
    free(ice);
    ea_die();
}
END_TEST

static pid_t hold(const char *path)
{
    int ready[2];
    char c;
    ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        if (open(path, O_RDWR) < 0 || write(ready[1], "x", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    close(ready[1]);
    ck_assert_int_eq(read(ready[0], &c, 1), 1);
    close(ready[0]);
    return pid;
}

static void let_go(pid_t pid)
{
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

/* A process outside the lease that got the device from somewhere. */
START_TEST(test_leftover_holder)
{
    world();
    ea_log_begin();
    char *path = xasprintf("%s/dev/nvidia7", rig.dir), pid_text[40];
    ea_open(A, gpu_f, 60);
    ea_launch(A, "j1", sleeper, "ready");
    pid_t pid = hold(path);
    leases_end(ea.leases, A, "stopped");
    ck_assert(ea_until(A, LEASE_CLEANING, 2000));
    ck_assert(!ea_until(A, LEASE_DONE, 500));
    ck_assert(!is_granted(gpu_f)); /* being cleaned is not free */
    let_go(pid);
    ck_assert(ea_until(A, LEASE_DONE, 2000)); /* it left in time */
    ck_assert(is_granted(gpu_f));
    ea_open(B, gpu_f, 60);
    pid = hold(path);
    leases_end(ea.leases, B, "stopped");
    ck_assert(ea_until(B, LEASE_CLEANING, 2000));
    ea_tick_ahead(LEASES_CLEAN_US + US_PER_S);
    ck_assert_int_eq(ea_state(B), LEASE_QUARANTINED);
    ck_assert_int_eq(gpu_state("GPU-f"), ADVERT_QUARANTINED);
    char *log = ea_log();
    snprintf(pid_text, sizeof(pid_text), "process %d (", (int)pid);
    ck_assert_msg(strstr(log, pid_text) != NULL, "%s", log);
    free(log);
    let_go(pid);
    ck_assert_int_eq(release(B), 0);
    ck_assert(ea_until(B, LEASE_DONE, 3000));
    free(path);
    ea_die();
}
END_TEST

/* NVML still tells of a context, or of memory: what a driver's slow teardown looks
 * like, and what a crashed one does. */
START_TEST(test_context_and_memory_left)
{
    world();
    ea_open(A, gpu_a, 60);
    ea_nvml("gpu uuid=GPU-a name=H100 minor=3 pci=00000000:3B:00.0 total=81559 used=4 "
            "pids=4242\n" FULL_LINE);
    leases_end(ea.leases, A, "stopped");
    ck_assert(!ea_until(A, LEASE_DONE, 400));
    ea_nvml("gpu uuid=GPU-a name=H100 minor=3 pci=00000000:3B:00.0 total=81559 "
            "used=9000\n" FULL_LINE);
    ck_assert(!ea_until(A, LEASE_DONE, 400));
    ck_assert_int_eq(ea_state(A), LEASE_CLEANING);
    ea_nvml(GPU_LINE FULL_LINE);
    ck_assert(ea_until(A, LEASE_DONE, 2000));
    ea_open(B, gpu_a, 60);
    ea_nvml("gpu uuid=GPU-a name=H100 minor=3 pci=00000000:3B:00.0 total=81559 "
            "used=9000\n" FULL_LINE);
    leases_end(ea.leases, B, "stopped");
    ck_assert(ea_until(B, LEASE_CLEANING, 2000));
    ea_tick_ahead(LEASES_CLEAN_US + US_PER_S);
    ck_assert_int_eq(ea_state(B), LEASE_QUARANTINED);
    ea_die();
}
END_TEST

START_TEST(test_lost_gpu)
{
    world();
    ea_open(A, gpu_a, 60);
    ea_launch(A, "j1", sleeper, "ready");
    ea_nvml("gpu uuid=GPU-a name=H100 minor=3 pci=00000000:3B:00.0 lost=1\n" FULL_LINE);
    ck_assert_int_eq(gpu_state("GPU-a"), ADVERT_LOST);
    leases_end(ea.leases, A, "stopped");
    ck_assert(ea_until(A, LEASE_CLEANING, 2000));
    ck_assert_int_ge(rig_wait_empty(A, 10), 0); /* the job ended all the same */
    ea_tick_ahead(LEASES_CLEAN_US + US_PER_S);
    ck_assert_int_eq(ea_state(A), LEASE_QUARANTINED);
    ck_assert(!is_granted(gpu_a));
    ea_nvml(GPU_LINE FULL_LINE); /* the machine was looked after */
    ck_assert_int_eq(release(A), 0);
    ck_assert(ea_until(A, LEASE_DONE, 3000));
    ck_assert(is_granted(gpu_a));
    ea_die();
}
END_TEST

static void scrub_by(const char *script, int64_t timeout_us)
{
    struct err err;
    char *path = xasprintf("%s/scrub", rig.dir);
    char *text =
        xasprintf("#!/bin/sh\necho $1 $2 >>%s/scrubbed\n%s\n", rig.dir, script);
    rig_ok(fsx_write(path, text, strlen(text), 0700, &err), &err);
    free(ea.conf.scrub_command);
    ea.conf.scrub_command = xasprintf("%s %%u %%m", path);
    ea.conf.scrub_timeout_us = timeout_us;
    free(text);
    free(path);
}

START_TEST(test_scrub)
{
    struct err err;
    char *done = xasprintf("%s/scrubbed", rig.dir), *text = NULL;
    world();
    ea_log_begin();
    scrub_by("sleep 0.3", 5 * US_PER_S);
    ea_open(A, gpu_a, 60);
    leases_end(ea.leases, A, "stopped");
    ck_assert(ea_until(A, LEASE_CLEANING, 1000));
    ea_tick_ahead(LEASES_CLEAN_US + US_PER_S); /* it has its own time */
    ck_assert_int_eq(ea_state(A), LEASE_CLEANING);
    ck_assert(!is_granted(gpu_a));
    ck_assert(ea_until(A, LEASE_DONE, 5000));
    rig_ok(fsx_read(done, 4096, &text, NULL, &err), &err);
    ck_assert_str_eq(text, "GPU-a 3\n");
    free(text);
    scrub_by("echo ECC; exit 9", 5 * US_PER_S);
    ea_open(B, gpu_a, 60);
    leases_end(ea.leases, B, "stopped");
    ck_assert(ea_until(B, LEASE_QUARANTINED, 3000));
    ck_assert(!is_granted(gpu_a));
    char *log = ea_log();
    ck_assert_msg(strstr(log, "scrub of GPU-a ended with 9: ECC") != NULL, "%s", log);
    free(log);
    /* The agent dies while it runs: the next one scrubs anew. */
    ck_assert_int_eq(release(B), 0);
    scrub_by("sleep 100", 5 * US_PER_S);
    ck_assert(ea_until(B, LEASE_CLEANING, 3000));
    rig_pause_ms(300);
    leases_tick(ea.leases, clock_boot_us());
    ea_die();
    ea_start();
    scrub_by("exit 0", 5 * US_PER_S);
    ck_assert(ea_until(B, LEASE_DONE, 3000));
    ck_assert_int_eq(unlink(done), 0);
    free(done);
    ea_die();
}
END_TEST

/* Nothing of the journal is left, and what runs cannot die: which GPUs it has is not
 * known, so none is granted until it is gone. */
START_TEST(test_lost_journal)
{
    struct err err;
    if (access(RIG_FREEZER "/cgroup.procs", F_OK) != 0)
        return;
    world();
    ea_open(A, gpu_a, 60);
    ea_launch(A, "j1", sleeper, "ready");
    char *ice = freeze(A);
    ea_die();
    journal_free(rig.journal);
    rig.journal = NULL;
    rig_ok(fsx_remove_tree(rig.state, &err), &err);
    ea_start();
    ck_assert_int_eq(ea_state(A), LEASE_DENIED);
    char *path = xasprintf("%s/dev/nvidia3", rig.dir);
    ck_assert_int_eq(ea_open_errno(A, path), EPERM); /* closed before all else */
    ck_assert(!is_granted(gpu_a) && !is_granted(gpu_f));
    ea_tick_ahead(LEASE_KILL_US + US_PER_S);
    ck_assert_int_eq(ea_state(A), LEASE_QUARANTINED);
    ck_assert(!is_granted(gpu_a) && !is_granted(gpu_f));
    rig_ok(cgroup_write(ice, "freezer.state", "THAWED", &err), &err);
    ck_assert_int_ge(rig_wait_empty(A, 2000), 0);
    ck_assert_int_eq(release(A), 0);
    ck_assert(ea_until(A, LEASE_DONE, 3000));
    ck_assert_int_eq(gpu_state("GPU-a"), ADVERT_IDLE);
    ck_assert(is_granted(gpu_a) && is_granted(gpu_f));
    rig_ok(cgroup_remove(ice, &err), &err);
    free(ice);
    free(path);
    ea_die();
}
END_TEST

START_TEST(test_orphan_cgroup)
{
    struct err err;
    world();
    ea_open(A, gpu_a, 60);
    ea_launch(A, "j1", stubborn, "ready");
    ea_open(B, gpu_f, 60);
    ea_die();
    rig_ok(journal_lease_remove(rig_journal(), A, &err), &err);
    ea_start();
    ck_assert_int_ge(rig_wait_empty(A, 2000), 0);
    for (int i = 0;
         i < 500 && leases_find(ea.leases, A) != NULL && ea_state(A) != LEASE_DONE;
         i++) {
        leases_tick(ea.leases, clock_boot_us());
        rig_pause_ms(2);
    }
    char *dir = rig_cgroup(A, NULL);
    ck_assert_int_eq(access(dir, F_OK), -1);
    ck_assert_int_eq(ea_state(B), LEASE_READY); /* its neighbour is not touched */
    free(dir);
    ea_die();
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("enforce_quarantine");
    rig_add(s, "frozen", test_frozen_job_is_quarantined);
    rig_add(s, "holder", test_leftover_holder);
    rig_add(s, "context", test_context_and_memory_left);
    rig_add(s, "lost_gpu", test_lost_gpu);
    rig_add(s, "scrub", test_scrub);
    rig_add(s, "lost_journal", test_lost_journal);
    rig_add(s, "orphan", test_orphan_cgroup);
    return s;
}

int main(int argc, char **argv)
{
    return rig_main(argc, argv, suite);
}
