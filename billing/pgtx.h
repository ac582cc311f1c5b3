/* pgtx: billd's database calls: blocking libpq, one function call a transaction, typed
 * results. billd has nothing else to do while it waits. A lost connection is told apart
 * (ERR_UNAVAILABLE): every call is idempotent, so the caller connects and repeats. */
#ifndef NEARGPU_PGTX_H
#define NEARGPU_PGTX_H
#include <libpq-fe.h>
#include <stdint.h>

#include "client/lib/err.h"

int pgtx_connect(const char *conninfo, PGconn **ret, struct err *err) MUST_USE;
/* Runs one parameterised statement; params are text, NULL is SQL null. Rows in *ret
 * (PQclear() by the caller). */
int pgtx_query(PGconn *pg, const char *sql, const char *const *params, int count,
               PGresult **ret, struct err *err) MUST_USE;
int64_t pgtx_i64(const PGresult *r, int row, int col); /* 0 for SQL null */

#endif
