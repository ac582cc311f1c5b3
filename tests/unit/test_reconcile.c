/* reconcile, desired, policy, signedtime: what a node is told against what it has. */
#include <stdio.h>
#include <string.h>

#include "client/agent/policy.h"
#include "client/agent/reconcile.h"
#include "client/agent/signedtime.h"
#include "client/lib/timefmt.h"
#include "client/lib/strbuf.h"
#include "tests/unit/unit.h"

#define ID_A "01890000-0000-7000-8000-00000000000a"
#define ID_B "01890000-0000-7000-8000-00000000000b"
#define TEN  "01890000-0000-7000-8000-0000000000ff"
#define NOW  (1000 * US_PER_S)

struct world {
    struct advert advert;
    struct desired want;
    struct order order;
    struct token_status status;
    char revoked[1][UUID_TEXT];
    struct reconcile_have have;
    char gpus[1][TOKEN_GPU_UUID_MAX];
    struct reconcile_in in;
    struct reconcile_out out;
};

static void world_init(struct world *w)
{
    memset(w, 0, sizeof(*w));
    struct gpu_info *g = &w->advert.gpus[0].info;
    snprintf(g->uuid, sizeof(g->uuid), "GPU-a");
    snprintf(g->device, sizeof(g->device), "/dev/nvidia0");
    w->advert.count = 1;
    snprintf(w->order.id, sizeof(w->order.id), "%s", ID_A);
    snprintf(w->order.tenant, sizeof(w->order.tenant), "%s", TEN);
    snprintf(w->order.gpus[0], sizeof(w->order.gpus[0]), "GPU-a");
    w->order.gpu_count = 1;
    w->order.not_before_us = NOW - US_PER_S;
    w->order.not_after_us = NOW + 100 * US_PER_S;
    w->order.generation = 1;
    w->want.leases = &w->order;
    w->want.lease_count = 1;
    w->status.iat_us = NOW - US_PER_S;
    w->status.revoked = w->revoked;
    w->in = (struct reconcile_in){.want = &w->want,
                                  .gpus = &w->advert,
                                  .status = &w->status,
                                  .time_known = true,
                                  .now_us = NOW};
}

static void have(struct world *w, const char *id, enum lease_state state)
{
    snprintf(w->gpus[0], sizeof(w->gpus[0]), "GPU-a");
    w->have =
        (struct reconcile_have){.id = id,
                                .state = state,
                                .not_after_us = w->order.not_after_us,
                                .generation = 1,
                                .on_lost_us = -1,
                                .gpus = (const char(*)[TOKEN_GPU_UUID_MAX])w->gpus,
                                .gpu_count = 1};
    w->in.have = &w->have;
    w->in.have_count = 1;
}

/* "open", "extend", "shorten", "end:why", "wait:why", "" for nothing; one action at
 * most. */
static const char *outcome(struct world *w)
{
    static char text[200];
    static const char *const names[] = {"open", "extend", "shorten", "end", "wait"};
    reconcile(&w->in, &w->out);
    text[0] = '\0';
    ck_assert_uint_le(w->out.count, 1);
    if (w->out.count == 1) {
        const struct reconcile_action *a = &w->out.actions[0];
        snprintf(text, sizeof(text), "%s%s%s", names[a->kind],
                 a->why[0] != '\0' ? ":" : "", a->why);
    }
    reconcile_out_done(&w->out);
    return text;
}

#define EXPECT(w, text) ck_assert_str_eq(outcome(w), text)

START_TEST(test_open)
{
    struct world w;
    world_init(&w);
    EXPECT(&w, "open");
    have(&w, ID_A, LEASE_READY);
    EXPECT(&w, ""); /* done twice changes nothing */
    have(&w, ID_A, LEASE_DONE);
    EXPECT(&w, ""); /* and an ended one does not come back */
}
END_TEST

START_TEST(test_not_yet_and_over)
{
    struct world w;
    world_init(&w);
    w.order.not_before_us = NOW + 7;
    reconcile(&w.in, &w.out);
    ck_assert_uint_eq(w.out.count, 0);
    ck_assert_int_eq(w.out.next_us, NOW + 7);
    reconcile_out_done(&w.out);
    w.in.now_us = w.order.not_after_us; /* half-open: over at not_after */
    w.status.iat_us = w.in.now_us;
    EXPECT(&w, "");
    w.in.now_us--;
    EXPECT(&w, "open");
}
END_TEST

