/* GET /v1/admin/drill?lose=SITE: what the loss of a site would mean, tenant by tenant.
 * Each firm reservation there that has not started is planned anew on the live
 * calendars as flow_outage would; its new place stays blocked until all are planned, so
 * that they compete as they would. All in one turn: nobody sees those blocks, and
 * nothing stays. What runs there is lost with the site.
 *
 *   read    the reservations with a booking there
 *   others  page by page the firm ones that are not touched: they are only counted
 *   plan    one by one, by start; reply */
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/xalloc.h"
#include "server/flow/call.h"
#include "server/flow/flows.h"
#include "server/flow/render.h"
#include "server/flow/replace.h"

/* Each takes some 50 us of a turn in which nobody else is served. */
#define DRILL_MAX 20000

/* So many pages of those that are not touched, of each state; then the count is short.
 */
#define PAGES_MAX 100

struct tally {
    int64_t reservations, survive, moved, lost;
    json_t *detail;
};
struct drill {
    struct db_slot db;
    json_t *list;      /* owned: the reservations there */
    json_t *untouched; /* owned: tenant -> how many */
    const char *state; /* of which the others are being read */
    int pages;
};

static enum flow_turn drill_others(struct flow *f);
static enum flow_turn drill_count(struct flow *f);
static enum flow_turn drill_plan(struct flow *f);

static const char *text_of(const json_t *obj, const char *name)
{
    const char *text = json_string_value(json_object_get(obj, name));
    return text != NULL ? text : "";
}

static int64_t int_of(const json_t *obj, const char *name)
{
    return json_integer_value(json_object_get(obj, name));
}

static enum flow_turn drill_read(struct flow *f)
{
    static const char *const names[] = {"lose", NULL};
    const char *site = flow_query(f, "lose");
    struct err err;
    if (flow_query_check(f, names, &err) != 0)
        return flow_fail(f, &err);
    if (site == NULL) {
        err_set(&err, ERR_BAD_REQUEST, "lose: the name of a site is needed");
        return flow_fail(f, &err);
    }
    return db_call(f, STORE_SITE_RESV, STORE_ARGS(S_TEXT(site), S_INT(f->now_us)));
}

/* ---- those that are not touched ---- */

static enum flow_turn ask_others(struct flow *f, const char *cursor)
{
    struct drill *s = f->state;
    char *at = cursor != NULL ? xstrdup(cursor) : NULL; /* of the answer that goes */
    flow_goto(f, drill_count);
    enum flow_turn turn =
        db_call(f, STORE_RESV_LIST,
                STORE_ARGS(S_NULL, S_TEXT(s->state), S_TEXT(at), S_INT(LIST_PAGE_MAX)));
    free(at);
    return turn;
}

static enum flow_turn drill_others(struct flow *f)
{
    struct drill *s = f->state;
    if (db_failed(f))
        return db_fail(f);
    s->list = json_incref(json_object_get(s->db.json, "reservations"));
    s->untouched = json_object();
    s->state = "confirmed";
    return ask_others(f, NULL);
}

static bool is_there(const json_t *resv, const char *site)
{
    const json_t *a;
    size_t i;
    json_array_foreach(json_object_get(resv, "allocations"), i, a)
    {
        if (strcmp(text_of(a, "site"), site) == 0)
            return true;
    }
    return false;
}

static enum flow_turn drill_count(struct flow *f)
{
    struct drill *s = f->state;
    const json_t *r;
    size_t i;
    if (db_failed(f))
        return db_fail(f);
    json_array_foreach(json_object_get(s->db.json, "reservations"), i, r)
    {
        const char *tenant = text_of(r, "tenant");
        if (!json_is_true(json_object_get(r, "spot")) &&
            !is_there(r, flow_query(f, "lose")))
            json_object_set_new(s->untouched, tenant,
                                json_integer(int_of(s->untouched, tenant) + 1));
    }
    const char *next = json_string_value(json_object_get(s->db.json, "next"));
    if (next != NULL && ++s->pages < PAGES_MAX)
        return ask_others(f, next);
    if (strcmp(s->state, "active") == 0)
        return flow_goto(f, drill_plan);
    s->state = "active";
    s->pages = 0;
    return ask_others(f, NULL);
}

/* ---- those that are ---- */

/* Where its first rank would be. */
static const char *site_of(const struct world *w, const struct match_plan *p)
{
    return w->sites[w->nodes[p->slots[0].node].site].name;
}

static json_t *lost_entry(const json_t *resv, const char *why, struct tally *t)
{
    t->lost++;
    return json_pack("{s:s, s:s, s:n, s:n, s:n, s:s}", "reservation",
                     text_of(resv, "id"), "outcome", "lost", "to_site", "start",
                     "slowdown", "why", why);
}

