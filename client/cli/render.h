/* render: rows of JSON -> what people and programs read.
 *
 * A command describes its columns once (title, place in the JSON, kind of value); the
 * table, the card (one object, a line a column) and the CSV come from that. CSV
 * (RFC 4180) carries the raw values under their JSON names; tables carry them as people
 * read them. Text from the server is cleaned: control characters and broken UTF-8 never
 * reach a terminal. It does not fetch, sort or print. Pure: the zone of displayed times
 * is a function passed by the edge. */
#ifndef NEARGPU_RENDER_H
#define NEARGPU_RENDER_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/strbuf.h"

enum render_format { RENDER_TABLE, RENDER_JSON, RENDER_CSV };

enum render_kind {
    RENDER_TEXT,     /* string; numbers and booleans as they are */
    RENDER_SENTENCE, /* string; UTC times in it are shown in the zone */
    RENDER_INT,      /* integer, right-aligned */
    RENDER_TIME,     /* RFC 3339 string -> local zone with offset */
    RENDER_MONEY,    /* {"currency","micro"} */
    RENDER_MICRO,    /* integer of micro-units; aux: path of the currency */
    RENDER_ABOUT,    /* the same, rounded to the currency's minor unit in tables */
    RENDER_RTT,     /* microseconds or a duration -> "11.5 ms"; aux: path of its source,
                       "~11.5 ms" unless that is "measured" */
    RENDER_SECONDS, /* integer of seconds -> "1h30m"; aux: what 0 is called in tables */
    RENDER_BYTES,   /* integer of bytes -> "12.0 TB" */
    RENDER_RATE,    /* integer of bytes a second -> "40 Gbit/s" */
    RENDER_GPU_MS,  /* integer of GPU milliseconds -> GPU hours "4.000" */
    RENDER_SLOWDOWN, /* number -> "1.17" */
    RENDER_SHARE,    /* number 0..1 -> "99.95 %" */
    RENDER_PPM,      /* integer of millionths -> "5.00 %" */
    RENDER_YES,      /* boolean -> yes, no */
    RENDER_LIST,     /* array: its values, or their member `aux`, without repeats */
    RENDER_COUNT,    /* array: its length, or the sum of the lengths of members `aux` */
};

struct render_col {
    const char *title;
    const char *path; /* members and indexes: "price.currency", "allocations.0.site" */
    enum render_kind kind;
    const char *aux; /* see the kinds, NULL: none */
};
#define RENDER_COUNT_OF(table) (sizeof(table) / sizeof((table)[0]))

/* Seconds east of UTC at an instant. */
typedef int render_zone_fn(int64_t us);

struct render_opts {
    enum render_format format;
    render_zone_fn *zone;
    bool colour;
    int mark; /* row shown with "*" (and bold), -1: none; tables only */
};

/* One value as text, as a table shows it; "-" when absent or null. */
void render_cell(const json_t *row, const struct render_col *col, render_zone_fn *zone,
                 struct strbuf *out);
/* Table or CSV of an array of objects, by o->format (RENDER_JSON: indented JSON). */
void render_rows(const json_t *rows, const struct render_col *cols, size_t count,
                 const struct render_opts *o, struct strbuf *out);
/* One object: "Title  value" lines; CSV: a header and one row. */
void render_card(const json_t *obj, const struct render_col *cols, size_t count,
                 const struct render_opts *o, struct strbuf *out);
/* A report as the server sends it: {"columns":[{name,unit}],"rows":[[…]]}. */
void render_report(const json_t *report, const struct render_opts *o,
                   struct strbuf *out);
/* Cells of a report are scalars: whether column col has numbers, which stand on the
 * right, is taken from the first row that has a value. */
bool render_is_number(const json_t *rows, size_t col);
/* An object whose members are not known beforehand: a line for each scalar, named by
 * its path, then a table for each array of objects. CSV: name,value lines of the
 * scalars. */
void render_tree(const json_t *obj, const struct render_opts *o, struct strbuf *out);
/* Any JSON, indented, members in the order they came. */
void render_json(const json_t *v, struct strbuf *out);

/* Columns a text takes on a terminal (East Asian wide 2, combining 0). */
size_t render_width(const char *text);
/* Appends text with control characters and invalid UTF-8 replaced by '?'. */
void render_clean(struct strbuf *out, const char *text);
/* As render_clean; RFC 3339 UTC times in the text are shown in the zone. */
void render_sentence(struct strbuf *out, const char *text, render_zone_fn *zone);
/* Follows a dotted path; NULL when something on the way is missing. */
const json_t *render_at(const json_t *v, const char *path);

/* "1.99 USD", "11.5 ms", "1.17", "99.95 %" as used in tables and sentences. */
void render_money(struct strbuf *out, int64_t micro, const char *currency);
void render_rtt(struct strbuf *out, int64_t us);
void render_slowdown(struct strbuf *out, double slowdown);
void render_time(struct strbuf *out, int64_t us, render_zone_fn *zone);

#endif
