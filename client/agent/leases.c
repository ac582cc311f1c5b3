/* leases: see leases.h. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/agent/devnodes.h"
#include "client/agent/leases_impl.h"
#include "client/lib/clock.h"
#include "client/lib/log.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define POLL_JOBS_US  INT64_C(1000000) /* is anything running? */
#define POLL_EMPTY_US INT64_C(20000)   /* killed: gone yet? */
#define POLL_CLEAN_US INT64_C(200000)
#define RETRY_OPEN_US INT64_C(30000000) /* a failed opening may be tried again then */

struct leases *leases_new(struct agent *a)
{
    struct leases *l = xcalloc(1, sizeof(*l));
    l->a = a;
    if (a->conf.policy_file != NULL && a->conf.policy_file[0] != '\0')
        l->policy = policy_file_new(a->conf.policy_file);
    return l;
}

void leases_free(struct leases *l)
{
    if (l == NULL)
        return;
    while (l->list != NULL) {
        struct live *v = l->list;
        l->list = v->next;
        scrub_free(v->scrub);
        free(v);
    }
    policy_file_free(l->policy);
    free(l);
}

static void (*step_hook)(const char *step);

void leases_set_step_hook(void (*hook)(const char *step))
{
    step_hook = hook;
}

void live_step(const char *name)
{
    if (step_hook != NULL)
        step_hook(name);
}

static struct live *find(const struct leases *l, const char *id)
{
    for (struct live *v = l->list; v != NULL; v = v->next)
        if (strcmp(v->j.id, id) == 0)
            return v;
    return NULL;
}

const struct journal_lease *leases_find(const struct leases *l, const char *id)
{
    const struct live *v = find(l, id);
    return v != NULL ? &v->j : NULL;
}

char *leases_dir(const struct leases *l, const char *id)
{
    return journal_lease_dir(l->a->journal, id);
}

static bool is_open(enum lease_state s)
{
    return s == LEASE_READY || s == LEASE_RUNNING || s == LEASE_DRAINING;
}

static void act(struct leases *l, struct live *v, enum lease_action action)
{
    switch (action) {
    case LEASE_ACT_NONE: break;
    case LEASE_ACT_SEND_READY: live_send_ready(l, v); break;
    case LEASE_ACT_TERM_JOBS: live_term_jobs(l, v); break;
    case LEASE_ACT_REGATE: live_regate(l, v); break;
    case LEASE_ACT_DENY_KILL: live_deny_kill(l, v); break;
    case LEASE_ACT_CLEAN:
        scrub_free(v->scrub); /* each cleaning scrubs anew */
        v->scrub = NULL;
        v->cleaning_boot_us = clock_boot_us();
        v->next_poll_us = 0;
        break;
    case LEASE_ACT_SEND_TEARDOWN: live_send_teardown(l, v); break;
    case LEASE_ACT_ALARM:
        log_error("lease %s is QUARANTINED (%s): its GPUs are out of the market until "
                  "`neargpu-agent release %s`",
                  v->j.id,
                  v->obstacle[0] != '\0' ? v->obstacle : "processes cannot die",
                  v->j.id);
        break;
    }
}

void live_event(struct leases *l, struct live *v, enum lease_event ev)
{
    enum lease_state from = v->j.state, to;
    enum lease_action action;
    struct err err;
    if (lease_apply(from, ev, &to, &action, &err) != 0) {
        log_warn("lease %s: %s", v->j.id, err.text);
        return;
    }
    v->j.state = to;
    /* Metered up to here, however long killing, cleaning and a restart take. */
    if (to == LEASE_DENIED && v->j.ended_boot_us == 0)
        v->j.ended_boot_us = clock_boot_us();
    live_step("event");
    /* A journal that cannot be written must not keep a lease from ending. */
    if ((from != to || action != LEASE_ACT_NONE) &&
        journal_lease_write(l->a->journal, &v->j, &err) != 0)
        log_error("lease %s: journal: %s", v->j.id, err.text);
    live_step("event_journal");
    act(l, v, action);
    live_step("event_act");
    if (from != to) {
        log_info("lease %s: %s -> %s (%s)", v->j.id, lease_state_name(from),
                 lease_state_name(to), lease_event_name(ev));
        agent_changed(l->a);
    }
}

