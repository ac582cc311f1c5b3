/* bucket: see the header. A key is known by a seeded 64-bit hash of it: whoever cannot
 * read the seed cannot aim at somebody else's bucket. */
#include "server/net/bucket.h"

#include <stdlib.h>

#include "client/lib/xalloc.h"

bool bucket_take(int64_t *tat, const struct bucket_rate *rate, int64_t now_us,
                 int64_t *ret_wait_us)
{
    if (rate->interval_us <= 0)
        return true;
    int64_t room = rate->interval_us * rate->burst;
    int64_t at = *tat;
    if (at < now_us)
        at = now_us;
    if (at > now_us + room)
        at = now_us + room;
    if (at + rate->interval_us > now_us + room) {
        *ret_wait_us = at + rate->interval_us - now_us - room;
        *tat = at;
        return false;
    }
    *tat = at + rate->interval_us;
    return true;
}

#define PROBES 8

struct slot {
    uint64_t hash; /* 0: empty */
    int64_t tat;
};

struct bucket_table {
    size_t mask;
    uint64_t seed;
    struct slot slots[];
};

struct bucket_table *bucket_table_new(size_t slots, uint64_t seed)
{
    size_t size = PROBES;
    while (size < slots)
        size *= 2;
    struct bucket_table *t = xcalloc(1, sizeof(*t) + size * sizeof(t->slots[0]));
    t->mask = size - 1;
    t->seed = seed;
    return t;
}

void bucket_table_free(struct bucket_table *t)
{
    free(t);
}

static uint64_t mix(uint64_t h)
{
    h ^= h >> 33;
    h *= UINT64_C(0xff51afd7ed558ccd);
    h ^= h >> 33;
    h *= UINT64_C(0xc4ceb9fe1a85ec53);
    return h ^ h >> 33;
}

static uint64_t key_hash(uint64_t seed, const char *key)
{
    uint64_t h = seed;
    for (; *key != '\0'; key++)
        h = mix(h ^ (unsigned char)*key);
    return h == 0 ? 1 : h;
}

bool bucket_table_take(struct bucket_table *t, const char *key,
                       const struct bucket_rate *rate, int64_t now_us,
                       int64_t *ret_wait_us)
{
    uint64_t h = key_hash(t->seed, key);
    struct slot *victim = NULL;
    for (size_t i = 0; i < PROBES; i++) {
        struct slot *s = &t->slots[(h + i) & t->mask];
        if (s->hash == h)
            return bucket_take(&s->tat, rate, now_us, ret_wait_us);
        if (victim == NULL || s->tat < victim->tat)
            victim = s;
    }
    *victim = (struct slot){.hash = h};
    return bucket_take(&victim->tat, rate, now_us, ret_wait_us);
}
