/* /v1/payout-files, /v1/payout-results: the file that asks a bank to pay, and the file
 * in which it says what became of it. The first is made from the database's rows, the
 * same each time; the second is read by billing/core/bankresult, and the database does
 * all of it or nothing. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "billing/core/bankresult.h"
#include "billing/core/zengin.h"
#include "client/lib/b64.h"
#include "client/lib/bounds.h"
#include "client/lib/jsonx.h"
#include "client/lib/money.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"
#include "server/flow/request.h"

/* ---- what to pay ---- */

static const char *text_of(const json_t *obj, const char *name)
{
    const char *text = json_string_value(json_object_get(obj, name));
    return text != NULL ? text : "";
}

static struct zengin_account account_of(const json_t *bank)
{
    return (struct zengin_account){.bank = text_of(bank, "bank"),
                                   .bank_name = text_of(bank, "bank_name"),
                                   .branch = text_of(bank, "branch"),
                                   .branch_name = text_of(bank, "branch_name"),
                                   .type = text_of(bank, "type"),
                                   .number = text_of(bank, "number"),
                                   .holder = text_of(bank, "holder")};
}

static int64_t int_of(const json_t *obj, const char *name)
{
    return json_integer_value(json_object_get(obj, name));
}

static int zengin_of(const json_t *file, struct strbuf *out, struct err *err)
{
    const json_t *list = json_object_get(file, "payouts"),
                 *bank = json_object_get(file, "bank"), *p;
    const char *day = text_of(file, "pay_on"); /* YYYY-MM-DD */
    size_t i, count = json_array_size(list);
    struct zengin_account from = account_of(bank);
    struct zengin_payment *payments = xcalloc(count + 1, sizeof(*payments));
    json_array_foreach(list, i, p)
    {
        payments[i].to = account_of(json_object_get(p, "bank"));
        payments[i].yen = int_of(p, "amount_micro") / 1000000;
        payments[i].payment = int_of(p, "id");
    }
    int month = strlen(day) == 10 ? (day[5] - '0') * 10 + day[6] - '0' : 0;
    int mday = strlen(day) == 10 ? (day[8] - '0') * 10 + day[9] - '0' : 0;
    int rc = zengin_file(&from, text_of(bank, "client"), month, mday, payments, count,
                         true, out, err);
    free(payments);
    return rc;
}

/* What may be in it (ng.is_bank_latin) has a comma at worst. */
static void put_field(struct strbuf *out, const char *text, const char *end)
{
    bool quote = strchr(text, ',') != NULL;
    strbuf_addf(out, quote ? "\"%s\"%s" : "%s%s", text, end);
}

/* For banks elsewhere: what to pay to whom. */
static void csv_of(const json_t *file, struct strbuf *out)
{
    static const char *const names[] = {"holder", "iban", "bic", "account",
                                        "bank_name"};
    const json_t *p;
    size_t i;
    strbuf_adds(
        out, "payout,provider,currency,amount,holder,iban,bic,account,bank_name\r\n");
    json_array_foreach(json_object_get(file, "payouts"), i, p)
    {
        char amount[MONEY_TEXT_MAX];
        money_format(int_of(p, "amount_micro"), text_of(p, "currency"), amount);
        strbuf_addf(out, "%lld,%s,%s,%s,", (long long)int_of(p, "id"),
                    text_of(p, "provider"), text_of(p, "currency"), amount);
        for (size_t k = 0; k < 5; k++)
            put_field(out, text_of(json_object_get(p, "bank"), names[k]),
                      k < 4 ? "," : "\r\n");
    }
}

static enum flow_turn file_reply(struct flow *f)
{
    struct strbuf data = STRBUF_INIT;
    struct err err;
    if (db_failed(f))
        return db_fail(f);
    const json_t *file = db_of(f)->json;
    bool yen = strcmp(text_of(file, "currency"), "JPY") == 0;
    if (yen && zengin_of(file, &data, &err) != 0) {
        strbuf_done(&data);
        return flow_fail(f, &err);
    }
    if (!yen)
        csv_of(file, &data);
    struct strbuf text = STRBUF_INIT;
    b64_encode_to(&text, data.data, data.len);
    json_t *out = render_times(file);
    render_all_money(out, world_of(f)->currency);
    json_object_set_new(out, "format", json_string(yen ? "zengin" : "csv"));
    json_object_set_new(out, "data", json_string(strbuf_str(&text)));
    strbuf_done(&text);
    strbuf_done(&data);
    return flow_reply_json(f, 200, out);
}

