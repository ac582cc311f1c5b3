/* POST /v1/agent/sync: what a node is, against what it shall be. Level-triggered: each
 * answer is the whole desired state, so nothing is lost when a message is.
 *
 *   check  the report is well formed
 *   log    a node that is a witness: its cosignatures, and the heads it wants
 *   store  what it reports is written down
 *   look   desired differs from what the agent has: answer. Else sleep
 *   ask    woken by a change of the node (own commit or the feed), by the time, or by
 *          the agent's next poll: read the desired state again
 *
 * The leases come from the database; what to measure comes from the world, which elects
 * some nodes of a site for each data set. desired_version covers both. A spot lease is
 * told only for the time of its notice, and told anew well before that is over: a node
 * that cannot be reached stops it by itself.
 *
 *   reply  with the signed status document and the signed key set
 *
 * A node that is cloned or banned is refused, also in the middle of its wait. One that
 * is banned is shown the status document with that: its leases are revoked there, and
 * no other way tells it. One that is cloned is not: without a fresh one it starts
 * nothing. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/lib/b64.h"
#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/lease.h"
#include "server/flow/observed.h"
#include "server/flow/render.h"
#include "server/flow/sync_log.h"

/* Agents start nothing on a status document older than a minute. */
#define WAIT_MAX_US (20 * US_PER_S)
/* So long an answer waits for a status document that is as new as its list of leases.
 */
#define STATUS_WAIT_US (US_PER_S / 2)
#define STATUS_LOOK_US (US_PER_S / 100)
#define VERSION_MAX    96

struct sync {
    struct db_slot db;
    struct observed seen;
    struct sync_log log;
    int64_t until_us;
    uint64_t wakes;  /* the node's, when the database was last asked */
    int64_t held_us; /* since when the answer waits for its status; 0: it does not */
    char version[VERSION_MAX];
};

static enum flow_turn sync_store(struct flow *f);
static enum flow_turn sync_look(struct flow *f);
static enum flow_turn sync_ask(struct flow *f);
static enum flow_turn sync_reply(struct flow *f);

static int node_of(const struct flow *f)
{
    struct world *w = world_of(f);
    return (int)(world_node_of(w, &f->rq->who) - w->nodes);
}

static void ignore(void *arg, uint64_t id, const struct store_result *r)
{
    (void)arg, (void)id, (void)r;
}

/* The first sync with a renewed certificate makes it the only one. */
static void certificate_used(struct world *w, const struct world_node *n,
                             const char *thumbprint)
{
    static const uint8_t none[SHA256_LEN];
    uint8_t hash[SHA256_LEN + 1];
    if (memcmp(n->next_cert, none, SHA256_LEN) == 0 ||
        b64_decode(thumbprint, strlen(thumbprint), hash, sizeof(hash)) != SHA256_LEN ||
        memcmp(n->next_cert, hash, SHA256_LEN) != 0)
        return;
    store_call(w->store, STORE_CERT_USED,
               STORE_ARGS(S_INT(n->id), S_BYTES(hash, SHA256_LEN)),
               store_to(ignore, NULL, 0));
}

static enum flow_turn refuse(struct flow *f, const char *refused)
{
    struct world *w = world_of(f);
    struct err err;
    const char *detail = json_string_value(json_object_get(db_of(f)->json, "detail"));
    (void)err_set(&err, err_code_from_name(refused), "%s",
                  detail != NULL ? detail : refused);
    const char *status = err.code == ERR_BANNED ? world_status_doc(w, f->now_us) : NULL;
    if (status != NULL)
        flow_fail_detail(f, "status_document", json_string(status));
    world_poll(w); /* the other agent waits, too */
    return flow_fail(f, &err);
}

/* The peer's address, without its port. */
static void note_peer(struct flow *f, json_t *store)
{
    const char *remote = f->rq->remote, *colon = strrchr(remote, ':');
    size_t len = colon != NULL ? (size_t)(colon - remote) : strlen(remote);
    json_object_set_new(store, "peer", json_stringn(remote, len));
}

