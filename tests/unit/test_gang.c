/* gang: who is who among the ranks, lines that share a terminal, and the loop over all
 * connections against scripted agents (each plays its half in a child process). */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/cli/gang.h"
#include "client/lib/clock.h"
#include "client/lib/jsonx.h"
#include "client/lib/jws.h"
#include "client/lib/token.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

#define NONCE "bm9uY2Ugbm9uY2Ugbm9uY2Ugbm9uY2Ugbm9uY2Ugbm8"

/* ---- the plan ---------------------------------------------------------------------
 */

static const char three[] =
    "{\"id\":\"01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d\",\"allocations\":["
    "{\"node\":\"o1\",\"site\":\"osaka\",\"address\":\"10.0.2.1:7443\",\"rank\":2,"
    "\"gpus\":[\"g4\",\"g5\"]},"
    "{\"node\":\"t1\",\"site\":\"tokyo\",\"address\":\"10.0.1.1:7443\",\"rank\":0,"
    "\"gpus\":[\"g0\",\"g1\"]},"
    "{\"node\":\"t2\",\"site\":\"tokyo\",\"address\":\"[fd00::2]:7443\",\"rank\":1,"
    "\"gpus\":[\"g2\",\"g3\"]}],\"coordinator\":\"tokyo\",\"groups\":["
    "{\"data\":\"far\",\"site\":\"osaka\",\"nodes\":1},"
    "{\"data\":\"near\",\"site\":\"tokyo\",\"nodes\":1},"
    "{\"data\":\"next\",\"site\":\"tokyo\",\"nodes\":1}]}";

static const char *env_of(const json_t *env, const char *name)
{
    const char *text = json_string_value(json_object_get(env, name));
    return text != NULL ? text : "(not there)";
}

static void same_env(const json_t *env, const char *const want[][2], size_t count)
{
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(strcmp(env_of(env, want[i][0]), want[i][1]) == 0,
                      "%s: %s, not %s", want[i][0], env_of(env, want[i][0]),
                      want[i][1]);
}
#define SAME_ENV(env, want) same_env(env, want, sizeof(want) / sizeof((want)[0]))

START_TEST(test_a_process_on_each_node)
{
    static const char *const want[][2] = {
        {"RANK", "1"},
        {"WORLD_SIZE", "3"},
        {"LOCAL_RANK", "0"},
        {"LOCAL_WORLD_SIZE", "1"},
        {"GROUP_RANK", "1"},
        {"NODE_RANK", "1"},
        {"NNODES", "3"},
        {"NPROC_PER_NODE", "2"},
        {"MASTER_ADDR", "10.0.1.1"},
        {"PET_NNODES", "3"},
        {"PET_NODE_RANK", "1"},
        {"PET_NPROC_PER_NODE", "2"},
        {"PET_MASTER_ADDR", "10.0.1.1"},
        {"OMPI_COMM_WORLD_RANK", "1"},
        {"OMPI_COMM_WORLD_SIZE", "3"},
        {"OMPI_COMM_WORLD_LOCAL_RANK", "0"},
        {"PMI_RANK", "1"},
        {"PMI_SIZE", "3"},
        {"NEARGPU_RANK", "1"},
        {"NEARGPU_NODES", "3"},
        {"NEARGPU_HOSTS", "10.0.1.1,fd00::2,10.0.2.1"},
        {"NEARGPU_HOSTFILE", "/run/neargpu/work/hostfile"},
        {"NEARGPU_GROUP", "next"},
        {"NEARGPU_COORDINATOR", "tokyo"},
        {"NEARGPU_RUN", "r1"},
        {"NEARGPU_GPU", "(not there)"},
    };
    json_t *resv = json_loads(three, 0, NULL);
    struct gang_plan p;
    struct err err;
    ck_assert_int_eq(gang_plan_make(resv, NULL, false, &p, &err), 0);
    json_t *env = gang_plan_env(&p, 1, 0, "r1");
    SAME_ENV(env, want);
    long port = strtol(env_of(env, "MASTER_PORT"), NULL, 10);
    ck_assert_int_ge(port, GANG_PORT_MIN);
    ck_assert_int_lt(port, GANG_PORT_MIN + GANG_PORT_COUNT);
    ck_assert_str_eq(env_of(env, "PET_MASTER_PORT"), env_of(env, "MASTER_PORT"));
    json_decref(env);
    env = gang_plan_env(&p, 2, 0, "r1");
    ck_assert_str_eq(env_of(env, "NEARGPU_GROUP"), "far");
    json_decref(env);
    char *hosts = gang_plan_hostfile(&p);
    ck_assert_str_eq(hosts, "10.0.1.1 slots=2\nfd00::2 slots=2\n10.0.2.1 slots=2\n");
    free(hosts);
    gang_plan_done(&p);
    json_decref(resv);
}
END_TEST

