/* admin path and admin drill: the paths between sites, and what the loss of a site
 * would mean. */
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/query.h"
#include "client/lib/timefmt.h"

static const struct render_col path_cols[] = {
    {"NAME", "name", RENDER_TEXT, NULL},
    {"FROM", "from", RENDER_TEXT, NULL},
    {"TO", "to", RENDER_TEXT, NULL},
    {"LANES", "lanes", RENDER_INT, NULL},
    {"LANE", "lane_bandwidth", RENDER_TEXT, NULL},
    {"RTT", "rtt", RENDER_RTT, NULL},
    {"LOSSLESS", "lossless", RENDER_YES, NULL},
    {"PRICE/GBPS/H", "price_per_gbps_hour", RENDER_MONEY, NULL},
    {"SETUP", "setup", RENDER_TEXT, NULL},
    {"PROVIDER", "provider", RENDER_TEXT, NULL},
    {"STATE", "state", RENDER_TEXT, NULL},
};

static const struct render_col path_card[] = {
    {"Name", "name", RENDER_TEXT, NULL},
    {"From", "from", RENDER_TEXT, NULL},
    {"To", "to", RENDER_TEXT, NULL},
    {"Lanes", "lanes", RENDER_INT, NULL},
    {"Lane", "lane_bandwidth", RENDER_TEXT, NULL},
    {"Round trip", "rtt", RENDER_RTT, NULL},
    {"Lossless", "lossless", RENDER_YES, NULL},
    {"Per Gbit/s-hour", "price_per_gbps_hour", RENDER_MONEY, NULL},
    {"Set-up", "setup", RENDER_TEXT, NULL},
    {"Provider", "provider", RENDER_TEXT, NULL},
    {"State", "state", RENDER_TEXT, NULL},
};

static int set_money(struct cli *c, json_t *body, const char *option,
                     const char *member, struct err *err)
{
    const char *value = opt_get(c->opts, option);
    json_t *money = NULL;
    if (value == NULL)
        return 0;
    if (query_money(value, c->account.currency, &money, err) < 0)
        return err_prefix(err, "--%s", option);
    json_object_set_new(body, member, money);
    return 0;
}

static int set_duration(struct cli *c, json_t *body, const char *option,
                        struct err *err)
{
    const char *value = opt_get(c->opts, option);
    int64_t us;
    if (value == NULL)
        return 0;
    char text[TIMEFMT_MAX];
    if (when_parse_span(value, &us, err) < 0)
        return err_prefix(err, "--%s", option);
    timefmt_duration(us, text);
    json_object_set_new(body, option, json_string(text));
    return 0;
}

static int path_body(struct cli *c, json_t *body, struct err *err)
{
    static const char *const needed[] = {
        "from", "to", "lanes", "lane-bandwidth", "price-per-gbps-hour", "provider"};
    int64_t lanes, rate;
    for (size_t i = 0; i < sizeof(needed) / sizeof(needed[0]); i++)
        if (opt_get(c->opts, needed[i]) == NULL)
            return err_set(err, ERR_USAGE,
                           "--%s is missing: a path needs --from, --to, --lanes, "
                           "--lane-bandwidth, --price-per-gbps-hour and --provider",
                           needed[i]);
    if (when_parse_int(opt_get(c->opts, "lanes"), 1, 64, &lanes, err) < 0)
        return err_prefix(err, "--lanes");
    if (when_parse_rate(opt_get(c->opts, "lane-bandwidth"), &rate, err) < 0)
        return err_prefix(err, "--lane-bandwidth");
    json_object_set_new(body, "name", json_string(c->opts->args[0]));
    json_object_set_new(body, "from", json_string(opt_get(c->opts, "from")));
    json_object_set_new(body, "to", json_string(opt_get(c->opts, "to")));
    json_object_set_new(body, "lanes", json_integer(lanes));
    json_object_set_new(body, "lane_bandwidth",
                        json_string(opt_get(c->opts, "lane-bandwidth")));
    json_object_set_new(body, "provider", json_string(opt_get(c->opts, "provider")));
    if (opt_has(c->opts, "lossless"))
        json_object_set_new(body, "lossless", json_true());
    if (set_duration(c, body, "rtt", err) < 0 ||
        set_duration(c, body, "setup", err) < 0)
        return -1;
    return set_money(c, body, "price-per-gbps-hour", "price_per_gbps_hour", err);
}

int cmd_admin_path_add(struct cli *c, struct err *err)
{
    json_t *body = json_object(), *reply = NULL;
    char *key = cli_new_key(c);
    const struct cli_call call = {"POST", "/v1/paths", body, key};
    int rc = cli_open(c, err);
    if (rc == 0)
        rc = path_body(c, body, err);
    if (rc == 0 && (rc = cli_call(c, &call, &reply, err)) == 0)
        rc = cli_print_card(c, reply, path_card, RENDER_COUNT_OF(path_card), err);
    free(key);
    json_decref(body);
    json_decref(reply);
    return rc;
}

