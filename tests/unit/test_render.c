/* Tests of rendering: exact tables, cards, CSV and reports; widths; hostile text. */
#include "client/cli/render.h"
#include "client/cli/chart.h"
#include "client/cli/plan_view.h"

#include "tests/unit/unit.h"

static int tokyo(int64_t us)
{
    (void)us;
    return 9 * 3600;
}

static const struct render_opts table = {RENDER_TABLE, tokyo, false, -1};
static const struct render_opts csv = {RENDER_CSV, tokyo, false, -1};

static json_t *parse(const char *text)
{
    json_error_t why;
    json_t *v = json_loads(text, 0, &why);
    ck_assert_msg(v != NULL, "%s: %s", why.text, text);
    return v;
}

#define SAME(want, out)                           \
    do {                                          \
        ck_assert_str_eq(strbuf_str(&out), want); \
        strbuf_done(&out);                        \
    } while (0)

static const struct render_col offers[] = {
    {"SITE", "site", RENDER_TEXT, NULL},
    {"FREE", "free", RENDER_INT, NULL},
    {"START", "start", RENDER_TIME, NULL},
    {"RTT", "rtt_us", RENDER_RTT, NULL},
    {"SLOWDOWN", "slowdown", RENDER_SLOWDOWN, NULL},
    {"PRICE/H", "price.hour", RENDER_MICRO, "price.currency"},
    {"TOTAL", "price.total", RENDER_MICRO, "price.currency"},
};
static const char offers_json[] =
    "[{\"site\":\"osaka\",\"free\":8,\"start\":\"2026-11-22T22:00:00Z\",\"rtt_us\":"
    "5415,"
    "\"slowdown\":1.0,\"price\":{\"hour\":2120000,\"total\":8480000,\"currency\":"
    "\"USD\"}},"
    "{\"site\":\"fukuoka\",\"free\":16,\"start\":\"2026-11-22T23:30:00.5Z\","
    "\"rtt_us\":null,\"slowdown\":1.174,\"price\":{\"hour\":1990000,\"total\":7960000,"
    "\"currency\":\"USD\"}}]";

START_TEST(test_table)
{
    struct strbuf out = STRBUF_INIT;
    json_t *rows = parse(offers_json);
    struct render_opts marked = table;
    marked.mark = 0;
    render_rows(rows, offers, RENDER_COUNT_OF(offers), &marked, &out);
    SAME("  SITE     FREE  START                         RTT  SLOWDOWN   PRICE/H     "
         "TOTAL\n"
         "* osaka       8  2026-11-23 07:00:00+09:00  5.4 ms      1.00  2.12 USD  8.48 "
         "USD\n"
         "  fukuoka    16  2026-11-23 08:30:00+09:00       -      1.17  1.99 USD  7.96 "
         "USD\n",
         out);
    json_decref(rows);
}
END_TEST

START_TEST(test_csv)
{
    struct strbuf out = STRBUF_INIT;
    json_t *rows = parse(offers_json);
    render_rows(rows, offers, RENDER_COUNT_OF(offers), &csv, &out);
    SAME("site,free,start,rtt_us,slowdown,price_hour,price_currency,price_total\r\n"
         "osaka,8,2026-11-22T22:00:00Z,5415,1.0,2120000,USD,8480000\r\n"
         "fukuoka,16,2026-11-22T23:30:00.5Z,,1.174,1990000,USD,7960000\r\n",
         out);
    json_decref(rows);
}
END_TEST

START_TEST(test_csv_quotes)
{
    static const struct render_col cols[] = {
        {"A", "a", RENDER_TEXT, NULL},
        {"M", "m", RENDER_MONEY, NULL},
        {"L", "l", RENDER_LIST, NULL},
    };
    struct strbuf out = STRBUF_INIT;
    json_t *rows = parse("[{\"a\":\"x,\\\"y\\\"\\nz\",\"m\":{\"currency\":\"JPY\","
                         "\"micro\":-5},\"l\":[\"p\",\"q\",\"p\"]},{\"l\":[]}]");
    render_rows(rows, cols, RENDER_COUNT_OF(cols), &csv, &out);
    SAME("a,m_micro,m_currency,l\r\n\"x,\"\"y\"\"\nz\",-5,JPY,\"p,q\"\r\n,,,\r\n", out);
    json_decref(rows);
}
END_TEST

