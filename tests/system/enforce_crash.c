/* enforce_crash: the opener or launcher killed with SIGKILL after each of its steps.
 * Whatever is left must be closed, or hold its own end, and must be brought on by the
 * next one from disk and kernel alone. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"
#include "tests/system/enforce_rig.h"

#define SH(script)                    \
    (const char *const[])             \
    {                                 \
        "/bin/sh", "-c", script, NULL \
    }
#define COUNT SH("echo run >> count; wc -l < count")

static const char *die_at;

static void die_there(const char *step)
{
    if (strcmp(step, die_at) == 0)
        kill(getpid(), SIGKILL);
}

/* Runs fn(arg) in a child that has the journal for itself; it has to be killed. */
static void crash(void (*fn)(const char *arg), const char *arg)
{
    journal_free(rig.journal);
    rig.journal = NULL;
    pid_t pid = fork();
    if (pid == 0) {
        fn(arg);
        _exit(0);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
                  "not killed at %s", arg);
}

static void launch_and_die(const char *step)
{
    struct err err;
    die_at = step;
    launch_set_step_hook(die_there);
    ck_assert_int_eq(rig_start("res1", "j1", -1, COUNT, &err), 0);
}

START_TEST(test_launcher_killed_after_each_step)
{
    static const struct {
        const char *step;
        bool keeper; /* there is one: the job runs without the launcher */
    } rows[] = {
        {"dir", false},   {"fifos", false}, {"spec", false},
        {"keeper", true}, {"ready", true},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct err err;
        char *x;
        rig_lease("res1", -1, 20000);
        crash(launch_and_die, rows[i].step);
        if (!rows[i].keeper) {
            ck_assert(!rig_populated("res1"));
            /* Looking at it starts nothing: that is for a launch, which is checked. */
            char *dir = rig_lease_dir("res1");
            int fd;
            ck_assert_int_eq(launch_attach(dir, "j1", &fd, &err), -1);
            ck_assert_int_eq(err.code, ERR_NOT_FOUND);
            free(dir);
            ck_assert(!rig_populated("res1"));
            rig_ok(rig_start("res1", "j1", -1, COUNT, &err), &err);
        } else {
            /* Attaching waits for the keeper that is on its way. */
            char *dir = rig_lease_dir("res1");
            int fd;
            rig_ok(launch_attach(dir, "j1", &fd, &err), &err);
            close(fd);
            free(dir);
            ck_assert_int_eq(rig_start("res1", "j1", -1, COUNT, &err), -1);
            ck_assert_int_eq(err.code, ERR_CONFLICT);
        }
        char *out = rig_output("res1", "j1", 0, 5000, &x);
        ck_assert_msg(strcmp(out, "1\n") == 0, "after %s: %s", rows[i].step, out);
        ck_assert_str_eq(x, "{\"exit\":0,\"reason\":\"exited\"}");
        free(out);
        free(x);
        rig_end("res1");
    }
}
END_TEST

static struct journal_lease a_lease(const char *id, enum lease_state state, int life_ms)
{
    struct journal_lease l = {.state = state,
                              .epoch = 7,
                              .deadline_boot_us = rig_now() + life_ms * INT64_C(1000),
                              .gpu_count = 1,
                              .rule_count = 1};
    snprintf(l.id, sizeof(l.id), "%s", id);
    snprintf(l.boot_id, sizeof(l.boot_id), "%s", rig.boot_id);
    snprintf(l.gpus[0], sizeof(l.gpus[0]), "GPU-0");
    l.rules[0] = (struct devprog_rule){'c', RIG_MAJOR, 0, 3};
    return l;
}

/* Opens a lease as an agent does, and dies after so many steps. */
static void open_and_die(const char *arg)
{
    struct err err;
    struct journal_lease l = a_lease("res1", LEASE_OPENING, 20000);
    struct enforce_lease e = {.id = "res1",
                              .devices = l.rules,
                              .device_count = 1,
                              .deadline_boot_us = l.deadline_boot_us};
    long steps = strtol(arg, NULL, 10);
    if (steps >= 1)
        rig_ok(journal_epoch_claim(rig_journal(), "GPU-0", 7, "res1", &err), &err);
    if (steps >= 2)
        rig_ok(journal_lease_write(rig_journal(), &l, &err), &err);
    if (steps >= 3) { /* between the cgroup and its gate */
        char *base = rig_cgroup(NULL, NULL), *dir = rig_cgroup("res1", NULL);
        rig_ok(cgroup_make(base, &err), &err);
        rig_ok(cgroup_make(dir, &err), &err);
    }
    if (steps >= 4)
        rig_ok(rig.enforce->ops->open(rig.enforce, &e, &err), &err);
    l.state = LEASE_READY;
    if (steps >= 5)
        rig_ok(journal_lease_write(rig_journal(), &l, &err), &err);
    kill(getpid(), SIGKILL);
}

