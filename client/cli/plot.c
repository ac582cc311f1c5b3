/* plot: see plot.h. */
#include "client/cli/plot.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "client/cli/html.h"
#include "client/lib/timefmt.h"

#define WIDTH  720.0
#define HEIGHT 250.0
#define LEFT   58.0
#define RIGHT  12.0
#define TOP    10.0
#define BOTTOM 26.0
#define TICKS  5

const char plot_style[] =
    ".plot{display:block;width:100%;height:auto;margin:4px 0 2px}"
    ".plot text{font-size:10.5px;fill:#667085}.plot .end{text-anchor:end}"
    ".plot .mid{text-anchor:middle}.plot .grid{stroke:#e3e6eb;stroke-width:1}"
    ".plot .axis{stroke:#98a2b3;stroke-width:1}.plot .cell{fill:#1c2330}"
    ".plot .light{fill:#fff}.plot path{fill:none;stroke-width:1.7;"
    "stroke-linejoin:round;stroke-linecap:round}"
    ".legend{display:flex;flex-wrap:wrap;gap:2px 18px;margin:0 0 4px 58px;padding:0;"
    "list-style:none;font-size:12px;color:#475467}"
    ".legend i{display:inline-block;width:12px;height:3px;margin:0 6px 3px 0;"
    "border-radius:2px}";

