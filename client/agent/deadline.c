/* deadline: see deadline.h. */
#include "client/agent/deadline.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"

#define REREAD_US INT64_C(1000000) /* where the kernel does not tell of changes */

int deadline_boot_id(char ret[DEADLINE_BOOT_ID_MAX], struct err *err)
{
    char *text;
    size_t len;
    if (fsx_read("/proc/sys/kernel/random/boot_id", 64, &text, &len, err) < 0)
        return -1;
    text[strcspn(text, "\n")] = '\0';
    int rc = 0;
    if (snprintf(ret, DEADLINE_BOOT_ID_MAX, "%s", text) != 36)
        rc = err_set(err, ERR_INTERNAL, "boot_id is not a UUID: %s", text);
    free(text);
    return rc;
}

int deadline_write(const char *lease_dir, const char *boot_id, int64_t end_boot_us,
                   struct err *err)
{
    char *path = xasprintf("%s/deadline", lease_dir);
    char *text = xasprintf("%s %" PRId64 "\n", boot_id, end_boot_us);
    /* It means nothing in another boot, so a power cut may take it. */
    int rc = fsx_replace(path, text, strlen(text), 0600, err);
    free(text);
    free(path);
    return rc;
}

int deadline_read(int dir_fd, const char *boot_id, int64_t *ret_boot_us,
                  struct err *err)
{
    char text[96];
    int fd = openat(dir_fd, "deadline", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return err_sys(err, errno, "open deadline");
    ssize_t n = read(fd, text, sizeof(text) - 1);
    close(fd);
    if (n < 0)
        return err_sys(err, errno, "read deadline");
    text[n] = '\0';
    char *end = NULL, *space = strchr(text, ' ');
    int64_t us = space != NULL ? strtoll(space + 1, &end, 10) : 0;
    if (space == NULL || end == space + 1 || *end != '\n' || us < 0)
        return err_set(err, ERR_BAD_REQUEST, "deadline cannot be understood");
    *space = '\0';
    *ret_boot_us = strcmp(text, boot_id) == 0 ? us : 0;
    return 0;
}

void deadline_watch(struct deadline *d)
{
    /* F_NOTIFY leaves an owner that is set already, which may be our parent. */
    d->is_told = fcntl(d->dir_fd, F_SETOWN, getpid()) == 0 &&
                 fcntl(d->dir_fd, F_NOTIFY, DN_RENAME | DN_CREATE | DN_MULTISHOT) == 0;
}

int deadline_open(struct deadline *d, const char *lease_dir, struct err *err)
{
    *d = (struct deadline){.dir_fd = -1, .watch_fd = -1, .timer_fd = -1};
    if (deadline_boot_id(d->boot_id, err) < 0)
        return -1;
    d->dir_fd = open(lease_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (d->dir_fd < 0)
        return err_sys(err, errno, "open %s", lease_dir);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGIO);
    sigprocmask(SIG_BLOCK, &set, NULL);
    d->watch_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (d->watch_fd < 0)
        return err_sys(err, errno, "signalfd");
    deadline_watch(d);
    d->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    if (d->timer_fd < 0)
        return err_sys(err, errno, "timerfd");
    return deadline_read(d->dir_fd, d->boot_id, &d->end_boot_us, err);
}

void deadline_close(struct deadline *d)
{
    int *fds[] = {&d->dir_fd, &d->watch_fd, &d->timer_fd};
    for (size_t i = 0; i < 3; i++) {
        if (*fds[i] >= 0)
            close(*fds[i]);
        *fds[i] = -1;
    }
}

static void empty(int fd)
{
    char dump[4096];
    while (read(fd, dump, sizeof(dump)) > 0)
        ;
}

void deadline_cap(struct deadline *d, int64_t cap_boot_us)
{
    d->cap_boot_us = cap_boot_us;
    if (cap_boot_us > 0 && d->end_boot_us > cap_boot_us)
        d->end_boot_us = cap_boot_us;
}

void deadline_refresh(struct deadline *d, int64_t drain_us, int64_t now_boot_us)
{
    empty(d->watch_fd);
    empty(d->timer_fd);
    int64_t end;
    if (deadline_read(d->dir_fd, d->boot_id, &end, NULL) == 0)
        d->end_boot_us = end;
    deadline_cap(d, d->cap_boot_us);
    int64_t at = d->end_boot_us - drain_us;
    if (at <= now_boot_us)
        at = d->end_boot_us;
    if (!d->is_told && at > now_boot_us + REREAD_US)
        at = now_boot_us + REREAD_US;
    if (at <= 0)
        at = 1; /* 0 would disarm the timer */
    struct itimerspec when = {.it_value = {at / 1000000, (at % 1000000) * 1000}};
    (void)timerfd_settime(d->timer_fd, TFD_TIMER_ABSTIME, &when, NULL);
}
