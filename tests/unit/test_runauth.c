/* runauth: every step at which a request to an agent is refused, by name. */
#include "client/agent/runauth.h"
#include "client/lib/digest.h"
#include "tests/unit/agent_rig.h"

#define NONCE "bm9uY2Vub25jZW5vbmNlbm9uY2Vub25jZW5vbmNl"

/* What a tenant would send, to be spoiled by a row of the table. */
struct ask {
    struct rig r;
    char type;
    const char *action, *nonce, *image;
    json_t *argv, *proof_argv;
    EVP_PKEY *prover;
    char *token, *proof;
    json_t *extra; /* members of the request that are added */
};

static void ask_init(struct ask *q)
{
    memset(q, 0, sizeof(*q));
    rig_init(&q->r);
    q->type = 'l';
    q->action = "launch";
    q->nonce = NONCE;
    q->argv = json_pack("[s,s]", "/bin/echo", "hi");
    q->prover = q->r.tenant;
}

static char *sign(EVP_PKEY *key, const char *typ, json_t *take)
{
    char *text;
    struct err err;
    ck_assert_msg(jws_sign(key, typ, take, &text, &err) == 0, "%s", err.text);
    json_decref(take);
    return text;
}

static char *make_proof(struct ask *q)
{
    const json_t *argv = q->proof_argv != NULL ? q->proof_argv : q->argv;
    const char *list[16];
    struct token_pop p = {.iat_us = KIT_NOW + US_PER_S, .image = q->image};
    uint8_t pub[JWS_ED25519_LEN], hash[SHA256_LEN];
    struct err err;
    size_t n = q->type == 'l' ? json_array_size(argv) : 0;
    for (size_t i = 0; i < n; i++)
        list[i] = json_string_value(json_array_get(argv, i));
    snprintf(p.nonce, sizeof(p.nonce), "%s", q->nonce);
    snprintf(p.aud, sizeof(p.aud), "%s", KIT_NODE);
    snprintf(p.action, sizeof(p.action), "%s", q->action);
    token_argv_hash(list, n, p.argv_hash);
    digest_sha256(q->token, strlen(q->token), hash);
    b64_encode(hash, sizeof(hash), p.ath);
    ck_assert_int_eq(jws_public(q->prover, pub, &err), 0);
    return sign(q->prover, JWS_TYP_POP, token_pop_build(&p, pub));
}

/* "" when it passes, else the step. */
static const char *ask(struct ask *q)
{
    static char step_text[40];
    struct runauth *auth = xcalloc(1, sizeof(*auth));
    const char *step = "";
    struct err err;
    if (q->token == NULL)
        q->token = sign(q->r.kit.key, JWS_TYP_GRANT, token_build(&q->r.claims));
    if (q->proof == NULL)
        q->proof = make_proof(q);
    json_t *o = json_pack("{s:s,s:s}", "token", q->token, "proof", q->proof);
    if (q->type == 'l')
        json_object_set(o, "argv", q->argv);
    if (q->extra != NULL)
        json_object_update(o, q->extra);
    char *text = jsonx_dump(o);
    int rc =
        runauth_check(&q->r.a, q->type, text, strlen(text), NONCE, auth, &step, &err);
    snprintf(step_text, sizeof(step_text), "%s", rc == 0 ? "" : step);
    if (rc == 0)
        runauth_done(auth);
    free(auth);
    free(text);
    json_decref(o);
    return step_text;
}

static void ask_done(struct ask *q)
{
    rig_done(&q->r);
    json_decref(q->argv);
    json_decref(q->proof_argv);
    json_decref(q->extra);
    free(q->token);
    free(q->proof);
}

/* --- ways to spoil it --- */

static void good(struct ask *q)
{
    (void)q;
}

static void no_argv(struct ask *q)
{
    json_array_clear(q->argv);
}

static void unknown_member(struct ask *q)
{
    q->extra = json_pack("{s:b}", "root", 1);
}

static void bad_env(struct ask *q)
{
    q->extra = json_pack("{s:{s:s}}", "env", "A=B", "c");
}

static void good_files(struct ask *q)
{
    q->extra = json_pack("{s:{s:s,s:s}}", "files", "hostfile", "a\n", "x.key", "");
}

