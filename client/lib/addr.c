/* addr: see addr.h. */
#include "client/lib/addr.h"

#include <stdlib.h>
#include <string.h>

static bool take(char *out, size_t cap, const char *text, size_t len)
{
    if (len >= cap || memchr(text, '\0', len) != NULL)
        return false;
    memcpy(out, text, len);
    out[len] = '\0';
    return true;
}

static bool take_port(char out[ADDR_PORT_MAX], const char *text, size_t len)
{
    return len > 0 && take(out, ADDR_PORT_MAX, text, len) &&
           out[strspn(out, "0123456789")] == '\0' && strtol(out, NULL, 10) < 65536;
}

bool addr_split(const char *text, size_t len, struct addr *ret)
{
    struct addr a = {.host = ""};
    const char *end = text + len, *host = text, *rest;
    if (len > 0 && *text == '[') {
        const char *close = memchr(text, ']', len);
        if (close == NULL || close == text + 1 ||
            !take(a.host, sizeof(a.host), text + 1, (size_t)(close - text - 1)))
            return false;
        rest = close + 1;
    } else {
        const char *colon = memchr(text, ':', len);
        rest = colon != NULL ? colon : end;
        if (!take(a.host, sizeof(a.host), host, (size_t)(rest - host)))
            return false;
    }
    if (rest < end &&
        (*rest != ':' || !take_port(a.port, rest + 1, (size_t)(end - rest - 1))))
        return false;
    *ret = a;
    return true;
}
