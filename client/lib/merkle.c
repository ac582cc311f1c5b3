/* merkle: see merkle.h. A complete subtree is one hash, found in the tile of its level;
 * every proof is a walk down from the whole tree, which is how RFC 6962 2.1.1 and 2.1.2
 * define them. */
#include "client/lib/merkle.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/xalloc.h"

struct merkle_hash merkle_leaf(const void *data, size_t len)
{
    struct merkle_hash h;
    uint8_t *buf = xmalloc(len + 1);
    buf[0] = 0;
    if (len > 0)
        memcpy(buf + 1, data, len);
    digest_sha256(buf, len + 1, h.b);
    free(buf);
    return h;
}

struct merkle_hash merkle_node(const struct merkle_hash *left,
                               const struct merkle_hash *right)
{
    struct merkle_hash h;
    uint8_t buf[1 + 2 * SHA256_LEN];
    buf[0] = 1;
    memcpy(buf + 1, left->b, SHA256_LEN);
    memcpy(buf + 1 + SHA256_LEN, right->b, SHA256_LEN);
    digest_sha256(buf, sizeof(buf), h.b);
    return h;
}

bool merkle_equal(const struct merkle_hash *a, const struct merkle_hash *b)
{
    return memcmp(a->b, b->b, SHA256_LEN) == 0;
}

/* Root of the tree without leaves: the hash of nothing. */
static struct merkle_hash empty_root(void)
{
    struct merkle_hash h;
    digest_sha256("", 0, h.b);
    return h;
}

/* --- verifying (RFC 9162 2.1.3.2 and 2.1.4.2) --- */

bool merkle_includes(uint64_t index, uint64_t size, const struct merkle_hash *leaf,
                     const struct merkle_proof *proof, const struct merkle_hash *root)
{
    if (index >= size)
        return false;
    uint64_t at = index, last = size - 1;
    struct merkle_hash r = *leaf;
    for (size_t i = 0; i < proof->count; i++) {
        if (last == 0)
            return false;
        if ((at & 1) != 0 || at == last) {
            r = merkle_node(&proof->path[i], &r);
            while ((at & 1) == 0 && at != 0) {
                at >>= 1;
                last >>= 1;
            }
        } else {
            r = merkle_node(&r, &proof->path[i]);
        }
        at >>= 1;
        last >>= 1;
    }
    return last == 0 && merkle_equal(&r, root);
}

/* The common case: 0 < old_size < size. */
static bool extends_inside(uint64_t old_size, uint64_t size,
                           const struct merkle_hash *old_root,
                           const struct merkle_hash *root,
                           const struct merkle_proof *proof)
{
    uint64_t at = old_size - 1, last = size - 1;
    size_t i = 0;
    struct merkle_hash was, is;
    for (; (at & 1) != 0; at >>= 1)
        last >>= 1;
    if (at == 0) { /* the old tree is a complete subtree: it is where the walk begins */
        was = *old_root;
    } else if (proof->count > 0) {
        was = proof->path[i++];
    } else {
        return false;
    }
    is = was;
    for (; i < proof->count; i++) {
        if (last == 0)
            return false;
        if ((at & 1) != 0 || at == last) {
            was = merkle_node(&proof->path[i], &was);
            is = merkle_node(&proof->path[i], &is);
            while ((at & 1) == 0 && at != 0) {
                at >>= 1;
                last >>= 1;
            }
        } else {
            is = merkle_node(&is, &proof->path[i]);
        }
        at >>= 1;
        last >>= 1;
    }
    return last == 0 && merkle_equal(&was, old_root) && merkle_equal(&is, root);
}

bool merkle_extends(uint64_t old_size, uint64_t size,
                    const struct merkle_hash *old_root, const struct merkle_hash *root,
                    const struct merkle_proof *proof)
{
    if (old_size > size)
        return false;
    if (old_size == size)
        return proof->count == 0 && merkle_equal(old_root, root);
    if (old_size == 0) {
        struct merkle_hash none = empty_root();
        return proof->count == 0 && merkle_equal(old_root, &none);
    }
    return extends_inside(old_size, size, old_root, root, proof);
}

/* --- proving --- */

/* Where the roots of 2^height hashes begin among a tile's nodes; its own root has no
 * place there (height 8). */
static unsigned nodes_from(unsigned height)
{
    return 2 * MERKLE_TILE_WIDTH - (2 * MERKLE_TILE_WIDTH >> height);
}

/* The root of the 2^level leaves from index << level: one hash of a tile, a node kept
 * with it, or some neighbours put together. */
