/* keeper_log: see keeper_log.h. */
#include "client/agent/keeper_log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "client/lib/frame.h"
#include "client/lib/xalloc.h"

#define MARK_STEP    (INT64_C(1) << 20)
#define NOTICE_BYTES 200 /* room kept for the frame that says output is dropped */

static void mark(struct keeper_log *log, int64_t at)
{
    if (at < (int64_t)log->mark_count * MARK_STEP)
        return;
    /* One step may hold several large frames' worth of bytes: fill every slot passed.
     */
    while ((int64_t)log->mark_count * MARK_STEP <= at) {
        log->marks =
            xreallocarray(log->marks, log->mark_count + 1, sizeof(*log->marks));
        log->marks[log->mark_count++] = at;
    }
}

/* Length of the frame at `at` with its head; 0 when there is no whole valid one before
 * end. */
static int64_t frame_at(int fd, int64_t at, int64_t end)
{
    uint8_t head[FRAME_HEAD_LEN];
    if (pread(fd, head, sizeof(head), at) != (ssize_t)sizeof(head))
        return 0;
    int64_t len = (int64_t)head[1] << 24 | head[2] << 16 | head[3] << 8 | head[4];
    if ((head[0] != 'o' && head[0] != 'e') || len > RUN_FRAME_MAX ||
        at + FRAME_HEAD_LEN + len > end)
        return 0;
    return FRAME_HEAD_LEN + len;
}

int keeper_log_open(struct keeper_log *log, int dir_fd, const char *name, int64_t max,
                    struct err *err)
{
    *log = (struct keeper_log){.fd = -1, .max = max};
    log->fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    struct stat st;
    if (log->fd < 0 || fstat(log->fd, &st) < 0)
        return err_sys(err, errno, "open %s", name);
    for (;;) {
        mark(log, log->size);
        int64_t len = frame_at(log->fd, log->size, st.st_size);
        if (len == 0)
            break;
        log->size += len;
    }
    if (log->size < st.st_size && ftruncate(log->fd, log->size) < 0)
        return err_sys(err, errno, "cut the torn end of %s", name);
    log->full = log->size >= log->max - NOTICE_BYTES;
    return 0;
}

void keeper_log_close(struct keeper_log *log)
{
    if (log->fd >= 0)
        close(log->fd);
    free(log->marks);
    *log = (struct keeper_log){.fd = -1};
}

static bool put(struct keeper_log *log, char type, const void *data, size_t len)
{
    uint8_t head[FRAME_HEAD_LEN] = {(uint8_t)type, (uint8_t)(len >> 24),
                                    (uint8_t)(len >> 16), (uint8_t)(len >> 8),
                                    (uint8_t)len};
    struct iovec iov[2] = {{head, sizeof(head)}, {(void *)data, len}};
    ssize_t want = (ssize_t)(sizeof(head) + len);
    if (pwritev(log->fd, iov, 2, log->size) != want) {
        (void)!ftruncate(log->fd, log->size);
        return false;
    }
    log->size += want;
    mark(log, log->size);
    return true;
}

void keeper_log_add(struct keeper_log *log, char type, const void *data, size_t len)
{
    if (len == 0)
        return;
    if (!log->full) {
        int64_t room = log->max - log->size - NOTICE_BYTES;
        if ((int64_t)len + FRAME_HEAD_LEN <= room && put(log, type, data, len))
            return;
        char text[NOTICE_BYTES - FRAME_HEAD_LEN];
        int n = snprintf(text, sizeof(text),
                         "\nneargpu: the job's output log is full (%" PRId64
                         " bytes): further output is dropped\n",
                         log->size);
        log->full = true;
        (void)put(log, 'e', text, (size_t)n);
    }
    log->dropped += (int64_t)len;
}

bool keeper_log_is_boundary(const struct keeper_log *log, int64_t offset)
{
    if (offset < 0 || offset > log->size)
        return false;
    if (offset == log->size)
        return true;
    size_t slot = (size_t)(offset / MARK_STEP);
    if (slot >= log->mark_count || log->marks[slot] > offset) {
        /* marks[slot] is the first boundary at or after slot * MARK_STEP. */
        slot = slot > 0 ? slot - 1 : 0;
    }
    int64_t at = slot < log->mark_count ? log->marks[slot] : 0;
    while (at < offset) {
        int64_t len = frame_at(log->fd, at, log->size);
        if (len == 0)
            return false;
        at += len;
    }
    return at == offset;
}
