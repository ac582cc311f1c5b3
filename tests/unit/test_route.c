/* Routes, percent-decoding, queries, rate limits, the access log line. */
#include "tests/unit/unit.h"

#include <stdio.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/xalloc.h"
#include "server/net/accesslog.h"
#include "server/net/bucket.h"
#include "server/net/route.h"
#include "server/net/uri.h"

static enum flow_turn nothing(struct flow *f)
{
    return flow_reply_empty(f, 204);
}
static const struct flow_step steps[] = {{"nothing", nothing}};
static const struct flow_kind kind = FLOW_KIND("kind", int, steps);

static const struct route rows[] = {
    {"GET", "/v1/things", ROLE_ANY, &kind, RATE_READ, 0},
    {"POST", "/v1/things", ROLE_ANY, &kind, RATE_WRITE, ROUTE_BODY},
    {"GET", "/v1/things/new", ROLE_ANY, &kind, RATE_READ, 0},
    {"GET", "/v1/things/{id}", ROLE_ANY, &kind, RATE_READ, 0},
    {"DELETE", "/v1/things/{id}", ROLE_ANY, &kind, RATE_READ, 0},
    {"GET", "/v1/things/all", ROLE_ANY, &kind, RATE_READ, 0},
    {"GET", "/v1/things/{id}/parts/{part}", ROLE_ANY, &kind, RATE_READ, 0},
};

static const struct {
    const char *method, *path;
    int row; /* -1: error */
    enum err_code code;
    const char *more; /* params "a=b", or the Allow header */
} finds[] = {
    {"GET", "/v1/things", 0, 0, ""},
    {"HEAD", "/v1/things", 0, 0, ""},
    {"POST", "/v1/things", 1, 0, ""},
    {"PUT", "/v1/things", -1, ERR_METHOD, "GET, HEAD, POST"},
    {"get", "/v1/things", -1, ERR_METHOD, "GET, HEAD, POST"},
    {"GET", "/v1/things/", -1, ERR_NOT_FOUND, ""},
    {"GET", "/v1//things", -1, ERR_NOT_FOUND, ""},
    {"GET", "/v1/thing", -1, ERR_NOT_FOUND, ""},
    {"GET", "/", -1, ERR_NOT_FOUND, ""},
    {"GET", "/v1/things/x7", 3, 0, "id=x7"},
    {"DELETE", "/v1/things/x7", 4, 0, "id=x7"},
    {"GET", "/v1/things/all", 5, 0, ""},
    {"DELETE", "/v1/things/all", -1, ERR_METHOD, "GET, HEAD"},
    {"GET", "/v1/things/new", 2, 0, ""}, /* before {id} in the table, or after */
    {"GET", "/v1/things/%61ll", 5, 0, ""},
    {"GET", "/v1/things/a%20b/parts/%E6%9D%B1", 6, 0, "id=a b part=\xe6\x9d\xb1"},
    {"GET", "/v1/things/..", 3, 0, "id=.."},
    {"GET", "/v1/things/a%2fb", -1, ERR_BAD_REQUEST, ""},
    {"GET", "/v1/things/%00", -1, ERR_BAD_REQUEST, ""},
    {"GET", "/v1/things/%zz", -1, ERR_BAD_REQUEST, ""},
    {"GET", "/v1/things/%e", -1, ERR_BAD_REQUEST, ""},
    {"GET", "/v1/things/%ff", -1, ERR_BAD_REQUEST, ""},
    {"GET", "/a/b/c/d/e/f/g/h/i", -1, ERR_NOT_FOUND, ""},
};

START_TEST(test_find)
{
    struct route_table *t = route_table_new(rows, sizeof(rows) / sizeof(rows[0]));
    for (size_t i = 0; i < sizeof(finds) / sizeof(finds[0]); i++) {
        struct flow_request *rq = flow_request_new();
        struct route_match m;
        struct err err;
        const char *at = finds[i].path;
        int rc = route_find(t, finds[i].method, at, rq, &m, &err);
        if (finds[i].row < 0) {
            ck_assert_msg(rc == -1 && err.code == finds[i].code, "%s: %d", at, rc);
            ck_assert_str_eq(m.allow, finds[i].more);
            flow_request_free(rq);
            continue;
        }
        ck_assert_msg(rc == 0 && m.route == &rows[finds[i].row], "%s", at);
        struct strbuf b = STRBUF_INIT;
        for (size_t k = 0; k < rq->param_count; k++)
            strbuf_addf(&b, "%s%s=%s", k > 0 ? " " : "", rq->params[k].name,
                        rq->params[k].value);
        ck_assert_str_eq(strbuf_str(&b), finds[i].more);
        strbuf_done(&b);
        flow_request_free(rq);
    }
    route_table_free(t);
}
END_TEST

