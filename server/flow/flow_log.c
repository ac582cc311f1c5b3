/* /v1/log/checkpoint and /v1/log/proof: the verifiable log (docs/log.md) as a reader
 * needs it. The database gives records, leaves and tiles; the proofs are made here. The
 * server holds no key of a log and can only repeat what billd has signed. */
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/log_proof.h"
#include "server/flow/render.h"
#include "server/flow/request.h"

/* --- checkpoint --- */

struct checkpoint_flow {
    struct db_slot db;
    int64_t from;
};

static enum flow_turn checkpoint_read(struct flow *f)
{
    static const char *const names[] = {"log", "from", "witness", NULL};
    struct checkpoint_flow *s = f->state;
    const char *log = flow_query(f, "log"), *from = flow_query(f, "from");
    struct err err;
    if (flow_query_check(f, names, &err) != 0 ||
        (from != NULL &&
         request_int("from", from, 1, INT64_MAX / 2, &s->from, &err) != 0))
        return flow_fail(f, &err);
    if (log == NULL) {
        err_set(&err, ERR_BAD_REQUEST, "log: expected usage or ledger");
        return flow_fail(f, &err);
    }
    return db_call(
        f, STORE_LOG_CHECKPOINT,
        STORE_ARGS(S_TEXT(log), S_INT(s->from), S_TEXT(flow_query(f, "witness"))));
}

static enum flow_turn checkpoint_reply(struct flow *f)
{
    struct checkpoint_flow *s = f->state;
    struct err err;
    if (db_failed(f))
        return db_fail(f);
    json_t *reply = json_incref(s->db.json);
    if (log_prove_extension(reply, s->from, &err) != 0) {
        json_decref(reply);
        return flow_fail(f, &err);
    }
    json_object_set_new(reply, "witnessed",
                        render_times(json_object_get(reply, "witnessed")));
    return flow_reply_json(f, 200, reply);
}

static const struct flow_step checkpoint_steps[] = {{"read", checkpoint_read},
                                                    {"reply", checkpoint_reply}};
const struct flow_kind flow_log_checkpoint = FLOW_KIND_DONE(
    "flow_log_checkpoint", struct checkpoint_flow, checkpoint_steps, db_done);

/* --- proof --- */

static enum flow_turn proof_read(struct flow *f)
{
    static const char *const names[] = {"invoice", "reservation", NULL};
    const char *invoice = flow_query(f, "invoice"),
               *reservation = flow_query(f, "reservation");
    struct err err;
    if (flow_query_check(f, names, &err) != 0)
        return flow_fail(f, &err);
    if ((invoice == NULL) == (reservation == NULL)) {
        err_set(&err, ERR_BAD_REQUEST, "expected invoice=NUMBER or reservation=ID");
        return flow_fail(f, &err);
    }
    if (reservation != NULL && !uuid_is_valid(reservation)) {
        err_set(&err, ERR_BAD_REQUEST, "reservation: not an id");
        return flow_fail(f, &err);
    }
    return db_call(
        f, STORE_LOG_BUNDLE,
        STORE_ARGS(S_TEXT(db_tenant_scope(f)), S_TEXT(invoice), S_TEXT(reservation)));
}

static enum flow_turn proof_reply(struct flow *f)
{
    struct err err;
    if (db_failed(f))
        return db_fail(f);
    json_t *bundle = json_incref(db_of(f)->json);
    if (log_prove_entries(bundle, "usage", &err) != 0 ||
        log_prove_entries(bundle, "ledger", &err) != 0) {
        json_decref(bundle);
        return flow_fail(f, &err);
    }
    json_object_del(bundle, "tiles");
    json_object_set_new(bundle, "key_set",
                        json_string(issuer_key_set(world_of(f)->issuer)));
    json_object_set_new(bundle, "root", issuer_root(world_of(f)->issuer));
    return flow_reply_json(f, 200, bundle);
}

static const struct flow_step proof_steps[] = {{"read", proof_read},
                                               {"reply", proof_reply}};
const struct flow_kind flow_log_proof =
    FLOW_KIND_DONE("flow_log_proof", struct db_state, proof_steps, db_done);
