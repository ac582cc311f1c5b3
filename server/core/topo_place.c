/* topo_place: does what a site measures fit the place it claims? And which of its nodes
 * measure. */
#include <string.h>

#include "server/core/topo.h"
#include "server/core/topo_impl.h"

/* What the topology would have it be, over fibre where that is known. */
static int64_t expected_us(const struct topo *t, int site, int data)
{
    int stands = t->data[data].site;
    const struct hop *hop = stands >= 0 ? topo_hop(t, site, stands) : NULL;
    if (hop != NULL && hop->topo_us >= 0) {
        return hop->topo_us;
    }
    return topo_estimate_us(topo_site_place(t, site), topo_data_place(t, data));
}

static bool is_explained(const struct topo *t, int site, int data,
                         const struct topo_cell *c, int64_t min_us)
{
    int stands = t->data[data].site;
    const struct topo_pair *pair = stands >= 0 ? topo_pair(t, site, stands) : NULL;
    return 2 * c->declared_us >= min_us || (pair != NULL && 2 * pair->rtt_us >= min_us);
}

static void weigh(const struct topo *t, int site, int data, struct topo_doubt *d)
{
    const struct topo_cell *c = topo_cell(t, site, data);
    struct topo_place here = topo_site_place(t, site), there = topo_data_place(t, data);
    if (!c->measured || !here.known || !there.known) {
        return;
    }
    int64_t min_us = c->min_us > 0 ? c->min_us : c->rtt_us;
    if (!topo_cell_possible(c)) {
        if (d->verdict != TOPO_PLACE_IMPOSSIBLE) {
            d->verdict = TOPO_PLACE_IMPOSSIBLE;
            d->data = data;
            d->measured_us = min_us;
            d->expected_us = c->floor_us;
        }
        d->contradicting++;
        return;
    }
    if (topo_km(here, there) > TOPO_NEAR_KM) {
        return;
    }
    int64_t expected = expected_us(t, site, data);
    if (min_us <= TOPO_SLOW_FACTOR * expected + TOPO_SLOW_US) {
        d->supporting++;
        return;
    }
    if (is_explained(t, site, data, c, min_us)) {
        return;
    }
    d->contradicting++;
    if (d->verdict != TOPO_PLACE_IMPOSSIBLE && min_us > d->measured_us) {
        d->data = data;
        d->measured_us = min_us;
        d->expected_us = expected;
    }
}

bool topo_place_contradicted(const struct topo *t, int site, struct topo_doubt *ret)
{
    struct topo_doubt d = {.verdict = TOPO_PLACE_UNTESTED, .data = -1};
    for (int data = 0; data < t->data_count; data++) {
        weigh(t, site, data, &d);
    }
    if (d.verdict != TOPO_PLACE_IMPOSSIBLE) {
        d.verdict = d.supporting > 0      ? TOPO_PLACE_SUPPORTED
                    : d.contradicting > 0 ? TOPO_PLACE_SUSPICIOUS
                                          : TOPO_PLACE_UNTESTED;
    }
    if (ret != NULL) {
        *ret = d;
    }
    return d.verdict >= TOPO_PLACE_SUSPICIOUS;
}

const char *topo_verdict_name(enum topo_verdict v)
{
    switch (v) {
    case TOPO_PLACE_SUPPORTED: return "supported";
    case TOPO_PLACE_SUSPICIOUS: return "suspicious";
    case TOPO_PLACE_IMPOSSIBLE: return "impossible";
    case TOPO_PLACE_UNTESTED: break;
    }
    return "untested";
}

/* ---- probers ---- */

/* The finaliser of SplitMix64 (Steele, Lea, Flood 2014): each bit of x moves half of
 * the result's. */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

void topo_elect_begin(struct topo_election *e, int64_t data, int want)
{
    memset(e, 0, sizeof *e);
    e->data = mix((uint64_t)data);
    e->want = want < 0 ? 0 : (want > TOPO_PROBERS_MAX ? TOPO_PROBERS_MAX : want);
}

void topo_elect_offer(struct topo_election *e, int64_t node)
{
    uint64_t weight = mix(e->data ^ mix((uint64_t)node + 1));
    int at = e->count;
    /* mix is one to one, so different nodes never tie. */
    while (at > 0 && weight > e->weight[at - 1]) {
        at--;
    }
    if (at >= e->want) {
        return;
    }
    if (e->count < e->want) {
        e->count++;
    }
    for (int i = e->count - 1; i > at; i--) {
        e->weight[i] = e->weight[i - 1];
        e->node[i] = e->node[i - 1];
    }
    e->weight[at] = weight;
    e->node[at] = node;
}

bool topo_elected(const struct topo_election *e, int64_t node)
{
    for (int i = 0; i < e->count; i++) {
        if (e->node[i] == node) {
            return true;
        }
    }
    return false;
}

size_t topo_probe_elect(const int64_t *nodes, size_t n, int64_t data, int k,
                        int64_t *ret)
{
    struct topo_election e;
    topo_elect_begin(&e, data, k);
    for (size_t i = 0; i < n; i++) {
        topo_elect_offer(&e, nodes[i]);
    }
    memcpy(ret, e.node, (size_t)e.count * sizeof *ret);
    return (size_t)e.count;
}
