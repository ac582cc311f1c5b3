/* /v1/tenants, /v1/whoami: who buys, and with what money. */
#include <inttypes.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/money.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"
#include "server/flow/request.h"
#include "server/flow/secret.h"

#define TOPUP_MICRO_MAX INT64_C(1000000000000000) /* many fit into a balance */

/* ---- create ---- */

struct create {
    struct db_slot db;
    char key[SECRET_TEXT_MAX];
    uint8_t hash[SHA256_LEN];
};

static enum flow_turn create_write(struct flow *f)
{
    struct body {
        const char *name, *zone;
        int64_t credit_micro;
    } b = {NULL, NULL, 0};
    static const struct jsonx_field fields[] = {
        {"name", JSONX_STRING, true, offsetof(struct body, name), 1, NAME_BYTES_MAX},
        {"zone", JSONX_STRING, false, offsetof(struct body, zone), 1, 64},
        {"credit_micro", JSONX_INT, false, offsetof(struct body, credit_micro), 0,
         INT64_C(1) << 60},
    };
    struct create *s = f->state;
    struct db_idem idem;
    struct err err;
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0 ||
        request_name("/name", b.name, &err) != 0)
        return flow_fail(f, &err);
    secret_make(SECRET_API_KEY, s->key, s->hash);
    db_idem(f, &idem);
    return db_call(f, STORE_TENANT_CREATE,
                   STORE_ARGS(S_TEXT(b.name), S_TEXT(b.zone), S_INT(b.credit_micro),
                              S_BYTES(s->hash, SHA256_LEN), DB_IDEM(idem)));
}

static enum flow_turn create_reply(struct flow *f)
{
    struct create *s = f->state;
    if (db_failed(f))
        return db_fail(f);
    const char *id = json_string_value(json_object_get(s->db.json, "id"));
    const char *name = json_string_value(json_object_get(s->db.json, "name"));
    /* A repeated request makes another key for the same tenant: the first answer may
     * not have arrived, and only a key's hash is kept. */
    world_add_key(world_of(f), s->hash, "tenant", id, name);
    return flow_reply_json(
        f, 201,
        json_pack("{s:s, s:s, s:s}", "id", id, "name", name, "api_key", s->key));
}

static const struct flow_step create_steps[] = {{"write", create_write},
                                                {"reply", create_reply}};
const struct flow_kind flow_tenant_create =
    FLOW_KIND_DONE("flow_tenant_create", struct create, create_steps, db_done);

/* ---- change ---- */

#define PRIORITY_MAX 1000

static enum flow_turn patch_write(struct flow *f)
{
    struct body {
        int64_t priority;
    } b;
    static const struct jsonx_field fields[] = {
        {"priority", JSONX_INT, true, offsetof(struct body, priority), -PRIORITY_MAX,
         PRIORITY_MAX},
    };
    struct err err;
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_TENANT_PRIORITY,
                   STORE_ARGS(S_TEXT(flow_param(f, "name")), S_INT(b.priority)));
}

static enum flow_turn patch_reply(struct flow *f)
{
    return db_failed(f) ? db_fail(f)
                        : flow_reply_json(f, 200, render_times(db_of(f)->json));
}

static const struct flow_step patch_steps[] = {{"write", patch_write},
                                               {"reply", patch_reply}};
const struct flow_kind flow_tenant_patch =
    FLOW_KIND_DONE("flow_tenant_patch", struct db_state, patch_steps, db_done);

/* ---- list ---- */

static enum flow_turn list_read(struct flow *f)
{
    static const char *const none[] = {NULL};
    struct db_page page;
    struct err err;
    if (db_page(f, none, &page, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_TENANT_LIST, STORE_ARGS(DB_PAGE(page)));
}

static enum flow_turn list_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    json_t *reply = render_times(db_of(f)->json), *t;
    size_t i;
    json_array_foreach(json_object_get(reply, "tenants"), i, t)
    {
        render_money(t, "available_micro", "balance", world_of(f)->currency);
        render_money(t, "held_micro", "held", world_of(f)->currency);
        json_object_del(t, "currency");
    }
    return flow_reply_json(f, 200, reply);
}

static const struct flow_step list_steps[] = {{"read", list_read},
                                              {"reply", list_reply}};
