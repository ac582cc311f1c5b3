/* admin audit: who did what to which object, from where. */
#include "client/cli/cli.h"

int cmd_admin_audit(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"WHEN", "at", RENDER_TIME, NULL},      {"ACTOR", "actor", RENDER_TEXT, NULL},
        {"FROM", "address", RENDER_TEXT, NULL}, {"ACTION", "action", RENDER_TEXT, NULL},
        {"STATUS", "status", RENDER_INT, NULL},
    };
    struct strbuf path = STRBUF_INIT;
    json_t *reply = NULL;
    strbuf_adds(&path, "/v1/audit");
    cli_query(&path, "actor", opt_get(c->opts, "actor"));
    cli_query(&path, "action", opt_get(c->opts, "action"));
    cli_query(&path, "object", opt_get(c->opts, "object"));
    int rc = cli_query_period(c, &path, err);
    if (rc == 0)
        rc = cli_get_list(c, strbuf_str(&path), "audit", &reply, err);
    strbuf_done(&path);
    if (rc == 0)
        rc = cli_print_list(c, reply, "audit", cols, RENDER_COUNT_OF(cols),
                            "nothing was done", err);
    json_decref(reply);
    return rc;
}
