/* replace: another place for a reservation that was booked, by its stored request, for
 * outages and drills. Reads the world and changes nothing. */
#ifndef NEARGPU_FLOW_REPLACE_H
#define NEARGPU_FLOW_REPLACE_H
#include <jansson.h>

#include "server/flow/plan.h"

struct replace_plan {
    struct match_plan *plan; /* owned */
    struct plan_data where;
};
/* resv: RESV of server/db/store.h. The best plan within its request's bounds, at no
 * higher price a GPU-hour than it has, not at without_site (NULL: anywhere), not
 * earlier than now. ERR_NO_FIT: there is none, err says why; other codes: its request
 * cannot be planned any more (its time has passed, a data set is gone). */
int replace_find(struct world *w, const json_t *resv, const char *without_site,
                 int64_t now_us, struct replace_plan *ret, struct err *err) MUST_USE;
void replace_done(struct replace_plan *r);

/* The GPUs and lanes of RESV out of the calendars, since the new booking replaces the
 * old one in one commit; put back before the step ends, which frees what l has. */
void replace_lift(struct world *w, const json_t *resv, struct world_lifted *l);
void replace_put_back(struct world *w, struct world_lifted *l);

#endif
