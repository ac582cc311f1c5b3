/* settle: see settle.h. */
#include "billing/settle.h"

#include <stdio.h>

#include "billing/pgtx.h"

/* Captures of one provider a statement: bounds how long it locks. */
#define SETTLE_PAGE "5000"

static int until_none(PGconn *pg, const char *sql, int64_t *ret_count, struct err *err)
{
    const char *params[] = {SETTLE_PAGE};
    int64_t count;
    do {
        PGresult *r;
        if (pgtx_query(pg, sql, params, 1, &r, err) != 0)
            return err_prefix(err, "settling");
        count = pgtx_i64(r, 0, 0);
        *ret_count += count;
        PQclear(r);
    } while (count > 0);
    return 0;
}

int settle_all(PGconn *pg, int64_t *ret_count, struct err *err)
{
    *ret_count = 0;
    if (until_none(pg, "SELECT api.billing_settle($1)", ret_count, err) != 0)
        return -1;
    return until_none(pg, "SELECT api.billing_unreserve($1)", ret_count, err);
}

int settle_chargeback(PGconn *pg, int64_t transfer, const char *reason,
                      struct settle_chargeback *ret, struct err *err)
{
    char id[24];
    const char *params[] = {id, reason};
    PGresult *r;
    snprintf(id, sizeof(id), "%lld", (long long)transfer);
    if (pgtx_query(pg, "SELECT * FROM api.billing_chargeback($1, $2)", params, 2, &r,
                   err) != 0)
        return -1;
    ret->wallet_micro = pgtx_i64(r, 0, 0);
    ret->owed_micro = pgtx_i64(r, 0, 1);
    snprintf(ret->currency, sizeof(ret->currency), "%s", PQgetvalue(r, 0, 2));
    PQclear(r);
    return 0;
}
