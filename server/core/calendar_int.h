/* calendar_int: what the files of the calendar share. Not for others.
 *
 * calendar.c        nodes, groups and bookings: what changes
 * calendar_table.c  which node has a booking, which group has a site and model
 * calendar_node.c   one node's intervals: exact to the microsecond
 * calendar_index.c  a group's blocks of time: which nodes may be free
 * calendar_summary.c how many nodes of a group are free when: refuses without a look
 * calendar_try.c    one start on all nodes of a group, by the blocks
 * calendar_find.c   questions to a group that has an index
 * calendar_scan.c   the same questions by a look at each node: small groups, and times
 *                   that the index does not reach
 *
 * An index covers the slots [base, base + SLOTS) of SLOT_US each. It only
 * prunes: what is not certain from it is looked up in the node's intervals. */
#ifndef NEARGPU_CALENDAR_INT_H
#define NEARGPU_CALENDAR_INT_H
#include "server/core/calendar.h"

#define CALENDAR_NEVER INT64_MAX

#define SLOT_US     (INT64_C(15) * 60 * 1000000)
#define BLOCK_MAX   32                        /* slots of the longest block: 8 hours */
#define SLOTS_AHEAD (14 * 24 * 4)             /* 14 days */
#define SLOTS       (SLOTS_AHEAD + BLOCK_MAX) /* the base moves on by BLOCK_MAX */
#define LEVELS      8                         /* lengths that are summed up */
#define SUMMARY_MAX 95                        /* slots of the longest */
#define CLASSES     8 /* lengths of runs that the summaries tell apart */

/* Below this many nodes a look at each costs less than an index would keep. */
#define INDEX_NODES_MIN 4
/* The counts of a summary are 16 bits wide; a larger group is scanned. */
#define INDEX_NODES_MAX 65535

struct booking {
    int64_t id, from_us, to_us;
    uint64_t mask;
};

/* What a look at its intervals reads comes first: it is one line of the cache. */
struct node {
    struct booking *bookings; /* by from_us */
    uint64_t offered;         /* 0 unless is_set */
    int64_t longest_us;       /* no booking is longer */
    int64_t last_us;          /* no booking ends later */
    int64_t first_from_us,
        span_us; /* of the list: the first from_us, to the last one */
    uint32_t count, cap;
    uint32_t window_count;
    bool is_set;
    struct calendar_span *windows;
    int site, model, domain, gpus;
    int run;             /* the longest in offered */
    int group, group_at; /* where in which group */
};

/* One node over the slots [from,to): GPUs free during the whole slot, and whether a
 * booking or window begins or ends inside the slot (not at its edge), so that a part
 * of the slot says something else than the whole. */
struct column {
    int64_t from, to;
    uint64_t free[SLOTS];
    bool edge[SLOTS];
};

/* Positions are those in group.nodes. A row is one block of time: a mask of `width`
 * bytes per position, 0 behind the last. */
struct index {
    int64_t base;  /* first slot, a multiple of BLOCK_MAX */
    int width;     /* bytes per node: 1, 2, 4 or 8 */
    size_t stride; /* bytes per row, a multiple of 64 */
    size_t words;  /* 64-bit words per set of positions */
    uint8_t *rows;
    uint64_t *edges; /* per slot a set of positions */
    /* Per level, class and start: how many nodes have a run of at least the class
     * during all slots of the level from the start on. Per level and start: the longest
     * class of any node. */
    uint16_t (*counts)[CLASSES][SLOTS];
    uint8_t (*tops)[SLOTS];
    /* Of the question being asked: what was found of each position. */
    uint8_t *masks;
    uint64_t *sure, *maybe, *exact, *core;
    void *memory;
    size_t bytes; /* of memory */
};

/* What a refusal reads comes first: it is one line of the cache. */
struct group {
    int site, model;
    int largest;         /* run of its nodes */
    int width;           /* bytes for the masks of its largest node */
    struct index *index; /* NULL: scanned */
    int *nodes;
    int *domain_at; /* per position: index in domains */
    struct group_domain {
        int id, nodes, found; /* found: of the question being asked */
    } * domains;
    size_t count, cap, domain_count;
    int run_count[GPUS_PER_NODE_MAX + 1]; /* nodes whose longest offered run it is */
};

