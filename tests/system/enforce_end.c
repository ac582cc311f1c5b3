/* enforce_end: the ends of a lease, each proven with the others taken away: the gate's
 * own deadline, lease-init, the keeper, the caller. And limits, drain, extension. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"
#include "tests/system/enforce_rig.h"

#define STUBBORN                                  \
    (const char *const[])                         \
    {                                             \
        RIG_PROBE, "probe", "stubborn", "5", NULL \
    }

static int64_t deadline_of(const char *id)
{
    static struct journal_lease l;
    struct err err;
    rig_ok(journal_lease_read(rig_journal(), id, &l, &err), &err);
    return l.deadline_boot_us;
}

static pid_t keeper_of(const char *lease, const char *job)
{
    char *path = xasprintf("%s/leases/%s/jobs/%s/keeper.lock", rig.state, lease, job);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    int fd = open(path, O_RDWR | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(fcntl(fd, F_GETLK, &lock), 0);
    ck_assert_int_ne(lock.l_type, F_UNLCK);
    close(fd);
    free(path);
    return lock.l_pid;
}

/* The first process of the job's cgroup is the one cloned into it: lease-init. */
static pid_t init_of(const char *lease, const char *job)
{
    struct err err;
    char *dir = rig_cgroup(lease, job), *path = xasprintf("%s/cgroup.procs", dir),
         *text;
    rig_ok(fsx_read(path, 65536, &text, NULL, &err), &err);
    long pid = strtol(text, NULL, 10);
    char *comm = xasprintf("/proc/%ld/comm", pid), *name;
    rig_ok(fsx_read(comm, 64, &name, NULL, &err), &err);
    ck_assert_str_eq(name, "neargpu-init\n");
    free(name);
    free(comm);
    free(text);
    free(path);
    free(dir);
    return (pid_t)pid;
}

static void start_stubborn(const char *lease, const char *job)
{
    struct err err;
    char *x;
    rig_ok(rig_start(lease, job, -1, STUBBORN, &err), &err);
    char *out = rig_output(lease, job, 0, 200, &x); /* "ready", then nothing more */
    ck_assert_str_eq(out, "ready\n");
    ck_assert_ptr_null(x);
    free(out);
}

/* Waits for the lease to be empty and says how many us after its deadline it was. */
static int64_t lateness(const char *id)
{
    int64_t deadline = deadline_of(id);
    while (rig_populated(id)) {
        ck_assert_msg(rig_now() < deadline + 2000000, "still populated 2 s later");
        struct timespec t = {0, 200000};
        nanosleep(&t, NULL);
    }
    return rig_now() - deadline;
}

static char *exit_of(const char *lease, const char *job)
{
    char *x;
    free(rig_output(lease, job, 0, 5000, &x));
    ck_assert_ptr_nonnull(x);
    return x;
}

START_TEST(test_lease_init_alone_ends_it)
{
    rig_lease("res1", -1, 700);
    start_stubborn("res1", "j1");
    kill(keeper_of("res1", "j1"), SIGKILL);
    int64_t late = lateness("res1");
    ck_assert_int_ge(late, 0);
    ck_assert_int_lt(late, 200000);
    printf("lease-init alone: empty %" PRId64 " us after the end\n", late);
    char *x = exit_of("res1", "j1"); /* a new keeper tells what became of it */
    ck_assert_str_eq(x, "{\"signal\":9,\"reason\":\"lease_end\"}");
    free(x);
    rig_end("res1");
}
END_TEST

START_TEST(test_keeper_alone_ends_it)
{
    rig_lease("res1", -1, 700);
    start_stubborn("res1", "j1");
    kill(init_of("res1", "j1"), SIGSTOP);
    int64_t late = lateness("res1");
    ck_assert_int_ge(late, 0);
    ck_assert_int_lt(late, 200000);
    printf("keeper alone: empty %" PRId64 " us after the end\n", late);
    char *x = exit_of("res1", "j1");
    ck_assert_str_eq(x, "{\"signal\":9,\"reason\":\"lease_end\"}");
    free(x);
    rig_end("res1");
}
END_TEST