/* --- opening --- */

static size_t held_by(const struct leases *l, const char *tenant, const char *but)
{
    size_t n = 0;
    for (const struct live *v = l->list; v != NULL; v = v->next)
        if (v->j.state != LEASE_DONE && strcmp(v->j.tenant, tenant) == 0 &&
            strcmp(v->j.id, but) != 0)
            n += v->j.gpu_count;
    return n;
}

static int check_policy(const struct leases *l, const struct order *o, struct err *err)
{
    const struct settings *c = &l->a->conf;
    const struct policy conf = {.max_gpus_per_tenant = c->max_gpus_per_tenant,
                                .max_duration_us = c->max_duration_us,
                                .tenants = c->allowed_tenants};
    const struct policy *file;
    size_t held = held_by(l, o->tenant, o->id);
    if (policy_check(&conf, o, held, err) != 0)
        return -1;
    if (l->policy == NULL)
        return 0;
    return policy_file_get(l->policy, &file, err) != 0
               ? -1
               : policy_check(file, o, held, err);
}

/* For a job of a lease that is open already: the rules may have changed since. */
static int check_policy_of(const struct leases *l, const struct live *v,
                           struct err *err)
{
    struct order o = {.gpu_count = v->j.gpu_count,
                      .not_before_us = v->j.not_before_us,
                      .not_after_us = v->j.not_after_us};
    snprintf(o.id, sizeof(o.id), "%.*s", UUID_TEXT - 1, v->j.id);
    snprintf(o.tenant, sizeof(o.tenant), "%.*s", UUID_TEXT - 1, v->j.tenant);
    return check_policy(l, &o, err);
}

static void on_lost_text(int64_t us, char *out, size_t cap)
{
    char text[TIMEFMT_MAX];
    if (us < 0) {
        snprintf(out, cap, "run_to_end");
        return;
    }
    timefmt_duration(us, text);
    snprintf(out, cap, "%.23s", text);
}

static int64_t on_lost_us(const struct journal_lease *j)
{
    int64_t us;
    if (timefmt_parse_duration(j->on_lost, &us, NULL) != 0)
        return -1;
    return us;
}

static void fill(struct leases *l, const struct order *o, struct journal_lease *j)
{
    memset(j, 0, sizeof(*j));
    snprintf(j->id, sizeof(j->id), "%s", o->id);
    snprintf(j->tenant, sizeof(j->tenant), "%s", o->tenant);
    j->state = LEASE_OPENING;
    j->epoch = o->epoch;
    j->generation = o->generation;
    j->ordered = o->spot;
    j->not_before_us = o->not_before_us;
    j->not_after_us = o->not_after_us;
    j->deadline_boot_us = signedtime_boot(&l->a->time, o->not_after_us);
    snprintf(j->boot_id, sizeof(j->boot_id), "%s", l->a->boot_id);
    j->drain_us = o->drain_us;
    int64_t gpus = (int64_t)o->gpu_count;
    j->memory_max_bytes = o->memory_max_bytes > 0
                              ? o->memory_max_bytes
                              : l->a->conf.job_memory_mib * gpus * (1024 * 1024);
    j->pids_max = o->pids_max > 0 ? o->pids_max : l->a->conf.job_pids * gpus;
    on_lost_text(o->on_lost_us, j->on_lost, sizeof(j->on_lost));
    for (size_t i = 0; i < o->gpu_count; i++)
        snprintf(j->gpus[i], sizeof(j->gpus[i]), "%s", o->gpus[i]);
    j->gpu_count = o->gpu_count;
    memcpy(j->holders, o->holders, sizeof(j->holders));
    j->holder_count = o->holder_count;
}

/* The market has withdrawn a lease of this GPU and may have granted it anew: nothing of
 * that lease's epoch or before opens here, whoever shows it. */
static int check_min_epochs(const struct agent *a, const struct order *o,
                            struct err *err)
{
    for (size_t i = 0; a->have_status && i < o->gpu_count; i++) {
        int64_t min = token_status_min_epoch(&a->status, o->gpus[i]);
        if (o->epoch <= min)
            return err_set(err, ERR_TOKEN,
                           "GPU %s is granted above epoch %lld only, this is %lld",
                           o->gpus[i], (long long)min, (long long)o->epoch);
    }
    return 0;
}

