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
    int64_t reliability_ppm;  /* 0..1e6: share of the time up, from history */
    int64_t bandwidth_Bps;    /* site's link towards data, 0: unknown, not a limit */
    bool up;                  /* some node of it synced within its TTL */
    const char *zone;         /* disaster zone of the site; "" or NULL: none told */
    int64_t spot_price_micro; /* per GPU-hour */
    int64_t notice_us;        /* of a spot lease's end; 0: sells no spot */
};

/* A path between two sites, sold in lanes; its index is its node in the calendar of
 * lanes (site 0, model = its index). */
struct match_path {
    int from_site, to_site; /* either way */
    int lanes;              /* 1..GPUS_PER_NODE_MAX */
    int64_t lane_Bps;
    int64_t price_micro; /* per lane-hour, from the lease's start on */
    int64_t rtt_us;      /* guaranteed; 0: not declared */
    int64_t setup_us;    /* booked that long before the start */
    bool lossless, up;
};
struct match_paths {
    struct match_path *paths;
    size_t count;
    struct calendar *lanes;
};

/* Bounds of a plan: all groups of a federated gang together. */
#define MATCH_NODES_MAX  64
#define MATCH_GROUPS_MAX 8
#define MATCH_PATHS_MAX  128 /* groups x data sets; a gang anywhere takes no more */

/* How close to each other the nodes of a gang (of one group) must be. */
enum match_together { MATCH_SITE, MATCH_DOMAIN, MATCH_ANY };

struct match_names {
    const char *const *name;
    size_t count;
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

    struct match_names only_providers; /* count 0: any */
    struct match_names deny_providers, deny_sites, avoid_zones;
    int nodes; /* of the gang, or of each group; 0 and 1: one node */
    enum match_together together;
    bool spread_zones;     /* MATCH_ANY: the nodes, federated: the groups, in different
                              zones (a site without one is a zone of its own) */
    bool federated;        /* a group near each of the data sets */
    bool spot;             /* at the spot price, only where spot is sold */
    int64_t bandwidth_Bps; /* of a path to each data set; 0: none */
    int64_t max_total_micro; /* on the whole price, lanes included; 0: none */
    /* Where each data set stands: site, or -1. NULL: nowhere known. Needed for paths.
     */
    const int *data_site;
    /* Federated: the country each group stays in; an entry NULL: any. NULL: residency
     * holds for all. */
    const char *const *group_residency;
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
    MATCH_ZONE,          /* in a zone to avoid */
    MATCH_NO_SPOT,       /* sells no spot */
    MATCH_NO_PATH,       /* no path, or none wide enough, to a data set */
    MATCH_TOO_FEW_NODES, /* of that size, busy or not */
    MATCH_BUSY,
    MATCH_PATH_BUSY,
    MATCH_OVER_BUDGET,
    MATCH_WHY_COUNT
};
const char *match_why_name(enum match_why why); /* "too_far" … */

/* Does an offer of GPU `have` answer a wish for `want`? Upper and lower case are equal,
 * every other character than a letter or digit is a separator and all are equal;
 * `want` must be `have` or whole words of it in a row: "H100" is met by
 * "H100-SXM5-80GB" and "NVIDIA H100 80GB HBM3", not by "GH100"; "A10" not by "A100". */
bool match_model_fits(const char *have, const char *want);

/* The nearest relaxation of one member of the request with which the place would fit,
 * everything else as it is. member "": none was found. */
struct match_relax {
    const char *member; /* as in docs/wire.md: "max_rtt" "start" "gpus" "nodes"
                           "max_price" "max_price_per_gpu_hour" "max_slowdown"
                           "residency" "site" "provider" "bandwidth" … */
    int64_t value;      /* in the member's unit: us, micro, count, ppm, bytes/s */
    const char *name;   /* of members that are names, else NULL; borrowed */
    char text[96];      /* "+2 ms", "23:40 instead of 22:00", "7 GPUs", "312 more" */
};

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
    struct match_relax relax; /* of a rejected place */
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

/* ---- plans: what would be booked ---- */

struct match_market {
    const struct calendar *calendar;
    const struct topo *topo;
    const struct match_offer *offers;
    size_t offer_count;
    const struct match_paths *paths; /* NULL: none */
};

/* One node of a plan; its place in the array is its rank. */
struct match_slot {
    int node, first; /* as in the calendar */
    int offer, group;
};
struct match_lanes {
    int path, first, count;
    int group, data; /* for which of the query's data sets: the first of those that
                        stand at the same site and share the lanes */
    int64_t from_us; /* with the set-up; ends with the plan */
};
struct match_group {
    int data; /* index into the query's data; -1: all of them (not federated) */
    int site; /* -1: more than one (MATCH_ANY) */
    struct topo_rtt rtt; /* worst of its nodes to its data */
    int64_t slowdown_ppm;
    char advice[120];
};
struct match_plan {
    int64_t start_us, len_us;
    int gpus; /* of each slot */
    int slot_count, group_count, lanes_count;
    int coordinator; /* group; rank 0 is in it */
    bool spot;
    int64_t slowdown_ppm; /* of the job: its slowest group */
    /* GPUs and lanes together. */
    int64_t per_hour_micro, total_micro, effective_micro;
    struct match_slot slots[MATCH_NODES_MAX];
    struct match_group groups[MATCH_GROUPS_MAX];
    struct match_lanes lanes[MATCH_PATHS_MAX];
};
/* Price of one GPU-hour in that slot. */
int64_t match_slot_price(const struct match_market *m, const struct match_plan *p,
                         int slot);

/* The best plan for any query: one node, gang, federated, with or without paths.
 * MATCH_OK and *ret filled; else the commonest reason, *ret untouched. For one node
 * without paths the plan is match_rank()'s first place. Judges no more than it must,
 * words nothing, allocates nothing. Of a gang of MATCH_ANY: the earliest start its
 * search visits, and of that the nodes of the lowest effective cost (match_plan.c says
 * what is heuristic). */
enum match_why match_best(const struct match_market *m, const struct match_query *q,
                          struct match_plan *ret);
/* Words each group's advice, of its slowest place by the cheapest ways; match_best()
 * leaves it empty. */
void match_advise(const struct match_market *m, const struct match_query *q,
                  struct match_plan *plan);
/* The plan at one fitting place of match_rank(): for one place after the other when the
 * best was lost. Single-site plans only (not federated, not MATCH_ANY). */
enum match_why match_at(const struct match_market *m, const struct match_query *q,
                        int offer, struct match_plan *ret);
/* As match_rank(), for gangs and paths too: each place judged on its own (MATCH_ANY:
 * how many nodes it could give), with reason and relaxation. */
size_t match_judge(const struct match_market *m, const struct match_query *q,
                   struct match_place *places);

#endif
