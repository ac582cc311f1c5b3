/* cmd_gang: `run` on all nodes of a reservation: a token for each process, its place in
 * the gang as environment, and what is done by the options: launch, attach, list. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "client/cli/gang.h"
#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"

#define RENEW_TOGETHER_US (5 * US_PER_S) /* ranks whose tokens are of about one age */

static char *text_of(const json_t *obj, const char *member)
{
    const char *text = json_string_value(json_object_get(obj, member));
    return xstrdup(text != NULL ? text : "");
}

static void set_address(struct run *run, const json_t *token)
{
    const char *given = opt_get(run->c->opts, "address");
    free(run->address);
    run->address = given != NULL ? xstrdup(given) : text_of(token, "address");
}

static int check_address(const struct run *run, const char *node, struct err *err)
{
    if (*run->address != '\0')
        return 0;
    return err_set(err, ERR_UNREACHABLE,
                   "node %s takes no connections from outside, so it cannot be part of "
                   "a run from here",
                   node);
}

static const json_t *token_for(const json_t *reply, const char *node)
{
    const json_t *token;
    size_t i;
    json_array_foreach(json_object_get(reply, "tokens"), i, token)
    {
        const char *name = json_string_value(json_object_get(token, "node"));
        if (name != NULL && strcmp(name, node) == 0)
            return token;
    }
    return NULL;
}

/* One token of a reply for this run of a node. */
static int give_token(struct run *run, const json_t *reply, const char *node,
                      struct err *err)
{
    const json_t *token = token_for(reply, node);
    const char *text = json_string_value(json_object_get(token, "token"));
    if (text == NULL)
        return err_set(err, ERR_NOT_FOUND, "the server gave no token for node %s",
                       node);
    if (run_take_token(run, text, err) < 0)
        return -1;
    set_address(run, token);
    return check_address(run, node, err);
}

int gang_refresh(struct gang_rank *r, struct err *err)
{
    json_t *reply = NULL;
    if (cli_get_tokens(r->g->c, r->g->reservation, r->node, &reply, err) < 0)
        return -1;
    int rc = give_token(&r->run, reply, r->node, err);
    json_decref(reply);
    return rc;
}

/* One question for all that are due. Who does not stream keeps his token: a launch that
 * is not answered yet is known by it, and a connection that is taken up again asks. */
void gang_renew(struct gang *g, int64_t now_us)
{
    json_t *reply = NULL;
    struct err why;
    int64_t again_us = now_us + RUN_RENEW_AGAIN_US;
    bool got = cli_get_tokens(g->c, g->reservation, opt_get(g->c->opts, "node"), &reply,
                              &why) == 0;
    if (!got && run_renew_is_vain(&why))
        again_us = INT64_MAX;
    for (size_t i = 0; i < g->count; i++) {
        struct gang_rank *r = &g->ranks[i];
        if (gang_rank_renew_us(r) > now_us + RENEW_TOGETHER_US)
            continue;
        if (!got || give_token(&r->run, reply, r->node, &why) < 0)
            r->run.renew_us = again_us;
    }
    json_decref(reply);
}

/* ---- what every way needs -------------------------------------------------------- */

static int parse_stdin_rank(struct cli *c, int world, int64_t *ret, struct err *err)
{
    const char *text = opt_get(c->opts, "stdin-rank");
    *ret = 0;
    if (text != NULL && strcmp(text, "all") == 0)
        *ret = -1;
    else if (text != NULL && when_parse_int(text, 0, world - 1, ret, err) < 0)
        return err_prefix(err, "--stdin-rank");
    return 0;
}

static int open_output(struct gang_rank *r, const char *dir, struct err *err)
{
    const struct {
        int *fd;
        const char *kind;
    } files[] = {{&r->out_fd, "out"}, {&r->err_fd, "err"}};
    for (size_t i = 0; i < 2; i++) {
        char *path = xasprintf("%s/rank-%d.%s", dir, r->rank, files[i].kind);
        *files[i].fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        int rc = *files[i].fd >= 0 ? 0 : err_sys(err, errno, "open %s", path);
        free(path);
        if (rc < 0)
            return -1;
    }
    return 0;
}

