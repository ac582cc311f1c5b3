/* Refunds, credit notes, disputes and withdrawals: money that goes back to tenants. */
#include <string.h>

#include "client/lib/jsonx.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"
#include "server/flow/request.h"

static void note_money(json_t *note)
{
    const char *c = json_string_value(json_object_get(note, "currency"));
    char currency[8] = "";
    json_t *line;
    size_t i;
    if (c != NULL)
        memcpy(currency, c, strnlen(c, sizeof(currency) - 1));
    render_money(note, "net_micro", "net", currency);
    render_money(note, "tax_micro", "tax", currency);
    render_money(note, "total_micro", "total", currency);
    render_taxes(note, currency);
    json_array_foreach(json_object_get(note, "lines"), i, line)
        render_money(line, "amount_micro", "amount", currency);
}

static enum flow_turn notes_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    json_t *reply = render_times(db_of(f)->json), *n;
    size_t i;
    json_array_foreach(json_object_get(reply, "credit_notes"), i, n) note_money(n);
    return flow_reply_json(f, 200, reply);
}

static int reservation_of(const struct flow *f, const char **ret, struct err *err)
{
    *ret = flow_param(f, "id");
    return uuid_is_valid(*ret) ? 0
                               : err_set(err, ERR_BAD_REQUEST,
                                         "id: not a "
                                         "reservation's");
}

/* ---- refund ---- */

static enum flow_turn refund_write(struct flow *f)
{
    struct body {
        json_t *amount;
        bool all;
        const char *reason, *by;
    } b = {NULL, false, NULL, "provider"};
    static const struct jsonx_field fields[] = {
        {"amount", JSONX_OBJECT, false, offsetof(struct body, amount)},
        {"all", JSONX_BOOL, false, offsetof(struct body, all)},
        {"reason", JSONX_STRING, true, offsetof(struct body, reason), 1, 200},
        {"by", JSONX_STRING, false, offsetof(struct body, by), 1, 20},
    };
    struct db_idem idem;
    struct err err;
    const char *id;
    int64_t micro = 0;
    if (!db_no_query(f, &err) || reservation_of(f, &id, &err) != 0 ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0 ||
        (b.amount != NULL &&
         request_money(b.amount, "/amount", world_of(f)->currency, &micro, &err) != 0))
        return flow_fail(f, &err);
    if (b.all == (b.amount != NULL) ||
        (strcmp(b.by, "provider") != 0 && strcmp(b.by, "market") != 0)) {
        err_set(&err, ERR_BAD_REQUEST,
                b.all == (b.amount != NULL) ? "/amount: either an amount or all"
                                            : "/by: provider or market");
        return flow_fail(f, &err);
    }
    db_idem(f, &idem);
    return db_call(f, STORE_REFUND,
                   STORE_ARGS(S_TEXT(id), b.all ? S_NULL : S_INT(micro),
                              S_TEXT(b.reason), S_TEXT(b.by), DB_IDEM(idem),
                              S_TEXT(f->rq->who.name)));
}
static const struct flow_step refund_steps[] = {{"write", refund_write},
                                                {"reply", notes_reply}};
const struct flow_kind flow_refund =
    FLOW_KIND_DONE("flow_refund", struct db_state, refund_steps, db_done);

/* ---- credit notes ---- */

static enum flow_turn notes_read(struct flow *f)
{
    static const char *const none[] = {NULL};
    struct db_page page;
    struct err err;
    if (db_page(f, none, &page, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_CREDIT_NOTE_LIST,
                   STORE_ARGS(S_TEXT(db_tenant_scope(f)), DB_PAGE(page)));
}
static const struct flow_step notes_steps[] = {{"read", notes_read},
                                               {"reply", notes_reply}};
const struct flow_kind flow_credit_note_list =
    FLOW_KIND_DONE("flow_credit_note_list", struct db_state, notes_steps, db_done);

static enum flow_turn note_read(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(
        f, STORE_CREDIT_NOTE_GET,
        STORE_ARGS(S_TEXT(db_tenant_scope(f)), S_TEXT(flow_param(f, "number"))));
}

/* The printed document (issuer, recipient) is part of it, as of an invoice. */
static enum flow_turn note_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    json_t *reply = render_times(db_of(f)->json);
    const json_t *document = json_object_get(db_of(f)->json, "document");
    json_object_set_new(reply, "issuer", render_issuer(document));
    json_object_set(reply, "billing", json_object_get(document, "billing"));
    json_object_set(reply, "recipient", json_object_get(document, "recipient"));
    json_object_set(reply, "zone", json_object_get(document, "zone"));
    json_object_del(reply, "document");
    note_money(reply);
    return flow_reply_json(f, 200, reply);
}
static const struct flow_step note_steps[] = {{"read", note_read},
                                              {"reply", note_reply}};