static void file_elsewhere(struct ask *q)
{
    q->extra = json_pack("{s:{s:s}}", "files", "../evil", "x");
}

/* The proof's image, the request's: NULL where there is none. */
static void images(struct ask *q, const char *proven, const char *asked)
{
    q->image = proven;
    if (asked != NULL)
        q->extra = json_pack("{s:s}", "image", asked);
}

static void good_image(struct ask *q)
{
    images(q, "docker.io/a/b:1", "docker.io/a/b:1");
}

static void image_not_proven(struct ask *q)
{
    images(q, NULL, "docker.io/a/b:1");
}

static void image_taken_away(struct ask *q)
{
    images(q, "docker.io/a/b:1", NULL);
}

static void other_image(struct ask *q)
{
    images(q, "docker.io/a/b:1", "docker.io/a/b:2");
}

static void hidden_file(struct ask *q)
{
    q->extra = json_pack("{s:{s:s}}", "files", ".ssh", "x");
}

static void file_no_text(struct ask *q)
{
    q->extra = json_pack("{s:{s:i}}", "files", "a", 1);
}

static void unknown_type(struct ask *q)
{
    q->type = 'z';
}

static void foreign_signer(struct ask *q)
{
    q->token = sign(q->r.tenant, JWS_TYP_GRANT, token_build(&q->r.claims));
}

static void receipt_as_grant(struct ask *q)
{
    q->token = sign(q->r.kit.key, JWS_TYP_USAGE, token_build(&q->r.claims));
}

static void other_node(struct ask *q)
{
    snprintf(q->r.claims.aud, sizeof(q->r.claims.aud), "%s2", KIT_NODE);
}

static void other_issuer(struct ask *q)
{
    snprintf(q->r.claims.iss, sizeof(q->r.claims.iss), "https://other");
}

static void expired(struct ask *q)
{
    q->r.claims.iat_us -= TOKEN_LIFE_US;
    q->r.claims.nbf_us -= TOKEN_LIFE_US;
    q->r.claims.exp_us -= TOKEN_LIFE_US;
}

static void not_begun(struct ask *q)
{
    q->r.claims.lease.not_before_us += 3600 * US_PER_S;
}

static void no_time(struct ask *q)
{
    q->r.a.time.count = 0;
}

static void stale(struct ask *q)
{
    q->r.a.status.iat_us = KIT_NOW - TOKEN_STATUS_STALE_US;
    q->r.claims.status_seq = q->r.a.status.seq;
}

static void revoked_lease(struct ask *q)
{
    static char id[1][UUID_TEXT] = {KIT_RES};
    q->r.a.status.revoked = id;
    q->r.a.status.revoked_count = 1;
}

/* What the market's status says of a GPU, until the rig is done. */
static void set_min(struct ask *q, int64_t epoch)
{
    static struct token_epoch min;
    snprintf(min.gpu, sizeof(min.gpu), "%s", q->r.order.gpus[1]);
    min.epoch = epoch;
    q->r.a.status.min_epochs = &min;
    q->r.a.status.min_epoch_count = 1;
}

static void withdrawn_epoch(struct ask *q)
{
    set_min(q, q->r.claims.lease.epoch);
}

static void above_withdrawn_epoch(struct ask *q)
{
    set_min(q, q->r.claims.lease.epoch - 1);
}

static void keys_past_their_time(struct ask *q)
{
    q->r.a.id.keys_exp_us = KIT_NOW;
}

static void good_pty(struct ask *q)
{
    q->extra = json_pack("{s:{s:s,s:i,s:i}}", "pty", "term", "xterm-256color", "rows",
                         50, "cols", 132);
}

static void pty_too_large(struct ask *q)
{
    q->extra = json_pack("{s:{s:i}}", "pty", "rows", LAUNCH_WINDOW_MAX + 1);
}

static void pty_unknown_member(struct ask *q)
{
    q->extra = json_pack("{s:{s:i}}", "pty", "device", 1);
}

static void lower_epoch(struct ask *q)
{
    struct err err;
    ck_assert_int_eq(journal_epoch_claim(q->r.a.journal, q->r.order.gpus[1],
                                         q->r.order.epoch + 1, "later", &err),
                     0);
}

static void other_epoch_than_lease(struct ask *q)
{
    rig_lease(&q->r);
    q->r.claims.lease.epoch--;
}

