/* httpc_exchange: one request and its reply, for both uses of httpc.h: what is asked of
 * libcurl, and what its verdict means to us. The question that matters is whether the
 * request may have reached the server: libcurl counts the request bytes it has sent. */
#include "client/lib/httpc_internal.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/bounds.h"
#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define HTTPC_TIMEOUT_US         INT64_C(30000000) /* when a request names none */
#define HTTPC_CONNECT_TIMEOUT_US INT64_C(10000000) /* three round trips, and loss */
#define HTTPC_REPLY_DEPTH_MAX    64 /* /openapi.json is the deepest reply, with 20 */

static size_t httpc_on_body(char *data, size_t size, size_t count, void *arg)
{
    struct httpc_exchange *x = arg;
    size_t len = size * count;
    if (len > HTTP_RESPONSE_MAX - x->reply.len) {
        x->reply_too_large = true;
        return 0; /* ends the transfer */
    }
    strbuf_add(&x->reply, data, len);
    return len;
}

/* No control characters, so nothing can be smuggled into the request's head. */
static bool httpc_is_clean(const char *text)
{
    for (const char *p = text; *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return false;
    return true;
}

static void httpc_header(struct httpc_exchange *x, const char *name, const char *value)
{
    char *line = xasprintf("%s: %s", name, value);
    struct curl_slist *grown = httpc_curl.slist_append(x->headers, line);
    free(line);
    if (grown == NULL)
        abort();
    x->headers = grown;
}

static void httpc_headers(struct httpc_exchange *x, const struct httpc_settings *s,
                          const struct httpc_request *rq)
{
    httpc_header(x, "Accept", "application/json");
    /* An empty value takes a header out: no waiting for 100-continue. */
    httpc_header(x, "Expect", "");
    if (x->body != NULL)
        httpc_header(x, "Content-Type", "application/json");
    if (rq->idempotency_key != NULL)
        httpc_header(x, "Idempotency-Key", rq->idempotency_key);
    if (s->bearer != NULL) {
        char *value = xasprintf("Bearer %s", s->bearer);
        httpc_header(x, "Authorization", value);
        OPENSSL_cleanse(value, strlen(value));
        free(value);
    }
}

static bool httpc_set_tls(CURL *easy, const struct httpc_settings *s)
{
    return httpc_curl.easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https") == CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_SSLVERSION,
                                  (long)CURL_SSLVERSION_TLSv1_3) == CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L) == CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L) == CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_CAINFO, s->ca_file) == CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_CAPATH, NULL) == CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_SSLCERT, s->cert_file) == CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_SSLKEY, s->key_file) == CURLE_OK;
}

static bool httpc_set_transfer(struct httpc_exchange *x, const struct httpc_settings *s,
                               const struct httpc_request *rq)
{
    CURL *easy = x->easy;
    int64_t timeout_us = rq->timeout_us > 0 ? rq->timeout_us : HTTPC_TIMEOUT_US;
    int64_t connect_us =
        timeout_us < HTTPC_CONNECT_TIMEOUT_US ? timeout_us : HTTPC_CONNECT_TIMEOUT_US;
    return httpc_curl.easy_setopt(easy, CURLOPT_URL, x->url) == CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_CUSTOMREQUEST, rq->method) ==
               CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_HTTPHEADER, x->headers) == CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_USERAGENT, s->user_agent) == CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_HTTP_VERSION,
                                  (long)CURL_HTTP_VERSION_1_1) == CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L) == CURLE_OK &&
           /* Only the market is spoken to, and it is told by configuration. */
           httpc_curl.easy_setopt(easy, CURLOPT_PROXY, "") == CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_TCP_KEEPALIVE, 1L) == CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_TIMEOUT_MS,
                                  (long)(timeout_us / 1000)) == CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS,
                                  (long)(connect_us / 1000)) == CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_WRITEFUNCTION, httpc_on_body) ==
               CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_WRITEDATA, x) == CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_ERRORBUFFER, x->why) == CURLE_OK;
}

static bool httpc_set_body(struct httpc_exchange *x, const struct httpc_request *rq)
{
    CURL *easy = x->easy;
    if (x->body == NULL && strcmp(rq->method, "POST") != 0)
        return httpc_curl.easy_setopt(easy, CURLOPT_HTTPGET, 1L) == CURLE_OK;
    const char *text = x->body == NULL ? "" : x->body;
    return httpc_curl.easy_setopt(easy, CURLOPT_POST, 1L) == CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long)strlen(text)) ==
               CURLE_OK &&
           httpc_curl.easy_setopt(easy, CURLOPT_POSTFIELDS, text) == CURLE_OK;
}

