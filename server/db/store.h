/* store: every operation on the database, asynchronous, as one table.
 *
 * Charter: a pool of pipelined connections (server/db/pgconn.h) on the caller's event
 * base, the table of operations (store_ops.c: SQL API function, parameter types, lane),
 * the two group-committed writers (batch.h) and the change feed's wake-up. It decides
 * nothing: rules live in sql/api and server/core. It keeps no state of the market.
 *
 * Invariants
 *  - Each call's done function is called exactly once, from the event loop, never from
 *    inside store_call() itself. Results are borrowed: copy or json_incref() what
 * stays.
 *  - done runs inside the drain of a connection: it must only copy and mark a flow
 * ready.
 *  - STORE_OK means committed (PostgreSQL answered after its fsync).
 *  - STORE_UNKNOWN: sent, but the connection was lost before the answer. Reads are
 *    retried by the store itself; writes are not: re-read by the idempotency key.
 *
 * Conventions of all operations
 *  - Instants are int64 us since the epoch, in and out ("…_us"); money int64
 * micro-units
 *    ("…_micro"); hashes go in as 32 raw bytes and come out as lower-case hex; ids of
 *    sites, nodes, data sets, bookings are integers, of tenants, providers,
 *    reservations, quotes uuid text. SQL null goes in as S_NULL, comes out as JSON
 * null.
 *  - GPUs of a booking are `first`,`count` relative to the node (bit numbers 0..63).
 *  - Functions refuse with SQLSTATE "NGnnn" where nnn is the enum err_code; err has
 * code and text ready to be shown (NG005 -> ERR_NOT_FOUND). Everything else is
 *    ERR_INTERNAL (not to be shown), but 08xxx, 57P0x, 53xxx: ERR_UNAVAILABLE.
 *  - IDEM below stands for three arguments: principal (text, e.g. "admin:KEYHASH" or
 * the tenant's id), idempotency key (text or S_NULL), hash of the request (bytes or
 *    S_NULL). A repeated key gives the first reply again with "replayed": true, another
 *    hash under it ERR_KEY_REUSED.
 *  - PAGE stands for two: cursor (text or S_NULL: from the start), limit (int). The
 *    reply has "next": text|null. */
#ifndef NEARGPU_STORE_H
#define NEARGPU_STORE_H
#include <event2/event.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/bounds.h"
#include "client/lib/err.h"
#include "client/lib/uuid.h"

struct store;

/* ---- arguments --------------------------------------------------------------- */

enum store_type {
    STORE_T_NULL,
    STORE_T_TEXT, /* also uuid */
    STORE_T_INT,
    STORE_T_BOOL,
    STORE_T_REAL,
    STORE_T_BYTES,
    STORE_T_JSON,
};
struct store_arg {
    enum store_type type;
    union {
        const char *text;
        int64_t i;
        double d;
        const void *bytes;
        const json_t *json;
    };
    size_t len; /* STORE_T_BYTES */
};
/* A NULL text or json is SQL null. Everything is copied by store_call(). */
#define S_NULL    ((struct store_arg){.type = STORE_T_NULL})
#define S_TEXT(s) ((struct store_arg){.type = STORE_T_TEXT, .text = (s)})
#define S_INT(n)  ((struct store_arg){.type = STORE_T_INT, .i = (n)})
#define S_BOOL(b) ((struct store_arg){.type = STORE_T_BOOL, .i = (b)})
#define S_REAL(x) ((struct store_arg){.type = STORE_T_REAL, .d = (x)})
#define S_JSON(v) ((struct store_arg){.type = STORE_T_JSON, .json = (v)})
#define S_BYTES(p, n) \
    ((struct store_arg){.type = STORE_T_BYTES, .bytes = (p), .len = (n)})
#define STORE_ARGS(...)                      \
    (const struct store_arg[]){__VA_ARGS__}, \
        sizeof((struct store_arg[]){__VA_ARGS__}) / sizeof(struct store_arg)
#define STORE_NO_ARGS NULL, 0

/* ---- results ----------------------------------------------------------------- */

enum store_status { STORE_OK, STORE_FAILED, STORE_UNKNOWN };

enum store_book_outcome {
    STORE_BOOK_OK,
    STORE_BOOK_DUPLICATE,  /* same key, same hash: id is the one booked earlier */
    STORE_BOOK_KEY_REUSED, /* same key, other hash */
    STORE_BOOK_LOST, /* a GPU or lane is taken, not in the node's block or the path's,
                        node retired, path down; a victim is no longer spot, or its cut
                        is less than its notice away; the order waits no more */
    STORE_BOOK_FUNDS,
    STORE_BOOK_BUDGET, /* the tenant's own, which is hard */
};
struct store_booked {
    enum store_book_outcome outcome;
    char id[UUID_TEXT];        /* OK, DUPLICATE */
    const int64_t *booking_id; /* OK: one a booking, in the order they were given */
    size_t booking_count;
    const int64_t *lane_booking_id; /* OK: the same of the paths */
    size_t lane_booking_count;
};

