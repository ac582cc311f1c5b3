/* Reports as pages: they stand alone, are well formed whatever names are in them, and
 * their charts have what the rows say. */
#include <math.h>
#include <string.h>

#include "client/cli/plot.h"
#include "client/cli/report_page.h"
#include "tests/unit/unit.h"

static char *page_of(const char *json)
{
    struct strbuf out = STRBUF_INIT;
    json_error_t e;
    json_t *report = json_loads(json, 0, &e);
    ck_assert_msg(report != NULL, "%s: %s", e.text, json);
    report_page(report, "https://m.example:8443", true, &out);
    json_decref(report);
    return strbuf_steal(&out);
}

static size_t count(const char *text, const char *what)
{
    size_t n = 0;
    for (const char *p = text; (p = strstr(p, what)) != NULL; p += strlen(what))
        n++;
    return n;
}

/* Every tag is closed in its order; nothing is fetched from anywhere. */
static void check_page(const char *page)
{
    static const char *const assets[] = {
        "<script", "<link", "<img", "src=", "@import", "url(", "href=\"http"};
    char stack[64][16];
    int depth = 0;
    for (size_t i = 0; i < sizeof assets / sizeof assets[0]; i++)
        ck_assert_msg(strstr(page, assets[i]) == NULL, "%s", assets[i]);
    for (const char *p = page; (p = strchr(p, '<')) != NULL; p++) {
        const char *end = strchr(p, '>');
        ck_assert_ptr_nonnull(end);
        if (p[1] == '!' || end[-1] == '/')
            continue;
        size_t len =
            strspn(p + 1 + (p[1] == '/'), "abcdefghijklmnopqrstuvwxyz0123456789");
        ck_assert_msg(len > 0 && len < 16, "%.20s", p);
        if (p[1] == '/') {
            ck_assert_msg(depth > 0 && strlen(stack[depth - 1]) == len &&
                              strncmp(stack[depth - 1], p + 2, len) == 0,
                          "%.20s closes %s", p, depth > 0 ? stack[depth - 1] : "");
            depth--;
        } else {
            ck_assert_int_lt(depth, 64);
            memcpy(stack[depth], p + 1, len);
            stack[depth++][len] = '\0';
        }
    }
    ck_assert_int_eq(depth, 0);
}

START_TEST(numbers)
{
    static const struct {
        double v;
        int digits;
        const char *want;
    } t[] = {
        {0, 2, "0"},
        {1234567.5, 2, "1,234,567.5"},
        {999.999, 2, "1,000"},
        {-1234.25, 1,
         "\xe2\x88\x92"
         "1,234.2"},
        {-0.001, 2, "0"},
        {100, 0, "100"},
        {0.000125, 6, "0.000125"},
    };
    for (size_t i = 0; i < sizeof t / sizeof t[0]; i++) {
        struct strbuf b = STRBUF_INIT;
        plot_number(&b, t[i].v, t[i].digits);
        ck_assert_str_eq(strbuf_str(&b), t[i].want);
        strbuf_done(&b);
    }
}
END_TEST

#define COLUMNS                                                                    \
    "\"columns\": [{\"name\": \"day\", \"unit\": \"\"}, {\"name\": \"provider\", " \
    "\"unit\": \"\"}, {\"name\": \"currency\", \"unit\": \"\"}, {\"name\": "       \
    "\"revenue\", \"unit\": \"currency\"}]"
#define HOSTILE "<script>alert(1)</script>\\\"'&"

