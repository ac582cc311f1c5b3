/* verify, and --bundle of other commands: the market's verifiable log as a reader sees
 * it (docs/log.md). Everything is computed here; the server is asked for nothing but
 * the newest heads, and only without a file.
 *
 * ACCOUNT.log.json keeps each log's key and the newest head seen: the first look
 * trusts, every later one must extend it. It is written only when all was right. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/lib/bounds.h"
#include "client/lib/bundle.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/jws.h"
#include "client/lib/logentry.h"
#include "client/lib/xalloc.h"

#define KEPT_BYTES_MAX 16384

/* --- what was seen before --- */

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

static int kept_read(const char *path, struct bundle_log logs[BUNDLE_LOGS],
                     char root[JWS_KID_MAX], struct err *err)
{
    char *text;
    size_t len;
    kept_init(logs);
    root[0] = '\0';
    if (fsx_read(path, KEPT_BYTES_MAX, &text, &len, err) != 0)
        return err->code == ERR_NOT_FOUND ? 0 : -1;
    json_t *obj = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    int rc = obj != NULL ? 0 : -1;
    for (int i = 0; rc == 0 && i < BUNDLE_LOGS; i++)
        rc = kept_one(json_object_get(obj, logs[i].name), &logs[i]);
    const char *kid = json_string_value(json_object_get(obj, "root"));
    if (rc == 0 && kid != NULL && strlen(kid) < JWS_KID_MAX)
        memcpy(root, kid, strlen(kid) + 1);
    json_decref(obj);
    free(text);
    return rc == 0 ? 0
                   : err_set(err, ERR_BAD_REQUEST,
                             "%s is damaged: what was seen of the market's logs is not "
                             "known any more; remove it to begin anew",
                             path);
}