struct store_result {
    enum store_status status;
    struct err err;   /* when not STORE_OK (UNKNOWN: ERR_UNKNOWN) */
    char sqlstate[6]; /* "" when not from the database */
    json_t *json;     /* "json" operations: borrowed; NULL for the others */
    const struct store_booked *booked; /* store_book() only */
    void *rows; /* "rows" operations: read with the functions below */
};
size_t store_rows(const struct store_result *r);
bool store_is_null(const struct store_result *r, size_t row, int col);
const char *store_text(const struct store_result *r, size_t row, int col); /* "" null */
int64_t store_i64(const struct store_result *r, size_t row, int col);      /* 0 null */
double store_real(const struct store_result *r, size_t row, int col);

typedef void store_done_fn(void *arg, uint64_t id, const struct store_result *r);
struct store_to {
    store_done_fn *done;
    void *arg;   /* e.g. the flow runner */
    uint64_t id; /* e.g. the flow's id: never a pointer to a flow */
};
static inline struct store_to store_to(store_done_fn *done, void *arg, uint64_t id)
{
    return (struct store_to){done, arg, id};
}

/* ---- operations -------------------------------------------------------------- */

enum store_op {
    /* The market's people and places. All json. */
    STORE_MARKET,            /* () -> {name, currency, fee_ppm, tax_ppm, issuer_name,
                                      hold_window_us} */
    STORE_TENANT_CREATE,     /* (name, zone|null, credit_micro, key_hash, IDEM)
                                -> {id, name} */
    STORE_TENANT_LIST,       /* (PAGE) -> {tenants:[{id,name,zone,created_us,priority,
                                available_micro, held_micro, currency}], next} */
    STORE_TENANT_KEY_ADD,    /* (tenant_id, jkt, ssh, name) -> KEY {jkt, key, name,
                                created_us}; one that is there: the same again */
    STORE_TENANT_KEY_LIST,   /* (tenant_id) -> {keys:[KEY]} */
    STORE_TENANT_KEY_REMOVE, /* (tenant_id, jkt) -> {} */
    STORE_TENANT_PRIORITY,   /* (tenant name, priority int -1000..1000) -> {id, name,
                                priority}; its orders that wait have it at once */
    STORE_TOPUP,             /* (tenant name, amount_micro, currency, reference, IDEM)
                                -> {balance_micro, currency} */
    STORE_PROVIDER_CREATE,   /* (name, fee_ppm|null, key_hash, IDEM) -> {id, name} */
    STORE_PROVIDER_LIST,     /* (PAGE) -> {providers:[{id,name,fee_ppm,created_us}]} */
    STORE_SITE_CREATE,       /* (name, city, lat real, lon real, residency,
                                zone|null: "", IDEM)
                                -> {id, name, city, lat, lon, residency, zone} */
    STORE_SITE_PATCH,        /* (name, zone) -> as STORE_SITE_CREATE */
    STORE_SITE_LIST,      /* () -> {sites:[{id,name,city,lat,lon,residency,zone,nodes,
                             gpus}]} */
    STORE_JOIN_CODE,      /* (provider_id, site name, node name, code_hash, expires_us,
                             IDEM) -> {expires_us, site, node} */
    STORE_NODE_LIST,      /* (provider_id|null: all, PAGE) -> {nodes:[{id, name, site,
                             provider, gpu_model, gpus, idle, leased, state, note,
                             last_sync_us, address, price_micro|null, currency,
                             cloned_us|null, banned_us|null, attested,
                             instance|null}]} */
    STORE_NODE_BAN,       /* (name, site|null: the only one, reason, by, now_us) ->
                             {node_id, node, site, state, reason, banned_us, banned_by} */
    STORE_NODE_UNBAN,     /* (name, site|null) -> as STORE_NODE_BAN */
    STORE_NODE_REATTEST,  /* (provider_id|null: any, name, site|null, code_hash,
                             expires_us, IDEM) -> as STORE_JOIN_CODE */
    STORE_PRICE_LIST,     /* (provider_id|null) -> {prices:[{site, provider, node,
                             gpu_model, from_us, to_us|null, per_gpu_hour_micro,
                             currency, spot_per_gpu_hour_micro|null,
                             notice_us|null}]}: those from now on */
    STORE_PRICE_SET,      /* (provider_id, site|null, node|null, gpu model|null,
                             per_gpu_hour_micro, currency, spot_per_gpu_hour_micro|null,
                             notice_us|null) -> {nodes: count}; ERR_NOT_FOUND when none
                             matches. Both null: spot terms stay; notice 0: sells no
                             spot any more; one alone keeps the other; a notice is 30 s
                             to 24 h */
    STORE_DATASET_ADD,    /* (tenant_id, name, endpoint, site name|null, lat|null,
                             lon|null, size_bytes|null, IDEM) -> DATASET */
    STORE_DATASET_LIST,   /* (tenant_id) -> {datasets:[DATASET]}; DATASET = {id, name,
                             endpoint, site|null, lat, lon, size_bytes|null,
                             created_us, rtts:[{node, site, min_us, p50_us, p99_us,
                             count, at_us}]} */
    STORE_DATASET_GET,    /* (tenant_id, name) -> DATASET */
    STORE_DATASET_REMOVE, /* (tenant_id, name) -> {id} */

