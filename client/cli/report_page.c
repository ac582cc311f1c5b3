/* report_page: see report_page.h. */
#include "client/cli/report_page.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/html.h"
#include "client/cli/plot.h"
#include "client/cli/render.h"
#include "client/cli/report_chart.h"
#include "client/lib/xalloc.h"

static const char style[] =
    "main{max-width:1000px}.facts{display:flex;flex-wrap:wrap;gap:2px 28px;"
    "margin:10px 0 0;font-size:13px}.facts span{color:#667085;margin-right:6px}"
    "th small{display:block;font-weight:400;color:#667085}"
    "th.number{white-space:normal}tbody tr:nth-child(even){background:#fafbfc}"
    "td{font-size:13px}.wide{overflow-x:auto}.empty{padding:28px 0;color:#667085;"
    "text-align:center;border:1px dashed #d0d5dd;margin-top:20px}"
    "a{color:#0072b2;text-decoration:none}nav{font-size:13px;margin-bottom:12px}"
    ".stale{color:#b42318}";

static const char *text_of(const json_t *v)
{
    return json_is_string(v) ? json_string_value(v) : "";
}

/* 2026-10-01T05:00:00+00:00 as 2026-10-01 05:00, without 00:00. */
static void time_text(struct strbuf *b, const char *text)
{
    char day[11], hour[6];
    if (strlen(text) < 16 || text[10] != 'T') {
        html_text(b, text);
        return;
    }
    memcpy(day, text, 10);
    day[10] = '\0';
    memcpy(hour, text + 11, 5);
    hour[5] = '\0';
    html_text(b, day);
    if (strcmp(hour, "00:00") != 0 || strncmp(text + 16, ":00", 3) != 0) {
        strbuf_addc(b, ' ');
        html_text(b, hour);
    }
}

static bool is_time(const char *text)
{
    return strlen(text) >= 20 && text[4] == '-' && text[10] == 'T';
}

/* digits: at most so many after the point. */
static void cell(struct strbuf *b, const json_t *v, bool number, int digits)
{
    strbuf_adds(b, number ? "<td class=\"number\">" : "<td>");
    if (json_is_number(v))
        plot_number(b, json_number_value(v), digits);
    else if (json_is_boolean(v))
        strbuf_adds(b, json_is_true(v) ? "yes" : "no");
    else if (json_is_string(v) && is_time(text_of(v)))
        time_text(b, text_of(v));
    else if (json_is_string(v))
        html_text(b, text_of(v));
    else
        strbuf_adds(b, "\xe2\x80\x93");
    strbuf_adds(b, "</td>");
}

/* Underscores are for programs. */
static void words(struct strbuf *b, const char *name, bool capital)
{
    struct strbuf t = STRBUF_INIT;
    size_t short_word =
        strncmp(name, "rtt_", 4) == 0 || strncmp(name, "sla_", 4) == 0 ? 3 : 1;
    for (size_t i = 0; name[i] != '\0'; i++) {
        char c = name[i] == '_' ? ' ' : name[i];
        if (i < short_word && capital && c >= 'a' && c <= 'z')
            c = (char)(c - 'a' + 'A');
        strbuf_addc(&t, c);
    }
    html_text(b, strbuf_str(&t));
    strbuf_done(&t);
}

static void table(struct strbuf *b, const json_t *report)
{
    const json_t *columns = json_object_get(report, "columns");
    const json_t *rows = json_object_get(report, "rows");
    size_t i, c, count = json_array_size(rows);
    json_t *row, *col;
    bool *numbers = xcalloc(json_array_size(columns) + 1, sizeof(*numbers));
    strbuf_adds(b, "<h2>Figures</h2>\n<div class=\"wide\"><table>\n<thead><tr>");
    json_array_foreach(columns, c, col)
    {
        const char *unit = text_of(json_object_get(col, "unit"));
        numbers[c] = render_is_number(rows, c);
        strbuf_adds(b, numbers[c] ? "<th class=\"number\">" : "<th>");
        words(b, text_of(json_object_get(col, "name")), false);
        if (*unit != '\0')
            html_element(b, "small", NULL, unit);
        strbuf_adds(b, "</th>");
    }
    strbuf_adds(b, "</tr></thead>\n<tbody>\n");
    for (i = 0; i < count && i < REPORT_PAGE_ROWS; i++) {
        row = json_array_get(rows, i);
        strbuf_adds(b, "<tr>");
        json_array_foreach(columns, c, col)
        {
            const char *unit = text_of(json_object_get(col, "unit"));
            cell(b, json_array_get(row, c), numbers[c],
                 strcmp(unit, "currency") == 0 ? 2 : 6);
        }
        strbuf_adds(b, "</tr>\n");
    }
    free(numbers);
    strbuf_adds(b, "</tbody></table></div>\n");
    if (count > REPORT_PAGE_ROWS)
        strbuf_addf(b,
                    "<p class=\"quiet\">The first %d of %zu rows; the chart has all of "
                    "them, and so has <code>-o csv</code>.</p>\n",
                    REPORT_PAGE_ROWS, count);
}

