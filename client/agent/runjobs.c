/* runjobs: see runjobs.h. */
#include "client/agent/runjobs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/xalloc.h"

static const char *state_of(const struct launch_job *j)
{
    return j->ended ? "ended" : j->started ? "running" : "starting";
}

/* What a gang's ranks were told of themselves, so that their tenant finds them again.
 */
static void add_rank(json_t *o, const char *lease_dir, const char *job)
{
    static const char *const names[][2] = {{"run", "NEARGPU_RUN="},
                                           {"rank", "NEARGPU_RANK="}};
    struct launch_spec spec = {0};
    char *dir = xasprintf("%s/jobs/%s", lease_dir, job);
    struct err ignored;
    if (launch_spec_read(dir, &spec, &ignored) == 0) {
        for (size_t i = 0; spec.envp[i] != NULL; i++)
            for (size_t k = 0; k < 2; k++) {
                size_t len = strlen(names[k][1]);
                const char *value = spec.envp[i] + len;
                if (strncmp(spec.envp[i], names[k][1], len) == 0 &&
                    strlen(value) <= RUNJOBS_NAME_MAX)
                    json_object_set_new(o, names[k][0],
                                        k == 0 ? json_string(value)
                                               : json_integer(strtol(value, NULL, 10)));
            }
        launch_spec_done(&spec);
    }
    free(dir);
}

bool runjobs_is_of(const char *lease_dir, const char *job, const char *holder)
{
    struct launch_spec spec = {0};
    struct err ignored;
    if (holder[0] == '\0')
        return true;
    if (!journal_id_is_valid(job))
        return false;
    char *dir = xasprintf("%s/jobs/%s", lease_dir, job);
    bool is = launch_spec_read(dir, &spec, &ignored) == 0 && spec.holder != NULL &&
              strcmp(spec.holder, holder) == 0;
    launch_spec_done(&spec);
    free(dir);
    return is;
}

json_t *runjobs_json(const char *lease_dir, const char *holder)
{
    struct launch_job *jobs = NULL;
    size_t count = 0;
    json_t *list = json_array();
    if (launch_jobs(lease_dir, &jobs, &count, NULL) != 0)
        return list;
    size_t first = count > RUNJOBS_LISTED_MAX ? count - RUNJOBS_LISTED_MAX : 0;
    for (size_t i = first; i < count; i++) {
        if (!runjobs_is_of(lease_dir, jobs[i].job, holder))
            continue;
        json_t *o = json_object();
        json_object_set_new(o, "job", json_string(jobs[i].job));
        json_object_set_new(o, "state", json_string(state_of(&jobs[i])));
        json_object_set_new(o, "started",
                            jobs[i].started_us > 0 ? jsonx_time(jobs[i].started_us)
                                                   : json_null());
        if (jobs[i].exit_json != NULL) {
            json_t *e = json_loads(jobs[i].exit_json, 0, NULL);
            json_object_set_new(o, "exit", e != NULL ? e : json_null());
        }
        add_rank(o, lease_dir, jobs[i].job);
        json_array_append_new(list, o);
    }
    launch_jobs_free(jobs, count);
    return list;
}

int runjobs_latest(const char *lease_dir, const char *holder, char ret[JOURNAL_ID_MAX],
                   struct err *err)
{
    struct launch_job *jobs = NULL;
    size_t count = 0;
    if (launch_jobs(lease_dir, &jobs, &count, err) != 0)
        return -1;
    size_t last = count;
    while (last > 0 && !runjobs_is_of(lease_dir, jobs[last - 1].job, holder))
        last--;
    if (last > 0)
        snprintf(ret, JOURNAL_ID_MAX, "%s", jobs[last - 1].job);
    launch_jobs_free(jobs, count);
    return last > 0 ? 0 : err_set(err, ERR_NOT_FOUND, "no job was started");
}

const char *runjobs_state(const char *lease_dir, const char *job)
{
    struct launch_job *jobs = NULL;
    size_t count = 0;
    const char *state = "starting";
    if (launch_jobs(lease_dir, &jobs, &count, NULL) != 0)
        return state;
    for (size_t i = 0; i < count; i++)
        if (strcmp(jobs[i].job, job) == 0)
            state = state_of(&jobs[i]);
    launch_jobs_free(jobs, count);
    return state;
}
