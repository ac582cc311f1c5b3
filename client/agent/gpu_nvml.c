/* gpu_nvml: the node's GPUs through NVIDIA's management library, opened at run time:
 * the agent has no build dependency on it, and the few calls used are declared here
 * (the ABI is stable by version suffix; source: NVML API reference).
 *
 * The device node of a GPU is /dev/nvidiaMINOR, and the minor is not the index: it is
 * asked of NVML and compared with what the kernel driver says for the same PCI address
 * in /proc/driver/nvidia/gpus/ADDRESS/information. A contradiction takes the GPU out of
 * the offer: granting the wrong device would be worse than granting none.
 *
 * MIG: a GPU in MIG mode is listed, marked and not offered; its instances follow it
 * (gpu_nvml_mig.c). */
#include "client/agent/gpu_nvml.h"

#include <ctype.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"

#define NVIDIA_MAJOR 195 /* assigned to the driver in the kernel's list of devices */

static int nvml_symbols(struct nvml *n, struct err *err)
{
    struct nvml_calls *c = &n->call;
    const struct {
        const char *name, *older;
        void **slot;
        bool required;
    } table[] = {
        {"nvmlInit_v2", NULL, (void **)&c->init, true},
        {"nvmlShutdown", NULL, (void **)&c->shutdown, true},
        {"nvmlErrorString", NULL, (void **)&c->error, true},
        {"nvmlDeviceGetCount_v2", NULL, (void **)&c->count, true},
        {"nvmlDeviceGetHandleByIndex_v2", NULL, (void **)&c->by_index, true},
        {"nvmlDeviceGetUUID", NULL, (void **)&c->uuid, true},
        {"nvmlDeviceGetName", NULL, (void **)&c->model, true},
        {"nvmlDeviceGetMinorNumber", NULL, (void **)&c->minor, true},
        {"nvmlDeviceGetPciInfo_v3", "nvmlDeviceGetPciInfo_v2", (void **)&c->pci, true},
        {"nvmlDeviceGetMemoryInfo", NULL, (void **)&c->memory, true},
        {"nvmlDeviceGetUtilizationRates", NULL, (void **)&c->utilization, false},
        {"nvmlDeviceGetTotalEnergyConsumption", NULL, (void **)&c->energy, false},
        {"nvmlDeviceGetComputeRunningProcesses_v3",
         "nvmlDeviceGetComputeRunningProcesses_v2", (void **)&c->compute, false},
        {"nvmlDeviceGetGraphicsRunningProcesses_v3",
         "nvmlDeviceGetGraphicsRunningProcesses_v2", (void **)&c->graphics, false},
        {"nvmlDeviceGetMigMode", NULL, (void **)&c->mig, false},
        {"nvmlDeviceGetMaxMigDeviceCount", NULL, (void **)&c->mig_max, false},
        {"nvmlDeviceGetMigDeviceHandleByIndex", NULL, (void **)&c->mig_by_index, false},
        {"nvmlDeviceGetGpuInstanceId", NULL, (void **)&c->gi, false},
        {"nvmlDeviceGetComputeInstanceId", NULL, (void **)&c->ci, false},
        {"nvmlDeviceGetAttributes_v2", NULL, (void **)&c->attributes, false},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        void *p = dlsym(n->lib, table[i].name);
        if (p == NULL && table[i].older != NULL)
            p = dlsym(n->lib, table[i].older);
        if (p == NULL && table[i].required)
            return err_set(err, ERR_UNAVAILABLE,
                           "the NVML library has no %s; its driver is too old",
                           table[i].name);
        *table[i].slot = p;
    }
    return 0;
}

static void nvml_close(void *backend)
{
    struct nvml *n = backend;
    if (n == NULL)
        return;
    if (n->lib != NULL) {
        if (n->call.shutdown != NULL)
            (void)n->call.shutdown();
        dlclose(n->lib);
    }
    free(n->proc);
    free(n->dev);
    free(n->devices);
    free(n);
}

