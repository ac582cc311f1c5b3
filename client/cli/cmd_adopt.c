/* adopt: a cgroup of this machine is given to a reservation, over the agent's local
 * socket. What that means stands in client/agent/adopt.h; the agent checks everything.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/run.h"
#include "client/lib/fsx.h"
#include "client/lib/token.h"
#include "client/lib/xalloc.h"

#define AGENT_SOCKET "unix:/run/neargpu/agent.sock"

/* The cgroup2 line of /proc/PID/cgroup, "0::/PATH"; caller frees. */
static int cgroup_of(const char *pid, char **ret, struct err *err)
{
    char *path = NULL, *text = NULL, *save = NULL;
    if (pid[0] == '\0' || strspn(pid, "0123456789") != strlen(pid) || strlen(pid) > 10)
        return err_set(err, ERR_USAGE, "--pid %.40s: not a process id", pid);
    path = xasprintf("/proc/%s/cgroup", pid);
    int rc = fsx_read(path, 1 << 20, &text, NULL, err);
    char *found = NULL;
    for (char *line = rc == 0 ? strtok_r(text, "\n", &save) : NULL; line != NULL;
         line = strtok_r(NULL, "\n", &save))
        if (strncmp(line, "0::/", 4) == 0)
            found = line + 3;
    if (rc == 0 && found == NULL)
        rc = err_set(err, ERR_NOT_FOUND, "%s names no cgroup2", path);
    if (rc == 0)
        *ret = xstrdup(found);
    free(text);
    free(path);
    return rc;
}

static int fetch_token(struct run *r, struct err *err)
{
    json_t *reply = NULL;
    if (cli_get_tokens(r->c, r->reservation, opt_get(r->c->opts, "node"), &reply, err) <
        0)
        return -1;
    const json_t *list = json_object_get(reply, "tokens");
    const char *token =
        json_string_value(json_object_get(json_array_get(list, 0), "token"));
    int rc = 0;
    if (json_array_size(list) > 1)
        rc =
            err_set(err, ERR_USAGE,
                    "the reservation has several nodes: say which one this is, --node");
    else if (token == NULL)
        rc = err_set(err, ERR_NOT_FOUND, "the reservation has no such node");
    else
        rc = run_take_token(r, token, err);
    json_decref(reply);
    return rc;
}

static int file_token(struct run *r, const char *file, struct err *err)
{
    char *text = NULL;
    if (fsx_read_secret(file, TOKEN_BYTES_MAX + 1, &text, NULL, err) < 0)
        return -1;
    text[strcspn(text, " \t\r\n")] = '\0';
    int rc = run_take_token(r, text, err);
    if (rc < 0)
        err_prefix(err, "%s", file);
    free(text);
    return rc;
}

static int ask(struct run *r, const char *cgroup, struct err *err)
{
    const char *const argv[] = {cgroup, NULL};
    json_t *reply = NULL, *body = json_pack("{s:s}", "cgroup", cgroup);
    if (body == NULL)
        return err_set(err, ERR_USAGE, "the cgroup's path is not UTF-8");
    int rc = run_ask_when_ready(r, RUN_ADOPT, body, argv, &reply, err);
    json_decref(body);
    if (rc == 0 && r->c->render.format == RENDER_JSON) {
        struct strbuf out = STRBUF_INIT;
        render_json(reply, &out);
        rc = cli_print(&out, err);
        strbuf_done(&out);
    } else if (rc == 0) {
        cli_note("cgroup %s is the reservation's now and ends with it. This holds less "
                 "than a job of neargpu run: see neargpu adopt --help",
                 cgroup);
    }
    json_decref(reply);
    return rc;
}

int cmd_adopt(struct cli *c, struct err *err)
{
    const char *file = opt_get(c->opts, "token-file"), *pid = opt_get(c->opts, "pid");
    const char *path = opt_get(c->opts, "cgroup");
    const char *address = opt_get(c->opts, "address");
    struct run r = {.c = c, .reservation = file == NULL ? c->opts->args[0] : NULL};
    char *cgroup = NULL;
    json_t *resv = NULL;
    run_link_init(&r.link);
    if ((pid == NULL) == (path == NULL))
        return err_set(err, ERR_USAGE, "say which cgroup: --cgroup PATH or --pid PID");
    r.address = xstrdup(address != NULL ? address : AGENT_SOCKET);
    int rc = pid != NULL ? cgroup_of(pid, &cgroup, err) : 0;
    if (path != NULL)
        cgroup = xstrdup(path);
    if (rc == 0)
        rc = cli_open(c, err);
    if (rc == 0)
        rc = account_key(&c->account, 1, &r.key, err);
    if (rc == 0)
        rc = file != NULL ? file_token(&r, file, err)
                          : run_check_reservation(&r, &resv, err);
    if (rc == 0 && file == NULL)
        rc = fetch_token(&r, err);
    if (rc == 0)
        rc = ask(&r, cgroup, err);
    json_decref(resv);
    run_link_close(&r.link);
    EVP_PKEY_free(r.key);
    free(cgroup);
    free(r.token);
    free(r.audience);
    free(r.address);
    return rc;
}
