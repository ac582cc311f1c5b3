/* gpu_nvml: what the two halves of the NVML backend share: whole GPUs (gpu_nvml.c) and
 * instances of GPUs in MIG mode (gpu_nvml_mig.c). Not for other modules.
 *
 * The calls and their structs are declared here as NVML's ABI has them. */
#ifndef NEARGPU_AGENT_GPU_NVML_H
#define NEARGPU_AGENT_GPU_NVML_H
#include "client/agent/gpu.h"

enum {
    NVML_SUCCESS = 0,
    NVML_NOT_SUPPORTED = 3,
    NVML_NOT_FOUND = 6,
    NVML_INSUFFICIENT_SIZE = 7,
    NVML_GPU_IS_LOST = 15
};

struct nvml_pci {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char bus_id[32];
};
struct nvml_memory {
    unsigned long long total, free, used;
};
struct nvml_utilization {
    unsigned gpu, memory; /* percent */
};
struct nvml_process {
    unsigned pid;
    unsigned long long used_memory;
    unsigned gpu_instance, compute_instance;
};

struct nvml_attributes { /* nvmlDeviceAttributes_t */
    unsigned multiprocessors, copy_engines, decoders, encoders, jpeg, ofa;
    unsigned gi_slices, ci_slices;
    unsigned long long memory_mib;
};

struct nvml_calls {
    int (*init)(void);
    int (*shutdown)(void);
    const char *(*error)(int);
    int (*count)(unsigned *);
    int (*by_index)(unsigned, void **);
    int (*uuid)(void *, char *, unsigned);
    int (*model)(void *, char *, unsigned);
    int (*minor)(void *, unsigned *);
    int (*pci)(void *, struct nvml_pci *);
    int (*memory)(void *, struct nvml_memory *);
    int (*utilization)(void *, struct nvml_utilization *);
    int (*energy)(void *, unsigned long long *);
    int (*compute)(void *, unsigned *, struct nvml_process *);
    int (*graphics)(void *, unsigned *, struct nvml_process *);
    int (*mig)(void *, unsigned *, unsigned *);
    int (*mig_max)(void *, unsigned *);
    int (*mig_by_index)(void *, unsigned, void **);
    int (*gi)(void *, unsigned *);
    int (*ci)(void *, unsigned *);
    int (*attributes)(void *, struct nvml_attributes *);
};

struct nvml {
    void *lib;
    struct nvml_calls call;
    char *proc, *dev, *devices;
    /* Identity by index, kept so that a lost GPU still has its name. */
    struct gpu_info known[GPUS_PER_NODE_MAX];
    size_t known_count;
};

/* The dynamic part of one device or instance. */
void nvml_sample_device(struct nvml *n, void *dev, struct gpu_info *g);
/* Name of at most 63 bytes; NVML_SUCCESS or its error. */
int nvml_name(struct nvml *n, void *dev, char *out, size_t cap);

/* The instances of a GPU in MIG mode, at most cap; returns how many. */
size_t nvml_mig_list(struct nvml *n, void *dev, const struct gpu_info *parent,
                     struct gpu_info *out, size_t cap);
/* Its handle, NULL when it is gone. */
void *nvml_mig_find(struct nvml *n, void *dev, const char *uuid);

#endif
