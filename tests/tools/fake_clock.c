/* A wall clock that stands still until a test sets it: preloaded into PostgreSQL by
 * tests in which months pass. The file named by NEARGPU_FAKE_CLOCK holds microseconds
 * since 1970. Clocks that only grow (CLOCK_MONOTONIC) are left alone, so that timeouts
 * of the server itself still pass. */
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int gettimeofday(struct timeval *restrict tv, void *restrict zone);

static const volatile int64_t *fake;

__attribute__((constructor)) static void open_clock(void)
{
    const char *path = getenv("NEARGPU_FAKE_CLOCK");
    int fd = path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0)
        abort();
    void *at = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (at == MAP_FAILED)
        abort();
    fake = at;
}

__attribute__((visibility("default"))) int gettimeofday(struct timeval *restrict tv,
                                                        void *restrict zone)
{
    int64_t us = fake != NULL ? *fake : 0;
    (void)zone;
    tv->tv_sec = (time_t)(us / 1000000);
    tv->tv_usec = (suseconds_t)(us % 1000000);
    return 0;
}

__attribute__((visibility("default"))) time_t time(time_t *ret)
{
    time_t s = fake != NULL ? (time_t)(*fake / 1000000) : 0;
    if (ret != NULL)
        *ret = s;
    return s;
}
