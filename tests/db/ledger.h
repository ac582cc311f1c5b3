/* ledger: a market for the tests of billing: a throwaway database with the real SQL,
 * and schema t, SQL functions that plant tenants, nodes, bookings and receipts the way
 * the server does (api.book, api.receipts). Money in it is JPY, fee 5 %, tax 10 %. */
#ifndef TEST_LEDGER_H
#define TEST_LEDGER_H
#include <stdint.h>

#include "tests/db/testdb.h"

struct ledger {
    struct testdb *db;
    PGconn *pg;   /* superuser */
    char *billd;  /* path of neargpu-billd */
    char *source; /* source directory */
};

/* Makes it, with site "tokyo" (Asia/Tokyo), providers "acme" (fee of the market) and
 * "zero" (fee 0). currency NULL: JPY. */
void ledger_open(struct ledger *l, const char *currency);
void ledger_close(struct ledger *l);

/* Runs a formatted statement that must succeed; first value. Caller frees. */
char *ledger_text(struct ledger *l, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
int64_t ledger_int(struct ledger *l, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void ledger_sql(struct ledger *l, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Runs neargpu-billd with these arguments (NULL-terminated, at most 8); its exit
 * status, stdout and stderr together in *ret (may be NULL; caller frees). */
int ledger_billd(struct ledger *l, char **ret, const char *const *args);
#define LEDGER_BILLD(l, ret, ...) \
    ledger_billd(l, ret, (const char *const[]){__VA_ARGS__, NULL})
/* One round, which must succeed. */
void ledger_once(struct ledger *l);
/* Starts it and returns; output is dropped. */
int ledger_billd_start(struct ledger *l, const char *const *args);

/* Asserts that every view that must be empty is, and that all accounts sum to zero. */
void ledger_check(struct ledger *l);

#endif
