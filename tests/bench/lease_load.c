/* lease_load: times of the device gate and the sandbox on a node with 64 running
 * leases: grant to exec (token check, journal, gate, keeper, job), end to the first
 * refused open, end to an empty lease, revocation to an empty lease. Prints one JSON
 * object, quantiles in microseconds: {"launch": {"p50":…, "p25", "p75", "p99", "n"},
 * …}. Stands on the rig of the enforcement tests. Usage: lease_load (root). */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/lib/fsx.h"
#include "tests/system/enforce_rig.h"
#include "tests/unit/token_kit.h"

#define RUNNING  64
#define LAUNCHES 200
#define ENDS     100
#define AHEAD_US \
    15000 /* an end is set so far ahead: all who wait for it have read it */

static struct kit kit;
static char *grant;
static const char *const sleeper[] = {"/bin/sleep", "1000", NULL};

struct sample {
    int64_t us[LAUNCHES];
    size_t count;
};

static int by_size(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static long quantile(const struct sample *s, size_t percent)
{
    return (long)s->us[(s->count - 1) * percent / 100];
}

static void print(const char *name, struct sample *s, const char *end)
{
    qsort(s->us, s->count, sizeof(s->us[0]), by_size);
    printf("\"%s\": {\"p50\": %ld, \"p25\": %ld, \"p75\": %ld, \"p99\": %ld, "
           "\"max\": %ld, \"n\": %zu}%s\n",
           name, quantile(s, 50), quantile(s, 25), quantile(s, 75), quantile(s, 99),
           (long)s->us[s->count - 1], s->count, end);
}

/* Boot time at which the lease was seen empty. */
static int64_t when_empty(const char *id)
{
    char *dir = rig_cgroup(id, NULL), *path = xasprintf("%s/cgroup.events", dir);
    char text[128];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    for (;;) {
        ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
        text[n > 0 ? n : 0] = '\0';
        if (strstr(text, "populated 0") != NULL)
            break;
        struct pollfd p = {fd, POLLPRI, 0};
        ck_assert_int_eq(poll(&p, 1, 5000), 1);
    }
    int64_t now = rig_now();
    close(fd);
    free(path);
    free(dir);
    return now;
}

static void start(const char *id)
{
    struct err err;
    rig_lease(id, 0, 60000);
    rig_ok(rig_start(id, "j1", 0, sleeper, &err), &err);
}

static void launch_and_revoke(struct sample *launch, struct sample *revoke)
{
    struct err err;
    for (int i = 0; i < LAUNCHES; i++) {
        struct token_claims claims;
        const char *step;
        int64_t from = rig_now();
        rig_ok(token_check(grant, strlen(grant), &kit.ctx, &claims, &step, &err), &err);
        start("res1");
        launch->us[launch->count++] = rig_now() - from;
        from = rig_now();
        rig_ok(rig.enforce->ops->deny(rig.enforce, "res1", &err), &err);
        rig_ok(rig.enforce->ops->kill(rig.enforce, "res1", &err), &err);
        revoke->us[revoke->count++] = when_empty("res1") - from;
        rig_end("res1");
    }
}

/* Sets the lease's end a little ahead; returns it. Where writing it down took longer
 * than that (a busy disk) a later one is tried: the end is what is measured. */
static int64_t set_end(const char *id)
{
    for (int64_t ahead = AHEAD_US;; ahead *= 2) {
        int64_t end = rig_now() + ahead;
        rig_extend(id, 0, end);
        if (rig_now() < end - AHEAD_US / 2)
            return end;
    }
}

static void end_to_empty(struct sample *s)
{
    while (s->count < ENDS) {
        start("res1");
        int64_t end = set_end("res1");
        s->us[s->count++] = when_empty("res1") - end;
        rig_end("res1");
    }
}

/* Opens without pause; times of the first open and of the first refusal. */
static int opener(const char *shared)
{
    int64_t *at = (int64_t *)(uintptr_t)strtoull(shared, NULL, 10);
    char *node = xasprintf("%s/gpu0", rig.nodes);
    at[0] = rig_now();
    while (rig_open_errno(node, O_RDWR) == ENXIO)
        ;
    at[1] = rig_now();
    return 0;
}

static void end_to_refused(struct sample *s)
{
    int64_t *at =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(at != MAP_FAILED);
    char *dir = rig_cgroup("res1", NULL);
    char *shared = xasprintf("%llu", (unsigned long long)(uintptr_t)at);
    for (int tries = 0; s->count < ENDS && tries < 2 * ENDS; tries++) {
        rig_lease("res1", 0, 60000);
        int64_t end = set_end("res1");
        ck_assert_int_eq(rig_in_cgroup(dir, 65534, opener, shared), 0);
        ck_assert_int_ge(at[1], end);
        if (at[0] < end) /* else it came too late to see it */
            s->us[s->count++] = at[1] - end;
        rig_end("res1");
    }
    free(shared);
    free(dir);
    munmap(at, 4096);
}

START_TEST(measure)
{
    static struct sample launch, revoke, refused, empty;
    char id[32];
    struct err err;
    (void)rig_journal();
    rig_ok(launch_set_keeper(KEEPER_PROGRAM, &err), &err);
    ck_assert_int_eq(kit_init(&kit), 0);
    grant = kit_grant(&kit);
    for (int i = 0; i < RUNNING; i++) {
        snprintf(id, sizeof(id), "running-%d", i);
        start(id);
    }
    launch_and_revoke(&launch, &revoke);
    end_to_refused(&refused);
    end_to_empty(&empty);
    for (int i = 0; i < RUNNING; i++) {
        snprintf(id, sizeof(id), "running-%d", i);
        ck_assert(rig_populated(id)); /* else there was less load than promised */
        rig_end(id);
    }
    printf("{\n");
    print("launch", &launch, ",");
    print("revoke_empty", &revoke, ",");
    print("end_refused", &refused, ",");
    print("end_empty", &empty, "");
    printf("}\n");
    fflush(stdout);
    free(grant);
    kit_done(&kit);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("lease_load");
    rig_add(s, "measure", measure);
    return s;
}

int main(int argc, char **argv)
{
    return rig_main(argc, argv, suite);
}