static int claim_epochs(struct leases *l, const struct order *o, struct err *err)
{
    for (size_t i = 0; i < o->gpu_count; i++)
        if (journal_epoch_claim(l->a->journal, o->gpus[i], o->epoch, o->id, err) != 0)
            return -1;
    return 0;
}

static size_t count_live(const struct leases *l)
{
    size_t n = 0;
    for (const struct live *v = l->list; v != NULL; v = v->next)
        n++;
    return n;
}

static struct live *add(struct leases *l)
{
    struct live *v = xcalloc(1, sizeof(*v));
    v->next = l->list;
    l->list = v;
    return v;
}

static void drop(struct leases *l, struct live *gone)
{
    for (struct live **p = &l->list; *p != NULL; p = &(*p)->next) {
        if (*p == gone) {
            *p = gone->next;
            scrub_free(gone->scrub);
            free(gone);
            return;
        }
    }
}

static int open_new(struct leases *l, const struct order *o, const char **ret_step,
                    struct err *err)
{
    struct live *v = add(l);
    live_step("open_epochs");
    fill(l, o, &v->j);
    *ret_step = "journal";
    if (journal_lease_write(l->a->journal, &v->j, err) != 0) {
        drop(l, v);
        return -1;
    }
    live_step("open_journal");
    *ret_step = "gate";
    if (live_open_gate(l, v, err) != 0) {
        log_error("lease %s cannot be opened: %s", v->j.id, err->text);
        snprintf(v->j.reason, sizeof(v->j.reason), "open_failed");
        live_event(l, v, LEASE_EV_OPEN_FAILED);
        return -1;
    }
    live_event(l, v, LEASE_EV_OPENED);
    return 0;
}

int leases_open(struct leases *l, const struct order *o, const char **ret_step,
                struct err *err)
{
    const struct live *there = find(l, o->id);
    int64_t now;
    *ret_step = "lease";
    if (there != NULL)
        return is_open(there->j.state) ? 0
                                       : err_set(err, ERR_CONFLICT, "the lease is %s",
                                                 lease_state_name(there->j.state));
    if (!journal_id_is_valid(o->id) || o->gpu_count == 0)
        return err_set(err, ERR_BAD_REQUEST, "not a lease");
    if (!agent_now(l->a, &now) || now >= o->not_after_us || now < o->not_before_us)
        return err_set(err, ERR_CONFLICT, "it is not the lease's time");
    if (count_live(l) >= LEASES_MAX)
        return err_set(err, ERR_UNAVAILABLE, "%d leases are remembered already",
                       LEASES_MAX);
    *ret_step = "policy";
    if (check_policy(l, o, err) != 0)
        return -1;
    *ret_step = "epoch";
    if (check_min_epochs(l->a, o, err) != 0 || claim_epochs(l, o, err) != 0)
        return -1;
    return open_new(l, o, ret_step, err);
}

/* Only the end of a lease that goes on, and whose deadline can be computed, moves. */
static int check_moves(struct leases *l, const struct live *v, struct err *err)
{
    if (v == NULL)
        return err_set(err, ERR_NOT_FOUND, "no such lease here");
    if (!is_open(v->j.state) && v->j.state != LEASE_OPENING)
        return err_set(err, ERR_CONFLICT, "the lease is %s",
                       lease_state_name(v->j.state));
    if (!signedtime_is_known(&l->a->time) || v->rebooted)
        return err_set(err, ERR_UNAVAILABLE, "no signed time yet");
    return 0;
}

static void move_end(struct leases *l, struct live *v, int64_t not_after_us,
                     const struct order *o)
{
    bool earlier = not_after_us < v->j.not_after_us;
    v->j.ordered = earlier || o->spot;
    v->j.not_after_us = not_after_us;
    if (o->generation > v->j.generation)
        v->j.generation = o->generation;
    v->j.deadline_boot_us = signedtime_boot(&l->a->time, not_after_us);
    live_event(l, v, earlier ? LEASE_EV_SHORTENED : LEASE_EV_EXTENDED);
}

