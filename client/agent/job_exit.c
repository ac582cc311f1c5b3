/* job_exit: JOB/exit, written by lease-init when the job ended by itself, by the keeper
 * when it was killed together with its lease-init. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/agent/lease_init.h"

static int put(int dir_fd, const char *name, const char *text)
{
    int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW,
                    0600);
    if (fd < 0)
        return -1;
    size_t len = strlen(text);
    int rc = write(fd, text, len) == (ssize_t)len && fsync(fd) == 0 ? 0 : -1;
    int saved = errno;
    close(fd);
    errno = saved;
    return rc;
}

int job_exit_write(int job_fd, const struct job_exit *e, struct err *err)
{
    char text[128], name[40];
    snprintf(text, sizeof(text), "{\"%s\":%d,\"reason\":\"%s\"}\n",
             e->signaled ? "signal" : "exit", e->value, e->reason);
    snprintf(name, sizeof(name), "exit.%d.tmp", (int)getpid());
    if (put(job_fd, name, text) < 0)
        return err_sys(err, errno, "write exit");
    /* RENAME_NOREPLACE: the first account of the end stays. */
    if (renameat2(job_fd, name, job_fd, "exit", RENAME_NOREPLACE) < 0) {
        int saved = errno;
        (void)unlinkat(job_fd, name, 0);
        return saved == EEXIST ? 0 : err_sys(err, saved, "rename exit");
    }
    (void)fsync(job_fd);
    return 0;
}

const char *job_exit_reason(int lease_fd, char buf[24], const char *fallback)
{
    int fd = openat(lease_fd, "reason", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return fallback;
    ssize_t n = read(fd, buf, 23);
    close(fd);
    if (n <= 0)
        return fallback;
    buf[n] = '\0';
    for (char *p = buf; *p != '\0'; p++)
        if ((*p < 'a' || *p > 'z') && *p != '_')
            *p = '\0';
    return buf[0] != '\0' ? buf : fallback;
}
