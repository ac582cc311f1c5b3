/* run: see run.h. The job is the agent's; this end may come and go. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/cli/run.h"
#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/timefmt.h"
#include "client/lib/token.h"
#include "client/lib/xalloc.h"

#define START_STEP_MS 30000 /* clocks may be set while one waits */

static void pause_ms(int ms)
{
    (void)poll(NULL, 0, ms);
}

static char *text_of(const json_t *obj, const char *member)
{
    const char *text = json_string_value(json_object_get(obj, member));
    return xstrdup(text != NULL ? text : "");
}

/* ---- tokens ---------------------------------------------------------------------- */

static int fetch_token(struct run *r, struct err *err)
{
    json_t *reply = NULL;
    const char *node = opt_get(r->c->opts, "node");
    const char *address = opt_get(r->c->opts, "address");
    if (cli_get_tokens(r->c, r->reservation, node, &reply, err) < 0)
        return -1;
    const json_t *one = json_array_get(json_object_get(reply, "tokens"), 0);
    const char *token = json_string_value(json_object_get(one, "token"));
    int rc = token != NULL
                 ? run_take_token(r, token, err)
                 : err_set(err, ERR_NOT_FOUND, "the reservation has no node%s%s",
                           node != NULL ? " " : "", node != NULL ? node : "");
    if (rc == 0) {
        free(r->address);
        r->address = address != NULL ? xstrdup(address) : text_of(one, "address");
        if (*r->address == '\0')
            rc = err_set(err, ERR_UNREACHABLE,
                         "node %s takes no connections from outside: run this on the "
                         "node with --address unix:/PATH of its agent",
                         json_string_value(json_object_get(one, "node")));
    }
    json_decref(reply);
    return rc;
}

bool run_renew_is_vain(const struct err *why)
{
    return why->code == ERR_NOT_FOUND || why->code == ERR_CONFLICT ||
           why->code == ERR_FORBIDDEN || why->code == ERR_UNAUTHENTICATED;
}

/* At half of its life, so that a connection that is lost while the server cannot be
 * asked is taken up again all the same. What the server refuses for good is not asked
 * again. */
static void renew(struct run *r)
{
    struct err why;
    if (fetch_token(r, &why) == 0)
        return;
    r->renew_us = clock_boot_us() + RUN_RENEW_AGAIN_US;
    if (run_renew_is_vain(&why))
        r->renew = NULL;
}

static int file_token(struct run *r, const char *file, struct err *err)
{
    char *text = NULL;
    if (opt_get(r->c->opts, "address") == NULL)
        return err_set(err, ERR_USAGE, "--token-file needs --address too");
    if (fsx_read_secret(file, TOKEN_BYTES_MAX + 1, &text, NULL, err) < 0)
        return -1;
    text[strcspn(text, " \t\r\n")] = '\0';
    int rc = run_take_token(r, text, err);
    if (rc < 0)
        err_prefix(err, "%s", file);
    free(text);
    r->address = xstrdup(opt_get(r->c->opts, "address"));
    return rc;
}

/* ---- before the start ------------------------------------------------------------ */

static int read_time(const json_t *obj, const char *member, int64_t *ret)
{
    const char *text = json_string_value(json_object_get(obj, member));
    return text != NULL ? timefmt_parse(text, ret, NULL) : -1;
}

static int wait_start(struct run *r, int64_t start_us, struct err *err)
{
    int64_t left = start_us - clock_now_us();
    struct strbuf at = STRBUF_INIT;
    char in[TIMEFMT_MAX];
    int rc = 0;
    if (left <= US_PER_S)
        return 0;
    render_time(&at, start_us, r->c->render.zone);
    timefmt_duration(left - left % US_PER_S, in);
    if (!opt_has(r->c->opts, "wait")) {
        rc = err_set(err, ERR_CONFLICT,
                     "the reservation starts at %s (in %s): add --wait to wait for it",
                     strbuf_str(&at), in);
    } else {
        cli_note("waiting for the start at %s (in %s); ^C leaves", strbuf_str(&at), in);
        while ((left = (start_us - clock_now_us()) / 1000) > 0)
            pause_ms(left < START_STEP_MS ? (int)left + 1 : START_STEP_MS);
    }
    strbuf_done(&at);
    return rc;
}

