/* sequencer: see sequencer.h. */
#include "billing/sequencer.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "billing/pgtx.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/logentry.h"
#include "client/lib/merkle.h"
#include "client/lib/note.h"
#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"

#define LOGS     2
#define TILE_HEX (MERKLE_TILE_WIDTH * SHA256_LEN * 2 + 1)

struct log {
    char name[16];
    bool loaded;
    struct merkle_edge edge;
};

struct sequencer {
    EVP_PKEY *key;
    struct log logs[LOGS];
};

/* Columns of api.billing_logs. */
enum { LOGS_NAME, LOGS_SIZE, LOGS_VKEY, LOGS_MARKET };
/* Columns of api.billing_log_take. */
enum { TAKE_ID, TAKE_KIND, TAKE_REF, TAKE_BODY };
/* Columns of api.billing_log_leaves. */
enum { LEAF_INDEX, LEAF_KIND, LEAF_REF, LEAF_NONCE, LEAF_HASH, LEAF_BODY };

/* --- the key --- */

static int read_key(const char *path, EVP_PKEY **ret, struct err *err)
{
    char *pem;
    size_t len;
    if (fsx_read_secret(path, 4096, &pem, &len, err) != 0)
        return -1;
    int rc = jws_key_from_pem(pem, len, ret, err);
    OPENSSL_cleanse(pem, len);
    free(pem);
    return rc;
}

/* Of several that make it at once one wins, and all have read its key before they sign
 * anything: the log's first key stays its key. */
static int make_key(const char *path, struct err *err)
{
    EVP_PKEY *key;
    if (jws_keygen(&key, err) != 0)
        return -1;
    char *pem = jws_key_to_pem(key), *own = xasprintf("%s.%ld", path, (long)getpid());
    EVP_PKEY_free(key);
    int rc = fsx_write(own, pem, strlen(pem), 0600, err);
    if (rc == 0 && link(own, path) != 0 && errno != EEXIST)
        rc = err_sys(err, errno, "link %s", path);
    unlink(own);
    OPENSSL_cleanse(pem, strlen(pem));
    free(pem);
    free(own);
    return rc;
}

static int sync_folder(const char *path, struct err *err)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL)
        return fsx_sync_dir(".", err);
    char *dir = xstrndup(path, (size_t)(slash - path) + 1);
    int rc = fsx_sync_dir(dir, err);
    free(dir);
    return rc;
}

int sequencer_open(const char *key_file, struct sequencer **ret, struct err *err)
{
    EVP_PKEY *key = NULL;
    int rc = read_key(key_file, &key, err);
    if (rc != 0 && err->code == ERR_NOT_FOUND) {
        rc = make_key(key_file, err);
        if (rc == 0)
            rc = sync_folder(key_file, err);
        if (rc == 0)
            rc = read_key(key_file, &key, err);
    }
    if (rc != 0)
        return err_prefix(err, "log key %s", key_file);
    *ret = xcalloc(1, sizeof(**ret));
    (*ret)->key = key;
    return 0;
}

void sequencer_free(struct sequencer *s)
{
    if (s == NULL)
        return;
    EVP_PKEY_free(s->key);
    free(s);
}

/* --- reading tiles --- */

struct tile_source {
    PGconn *pg;
    const char *log;
};

static int read_tile(void *arg, unsigned level, uint64_t index, unsigned count,
                     struct merkle_hash *out, struct err *err)
{
    const struct tile_source *src = arg;
    char level_text[8], index_text[24], count_text[8];
    const char *params[] = {src->log, level_text, index_text, count_text};
    PGresult *r;
    snprintf(level_text, sizeof(level_text), "%u", level);
    snprintf(index_text, sizeof(index_text), "%" PRIu64, index);
    snprintf(count_text, sizeof(count_text), "%u", count);
    if (pgtx_query(src->pg, "SELECT api.billing_log_tile($1, $2, $3, $4)", params, 4,
                   &r, err) != 0)
        return -1;
    bool ok = PQntuples(r) == 1 &&
              logentry_unhex(PQgetvalue(r, 0, 0), out->b, count * SHA256_LEN);
    PQclear(r);
    return ok ? 0
              : err_set(err, ERR_INTERNAL, "log %s: tile %u/%s is missing or short",
                        src->log, level, index_text);
}