/* What somebody named his GPU is no formula in the bookkeeper's spreadsheet. */
START_TEST(test_csv_formula)
{
    static const struct render_col cols[] = {{"A", "a", RENDER_TEXT, NULL}};
    struct strbuf out = STRBUF_INIT;
    json_t *rows = parse("[{\"a\":\"=1+1\"},{\"a\":\"@x\"},{\"a\":\"-cmd|'/C'!A0\"},"
                         "{\"a\":\"+2 ms\"},{\"a\":\"-\"},{\"a\":\"-12.5\"}]");
    render_rows(rows, cols, RENDER_COUNT_OF(cols), &csv, &out);
    SAME("a\r\n\"'=1+1\"\r\n\"'@x\"\r\n\"'-cmd|'/C'!A0\"\r\n+2 ms\r\n-\r\n-12.5\r\n",
         out);
    json_decref(rows);
}
END_TEST

START_TEST(test_card)
{
    static const struct render_col cols[] = {
        {"Name", "name", RENDER_TEXT, NULL},
        {"Sites", "places", RENDER_LIST, "site"},
        {"GPUs", "places", RENDER_COUNT, "gpus"},
        {"Balance", "balance", RENDER_MONEY, NULL},
        {"Nothing", "nothing.at.all", RENDER_TEXT, NULL},
        {"Window", "window_s", RENDER_SECONDS, "the whole lease"},
    };
    struct strbuf out = STRBUF_INIT;
    json_t *v = parse(
        "{\"name\":\"\",\"places\":[{\"site\":\"a\",\"gpus\":[1,2]},"
        "{\"site\":\"b\",\"gpus\":[3]},{\"site\":\"a\",\"gpus\":[]}],"
        "\"balance\":{\"currency\":\"JPY\",\"micro\":4000000000},\"window_s\":0}");
    render_card(v, cols, RENDER_COUNT_OF(cols), &table, &out);
    SAME("Name     -\nSites    a,b\nGPUs     3\nBalance  4000 JPY\nNothing  -\n"
         "Window   the whole lease\n",
         out);
    json_object_set_new(v, "window_s", json_integer(60));
    render_card(v, &cols[5], 1, &table, &out);
    SAME("Window  1m\n", out);
    json_decref(v);
}
END_TEST

START_TEST(test_kinds)
{
    static const struct {
        enum render_kind kind;
        const char *json, *want;
    } cases[] = {
        {RENDER_RTT, "11514", "11.5 ms"},
        {RENDER_RTT, "42", "0.04 ms"},
        {RENDER_RTT, "200", "0.2 ms"},
        {RENDER_SECONDS, "5400", "1h30m"},
        {RENDER_BYTES, "12000000000000", "12.0 TB"},
        {RENDER_BYTES, "999", "999 B"},
        {RENDER_GPU_MS, "14400000", "4.000"},
        {RENDER_SHARE, "0.9995", "99.95 %"},
        {RENDER_PPM, "50000", "5.00 %"},
        {RENDER_YES, "true", "yes"},
        {RENDER_TIME, "\"2026-02-30T00:00:00Z\"", "2026-02-30T00:00:00Z"},
        {RENDER_TIME, "\"1969-12-31T23:59:59Z\"", "1969-12-31T23:59:59Z"},
        {RENDER_MONEY, "{\"currency\":\"USD\",\"micro\":1999500}", "1.9995 USD"},
        {RENDER_TEXT, "12.5", "12.5"},
        {RENDER_TEXT, "null", "-"},
    };
    for (size_t i = 0; i < RENDER_COUNT_OF(cases); i++) {
        const struct render_col col = {"", "v", cases[i].kind, NULL};
        struct strbuf out = STRBUF_INIT;
        json_t *v =
            json_pack("{s:o}", "v", json_loads(cases[i].json, JSON_DECODE_ANY, NULL));
        render_cell(v, &col, tokyo, &out);
        SAME(cases[i].want, out);
        json_decref(v);
    }
}
END_TEST

START_TEST(test_about)
{
    static const struct {
        int64_t micro;
        const char *currency, *want;
    } cases[] = {
        {2613375, "USD", "2.61 USD"},   {2615000, "USD", "2.62 USD"},
        {-2615000, "USD", "-2.62 USD"}, {350499999, "JPY", "350 JPY"},
        {350500000, "JPY", "351 JPY"},
    };
    static const struct render_col col = {"", "v", RENDER_ABOUT, "c"};
    for (size_t i = 0; i < RENDER_COUNT_OF(cases); i++) {
        struct strbuf out = STRBUF_INIT;
        json_t *v = json_pack("{s:I, s:s}", "v", (json_int_t)cases[i].micro, "c",
                              cases[i].currency);
        render_cell(v, &col, tokyo, &out);
        SAME(cases[i].want, out);
        json_decref(v);
    }
}
END_TEST

