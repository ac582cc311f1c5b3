/* topo: sites, data sets and what is known of the round trip between them, best source
 * first: measured by probes (fresh), declared by a path's operator, measured but old,
 * computed from the topology (shortest path over known fibre, else great circle x 1.5;
 * 4.9 us/km one way). A figure that beats light in fibre over the great circle is
 * refused when it is measured and left out of account when it is declared. Too slow
 * proves nothing: topo_place_contradicted() only says that it is suspicious.
 *
 * Indexes are dense and given by the caller. topo_rtt() and topo_sites() are cheap (no
 * trigonometry, no memory: a match asks for each site and data set); everything that
 * sets pays for that. It does not probe, and knows no clock: callers pass now. Pure. */
#ifndef NEARGPU_TOPO_H
#define NEARGPU_TOPO_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"

#define TOPO_US_PER_KM 4.9
#define TOPO_DETOUR    1.5
#define TOPO_FRESH_US \
    (INT64_C(15) * 60 * 1000000) /* older ones lose to declared figures */

enum topo_source { TOPO_UNKNOWN, TOPO_TOPOLOGY, TOPO_DECLARED, TOPO_MEASURED };

struct topo_place {
    double lat, lon;
    bool known;
};

/* What a probe's window or a query says. For topo_measured() the first six members
 * count, the rest is filled by topo_rtt(). */
struct topo_rtt {
    enum topo_source source;
    int64_t rtt_us;         /* p50 when measured */
    int64_t min_us, p99_us; /* measured only, else 0 */
    int64_t count;          /* samples behind it */
    int64_t at_us;          /* when measured or declared */
    int64_t confidence_ppm; /* 0..1e6, see topo_confidence_name */
    int64_t baseline_us;    /* slow mean of the p50; measured only, else 0 */
    int64_t drift_us;       /* rtt - baseline */
    bool drifting;          /* ... and that is beyond TOPO_DRIFT_* */
};

/* Confidence, in ppm.
 *   measured   count/(count + 4) x min(1, (1.5 p50 + 1 ms)/p99) x min(1, 15 min/age)
 *   declared   600,000: somebody answers for it, nobody has seen it
 *   topology   450,000 over known fibre, 250,000 by great circle
 * high >= 700,000, medium >= 400,000, low > 0, none. */
#define TOPO_CONFIDENCE_HIGH_PPM     INT64_C(700000)
#define TOPO_CONFIDENCE_MEDIUM_PPM   INT64_C(400000)
#define TOPO_CONFIDENCE_DECLARED_PPM INT64_C(600000)
#define TOPO_CONFIDENCE_FIBRE_PPM    INT64_C(450000)
#define TOPO_CONFIDENCE_CIRCLE_PPM   INT64_C(250000)
const char *topo_confidence_name(int64_t confidence_ppm);

/* The baseline follows the p50 with a time constant of six hours: a measurement dt
 * after the last one moves it by dt/(dt + 6 h) of the difference, the first ones by
 * 1/2, 1/3 … It drifts when, after TOPO_DRIFT_WARM measurements, the p50 is more than a
 * fifth and more than 1 ms away. A lasting change becomes the baseline and stops being
 * a drift. */
#define TOPO_BASELINE_US  (INT64_C(6) * 3600 * 1000000)
#define TOPO_DRIFT_WARM   4
#define TOPO_DRIFT_MIN_US INT64_C(1000)
#define TOPO_DRIFT_PART   5

double topo_km(struct topo_place a, struct topo_place b); /* great circle, haversine */
int64_t topo_floor_us(struct topo_place a,
                      struct topo_place b); /* light in fibre, RTT */
int64_t topo_estimate_us(struct topo_place a, struct topo_place b);

struct topo;
struct topo *topo_new(void);
void topo_free(struct topo *t);
/* Sets or replaces; indexes grow the table. */
void topo_set_site(struct topo *t, int site, struct topo_place place);
void topo_set_data(struct topo *t, int data, struct topo_place place);
/* The data set stands at this site (-1: at none; topo_set_data says so too): it shares
 * the site's place, its declared paths and its fibre. */
void topo_set_data_site(struct topo *t, int data, int site);

/* What is told last counts, also when its at_us is older (another node of the site may
 * be the better witness); only newer ones move the baseline. ERR_CONFLICT when it is
 * below the light-speed floor of two known places. */
int topo_measured(struct topo *t, int site, int data, const struct topo_rtt *rtt,
                  struct err *err) MUST_USE;
