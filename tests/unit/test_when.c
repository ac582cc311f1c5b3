/* Tests of times, ranges and sizes as typed, and of the request object and its query.
 */
#include "client/cli/when.h"

#include <inttypes.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/query.h"
#include "client/lib/timefmt.h"
#include "tests/unit/unit.h"

/* Berlin in 2026: +1, summer +2 from 29 March 01:00 UTC to 25 October 01:00 UTC. */
static int berlin(int64_t us)
{
    int64_t spring = INT64_C(1774746000) * US_PER_S;
    int64_t autumn = INT64_C(1792890000) * US_PER_S;
    return us >= spring && us < autumn ? 7200 : 3600;
}

/* 2026-11-22T22:00:00Z */
static const struct when_env env = {INT64_C(1795384800) * US_PER_S, berlin};

static void is_time(const char *text, const char *want_utc)
{
    struct err err = {ERR_NONE, ""};
    char got[TIMEFMT_MAX];
    int64_t us;
    ck_assert_msg(when_parse(text, &env, &us, &err) == 0, "%s: %s", text, err.text);
    timefmt_utc(us, got);
    ck_assert_msg(strcmp(got, want_utc) == 0, "%s: %s, not %s", text, got, want_utc);
}

static void no_time(const char *text, const char *why)
{
    struct err err = {ERR_NONE, ""};
    int64_t us = 42;
    ck_assert_msg(when_parse(text, &env, &us, &err) < 0, "%s was accepted", text);
    ck_assert_int_eq(us, 42);
    ck_assert_int_eq(err.code, ERR_USAGE);
    ck_assert_msg(strstr(err.text, why) != NULL, "%s: %s", text, err.text);
}

START_TEST(test_times)
{
    is_time("now", "2026-11-22T22:00:00Z");
    is_time("+90m", "2026-11-22T23:30:00Z");
    is_time("2026-11-23T20:00:00+09:00", "2026-11-23T11:00:00Z");
    is_time("2026-11-23 20:00:00+09:00", "2026-11-23T11:00:00Z"); /* as we print it */
    is_time("2026-11-23T20:00Z", "2026-11-23T20:00:00Z");
    is_time("2026-11-23T20:00+09:00", "2026-11-23T11:00:00Z");
    is_time("2026-11-23T20:00", "2026-11-23T19:00:00Z");
    is_time("2026-07-01T20:00:30", "2026-07-01T18:00:30Z");
    is_time("2026-07-01", "2026-06-30T22:00:00Z");
    is_time("2026-03-29T03:00", "2026-03-29T01:00:00Z");
    is_time("2026-03-29T01:59", "2026-03-29T00:59:00Z");
    is_time("2026-10-25T03:00", "2026-10-25T02:00:00Z");
    is_time("2026-10-25T02:30:00+02:00", "2026-10-25T00:30:00Z");
}
END_TEST

