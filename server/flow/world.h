/* world: the server's own copy of the market, for matching and for knowing who asks.
 *
 * Charter: sites, nodes grouped into offers, data sets and round trips, calendars, API
 * keys and agents' certificates, the list of revoked leases. Loaded at start, then kept
 * by the change feed and by this server's own commits. Flows read the tables; only
 * world*.c writes them. It decides nothing: the database does, and a copy that is
 * behind costs a lost race, never a wrong promise.
 *
 * Invariants
 *  - Indexes (site, node, data set, offer) are dense and belong to this process; `id`
 *    is the database's number. Sites, nodes and data sets are never removed.
 *  - An offer is a group of like nodes: same site, provider, model, memory, price. Its
 *    index is the calendar's model index of its nodes.
 *  - A try (world_try) blocks GPUs in the calendar while their booking is being
 *    committed, so that the requests of one server do not race each other; it is always
 *    ended by world_try_end.
 *  - The feed is level-triggered at the end: whatever fails to be read leads to a full
 *    reload (world_tick). */
#ifndef NEARGPU_WORLD_H
#define NEARGPU_WORLD_H
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/lib/digest.h"
#include "client/lib/err.h"
#include "client/lib/strbuf.h"
#include "client/lib/uuid.h"
#include "server/core/calendar.h"
#include "server/core/match.h"
#include "server/core/topo.h"
#include "server/db/store.h"
#include "server/flow/flow.h"
#include "server/issuer/ca.h"
#include "server/issuer/issuer.h"

/* A node not heard of for this long is not offered any more; a server that has just
 * started waits as long before it says so of anybody. */
#define WORLD_UNKNOWN_US INT64_C(90000000)
#define WORLD_LOST_US    (INT64_C(15) * 60 * 1000000)
/* Signed status documents: the list behind one is at most this old. */
#define WORLD_STATUS_LIST_US  INT64_C(5000000)
#define WORLD_STATUS_STALE_US INT64_C(30000000)

struct world_site {
    int id;
    char *name, *city;
    char residency[3];
    struct topo_place place;
};

struct world_node {
    int id;
    bool known; /* its row was read; before, only its bookings are */
    int site;   /* index */
    char provider_id[UUID_TEXT];
    char *provider, *name, *spiffe_id, *address, *gpu_model, *state;
    uint8_t cert[SHA256_LEN], next_cert[SHA256_LEN]; /* all zero: none */
    uint8_t receipt_key[SHA256_LEN];
    int gpus;
    int64_t memory_mib;
    uint64_t offered;
    struct calendar_span *windows;
    size_t window_count;
    int64_t last_sync_us;
    int64_t price_micro; /* per GPU-hour, -1: none, so not on offer */
    json_t *gpu_uuids;   /* in bit order */
    int offer;           /* index, -1: none */
    bool counted_up;     /* in its offer's nodes_up */
    int64_t ticks, ticks_up;
    uint64_t sync_flow; /* its long poll, 0: none */
    uint64_t wakes;     /* how often it was to look again, heard or not */
};

struct world_rtt_sample {
    int node;
    struct topo_rtt rtt;
};
struct world_data {
    int id;
    bool known, removed;
    char tenant_id[UUID_TEXT];
    char *name, *endpoint;
    int site; /* index, -1: elsewhere */
    struct topo_place place;
    struct world_rtt_sample *samples;
    size_t sample_count;
};

/* Beside each match_offer: who it is and what it is made of. */
struct world_offer {
    char *key; /* of the group */
    char provider_id[UUID_TEXT];
    char *provider, *gpu_model; /* what the match_offer borrows */
    int nodes, nodes_up;
};

struct world_booking {
    int64_t id;
    int node, first, count;
    struct calendar_span during;
};

struct world_opts {
    const char *market; /* name; issuer is https://MARKET */
    const char *currency;
    int64_t tax_ppm; /* what invoices add to prices */
    struct ca *ca;
    struct issuer *issuer;
    int64_t probe_interval_us, receipt_interval_us; /* what agents are told */
    int64_t now_us;
};

struct world {
    char *market, *currency;
    int64_t tax_ppm;
    struct store *store;
    struct ca *ca;
    struct issuer *issuer;
    struct flow_runner *runner;
    int64_t probe_interval_us, receipt_interval_us;
    /* Metrics of layers above this one, in Prometheus' text form; may be NULL. */
    void (*more_metrics)(void *arg, struct strbuf *out);
    void *more_metrics_arg;

    struct calendar *calendar;
    struct topo *topo;
    struct world_site *sites;
    size_t site_count;
    struct world_node *nodes;
    size_t node_count;
    struct world_data *data;
    size_t data_count;
    struct match_offer *offers; /* parallel with offer_info */
    struct world_offer *offer_info;
    size_t offer_count;

