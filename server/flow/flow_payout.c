/* /v1/payouts, /v1/terms, /v1/bank, /v1/statement: money out to providers, who approves
 * it, and what it needs to be known. Who asked and who approves is decided by the
 * database. Banks' files stand in flow_payout_file.c. */
#include <stdio.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/request.h"

#define ADDRESS_MAX 500
#define DAYS_MAX_US (INT64_C(3650) * 24 * 3600 * 1000000)

/* ---- terms ---- */

static enum flow_turn terms_read(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_MARKET_TERMS, NULL, 0);
}
DB_FLOW(flow_terms_get, "read", terms_read, db_reply);

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
    if (!DB_BODY(f, fields, &b, &err))
        return flow_fail(f, &err);
    return db_call(
        f, STORE_MARKET_SET,
        STORE_ARGS(b.window_us >= 0 ? S_INT(b.window_us / 1000000) : S_NULL,
                   b.reserve_ppm >= 0 ? S_INT(b.reserve_ppm) : S_NULL,
                   b.reserve_us >= 0 ? S_INT(b.reserve_us / 1000000) : S_NULL,
                   b.bank != NULL ? S_JSON(b.bank) : S_NULL,
                   b.hold_us >= 0 ? S_INT(b.hold_us) : S_NULL, S_TEXT(b.address)));
}
DB_FLOW(flow_terms_set, "write", terms_write, db_reply);

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
    if (!DB_BODY(f, fields, &b, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_PROVIDER_BANK,
                   STORE_ARGS(S_TEXT(f->rq->who.provider_id),
                              b.bank != NULL ? S_JSON(b.bank) : S_NULL,
                              S_TEXT(b.registration)));
}
DB_FLOW(flow_bank_set, "write", bank_write, db_reply);

static enum flow_turn bank_read(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_PROVIDER_TERMS, STORE_ARGS(S_TEXT(f->rq->who.provider_id)));
}
DB_FLOW(flow_bank_get, "read", bank_read, db_reply);

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
    if (!DB_BODY(f, fields, &b, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_PROVIDER_RESERVE,
                   STORE_ARGS(S_TEXT(flow_param(f, "name")),
                              b.reserve_ppm >= 0 ? S_INT(b.reserve_ppm) : S_NULL));
}
DB_FLOW(flow_provider_patch, "write", provider_write, db_reply);

/* ---- payouts ---- */

static enum flow_turn payouts_read(struct flow *f)
{
    struct db_page page;
    struct err err;
    if (db_page_by_number(f, &page, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_PAYOUT_LIST,
                   STORE_ARGS(S_TEXT(db_provider_scope(f)), DB_PAGE(page)));
}
DB_FLOW(flow_payout_list, "read", payouts_read, db_reply);

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
    if (!DB_BODY(f, fields, &b, &err) ||
        (b.amount != NULL &&
         request_money(b.amount, "/amount", world_of(f)->currency, &micro, &err) != 0))
        return flow_fail(f, &err);
    db_idem(f, &idem);
    return db_call(f, STORE_PAYOUT_REQUEST,
                   STORE_ARGS(S_TEXT(b.provider),
                              b.amount != NULL ? S_INT(micro) : S_NULL, DB_IDEM(idem),
                              S_TEXT(f->rq->who.name)));
}
DB_FLOW(flow_payout_request, "write", payout_write, db_reply);

struct act {
    const char *act, *reason, *fee_by;
    json_t *amount, *fee;
    int64_t amount_micro, fee_micro;
};

static int read_act(const struct flow *f, struct act *a, struct err *err)
{
    static const char *const acts[] = {"approve", "reject", "done", "returned"};
    const char *currency = world_of(f)->currency;
    bool known = false;
    for (size_t i = 0; i < 4; i++)
        known = known || strcmp(a->act, acts[i]) == 0;
    if (!known)
        return err_set(err, ERR_BAD_REQUEST,
                       "/act: approve, reject, done and returned are known");
    if (a->fee_by != NULL && strcmp(a->fee_by, "provider") != 0 &&
        strcmp(a->fee_by, "market") != 0)
        return err_set(err, ERR_BAD_REQUEST, "/fee_by: provider or market");
    if ((a->amount != NULL &&
         request_money(a->amount, "/amount", currency, &a->amount_micro, err) != 0) ||
        (a->fee != NULL &&
         request_money(a->fee, "/fee", currency, &a->fee_micro, err) != 0))
        return -1;
    return a->fee_micro >= 0 ? 0
                             : err_set(err, ERR_BAD_REQUEST, "/fee: is less than none");
}

static enum flow_turn act_write(struct flow *f)
{
    static const struct jsonx_field fields[] = {
        {"act", JSONX_STRING, true, offsetof(struct act, act), 1, 20},
        {"reason", JSONX_STRING, false, offsetof(struct act, reason), 1, 200},
        {"amount", JSONX_OBJECT, false, offsetof(struct act, amount)},
        {"fee", JSONX_OBJECT, false, offsetof(struct act, fee)},
        {"fee_by", JSONX_STRING, false, offsetof(struct act, fee_by), 1, 20},
    };
    struct act a = {0};
    struct err err;
    int64_t id;
    if (!DB_BODY(f, fields, &a, &err) || read_act(f, &a, &err) != 0 ||
        request_int("id", flow_param(f, "id"), 1, INT64_MAX, &id, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_PAYOUT_ACT,
                   STORE_ARGS(S_INT(id), S_TEXT(a.act), S_TEXT(a.reason),
                              a.amount != NULL ? S_INT(a.amount_micro) : S_NULL,
                              a.fee != NULL ? S_INT(a.fee_micro) : S_NULL,
                              S_TEXT(a.fee_by), S_TEXT(f->rq->who.name)));
}
DB_FLOW(flow_payout_act, "write", act_write, db_reply);

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
    if (month == NULL || !timefmt_is_day(day)) {
        err_set(&err, ERR_BAD_REQUEST,
                month == NULL ? "month: is needed, such as 2026-11"
                              : "month: '%.20s' is no month: YYYY-MM, such as 2026-11",
                month);
        return flow_fail(f, &err);
    }
    return db_call(f, STORE_STATEMENT,
                   STORE_ARGS(S_TEXT(f->rq->who.provider_id), S_TEXT(month)));
}
DB_FLOW(flow_statement, "read", statement_read, db_reply);
