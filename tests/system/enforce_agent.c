/* enforce_agent: see enforce_agent.h. */
#include "tests/system/enforce_agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/jws.h"
#include "client/lib/log.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define PROBE_BYTES_MAX (64 << 20)

struct agent ea;
static int64_t ahead_us; /* the test's clock before the real one */

static char *place(const char *name)
{
    return xasprintf("%s/%s", rig.dir, name);
}

static void make_parent(const char *path)
{
    struct err err;
    char *dir = xstrdup(path);
    *strrchr(dir, '/') = '\0';
    rig_ok(fsx_mkdirs(dir, 0755, &err), &err);
    free(dir);
}

static void put(const char *path, const char *text)
{
    struct err err;
    make_parent(path);
    rig_ok(fsx_write(path, text, strlen(text), 0644, &err), &err);
}

void ea_nvml(const char *state)
{
    char *path = place("nvml");
    put(path, state);
    free(path);
}

const char *ea_node(const char *name, int major_number, int minor_number)
{
    static char path[200];
    mode_t mask = umask(0);
    snprintf(path, sizeof(path), "%s/dev/%s", rig.dir, name);
    make_parent(path);
    (void)unlink(path);
    ck_assert_int_eq(mknod(path, S_IFCHR | 0666,
                           makedev((unsigned)major_number, (unsigned)minor_number)),
                     0);
    umask(mask);
    return path;
}

void ea_cap(const char *name, int minor_number)
{
    char *path = xasprintf("%s/proc/capabilities/%s", rig.dir, name);
    char *text = xasprintf("DeviceFileMinor: %d\nDeviceFileMode: 292\n", minor_number);
    put(path, text);
    free(text);
    free(path);
}

void ea_start(void)
{
    struct agent *a = &ea;
    struct err err;
    char *state = place("nvml"), *proc = place("proc"), *dev = place("dev");
    char *devices = place("devices");
    struct gpu_source source = {
        .path = FAKE_NVML_LIB, .proc = proc, .dev = dev, .devices = devices};
    put(devices, "Character devices:\n241 nvidia-caps\n");
    setenv("FAKE_NVML", state, 1);
    memset(a, 0, sizeof(*a));
    ahead_us = 0;
    rig_ok(settings_load(NULL, &a->conf, &err), &err);
    free(a->conf.cgroup_base);
    a->conf.cgroup_base = xstrdup(rig.base);
    a->enforce = rig.enforce;
    a->journal = rig_journal();
    a->id.spiffe_id = xstrdup("spiffe://test/site/s/node/n");
    rig_ok(jws_keygen(&a->id.receipt_key, &err), &err);
    rig_ok(spool_open(rig.state, a->id.receipt_key, &a->spool, &err), &err);
    memcpy(a->boot_id, rig.boot_id, sizeof(a->boot_id));
    a->receipt_interval_us = 60 * US_PER_S;
    signedtime_add(&a->time, clock_now_us(), clock_boot_us());
    a->have_status = true;
    a->status.iat_us = clock_now_us();
    a->gpu_ops = &gpu_nvml;
    rig_ok(gpu_nvml.open(&source, &a->gpu, &err), &err);
    a->leases = leases_new(a);
    ea_look();
    rig_ok(leases_recover(a->leases, &err), &err);
    ea_look();
    free(devices);
    free(dev);
    free(proc);
    free(state);
}

void ea_die(void)
{
    leases_free(ea.leases);
    spool_free(ea.spool);
    gpu_nvml.close(ea.gpu);
    EVP_PKEY_free(ea.id.receipt_key);
    free(ea.id.spiffe_id);
    settings_done(&ea.conf);
}

void ea_look(void)
{
    static struct gpu_info gpus[GPUS_PER_NODE_MAX];
    struct advert_limits limits = {ea.conf.busy_memory_mib, 50000};
    struct err err;
    size_t count;
    rig_ok(gpu_nvml.list(ea.gpu, gpus, GPUS_PER_NODE_MAX, &count, &err), &err);
    advert_observe(&ea.advert, gpus, count, &limits, leases_hold, ea.leases);
}

struct order ea_order(const char *id, const char *const *gpus, int seconds)
{
    struct order o = {.epoch = clock_now_us(), .on_lost_us = -1, .generation = 1};
    int64_t now;
    ck_assert(agent_now(&ea, &now));
    snprintf(o.id, sizeof(o.id), "%s", id);
    snprintf(o.tenant, sizeof(o.tenant), EA_TENANT);
    for (; gpus[o.gpu_count] != NULL; o.gpu_count++)
        snprintf(o.gpus[o.gpu_count], sizeof(o.gpus[0]), "%s", gpus[o.gpu_count]);
    o.not_before_us = now - 60 * US_PER_S;
    o.not_after_us = now + seconds * US_PER_S;
    return o;
}

