/* endpoint: where a data set is served, as tenants write it: HOST:PORT,
 * tcp://HOST:PORT, http(s)://HOST[:PORT][/PATH]. The server refuses what the agents
 * could not probe, by the same rules. Resolves no names, says nothing about
 * reachability. Pure. */
#ifndef NEARGPU_ENDPOINT_H
#define NEARGPU_ENDPOINT_H
#include <stdbool.h>

#include "client/lib/addr.h"
#include "client/lib/err.h"

struct endpoint {
    bool http; /* answers requests; else only connections are timed */
    char host[ADDR_HOST_MAX];
    char port[ADDR_PORT_MAX];
    char path[512];
};
int endpoint_parse(const char *url, struct endpoint *ret, struct err *err) MUST_USE;

#endif
