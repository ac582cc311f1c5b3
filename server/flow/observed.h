/* observed: what an agent reports in a sync (docs/wire.md), checked member by member
 * and put as the database takes it. Agents run on machines of others: nothing of it is
 * believed but its form. Pure. */
#ifndef NEARGPU_FLOW_OBSERVED_H
#define NEARGPU_FLOW_OBSERVED_H
#include <jansson.h>
#include <stdint.h>

#include "client/lib/err.h"

#define OBSERVED_LEASES_MAX  4096
#define OBSERVED_PROBES_MAX  4096
#define OBSERVED_WINDOWS_MAX 1024

struct observed {
    json_t *store;    /* owned: as STORE_SYNC takes it */
    json_t *reported; /* owned: reservation ids of its leases */
    char *version;    /* owned: the desired state it has */
    int64_t wait_us;
    json_t *log; /* owned: what it says as a witness (sync_log.h); NULL: nothing */
};

/* currency: the market's; a price in another one is refused. Probes from the future
 * count as of now. */
int observed_parse(const json_t *body, const char *currency, int64_t now_us,
                   struct observed *ret, struct err *err) MUST_USE;
void observed_done(struct observed *o);

#endif
