/* The status document: what is accepted, what is refused, and one of full size. */
#include <inttypes.h>

#include "tests/unit/token_kit.h"
#include "tests/unit/unit.h"

static struct kit kit;

static void setup(void)
{
    ck_assert_int_eq(kit_init(&kit), 0);
}

static void teardown(void)
{
    kit_done(&kit);
}

static char *status_document(const struct kit *k, const char *payload)
{
    char *header = xasprintf(
        "{\"alg\":\"EdDSA\",\"kid\":\"%s\",\"typ\":\"neargpu-status+jwt\"}", k->kid);
    char *text = kit_sign(k->key, header, payload);
    free(header);
    return text;
}

#define STATUS_HEAD "{\"iss\":\"" KIT_ISSUER "\",\"iat\":1795384392,\"seq\":9,"

START_TEST(test_status_document)
{
    static const struct {
        const char *name, *payload;
        bool good;
    } table[] = {
        {"good",
         STATUS_HEAD
         "\"now_us\":1795384392000001,\"revoked\":[\"" KIT_RES
         "\",\"009307d0-7b3a-7c3e-8a5b-0123456789ad\"],\"revoked_kids\":[]}",
         true},
        {"iat and now_us disagree",
         STATUS_HEAD "\"now_us\":1795384393000000,\"revoked\":[],\"revoked_kids\":[]}",
         false},
        {"revoked no UUID",
         STATUS_HEAD "\"now_us\":1795384392000001,\"revoked\":[\"x\"],"
                     "\"revoked_kids\":[]}",
         false},
        {"revoked_kids no thumbprint",
         STATUS_HEAD "\"now_us\":1795384392000001,\"revoked\":[],"
                     "\"revoked_kids\":[\"x\"]}",
         false},
        {"no revoked", STATUS_HEAD "\"now_us\":1795384392000001,\"revoked_kids\":[]}",
         false},
        {"unknown member",
         STATUS_HEAD "\"now_us\":1795384392000001,\"revoked\":[],\"revoked_kids\":[],"
                     "\"x\":1}",
         false},
        {"other issuer",
         "{\"iss\":\"x\",\"iat\":1795384392,\"seq\":9,\"now_us\":1795384392000001,"
         "\"revoked\":[],\"revoked_kids\":[]}",
         false},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        char *text = status_document(&kit, table[i].payload);
        struct token_status s;
        struct err err = {0};
        int rc = token_status_check(text, strlen(text), kit.ring, KIT_ISSUER, &s, &err);
        ck_assert_msg((rc == 0) == table[i].good, "%s: %s", table[i].name, err.text);
        if (rc == 0) {
            ck_assert_uint_eq(s.revoked_count, 2);
            ck_assert_str_eq(s.revoked[0], "009307d0-7b3a-7c3e-8a5b-0123456789ad");
            ck_assert_int_eq(s.iat_us, KIT_NOW + 1);
            ck_assert_int_eq(s.seq, 9);
            token_status_done(&s);
        } else {
            ck_assert_int_eq(err.code, ERR_TOKEN);
        }
        free(text);
    }
    struct token_status s;
    char *grant = kit_grant(&kit);
    ck_assert_int_eq(token_status_check(grant, strlen(grant), kit.ring, NULL, &s, NULL),
                     -1);
    free(grant);
}
END_TEST

/* The largest document that is promised fits its bound. */
START_TEST(test_status_of_10000)
{
    struct strbuf b = STRBUF_INIT;
    strbuf_adds(&b, STATUS_HEAD "\"now_us\":1795384392000001,\"revoked\":[");
    for (int i = 0; i < STATUS_REVOKED_MAX; i++)
        strbuf_addf(&b, "%s\"019307d0-7b3a-7c3e-8a5b-%012x\"", i == 0 ? "" : ",", i);
    strbuf_adds(&b, "],\"revoked_kids\":[]}");
    char *text = status_document(&kit, b.data);
    struct token_status s;
    struct err err;
    ck_assert_msg(token_status_check(text, strlen(text), kit.ring, NULL, &s, &err) == 0,
                  "%s", err.text);
    ck_assert_uint_eq(s.revoked_count, STATUS_REVOKED_MAX);
    token_status_done(&s);
    free(text);
    strbuf_done(&b);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("status");
    TCase *tc = tcase_create("status");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_status_document);
    tcase_add_test(tc, test_status_of_10000);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
