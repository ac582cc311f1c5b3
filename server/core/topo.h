/* topo: sites, data sets and what is known of the round trip between them, best source
 * first: measured by probes (fresh), declared by a path's operator, measured but old,
 * computed from the topology (great circle x 1.5 in fibre, 4.9 us/km one way). A figure
 * that beats light in fibre over the great circle is refused when it is measured and
 * left out of account when it is declared. Indexes are dense and given by the
 * caller; the caller's arrays of names outlive the topo. Pure. */
#ifndef NEARGPU_TOPO_H
#define NEARGPU_TOPO_H
#include <stdbool.h>
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
struct topo_rtt {
    enum topo_source source;
    int64_t rtt_us;         /* p50 when measured */
    int64_t min_us, p99_us; /* measured only, else 0 */
    int64_t count;          /* samples behind it */
    int64_t at_us;          /* when measured or declared */
};

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
/* ERR_CONFLICT when it is below the light-speed floor of two known places. */
int topo_measured(struct topo *t, int site, int data, const struct topo_rtt *rtt,
                  struct err *err) MUST_USE;
void topo_declared(struct topo *t, int site, int data, int64_t rtt_us, int64_t at_us);
/* Best knowledge at `now`; source TOPO_UNKNOWN when there is none. */
struct topo_rtt topo_rtt(const struct topo *t, int site, int data, int64_t now_us);
const char *
topo_source_name(enum topo_source s); /* measured declared topology unknown */

#endif
