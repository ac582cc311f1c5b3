/* enforce_soak: a thousand leases one after another and side by side, as the agent
 * makes and ends them, leave nothing: no cgroup, no program in the kernel, no
 * descriptor, no process, no file but the epochs (and tokens until they expire), and
 * the memory stays. And leases that follow each other on one GPU never have it
 * together. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "tests/system/enforce_agent.h"

#define GPUS   8
#define ROUNDS 125 /* of GPUS leases: 1000 */
#define WARM   25  /* rounds until buffers and caches have their size */

/* For this test alone its files are in memory: 40 of a lease's writes wait for the
 * disk, which is not what is asked here. */
static void in_memory(void)
{
    ck_assert_int_eq(unshare(CLONE_NEWNS), 0);
    ck_assert_int_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
    ck_assert_int_eq(mount("tmpfs", rig.dir, "tmpfs", 0, "mode=755,size=256m"), 0);
    ck_assert_int_eq(mkdir(rig.state, 0700), 0);
}

static void world(void)
{
    char text[2048] = "";
    size_t len = 0;
    for (int i = 0; i < GPUS; i++) { /* index and minor are crossed */
        char name[32];
        len += (size_t)snprintf(text + len, sizeof(text) - len,
                                "gpu uuid=GPU-%d name=H100 minor=%d "
                                "pci=00000000:%02X:00.0 total=81559 used=4\n",
                                i, GPUS - 1 - i, 16 + i);
        snprintf(name, sizeof(name), "nvidia%d", i);
        ea_node(name, RIG_MAJOR, i);
    }
    ea_nvml(text);
    ea_start();
}

/* Entries of a directory, without . and .. */
static size_t count_dir(const char *path)
{
    DIR *d = opendir(path);
    size_t n = 0;
    for (const struct dirent *e; d != NULL && (e = readdir(d)) != NULL;)
        n += e->d_name[0] != '.';
    if (d != NULL)
        closedir(d);
    return n;
}

/* Id of the program attached to the lease. */
static uint32_t program_of(const char *id)
{
    union bpf_attr attr;
    uint32_t ids[4] = {0};
    char *dir = rig_cgroup(id, NULL);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    memset(&attr, 0, sizeof(attr));
    attr.query.target_fd = (uint32_t)fd;
    attr.query.attach_type = BPF_CGROUP_DEVICE;
    attr.query.prog_ids = (uint64_t)(uintptr_t)ids;
    attr.query.prog_cnt = 4;
    ck_assert_int_eq(syscall(SYS_bpf, BPF_PROG_QUERY, &attr, sizeof(attr)), 0);
    ck_assert_uint_eq(attr.query.prog_cnt, 1);
    close(fd);
    free(dir);
    return ids[0];
}

static bool program_lives(uint32_t id)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.prog_id = id;
    int fd = (int)syscall(SYS_bpf, BPF_PROG_GET_FD_BY_ID, &attr, sizeof(attr));
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static size_t count_children(void)
{
    char *path = xasprintf("/proc/%d/task/%d/children", (int)getpid(), (int)getpid());
    FILE *f = fopen(path, "r");
    size_t n = 0;
    long pid;
    while (f != NULL && fscanf(f, "%ld", &pid) == 1)
        n++;
    if (f != NULL)
        fclose(f);
    free(path);
    return n;
}

static long resident_kib(void)
{
    FILE *f = fopen("/proc/self/statm", "r");
    long pages = 0, resident = 0;
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(fscanf(f, "%ld %ld", &pages, &resident), 2);
    fclose(f);
    return resident * (sysconf(_SC_PAGESIZE) / 1024);
}

static void id_of(int round, int gpu, char out[UUID_TEXT])
{
    snprintf(out, UUID_TEXT, "019307d0-7b3a-7c3e-8a5b-%08x%04x", round, gpu);
}

/* A lease that begins now: who is older than it and no job need not be looked into. */
static void open_now(const char *id, const char *const *gpus)
{
    struct order o = ea_order(id, gpus, 300);
    struct err err;
    const char *step;
    ck_assert(agent_now(&ea, &o.not_before_us));
    ck_assert_msg(leases_open(ea.leases, &o, &step, &err) == 0, "%s: %s", step,
                  err.text);
}

