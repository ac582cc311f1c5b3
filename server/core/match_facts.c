/* match_facts: what an offer is to a request before any calendar is asked. */
#include <math.h>
#include <string.h>

#include "client/lib/money.h"
#include "client/lib/timefmt.h"
#include "server/core/match_int.h"

/* Slow-downs beyond this say "never" and keep products of prices inside 64 bits. */
#define SLOWDOWN_MAX 1e6

bool match_price(int64_t quantity, int64_t price_micro, int64_t len_us,
                 int64_t *ret_micro)
{
    int64_t used_us;
    return !__builtin_mul_overflow(len_us, quantity, &used_us) &&
           money_mul(used_us, price_micro, US_PER_HOUR, ret_micro, NULL) == 0;
}

bool match_named(const struct match_names *names, const char *name)
{
    for (size_t i = 0; i < names->count; i++) {
        if (strcmp(names->name[i], name) == 0) {
            return true;
        }
    }
    return false;
}

bool match_same_zone(const struct match_offer *a, const struct match_offer *b)
{
    const char *za = a->zone != NULL ? a->zone : "",
               *zb = b->zone != NULL ? b->zone : "";
    return *za == '\0' || *zb == '\0' ? a->site == b->site : strcmp(za, zb) == 0;
}

struct match_query match_group_query(const struct match_query *q, int group)
{
    struct match_query one = *q;
    one.federated = false;
    one.data = &q->data[group];
    one.data_count = 1;
    one.data_site = q->data_site != NULL ? &q->data_site[group] : NULL;
    if (q->group_residency != NULL)
        one.residency = q->group_residency[group];
    one.group_residency = NULL;
    /* Bounds on the whole price are the whole plan's. */
    one.max_total_micro = one.max_effective_micro = 0;
    return one;
}

/* ---- ways to the data ---- */

static void put_route(struct match_routes *r, struct match_route one)
{
    int at = r->count < MATCH_ROUTES_MAX ? r->count++ : MATCH_ROUTES_MAX - 1;
    for (; at > 0 && r->route[at - 1].price_micro > one.price_micro; at--) {
        r->route[at] = r->route[at - 1];
    }
    r->route[at] = one;
}

/* Data sets that stand at the site: they share a way, which is as wide as all need. */
static int here(const struct match_query *q, int site)
{
    int count = 0;
    for (size_t i = 0; i < q->data_count; i++) {
        count += q->data_site[i] == site;
    }
    return count;
}

/* The first data set that stands where this one does. */
static size_t first_there(const struct match_query *q, size_t data)
{
    size_t first = 0;
    while (q->data_site[first] != q->data_site[data]) {
        first++;
    }
    return first;
}

/* Paths between the two sites that are up, wide enough and, as declared, near enough.
 */
static void find_routes(const struct match_paths *paths, const struct match_query *q,
                        int from, int to, struct match_routes *ret)
{
    int64_t need_Bps = q->bandwidth_Bps * here(q, to);
    for (size_t i = 0; paths != NULL && i < paths->count; i++) {
        const struct match_path *p = &paths->paths[i];
        bool joins = (p->from_site == from && p->to_site == to) ||
                     (p->from_site == to && p->to_site == from);
        int64_t lanes = p->lane_Bps > 0 ? 1 + (need_Bps - 1) / p->lane_Bps : 0;
        struct match_route one = {(int)i, (int)lanes, 0};
        bool is_near = q->max_rtt_us == 0 || p->rtt_us <= q->max_rtt_us;
        if (joins && p->up && is_near && lanes > 0 && lanes <= p->lanes &&
            !__builtin_mul_overflow(lanes, p->price_micro, &one.price_micro)) {
            put_route(ret, one);
        }
    }
}

/* Each data set that stands elsewhere needs one; those at one site share it, and the
 * first of them is who books it. */
static bool set_routes(const struct match_market *m, const struct match_query *q,
                       const struct match_offer *o, struct match_facts *f)
{
    f->route_count = q->bandwidth_Bps > 0 ? q->data_count : 0;
    for (size_t i = 0; i < f->route_count; i++) {
        int site = q->data_site != NULL ? q->data_site[i] : -1;
        f->routes[i].count = 0;
        f->routes[i].data = (int)i;
        if (site < 0) {
            return false;
        }
        if (site == o->site || first_there(q, i) < i) {
            continue;
        }
        find_routes(m->paths, q, o->site, site, &f->routes[i]);
        if (f->routes[i].count == 0) {
            return false;
        }
    }
    return true;
}

