/* probe_stats: the pure part of probe: percentiles. */
#include <stdlib.h>
#include <string.h>

#include "client/agent/probe.h"

static int order(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static int64_t rank(const int64_t *sorted, size_t count, size_t percent)
{
    size_t n = (count * percent + 99) / 100;
    return sorted[n > 0 ? n - 1 : 0];
}

void probe_stats(int64_t *samples, size_t count, struct probe_result *ret)
{
    qsort(samples, count, sizeof(*samples), order);
    ret->min_us = samples[0];
    ret->p50_us = rank(samples, count, 50);
    ret->p99_us = rank(samples, count, 99);
    ret->count = (int64_t)count;
}