static void wrong_key(struct ask *q)
{
    q->prover = q->r.kit.key;
}

static void old_nonce(struct ask *q)
{
    q->nonce = "b2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xkb2xk";
}

static void other_action(struct ask *q)
{
    q->action = "stop";
}

static void other_argv(struct ask *q)
{
    q->proof_argv = json_pack("[s,s]", "/bin/echo", "ho");
}

static void other_tokens_proof(struct ask *q)
{
    q->token = xstrdup("x");
    q->proof = make_proof(q);
    free(q->token);
    q->token = NULL;
}

static void no_proof(struct ask *q)
{
    q->proof = xstrdup("none");
}

static void launch_not_allowed(struct ask *q)
{
    q->r.claims.lease.actions = TOKEN_STOP;
}

static void other_tenant(struct ask *q)
{
    rig_lease(&q->r);
    q->r.claims.sub[35] ^= 1;
    q->r.claims.client_id[35] ^= 1;
}

static void gpu_busy(struct ask *q)
{
    rig_gpus(&q->r, true);
    rig_look(&q->r);
}

static void gpu_unknown(struct ask *q)
{
    snprintf(q->r.claims.lease.gpus[0], TOKEN_GPU_UUID_MAX, "GPU-elsewhere");
}

static void gpu_of_another_lease(struct ask *q)
{
    struct err err;
    const char *step;
    struct order o = q->r.order;
    o.id[35] ^= 1;
    o.epoch--;
    ck_assert_int_eq(leases_open(q->r.a.leases, &o, &step, &err), 0);
}

static void fewer_gpus_than_lease(struct ask *q)
{
    rig_lease(&q->r);
    q->r.claims.lease.gpu_count = 1;
}

static void gpu_quarantined(struct ask *q)
{
    struct advert_gpu *g = (struct advert_gpu *)(uintptr_t)advert_find(
        &q->r.a.advert, q->r.claims.lease.gpus[0]);
    ck_assert_ptr_nonnull(g);
    g->state = ADVERT_QUARANTINED;
}

static void delegated(struct ask *q)
{
    memcpy(q->r.claims.act, q->r.claims.jkt, sizeof(q->r.claims.act));
}

static void delegated_not_open(struct ask *q)
{
    delegated(q);
}

static void delegated_whole(struct ask *q)
{
    rig_lease(&q->r);
    delegated(q);
}

static void delegated_part(struct ask *q)
{
    fewer_gpus_than_lease(q);
    delegated(q);
}

static void delegated_other_gpu(struct ask *q)
{
    delegated_part(q);
    snprintf(q->r.claims.lease.gpus[0], TOKEN_GPU_UUID_MAX, "GPU-elsewhere");
}

static void attach_nothing(struct ask *q)
{
    q->type = 'a';
    q->action = "attach";
}

static void attach_stale(struct ask *q)
{
    rig_lease(&q->r);
    stale(q);
    q->type = 'a';
    q->action = "attach";
    q->extra = json_pack("{s:i}", "offset", 10);
}

static void jobs(struct ask *q)
{
    rig_lease(&q->r);
    q->type = 'j';
    q->action = "jobs";
}

static void stop(struct ask *q)
{
    rig_lease(&q->r);
    q->type = 'k';
    q->action = "stop";
}

static void stop_not_allowed(struct ask *q)
{
    stop(q);
    q->r.claims.lease.actions = TOKEN_LAUNCH;
}

static void delegated_stop(struct ask *q)
{
    stop(q);
    delegated(q);
}

static void delegated_part_stop(struct ask *q)
{
    delegated_stop(q);
    q->r.claims.lease.gpu_count = 1;
}

static void delegated_earlier_stop(struct ask *q)
{
    delegated_stop(q);
    q->r.claims.lease.not_after_us -= 60 * US_PER_S;
}

