/* settle: what providers earned becomes available when the dispute window is over, and
 * what was kept of it in reserve when its time is. The database's cursor makes each
 * capture settle once, whatever is killed or repeated. It pays nothing out. */
#ifndef NEARGPU_SETTLE_H
#define NEARGPU_SETTLE_H
#include <libpq-fe.h>
#include <stdint.h>

#include "client/lib/err.h"

/* Until nothing is due; *ret_count: captures settled and reserves released. */
int settle_all(PGconn *pg, int64_t *ret_count, struct err *err) MUST_USE;
struct settle_chargeback {
    int64_t wallet_micro, owed_micro; /* came out of the wallet, and the rest */
    char currency[4];
};
/* The bank took a top-up back. */
int settle_chargeback(PGconn *pg, int64_t transfer, const char *reason,
                      struct settle_chargeback *ret, struct err *err) MUST_USE;

#endif