static int nvml_open(const struct gpu_source *source, void **ret, struct err *err)
{
    const char *path = source->path != NULL && source->path[0] != '\0'
                           ? source->path
                           : "libnvidia-ml.so.1";
    struct nvml *n = xcalloc(1, sizeof(*n));
    n->proc = xstrdup(source->proc != NULL ? source->proc : "/proc/driver/nvidia");
    n->dev = xstrdup(source->dev != NULL ? source->dev : "/dev");
    n->devices = xstrdup(source->devices != NULL ? source->devices : "/proc/devices");
    n->lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    int rc = 0;
    if (n->lib == NULL)
        rc = err_set(err, ERR_UNAVAILABLE,
                     "cannot open NVIDIA's management library: %s; install the driver, "
                     "or set nvml_library",
                     dlerror());
    if (rc == 0 && nvml_symbols(n, err) != 0) {
        n->call.shutdown = NULL;
        rc = -1;
    }
    if (rc == 0) {
        int st = n->call.init();
        if (st != NVML_SUCCESS) {
            n->call.shutdown = NULL;
            rc = err_set(err, ERR_UNAVAILABLE, "NVML does not start: %s",
                         n->call.error(st));
        }
    }
    if (rc != 0) {
        nvml_close(n);
        return -1;
    }
    *ret = n;
    return 0;
}

/* NVML writes "00000000:3B:00.0"; the kernel and everyone else "0000:3b:00.0". */
static void pci_text(const char *bus_id, char *out, size_t cap)
{
    const char *colon = strchr(bus_id, ':');
    const char *from = bus_id;
    if (colon != NULL && colon - bus_id == 8 && strncmp(bus_id, "0000", 4) == 0)
        from += 4;
    snprintf(out, cap, "%s", from);
    for (char *c = out; *c != '\0'; c++)
        *c = (char)tolower((unsigned char)*c);
}

/* The kernel driver's minor for the GPU at this address: 0 and *ret, 1 when it does not
 * tell, -1 on a contradiction in its own text. */
static int kernel_minor(const struct nvml *n, const char *pci, int *ret)
{
    char *path = xasprintf("%s/gpus/%s/information", n->proc, pci);
    char *text = NULL;
    int rc = fsx_read(path, 64 * 1024, &text, NULL, NULL);
    free(path);
    if (rc != 0)
        return 1;
    const char *line = strstr(text, "Device Minor:");
    const char *bus = strstr(text, "Bus Location:");
    long v = -1;
    if (line != NULL)
        v = strtol(line + strlen("Device Minor:"), NULL, 10);
    rc = line == NULL ? 1 : 0;
    if (bus != NULL) {
        bus += strlen("Bus Location:");
        bus += strspn(bus, " \t");
        if (strncasecmp(bus, pci, strlen(pci)) != 0)
            rc = -1;
    }
    free(text);
    if (rc == 0)
        *ret = (int)v;
    return rc;
}

static void identify(struct nvml *n, void *dev, struct gpu_info *g)
{
    struct nvml_pci pci = {0};
    unsigned minor_number;
    struct stat st;
    g->minor = g->major = -1;
    if (n->call.pci(dev, &pci) == NVML_SUCCESS)
        pci_text(pci.bus_id[0] != '\0' ? pci.bus_id : pci.bus_id_legacy, g->pci,
                 sizeof(g->pci));
    if ((n->call.minor)(dev, &minor_number) == NVML_SUCCESS)
        g->minor = (int)minor_number;
    int seen = -1;
    int told = g->pci[0] != '\0' ? kernel_minor(n, g->pci, &seen) : 1;
    if (told < 0 || (told == 0 && g->minor >= 0 && seen != g->minor)) {
        snprintf(g->note, sizeof(g->note),
                 "NVML says minor %d, the kernel says %d at %s: not offered", g->minor,
                 seen, g->pci);
        g->minor = -1;
        return;
    }
    if (told == 0)
        g->minor = seen;
    if (g->minor < 0) {
        snprintf(g->note, sizeof(g->note), "no minor number known: not offered");
        return;
    }
    snprintf(g->device, sizeof(g->device), "%s/nvidia%d", n->dev, g->minor);
    g->major = NVIDIA_MAJOR;
    if (stat(g->device, &st) == 0 && S_ISCHR(st.st_mode)) {
        g->major = (int)major(st.st_rdev);
        if ((int)minor(st.st_rdev) != g->minor) {
            snprintf(g->note, sizeof(g->note),
                     "%.60s has minor %d, not %d: not offered", g->device,
                     (int)minor(st.st_rdev), g->minor);
            g->minor = -1;
        }
    }
}

