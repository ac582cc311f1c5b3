/* http1_scan: see the header. Every refusal names its reason; statuses follow RFC 9110.
 */
#include "server/net/http1_scan.h"

#include <string.h>
#include <strings.h>

#include "client/lib/bounds.h"

static enum http1_scan bad(struct http1_fault *fault, int status, const char *why)
{
    *fault = (struct http1_fault){status, why};
    return HTTP1_BAD;
}

/* ---- lines ---- */

/* "METHOD SP" and "SP HTTP/1.1" around the longest target. */
#define FIRST_LINE_MAX (HTTP1_METHOD_MAX + HTTP1_TARGET_MAX + 10)

/* One line feed after its carriage return; DONE at the empty line. */
static enum http1_scan line_ended(struct http1_lines *s, struct http1_fault *fault)
{
    size_t line = s->line;
    s->line = 0;
    if (!s->first_done) {
        if (line == 0)
            return bad(fault, 400, "empty line before the request line");
        s->first_done = true;
        return HTTP1_MORE;
    }
    return line == 0 ? HTTP1_DONE : HTTP1_MORE;
}

static enum http1_scan line_byte(struct http1_lines *s, unsigned char ch,
                                 struct http1_fault *fault)
{
    if (s->after_cr) {
        if (ch != '\n')
            return bad(fault, 400, "carriage return without line feed");
        s->after_cr = false;
        return line_ended(s, fault);
    }
    if (ch == '\r') {
        s->after_cr = true;
        return HTTP1_MORE;
    }
    if (ch == '\n')
        return bad(fault, 400, "line feed without carriage return");
    if (ch == 0x7f || (ch < 0x20 && ch != '\t'))
        return bad(fault, 400, "control character in the head");
    s->line++;
    if (!s->first_done && s->line > FIRST_LINE_MAX)
        return bad(fault, 414, "request target too long");
    return HTTP1_MORE;
}

enum http1_scan http1_lines_feed(struct http1_lines *s, const char *data, size_t len,
                                 struct http1_fault *fault)
{
    while (s->seen < len) {
        if (s->seen >= HTTP_HEAD_MAX)
            return bad(fault, 431, "head too large");
        unsigned char ch = (unsigned char)data[s->seen++];
        enum http1_scan got = line_byte(s, ch, fault);
        if (got != HTTP1_MORE)
            return got;
    }
    return HTTP1_MORE;
}

/* ---- head ---- */