START_TEST(test_bad_times)
{
    static const char *const bad[] = {"",
                                      "tomorrow",
                                      "20:00",
                                      "2026-02-30",
                                      "2026-11-23T25:00",
                                      "2026-11-23T20",
                                      "+",
                                      "+4",
                                      "2026-11-23x20:00",
                                      "2026-1-2",
                                      "1795384800",
                                      "2026-11-23T20:00:61",
                                      "2026-11-23T20:00:00+0900",
                                      "2026-11-23T20:00:00 JST"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        no_time(bad[i], "is no time");
    no_time("1900-01-01", "is before 1970");
    no_time("1969-12-31T23:59:59Z", "is before 1970");
    no_time("2026-03-29T02:30", "does not exist");
    no_time("2026-10-25T02:30", "comes twice");
}
END_TEST

START_TEST(test_ranges)
{
    struct err err;
    int64_t from, to;
    ck_assert_int_eq(when_range("now..+4h", &env, &from, &to, &err), 0);
    ck_assert_int_eq(to - from, 4 * US_PER_HOUR);
    ck_assert_int_eq(when_range("2026-11-24,2026-11-25", &env, &from, &to, &err), 0);
    ck_assert_int_eq(to - from, 24 * US_PER_HOUR);
    /* + counts from the start of the range, not from now. */
    ck_assert_int_eq(when_range("2026-11-24..+1h", &env, &from, &to, &err), 0);
    ck_assert_int_eq(to - from, US_PER_HOUR);
    ck_assert_int_lt(when_range("2026-11-24", &env, &from, &to, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "is no range"));
    ck_assert_int_lt(when_range("+4h..now", &env, &from, &to, &err), 0);
    ck_assert_ptr_nonnull(strstr(err.text, "later"));
    ck_assert_int_lt(when_range("now..now", &env, &from, &to, &err), 0);
    ck_assert_int_lt(when_range("now..soon", &env, &from, &to, &err), 0);
}
END_TEST

START_TEST(test_join_between)
{
    char *made = NULL;
    char *two[] = {"neargpu", "reserve", "--between", "+1h", "+5h", "--yes", NULL};
    ck_assert_int_eq(when_join_between(6, two, &env, &made), 5);
    ck_assert_str_eq(two[3], "+1h..+5h");
    ck_assert_str_eq(two[4], "--yes");
    ck_assert_ptr_null(two[5]);
    free(made);
    char *one[] = {"neargpu", "reserve", "--between", "+1h..+5h", "--yes", NULL};
    ck_assert_int_eq(when_join_between(5, one, &env, &made), 5);
    ck_assert_ptr_null(made);
    char *half[] = {"neargpu", "reserve", "--between", "+1h", "--yes", NULL};
    ck_assert_int_eq(when_join_between(5, half, &env, &made), 5);
    char *rest[] = {"neargpu", "run", "--", "--between", "+1h", "+5h", NULL};
    ck_assert_int_eq(when_join_between(6, rest, &env, &made), 6);
    ck_assert_ptr_null(made);
}
END_TEST

START_TEST(test_sizes)
{
    static const struct {
        const char *text;
        int64_t want; /* -1: refused */
    } cases[] = {
        {"80GB", INT64_C(80000000000)},
        {"80GiB", INT64_C(85899345920)},
        {"1.5kB", 1500},
        {"12TB", INT64_C(12000000000000)},
        {"4096", 4096},
        {"0B", 0},
        {"80gb", -1},
        {"", -1},
        {"GB", -1},
        {"-1GB", -1},
        {"80 GB", -1},
        {"99999999PB", -1},
        {"1.2.3GB", -1},
        {"1.GB", -1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t got = -1;
        int rc = when_parse_size(cases[i].text, &got, NULL);
        ck_assert_msg(got == cases[i].want && (rc == 0) == (cases[i].want >= 0),
                      "%s: %d, %" PRId64, cases[i].text, rc, got);
    }
}
END_TEST

START_TEST(test_shares)
{
    int64_t ppm;
    ck_assert_int_eq(when_parse_ppm("5%", &ppm, NULL), 0);
    ck_assert_int_eq(ppm, 50000);
    ck_assert_int_eq(when_parse_ppm("0.05", &ppm, NULL), 0);
    ck_assert_int_eq(ppm, 50000);
    ck_assert_int_eq(when_parse_ppm("12345ppm", &ppm, NULL), 0);
    ck_assert_int_eq(ppm, 12345);
    ck_assert_int_lt(when_parse_ppm("101%", &ppm, NULL), 0);
    ck_assert_int_lt(when_parse_ppm("5", &ppm, NULL), 0); /* 500 %: a slip */
    ck_assert_int_lt(when_parse_ppm("", &ppm, NULL), 0);
}
END_TEST

/* ---- the request object ---------------------------------------------------------- */

static int build(char **argv, json_t **ret, struct err *err)
{
    struct opt_values v = {0};
    int argc = 0;
    while (argv[argc] != NULL)
        argc++;
    int rc = opt_parse(&cli_program, argc, argv, &v, err);
    if (rc == 0)
        rc = query_build(&v, &env, "USD", ret, err);
    opt_done(&v);
    return rc;
}

START_TEST(test_request)
{
    char *argv[] = {"neargpu",
                    "offers",
                    "--near",
                    "a,b",
                    "--near",
                    "c",
                    "--gpu",
                    "H100",
                    "--gpus",
                    "8",
                    "--for",
                    "4h",
                    "--profile",
                    "llm",
                    "--max-rtt",
                    "15ms",
                    "--start",
                    "2026-11-24T00:00Z",
                    "--max-price",
                    "4000JPY",
                    "--max-price-per-hour",
                    "2.5",
                    "--max-slowdown",
                    "1.25",
                    "--residency",
                    "JP",
                    "--min-memory",
                    "80GB",
                    "--site",
                    "x y",
                    NULL};
    struct err err = {ERR_NONE, ""};
    json_t *rq = NULL;
    ck_assert_msg(build(argv, &rq, &err) == 0, "%s", err.text);
    char *text = json_dumps(rq, JSON_COMPACT | JSON_REAL_PRECISION(6));
    ck_assert_str_eq(
        text,
        "{\"data\":[\"a\",\"b\",\"c\"],\"gpus\":8,\"duration\":\"4h\",\"max_rtt\":"
        "\"15ms\","
        "\"start\":\"2026-11-24T00:00:00Z\",\"max_price\":{\"currency\":\"JPY\","
        "\"micro\":"
        "4000000000},\"max_price_per_gpu_hour\":{\"currency\":\"USD\",\"micro\":"
        "2500000},"
        "\"max_slowdown\":1.25,\"min_memory_mib\":76293,\"residency\":\"jp\",\"gpu\":"
        "\"H100\",\"profile\":\"llm\",\"site\":\"x y\"}");
    free(text);
    struct strbuf q = STRBUF_INIT;
    query_string(rq, &q);
    ck_assert_str_eq(
        strbuf_str(&q),
        "near=a,b,c&gpus=8&duration=4h&max_rtt=15ms&start=2026-11-24T00%3A00"
        "%3A00Z&max_price=4000JPY&max_price_per_gpu_hour=2.50USD&"
        "max_slowdown=1.250000&min_memory_mib=76293&residency=jp&gpu=H100&"
        "profile=llm&site=x%20y");
    strbuf_done(&q);
    json_decref(rq);
}
END_TEST

START_TEST(test_rates)
{
    static const struct {
        const char *text;
        int64_t want;
    } cases[] = {
        {"40Gbps", INT64_C(5000000000)},
        {"200MB/s", 200000000},
        {"8bps", 1},
        {"1.5GB/s", 1500000000},
        {"2Tbps", INT64_C(250000000000)},
        {"1bps", -1}, /* less than a byte */
        {"0Gbps", -1},
        {"40", -1},
        {"40 Gbps", -1},
        {"40gbps", -1},
        {"-1Gbps", -1},
        {"99999999999Tbps", -1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t got = -1;
        int rc = when_parse_rate(cases[i].text, &got, NULL);
        ck_assert_msg(got == cases[i].want && (rc == 0) == (cases[i].want >= 0),
                      "%s: %d, %" PRId64, cases[i].text, rc, got);
    }
}
END_TEST

START_TEST(test_spans)
{
    static const struct {
        const char *text;
        int64_t want;
    } cases[] = {
        {"11.6ms", 11600},
        {"0.1ms", 100},
        {"1.5h", 5400 * US_PER_S},
        {"1h30m", 5400 * US_PER_S},
        {"15ms", 15000},
        {"0.5us", -1},
        {"1.5", -1},
        {".5h", -1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int64_t got = -1;
        int rc = when_parse_span(cases[i].text, &got, NULL);
        ck_assert_msg(got == cases[i].want && (rc == 0) == (cases[i].want >= 0),
                      "%s: %d, %" PRId64, cases[i].text, rc, got);
    }
}
END_TEST

static void same_request(char **argv, const char *want, const char *want_query)
{
    struct err err = {ERR_NONE, ""};
    struct strbuf q = STRBUF_INIT;
    json_t *rq = NULL;
    ck_assert_msg(build(argv, &rq, &err) == 0, "%s", err.text);
    char *text = json_dumps(rq, JSON_COMPACT | JSON_REAL_PRECISION(6));
    ck_assert_str_eq(text, want);
    query_string(rq, &q);
    ck_assert_str_eq(strbuf_str(&q), want_query);
    strbuf_done(&q);
    free(text);
    json_decref(rq);
}

START_TEST(test_gang_request)
{
    char *gang[] = {"neargpu",
                    "reserve",
                    "--for=4h",
                    "--nodes=4",
                    "--together",
                    "any",
                    "--near=a",
                    "--demand=200MB/s",
                    "--bandwidth=40Gbps",
                    "--provider=p,q",
                    "--deny-provider",
                    "x",
                    "--deny-provider",
                    "y",
                    "--deny-site=s,t",
                    "--avoid-zone=z",
                    "--spread-zones",
                    "--spot",
                    "--wait-until",
                    "2026-11-30T00:00Z",
                    NULL};
    same_request(
        gang,
        "{\"data\":[\"a\"],\"nodes\":4,\"duration\":\"4h\",\"provider\":[\"p\","
        "\"q\"],\"deny_provider\":[\"x\",\"y\"],\"deny_site\":[\"s\",\"t\"],"
        "\"avoid_zone\":[\"z\"],\"together\":\"any\",\"bandwidth\":\"40Gbps\","
        "\"demand\":\"200MB/s\",\"spot\":true,\"spread_zones\":true,\"wait\":"
        "true,\"wait_until\":\"2026-11-30T00:00:00Z\"}",
        "near=a&nodes=4&duration=4h&provider=p,q&deny_provider=x,y&deny_site=s,"
        "t&avoid_zone=z&together=any&bandwidth=40Gbps&demand=200MB%2Fs&spot="
        "true&spread_zones=true&wait=true&wait_until=2026-11-30T00%3A00%3A00Z");
    char *federated[] = {"neargpu",
                         "quote",
                         "--for=4h",
                         "--federated",
                         "a,b",
                         "--federated=c",
                         "--custom=kind=stream,demand_Bps_per_gpu=2e8",
                         "--custom=au_min=0.9",
                         "--hold",
                         NULL};
    same_request(federated,
                 "{\"duration\":\"4h\",\"federated\":[\"a\",\"b\",\"c\"],\"custom\":{"
                 "\"kind\":\"stream\",\"demand_Bps_per_gpu\":2e8,\"au_min\":0.9},"
                 "\"hold\":true}",
                 "duration=4h&federated=a,b,c&custom=kind:stream,demand_Bps_per_gpu:"
                 "200000000.000000,au_min:0.900000&hold=true");
}
END_TEST

START_TEST(test_overrides)
{
    char *argv[] = {"neargpu",   "move",   "01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d",
                    "--site",    "osaka",  "--without=max-rtt",
                    "--without", "--near", NULL};
    char *twice[] = {
        "neargpu",      "move",           "01975b8a-5d2c-7c3e-9f10-8a6d2f0b1c4d",
        "--site=osaka", "--without=site", NULL};
    struct opt_values v = {0};
    struct err err = {ERR_NONE, ""};
    json_t *rq = NULL;
    ck_assert_msg(opt_parse(&cli_program, 8, argv, &v, &err) == 0, "%s", err.text);
    ck_assert_msg(query_overrides(&v, &env, "USD", &rq, &err) == 0, "%s", err.text);
    char *text = json_dumps(rq, JSON_COMPACT);
    ck_assert_str_eq(text, "{\"site\":\"osaka\",\"max_rtt\":null,\"data\":null}");
    free(text);
    json_decref(rq);
    opt_done(&v);
    ck_assert_msg(opt_parse(&cli_program, 5, twice, &v, &err) == 0, "%s", err.text);
    ck_assert_int_lt(query_overrides(&v, &env, "USD", &rq, &err), 0);
    opt_done(&v);
}
END_TEST

START_TEST(test_bad_requests)
{
    static char *const cases[][8] = {
        {"offers", NULL, "--for"},
        {"offers", "--for", "4", NULL, "no duration"},
        {"offers", "--for", "0", NULL, "no duration"},
        {"offers", "--for=4h", "--gpus", "65", NULL, "--gpus"},
        {"offers", "--for=4h", "--gpus", "0", NULL, "--gpus"},
        {"offers", "--for=4h", "--near", "a,,b", NULL, "--near"},
        {"offers", "--for=4h", "--start", "soon", NULL, "is no time"},
        {"offers", "--for=4h", "--start", "2026-11-01", NULL, "in the past"},
        {"offers", "--for=4h", "--start=+1h", "--between=+1h..+2h", NULL, "exclude"},
        {"offers", "--for=4h", "--max-slowdown", "0.9", NULL, "at least 1"},
        {"offers", "--for=4h", "--max-price", "-4", NULL, "no amount"},
        {"offers", "--for=4h", "--max-price", "4XXX", NULL, "no amount"},
        {"offers", "--for=4h", "--min-memory", "lots", NULL, "no size"},
        {"offers", "--for=4h", "--max-rtt", "5ms", NULL, "--near"},
        {"offers", "--for=4h", "--max-slowdown=2", "--near=a", NULL, "--profile"},
        {"offers", "--for=4h", "--residency", "japan", NULL, "no country"},
        {"offers", "--for=4h", "--nodes", "65", NULL, "--nodes"},
        {"offers", "--for=4h", "--together=room", NULL, "neither domain"},
        {"offers", "--for=4h", "--demand=200", NULL, "no rate"},
        {"offers", "--for=4h", "--bandwidth=1Gbps", NULL, "--near"},
        {"offers", "--for=4h", "--custom=a", NULL, "NAME=NUMBER"},
        {"offers", "--for=4h", "--custom=a=x", NULL, "NAME=NUMBER"},
        {"offers", "--for=4h", "--custom=a=1", "--demand=1MB/s", NULL, "exclude"},
        {"offers", "--for=4h", "--federated=a", NULL, "at least two"},
        {"offers", "--for=4h", "--federated=a,b", "--near=c", NULL, "exclude"},
        {"offers", "--for=4h", "--deny-site=", NULL, "a name is missing"},
        {"reserve", "--for=4h", "--wait-until=2026-11-01", NULL, "in the past"},
        {"offers", "--for=4h", "--residency", "", NULL, "no country"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *argv[9] = {"neargpu"};
        struct err err = {ERR_NONE, ""};
        json_t *rq = NULL;
        size_t n = 0;
        for (; cases[i][n] != NULL; n++)
            argv[n + 1] = cases[i][n];
        const char *why = cases[i][n + 1];
        ck_assert_msg(build(argv, &rq, &err) < 0, "case %zu was accepted", i);
        ck_assert_int_eq(err.code, ERR_USAGE);
        ck_assert_msg(strstr(err.text, why) != NULL, "case %zu: %s", i, err.text);
    }
}
END_TEST

UNIT_MAIN("when",
          UNIT_CASE(test_times) UNIT_CASE(test_bad_times) UNIT_CASE(test_ranges)
              UNIT_CASE(test_join_between) UNIT_CASE(test_sizes) UNIT_CASE(test_shares)
                  UNIT_CASE(test_request) UNIT_CASE(test_rates) UNIT_CASE(test_spans)
                      UNIT_CASE(test_gang_request) UNIT_CASE(test_overrides)
                          UNIT_CASE(test_bad_requests))
