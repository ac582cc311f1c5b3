/* clock: see clock.h. Both clocks always exist on the kernels supported, so failing to
 * read one is a bug and aborts. */
#include "client/lib/clock.h"

#include <assert.h>
#include <time.h>

static int64_t clock_read_us(clockid_t id)
{
    struct timespec ts;
    int rc = clock_gettime(id, &ts);
    assert(rc == 0);
    (void)rc;
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

int64_t clock_now_us(void)
{
    return clock_read_us(CLOCK_REALTIME);
}

int64_t clock_boot_us(void)
{
    return clock_read_us(CLOCK_BOOTTIME);
}
