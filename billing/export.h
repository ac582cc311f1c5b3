/* export: the ledger in a form that other accounting programs read. hledger's journal
 * (hledger.org/journal.html): one transaction a transfer, debits positive, credits
 * negative, instants in UTC, amounts exact to the micro-unit. */
#ifndef NEARGPU_EXPORT_H
#define NEARGPU_EXPORT_H
#include <libpq-fe.h>
#include <stdint.h>
#include <stdio.h>

#include "client/lib/err.h"

/* from, to: SQL instants, NULL: open. The transfers of [from, to) in the order of their
 * numbers, with a declaration of each currency and account. */
int export_hledger(PGconn *pg, const char *from, const char *to, FILE *out,
                   int64_t *ret_count, struct err *err) MUST_USE;

#endif
