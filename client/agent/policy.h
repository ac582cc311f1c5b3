/* policy: the provider's own rules, which bound what even a valid grant can do on this
 * node. Pure. */
#ifndef NEARGPU_AGENT_POLICY_H
#define NEARGPU_AGENT_POLICY_H
#include <stddef.h>
#include <stdint.h>

#include "client/agent/desired.h"
#include "client/lib/err.h"

struct policy {
    int64_t max_gpus_per_tenant; /* 0: no limit */
    int64_t max_duration_us;     /* 0: no limit */
    char *const *tenants;        /* NULL-terminated; NULL: all */
};

/* ERR_FORBIDDEN with the rule. gpus_held: what the tenant holds here already, without
 * this order. */
int policy_check(const struct policy *p, const struct order *o, size_t gpus_held,
                 struct err *err) MUST_USE;

#endif