static struct lease_found look(const char *id)
{
    static struct journal_lease l;
    struct lease_found f = {0};
    struct enforce_status st;
    struct err err;
    if (journal_lease_read(rig_journal(), id, &l, &err) == 0) {
        f.journalled = true;
        f.same_boot = strcmp(l.boot_id, rig.boot_id) == 0;
        f.state = l.state;
        f.deadline_boot_us = l.deadline_boot_us;
    }
    rig_ok(rig.enforce->ops->status(rig.enforce, id, &st, &err), &err);
    f.cgroup = st.exists;
    f.gated = st.gated;
    f.populated = st.populated;
    return f;
}

START_TEST(test_opener_killed_after_each_step)
{
    static const struct {
        const char *steps;
        bool journalled, cgroup, gated;
        enum lease_recovery recovery;
    } rows[] = {
        {"1", false, false, false, LEASE_REC_ORPHAN}, /* nothing but the epoch */
        {"2", true, false, false, LEASE_REC_REOPEN},
        {"3", true, true, false, LEASE_REC_REOPEN},
        {"4", true, true, true, LEASE_REC_REOPEN},
        {"5", true, true, true, LEASE_REC_KEEP},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct err err;
        int64_t epoch;
        crash(open_and_die, rows[i].steps);
        struct lease_found f = look("res1");
        ck_assert_int_eq(f.journalled, rows[i].journalled);
        ck_assert_int_eq(f.cgroup, rows[i].cgroup);
        ck_assert_int_eq(f.gated, rows[i].gated);
        ck_assert(!f.populated);
        ck_assert_int_eq(lease_recover(&f, rig_now()), rows[i].recovery);
        rig_ok(journal_epoch_get(rig_journal(), "GPU-0", &epoch, &err), &err);
        ck_assert_int_eq(epoch, 7);
        /* The same lease may go on; another one of this epoch may not. */
        rig_ok(journal_epoch_claim(rig_journal(), "GPU-0", 7, "res1", &err), &err);
        ck_assert_int_eq(journal_epoch_claim(rig_journal(), "GPU-0", 7, "res2", &err),
                         -1);
        rig_end("res1");
    }
}
END_TEST

