/* calendar: how many GPUs are free when, as a chart or as figures. */
#include <langinfo.h>
#include <string.h>

#include "client/cli/chart.h"
#include "client/cli/cli.h"
#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"

/* A row for each step of each offer, with the step's own times. */
static json_t *step_rows(const json_t *reply)
{
    json_t *rows = json_array(), *offer, *step;
    const char *from = json_string_value(json_object_get(reply, "from"));
    const char *length = json_string_value(json_object_get(reply, "step"));
    int64_t from_us, step_us;
    size_t i, k;
    if (from == NULL || length == NULL || timefmt_parse(from, &from_us, NULL) < 0 ||
        timefmt_parse_duration(length, &step_us, NULL) < 0)
        return rows;
    json_array_foreach(json_object_get(reply, "offers"), i, offer)
        json_array_foreach(json_object_get(offer, "steps"), k, step)
    {
        json_t *row = json_copy(offer);
        json_object_del(row, "steps");
        json_object_update(row, step);
        json_object_set_new(row, "from", jsonx_time(from_us + (int64_t)k * step_us));
        json_object_set_new(row, "to",
                            jsonx_time(from_us + (int64_t)(k + 1) * step_us));
        json_array_append_new(rows, row);
    }
    return rows;
}

static int print(struct cli *c, const json_t *reply, struct err *err)
{
    static const struct render_col cols[] = {
        {"SITE", "site", RENDER_TEXT, NULL},
        {"PROVIDER", "provider", RENDER_TEXT, NULL},
        {"GPU", "gpu_model", RENDER_TEXT, NULL},
        {"TOTAL", "total", RENDER_INT, NULL},
        {"FROM", "from", RENDER_TIME, NULL},
        {"TO", "to", RENDER_TIME, NULL},
        {"FREE", "free", RENDER_INT, NULL},
        {"NODE", "best_node", RENDER_INT, NULL},
    };
    struct strbuf out = STRBUF_INIT;
    if (c->render.format == RENDER_JSON) {
        render_json(reply, &out);
    } else if (c->render.format == RENDER_CSV) {
        json_t *rows = step_rows(reply);
        render_rows(rows, cols, RENDER_COUNT_OF(cols), &c->render, &out);
        json_decref(rows);
    } else if (json_array_size(json_object_get(reply, "offers")) == 0) {
        cli_note("no provider offers such GPUs");
    } else {
        bool blocks = strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
        chart_calendar(reply, blocks, &c->render, &out);
        strbuf_adds(&out,
                    "free: share of all GPUs there; node: the most on one node; ");
        strbuf_adds(&out, blocks ? "· none\n" : ". none\n");
    }
    int rc = cli_print(&out, err);
    strbuf_done(&out);
    return rc;
}

int cmd_calendar(struct cli *c, struct err *err)
{
    struct strbuf path = STRBUF_INIT;
    json_t *reply = NULL;
    strbuf_adds(&path, "/v1/calendar");
    cli_query(&path, "gpu", opt_get(c->opts, "gpu"));
    cli_query(&path, "site", opt_get(c->opts, "site"));
    cli_query(&path, "gpus", opt_get(c->opts, "gpus"));
    cli_query(&path, "step", opt_get(c->opts, "step"));
    int rc = cli_query_period(c, &path, err);
    if (rc == 0)
        rc = cli_get(c, strbuf_str(&path), &reply, err);
    strbuf_done(&path);
    if (rc == 0)
        rc = print(c, reply, err);
    json_decref(reply);
    return rc;
}
