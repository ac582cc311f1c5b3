/* cgroup: files of cgroup2 and of the v1 memory, pids and cpu hierarchies, and the
 * device gate by bpf(2). An edge; knows nothing of leases. */
#ifndef NEARGPU_CGROUP_H
#define NEARGPU_CGROUP_H
#include <stdbool.h>
#include <stdint.h>

#include "client/agent/devprog.h"
#include "client/lib/err.h"

#define CGROUP_BASE    "neargpu"  /* our directory in every hierarchy */
#define CGROUP_KEEPERS "_keepers" /* no lease id starts with an underscore */

struct cgroup_mounts { /* "" where there is none */
    char v2[256];
    char v1_memory[256];
    char v1_pids[256];
    char v1_cpu[256];
    bool v2_memory, v2_pids, v2_cpu; /* controller available at the cgroup2 root */
};

/* Pure part: from the text of mountinfo (v2_memory, v2_pids and v2_cpu are left false).
 */
int cgroup_parse_mounts(const char *mountinfo, struct cgroup_mounts *ret,
                        struct err *err) MUST_USE;
/* From /proc/self/mountinfo and cgroup.controllers. */
int cgroup_find_mounts(struct cgroup_mounts *ret, struct err *err) MUST_USE;

/* Removes BASE/LEASE from the v1 hierarchies that we do not use ourselves: container
 * runtimes make cgroups in each. As cgroup_remove. */
int cgroup_remove_foreign(const char *base, const char *lease,
                          struct err *err) MUST_USE;

/* "MOUNT/BASE", "MOUNT/BASE/LEASE" or "MOUNT/BASE/LEASE/job-JOB", as far as lease and
 * job are not NULL. Caller frees. */
char *cgroup_path(const char *mount, const char *base, const char *lease,
                  const char *job);

/* mkdir of one directory; existing is fine. */
int cgroup_make(const char *dir, struct err *err) MUST_USE;
/* Removes dir and its child cgroups, bottom up; missing is fine; ERR_CONFLICT when
 * busy. */
int cgroup_remove(const char *dir, struct err *err) MUST_USE;
/* Writes text to dir/file. */
int cgroup_write(const char *dir, const char *file, const char *text,
                 struct err *err) MUST_USE;
/* The same where a missing file or a refusal does not matter. */
void cgroup_try_write(const char *dir, const char *file, const char *text);
/* populated of cgroup.events; false for a missing directory. */
int cgroup_populated(const char *dir, bool *ret, struct err *err) MUST_USE;
/* cgroup.kill, else SIGKILL to every process found until none is left. */
int cgroup_kill(const char *dir, struct err *err) MUST_USE;

/* Gate: at most one program of ours on a directory, attached with ALLOW_MULTI (with
 * flags 0 or ALLOW_OVERRIDE an unprivileged job could detach it). cgroup_gate_set
 * replaces atomically or attaches the first; ERR_UNAVAILABLE when a foreign program
 * there or above suffers no second one. */
int cgroup_gate_set(const char *dir, const struct devprog *prog,
                    struct err *err) MUST_USE;
/* Takes ours off again, where the cgroup is not ours; none is fine. */
int cgroup_gate_clear(const char *dir, struct err *err) MUST_USE;
/* Number of device programs directly on dir, and whether attached with ALLOW_MULTI. */
int cgroup_gate_query(const char *dir, uint32_t *ret_count, bool *ret_multi,
                      struct err *err) MUST_USE;

#endif
