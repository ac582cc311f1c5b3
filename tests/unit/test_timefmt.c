/* test_timefmt: instants and durations, both ways, against known answers, and against
 * the C library's gmtime over random instants. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/lib/timefmt.h"
#include "tests/unit/unit.h"

static const struct {
    const char *text;
    int64_t us;
    const char *canonical;
} instants[] = {
    {"1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z"},
    {"2000-02-29T23:59:59Z", INT64_C(951868799000000), "2000-02-29T23:59:59Z"},
    {"2026-11-22T21:53:12Z", INT64_C(1795384392000000), "2026-11-22T21:53:12Z"},
    {"2026-11-22T21:53:12.5Z", INT64_C(1795384392500000),
     "2026-11-22T21:53:12.500000Z"},
    {"2026-11-23T06:53:12.000001+09:00", INT64_C(1795384392000001),
     "2026-11-22T21:53:12.000001Z"},
    {"2026-11-22T16:23:12-05:30", INT64_C(1795384392000000), "2026-11-22T21:53:12Z"},
    {"1970-01-01T09:00:00+09:00", 0, "1970-01-01T00:00:00Z"},
    {"9999-12-31T23:59:59.999999Z", INT64_C(253402300799999999),
     "9999-12-31T23:59:59.999999Z"},
    {"2100-03-01T00:00:00Z", INT64_C(4107542400000000), "2100-03-01T00:00:00Z"},
};

START_TEST(test_parse)
{
    for (size_t i = 0; i < sizeof(instants) / sizeof(instants[0]); i++) {
        int64_t us = -1;
        struct err e;
        char text[TIMEFMT_MAX];
        ck_assert_msg(timefmt_parse(instants[i].text, &us, &e) == 0, "%s: %s",
                      instants[i].text, e.text);
        ck_assert_msg(us == instants[i].us, "%s: %" PRId64, instants[i].text, us);
        timefmt_utc(us, text);
        ck_assert_str_eq(text, instants[i].canonical);
    }
}
END_TEST

START_TEST(test_refused)
{
    static const char *const bad[] = {
        "",
        "2026-11-22",
        "2026-11-22T21:53:12",
        "2026-11-22 21:53:12Z",
        "2026-11-22T21:53Z",
        "2026-02-29T00:00:00Z",
        "2100-02-29T00:00:00Z",
        "2026-02-30T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-00-01T00:00:00Z",
        "2026-01-00T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2016-12-31T23:59:60Z",
        "1969-12-31T23:59:59Z",
        "1970-01-01T00:00:00+00:01",
        "9999-12-31T23:59:59-00:01",
        "10000-01-01T00:00:00Z",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00.1234567Z",
        "2026-01-01T00:00:00,5Z",
        "2026-01-01T00:00:00z",
        "2026-01-01t00:00:00Z",
        "2026-01-01T00:00:00ZZ",
        "2026-01-01T00:00:00+9:00",
        "2026-01-01T00:00:00+0900",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00+09:60",
        " 2026-01-01T00:00:00Z",
        "2026-1-01T00:00:00Z",
        "+026-01-01T00:00:00Z",
        "2026-01-01T00:00:00Z ",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int64_t us = 77;
        struct err e = {0};
        ck_assert_msg(timefmt_parse(bad[i], &us, &e) == -1, "accepted '%s'", bad[i]);
        ck_assert_int_eq(us, 77);
        ck_assert_int_eq(e.code, ERR_BAD_REQUEST);
    }
}
END_TEST

START_TEST(test_random_against_libc)
{
    uint64_t state = (uint64_t)time(NULL);
    printf("timefmt seed %" PRIu64 "\n", state);
    for (int i = 0; i < 20000; i++) {
        state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
        int64_t s = (int64_t)(state >> 11) % INT64_C(253402300800);
        struct tm tm;
        time_t t = s;
        char want[64], got[TIMEFMT_MAX];
        gmtime_r(&t, &tm);
        strftime(want, sizeof(want), "%Y-%m-%dT%H:%M:%SZ", &tm);
        timefmt_utc(s * US_PER_S, got);
        ck_assert_str_eq(got, want);
        int64_t back;
        ck_assert_int_eq(timefmt_parse(got, &back, NULL), 0);
        ck_assert_int_eq(back, s * US_PER_S);
    }
}
END_TEST

START_TEST(test_days)
{
    static const char *const good[] = {"2026-11-30", "2028-02-29", "1970-01-01",
                                       "9999-12-31"};
    static const char *const bad[] = {"",           "2026-11-31",  "2026-02-29",
                                      "2026-13-01", "2026-00-10",  "2026-11-00",
                                      "26-11-30",   "2026-11-30 ", "2026-11-3",
                                      "2026/11/30", "2026-11-3x"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        ck_assert_msg(timefmt_is_day(good[i]), "refused '%s'", good[i]);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(!timefmt_is_day(bad[i]), "accepted '%s'", bad[i]);
}
END_TEST

START_TEST(test_offset)
{
    char text[TIMEFMT_MAX];
    timefmt_offset(INT64_C(1795384392000000), 9 * 3600, text);
    ck_assert_str_eq(text, "2026-11-23 06:53:12+09:00");
    timefmt_offset(INT64_C(1795384392999999), -(5 * 3600 + 1800), text);
    ck_assert_str_eq(text, "2026-11-22 16:23:12-05:30");
    timefmt_offset(0, 0, text);
    ck_assert_str_eq(text, "1970-01-01 00:00:00+00:00");
    timefmt_utc(-1, text);
    ck_assert_str_eq(text, "1969-12-31T23:59:59.999999Z");
}
END_TEST

static const struct {
    const char *text;
    int64_t us;
    const char *canonical;
} durations[] = {
    {"0", 0, "0"},
    {"90s", 90 * US_PER_S, "1m30s"},
    {"90m", 5400 * US_PER_S, "1h30m"},
    {"4h", 4 * US_PER_HOUR, "4h"},
    {"2d", 48 * US_PER_HOUR, "2d"},
    {"1h30m", 5400 * US_PER_S, "1h30m"},
    {"250ms", 250000, "250ms"},
    {"15us", 15, "15us"},
    {"1d1h1m1s1ms1us", INT64_C(90061001001), "1d1h1m1s1ms1us"},
    {"0s", 0, "0"},
    {"106751991d", INT64_C(106751991) * 86400 * US_PER_S, "106751991d"},
};

START_TEST(test_durations)
{
    for (size_t i = 0; i < sizeof(durations) / sizeof(durations[0]); i++) {
        int64_t us = -1;
        struct err e;
        char text[TIMEFMT_MAX];
        ck_assert_msg(timefmt_parse_duration(durations[i].text, &us, &e) == 0, "%s: %s",
                      durations[i].text, e.text);
        ck_assert_msg(us == durations[i].us, "%s: %" PRId64, durations[i].text, us);
        timefmt_duration(us, text);
        ck_assert_str_eq(text, durations[i].canonical);
    }
    char text[TIMEFMT_MAX];
    int64_t back;
    timefmt_duration(INT64_MAX, text);
    ck_assert_int_eq(timefmt_parse_duration(text, &back, NULL), 0);
    ck_assert_int_eq(back, INT64_MAX);
}
END_TEST

START_TEST(test_durations_refused)
{
    static const char *const bad[] = {
        "",
        "5",
        "-5s",
        "+5s",
        "5 s",
        "5x",
        "s",
        "1.5h",
        "1h1h",
        "1m1h",
        "4h ",
        " 4h",
        "4H",
        "00",
        "106751992d",
        "99999999999999999999s",
        "1d106751991d",
        "1h30",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int64_t us = 77;
        ck_assert_msg(timefmt_parse_duration(bad[i], &us, NULL) == -1, "accepted '%s'",
                      bad[i]);
        ck_assert_int_eq(us, 77);
    }
}
END_TEST

UNIT_MAIN("timefmt", UNIT_CASE(test_parse) UNIT_CASE(test_refused)
                         UNIT_CASE(test_random_against_libc) UNIT_CASE(test_offset)
                             UNIT_CASE(test_days) UNIT_CASE(test_durations)
                                 UNIT_CASE(test_durations_refused))
