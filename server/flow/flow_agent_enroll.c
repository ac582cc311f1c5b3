/* POST /v1/agent/enroll and /v1/agent/renew: how a node gets its certificate. The join
 * code says which node of which provider; the CSR only brings a key. */
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/jws.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"

#define CSR_MAX 4096

struct enroll {
    struct db_slot db;
    json_t *node; /* what the join code stands for */
    struct ca_agent_cert cert;
};

/* ---- enrol ---- */

static enum flow_turn enroll_claim(struct flow *f)
{
    struct body {
        const char *code, *csr;
        json_t *jwk;
    } b;
    static const struct jsonx_field fields[] = {
        {"code", JSONX_STRING, true, offsetof(struct body, code), 1, 100},
        {"csr", JSONX_STRING, true, offsetof(struct body, csr), 1, CSR_MAX},
        {"receipt_jwk", JSONX_OBJECT, true, offsetof(struct body, jwk)},
    };
    uint8_t hash[SHA256_LEN], receipt_key[JWS_ED25519_LEN];
    struct ca_agent_cert trial = {NULL};
    struct world *w = world_of(f);
    struct err err;
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0)
        return flow_fail(f, &err);
    if (jws_jwk_parse(b.jwk, receipt_key, &err) != 0) {
        err.code = ERR_BAD_REQUEST;
        err_prefix(&err, "/receipt_jwk");
        return flow_fail(f, &err);
    }
    /* Before the code is spent: would its CSR be signed at all? */
    if (ca_sign_agent(w->ca, b.csr, "spiffe://trial", f->now_us, &trial, &err) != 0)
        return flow_fail(f, &err);
    ca_agent_cert_done(&trial);
    digest_sha256(b.code, strlen(b.code), hash);
    return db_call(f, STORE_ENROLL,
                   STORE_ARGS(S_BYTES(hash, SHA256_LEN),
                              S_BYTES(receipt_key, JWS_ED25519_LEN),
                              S_TEXT(w->market)));
}

static int64_t node_id(const struct enroll *s)
{
    return json_integer_value(json_object_get(s->node, "node_id"));
}

static enum flow_turn enroll_sign(struct flow *f)
{
    struct enroll *s = f->state;
    struct err err;
    if (db_failed(f))
        return db_fail(f);
    s->node = json_incref(s->db.json);
    const char *csr = json_string_value(json_object_get(f->rq->body, "csr"));
    const char *uri = json_string_value(json_object_get(s->node, "spiffe_id"));
    if (ca_sign_agent(world_of(f)->ca, csr, uri, f->now_us, &s->cert, &err) != 0)
        return flow_fail(f, &err);
    return db_call(f, STORE_CERT_SET,
                   STORE_ARGS(S_INT(node_id(s)), S_BYTES(s->cert.sha256, SHA256_LEN)));
}

/* The agent's next connection shows this certificate. */
static enum flow_turn enroll_learn(struct flow *f)
{
    if (db_failed(f))
        return db_fail(f);
    world_read(world_of(f), STORE_WORLD_NODES, node_id(f->state), f->id);
    return FLOW_WAIT;
}

static enum flow_turn enroll_reply(struct flow *f)
{
    struct enroll *s = f->state;
    const struct world *w = world_of(f);
    return flow_reply_json(
        f, 200,
        json_pack("{s:s, s:s, s:O, s:s, s:s, s:O, s:O, s:o, s:s}", "certificate",
                  s->cert.pem, "ca", ca_pem(w->ca), "spiffe_id",
                  json_object_get(s->node, "spiffe_id"), "market", w->market, "issuer",
                  issuer_url(w->issuer), "site", json_object_get(s->node, "site"),
                  "node", json_object_get(s->node, "node"), "root",
                  issuer_root(w->issuer), "key_set", issuer_key_set(w->issuer)));
}

static void enroll_done(struct flow *f)
{
    struct enroll *s = f->state;
    json_decref(s->node);
    ca_agent_cert_done(&s->cert);
    db_done(f);
}

static const struct flow_step enroll_steps[] = {{"claim", enroll_claim},
                                                {"sign", enroll_sign},
                                                {"learn", enroll_learn},
                                                {"reply", enroll_reply}};
const struct flow_kind flow_agent_enroll =
    FLOW_KIND_DONE("flow_agent_enroll", struct enroll, enroll_steps, enroll_done);

/* ---- renew: the old certificate stays good until the new one was used ---- */

static enum flow_turn renew_sign(struct flow *f)
{
    struct body {
        const char *csr;
    } b;
    static const struct jsonx_field fields[] = {
        {"csr", JSONX_STRING, true, offsetof(struct body, csr), 1, CSR_MAX}};
    struct enroll *s = f->state;
    struct world *w = world_of(f);
    const struct world_node *n = world_node_of(w, &f->rq->who);
    struct err err;
    /* As on sync, which says more; the certificate in hand runs out. */
    enum err_code refused = err_code_from_name(n->state);
    if (refused == ERR_BANNED || refused == ERR_CLONED) {
        (void)err_set(&err, refused, "this node is %s: its certificate is not renewed",
                      n->state);
        return flow_fail(f, &err);
    }
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0 ||
        ca_sign_agent(w->ca, b.csr, f->rq->who.uri, f->now_us, &s->cert, &err) != 0)
        return flow_fail(f, &err);
    s->node = json_pack("{s:i}", "node_id", n->id);
    return db_call(f, STORE_CERT_SET,
                   STORE_ARGS(S_INT(n->id), S_BYTES(s->cert.sha256, SHA256_LEN)));
}

static enum flow_turn renew_reply(struct flow *f)
{
    struct enroll *s = f->state;
    return flow_reply_json(f, 200, json_pack("{s:s}", "certificate", s->cert.pem));
}

static const struct flow_step renew_steps[] = {
    {"sign", renew_sign}, {"learn", enroll_learn}, {"reply", renew_reply}};
const struct flow_kind flow_agent_renew =
    FLOW_KIND_DONE("flow_agent_renew", struct enroll, renew_steps, enroll_done);
