/* topo: what is known of the round trip between sites and data sets. One cell per pair
 * holds the last measurement and the last declaration; which of them counts is decided
 * when asked, because freshness depends on now and places may become known later. */
#include "server/core/topo.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"
#include "server/core/topo_impl.h"

#define EARTH_RADIUS_KM 6371.0088 /* IUGG mean radius */
#define PPM             INT64_C(1000000)

static double radians(double degrees)
{
    return degrees * (M_PI / 180.0);
}

double topo_km(struct topo_place a, struct topo_place b)
{
    double sin_lat = sin(radians(b.lat - a.lat) / 2);
    double sin_lon = sin(radians(b.lon - a.lon) / 2);
    double h = sin_lat * sin_lat +
               cos(radians(a.lat)) * cos(radians(b.lat)) * sin_lon * sin_lon;
    return 2 * EARTH_RADIUS_KM * asin(sqrt(fmin(1.0, h)));
}

/* Rounded down: a floor must never refuse what is possible. */
int64_t topo_floor_us(struct topo_place a, struct topo_place b)
{
    return (int64_t)floor(topo_km(a, b) * TOPO_US_PER_KM * 2);
}

int64_t topo_estimate_us(struct topo_place a, struct topo_place b)
{
    return (int64_t)ceil(topo_km(a, b) * TOPO_US_PER_KM * 2 * TOPO_DETOUR);
}

struct topo *topo_new(void)
{
    return xcalloc(1, sizeof(struct topo));
}

void topo_free(struct topo *t)
{
    if (t == NULL) {
        return;
    }
    for (int i = 0; i < t->site_count; i++) {
        free(t->sites[i].cells);
    }
    for (int i = 0; i < t->data_count; i++) {
        free(t->data[i].guess_us);
    }
    free(t->sites);
    free(t->data);
    free(t->hops);
    free(t->pairs);
    free(t->links);
    free(t);
}

/* A zeroed tail up to index; doubles so that filling a table stays linear. */
void *topo_grow(void *old, int *count, int index, size_t size)
{
    assert(index >= 0);
    if (index < *count) {
        return old;
    }
    size_t want = (size_t)index + 1;
    if (want < (size_t)*count * 2) {
        want = (size_t)*count * 2;
    }
    char *p = xreallocarray(old, want, size);
    memset(p + (size_t)*count * size, 0, (want - (size_t)*count) * size);
    *count = (int)want;
    return p;
}

/* ---- tables and what is kept ready in them ---- */

struct topo_place topo_site_place(const struct topo *t, int site)
{
    return site >= 0 && site < t->site_count ? t->sites[site].place
                                             : (struct topo_place){0};
}

struct topo_place topo_data_place(const struct topo *t, int data)
{
    if (data < 0 || data >= t->data_count) {
        return (struct topo_place){0};
    }
    const struct data_row *d = &t->data[data];
    return d->site >= 0 ? topo_site_place(t, d->site) : d->place;
}

const struct topo_cell *topo_cell(const struct topo *t, int site, int data)
{
    static const struct topo_cell none = {0};
    bool there = site >= 0 && site < t->site_count && data >= 0 &&
                 data < t->sites[site].cell_count;
    return there ? &t->sites[site].cells[data] : &none;
}

static struct site_row *row_at(struct topo *t, int site)
{
    t->sites = topo_grow(t->sites, &t->site_count, site, sizeof *t->sites);
    return &t->sites[site];
}

static struct data_row *data_at(struct topo *t, int data)
{
    int before = t->data_count;
    t->data = topo_grow(t->data, &t->data_count, data, sizeof *t->data);
    for (int i = before; i < t->data_count; i++) {
        t->data[i].site = -1;
    }
    return &t->data[data];
}

static int64_t floor_of(const struct topo *t, int site, int data)
{
    struct topo_place a = topo_site_place(t, site), b = topo_data_place(t, data);
    return a.known && b.known ? topo_floor_us(a, b) : 0;
}

static struct topo_cell *cell_at(struct topo *t, int site, int data)
{
    struct site_row *row = row_at(t, site);
    row->cells = topo_grow(row->cells, &row->cell_count, data, sizeof *row->cells);
    struct topo_cell *cell = &row->cells[data];
    if (!cell->measured && cell->declared_us == 0) {
        cell->floor_us = floor_of(t, site, data);
    }
    return cell;
}

