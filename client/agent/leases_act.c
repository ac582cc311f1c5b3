/* leases_act: what is done for a lease: gate, kill, cleaning, receipts. Each is
 * idempotent. See leases.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "client/agent/devnodes.h"
#include "client/agent/holders.h"
#include "client/agent/leases_impl.h"
#include "client/lib/clock.h"
#include "client/lib/log.h"

#include <signal.h>

_Static_assert(JOURNAL_ID_MAX == TOKEN_GPU_UUID_MAX, "one size of GPU uuids");

size_t live_gpus(const struct leases *l, const struct live *v,
                 const struct gpu_info **out)
{
    size_t n = 0;
    for (size_t i = 0; i < v->j.gpu_count; i++) {
        const struct advert_gpu *g = advert_find(&l->a->advert, v->j.gpus[i]);
        if (g != NULL)
            out[n++] = &g->info;
    }
    return n;
}

size_t live_keep_granted(const struct token_lease *t, const struct gpu_info **gpus,
                         size_t count)
{
    size_t n = 0;
    for (size_t i = 0; i < count; i++)
        for (size_t g = 0; g < t->gpu_count; g++)
            if (strcmp(gpus[i]->uuid, t->gpus[g]) == 0) {
                gpus[n++] = gpus[i];
                break;
            }
    return n;
}

static int find_rules(struct leases *l, struct live *v, struct err *err)
{
    const struct gpu_info *gpus[GPUS_PER_NODE_MAX];
    struct launch_node nodes[DEVNODES_MAX];
    size_t n = live_gpus(l, v, gpus), count;
    if (n != v->j.gpu_count)
        return err_set(err, ERR_UNAVAILABLE, "a GPU of the lease is not on this node");
    if (devnodes_find(gpus, n, nodes, &count, err) != 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        v->j.rules[i] = (struct devprog_rule){'c', nodes[i].major, nodes[i].minor,
                                              DEVPROG_READ | DEVPROG_WRITE};
    v->j.rule_count = count;
    devnodes_done(nodes, count);
    return 0;
}

static struct enforce_lease terms(const struct leases *l, const struct live *v)
{
    return (struct enforce_lease){.id = v->j.id,
                                  .devices = v->j.rules,
                                  .device_count = v->j.rule_count,
                                  .deadline_boot_us = v->j.deadline_boot_us,
                                  .memory_max_bytes = v->j.memory_max_bytes,
                                  .pids_max = v->j.pids_max,
                                  .cpu_milli = l->a->conf.job_cpus * 1000 *
                                               (int64_t)v->j.gpu_count};
}

static int set_gate(struct leases *l, struct live *v, struct err *err)
{
    struct enforce *e = l->a->enforce;
    struct enforce_lease want = terms(l, v);
    return e->ops->open(e, &want, err);
}

int live_adopt(struct leases *l, struct live *v, const char *cgroup, uid_t uid,
               struct err *err)
{
    struct enforce *e = l->a->enforce;
    struct enforce_lease want = terms(l, v);
    if (e->ops->adopt == NULL)
        return err_set(err, ERR_UNAVAILABLE, "cgroups cannot be adopted here");
    return e->ops->adopt(e, &want, cgroup, uid, err);
}

int live_open_gate(struct leases *l, struct live *v, struct err *err)
{
    if (find_rules(l, v, err) != 0)
        return -1;
    live_step("gate_rules");
    if (journal_lease_write(l->a->journal, &v->j, err) != 0)
        return -1;
    live_step("gate_journal");
    int rc = set_gate(l, v, err);
    live_step("gate_set");
    return rc;
}

void live_regate(struct leases *l, struct live *v)
{
    struct err err;
    if (set_gate(l, v, &err) != 0)
        log_error("lease %s: the gate keeps its earlier end: %s", v->j.id, err.text);
    live_step("regate");
}

void live_deny_kill(struct leases *l, struct live *v)
{
    struct enforce *e = l->a->enforce;
    struct err err;
    char *dir = journal_lease_dir(l->a->journal, v->j.id);
    const char *told = strcmp(v->j.reason, "stopped") == 0     ? "stopped"
                       : strcmp(v->j.reason, "lease_end") == 0 ? NULL
                                                               : "revoked";
    if (told != NULL && launch_set_reason(dir, told, &err) != 0)
        log_warn("lease %s: %s", v->j.id, err.text);
    live_step("end_reason");
    if (e->ops->deny(e, v->j.id, &err) != 0)
        log_error("lease %s: the gate could not be closed: %s", v->j.id, err.text);
    live_step("end_deny");
    if (e->ops->kill(e, v->j.id, &err) != 0)
        log_error("lease %s: kill: %s", v->j.id, err.text);
    live_step("end_kill");
    free(dir);
    if (v->ending_boot_us == 0)
        v->ending_boot_us = clock_boot_us();
    v->next_poll_us = 0;
    live_send_interval(l, v);
}

void live_term_jobs(struct leases *l, struct live *v)
{
    struct err err;
    struct launch_job *jobs = NULL;
    size_t count = 0;
    char *dir = journal_lease_dir(l->a->journal, v->j.id);
    struct enforce *e = l->a->enforce;
    if (e->ops->signal_adopted != NULL &&
        e->ops->signal_adopted(e, v->j.id, SIGTERM, &err) != 0)
        log_warn("lease %s: %s", v->j.id, err.text);
    live_step("drain_adopted");
    /* A living keeper does it by itself; a second SIGTERM means "now" to many. */
    if (launch_jobs(dir, &jobs, &count, &err) != 0)
        log_warn("lease %s: %s", v->j.id, err.text);
    for (size_t i = 0; i < count; i++)
        if (jobs[i].started && !jobs[i].ended && !jobs[i].keeper_alive &&
            launch_signal(dir, jobs[i].job, SIGTERM, &err) != 0)
            log_warn("lease %s: %s", v->j.id, err.text);
    launch_jobs_free(jobs, count);
    free(dir);
}