/* rtt_us 0 withdraws. */
void topo_declared(struct topo *t, int site, int data, int64_t rtt_us, int64_t at_us);
/* Best knowledge at `now`; source TOPO_UNKNOWN when there is none. */
struct topo_rtt topo_rtt(const struct topo *t, int site, int data, int64_t now_us);
const char *
topo_source_name(enum topo_source s); /* measured declared topology unknown */

/* ---- between sites ---- */

/* The guaranteed figure of a path between two sites, both ways; 0 withdraws. One that
 * beats light is left out of account. Of several paths the caller declares the one that
 * counts (the fastest that is up). */
void topo_declare_sites(struct topo *t, int a, int b, int64_t rtt_us, int64_t at_us);
/* Fibre of so many km between two sites, both ways. Takes effect with the next
 * topo_relink(). ERR_CONFLICT when it is shorter than the great circle of two known
 * places by more than TOPO_LINK_SLACK_KM (places are cities, fibre ends in buildings),
 * ERR_BAD_REQUEST when km is not a positive length on Earth or a == b. */
#define TOPO_LINK_SLACK_KM 10.0
#define TOPO_LINK_MAX_KM   40075.0
int topo_link(struct topo *t, int a, int b, double km, struct err *err) MUST_USE;
void topo_unlink(struct topo *t, int a, int b);
/* Shortest paths over all links (Dijkstra from each linked site, n linked sites: n^3
 * steps, some 10 ms at 200): call it once after a batch of changes, never in a match.
 */
void topo_relink(struct topo *t);
/* Declared, else shortest path over fibre, else great circle x 1.5. */
struct topo_rtt topo_sites(const struct topo *t, int a, int b);

/* ---- is a site where it claims to be? ---- */

enum topo_verdict {
    TOPO_PLACE_UNTESTED,   /* nothing measured to data near its place */
    TOPO_PLACE_SUPPORTED,  /* some data near its place is as near as it should be */
    TOPO_PLACE_SUSPICIOUS, /* all data near its place is far too slow */
    TOPO_PLACE_IMPOSSIBLE  /* a measurement beats light */
};
/* Data within TOPO_NEAR_KM of the claimed place tests it: contradicting when the
 * smallest sample exceeds TOPO_SLOW_FACTOR x the topology's estimate + TOPO_SLOW_US,
 * and no declared path explains at least half of it; supporting otherwise. (10 ms:
 * within AWS regions medians of up to 8 ms are published.) Suspicious: contradicted and
 * by nothing supported. (The data's own place may be the false one: a person has to
 * look.) */
#define TOPO_NEAR_KM     100.0
#define TOPO_SLOW_FACTOR 4
#define TOPO_SLOW_US     INT64_C(10000)
struct topo_doubt {
    enum topo_verdict verdict;
    int contradicting, supporting;    /* data sets */
    int data;                         /* the worst contradiction, -1: none */
    int64_t measured_us, expected_us; /* of it: smallest sample; estimate or floor */
};
/* True for SUSPICIOUS and IMPOSSIBLE. Walks the site's data sets. ret may be NULL. */
bool topo_place_contradicted(const struct topo *t, int site, struct topo_doubt *ret);
/* untested supported suspicious impossible */
const char *topo_verdict_name(enum topo_verdict v);

/* ---- some nodes probe for a site ----
 *
 * Rendezvous hashing (Thaler and Ravishankar 1998): of the nodes offered the k with the
 * largest hash(node, data) probe. When a node comes or goes at most one prober of a
 * data set changes, and over many data sets the work spreads evenly. O(n), no memory:
 *
 *     topo_elect_begin(&e, data_id, TOPO_PROBERS);
 *     for each node of the site that is up: topo_elect_offer(&e, node_id);
 *     ... topo_elected(&e, node_id)
 *
 * Use ids that last (of the database), not indexes. */
#define TOPO_PROBERS     3
#define TOPO_PROBERS_MAX 8
struct topo_election {
    uint64_t data, weight[TOPO_PROBERS_MAX];
    int64_t node[TOPO_PROBERS_MAX]; /* largest weight first */
    int want, count;
};
void topo_elect_begin(struct topo_election *e, int64_t data, int want);
void topo_elect_offer(struct topo_election *e, int64_t node);
bool topo_elected(const struct topo_election *e, int64_t node);
/* The same over an array of ids that are up; fills ret[0..returned), at most k. */
size_t topo_probe_elect(const int64_t *nodes, size_t n, int64_t data, int k,
                        int64_t *ret);

#endif
