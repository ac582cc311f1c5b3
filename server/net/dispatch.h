/* dispatch: from a request of http1 to a flow, and from the flow's reply back.
 *
 * Charter: route, authenticate, limit the rate, check the role, the media types, the
 * body, the query and the idempotency key, in that order; then start the flow. Every
 * refusal is problem+json (RFC 9457) with a stable code. It holds no state of requests:
 * exchanges are http1's, flows the runner's.
 *
 * Who asks: `Authorization: Bearer ngk_…` (only the key's SHA-256 is looked up), else
 * the verified client certificate's URI, else nobody. A wrong key is 401 even where
 * anybody may ask: a client must learn that its key is wrong. */
#ifndef NEARGPU_DISPATCH_H
#define NEARGPU_DISPATCH_H
#include <event2/event.h>

#include "server/flow/flow.h"
#include "server/net/bucket.h"
#include "server/net/http1.h"
#include "server/net/route.h"

struct dispatch;

struct dispatch_opts {
    struct flow_runner *runner;
    const struct flow_auth *auth; /* copied */
    const struct route *routes;
    size_t route_count;
    const struct bucket_rate *rates; /* RATE_CLASSES of them, copied; NULL: defaults */
    bool access_log;
    /* Told of every answered request; NULL: nobody is. */
    void (*told)(void *arg, const struct http1_done *done);
    void *told_arg;
};

#define DISPATCH_BUCKETS                                                       \
    65536                /* 1 MiB; more clients than that at once share by age \
                          */
#define API_KEY_BYTES 47 /* "ngk_" and 43 base64url characters */

extern const struct bucket_rate dispatch_default_rates[RATE_CLASSES];

/* Upper bounds of the latency histogram's buckets, in microseconds; the last one
 * (INT64_MAX) takes the rest. Long polls and streams are not counted. */
#define DISPATCH_LATENCIES 12
extern const int64_t dispatch_latency_us[DISPATCH_LATENCIES];

struct dispatch_stats {
    uint64_t unauthenticated, forbidden, limited;
    uint64_t latency[DISPATCH_LATENCIES];
    uint64_t latency_sum_us, latency_count;
};

struct dispatch *dispatch_new(const struct dispatch_opts *opts);
void dispatch_free(struct dispatch *d);
/* Fills env, on_request, on_gone and on_done of http1's options. */
void dispatch_fill(struct dispatch *d, struct http1_opts *opts);
/* Once, after http1_server_new(): makes dispatch the runner's sink. */
void dispatch_bind(struct dispatch *d, struct http1_server *http);
void dispatch_stats(const struct dispatch *d, struct dispatch_stats *ret);

#endif
