/* render: see render.h. Cells: one function a kind. The grids (aligned tables, CSV)
 * that cells go into are in grid.c. */
#include "client/cli/render.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/grid.h"
#include "client/lib/money.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

/* As many digits as every double keeps: 1.174 stays 1.174. */
#define REAL_DIGITS JSON_REAL_PRECISION(15)

const json_t *render_at(const json_t *v, const char *path)
{
    while (v != NULL && path != NULL && *path != '\0') {
        char key[64];
        size_t len = strcspn(path, ".");
        if (len >= sizeof(key))
            return NULL;
        memcpy(key, path, len);
        key[len] = '\0';
        if (json_is_array(v)) {
            char *end = NULL;
            unsigned long index = strtoul(key, &end, 10);
            v = *key != '\0' && *end == '\0' ? json_array_get(v, index) : NULL;
        } else {
            v = json_object_get(v, key);
        }
        path += len;
        if (*path == '.')
            path++;
    }
    return v;
}

void render_money(struct strbuf *out, int64_t micro, const char *currency)
{
    char text[MONEY_TEXT_MAX];
    money_format(micro, currency, text);
    strbuf_adds(out, text);
    if (*currency != '\0') {
        strbuf_addc(out, ' ');
        render_clean(out, currency);
    }
}

void render_rtt(struct strbuf *out, int64_t us)
{
    if (us < 100)
        strbuf_addf(out, "%.2f ms", (double)us / 1000);
    else
        strbuf_addf(out, "%.1f ms", (double)us / 1000);
}

void render_slowdown(struct strbuf *out, double slowdown)
{
    strbuf_addf(out, "%.2f", slowdown);
}

void render_time(struct strbuf *out, int64_t us, render_zone_fn *zone)
{
    char text[TIMEFMT_MAX];
    int64_t second = us - ((us % US_PER_S) + US_PER_S) % US_PER_S;
    timefmt_offset(second, zone(us), text);
    strbuf_adds(out, text);
}

/* A figure nobody is charged: half away from zero, as prices round. */
static int64_t to_minor_unit(int64_t micro, const char *currency)
{
    int64_t unit = MONEY_MICRO;
    for (int digits = money_exponent(currency); digits > 0 && unit > 1; digits--)
        unit /= 10;
    int64_t half = micro < 0 ? -unit / 2 : unit / 2;
    return (micro + half) / unit * unit;
}

static void add_scalar(struct strbuf *out, const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_STRING: render_clean(out, json_string_value(v)); break;
    case JSON_INTEGER:
        strbuf_addf(out, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        break;
    case JSON_REAL: strbuf_addf(out, "%.10g", json_real_value(v)); break;
    case JSON_TRUE: strbuf_adds(out, "yes"); break;
    case JSON_FALSE: strbuf_adds(out, "no"); break;
    default: {
        char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | REAL_DIGITS);
        if (text != NULL)
            render_clean(out, text);
        free(text);
    }
    }
}