/* --- appending --- */

static void add_tile(void *arg, unsigned level, uint64_t index, unsigned count,
                     const struct merkle_hash *hashes)
{
    char *hex = xmalloc(TILE_HEX), *inner = xmalloc(TILE_HEX);
    digest_hex(hashes->b, count * SHA256_LEN, hex);
    digest_hex(hashes[MERKLE_TILE_WIDTH].b, MERKLE_TILE_INNER * SHA256_LEN, inner);
    json_array_append_new(arg, json_pack("{s:i, s:I, s:s, s:s}", "level", (int)level,
                                         "index", (json_int_t)index, "hashes", hex,
                                         "inner", inner));
    free(hex);
    free(inner);
}

/* One queued row: into the edge, the leaves and the full tiles. */
static int add_leaf(struct log *log, const PGresult *rows, int row, json_t *leaves,
                    json_t *tiles, struct err *err)
{
    const char *kind = PQgetvalue(rows, row, TAKE_KIND),
               *ref = PQgetvalue(rows, row, TAKE_REF);
    uint8_t nonce[LOGENTRY_NONCE_LEN];
    char nonce_hex[2 * LOGENTRY_NONCE_LEN + 1], leaf_hex[SHA256_HEX];
    struct merkle_hash leaf;
    const char *text = PQgetvalue(rows, row, TAKE_BODY);
    json_t *body = PQgetisnull(rows, row, TAKE_BODY)
                       ? NULL
                       : json_loadb(text, strlen(text), 0, NULL);
    if (body == NULL)
        return err_set(err, ERR_INTERNAL, "log %s: %s %s is queued but not there",
                       log->name, kind, ref);
    digest_random(nonce, sizeof(nonce));
    int rc = logentry_leaf(body, nonce, &leaf, err);
    json_decref(body);
    if (rc != 0)
        return err_prefix(err, "log %s: %s %s", log->name, kind, ref);
    merkle_append(&log->edge, &leaf, add_tile, tiles);
    digest_hex(nonce, sizeof(nonce), nonce_hex);
    digest_hex(leaf.b, SHA256_LEN, leaf_hex);
    json_array_append_new(leaves, json_pack("{s:I, s:s, s:s, s:s, s:s}", "id",
                                            (json_int_t)pgtx_i64(rows, row, TAKE_ID),
                                            "kind", kind, "ref", ref, "nonce",
                                            nonce_hex, "leaf", leaf_hex));
    return 0;
}

/* The signed head of the edge as it is. */
static int sign_head(struct sequencer *s, struct log *log, const char *origin,
                     char **ret_note, char vkey[NOTE_VKEY_MAX], struct err *err)
{
    struct merkle_tiles tiles = merkle_edge_tiles(&log->edge);
    struct checkpoint c = {.size = log->edge.size};
    struct note_key k;
    snprintf(c.origin, sizeof(c.origin), "%s", origin);
    if (note_key_make(origin, NOTE_ALG_SIGN, s->key, &k, err) != 0 ||
        merkle_root(&tiles, c.size, &c.root, err) != 0)
        return -1;
    note_key_print(&k, vkey);
    char *text = checkpoint_print(&c);
    int rc = note_sign(text, origin, s->key, ret_note, err);
    free(text);
    return rc;
}

static int store(PGconn *pg, const struct log *log, uint64_t old_size, const char *vkey,
                 const json_t *leaves, const json_t *tiles, const char *note,
                 struct err *err)
{
    char size[24];
    char *leaves_text = jsonx_dump(leaves), *tiles_text = jsonx_dump(tiles);
    const char *params[] = {log->name, size, vkey, leaves_text, tiles_text, note};
    PGresult *r;
    snprintf(size, sizeof(size), "%" PRIu64, old_size);
    int rc = pgtx_query(pg, "SELECT api.billing_log_append($1, $2, $3, $4, $5, $6)",
                        params, 6, &r, err);
    if (rc == 0)
        PQclear(r);
    free(leaves_text);
    free(tiles_text);
    return rc;
}

