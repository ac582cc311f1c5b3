/* report_chart: see report_chart.h. */
#include "client/cli/report_chart.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/html.h"
#include "client/cli/plot.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define BARS_MAX 20 /* the largest; more are not read */
#define HEAT_MAX 60

/* Distinct texts in the order they came, or sorted. */
struct names {
    char **v;
    size_t count;
};

static void names_done(struct names *n)
{
    for (size_t i = 0; i < n->count; i++)
        free(n->v[i]);
    free(n->v);
}

static size_t names_find(const struct names *n, const char *text)
{
    size_t i = 0;
    /* rows come sorted: what was last is most often next */
    if (n->count > 0 && strcmp(n->v[n->count - 1], text) == 0)
        return n->count - 1;
    while (i < n->count && strcmp(n->v[i], text) != 0)
        i++;
    return i;
}

static size_t names_add(struct names *n, const char *text)
{
    size_t i = names_find(n, text);
    if (i == n->count) {
        n->v = xreallocarray(n->v, n->count + 1, sizeof(*n->v));
        n->v[n->count++] = xstrdup(text);
    }
    return i;
}

/* What a cell is called on an axis; caller frees. */
static char *label_of(const json_t *v)
{
    struct strbuf t = STRBUF_INIT;
    if (json_is_number(v))
        plot_number(&t, json_number_value(v), 3);
    else if (json_is_string(v)) {
        strbuf_adds(&t, *json_string_value(v) != '\0' ? json_string_value(v) : "none");
        if (t.len >= 20 && strbuf_str(&t)[10] == 'T') { /* a day */
            char *text = xstrndup(strbuf_str(&t), 10);
            strbuf_done(&t);
            return text;
        }
    } else
        strbuf_adds(&t, "any");
    char *text = xstrdup(strbuf_str(&t));
    strbuf_done(&t);
    return text;
}

struct chart {
    const json_t *rows, *columns;
    size_t x, series, value;
    size_t y[PLOT_SERIES_MAX], y_count;
    bool has_series, mean;
    const char *unit;
    const char *currency; /* the only one that is drawn; NULL: it is not about money */
    size_t currency_column;
};

static bool column_of(const json_t *columns, const json_t *name, size_t *ret)
{
    size_t c;
    json_t *col;
    json_array_foreach(
        columns, c,
        col) if (json_is_string(name) &&
                 strcmp(json_string_value(name),
                        json_string_value(json_object_get(col, "name"))) == 0)
    {
        *ret = c;
        return true;
    }
    return false;
}

static const char *unit_of(const struct chart *c, size_t column)
{
    const json_t *u = json_object_get(json_array_get(c->columns, column), "unit");
    return json_is_string(u) ? json_string_value(u) : "";
}

static const char *name_of(const struct chart *c, size_t column)
{
    return json_string_value(
        json_object_get(json_array_get(c->columns, column), "name"));
}

/* Sums of several currencies mean nothing: the one most rows have is drawn. */
static void pick_currency(struct chart *c)
{
    struct names all = {0};
    json_t *name = json_string("currency"), *row;
    size_t i, best = 0, *counts = NULL;
    if (strncmp(c->unit, "currency", 8) == 0 &&
        column_of(c->columns, name, &c->currency_column)) {
        counts = xcalloc(json_array_size(c->rows) + 1, sizeof(*counts));
        json_array_foreach(c->rows, i, row)
        {
            const char *code =
                json_string_value(json_array_get(row, c->currency_column));
            size_t k = names_add(&all, code != NULL ? code : "");
            if (++counts[k] > best) {
                best = counts[k];
                c->currency = code;
            }
        }
    }
    json_decref(name);
    free(counts);
    names_done(&all);
}

static bool is_drawn(const struct chart *c, const json_t *row)
{
    const char *code;
    if (c->currency == NULL)
        return true;
    code = json_string_value(json_array_get(row, c->currency_column));
    return code != NULL && strcmp(code, c->currency) == 0;
}

static bool read_chart(const json_t *report, struct chart *c)
{
    const json_t *spec = json_object_get(report, "chart"), *y;
    size_t i;
    json_t *name;
    memset(c, 0, sizeof(*c));
    c->rows = json_object_get(report, "rows");
    c->columns = json_object_get(report, "columns");
    c->mean = json_is_true(json_object_get(spec, "mean"));
    y = json_object_get(spec, "y");
    if (!column_of(c->columns, json_object_get(spec, "x"), &c->x))
        return false;
    json_array_foreach(y, i, name) if (c->y_count < PLOT_SERIES_MAX &&
                                       column_of(c->columns, name, &c->y[c->y_count]))
        c->y_count++;
    c->has_series = column_of(c->columns, json_object_get(spec, "series"), &c->series);
    c->unit = c->y_count > 0 ? unit_of(c, c->y[0]) : "";
    pick_currency(c);
    return c->y_count > 0;
}

