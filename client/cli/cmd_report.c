/* admin report: what reports there are, and one as table, CSV or JSON. */
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/lib/strbuf.h"

/* Options that filter, as the server calls them. */
static const char *const filters[] = {"site", "provider", "tenant", "model",
                                      "currency"};

static int list(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"NAME", "name", RENDER_TEXT, NULL},
        {"FILTERS", "filters", RENDER_LIST, NULL},
        {"WHAT", "summary", RENDER_TEXT, NULL},
    };
    json_t *reply = NULL;
    if (cli_get(c, "/v1/reports", &reply, err) < 0)
        return -1;
    int rc = cli_print_list(c, reply, "reports", cols, RENDER_COUNT_OF(cols),
                            "this market has no reports", err);
    json_decref(reply);
    return rc;
}

static int fetch(struct cli *c, const char *name, json_t **ret, struct err *err)
{
    struct strbuf path = STRBUF_INIT;
    char *start = cli_path("/v1/reports/", name, "");
    strbuf_adds(&path, start);
    free(start);
    for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++)
        cli_query(&path, filters[i], opt_get(c->opts, filters[i]));
    int rc = cli_query_period(c, &path, err);
    if (rc == 0)
        rc = cli_get(c, strbuf_str(&path), ret, err);
    strbuf_done(&path);
    return rc;
}

/* How fresh it is, beside the table: programs have it in the JSON. */
static void note_fresh(const json_t *report)
{
    const json_t *fresh = json_object_get(report, "fresh_as_of");
    if (json_is_null(fresh))
        cli_note("this report was not rolled up yet: is neargpu-billd running?");
    else if (json_is_string(fresh))
        cli_note("fresh as of %s", json_string_value(fresh));
}

int cmd_admin_report(struct cli *c, struct err *err)
{
    struct strbuf out = STRBUF_INIT;
    json_t *report = NULL;
    if (c->opts->arg_count == 0)
        return list(c, err);
    const char *name = c->opts->args[0];
    if (fetch(c, name, &report, err) < 0)
        return -1;
    int rc = 0;
    if (c->render.format == RENDER_TABLE &&
        json_array_size(json_object_get(report, "rows")) == 0) {
        cli_note("report %s is empty for this period", name);
    } else {
        render_report(report, &c->render, &out);
        rc = cli_print(&out, err);
    }
    if (rc == 0 && c->render.format != RENDER_JSON)
        note_fresh(report);
    strbuf_done(&out);
    json_decref(report);
    return rc;
}