static int complete(const struct merkle_tiles *t, unsigned level, uint64_t index,
                    struct merkle_hash *ret, struct err *err)
{
    struct merkle_hash tile[MERKLE_TILE_WIDTH];
    unsigned tile_level = level / MERKLE_TILE_HEIGHT,
             height = level % MERKLE_TILE_HEIGHT, width = 1u << height;
    uint64_t first = index * width;
    unsigned at = (unsigned)(first % MERKLE_TILE_WIDTH);
    assert(tile_level < MERKLE_TILE_LEVELS);
    if (t->node != NULL && t->node(t->arg, tile_level, first / MERKLE_TILE_WIDTH,
                                   nodes_from(height) + (at >> height), ret))
        return 0;
    if (t->read(t->arg, tile_level, first / MERKLE_TILE_WIDTH, at + width, tile, err) !=
        0)
        return -1;
    for (unsigned n = width; n > 1; n /= 2)
        for (unsigned i = 0; i < n / 2; i++)
            tile[at + i] = merkle_node(&tile[at + 2 * i], &tile[at + 2 * i + 1]);
    *ret = tile[at];
    return 0;
}

/* The largest power of two below n (n > 1), as an exponent. */
static unsigned split_level(uint64_t n)
{
    return 63u - (unsigned)__builtin_clzll(n - 1);
}

/* Root of the leaves [from, from + n), which begin at a multiple of a power of two that
 * is at least n, as all subtrees of a walk down do. */
static int range_root(const struct merkle_tiles *t, uint64_t from, uint64_t n,
                      struct merkle_hash *ret, struct err *err)
{
    struct merkle_hash left, right;
    if ((n & (n - 1)) == 0) {
        unsigned level = (unsigned)__builtin_ctzll(n);
        return complete(t, level, from >> level, ret, err);
    }
    uint64_t k = UINT64_C(1) << split_level(n);
    if (range_root(t, from, k, &left, err) != 0 ||
        range_root(t, from + k, n - k, &right, err) != 0)
        return -1;
    *ret = merkle_node(&left, &right);
    return 0;
}

int merkle_root(const struct merkle_tiles *tiles, uint64_t size,
                struct merkle_hash *ret, struct err *err)
{
    if (size > MERKLE_SIZE_MAX)
        return err_set(err, ERR_BAD_REQUEST, "a log has at most 2^62 leaves");
    if (size == 0) {
        *ret = empty_root();
        return 0;
    }
    return range_root(tiles, 0, size, ret, err);
}

/* The walk down is told from the root; proofs are told from the leaf. */
static void turn_round(struct merkle_proof *p)
{
    for (size_t i = 0; i < p->count / 2; i++) {
        struct merkle_hash h = p->path[i];
        p->path[i] = p->path[p->count - 1 - i];
        p->path[p->count - 1 - i] = h;
    }
}

int merkle_prove_inclusion(const struct merkle_tiles *tiles, uint64_t index,
                           uint64_t size, struct merkle_proof *ret, struct err *err)
{
    uint64_t from = 0, n = size;
    if (size > MERKLE_SIZE_MAX || index >= size)
        return err_set(err, ERR_BAD_REQUEST, "leaf %llu is not in a log of %llu leaves",
                       (unsigned long long)index, (unsigned long long)size);
    ret->count = 0;
    while (n > 1) {
        uint64_t k = UINT64_C(1) << split_level(n);
        bool left = index - from < k;
        struct merkle_hash *beside = &ret->path[ret->count++];
        if (left ? range_root(tiles, from + k, n - k, beside, err) != 0
                 : range_root(tiles, from, k, beside, err) != 0)
            return -1;
        from += left ? 0 : k;
        n = left ? k : n - k;
    }
    turn_round(ret);
    return 0;
}

int merkle_prove_extension(const struct merkle_tiles *tiles, uint64_t old_size,
                           uint64_t size, struct merkle_proof *ret, struct err *err)
{
    uint64_t from = 0, n = size;
    bool whole = true; /* everything from 0: the old root itself is known */
    if (size > MERKLE_SIZE_MAX || old_size > size)
        return err_set(err, ERR_BAD_REQUEST, "a log of %llu leaves was never %llu long",
                       (unsigned long long)size, (unsigned long long)old_size);
    ret->count = 0;
    if (old_size == 0 || old_size == size)
        return 0;
    while (old_size - from != n) {
        uint64_t k = UINT64_C(1) << split_level(n);
        bool left = old_size - from <= k;
        struct merkle_hash *beside = &ret->path[ret->count++];
        if (left ? range_root(tiles, from + k, n - k, beside, err) != 0
                 : range_root(tiles, from, k, beside, err) != 0)
            return -1;
        whole = whole && left;
        from += left ? 0 : k;
        n = left ? k : n - k;
    }
    if (!whole && range_root(tiles, from, n, &ret->path[ret->count++], err) != 0)
        return -1;
    turn_round(ret);
    return 0;
}

