/* POST /v1/agent/receipts: signed records of use. The signature is checked here with
 * a key the node enrolled with, now or earlier; the chain (numbers, hashes, nothing
 * twice) in the database. What is not accepted is answered one by one, so that one bad
 * receipt does not hold up the others. What is accepted is countersigned, and
 * acknowledged even when that fails: the next time it is sent, or asked for, is another
 * chance.
 *
 * Cloned and banned nodes are heard here: what was used was used, and of two chains
 * that fork the evidence is kept. */
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/b64.h"
#include "client/lib/jsonx.h"
#include "client/lib/jws.h"
#include "client/lib/logentry.h"
#include "client/lib/timefmt.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"

#define RECEIPTS_AT_ONCE 100

struct receipts {
    struct db_slot db;
    json_t *good;     /* as STORE_RECEIPTS takes them */
    json_t *rejected; /* here, before the database was asked */
    json_t *acks;     /* of the database */
    json_t *signs;    /* of what it acknowledged, by today's key */
};

struct payload {
    const char *iss, *reservation, *prev, *kind, *boot_id;
    int64_t seq, from_us, to_us, boot_from_us, boot_to_us, gpu_ms, epoch;
    json_t *gpus, *evidence, *gaps;
};

#define FIELD(name, type, min, max)                                 \
    {                                                               \
#name, type, true, offsetof(struct payload, name), min, max \
    }
static const struct jsonx_field payload_fields[] = {
    FIELD(iss, JSONX_STRING, 1, 300),
    FIELD(reservation, JSONX_STRING, 36, 36),
    FIELD(seq, JSONX_INT, 1, INT32_MAX),
    FIELD(prev, JSONX_STRING, 0, 43),
    FIELD(kind, JSONX_STRING, 5, 8),
    FIELD(boot_id, JSONX_STRING, 1, 64),
    {"from", JSONX_TIME, true, offsetof(struct payload, from_us)},
    {"to", JSONX_TIME, true, offsetof(struct payload, to_us)},
    FIELD(boot_from_us, JSONX_INT, 0, INT64_MAX),
    FIELD(boot_to_us, JSONX_INT, 0, INT64_MAX),
    FIELD(gpus, JSONX_ARRAY, 1, GPUS_PER_NODE_MAX),
    FIELD(gpu_ms, JSONX_INT, 0, INT64_MAX),
    FIELD(epoch, JSONX_INT, 0, INT64_MAX),
    FIELD(evidence, JSONX_ARRAY, 0, GPUS_PER_NODE_MAX),
    FIELD(gaps, JSONX_ARRAY, 0, 64),
};

/* The node's key of that name, the newest first. */
static bool key_named(const struct world_node *n, const char *kid,
                      uint8_t ret[SHA256_LEN])
{
    char name[JWS_KID_MAX];
    const json_t *hex;
    size_t i;
    memcpy(ret, n->receipt_key, SHA256_LEN);
    jws_thumbprint(ret, name);
    if (strcmp(kid, name) == 0)
        return true;
    json_array_foreach(n->earlier_keys, i, hex)
    {
        if (!json_is_string(hex) ||
            !logentry_unhex(json_string_value(hex), ret, SHA256_LEN))
            continue;
        jws_thumbprint(ret, name);
        if (strcmp(kid, name) == 0)
            return true;
    }
    return false;
}

/* The text's parts, signed by this node, and the key; or err. */
static int open_jws(const struct world_node *n, const char *text, struct jws_parts *ret,
                    uint8_t ret_key[SHA256_LEN], struct err *err)
{
    const char *step;
    EVP_PKEY *pub = NULL;
    if (jws_split_max(text, strlen(text), RECEIPT_BYTES_MAX, ret, &step, err) != 0)
        return -1;
    int rc;
    if (strcmp(ret->typ, JWS_TYP_USAGE) != 0)
        rc = err_set(err, ERR_TOKEN, "typ is not %s", JWS_TYP_USAGE);
    else if (!key_named(n, ret->kid, ret_key) ||
             (pub = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, ret_key,
                                                SHA256_LEN)) == NULL)
        rc = err_set(err, ERR_TOKEN, "not signed by a key this node enrolled with");
    else
        rc = jws_verify(ret, pub, err);
    EVP_PKEY_free(pub);
    if (rc != 0)
        jws_parts_done(ret);
    return rc;
}

