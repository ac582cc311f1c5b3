/* What a bank says of payouts: a Zengin file made of the request's own records, a CSV,
 * and every place in both where one wrong byte must refuse the whole file. */
#include <stdlib.h>
#include <string.h>

#include "billing/core/bankresult.h"
#include "billing/core/zengin.h"
#include "client/lib/strbuf.h"
#include "tests/unit/unit.h"

static const struct zengin_account market = {"0005", "ﾐﾂﾋﾞｼ",   "123",    "ﾄｳｷﾖｳ",
                                             "1",    "7654321", "ｶ)ﾏ-ｹﾂﾄ"};
static const struct zengin_account shop = {"0001", "",        "456",     "",
                                           "2",    "0000123", "ﾕ)ｷﾕｳｼﾕｳ"};

/* Three payouts: 7 paid, 8 come back (2), one without a number paid. Record i is at i *
 * 122: header, 3 of data, trailer, end. */
static char *results(size_t *len, struct strbuf *b)
{
    struct zengin_payment p[3] = {{shop, 12345, 7}, {shop, 500, 8}, {shop, 40, 0}};
    struct err err;
    ck_assert(zengin_file(&market, "0123456789", 11, 30, p, 3, true, b, &err) == 0);
    for (size_t i = 1; i <= 3; i++)
        b->data[i * 122 + 111] = i == 2 ? '2' : '0';
    memset(b->data + (size_t)3 * 122 + 91, ' ', 10);
    memcpy(b->data + (size_t)4 * 122,
           "8000003000000012885000002000000012385000001000000000500", 55);
    *len = b->len;
    return b->data;
}

static void expect_zengin(const char *data, size_t len)
{
    struct bankresult r;
    struct err err;
    ck_assert_msg(bankresult_parse(data, len, &r, &err) == 0, "%s", err.text);
    ck_assert(r.zengin);
    ck_assert_str_eq(r.client, "0123456789");
    ck_assert_uint_eq(r.count, 3);
    const struct bankresult_row *w = r.rows;
    ck_assert_int_eq(w[0].line, 2);
    ck_assert_int_eq(w[0].payout, 7);
    ck_assert_int_eq(w[0].amount_micro, 12345000000);
    ck_assert(!w[0].returned && w[1].returned && !w[2].returned);
    ck_assert_str_eq(w[1].reason, "no such account");
    ck_assert_str_eq(w[1].bank, "0001");
    ck_assert_str_eq(w[1].branch, "456");
    ck_assert_str_eq(w[1].type, "2");
    ck_assert_str_eq(w[1].number, "0000123");
    ck_assert_int_eq(w[2].payout, 0);
    bankresult_done(&r);
}

START_TEST(zengin)
{
    struct strbuf b = STRBUF_INIT, bare = STRBUF_INIT, lines = STRBUF_INIT;
    size_t len;
    char *data = results(&len, &b);
    expect_zengin(data, len);
    for (size_t i = 0; i < 6; i++) {
        strbuf_add(&bare, data + i * 122, 120);
        strbuf_add(&lines, data + i * 122, 120);
        strbuf_addc(&lines, '\n');
    }
    expect_zengin(bare.data, bare.len);
    expect_zengin(lines.data, lines.len);
    strbuf_addc(&b, 0x1a);
    expect_zengin(b.data, b.len);
    strbuf_done(&b);
    strbuf_done(&bare);
    strbuf_done(&lines);
}
END_TEST

/* Byte (from 1) of a record (from 1), what it becomes, and a word of the refusal. */
static const struct wrong {
    int record, byte;
    char to;
    const char *word;
} wrongs[] = {
    {1, 2, '9', "general transfers"},
    {1, 3, '2', "general transfers"},
    {1, 4, '1', "JIS"},
    {1, 14, 'x', "client"},
    {1, 1, '3', "UTF-8"},
    {2, 1, '1', "not due"},
    {2, 1, '3', "not due"},
    {2, 5, 'x', "digits"},
    {2, 23, ' ', "digits"},
    {2, 43, ' ', "digits"},
    {2, 50, 'x', "digits"},
    {2, 88, '1', "the trailer says of all"},
    {2, 90, 'x', "amount"},
    {2, 92, 'x', "customer"},
    {2, 112, '7', "result code"},
    {2, 112, ' ', "result code"},
    {2, 112, '1', "what was paid"},
    {3, 112, '0', "what was paid"},
    {5, 1, '9', "not due"},
    {5, 7, '4', "trailer says of all 4"},
    {5, 19, '6', "trailer says of all"},
    {5, 25, '1', "what was paid"},
    {5, 37, '6', "what was paid"},
    {5, 43, '2', "what came back"},
    {5, 55, '1', "what came back"},
    {5, 20, ' ', "what was paid"},
    {6, 1, '8', "not due"},
    {4, 60, '\n', "120 bytes"},
    {2, 9, '\0', "JIS X 0201"},
    {2, 60, '\x1b', "JIS X 0201"},
    {2, 60, '\x7f', "JIS X 0201"},
    {5, 100, (char)0xa0, "JIS X 0201"},
    {6, 60, (char)0xe3, "JIS X 0201"},
};

START_TEST(one_wrong_byte_refuses_it)
{
    const struct wrong *w = &wrongs[_i];
    struct strbuf b = STRBUF_INIT;
    struct bankresult r;
    struct err err;
    size_t len;
    char *data = results(&len, &b);
    data[(w->record - 1) * 122 + w->byte - 1] = w->to;
    ck_assert(bankresult_parse(data, len, &r, &err) != 0);
    ck_assert_msg(strstr(err.text, w->word) != NULL, "%d %d: %s", w->record, w->byte,
                  err.text);
    strbuf_done(&b);
}
END_TEST

