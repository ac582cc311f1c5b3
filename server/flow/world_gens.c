/* world_gens: an open table with linear probing; a removal makes the table anew (see
 * the header for what it is for). */
#include "server/flow/world_gens.h"

#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"

struct gen {
    uint64_t hi, lo; /* both 0: free */
    int64_t event, until_us;
};
struct world_gens {
    struct gen *table;
    size_t cap, count; /* cap: a power of two */
};

#define CAP_MIN 64

struct world_gens *world_gens_new(void)
{
    struct world_gens *g = xcalloc(1, sizeof(*g));
    g->cap = CAP_MIN;
    g->table = xcalloc(g->cap, sizeof(*g->table));
    return g;
}

void world_gens_free(struct world_gens *g)
{
    if (g == NULL)
        return;
    free(g->table);
    free(g);
}

static int nibble(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static bool key_of(const char *text, struct gen *ret)
{
    int digits = 0;
    *ret = (struct gen){0, 0, 0, 0};
    for (; *text != '\0'; text++) {
        int v = nibble(*text);
        if (*text == '-')
            continue;
        if (v < 0 || digits == 32)
            return false;
        ret->hi = ret->hi << 4 | ret->lo >> 60;
        ret->lo = ret->lo << 4 | (uint64_t)v;
        digits++;
    }
    return digits == 32 && (ret->hi | ret->lo) != 0;
}

/* Ids begin with their time: the random rest says where they go. */
static struct gen *place(struct gen *table, size_t cap, const struct gen *key)
{
    uint64_t h = (key->lo ^ key->hi) * UINT64_C(0x9e3779b97f4a7c15);
    size_t i = (size_t)(h >> 20) & (cap - 1);
    while ((table[i].hi | table[i].lo) != 0 &&
           (table[i].hi != key->hi || table[i].lo != key->lo))
        i = (i + 1) & (cap - 1);
    return &table[i];
}

/* Moves what lasts longer than now_us into a table that it fills at most half. */
static void remake(struct world_gens *g, int64_t now_us)
{
    size_t left = 0, cap = CAP_MIN;
    for (size_t i = 0; i < g->cap; i++)
        left += (g->table[i].hi | g->table[i].lo) != 0 && g->table[i].until_us > now_us;
    while (cap < 2 * (left + 1))
        cap *= 2;
    struct gen *table = xcalloc(cap, sizeof(*table));
    for (size_t i = 0; i < g->cap; i++)
        if ((g->table[i].hi | g->table[i].lo) != 0 && g->table[i].until_us > now_us)
            *place(table, cap, &g->table[i]) = g->table[i];
    free(g->table);
    g->table = table;
    g->cap = cap;
    g->count = left;
}

bool world_gens_news(struct world_gens *g, const char *reservation, int64_t event,
                     int64_t until_us)
{
    struct gen key;
    if (reservation == NULL || !key_of(reservation, &key))
        return true;
    struct gen *at = place(g->table, g->cap, &key);
    if ((at->hi | at->lo) != 0) {
        if (event < at->event)
            return false;
        at->event = event;
        at->until_us = until_us > at->until_us ? until_us : at->until_us;
        return true;
    }
    key.event = event;
    key.until_us = until_us;
    *at = key;
    if (4 * ++g->count > 3 * g->cap)
        remake(g, INT64_MIN);
    return true;
}

void world_gens_expire(struct world_gens *g, int64_t now_us)
{
    remake(g, now_us);
}

size_t world_gens_count(const struct world_gens *g)
{
    return g->count;
}