    /* Paths between sites, sold in lanes 0..lanes-1. json. PATH = {id, name, provider,
       provider_id, from_site, from, to_site, to (site ids and names), lanes, lane_Bps,
       rtt_us|null, lossless, per_lane_hour_micro, currency, setup_us, state up|down,
       lit (lanes now)}. Tell: path.changed {path_id}. */
    STORE_PATH_CREATE, /* (name, provider name, from site name, to site name, lanes,
                          lane_Bps, rtt_us|null, lossless bool, per_lane_hour_micro,
                          setup_us, IDEM) -> PATH */
    STORE_PATH_PATCH,  /* (name, per_lane_hour_micro|null, setup_us|null, rtt_us|null,
                          lossless|null, state|null: up, down) -> PATH; null: as it is */
    STORE_PATH_LIST,   /* () -> {paths:[PATH]} by name */
    STORE_PATHS_DUE,   /* (now_us, claim_s, limit) -> {due:[{id, reservation, tenant,
                          path_id, path, provider, action "light"|"release", from, to
                          (site names), first, lanes, lane_Bps, bandwidth_Bps, from_us,
                          to_us}]}: what shall be lit or put out now, nobody else is told
                          of it for claim_s. Lanes that an earlier booking still has lit
                          are not lit before it is released */
    STORE_PATH_SET,    /* (id of a due entry, state "lit"|"released"|"failed"|null: it
                          stays and is due again after the claim, error text|null,
                          now_us) -> {id, state}. Repeating is harmless */

    /* Agents. json. */
    STORE_ENROLL,    /* (code_hash, receipt_key 32 bytes, market name)
                        checks and consumes the code, makes (or re-makes) the node ->
                        {node_id, node, site, site_id, provider, provider_id, spiffe_id};
                        the certificate's hash follows with STORE_CERT_SET. A code used
                        within its time by the same receipt_key answers again. */
    STORE_CERT_SET,  /* (node_id, cert_sha256) : the next certificate -> {} ; at
                        enrolment  and renewal. The old one stays valid until the new one
                        is used */
    STORE_CERT_USED, /* (node_id, cert_sha256) -> {}: makes next the current one */
    STORE_SYNC,      /* (node_id, observed json as on the wire with "at" of probes as
                        at_us and windows as {from_us,to_us}, price as {currency, micro}
                        or null, now_us) -> DESIRED; applies inventory, price, windows,
                        probes, leases (done/ready/quarantined). {refused: cloned or
                        banned, detail}: nothing was taken */
    STORE_DESIRED,   /* (node_id, reservations json ["id"…] the node reported, now_us)
                        -> DESIRED = {version, leases:[{reservation, tenant, gpus:[uuid],
                        not_before_us, not_after_us, epoch, generation, spot}], end:[{
                        reservation, reason}],
                        acks:[{reservation, seq}], next_us|null}; version does not
                        depend on acks. A spot lease is told in terms: never beyond now +
                        9/10 of its notice, rolled on each third of it under a growing
                        generation (reservation's x 2^20 + term); next_us: when the next
                        term is to be told. Or {refused, detail} as STORE_SYNC */
    STORE_RECEIPTS, /* (node_id, receipts json [{reservation, seq, hash (hex), prev (hex
                       or ""), kind, from_us, to_us, gpu_ms, epoch (if given, it
                       must be a booking's), gaps, jws, key (hex; none: the
                       node's newest)}], now_us) ->
                       {acks:[{reservation,seq}], rejected:[{reservation, seq, code,
                       detail}]}; signatures are checked by the caller before */

