/* The signer as a process of its own, with the real neargpud: it signs, refuses what it
 * must, comes back when it is killed, knows a new key set, and can do nothing else. */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/keyset.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "server/issuer/issuer.h"
#include "server/issuer/keystore.h"
#include "tests/unit/unit.h"

#define ISS "https://test.local"

static char dir[64];
static char *program;
static struct err err;

static struct issuer *begin(void)
{
    struct issuer *is;
    const char *build = getenv("NEARGPU_BUILD");
    program = xasprintf("%s/server/neargpud", build != NULL ? build : ".");
    snprintf(dir, sizeof(dir), "/tmp/neargpu-signer.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_msg(issuer_open(dir, ISS, clock_now_us(), program, &is, &err) == 0, "%s",
                  err.text);
    return is;
}

static void end(struct issuer *is)
{
    issuer_free(is);
    free(program);
    ck_assert_int_eq(fsx_remove_tree(dir, &err), 0);
}

static char *proc_file(pid_t pid, const char *name)
{
    char *path = xasprintf("/proc/%d/%s", (int)pid, name), *text = NULL;
    FILE *f = fopen(path, "r");
    size_t cap = 0;
    if (f != NULL && getdelim(&text, &cap, EOF, f) < 0) {
        free(text);
        text = NULL;
    }
    if (f != NULL)
        fclose(f);
    free(path);
    return text != NULL ? text : xstrdup("");
}

/* Our only child. */
static pid_t signer_pid(void)
{
    char *path = xasprintf("task/%d/children", (int)getpid()),
         *text = proc_file(getpid(), path);
    pid_t pid = (pid_t)strtol(text, NULL, 10);
    free(path);
    free(text);
    ck_assert_int_gt(pid, 0);
    return pid;
}

static struct token_claims *claims(void)
{
    struct token_claims *c = xcalloc(1, sizeof(*c));
    int64_t now = clock_now_us() / US_PER_S * US_PER_S;
    snprintf(c->aud, sizeof(c->aud), "spiffe://test.local/site/a/node/n");
    snprintf(c->sub, sizeof(c->sub), "01890a5d-ac96-774b-bcce-b302099a8009");
    snprintf(c->client_id, sizeof(c->client_id),
             "01890a5d-ac96-774b-bcce-b302099a8009");
    snprintf(c->jti, sizeof(c->jti), "01890a5d-ac96-774b-bcce-b302099a8008");
    memset(c->jkt, 'A', JWS_KID_MAX - 1);
    c->iat_us = c->nbf_us = now;
    c->exp_us = now + TOKEN_LIFE_US;
    snprintf(c->lease.reservation, sizeof(c->lease.reservation),
             "01890a5d-ac96-774b-bcce-b302099a8007");
    snprintf(c->lease.gpus[0], sizeof(c->lease.gpus[0]), "GPU-1");
    c->lease.gpu_count = 1;
    c->lease.actions = TOKEN_LAUNCH;
    c->lease.not_before_us = now;
    c->lease.not_after_us = now + 60 * US_PER_S;
    c->lease.epoch = now;
    return c;
}

/* Signed by a key of the set, for this market. */
static void expect_signed(const struct issuer *is, const struct token_claims *c)
{
    char *text = NULL;
    const char *step;
    struct keyring *keys;
    json_t *jwks = issuer_jwks(is);
    struct token_claims *got = xcalloc(1, sizeof(*got));
    ck_assert_msg(issuer_grant(is, c, &text, &err) == 0, "%s", err.text);
    ck_assert_int_eq(keyring_from_jwks(jwks, &keys, &err), 0);
    struct token_check ctx = {
        .keys = keys, .issuer = ISS, .audience = c->aud, .now_us = c->iat_us};
    ck_assert_msg(token_check(text, strlen(text), &ctx, got, &step, &err) == 0,
                  "%s: %s", step, err.text);
    keyring_free(keys);
    json_decref(jwks);
    free(got);
    free(text);
}