static void add_processes(int (*call)(void *, unsigned *, struct nvml_process *),
                          void *dev, struct gpu_info *g)
{
    struct nvml_process procs[GPU_PIDS_MAX];
    unsigned count = GPU_PIDS_MAX;
    if (call == NULL)
        return;
    int st = call(dev, &count, procs);
    if (st != NVML_SUCCESS && st != NVML_INSUFFICIENT_SIZE)
        return;
    if (g->process_count < 0)
        g->process_count = 0;
    for (unsigned i = 0; st == NVML_SUCCESS && i < count; i++)
        if (g->process_count + (int)i < GPU_PIDS_MAX)
            g->pids[g->process_count + (int)i] = (int)procs[i].pid;
    g->process_count += (int)count;
}

void nvml_sample_device(struct nvml *n, void *dev, struct gpu_info *g)
{
    struct nvml_memory mem;
    struct nvml_utilization util;
    unsigned long long energy;
    gpu_info_clear_sample(g);
    int st = n->call.memory(dev, &mem);
    if (st == NVML_SUCCESS) {
        g->memory_mib = (int64_t)(mem.total >> 20);
        g->mem_used_mib = (int64_t)(mem.used >> 20);
    } else if (st == NVML_GPU_IS_LOST) {
        g->lost = true;
        snprintf(g->note, sizeof(g->note), "the GPU is lost");
        return;
    }
    if (n->call.utilization != NULL && n->call.utilization(dev, &util) == NVML_SUCCESS)
        g->utilisation_ppm = (int64_t)util.gpu * 10000;
    if (n->call.energy != NULL && n->call.energy(dev, &energy) == NVML_SUCCESS)
        g->energy_mj = (int64_t)energy;
    add_processes(n->call.compute, dev, g);
    add_processes(n->call.graphics, dev, g);
}

int nvml_name(struct nvml *n, void *dev, char *out, size_t cap)
{
    char name[96]; /* NVML_DEVICE_NAME_V2_BUFFER_SIZE */
    int st = n->call.model(dev, name, sizeof(name));
    if (st == NVML_SUCCESS)
        snprintf(out, cap, "%.*s", (int)cap - 1, name);
    return st;
}

static int describe(struct nvml *n, unsigned index, struct gpu_info *g, struct err *err)
{
    void *dev = NULL;
    unsigned current = 0, pending = 0;
    memset(g, 0, sizeof(*g));
    g->gi = g->ci = g->cap_major = -1;
    gpu_info_clear_sample(g);
    int st = n->call.by_index(index, &dev);
    if (st == NVML_SUCCESS)
        st = n->call.uuid(dev, g->uuid, sizeof(g->uuid));
    if (st == NVML_SUCCESS)
        st = nvml_name(n, dev, g->model, sizeof(g->model));
    if (st != NVML_SUCCESS) {
        if (index < n->known_count) {
            *g = n->known[index];
            gpu_info_clear_sample(g);
            g->lost = true;
            snprintf(g->note, sizeof(g->note), "NVML: %.100s", n->call.error(st));
            return 0;
        }
        return err_set(err, ERR_UNAVAILABLE, "GPU %u: %s", index, n->call.error(st));
    }
    g->index = g->parent_index = (int)index;
    identify(n, dev, g);
    nvml_sample_device(n, dev, g);
    if (n->call.mig != NULL && n->call.mig(dev, &current, &pending) == NVML_SUCCESS &&
        (current != 0 || pending != 0)) {
        g->mig = true;
        snprintf(g->note, sizeof(g->note), "%s",
                 current == pending
                     ? "MIG mode is on: its instances are offered"
                     : "MIG mode changes at the next reset: not offered");
    }
    return 0;
}

