/* /v1/payouts, /v1/payout-files, /v1/terms, /v1/admins, /v1/bank, /v1/statement: money
 * out to providers, who approves it, and what it needs to be known. Who asked and who
 * approves is decided by the database; the file of a bank is made from its rows, the
 * same each time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "billing/core/zengin.h"
#include "client/lib/b64.h"
#include "client/lib/jsonx.h"
#include "client/lib/xalloc.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"
#include "server/flow/request.h"
#include "server/flow/secret.h"

#define ADDRESS_MAX 500
#define DAYS_MAX_US (INT64_C(3650) * 24 * 3600 * 1000000)

/* Every member NAME_micro, at any depth, as money NAME. */
static void money_of(json_t *v, const char *currency)
{
    json_t *item;
    const char *name;
    void *next;
    size_t i;
    json_array_foreach(v, i, item) money_of(item, currency);
    if (!json_is_object(v))
        return;
    json_object_foreach_safe(v, next, name, item)
    {
        size_t len = strlen(name);
        if (len > 6 && strcmp(name + len - 6, "_micro") == 0) {
            char from[64], to[64];
            snprintf(from, sizeof(from), "%s", name);
            snprintf(to, sizeof(to), "%.*s", (int)(len - 6), name);
            render_money(v, from, to, currency);
        } else {
            money_of(item, currency);
        }
    }
}

static enum flow_turn reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    json_t *out = render_times(db_of(f)->json);
    money_of(out, world_of(f)->currency);
    return flow_reply_json(f, 200, out);
}

/* ---- administrators ---- */

struct admin_new {
    struct db_slot db;
    char key[SECRET_TEXT_MAX];
    uint8_t hash[SHA256_LEN];
};

static enum flow_turn admin_write(struct flow *f)
{
    struct body {
        const char *name;
    } b = {NULL};
    static const struct jsonx_field fields[] = {
        {"name", JSONX_STRING, true, offsetof(struct body, name), 1, NAME_BYTES_MAX},
    };
    struct admin_new *s = f->state;
    struct db_idem idem;
    struct err err;
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0 ||
        request_name("/name", b.name, &err) != 0)
        return flow_fail(f, &err);
    secret_make(SECRET_API_KEY, s->key, s->hash);
    db_idem(f, &idem);
    return db_call(
        f, STORE_ADMIN_CREATE,
        STORE_ARGS(S_TEXT(b.name), S_BYTES(s->hash, SHA256_LEN), DB_IDEM(idem)));
}

/* The key is known to this server with the next turn of the feed. */
static enum flow_turn admin_reply(struct flow *f)
{
    struct admin_new *s = f->state;
    if (db_failed(f))
        return db_fail(f);
    world_poll(world_of(f));
    json_t *out = json_incref(s->db.json);
    json_object_set_new(out, "api_key", json_string(s->key));
    return flow_reply_json(f, 201, out);
}

static const struct flow_step admin_steps[] = {{"write", admin_write},
                                               {"reply", admin_reply}};
const struct flow_kind flow_admin_create =
    FLOW_KIND_DONE("flow_admin_create", struct admin_new, admin_steps, db_done);

static enum flow_turn admins_read(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_ADMIN_LIST, NULL, 0);
}
static const struct flow_step admins_steps[] = {{"read", admins_read},
                                                {"reply", reply}};
const struct flow_kind flow_admin_list =
    FLOW_KIND_DONE("flow_admin_list", struct db_state, admins_steps, db_done);

static enum flow_turn admin_gone(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_ADMIN_REMOVE,
                   STORE_ARGS(S_TEXT(flow_param(f, "name")), S_TEXT(f->rq->who.name)));
}
static const struct flow_step admin_gone_steps[] = {{"write", admin_gone},
                                                    {"reply", reply}};
const struct flow_kind flow_admin_remove =
    FLOW_KIND_DONE("flow_admin_remove", struct db_state, admin_gone_steps, db_done);

/* ---- terms ---- */

static enum flow_turn terms_read(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_MARKET_TERMS, NULL, 0);
}
static const struct flow_step terms_steps[] = {{"read", terms_read}, {"reply", reply}};
const struct flow_kind flow_terms_get =
    FLOW_KIND_DONE("flow_terms_get", struct db_state, terms_steps, db_done);