int leases_extend(struct leases *l, const struct order *o, struct err *err)
{
    struct live *v = find(l, o->id);
    if (v != NULL && o->not_after_us <= v->j.not_after_us)
        return 0;
    if (check_moves(l, v, err) != 0)
        return -1;
    if (v->j.ordered && o->generation <= v->j.generation)
        return 0;
    if (check_policy(l, o, err) != 0)
        return -1;
    move_end(l, v, o->not_after_us, o);
    return 0;
}

int leases_shorten(struct leases *l, const struct order *o, struct err *err)
{
    struct live *v = find(l, o->id);
    int64_t now;
    if (check_moves(l, v, err) != 0)
        return -1;
    if (!agent_now(l->a, &now))
        return err_set(err, ERR_UNAVAILABLE, "no signed time yet");
    int64_t end = now + v->j.drain_us;
    if (end < o->not_after_us)
        end = o->not_after_us;
    if (end > v->j.not_after_us)
        end = v->j.not_after_us;
    if (o->generation <= v->j.generation)
        return 0;
    log_info("lease %s: ends %lld s earlier", v->j.id,
             (long long)((v->j.not_after_us - end) / US_PER_S));
    if (end < v->j.not_after_us) {
        move_end(l, v, end, o);
        return 0;
    }
    /* Its drain is longer than what is left: it ends as it would have. */
    v->j.generation = o->generation;
    v->j.ordered = true;
    return journal_lease_write(l->a->journal, &v->j, err);
}

void leases_set_holders(struct leases *l, const struct order *o)
{
    struct live *v = find(l, o->id);
    struct err err;
    if (v == NULL || (v->j.holder_count == o->holder_count &&
                      memcmp(v->j.holders, o->holders,
                             o->holder_count * sizeof(o->holders[0])) == 0))
        return;
    memcpy(v->j.holders, o->holders, sizeof(v->j.holders));
    v->j.holder_count = o->holder_count;
    if (journal_lease_write(l->a->journal, &v->j, &err) != 0)
        log_warn("lease %s: its new keys may be forgotten: %s", v->j.id, err.text);
}

void leases_end(struct leases *l, const char *id, const char *reason)
{
    struct live *v = find(l, id);
    if (v == NULL || v->j.state == LEASE_DENIED || v->j.state == LEASE_CLEANING ||
        v->j.state == LEASE_DONE || v->j.state == LEASE_QUARANTINED)
        return;
    snprintf(v->j.reason, sizeof(v->j.reason), "%s", reason);
    live_event(l, v, LEASE_EV_END);
}

void leases_retime(struct leases *l)
{
    for (struct live *v = l->list; v != NULL; v = v->next) {
        int64_t end = signedtime_boot(&l->a->time, v->j.not_after_us);
        struct err err;
        if (v->rebooted || !(is_open(v->j.state) || v->j.state == LEASE_OPENING) ||
            end > v->j.deadline_boot_us - 10000)
            continue;
        v->j.deadline_boot_us = end;
        if (journal_lease_write(l->a->journal, &v->j, &err) != 0)
            log_error("lease %s: journal: %s", v->j.id, err.text);
        live_step("retime_journal");
        live_regate(l, v);
    }
}

/* --- jobs --- */

