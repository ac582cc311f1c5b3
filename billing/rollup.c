#include "billing/rollup.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "billing/pgtx.h"
#include "client/lib/clock.h"
#include "client/lib/timefmt.h"

#define MONTHS_EVERY_US (24 * US_PER_HOUR)

/* One call: *ret_more says whether this kind has another day. */
static int one_day(PGconn *pg, const char *kind, bool *ret_more, struct err *err)
{
    PGresult *r;
    if (pgtx_query(pg, "SELECT api.billing_rollup($1)", &kind, 1, &r, err) != 0)
        return err_prefix(err, "roll-up %s", kind);
    *ret_more = strcmp(PQgetvalue(r, 0, 0), "t") == 0;
    PQclear(r);
    return 0;
}

static int make_months(struct rollup *r, PGconn *pg, int64_t now_us, struct err *err)
{
    PGresult *made;
    if (r->months_us != 0 && now_us - r->months_us < MONTHS_EVERY_US)
        return 0;
    if (pgtx_query(pg, "SELECT api.billing_months()", NULL, 0, &made, err) != 0)
        return err_prefix(err, "months ahead");
    PQclear(made);
    r->months_us = now_us;
    return 0;
}

/* What administrators are warned by when it stays away. */
static int turn_done(PGconn *pg, int64_t wait_us, struct err *err)
{
    char wait[24];
    const char *args[] = {wait};
    PGresult *r;
    snprintf(wait, sizeof wait, "%" PRId64, wait_us);
    if (pgtx_query(pg, "SELECT api.billing_rolled($1)", args, 1, &r, err) != 0)
        return err_prefix(err, "roll-ups");
    PQclear(r);
    return 0;
}

int rollup_turn(struct rollup *r, PGconn *pg, int64_t interval_us, bool all,
                int *ret_days, struct err *err)
{
    /* What people look at first comes first. */
    static const char *const kinds[] = {"capacity", "use", "money", "match", "orders"};
    int64_t start_us = clock_boot_us();
    bool more = false, left = false;
    *ret_days = 0;
    if (!all && start_us < r->next_us)
        return 0;
    r->next_us = start_us + interval_us; /* when it fails */
    if (make_months(r, pg, start_us, err) != 0)
        return -1;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        do {
            if (one_day(pg, kinds[i], &more, err) != 0)
                return -1;
            ++*ret_days;
        } while (more && (all || clock_boot_us() - start_us < ROLLUP_TURN_US));
        left = left || more;
    }
    int64_t end_us = clock_boot_us(), rest_us = (end_us - start_us) * ROLLUP_REST;
    if (rest_us < interval_us)
        rest_us = interval_us;
    if (turn_done(pg, rest_us, err) != 0)
        return -1;
    r->next_us = left ? end_us : end_us + rest_us;
    return 0;
}