int run_check_reservation(struct run *r, json_t **ret, struct err *err)
{
    json_t *resv = NULL;
    if (cli_get_reservation(r->c, r->reservation, &resv, err) < 0)
        return -1;
    char *state = text_of(resv, "state"), *reason = text_of(resv, "reason");
    int rc = 0;
    if (strcmp(state, "confirmed") != 0 && strcmp(state, "active") != 0)
        rc = err_set(err, ERR_CONFLICT, "the reservation is %s%s%s", state,
                     *reason != '\0' ? ": " : "", reason);
    else if (read_time(resv, "start", &r->start_us) == 0)
        rc = wait_start(r, r->start_us, err);
    free(state);
    free(reason);
    if (rc < 0)
        json_decref(resv);
    else
        *ret = resv;
    return rc;
}

/* Starting, or just at the start of the reservation: the node's clock may be a little
 * behind, the lease before it may still be cleaned up. */
bool run_is_not_ready(const struct run *r, const struct run_refusal *refusal)
{
    static const char *const steps[] = {"times", "gpu", "status", "lease"};
    if (strcmp(refusal->error, "unavailable") == 0)
        return true;
    if (r->start_us == 0 || clock_now_us() > r->start_us + RUN_READY_WAIT_US)
        return false;
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
        if (strcmp(refusal->step, steps[i]) == 0)
            return true;
    return false;
}

int run_ask_when_ready(struct run *r, enum run_request what, const json_t *body,
                       const char *const *argv, json_t **ret, struct err *err)
{
    struct run_refusal refusal;
    int64_t until_us = clock_boot_us() + RUN_READY_WAIT_US;
    int rc;
    while ((rc = run_ask(r, what, body, argv, ret, &refusal, err)) < 0 &&
           run_is_not_ready(r, &refusal) && clock_boot_us() < until_us)
        pause_ms(500);
    return rc;
}

/* ---- one job --------------------------------------------------------------------- */

int run_launch_body(struct run *r, const char *const *argv, json_t **ret,
                    struct err *err)
{
    const char *cwd = opt_get(r->c->opts, "cwd"), *pair;
    json_t *args = json_array(), *env = json_object();
    json_t *body = json_pack("{s:o, s:o, s:b}", "argv", args, "env", env, "stdin",
                             !opt_has(r->c->opts, "detach"));
    int rc = 0;
    for (size_t i = 0; argv[i] != NULL && rc == 0; i++)
        if (json_array_append_new(args, json_string(argv[i])) < 0)
            rc = err_set(err, ERR_USAGE, "argument %zu of the command is not UTF-8", i);
    for (size_t i = 0; (pair = opt_nth(r->c->opts, "env", i)) != NULL && rc == 0; i++) {
        const char *eq = strchr(pair, '=');
        if (eq == NULL || eq == pair) {
            rc = err_set(err, ERR_USAGE, "--env %.60s: write NAME=VALUE", pair);
        } else {
            char *name = xstrndup(pair, (size_t)(eq - pair));
            if (json_object_set_new(env, name, json_string(eq + 1)) < 0)
                rc = err_set(err, ERR_USAGE, "--env %.60s: is not UTF-8", name);
            free(name);
        }
    }
    const char *image = opt_get(r->c->opts, "image");
    if (image != NULL && json_object_set_new(body, "image", json_string(image)) < 0)
        rc = err_set(err, ERR_USAGE, "--image: is not UTF-8");
    if (rc == 0 && opt_has(r->c->opts, "tty")) {
        rc = run_tty_ask(body, err);
        r->tty = rc == 0 && !opt_has(r->c->opts, "detach");
    }
    if (cwd != NULL && json_object_set_new(body, "cwd", json_string(cwd)) < 0)
        rc = err_set(err, ERR_USAGE, "--cwd: is not UTF-8");
    if (rc < 0)
        json_decref(body);
    else
        *ret = body;
    return rc;
}

static const char *reservation_name(const struct run *r)
{
    return r->c->opts->args[0];
}