START_TEST(test_rtt_source)
{
    static const struct render_col col = {"", "v", RENDER_RTT, "s"};
    static const char *const cases[][2] = {
        {"{\"v\":5415,\"s\":\"measured\"}", "5.4 ms"},
        {"{\"v\":5415,\"s\":\"topology\"}", "~5.4 ms"},
        {"{\"v\":5415}", "5.4 ms"},
        {"{\"v\":null,\"s\":null}", "-"},
    };
    for (size_t i = 0; i < RENDER_COUNT_OF(cases); i++) {
        struct strbuf out = STRBUF_INIT;
        json_t *v = parse(cases[i][0]);
        render_cell(v, &col, tokyo, &out);
        SAME(cases[i][1], out);
        json_decref(v);
    }
}
END_TEST

START_TEST(test_sentence)
{
    static const char *const cases[][2] = {
        {"busy until 2026-11-22T15:09:56.267839Z (best 0)",
         "busy until 2026-11-23 00:09:56+09:00 (best 0)"},
        {"2026-11-22T15:00:00Z", "2026-11-23 00:00:00+09:00"},
        {"2026-13-22T15:00:00Z is bad", "2026-13-22T15:00:00Z is bad"},
        {"2026-11-22T15:00:00", "2026-11-22T15:00:00"},
        {"a\nb", "a?b"},
        {"", ""},
    };
    for (size_t i = 0; i < RENDER_COUNT_OF(cases); i++) {
        struct strbuf out = STRBUF_INIT;
        render_sentence(&out, cases[i][0], tokyo);
        SAME(cases[i][1], out);
    }
}
END_TEST

START_TEST(test_width)
{
    ck_assert_uint_eq(render_width("abc"), 3);
    ck_assert_uint_eq(render_width("\xe5\x8c\x97\xe6\xb5\xb7"), 4); /* 北海 */
    ck_assert_uint_eq(render_width("e\xcc\x81"), 1);                /* e + acute */
    ck_assert_uint_eq(render_width("\xc3\xa9t\xc3\xa9"), 3);        /* été */
    ck_assert_uint_eq(render_width("\xff"), 1);
}
END_TEST

/* What a server or provider could put into a name must not drive a terminal. */
START_TEST(test_hostile)
{
    static const char *const cases[][2] = {
        {"a\033[2Jb", "a?[2Jb"},
        {"a\nb\r\tc", "a?b??c"},
        {"\xc2\x9b"
         "31m",
         "?31m"}, /* C1 CSI */
        {"\xe2\x80\xae"
         "x",
         "?x"},                       /* right-to-left override */
        {"\xc0\xaf", "??"},           /* overlong slash */
        {"\xed\xa0\x80", "???"},      /* surrogate */
        {"\xf5\x80\x80\x80", "????"}, /* above U+10FFFF */
        {"\xe5\x8c", "??"},           /* cut */
        {"\xe5\x8c\x97", "\xe5\x8c\x97"},
    };
    for (size_t i = 0; i < RENDER_COUNT_OF(cases); i++) {
        struct strbuf out = STRBUF_INIT;
        render_clean(&out, cases[i][0]);
        SAME(cases[i][1], out);
    }
}
END_TEST

START_TEST(test_report)
{
    struct strbuf out = STRBUF_INIT;
    json_t *v = parse("{\"name\":\"u\",\"columns\":[{\"name\":\"hour\",\"unit\":\"\"},{"
                      "\"name\":\"site\"},"
                      "{\"name\":\"busy\",\"unit\":\"%\"}],\"rows\":[[\"2026-11-22T22:"
                      "00:00Z\",\"osaka\","
                      "null],[\"2026-11-22T23:00:00Z\",\"oita\",12.5]]}");
    render_report(v, &table, &out);
    SAME("hour                       site   busy (%)\n"
         "2026-11-23 07:00:00+09:00  osaka         -\n"
         "2026-11-23 08:00:00+09:00  oita       12.5\n",
         out);
    render_report(v, &csv, &out);
    SAME("hour,site,busy\r\n2026-11-22T22:00:00Z,osaka,\r\n"
         "2026-11-22T23:00:00Z,oita,12.5\r\n",
         out);
    json_decref(v);
    /* days and months are those of UTC; a time that is none of them stays one */
    v = parse(
        "{\"columns\":[{\"name\":\"day\"},{\"name\":\"cohort\"},{\"name\":\"hour\"}],"
        "\"rows\":[[\"2026-11-22T00:00:00+00:00\",\"2026-11-01T00:00:00+00:00\","
        "\"2026-11-22T00:00:00+00:00\"],[\"2026-11-22T01:00:00+00:00\",null,null]]}");
    render_report(v, &table, &out);
    SAME("day                        cohort      hour\n"
         "2026-11-22                 2026-11-01  2026-11-22 09:00:00+09:00\n"
         "2026-11-22 10:00:00+09:00  -           -\n",
         out);
    render_report(v, &csv, &out);
    SAME("day,cohort,hour\r\n2026-11-22T00:00:00+00:00,2026-11-01T00:00:00+00:00,"
         "2026-11-22T00:00:00+00:00\r\n2026-11-22T01:00:00+00:00,,\r\n",
         out);
    json_decref(v);
}
END_TEST

