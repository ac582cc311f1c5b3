/* world_probes: which node measures the distance to which data set (contract in
 * world.h). Of each site the TOPO_PROBERS nodes elected by topo.h's rendezvous measure
 * for all of it, so that a site of 10,000 nodes costs a data set as little as one of
 * three. Elections are held again when a data set comes or goes, and for the sites
 * whose nodes came or went, at most every ELECT_EACH_US. */
#include <stdlib.h>
#include <string.h>

#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "server/core/topo.h"
#include "server/flow/world.h"

#define ELECT_EACH_US (10 * US_PER_S)

static bool can_probe(const struct world_node *n)
{
    return n->model >= 0 && n->counted_up;
}

static size_t find_probe(const struct world_node *n, int data)
{
    size_t i = 0;
    while (i < n->probe_count && n->probes[i] != data)
        i++;
    return i;
}

/* True when that changed the node's list. */
static bool set_probe(struct world_node *n, int data, bool wanted)
{
    size_t i = find_probe(n, data);
    bool there = i < n->probe_count;
    if (wanted == there)
        return false;
    if (there) {
        n->probes[i] = n->probes[--n->probe_count];
        return true;
    }
    if ((n->probe_count & (n->probe_count - 1)) == 0)
        n->probes =
            xreallocarray(n->probes, n->probe_count == 0 ? 1 : 2 * n->probe_count,
                          sizeof(*n->probes));
    n->probes[n->probe_count++] = data;
    return true;
}

static void elect(struct world *w, const struct world_site *s, int data)
{
    const struct world_data *d = &w->data[data];
    bool wanted = d->known && !d->removed;
    struct topo_election e;
    topo_elect_begin(&e, d->id, TOPO_PROBERS);
    for (size_t i = 0; wanted && i < s->node_count; i++)
        if (can_probe(&w->nodes[s->nodes[i]]))
            topo_elect_offer(&e, w->nodes[s->nodes[i]].id);
    for (size_t i = 0; i < s->node_count; i++) {
        struct world_node *n = &w->nodes[s->nodes[i]];
        if (set_probe(n, data, wanted && topo_elected(&e, n->id)))
            world_wake_node(w, s->nodes[i]);
    }
}

void world_elect_data(struct world *w, int data)
{
    for (size_t i = 0; i < w->site_count; i++)
        elect(w, &w->sites[i], data);
}

void world_elect_due(struct world *w, int64_t now_us)
{
    for (size_t i = 0; i < w->site_count; i++) {
        struct world_site *s = &w->sites[i];
        if (!s->probes_due || s->node_count == 0 ||
            (s->elected_us != 0 && now_us - s->elected_us < ELECT_EACH_US))
            continue;
        s->probes_due = false;
        s->elected_us = now_us;
        for (size_t k = 0; k < w->data_count; k++)
            elect(w, s, (int)k);
    }
}

size_t world_probes_of(const struct world *w, int node, int64_t now_us,
                       int ret[WORLD_PROBES_MAX])
{
    const struct world_node *n = &w->nodes[node];
    if (n->probe_count <= WORLD_PROBES_MAX) {
        if (n->probe_count > 0)
            memcpy(ret, n->probes, n->probe_count * sizeof(*ret));
        return n->probe_count;
    }
    /* They take turns: every interval another stretch of the list. */
    size_t turn = (size_t)(now_us / w->probe_interval_us);
    size_t first = turn * WORLD_PROBES_MAX % n->probe_count;
    for (size_t i = 0; i < WORLD_PROBES_MAX; i++)
        ret[i] = n->probes[(first + i) % n->probe_count];
    return WORLD_PROBES_MAX;
}
