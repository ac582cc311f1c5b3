/* leases_recover: what a starting agent does with what it finds: each journalled lease
 * against its cgroup, gate and processes; each cgroup without a journal is ended. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/agent/leases_impl.h"
#include "client/lib/clock.h"
#include "client/lib/log.h"
#include "client/lib/xalloc.h"

static void respawn_keepers(struct leases *l, const struct live *v)
{
    struct err err;
    struct launch_job *jobs = NULL;
    size_t count = 0;
    char *dir = journal_lease_dir(l->a->journal, v->j.id);
    if (launch_jobs(dir, &jobs, &count, &err) != 0)
        log_warn("lease %s: %s", v->j.id, err.text);
    for (size_t i = 0; i < count; i++) {
        if (!jobs[i].started || jobs[i].ended || jobs[i].keeper_alive)
            continue;
        char *job_dir = xasprintf("%s/jobs/%s", dir, jobs[i].job);
        if (launch_respawn_keeper(job_dir, NULL, &err) != 0)
            log_warn("lease %s: keeper of job %s: %s", v->j.id, jobs[i].job, err.text);
        free(job_dir);
    }
    launch_jobs_free(jobs, count);
    free(dir);
}

static void reopen(struct leases *l, struct live *v)
{
    struct err err;
    if (live_open_gate(l, v, &err) != 0) {
        log_error("lease %s cannot be reopened: %s", v->j.id, err.text);
        snprintf(v->j.reason, sizeof(v->j.reason), "open_failed");
        live_event(l, v, LEASE_EV_END);
    } else if (v->j.state == LEASE_OPENING) {
        live_event(l, v, LEASE_EV_OPENED);
    }
}

/* A crash may have come between the journal and the receipt. */
static void mend_receipts(struct leases *l, struct live *v)
{
    const struct usage_chain *c = spool_chain(l->a->spool, v->j.id);
    if (v->j.state == LEASE_DONE)
        live_send_teardown(l, v);
    else if (c == NULL && (v->j.state == LEASE_READY || v->j.state == LEASE_RUNNING ||
                           v->j.state == LEASE_DRAINING))
        live_send_ready(l, v);
    v->next_receipt_us = clock_boot_us() + l->a->receipt_interval_us;
}

static void recover_one(struct leases *l, struct live *v)
{
    struct enforce_status st = live_look(l, v);
    struct lease_found found = {.journalled = true,
                                .same_boot = strcmp(v->j.boot_id, l->a->boot_id) == 0,
                                .state = v->j.state,
                                .cgroup = st.exists,
                                .gated = st.gated,
                                .populated = st.populated,
                                .deadline_boot_us = v->j.deadline_boot_us};
    switch (lease_recover(&found, clock_boot_us())) {
    case LEASE_REC_KEEP:
        respawn_keepers(l, v);
        mend_receipts(l, v);
        break;
    case LEASE_REC_REOPEN:
        reopen(l, v);
        mend_receipts(l, v);
        break;
    case LEASE_REC_REBOOTED: v->rebooted = true; break;
    case LEASE_REC_END:
        if (v->j.reason[0] == '\0')
            snprintf(v->j.reason, sizeof(v->j.reason), "lease_end");
        live_event(l, v, LEASE_EV_END);
        break;
    case LEASE_REC_ORPHAN:
        live_deny_kill(l, v);
        (void)live_clean(l, v);
        mend_receipts(l, v);
        break;
    case LEASE_REC_FORGET: mend_receipts(l, v); break;
    case LEASE_REC_HOLD: break;
    }
    log_info("lease %s: found %s", v->j.id, lease_state_name(v->j.state));
}

static void end_orphan(struct leases *l, const char *id)
{
    struct enforce *e = l->a->enforce;
    struct err err;
    log_warn("cgroup of an unknown lease %s: ended", id);
    if (e->ops->deny(e, id, &err) != 0 || e->ops->kill(e, id, &err) != 0)
        log_error("lease %s: %s", id, err.text);
    /* It may take a moment to die; journalled as ending, it is followed like others. */
    if (e->ops->close(e, id, &err) == 0)
        return;
    struct live *v = xcalloc(1, sizeof(*v));
    snprintf(v->j.id, sizeof(v->j.id), "%s", id);
    snprintf(v->j.boot_id, sizeof(v->j.boot_id), "%s", l->a->boot_id);
    snprintf(v->j.on_lost, sizeof(v->j.on_lost), "run_to_end");
    snprintf(v->j.reason, sizeof(v->j.reason), "orphan");
    v->j.state = LEASE_DENIED;
    v->ending_boot_us = clock_boot_us();
    v->next = l->list;
    l->list = v;
}

/* An agent that died before it had written a word of a lease leaves its directory.
 * Nothing was opened: a gate comes after the journal. */
static bool is_unborn(struct leases *l, const char *id)
{
    char *dir = journal_lease_dir(l->a->journal, id);
    char *json = xasprintf("%s/lease.json", dir), *jobs = xasprintf("%s/jobs", dir);
    bool is = access(json, F_OK) != 0 && errno == ENOENT && access(jobs, F_OK) != 0 &&
              errno == ENOENT;
    free(jobs);
    free(json);
    free(dir);
    return is;
}

static void load_one(struct leases *l, const char *id)
{
    struct err err;
    if (is_unborn(l, id)) {
        if (journal_lease_remove(l->a->journal, id, &err) != 0)
            log_warn("lease %s: %s", id, err.text);
        return;
    }
    struct live *v = xcalloc(1, sizeof(*v));
    if (journal_lease_read(l->a->journal, id, &v->j, &err) != 0) {
        log_error("lease %s: %s", id, err.text);
        free(v);
        return;
    }
    v->next = l->list;
    l->list = v;
    recover_one(l, v);
}

int leases_recover(struct leases *l, struct err *err)
{
    char **ids = NULL;
    size_t count = 0;
    if (journal_lease_list(l->a->journal, &ids, &count, err) != 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        load_one(l, ids[i]);
        free(ids[i]);
    }
    free(ids);
    ids = NULL;
    count = 0;
    if (l->a->enforce->ops->list(l->a->enforce, &ids, &count, err) != 0)
        return -1;
    for (size_t i = 0; i < count; i++) {
        if (leases_find(l, ids[i]) == NULL)
            end_orphan(l, ids[i]);
        free(ids[i]);
    }
    free(ids);
    return 0;
}