static enum flow_turn file_write(struct flow *f)
{
    struct body {
        const char *pay_on;
    } b = {NULL};
    static const struct jsonx_field fields[] = {
        {"pay_on", JSONX_STRING, true, offsetof(struct body, pay_on), 10, 10},
    };
    struct db_idem idem;
    struct err err;
    if (!DB_BODY(f, fields, &b, &err))
        return flow_fail(f, &err);
    if (!timefmt_is_day(b.pay_on)) {
        err_set(&err, ERR_BAD_REQUEST, "/pay_on: is no day such as 2026-11-30");
        return flow_fail(f, &err);
    }
    db_idem(f, &idem);
    return db_call(
        f, STORE_PAYOUT_FILE_NEW,
        STORE_ARGS(S_TEXT(b.pay_on), DB_IDEM(idem), S_TEXT(f->rq->who.name)));
}
DB_FLOW(flow_payout_file_new, "write", file_write, file_reply);

static enum flow_turn file_read(struct flow *f)
{
    struct err err;
    int64_t id;
    if (!db_no_query(f, &err) ||
        request_int("id", flow_param(f, "id"), 1, INT64_MAX, &id, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_PAYOUT_FILE_GET, STORE_ARGS(S_INT(id)));
}
DB_FLOW(flow_payout_file_get, "read", file_read, file_reply);

/* ---- results ---- */

static json_t *text_or_null(const char *text)
{
    return *text != '\0' ? json_string(text) : json_null();
}

static json_t *rows_of(const struct bankresult *r)
{
    json_t *rows = json_array();
    for (size_t i = 0; i < r->count; i++) {
        const struct bankresult_row *row = &r->rows[i];
        json_t *o = json_pack(
            "{s:i, s:s, s:s, s:o, s:o, s:o, s:o, s:o}", "line", row->line, "state",
            row->returned ? "returned" : "done", "reason", row->reason, "on",
            text_or_null(row->on), "bank", text_or_null(row->bank), "branch",
            text_or_null(row->branch), "type", text_or_null(row->type), "number",
            text_or_null(row->number));
        json_object_set_new(o, "payout",
                            row->payout > 0 ? json_integer(row->payout) : json_null());
        json_object_set_new(o, "amount_micro",
                            row->amount_micro >= 0 ? json_integer(row->amount_micro)
                                                   : json_null());
        json_array_append_new(rows, o);
    }
    return rows;
}

/* The file's bytes out of the body's text, and what they say. */
static int read_results(const char *text, struct bankresult *ret,
                        uint8_t hash[SHA256_LEN], struct err *err)
{
    size_t cap = B64_DEC_MAX(strlen(text)) + 1;
    uint8_t *data = xcalloc(1, cap);
    ptrdiff_t len = b64_decode(text, strlen(text), data, cap);
    int rc = len <= 0 ? err_set(err, ERR_BAD_REQUEST, "/data: is no file in base64url")
                      : bankresult_parse((const char *)data, (size_t)len, ret, err);
    if (rc == 0)
        digest_sha256(data, (size_t)len, hash);
    free(data);
    return rc;
}

static enum flow_turn results_write(struct flow *f)
{
    struct body {
        const char *data;
    } b = {NULL};
    static const struct jsonx_field fields[] = {
        {"data", JSONX_STRING, true, offsetof(struct body, data), 1, HTTP_BODY_MAX},
    };
    struct bankresult r;
    struct db_idem idem;
    struct err err;
    uint8_t hash[SHA256_LEN];
    if (!DB_BODY(f, fields, &b, &err) || read_results(b.data, &r, hash, &err) != 0)
        return flow_fail(f, &err);
    json_t *rows = rows_of(&r);
    db_idem(f, &idem);
    enum flow_turn turn = db_call(f, STORE_PAYOUT_RESULTS,
                                  STORE_ARGS(S_TEXT(r.zengin ? "zengin" : "csv"),
                                             r.zengin ? S_TEXT(r.client) : S_NULL,
                                             S_BYTES(hash, SHA256_LEN), S_JSON(rows),
                                             DB_IDEM(idem), S_TEXT(f->rq->who.name)));
    json_decref(rows);
    bankresult_done(&r);
    return turn;
}
DB_FLOW(flow_payout_results, "write", results_write, db_reply);

static enum flow_turn results_read(struct flow *f)
{
    struct db_page page;
    struct err err;
    if (db_page_by_number(f, &page, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_PAYOUT_RESULT_LIST, STORE_ARGS(DB_PAGE(page)));
}
DB_FLOW(flow_payout_result_list, "read", results_read, db_reply);
