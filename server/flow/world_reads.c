/* world_reads: see the header. */
#include "server/flow/world_reads.h"

#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"

#define READS_FIRST 16

static void overtake(struct world_reads *r, int table, int64_t id, uint64_t seq)
{
    for (size_t i = 0; i < r->cap; i++) {
        struct world_reading *x = &r->list[i];
        if (x->used && x->table == table && x->seq < seq &&
            (x->id == id || x->id == 0 || id == 0))
            x->overtaken = true;
    }
}

size_t world_reads_begin(struct world_reads *r, int table, int64_t id, uint64_t flow_id)
{
    size_t number = 0;
    while (number < r->cap && r->list[number].used)
        number++;
    if (number == r->cap) {
        size_t cap = r->cap == 0 ? READS_FIRST : 2 * r->cap;
        r->list = xreallocarray(r->list, cap, sizeof(*r->list));
        memset(r->list + r->cap, 0, (cap - r->cap) * sizeof(*r->list));
        r->cap = cap;
    }
    r->list[number] = (struct world_reading){table, id, flow_id, ++r->seq, true, false};
    return number;
}

bool world_reads_end(struct world_reads *r, size_t number, struct world_reading *ret)
{
    *ret = r->list[number];
    r->list[number].used = false;
    if (ret->overtaken)
        return false;
    overtake(r, ret->table, ret->id, ret->seq);
    return true;
}

void world_reads_loaded(struct world_reads *r, int table)
{
    overtake(r, table, 0, r->seq + 1);
}

void world_reads_done(struct world_reads *r)
{
    free(r->list);
    *r = (struct world_reads){0};
}
