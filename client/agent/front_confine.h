/* front_confine: takes away from the front everything that it does not need. Afterwards
 * the process has: an unprivileged user without capabilities or other groups,
 * no_new_privs; a mount namespace in which /dev, /sys, /tmp, /root, /home and the
 * agent's own directories are empty and read-only; a system call filter without bpf,
 * mount, ptrace, setns, unshare, mknod, execve, fork, io_uring, handles and the memory
 * of others; landlock, where the kernel has it: the system's files to be read, one
 * directory to be written, no device. Cannot be undone. An edge. */
#ifndef NEARGPU_AGENT_FRONT_CONFINE_H
#define NEARGPU_AGENT_FRONT_CONFINE_H
#include <jansson.h>
#include <stddef.h>
#include <sys/types.h>

#include "client/lib/err.h"

struct front_confine {
    uid_t uid;
    gid_t gid;
    int dir_fd;         /* O_PATH: may be written */
    int ca_fd;          /* O_PATH: may be read */
    const json_t *hide; /* texts: more directories that are taken out of sight */
};

/* Called by root, once, with one thread. */
int front_confine(const struct front_confine *c, struct err *err) MUST_USE;

/* `neargpu-agent front-selftest`: tries, in a process confined like a front beside one
 * that stands for the warden, what a front must not be able to do. Prints a line for
 * each; 0 when all were refused. STATE is the directory whose secrets are tried. */
int front_selftest(const char *state_dir, uid_t uid, gid_t gid);

#endif
