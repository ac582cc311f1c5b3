/* Tests of `neargpu run`'s half of the run protocol against an agent's half that is
 * played here over a unix socket, with the agent's own check of the proof. */
#include "client/cli/run.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/lib/b64.h"
#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/jsonx.h"
#include "client/lib/jws.h"
#include "client/lib/timefmt.h"
#include "client/lib/token.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

#define AUDIENCE "spiffe://neargpu.local/site/tokyo/node/n1"
#define NONCE    "bm9uY2Ugbm9uY2Ugbm9uY2Ugbm9uY2Ugbm9uY2Ugbm8"

struct fixture {
    char dir[64];
    char path[100], address[120];
    int listener;
    struct cli cli;
    struct run run;
    pid_t agent;
    int out_pipe[2];
};

/* The token's signer does not matter here: only agents verify it. */
static char *make_token(EVP_PKEY *tenant)
{
    struct token_claims *c = xcalloc(1, sizeof(*c));
    uint8_t pub[JWS_ED25519_LEN];
    EVP_PKEY *signer = NULL;
    char *text = NULL;
    struct err err;
    ck_assert_int_eq(jws_public(tenant, pub, &err), 0);
    jws_thumbprint(pub, c->jkt);
    snprintf(c->aud, sizeof(c->aud), "%s", AUDIENCE);
    c->iat_us = c->nbf_us = clock_now_us() / US_PER_S * US_PER_S;
    c->exp_us = c->iat_us + TOKEN_LIFE_US;
    c->lease.actions = TOKEN_LAUNCH;
    ck_assert_int_eq(jws_keygen(&signer, &err), 0);
    json_t *payload = token_build(c);
    ck_assert_msg(jws_sign(signer, JWS_TYP_GRANT, payload, &text, &err) == 0, "%s",
                  err.text);
    json_decref(payload);
    EVP_PKEY_free(signer);
    free(c);
    return text;
}

static void setup(struct fixture *f)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct err err = {ERR_NONE, ""};
    memset(f, 0, sizeof(*f));
    signal(SIGPIPE, SIG_IGN);
    snprintf(f->dir, sizeof(f->dir), "/tmp/neargpu-run.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(f->dir));
    snprintf(f->path, sizeof(f->path), "%s/agent.sock", f->dir);
    snprintf(f->address, sizeof(f->address), "unix:%s", f->path);
    snprintf(un.sun_path, sizeof(un.sun_path), "%s", f->path);
    f->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(bind(f->listener, (struct sockaddr *)&un, sizeof(un)), 0);
    ck_assert_int_eq(listen(f->listener, 4), 0);
    f->run.c = &f->cli;
    run_link_init(&f->run.link);
    ck_assert_int_eq(jws_keygen(&f->run.key, &err), 0);
    char *token = make_token(f->run.key);
    ck_assert_msg(run_take_token(&f->run, token, &err) == 0, "%s", err.text);
    free(token);
    ck_assert_str_eq(f->run.audience, AUDIENCE);
    f->run.address = xstrdup(f->address);
    ck_assert_int_eq(pipe(f->out_pipe), 0);
}

static void teardown(struct fixture *f)
{
    int status = -1;
    if (f->agent > 0) {
        ck_assert_int_eq(waitpid(f->agent, &status, 0), f->agent);
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0,
                      "the agent's half failed: status %x", (unsigned)status);
    }
    run_link_close(&f->run.link);
    EVP_PKEY_free(f->run.key);
    free(f->run.token);
    free(f->run.audience);
    free(f->run.address);
    free(f->run.job);
    close(f->listener);
    unlink(f->path);
    rmdir(f->dir);
}

/* ---- the agent's half (a child process: leaves with _exit) ------------------------
 */

