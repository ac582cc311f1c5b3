/* plan_view: what a reservation, or the plan of one, consists of, as people read it:
 * nodes with their ranks, groups, paths, data sets, and a line on what is the matter
 * with it. Text into a buffer; no printing, no server. */
#include "client/cli/plan_view.h"

#include <inttypes.h>
#include <string.h>

static const struct render_col place_cols[] = {
    {"RANK", "rank", RENDER_INT, NULL},          {"SITE", "site", RENDER_TEXT, NULL},
    {"PROVIDER", "provider", RENDER_TEXT, NULL}, {"NODE", "node", RENDER_TEXT, NULL},
    {"GPUS", "gpus", RENDER_COUNT, NULL},        {"START", "start", RENDER_TIME, NULL},
    {"END", "end", RENDER_TIME, NULL},
};
static const struct render_col gpu_cols[] = {
    {"RANK", "rank", RENDER_INT, NULL},          {"SITE", "site", RENDER_TEXT, NULL},
    {"PROVIDER", "provider", RENDER_TEXT, NULL}, {"NODE", "node", RENDER_TEXT, NULL},
    {"GPU", "gpu", RENDER_TEXT, NULL},
};
static const struct render_col group_cols[] = {
    {"GROUP NEAR", "data", RENDER_TEXT, NULL},
    {"SITE", "site", RENDER_TEXT, NULL},
    {"NODES", "nodes", RENDER_INT, NULL},
    {"COORDINATOR", "coordinator", RENDER_YES, NULL},
};
static const struct render_col path_cols[] = {
    {"PATH", "name", RENDER_TEXT, NULL},
    {"FROM", "from", RENDER_TEXT, NULL},
    {"TO", "to", RENDER_TEXT, NULL},
    {"LANES", "lanes", RENDER_INT, NULL},
    {"RATE", "bandwidth_Bps", RENDER_RATE, NULL},
    {"START", "start", RENDER_TIME, NULL},
    {"END", "end", RENDER_TIME, NULL},
    {"STATE", "state", RENDER_TEXT, NULL},
};
static const struct render_col near_cols[] = {
    {"DATA", "name", RENDER_TEXT, NULL},
    {"AT", "site", RENDER_TEXT, NULL},
    {"RTT", "rtt_us", RENDER_RTT, NULL},
    {"SLOWDOWN", "slowdown", RENDER_SLOWDOWN, NULL},
};

/* A row for each GPU: they are read, and copied, one by one. */
static json_t *gpu_rows(const json_t *allocations)
{
    json_t *rows = json_array(), *a, *gpu;
    size_t i, k;
    json_array_foreach(allocations, i, a)
        json_array_foreach(json_object_get(a, "gpus"), k, gpu)
    {
        json_t *row = json_copy(a);
        json_object_set(row, "gpu", gpu);
        json_array_append_new(rows, row);
    }
    return rows;
}

/* Which site coordinates stands once in the reservation; the table says it in a row. */
static json_t *group_rows(const json_t *resv)
{
    const char *first = json_string_value(json_object_get(resv, "coordinator"));
    json_t *rows = json_array(), *group;
    bool told = false;
    size_t i;
    json_array_foreach(json_object_get(resv, "groups"), i, group)
    {
        const char *site = json_string_value(json_object_get(group, "site"));
        json_t *row = json_copy(group);
        bool is_it = !told && first != NULL && site != NULL && strcmp(first, site) == 0;
        told = told || is_it;
        json_object_set_new(row, "coordinator", json_boolean(is_it));
        json_array_append_new(rows, row);
    }
    return rows;
}

static void add_rows(const json_t *rows, const struct render_col *cols, size_t count,
                     const struct render_opts *o, struct strbuf *out)
{
    if (json_array_size(rows) == 0)
        return;
    render_rows(rows, cols, count, o, out);
    strbuf_addc(out, '\n');
}

void plan_view(const json_t *resv, bool each_gpu, const struct render_opts *opts,
               struct strbuf *out)
{
    const json_t *places = json_object_get(resv, "allocations");
    struct render_opts o = *opts;
    size_t from = json_array_size(places) > 1 ? 0 : 1; /* one node has no ranks */
    o.format = RENDER_TABLE;
    o.mark = -1;
    if (each_gpu) {
        json_t *rows = gpu_rows(places);
        add_rows(rows, gpu_cols + from, RENDER_COUNT_OF(gpu_cols) - from, &o, out);
        json_decref(rows);
    } else {
        add_rows(places, place_cols + from, RENDER_COUNT_OF(place_cols) - from, &o,
                 out);
    }
    json_t *groups = group_rows(resv);
    add_rows(groups, group_cols, RENDER_COUNT_OF(group_cols), &o, out);
    json_decref(groups);
    add_rows(json_object_get(resv, "paths"), path_cols, RENDER_COUNT_OF(path_cols), &o,
             out);
    add_rows(json_object_get(resv, "data"), near_cols, RENDER_COUNT_OF(near_cols), &o,
             out);
}

static void add_text(struct strbuf *out, const char *between, const json_t *text,
                     render_zone_fn *zone)
{
    const char *value = json_string_value(text);
    if (value == NULL || *value == '\0')
        return;
    if (out->len > 0)
        strbuf_adds(out, between);
    render_sentence(out, value, zone);
}

void plan_view_note(const json_t *resv, render_zone_fn *zone, struct strbuf *out)
{
    const json_t *waiting = json_object_get(resv, "waiting");
    const json_t *position = json_object_get(waiting, "position");
    const json_t *start = json_object_get(waiting, "predicted_start");
    struct strbuf line = STRBUF_INIT;
    if (json_is_object(waiting)) {
        strbuf_adds(&line, "waits");
        if (json_integer_value(position) > 0)
            strbuf_addf(&line, ", number %" JSON_INTEGER_FORMAT " in line",
                        json_integer_value(position));
        if (json_is_string(start))
            add_text(&line, ", start predicted for ", start, zone);
        else
            strbuf_adds(&line, ", no start can be predicted yet");
        add_text(&line, ", given up at ", json_object_get(waiting, "until"), zone);
        add_text(&line, ": ", json_object_get(waiting, "why"), zone);
    }
    add_text(&line, "; ", json_object_get(resv, "fault"), zone);
    if (json_is_string(json_object_get(resv, "preempted_by"))) {
        strbuf_adds(&line, line.len > 0 ? "; preempted by " : "preempted by ");
        render_clean(&line, json_string_value(json_object_get(resv, "preempted_by")));
    }
    const json_t *hold = json_object_get(resv, "hold");
    if (json_is_string(json_object_get(hold, "low_since"))) {
        strbuf_adds(&line,
                    line.len > 0 ? "; your money reaches" : "your money reaches");
        add_text(&line, " until ", json_object_get(hold, "paid_until"), zone);
        strbuf_adds(&line, ": it ends then unless more comes in time");
    }
    strbuf_adds(out, strbuf_str(&line));
    strbuf_done(&line);
}