static bool gpu_is_clean(struct leases *l, struct live *v, const char *uuid)
{
    const struct advert_gpu *known = advert_find(&l->a->advert, uuid);
    struct gpu_info now;
    struct err err;
    if (known == NULL) {
        snprintf(v->obstacle, sizeof(v->obstacle), "GPU %s is gone", uuid);
        return false;
    }
    now = known->info;
    if (l->a->gpu_ops->sample(l->a->gpu, &now, &err) != 0)
        snprintf(v->obstacle, sizeof(v->obstacle), "GPU %s: %.60s", uuid, err.text);
    else if (now.lost)
        snprintf(v->obstacle, sizeof(v->obstacle), "GPU %s is lost", uuid);
    else if (now.process_count > 0)
        snprintf(v->obstacle, sizeof(v->obstacle), "GPU %s has %d processes left", uuid,
                 now.process_count);
    else if (now.mem_used_mib > l->a->conf.busy_memory_mib)
        snprintf(v->obstacle, sizeof(v->obstacle), "GPU %s has %lld MiB still in use",
                 uuid, (long long)now.mem_used_mib);
    else
        return true;
    return false;
}

/* Nobody outside the lease has one of its devices open or mapped. */
static bool is_unheld(struct leases *l, struct live *v, const struct gpu_info **gpus,
                      size_t count)
{
    dev_t devices[GPUS_PER_NODE_MAX * GPU_CAPS_MAX];
    struct holders_query q = {.devices = devices, .job_uid = l->a->conf.uid};
    struct holder who;
    struct err err;
    for (size_t i = 0; i < count; i++)
        q.count += devnodes_own(gpus[i], devices + q.count,
                                sizeof(devices) / sizeof(devices[0]) - q.count);
    q.began_boot_us =
        strcmp(v->j.boot_id, l->a->boot_id) == 0
            ? v->j.deadline_boot_us - (v->j.not_after_us - v->j.not_before_us)
            : INT64_MAX;
    int rc = holders_find(&q, &who, &err);
    if (rc == 0)
        return true;
    if (rc > 0)
        snprintf(v->obstacle, sizeof(v->obstacle), "process %d (%s) still %s a device",
                 (int)who.pid, who.name, who.mapped ? "maps" : "holds");
    else
        snprintf(v->obstacle, sizeof(v->obstacle), "%.100s", err.text);
    return false;
}

#define CLEAN_PAUSED (INT64_MAX / 2) /* its time limit does not run */

/* The provider's own program, when there is one. */
static bool is_scrubbed(struct leases *l, struct live *v, const struct gpu_info **gpus,
                        size_t count)
{
    const struct settings *c = &l->a->conf;
    struct err err;
    int rc = 0;
    if (c->scrub_command == NULL || c->scrub_command[0] == '\0' || count == 0 ||
        v->j.state == LEASE_DONE)
        return true;
    if (v->scrub == NULL)
        rc = scrub_begin(c->scrub_command, c->scrub_timeout_us, gpus, count, &v->scrub,
                         &err);
    if (rc == 0)
        rc = scrub_poll(v->scrub, &err);
    if (rc > 0) {
        if (v->cleaning_boot_us == CLEAN_PAUSED)
            v->cleaning_boot_us = clock_boot_us();
        return true;
    }
    /* It has its own time limit: that of cleaning begins when it has ended, and is over
     * at once when it failed. */
    v->cleaning_boot_us = rc < 0 ? clock_boot_us() - 2 * LEASES_CLEAN_US : CLEAN_PAUSED;
    snprintf(v->obstacle, sizeof(v->obstacle), "%.118s",
             rc < 0 ? err.text : "its GPUs are being scrubbed");
    if (rc < 0) {
        scrub_free(v->scrub);
        v->scrub = NULL;
    }
    return false;
}

