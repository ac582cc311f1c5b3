/* admin tax list, rate, class. */
#include "client/cli/cli.h"
#include "client/lib/timefmt.h"

static int show(struct cli *c, const json_t *reply, struct err *err)
{
    static const struct render_col rates[] = {
        {"CLASS", "class", RENDER_TEXT, NULL}, {"RATE", "rate_ppm", RENDER_PPM, NULL},
        {"FROM", "from", RENDER_TIME, NULL},   {"TO", "to", RENDER_TIME, NULL},
        {"BY", "set_by", RENDER_TEXT, NULL},
    };
    static const struct render_col rules[] = {
        {"TENANT", "tenant", RENDER_TEXT, NULL},
        {"METER", "meter", RENDER_TEXT, NULL},
        {"MODEL", "gpu_model", RENDER_TEXT, NULL},
        {"CLASS", "class", RENDER_TEXT, NULL},
        {"FROM", "from", RENDER_TIME, NULL},
        {"TO", "to", RENDER_TIME, NULL},
        {"BY", "set_by", RENDER_TEXT, NULL},
    };
    const json_t *list = json_object_get(reply, "rules");
    struct strbuf out = STRBUF_INIT;
    if (c->render.format == RENDER_JSON) {
        render_json(reply, &out);
    } else {
        render_rows(json_object_get(reply, "rates"), rates, RENDER_COUNT_OF(rates),
                    &c->render, &out);
        if (c->render.format == RENDER_TABLE && json_array_size(list) > 0) {
            strbuf_addc(&out, '\n');
            render_rows(list, rules, RENDER_COUNT_OF(rules), &c->render, &out);
        }
    }
    int rc = cli_print(&out, err);
    strbuf_done(&out);
    return rc;
}

/* Takes the body. Said again it changes nothing, so that it needs no key. */
static int post(struct cli *c, const char *path, json_t *body, struct err *err)
{
    const char *from = opt_get(c->opts, "from");
    const struct cli_call call = {"POST", path, body, NULL};
    json_t *reply = NULL;
    char utc[TIMEFMT_MAX];
    int64_t us;
    int rc = 0;
    if (from != NULL && (rc = when_parse(from, &c->when, &us, err)) < 0) {
        err_prefix(err, "--from");
    } else if (from != NULL) {
        timefmt_utc(us, utc);
        json_object_set_new(body, "from", json_string(utc));
        rc = 0;
    }
    if (rc == 0)
        rc = cli_call(c, &call, &reply, err);
    if (rc == 0)
        rc = show(c, reply, err);
    json_decref(body);
    json_decref(reply);
    return rc;
}

int cmd_admin_tax_list(struct cli *c, struct err *err)
{
    json_t *reply = NULL;
    if (cli_get(c, "/v1/tax", &reply, err) < 0)
        return -1;
    int rc = show(c, reply, err);
    json_decref(reply);
    return rc;
}

int cmd_admin_tax_rate(struct cli *c, struct err *err)
{
    int64_t ppm;
    if (when_parse_ppm(c->opts->args[1], &ppm, err) < 0)
        return -1;
    return post(
        c, "/v1/tax/rates",
        json_pack("{s:s, s:I}", "class", c->opts->args[0], "rate_ppm", (json_int_t)ppm),
        err);
}

int cmd_admin_tax_class(struct cli *c, struct err *err)
{
    static const char *const members[][2] = {
        {"tenant", "tenant"}, {"meter", "meter"}, {"model", "gpu_model"}};
    json_t *body = json_pack("{s:s}", "class", c->opts->args[0]);
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++) {
        const char *value = opt_get(c->opts, members[i][0]);
        if (value != NULL)
            json_object_set_new(body, members[i][1], json_string(value));
    }
    return post(c, "/v1/tax/rules", body, err);
}
