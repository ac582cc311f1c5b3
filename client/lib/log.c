/* log: see log.h. A line leaves in one write(2), so lines of several processes that
 * share stderr do not mix. Control characters become '?': what a peer sent can neither
 * forge a line nor drive a terminal. No files, no rotation: that is the supervisor's.
 */
#include "client/lib/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/timefmt.h"

#define LOG_LINE_MAX 2048 /* one event; longer texts are cut */

static const char *log_program = "neargpu";
static enum log_level log_min = LOG_LVL_INFO;

void log_init(const char *program, enum log_level min_level)
{
    log_program = program;
    log_min = min_level;
}

void log_at(enum log_level level, const char *fmt, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    if (level < log_min)
        return;
    int saved = errno;
    char line[LOG_LINE_MAX], stamp[TIMEFMT_MAX];
    int64_t now = clock_now_us();
    timefmt_utc(now - now % US_PER_S, stamp);
    int head = snprintf(line, sizeof(line), "%.19s.%03dZ %s %s: ", stamp,
                        (int)(now % US_PER_S / 1000), names[level], log_program);
    size_t len = (size_t)head;
    if (len > sizeof(line) - 2)
        len = sizeof(line) - 2;
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(line + len, sizeof(line) - 1 - len, fmt, ap);
    va_end(ap);
    size_t start = len;
    if (n > 0)
        len += strlen(line + len);
    for (size_t i = start; i < len; i++)
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f)
            line[i] = '?';
    line[len++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, len);
    (void)written; /* nowhere to complain */
    errno = saved;
}
