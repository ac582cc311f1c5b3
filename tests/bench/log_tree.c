/* log_tree [LEAVES]: the log's tree alone, in memory: leaves appended per second, and
 * the time to make and to check an inclusion proof of a random leaf, and an extension
 * proof from a random earlier size. Prints JSON. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/clock.h"
#include "client/lib/merkle.h"
#include "client/lib/xalloc.h"

#define PROOFS 20000

struct store {
    struct merkle_hash *level[MERKLE_TILE_LEVELS];
};

static void put(void *arg, unsigned level, uint64_t index, unsigned count,
                const struct merkle_hash *hashes)
{
    struct store *s = arg;
    (void)count;
    memcpy(s->level[level] + index * MERKLE_TILE_NODES, hashes,
           MERKLE_TILE_NODES * sizeof(*hashes));
}

static int get(void *arg, unsigned level, uint64_t index, unsigned count,
               struct merkle_hash *out, struct err *err)
{
    const struct store *s = arg;
    (void)err;
    memcpy(out, s->level[level] + index * MERKLE_TILE_NODES, count * sizeof(*out));
    return 0;
}

static bool node(void *arg, unsigned level, uint64_t index, unsigned at,
                 struct merkle_hash *out)
{
    const struct store *s = arg;
    *out = s->level[level][index * MERKLE_TILE_NODES + at];
    return true;
}

static int compare(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

int main(int argc, char **argv)
{
    uint64_t leaves = argc > 1 ? strtoull(argv[1], NULL, 10) : 10000000;
    struct store s = {.level = {NULL}};
    struct merkle_tiles tiles = {get, &s, node};
    struct merkle_edge *edge = xcalloc(1, sizeof(*edge));
    struct merkle_hash root, old_root;
    struct merkle_proof proof;
    struct err err;
    int64_t *prove = xcalloc(PROOFS, sizeof(*prove)), check_us = 0, sizes = 0;
    unsigned seed = 1;
    uint64_t room = leaves;
    for (int i = 0; i < MERKLE_TILE_LEVELS && room > 0; i++, room /= MERKLE_TILE_WIDTH)
        s.level[i] = xcalloc((room / MERKLE_TILE_WIDTH + 1) * MERKLE_TILE_NODES,
                             sizeof(*s.level[i]));
    int64_t start = clock_boot_us();
    for (uint64_t i = 0; i < leaves; i++) {
        struct merkle_hash leaf = merkle_leaf(&i, sizeof(i));
        merkle_append(edge, &leaf, put, &s);
    }
    merkle_edge_flush(edge, put, &s);
    double append_s = (double)(clock_boot_us() - start) / 1e6;
    if (merkle_root(&tiles, leaves, &root, &err) != 0)
        return 1;
    int64_t all = clock_boot_us();
    for (int n = 0; n < PROOFS; n++) {
        uint64_t at =
            ((uint64_t)rand_r(&seed) << 16 ^ (uint64_t)rand_r(&seed)) % leaves;
        struct merkle_hash leaf = merkle_leaf(&at, sizeof(at));
        if (merkle_prove_inclusion(&tiles, at, leaves, &proof, &err) != 0)
            return 1;
        int64_t made = clock_boot_us();
        if (!merkle_includes(at, leaves, &leaf, &proof, &root))
            return 1;
        check_us += clock_boot_us() - made;
        sizes += (int64_t)(proof.count * SHA256_LEN);
    }
    all = clock_boot_us() - all;
    for (int n = 0; n < PROOFS / 10; n++) {
        uint64_t old = 1 + (((uint64_t)rand_r(&seed) << 16) ^ 77) % (leaves - 1);
        int64_t from = clock_boot_us();
        if (merkle_prove_extension(&tiles, old, leaves, &proof, &err) != 0 ||
            merkle_root(&tiles, old, &old_root, &err) != 0 ||
            !merkle_extends(old, leaves, &old_root, &root, &proof))
            return 1;
        prove[n] = clock_boot_us() - from;
    }
    qsort(prove, PROOFS / 10, sizeof(*prove), compare);
    json_t *out = json_pack(
        "{s:I, s:f, s:f, s:f, s:I, s:I}", "leaves", (json_int_t)leaves, "append_per_s",
        (double)leaves / append_s, "proof_us", (double)all / PROOFS, "check_us",
        (double)check_us / PROOFS, "proof_bytes", (json_int_t)(sizes / PROOFS),
        "extension_p50_us", (json_int_t)prove[PROOFS / 20]);
    json_dumpf(out, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(out);
    for (int i = 0; i < MERKLE_TILE_LEVELS; i++)
        free(s.level[i]);
    free(edge);
    free(prove);
    return 0;
}