static void add_bytes(struct strbuf *out, json_int_t bytes)
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB", "EB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 999.95 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1000;
        unit++;
    }
    strbuf_addf(out, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

static void add_rate(struct strbuf *out, json_int_t bytes_per_s)
{
    static const char *const units[] = {"bit/s", "kbit/s", "Mbit/s", "Gbit/s",
                                        "Tbit/s"};
    double value = (double)bytes_per_s * 8;
    size_t unit = 0;
    while (value >= 1000 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        value /= 1000;
        unit++;
    }
    strbuf_addf(out, "%.4g %s", value, units[unit]);
}

static void add_time(struct strbuf *out, const json_t *v, render_zone_fn *zone)
{
    int64_t us;
    if (json_is_string(v) && timefmt_parse(json_string_value(v), &us, NULL) == 0)
        render_time(out, us, zone);
    else
        add_scalar(out, v);
}

static const char *text_or(const json_t *v, const char *otherwise)
{
    return json_is_string(v) ? json_string_value(v) : otherwise;
}

/* Length of a time such as "2026-11-22T23:00:00.25Z" at the start of text, or 0. */
static size_t utc_time_len(const char *text)
{
    static const char shape[] = "0000-00-00T00:00:00";
    size_t n = 0;
    for (; shape[n] != '\0'; n++)
        if (shape[n] == '0' ? text[n] < '0' || text[n] > '9' : text[n] != shape[n])
            return 0;
    if (text[n] == '.')
        n += 1 + strspn(text + n + 1, "0123456789");
    return text[n] == 'Z' ? n + 1 : 0;
}

void render_sentence(struct strbuf *out, const char *text, render_zone_fn *zone)
{
    struct strbuf local = STRBUF_INIT;
    while (*text != '\0') {
        size_t len = utc_time_len(text);
        char *time = xstrndup(text, len);
        int64_t us;
        if (len > 0 && timefmt_parse(time, &us, NULL) == 0) {
            render_time(&local, us, zone);
            text += len;
        } else {
            strbuf_addc(&local, *text++);
        }
        free(time);
    }
    render_clean(out, strbuf_str(&local));
    strbuf_done(&local);
}

static void add_list(struct strbuf *out, const json_t *v, const char *aux)
{
    size_t i;
    json_t *item;
    struct strbuf seen = STRBUF_INIT; /* ",a,b," */
    strbuf_addc(&seen, ',');
    json_array_foreach(v, i, item)
    {
        const json_t *one = aux != NULL ? render_at(item, aux) : item;
        struct strbuf text = STRBUF_INIT;
        if (one == NULL || json_is_null(one))
            continue;
        strbuf_addc(&text, ',');
        add_scalar(&text, one);
        strbuf_addc(&text, ',');
        if (strstr(strbuf_str(&seen), strbuf_str(&text)) == NULL) {
            if (seen.len > 1)
                strbuf_addc(out, ',');
            strbuf_add(out, text.data + 1, text.len - 2);
            strbuf_adds(&seen, strbuf_str(&text) + 1);
        }
        strbuf_done(&text);
    }
    if (seen.len == 1)
        strbuf_addc(out, '-');
    strbuf_done(&seen);
}

static size_t count_of(const json_t *v, const char *aux)
{
    size_t i, sum = 0;
    json_t *item;
    if (aux == NULL)
        return json_array_size(v);
    json_array_foreach(v, i, item) sum += json_array_size(render_at(item, aux));
    return sum;
}

void render_cell(const json_t *row, const struct render_col *col, render_zone_fn *zone,
                 struct strbuf *out)
{
    const json_t *v = render_at(row, col->path);
    char duration[TIMEFMT_MAX];
    int64_t us;
    if (v == NULL || json_is_null(v)) {
        strbuf_addc(out, '-');
        return;
    }
    switch (col->kind) {
    case RENDER_SENTENCE:
    case RENDER_TEXT:
        if (json_is_string(v) && json_string_length(v) == 0)
            strbuf_addc(out, '-');
        else if (col->kind == RENDER_SENTENCE)
            render_sentence(out, text_or(v, ""), zone);
        else
            add_scalar(out, v);
        break;
    case RENDER_INT: add_scalar(out, v); break;
    case RENDER_TIME: add_time(out, v, zone); break;
    case RENDER_MONEY:
        render_money(out, json_integer_value(json_object_get(v, "micro")),
                     text_or(json_object_get(v, "currency"), ""));
        break;
    case RENDER_MICRO:
        render_money(out, json_integer_value(v), text_or(render_at(row, col->aux), ""));
        break;
    case RENDER_ABOUT: {
        const char *currency = text_or(render_at(row, col->aux), "");
        render_money(out, to_minor_unit(json_integer_value(v), currency), currency);
        break;
    }
    case RENDER_RTT:
        if (col->aux != NULL &&
            strcmp(text_or(render_at(row, col->aux), "measured"), "measured") != 0)
            strbuf_addc(out, '~');
        if (!json_is_string(v) ||
            timefmt_parse_duration(json_string_value(v), &us, NULL) != 0)
            us = json_integer_value(v);
        render_rtt(out, us);
        break;
    case RENDER_SECONDS:
        if (json_integer_value(v) == 0 && col->aux != NULL) {
            strbuf_adds(out, col->aux);
            break;
        }
        timefmt_duration(json_integer_value(v) * US_PER_S, duration);
        strbuf_adds(out, duration);
        break;
    case RENDER_BYTES: add_bytes(out, json_integer_value(v)); break;
    case RENDER_RATE: add_rate(out, json_integer_value(v)); break;
    case RENDER_GPU_MS:
        strbuf_addf(out, "%.3f", (double)json_integer_value(v) / 3600e3);
        break;
    case RENDER_SLOWDOWN: render_slowdown(out, json_number_value(v)); break;
    case RENDER_SHARE: strbuf_addf(out, "%.2f %%", json_number_value(v) * 100); break;
    case RENDER_PPM:
        strbuf_addf(out, "%.2f %%", (double)json_integer_value(v) / 10000);
        break;
    case RENDER_YES: strbuf_adds(out, json_is_true(v) ? "yes" : "no"); break;
    case RENDER_LIST: add_list(out, v, col->aux); break;
    case RENDER_COUNT: strbuf_addf(out, "%zu", count_of(v, col->aux)); break;
    }
}

static bool is_number(enum render_kind kind)
{
    return kind != RENDER_TEXT && kind != RENDER_SENTENCE && kind != RENDER_TIME &&
           kind != RENDER_YES && kind != RENDER_LIST;
}

static void add_grid_cell(struct grid *g, struct strbuf *text)
{
    grid_cell(g, strbuf_str(text));
    strbuf_reset(text);
}

/* CSV header and cells: the raw value under its JSON name. Money is split into its
 * members so that a program need not take text apart. */
static void csv_name(struct grid *g, const char *path, const char *member)
{
    char *name = member != NULL ? xasprintf("%s_%s", path, member) : xstrdup(path);
    for (char *p = name; *p != '\0'; p++)
        if (*p == '.')
            *p = '_';
    grid_column(g, name, false);
    free(name);
}

static bool is_micro(const struct render_col *col)
{
    return col->kind == RENDER_MICRO || col->kind == RENDER_ABOUT;
}

/* Money in micro-units brings its currency along, once for all columns that share it.
 */
static bool brings_currency(const struct render_col *cols, size_t i)
{
    if (!is_micro(&cols[i]))
        return false;
    for (size_t k = 0; k < i; k++)
        if (is_micro(&cols[k]) && strcmp(cols[k].aux, cols[i].aux) == 0)
            return false;
    return true;
}

static void csv_columns(struct grid *g, const struct render_col *cols, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (cols[i].kind == RENDER_MONEY) {
            csv_name(g, cols[i].path, "micro");
            csv_name(g, cols[i].path, "currency");
        } else if (cols[i].kind == RENDER_LIST || cols[i].kind == RENDER_COUNT) {
            csv_name(g, cols[i].path, cols[i].aux);
        } else {
            csv_name(g, cols[i].path, NULL);
        }
        if (brings_currency(cols, i))
            csv_name(g, cols[i].aux, NULL);
    }
}