START_TEST(test_no_start_without_fresh_time)
{
    struct world w;
    world_init(&w);
    w.in.now_us = w.status.iat_us + TOKEN_STATUS_STALE_US;
    EXPECT(&w, "open");
    w.in.now_us++;
    ck_assert_ptr_nonnull(strstr(outcome(&w), "wait:the newest status is 60 s old"));
    w.in.time_known = false;
    ck_assert_ptr_nonnull(strstr(outcome(&w), "wait:no signed time"));
    w.in.time_known = true;
    w.in.status = NULL;
    ck_assert_ptr_nonnull(strstr(outcome(&w), "wait:no signed time"));
}
END_TEST

START_TEST(test_obstacles)
{
    struct world w;
    world_init(&w);
    w.advert.gpus[0].state = ADVERT_BUSY;
    ck_assert_ptr_nonnull(strstr(outcome(&w), "owner's work"));
    w.advert.gpus[0].state = ADVERT_LOST;
    w.advert.gpus[0].info.lost = true;
    ck_assert_ptr_nonnull(strstr(outcome(&w), "lost"));
    w.advert.count = 0;
    ck_assert_ptr_nonnull(strstr(outcome(&w), "not on this node"));
    world_init(&w);
    w.advert.gpus[0].info.mig = true;
    ck_assert_ptr_nonnull(strstr(outcome(&w), "wait:"));
}
END_TEST

START_TEST(test_gpu_passes_on_only_when_done)
{
    static const enum lease_state holding[] = {
        LEASE_OPENING, LEASE_READY,    LEASE_RUNNING,    LEASE_DRAINING,
        LEASE_DENIED,  LEASE_CLEANING, LEASE_QUARANTINED};
    struct world w;
    for (size_t i = 0; i < sizeof(holding) / sizeof(holding[0]); i++) {
        world_init(&w);
        have(&w, ID_B, holding[i]);
        ck_assert_msg(strncmp(outcome(&w), "wait:", 5) == 0, "state %zu", i);
    }
    have(&w, ID_B, LEASE_DONE);
    EXPECT(&w, "open");
}
END_TEST

/* A market that orders one GPU twice for one time: no node opens both. */
START_TEST(test_one_gpu_ordered_twice)
{
    struct world w;
    struct order both[2];
    world_init(&w);
    both[0] = both[1] = w.order;
    snprintf(both[1].id, sizeof(both[1].id), "%s", ID_B);
    w.want.leases = both;
    w.want.lease_count = 2;
    reconcile(&w.in, &w.out);
    ck_assert_uint_eq(w.out.count, 2);
    ck_assert_int_eq(w.out.actions[0].kind, RECONCILE_OPEN);
    ck_assert_int_eq(w.out.actions[1].kind, RECONCILE_WAIT);
    ck_assert_ptr_nonnull(strstr(w.out.actions[1].why, ID_A));
    reconcile_out_done(&w.out);
}
END_TEST

START_TEST(test_ends)
{
    struct world w;
    struct desired_end end = {ID_A, "cancelled"};
    world_init(&w);
    w.want.end = &end;
    w.want.end_count = 1;
    w.want.lease_count = 0;
    have(&w, ID_A, LEASE_RUNNING);
    EXPECT(&w, "end:cancelled");
    have(&w, ID_A, LEASE_CLEANING);
    EXPECT(&w, "");
    have(&w, ID_B, LEASE_RUNNING); /* not mentioned: left as it is */
    EXPECT(&w, "");
    snprintf(w.revoked[0], UUID_TEXT, "%s", ID_B);
    w.status.revoked_count = 1;
    EXPECT(&w, "end:revoked");
}
END_TEST

START_TEST(test_revoked_is_not_opened)
{
    struct world w;
    world_init(&w);
    snprintf(w.revoked[0], UUID_TEXT, "%s", ID_A);
    w.status.revoked_count = 1;
    EXPECT(&w, "wait:revoked");
}
END_TEST

START_TEST(test_market_lost)
{
    struct world w;
    world_init(&w);
    have(&w, ID_A, LEASE_RUNNING);
    w.in.now_us = w.status.iat_us + TOKEN_STATUS_STALE_US + 30 * US_PER_S;
    EXPECT(&w, ""); /* run to the end */
    w.have.on_lost_us = 30 * US_PER_S;
    EXPECT(&w, "");
    w.in.now_us++;
    EXPECT(&w, "end:market_lost");
}
END_TEST

START_TEST(test_extend)
{
    struct world w;
    world_init(&w);
    have(&w, ID_A, LEASE_RUNNING);
    w.order.not_after_us += US_PER_S;
    EXPECT(&w, ""); /* same generation: a replay */
    w.order.generation = 2;
    EXPECT(&w, "extend");
    w.order.not_after_us -= US_PER_S;
    EXPECT(&w, ""); /* the same end */
    w.order.not_after_us += 5 * US_PER_S;
    have(&w, ID_A, LEASE_DENIED);
    w.have.not_after_us = NOW;
    EXPECT(&w, "");
}
END_TEST

