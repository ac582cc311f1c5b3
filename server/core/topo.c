/* topo: what is known of the round trip between sites and data sets. One cell per pair
 * holds the last measurement and the last declaration; which of them counts is decided
 * when asked, because freshness depends on now and places may become known later. */
#include "server/core/topo.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"

#define EARTH_RADIUS_KM 6371.0088 /* IUGG mean radius */

struct cell {
    struct topo_rtt measured, declared; /* source TOPO_UNKNOWN: none */
};

struct site_row {
    struct topo_place place;
    struct cell *cells; /* by data set */
    int cell_count;
};

struct topo {
    struct site_row *sites;
    int site_count;
    struct topo_place *data;
    int data_count;
};

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
    free(t->sites);
    free(t->data);
    free(t);
}

/* A zeroed tail up to index; doubles so that filling a table stays linear. */
static void *grow(void *old, int *count, int index, size_t size)
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

static struct site_row *row_at(struct topo *t, int site)
{
    t->sites = grow(t->sites, &t->site_count, site, sizeof *t->sites);
    return &t->sites[site];
}

static struct cell *cell_at(struct topo *t, int site, int data)
{
    struct site_row *row = row_at(t, site);
    row->cells = grow(row->cells, &row->cell_count, data, sizeof *row->cells);
    return &row->cells[data];
}

static struct topo_place site_place(const struct topo *t, int site)
{
    return site >= 0 && site < t->site_count ? t->sites[site].place
                                             : (struct topo_place){0};
}

static struct topo_place data_place(const struct topo *t, int data)
{
    return data >= 0 && data < t->data_count ? t->data[data] : (struct topo_place){0};
}

void topo_set_site(struct topo *t, int site, struct topo_place place)
{
    row_at(t, site)->place = place;
}

void topo_set_data(struct topo *t, int data, struct topo_place place)
{
    t->data = grow(t->data, &t->data_count, data, sizeof *t->data);
    t->data[data] = place;
}

/* The fastest sample counts: one packet that beats light is enough to disbelieve. */
static int64_t fastest_us(const struct topo_rtt *rtt)
{
    return rtt->min_us > 0 && rtt->min_us < rtt->rtt_us ? rtt->min_us : rtt->rtt_us;
}

static bool is_possible(const struct topo *t, int site, int data,
                        const struct topo_rtt *rtt)
{
    struct topo_place a = site_place(t, site), b = data_place(t, data);
    return !a.known || !b.known || fastest_us(rtt) >= topo_floor_us(a, b);
}

int topo_measured(struct topo *t, int site, int data, const struct topo_rtt *rtt,
                  struct err *err)
{
    if (!is_possible(t, site, data, rtt)) {
        struct topo_place a = site_place(t, site), b = data_place(t, data);
        return err_set(err, ERR_CONFLICT,
                       "measured RTT %.3f ms beats light in fibre over %.0f km "
                       "(%.3f ms): the place of the site or of the data is wrong",
                       (double)fastest_us(rtt) / 1000, topo_km(a, b),
                       (double)topo_floor_us(a, b) / 1000);
    }
    struct cell *cell = cell_at(t, site, data);
    cell->measured = *rtt;
    cell->measured.source = TOPO_MEASURED;
    return 0;
}

void topo_declared(struct topo *t, int site, int data, int64_t rtt_us, int64_t at_us)
{
    cell_at(t, site, data)->declared =
        (struct topo_rtt){.source = TOPO_DECLARED, .rtt_us = rtt_us, .at_us = at_us};
}

struct topo_rtt topo_rtt(const struct topo *t, int site, int data, int64_t now_us)
{
    struct cell none = {0};
    const struct cell *cell = &none;
    if (site >= 0 && site < t->site_count && data >= 0 &&
        data < t->sites[site].cell_count) {
        cell = &t->sites[site].cells[data];
    }
    bool measured = cell->measured.source == TOPO_MEASURED &&
                    is_possible(t, site, data, &cell->measured);
    if (measured && now_us - cell->measured.at_us <= TOPO_FRESH_US) {
        return cell->measured;
    }
    if (cell->declared.source == TOPO_DECLARED &&
        is_possible(t, site, data, &cell->declared)) {
        return cell->declared;
    }
    struct topo_place a = site_place(t, site), b = data_place(t, data);
    /* An old measurement of this very path knows its detours; a computed one guesses
     * them. It still loses to a declared figure, which somebody answers for. */
    if (measured) {
        return cell->measured;
    }
    if (a.known && b.known) {
        return (struct topo_rtt){.source = TOPO_TOPOLOGY,
                                 .rtt_us = topo_estimate_us(a, b)};
    }
    return (struct topo_rtt){0};
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
