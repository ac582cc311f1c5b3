/* chart: see chart.h. */
#include "client/cli/chart.h"

#include <string.h>

#include "client/cli/grid.h"
#include "client/lib/timefmt.h"

#define DAY_US   (24 * US_PER_HOUR)
#define TICK     6 /* columns from one label of the axis to the next; it has five */
#define NODE_MAX 35

static void add_level(struct strbuf *out, json_int_t free, json_int_t total,
                      bool blocks)
{
    static const char *const block[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
    if (free <= 0 || total <= 0)
        strbuf_adds(out, blocks ? "·" : ".");
    else if (free >= total)
        strbuf_adds(out, blocks ? block[7] : "9");
    else if (blocks)
        strbuf_adds(out, block[(free * 8 - 1) / total]);
    else
        strbuf_addc(out, (char)('1' + (free * 9 - 1) / total));
}

static void add_count(struct strbuf *out, json_int_t n)
{
    if (n <= 0)
        strbuf_addc(out, '.');
    else if (n > NODE_MAX)
        strbuf_addc(out, '+');
    else
        strbuf_addc(out, "0123456789abcdefghijklmnopqrstuvwxyz"[n]);
}

/* "11:00 17:00 …": the time at which the column below a label's first character
 * begins; dates once a label is a day or more after the one before. */
static void axis(int64_t from_us, int64_t step_us, size_t first, size_t columns,
                 const struct render_opts *o, struct strbuf *out)
{
    for (size_t i = 0; i < columns; i += TICK) {
        char text[TIMEFMT_MAX];
        int64_t at = from_us + (int64_t)(first + i) * step_us;
        timefmt_offset(at, o->zone(at), text);
        const char *part = step_us * TICK >= DAY_US ? text + 5 : text + 11;
        strbuf_addf(out, "%.5s%s", part, i + TICK < columns ? " " : "");
    }
}

static void text_cell(struct grid *g, const json_t *row, const char *member)
{
    struct strbuf text = STRBUF_INIT;
    const struct render_col col = {"", member, RENDER_TEXT, NULL};
    render_cell(row, &col, NULL, &text);
    grid_cell(g, strbuf_str(&text));
    strbuf_done(&text);
}

static void add_row(struct grid *g, const json_t *offer, bool free, size_t first,
                    bool blocks)
{
    static const char *const names[] = {"site", "provider", "gpu_model", "total"};
    const json_t *steps = json_object_get(offer, "steps");
    json_int_t total = json_integer_value(json_object_get(offer, "total"));
    struct strbuf text = STRBUF_INIT;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (free)
            text_cell(g, offer, names[i]);
        else
            grid_cell(g, "");
    grid_cell(g, free ? "free" : "node");
    for (size_t i = first; i < json_array_size(steps) && i < first + CHART_COLUMNS;
         i++) {
        const json_t *step = json_array_get(steps, i);
        if (free)
            add_level(&text, json_integer_value(json_object_get(step, "free")), total,
                      blocks);
        else
            add_count(&text, json_integer_value(json_object_get(step, "best_node")));
    }
    grid_cell(g, strbuf_str(&text));
    grid_end_row(g);
    strbuf_done(&text);
}

static void one_table(const json_t *reply, size_t first, size_t columns, bool blocks,
                      const struct render_opts *o, struct strbuf *out)
{
    int64_t from_us = 0, step_us = US_PER_HOUR;
    const char *from = json_string_value(json_object_get(reply, "from"));
    const char *step = json_string_value(json_object_get(reply, "step"));
    struct strbuf title = STRBUF_INIT;
    struct grid g;
    size_t i;
    json_t *offer;
    if (from == NULL || timefmt_parse(from, &from_us, NULL) < 0 || step == NULL ||
        timefmt_parse_duration(step, &step_us, NULL) < 0)
        return;
    strbuf_adds(out, "From ");
    render_time(out, from_us + (int64_t)first * step_us, o->zone);
    strbuf_addf(out, ", each column %s\n", step);
    axis(from_us, step_us, first, columns, o, &title);
    grid_init(&g);
    grid_column(&g, "SITE", false);
    grid_column(&g, "PROVIDER", false);
    grid_column(&g, "GPU", false);
    grid_column(&g, "TOTAL", true);
    grid_column(&g, "", false);
    grid_column(&g, strbuf_str(&title), false);
    json_array_foreach(json_object_get(reply, "offers"), i, offer)
    {
        add_row(&g, offer, true, first, blocks);
        add_row(&g, offer, false, first, blocks);
    }
    grid_table(&g, o->colour, -1, out);
    grid_done(&g);
    strbuf_done(&title);
}

void chart_calendar(const json_t *reply, bool blocks, const struct render_opts *o,
                    struct strbuf *out)
{
    size_t steps = 0, i;
    json_t *offer;
    json_array_foreach(json_object_get(reply, "offers"), i, offer)
    {
        size_t n = json_array_size(json_object_get(offer, "steps"));
        steps = n > steps ? n : steps;
    }
    for (size_t first = 0; first < steps; first += CHART_COLUMNS) {
        size_t left = steps - first;
        if (first > 0)
            strbuf_addc(out, '\n');
        one_table(reply, first, left < CHART_COLUMNS ? left : CHART_COLUMNS, blocks, o,
                  out);
    }
}