static void fact(struct strbuf *b, const char *name, const char *text)
{
    strbuf_adds(b, "<div>");
    html_element(b, "span", NULL, name);
    if (is_time(text))
        time_text(b, text);
    else
        html_text(b, text);
    strbuf_adds(b, "</div>");
}

static void facts(struct strbuf *b, const json_t *report, const char *market)
{
    const char *from = text_of(json_object_get(report, "from"));
    const char *to = text_of(json_object_get(report, "to")), *name;
    const json_t *fresh = json_object_get(report, "fresh_as_of");
    json_t *v;
    strbuf_adds(b, "<div class=\"facts\">");
    if (*market != '\0')
        fact(b, "Market", market);
    if (*from != '\0')
        fact(b, "From", from);
    if (*to != '\0')
        fact(b, "To", to);
    json_object_foreach(json_object_get(report, "filters"), name, v)
        fact(b, name, text_of(v));
    if (json_is_string(fresh))
        fact(b, "Fresh as of", json_string_value(fresh));
    else
        strbuf_adds(b, "<div class=\"stale\">never rolled up yet: is neargpu-billd "
                       "running?</div>");
    fact(b, "Times", "UTC");
    strbuf_adds(b, "</div>\n");
}

static void sentence(struct strbuf *b, const char *text)
{
    struct strbuf t = STRBUF_INIT;
    strbuf_adds(&t, text);
    strbuf_addc(&t, '.');
    words(b, strbuf_str(&t), true);
    strbuf_done(&t);
}

void report_page(const json_t *report, const char *market, bool index,
                 struct strbuf *out)
{
    struct strbuf css = STRBUF_INIT, title = STRBUF_INIT;
    const char *name = text_of(json_object_get(report, "name"));
    strbuf_adds(&css, style);
    strbuf_adds(&css, plot_style);
    for (size_t i = 0; name[i] != '\0'; i++)
        strbuf_addc(&title, name[i] == '_' ? ' ' : name[i]);
    const struct html_page page = {
        .lang = "en", .title = strbuf_str(&title), .style = strbuf_str(&css)};
    html_begin(out, &page);
    if (index)
        strbuf_adds(out, "<nav><a href=\"index.html\">All reports</a></nav>\n");
    strbuf_adds(out, "<h1>");
    words(out, name, true);
    strbuf_adds(out, "</h1>\n<p>");
    sentence(out, text_of(json_object_get(report, "description")));
    strbuf_adds(out, "</p>\n");
    facts(out, report, market);
    if (json_array_size(json_object_get(report, "rows")) == 0) {
        strbuf_adds(out, "<p class=\"empty\">Nothing in this period.</p>\n");
    } else {
        report_chart(report, out);
        table(out, report);
    }
    html_end(out);
    strbuf_done(&css);
    strbuf_done(&title);
}

void report_index(const json_t *reports, const char *market, const json_t *rows,
                  struct strbuf *out)
{
    const struct html_page page = {.lang = "en", .title = "Reports", .style = style};
    json_t *r;
    size_t i;
    html_begin(out, &page);
    strbuf_adds(out, "<h1>Reports</h1>\n<div class=\"facts\">");
    fact(out, "Market", market);
    strbuf_adds(out, "</div>\n<h2>All</h2>\n<table><thead><tr><th>Report</th><th>What"
                     "</th><th class=\"number\">Rows</th></tr></thead>\n<tbody>\n");
    json_array_foreach(reports, i, r)
    {
        const char *name = text_of(json_object_get(r, "name"));
        strbuf_adds(out, "<tr><td><a href=\"");
        html_text(out, name);
        strbuf_adds(out, ".html\">");
        words(out, name, true);
        strbuf_adds(out, "</a></td><td>");
        sentence(out, text_of(json_object_get(r, "summary")));
        strbuf_adds(out, "</td>");
        cell(out, json_object_get(rows, name), true, 0);
        strbuf_adds(out, "</tr>\n");
    }
    strbuf_adds(out, "</tbody></table>\n");
    html_end(out);
}