static enum flow_turn sync_check(struct flow *f)
{
    struct sync *s = f->state;
    struct world *w = world_of(f);
    struct world_node *n = world_node_of(w, &f->rq->who);
    struct err err;
    if (!db_no_query(f, &err) ||
        observed_parse(f->rq->body, w->currency, f->now_us, &s->seen, &err) != 0)
        return flow_fail(f, &err);
    /* A lease is worth more than a witness: what is wrong there is only told. */
    if (s->seen.log != NULL &&
        sync_log_parse(s->seen.log, f->rq->who.uri, &s->log, &err) != 0)
        s->log.reply = json_pack("{s:s}", "error", err.text);
    flow_drop_body(f);
    note_peer(f, s->seen.store);
    int64_t wait_us = s->seen.wait_us < WAIT_MAX_US ? s->seen.wait_us : WAIT_MAX_US;
    s->until_us = f->now_us + wait_us;
    uint64_t earlier = n->sync_flow;
    n->sync_flow = f->id;
    if (earlier != 0)
        flow_wake(f->runner, earlier); /* its agent does not wait for it any more */
    s->wakes = n->wakes;
    certificate_used(w, n, f->rq->who.thumbprint);
    if (s->log.ask == NULL)
        return flow_goto(f, sync_store);
    return db_call(f, STORE_AGENT_LOG, STORE_ARGS(S_INT(n->id), S_JSON(s->log.ask)));
}

/* What the database makes of it is no reason not to go on. */
static enum flow_turn sync_cosign(struct flow *f)
{
    struct sync *s = f->state;
    const struct world_node *n = world_node_of(world_of(f), &f->rq->who);
    if (!s->db.answered)
        return FLOW_AGAIN;
    if (db_failed(f))
        return FLOW_MORE;
    json_t *good = sync_log_take(&s->log, s->db.json);
    enum flow_turn turn = FLOW_MORE;
    if (json_array_size(good) > 0 || json_array_size(s->log.refused) > 0)
        turn = db_call(f, STORE_AGENT_COSIGN,
                       STORE_ARGS(S_INT(n->id), S_TEXT(s->log.key.name),
                                  S_TEXT(s->log.vkey), S_JSON(good),
                                  S_JSON(s->log.refused), S_TEXT(f->rq->remote),
                                  S_TEXT(f->rq->request_id)));
    json_decref(good);
    return turn;
}

static enum flow_turn sync_store(struct flow *f)
{
    struct sync *s = f->state;
    const struct world_node *n = world_node_of(world_of(f), &f->rq->who);
    if (s->log.ask != NULL && !s->db.answered)
        return FLOW_AGAIN;
    return db_call(f, STORE_SYNC,
                   STORE_ARGS(S_INT(n->id), S_JSON(s->seen.store), S_INT(f->now_us)));
}

/* Of the leases as the database says, the data sets to measure, and the key set. */
static void set_version(struct flow *f)
{
    struct sync *s = f->state;
    const struct world *w = world_of(f);
    const char *leases = json_string_value(json_object_get(s->db.json, "version"));
    uint64_t sum = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
    sum = (sum ^ (uint64_t)issuer_seq(w->issuer)) * UINT64_C(0x100000001b3);
    int data[WORLD_PROBES_MAX];
    size_t count = world_probes_of(w, node_of(f), f->now_us, data);
    for (size_t i = 0; i < count; i++)
        sum = (sum ^ (uint64_t)w->data[data[i]].id) * UINT64_C(0x100000001b3);
    snprintf(s->version, sizeof(s->version), "%.64s-%016" PRIx64,
             leases != NULL ? leases : "", sum);
}

/* What woke the poll may be a cancellation, which the status document has to name as
 * well: a node that hears of an end without proof would have to believe the list. */
static bool holds_for_status(struct flow *f)
{
    struct sync *s = f->state;
    if (!world_is_behind(world_of(f)))
        return false;
    if (s->held_us == 0)
        s->held_us = f->now_us;
    if (f->now_us - s->held_us >= STATUS_WAIT_US)
        return false;
    flow_wait_until(f, f->now_us + STATUS_LOOK_US);
    return true;
}