START_TEST(test_a_process_for_each_gpu)
{
    static const char *const want[][2] = {
        {"RANK", "5"},
        {"WORLD_SIZE", "6"},
        {"LOCAL_RANK", "1"},
        {"NODE_RANK", "2"},
        {"LOCAL_WORLD_SIZE", "2"},
        {"NEARGPU_GPU", "g5"},
        {"PMI_RANK", "5"},
        {"NEARGPU_RANK", "5"},
        {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
    };
    json_t *resv = json_loads(three, 0, NULL);
    struct gang_plan p;
    struct err err;
    ck_assert_int_eq(gang_plan_make(resv, NULL, true, &p, &err), 0);
    ck_assert_int_eq(p.world, 6);
    json_t *env = gang_plan_env(&p, 2, 1, "r1");
    SAME_ENV(env, want);
    json_decref(env);
    gang_plan_done(&p);
    ck_assert_int_eq(gang_plan_make(resv, "t2", true, &p, &err), 0);
    ck_assert_int_eq(p.world, 2);
    ck_assert_uint_eq(p.count, 1);
    gang_plan_done(&p);
    ck_assert_int_eq(gang_plan_make(resv, "t9", true, &p, &err), -1);
    ck_assert_int_eq(err.code, ERR_NOT_FOUND);
    json_object_set_new(resv, "allocations", json_array());
    ck_assert_int_eq(gang_plan_make(resv, NULL, true, &p, &err), -1);
    ck_assert_int_eq(err.code, ERR_CONFLICT);
    json_decref(resv);
}
END_TEST

/* ---- lines ------------------------------------------------------------------------
 */

START_TEST(test_lines)
{
    static const struct {
        const char *label;
        const char *in[6];
        const char *want;
    } cases[] = {
        {"[1] ", {"a\nb", "c\n", "d"}, "[1] a\n[1] bc\n[1] d\n"},
        {NULL, {"a\nb", "c\n", "d"}, "a\nbc\nd\n"},
        {"[1] ", {"10%\r20%\r", "30%\r", "\n"}, "[1] 10%\n[1] 20%\n[1] 30%\n"},
        {"[1] ", {"a\r", "b"}, "[1] a\n[1] b\n"},
        {NULL, {"a\rb\r\n"}, "a\rb\r\n"},
        {"[1] ", {"\n\n"}, "[1] \n[1] \n"},
        {"[1] ", {""}, ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct lines l = {STRBUF_INIT};
        struct strbuf out = STRBUF_INIT;
        for (size_t k = 0; cases[i].in[k] != NULL; k++)
            lines_take(&l, cases[i].label, cases[i].in[k], strlen(cases[i].in[k]),
                       &out);
        lines_end(&l, cases[i].label, &out);
        ck_assert_msg(strcmp(strbuf_str(&out), cases[i].want) == 0, "case %zu: %s", i,
                      strbuf_str(&out));
        strbuf_done(&out);
    }
    struct lines l = {STRBUF_INIT};
    struct strbuf out = STRBUF_INIT;
    char *endless = xcalloc(1, LINES_MAX + 11);
    memset(endless, 'x', LINES_MAX + 10);
    lines_take(&l, NULL, endless, LINES_MAX + 10, &out);
    ck_assert_uint_eq(out.len, LINES_MAX + 1); /* broken there, so that it is bounded */
    lines_end(&l, NULL, &out);
    ck_assert_uint_eq(out.len, LINES_MAX + 12);
    free(endless);
    strbuf_done(&out);
}
END_TEST

/* ---- the loop ---------------------------------------------------------------------
 */

#define RANKS 3

struct fixture {
    char dir[64];
    int listener[RANKS];
    pid_t agent[RANKS];
    struct cli cli;
    struct gang g;
    EVP_PKEY *key;
    int out_pipe[2];
};

static char *audience_of(int i)
{
    return xasprintf("spiffe://test/site/s/node/n%d", i);
}

static char *make_token(EVP_PKEY *tenant, int i)
{
    struct token_claims *c = xcalloc(1, sizeof(*c));
    uint8_t pub[JWS_ED25519_LEN];
    EVP_PKEY *signer = NULL;
    char *text = NULL, *audience = audience_of(i);
    struct err err;
    ck_assert_int_eq(jws_public(tenant, pub, &err), 0);
    jws_thumbprint(pub, c->jkt);
    snprintf(c->aud, sizeof(c->aud), "%s", audience);
    c->iat_us = c->nbf_us = clock_now_us() / US_PER_S * US_PER_S;
    c->exp_us = c->iat_us + TOKEN_LIFE_US;
    c->lease.actions = TOKEN_LAUNCH;
    ck_assert_int_eq(jws_keygen(&signer, &err), 0);
    json_t *payload = token_build(c);
    ck_assert_msg(jws_sign(signer, JWS_TYP_GRANT, payload, &text, &err) == 0, "%s",
                  err.text);
    json_decref(payload);
    EVP_PKEY_free(signer);
    free(audience);
    free(c);
    return text;
}

static const char *const argv_of_test[] = {"cat", "-", NULL};

static void setup(struct fixture *f)
{
    struct err err = {ERR_NONE, ""};
    memset(f, 0, sizeof(*f));
    signal(SIGPIPE, SIG_IGN);
    snprintf(f->dir, sizeof(f->dir), "/tmp/neargpu-gang.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(f->dir));
    ck_assert_int_eq(jws_keygen(&f->key, &err), 0);
    f->g = (struct gang){.c = &f->cli,
                         .reservation = "res",
                         .key = f->key,
                         .run = "run",
                         .argv = argv_of_test,
                         .label = true,
                         .count = RANKS};
    f->g.ranks = xcalloc(RANKS, sizeof(*f->g.ranks));
    for (int i = 0; i < RANKS; i++) {
        struct sockaddr_un un = {.sun_family = AF_UNIX};
        struct gang_rank *r = &f->g.ranks[i];
        snprintf(un.sun_path, sizeof(un.sun_path), "%s/%d", f->dir, i);
        f->listener[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ck_assert_int_eq(bind(f->listener[i], (struct sockaddr *)&un, sizeof(un)), 0);
        ck_assert_int_eq(listen(f->listener[i], 4), 0);
        gang_rank_init(r, &f->g, i, "node");
        char *token = make_token(f->key, i);
        ck_assert_msg(run_take_token(&r->run, token, &err) == 0, "%s", err.text);
        free(token);
        int64_t half_us = r->run.renew_us - clock_boot_us();
        ck_assert(half_us <= TOKEN_LIFE_US / 2 &&
                  half_us > TOKEN_LIFE_US / 2 - 20 * US_PER_S);
        ck_assert(gang_rank_renew_us(r) == INT64_MAX); /* not while it rests */
        r->run.address = xasprintf("unix:%s/%d", f->dir, i);
        r->body = json_pack("{s:[s,s]}", "argv", "cat", "-");
    }
    ck_assert_int_eq(pipe(f->out_pipe), 0);
    ck_assert_int_eq(fcntl(f->out_pipe[1], F_SETPIPE_SZ, 1 << 20), 1 << 20);
}

static void teardown(struct fixture *f)
{
    for (int i = 0; i < RANKS; i++) {
        int status = -1;
        gang_rank_done(&f->g.ranks[i]);
        if (f->agent[i] > 0) {
            ck_assert_int_eq(waitpid(f->agent[i], &status, 0), f->agent[i]);
            ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0,
                          "agent %d failed: status %x", i, (unsigned)status);
        }
        char *path = xasprintf("%s/%d", f->dir, i);
        close(f->listener[i]);
        unlink(path);
        free(path);
    }
    free(f->g.ranks);
    EVP_PKEY_free(f->key);
    ck_assert_int_eq(rmdir(f->dir), 0);
}

#define NEED(what)                                                           \
    do {                                                                     \
        if (!(what)) {                                                       \
            fprintf(stderr, "agent's half, line %d: %s\n", __LINE__, #what); \
            _exit(1);                                                        \
        }                                                                    \
    } while (0)

struct peer {
    int fd, i;
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

/* Greets and takes the request; its JSON. */
static json_t *serve(const struct fixture *f, struct peer *p, char type)
{
    struct err err;
    char *audience = audience_of(p->i);
    char *hello = xasprintf(
        "{\"nonce\":\"" NONCE "\",\"audience\":\"%s\",\"version\":1}", audience);
    p->fd = accept(f->listener[p->i], NULL, NULL);
    NEED(p->fd >= 0);
    frame_reader_init(&p->in);
    say(p, 'n', hello);
    free(hello);
    free(audience);
    struct frame fr = hear(p);
    NEED(fr.type == type);
    json_t *rq = jsonx_parse((const char *)fr.data, fr.len, RUN_FRAME_MAX, &err);
    NEED(rq != NULL && json_object_get(rq, "proof") != NULL);
    return rq;
}

static void started(const struct fixture *f, struct peer *p)
{
    json_decref(serve(f, p, 'l'));
    say(p, 'r', "{\"job\":\"j\",\"offset\":0,\"state\":\"running\"}");
}

typedef void agent_fn(const struct fixture *f, struct peer *p);

static void start_agents(struct fixture *f, agent_fn *fn)
{
    for (int i = 0; i < RANKS; i++) {
        f->agent[i] = fork();
        ck_assert_int_ge(f->agent[i], 0);
        if (f->agent[i] == 0) {
            struct peer p = {.i = i};
            alarm(30);
            close(f->out_pipe[1]); /* its end is to be seen */
            fn(f, &p);
            _exit(0);
        }
    }
}

static const char *loop(struct fixture *f, const char *in)
{
    static char text[1 << 20];
    struct err err = {ERR_NONE, ""};
    int in_pipe[2], saved = dup(STDOUT_FILENO);
    ck_assert_int_eq(pipe(in_pipe), 0);
    if (in != NULL)
        ck_assert_int_eq(write(in_pipe[1], in, strlen(in)), (int)strlen(in));
    close(in_pipe[1]);
    dup2(in_pipe[0], STDIN_FILENO);
    fflush(stdout);
    dup2(f->out_pipe[1], STDOUT_FILENO);
    int rc = gang_loop(&f->g, &err);
    dup2(saved, STDOUT_FILENO);
    ck_assert_msg(rc == 0, "%s", err.text);
    close(f->out_pipe[1]);
    size_t len = 0;
    ssize_t n;
    while (len < sizeof(text) - 1 &&
           (n = read(f->out_pipe[0], text + len, sizeof(text) - 1 - len)) > 0)
        len += (size_t)n;
    text[len] = '\0';
    return text;
}

static void agent_talks(const struct fixture *f, struct peer *p)
{
    started(f, p);
    for (int i = 0; i < 200; i++) { /* in halves, so that lines of all could mix */
        char line[64];
        snprintf(line, sizeof(line), "line %d of ", i);
        say(p, 'o', line);
        if (i % 50 == 0)
            poll(NULL, 0, 5);
        snprintf(line, sizeof(line), "agent %d\n", p->i);
        say(p, 'o', line);
    }
    if (p->i == 0) {
        struct frame fr = hear(p);
        NEED(is(&fr, 'i', "hello\n"));
        fr = hear(p);
        NEED(is(&fr, 'I', ""));
    }
    say(p, 'x', "{\"exit\":0,\"reason\":\"exited\"}");
}

START_TEST(test_lines_never_mix)
{
    struct fixture f;
    int next[RANKS] = {0};
    setup(&f);
    f.g.ranks[0].feed = true;
    f.g.stdin_open = true;
    start_agents(&f, agent_talks);
    char *text = xstrdup(loop(&f, "hello\n")), *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line != NULL;
         line = strtok_r(NULL, "\n", &save)) {
        int rank = -1, number = -1, agent = -1;
        ck_assert_msg(
            sscanf(line, "[%d] line %d of agent %d", &rank, &number, &agent) == 3 &&
                rank == agent && rank >= 0 && rank < RANKS && number == next[rank]++,
            "%s", line);
    }
    for (int i = 0; i < RANKS; i++)
        ck_assert_int_eq(next[i], 200);
    ck_assert_int_eq(f.g.status, 0);
    free(text);
    teardown(&f);
}
END_TEST

static void agent_one_fails(const struct fixture *f, struct peer *p)
{
    started(f, p);
    if (p->i == 1) {
        say(p, 'x', "{\"exit\":7,\"reason\":\"exited\"}");
        return;
    }
    struct frame fr = hear(p);
    NEED(is(&fr, 's', "15"));
    say(p, 'x', "{\"signal\":15,\"reason\":\"exited\"}");
}

START_TEST(test_one_failure_ends_all)
{
    struct fixture f;
    setup(&f);
    start_agents(&f, agent_one_fails);
    int64_t from = clock_boot_us();
    (void)loop(&f, NULL);
    ck_assert_int_eq(f.g.status, 7); /* of the first, not of those it took along */
    ck_assert_int_lt(clock_boot_us() - from, 5 * US_PER_S);
    teardown(&f);
}
END_TEST

static void agent_goes_on(const struct fixture *f, struct peer *p)
{
    started(f, p);
    if (p->i == 1) {
        say(p, 'x', "{\"exit\":7,\"reason\":\"exited\"}");
        return;
    }
    struct pollfd quiet = {p->fd, POLLIN, 0};
    NEED(poll(&quiet, 1, 300) == 0); /* nobody tells it to end */
    say(p, 'o', "done\n");
    say(p, 'x',
        p->i == 2 ? "{\"exit\":9,\"reason\":\"exited\"}"
                  : "{\"exit\":0,\"reason\":\"exited\"}");
}

START_TEST(test_keep_going)
{
    struct fixture f;
    setup(&f);
    f.g.keep_going = true;
    start_agents(&f, agent_goes_on);
    const char *text = loop(&f, NULL);
    ck_assert_ptr_nonnull(strstr(text, "[0] done\n"));
    ck_assert_ptr_nonnull(strstr(text, "[2] done\n"));
    ck_assert_int_eq(f.g.status, 7);
    teardown(&f);
}
END_TEST

/* Rank 1 is lost in the middle of a frame and found again where it was; rank 2's answer
 * is lost, and the same launch is sent again. */
static void agent_comes_back(const struct fixture *f, struct peer *p)
{
    if (p->i == 2) {
        json_t *first = serve(f, p, 'l');
        close(p->fd);
        frame_reader_done(&p->in);
        json_t *again = serve(f, p, 'l');
        NEED(json_equal(json_object_get(first, "token"),
                        json_object_get(again, "token")));
        say(p, 'r', "{\"job\":\"j\",\"offset\":0,\"state\":\"running\"}");
    } else {
        started(f, p);
    }
    if (p->i == 1) {
        struct strbuf b = STRBUF_INIT;
        say(p, 'o', "one\n");
        frame_put(&b, 'o', "two\n", 4);
        NEED(write(p->fd, b.data, 7) == 7);
        close(p->fd);
        frame_reader_done(&p->in);
        json_t *rq = serve(f, p, 'a');
        NEED(json_integer_value(json_object_get(rq, "offset")) == 9);
        NEED(strcmp(json_string_value(json_object_get(rq, "job")), "j") == 0);
        say(p, 'r', "{\"job\":\"j\",\"offset\":9,\"state\":\"running\"}");
        NEED(write(p->fd, b.data, b.len) == (ssize_t)b.len);
    }
    say(p, 'x', "{\"exit\":0,\"reason\":\"exited\"}");
}

START_TEST(test_lost_and_found)
{
    struct fixture f;
    setup(&f);
    start_agents(&f, agent_comes_back);
    ck_assert_str_eq(loop(&f, NULL), "[1] one\n[1] two\n");
    ck_assert_int_eq(f.g.status, 0);
    teardown(&f);
}
END_TEST

static void agent_refuses_one(const struct fixture *f, struct peer *p)
{
    if (p->i == 2) {
        json_decref(serve(f, p, 'l'));
        say(p, 'E', "{\"error\":\"token\",\"step\":\"possession\",\"detail\":\"no\"}");
        return;
    }
    started(f, p);
    struct frame fr = hear(p);
    NEED(is(&fr, 's', "15"));
    say(p, 'x', "{\"exit\":0,\"reason\":\"exited\"}");
}

START_TEST(test_all_or_nothing)
{
    struct fixture f;
    setup(&f);
    start_agents(&f, agent_refuses_one);
    (void)loop(&f, NULL);
    ck_assert_int_eq(f.g.status, err_exit_status(ERR_FORBIDDEN));
    teardown(&f);
}
END_TEST

static void agent_hears_signals(const struct fixture *f, struct peer *p)
{
    started(f, p);
    poll(NULL, 0, 200); /* until all run: a ^C before would end the start */
    if (p->i == 0)
        kill(getppid(), SIGINT);
    struct frame fr = hear(p);
    NEED(is(&fr, 's', "2"));
    if (p->i == 0)
        kill(getppid(), SIGINT); /* the second within a second: leave */
    struct pollfd gone = {p->fd, POLLIN, 0};
    char c;
    NEED(poll(&gone, 1, 5000) == 1 && read(p->fd, &c, 1) == 0);
}

START_TEST(test_signals_go_to_all)
{
    struct fixture f;
    sigset_t block;
    setup(&f);
    sigemptyset(&block);
    sigaddset(&block, SIGINT);
    sigprocmask(SIG_BLOCK, &block, NULL);
    start_agents(&f, agent_hears_signals);
    (void)loop(&f, NULL);
    ck_assert(f.g.left);
    teardown(&f);
}
END_TEST

UNIT_MAIN("gang",
          UNIT_CASE(test_a_process_on_each_node) UNIT_CASE(test_a_process_for_each_gpu)
              UNIT_CASE(test_lines) UNIT_CASE(test_lines_never_mix)
                  UNIT_CASE(test_one_failure_ends_all) UNIT_CASE(test_keep_going)
                      UNIT_CASE(test_lost_and_found) UNIT_CASE(test_all_or_nothing)
                          UNIT_CASE(test_signals_go_to_all))
