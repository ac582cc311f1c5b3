/* enforce_lines: the warden killed by SIGKILL between the lines of leases.c and
 * leases_act.c (leases_set_step_hook), at every step of a lease's life: opened,
 * launched into, extended, shortened, drained, ended by its time or by revocation,
 * cleaned, forgotten. Whatever instant it is:
 * - nothing runs or opens beyond the end that was told last,
 * - a lease that was journalled is found again, and none that was never,
 * - the next agent brings it to its end, and the GPU is lent again only then,
 * - its receipts are one chain: numbers, hashes and times follow each other. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/agent/deadline.h"
#include "client/lib/b64.h"
#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/jws.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "tests/system/enforce_agent.h"

#define POINTS_MAX 200
#define LIFE_S     300

static const char *const gpu[] = {"GPU-a", NULL};

enum life { REVOKED, TIMED, LIVES };

static struct progress { /* what the one that is killed had done; shared */
    char step[32];       /* where */
    bool journalled, forgotten;
} * progress;

static int points, die_at;

static void id_of(enum life life, int n, char out[UUID_TEXT])
{
    snprintf(out, UUID_TEXT, "019307d0-7b3a-7c3e-8a5%x-%012x", (unsigned)life,
             (unsigned)n);
}

static void on_step(const char *step)
{
    if (strcmp(step, "open_journal") == 0)
        progress->journalled = true;
    if (strcmp(step, "forget_remove") == 0)
        progress->forgotten = true;
    if (points++ != die_at)
        return;
    snprintf(progress->step, sizeof(progress->step), "%s", step);
    (void)kill(getpid(), SIGKILL);
}

static void open_lease(const char *id)
{
    struct order o = ea_order(id, gpu, LIFE_S);
    struct err err;
    const char *step;
    o.drain_us = 10 * US_PER_S;
    ck_assert_msg(leases_open(ea.leases, &o, &step, &err) == 0, "%s: %s", step,
                  err.text);
}

static void move_end(const char *id, int64_t generation, int seconds)
{
    struct order o = ea_order(id, gpu, seconds);
    struct err err;
    o.generation = generation;
    o.drain_us = 10 * US_PER_S;
    rig_ok(seconds > LIFE_S ? leases_extend(ea.leases, &o, &err)
                            : leases_shorten(ea.leases, &o, &err),
           &err);
}

/* The whole of it; does not come back when it is killed. 42: it was over before. */
static void live_and_die(enum life life, int n)
{
    static const char *const sleeper[] = {"/bin/sh", "-c",
                                          "trap '' TERM; exec sleep 100", NULL};
    char id[UUID_TEXT], job[24];
    id_of(life, n, id);
    snprintf(job, sizeof(job), "j%d-%d", (int)life, n);
    points = 0;
    die_at = n;
    ea_start();
    leases_set_step_hook(on_step);
    open_lease(id);
    ea_launch(id, job, sleeper, NULL);
    move_end(id, 2, LIFE_S + 60);
    move_end(id, 3, LIFE_S - 60);
    if (life == TIMED) {
        ea_tick_ahead((LIFE_S - 65) * US_PER_S); /* drained */
        ck_assert_int_eq(ea_state(id), LEASE_DRAINING);
        ea_tick_ahead(-(LIFE_S - 65) * US_PER_S);
        leases_end(ea.leases, id, "lease_end");
    } else {
        leases_end(ea.leases, id, "revoked");
    }
    if (!ea_until(id, LEASE_DONE, 5000))
        _exit(1);
    ea_tick_ahead(10 * LEASES_REMEMBER_US);
    signedtime_add(&ea.time, clock_now_us() + 10 * LEASES_REMEMBER_US, clock_boot_us());
    leases_tick(ea.leases, clock_boot_us());
    _exit(42);
}

/* --- what is left --- */

static json_t *payload_of(const char *text)
{
    const char *from = strchr(text, '.') + 1;
    size_t len = strcspn(from, "."), cap = B64_DEC_MAX(len);
    uint8_t *raw = xmalloc(cap + 1);
    ptrdiff_t n = b64_decode(from, len, raw, cap);
    ck_assert_int_gt(n, 0);
    json_t *p = json_loadb((char *)raw, (size_t)n, 0, NULL);
    ck_assert_ptr_nonnull(p);
    free(raw);
    return p;
}

static const char *text_in(const json_t *p, const char *name)
{
    return json_string_value(json_object_get(p, name));
}

/* One receipt after another; returns how many there are. A time that is between two of
 * them is told as a gap. */
static int check_chain(const char *id, const char *where)
{
    char prev[JWS_KID_MAX] = "", until[64] = "";
    json_int_t used = 0;
    int n = 0;
    for (;; n++) {
        char *path = xasprintf("%s/spool/%s/%d", rig.state, id, n + 1), *text = NULL;
        struct err err;
        uint8_t hash[SHA256_LEN];
        int rc = fsx_read(path, RECEIPT_BYTES_MAX, &text, NULL, &err);
        free(path);
        if (rc != 0)
            return n;
        json_t *p = payload_of(text);
        ck_assert_msg(strcmp(text_in(p, "prev"), prev) == 0, "%s: receipt %d: prev",
                      where, n + 1);
        ck_assert_int_eq(json_integer_value(json_object_get(p, "seq")), n + 1);
        ck_assert_msg((n == 0) == (strcmp(text_in(p, "kind"), "ready") == 0),
                      "%s: receipt %d is %s", where, n + 1, text_in(p, "kind"));
        ck_assert_msg(n == 0 || strcmp(text_in(p, "from"), until) == 0 ||
                          json_array_size(json_object_get(p, "gaps")) > 0,
                      "%s: receipt %d begins at %s, the last ended at %s", where, n + 1,
                      text_in(p, "from"), until);
        ck_assert(json_integer_value(json_object_get(p, "gpu_ms")) >= used);
        used = json_integer_value(json_object_get(p, "gpu_ms"));
        snprintf(until, sizeof(until), "%s", text_in(p, "to"));
        digest_sha256(text, strlen(text), hash);
        b64_encode(hash, sizeof(hash), prev);
        json_decref(p);
        free(text);
    }
}

