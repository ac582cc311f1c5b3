/* plan: from a request to ranked places, and from a place to what would be booked
 * there. Shared by offers, quotes and reservations, so that the three never disagree.
 * It reads the world and changes nothing. */
#ifndef NEARGPU_FLOW_PLAN_H
#define NEARGPU_FLOW_PLAN_H
#include <jansson.h>

#include "server/flow/request.h"
#include "server/flow/world.h"

struct plan {
    struct match_place *places; /* best first, then the rejected */
    size_t count, fit;
    int data[DATASETS_PER_REQUEST_MAX]; /* the request's data sets, as indexes */
    size_t data_count;
    int64_t len_us;
    int64_t match_us; /* time the ranking took */
};

/* ERR_NOT_FOUND for a data set the tenant has not. */
int plan_rank(struct world *w, const struct request *rq, const char *tenant_id,
              int64_t now_us, struct plan *ret, struct err *err) MUST_USE;
void plan_done(struct plan *p);

/* One place, settled: what a quote keeps and a reservation books. */
struct plan_pick {
    struct calendar_slot slot; /* node index, first GPU, start */
    int gpus;
    int64_t len_us;
    int64_t gpu_hour_micro;  /* price of one GPU for an hour */
    int64_t per_hour_micro;  /* of all of them */
    int64_t total_micro;     /* charged at most: held when booked */
    int64_t effective_micro; /* with the slow-down: what was compared */
    json_t *data;            /* owned: [{name, site, rtt_us, slowdown_ppm}] */
};
/* Prices the best place of a plan that has one. */
int plan_pick(struct world *w, const struct request *rq, const struct plan *p,
              int64_t now_us, struct plan_pick *ret, struct err *err) MUST_USE;
void plan_pick_done(struct plan_pick *pick);

/* As RESV of server/db/store.h, for render_resv(). who: id, name and state. */
struct plan_resv {
    const char *id, *tenant, *state;
    int64_t created_us;
};
json_t *plan_resv(const struct world *w, const struct plan_pick *pick,
                  const struct plan_resv *who);
/* A quote's memory of its pick, and back. -1: the node is not known any more. */
json_t *plan_pick_save(const struct world *w, const struct plan_pick *pick);
int plan_pick_load(const struct world *w, const json_t *saved, struct plan_pick *ret,
                   struct err *err) MUST_USE;

/* Offers as the wire has them, and the places that do not serve, with the reason. */
json_t *plan_offers(const struct world *w, const struct plan *p);
json_t *plan_rejected(const struct world *w, const struct plan *p);
/* Fills err: nothing fits, with the reason of the place that is nearest to fit. */
void plan_no_fit(const struct world *w, const struct plan *p, struct err *err);

/* One line of the match log: kind and outcome as in its table. */
void plan_log(struct world *w, const struct request *rq, const struct plan *p,
              const char *tenant_id, const char *kind, const char *outcome);

#endif
