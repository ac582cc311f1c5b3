/* chart: capacity over time as rows of text, for people; programs take the figures.
 * Pure: the zone of the time axis and whether the terminal knows block characters are
 * handed in. */
#ifndef NEARGPU_CHART_H
#define NEARGPU_CHART_H
#include "client/cli/render.h"

#define CHART_COLUMNS 72 /* steps in one table; more make further tables */

/* reply: {"from","step","offers":[{site,provider,gpu_model,total,steps:[{free,
 * best_node}]}]}. Two rows an offer: `free` in blocks (without blocks: tenths, 1 to 9),
 * and `node`, the most on one node (1 to 9, then a to z); "." is none. */
void chart_calendar(const json_t *reply, bool blocks, const struct render_opts *o,
                    struct strbuf *out);

#endif
