/* deadline: the end of a lease as its processes see it: LEASE_DIR/deadline, one line
 * "BOOT_ID BOOT_US\n". It is replaced atomically, watched, and read again before anyone
 * acts on it, so that an extended or shortened end reaches keeper and lease-init
 * without the agent having to reach them. An edge.
 *
 * Watched by dnotify (fcntl(2), F_NOTIFY): inotify has so few instances for a user
 * (128, all of root's programs together) that 64 jobs would have them all. Where the
 * kernel has no dnotify the file is read again every second. */
#ifndef NEARGPU_DEADLINE_H
#define NEARGPU_DEADLINE_H
#include <stdbool.h>
#include <stdint.h>

#include "client/lib/err.h"

#define DEADLINE_BOOT_ID_MAX 40

struct deadline {
    int dir_fd;   /* LEASE_DIR */
    int watch_fd; /* signalfd of SIGIO: readable when a file in it was replaced */
    int timer_fd; /* CLOCK_BOOTTIME; readable at the next point of time */
    bool is_told; /* changes are told by the kernel */
    int64_t end_boot_us;
    int64_t cap_boot_us; /* a job's own end, the earlier counts; 0: none */
    char boot_id[DEADLINE_BOOT_ID_MAX];
};

int deadline_write(const char *lease_dir, const char *boot_id, int64_t end_boot_us,
                   struct err *err) MUST_USE;
/* 0, long past, when the file is of another boot. */
int deadline_read(int dir_fd, const char *boot_id, int64_t *ret_boot_us,
                  struct err *err) MUST_USE;

/* All fds are close-on-exec and non-blocking; reads the end for the first time. Blocks
 * SIGIO in the calling process. */
int deadline_open(struct deadline *d, const char *lease_dir, struct err *err) MUST_USE;
/* From now on the end is no later than this; 0: no change. */
void deadline_cap(struct deadline *d, int64_t cap_boot_us);
/* In a forked child that goes on with its parent's: changes are told to it. */
void deadline_watch(struct deadline *d);
void deadline_close(struct deadline *d);
/* Empties watch and timer and reads the end again (an unreadable file leaves the old
 * end). Then sets the timer to the end, or to drain_us before it when that is still to
 * come. */
void deadline_refresh(struct deadline *d, int64_t drain_us, int64_t now_boot_us);

/* This boot's id from /proc. */
int deadline_boot_id(char ret[DEADLINE_BOOT_ID_MAX], struct err *err) MUST_USE;

#endif
