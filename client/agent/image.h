/* image: a job in a container image: podman, as root, in the lease's cgroup and in the
 * job's own pid and mount namespaces, under lease-init like any other job. So its end
 * is that of other jobs: when lease-init ends, podman, its monitor and the container
 * end.
 *
 * The container: image of the node's store, never pulled; /dev with the lease's nodes
 * by a generated CDI specification, which only this mount namespace has; job_user, no
 * capabilities, no new privileges, podman's seccomp filter; the lease's work directory;
 * the host's network. runc makes its cgroup BASE/LEASE/img-JOB, below the lease's gate
 * and limits. Podman's own state is in the job's directory and goes with it; no option
 * and no environment of the tenant reaches podman itself. */
#ifndef NEARGPU_IMAGE_H
#define NEARGPU_IMAGE_H
#include "client/agent/launch.h"
#include "client/lib/err.h"

#define IMAGE_DIR "/run/neargpu-image" /* podman's state, as this namespace sees it */

/* In lease-init's namespaces: /proc, podman's directories, the CDI specification. */
int image_enter(const struct launch_spec *spec, const char *lease_dir,
                struct err *err) MUST_USE;
/* Pure: podman's arguments; nofile and nproc are hard limits that are there. Caller
 * frees each and the list. */
char **image_argv(const struct launch_spec *spec, const char *work_dir, int64_t nofile,
                  int64_t nproc);
/* In the child that becomes podman; returns only on failure. */
int image_exec(const struct launch_spec *spec, const char *lease_dir,
               struct err *err) MUST_USE;

#endif
