/* httpc_curl: libcurl, loaded when the first client is made. It brings thirty libraries
 * along: 4 MiB and 4 ms for each process that links it, and most of the agent's have
 * nothing to do with HTTP. Only httpc's files include this. */
#ifndef NEARGPU_HTTPC_CURL_H
#define NEARGPU_HTTPC_CURL_H
/* The checks of types wrap the functions by name; here they are called by pointer. */
#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>

#include "client/lib/err.h"

#define HTTPC_CURL_FUNCTIONS(X) \
    X(global_init)              \
    X(easy_cleanup)             \
    X(easy_getinfo)             \
    X(easy_init)                \
    X(easy_perform)             \
    X(easy_reset)               \
    X(easy_setopt)              \
    X(easy_strerror)            \
    X(multi_add_handle)         \
    X(multi_assign)             \
    X(multi_cleanup)            \
    X(multi_info_read)          \
    X(multi_init)               \
    X(multi_remove_handle)      \
    X(multi_setopt)             \
    X(multi_socket_action)      \
    X(slist_append)             \
    X(slist_free_all)

struct httpc_curl {
#define X(name) __typeof__(curl_##name) *name;
    HTTPC_CURL_FUNCTIONS(X)
#undef X
};

extern struct httpc_curl httpc_curl; /* all set after httpc_curl_load() */

/* Repeating it costs nothing. ERR_UNAVAILABLE: the library is not installed. */
int httpc_curl_load(struct err *err) MUST_USE;

#endif