static enum flow_turn terms_write(struct flow *f)
{
    struct body {
        int64_t window_us, reserve_ppm, reserve_us, hold_us;
        json_t *bank;
        const char *address;
    } b = {-1, -1, -1, -1, NULL, NULL};
    static const struct jsonx_field fields[] = {
        {"dispute_window", JSONX_DURATION, false, offsetof(struct body, window_us), 0,
         DAYS_MAX_US},
        {"reserve_ppm", JSONX_INT, false, offsetof(struct body, reserve_ppm), 0,
         1000000},
        {"reserve_for", JSONX_DURATION, false, offsetof(struct body, reserve_us), 0,
         DAYS_MAX_US},
        {"hold_window", JSONX_DURATION, false, offsetof(struct body, hold_us), 0,
         DAYS_MAX_US},
        {"bank", JSONX_OBJECT, false, offsetof(struct body, bank)},
        {"issuer_address", JSONX_STRING, false, offsetof(struct body, address), 0,
         ADDRESS_MAX},
    };
    struct err err;
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0)
        return flow_fail(f, &err);
    return db_call(
        f, STORE_MARKET_SET,
        STORE_ARGS(b.window_us >= 0 ? S_INT(b.window_us / 1000000) : S_NULL,
                   b.reserve_ppm >= 0 ? S_INT(b.reserve_ppm) : S_NULL,
                   b.reserve_us >= 0 ? S_INT(b.reserve_us / 1000000) : S_NULL,
                   b.bank != NULL ? S_JSON(b.bank) : S_NULL,
                   b.hold_us >= 0 ? S_INT(b.hold_us) : S_NULL, S_TEXT(b.address)));
}
static const struct flow_step terms_set_steps[] = {{"write", terms_write},
                                                   {"reply", reply}};
const struct flow_kind flow_terms_set =
    FLOW_KIND_DONE("flow_terms_set", struct db_state, terms_set_steps, db_done);

static enum flow_turn bank_write(struct flow *f)
{
    struct body {
        json_t *bank;
        const char *registration;
    } b = {NULL, NULL};
    static const struct jsonx_field fields[] = {
        {"bank", JSONX_OBJECT, false, offsetof(struct body, bank)},
        {"registration", JSONX_STRING, false, offsetof(struct body, registration), 1,
         20},
    };
    struct err err;
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_PROVIDER_BANK,
                   STORE_ARGS(S_TEXT(f->rq->who.provider_id),
                              b.bank != NULL ? S_JSON(b.bank) : S_NULL,
                              S_TEXT(b.registration)));
}
static const struct flow_step bank_steps[] = {{"write", bank_write}, {"reply", reply}};
const struct flow_kind flow_bank_set =
    FLOW_KIND_DONE("flow_bank_set", struct db_state, bank_steps, db_done);

static enum flow_turn bank_read(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_PROVIDER_TERMS, STORE_ARGS(S_TEXT(f->rq->who.provider_id)));
}
static const struct flow_step bank_get_steps[] = {{"read", bank_read},
                                                  {"reply", reply}};
const struct flow_kind flow_bank_get =
    FLOW_KIND_DONE("flow_bank_get", struct db_state, bank_get_steps, db_done);

/* null: the market's again. */
static enum flow_turn provider_write(struct flow *f)
{
    struct body {
        int64_t reserve_ppm;
    } b = {-1};
    static const struct jsonx_field fields[] = {
        {"reserve_ppm", JSONX_INT, false, offsetof(struct body, reserve_ppm), 0,
         1000000},
    };
    struct err err;
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_PROVIDER_RESERVE,
                   STORE_ARGS(S_TEXT(flow_param(f, "name")),
                              b.reserve_ppm >= 0 ? S_INT(b.reserve_ppm) : S_NULL));
}
static const struct flow_step provider_steps[] = {{"write", provider_write},
                                                  {"reply", reply}};
const struct flow_kind flow_provider_patch =
    FLOW_KIND_DONE("flow_provider_patch", struct db_state, provider_steps, db_done);

/* ---- payouts ---- */

static enum flow_turn payouts_read(struct flow *f)
{
    static const char *const none[] = {NULL};
    struct db_page page;
    struct err err;
    int64_t id;
    if (db_page(f, none, &page, &err) != 0 ||
        (page.cursor != NULL &&
         request_int("cursor", page.cursor, 0, INT64_MAX, &id, &err) != 0))
        return flow_fail(f, &err);
    return db_call(f, STORE_PAYOUT_LIST,
                   STORE_ARGS(S_TEXT(db_provider_scope(f)), DB_PAGE(page)));
}
static const struct flow_step payouts_steps[] = {{"read", payouts_read},
                                                 {"reply", reply}};
const struct flow_kind flow_payout_list =
    FLOW_KIND_DONE("flow_payout_list", struct db_state, payouts_steps, db_done);

static enum flow_turn payout_write(struct flow *f)
{
    struct body {
        const char *provider;
        json_t *amount;
    } b = {NULL, NULL};
    static const struct jsonx_field fields[] = {
        {"provider", JSONX_STRING, true, offsetof(struct body, provider), 1,
         NAME_BYTES_MAX},
        {"amount", JSONX_OBJECT, false, offsetof(struct body, amount)},
    };
    struct db_idem idem;
    struct err err;
    int64_t micro = 0;
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0 ||
        (b.amount != NULL &&
         request_money(b.amount, "/amount", world_of(f)->currency, &micro, &err) != 0))
        return flow_fail(f, &err);
    db_idem(f, &idem);
    return db_call(f, STORE_PAYOUT_REQUEST,
                   STORE_ARGS(S_TEXT(b.provider),
                              b.amount != NULL ? S_INT(micro) : S_NULL, DB_IDEM(idem),
                              S_TEXT(f->rq->who.name)));
}
static const struct flow_step payout_steps[] = {{"write", payout_write},
                                                {"reply", reply}};
const struct flow_kind flow_payout_request =
    FLOW_KIND_DONE("flow_payout_request", struct db_state, payout_steps, db_done);

