/* topo_sites: round trips between sites, kept as a matrix so that asking is one load.
 * Fibre known between sites gives shortest paths; pairs it does not join keep the
 * great circle. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"
#include "server/core/topo.h"
#include "server/core/topo_impl.h"

const struct hop *topo_hop(const struct topo *t, int a, int b)
{
    bool there = a >= 0 && a < t->side && b >= 0 && b < t->side;
    return there ? &t->hops[(size_t)a * (size_t)t->side + (size_t)b] : NULL;
}

static struct hop *hop_at(struct topo *t, int a, int b)
{
    return &t->hops[(size_t)a * (size_t)t->side + (size_t)b];
}

const struct topo_pair *topo_pair(const struct topo *t, int a, int b)
{
    const struct hop *hop = topo_hop(t, a, b);
    if (hop == NULL || hop->declared == 0) {
        return NULL;
    }
    const struct topo_pair *pair = &t->pairs[hop->declared - 1];
    return pair->rtt_us > 0 && pair->possible ? pair : NULL;
}

void topo_sites_room(struct topo *t, int site)
{
    if (site < t->side) {
        return;
    }
    int side = site + 1 > 2 * t->side ? site + 1 : 2 * t->side;
    struct hop *hops = xreallocarray(NULL, (size_t)side * (size_t)side, sizeof *hops);
    for (int a = 0; a < side; a++) {
        for (int b = 0; b < side; b++) {
            const struct hop *old = topo_hop(t, a, b);
            hops[(size_t)a * (size_t)side + (size_t)b] =
                old != NULL ? *old : (struct hop){.topo_us = NO_GUESS};
        }
    }
    free(t->hops);
    t->hops = hops;
    t->side = side;
}

/* The great circle, or nothing where a place is not known. */
static void guess(struct topo *t, int a, int b)
{
    struct topo_place from = topo_site_place(t, a), to = topo_site_place(t, b);
    int32_t us =
        from.known && to.known ? (int32_t)topo_estimate_us(from, to) : NO_GUESS;
    *hop_at(t, a, b) =
        (struct hop){.topo_us = us, .declared = hop_at(t, a, b)->declared};
}

static void judge(const struct topo *t, struct topo_pair *pair)
{
    struct topo_place a = topo_site_place(t, pair->a), b = topo_site_place(t, pair->b);
    pair->possible = !a.known || !b.known || pair->rtt_us >= topo_floor_us(a, b);
}

void topo_sites_moved(struct topo *t, int site)
{
    for (int other = 0; other < t->side; other++) {
        if (!hop_at(t, site, other)->linked) {
            guess(t, site, other);
            guess(t, other, site);
        }
    }
    for (int i = 0; i < t->pair_count; i++) {
        if (t->pairs[i].a == site || t->pairs[i].b == site) {
            judge(t, &t->pairs[i]);
        }
    }
}

void topo_declare_sites(struct topo *t, int a, int b, int64_t rtt_us, int64_t at_us)
{
    topo_sites_room(t, a > b ? a : b);
    struct hop *hop = hop_at(t, a, b);
    if (hop->declared == 0) {
        t->pairs = topo_grow(t->pairs, &t->pair_room, t->pair_count, sizeof *t->pairs);
        hop->declared = hop_at(t, b, a)->declared = ++t->pair_count;
    }
    struct topo_pair *pair = &t->pairs[hop->declared - 1];
    *pair = (struct topo_pair){.a = a, .b = b, .rtt_us = rtt_us, .at_us = at_us};
    judge(t, pair);
}

/* ---- fibre ---- */

static struct topo_link *find_link(const struct topo *t, int a, int b)
{
    for (int i = 0; i < t->link_count; i++) {
        struct topo_link *l = &t->links[i];
        if ((l->a == a && l->b == b) || (l->a == b && l->b == a)) {
            return l;
        }
    }
    return NULL;
}