static int check_payload(const struct payload *p, const char *spiffe_id, char *prev_hex,
                         struct err *err)
{
    uint8_t prev[SHA256_LEN + 1];
    if (strcmp(p->iss, spiffe_id) != 0)
        return err_set(err, ERR_TOKEN, "iss is not this node");
    if (!uuid_is_valid(p->reservation))
        return err_set(err, ERR_BAD_REQUEST, "/reservation: not an id");
    if (strcmp(p->kind, "ready") != 0 && strcmp(p->kind, "interval") != 0 &&
        strcmp(p->kind, "teardown") != 0)
        return err_set(err, ERR_BAD_REQUEST, "/kind: '%s' is none", p->kind);
    if (p->to_us < p->from_us)
        return err_set(err, ERR_BAD_REQUEST, "/to: is before from");
    prev_hex[0] = '\0';
    if (p->prev[0] == '\0')
        return 0;
    if (b64_decode(p->prev, strlen(p->prev), prev, sizeof(prev)) != SHA256_LEN)
        return err_set(err, ERR_BAD_REQUEST, "/prev: expected a SHA-256 in base64url");
    digest_hex(prev, SHA256_LEN, prev_hex);
    return 0;
}

/* One receipt as the database takes it; p is filled as far as it could be read. */
static json_t *receipt_row(const struct world_node *n, const char *text, json_t *tree,
                           struct payload *p, struct err *err)
{
    char hash[SHA256_HEX], prev[SHA256_HEX];
    if (jsonx_decode(tree, payload_fields, JSONX_COUNT(payload_fields), p, "", err) !=
            0 ||
        check_payload(p, n->spiffe_id, prev, err) != 0)
        return NULL;
    digest_sha256_hex(text, strlen(text), hash);
    return json_pack("{s:s, s:I, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:O, s:s}",
                     "reservation", p->reservation, "seq", (json_int_t)p->seq, "hash",
                     hash, "prev", prev, "kind", p->kind, "from_us",
                     (json_int_t)p->from_us, "to_us", (json_int_t)p->to_us, "gpu_ms",
                     (json_int_t)p->gpu_ms, "epoch", (json_int_t)p->epoch, "gaps",
                     p->gaps, "jws", text);
}

static void take(struct receipts *s, const struct world_node *n, const json_t *v)
{
    const char *text = json_is_string(v) ? json_string_value(v) : "";
    struct jws_parts parts;
    struct payload p = {.reservation = ""};
    uint8_t key[SHA256_LEN];
    char key_hex[SHA256_HEX];
    struct err err;
    json_t *tree = NULL, *row = NULL;
    if (open_jws(n, text, &parts, key, &err) == 0) {
        tree = jsonx_parse(parts.payload, parts.payload_len, RECEIPT_BYTES_MAX, &err);
        jws_parts_done(&parts);
    }
    if (tree != NULL)
        row = receipt_row(n, text, tree, &p, &err);
    if (row != NULL) {
        digest_hex(key, SHA256_LEN, key_hex);
        json_object_set_new(row, "key", json_string(key_hex));
        json_array_append_new(s->good, row);
    } else {
        json_array_append_new(s->rejected,
                              json_pack("{s:s, s:I, s:s, s:s}", "reservation",
                                        p.reservation, "seq", (json_int_t)p.seq, "code",
                                        err_code_name(err.code), "detail", err.text));
    }
    json_decref(tree);
}

