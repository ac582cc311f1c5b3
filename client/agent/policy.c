/* policy: see policy.h. */
#include "client/agent/policy.h"

#include <stdbool.h>
#include <string.h>

#include "client/lib/timefmt.h"

static bool is_named(char *const *names, const char *tenant)
{
    for (; names != NULL && *names != NULL; names++)
        if (strcmp(*names, tenant) == 0)
            return true;
    return false;
}

static int check_tenant(const struct policy *p, const struct order *o, struct err *err)
{
    if (is_named(p->denied, o->tenant))
        return err_set(err, ERR_FORBIDDEN, "denied_tenants names tenant %s", o->tenant);
    if (p->tenants != NULL && p->tenants[0] != NULL && !is_named(p->tenants, o->tenant))
        return err_set(err, ERR_FORBIDDEN, "allowed_tenants does not name tenant %s",
                       o->tenant);
    return 0;
}

/* The end of the allowed hours that t is in; t when it is in none. */
static int64_t allowed_until(const struct policy *p, int64_t t)
{
    struct advert_window w[ADVERT_WINDOWS_MAX];
    size_t n =
        advert_windows(p->hours, p->hour_count, p->offset_s, t, w, ADVERT_WINDOWS_MAX);
    for (size_t i = 0; i < n; i++)
        if (w[i].from_us <= t && t < w[i].to_us)
            return w[i].to_us;
    return t;
}

static int check_hours(const struct policy *p, const struct order *o, struct err *err)
{
    char at[TIMEFMT_MAX];
    int64_t t = o->not_before_us;
    while (p->hour_count > 0 && t < o->not_after_us) {
        int64_t until = allowed_until(p, t);
        if (until == t) {
            timefmt_offset(t, p->offset_s, at);
            return err_set(err, ERR_FORBIDDEN, "allowed_hours do not include %s", at);
        }
        t = until;
    }
    return 0;
}

int policy_check(const struct policy *p, const struct order *o, size_t gpus_held,
                 struct err *err)
{
    if (check_tenant(p, o, err) != 0)
        return -1;
    if (p->max_gpus_per_tenant > 0 &&
        (int64_t)(gpus_held + o->gpu_count) > p->max_gpus_per_tenant)
        return err_set(err, ERR_FORBIDDEN,
                       "max_gpus_per_tenant is %lld; the tenant holds %zu and asks for "
                       "%zu",
                       (long long)p->max_gpus_per_tenant, gpus_held, o->gpu_count);
    if (p->max_duration_us > 0 &&
        o->not_after_us - o->not_before_us > p->max_duration_us)
        return err_set(err, ERR_FORBIDDEN, "the lease is longer than max_duration");
    return check_hours(p, o, err);
}
