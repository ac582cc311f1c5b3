/* plan: from a request to the best plan, and from a plan to what would be booked.
 * Shared by offers, explain, quotes, reservations, moves and standing orders, so that
 * they never disagree. It reads the world and changes nothing.
 *
 *   plan_rank     request -> the best match_plan, or none
 *   plan_preempt  … what firm demand could take from spot leases
 *   plan_judge    … every place with its reason, for those who are told
 *   plan_settle   match_plan -> pick: prices and words, what a quote keeps
 *   plan_rows     pick -> what the database is asked to book */
#ifndef NEARGPU_FLOW_PLAN_H
#define NEARGPU_FLOW_PLAN_H
#include <jansson.h>

#include "server/core/match.h"
#include "server/flow/request.h"
#include "server/flow/world.h"

/* The request's data sets, as indexes, and where they stand. */
struct plan_data {
    int data[DATASETS_PER_REQUEST_MAX], site[DATASETS_PER_REQUEST_MAX];
    const char *residency[DATASETS_PER_REQUEST_MAX]; /* asked to stay there, or NULL */
    size_t count;
};
/* Fills *where and *ret, which borrows from both it and the request. ERR_NOT_FOUND for
 * a data set the tenant has not. */
int plan_query(const struct world *w, const struct request *rq, const char *tenant_id,
               int64_t now_us, struct plan_data *where, struct match_query *ret,
               struct err *err) MUST_USE;
struct match_market plan_market(const struct world *w);

/* ---- ranking ---- */

struct plan {
    bool fits;
    enum match_why why;      /* when it does not */
    struct match_plan *best; /* owned; there when it fits */
    struct plan_data where;
    uint32_t spread;
    int64_t match_us; /* time the ranking took */
    /* After plan_preempt(): whose leases make room. */
    struct store_preempt *preempts;
    size_t preempt_count;
    /* After plan_judge(): best first, then the rejected. */
    struct match_place *places;
    size_t count, fit;
};
int plan_rank(struct world *w, const struct request *rq, const char *tenant_id,
              int64_t now_us, struct plan *ret, struct err *err) MUST_USE;
/* For a plan that does not fit: true when it would by preemption; then it fits. */
bool plan_preempt(struct world *w, const struct request *rq, int64_t now_us,
                  struct plan *p);
void plan_judge(struct world *w, const struct request *rq, int64_t now_us,
                struct plan *p);
void plan_done(struct plan *p);

/* ---- one plan, settled ---- */

struct plan_pick {
    struct match_plan *plan;   /* owned; NULL: none */
    int64_t *slot_price_micro; /* owned: of a GPU-hour, by slot */
    int64_t *lane_price_micro; /* owned: of a lane-hour, by lanes */
    json_t *data;              /* owned: [{name, site, rtt_us, slowdown_ppm}] */
    json_t *groups;            /* owned: [{data, site, nodes}], [] unless federated */
    json_t *coordinator;       /* owned: its site's name, or null */
    struct store_preempt *preempts; /* owned */
    size_t preempt_count;
};
/* plan: copied. */
void plan_settle(const struct world *w, const struct plan_data *where,
                 const struct match_plan *plan, int64_t now_us, struct plan_pick *ret);
/* Settles the best plan of a ranking, with its preemptions. */
void plan_pick(const struct world *w, const struct plan *p, int64_t now_us,
               struct plan_pick *ret);
void plan_pick_done(struct plan_pick *pick);
/* The same plan, beginning at start_us. */
void plan_pick_start(struct plan_pick *pick, int64_t start_us);
/* Are its GPUs and lanes still on offer, whoever has booked them? ERR_CONFLICT. */
int plan_pick_stands(const struct world *w, const struct plan_pick *pick,
                     struct err *err) MUST_USE;
/* Does the reservation RESV have just these GPUs and times already? */
bool plan_pick_is(const struct world *w, const struct plan_pick *pick,
                  const json_t *resv);

/* ---- for the database ---- */

struct plan_rows {
    struct store_booking *bookings;
    struct store_path_booking *paths;
    json_t *extra;
};
void plan_rows(const struct world *w, const struct plan_pick *pick,
               struct plan_rows *ret);
void plan_rows_done(struct plan_rows *rows);
/* Times, prices, rows and preemptions into a booking; the caller says whose it is. It
 * borrows from both. */
void plan_book(const struct world *w, const struct plan_pick *pick,
               const struct plan_rows *rows, struct store_book *book);
/* The same as JSON, for STORE_RESV_MOVE. New references. */
json_t *plan_bookings_json(const struct plan_pick *pick, const struct plan_rows *rows);
json_t *plan_paths_json(const struct plan_pick *pick, const struct plan_rows *rows);
json_t *plan_prices_json(const struct plan_pick *pick);

/* ---- for people ---- */

/* As RESV of server/db/store.h, for render_resv(). who: id, name and state. */
struct plan_resv {
    const char *id, *tenant, *state;
    int64_t created_us;
};
/* What a reservation of this plan holds at first: the price of its first window
 * (sql/api/hold.sql). */
int64_t plan_first_hold(const struct world *w, const struct plan_pick *pick);
json_t *plan_resv(const struct world *w, const struct plan_pick *pick,
                  const struct plan_resv *who);
/* A quote's memory of its pick, and back. ERR_CONFLICT: a node or path is not known any
 * more. */
json_t *plan_pick_save(const struct world *w, const struct plan_pick *pick);
int plan_pick_load(const struct world *w, const json_t *saved, struct plan_pick *ret,
                   struct err *err) MUST_USE;

/* After plan_judge(): offers as the wire has them, and the places that do not serve,
 * with reason and relaxation. */
json_t *plan_offers(const struct world *w, const struct plan *p,
                    const struct request *rq, int64_t now_us);
json_t *plan_rejected(const struct world *w, const struct plan *p,
                      const struct request *rq);
/* Fills err: nothing fits, with the reason of the place that is nearest to fit. */
void plan_no_fit(const struct world *w, const struct plan *p, struct err *err);

/* One line of the match log: kind and outcome as in its table. */
void plan_log(struct world *w, const struct request *rq, const struct plan *p,
              const char *tenant_id, const char *kind, const char *outcome);

#endif
