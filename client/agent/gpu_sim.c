/* gpu_sim: an inventory from a JSON file, read again when the file changes: the market
 * can be tried, and the agent tested, on machines without a GPU. Everything else (gate,
 * cgroup, job, receipts) is real; only the answers about the GPUs are not.
 *
 *   {"gpus": [{"uuid": "GPU-…", "model": "H100-SXM5-80GB", "memory_mib": 81559,
 *              "pci": "0000:3b:00.0", "device": "/dev/nvidia0", "major": 195, "minor":
 * 0, "busy": false, "lost": false, "utilisation_ppm": 0, "used_mib": 0, "energy_mj":
 * 0}]}
 *
 * uuid, model and memory_mib are required. `major` and `minor` are taken from the
 * device node when it exists. A file that cannot be read or parsed keeps the last
 * good inventory and is an error of that one call. */
#include "client/agent/gpu.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/xalloc.h"

#define SIM_FILE_MAX (256 * 1024)

struct sim {
    char *path;
    struct timespec mtime;
    off_t size;
    struct gpu_info gpus[GPUS_PER_NODE_MAX];
    size_t count;
};

struct sim_row {
    const char *uuid, *model, *pci, *device;
    int64_t memory_mib, major, minor, utilisation_ppm, used_mib, energy_mj;
    bool busy, lost, mig;
};

#define ROW(n, t, r, lo, hi)                          \
    {                                                 \
#n, t, r, offsetof(struct sim_row, n), lo, hi \
    }
static const struct jsonx_field row_fields[] = {
    ROW(uuid, JSONX_STRING, true, 1, TOKEN_GPU_UUID_MAX - 1),
    ROW(model, JSONX_STRING, true, 1, 63),
    ROW(pci, JSONX_STRING, false, 0, 31),
    ROW(device, JSONX_STRING, false, 0, 127),
    ROW(memory_mib, JSONX_INT, true, 1, INT64_C(1) << 40),
    ROW(major, JSONX_INT, false, 0, 4095),
    ROW(minor, JSONX_INT, false, 0, 1048575),
    ROW(utilisation_ppm, JSONX_INT, false, 0, 1000000),
    ROW(used_mib, JSONX_INT, false, 0, INT64_C(1) << 40),
    ROW(energy_mj, JSONX_INT, false, 0, INT64_MAX),
    ROW(busy, JSONX_BOOL, false, 0, 0),
    ROW(lost, JSONX_BOOL, false, 0, 0),
    ROW(mig, JSONX_BOOL, false, 0, 0),
};

static void row_device(const struct sim_row *row, struct gpu_info *g)
{
    struct stat st;
    g->major = (int)row->major;
    g->minor = (int)row->minor;
    if (row->device == NULL)
        return;
    snprintf(g->device, sizeof(g->device), "%s", row->device);
    if (stat(row->device, &st) == 0 && S_ISCHR(st.st_mode)) {
        g->major = (int)major(st.st_rdev);
        g->minor = (int)minor(st.st_rdev);
    }
}

static int row_read(const json_t *v, size_t index, struct gpu_info *g, struct err *err)
{
    struct sim_row row = {.major = -1,
                          .minor = -1,
                          .utilisation_ppm = -1,
                          .used_mib = -1,
                          .energy_mj = -1};
    char at[40];
    snprintf(at, sizeof(at), "/gpus/%zu", index);
    if (jsonx_decode(v, row_fields, JSONX_COUNT(row_fields), &row, at, err) != 0)
        return -1;
    memset(g, 0, sizeof(*g));
    snprintf(g->uuid, sizeof(g->uuid), "%s", row.uuid);
    snprintf(g->model, sizeof(g->model), "%s", row.model);
    snprintf(g->pci, sizeof(g->pci), "%s", row.pci != NULL ? row.pci : "");
    g->index = (int)index;
    g->memory_mib = row.memory_mib;
    row_device(&row, g);
    g->mem_used_mib = row.used_mib;
    g->utilisation_ppm = row.utilisation_ppm;
    g->energy_mj = row.energy_mj;
    g->process_count = row.busy ? 1 : 0;
    g->lost = row.lost;
    g->mig = row.mig;
    if (row.mig)
        snprintf(g->note, sizeof(g->note), "MIG mode is on: not offered");
    return 0;
}

