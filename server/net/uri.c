/* uri: see the header. */
#include "server/net/uri.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"

/* Length of the sequence that starts at s, 0 when it is none: overlong forms,
 * surrogates and everything past U+10FFFF have none. */
static size_t utf8_sequence(const unsigned char *s, size_t len)
{
    static const struct {
        unsigned char first_lo, first_hi, second_lo, second_hi;
        size_t len;
    } forms[] = {
        {0x00, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2},
        {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
        {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4},
        {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        if (s[0] < forms[i].first_lo || s[0] > forms[i].first_hi)
            continue;
        size_t n = forms[i].len;
        if (n > len ||
            (n > 1 && (s[1] < forms[i].second_lo || s[1] > forms[i].second_hi)))
            return 0;
        for (size_t k = 2; k < n; k++)
            if (s[k] < 0x80 || s[k] > 0xbf)
                return 0;
        return n;
    }
    return 0;
}

bool uri_is_utf8(const char *s, size_t len)
{
    size_t at = 0;
    while (at < len) {
        size_t n = utf8_sequence((const unsigned char *)s + at, len - at);
        if (n == 0)
            return false;
        at += n;
    }
    return true;
}

static int hex(char ch)
{
    if (ch >= '0' && ch <= '9')
        return ch - '0';
    if (ch >= 'a' && ch <= 'f')
        return ch - 'a' + 10;
    if (ch >= 'A' && ch <= 'F')
        return ch - 'A' + 10;
    return -1;
}

static char *decode(const char *text, size_t len, bool plus, const char *what,
                    struct err *err)
{
    char *out = xmalloc(len + 1);
    size_t n = 0;
    for (size_t i = 0; i < len; i++) {
        int ch = (unsigned char)text[i];
        if (ch == '%') {
            int high = len - i > 2 ? hex(text[i + 1]) : -1;
            int low = len - i > 2 ? hex(text[i + 2]) : -1;
            if (high < 0 || low < 0) {
                free(out);
                (void)err_set(err, ERR_BAD_REQUEST, "%s: malformed percent-encoding",
                              what);
                return NULL;
            }
            ch = high * 16 + low;
            i += 2;
        } else if (plus && ch == '+') {
            ch = ' ';
        }
        if (ch < 0x20 || ch == 0x7f) {
            free(out);
            (void)err_set(err, ERR_BAD_REQUEST, "%s: control character", what);
            return NULL;
        }
        out[n++] = (char)ch;
    }
    out[n] = '\0';
    if (!uri_is_utf8(out, n)) {
        free(out);
        (void)err_set(err, ERR_BAD_REQUEST, "%s: not UTF-8", what);
        return NULL;
    }
    return out;
}

char *uri_decode(const char *text, size_t len, const char *what, struct err *err)
{
    return decode(text, len, false, what, err);
}

static int query_add(struct flow_request *rq, char *name, char *value, struct err *err)
{
    if (name[0] == '\0')
        return err_set(err, ERR_BAD_REQUEST, "query: a parameter without a name");
    for (size_t i = 0; i < rq->query_count; i++)
        if (strcmp(rq->query[i].name, name) == 0)
            return err_set(err, ERR_BAD_REQUEST, "query: \"%.60s\" given twice", name);
    if (rq->query_count == FLOW_QUERY_MAX)
        return err_set(err, ERR_BAD_REQUEST, "query: more than %d parameters",
                       FLOW_QUERY_MAX);
    rq->query[rq->query_count++] = (struct flow_pair){name, value};
    return 0;
}

int uri_query(const char *query, struct flow_request *rq, struct err *err)
{
    while (*query != '\0') {
        size_t len = strcspn(query, "&");
        const char *eq = memchr(query, '=', len);
        size_t name_len = eq != NULL ? (size_t)(eq - query) : len;
        char *name = uri_decode(query, name_len, "query", err);
        if (name == NULL)
            return -1;
        char *value = eq == NULL ? xstrdup("")
                                 : uri_decode(eq + 1, len - name_len - 1, "query", err);
        if (value == NULL || query_add(rq, name, value, err) < 0) {
            free(name);
            free(value);
            return -1;
        }
        query += len;
        if (*query == '&')
            query++;
    }
    return 0;
}

/* One "name=value". */
static int form_add(json_t *form, const char *text, size_t len, struct err *err)
{
    const char *eq = memchr(text, '=', len);
    size_t name_len = eq != NULL ? (size_t)(eq - text) : len;
    char *name = decode(text, name_len, true, "form", err), *value = NULL;
    int rc = name != NULL ? 0 : -1;
    if (rc == 0 && name[0] == '\0')
        rc = err_set(err, ERR_BAD_REQUEST, "form: a parameter without a name");
    if (rc == 0) {
        value = eq == NULL ? xstrdup("")
                           : decode(eq + 1, len - name_len - 1, true, "form", err);
        rc = value != NULL ? 0 : -1;
    }
    if (rc == 0 && json_object_get(form, name) == NULL)
        json_object_set_new(form, name, json_array());
    if (rc == 0)
        json_array_append_new(json_object_get(form, name), json_string(value));
    free(name);
    free(value);
    return rc;
}

json_t *uri_form(const char *text, size_t len, struct err *err)
{
    json_t *form = json_object();
    size_t count = 0;
    int rc = 0;
    if (len > FORM_BYTES_MAX)
        rc = err_set(err, ERR_TOO_LARGE, "form: more than %d bytes", FORM_BYTES_MAX);
    for (size_t at = 0; rc == 0 && at < len;) {
        const char *end = memchr(text + at, '&', len - at);
        size_t part = end != NULL ? (size_t)(end - text) - at : len - at;
        if (++count > FLOW_QUERY_MAX)
            rc = err_set(err, ERR_BAD_REQUEST, "form: more than %d parameters",
                         FLOW_QUERY_MAX);
        else
            rc = form_add(form, text + at, part, err);
        at += part + 1;
    }
    if (rc == 0)
        return form;
    json_decref(form);
    return NULL;
}
