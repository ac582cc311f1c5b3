/* gpu_nvml against a library of the tests (fake_nvml.c): the real dlopen path. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/agent/advert.h"
#include "client/agent/gpu.h"
#include "client/lib/fsx.h"
#include "tests/unit/unit.h"

struct world {
    char dir[64], state[96], proc[96], devices[96];
    struct gpu_info gpus[GPUS_PER_NODE_MAX];
    size_t count;
    void *gpu;
};

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    fclose(f);
}

static void set_state(const struct world *w, const char *text)
{
    write_text(w->state, text);
}

static void kernel_says(const struct world *w, const char *pci, int minor_number)
{
    char path[256], text[128];
    struct err err;
    snprintf(path, sizeof(path), "%s/gpus/%s", w->proc, pci);
    ck_assert_int_eq(fsx_mkdirs(path, 0700, &err), 0);
    snprintf(path, sizeof(path), "%s/gpus/%s/information", w->proc, pci);
    snprintf(text, sizeof(text),
             "Model: \t H100\nBus Location: \t %s\nDevice Minor: \t %d\n", pci,
             minor_number);
    write_text(path, text);
}

static void world_init(struct world *w, const char *state)
{
    struct err err;
    memset(w, 0, sizeof(*w));
    snprintf(w->dir, sizeof(w->dir), "/tmp/test_gpu_nvml.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(w->dir));
    snprintf(w->state, sizeof(w->state), "%s/state", w->dir);
    snprintf(w->proc, sizeof(w->proc), "%s/proc", w->dir);
    snprintf(w->devices, sizeof(w->devices), "%s/devices", w->dir);
    write_text(w->devices, "Character devices:\n195 nvidia\n242 nvidia-caps\n"
                           "243 nvidia-caps-imex-channels\n\nBlock devices:\n"
                           "  7 nvidia-caps\n");
    setenv("FAKE_NVML", w->state, 1);
    set_state(w, state);
    struct gpu_source source = {
        .path = FAKE_NVML_LIB, .proc = w->proc, .dev = w->dir, .devices = w->devices};
    ck_assert_msg(gpu_nvml.open(&source, &w->gpu, &err) == 0, "%s", err.text);
}

static void look(struct world *w)
{
    struct err err;
    ck_assert_msg(gpu_nvml.list(w->gpu, w->gpus, GPUS_PER_NODE_MAX, &w->count, &err) ==
                      0,
                  "%s", err.text);
}

static void world_done(struct world *w)
{
    struct err err;
    gpu_nvml.close(w->gpu);
    ck_assert_int_eq(fsx_remove_tree(w->dir, &err), 0);
}

#define TWO                                                                            \
    "gpu uuid=GPU-a name=H100 minor=1 pci=00000000:3B:00.0 total=81559 used=4 util=0 " \
    "energy=77 mig=0\n"                                                                \
    "gpu uuid=GPU-b name=H100 minor=0 pci=00000000:AF:00.0 total=81559 used=4000 "     \
    "util=37 pids=12,13\n"

START_TEST(test_minor_is_not_index)
{
    struct world w;
    world_init(&w, TWO);
    kernel_says(&w, "0000:3b:00.0", 1);
    look(&w);
    ck_assert_uint_eq(w.count, 2);
    ck_assert_str_eq(w.gpus[0].uuid, "GPU-a");
    ck_assert_int_eq(w.gpus[0].index, 0);
    ck_assert_int_eq(w.gpus[0].minor, 1);
    ck_assert_str_eq(w.gpus[0].pci, "0000:3b:00.0");
    ck_assert_ptr_nonnull(strstr(w.gpus[0].device, "/nvidia1"));
    ck_assert_int_eq(w.gpus[0].memory_mib, 81559);
    ck_assert_int_eq(w.gpus[0].energy_mj, 77);
    ck_assert_int_eq(w.gpus[0].process_count, 0);
    ck_assert(advert_is_offerable(&w.gpus[0]));
    ck_assert_int_eq(w.gpus[1].minor, 0);
    ck_assert_int_eq(w.gpus[1].process_count, 2);
    ck_assert_int_eq(w.gpus[1].pids[1], 13);
    ck_assert_int_eq(w.gpus[1].utilisation_ppm, 370000);
    ck_assert_int_eq(w.gpus[1].energy_mj, -1); /* not supported is not zero */
    world_done(&w);
}
END_TEST

