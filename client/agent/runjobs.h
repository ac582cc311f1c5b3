/* runjobs: a lease's jobs as a tenant sees them. */
#ifndef NEARGPU_AGENT_RUNJOBS_H
#define NEARGPU_AGENT_RUNJOBS_H
#include <jansson.h>

#include "client/agent/journal.h"
#include "client/agent/launch.h"
#include "client/agent/leases.h"
#include "client/lib/err.h"

/* At most so many fit into one frame, at 250 bytes a job. */
#define RUNJOBS_LISTED_MAX 256
#define RUNJOBS_NAME_MAX   40 /* of a run's id and a rank: a UUID fits */

/* [{"job","state","started","exit"?,"run"?,"rank"?}] of the newest RUNJOBS_LISTED_MAX,
 * oldest first; state: starting, running, ended. New reference. */
json_t *runjobs_json(const char *lease_dir, const char *holder);
/* ERR_NOT_FOUND when the lease has none. */
int runjobs_latest(const char *lease_dir, const char *holder, char ret[JOURNAL_ID_MAX],
                   struct err *err) MUST_USE;
/* Whose grant started it; holder "": the lease's own tenant, whose all jobs are. */
bool runjobs_is_of(const char *lease_dir, const char *job, const char *holder);
const char *runjobs_state(const char *lease_dir, const char *job);

#endif
