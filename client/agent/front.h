/* front: the process of a running agent that speaks with the network: the market's
 * server (sync.h), tenants (runsrv.h), data sets to be probed (probe.h). Program
 * `neargpu-agent front`, started by the warden (warden.h) with a link on descriptor 3.
 *
 * It starts as root, opens its listeners and its one directory, and then gives up
 * everything else (front_confine.h) before it reads a byte from the network. It decides
 * nothing: requests of tenants go to the warden as they are, and so do the market's
 * answers. It holds the node's TLS key and no other. Its end harms no lease; when the
 * warden ends, it ends. */
#ifndef NEARGPU_AGENT_FRONT_H
#define NEARGPU_AGENT_FRONT_H
#include <event2/event.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/agent/link.h"
#include "client/agent/nodecert.h"
#include "client/lib/err.h"

struct probe;
struct sync;
struct runsrv;

/* What LINK_SETTINGS says. Strings are borrowed from the message, kept in `doc`. */
struct front_conf {
    json_t *doc;
    const char *server, *spiffe_id;
    const char *dir, *ca_file; /* of the certificate; the market's CA */
    const char *runtime_dir, *listen, *advertise;
    const char *probe_source;
    int64_t probe_samples, probe_interval_us; /* 0: as the market asks */
    int64_t uid, gid, log_level;
    const json_t *hide; /* directories that are taken out of sight */
};

struct front {
    struct event_base *base;
    struct link *link;
    struct front_conf conf;
    struct nodecert cert;
    char *ca_path; /* as it can still be opened */
    struct probe *probe;
    struct sync *sync;
    struct runsrv *runsrv;
    bool time_known;
    int64_t offset_us; /* signed time minus boot time, as the warden has it */
};

/* argv[0] is "front", argv[1] the link's descriptor. */
int front_main(int argc, char **argv);
int front_conf_read(const json_t *doc, struct front_conf *ret,
                    struct err *err) MUST_USE;
/* Signed time, for what needs no trust: probes' dates, renewal. */
bool front_now(const struct front *f, int64_t *ret_us);
/* Sends; what is too large is logged and dropped. */
void front_tell(struct front *f, enum link_kind kind, json_t *doc_take);

#endif
