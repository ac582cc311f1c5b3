/* leases: the leases of this node, live. Performs what lease's table says: journals,
 * opens and closes gates, starts jobs, watches ends, cleans, writes receipts.
 *
 * Every change is journalled before it is acted upon; every act is idempotent, so that
 * after a crash the journal and the kernel are enough to go on (leases_recover). The
 * agent's own death ends nothing: gate, keeper and lease-init hold the end alone. */
#ifndef NEARGPU_AGENT_LEASES_H
#define NEARGPU_AGENT_LEASES_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/agent/agent.h"
#include "client/agent/launch.h"
#include "client/agent/reconcile.h"

#define LEASES_MAX         1024 /* remembered at one time, ended ones included */
#define LEASES_CLEAN_US    INT64_C(10000000)   /* a driver's slow teardown */
#define LEASES_REMEMBER_US INT64_C(3600000000) /* ended: output and replay memory */

struct leases;

struct leases *leases_new(struct agent *a);
void leases_free(struct leases *l);
/* After a start: journal against kernel (lease_recover for each). */
int leases_recover(struct leases *l, struct err *err) MUST_USE;

/* Policy, epochs, journal, gate, `ready` receipt. The caller has checked obstacles. On
 * failure *ret_step names the step: lease, policy, epoch, journal, gate. */
int leases_open(struct leases *l, const struct order *o, const char **ret_step,
                struct err *err) MUST_USE;
/* A later end. An order without a generation (of a token, which may be older than the
 * market's last word) does not lengthen a spot lease, nor one the market has shortened.
 */
int leases_extend(struct leases *l, const struct order *o, struct err *err) MUST_USE;
/* An earlier end (a preempted or shrunk reservation): never before now + the lease's
 * drain, so that its jobs are told, and never a later one. */
int leases_shorten(struct leases *l, const struct order *o, struct err *err) MUST_USE;
/* The keys that open it by SSH, as the market last told them; unknown lease: no-op. */
void leases_set_holders(struct leases *l, const struct order *o);
/* Ends now; `reason` is journalled (revoked, stopped, …). Unknown or ending: no-op. */
void leases_end(struct leases *l, const char *id, const char *reason);

struct leases_launch {
    const struct token_claims *claims;
    const char *argv_hash;
    char **argv, **envp; /* NULL-terminated, borrowed */
    const char *cwd;     /* NULL: the work directory */
    bool want_stdin;
    bool pty; /* a terminal of this many rows and columns (0: 24, 80) */
    uint16_t rows, cols;
    const char *term;                /* NULL: none */
    const char *image;               /* NULL: the host's tree */
    const struct launch_file *files; /* for the work directory, borrowed */
    size_t file_count;
};
struct leases_launched {
    char job[JOURNAL_ID_MAX];
    bool again;       /* this token started it before: nothing was started now */
    const char *step; /* on failure: lease, policy, gate, replay, gpu, launch */
    struct launch_ready ready; /* unless again: what the keeper will say */
};
/* Begins to start a job, or finds the one this token started before. The lease must be
 * open. When the keeper has said yes, leases_job_started(). */
int leases_launch(struct leases *l, const struct leases_launch *in,
                  struct leases_launched *ret, struct err *err) MUST_USE;

/* Holds a cgroup that others made to the open lease (adopt.h says what is promised),
 * and counts it as a job of it. What is adopted is kept by the kernel, so a restarted
 * agent, also one without its journal, finds it. uid: who asks. Again is fine. On
 * failure *ret_step names the step: lease, policy, gate, adopt. */
int leases_adopt(struct leases *l, const char *id, const char *cgroup, uid_t uid,
                 const char **ret_step, struct err *err) MUST_USE;

void leases_job_started(struct leases *l, const char *id);

/* Due work: ends, drains, observed emptiness, cleaning, receipts. Returns the boot time
 * of the next. */
int64_t leases_tick(struct leases *l, int64_t boot_us);
/* Signed time became known or better: deadlines are computed anew, never later. */
void leases_retime(struct leases *l);

const struct journal_lease *leases_find(const struct leases *l, const char *id);
char *leases_dir(const struct leases *l, const char *id); /* caller frees */
size_t leases_have(const struct leases *l, struct reconcile_have *out, size_t cap);
/* For a sync; new reference. */
json_t *leases_json(const struct leases *l);
/* An advert_hold_fn; arg is the struct leases. */
enum advert_hold leases_hold(void *arg, const char *uuid);

/* Fault injection: called by name between the lines of all that is done for a lease.
 * NULL: none. */
void leases_set_step_hook(void (*hook)(const char *step));

#endif