/* Cut anywhere, or with something behind its end: refused. */
START_TEST(every_cut_is_refused)
{
    struct strbuf b = STRBUF_INIT;
    struct bankresult r;
    struct err err;
    size_t len;
    char *data = results(&len, &b);
    for (size_t n = 0; n < len - 2; n++) {
        char *part = malloc(n + 1); /* a byte more is a byte too far */
        ck_assert_ptr_nonnull(part);
        memcpy(part + 1, data, n);
        ck_assert_msg(bankresult_parse(part + 1, n, &r, &err) != 0, "%zu bytes", n);
        free(part);
    }
    struct strbuf twice = STRBUF_INIT;
    strbuf_add(&twice, data, len);
    strbuf_add(&twice, data, len);
    ck_assert(bankresult_parse(twice.data, twice.len, &r, &err) != 0);
    strbuf_done(&twice);
    strbuf_done(&b);
}
END_TEST

START_TEST(csv)
{
    static const char text[] = "\xef\xbb\xbfpayout,state,date,reason,amount\r\n"
                               "7,done,2026-11-30,,12.34\n"
                               "8,returned,,\"no \"\"such\"\", account\",5\r\n";
    struct bankresult r;
    struct err err;
    ck_assert_msg(bankresult_parse(text, strlen(text), &r, &err) == 0, "%s", err.text);
    ck_assert(!r.zengin);
    ck_assert_uint_eq(r.count, 2);
    ck_assert_int_eq(r.rows[0].payout, 7);
    ck_assert_int_eq(r.rows[0].amount_micro, 12340000);
    ck_assert_str_eq(r.rows[0].on, "2026-11-30");
    ck_assert(!r.rows[0].returned && r.rows[1].returned);
    ck_assert_int_eq(r.rows[1].line, 3);
    ck_assert_str_eq(r.rows[1].reason, "no \"such\", account");
    ck_assert_str_eq(r.rows[1].on, "");
    bankresult_done(&r);
}
END_TEST

#define HEAD "payout,state,date,reason\n"
static const struct {
    const char *text, *word;
} bad_csv[] = {
    {"", "columns"},
    {"payout,state,reason,date\n1,done,,\n", "columns"},
    {"payout,state,date\n1,done,\n", "columns"},
    {"payout,state,date,reason,amount,x\n", "too many columns"},
    {HEAD, "no payouts"},
    {HEAD "x,done,,\n", "no number"},
    {HEAD "0,done,,\n", "no number"},
    {HEAD "-1,done,,\n", "no number"},
    {HEAD "99999999999999999999,done,,\n", "no number"},
    {HEAD "1,paid,,\n", "done or returned"},
    {HEAD "1,done,2026-02-29,\n", "no day"},
    {HEAD "1,done,2026-11-30T00:00,\n", "no day"},
    {HEAD "1,done,,,3\n", "not those of the first line"},
    {HEAD "1,done,\n", "not those of the first line"},
    {HEAD "1,done,,\"x\n", "control character"},
    {HEAD "1,done,,\"x", "not closed"},
    {HEAD "1,done,,\"x\"y\n", "behind a closing quote"},
    {HEAD "1,done,,a\tb\n", "control character"},
    {HEAD "1,done,,\xb6\n", "UTF-8"},
    {"payout,state,date,reason,amount\n1,done,,,x\n", "amount"},
    {"payout,state,date,reason,amount\n1,done,,,-1\n", "amount"},
};

START_TEST(bad_csv_is_refused)
{
    struct bankresult r;
    struct err err;
    ck_assert(bankresult_parse(bad_csv[_i].text, strlen(bad_csv[_i].text), &r, &err) !=
              0);
    ck_assert_msg(strstr(err.text, bad_csv[_i].word) != NULL, "%s: %s",
                  bad_csv[_i].text, err.text);
}
END_TEST

/* Random bytes put into good files: read or refused, never more. */
START_TEST(random_bytes)
{
    unsigned seed = 4711;
    for (int n = 0; n < 20000; n++) {
        struct strbuf b = STRBUF_INIT;
        struct bankresult r;
        struct err err;
        size_t len;
        char *data = results(&len, &b);
        if (n % 2 == 1) {
            strbuf_reset(&b);
            strbuf_adds(&b, HEAD "1,done,2026-11-30,\"a,b\"\r\n2,returned,,c\n");
            data = b.data, len = b.len;
        }
        for (int k = rand_r(&seed) % 3; k >= 0; k--)
            data[(size_t)rand_r(&seed) % len] = (char)rand_r(&seed);
        if (bankresult_parse(data, len, &r, &err) == 0)
            bankresult_done(&r);
        strbuf_done(&b);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bankresult");
    TCase *tc = tcase_create("bankresult");
    tcase_add_test(tc, zengin);
    tcase_add_loop_test(tc, one_wrong_byte_refuses_it, 0,
                        (int)(sizeof(wrongs) / sizeof(wrongs[0])));
    tcase_add_test(tc, every_cut_is_refused);
    tcase_add_test(tc, csv);
    tcase_add_loop_test(tc, bad_csv_is_refused, 0,
                        (int)(sizeof(bad_csv) / sizeof(bad_csv[0])));
    tcase_add_test(tc, random_bytes);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
