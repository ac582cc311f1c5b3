/* offers: what there is now, best first, and why not the rest. */
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

/* After those, where a place is sold preemptibly. */
static const struct render_col spot_cols[] = {
    {"SPOT/H", "spot_per_gpu_hour_micro", RENDER_MICRO, "price.currency"},
    {"NOTICE", "notice_s", RENDER_SECONDS, NULL},
};

int cli_request_get(struct cli *c, const char *prefix, json_t **ret, struct err *err)
{
    json_t *request = NULL;
    struct strbuf path = STRBUF_INIT;
    if (cli_open(c, err) < 0 ||
        query_build(c->opts, &c->when, c->account.currency, &request, err) < 0)
        return -1;
    strbuf_addf(&path, "%s?", prefix);
    query_string(request, &path);
    int rc = cli_get(c, strbuf_str(&path), ret, err);
    strbuf_done(&path);
    json_decref(request);
    return rc;
}

/* CSV has the same columns whatever there is. */
static void render_offers(const json_t *offers, const struct render_opts *o,
                          struct strbuf *out)
{
    struct render_col cols[RENDER_COUNT_OF(offer_cols) + RENDER_COUNT_OF(spot_cols)];
    size_t count = RENDER_COUNT_OF(offer_cols), i;
    bool spot = o->format == RENDER_CSV;
    json_t *offer;
    json_array_foreach(offers, i, offer) spot =
        spot || json_is_integer(json_object_get(offer, spot_cols[0].path));
    memcpy(cols, offer_cols, sizeof(offer_cols));
    memcpy(cols + count, spot_cols, sizeof(spot_cols));
    if (spot)
        count += RENDER_COUNT_OF(spot_cols);
    render_rows(offers, cols, count, o, out);
}

/* Round trips that one should not build on. */
static void add_doubts(const json_t *offers, struct strbuf *out)
{
    const json_t *o;
    size_t i;
    json_array_foreach(offers, i, o)
    {
        const char *site = json_string_value(json_object_get(o, "site"));
        const char *sure = json_string_value(json_object_get(o, "rtt_confidence"));
        const char *how = json_string_value(json_object_get(o, "rtt_source"));
        int64_t drift_us = json_integer_value(json_object_get(o, "rtt_drift_us"));
        if (site == NULL)
            continue;
        if (json_is_true(json_object_get(o, "rtt_drifting"))) {
            render_clean(out, site);
            strbuf_addf(out, ": the round trip has drifted by %+.1f ms\n",
                        (double)drift_us / 1000);
        } else if (sure != NULL && how != NULL && strcmp(sure, "low") == 0 &&
                   strcmp(how, "measured") == 0) {
            render_clean(out, site);
            strbuf_addf(out,
                        ": the round trip is uncertain (%" JSON_INTEGER_FORMAT
                        " samples, %" JSON_INTEGER_FORMAT " s old)\n",
                        json_integer_value(json_object_get(o, "rtt_count")),
                        json_integer_value(json_object_get(o, "rtt_age_s")));
        }
    }
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
    if (cli_request_get(c, "/v1/offers", &reply, err) < 0)
        return -1;
    const json_t *offers = json_object_get(reply, "offers");
    const json_t *rejected = json_object_get(reply, "rejected");
    struct render_opts o = c->render;
    o.mark = 0;
    if (o.format == RENDER_JSON)
        render_json(reply, &out);
    else if (o.format == RENDER_CSV || json_array_size(offers) > 0)
        render_offers(offers, &o, &out);
    if (o.format == RENDER_TABLE && strchr(strbuf_str(&out), '~') != NULL)
        strbuf_adds(&out,
                    "~ not measured: declared by the path's operator, or from the "
                    "distance\n");
    if (o.format == RENDER_TABLE)
        add_doubts(offers, &out);
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