static int make_spec(struct leases *l, struct live *v, const struct leases_launch *in,
                     struct launch_spec *spec, struct err *err)
{
    const struct gpu_info *gpus[GPUS_PER_NODE_MAX];
    size_t n = live_gpus(l, v, gpus);
    spec->nodes = xcalloc(DEVNODES_MAX, sizeof(*spec->nodes));
    if (n != v->j.gpu_count)
        return err_set(err, ERR_UNAVAILABLE, "a GPU of the lease is not on this node");
    if (in->claims->act[0] != '\0') {
        n = live_keep_granted(&in->claims->lease, gpus, n);
        spec->holder = (char *)(uintptr_t)in->claims->jkt;
        spec->drain_us = in->claims->lease.drain_us;
        spec->end_boot_us =
            signedtime_boot(&l->a->time, in->claims->lease.not_after_us);
        if (n != in->claims->lease.gpu_count || spec->end_boot_us <= 0)
            return err_set(err, ERR_CONFLICT, "the grant is not of this lease");
    }
    if (devnodes_find(gpus, n, spec->nodes, &spec->node_count, err) != 0)
        return -1;
    spec->lease = v->j.id;
    spec->base = l->a->conf.cgroup_base;
    spec->argv = in->argv;
    spec->envp = in->envp;
    spec->cwd = (char *)in->cwd;
    spec->uid = l->a->conf.uid;
    spec->gid = l->a->conf.gid;
    if (spec->holder == NULL)
        spec->drain_us = v->j.drain_us;
    spec->output_max = l->a->conf.job_output_max_mib * 1024 * 1024;
    spec->want_stdin = in->want_stdin;
    spec->pty = in->pty;
    spec->rows = in->rows;
    spec->cols = in->cols;
    spec->term = (char *)in->term;
    spec->image = (char *)in->image;
    if (in->image != NULL && l->a->conf.podman != NULL &&
        l->a->conf.podman[0] != '\0') {
        spec->podman = l->a->conf.podman;
        spec->image_store = l->a->conf.image_store;
    }
    spec->files = (struct launch_file *)(uintptr_t)in->files;
    spec->file_count = in->file_count;
    return 0;
}

/* No job starts in a cgroup whose gate is not seen in place. */
static int check_gate(struct leases *l, struct live *v, struct err *err)
{
    struct enforce_status st = {0};
    if (l->a->enforce->ops->status(l->a->enforce, v->j.id, &st, err) != 0)
        return -1;
    if (st.exists && st.gated)
        return 0;
    if (st.populated)
        return err_set(err, ERR_CONFLICT, "the lease's gate is gone");
    log_warn("lease %s: its gate was gone and is made again", v->j.id);
    return live_open_gate(l, v, err);
}

int leases_launch(struct leases *l, const struct leases_launch *in,
                  struct leases_launched *ret, struct err *err)
{
    struct live *v = find(l, in->claims->lease.reservation);
    struct launch_spec spec = {0};
    char job[JOURNAL_ID_MAX];
    ret->step = "lease";
    ret->job[0] = '\0';
    if (v == NULL || !lease_state_may_launch(v->j.state))
        return err_set(err, ERR_CONFLICT, "the lease is %s",
                       v != NULL ? lease_state_name(v->j.state) : "not open");
    snprintf(job, sizeof(job), "%s", in->claims->jti);
    struct journal_use use = {in->claims->jti, v->j.id, in->argv_hash, job,
                              in->claims->exp_us};
    ret->step = "policy";
    if (check_policy_of(l, v, err) != 0)
        return -1;
    ret->step = "gate";
    if (check_gate(l, v, err) != 0)
        return -1;
    ret->step = "replay";
    if (journal_jti_claim(l->a->journal, &use, ret->job, err) != 0)
        return -1;
    live_step("launch_claim");
    char *dir = leases_dir(l, v->j.id);
    /* The agent may have died between the claim and the start: then it is started now.
     * A job is marked as started before it is made, so never twice. */
    ret->again = ret->job[0] != '\0' && launch_is_started(dir, ret->job);
    if (ret->again) {
        free(dir);
        return 0;
    }
    ret->step = "gpu";
    int rc = make_spec(l, v, in, &spec, err);
    spec.job = job;
    if (rc == 0) {
        ret->step = "launch";
        rc = launch_begin(dir, &spec, NULL, &ret->ready, err);
        live_step("launch_begin");
    }
    if (rc == 0)
        snprintf(ret->job, sizeof(ret->job), "%s", job);
    devnodes_done(spec.nodes, spec.node_count);
    free(spec.nodes);
    free(dir);
    return rc;
}

