/* test_text: strbuf, xalloc, base64url, hashes and UUIDs, against published vectors. */
#include <string.h>

#include "client/lib/b64.h"
#include "client/lib/digest.h"
#include "client/lib/strbuf.h"
#include "client/lib/uuid.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

START_TEST(test_strbuf)
{
    struct strbuf b = STRBUF_INIT;
    ck_assert_str_eq(strbuf_str(&b), "");
    strbuf_adds(&b, "a");
    strbuf_addc(&b, 'b');
    strbuf_addf(&b, "%03d", 7);
    strbuf_add(&b, "xyz", 2);
    ck_assert_str_eq(strbuf_str(&b), "ab007xy");
    ck_assert_uint_eq(b.len, 7);
    for (int i = 0; i < 1000; i++)
        strbuf_addf(&b, "%d,", i);
    ck_assert_uint_eq(b.len, strlen(b.data));
    strbuf_reset(&b);
    ck_assert_str_eq(strbuf_str(&b), "");
    strbuf_add(&b, "a\0b", 3);
    ck_assert_uint_eq(b.len, 3);
    char *s = strbuf_steal(&b);
    ck_assert_mem_eq(s, "a\0b", 4);
    free(s);
    ck_assert_ptr_null(b.data);
    s = strbuf_steal(&b);
    ck_assert_str_eq(s, "");
    free(s);
    strbuf_done(&b);
}
END_TEST

START_TEST(test_xalloc_zero)
{
    void *p = xmalloc(0), *q = xcalloc(0, 0), *r = xrealloc(NULL, 0);
    ck_assert(p != NULL && q != NULL && r != NULL);
    free(p);
    free(q);
    free(r);
    char *s = xasprintf("%s-%d", "n", 4), *t = xstrndup("abcdef", 3);
    ck_assert_str_eq(s, "n-4");
    ck_assert_str_eq(t, "abc");
    free(s);
    free(t);
}
END_TEST

#ifndef __SANITIZE_ADDRESS__
START_TEST(test_xalloc_aborts)
{
    volatile size_t huge = SIZE_MAX / 2;
    free(xmalloc(huge));
}
END_TEST
#endif

/* RFC 4648 section 10, without padding, and the two characters of the URL alphabet. */
static const struct {
    const char *bytes;
    size_t len;
    const char *text;
} b64_table[] = {
    {"f", 1, "Zg"},          {"fo", 2, "Zm8"},
    {"foo", 3, "Zm9v"},      {"foob", 4, "Zm9vYg"},
    {"fooba", 5, "Zm9vYmE"}, {"foobar", 6, "Zm9vYmFy"},
    {"\xfb\xff", 2, "-_8"},  {"\xff\xff\xff", 3, "____"},
    {"\x00", 1, "AA"},
};

START_TEST(test_b64_known)
{
    for (size_t i = 0; i < sizeof(b64_table) / sizeof(b64_table[0]); i++) {
        char text[16];
        uint8_t bytes[16];
        size_t n = b64_encode(b64_table[i].bytes, b64_table[i].len, text);
        ck_assert_str_eq(text, b64_table[i].text);
        ck_assert_uint_eq(n, B64_ENC_LEN(b64_table[i].len));
        ptrdiff_t d = b64_decode(text, n, bytes, sizeof(bytes));
        ck_assert_int_eq(d, (ptrdiff_t)b64_table[i].len);
        ck_assert_mem_eq(bytes, b64_table[i].bytes, b64_table[i].len);
    }
}
END_TEST

START_TEST(test_b64_refused)
{
    static const char *const bad[] = {
        "A",    "Zg==",  "Zg=", "Zh",  "Zm9",    "Zm9v\n",   " Zg",  "Zm+v",
        "Zm/v", "Zm9vY", "Z.g", "Z g", "Zm9vYh", "\xc3\xa9", "Zg\t", "AB",
    };
    uint8_t out[16];
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(b64_decode(bad[i], strlen(bad[i]), out, sizeof(out)) == -1,
                      "accepted '%s'", bad[i]);
    ck_assert_int_eq(b64_decode("Zm9v", 4, out, 2), -1);
    ck_assert_int_eq(b64_decode("", 0, out, 0), 0);
    ck_assert_int_eq(b64_decode("AA\0A", 4, out, sizeof(out)), -1);
}
END_TEST

