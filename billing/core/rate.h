/* rate: what use costs. Receipts carry cumulative GPU-milliseconds; the amount of a
 * receipt is R(cumulative now) - R(cumulative before), so any slicing of the same use
 * gives the same sum (telescoping rounding), and the same for the fee. R rounds half
 * away from zero in 128 bits (client/lib/money.h). No floating point. Pure. */
#ifndef NEARGPU_RATE_H
#define NEARGPU_RATE_H
#include <stdint.h>

#include "client/lib/err.h"

#define RATE_GPU_MS_PER_HOUR INT64_C(3600000)
#define RATE_PPM             INT64_C(1000000)

struct rate_use {
    int64_t gpu_ms;             /* cumulative since ready, >= 0 */
    int64_t max_gpu_ms;         /* GPUs x promised window: more is never charged */
    int64_t per_gpu_hour_micro; /* >= 0 */
    int64_t fee_ppm;            /* the market's share, 0..1e6 */
};
struct rate_sum {
    int64_t amount_micro; /* cumulative: what the tenant pays */
    int64_t fee_micro;    /* cumulative: the market's part of it */
};
/* ERR_INTERNAL when a figure is out of range or overflows: nothing may be posted then.
 */
int rate_cumulative(const struct rate_use *use, struct rate_sum *ret,
                    struct err *err) MUST_USE;

#endif