/* Plans one; its shadow goes to *ret. */
static json_t *plan_one(struct flow *f, const json_t *resv, const char *site,
                        struct tally *t, struct world_try *ret)
{
    struct world *w = world_of(f);
    struct replace_plan r;
    struct err err;
    t->reservations++;
    if (strcmp(text_of(resv, "state"), "active") == 0)
        return lost_entry(resv, "it runs there", t);
    if (replace_find(w, resv, site, f->now_us, &r, &err) != 0)
        return lost_entry(resv, err.text, t);
    *ret = world_shadow_plan(w, r.plan);
    t->moved++;
    json_t *entry = json_pack("{s:s, s:s, s:s, s:o, s:o, s:s}", "reservation",
                              text_of(resv, "id"), "outcome", "moved", "to_site",
                              site_of(w, r.plan), "start", jsonx_time(r.plan->start_us),
                              "slowdown", render_ppm(r.plan->slowdown_ppm), "why", "");
    replace_done(&r);
    return entry;
}

static int by_start(const void *a, const void *b)
{
    const json_t *x = *(const json_t *const *)a, *y = *(const json_t *const *)b;
    int64_t sx = int_of(x, "start_us"), sy = int_of(y, "start_us");
    return sx != sy ? (sx < sy ? -1 : 1) : strcmp(text_of(x, "id"), text_of(y, "id"));
}

/* Of each tenant: its tally, in the order of names. */
static struct tally *tally_of(json_t *names, struct tally *all, const char *tenant)
{
    const json_t *at = json_object_get(names, tenant);
    size_t i = at != NULL ? (size_t)json_integer_value(at) : json_object_size(names);
    if (at == NULL) {
        json_object_set_new(names, tenant, json_integer((json_int_t)i));
        all[i] = (struct tally){.detail = json_array()};
    }
    return &all[i];
}

static json_t *tenants_json(const json_t *names, const struct tally *all,
                            struct tally *sum)
{
    json_t *out = json_array(), *at;
    const char *name;
    json_object_foreach((json_t *)(uintptr_t)names, name, at)
    {
        const struct tally *t = &all[json_integer_value(at)];
        sum->survive += t->survive;
        sum->moved += t->moved;
        sum->lost += t->lost;
        json_array_append_new(
            out, json_pack("{s:s, s:I, s:I, s:I, s:I, s:o}", "tenant", name,
                           "reservations", (json_int_t)t->reservations, "survive",
                           (json_int_t)t->survive, "moved", (json_int_t)t->moved,
                           "lost", (json_int_t)t->lost, "detail", t->detail));
    }
    return out;
}

static json_t *drill(struct flow *f, const char *site)
{
    const struct drill *s = f->state;
    const json_t *list = s->list, *n;
    json_t *untouched = s->untouched;
    const char *tenant;
    struct world *w = world_of(f);
    size_t count = json_array_size(list);
    const json_t **sorted = xcalloc(count + 1, sizeof(*sorted));
    size_t tenants_max = count + json_object_size(untouched);
    struct tally *all = xcalloc(tenants_max + 1, sizeof(*all)), sum = {0};
    struct world_try *shadows = xcalloc(count + 1, sizeof(*shadows));
    json_t *names = json_object();
    for (size_t i = 0; i < count; i++)
        sorted[i] = json_array_get(list, i);
    qsort(sorted, count, sizeof(*sorted), by_start);
    for (size_t i = 0; i < count; i++) {
        struct tally *t = tally_of(names, all, text_of(sorted[i], "tenant"));
        json_array_append_new(t->detail, plan_one(f, sorted[i], site, t, &shadows[i]));
    }
    for (size_t i = 0; i < count; i++)
        world_try_end(w, &shadows[i]);
    json_object_foreach(untouched, tenant, n)
    {
        struct tally *t = tally_of(names, all, tenant);
        t->survive = json_integer_value(n);
        t->reservations += t->survive;
    }
    json_t *tenants = tenants_json(names, all, &sum);
    json_decref(names);
    free(sorted);
    free(all);
    free(shadows);
    return json_pack("{s:s, s:{s:I, s:I, s:I}, s:o}", "site", site, "reservations",
                     "survive", (json_int_t)sum.survive, "moved", (json_int_t)sum.moved,
                     "lost", (json_int_t)sum.lost, "tenants", tenants);
}

static enum flow_turn drill_plan(struct flow *f)
{
    const struct drill *s = f->state;
    struct err err;
    if (json_array_size(s->list) > DRILL_MAX) {
        err_set(&err, ERR_TOO_LARGE,
                "%zu reservations are booked there; %d are planned",
                json_array_size(s->list), DRILL_MAX);
        return flow_fail(f, &err);
    }
    return flow_reply_json(f, 200, drill(f, flow_query(f, "lose")));
}

static void drill_done(struct flow *f)
{
    struct drill *s = f->state;
    json_decref(s->list);
    json_decref(s->untouched);
    db_done(f);
}

static const struct flow_step drill_steps[] = {{"read", drill_read},
                                               {"others", drill_others},
                                               {"count", drill_count},
                                               {"plan", drill_plan}};
const struct flow_kind flow_drill =
    FLOW_KIND_DONE("flow_drill", struct drill, drill_steps, drill_done);
