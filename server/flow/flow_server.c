/* What the server says of itself: keys, signed status, readiness, metrics, its API.
 * (Liveness needs no market: server/net/healthz.c.) */
#include <inttypes.h>
#include <string.h>

#include "config.h"

#include "client/lib/jsonx.h"
#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/openapi.h"
#include "server/flow/render.h"

#define SERVER_KIND(name, fn)                                       \
    static const struct flow_step name##_steps[] = {{"reply", fn}}; \
    const struct flow_kind flow_##name =                            \
        FLOW_KIND_DONE("flow_" #name, struct db_state, name##_steps, db_done)

static enum flow_turn unavailable(struct flow *f, const char *why)
{
    struct err err;
    err_set(&err, ERR_UNAVAILABLE, "%s", why);
    flow_header(f, "Retry-After", "1");
    return flow_fail(f, &err);
}

/* ---- keys and status ---- */

static enum flow_turn jwks_reply(struct flow *f)
{
    flow_header(f, "Cache-Control", "public, max-age=60");
    return flow_reply_json(f, 200, issuer_jwks(world_of(f)->issuer));
}
SERVER_KIND(jwks, jwks_reply);

static enum flow_turn keyset_reply(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    const struct issuer *is = world_of(f)->issuer;
    return flow_reply_json(f, 200,
                           json_pack("{s:s, s:o}", "key_set", issuer_key_set(is),
                                     "root", issuer_root(is)));
}
SERVER_KIND(keyset, keyset_reply);

static enum flow_turn status_reply(struct flow *f)
{
    const char *doc = world_status_doc(world_of(f), f->now_us);
    if (doc == NULL)
        return unavailable(f, "the list of revoked leases cannot be read now");
    flow_header(f, "Cache-Control", "no-store");
    return flow_reply_json(f, 200, json_pack("{s:s}", "status", doc));
}
SERVER_KIND(status, status_reply);

/* ---- readiness ---- */

static enum flow_turn readyz_reply(struct flow *f)
{
    const struct world *w = world_of(f);
    if (!w->loaded)
        return unavailable(f, "still reading the market");
    if (!store_is_ready(w->store))
        return unavailable(f, "the database cannot be reached");
    return flow_reply_json(f, 200, json_pack("{s:s}", "status", "ready"));
}
SERVER_KIND(readyz, readyz_reply);

/* ---- metrics ---- */

static void metric(struct strbuf *out, const char *name, const char *type,
                   int64_t value)
{
    strbuf_addf(out, "# TYPE neargpu_%s %s\nneargpu_%s %" PRId64 "\n", name, type, name,
                value);
}

static void store_metrics(const struct world *w, struct strbuf *out)
{
    struct store_stats s;
    store_stats(w->store, &s);
    metric(out, "db_calls_total", "counter", (int64_t)s.calls);
    metric(out, "db_failed_total", "counter", (int64_t)s.failed);
    metric(out, "db_unknown_total", "counter", (int64_t)s.unknown);
    metric(out, "db_reconnects_total", "counter", (int64_t)s.reconnects);
    metric(out, "db_in_flight", "gauge", (int64_t)s.in_flight);
    metric(out, "db_waiting", "gauge", (int64_t)s.waiting);
    metric(out, "db_connected", "gauge", s.connected);
    metric(out, "book_batches_total", "counter", (int64_t)s.batches);
    metric(out, "booked_total", "counter", (int64_t)s.booked);
    metric(out, "book_lost_total", "counter", (int64_t)s.lost);
}

/* What billd last found, when the database answers: the rest is told without it. */
static enum flow_turn metrics_read(struct flow *f)
{
    if (!store_is_ready(world_of(f)->store))
        return FLOW_MORE;
    return db_call(f, STORE_CHECKS_LAST, STORE_NO_ARGS);
}

/* Of each kind of roll-up, how old the instant is up to which it has everything, and
 * how long ago the newest hour ended that it has as a whole. */
static void rollup_metrics(const json_t *rollups, int64_t now_us, struct strbuf *out)
{
    static const char *const names[] = {"rollup_age_seconds",
                                        "rollup_hour_age_seconds"};
    const json_t *kind;
    size_t i;
    for (int hours = 0; hours < 2; hours++) {
        strbuf_addf(out, "# TYPE neargpu_%s gauge\n", names[hours]);
        json_array_foreach(json_object_get(rollups, "kinds"), i, kind)
        {
            const json_t *until = json_object_get(kind, "until_us");
            if (!json_is_integer(until))
                continue; /* never: late says so */
            int64_t us = json_integer_value(until);
            us -= hours ? us % US_PER_HOUR : 0;
            strbuf_addf(out, "neargpu_%s{rollup=\"%s\"} %" PRId64 "\n", names[hours],
                        json_string_value(json_object_get(kind, "name")),
                        (now_us - us) / US_PER_S);
        }
    }
    metric(out, "rollup_late", "gauge", json_is_true(json_object_get(rollups, "late")));
}

static void ledger_metrics(struct flow *f, struct strbuf *out)
{
    const struct db_slot *db = db_of(f);
    const json_t *checked;
    json_t *rows;
    const char *name;
    if (!db->answered || db_failed(f))
        return;
    strbuf_adds(out, "# TYPE neargpu_ledger_breaches gauge\n");
    json_object_foreach(json_object_get(db->json, "checks"), name, rows)
        strbuf_addf(out, "neargpu_ledger_breaches{check=\"%s\"} %" PRId64 "\n", name,
                    (int64_t)json_integer_value(rows));
    metric(out, "receipt_forks", "gauge",
           json_integer_value(json_object_get(db->json, "receipt_forks")));
    checked = json_object_get(db->json, "checked_us");
    if (json_is_integer(checked))
        metric(out, "ledger_checked_age_seconds", "gauge",
               (f->now_us - json_integer_value(checked)) / 1000000);
    rollup_metrics(json_object_get(db->json, "rollups"), f->now_us, out);
}

static enum flow_turn metrics_reply(struct flow *f)
{
    const struct world *w = world_of(f);
    struct flow_stats s;
    struct strbuf out = STRBUF_INIT;
    flow_runner_stats(f->runner, &s);
    metric(&out, "flows_live", "gauge", (int64_t)s.live);
    metric(&out, "flows_started_total", "counter", (int64_t)s.started);
    metric(&out, "flows_finished_total", "counter", (int64_t)s.finished);
    metric(&out, "flows_abandoned_total", "counter", (int64_t)s.abandoned);
    metric(&out, "flow_steps_total", "counter", (int64_t)s.steps);
    metric(&out, "flows_refused_total", "counter", (int64_t)s.refused);
    metric(&out, "world_nodes", "gauge", (int64_t)w->node_count);
    metric(&out, "world_offers", "gauge", (int64_t)w->offer_count);
    metric(&out, "world_bookings", "gauge",
           (int64_t)calendar_booking_count(w->calendar));
    metric(&out, "world_lanes", "gauge", (int64_t)calendar_booking_count(w->lanes));
    metric(&out, "world_spot_bookings", "gauge", (int64_t)w->spot_count);
    metric(&out, "waiting_orders", "gauge", (int64_t)w->order_count);
    metric(&out, "world_changes_total", "counter", (int64_t)w->changes);
    metric(&out, "world_reloads_total", "counter", (int64_t)w->reloads);
    store_metrics(w, &out);
    ledger_metrics(f, &out);
    if (w->more_metrics != NULL)
        w->more_metrics(w->more_metrics_arg, &out);
    enum flow_turn turn =
        flow_reply_text(f, 200, "text/plain; version=0.0.4", strbuf_str(&out), out.len);
    strbuf_done(&out);
    return turn;
}
static const struct flow_step metrics_steps[] = {{"read", metrics_read},
                                                 {"reply", metrics_reply}};
const struct flow_kind flow_metrics =
    FLOW_KIND_DONE("flow_metrics", struct db_state, metrics_steps, db_done);

/* ---- the API's description ---- */

static enum flow_turn openapi_reply(struct flow *f)
{
    flow_header(f, "Cache-Control", "public, max-age=3600");
    return flow_reply_text(f, 200, "application/json", openapi_json, openapi_json_len);
}
SERVER_KIND(openapi, openapi_reply);

/* ---- for administrators ---- */

static enum flow_turn admin_read(struct flow *f)
{
    struct err err;
    if (!db_no_query(f, &err))
        return flow_fail(f, &err);
    return db_call(f, STORE_ADMIN_STATUS, STORE_NO_ARGS);
}

/* Sites whose measurements do not fit the place they claim: somebody has to look. */
static json_t *doubtful_sites(const struct world *w)
{
    json_t *out = json_array();
    struct topo_doubt d;
    for (size_t i = 0; i < w->site_count; i++) {
        if (!topo_place_contradicted(w->topo, (int)i, &d))
            continue;
        bool known = d.data >= 0 && (size_t)d.data < w->data_count;
        json_array_append_new(
            out, json_pack("{s:s, s:s, s:o, s:I, s:I}", "site", w->sites[i].name,
                           "verdict", topo_verdict_name(d.verdict), "dataset",
                           known ? json_string(w->data[d.data].name) : json_null(),
                           "measured_us", (json_int_t)d.measured_us, "expected_us",
                           (json_int_t)d.expected_us));
    }
    return out;
}

/* Which key signs, until when the key set is believed, and where the root is. */
static json_t *keys_json(const struct world *w, int64_t now_us)
{
    bool root = issuer_has_root(w->issuer);
    return json_pack("{s:o, s:b, s:s}", "expires_at",
                     jsonx_time(issuer_expires_us(w->issuer)), "root_here", root,
                     "advice",
                     issuer_expires_us(w->issuer) <= now_us
                         ? "the key set has expired: nodes start nothing; see neargpud "
                           "keys"
                     : root ? "the root key is on this server: move it away"
                            : "");
}

static enum flow_turn admin_reply(struct flow *f)
{
    const struct world *w = world_of(f);
    char kid[JWS_KID_MAX];
    if (db_failed(f))
        return db_fail(f);
    json_t *reply = render_times(db_of(f)->json);
    json_object_set_new(reply, "market", json_string(w->market));
    json_object_set_new(reply, "currency", json_string(w->currency));
    json_object_set_new(reply, "doubtful_sites", doubtful_sites(w));
    json_object_set_new(reply, "keys", keys_json(w, f->now_us));
    issuer_kid(w->issuer, f->now_us, kid);
    json_object_set_new(
        reply, "server",
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:s}", "version", PACKAGE_VERSION,
                  "signer", kid, "offers", (json_int_t)w->offer_count, "bookings",
                  (json_int_t)calendar_booking_count(w->calendar), "waiting",
                  (json_int_t)w->order_count, "ca_sha256", ca_sha256(w->ca)));
    return flow_reply_json(f, 200, reply);
}

static const struct flow_step admin_steps[] = {{"read", admin_read},
                                               {"reply", admin_reply}};
const struct flow_kind flow_admin_status =
    FLOW_KIND_DONE("flow_admin_status", struct db_state, admin_steps, db_done);
