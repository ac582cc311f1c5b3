/* enforce: what holds a lease to its GPUs and its end. One vtable, so that the agent's
 * other parts are tested without a kernel; the real one is enforce_cgroup.
 *
 * Every operation is idempotent and works from the lease's id alone: nothing is kept in
 * memory, so a restarted agent goes on where the dead one was. In particular no bpf fd
 * stays open (an inherited program fd would let a job detach the gate). */
#ifndef NEARGPU_ENFORCE_H
#define NEARGPU_ENFORCE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/agent/devprog.h"
#include "client/lib/err.h"

struct enforce_lease {
    const char *id; /* reservation id: [A-Za-z0-9._-], 1..63 bytes, no leading dot */
    const struct devprog_rule
        *devices; /* granted nodes; the base devices are implied */
    size_t device_count;
    int64_t deadline_boot_us; /* CLOCK_BOOTTIME; every open is refused from then on */
    int64_t memory_max_bytes; /* 0: no limit */
    int64_t pids_max;         /* 0: no limit */
    int64_t cpu_milli;        /* thousandths of a CPU; 0: no limit */
};

struct enforce_status {
    bool exists; /* the lease's cgroup is there */
    bool gated;  /* exactly our kind of program is attached, not removable by a job */
    bool populated; /* it or a child has a process */
};

struct enforce; /* state of an implementation */

struct enforce_ops {
    /* Cgroup, limits, gate, in this order. On an existing lease: sets the limits and
     * swaps the gate's program for one with these devices and this deadline without a
     * gap. A limit that cannot be enforced here is refused (ERR_UNAVAILABLE). */
    int (*open)(struct enforce *e, const struct enforce_lease *lease, struct err *err);
    /* Swaps the gate's program for one that refuses every device, without a gap;
     * attaches one where there is none. A missing lease is fine. */
    int (*deny)(struct enforce *e, const char *id, struct err *err);
    /* SIGKILL to everything in the lease's cgroup. Returns before they are gone. */
    int (*kill)(struct enforce *e, const char *id, struct err *err);
    /* *ret is untouched on failure. */
    int (*status)(struct enforce *e, const char *id, struct enforce_status *ret,
                  struct err *err);
    /* Removes the lease's cgroups. ERR_CONFLICT while populated; missing is fine. */
    int (*close)(struct enforce *e, const char *id, struct err *err);
    /* Ids of every lease cgroup there is. Caller frees each and the array. */
    int (*list)(struct enforce *e, char ***ret_ids, size_t *ret_count, struct err *err);
    void (*free)(struct enforce *e);
    /* Takes a cgroup that others made into an open lease (adopt.h, which has the errors
     * and what is weaker then); open, deny, kill, status and close hold for it from
     * then on. uid: who asks. */
    int (*adopt)(struct enforce *e, const struct enforce_lease *lease,
                 const char *cgroup, uid_t uid, struct err *err);
    /* A signal to every process of the adopted cgroups, and to no other. */
    int (*signal_adopted)(struct enforce *e, const char *id, int signo,
                          struct err *err);
};

struct enforce {
    const struct enforce_ops *ops;
};

/* The real one. `base` names our directory below the cgroup2 mount (and below the v1
 * memory, pids and cpu mounts where those controllers are not on v2); NULL means
 * "neargpu". Finds the mounts in /proc/self/mountinfo. ERR_UNAVAILABLE without a
 * cgroup2 mount. */
int enforce_cgroup_new(const char *base, struct enforce **ret,
                       struct err *err) MUST_USE;

#endif