/* --- the growing edge --- */

/* Hashes that level has when the log has `size` leaves. */
static uint64_t hashes_of(uint64_t size, unsigned level)
{
    return size >> (level * MERKLE_TILE_HEIGHT);
}

/* Hash `at` of a tile is there: so are the nodes whose last hash it is. True when that
 * is all of them, and *ret_root the tile's own. */
static bool close_nodes(struct merkle_hash *tile, unsigned at,
                        struct merkle_hash *ret_root)
{
    unsigned height = 0;
    for (; (at & 1) != 0; at >>= 1) {
        const struct merkle_hash *pair = &tile[nodes_from(height) + at - 1];
        struct merkle_hash parent = merkle_node(&pair[0], &pair[1]);
        if (++height == MERKLE_TILE_HEIGHT) {
            *ret_root = parent;
            return true;
        }
        tile[nodes_from(height) + (at >> 1)] = parent;
    }
    return false;
}

int merkle_edge_load(const struct merkle_tiles *tiles, uint64_t size,
                     struct merkle_edge *ret, struct err *err)
{
    if (size > MERKLE_SIZE_MAX)
        return err_set(err, ERR_BAD_REQUEST, "a log has at most 2^62 leaves");
    ret->size = size;
    for (unsigned level = 0; level < MERKLE_TILE_LEVELS; level++) {
        uint64_t n = hashes_of(size, level);
        unsigned rest = (unsigned)(n % MERKLE_TILE_WIDTH);
        struct merkle_hash *tile = ret->tile[level], root;
        memset(tile, 0, sizeof(ret->tile[level]));
        if (rest > 0 &&
            tiles->read(tiles->arg, level, n / MERKLE_TILE_WIDTH, rest, tile, err) != 0)
            return -1;
        for (unsigned at = 0; at < rest; at++)
            (void)close_nodes(tile, at, &root);
    }
    return 0;
}

void merkle_append(struct merkle_edge *e, const struct merkle_hash *leaf,
                   merkle_tile_fn *full, void *arg)
{
    struct merkle_hash h = *leaf;
    assert(e->size < MERKLE_SIZE_MAX);
    for (unsigned level = 0; level < MERKLE_TILE_LEVELS; level++) {
        uint64_t n = hashes_of(e->size, level);
        unsigned at = (unsigned)(n % MERKLE_TILE_WIDTH);
        e->tile[level][at] = h;
        if (!close_nodes(e->tile[level], at, &h))
            break;
        full(arg, level, n / MERKLE_TILE_WIDTH, MERKLE_TILE_WIDTH, e->tile[level]);
        memset(e->tile[level], 0, sizeof(e->tile[level]));
    }
    e->size++;
}

void merkle_edge_flush(const struct merkle_edge *e, merkle_tile_fn *partial, void *arg)
{
    for (unsigned level = 0; level < MERKLE_TILE_LEVELS; level++) {
        uint64_t n = hashes_of(e->size, level);
        unsigned rest = (unsigned)(n % MERKLE_TILE_WIDTH);
        if (rest > 0)
            partial(arg, level, n / MERKLE_TILE_WIDTH, rest, e->tile[level]);
    }
}

static int edge_read(void *arg, unsigned level, uint64_t index, unsigned count,
                     struct merkle_hash *out, struct err *err)
{
    const struct merkle_edge *e = arg;
    uint64_t n = hashes_of(e->size, level);
    if (level >= MERKLE_TILE_LEVELS || index != n / MERKLE_TILE_WIDTH ||
        count > n % MERKLE_TILE_WIDTH)
        return err_set(err, ERR_INTERNAL, "tile %u/%llu is not at the log's edge",
                       level, (unsigned long long)index);
    memcpy(out, e->tile[level], count * sizeof(*out));
    return 0;
}

static bool edge_node(void *arg, unsigned level, uint64_t index, unsigned at,
                      struct merkle_hash *out)
{
    const struct merkle_edge *e = arg;
    uint64_t n = hashes_of(e->size, level);
    unsigned height = 0;
    while (at >= nodes_from(height + 1))
        height++;
    if (level >= MERKLE_TILE_LEVELS || index != n / MERKLE_TILE_WIDTH ||
        (at - nodes_from(height) + 1) << height > n % MERKLE_TILE_WIDTH)
        return false;
    *out = e->tile[level][at];
    return true;
}

struct merkle_tiles merkle_edge_tiles(struct merkle_edge *e)
{
    return (struct merkle_tiles){edge_read, e, edge_node};
}
