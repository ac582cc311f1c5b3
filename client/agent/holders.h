/* holders: which processes of this machine still hold a GPU: an open descriptor of its
 * device node (/proc/PID/fd) or a mapping of it (/proc/PID/map_files), also one that
 * outlived its descriptor. Every process is looked at, whatever its user and cgroup: a
 * descriptor can be passed on to a stranger. An edge.
 *
 * What NVML tells of contexts is gpu.h's; who sees both decides (leases). A descriptor
 * in flight inside a socket that nobody reads is not seen here: NVML and the driver's
 * own reset are what is left against that. */
#ifndef NEARGPU_AGENT_HOLDERS_H
#define NEARGPU_AGENT_HOLDERS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/lib/err.h"

struct holder {
    pid_t pid;
    bool mapped;   /* by a mapping; else by a descriptor, or it cannot be seen */
    char name[32]; /* of its program (comm), "?" when it has none any more */
};

struct holders_query {
    const dev_t *devices;
    size_t count;
    uid_t job_uid;         /* jobs run as this user */
    int64_t began_boot_us; /* the lease; INT64_MAX: in an earlier boot */
};

/* The first process that holds one of these character devices: 1 and *ret, 0: none, -1:
 * /proc cannot be read. Passed over are the caller (NVML opens nodes in it) and
 * processes of other users than job_uid that began before the lease did: the driver's
 * persistence daemon and monitors of the owner. A process of job_uid that cannot be
 * looked into counts as a holder. */
int holders_find(const struct holders_query *q, struct holder *ret,
                 struct err *err) MUST_USE;

#endif
