/* jobs: the trace, in one of two forms, told apart by the header:
 *   submit_s,duration_s,gpus[,job,gpu_model,data,profile]
 *   num_gpu,gpu_spec,creation_s,deletion_s[,name,data,profile]    (openb)
 * An optional cell that is empty means the same as no such column. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"
#include "server/sim/csv.h"
#include "server/sim/world.h"

enum {
    JOB_BEGIN,
    JOB_LENGTH, /* duration, or when it ended */
    JOB_GPUS,
    JOB_MODEL,
    JOB_NAME,
    JOB_DATA,
    JOB_PROFILE,
    JOB_COLUMNS
};

struct jobs_file {
    struct csv csv;
    bool openb;
    struct csv_column columns[JOB_COLUMNS];
    struct names names;
    size_t cap;
};

static int bind_form(struct jobs_file *f, struct err *err)
{
    const struct csv *c = &f->csv;
    f->openb =
        !csv_has(c, "submit_s") && (csv_has(c, "num_gpu") || csv_has(c, "creation_s"));
    f->columns[JOB_BEGIN] =
        (struct csv_column){f->openb ? "creation_s" : "submit_s", true, 0};
    f->columns[JOB_LENGTH] =
        (struct csv_column){f->openb ? "deletion_s" : "duration_s", true, 0};
    f->columns[JOB_GPUS] = (struct csv_column){f->openb ? "num_gpu" : "gpus", true, 0};
    f->columns[JOB_MODEL] =
        (struct csv_column){f->openb ? "gpu_spec" : "gpu_model", f->openb, 0};
    f->columns[JOB_NAME] = (struct csv_column){f->openb ? "name" : "job", false, 0};
    f->columns[JOB_DATA] = (struct csv_column){"data", false, 0};
    f->columns[JOB_PROFILE] = (struct csv_column){"profile", false, 0};
    return csv_bind(c, f->columns, JOB_COLUMNS, err);
}

static int read_times(const struct jobs_file *f, struct sim_job *job, struct err *err)
{
    int64_t length;
    if (csv_micro(&f->csv, &f->columns[JOB_BEGIN], SIM_TIME_MAX_US, &job->submit_us,
                  err) != 0 ||
        csv_micro(&f->csv, &f->columns[JOB_LENGTH], SIM_TIME_MAX_US, &length, err) !=
            0) {
        return -1;
    }
    if (f->openb && length < job->submit_us) {
        return csv_refuse(&f->csv, err, "deletion_s is before creation_s");
    }
    job->duration_us = f->openb ? length - job->submit_us : length;
    return 0;
}

/* "A|B": each part must be there. */
static int read_wish(struct sim_world *w, const struct jobs_file *f,
                     struct sim_job *job, struct err *err)
{
    const struct csv_column *column = &f->columns[JOB_MODEL];
    const char *wish = csv_text(&f->csv, column);
    size_t len = strlen(wish);
    if (len > 0 && csv_name(&f->csv, column, &wish, err) != 0) {
        return -1;
    }
    if (len > 0 && (wish[0] == '|' || wish[len - 1] == '|' || strstr(wish, "||"))) {
        return csv_refuse(&f->csv, err, "%s '%.60s' has an empty part", column->name,
                          wish);
    }
    job->wish = names_add(&w->wishes, wish, NULL);
    return 0;
}

static int read_references(const struct sim_world *w, const struct jobs_file *f,
                           struct sim_job *job, struct err *err)
{
    const char *data = csv_text(&f->csv, &f->columns[JOB_DATA]);
    const char *profile = csv_text(&f->csv, &f->columns[JOB_PROFILE]);
    job->data = data[0] == '\0' ? SIM_DATA_DRAWN : names_find(&w->sites, data);
    if (data[0] != '\0' && job->data < 0) {
        return csv_refuse(&f->csv, err, "data '%.80s' is no site of the RTT matrix",
                          data);
    }
    job->profile = profile[0] == '\0' ? -1 : names_find(&w->profile_names, profile);
    if (profile[0] != '\0' && job->profile < 0) {
        return csv_refuse(&f->csv, err, "profile '%.80s' is not known", profile);
    }
    return 0;
}

/* The job's own name, or the number of its row. */
static int read_name(struct jobs_file *f, struct sim_job *job, size_t row,
                     struct err *err)
{
    const struct csv_column *column = &f->columns[JOB_NAME];
    const char *name;
    bool is_new;
    if (column->index < 0) {
        job->name = xasprintf("%zu", row);
        return 0;
    }
    if (csv_name(&f->csv, column, &name, err) != 0) {
        return -1;
    }
    names_add(&f->names, name, &is_new);
    if (!is_new) {
        return csv_refuse(&f->csv, err, "job '%.80s' stands there twice", name);
    }
    job->name = xstrdup(name);
    return 0;
}

/* Each row is checked whole, also one that is then passed over. */
static int read_job(struct sim_world *w, struct jobs_file *f, struct err *err)
{
    struct sim_job job = {0};
    int64_t gpus;
    if (csv_whole(&f->csv, &f->columns[JOB_GPUS], 0, SIM_GPUS_MAX, &gpus, err) != 0 ||
        read_times(f, &job, err) != 0 || read_wish(w, f, &job, err) != 0 ||
        read_references(w, f, &job, err) != 0 ||
        read_name(f, &job, w->job_count + w->skipped_jobs + 1, err) != 0) {
        return -1;
    }
    if (gpus == 0) {
        free(job.name);
        w->skipped_jobs++;
        return 0;
    }
    job.gpus = (int)gpus;
    if (w->job_count == f->cap) {
        f->cap = f->cap == 0 ? 1024 : f->cap * 2;
        w->jobs = xreallocarray(w->jobs, f->cap, sizeof *w->jobs);
    }
    w->jobs[w->job_count++] = job;
    return 0;
}

static bool goes_first(const struct sim_job *a, const struct sim_job *b)
{
    return a->submit_us <= b->submit_us;
}

/* Merge sort: jobs of one instant stay in the order of the file. */
static void sort_jobs(struct sim_job *jobs, size_t count, struct sim_job *room)
{
    if (count < 2) {
        return;
    }
    size_t half = count / 2, a = 0, b = half;
    sort_jobs(jobs, half, room);
    sort_jobs(jobs + half, count - half, room);
    for (size_t i = 0; i < count; i++) {
        bool left = a < half && (b == count || goes_first(&jobs[a], &jobs[b]));
        room[i] = jobs[left ? a++ : b++];
    }
    memcpy(jobs, room, count * sizeof *jobs);
}

int sim_load_jobs(struct sim_world *w, const char *path, struct err *err)
{
    struct jobs_file f = {0};
    char *text;
    size_t len;
    bool more = false;
    if (fsx_read(path, SIM_FILE_MAX, &text, &len, err) != 0) {
        return -1;
    }
    int rc = csv_open_take(&f.csv, path, text, len, err);
    if (rc == 0) {
        rc = bind_form(&f, err);
    }
    while (rc == 0 && (rc = csv_next(&f.csv, &more, err)) == 0 && more) {
        rc = read_job(w, &f, err);
    }
    if (rc == 0 && w->job_count > 0) {
        struct sim_job *room = xreallocarray(NULL, w->job_count, sizeof *room);
        sort_jobs(w->jobs, w->job_count, room);
        free(room);
    }
    names_done(&f.names);
    csv_done(&f.csv);
    return rc;
}