START_TEST(test_kernel_contradicts)
{
    struct world w;
    world_init(&w, TWO);
    kernel_says(&w, "0000:3b:00.0", 0);
    look(&w);
    ck_assert(!advert_is_offerable(&w.gpus[0]));
    ck_assert_ptr_nonnull(strstr(w.gpus[0].note, "kernel"));
    ck_assert(advert_is_offerable(&w.gpus[1]));
    world_done(&w);
}
END_TEST

START_TEST(test_lost)
{
    struct world w;
    struct err err;
    world_init(&w, TWO);
    look(&w);
    struct gpu_info one = w.gpus[1];
    set_state(&w, "gpu uuid=GPU-a name=H100 minor=1 pci=00000000:3B:00.0 total=81559\n"
                  "gpu uuid=GPU-b name=H100 minor=0 pci=00000000:AF:00.0 lost=1\n");
    look(&w);
    ck_assert(w.gpus[1].lost);
    ck_assert_str_eq(w.gpus[1].uuid, "GPU-b");
    /* The handle itself is refused: the name of before is kept. */
    set_state(&w, "gpu uuid=GPU-a name=H100 minor=1 pci=00000000:3B:00.0 total=81559\n"
                  "gpu lost=2\n");
    look(&w);
    ck_assert_uint_eq(w.count, 2);
    ck_assert(w.gpus[1].lost);
    ck_assert_str_eq(w.gpus[1].uuid, "GPU-b");
    ck_assert(!w.gpus[0].lost);
    ck_assert_int_eq(gpu_nvml.sample(w.gpu, &one, &err), 0);
    ck_assert(one.lost);
    ck_assert_int_eq(one.utilisation_ppm, -1);
    world_done(&w);
}
END_TEST

/* As the kernel: where the minors of an instance's capability nodes are told. */
static void kernel_cap(const struct world *w, const char *name, int minor_number)
{
    char path[256], text[128];
    struct err err;
    snprintf(path, sizeof(path), "%s/capabilities/%s", w->proc, name);
    char *slash = strrchr(path, '/');
    *slash = '\0';
    ck_assert_int_eq(fsx_mkdirs(path, 0700, &err), 0);
    *slash = '/';
    snprintf(text, sizeof(text),
             "DeviceFileMinor: %d\nDeviceFileMode: 292\nDeviceFileModify: 1\n",
             minor_number);
    write_text(path, text);
}

#define MIG_GPU                                                                 \
    "gpu uuid=GPU-a name=NVIDIA_H100 minor=3 pci=00000000:3B:00.0 total=81559 " \
    "used=400 mig=1\n"

START_TEST(test_mig_parent_is_not_offered)
{
    struct world w;
    world_init(&w, MIG_GPU);
    look(&w);
    ck_assert_uint_eq(w.count, 1);
    ck_assert(w.gpus[0].mig);
    ck_assert(!advert_is_offerable(&w.gpus[0]));
    ck_assert_ptr_nonnull(strstr(w.gpus[0].note, "no instance"));
    world_done(&w);
}
END_TEST

START_TEST(test_mig_instances)
{
    struct world w;
    struct err err;
    world_init(&w, MIG_GPU
               "mig parent=GPU-a uuid=MIG-1 name=NVIDIA_H100_MIG_1g.10gb gi=7 ci=0 "
               "total=9984 used=12 pids=14\n"
               "mig parent=GPU-a uuid=- gi=1 ci=0\n"
               "mig parent=GPU-a uuid=MIG-2 name=NVIDIA_H100 gi=9 ci=0 total=40448 "
               "slices=3\n"
               "gpu uuid=GPU-b name=NVIDIA_H100 minor=0 pci=00000000:AF:00.0 "
               "total=81559 mig=0\n");
    kernel_says(&w, "0000:3b:00.0", 3);
    kernel_cap(&w, "gpu3/mig/gi7/access", 66);
    kernel_cap(&w, "gpu3/mig/gi7/ci0/access", 67);
    kernel_cap(&w, "gpu3/mig/gi9/access", 84);
    kernel_cap(&w, "gpu3/mig/gi9/ci0/access", 85);
    look(&w);
    ck_assert_uint_eq(w.count, 4);
    ck_assert(w.gpus[0].mig && !advert_is_offerable(&w.gpus[0]));
    const struct gpu_info *one = &w.gpus[1], *two = &w.gpus[2];
    ck_assert_msg(advert_is_offerable(one), "%s", one->note);
    ck_assert_str_eq(one->uuid, "MIG-1");
    ck_assert_str_eq(one->parent, "GPU-a");
    ck_assert_str_eq(one->model, "NVIDIA H100 MIG 1g.10gb");
    ck_assert_int_eq(one->memory_mib, 9984);
    ck_assert_int_eq(one->mem_used_mib, 12);
    ck_assert_int_eq(one->process_count, 1);
    ck_assert_int_eq(one->pids[0], 14);
    ck_assert_int_eq(one->utilisation_ppm, -1); /* not told for instances */
    ck_assert_int_eq(one->minor, 3);
    ck_assert_str_eq(one->device, w.gpus[0].device);
    ck_assert_int_eq(one->cap_major, 242);
    ck_assert_int_eq(gpu_cap_minor(one->cap_access[0]), 66);
    ck_assert_int_eq(gpu_cap_minor(one->cap_access[1]), 67);
    ck_assert(advert_is_offerable(two));
    ck_assert_str_eq(two->model, "NVIDIA H100 MIG 3g.40gb"); /* by its attributes */
    ck_assert_int_ne(one->index, two->index);
    ck_assert(!gpu_is_instance(&w.gpus[3]) && advert_is_offerable(&w.gpus[3]));
    ck_assert_int_eq(w.gpus[3].index, 1);
    /* Each is sampled by its own name, and is lost when it was removed. */
    struct gpu_info kept = *two;
    ck_assert_int_eq(gpu_nvml.sample(w.gpu, &kept, &err), 0);
    ck_assert(!kept.lost);
    set_state(&w, MIG_GPU "mig parent=GPU-a uuid=MIG-1 name=x_MIG_y gi=7 ci=0\n");
    ck_assert_int_eq(gpu_nvml.sample(w.gpu, &kept, &err), 0);
    ck_assert(kept.lost);
    kept = *one;
    ck_assert_int_eq(gpu_nvml.sample(w.gpu, &kept, &err), 0);
    ck_assert(!kept.lost);
    world_done(&w);
}
END_TEST

