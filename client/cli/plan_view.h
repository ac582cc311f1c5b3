/* plan_view: what a reservation, or the plan of one, consists of, as people read it.
 * Pure but for the zone that is handed in. */
#ifndef NEARGPU_PLAN_VIEW_H
#define NEARGPU_PLAN_VIEW_H
#include "client/cli/render.h"

/* Tables of nodes (or of GPUs), groups, paths and data sets, each with an empty line
 * after it; those that are empty are left out. Always tables, never marked. */
void plan_view(const json_t *resv, bool each_gpu, const struct render_opts *opts,
               struct strbuf *out);
/* What is the matter with it: its place in the waiting list, whose fault its end was;
 * one line without a line end, or nothing. */
void plan_view_note(const json_t *resv, render_zone_fn *zone, struct strbuf *out);

#endif
