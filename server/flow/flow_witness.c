/* /v1/log/witnesses and /v1/log/cosignatures: who looks at the log's heads from outside
 * and says so (c2sp.org/tlog-cosignature). A cosignature is kept when it is right and
 * of a head that this log signed; the server cannot make one. */
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/merkle.h"
#include "client/lib/note.h"
#include "client/lib/xalloc.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"

#define LINE_BYTES_MAX 400

/* ---- a witness's key ---- */

static enum flow_turn add_write(struct flow *f)
{
    struct body {
        const char *vkey;
    } b = {NULL};
    static const struct jsonx_field fields[] = {
        {"vkey", JSONX_STRING, true, offsetof(struct body, vkey), 1, NOTE_VKEY_MAX - 1},
    };
    const struct flow_principal *who = &f->rq->who;
    struct note_key key;
    struct err err;
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0)
        return flow_fail(f, &err);
    if (note_key_parse(b.vkey, &key, &err) != 0 || key.alg != NOTE_ALG_COSIGN) {
        err_set(&err, ERR_BAD_REQUEST,
                "/vkey: expected a witness's key, NAME+HASH+KEY of algorithm 4 (C2SP "
                "tlog-cosignature)");
        return flow_fail(f, &err);
    }
    return db_call(
        f, STORE_WITNESS_ADD,
        STORE_ARGS(S_TEXT(key.name), S_TEXT(b.vkey),
                   S_TEXT(who->role == ROLE_TENANT ? who->tenant_id : NULL),
                   S_TEXT(who->role == ROLE_PROVIDER ? who->provider_id : NULL)));
}

static enum flow_turn add_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    return flow_reply_json(f, 201, render_times(db_of(f)->json));
}

static const struct flow_step add_steps[] = {{"write", add_write},
                                             {"reply", add_reply}};
const struct flow_kind flow_witness_add =
    FLOW_KIND_DONE("flow_witness_add", struct db_state, add_steps, db_done);

static enum flow_turn list_read(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_WITNESS_LIST,
                   STORE_ARGS(S_BOOL(f->rq->who.role == ROLE_ADMIN)));
}

static enum flow_turn list_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    return flow_reply_json(f, 200, render_times(db_of(f)->json));
}

static const struct flow_step list_steps[] = {{"read", list_read},
                                              {"reply", list_reply}};
const struct flow_kind flow_witness_list =
    FLOW_KIND_DONE("flow_witness_list", struct db_state, list_steps, db_done);

/* ---- a cosignature ---- */

struct cosign {
    struct db_slot db;
    const char *log, *witness, *line; /* of the request's body */
    int64_t size;
};

static enum flow_turn cosign_read(struct flow *f)
{
    struct cosign *s = f->state;
    static const struct jsonx_field fields[] = {
        {"log", JSONX_STRING, true, offsetof(struct cosign, log), 1, 16},
        {"size", JSONX_INT, true, offsetof(struct cosign, size), 1, INT64_MAX / 2},
        {"witness", JSONX_STRING, true, offsetof(struct cosign, witness), 1,
         NOTE_NAME_MAX - 1},
        {"cosignature", JSONX_STRING, true, offsetof(struct cosign, line), 1,
         LINE_BYTES_MAX},
    };
    struct err err;
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), s, "", &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_LOG_NOTE,
                   STORE_ARGS(S_TEXT(s->log), S_INT(s->size), S_TEXT(s->witness)));
}

static int check(const struct cosign *s, struct err *err)
{
    const char *note = json_string_value(json_object_get(s->db.json, "note")),
               *vkey = json_string_value(json_object_get(s->db.json, "vkey"));
    struct note_key key;
    int64_t time_s;
    size_t len = strlen(s->line);
    if (strchr(s->line, '\n') != s->line + len - 1)
        return err_set(err, ERR_BAD_REQUEST,
                       "/cosignature: expected one line with its newline");
    if (note_key_parse(vkey, &key, err) != 0)
        return err_set(err, ERR_INTERNAL, "the key of the witness is damaged");
    char *whole = xasprintf("%s%s", note, s->line);
    int rc = note_witnessed(whole, &key, &time_s, err);
    free(whole);
    return rc == 0 ? 0
                   : err_set(err, ERR_BAD_REQUEST,
                             "/cosignature: not %s's of the head of %lld leaves",
                             s->witness, (long long)s->size);
}

static enum flow_turn cosign_write(struct flow *f)
{
    struct cosign *s = f->state;
    struct err err;
    if (db_failed(f))
        return db_fail(f);
    if (check(s, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_LOG_COSIGN,
                   STORE_ARGS(S_TEXT(s->log), S_INT(s->size), S_TEXT(s->witness),
                              S_TEXT(s->line)));
}

static enum flow_turn cosign_reply(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    return flow_reply_json(f, 201, json_incref(db_of(f)->json));
}

static const struct flow_step cosign_steps[] = {
    {"read", cosign_read}, {"write", cosign_write}, {"reply", cosign_reply}};
const struct flow_kind flow_log_cosign =
    FLOW_KIND_DONE("flow_log_cosign", struct cosign, cosign_steps, db_done);
