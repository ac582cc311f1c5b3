/* GET /v1/audit: who did what; an administrator sees all, others what they did. */
#include <stdio.h>

#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"

#define FILTER_MAX 300

static enum flow_turn list_read(struct flow *f)
{
    static const char *const names[] = {"from",   "to",     "actor",
                                        "action", "object", NULL};
    const struct flow_principal *who = &f->rq->who;
    char scope[200];
    struct store_arg from, to;
    struct db_page page;
    struct err err;
    if (db_page(f, names, &page, &err) != 0 ||
        db_query_time(f, "from", &from, &err) != 0 ||
        db_query_time(f, "to", &to, &err) != 0)
        return flow_fail(f, &err);
    snprintf(scope, sizeof(scope), "%s:%s",
             who->role == ROLE_TENANT ? "tenant" : "provider", who->name);
    return db_call(f, STORE_AUDIT_LIST,
                   STORE_ARGS(who->role == ROLE_ADMIN ? S_NULL : S_TEXT(scope), from,
                              to, S_TEXT(flow_query(f, "actor")),
                              S_TEXT(flow_query(f, "action")),
                              S_TEXT(flow_query(f, "object")), DB_PAGE(page)));
}

static enum flow_turn list_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    return flow_reply_json(f, 200, render_times(db_of(f)->json));
}

static const struct flow_step list_steps[] = {{"read", list_read},
                                              {"reply", list_reply}};
const struct flow_kind flow_audit_list =
    FLOW_KIND_DONE("flow_audit_list", struct db_state, list_steps, db_done);