/* The floor of a pair that has figures, and the guess of one that may have none. */
static void refresh(struct topo *t, int site, int data)
{
    struct site_row *row = &t->sites[site];
    if (data < row->cell_count) {
        struct topo_cell *cell = &row->cells[data];
        if (cell->measured || cell->declared_us != 0) {
            cell->floor_us = floor_of(t, site, data);
        }
    }
    struct data_row *d = &t->data[data];
    if (d->site < 0 && d->place.known && row->place.known) {
        int before = d->guess_count;
        d->guess_us =
            topo_grow(d->guess_us, &d->guess_count, site, sizeof *d->guess_us);
        for (int i = before; i < d->guess_count; i++) {
            d->guess_us[i] = NO_GUESS;
        }
        d->guess_us[site] = (int32_t)topo_estimate_us(row->place, d->place);
    } else if (site < d->guess_count) {
        d->guess_us[site] = NO_GUESS;
    }
}

static void refresh_data(struct topo *t, int data)
{
    for (int site = 0; site < t->site_count; site++) {
        refresh(t, site, data);
    }
}

static bool same_place(struct topo_place a, struct topo_place b)
{
    return a.known == b.known && (!a.known || (a.lat == b.lat && a.lon == b.lon));
}

void topo_set_site(struct topo *t, int site, struct topo_place place)
{
    struct site_row *row = row_at(t, site);
    topo_sites_room(t, site);
    if (same_place(row->place, place)) {
        return;
    }
    row->place = place;
    topo_sites_moved(t, site);
    for (int data = 0; data < t->data_count; data++) {
        if (t->data[data].site == site) {
            refresh_data(t, data);
        } else {
            refresh(t, site, data);
        }
    }
}

void topo_set_data(struct topo *t, int data, struct topo_place place)
{
    struct data_row *d = data_at(t, data);
    if (d->site < 0 && same_place(d->place, place)) {
        return;
    }
    d->site = -1;
    d->place = place;
    refresh_data(t, data);
}

void topo_set_data_site(struct topo *t, int data, int site)
{
    struct data_row *d = data_at(t, data);
    if (d->site == site) {
        return;
    }
    d->site = site < 0 ? -1 : site;
    if (site >= 0) {
        row_at(t, site);
        topo_sites_room(t, site);
    }
    refresh_data(t, data);
}

/* ---- what is told ---- */

/* The fastest sample counts: one packet that beats light is enough to disbelieve. */
static int64_t fastest_us(int64_t rtt_us, int64_t min_us)
{
    return min_us > 0 && min_us < rtt_us ? min_us : rtt_us;
}

bool topo_cell_possible(const struct topo_cell *c)
{
    return c->measured && fastest_us(c->rtt_us, c->min_us) >= c->floor_us;
}

/* count/(count + 4) x min(1, (1.5 p50 + 1 ms)/p99). */
static int32_t quality_ppm(const struct topo_rtt *m)
{
    double count = m->count > 0 ? (double)m->count : 1;
    double calm = 1.5 * (double)m->rtt_us + 1000;
    double spread =
        m->p99_us > 0 && (double)m->p99_us > calm ? calm / (double)m->p99_us : 1;
    return (int32_t)(count / (count + 4) * spread * (double)PPM);
}

static void follow(struct topo_cell *c, const struct topo_rtt *m)
{
    if (c->baseline_count == 0) {
        c->baseline_us = (double)m->rtt_us;
        c->baseline_count = 1;
        c->followed_us = m->at_us;
        return;
    }
    /* The same window told again, or an older one, moves nothing. */
    if (m->at_us <= c->followed_us) {
        return;
    }
    double dt = (double)(m->at_us - c->followed_us);
    c->followed_us = m->at_us;
    double part = fmin(dt / (dt + (double)TOPO_BASELINE_US), 0.25);
    if (c->baseline_count < TOPO_DRIFT_WARM) {
        c->baseline_count++;
        part = fmax(part, 1.0 / c->baseline_count);
    }
    c->baseline_us += part * ((double)m->rtt_us - c->baseline_us);
}

int topo_measured(struct topo *t, int site, int data, const struct topo_rtt *rtt,
                  struct err *err)
{
    int64_t fastest = fastest_us(rtt->rtt_us, rtt->min_us);
    int64_t floor_us = floor_of(t, site, data);
    if (fastest < floor_us) {
        return err_set(err, ERR_CONFLICT,
                       "measured RTT %.3f ms beats light in fibre over %.0f km "
                       "(%.3f ms): the place of the site or of the data is wrong",
                       (double)fastest / 1000,
                       topo_km(topo_site_place(t, site), topo_data_place(t, data)),
                       (double)floor_us / 1000);
    }
    struct topo_cell *c = cell_at(t, site, data);
    follow(c, rtt);
    c->measured = true;
    c->rtt_us = rtt->rtt_us;
    c->min_us = rtt->min_us;
    c->p99_us = rtt->p99_us;
    c->count = rtt->count;
    c->at_us = rtt->at_us;
    c->quality_ppm = quality_ppm(rtt);
    return 0;
}

