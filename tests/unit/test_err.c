/* test_err: fixed numbers, names, exit and HTTP status; cutting of long texts. */
#include <errno.h>
#include <string.h>

#include "client/lib/err.h"
#include "tests/unit/unit.h"

/* Numbers are on the wire and in scripts: this table is the promise. */
static const struct {
    enum err_code code;
    int number;
    const char *name;
    int exit_status, http_status;
} codes[] = {
    {ERR_NONE, 0, "none", 0, 200},
    {ERR_INTERNAL, 1, "internal", 1, 500},
    {ERR_USAGE, 2, "usage", 2, 400},
    {ERR_NO_FIT, 3, "no_fit", 3, 409},
    {ERR_FORBIDDEN, 4, "forbidden", 4, 403},
    {ERR_NOT_FOUND, 5, "not_found", 5, 404},
    {ERR_CONFLICT, 6, "conflict", 6, 409},
    {ERR_FUNDS, 7, "funds", 7, 402},
    {ERR_UNREACHABLE, 8, "unreachable", 8, 502},
    {ERR_UNKNOWN, 9, "unknown", 9, 504},
    {ERR_BAD_REQUEST, 20, "bad_request", 2, 400},
    {ERR_TOO_LARGE, 21, "too_large", 1, 413},
    {ERR_UNAUTHENTICATED, 22, "unauthenticated", 1, 401},
    {ERR_RATE_LIMITED, 23, "rate_limited", 1, 429},
    {ERR_IO, 24, "io", 1, 500},
    {ERR_KEY_REUSED, 25, "key_reused", 1, 422},
    {ERR_TIMEOUT, 26, "timeout", 1, 504},
    {ERR_UNAVAILABLE, 27, "unavailable", 1, 503},
    {ERR_METHOD, 28, "method", 1, 405},
    {ERR_TOKEN, 29, "token", 1, 401},
    {ERR_QUOTA, 30, "quota", 1, 403},
    {ERR_CLONED, 31, "cloned", 1, 409},
    {ERR_BANNED, 32, "banned", 1, 403},
    {ERR_BUDGET, 33, "budget", 7, 402},
};

START_TEST(test_codes)
{
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        ck_assert_int_eq((int)codes[i].code, codes[i].number);
        ck_assert_str_eq(err_code_name(codes[i].code), codes[i].name);
        ck_assert_int_eq(err_code_from_name(codes[i].name), codes[i].code);
        ck_assert_int_eq(err_exit_status(codes[i].code), codes[i].exit_status);
        ck_assert_int_eq(err_http_status(codes[i].code), codes[i].http_status);
    }
    ck_assert_int_eq(err_code_from_name("no such code"), ERR_INTERNAL);
    ck_assert_str_eq(err_code_name((enum err_code)77), "internal");
}
END_TEST

START_TEST(test_text)
{
    struct err e;
    ck_assert_int_eq(err_set(&e, ERR_QUOTA, "%d of %s", 3, "four"), -1);
    ck_assert_int_eq(e.code, ERR_QUOTA);
    ck_assert_str_eq(e.text, "3 of four");
    ck_assert_int_eq(err_prefix(&e, "line %d", 7), -1);
    ck_assert_str_eq(e.text, "line 7: 3 of four");
    ck_assert_int_eq(e.code, ERR_QUOTA);
    err_set(&e, ERR_IO, "again: %s", e.text);
    ck_assert_str_eq(e.text, "again: line 7: 3 of four");
    err_sys(&e, ENOENT, "cannot open %s", "f");
    ck_assert_str_eq(e.text, "cannot open f: No such file or directory");
    ck_assert_int_eq(e.code, ERR_IO);
}
END_TEST

START_TEST(test_long_texts_are_cut)
{
    char big[2 * ERR_TEXT_MAX];
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    struct err e;
    err_set(&e, ERR_IO, "%s", big);
    ck_assert_uint_eq(strlen(e.text), ERR_TEXT_MAX - 1);
    err_prefix(&e, "front");
    ck_assert_uint_eq(strlen(e.text), ERR_TEXT_MAX - 1);
    ck_assert_int_eq(strncmp(e.text, "front: xxx", 10), 0);
    err_sys(&e, EIO, "%s", big);
    ck_assert_uint_eq(strlen(e.text), ERR_TEXT_MAX - 1);
}
END_TEST

START_TEST(test_null_err)
{
    ck_assert_int_eq(err_set(NULL, ERR_IO, "x"), -1);
    ck_assert_int_eq(err_sys(NULL, EIO, "x"), -1);
    ck_assert_int_eq(err_prefix(NULL, "x"), -1);
}
END_TEST

UNIT_MAIN("err", UNIT_CASE(test_codes) UNIT_CASE(test_text)
                     UNIT_CASE(test_long_texts_are_cut) UNIT_CASE(test_null_err))