    /* Reservations. json. RESV = {id, tenant (name), tenant_id, state, reason,
       created_us, start_us|null, end_us|null (null while it waits), ended_us|null,
       hold_until_us|null, nodes, groups:[{data, site, nodes}], coordinator|null,
       allocations:[{booking, rank, node_id, site_id, site, zone, provider, node,
       address, spiffe_id, first, count, gpus:[uuid], start_us, end_us, epoch,
       notice_us|null, per_gpu_hour_micro}], paths:[{booking, path_id, name, from, to,
       first, lanes, bandwidth_Bps, start_us, end_us, state planned|lit|released|failed,
       error, per_lane_hour_micro}], waiting null|{position, predicted_us|null,
       since_us, until_us, priority, why}, data:[…as booked], currency, per_hour_micro,
       total_micro, effective_micro, held_micro, captured_micro, released_micro,
       paid_until_us|null, funds_low_us|null, spot,
       fault|null, preempted_by|null, generation, quote_id|null, idem_hash, request}.
       A path's start_us includes its set-up; what it costs is lanes x price x time from
       the reservation's start.
       CHANGE = RESV + change:{delta_micro (> 0: the tenant pays more), new_total_micro,
       dry_run}; dry_run: everything is tried and undone, RESV is as it would be. */
    STORE_RESV_GET,    /* (tenant_id|null: any, id) -> RESV; ERR_NOT_FOUND */
    STORE_RESV_BY_KEY, /* (tenant_id, idem_key) -> RESV; after STORE_UNKNOWN */
    STORE_RESV_LIST,   /* (tenant_id|null, state|null, PAGE) -> {reservations:[RESV],
                          next}, newest first */
    STORE_RESV_EXTEND, /* (tenant_id|null, id, new_end_us, generation (0: any), dry_run
                          bool, now_us) -> CHANGE. Later: at the booked price, at most
                          LEASE_MAX_US long and HORIZON_US ahead (ERR_BAD_REQUEST).
                          Earlier: paid to the new end; what a node may have been told
                          stays blocked until its teardown or the old end.
                          ERR_CONFLICT, ERR_FUNDS */
    STORE_RESV_SHRINK, /* (tenant_id|null, id, gpus a node, generation, dry_run, now_us)
                          -> CHANGE; not started only, the first GPUs of each node stay;
                          ERR_CONFLICT */
    STORE_RESV_MOVE,   /* (tenant_id|null, id, generation, bookings json [{node_id,
                          site_id, first, count, from_us, to_us, per_gpu_hour_micro}],
                          paths json [{path_id, first, count, from_us, to_us,
                          price_micro}], start_us, end_us, prices json {per_hour_micro,
                          total_micro, effective_micro}, data json, extra json {groups,
                          coordinator, request} or null, keep_price bool, dry_run bool,
                          now_us) -> CHANGE. Not started only; new and old in one
                          commit. keep_price (the market's own re-placement): the tenant
                          pays what it paid, the event is reservation.replaced, else
                          reservation.moved. extra.request replaces the stored one.
                          ERR_CONFLICT (a place is taken, another generation, started),
                          ERR_FUNDS */
    STORE_RESV_CONFIRM, /* (tenant_id, quote_id, idem_key|null, hash|null, now_us) ->
                           RESV: the held reservation of that quote is paid for.
                           ERR_NOT_FOUND (none is held for it), ERR_CONFLICT (expired),
                           ERR_FUNDS, ERR_KEY_REUSED; a repeated one "replayed": true */
    STORE_RESV_CANCEL,  /* (tenant_id|null, id, reason, dry_run bool, now_us) -> CHANGE:
                           delta_micro is what comes back (< 0); of one that runs, the
                           rest of its window, which billing gives back */
    STORE_RESV_FAIL,    /* (id, fault, generation (0: any), now_us) -> RESV: cannot be
                           delivered; one that did not start gets everything back at once.
                           ERR_CONFLICT: it changed since */
    STORE_RESV_LOST, /* (now_us) -> {reservations:[RESV + lost:[node_id…]]}: confirmed,
                        not started, with a booking on a node that is lost or retired,
                        or not over and on one that is banned; also begun and banned
                        (bool); earliest start first, 500 at most */
    STORE_SITE_RESV, /* (site name, now_us) -> {site, reservations:[RESV]}: firm,
                        confirmed or active, with a booking there, by tenant; for a
                        drill; ERR_NOT_FOUND */

    /* The waiting list. json. Its order: priority (high first), since, id. */
    STORE_WAIT_PUT,  /* (id, tenant_id, request, until_us, spot bool, now_us,
                        idem_key|null: id, hash) -> RESV in state waiting; nothing
                        booked, no money held; "replayed": true; ERR_KEY_REUSED */
    STORE_WAIT_LIST, /* () -> {orders:[{id, tenant_id, tenant, priority, created_us,
                        until_us, spot, position, predicted_us|null, why, request,
                        generation}]} in order */
    STORE_WAIT_PLAN, /* (plan json [{id, position, predicted_us|null, why}]) ->
                        {changed: n}; orders that wait no more are passed over. Tells
                        reservation.planned where position or prediction changed */

