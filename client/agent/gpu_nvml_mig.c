/* gpu_nvml_mig: the instances of a GPU in MIG mode as units of their own. See gpu.h.
 *
 * An instance is offered when the kernel tells a capability node for its GPU instance
 * and its compute instance, and when it has its GPU instance for itself: compute
 * instances of one GPU instance share its memory, which is no border between tenants.
 *
 * Does not make or remove instances. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/agent/gpu_nvml.h"
#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"

#define MIG_PER_GPU   14  /* the driver knows 8 at most today */
#define MIG_INDEX_MIN 100 /* indices of instances in the list: after all GPUs */

/* Major of the capability nodes, -1: the driver has none. */
static int caps_major(const struct nvml *n)
{
    char *text = NULL;
    int found = -1;
    if (fsx_read(n->devices, 64 * 1024, &text, NULL, NULL) != 0)
        return -1;
    for (const char *line = text; line != NULL && strncmp(line, "Block", 5) != 0;) {
        char *end;
        long v = strtol(line, &end, 10);
        if (end != line && strncmp(end, " nvidia-caps\n", 13) == 0)
            found = (int)v;
        line = strchr(line, '\n');
        line = line != NULL ? line + 1 : NULL;
    }
    free(text);
    return found;
}

/* Drivers of today say "NVIDIA H100 80GB HBM3 MIG 1g.10gb"; for others it is made of
 * the GPU's name and the instance's attributes. */
static void model_of(struct nvml *n, void *dev, const struct gpu_info *parent,
                     struct gpu_info *g)
{
    struct nvml_attributes at = {0};
    if (nvml_name(n, dev, g->model, sizeof(g->model)) == NVML_SUCCESS &&
        strstr(g->model, " MIG ") != NULL)
        return;
    if (n->call.attributes == NULL || n->call.attributes(dev, &at) != NVML_SUCCESS) {
        snprintf(g->model, sizeof(g->model), "%.50s MIG", parent->model);
        return;
    }
    unsigned gib =
        (unsigned)(at.memory_mib > 9000000 ? 8999 : (at.memory_mib + 512) / 1024);
    snprintf(g->model, sizeof(g->model), "%.36s MIG %ug.%ugb", parent->model,
             at.gi_slices, gib);
}

/* A name that may be a file's: older drivers' "MIG-GPU-…/1/0" is none. */
static bool name_is_plain(const char *uuid)
{
    for (const char *c = uuid; *c != '\0'; c++)
        if (!isalnum((unsigned char)*c) && *c != '-')
            return false;
    return uuid[0] != '\0';
}

static void find_caps(const struct nvml *n, struct gpu_info *g)
{
    g->cap_major = caps_major(n);
    snprintf(g->cap_access[0], sizeof(g->cap_access[0]),
             "%.70s/capabilities/gpu%d/mig/gi%d/access", n->proc, g->minor, g->gi);
    snprintf(g->cap_access[1], sizeof(g->cap_access[1]),
             "%.70s/capabilities/gpu%d/mig/gi%d/ci%d/access", n->proc, g->minor, g->gi,
             g->ci);
    bool told = g->cap_major >= 0;
    for (int i = 0; i < GPU_CAPS_MAX; i++)
        told = told && gpu_cap_minor(g->cap_access[i]) >= 0;
    if (!told) {
        snprintf(g->note, sizeof(g->note),
                 "the driver tells no capability node for it: not offered");
        g->minor = -1;
    }
}

static bool describe(struct nvml *n, void *dev, const struct gpu_info *parent,
                     struct gpu_info *g)
{
    unsigned gi, ci;
    memset(g, 0, sizeof(*g));
    if (n->call.uuid(dev, g->uuid, sizeof(g->uuid)) != NVML_SUCCESS ||
        n->call.gi == NULL || n->call.gi(dev, &gi) != NVML_SUCCESS ||
        n->call.ci == NULL || n->call.ci(dev, &ci) != NVML_SUCCESS)
        return false;
    g->gi = (int)gi;
    g->ci = (int)ci;
    g->parent_index = parent->index;
    g->major = parent->major;
    g->minor = parent->minor;
    memcpy(g->parent, parent->uuid, sizeof(g->parent));
    memcpy(g->pci, parent->pci, sizeof(g->pci));
    memcpy(g->device, parent->device, sizeof(g->device));
    model_of(n, dev, parent, g);
    nvml_sample_device(n, dev, g);
    if (g->minor < 0)
        snprintf(g->note, sizeof(g->note), "its GPU's minor is not known: not offered");
    else
        find_caps(n, g);
    if (!name_is_plain(g->uuid)) {
        snprintf(g->note, sizeof(g->note),
                 "the driver gives it no UUID of its own: not offered");
        g->minor = -1;
    }
    return true;
}

static void *handle_at(struct nvml *n, void *dev, unsigned i)
{
    void *mig = NULL;
    return n->call.mig_by_index(dev, i, &mig) == NVML_SUCCESS ? mig : NULL;
}

static unsigned places(struct nvml *n, void *dev)
{
    unsigned max = 0;
    if (n->call.mig_max == NULL || n->call.mig_by_index == NULL ||
        n->call.mig_max(dev, &max) != NVML_SUCCESS)
        return 0;
    return max < MIG_PER_GPU ? max : MIG_PER_GPU;
}

size_t nvml_mig_list(struct nvml *n, void *dev, const struct gpu_info *parent,
                     struct gpu_info *out, size_t cap)
{
    unsigned max = places(n, dev);
    size_t count = 0;
    for (unsigned i = 0; i < max && count < cap; i++) {
        void *mig = handle_at(n, dev, i);
        if (mig == NULL || !describe(n, mig, parent, &out[count]))
            continue;
        out[count++].index = MIG_INDEX_MIN + parent->index * MIG_PER_GPU + (int)i;
    }
    for (size_t i = 0; i < count; i++) {
        bool shared = false;
        for (size_t j = 0; j < count && !shared; j++)
            shared = j != i && out[j].gi == out[i].gi;
        if (!shared)
            continue;
        snprintf(out[i].note, sizeof(out[i].note),
                 "it shares the memory of GPU instance %d with others: not offered",
                 out[i].gi);
        out[i].minor = -1;
    }
    return count;
}

void *nvml_mig_find(struct nvml *n, void *dev, const char *uuid)
{
    unsigned max = places(n, dev);
    for (unsigned i = 0; i < max; i++) {
        char name[TOKEN_GPU_UUID_MAX];
        void *mig = handle_at(n, dev, i);
        if (mig != NULL && n->call.uuid(mig, name, sizeof(name)) == NVML_SUCCESS &&
            strcmp(name, uuid) == 0)
            return mig;
    }
    return NULL;
}
