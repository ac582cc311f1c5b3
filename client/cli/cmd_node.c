/* provider reattest, admin node ban, unban: what becomes of one node's identity. */
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/query.h"
#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

static void add_opt(struct cli *c, json_t *body, const char *name)
{
    const char *value = opt_get(c->opts, name);
    if (value != NULL)
        json_object_set_new(body, name, json_string(value));
}

int cmd_provider_reattest(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"Node", "node", RENDER_TEXT, NULL},
        {"Site", "site", RENDER_TEXT, NULL},
        {"Code", "code", RENDER_TEXT, NULL},
        {"Good until", "expires_at", RENDER_TIME, NULL},
        {"CA SHA-256", "ca_sha256", RENDER_TEXT, NULL},
    };
    const char *ttl = opt_get(c->opts, "ttl");
    json_t *body = json_object(), *reply = NULL;
    int64_t us;
    if (ttl != NULL && timefmt_parse_duration(ttl, &us, err) < 0) {
        json_decref(body);
        return err_prefix(err, "--ttl");
    }
    add_opt(c, body, "site");
    add_opt(c, body, "ttl");
    char *path = cli_path("/v1/nodes/", c->opts->args[0], "/reattest");
    const struct cli_call call = {"POST", path, body, NULL};
    int rc = cli_call(c, &call, &reply, err);
    if (rc < 0 && err->code == ERR_UNKNOWN)
        err_prefix(err, "a code may have been made that nobody knows; make another");
    if (rc == 0)
        rc = cli_print_card(c, reply, cols, RENDER_COUNT_OF(cols), err);
    if (rc == 0 && c->render.format == RENDER_TABLE)
        cli_note("on the node: neargpu-agent enroll --again with this code, then "
                 "restart the agent; what runs goes on");
    free(path);
    json_decref(body);
    json_decref(reply);
    return rc;
}

static const struct render_col ban_cols[] = {
    {"Node", "node", RENDER_TEXT, NULL},
    {"Site", "site", RENDER_TEXT, NULL},
    {"State", "state", RENDER_TEXT, NULL},
    {"Reason", "reason", RENDER_TEXT, NULL},
    {"Banned at", "banned_at", RENDER_TIME, NULL},
    {"By", "banned_by", RENDER_TEXT, NULL},
};

int cmd_admin_node_ban(struct cli *c, struct err *err)
{
    const char *node = c->opts->args[0];
    if (opt_get(c->opts, "reason") == NULL)
        return err_set(err, ERR_USAGE, "say why: --reason TEXT");
    char *question = xasprintf(
        "Ban node %s? What runs on it ends now, what is booked on it moves or "
        "fails.",
        node);
    int rc = cli_confirm(c, question, err);
    free(question);
    if (rc != 1)
        return rc;
    json_t *body = json_object(), *reply = NULL;
    add_opt(c, body, "reason");
    add_opt(c, body, "site");
    char *path = cli_path("/v1/nodes/", node, "/ban");
    const struct cli_call call = {"POST", path, body, NULL};
    rc = cli_call(c, &call, &reply, err);
    if (rc == 0)
        rc = cli_print_card(c, reply, ban_cols, RENDER_COUNT_OF(ban_cols), err);
    free(path);
    json_decref(body);
    json_decref(reply);
    return rc;
}

int cmd_admin_node_unban(struct cli *c, struct err *err)
{
    json_t *reply = NULL;
    struct strbuf path = STRBUF_INIT;
    char *start = cli_path("/v1/nodes/", c->opts->args[0], "/ban");
    strbuf_add(&path, start, strlen(start));
    if (opt_get(c->opts, "site") != NULL) {
        strbuf_addf(&path, "?site=");
        query_escape(&path, opt_get(c->opts, "site"));
    }
    const struct cli_call call = {"DELETE", path.data, NULL, NULL};
    int rc = cli_call(c, &call, &reply, err);
    if (rc == 0)
        rc = cli_print_card(c, reply, ban_cols, 3, err);
    free(start);
    strbuf_done(&path);
    json_decref(reply);
    return rc;
}
