/* keeper_log: JOB/output, the job's stdout and stderr as frames, append only, bounded.
 * Clients read the file itself, so a slow one costs the job nothing.
 *
 * Invariant: `size` is the end of the last whole frame; a torn tail (power cut, killed
 * keeper) is cut off at open. Past the bound, or when the disk is full, output is
 * dropped, with one `e` frame saying so at the first drop. An edge. */
#ifndef NEARGPU_KEEPER_LOG_H
#define NEARGPU_KEEPER_LOG_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"

struct keeper_log {
    int fd;
    int64_t size, max;
    bool full; /* dropping */
    int64_t dropped;
    int64_t *marks; /* [i]: the first frame boundary at or after i MiB */
    size_t mark_count;
};

/* Opens or creates name in the directory dir_fd, and walks what is there. */
int keeper_log_open(struct keeper_log *log, int dir_fd, const char *name, int64_t max,
                    struct err *err) MUST_USE;
void keeper_log_close(struct keeper_log *log);
/* One frame of type 'o' or 'e'; len <= RUN_FRAME_MAX. Never fails: drops. */
void keeper_log_add(struct keeper_log *log, char type, const void *data, size_t len);
/* True when offset is the start of a frame, or the end. */
bool keeper_log_is_boundary(const struct keeper_log *log, int64_t offset);

#endif
