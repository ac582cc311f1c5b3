/* merkle: the roots of the RFC 6962 reference tree, every proof of every small log
 * against the definitions written down naively, a large one at random places, and what
 * altered proofs are worth. */
#include <stdio.h>
#include <string.h>

#include "client/lib/merkle.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

#define SMALL 70
#define LARGE 70000 /* three levels of tiles */

/* --- a store of tiles in memory --- */

struct store {
    struct merkle_hash *level[3], *inner[3];
    uint64_t count[3];
    uint64_t reads;
};

static void put(void *arg, unsigned level, uint64_t index, unsigned count,
                const struct merkle_hash *hashes)
{
    struct store *s = arg;
    ck_assert_uint_lt(level, 3);
    uint64_t end = index * MERKLE_TILE_WIDTH + count;
    s->level[level] = xrealloc(s->level[level], end * sizeof(struct merkle_hash));
    memcpy(s->level[level] + index * MERKLE_TILE_WIDTH, hashes,
           count * sizeof(*hashes));
    s->count[level] = end;
    end = (index + 1) * MERKLE_TILE_INNER;
    s->inner[level] = xrealloc(s->inner[level], end * sizeof(struct merkle_hash));
    memcpy(s->inner[level] + index * MERKLE_TILE_INNER, hashes + MERKLE_TILE_WIDTH,
           MERKLE_TILE_INNER * sizeof(*hashes));
}

static bool node(void *arg, unsigned level, uint64_t index, unsigned at,
                 struct merkle_hash *out)
{
    const struct store *s = arg;
    static const struct merkle_hash none;
    ck_assert_uint_lt(level, 3);
    ck_assert_uint_lt(at, MERKLE_TILE_NODES);
    if (at < MERKLE_TILE_WIDTH)
        *out = s->level[level][index * MERKLE_TILE_WIDTH + at];
    else
        *out = s->inner[level][index * MERKLE_TILE_INNER + (at - MERKLE_TILE_WIDTH)];
    ck_assert(!merkle_equal(out, &none)); /* complete whenever it is asked for */
    return true;
}

static int get(void *arg, unsigned level, uint64_t index, unsigned count,
               struct merkle_hash *out, struct err *err)
{
    struct store *s = arg;
    (void)err;
    s->reads++;
    ck_assert_uint_lt(level, 3);
    ck_assert_uint_le(index * MERKLE_TILE_WIDTH + count, s->count[level]);
    memcpy(out, s->level[level] + index * MERKLE_TILE_WIDTH, count * sizeof(*out));
    return 0;
}

static void store_done(struct store *s)
{
    for (int i = 0; i < 3; i++)
        free(s->level[i]), free(s->inner[i]);
}

static struct merkle_hash leaf_of(uint64_t i)
{
    char text[32];
    snprintf(text, sizeof(text), "leaf %llu", (unsigned long long)i);
    return merkle_leaf(text, strlen(text));
}

static void grow(struct merkle_edge *e, struct store *s, uint64_t size)
{
    while (e->size < size) {
        struct merkle_hash h = leaf_of(e->size);
        merkle_append(e, &h, put, s);
    }
    merkle_edge_flush(e, put, s);
}

/* --- RFC 6962 2.1, as it is written --- */

static uint64_t split(uint64_t n)
{
    uint64_t k = 1;
    while (k * 2 < n)
        k *= 2;
    return k;
}

static struct merkle_hash mth(uint64_t from, uint64_t n)
{
    struct merkle_hash l, r;
    if (n == 0) {
        digest_sha256("", 0, l.b);
        return l;
    }
    if (n == 1)
        return leaf_of(from);
    l = mth(from, split(n));
    r = mth(from + split(n), n - split(n));
    return merkle_node(&l, &r);
}

static void path(uint64_t m, uint64_t from, uint64_t n, struct merkle_proof *p)
{
    uint64_t k = split(n);
    if (n == 1)
        return;
    if (m < k) {
        path(m, from, k, p);
        p->path[p->count++] = mth(from + k, n - k);
    } else {
        path(m - k, from + k, n - k, p);
        p->path[p->count++] = mth(from, k);
    }
}

static void subproof(uint64_t m, uint64_t from, uint64_t n, bool whole,
                     struct merkle_proof *p)
{
    uint64_t k = split(n);
    if (m == n) {
        if (!whole)
            p->path[p->count++] = mth(from, n);
        return;
    }
    if (m <= k) {
        subproof(m, from, k, whole, p);
        p->path[p->count++] = mth(from + k, n - k);
    } else {
        subproof(m - k, from + k, n - k, false, p);
        p->path[p->count++] = mth(from, k);
    }
}

