/* batch: group commit of bookings. While one batch commits, new bookings gather; the
 * next batch takes all of them, up to BOOK_BATCH_MAX: no timer, no delay when idle.
 *
 * Invariants
 *  - A writer has at most one batch in flight. Two bookings of one tenant under one
 *    idempotency key are never in one batch. One that preempts others, or books an
 *    order that waits, goes alone.
 *  - Each booking is answered once, after the commit of its batch. A batch that the
 *    database refuses as a whole is sent again one by one, so that a booking it cannot
 *    digest fails alone; after a deadlock it is sent again as it is.
 *  - A lost connection answers STORE_UNKNOWN for all in the batch. */
#ifndef NEARGPU_BATCH_H
#define NEARGPU_BATCH_H
#include "server/db/pgconn.h"
#include "server/db/store.h"

#define BATCH_WRITERS_MAX 2
#define BATCH_WAITING_MAX 20000 /* about two seconds of work; more is told to retry */

extern const char batch_book_sql[];
#define BATCH_BOOK_PARAMS 35

struct batch;
struct batch_stats {
    uint64_t batches, booked, lost, largest;
    size_t waiting;
};
/* stmt: index of batch_book_sql in the writers' tables. Writers are borrowed and must
 * be freed (answering what is open) before batch_free(). */
struct batch *batch_new(struct event_base *base, struct pgconn *const *writers,
                        int count, size_t stmt);
void batch_free(struct batch *b);
void batch_add(struct batch *b, const struct store_book *in, struct store_to to);
void batch_stats(const struct batch *b, struct batch_stats *ret);

#endif
