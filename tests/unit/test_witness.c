/* witness: what an agent cosigns of the heads it is shown, what it refuses and says so,
 * and that a restart makes it forget nothing. */
#include <stdio.h>
#include <unistd.h>

#include "client/agent/witness.h"
#include "client/lib/fsx.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "tests/unit/log_kit.h"

#define NODE   "spiffe://test.local/site/a/node/n1"
#define LEDGER "test.local/ledger"
#define EVERY  (60 * US_PER_S)
#define NOW    (1000 * US_PER_S)

static char dir[64];
static EVP_PKEY *key;
static struct witness *w;
static int64_t boot_us; /* grows by an interval at every look */

static void start(void)
{
    const struct witness_conf c = {dir, "test.local", NODE, EVERY};
    struct err err;
    ck_assert_msg(witness_open(&c, &w, &err) == 0, "%s", err.text);
}

static void begin(void)
{
    struct err err;
    snprintf(dir, sizeof(dir), "/tmp/neargpu-witness.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_int_eq(jws_keygen(&key, &err), 0);
    boot_us = 0;
    start();
}

static void end(void)
{
    struct err err;
    witness_free(w);
    EVP_PKEY_free(key);
    ck_assert_int_eq(fsx_remove_tree(dir, &err), 0);
}

/* It wants heads, and is shown this one (taken). */
static void show(json_t *take_head)
{
    boot_us += EVERY;
    json_t *says = witness_says(w, boot_us);
    ck_assert_int_eq((int)json_object_size(json_object_get(says, "sizes")), 2);
    json_t *log = json_pack("{s:[o]}", "heads", take_head);
    witness_takes(w, log, boot_us, NOW);
    json_decref(says);
    json_decref(log);
}

static json_t *said(const char *name)
{
    json_t *says = witness_says(w, boot_us), *list = json_array();
    if (says != NULL)
        json_array_extend(list, json_object_get(says, name));
    json_decref(says);
    return list;
}

/* The ledger's head of so many leaves has just been cosigned, rightly; 0: none has. */
static void expect_cosigned(unsigned size)
{
    json_t *list = said("cosignatures"), *row = json_array_get(list, 0);
    ck_assert_uint_eq(json_array_size(list), size > 0);
    if (size > 0) {
        struct note_key k;
        struct err err;
        char vkey[NOTE_VKEY_MAX], *note = kit_note(key, LEDGER, size, -1, vkey);
        char *whole = xasprintf("%s%s", note,
                                json_string_value(json_object_get(row, "cosignature")));
        int64_t at_s = 0;
        ck_assert_int_eq(json_integer_value(json_object_get(row, "size")), size);
        ck_assert_int_eq(note_key_parse(witness_vkey(w), &k, &err), 0);
        ck_assert_str_eq(k.name, "test.local/site/a/node/n1");
        ck_assert_msg(note_witnessed(whole, &k, &at_s, &err) == 0, "%s", err.text);
        ck_assert_int_eq(at_s, NOW / US_PER_S);
        free(whole);
        free(note);
    }
    json_decref(list);
}

static void expect_refused(const char *why)
{
    json_t *list = said("refused");
    const char *detail =
        json_string_value(json_object_get(json_array_get(list, 0), "detail"));
    ck_assert_msg(why == NULL ? detail == NULL
                              : detail != NULL && strstr(detail, why) != NULL,
                  "%s", detail);
    json_decref(list);
}

static void market_has(const char *json)
{
    json_t *log = json_loads(json, 0, NULL);
    ck_assert_ptr_nonnull(log);
    witness_takes(w, log, boot_us, NOW);
    json_decref(log);
}

START_TEST(test_follows)
{
    begin();
    show(kit_head(key, LEDGER, 5, 0, -1));
    expect_cosigned(5);
    market_has("{\"heads\":[],\"taken\":[{\"log\":\"ledger\",\"size\":4}]}");
    expect_cosigned(5); /* that was another one */
    market_has("{\"heads\":[],\"taken\":[{\"log\":\"ledger\",\"size\":5}]}");
    ck_assert_ptr_null(witness_says(w, boot_us)); /* until the next look */
    ck_assert_ptr_null(witness_says(w, boot_us + EVERY - 1));
    show(kit_head(key, LEDGER, 11, 5, -1));
    expect_cosigned(11);
    show(kit_head(key, LEDGER, 11, 11, -1)); /* that there is nothing new is news */
    expect_cosigned(11);
    expect_refused(NULL);
    end();
}
END_TEST

/* What is wrong of a head after five leaves were seen, also by an earlier run. */
START_TEST(test_refuses)
{
    EVP_PKEY *other;
    struct err err;
    char *path, *text;
    ck_assert_int_eq(jws_keygen(&other, &err), 0);
    for (int n = 0; n < 6; n++) {
        begin();
        show(kit_head(key, LEDGER, 5, 0, -1));
        char *vkey = xstrdup(witness_vkey(w));
        witness_free(w);
        start();
        ck_assert_str_eq(vkey, witness_vkey(w));
        free(vkey);
        json_t *heads[] = {kit_head(key, LEDGER, 9, 5, 3),
                           kit_head(key, LEDGER, 5, 5, 3),
                           kit_head(key, LEDGER, 3, 5, -1),
                           kit_head(other, LEDGER, 9, 5, -1),
                           kit_head(key, LEDGER, 9, 5, -1),
                           json_pack("{s:s, s:s}", "log", "ledger", "checkpoint", "")};
        static const char *const why[] = {"different logs", "different logs",
                                          "different logs", "signed by",
                                          "no proof",       "empty now"};
        if (n == 4)
            json_object_del(heads[4], "consistency");
        show(json_incref(heads[n]));
        expect_cosigned(0);
        expect_refused(why[n]);
        show(json_incref(heads[n]));
        market_has("{\"heads\":[],\"refused\":[\"ledger\"]}");
        expect_refused(NULL); /* once */
        path = xasprintf("%s/witness/refused-ledger.note", dir);
        ck_assert_int_eq(fsx_read(path, 4096, &text, NULL, &err), 0);
        ck_assert_str_eq(text,
                         json_string_value(json_object_get(heads[n], "checkpoint")));
        free(text);
        free(path);
        show(kit_head(key, LEDGER, 9, 5, -1)); /* the right one again */
        expect_cosigned(9);
        for (int i = 0; i < 6; i++)
            json_decref(heads[i]);
        end();
    }
    EVP_PKEY_free(other);
}
END_TEST

/* At first sight everything that its own key signed is taken, if it is this market's.
 */
START_TEST(test_first)
{
    begin();
    show(json_pack("{s:s, s:s}", "log", "usage", "checkpoint", "")); /* not begun */
    expect_refused(NULL);
    show(kit_head(key, "elsewhere.local/ledger", 5, 0, -1));
    expect_refused("elsewhere.local");
    expect_cosigned(0);
    market_has(
        "{\"heads\":[{\"log\":\"other\"},{},7],\"taken\":[1,{}],\"refused\":[{}]}");
    market_has("{\"error\":\"no\"}");
    end();
}
END_TEST

/* Nothing is cosigned by one that does not know any more what it saw. */
START_TEST(test_damaged)
{
    static const char *const rows[] = {
        "", "[]", "{\"market\":\"test.local\",\"ledger\":{\"vkey\":\"x\"}}",
        "{\"market\":\"test.local\",\"ledger\":7}"};
    const struct witness_conf c = {dir, "test.local", NODE, EVERY};
    struct witness *again;
    struct err err;
    begin();
    char *path = xasprintf("%s/witness/heads.json", dir);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        ck_assert_int_eq(fsx_write(path, rows[i], strlen(rows[i]), 0600, &err), 0);
        ck_assert_int_eq(witness_open(&c, &again, &err), -1);
        ck_assert_msg(strstr(err.text, "is damaged") != NULL, "%s", err.text);
    }
    /* What was seen of another market says nothing of this one. */
    ck_assert_int_eq(fsx_write(path, "{\"market\":\"b\"}", 14, 0600, &err), 0);
    ck_assert_int_eq(witness_open(&c, &again, &err), 0);
    witness_free(again);
    free(path);
    end();
}
END_TEST

