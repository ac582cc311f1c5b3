/* history_run: one random history, done to the database and to the naive ledger alike.
 */
#ifndef TEST_HISTORY_RUN_H
#define TEST_HISTORY_RUN_H
#include "tests/db/history.h"
#include "tests/db/ledger.h"

enum { RUN_RESVS = 4000, RUN_TOPUPS = 4000, RUN_PAYOUTS = 2000 };

struct run_topup {
    int tenant;
    int64_t amount;
    bool undone;
};
struct run_payout {
    int provider;
    int64_t amount;
    char state; /* requested, approved, sent, done, finished */
};
struct run {
    struct ledger l;
    struct history h;
    unsigned seed;
    char *conf; /* of neargpu-billd */
    struct run_topup topup[RUN_TOPUPS];
    struct run_payout payout[RUN_PAYOUTS];
    int topup_count, payout_count, ref, forks, steps;
    int forked[RUN_RESVS][2]; /* of each chain: the last number told twice */
    long kills, rounds, refused, booked, receipts;
};

/* Starts a market on a clock of its own; its events are drawn from this seed. One a
 * program. run_plant, within a test, puts tenants, providers, nodes and paths there. */
struct ledger *run_open(unsigned seed);
void run_plant(void);
/* So many events, then 40 days and a round of billing; compares all the while. */
void run_steps(int steps);
/* history_prices.c: bundles of all of it hold to the agreed prices. */
void run_prices(struct run *r);
void run_check_prices(void);
void run_report(void);
void run_close(void);

int run_pick(struct run *x, int n);
void run_expect(struct run *x, const char *state, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Borrowed until the next call. */
const char *run_resv_id(int resv);

struct run_event {
    const char *name;
    int weight;
    void (*fn)(struct run *x);
    long done;
};
/* Ends with a row without a name. */
extern struct run_event run_leases[], run_money[];
#endif