static int sim_parse(const char *text, size_t len, struct gpu_info *out,
                     size_t *ret_count, struct err *err)
{
    static const struct jsonx_field root[] = {
        {"gpus", JSONX_ARRAY, true, 0, 0, GPUS_PER_NODE_MAX}};
    json_t *doc = jsonx_parse(text, len, SIM_FILE_MAX, err), *gpus = NULL;
    if (doc == NULL)
        return -1;
    int rc = jsonx_decode(doc, root, 1, &gpus, "", err);
    size_t n = rc == 0 ? json_array_size(gpus) : 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        rc = row_read(json_array_get(gpus, i), i, &out[i], err);
        for (size_t j = 0; rc == 0 && j < i; j++)
            if (strcmp(out[i].uuid, out[j].uuid) == 0)
                rc = err_set(err, ERR_BAD_REQUEST, "/gpus/%zu/uuid: %s is there twice",
                             i, out[i].uuid);
    }
    json_decref(doc);
    if (rc == 0)
        *ret_count = n;
    return rc;
}

static int sim_refresh(struct sim *s, struct err *err)
{
    struct stat st;
    if (stat(s->path, &st) != 0)
        return err_set(err, ERR_NOT_FOUND, "%s: no such inventory file", s->path);
    if (s->mtime.tv_sec == st.st_mtim.tv_sec &&
        s->mtime.tv_nsec == st.st_mtim.tv_nsec && s->size == st.st_size)
        return 0;
    char *text;
    size_t len, count;
    if (fsx_read(s->path, SIM_FILE_MAX, &text, &len, err) != 0)
        return -1;
    struct gpu_info *fresh = xcalloc(GPUS_PER_NODE_MAX, sizeof(*fresh));
    int rc = sim_parse(text, len, fresh, &count, err);
    if (rc == 0) {
        memcpy(s->gpus, fresh, count * sizeof(*fresh));
        s->count = count;
        s->mtime = st.st_mtim;
        s->size = st.st_size;
    } else {
        rc = err_prefix(err, "%s", s->path);
    }
    free(fresh);
    free(text);
    return rc;
}

static void sim_close(void *backend)
{
    struct sim *s = backend;
    if (s == NULL)
        return;
    free(s->path);
    free(s);
}

static int sim_open(const struct gpu_source *source, void **ret, struct err *err)
{
    if (source->path == NULL || source->path[0] == '\0')
        return err_set(err, ERR_USAGE,
                       "inventory = sim needs sim_file (a JSON file with the GPUs)");
    struct sim *s = xcalloc(1, sizeof(*s));
    s->path = xstrdup(source->path);
    if (sim_refresh(s, err) != 0) {
        sim_close(s);
        return -1;
    }
    *ret = s;
    return 0;
}

static int sim_list(void *backend, struct gpu_info *out, size_t cap, size_t *ret_count,
                    struct err *err)
{
    struct sim *s = backend;
    if (sim_refresh(s, err) != 0)
        return -1;
    size_t n = s->count < cap ? s->count : cap;
    memcpy(out, s->gpus, n * sizeof(*out));
    *ret_count = n;
    return 0;
}

static int sim_sample(void *backend, struct gpu_info *gpu, struct err *err)
{
    struct sim *s = backend;
    if (sim_refresh(s, err) != 0)
        return -1;
    for (size_t i = 0; i < s->count; i++) {
        if (strcmp(s->gpus[i].uuid, gpu->uuid) == 0) {
            *gpu = s->gpus[i];
            return 0;
        }
    }
    gpu_info_clear_sample(gpu);
    gpu->lost = true;
    return 0;
}

const struct gpu_ops gpu_sim = {"sim", sim_open, sim_list, sim_sample, sim_close};
