/* world: the market and the trace as the files of `neargpu-sim` tell them. Sites are
 * the names in the RTT matrix in order of first appearance; data lives at sites. Names
 * and numbers are checked here, so that the engine meets no bad value: what does not
 * fit is refused with file and line. Everything belongs to the world.
 *
 * It draws nothing by chance: a job without data has SIM_DATA_DRAWN.
 *
 * Rules where a file leaves something open:
 *   a node without `site`   round robin over the sites, nodes without GPUs not counted
 *   an RTT pair not given   unknown, in each direction for itself; a site to itself is
 * 0 a price not given       not for sale there, when there is a price file at all a
 * profile's field that the file has no column for: as the built-in profile of the same
 * name, else local loading as the model says it for 0 ms
 */
#ifndef NEARGPU_SIM_WORLD_H
#define NEARGPU_SIM_WORLD_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"
#include "server/core/slowdown.h"
#include "server/sim/names.h"

#define SIM_FILE_MAX  (INT64_C(1) << 30) /* read whole; a trace of 10 M jobs fits */
#define SIM_SITES_MAX 4096               /* the matrix is kept dense */
#define SIM_TIME_MAX_US                                                              \
    INT64_C(100000000000000000)                     /* 3,000 years; sums fit 64 bits \
                                                     */
#define SIM_GPUS_MAX      1000000                   /* of one job */
#define SIM_PRICE_MAX     INT64_C(1000000000000000) /* micro: 1e9 per GPU-hour */
#define SIM_RTT_MAX_US    INT64_C(3600000000)
#define SIM_RTT_UNKNOWN   INT64_C(-1)
#define SIM_PRICE_UNKNOWN INT64_C(-1)
#define SIM_DATA_DRAWN    (-1)

struct sim_node {
    char *name;
    int site, model, gpus;
};
struct sim_job {
    char *name;
    int64_t submit_us, duration_us; /* duration: with the data next to the GPUs */
    int gpus;
    int wish;    /* index into wishes */
    int data;    /* site, or SIM_DATA_DRAWN */
    int profile; /* index into profiles, -1 none */
};
struct sim_profile {
    struct slowdown_profile model;
    /* No source says what loading takes with the data next door: the model does, for
     * 0 ms and the job's GPUs. */
    bool local_is_modelled;
};
struct sim_world {
    struct names sites, models;
    struct names wishes;              /* GPU models as jobs ask for them: "", "A|B" */
    int64_t *rtt_us;                  /* [site * sites.count + data] */
    int64_t *price_micro;             /* [site * models.count + model], per GPU-hour */
    struct sim_node *nodes;           /* as in the file */
    size_t node_count, skipped_nodes; /* skipped: without GPUs */
    struct sim_job *jobs;             /* by submission, then as in the file */
    size_t job_count, skipped_jobs;
    struct names profile_names;
    struct sim_profile *profiles;
    size_t profile_count;
};
struct sim_files {
    const char *nodes, *jobs, *rtt;
    const char *profiles, *prices; /* NULL: none */
};

/* sim_done after success or failure. */
int sim_load(struct sim_world *w, const struct sim_files *files,
             struct err *err) MUST_USE;
void sim_done(struct sim_world *w);

/* The job's profile for its number of GPUs; false when it has none. Names in *ret
 * belong to the world. */
bool sim_job_profile(const struct sim_world *w, const struct sim_job *job,
                     struct slowdown_profile *ret);

/* The files one by one, in this order; sim_load calls them. */
int sim_load_rtt(struct sim_world *w, const char *path, struct err *err) MUST_USE;
int sim_load_nodes(struct sim_world *w, const char *path, struct err *err) MUST_USE;
int sim_load_prices(struct sim_world *w, const char *path, struct err *err) MUST_USE;
int sim_load_profiles(struct sim_world *w, const char *path, struct err *err) MUST_USE;
int sim_load_jobs(struct sim_world *w, const char *path, struct err *err) MUST_USE;

#endif
