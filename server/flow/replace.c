#include "server/flow/replace.h"

#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"
#include "server/core/match.h"

static int64_t int_of(const json_t *obj, const char *name)
{
    return json_integer_value(json_object_get(obj, name));
}

/* The dearest of its GPU-hours as booked; 0: unknown. */
static int64_t booked_price(const json_t *resv)
{
    const json_t *a;
    size_t i;
    int64_t most = 0;
    json_array_foreach(json_object_get(resv, "allocations"), i, a)
    {
        int64_t price = int_of(a, "per_gpu_hour_micro");
        most = price > most ? price : most;
    }
    return most;
}

/* What it has been sold, which a change may have made differ from its request, and what
 * it was promised: a start that is not earlier, a price that is not higher. */
static int bound(struct request *rq, const json_t *resv, const char *without_site,
                 struct err *err)
{
    int64_t price = booked_price(resv), start_us = int_of(resv, "start_us");
    const json_t *first = json_array_get(json_object_get(resv, "allocations"), 0);
    if (price > 0 && (rq->max_gpu_hour_micro == 0 || price < rq->max_gpu_hour_micro))
        rq->max_gpu_hour_micro = price;
    rq->max_total_micro = 0; /* the whole price stays as it is */
    rq->len_us = int_of(resv, "end_us") - start_us;
    if (int_of(first, "count") > 0)
        rq->gpus = int_of(first, "count");
    if (rq->from_us < start_us)
        rq->from_us = start_us;
    if (rq->latest_us < rq->from_us)
        rq->latest_us = rq->from_us;
    if (without_site == NULL)
        return 0;
    if (rq->deny_site.count == REQUEST_NAMES_MAX)
        return err_set(err, ERR_NO_FIT,
                       "it excludes too many sites to leave out one more");
    rq->deny_site.name[rq->deny_site.count++] = without_site;
    return 0;
}

void replace_lift(struct world *w, const json_t *resv, struct world_lifted *l)
{
    const json_t *list = json_object_get(resv, "allocations"), *a;
    const json_t *paths = json_object_get(resv, "paths");
    const char *id = json_string_value(json_object_get(resv, "id"));
    size_t i;
    l->bookings = xcalloc(json_array_size(list) + 1, sizeof(*l->bookings));
    l->lanes = xcalloc(json_array_size(paths) + 1, sizeof(*l->lanes));
    l->booking_count = l->lanes_count = 0;
    json_array_foreach(list, i, a)
    {
        struct world_booking b = {
            .id = int_of(a, "booking"),
            .node = world_node_find(w, (int)int_of(a, "node_id")),
            .first = (int)int_of(a, "first"),
            .count = (int)int_of(a, "count"),
            .during = {int_of(a, "start_us"), int_of(a, "end_us")},
            .spot = json_is_true(json_object_get(resv, "spot")),
            .started_us = int_of(resv, "start_us"),
            .gpu_hour_micro = int_of(a, "per_gpu_hour_micro"),
            .notice_us = int_of(a, "notice_us")};
        memcpy(b.reservation, id, strnlen(id, UUID_TEXT - 1));
        if (b.node >= 0)
            l->bookings[l->booking_count++] = b;
    }
    json_array_foreach(paths, i, a)
    {
        const char *name = json_string_value(json_object_get(a, "name"));
        int path = name != NULL ? world_path_find(w, name) : -1;
        if (path >= 0)
            l->lanes[l->lanes_count++] =
                (struct world_lanes){int_of(a, "booking"),
                                     path,
                                     (int)int_of(a, "first"),
                                     (int)int_of(a, "lanes"),
                                     {int_of(a, "start_us"), int_of(a, "end_us")}};
    }
    world_lift(w, l);
}

void replace_put_back(struct world *w, struct world_lifted *l)
{
    world_put_back(w, l);
    free(l->bookings);
    free(l->lanes);
}

static int find(struct world *w, const struct request *rq, const json_t *resv,
                int64_t now_us, struct replace_plan *ret, struct err *err)
{
    struct match_market market = plan_market(w);
    struct match_query q;
    const char *tenant = json_string_value(json_object_get(resv, "tenant_id"));
    if (plan_query(w, rq, tenant, now_us, &ret->where, &q, err) != 0)
        return -1;
    struct match_plan *plan = xmalloc(sizeof(*plan));
    struct world_lifted own;
    replace_lift(w, resv, &own);
    enum match_why why = match_best(&market, &q, plan);
    replace_put_back(w, &own);
    if (why == MATCH_OK) {
        ret->plan = plan;
        return 0;
    }
    free(plan);
    return err_set(err, ERR_NO_FIT, "no other place fits: %s", match_why_name(why));
}

int replace_find(struct world *w, const json_t *resv, const char *without_site,
                 int64_t now_us, struct replace_plan *ret, struct err *err)
{
    struct request rq;
    if (request_from_stored(json_object_get(resv, "request"), w->currency,
                            int_of(resv, "created_us"), now_us, &rq, err) != 0)
        return -1;
    int rc = bound(&rq, resv, without_site, err);
    if (rc == 0)
        rc = find(w, &rq, resv, now_us, ret, err);
    request_done(&rq);
    return rc;
}

void replace_done(struct replace_plan *r)
{
    free(r->plan);
    r->plan = NULL;
}