struct entry {
    uint32_t hash;
    int32_t node; /* -1: empty */
};

struct calendar {
    struct node *nodes;
    int64_t *first_end_us; /* per node: no booking ends earlier */
    int node_count;
    struct group *groups;
    size_t group_count, group_cap;
    int *group_table; /* index + 1 into groups, 0: empty */
    size_t group_table_size;
    struct entry *entries;
    size_t entry_count, entry_size; /* size: a power of two */
    bool has_base;                  /* calendar_expire said where time is */
    int64_t base;                   /* where an index begins, or will soon */
    struct column old, new;         /* scratch of a change */
};

/* ---- small arithmetic ---- */

static inline int64_t slot_floor(int64_t us)
{
    return us / SLOT_US - (us % SLOT_US < 0);
}

static inline int64_t slot_ceil(int64_t us)
{
    return us / SLOT_US + (us % SLOT_US > 0);
}

static inline int64_t add_capped(int64_t a, int64_t b)
{
    int64_t sum;
    return __builtin_add_overflow(a, b, &sum) ? (b > 0 ? INT64_MAX : INT64_MIN) : sum;
}

static inline int64_t length_us(int64_t from_us, int64_t to_us)
{
    int64_t len;
    return __builtin_sub_overflow(to_us, from_us, &len) ? INT64_MAX : len;
}

static inline int64_t max_i64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline int64_t min_i64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- runs of bits (calendar_node.c) ---- */

static inline uint64_t low_bits(int count)
{
    return count >= 64 ? UINT64_MAX : (UINT64_C(1) << count) - 1;
}

/* Bits at which a run of at least count set bits starts. */
static inline uint64_t run_starts(uint64_t mask, int count)
{
    int have = 1;
    while (have < count && mask != 0) {
        int step = have < count - have ? have : count - have;
        mask &= mask >> step;
        have += step;
    }
    return mask;
}

int run_longest(uint64_t mask);
/* The run that calendar_pick cuts from: its first bit and length, -1 when none. */
int run_pick(uint64_t mask, int count, int *ret_len);

/* ---- one node (calendar_node.c) ---- */

/* Exact: GPUs free and offered during all of [from,to). */
uint64_t node_free(const struct node *n, int64_t from_us, int64_t to_us);
/* Earliest start in [from,limit] for `gpus` neighbours; the free GPUs there. */
struct node_ask {
    int gpus;
    int64_t len_us, from_us, limit_us;
};
bool node_earliest(const struct node *n, const struct node_ask *ask, int64_t *ret_start,
                   uint64_t *ret_mask);
void node_insert(struct node *n, const struct booking *b);
struct booking node_remove(struct node *n, size_t at);
/* Where in the list the booking is; n->count: nowhere. */
size_t node_index_of(const struct node *n, int64_t id);
/* Fills col->free and col->edge for [from,to), at most SLOTS. */
void node_column(const struct node *n, int64_t from, int64_t to, struct column *col);

/* ---- tables (calendar_table.c) ---- */

void table_init(struct calendar *c);
/* Where a booking is; false: there is none. */
struct place {
    size_t entry; /* in the table */
    int node;
    size_t at; /* in the node's list */
};
bool table_find(const struct calendar *c, int64_t booking, struct place *ret);
void table_add(struct calendar *c, int64_t booking, int node);
void table_remove(struct calendar *c, size_t entry);
struct group *group_get(const struct calendar *c, int site, int model);
int group_make(struct calendar *c, int site, int model);

/* ---- index (calendar_index.c) ---- */

/* Builds the group's index, or drops it where the group should have none. */
void index_build(struct calendar *c, struct group *g);
void index_free(struct index *x);
/* The node at `pos` changes from c->old to c->new in the slots [lo,hi) at most; both
 * columns cover [lo - SUMMARY_MAX + 1, hi + SUMMARY_MAX - 1) within the index. They are
 * used up. */
