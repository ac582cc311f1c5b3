#include "server/flow/world.h"

#include <stdlib.h>
#include <string.h>

#include "client/lib/b64.h"
#include "client/lib/timefmt.h"
#include "client/lib/token.h"
#include "client/lib/xalloc.h"
#include "server/flow/world_ids.h"

#define UNKNOWN_AFTER_US (90 * US_PER_S)
#define LOST_AFTER_US    (15 * 60 * US_PER_S)
/* Tries count down from -1, shadows from here. */
#define SHADOW_FIRST (-(INT64_C(1) << 62))

struct world *world_new(const struct world_opts *opts)
{
    struct world *w = xcalloc(1, sizeof(*w));
    w->market = xstrdup(opts->market);
    w->currency = xstrdup(opts->currency);
    w->hold_window_us = opts->hold_window_us;
    w->ca = opts->ca;
    w->issuer = opts->issuer;
    w->probe_interval_us = opts->probe_interval_us;
    w->receipt_interval_us = opts->receipt_interval_us;
    w->token_life_us = opts->token_life_us > 0 ? opts->token_life_us : TOKEN_LIFE_US;
    w->unknown_after_us =
        opts->unknown_after_us > 0 ? opts->unknown_after_us : UNKNOWN_AFTER_US;
    w->lost_after_us = opts->lost_after_us > 0 ? opts->lost_after_us : LOST_AFTER_US;
    w->started_us = opts->now_us;
    w->calendar = calendar_new();
    w->lanes = calendar_new();
    w->paths.lanes = w->lanes;
    w->gens = world_gens_new();
    w->backfill.first_id = SHADOW_FIRST;
    w->topo = topo_new();
    w->ids = xcalloc(1, sizeof(*w->ids));
    w->keys = json_object();
    w->agents = json_object();
    w->data_names = json_object();
    w->offer_keys = json_object();
    w->revoked = json_array();
    w->min_epochs = json_object();
    w->reload = true;
    return w;
}

static void node_done(struct world_node *n)
{
    free(n->provider);
    free(n->name);
    free(n->spiffe_id);
    free(n->address);
    free(n->gpu_model);
    free(n->state);
    free(n->windows);
    free(n->probes);
    json_decref(n->gpu_uuids);
    json_decref(n->earlier_keys);
}

void world_free(struct world *w)
{
    if (w == NULL)
        return;
    for (size_t i = 0; i < w->site_count; i++) {
        free(w->sites[i].name);
        free(w->sites[i].city);
        free(w->sites[i].zone);
        free(w->sites[i].nodes);
        json_decref(w->sites[i].domains);
    }
    for (size_t i = 0; i < w->node_count; i++)
        node_done(&w->nodes[i]);
    for (size_t i = 0; i < w->data_count; i++) {
        free(w->data[i].name);
        free(w->data[i].endpoint);
        free(w->data[i].samples);
    }
    for (size_t i = 0; i < w->offer_count; i++) {
        free(w->offer_info[i].key);
        free(w->offer_info[i].provider);
        free(w->offer_info[i].gpu_model);
    }
    free(w->sites);
    free(w->nodes);
    free(w->data);
    free(w->offers);
    free(w->offer_info);
    for (size_t i = 0; i < w->paths.count; i++)
        free(w->path_info[i].name);
    free(w->path_info);
    free(w->paths.paths);
    free(w->model_offer);
    free(w->model_free);
    free(w->spots);
    free(w->spot_index);
    world_gens_free(w->gens);
    calendar_free(w->calendar);
    calendar_free(w->firm);
    calendar_free(w->lanes);
    topo_free(w->topo);
    world_ids_done(w->ids);
    free(w->ids);
    json_decref(w->keys);
    json_decref(w->agents);
    json_decref(w->data_names);
    json_decref(w->offer_keys);
    json_decref(w->revoked);
    json_decref(w->min_epochs);
    free(w->try_waiters);
    free(w->late);
    free(w->late_lanes);
    world_reads_done(&w->reads);
    free(w->cursor);
    free(w->status_doc);
    free(w->market);
    free(w->currency);
    free(w);
}

/* ---- who asks ---- */

static void copy_text(char *out, size_t cap, const char *text)
{
    size_t len = text == NULL ? 0 : strnlen(text, cap - 1);
    if (len > 0)
        memcpy(out, text, len);
    out[len] = '\0';
}

static const char *member(const json_t *obj, const char *name)
{
    return json_string_value(json_object_get(obj, name));
}

int world_auth_lookup(void *env, const uint8_t key_hash[32], struct flow_principal *ret)
{
    const struct world *w = env;
    char hex[SHA256_HEX];
    digest_hex(key_hash, SHA256_LEN, hex);
    const json_t *key = json_object_get(w->keys, hex);
    if (key == NULL)
        return -1;
    const char *role = member(key, "role");
    *ret =
        (struct flow_principal){.role = strcmp(role, "tenant") == 0     ? ROLE_TENANT
                                        : strcmp(role, "provider") == 0 ? ROLE_PROVIDER
                                        : strcmp(role, "admin") == 0    ? ROLE_ADMIN
                                                                        : ROLE_WAITING};
    copy_text(ret->name, sizeof(ret->name), member(key, "name"));
    copy_text(ret->tenant_id, sizeof(ret->tenant_id), member(key, "tenant_id"));
    copy_text(ret->provider_id, sizeof(ret->provider_id), member(key, "provider_id"));
    copy_text(ret->key_id, sizeof(ret->key_id), member(key, "id"));
    return 0;
}

