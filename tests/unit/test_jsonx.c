/* test_jsonx: strict parsing, decoding by table, canonical form. */
#include <string.h>

#include "client/lib/bounds.h"
#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "tests/unit/unit.h"

static json_t *parse(const char *text, struct err *err)
{
    return jsonx_parse(text, strlen(text), 4096, err);
}

START_TEST(test_parse_refused)
{
    static const struct {
        const char *text, *part;
    } table[] = {
        {"", "bad JSON"},
        {"[]", "expected a JSON object, got array"},
        {"\"x\"", "bad JSON"},
        {"{} x", "bad JSON at line 1 column 4"},
        {"{}{}", "bad JSON"},
        {"{\"a\":1,\"a\":2}", "duplicate"},
        {"{\"a\":1,}", "bad JSON"},
        {"{'a':1}", "bad JSON"},
        {"{\"a\":01}", "bad JSON"},
        {"{\"a\":1.}", "bad JSON"},
        {"{\"a\":NaN}", "bad JSON"},
        {"{\"a\":1e999}", "bad JSON"},
        {"{\"a\":9223372036854775808}", "bad JSON"},
        {"{\"a\":\"\\u0000\"}", "bad JSON"},
        {"{\"a\":\"\xff\"}", "bad JSON"},
        {"{\"a\":\"\\ud800\"}", "bad JSON"},
        {"{\"a\":\"\n\"}", "bad JSON"},
        {"{\"a\":/**/1}", "bad JSON"},
        {"{\"a\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]}", "deeper than 16"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct err e = {0};
        ck_assert_msg(parse(table[i].text, &e) == NULL, "accepted %s", table[i].text);
        ck_assert_int_eq(e.code, ERR_BAD_REQUEST);
        ck_assert_msg(strstr(e.text, table[i].part) != NULL, "%s: %s", table[i].text,
                      e.text);
    }
    struct err e;
    ck_assert_ptr_null(jsonx_parse("{\"a\":1}", 7, 6, &e));
    ck_assert_int_eq(e.code, ERR_TOO_LARGE);
}
END_TEST

START_TEST(test_depth)
{
    ck_assert_int_eq(jsonx_check_depth("{\"a\":[]}", 8, 2, NULL), 0);
    ck_assert_int_eq(jsonx_check_depth("{\"a\":[]}", 8, 1, NULL), -1);
    /* Brackets in strings are text, and an escaped quote does not end one. */
    static const char quoted[] = "{\"a\":\"[[[[\\\"[[[[\"}";
    ck_assert_int_eq(jsonx_check_depth(quoted, strlen(quoted), 1, NULL), 0);
    static const char siblings[] = "{\"a\":[1],\"b\":[2],\"c\":[3]}";
    ck_assert_int_eq(jsonx_check_depth(siblings, strlen(siblings), 2, NULL), 0);
    char deep[6001];
    memset(deep, '[', 3000);
    memset(deep + 3000, ']', 3000);
    ck_assert_int_eq(jsonx_check_depth(deep, 6000, JSONX_DEPTH_MAX, NULL), -1);
}
END_TEST

struct sample {
    const char *s;
    int64_t i, t, d;
    bool b;
    double r;
    json_t *o, *a, *any;
};

#define AT(member) offsetof(struct sample, member)
static const struct jsonx_field fields[] = {
    {"s", JSONX_STRING, false, AT(s), 1, 5},
    {"i", JSONX_INT, true, AT(i), 1, 16},
    {"t", JSONX_TIME, false, AT(t)},
    {"d", JSONX_DURATION, false, AT(d), 1, 3600 * US_PER_S},
    {"b", JSONX_BOOL, false, AT(b)},
    {"r", JSONX_REAL, false, AT(r), 1, 10},
    {"o", JSONX_OBJECT, false, AT(o)},
    {"a", JSONX_ARRAY, false, AT(a), 1, 2},
    {"any", JSONX_ANY, false, AT(any)},
};

START_TEST(test_decode)
{
    struct err e;
    json_t *v =
        parse("{\"i\":16,\"s\":\"abc\",\"t\":\"1970-01-01T00:00:01Z\",\"d\":\"5m\","
              "\"b\":true,\"r\":2,\"o\":{},\"a\":[1],\"any\":null}",
              &e);
    struct sample out = {0};
    ck_assert_ptr_nonnull(v);
    ck_assert_msg(jsonx_decode(v, fields, JSONX_COUNT(fields), &out, "", &e) == 0, "%s",
                  e.text);
    ck_assert_str_eq(out.s, "abc");
    ck_assert_int_eq(out.i, 16);
    ck_assert_int_eq(out.t, US_PER_S);
    ck_assert_int_eq(out.d, 300 * US_PER_S);
    ck_assert(out.b && out.r == 2.0 && json_is_object(out.o) && json_is_array(out.a));
    ck_assert(json_is_null(out.any));
    json_decref(v);
    v = parse("{\"i\":1,\"s\":null}", &e);
    out = (struct sample){.s = "kept", .b = true};
    ck_assert_int_eq(jsonx_decode(v, fields, JSONX_COUNT(fields), &out, "", &e), 0);
    ck_assert_str_eq(out.s, "kept");
    ck_assert(out.b);
    json_decref(v);
}
END_TEST

START_TEST(test_decode_refused)
{
    static const struct {
        const char *text, *message;
    } table[] = {
        {"{}", "/x/i: missing"},
        {"{\"i\":null}", "/x/i: expected integer 1..16, got null"},
        {"{\"i\":\"1\"}", "/x/i: expected integer 1..16, got string"},
        {"{\"i\":1.0}", "/x/i: expected integer 1..16, got real"},
        {"{\"i\":17}", "/x/i: expected integer 1..16, got 17"},
        {"{\"i\":0}", "/x/i: expected integer 1..16, got 0"},
        {"{\"i\":1,\"zz\":2}", "/x/zz: unknown member"},
        {"{\"i\":1,\"s\":\"\"}", "/x/s: expected string length 1..5, got 0"},
        {"{\"i\":1,\"s\":\"123456\"}", "/x/s: expected string length 1..5, got 6"},
        {"{\"i\":1,\"s\":1}", "/x/s: expected string, got integer"},
        {"{\"i\":1,\"t\":\"x\"}", "/x/t: bad time 'x'"},
        {"{\"i\":1,\"t\":5}", "/x/t: expected time, got integer"},
        {"{\"i\":1,\"d\":\"2h\"}", "/x/d: expected duration 1us..1h, got 2h"},
        {"{\"i\":1,\"d\":\"-1s\"}", "/x/d: bad duration"},
        {"{\"i\":1,\"b\":1}", "/x/b: expected boolean, got integer"},
        {"{\"i\":1,\"r\":10.5}", "/x/r: expected number 1..10, got 10.5"},
        {"{\"i\":1,\"r\":true}", "/x/r: expected number, got true"},
        {"{\"i\":1,\"o\":[]}", "/x/o: expected object, got array"},
        {"{\"i\":1,\"a\":{}}", "/x/a: expected array, got object"},
        {"{\"i\":1,\"a\":[]}", "/x/a: expected array length 1..2, got 0"},
        {"{\"i\":1,\"a\":[1,2,3]}", "/x/a: expected array length 1..2, got 3"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct err e = {0};
        struct sample out = {0};
        json_t *v = parse(table[i].text, &e);
        ck_assert_ptr_nonnull(v);
        ck_assert_msg(jsonx_decode(v, fields, JSONX_COUNT(fields), &out, "/x", &e) ==
                          -1,
                      "accepted %s", table[i].text);
        ck_assert_int_eq(e.code, ERR_BAD_REQUEST);
        ck_assert_msg(strncmp(e.text, table[i].message, strlen(table[i].message)) == 0,
                      "%s: %s", table[i].text, e.text);
        json_decref(v);
    }
    struct err e;
    struct sample out;
    json_t *array = json_array();
    ck_assert_int_eq(jsonx_decode(array, fields, JSONX_COUNT(fields), &out, "", &e),
                     -1);
    ck_assert_str_eq(e.text, "/: expected object, got array");
    ck_assert_int_eq(jsonx_decode(NULL, fields, JSONX_COUNT(fields), &out, "", &e), -1);
    json_decref(array);
}
END_TEST

START_TEST(test_unbounded_string)
{
    static const struct jsonx_field one[] = {{"s", JSONX_STRING, true, 0}};
    char text[1100];
    memset(text, 'x', sizeof(text));
    json_t *ok = json_pack("{s:s%}", "s", text, 1024);
    json_t *over = json_pack("{s:s%}", "s", text, 1025);
    const char *s;
    ck_assert_int_eq(jsonx_decode(ok, one, 1, &s, "", NULL), 0);
    ck_assert_int_eq(jsonx_decode(over, one, 1, &s, "", NULL), -1);
    json_decref(ok);
    json_decref(over);
}
END_TEST

/* RFC 8785 section 3.2.3: the order of keys is that of UTF-16 code units; the same
 * section's example, with string values. */
START_TEST(test_canonical)
{
    static const struct {
        const char *text, *want;
    } table[] = {
        {"{\"b\":1,\"a\":[true,false,null,-5]}",
         "{\"a\":[true,false,null,-5],\"b\":1}"},
        {"{\"\\u20ac\":\"Euro\",\"\\r\":\"CR\",\"\\ufb33\":\"Dalet\",\"1\":\"One\","
         "\"\\ud83d\\ude00\":\"Smile\",\"\\u0080\":\"Control\",\"\\u00f6\":\"O\"}",
         "{\"\\r\":\"CR\",\"1\":\"One\",\"\xc2\x80\":\"Control\",\"\xc3\xb6\":\"O\","
         "\"\xe2\x82\xac\":\"Euro\",\"\xf0\x9f\x98\x80\":\"Smile\",\"\xef\xac\xb3\":"
         "\"Dalet\"}"},
        {"{\"s\":\"\\u000f\\u000A\\u0008\\t\\f'\\u0042\\u0022\\u005c\\\\\\\"\\/"
         "\\u007f\"}",
         "{\"s\":\"\\u000f\\n\\b\\t\\f'B\\\"\\\\\\\\\\\"/\x7f\"}"},
        {"{\"n\":9007199254740993}", "{\"n\":9007199254740993}"},
        {"{}", "{}"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct err e;
        json_t *v = parse(table[i].text, &e);
        ck_assert_ptr_nonnull(v);
        char *got = jsonx_canonical(v);
        ck_assert_str_eq(got, table[i].want);
        free(got);
        json_decref(v);
    }
    json_t *real = parse("{\"a\":[1.5]}", NULL);
    ck_assert_ptr_null(jsonx_canonical(real));
    json_decref(real);
}
END_TEST

START_TEST(test_values)
{
    json_t *v = json_pack("{s:o, s:o, s:o}", "m", jsonx_money("JPY", 1234000000), "t",
                          jsonx_time(US_PER_S), "n", jsonx_time(INT64_MIN));
    char *text = jsonx_dump(v);
    ck_assert_str_eq(text, "{\"m\":{\"currency\":\"JPY\",\"micro\":1234000000},"
                           "\"t\":\"1970-01-01T00:00:01Z\",\"n\":null}");
    free(text);
    json_decref(v);
}
END_TEST

UNIT_MAIN("jsonx",
          UNIT_CASE(test_parse_refused) UNIT_CASE(test_depth) UNIT_CASE(test_decode)
              UNIT_CASE(test_decode_refused) UNIT_CASE(test_unbounded_string)
                  UNIT_CASE(test_canonical) UNIT_CASE(test_values))
