/* leases: what a node does from an order to the last receipt, with deaths in between.
 * Time is moved by handing leases_tick another boot time. */
#include "tests/unit/agent_rig.h"

#include <time.h>

static int64_t end_boot(const struct rig *r)
{
    return leases_find(r->a.leases, KIT_RES)->deadline_boot_us;
}

static const struct usage_chain *chain(const struct rig *r)
{
    return spool_chain(r->a.spool, KIT_RES);
}

START_TEST(test_open)
{
    struct rig r;
    rig_init(&r);
    rig_lease(&r);
    const struct rig_cgroup *c = rig_cgroup(&r, KIT_RES);
    ck_assert_int_eq(rig_state(&r), LEASE_READY);
    ck_assert(c->gated);
    ck_assert_int_eq(c->deadline_boot_us, end_boot(&r));
    ck_assert_int_eq(chain(&r)->last, USAGE_READY);
    advert_hold(&r.a.advert, leases_hold, r.a.leases);
    ck_assert_int_eq(r.a.advert.gpus[0].state, ADVERT_LEASED);
    rig_lease(&r); /* again: nothing */
    ck_assert_int_eq(chain(&r)->seq, 1);
    ck_assert_int_eq(c->opens, 1);
    rig_done(&r);
}
END_TEST

START_TEST(test_end_to_done)
{
    struct rig r;
    rig_init(&r);
    rig_lease(&r);
    int64_t end = end_boot(&r), t = end - r.order.drain_us;
    rig_cgroup(&r, KIT_RES)->populated = true;
    leases_tick(r.a.leases, t - 1);
    ck_assert_int_eq(rig_state(&r), LEASE_READY);
    ck_assert_int_le(leases_tick(r.a.leases, t), end);
    ck_assert_int_eq(rig_state(&r), LEASE_DRAINING);
    leases_tick(r.a.leases, end - 1);
    ck_assert_int_eq(rig_state(&r), LEASE_DRAINING);
    leases_tick(r.a.leases, end);
    ck_assert_int_eq(rig_state(&r), LEASE_DONE); /* killed, seen empty, clean */
    ck_assert(!rig_cgroup(&r, KIT_RES)->exists);
    ck_assert_int_eq(chain(&r)->last, USAGE_TEARDOWN);
    ck_assert_int_le(chain(&r)->to_us, r.order.not_after_us);
    ck_assert_str_eq(leases_find(r.a.leases, KIT_RES)->reason, "lease_end");
    advert_hold(&r.a.advert, leases_hold, r.a.leases);
    ck_assert_int_eq(r.a.advert.gpus[0].state, ADVERT_IDLE);
    struct err err;
    const char *step;
    ck_assert_int_eq(leases_open(r.a.leases, &r.order, &step, &err), -1);
    rig_done(&r);
}
END_TEST

START_TEST(test_undying_is_quarantined)
{
    struct rig r;
    rig_init(&r);
    rig_lease(&r);
    struct rig_cgroup *c = rig_cgroup(&r, KIT_RES);
    c->populated = c->undying = true;
    leases_end(r.a.leases, KIT_RES, "revoked");
    int64_t now = clock_boot_us();
    leases_tick(r.a.leases, now);
    ck_assert_int_eq(rig_state(&r), LEASE_DENIED);
    leases_tick(r.a.leases, now + LEASE_KILL_US + US_PER_S);
    ck_assert_int_eq(rig_state(&r), LEASE_QUARANTINED);
    ck_assert_int_eq(chain(&r)->last, USAGE_INTERVAL); /* never "gone" */
    advert_hold(&r.a.advert, leases_hold, r.a.leases);
    ck_assert_int_eq(r.a.advert.gpus[0].state, ADVERT_QUARANTINED);
    rig_die(&r);
    rig_start(&r); /* and stays so */
    ck_assert_int_eq(rig_state(&r), LEASE_QUARANTINED);
    char *mark = xasprintf("%s/leases/" KIT_RES "/released", r.dir);
    struct err err;
    ck_assert_int_eq(fsx_write(mark, "", 0, 0600, &err), 0);
    free(mark);
    c->undying = false;
    leases_tick(r.a.leases, clock_boot_us() + 10 * US_PER_S);
    ck_assert_int_eq(rig_state(&r), LEASE_DONE);
    rig_done(&r);
}
END_TEST

