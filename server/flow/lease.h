/* lease: what a grant and an agent's desired state must say alike of one lease. */
#ifndef NEARGPU_FLOW_LEASE_H
#define NEARGPU_FLOW_LEASE_H
#include <stdint.h>

#include "client/lib/timefmt.h"

/* Jobs are told this long before the end; of a short lease a tenth is left for it.
 * Whole seconds: that is what a token carries. */
#define LEASE_DRAIN_US (10 * US_PER_S)
static inline int64_t lease_drain_us(int64_t not_before_us, int64_t not_after_us)
{
    int64_t tenth = (not_after_us - not_before_us) / 10;
    return tenth < LEASE_DRAIN_US ? tenth - tenth % US_PER_S : LEASE_DRAIN_US;
}

#endif
