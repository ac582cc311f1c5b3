/* usage, wallet, invoice list and show. */
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/focus.h"
#include "client/cli/invoice_html.h"
#include "client/lib/fsx.h"

/* --focus: charges of an invoice, or of a period; page by page. */
static int print_focus(struct cli *c, const char *invoice, struct err *err)
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
        return print_focus(c, NULL, err);
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

int cmd_invoice_list(struct cli *c, struct err *err)
{
    /* An administrator sees those of all tenants. */
    static const struct render_col cols[] = {
        {"TENANT", "tenant", RENDER_TEXT, NULL},
        {"NUMBER", "number", RENDER_TEXT, NULL},
        {"FROM", "from", RENDER_TIME, NULL},
        {"TO", "to", RENDER_TIME, NULL},
        {"ISSUED", "issued_at", RENDER_TIME, NULL},
        {"NET", "net", RENDER_MONEY, NULL},
        {"TAX", "tax", RENDER_MONEY, NULL},
        {"TOTAL", "total", RENDER_MONEY, NULL},
    };
    json_t *reply = NULL;
    if (cli_get_list(c, "/v1/invoices", "invoices", &reply, err) < 0)
        return -1;
    bool all = strcmp(c->account.role, "admin") == 0;
    int rc = cli_print_list(c, reply, "invoices", cols + !all,
                            RENDER_COUNT_OF(cols) - !all, "no invoices yet", err);
    json_decref(reply);
    return rc;
}

/* --html: in the language that is asked for, or that the invoice is addressed in. */
static int save_page(struct cli *c, const json_t *invoice, struct err *err)
{
    const char *file = opt_get(c->opts, "html"), *lang = opt_get(c->opts, "lang");
    struct strbuf page = STRBUF_INIT;
    if (lang == NULL)
        lang = json_string_value(
            json_object_get(json_object_get(invoice, "billing"), "language"));
    if (lang == NULL)
        lang = "en";
    if (!invoice_html_lang(lang))
        return err_set(err, ERR_USAGE, "--lang: expected en or ja");
    int rc = invoice_html(invoice, lang, c->render.zone, &page, err);
    if (rc == 0)
        rc = fsx_write(file, strbuf_str(&page), page.len, 0644, err);
    strbuf_done(&page);
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

void cli_render_taxes(struct cli *c, const json_t *document, struct strbuf *out)
{
    static const struct render_col taxes[] = {
        {"CLASS", "class", RENDER_TEXT, NULL},
        {"RATE", "rate_ppm", RENDER_PPM, NULL},
        {"BASE", "base", RENDER_MONEY, NULL},
        {"TAX", "tax", RENDER_MONEY, NULL},
    };
    render_rows(json_object_get(document, "taxes"), taxes, RENDER_COUNT_OF(taxes),
                &c->render, out);
}

int cmd_invoice_show(struct cli *c, struct err *err)
{
    static const struct render_col head[] = {
        {"Invoice", "number", RENDER_TEXT, NULL},
        {"Issuer", "issuer.name", RENDER_TEXT, NULL},
        {"Registration", "issuer.registration", RENDER_TEXT, NULL},
        {"Recipient", "recipient", RENDER_TEXT, NULL},
        {"From", "from", RENDER_TIME, NULL},
        {"To", "to", RENDER_TIME, NULL},
        {"Issued", "issued_at", RENDER_TIME, NULL},
    };
    static const struct render_col lines[] = {
        {"LINE", "line", RENDER_INT, NULL},
        {"DESCRIPTION", "description", RENDER_TEXT, NULL},
        {"GPU HOURS", "gpu_ms", RENDER_GPU_MS, NULL},
        {"AMOUNT", "amount", RENDER_MONEY, NULL},
        {"CLASS", "tax_class", RENDER_TEXT, NULL},
    };
    static const struct render_col sums[] = {
        {"Net", "net", RENDER_MONEY, NULL},
        {"Tax", "tax", RENDER_MONEY, NULL},
        {"Total", "total", RENDER_MONEY, NULL},
    };
    const char *file = opt_get(c->opts, "bundle");
    if (file != NULL && cli_save_bundle(c, "invoice", c->opts->args[0], file, err) != 0)
        return -1;
    if (opt_has(c->opts, "focus"))
        return print_focus(c, c->opts->args[0], err);
    char *path = cli_path("/v1/invoices/", c->opts->args[0], "");
    json_t *reply = NULL;
    struct strbuf out = STRBUF_INIT;
    int rc = cli_get(c, path, &reply, err);
    free(path);
    if (rc < 0)
        return -1;
    if (opt_has(c->opts, "html")) {
        rc = save_page(c, reply, err);
        json_decref(reply);
        return rc;
    }
    const json_t *rows = json_object_get(reply, "lines");
    if (c->render.format == RENDER_JSON) {
        render_json(reply, &out);
    } else if (c->render.format == RENDER_CSV) {
        render_rows(rows, lines, RENDER_COUNT_OF(lines), &c->render, &out);
    } else {
        render_card(reply, head, RENDER_COUNT_OF(head), &c->render, &out);
        strbuf_addc(&out, '\n');
        render_rows(rows, lines, RENDER_COUNT_OF(lines), &c->render, &out);
        strbuf_addc(&out, '\n');
        cli_render_taxes(c, reply, &out);
        strbuf_addc(&out, '\n');
        render_card(reply, sums, RENDER_COUNT_OF(sums), &c->render, &out);
    }
    rc = cli_print(&out, err);
    strbuf_done(&out);
    json_decref(reply);
    return rc;
}
