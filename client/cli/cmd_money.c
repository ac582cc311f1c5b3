/* usage, wallet, billing. */
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/focus.h"

int cli_print_focus(struct cli *c, const char *invoice, struct err *err)
{
    enum focus_version version;
    struct strbuf path = STRBUF_INIT, out = STRBUF_INIT;
    json_t *reply = NULL;
    const json_t *charge;
    size_t i;
    if (focus_version_parse(opt_get(c->opts, "focus-version"), &version, err) != 0)
        return -1;
    strbuf_adds(&path, "/v1/charges");
    cli_query(&path, "invoice", invoice);
    int rc = invoice == NULL ? cli_query_period(c, &path, err) : 0;
    if (rc == 0)
        rc = cli_get_list(c, strbuf_str(&path), "charges", &reply, err);
    strbuf_done(&path);
    if (rc == 0) {
        focus_header(version, &out);
        json_array_foreach(json_object_get(reply, "charges"), i, charge)
            focus_row(version, charge, &out);
        rc = cli_print(&out, err);
    }
    strbuf_done(&out);
    json_decref(reply);
    return rc;
}

int cmd_usage(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"RESERVATION", "reservation", RENDER_TEXT, NULL},
        {"NODE", "node", RENDER_TEXT, NULL},
        {"FROM", "from", RENDER_TIME, NULL},
        {"TO", "to", RENDER_TIME, NULL},
        {"GPU HOURS", "gpu_ms", RENDER_GPU_MS, NULL},
        {"AMOUNT", "amount", RENDER_MONEY, NULL},
        {"RECEIPTS", "receipts", RENDER_INT, NULL},
        {"CLOSED", "closed", RENDER_YES, NULL},
    };
    struct strbuf path = STRBUF_INIT;
    json_t *reply = NULL;
    const char *file = opt_get(c->opts, "bundle"),
               *resv = opt_get(c->opts, "reservation");
    if (opt_has(c->opts, "focus"))
        return cli_print_focus(c, NULL, err);
    if (opt_get(c->opts, "receipts") != NULL)
        return cli_show_receipts(c, opt_get(c->opts, "receipts"), err);
    if (file != NULL && resv == NULL)
        return err_set(err, ERR_USAGE, "--bundle needs --reservation");
    if (file != NULL)
        return cli_save_bundle(c, "reservation", resv, file, err);
    strbuf_adds(&path, "/v1/usage");
    cli_query(&path, "reservation", opt_get(c->opts, "reservation"));
    int rc = cli_query_period(c, &path, err);
    if (rc == 0)
        rc = cli_get_list(c, strbuf_str(&path), "usage", &reply, err);
    strbuf_done(&path);
    if (rc == 0)
        rc = cli_print_list(c, reply, "usage", cols, RENDER_COUNT_OF(cols),
                            "no use was metered", err);
    json_decref(reply);
    return rc;
}

/* References the market makes itself begin with the reservation, which has a column. */
static void drop_own_references(const json_t *transfers)
{
    size_t i;
    json_t *t;
    json_array_foreach(transfers, i, t)
    {
        const char *resv = json_string_value(json_object_get(t, "reservation"));
        const char *ref = json_string_value(json_object_get(t, "reference"));
        if (resv != NULL && ref != NULL && strncmp(ref, resv, strlen(resv)) == 0)
            json_object_del(t, "reference");
    }
}

int cmd_wallet(struct cli *c, struct err *err)
{
    static const struct render_col card[] = {
        {"Available", "available_micro", RENDER_MICRO, "currency"},
        {"Held", "held_micro", RENDER_MICRO, "currency"},
        {"Promotional credit left", "promo_micro", RENDER_MICRO, "currency"},
        {"Budget", "budget.limit", RENDER_MONEY, NULL},
        {"Committed of it", "budget.committed", RENDER_MONEY, NULL},
        {"Alerted at %", "budget.alerted_percent", RENDER_INT, NULL},
    };
    static const struct render_col moves[] = {
        {"NUMBER", "id", RENDER_INT, NULL},
        {"WHEN", "at", RENDER_TIME, NULL},
        {"WHAT", "kind", RENDER_TEXT, NULL},
        {"AMOUNT", "amount", RENDER_MONEY, NULL},
        {"RESERVATION", "reservation", RENDER_TEXT, NULL},
        {"REFERENCE", "reference", RENDER_TEXT, NULL},
    };
    static const struct render_col ends[] = {
        {"YOUR MONEY DOES NOT REACH THE END OF", "reservation", RENDER_TEXT, NULL},
        {"BUT UNTIL", "paid_until", RENDER_TIME, NULL},
    };
    json_t *reply = NULL;
    struct strbuf out = STRBUF_INIT;
    if (cli_get(c, "/v1/wallet", &reply, err) < 0)
        return -1;
    const json_t *transfers = json_object_get(reply, "transfers");
    if (c->render.format == RENDER_CSV) {
        render_rows(transfers, moves, RENDER_COUNT_OF(moves), &c->render, &out);
    } else {
        size_t count = json_is_object(json_object_get(reply, "budget")) ? 6
                       : json_integer_value(json_object_get(reply, "promo_micro")) > 0
                           ? 3
                           : 2;
        render_card(reply, card, count, &c->render, &out);
        const json_t *low = json_object_get(reply, "low");
        if (c->render.format == RENDER_TABLE && json_array_size(low) > 0) {
            strbuf_addc(&out, '\n');
            render_rows(low, ends, RENDER_COUNT_OF(ends), &c->render, &out);
        }
        if (c->render.format == RENDER_TABLE && json_array_size(transfers) > 0) {
            strbuf_addc(&out, '\n');
            drop_own_references(transfers);
            render_rows(transfers, moves, RENDER_COUNT_OF(moves), &c->render, &out);
        }
    }
    int rc = cli_print(&out, err);
    strbuf_done(&out);
    json_decref(reply);
    return rc;
}

/* \n in an option's text begins a line. */
json_t *cli_lines(const char *text)
{
    struct strbuf lines = STRBUF_INIT;
    for (const char *p; (p = strstr(text, "\\n")) != NULL; text = p + 2) {
        strbuf_add(&lines, text, (size_t)(p - text));
        strbuf_addc(&lines, '\n');
    }
    strbuf_adds(&lines, text);
    json_t *v = json_string(strbuf_str(&lines));
    strbuf_done(&lines);
    return v;
}

int cmd_billing(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"Name", "name", RENDER_TEXT, NULL},
        {"Address", "address", RENDER_TEXT, NULL},
        {"Language", "language", RENDER_TEXT, NULL},
    };
    static const char *const members[][2] = {
        {"name", "name"}, {"address", "address"}, {"lang", "language"}};
    json_t *body = json_object(), *reply = NULL;
    for (size_t i = 0; i < sizeof(members) / sizeof(members[0]); i++)
        if (opt_has(c->opts, members[i][0]))
            json_object_set_new(body, members[i][1],
                                cli_lines(opt_get(c->opts, members[i][0])));
    bool change = json_object_size(body) > 0;
    const struct cli_call call = {change ? "PATCH" : "GET", "/v1/billing",
                                  change ? body : NULL, NULL};
    int rc = cli_call(c, &call, &reply, err);
    if (change)
        cli_harmless(err);
    if (rc == 0)
        rc = cli_print_card(c, reply, cols, RENDER_COUNT_OF(cols), err);
    json_decref(body);
    json_decref(reply);
    return rc;
}