START_TEST(test_mig_not_offered)
{
    static const struct {
        const char *state, *note;
    } rows[] = {
        {MIG_GPU "mig parent=GPU-a uuid=MIG-1 gi=2 ci=0 total=9984\n",
         "no capability node"},
        {MIG_GPU "mig parent=GPU-a uuid=MIG-1 gi=7 ci=0 total=9984\n"
                 "mig parent=GPU-a uuid=MIG-2 gi=7 ci=1 total=9984\n",
         "shares the memory"},
        {MIG_GPU "mig parent=GPU-a uuid=MIG-GPU-a/7/0 gi=7 ci=0 total=9984\n",
         "no UUID of its own"},
        {"gpu uuid=GPU-a name=H100 pci=00000000:3B:00.0 total=1 mig=1\n"
         "mig parent=GPU-a uuid=MIG-1 gi=7 ci=0 total=9984\n",
         "minor is not known"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct world w;
        world_init(&w, rows[i].state);
        kernel_cap(&w, "gpu3/mig/gi7/access", 66);
        kernel_cap(&w, "gpu3/mig/gi7/ci0/access", 67);
        kernel_cap(&w, "gpu3/mig/gi7/ci1/access", 68);
        look(&w);
        ck_assert_uint_ge(w.count, 2);
        ck_assert_msg(!advert_is_offerable(&w.gpus[1]), "row %zu", i);
        ck_assert_msg(strstr(w.gpus[1].note, rows[i].note) != NULL, "row %zu: %s", i,
                      w.gpus[1].note);
        world_done(&w);
    }
}
END_TEST

START_TEST(test_swapped_index_is_noticed)
{
    struct world w;
    struct err err;
    world_init(&w, TWO);
    look(&w);
    struct gpu_info one = w.gpus[0];
    set_state(&w,
              "gpu uuid=GPU-b name=H100 minor=0 pci=00000000:AF:00.0 total=81559\n");
    ck_assert_int_eq(gpu_nvml.sample(w.gpu, &one, &err), 0);
    ck_assert(one.lost);
    world_done(&w);
}
END_TEST

START_TEST(test_no_library)
{
    struct gpu_source source = {.path = "/nowhere/libnvidia-ml.so.1"};
    struct err err;
    void *gpu;
    ck_assert_int_eq(gpu_nvml.open(&source, &gpu, &err), -1);
    ck_assert_int_eq(err.code, ERR_UNAVAILABLE);
}
END_TEST

UNIT_MAIN("gpu_nvml",
          UNIT_CASE(test_minor_is_not_index) UNIT_CASE(test_kernel_contradicts)
              UNIT_CASE(test_lost) UNIT_CASE(test_mig_parent_is_not_offered)
                  UNIT_CASE(test_mig_instances) UNIT_CASE(test_mig_not_offered)
                      UNIT_CASE(test_swapped_index_is_noticed)
                          UNIT_CASE(test_no_library))
