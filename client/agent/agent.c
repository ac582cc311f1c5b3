/* agent: see agent.h. */
#include "config.h"

#include "client/agent/agent.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/agent/leases.h"
#include "client/agent/sshsrv.h"
#include "client/agent/trim.h"
#include "client/agent/warden.h"
#include "client/agent/witness.h"
#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/log.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define SAMPLE_FAILURES_MAX 3 /* then every GPU counts as lost */
#define RECEIPT_INTERVAL_US (60 * US_PER_S)
#define TIME_KEEP_US        1000 /* a better estimate by this much is written down */
#define FLOOR_STEP_US       (60 * US_PER_S) /* so old may the floor on disk be */

static void arm(struct event *ev, int64_t us)
{
    struct timeval tv = {us / US_PER_S, us % US_PER_S};
    event_add(ev, &tv);
}

bool agent_now(const struct agent *a, int64_t *ret_us)
{
    if (!signedtime_is_known(&a->time))
        return false;
    *ret_us = signedtime_at(&a->time, clock_boot_us());
    return true;
}

void agent_wake(struct agent *a)
{
    if (a->in_turn)
        a->wake_again = true;
    else if (a->turn_timer != NULL)
        arm(a->turn_timer, 0);
}

void agent_changed(struct agent *a)
{
    (void)advert_hold(&a->advert, leases_hold, a->leases);
    warden_changed(a->warden);
    agent_wake(a);
}

/* --- signed time: the estimate is of one boot, the floor of all --- */

static char *time_path(const struct agent *a)
{
    return xasprintf("%s/time", a->conf.state_dir);
}

static void time_save(struct agent *a)
{
    struct err err;
    char *path = time_path(a);
    char *text = xasprintf("%s %" PRId64 " %" PRId64 "\n", a->boot_id, a->time.best_us,
                           a->status.iat_us);
    if (fsx_write(path, text, strlen(text), 0600, &err) == 0)
        a->floor_us = a->status.iat_us;
    else
        log_warn("%s", err.text);
    free(text);
    free(path);
}

void agent_load_time(struct agent *a)
{
    char *path = time_path(a), *text = NULL, boot_id[JOURNAL_BOOT_ID_MAX];
    int64_t offset_us, floor_us;
    char end;
    if (fsx_read(path, 200, &text, NULL, NULL) == 0 &&
        sscanf(text, "%39s %" SCNd64 " %" SCNd64 "%c", boot_id, &offset_us, &floor_us,
               &end) == 4 &&
        end == '\n') {
        a->floor_us = floor_us;
        if (strcmp(boot_id, a->boot_id) == 0)
            signedtime_restore(&a->time, offset_us);
    }
    free(text);
    free(path);
}

/* --- desired state --- */

static void revoke_kids(struct agent *a)
{
    for (size_t i = 0; i < a->status.revoked_kid_count; i++)
        keyring_revoke(a->id.keys, a->status.revoked_kids[i]);
}

static void take_status(struct agent *a, const char *text, int64_t boot_us)
{
    struct token_status st;
    struct err err;
    if (token_status_check(text, strlen(text), a->id.keys, a->id.issuer, &st, &err) !=
        0) {
        log_error("the market's status document is not valid: %s", err.text);
        return;
    }
    bool older =
        st.iat_us < a->floor_us ||
        (a->have_status && (st.seq < a->status.seq || st.iat_us < a->status.iat_us));
    bool newer = !a->have_status || st.iat_us > a->status.iat_us;
    if (older || !newer) {
        if (older)
            log_warn("the market sent an older status document than before: ignored");
        token_status_done(&st);
        return;
    }
    int64_t before = signedtime_is_known(&a->time) ? a->time.best_us : INT64_MIN;
    if (a->have_status)
        token_status_done(&a->status);
    a->status = st;
    a->have_status = true;
    signedtime_add(&a->time, st.iat_us, boot_us);
    if (st.iat_us >= a->floor_us + FLOOR_STEP_US || before == INT64_MIN ||
        a->time.best_us > before + TIME_KEEP_US ||
        a->time.best_us < before - TIME_KEEP_US)
        time_save(a);
    leases_retime(a->leases);
}

void agent_take_keys(struct agent *a, const char *text)
{
    struct err err;
    int64_t now = INT64_MIN, seq = a->id.keys_seq;
    (void)agent_now(a, &now);
    if (identity_set_keys(&a->id, text, now, &err) != 0)
        log_error("%s", err.text);
    else if (a->id.keys_seq != seq)
        log_info("the market's key set %" PRId64 " takes the place of %" PRId64,
                 a->id.keys_seq, seq);
    revoke_kids(a); /* a new ring knows none yet */
}

void agent_take_desired(struct agent *a, struct desired *want_take, int64_t boot_us)
{
    if (want_take->key_set != NULL)
        agent_take_keys(a, want_take->key_set);
    if (want_take->status != NULL)
        take_status(a, want_take->status, boot_us);
    revoke_kids(a);
    if (want_take->receipt_interval_us > 0)
        a->receipt_interval_us = want_take->receipt_interval_us;
    if (a->have_want)
        desired_done(&a->want);
    a->want = *want_take;
    a->have_want = true;
    for (size_t i = 0; i < a->want.lease_count; i++)
        leases_set_holders(a->leases, &a->want.leases[i]);
    memset(want_take, 0, sizeof(*want_take));
    agent_wake(a);
}

