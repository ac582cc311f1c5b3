/* heads: see heads.h. */
#include "client/cli/heads.h"

#include "client/cli/query.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/jws.h"
#include "client/lib/logentry.h"
#include "client/lib/xalloc.h"

#define KEPT_BYTES_MAX 16384

/* --- the file --- */

static char *kept_path(const struct cli *c)
{
    size_t len = strlen(c->account.json_path) - strlen(".json");
    return xasprintf("%.*s.log.json", (int)len, c->account.json_path);
}

static void kept_init(struct bundle_log logs[BUNDLE_LOGS])
{
    memset(logs, 0, sizeof(*logs) * BUNDLE_LOGS);
    memcpy(logs[0].name, "usage", 6);
    memcpy(logs[1].name, "ledger", 7);
}

static int kept_one(const json_t *obj, struct bundle_log *log)
{
    const char *vkey = json_string_value(json_object_get(obj, "vkey")),
               *root = json_string_value(json_object_get(obj, "root"));
    if (obj == NULL)
        return 0;
    if (vkey == NULL || strlen(vkey) >= sizeof(log->vkey) || root == NULL ||
        !logentry_unhex(root, log->root.b, SHA256_LEN))
        return -1;
    memcpy(log->vkey, vkey, strlen(vkey) + 1);
    log->size = (uint64_t)json_integer_value(json_object_get(obj, "size"));
    return 0;
}

int heads_read(const struct cli *c, struct heads *ret, struct err *err)
{
    char *path = kept_path(c), *text;
    size_t len;
    int rc;
    memset(ret, 0, sizeof(*ret));
    kept_init(ret->logs);
    if (fsx_read(path, KEPT_BYTES_MAX, &text, &len, err) != 0) {
        free(path);
        return err->code == ERR_NOT_FOUND ? 0 : -1;
    }
    json_t *obj = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    rc = obj != NULL ? 0 : -1;
    for (int i = 0; rc == 0 && i < BUNDLE_LOGS; i++)
        rc = kept_one(json_object_get(obj, ret->logs[i].name), &ret->logs[i]);
    const char *kid = json_string_value(json_object_get(obj, "root"));
    if (rc == 0 && kid != NULL && strlen(kid) < JWS_KID_MAX)
        memcpy(ret->root, kid, strlen(kid) + 1);
    json_decref(obj);
    free(text);
    if (rc != 0)
        (void)err_set(err, ERR_BAD_REQUEST,
                      "%s is damaged: what was seen of the market's logs is not known "
                      "any more; remove it to begin anew",
                      path);
    free(path);
    return rc;
}

int heads_save(const struct cli *c, const struct heads *h, struct err *err)
{
    json_t *obj = json_pack("{s:s}", "root", h->root);
    char hex[SHA256_HEX], *path = kept_path(c);
    for (int i = 0; i < BUNDLE_LOGS; i++) {
        if (h->logs[i].vkey[0] == '\0')
            continue;
        digest_hex(h->logs[i].root.b, SHA256_LEN, hex);
        json_object_set_new(obj, h->logs[i].name,
                            json_pack("{s:s, s:I, s:s}", "vkey", h->logs[i].vkey,
                                      "size", (json_int_t)h->logs[i].size, "root",
                                      hex));
    }
    char *text = jsonx_dump(obj);
    int rc = fsx_write(path, text, strlen(text), 0600, err);
    free(text);
    free(path);
    json_decref(obj);
    return rc;
}

void heads_done(struct heads *h)
{
    for (int i = 0; i < BUNDLE_LOGS; i++)
        json_decref(h->fetched[i]);
}

/* The root of the market's keys, taken at the first look and never another. */
static int see_root(struct cli *c, char root[JWS_KID_MAX], struct err *err)
{
    json_t *reply = NULL;
    uint8_t pub[JWS_ED25519_LEN];
    char kid[JWS_KID_MAX];
    if (cli_get(c, "/v1/keyset", &reply, err) != 0)
        return -1;
    int rc = jws_jwk_parse(json_object_get(reply, "root"), pub, err);
    json_decref(reply);
    if (rc != 0)
        return -1;
    jws_thumbprint(pub, kid);
    if (root[0] != '\0' && strcmp(root, kid) != 0)
        return err_set(err, ERR_TOKEN,
                       "the market's keys stand under root %s, and %s was seen before",
                       kid, root);
    memcpy(root, kid, sizeof(kid));
    return 0;
}