/* A head that cannot be kept is not cosigned. */
START_TEST(test_unkept)
{
    struct err err;
    begin();
    char *path = xasprintf("%s/witness/heads.json", dir);
    ck_assert_int_eq(fsx_mkdirs(path, 0700, &err), 0); /* a directory in its place */
    show(kit_head(key, LEDGER, 5, 0, -1));
    expect_cosigned(0);
    ck_assert_int_eq(rmdir(path), 0);
    show(kit_head(key, LEDGER, 7, 0, -1));
    expect_cosigned(7);
    free(path);
    end();
}
END_TEST

START_TEST(test_names)
{
    char name[NOTE_NAME_MAX], id[400];
    note_node_name(NODE, name);
    ck_assert_str_eq(name, "test.local/site/a/node/n1");
    memset(id, 'a', sizeof(id));
    memcpy(id, "spiffe://test.local/site/", 25);
    id[sizeof(id) - 1] = '\0';
    note_node_name(id, name);
    ck_assert_msg(strncmp(name, "test.local/node/", 16) == 0 && strlen(name) == 32,
                  "%s", name);
}
END_TEST

UNIT_MAIN("witness",
          UNIT_CASE(test_follows) UNIT_CASE(test_refuses) UNIT_CASE(test_first)
              UNIT_CASE(test_damaged) UNIT_CASE(test_unkept) UNIT_CASE(test_names))