void agent_take_ban(struct agent *a, const char *status, int64_t boot_us)
{
    take_status(a, status, boot_us);
    revoke_kids(a);
    if (a->have_want)
        desired_done(&a->want);
    a->have_want = false;
    agent_wake(a);
}

void agent_compare(const struct agent *a, struct reconcile_have *have, size_t cap,
                   struct reconcile_in *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->want = a->have_want ? &a->want : NULL;
    ret->have = have;
    ret->have_count = leases_have(a->leases, have, cap);
    ret->gpus = &a->advert;
    ret->status = a->have_status ? &a->status : NULL;
    ret->time_known = agent_now(a, &ret->now_us);
}

/* --- the turn --- */

/* Each obstacle is logged once, not on every turn. */
static void tell_once(struct agent *a, const char *id, const char *why)
{
    uint64_t h = 1469598103934665603u;
    for (const char *p = id; *p != '\0'; p++)
        h = (h ^ (uint8_t)*p) * 1099511628211u;
    for (const char *p = why; *p != '\0'; p++)
        h = (h ^ (uint8_t)*p) * 1099511628211u;
    for (size_t i = 0; i < a->told_count; i++)
        if (a->told[i] == h)
            return;
    if (a->told_count == sizeof(a->told) / sizeof(a->told[0]))
        a->told_count = 0;
    a->told[a->told_count++] = h;
    log_warn("lease %s cannot be opened yet: %s", id, why);
}

static void perform(struct agent *a, const struct reconcile_action *action)
{
    struct err err;
    const char *step;
    switch (action->kind) {
    case RECONCILE_OPEN:
        if (leases_open(a->leases, action->order, &step, &err) != 0)
            tell_once(a, action->id, err.text);
        break;
    case RECONCILE_EXTEND:
        if (leases_extend(a->leases, action->order, &err) != 0)
            tell_once(a, action->id, err.text);
        break;
    case RECONCILE_SHORTEN:
        if (leases_shorten(a->leases, action->order, &err) != 0)
            tell_once(a, action->id, err.text);
        break;
    case RECONCILE_END: leases_end(a->leases, action->id, action->why); break;
    case RECONCILE_WAIT: tell_once(a, action->id, action->why); break;
    }
}

static int64_t reconcile_now(struct agent *a)
{
    struct reconcile_have *have = xcalloc(LEASES_MAX, sizeof(*have));
    struct reconcile_in in;
    struct reconcile_out out;
    agent_compare(a, have, LEASES_MAX, &in);
    reconcile(&in, &out);
    for (size_t i = 0; i < out.count; i++)
        perform(a, &out.actions[i]);
    int64_t next = out.next_us;
    reconcile_out_done(&out);
    free(have);
    return next;
}

static void turn(evutil_socket_t fd, short what, void *arg)
{
    struct agent *a = arg;
    (void)fd;
    (void)what;
    a->in_turn = true;
    a->wake_again = false;
    (void)leases_tick(a->leases, clock_boot_us());
    int64_t begin_us = reconcile_now(a);
    int64_t boot = clock_boot_us(), next = leases_tick(a->leases, boot);
    if (begin_us != INT64_MAX && signedtime_is_known(&a->time)) {
        int64_t at = signedtime_boot(&a->time, begin_us);
        next = at < next ? at : next;
    }
    a->in_turn = false;
    /* A bounded sleep: waiting orders and stale status are looked at again. */
    int64_t sleep_us = a->wake_again ? 0 : next - boot;
    if (sleep_us > US_PER_S)
        sleep_us = US_PER_S;
    arm(a->turn_timer, sleep_us > 0 ? sleep_us : 0);
}

static void sample(evutil_socket_t fd, short what, void *arg)
{
    struct agent *a = arg;
    struct gpu_info gpus[GPUS_PER_NODE_MAX];
    struct advert_limits limits = {a->conf.busy_memory_mib,
                                   a->conf.busy_utilisation_percent * 10000};
    struct err err;
    size_t count = 0;
    (void)fd;
    (void)what;
    arm(a->sample_timer, a->conf.sample_interval_us);
    if (a->gpu_ops->list(a->gpu, gpus, GPUS_PER_NODE_MAX, &count, &err) != 0) {
        if (a->sample_failures++ == 0)
            log_error("GPUs: %s", err.text);
        if (a->sample_failures < SAMPLE_FAILURES_MAX)
            return;
        count = 0;
    } else {
        a->sample_failures = 0;
    }
    if (advert_observe(&a->advert, gpus, count, &limits, leases_hold, a->leases))
        agent_changed(a);
}

/* --- life --- */

static void stop(evutil_socket_t fd, short what, void *arg)
{
    struct agent *a = arg;
    (void)fd;
    (void)what;
    log_info("stopping; leases and jobs go on");
    event_base_loopbreak(a->base);
}

