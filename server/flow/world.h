/* world: the server's own copy of the market, for matching and for knowing who asks.
 *
 * Charter: sites, nodes grouped into offers, data sets and round trips, paths,
 * calendars of GPUs and lanes, spot bookings, API keys and agents' certificates, the
 * list of revoked leases. Loaded at start, then kept by the change feed and by this
 * server's own commits. Flows read the tables; only world*.c writes them. It decides
 * nothing: the database does, and a copy that is behind costs a lost race, never a
 * wrong promise.
 *
 * Invariants
 *  - Indexes (site, node, data set, offer, path) are dense and belong to this process;
 *    `id` is the database's number. Sites, nodes, data sets and paths are never
 * removed.
 *  - An offer is a group of like nodes: same site, provider, model, memory, price, spot
 *    price and notice. Offers move when one is removed; a group's model number, the
 *    calendars' model index of its nodes, stays.
 *  - A try (world_try_plan) blocks GPUs and lanes in the calendars while their booking
 *    is being committed, so that the requests of one server do not race each other; it
 *    is always ended by world_try_end. A shadow does the same for a standing order
 * whose turn has not come; nobody waits for a shadow to end.
 *  - The feed is level-triggered at the end: whatever fails to be read leads to a full
 *    reload (world_tick), which keeps neither tries nor shadows: a lost race at worst.
 */
#ifndef NEARGPU_WORLD_H
#define NEARGPU_WORLD_H
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/lib/digest.h"
#include "client/lib/err.h"
#include "client/lib/strbuf.h"
#include "client/lib/uuid.h"
#include "server/core/backfill.h"
#include "server/core/calendar.h"
#include "server/core/match.h"
#include "server/core/preempt.h"
#include "server/core/topo.h"
#include "server/db/store.h"
#include "server/flow/flow.h"
#include "server/flow/world_gens.h"
#include "server/flow/world_reads.h"
#include "server/issuer/ca.h"
#include "server/issuer/issuer.h"

/* How long what was heard of a reservation keeps older news of it out. */
#define WORLD_NEWS_US INT64_C(3600000000)
/* Signed status documents: the list behind one is at most this old. */
#define WORLD_STATUS_LIST_US  INT64_C(5000000)
#define WORLD_STATUS_STALE_US INT64_C(30000000)

/* Probes that one answer to an agent asks for; a node with more takes turns. */
#define WORLD_PROBES_MAX 64

struct world_site {
    int id;
    char *name, *city;
    char residency[3];
    char *zone; /* disaster zone, "" none */
    struct topo_place place;
    int *nodes; /* indexes */
    size_t node_count;
    json_t *domains; /* name of a fabric domain -> its number in the calendars */
    bool probes_due; /* nodes came or went: elect who measures anew */
    int64_t elected_us;
};

struct world_node {
    int id;
    bool known; /* its row was read; before, only its bookings are */
    int site;   /* index */
    char provider_id[UUID_TEXT];
    char *provider, *name, *spiffe_id, *address, *gpu_model, *state;
    uint8_t cert[SHA256_LEN], next_cert[SHA256_LEN]; /* all zero: none */
    uint8_t receipt_key[SHA256_LEN];
    json_t *earlier_keys; /* hex: receipts of them may still come */
    int gpus;
    int64_t memory_mib;
    uint64_t offered;
    struct calendar_span *windows;
    size_t window_count;
    int64_t last_sync_us;
    int64_t price_micro;                 /* per GPU-hour, -1: none, so not on offer */
    int64_t spot_price_micro, notice_us; /* notice 0: sells no spot */
    int domain;                          /* of the site's fabric, 0: the common one */
    json_t *gpu_uuids;                   /* in bit order */
    int model;                           /* of its offer: world_offer_of(); -1: none */
    int *probes; /* data sets (indexes) it measures for its site */
    size_t probe_count;
    bool counted_up; /* in its offer's nodes_up */
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
    size_t sample_count, sample_cap;
};

/* Beside each match_offer: who it is and what it is made of. */
struct world_offer {
    char *key; /* of the group */
    char provider_id[UUID_TEXT];
    char *provider, *gpu_model; /* what the match_offer borrows */
    int nodes, nodes_up;
};

/* Beside each match_path. */
struct world_path {
    int id;
    char *name;
};

/* One booking of GPUs. during empty: it blocks nothing any more. */
struct world_booking {
    int64_t id;
    int node, first, count;
    struct calendar_span during;
    bool spot; /* then firm demand may have it, and the rest counts */
    char reservation[UUID_TEXT];
    int64_t started_us; /* when the tenant's time began: what is lost grows from here */
    int64_t gpu_hour_micro, notice_us;
};
/* One booking of neighbouring lanes of a path. */
struct world_lanes {
    int64_t id;
    int path, first, count;
    struct calendar_span during;
};
/* A try or a shadow: a run of calendar ids below zero. count 0: none. */
struct world_try {
    int64_t last;
    int count;
    bool shadow;
};