static enum flow_turn act_write(struct flow *f)
{
    struct body {
        const char *act, *reason;
    } b = {NULL, NULL};
    static const struct jsonx_field fields[] = {
        {"act", JSONX_STRING, true, offsetof(struct body, act), 1, 20},
        {"reason", JSONX_STRING, false, offsetof(struct body, reason), 1, 200},
    };
    static const char *const acts[] = {"approve", "reject", "done", "returned"};
    struct err err;
    int64_t id;
    bool known = false;
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0 ||
        request_int("id", flow_param(f, "id"), 1, INT64_MAX, &id, &err) != 0)
        return flow_fail(f, &err);
    for (size_t i = 0; i < 4; i++)
        known = known || strcmp(b.act, acts[i]) == 0;
    if (!known) {
        err_set(&err, ERR_BAD_REQUEST,
                "/act: approve, reject, done and returned are known");
        return flow_fail(f, &err);
    }
    return db_call(f, STORE_PAYOUT_ACT,
                   STORE_ARGS(S_INT(id), S_TEXT(b.act), S_TEXT(b.reason),
                              S_TEXT(f->rq->who.name)));
}
static const struct flow_step act_steps[] = {{"write", act_write}, {"reply", reply}};
const struct flow_kind flow_payout_act =
    FLOW_KIND_DONE("flow_payout_act", struct db_state, act_steps, db_done);

/* ---- files ---- */

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

/* For banks elsewhere: what to pay to whom. */
static void csv_of(const json_t *file, struct strbuf *out)
{
    const json_t *p;
    size_t i;
    strbuf_adds(out, "payout,provider,currency,amount_micro\r\n");
    json_array_foreach(json_object_get(file, "payouts"), i, p) strbuf_addf(
        out, "%lld,%s,%s,%lld\r\n", (long long)int_of(p, "id"), text_of(p, "provider"),
        text_of(p, "currency"), (long long)int_of(p, "amount_micro"));
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
    money_of(out, world_of(f)->currency);
    json_object_set_new(out, "format", json_string(yen ? "zengin" : "csv"));
    json_object_set_new(out, "data", json_string(strbuf_str(&text)));
    strbuf_done(&text);
    strbuf_done(&data);
    return flow_reply_json(f, 200, out);
}

static bool is_day(const char *text)
{
    static const char form[] = "dddd-dd-dd";
    if (strlen(text) != sizeof(form) - 1)
        return false;
    for (size_t i = 0; form[i] != '\0'; i++)
        if (form[i] == '-' ? text[i] != '-' : text[i] < '0' || text[i] > '9')
            return false;
    int month = (text[5] - '0') * 10 + text[6] - '0',
        day = (text[8] - '0') * 10 + text[9] - '0';
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return month >= 1 && month <= 12 && day >= 1 && day <= days[month - 1];
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
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0)
        return flow_fail(f, &err);
    if (!is_day(b.pay_on)) {
        err_set(&err, ERR_BAD_REQUEST, "/pay_on: is no day such as 2026-11-30");
        return flow_fail(f, &err);
    }
    db_idem(f, &idem);
    return db_call(
        f, STORE_PAYOUT_FILE_NEW,
        STORE_ARGS(S_TEXT(b.pay_on), DB_IDEM(idem), S_TEXT(f->rq->who.name)));
}
static const struct flow_step file_steps[] = {{"write", file_write},
                                              {"reply", file_reply}};
const struct flow_kind flow_payout_file_new =
    FLOW_KIND_DONE("flow_payout_file_new", struct db_state, file_steps, db_done);

static enum flow_turn file_read(struct flow *f)
{
    struct err err;
    int64_t id;
    if (!db_no_query(f, &err) ||
        request_int("id", flow_param(f, "id"), 1, INT64_MAX, &id, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_PAYOUT_FILE_GET, STORE_ARGS(S_INT(id)));
}
static const struct flow_step file_get_steps[] = {{"read", file_read},
                                                  {"reply", file_reply}};
const struct flow_kind flow_payout_file_get =
    FLOW_KIND_DONE("flow_payout_file_get", struct db_state, file_get_steps, db_done);

/* ---- statement ---- */

static enum flow_turn statement_read(struct flow *f)
{
    static const char *const names[] = {"month", NULL};
    const char *month = flow_query(f, "month");
    char day[16];
    struct err err;
    if (flow_query_check(f, names, &err) != 0)
        return flow_fail(f, &err);
    snprintf(day, sizeof(day), "%.8s-01", month != NULL ? month : "");
    if (month == NULL || !is_day(day)) {
        err_set(&err, ERR_BAD_REQUEST, "month: is needed, such as 2026-11");
        return flow_fail(f, &err);
    }
    return db_call(f, STORE_STATEMENT,
                   STORE_ARGS(S_TEXT(f->rq->who.provider_id), S_TEXT(month)));
}
static const struct flow_step statement_steps[] = {{"read", statement_read},
                                                   {"reply", reply}};
const struct flow_kind flow_statement =
    FLOW_KIND_DONE("flow_statement", struct db_state, statement_steps, db_done);
