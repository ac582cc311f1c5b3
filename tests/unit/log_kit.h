/* log_kit: a log of the market as small as it can be: heads of any size, of one history
 * or of another, signed by a key, with the proof that they extend an earlier one. */
#ifndef NEARGPU_LOG_KIT_H
#define NEARGPU_LOG_KIT_H
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/merkle.h"
#include "client/lib/note.h"
#include "tests/unit/unit.h"

#define KIT_LEAVES 64

struct kit_log {
    struct merkle_hash leaves[KIT_LEAVES];
    unsigned count;
};

static int kit_read(void *arg, unsigned level, uint64_t index, unsigned count,
                    struct merkle_hash *out, struct err *err)
{
    const struct kit_log *l = arg;
    (void)err;
    ck_assert_uint_eq(level, 0);
    ck_assert_uint_eq(index, 0);
    ck_assert_uint_le(count, l->count);
    memcpy(out, l->leaves, count * sizeof(*out));
    return 0;
}

/* fork: the leaf that is another than in the history of others; -1: none. */
static inline void kit_fill(struct kit_log *l, unsigned size, int fork)
{
    l->count = size;
    for (int i = 0; i < (int)size; i++) {
        int data = i == fork ? -1 : i;
        l->leaves[i] = merkle_leaf(&data, sizeof(data));
    }
}

/* The signed head of MARKET/NAME; the caller frees. */
static inline char *kit_note(EVP_PKEY *key, const char *origin, unsigned size, int fork,
                             char vkey[NOTE_VKEY_MAX])
{
    struct kit_log l;
    struct merkle_tiles tiles = {kit_read, &l, NULL};
    struct checkpoint c = {.size = size};
    struct note_key k;
    struct err err;
    char *note, *text;
    kit_fill(&l, size, fork);
    snprintf(c.origin, sizeof(c.origin), "%s", origin);
    ck_assert_int_eq(merkle_root(&tiles, size, &c.root, &err), 0);
    ck_assert_int_eq(note_key_make(origin, NOTE_ALG_SIGN, key, &k, &err), 0);
    note_key_print(&k, vkey);
    text = checkpoint_print(&c);
    ck_assert_int_eq(note_sign(text, origin, key, &note, &err), 0);
    free(text);
    return note;
}

/* A head as the market tells it: {log, vkey, size, checkpoint, consistency}. */
static inline json_t *kit_head(EVP_PKEY *key, const char *origin, unsigned size,
                               unsigned from, int fork)
{
    struct kit_log l;
    struct merkle_tiles tiles = {kit_read, &l, NULL};
    struct merkle_proof p = {.count = 0};
    struct err err;
    char vkey[NOTE_VKEY_MAX], hex[SHA256_HEX], *note;
    json_t *path = json_array();
    kit_fill(&l, size, fork);
    if (from <= size)
        ck_assert_int_eq(merkle_prove_extension(&tiles, from, size, &p, &err), 0);
    for (size_t n = 0; n < p.count; n++) {
        digest_hex(p.path[n].b, SHA256_LEN, hex);
        json_array_append_new(path, json_string(hex));
    }
    note = kit_note(key, origin, size, fork, vkey);
    json_t *head = json_pack("{s:s, s:s, s:I, s:s, s:o}", "log",
                             strrchr(origin, '/') + 1, "vkey", vkey, "size",
                             (json_int_t)size, "checkpoint", note, "consistency", path);
    free(note);
    return head;
}

#endif