static int launch(struct run *r, struct err *err)
{
    const char *const *argv = (const char *const *)r->c->opts->args + 1;
    int argc = r->c->opts->arg_count - 1;
    const char **list = xcalloc((size_t)argc + 1, sizeof(*list));
    json_t *body = NULL, *reply = NULL;
    for (int i = 0; i < argc; i++)
        list[i] = argv[i];
    char *self = cli_self(r->c);
    char *text = xasprintf("the job may have been started: %s run %s --list", self,
                           reservation_name(r));
    int rc = run_launch_body(r, list, &body, err);
    if (rc == 0) {
        cli_unsettled(text);
        rc = run_ask_when_ready(r, RUN_LAUNCH, body, list, &reply, err);
        cli_settled();
    }
    if (rc < 0 && err->code == ERR_UNKNOWN)
        err_set(err, ERR_UNKNOWN, "%s", text);
    if (rc == 0) {
        r->job = text_of(reply, "job");
        r->launched = true;
    }
    free(text);
    free(self);
    free(list);
    json_decref(body);
    json_decref(reply);
    return rc;
}

/* Attaches at the offset seen so far; the answer says where the log begins now. */
static int attach(struct run *r, struct err *err)
{
    json_t *reply = NULL, *body = json_object();
    if (r->job != NULL)
        json_object_set_new(body, "job", json_string(r->job));
    json_object_set_new(body, "offset", json_integer(r->offset));
    int rc = run_ask_when_ready(r, RUN_ATTACH, body, NULL, &reply, err);
    json_decref(body);
    if (rc == 0) {
        int64_t offset = json_integer_value(json_object_get(reply, "offset"));
        free(r->job);
        r->job = text_of(reply, "job");
        if (offset > r->offset)
            cli_note("%" PRId64 " bytes of output are no longer kept",
                     offset - r->offset);
        if (json_is_integer(json_object_get(reply, "offset")))
            r->offset = offset;
    }
    json_decref(reply);
    return rc;
}

/* The agent may be restarting, perhaps at another address: each try takes what the
 * server knows, and the old token while the server cannot be asked. */
static int attach_again(struct run *r, struct err *err)
{
    int64_t until_us = clock_boot_us() + RUN_LOST_WAIT_US;
    struct err why;
    cli_note("%s; connecting again to job %s", err->text, r->job);
    for (int delay_ms = 200; clock_boot_us() < until_us;
         delay_ms = delay_ms < 3000 ? delay_ms * 2 : 3000) {
        pause_ms(delay_ms);
        bool stale = r->expires_us < clock_now_us() + RUN_TOKEN_MARGIN_US;
        bool fresh = r->reservation != NULL && (stale || delay_ms > 200) &&
                     fetch_token(r, &why) == 0;
        if (stale && !fresh && r->reservation != NULL) {
            *err = why;
            continue;
        }
        if (attach(r, err) == 0)
            return 0;
        /* Answered: the job or its lease is gone. */
        if (err->code == ERR_NOT_FOUND || err->code == ERR_CONFLICT ||
            (err->code == ERR_FORBIDDEN && fresh))
            return -1;
    }
    return -1;
}

static int stream(struct run *r, struct err *err)
{
    char *self = cli_self(r->c);
    char *text = xasprintf("job %s runs on: %s run %s --attach %s", r->job, self,
                           reservation_name(r), r->job);
    struct err why;
    enum run_end end;
    int rc = 0;
    while ((end = run_stream(r, &r->c->status, err)) == RUN_LOST) {
        run_link_close(&r->link);
        cli_unsettled(text);
        why = *err;
        rc = attach_again(r, &why);
        cli_settled();
        if (rc < 0)
            break;
        if (r->fed)
            cli_note("input sent just before the connection was lost may not have "
                     "reached the job");
        r->fed = false;
    }
    if (rc < 0)
        err_set(err, ERR_UNKNOWN, "%s; if it still can, %s", why.text, text);
    else if (end == RUN_DETACHED)
        cli_note("%s", text);
    free(text);
    free(self);
    return rc;
}