static int append(struct sequencer *s, PGconn *pg, struct log *log, const char *origin,
                  const PGresult *rows, struct err *err)
{
    json_t *leaves = json_array(), *tiles = json_array();
    char *note = NULL, vkey[NOTE_VKEY_MAX];
    uint64_t old_size = log->edge.size;
    int rc = 0;
    for (int row = 0; rc == 0 && row < PQntuples(rows); row++)
        rc = add_leaf(log, rows, row, leaves, tiles, err);
    if (rc == 0) {
        merkle_edge_flush(&log->edge, add_tile, tiles);
        rc = sign_head(s, log, origin, &note, vkey, err);
    }
    if (rc == 0)
        rc = store(pg, log, old_size, vkey, leaves, tiles, note, err);
    log->loaded = rc == 0; /* else the edge is ahead of what is kept */
    free(note);
    json_decref(leaves);
    json_decref(tiles);
    return rc;
}

static int log_round(struct sequencer *s, PGconn *pg, struct log *log,
                     const PGresult *logs, int row, int64_t *ret_count, struct err *err)
{
    uint64_t size = (uint64_t)pgtx_i64(logs, row, LOGS_SIZE);
    char limit[16], origin[NOTE_NAME_MAX];
    struct tile_source src = {pg, log->name};
    struct merkle_tiles tiles = {read_tile, &src, NULL};
    int taken = SEQUENCER_BATCH;
    snprintf(log->name, sizeof(log->name), "%s", PQgetvalue(logs, row, LOGS_NAME));
    snprintf(origin, sizeof(origin), "%s/%s", PQgetvalue(logs, row, LOGS_MARKET),
             log->name);
    if ((!log->loaded || log->edge.size != size) &&
        merkle_edge_load(&tiles, size, &log->edge, err) != 0)
        return -1;
    log->loaded = true;
    snprintf(limit, sizeof(limit), "%d", SEQUENCER_BATCH);
    while (taken >= SEQUENCER_BATCH) {
        const char *params[] = {log->name, limit};
        PGresult *rows;
        if (pgtx_query(pg, "SELECT * FROM api.billing_log_take($1, $2)", params, 2,
                       &rows, err) != 0)
            return -1;
        taken = PQntuples(rows);
        int rc = taken > 0 ? append(s, pg, log, origin, rows, err) : 0;
        PQclear(rows);
        if (rc != 0)
            return -1;
        *ret_count += taken;
    }
    return 0;
}

/* What was agreed since the last round is kept, and queued with it. */
static int keep_agreed(PGconn *pg, struct err *err)
{
    char limit[16];
    const char *params[] = {limit};
    int64_t read = SEQUENCER_BATCH;
    snprintf(limit, sizeof(limit), "%d", SEQUENCER_BATCH);
    while (read == SEQUENCER_BATCH) {
        PGresult *r;
        if (pgtx_query(pg, "SELECT api.billing_agreed($1)", params, 1, &r, err) != 0)
            return -1;
        read = pgtx_i64(r, 0, 0);
        PQclear(r);
    }
    return 0;
}

int sequencer_round(struct sequencer *s, PGconn *pg, int64_t *ret_count,
                    struct err *err)
{
    PGresult *logs;
    int rc = 0;
    *ret_count = 0;
    if (keep_agreed(pg, err) != 0)
        return -1;
    if (pgtx_query(pg, "SELECT * FROM api.billing_logs()", NULL, 0, &logs, err) != 0)
        return -1;
    for (int row = 0; rc == 0 && row < PQntuples(logs) && row < LOGS; row++)
        rc = log_round(s, pg, &s->logs[row], logs, row, ret_count, err);
    PQclear(logs);
    return rc;
}

