/* endpoint: see endpoint.h. */
#include "client/lib/endpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_port(const char *text)
{
    char *end;
    long v = strtol(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && v > 0 && v < 65536;
}

/* "host:port", "[v6]:port", "host" into host and port (left alone when absent). */
static bool split_authority(const char *at, size_t len, struct endpoint *ep)
{
    size_t host_len, rest;
    const char *host = at;
    if (len > 0 && at[0] == '[') {
        const char *end = memchr(at, ']', len);
        if (end == NULL)
            return false;
        host = at + 1;
        host_len = (size_t)(end - host);
        rest = (size_t)(end + 1 - at);
    } else {
        const char *colon = memchr(at, ':', len);
        host_len = colon != NULL ? (size_t)(colon - at) : len;
        rest = host_len;
    }
    if (host_len == 0 || host_len >= sizeof(ep->host))
        return false;
    memcpy(ep->host, host, host_len);
    if (rest == len)
        return true;
    size_t port_len = len - rest - 1;
    if (at[rest] != ':' || port_len == 0 || port_len >= sizeof(ep->port))
        return false;
    memcpy(ep->port, at + rest + 1, port_len);
    ep->port[port_len] = '\0';
    return true;
}

int endpoint_parse(const char *url, struct endpoint *ret, struct err *err)
{
    static const struct {
        const char *scheme, *port;
        bool http;
    } kinds[] = {{"http://", "80", true},
                 {"https://", "443", false},
                 {"tcp://", "", false},
                 {"", "", false}};
    struct endpoint ep = {0};
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        size_t skip = strlen(kinds[i].scheme);
        if (strncmp(url, kinds[i].scheme, skip) != 0 ||
            (skip == 0 && strstr(url, "://") != NULL))
            continue;
        const char *at = url + skip, *path = at + strcspn(at, "/?#");
        ep.http = kinds[i].http;
        snprintf(ep.port, sizeof(ep.port), "%s", kinds[i].port);
        snprintf(ep.path, sizeof(ep.path), "%s%s", *path == '/' ? "" : "/", path);
        ep.path[strcspn(ep.path, "#")] = '\0';
        bool clean = ep.path[strcspn(ep.path, " \t\r\n")] == '\0';
        if (clean && split_authority(at, (size_t)(path - at), &ep) &&
            is_port(ep.port)) {
            *ret = ep;
            return 0;
        }
    }
    return err_set(err, ERR_BAD_REQUEST,
                   "'%.200s' is no endpoint: write HOST:PORT or "
                   "https://HOST/PATH",
                   url);
}