void topo_declared(struct topo *t, int site, int data, int64_t rtt_us, int64_t at_us)
{
    struct topo_cell *c = cell_at(t, site, data);
    c->declared_us = rtt_us;
    c->declared_at_us = at_us;
}

/* ---- what is asked ---- */

static struct topo_rtt as_measured(const struct topo_cell *c, int64_t age_us)
{
    struct topo_rtt r = {.source = TOPO_MEASURED,
                         .rtt_us = c->rtt_us,
                         .min_us = c->min_us,
                         .p99_us = c->p99_us,
                         .count = c->count,
                         .at_us = c->at_us,
                         .confidence_ppm = c->quality_ppm,
                         .baseline_us = (int64_t)(c->baseline_us + 0.5)};
    if (age_us > TOPO_FRESH_US) {
        r.confidence_ppm =
            (int64_t)((double)c->quality_ppm * (double)TOPO_FRESH_US / (double)age_us);
    }
    r.drift_us = r.rtt_us - r.baseline_us;
    int64_t drift = r.drift_us < 0 ? -r.drift_us : r.drift_us;
    r.drifting = c->baseline_count >= TOPO_DRIFT_WARM && drift > TOPO_DRIFT_MIN_US &&
                 drift > r.baseline_us / TOPO_DRIFT_PART;
    return r;
}

static struct topo_rtt as_declared(int64_t rtt_us, int64_t at_us)
{
    return (struct topo_rtt){.source = TOPO_DECLARED,
                             .rtt_us = rtt_us,
                             .at_us = at_us,
                             .confidence_ppm = TOPO_CONFIDENCE_DECLARED_PPM};
}

static struct topo_rtt as_topology(int64_t rtt_us, bool linked)
{
    if (rtt_us < 0) {
        return (struct topo_rtt){0};
    }
    return (struct topo_rtt){.source = TOPO_TOPOLOGY,
                             .rtt_us = rtt_us,
                             .confidence_ppm = linked ? TOPO_CONFIDENCE_FIBRE_PPM
                                                      : TOPO_CONFIDENCE_CIRCLE_PPM};
}

static struct topo_rtt hop_rtt(const struct topo *t, int a, int b)
{
    const struct hop *hop = topo_hop(t, a, b);
    return hop == NULL ? (struct topo_rtt){0} : as_topology(hop->topo_us, hop->linked);
}

struct topo_rtt topo_rtt(const struct topo *t, int site, int data, int64_t now_us)
{
    const struct topo_cell *c = topo_cell(t, site, data);
    bool measured = topo_cell_possible(c);
    int64_t age_us = now_us - c->at_us;
    if (measured && age_us <= TOPO_FRESH_US) {
        return as_measured(c, age_us);
    }
    if (c->declared_us > 0 && c->declared_us >= c->floor_us) {
        return as_declared(c->declared_us, c->declared_at_us);
    }
    const struct data_row *d =
        data >= 0 && data < t->data_count ? &t->data[data] : NULL;
    if (d != NULL && d->site >= 0) {
        const struct topo_pair *pair = topo_pair(t, site, d->site);
        if (pair != NULL) {
            return as_declared(pair->rtt_us, pair->at_us);
        }
    }
    /* An old measurement of this very path knows its detours; a computed one guesses
     * them. It still loses to a declared figure, which somebody answers for. */
    if (measured) {
        return as_measured(c, age_us);
    }
    if (d == NULL) {
        return (struct topo_rtt){0};
    }
    if (d->site >= 0) {
        return hop_rtt(t, site, d->site);
    }
    return as_topology(
        site >= 0 && site < d->guess_count ? d->guess_us[site] : NO_GUESS, false);
}

struct topo_rtt topo_sites(const struct topo *t, int a, int b)
{
    const struct topo_pair *pair = topo_pair(t, a, b);
    return pair != NULL ? as_declared(pair->rtt_us, pair->at_us) : hop_rtt(t, a, b);
}

const char *topo_source_name(enum topo_source s)
{
    switch (s) {
    case TOPO_MEASURED: return "measured";
    case TOPO_DECLARED: return "declared";
    case TOPO_TOPOLOGY: return "topology";
    case TOPO_UNKNOWN: break;
    }
    return "unknown";
}

const char *topo_confidence_name(int64_t confidence_ppm)
{
    return confidence_ppm >= TOPO_CONFIDENCE_HIGH_PPM     ? "high"
           : confidence_ppm >= TOPO_CONFIDENCE_MEDIUM_PPM ? "medium"
           : confidence_ppm > 0                           ? "low"
                                                          : "none";
}