static enum flow_turn sync_look(struct flow *f)
{
    struct sync *s = f->state;
    const struct world_node *n = world_node_of(world_of(f), &f->rq->who);
    if (!s->db.answered)
        return FLOW_AGAIN;
    if (db_failed(f))
        return db_fail(f);
    const char *refused = json_string_value(json_object_get(s->db.json, "refused"));
    if (refused != NULL)
        return refuse(f, refused);
    set_version(f);
    if (strcmp(s->version, s->seen.version) != 0 || f->now_us >= s->until_us ||
        n->sync_flow != f->id)
        return holds_for_status(f) ? FLOW_WAIT : flow_goto(f, sync_reply);
    const json_t *next = json_object_get(s->db.json, "next_us"); /* a spot term */
    int64_t next_us = json_is_integer(next) ? json_integer_value(next) : INT64_MAX;
    if (n->wakes != s->wakes || /* the answer may be older than what woke us */
        f->now_us >= next_us)
        return flow_goto(f, sync_ask);
    flow_wait_until(f, next_us < s->until_us ? next_us : s->until_us);
    return FLOW_WAIT;
}

static enum flow_turn sync_ask(struct flow *f)
{
    struct sync *s = f->state;
    const struct world_node *n = world_node_of(world_of(f), &f->rq->who);
    s->wakes = n->wakes;
    flow_goto(f, sync_look);
    return db_call(
        f, STORE_DESIRED,
        STORE_ARGS(S_INT(n->id), S_JSON(s->seen.reported), S_INT(f->now_us)));
}

static json_t *duration(int64_t us)
{
    char text[TIMEFMT_MAX];
    timefmt_duration(us, text);
    return json_string(text);
}

static json_t *leases_json(const json_t *store)
{
    json_t *out = render_times(store), *l;
    size_t i;
    json_array_foreach(out, i, l)
    {
        const json_t *from = json_array_get(store, i);
        json_object_set_new(
            l, "drain",
            duration(lease_drain_us(
                json_integer_value(json_object_get(from, "not_before_us")),
                json_integer_value(json_object_get(from, "not_after_us")))));
        json_object_set_new(l, "memory_max_bytes", json_integer(0));
        json_object_set_new(l, "pids_max", json_integer(0));
        json_object_set_new(l, "on_lost", json_string("run_to_end"));
    }
    return out;
}

static json_t *probes_json(struct flow *f)
{
    const struct world *w = world_of(f);
    json_t *out = json_array();
    int data[WORLD_PROBES_MAX];
    size_t count = world_probes_of(w, node_of(f), f->now_us, data);
    for (size_t i = 0; i < count; i++) {
        const struct world_data *d = &w->data[data[i]];
        json_array_append_new(out, json_pack("{s:o, s:s}", "dataset",
                                             json_sprintf("%d", d->id), "endpoint",
                                             d->endpoint));
    }
    return out;
}

static enum flow_turn sync_reply(struct flow *f)
{
    struct sync *s = f->state;
    struct world *w = world_of(f);
    const json_t *desired = s->db.json;
    const char *status = world_status_doc(w, f->now_us);
    json_t *settings =
        json_pack("{s:o, s:o}", "probe_interval", duration(w->probe_interval_us),
                  "receipt_interval", duration(w->receipt_interval_us));
    json_t *reply = json_pack(
        "{s:s, s:o, s:o, s:O, s:s, s:s, s:o, s:o, s:O}", "desired_version", s->version,
        "now", jsonx_time(f->now_us), "leases",
        leases_json(json_object_get(desired, "leases")), "end",
        json_object_get(desired, "end"), "status", status != NULL ? status : "",
        "key_set", issuer_key_set(w->issuer), "probes", probes_json(f), "settings",
        settings, "acks", json_object_get(desired, "acks"));
    if (s->log.reply != NULL)
        json_object_set(reply, "log", s->log.reply);
    return flow_reply_json(f, 200, reply);
}

static void sync_done(struct flow *f)
{
    struct sync *s = f->state;
    struct world_node *n = world_node_of(world_of(f), &f->rq->who);
    if (n != NULL && n->sync_flow == f->id)
        n->sync_flow = 0;
    observed_done(&s->seen);
    sync_log_done(&s->log);
    db_done(f);
}

static const struct flow_step sync_steps[] = {
    {"check", sync_check}, {"log", sync_cosign}, {"store", sync_store},
    {"look", sync_look},   {"ask", sync_ask},    {"reply", sync_reply}};
const struct flow_kind flow_agent_sync =
    FLOW_KIND_POLL("flow_agent_sync", struct sync, sync_steps, sync_done);