/* Files of their own, or labels; descriptors for all connections. */
static int prepare_output(struct gang *g, struct err *err)
{
    const char *dir = opt_get(g->c->opts, "output-dir");
    struct rlimit files;
    g->label = opt_has(g->c->opts, "prefix") || isatty(STDOUT_FILENO);
    g->keep_going = opt_has(g->c->opts, "keep-going") || g->attached;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
    if (dir == NULL)
        return 0;
    if (fsx_mkdirs(dir, 0777, err) < 0)
        return err_prefix(err, "--output-dir");
    for (size_t i = 0; i < g->count; i++)
        if (open_output(&g->ranks[i], dir, err) < 0)
            return err_prefix(err, "--output-dir");
    return 0;
}

/* The loop, and what is said when it is left early. */
static int stream(struct gang *g, struct err *err)
{
    int rc = gang_loop(g, err);
    if (rc == 0 && g->left) {
        char *self = cli_self(g->c);
        cli_note("run %s runs on: %s run %s --attach %s", g->run, self, g->reservation,
                 g->run);
        free(self);
    }
    g->c->status = g->status;
    return rc;
}

static void gang_done(struct gang *g)
{
    for (size_t i = 0; i < g->count; i++)
        gang_rank_done(&g->ranks[i]);
    free(g->ranks);
}

/* ---- launch ---------------------------------------------------------------------- */

static int make_body(struct run *first, const struct gang *g,
                     const struct gang_plan *plan, size_t node, int local, bool feed,
                     json_t **ret, struct err *err)
{
    json_t *body = NULL;
    if (run_launch_body(first, g->argv, &body, err) < 0)
        return -1;
    json_t *env = gang_plan_env(plan, node, local, g->run);
    char *hosts = gang_plan_hostfile(plan);
    json_object_update(env, json_object_get(body, "env")); /* --env has the last word */
    json_object_set_new(body, "env", env);
    json_object_set_new(body, "stdin", json_boolean(feed));
    json_object_set_new(body, "files", json_pack("{s:s}", GANG_HOSTFILE, hosts));
    free(hosts);
    *ret = body;
    return 0;
}

/* A token is good for one job, so each process of a node needs its own. */
static int give_tokens(struct gang *g, const struct gang_plan *plan, const char *node,
                       struct err *err)
{
    int most = 0;
    for (size_t i = 0; i < plan->count; i++)
        most = plan->nodes[i].processes > most ? plan->nodes[i].processes : most;
    for (int local = 0; local < most; local++) {
        json_t *reply = NULL;
        int rc = cli_get_tokens(g->c, g->reservation, node, &reply, err);
        for (size_t i = 0; i < plan->count && rc == 0; i++)
            if (local < plan->nodes[i].processes)
                rc = give_token(&g->ranks[plan->nodes[i].first + local].run, reply,
                                plan->nodes[i].name, err);
        json_decref(reply);
        if (rc < 0)
            return -1;
    }
    return 0;
}

static int make_ranks(struct run *first, struct gang *g, const struct gang_plan *plan,
                      struct err *err)
{
    bool input = !opt_has(g->c->opts, "detach");
    int64_t feed_rank;
    if (parse_stdin_rank(g->c, plan->world, &feed_rank, err) < 0)
        return -1;
    g->ranks = xcalloc((size_t)plan->world, sizeof(*g->ranks));
    for (size_t i = 0; i < plan->count; i++)
        for (int local = 0; local < plan->nodes[i].processes; local++) {
            struct gang_rank *r = &g->ranks[g->count];
            gang_rank_init(r, g, (int)g->count++, plan->nodes[i].name);
            r->feed = input && (feed_rank < 0 || feed_rank == r->rank);
            if (make_body(first, g, plan, i, local, r->feed, &r->body, err) < 0)
                return -1;
        }
    g->stdin_open = input;
    return 0;
}

