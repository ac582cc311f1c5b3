/* signedtime: what time it is, from the market's signed status documents and this
 * machine's boot clock. The wall clock is never used: `date -s` must not lengthen a
 * lease. Pure.
 *
 * A document signed at T and received at boot time B tells that the market's clock
 * minus the boot clock is at least T - B (delivery only makes it look smaller). The
 * largest difference among the last SIGNEDTIME_SAMPLES is nearest the truth; older
 * ones are forgotten so that slow drift of either clock is followed. */
#ifndef NEARGPU_AGENT_SIGNEDTIME_H
#define NEARGPU_AGENT_SIGNEDTIME_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIGNEDTIME_SAMPLES 64 /* about twenty minutes of syncs */

struct signedtime {
    int64_t offset_us[SIGNEDTIME_SAMPLES];
    size_t count, next;
    int64_t best_us; /* largest of offset_us */
};

void signedtime_add(struct signedtime *t, int64_t signed_us, int64_t boot_us);
/* Starts from an offset kept from before in this same boot. */
void signedtime_restore(struct signedtime *t, int64_t offset_us);
bool signedtime_is_known(const struct signedtime *t);
/* Both only when known (asserted). */
int64_t signedtime_at(const struct signedtime *t, int64_t boot_us);
int64_t signedtime_boot(const struct signedtime *t, int64_t us);

#endif
