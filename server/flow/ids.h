/* ids: handles for things that may end before somebody still names them.
 *
 * A handle is 64 bits: a slot number and that slot's generation. Looking one up costs
 * an array access, and a handle whose thing has ended finds NULL, for ever: callbacks
 * keep handles, never pointers. 0 is no handle. Pure. */
#ifndef NEARGPU_IDS_H
#define NEARGPU_IDS_H
#include <stddef.h>
#include <stdint.h>

struct ids_slot {
    void *thing; /* NULL: free */
    uint32_t generation;
    uint32_t next_free; /* slot number + 1, 0: none */
};

struct ids {
    struct ids_slot *slots;
    uint32_t count, cap;
    uint32_t free_head; /* slot number + 1, 0: none */
    size_t live;
};

void ids_done(struct ids *t);
uint64_t ids_add(struct ids *t, void *thing);
void *ids_find(const struct ids *t, uint64_t id);
void ids_drop(struct ids *t, uint64_t id); /* must be live (assertion) */

#endif