bool live_clean(struct leases *l, struct live *v)
{
    const struct gpu_info *gpus[GPUS_PER_NODE_MAX];
    struct err err;
    size_t n = live_gpus(l, v, gpus);
    /* While it is scrubbed the driver may not answer for it. */
    if (v->scrub != NULL && !is_scrubbed(l, v, gpus, n))
        return false;
    for (size_t i = 0; i < v->j.gpu_count; i++)
        if (!gpu_is_clean(l, v, v->j.gpus[i]))
            return false;
    if (!is_unheld(l, v, gpus, n) || !is_scrubbed(l, v, gpus, n))
        return false;
    live_step("clean_seen");
    if (l->a->enforce->ops->close(l->a->enforce, v->j.id, &err) != 0) {
        snprintf(v->obstacle, sizeof(v->obstacle), "%.100s", err.text);
        return false;
    }
    live_step("clean_close");
    for (size_t i = 0; i < v->j.gpu_count; i++)
        advert_clean(&l->a->advert, v->j.gpus[i]);
    v->obstacle[0] = '\0';
    return true;
}

/* --- receipts --- */

static size_t collect_evidence(const struct leases *l, const struct live *v,
                               struct usage_evidence *out)
{
    for (size_t i = 0; i < v->j.gpu_count; i++) {
        const struct advert_gpu *g = advert_find(&l->a->advert, v->j.gpus[i]);
        struct usage_evidence *e = &out[i];
        snprintf(e->gpu, sizeof(e->gpu), "%s", v->j.gpus[i]);
        e->utilisation_ppm = g != NULL ? g->info.utilisation_ppm : -1;
        e->memory_mib = g != NULL ? g->info.mem_used_mib : -1;
        e->energy_mj = g != NULL ? g->info.energy_mj : -1;
    }
    return v->j.gpu_count;
}

/* Writes one receipt of this kind for this moment; the moment is never after the
 * lease's end. `at` NULL: now. */
static void send_receipt(struct leases *l, struct live *v, enum usage_kind kind,
                         const struct usage_chain *at)
{
    struct agent *a = l->a;
    struct usage_evidence evidence[GPUS_PER_NODE_MAX];
    struct usage_point p = {.kind = kind,
                            .issuer = a->id.spiffe_id,
                            .boot_id = a->boot_id,
                            .gpus = (const char(*)[TOKEN_GPU_UUID_MAX])v->j.gpus,
                            .gpu_count = v->j.gpu_count,
                            .epoch = v->j.epoch,
                            .evidence = evidence};
    struct err err;
    live_step("receipt");
    p.evidence_count = collect_evidence(l, v, evidence);
    if (at != NULL) {
        p.now_us = at->to_us;
        p.boot_us = at->boot_to_us;
        p.boot_id = at->boot_id;
    } else {
        p.boot_us = clock_boot_us();
        if (p.boot_us > v->j.deadline_boot_us)
            p.boot_us = v->j.deadline_boot_us;
        if (v->j.ended_boot_us > 0 && p.boot_us > v->j.ended_boot_us)
            p.boot_us = v->j.ended_boot_us;
        p.now_us = signedtime_at(&a->time, p.boot_us);
        if (p.now_us > v->j.not_after_us)
            p.now_us = v->j.not_after_us;
    }
    if (spool_add(a->spool, v->j.id, &p, &err) != 0)
        log_error("lease %s: receipt: %s", v->j.id, err.text);
    else
        log_debug("lease %s: %s receipt", v->j.id, usage_kind_name(kind));
    live_step("receipt_spool");
}

static bool may_meter(const struct leases *l, const struct live *v)
{
    return signedtime_is_known(&l->a->time) && strcmp(v->j.boot_id, l->a->boot_id) == 0;
}

void live_send_ready(struct leases *l, struct live *v)
{
    const struct usage_chain *c = spool_chain(l->a->spool, v->j.id);
    if (!may_meter(l, v) || (c != NULL && c->last == USAGE_TEARDOWN))
        return;
    send_receipt(l, v, c != NULL ? USAGE_INTERVAL : USAGE_READY, NULL);
    v->next_receipt_us = clock_boot_us() + l->a->receipt_interval_us;
}

void live_send_interval(struct leases *l, struct live *v)
{
    const struct usage_chain *c = spool_chain(l->a->spool, v->j.id);
    v->next_receipt_us = clock_boot_us() + l->a->receipt_interval_us;
    if (c == NULL || c->last == USAGE_TEARDOWN || !may_meter(l, v))
        return;
    send_receipt(l, v, USAGE_INTERVAL, NULL);
}

void live_send_teardown(struct leases *l, struct live *v)
{
    const struct usage_chain *c = spool_chain(l->a->spool, v->j.id);
    if (c == NULL || c->last == USAGE_TEARDOWN)
        return;
    /* What was used was metered when the end was acted upon; cleaning is not billed. */
    struct usage_chain at = *c;
    send_receipt(l, v, USAGE_TEARDOWN, &at);
}
