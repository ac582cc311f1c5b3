/* journal: what the agent must not forget when it is killed at any instant.
 *
 * STATE/leases/RES/lease.json   one lease, replaced atomically, fsynced
 * STATE/leases/RES/deadline     its end: "BOOT_ID BOOT_US\n", read by keeper,
 * lease-init STATE/leases/RES/jobs/JOB/    see launch.h STATE/epochs/GPU highest epoch
 * seen and the lease it belonged to STATE/jti/HASH                tokens used to
 * launch, until they expire STATE/journal.lock            one agent per state directory
 *
 * Invariants: everything is on disk before the call returns; a half-written file is
 * never seen (temp file and rename) and leftovers are skipped and removed; an epoch
 * never goes down. Does not decide anything about leases (lease.h). */
#ifndef NEARGPU_JOURNAL_H
#define NEARGPU_JOURNAL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/agent/devprog.h"
#include "client/agent/lease.h"
#include "client/lib/bounds.h"
#include "client/lib/err.h"

#define JOURNAL_ID_MAX      64 /* reservation and job ids, GPU UUIDs, with NUL */
#define JOURNAL_BOOT_ID_MAX 40
#define JOURNAL_HOLDERS_MAX 16  /* keys of one tenant that open his leases by SSH */
#define JOURNAL_HOLDER_MAX  256 /* bytes of one: ssh-ed25519, base64, a name */

struct journal_lease {
    char id[JOURNAL_ID_MAX];
    char tenant[JOURNAL_ID_MAX];
    enum lease_state state;
    int64_t epoch;
    int64_t generation;
    int64_t not_before_us, not_after_us; /* realtime, from the server */
    int64_t deadline_boot_us;            /* not_after on this boot's clock */
    char boot_id[JOURNAL_BOOT_ID_MAX];   /* the boot both ends belong to */
    int64_t ended_boot_us;               /* its gate was closed; 0: it has not ended */
    int64_t drain_us;
    int64_t memory_max_bytes, pids_max;
    char on_lost[24]; /* "run_to_end" or a duration text */
    bool ordered;    /* spot, or shortened last: only the market's orders lengthen it */
    char reason[24]; /* why it ended; "" while it has not */
    char gpus[GPUS_PER_NODE_MAX][JOURNAL_ID_MAX]; /* UUIDs */
    size_t gpu_count;
    /* OpenSSH public keys, "TYPE BASE64 [name]", that may use it by SSH */
    char holders[JOURNAL_HOLDERS_MAX][JOURNAL_HOLDER_MAX];
    size_t holder_count;
    struct devprog_rule rules[DEVPROG_RULES_MAX]; /* the gate, to reopen it */
    size_t rule_count;
};

struct journal;

/* Creates the directories (0700), takes the lock (ERR_CONFLICT when another agent has
 * it), removes leftovers of half-done writes. */
int journal_open(const char *state_dir, struct journal **ret, struct err *err) MUST_USE;
/* For looking only, without the lock, beside a running agent; changes nothing. */
int journal_open_reader(const char *state_dir, struct journal **ret,
                        struct err *err) MUST_USE;
void journal_free(struct journal *j);

/* "STATE/leases/ID"; caller frees. The id must be valid (journal_id_is_valid). */
char *journal_lease_dir(const struct journal *j, const char *id);
/* [A-Za-z0-9._-], 1..63 bytes, first one a letter or digit: safe as a file name. */
bool journal_id_is_valid(const char *id);

/* Writes lease.json and deadline. */
int journal_lease_write(struct journal *j, const struct journal_lease *lease,
                        struct err *err) MUST_USE;
/* ERR_NOT_FOUND when there is none; ERR_BAD_REQUEST when it cannot be understood. */
int journal_lease_read(struct journal *j, const char *id, struct journal_lease *ret,
                       struct err *err) MUST_USE;
/* Ids with a directory, readable or not. Caller frees each and the array. */
int journal_lease_list(struct journal *j, char ***ret_ids, size_t *ret_count,
                       struct err *err) MUST_USE;
/* Removes the lease's directory, jobs and output included. */
int journal_lease_remove(struct journal *j, const char *id, struct err *err) MUST_USE;

/* Fencing: raises the GPU's epoch. Lower: ERR_CONFLICT; equal but of another lease:
 * ERR_CONFLICT; equal and of the same lease: 0. */
int journal_epoch_claim(struct journal *j, const char *gpu, int64_t epoch,
                        const char *lease, struct err *err) MUST_USE;
/* 0 when none was seen. */
int journal_epoch_get(struct journal *j, const char *gpu, int64_t *ret,
                      struct err *err) MUST_USE;

struct journal_use { /* one launch by one token */
    const char *jti;
    const char *lease;
    const char *argv_hash;
    const char *job; /* the id this launch will have */
    int64_t exp_us;
};

/* First use: recorded, ret_job = "". The same jti with the same lease and argv_hash:
 * ret_job is the earlier job id and nothing may be started. With others: ERR_TOKEN. */
int journal_jti_claim(struct journal *j, const struct journal_use *use,
                      char ret_job[JOURNAL_ID_MAX], struct err *err) MUST_USE;
/* Forgets those expired before now. */
int journal_jti_expire(struct journal *j, int64_t now_us, struct err *err) MUST_USE;

/* Reads /proc/sys/kernel/random/boot_id. */
int journal_boot_id(char ret[JOURNAL_BOOT_ID_MAX], struct err *err) MUST_USE;
#endif
