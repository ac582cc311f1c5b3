/* agent: the privileged process of a running agent, the warden, as one struct: what its
 * parts share. Each part keeps its own state behind its own header; what is here is
 * read by several. It has no network: that is the front's (warden.h).
 *
 * One thread, one event base. `agent_turn` compares desired with actual and acts; it is
 * run after every sync, after every sample, and whenever a part calls agent_wake(). */
#ifndef NEARGPU_AGENT_AGENT_H
#define NEARGPU_AGENT_AGENT_H
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/agent/advert.h"
#include "client/agent/desired.h"
#include "client/agent/enforce.h"
#include "client/agent/gpu.h"
#include "client/agent/identity.h"
#include "client/agent/journal.h"
#include "client/agent/reconcile.h"
#include "client/agent/settings.h"
#include "client/agent/signedtime.h"
#include "client/agent/spool.h"
#include "client/lib/token.h"

struct leases;
struct warden;
struct sshsrv;
struct witness;

struct agent {
    struct event_base *base;
    struct settings conf;
    struct identity id;
    char boot_id[JOURNAL_BOOT_ID_MAX];

    const struct gpu_ops *gpu_ops;
    void *gpu;
    struct advert advert;

    struct signedtime time;
    struct token_status status; /* the newest that was verified */
    bool have_status;
    int64_t floor_us; /* signed time known to have been reached, of any boot; 0: none */
    struct desired want; /* the newest reply to a sync */
    bool have_want;
    int64_t receipt_interval_us;

    struct journal *journal;
    struct enforce *enforce;
    struct spool *spool;
    struct leases *leases;
    struct warden *warden;   /* NULL: nobody is told anything (tests) */
    struct sshsrv *sshsrv;   /* NULL: no SSH here */
    struct witness *witness; /* NULL: it is none */

    struct event *turn_timer, *sample_timer;
    bool wake_again; /* agent_wake() was called during a turn */
    bool in_turn;
    int sample_failures; /* in a row */
    uint64_t told[64];   /* hashes of the obstacles already logged */
    size_t told_count;
    struct event *sig_term, *sig_int;
};

/* Everything from the conf and the state directory; nothing runs before agent_run. */
int agent_new(const char *conf_path, struct agent **ret, struct err *err) MUST_USE;
void agent_free(struct agent *a);
/* Until SIGTERM or SIGINT. Leases and jobs go on after it. */
void agent_run(struct agent *a);

/* What STATE/time keeps: the estimate, if of this boot, and the floor. */
void agent_load_time(struct agent *a);
/* Signed time; false when it is not known since boot. */
bool agent_now(const struct agent *a, int64_t *ret_us);
/* Runs agent_turn soon. */
void agent_wake(struct agent *a);
/* What the market should know has changed: a sync is made soon, and a turn. */
void agent_changed(struct agent *a);
/* Takes a sync's desired state (and its status, keys, settings) over. */
void agent_take_desired(struct agent *a, struct desired *want_take, int64_t boot_us);
/* The market deals with this node no more: what its status document revokes ends, what
 * was to begin here does not. */
void agent_take_ban(struct agent *a, const char *status, int64_t boot_us);
/* A key set of the market: taken over when it is the root's and not older. */
void agent_take_keys(struct agent *a, const char *text);
/* The two states as reconcile reads them; valid until the leases change. */
struct reconcile_have;
void agent_compare(const struct agent *a, struct reconcile_have *have, size_t cap,
                   struct reconcile_in *ret);

#endif