START_TEST(test_tree)
{
    struct strbuf out = STRBUF_INIT;
    json_t *v = parse("{\"version\":\"0.1.0\",\"database\":{\"ok\":true,\"size\":12,"
                      "\"size_bytes\":12000},\"after\":1,"
                      "\"nodes\":[{\"state\":\"up\",\"count\":3}],\"empty\":[]}");
    render_tree(v, &table, &out);
    SAME("name                 value\n"
         "version              0.1.0\n"
         "after                1\n"
         "empty                -\n"
         "database.ok          yes\n"
         "database.size        12\n"
         "database.size_bytes  12.0 kB\n"
         "\nnodes\n"
         "state  count\n"
         "up         3\n",
         out);
    json_decref(v);
}
END_TEST

START_TEST(test_colour)
{
    struct strbuf out = STRBUF_INIT;
    json_t *rows = parse("[{\"a\":\"x\"}]");
    static const struct render_col cols[] = {{"A", "a", RENDER_TEXT, NULL}};
    struct render_opts bold = table;
    bold.colour = true;
    render_rows(rows, cols, 1, &bold, &out);
    SAME("\033[1mA\033[0m\nx\n", out);
    bold.format = RENDER_CSV;
    render_rows(rows, cols, 1, &bold, &out);
    SAME("a\r\nx\r\n", out);
    json_decref(rows);
}
END_TEST

/* ---- plans ------------------------------------------------------------------------
 */

static const char gang_json[] =
    "{\"allocations\":[{\"rank\":0,\"site\":\"tokyo\",\"provider\":\"p\",\"node\":"
    "\"t1\","
    "\"gpus\":[\"g0\",\"g1\"],\"start\":\"2026-11-22T22:00:00Z\",\"end\":"
    "\"2026-11-22T23:00:00Z\"},{\"rank\":1,\"site\":\"osaka\",\"provider\":\"q\","
    "\"node\":\"o1\",\"gpus\":[\"g2\",\"g3\"],\"start\":\"2026-11-22T22:00:00Z\","
    "\"end\":\"2026-11-22T23:00:00Z\"}],\"coordinator\":\"tokyo\",\"groups\":[{"
    "\"data\":"
    "\"a\",\"site\":\"tokyo\",\"nodes\":1},{\"data\":\"b\",\"site\":\"osaka\","
    "\"nodes\":"
    "1}],\"paths\":[{\"name\":\"t-o\",\"from\":\"tokyo\",\"to\":\"osaka\",\"lanes\":4,"
    "\"bandwidth_Bps\":5000000000,\"start\":\"2026-11-22T21:55:00Z\",\"end\":"
    "\"2026-11-22T23:00:00Z\",\"state\":\"planned\"}],\"data\":[]}";

START_TEST(test_plan_of_a_gang)
{
    struct strbuf out = STRBUF_INIT;
    json_t *resv = parse(gang_json);
    plan_view(resv, false, &table, &out);
    SAME("RANK  SITE   PROVIDER  NODE  GPUS  START                      END\n"
         "   0  tokyo  p         t1       2  2026-11-23 07:00:00+09:00  2026-11-23 "
         "08:00:00+09:00\n"
         "   1  osaka  q         o1       2  2026-11-23 07:00:00+09:00  2026-11-23 "
         "08:00:00+09:00\n"
         "\n"
         "GROUP NEAR  SITE   NODES  COORDINATOR\n"
         "a           tokyo      1  yes\n"
         "b           osaka      1  no\n"
         "\n"
         "PATH  FROM   TO     LANES       RATE  START                      END         "
         "  "
         "             STATE\n"
         "t-o   tokyo  osaka      4  40 Gbit/s  2026-11-23 06:55:00+09:00  2026-11-23 "
         "08:00:00+09:00  planned\n"
         "\n",
         out);
    json_array_remove(json_object_get(resv, "allocations"), 1);
    json_object_set_new(resv, "groups", json_array());
    json_object_set_new(resv, "paths", json_array());
    plan_view(resv, true, &table, &out);
    SAME("SITE   PROVIDER  NODE  GPU\n"
         "tokyo  p         t1    g0\n"
         "tokyo  p         t1    g1\n"
         "\n",
         out);
    json_decref(resv);
}
END_TEST

