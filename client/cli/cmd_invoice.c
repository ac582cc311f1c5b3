/* invoice list and show, credit-note list and show: as tables, as JSON, and as pages.
 * A credit note is listed beside the invoices, as what it takes off. */
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/invoice_html.h"
#include "client/lib/fsx.h"

/* ---- lists ---- */

/* A document as a row of the list of both; what a credit note gives back is less than
 * nothing there. New reference. */
static json_t *row_of(const json_t *document, const char *what)
{
    static const char *const sums[] = {"net", "tax", "total"};
    json_t *row = json_deep_copy(document);
    json_object_set_new(row, "what", json_string(what));
    if (strcmp(what, "invoice") == 0)
        return row;
    for (size_t i = 0; i < sizeof(sums) / sizeof(sums[0]); i++) {
        json_t *sum = json_object_get(row, sums[i]);
        json_int_t micro = json_integer_value(json_object_get(sum, "micro"));
        json_object_set_new(sum, "micro", json_integer(-micro));
    }
    return row;
}

static const char *issued(const json_t *document)
{
    return json_string_value(json_object_get(document, "issued_at"));
}

/* Both lists come newest first by number, which is by when they were issued. */
static json_t *merged(const json_t *invoices, const json_t *notes)
{
    json_t *rows = json_array();
    size_t i = 0, n = 0;
    while (i < json_array_size(invoices) || n < json_array_size(notes)) {
        const json_t *invoice = json_array_get(invoices, i),
                     *note = json_array_get(notes, n);
        bool next = note == NULL ||
                    (invoice != NULL && strcmp(issued(invoice), issued(note)) >= 0);
        json_array_append_new(
            rows, row_of(next ? invoice : note, next ? "invoice" : "credit note"));
        i += next;
        n += !next;
    }
    return rows;
}

int cmd_invoice_list(struct cli *c, struct err *err)
{
    /* An administrator sees those of all tenants. */
    static const struct render_col cols[] = {
        {"TENANT", "tenant", RENDER_TEXT, NULL},
        {"WHAT", "what", RENDER_TEXT, NULL},
        {"NUMBER", "number", RENDER_TEXT, NULL},
        {"FROM", "from", RENDER_TIME, NULL},
        {"TO", "to", RENDER_TIME, NULL},
        {"ISSUED", "issued_at", RENDER_TIME, NULL},
        {"OF INVOICE", "invoice", RENDER_TEXT, NULL},
        {"NET", "net", RENDER_MONEY, NULL},
        {"TAX", "tax", RENDER_MONEY, NULL},
        {"TOTAL", "total", RENDER_MONEY, NULL},
    };
    json_t *reply = NULL, *notes = NULL, *rows = NULL;
    struct strbuf out = STRBUF_INIT;
    int rc = cli_get_list(c, "/v1/invoices", "invoices", &reply, err);
    if (rc == 0)
        rc = cli_get_list(c, "/v1/credit-notes", "credit_notes", &notes, err);
    if (rc == 0) {
        json_t *list = json_object_get(notes, "credit_notes");
        rows = merged(json_object_get(reply, "invoices"), list);
        json_object_set(reply, "credit_notes", list);
    }
    bool all = strcmp(c->account.role, "admin") == 0;
    if (rc == 0 && c->render.format == RENDER_JSON) {
        render_json(reply, &out);
        rc = cli_print(&out, err);
    } else if (rc == 0) {
        json_t *table = json_pack("{s:O}", "rows", rows);
        rc = cli_print_list(c, table, "rows", cols + !all, RENDER_COUNT_OF(cols) - !all,
                            "no invoices yet", err);
        json_decref(table);
    }
    strbuf_done(&out);
    json_decref(rows);
    json_decref(reply);
    json_decref(notes);
    return rc;
}

int cmd_credit_note_list(struct cli *c, struct err *err)
{
    json_t *reply = NULL;
    if (cli_get_list(c, "/v1/credit-notes", "credit_notes", &reply, err) < 0)
        return -1;
    int rc = cli_print_list(c, reply, "credit_notes", cli_note_cols, CLI_NOTE_COLS,
                            "no credit notes", err);
    json_decref(reply);
    return rc;
}

/* ---- one of them ---- */

/* --html: in the language that is asked for, or that the tenant is addressed in. */
static int save_page(struct cli *c, const json_t *document, invoice_html_fn *page_of,
                     struct err *err)
{
    const char *file = opt_get(c->opts, "html"), *lang = opt_get(c->opts, "lang");
    struct strbuf page = STRBUF_INIT;
    if (lang == NULL)
        lang = json_string_value(
            json_object_get(json_object_get(document, "billing"), "language"));
    if (lang == NULL)
        lang = "en";
    if (!invoice_html_lang(lang))
        return err_set(err, ERR_USAGE, "--lang: expected en or ja");
    int rc = page_of(document, lang, c->render.zone, &page, err);
    if (rc == 0)
        rc = fsx_write(file, strbuf_str(&page), page.len, 0644, err);
    strbuf_done(&page);
    return rc;
}

/* A table of its own, with an empty line before it; nothing for an empty list. */
static void section(struct cli *c, const json_t *rows, const struct render_col *cols,
                    size_t count, struct strbuf *out)
{
    if (json_array_size(rows) == 0)
        return;
    strbuf_addc(out, '\n');
    render_rows(rows, cols, count, &c->render, out);
}