START_TEST(test_steps)
{
    static const struct {
        const char *name, *step;
        void (*spoil)(struct ask *);
    } rows[] = {
#define ROW(fn, step) {#fn, step, fn}
        ROW(good, ""),
        ROW(good_files, ""),
        ROW(good_pty, ""),
        ROW(pty_too_large, "request"),
        ROW(pty_unknown_member, "request"),
        ROW(no_argv, "request"),
        ROW(unknown_member, "request"),
        ROW(bad_env, "request"),
        ROW(file_elsewhere, "request"),
        ROW(hidden_file, "request"),
        ROW(file_no_text, "request"),
        ROW(unknown_type, "request"),
        ROW(foreign_signer, "key"),
        ROW(receipt_as_grant, "header"),
        ROW(other_node, "audience"),
        ROW(other_issuer, "issuer"),
        ROW(expired, "times"),
        ROW(not_begun, "times"),
        ROW(no_time, "status"),
        ROW(stale, "status"),
        ROW(revoked_lease, "status"),
        ROW(lower_epoch, "epoch"),
        ROW(withdrawn_epoch, "epoch"),
        ROW(above_withdrawn_epoch, ""),
        ROW(keys_past_their_time, "key"),
        ROW(other_epoch_than_lease, "epoch"),
        ROW(wrong_key, "possession"),
        ROW(old_nonce, "possession"),
        ROW(other_action, "possession"),
        ROW(other_argv, "possession"),
        ROW(other_tokens_proof, "possession"),
        ROW(no_proof, "possession"),
        ROW(launch_not_allowed, "actions"),
        ROW(other_tenant, "lease"),
        ROW(gpu_busy, "gpu"),
        ROW(gpu_unknown, "gpu"),
        ROW(gpu_of_another_lease, "gpu"),
        ROW(fewer_gpus_than_lease, "gpu"),
        ROW(gpu_quarantined, "gpu"),
        ROW(good_image, ""),
        ROW(image_not_proven, "possession"),
        ROW(image_taken_away, "possession"),
        ROW(other_image, "possession"),
        ROW(delegated_not_open, "lease"),
        ROW(delegated_whole, ""),
        ROW(delegated_part, ""),
        ROW(delegated_other_gpu, "gpu"),
        ROW(delegated_stop, ""),
        ROW(delegated_part_stop, "actions"),
        ROW(delegated_earlier_stop, "actions"),
        ROW(attach_nothing, "lease"),
        ROW(attach_stale, ""),
        ROW(jobs, ""),
        ROW(stop, ""),
        ROW(stop_not_allowed, "actions"),
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct ask *q = xcalloc(1, sizeof(*q));
        ask_init(q);
        rows[i].spoil(q);
        const char *step = ask(q);
        ck_assert_msg(strcmp(step, rows[i].step) == 0, "%s: step '%s', expected '%s'",
                      rows[i].name, step, rows[i].step);
        ask_done(q);
        free(q);
    }
}
END_TEST

START_TEST(test_what_a_job_is_told)
{
    struct ask *q = xcalloc(1, sizeof(*q));
    struct runauth *auth = xcalloc(1, sizeof(*auth));
    const char *step;
    struct err err;
    ask_init(q);
    q->token = sign(q->r.kit.key, JWS_TYP_GRANT, token_build(&q->r.claims));
    q->proof = make_proof(q);
    /* A tenant cannot point its job at other GPUs. */
    json_t *o =
        json_pack("{s:s,s:s,s:O,s:{s:s,s:s},s:b,s:s}", "token", q->token, "proof",
                  q->proof, "argv", q->argv, "env", "CUDA_VISIBLE_DEVICES", "all", "A",
                  "1", "stdin", 1, "cwd", "/tmp");
    char *text = jsonx_dump(o);
    ck_assert_msg(
        runauth_check(&q->r.a, 'l', text, strlen(text), NONCE, auth, &step, &err) == 0,
        "%s: %s", step, err.text);
    ck_assert_str_eq(auth->envp[0], "A=1");
    char *want = xasprintf("CUDA_VISIBLE_DEVICES=%s,%s", q->r.claims.lease.gpus[0],
                           q->r.claims.lease.gpus[1]);
    ck_assert_str_eq(auth->envp[1], want);
    ck_assert_str_eq(auth->argv[1], "hi");
    ck_assert_ptr_null(auth->argv[2]);
    ck_assert_str_eq(auth->cwd, "/tmp");
    ck_assert(auth->want_stdin);
    runauth_done(auth);
    free(want);
    free(text);
    free(auth);
    json_decref(o);
    ask_done(q);
    free(q);
}
END_TEST

UNIT_MAIN("runauth", UNIT_CASE(test_steps) UNIT_CASE(test_what_a_job_is_told))
