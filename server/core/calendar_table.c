/* calendar_table: open-addressed tables, linear probing, no tombstones.
 *
 * An entry of a booking is 32 bits of its id's hash and its node: two ids with one hash
 * are told apart by the node's own list, so an entry takes 8 bytes and not 24. A table
 * of 2^32 entries is the largest; that is more bookings than memory holds. */
#include <assert.h>
#include <stdlib.h>

#include "client/lib/xalloc.h"
#include "server/core/calendar_int.h"

/* Finaliser of splitmix64 (Vigna): ids are dense, so the low bits need mixing. */
static uint64_t mix(uint64_t x)
{
    x ^= x >> 30;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    x ^= x >> 27;
    x *= UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint32_t hash_of(int64_t id)
{
    return (uint32_t)mix((uint64_t)id);
}

bool table_find(const struct calendar *c, int64_t booking, struct place *ret)
{
    size_t mask = c->entry_size - 1;
    uint32_t hash = hash_of(booking);
    for (size_t i = hash & mask; c->entries[i].node >= 0; i = (i + 1) & mask) {
        if (c->entries[i].hash == hash) {
            const struct node *n = &c->nodes[c->entries[i].node];
            *ret = (struct place){i, c->entries[i].node, node_index_of(n, booking)};
            if (ret->at < n->count) {
                return true;
            }
        }
    }
    return false;
}

static void entry_put(struct calendar *c, struct entry e)
{
    size_t mask = c->entry_size - 1;
    size_t i = e.hash & mask;
    while (c->entries[i].node >= 0) {
        i = (i + 1) & mask;
    }
    c->entries[i] = e;
}

static void entries_resize(struct calendar *c, size_t size)
{
    struct entry *old = c->entries;
    size_t old_size = c->entry_size;
    assert(size <= (size_t)UINT32_MAX + 1);
    c->entries = xreallocarray(NULL, size, sizeof *c->entries);
    c->entry_size = size;
    for (size_t i = 0; i < size; i++) {
        c->entries[i].node = -1;
    }
    for (size_t i = 0; i < old_size; i++) {
        if (old[i].node >= 0) {
            entry_put(c, old[i]);
        }
    }
    free(old);
}

void table_add(struct calendar *c, int64_t booking, int node)
{
    if ((c->entry_count + 1) * 10 > c->entry_size * 7) {
        entries_resize(c, c->entry_size * 2);
    }
    entry_put(c, (struct entry){.hash = hash_of(booking), .node = node});
    c->entry_count++;
}

/* Closes the gap by shifting back (Knuth 6.4 algorithm R). */
void table_remove(struct calendar *c, size_t entry)
{
    size_t hole = entry, mask = c->entry_size - 1;
    for (size_t i = (hole + 1) & mask; c->entries[i].node >= 0; i = (i + 1) & mask) {
        size_t home = c->entries[i].hash & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            c->entries[hole] = c->entries[i];
            hole = i;
        }
    }
    c->entries[hole].node = -1;
    c->entry_count--;
}

/* ---- groups ---- */

static size_t group_slot(const struct calendar *c, int site, int model)
{
    size_t mask = c->group_table_size - 1;
    size_t i = mix((uint64_t)(uint32_t)site << 32 | (uint32_t)model) & mask;
    for (;; i = (i + 1) & mask) {
        int at = c->group_table[i];
        if (at == 0 ||
            (c->groups[at - 1].site == site && c->groups[at - 1].model == model)) {
            return i;
        }
    }
}

struct group *group_get(const struct calendar *c, int site, int model)
{
    int at = c->group_table[group_slot(c, site, model)];
    return at == 0 ? NULL : &c->groups[at - 1];
}

int group_make(struct calendar *c, int site, int model)
{
    size_t slot = group_slot(c, site, model);
    if (c->group_table[slot] != 0) {
        return c->group_table[slot] - 1;
    }
    if (c->group_count == c->group_cap) {
        c->group_cap = c->group_cap * 2 + 8;
        c->groups = xreallocarray(c->groups, c->group_cap, sizeof *c->groups);
    }
    c->groups[c->group_count] =
        (struct group){.site = site, .model = model, .width = 1};
    c->group_table[slot] = (int)++c->group_count;
    if (c->group_count * 2 > c->group_table_size) {
        free(c->group_table);
        c->group_table_size *= 2;
        c->group_table = xcalloc(c->group_table_size, sizeof *c->group_table);
        for (size_t i = 0; i < c->group_count; i++) {
            size_t at = group_slot(c, c->groups[i].site, c->groups[i].model);
            c->group_table[at] = (int)i + 1;
        }
    }
    return (int)c->group_count - 1;
}

void table_init(struct calendar *c)
{
    c->group_table_size = 64;
    c->group_table = xcalloc(c->group_table_size, sizeof *c->group_table);
    entries_resize(c, 64);
}