static const struct {
    const char *query;
    const char *want; /* NULL: refused */
} queries[] = {
    {"", ""},
    {"a=1", "[a|1]"},
    {"a=1&b=2", "[a|1][b|2]"},
    {"a", "[a|]"},
    {"a=", "[a|]"},
    {"a=b=c", "[a|b=c]"},
    {"t=2026-01-01T00:00:00+09:00", "[t|2026-01-01T00:00:00+09:00]"},
    {"a=%26%3d", "[a|&=]"},
    {"a=1&", "[a|1]"},
    {"a=1&a=2", NULL},
    {"%61=1&a=2", NULL},
    {"=1", NULL},
    {"a=1&&b=2", NULL},
    {"a=%", NULL},
    {"a=%1", NULL},
    {"a=%0a", NULL},
    {"a=%c0%80", NULL},
    {"a=%ed%a0%80", NULL},
    {"a=%f4%90%80%80", NULL},
};

START_TEST(test_query)
{
    for (size_t i = 0; i < sizeof(queries) / sizeof(queries[0]); i++) {
        struct flow_request *rq = flow_request_new();
        struct strbuf b = STRBUF_INIT;
        struct err err;
        int rc = uri_query(queries[i].query, rq, &err);
        ck_assert_msg((rc == 0) == (queries[i].want != NULL), "%s", queries[i].query);
        for (size_t k = 0; k < rq->query_count; k++)
            strbuf_addf(&b, "[%s|%s]", rq->query[k].name, rq->query[k].value);
        if (queries[i].want != NULL)
            ck_assert_str_eq(strbuf_str(&b), queries[i].want);
        strbuf_done(&b);
        flow_request_free(rq);
    }
}
END_TEST

static const struct {
    const char *form;
    size_t len;       /* 0: up to the NUL */
    const char *want; /* NULL: refused */
} forms[] = {
    {"", 0, "{}"},
    {"a=1&b=2", 0, "{\"a\":[\"1\"],\"b\":[\"2\"]}"},
    {"a=1&", 0, "{\"a\":[\"1\"]}"},
    {"a&b=", 0, "{\"a\":[\"\"],\"b\":[\"\"]}"},
    {"a=2&b=1&a=1&a", 0, "{\"a\":[\"2\",\"1\",\"\"],\"b\":[\"1\"]}"},
    {"a=b=c", 0, "{\"a\":[\"b=c\"]}"},
    /* HTML 4.01 section 17.13.4.1, RFC 6749 appendix B */
    {"a+b=c+d%2B%26%3d%25", 0, "{\"a b\":[\"c d+&=%\"]}"},
    {"%c3%A6=+%25%26%2B%C2%A3%E2%82%AC", 0,
     "{\"\xc3\xa6\":[\" %&+\xc2\xa3\xe2\x82\xac\"]}"},
    {"a=\xe6\x9d\xb1", 0, "{\"a\":[\"\xe6\x9d\xb1\"]}"},
    {"%61=1&a=2", 0, "{\"a\":[\"1\",\"2\"]}"},
    {"=1", 0, NULL},
    {"&a=1", 0, NULL},
    {"a=1&&b=2", 0, NULL},
    {"a=%", 0, NULL},
    {"a=%4", 0, NULL},
    {"a=%4&b=1", 0, NULL}, /* does not reach over the next one */
    {"a=%4g", 0, NULL},
    {"a=%+1", 0, NULL},
    {"a=%u0041", 0, NULL},
    {"%=1", 0, NULL},
    {"a=%00", 0, NULL},
    {"a%00b=1", 0, NULL},
    {"a=1\0b", 5, NULL},
    {"a=%0d%0a", 0, NULL},
    {"a=1\r\n", 0, NULL},
    {"a=%7f", 0, NULL},
    {"a=%ff", 0, NULL},
    {"a=%e6%9d", 0, NULL},
    {"a=%c0%80", 0, NULL},
    {"a=%ed%a0%80", 0, NULL},
    {"a=%f4%90%80%80", 0, NULL},
    {"%c3=%a6", 0, NULL},
};

START_TEST(test_form)
{
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        const char *text = forms[i].form;
        struct err err;
        size_t len = forms[i].len > 0 ? forms[i].len : strlen(text);
        char *exact = xmalloc(len + 1); /* a read past the end is one past the heap's */
        memcpy(exact, text, len);
        json_t *form = uri_form(exact, len, &err);
        free(exact);
        if (forms[i].want == NULL) {
            ck_assert_msg(form == NULL && err.code == ERR_BAD_REQUEST, "%s", text);
            continue;
        }
        ck_assert_msg(form != NULL, "%s", text);
        char *got = jsonx_canonical(form);
        ck_assert_str_eq(got, forms[i].want);
        free(got);
        json_decref(form);
    }
}
END_TEST

START_TEST(test_form_is_bounded)
{
    struct strbuf b = STRBUF_INIT;
    struct err err;
    for (int i = 0; i < FLOW_QUERY_MAX; i++)
        strbuf_adds(&b, i % 2 > 0 ? "a=1&" : "b&");
    json_t *form = uri_form(b.data, b.len, &err);
    ck_assert_ptr_nonnull(form);
    json_decref(form);
    strbuf_adds(&b, "c=1");
    ck_assert_ptr_null(uri_form(b.data, b.len, &err));
    ck_assert_int_eq(err.code, ERR_BAD_REQUEST);
    strbuf_reset(&b);
    strbuf_adds(&b, "a=");
    while (b.len < FORM_BYTES_MAX)
        strbuf_addc(&b, 'x');
    form = uri_form(b.data, b.len, &err);
    ck_assert_ptr_nonnull(form);
    json_decref(form);
    strbuf_addc(&b, 'x');
    ck_assert_ptr_null(uri_form(b.data, b.len, &err));
    ck_assert_int_eq(err.code, ERR_TOO_LARGE);
    strbuf_done(&b);
}
END_TEST