START_TEST(test_shorten)
{
    struct world w;
    world_init(&w);
    have(&w, ID_A, LEASE_RUNNING);
    w.order.not_after_us -= US_PER_S;
    EXPECT(&w, ""); /* same generation: an older word than the one that opened it */
    w.order.generation = 2;
    EXPECT(&w, "shorten");
    have(&w, ID_A, LEASE_DRAINING);
    w.have.not_after_us += US_PER_S;
    EXPECT(&w, "shorten");
    have(&w, ID_A, LEASE_DENIED);
    w.have.not_after_us += US_PER_S;
    EXPECT(&w, ""); /* it ends anyway */
}
END_TEST

/* --- desired --- */

static int parse(const char *text, struct desired *d, struct err *err)
{
    json_t *doc = json_loads(text, 0, NULL);
    ck_assert_ptr_nonnull(doc);
    int rc = desired_parse(doc, d, err);
    json_decref(doc);
    return rc;
}

#define LEASE                                                               \
    "{\"reservation\":\"" ID_A "\",\"tenant\":\"" TEN                       \
    "\",\"gpus\":[\"GPU-a\"],\"not_before\":\"2026-01-01T00:00:00Z\","      \
    "\"not_after\":\"2026-01-01T01:00:00Z\",\"epoch\":5,\"drain\":\"10s\"," \
    "\"memory_max_bytes\":0,\"pids_max\":0,\"on_lost\":\"90s\",\"generation\":3"

START_TEST(test_desired)
{
    struct desired d;
    struct err err;
    ck_assert_msg(
        parse("{\"desired_version\":\"v1\",\"now\":\"2026-01-01T00:00:00Z\","
              "\"leases\":[" LEASE ",\"spot\":true}],\"end\":[{\"reservation\":\"" ID_B
              "\",\"reason\":\"cancelled\"}],\"status\":\"x\",\"jwks\":{},"
              "\"probes\":[{\"dataset\":\"7\",\"endpoint\":\"tcp://h:1\"}],"
              "\"settings\":{\"probe_interval\":\"30s\",\"receipt_interval\":\"2s\","
              "\"colour\":\"red\"},\"acks\":[{\"reservation\":\"" ID_A
              "\",\"seq\":4}],\"new\":1}",
              &d, &err) == 0,
        "%s", err.text);
    ck_assert_str_eq(d.version, "v1");
    ck_assert_uint_eq(d.lease_count, 1);
    ck_assert(d.leases[0].spot);
    ck_assert_int_eq(d.leases[0].drain_us, 10 * US_PER_S);
    ck_assert_int_eq(d.leases[0].on_lost_us, 90 * US_PER_S);
    ck_assert_int_eq(d.leases[0].not_after_us - d.leases[0].not_before_us, US_PER_HOUR);
    ck_assert_str_eq(d.end[0].reason, "cancelled");
    ck_assert_str_eq(d.probes[0].endpoint, "tcp://h:1");
    ck_assert_int_eq(d.receipt_interval_us, 2 * US_PER_S);
    ck_assert_int_eq(d.acks[0].seq, 4);
    desired_done(&d);
}
END_TEST

