/* enforce_teardown: the agent killed by SIGKILL before and after each of its acts on
 * the kernel, from the opening of a lease to its teardown. Whatever instant it is, the
 * next agent brings the lease to its end: nothing runs, no cgroup is left, one teardown
 * is written, and the GPU is lent again only after that. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "tests/system/enforce_agent.h"

#define POINTS_MAX 80 /* two an act; polling may add some */

static const char *const gpu[] = {"GPU-a", NULL};

/* The real enforcement, counting its calls; dies at the one that is wanted. */
static struct enforce_ops ops;
static struct enforce counting = {&ops};
static int points, die_at;

static void point(void)
{
    if (points++ == die_at)
        (void)kill(getpid(), SIGKILL);
}

static int t_open(struct enforce *e, const struct enforce_lease *l, struct err *err)
{
    (void)e;
    point();
    int rc = rig.enforce->ops->open(rig.enforce, l, err);
    point();
    return rc;
}

static int t_deny(struct enforce *e, const char *id, struct err *err)
{
    (void)e;
    point();
    int rc = rig.enforce->ops->deny(rig.enforce, id, err);
    point();
    return rc;
}

static int t_kill(struct enforce *e, const char *id, struct err *err)
{
    (void)e;
    point();
    int rc = rig.enforce->ops->kill(rig.enforce, id, err);
    point();
    return rc;
}

static int t_status(struct enforce *e, const char *id, struct enforce_status *ret,
                    struct err *err)
{
    (void)e;
    int rc = rig.enforce->ops->status(rig.enforce, id, ret, err);
    point();
    return rc;
}

static int t_close(struct enforce *e, const char *id, struct err *err)
{
    (void)e;
    point();
    int rc = rig.enforce->ops->close(rig.enforce, id, err);
    point();
    return rc;
}

static void id_of(int n, char out[UUID_TEXT])
{
    snprintf(out, UUID_TEXT, "019307d0-7b3a-7c3e-8a5b-%012x", (unsigned)n);
}

/* The whole life of a lease with a job; does not come back when it is killed. */
static void live_and_die(int n)
{
    static const char *const sleeper[] = {"/bin/sh", "-c",
                                          "trap '' TERM; exec sleep 100", NULL};
    char id[UUID_TEXT], job[16];
    id_of(n, id);
    snprintf(job, sizeof(job), "j%d", n);
    ops = *rig.enforce->ops;
    ops.open = t_open;
    ops.deny = t_deny;
    ops.kill = t_kill;
    ops.status = t_status;
    ops.close = t_close;
    die_at = n;
    ea_start();
    ea.enforce = &counting;
    ea_open(id, gpu, 300);
    ea_launch(id, job, sleeper, NULL);
    leases_end(ea.leases, id, "revoked");
    _exit(ea_until(id, LEASE_DONE, 5000) ? 42 : 1);
}

static bool is_granted(void)
{
    struct reconcile_have have[POINTS_MAX];
    struct reconcile_in in;
    struct order o = ea_order(EA_ID("cc"), gpu, 60);
    char why[160];
    ea_look();
    agent_compare(&ea, have, POINTS_MAX, &in);
    reconcile_obstacle(&in, &o, why, sizeof(why));
    return why[0] == '\0';
}

/* The next agent, with what is there. */
static void check_after(int n)
{
    char id[UUID_TEXT];
    const struct journal_lease *j;
    id_of(n, id);
    ea_start();
    j = leases_find(ea.leases, id);
    if (j != NULL && j->state != LEASE_DONE) {
        ck_assert_msg(!is_granted(), "point %d: %s and granted", n,
                      lease_state_name(j->state));
        leases_end(ea.leases, id, "stopped"); /* as the market says again */
    }
    ck_assert_msg(ea_until(id, LEASE_DONE, 5000), "point %d: stays %s", n,
                  lease_state_name(ea_state(id)));
    ck_assert(!rig_populated(id));
    char *dir = rig_cgroup(id, NULL);
    ck_assert_msg(access(dir, F_OK) != 0, "point %d: its cgroup is left", n);
    free(dir);
    const struct usage_chain *c = spool_chain(ea.spool, id);
    if (c != NULL)
        ck_assert_msg(c->last == USAGE_TEARDOWN, "point %d: no teardown", n);
    ck_assert_msg(is_granted(), "point %d: never lent again", n);
    ea_die();
}

START_TEST(test_agent_killed_at_every_step)
{
    int n = 0;
    bool whole = false;
    ea_nvml(
        "gpu uuid=GPU-a name=H100 minor=3 pci=00000000:3B:00.0 total=81559 used=4\n");
    ea_node("nvidia3", RIG_MAJOR, 3);
    for (; n < POINTS_MAX && !whole; n++) {
        journal_free(rig.journal);
        rig.journal = NULL;
        pid_t pid = fork();
        if (pid == 0)
            live_and_die(n);
        int status;
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        whole = WIFEXITED(status) && WEXITSTATUS(status) == 42;
        ck_assert_msg(whole || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL),
                      "point %d: %d", n, status);
        check_after(n);
    }
    ck_assert_msg(whole && n > 10, "%d points", n);
    printf("killed at %d points\n", n - 1);
}
END_TEST

/* And between the acts: at instants by chance, journal and receipts included. */
START_TEST(test_agent_killed_at_any_instant)
{
    unsigned seed = (unsigned)clock_now_us();
    int64_t whole_us = 0;
    int ended = 0;
    ea_nvml(
        "gpu uuid=GPU-a name=H100 minor=3 pci=00000000:3B:00.0 total=81559 used=4\n");
    ea_node("nvidia3", RIG_MAJOR, 3);
    printf("seed %u\n", seed);
    for (int n = 0; n < 30; n++) {
        int64_t from = rig_now(), after = whole_us > 0 ? rand_r(&seed) % whole_us : 0;
        int status;
        journal_free(rig.journal);
        rig.journal = NULL;
        pid_t pid = fork();
        if (pid == 0)
            live_and_die(POINTS_MAX + n); /* no point has that number */
        while (n > 0 && rig_now() < from + after)
            rig_pause_ms(1);
        if (n > 0)
            ck_assert_int_eq(kill(pid, SIGKILL), 0);
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        if (n == 0)
            whole_us = rig_now() - from; /* how long it takes here */
        ended += WIFEXITED(status);
        check_after(POINTS_MAX + n);
    }
    ck_assert_msg(ended < 25, "%d of 30 were over before they were killed", ended);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("enforce_teardown");
    rig_add(s, "every_step", test_agent_killed_at_every_step);
    rig_add(s, "any_instant", test_agent_killed_at_any_instant);
    return s;
}

int main(int argc, char **argv)
{
    return rig_main(argc, argv, suite);
}
