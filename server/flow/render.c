#include "server/flow/render.h"

#include <string.h>

#include "client/lib/jsonx.h"

/* Instants only: a duration in us (rtt_us, p50_us) keeps name and number. */
static const struct {
    const char *store, *wire;
} instants[] = {
    {"created_us", "created_at"},
    {"expires_us", "expires_at"},
    {"issued_us", "issued_at"},
    {"ended_us", "ended_at"},
    {"last_sync_us", "last_sync"},
    {"last_us", "last"},
    {"added_us", "added"},
    {"refused_us", "refused"},
    {"not_before_us", "not_before"},
    {"not_after_us", "not_after"},
    {"at_us", "at"},
    {"period_from_us", "period_from"},
    {"period_to_us", "period_to"},
    {"from_us", "from"},
    {"to_us", "to"},
    {"start_us", "start"},
    {"end_us", "end"},
    {"now_us", "now"},
    {"until_us", "until"},
    {"since_us", "since"},
    {"predicted_us", "predicted_start"},
    {"paid_until_us", "paid_until"},
};

static const char *instant_name(const char *name)
{
    for (size_t i = 0; i < sizeof(instants) / sizeof(instants[0]); i++)
        if (strcmp(instants[i].store, name) == 0)
            return instants[i].wire;
    return NULL;
}

static json_t *instant(const json_t *v)
{
    return json_is_integer(v) ? jsonx_time(json_integer_value(v)) : json_null();
}

static json_t *render_object(const json_t *store)
{
    json_t *out = json_object(), *v;
    const char *name;
    json_object_foreach((json_t *)(uintptr_t)store, name, v)
    {
        const char *wire = instant_name(name);
        if (wire != NULL)
            json_object_set_new(out, wire, instant(v));
        else
            json_object_set_new(out, name, render_times(v));
    }
    return out;
}

json_t *render_times(const json_t *store)
{
    if (json_is_object(store))
        return render_object(store);
    if (!json_is_array(store))
        return json_incref((json_t *)(uintptr_t)store);
    json_t *out = json_array(), *v;
    size_t i;
    json_array_foreach(store, i, v) json_array_append_new(out, render_times(v));
    return out;
}

json_t *render_ppm(int64_t ppm)
{
    return json_real((double)ppm / 1e6);
}

void render_money(json_t *obj, const char *micro_name, const char *name,
                  const char *currency)
{
    const json_t *micro = json_object_get(obj, micro_name);
    json_object_set_new(obj, name,
                        json_is_integer(micro)
                            ? jsonx_money(currency, json_integer_value(micro))
                            : json_null());
    json_object_del(obj, micro_name);
}

void render_taxes(json_t *obj, const char *currency)
{
    json_t *tax;
    size_t i;
    json_array_foreach(json_object_get(obj, "taxes"), i, tax)
    {
        render_money(tax, "base_micro", "base", currency);
        render_money(tax, "tax_micro", "tax", currency);
    }
}

json_t *render_issuer(const json_t *document)
{
    return json_pack("{s:O?, s:O?, s:O?}", "name", json_object_get(document, "issuer"),
                     "registration", json_object_get(document, "registration"),
                     "address", json_object_get(document, "address"));
}

void render_all_money(json_t *v, const char *currency)
{
    json_t *item;
    const char *name;
    void *next;
    size_t i;
    json_array_foreach(v, i, item) render_all_money(item, currency);
    if (!json_is_object(v))
        return;
    json_object_foreach_safe(v, next, name, item)
    {
        size_t len = strlen(name);
        if (len > 6 && strcmp(name + len - 6, "_micro") == 0) {
            char from[64], to[64];
            snprintf(from, sizeof(from), "%s", name);
            snprintf(to, sizeof(to), "%.*s", (int)(len - 6), name);
            render_money(v, from, to, currency);
        } else {
            render_all_money(item, currency);
        }
    }
}

static void copy(json_t *to, const json_t *from, const char *name)
{
    json_t *v = json_object_get(from, name);
    json_object_set_new(to, name, v != NULL ? json_incref(v) : json_null());
}

/* As copy, but what an older row or a plan lacks is `none`. */
static void copy_or(json_t *to, const json_t *from, const char *name, json_t *none_take)
{
    json_t *v = json_object_get(from, name);
    bool given = v != NULL && !json_is_null(v);
    json_object_set_new(to, name, given ? json_incref(v) : json_incref(none_take));
    json_decref(none_take);
}

static json_t *allocation(const json_t *store)
{
    json_t *out = json_object();
    copy(out, store, "site");
    copy(out, store, "provider");
    copy(out, store, "node");
    copy(out, store, "gpus");
    json_object_set_new(out, "start", instant(json_object_get(store, "start_us")));
    json_object_set_new(out, "end", instant(json_object_get(store, "end_us")));
    copy_or(out, store, "rank", json_integer(0));
    copy_or(out, store, "address", json_string(""));
    copy_or(out, store, "ssh", json_null());
    return out;
}