    STORE_QUOTE_PUT,     /* (id, tenant_id, created_us, expires_us, request json, plan
                            json, hash, IDEM) -> {id, expires_us} */
    STORE_QUOTE_GET,     /* (tenant_id, id) -> {id, created_us, expires_us, request,
                            plan, hash}; ERR_NOT_FOUND */
    STORE_TOKEN_LOG,     /* (reservation_id, tokens json [{jti, node_id, jkt, kid,
                            issued_us, expires_us}]) -> {} */
    STORE_STATUS,        /* (now_us) -> {seq, revoked:[{reservation, reason}],
                            min_epochs:{}}: for the status document */
    STORE_TRANSITIONS,   /* (now_us, grace_us) -> {started:[id], ended:[id],
                            expired:[id]}: due by time (held ones whose hold and orders
                            whose time is over expire); idempotent; a reservation whose
                            node sent no teardown ends grace_us after its end */
    STORE_PRUNE,         /* (now_us) -> {events, idempotency, tokens, match_log, quotes,
                            more bool}: rows removed that nobody needs: events and replies
                            after 14 days, tokens 7 days and quotes 30 days after they
                            expired, the match log after 92 days; 20,000 of each at most
                            (more: there are others) */
    STORE_NODES_OVERDUE, /* (now_us, unknown_after_us, lost_after_us) -> {unknown:[id],
                           lost:[id]}: nodes that did not sync change state */