/* --- verifying --- */

struct verify {
    PGconn *pg;
    const char *log;
    struct note_key key;
    struct merkle_edge edge;
    struct strbuf breaches;
    int count;
};

static void breach(struct verify *v, const char *what)
{
    if (v->count++ < SEQUENCER_BREACHES_MAX)
        strbuf_addf(&v->breaches, "log %s: %s\n", v->log, what);
}

/* The tile that is kept is the one of the leaves seen: proofs are made of it. Tiles of
 * before inner nodes were kept have none. */
static void verify_tile(void *arg, unsigned level, uint64_t index, unsigned count,
                        const struct merkle_hash *hashes)
{
    struct verify *v = arg;
    char level_text[8], index_text[24], what[100];
    char *hex = xmalloc(TILE_HEX), *inner = xmalloc(TILE_HEX);
    const char *params[] = {v->log, level_text, index_text, hex, inner};
    PGresult *r;
    struct err err;
    snprintf(level_text, sizeof(level_text), "%u", level);
    snprintf(index_text, sizeof(index_text), "%" PRIu64, index);
    digest_hex(hashes->b, count * SHA256_LEN, hex);
    digest_hex(hashes[MERKLE_TILE_WIDTH].b, MERKLE_TILE_INNER * SHA256_LEN, inner);
    bool same = pgtx_query(v->pg,
                           "SELECT hashes = $4 AND coalesce(inner_nodes = $5, true) "
                           "FROM api.billing_log_tile_whole($1, $2, $3)",
                           params, 5, &r, &err) == 0;
    if (same) {
        same = PQntuples(r) == 1 && strcmp(PQgetvalue(r, 0, 0), "t") == 0;
        PQclear(r);
    }
    snprintf(what, sizeof(what), "tile %u/%" PRIu64 " is not that of its leaves", level,
             index);
    if (!same)
        breach(v, what);
    free(hex);
    free(inner);
}

/* The leaf of a row as it is now, compared with the one that was logged; what goes into
 * the tree is the logged one, so that one altered row is one breach. */
static void verify_leaf(struct verify *v, const PGresult *rows, int row)
{
    const char *kind = PQgetvalue(rows, row, LEAF_KIND),
               *ref = PQgetvalue(rows, row, LEAF_REF),
               *text = PQgetvalue(rows, row, LEAF_BODY);
    uint8_t nonce[LOGENTRY_NONCE_LEN];
    struct merkle_hash logged, now;
    struct err err;
    char what[512];
    json_t *body = PQgetisnull(rows, row, LEAF_BODY)
                       ? NULL
                       : json_loadb(text, strlen(text), 0, NULL);
    bool known =
        logentry_unhex(PQgetvalue(rows, row, LEAF_NONCE), nonce, sizeof(nonce)) &&
        logentry_unhex(PQgetvalue(rows, row, LEAF_HASH), logged.b, SHA256_LEN);
    if (!known)
        memset(&logged, 0, sizeof(logged));
    if (body == NULL)
        snprintf(what, sizeof(what), "%s %.200s was removed after it was logged", kind,
                 ref);
    else
        snprintf(what, sizeof(what), "%s %.200s was altered after it was logged", kind,
                 ref);
    if ((uint64_t)pgtx_i64(rows, row, LEAF_INDEX) != v->edge.size)
        snprintf(what, sizeof(what), "leaf %" PRIu64 " is missing", v->edge.size),
            known = false;
    if (!known || body == NULL || logentry_leaf(body, nonce, &now, &err) != 0 ||
        !merkle_equal(&now, &logged))
        breach(v, what);
    json_decref(body);
    merkle_append(&v->edge, &logged, verify_tile, v);
}

