/* witness: see witness.h. */
#include "client/agent/witness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/bundle.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/jws.h"
#include "client/lib/log.h"
#include "client/lib/logentry.h"
#include "client/lib/note.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define KEPT_BYTES_MAX 65536
#define DETAIL_MAX     400 /* as the market takes it */

struct seen {
    struct bundle_log head; /* the newest that was found to be right */
    char *note;             /* its signed text; NULL: none */
    char *line;             /* its cosignature, until the market has it */
    char refused[DETAIL_MAX];
    bool tells; /* the market does not know yet that it was refused */
};

struct witness {
    char *dir, *market;
    EVP_PKEY *key;
    char name[NOTE_NAME_MAX], vkey[NOTE_VKEY_MAX];
    int64_t interval_us, next_us; /* boot time */
    struct seen logs[BUNDLE_LOGS];
};

/* --- on disk --- */

static int open_key(struct witness *w, struct err *err)
{
    char *path = xasprintf("%s/key", w->dir), *pem = NULL;
    struct note_key key;
    size_t len = 0;
    int rc = fsx_read_secret(path, 4096, &pem, &len, err);
    if (rc != 0 && err->code == ERR_NOT_FOUND) {
        rc = jws_keygen(&w->key, err);
        if (rc == 0) {
            pem = jws_key_to_pem(w->key);
            len = strlen(pem);
            rc = fsx_write(path, pem, len, 0600, err);
        }
    } else if (rc == 0) {
        rc = jws_key_from_pem(pem, len, &w->key, err);
    }
    if (pem != NULL)
        OPENSSL_cleanse(pem, len);
    free(pem);
    free(path);
    if (rc == 0)
        rc = note_key_make(w->name, NOTE_ALG_COSIGN, w->key, &key, err);
    if (rc == 0)
        note_key_print(&key, w->vkey);
    return rc;
}

static bool read_one(const json_t *obj, struct seen *s)
{
    const char *vkey = json_string_value(json_object_get(obj, "vkey")),
               *root = json_string_value(json_object_get(obj, "root")),
               *note = json_string_value(json_object_get(obj, "checkpoint"));
    json_int_t size = json_integer_value(json_object_get(obj, "size"));
    if (obj == NULL)
        return true;
    if (vkey == NULL || strlen(vkey) >= sizeof(s->head.vkey) || root == NULL ||
        note == NULL || size <= 0 || !logentry_unhex(root, s->head.root.b, SHA256_LEN))
        return false;
    memcpy(s->head.vkey, vkey, strlen(vkey) + 1);
    s->head.size = (uint64_t)size;
    s->note = xstrdup(note);
    return true;
}

/* Of another market, nothing was seen yet. */
static int read_heads(struct witness *w, struct err *err)
{
    char *path = xasprintf("%s/heads.json", w->dir), *text = NULL;
    size_t len;
    int rc = fsx_read(path, KEPT_BYTES_MAX, &text, &len, err);
    if (rc != 0) {
        free(path);
        return err->code == ERR_NOT_FOUND ? 0 : -1;
    }
    json_t *obj = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    const char *market = json_string_value(json_object_get(obj, "market"));
    bool fine = market != NULL;
    if (fine && strcmp(market, w->market) == 0)
        for (int i = 0; fine && i < BUNDLE_LOGS; i++)
            fine = read_one(json_object_get(obj, w->logs[i].head.name), &w->logs[i]);
    if (!fine)
        rc = err_set(err, ERR_BAD_REQUEST,
                     "%s is damaged: what was seen of the log is not known any more; "
                     "remove it to begin anew",
                     path);
    json_decref(obj);
    free(text);
    free(path);
    return rc;
}

