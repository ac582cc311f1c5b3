/* room: how many GPUs of each node are taken over time, when it does not matter which.
 * For planning ahead: a plan that only counts GPUs can always be carried out, because
 * which ones a job gets is decided when it starts. (The calendar says exactly which
 * from the beginning, so a plan kept in it loses room to fragmentation.)
 *
 * Half-open intervals in microseconds; the past can be forgotten. Pure. */
#ifndef NEARGPU_SIM_ROOM_H
#define NEARGPU_SIM_ROOM_H
#include <stdbool.h>
#include <stdint.h>

#include "server/sim/world.h"

struct room;

struct room *room_new(const struct sim_world *w); /* w is borrowed */
void room_free(struct room *r);
/* Takes `gpus` of the node during [from, to). The caller keeps to what room_find said.
 */
void room_take(struct room *r, int node, int gpus, int64_t from_us, int64_t to_us);
/* What was before `now` is not asked for any more. */
void room_forget(struct room *r, int node, int64_t now_us);

struct room_query {
    int site, model;
    int nodes, gpus; /* so many nodes with so many GPUs each */
    int64_t from_us, latest_us, len_us;
    uint32_t spread;
};
/* The earliest start in [from, latest] at which the place has room for all of
 * [start, start + len). Fills ret_nodes[0..nodes): nodes with fewest free GPUs first,
 * ties lowest (node ^ spread). False: there is none. */
bool room_find(struct room *r, const struct room_query *q, int64_t *ret_start_us,
               int *ret_nodes);

#endif
