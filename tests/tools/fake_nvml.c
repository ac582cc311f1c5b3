/* fake_nvml: a libnvidia-ml.so.1 whose GPUs are lines of the text file named by the
 * environment variable FAKE_NVML, read again at every call that looks for a device, so
 * that a test can change the world under a running program:
 *
 *   gpu uuid=GPU-a name=H100 minor=3 pci=00000000:3B:00.0 total=81559 used=10 util=0
 *       energy=77 pids=12,13 mig=0 lost=0        (one line; "-" = not supported)
 *
 *   mig parent=GPU-a uuid=MIG-a name=H100_MIG_1g.10gb gi=7 ci=0 total=9984 used=12
 *       pids=14 slices=1                         (an instance; "_" in names is a blank)
 *
 * Only what gpu_nvml calls is here. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GPUS_MAX     64
#define MIGS_MAX     64
#define MIGS_PER_GPU 7
#define EXPORT       __attribute__((visibility("default")))

enum {
    SUCCESS = 0,
    INVALID = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    SIZE = 7,
    LOST = 15
};

struct pci {
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
};
struct memory {
    unsigned long long total, free, used;
};
struct utilization {
    unsigned gpu, memory;
};
struct process {
    unsigned pid;
    unsigned long long used;
    unsigned gi, ci;
};
struct attributes {
    unsigned sm, copy, dec, enc, jpeg, ofa, gi_slices, ci_slices;
    unsigned long long memory_mib;
};
struct gpu {
    char uuid[96], name[96], pci[32], pids[200], parent[96];
    int minor, mig, lost, gi, ci, slices;
    long long total, used, util, energy;
};

static struct gpu gpus[GPUS_MAX];
static unsigned gpu_count;
static struct gpu migs[MIGS_MAX];
static unsigned mig_count;

static void text_of(const char *line, const char *key, char *out, size_t cap)
{
    char wanted[32];
    snprintf(wanted, sizeof(wanted), " %s=", key);
    const char *at = strstr(line, wanted);
    out[0] = '\0';
    if (at == NULL)
        return;
    at += strlen(wanted);
    size_t len = strcspn(at, " \n");
    if (len < cap) {
        memcpy(out, at, len);
        out[len] = '\0';
    }
}

static long long number_of(const char *line, const char *key, long long absent)
{
    char text[64];
    text_of(line, key, text, sizeof(text));
    return text[0] == '\0' || text[0] == '-' ? absent : strtoll(text, NULL, 10);
}

static int reload(void)
{
    const char *path = getenv("FAKE_NVML");
    FILE *f = path != NULL ? fopen(path, "r") : NULL;
    char line[1024];
    if (f == NULL)
        return NOT_FOUND;
    gpu_count = mig_count = 0;
    while (gpu_count < GPUS_MAX && mig_count < MIGS_MAX &&
           fgets(line, sizeof(line), f) != NULL) {
        bool mig = strncmp(line, "mig ", 4) == 0;
        if (!mig && strncmp(line, "gpu ", 4) != 0)
            continue;
        struct gpu *g = mig ? &migs[mig_count++] : &gpus[gpu_count++];
        text_of(line, "parent", g->parent, sizeof(g->parent));
        text_of(line, "uuid", g->uuid, sizeof(g->uuid));
        text_of(line, "name", g->name, sizeof(g->name));
        text_of(line, "pci", g->pci, sizeof(g->pci));
        text_of(line, "pids", g->pids, sizeof(g->pids));
        for (char *c = g->name; *c != '\0'; c++)
            *c = *c == '_' ? ' ' : *c;
        g->gi = (int)number_of(line, "gi", -1);
        g->ci = (int)number_of(line, "ci", -1);
        g->slices = (int)number_of(line, "slices", -1);
        g->minor = (int)number_of(line, "minor", -1);
        g->mig = (int)number_of(line, "mig", -1);
        g->lost = (int)number_of(line, "lost", 0);
        g->total = number_of(line, "total", 0);
        g->used = number_of(line, "used", 0);
        g->util = number_of(line, "util", -1);
        g->energy = number_of(line, "energy", -1);
    }
    fclose(f);
    return SUCCESS;
}

EXPORT int nvmlInit_v2(void);
EXPORT int nvmlShutdown(void);
EXPORT const char *nvmlErrorString(int result);
EXPORT int nvmlDeviceGetCount_v2(unsigned *count);
EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct gpu **ret);
EXPORT int nvmlDeviceGetUUID(const struct gpu *g, char *out, unsigned len);
EXPORT int nvmlDeviceGetName(const struct gpu *g, char *out, unsigned len);
EXPORT int nvmlDeviceGetMinorNumber(const struct gpu *g, unsigned *ret);
EXPORT int nvmlDeviceGetPciInfo_v3(const struct gpu *g, struct pci *ret);
EXPORT int nvmlDeviceGetMemoryInfo(const struct gpu *g, struct memory *ret);
EXPORT int nvmlDeviceGetUtilizationRates(const struct gpu *g, struct utilization *ret);
EXPORT int nvmlDeviceGetTotalEnergyConsumption(const struct gpu *g,
                                               unsigned long long *ret);
EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(const struct gpu *g, unsigned *count,
                                                   struct process *out);
EXPORT int nvmlDeviceGetGraphicsRunningProcesses_v3(const struct gpu *g,
                                                    unsigned *count,
                                                    struct process *out);
EXPORT int nvmlDeviceGetMaxMigDeviceCount(const struct gpu *g, unsigned *count);
EXPORT int nvmlDeviceGetMigDeviceHandleByIndex(const struct gpu *g, unsigned index,
                                               struct gpu **ret);
EXPORT int nvmlDeviceGetGpuInstanceId(const struct gpu *g, unsigned *ret);
EXPORT int nvmlDeviceGetComputeInstanceId(const struct gpu *g, unsigned *ret);
EXPORT int nvmlDeviceGetAttributes_v2(const struct gpu *g, struct attributes *ret);
EXPORT int nvmlDeviceGetMigMode(const struct gpu *g, unsigned *current,
                                unsigned *pending);

int nvmlInit_v2(void)
{
    return reload();
}

int nvmlShutdown(void)
{
    return SUCCESS;
}

const char *nvmlErrorString(int result)
{
    return result == LOST ? "GPU is lost" : result == NOT_FOUND ? "Not Found" : "Error";
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    int rc = reload();
    *count = gpu_count;
    return rc;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, struct gpu **ret)
{
    int rc = reload();
    if (rc != SUCCESS)
        return rc;
    if (index >= gpu_count)
        return INVALID;
    if (gpus[index].lost == 2) /* gone from the start, or so it looks */
        return LOST;
    *ret = &gpus[index];
    return SUCCESS;
}