/* Not being able to look is not the same as seeing nothing. */
START_TEST(test_unseen_is_not_empty)
{
    struct rig r;
    rig_init(&r);
    rig_lease(&r);
    struct rig_cgroup *c = rig_cgroup(&r, KIT_RES);
    c->populated = c->undying = true;
    leases_end(r.a.leases, KIT_RES, "revoked");
    r.status_fails = true;
    leases_tick(r.a.leases, clock_boot_us());
    ck_assert_int_eq(rig_state(&r), LEASE_DENIED);
    rig_die(&r);
    rig_start(&r);
    ck_assert_int_eq(rig_state(&r), LEASE_DENIED);
    r.status_fails = c->undying = false;
    int64_t later = clock_boot_us() + US_PER_S;
    leases_tick(r.a.leases, later); /* kills again */
    leases_tick(r.a.leases, later + US_PER_S);
    ck_assert_int_eq(rig_state(&r), LEASE_DONE);
    rig_done(&r);
}
END_TEST

static void pass_us(int64_t us)
{
    struct timespec t = {0, us * 1000};
    ck_assert_int_eq(nanosleep(&t, NULL), 0);
}

/* The tenant pays until the gate was closed: not for killing, cleaning, a quarantine, a
 * restart of the agent meanwhile. */
START_TEST(test_nothing_is_metered_after_the_end)
{
    struct rig r;
    struct err err;
    rig_init(&r);
    rig_lease(&r);
    struct rig_cgroup *c = rig_cgroup(&r, KIT_RES);
    c->populated = c->undying = true;
    pass_us(2000);
    leases_end(r.a.leases, KIT_RES, "stopped");
    int64_t used_us = chain(&r)->gpu_us;
    ck_assert_int_gt(used_us, 0);
    pass_us(20000);
    rig_die(&r);
    rig_start(&r); /* still being killed */
    ck_assert_int_eq(rig_state(&r), LEASE_DENIED);
    ck_assert_int_le(chain(&r)->gpu_us, used_us);
    int64_t now = clock_boot_us();
    leases_tick(r.a.leases, now);
    leases_tick(r.a.leases, now + LEASE_KILL_US + US_PER_S);
    ck_assert_int_eq(rig_state(&r), LEASE_QUARANTINED);
    char *mark = xasprintf("%s/leases/" KIT_RES "/released", r.dir);
    ck_assert_int_eq(fsx_write(mark, "", 0, 0600, &err), 0);
    free(mark);
    c->undying = false;
    leases_tick(r.a.leases, now + 100 * US_PER_S);
    ck_assert_int_eq(rig_state(&r), LEASE_DONE);
    ck_assert_int_eq(chain(&r)->last, USAGE_TEARDOWN);
    ck_assert_int_le(chain(&r)->gpu_us, used_us);
    rig_done(&r);
}
END_TEST

START_TEST(test_unclean_gpu_is_quarantined)
{
    struct rig r;
    rig_init(&r);
    rig_lease(&r);
    rig_gpus(&r, true); /* a process is left on it */
    leases_end(r.a.leases, KIT_RES, "stopped");
    int64_t now = clock_boot_us();
    leases_tick(r.a.leases, now);
    ck_assert_int_eq(rig_state(&r), LEASE_CLEANING);
    leases_tick(r.a.leases, now + LEASES_CLEAN_US + US_PER_S);
    ck_assert_int_eq(rig_state(&r), LEASE_QUARANTINED);
    rig_done(&r);
}
END_TEST

START_TEST(test_open_fails)
{
    struct rig r;
    struct err err;
    const char *step;
    rig_init(&r);
    r.open_fails = true;
    ck_assert_int_eq(leases_open(r.a.leases, &r.order, &step, &err), -1);
    ck_assert_str_eq(step, "gate");
    leases_tick(r.a.leases, clock_boot_us());
    ck_assert_int_eq(rig_state(&r), LEASE_DONE);
    ck_assert_ptr_null(chain(&r)); /* nothing was delivered, nothing is billed */
    r.open_fails = false;
    leases_tick(r.a.leases, clock_boot_us() + 60 * US_PER_S);
    ck_assert_ptr_null(leases_find(r.a.leases, KIT_RES));
    rig_lease(&r); /* it may be tried again */
    rig_done(&r);
}
END_TEST

