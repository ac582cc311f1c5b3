/* test_money: decimal text and 128-bit rounding, against known answers and against a
 * naive rounding over random small numbers. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "client/lib/money.h"
#include "tests/unit/unit.h"

static const struct {
    const char *text;
    int64_t micro;
} amounts[] = {
    {"0", 0},
    {"-0", 0},
    {"1", 1000000},
    {"1999.5", 1999500000},
    {"1999.50", 1999500000},
    {"-0.000001", -1},
    {"0.000001", 1},
    {"007", 7000000},
    {"9223372036854.775807", INT64_MAX},
    {"-9223372036854.775808", INT64_MIN},
};

START_TEST(test_parse)
{
    for (size_t i = 0; i < sizeof(amounts) / sizeof(amounts[0]); i++) {
        int64_t micro = 77;
        struct err e;
        ck_assert_msg(money_parse(amounts[i].text, &micro, &e) == 0, "%s: %s",
                      amounts[i].text, e.text);
        ck_assert_msg(micro == amounts[i].micro, "%s: %" PRId64, amounts[i].text,
                      micro);
    }
}
END_TEST

START_TEST(test_refused)
{
    static const char *const bad[] = {
        "",
        "-",
        ".5",
        "5.",
        "1,000",
        "1e3",
        "0x10",
        "1.0000001",
        "1.2.3",
        "--1",
        "+1",
        " 1",
        "1 ",
        "-.5",
        "abc",
        "1-",
        "9223372036854.775808",
        "-9223372036854.775809",
        "99999999999999999999",
        "9223372036855",
        "inf",
        "NaN",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int64_t micro = 77;
        ck_assert_msg(money_parse(bad[i], &micro, NULL) == -1, "accepted '%s'", bad[i]);
        ck_assert_int_eq(micro, 77);
    }
}
END_TEST

START_TEST(test_format)
{
    static const struct {
        int64_t micro;
        const char *currency, *text;
    } table[] = {
        {1999500000, "USD", "1999.50"},
        {4000000000, "JPY", "4000"},
        {4000500000, "JPY", "4000.5"},
        {1, "USD", "0.000001"},
        {-1, "EUR", "-0.000001"},
        {0, "JPY", "0"},
        {0, "USD", "0.00"},
        {1234000, "KWD", "1.234"},
        {1200000, "KWD", "1.200"},
        {1200000, "???", "1.2"},
        {INT64_MIN, "JPY", "-9223372036854.775808"},
        {INT64_MAX, "USD", "9223372036854.775807"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        char text[MONEY_TEXT_MAX];
        int64_t back;
        money_format(table[i].micro, table[i].currency, text);
        ck_assert_str_eq(text, table[i].text);
        ck_assert_int_eq(money_parse(text, &back, NULL), 0);
        ck_assert_int_eq(back, table[i].micro);
    }
}
END_TEST

START_TEST(test_currencies)
{
    ck_assert_int_eq(money_exponent("JPY"), 0);
    ck_assert_int_eq(money_exponent("USD"), 2);
    ck_assert_int_eq(money_exponent("EUR"), 2);
    ck_assert_int_eq(money_exponent("KRW"), 0);
    ck_assert_int_eq(money_exponent("BHD"), 3);
    ck_assert_int_eq(money_exponent("ZWG"), 2);
    static const char *const unknown[] = {"", "US", "USDX", "usd", "XXX", "Y K", "D A"};
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
        ck_assert_msg(!money_currency_known(unknown[i]), "knows '%s'", unknown[i]);
}
END_TEST

START_TEST(test_mul_known)
{
    static const struct {
        int64_t quantity, price, unit, want;
    } table[] = {
        {3600, 1990000, 3600, 1990000},
        {1, 1, 2, 1}, /* 0.5 away from zero */
        {-1, 1, 2, -1},
        {1, 1, 3, 0},
        {2, 1, 3, 1},
        {-2, 1, 3, -1},
        {3, -1, 2, -2},
        {-3, -1, 2, 2},
        {0, INT64_MIN, 1, 0},
        {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX},
        {INT64_MIN, 1, 1, INT64_MIN},
        {INT64_MIN, INT64_MIN, INT64_MAX, 0}, /* too large */
    };
    for (size_t i = 0; i + 1 < sizeof(table) / sizeof(table[0]); i++) {
        int64_t got = 77;
        ck_assert_int_eq(
            money_mul(table[i].quantity, table[i].price, table[i].unit, &got, NULL), 0);
        ck_assert_msg(got == table[i].want, "row %zu: %" PRId64, i, got);
    }
    int64_t got = 77;
    ck_assert_int_eq(money_mul(INT64_MIN, INT64_MIN, INT64_MAX, &got, NULL), -1);
    ck_assert_int_eq(money_mul(INT64_MIN, -1, 1, &got, NULL), -1);
    ck_assert_int_eq(money_mul(1, 1, 0, &got, NULL), -1);
    ck_assert_int_eq(money_mul(1, 1, -1, &got, NULL), -1);
    ck_assert_int_eq(got, 77);
}
END_TEST

START_TEST(test_mul_random)
{
    uint64_t state = (uint64_t)time(NULL);
    printf("money seed %" PRIu64 "\n", state);
    for (int i = 0; i < 100000; i++) {
        state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
        int64_t q = (int64_t)(state >> 40) % 2000 - 1000;
        int64_t p = (int64_t)(state >> 20 & 0xfffff) % 2000 - 1000;
        int64_t u = (int64_t)(state >> 4 & 0xffff) % 50 + 1;
        /* Naive: walk to the nearest integer, ties away from zero. */
        int64_t product = q * p, best = product / u;
        int64_t rest = product - best * u;
        if (2 * rest >= u)
            best++;
        else if (-2 * rest >= u)
            best--;
        int64_t got;
        ck_assert_int_eq(money_mul(q, p, u, &got, NULL), 0);
        ck_assert_int_eq(got, best);
    }
}
END_TEST

UNIT_MAIN("money", UNIT_CASE(test_parse) UNIT_CASE(test_refused) UNIT_CASE(test_format)
                       UNIT_CASE(test_currencies) UNIT_CASE(test_mul_known)
                           UNIT_CASE(test_mul_random))
