/* The bank's file: a known answer laid out by hand from the record layout of the
 * general transfer, its bytes in JIS X 0201, and every field refused that does not fit.
 */
#include <stdlib.h>
#include <string.h>

#include "billing/core/zengin.h"
#include "client/lib/strbuf.h"
#include "tests/unit/unit.h"

static const struct zengin_account market = {"0005", "ﾐﾂﾋﾞｼ",   "123",    "ﾄｳｷﾖｳ",
                                             "1",    "7654321", "ｶ)ﾏ-ｹﾂﾄ"};
static const struct zengin_account shop = {"0001", "ﾐｽﾞﾎ",    "456",         "ｵｵｻｶ",
                                           "2",    "0000123", "ﾕ)ｷﾕｳｼﾕｳ GPU"};
#define CLIENT "0123456789"
#define S4     "    "
#define S10    "          "

START_TEST(known_answer)
{
    static const char want[] =
        /* 1, 21, 0, client, holder (40), MMDD, bank, its name (15), branch, its name
         * (15), type, number, filler (17) */
        "1"
        "21"
        "0" CLIENT "\xb6)\xcf-\xb9\xc2\xc4" S10 S10 S10 "   "
        "1130"
        "0005"
        "\xd0\xc2\xcb\xde\xbc" S10 "123"
        "\xc4\xb3\xb7\xd6\xb3" S10 "1"
        "7654321" S10 "       "
        /* 2, bank, name, branch, name, clearing house (4), type, number, holder (30),
         * amount (10), new code, customer codes (20), by wire, EDI, filler (7) */
        "2"
        "0001"
        "\xd0\xbd\xde\xce" S10 " "
        "456"
        "\xb5\xb5\xbb\xb6" S10 " " S4 "2"
        "0000123"
        "\xd5)\xb7\xd5\xb3\xbc\xd5\xb3 GPU" S10 "        "
        "0000012345"
        "0"
        "0000000007" S10 "7"
        " "
        "       "
        "8"
        "000001"
        "000000012345" S10 S10 S10 S10 S10 S10 S10 S10 S10 S10 " "
        "9" S10 S10 S10 S10 S10 S10 S10 S10 S10 S10 S10 "         ";
    struct zengin_payment p = {shop, 12345, 7};
    struct strbuf out = STRBUF_INIT;
    struct err err;
    ck_assert_int_eq(sizeof(want) - 1, 4 * ZENGIN_RECORD);
    ck_assert_msg(zengin_file(&market, CLIENT, 11, 30, &p, 1, false, &out, &err) == 0,
                  "%s", err.text);
    ck_assert_uint_eq(out.len, sizeof(want) - 1);
    for (size_t i = 0; i < out.len; i++)
        ck_assert_msg(out.data[i] == want[i], "byte %zu of record %zu", i % 120 + 1,
                      i / 120 + 1);
    strbuf_done(&out);
}
END_TEST

START_TEST(lines_and_sums)
{
    struct zengin_payment p[3] = {{shop, 1, 1}, {shop, 9999999999, 2}, {shop, 7, 3}};
    struct strbuf out = STRBUF_INIT;
    struct err err;
    ck_assert(zengin_file(&market, CLIENT, 1, 2, p, 3, true, &out, &err) == 0);
    ck_assert_uint_eq(out.len, 6 * (ZENGIN_RECORD + 2));
    for (size_t i = 0; i < 6; i++)
        ck_assert(memcmp(out.data + i * 122 + 120, "\r\n", 2) == 0);
    ck_assert(memcmp(out.data + (size_t)4 * 122, "8000003010000000007", 19) == 0);
    strbuf_done(&out);
}
END_TEST

/* What is wrong in one place, and the word that its error must have. */
static const struct wrong {
    struct zengin_account to;
    int64_t yen;
    const char *word;
} wrongs[] = {
    {{"001", "", "456", "", "1", "0000123", "ﾕ"}, 1, "bank"},
    {{"00012", "", "456", "", "1", "0000123", "ﾕ"}, 1, "bank"},
    {{"000x", "", "456", "", "1", "0000123", "ﾕ"}, 1, "bank"},
    {{"0001", "ABCDEFGHIJKLMNOP", "456", "", "1", "0000123", "ﾕ"}, 1, "bank's name"},
    {{"0001", "", "45", "", "1", "0000123", "ﾕ"}, 1, "branch"},
    {{"0001", "", "456", "", "3", "0000123", "ﾕ"}, 1, "type"},
    {{"0001", "", "456", "", "1", "123", "ﾕ"}, 1, "number"},
    {{"0001", "", "456", "", "1", "0000123", "有限会社"}, 1, "none that banks take"},
    {{"0001", "", "456", "", "1", "0000123", "ユ"}, 1, "none that banks take"},
    {{"0001", "", "456", "", "1", "0000123", "abc"}, 1, "none that banks take"},
    {{"0001", "", "456", "", "1", "0000123", "ｯ"}, 1, "none that banks take"},
    {{"0001", "", "456", "", "1", "0000123", "ｰ"}, 1, "none that banks take"},
    {{"0001", "", "456", "", "1", "0000123", "A\nB"}, 1, "none that banks take"},
    {{"0001", "", "456", "", "1", "0000123", "ABCDEFGHIJABCDEFGHIJABCDEFGHIJK"},
     1,
     "longer than 30"},
    {{"0001", "", "456", "", "1", "0000123", "ﾕ"}, 0, "do not fit"},
    {{"0001", "", "456", "", "1", "0000123", "ﾕ"}, 10000000000, "do not fit"},
};

START_TEST(what_does_not_fit_is_refused)
{
    const struct wrong *w = &wrongs[_i];
    struct zengin_payment p = {w->to, w->yen, 9};
    struct strbuf out = STRBUF_INIT;
    struct err err;
    ck_assert(zengin_file(&market, CLIENT, 11, 30, &p, 1, false, &out, &err) != 0);
    ck_assert_msg(strstr(err.text, w->word) != NULL, "%s", err.text);
    ck_assert_ptr_nonnull(strstr(err.text, "payment 9"));
    ck_assert_ptr_null(strchr(err.text, '\n'));
    strbuf_done(&out);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("zengin");
    TCase *tc = tcase_create("zengin");
    tcase_add_test(tc, known_answer);
    tcase_add_test(tc, lines_and_sums);
    tcase_add_loop_test(tc, what_does_not_fit_is_refused, 0,
                        (int)(sizeof(wrongs) / sizeof(wrongs[0])));
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