static bool is_token_char(unsigned char ch)
{
    if ((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
        (ch >= '0' && ch <= '9'))
        return true;
    return ch != '\0' && strchr("!#$%&'*+-.^_`|~", ch) != NULL;
}

/* RFC 3986 pchar, "/", "?" and "%"; the few others that browsers leave alone are not
 * needed by an API. */
static bool is_target_char(unsigned char ch)
{
    if ((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z') ||
        (ch >= '0' && ch <= '9'))
        return true;
    return ch != '\0' && strchr("-._~!$&'()*+,;=:@/?%", ch) != NULL;
}

static enum http1_scan split_version(const char *v, size_t len, struct http1_head *ret,
                                     struct http1_fault *fault)
{
    if (len != 8 || memcmp(v, "HTTP/", 5) != 0 || v[5] < '0' || v[5] > '9' ||
        v[6] != '.' || v[7] < '0' || v[7] > '9')
        return bad(fault, 400, "malformed HTTP version");
    if (v[5] != '1' || (v[7] != '0' && v[7] != '1'))
        return bad(fault, 505, "only HTTP/1.1 and HTTP/1.0 are spoken here");
    ret->minor = v[7] - '0';
    return HTTP1_DONE;
}

static enum http1_scan split_request_line(char *line, size_t len,
                                          struct http1_head *ret,
                                          struct http1_fault *fault)
{
    size_t m = 0;
    while (m < len && is_token_char((unsigned char)line[m]))
        m++;
    if (m == 0 || m > HTTP1_METHOD_MAX || m == len || line[m] != ' ')
        return bad(fault, 400, "malformed method");
    char *target = line + m + 1;
    size_t rest = len - m - 1;
    char *space = memchr(target, ' ', rest);
    if (space == NULL)
        return bad(fault, 400, "malformed request line");
    size_t t = (size_t)(space - target);
    if (split_version(space + 1, rest - t - 1, ret, fault) == HTTP1_BAD)
        return HTTP1_BAD;
    if (t == 0 || target[0] != '/')
        return bad(fault, 400, "the request target must be a path");
    if (t > HTTP1_TARGET_MAX)
        return bad(fault, 414, "request target too long");
    for (size_t i = 0; i < t; i++)
        if (!is_target_char((unsigned char)target[i]))
            return bad(fault, 400, "character not allowed in the request target");
    ret->method = line;
    ret->method_len = m;
    ret->target = target;
    ret->target_len = t;
    return HTTP1_DONE;
}

static bool is_blank(char ch)
{
    return ch == ' ' || ch == '\t';
}

static enum http1_scan split_header(char *line, size_t len, struct http1_head *ret,
                                    struct http1_fault *fault)
{
    if (is_blank(line[0]))
        return bad(fault, 400, "folded header line");
    size_t n = 0;
    while (n < len && is_token_char((unsigned char)line[n]))
        n++;
    if (n == 0 || n == len || line[n] != ':')
        return bad(fault, 400, "malformed header name");
    if (ret->header_count == HTTP1_HEADERS_MAX)
        return bad(fault, 431, "too many header fields");
    size_t from = n + 1, to = len;
    while (from < to && is_blank(line[from]))
        from++;
    while (to > from && is_blank(line[to - 1]))
        to--;
    ret->headers[ret->header_count++] = (struct http1_header){
        .name = line,
        .value = line + from,
        .name_len = (uint16_t)n,
        .value_len = (uint16_t)(to - from),
    };
    return HTTP1_DONE;
}

static bool name_is(const struct http1_header *h, const char *name)
{
    return h->name_len == strlen(name) && strncasecmp(h->name, name, h->name_len) == 0;
}

static bool value_is(const struct http1_header *h, const char *value)
{
    return h->value_len == strlen(value) &&
           strncasecmp(h->value, value, h->value_len) == 0;
}

static bool host_is_valid(const char *v, size_t len)
{
    size_t i = 0;
    if (len > 0 && v[0] == '[') {
        for (i = 1; i < len && v[i] != ']'; i++)
            if (strchr("0123456789abcdefABCDEF:.", v[i]) == NULL)
                return false;
        if (i < 3 || i == len)
            return false;
        i++;
    } else {
        for (; i < len && v[i] != ':'; i++)
            if (!is_target_char((unsigned char)v[i]) || strchr("/?@", v[i]) != NULL)
                return false;
        if (i == 0)
            return false;
    }
    if (i == len)
        return true;
    if (v[i] != ':' || len - i > 6)
        return false;
    for (i++; i < len; i++)
        if (v[i] < '0' || v[i] > '9')
            return false;
    return true;
}

static enum http1_scan judge_length(const struct http1_header *h,
                                    struct http1_head *ret, struct http1_fault *fault)
{
    if (h->value_len == 0)
        return bad(fault, 400, "malformed Content-Length");
    for (size_t i = 0; i < h->value_len; i++)
        if (h->value[i] < '0' || h->value[i] > '9')
            return bad(fault, 400, "malformed Content-Length");
    if (h->value_len > 15)
        return bad(fault, 413, "body too large");
    uint64_t n = 0;
    for (size_t i = 0; i < h->value_len; i++)
        n = n * 10 + (uint64_t)(h->value[i] - '0');
    ret->has_length = true;
    ret->content_length = n;
    return HTTP1_DONE;
}

/* Header fields that mean something to us or decide about framing come at most once:
 * of two values each reader may take another one. */
static const char *const singletons[] = {
    "host",          "content-length", "transfer-encoding",
    "authorization", "content-type",   "idempotency-key",
    "if-match",      "last-event-id",  "expect",
};
#define SINGLETONS (sizeof(singletons) / sizeof(singletons[0]))

static enum http1_scan judge_header(const struct http1_header *h,
                                    struct http1_head *ret, struct http1_fault *fault)
{
    if (name_is(h, "host") && !host_is_valid(h->value, h->value_len))
        return bad(fault, 400, "malformed Host");
    if (name_is(h, "content-length"))
        return judge_length(h, ret, fault);
    if (name_is(h, "transfer-encoding")) {
        if (!value_is(h, "chunked"))
            return bad(fault, 400, "Transfer-Encoding other than chunked");
        ret->chunked = true;
    }
    if (name_is(h, "expect")) {
        if (!value_is(h, "100-continue"))
            return bad(fault, 417, "unknown expectation");
        ret->expect_continue = true;
    }
    return HTTP1_DONE;
}

static enum http1_scan judge_headers(struct http1_head *ret, struct http1_fault *fault)
{
    bool seen[SINGLETONS] = {false};
    for (size_t i = 0; i < ret->header_count; i++) {
        const struct http1_header *h = &ret->headers[i];
        for (size_t k = 0; k < SINGLETONS; k++) {
            if (!name_is(h, singletons[k]))
                continue;
            if (seen[k])
                return bad(fault, 400, "header field sent twice");
            seen[k] = true;
        }
        if (judge_header(h, ret, fault) == HTTP1_BAD)
            return HTTP1_BAD;
    }
    if (!seen[0] && ret->minor >= 1)
        return bad(fault, 400, "missing Host");
    if (ret->chunked && ret->has_length)
        return bad(fault, 400, "both Content-Length and Transfer-Encoding");
    if (ret->chunked && ret->minor == 0)
        return bad(fault, 400, "Transfer-Encoding in HTTP/1.0");
    return HTTP1_DONE;
}

enum http1_scan http1_head_split(char *head, size_t len, struct http1_head *ret,
                                 struct http1_fault *fault)
{
    *ret = (struct http1_head){0};
    size_t at = 0;
    for (bool first = true;; first = false) {
        char *cr = memchr(head + at, '\r', len - at);
        if (cr == NULL)
            return bad(fault, 400, "head without an end");
        size_t line = (size_t)(cr - (head + at));
        if (line == 0)
            break;
        enum http1_scan got = first ? split_request_line(head + at, line, ret, fault)
                                    : split_header(head + at, line, ret, fault);
        if (got == HTTP1_BAD)
            return HTTP1_BAD;
        at += line + 2;
        if (at > len)
            return bad(fault, 400, "head without an end");
    }
    return judge_headers(ret, fault);
}

void http1_head_terminate(struct http1_head *h)
{
    h->method[h->method_len] = '\0';
    h->target[h->target_len] = '\0';
    for (size_t i = 0; i < h->header_count; i++) {
        struct http1_header *f = &h->headers[i];
        f->name[f->name_len] = '\0';
        f->value[f->value_len] = '\0';
        for (size_t k = 0; k < f->name_len; k++)
            if (f->name[k] >= 'A' && f->name[k] <= 'Z')
                f->name[k] = (char)(f->name[k] - 'A' + 'a');
    }
}

const char *http1_header(const struct http1_head *h, const char *name)
{
    for (size_t i = 0; i < h->header_count; i++)
        if (strcmp(h->headers[i].name, name) == 0)
            return h->headers[i].value;
    return NULL;
}

/* ---- chunks ---- */

enum chunk_state {
    CHUNK_SIZE,    /* hexadecimal digits */
    CHUNK_SIZE_LF, /* its carriage return was seen */
    CHUNK_DATA,
    CHUNK_DATA_CR,
    CHUNK_DATA_LF,
    CHUNK_END_CR, /* after the chunk of size 0 */
    CHUNK_END_LF,
    CHUNK_OVER,
};

void http1_chunks_init(struct http1_chunks *s, uint64_t max)
{
    *s = (struct http1_chunks){.state = CHUNK_SIZE, .max = max};
}

static int hex_value(char ch)
{
    if (ch >= '0' && ch <= '9')
        return ch - '0';
    if (ch >= 'a' && ch <= 'f')
        return ch - 'a' + 10;
    if (ch >= 'A' && ch <= 'F')
        return ch - 'A' + 10;
    return -1;
}

static enum http1_scan chunk_size_byte(struct http1_chunks *s, char ch,
                                       struct http1_fault *fault)
{
    if (ch == '\r' && s->digits > 0) {
        s->state = CHUNK_SIZE_LF;
        return HTTP1_MORE;
    }
    int v = hex_value(ch);
    if (v < 0)
        return bad(fault, 400, "malformed chunk size");
    if (++s->digits > 8)
        return bad(fault, 413, "body too large");
    s->left = s->left * 16 + (uint64_t)v;
    if (s->total + s->left > s->max)
        return bad(fault, 413, "body too large");
    return HTTP1_MORE;
}

static enum http1_scan chunk_byte(struct http1_chunks *s, char ch,
                                  struct http1_fault *fault)
{
    static const struct {
        char want;
        enum chunk_state next;
    } fixed[] = {
        [CHUNK_DATA_CR] = {'\r', CHUNK_DATA_LF},
        [CHUNK_DATA_LF] = {'\n', CHUNK_SIZE},
        [CHUNK_END_CR] = {'\r', CHUNK_END_LF},
        [CHUNK_END_LF] = {'\n', CHUNK_OVER},
    };
    if (s->state == CHUNK_SIZE)
        return chunk_size_byte(s, ch, fault);
    if (s->state == CHUNK_SIZE_LF) {
        if (ch != '\n')
            return bad(fault, 400, "malformed chunk framing");
        s->state = s->left == 0 ? CHUNK_END_CR : CHUNK_DATA;
        s->digits = 0;
        s->total += s->left;
        return HTTP1_MORE;
    }
    if (ch != fixed[s->state].want)
        return bad(fault, 400,
                   s->state == CHUNK_END_CR ? "trailers are not taken"
                                            : "malformed chunk framing");
    s->state = fixed[s->state].next;
    return s->state == CHUNK_OVER ? HTTP1_DONE : HTTP1_MORE;
}

enum http1_scan http1_chunks_feed(struct http1_chunks *s, const char *data, size_t len,
                                  size_t *ret_used, struct http1_fault *fault)
{
    size_t i = 0;
    while (i < len) {
        if (s->state == CHUNK_DATA) {
            size_t n = len - i < s->left ? len - i : (size_t)s->left;
            i += n;
            s->left -= n;
            if (s->left == 0)
                s->state = CHUNK_DATA_CR;
            continue;
        }
        enum http1_scan got = chunk_byte(s, data[i], fault);
        if (got == HTTP1_BAD)
            return got;
        i++;
        if (got == HTTP1_DONE) {
            *ret_used = i;
            return got;
        }
    }
    *ret_used = i;
    return HTTP1_MORE;
}