struct world_opts {
    const char *market; /* name; issuer is https://MARKET */
    const char *currency;
    int64_t hold_window_us; /* of a lease's time so much is held ahead; 0: all */
    struct ca *ca;
    struct issuer *issuer;
    int64_t probe_interval_us, receipt_interval_us; /* what agents are told */
    int64_t token_life_us; /* exp - iat of access tokens; 0: TOKEN_LIFE_US */
    /* A node not heard of for this long is not offered any more, is lost. A server that
     * has just started waits as long before it says so of anybody. 0: the defaults. */
    int64_t unknown_after_us, lost_after_us;
    int64_t now_us;
};

struct world {
    char *market, *currency;
    int64_t hold_window_us;
    struct store *store;
    struct ca *ca;
    struct issuer *issuer;
    struct flow_runner *runner;
    int64_t probe_interval_us, receipt_interval_us;
    int64_t token_life_us;
    int64_t unknown_after_us, lost_after_us;
    /* Metrics of layers above this one, in Prometheus' text form; may be NULL. */
    void (*more_metrics)(void *arg, struct strbuf *out);
    void *more_metrics_arg;

    struct pathhook *path_hook; /* NULL: paths count as lit by themselves */
    int64_t path_hook_limit_us;
    int64_t waiting_rise_ppm; /* what an order may get dearer for the others' sake */
    /* The server's own flows, 0: none runs. One of each at a time, but of
     * flow_paths_due only one that asks for work. */
    uint64_t waiting_flow, outage_flow, paths_flow;
    bool outage_due; /* a node was banned: not to wait for the next look */

    struct calendar *calendar; /* GPUs: every booking */
    struct calendar *firm;     /* the same without spot bookings: what firm demand can
                                  have by preemption; NULL while nobody sells spot */
    struct calendar *lanes;    /* lanes of paths: node = path index */
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
    struct match_paths paths; /* parallel with path_info; its calendar is lanes */
    struct world_path *path_info;
    struct world_booking *spots; /* spot bookings that block something, in no order */
    size_t spot_count;
    uint64_t version; /* grows with every change that may let an order be booked */

    /* Private to world*.c from here. */
    struct world_ids *ids; /* database id -> index */
    json_t *keys;          /* key hash hex -> {role, tenant_id, provider_id, name} */
    json_t *agents;        /* SPIFFE id -> node index */
    json_t *data_names;    /* "TENANT/NAME" -> data index */
    json_t *offer_keys;    /* group key -> offer index */
    size_t site_cap, node_cap, data_cap, offer_cap, path_cap, spot_cap;
    int *spot_index; /* hash of booking ids: places in spots + 1 */
    size_t spot_index_cap;
    int *model_offer; /* model number -> offer index, -1: free */
    int *model_free;  /* the free ones; as large as model_offer */
    size_t model_count, model_free_count;
    struct world_gens *gens;
    int64_t try_last; /* tries have ids below zero */
    size_t try_count;
    uint64_t *try_waiters; /* flows */
    size_t try_waiter_count;

    /* Bookings told of while the tables are being read, which may lack them. */
    struct world_booking *late;
    struct world_lanes *late_lanes;
    size_t late_count, late_lanes_count;
    bool loading;

    struct backfill backfill; /* shadows of the standing orders, when last planned */
    size_t order_count;       /* … how many there were */
    bool wait_due;            /* the list changed: plan it */
    int64_t waiting_cost_us;  /* what planning it took the last time */
    size_t waiting_most;      /* so many orders are planned in a turn; 0: not known */
    int64_t funds_us;         /* when orders without money were last tried */

    bool loaded;
    struct world_reads reads; /* of rows that are on their way (world_read) */
    bool reload;              /* the copy cannot be trusted: load again */
    bool polling;             /* a read of the feed or a load is on its way */
    bool poll_due;            /* asked for while one was */
    int64_t
        own_until_us; /* boot clock: until then the feed tells of our own bookings */
    size_t load_step;
    int64_t load_asked_us;
    char *cursor;
    int64_t started_us;
    int64_t ticked_us, overdue_us, moved_us, expired_us, pruned_us;
    uint64_t changes, reloads;