static void csv_raw(struct strbuf *out, const json_t *v)
{
    if (v == NULL || json_is_null(v))
        return;
    if (json_is_string(v)) {
        strbuf_adds(out, json_string_value(v));
    } else {
        char *text = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | REAL_DIGITS);
        strbuf_adds(out, text != NULL ? text : "");
        free(text);
    }
}

static void csv_row(struct grid *g, const json_t *row, const struct render_col *cols,
                    size_t count)
{
    struct strbuf text = STRBUF_INIT;
    for (size_t i = 0; i < count; i++) {
        const json_t *v = render_at(row, cols[i].path);
        if (cols[i].kind == RENDER_MONEY) {
            csv_raw(&text, json_object_get(v, "micro"));
            add_grid_cell(g, &text);
            csv_raw(&text, json_object_get(v, "currency"));
        } else if (cols[i].kind == RENDER_LIST && json_array_size(v) > 0) {
            add_list(&text, v, cols[i].aux);
        } else if (cols[i].kind == RENDER_COUNT) {
            strbuf_addf(&text, "%zu", count_of(v, cols[i].aux));
        } else if (cols[i].kind != RENDER_LIST) {
            csv_raw(&text, v);
        }
        add_grid_cell(g, &text);
        if (brings_currency(cols, i)) {
            csv_raw(&text, render_at(row, cols[i].aux));
            add_grid_cell(g, &text);
        }
    }
    grid_end_row(g);
    strbuf_done(&text);
}

static void table_row(struct grid *g, const json_t *row, const struct render_col *cols,
                      size_t count, render_zone_fn *zone)
{
    struct strbuf text = STRBUF_INIT;
    for (size_t i = 0; i < count; i++) {
        render_cell(row, &cols[i], zone, &text);
        add_grid_cell(g, &text);
    }
    grid_end_row(g);
    strbuf_done(&text);
}