void index_change(struct calendar *c, struct group *g, int pos, int64_t lo, int64_t hi);
/* Time is in the block of `base`, a multiple of BLOCK_MAX: builds the indexes the first
 * time, else moves some of those that are behind. To be called again and again. */
void index_move(struct calendar *c, int64_t base);

/* Any microsecond of an int64_t is in a slot well within the shift; without a sign the
 * remainder costs a multiplication. */
static inline size_t slot_ring(int64_t slot)
{
    return (size_t)((uint64_t)(slot + ((int64_t)SLOTS << 25)) % SLOTS);
}

/* First row of the blocks of 1, 4, 8, 16 and 32 slots. */
enum {
    ROWS_1 = 0,
    ROWS_4 = SLOTS,
    ROWS_8 = ROWS_4 + SLOTS / 4,
    ROWS_16 = ROWS_8 + SLOTS / 8,
    ROWS_32 = ROWS_16 + SLOTS / 16,
    ROWS_ALL = ROWS_32 + SLOTS / 32,
};

/* ---- summaries (calendar_summary.c) ---- */

/* How many lengths of runs that the summaries tell apart one of this length reaches. */
int summary_class(int width, int run);
/* From c->old to c->new, as index_change. */
void summary_change(struct calendar *c, struct index *x, const int64_t during[2]);
/* The same when a new index is built: one more node, as c->new says, for each; then
 * what follows from all of them. */
void summary_add(struct calendar *c, struct index *x);
void summary_finish(struct index *x);
/* No `nodes` nodes are free during the slots [from,to), which the index covers. */
bool summary_hopeless(const struct index *x, int64_t from, int64_t to, int class,
                      int nodes);
struct search;
/* The first slot in [slot,last] after which `whole` slots are not hopeless, as far as
 * the index reaches; last + 1: none. */
int64_t summary_next(const struct search *s, int64_t slot, int64_t last, int64_t whole);

/* ---- questions ---- */

struct search {
    const struct calendar *c;
    const struct group *g;
    const struct calendar_query *q;
    int nodes; /* 1: one node; else a gang */
    bool one_domain;
};
/* Both fill ret[0..nodes) with the earliest start in [from,latest]. */
bool index_find(const struct search *s, int64_t from_us, int64_t latest_us,
                struct calendar_slot *ret);
bool scan_find(const struct search *s, int64_t from_us, int64_t latest_us,
               struct calendar_slot *ret);

/* Over [from,to), not empty. */
struct calendar_step index_capacity(const struct calendar *c, const struct group *g,
                                    int64_t from_us, int64_t to_us);
struct calendar_step scan_capacity(const struct calendar *c, const struct group *g,
                                   int64_t from_us, int64_t to_us);

/* ---- tries (calendar_try.c) ---- */

/* What of the group can start at `start`, which the index covers. False: surely not as
 * many nodes as are asked for. Else x->sure has those that can, x->exact those of them
 * that have a run of just the length, x->maybe those that must be looked up. */
bool index_try(const struct search *s, int64_t start_us);
/* Looks each maybe node up: it becomes a sure one or none. */
void index_resolve(const struct search *s, int64_t start_us);
/* GPUs free at a position, of the sure ones. */
uint64_t index_mask(const struct index *x, size_t pos);
/* Fills x->core with the nodes that are free in all slots that each start inside the
 * slots [first,last) needs whole; returns how many. */
int index_core(const struct search *s, int64_t first, int64_t last);
int index_count(const struct index *x, const uint64_t *set);

/* The best node so far: best fit, then the smallest key. */
struct choice {
    int node, first, fit;
    uint32_t key;
    int64_t start_us;
};
/* The node takes the place of the best one if it is better and not skipped. */
void choice_offer(const struct calendar_query *q, struct choice *best, int id,
                  int64_t start_us, uint64_t mask);

#endif
