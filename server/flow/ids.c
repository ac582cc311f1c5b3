/* ids: see the header. A freed slot's generation is raised at once, so that an old
 * handle misses even before the slot is used again. */
#include "server/flow/ids.h"

#include <assert.h>
#include <stdlib.h>

#include "client/lib/xalloc.h"

void ids_done(struct ids *t)
{
    free(t->slots);
    *t = (struct ids){0};
}

static void ids_grow(struct ids *t)
{
    uint32_t cap = t->cap == 0 ? 64 : t->cap * 2;
    t->slots = xreallocarray(t->slots, cap, sizeof(t->slots[0]));
    t->cap = cap;
}

uint64_t ids_add(struct ids *t, void *thing)
{
    assert(thing != NULL);
    uint32_t slot;
    if (t->free_head != 0) {
        slot = t->free_head - 1;
        t->free_head = t->slots[slot].next_free;
    } else {
        if (t->count == t->cap)
            ids_grow(t);
        slot = t->count++;
        t->slots[slot].generation = 1;
    }
    t->slots[slot].thing = thing;
    t->slots[slot].next_free = 0;
    t->live++;
    return (uint64_t)t->slots[slot].generation << 32 | slot;
}

void *ids_find(const struct ids *t, uint64_t id)
{
    uint32_t slot = (uint32_t)id;
    if (slot >= t->count || t->slots[slot].generation != (uint32_t)(id >> 32))
        return NULL;
    return t->slots[slot].thing;
}

void ids_drop(struct ids *t, uint64_t id)
{
    assert(ids_find(t, id) != NULL);
    struct ids_slot *s = &t->slots[(uint32_t)id];
    s->thing = NULL;
    s->generation++;
    if (s->generation == 0)
        s->generation = 1; /* 0 would make handle 0 of slot 0 valid */
    s->next_free = t->free_head;
    t->free_head = (uint32_t)id + 1;
    t->live--;
}
