/* adopt: cgroups that others made (a container of podman or runc, a step of Slurm) held
 * to a lease: the lease's gate on them, its end for them.
 *
 * Weaker than a launched job: no lease-init and no keeper (with the agent dead the
 * gate still refuses opens at the end, but processes go on until an agent is back), no
 * limits of the lease, no view of the machine of its own, and a descriptor can be
 * passed in from outside by who holds one.
 *
 * Which they are stands on the lease's own cgroup directory, in the extended attribute
 * `trusted.neargpu.adopted`, one line each: "STATE INO PATH\n"; STATE is `begun` or
 * `held`, INO the directory's inode (the kernel never gives it to another cgroup in
 * this boot), PATH relative to the cgroup2 mount. So it lasts exactly as long as the
 * cgroups do, outlives the agent and its journal, and jobs cannot write it. It is
 * written before the gate is attached; what is found `begun` is undone.
 *
 * adopt.c is pure; adopt_cgroup.c is an edge. Nothing here knows leases' states. */
#ifndef NEARGPU_ADOPT_H
#define NEARGPU_ADOPT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/agent/devprog.h"
#include "client/lib/err.h"

#define ADOPT_MAX       16 /* cgroups of one lease: 16 * 1 KiB fit an attribute */
#define ADOPT_PATH_MAX  1024
#define ADOPT_FREEZE_US INT64_C(1000000) /* to stop all of its processes */

struct adopted {
    char path[ADOPT_PATH_MAX]; /* relative to the mount: "a/b", no leading slash */
    uint64_t ino;
    bool held; /* gated and looked through; else it was only begun */
};
struct adopted_list {
    struct adopted e[ADOPT_MAX];
    size_t count;
};

/* What a person may write: a directory below the cgroup2 mount, or the path as
 * /proc/PID/cgroup has it ("/a/b"). Not the root, no `.` or `..`, no control
 * characters. */
int adopt_path(const char *mount, const char *text, char ret[ADOPT_PATH_MAX],
               struct err *err) MUST_USE;
/* One is the other or an ancestor of it. */
bool adopt_overlaps(const char *a, const char *b);
/* Caller frees. */
char *adopt_format(const struct adopted_list *l);
int adopt_parse(const char *text, struct adopted_list *ret, struct err *err) MUST_USE;

/* Where: the mount of cgroup2 and the directory of the lease on it. */
struct adopt_at {
    const char *mount, *base, *id;
};

/* Freezes (where the kernel can), attaches the gate, refuses when a process of it has a
 * device open that is not one of devprog_base_rules(), thaws. ERR_FORBIDDEN: uid is
 * neither root nor the directory's owner; ERR_CONFLICT: it overlaps what a lease holds,
 * the agent runs in it, or a device is open; ERR_UNAVAILABLE: the gate cannot be
 * attached. Refused means untouched. Adopting it again is fine. */
int adopt_add(const struct adopt_at *at, const char *text, uid_t uid,
              const struct devprog *prog, struct err *err) MUST_USE;
/* Each for every adopted cgroup of the lease that is still there. */
int adopt_gate(const struct adopt_at *at, const struct devprog *prog,
               struct err *err) MUST_USE;
int adopt_kill(const struct adopt_at *at, struct err *err) MUST_USE;
int adopt_signal(const struct adopt_at *at, int signo, struct err *err) MUST_USE;
/* *ret_gated: none is without; *ret_populated: one has a process. */
int adopt_look(const struct adopt_at *at, bool *ret_gated, bool *ret_populated,
               struct err *err) MUST_USE;
/* Takes the gate off, since the directories are not ours. ERR_CONFLICT while one has a
 * process. */
int adopt_release(const struct adopt_at *at, struct err *err) MUST_USE;

#endif
