/* note: the published example of Go's sumdb/note, keys and notes of our own, and what
 * is refused. */
#include <string.h>

#include "client/lib/note.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

/* golang.org/x/mod/sumdb/note, the package's documentation. */
#define PETER "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
#define PETER_TEXT                                               \
    "If you think cryptography is the answer to your problem,\n" \
    "then you don't know what your problem is.\n"
#define PETER_SIG                                                                      \
    "\xe2\x80\x94 PeterNeumann "                                                       \
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6K" \
    "E6RyyBwJnAM=\n"

START_TEST(test_published)
{
    struct note_key k;
    struct err err;
    char vkey[NOTE_VKEY_MAX], *text;
    ck_assert_int_eq(note_key_parse(PETER, &k, &err), 0);
    ck_assert_str_eq(k.name, "PeterNeumann");
    note_key_print(&k, vkey);
    ck_assert_str_eq(vkey, PETER);
    ck_assert_int_eq(note_open(PETER_TEXT "\n" PETER_SIG, &k, &text, &err), 0);
    ck_assert_str_eq(text, PETER_TEXT);
    free(text);
}
END_TEST

START_TEST(test_keys_refused)
{
    static const char *const rows[] = {
        "",
        "PeterNeumann",
        "PeterNeumann+c74f20a3",
        "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "Peter Neumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+C74F20A3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10T",
        "PeterNeumann+c74f20a3+AhpC2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW\n",
    };
    struct note_key k;
    struct err err;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        ck_assert_msg(note_key_parse(rows[i], &k, &err) == -1, "%s", rows[i]);
        ck_assert_int_eq(err.code, ERR_BAD_REQUEST);
    }
}
END_TEST

START_TEST(test_sign_and_witness)
{
    EVP_PKEY *log, *witness;
    struct note_key log_key, witness_key, named_alike;
    struct err err;
    char *note, *both, *line, *text, vkey[NOTE_VKEY_MAX];
    int64_t time_s;
    ck_assert_int_eq(jws_keygen(&log, &err), 0);
    ck_assert_int_eq(jws_keygen(&witness, &err), 0);
    ck_assert_int_eq(
        note_key_make("neargpu.test/usage", NOTE_ALG_SIGN, log, &log_key, &err), 0);
    ck_assert_int_eq(note_key_make("neargpu.test/site/a", NOTE_ALG_COSIGN, witness,
                                   &witness_key, &err),
                     0);
    ck_assert_int_eq(note_sign("a\n\nb\n", log_key.name, log, &note, &err), 0);
    ck_assert_int_eq(note_open(note, &log_key, &text, &err), 0);
    ck_assert_str_eq(text, "a\n\nb\n"); /* the last empty line ends the text */
    free(text);
    ck_assert_int_eq(note_open(note, &witness_key, &text, &err), -1);
    ck_assert_int_eq(err.code, ERR_BAD_REQUEST); /* no log's key */
    ck_assert_int_eq(
        note_cosign(note, witness_key.name, witness, INT64_C(1679315147), &line, &err),
        0);
    both = xasprintf("%s%s", note, line);
    ck_assert_int_eq(note_open(both, &log_key, &text, &err), 0);
    free(text);
    ck_assert_int_eq(note_witnessed(both, &witness_key, &time_s, &err), 0);
    ck_assert_int_eq(time_s, INT64_C(1679315147));
    ck_assert_int_eq(note_witnessed(note, &witness_key, &time_s, &err), -1);
    ck_assert_int_eq(err.code, ERR_NOT_FOUND);
    ck_assert_int_eq(note_witnessed(both, &log_key, &time_s, &err), -1);
    ck_assert_int_eq(note_open(both, &witness_key, &text, &err), -1);
    /* The time is signed as well: the 10th character of the blob is of it. */
    strrchr(both, ' ')[10] ^= 1;
    ck_assert_int_eq(note_witnessed(both, &witness_key, &time_s, &err), -1);
    ck_assert_int_eq(err.code, ERR_TOKEN);
    strrchr(both, ' ')[10] ^= 1;
    note_key_print(&witness_key, vkey);
    ck_assert_int_eq(note_key_parse(vkey, &named_alike, &err), 0);
    ck_assert_int_eq(named_alike.alg, NOTE_ALG_COSIGN);
    free(line);
    /* Another key under the log's name has another hash: passed over, not taken. */
    ck_assert_int_eq(
        note_key_make("neargpu.test/usage", NOTE_ALG_SIGN, witness, &named_alike, &err),
        0);
    ck_assert_int_eq(note_open(both, &named_alike, &text, &err), -1);
    note_key_print(&log_key, vkey);
    ck_assert_int_eq(note_key_parse(vkey, &named_alike, &err), 0);
    ck_assert_mem_eq(&named_alike, &log_key, sizeof(log_key));
    ck_assert_int_eq(note_sign("no newline", log_key.name, log, &text, &err), -1);
    ck_assert_int_eq(note_sign("a\n", "two words", log, &text, &err), -1);
    free(note);
    free(both);
    EVP_PKEY_free(log);
    EVP_PKEY_free(witness);
}
END_TEST

START_TEST(test_altered)
{
    const char *note = PETER_TEXT "\n" PETER_SIG;
    struct note_key k;
    struct err err;
    char *text;
    ck_assert_int_eq(note_key_parse(PETER, &k, &err), 0);
    for (size_t i = 0; note[i] != '\0'; i++) {
        char *bad = xstrdup(note);
        bad[i] = bad[i] == 'A' ? 'B' : 'A';
        if (note_open(bad, &k, &text, &err) == 0)
            ck_abort_msg("byte %zu altered, and taken", i);
        free(bad);
    }
    for (size_t n = 0; n < strlen(note); n++) {
        char *cut = xstrndup(note, n);
        ck_assert_msg(note_open(cut, &k, &text, &err) == -1, "cut at %zu", n);
        free(cut);
    }
    ck_assert_int_eq(note_open(PETER_TEXT "\n" PETER_SIG "x", &k, &text, &err), -1);
    ck_assert_int_eq(note_open(PETER_TEXT "\n" PETER_SIG "x\n", &k, &text, &err), -1);
    ck_assert_int_eq(note_open("\n" PETER_SIG, &k, &text, &err), -1);
}
END_TEST

START_TEST(test_checkpoint)
{
    static const char *const bad[] = {
        "",
        "log\n",
        "log\n5\n",
        "\n5\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "log\n05\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "log\n-5\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "log\n99999999999999999999\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
        "log\n5\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I\n",
        "log\n5\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2=\n",
        "log\n5\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=",
    };
    struct checkpoint c, again;
    struct err err;
    const char *good = "log\n5\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    ck_assert_int_eq(checkpoint_parse(good, &c, &err), 0);
    ck_assert_uint_eq(c.size, 5);
    ck_assert_str_eq(c.origin, "log");
    char *text = checkpoint_print(&c);
    ck_assert_str_eq(text, good);
    ck_assert_int_eq(checkpoint_parse(text, &again, &err), 0);
    ck_assert(merkle_equal(&c.root, &again.root));
    free(text);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_msg(checkpoint_parse(bad[i], &c, &err) == -1, "%s", bad[i]);
}
END_TEST

UNIT_MAIN("note", UNIT_CASE(test_published) UNIT_CASE(test_keys_refused)
                      UNIT_CASE(test_sign_and_witness) UNIT_CASE(test_altered)
                          UNIT_CASE(test_checkpoint))