START_TEST(test_a_second_keeper_ends_it_as_well)
{
    struct err err;
    rig_lease("res1", -1, 900);
    start_stubborn("res1", "j1");
    pid_t first = keeper_of("res1", "j1");
    kill(first, SIGKILL);
    char *dir = rig_lease_dir("res1"), *job = xasprintf("%s/jobs/j1", dir);
    while (launch_respawn_keeper(job, NULL, &err) != 0)
        rig_pause_ms(1);
    ck_assert_int_ne(keeper_of("res1", "j1"), first);
    kill(init_of("res1", "j1"), SIGSTOP);
    int64_t late = lateness("res1");
    ck_assert_int_ge(late, 0);
    ck_assert_int_lt(late, 200000);
    free(job);
    free(dir);
    rig_end("res1");
}
END_TEST

START_TEST(test_gate_alone_ends_opens)
{
    struct err err;
    rig_lease("res1", 0, 500);
    rig_ok(rig_start(
               "res1", "j1", 0,
               (const char *const[]){RIG_PROBE, "probe", "retry", "/dev/nvidia0", NULL},
               &err),
           &err);
    int64_t deadline = deadline_of("res1");
    /* The keeper dead, lease-init stopped: only the program in the kernel is left. The
     * job writes to its FIFO; its end tells. */
    kill(keeper_of("res1", "j1"), SIGKILL);
    pid_t init = init_of("res1", "j1");
    kill(init, SIGSTOP);
    while (rig_now() < deadline + 50000)
        rig_pause_ms(5);
    ck_assert(rig_populated("res1"));
    char *path = xasprintf("%s/leases/res1/jobs/j1/stdout", rig.state), text[64] = "";
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    ck_assert_int_gt(read(fd, text, sizeof(text) - 1), 0);
    close(fd);
    free(path);
    char *end;
    int64_t at = strtoll(text, &end, 10);
    ck_assert_str_eq(end, " EPERM\n");
    ck_assert_int_ge(at, deadline);
    ck_assert_int_lt(at, deadline + 40000);
    printf("gate alone: first refusal seen %" PRId64 " us after the end\n",
           at - deadline);
    rig_end("res1");
}
END_TEST

START_TEST(test_drain_then_end)
{
    struct err err;
    char *x;
    rig_lease("res1", -1, 900);
    struct launch_spec s = rig_spec(
        "res1", "j1", -1,
        (const char *const[]){
            "/bin/sh", "-c",
            "exec 2>/dev/null; trap 'echo term; exit 7' TERM; while :; do sleep 0.01; "
            "done",
            NULL});
    s.drain_us = 400000;
    rig_ok(rig_start_spec(&s, &err), &err);
    int64_t deadline = deadline_of("res1");
    char *out = rig_output("res1", "j1", 0, 5000, &x);
    int64_t left = deadline - rig_now();
    ck_assert_str_eq(out, "term\n");
    ck_assert_str_eq(x, "{\"exit\":7,\"reason\":\"lease_end\"}");
    ck_assert_int_gt(left, 100000);
    ck_assert_int_lt(left, 400000);
    free(out);
    free(x);
    launch_spec_done(&s);
    rig_end("res1");
}
END_TEST

START_TEST(test_extension_reaches_everyone)
{
    rig_lease("res1", 0, 500);
    start_stubborn("res1", "j1");
    int64_t first = deadline_of("res1");
    rig_extend("res1", 0, first + 600000);
    while (rig_now() < first + 200000)
        rig_pause_ms(5);
    ck_assert(rig_populated("res1"));
    int64_t late = lateness("res1");
    ck_assert_int_ge(late, 0);
    ck_assert_int_lt(late, 200000);
    rig_end("res1");
}
END_TEST

START_TEST(test_shortening_reaches_everyone)
{
    rig_lease("res1", 0, 20000);
    start_stubborn("res1", "j1");
    rig_extend("res1", 0, rig_now() + 300000);
    int64_t late = lateness("res1");
    ck_assert_int_ge(late, 0);
    ck_assert_int_lt(late, 200000);
    rig_end("res1");
}
END_TEST

