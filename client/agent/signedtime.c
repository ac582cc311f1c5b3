/* signedtime: see signedtime.h. */
#include "client/agent/signedtime.h"

#include <assert.h>

void signedtime_add(struct signedtime *t, int64_t signed_us, int64_t boot_us)
{
    t->offset_us[t->next] = signed_us - boot_us;
    t->next = (t->next + 1) % SIGNEDTIME_SAMPLES;
    if (t->count < SIGNEDTIME_SAMPLES)
        t->count++;
    t->best_us = INT64_MIN;
    for (size_t i = 0; i < t->count; i++)
        if (t->offset_us[i] > t->best_us)
            t->best_us = t->offset_us[i];
}

void signedtime_restore(struct signedtime *t, int64_t offset_us)
{
    signedtime_add(t, offset_us, 0);
}

bool signedtime_is_known(const struct signedtime *t)
{
    return t->count > 0;
}

int64_t signedtime_at(const struct signedtime *t, int64_t boot_us)
{
    assert(t->count > 0);
    return boot_us + t->best_us;
}

int64_t signedtime_boot(const struct signedtime *t, int64_t us)
{
    assert(t->count > 0);
    return us - t->best_us;
}
