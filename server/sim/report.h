/* report: a run's figures as JSON, and where each job went as CSV. The JSON is the same
 * for the same files, options and seed, but for the members whose names begin with
 * `ns_`. */
#ifndef NEARGPU_SIM_REPORT_H
#define NEARGPU_SIM_REPORT_H
#include "client/lib/err.h"
#include "client/lib/strbuf.h"
#include "server/sim/engine.h"

/* One JSON object, indented, with a line end. Caller frees. */
char *sim_report_json(const struct sim_world *w, const struct sim_options *options,
                      const struct sim_run *run);
/* One row per job that was placed, one per node of a gang, in order of submission. */
void sim_report_place(const struct sim_world *w, const struct sim_run *run,
                      struct strbuf *out);

#endif