/* --- the newest heads --- */

/* The newest head of a log, with the proof that it extends the one of `from` leaves. */
static int fetch(struct cli *c, const char *log, uint64_t from, const char *witness,
                 json_t **ret, struct err *err)
{
    struct strbuf path = STRBUF_INIT;
    char size[24];
    strbuf_adds(&path, "/v1/log/checkpoint");
    cli_query(&path, "log", log);
    snprintf(size, sizeof(size), "%llu", (unsigned long long)from);
    cli_query(&path, "from", from > 0 ? size : NULL);
    cli_query(&path, "witness", witness);
    int rc = cli_get(c, strbuf_str(&path), ret, err);
    strbuf_done(&path);
    return rc;
}

static int follow(struct cli *c, struct bundle_log *log, json_t **ret_head,
                  struct err *err)
{
    if (fetch(c, log->name, log->size, NULL, ret_head, err) != 0)
        return -1;
    const char *note = json_string_value(json_object_get(*ret_head, "checkpoint"));
    if (note != NULL && note[0] != '\0')
        return bundle_follow(*ret_head, log, err);
    return log->size > 0
               ? err_set(err, ERR_TOKEN, "log %s: it is empty now, and had %llu leaves",
                         log->name, (unsigned long long)log->size)
               : 0;
}

int heads_follow(struct cli *c, struct heads *h, struct err *err)
{
    int rc = see_root(c, h->root, err);
    for (int i = 0; rc == 0 && i < BUNDLE_LOGS; i++)
        rc = follow(c, &h->logs[i], &h->fetched[i], err);
    return rc;
}

/* --- witnesses --- */

/* The head that a witness cosigned is one that the log's newest extends. */
static int check_witnessed(struct cli *c, const struct bundle_log *log,
                           const json_t *row, struct err *err)
{
    const char *note = json_string_value(json_object_get(row, "checkpoint")),
               *vkey = json_string_value(json_object_get(row, "vkey"));
    struct bundle_log seen = *log;
    struct note_key witness, key;
    struct checkpoint head;
    json_t *newest = NULL;
    char *text = NULL;
    int64_t time_s;
    if (note == NULL || vkey == NULL)
        return err_set(err, ERR_TOKEN, "log %s: a witness is not readable", log->name);
    int rc = note_key_parse(vkey, &witness, err) == 0 &&
                     note_key_parse(log->vkey, &key, err) == 0 &&
                     note_witnessed(note, &witness, &time_s, err) == 0 &&
                     note_open(note, &key, &text, err) == 0 &&
                     checkpoint_parse(text, &head, err) == 0
                 ? 0
                 : -1;
    free(text);
    if (rc != 0)
        return err_prefix(err, "log %s, cosignature", log->name);
    seen.size = head.size;
    seen.root = head.root;
    rc = fetch(c, log->name, head.size, NULL, &newest, err);
    if (rc == 0 && bundle_follow(newest, &seen, err) != 0)
        rc = err_prefix(err, "witness %s was shown another log", witness.name);
    json_decref(newest);
    return rc;
}

int heads_witnessed(struct cli *c, const struct heads *h, int i, const char *only,
                    size_t *ret_count, struct err *err)
{
    const json_t *row;
    json_t *told = json_incref(h->fetched[i]);
    size_t n;
    int rc = 0;
    *ret_count = 0;
    if (only != NULL) { /* it need not be one of the newest that are told unasked */
        char *name = xstrndup(only, strcspn(only, "+"));
        json_decref(told);
        told = NULL;
        rc = fetch(c, h->logs[i].name, 0, name, &told, err);
        free(name);
    }
    json_array_foreach(json_object_get(told, "witnessed"), n, row)
    {
        const char *vkey = json_string_value(json_object_get(row, "vkey"));
        if (only != NULL && (vkey == NULL || strcmp(vkey, only) != 0))
            continue;
        rc = check_witnessed(c, &h->logs[i], row, err);
        if (rc != 0)
            break;
        ++*ret_count;
    }
    json_decref(told);
    return rc;
}