/* The signed head of exactly the leaves seen so far. */
static void verify_head(struct verify *v, uint64_t size, const char *note)
{
    struct merkle_tiles tiles = merkle_edge_tiles(&v->edge);
    struct checkpoint c;
    struct merkle_hash root;
    struct err err;
    char *text = NULL, what[600];
    if (note_open(note, &v->key, &text, &err) != 0 ||
        checkpoint_parse(text, &c, &err) != 0)
        snprintf(what, sizeof(what), "head %" PRIu64 ": %.400s", size, err.text);
    else if (strcmp(c.origin, v->key.name) != 0 || c.size != size ||
             merkle_root(&tiles, size, &root, &err) != 0 ||
             !merkle_equal(&root, &c.root))
        snprintf(what, sizeof(what), "head %" PRIu64 " is not that of its leaves",
                 size);
    else
        what[0] = '\0';
    free(text);
    if (what[0] != '\0')
        breach(v, what);
}

/* Leaves up to the next head, then the head, until none are left. */
static int verify_log(struct verify *v, uint64_t size, struct err *err)
{
    char from[24], to[24], limit[16];
    const char *params[] = {v->log, from, limit};
    PGresult *heads = NULL, *rows;
    snprintf(limit, sizeof(limit), "%d", SEQUENCER_BATCH);
    while (v->edge.size < size) {
        uint64_t first = v->edge.size;
        snprintf(from, sizeof(from), "%" PRIu64, first);
        if (pgtx_query(v->pg, "SELECT * FROM api.billing_log_leaves($1, $2, $3)",
                       params, 3, &rows, err) != 0)
            return -1;
        int n = PQntuples(rows), head = 0;
        snprintf(to, sizeof(to), "%" PRIu64, first + (uint64_t)n);
        const char *range[] = {v->log, from, to};
        if (n == 0) {
            PQclear(rows);
            breach(v, "its last leaves are missing");
            return 0;
        }
        if (pgtx_query(v->pg, "SELECT * FROM api.billing_log_heads($1, $2, $3)", range,
                       3, &heads, err) != 0) {
            PQclear(rows);
            return -1;
        }
        for (int row = 0; row < n; row++) {
            verify_leaf(v, rows, row);
            for (; head < PQntuples(heads) &&
                   (uint64_t)pgtx_i64(heads, head, 0) == v->edge.size;
                 head++)
                verify_head(v, v->edge.size, PQgetvalue(heads, head, 1));
        }
        bool headless = v->edge.size == size &&
                        (head == 0 || (uint64_t)pgtx_i64(heads, head - 1, 0) != size);
        if (headless)
            breach(v, "its last head is missing");
        PQclear(heads);
        PQclear(rows);
    }
    return 0;
}

int sequencer_verify(PGconn *pg, char **ret_text, int64_t *ret_leaves, struct err *err)
{
    struct strbuf all = STRBUF_INIT;
    PGresult *logs;
    int rc = 0;
    *ret_leaves = 0;
    if (pgtx_query(pg, "SELECT * FROM api.billing_logs()", NULL, 0, &logs, err) != 0)
        return -1;
    for (int row = 0; rc == 0 && row < PQntuples(logs); row++) {
        int64_t size = pgtx_i64(logs, row, LOGS_SIZE);
        struct verify *v = xcalloc(1, sizeof(*v));
        v->pg = pg;
        v->log = PQgetvalue(logs, row, LOGS_NAME);
        if (size > 0)
            rc = note_key_parse(PQgetvalue(logs, row, LOGS_VKEY), &v->key, err);
        if (rc == 0)
            rc = verify_log(v, (uint64_t)size, err);
        if (rc == 0)
            merkle_edge_flush(&v->edge, verify_tile, v);
        if (rc != 0)
            (void)err_prefix(err, "log %s", v->log);
        *ret_leaves += (int64_t)v->edge.size;
        strbuf_adds(&all, strbuf_str(&v->breaches));
        strbuf_done(&v->breaches);
        free(v);
    }
    if (PQntuples(logs) != LOGS)
        strbuf_adds(&all, "a log is missing\n");
    PQclear(logs);
    *ret_text = all.len > 0 && rc == 0 ? strbuf_steal(&all) : xstrdup("");
    strbuf_done(&all);
    return rc;
}
