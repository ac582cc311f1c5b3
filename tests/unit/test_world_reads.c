/* Answers of reads that run at once: known cases, and random ones against a table whose
 * rows change while they are read: what was taken last is what is there. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "server/flow/world_reads.h"
#include "tests/unit/unit.h"

enum { NODES, SITES };

START_TEST(test_cases)
{
    struct world_reads r = {0};
    struct world_reading x;
    /* In order. */
    size_t a = world_reads_begin(&r, NODES, 1, 7),
           b = world_reads_begin(&r, NODES, 1, 8);
    ck_assert(world_reads_end(&r, a, &x));
    ck_assert_int_eq((int)x.flow_id, 7);
    ck_assert(world_reads_end(&r, b, &x));
    /* The later one first; what is asked again is in order. */
    a = world_reads_begin(&r, NODES, 1, 7);
    b = world_reads_begin(&r, NODES, 1, 8);
    ck_assert(world_reads_end(&r, b, &x));
    ck_assert(!world_reads_end(&r, a, &x));
    ck_assert(x.table == NODES && x.id == 1 && x.flow_id == 7);
    a = world_reads_begin(&r, NODES, 1, 7);
    ck_assert(world_reads_end(&r, a, &x));
    /* Other rows and tables have nothing to do with it; all of a table has. */
    size_t other = world_reads_begin(&r, NODES, 2, 0);
    size_t site = world_reads_begin(&r, SITES, 1, 0);
    size_t all = world_reads_begin(&r, NODES, 0, 0);
    b = world_reads_begin(&r, NODES, 1, 0);
    ck_assert(world_reads_end(&r, b, &x));
    ck_assert(world_reads_end(&r, other, &x));
    ck_assert(world_reads_end(&r, site, &x));
    ck_assert(!world_reads_end(&r, all, &x));
    a = world_reads_begin(&r, NODES, 1, 0);
    site = world_reads_begin(&r, SITES, 1, 0);
    world_reads_loaded(&r, NODES);
    ck_assert(!world_reads_end(&r, a, &x));
    ck_assert(world_reads_end(&r, site, &x));
    world_reads_done(&r);
}
END_TEST

#define ROWS   4
#define FLYING 40

START_TEST(test_random)
{
    struct world_reads r = {0};
    struct world_reading x;
    struct flight {
        size_t number;
        int64_t id;
        int seen[ROWS];
        bool looked;
    } flying[FLYING];
    int there[ROWS] = {0}, taken[ROWS] = {0}, count = 0, again = 0;
    unsigned seed = (unsigned)time(NULL);
    printf("seed %u\n", seed);
    for (int step = 0; step < 200000; step++) {
        bool ends = step > 199000; /* nothing new, until all are answered */
        int what = rand_r(&seed) % 3;
        if (what == 0 && count < FLYING && !ends) {
            int row = rand_r(&seed) % ROWS;
            there[row]++; /* and what changed is read */
            int64_t id = rand_r(&seed) % 9 == 0 ? 0 : row + 1;
            flying[count++] = (struct flight){
                .number = world_reads_begin(&r, NODES, id, 0), .id = id};
        } else if (what == 1 && count > 0) { /* one is executed */
            struct flight *f = &flying[rand_r(&seed) % count];
            for (int i = 0; i < ROWS && !f->looked; i++)
                f->seen[i] = there[i];
            f->looked = true;
        } else if (what == 2 && count > 0) { /* one is answered */
            int k = rand_r(&seed) % count;
            struct flight f = flying[k];
            if (!f.looked)
                continue;
            flying[k] = flying[--count];
            if (world_reads_end(&r, f.number, &x)) {
                for (int i = 0; i < ROWS; i++)
                    if (f.id == 0 || f.id == i + 1)
                        taken[i] = f.seen[i];
                continue;
            }
            again++;
            flying[count++] = (struct flight){
                .number = world_reads_begin(&r, NODES, f.id, 0), .id = f.id};
        }
    }
    ck_assert_int_eq(count, 0);
    ck_assert_int_gt(again, 1000);
    for (int i = 0; i < ROWS; i++)
        ck_assert_int_eq(taken[i], there[i]);
    world_reads_done(&r);
}
END_TEST

UNIT_MAIN("world_reads", UNIT_CASE(test_cases) UNIT_CASE(test_random))
