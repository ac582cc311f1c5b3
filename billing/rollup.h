/* rollup: keeps the reports' roll-ups (sql/api/rollup.sql): a day of a kind a call,
 * each whole or not at all, so that billd may be killed between or within any of them.
 * It knows no report and no row; which days are due, the database says. */
#ifndef NEARGPU_ROLLUP_H
#define NEARGPU_ROLLUP_H
#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/lib/err.h"

#define ROLLUP_TURN_US INT64_C(2000000) /* a turn's work: rating comes first */
#define ROLLUP_REST    20 /* a turn is followed by this many times its duration */

struct rollup {
    int64_t next_us;   /* boot clock; zeros: at once */
    int64_t months_us; /* when the months ahead were made last, 0: not yet */
};

/* What is due, at most every interval_us, and for ROLLUP_TURN_US; all: everything, now.
 * *ret_days: calls made. */
int rollup_turn(struct rollup *r, PGconn *pg, int64_t interval_us, bool all,
                int *ret_days, struct err *err) MUST_USE;

#endif