START_TEST(test_refusals)
{
    struct rig r;
    struct err err;
    const char *step;
    char *nobody[] = {(char *)KIT_RES, NULL};
    rig_init(&r);
    struct order o = r.order;
    o.not_before_us = KIT_NOW + 3600 * US_PER_S;
    ck_assert_int_eq(leases_open(r.a.leases, &o, &step, &err), -1);
    ck_assert_str_eq(step, "lease");
    r.a.conf.allowed_tenants = nobody;
    ck_assert_int_eq(leases_open(r.a.leases, &r.order, &step, &err), -1);
    ck_assert_str_eq(step, "policy");
    r.a.conf.allowed_tenants = NULL;
    ck_assert_int_eq(journal_epoch_claim(r.a.journal, r.order.gpus[0],
                                         r.order.epoch + 1, "later", &err),
                     0);
    ck_assert_int_eq(leases_open(r.a.leases, &r.order, &step, &err), -1);
    ck_assert_str_eq(step, "epoch");
    ck_assert_ptr_null(leases_find(r.a.leases, KIT_RES));
    rig_done(&r);
}
END_TEST

START_TEST(test_extend)
{
    struct rig r;
    struct err err;
    rig_init(&r);
    rig_lease(&r);
    int64_t before = end_boot(&r);
    r.order.not_after_us += 60 * US_PER_S;
    r.order.generation = 2;
    ck_assert_int_eq(leases_extend(r.a.leases, &r.order, &err), 0);
    ck_assert_int_eq(end_boot(&r), before + 60 * US_PER_S);
    ck_assert_int_eq(rig_cgroup(&r, KIT_RES)->deadline_boot_us, end_boot(&r));
    rig_die(&r);
    rig_start(&r);
    ck_assert_int_eq(end_boot(&r), before + 60 * US_PER_S);
    rig_done(&r);
}
END_TEST

/* A shorter end reaches gate and journal, outlives the agent, and is not undone by a
 * token, which may have been issued before. */
START_TEST(test_shorten)
{
    struct rig r;
    struct err err;
    rig_init(&r);
    rig_lease(&r);
    int64_t before = end_boot(&r), after = before - 600 * US_PER_S;
    struct order token = r.order;
    token.generation = 0;
    r.order.not_after_us -= 600 * US_PER_S;
    ck_assert_int_eq(leases_shorten(r.a.leases, &r.order, &err), 0);
    ck_assert_int_eq(end_boot(&r),
                     before); /* no newer generation: not this one's word */
    r.order.generation = 2;
    ck_assert_msg(leases_shorten(r.a.leases, &r.order, &err) == 0, "%s", err.text);
    ck_assert_int_eq(end_boot(&r), after);
    ck_assert_int_eq(rig_cgroup(&r, KIT_RES)->deadline_boot_us, after);
    ck_assert_int_eq(leases_extend(r.a.leases, &token, &err), 0);
    ck_assert_int_eq(end_boot(&r), after);
    rig_die(&r);
    rig_start(&r);
    ck_assert_int_eq(end_boot(&r), after);
    ck_assert_int_eq(leases_find(r.a.leases, KIT_RES)->generation, 2);
    ck_assert_int_eq(leases_extend(r.a.leases, &token, &err), 0);
    ck_assert_int_eq(end_boot(&r), after);
    r.order.not_after_us += 300 * US_PER_S;
    r.order.generation = 3; /* the market's later word lengthens it again */
    ck_assert_int_eq(leases_extend(r.a.leases, &r.order, &err), 0);
    ck_assert_int_eq(end_boot(&r), after + 300 * US_PER_S);
    leases_tick(r.a.leases, end_boot(&r));
    ck_assert_int_eq(rig_state(&r), LEASE_DONE);
    ck_assert_str_eq(leases_find(r.a.leases, KIT_RES)->reason, "lease_end");
    rig_done(&r);
}
END_TEST

