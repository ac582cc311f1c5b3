/* names: FNV-1a, linear probing, never more than half full. */
#include "server/sim/names.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"

static uint32_t hash(const char *name)
{
    uint32_t h = UINT32_C(2166136261);
    for (; *name != '\0'; name++) {
        h = (h ^ (unsigned char)*name) * UINT32_C(16777619);
    }
    return h;
}

/* Slot of the name, or the empty one where it belongs. */
static int slot_of(const struct names *n, const char *name)
{
    uint32_t mask = (uint32_t)n->slot_count - 1;
    uint32_t at = hash(name) & mask;
    while (n->slots[at] != 0 && strcmp(n->items[n->slots[at] - 1], name) != 0) {
        at = (at + 1) & mask;
    }
    return (int)at;
}

static void grow(struct names *n)
{
    free(n->slots);
    n->slot_count = n->slot_count == 0 ? 16 : n->slot_count * 2;
    n->slots = xcalloc((size_t)n->slot_count, sizeof *n->slots);
    n->items = xreallocarray(n->items, (size_t)n->slot_count / 2, sizeof *n->items);
    for (int i = 0; i < n->count; i++) {
        n->slots[slot_of(n, n->items[i])] = i + 1;
    }
}

void names_done(struct names *n)
{
    for (int i = 0; i < n->count; i++) {
        free(n->items[i]);
    }
    free(n->items);
    free(n->slots);
    *n = (struct names){0};
}

int names_add(struct names *n, const char *name, bool *ret_is_new)
{
    if (n->count >= n->slot_count / 2) {
        grow(n);
    }
    int slot = slot_of(n, name);
    bool is_new = n->slots[slot] == 0;
    if (is_new) {
        n->items[n->count] = xstrdup(name);
        n->slots[slot] = ++n->count;
    }
    if (ret_is_new != NULL) {
        *ret_is_new = is_new;
    }
    return n->slots[slot] - 1;
}

int names_find(const struct names *n, const char *name)
{
    return n->slot_count == 0 ? -1 : n->slots[slot_of(n, name)] - 1;
}
