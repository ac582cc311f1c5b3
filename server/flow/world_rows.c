/* world_rows: rows of the database into the world's tables (contract in world.h). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/log.h"
#include "client/lib/xalloc.h"
#include "server/flow/world.h"
#include "server/flow/world_ids.h"

int world_ids_get(const struct world_id_map *m, int id)
{
    return id > 0 && (size_t)id < m->cap ? m->index[id] - 1 : -1;
}

void world_ids_put(struct world_id_map *m, int id, int index)
{
    if (id <= 0)
        return;
    if ((size_t)id >= m->cap) {
        size_t cap = m->cap == 0 ? 64 : m->cap;
        while (cap <= (size_t)id)
            cap *= 2;
        m->index = xreallocarray(m->index, cap, sizeof(*m->index));
        memset(m->index + m->cap, 0, (cap - m->cap) * sizeof(*m->index));
        m->cap = cap;
    }
    m->index[id] = index + 1;
}

void world_ids_done(struct world_ids *ids)
{
    free(ids->sites.index);
    free(ids->nodes.index);
    free(ids->data.index);
    free(ids->paths.index);
}

static void set_text(char **field, const char *text)
{
    free(*field);
    *field = xstrdup(text);
}

static void set_uuid(char out[UUID_TEXT], const char *text)
{
    size_t len = strnlen(text, UUID_TEXT - 1);
    memcpy(out, text, len);
    out[len] = '\0';
}

static int nibble(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Anything that is not 64 hex digits reads as all zero: matches no certificate. */
static void set_hash(uint8_t out[SHA256_LEN], const char *hex)
{
    memset(out, 0, SHA256_LEN);
    if (strlen(hex) != 2 * SHA256_LEN)
        return;
    for (size_t i = 0; i < SHA256_LEN; i++)
        out[i] = (uint8_t)(nibble(hex[2 * i]) << 4 | nibble(hex[2 * i + 1]));
}

/* Grows a table by one zeroed entry when index is its end. */
static void *slot_at(void *table, size_t *count, size_t *cap, int index, size_t size)
{
    if ((size_t)index < *count)
        return table;
    if (*count == *cap) {
        *cap = *cap == 0 ? 16 : 2 * *cap;
        table = xreallocarray(table, *cap, size);
    }
    memset((char *)table + *count * size, 0, size);
    (*count)++;
    return table;
}

/* ---- sites ---- */

static void data_place(struct world *w, int data);

void world_put_sites(struct world *w, const struct store_result *r)
{
    for (size_t row = 0; row < store_rows(r); row++) {
        int id = (int)store_i64(r, row, 0);
        int i = world_ids_get(&w->ids->sites, id);
        if (i < 0) {
            i = (int)w->site_count;
            w->sites = slot_at(w->sites, &w->site_count, &w->site_cap, i,
                               sizeof(struct world_site));
            w->sites[i].domains = json_object();
            w->sites[i].probes_due = true;
            world_ids_put(&w->ids->sites, id, i);
        }
        struct world_site *s = &w->sites[i];
        s->id = id;
        set_text(&s->name, store_text(r, row, 1));
        set_text(&s->city, store_text(r, row, 2));
        s->place =
            (struct topo_place){store_real(r, row, 3), store_real(r, row, 4), true};
        memcpy(s->residency, store_text(r, row, 5),
               strnlen(store_text(r, row, 5), sizeof(s->residency) - 1));
        set_text(&s->zone, store_text(r, row, 6));
        topo_set_site(w->topo, i, s->place);
    }
    /* Offers and paths borrow from the table, which may have moved. */
    for (size_t i = 0; i < w->offer_count; i++) {
        const struct world_site *s = &w->sites[w->offers[i].site];
        w->offers[i].site_name = s->name;
        w->offers[i].residency = s->residency;
        w->offers[i].zone = s->zone;
    }
    for (size_t i = 0; i < w->data_count; i++)
        data_place(w, (int)i);
}

/* ---- nodes ---- */

int world_node_slot(struct world *w, int node_id)
{
    int i = world_ids_get(&w->ids->nodes, node_id);
    if (i >= 0)
        return i;
    i = (int)w->node_count;
    w->nodes =
        slot_at(w->nodes, &w->node_count, &w->node_cap, i, sizeof(struct world_node));
    w->nodes[i].id = node_id;
    w->nodes[i].model = -1;
    w->nodes[i].price_micro = -1;
    world_ids_put(&w->ids->nodes, node_id, i);
    return i;
}

