/* enforce_shorten: a lease whose end is ordered to come earlier, with the agent's own
 * journal and the real kernel: gate, keeper and lease-init end at the new time although
 * the agent is dead by then, and a new agent goes on with the new end. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/agent/agent.h"
#include "client/agent/leases.h"
#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/jws.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "tests/system/enforce_rig.h"

#define LEASE "019307d0-7b3a-7c3e-8a5b-0123456789ab"
#define GPU   "GPU-rig-0"
#define DRAIN (700 * INT64_C(1000))

static struct agent agent;

static void agent_start(void)
{
    struct agent *a = &agent;
    struct gpu_info gpus[GPUS_PER_NODE_MAX];
    struct advert_limits limits = {1024, 50000};
    struct err err;
    size_t count;
    char *sim = xasprintf("%s/gpus.json", rig.dir);
    char *text = xasprintf("{\"gpus\":[{\"uuid\":\"" GPU "\",\"model\":\"H100\","
                           "\"memory_mib\":80000,\"device\":\"%s/gpu0\"}]}",
                           rig.nodes);
    struct gpu_source source = {.path = sim};
    memset(a, 0, sizeof(*a));
    rig_ok(fsx_write(sim, text, strlen(text), 0600, &err), &err);
    rig_ok(settings_load(NULL, &a->conf, &err), &err);
    free(a->conf.cgroup_base);
    a->conf.cgroup_base = xstrdup(rig.base);
    a->enforce = rig.enforce;
    a->journal = rig_journal();
    a->id.spiffe_id = xstrdup("spiffe://test/site/s/node/n");
    rig_ok(jws_keygen(&a->id.receipt_key, &err), &err);
    rig_ok(spool_open(rig.state, a->id.receipt_key, &a->spool, &err), &err);
    memcpy(a->boot_id, rig.boot_id, sizeof(a->boot_id));
    a->receipt_interval_us = 60 * US_PER_S;
    signedtime_add(&a->time, clock_now_us(), clock_boot_us());
    a->gpu_ops = &gpu_sim;
    rig_ok(gpu_sim.open(&source, &a->gpu, &err), &err);
    rig_ok(gpu_sim.list(a->gpu, gpus, GPUS_PER_NODE_MAX, &count, &err), &err);
    a->leases = leases_new(a);
    advert_observe(&a->advert, gpus, count, &limits, leases_hold, a->leases);
    rig_ok(leases_recover(a->leases, &err), &err);
    free(text);
    free(sim);
}

/* As by kill -9: nothing is told to anyone. The journal's lock is the test's. */
static void agent_die(void)
{
    leases_free(agent.leases);
    spool_free(agent.spool);
    gpu_sim.close(agent.gpu);
    EVP_PKEY_free(agent.id.receipt_key);
    free(agent.id.spiffe_id);
    settings_done(&agent.conf);
}

static struct order order_for(int64_t seconds, int64_t generation)
{
    struct order o = {.gpu_count = 1, .epoch = 1, .drain_us = DRAIN, .on_lost_us = -1};
    int64_t now;
    ck_assert(agent_now(&agent, &now));
    snprintf(o.id, sizeof(o.id), "%s", LEASE);
    snprintf(o.tenant, sizeof(o.tenant), "019307d0-7b3a-7c3e-8a5b-0123456789ff");
    snprintf(o.gpus[0], sizeof(o.gpus[0]), "%s", GPU);
    o.not_before_us = now - 60 * US_PER_S;
    o.not_after_us = now + seconds * US_PER_S;
    o.generation = generation;
    return o;
}

/* A job that writes when it is told to end, and does not. */
static void launch_stubborn(void)
{
    char *argv[] = {"/bin/sh", "-c",
                    "trap 'echo term' TERM; echo ready; while :; do sleep 0.05; done",
                    NULL};
    char *envp[] = {NULL};
    struct token_claims *claims = xcalloc(1, sizeof(*claims));
    struct leases_launched out = {0};
    struct err err;
    snprintf(claims->jti, sizeof(claims->jti), "j1");
    snprintf(claims->lease.reservation, sizeof(claims->lease.reservation), "%s", LEASE);
    claims->exp_us = clock_now_us() + 60 * US_PER_S;
    const struct leases_launch in = {
        .claims = claims, .argv_hash = "hash", .argv = argv, .envp = envp};
    ck_assert_msg(leases_launch(agent.leases, &in, &out, &err) == 0, "%s: %s", out.step,
                  err.text);
    rig_ok(launch_wait_ready(&out.ready, &err), &err);
    leases_job_started(agent.leases, LEASE);
    ck_assert_int_eq(leases_find(agent.leases, LEASE)->state, LEASE_RUNNING);
    free(claims);
}