static int copy(const char *text, char *out, unsigned len)
{
    if (strlen(text) >= len)
        return SIZE;
    memcpy(out, text, strlen(text) + 1);
    return SUCCESS;
}

int nvmlDeviceGetUUID(const struct gpu *g, char *out, unsigned len)
{
    return copy(g->uuid, out, len);
}

int nvmlDeviceGetName(const struct gpu *g, char *out, unsigned len)
{
    return copy(g->name, out, len);
}

int nvmlDeviceGetMinorNumber(const struct gpu *g, unsigned *ret)
{
    if (g->minor < 0)
        return NOT_SUPPORTED;
    *ret = (unsigned)g->minor;
    return SUCCESS;
}

int nvmlDeviceGetPciInfo_v3(const struct gpu *g, struct pci *ret)
{
    memset(ret, 0, sizeof(*ret));
    return copy(g->pci, ret->bus_id, sizeof(ret->bus_id));
}

int nvmlDeviceGetMemoryInfo(const struct gpu *g, struct memory *ret)
{
    if (g->lost)
        return LOST;
    ret->total = (unsigned long long)g->total << 20;
    ret->used = (unsigned long long)g->used << 20;
    ret->free = ret->total - ret->used;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(const struct gpu *g, struct utilization *ret)
{
    if (g->util < 0)
        return NOT_SUPPORTED;
    ret->gpu = (unsigned)g->util;
    ret->memory = 0;
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(const struct gpu *g, unsigned long long *ret)
{
    if (g->energy < 0)
        return NOT_SUPPORTED;
    *ret = (unsigned long long)g->energy;
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(const struct gpu *g, unsigned *count,
                                            struct process *out)
{
    unsigned n = 0, cap = *count;
    for (const char *at = g->pids; *at != '\0' && *at != '-';) {
        char *end;
        unsigned long pid = strtoul(at, &end, 10);
        if (n < cap)
            out[n] = (struct process){.pid = (unsigned)pid};
        n++;
        at = *end == ',' ? end + 1 : end;
    }
    *count = n;
    return n > cap ? SIZE : SUCCESS;
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(const struct gpu *g, unsigned *count,
                                             struct process *out)
{
    (void)g;
    (void)out;
    *count = 0;
    return SUCCESS;
}

int nvmlDeviceGetMigMode(const struct gpu *g, unsigned *current, unsigned *pending)
{
    if (g->mig < 0)
        return NOT_SUPPORTED;
    *current = *pending = (unsigned)g->mig;
    return SUCCESS;
}

int nvmlDeviceGetMaxMigDeviceCount(const struct gpu *g, unsigned *count)
{
    *count = g->mig > 0 ? MIGS_PER_GPU : 0;
    return SUCCESS;
}

/* As the driver's: the n-th instance of this GPU, and holes are no end. */
int nvmlDeviceGetMigDeviceHandleByIndex(const struct gpu *g, unsigned index,
                                        struct gpu **ret)
{
    unsigned n = 0;
    for (unsigned i = 0; i < mig_count; i++) {
        if (strcmp(migs[i].parent, g->uuid) != 0 || n++ != index)
            continue;
        if (migs[i].uuid[0] == '-')
            return NOT_FOUND;
        *ret = &migs[i];
        return SUCCESS;
    }
    return NOT_FOUND;
}

static int instance_id(int id, unsigned *ret)
{
    if (id < 0)
        return INVALID;
    *ret = (unsigned)id;
    return SUCCESS;
}

int nvmlDeviceGetGpuInstanceId(const struct gpu *g, unsigned *ret)
{
    return instance_id(g->gi, ret);
}

int nvmlDeviceGetComputeInstanceId(const struct gpu *g, unsigned *ret)
{
    return instance_id(g->ci, ret);
}

int nvmlDeviceGetAttributes_v2(const struct gpu *g, struct attributes *ret)
{
    if (g->slices < 0)
        return NOT_SUPPORTED;
    memset(ret, 0, sizeof(*ret));
    ret->gi_slices = ret->ci_slices = (unsigned)g->slices;
    ret->memory_mib = (unsigned long long)g->total;
    return SUCCESS;
}