static void node_windows(struct world_node *n, const char *text)
{
    json_t *list = json_loads(text, 0, NULL), *span;
    size_t i;
    free(n->windows);
    n->window_count = 0;
    n->windows = xcalloc(json_array_size(list) + 1, sizeof(*n->windows));
    json_array_foreach(list, i, span)
    {
        const json_t *from = json_array_get(span, 0), *to = json_array_get(span, 1);
        n->windows[n->window_count++] = (struct calendar_span){
            json_is_integer(from) ? json_integer_value(from) : INT64_MIN,
            json_is_integer(to) ? json_integer_value(to) : INT64_MAX};
    }
    json_decref(list);
}

static void join_site(struct world_site *s, int node)
{
    if ((s->node_count & (s->node_count - 1)) == 0)
        s->nodes = xreallocarray(s->nodes, s->node_count == 0 ? 1 : 2 * s->node_count,
                                 sizeof(*s->nodes));
    s->nodes[s->node_count++] = node;
}

/* Fabric domains have numbers of their own at each site; a name keeps its number. */
static int domain_of(struct world_site *s, const char *name)
{
    if (*name == '\0')
        return 0;
    const json_t *known = json_object_get(s->domains, name);
    if (known != NULL)
        return (int)json_integer_value(known);
    int domain = (int)json_object_size(s->domains) + 1;
    json_object_set_new(s->domains, name, json_integer(domain));
    return domain;
}

static void put_node(struct world *w, const struct store_result *r, size_t row)
{
    int site = world_ids_get(&w->ids->sites, (int)store_i64(r, row, 1));
    if (site < 0) { /* its site.changed event was not read yet */
        w->reload = true;
        return;
    }
    int i = world_node_slot(w, (int)store_i64(r, row, 0));
    struct world_node *n = &w->nodes[i];
    n->site = site;
    set_uuid(n->provider_id, store_text(r, row, 2));
    set_text(&n->provider, store_text(r, row, 3));
    set_text(&n->name, store_text(r, row, 4));
    set_text(&n->spiffe_id, store_text(r, row, 5));
    set_hash(n->cert, store_text(r, row, 6));
    set_hash(n->next_cert, store_text(r, row, 7));
    set_hash(n->receipt_key, store_text(r, row, 8));
    n->gpus = (int)store_i64(r, row, 9);
    set_text(&n->gpu_model, store_text(r, row, 10));
    n->memory_mib = store_i64(r, row, 11);
    n->offered = (uint64_t)store_i64(r, row, 12);
    node_windows(n, store_text(r, row, 13));
    set_text(&n->address, store_text(r, row, 14));
    set_text(&n->state, store_text(r, row, 15));
    n->last_sync_us = store_i64(r, row, 16);
    n->price_micro =
        store_is_null(r, row, 17) || strcmp(store_text(r, row, 18), w->currency) != 0
            ? -1
            : store_i64(r, row, 17);
    n->domain = domain_of(&w->sites[site], store_text(r, row, 20));
    n->notice_us = store_is_null(r, row, 21) ? 0 : store_i64(r, row, 22);
    n->spot_price_micro = n->notice_us > 0 ? store_i64(r, row, 21) : 0;
    if (n->notice_us > 0)
        world_want_firm(w);
    json_decref(n->gpu_uuids);
    n->gpu_uuids = json_loads(store_text(r, row, 19), 0, NULL);
    json_decref(n->earlier_keys);
    n->earlier_keys = json_loads(store_text(r, row, 23), 0, NULL);
    if (!n->known)
        join_site(&w->sites[site], i);
    n->known = true;
    json_object_set_new(w->agents, n->spiffe_id, json_integer(i));
    world_regroup(w, i);
    world_wake_node(w, i);
}

void world_put_nodes(struct world *w, const struct store_result *r)
{
    for (size_t row = 0; row < store_rows(r); row++)
        put_node(w, r, row);
}

/* ---- data sets and round trips ---- */

static void data_place(struct world *w, int data)
{
    struct world_data *d = &w->data[data];
    if (!d->known)
        return;
    topo_set_data(w->topo, data, d->site >= 0 ? w->sites[d->site].place : d->place);
    topo_set_data_site(w->topo, data, d->site);
}

static int data_slot(struct world *w, int id)
{
    int i = world_ids_get(&w->ids->data, id);
    if (i >= 0)
        return i;
    i = (int)w->data_count;
    w->data =
        slot_at(w->data, &w->data_count, &w->data_cap, i, sizeof(struct world_data));
    w->data[i].id = id;
    w->data[i].site = -1;
    world_ids_put(&w->ids->data, id, i);
    return i;
}

