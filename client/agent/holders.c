/* holders: see holders.h. */
#include "client/agent/holders.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_one(const struct holders_query *q, const struct stat *st)
{
    if (!S_ISCHR(st->st_mode))
        return false;
    for (size_t i = 0; i < q->count; i++)
        if (q->devices[i] == st->st_rdev)
            return true;
    return false;
}

/* 1: an entry of PID/what is one of the devices; 0: none, or the process is gone; -1:
 * it cannot be looked into. */
static int holds(const struct holders_query *q, int proc_fd, const char *pid,
                 const char *what)
{
    char path[300];
    struct stat st;
    snprintf(path, sizeof(path), "%.100s/%s", pid, what);
    int fd = openat(proc_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT || errno == ESRCH ? 0 : -1;
    DIR *d = fdopendir(fd);
    if (d == NULL) {
        close(fd);
        return -1;
    }
    int found = 0;
    const struct dirent *e;
    errno = 0;
    while (found == 0 && (e = readdir(d)) != NULL) {
        if (e->d_name[0] != '.' && fstatat(fd, e->d_name, &st, 0) == 0 &&
            is_one(q, &st))
            found = 1;
        errno = 0;
    }
    if (found == 0 && errno != 0 && errno != ENOENT && errno != ESRCH)
        found = -1;
    closedir(d);
    return found;
}

static void name_of(int proc_fd, const char *pid, char *out, size_t cap)
{
    char path[300], text[32];
    snprintf(path, sizeof(path), "%.100s/comm", pid);
    snprintf(out, cap, "?");
    int fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
    if (n > 0) {
        text[n] = '\0';
        text[text[n - 1] == '\n' ? n - 1 : n] = '\0';
        for (char *c = text; *c != '\0'; c++)
            if (!isprint((unsigned char)*c))
                *c = '?';
        snprintf(out, cap, "%s", text);
    }
    if (fd >= 0)
        close(fd);
}

/* When it began, by the boot clock and at the latest; INT64_MAX when that is not told.
 */
static int64_t began_us(int proc_fd, const char *pid)
{
    char path[300], text[1024];
    snprintf(path, sizeof(path), "%.100s/stat", pid);
    int fd = openat(proc_fd, path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    /* Fields are counted from behind the name, which may contain anything. */
    const char *at = strrchr(text, ')');
    for (int field = 2; at != NULL && field < 22; field++)
        at = strchr(at + 1, ' ');
    long hz = sysconf(_SC_CLK_TCK);
    if (at == NULL || hz <= 0)
        return INT64_MAX;
    return (strtoll(at, NULL, 10) + 1) * (1000000 / hz);
}

/* 1: holds one, 0: no, or it is nobody's business. */
static int look(const struct holders_query *q, int proc_fd, const char *pid,
                bool *ret_mapped)
{
    struct stat st;
    *ret_mapped = false;
    if (fstatat(proc_fd, pid, &st, 0) != 0)
        return 0;
    bool job = st.st_uid == q->job_uid;
    if (!job && began_us(proc_fd, pid) <= q->began_boot_us)
        return 0; /* most of a machine's processes: no need to look into them */
    int rc = holds(q, proc_fd, pid, "fd");
    if (rc == 0) {
        rc = holds(q, proc_fd, pid, "map_files");
        *ret_mapped = rc == 1;
    }
    if (rc < 0)
        return job ? 1 : 0;
    return rc;
}

int holders_find(const struct holders_query *q, struct holder *ret, struct err *err)
{
    DIR *d = opendir("/proc");
    const struct dirent *e;
    int found = 0;
    if (d == NULL)
        return err_sys(err, errno, "open /proc");
    while (q->count > 0 && found == 0 && (e = readdir(d)) != NULL) {
        bool mapped;
        pid_t pid = (pid_t)strtol(e->d_name, NULL, 10);
        if (!isdigit((unsigned char)e->d_name[0]) || pid == getpid())
            continue;
        found = look(q, dirfd(d), e->d_name, &mapped);
        if (found == 1) {
            ret->pid = pid;
            ret->mapped = mapped;
            name_of(dirfd(d), e->d_name, ret->name, sizeof(ret->name));
        }
    }
    closedir(d);
    return found;
}