const struct flow_kind flow_credit_note_get =
    FLOW_KIND_DONE("flow_credit_note_get", struct db_state, note_steps, db_done);

/* ---- disputes ---- */

static enum flow_turn plain_reply(struct flow *f)
{
    return db_failed(f) ? db_fail(f)
                        : flow_reply_json(f, 200, render_times(db_of(f)->json));
}

static enum flow_turn dispute_write(struct flow *f)
{
    struct body {
        const char *reason;
    } b = {NULL};
    static const struct jsonx_field fields[] = {
        {"reason", JSONX_STRING, true, offsetof(struct body, reason), 1, 200},
    };
    struct err err;
    const char *id;
    if (!db_no_query(f, &err) || reservation_of(f, &id, &err) != 0 ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_DISPUTE_OPEN,
                   STORE_ARGS(S_TEXT(db_tenant_scope(f)), S_TEXT(id), S_TEXT(b.reason),
                              S_TEXT(f->rq->who.name)));
}
static const struct flow_step dispute_steps[] = {{"write", dispute_write},
                                                 {"reply", plain_reply}};
const struct flow_kind flow_dispute_open =
    FLOW_KIND_DONE("flow_dispute_open", struct db_state, dispute_steps, db_done);

static enum flow_turn dispute_end(struct flow *f)
{
    struct err err;
    const char *id;
    if (!db_no_query(f, &err) || reservation_of(f, &id, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_DISPUTE_CLOSE,
                   STORE_ARGS(S_TEXT(id), S_TEXT(f->rq->who.name)));
}
static const struct flow_step dispute_end_steps[] = {{"write", dispute_end},
                                                     {"reply", plain_reply}};
const struct flow_kind flow_dispute_close =
    FLOW_KIND_DONE("flow_dispute_close", struct db_state, dispute_end_steps, db_done);

/* ---- withdrawals ---- */

static enum flow_turn withdraw_write(struct flow *f)
{
    struct body {
        json_t *amount;
        const char *reference;
    } b = {NULL, NULL};
    static const struct jsonx_field fields[] = {
        {"amount", JSONX_OBJECT, true, offsetof(struct body, amount)},
        {"reference", JSONX_STRING, false, offsetof(struct body, reference), 1, 200},
    };
    struct db_idem idem;
    struct err err;
    int64_t micro = 0;
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0 ||
        request_money(b.amount, "/amount", world_of(f)->currency, &micro, &err) != 0)
        return flow_fail(f, &err);
    db_idem(f, &idem);
    return db_call(f, STORE_WITHDRAW,
                   STORE_ARGS(S_TEXT(flow_param(f, "name")), S_INT(micro),
                              S_TEXT(b.reference), DB_IDEM(idem)));
}

static enum flow_turn withdraw_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    json_t *reply = json_object();
    json_object_set(reply, "balance_micro",
                    json_object_get(db_of(f)->json, "balance_micro"));
    render_money(reply, "balance_micro", "balance", world_of(f)->currency);
    return flow_reply_json(f, 200, reply);
}
static const struct flow_step withdraw_steps[] = {{"write", withdraw_write},
                                                  {"reply", withdraw_reply}};
const struct flow_kind flow_withdraw =
    FLOW_KIND_DONE("flow_withdraw", struct db_state, withdraw_steps, db_done);
