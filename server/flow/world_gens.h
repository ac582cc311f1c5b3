/* world_gens: what was heard last of each reservation. The feed's order is that of
 * transactions' numbers, not of commits: of two changes to one reservation the newer
 * may come first. Event numbers are drawn while the reservation's row is locked, so for
 * one reservation they do grow in the order of its changes: what is older than the last
 * one heard is not applied. Pure. */
#ifndef NEARGPU_WORLD_GENS_H
#define NEARGPU_WORLD_GENS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct world_gens;

struct world_gens *world_gens_new(void);
void world_gens_free(struct world_gens *g);
/* Is event number `event` (0: our own commit, before any event) news of the reservation
 * (uuid text)? Then it is remembered until_us; false: something newer was heard. What
 * is not a uuid is always news. */
bool world_gens_news(struct world_gens *g, const char *reservation, int64_t event,
                     int64_t until_us);
/* Forgets those whose until_us has passed. */
void world_gens_expire(struct world_gens *g, int64_t now_us);
size_t world_gens_count(const struct world_gens *g);

#endif