static const struct match_route *route_to(const struct match_query *q,
                                          const struct match_facts *f, size_t data)
{
    const struct match_routes *r =
        data < f->route_count ? &f->routes[first_there(q, data)] : NULL;
    return r != NULL && r->count > 0 ? &r->route[0] : NULL;
}

/* ---- round trips and slow-down ---- */

static struct topo_rtt rtt_to(const struct match_market *m, const struct match_query *q,
                              const struct match_offer *o, const struct match_path *way,
                              size_t data)
{
    if (way != NULL && way->rtt_us > 0) {
        return (struct topo_rtt){.source = TOPO_DECLARED,
                                 .rtt_us = way->rtt_us,
                                 .confidence_ppm = TOPO_CONFIDENCE_DECLARED_PPM};
    }
    return topo_rtt(m->topo, o->site, q->data[data], q->now_us);
}

/* The farthest data set's; inputs for the model. Unknown as soon as one is. */
static void set_rtt(const struct match_market *m, const struct match_query *q,
                    const struct match_offer *o, struct match_facts *f,
                    struct slowdown_input *inputs)
{
    struct topo_rtt worst = {0};
    for (size_t i = 0; i < q->data_count; i++) {
        const struct match_route *route = route_to(q, f, i);
        const struct match_path *way =
            route != NULL ? &m->paths->paths[route->path] : NULL;
        struct topo_rtt rtt = rtt_to(m, q, o, way, i);
        if (rtt.source == TOPO_UNKNOWN) {
            worst = (struct topo_rtt){0};
            break;
        }
        if (worst.source == TOPO_UNKNOWN || rtt.rtt_us > worst.rtt_us) {
            worst = rtt;
        }
        double left = way != NULL ? (double)(route->lanes * way->lane_Bps)
                                  : (double)o->bandwidth_Bps;
        inputs[i] =
            (struct slowdown_input){.path = {.rtt_s = (double)rtt.rtt_us * 1e-6,
                                             .bandwidth_Bps = left,
                                             .service_s = SLOWDOWN_SERVICE_S,
                                             .lossless = way != NULL && way->lossless},
                                    .path_id = way != NULL ? 1 + route->path : 0};
    }
    f->rtt = worst;
}

static void set_slowdown(const struct match_query *q, struct match_facts *f,
                         const struct slowdown_input *inputs)
{
    f->slowdown_ppm = MATCH_PPM;
    if (q->profile == NULL || f->rtt.source == TOPO_UNKNOWN) {
        return;
    }
    struct slowdown_result r;
    slowdown_predict_inputs(q->profile, inputs, q->data_count,
                            (double)q->gpus * match_nodes(q), (double)q->len_us * 1e-6,
                            &r);
    if (f->advice != NULL) {
        slowdown_advice(q->profile, &r, f->advice, MATCH_ADVICE_MAX);
    }
    /* The one place where the model's doubles become an integer: half up to 1e-6. */
    f->slowdown_ppm =
        (int64_t)floor(fmin(r.job, SLOWDOWN_MAX) * (double)MATCH_PPM + 0.5);
}

static bool set_prices(const struct match_query *q, struct match_facts *f)
{
    bool fits = match_price(q->gpus, f->gpu_hour_micro, q->len_us, &f->price_micro) &&
                !__builtin_mul_overflow(f->price_micro, (int64_t)match_nodes(q),
                                        &f->total_micro);
    for (size_t i = 0; fits && i < f->route_count; i++) {
        int64_t lanes_micro = 0;
        fits = f->routes[i].count == 0 ||
               (match_price(1, f->routes[i].route[0].price_micro, q->len_us,
                            &lanes_micro) &&
                !__builtin_add_overflow(f->total_micro, lanes_micro, &f->total_micro));
    }
    return fits &&
           money_mul(f->slowdown_ppm, f->total_micro, MATCH_PPM, &f->effective_micro,
                     NULL) == 0 &&
           money_mul(f->slowdown_ppm, f->gpu_hour_micro, MATCH_PPM,
                     &f->gpu_effective_micro, NULL) == 0;
}

