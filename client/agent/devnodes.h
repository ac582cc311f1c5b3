/* devnodes: which device nodes a lease of certain GPUs gets: nvidiactl, nvidia-uvm and
 * the granted nvidiaN; never modeset, uvm-tools, nvswitchctl or MIG configuration. The
 * numbers are read from the nodes and from /proc/devices at the moment of granting. An
 * edge. */
#ifndef NEARGPU_AGENT_DEVNODES_H
#define NEARGPU_AGENT_DEVNODES_H
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/agent/gpu.h"
#include "client/agent/launch.h"
#include "client/lib/err.h"

#define DEVNODES_MAX (GPUS_PER_NODE_MAX + 2)

/* Nodes for these GPUs, at most DEVNODES_MAX; strings on the heap (devnodes_done).
 * ERR_UNAVAILABLE when a GPU's node is not there or is not the device it should be. */
int devnodes_find(const struct gpu_info *const *gpus, size_t count,
                  struct launch_node *out, size_t *ret_count, struct err *err) MUST_USE;
void devnodes_done(struct launch_node *nodes, size_t count);

/* A process of this uid that has one of these GPUs' nodes open: its pid, 0: none, -1:
 * /proc cannot be read. One that cannot be looked into counts as a holder. */
pid_t devnodes_holder(const struct gpu_info *const *gpus, size_t count, uid_t uid);

#endif