static void render_taxes(struct cli *c, const json_t *document, struct strbuf *out)
{
    static const struct render_col taxes[] = {
        {"CLASS", "class", RENDER_TEXT, NULL},
        {"RATE", "rate_ppm", RENDER_PPM, NULL},
        {"BASE", "base", RENDER_MONEY, NULL},
        {"TAX", "tax", RENDER_MONEY, NULL},
    };
    static const struct render_col sums[] = {
        {"Net", "net", RENDER_MONEY, NULL},
        {"Tax", "tax", RENDER_MONEY, NULL},
        {"Total", "total", RENDER_MONEY, NULL},
    };
    section(c, json_object_get(document, "taxes"), taxes, RENDER_COUNT_OF(taxes), out);
    strbuf_addc(out, '\n');
    render_card(document, sums, RENDER_COUNT_OF(sums), &c->render, out);
}

static const struct render_col line_cols[] = {
    {"LINE", "line", RENDER_INT, NULL},
    {"DESCRIPTION", "description", RENDER_TEXT, NULL},
    {"GPU HOURS", "gpu_ms", RENDER_GPU_MS, NULL},
    {"AMOUNT", "amount", RENDER_MONEY, NULL},
    {"CLASS", "tax_class", RENDER_TEXT, NULL},
};

static void render_invoice(struct cli *c, const json_t *invoice, struct strbuf *out)
{
    static const struct render_col head[] = {
        {"Invoice", "number", RENDER_TEXT, NULL},
        {"Issuer", "issuer.name", RENDER_TEXT, NULL},
        {"Address", "issuer.address", RENDER_TEXT, NULL},
        {"Registration", "issuer.registration", RENDER_TEXT, NULL},
        {"Recipient", "recipient", RENDER_TEXT, NULL},
        {"From", "from", RENDER_TIME, NULL},
        {"To", "to", RENDER_TIME, NULL},
        {"Issued", "issued_at", RENDER_TIME, NULL},
    };
    static const struct render_col credits[] = {
        {"CREDIT", "kind", RENDER_TEXT, NULL},
        {"INCIDENT", "incident", RENDER_INT, NULL},
        {"WHEN", "at", RENDER_TIME, NULL},
        {"AMOUNT", "amount", RENDER_MONEY, NULL},
        {"RESERVATION", "reservation", RENDER_TEXT, NULL},
        {"REASON", "reason", RENDER_TEXT, NULL},
    };
    static const struct render_col notes[] = {
        {"CREDIT NOTE", "number", RENDER_TEXT, NULL},
        {"ISSUED", "issued_at", RENDER_TIME, NULL},
        {"GIVEN BACK", "total", RENDER_MONEY, NULL},
        {"REASON", "reason", RENDER_TEXT, NULL},
    };
    render_card(invoice, head, RENDER_COUNT_OF(head), &c->render, out);
    section(c, json_object_get(invoice, "lines"), line_cols, RENDER_COUNT_OF(line_cols),
            out);
    render_taxes(c, invoice, out);
    section(c, json_object_get(invoice, "credits"), credits, RENDER_COUNT_OF(credits),
            out);
    section(c, json_object_get(invoice, "credit_notes"), notes, RENDER_COUNT_OF(notes),
            out);
}

static void render_note(struct cli *c, const json_t *note, struct strbuf *out)
{
    static const struct render_col head[] = {
        {"Credit note", "number", RENDER_TEXT, NULL},
        {"Of invoice", "invoice", RENDER_TEXT, NULL},
        {"Issued", "of.issued_at", RENDER_TIME, NULL},
        {"From", "of.from", RENDER_TIME, NULL},
        {"To", "of.to", RENDER_TIME, NULL},
        {"Issuer", "issuer.name", RENDER_TEXT, NULL},
        {"Address", "issuer.address", RENDER_TEXT, NULL},
        {"Registration", "issuer.registration", RENDER_TEXT, NULL},
        {"Recipient", "recipient", RENDER_TEXT, NULL},
        {"Given back", "issued_at", RENDER_TIME, NULL},
        {"Reservation", "reservation", RENDER_TEXT, NULL},
        {"Reason", "reason", RENDER_TEXT, NULL},
    };
    render_card(note, head, RENDER_COUNT_OF(head), &c->render, out);
    render_taxes(c, note, out);
}

struct document {
    const char *path;
    invoice_html_fn *page;
    void (*render)(struct cli *c, const json_t *document, struct strbuf *out);
};

/* The document that the command names: as a page with --html, else in the format. */
static int show(struct cli *c, const struct document *d, struct err *err)
{
    char *path = cli_path(d->path, c->opts->args[0], "");
    json_t *reply = NULL;
    struct strbuf out = STRBUF_INIT;
    int rc = cli_get(c, path, &reply, err);
    free(path);
    if (rc < 0)
        return -1;
    if (opt_has(c->opts, "html")) {
        rc = save_page(c, reply, d->page, err);
    } else {
        if (c->render.format == RENDER_JSON)
            render_json(reply, &out);
        else if (c->render.format == RENDER_CSV)
            render_rows(json_object_get(reply, "lines"), line_cols,
                        RENDER_COUNT_OF(line_cols), &c->render, &out);
        else
            d->render(c, reply, &out);
        rc = cli_print(&out, err);
    }
    strbuf_done(&out);
    json_decref(reply);
    return rc;
}

int cmd_invoice_show(struct cli *c, struct err *err)
{
    static const struct document invoice = {"/v1/invoices/", invoice_html,
                                            render_invoice};
    const char *file = opt_get(c->opts, "bundle");
    if (file != NULL && cli_save_bundle(c, "invoice", c->opts->args[0], file, err) != 0)
        return -1;
    if (opt_has(c->opts, "focus"))
        return cli_print_focus(c, c->opts->args[0], err);
    return show(c, &invoice, err);
}

int cmd_credit_note_show(struct cli *c, struct err *err)
{
    static const struct document note = {"/v1/credit-notes/", credit_note_html,
                                         render_note};
    return show(c, &note, err);
}