const struct flow_kind flow_tenant_list =
    FLOW_KIND_DONE("flow_tenant_list", struct db_state, list_steps, db_done);

/* ---- top-up ---- */

/* What can stand on a bank statement: whole minor units, a line of text. */
static int topup_check(int64_t micro, const char *currency, const char *reference,
                       struct err *err)
{
    int64_t unit = 1000000;
    for (int n = money_exponent(currency); n > 0; n--)
        unit /= 10;
    if (micro == 0)
        return err_set(err, ERR_BAD_REQUEST, "/amount/micro: is 0");
    if (micro > TOPUP_MICRO_MAX) {
        char most[MONEY_TEXT_MAX];
        money_format(TOPUP_MICRO_MAX, currency, most);
        return err_set(err, ERR_BAD_REQUEST, "/amount/micro: is more than %s %s", most,
                       currency);
    }
    if (micro % unit != 0)
        return err_set(err, ERR_BAD_REQUEST,
                       "/amount/micro: money arrives in whole minor units of %s",
                       currency);
    for (const char *p = reference; *p != '\0'; p++)
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            return err_set(err, ERR_BAD_REQUEST, "/reference: control character");
    return 0;
}

static enum flow_turn topup_write(struct flow *f)
{
    struct body {
        json_t *amount;
        const char *reference;
    } b = {NULL, ""};
    static const struct jsonx_field fields[] = {
        {"amount", JSONX_OBJECT, true, offsetof(struct body, amount)},
        {"reference", JSONX_STRING, true, offsetof(struct body, reference), 1, 200},
    };
    struct db_idem idem;
    struct err err;
    int64_t micro = 0;
    const char *currency = NULL;
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0)
        return flow_fail(f, &err);
    /* Another currency than the market's is exchanged, at the newest rate. */
    currency = json_string_value(json_object_get(b.amount, "currency"));
    if (currency == NULL || !money_currency_known(currency))
        currency = world_of(f)->currency;
    if (request_money(b.amount, "/amount", currency, &micro, &err) != 0)
        return flow_fail(f, &err);
    if (topup_check(micro, currency, b.reference, &err) != 0)
        return flow_fail(f, &err);
    db_idem(f, &idem);
    return db_call(f, STORE_TOPUP,
                   STORE_ARGS(S_TEXT(flow_param(f, "name")), S_INT(micro),
                              S_TEXT(currency), S_TEXT(b.reference), DB_IDEM(idem)));
}

static enum flow_turn topup_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    json_t *reply = json_object();
    json_object_set(reply, "balance_micro",
                    json_object_get(db_of(f)->json, "balance_micro"));
    render_money(reply, "balance_micro", "balance", world_of(f)->currency);
    return flow_reply_json(f, 200, reply);
}

static const struct flow_step topup_steps[] = {{"write", topup_write},
                                               {"reply", topup_reply}};
const struct flow_kind flow_tenant_topup =
    FLOW_KIND_DONE("flow_tenant_topup", struct db_state, topup_steps, db_done);

/* ---- whoami ---- */

static const char *role_name(enum flow_role role)
{
    switch (role) {
    case ROLE_TENANT: return "tenant";
    case ROLE_PROVIDER: return "provider";
    case ROLE_ADMIN: return "admin";
    case ROLE_AGENT: return "agent";
    case ROLE_ANON:
    case ROLE_WAITING: break;
    }
    return "anonymous";
}

static enum flow_turn whoami_reply(struct flow *f)
{
    const struct flow_principal *who = &f->rq->who;
    const struct world *w = world_of(f);
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    bool tenant = who->role == ROLE_TENANT, provider = who->role == ROLE_PROVIDER;
    return flow_reply_json(f, 200,
                           json_pack("{s:s, s:s, s:o, s:o, s:s, s:s}", "role",
                                     role_name(who->role), "name", who->name, "tenant",
                                     tenant ? json_string(who->name) : json_null(),
                                     "provider",
                                     provider ? json_string(who->name) : json_null(),
                                     "market", w->market, "currency", w->currency));
}

static const struct flow_step whoami_steps[] = {{"reply", whoami_reply}};
const struct flow_kind flow_whoami =
    FLOW_KIND_DONE("flow_whoami", struct db_state, whoami_steps, db_done);