int cmd_admin_path_list(struct cli *c, struct err *err)
{
    json_t *reply = NULL;
    if (cli_get_list(c, "/v1/paths", "paths", &reply, err) < 0)
        return -1;
    int rc =
        cli_print_list(c, reply, "paths", path_cols, RENDER_COUNT_OF(path_cols),
                       "no paths yet: neargpu admin path add NAME --from SITE …", err);
    json_decref(reply);
    return rc;
}

int cmd_admin_path_set(struct cli *c, struct err *err)
{
    const char *state = opt_get(c->opts, "state");
    json_t *body = json_object(), *reply = NULL;
    char *path = cli_path("/v1/paths/", c->opts->args[0], "");
    const struct cli_call call = {"PATCH", path, body, NULL};
    int rc = cli_open(c, err);
    if (rc == 0)
        rc = set_money(c, body, "price-per-gbps-hour", "price_per_gbps_hour", err);
    if (rc == 0 && state != NULL && strcmp(state, "up") != 0 &&
        strcmp(state, "down") != 0)
        rc = err_set(err, ERR_USAGE, "--state: '%.40s' is neither up nor down", state);
    if (state != NULL)
        json_object_set_new(body, "state", json_string(state));
    if (rc == 0 && json_object_size(body) == 0)
        rc = err_set(err, ERR_USAGE,
                     "say what to change: --state up, --state down or "
                     "--price-per-gbps-hour AMOUNT");
    if (rc == 0 && (rc = cli_call(c, &call, &reply, err)) == 0)
        rc = cli_print_card(c, reply, path_card, RENDER_COUNT_OF(path_card), err);
    free(path);
    json_decref(body);
    json_decref(reply);
    return rc;
}

/* ---- drill ----------------------------------------------------------------------- */

static const struct render_col detail_cols[] = {
    {"TENANT", "tenant", RENDER_TEXT, NULL},
    {"RESERVATION", "reservation", RENDER_TEXT, NULL},
    {"OUTCOME", "outcome", RENDER_TEXT, NULL},
    {"TO", "to_site", RENDER_TEXT, NULL},
    {"START", "start", RENDER_TIME, NULL},
    {"SLOWDOWN", "slowdown", RENDER_SLOWDOWN, NULL},
    {"WHY", "why", RENDER_SENTENCE, NULL},
};

/* A row for each reservation, with its tenant. */
static json_t *detail_rows(const json_t *reply)
{
    json_t *rows = json_array(), *tenant, *detail;
    size_t i, k;
    json_array_foreach(json_object_get(reply, "tenants"), i, tenant)
        json_array_foreach(json_object_get(tenant, "detail"), k, detail)
    {
        json_t *row = json_copy(detail);
        json_object_set(row, "tenant", json_object_get(tenant, "tenant"));
        json_array_append_new(rows, row);
    }
    return rows;
}

static void render_drill(const struct cli *c, const json_t *reply, struct strbuf *out)
{
    static const struct render_col sum[] = {
        {"Lost site", "site", RENDER_TEXT, NULL},
        {"Go on", "reservations.survive", RENDER_INT, NULL},
        {"Move", "reservations.moved", RENDER_INT, NULL},
        {"Lost", "reservations.lost", RENDER_INT, NULL},
    };
    static const struct render_col tenants[] = {
        {"TENANT", "tenant", RENDER_TEXT, NULL},
        {"RESERVATIONS", "reservations", RENDER_INT, NULL},
        {"GO ON", "survive", RENDER_INT, NULL},
        {"MOVE", "moved", RENDER_INT, NULL},
        {"LOST", "lost", RENDER_INT, NULL},
    };
    json_t *rows = detail_rows(reply);
    const json_t *list = json_object_get(reply, "tenants");
    if (c->render.format == RENDER_CSV) {
        render_rows(rows, detail_cols, RENDER_COUNT_OF(detail_cols), &c->render, out);
    } else {
        render_card(reply, sum, RENDER_COUNT_OF(sum), &c->render, out);
        if (json_array_size(list) > 0) {
            strbuf_addc(out, '\n');
            render_rows(list, tenants, RENDER_COUNT_OF(tenants), &c->render, out);
        }
        if (json_array_size(rows) > 0) {
            strbuf_addc(out, '\n');
            render_rows(rows, detail_cols, RENDER_COUNT_OF(detail_cols), &c->render,
                        out);
        }
    }
    json_decref(rows);
}

int cmd_admin_drill(struct cli *c, struct err *err)
{
    const char *site = opt_get(c->opts, "lose");
    struct strbuf path = STRBUF_INIT, out = STRBUF_INIT;
    json_t *reply = NULL;
    if (site == NULL)
        return err_set(err, ERR_USAGE, "say which site is lost: --lose SITE");
    strbuf_adds(&path, "/v1/admin/drill");
    cli_query(&path, "lose", site);
    int rc = cli_get(c, strbuf_str(&path), &reply, err);
    if (rc == 0 && c->render.format == RENDER_JSON)
        render_json(reply, &out);
    else if (rc == 0)
        render_drill(c, reply, &out);
    if (rc == 0)
        rc = cli_print(&out, err);
    strbuf_done(&path);
    strbuf_done(&out);
    json_decref(reply);
    return rc;
}