/* Keys that do not fit are left out; the lease itself stands. */
START_TEST(test_holders_are_bounded)
{
    struct strbuf b = STRBUF_INIT;
    struct desired d;
    struct err err;
    strbuf_addf(&b,
                "{\"desired_version\":\"v\",\"leases\":[" LEASE
                ",\"holders\":[7,\"\",\"ssh-ed25519 %0300d\"",
                0);
    for (int i = 0; i < JOURNAL_HOLDERS_MAX + 4; i++)
        strbuf_addf(&b, ",\"ssh-ed25519 AAAA%d name\"", i);
    strbuf_adds(&b, "]}]}");
    ck_assert_msg(parse(strbuf_str(&b), &d, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(d.leases[0].holder_count, JOURNAL_HOLDERS_MAX);
    ck_assert_str_eq(d.leases[0].holders[0], "ssh-ed25519 AAAA0 name");
    ck_assert_str_eq(d.leases[0].holders[JOURNAL_HOLDERS_MAX - 1],
                     "ssh-ed25519 AAAA15 name");
    desired_done(&d);
    strbuf_done(&b);
}
END_TEST

START_TEST(test_desired_refuses)
{
    static const char *const bad[] = {
        "{\"leases\":[]}",
        "{\"desired_version\":\"v\",\"leases\":[" LEASE ",\"mig\":true}]}",
        "{\"desired_version\":\"v\",\"leases\":[{}]}",
        "{\"desired_version\":\"v\",\"leases\":[" LEASE ",\"gpus\":[]}]}",
        "{\"desired_version\":\"v\",\"leases\":[" LEASE
        ",\"gpus\":[\"GPU-a\",\"GPU-a\"]}]}",
        "{\"desired_version\":\"v\",\"leases\":[" LEASE
        ",\"not_after\":\"2026-01-01T00:00:00Z\"}]}",
        "{\"desired_version\":\"v\",\"leases\":[" LEASE ",\"on_lost\":\"maybe\"}]}",
        "{\"desired_version\":\"v\",\"leases\":[],\"probes\":[{\"dataset\":\"1\"}]}",
        "{\"desired_version\":7,\"leases\":[]}",
        "[]",
    };
    struct desired d;
    struct err err;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(parse(bad[i], &d, &err) == -1, "row %zu", i);
}
END_TEST

/* A reason is journalled and shown: it comes out short, whole and plain. */
START_TEST(test_end_reason_is_plain)
{
    struct desired d;
    struct err err;
    ck_assert_int_eq(
        parse("{\"desired_version\":\"v\",\"leases\":[],\"end\":[{\"reservation\":"
              "\"" ID_B "\",\"reason\":\"a\\u001b[1m "
              "\u5e83\u5cf6\u306e\u505c\u96fb\u306e\u305f\u3081\"}]}",
              &d, &err),
        0);
    ck_assert_str_eq(d.end[0].reason, "a?[1m ?????????????????");
    desired_done(&d);
}
END_TEST

/* --- policy, signed time --- */

START_TEST(test_policy)
{
    struct order o = {.tenant = TEN, .gpu_count = 2, .not_after_us = US_PER_HOUR};
    char *only[] = {(char *)ID_A, NULL}, *us[] = {(char *)ID_A, (char *)TEN, NULL};
    struct policy p = {.tenants = NULL};
    struct err err;
    ck_assert_int_eq(policy_check(&p, &o, 100, &err), 0);
    p.max_gpus_per_tenant = 4;
    ck_assert_int_eq(policy_check(&p, &o, 2, &err), 0);
    ck_assert_int_eq(policy_check(&p, &o, 3, &err), -1);
    ck_assert_int_eq(err.code, ERR_FORBIDDEN);
    p = (struct policy){.max_duration_us = US_PER_HOUR};
    ck_assert_int_eq(policy_check(&p, &o, 0, &err), 0);
    o.not_after_us++;
    ck_assert_int_eq(policy_check(&p, &o, 0, &err), -1);
    p = (struct policy){.tenants = only};
    ck_assert_int_eq(policy_check(&p, &o, 0, &err), -1);
    p.tenants = us;
    ck_assert_int_eq(policy_check(&p, &o, 0, &err), 0);
}
END_TEST

START_TEST(test_signedtime)
{
    struct signedtime t = {.count = 0};
    ck_assert(!signedtime_is_known(&t));
    signedtime_add(&t, 1000, 400); /* came 100 late */
    ck_assert_int_eq(signedtime_at(&t, 500), 1100);
    signedtime_add(&t, 2000, 1300); /* on time */
    ck_assert_int_eq(signedtime_at(&t, 1300), 2000);
    signedtime_add(&t, 2000, 1900); /* the same text, late: no worse for it */
    ck_assert_int_eq(signedtime_at(&t, 1900), 2600);
    ck_assert_int_eq(signedtime_boot(&t, 2600), 1900);
    for (int i = 0; i < SIGNEDTIME_SAMPLES; i++)
        signedtime_add(&t, 5000 + i, 4500 + i);
    ck_assert_int_eq(signedtime_at(&t, 0), 500); /* the old best is forgotten */
}
END_TEST

UNIT_MAIN("reconcile",
          UNIT_CASE(test_open) UNIT_CASE(test_not_yet_and_over)
              UNIT_CASE(test_no_start_without_fresh_time) UNIT_CASE(test_obstacles)
                  UNIT_CASE(test_gpu_passes_on_only_when_done)
                      UNIT_CASE(test_one_gpu_ordered_twice) UNIT_CASE(test_ends)
                          UNIT_CASE(test_revoked_is_not_opened)
                              UNIT_CASE(test_market_lost) UNIT_CASE(test_extend)
                                  UNIT_CASE(test_shorten) UNIT_CASE(test_desired)
                                      UNIT_CASE(test_holders_are_bounded)
                                          UNIT_CASE(test_desired_refuses)
                                              UNIT_CASE(test_end_reason_is_plain)
                                                  UNIT_CASE(test_policy)
                                                      UNIT_CASE(test_signedtime))
