/* plot: charts as inline SVG: lines over time, bars, and a field of coloured cells.
 * They need no script and no asset, print, and carry their numbers as titles that a
 * pointer shows. Pure: numbers in, text out. It knows no report; what to draw is the
 * caller's. */
#ifndef NEARGPU_CLI_PLOT_H
#define NEARGPU_CLI_PLOT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/strbuf.h"

#define PLOT_SERIES_MAX \
    7 /* colours that can be told apart, also without red and green */

/* Points in the order of time; NAN in y: no value there, the line is broken. */
struct plot_series {
    const char *name;
    const double *y; /* one for each instant */
};
struct plot_lines {
    const int64_t *at_us; /* ascending */
    size_t count;
    const struct plot_series *series;
    size_t series_count; /* at most PLOT_SERIES_MAX */
    bool from_zero;      /* the axis begins at 0: what is added up */
};
void plot_lines(struct strbuf *b, const struct plot_lines *p);

/* Groups of bars, one beside the other; y[series][label]. */
struct plot_bars {
    const char *const *labels;
    size_t count;
    const struct plot_series *series;
    size_t series_count;
};
void plot_bars(struct strbuf *b, const struct plot_bars *p);

/* cells[row * column_count + column]; NAN: none. */
struct plot_heat {
    const char *const *columns, *const *rows;
    size_t column_count, row_count;
    const double *cells;
};
void plot_heat(struct strbuf *b, const struct plot_heat *p);

/* CSS that the charts need. */
extern const char plot_style[];

/* A number for people: 1,234,567.8; at most `digits` after the point, no zeros at the
 * end. */
void plot_number(struct strbuf *b, double v, int digits);

#endif
