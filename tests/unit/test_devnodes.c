/* devnodes: which nodes a lease gets, with real device nodes of an unused major. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "client/agent/devnodes.h"
#include "client/lib/fsx.h"
#include "tests/unit/unit.h"

#define MAJOR 242 /* reserved for local use */
#define CAPS  240 /* likewise: stands for nvidia-caps */

struct world {
    char dir[64];
    struct gpu_info whole, mig[2];
    struct launch_node nodes[DEVNODES_MAX];
    size_t count;
};

static void node(const struct world *w, const char *name, int maj, int min)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/dev/%s", w->dir, name);
    unlink(path);
    ck_assert_int_eq(mknod(path, S_IFCHR | 0600, makedev((unsigned)maj, (unsigned)min)),
                     0);
}

static void cap(const struct world *w, const char *name, int min)
{
    char path[256], text[64];
    struct err err;
    snprintf(path, sizeof(path), "%s/proc/capabilities/%s", w->dir, name);
    *strrchr(path, '/') = '\0';
    ck_assert_int_eq(fsx_mkdirs(path, 0700, &err), 0);
    snprintf(path, sizeof(path), "%s/proc/capabilities/%s", w->dir, name);
    snprintf(text, sizeof(text), "DeviceFileMinor: %d\n", min);
    ck_assert_int_eq(fsx_write(path, text, strlen(text), 0600, &err), 0);
}

static void describe(const struct world *w, struct gpu_info *g, const char *uuid,
                     int min)
{
    memset(g, 0, sizeof(*g));
    snprintf(g->uuid, sizeof(g->uuid), "%s", uuid);
    snprintf(g->device, sizeof(g->device), "%.60s/dev/nvidia%d", w->dir, min);
    g->major = MAJOR;
    g->minor = min;
    g->cap_major = -1;
}