/* Names are anybody's: they stay text, in the table, the legend and the titles. */
START_TEST(hostile)
{
    char *page = page_of(
        "{\"name\": \"" HOSTILE "\", \"description\": \"" HOSTILE
        "\", \"fresh_as_of\": \"" HOSTILE "\", \"from\": \"" HOSTILE
        "\", \"filters\": {\"site\": \"" HOSTILE "\"}, \"chart\": {\"kind\": \"line\", "
        "\"x\": \"day\", \"y\": [\"revenue\"], \"series\": \"provider\"}, " COLUMNS
        ", \"rows\": [[\"2026-11-01T00:00:00+00:00\", \"" HOSTILE
        "\", \"JPY\", 5], [\"2026-11-02T00:00:00+00:00\", \"b\", \"JPY\", 7]]}");
    check_page(page);
    ck_assert_uint_ge(count(page, "&lt;script&gt;"), 6);
    free(page);
}
END_TEST

START_TEST(lines)
{
    char *page = page_of(
        "{\"name\": \"provider_revenue\", \"description\": \"d\", \"fresh_as_of\": "
        "\"2026-11-23T05:00:00+00:00\", \"filters\": {}, \"chart\": {\"kind\": "
        "\"line\", "
        "\"x\": \"day\", \"y\": [\"revenue\"], \"series\": \"provider\"}, " COLUMNS
        ", \"rows\": [[\"2026-11-01T00:00:00+00:00\", \"a\", \"JPY\", 1000], "
        "[\"2026-11-01T00:00:00+00:00\", \"a\", \"JPY\", 500], "
        "[\"2026-11-02T00:00:00+00:00\", \"b\", \"JPY\", 100], "
        "[\"2026-11-03T00:00:00+00:00\", \"a\", \"JPY\", 1200], "
        "[\"2026-11-03T00:00:00+00:00\", \"usd-only\", \"USD\", 99999999]]}");
    check_page(page);
    ck_assert_ptr_nonnull(strstr(page, "<h1>Provider revenue</h1>"));
    ck_assert_ptr_nonnull(strstr(page, "Revenue (JPY) by provider"));
    ck_assert_ptr_nonnull(strstr(page, "2026-11-23 05:00"));
    ck_assert_uint_eq(count(page, "<path"), 2); /* dollars are not on the yen's axis */
    /* a: 1,500 on the 1st, nothing on the 2nd: the line is broken; the axis ends
     * at 1.5k */
    ck_assert_ptr_nonnull(strstr(page, "d=\"M58.0 10.0M708.0 "));
    ck_assert_uint_eq(count(page, "<circle"), 3); /* points without a line */
    ck_assert_uint_eq(count(page, "<tr>"), 6);
    ck_assert_ptr_nonnull(strstr(page, "99,999,999"));
    free(page);
}
END_TEST

#define LINE_OF_PROVIDERS                                                            \
    "{\"name\": \"x\", \"description\": \"d\", \"fresh_as_of\": null, \"filters\": " \
    "{}, "                                                                           \
    "\"chart\": {\"kind\": \"line\", \"x\": \"day\", \"y\": [\"revenue\"], "         \
    "\"series\": "                                                                   \
    "\"provider\"}, " COLUMNS ", \"rows\": "

/* A market's first day: points that show, at a date; a row of no provider has a name in
 * the legend. */
START_TEST(one_day)
{
    char *page = page_of(LINE_OF_PROVIDERS
                         "[[\"2026-11-01T00:00:00+00:00\", \"a\", \"JPY\", 5], "
                         "[\"2026-11-01T00:00:00+00:00\", \"\", \"JPY\", 7]]}");
    check_page(page);
    ck_assert_uint_eq(count(page, "<circle"), 2);
    ck_assert_ptr_nonnull(strstr(page, ">11-01</text>"));
    ck_assert_ptr_null(strstr(page, ">00:00</text>"));
    ck_assert_ptr_nonnull(strstr(page, "</i>none</li>"));
    free(page);
    page = page_of(LINE_OF_PROVIDERS
                   "[[\"2026-11-01T05:00:00+00:00\", \"a\", \"JPY\", 5]]}");
    check_page(page);
    ck_assert_ptr_nonnull(strstr(page, ">05:00</text>"));
    ck_assert_ptr_nonnull(strstr(page, "</i>a</li>")); /* one line is named too */
    free(page);
}
END_TEST