/* A spot lease lasts as long as the market has said last, whatever a token promises. */
START_TEST(test_spot_terms)
{
    struct rig r;
    struct err err;
    rig_init(&r);
    struct order token = r.order;
    r.order.spot = true;
    r.order.generation = 1 << 20;
    r.order.not_after_us -= 600 * US_PER_S;
    rig_lease(&r);
    int64_t before = end_boot(&r);
    ck_assert_int_eq(leases_extend(r.a.leases, &token, &err), 0);
    ck_assert_int_eq(end_boot(&r), before);
    r.order.generation++;
    r.order.not_after_us += 40 * US_PER_S; /* the next term */
    ck_assert_int_eq(leases_extend(r.a.leases, &r.order, &err), 0);
    ck_assert_int_eq(end_boot(&r), before + 40 * US_PER_S);
    rig_die(&r);
    rig_start(&r);
    ck_assert_int_eq(leases_extend(r.a.leases, &token, &err), 0);
    ck_assert_int_eq(end_boot(&r), before + 40 * US_PER_S);
    rig_done(&r);
}
END_TEST

/* Jobs have their drain whatever is ordered, and an end never becomes a later one. */
START_TEST(test_shorten_leaves_the_drain)
{
    struct rig r;
    struct err err;
    int64_t now;
    rig_init(&r);
    r.order.drain_us = 20 * US_PER_S;
    rig_lease(&r);
    rig_cgroup(&r, KIT_RES)->populated = true;
    ck_assert(agent_now(&r.a, &now));
    r.order.not_after_us = now - 5 * US_PER_S;
    r.order.generation = 2;
    ck_assert_int_eq(leases_shorten(r.a.leases, &r.order, &err), 0);
    int64_t left = end_boot(&r) - clock_boot_us();
    ck_assert_int_le(left, 20 * US_PER_S);
    ck_assert_int_ge(left, 19 * US_PER_S);
    leases_tick(r.a.leases, end_boot(&r) - US_PER_S);
    ck_assert_int_eq(rig_state(&r), LEASE_DRAINING);
    int64_t end = end_boot(&r);
    r.order.generation = 3;
    ck_assert_int_eq(leases_shorten(r.a.leases, &r.order, &err), 0);
    ck_assert_int_le(end_boot(&r), end);
    ck_assert_int_eq(rig_state(&r), LEASE_DRAINING);
    leases_end(r.a.leases, KIT_RES, "stopped");
    r.order.generation = 4;
    ck_assert_int_eq(leases_shorten(r.a.leases, &r.order, &err), -1);
    ck_assert_int_eq(err.code, ERR_CONFLICT);
    rig_done(&r);
}
END_TEST

START_TEST(test_an_ended_lease_is_not_extended)
{
    struct rig r;
    struct err err;
    rig_init(&r);
    rig_lease(&r);
    int64_t before = end_boot(&r);
    leases_end(r.a.leases, KIT_RES, "stopped");
    r.order.not_after_us += 60 * US_PER_S;
    ck_assert_int_eq(leases_extend(r.a.leases, &r.order, &err), -1);
    ck_assert_int_eq(err.code, ERR_CONFLICT);
    ck_assert_int_eq(end_boot(&r), before);
    rig_done(&r);
}
END_TEST

/* Better time may only shorten what the gate holds. */
START_TEST(test_retime)
{
    struct rig r;
    rig_init(&r);
    rig_lease(&r);
    int64_t before = end_boot(&r), boot = clock_boot_us();
    signedtime_add(&r.a.time, signedtime_at(&r.a.time, boot) - US_PER_S, boot);
    leases_retime(r.a.leases);
    ck_assert_int_eq(end_boot(&r), before);
    signedtime_add(&r.a.time, signedtime_at(&r.a.time, boot) + 2 * US_PER_S, boot);
    leases_retime(r.a.leases);
    ck_assert_int_eq(end_boot(&r), before - 2 * US_PER_S);
    ck_assert_int_eq(rig_cgroup(&r, KIT_RES)->deadline_boot_us, before - 2 * US_PER_S);
    rig_done(&r);
}
END_TEST