    /* Private to world*.c from here. */
    struct world_ids *ids; /* database id -> index */
    json_t *keys;          /* key hash hex -> {role, tenant_id, provider_id, name} */
    json_t *agents;        /* SPIFFE id -> node index */
    json_t *data_names;    /* "TENANT/NAME" -> data index */
    json_t *offer_keys;    /* group key -> offer index */
    int64_t try_last;      /* tries have ids below zero */
    size_t try_count;
    uint64_t *try_waiters; /* flows */
    size_t try_waiter_count;

    /* Bookings told of while the tables are being read, which may lack them. */
    struct world_booking *late;
    size_t late_count;
    bool loading;

    bool loaded;
    bool reload;   /* the copy cannot be trusted: load again */
    bool polling;  /* a read of the feed or a load is on its way */
    bool poll_due; /* asked for while one was */
    int64_t
        own_until_us; /* boot clock: until then the feed tells of our own bookings */
    size_t load_step;
    int64_t load_asked_us;
    char *cursor;
    int64_t started_us;
    int64_t ticked_us, overdue_us, moved_us, expired_us;
    uint64_t changes, reloads;

    json_t *revoked; /* array of reservation ids */
    int64_t revoked_seq, revoked_at_us;
    bool revoked_due, revoked_asked;
    char *status_doc;
    int64_t status_doc_us;
};

struct world *world_new(const struct world_opts *opts);
void world_free(struct world *w);
/* After the store and the runner exist; starts loading. */
void world_start(struct world *w, struct store *store, struct flow_runner *runner);

/* For net/: who asks (struct flow_auth's functions; env is the world). */
int world_auth_lookup(void *env, const uint8_t key_hash[32],
                      struct flow_principal *ret);
int world_agent_lookup(void *env, const char *uri, const char *thumbprint,
                       struct flow_principal *ret);
/* A key this server has just made: known at once, before the feed tells. */
void world_add_key(struct world *w, const uint8_t hash[32], const char *role,
                   const char *id, const char *name);

/* Indexes, -1 when there is none. */
int world_site_find(const struct world *w, const char *name);
int world_node_find(const struct world *w, int node_id);
int world_data_find(const struct world *w, const char *tenant_id, const char *name);
struct world_node *world_node_of(struct world *w, const struct flow_principal *agent);

/* GPUs that are about to be booked. Returns the try's id. */
int64_t world_try(struct world *w, const struct calendar_slot *slot, int gpus,
                  int64_t end_us);
void world_try_end(struct world *w, int64_t try_id);
/* Wakes the flow when the next try ends: what it found busy may be free again. */
void world_try_wait(struct world *w, uint64_t flow_id);
/* A committed booking; from = to: it blocks nothing any more. */
void world_book(struct world *w, int64_t booking_id, int node, int first, int count,
                const struct calendar_span *during);

/* The agent's long poll, if one waits, looks again. */
void world_wake_node(struct world *w, int node);
/* Something was or may have been committed by us or others: read the feed. */
void world_poll(struct world *w);
/* A booking of ours has an outcome that is not known. */
void world_unknown(struct world *w);
/* Reads one row (id 0: all) of a WORLD_ table again and wakes the flow (0: none): for
 * those who must see at once what they have just written. */
void world_read(struct world *w, enum store_op op, int64_t id, uint64_t flow_id);
/* For store_opts.on_change. Of our own bookings the calendars know already; the next
 * tick moves the cursor past them. */
void world_hint(struct world *w, bool own);
/* What is due by time: liveness, transitions, feed, revocations. About once a second.
 */
void world_tick(struct world *w, int64_t now_us);

/* The signed status document, at most a blink old; NULL while the list of revoked
 * leases is too old to be vouched for. Borrowed. */
const char *world_status_doc(struct world *w, int64_t now_us);

/* ---- used between world*.c ---- */
void world_put_sites(struct world *w, const struct store_result *r);
void world_put_nodes(struct world *w, const struct store_result *r);
void world_put_data(struct world *w, const struct store_result *r);
void world_put_rtts(struct world *w, const struct store_result *r);
void world_put_bookings(struct world *w, const struct store_result *r);
void world_put_keys(struct world *w, const struct store_result *r);
/* Into the calendar; of a booking beside the node's present places, nothing. */
void world_block(struct world *w, const struct world_booking *b);
int world_node_slot(struct world *w, int node_id); /* makes one when it is new */
void world_regroup(struct world *w, int node);     /* after its row changed */
void world_leave_offer(struct world *w, int node);
void world_count_up(struct world *w); /* reliability */

#endif
