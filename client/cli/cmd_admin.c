/* admin tenant, provider, site, status. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/query.h"
#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"

/* A created tenant or provider: the key is in this reply and nowhere else. */
static int show_created(struct cli *c, json_t *reply, struct err *err)
{
    static const struct render_col cols[] = {
        {"Name", "name", RENDER_TEXT, NULL},
        {"Id", "id", RENDER_TEXT, NULL},
        {"API key", "api_key", RENDER_TEXT, NULL},
    };
    const char *file = opt_get(c->opts, "key-file");
    const char *key = json_string_value(json_object_get(reply, "api_key"));
    size_t count = RENDER_COUNT_OF(cols);
    if (file != NULL && key != NULL) {
        char *line = xasprintf("%s\n", key);
        int rc = fsx_write(file, line, strlen(line), 0600, err);
        explicit_bzero(line, strlen(line));
        free(line);
        if (rc < 0) /* the key must not be lost: show it after all */
            cli_note("%s; the API key is shown instead", err->text);
        else
            json_object_del(reply, "api_key");
    }
    if (json_object_get(reply, "api_key") == NULL)
        count--;
    return cli_print_card(c, reply, cols, count, err);
}

/* Repeating it with its key gives the same tenant or provider, with another API key. */
static int create(struct cli *c, const char *path, json_t *body, struct err *err)
{
    json_t *reply = NULL;
    int rc = cli_post_once(c, path, body, "making two", &reply, err);
    if (rc == 0)
        rc = show_created(c, reply, err);
    json_decref(reply);
    return rc;
}

int cmd_admin_tenant_create(struct cli *c, struct err *err)
{
    const char *credit = opt_get(c->opts, "credit"), *zone = opt_get(c->opts, "zone");
    json_t *body = json_pack("{s:s}", "name", c->opts->args[0]), *money = NULL;
    int rc = cli_open(c, err);
    if (rc == 0 && credit != NULL) {
        rc = query_money(credit, c->account.currency, &money, err);
        if (rc < 0)
            err_prefix(err, "--credit");
        else
            json_object_set(body, "credit_micro", json_object_get(money, "micro"));
        json_decref(money);
    }
    if (zone != NULL)
        json_object_set_new(body, "zone", json_string(zone));
    if (rc == 0)
        rc = create(c, "/v1/tenants", body, err);
    json_decref(body);
    return rc;
}

int cmd_admin_tenant_list(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"NAME", "name", RENDER_TEXT, NULL},
        {"BALANCE", "balance", RENDER_MONEY, NULL},
        {"HELD", "held", RENDER_MONEY, NULL},
        {"ZONE", "zone", RENDER_TEXT, NULL},
        {"PRIORITY", "priority", RENDER_INT, NULL},
        {"ID", "id", RENDER_TEXT, NULL},
    };
    json_t *reply = NULL;
    if (cli_get_list(c, "/v1/tenants", "tenants", &reply, err) < 0)
        return -1;
    int rc = cli_print_list(c, reply, "tenants", cols, RENDER_COUNT_OF(cols),
                            "no tenants yet: neargpu admin tenant create NAME", err);
    json_decref(reply);
    return rc;
}

int cmd_admin_tenant_set(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"Name", "name", RENDER_TEXT, NULL},
        {"Priority", "priority", RENDER_INT, NULL},
    };
    const char *priority = opt_get(c->opts, "priority");
    json_t *reply = NULL;
    int64_t n;
    if (priority == NULL)
        return err_set(err, ERR_USAGE, "say what to set: --priority N");
    if (when_parse_int(priority, -1000, 1000, &n, err) < 0)
        return err_prefix(err, "--priority");
    json_t *body = json_pack("{s:I}", "priority", (json_int_t)n);
    char *path = cli_path("/v1/tenants/", c->opts->args[0], "");
    const struct cli_call call = {"PATCH", path, body, NULL};
    int rc = cli_call(c, &call, &reply, err);
    if (rc == 0)
        rc = cli_print_card(c, reply, cols, RENDER_COUNT_OF(cols), err);
    free(path);
    json_decref(body);
    json_decref(reply);
    return rc;
}

int cmd_admin_tenant_topup(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"Balance", "balance", RENDER_MONEY, NULL}};
    const char *name = c->opts->args[0], *amount = opt_get(c->opts, "amount");
    const char *reference = opt_get(c->opts, "reference");
    json_t *money = NULL, *reply = NULL;
    if (amount == NULL || reference == NULL)
        return err_set(err, ERR_USAGE,
                       "say how much, and where it came from: --amount AMOUNT "
                       "--reference TEXT");
    if (cli_open(c, err) < 0 ||
        query_money(amount, c->account.currency, &money, err) < 0)
        return -1;
    json_t *body = json_pack("{s:o, s:s}", "amount", money, "reference", reference);
    char *path = cli_path("/v1/tenants/", name, "/topup");
    int rc = cli_post_once(c, path, body, "paying in twice", &reply, err);
    if (rc == 0)
        rc = cli_print_card(c, reply, cols, RENDER_COUNT_OF(cols), err);
    free(path);
    json_decref(body);
    json_decref(reply);
    return rc;
}

