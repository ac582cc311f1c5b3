/* agent_rig: an agent's inside without a market and without a kernel: real journal,
 * spool, tokens and clocks, GPUs from a file, and an enforce that remembers what it was
 * told. What the kernel really does is tested in tests/system. */
#ifndef NEARGPU_AGENT_RIG_H
#define NEARGPU_AGENT_RIG_H
#include <unistd.h>

#include "client/agent/agent.h"
#include "client/agent/leases.h"
#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "tests/unit/token_kit.h"
#include "tests/unit/unit.h"

#define RIG_CGROUPS 8

struct rig_cgroup {
    char id[JOURNAL_ID_MAX];
    bool exists, gated, denied, populated, undying;
    int64_t deadline_boot_us;
    int opens, kills;
};

struct rig {
    struct enforce enforce; /* first: ops get this pointer */
    struct rig_cgroup cgroups[RIG_CGROUPS];
    bool open_fails, status_fails;
    struct agent a;
    char dir[64];
    struct kit kit;
    struct token_claims claims;
    EVP_PKEY *tenant;
    struct order order;
};

static inline struct rig_cgroup *rig_cgroup(struct rig *r, const char *id)
{
    for (size_t i = 0; i < RIG_CGROUPS; i++)
        if (strcmp(r->cgroups[i].id, id) == 0)
            return &r->cgroups[i];
    for (size_t i = 0; i < RIG_CGROUPS; i++) {
        if (r->cgroups[i].id[0] == '\0') {
            snprintf(r->cgroups[i].id, sizeof(r->cgroups[i].id), "%s", id);
            return &r->cgroups[i];
        }
    }
    ck_abort_msg("too many cgroups");
}

static inline struct rig *rig_of(struct enforce *e)
{
    return (struct rig *)e;
}

static int rig_open(struct enforce *e, const struct enforce_lease *l, struct err *err)
{
    struct rig_cgroup *c = rig_cgroup(rig_of(e), l->id);
    if (rig_of(e)->open_fails)
        return err_set(err, ERR_UNAVAILABLE, "no such limit here");
    c->exists = c->gated = true;
    c->denied = false;
    c->deadline_boot_us = l->deadline_boot_us;
    c->opens++;
    return 0;
}

static int rig_deny(struct enforce *e, const char *id, struct err *err)
{
    (void)err;
    rig_cgroup(rig_of(e), id)->denied = true;
    return 0;
}

static int rig_kill(struct enforce *e, const char *id, struct err *err)
{
    struct rig_cgroup *c = rig_cgroup(rig_of(e), id);
    (void)err;
    ck_assert(c->denied); /* the gate is closed first */
    c->kills++;
    c->populated = c->populated && c->undying;
    return 0;
}

static int rig_status(struct enforce *e, const char *id, struct enforce_status *ret,
                      struct err *err)
{
    const struct rig_cgroup *c = rig_cgroup(rig_of(e), id);
    if (rig_of(e)->status_fails)
        return err_set(err, ERR_IO, "no descriptors left");
    *ret = (struct enforce_status){c->exists, c->gated, c->populated};
    return 0;
}

static int rig_close(struct enforce *e, const char *id, struct err *err)
{
    struct rig_cgroup *c = rig_cgroup(rig_of(e), id);
    if (c->populated)
        return err_set(err, ERR_CONFLICT, "populated");
    c->exists = c->gated = false;
    return 0;
}

static int rig_list(struct enforce *e, char ***ret, size_t *ret_count, struct err *err)
{
    char **ids = xcalloc(RIG_CGROUPS, sizeof(*ids));
    size_t n = 0;
    (void)err;
    for (size_t i = 0; i < RIG_CGROUPS; i++)
        if (rig_of(e)->cgroups[i].exists)
            ids[n++] = xstrdup(rig_of(e)->cgroups[i].id);
    *ret = ids;
    *ret_count = n;
    return 0;
}

static void rig_free(struct enforce *e)
{
    (void)e;
}

static const struct enforce_ops rig_ops = {rig_open,  rig_deny, rig_kill, rig_status,
                                           rig_close, rig_list, rig_free};

/* Two GPUs whose device nodes are there on any machine, and hardly ever held. */
static inline void rig_gpus(struct rig *r, bool busy)
{
    char *path = xasprintf("%s/gpus.json", r->dir);
    char *text =
        xasprintf("{\"gpus\":[{\"uuid\":\"%s\",\"model\":\"H100\",\"memory_mib\":80000,"
                  "\"device\":\"/dev/full\",\"busy\":%s},{\"uuid\":\"%s\",\"model\":"
                  "\"H100\",\"memory_mib\":80000,\"device\":\"/dev/random\"}]}%*s",
                  r->claims.lease.gpus[0], busy ? "true" : "false",
                  r->claims.lease.gpus[1], busy ? 1 : 2, "");
    struct err err;
    ck_assert_int_eq(fsx_write(path, text, strlen(text), 0600, &err), 0);
    free(text);
    free(path);
}

