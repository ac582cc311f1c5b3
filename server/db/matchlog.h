/* matchlog: the log of matches, written in batches, best effort: it must never slow a
 * booking down, so it is dropped when the database lags behind. */
#ifndef NEARGPU_MATCHLOG_H
#define NEARGPU_MATCHLOG_H
#include "server/db/pgconn.h"
#include "server/db/store.h"

#define MATCHLOG_WAIT_MAX 10000 /* a few MB; a second of heavy traffic */
#define MATCHLOG_PAUSE_US 100000

extern const char matchlog_sql[];
#define MATCHLOG_PARAMS 13

struct matchlog;
/* The connection is borrowed and must be freed before matchlog_free(). */
struct matchlog *matchlog_new(struct event_base *base, struct pgconn *on, size_t stmt);
void matchlog_free(struct matchlog *l);
void matchlog_add(struct matchlog *l, const struct store_match_log *m);
uint64_t matchlog_dropped(const struct matchlog *l);

#endif
