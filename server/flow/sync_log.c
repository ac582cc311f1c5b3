/* sync_log: see sync_log.h. */
#include "server/flow/sync_log.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/xalloc.h"
#include "server/flow/log_proof.h"

#define LOGS_MAX       2 /* usage, ledger */
#define LINE_BYTES_MAX 400

/* --- what it says --- */

static int check_name(const char *name, const char *at, struct err *err)
{
    return strcmp(name, "usage") == 0 || strcmp(name, "ledger") == 0
               ? 0
               : err_set(err, ERR_BAD_REQUEST, "%s: expected usage or ledger", at);
}

static int check_sizes(const json_t *sizes, struct err *err)
{
    const char *name;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)sizes, name, v)
    {
        if (check_name(name, "/log/sizes", err) != 0)
            return -1;
        if (!json_is_integer(v) || json_integer_value(v) < 0 ||
            json_integer_value(v) > INT64_MAX / 2)
            return err_set(err, ERR_BAD_REQUEST, "/log/sizes/%s: expected a size",
                           name);
    }
    return 0;
}

static int check_given(const json_t *list, struct err *err)
{
    struct row {
        const char *log, *cosignature;
        int64_t size;
    } row;
    static const struct jsonx_field fields[] = {
        {"log", JSONX_STRING, true, offsetof(struct row, log), 1, 16},
        {"size", JSONX_INT, true, offsetof(struct row, size), 1, INT64_MAX / 2},
        {"cosignature", JSONX_STRING, true, offsetof(struct row, cosignature), 1,
         LINE_BYTES_MAX},
    };
    const json_t *v;
    size_t i;
    json_array_foreach(list, i, v)
    {
        if (jsonx_decode(v, fields, JSONX_COUNT(fields), &row, "/log/cosignatures",
                         err) != 0 ||
            check_name(row.log, "/log/cosignatures", err) != 0)
            return -1;
        if (strchr(row.cosignature, '\n') !=
            row.cosignature + strlen(row.cosignature) - 1)
            return err_set(err, ERR_BAD_REQUEST,
                           "/log/cosignatures/%zu: expected one line with its newline",
                           i);
    }
    return 0;
}

static int check_refused(const json_t *list, struct err *err)
{
    struct row {
        const char *log, *detail;
    } row;
    static const struct jsonx_field fields[] = {
        {"log", JSONX_STRING, true, offsetof(struct row, log), 1, 16},
        {"detail", JSONX_STRING, true, offsetof(struct row, detail), 1, 500},
    };
    const json_t *v;
    size_t i;
    json_array_foreach(list, i,
                       v) if (jsonx_decode(v, fields, JSONX_COUNT(fields), &row,
                                           "/log/refused", err) != 0 ||
                              check_name(row.log, "/log/refused", err) != 0) return -1;
    return 0;
}

int sync_log_parse(const json_t *said, const char *spiffe_id, struct sync_log *ret,
                   struct err *err)
{
    struct row {
        const char *vkey;
        json_t *sizes, *cosignatures, *refused;
    } row = {NULL};
    static const struct jsonx_field fields[] = {
        {"vkey", JSONX_STRING, true, offsetof(struct row, vkey), 1, NOTE_VKEY_MAX - 1},
        {"sizes", JSONX_OBJECT, false, offsetof(struct row, sizes)},
        {"cosignatures", JSONX_ARRAY, false, offsetof(struct row, cosignatures), 0,
         LOGS_MAX},
        {"refused", JSONX_ARRAY, false, offsetof(struct row, refused), 0, LOGS_MAX},
    };
    struct sync_log l = {.ask = NULL};
    char name[NOTE_NAME_MAX];
    if (jsonx_decode(said, fields, JSONX_COUNT(fields), &row, "/log", err) != 0 ||
        check_sizes(row.sizes, err) != 0 || check_given(row.cosignatures, err) != 0 ||
        check_refused(row.refused, err) != 0)
        return -1;
    note_node_name(spiffe_id, name);
    if (note_key_parse(row.vkey, &l.key, err) != 0 || l.key.alg != NOTE_ALG_COSIGN ||
        strcmp(l.key.name, name) != 0)
        return err_set(err, ERR_BAD_REQUEST,
                       "/log/vkey: expected a witness's key of the name %s", name);
    memcpy(l.vkey, row.vkey, strlen(row.vkey) + 1);
    l.given = row.cosignatures != NULL ? json_incref(row.cosignatures) : json_array();
    l.refused = row.refused != NULL ? json_incref(row.refused) : json_array();
    l.ask = json_pack("{s:{}, s:O}", "sizes", "cosignatures", l.given);
    if (row.sizes != NULL)
        json_object_set(l.ask, "sizes", row.sizes);
    *ret = l;
    return 0;
}

void sync_log_done(struct sync_log *l)
{
    json_decref(l->ask);
    json_decref(l->given);
    json_decref(l->refused);
    json_decref(l->reply);
    *l = (struct sync_log){.ask = NULL};
}

/* --- what the database has --- */

static const char *note_of(const json_t *notes, const char *log, json_int_t size)
{
    const json_t *n;
    size_t i;
    json_array_foreach(
        notes, i, n) if (json_integer_value(json_object_get(n, "size")) == size &&
                         strcmp(json_string_value(json_object_get(n, "log")), log) ==
                             0) return json_string_value(json_object_get(n, "note"));
    return NULL;
}

static json_t *right_ones(const struct sync_log *l, const json_t *notes)
{
    json_t *out = json_array();
    const json_t *g;
    size_t i;
    json_array_foreach(l->given, i, g)
    {
        const char *log = json_string_value(json_object_get(g, "log")),
                   *line = json_string_value(json_object_get(g, "cosignature"));
        json_int_t size = json_integer_value(json_object_get(g, "size"));
        const char *note = note_of(notes, log, size);
        struct err err;
        int64_t time_s;
        if (note == NULL)
            continue;
        char *whole = xasprintf("%s%s", note, line);
        if (note_witnessed(whole, &l->key, &time_s, &err) == 0)
            json_array_append_new(out, json_pack("{s:s, s:I, s:s}", "log", log, "size",
                                                 size, "line", line));
        free(whole);
    }
    return out;
}

json_t *sync_log_take(struct sync_log *l, const json_t *answer)
{
    json_t *heads = json_object_get(answer, "heads"), *head;
    size_t i;
    struct err err;
    json_array_foreach(heads, i, head)
    {
        json_int_t from = json_integer_value(json_object_get(head, "from"));
        json_object_del(head, "from");
        /* A log that was longer once has no proof: the node says what it makes of it.
         */
        (void)!log_prove_extension(head, from, &err);
    }
    json_t *good = right_ones(l, json_object_get(answer, "notes")), *row,
           *taken = json_array(), *refused = json_array();
    json_array_foreach(good, i, row) json_array_append_new(
        taken, json_pack("{s:O, s:O}", "log", json_object_get(row, "log"), "size",
                         json_object_get(row, "size")));
    json_array_foreach(l->refused, i, row)
        json_array_append(refused, json_object_get(row, "log"));
    json_decref(l->reply);
    l->reply = json_pack("{s:O, s:o, s:o}", "heads", heads, "taken", taken, "refused",
                         refused);
    return good;
}
