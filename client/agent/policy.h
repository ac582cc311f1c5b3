/* policy: the provider's own rules, which bound what even a valid grant can do on this
 * node. Pure. Where they come from: agent.conf (settings.h) and the policy file
 * (policy_file.h); both must agree. */
#ifndef NEARGPU_AGENT_POLICY_H
#define NEARGPU_AGENT_POLICY_H
#include <stddef.h>
#include <stdint.h>

#include "client/agent/advert.h"
#include "client/agent/desired.h"
#include "client/lib/err.h"

struct policy {
    int64_t max_gpus_per_tenant; /* 0: no limit */
    int64_t max_duration_us;     /* 0: no limit */
    char *const *tenants;        /* NULL-terminated; NULL: all */
    char *const *denied;         /* NULL-terminated; NULL: none; wins over tenants */
    const struct advert_rule *hours; /* weekly; count 0: always */
    size_t hour_count;
    int offset_s; /* of the hours' zone, east of UTC */
};

/* ERR_FORBIDDEN with the rule. gpus_held: what the tenant holds here already, without
 * this order. The whole of a lease must lie in the allowed hours, which may touch each
 * other. */
int policy_check(const struct policy *p, const struct order *o, size_t gpus_held,
                 struct err *err) MUST_USE;

#endif