/* ---- bounds ---- */

static bool is_other(const char *asked, const char *have)
{
    return asked != NULL && strcmp(asked, have) != 0;
}

static bool is_excluded(const struct match_offer *o, const struct match_query *q)
{
    return is_other(q->only_site, o->site_name) ||
           is_other(q->only_provider, o->provider_name) ||
           (q->only_providers.count > 0 &&
            !match_named(&q->only_providers, o->provider_name)) ||
           match_named(&q->deny_providers, o->provider_name) ||
           match_named(&q->deny_sites, o->site_name);
}

/* Those that need nothing computed. */
static enum match_why judge_offer(const struct match_offer *o,
                                  const struct match_query *q)
{
    if (q->gpu_model != NULL && !match_model_fits(o->gpu_model, q->gpu_model)) {
        return MATCH_MODEL;
    }
    if (o->gpu_memory_mib < q->min_memory_mib) {
        return MATCH_MEMORY;
    }
    if (is_other(q->residency, o->residency)) {
        return MATCH_RESIDENCY;
    }
    if (is_excluded(o, q)) {
        return MATCH_EXCLUDED;
    }
    if (o->zone != NULL && *o->zone != '\0' && match_named(&q->avoid_zones, o->zone)) {
        return MATCH_ZONE;
    }
    if (!o->up) {
        return MATCH_DOWN;
    }
    return q->spot && o->notice_us <= 0 ? MATCH_NO_SPOT : MATCH_OK;
}

static enum match_why judge_facts(const struct match_query *q,
                                  const struct match_facts *f)
{
    bool needs_rtt = q->data_count > 0 && (q->max_rtt_us > 0 || q->profile != NULL);
    if (needs_rtt && f->rtt.source == TOPO_UNKNOWN) {
        return MATCH_NO_RTT;
    }
    if (q->max_rtt_us > 0 && f->rtt.rtt_us > q->max_rtt_us) {
        return MATCH_TOO_FAR;
    }
    if (q->max_price_micro > 0 && f->gpu_hour_micro > q->max_price_micro) {
        return MATCH_TOO_DEAR;
    }
    if (q->max_slowdown_ppm > 0 && f->slowdown_ppm > q->max_slowdown_ppm) {
        return MATCH_TOO_SLOW;
    }
    return f->overflow ? MATCH_TOO_DEAR : MATCH_OK;
}

static enum match_why set_facts(const struct match_market *m,
                                const struct match_query *q,
                                const struct match_offer *o, struct match_facts *f)
{
    struct slowdown_input inputs[DATASETS_PER_REQUEST_MAX];
    set_rtt(m, q, o, f, inputs);
    set_slowdown(q, f, inputs);
    f->overflow = !set_prices(q, f);
    return judge_facts(q, f);
}

enum match_why match_facts(const struct match_market *m, const struct match_query *q,
                           const struct match_offer *o, struct match_facts *f)
{
    enum match_why why = judge_offer(o, q);
    if (f->brief && why != MATCH_OK) {
        return why;
    }
    bool has_routes = set_routes(m, q, o, f);
    if (!has_routes) {
        f->route_count = 0;
    }
    f->gpu_hour_micro = q->spot ? o->spot_price_micro : o->price_micro;
    f->price_micro = f->total_micro = f->effective_micro = f->gpu_effective_micro = 0;
    enum match_why later = set_facts(m, q, o, f);
    return why != MATCH_OK ? why : has_routes ? later : MATCH_NO_PATH;
}

enum match_why match_facts_by(const struct match_market *m, const struct match_query *q,
                              const struct match_plan *plan, int offer,
                              struct match_facts *f)
{
    for (int i = 0; i < plan->lanes_count; i++) {
        const struct match_lanes *l = &plan->lanes[i];
        struct match_routes *ways = &f->routes[l->data];
        int k = 0;
        if (l->group != plan->group_count) {
            continue;
        }
        while (ways->route[k].path != l->path) {
            k++;
        }
        struct match_route chosen = ways->route[k];
        ways->route[k] = ways->route[0];
        ways->route[0] = chosen;
    }
    return set_facts(m, q, &m->offers[offer], f);
}
