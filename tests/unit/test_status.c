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

static const struct {
    const char *name, *payload;
    bool good;
} documents[] = {
    {"good",
     STATUS_HEAD "\"now_us\":1795384392000001,\"revoked\":[\"" KIT_RES
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
    {"min_epochs no object",
     STATUS_HEAD "\"now_us\":1795384392000001,\"revoked\":[],\"revoked_kids\":[],"
                 "\"min_epochs\":[]}",
     false},
    {"min_epochs of no GPU",
     STATUS_HEAD "\"now_us\":1795384392000001,\"revoked\":[],\"revoked_kids\":[],"
                 "\"min_epochs\":{\"../0\":1}}",
     false},
    {"epoch a string",
     STATUS_HEAD "\"now_us\":1795384392000001,\"revoked\":[],\"revoked_kids\":[],"
                 "\"min_epochs\":{\"GPU-1\":\"1\"}}",
     false},
    {"epoch negative",
     STATUS_HEAD "\"now_us\":1795384392000001,\"revoked\":[],\"revoked_kids\":[],"
                 "\"min_epochs\":{\"GPU-1\":-1}}",
     false},
    {"GPU there twice",
     STATUS_HEAD "\"now_us\":1795384392000001,\"revoked\":[],\"revoked_kids\":[],"
                 "\"min_epochs\":{\"GPU-1\":1,\"GPU-1\":2}}",
     false},
    {"other issuer",
     "{\"iss\":\"x\",\"iat\":1795384392,\"seq\":9,\"now_us\":1795384392000001,"
     "\"revoked\":[],\"revoked_kids\":[]}",
     false},
};

START_TEST(test_status_document)
{
    for (size_t i = 0; i < sizeof(documents) / sizeof(documents[0]); i++) {
        char *text = status_document(&kit, documents[i].payload);
        struct token_status s;
        struct err err = {0};
        int rc = token_status_check(text, strlen(text), kit.ring, KIT_ISSUER, &s, &err);
        ck_assert_msg((rc == 0) == documents[i].good, "%s: %s", documents[i].name,
                      err.text);
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

/* A revoked lease's GPUs want a later epoch: named GPUs only, equal is not later. */
START_TEST(test_min_epochs)
{
    static const struct {
        const char *name, *min_epochs;
        bool good;
    } table[] = {
        {"none", "{}", true},
        {"other GPU", "{\"GPU-0\":1795384392000000,\"GPU-9\":1795384392000000}", true},
        {"later booking",
         "{\"GPU-5f7a0c1e-3b2d-4e6f-8a9b-0c1d2e3f4a01\":1795384391999999}", true},
        {"equal epoch with other lease",
         "{\"GPU-x\":1,\"GPU-5f7a0c1e-3b2d-4e6f-8a9b-0c1d2e3f4a01\":1795384392000000,"
         "\"GPU-0\":2}",
         false},
        {"lower epoch",
         "{\"GPU-5f7a0c1e-3b2d-4e6f-8a9b-0c1d2e3f4a00\":1795384392000001}", false},
    };
    char *grant = kit_grant(&kit);
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        char *payload =
            xasprintf(STATUS_HEAD "\"now_us\":1795384392000001,\"revoked\":"
                                  "[],\"revoked_kids\":[],\"min_epochs\":%s}",
                      table[i].min_epochs);
        char *text = status_document(&kit, payload);
        struct token_status s;
        struct token_claims out;
        struct err err = {0};
        const char *step = "";
        ck_assert_msg(
            token_status_check(text, strlen(text), kit.ring, KIT_ISSUER, &s, &err) == 0,
            "%s: %s", table[i].name, err.text);
        struct token_check ctx = kit.ctx;
        ctx.status = &s;
        int rc = token_check(grant, strlen(grant), &ctx, &out, &step, &err);
        ck_assert_msg((rc == 0) == table[i].good, "%s: %s", table[i].name, err.text);
        if (rc != 0)
            ck_assert_str_eq(step, "epoch");
        token_status_done(&s);
        free(text);
        free(payload);
    }
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
    strbuf_adds(&b, "],\"revoked_kids\":[],\"min_epochs\":{");
    for (int i = 0; i < STATUS_EPOCHS_MAX; i++)
        strbuf_addf(&b, "%s\"GPU-5f7a0c1e-3b2d-4e6f-8a9b-%012x\":1795384392000000",
                    i == 0 ? "" : ",", i);
    strbuf_adds(&b, "}}");
    char *text = status_document(&kit, b.data);
    struct token_status s;
    struct err err;
    ck_assert_msg(token_status_check(text, strlen(text), kit.ring, NULL, &s, &err) == 0,
                  "%s", err.text);
    ck_assert_uint_eq(s.revoked_count, STATUS_REVOKED_MAX);
    ck_assert_int_eq(
        token_status_min_epoch(&s, "GPU-5f7a0c1e-3b2d-4e6f-8a9b-0000000003e7"),
        INT64_C(1795384392000000));
    ck_assert_int_eq(token_status_min_epoch(&s, "GPU-5f7a0c1e"), -1);
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
    tcase_add_test(tc, test_min_epochs);
    tcase_add_test(tc, test_status_of_10000);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