void render_json(const json_t *v, struct strbuf *out)
{
    char *text = json_dumps(v, JSON_INDENT(2) | JSON_ENCODE_ANY | REAL_DIGITS);
    strbuf_adds(out, text != NULL ? text : "null");
    strbuf_addc(out, '\n');
    free(text);
}

void render_rows(const json_t *rows, const struct render_col *cols, size_t count,
                 const struct render_opts *o, struct strbuf *out)
{
    struct grid g;
    size_t i;
    json_t *row;
    if (o->format == RENDER_JSON) {
        render_json(rows, out);
        return;
    }
    grid_init(&g);
    if (o->format == RENDER_CSV) {
        csv_columns(&g, cols, count);
        json_array_foreach(rows, i, row) csv_row(&g, row, cols, count);
        grid_csv(&g, out);
    } else {
        for (size_t c = 0; c < count; c++)
            grid_column(&g, cols[c].title, is_number(cols[c].kind));
        json_array_foreach(rows, i, row) table_row(&g, row, cols, count, o->zone);
        grid_table(&g, o->colour, o->mark, out);
    }
    grid_done(&g);
}

void render_card(const json_t *obj, const struct render_col *cols, size_t count,
                 const struct render_opts *o, struct strbuf *out)
{
    struct strbuf text = STRBUF_INIT;
    size_t widest = 0;
    if (o->format != RENDER_TABLE) {
        json_t *rows = json_pack("[O]", (json_t *)(uintptr_t)obj);
        render_rows(o->format == RENDER_JSON ? obj : rows, cols, count, o, out);
        json_decref(rows);
        return;
    }
    for (size_t i = 0; i < count; i++)
        if (render_width(cols[i].title) > widest)
            widest = render_width(cols[i].title);
    for (size_t i = 0; i < count; i++) {
        render_cell(obj, &cols[i], o->zone, &text);
        strbuf_addf(out, "%s%s%s%*s%s\n", o->colour ? "\033[1m" : "", cols[i].title,
                    o->colour ? "\033[0m" : "",
                    (int)(widest - render_width(cols[i].title) + 2), "",
                    strbuf_str(&text));
        strbuf_reset(&text);
    }
    strbuf_done(&text);
}

bool render_is_number(const json_t *rows, size_t col)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        const json_t *v = json_array_get(row, col);
        if (v != NULL && !json_is_null(v))
            return json_is_number(v);
    }
    return false;
}

/* Days and months of a report are those of UTC: a date alone, which no zone moves. */
static bool is_date(const json_t *col, const json_t *v)
{
    const char *name = text_or(json_object_get(col, "name"), "");
    const char *text = text_or(v, "");
    return (strcmp(name, "day") == 0 || strcmp(name, "cohort") == 0) &&
           strlen(text) > 19 && strncmp(text + 10, "T00:00:00", 9) == 0;
}

void render_report(const json_t *report, const struct render_opts *o,
                   struct strbuf *out)
{
    const json_t *columns = json_object_get(report, "columns");
    const json_t *rows = json_object_get(report, "rows");
    bool csv = o->format == RENDER_CSV;
    struct strbuf text = STRBUF_INIT;
    struct grid g;
    size_t i, c;
    json_t *row, *col;
    if (o->format == RENDER_JSON) {
        render_json(report, out);
        return;
    }
    grid_init(&g);
    json_array_foreach(columns, c, col)
    {
        const char *unit = text_or(json_object_get(col, "unit"), "");
        render_clean(&text, text_or(json_object_get(col, "name"), "?"));
        if (*unit != '\0' && !csv) {
            strbuf_adds(&text, " (");
            render_clean(&text, unit);
            strbuf_addc(&text, ')');
        }
        grid_column(&g, strbuf_str(&text), render_is_number(rows, c));
        strbuf_reset(&text);
    }
    json_array_foreach(rows, i, row)
    {
        json_array_foreach(columns, c, col)
        {
            const json_t *v = json_array_get(row, c);
            if (csv)
                csv_raw(&text, v);
            else if (is_date(col, v))
                strbuf_add(&text, json_string_value(v), 10);
            else if (v == NULL || json_is_null(v))
                strbuf_addc(&text, '-');
            else
                add_time(&text, v, o->zone);
            add_grid_cell(&g, &text);
        }
        grid_end_row(&g);
    }
    if (csv)
        grid_csv(&g, out);
    else
        grid_table(&g, o->colour, -1, out);
    grid_done(&g);
    strbuf_done(&text);
}
