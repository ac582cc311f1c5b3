/* offers, calendar and explain: what there is, when, and why not the rest. */
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/query.h"

static const struct render_col offer_cols[] = {
    {"SITE", "site", RENDER_TEXT, NULL},
    {"PROVIDER", "provider", RENDER_TEXT, NULL},
    {"GPU", "gpu_model", RENDER_TEXT, NULL},
    {"FREE", "free", RENDER_INT, NULL},
    {"START", "start", RENDER_TIME, NULL},
    {"RTT", "rtt_us", RENDER_RTT, "rtt_source"},
    {"SLOWDOWN", "slowdown", RENDER_SLOWDOWN, NULL},
    {"PRICE/H", "price.per_gpu_hour_micro", RENDER_MICRO, "price.currency"},
    {"EFFECTIVE/H", "price.effective_per_hour_micro", RENDER_ABOUT, "price.currency"},
    {"RELIABILITY", "reliability", RENDER_SHARE, NULL},
};

static int get_offers(struct cli *c, json_t **ret, struct err *err)
{
    json_t *request = NULL;
    struct strbuf path = STRBUF_INIT;
    if (cli_open(c, err) < 0 ||
        query_build(c->opts, &c->when, c->account.currency, &request, err) < 0)
        return -1;
    strbuf_adds(&path, "/v1/offers?");
    query_string(request, &path);
    int rc = cli_get(c, strbuf_str(&path), ret, err);
    strbuf_done(&path);
    json_decref(request);
    return rc;
}

/* Exit status 3 as reserve would give, though the answer is printed all the same. */
static void set_status(struct cli *c, const json_t *reply)
{
    if (json_array_size(json_object_get(reply, "offers")) == 0) {
        cli_note("nothing fits%s",
                 json_array_size(json_object_get(reply, "rejected")) > 0
                     ? "; the reasons are above"
                     : ": no provider offers GPUs now");
        c->status = err_exit_status(ERR_NO_FIT);
    }
}

int cmd_offers(struct cli *c, struct err *err)
{
    json_t *reply = NULL;
    struct strbuf out = STRBUF_INIT;
    if (get_offers(c, &reply, err) < 0)
        return -1;
    const json_t *offers = json_object_get(reply, "offers");
    const json_t *rejected = json_object_get(reply, "rejected");
    struct render_opts o = c->render;
    o.mark = 0;
    if (o.format == RENDER_JSON)
        render_json(reply, &out);
    else if (o.format == RENDER_CSV || json_array_size(offers) > 0)
        render_rows(offers, offer_cols, RENDER_COUNT_OF(offer_cols), &o, &out);
    if (o.format == RENDER_TABLE && strchr(strbuf_str(&out), '~') != NULL)
        strbuf_adds(&out,
                    "~ not measured: declared by the path's operator, or from the "
                    "distance\n");
    const char *advice = json_string_value(render_at(offers, "0.advice"));
    if (o.format == RENDER_TABLE && advice != NULL && *advice != '\0') {
        strbuf_adds(&out, "* ");
        render_clean(&out, advice);
        strbuf_addc(&out, '\n');
    }
    if (o.format == RENDER_TABLE && json_array_size(rejected) > 0) {
        strbuf_adds(&out,
                    json_array_size(offers) > 0 ? "\nNot fitting\n" : "Not fitting\n");
        cli_render_rejected(c, rejected, &out);
    }
    int rc = cli_print(&out, err);
    if (rc == 0)
        set_status(c, reply);
    strbuf_done(&out);
    json_decref(reply);
    return rc;
}

/* A row for each stretch in which the figures stay the same. */
static json_t *calendar_rows(const json_t *places)
{
    json_t *rows = json_array(), *place, *slot, *row;
    size_t i, k;
    json_array_foreach(places, i, place)
    {
        row = NULL;
        json_array_foreach(json_object_get(place, "slots"), k, slot)
        {
            if (row != NULL &&
                json_equal(json_object_get(row, "free"),
                           json_object_get(slot, "free")) &&
                json_equal(json_object_get(row, "largest"),
                           json_object_get(slot, "largest"))) {
                json_object_set(row, "to", json_object_get(slot, "to"));
                continue;
            }
            row = json_copy(place);
            json_object_del(row, "slots");
            json_object_update(row, slot);
            json_array_append_new(rows, row);
        }
    }
    return rows;
}

int cmd_calendar(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"SITE", "site", RENDER_TEXT, NULL},
        {"PROVIDER", "provider", RENDER_TEXT, NULL},
        {"GPU", "gpu_model", RENDER_TEXT, NULL},
        {"FROM", "from", RENDER_TIME, NULL},
        {"TO", "to", RENDER_TIME, NULL},
        {"FREE", "free", RENDER_INT, NULL},
        {"LARGEST", "largest", RENDER_INT, NULL},
    };
    struct strbuf path = STRBUF_INIT;
    json_t *reply = NULL;
    strbuf_adds(&path, "/v1/calendar");
    cli_query(&path, "gpu", opt_get(c->opts, "gpu"));
    cli_query(&path, "site", opt_get(c->opts, "site"));
    cli_query(&path, "step", opt_get(c->opts, "step"));
    int rc = cli_query_period(c, &path, err);
    if (rc == 0)
        rc = cli_get(c, strbuf_str(&path), &reply, err);
    strbuf_done(&path);
    if (rc == 0) {
        if (c->render.format != RENDER_JSON)
            json_object_set_new(reply, "calendar",
                                calendar_rows(json_object_get(reply, "calendar")));
        rc = cli_print_list(c, reply, "calendar", cols, RENDER_COUNT_OF(cols),
                            "no provider offers such GPUs", err);
    }
    json_decref(reply);
    return rc;
}

int cmd_explain(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"SITE", "site", RENDER_TEXT, NULL},
        {"PROVIDER", "provider", RENDER_TEXT, NULL},
        {"GPU", "gpu_model", RENDER_TEXT, NULL},
        {"RULE", "why", RENDER_TEXT, NULL},
        {"WHY NOT", "reason", RENDER_SENTENCE, NULL},
    };
    json_t *reply = NULL;
    if (get_offers(c, &reply, err) < 0)
        return -1;
    size_t fit = json_array_size(json_object_get(reply, "offers"));
    int rc = cli_print_list(c, reply, "rejected", cols, RENDER_COUNT_OF(cols),
                            fit > 0 ? "no place is refused: see neargpu offers"
                                    : "there is no place to refuse",
                            err);
    if (rc == 0 && fit > 0 && c->render.format == RENDER_TABLE)
        cli_note("%zu place%s fit%s: see neargpu offers", fit, fit == 1 ? "" : "s",
                 fit == 1 ? "s" : "");
    if (rc == 0)
        set_status(c, reply);
    json_decref(reply);
    return rc;
}
