/* audit: what was asked of the market and by whom, kept in the database in batches
 * (sql/migrations/0005_audit.sql). It is written after the answer and best effort: a
 * crash of the server loses what waits, at most AUDIT_PAUSE_US; when the database lags
 * behind, what does not fit is counted and logged. It sees no body, header or query. */
#ifndef NEARGPU_FLOW_AUDIT_H
#define NEARGPU_FLOW_AUDIT_H
#include <event2/event.h>
#include <stdint.h>

#include "server/db/store.h"

#define AUDIT_PAUSE_US INT64_C(200000)
#define AUDIT_WAIT_MAX 20000 /* rows that may wait: some MB */
#define AUDIT_BATCH    500   /* rows a statement */

struct audit;
struct audit_row {
    int64_t at_us;
    const char *actor, *address, *method, *path, *request_id;
    int status;
};

struct audit *audit_new(struct event_base *base, struct store *store);
void audit_free(struct audit *a);
/* Keeps the row if it belongs into the log: whatever may change something, but a node's
 * polls and receipts, and whatever was refused for want of a right. */
void audit_add(struct audit *a, const struct audit_row *row);

#endif
