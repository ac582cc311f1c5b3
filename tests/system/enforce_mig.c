/* enforce_mig: instances of a GPU in MIG mode as leases, with the agent's leases, the
 * real kernel's gate and an NVML of the tests: each gets its GPU's node and its own two
 * capability nodes, and nothing of its neighbour's. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "tests/system/enforce_agent.h"

#define A EA_ID("0a")
#define B EA_ID("0b")

static const char *const mig_1[] = {"MIG-1", NULL};
static const char *const mig_2[] = {"MIG-2", NULL};
static const char *const both[] = {"MIG-1", "MIG-2", NULL};

#define WHOLE \
    "gpu uuid=GPU-b name=H100 minor=0 pci=00000000:AF:00.0 total=81559 used=4 mig=0\n"
#define PARENT                                                                    \
    "gpu uuid=GPU-a name=H100 minor=7 pci=00000000:3B:00.0 total=81559 used=400 " \
    "mig=1\n"
#define ONE "mig parent=GPU-a uuid=MIG-1 name=H100_MIG_1g.10gb gi=7 ci=0 total=9984\n"
#define TWO "mig parent=GPU-a uuid=MIG-2 name=H100_MIG_1g.10gb gi=8 ci=0 total=9984\n"

/* The GPU's index is 1, its minor 7. parent_major 1 makes its node one that can be held
 * open (/dev/full). */
static void world(int parent_major)
{
    ea_nvml(WHOLE PARENT ONE TWO);
    ea_node("nvidia0", RIG_MAJOR, 0);
    ea_node("nvidia7", parent_major, 7);
    for (int gi = 7; gi <= 8; gi++) {
        for (int c = 0; c < 2; c++) {
            char name[64];
            int minor_number = 66 + 9 * (gi - 7) + c;
            snprintf(name, sizeof(name), "gpu7/mig/gi%d/%saccess", gi,
                     c == 0 ? "" : "ci0/");
            ea_cap(name, minor_number);
            snprintf(name, sizeof(name), "nvidia-caps/nvidia-cap%d", minor_number);
            ea_node(name, EA_CAPS, minor_number);
        }
    }
    ea_cap("mig/config", 1);
    ea_cap("mig/monitor", 2);
    ea_node("nvidia-caps/nvidia-cap1", EA_CAPS, 1);
    ea_node("nvidia-caps/nvidia-cap2", EA_CAPS, 2);
    ea_start();
}

struct want {
    const char *node;
    int error;
};

static void check_opens(const char *id, const struct want *want, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char *path = xasprintf("%s/dev/%s", rig.dir, want[i].node);
        int got = ea_open_errno(id, path);
        ck_assert_msg(got == want[i].error, "%s of %s: %s", want[i].node, id,
                      strerrorname_np(got));
        free(path);
    }
}

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

START_TEST(test_instances_are_granted_apart)
{
    static const struct want first[] = {{"nvidia7", ENXIO}, /* let through */
                                        {"nvidia-caps/nvidia-cap66", ENXIO},
                                        {"nvidia-caps/nvidia-cap67", ENXIO},
                                        {"nvidia-caps/nvidia-cap75", EPERM},
                                        {"nvidia-caps/nvidia-cap76", EPERM},
                                        {"nvidia-caps/nvidia-cap1", EPERM},
                                        {"nvidia-caps/nvidia-cap2", EPERM},
                                        {"nvidia0", EPERM}};
    static const struct want second[] = {{"nvidia7", ENXIO},
                                         {"nvidia-caps/nvidia-cap66", EPERM},
                                         {"nvidia-caps/nvidia-cap67", EPERM},
                                         {"nvidia-caps/nvidia-cap75", ENXIO},
                                         {"nvidia-caps/nvidia-cap76", ENXIO},
                                         {"nvidia-caps/nvidia-cap1", EPERM},
                                         {"nvidia-caps/nvidia-cap2", EPERM}};
    static const struct want none[] = {{"nvidia7", EPERM},
                                       {"nvidia-caps/nvidia-cap66", EPERM}};
    world(RIG_MAJOR);
    ck_assert_int_eq(advert_find(&ea.advert, "MIG-1")->state, ADVERT_IDLE);
    ck_assert_int_eq(advert_find(&ea.advert, "GPU-a")->state, ADVERT_BUSY);
    ea_open(A, mig_1, 60);
    ea_open(B, mig_2, 60);
    check_opens(A, first, COUNT(first));
    check_opens(B, second, COUNT(second));
    ea_look();
    ck_assert_int_eq(advert_find(&ea.advert, "MIG-1")->state, ADVERT_LEASED);
    leases_end(ea.leases, A, "stopped");
    check_opens(A, none, COUNT(none));
    check_opens(B, second, COUNT(second));
    ck_assert(ea_until(A, LEASE_DONE, 2000));
    ck_assert_int_eq(ea_state(B), LEASE_READY);
    ea_die();
}
END_TEST

