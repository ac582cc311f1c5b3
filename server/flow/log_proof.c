/* log_proof: see log_proof.h. */
#include "server/flow/log_proof.h"

#include <stdlib.h>
#include <string.h>

#include "client/lib/logentry.h"
#include "client/lib/merkle.h"
#include "client/lib/xalloc.h"

/* --- tiles as the database sends them --- */

struct tile {
    int64_t level, index;
    const char *hex, *inner; /* inner nodes; NULL: made before they were kept */
};
struct tile_set {
    struct tile *tiles; /* sorted by level, then index; hex borrows from the reply */
    size_t count;
};

static int tile_compare(const void *a, const void *b)
{
    const struct tile *x = a, *y = b;
    if (x->level != y->level)
        return x->level < y->level ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static void tile_set_init(struct tile_set *s, const json_t *list)
{
    const json_t *t;
    size_t i;
    s->count = json_array_size(list);
    s->tiles = xcalloc(s->count + 1, sizeof(*s->tiles));
    json_array_foreach(list, i, t)
    {
        s->tiles[i].level = json_integer_value(json_object_get(t, "level"));
        s->tiles[i].index = json_integer_value(json_object_get(t, "index"));
        s->tiles[i].hex = json_string_value(json_object_get(t, "hashes"));
        s->tiles[i].inner = json_string_value(json_object_get(t, "inner"));
    }
    qsort(s->tiles, s->count, sizeof(*s->tiles), tile_compare);
}

static const struct tile *tile_find(const struct tile_set *s, unsigned level,
                                    uint64_t index)
{
    struct tile want = {.level = (int64_t)level, .index = (int64_t)index};
    return bsearch(&want, s->tiles, s->count, sizeof(*s->tiles), tile_compare);
}

/* One node out of the tile's text: what a proof is made of mostly. */
static bool tile_node(void *arg, unsigned level, uint64_t index, unsigned at,
                      struct merkle_hash *out)
{
    const struct tile *t = tile_find(arg, level, index);
    const char *from = t == NULL ? NULL : at < MERKLE_TILE_WIDTH ? t->hex : t->inner;
    size_t place = (size_t)(at % MERKLE_TILE_WIDTH) * SHA256_LEN * 2;
    char part[SHA256_HEX];
    if (from == NULL || strnlen(from, place + SHA256_LEN * 2) < place + SHA256_LEN * 2)
        return false;
    memcpy(part, from + place, SHA256_LEN * 2);
    part[SHA256_LEN * 2] = '\0';
    return logentry_unhex(part, out->b, SHA256_LEN);
}

static int tile_read(void *arg, unsigned level, uint64_t index, unsigned count,
                     struct merkle_hash *out, struct err *err)
{
    const struct tile *t = tile_find(arg, level, index);
    char part[MERKLE_TILE_WIDTH * SHA256_LEN * 2 + 1];
    size_t len = (size_t)count * SHA256_LEN * 2;
    if (t == NULL || t->hex == NULL || strnlen(t->hex, len) < len)
        return err_set(err, ERR_INTERNAL, "the log's tile %u/%llu is missing", level,
                       (unsigned long long)index);
    memcpy(part, t->hex, len);
    part[len] = '\0';
    if (!logentry_unhex(part, out->b, (size_t)count * SHA256_LEN))
        return err_set(err, ERR_INTERNAL, "the log's tile %u/%llu is damaged", level,
                       (unsigned long long)index);
    return 0;
}

static json_t *proof_json(const struct merkle_proof *p)
{
    json_t *list = json_array();
    char hex[SHA256_HEX];
    for (size_t i = 0; i < p->count; i++) {
        digest_hex(p->path[i].b, SHA256_LEN, hex);
        json_array_append_new(list, json_string(hex));
    }
    return list;
}

/* --- proofs --- */

int log_prove_extension(json_t *head, int64_t from, struct err *err)
{
    int64_t size = json_integer_value(json_object_get(head, "size"));
    struct merkle_proof proof;
    struct tile_set set;
    int rc = 0;
    if (from > 0) {
        tile_set_init(&set, json_object_get(head, "tiles"));
        struct merkle_tiles tiles = {tile_read, &set, tile_node};
        rc =
            merkle_prove_extension(&tiles, (uint64_t)from, (uint64_t)size, &proof, err);
        free(set.tiles);
        if (rc == 0)
            json_object_set_new(head, "consistency", proof_json(&proof));
    }
    json_object_del(head, "tiles");
    return rc;
}

/* The entries of one log get their proofs. */
int log_prove_entries(json_t *bundle, const char *log, struct err *err)
{
    const json_t *head = json_object_get(json_object_get(bundle, "logs"), log);
    uint64_t size = (uint64_t)json_integer_value(json_object_get(head, "size"));
    struct merkle_proof proof;
    struct tile_set set;
    json_t *entry;
    size_t i;
    int rc = 0;
    tile_set_init(&set, json_object_get(json_object_get(bundle, "tiles"), log));
    struct merkle_tiles tiles = {tile_read, &set, tile_node};
    json_array_foreach(json_object_get(bundle, "entries"), i, entry)
    {
        const char *of = json_string_value(json_object_get(entry, "log"));
        int64_t index = json_integer_value(json_object_get(entry, "index"));
        if (rc != 0 || strcmp(of != NULL ? of : "", log) != 0)
            continue;
        rc = merkle_prove_inclusion(&tiles, (uint64_t)index, size, &proof, err);
        if (rc == 0)
            json_object_set_new(entry, "proof", proof_json(&proof));
    }
    free(set.tiles);
    return rc;
}