static void check_same(const struct merkle_proof *a, const struct merkle_proof *b)
{
    ck_assert_uint_eq(a->count, b->count);
    for (size_t i = 0; i < a->count; i++)
        ck_assert(merkle_equal(&a->path[i], &b->path[i]));
}

/* --- */

START_TEST(test_reference)
{
    /* Leaves and roots of certificate-transparency's reference tree. */
    static const struct {
        const char *data;
        size_t len;
        const char *root;
    } rows[] = {
        {"", 0, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"},
        {"\x00", 1, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"},
        {"\x10", 1, "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77"},
        {"\x20\x21", 2,
         "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"},
        {"\x30\x31", 2,
         "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4"},
        {"\x40\x41\x42\x43", 4,
         "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef"},
        {"\x50\x51\x52\x53\x54\x55\x56\x57", 8,
         "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c"},
        {"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f", 16,
         "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"},
    };
    struct merkle_edge *e = xcalloc(1, sizeof(*e));
    struct merkle_tiles tiles = merkle_edge_tiles(e);
    struct store s = {.reads = 0};
    struct merkle_hash root;
    struct err err;
    char hex[SHA256_HEX];
    ck_assert_int_eq(merkle_root(&tiles, 0, &root, &err), 0);
    digest_hex(root.b, SHA256_LEN, hex);
    ck_assert_str_eq(
        hex, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct merkle_hash h = merkle_leaf(rows[i].data, rows[i].len);
        merkle_append(e, &h, put, &s);
        ck_assert_int_eq(merkle_root(&tiles, i + 1, &root, &err), 0);
        digest_hex(root.b, SHA256_LEN, hex);
        ck_assert_str_eq(hex, rows[i].root);
    }
    free(e);
}
END_TEST

START_TEST(test_small_logs)
{
    struct merkle_edge *e = xcalloc(1, sizeof(*e));
    struct store s = {.reads = 0};
    struct merkle_tiles tiles = {get, &s, NULL}, kept = {get, &s, node};
    struct merkle_proof got, want;
    struct merkle_hash root, was;
    struct err err;
    for (uint64_t n = 1; n <= SMALL; n++) {
        grow(e, &s, n);
        ck_assert_int_eq(merkle_root(&tiles, n, &root, &err), 0);
        was = mth(0, n);
        ck_assert(merkle_equal(&root, &was));
        for (uint64_t m = 0; m < n; m++) {
            struct merkle_hash leaf = leaf_of(m);
            want.count = 0;
            path(m, 0, n, &want);
            ck_assert_int_eq(merkle_prove_inclusion(&tiles, m, n, &got, &err), 0);
            check_same(&got, &want);
            ck_assert(merkle_includes(m, n, &leaf, &got, &root));
            ck_assert_int_eq(merkle_prove_inclusion(&kept, m, n, &got, &err), 0);
            check_same(&got, &want);
            want.count = 0;
            if (m > 0)
                subproof(m, 0, n, true, &want);
            ck_assert_int_eq(merkle_prove_extension(&tiles, m, n, &got, &err), 0);
            check_same(&got, &want);
            was = mth(0, m);
            ck_assert(merkle_extends(m, n, &was, &root, &got));
        }
    }
    store_done(&s);
    free(e);
}
END_TEST

/* A verifier must not take a proof for another leaf, place, size or tree. */
START_TEST(test_altered)
{
    struct merkle_edge *e = xcalloc(1, sizeof(*e));
    struct store s = {.reads = 0};
    struct merkle_tiles tiles = {get, &s, NULL};
    struct merkle_hash root, was, leaf, other = leaf_of(1000);
    struct merkle_proof p, bad;
    struct err err;
    const uint64_t n = 37;
    grow(e, &s, n);
    ck_assert_int_eq(merkle_root(&tiles, n, &root, &err), 0);
    for (uint64_t m = 1; m < n; m++) {
        leaf = leaf_of(m);
        was = mth(0, m);
        ck_assert_int_eq(merkle_prove_inclusion(&tiles, m, n, &p, &err), 0);
        ck_assert(!merkle_includes(m, n, &other, &p, &root));
        ck_assert(!merkle_includes(m, n, &leaf, &p, &was));
        ck_assert(!merkle_includes(n, n, &leaf, &p, &root));
        for (uint64_t k = 0; k < n; k++)
            if (k != m)
                ck_assert(!merkle_includes(k, n, &leaf, &p, &root));
        for (size_t i = 0; i < p.count; i++) {
            bad = p;
            bad.path[i].b[m % SHA256_LEN] ^= 1;
            ck_assert(!merkle_includes(m, n, &leaf, &bad, &root));
        }
        bad = p;
        bad.path[bad.count++] = other;
        ck_assert(!merkle_includes(m, n, &leaf, &bad, &root));
        bad.count = p.count - 1;
        ck_assert(!merkle_includes(m, n, &leaf, &bad, &root));

        ck_assert_int_eq(merkle_prove_extension(&tiles, m, n, &p, &err), 0);
        ck_assert(!merkle_extends(m, n, &other, &root, &p));
        ck_assert(!merkle_extends(m, n, &was, &other, &p));
        ck_assert(!merkle_extends(n, m, &root, &was, &p));
        for (size_t i = 0; i < p.count; i++) {
            bad = p;
            bad.path[i].b[m % SHA256_LEN] ^= 1;
            ck_assert(!merkle_extends(m, n, &was, &root, &bad));
        }
        bad = p;
        bad.path[bad.count++] = other;
        ck_assert(!merkle_extends(m, n, &was, &root, &bad));
        bad.count = p.count - 1;
        ck_assert(!merkle_extends(m, n, &was, &root, &bad));
    }
    store_done(&s);
    free(e);
}
END_TEST

START_TEST(test_large)
{
    struct merkle_edge *e = xcalloc(1, sizeof(*e)), *again = xcalloc(1, sizeof(*e));
    struct store s = {.reads = 0};
    struct merkle_tiles tiles = {get, &s, NULL}, kept = {get, &s, node},
                        edge = merkle_edge_tiles(again);
    struct merkle_hash root, was;
    struct merkle_proof p, q;
    struct err err;
    unsigned seed = 20260101;
    grow(e, &s, LARGE / 2 + 17);
    ck_assert_int_eq(merkle_edge_load(&tiles, e->size, again, &err), 0);
    grow(again, &s,
         LARGE); /* an edge that was loaded goes on as the one that was kept */
    ck_assert_int_eq(merkle_root(&tiles, LARGE, &root, &err), 0);
    ck_assert_int_eq(merkle_root(&edge, LARGE, &was, &err), 0);
    ck_assert(merkle_equal(&root, &was));
    was = mth(0, LARGE);
    ck_assert(merkle_equal(&root, &was));
    for (int i = 0; i < 300; i++) {
        uint64_t m = (uint64_t)rand_r(&seed) % LARGE;
        struct merkle_hash leaf = leaf_of(m);
        ck_assert_int_eq(merkle_prove_inclusion(&tiles, m, LARGE, &p, &err), 0);
        ck_assert(merkle_includes(m, LARGE, &leaf, &p, &root));
        s.reads = 0;
        ck_assert_int_eq(merkle_prove_inclusion(&kept, m, LARGE, &q, &err), 0);
        check_same(&p, &q);
        ck_assert_int_eq(merkle_prove_extension(&kept, m, LARGE, &q, &err), 0);
        ck_assert_uint_eq(s.reads, 0); /* nothing is hashed anew */
        ck_assert_int_eq(merkle_prove_extension(&tiles, m, LARGE, &p, &err), 0);
        check_same(&p, &q);
        ck_assert_int_eq(merkle_root(&tiles, m, &was, &err), 0);
        ck_assert(merkle_extends(m, LARGE, &was, &root, &p));
    }
    store_done(&s);
    free(e);
    free(again);
}
END_TEST

START_TEST(test_refused)
{
    struct merkle_tiles none = {NULL, NULL, NULL};
    struct merkle_proof p;
    struct merkle_hash h;
    struct err err;
    ck_assert_int_eq(merkle_prove_inclusion(&none, 5, 5, &p, &err), -1);
    ck_assert_int_eq(err.code, ERR_BAD_REQUEST);
    ck_assert_int_eq(merkle_prove_inclusion(&none, 0, 0, &p, &err), -1);
    ck_assert_int_eq(merkle_prove_extension(&none, 6, 5, &p, &err), -1);
    ck_assert_int_eq(err.code, ERR_BAD_REQUEST);
    ck_assert_int_eq(merkle_root(&none, MERKLE_SIZE_MAX + 1, &h, &err), -1);
}
END_TEST

UNIT_MAIN("merkle",
          UNIT_CASE(test_reference) UNIT_CASE(test_small_logs) UNIT_CASE(test_altered)
              UNIT_CASE(test_large) UNIT_CASE(test_refused))
