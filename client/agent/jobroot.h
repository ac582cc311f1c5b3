/* jobroot: the file tree a job sees. Called by lease-init, which is in a new mount
 * namespace, still root, with the host's mounts as they are. An edge.
 *
 * / read-only, nodev, nosuid; /dev private: base devices, the granted nodes, pts, shm;
 * /proc of the job's pid namespace; /tmp and /var/tmp private; /run private, with the
 * lease's work directory at LAUNCH_WORK; the agent's state, /root, /home, /sys/fs, the
 * kernel's debugging file systems and what the provider wants hidden: empty.
 *
 * Invariant: nodes are bind-mounted, never made (mknod is refused by the gate), and
 * each is checked to be the device that was granted. */
#ifndef NEARGPU_JOBROOT_H
#define NEARGPU_JOBROOT_H
#include "client/agent/launch.h"
#include "client/lib/err.h"

/* state_dir is hidden; work_dir is the host's path of the lease's work directory. */
int jobroot_enter(const struct launch_spec *spec, const char *state_dir,
                  const char *work_dir, struct err *err) MUST_USE;

#endif
