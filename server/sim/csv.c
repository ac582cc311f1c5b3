/* csv: rows are cut in place: a field's end becomes a NUL, quotes are folded away. */
#include "server/sim/csv.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"

/* What ended a field. */
enum end { END_FIELD, END_ROW, END_BAD };

int csv_refuse(const struct csv *c, struct err *err, const char *fmt, ...)
{
    char text[ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set(err, ERR_BAD_REQUEST, "%s:%d: %s", c->path, c->line, text);
}

static void add_field(struct csv *c, const char *field)
{
    if (c->field_count == c->field_cap) {
        c->field_cap = c->field_cap == 0 ? 16 : c->field_cap * 2;
        c->fields = xreallocarray(c->fields, c->field_cap, sizeof *c->fields);
    }
    c->fields[c->field_count++] = field;
}

/* Steps over the separator at c->at and says which one it was. */
static enum end take_end(struct csv *c, struct err *err)
{
    char *p = c->text + c->at;
    if (c->at == c->len) {
        return END_ROW;
    }
    if (*p == ',') {
        c->at++;
        return END_FIELD;
    }
    if (*p == '\n' || (*p == '\r' && p[1] == '\n')) {
        c->at += *p == '\n' ? 1 : 2;
        c->next_line++;
        return END_ROW;
    }
    csv_refuse(c, err, *p == '\r' ? "a CR without LF" : "text after a closing quote");
    return END_BAD;
}

static enum end quoted(struct csv *c, struct err *err)
{
    char *out = c->text + ++c->at;
    add_field(c, out);
    for (;; c->at++) {
        char ch = c->text[c->at];
        if (c->at == c->len) {
            csv_refuse(c, err, "a quote is not closed");
            return END_BAD;
        }
        if (ch == '"') {
            c->at++;
            if (c->text[c->at] != '"') {
                break;
            }
        }
        c->next_line += ch == '\n';
        *out++ = ch;
    }
    enum end end = take_end(c, err); /* looks at what *out is about to replace */
    *out = '\0';
    return end;
}

static enum end plain(struct csv *c, struct err *err)
{
    char *start = c->text + c->at;
    size_t n = strcspn(start, ",\r\n\"");
    c->at += n;
    if (start[n] == '"') {
        csv_refuse(c, err, "a quote inside a field that does not begin with one");
        return END_BAD;
    }
    add_field(c, start);
    enum end end = take_end(c, err);
    start[n] = '\0';
    return end;
}

/* Reads one row's fields from c->at, which is not the end of the file. */
static int cut_row(struct csv *c, struct err *err)
{
    enum end end;
    c->line = c->next_line;
    c->field_count = 0;
    do {
        end = c->text[c->at] == '"' ? quoted(c, err) : plain(c, err);
    } while (end == END_FIELD);
    return end == END_BAD ? -1 : 0;
}

int csv_open_take(struct csv *c, const char *path, char *text, size_t len,
                  struct err *err)
{
    *c = (struct csv){.path = path, .text = text, .len = len, .next_line = 1};
    c->line = 1;
    const char *nul = memchr(text, '\0', len);
    if (nul != NULL) {
        for (const char *p = text; p < nul; p++) {
            c->line += *p == '\n';
        }
        return csv_refuse(c, err, "a NUL byte: this is no CSV file");
    }
    if (strncmp(text, "\xef\xbb\xbf", 3) == 0) {
        c->at = 3;
    }
    if (c->at == len) {
        return csv_refuse(c, err, "the file is empty: a header line is missing");
    }
    if (cut_row(c, err) != 0) {
        return -1;
    }
    c->width = c->field_count;
    return 0;
}

void csv_done(struct csv *c)
{
    free(c->text);
    free(c->fields);
    *c = (struct csv){0};
}

bool csv_has(const struct csv *c, const char *column)
{
    for (size_t i = 0; i < c->width; i++) {
        if (strcmp(c->fields[i], column) == 0) {
            return true;
        }
    }
    return false;
}

int csv_bind(const struct csv *c, struct csv_column *columns, size_t count,
             struct err *err)
{
    for (size_t k = 0; k < count; k++) {
        struct csv_column *column = &columns[k];
        column->index = -1;
        for (size_t i = 0; i < c->width; i++) {
            if (strcmp(c->fields[i], column->name) != 0) {
                continue;
            }
            if (column->index >= 0) {
                return csv_refuse(c, err, "column %s stands there twice", column->name);
            }
            column->index = (int)i;
        }
        if (column->index < 0 && column->required) {
            return csv_refuse(c, err, "column %s is missing", column->name);
        }
    }
    return 0;
}

int csv_next(struct csv *c, bool *ret_more, struct err *err)
{
    *ret_more = c->at < c->len;
    if (!*ret_more) {
        return 0;
    }
    if (cut_row(c, err) != 0) {
        return -1;
    }
    if (c->field_count != c->width) {
        bool is_empty = c->field_count == 1 && c->fields[0][0] == '\0';
        return is_empty ? csv_refuse(c, err, "an empty line")
                        : csv_refuse(c, err, "%zu fields, the header has %zu",
                                     c->field_count, c->width);
    }
    return 0;
}

const char *csv_text(const struct csv *c, const struct csv_column *column)
{
    return column->index < 0 ? "" : c->fields[column->index];
}

int csv_name(const struct csv *c, const struct csv_column *column, const char **ret,
             struct err *err)
{
    const char *text = csv_text(c, column);
    if (text[0] == '\0') {
        return csv_refuse(c, err, "%s is empty", column->name);
    }
    if (strlen(text) > CSV_NAME_MAX) {
        return csv_refuse(c, err, "%s has %zu bytes, at most %d", column->name,
                          strlen(text), CSV_NAME_MAX);
    }
    for (const char *p = text; *p != '\0'; p++) {
        if ((unsigned char)*p < ' ' || *p == 0x7f) {
            return csv_refuse(c, err, "%s has a control character", column->name);
        }
    }
    *ret = text;
    return 0;
}

int csv_whole(const struct csv *c, const struct csv_column *column, int64_t min,
              int64_t max, int64_t *ret, struct err *err)
{
    const char *text = csv_text(c, column);
    int64_t value = 0;
    bool is_good = text[0] != '\0';
    for (const char *p = text; is_good && *p != '\0'; p++) {
        is_good = *p >= '0' && *p <= '9' && value <= max / 10;
        value = is_good ? value * 10 + (*p - '0') : 0;
    }
    if (!is_good || value < min || value > max) {
        return csv_refuse(
            c, err, "%s is '%.40s', expected a whole number %" PRId64 "..%" PRId64,
            column->name, text, min, max);
    }
    *ret = value;
    return 0;
}

int csv_real(const struct csv *c, const struct csv_column *column, double max,
             double *ret, struct err *err)
{
    const char *text = csv_text(c, column);
    char *end = NULL;
    double value = -1;
    /* strtod also takes spaces, signs, hexadecimal, inf and nan. */
    if (text[0] >= '0' && text[0] <= '9' &&
        strspn(text, "0123456789.eE+-") == strlen(text)) {
        value = strtod(text, &end);
    }
    if (end == NULL || *end != '\0' || !isfinite(value) || value < 0 || value > max) {
        return csv_refuse(c, err, "%s is '%.40s', expected a number 0..%.15g",
                          column->name, text, max);
    }
    *ret = value;
    return 0;
}

int csv_micro(const struct csv *c, const struct csv_column *column, int64_t max,
              int64_t *ret, struct err *err)
{
    double value;
    if (csv_real(c, column, (double)max * 1e-6, &value, err) != 0) {
        return -1;
    }
    *ret = (int64_t)floor(value * 1e6 + 0.5);
    return 0;
}