#define NEED(what)                                                           \
    do {                                                                     \
        if (!(what)) {                                                       \
            fprintf(stderr, "agent's half, line %d: %s\n", __LINE__, #what); \
            _exit(1);                                                        \
        }                                                                    \
    } while (0)

struct peer {
    int fd;
    struct frame_reader in;
};

static void say(struct peer *p, char type, const char *text)
{
    struct strbuf b = STRBUF_INIT;
    frame_put(&b, type, text, strlen(text));
    NEED(write(p->fd, b.data, b.len) == (ssize_t)b.len);
    strbuf_done(&b);
}

static struct frame hear(struct peer *p)
{
    struct frame f;
    int rc;
    while ((rc = frame_next(&p->in, &f, NULL)) == 0) {
        char buf[4096];
        ssize_t n = read(p->fd, buf, sizeof(buf));
        NEED(n > 0);
        frame_feed(&p->in, buf, (size_t)n);
    }
    NEED(rc == 1);
    return f;
}

static bool is(const struct frame *f, char type, const char *text)
{
    return f->type == type && f->len == strlen(text) &&
           memcmp(f->data, text, f->len) == 0;
}

/* Greets, takes the request and checks the proof as an agent does. */
static json_t *serve(const struct fixture *f, struct peer *p, char type,
                     const char *action, const char *const *argv, size_t argc)
{
    struct token_pop want = {.aud = AUDIENCE};
    char jkt[JWS_KID_MAX];
    uint8_t pub[JWS_ED25519_LEN];
    const char *step = "";
    struct err err = {ERR_NONE, ""};
    p->fd = accept(f->listener, NULL, NULL);
    NEED(p->fd >= 0);
    frame_reader_init(&p->in);
    say(p, 'n',
        "{\"nonce\":\"" NONCE "\",\"audience\":\"" AUDIENCE "\",\"version\":1}");
    struct frame fr = hear(p);
    NEED(fr.type == type);
    json_t *rq = jsonx_parse((const char *)fr.data, fr.len, RUN_FRAME_MAX, &err);
    NEED(rq != NULL);
    const char *token = json_string_value(json_object_get(rq, "token"));
    const char *proof = json_string_value(json_object_get(rq, "proof"));
    NEED(token != NULL && strcmp(token, f->run.token) == 0 && proof != NULL);
    snprintf(want.nonce, sizeof(want.nonce), "%s", NONCE);
    snprintf(want.action, sizeof(want.action), "%s", action);
    uint8_t sha[SHA256_LEN];
    digest_sha256(token, strlen(token), sha);
    b64_encode(sha, sizeof(sha), want.ath);
    token_argv_hash(argv, argc, want.argv_hash);
    NEED(jws_public(f->run.key, pub, &err) == 0);
    jws_thumbprint(pub, jkt);
    if (token_pop_check(proof, strlen(proof), jkt, &want, clock_now_us(), &step,
                        &err) != 0) {
        fprintf(stderr, "proof: %s: %s\n", step, err.text);
        _exit(1);
    }
    return rq;
}

typedef void agent_fn(const struct fixture *f);

static void start_agent(struct fixture *f, agent_fn *fn)
{
    f->agent = fork();
    ck_assert_int_ge(f->agent, 0);
    if (f->agent == 0) {
        alarm(20);
        fn(f);
        _exit(0);
    }
}

/* ---- the tests --------------------------------------------------------------------
 */

static const char *const argv_echo[] = {"cat", "-", NULL};

static json_t *launch(struct fixture *f)
{
    struct err err = {ERR_NONE, ""};
    struct run_refusal refusal;
    json_t *body =
        json_pack("{s:[s,s], s:{}, s:b}", "argv", "cat", "-", "env", "stdin", 1);
    json_t *reply = NULL;
    ck_assert_msg(
        run_ask(&f->run, RUN_LAUNCH, body, argv_echo, &reply, &refusal, &err) == 0,
        "%s", err.text);
    json_decref(body);
    f->run.launched = true;
    f->run.job = xstrdup("j1");
    return reply;
}

/* Standard input from `in`, standard output into the fixture's pipe. */
static enum run_end streamed(struct fixture *f, const char *in, int *status,
                             struct err *err)
{
    int in_pipe[2], saved = dup(STDOUT_FILENO);
    ck_assert_int_eq(pipe(in_pipe), 0);
    if (in != NULL) {
        ck_assert_int_eq(write(in_pipe[1], in, strlen(in)), (int)strlen(in));
        close(in_pipe[1]);
    }
    dup2(in_pipe[0], STDIN_FILENO);
    dup2(f->out_pipe[1], STDOUT_FILENO);
    enum run_end end = run_stream(&f->run, status, err);
    dup2(saved, STDOUT_FILENO);
    return end;
}

static const char *shown(struct fixture *f)
{
    static char text[65536];
    struct pollfd p = {f->out_pipe[0], POLLIN, 0};
    ssize_t n = poll(&p, 1, 0) > 0 ? read(f->out_pipe[0], text, sizeof(text) - 1) : 0;
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void agent_echo(const struct fixture *f)
{
    struct peer p;
    json_t *rq = serve(f, &p, 'l', "launch", argv_echo, 2);
    NEED(strcmp(json_string_value(json_array_get(json_object_get(rq, "argv"), 0)),
                "cat") == 0);
    NEED(json_is_true(json_object_get(rq, "stdin")));
    say(&p, 'r', "{\"job\":\"j1\",\"offset\":0,\"state\":\"running\"}");
    struct frame fr = hear(&p);
    NEED(is(&fr, 'i', "hello\n"));
    say(&p, 'o', "hello\n");
    say(&p, '?', "a type of a later version");
    fr = hear(&p);
    NEED(is(&fr, 'I', ""));
    say(&p, 'e', "bye\n");
    say(&p, 'x', "{\"exit\":7,\"reason\":\"exited\"}");
}

START_TEST(test_streams_and_exit)
{
    struct fixture f;
    struct err err = {ERR_NONE, ""};
    int status = -1;
    setup(&f);
    start_agent(&f, agent_echo);
    json_t *reply = launch(&f);
    ck_assert_str_eq(json_string_value(json_object_get(reply, "job")), "j1");
    json_decref(reply);
    ck_assert_int_eq(streamed(&f, "hello\n", &status, &err), RUN_EXITED);
    ck_assert_int_eq(status, 7);
    ck_assert_str_eq(shown(&f), "hello\n");
    ck_assert_int_eq(f.run.offset, 6 + 5 + 4 + 5);
    teardown(&f);
}
END_TEST

static void agent_drops(const struct fixture *f)
{
    struct peer p;
    struct strbuf b = STRBUF_INIT;
    json_decref(serve(f, &p, 'l', "launch", argv_echo, 2));
    say(&p, 'r', "{\"job\":\"j1\",\"offset\":0,\"state\":\"running\"}");
    say(&p, 'o', "one\n");
    frame_put(&b, 'o', "two\n", 4);
    NEED(write(p.fd, b.data, 7) == 7); /* cut within a frame */
    close(p.fd);
    json_t *rq = serve(f, &p, 'a', "attach", NULL, 0);
    NEED(json_integer_value(json_object_get(rq, "offset")) == 9);
    NEED(strcmp(json_string_value(json_object_get(rq, "job")), "j1") == 0);
    say(&p, 'r', "{\"job\":\"j1\",\"offset\":9,\"state\":\"running\"}");
    NEED(write(p.fd, b.data, b.len) == (ssize_t)b.len);
    say(&p, 'x', "{\"signal\":9,\"reason\":\"lease_end\"}");
}

START_TEST(test_lost_and_attached_again)
{
    struct fixture f;
    struct err err = {ERR_NONE, ""};
    struct run_refusal refusal;
    int status = -1;
    setup(&f);
    start_agent(&f, agent_drops);
    json_decref(launch(&f));
    ck_assert_int_eq(streamed(&f, NULL, &status, &err), RUN_LOST);
    ck_assert_str_eq(shown(&f), "one\n");
    ck_assert_int_eq(f.run.offset, 9);
    json_t *body = json_pack("{s:s, s:i}", "job", "j1", "offset", 9), *reply = NULL;
    ck_assert_msg(run_ask(&f.run, RUN_ATTACH, body, NULL, &reply, &refusal, &err) == 0,
                  "%s", err.text);
    json_decref(body);
    json_decref(reply);
    ck_assert_int_eq(streamed(&f, NULL, &status, &err), RUN_EXITED);
    ck_assert_int_eq(status, 137);
    ck_assert_str_eq(shown(&f), "two\n");
    ck_assert_int_eq(f.run.offset, 18);
    teardown(&f);
}
END_TEST

static void agent_signals(const struct fixture *f)
{
    struct peer p;
    json_decref(serve(f, &p, 'l', "launch", argv_echo, 2));
    say(&p, 'r', "{\"job\":\"j1\",\"offset\":0,\"state\":\"running\"}");
    kill(getppid(), SIGHUP);
    struct frame fr = hear(&p);
    NEED(is(&fr, 's', "1"));
    kill(getppid(), SIGINT);
    fr = hear(&p);
    NEED(is(&fr, 's', "2"));
    kill(getppid(), SIGINT); /* the second within a second: leave */
    struct pollfd gone = {p.fd, POLLIN, 0};
    NEED(poll(&gone, 1, 5000) == 1);
    char c;
    NEED(read(p.fd, &c, 1) == 0);
}

START_TEST(test_signals_and_detach)
{
    struct fixture f;
    struct err err = {ERR_NONE, ""};
    int status = -1;
    sigset_t block;
    setup(&f);
    sigemptyset(&block); /* one may come before run_stream takes them */
    sigaddset(&block, SIGHUP);
    sigaddset(&block, SIGINT);
    sigprocmask(SIG_BLOCK, &block, NULL);
    start_agent(&f, agent_signals);
    json_decref(launch(&f));
    ck_assert_int_eq(streamed(&f, NULL, &status, &err), RUN_DETACHED);
    run_link_close(&f.run.link);
    teardown(&f);
}
END_TEST

static void agent_refuses(const struct fixture *f)
{
    struct peer p;
    json_decref(serve(f, &p, 'j', "jobs", NULL, 0));
    say(&p, 'E',
        "{\"error\":\"token\",\"step\":\"possession\",\"detail\":\"not the "
        "key\"}");
}

START_TEST(test_refusal)
{
    struct fixture f;
    struct err err = {ERR_NONE, ""};
    struct run_refusal refusal;
    json_t *reply = NULL;
    setup(&f);
    start_agent(&f, agent_refuses);
    ck_assert_int_lt(run_ask(&f.run, RUN_JOBS, NULL, NULL, &reply, &refusal, &err), 0);
    ck_assert_int_eq(err.code, ERR_FORBIDDEN);
    ck_assert_str_eq(refusal.step, "possession");
    ck_assert_str_eq(err.text, "the agent refused at step possession: not the key");
    teardown(&f);
}
END_TEST

static void agent_is_another(const struct fixture *f)
{
    struct peer p = {.fd = accept(f->listener, NULL, NULL)};
    char c;
    say(&p, 'n',
        "{\"nonce\":\"" NONCE "\",\"audience\":\"" AUDIENCE "x\",\"version\":1}");
    NEED(read(p.fd, &c, 1) == 0); /* hears nothing from us */
}

START_TEST(test_other_audience_hears_nothing)
{
    struct fixture f;
    struct err err = {ERR_NONE, ""};
    struct run_refusal refusal;
    json_t *reply = NULL;
    setup(&f);
    start_agent(&f, agent_is_another);
    ck_assert_int_lt(run_ask(&f.run, RUN_JOBS, NULL, NULL, &reply, &refusal, &err), 0);
    ck_assert_int_eq(err.code, ERR_FORBIDDEN);
    ck_assert_ptr_nonnull(strstr(err.text, "audience"));
    teardown(&f);
}
END_TEST

static void agent_dies_after_launch(const struct fixture *f)
{
    struct peer p;
    json_decref(serve(f, &p, 'l', "launch", argv_echo, 2));
}

START_TEST(test_unanswered_launch_is_unknown)
{
    struct fixture f;
    struct err err = {ERR_NONE, ""};
    struct run_refusal refusal;
    json_t *body = json_pack("{s:[s,s]}", "argv", "cat", "-"), *reply = NULL;
    setup(&f);
    start_agent(&f, agent_dies_after_launch);
    ck_assert_int_lt(
        run_ask(&f.run, RUN_LAUNCH, body, argv_echo, &reply, &refusal, &err), 0);
    ck_assert_int_eq(err.code, ERR_UNKNOWN);
    json_decref(body);
    teardown(&f);
}
END_TEST

static void agent_pours(const struct fixture *f)
{
    struct peer p;
    char line[1001];
    json_decref(serve(f, &p, 'l', "launch", argv_echo, 2));
    say(&p, 'r', "{\"job\":\"j1\",\"offset\":0,\"state\":\"running\"}");
    memset(line, 'x', 1000);
    line[1000] = '\0';
    for (int i = 0; i < 3000; i++)
        say(&p, 'o', line);
    say(&p, 'x', "{\"exit\":0,\"reason\":\"exited\"}");
}

/* A reader slower than the job: nothing is lost, and not all of it is held. */
START_TEST(test_slow_reader)
{
    struct fixture f;
    struct err err = {ERR_NONE, ""};
    int status = -1;
    setup(&f);
    start_agent(&f, agent_pours);
    json_decref(launch(&f));
    pid_t reader = fork();
    if (reader == 0) {
        static char buf[8192];
        size_t sum = 0;
        ssize_t n;
        close(f.out_pipe[1]);
        poll(NULL, 0, 100);
        while ((n = read(f.out_pipe[0], buf, sizeof(buf))) > 0)
            sum += (size_t)n;
        _exit(sum == 3000 * 1000 ? 0 : 1);
    }
    ck_assert_int_eq(streamed(&f, NULL, &status, &err), RUN_EXITED);
    ck_assert_int_eq(status, 0);
    ck_assert_int_eq(f.run.offset, 3000 * 1005);
    close(f.out_pipe[1]);
    int got = -1;
    ck_assert_int_eq(waitpid(reader, &got, 0), reader);
    ck_assert_msg(got == 0, "the reader missed some");
    teardown(&f);
}
END_TEST

UNIT_MAIN("run",
          UNIT_CASE(test_streams_and_exit) UNIT_CASE(test_lost_and_attached_again)
              UNIT_CASE(test_signals_and_detach) UNIT_CASE(test_refusal)
                  UNIT_CASE(test_other_audience_hears_nothing)
                      UNIT_CASE(test_unanswered_launch_is_unknown)
                          UNIT_CASE(test_slow_reader))
