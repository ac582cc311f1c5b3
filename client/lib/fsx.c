/* fsx: see fsx.h. Every open is O_CLOEXEC: a job never inherits a file of ours. What it
 * does not do: locking, and writing in place. */
#include "client/lib/fsx.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/lib/digest.h"
#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"

#define FSX_DEPTH_MAX 64 /* a tree of ours has 4 levels; stops a runaway recursion */

/* Reads to the end; files of /proc and pipes have no size to trust beforehand. */
static int fsx_slurp(int fd, const char *path, size_t max, struct strbuf *out,
                     struct err *err)
{
    char block[16384];
    for (;;) {
        ssize_t n = read(fd, block, sizeof(block));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(err, errno, "cannot read %s", path);
        if (n == 0)
            return 0;
        if ((size_t)n > max - out->len)
            return err_set(err, ERR_TOO_LARGE, "%s is larger than %zu bytes", path,
                           max);
        strbuf_add(out, block, (size_t)n);
    }
}

static int fsx_check_secret(int fd, const char *path, struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return err_sys(err, errno, "cannot stat %s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_IO, "%s is not a regular file", path);
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return err_set(err, ERR_IO, "%s belongs to another user: run chown %lu %s",
                       path, (unsigned long)geteuid(), path);
    if ((st.st_mode & 077) != 0)
        return err_set(err, ERR_IO,
                       "%s can be read by others (mode %04o): run chmod 600 %s", path,
                       (unsigned)(st.st_mode & 07777), path);
    return 0;
}

static int fsx_read_checked(const char *path, size_t max, bool secret,
                            struct strbuf *out, struct err *err)
{
    /* O_NONBLOCK: a FIFO put in the place of a secret must not hang the reader. */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | (secret ? O_NONBLOCK : 0));
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return err_set(err, ERR_NOT_FOUND, "%s does not exist", path);
    if (fd < 0)
        return err_sys(err, errno, "cannot open %s", path);
    int rc = secret ? fsx_check_secret(fd, path, err) : 0;
    if (rc == 0)
        rc = fsx_slurp(fd, path, max, out, err);
    close(fd);
    return rc;
}

static int fsx_read_any(const char *path, size_t max, bool secret, char **ret_data,
                        size_t *ret_len, struct err *err)
{
    struct strbuf b = STRBUF_INIT;
    if (fsx_read_checked(path, max, secret, &b, err) != 0) {
        strbuf_done(&b);
        return -1;
    }
    if (ret_len != NULL)
        *ret_len = b.len;
    *ret_data = strbuf_steal(&b);
    return 0;
}

int fsx_read(const char *path, size_t max, char **ret_data, size_t *ret_len,
             struct err *err)
{
    return fsx_read_any(path, max, false, ret_data, ret_len, err);
}

int fsx_read_secret(const char *path, size_t max, char **ret_data, size_t *ret_len,
                    struct err *err)
{
    return fsx_read_any(path, max, true, ret_data, ret_len, err);
}

static int fsx_write_all(int fd, const char *path, const void *data, size_t len,
                         struct err *err)
{
    const char *p = data;
    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_sys(err, errno, "cannot write %s", path);
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

int fsx_sync_dir(const char *dir, struct err *err)
{
    int rc = 0;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) != 0)
        rc = err_sys(err, errno, "cannot sync directory %s", dir);
    if (fd >= 0)
        close(fd);
    return rc;
}

/* The rename lasts only once the directory itself is on disk. */
static int fsx_sync_parent(const char *path, struct err *err)
{
    char *dir = xstrdup(path);
    char *slash = strrchr(dir, '/');
    if (slash == NULL)
        memcpy(dir, ".", path[0] == '\0' ? 1 : 2);
    else if (slash == dir)
        slash[1] = '\0';
    else
        *slash = '\0';
    int rc = fsx_sync_dir(dir, err);
    free(dir);
    return rc;
}

