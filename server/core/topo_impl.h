/* topo_impl: the tables behind topo.h, shared by its files and by nobody else.
 *
 * Invariants: cell.floor_us, data_row.guess_us, hop.topo_us and pair.possible are those
 * of the places as they are now (each setter refreshes what depends on it), so that
 * queries only read. */
#ifndef NEARGPU_TOPO_IMPL_H
#define NEARGPU_TOPO_IMPL_H
#include "server/core/topo.h"

#define NO_GUESS (-1)

/* What is known of one site and one data set. */
struct topo_cell {
    int64_t rtt_us, min_us, p99_us, count, at_us; /* measured */
    int64_t declared_us, declared_at_us;          /* 0: none */
    int64_t floor_us;                             /* 0: a place is not known */
    double baseline_us;
    int64_t followed_us; /* at_us of the newest window in the baseline */
    int32_t quality_ppm; /* confidence of the measurement while it is fresh */
    uint8_t baseline_count;
    bool measured;
};

struct site_row {
    struct topo_place place;
    struct topo_cell *cells; /* by data set */
    int cell_count;
};

struct data_row {
    struct topo_place place;
    int site;          /* -1: none */
    int32_t *guess_us; /* by site, when it stands at none; NO_GUESS: unknown */
    int guess_count;
};

/* One way between two sites; the matrix is symmetric. */
struct hop {
    int32_t topo_us;  /* NO_GUESS: unknown */
    int32_t declared; /* 1 + index into pairs, 0: none */
    bool linked;      /* topo_us is a path over fibre */
};

struct topo_pair {
    int a, b;
    int64_t rtt_us, at_us; /* 0: withdrawn */
    bool possible;         /* does not beat light */
};

struct topo_link {
    int a, b;
    double km;
};

struct topo {
    struct site_row *sites;
    int site_count;
    struct data_row *data;
    int data_count;
    struct hop *hops; /* side x side */
    int side;
    struct topo_pair *pairs;
    int pair_count, pair_room;
    struct topo_link *links;
    int link_count, link_room;
};

void *topo_grow(void *old, int *count, int index, size_t size);
struct topo_place topo_site_place(const struct topo *t, int site);
struct topo_place topo_data_place(const struct topo *t, int data);
const struct topo_cell *topo_cell(const struct topo *t, int site, int data);
/* Has a fresh or old measurement that light allows. */
bool topo_cell_possible(const struct topo_cell *c);

/* topo_sites.c */
void topo_sites_room(struct topo *t, int site);  /* the matrix has this row */
void topo_sites_moved(struct topo *t, int site); /* its place changed */
/* NULL: none declared, or it beats light. */
const struct topo_pair *topo_pair(const struct topo *t, int a, int b);
const struct hop *topo_hop(const struct topo *t, int a, int b); /* NULL: no such site */

#endif