/* Exactly one accepted spelling: of all texts of 2 and 3 characters, as many decode as
 * there are byte strings. */
START_TEST(test_b64_bijective)
{
    uint8_t out[4];
    char text[3];
    int two = 0, three = 0;
    for (int a = 0; a < 256; a++)
        for (int b = 0; b < 256; b++) {
            text[0] = (char)a;
            text[1] = (char)b;
            two += b64_decode(text, 2, out, sizeof(out)) == 1;
            text[2] = 'A';
            three += b64_decode(text, 3, out, sizeof(out)) == 2;
        }
    ck_assert_int_eq(two, 256);
    ck_assert_int_eq(three, 64 * 64); /* last character A: its 4 data bits are zero */
}
END_TEST

START_TEST(test_sha256)
{
    char hex[SHA256_HEX];
    digest_sha256_hex("", 0, hex); /* FIPS 180-4 examples */
    ck_assert_str_eq(hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852"
                          "b855");
    digest_sha256_hex("abc", 3, hex);
    ck_assert_str_eq(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f200"
                          "15ad");
    ck_assert(digest_equal("abc", "abc", 3));
    ck_assert(!digest_equal("abc", "abd", 3));
    ck_assert(digest_equal("abc", "abd", 2));
}
END_TEST

START_TEST(test_random)
{
    uint8_t a[64] = {0}, b[64] = {0};
    digest_random(a, sizeof(a));
    digest_random(b, sizeof(b));
    ck_assert_mem_ne(a, b, sizeof(a));
}
END_TEST

START_TEST(test_uuid_v7)
{
    /* RFC 9562 appendix A.6: 017F22E2-79B0-7CC3-98C4-DC0C0C07398F */
    static const uint8_t rnd[10] = {0x0c, 0xc3, 0x18, 0xc4, 0xdc,
                                    0x0c, 0x0c, 0x07, 0x39, 0x8f};
    char text[UUID_TEXT], later[UUID_TEXT];
    uuid_v7(INT64_C(1645557742000) * 1000, rnd, text);
    ck_assert_str_eq(text, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
    ck_assert(uuid_is_valid(text));
    uuid_v7(INT64_C(1645557742001) * 1000, rnd, later);
    ck_assert_int_lt(strcmp(text, later), 0);
    static const uint8_t ones[10] = {255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
    uuid_v7(0, ones, text);
    ck_assert_str_eq(text, "00000000-0000-7fff-bfff-ffffffffffff");
}
END_TEST

START_TEST(test_uuid_valid)
{
    static const char *const bad[] = {
        "",
        "017f22e2",
        "017F22E2-79B0-7CC3-98C4-DC0C0C07398F",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398f0",
        "017f22e2a79b0-7cc3-98c4-dc0c0c07398f",
        "017f22e2-79b0-7cc3-98c4-dc0c0c07398g",
        "{17f22e2-79b0-7cc3-98c4-dc0c0c07398}",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(!uuid_is_valid(bad[i]), "accepted '%s'", bad[i]);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("text");
    TCase *tc = tcase_create("text");
    tcase_add_test(tc, test_strbuf);
    tcase_add_test(tc, test_xalloc_zero);
#ifndef __SANITIZE_ADDRESS__ /* which ends the program itself on such a request */
    tcase_add_test_raise_signal(tc, test_xalloc_aborts, 6);
#endif
    tcase_add_test(tc, test_b64_known);
    tcase_add_test(tc, test_b64_refused);
    tcase_add_test(tc, test_b64_bijective);
    tcase_add_test(tc, test_sha256);
    tcase_add_test(tc, test_random);
    tcase_add_test(tc, test_uuid_v7);
    tcase_add_test(tc, test_uuid_valid);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
