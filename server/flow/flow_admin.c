/* /v1/admins: administrators by name. Whether one that is made has to wait for
 * another's yes is decided by the database; the key of one that waits opens nothing. */
#include "client/lib/jsonx.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"
#include "server/flow/request.h"
#include "server/flow/secret.h"

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
    if (!DB_BODY(f, fields, &b, &err) || request_name("/name", b.name, &err) != 0)
        return flow_fail(f, &err);
    secret_make(SECRET_API_KEY, s->key, s->hash);
    db_idem(f, &idem);
    return db_call(f, STORE_ADMIN_CREATE,
                   STORE_ARGS(S_TEXT(b.name), S_BYTES(s->hash, SHA256_LEN),
                              DB_IDEM(idem), S_TEXT(f->rq->who.name)));
}

/* The key is known to this server with the next turn of the feed. */
static enum flow_turn admin_reply(struct flow *f)
{
    struct admin_new *s = f->state;
    if (db_failed(f))
        return db_fail(f);
    world_poll(world_of(f));
    json_t *out = render_times(s->db.json);
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
DB_FLOW(flow_admin_list, "read", admins_read, db_reply);

/* Known to all servers with the next turn of their feeds. */
static enum flow_turn admin_approve(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_ADMIN_APPROVE,
                   STORE_ARGS(S_TEXT(flow_param(f, "name")), S_TEXT(f->rq->who.name)));
}
static enum flow_turn approve_reply(struct flow *f)
{
    world_poll(world_of(f));
    return db_reply(f);
}
DB_FLOW(flow_admin_approve, "write", admin_approve, approve_reply);

static enum flow_turn admin_gone(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_ADMIN_REMOVE,
                   STORE_ARGS(S_TEXT(flow_param(f, "name")), S_TEXT(f->rq->who.name)));
}
DB_FLOW(flow_admin_remove, "write", admin_gone, db_reply);
