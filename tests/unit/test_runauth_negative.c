/* runauth_negative: what the agent's own state makes of a grant that is good in itself:
 * withdrawn keys, epochs, a key set past its time, the clock. The request's own faults
 * are in test_runauth.c. */
#include "client/agent/runauth.h"
#include "client/lib/digest.h"
#include "tests/unit/agent_rig.h"

#define NONCE "bm9uY2Vub25jZW5vbmNlbm9uY2Vub25jZW5vbmNl"

static char *proof_of(struct rig *r, const char *token)
{
    static const char *const argv[] = {"/bin/true"};
    struct token_pop p = {.nonce = NONCE,
                          .aud = KIT_NODE,
                          .action = "launch",
                          .iat_us = KIT_NOW + US_PER_S};
    uint8_t pub[JWS_ED25519_LEN], hash[SHA256_LEN];
    char *text;
    struct err err;
    token_argv_hash(argv, 1, p.argv_hash);
    digest_sha256(token, strlen(token), hash);
    b64_encode(hash, sizeof(hash), p.ath);
    ck_assert_int_eq(jws_public(r->tenant, pub, &err), 0);
    json_t *payload = token_pop_build(&p, pub);
    ck_assert_int_eq(jws_sign(r->tenant, JWS_TYP_POP, payload, &text, &err), 0);
    json_decref(payload);
    return text;
}

/* The step that refuses to launch, "": none. */
static void launch(struct rig *r, char out[40])
{
    struct runauth *auth = xcalloc(1, sizeof(*auth));
    const char *step = "";
    char *token, *proof;
    struct err err;
    json_t *payload = token_build(&r->claims);
    ck_assert_int_eq(jws_sign(r->kit.key, JWS_TYP_GRANT, payload, &token, &err), 0);
    proof = proof_of(r, token);
    json_t *o = json_pack("{s:s,s:s,s:[s]}", "token", token, "proof", proof, "argv",
                          "/bin/true");
    char *text = jsonx_dump(o);
    int rc = runauth_check(&r->a, 'l', text, strlen(text), NONCE, auth, &step, &err);
    snprintf(out, 40, "%s", rc == 0 ? "" : step);
    if (rc == 0)
        runauth_done(auth);
    free(auth);
    free(text);
    free(token);
    free(proof);
    json_decref(o);
    json_decref(payload);
}

static void nothing(struct rig *r)
{
    (void)r;
}

static void *made; /* what a row put into the status; freed after it */

static void revoked_kid(struct rig *r)
{
    uint8_t pub[JWS_ED25519_LEN];
    ck_assert_int_eq(jws_public(r->kit.key, pub, NULL), 0);
    made = r->a.status.revoked_kids = xcalloc(1, sizeof(r->a.status.revoked_kids[0]));
    r->a.status.revoked_kid_count = 1;
    jws_thumbprint(pub, r->a.status.revoked_kids[0]);
}

static void min_epoch(struct rig *r, int64_t epoch)
{
    made = r->a.status.min_epochs = xcalloc(1, sizeof(r->a.status.min_epochs[0]));
    r->a.status.min_epoch_count = 1;
    memcpy(r->a.status.min_epochs[0].gpu, r->claims.lease.gpus[1], TOKEN_GPU_UUID_MAX);
    r->a.status.min_epochs[0].epoch = epoch;
}

static void lower_epoch(struct rig *r)
{
    min_epoch(r, r->claims.lease.epoch + 1);
}

static void equal_epoch(struct rig *r)
{
    min_epoch(r, r->claims.lease.epoch);
}

static void later_epoch(struct rig *r)
{
    min_epoch(r, r->claims.lease.epoch - 1);
}

static void key_set_over(struct rig *r)
{
    r->a.id.keys_exp_us = KIT_NOW + US_PER_S;
}

/* The signed time runs by the boot clock, and an older document takes none of it back:
 * a token that has expired stays so. */
static void clock_set_back(struct rig *r)
{
    int64_t boot_us = clock_boot_us();
    signedtime_add(&r->a.time, r->claims.exp_us + US_PER_S, boot_us);
    r->a.status.iat_us = r->claims.exp_us + US_PER_S;
    signedtime_add(&r->a.time, KIT_NOW + US_PER_S, boot_us);
}

START_TEST(test_of_the_agents_state)
{
    static const struct {
        const char *name;
        void (*spoil)(struct rig *r);
        const char *step;
    } rows[] = {
        {"good", nothing, ""},
        {"revoked kid", revoked_kid, "key"},
        {"lower epoch", lower_epoch, "epoch"},
        {"equal epoch with other lease", equal_epoch, "epoch"},
        {"epoch of a later booking", later_epoch, ""},
        {"key set past its time", key_set_over, "key"},
        {"clock set back", clock_set_back, "times"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct rig r;
        char step[40];
        rig_init(&r);
        rows[i].spoil(&r);
        launch(&r, step);
        ck_assert_msg(strcmp(step, rows[i].step) == 0, "%s: step '%s', expected '%s'",
                      rows[i].name, step, rows[i].step);
        rig_done(&r);
        free(made);
        made = NULL;
    }
}
END_TEST

UNIT_MAIN("runauth negative", UNIT_CASE(test_of_the_agents_state))