void world_add_key(struct world *w, const uint8_t hash[32], const char *role,
                   const char *id, const char *name)
{
    char hex[SHA256_HEX];
    digest_hex(hash, SHA256_LEN, hex);
    bool tenant = strcmp(role, "tenant") == 0;
    json_object_set_new(w->keys, hex,
                        json_pack("{s:s, s:s, s:s, s:s}", "role", role, "tenant_id",
                                  tenant ? id : "", "provider_id", tenant ? "" : id,
                                  "name", name));
    /* Its own id comes with the feed. */
}

int world_agent_lookup(void *env, const char *uri, const char *thumbprint,
                       struct flow_principal *ret)
{
    static const uint8_t none[SHA256_LEN]; /* stands for: no certificate */
    struct world *w = env;
    uint8_t hash[SHA256_LEN + 1];
    const json_t *index = json_object_get(w->agents, uri);
    if (index == NULL ||
        b64_decode(thumbprint, strlen(thumbprint), hash, sizeof(hash)) != SHA256_LEN)
        return -1;
    const struct world_node *n = &w->nodes[json_integer_value(index)];
    if (memcmp(hash, none, SHA256_LEN) == 0 ||
        (memcmp(hash, n->cert, SHA256_LEN) != 0 &&
         memcmp(hash, n->next_cert, SHA256_LEN) != 0))
        return -1;
    *ret = (struct flow_principal){.role = ROLE_AGENT};
    char *id = xasprintf("%d", n->id);
    copy_text(ret->node_id, sizeof(ret->node_id), id);
    free(id);
    copy_text(ret->name, sizeof(ret->name), n->name);
    copy_text(ret->provider_id, sizeof(ret->provider_id), n->provider_id);
    copy_text(ret->site, sizeof(ret->site), w->sites[n->site].name);
    copy_text(ret->uri, sizeof(ret->uri), uri);
    copy_text(ret->thumbprint, sizeof(ret->thumbprint), thumbprint);
    return 0;
}

/* ---- looking up ---- */

int world_site_find(const struct world *w, const char *name)
{
    for (size_t i = 0; i < w->site_count; i++)
        if (strcmp(w->sites[i].name, name) == 0)
            return (int)i;
    return -1;
}

int world_node_find(const struct world *w, int node_id)
{
    int i = world_ids_get(&w->ids->nodes, node_id);
    return i >= 0 && w->nodes[i].known ? i : -1;
}

struct world_node *world_node_of(struct world *w, const struct flow_principal *agent)
{
    const json_t *index = json_object_get(w->agents, agent->uri);
    return index == NULL ? NULL : &w->nodes[json_integer_value(index)];
}

int world_data_find(const struct world *w, const char *tenant_id, const char *name)
{
    char *key = xasprintf("%s/%s", tenant_id, name);
    const json_t *index = json_object_get(w->data_names, key);
    free(key);
    return index == NULL ? -1 : (int)json_integer_value(index);
}

/* ---- long polls ---- */

void world_wake_node(struct world *w, int node)
{
    w->nodes[node].wakes++;
    if (w->nodes[node].sync_flow != 0)
        flow_wake(w->runner, w->nodes[node].sync_flow);
}

void world_new_keys(struct world *w)
{
    free(w->status_doc);
    w->status_doc = NULL;
    for (size_t i = 0; i < w->node_count; i++)
        world_wake_node(w, (int)i);
}

/* ---- the status document ---- */

bool world_is_behind(const struct world *w)
{
    return w->polling || w->poll_due || w->revoked_due || w->revoked_asked;
}

/* Signing each poll's answer afresh would cost a core at 20,000 agents a second; a
 * document this old is as good. */
#define STATUS_SHARE_US INT64_C(20000)

const char *world_status_doc(struct world *w, int64_t now_us)
{
    if (w->revoked_at_us == 0 || now_us - w->revoked_at_us > WORLD_STATUS_STALE_US)
        return NULL;
    if (w->status_doc != NULL && now_us - w->status_doc_us < STATUS_SHARE_US &&
        now_us >= w->status_doc_us)
        return w->status_doc;
    size_t count = json_array_size(w->revoked);
    const char **ids = xcalloc(count + 1, sizeof(*ids));
    for (size_t i = 0; i < count; i++)
        ids[i] = json_string_value(json_array_get(w->revoked, i));
    struct issuer_status doc = {now_us, w->revoked_seq, ids, count, w->min_epochs};
    char *token = NULL;
    int rc = issuer_status(w->issuer, &doc, &token, NULL);
    free(ids);
    if (rc != 0)
        return NULL;
    free(w->status_doc);
    w->status_doc = token;
    w->status_doc_us = now_us;
    return token;
}