START_TEST(test_signs_and_refuses)
{
    struct issuer *is = begin();
    struct token_claims *c = claims();
    char *text;
    expect_signed(is, c);
    /* Another market's name in the request does not become one in the token. */
    snprintf(c->iss, sizeof(c->iss), "https://other.local");
    expect_signed(is, c);
    c->lease.gpu_count = 0;
    ck_assert_int_eq(issuer_grant(is, c, &text, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "refuses to sign"));
    c->lease.gpu_count = 100000; /* a lie about the structure */
    ck_assert_int_eq(issuer_grant(is, c, &text, &err), -1);
    c->lease.gpu_count = 1;
    memset(c->sub, 'x', sizeof(c->sub)); /* no end */
    ck_assert_int_eq(issuer_grant(is, c, &text, &err), 0);
    free(text);
    free(c);
    c = claims();
    c->iat_us += 500 * INT64_C(86400) * US_PER_S; /* no key is valid then */
    c->exp_us = c->iat_us + TOKEN_LIFE_US;
    ck_assert_int_eq(issuer_grant(is, c, &text, &err), -1);
    ck_assert_int_eq(err.code, ERR_UNAVAILABLE);
    free(c);
    end(is);
}
END_TEST

START_TEST(test_confined)
{
    struct issuer *is = begin();
    struct token_claims *c = claims();
    int open_files = 0;
    expect_signed(is, c);
    pid_t pid = signer_pid();
    char *status = proc_file(pid, "status"), *env = proc_file(pid, "environ"),
         *path = xasprintf("/proc/%d/fd", (int)pid);
    ck_assert_ptr_nonnull(strstr(status, "Seccomp:\t2"));
    ck_assert_ptr_nonnull(strstr(status, "NoNewPrivs:\t1"));
    ck_assert_str_eq(env, "");
    DIR *d = opendir(path);
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;)
        open_files += e->d_name[0] != '.';
    closedir(d);
    ck_assert_int_le(open_files, 4); /* its socket, and what a program begins with */
    free(path);
    free(env);
    free(status);
    free(c);
    end(is);
}
END_TEST

START_TEST(test_killed)
{
    struct issuer *is = begin();
    struct token_claims *c = claims();
    expect_signed(is, c);
    for (int i = 0; i < 5; i++) {
        pid_t pid = signer_pid();
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        expect_signed(is, c);
        ck_assert_int_ne(signer_pid(), pid);
    }
    free(c);
    end(is);
}
END_TEST

/* A rotation by a command beside it: taken over, and signed with. */
START_TEST(test_new_set)
{
    struct issuer *is = begin();
    struct token_claims *c = claims();
    struct keystore *k;
    struct keystore_change how = {.now_us = clock_now_us() - US_PER_S};
    char made[JWS_KID_MAX], kid[JWS_KID_MAX];
    bool changed;
    expect_signed(is, c);
    ck_assert_int_eq(keystore_open_existing(dir, &k, &err), 0);
    ck_assert_int_eq(keystore_rotate(k, &how, 0, made, &err), 0);
    keystore_free(k);
    ck_assert_int_eq(issuer_renew(is, clock_now_us(), &changed, &err), 0);
    ck_assert(changed);
    issuer_kid(is, clock_now_us(), kid);
    ck_assert_str_eq(kid, made);
    expect_signed(is, c);
    ck_assert_int_eq(issuer_renew(is, clock_now_us(), &changed, &err), 0);
    ck_assert(!changed);
    free(c);
    end(is);
}
END_TEST

START_TEST(test_status_of_many)
{
    struct issuer *is = begin();
    static char ids[STATUS_REVOKED_MAX][UUID_TEXT];
    static const char *list[STATUS_REVOKED_MAX];
    struct issuer_status doc = {clock_now_us(), 3, list, STATUS_REVOKED_MAX};
    struct token_status got;
    struct keyring *keys;
    char *text;
    for (int i = 0; i < STATUS_REVOKED_MAX; i++) {
        snprintf(ids[i], UUID_TEXT, "01890a5d-ac96-774b-bcce-%012x", (unsigned)i);
        list[i] = ids[i];
    }
    ck_assert_msg(issuer_status(is, &doc, &text, &err) == 0, "%s", err.text);
    json_t *jwks = issuer_jwks(is);
    ck_assert_int_eq(keyring_from_jwks(jwks, &keys, &err), 0);
    ck_assert_msg(token_status_check(text, strlen(text), keys, ISS, &got, &err) == 0,
                  "%s", err.text);
    ck_assert_uint_eq(got.revoked_count, STATUS_REVOKED_MAX);
    token_status_done(&got);
    keyring_free(keys);
    json_decref(jwks);
    free(text);
    doc.revoked_count++;
    ck_assert_int_eq(issuer_status(is, &doc, &text, &err), -1);
    end(is);
}
END_TEST

UNIT_MAIN("signer", UNIT_CASE(test_signs_and_refuses) UNIT_CASE(test_confined)
                        UNIT_CASE(test_killed) UNIT_CASE(test_new_set)
                            UNIT_CASE(test_status_of_many))
