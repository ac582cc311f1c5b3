/* A token exchange that comes as a form: the body it becomes, and OAuth's errors. */
#include "tests/unit/unit.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/strbuf.h"
#include "server/flow/exchange_form.h"
#include "server/flow/oauth.h"
#include "server/net/uri.h"

static const struct {
    const char *form;
    const char *want; /* JSON; or, of a refusal, what its text begins with */
} forms[] = {
    {"", "{}"},
    {"grant_type=urn%3Aietf%3aparams&subject_token=e30.e30",
     "{\"grant_type\":\"urn:ietf:params\",\"subject_token\":\"e30.e30\"}"},
    {"not_after=2027-01-01T00%3A00%3A00Z&proof=x&scope=a+b%2Bc",
     "{\"not_after\":\"2027-01-01T00:00:00Z\",\"proof\":\"x\",\"scope\":\"a b+c\"}"},
    {"gpus=GPU-a%2CGPU-b&actions=launch", "{\"actions\":[\"launch\"],\"gpus\":"
                                          "[\"GPU-a\",\"GPU-b\"]}"},
    {"gpus=a%2C", "{\"gpus\":[\"a\",\"\"]}"},
    {"jwk=%7B%22kty%22%3A+%22OKP%22%7D", "{\"jwk\":{\"kty\":\"OKP\"}}"},
    /* RFC 6749 section 3.2: without a value is not sent, unknown says nothing */
    {"gpus=&jwk&scope=&proof=x", "{\"proof\":\"x\"}"},
    {"client_id=me&foo=bar&proof=x", "{\"proof\":\"x\"}"},
    {"Proof=x&proof+=y", "{}"},
    /* RFC 8693 section 2.1: these may come again */
    {"audience=a", "{\"audience\":[\"a\"]}"},
    {"audience=a&resource=c&audience=b", "{\"audience\":[\"a\",\"b\"],\"resource\":"
                                         "[\"c\"]}"},
    {"resource=&resource=c&audience=", "{\"resource\":[\"c\"]}"},
    /* and nothing else may, be it unknown, the same or empty */
    {"proof=x&proof=x", "/proof: given more than once"},
    {"proof=x&gpus=a&%70roof=", "/proof: given more than once"},
    {"foo=1&proof=x&foo=1", "/foo: given more than once"},
    {"jwk=%7B", "/jwk: bad JSON"},
    {"jwk=%7B%22a%22%3A1%2C%22a%22%3A2%7D", "/jwk: bad JSON"},
    {"jwk=%5B1%5D", "/jwk: expected a JSON object"},
};

START_TEST(test_form)
{
    struct err err = {0};
    json_t *form = uri_form(forms[_i].form, strlen(forms[_i].form), &err);
    ck_assert_msg(form != NULL, "%s", err.text);
    json_t *body = exchange_of_form(form, &err);
    json_decref(form);
    const char *want = forms[_i].want;
    if (want[0] != '{') {
        ck_assert_ptr_null(body);
        ck_assert_int_eq(err.code, ERR_BAD_REQUEST);
        ck_assert_msg(strncmp(err.text, want, strlen(want)) == 0, "%s", err.text);
        return;
    }
    ck_assert_msg(body != NULL, "%s: %s", forms[_i].form, err.text);
    char *got = jsonx_canonical(body);
    ck_assert_str_eq(got, want);
    free(got);
    json_decref(body);
}
END_TEST

START_TEST(test_long_jwk)
{
    struct strbuf b = STRBUF_INIT;
    strbuf_adds(&b, "jwk=%7B%22a%22%3A%22");
    for (int i = 0; i < 1100; i++)
        strbuf_addc(&b, 'x');
    strbuf_adds(&b, "%22%7D");
    struct err err;
    json_t *form = uri_form(b.data, b.len, &err);
    ck_assert_ptr_nonnull(form);
    ck_assert_ptr_null(exchange_of_form(form, &err));
    ck_assert_int_eq(err.code, ERR_TOO_LARGE);
    json_decref(form);
    strbuf_done(&b);
}
END_TEST

static const struct {
    enum err_code code;
    const char *chosen, *name;
    int status;
} errors[] = {
    {ERR_BAD_REQUEST, NULL, "invalid_request", 400},
    {ERR_TOO_LARGE, NULL, "invalid_request", 400},
    {ERR_TOKEN, NULL, "invalid_request", 400}, /* RFC 8693 section 2.2.2 */
    {ERR_FORBIDDEN, NULL, "invalid_request", 400},
    {ERR_CONFLICT, NULL, "invalid_request", 400},
    {ERR_UNAUTHENTICATED, NULL, "invalid_client", 401},
    {ERR_TOKEN, "invalid_client", "invalid_client", 401},
    {ERR_FORBIDDEN, "invalid_scope", "invalid_scope", 400},
    {ERR_BAD_REQUEST, "invalid_target", "invalid_target", 400},
    {ERR_BAD_REQUEST, "unsupported_grant_type", "unsupported_grant_type", 400},
    {ERR_RATE_LIMITED, "invalid_client", "temporarily_unavailable", 429},
    {ERR_UNAVAILABLE, NULL, "temporarily_unavailable", 503},
    {ERR_INTERNAL, "invalid_client", "server_error", 500},
    {ERR_IO, NULL, "server_error", 500},
};

START_TEST(test_errors)
{
    struct err err = {.code = errors[_i].code};
    struct oauth_error as = oauth_error_of(&err, errors[_i].chosen);
    ck_assert_str_eq(as.name, errors[_i].name);
    ck_assert_int_eq(as.status, errors[_i].status);
}
END_TEST

static const struct {
    enum err_code code;
    const char *text, *body;
} bodies[] = {
    {ERR_BAD_REQUEST, "/proof: required",
     "{\"error\":\"invalid_request\",\"error_description\":\"proof: required\"}"},
    {ERR_BAD_REQUEST, "a \"b\\\x7f\n\xe6\x9d ~",
     "{\"error\":\"invalid_request\",\"error_description\":\"a 'b????? ~\"}"},
    {ERR_INTERNAL, "password",
     "{\"error\":\"server_error\",\"error_description\":\"the server failed; its log "
     "has the reason\"}"},
};

START_TEST(test_bodies)
{
    struct err err;
    (void)err_set(&err, bodies[_i].code, "%s", bodies[_i].text);
    struct oauth_error as = oauth_error_of(&err, NULL);
    char *got = oauth_error_body(&err, &as);
    ck_assert_str_eq(got, bodies[_i].body);
    free(got);
}
END_TEST

#define LOOP(fn, table) \
    tcase_add_loop_test(tc, fn, 0, (int)(sizeof(table) / sizeof((table)[0])));

UNIT_MAIN("oauth", LOOP(test_form, forms) UNIT_CASE(test_long_jwk)
                       LOOP(test_errors, errors) LOOP(test_bodies, bodies))