static int fsx_write_temp(const char *temp, const void *data, size_t len, mode_t mode,
                          bool sync, struct err *err)
{
    int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_sys(err, errno, "cannot create %s", temp);
    int rc = fsx_write_all(fd, temp, data, len, err);
    /* The mode is set while the file is still nameless to others, umask or not. */
    if (rc == 0 && fchmod(fd, mode) != 0)
        rc = err_sys(err, errno, "cannot set the mode of %s", temp);
    if (rc == 0 && sync && fsync(fd) != 0)
        rc = err_sys(err, errno, "cannot sync %s", temp);
    if (close(fd) != 0 && rc == 0)
        rc = err_sys(err, errno, "cannot close %s", temp);
    return rc;
}

static int fsx_put(const char *path, const void *data, size_t len, mode_t mode,
                   bool sync, struct err *err)
{
    uint8_t salt[6];
    char hex[2 * sizeof(salt) + 1];
    digest_random(salt, sizeof(salt));
    digest_hex(salt, sizeof(salt), hex);
    char *temp = xasprintf("%s.%s.tmp", path, hex);
    int rc = fsx_write_temp(temp, data, len, mode, sync, err);
    if (rc == 0 && rename(temp, path) != 0)
        rc = err_sys(err, errno, "cannot rename %s to %s", temp, path);
    if (rc != 0)
        unlink(temp);
    free(temp);
    return rc;
}

int fsx_replace(const char *path, const void *data, size_t len, mode_t mode,
                struct err *err)
{
    return fsx_put(path, data, len, mode, false, err);
}

int fsx_write(const char *path, const void *data, size_t len, mode_t mode,
              struct err *err)
{
    int rc = fsx_put(path, data, len, mode, true, err);
    return rc != 0 ? rc : fsx_sync_parent(path, err);
}

int fsx_mkdirs(const char *path, mode_t mode, struct err *err)
{
    char *copy = xstrdup(path);
    int rc = 0;
    for (char *p = copy + 1; rc == 0; p++) {
        char end = *p;
        if (end != '/' && end != '\0')
            continue;
        *p = '\0';
        if (mkdir(copy, mode) == 0)
            rc = fsx_sync_parent(copy, err);
        else if (errno != EEXIST)
            rc = err_sys(err, errno, "cannot create directory %s", copy);
        if (end == '\0')
            break;
        *p = '/';
    }
    struct stat st;
    if (rc == 0 && (stat(path, &st) != 0 || !S_ISDIR(st.st_mode)))
        rc = err_set(err, ERR_IO, "%s is not a directory", path);
    free(copy);
    return rc;
}

static int fsx_remove_at(int dir_fd, const char *name, int depth, struct err *err);

/* Empties the directory behind fd, which is closed in any case. */
static int fsx_remove_entries(int fd, const char *name, int depth, struct err *err)
{
    DIR *dir = fdopendir(fd);
    if (dir == NULL) {
        int why = errno;
        close(fd);
        return err_sys(err, why, "cannot list %s", name);
    }
    int rc = 0;
    const struct dirent *e;
    while (rc == 0 && (e = readdir(dir)) != NULL)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            rc = fsx_remove_at(dirfd(dir), e->d_name, depth + 1, err);
    closedir(dir);
    return rc;
}

/* Works relative to open directories: a link swapped in meanwhile leads nowhere. */
static int fsx_remove_at(int dir_fd, const char *name, int depth, struct err *err)
{
    if (depth > FSX_DEPTH_MAX)
        return err_set(err, ERR_IO, "%s is nested too deep to remove", name);
    if (unlinkat(dir_fd, name, 0) == 0 || errno == ENOENT)
        return 0;
    if (errno != EISDIR && errno != EPERM)
        return err_sys(err, errno, "cannot remove %s", name);
    int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : err_sys(err, errno, "cannot remove %s", name);
    if (fsx_remove_entries(fd, name, depth, err) != 0)
        return -1;
    if (unlinkat(dir_fd, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
        return err_sys(err, errno, "cannot remove directory %s", name);
    return 0;
}

int fsx_remove_tree(const char *path, struct err *err)
{
    return fsx_remove_at(AT_FDCWD, path, 0, err);
}

int fsx_set_nonblock(int fd, struct err *err)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0)
        return err_sys(err, errno, "cannot make descriptor %d non-blocking", fd);
    return 0;
}
