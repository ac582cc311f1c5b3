/* match: rank the places that can serve a request by effective cost
 *     effective = price per hour x hours needed,  hours needed = hours x slow-down
 * with hard bounds as filters, never as scores, and a reason per rejected place. A
 * place is (site, provider, model): `match_offer`. The only module that turns the
 * latency model's doubles into integers: slow-down is rounded to 1e-6 (ppm), half up.
 * Pure: `now`, calendar, topology and offers are handed in; results go to the caller's
 * arrays. */
#ifndef NEARGPU_MATCH_H
#define NEARGPU_MATCH_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/core/calendar.h"
#include "server/core/slowdown.h"
#include "server/core/topo.h"

#define MATCH_PPM INT64_C(1000000)

/* What one provider sells at one site: a group of like nodes at one price. */
struct match_offer {
    int site;  /* dense, as in calendar and topo */
    int model; /* calendar model index: unique per offer, so a calendar
                  query (site, model) covers exactly this offer's nodes */
    const char *site_name, *provider_name, *gpu_model, *residency; /* "jp" */
    int64_t price_micro;                                           /* per GPU-hour */
    int64_t gpu_memory_mib;
    int64_t reliability_ppm; /* 0..1e6: share of the time up, from history */
    int64_t bandwidth_Bps;   /* site's link towards data, 0: unknown, not a limit */
    bool up;                 /* some node of it synced within its TTL */
};

struct match_query {
    const char *gpu_model; /* NULL: any */
    int64_t min_memory_mib;
    int gpus; /* per node */
    int64_t len_us;
    int64_t from_us, latest_us; /* start range; equal: fixed start */
    const int *data;            /* dense data set indexes */
    size_t data_count;
    const struct slowdown_profile *profile; /* NULL: price only, RTT as tie-break */
    int64_t max_rtt_us;                     /* 0: none */
    int64_t max_price_micro;                /* per GPU-hour, 0: none */
    int64_t max_effective_micro;            /* total effective, 0: none */
    int64_t max_slowdown_ppm;               /* 0: none */
    const char *residency;                  /* NULL: any */
    const char *only_site, *only_provider;  /* NULL: any */
    int64_t now_us;
    uint32_t spread; /* per-request pseudo-random */
};

enum match_why {
    MATCH_OK,
    MATCH_DOWN,
    MATCH_MODEL,
    MATCH_MEMORY,
    MATCH_RESIDENCY,
    MATCH_EXCLUDED,
    MATCH_NO_RTT,
    MATCH_TOO_FAR,
    MATCH_TOO_DEAR,
    MATCH_TOO_SLOW,
    MATCH_NODE_TOO_SMALL,
    MATCH_BUSY,
    MATCH_OVER_BUDGET,
    MATCH_WHY_COUNT
};
const char *match_why_name(enum match_why why); /* "too_far" … */

/* Does an offer of GPU `have` answer a wish for `want`? Upper and lower case are equal,
 * every other character than a letter or digit is a separator and all are equal;
 * `want` must be `have` or whole words of it in a row: "H100" is met by
 * "H100-SXM5-80GB" and "NVIDIA H100 80GB HBM3", not by "GH100"; "A10" not by "A100". */
bool match_model_fits(const char *have, const char *want);

struct match_place {
    int offer; /* index into the offers */
    enum match_why why;
    struct calendar_slot slot;        /* node, first GPU, start (when MATCH_OK) */
    struct topo_rtt rtt;              /* worst over the data sets */
    int64_t slowdown_ppm;             /* >= 1e6 */
    int64_t price_total_micro;        /* price x gpus x len: what is charged */
    int64_t effective_micro;          /* price_total x slow-down: what is ranked */
    int64_t effective_per_hour_micro; /* per GPU-hour x slow-down */
    int free_gpus;    /* busy: most free neighbours on one node at the asked start */
    char reason[160]; /* why not, with the numbers and the nearest relaxation:
                         "too far: 31.0 ms > 15.0 ms"; "" when it fits */
    char advice[120]; /* slowdown_advice */
};

/* A place whose RTT to some data set is unknown is MATCH_NO_RTT when the query has a
 * profile or max_rtt_us; without both, data only breaks ties. With several data sets
 * the farthest counts. gpus >= 1 and len_us > 0. Fills places[0..offer_count) : fitting
 * ones first by effective cost (ties: earlier start, smaller RTT, reliability, spread),
 * then the rejected in the order of why. Returns the number that fit. */
size_t match_rank(const struct calendar *cal, const struct topo *topo,
                  const struct match_offer *offers, size_t offer_count,
                  const struct match_query *q, struct match_place *places);

/* Most free neighbours on one node when the place, which fits, begins. */
int match_free(const struct calendar *cal, const struct match_offer *o,
               const struct match_place *p, int64_t len_us);

#endif