int leases_adopt(struct leases *l, const char *id, const char *cgroup, uid_t uid,
                 const char **ret_step, struct err *err)
{
    struct live *v = find(l, id);
    *ret_step = "lease";
    if (v == NULL || !lease_state_may_launch(v->j.state))
        return err_set(err, ERR_CONFLICT, "the lease is %s",
                       v != NULL ? lease_state_name(v->j.state) : "not open");
    *ret_step = "policy";
    if (check_policy_of(l, v, err) != 0)
        return -1;
    *ret_step = "gate";
    if (check_gate(l, v, err) != 0)
        return -1;
    *ret_step = "adopt";
    if (live_adopt(l, v, cgroup, uid, err) != 0)
        return -1;
    log_info("lease %s: cgroup %s adopted", id, cgroup);
    leases_job_started(l, id);
    return 0;
}

/* It may be draining or over by now: then it ends with the lease. */
void leases_job_started(struct leases *l, const char *id)
{
    struct live *v = find(l, id);
    if (v == NULL || !lease_state_may_launch(v->j.state))
        return;
    live_event(l, v, LEASE_EV_JOB_STARTED);
    v->next_poll_us = 0;
}

/* --- what time brings --- */

struct enforce_status live_look(struct leases *l, const struct live *v)
{
    struct enforce_status st;
    struct err err;
    if (l->a->enforce->ops->status(l->a->enforce, v->j.id, &st, &err) == 0)
        return st;
    log_warn("lease %s: %s", v->j.id, err.text);
    return (struct enforce_status){.exists = true, .gated = true, .populated = true};
}

/* Are its jobs gone, or its gate? */
static void poll_open(struct leases *l, struct live *v)
{
    struct enforce_status st = live_look(l, v);
    if (st.populated && !st.gated) {
        log_error("lease %s: processes without a gate: ended", v->j.id);
        leases_end(l, v->j.id, "gate_lost");
    } else if (v->j.state != LEASE_READY && !st.populated) {
        live_event(l, v, LEASE_EV_JOBS_GONE);
    }
}

static void tick_open(struct leases *l, struct live *v, int64_t boot_us)
{
    if (boot_us >= v->j.deadline_boot_us) {
        leases_end(l, v->j.id, "lease_end");
        return;
    }
    if (boot_us >= v->next_poll_us) {
        v->next_poll_us = boot_us + POLL_JOBS_US;
        poll_open(l, v);
        if (!is_open(v->j.state))
            return;
    }
    if (v->j.state != LEASE_DRAINING && v->j.drain_us > 0 &&
        boot_us >= v->j.deadline_boot_us - v->j.drain_us)
        live_event(l, v, LEASE_EV_DRAIN_DUE);
    if (boot_us >= v->next_receipt_us)
        live_send_ready(l, v);
}

static void tick_denied(struct leases *l, struct live *v, int64_t boot_us)
{
    struct err err;
    if (boot_us < v->next_poll_us)
        return;
    v->next_poll_us = boot_us + POLL_EMPTY_US;
    if (!live_look(l, v).populated) {
        live_event(l, v, LEASE_EV_EMPTIED);
    } else if (boot_us - v->ending_boot_us > LEASE_KILL_US) {
        live_event(l, v, LEASE_EV_KILL_TIMEOUT);
    } else if (l->a->enforce->ops->kill(l->a->enforce, v->j.id, &err) != 0) {
        log_warn("lease %s: kill: %s", v->j.id, err.text);
    }
}

static void tick_cleaning(struct leases *l, struct live *v, int64_t boot_us)
{
    if (boot_us < v->next_poll_us)
        return;
    v->next_poll_us = boot_us + POLL_CLEAN_US;
    if (live_clean(l, v))
        live_event(l, v, LEASE_EV_CLEANED);
    else if (boot_us - v->cleaning_boot_us > LEASES_CLEAN_US)
        live_event(l, v, LEASE_EV_CLEAN_FAILED);
}

/* A person releases a quarantine by `neargpu-agent release`, which leaves this file. */
static void tick_quarantined(struct leases *l, struct live *v, int64_t boot_us)
{
    if (boot_us < v->next_poll_us)
        return;
    v->next_poll_us = boot_us + POLL_JOBS_US;
    char *dir = leases_dir(l, v->j.id), *mark = xasprintf("%s/released", dir);
    if (unlink(mark) == 0) {
        v->ending_boot_us = boot_us;
        live_event(l, v, LEASE_EV_RELEASED);
    }
    free(mark);
    free(dir);
}

