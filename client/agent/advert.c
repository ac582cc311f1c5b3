/* advert: see advert.h. */
#include "client/agent/advert.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"

#define MIN_PER_DAY 1440
#define US_PER_MIN  (INT64_C(60) * US_PER_S)
#define US_PER_DAY  (INT64_C(24) * US_PER_HOUR)

const char *advert_state_name(enum advert_state s)
{
    static const char *const names[] = {"idle", "leased", "busy", "lost",
                                        "quarantined"};
    return names[s];
}

bool advert_is_offerable(const struct gpu_info *g)
{
    return !g->lost && !g->mig && g->minor >= 0 && g->device[0] != '\0';
}

static bool in_use(const struct gpu_info *g, const struct advert_limits *l)
{
    return g->process_count > 0 || g->mem_used_mib > l->memory_mib ||
           g->utilisation_ppm > l->utilisation_ppm;
}

static void take_sample(struct advert_gpu *g, const struct advert_limits *l)
{
    if (in_use(&g->info, l) || !advert_is_offerable(&g->info)) {
        g->idle_samples = 0;
    } else if (!g->seen) {
        g->idle_samples = ADVERT_IDLE_SAMPLES; /* nothing was ever seen on it */
    } else if (g->idle_samples < ADVERT_IDLE_SAMPLES) {
        g->idle_samples++;
    }
    g->seen = true;
}

static enum advert_state state_of(const struct advert_gpu *g, enum advert_hold hold)
{
    if (hold == ADVERT_HELD_QUARANTINED)
        return ADVERT_QUARANTINED;
    if (g->info.lost)
        return ADVERT_LOST;
    if (hold == ADVERT_HELD)
        return ADVERT_LEASED;
    return g->idle_samples >= ADVERT_IDLE_SAMPLES ? ADVERT_IDLE : ADVERT_BUSY;
}

bool advert_hold(struct advert *a, advert_hold_fn *hold, void *arg)
{
    bool changed = false;
    for (size_t i = 0; i < a->count; i++) {
        enum advert_state s = state_of(&a->gpus[i], hold(arg, a->gpus[i].info.uuid));
        changed = changed || s != a->gpus[i].state;
        a->gpus[i].state = s;
    }
    return changed;
}

static struct advert_gpu *slot_of(struct advert *a, const char *uuid)
{
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->gpus[i].info.uuid, uuid) == 0)
            return &a->gpus[i];
    struct advert_gpu *g = NULL;
    if (a->count < GPUS_PER_NODE_MAX)
        g = &a->gpus[a->count++];
    /* MIG instances come and go under new names: one that is gone makes room. */
    for (size_t i = 0; g == NULL && i < GPUS_PER_NODE_MAX; i++)
        if (a->gpus[i].state == ADVERT_LOST && gpu_is_instance(&a->gpus[i].info))
            g = &a->gpus[i];
    if (g == NULL)
        return NULL;
    memset(g, 0, sizeof(*g));
    g->state = ADVERT_BUSY;
    return g;
}

bool advert_observe(struct advert *a, const struct gpu_info *sample, size_t count,
                    const struct advert_limits *limits, advert_hold_fn *hold, void *arg)
{
    bool here[GPUS_PER_NODE_MAX] = {false};
    size_t before = a->count;
    for (size_t i = 0; i < count; i++) {
        struct advert_gpu *g = slot_of(a, sample[i].uuid);
        if (g == NULL)
            continue;
        g->info = sample[i];
        here[g - a->gpus] = true;
        take_sample(g, limits);
    }
    for (size_t i = 0; i < a->count; i++) {
        if (!here[i]) {
            a->gpus[i].info.lost = true;
            a->gpus[i].idle_samples = 0;
        }
    }
    return advert_hold(a, hold, arg) || a->count != before;
}

void advert_clean(struct advert *a, const char *uuid)
{
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->gpus[i].info.uuid, uuid) == 0)
            a->gpus[i].idle_samples = ADVERT_IDLE_SAMPLES;
}

