/* grid: titled columns of text cells -> an aligned table for a terminal, or CSV
 * (RFC 4180). Cells are shown as given; render.c decides what stands in them. Pure. */
#ifndef NEARGPU_GRID_H
#define NEARGPU_GRID_H
#include <stdbool.h>
#include <stddef.h>

#include "client/lib/strbuf.h"

struct grid {
    char **cells; /* titles first, then rows, row by row */
    size_t count, cap;
    size_t columns;
    bool *right; /* per column: right-aligned */
};

void grid_init(struct grid *g);
void grid_done(struct grid *g);
/* All columns first, then cells. */
void grid_column(struct grid *g, const char *title, bool right);
void grid_cell(struct grid *g, const char *text);
/* A row must have as many cells as there are columns (asserted). */
void grid_end_row(struct grid *g);
/* mark: the row shown with "*" in front, -1: no column of marks. */
void grid_table(const struct grid *g, bool colour, int mark, struct strbuf *out);
void grid_csv(const struct grid *g, struct strbuf *out);

#endif