    json_t *revoked;    /* array of reservation ids */
    json_t *min_epochs; /* {gpu: epoch}: GPUs of those that had begun */
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

/* Index into offers of the group the node is sold in; -1: it is not on offer. */
int world_offer_of(const struct world *w, int node);
/* A path's index by name, -1: none. */
int world_path_find(const struct world *w, const char *name);

/* For preempt_find(): the spot bookings, spot_count of them; the caller frees. NULL:
 * there is nothing to preempt. A reservation's number there is good as long as it is;
 * world_spot_reservation() gives its id, NULL when it is not there any more. */
struct preempt_spot *world_preempt_spots(const struct world *w);
const char *world_spot_reservation(const struct world *w, int64_t number);
/* GPUs and lanes of a plan that is about to be booked: blocked for everybody until
 * world_try_end (which leaves *t ended; ending twice is harmless). A spot plan's GPUs
 * stay free for those who preempt. */
struct world_try world_try_plan(struct world *w, const struct match_plan *plan);
/* The same for a standing order's predicted place. */
struct world_try world_shadow_plan(struct world *w, const struct match_plan *plan);
void world_try_end(struct world *w, struct world_try *t);
/* Its booking was lost: the place stays blocked, as a shadow, until world_try_end,
 * since somebody has it; but nobody waits for it to come free. Two requests that had
 * lost would wait for each other. */
void world_try_lost(struct world *w, struct world_try *t,
                    const struct match_plan *plan);
/* For somebody who looks for another place for what is booked already: takes those of
 * the bookings that are in the calendars out of them, to be put back before its step
 * ends. */
struct world_lifted {
    struct world_booking *bookings; /* the caller's, as it knows them */
    struct world_lanes *lanes;
    size_t booking_count, lanes_count;
};
/* Leaves in l what was taken out. */
void world_lift(struct world *w, struct world_lifted *l);
void world_put_back(struct world *w, const struct world_lifted *l);
/* Wakes the flow when the next try ends: what it found busy may be free again. */
void world_try_wait(struct world *w, uint64_t flow_id);
/* A booking of ours was committed: its plan, and the ids that the database gave to the
 * slots and the lanes, in order. Nothing when the feed has told more of it already. */
struct world_booked {
    const char *reservation;
    const struct match_plan *plan;
    const int64_t *booking_id, *lane_booking_id;
};
void world_booked(struct world *w, const struct world_booked *b);
/* One booking as the database has it. */
void world_book(struct world *w, const struct world_booking *b);
void world_book_lanes(struct world *w, const struct world_lanes *b);

/* The data sets that the node is to measure now: indexes, at most WORLD_PROBES_MAX. */
size_t world_probes_of(const struct world *w, int node, int64_t now_us,
                       int ret[WORLD_PROBES_MAX]);
/* The agent's long poll, if one waits, looks again. */
void world_wake_node(struct world *w, int node);
/* Something was or may have been committed by us or others: read the feed. */
void world_poll(struct world *w);
/* What was committed at our request, as the feed will tell it (an array, or NULL): our
 * own copy has it before we answer. Then reads the feed, as world_poll(). */
void world_told(struct world *w, const json_t *events);
/* A booking of ours has an outcome that is not known. */
void world_unknown(struct world *w);
/* Reads one row (id 0: all) of a WORLD_ table again and wakes the flow (0: none): for
 * those who must see at once what they have just written. An answer that comes after
 * that of a read asked for later may be older: it is not taken, and asked for again. */
void world_read(struct world *w, enum store_op op, int64_t id, uint64_t flow_id);
/* For store_opts.on_change. Of our own bookings the calendars know already; the next
 * tick moves the cursor past them. */
void world_hint(struct world *w, bool own);
/* What is due by time: liveness, transitions, feed, revocations. About once a second.
 */
void world_tick(struct world *w, int64_t now_us);
/* Changes, or the leases they revoked, are being read: the next status document may
 * name more than this one. */
bool world_is_behind(const struct world *w);

/* The signed status document, at most a blink old; NULL while the list of revoked
 * leases is too old to be vouched for. Borrowed. */
const char *world_status_doc(struct world *w, int64_t now_us);
/* Another key set is in force: every node's poll is answered. */
void world_new_keys(struct world *w);

/* ---- used between world*.c ---- */
void world_put_sites(struct world *w, const struct store_result *r);
void world_put_nodes(struct world *w, const struct store_result *r);
void world_put_data(struct world *w, const struct store_result *r);
void world_put_rtts(struct world *w, const struct store_result *r);
void world_put_bookings(struct world *w, const struct store_result *r);
void world_put_keys(struct world *w, const struct store_result *r);
void world_put_paths(struct world *w, const struct store_result *r);
void world_put_lanes(struct world *w, const struct store_result *r);
/* Into the calendars; of a booking beside the node's present places, nothing. */
void world_block(struct world *w, const struct world_booking *b);
void world_block_lanes(struct world *w, const struct world_lanes *b);
int world_node_slot(struct world *w, int node_id); /* makes one when it is new */
void world_regroup(struct world *w, int node);     /* after its row changed */
void world_leave_offer(struct world *w, int node);
void world_retell_calendars(struct world *w); /* nodes on offer, to new calendars */
void world_count_up(struct world *w);         /* reliability */
void world_expire_spots(struct world *w, int64_t now_us);
void world_forget_spots(struct world *w);
/* Somebody sells spot: the calendar without it is needed. */
void world_want_firm(struct world *w);
/* Who measures what: after a data set came or went; what else is due. */
void world_elect_data(struct world *w, int data);
void world_elect_due(struct world *w, int64_t now_us);

#endif
