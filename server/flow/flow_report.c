/* /v1/reports: the views of sql/reports, read with the read-only role. */
#include <string.h>

#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"

static enum flow_turn list_read(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_REPORT_LIST, STORE_NO_ARGS);
}

static enum flow_turn list_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    json_t *reply = json_deep_copy(db_of(f)->json), *r;
    size_t i;
    json_array_foreach(json_object_get(reply, "reports"), i, r)
    {
        json_object_set(r, "summary", json_object_get(r, "description"));
        json_object_del(r, "description");
    }
    return flow_reply_json(f, 200, reply);
}

static const struct flow_step list_steps[] = {{"read", list_read},
                                              {"reply", list_reply}};
const struct flow_kind flow_report_list =
    FLOW_KIND_DONE("flow_report_list", struct db_state, list_steps, db_done);

static enum flow_turn get_read(struct flow *f)
{
    static const char *const names[] = {"from",   "to",    "site",     "provider",
                                        "tenant", "model", "currency", NULL};
    struct store_arg from, to;
    struct err err;
    if (flow_query_check(f, names, &err) != 0 ||
        db_query_time(f, "from", &from, &err) != 0 ||
        db_query_time(f, "to", &to, &err) != 0)
        return flow_fail(f, &err);
    return db_call(
        f, STORE_REPORT,
        STORE_ARGS(S_TEXT(flow_param(f, "name")), from, to,
                   S_TEXT(flow_query(f, "site")), S_TEXT(flow_query(f, "provider")),
                   S_TEXT(flow_query(f, "tenant")), S_TEXT(flow_query(f, "model")),
                   S_TEXT(flow_query(f, "currency"))));
}

static enum flow_turn get_reply(struct flow *f)
{
    return db_failed(f) ? db_fail(f)
                        : flow_reply_json(f, 200, json_incref(db_of(f)->json));
}

static const struct flow_step get_steps[] = {{"read", get_read}, {"reply", get_reply}};
const struct flow_kind flow_report_get =
    FLOW_KIND_DONE("flow_report_get", struct db_state, get_steps, db_done);