/* What the job sees below /dev. */
START_TEST(test_job_sees_its_nodes)
{
    static const char *const look[] = {
        "/bin/sh", "-c",
        "cd /dev; ls -d nvidia* nvidia-caps/*; " RIG_PROBE
        " probe open /dev/nvidia7 /dev/nvidia-caps/nvidia-cap66; echo end",
        NULL};
    world(RIG_MAJOR);
    ea_open(A, mig_1, 60);
    ea_launch(A, "j1", look, "end\n");
    char *x, *out = rig_output(A, "j1", 0, 2000, &x);
    ck_assert_str_eq(out, "nvidia-caps\nnvidia-caps/nvidia-cap66\n"
                          "nvidia-caps/nvidia-cap67\nnvidia7\n/dev/nvidia7=ENXIO\n"
                          "/dev/nvidia-caps/nvidia-cap66=ENXIO\nend\n");
    free(out);
    free(x);
    ea_open(B, mig_2, 60);
    ea_die();
}
END_TEST

START_TEST(test_two_instances_in_one_lease)
{
    static const struct want all[] = {{"nvidia7", ENXIO},
                                      {"nvidia-caps/nvidia-cap66", ENXIO},
                                      {"nvidia-caps/nvidia-cap67", ENXIO},
                                      {"nvidia-caps/nvidia-cap75", ENXIO},
                                      {"nvidia-caps/nvidia-cap76", ENXIO},
                                      {"nvidia-caps/nvidia-cap1", EPERM}};
    static const char *const quick[] = {"/bin/sh", "-c", "ls /dev/nvidia-caps | wc -l",
                                        NULL};
    world(RIG_MAJOR);
    ea_open(A, both, 60);
    check_opens(A, all, COUNT(all));
    ea_launch(A, "j1", quick, "4\n");
    ea_die();
}
END_TEST

/* The neighbour has the GPU's node open all the time: that is no leftover. */
START_TEST(test_neighbour_is_no_leftover)
{
    char *path = xasprintf("%s/dev/nvidia7", rig.dir);
    world(1);
    ea_open(A, mig_1, 60);
    pid_t pid = fork();
    if (pid == 0) {
        (void)open(path, O_RDWR);
        for (;;)
            pause();
    }
    rig_pause_ms(50);
    leases_end(ea.leases, A, "stopped");
    ck_assert(ea_until(A, LEASE_DONE, 2000));
    ck_assert_int_eq(kill(pid, SIGKILL), 0);
    ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
    free(path);
    ea_die();
}
END_TEST

/* A provider that makes the instances anew while one is leased, or a job that got the
 * GPU reset: the lease's instance is gone; its GPU is not taken for clean. */
START_TEST(test_instance_disappears)
{
    world(RIG_MAJOR);
    ea_open(A, mig_1, 60);
    ea_nvml(WHOLE PARENT TWO);
    ea_look();
    ck_assert_int_eq(advert_find(&ea.advert, "MIG-1")->state, ADVERT_LOST);
    ck_assert_int_eq(advert_find(&ea.advert, "MIG-2")->state, ADVERT_IDLE);
    struct order o = ea_order(B, mig_1, 60);
    struct err err;
    const char *step;
    leases_end(ea.leases, A, "stopped");
    ck_assert(ea_until(A, LEASE_CLEANING, 1000));
    ea_tick_ahead(LEASES_CLEAN_US + US_PER_S);
    ck_assert_int_eq(ea_state(A), LEASE_QUARANTINED);
    /* The kernel's file is gone with it: nothing can be granted by its name. */
    char *cap = xasprintf("%s/proc/capabilities/gpu7/mig/gi7/access", rig.dir);
    ck_assert_int_eq(unlink(cap), 0);
    ck_assert_int_eq(leases_open(ea.leases, &o, &step, &err), -1);
    ck_assert_str_eq(step, "gate");
    free(cap);
    ea_die();
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("enforce_mig");
    rig_add(s, "apart", test_instances_are_granted_apart);
    rig_add(s, "job", test_job_sees_its_nodes);
    rig_add(s, "two", test_two_instances_in_one_lease);
    rig_add(s, "neighbour", test_neighbour_is_no_leftover);
    rig_add(s, "gone", test_instance_disappears);
    return s;
}

int main(int argc, char **argv)
{
    return rig_main(argc, argv, suite);
}
