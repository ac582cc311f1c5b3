/* enforce_jump: the machine's clock set an hour ahead, or back, while a lease runs
 * (`date -s`): nobody's lease ends earlier or later by it, with the agent and without
 * it, and what is metered is what was used. The clock of the whole machine stays as it
 * is: this program and the keepers, which are this program as well, see another one. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "tests/system/enforce_agent.h"

#define LIFE_S 2
#define HOUR_S 3600

static const char *const gpu[] = {"GPU-a", NULL};

/* Seconds between the machine's clock and the one that is seen; shared with keepers. */
static volatile long *shift(void)
{
    static volatile long none, *at;
    const char *path = getenv("ENFORCE_JUMP");
    if (at != NULL || path == NULL)
        return at != NULL ? at : &none;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *p = fd >= 0
                  ? mmap(NULL, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
                  : MAP_FAILED;
    if (fd >= 0)
        close(fd);
    if (p != MAP_FAILED)
        at = p;
    return at != NULL ? at : &none;
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
    long rc = syscall(SYS_clock_gettime, id, ts);
    if (rc == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        ts->tv_sec += *shift();
    return (int)rc;
}

time_t time(time_t *ret)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    if (ret != NULL)
        *ret = ts.tv_sec;
    return ts.tv_sec;
}

int gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
    struct timespec ts;
    (void)tz;
    (void)clock_gettime(CLOCK_REALTIME, &ts);
    *tv = (struct timeval){ts.tv_sec, ts.tv_nsec / 1000};
    return 0;
}

static void jump(long seconds)
{
    int64_t before = clock_now_us();
    *shift() += seconds;
    int64_t moved = clock_now_us() - before;
    ck_assert(llabs(moved - seconds * US_PER_S) < US_PER_S); /* it is seen */
}

/* A starting agent; what the market has signed does not follow the machine's clock. */
static void start(void)
{
    ea_start();
    memset(&ea.time, 0, sizeof(ea.time));
    signedtime_add(&ea.time, clock_now_us() - *shift() * US_PER_S, clock_boot_us());
    leases_retime(ea.leases);
}

static void check_running(const char *id, const char *node, const char *where)
{
    leases_tick(ea.leases, clock_boot_us());
    ck_assert_msg(ea_state(id) == LEASE_RUNNING, "%s: %s", where,
                  lease_state_name(ea_state(id)));
    ck_assert_msg(rig_populated(id), "%s: its job is gone", where);
    ck_assert_msg(ea_open_errno(id, node) == ENXIO, "%s: its gate is closed", where);
}

/* The end by the boot clock, seen by whoever is still there. */
static void check_end(const char *id, const char *node, int64_t end, bool agent)
{
    while (rig_now() < end)
        rig_pause_ms(1);
    if (agent) {
        ck_assert(ea_until(id, LEASE_DONE, 5000));
    } else {
        ck_assert_int_eq(ea_open_errno(id, node), EPERM);
        ck_assert_int_ge(rig_wait_empty(id, 1000), 0);
    }
    ck_assert_msg(rig_now() < end + US_PER_S, "%lld us after its end",
                  (long long)(rig_now() - end));
}

static void live_through(long seconds, bool agent, int n)
{
    static const char *const sleeper[] = {"/bin/sleep", "100", NULL};
    const char *node = ea_node("nvidia3", RIG_MAJOR, 3);
    char id[UUID_TEXT], job[8];
    snprintf(id, sizeof(id), EA_ID("%02d"), n);
    snprintf(job, sizeof(job), "j%d", n);
    start();
    ea_open(id, gpu, LIFE_S);
    int64_t from = rig_now(), end = leases_find(ea.leases, id)->deadline_boot_us;
    ck_assert(llabs(end - from - LIFE_S * US_PER_S) < US_PER_S);
    ea_launch(id, job, sleeper, NULL);
    check_running(id, node, "before");
    jump(seconds);
    check_running(id, node, "after the jump");
    ck_assert_int_eq(leases_find(ea.leases, id)->deadline_boot_us, end);
    if (!agent) {
        ea_die(); /* also the next one reckons as before */
        journal_free(rig.journal);
        rig.journal = NULL;
        start();
        check_running(id, node, "by another agent");
        ea_die();
    }
    check_end(id, node, end, agent);
    if (!agent) {
        start();
        ck_assert(ea_until(id, LEASE_DONE, 5000));
    }
    const struct usage_chain *c = spool_chain(ea.spool, id);
    ck_assert_ptr_nonnull(c);
    ck_assert_int_eq(c->last, USAGE_TEARDOWN);
    ck_assert_msg(llabs(c->gpu_us - (end - from)) < US_PER_S, "%lld us metered of %lld",
                  (long long)c->gpu_us, (long long)(end - from));
    ea_die();
    journal_free(rig.journal);
    rig.journal = NULL;
    jump(-seconds);
}

START_TEST(test_clock_jumps)
{
    ea_nvml(
        "gpu uuid=GPU-a name=H100 minor=3 pci=00000000:3B:00.0 total=81559 used=4\n");
    live_through(HOUR_S, true, 1);
    live_through(-HOUR_S, true, 2);
    live_through(HOUR_S, false, 3);
    live_through(-HOUR_S, false, 4);
}
END_TEST

static Suite *suite(void)
{
    char *path = xasprintf("%s/shift", rig.dir);
    long none = 0;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    Suite *s = suite_create("enforce_jump");
    if (fd < 0 || write(fd, &none, sizeof(none)) != (ssize_t)sizeof(none))
        exit(99);
    close(fd);
    setenv("ENFORCE_JUMP", path, 1);
    free(path);
    rig_add(s, "clock_jumps", test_clock_jumps);
    return s;
}

int main(int argc, char **argv)
{
    return rig_main(argc, argv, suite);
}