START_TEST(test_notes)
{
    static const char *const cases[][2] = {
        {"{\"waiting\":null,\"fault\":null,\"preempted_by\":null}", ""},
        {"{\"waiting\":{\"position\":3,\"predicted_start\":\"2026-11-22T22:00:00Z\","
         "\"since\":\"2026-11-22T20:00:00Z\",\"until\":\"2026-11-23T22:00:00Z\","
         "\"why\":"
         "\"funds\"}}",
         "waits, number 3 in line, start predicted for 2026-11-23 07:00:00+09:00, "
         "given "
         "up at 2026-11-24 07:00:00+09:00: funds"},
        {"{\"waiting\":{\"position\":null,\"predicted_start\":null,\"why\":\"\"}}",
         "waits, no start can be predicted yet"},
        {"{\"fault\":\"node t1 at tokyo lost\"}", "node t1 at tokyo lost"},
        {"{\"fault\":\"preempted\",\"preempted_by\":\"firm demand\"}",
         "preempted; preempted by firm demand"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct strbuf out = STRBUF_INIT;
        json_t *resv = parse(cases[i][0]);
        plan_view_note(resv, tokyo, &out);
        SAME(cases[i][1], out);
        json_decref(resv);
    }
}
END_TEST

/* ---- the calendar's chart ----------------------------------------------------------
 */

START_TEST(test_chart)
{
    struct strbuf out = STRBUF_INIT;
    json_t *steps = json_array();
    static const int free[] = {0, 1, 2, 8, 9, 15, 16, 16};
    for (size_t i = 0; i < 8; i++)
        json_array_append_new(steps, json_pack("{s:i,s:i}", "free", free[i],
                                               "best_node", free[i] > 8 ? 8 : free[i]));
    json_t *reply =
        json_pack("{s:s,s:s,s:[{s:s,s:s,s:s,s:i,s:o}]}", "from", "2026-11-22T22:00:00Z",
                  "step", "1h", "offers", "site", "tokyo", "provider", "p", "gpu_model",
                  "H100", "total", 16, "steps", steps);
    chart_calendar(reply, true, &table, &out);
    SAME("From 2026-11-23 07:00:00+09:00, each column 1h\n"
         "SITE   PROVIDER  GPU   TOTAL        07:00 13:00\n"
         "tokyo  p         H100     16  free  ·▁▁▄▅███\n"
         "                              node  .1288888\n",
         out);
    chart_calendar(reply, false, &table, &out);
    ck_assert_ptr_nonnull(strstr(strbuf_str(&out), "free  .1256999\n"));
    strbuf_done(&out);
    for (int i = 0; i < 100; i++)
        json_array_append_new(steps,
                              json_pack("{s:i,s:i}", "free", 16, "best_node", 40));
    json_object_set_new(reply, "step", json_string("4h"));
    chart_calendar(reply, true, &table, &out);
    ck_assert_ptr_nonnull(strstr(strbuf_str(&out), "11-23 11-24 11-25"));
    ck_assert_ptr_nonnull(strstr(strbuf_str(&out), "\nFrom 2026-12-05 07:00:00+09:00"));
    ck_assert_ptr_nonnull(strstr(strbuf_str(&out), "++++\n"));
    strbuf_done(&out);
    json_decref(reply);
}
END_TEST

UNIT_MAIN("render",
          UNIT_CASE(test_table) UNIT_CASE(test_csv) UNIT_CASE(test_csv_quotes)
              UNIT_CASE(test_csv_formula) UNIT_CASE(test_card) UNIT_CASE(test_kinds)
                  UNIT_CASE(test_about) UNIT_CASE(test_sentence)
                      UNIT_CASE(test_rtt_source) UNIT_CASE(test_width)
                          UNIT_CASE(test_hostile) UNIT_CASE(test_report)
                              UNIT_CASE(test_tree) UNIT_CASE(test_colour)
                                  UNIT_CASE(test_plan_of_a_gang) UNIT_CASE(test_notes)
                                      UNIT_CASE(test_chart))