int cmd_admin_provider_create(struct cli *c, struct err *err)
{
    const char *fee = opt_get(c->opts, "fee");
    json_t *body = json_pack("{s:s}", "name", c->opts->args[0]);
    int64_t ppm;
    int rc = 0;
    if (fee != NULL) {
        rc = when_parse_ppm(fee, &ppm, err);
        if (rc < 0)
            err_prefix(err, "--fee");
        else
            json_object_set_new(body, "fee_ppm", json_integer(ppm));
    }
    if (rc == 0)
        rc = create(c, "/v1/providers", body, err);
    json_decref(body);
    return rc;
}

int cmd_admin_provider_list(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"NAME", "name", RENDER_TEXT, NULL},
        {"FEE", "fee_ppm", RENDER_PPM, NULL},
        {"CREATED", "created_at", RENDER_TIME, NULL},
        {"ID", "id", RENDER_TEXT, NULL},
    };
    json_t *reply = NULL;
    if (cli_get_list(c, "/v1/providers", "providers", &reply, err) < 0)
        return -1;
    int rc =
        cli_print_list(c, reply, "providers", cols, RENDER_COUNT_OF(cols),
                       "no providers yet: neargpu admin provider create NAME", err);
    json_decref(reply);
    return rc;
}

static const struct render_col site_card[] = {
    {"Name", "name", RENDER_TEXT, NULL},
    {"City", "city", RENDER_TEXT, NULL},
    {"Lat", "lat", RENDER_TEXT, NULL},
    {"Lon", "lon", RENDER_TEXT, NULL},
    {"Residency", "residency", RENDER_TEXT, NULL},
    {"Zone", "zone", RENDER_TEXT, NULL},
};

int cmd_admin_site_add(struct cli *c, struct err *err)
{
    static const char *const needed[] = {"city", "lat", "lon", "residency"};
    json_t *body = json_pack("{s:s}", "name", c->opts->args[0]), *reply = NULL;
    int rc = 0;
    for (size_t i = 0; i < 4 && rc == 0; i++) {
        const char *value = opt_get(c->opts, needed[i]);
        double degrees;
        if (value == NULL)
            rc = err_set(err, ERR_USAGE,
                         "--%s is missing: a site needs --city, --lat, --lon and "
                         "--residency",
                         needed[i]);
        else if (needed[i][0] != 'l')
            json_object_set_new(body, needed[i], json_string(value));
        else if ((rc = when_parse_degrees(value,
                                          strcmp(needed[i], "lat") == 0 ? 90 : 180,
                                          &degrees, err)) < 0)
            err_prefix(err, "--%s", needed[i]);
        else
            json_object_set_new(body, needed[i], json_real(degrees));
    }
    if (opt_get(c->opts, "zone") != NULL)
        json_object_set_new(body, "zone", json_string(opt_get(c->opts, "zone")));
    char *key = cli_new_key(c);
    const struct cli_call call = {"POST", "/v1/sites", body, key};
    if (rc == 0 && (rc = cli_call(c, &call, &reply, err)) == 0)
        rc = cli_print_card(c, reply, site_card, RENDER_COUNT_OF(site_card), err);
    free(key);
    json_decref(body);
    json_decref(reply);
    return rc;
}

int cmd_admin_site_list(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"NAME", "name", RENDER_TEXT, NULL},
        {"CITY", "city", RENDER_TEXT, NULL},
        {"LAT", "lat", RENDER_TEXT, NULL},
        {"LON", "lon", RENDER_TEXT, NULL},
        {"RESIDENCY", "residency", RENDER_TEXT, NULL},
        {"DISASTER ZONE", "zone", RENDER_TEXT, NULL},
        {"NODES", "nodes", RENDER_INT, NULL},
        {"GPUS", "gpus", RENDER_INT, NULL},
    };
    json_t *reply = NULL;
    if (cli_get_list(c, "/v1/sites", "sites", &reply, err) < 0)
        return -1;
    int rc =
        cli_print_list(c, reply, "sites", cols, RENDER_COUNT_OF(cols),
                       "no sites yet: neargpu admin site add NAME --city CITY …", err);
    json_decref(reply);
    return rc;
}

int cmd_admin_status(struct cli *c, struct err *err)
{
    json_t *reply = NULL;
    struct strbuf out = STRBUF_INIT;
    if (cli_get(c, "/v1/admin/status", &reply, err) < 0)
        return -1;
    render_tree(reply, &c->render, &out);
    int rc = cli_print(&out, err);
    const char *late =
        json_string_value(json_object_get(json_object_get(reply, "rollups"), "advice"));
    if (rc == 0 && late != NULL && late[0] != '\0')
        cli_note("warning: %s", late);
    strbuf_done(&out);
    json_decref(reply);
    return rc;
}
