/* leases_impl: what leases.c (life) and leases_act.c (acts on kernel, GPUs, receipts)
 * share. Not for other modules. */
#ifndef NEARGPU_AGENT_LEASES_IMPL_H
#define NEARGPU_AGENT_LEASES_IMPL_H
#include "client/agent/leases.h"
#include "client/agent/policy.h"
#include "client/agent/policy_file.h"
#include "client/agent/scrub.h"

#include "client/agent/launch.h"

struct live {
    struct journal_lease j;
    bool rebooted;          /* journalled in an earlier boot; not yet reopened */
    int64_t ending_boot_us; /* when its end was acted upon */
    int64_t cleaning_boot_us;
    int64_t next_poll_us;    /* boot time of the next look at jobs or emptiness */
    int64_t next_receipt_us; /* boot time */
    char obstacle[120];      /* the last reason it could not be reopened or cleaned */
    struct scrub *scrub;     /* runs, or ran, for its GPUs; NULL: not begun */
    struct live *next;
};

struct leases {
    struct agent *a;
    struct live *list;
    struct policy_file *policy; /* NULL: none configured */
};

/* Says where it is, for leases_set_step_hook(). */
void live_step(const char *name);
/* Applies one event: journal, then the act it asks for. */
void live_event(struct leases *l, struct live *v, enum lease_event ev);

/* What the kernel shows of it. What cannot be seen counts as there and in order: it is
 * neither taken for empty nor ended for a lost gate. */
struct enforce_status live_look(struct leases *l, const struct live *v);
int live_open_gate(struct leases *l, struct live *v, struct err *err) MUST_USE;
/* Takes a cgroup that others made into the open lease (adopt.h). */
int live_adopt(struct leases *l, struct live *v, const char *cgroup, uid_t uid,
               struct err *err) MUST_USE;
void live_deny_kill(struct leases *l, struct live *v);
void live_regate(struct leases *l, struct live *v);
void live_term_jobs(struct leases *l, struct live *v);
/* True when nothing of the lease is left; else v->obstacle says what is. */
bool live_clean(struct leases *l, struct live *v);
/* The first receipt, or an interval when the chain exists. */
void live_send_ready(struct leases *l, struct live *v);
void live_send_interval(struct leases *l, struct live *v);
void live_send_teardown(struct leases *l, struct live *v);
/* The GPUs of a lease as last sampled; returns how many of them are known. */
size_t live_gpus(const struct leases *l, const struct live *v,
                 const struct gpu_info **out);

/* The grant's GPUs among the lease's, when somebody else was given less than all: they
 * come first, their number is returned. */
size_t live_keep_granted(const struct token_lease *t, const struct gpu_info **gpus,
                         size_t count);

#endif
