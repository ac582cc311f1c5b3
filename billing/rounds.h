/* rounds: what billd does, one function a kind of work. Each may be killed at any
 * instant and repeated: the database's cursors make every posting happen once. */
#ifndef NEARGPU_ROUNDS_H
#define NEARGPU_ROUNDS_H
#include <jansson.h>
#include <libpq-fe.h>
#include <stdint.h>

#include "client/lib/err.h"

/* Receipts a claim: bounds memory and how long one statement locks. The more of a
 * lease, the fewer transfers. */
#define ROUNDS_CLAIM_MAX 10000

/* Rates receipts that are not rated yet; *ret_posted says how many. One that cannot be
 * rated does not stop the others: the first such error is returned after them. */
int rounds_rate(PGconn *pg, int *ret_posted, struct err *err) MUST_USE;
/* Bills the booked paths of reservations that are over; *ret_posted: how many. The
 * first refusal is returned, the others are tried all the same. */
int rounds_paths(PGconn *pg, int *ret_posted, struct err *err) MUST_USE;
/* Reservations a statement of rounds_hold. */
#define ROUNDS_HOLD_MAX 500
/* Holds on for leases that are held up to soon only, or sets their end to that; at most
 * ROUNDS_HOLD_MAX, *ret_count says how many were looked at. */
int rounds_hold(PGconn *pg, int *ret_count, struct err *err) MUST_USE;
/* Gives back rests of holds; grace_us after a lease's end even without a teardown. */
int rounds_release(PGconn *pg, int64_t grace_us, int *ret_count,
                   struct err *err) MUST_USE;
/* Takes from wallets what invoices left receivable; *ret_count says from how many. */
int rounds_collect(PGconn *pg, int *ret_count, struct err *err) MUST_USE;
/* Credits time that nodes were not there, in leases billed to their end; sets use
 * against promotional credit and takes back what expired. */
int rounds_credit(PGconn *pg, int *ret_count, struct err *err) MUST_USE;
/* Issues one tenant's invoice for what was captured before `until` (an SQL timestamp).
 * number gets "" when there was nothing to invoice. */
int rounds_invoice(PGconn *pg, const char *tenant, const char *until, char *number,
                   size_t cap, struct err *err) MUST_USE;
/* Invoices every whole month that is due; a tenant that fails stops no other. */
int rounds_invoices_due(PGconn *pg, int *ret_count, struct err *err) MUST_USE;
/* Undoes a top-up with an opposite transfer, once; its id. */
int rounds_reverse(PGconn *pg, int64_t transfer, int64_t *ret_reversal,
                   struct err *err) MUST_USE;
/* Counts rows in the check views; each breach is one line in *ret_text (heap, "" none).
 */
int rounds_check(PGconn *pg, char **ret_text, struct err *err) MUST_USE;

#endif