/* The instances of a GPU that is in MIG mode and stays in it. */
static size_t instances(struct nvml *n, struct gpu_info *gpu, struct gpu_info *out,
                        size_t cap)
{
    unsigned current = 0, pending = 0;
    void *dev = NULL;
    if (!gpu->mig || gpu->lost ||
        n->call.by_index((unsigned)gpu->index, &dev) != NVML_SUCCESS ||
        n->call.mig(dev, &current, &pending) != NVML_SUCCESS || current != pending)
        return 0;
    size_t count = nvml_mig_list(n, dev, gpu, out, cap);
    if (count == 0)
        snprintf(gpu->note, sizeof(gpu->note),
                 "MIG mode is on and no instance is made: not offered");
    return count;
}

static int nvml_list(void *backend, struct gpu_info *out, size_t cap, size_t *ret_count,
                     struct err *err)
{
    struct nvml *n = backend;
    unsigned count = 0;
    int st = n->call.count(&count);
    if (st != NVML_SUCCESS)
        return err_set(err, ERR_UNAVAILABLE, "NVML cannot count the GPUs: %s",
                       n->call.error(st));
    size_t put = 0;
    for (unsigned i = 0; i < count && put < cap && put < GPUS_PER_NODE_MAX; i++) {
        struct err one;
        /* A GPU that is broken from the start has no name: it cannot be offered, and
         * must not hide its neighbours. */
        if (describe(n, i, &out[put], &one) != 0) {
            if (count == 1)
                return err_set(err, one.code, "%s", one.text);
            continue;
        }
        if (!out[put].lost && i < GPUS_PER_NODE_MAX) {
            n->known[i] = out[put];
            if (n->known_count < i + 1)
                n->known_count = i + 1;
        }
        put += 1 +
               instances(n, &out[put], &out[put + 1],
                         (cap < GPUS_PER_NODE_MAX ? cap : GPUS_PER_NODE_MAX) - put - 1);
    }
    *ret_count = put;
    return 0;
}

static int nvml_sample(void *backend, struct gpu_info *gpu, struct err *err)
{
    struct nvml *n = backend;
    char uuid[TOKEN_GPU_UUID_MAX];
    void *dev = NULL;
    (void)err;
    int st = n->call.by_index((unsigned)gpu->parent_index, &dev);
    if (st == NVML_SUCCESS && gpu_is_instance(gpu)) {
        dev = nvml_mig_find(n, dev, gpu->uuid);
        st = dev != NULL ? NVML_SUCCESS : NVML_NOT_FOUND;
    }
    if (st == NVML_SUCCESS)
        st = n->call.uuid(dev, uuid, sizeof(uuid));
    if (st != NVML_SUCCESS || strcmp(uuid, gpu->uuid) != 0) {
        gpu_info_clear_sample(gpu);
        gpu->lost = true;
        snprintf(gpu->note, sizeof(gpu->note), "NVML: %.100s",
                 st != NVML_SUCCESS ? n->call.error(st) : "another GPU at its index");
        return 0;
    }
    gpu->lost = false;
    nvml_sample_device(n, dev, gpu);
    return 0;
}

const struct gpu_ops gpu_nvml = {"nvml", nvml_open, nvml_list, nvml_sample, nvml_close};