static enum flow_turn receipts_check(struct flow *f)
{
    struct body {
        json_t *receipts;
    } b;
    static const struct jsonx_field fields[] = {{"receipts", JSONX_ARRAY, true,
                                                 offsetof(struct body, receipts), 0,
                                                 RECEIPTS_AT_ONCE}};
    struct receipts *s = f->state;
    const struct world_node *n = world_node_of(world_of(f), &f->rq->who);
    struct err err;
    if (!db_no_query(f, &err) ||
        jsonx_decode(f->rq->body, fields, JSONX_COUNT(fields), &b, "", &err) != 0)
        return flow_fail(f, &err);
    s->good = json_array();
    s->rejected = json_array();
    size_t i;
    const json_t *v;
    json_array_foreach(b.receipts, i, v) take(s, n, v);
    return db_call(f, STORE_RECEIPTS,
                   STORE_ARGS(S_INT(n->id), S_JSON(s->good), S_INT(f->now_us)));
}

static bool is_listed(const json_t *list, const json_t *row)
{
    const json_t *r;
    size_t i;
    json_array_foreach(list, i, r)
    {
        if (json_equal(json_object_get(r, "reservation"),
                       json_object_get(row, "reservation")) &&
            json_equal(json_object_get(r, "seq"), json_object_get(row, "seq")))
            return true;
    }
    return false;
}

static const char *text_of(const json_t *row, const char *name)
{
    const char *text = json_string_value(json_object_get(row, name));
    return text != NULL ? text : "";
}

/* The countersign of one accepted receipt, NULL when the signer refuses or is away. */
static json_t *countersign(struct flow *f, const struct world_node *n,
                           const json_t *row)
{
    struct issuer_ack ack = {.now_us = f->now_us,
                             .reservation = text_of(row, "reservation"),
                             .node = n->spiffe_id,
                             .seq = json_integer_value(json_object_get(row, "seq")),
                             .hash = text_of(row, "hash"),
                             .prev_hash = text_of(row, "prev")};
    struct err err;
    char *text;
    if (issuer_ack(world_of(f)->issuer, &ack, &text, &err) != 0)
        return NULL;
    json_t *out =
        json_pack("{s:s, s:I, s:s, s:s}", "reservation", ack.reservation, "seq",
                  (json_int_t)ack.seq, "hash", ack.hash, "countersign", text);
    free(text);
    return out;
}

static enum flow_turn receipts_sign(struct flow *f)
{
    struct receipts *s = f->state;
    const struct world_node *n = world_node_of(world_of(f), &f->rq->who);
    const json_t *row;
    size_t i;
    if (db_failed(f))
        return db_fail(f);
    json_array_extend(s->rejected, json_object_get(s->db.json, "rejected"));
    s->acks = json_incref(json_object_get(s->db.json, "acks"));
    world_poll(world_of(f)); /* a teardown frees GPUs */
    s->signs = json_array();
    json_array_foreach(s->good, i, row)
    {
        json_t *one =
            n != NULL && is_listed(s->acks, row) ? countersign(f, n, row) : NULL;
        if (one != NULL)
            json_array_append_new(s->signs, one);
    }
    return db_call(f, STORE_RECEIPTS_SIGNED,
                   STORE_ARGS(S_INT(n != NULL ? n->id : 0), S_JSON(s->signs)));
}

static enum flow_turn receipts_reply(struct flow *f)
{
    struct receipts *s = f->state;
    /* The first one is kept; the node is told this one, since the key of an earlier
     * one may be gone, and a node drops no receipt on the word of a key it lacks. */
    json_t *signs = db_failed(f) ? NULL : s->signs;
    return flow_reply_json(
        f, 200,
        json_pack("{s:O, s:O, s:o}", "acks", s->acks, "rejected", s->rejected,
                  "countersigns", signs != NULL ? json_incref(signs) : json_array()));
}

static void receipts_done(struct flow *f)
{
    struct receipts *s = f->state;
    json_decref(s->good);
    json_decref(s->rejected);
    json_decref(s->acks);
    json_decref(s->signs);
    db_done(f);
}

static const struct flow_step receipts_steps[] = {
    {"check", receipts_check}, {"sign", receipts_sign}, {"reply", receipts_reply}};
const struct flow_kind flow_agent_receipts = FLOW_KIND_DONE(
    "flow_agent_receipts", struct receipts, receipts_steps, receipts_done);