int topo_link(struct topo *t, int a, int b, double km, struct err *err)
{
    if (a < 0 || b < 0 || a == b || !(km > 0 && km <= TOPO_LINK_MAX_KM)) {
        return err_set(err, ERR_BAD_REQUEST,
                       "a link joins two sites and has a length of at most %.0f km",
                       TOPO_LINK_MAX_KM);
    }
    struct topo_place from = topo_site_place(t, a), to = topo_site_place(t, b);
    if (from.known && to.known && km + TOPO_LINK_SLACK_KM < topo_km(from, to)) {
        return err_set(err, ERR_CONFLICT,
                       "a link of %.1f km is shorter than the %.1f km between its ends",
                       km, topo_km(from, to));
    }
    struct topo_link *link = find_link(t, a, b);
    if (link == NULL) {
        t->links = topo_grow(t->links, &t->link_room, t->link_count, sizeof *t->links);
        link = &t->links[t->link_count++];
    }
    *link = (struct topo_link){a, b, km};
    topo_sites_room(t, a > b ? a : b);
    return 0;
}

void topo_unlink(struct topo *t, int a, int b)
{
    struct topo_link *link = find_link(t, a, b);
    if (link != NULL) {
        *link = t->links[--t->link_count];
    }
}

/* The linked sites, renumbered densely, and their distances in km. */
struct web {
    int count;
    int *site;    /* by number */
    int *number;  /* by site, -1: no link */
    double *km;   /* count x count: links, INFINITY where there is none */
    double *best; /* from one source */
    bool *done;
};

static void web_init(struct web *w, const struct topo *t)
{
    *w = (struct web){.site = xcalloc((size_t)t->side, sizeof *w->site),
                      .number = xcalloc((size_t)t->side, sizeof *w->number)};
    memset(w->number, 0xff, (size_t)t->side * sizeof *w->number);
    for (int i = 0; i < t->link_count; i++) {
        const int ends[] = {t->links[i].a, t->links[i].b};
        for (int e = 0; e < 2; e++) {
            if (w->number[ends[e]] < 0) {
                w->number[ends[e]] = w->count;
                w->site[w->count++] = ends[e];
            }
        }
    }
    size_t n = (size_t)w->count;
    w->km = xcalloc(n * n + 1, sizeof *w->km);
    w->best = xcalloc(n + 1, sizeof *w->best);
    w->done = xcalloc(n + 1, sizeof *w->done);
    for (size_t i = 0; i < n * n; i++) {
        w->km[i] = INFINITY;
    }
    for (int i = 0; i < t->link_count; i++) {
        size_t a = (size_t)w->number[t->links[i].a];
        size_t b = (size_t)w->number[t->links[i].b];
        w->km[a * n + b] = w->km[b * n + a] = t->links[i].km;
    }
}

static void web_done(struct web *w)
{
    free(w->site);
    free(w->number);
    free(w->km);
    free(w->best);
    free(w->done);
}

/* Dijkstra without a heap: the graph is small and the matrix is read in rows. */
static void web_from(struct web *w, int source)
{
    int n = w->count;
    for (int i = 0; i < n; i++) {
        w->best[i] = INFINITY;
        w->done[i] = false;
    }
    w->best[source] = 0;
    for (;;) {
        int next = -1;
        for (int i = 0; i < n; i++) {
            if (!w->done[i] && isfinite(w->best[i]) &&
                (next < 0 || w->best[i] < w->best[next])) {
                next = i;
            }
        }
        if (next < 0) {
            return;
        }
        w->done[next] = true;
        const double *row = &w->km[(size_t)next * (size_t)n];
        for (int i = 0; i < n; i++) {
            double by = w->best[next] + row[i];
            w->best[i] = by < w->best[i] ? by : w->best[i];
        }
    }
}

void topo_relink(struct topo *t)
{
    struct web w;
    for (int a = 0; a < t->side; a++) {
        for (int b = 0; b < t->side; b++) {
            if (hop_at(t, a, b)->linked) {
                guess(t, a, b);
            }
        }
    }
    if (t->side == 0) {
        return;
    }
    web_init(&w, t);
    for (int a = 0; a < w.count; a++) {
        web_from(&w, a);
        for (int b = 0; b < w.count; b++) {
            struct hop *hop = hop_at(t, w.site[a], w.site[b]);
            /* A way around the world several times is no way: it would not fit. */
            if (isfinite(w.best[b]) && w.best[b] < 1e7) {
                hop->topo_us = (int32_t)ceil(w.best[b] * TOPO_US_PER_KM * 2 - 1e-6);
                hop->linked = true;
            }
        }
    }
    web_done(&w);
}
