/* verify, and --bundle of other commands: the market's verifiable log as a reader sees
 * it (docs/log.md). Everything is computed here; the server is asked for nothing but
 * the newest heads, and only without a file. What was seen is kept (heads.h) only when
 * all was right. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/heads.h"
#include "client/lib/bounds.h"
#include "client/lib/bundle.h"
#include "client/lib/timefmt.h"
#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/jws.h"
#include "client/lib/logentry.h"
#include "client/lib/xalloc.h"

/* --- the newest heads --- */

static int print_logs(struct cli *c, const struct heads *h,
                      const size_t witnesses[BUNDLE_LOGS], struct err *err)
{
    static const struct render_col cols[] = {
        {"LOG", "log", RENDER_TEXT, NULL},
        {"RECORDS", "size", RENDER_INT, NULL},
        {"WITNESSES", "witnesses", RENDER_INT, NULL},
        {"KEY", "vkey", RENDER_TEXT, NULL},
    };
    json_t *rows = json_array();
    for (int i = 0; i < BUNDLE_LOGS; i++)
        json_array_append_new(
            rows, json_pack("{s:s, s:I, s:I, s:s}", "log", h->logs[i].name, "size",
                            (json_int_t)h->logs[i].size, "witnesses",
                            (json_int_t)witnesses[i], "vkey", h->logs[i].vkey));
    json_t *reply = json_pack("{s:o}", "logs", rows);
    int rc = cli_print_list(c, reply, "logs", cols, RENDER_COUNT_OF(cols),
                            "the market keeps no log", err);
    json_decref(reply);
    return rc;
}

/* Every witness that the market tells of, and each that was asked for. */
static int count_witnesses(struct cli *c, const struct heads *h, int i,
                           size_t *ret_count, struct err *err)
{
    const char *vkey;
    size_t one;
    if (h->logs[i].size == 0)
        return 0;
    for (size_t n = 0; (vkey = opt_nth(c->opts, "witness", n)) != NULL; n++) {
        if (heads_witnessed(c, h, i, vkey, &one, err) != 0)
            return -1;
        if (one == 0)
            return err_set(err, ERR_TOKEN, "log %s: not cosigned by %.80s",
                           h->logs[i].name, vkey);
    }
    return heads_witnessed(c, h, i, NULL, ret_count, err);
}

static int verify_heads(struct cli *c, struct err *err)
{
    size_t witnesses[BUNDLE_LOGS] = {0};
    struct heads h;
    if (cli_open(c, err) != 0 || heads_read(c, &h, err) != 0)
        return -1;
    int rc = heads_follow(c, &h, err);
    for (int i = 0; rc == 0 && i < BUNDLE_LOGS; i++)
        rc = count_witnesses(c, &h, i, &witnesses[i], err);
    if (rc == 0)
        rc = heads_save(c, &h, err);
    if (rc == 0)
        rc = print_logs(c, &h, witnesses, err);
    heads_done(&h);
    return rc;
}

/* --- a bundle --- */

static json_t *result_json(const struct bundle_result *r)
{
    json_t *breaches = json_array();
    const char *line = strbuf_str(&r->breaches), *end;
    for (; (end = strchr(line, '\n')) != NULL; line = end + 1)
        json_array_append_new(breaches, json_stringn(line, (size_t)(end - line)));
    return json_pack(
        "{s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:o}", "ok",
        r->breach_count == 0, "records", (json_int_t)r->records, "receipts",
        (json_int_t)r->receipts, "countersigned", (json_int_t)r->countersigned,
        "promised", (json_int_t)r->promised, "priced", (json_int_t)r->priced,
        "invoices", (json_int_t)r->invoices, "credit_notes",
        (json_int_t)r->credit_notes, "key_known", r->pinned, "breaches", breaches);
}

