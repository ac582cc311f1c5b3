/* bucket: rate limits, clock-free. The generic cell rate algorithm (a token bucket that
 * needs one number): `tat` is when the bucket would be full again; a request is allowed
 * while tat is less than `burst` intervals ahead of now. Pure. */
#ifndef NEARGPU_BUCKET_H
#define NEARGPU_BUCKET_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct bucket_rate {
    int64_t interval_us; /* one request per interval in the long run; 0: no limit */
    int64_t burst;       /* at once after a rest, >= 1 */
};

/* Takes one request at now_us. False: refused, *ret_wait_us until the next is allowed.
 * *tat starts at 0. A clock set back never blocks for longer than burst intervals. */
bool bucket_take(int64_t *tat, const struct bucket_rate *rate, int64_t now_us,
                 int64_t *ret_wait_us);

/* Buckets by key, in a table of fixed size: when it is full, the bucket that has rested
 * longest is forgotten (which can only favour its owner). */
struct bucket_table;

struct bucket_table *bucket_table_new(size_t slots, uint64_t seed);
void bucket_table_free(struct bucket_table *t);
bool bucket_table_take(struct bucket_table *t, const char *key,
                       const struct bucket_rate *rate, int64_t now_us,
                       int64_t *ret_wait_us);

#endif