/* Ended long enough ago: forgotten. True when it was. */
static bool tick_done(struct leases *l, struct live *v, int64_t boot_us)
{
    bool failed = strcmp(v->j.reason, "open_failed") == 0;
    int64_t now;
    struct err err;
    if (failed ? boot_us < v->ending_boot_us + RETRY_OPEN_US
               : !agent_now(l->a, &now) || now < v->j.not_after_us + LEASES_REMEMBER_US)
        return false;
    char *dir = leases_dir(l, v->j.id);
    if (launch_close(dir, &err) != 0) /* who still reads the output is let go */
        log_warn("lease %s: %s", v->j.id, err.text);
    free(dir);
    live_step("forget_close");
    if (journal_lease_remove(l->a->journal, v->j.id, &err) != 0)
        log_warn("lease %s: %s", v->j.id, err.text);
    live_step("forget_remove");
    log_info("lease %s: forgotten", v->j.id);
    drop(l, v);
    return true;
}

static void tick_rebooted(struct leases *l, struct live *v)
{
    struct err err;
    int64_t now;
    if (!agent_now(l->a, &now))
        return;
    if (now >= v->j.not_after_us) {
        v->rebooted = false;
        leases_end(l, v->j.id, "lease_end");
        return;
    }
    v->j.state = LEASE_OPENING;
    v->j.deadline_boot_us = signedtime_boot(&l->a->time, v->j.not_after_us);
    snprintf(v->j.boot_id, sizeof(v->j.boot_id), "%s", l->a->boot_id);
    if (live_open_gate(l, v, &err) == 0) {
        v->rebooted = false;
        live_event(l, v, LEASE_EV_OPENED);
    } else if (strcmp(v->obstacle, err.text) != 0) {
        snprintf(v->obstacle, sizeof(v->obstacle), "%.*s", (int)sizeof(v->obstacle) - 1,
                 err.text);
        log_warn("lease %s waits to be reopened: %s", v->j.id, err.text);
    }
}

static int64_t due(const struct live *v, int64_t boot_us)
{
    int64_t next = v->next_poll_us;
    if (v->rebooted || v->j.state == LEASE_DONE || v->j.state == LEASE_OPENING)
        return boot_us + POLL_JOBS_US;
    if (is_open(v->j.state)) {
        if (v->j.deadline_boot_us < next)
            next = v->j.deadline_boot_us;
        if (v->j.state != LEASE_DRAINING && v->j.drain_us > 0 &&
            v->j.deadline_boot_us - v->j.drain_us < next)
            next = v->j.deadline_boot_us - v->j.drain_us;
        if (v->next_receipt_us < next)
            next = v->next_receipt_us;
    }
    return next > boot_us ? next : boot_us + 1000;
}

int64_t leases_tick(struct leases *l, int64_t boot_us)
{
    int64_t next = INT64_MAX;
    for (struct live *v = l->list, *after; v != NULL; v = after) {
        after = v->next;
        if (v->rebooted)
            tick_rebooted(l, v);
        else if (is_open(v->j.state))
            tick_open(l, v, boot_us);
        else if (v->j.state == LEASE_QUARANTINED)
            tick_quarantined(l, v, boot_us);
        if (v->j.state == LEASE_DENIED)
            tick_denied(l, v, boot_us);
        if (v->j.state == LEASE_CLEANING)
            tick_cleaning(l, v, boot_us);
        if (v->j.state == LEASE_DONE && tick_done(l, v, boot_us))
            continue;
        int64_t at = due(v, boot_us);
        next = at < next ? at : next;
    }
    return next;
}

/* --- views --- */

size_t leases_have(const struct leases *l, struct reconcile_have *out, size_t cap)
{
    size_t n = 0;
    for (const struct live *v = l->list; v != NULL && n < cap; v = v->next)
        out[n++] = (struct reconcile_have){
            .id = v->j.id,
            .state = v->j.state,
            .not_after_us = v->j.not_after_us,
            .generation = v->j.generation,
            .on_lost_us = on_lost_us(&v->j),
            .gpus = (const char(*)[TOKEN_GPU_UUID_MAX])v->j.gpus,
            .gpu_count = v->j.gpu_count};
    return n;
}
