/* world_paths: the paths between sites and what is booked of their lanes (contract in
 * world.h). A path is a node of the calendar of lanes: one that is down, or joins sites
 * not read yet, offers no lanes. */
#include <stdlib.h>
#include <string.h>

#include "client/lib/clock.h"
#include "client/lib/xalloc.h"
#include "server/flow/world.h"
#include "server/flow/world_ids.h"

int world_path_find(const struct world *w, const char *name)
{
    for (size_t i = 0; i < w->paths.count; i++)
        if (strcmp(w->path_info[i].name, name) == 0)
            return (int)i;
    return -1;
}

static void tell_lanes(struct world *w, int path)
{
    const struct match_path *p = &w->paths.paths[path];
    uint64_t all = p->lanes >= 64 ? UINT64_MAX : (UINT64_C(1) << p->lanes) - 1;
    struct calendar_node n = {
        .site = 0, .model = path, .gpus = p->lanes, .offered = p->up ? all : 0};
    calendar_set_node(w->lanes, path, &n);
}

static int path_slot(struct world *w, int id)
{
    int i = world_ids_get(&w->ids->paths, id);
    if (i >= 0)
        return i;
    i = (int)w->paths.count;
    if (w->paths.count == w->path_cap) {
        w->path_cap = w->path_cap == 0 ? 16 : 2 * w->path_cap;
        w->paths.paths =
            xreallocarray(w->paths.paths, w->path_cap, sizeof(*w->paths.paths));
        w->path_info = xreallocarray(w->path_info, w->path_cap, sizeof(*w->path_info));
    }
    memset(&w->paths.paths[i], 0, sizeof(w->paths.paths[i]));
    memset(&w->path_info[i], 0, sizeof(w->path_info[i]));
    w->path_info[i].id = id;
    w->paths.count++;
    world_ids_put(&w->ids->paths, id, i);
    return i;
}

/* Of several paths between two sites the fastest that is up is what is declared. */
static void declare(struct world *w, int a, int b, int64_t now_us)
{
    int64_t best = 0;
    for (size_t i = 0; i < w->paths.count; i++) {
        const struct match_path *p = &w->paths.paths[i];
        bool joins = (p->from_site == a && p->to_site == b) ||
                     (p->from_site == b && p->to_site == a);
        if (joins && p->up && p->rtt_us > 0 && (best == 0 || p->rtt_us < best))
            best = p->rtt_us;
    }
    topo_declare_sites(w->topo, a, b, best, now_us);
}

void world_put_paths(struct world *w, const struct store_result *r)
{
    for (size_t row = 0; row < store_rows(r); row++) {
        int from = world_ids_get(&w->ids->sites, (int)store_i64(r, row, 3));
        int to = world_ids_get(&w->ids->sites, (int)store_i64(r, row, 4));
        if (from < 0 || to < 0) { /* a site.changed event was not read yet */
            w->reload = true;
            continue;
        }
        int i = path_slot(w, (int)store_i64(r, row, 0));
        struct match_path *p = &w->paths.paths[i];
        free(w->path_info[i].name);
        w->path_info[i].name = xstrdup(store_text(r, row, 1));
        p->from_site = from;
        p->to_site = to;
        p->lanes = (int)store_i64(r, row, 5);
        p->lane_Bps = store_i64(r, row, 6);
        p->rtt_us = store_i64(r, row, 7);
        p->lossless = store_i64(r, row, 8) != 0;
        p->price_micro = store_i64(r, row, 9);
        p->setup_us = store_i64(r, row, 10);
        p->up = strcmp(store_text(r, row, 11), "up") == 0;
        tell_lanes(w, i);
        declare(w, from, to, clock_now_us());
    }
}

/* All of them: what the old calendar had beside is gone. */
void world_put_lanes(struct world *w, const struct store_result *r)
{
    calendar_free(w->lanes);
    w->lanes = calendar_new();
    w->paths.lanes = w->lanes;
    for (size_t i = 0; i < w->paths.count; i++)
        tell_lanes(w, (int)i);
    for (size_t row = 0; row < store_rows(r); row++) {
        int path = world_ids_get(&w->ids->paths, (int)store_i64(r, row, 1));
        if (path < 0) {
            w->reload = true;
            continue;
        }
        struct world_lanes b = {.id = store_i64(r, row, 0),
                                .path = path,
                                .first = (int)store_i64(r, row, 2),
                                .count = (int)store_i64(r, row, 3),
                                .during = {store_i64(r, row, 4), store_i64(r, row, 5)}};
        world_block_lanes(w, &b);
    }
    for (size_t i = 0; i < w->late_lanes_count; i++)
        world_block_lanes(w, &w->late_lanes[i]);
}
