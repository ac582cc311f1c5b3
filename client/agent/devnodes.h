/* devnodes: which device nodes a lease of certain GPUs gets: nvidiactl, nvidia-uvm and
 * the granted nvidiaN; for a MIG instance its GPU's nvidiaN and the capability nodes of
 * its GPU instance and its compute instance. Never modeset, uvm-tools, nvswitchctl, nor
 * the capabilities that configure or watch MIG. The numbers are read from the nodes,
 * from /proc/devices and from the kernel's capability files at the moment of granting.
 * An edge.
 *
 * Who still has a node open is looked up by holders.h. */
#ifndef NEARGPU_AGENT_DEVNODES_H
#define NEARGPU_AGENT_DEVNODES_H
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/agent/gpu.h"
#include "client/agent/launch.h"
#include "client/lib/err.h"

#define DEVNODES_MAX ((1 + GPU_CAPS_MAX) * GPUS_PER_NODE_MAX + 2)

/* Nodes for these GPUs, at most DEVNODES_MAX; strings on the heap (devnodes_done).
 * ERR_UNAVAILABLE when a GPU's node is not there or is not the device it should be. */
int devnodes_find(const struct gpu_info *const *gpus, size_t count,
                  struct launch_node *out, size_t *ret_count, struct err *err) MUST_USE;
void devnodes_done(struct launch_node *nodes, size_t count);

/* The nodes that only the holder of this GPU or instance can have open: its nvidiaN, or
 * an instance's capability nodes (its nvidiaN belongs to its neighbours as well). At
 * most cap, as device numbers; fewer when they are gone. */
size_t devnodes_own(const struct gpu_info *gpu, dev_t *out, size_t cap);

#endif
