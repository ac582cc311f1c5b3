#include "billing/core/rate.h"

#include "client/lib/money.h"

int rate_cumulative(const struct rate_use *use, struct rate_sum *ret, struct err *err)
{
    struct rate_sum sum;
    int64_t gpu_ms = use->gpu_ms < use->max_gpu_ms ? use->gpu_ms : use->max_gpu_ms;
    if (gpu_ms < 0 || use->per_gpu_hour_micro < 0 || use->fee_ppm < 0 ||
        use->fee_ppm > RATE_PPM)
        return err_set(err, ERR_INTERNAL,
                       "rating: use %lld ms, price %lld, fee %lld ppm: out of range",
                       (long long)gpu_ms, (long long)use->per_gpu_hour_micro,
                       (long long)use->fee_ppm);
    if (money_mul(gpu_ms, use->per_gpu_hour_micro, RATE_GPU_MS_PER_HOUR,
                  &sum.amount_micro, err) != 0)
        return err_prefix(err, "rating the amount");
    if (money_mul(sum.amount_micro, use->fee_ppm, RATE_PPM, &sum.fee_micro, err) != 0)
        return err_prefix(err, "rating the fee");
    *ret = sum;
    return 0;
}
