/* err: see err.h. One table holds a code's wire name, exit status and HTTP status, so
 * that the three cannot drift apart. Holds no state and logs nothing. */
#include "client/lib/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct err_row {
    enum err_code code;
    const char *name;
    int exit_status;
    int http_status;
};

static const struct err_row err_rows[] = {
    {ERR_NONE, "none", 0, 200},
    {ERR_INTERNAL, "internal", 1, 500},
    {ERR_USAGE, "usage", 2, 400},
    {ERR_NO_FIT, "no_fit", 3, 409},
    {ERR_FORBIDDEN, "forbidden", 4, 403},
    {ERR_NOT_FOUND, "not_found", 5, 404},
    {ERR_CONFLICT, "conflict", 6, 409},
    {ERR_FUNDS, "funds", 7, 402},
    {ERR_BUDGET, "budget", 7, 402},
    {ERR_UNREACHABLE, "unreachable", 8, 502},
    {ERR_UNKNOWN, "unknown", 9, 504},
    {ERR_BAD_REQUEST, "bad_request", 2, 400},
    {ERR_TOO_LARGE, "too_large", 1, 413},
    {ERR_UNAUTHENTICATED, "unauthenticated", 1, 401},
    {ERR_RATE_LIMITED, "rate_limited", 1, 429},
    {ERR_IO, "io", 1, 500},
    /* draft-ietf-httpapi-idempotency-key-header: reuse with another body is 422 */
    {ERR_KEY_REUSED, "key_reused", 1, 422},
    {ERR_TIMEOUT, "timeout", 1, 504},
    {ERR_UNAVAILABLE, "unavailable", 1, 503},
    {ERR_METHOD, "method", 1, 405},
    {ERR_TOKEN, "token", 1, 401},
    {ERR_QUOTA, "quota", 1, 403},
    {ERR_CLONED, "cloned", 1, 409},
    {ERR_BANNED, "banned", 1, 403},
};

#define ERR_ROWS (sizeof(err_rows) / sizeof(err_rows[0]))

static const struct err_row *err_find(enum err_code code)
{
    for (size_t i = 0; i < ERR_ROWS; i++)
        if (err_rows[i].code == code)
            return &err_rows[i];
    return &err_rows[1]; /* a code outside the enum is a bug: internal */
}

int err_set(struct err *err, enum err_code code, const char *fmt, ...)
{
    if (err == NULL)
        return -1;
    /* Arguments may point into err->text itself, hence the second buffer. */
    char text[ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    err->code = code;
    memcpy(err->text, text, sizeof(text));
    return -1;
}

/* Writes "a: b" into the text; what does not fit is cut. */
static void err_join(struct err *err, const char *a, const char *b)
{
    char text[ERR_TEXT_MAX];
    const char *const parts[] = {a, ": ", b};
    size_t len = 0;
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        size_t n = strnlen(parts[i], sizeof(text) - 1 - len);
        memcpy(text + len, parts[i], n);
        len += n;
    }
    text[len] = '\0';
    memcpy(err->text, text, len + 1);
}

int err_sys(struct err *err, int errno_value, const char *fmt, ...)
{
    if (err == NULL)
        return -1;
    char text[ERR_TEXT_MAX], why[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    err->code = ERR_IO;
    /* GNU strerror_r: the result need not be in the buffer. */
    err_join(err, text, strerror_r(errno_value, why, sizeof(why)));
    return -1;
}

int err_prefix(struct err *err, const char *fmt, ...)
{
    if (err == NULL)
        return -1;
    char context[ERR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(context, sizeof(context), fmt, ap);
    va_end(ap);
    err_join(err, context, err->text);
    return -1;
}

const char *err_code_name(enum err_code code)
{
    return err_find(code)->name;
}

enum err_code err_code_from_name(const char *name)
{
    for (size_t i = 0; i < ERR_ROWS; i++)
        if (strcmp(err_rows[i].name, name) == 0)
            return err_rows[i].code;
    return ERR_INTERNAL;
}

int err_exit_status(enum err_code code)
{
    return err_find(code)->exit_status;
}

int err_http_status(enum err_code code)
{
    return err_find(code)->http_status;
}
