/* confine: takes away from the calling process what a job must not have. Each function
 * is called once, in the child that becomes the job, in the order of this header, and
 * cannot be undone. An edge.
 *
 * Refused system calls fail with EPERM instead of killing: programs probe for features
 * and go on without (io_uring, perf). */
#ifndef NEARGPU_CONFINE_H
#define NEARGPU_CONFINE_H
#include <sys/types.h>

#include "client/lib/err.h"

/* Marks every descriptor above stderr close-on-exec. */
void confine_fds(void);
/* Empty bounding set, no groups, uid and gid for good, no_new_privs. */
int confine_user(uid_t uid, gid_t gid, struct err *err) MUST_USE;
/* Landlock: no device nodes, no abstract sockets or signals to the outside. Nothing
 * happens on a kernel without it: the other layers hold alone. */
int confine_landlock(struct err *err) MUST_USE;
int confine_seccomp(struct err *err) MUST_USE;

/* For lease-init: keeps root's uid with CAP_KILL alone, not dumpable. */
int confine_init(struct err *err) MUST_USE;

#endif
