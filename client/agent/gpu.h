/* gpu: what a node's GPUs are and how they are used, behind one vtable, so that the
 * agent runs the same on NVIDIA's library (gpu_nvml) and on a simulated inventory in a
 * file (gpu_sim). A missing figure is "unsupported" (-1), never a guess.
 *
 * A GPU's identity is its UUID. `minor` is the number of its device node, which is not
 * its index: backends cross-check it where the kernel tells. A GPU that falls off the
 * bus stays in the list with `lost` set for as long as its backend is open.
 *
 * An instance of a GPU in MIG mode is a unit of its own: own UUID, memory and model
 * ("H100 MIG 1g.10gb"). Its device node is its GPU's; what tells it from its neighbours
 * are two capability nodes (GPU instance, compute instance), whose minors the kernel
 * tells in the files cap_access. The GPU in MIG mode is listed and not offered.
 * Source: NVIDIA, MIG User Guide, "Device nodes and capabilities".
 *
 * It does not decide anything: idle or busy is advert's, granted or not is lease's. */
#ifndef NEARGPU_AGENT_GPU_H
#define NEARGPU_AGENT_GPU_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/bounds.h"
#include "client/lib/err.h"
#include "client/lib/token.h"

#define GPU_PIDS_MAX 64 /* holders listed by name; more are only counted */
#define GPU_CAPS_MAX 2  /* capability nodes of one MIG instance */

struct gpu_info {
    char uuid[TOKEN_GPU_UUID_MAX];
    char model[64];
    char pci[32];            /* "0000:3b:00.0", lower case; "" when unknown */
    char device[128];        /* device node granted with this GPU */
    int index, minor, major; /* -1: unknown */
    int64_t memory_mib;
    /* dynamic, refreshed by sample() */
    int64_t mem_used_mib;    /* -1: unsupported */
    int64_t utilisation_ppm; /* -1: unsupported */
    int64_t energy_mj;       /* since the driver was loaded; -1: unsupported */
    int process_count;       /* programs that hold a context; -1: unsupported */
    int pids[GPU_PIDS_MAX];  /* the first of them */
    bool lost;
    bool mig;       /* a GPU in MIG mode: not offered itself, its instances are */
    char note[128]; /* why it is not offered, "" otherwise */
    /* of a MIG instance; parent "" for a whole GPU */
    char parent[TOKEN_GPU_UUID_MAX];
    int parent_index, gi, ci;
    int cap_major;                      /* of capability nodes; -1: unknown */
    char cap_access[GPU_CAPS_MAX][128]; /* gi, then ci */
};

struct gpu_source {
    const char
        *path; /* gpu_sim: the inventory file; gpu_nvml: the library, NULL: usual */
    const char *proc;    /* gpu_nvml: NULL, or another place for /proc/driver/nvidia */
    const char *dev;     /* gpu_nvml: NULL, or another place for /dev */
    const char *devices; /* gpu_nvml: NULL, or another place for /proc/devices */
};

struct gpu_ops {
    const char *name;
    int (*open)(const struct gpu_source *source, void **ret, struct err *err);
    /* All GPUs of the node with everything filled, at most cap, in index order. */
    int (*list)(void *backend, struct gpu_info *out, size_t cap, size_t *ret_count,
                struct err *err);
    /* Refreshes the dynamic part of one (found by uuid); a GPU that is gone gets
     * `lost`, which is not a failure. */
    int (*sample)(void *backend, struct gpu_info *gpu, struct err *err);
    void (*close)(void *backend);
};

extern const struct gpu_ops gpu_nvml;
extern const struct gpu_ops gpu_sim;

const struct gpu_ops *gpu_ops_find(const char *name); /* NULL: unknown */
/* Sets every dynamic figure to "unsupported". */
void gpu_info_clear_sample(struct gpu_info *gpu);
static inline bool gpu_is_instance(const struct gpu_info *gpu)
{
    return gpu->parent[0] != '\0';
}
/* The minor that one of the kernel's capability files tells; -1: none. */
int gpu_cap_minor(const char *access_file);
/* As `neargpu-agent inventory` prints it; new reference. */
json_t *gpu_info_json(const struct gpu_info *gpu);

#endif