static int write_heads(const struct witness *w, struct err *err)
{
    json_t *obj = json_pack("{s:s}", "market", w->market);
    char hex[SHA256_HEX], *path = xasprintf("%s/heads.json", w->dir);
    for (int i = 0; i < BUNDLE_LOGS; i++) {
        const struct seen *s = &w->logs[i];
        if (s->note == NULL)
            continue;
        digest_hex(s->head.root.b, SHA256_LEN, hex);
        json_object_set_new(obj, s->head.name,
                            json_pack("{s:s, s:I, s:s, s:s}", "vkey", s->head.vkey,
                                      "size", (json_int_t)s->head.size, "root", hex,
                                      "checkpoint", s->note));
    }
    char *text = jsonx_dump(obj);
    int rc = fsx_write(path, text, strlen(text), 0600, err);
    free(text);
    free(path);
    json_decref(obj);
    return rc;
}

static void keep_evidence(const struct witness *w, const char *log, const char *note)
{
    char *path = xasprintf("%s/refused-%s.note", w->dir, log);
    struct err err;
    if (fsx_write(path, note, strlen(note), 0600, &err) != 0)
        log_warn("witness: %s", err.text);
    free(path);
}

/* --- what it says --- */

json_t *witness_says(const struct witness *w, int64_t boot_us)
{
    json_t *sizes = json_object(), *lines = json_array(), *refused = json_array();
    bool wants = boot_us >= w->next_us;
    for (int i = 0; i < BUNDLE_LOGS; i++) {
        const struct seen *s = &w->logs[i];
        if (wants)
            json_object_set_new(sizes, s->head.name,
                                json_integer((json_int_t)s->head.size));
        if (s->line != NULL)
            json_array_append_new(
                lines, json_pack("{s:s, s:I, s:s}", "log", s->head.name, "size",
                                 (json_int_t)s->head.size, "cosignature", s->line));
        if (s->tells)
            json_array_append_new(refused, json_pack("{s:s, s:s}", "log", s->head.name,
                                                     "detail", s->refused));
    }
    bool says = wants || json_array_size(lines) > 0 || json_array_size(refused) > 0;
    json_t *o = json_pack("{s:s, s:o, s:o, s:o}", "vkey", w->vkey, "sizes", sizes,
                          "cosignatures", lines, "refused", refused);
    if (says)
        return o;
    json_decref(o);
    return NULL;
}

/* --- what it is told --- */

static struct seen *seen_of(struct witness *w, const char *name)
{
    for (int i = 0; name != NULL && i < BUNDLE_LOGS; i++)
        if (strcmp(w->logs[i].head.name, name) == 0)
            return &w->logs[i];
    return NULL;
}

/* Said once, until a head is right again. */
static void refuse(struct witness *w, struct seen *s, const char *note,
                   const struct err *why)
{
    free(s->line);
    s->line = NULL;
    if (s->refused[0] != '\0')
        return;
    snprintf(s->refused, sizeof(s->refused), "%s", why->text);
    s->tells = true;
    keep_evidence(w, s->head.name, note);
    log_error(
        "witness: what the market shows of its log is not cosigned: %s. Both heads "
        "are kept in %s",
        s->refused, w->dir);
}

/* Of this market's log, and one that extends all seen before. */
static int follow(const struct witness *w, const json_t *head, struct bundle_log *log,
                  struct err *err)
{
    const char *vkey = json_string_value(json_object_get(head, "vkey")),
               *note = json_string_value(json_object_get(head, "checkpoint"));
    char origin[NOTE_NAME_MAX];
    struct note_key key;
    if (note == NULL || note[0] == '\0')
        return err_set(err, ERR_TOKEN, "log %s: it is empty now, and had %llu leaves",
                       log->name, (unsigned long long)log->size);
    if (bundle_follow(head, log, err) != 0 || note_key_parse(vkey, &key, err) != 0)
        return -1;
    snprintf(origin, sizeof(origin), "%.100s/%s", w->market, log->name);
    if (strcmp(key.name, origin) != 0)
        return err_set(err, ERR_TOKEN, "log %s: this is the head of %.100s", log->name,
                       key.name);
    return 0;
}