START_TEST(test_query_count_is_bounded)
{
    struct strbuf b = STRBUF_INIT;
    for (int i = 0; i < FLOW_QUERY_MAX; i++)
        strbuf_addf(&b, "p%d=1&", i);
    struct err err;
    struct flow_request *rq = flow_request_new();
    ck_assert_int_eq(uri_query(strbuf_str(&b), rq, &err), 0);
    flow_request_free(rq);
    strbuf_adds(&b, "more=1");
    rq = flow_request_new();
    ck_assert_int_eq(uri_query(strbuf_str(&b), rq, &err), -1);
    flow_request_free(rq);
    strbuf_done(&b);
}
END_TEST

START_TEST(test_bucket)
{
    static const struct bucket_rate rate = {1000, 3};
    int64_t tat = 0, wait = 0, now = 1000000;
    for (int i = 0; i < 3; i++)
        ck_assert(bucket_take(&tat, &rate, now, &wait));
    ck_assert(!bucket_take(&tat, &rate, now, &wait));
    ck_assert_int_eq(wait, 1000);
    ck_assert(!bucket_take(&tat, &rate, now + 999, &wait));
    ck_assert_int_eq(wait, 1);
    ck_assert(bucket_take(&tat, &rate, now + 1000, &wait));
    ck_assert(!bucket_take(&tat, &rate, now + 1000, &wait));
    now += 1000000; /* a rest gives the burst back, not more */
    for (int i = 0; i < 3; i++)
        ck_assert(bucket_take(&tat, &rate, now, &wait));
    ck_assert(!bucket_take(&tat, &rate, now, &wait));
    now -= 500000000; /* the clock was set back */
    ck_assert(!bucket_take(&tat, &rate, now, &wait));
    ck_assert_int_le(wait, 1000);
    static const struct bucket_rate none = {0, 0};
    for (int i = 0; i < 100; i++)
        ck_assert(bucket_take(&tat, &none, now, &wait));
}
END_TEST

/* In the long run exactly the rate: one request a ms for 10 s at one per 2.5 ms. */
START_TEST(test_bucket_long_run)
{
    static const struct bucket_rate rate = {2500, 10};
    int64_t tat = 0, wait;
    int taken = 0;
    for (int64_t now = 0; now < 10000000; now += 1000)
        taken += bucket_take(&tat, &rate, now, &wait);
    ck_assert_int_ge(taken, 4000);
    ck_assert_int_le(taken, 4010);
}
END_TEST

START_TEST(test_bucket_table)
{
    static const struct bucket_rate rate = {1000000, 2};
    struct bucket_table *t = bucket_table_new(1024, 42);
    int64_t wait;
    char key[32];
    ck_assert(bucket_table_take(t, "a", &rate, 1, &wait));
    ck_assert(bucket_table_take(t, "a", &rate, 1, &wait));
    ck_assert(!bucket_table_take(t, "a", &rate, 1, &wait));
    ck_assert(bucket_table_take(t, "b", &rate, 1, &wait));
    int kept = 0;
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof(key), "client-%d", i);
        ck_assert(bucket_table_take(t, key, &rate, 2, &wait));
        ck_assert(bucket_table_take(t, key, &rate, 2, &wait));
    }
    for (int i = 0; i < 300; i++) {
        snprintf(key, sizeof(key), "client-%d", i);
        kept += !bucket_table_take(t, key, &rate, 2, &wait);
    }
    ck_assert_int_ge(kept, 295); /* a third full: hardly any is forgotten */
    bucket_table_free(t);
}
END_TEST

START_TEST(test_access_line)
{
    struct http1_done done = {
        .method = "POST",
        .path = "/v1/reservations",
        .who = "tenant:acme",
        .remote = "[::1]:5004",
        .request_id = "ID",
        .status = 201,
        .took_us = 1834,
        .bytes = 512,
    };
    struct strbuf b = STRBUF_INIT;
    accesslog_line(&done, &b);
    ck_assert_str_eq(strbuf_str(&b),
                     "POST /v1/reservations 201 1834us 512B tenant:acme [::1]:5004 ID");
    strbuf_done(&b);
}
END_TEST

UNIT_MAIN("route",
          UNIT_CASE(test_find) UNIT_CASE(test_query)
              UNIT_CASE(test_query_count_is_bounded) UNIT_CASE(test_form)
                  UNIT_CASE(test_form_is_bounded) UNIT_CASE(test_bucket)
                      UNIT_CASE(test_bucket_long_run) UNIT_CASE(test_bucket_table)
                          UNIT_CASE(test_access_line))