void world_put_data(struct world *w, const struct store_result *r)
{
    for (size_t row = 0; row < store_rows(r); row++) {
        int i = data_slot(w, (int)store_i64(r, row, 0));
        struct world_data *d = &w->data[i];
        bool was = d->known && !d->removed;
        set_uuid(d->tenant_id, store_text(r, row, 1));
        set_text(&d->name, store_text(r, row, 2));
        set_text(&d->endpoint, store_text(r, row, 3));
        d->site = world_ids_get(&w->ids->sites, (int)store_i64(r, row, 4));
        d->place =
            (struct topo_place){store_real(r, row, 5), store_real(r, row, 6),
                                !store_is_null(r, row, 5) && !store_is_null(r, row, 6)};
        d->removed = store_i64(r, row, 8) != 0;
        d->known = true;
        data_place(w, i);
        char *key = xasprintf("%s/%s", d->tenant_id, d->name);
        /* A name may be given again after a removal: the removed one must not win. */
        const json_t *now = json_object_get(w->data_names, key);
        if (!d->removed)
            json_object_set_new(w->data_names, key, json_integer(i));
        else if (now != NULL && json_integer_value(now) == i)
            json_object_del(w->data_names, key);
        free(key);
        if (w->loaded && was != !d->removed)
            world_elect_data(w, i);
    }
}

/* The site's figure is that of its best node: the newest window's smallest p50. */
static void put_best(struct world *w, int data, int site, int64_t newest_us)
{
    const struct world_data *d = &w->data[data];
    const struct topo_rtt *best = NULL;
    for (size_t i = 0; i < d->sample_count; i++) {
        const struct topo_rtt *s = &d->samples[i].rtt;
        if (w->nodes[d->samples[i].node].site != site ||
            s->at_us < newest_us - TOPO_FRESH_US)
            continue;
        if (best == NULL || s->rtt_us < best->rtt_us)
            best = s;
    }
    struct err err;
    if (best != NULL && topo_measured(w->topo, site, data, best, &err) != 0)
        log_warn("round trip from site %s to data set %s is not believed: %s",
                 w->sites[site].name, d->name, err.text);
}

void world_put_rtts(struct world *w, const struct store_result *r)
{
    for (size_t row = 0; row < store_rows(r); row++) {
        int node = world_node_find(w, (int)store_i64(r, row, 0));
        int data = world_ids_get(&w->ids->data, (int)store_i64(r, row, 1));
        if (node < 0 || data < 0)
            continue;
        struct world_data *d = &w->data[data];
        size_t i = 0;
        while (i < d->sample_count && d->samples[i].node != node)
            i++;
        d->samples = slot_at(d->samples, &d->sample_count, &d->sample_cap, (int)i,
                             sizeof(*d->samples));
        d->samples[i] = (struct world_rtt_sample){node,
                                                  {.source = TOPO_MEASURED,
                                                   .rtt_us = store_i64(r, row, 3),
                                                   .min_us = store_i64(r, row, 2),
                                                   .p99_us = store_i64(r, row, 4),
                                                   .count = store_i64(r, row, 5),
                                                   .at_us = store_i64(r, row, 6)}};
        put_best(w, data, w->nodes[node].site, d->samples[i].rtt.at_us);
    }
}

/* ---- bookings and keys ---- */

static bool any_spot(const struct store_result *r)
{
    for (size_t row = 0; row < store_rows(r); row++)
        if (store_i64(r, row, 7) != 0)
            return true;
    return false;
}

/* All of them: what the old calendars had beside is gone. */
void world_put_bookings(struct world *w, const struct store_result *r)
{
    bool firm = w->firm != NULL || any_spot(r);
    calendar_free(w->calendar);
    calendar_free(w->firm);
    w->calendar = calendar_new();
    w->firm = firm ? calendar_new() : NULL;
    world_forget_spots(w);
    world_retell_calendars(w);
    for (size_t row = 0; row < store_rows(r); row++) {
        struct world_booking b = {
            .id = store_i64(r, row, 0),
            .node = world_node_slot(w, (int)store_i64(r, row, 1)),
            .first = (int)store_i64(r, row, 2),
            .count = (int)store_i64(r, row, 3),
            .during = {store_i64(r, row, 4), store_i64(r, row, 5)},
            .spot = store_i64(r, row, 7) != 0,
            .started_us = store_i64(r, row, 8),
            .gpu_hour_micro = store_i64(r, row, 9),
            .notice_us = store_i64(r, row, 10)};
        set_uuid(b.reservation, store_text(r, row, 6));
        world_block(w, &b);
    }
    /* Committed after the table was read, answered before it came. */
    for (size_t i = 0; i < w->late_count; i++)
        world_block(w, &w->late[i]);
    w->wait_due = true; /* the shadows are gone */
}

void world_put_keys(struct world *w, const struct store_result *r)
{
    json_object_clear(w->keys);
    for (size_t row = 0; row < store_rows(r); row++)
        json_object_set_new(
            w->keys, store_text(r, row, 0),
            json_pack("{s:s, s:s, s:s, s:s, s:s}", "role", store_text(r, row, 1),
                      "tenant_id", store_text(r, row, 2), "provider_id",
                      store_text(r, row, 3), "name", store_text(r, row, 4), "id",
                      store_text(r, row, 5)));
}
