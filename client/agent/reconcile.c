/* reconcile: see reconcile.h. */
#include "client/agent/reconcile.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

static int id_order(const void *key, const void *row)
{
    return strcmp(key, row);
}

bool reconcile_is_revoked(const struct token_status *status, const char *id)
{
    return status != NULL && status->revoked_count > 0 &&
           bsearch(id, status->revoked, status->revoked_count, sizeof(*status->revoked),
                   id_order) != NULL;
}

bool reconcile_may_start(const struct reconcile_in *in, char *why, size_t cap)
{
    if (!in->time_known || in->status == NULL) {
        snprintf(why, cap, "no signed time from the market since boot");
        return false;
    }
    int64_t age = in->now_us - in->status->iat_us;
    if (age > TOKEN_STATUS_STALE_US) {
        snprintf(why, cap, "the newest status is %lld s old",
                 (long long)(age / US_PER_S));
        return false;
    }
    return true;
}

static bool is_over(enum lease_state s)
{
    return s == LEASE_DONE;
}

static const struct reconcile_have *holder_of(const struct reconcile_in *in,
                                              const char *uuid)
{
    for (size_t i = 0; i < in->have_count; i++) {
        const struct reconcile_have *h = &in->have[i];
        for (size_t g = 0; !is_over(h->state) && g < h->gpu_count; g++)
            if (strcmp(h->gpus[g], uuid) == 0)
                return h;
    }
    return NULL;
}

static void gpu_obstacle(const struct reconcile_in *in, const char *uuid,
                         const char *id, char *why, size_t cap)
{
    const struct advert_gpu *g = advert_find(in->gpus, uuid);
    const struct reconcile_have *h = holder_of(in, uuid);
    why[0] = '\0';
    if (g == NULL)
        snprintf(why, cap, "GPU %s is not on this node", uuid);
    else if (h != NULL && h->state == LEASE_QUARANTINED)
        snprintf(why, cap, "GPU %s is quarantined", uuid);
    else if (h != NULL && strcmp(h->id, id) != 0)
        snprintf(why, cap, "GPU %s is still held by lease %.36s (%s)", uuid, h->id,
                 lease_state_name(h->state));
    else if (!advert_is_offerable(&g->info))
        snprintf(why, cap, "GPU %s: %s", uuid,
                 g->info.note[0] != '\0' ? g->info.note : "lost");
    else if (h == NULL && g->state == ADVERT_QUARANTINED)
        snprintf(why, cap, "GPU %s is quarantined", uuid);
    else if (h == NULL && g->state == ADVERT_BUSY)
        snprintf(why, cap, "GPU %s is busy with its owner's work", uuid);
}

void reconcile_obstacle(const struct reconcile_in *in, const struct order *o, char *why,
                        size_t cap)
{
    why[0] = '\0';
    if (!reconcile_may_start(in, why, cap))
        return;
    if (reconcile_is_revoked(in->status, o->id)) {
        snprintf(why, cap, "revoked");
        return;
    }
    for (size_t i = 0; i < o->gpu_count && why[0] == '\0'; i++)
        gpu_obstacle(in, o->gpus[i], o->id, why, cap);
}

/* The market never orders one GPU twice for one time; should it, the first holds. */
static void order_obstacle(const struct reconcile_out *out, const struct order *o,
                           char *why, size_t cap)
{
    for (size_t i = 0; i < out->count; i++) {
        const struct order *other = out->actions[i].order;
        if (out->actions[i].kind != RECONCILE_OPEN)
            continue;
        for (size_t g = 0; g < o->gpu_count * other->gpu_count; g++)
            if (strcmp(o->gpus[g % o->gpu_count], other->gpus[g / o->gpu_count]) == 0)
                snprintf(why, cap, "GPU %s is ordered for lease %.36s too",
                         o->gpus[g % o->gpu_count], other->id);
    }
}

static struct reconcile_action *add(struct reconcile_out *out, enum reconcile_kind kind,
                                    const char *id)
{
    struct reconcile_action *a = &out->actions[out->count++];
    memset(a, 0, sizeof(*a));
    a->kind = kind;
    snprintf(a->id, sizeof(a->id), "%s", id);
    return a;
}

/* Why a lease the node has must end now, NULL: it goes on. */
static const char *end_reason(const struct reconcile_in *in,
                              const struct reconcile_have *h)
{
    if (reconcile_is_revoked(in->status, h->id))
        return "revoked";
    for (size_t i = 0; in->want != NULL && i < in->want->end_count; i++)
        if (strcmp(in->want->end[i].id, h->id) == 0)
            return in->want->end[i].reason;
    if (h->on_lost_us >= 0 && in->time_known && in->status != NULL &&
        in->now_us - in->status->iat_us > TOKEN_STATUS_STALE_US + h->on_lost_us)
        return "market_lost";
    return NULL;
}

static bool is_ending(enum lease_state s)
{
    return s == LEASE_DENIED || s == LEASE_CLEANING || s == LEASE_DONE ||
           s == LEASE_QUARANTINED;
}

static const struct reconcile_have *have_find(const struct reconcile_in *in,
                                              const char *id)
{
    for (size_t i = 0; i < in->have_count; i++)
        if (strcmp(in->have[i].id, id) == 0)
            return &in->have[i];
    return NULL;
}

static void consider(const struct reconcile_in *in, const struct order *o,
                     struct reconcile_out *out)
{
    const struct reconcile_have *h = have_find(in, o->id);
    if (h != NULL) {
        if (!is_ending(h->state) && o->generation > h->generation &&
            o->not_after_us != h->not_after_us && end_reason(in, h) == NULL)
            add(out,
                o->not_after_us > h->not_after_us ? RECONCILE_EXTEND
                                                  : RECONCILE_SHORTEN,
                o->id)
                ->order = o;
        return;
    }
    if (!in->time_known) {
        struct reconcile_action *w = add(out, RECONCILE_WAIT, o->id);
        w->order = o;
        (void)reconcile_may_start(in, w->why, sizeof(w->why));
        return;
    }
    if (in->now_us >= o->not_after_us)
        return;
    if (in->now_us < o->not_before_us) {
        if (o->not_before_us < out->next_us)
            out->next_us = o->not_before_us;
        return;
    }
    char why[sizeof(out->actions->why)];
    reconcile_obstacle(in, o, why, sizeof(why));
    if (why[0] == '\0')
        order_obstacle(out, o, why, sizeof(why));
    struct reconcile_action *a =
        add(out, why[0] == '\0' ? RECONCILE_OPEN : RECONCILE_WAIT, o->id);
    a->order = o;
    snprintf(a->why, sizeof(a->why), "%s", why);
}

void reconcile(const struct reconcile_in *in, struct reconcile_out *ret)
{
    size_t orders = in->want != NULL ? in->want->lease_count : 0;
    memset(ret, 0, sizeof(*ret));
    ret->next_us = INT64_MAX;
    ret->actions = xcalloc(in->have_count + orders + 1, sizeof(*ret->actions));
    for (size_t i = 0; i < in->have_count; i++) {
        const char *why = end_reason(in, &in->have[i]);
        if (why != NULL && !is_ending(in->have[i].state)) {
            struct reconcile_action *a = add(ret, RECONCILE_END, in->have[i].id);
            snprintf(a->why, sizeof(a->why), "%s", why);
        }
    }
    for (size_t i = 0; i < orders; i++)
        consider(in, &in->want->leases[i], ret);
}

void reconcile_out_done(struct reconcile_out *out)
{
    free(out->actions);
    memset(out, 0, sizeof(*out));
}
