/* merkle: append-only log trees of RFC 6962 section 2 (and RFC 9162, which kept them):
 * leaf = SHA-256(0x00 || data), node = SHA-256(0x01 || left || right); the root of n
 * leaves splits at the largest power of two below n. Proofs are in the order of these
 * documents, leaf upwards, so that any verifier for them can check ours.
 *
 * Hashes are kept in tiles, as C2SP's tlog-tiles: tile (t, i) of level t holds up to
 * 256 hashes, each the root of the 2^(8t) leaves beneath it; full ones never change. A
 * proof in a log of 10 million leaves reads at most six of them.
 *
 * Pure: no clock, files or database. It does not say what a leaf is (logentry.h), and
 * signs nothing (note.h). */
#ifndef NEARGPU_MERKLE_H
#define NEARGPU_MERKLE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/digest.h"
#include "client/lib/err.h"

#define MERKLE_PROOF_MAX   128 /* hashes; a consistency proof has fewer than 2 * 63 */
#define MERKLE_SIZE_MAX    (UINT64_C(1) << 62) /* keeps every sum within 64 bits */
#define MERKLE_TILE_HEIGHT 8
#define MERKLE_TILE_WIDTH  (1 << MERKLE_TILE_HEIGHT)
#define MERKLE_TILE_LEVELS 8
/* A tile with its inner nodes: its hashes, then the roots of neighbours: 128 over
 * pairs, then 64, 32, 16, 8, 4, 2 over twice as many each. Its own root is in the tile
 * above. */
#define MERKLE_TILE_INNER (MERKLE_TILE_WIDTH - 2)
#define MERKLE_TILE_NODES (MERKLE_TILE_WIDTH + MERKLE_TILE_INNER)

struct merkle_hash {
    uint8_t b[SHA256_LEN];
};

struct merkle_proof {
    struct merkle_hash path[MERKLE_PROOF_MAX];
    size_t count;
};

struct merkle_hash merkle_leaf(const void *data, size_t len);
struct merkle_hash merkle_node(const struct merkle_hash *left,
                               const struct merkle_hash *right);
bool merkle_equal(const struct merkle_hash *a, const struct merkle_hash *b);

/* --- what a verifier needs: no tree at hand --- */

/* Is `leaf` the leaf `index` of the tree with this root? False too for an index that is
 * not below size, and for a path that is longer or shorter than it must be. */
bool merkle_includes(uint64_t index, uint64_t size, const struct merkle_hash *leaf,
                     const struct merkle_proof *proof, const struct merkle_hash *root);
/* Is the tree of `size` leaves the one of `old_size` with leaves added? Needs old_size
 * <= size; the empty tree is consistent with every other, by an empty proof. */
bool merkle_extends(uint64_t old_size, uint64_t size,
                    const struct merkle_hash *old_root, const struct merkle_hash *root,
                    const struct merkle_proof *proof);

/* --- what a log needs --- */

/* Where hashes are kept. read: the first `count` (1..256) hashes of tile (level, index)
 * into out; ERR_* of its own when it cannot. node, where inner nodes are kept: node
 * `at` (below MERKLE_TILE_NODES) of a tile; false when it is not, and it is hashed
 * anew. Only nodes whose hashes are all there are asked for. */
struct merkle_tiles {
    int (*read)(void *arg, unsigned level, uint64_t index, unsigned count,
                struct merkle_hash *out, struct err *err);
    void *arg;
    bool (*node)(void *arg, unsigned level, uint64_t index, unsigned at,
                 struct merkle_hash *out);
};

int merkle_root(const struct merkle_tiles *tiles, uint64_t size,
                struct merkle_hash *ret, struct err *err) MUST_USE;
/* ERR_BAD_REQUEST unless index < size. */
int merkle_prove_inclusion(const struct merkle_tiles *tiles, uint64_t index,
                           uint64_t size, struct merkle_proof *ret,
                           struct err *err) MUST_USE;
/* ERR_BAD_REQUEST unless old_size <= size. */
int merkle_prove_extension(const struct merkle_tiles *tiles, uint64_t old_size,
                           uint64_t size, struct merkle_proof *ret,
                           struct err *err) MUST_USE;

/* The growing edge of a log: the last tile of each level, complete or not, with the
 * inner nodes whose hashes are there. Zeroed: that of a log without leaves. */
struct merkle_edge {
    uint64_t size;
    struct merkle_hash tile[MERKLE_TILE_LEVELS][MERKLE_TILE_NODES];
};
/* From a log of `size` leaves; reads one tile a level. */
int merkle_edge_load(const struct merkle_tiles *tiles, uint64_t size,
                     struct merkle_edge *ret, struct err *err) MUST_USE;
/* Called for each tile that append changed: complete ones once, and on
 * merkle_edge_flush() those that are not. hashes: MERKLE_TILE_NODES of them; what is
 * past count, or over that, is zeros. */
typedef void merkle_tile_fn(void *arg, unsigned level, uint64_t index, unsigned count,
                            const struct merkle_hash *hashes);
void merkle_append(struct merkle_edge *e, const struct merkle_hash *leaf,
                   merkle_tile_fn *full, void *arg);
void merkle_edge_flush(const struct merkle_edge *e, merkle_tile_fn *partial, void *arg);
/* A view of the edge for merkle_root(): serves only what the edge holds, which is all
 * that the root of e->size leaves needs. */
struct merkle_tiles merkle_edge_tiles(struct merkle_edge *e);

#endif
