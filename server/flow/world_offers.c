/* world_offers: nodes grouped into offers, and the calendar's view of a node (contract
 * in world.h). An offer without nodes is removed by moving the last one into its place,
 * so the array that is matched over has no holes; its model number stays with its
 * nodes, so a removal touches none of them. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"
#include "server/flow/world.h"

/* History before the first tick, in ticks: one bad minute of a new node is not 50 %. */
#define PRIOR_TICKS 3600

static bool is_up(const struct world_node *n)
{
    return strcmp(n->state, "up") == 0;
}

static void tell_calendar(struct world *w, int node)
{
    const struct world_node *n = &w->nodes[node];
    struct calendar_node c = {.site = n->site,
                              .model = n->model,
                              .domain = n->domain,
                              .gpus = n->gpus,
                              .offered = is_up(n) ? n->offered : 0,
                              .windows = n->windows,
                              .window_count = n->window_count};
    calendar_set_node(w->calendar, node, &c);
    if (w->firm != NULL)
        calendar_set_node(w->firm, node, &c);
}

static int offer_of(const struct world *w, const struct world_node *n)
{
    return n->model < 0 ? -1 : w->model_offer[n->model];
}

int world_offer_of(const struct world *w, int node)
{
    return offer_of(w, &w->nodes[node]);
}

/* Counts the node among those up in its offer, or not any more. */
static void count_node(struct world *w, struct world_node *n, bool up)
{
    int offer = offer_of(w, n);
    if (offer < 0 || n->counted_up == up)
        return;
    n->counted_up = up;
    w->offer_info[offer].nodes_up += up ? 1 : -1;
    w->offers[offer].up = w->offer_info[offer].nodes_up > 0;
    w->sites[n->site].probes_due = true;
}

static int model_take(struct world *w, int offer)
{
    if (w->model_free_count > 0) {
        int model = w->model_free[--w->model_free_count];
        w->model_offer[model] = offer;
        return model;
    }
    w->model_offer =
        xreallocarray(w->model_offer, w->model_count + 1, sizeof(*w->model_offer));
    w->model_free =
        xreallocarray(w->model_free, w->model_count + 1, sizeof(*w->model_free));
    w->model_offer[w->model_count] = offer;
    return (int)w->model_count++;
}

static void offer_remove(struct world *w, int offer)
{
    struct world_offer *info = &w->offer_info[offer];
    int last = (int)w->offer_count - 1;
    json_object_del(w->offer_keys, info->key);
    w->model_offer[w->offers[offer].model] = -1;
    w->model_free[w->model_free_count++] = w->offers[offer].model;
    free(info->key);
    free(info->provider);
    free(info->gpu_model);
    if (offer != last) {
        w->offer_info[offer] = w->offer_info[last];
        w->offers[offer] = w->offers[last];
        w->model_offer[w->offers[offer].model] = offer;
        json_object_set_new(w->offer_keys, w->offer_info[offer].key,
                            json_integer(offer));
    }
    w->offer_count--;
}

void world_leave_offer(struct world *w, int node)
{
    struct world_node *n = &w->nodes[node];
    int offer = offer_of(w, n);
    if (offer < 0)
        return;
    calendar_set_offered(w->calendar, node, 0);
    if (w->firm != NULL)
        calendar_set_offered(w->firm, node, 0);
    count_node(w, n, false);
    n->model = -1;
    if (--w->offer_info[offer].nodes == 0)
        offer_remove(w, offer);
}

static int offer_make(struct world *w, const struct world_node *n, const char *key)
{
    int offer = (int)w->offer_count;
    if (w->offer_count == w->offer_cap) {
        w->offer_cap = w->offer_cap == 0 ? 64 : 2 * w->offer_cap;
        w->offers = xreallocarray(w->offers, w->offer_cap, sizeof(*w->offers));
        w->offer_info =
            xreallocarray(w->offer_info, w->offer_cap, sizeof(*w->offer_info));
    }
    w->offer_count++;
    struct world_offer *info = &w->offer_info[offer];
    *info = (struct world_offer){.key = xstrdup(key),
                                 .provider = xstrdup(n->provider),
                                 .gpu_model = xstrdup(n->gpu_model)};
    memcpy(info->provider_id, n->provider_id, sizeof(info->provider_id));
    const struct world_site *site = &w->sites[n->site];
    w->offers[offer] = (struct match_offer){.site = n->site,
                                            .model = model_take(w, offer),
                                            .site_name = site->name,
                                            .provider_name = info->provider,
                                            .gpu_model = info->gpu_model,
                                            .residency = site->residency,
                                            .zone = site->zone,
                                            .price_micro = n->price_micro,
                                            .spot_price_micro = n->spot_price_micro,
                                            .notice_us = n->notice_us,
                                            .gpu_memory_mib = n->memory_mib,
                                            .reliability_ppm = MATCH_PPM};
    json_object_set_new(w->offer_keys, key, json_integer(offer));
    return offer;
}

void world_regroup(struct world *w, int node)
{
    struct world_node *n = &w->nodes[node];
    char key[512];
    if (!n->known)
        return;
    if (n->gpus == 0 || n->price_micro < 0 || strcmp(n->state, "retired") == 0) {
        world_leave_offer(w, node);
        return;
    }
    snprintf(key, sizeof(key),
             "%d/%s/%" PRId64 "/%" PRId64 "/%" PRId64 "/%" PRId64 "/%.300s", n->site,
             n->provider_id, n->memory_mib, n->price_micro, n->spot_price_micro,
             n->notice_us, n->gpu_model);
    const json_t *found = json_object_get(w->offer_keys, key);
    int offer = found != NULL ? (int)json_integer_value(found) : -1;
    if (offer < 0 || offer != offer_of(w, n)) {
        world_leave_offer(w, node);
        /* Leaving may have moved the group to another index. */
        found = json_object_get(w->offer_keys, key);
        offer = found != NULL ? (int)json_integer_value(found) : offer_make(w, n, key);
        n->model = w->offers[offer].model;
        w->offer_info[offer].nodes++;
    }
    tell_calendar(w, node);
    count_node(w, n, is_up(n));
}

void world_retell_calendars(struct world *w)
{
    for (size_t i = 0; i < w->node_count; i++)
        if (w->nodes[i].model >= 0)
            tell_calendar(w, (int)i);
}

void world_count_up(struct world *w)
{
    int64_t *sum = xcalloc(w->offer_count + 1, sizeof(*sum));
    for (size_t i = 0; i < w->node_count; i++) {
        struct world_node *n = &w->nodes[i];
        if (!n->known)
            continue;
        n->ticks++;
        n->ticks_up += is_up(n);
        if (n->model < 0)
            continue;
        sum[offer_of(w, n)] +=
            MATCH_PPM * (n->ticks_up + PRIOR_TICKS) / (n->ticks + PRIOR_TICKS);
    }
    for (size_t i = 0; i < w->offer_count; i++)
        w->offers[i].reliability_ppm = sum[i] / w->offer_info[i].nodes;
    free(sum);
}
