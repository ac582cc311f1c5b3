/* csv: a small strict reader of comma separated values (RFC 4180): one header line,
 * then rows of as many fields; quotes, doubled quotes inside them, commas and line ends
 * in quotes; lines end in LF or CRLF. Refused, with file and line ("jobs.csv:17: …"): a
 * quote that is not closed or not where a field begins, text after a closing quote, a
 * lone CR, a NUL, another number of fields than the header has, an empty line.
 *
 * Columns are asked for by name; those nobody asks for are ignored. It does not guess
 * separators or encodings; a UTF-8 byte order mark is passed over. Pure. */
#ifndef NEARGPU_SIM_CSV_H
#define NEARGPU_SIM_CSV_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"

#define CSV_NAME_MAX 255 /* bytes of a name: nodes, jobs, sites, models, profiles */

struct csv {
    const char *path; /* borrowed, for messages */
    char *text;       /* owned; fields point into it */
    size_t len, at;
    int line;      /* where the current row begins, from 1 */
    int next_line; /* where the next one does */
    const char **fields;
    size_t field_count, field_cap;
    size_t width; /* fields of the header */
};
struct csv_column {
    const char *name;
    bool required;
    int index; /* set by csv_bind; -1: the file has no such column */
};

/* Takes the NUL-terminated text and reads the header. csv_done after success or
 * failure. */
int csv_open_take(struct csv *c, const char *path, char *text, size_t len,
                  struct err *err) MUST_USE;
void csv_done(struct csv *c);
/* Has the header this column? Valid until the first csv_next. */
bool csv_has(const struct csv *c, const char *column);
/* Finds the columns in the header, before the first csv_next. Refuses one that is
 * required and missing, or stands there twice. */
int csv_bind(const struct csv *c, struct csv_column *columns, size_t count,
             struct err *err) MUST_USE;
/* The next row; *ret_more false at the end of the file. */
int csv_next(struct csv *c, bool *ret_more, struct err *err) MUST_USE;

/* Field of the current row, "" when the file has no such column. */
const char *csv_text(const struct csv *c, const struct csv_column *column);
/* "PATH:LINE: …"; returns -1. */
int csv_refuse(const struct csv *c, struct err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Not empty, not too long, no control characters. */
int csv_name(const struct csv *c, const struct csv_column *column, const char **ret,
             struct err *err) MUST_USE;
/* Decimal digits, min..max. */
int csv_whole(const struct csv *c, const struct csv_column *column, int64_t min,
              int64_t max, int64_t *ret, struct err *err) MUST_USE;
/* A finite number 0..max, as "12", "0.5" or "1e-3". */
int csv_real(const struct csv *c, const struct csv_column *column, double max,
             double *ret, struct err *err) MUST_USE;
/* The same, in millionths, rounded half up: seconds to us, a price to micro. */
int csv_micro(const struct csv *c, const struct csv_column *column, int64_t max,
              int64_t *ret, struct err *err) MUST_USE;

#endif