static json_t *path(const json_t *store)
{
    json_t *out = json_object();
    copy(out, store, "name");
    copy(out, store, "from");
    copy(out, store, "to");
    copy(out, store, "lanes");
    copy(out, store, "bandwidth_Bps");
    json_object_set_new(out, "start", instant(json_object_get(store, "start_us")));
    json_object_set_new(out, "end", instant(json_object_get(store, "end_us")));
    copy(out, store, "state");
    copy_or(out, store, "error", json_string(""));
    return out;
}

static json_t *waiting(const json_t *store)
{
    json_t *out = json_object();
    if (!json_is_object(store)) {
        json_decref(out);
        return json_null();
    }
    copy(out, store, "position");
    json_object_set_new(out, "predicted_start",
                        instant(json_object_get(store, "predicted_us")));
    json_object_set_new(out, "since", instant(json_object_get(store, "since_us")));
    json_object_set_new(out, "until", instant(json_object_get(store, "until_us")));
    copy_or(out, store, "why", json_string(""));
    return out;
}

static json_t *datum(const json_t *store)
{
    json_t *out = json_object();
    copy(out, store, "name");
    copy(out, store, "site");
    copy(out, store, "rtt_us");
    json_object_set_new(
        out, "slowdown",
        render_ppm(json_integer_value(json_object_get(store, "slowdown_ppm"))));
    return out;
}

static json_t *each(const json_t *list, json_t *(*fn)(const json_t *store))
{
    json_t *out = json_array();
    size_t i;
    const json_t *v;
    json_array_foreach(list, i, v) json_array_append_new(out, fn(v));
    return out;
}

/* What is held and not used up, and to where that pays. */
static json_t *hold(const json_t *r)
{
    json_t *out = json_object();
    int64_t micro = json_integer_value(json_object_get(r, "held_micro")) -
                    json_integer_value(json_object_get(r, "captured_micro")) -
                    json_integer_value(json_object_get(r, "released_micro"));
    const char *currency = json_string_value(json_object_get(r, "currency"));
    json_object_set_new(out, "held",
                        currency != NULL ? jsonx_money(currency, micro) : json_null());
    json_object_set_new(out, "paid_until",
                        instant(json_object_get(r, "paid_until_us")));
    json_object_set_new(out, "low_since", instant(json_object_get(r, "funds_low_us")));
    return out;
}

json_t *render_resv(const json_t *r)
{
    json_t *out = json_object(), *price = json_object();
    copy(out, r, "id");
    copy(out, r, "tenant");
    copy(out, r, "state");
    copy(out, r, "reason");
    json_object_set_new(out, "created_at", instant(json_object_get(r, "created_us")));
    json_object_set_new(out, "start", instant(json_object_get(r, "start_us")));
    json_object_set_new(out, "end", instant(json_object_get(r, "end_us")));
    json_object_set_new(out, "allocations",
                        each(json_object_get(r, "allocations"), allocation));
    json_object_set_new(out, "data", each(json_object_get(r, "data"), datum));
    copy(price, r, "currency");
    copy(price, r, "per_hour_micro");
    copy(price, r, "total_micro");
    copy(price, r, "effective_micro");
    json_object_set_new(out, "price", price);
    json_object_set_new(out, "hold", hold(r));
    copy(out, r, "spot");
    copy(out, r, "generation");
    copy_or(
        out, r, "nodes",
        json_integer((json_int_t)json_array_size(json_object_get(r, "allocations"))));
    copy_or(out, r, "groups", json_array());
    copy(out, r, "coordinator");
    json_object_set_new(out, "paths", each(json_object_get(r, "paths"), path));
    json_object_set_new(out, "waiting", waiting(json_object_get(r, "waiting")));
    copy(out, r, "fault");
    copy(out, r, "preempted_by");
    return out;
}

json_t *render_change(const json_t *r)
{
    const json_t *change = json_object_get(r, "change");
    const char *currency = json_string_value(json_object_get(r, "currency"));
    json_t *out = render_resv(r), *said = json_object();
    copy(said, change, "delta_micro");
    copy(said, change, "new_total_micro");
    render_money(said, "delta_micro", "delta", currency);
    render_money(said, "new_total_micro", "new_total", currency);
    json_object_set_new(said, "dry_run",
                        json_boolean(json_is_true(json_object_get(change, "dry_run"))));
    if (json_object_get(change, "moved") != NULL)
        copy(said, change, "moved");
    json_object_set_new(out, "change", said);
    return out;
}
