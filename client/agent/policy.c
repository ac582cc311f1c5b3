/* policy: see policy.h. */
#include "client/agent/policy.h"

#include <stdbool.h>
#include <string.h>

#include "client/lib/timefmt.h"

int policy_check(const struct policy *p, const struct order *o, size_t gpus_held,
                 struct err *err)
{
    bool allowed = p->tenants == NULL || p->tenants[0] == NULL;
    for (size_t i = 0; !allowed && p->tenants[i] != NULL; i++)
        allowed = strcmp(p->tenants[i], o->tenant) == 0;
    if (!allowed)
        return err_set(err, ERR_FORBIDDEN, "allowed_tenants does not name tenant %s",
                       o->tenant);
    if (p->max_gpus_per_tenant > 0 &&
        (int64_t)(gpus_held + o->gpu_count) > p->max_gpus_per_tenant)
        return err_set(err, ERR_FORBIDDEN,
                       "max_gpus_per_tenant is %lld; the tenant holds %zu and asks for "
                       "%zu",
                       (long long)p->max_gpus_per_tenant, gpus_held, o->gpu_count);
    if (p->max_duration_us > 0 &&
        o->not_after_us - o->not_before_us > p->max_duration_us)
        return err_set(err, ERR_FORBIDDEN, "the lease is longer than max_duration");
    return 0;
}