int httpc_exchange_init(struct httpc_exchange *x, const struct httpc_settings *s,
                        CURL *easy, const struct httpc_request *rq, struct err *err)
{
    *x = (struct httpc_exchange){.easy = easy};
    if (!httpc_is_clean(rq->path) || rq->path[0] != '/' ||
        (rq->idempotency_key != NULL && !httpc_is_clean(rq->idempotency_key)))
        return err_set(err, ERR_BAD_REQUEST,
                       "the path or idempotency key cannot be sent");
    x->safe = strcmp(rq->method, "GET") == 0;
    x->url = xasprintf("%s%s", s->base_url, rq->path);
    x->body = rq->body == NULL ? NULL : jsonx_dump(rq->body);
    httpc_headers(x, s, rq);
    /* The body first: its options set a method, which ours then replaces. */
    if (!httpc_set_body(x, rq) || !httpc_set_tls(easy, s) ||
        !httpc_set_transfer(x, s, rq)) {
        httpc_exchange_done(x);
        return err_set(err, ERR_INTERNAL, "libcurl lacks an option that is needed");
    }
    return 0;
}

void httpc_exchange_done(struct httpc_exchange *x)
{
    httpc_curl.slist_free_all(x->headers);
    free(x->url);
    free(x->body);
    strbuf_done(&x->reply);
    *x = (struct httpc_exchange){0};
}

static json_t *httpc_parse(const struct strbuf *text)
{
    if (text->len == 0 ||
        jsonx_check_depth(text->data, text->len, HTTPC_REPLY_DEPTH_MAX, NULL) != 0)
        return NULL;
    return json_loadb(text->data, text->len, JSON_REJECT_DUPLICATES, NULL);
}

/* What a status means when no problem+json says it better. */
static enum err_code httpc_status_code(int status, bool safe)
{
    static const struct {
        int status;
        enum err_code code;
    } table[] = {
        {400, ERR_BAD_REQUEST},  {401, ERR_UNAUTHENTICATED}, {402, ERR_FUNDS},
        {403, ERR_FORBIDDEN},    {404, ERR_NOT_FOUND},       {405, ERR_METHOD},
        {409, ERR_CONFLICT},     {413, ERR_TOO_LARGE},       {422, ERR_BAD_REQUEST},
        {429, ERR_RATE_LIMITED}, {503, ERR_UNAVAILABLE},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (table[i].status == status)
            return table[i].code;
    /* A balancer's 502 and 504: whatever stands behind it may have acted. */
    if (status == 502 || status == 504)
        return safe ? ERR_UNREACHABLE : ERR_UNKNOWN;
    return ERR_INTERNAL;
}

static int httpc_problem(const struct httpc_exchange *x, const struct httpc_reply *r,
                         struct err *err)
{
    const char *name = json_string_value(json_object_get(r->body, "code"));
    const char *detail = json_string_value(json_object_get(r->body, "detail"));
    const char *title = json_string_value(json_object_get(r->body, "title"));
    enum err_code code = httpc_status_code(r->status, x->safe);
    /* A name this program does not know yet falls back to the status. */
    if (name != NULL && strcmp(err_code_name(err_code_from_name(name)), name) == 0 &&
        err_code_from_name(name) != ERR_NONE)
        code = err_code_from_name(name);
    if (detail == NULL)
        detail = title;
    if (detail == NULL)
        return err_set(err, code, "the server answered with HTTP status %d", r->status);
    err_set(err, code, "%s", detail);
    for (char *p = err == NULL ? NULL : err->text; p != NULL && *p != '\0'; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = ' '; /* one line, and no terminal codes from a peer */
    return -1;
}

static int httpc_broken(struct httpc_exchange *x, CURLcode code, struct err *err)
{
    const char *why = x->why[0] != '\0' ? x->why : httpc_curl.easy_strerror(code);
    long sent = 0;
    if (x->reply_too_large)
        return err_set(err, ERR_TOO_LARGE, "the reply is larger than %d bytes",
                       HTTP_RESPONSE_MAX);
    if (code == CURLE_OUT_OF_MEMORY)
        abort();
    httpc_curl.easy_getinfo(x->easy, CURLINFO_REQUEST_SIZE, &sent);
    if (sent > 0 && !x->safe)
        return err_set(err, ERR_UNKNOWN,
                       "sent to %s, but no complete answer came (%s): it may or may "
                       "not have happened; repeat it with the same key",
                       x->url, why);
    return err_set(err, ERR_UNREACHABLE, "cannot reach %s: %s", x->url, why);
}

int httpc_exchange_result(struct httpc_exchange *x, CURLcode code,
                          struct httpc_reply *ret, struct err *err)
{
    *ret = (struct httpc_reply){0};
    if (code != CURLE_OK) {
        ret->text = xstrdup("");
        return httpc_broken(x, code, err);
    }
    long status = 0;
    curl_off_t retry_after = 0;
    httpc_curl.easy_getinfo(x->easy, CURLINFO_RESPONSE_CODE, &status);
    httpc_curl.easy_getinfo(x->easy, CURLINFO_RETRY_AFTER, &retry_after);
    ret->status = (int)status;
    ret->retry_after_s = retry_after;
    ret->body = httpc_parse(&x->reply);
    ret->text = strbuf_steal(&x->reply);
    return status >= 200 && status < 300 ? 0 : httpc_problem(x, ret, err);
}
