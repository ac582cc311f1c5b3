/* fsx: files done carefully. Secrets are 0600 and refused otherwise; writes that must
 * last are atomic and synced. An edge. */
#ifndef NEARGPU_FSX_H
#define NEARGPU_FSX_H
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "client/lib/err.h"

/* Whole file, NUL-terminated, at most max bytes (ERR_TOO_LARGE over it). ERR_NOT_FOUND
 * when it is not there. Caller frees. ret_len may be NULL. */
int fsx_read(const char *path, size_t max, char **ret_data, size_t *ret_len,
             struct err *err) MUST_USE;
/* As fsx_read, but the file must be a regular file owned by the caller (or root) with
 * no group or other permission. The text says which chmod to run. */
int fsx_read_secret(const char *path, size_t max, char **ret_data, size_t *ret_len,
                    struct err *err) MUST_USE;
/* Atomic replace: temp file in the same directory, write, fsync, rename, fsync of the
 * directory. */
int fsx_write(const char *path, const void *data, size_t len, mode_t mode,
              struct err *err) MUST_USE;
/* The same without fsync: other processes see the old or the new one, also when this
 * one dies; after a power cut it may be gone or empty until somebody syncs it. */
int fsx_replace(const char *path, const void *data, size_t len, mode_t mode,
                struct err *err) MUST_USE;
/* mkdir -p; existing directories are left as they are, new ones are found again after a
 * power cut. */
int fsx_mkdirs(const char *path, mode_t mode, struct err *err) MUST_USE;
/* What was made, renamed or removed in it is found so after a power cut. */
int fsx_sync_dir(const char *dir, struct err *err) MUST_USE;
/* rm -r of path; missing is fine. Never follows links. */
int fsx_remove_tree(const char *path, struct err *err) MUST_USE;
int fsx_set_nonblock(int fd, struct err *err) MUST_USE;

#endif
