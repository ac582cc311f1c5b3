/* /v1/wallet, /v1/usage, /v1/invoices: money and use, as the ledger has them. */
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"
#include "server/flow/request.h"

static void rename_member(json_t *obj, const char *from, const char *to)
{
    json_t *v = json_object_get(obj, from);
    if (v == NULL)
        return;
    json_object_set(obj, to, v);
    json_object_del(obj, from);
}

/* ---- wallet ---- */

static enum flow_turn wallet_read(struct flow *f)
{
    static const char *const names[] = {"limit", NULL};
    const char *text = flow_query(f, "limit");
    int64_t limit = 50;
    struct err err;
    if (flow_query_check(f, names, &err) != 0 ||
        (text != NULL &&
         request_int("limit", text, 1, LIST_PAGE_MAX, &limit, &err) != 0))
        return flow_fail(f, &err);
    return db_call(f, STORE_WALLET,
                   STORE_ARGS(S_TEXT(f->rq->who.tenant_id), S_INT(limit)));
}

static enum flow_turn wallet_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    json_t *reply = render_times(db_of(f)->json), *t;
    const char *currency = json_string_value(json_object_get(reply, "currency"));
    json_t *budget = json_object_get(reply, "budget");
    size_t i;
    if (json_is_object(budget)) {
        render_money(budget, "limit_micro", "limit", currency);
        render_money(budget, "held_micro", "held", currency);
        render_money(budget, "spent_micro", "spent", currency);
        render_money(budget, "committed_micro", "committed", currency);
        json_object_del(budget, "currency");
    }
    json_array_foreach(json_object_get(reply, "transfers"), i, t)
    {
        render_money(t, "amount_micro", "amount", currency);
        rename_member(t, "ref", "reference");
    }
    return flow_reply_json(f, 200, reply);
}

static const struct flow_step wallet_steps[] = {{"read", wallet_read},
                                                {"reply", wallet_reply}};
const struct flow_kind flow_wallet =
    FLOW_KIND_DONE("flow_wallet", struct db_state, wallet_steps, db_done);

/* ---- usage ---- */

static enum flow_turn usage_read(struct flow *f)
{
    static const char *const names[] = {"reservation", "from", "to", NULL};
    const char *id = flow_query(f, "reservation");
    struct store_arg from, to;
    struct db_page page;
    struct err err;
    if (db_page(f, names, &page, &err) != 0 ||
        db_query_time(f, "from", &from, &err) != 0 ||
        db_query_time(f, "to", &to, &err) != 0)
        return flow_fail(f, &err);
    if (id != NULL && !uuid_is_valid(id)) {
        err_set(&err, ERR_BAD_REQUEST, "reservation: not an id");
        return flow_fail(f, &err);
    }
    return db_call(f, STORE_USAGE,
                   STORE_ARGS(S_TEXT(db_tenant_scope(f)), S_TEXT(db_provider_scope(f)),
                              S_TEXT(id), from, to, DB_PAGE(page)));
}

/* "receipts" is their number; the signed texts themselves are in "chain". */
static enum flow_turn usage_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    json_t *reply = render_times(db_of(f)->json), *u;
    size_t i;
    json_array_foreach(json_object_get(reply, "usage"), i, u)
    {
        const char *currency = json_string_value(json_object_get(u, "currency"));
        render_money(u, "amount_micro", "amount", currency);
        json_object_del(u, "currency");
        rename_member(u, "receipts", "chain");
        json_object_set_new(
            u, "receipts",
            json_integer((json_int_t)json_array_size(json_object_get(u, "chain"))));
    }
    return flow_reply_json(f, 200, reply);
}

static const struct flow_step usage_steps[] = {{"read", usage_read},
                                               {"reply", usage_reply}};
const struct flow_kind flow_usage =
    FLOW_KIND_DONE("flow_usage", struct db_state, usage_steps, db_done);

/* ---- invoices ---- */

static void invoice_money(json_t *invoice)
{
    char currency[8] = "";
    const char *c = json_string_value(json_object_get(invoice, "currency"));
    memcpy(currency, c, strnlen(c, sizeof(currency) - 1));
    render_money(invoice, "net_micro", "net", currency);
    render_money(invoice, "tax_micro", "tax", currency);
    render_money(invoice, "total_micro", "total", currency);
    render_taxes(invoice, currency);
    json_t *line;
    size_t i;
    json_array_foreach(json_object_get(invoice, "lines"), i, line)
    {
        render_money(line, "amount_micro", "amount", currency);
        rename_member(line, "quantity_gpu_ms", "gpu_ms");
    }
    json_array_foreach(json_object_get(invoice, "credits"), i, line)
        render_money(line, "amount_micro", "amount", currency);
    json_array_foreach(json_object_get(invoice, "credit_notes"), i, line)
        render_money(line, "total_micro", "total", currency);
}