    /* Money and use. json. */
    STORE_WALLET,  /* (tenant_id, limit) -> {currency, available_micro, held_micro,
                      transfers:[{id, at_us, kind, amount_micro (signed as the
                      wallet sees it), reservation|null, ref|null}]} */
    STORE_USAGE,   /* (tenant_id|null, provider_id|null, reservation|null,
                      from_us|null, to_us|null, PAGE) -> {usage:[{reservation,
                      node, site, provider, from_us, to_us, gpu_ms, amount_micro,
                      currency, receipts:[{seq, kind, from_us, to_us, gpu_ms,
                      hash, jws}]}], next} */
    STORE_CHARGES, /* (tenant_id|null, invoice|null, from_us|null, to_us|null, PAGE) ->
                      {charges:[ as FOCUS has them, see sql/api/export.sql], next} */
    STORE_TENANT_BILLING, /* (tenant_id, name|null, address|null, language|null) ->
                             {name, address, language}; null: as it is */
    STORE_ADMIN_CREATE,   /* (name, key_hash, IDEM, who) -> {id, name, made_by, pending,
                             alone} */
    STORE_ADMIN_APPROVE,  /* (name, who) -> ADMIN {name, id, created_us, pending, alone,
                             made_by, approved_by, approved_us} */
    STORE_ADMIN_LIST,     /* () -> {admins:[ADMIN]} */
    STORE_ADMIN_REMOVE,   /* (name, who asks) -> {} */
    STORE_MARKET_TERMS,   /* () -> TERMS {dispute_window_s, reserve_ppm, reserve_for_s,
                             bank, issuer_address, hold_window_s} */
    STORE_MARKET_SET,     /* (window_s|null, reserve_ppm|null, reserve_for_s|null,
                             bank|null, hold_us|null, address|null) -> TERMS */
    STORE_PROVIDER_TERMS, /* (provider_id) -> PTERMS {name, bank, registration, zone,
                             reserve_ppm} */
    STORE_PROVIDER_BANK,  /* (provider_id, bank|null, registration|null) -> PTERMS */
    STORE_PROVIDER_RESERVE, /* (provider name, reserve_ppm|null: the market's) -> PTERMS
                             */
    STORE_PAYOUT_LIST, /* (provider_id|null, PAGE) -> {payouts:[PAYOUT], balances, next}
                        */
    STORE_PAYOUT_REQUEST, /* (provider name, micro|null: all, IDEM, who) -> PAYOUT */
    STORE_PAYOUT_ACT, /* (id, approve|reject|done|returned, reason|null, micro that came
                         back|null, fee micro|null, provider|market|null, who) ->
                         PAYOUT */
    STORE_PAYOUT_FILE_NEW,    /* (day, IDEM, who) -> FILE {id, pay_on, bank,
                                 payouts:[PAYOUT], …} */
    STORE_PAYOUT_FILE_GET,    /* (id) -> FILE */
    STORE_PAYOUT_RESULT_LIST, /* (PAGE) -> {results:[{id, at_us, read_by, format,
                                 sha256, count, done, returned, changed}], next} */
    STORE_PAYOUT_RESULTS,     /* (zengin|csv, client|null, sha256, lines as rows_of() in
                                 flow_payout_file.c, IDEM, who) -> {id, format, count,
                                 changed, lines:[{line, payout, provider, amount_micro,
                                 state, changed, on, reason}]} */
    STORE_STATEMENT, /* (provider_id, YYYY-MM) -> {opening, closing, captured, moved,
                        settled, refunded, payouts} */
    STORE_REFUND,    /* (reservation, micro|null: all, reason, by, IDEM, who) ->
                        {credit_notes:[NOTE]} */
    STORE_CREDIT_NOTE_LIST, /* (tenant_id|null, PAGE) -> {credit_notes:[NOTE], next} */
    STORE_CREDIT_NOTE_GET,  /* (tenant_id|null, number) -> NOTE with its lines and
                               document */
    STORE_DISPUTE_OPEN,  /* (tenant_id|null, reservation, reason, who) -> {reservation,
                            reason, by, since_us} */
    STORE_DISPUTE_CLOSE, /* (reservation, who) -> {reservation, by} */
    STORE_WITHDRAW,     /* (tenant name, micro, reference|null, IDEM) -> {balance_micro,
                           currency} */
    STORE_TAX_LIST,     /* () -> TAXES {rates:[{class, rate_ppm, from_us, to_us,
                           set_by}], rules:[{tenant, meter, gpu_model, class, from_us,
                           to_us, set_by}]} */
    STORE_TAX_RATE_SET, /* (body, by) -> TAXES */
    STORE_TAX_RULE_SET, /* (body, by) -> TAXES */
    STORE_INVOICE_LIST, /* (tenant_id|null, PAGE) -> {invoices:[{number, tenant,
                           currency, from_us, to_us, issued_us, net_micro, tax_micro,
                           tax_ppm|null, total_micro, taxes:[{class, rate_ppm,
                           base_micro, tax_micro}]}], next} */
    STORE_INVOICE_GET,  /* (tenant_id|null, number) -> the same plus {document,
                           lines:[{line, description, reservation, quantity_gpu_ms,
                           amount_micro, tax_class}]} */
    STORE_RECEIPTS_SIGNED, /* (node_id, [{reservation, seq, hash, countersign}]) ->
                              {countersigns:[{reservation, seq, countersign}]}: as they
                              are kept; the first one given stays */
    STORE_AUDIT_PUT,  /* ([{at_us, actor, address, method, path, status, request_id}])
                         -> {} */
    STORE_AUDIT_LIST, /* (actor that sees its own|null, from_us|null, to_us|null,
                         actor|null, "METHOD /path…"|null, part of a path|null, PAGE)
                         -> {audit:[{at_us, actor, address, action, status,
                         request_id}], next}, newest first */
    STORE_LOG_CHECKPOINT, /* (log, from_size, witness|null) -> {log, vkey, size,
                             checkpoint, tiles:
                             [{level, index, hashes: hex}]}: those that prove that it
                             extends the log of from_size leaves (0: none) */
    STORE_LOG_NOTE,    /* (log, size, witness) -> {note, vkey}: a head and the witness's
                          key */
    STORE_LOG_COSIGN,  /* (log, size, witness, line) -> {log, size, witness}; once */
    STORE_WITNESS_ADD, /* (name, vkey, tenant_id|null, provider_id|null) -> {name, vkey,
                          added_us} */
    STORE_WITNESS_LIST, /* (nodes too?) -> {witnesses:[{name, vkey, added_us, last_us,
                           age_s} and of a node {node, site, log, size, refused_us,
                           why}]} */
    STORE_AGENT_LOG, /* (node_id, {sizes?:{NAME: size}, cosignatures:[{log, size}]}) ->
                        {heads:[{log, vkey, size, checkpoint, tiles}], notes:[{log,
                        size, note}]}: of `sizes` what proves that they are extended */
    STORE_AGENT_COSIGN, /* (node_id, name, vkey, [{log, size, line}], [{log, detail}]:
                           refused, address, request_id) -> {} */
    STORE_LOG_BUNDLE,   /* (tenant_id|null, invoice|null, reservation|null) -> {format,
                           market, logs:{NAME:{vkey, size, checkpoint}}, tiles:{NAME:
                           [as above]}, entries:[{log, index, nonce, record}], receipts:
                           [{node, key, receipt}]} */
    STORE_REPORT_LIST,  /* () -> {reports:[{name, description, period, filters}]} */
    STORE_REPORT,       /* (name, from_us|null, to_us|null, site|null, provider|null,
                           tenant|null, gpu_model|null, currency|null) -> {name,
                           fresh_as_of, from, to, filters, chart, columns:[{name,unit}],
                           rows:[[…]]}; read-only role */
    STORE_ADMIN_STATUS, /* () -> {tenants, providers, sites, nodes:{state: n}, gpus,
                           reservations:{state: n}, database:{version, size_bytes,
                           connections, now_us}, checks:[{name, rows}]} */

