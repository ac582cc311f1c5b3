/* world_ids: database numbers to dense indexes. Identity columns count up from 1, so
 * an array is the map. */
#ifndef NEARGPU_WORLD_IDS_H
#define NEARGPU_WORLD_IDS_H
#include <stddef.h>

struct world_id_map {
    int *index; /* index + 1, 0: none */
    size_t cap;
};
struct world_ids {
    struct world_id_map sites, nodes, data, paths;
};

int world_ids_get(const struct world_id_map *m, int id); /* -1: none */
void world_ids_put(struct world_id_map *m, int id, int index);
void world_ids_done(struct world_ids *ids);

#endif
