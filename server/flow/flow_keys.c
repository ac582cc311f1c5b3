/* /v1/keys: a tenant's own SSH keys. Nodes are told them with each of his leases; a
 * token needs none of them here, it names its holder's key itself. */
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/jws.h"
#include "client/lib/sshkey.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"

#define KEY_NAME_MAX SSHKEY_COMMENT_MAX

/* ---- add ---- */

static enum flow_turn add_write(struct flow *f)
{
    struct body {
        const char *key, *name;
    } b = {NULL, NULL};
    static const struct jsonx_field fields[] = {
        {"key", JSONX_STRING, true, offsetof(struct body, key), 1, 1000},
        {"name", JSONX_STRING, false, offsetof(struct body, name), 0, KEY_NAME_MAX - 1},
    };
    struct sshkey_public key;
    char jkt[JWS_KID_MAX], text[SSHKEY_TEXT_MAX];
    struct err err;
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0)
        return flow_fail(f, &err);
    if (sshkey_public(b.key, strlen(b.key), &key, &err) != 0) {
        err.code = ERR_BAD_REQUEST;
        (void)err_prefix(&err, "/key");
        return flow_fail(f, &err);
    }
    const char *name = b.name != NULL ? b.name : key.comment;
    for (const char *p = name; *p != '\0'; p++)
        if (*p < ' ' || *p > '~') {
            err_set(&err, ERR_BAD_REQUEST, "/name: expected printable ASCII");
            return flow_fail(f, &err);
        }
    jws_thumbprint(key.pub, jkt);
    sshkey_text(key.pub, text);
    return db_call(f, STORE_TENANT_KEY_ADD,
                   STORE_ARGS(S_TEXT(f->rq->who.tenant_id), S_TEXT(jkt), S_TEXT(text),
                              S_TEXT(name)));
}

static enum flow_turn add_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    return flow_reply_json(f, 201, render_times(db_of(f)->json));
}

static const struct flow_step add_steps[] = {{"write", add_write},
                                             {"reply", add_reply}};
const struct flow_kind flow_key_add =
    FLOW_KIND_DONE("flow_key_add", struct db_state, add_steps, db_done);

/* ---- list ---- */

static enum flow_turn list_read(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_TENANT_KEY_LIST, STORE_ARGS(S_TEXT(f->rq->who.tenant_id)));
}

static enum flow_turn list_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    return flow_reply_json(f, 200, render_times(db_of(f)->json));
}

static const struct flow_step list_steps[] = {{"read", list_read},
                                              {"reply", list_reply}};
const struct flow_kind flow_key_list =
    FLOW_KIND_DONE("flow_key_list", struct db_state, list_steps, db_done);

/* ---- remove ---- */

static enum flow_turn remove_write(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(
        f, STORE_TENANT_KEY_REMOVE,
        STORE_ARGS(S_TEXT(f->rq->who.tenant_id), S_TEXT(flow_param(f, "jkt"))));
}

static enum flow_turn remove_reply(struct flow *f)
{
    return db_failed(f) ? db_fail(f) : flow_reply_empty(f, 204);
}

static const struct flow_step remove_steps[] = {{"write", remove_write},
                                                {"reply", remove_reply}};
const struct flow_kind flow_key_remove =
    FLOW_KIND_DONE("flow_key_remove", struct db_state, remove_steps, db_done);
