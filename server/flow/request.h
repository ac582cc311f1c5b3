/* request: what a tenant asks for (docs/wire.md, "The request object"), from the body
 * of a quote or reservation, from the query of offers and explain, or as it was stored
 * with a reservation: one table of members for all, so that they cannot drift apart.
 * Decodes, checks bounds and fills defaults; it does not know which names exist (that
 * is plan.h's and the world's). Pure: `now` and the market's currency are handed in. */
#ifndef NEARGPU_REQUEST_H
#define NEARGPU_REQUEST_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/bounds.h"
#include "client/lib/err.h"
#include "server/core/slowdown.h"
#include "server/flow/flow.h"

/* The shortest lease: below this, opening and closing the gate is most of it. */
#define REQUEST_MIN_US INT64_C(1000000)
/* A start that is "now" on the asker's clock may be this far behind ours. */
#define REQUEST_PAST_US INT64_C(60000000)
/* A standing order that names no end is given up after this. */
#define REQUEST_WAIT_US (INT64_C(14) * 24 * 3600 * 1000000)
/* Nodes of one gang, all groups of a federated one together. */
#define REQUEST_NODES_MAX 64
/* Groups: each is matched against all the others. */
#define REQUEST_GROUPS_MAX 8
/* Names in one list of providers, sites or zones. */
#define REQUEST_NAMES_MAX 32

/* How close to each other the nodes of a gang must be. */
enum request_together { TOGETHER_SITE, TOGETHER_DOMAIN, TOGETHER_ANY };

struct request_names {
    const char *name[REQUEST_NAMES_MAX];
    size_t count;
};

struct request {
    json_t *tree;    /* owned: the request as stored with the reservation */
    const char *gpu; /* these borrow from the tree; NULL: any */
    const char *residency, *site;
    const char *quote;
    struct request_names only_provider, deny_provider, deny_site, avoid_zone;
    const struct slowdown_profile *profile; /* NULL: price and distance only */
    struct slowdown_profile *own; /* owned: the tenant's own numbers, or NULL */
    const char *data[DATASETS_PER_REQUEST_MAX];
    size_t data_count;
    bool federated; /* a group of `nodes` near each of the data sets */
    bool stay;      /* residency "data": in the country of the data's own site */
    int64_t gpus;   /* per node */
    int64_t nodes;  /* of the gang, or of each group */
    enum request_together together;
    bool spread_zones;
    int64_t min_memory_mib;
    int64_t len_us;
    int64_t from_us, latest_us; /* equal: a fixed start */
    bool at_once;               /* neither start nor range was given */
    int64_t max_rtt_us;         /* these: 0: none */
    int64_t max_gpu_hour_micro; /* both price bounds, per GPU-hour */
    int64_t max_total_micro;    /* the bound on the whole price, paths included */
    int64_t max_slowdown_ppm;
    int64_t bandwidth_Bps; /* of a path to each data set */
    bool spot, hold, wait;
    int64_t until_us; /* wait: when the order is given up */
};

/* body NULL reads as an empty object. ERR_BAD_REQUEST with the place. */
int request_from_body(const json_t *body, const char *currency, int64_t now_us,
                      struct request *ret, struct err *err) MUST_USE;
int request_from_query(const struct flow_pair *query, size_t count,
                       const char *currency, int64_t now_us, struct request *ret,
                       struct err *err) MUST_USE;
/* A request that was asked and stored at created_us, as it stands now: "at once" means
 * now, a range begins now at the earliest, a standing order may start until it is given
 * up. Its mandatory members were checked then. ERR_CONFLICT: its time has passed. */
int request_from_stored(const json_t *tree, const char *currency, int64_t created_us,
                        int64_t now_us, struct request *ret, struct err *err) MUST_USE;
/* The stored request with `overrides` (may be NULL) in place of its members; null
 * removes one; another kind of start replaces the one there was. A new tree. */
json_t *request_merge(const json_t *stored, const json_t *overrides);
void request_done(struct request *rq);

/* Groups of a federated request, else 1; nodes and GPUs of all of it. */
static inline int64_t request_groups(const struct request *rq)
{
    return rq->federated ? (int64_t)rq->data_count : 1;
}
static inline int64_t request_gpus(const struct request *rq)
{
    return rq->gpus * rq->nodes * request_groups(rq);
}

/* Money member {"currency","micro"} >= 0 in the market's currency. */
int request_money(const json_t *obj, const char *at, const char *currency,
                  int64_t *ret_micro, struct err *err) MUST_USE;
/* A name: lower-case letters, digits and hyphens, at most NAME_BYTES_MAX. */
int request_name(const char *at, const char *text, struct err *err) MUST_USE;
/* Strict decimal integer of a query value within [min, max]. */
int request_int(const char *name, const char *text, int64_t min, int64_t max,
                int64_t *ret, struct err *err) MUST_USE;
/* A rate as bytes a second, at least 1: "40Gbps" (bits; k M G T) or "200MB/s" (bytes).
 * Decimal units, up to three fraction digits. ERR_BAD_REQUEST with `at`. */
int request_rate(const char *at, const char *text, int64_t *ret_Bps,
                 struct err *err) MUST_USE;

#endif