START_TEST(test_killed_and_restarted)
{
    struct rig r;
    rig_init(&r);
    rig_lease(&r);
    struct rig_cgroup *c = rig_cgroup(&r, KIT_RES);
    c->populated = true;
    rig_die(&r);
    rig_start(&r);
    ck_assert_int_eq(rig_state(&r), LEASE_READY);
    ck_assert_int_eq(c->opens, 1); /* not touched */
    ck_assert_int_eq(c->kills, 0);
    ck_assert_int_eq(chain(&r)->seq, 1);
    leases_tick(r.a.leases, end_boot(&r));
    ck_assert_int_eq(rig_state(&r), LEASE_DONE);
    ck_assert_int_eq(chain(&r)->last, USAGE_TEARDOWN);
    rig_done(&r);
}
END_TEST

START_TEST(test_gate_taken_away)
{
    struct rig r;
    rig_init(&r);
    rig_lease(&r);
    struct rig_cgroup *c = rig_cgroup(&r, KIT_RES);
    leases_tick(r.a.leases, clock_boot_us());
    ck_assert_int_eq(rig_state(&r), LEASE_READY);
    c->gated = false;
    c->populated = true;
    leases_tick(r.a.leases, clock_boot_us() + 2 * US_PER_S);
    ck_assert_int_eq(rig_state(&r), LEASE_DONE);
    ck_assert_str_eq(leases_find(r.a.leases, KIT_RES)->reason, "gate_lost");
    rig_done(&r);
}
END_TEST

/* A launch looks at the gate first: with processes inside it is refused. */
START_TEST(test_no_launch_without_gate)
{
    struct rig r;
    struct leases_launched out;
    char *argv[] = {(char *)"/bin/true", NULL}, *envp[] = {NULL};
    struct leases_launch in = {
        .claims = &r.claims, .argv_hash = "h", .argv = argv, .envp = envp};
    struct err err;
    rig_init(&r);
    rig_lease(&r);
    struct rig_cgroup *c = rig_cgroup(&r, KIT_RES);
    c->gated = false;
    c->populated = true;
    ck_assert_int_eq(leases_launch(r.a.leases, &in, &out, &err), -1);
    ck_assert_str_eq(out.step, "gate");
    rig_done(&r);
}
END_TEST

/* The agent died after the token was used up, before the job was made: repeating the
 * launch makes it; once it was made, repeating finds it. */
START_TEST(test_launch_cut_off_is_finished)
{
    struct rig r;
    struct leases_launched out;
    char *argv[] = {(char *)"/bin/true", NULL}, *envp[] = {NULL};
    struct leases_launch in = {
        .claims = &r.claims, .argv_hash = "h", .argv = argv, .envp = envp};
    struct err err;
    char found[JOURNAL_ID_MAX];
    rig_init(&r);
    rig_lease(&r);
    struct journal_use use = {r.claims.jti, KIT_RES, "h", r.claims.jti,
                              r.claims.exp_us};
    ck_assert_int_eq(journal_jti_claim(r.a.journal, &use, found, &err), 0);
    /* No keeper can be started here: it gets as far as that. */
    ck_assert_int_eq(leases_launch(r.a.leases, &in, &out, &err), 0);
    ck_assert(!out.again);
    ck_assert_int_eq(launch_wait_ready(&out.ready, &err), -1);
    ck_assert_int_eq(rig_state(&r), LEASE_READY); /* nothing runs */
    char *mark = xasprintf("%s/leases/" KIT_RES "/jobs/%s/started", r.dir, use.job);
    ck_assert_int_eq(fsx_write(mark, "1\n", 2, 0600, &err), 0);
    free(mark);
    ck_assert_int_eq(leases_launch(r.a.leases, &in, &out, &err), 0);
    ck_assert(out.again);
    ck_assert_str_eq(out.job, use.job);
    rig_done(&r);
}
END_TEST