static int cosign(struct witness *w, struct seen *s, int64_t now_us, struct err *err)
{
    char *line;
    if (note_cosign(s->note, w->name, w->key, now_us / US_PER_S, &line, err) != 0)
        return -1;
    free(s->line);
    s->line = line;
    s->refused[0] = '\0';
    s->tells = false;
    return 0;
}

static void take_head(struct witness *w, const json_t *head, int64_t now_us)
{
    struct seen *s = seen_of(w, json_string_value(json_object_get(head, "log")));
    const char *note = json_string_value(json_object_get(head, "checkpoint"));
    struct err err;
    if (s == NULL || (s->head.size == 0 && (note == NULL || note[0] == '\0')))
        return; /* a log that has not begun */
    struct bundle_log next = s->head;
    if (follow(w, head, &next, &err) != 0) {
        refuse(w, s, note != NULL ? note : "", &err);
        return;
    }
    int rc = 0;
    if (next.size != s->head.size) {
        struct seen before = *s;
        s->head = next;
        s->note = xstrdup(note);
        rc = write_heads(w, &err);
        if (rc != 0) {
            free(s->note);
            *s = before;
        } else {
            free(before.note);
        }
    }
    if (rc == 0)
        rc = cosign(w, s, now_us, &err);
    if (rc != 0)
        log_warn("witness: %s", err.text);
}

/* What the market has need not be told again. */
static void take_taken(struct witness *w, const json_t *log)
{
    const json_t *row;
    size_t i;
    json_array_foreach(json_object_get(log, "taken"), i, row)
    {
        struct seen *s = seen_of(w, json_string_value(json_object_get(row, "log")));
        if (s == NULL ||
            (uint64_t)json_integer_value(json_object_get(row, "size")) != s->head.size)
            continue;
        free(s->line);
        s->line = NULL;
    }
    json_array_foreach(json_object_get(log, "refused"), i, row)
    {
        struct seen *s = seen_of(w, json_string_value(row));
        if (s != NULL)
            s->tells = false;
    }
}

void witness_takes(struct witness *w, const json_t *log, int64_t boot_us,
                   int64_t now_us)
{
    const json_t *heads = json_object_get(log, "heads"), *head;
    const char *error = json_string_value(json_object_get(log, "error"));
    size_t i;
    if (error != NULL)
        log_warn("witness: the market: %.200s", error);
    take_taken(w, log);
    if (json_array_size(heads) == 0)
        return;
    w->next_us = boot_us + w->interval_us;
    json_array_foreach(heads, i, head) take_head(w, head, now_us);
}

/* --- life --- */

int witness_open(const struct witness_conf *c, struct witness **ret, struct err *err)
{
    static const char *const names[BUNDLE_LOGS] = {"usage", "ledger"};
    struct witness *w = xcalloc(1, sizeof(*w));
    w->dir = xasprintf("%s/witness", c->state_dir);
    w->market = xstrdup(c->market);
    w->interval_us = c->interval_us;
    note_node_name(c->spiffe_id, w->name);
    for (int i = 0; i < BUNDLE_LOGS; i++)
        snprintf(w->logs[i].head.name, sizeof(w->logs[i].head.name), "%s", names[i]);
    if (fsx_mkdirs(w->dir, 0700, err) != 0 || open_key(w, err) != 0 ||
        read_heads(w, err) != 0) {
        witness_free(w);
        return -1;
    }
    *ret = w;
    return 0;
}

void witness_free(struct witness *w)
{
    if (w == NULL)
        return;
    for (int i = 0; i < BUNDLE_LOGS; i++) {
        free(w->logs[i].note);
        free(w->logs[i].line);
    }
    EVP_PKEY_free(w->key);
    free(w->dir);
    free(w->market);
    free(w);
}

const char *witness_vkey(const struct witness *w)
{
    return w->vkey;
}
