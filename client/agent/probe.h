/* probe: measures the round trip from this node to each data set's endpoint, on the
 * event loop, from the address jobs will use.
 *
 *   http://host[:port]/path  keep-alive HEAD requests; one round trip = the request
 *                            written until the first byte of the answer; one request
 *                            before them opens the connection and is not counted
 *   https://host[:port]/…    as tcp:// (a TLS front says nothing about the way there)
 *   tcp://host:port          connects; one round trip = SYN until connected; so does
 *   host:port                without a scheme
 *
 * Intervals are jittered so that nodes do not measure in step. A measurement that fails
 * leaves the data set without a figure: absent, never old. At most PROBE_AT_ONCE run
 * at a time, so that they do not disturb each other. */
#ifndef NEARGPU_AGENT_PROBE_H
#define NEARGPU_AGENT_PROBE_H
#include <event2/event.h>
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/agent/desired.h"
#include "client/lib/endpoint.h"
#include "client/lib/err.h"

#define PROBE_AT_ONCE     4
#define PROBE_SAMPLES_MAX 100
#define PROBE_TIMEOUT_US                                        \
    INT64_C(3000000) /* one round trip; farther is no data near \
                      */

struct probe_result {
    int64_t min_us, p50_us, p99_us;
    int64_t count;
    int64_t at_us; /* signed time, from the conf's now() */
};
/* Nearest-rank percentiles; sorts the samples in place; count > 0. */
void probe_stats(int64_t *samples, size_t count, struct probe_result *ret);

struct probe_conf {
    const char *source; /* numeric local address, NULL: any */
    size_t samples;
    int64_t interval_us;
    /* Time for `at`; false: not known, then results are not kept. */
    bool (*now)(void *arg, int64_t *ret_us);
    /* A data set got its first figure, or lost it. */
    void (*changed)(void *arg);
    void *arg;
};

struct probe;
/* Copies conf. ERR_BAD_REQUEST for a source that is no address. */
int probe_new(struct event_base *base, const struct probe_conf *conf,
              struct probe **ret, struct err *err) MUST_USE;
void probe_free(struct probe *p);
/* What is to be measured from now on: data sets not in the list are forgotten, those
 * with the same endpoint keep their figures and their rhythm. */
void probe_set(struct probe *p, const struct desired_probe *list, size_t count);
void probe_set_interval(struct probe *p, int64_t interval_us);
/* [{"dataset","min_us","p50_us","p99_us","count","at"}]; new reference. */
json_t *probe_json(const struct probe *p);

#endif