static int list_jobs(struct run *r, struct err *err)
{
    static const struct render_col cols[] = {
        {"JOB", "job", RENDER_TEXT, NULL},
        {"STATE", "state", RENDER_TEXT, NULL},
        {"STARTED", "started", RENDER_TIME, NULL},
        {"EXIT", "exit.exit", RENDER_INT, NULL},
        {"SIGNAL", "exit.signal", RENDER_INT, NULL},
        {"REASON", "exit.reason", RENDER_TEXT, NULL},
    };
    json_t *reply = NULL;
    if (run_ask_when_ready(r, RUN_JOBS, NULL, NULL, &reply, err) < 0)
        return -1;
    int rc = cli_print_list(r->c, reply, "jobs", cols, RENDER_COUNT_OF(cols),
                            "no jobs yet", err);
    json_decref(reply);
    return rc;
}

/* ---- the command ----------------------------------------------------------------- */

static int check_options(struct cli *c, struct err *err)
{
    bool is_attach = opt_has(c->opts, "attach"), is_list = opt_has(c->opts, "list");
    int extra = c->opts->arg_count - 1;
    if (is_attach + is_list + opt_has(c->opts, "detach") > 1)
        return err_set(err, ERR_USAGE,
                       "--attach, --list and --detach exclude each other");
    if (opt_has(c->opts, "output-dir") && opt_has(c->opts, "detach"))
        return err_set(err, ERR_USAGE,
                       "--detach leaves before there is output for --output-dir");
    if (is_list && extra > 0)
        return err_set(err, ERR_USAGE, "--list takes no command");
    if (is_attach && extra > 1)
        return err_set(err, ERR_USAGE, "--attach takes a job's id, and no command");
    if (!is_attach && !is_list && extra == 0)
        return err_set(err, ERR_USAGE,
                       "say what to run: neargpu run %s -- COMMAND, or --attach or "
                       "--list",
                       c->opts->args[0]);
    return 0;
}

static int run_it(struct run *r, struct err *err)
{
    const struct opt_values *opts = r->c->opts;
    if (opt_has(opts, "list"))
        return list_jobs(r, err);
    if (opt_has(opts, "attach")) {
        if (opts->arg_count > 1)
            r->job = xstrdup(opts->args[1]);
        return attach(r, err) < 0 ? -1 : stream(r, err);
    }
    if (launch(r, err) < 0)
        return -1;
    if (!opt_has(opts, "detach"))
        return stream(r, err);
    struct strbuf out = STRBUF_INIT;
    json_t *reply = json_pack("{s:s}", "job", r->job);
    if (r->c->render.format == RENDER_JSON)
        render_json(reply, &out);
    else
        strbuf_addf(&out, "%s\n", r->job);
    int rc = cli_print(&out, err);
    strbuf_done(&out);
    json_decref(reply);
    return rc;
}

/* Several processes, or options that only make sense for such. */
static bool is_gang(const struct cli *c, const json_t *resv)
{
    static const char *const options[] = {"per-gpu",    "prefix",     "output-dir",
                                          "stdin-rank", "keep-going", "master-port"};
    size_t nodes = json_array_size(json_object_get(resv, "allocations"));
    if (resv == NULL) /* with a token alone there is one node */
        return false;
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        if (opt_has(c->opts, options[i]))
            return true;
    return nodes > 1 && !opt_has(c->opts, "node");
}

int cmd_run(struct cli *c, struct err *err)
{
    const char *file = opt_get(c->opts, "token-file");
    struct run r = {.c = c, .reservation = file == NULL ? c->opts->args[0] : NULL};
    run_link_init(&r.link);
    json_t *resv = NULL;
    int rc = check_options(c, err);
    if (rc == 0)
        rc = cli_open(c, err);
    if (rc == 0)
        rc = account_key(&c->account, 1, &r.key, err);
    if (rc == 0)
        rc = file != NULL ? file_token(&r, file, err)
                          : run_check_reservation(&r, &resv, err);
    if (rc == 0 && is_gang(c, resv)) {
        rc = run_gang(&r, resv, err);
    } else if (rc == 0) {
        rc = file == NULL ? fetch_token(&r, err) : 0;
        r.renew = file == NULL ? renew : NULL;
        if (rc == 0)
            rc = run_it(&r, err);
    }
    json_decref(resv);
    run_link_close(&r.link);
    EVP_PKEY_free(r.key);
    free(r.token);
    free(r.audience);
    free(r.address);
    free(r.job);
    return rc;
}