static enum flow_turn invoices_read(struct flow *f)
{
    static const char *const none[] = {NULL};
    struct db_page page;
    struct err err;
    if (db_page(f, none, &page, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_INVOICE_LIST,
                   STORE_ARGS(S_TEXT(db_tenant_scope(f)), DB_PAGE(page)));
}

static enum flow_turn invoices_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    json_t *reply = render_times(db_of(f)->json), *v;
    size_t i;
    json_array_foreach(json_object_get(reply, "invoices"), i, v) invoice_money(v);
    return flow_reply_json(f, 200, reply);
}

static const struct flow_step invoices_steps[] = {{"read", invoices_read},
                                                  {"reply", invoices_reply}};
const struct flow_kind flow_invoice_list =
    FLOW_KIND_DONE("flow_invoice_list", struct db_state, invoices_steps, db_done);

static enum flow_turn invoice_read(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(
        f, STORE_INVOICE_GET,
        STORE_ARGS(S_TEXT(db_tenant_scope(f)), S_TEXT(flow_param(f, "number"))));
}

/* The printed document (issuer, recipient) is part of the invoice. */
static enum flow_turn invoice_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    json_t *reply = render_times(db_of(f)->json);
    json_t *document = json_object_get(db_of(f)->json, "document");
    json_object_del(reply, "document");
    json_object_set_new(reply, "issuer", render_issuer(document));
    json_object_set(reply, "recipient", json_object_get(document, "recipient"));
    json_object_set(reply, "billing", json_object_get(document, "billing"));
    json_object_set(reply, "zone", json_object_get(document, "zone"));
    invoice_money(reply);
    return flow_reply_json(f, 200, reply);
}

static const struct flow_step invoice_steps[] = {{"read", invoice_read},
                                                 {"reply", invoice_reply}};
const struct flow_kind flow_invoice_get =
    FLOW_KIND_DONE("flow_invoice_get", struct db_state, invoice_steps, db_done);

/* ---- how a tenant is addressed ---- */

#define BILLING_NAME_MAX    200
#define BILLING_ADDRESS_MAX 1000

/* Lines of readable text. */
static bool is_printable(const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++)
        if ((*p < ' ' && *p != '\n') || *p == 0x7f)
            return false;
    return true;
}

static enum flow_turn billing_write(struct flow *f)
{
    struct body {
        const char *name, *address, *language;
    } b = {NULL, NULL, NULL};
    static const struct jsonx_field fields[] = {
        {"name", JSONX_STRING, false, offsetof(struct body, name), 0, BILLING_NAME_MAX},
        {"address", JSONX_STRING, false, offsetof(struct body, address), 0,
         BILLING_ADDRESS_MAX},
        {"language", JSONX_STRING, false, offsetof(struct body, language), 2, 2},
    };
    struct err err;
    if (!db_no_query(f, &err) ||
        (f->rq->body != NULL &&
         jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0))
        return flow_fail(f, &err);
    if (b.language != NULL && strcmp(b.language, "en") != 0 &&
        strcmp(b.language, "ja") != 0) {
        err_set(&err, ERR_BAD_REQUEST, "/language: expected en or ja");
        return flow_fail(f, &err);
    }
    if ((b.name != NULL && (!is_printable(b.name) || strchr(b.name, '\n') != NULL)) ||
        (b.address != NULL && !is_printable(b.address))) {
        err_set(&err, ERR_BAD_REQUEST,
                "/name, /address: expected readable text; only an address has lines");
        return flow_fail(f, &err);
    }
    return db_call(f, STORE_TENANT_BILLING,
                   STORE_ARGS(S_TEXT(f->rq->who.tenant_id), S_TEXT(b.name),
                              S_TEXT(b.address), S_TEXT(b.language)));
}

static enum flow_turn billing_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    return flow_reply_json(f, 200, json_incref(db_of(f)->json));
}

static const struct flow_step billing_steps[] = {{"write", billing_write},
                                                 {"reply", billing_reply}};
const struct flow_kind flow_billing =
    FLOW_KIND_DONE("flow_billing", struct db_state, billing_steps, db_done);

/* ---- charges ---- */

static enum flow_turn charges_read(struct flow *f)
{
    static const char *const names[] = {"invoice", "from", "to", NULL};
    const char *invoice = flow_query(f, "invoice");
    struct store_arg from, to;
    struct db_page page;
    struct err err;
    if (db_page(f, names, &page, &err) != 0 ||
        db_query_time(f, "from", &from, &err) != 0 ||
        db_query_time(f, "to", &to, &err) != 0)
        return flow_fail(f, &err);
    if (invoice != NULL &&
        (flow_query(f, "from") != NULL || flow_query(f, "to") != NULL)) {
        err_set(&err, ERR_BAD_REQUEST, "an invoice has its own period: no from and to");
        return flow_fail(f, &err);
    }
    return db_call(f, STORE_CHARGES,
                   STORE_ARGS(S_TEXT(db_tenant_scope(f)), S_TEXT(invoice), from, to,
                              DB_PAGE(page)));
}

static enum flow_turn charges_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    return flow_reply_json(f, 200, render_times(db_of(f)->json));
}

static const struct flow_step charges_steps[] = {{"read", charges_read},
                                                 {"reply", charges_reply}};
const struct flow_kind flow_charges =
    FLOW_KIND_DONE("flow_charges", struct db_state, charges_steps, db_done);