    STORE_CHECKS_LAST, /* () -> {checks:{name: rows}, checked_us|null, receipt_forks,
                          rollups}: what billd's last checks found */
    /* Budgets, credits, exchange. Bodies as they were sent; tenant_id null and the name
       of one: an administrator. BUDGET {tenant, currency, limit_micro, hard, period,
       from_us, to_us|null, held_micro, spent_micro, committed_micro, alerted_percent}
     */
    STORE_BUDGET_GET,    /* (tenant_id|null, tenant name|null) -> BUDGET */
    STORE_BUDGET_SET,    /* (tenant_id|null, tenant name|null, body) -> BUDGET */
    STORE_BUDGET_REMOVE, /* (tenant_id|null, tenant name|null) -> {tenant} */
    STORE_PROMO_GRANT, /* (body, by, IDEM) -> PROMO {id, tenant, currency, amount_micro,
                          used_micro, expired_micro, left_micro, expires_us, at_us,
                          reason} */
    STORE_PROMO_LIST,  /* (tenant_id|null, cursor, limit) -> {promos:[PROMO], next} */
    STORE_INCIDENT_OPEN,  /* (body, by, IDEM) -> INCIDENT {id, what, name, fault,
                             from_us,  to_us|null, reason, opened_by, reservation|null,
                             currency,  credits, credited_micro} */
    STORE_INCIDENT_CLOSE, /* (id, body, by) -> INCIDENT */
    STORE_INCIDENT_LIST,  /* (tenant_id|null, provider_id|null, cursor, limit) ->
                             {incidents:[INCIDENT], next} */
    STORE_SLA_TERMS,      /* () -> {terms:[{share_ppm, gap_s, credit_ppm}]} */
    STORE_SLA_TERMS_SET,  /* (body) -> the same */
    STORE_SLA_CREDIT,     /* (incident, body, by) -> {incident, credits:[{reservation,
                             amount_micro, currency}]} */
    STORE_FX_SET,  /* (body, by) -> {id, base, quote, rate, source, at_us, set_by} */
    STORE_FX_LIST, /* () -> {rates:[…]}: the newest of each pair */

    /* The change feed. A cursor is text; take FEED_HEAD first, then load the world,
       then CHANGES from that cursor: applying a change twice is harmless. */
    STORE_FEED_HEAD, /* () -> {cursor} */
    STORE_CHANGES,   /* (cursor, limit, own) -> {events:[EVENT], cursor, read}. Not own:
                        without the bookings of this server (origin), which it knows of;
                        read: how many were passed, these too. EVENT = {cursor,
                        at_us, kind, origin, tenant_id|null, reservation_id|null,
                        node_id|null, payload}. Kinds: reservation.confirmed .held
                        .waiting .planned .started .extended .shrunk .moved .replaced
                        .preempted .ended .cancelled .failed (payload {state, reason,
                        generation, start_us, end_us, spot, bookings:[{booking, node_id,
                        site_id, first, count, from_us, to_us, per_gpu_hour_micro,
                        notice_us|null}], lanes:[{booking, path_id, first, count, from_us,
                        to_us}]}, from=to: blocks nothing any more; .moved and .replaced
                        list what was left too), node.changed (inventory, windows, state,
                        address, certificate, domain), node.cloned .banned .unbanned
                        .attested .moved (payload {node, site, …}), node.probed (rtt;
                        payload {dataset_id}), price.changed (spot terms too),
                        dataset.changed (payload {dataset_id}), site.changed
                        ({site_id}), path.changed ({path_id}), path.lit .released
                        .failed (payload {booking, path_id, error}), key.changed,
                        wallet.changed */
    STORE_EVENTS,    /* (tenant_id|null, provider_id|null, cursor|null, limit) -> as
                        STORE_CHANGES, only what that principal may see, without origin */

    /* World load. rows: the columns in order. An id as argument: that one only. */
    STORE_WORLD_KEYS,     /* () hash hex, role, tenant_id, provider_id, name, key id */
    STORE_WORLD_SITES,    /* (id|null) id, name, city, lat, lon, residency, zone */
    STORE_WORLD_NODES,    /* (id|null) id, site_id, provider_id, provider name, name,
                             spiffe_id, cert hex, next cert hex, receipt_key hex, gpus
                             count, gpu_model, gpu_memory_mib, offered mask, windows
                             json [[from_us,to_us]…], address, state, last_sync_us,
                             price per_gpu_hour_micro now (null none), currency, gpu
                             uuids json [uuid…] in bit order, domain, spot price (null
                             none), notice_us (0: sells no spot), earlier receipt
                             keys json [hex…] */
    STORE_WORLD_DATASETS, /* (id|null) id, tenant_id, name, endpoint, site_id, lat, lon,
                             size_bytes, removed bool as 0/1 */
    STORE_WORLD_RTTS,     /* (node_id|null) node_id, dataset_id, min_us, p50_us, p99_us,
                             count, at_us */
    STORE_WORLD_PATHS, /* (id|null) id, name, provider name, from site id, to site id,
                          lanes, lane_Bps, rtt_us (null none), lossless 0/1,
                          price_micro per lane-hour, setup_us, state up|down */
    STORE_WORLD_BOOKINGS, /* (now_us) booking, node_id, first, count, from_us, to_us,
                             and for spot leases (null: firm) reservation_id, spot 0/1
                             (preemptible still), started_us (the reservation's start),
                             per_gpu_hour_micro, notice_us (0 firm): all that end later
                             than now */
    STORE_WORLD_LANES,    /* (now_us) booking, path_id, first, count, from_us, to_us,
                             reservation_id: all that end later than now */
    STORE_OP_COUNT
};