/* One lease for every GPU at once; on some a job that ends by itself, or does not. */
static void one_round(int round, uint32_t *programs)
{
    static const char *const quick[] = {"/bin/true", NULL};
    static const char *const slow[] = {"/bin/sleep", "100", NULL};
    char id[UUID_TEXT], job[16];
    for (int g = 0; g < GPUS; g++) {
        char uuid[16];
        const char *gpus[] = {uuid, NULL};
        snprintf(uuid, sizeof(uuid), "GPU-%d", g);
        id_of(round, g, id);
        open_now(id, gpus);
        *programs++ = program_of(id);
        snprintf(job, sizeof(job), "j%d", round);
        if (g == round % GPUS)
            ea_launch(id, job, round % 2 == 0 ? quick : slow, NULL);
    }
    for (int g = 0; g < GPUS; g++) {
        id_of(round, g, id);
        leases_end(ea.leases, id, g % 2 == 0 ? "stopped" : "revoked");
    }
    for (int g = 0; g < GPUS; g++) {
        id_of(round, g, id);
        ck_assert_msg(ea_until(id, LEASE_DONE, 5000), "%s is %s", id,
                      lease_state_name(ea_state(id)));
    }
}

/* Ended leases are remembered for an hour for late readers: as when that is over. */
static void forget(int round)
{
    struct err err;
    char id[UUID_TEXT];
    for (int g = 0; g < GPUS; g++) {
        id_of(round, g, id);
        char *dir = rig_lease_dir(id);
        rig_ok(launch_close(dir, &err), &err);
        free(dir);
        rig_ok(journal_lease_remove(rig_journal(), id, &err), &err);
    }
}

static void new_agent(void)
{
    ea_die();
    ea_start();
}

static void check_kernel(const uint32_t *programs, size_t count)
{
    struct err err;
    size_t left = count;
    char *base = rig_cgroup(NULL, NULL);
    const char *const v1[] = {rig.mounts.v1_memory, rig.mounts.v1_pids,
                              rig.mounts.v1_cpu};
    char **ids;
    size_t leases;
    rig_ok(rig.enforce->ops->list(rig.enforce, &ids, &leases, &err), &err);
    ck_assert_uint_eq(leases, 0); /* in no hierarchy */
    free(ids);
    char *keepers = rig_cgroup(CGROUP_KEEPERS, NULL);
    rig_ok(cgroup_remove(keepers, &err), &err);
    rig_ok(cgroup_remove(base, &err), &err); /* so nothing is in it */
    for (int i = 0; i < 3; i++) {
        char *dir = cgroup_path(v1[i], rig.base, NULL, NULL);
        if (v1[i][0] != '\0')
            rig_ok(cgroup_remove(dir, &err), &err);
        free(dir);
    }
    /* Programs of removed cgroups are freed by a worker of the kernel. */
    for (int i = 0; i < 250 && left > 0; i++) {
        left = 0;
        for (size_t p = 0; p < count; p++)
            left += program_lives(programs[p]);
        if (left > 0)
            rig_pause_ms(20);
    }
    ck_assert_uint_eq(left, 0);
    free(keepers);
    free(base);
}

START_TEST(test_a_thousand_leases_leave_nothing)
{
    static uint32_t programs[ROUNDS * GPUS];
    size_t fds = 0;
    long kib = 0;
    int64_t from = rig_now();
    in_memory();
    world();
    for (int r = 0; r < ROUNDS; r++) {
        one_round(r, programs + r * GPUS);
        forget(r);
        if (r % 25 == 24)
            new_agent(); /* it too must leave nothing */
        if (r == WARM - 1) {
            launch_reap();
            fds = count_dir("/proc/self/fd");
            kib = resident_kib();
        }
    }
    new_agent();
    ck_assert_uint_eq(count_dir("/proc/self/fd"), fds);
    for (int i = 0; i < 200 && count_children() > 0; i++) {
        rig_pause_ms(10); /* a keeper has let go of its lock before it is a zombie */
        launch_reap();
    }
    ck_assert_uint_eq(count_children(), 0);
    check_kernel(programs, ROUNDS * GPUS);
    char *leases = xasprintf("%s/leases", rig.state);
    ck_assert_uint_eq(count_dir(leases), 0);
    free(leases);
    char *epochs = xasprintf("%s/epochs", rig.state);
    ck_assert_uint_eq(count_dir(epochs), GPUS); /* one a GPU, whatever was on it */
    free(epochs);
    long grown = resident_kib() - kib;
    ck_assert_msg(grown < 2048, "%ld KiB more than after %d leases", grown,
                  WARM * GPUS);
    printf("soak: %d leases in %.1f s, %ld KiB more\n", ROUNDS * GPUS,
           (double)(rig_now() - from) / 1e6, grown);
    ea_die();
}
END_TEST