static inline void rig_look(struct rig *r)
{
    struct gpu_info gpus[GPUS_PER_NODE_MAX];
    struct advert_limits limits = {1024, 50000};
    size_t n;
    struct err err;
    ck_assert_msg(r->a.gpu_ops->list(r->a.gpu, gpus, GPUS_PER_NODE_MAX, &n, &err) == 0,
                  "%s", err.text);
    advert_observe(&r->a.advert, gpus, n, &limits, leases_hold, r->a.leases);
}

/* What a process has when it starts: everything else is on disk or in the kernel. */
static inline void rig_start(struct rig *r)
{
    struct agent *a = &r->a;
    struct err err;
    char *sim = xasprintf("%s/gpus.json", r->dir);
    struct gpu_source source = {.path = sim};
    ck_assert_msg(journal_open(r->dir, &a->journal, &err) == 0, "%s", err.text);
    ck_assert_msg(spool_open(r->dir, a->id.receipt_key, &a->spool, &err) == 0, "%s",
                  err.text);
    ck_assert_msg(gpu_sim.open(&source, &a->gpu, &err) == 0, "%s", err.text);
    a->gpu_ops = &gpu_sim;
    a->leases = leases_new(a);
    rig_look(r);
    ck_assert_msg(leases_recover(a->leases, &err) == 0, "%s", err.text);
    free(sim);
}

/* kill -9: nothing is told to anyone. */
static inline void rig_die(struct rig *r)
{
    leases_free(r->a.leases);
    spool_free(r->a.spool);
    journal_free(r->a.journal);
    gpu_sim.close(r->a.gpu);
    memset(&r->a.advert, 0, sizeof(r->a.advert));
}

static inline void rig_init(struct rig *r)
{
    struct agent *a = &r->a;
    struct err err;
    uint8_t pub[JWS_ED25519_LEN];
    memset(r, 0, sizeof(*r));
    snprintf(r->dir, sizeof(r->dir), "/tmp/test_agent.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(r->dir));
    r->enforce.ops = &rig_ops;
    a->enforce = &r->enforce;
    r->kit.key = kit_key(0);
    r->tenant = kit_key(1);
    r->claims = kit_claims();
    ck_assert_int_eq(jws_public(r->tenant, pub, &err), 0);
    jws_thumbprint(pub, r->claims.jkt);
    r->claims.lease.on_lost = TOKEN_RUN_TO_END;
    order_from_token(&r->claims, &r->order);
    ck_assert_msg(settings_load(NULL, &a->conf, &err) == 0, "%s", err.text);
    a->conf.uid =
        3999999999u; /* nobody's: the nodes stand for GPUs, others hold them */
    a->id.issuer = xstrdup(KIT_ISSUER);
    a->id.spiffe_id = xstrdup(KIT_NODE);
    ck_assert_int_eq(jws_public(r->kit.key, pub, &err), 0);
    json_t *jwks = kit_jwks(pub);
    ck_assert_int_eq(keyring_from_jwks(jwks, &a->id.keys, &err), 0);
    json_decref(jwks);
    a->id.receipt_key = kit_key(0);
    ck_assert_int_eq(journal_boot_id(a->boot_id, &err), 0);
    a->receipt_interval_us = 60 * US_PER_S;
    signedtime_add(&a->time, KIT_NOW + US_PER_S, clock_boot_us());
    a->have_status = true;
    a->status.iat_us = KIT_NOW + US_PER_S;
    a->status.seq = r->claims.status_seq;
    rig_gpus(r, false);
    rig_start(r);
}

static inline void rig_done(struct rig *r)
{
    struct err err;
    rig_die(r);
    keyring_free(r->a.id.keys);
    EVP_PKEY_free(r->a.id.receipt_key);
    EVP_PKEY_free(r->kit.key);
    EVP_PKEY_free(r->tenant);
    free(r->a.id.issuer);
    free(r->a.id.spiffe_id);
    settings_done(&r->a.conf);
    ck_assert_int_eq(fsx_remove_tree(r->dir, &err), 0);
}

static inline enum lease_state rig_state(const struct rig *r)
{
    const struct journal_lease *j = leases_find(r->a.leases, KIT_RES);
    ck_assert_ptr_nonnull(j);
    return j->state;
}

static inline void rig_lease(struct rig *r)
{
    struct err err;
    const char *step;
    ck_assert_msg(leases_open(r->a.leases, &r->order, &step, &err) == 0, "%s: %s", step,
                  err.text);
}

#endif