/* What a reservation takes from one node. */
struct store_booking {
    int node_id, site_id;
    int first, count; /* GPUs of the node */
    int64_t from_us, to_us;
    int64_t per_gpu_hour_micro;
};
/* What a reservation takes from one path: neighbouring lanes. */
struct store_path_booking {
    int path_id;
    int first, count;
    int64_t from_us, to_us; /* set-up included: begins that long before the start */
    int64_t price_micro;    /* a lane-hour, from the reservation's start on */
};
/* A spot reservation that makes room in the same commit. One that a node may have been
 * told of (it runs, or starts within its notice) is cut to cut_us, not less than its
 * notice away; any other goes whole: back to the waiting list if its request had wait,
 * else cancelled, and everything is given back. */
struct store_preempt {
    char id[UUID_TEXT];
    int64_t cut_us;
};
struct store_book {
    char id[UUID_TEXT], tenant_id[UUID_TEXT], quote_id[UUID_TEXT]; /* quote "" none */
    int64_t now_us, start_us, end_us;
    const json_t *request, *data; /* data: array, may be NULL */
    char currency[4];
    int64_t per_hour_micro, total_micro, effective_micro; /* total is held */
    const char *idem_key;     /* "" none given: the caller passes the id */
    const uint8_t *idem_hash; /* 32 bytes */
    bool spot;
    bool waiting; /* id is an order that waits: it is booked; key and hash are not
                     looked at */
    int64_t hold_until_us; /* not 0: state held until then, no money moves */
    const json_t *extra;   /* {groups:[…], coordinator}, may be NULL */
    const struct store_booking *bookings; /* 1..GANG_NODES_MAX, in the order of ranks */
    size_t booking_count;
    const struct store_path_booking *paths; /* at most STORE_PATHS_MAX */
    size_t path_count;
    const struct store_preempt *preempts; /* at most STORE_PREEMPTS_MAX */
    size_t preempt_count;
};
/* A gang's data sets times the groups. */
#define STORE_PATHS_MAX 256
/* All spot leases of a node of one-GPU leases, on each node of a gang. */
#define STORE_PREEMPTS_MAX 4096

struct store_match_log {
    int64_t at_us;
    const char *tenant_id;      /* "" none */
    const char *kind, *outcome; /* as the table's CHECKs */
    int64_t match_us;
    const char *gpu_model;
    int gpus;
    int64_t duration_s;
    int site_id, dataset_id;      /* 0 none */
    int64_t rtt_us, slowdown_ppm; /* 0 none */
    const char *why;
};

struct store_opts {
    const char *conninfo;        /* libpq conninfo; user neargpu_server */
    const char *report_conninfo; /* user neargpu_report; NULL: no reports */
    int readers;                 /* connections for single operations, 0: 4 */
    int writers;                 /* booking writers, 0: 1; two at most */
    const char *origin;          /* this server instance's name in events */
    /* NOTIFY arrived (or the feed should be read because the connection was renewed):
       a hint to call STORE_CHANGES. own: only bookings of store_book(). May be NULL. */
    void (*on_change)(void *arg, bool own);
    void *arg;
};
struct store_stats {
    uint64_t calls, failed, unknown, reconnects;
    uint64_t batches, booked, lost;
    size_t in_flight, waiting;
    int connected, connections;
};

/* Connects in the background; calls made before wait (bounded), then ERR_UNAVAILABLE.
 */
struct store *store_new(struct event_base *base, const struct store_opts *opts);
/* Calls still open end with ERR_UNAVAILABLE or STORE_UNKNOWN before it returns. */
void store_free(struct store *s);
/* Connected well enough to serve. */
bool store_is_ready(const struct store *s);
void store_stats(const struct store *s, struct store_stats *ret);

/* args must match the operation's table (assertion). */
void store_call(struct store *s, enum store_op op, const struct store_arg *args,
                size_t count, struct store_to to);
/* Joins the next group commit. Result: r->booked. */
void store_book(struct store *s, const struct store_book *b, struct store_to to);
/* Written in batches, best effort, no answer; dropped (and counted) when the database
 * lags behind. */
void store_log_match(struct store *s, const struct store_match_log *m);

#endif