START_TEST(test_orphans_and_lost_gates_end)
{
    struct rig r;
    rig_init(&r);
    rig_lease(&r);
    struct rig_cgroup *mine = rig_cgroup(&r, KIT_RES),
                      *orphan = rig_cgroup(&r, "nobody");
    orphan->exists = orphan->populated = true;
    mine->gated = false; /* someone took the gate away while jobs ran */
    mine->populated = true;
    rig_die(&r);
    rig_start(&r);
    ck_assert_int_gt(orphan->kills, 0);
    ck_assert_int_gt(mine->kills, 0);
    leases_tick(r.a.leases, clock_boot_us());
    ck_assert(!orphan->exists);
    ck_assert_int_eq(rig_state(&r), LEASE_DONE);
    json_t *told = leases_json(r.a.leases);
    ck_assert_uint_eq(json_array_size(told), 1); /* the orphan is nobody's */
    json_decref(told);
    rig_done(&r);
}
END_TEST

/* Died between the journal's "done" and the teardown receipt. */
START_TEST(test_receipt_after_death)
{
    struct rig r;
    struct err err;
    rig_init(&r);
    rig_lease(&r);
    struct journal_lease *j = xcalloc(1, sizeof(*j));
    *j = *leases_find(r.a.leases, KIT_RES);
    j->state = LEASE_DONE;
    ck_assert_int_eq(journal_lease_write(r.a.journal, j, &err), 0);
    rig_cgroup(&r, KIT_RES)->exists = false;
    free(j);
    rig_die(&r);
    rig_start(&r);
    ck_assert_int_eq(chain(&r)->last, USAGE_TEARDOWN);
    rig_done(&r);
}
END_TEST

/* Another boot: nothing before there is signed time, then the lease is opened again. */
START_TEST(test_reboot)
{
    struct rig r;
    rig_init(&r);
    rig_lease(&r);
    struct signedtime known = r.a.time;
    struct rig_cgroup *c = rig_cgroup(&r, KIT_RES);
    rig_die(&r);
    memset(c, 0, sizeof(*c)); /* cgroups do not outlive a boot */
    snprintf(r.a.boot_id, sizeof(r.a.boot_id), "00000000-0000-4000-8000-000000000000");
    r.a.time = (struct signedtime){.count = 0};
    rig_start(&r);
    leases_tick(r.a.leases, clock_boot_us());
    c = rig_cgroup(&r, KIT_RES);
    ck_assert_int_eq(c->opens, 0);
    ck_assert_int_eq(chain(&r)->seq, 1);
    r.a.time = known;
    leases_tick(r.a.leases, clock_boot_us());
    ck_assert_int_eq(rig_state(&r), LEASE_READY);
    ck_assert_int_eq(c->opens, 1);
    ck_assert_int_eq(chain(&r)->seq, 2);
    ck_assert_int_eq(chain(&r)->gpu_us, 0); /* the time between was not delivered */
    rig_done(&r);
}
END_TEST

START_TEST(test_interval_receipts)
{
    struct rig r;
    rig_init(&r);
    rig_lease(&r);
    int64_t now = clock_boot_us();
    leases_tick(r.a.leases, now + 59 * US_PER_S);
    ck_assert_int_eq(chain(&r)->seq, 1);
    leases_tick(r.a.leases, now + 61 * US_PER_S);
    ck_assert_int_eq(chain(&r)->seq, 2);
    ck_assert_int_eq(chain(&r)->last, USAGE_INTERVAL);
    rig_done(&r);
}
END_TEST

static void hear_status(struct rig *r, int64_t now_us, int64_t seq)
{
    struct desired d = {.version = "v"};
    struct err err;
    json_t *doc = json_pack("{s:s,s:I,s:I,s:I,s:[],s:[]}", "iss", KIT_ISSUER, "iat",
                            (json_int_t)(now_us / US_PER_S), "seq", (json_int_t)seq,
                            "now_us", (json_int_t)now_us, "revoked", "revoked_kids");
    ck_assert_int_eq(jws_sign(r->kit.key, JWS_TYP_STATUS, doc, &d.status, &err), 0);
    json_decref(doc);
    agent_take_desired(&r->a, &d, clock_boot_us());
}

/* A lease that the market has withdrawn is not opened by an order that comes late. */
START_TEST(test_withdrawn_epoch_is_not_opened)
{
    struct rig r;
    struct err err;
    struct token_epoch min = {.epoch = 0};
    const char *step = "";
    rig_init(&r);
    snprintf(min.gpu, sizeof(min.gpu), "%s", r.order.gpus[0]);
    min.epoch = r.order.epoch;
    r.a.status.min_epochs = &min;
    r.a.status.min_epoch_count = 1;
    ck_assert_int_eq(leases_open(r.a.leases, &r.order, &step, &err), -1);
    ck_assert_str_eq(step, "epoch");
    ck_assert_ptr_null(leases_find(r.a.leases, KIT_RES));
    min.epoch--;
    rig_lease(&r);
    r.a.status.min_epoch_count = 0;
    rig_done(&r);
}
END_TEST

