/* session: the server as commands see it: one account, one HTTP client, calls whose
 * failures say what to do next. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/query.h"
#include "client/lib/bounds.h"
#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/timefmt.h"
#include "client/lib/uuid.h"
#include "client/lib/xalloc.h"

#define CALL_TIMEOUT_US (30 * US_PER_S)
#define LIST_PAGES_MAX  1000 /* with LIST_PAGE_MAX a page: a guard, not a limit met */

/* Commands whose own --profile is the workload profile. */
static bool takes_profile(const struct opt_command *command)
{
    for (size_t i = 0; i < command->opt_count; i++)
        if (strcmp(command->opts[i].name, "profile") == 0)
            return true;
    return false;
}

const char *cli_account_name(const struct cli *c)
{
    const char *name = opt_get(c->opts, "account");
    if (name == NULL && !takes_profile(c->opts->command))
        name = opt_get(c->opts, "profile");
    if (name == NULL)
        name = getenv("NEARGPU_ACCOUNT");
    return name != NULL && *name != '\0' ? name : "default";
}

int cli_open(struct cli *c, struct err *err)
{
    if (c->opened)
        return 0;
    if (account_init(&c->account, cli_account_name(c), err) < 0 ||
        account_load(&c->account, err) < 0)
        return -1;
    const char *server = opt_get(c->opts, "server");
    const struct httpc_conf conf = {
        .base_url = server != NULL ? server : c->account.server,
        .ca_file = c->account.ca_path,
        .bearer = c->account.api_key,
        .user_agent = "neargpu",
    };
    if (httpc_new(&conf, NULL, &c->http, err) < 0)
        return -1;
    c->opened = true;
    return 0;
}

void cli_done(struct cli *c)
{
    httpc_free(c->http);
    account_done(&c->account);
    json_decref(c->problem);
    c->http = NULL;
    c->problem = NULL;
}

int cli_exit_status(enum err_code code)
{
    switch (code) {
    case ERR_UNAUTHENTICATED:
    case ERR_TOKEN:
    case ERR_BANNED:
    case ERR_QUOTA: return err_exit_status(ERR_FORBIDDEN);
    case ERR_CLONED:
    case ERR_KEY_REUSED: return err_exit_status(ERR_CONFLICT);
    default: return err_exit_status(code);
    }
}

/* The server names members of the request, the user typed options: "/max_rtt: …" and
 * "max_rtt: …" become "--max-rtt: …" where the command has such an option. */
static void name_option(const struct cli *c, struct err *err)
{
    const struct opt_command *command = c->opts->command;
    const char *start = err->text + (err->text[0] == '/'), *rest = strchr(start, ':');
    char member[48], name[48];
    size_t len = strcspn(start, "/: ");
    if (rest == NULL || len == 0 || len >= sizeof(member) ||
        (start[len] != ':' && start[len] != '/'))
        return;
    memcpy(member, start, len);
    member[len] = '\0';
    query_option_name(member, name, sizeof(name));
    for (size_t i = 0; i < command->opt_count; i++)
        if (strcmp(command->opts[i].name, name) == 0) {
            err_set(err, err->code, "--%s%s", name, rest);
            return;
        }
}

/* What to do next, where the server cannot know it. */
static void advise(struct cli *c, const struct httpc_reply *reply, struct err *err)
{
    char text[ERR_TEXT_MAX];
    if (c->problem != NULL)
        name_option(c, err);
    memcpy(text, err->text, sizeof(text));
    if (err->code == ERR_UNAUTHENTICATED)
        err_set(err, ERR_FORBIDDEN,
                "%s: the API key of account '%s' is not accepted; neargpu login again",
                text, c->account.name);
    else if (err->code == ERR_RATE_LIMITED && reply->retry_after_s > 0)
        err_set(err, err->code, "%s; try again in %" PRId64 " s", text,
                reply->retry_after_s);
    else if (err->code == ERR_UNREACHABLE)
        err_set(err, err->code,
                "%s; nothing was done: check that the server runs, and --server", text);
}

int cli_call(struct cli *c, const struct cli_call *call, json_t **ret, struct err *err)
{
    struct httpc_reply reply = {0};
    const struct httpc_request rq = {
        .method = call->method,
        .path = call->path,
        .body = call->body,
        .idempotency_key = call->key,
        .timeout_us = CALL_TIMEOUT_US,
    };
    if (cli_open(c, err) < 0)
        return -1;
    json_decref(c->problem);
    c->problem = NULL;
    int rc = httpc_call(c->http, &rq, &reply, err);
    if (rc < 0) {
        c->problem = json_incref(reply.body);
        advise(c, &reply, err);
    } else if (ret != NULL && reply.status != 204 && !json_is_object(reply.body)) {
        rc = err_set(err, ERR_UNKNOWN, "%s %s: the server's answer is no JSON object",
                     call->method, call->path);
    } else if (ret != NULL) {
        *ret = reply.body != NULL ? json_incref(reply.body) : json_object();
    }
    httpc_reply_done(&reply);
    return rc;
}

