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
    {"not_before_us", "not_before"},
    {"not_after_us", "not_after"},
    {"at_us", "at"},
    {"from_us", "from"},
    {"to_us", "to"},
    {"start_us", "start"},
    {"end_us", "end"},
    {"now_us", "now"},
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

static void copy(json_t *to, const json_t *from, const char *name)
{
    json_t *v = json_object_get(from, name);
    json_object_set_new(to, name, v != NULL ? json_incref(v) : json_null());
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
    copy(out, r, "spot");
    copy(out, r, "generation");
    return out;
}
