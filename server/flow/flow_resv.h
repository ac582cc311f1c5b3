/* flow_resv: what the flows that change one reservation have in common: its id in the
 * path, the generation a change is for. */
#ifndef NEARGPU_FLOW_RESV_H
#define NEARGPU_FLOW_RESV_H
#include <stdint.h>

#include "client/lib/err.h"
#include "server/flow/flow.h"

/* The {id} of the path, borrowed. ERR_NOT_FOUND when it cannot be one. */
int resv_id(const struct flow *f, const char **ret, struct err *err) MUST_USE;
/* If-Match into *generation, which has the body's member or 0; both must agree. */
int resv_if_match(const struct flow *f, int64_t *generation, struct err *err) MUST_USE;

#endif
