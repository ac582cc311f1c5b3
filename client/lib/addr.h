/* addr: "HOST:PORT" as people write it in options, files and URLs. Pure: looks nothing
 * up; which of host and port may be missing is the caller's to say. */
#ifndef NEARGPU_ADDR_H
#define NEARGPU_ADDR_H
#include <stdbool.h>
#include <stddef.h>

#define ADDR_HOST_MAX 256 /* a DNS name has at most 253 characters */
#define ADDR_PORT_MAX 6

struct addr {
    char host[ADDR_HOST_MAX]; /* without brackets; "" when there is none */
    char port[ADDR_PORT_MAX]; /* decimal, 0..65535; "" when there is none */
};

/* HOST, HOST:PORT, :PORT, [V6] or [V6]:PORT in the first len bytes of text. False for
 * anything else, such as an IPv6 address without brackets. */
bool addr_split(const char *text, size_t len, struct addr *ret);

#endif