/* --- one after another --- */

#define CHAIN   8
#define SLOT_US INT64_C(400000) /* long enough for the one before to be cleaned */

static bool can_open(const char *id, const char *path)
{
    char *dir = rig_cgroup(id, NULL);
    bool there = access(dir, F_OK) == 0;
    free(dir);
    return there && ea_open_errno(id, path) == ENXIO;
}

/* What the agent does in a turn with the market's orders. */
static void turn(struct desired *want)
{
    struct reconcile_have *have = xcalloc(LEASES_MAX, sizeof(*have));
    struct reconcile_in in;
    struct reconcile_out out;
    struct err err;
    const char *step;
    leases_tick(ea.leases, clock_boot_us());
    agent_compare(&ea, have, LEASES_MAX, &in);
    in.want = want;
    reconcile(&in, &out);
    for (size_t i = 0; i < out.count; i++) {
        if (out.actions[i].kind == RECONCILE_OPEN &&
            leases_open(ea.leases, out.actions[i].order, &step, &err) != 0)
            ck_abort_msg("%s: %s", step, err.text);
        else if (out.actions[i].kind == RECONCILE_END)
            leases_end(ea.leases, out.actions[i].id, out.actions[i].why);
    }
    reconcile_out_done(&out);
    free(have);
}

/* Nothing of those before it is left when a lease has the GPU. */
static void check_gone_before(int lease)
{
    char id[UUID_TEXT];
    for (int i = 0; i < lease; i++) {
        id_of(i, 0, id);
        const struct journal_lease *j = leases_find(ea.leases, id);
        ck_assert_msg(j == NULL || j->state == LEASE_DONE, "lease %d while %d is %s",
                      lease, i, lease_state_name(j->state));
    }
}

/* Leases that touch: each ends in the very microsecond in which the next begins, and
 * each has a job that keeps on opening. At no instant can two open the GPU. */
START_TEST(test_back_to_back_never_overlap)
{
    struct desired want = {.lease_count = CHAIN};
    static const char *const retry[] = {
        "/bin/sh", "-c", "trap '' TERM; echo ready; exec sleep 100", NULL};
    bool seen[CHAIN] = {false};
    int64_t now, began_us;
    char id[UUID_TEXT], job[16];
    const char *const gpu[] = {"GPU-3", NULL};
    struct err err;
    world();
    /* Cleaning takes its time, so that there is something to wait for. */
    ea.conf.scrub_command = xstrdup("/bin/sleep 0.05");
    ck_assert(agent_now(&ea, &now));
    began_us = now;
    want.leases = xcalloc(CHAIN, sizeof(*want.leases));
    for (int i = 0; i < CHAIN; i++) {
        id_of(i, 0, id);
        want.leases[i] = ea_order(id, gpu, 60);
        want.leases[i].not_before_us = began_us + i * SLOT_US;
        want.leases[i].not_after_us = began_us + (i + 1) * SLOT_US;
        want.leases[i].epoch = want.leases[i].not_before_us;
        /* tenants in turn */
        want.leases[i].tenant[UUID_TEXT - 2] = (char)('0' + i % 2);
    }
    char *path = xasprintf("%s/dev/nvidia%d", rig.dir, GPUS - 1 - 3);
    while (agent_now(&ea, &now) && now < began_us + (CHAIN + 1) * SLOT_US) {
        int can = 0;
        turn(&want);
        for (int i = 0; i < CHAIN; i++) {
            id_of(i, 0, id);
            if (!can_open(id, path))
                continue;
            can++;
            check_gone_before(i);
            snprintf(job, sizeof(job), "j%d", i);
            /* On a busy machine its time may be over by now. */
            if (!seen[i] && ea_try_launch(id, job, retry, &err) != 0)
                ck_assert_int_eq(err.code, ERR_CONFLICT);
            seen[i] = true;
        }
        ck_assert_int_le(can, 1);
        ea_look();
    }
    int had = 0;
    for (int i = 0; i < CHAIN; i++)
        had += seen[i];
    /* A machine under load may miss one; but not all the time. */
    ck_assert_msg(had > CHAIN / 2, "only %d of %d leases had their GPU", had, CHAIN);
    free(path);
    free(want.leases);
    ea_die();
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("enforce_soak");
    rig_add(s, "thousand", test_a_thousand_leases_leave_nothing);
    rig_add(s, "back_to_back", test_back_to_back_never_overlap);
    return s;
}

int main(int argc, char **argv)
{
    return rig_main(argc, argv, suite);
}