void cli_harmless(struct err *err)
{
    if (err->code == ERR_UNKNOWN || err->code == ERR_TIMEOUT)
        err_set(err, ERR_UNREACHABLE,
                "no complete answer came from the server; nothing was done: try again");
}

int cli_get(struct cli *c, const char *path, json_t **ret, struct err *err)
{
    const struct cli_call call = {"GET", path, NULL, NULL};
    int rc = cli_call(c, &call, ret, err);
    if (rc < 0 && err->code == ERR_UNKNOWN) /* reading changes nothing: it is known */
        err->code = ERR_UNREACHABLE;
    return rc;
}

int cli_get_list(struct cli *c, const char *path, const char *member, json_t **ret,
                 struct err *err)
{
    json_t *first = NULL;
    char *next = xstrdup(path);
    for (int page = 0; next != NULL && page < LIST_PAGES_MAX; page++) {
        json_t *reply = NULL;
        struct strbuf url = STRBUF_INIT;
        int rc = cli_get(c, next, &reply, err);
        free(next);
        next = NULL;
        if (rc < 0) {
            json_decref(first);
            return -1;
        }
        const char *cursor = json_string_value(json_object_get(reply, "next"));
        if (cursor != NULL && *cursor != '\0') {
            strbuf_adds(&url, path);
            cli_query(&url, "cursor", cursor);
            next = strbuf_steal(&url);
        }
        if (first == NULL) {
            first = reply;
        } else {
            json_array_extend(json_object_get(first, member),
                              json_object_get(reply, member));
            json_decref(reply);
        }
    }
    free(next);
    json_object_del(first, "next");
    *ret = first;
    return 0;
}

char *cli_path(const char *prefix, const char *text, const char *suffix)
{
    struct strbuf path = STRBUF_INIT;
    strbuf_adds(&path, prefix);
    query_escape(&path, text);
    strbuf_adds(&path, suffix);
    return strbuf_steal(&path);
}

void cli_query(struct strbuf *path, const char *name, const char *value)
{
    if (value == NULL)
        return;
    strbuf_addc(path, strchr(strbuf_str(path), '?') != NULL ? '&' : '?');
    strbuf_adds(path, name);
    strbuf_addc(path, '=');
    query_escape(path, value);
}

int cli_query_time(struct cli *c, struct strbuf *path, const char *option,
                   struct err *err)
{
    const char *value = opt_get(c->opts, option);
    char text[TIMEFMT_MAX];
    int64_t us;
    if (value == NULL)
        return 0;
    if (when_parse(value, &c->when, &us, err) < 0)
        return err_prefix(err, "--%s", option);
    timefmt_utc(us, text);
    cli_query(path, option, text);
    return 0;
}

int cli_query_period(struct cli *c, struct strbuf *path, struct err *err)
{
    const char *from = opt_get(c->opts, "from"), *to = opt_get(c->opts, "to");
    int64_t from_us, to_us;
    if (cli_query_time(c, path, "from", err) < 0 ||
        cli_query_time(c, path, "to", err) < 0)
        return -1;
    if (from != NULL && to != NULL && when_parse(from, &c->when, &from_us, err) == 0 &&
        when_parse(to, &c->when, &to_us, err) == 0 && to_us <= from_us)
        return err_set(err, ERR_USAGE, "--to: must be later than --from");
    return 0;
}

char *cli_self(const struct cli *c)
{
    static const char *const names[] = {"account", "server"};
    struct strbuf line = STRBUF_INIT;
    strbuf_adds(&line, "neargpu");
    for (size_t i = 0; i < 2; i++)
        if (opt_get(c->opts, names[i]) != NULL)
            strbuf_addf(&line, " --%s %s", names[i], opt_get(c->opts, names[i]));
    return strbuf_steal(&line);
}

char *cli_new_key(const struct cli *c)
{
    uint8_t random[10];
    char text[UUID_TEXT];
    digest_random(random, sizeof(random));
    uuid_v7(c->when.now_us, random, text);
    return xstrdup(text);
}

char *cli_key(const struct cli *c, struct err *err)
{
    const char *key = opt_get(c->opts, "key");
    if (key == NULL)
        return cli_new_key(c);
    if (*key == '\0' || strlen(key) > 64 ||
        key[strspn(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                        "0123456789_.:-")] != '\0') {
        err_set(err, ERR_USAGE, "--key: 1 to 64 letters, digits, _ . : and -");
        return NULL;
    }
    return xstrdup(key);
}