static enum log_level level_of(const char *name)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    for (int i = 0; i < 4; i++)
        if (strcmp(names[i], name) == 0)
            return (enum log_level)i;
    return LOG_LVL_INFO;
}

/* A node whose witness cannot be is a node all the same. */
static void open_witness(struct agent *a)
{
    const struct witness_conf c = {.state_dir = a->conf.state_dir,
                                   .market = a->id.market,
                                   .spiffe_id = a->id.spiffe_id,
                                   .interval_us = a->conf.witness_interval_us};
    struct err err;
    if (c.interval_us == 0)
        return;
    if (witness_open(&c, &a->witness, &err) != 0)
        log_error("the market's log is not cosigned: %s", err.text);
    else
        log_info("witness %s", witness_vkey(a->witness));
}

static int open_state(struct agent *a, struct err *err)
{
    if (fsx_mkdirs(a->conf.state_dir, 0700, err) != 0 ||
        journal_boot_id(a->boot_id, err) != 0 ||
        identity_load(a->conf.state_dir, &a->id, err) != 0 ||
        journal_open(a->conf.state_dir, &a->journal, err) != 0 ||
        identity_next_instance(&a->id, err) != 0 ||
        spool_open(a->conf.state_dir, a->id.receipt_key, &a->spool, err) != 0)
        return -1;
    agent_load_time(a);
    open_witness(a);
    return enforce_cgroup_new(a->conf.cgroup_base, &a->enforce, err);
}

static int open_gpus(struct agent *a, struct err *err)
{
    bool sim = strcmp(a->conf.inventory, "sim") == 0;
    struct gpu_source source = {.path = sim ? a->conf.sim_file : a->conf.nvml_library};
    a->gpu_ops = gpu_ops_find(a->conf.inventory);
    return a->gpu_ops->open(&source, &a->gpu, err);
}

static void open_events(struct agent *a)
{
    a->turn_timer = evtimer_new(a->base, turn, a);
    a->sample_timer = evtimer_new(a->base, sample, a);
    a->sig_term = evsignal_new(a->base, SIGTERM, stop, a);
    a->sig_int = evsignal_new(a->base, SIGINT, stop, a);
    event_add(a->sig_term, NULL);
    event_add(a->sig_int, NULL);
}

static const char *crash_at; /* the name of a step (leases_set_step_hook) */

static void on_step(const char *step)
{
    if (strcmp(step, crash_at) == 0)
        (void)kill(getpid(), SIGKILL);
}

int agent_new(const char *conf_path, struct agent **ret, struct err *err)
{
    struct agent *a = xcalloc(1, sizeof(*a));
    a->receipt_interval_us = RECEIPT_INTERVAL_US;
    if (settings_load(conf_path, &a->conf, err) != 0) {
        free(a);
        return -1;
    }
    log_init("neargpu-agent", level_of(a->conf.log_level));
    crash_at = getenv("NEARGPU_CRASH_AT");
    leases_set_step_hook(crash_at != NULL ? on_step : NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    a->base = event_base_new();
    int rc = open_state(a, err);
    if (rc == 0)
        rc = open_gpus(a, err);
    if (rc == 0)
        rc = warden_new(a, &a->warden, err);
    if (rc == 0) {
        a->leases = leases_new(a);
        open_events(a);
        sample(-1, 0, a);
        rc = leases_recover(a->leases, err);
        if (rc == 0)
            rc = sshsrv_new(a, &a->sshsrv, err);
        (void)advert_hold(&a->advert, leases_hold, a->leases);
    }
    if (rc != 0) {
        agent_free(a);
        return -1;
    }
    *ret = a;
    return 0;
}

void agent_run(struct agent *a)
{
    log_info("%s of market %s: %zu GPUs (%s), %s", a->id.spiffe_id, a->id.market,
             a->advert.count, a->gpu_ops->name,
             signedtime_is_known(&a->time) ? "time known" : "no signed time yet");
    warden_start(a->warden);
    struct trim *trim = trim_new(a->base);
    arm(a->turn_timer, 0);
    event_base_dispatch(a->base);
    trim_free(trim);
}

static void free_event(struct event *ev)
{
    if (ev != NULL)
        event_free(ev);
}

void agent_free(struct agent *a)
{
    if (a == NULL)
        return;
    warden_free(a->warden);
    sshsrv_free(a->sshsrv);
    witness_free(a->witness);
    leases_free(a->leases);
    free_event(a->turn_timer);
    free_event(a->sample_timer);
    free_event(a->sig_term);
    free_event(a->sig_int);
    if (a->have_want)
        desired_done(&a->want);
    if (a->have_status)
        token_status_done(&a->status);
    if (a->gpu != NULL)
        a->gpu_ops->close(a->gpu);
    if (a->enforce != NULL)
        a->enforce->ops->free(a->enforce);
    spool_free(a->spool);
    journal_free(a->journal);
    identity_done(&a->id);
    settings_done(&a->conf);
    event_base_free(a->base);
    free(a);
}