START_TEST(test_revocation_says_why)
{
    struct err err;
    rig_lease("res1", -1, 20000);
    start_stubborn("res1", "j1");
    char *dir = rig_lease_dir("res1");
    rig_ok(launch_set_reason(dir, "revoked", &err), &err);
    rig_ok(rig.enforce->ops->deny(rig.enforce, "res1", &err), &err);
    rig_ok(rig.enforce->ops->kill(rig.enforce, "res1", &err), &err);
    int64_t took = rig_wait_empty("res1", 2000);
    ck_assert_int_ge(took, 0);
    char *x = exit_of("res1", "j1");
    ck_assert_str_eq(x, "{\"signal\":9,\"reason\":\"revoked\"}");
    free(x);
    free(dir);
    rig_end("res1");
}
END_TEST

START_TEST(test_nothing_starts_after_the_end)
{
    struct err err;
    rig_lease("res1", -1, 50);
    rig_pause_ms(60);
    ck_assert_int_eq(
        rig_start("res1", "j1", -1, (const char *const[]){"/bin/true", NULL}, &err),
        -1);
    ck_assert_msg(strstr(err.text, "lease has ended") != NULL, "%s", err.text);
    rig_end("res1");
}
END_TEST

START_TEST(test_fork_bomb_is_bounded)
{
    rig_lease("res1", -1, 20000);
    char *out = rig_run("res1", "j1", -1,
                        (const char *const[]){RIG_PROBE, "probe", "fork", NULL});
    char *end;
    long n = strtol(out, &end, 10);
    ck_assert_str_eq(end, " EAGAIN");
    ck_assert_int_eq(n, 62); /* 64 with lease-init and the bomb itself */
    free(out);
    ck_assert_int_ge(rig_wait_empty("res1", 2000), 0);
    rig_end("res1");
}
END_TEST

START_TEST(test_memory_limit)
{
    struct err err;
    char *x;
    rig_lease("res1", -1, 20000);
    struct enforce_lease lease = {.id = "res1",
                                  .deadline_boot_us = rig_now() + 20000000,
                                  .memory_max_bytes = INT64_C(64) << 20,
                                  .pids_max = 64};
    rig_ok(rig.enforce->ops->open(rig.enforce, &lease, &err), &err);
    char *out = rig_run("res1", "small", -1,
                        (const char *const[]){RIG_PROBE, "probe", "eat", "16", NULL});
    ck_assert_str_eq(out, "ate 16");
    free(out);
    rig_ok(rig_start("res1", "large", -1,
                     (const char *const[]){RIG_PROBE, "probe", "eat", "256", NULL},
                     &err),
           &err);
    out = rig_output("res1", "large", 0, 10000, &x);
    ck_assert_str_eq(out, "");
    ck_assert_msg(x != NULL && strncmp(x, "{\"signal\":9", 11) == 0, "%s", x);
    free(out);
    free(x);
    rig_end("res1");
}
END_TEST

START_TEST(test_everything_dies_with_the_job)
{
    rig_lease("res1", -1, 20000);
    char *out = rig_run("res1", "j1", -1,
                        (const char *const[]){"/bin/sh", "-c",
                                              RIG_PROBE " probe stubborn 5 & "
                                                        "sleep 0.2; echo bye",
                                              NULL});
    ck_assert_str_eq(out, "ready\nbye");
    free(out);
    ck_assert_int_ge(rig_wait_empty("res1", 2000), 0);
    rig_end("res1");
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("enforce_end");
    rig_add(s, "lease_init", test_lease_init_alone_ends_it);
    rig_add(s, "keeper", test_keeper_alone_ends_it);
    rig_add(s, "second_keeper", test_a_second_keeper_ends_it_as_well);
    rig_add(s, "gate", test_gate_alone_ends_opens);
    rig_add(s, "drain", test_drain_then_end);
    rig_add(s, "extend", test_extension_reaches_everyone);
    rig_add(s, "shorten", test_shortening_reaches_everyone);
    rig_add(s, "revoke", test_revocation_says_why);
    rig_add(s, "late_start", test_nothing_starts_after_the_end);
    rig_add(s, "fork_bomb", test_fork_bomb_is_bounded);
    rig_add(s, "memory", test_memory_limit);
    rig_add(s, "whole_job", test_everything_dies_with_the_job);
    return s;
}

int main(int argc, char **argv)
{
    return rig_main(argc, argv, suite);
}
