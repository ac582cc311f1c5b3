/* gpu: the list of backends and what they share. See gpu.h. */
#include "client/agent/gpu.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/fsx.h"

const struct gpu_ops *gpu_ops_find(const char *name)
{
    static const struct gpu_ops *const all[] = {&gpu_nvml, &gpu_sim};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    return NULL;
}

void gpu_info_clear_sample(struct gpu_info *gpu)
{
    gpu->mem_used_mib = -1;
    gpu->utilisation_ppm = -1;
    gpu->energy_mj = -1;
    gpu->process_count = -1;
}

int gpu_cap_minor(const char *access_file)
{
    char *text = NULL;
    int found = -1;
    if (fsx_read(access_file, 4096, &text, NULL, NULL) != 0)
        return -1;
    const char *at = strstr(text, "DeviceFileMinor:");
    if (at != NULL) {
        char *end;
        at += strlen("DeviceFileMinor:");
        long v = strtol(at, &end, 10);
        found = end != at && v >= 0 && v < 1 << 20 ? (int)v : -1;
    }
    free(text);
    return found;
}

static json_t *figure(int64_t v)
{
    return v < 0 ? json_null() : json_integer(v);
}

json_t *gpu_info_json(const struct gpu_info *gpu)
{
    json_t *o = json_object();
    json_object_set_new(o, "index", json_integer(gpu->index));
    json_object_set_new(o, "uuid", json_string(gpu->uuid));
    json_object_set_new(o, "model", json_string(gpu->model));
    json_object_set_new(o, "pci", json_string(gpu->pci));
    json_object_set_new(o, "device", json_string(gpu->device));
    json_object_set_new(o, "major", figure(gpu->major));
    json_object_set_new(o, "minor", figure(gpu->minor));
    json_object_set_new(o, "memory_mib", json_integer(gpu->memory_mib));
    json_object_set_new(o, "memory_used_mib", figure(gpu->mem_used_mib));
    json_object_set_new(o, "utilisation_ppm", figure(gpu->utilisation_ppm));
    json_object_set_new(o, "energy_mj", figure(gpu->energy_mj));
    json_object_set_new(o, "processes", figure(gpu->process_count));
    json_object_set_new(o, "lost", json_boolean(gpu->lost));
    json_object_set_new(o, "mig", json_boolean(gpu->mig));
    if (gpu_is_instance(gpu)) {
        json_object_set_new(o, "parent", json_string(gpu->parent));
        json_object_set_new(o, "gpu_instance", json_integer(gpu->gi));
        json_object_set_new(o, "compute_instance", json_integer(gpu->ci));
    }
    json_object_set_new(o, "note", json_string(gpu->note));
    return o;
}