static int print_result(struct cli *c, const struct bundle_result *r, struct err *err)
{
    static const struct render_col card[] = {
        {"Records", "records", RENDER_INT, NULL},
        {"Receipts", "receipts", RENDER_INT, NULL},
        {"Countersigned", "countersigned", RENDER_INT, NULL},
        {"Promised", "promised", RENDER_INT, NULL},
        {"Priced", "priced", RENDER_INT, NULL},
        {"Invoices", "invoices", RENDER_INT, NULL},
        {"Credit notes", "credit_notes", RENDER_INT, NULL},
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

/* When this program fetched it; for one that does not say, promises are over. */
static int64_t fetched_us(const json_t *bundle)
{
    const char *text = json_string_value(json_object_get(bundle, "fetched_at"));
    struct err err;
    int64_t us;
    return text != NULL && timefmt_parse(text, &us, &err) == 0 ? us : INT64_MAX;
}

static int verify_file(struct cli *c, const char *file, struct err *err)
{
    struct heads known;
    struct bundle_result result;
    json_error_t where;
    char *text;
    size_t len;
    if (fsx_read(file, BUNDLE_BYTES_MAX, &text, &len, err) != 0)
        return -1;
    json_t *bundle = json_loadb(text, len, JSON_REJECT_DUPLICATES, &where);
    free(text);
    if (bundle == NULL)
        return err_set(err, ERR_BAD_REQUEST, "%s:%d: %.200s", file, where.line,
                       where.text);
    int rc = account_init(&c->account, cli_account_name(c), err);
    if (rc == 0)
        rc = heads_read(c, &known, err);
    if (rc == 0)
        rc = given_keys(c, known.logs, err);
    if (rc == 0 && (rc = bundle_check(bundle, known.logs, known.root,
                                      fetched_us(bundle), &result, err)) == 0) {
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

/* Receipts that a node signed under a number it had used already: the market keeps
 * both. */
static int tell_forks(struct cli *c, const char *reservation, size_t *ret_count,
                      struct err *err)
{
    struct strbuf path = STRBUF_INIT;
    json_t *reply = NULL;
    const json_t *row, *fork;
    size_t i, k;
    *ret_count = 0;
    strbuf_adds(&path, "/v1/usage");
    cli_query(&path, "reservation", reservation);
    int rc = cli_get_list(c, strbuf_str(&path), "usage", &reply, err);
    strbuf_done(&path);
    json_array_foreach(json_object_get(reply, "usage"), i, row)
        json_array_foreach(json_object_get(row, "forks"), k, fork)
    {
        const char *node = json_string_value(json_object_get(row, "node"));
        ++*ret_count;
        cli_note("node %s signed another receipt %" JSON_INTEGER_FORMAT
                 " than the one above: both are kept as evidence",
                 node != NULL ? node : "",
                 json_integer_value(json_object_get(fork, "seq")));
    }
    json_decref(reply);
    return rc;
}

int cli_show_receipts(struct cli *c, const char *reservation, struct err *err)
{
    struct heads known;
    struct bundle_result result;
    struct strbuf path = STRBUF_INIT;
    json_t *bundle = NULL;
    size_t forks = 0;
    strbuf_adds(&path, "/v1/log/proof");
    cli_query(&path, "reservation", reservation);
    int rc = cli_get(c, strbuf_str(&path), &bundle, err);
    strbuf_done(&path);
    if (rc != 0)
        return -1;
    rc = heads_read(c, &known, err);
    if (rc == 0)
        rc = print_receipts(c, bundle, err);
    if (rc == 0)
        rc = tell_forks(c, reservation, &forks, err);
    if (rc == 0 && (rc = bundle_check(bundle, known.logs, known.root, clock_now_us(),
                                      &result, err)) == 0) {
        for (const char *line = strbuf_str(&result.breaches), *end;
             (end = strchr(line, '\n')) != NULL; line = end + 1)
            cli_note("%.*s", (int)(end - line), line);
        if (result.breach_count + forks > 0)
            rc = err_set(err, ERR_TOKEN, "%zu things are not right",
                         result.breach_count + forks);
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
    char now[TIMEFMT_MAX];
    timefmt_utc(clock_now_us(), now);
    json_object_set_new(bundle, "fetched_at", json_string(now));
    char *text = jsonx_dump(bundle);
    rc = fsx_write(file, text, strlen(text), 0600, err);
    if (rc == 0)
        cli_note("%s: %zu records; check it with: neargpu verify %s", file,
                 json_array_size(json_object_get(bundle, "entries")), file);
    free(text);
    json_decref(bundle);
    return rc;
}
