/* provider join-code, nodes, price. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/query.h"
#include "client/lib/timefmt.h"

int cmd_provider_join_code(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"Code", "code", RENDER_TEXT, NULL},
        {"Good until", "expires_at", RENDER_TIME, NULL},
        {"CA SHA-256", "ca_sha256", RENDER_TEXT, NULL},
    };
    const char *site = opt_get(c->opts, "site"), *node = opt_get(c->opts, "node");
    const char *ttl = opt_get(c->opts, "ttl");
    json_t *reply = NULL;
    int64_t us;
    if (site == NULL || node == NULL)
        return err_set(err, ERR_USAGE, "say which node: --site SITE --node NAME");
    if (ttl != NULL && timefmt_parse_duration(ttl, &us, err) < 0)
        return err_prefix(err, "--ttl");
    json_t *body = json_pack("{s:s, s:s}", "site", site, "node", node);
    if (ttl != NULL)
        json_object_set_new(body, "ttl", json_string(ttl));
    const struct cli_call call = {"POST", "/v1/join-codes", body, NULL};
    int rc = cli_call(c, &call, &reply, err);
    if (rc < 0 && err->code == ERR_UNKNOWN)
        err_prefix(err, "a code may have been made that nobody knows; make another");
    if (rc == 0)
        rc = cli_print_card(c, reply, cols, RENDER_COUNT_OF(cols), err);
    json_decref(body);
    json_decref(reply);
    return rc;
}

int cmd_provider_nodes(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"SITE", "site", RENDER_TEXT, NULL},
        {"NODE", "name", RENDER_TEXT, NULL},
        {"PROVIDER", "provider", RENDER_TEXT, NULL},
        {"GPU", "gpu_model", RENDER_TEXT, NULL},
        {"GPUS", "gpus", RENDER_INT, NULL},
        {"IDLE", "idle", RENDER_INT, NULL},
        {"LEASED", "leased", RENDER_INT, NULL},
        {"STATE", "state", RENDER_TEXT, NULL},
        {"LAST SYNC", "last_sync", RENDER_TIME, NULL},
        {"PRICE/H", "price", RENDER_MONEY, NULL},
        {"ADDRESS", "address", RENDER_TEXT, NULL},
        {"NOTE", "note", RENDER_TEXT, NULL},
    };
    json_t *reply = NULL;
    if (cli_get_list(c, "/v1/nodes", "nodes", &reply, err) < 0)
        return -1;
    int rc = cli_print_list(c, reply, "nodes", cols, RENDER_COUNT_OF(cols),
                            "no nodes yet: neargpu provider join-code, then "
                            "neargpu-agent enroll on the node",
                            err);
    json_decref(reply);
    return rc;
}

static const struct render_col price_cols[] = {
    {"SITE", "site", RENDER_TEXT, NULL},
    {"NODE", "node", RENDER_TEXT, NULL},
    {"GPU", "gpu_model", RENDER_TEXT, NULL},
    {"PRICE/H", "per_gpu_hour", RENDER_MONEY, NULL},
    {"SPOT/H", "spot_per_gpu_hour", RENDER_MONEY, NULL},
    {"NOTICE", "notice", RENDER_TEXT, NULL},
    {"SINCE", "since", RENDER_TIME, NULL},
};

/* What preemptible use costs, and how long before its end it is told. */
static int set_spot(struct cli *c, json_t *body, struct err *err)
{
    const char *amount = opt_get(c->opts, "spot"), *notice = opt_get(c->opts, "notice");
    json_t *price = NULL;
    int64_t us;
    if (amount == NULL)
        return notice == NULL ? 0
                              : err_set(err, ERR_USAGE, "--notice: is that of --spot");
    if (query_money(amount, c->account.currency, &price, err) < 0)
        return err_prefix(err, "--spot");
    json_object_set_new(body, "spot_per_gpu_hour", price);
    if (notice != NULL && (timefmt_parse_duration(notice, &us, err) < 0 || us <= 0))
        return err_set(err, ERR_USAGE, "--notice: '%.40s' is no duration such as 2m",
                       notice);
    if (notice != NULL)
        json_object_set_new(body, "notice", json_string(notice));
    return 0;
}

static int set_price(struct cli *c, const char *amount, struct err *err)
{
    static const char *const filters[] = {"site", "node", "gpu"};
    json_t *price = NULL, *reply = NULL;
    if (cli_open(c, err) < 0 ||
        query_money(amount, c->account.currency, &price, err) < 0)
        return -1;
    json_t *body = json_object();
    for (size_t i = 0; i < 3; i++)
        if (opt_get(c->opts, filters[i]) != NULL)
            json_object_set_new(body, filters[i],
                                json_string(opt_get(c->opts, filters[i])));
    bool all = json_object_size(body) == 0;
    json_object_set_new(body, "per_gpu_hour", price);
    if (set_spot(c, body, err) < 0) {
        json_decref(body);
        return -1;
    }
    int rc = 1;
    if (all)
        rc = cli_confirm(c, "Set this price on all your nodes?", err);
    const struct cli_call call = {"POST", "/v1/prices", body, NULL};
    if (rc == 1 && (rc = cli_call(c, &call, &reply, err)) == 0) {
        if (json_is_array(json_object_get(reply, "prices")))
            rc = cli_print_list(c, reply, "prices", price_cols,
                                RENDER_COUNT_OF(price_cols), "no node matches", err);
        else if (json_is_integer(json_object_get(reply, "nodes")))
            cli_note("price set on %" JSON_INTEGER_FORMAT " node(s)",
                     json_integer_value(json_object_get(reply, "nodes")));
        else
            cli_note("price set");
    }
    json_decref(body);
    json_decref(reply);
    return rc;
}

int cmd_provider_price(struct cli *c, struct err *err)
{
    json_t *reply = NULL;
    if (c->opts->arg_count > 0)
        return set_price(c, c->opts->args[0], err);
    if (opt_has(c->opts, "spot") || opt_has(c->opts, "notice"))
        return err_set(err, ERR_USAGE,
                       "--%s: goes with a price: neargpu provider price AMOUNT …",
                       opt_has(c->opts, "spot") ? "spot" : "notice");
    if (cli_get_list(c, "/v1/prices", "prices", &reply, err) < 0)
        return -1;
    int rc = cli_print_list(c, reply, "prices", price_cols, RENDER_COUNT_OF(price_cols),
                            "no prices yet: neargpu provider price AMOUNT", err);
    json_decref(reply);
    return rc;
}