static int print_started(const struct gang *g, struct err *err)
{
    struct strbuf out = STRBUF_INIT;
    json_t *jobs = json_array();
    for (size_t i = 0; i < g->count; i++)
        json_array_append_new(
            jobs, json_pack("{s:i, s:s, s:s}", "rank", g->ranks[i].rank, "node",
                            g->ranks[i].node, "job", g->ranks[i].run.job));
    json_t *reply = json_pack("{s:s, s:o}", "run", g->run, "jobs", jobs);
    if (g->c->render.format == RENDER_JSON)
        render_json(reply, &out);
    else
        strbuf_addf(&out, "%s\n", g->run);
    int rc = cli_print(&out, err);
    strbuf_done(&out);
    json_decref(reply);
    return rc;
}

static int launch_all(struct run *first, const json_t *resv, struct err *err)
{
    struct cli *c = first->c;
    const char *node = opt_get(c->opts, "node"),
               *port = opt_get(c->opts, "master-port");
    int argc = c->opts->arg_count - 1;
    const char **argv = xcalloc((size_t)argc + 1, sizeof(*argv));
    char *run = cli_new_key(c);
    struct gang g = {.c = c,
                     .reservation = first->reservation,
                     .start_us = first->start_us,
                     .key = first->key,
                     .run = run,
                     .argv = argv,
                     .only_start = opt_has(c->opts, "detach")};
    struct gang_plan plan = {NULL};
    int64_t number;
    for (int i = 0; i < argc; i++)
        argv[i] = c->opts->args[i + 1];
    int rc = gang_plan_make(resv, node, opt_has(c->opts, "per-gpu"), &plan, err);
    if (rc == 0 && plan.count > 1 && opt_get(c->opts, "address") != NULL)
        rc = err_set(err, ERR_USAGE,
                     "--address is that of one node: say which by --node");
    if (rc == 0 && port != NULL) {
        rc = when_parse_int(port, 1, 65535, &number, err);
        if (rc < 0)
            err_prefix(err, "--master-port");
        else
            plan.port = (int)number;
    }
    if (rc == 0)
        rc = make_ranks(first, &g, &plan, err);
    if (rc == 0)
        rc = give_tokens(&g, &plan, node, err);
    if (rc == 0)
        rc = prepare_output(&g, err);
    if (rc == 0)
        rc = stream(&g, err);
    if (rc == 0 && g.only_start && !g.failed && !g.left)
        rc = print_started(&g, err);
    gang_done(&g);
    gang_plan_done(&plan);
    free(run);
    free(argv);
    return rc;
}

/* ---- list and attach ------------------------------------------------------------- */

static int ask_node(struct run *r, const json_t *tokens, const char *node, json_t *rows,
                    struct err *err)
{
    json_t *reply = NULL, *job;
    size_t i;
    if (give_token(r, tokens, node, err) < 0 ||
        run_ask_when_ready(r, RUN_JOBS, NULL, NULL, &reply, err) < 0)
        return -1;
    json_array_foreach(json_object_get(reply, "jobs"), i, job)
    {
        json_object_set_new(job, "node", json_string(node));
        json_array_append(rows, job);
    }
    json_decref(reply);
    run_link_close(&r->link);
    return 0;
}

/* The jobs of all nodes. Who is not reached is named; all or nothing for an attach. */
static int all_jobs(struct run *r, const struct gang_plan *plan, bool all,
                    const json_t *tokens, json_t *rows, struct err *err)
{
    for (size_t i = 0; i < plan->count; i++) {
        if (ask_node(r, tokens, plan->nodes[i].name, rows, err) == 0)
            continue;
        if (all)
            return err_prefix(err, "node %s", plan->nodes[i].name);
        cli_note("node %s: %s", plan->nodes[i].name, err->text);
        r->c->status = cli_exit_status(err->code);
    }
    return 0;
}