const struct advert_gpu *advert_find(const struct advert *a, const char *uuid)
{
    for (size_t i = 0; i < a->count; i++)
        if (strcmp(a->gpus[i].info.uuid, uuid) == 0)
            return &a->gpus[i];
    return NULL;
}

static const char *const day_names[] = {"mon", "tue", "wed", "thu",
                                        "fri", "sat", "sun"};

static int day_number(const char *text, size_t len)
{
    for (int i = 0; i < 7; i++)
        if (len == 3 && strncmp(text, day_names[i], 3) == 0)
            return i;
    return -1;
}

/* "mon-fri,sun" or "daily"; 0 when it is neither. */
static unsigned days_parse(const char *text, size_t len)
{
    unsigned days = 0;
    if (len == 5 && strncmp(text, "daily", 5) == 0)
        return 0x7f;
    while (len > 0) {
        size_t part = 0;
        while (part < len && text[part] != ',')
            part++;
        int first = day_number(text, part < 3 ? part : 3), last = first;
        if (part == 7 && text[3] == '-')
            last = day_number(text + 4, 3);
        else if (part != 3)
            return 0;
        if (first < 0 || last < 0)
            return 0;
        for (int d = first;; d = (d + 1) % 7) {
            days |= 1u << d;
            if (d == last)
                break;
        }
        if (part == len)
            return days;
        text += part + 1;
        len -= part + 1;
    }
    return 0;
}

static int clock_parse(const char *text, const char **end)
{
    int v[2];
    for (int i = 0; i < 2; i++) {
        if (i == 1 && *text++ != ':')
            return -1;
        if (text[0] < '0' || text[0] > '9' || text[1] < '0' || text[1] > '9')
            return -1;
        v[i] = (text[0] - '0') * 10 + text[1] - '0';
        text += 2;
    }
    *end = text;
    int min = v[0] * 60 + v[1];
    return v[1] > 59 || min > MIN_PER_DAY ? -1 : min;
}

int advert_rule_parse(const char *text, struct advert_rule *ret, struct err *err)
{
    const char *p = text + strcspn(text, " \t"), *end = p;
    struct advert_rule r = {.days = days_parse(text, (size_t)(p - text))};
    p += strspn(p, " \t");
    r.from_min = clock_parse(p, &end);
    r.to_min = -1;
    if (r.from_min >= 0 && *end == '-')
        r.to_min = clock_parse(end + 1, &end);
    if (r.days == 0 || r.from_min < 0 || r.from_min == MIN_PER_DAY || r.to_min < 0 ||
        *end != '\0')
        return err_set(err, ERR_BAD_REQUEST,
                       "\"%s\" is no window: write days and times, as in "
                       "\"mon-fri 18:00-08:00\" or \"daily 00:00-24:00\"",
                       text);
    *ret = r;
    return 0;
}

int advert_offset_parse(const char *text, int *ret_s, struct err *err)
{
    const char *end = text;
    if (strcmp(text, "Z") == 0 || strcmp(text, "UTC") == 0) {
        *ret_s = 0;
        return 0;
    }
    int min = text[0] == '+' || text[0] == '-' ? clock_parse(text + 1, &end) : -1;
    if (min < 0 || min > 14 * 60 || *end != '\0')
        return err_set(err, ERR_BAD_REQUEST,
                       "\"%s\" is no UTC offset: write +09:00, -05:00 or Z", text);
    *ret_s = (text[0] == '-' ? -60 : 60) * min;
    return 0;
}

static int window_order(const void *a, const void *b)
{
    const struct advert_window *x = a, *y = b;
    return x->from_us < y->from_us ? -1 : x->from_us > y->from_us;
}