/* Okabe and Ito. */
static const char *const colours[PLOT_SERIES_MAX] = {
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#475467"};

void plot_number(struct strbuf *b, double v, int digits)
{
    char text[64];
    snprintf(text, sizeof(text), "%.*f", digits, fabs(v));
    char *point = strchr(text, '.');
    size_t whole = point != NULL ? (size_t)(point - text) : strlen(text);
    if (point != NULL) {
        char *end = text + strlen(text);
        while (end[-1] == '0')
            *--end = '\0';
        if (end[-1] == '.')
            end[-1] = '\0';
    }
    if (v < 0 && strspn(text, "0.") < strlen(text))
        strbuf_adds(b, "\xe2\x88\x92"); /* minus */
    for (size_t i = 0; i < whole; i++) {
        if (i > 0 && (whole - i) % 3 == 0)
            strbuf_addc(b, ',');
        strbuf_addc(b, text[i]);
    }
    strbuf_adds(b, text + whole);
}

/* The axis from low to high in steps of 1, 2 or 5 times a power of ten. */
struct axis {
    double low, high, step;
    int digits;
};

static struct axis axis_of(double low, double high)
{
    if (!(high > low))
        high = low + (low == 0 ? 1 : fabs(low));
    double raw = (high - low) / TICKS, power = pow(10, floor(log10(raw)));
    double step = raw <= power       ? power
                  : raw <= 2 * power ? 2 * power
                  : raw <= 5 * power ? 5 * power
                                     : 10 * power;
    struct axis a = {.low = floor(low / step) * step, .step = step};
    a.high = ceil(high / step - 1e-9) * step;
    a.digits = step >= 1 ? 0 : (int)ceil(-log10(step) - 1e-9);
    return a;
}

/* 12,000 is 12k on an axis. */
static void axis_number(struct strbuf *b, double v, const struct axis *a)
{
    if (v == 0) {
        strbuf_addc(b, '0');
    } else if (a->step >= 1e6) {
        plot_number(b, v / 1e6, 2);
        strbuf_adds(b, "M");
    } else if (a->step >= 1e3) {
        plot_number(b, v / 1e3, 1);
        strbuf_adds(b, "k");
    } else {
        plot_number(b, v, a->digits);
    }
}

static void range_of(const struct plot_series *s, size_t series, size_t count,
                     double *low, double *high)
{
    *low = INFINITY;
    *high = -INFINITY;
    for (size_t i = 0; i < series; i++)
        for (size_t k = 0; k < count; k++) {
            if (isnan(s[i].y[k]))
                continue;
            *low = fmin(*low, s[i].y[k]);
            *high = fmax(*high, s[i].y[k]);
        }
    if (*low > *high)
        *low = *high = 0;
}

static void begin_svg(struct strbuf *b, double height)
{
    strbuf_addf(b,
                "<svg class=\"plot\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 "
                "0 %.0f %.0f\" role=\"img\">\n",
                WIDTH, height);
}

static void text_at(struct strbuf *b, double x, double y, const char *class,
                    const char *text)
{
    strbuf_addf(b, "<text x=\"%.1f\" y=\"%.1f\" class=\"%s\">", x, y, class);
    html_text(b, text);
    strbuf_adds(b, "</text>");
}

static void legend(struct strbuf *b, const struct plot_series *s, size_t count)
{
    strbuf_adds(b, "<ul class=\"legend\">");
    for (size_t i = 0; i < count; i++) {
        strbuf_addf(b, "<li><i style=\"background:%s\"></i>", colours[i]);
        html_text(b, s[i].name);
        strbuf_adds(b, "</li>");
    }
    strbuf_adds(b, "</ul>\n");
}

static double y_at(const struct axis *a, double v)
{
    return TOP + (a->high - v) / (a->high - a->low) * (HEIGHT - TOP - BOTTOM);
}

static void y_axis(struct strbuf *b, const struct axis *a)
{
    struct strbuf t = STRBUF_INIT;
    for (double v = a->low; v <= a->high + a->step / 2; v += a->step) {
        double y = y_at(a, v);
        strbuf_addf(b,
                    "<line class=\"%s\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" "
                    "y2=\"%.1f\"/>",
                    fabs(v) < a->step / 2 ? "axis" : "grid", LEFT, y, WIDTH - RIGHT, y);
        axis_number(&t, fabs(v) < a->step / 2 ? 0 : v, a);
        text_at(b, LEFT - 6, y + 3.5, "end", strbuf_str(&t));
        strbuf_reset(&t);
    }
    strbuf_done(&t);
    strbuf_addc(b, '\n');
}

static bool all_midnights(const int64_t *at_us, size_t count)
{
    size_t i = 0;
    while (i < count && at_us[i] % (24 * US_PER_HOUR) == 0)
        i++;
    return i == count;
}

/* Days, or hours where there are few days and some hours; about eight of them. */
static void time_axis(struct strbuf *b, const int64_t *at_us, size_t count)
{
    int64_t first = at_us[0], span = at_us[count - 1] - first;
    bool hours = span < 2 * 24 * US_PER_HOUR && !all_midnights(at_us, count);
    int64_t unit = hours ? US_PER_HOUR : 24 * US_PER_HOUR;
    int64_t step = (span / unit / 8 + 1) * unit;
    if (!hours && step > 5 * unit)
        step = (step / (7 * unit) + 1) * 7 * unit;
    for (int64_t at = (first + unit - 1) / unit * unit; at <= first + span;
         at += step) {
        char text[TIMEFMT_MAX];
        double x = span == 0 ? (LEFT + WIDTH - RIGHT) / 2
                             : LEFT + (double)(at - first) / (double)span *
                                          (WIDTH - LEFT - RIGHT);
        timefmt_utc(at, text);
        text[hours ? 16 : 10] = '\0';
        strbuf_addf(b,
                    "<line class=\"axis\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" "
                    "y2=\"%.1f\"/>",
                    x, HEIGHT - BOTTOM, x, HEIGHT - BOTTOM + 4);
        text_at(b, x, HEIGHT - 8,
                x > WIDTH - 40  ? "end"
                : x < LEFT + 20 ? "start"
                                : "mid",
                hours ? text + 11 : text + 5);
    }
    strbuf_addc(b, '\n');
}

static double x_at(const struct plot_lines *p, size_t k)
{
    int64_t first = p->at_us[0], span = p->at_us[p->count - 1] - first;
    return span == 0 ? (LEFT + WIDTH - RIGHT) / 2
                     : LEFT + (double)(p->at_us[k] - first) / (double)span *
                                  (WIDTH - LEFT - RIGHT);
}

/* No line goes to a point without neighbours. */
static bool is_alone(const struct plot_lines *p, const struct plot_series *s, size_t k)
{
    return !isnan(s->y[k]) && (k == 0 || isnan(s->y[k - 1])) &&
           (k + 1 == p->count || isnan(s->y[k + 1]));
}

static void one_line(struct strbuf *b, const struct plot_lines *p,
                     const struct plot_series *s, const struct axis *a,
                     const char *colour)
{
    bool down = false;
    strbuf_addf(b, "<path stroke=\"%s\" d=\"", colour);
    for (size_t k = 0; k < p->count; k++) {
        if (isnan(s->y[k])) {
            down = false;
            continue;
        }
        strbuf_addf(b, "%c%.1f %.1f", down ? 'L' : 'M', x_at(p, k), y_at(a, s->y[k]));
        down = true;
    }
    strbuf_adds(b, "\"><title>");
    html_text(b, s->name);
    strbuf_adds(b, "</title></path>\n");
    for (size_t k = 0; k < p->count; k++) {
        if (!is_alone(p, s, k))
            continue;
        strbuf_addf(b, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"><title>",
                    x_at(p, k), y_at(a, s->y[k]), colour);
        html_text(b, s->name);
        strbuf_adds(b, "</title></circle>\n");
    }
}

void plot_lines(struct strbuf *b, const struct plot_lines *p)
{
    double low, high;
    if (p->count == 0 || p->series_count == 0)
        return;
    range_of(p->series, p->series_count, p->count, &low, &high);
    if (p->from_zero || low > 0.9 * high || low < 0.5 * high)
        low = fmin(low, 0);
    struct axis a = axis_of(low, high);
    begin_svg(b, HEIGHT);
    y_axis(b, &a);
    time_axis(b, p->at_us, p->count);
    for (size_t i = 0; i < p->series_count; i++)
        one_line(b, p, &p->series[i], &a, colours[i]);
    strbuf_adds(b, "</svg>\n");
    legend(b, p->series, p->series_count);
}

void plot_bars(struct strbuf *b, const struct plot_bars *p)
{
    double low, high, left = 140, bar = p->series_count > 1 ? 9 : 14;
    double group = bar * (double)p->series_count + 9;
    struct strbuf t = STRBUF_INIT;
    if (p->count == 0 || p->series_count == 0)
        return;
    range_of(p->series, p->series_count, p->count, &low, &high);
    struct axis a = axis_of(fmin(low, 0), high);
    double scale = (WIDTH - left - 70) / (a.high - a.low);
    begin_svg(b, TOP + group * (double)p->count + 4);
    for (size_t k = 0; k < p->count; k++) {
        double y = TOP + group * (double)k;
        text_at(b, left - 8, y + bar * (double)p->series_count / 2 + 3.5, "end",
                p->labels[k]);
        for (size_t i = 0; i < p->series_count; i++, y += bar) {
            double v = p->series[i].y[k];
            if (isnan(v))
                continue;
            double from = left + (fmin(v, 0) - a.low) * scale;
            strbuf_addf(b,
                        "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" "
                        "rx=\"1.5\" fill=\"%s\"><title>",
                        from, y, fmax(fabs(v) * scale, 0.5), bar - 1.5, colours[i]);
            html_text(b, p->series[i].name);
            strbuf_adds(b, "</title></rect>");
            plot_number(&t, v, fabs(v) < 100 ? 2 : 0);
            text_at(b, from + fabs(v) * scale + 5, y + bar - 2.5, "value",
                    strbuf_str(&t));
            strbuf_reset(&t);
        }
        strbuf_addc(b, '\n');
    }
    strbuf_adds(b, "</svg>\n");
    legend(b, p->series, p->series_count);
    strbuf_done(&t);
}

/* From nearly white to deep blue, even to the eye. */
static void heat_colour(double share, char out[8])
{
    static const int stop[][3] = {{239, 243, 255},
                                  {189, 215, 231},
                                  {107, 174, 214},
                                  {49, 130, 189},
                                  {8, 81, 156}};
    double at = fmin(fmax(share, 0), 1) * 4;
    int i = at >= 4 ? 3 : (int)at;
    double f = at - i;
    int c[3];
    for (int k = 0; k < 3; k++)
        c[k] = (int)lround(stop[i][k] + f * (stop[i + 1][k] - stop[i][k]));
    snprintf(out, 8, "#%02x%02x%02x", (unsigned)c[0] & 0xff, (unsigned)c[1] & 0xff,
             (unsigned)c[2] & 0xff);
}

static int heat_digits(double v)
{
    return fabs(v) < 10 ? 2 : fabs(v) < 100 ? 1 : 0;
}

/* Every cell has room for its number; otherwise none shows one. */
static bool heat_fits(const struct plot_heat *p, double wide)
{
    bool fits = true;
    struct strbuf t = STRBUF_INIT;
    for (size_t i = 0; i < p->column_count * p->row_count && fits; i++) {
        if (isnan(p->cells[i]))
            continue;
        plot_number(&t, p->cells[i], heat_digits(p->cells[i]));
        fits = (double)t.len * 6 < wide - 4;
        strbuf_reset(&t);
    }
    strbuf_done(&t);
    return fits;
}

struct cell {
    size_t row, column;
    double box[4]; /* x, y, width, height */
    double share;  /* of the largest */
    bool number;
};

static void one_cell(struct strbuf *b, const struct plot_heat *p, const struct cell *c)
{
    size_t row = c->row, column = c->column;
    const double *box = c->box;
    double share = c->share;
    double v = p->cells[row * p->column_count + column];
    char colour[8];
    struct strbuf t = STRBUF_INIT;
    heat_colour(share, colour);
    strbuf_addf(b,
                "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"2\" "
                "fill=\"%s\"><title>",
                box[0], box[1], box[2] - 2, box[3] - 2, isnan(v) ? "#f2f3f5" : colour);
    html_text(b, p->rows[row]);
    strbuf_adds(b, ", ");
    html_text(b, p->columns[column]);
    strbuf_adds(b, ": ");
    if (!isnan(v))
        plot_number(&t, v, heat_digits(v));
    html_text(b, strbuf_str(&t));
    strbuf_adds(b, "</title></rect>");
    if (!isnan(v) && c->number)
        text_at(b, box[0] + box[2] / 2 - 1, box[1] + box[3] / 2 + 3,
                share > 0.55 ? "mid light" : "mid cell", strbuf_str(&t));
    strbuf_done(&t);
}

void plot_heat(struct strbuf *b, const struct plot_heat *p)
{
    struct plot_series all = {.y = p->cells};
    double low, high, left = 110, top = 20, high_cell = 24;
    if (p->column_count == 0 || p->row_count == 0)
        return;
    double wide = fmin(90, (WIDTH - left - RIGHT) / (double)p->column_count);
    bool numbers = heat_fits(p, wide);
    range_of(&all, 1, p->column_count * p->row_count, &low, &high);
    begin_svg(b, top + high_cell * (double)p->row_count + 6);
    for (size_t c = 0; c < p->column_count; c++)
        text_at(b, left + wide * ((double)c + 0.5) - 1, top - 6, "mid", p->columns[c]);
    for (size_t r = 0; r < p->row_count; r++) {
        text_at(b, left - 8, top + high_cell * ((double)r + 0.5) + 2.5, "end",
                p->rows[r]);
        for (size_t c = 0; c < p->column_count; c++) {
            double v = p->cells[r * p->column_count + c];
            const struct cell one = {
                .row = r,
                .column = c,
                .box = {left + wide * (double)c, top + high_cell * (double)r, wide,
                        high_cell},
                .share = high > low ? (v - fmin(low, 0)) / (high - fmin(low, 0)) : 0.5,
                .number = numbers};
            one_cell(b, p, &one);
        }
        strbuf_addc(b, '\n');
    }
    strbuf_adds(b, "</svg>\n");
}