static int open_gpu(const char *path)
{
    return rig_open_errno(path, O_RDWR);
}

static int gpu_errno(void)
{
    char *dir = rig_cgroup(LEASE, NULL), *node = xasprintf("%s/gpu0", rig.nodes);
    int rc = rig_in_cgroup(dir, 0, open_gpu, node);
    free(node);
    free(dir);
    return rc;
}

START_TEST(test_ends_early_with_nobody_alive)
{
    struct err err;
    const char *step;
    agent_start();
    struct order o = order_for(60, 1);
    ck_assert_msg(leases_open(agent.leases, &o, &step, &err) == 0, "%s: %s", step,
                  err.text);
    launch_stubborn();
    ck_assert_int_eq(gpu_errno(), ENXIO); /* let through; no driver answers */
    o = order_for(0, 2);
    rig_ok(leases_shorten(agent.leases, &o, &err), &err);
    int64_t end = leases_find(agent.leases, LEASE)->deadline_boot_us;
    int64_t left = end - clock_boot_us();
    ck_assert_msg(left > DRAIN / 2 && left <= DRAIN, "%ld us left", (long)left);
    agent_die();
    ck_assert_int_eq(gpu_errno(), ENXIO); /* its drain is its own */
    ck_assert(rig_populated(LEASE));
    while (rig_populated(LEASE)) {
        ck_assert_msg(clock_boot_us() < end + 1000000, "still runs a second later");
        rig_pause_ms(1);
    }
    int64_t late = clock_boot_us() - end;
    ck_assert_msg(late >= 0 && late < 200000, "ended %ld us late", (long)late);
    ck_assert_int_eq(gpu_errno(), EPERM);
    char *x, *out = rig_output(LEASE, "j1", 0, 2000, &x);
    ck_assert_ptr_nonnull(strstr(out, "term\n")); /* it was told */
    ck_assert_str_eq(x, "{\"signal\":9,\"reason\":\"lease_end\"}");
    free(out);
    free(x);
    agent_start(); /* and the next one sees it through */
    for (int i = 0; i < 100 && leases_find(agent.leases, LEASE)->state != LEASE_DONE;
         i++) {
        leases_tick(agent.leases, clock_boot_us());
        rig_pause_ms(5);
    }
    ck_assert_int_eq(leases_find(agent.leases, LEASE)->state, LEASE_DONE);
    agent_die();
}
END_TEST

START_TEST(test_a_new_agent_keeps_the_earlier_end)
{
    struct err err;
    const char *step;
    agent_start();
    struct order o = order_for(60, 1), token = order_for(60, 0);
    ck_assert_msg(leases_open(agent.leases, &o, &step, &err) == 0, "%s: %s", step,
                  err.text);
    launch_stubborn();
    o = order_for(2, 2);
    rig_ok(leases_shorten(agent.leases, &o, &err), &err);
    int64_t end = leases_find(agent.leases, LEASE)->deadline_boot_us;
    agent_die();
    agent_start();
    ck_assert_int_eq(leases_find(agent.leases, LEASE)->deadline_boot_us, end);
    rig_ok(leases_extend(agent.leases, &token, &err), &err);
    ck_assert_int_eq(leases_find(agent.leases, LEASE)->deadline_boot_us, end);
    while (leases_find(agent.leases, LEASE)->state != LEASE_DONE) {
        ck_assert_msg(clock_boot_us() < end + 2000000, "not done 2 s later");
        leases_tick(agent.leases, clock_boot_us());
        rig_pause_ms(5);
    }
    ck_assert_int_ge(clock_boot_us(), end);
    agent_die();
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("enforce_shorten");
    rig_add(s, "dead", test_ends_early_with_nobody_alive);
    rig_add(s, "restart", test_a_new_agent_keeps_the_earlier_end);
    return s;
}

int main(int argc, char **argv)
{
    return rig_main(argc, argv, suite);
}