/* GPU 1 whole; GPU 3 with the instances gi7/ci0 and gi8/ci0. */
static void world_init(struct world *w)
{
    char path[128];
    struct err err;
    memset(w, 0, sizeof(*w));
    snprintf(w->dir, sizeof(w->dir), "/srv/test_devnodes.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(w->dir));
    snprintf(path, sizeof(path), "%s/dev/nvidia-caps", w->dir);
    ck_assert_int_eq(fsx_mkdirs(path, 0700, &err), 0);
    node(w, "nvidia1", MAJOR, 1);
    node(w, "nvidia3", MAJOR, 3);
    describe(w, &w->whole, "GPU-b", 1);
    for (int i = 0; i < 2; i++) {
        struct gpu_info *g = &w->mig[i];
        char name[64];
        describe(w, g, i == 0 ? "MIG-0" : "MIG-1", 3);
        snprintf(g->parent, sizeof(g->parent), "GPU-a");
        g->cap_major = CAPS;
        for (int c = 0; c < GPU_CAPS_MAX; c++) {
            snprintf(name, sizeof(name), "gpu3/mig/gi%d/%saccess", 7 + i,
                     c == 0 ? "" : "ci0/");
            snprintf(path, sizeof(path), "%.60s/proc/capabilities/%.40s", w->dir, name);
            memcpy(g->cap_access[c], path, strlen(path) + 1);
            cap(w, name, 66 + 9 * i + c);
            snprintf(name, sizeof(name), "nvidia-caps/nvidia-cap%d", 66 + 9 * i + c);
            node(w, name, CAPS, 66 + 9 * i + c);
        }
    }
    cap(w, "mig/config", 1);
    cap(w, "mig/monitor", 2);
    node(w, "nvidia-caps/nvidia-cap1", CAPS, 1);
    node(w, "nvidia-caps/nvidia-cap2", CAPS, 2);
}

static void world_done(struct world *w)
{
    struct err err;
    devnodes_done(w->nodes, w->count);
    ck_assert_int_eq(fsx_remove_tree(w->dir, &err), 0);
}

static int find(struct world *w, const struct gpu_info *const *gpus, size_t count,
                struct err *err)
{
    devnodes_done(w->nodes, w->count);
    w->count = 0;
    return devnodes_find(gpus, count, w->nodes, &w->count, err);
}

/* Where it is in the list; the driver's control nodes of this machine may follow. */
static int place(const struct world *w, const char *inside)
{
    for (size_t i = 0; i < w->count; i++)
        if (strcmp(w->nodes[i].inside, inside) == 0)
            return (int)i;
    return -1;
}

START_TEST(test_whole_gpu)
{
    struct world w;
    struct err err;
    dev_t own[GPU_CAPS_MAX];
    world_init(&w);
    const struct gpu_info *gpus[] = {&w.whole};
    ck_assert_msg(find(&w, gpus, 1, &err) == 0, "%s", err.text);
    ck_assert_int_eq(place(&w, "nvidia1"), 0);
    ck_assert_uint_eq(w.nodes[0].major, MAJOR);
    ck_assert_uint_eq(w.nodes[0].minor, 1);
    ck_assert_int_eq(place(&w, "nvidia3"), -1);
    ck_assert_uint_eq(devnodes_own(&w.whole, own, GPU_CAPS_MAX), 1);
    ck_assert(own[0] == makedev(MAJOR, 1));
    world_done(&w);
}
END_TEST

START_TEST(test_mig_instances)
{
    struct world w;
    struct err err;
    dev_t own[GPU_CAPS_MAX];
    world_init(&w);
    const struct gpu_info *gpus[] = {&w.mig[0], &w.mig[1]};
    ck_assert_msg(find(&w, gpus, 1, &err) == 0, "%s", err.text);
    ck_assert_int_eq(place(&w, "nvidia3"), 0);
    ck_assert_int_eq(place(&w, "nvidia-caps/nvidia-cap66"), 1);
    ck_assert_int_eq(place(&w, "nvidia-caps/nvidia-cap67"), 2);
    ck_assert_uint_eq(w.nodes[1].major, CAPS);
    ck_assert_uint_eq(w.nodes[2].minor, 67);
    /* Not its neighbour's, and never those that make or watch instances. */
    ck_assert_int_eq(place(&w, "nvidia-caps/nvidia-cap75"), -1);
    ck_assert_int_eq(place(&w, "nvidia-caps/nvidia-cap1"), -1);
    ck_assert_int_eq(place(&w, "nvidia-caps/nvidia-cap2"), -1);
    /* Its GPU's node says nothing about who holds it: the neighbour has that too. */
    ck_assert_uint_eq(devnodes_own(&w.mig[0], own, GPU_CAPS_MAX), 2);
    ck_assert(own[0] == makedev(CAPS, 66) && own[1] == makedev(CAPS, 67));
    ck_assert_int_eq(find(&w, gpus, 2, &err), 0);
    ck_assert_int_eq(place(&w, "nvidia3"), 0);
    ck_assert_int_eq(place(&w, "nvidia-caps/nvidia-cap75"), 3);
    ck_assert_int_eq(place(&w, "nvidia-caps/nvidia-cap76"), 4);
    world_done(&w);
}
END_TEST

START_TEST(test_wrong_nodes_are_refused)
{
    struct world w;
    struct err err;
    world_init(&w);
    const struct gpu_info *gpus[] = {&w.mig[0]}, *whole[] = {&w.whole};
    node(&w, "nvidia1", MAJOR, 3); /* another GPU's numbers */
    ck_assert_int_eq(find(&w, whole, 1, &err), -1);
    ck_assert_int_eq(err.code, ERR_UNAVAILABLE);
    node(&w, "nvidia-caps/nvidia-cap66", CAPS, 75); /* the neighbour's */
    ck_assert_int_eq(find(&w, gpus, 1, &err), -1);
    node(&w, "nvidia-caps/nvidia-cap66", CAPS, 66);
    ck_assert_int_eq(find(&w, gpus, 1, &err), 0);
    cap(&w, "gpu3/mig/gi7/access", 1); /* as if it were mig/config */
    ck_assert_int_eq(find(&w, gpus, 1, &err), -1);
    cap(&w, "gpu3/mig/gi7/access", 2);
    ck_assert_int_eq(find(&w, gpus, 1, &err), -1);
    cap(&w, "gpu3/mig/gi7/access", 66);
    ck_assert_int_eq(find(&w, gpus, 1, &err), 0);
    w.mig[0].cap_major = -1; /* the driver has no capabilities any more */
    ck_assert_int_eq(find(&w, gpus, 1, &err), -1);
    w.mig[0].cap_major = CAPS;
    ck_assert_int_eq(unlink(w.mig[0].cap_access[1]), 0); /* the instance is gone */
    ck_assert_int_eq(find(&w, gpus, 1, &err), -1);
    world_done(&w);
}
END_TEST

int main(void)
{
    if (geteuid() != 0) {
        fprintf(stderr, "skipped: mknod needs root\n");
        return 77;
    }
    Suite *suite = suite_create("devnodes");
    TCase *tc = tcase_create("devnodes");
    tcase_add_test(tc, test_whole_gpu);
    tcase_add_test(tc, test_mig_instances);
    tcase_add_test(tc, test_wrong_nodes_are_refused);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