/* No half-written file, no lease without its document. */
static void check_journal(const char *where)
{
    char *path = xasprintf("%s/leases", rig.state);
    DIR *d = opendir(path);
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        struct journal_lease *j = xcalloc(1, sizeof(*j));
        struct err err;
        if (e->d_name[0] != '.')
            ck_assert_msg(journal_lease_read(ea.journal, e->d_name, j, &err) == 0,
                          "%s: lease %s: %s", where, e->d_name, err.text);
        free(j);
    }
    closedir(d);
    free(path);
}

static bool is_granted(void)
{
    struct reconcile_have have[POINTS_MAX * LIVES];
    struct reconcile_in in;
    struct order o = ea_order(EA_ID("cc"), gpu, 60);
    char why[160];
    ea_look();
    agent_compare(&ea, have, POINTS_MAX * LIVES, &in);
    reconcile_obstacle(&in, &o, why, sizeof(why));
    return why[0] == '\0';
}

/* No agent is there: the kernel's own end is never later than what was promised. */
static void check_between(const char *id, const char *where)
{
    char *dir = rig_lease_dir(id);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int64_t end = 0;
    struct err err;
    free(dir);
    if (fd < 0)
        return;
    if (faccessat(fd, "deadline", F_OK, 0) == 0) {
        rig_ok(deadline_read(fd, rig.boot_id, &end, &err), &err);
        ck_assert_msg(end <= rig_now() + (LIFE_S + 61) * US_PER_S, "%s: ends too late",
                      where);
    }
    close(fd);
}

/* The next agent, with what is there. */
static void check_after(enum life life, int n, const char *node)
{
    char id[UUID_TEXT], where[64];
    id_of(life, n, id);
    snprintf(where, sizeof(where), "life %d, step %d (%s)", (int)life, n,
             progress->step);
    check_between(id, where);
    ea_start();
    const struct journal_lease *j = leases_find(ea.leases, id);
    if (progress->journalled && !progress->forgotten)
        ck_assert_msg(j != NULL, "%s: the lease is lost", where);
    if (!progress->journalled)
        ck_assert_msg(j == NULL, "%s: a lease from nowhere", where);
    if (j != NULL && j->state != LEASE_DONE) {
        ck_assert_msg(!is_granted(), "%s: %s and granted", where,
                      lease_state_name(j->state));
        leases_end(ea.leases, id, "stopped");
        if (ea_state(id) == LEASE_DENIED)
            ck_assert_int_eq(ea_open_errno(id, node), EPERM);
    }
    ck_assert_msg(j == NULL || ea_until(id, LEASE_DONE, 5000), "%s: stays", where);
    ck_assert_msg(!rig_populated(id), "%s: something runs", where);
    char *dir = rig_cgroup(id, NULL);
    ck_assert_msg(access(dir, F_OK) != 0, "%s: its cgroup is left", where);
    free(dir);
    const struct usage_chain *c = spool_chain(ea.spool, id);
    int receipts = check_chain(id, where);
    ck_assert_msg(c == NULL ? receipts == 0
                            : c->last == USAGE_TEARDOWN && c->seq == receipts,
                  "%s: %d receipts", where, receipts);
    check_journal(where);
    ck_assert_msg(is_granted(), "%s: never lent again", where);
    ea_die();
}

static int kill_everywhere(enum life life)
{
    const char *node = ea_node("nvidia3", RIG_MAJOR, 3);
    bool whole = false;
    int n = 0;
    for (; n < POINTS_MAX && !whole; n++) {
        int status;
        memset(progress, 0, sizeof(*progress));
        journal_free(rig.journal);
        rig.journal = NULL;
        pid_t pid = fork();
        if (pid == 0)
            live_and_die(life, n);
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        whole = WIFEXITED(status) && WEXITSTATUS(status) == 42;
        ck_assert_msg(whole || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL),
                      "life %d, step %d: %d", (int)life, n, status);
        check_after(life, n, node);
    }
    ck_assert(progress->forgotten);
    ck_assert_msg(whole, "life %d: more than %d steps", (int)life, POINTS_MAX);
    return n - 1;
}

static void setup(void)
{
    progress = mmap(NULL, sizeof(*progress), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ck_assert(progress != MAP_FAILED);
    ea_nvml(
        "gpu uuid=GPU-a name=H100 minor=3 pci=00000000:3B:00.0 total=81559 used=4\n");
}

START_TEST(test_killed_between_the_lines_revoked)
{
    setup();
    int n = kill_everywhere(REVOKED);
    printf("killed at %d steps\n", n);
    ck_assert_int_gt(n, 35);
}
END_TEST

START_TEST(test_killed_between_the_lines_timed)
{
    setup();
    int n = kill_everywhere(TIMED);
    printf("killed at %d steps\n", n);
    ck_assert_int_gt(n, 35);
}
END_TEST

static Suite *suite(void)
{
    Suite *s = suite_create("enforce_lines");
    rig_add(s, "revoked", test_killed_between_the_lines_revoked);
    rig_add(s, "timed", test_killed_between_the_lines_timed);
    return s;
}

int main(int argc, char **argv)
{
    return rig_main(argc, argv, suite);
}
