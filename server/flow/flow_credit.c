/* /v1/budget, /v1/promos, /v1/incidents, /v1/fx: limits that tenants set themselves,
 * credit that is given, what went wrong and what is paid for it, rates of exchange.
 * Bodies are checked and everything is decided in sql/api/credit.sql; this names who
 * asks, and says money as the wire does. */
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"

#define CREDIT_KIND(name, ask, answer)                                  \
    static const struct flow_step name##_steps[] = {{"write", ask},     \
                                                    {"reply", answer}}; \
    const struct flow_kind flow_##name =                                \
        FLOW_KIND_DONE("flow_" #name, struct db_state, name##_steps, db_done)

/* Every sum that these answers have, under its wire name. */
static void name_money(json_t *obj)
{
    static const char *const sums[] = {"limit",     "held",   "spent",
                                       "committed", "amount", "used",
                                       "expired",   "left",   "credited"};
    char currency[8] = "", micro[32];
    const char *c = json_string_value(json_object_get(obj, "currency"));
    if (c == NULL)
        return;
    memcpy(currency, c, strnlen(c, sizeof(currency) - 1));
    for (size_t i = 0; i < sizeof(sums) / sizeof(sums[0]); i++) {
        snprintf(micro, sizeof(micro), "%s_micro", sums[i]);
        if (json_object_get(obj, micro) != NULL)
            render_money(obj, micro, sums[i], currency);
    }
    json_object_del(obj, "currency");
}

static enum flow_turn credit_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    json_t *reply = render_times(db_of(f)->json), *list, *e;
    const char *member;
    size_t i;
    name_money(reply);
    json_object_foreach(reply, member, list) json_array_foreach(list, i, e)
        name_money(e);
    return flow_reply_json(f, 200, reply);
}

static char *who_asks(const struct flow *f)
{
    return xasprintf("admin:%s", f->rq->who.name);
}

/* A create by an administrator: (body, who, IDEM). */
static enum flow_turn admin_create(struct flow *f, enum store_op op)
{
    struct db_idem idem;
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    char *by = who_asks(f);
    db_idem(f, &idem);
    enum flow_turn turn =
        db_call(f, op, STORE_ARGS(S_JSON(f->rq->body), S_TEXT(by), DB_IDEM(idem)));
    free(by);
    return turn;
}

/* ---- budgets ---- */

static bool budget_query(struct flow *f, struct err *err)
{
    static const char *const allowed[] = {"tenant", NULL};
    return flow_query_check(f, allowed, err) == 0;
}

static enum flow_turn budget_get(struct flow *f)
{
    struct err err;
    if (!budget_query(f, &err))
        return flow_fail(f, &err);
    return db_call(
        f, STORE_BUDGET_GET,
        STORE_ARGS(S_TEXT(db_tenant_scope(f)), S_TEXT(flow_query(f, "tenant"))));
}
CREDIT_KIND(budget_get, budget_get, credit_reply);

static enum flow_turn budget_set(struct flow *f)
{
    struct err err;
    if (!budget_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_BUDGET_SET,
                   STORE_ARGS(S_TEXT(db_tenant_scope(f)),
                              S_TEXT(flow_query(f, "tenant")), S_JSON(f->rq->body)));
}
CREDIT_KIND(budget_set, budget_set, credit_reply);

static enum flow_turn budget_remove(struct flow *f)
{
    struct err err;
    if (!budget_query(f, &err))
        return flow_fail(f, &err);
    return db_call(
        f, STORE_BUDGET_REMOVE,
        STORE_ARGS(S_TEXT(db_tenant_scope(f)), S_TEXT(flow_query(f, "tenant"))));
}
CREDIT_KIND(budget_remove, budget_remove, credit_reply);

/* ---- promotional credit ---- */

static enum flow_turn promo_grant(struct flow *f)
{
    return admin_create(f, STORE_PROMO_GRANT);
}
CREDIT_KIND(promo_grant, promo_grant, credit_reply);

static enum flow_turn promo_list(struct flow *f)
{
    static const char *const none[] = {NULL};
    struct db_page page;
    struct err err;
    if (db_page(f, none, &page, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_PROMO_LIST,
                   STORE_ARGS(S_TEXT(db_tenant_scope(f)), DB_PAGE(page)));
}
CREDIT_KIND(promo_list, promo_list, credit_reply);

/* ---- incidents ---- */

static enum flow_turn incident_open(struct flow *f)
{
    return admin_create(f, STORE_INCIDENT_OPEN);
}
CREDIT_KIND(incident_open, incident_open, credit_reply);

/* (id, body, who) */
static enum flow_turn incident_call(struct flow *f, enum store_op op)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    char *by = who_asks(f);
    enum flow_turn turn = db_call(
        f, op,
        STORE_ARGS(S_TEXT(flow_param(f, "id")), S_JSON(f->rq->body), S_TEXT(by)));
    free(by);
    return turn;
}

static enum flow_turn incident_close(struct flow *f)
{
    return incident_call(f, STORE_INCIDENT_CLOSE);
}
CREDIT_KIND(incident_close, incident_close, credit_reply);

static enum flow_turn incident_list(struct flow *f)
{
    static const char *const none[] = {NULL};
    struct db_page page;
    struct err err;
    if (db_page(f, none, &page, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_INCIDENT_LIST,
                   STORE_ARGS(S_TEXT(db_tenant_scope(f)), S_TEXT(db_provider_scope(f)),
                              DB_PAGE(page)));
}
CREDIT_KIND(incident_list, incident_list, credit_reply);

static enum flow_turn sla_credit(struct flow *f)
{
    return incident_call(f, STORE_SLA_CREDIT);
}
CREDIT_KIND(sla_credit, sla_credit, credit_reply);

static enum flow_turn sla_terms_get(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_SLA_TERMS, STORE_NO_ARGS);
}
CREDIT_KIND(sla_terms_get, sla_terms_get, credit_reply);

static enum flow_turn sla_terms_set(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_SLA_TERMS_SET, STORE_ARGS(S_JSON(f->rq->body)));
}
CREDIT_KIND(sla_terms_set, sla_terms_set, credit_reply);

/* ---- exchange ---- */

static enum flow_turn fx_set(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    char *by = who_asks(f);
    enum flow_turn turn =
        db_call(f, STORE_FX_SET, STORE_ARGS(S_JSON(f->rq->body), S_TEXT(by)));
    free(by);
    return turn;
}
CREDIT_KIND(fx_set, fx_set, credit_reply);

static enum flow_turn fx_list(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_FX_LIST, STORE_NO_ARGS);
}
CREDIT_KIND(fx_list, fx_list, credit_reply);