static pid_t sleeper_in(const char *id)
{
    char *dir = rig_cgroup(id, NULL), *procs = xasprintf("%s/cgroup.procs", dir);
    pid_t pid = fork();
    if (pid == 0) {
        int fd = open(procs, O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, "0", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    while (!rig_populated(id))
        rig_pause_ms(1);
    free(procs);
    free(dir);
    return pid;
}

START_TEST(test_restart_sorts_what_it_finds)
{
    struct err err;
    struct launch_job *jobs;
    size_t count;
    rig_lease("inside", 0, 20000);
    rig_ok(rig_start("inside", "j1", -1, SH("exec sleep 100"), &err), &err);
    rig_lease("overdue", 1, 1); /* its process has no keeper and no lease-init */
    pid_t overdue = sleeper_in("overdue");
    rig_lease("orphan", 2, 20000);
    pid_t orphan = sleeper_in("orphan");
    rig_ok(journal_lease_remove(rig_journal(), "orphan", &err), &err);
    char *bare = rig_cgroup("ungated", NULL);
    struct journal_lease l = a_lease("ungated", LEASE_READY, 20000);
    rig_ok(journal_lease_write(rig_journal(), &l, &err), &err);
    rig_ok(cgroup_make(bare, &err), &err);
    pid_t ungated = sleeper_in("ungated");
    static const struct {
        const char *id;
        enum lease_recovery want;
    } rows[] = {{"inside", LEASE_REC_KEEP},
                {"overdue", LEASE_REC_END},
                {"orphan", LEASE_REC_ORPHAN},
                {"ungated", LEASE_REC_END}};
    for (size_t i = 0; i < 4; i++) {
        struct lease_found f = look(rows[i].id);
        enum lease_recovery r = lease_recover(&f, rig_now());
        ck_assert_msg(r == rows[i].want, "%s: %d", rows[i].id, (int)r);
        if (r != LEASE_REC_KEEP)
            rig_end(rows[i].id);
    }
    ck_assert_int_eq(waitpid(overdue, NULL, 0), overdue);
    ck_assert_int_eq(waitpid(orphan, NULL, 0), orphan);
    ck_assert_int_eq(waitpid(ungated, NULL, 0), ungated);
    char *dir = rig_lease_dir("inside");
    rig_ok(launch_jobs(dir, &jobs, &count, &err), &err);
    ck_assert(count == 1 && jobs[0].keeper_alive && !jobs[0].ended);
    launch_jobs_free(jobs, count);
    free(dir);
    free(bare);
    rig_end("inside");
}
END_TEST

/* The journal is lost altogether: what runs is found by its cgroup and ended. */
START_TEST(test_lost_journal)
{
    struct err err;
    char **ids;
    size_t count;
    rig_lease("res1", 0, 20000);
    rig_ok(rig_start("res1", "j1", -1, SH("exec sleep 100"), &err), &err);
    journal_free(rig.journal);
    rig.journal = NULL;
    rig_ok(fsx_remove_tree(rig.state, &err), &err);
    rig_ok(rig.enforce->ops->list(rig.enforce, &ids, &count, &err), &err);
    ck_assert_uint_eq(count, 1);
    struct lease_found f = look(ids[0]);
    ck_assert(f.populated && f.gated && !f.journalled);
    ck_assert_int_eq(lease_recover(&f, rig_now()), LEASE_REC_ORPHAN);
    rig_end(ids[0]);
    free(ids[0]);
    free(ids);
}
END_TEST

/* Ends a lease as an agent does, and dies after so many steps. */
static void end_and_die(const char *arg)
{
    struct err err;
    static struct journal_lease l;
    const struct enforce_ops *ops = rig.enforce->ops;
    long steps = strtol(arg, NULL, 10);
    char *dir = rig_lease_dir("res1");
    rig_ok(journal_lease_read(rig_journal(), "res1", &l, &err), &err);
    l.state = LEASE_DENIED;
    if (steps >= 1)
        rig_ok(journal_lease_write(rig_journal(), &l, &err), &err);
    if (steps >= 2)
        rig_ok(launch_set_reason(dir, "revoked", &err), &err);
    if (steps >= 3)
        rig_ok(ops->deny(rig.enforce, "res1", &err), &err);
    if (steps >= 4)
        rig_ok(ops->kill(rig.enforce, "res1", &err), &err);
    if (steps >= 5)
        ck_assert_int_ge(rig_wait_empty("res1", 5000), 0);
    l.state = LEASE_CLEANING;
    if (steps >= 6)
        rig_ok(journal_lease_write(rig_journal(), &l, &err), &err);
    if (steps >= 7)
        rig_ok(launch_close(dir, &err), &err);
    if (steps >= 8)
        rig_ok(ops->close(rig.enforce, "res1", &err), &err);
    l.state = LEASE_DONE;
    if (steps >= 9)
        rig_ok(journal_lease_write(rig_journal(), &l, &err), &err);
    if (steps >= 10)
        rig_ok(journal_lease_remove(rig_journal(), "res1", &err), &err);
    kill(getpid(), SIGKILL);
}

static int open_there(const char *path)
{
    return rig_open_errno(path, O_RDWR);
}

START_TEST(test_ender_killed_after_each_step)
{
    static const struct {
        const char *steps;
        bool cgroup, denied;
        enum lease_recovery recovery;
    } rows[] = {
        {"0", true, false, LEASE_REC_KEEP}, /* nothing was written down */
        {"1", true, false, LEASE_REC_END},     {"2", true, false, LEASE_REC_END},
        {"3", true, true, LEASE_REC_END},      {"4", true, true, LEASE_REC_END},
        {"5", true, true, LEASE_REC_END},      {"6", true, true, LEASE_REC_END},
        {"7", true, true, LEASE_REC_END},      {"8", false, false, LEASE_REC_END},
        {"9", false, false, LEASE_REC_FORGET}, {"10", false, false, LEASE_REC_ORPHAN},
    };
    char *node = xasprintf("%s/gpu0", rig.nodes), *dir = rig_cgroup("res1", NULL);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct err err;
        rig_lease("res1", 0, 20000);
        rig_ok(rig_start("res1", "j1", 0, SH("trap '' TERM; while :; do sleep 1; done"),
                         &err),
               &err);
        crash(end_and_die, rows[i].steps);
        struct lease_found f = look("res1");
        ck_assert_msg(f.cgroup == rows[i].cgroup, "after %s", rows[i].steps);
        if (f.cgroup)
            ck_assert_int_eq(rig_in_cgroup(dir, 65534, open_there, node),
                             rows[i].denied ? EPERM : ENXIO);
        enum lease_recovery r = lease_recover(&f, rig_now());
        ck_assert_msg(r == rows[i].recovery, "after %s: %d", rows[i].steps, (int)r);
        rig_end("res1"); /* the next agent does all of it again */
        ck_assert(!look("res1").cgroup);
    }
    free(dir);
    free(node);
}
END_TEST

static long keeper_delay_us;

/* Sends a keeper off and kills it, wherever it is by then. */
static void launch_and_kill_keeper(const char *arg)
{
    struct err err;
    struct launch_ready ready;
    struct launch_spec s = rig_spec("res1", arg, -1, COUNT);
    char *dir = rig_lease_dir("res1"), path[64];
    rig_ok(launch_begin(dir, &s, NULL, &ready, &err), &err);
    snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
    FILE *f = fopen(path, "r");
    int pid = 0;
    ck_assert(f != NULL && fscanf(f, "%d", &pid) == 1 && pid > 1);
    struct timespec t = {0, keeper_delay_us * 1000};
    (void)nanosleep(&t, NULL);
    kill(pid, SIGKILL);
    (void)waitpid(pid, NULL, 0); /* until then it has its lock */
    kill(getpid(), SIGKILL);
}

/* Whatever the keeper had done: the job has run once or not at all, its end is told,
 * and nothing of it is left. */
START_TEST(test_keeper_killed_at_any_moment)
{
    int ran = 0, lost = 0, never = 0;
    /* Later and later, until it has often been too late to prevent the start. */
    for (int i = 0; i < 300 && i - never < 25; i++) {
        struct err err;
        char *x;
        rig_lease("res1", -1, 20000);
        keeper_delay_us = i * 200;
        crash(launch_and_kill_keeper, "j1");
        char *dir = rig_lease_dir("res1");
        if (!launch_is_started(dir, "j1")) {
            never++;
            rig_ok(rig_start("res1", "j1", -1, COUNT, &err), &err);
        }
        char *out = rig_output("res1", "j1", 0, 5000, &x);
        ck_assert_msg(x != NULL, "delay %ld us: no end is told", keeper_delay_us);
        bool is_lost = strstr(x, "lost") != NULL || strstr(x, "killed") != NULL;
        ck_assert_msg(strcmp(out, "1\n") == 0 || (is_lost && out[0] == '\0'),
                      "delay %ld us: %s, %s", keeper_delay_us, x, out);
        ran += out[0] != '\0';
        lost += is_lost;
        ck_assert_int_ge(rig_wait_empty("res1", 3000), 0);
        ck_assert_int_eq(rig_start("res1", "j1", -1, COUNT, &err), -1);
        free(out);
        free(x);
        free(dir);
        rig_end("res1");
    }
    printf("keeper killed: %d ran, %d were lost, %d had to be started again\n", ran,
           lost, never);
    ck_assert_int_gt(never, 0);
    ck_assert_int_gt(ran, 0);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("enforce_crash");
    rig_add(s, "launcher", test_launcher_killed_after_each_step);
    rig_add(s, "opener", test_opener_killed_after_each_step);
    rig_add(s, "ender", test_ender_killed_after_each_step);
    rig_add(s, "starting_keeper", test_keeper_killed_at_any_moment);
    rig_add(s, "restart", test_restart_sorts_what_it_finds);
    rig_add(s, "lost_journal", test_lost_journal);
    return s;
}

int main(int argc, char **argv)
{
    return rig_main(argc, argv, suite);
}
