/* httpc_internal: what the two halves of httpc share; nobody else includes it. */
#ifndef NEARGPU_HTTPC_INTERNAL_H
#define NEARGPU_HTTPC_INTERNAL_H
#include <stdbool.h>

#include "client/lib/httpc.h"
#include "client/lib/httpc_curl.h"
#include "client/lib/strbuf.h"

/* One exchange: what libcurl must find alive until the transfer ends. */
struct httpc_exchange {
    CURL *easy;
    struct curl_slist *headers;
    char *url, *body;
    struct strbuf reply;
    bool reply_too_large;
    bool safe; /* GET: without effect, so never of unknown outcome */
    char why[CURL_ERROR_SIZE];
};

struct httpc_settings {
    char *base_url, *ca_file, *cert_file, *key_file, *bearer, *user_agent;
};

/* Prepares easy (fresh or reset) for the request; the exchange stays at its address. */
int httpc_exchange_init(struct httpc_exchange *x, const struct httpc_settings *s,
                        CURL *easy, const struct httpc_request *rq, struct err *err);
/* Frees all but the easy handle. */
void httpc_exchange_done(struct httpc_exchange *x);
/* Turns libcurl's verdict into reply and err: 0 for 2xx, -1 otherwise. */
int httpc_exchange_result(struct httpc_exchange *x, CURLcode code,
                          struct httpc_reply *ret, struct err *err);

#endif