static int kept_write(const char *path, const struct bundle_log logs[BUNDLE_LOGS],
                      const char *root, struct err *err)
{
    json_t *obj = json_pack("{s:s}", "root", root);
    char hex[SHA256_HEX];
    for (int i = 0; i < BUNDLE_LOGS; i++) {
        if (logs[i].vkey[0] == '\0')
            continue;
        digest_hex(logs[i].root.b, SHA256_LEN, hex);
        json_object_set_new(obj, logs[i].name,
                            json_pack("{s:s, s:I, s:s}", "vkey", logs[i].vkey, "size",
                                      (json_int_t)logs[i].size, "root", hex));
    }
    char *text = jsonx_dump(obj);
    int rc = fsx_write(path, text, strlen(text), 0600, err);
    free(text);
    json_decref(obj);
    return rc;
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

static int follow(struct cli *c, struct bundle_log *log, struct err *err)
{
    struct strbuf path = STRBUF_INIT;
    json_t *head = NULL;
    strbuf_addf(&path, "/v1/log/checkpoint?log=%s", log->name);
    if (log->size > 0)
        strbuf_addf(&path, "&from=%llu", (unsigned long long)log->size);
    int rc = cli_get(c, strbuf_str(&path), &head, err);
    strbuf_done(&path);
    if (rc != 0)
        return -1;
    const char *note = json_string_value(json_object_get(head, "checkpoint"));
    if (note == NULL || note[0] == '\0')
        rc = log->size > 0 ? err_set(err, ERR_TOKEN,
                                     "log %s: it is empty now, and had %llu leaves",
                                     log->name, (unsigned long long)log->size)
                           : 0;
    else
        rc = bundle_follow(head, log, err);
    json_decref(head);
    return rc;
}

static int print_logs(struct cli *c, const struct bundle_log logs[BUNDLE_LOGS],
                      struct err *err)
{
    static const struct render_col cols[] = {
        {"LOG", "log", RENDER_TEXT, NULL},
        {"RECORDS", "size", RENDER_INT, NULL},
        {"KEY", "vkey", RENDER_TEXT, NULL},
    };
    json_t *rows = json_array();
    for (int i = 0; i < BUNDLE_LOGS; i++)
        json_array_append_new(rows, json_pack("{s:s, s:I, s:s}", "log", logs[i].name,
                                              "size", (json_int_t)logs[i].size, "vkey",
                                              logs[i].vkey));
    json_t *reply = json_pack("{s:o}", "logs", rows);
    int rc = cli_print_list(c, reply, "logs", cols, RENDER_COUNT_OF(cols),
                            "the market keeps no log", err);
    json_decref(reply);
    return rc;
}

static int verify_heads(struct cli *c, struct err *err)
{
    struct bundle_log logs[BUNDLE_LOGS];
    char root[JWS_KID_MAX];
    if (cli_open(c, err) != 0)
        return -1;
    char *path = kept_path(c);
    int rc = kept_read(path, logs, root, err);
    if (rc == 0)
        rc = see_root(c, root, err);
    for (int i = 0; rc == 0 && i < BUNDLE_LOGS; i++)
        rc = follow(c, &logs[i], err);
    if (rc == 0)
        rc = kept_write(path, logs, root, err);
    free(path);
    return rc == 0 ? print_logs(c, logs, err) : -1;
}

/* --- a bundle --- */

static json_t *result_json(const struct bundle_result *r)
{
    json_t *breaches = json_array();
    const char *line = strbuf_str(&r->breaches), *end;
    for (; (end = strchr(line, '\n')) != NULL; line = end + 1)
        json_array_append_new(breaches, json_stringn(line, (size_t)(end - line)));
    return json_pack("{s:b, s:I, s:I, s:I, s:I, s:b, s:o}", "ok", r->breach_count == 0,
                     "records", (json_int_t)r->records, "receipts",
                     (json_int_t)r->receipts, "countersigned",
                     (json_int_t)r->countersigned, "invoices", (json_int_t)r->invoices,
                     "key_known", r->pinned, "breaches", breaches);
}

static int print_result(struct cli *c, const struct bundle_result *r, struct err *err)
{
    static const struct render_col card[] = {
        {"Records", "records", RENDER_INT, NULL},
        {"Receipts", "receipts", RENDER_INT, NULL},
        {"Countersigned", "countersigned", RENDER_INT, NULL},
        {"Invoices", "invoices", RENDER_INT, NULL},
        {"Key known", "key_known", RENDER_YES, NULL},
    };
    json_t *obj = result_json(r);
    int rc = cli_print_card(c, obj, card, RENDER_COUNT_OF(card), err);
    json_decref(obj);
    if (rc != 0)
        return -1;
    if (c->render.format != RENDER_JSON)
        for (const char *line = strbuf_str(&r->breaches), *end;
             (end = strchr(line, '\n')) != NULL; line = end + 1)
            cli_note("%.*s", (int)(end - line), line);
    if (r->breach_count > 0)
        return err_set(err, ERR_TOKEN, "%zu things in it are not right",
                       r->breach_count);
    if (!r->pinned && c->render.format == RENDER_TABLE)
        cli_note("the log's key was not known before: `neargpu verify` asks the market "
                 "for it, --log-key says it");
    return 0;
}

/* --log-key NAME+HASH+KEY, for each log its own. */
static int given_keys(const struct cli *c, struct bundle_log logs[BUNDLE_LOGS],
                      struct err *err)
{
    const char *text;
    for (size_t n = 0; (text = opt_nth(c->opts, "log-key", n)) != NULL; n++) {
        struct note_key key;
        bool used = false;
        if (note_key_parse(text, &key, err) != 0)
            return err_prefix(err, "--log-key");
        const char *slash = strrchr(key.name, '/');
        for (int i = 0; i < BUNDLE_LOGS && slash != NULL; i++) {
            if (strcmp(slash + 1, logs[i].name) != 0)
                continue;
            memset(&logs[i].root, 0, sizeof(logs[i].root));
            logs[i].size = 0;
            memcpy(logs[i].vkey, text, strlen(text) + 1);
            used = true;
        }
        if (!used)
            return err_set(err, ERR_USAGE,
                           "--log-key: %.80s is neither MARKET/usage nor MARKET/ledger",
                           key.name);
    }
    return 0;
}

static int verify_file(struct cli *c, const char *file, struct err *err)
{
    struct bundle_log known[BUNDLE_LOGS];
    char root[JWS_KID_MAX];
    struct bundle_result result;
    json_error_t where;
    char *text, *path;
    size_t len;
    if (fsx_read(file, BUNDLE_BYTES_MAX, &text, &len, err) != 0)
        return -1;
    json_t *bundle = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
    free(text);
    if (bundle == NULL)
        return err_set(err, ERR_BAD_REQUEST, "%s:%d: %.200s", file, where.line,
                       where.text);
    int rc = account_init(&c->account, cli_account_name(c), err);
    if (rc == 0) {
        path = kept_path(c);
        rc = kept_read(path, known, root, err);
        free(path);
    }
    if (rc == 0)
        rc = given_keys(c, known, err);
    if (rc == 0 && (rc = bundle_check(bundle, known, root, &result, err)) == 0) {
        rc = print_result(c, &result, err);
        bundle_result_done(&result);
    }
    json_decref(bundle);
    return rc;
}

int cmd_verify(struct cli *c, struct err *err)
{
    if (c->opts->arg_count == 0)
        return verify_heads(c, err);
    return verify_file(c, c->opts->args[0], err);
}

/* --- receipts, one by one --- */

/* What a receipt says, with what is remarkable about it: gaps as the node tells them,
 * and a boot that is not the one before. */
static json_t *receipt_row(const json_t *receipt, char boot[64], char node[300])
{
    const char *text = json_string_value(json_object_get(receipt, "receipt")), *step,
               *own = json_string_value(json_object_get(receipt, "node"));
    struct jws_parts parts;
    struct strbuf note = STRBUF_INIT;
    struct err err;
    if (text == NULL || own == NULL ||
        jws_split_max(text, strlen(text), RECEIPT_BYTES_MAX, &parts, &step, &err) != 0)
        return json_pack("{s:s}", "note", "not readable");
    json_t *row = json_loadb(parts.payload, parts.payload_len, 0, NULL);
    jws_parts_done(&parts);
    if (row == NULL)
        return json_pack("{s:s}", "note", "not readable");
    const char *now = json_string_value(json_object_get(row, "boot_id"));
    const json_t *gap;
    size_t i;
    if (strcmp(node, own) == 0 && now != NULL && strcmp(boot, now) != 0)
        strbuf_adds(&note, "the node was started anew; ");
    json_array_foreach(json_object_get(row, "gaps"), i, gap)
        strbuf_addf(&note, "not billed from %s to %s: %s; ",
                    json_string_value(json_object_get(gap, "from")),
                    json_string_value(json_object_get(gap, "to")),
                    json_string_value(json_object_get(gap, "why")));
    if (!json_is_string(json_object_get(receipt, "countersign")))
        strbuf_adds(&note, "not countersigned yet; ");
    snprintf(boot, 64, "%s", now != NULL ? now : "");
    snprintf(node, 300, "%s", own);
    if (note.len > 2)
        note.data[note.len - 2] = '\0';
    json_object_set_new(row, "note", json_string(strbuf_str(&note)));
    json_object_set_new(row, "node", json_string(own));
    json_object_set(row, "receipt", json_object_get(receipt, "receipt"));
    json_object_set(row, "countersign", json_object_get(receipt, "countersign"));
    strbuf_done(&note);
    return row;
}

static int print_receipts(struct cli *c, const json_t *bundle, struct err *err)
{
    static const struct render_col cols[] = {
        {"NODE", "node", RENDER_TEXT, NULL},
        {"SEQ", "seq", RENDER_INT, NULL},
        {"KIND", "kind", RENDER_TEXT, NULL},
        {"FROM", "from", RENDER_TIME, NULL},
        {"TO", "to", RENDER_TIME, NULL},
        {"GPU HOURS", "gpu_ms", RENDER_GPU_MS, NULL},
        {"NOTE", "note", RENDER_TEXT, NULL},
    };
    char boot[64] = "", node[300] = "";
    json_t *rows = json_array();
    const json_t *receipt;
    size_t i;
    json_array_foreach(json_object_get(bundle, "receipts"), i, receipt)
        json_array_append_new(rows, receipt_row(receipt, boot, node));
    json_t *reply = json_pack("{s:o}", "receipts", rows);
    int rc = cli_print_list(c, reply, "receipts", cols, RENDER_COUNT_OF(cols),
                            "no receipts yet", err);
    json_decref(reply);
    return rc;
}

int cli_show_receipts(struct cli *c, const char *reservation, struct err *err)
{
    struct bundle_log known[BUNDLE_LOGS];
    char root[JWS_KID_MAX];
    struct bundle_result result;
    struct strbuf path = STRBUF_INIT;
    json_t *bundle = NULL;
    strbuf_adds(&path, "/v1/log/proof");
    cli_query(&path, "reservation", reservation);
    int rc = cli_get(c, strbuf_str(&path), &bundle, err);
    strbuf_done(&path);
    if (rc != 0)
        return -1;
    char *kept = kept_path(c);
    rc = kept_read(kept, known, root, err);
    free(kept);
    if (rc == 0)
        rc = print_receipts(c, bundle, err);
    if (rc == 0 && (rc = bundle_check(bundle, known, root, &result, err)) == 0) {
        for (const char *line = strbuf_str(&result.breaches), *end;
             (end = strchr(line, '\n')) != NULL; line = end + 1)
            cli_note("%.*s", (int)(end - line), line);
        if (result.breach_count > 0)
            rc = err_set(err, ERR_TOKEN, "%zu things are not right",
                         result.breach_count);
        else if (c->render.format == RENDER_TABLE)
            cli_note("%zu receipts: signed by their nodes, without a hole, in the log; "
                     "%zu countersigned",
                     result.receipts, result.countersigned);
        bundle_result_done(&result);
    }
    json_decref(bundle);
    return rc;
}

int cli_save_bundle(struct cli *c, const char *what, const char *id, const char *file,
                    struct err *err)
{
    struct strbuf path = STRBUF_INIT;
    json_t *bundle = NULL;
    strbuf_adds(&path, "/v1/log/proof");
    cli_query(&path, what, id);
    int rc = cli_get(c, strbuf_str(&path), &bundle, err);
    strbuf_done(&path);
    if (rc != 0)
        return -1;
    char *text = jsonx_dump(bundle);
    rc = fsx_write(file, text, strlen(text), 0600, err);
    if (rc == 0)
        cli_note("%s: %zu records; check it with: neargpu verify %s", file,
                 json_array_size(json_object_get(bundle, "entries")), file);
    free(text);
    json_decref(bundle);
    return rc;
}
