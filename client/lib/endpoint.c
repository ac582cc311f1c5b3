/* endpoint: see endpoint.h. */
#include "client/lib/endpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/addr.h"

/* HOST[:PORT]; a port it has not keeps what is in ep. */
static bool take_authority(const char *text, size_t len, struct endpoint *ep)
{
    struct addr a;
    if (!addr_split(text, len, &a) || a.host[0] == '\0')
        return false;
    memcpy(ep->host, a.host, sizeof(ep->host));
    if (a.port[0] != '\0')
        memcpy(ep->port, a.port, sizeof(ep->port));
    return strtol(ep->port, NULL, 10) > 0;
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
        if (clean && take_authority(at, (size_t)(path - at), &ep)) {
            *ret = ep;
            return 0;
        }
    }
    return err_set(err, ERR_BAD_REQUEST,
                   "'%.200s' is no endpoint: write HOST:PORT or "
                   "https://HOST/PATH",
                   url);
}