static int list_all(struct run *r, const json_t *rows, struct err *err)
{
    static const struct render_col cols[] = {
        {"RUN", "run", RENDER_TEXT, NULL},
        {"RANK", "rank", RENDER_INT, NULL},
        {"NODE", "node", RENDER_TEXT, NULL},
        {"JOB", "job", RENDER_TEXT, NULL},
        {"STATE", "state", RENDER_TEXT, NULL},
        {"STARTED", "started", RENDER_TIME, NULL},
        {"EXIT", "exit.exit", RENDER_INT, NULL},
        {"SIGNAL", "exit.signal", RENDER_INT, NULL},
        {"REASON", "exit.reason", RENDER_TEXT, NULL},
    };
    json_t *reply = json_pack("{s:O}", "jobs", (json_t *)(uintptr_t)rows);
    int rc = cli_print_list(r->c, reply, "jobs", cols, RENDER_COUNT_OF(cols),
                            "no jobs yet", err);
    json_decref(reply);
    return rc;
}

/* The run that was asked for, or the one whose first rank started last. */
static const char *pick_run(const struct run *r, const json_t *rows)
{
    const char *latest = NULL, *when = "";
    const json_t *row;
    size_t i;
    if (r->c->opts->arg_count > 1)
        return r->c->opts->args[1];
    json_array_foreach(rows, i, row)
    {
        const char *run = json_string_value(json_object_get(row, "run"));
        const char *at = json_string_value(json_object_get(row, "started"));
        if (run == NULL || at == NULL || strcmp(at, when) <= 0)
            continue;
        latest = run;
        when = at;
    }
    return latest;
}

static int attach_ranks(struct gang *g, const json_t *rows, const json_t *tokens,
                        struct err *err)
{
    const json_t *row;
    size_t i;
    g->ranks = xcalloc(json_array_size(rows) + 1, sizeof(*g->ranks));
    json_array_foreach(rows, i, row)
    {
        const char *run = json_string_value(json_object_get(row, "run"));
        const char *node = json_string_value(json_object_get(row, "node"));
        const json_t *rank = json_object_get(row, "rank");
        if (run == NULL || strcmp(run, g->run) != 0)
            continue;
        struct gang_rank *r = &g->ranks[g->count++];
        gang_rank_init(r, g, (int)json_integer_value(rank), node);
        r->run.job = text_of(row, "job");
        r->give_up_us += RUN_LOST_WAIT_US - RUN_READY_WAIT_US;
        r->delay_us = US_PER_S;
        if (give_token(&r->run, tokens, node, err) < 0)
            return -1;
    }
    return g->count > 0
               ? 0
               : err_set(err, ERR_NOT_FOUND,
                         "no run %s on these nodes: --list shows the jobs", g->run);
}

static int attach_all(struct run *r, const json_t *rows, const json_t *tokens,
                      struct err *err)
{
    const char *run = pick_run(r, rows);
    if (run == NULL)
        return err_set(
            err, ERR_NOT_FOUND,
            "nothing was run on all nodes yet; --node NODE --attach looks at "
            "the jobs of one");
    struct gang g = {.c = r->c,
                     .reservation = r->reservation,
                     .start_us = r->start_us,
                     .key = r->key,
                     .run = run,
                     .attached = true};
    int rc = attach_ranks(&g, rows, tokens, err);
    if (rc == 0)
        rc = prepare_output(&g, err);
    if (rc == 0)
        rc = stream(&g, err);
    gang_done(&g);
    return rc;
}

static int look_at_all(struct run *r, const json_t *resv, struct err *err)
{
    bool list = opt_has(r->c->opts, "list");
    const char *node = opt_get(r->c->opts, "node");
    struct gang_plan plan = {NULL};
    json_t *tokens = NULL, *rows = json_array();
    int rc = gang_plan_make(resv, node, false, &plan, err);
    if (rc == 0)
        rc = cli_get_tokens(r->c, r->reservation, node, &tokens, err);
    if (rc == 0)
        rc = all_jobs(r, &plan, !list, tokens, rows, err);
    if (rc == 0)
        rc = list ? list_all(r, rows, err) : attach_all(r, rows, tokens, err);
    gang_plan_done(&plan);
    json_decref(tokens);
    json_decref(rows);
    return rc;
}

int run_gang(struct run *r, const json_t *resv, struct err *err)
{
    if (opt_has(r->c->opts, "list") || opt_has(r->c->opts, "attach"))
        return look_at_all(r, resv, err);
    return launch_all(r, resv, err);
}
