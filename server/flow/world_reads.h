/* world_reads: which answers of reads that ran at once may be taken. Reads go over
 * several connections, so that of two for one row the later asked may be answered
 * first; the other may then have looked before the change that the later was asked for.
 * Such an answer is asked for again. Pure; part of a world (world.h). */
#ifndef NEARGPU_WORLD_READS_H
#define NEARGPU_WORLD_READS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct world_reading {
    int table;  /* an enum store_op */
    int64_t id; /* of the row; 0: all of the table */
    uint64_t flow_id, seq;
    bool used, overtaken;
};

/* Zeroed: none are on their way. */
struct world_reads {
    struct world_reading *list;
    size_t cap;
    uint64_t seq;
};

/* One is asked for: its number until it ends. */
size_t world_reads_begin(struct world_reads *r, int table, int64_t id,
                         uint64_t flow_id);
/* It is answered: what was asked, and whether that may be taken. When it may, those
 * asked for before it, of the same rows, may not any more. */
bool world_reads_end(struct world_reads *r, size_t number, struct world_reading *ret);
/* All of a table was taken: nothing of it that is on its way may be. */
void world_reads_loaded(struct world_reads *r, int table);
void world_reads_done(struct world_reads *r);

#endif