/* Neither while it runs nor after a reboot is an agent talked back into the past. */
START_TEST(test_status_never_goes_back)
{
    struct rig r;
    rig_init(&r);
    free(r.a.conf.state_dir);
    r.a.conf.state_dir = xstrdup(r.dir);
    int64_t t = KIT_NOW + 300 * US_PER_S;
    hear_status(&r, t, 20);
    ck_assert_int_eq(r.a.status.iat_us, t);
    hear_status(&r, t - 1, 21);
    hear_status(&r, t + 1, 19);
    ck_assert_int_eq(r.a.status.iat_us, t);
    token_status_done(&r.a.status);
    r.a.have_status = false;
    r.a.floor_us = 0;
    r.a.time = (struct signedtime){.count = 0};
    snprintf(r.a.boot_id, sizeof(r.a.boot_id), "00000000-0000-4000-8000-000000000000");
    agent_load_time(&r.a);
    ck_assert(!signedtime_is_known(&r.a.time)); /* another boot */
    hear_status(&r, t - 1, 21);
    ck_assert(!r.a.have_status);
    ck_assert(!signedtime_is_known(&r.a.time));
    hear_status(&r, t, 5); /* a market restored from a backup numbers anew */
    ck_assert(r.a.have_status);
    token_status_done(&r.a.status);
    desired_done(&r.a.want);
    rig_done(&r);
}
END_TEST

START_TEST(test_forgotten_in_the_end)
{
    struct rig r;
    rig_init(&r);
    rig_lease(&r);
    leases_end(r.a.leases, KIT_RES, "stopped");
    leases_tick(r.a.leases, clock_boot_us());
    ck_assert_int_eq(rig_state(&r), LEASE_DONE);
    int64_t boot = clock_boot_us();
    signedtime_add(&r.a.time, r.order.not_after_us + LEASES_REMEMBER_US - US_PER_S,
                   boot);
    leases_tick(r.a.leases, boot);
    ck_assert_ptr_nonnull(leases_find(r.a.leases, KIT_RES));
    signedtime_add(&r.a.time, r.order.not_after_us + LEASES_REMEMBER_US + US_PER_S,
                   boot);
    leases_tick(r.a.leases, boot);
    ck_assert_ptr_null(leases_find(r.a.leases, KIT_RES));
    rig_done(&r);
}
END_TEST

UNIT_MAIN(
    "leases",
    UNIT_CASE(test_open) UNIT_CASE(test_end_to_done) UNIT_CASE(
        test_undying_is_quarantined) UNIT_CASE(test_unseen_is_not_empty)
        UNIT_CASE(test_nothing_is_metered_after_the_end) UNIT_CASE(
            test_unclean_gpu_is_quarantined) UNIT_CASE(test_open_fails)
            UNIT_CASE(test_refusals) UNIT_CASE(test_extend) UNIT_CASE(test_shorten)
                UNIT_CASE(test_shorten_leaves_the_drain) UNIT_CASE(test_spot_terms)
                    UNIT_CASE(test_an_ended_lease_is_not_extended) UNIT_CASE(
                        test_retime) UNIT_CASE(test_killed_and_restarted)
                        UNIT_CASE(test_gate_taken_away)
                            UNIT_CASE(test_no_launch_without_gate) UNIT_CASE(
                                test_launch_cut_off_is_finished)
                                UNIT_CASE(test_orphans_and_lost_gates_end) UNIT_CASE(
                                    test_receipt_after_death) UNIT_CASE(test_reboot)
                                    UNIT_CASE(test_interval_receipts) UNIT_CASE(
                                        test_status_never_goes_back)
                                        UNIT_CASE(test_withdrawn_epoch_is_not_opened)
                                            UNIT_CASE(test_forgotten_in_the_end))
