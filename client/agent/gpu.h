/* gpu: what a node's GPUs are and how they are used, behind one vtable, so that the
 * agent runs the same on NVIDIA's library (gpu_nvml) and on a simulated inventory in a
 * file (gpu_sim). A missing figure is "unsupported" (-1), never a guess.
 *
 * A GPU's identity is its UUID. `minor` is the number of its device node, which is not
 * its index: backends cross-check it where the kernel tells. A GPU that falls off the
 * bus stays in the list with `lost` set for as long as its backend is open.
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
    bool mig;       /* MIG mode: its instances are not offered, nor is it */
    char note[128]; /* why it is not offered, "" otherwise */
};

struct gpu_source {
    const char
        *path; /* gpu_sim: the inventory file; gpu_nvml: the library, NULL: usual */
    const char *proc; /* gpu_nvml: NULL, or another place for /proc/driver/nvidia */
    const char *dev;  /* gpu_nvml: NULL, or another place for /dev */
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
/* As `neargpu-agent inventory` prints it; new reference. */

json_t *gpu_info_json(const struct gpu_info *gpu);

#endif
