/* POST and DELETE /v1/nodes/{name}/ban: the market deals with a node no more, or again.
 * A ban is one row; what follows from it is found by what the row says, so that nothing
 * hangs on this request: its agent is refused (api.sync), nothing of it is offered (the
 * world), and flow_outage revokes what runs there and moves what was to. */
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/xalloc.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"

#define REASON_MAX 200

/* Shown to the provider and to tenants in their terminals, and kept as one line. */
static int check_reason(const char *reason, struct err *err)
{
    for (const char *p = reason; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return err_set(err, ERR_BAD_REQUEST, "/reason: one line is expected");
    return 0;
}

static enum flow_turn ban_write(struct flow *f)
{
    struct body {
        const char *reason, *site;
    } b = {NULL, NULL};
    static const struct jsonx_field fields[] = {
        {"reason", JSONX_STRING, true, offsetof(struct body, reason), 1, REASON_MAX},
        {"site", JSONX_STRING, false, offsetof(struct body, site), 1, NAME_BYTES_MAX},
    };
    struct err err;
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0 ||
        check_reason(b.reason, &err) != 0)
        return flow_fail(f, &err);
    char *by = xasprintf("admin:%s", f->rq->who.name);
    enum flow_turn turn =
        db_call(f, STORE_NODE_BAN,
                STORE_ARGS(S_TEXT(flow_param(f, "name")), S_TEXT(b.site),
                           S_TEXT(b.reason), S_TEXT(by), S_INT(f->now_us)));
    free(by);
    return turn;
}

static enum flow_turn unban_write(struct flow *f)
{
    static const char *const allowed[] = {"site", NULL};
    struct err err;
    if (flow_query_check(f, allowed, &err) != 0)
        return flow_fail(f, &err);
    return db_call(
        f, STORE_NODE_UNBAN,
        STORE_ARGS(S_TEXT(flow_param(f, "name")), S_TEXT(flow_query(f, "site"))));
}

/* This server offers the node no more, or again, when the answer is out. */
static enum flow_turn ban_learn(struct flow *f)
{
    struct world *w = world_of(f);
    if (db_failed(f))
        return db_fail(f);
    w->outage_due = true;
    world_read(w, STORE_WORLD_NODES,
               json_integer_value(json_object_get(db_of(f)->json, "node_id")), f->id);
    return FLOW_WAIT;
}

static enum flow_turn ban_reply(struct flow *f)
{
    json_t *reply = render_times(db_of(f)->json);
    json_object_del(reply, "node_id");
    return flow_reply_json(f, 200, reply);
}

static const struct flow_step ban_steps[] = {
    {"write", ban_write}, {"learn", ban_learn}, {"reply", ban_reply}};
const struct flow_kind flow_node_ban =
    FLOW_KIND_DONE("flow_node_ban", struct db_state, ban_steps, db_done);

static const struct flow_step unban_steps[] = {
    {"write", unban_write}, {"learn", ban_learn}, {"reply", ban_reply}};
const struct flow_kind flow_node_unban =
    FLOW_KIND_DONE("flow_node_unban", struct db_state, unban_steps, db_done);
