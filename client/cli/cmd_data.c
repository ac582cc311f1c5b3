/* data add, list, show, rm; profiles. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/lib/xalloc.h"

static const struct render_col data_cols[] = {
    {"NAME", "name", RENDER_TEXT, NULL},
    {"SITE", "site", RENDER_TEXT, NULL},
    {"ENDPOINT", "endpoint", RENDER_TEXT, NULL},
    {"SIZE", "size_bytes", RENDER_BYTES, NULL},
    {"CREATED", "created_at", RENDER_TIME, NULL},
};

static int add_degrees(struct cli *c, json_t *body, const char *name, int bound,
                       struct err *err)
{
    const char *text = opt_get(c->opts, name);
    double degrees;
    if (text == NULL)
        return 0;
    if (when_parse_degrees(text, bound, &degrees, err) < 0)
        return err_prefix(err, "--%s", name);
    json_object_set_new(body, name, json_real(degrees));
    return 0;
}

int cmd_data_add(struct cli *c, struct err *err)
{
    const char *name = c->opts->args[0], *size = opt_get(c->opts, "size");
    const char *endpoint = opt_get(c->opts, "endpoint"),
               *site = opt_get(c->opts, "site");
    bool lat = opt_has(c->opts, "lat"), lon = opt_has(c->opts, "lon");
    json_t *body = json_object(), *reply = NULL;
    int64_t bytes;
    int rc = -1;
    char *key = cli_new_key(c);
    json_object_set_new(body, "name", json_string(name));
    if (endpoint == NULL) {
        err_set(err, ERR_USAGE, "say where it is served: --endpoint HOST:PORT or URL");
        goto out;
    }
    json_object_set_new(body, "endpoint", json_string(endpoint));
    if (lat != lon || (site != NULL) == lat) {
        err_set(err, ERR_USAGE, "say where it stands: --site SITE, or --lat and --lon");
        goto out;
    }
    if (site != NULL)
        json_object_set_new(body, "site", json_string(site));
    if (add_degrees(c, body, "lat", 90, err) < 0 ||
        add_degrees(c, body, "lon", 180, err) < 0)
        goto out;
    if (size != NULL) {
        if (when_parse_size(size, &bytes, err) < 0) {
            err_prefix(err, "--size");
            goto out;
        }
        json_object_set_new(body, "size_bytes", json_integer(bytes));
    }
    const struct cli_call call = {"POST", "/v1/datasets", body, key};
    if (cli_call(c, &call, &reply, err) < 0)
        goto out;
    if (c->render.format != RENDER_TABLE)
        rc = cli_print_card(c, reply, data_cols, RENDER_COUNT_OF(data_cols), err);
    else
        rc = (cli_note(
                  "data set %s added; agents measure the distance to it from now on",
                  name),
              0);
out:
    free(key);
    json_decref(body);
    json_decref(reply);
    return rc;
}

int cmd_data_list(struct cli *c, struct err *err)
{
    json_t *reply = NULL;
    if (cli_get_list(c, "/v1/datasets", "datasets", &reply, err) < 0)
        return -1;
    int rc = cli_print_list(c, reply, "datasets", data_cols, RENDER_COUNT_OF(data_cols),
                            "no data sets yet: neargpu data add NAME --site SITE "
                            "--endpoint HOST:PORT",
                            err);
    json_decref(reply);
    return rc;
}

int cmd_data_show(struct cli *c, struct err *err)
{
    static const struct render_col card[] = {
        {"Name", "name", RENDER_TEXT, NULL},
        {"Site", "site", RENDER_TEXT, NULL},
        {"Endpoint", "endpoint", RENDER_TEXT, NULL},
        {"Size", "size_bytes", RENDER_BYTES, NULL},
        {"Created", "created_at", RENDER_TIME, NULL},
    };
    static const struct render_col rtt[] = {
        {"SITE", "site", RENDER_TEXT, NULL},   {"NODE", "node", RENDER_TEXT, NULL},
        {"MIN", "min_us", RENDER_RTT, NULL},   {"MEDIAN", "p50_us", RENDER_RTT, NULL},
        {"P99", "p99_us", RENDER_RTT, NULL},   {"COUNT", "count", RENDER_INT, NULL},
        {"MEASURED", "at", RENDER_TIME, NULL},
    };
    char *path = cli_path("/v1/datasets/", c->opts->args[0], "");
    json_t *reply = NULL;
    struct strbuf out = STRBUF_INIT;
    int rc = cli_get(c, path, &reply, err);
    free(path);
    if (rc < 0)
        return -1;
    render_card(reply, card, RENDER_COUNT_OF(card), &c->render, &out);
    const json_t *measured = json_object_get(reply, "rtt");
    if (c->render.format == RENDER_TABLE && json_array_size(measured) > 0) {
        strbuf_adds(&out, "\nRound trips\n");
        render_rows(measured, rtt, RENDER_COUNT_OF(rtt), &c->render, &out);
    }
    rc = cli_print(&out, err);
    strbuf_done(&out);
    json_decref(reply);
    return rc;
}

int cmd_data_rm(struct cli *c, struct err *err)
{
    const char *name = c->opts->args[0];
    char *question = xasprintf("Remove data set %s from the market?", name);
    int rc = cli_confirm(c, question, err);
    free(question);
    if (rc != 1)
        return rc;
    char *path = cli_path("/v1/datasets/", name, "");
    const struct cli_call call = {"DELETE", path, NULL, NULL};
    rc = cli_call(c, &call, NULL, err);
    free(path);
    if (rc == 0)
        cli_note("data set %s removed", name);
    return rc;
}

int cmd_profiles(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"NAME", "name", RENDER_TEXT, NULL},
        {"KIND", "kind", RENDER_TEXT, NULL},
        {"SOURCE", "source", RENDER_TEXT, NULL},
    };
    json_t *reply = NULL;
    if (cli_get(c, "/v1/profiles", &reply, err) < 0)
        return -1;
    int rc = cli_print_list(c, reply, "profiles", cols, RENDER_COUNT_OF(cols),
                            "this market has no workload profiles", err);
    json_decref(reply);
    return rc;
}