/* The sums (or means) of every series at every place of the axis. */
struct sums {
    struct names at, series;
    double *sum, *count; /* [series][at] */
    double *total;       /* [series] */
};

static void sums_done(struct sums *s)
{
    names_done(&s->at);
    names_done(&s->series);
    free(s->sum);
    free(s->count);
    free(s->total);
}

/* "p50 quote" where there are several columns and a series. */
static char *series_name(const struct chart *c, const json_t *row, size_t y)
{
    if (!c->has_series)
        return xstrdup(name_of(c, c->y[y]));
    char *label = label_of(json_array_get(row, c->series));
    if (c->y_count == 1)
        return label;
    char *both = xasprintf("%s %s", name_of(c, c->y[y]), label);
    free(label);
    return both;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static char *place_of(const struct chart *c, const json_t *row, bool time)
{
    const json_t *v = json_array_get(row, c->x);
    return time && json_is_string(v) ? xstrdup(json_string_value(v)) : label_of(v);
}

static void add_up(const struct chart *c, bool time, struct sums *s)
{
    size_t i, y;
    json_t *row;
    memset(s, 0, sizeof(*s));
    for (int pass = 0; pass < 2; pass++) {
        json_array_foreach(c->rows, i, row)
        {
            if (!is_drawn(c, row))
                continue;
            char *place = place_of(c, row, time);
            size_t at = names_add(&s->at, place);
            free(place);
            for (y = 0; y < c->y_count; y++) {
                const json_t *v = json_array_get(row, c->y[y]);
                char *name = series_name(c, row, y);
                size_t k = names_add(&s->series, name);
                free(name);
                if (pass == 0 || !json_is_number(v))
                    continue;
                s->sum[k * s->at.count + at] += json_number_value(v);
                s->count[k * s->at.count + at] += 1;
                s->total[k] += fabs(json_number_value(v));
            }
        }
        if (pass == 1)
            break;
        if (time)
            qsort(s->at.v, s->at.count, sizeof(*s->at.v), by_text);
        s->sum = xcalloc(s->at.count * s->series.count + 1, sizeof(double));
        s->count = xcalloc(s->at.count * s->series.count + 1, sizeof(double));
        s->total = xcalloc(s->series.count + 1, sizeof(double));
    }
    for (i = 0; i < s->at.count * s->series.count; i++)
        s->sum[i] = s->count[i] == 0 ? NAN
                    : c->mean        ? s->sum[i] / s->count[i]
                                     : s->sum[i];
}

/* The largest series, in their own order; *ret_left: how many others there are. */
static size_t pick_series(const struct sums *s, struct plot_series out[PLOT_SERIES_MAX],
                          size_t *ret_left)
{
    size_t count = 0;
    *ret_left = 0;
    for (size_t k = 0; k < s->series.count; k++) {
        size_t larger = 0;
        for (size_t j = 0; j < s->series.count; j++)
            larger +=
                s->total[j] > s->total[k] || (s->total[j] == s->total[k] && j < k);
        if (larger >= PLOT_SERIES_MAX) {
            ++*ret_left;
            continue;
        }
        out[count++] = (struct plot_series){s->series.v[k], &s->sum[k * s->at.count]};
    }
    return count;
}

static bool has_values(const struct sums *s)
{
    size_t i = 0;
    while (i < s->at.count * s->series.count && isnan(s->sum[i]))
        i++;
    return i < s->at.count * s->series.count;
}

static void nothing_to_draw(struct strbuf *out)
{
    strbuf_adds(out, "<p class=\"quiet\">No row has a value to be drawn.</p>\n");
}

static void draw_lines(const struct chart *c, struct strbuf *out)
{
    struct plot_series series[PLOT_SERIES_MAX];
    struct sums s;
    size_t left;
    add_up(c, true, &s);
    int64_t *at_us = xcalloc(s.at.count + 1, sizeof(*at_us));
    bool fine = true;
    for (size_t i = 0; i < s.at.count && fine; i++) {
        struct err err;
        fine = timefmt_parse(s.at.v[i], &at_us[i], &err) == 0;
    }
    size_t count = pick_series(&s, series, &left);
    const struct plot_lines p = {.at_us = at_us,
                                 .count = s.at.count,
                                 .series = series,
                                 .series_count = count,
                                 .from_zero = !c->mean};
    if (!has_values(&s))
        nothing_to_draw(out);
    else if (fine)
        plot_lines(out, &p);
    if (fine && left > 0)
        strbuf_addf(out, "<p class=\"quiet\">The %zu largest of %zu.</p>\n", count,
                    count + left);
    free(at_us);
    sums_done(&s);
}

static void draw_bars(const struct chart *c, struct strbuf *out)
{
    struct plot_series series[PLOT_SERIES_MAX];
    struct sums s;
    size_t left;
    add_up(c, false, &s);
    size_t count = pick_series(&s, series, &left);
    const struct plot_bars p = {.labels = (const char *const *)s.at.v,
                                .count = s.at.count > BARS_MAX ? BARS_MAX : s.at.count,
                                .series = series,
                                .series_count = count};
    if (has_values(&s))
        plot_bars(out, &p);
    else
        nothing_to_draw(out);
    if (s.at.count > BARS_MAX)
        strbuf_addf(out, "<p class=\"quiet\">The first %d of %zu.</p>\n", BARS_MAX,
                    s.at.count);
    sums_done(&s);
}

static int by_number(const void *a, const void *b)
{
    double x = strtod(*(char *const *)a, NULL), y = strtod(*(char *const *)b, NULL);
    return x < y ? -1 : x > y ? 1 : strcmp(*(char *const *)a, *(char *const *)b);
}

/* Weekdays have names. */
static void name_rows(struct names *n, const char *column)
{
    static const char *const days[] = {"Monday", "Tuesday",  "Wednesday", "Thursday",
                                       "Friday", "Saturday", "Sunday"};
    for (size_t i = 0; strcmp(column, "weekday") == 0 && i < n->count; i++) {
        long day = strtol(n->v[i], NULL, 10);
        if (day < 1 || day > 7)
            continue;
        free(n->v[i]);
        n->v[i] = xstrdup(days[day - 1]);
    }
}

static void draw_heat(const struct chart *c, struct strbuf *out)
{
    struct names columns = {0}, rows = {0};
    double *cells = NULL;
    size_t i;
    json_t *row;
    for (int pass = 0; pass < 2; pass++) {
        json_array_foreach(c->rows, i, row)
        {
            char *x = label_of(json_array_get(row, c->x));
            char *y = label_of(json_array_get(row, c->y[0]));
            size_t column = names_add(&columns, x), line = names_add(&rows, y);
            const json_t *v = json_array_get(row, c->value);
            if (pass == 1 && json_is_number(v))
                cells[line * columns.count + column] = json_number_value(v);
            free(x);
            free(y);
        }
        if (pass == 1 || columns.count > HEAT_MAX || rows.count > HEAT_MAX)
            break;
        qsort(columns.v, columns.count, sizeof(*columns.v), by_number);
        qsort(rows.v, rows.count, sizeof(*rows.v), by_number);
        cells = xcalloc(columns.count * rows.count + 1, sizeof(*cells));
        for (i = 0; i < columns.count * rows.count; i++)
            cells[i] = NAN;
    }
    name_rows(&rows, name_of(c, c->y[0]));
    const struct plot_heat p = {.columns = (const char *const *)columns.v,
                                .rows = (const char *const *)rows.v,
                                .column_count = columns.count,
                                .row_count = rows.count,
                                .cells = cells};
    if (cells != NULL)
        plot_heat(out, &p);
    free(cells);
    names_done(&columns);
    names_done(&rows);
}

/* What is drawn, over the chart: "asked (GPU-hours) by hour and weekday". */
static void caption(const struct chart *c, bool heat, struct strbuf *out)
{
    struct strbuf t = STRBUF_INIT;
    if (heat)
        strbuf_addf(&t, "%s by %s and %s", name_of(c, c->value), name_of(c, c->x),
                    name_of(c, c->y[0]));
    else
        for (size_t i = 0; i < c->y_count; i++)
            strbuf_addf(&t, "%s%s", i > 0 ? ", " : "", name_of(c, c->y[i]));
    const char *unit = heat ? unit_of(c, c->value) : c->unit;
    if (c->currency != NULL) /* JPY, or JPY per GPU-hour */
        strbuf_addf(&t, " (%s%s)", c->currency, unit + strlen("currency"));
    else if (*unit != '\0')
        strbuf_addf(&t, " (%s)", unit);
    if (!heat && c->has_series)
        strbuf_addf(&t, " by %s", name_of(c, c->series));
    char *text = strbuf_steal(&t);
    for (char *p = text; *p != '\0'; p++)
        if (*p == '_')
            *p = ' ';
    if (*text >= 'a' && *text <= 'z')
        *text = (char)(*text - 'a' + 'A');
    html_element(out, "h2", NULL, text);
    strbuf_addc(out, '\n');
    free(text);
    strbuf_done(&t);
}

void report_chart(const json_t *report, struct strbuf *out)
{
    const json_t *spec = json_object_get(report, "chart");
    const char *kind = json_string_value(json_object_get(spec, "kind"));
    struct chart c;
    if (kind == NULL || !read_chart(report, &c))
        return;
    bool heat = strcmp(kind, "heat") == 0;
    if (heat && !column_of(c.columns, json_object_get(spec, "value"), &c.value))
        return;
    caption(&c, heat, out);
    if (heat)
        draw_heat(&c, out);
    else if (strcmp(kind, "bar") == 0)
        draw_bars(&c, out);
    else
        draw_lines(&c, out);
}
