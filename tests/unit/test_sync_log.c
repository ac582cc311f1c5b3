/* sync_log: what a node says as a witness, believed as far as its own key goes. */
#include <stdio.h>

#include "client/lib/xalloc.h"
#include "server/flow/sync_log.h"
#include "tests/unit/log_kit.h"

#define NODE   "spiffe://test.local/site/a/node/n1"
#define NAME   "test.local/site/a/node/n1"
#define LEDGER "test.local/ledger"

static EVP_PKEY *log_key, *node_key;
static char vkey[NOTE_VKEY_MAX], *note, *line;

static void begin(void)
{
    struct note_key k;
    struct err err;
    char unused[NOTE_VKEY_MAX];
    ck_assert_int_eq(jws_keygen(&log_key, &err), 0);
    ck_assert_int_eq(jws_keygen(&node_key, &err), 0);
    ck_assert_int_eq(note_key_make(NAME, NOTE_ALG_COSIGN, node_key, &k, &err), 0);
    note_key_print(&k, vkey);
    note = kit_note(log_key, LEDGER, 5, -1, unused);
    ck_assert_int_eq(note_cosign(note, NAME, node_key, 1000, &line, &err), 0);
}

static void end(void)
{
    EVP_PKEY_free(log_key);
    EVP_PKEY_free(node_key);
    free(note);
    free(line);
}

static json_t *say(const char *cosignature, int size)
{
    return json_pack("{s:s, s:{s:i}, s:[{s:s, s:i, s:s}], s:[{s:s, s:s}]}", "vkey",
                     vkey, "sizes", "ledger", 5, "cosignatures", "log", "ledger",
                     "size", size, "cosignature", cosignature, "refused", "log",
                     "usage", "detail", "forked");
}

/* What the database answers: the note of 5 leaves and the head of 9. */
static json_t *answer(void)
{
    json_t *head = kit_head(log_key, LEDGER, 9, 5, -1);
    json_object_del(head, "consistency");
    json_object_set_new(head, "from", json_integer(0));
    json_object_set_new(head, "tiles", json_array());
    return json_pack("{s:[o], s:[{s:s, s:i, s:s}]}", "heads", head, "notes", "log",
                     "ledger", "size", 5, "note", note);
}

static size_t good_of(const char *cosignature, int size)
{
    struct sync_log l;
    struct err err;
    json_t *said = say(cosignature, size), *from = answer();
    ck_assert_msg(sync_log_parse(said, NODE, &l, &err) == 0, "%s", err.text);
    json_t *good = sync_log_take(&l, from);
    size_t n = json_array_size(good);
    ck_assert_uint_eq(json_array_size(json_object_get(l.reply, "taken")), n);
    ck_assert_uint_eq(json_array_size(json_object_get(l.reply, "refused")), 1);
    ck_assert_uint_eq(json_array_size(json_object_get(l.reply, "heads")), 1);
    json_decref(good);
    json_decref(from);
    json_decref(said);
    sync_log_done(&l);
    return n;
}

START_TEST(test_cosignatures)
{
    struct err err;
    EVP_PKEY *other;
    char *wrong;
    begin();
    ck_assert_uint_eq(good_of(line, 5), 1);
    ck_assert_uint_eq(good_of(line, 4), 0); /* of no head there was */
    ck_assert_int_eq(jws_keygen(&other, &err), 0);
    ck_assert_int_eq(note_cosign(note, NAME, other, 1000, &wrong, &err), 0);
    ck_assert_uint_eq(good_of(wrong, 5), 0);
    free(wrong);
    EVP_PKEY_free(other);
    wrong = xstrdup(line);
    wrong[strlen(wrong) - 10] ^= 1;
    ck_assert_uint_eq(good_of(wrong, 5), 0);
    free(wrong);
    ck_assert_uint_eq(good_of("x\n", 5), 0);
    end();
}
END_TEST

START_TEST(test_parsed)
{
    static const struct {
        const char *member, *value, *why;
    } rows[] = {
        {"vkey", "\"x\"", "/log/vkey"},
        {"vkey", NULL, "vkey"},
        {"sizes", "{\"other\":1}", "usage or ledger"},
        {"sizes", "{\"usage\":-1}", "expected a size"},
        {"sizes", "{\"usage\":\"1\"}", "expected a size"},
        {"cosignatures", "[{\"log\":\"x\",\"size\":1,\"cosignature\":\"a\\n\"}]",
         "usage or ledger"},
        {"cosignatures", "[{\"log\":\"usage\",\"size\":0,\"cosignature\":\"a\\n\"}]",
         "size"},
        {"cosignatures", "[{\"log\":\"usage\",\"size\":1,\"cosignature\":\"a\"}]",
         "one line"},
        {"cosignatures",
         "[{\"log\":\"usage\",\"size\":1,\"cosignature\":\"a\\nb\\n\"}]", "one line"},
        {"cosignatures", "[1,2,3]", "cosignatures"},
        {"refused", "[{\"log\":\"usage\",\"detail\":\"\"}]", "detail"},
        {"refused", "[{\"log\":\"x\",\"detail\":\"y\"}]", "usage or ledger"},
        {"more", "1", "more"},
    };
    struct sync_log l;
    struct err err;
    begin();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        json_t *said = say(line, 5);
        json_object_del(said, rows[i].member);
        if (rows[i].value != NULL)
            json_object_set_new(said, rows[i].member,
                                json_loads(rows[i].value, JSON_DECODE_ANY, NULL));
        ck_assert_msg(sync_log_parse(said, NODE, &l, &err) == -1 &&
                          strstr(err.text, rows[i].why) != NULL,
                      "%zu: %s", i, err.text);
        json_decref(said);
    }
    json_t *said = say(line, 5);
    ck_assert_int_eq(
        sync_log_parse(said, "spiffe://test.local/site/a/node/n2", &l, &err),
        -1); /* another's name */
    json_decref(said);
    end();
}
END_TEST

UNIT_MAIN("sync_log", UNIT_CASE(test_cosignatures) UNIT_CASE(test_parsed))