size_t advert_windows(const struct advert_rule *rules, size_t count, int offset_s,
                      int64_t now_us, struct advert_window *out, size_t cap)
{
    int64_t local = now_us + offset_s * US_PER_S;
    int64_t today = local / US_PER_DAY - (local % US_PER_DAY < 0);
    size_t n = 0;
    /* From yesterday: its window may reach over midnight into now. */
    for (int64_t day = today - 1; day <= today + ADVERT_DAYS; day++) {
        unsigned weekday =
            (unsigned)(((day + 3) % 7 + 7) % 7); /* 1970-01-01: Thursday */
        for (size_t i = 0; i < count && n < cap; i++) {
            const struct advert_rule *r = &rules[i];
            if (!(r->days >> weekday & 1))
                continue;
            int to = r->to_min > r->from_min ? r->to_min : r->to_min + MIN_PER_DAY;
            int64_t base = day * US_PER_DAY - offset_s * US_PER_S;
            struct advert_window w = {base + r->from_min * US_PER_MIN,
                                      base + to * US_PER_MIN};
            if (w.to_us > now_us && w.from_us < now_us + ADVERT_DAYS * US_PER_DAY)
                out[n++] = w;
        }
    }
    qsort(out, n, sizeof(*out), window_order);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (kept > 0 && out[i].from_us <= out[kept - 1].to_us) {
            if (out[i].to_us > out[kept - 1].to_us)
                out[kept - 1].to_us = out[i].to_us;
        } else {
            out[kept++] = out[i];
        }
    }
    return kept;
}

static json_t *gpus_json(const struct advert *a)
{
    json_t *list = json_array();
    for (size_t i = 0; i < a->count; i++) {
        const struct gpu_info *g = &a->gpus[i].info;
        if (g->mig || g->minor < 0)
            continue; /* not on offer at all */
        json_t *o = json_object();
        json_object_set_new(o, "index", json_integer(g->index));
        json_object_set_new(o, "uuid", json_string(g->uuid));
        json_object_set_new(o, "model", json_string(g->model));
        json_object_set_new(o, "memory_mib", json_integer(g->memory_mib));
        json_object_set_new(o, "pci", json_string(g->pci));
        json_object_set_new(o, "minor", json_integer(g->minor));
        json_object_set_new(o, "state",
                            json_string(advert_state_name(a->gpus[i].state)));
        json_array_append_new(list, o);
    }
    return list;
}

json_t *advert_sync_body(const struct advert_body *b)
{
    json_t *body = json_object(), *agent = json_object(), *windows = json_array();
    json_object_set_new(agent, "version", json_string(b->version));
    json_object_set_new(agent, "boot_id", json_string(b->boot_id));
    json_object_set_new(agent, "seq", json_integer(b->seq));
    json_object_set_new(agent, "address", json_string(b->address));
    if (b->instance != NULL && b->instance[0] != '\0')
        json_object_set_new(agent, "instance", json_string(b->instance));
    if (b->fabric != NULL)
        json_object_set_new(agent, "fabric", json_string(b->fabric));
    if (b->ssh != NULL)
        json_object_set_new(agent, "ssh", b->ssh);
    for (size_t i = 0; i < b->window_count; i++) {
        json_t *w = json_object();
        json_object_set_new(w, "from", jsonx_time(b->windows[i].from_us));
        json_object_set_new(w, "to", jsonx_time(b->windows[i].to_us));
        json_array_append_new(windows, w);
    }
    json_object_set_new(body, "agent", agent);
    json_object_set_new(body, "gpus", gpus_json(b->gpus));
    json_object_set_new(body, "price",
                        b->currency != NULL ? jsonx_money(b->currency, b->price_micro)
                                            : json_null());
    json_object_set_new(body, "windows", windows);
    json_object_set_new(body, "leases", b->leases != NULL ? b->leases : json_array());
    json_object_set_new(body, "probes", b->probes != NULL ? b->probes : json_array());
    json_object_set_new(body, "desired_version", json_string(b->desired_version));
    json_object_set_new(body, "wait", json_string(b->wait));
    return body;
}
