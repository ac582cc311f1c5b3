/* enforce_rig: what the tests of enforcement stand on: a cgroup base and a state
 * directory of this test program alone, device nodes of an unused major (let through =
 * ENXIO, refused = EPERM), leases and jobs, and a way to look from inside a job.
 *
 * rig_main() also is the keeper (the programs run themselves) and the probe that jobs
 * execute. Everything made is removed when the suite ends, however it ends. */
#ifndef NEARGPU_ENFORCE_RIG_H
#define NEARGPU_ENFORCE_RIG_H
#include <check.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/agent/cgroup.h"
#include "client/agent/enforce.h"
#include "client/agent/journal.h"
#include "client/agent/launch.h"
#include "client/lib/err.h"

#define RIG_MAJOR   242 /* reserved for local use: no driver answers */
#define RIG_FREEZER "/sys/fs/cgroup/freezer"  /* v1: makes unkillable processes */
#define RIG_PROBE   "/run/neargpu/work/probe" /* the probe as a job sees it */

struct rig {
    char dir[64];   /* temporary directory */
    char state[96]; /* dir/state: the agent's */
    char nodes[96]; /* dir/nodes: gpu0 … gpu7, major RIG_MAJOR */
    char base[32];  /* cgroup base */
    char boot_id[JOURNAL_BOOT_ID_MAX];
    struct cgroup_mounts mounts;
    struct enforce *enforce;
    struct journal *journal; /* opened by rig_journal */
};
extern struct rig rig;

/* Exit 77 unless root with cgroup2. Runs the suite; the programs' main. */
int rig_main(int argc, char **argv, Suite *(*suite)(void));

/* Adds one test as a tcase of its own, so that what it leaves is swept in the parent.
 */
void rig_add(Suite *suite, const char *name, const TTest *test);

/* Fails the test with the error's text. */
#define rig_ok(call, err) ck_assert_msg((call) == 0, "%s: %s", #call, (err)->text)

int64_t rig_now(void); /* boot clock, us */
void rig_pause_ms(int ms);
struct journal *rig_journal(void);

/* A lease open until now + life_ms, with GPU `minor` (-1: none): journalled, gated,
 * with the probe in its work directory. pids_max 64, no memory limit. */
void rig_lease(const char *id, int minor, int life_ms);
/* Changes the end of an open lease: journal, then gate. */
void rig_extend(const char *id, int minor, int64_t deadline_boot_us);
char *rig_lease_dir(const char *id);
char *rig_cgroup(const char *id, const char *job);
/* deny, kill, wait until empty, keepers gone, closed, journal entry removed. */
void rig_end(const char *id);
bool rig_populated(const char *id);
/* Waits at most ms until the lease has no process; the time it took in us, or -1. */
int64_t rig_wait_empty(const char *id, int ms);

/* A job of `argv` (NULL-terminated) in the lease with GPU `minor` as /dev/nvidia0. */
int rig_start(const char *lease, const char *job, int minor, const char *const *argv,
              struct err *err);
int rig_start_spec(const struct launch_spec *spec, struct err *err);
/* The spec rig_start uses; launch_spec_done after. */
struct launch_spec rig_spec(const char *lease, const char *job, int minor,
                            const char *const *argv);

/* Attaches at offset and reads to the end: output of both streams together, and `x`
 * (NULL when the stream ended without). Caller frees. At most ms. */
char *rig_output(const char *lease, const char *job, int64_t offset, int ms,
                 char **ret_x);
/* Runs argv as a job and returns its output without the trailing newline. */
char *rig_run(const char *lease, const char *job, int minor, const char *const *argv);

/* Forks a child into the lease's cgroup directly (no namespaces) as uid, runs fn there
 * and returns its exit status (fn's result, 0..125). */
int rig_in_cgroup(const char *dir, uid_t uid, int (*fn)(const char *arg),
                  const char *arg);
/* The kernel's landlock ABI, 0 without. */
int rig_landlock(void);
/* errno of open(path, flags), 0 when it worked. */
int rig_open_errno(const char *path, int flags);

#endif
