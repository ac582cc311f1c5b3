/* request: what a tenant asks for (docs/wire.md, "The request object"), from the body
 * of a quote or reservation or from the query of offers: one table of members for both,
 * so that they cannot drift apart. Decodes, checks bounds and fills defaults; it does
 * not know which names exist (that is plan.h's and the world's). Pure: `now` and the
 * market's currency are handed in. */
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

struct request {
    json_t *tree;    /* owned: the request as stored with the reservation */
    const char *gpu; /* these borrow from the tree; NULL: any */
    const char *residency, *site, *provider;
    const char *quote;
    const struct slowdown_profile *profile; /* NULL: price and distance only */
    const char *data[DATASETS_PER_REQUEST_MAX];
    size_t data_count;
    int64_t gpus;
    int64_t min_memory_mib;
    int64_t len_us;
    int64_t from_us, latest_us; /* equal: a fixed start */
    int64_t max_rtt_us;         /* these: 0: none */
    int64_t max_gpu_hour_micro; /* both price bounds, per GPU-hour */
    int64_t max_slowdown_ppm;
};

/* body NULL reads as an empty object. ERR_BAD_REQUEST with the place. */
int request_from_body(const json_t *body, const char *currency, int64_t now_us,
                      struct request *ret, struct err *err) MUST_USE;
int request_from_query(const struct flow_pair *query, size_t count,
                       const char *currency, int64_t now_us, struct request *ret,
                       struct err *err) MUST_USE;
void request_done(struct request *rq);

/* Money member {"currency","micro"} >= 0 in the market's currency. */
int request_money(const json_t *obj, const char *at, const char *currency,
                  int64_t *ret_micro, struct err *err) MUST_USE;
/* A name: lower-case letters, digits and hyphens, at most NAME_BYTES_MAX. */
int request_name(const char *at, const char *text, struct err *err) MUST_USE;
/* Strict decimal integer of a query value within [min, max]. */
int request_int(const char *name, const char *text, int64_t min, int64_t max,
                int64_t *ret, struct err *err) MUST_USE;

#endif