void ea_open(const char *id, const char *const *gpus, int seconds)
{
    struct order o = ea_order(id, gpus, seconds);
    struct err err;
    const char *step;
    ck_assert_msg(leases_open(ea.leases, &o, &step, &err) == 0, "%s: %s", step,
                  err.text);
}

static void put_probe(const char *id)
{
    struct err err;
    char *dir = rig_lease_dir(id), *work = xasprintf("%s/work", dir);
    char *probe = xasprintf("%s/probe", work), *shared = place("probe");
    rig_ok(fsx_mkdirs(work, 0700, &err), &err);
    if (access(shared, F_OK) != 0) {
        char *self;
        size_t len;
        rig_ok(fsx_read("/proc/self/exe", PROBE_BYTES_MAX, &self, &len, &err), &err);
        rig_ok(fsx_write(shared, self, len, 0755, &err), &err);
        free(self);
    }
    ck_assert(link(shared, probe) == 0 || errno == EEXIST);
    free(shared);
    free(probe);
    free(work);
    free(dir);
}

static void wait_output(const char *id, const char *job, const char *want)
{
    for (int i = 0; i < 200; i++) {
        char *x, *out = rig_output(id, job, 0, 50, &x);
        bool there = strstr(out, want) != NULL;
        free(out);
        free(x);
        if (there)
            return;
    }
    ck_abort_msg("job %s of %s never said %s", job, id, want);
}

int ea_try_launch(const char *id, const char *job, const char *const *argv,
                  struct err *err)
{
    char *envp[] = {NULL};
    struct token_claims *claims = xcalloc(1, sizeof(*claims));
    struct leases_launched out = {0};
    put_probe(id);
    snprintf(claims->jti, sizeof(claims->jti), "%s", job);
    snprintf(claims->lease.reservation, sizeof(claims->lease.reservation), "%s", id);
    claims->exp_us = clock_now_us() + 60 * US_PER_S;
    const struct leases_launch in = {.claims = claims,
                                     .argv_hash = "hash",
                                     .argv = (char **)(uintptr_t)argv,
                                     .envp = envp};
    int rc = leases_launch(ea.leases, &in, &out, err);
    if (rc != 0)
        (void)err_prefix(err, "%s", out.step);
    else
        rc = launch_wait_ready(&out.ready, err);
    if (rc == 0)
        leases_job_started(ea.leases, id);
    free(claims);
    return rc;
}

void ea_launch(const char *id, const char *job, const char *const *argv,
               const char *ready)
{
    struct err err;
    rig_ok(ea_try_launch(id, job, argv, &err), &err);
    if (ready != NULL)
        wait_output(id, job, ready);
}

enum lease_state ea_state(const char *id)
{
    const struct journal_lease *j = leases_find(ea.leases, id);
    ck_assert_msg(j != NULL, "no lease %s", id);
    return j->state;
}

bool ea_until(const char *id, enum lease_state state, int ms)
{
    int64_t until = rig_now() + ms * INT64_C(1000);
    for (;;) {
        leases_tick(ea.leases, clock_boot_us() + ahead_us);
        if (leases_find(ea.leases, id) == NULL && state == LEASE_DONE)
            return true; /* and forgotten */
        if (ea_state(id) == state)
            return true;
        if (rig_now() > until)
            return false;
        rig_pause_ms(2);
    }
}

void ea_tick_ahead(int64_t us)
{
    ahead_us += us;
    leases_tick(ea.leases, clock_boot_us() + ahead_us);
}

static int open_it(const char *path)
{
    return rig_open_errno(path, O_RDWR);
}

int ea_open_errno(const char *id, const char *path)
{
    char *dir = rig_cgroup(id, NULL);
    int rc = rig_in_cgroup(dir, 0, open_it, path);
    free(dir);
    return rc;
}

void ea_log_begin(void)
{
    char *path = place("log");
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(dup2(fd, 2), 2);
    close(fd);
    free(path);
}

char *ea_log(void)
{
    struct err err;
    char *path = place("log"), *text;
    rig_ok(fsx_read(path, 1 << 20, &text, NULL, &err), &err);
    free(path);
    return text;
}