/* Rows whose values are all empty have no axes from 0 to 1. */
START_TEST(no_values)
{
    char *page = page_of(LINE_OF_PROVIDERS
                         "[[\"2026-11-01T00:00:00+00:00\", \"a\", \"JPY\", null]]}");
    check_page(page);
    ck_assert_ptr_nonnull(strstr(page, "No row has a value to be drawn"));
    ck_assert_ptr_null(strstr(page, "<svg"));
    free(page);
}
END_TEST

START_TEST(heat_and_bars)
{
    char *page = page_of(
        "{\"name\": \"rtt_matrix\", \"description\": \"d\", \"fresh_as_of\": null, "
        "\"filters\": {}, \"chart\": {\"kind\": \"heat\", \"x\": \"hour\", \"y\": "
        "[\"weekday\"], \"value\": \"asked\"}, \"columns\": [{\"name\": \"weekday\", "
        "\"unit\": \"\"}, {\"name\": \"hour\", \"unit\": \"\"}, {\"name\": \"asked\", "
        "\"unit\": \"GPU-hours\"}], \"rows\": [[1, 0, 5], [1, 10, 6], [7, 2, 10]]}");
    check_page(page);
    ck_assert_ptr_nonnull(strstr(page, "<h1>RTT matrix</h1>"));
    ck_assert_ptr_nonnull(strstr(page, "never rolled up"));
    ck_assert_uint_eq(count(page, "<rect"), 6); /* 2 days by 3 hours, in their order */
    ck_assert_ptr_nonnull(strstr(page, "Sunday, 2: 10"));
    ck_assert(strstr(page, ">2</text>") < strstr(page, ">10</text>"));
    free(page);
    page = page_of(
        "{\"name\": \"x\", \"description\": \"d\", \"fresh_as_of\": null, \"filters\": "
        "{}, \"chart\": {\"kind\": \"bar\", \"x\": \"tenant\", \"y\": [\"spent\"]}, "
        "\"columns\": [{\"name\": \"tenant\", \"unit\": \"\"}, {\"name\": \"spent\", "
        "\"unit\": \"\"}], \"rows\": [[\"a\", 10], [\"b\", -3], [\"c\", null]]}");
    check_page(page);
    ck_assert_uint_eq(count(page, "<rect"), 2);
    free(page);
}
END_TEST

/* A chart that does not fit, no rows, no columns: a page all the same. */
START_TEST(nothing_to_draw)
{
    static const char *const charts[] = {
        "null", "{}", "{\"kind\": \"line\", \"x\": \"gone\", \"y\": [\"revenue\"]}",
        "{\"kind\": \"heat\", \"x\": \"day\", \"y\": [\"provider\"], \"value\": 5}",
        "{\"kind\": \"line\", \"x\": \"provider\", \"y\": [\"revenue\"]}"};
    char json[1000];
    for (size_t i = 0; i < sizeof charts / sizeof charts[0]; i++) {
        snprintf(json, sizeof json,
                 "{\"name\": \"x\", \"description\": \"\", \"filters\": {}, \"chart\": "
                 "%s, " COLUMNS ", \"rows\": [[\"2026-11-01T00:00:00+00:00\", \"a\", "
                 "\"JPY\", 5]]}",
                 charts[i]);
        char *page = page_of(json);
        check_page(page);
        ck_assert_ptr_null(strstr(page, "<path"));
        free(page);
    }
    char *page = page_of("{\"name\": \"x\", \"columns\": [], \"rows\": []}");
    check_page(page);
    ck_assert_ptr_nonnull(strstr(page, "Nothing in this period"));
    free(page);
}
END_TEST

UNIT_MAIN("report_page",
          UNIT_CASE(numbers) UNIT_CASE(hostile) UNIT_CASE(lines) UNIT_CASE(one_day)
              UNIT_CASE(no_values) UNIT_CASE(heat_and_bars) UNIT_CASE(nothing_to_draw))
