/* market: a small market in a test database, reached through the store: two sites, a
 * provider, nodes with GPUs and a price, a tenant with money. */
#ifndef TEST_MARKET_H
#define TEST_MARKET_H
#include <event2/event.h>

#include "server/db/store.h"
#include "tests/db/testdb.h"

#define HOUR_US INT64_C(3600000000)

struct market {
    struct testdb *db;
    PGconn *admin; /* superuser */
    struct event_base *base;
    struct store *store;
    int64_t now_us;
    char tenant[UUID_TEXT], provider[UUID_TEXT];
    int site, node[4], nodes;
};

/* Database, migrations, store, and `nodes` nodes of 8 GPUs at 100 JPY an hour. Exits
 * with 77 when PostgreSQL is not there. */
void market_open(struct market *m, int nodes, int64_t credit_micro);
void market_close(struct market *m);

/* One call, waited for (20 s). The result's json is kept until the next one. */
const struct store_result *market_call(struct market *m, enum store_op op,
                                       const struct store_arg *args, size_t count);
/* Asserts that it succeeds; borrowed until the next call. */
json_t *market_ok(struct market *m, enum store_op op, const struct store_arg *args,
                  size_t count);
/* Asserts that it is refused with this code. */
void market_refused(struct market *m, enum err_code code, enum store_op op,
                    const struct store_arg *args, size_t count);

/* A booking on node number n (0…) of GPUs [first, first+count) from now + at, for len.
 */
struct market_booking {
    struct store_book book;
    struct store_booking on[4];
    struct store_path_booking paths[4];
    struct store_preempt preempts[4];
    uint8_t hash[32];
    char key[40];
    json_t *request;
};
void market_booking(struct market *m, struct market_booking *b, int n, int first,
                    int count, int64_t at_us, int64_t len_us);
/* Adds another node to the same reservation. */
void market_booking_add(struct market *m, struct market_booking *b, int n, int first,
                        int count);
struct market_booked {
    int done; /* answered */
    enum store_status status;
    enum err_code code;
    enum store_book_outcome outcome;
    char id[UUID_TEXT];
    int64_t booking_id[4], lane_booking_id[4];
    size_t booking_count, lane_booking_count;
};
/* Its money follows: count lanes of the path at price a lane-hour, lit setup before. */
void market_booking_path(struct market_booking *b, int path, int first, int count,
                         int64_t price_micro, int64_t setup_us);
void market_book(struct market *m, const struct market_booking *b,
                 struct market_booked *ret); /* starts it */
/* The same, waited for; asserts the outcome and frees the booking's request. */
void market_book_ok(struct market *m, struct market_booking *b,
                    enum store_book_outcome want, struct market_booked *ret);
void market_booked(void *arg, uint64_t id, const struct store_result *r);
/* Turns the loop until *flag is not 0. */
void market_wait(struct market *m, const int *flag);
/* Asserts that every view that must be empty is. */
void market_check(struct market *m);
/* The first column of the first row, as a number. */
int64_t market_sql(struct market *m, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
int64_t market_int(const json_t *obj, const char *name);
const char *market_text(const json_t *obj, const char *name);

#endif
