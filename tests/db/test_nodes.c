/* Who speaks as a node, on a real database: sequences of syncs that are and are not a
 * clone; bans; enrolling anew; receipts of earlier keys. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/xalloc.h"
#include "tests/db/market.h"
#include "tests/unit/unit.h"

#define MINUTE_US (HOUR_US / 60)

static struct market m;
static int64_t now_us;

static void setup(void)
{
    market_open(&m, 2, INT64_C(1000000000000));
    now_us = m.now_us;
}

static void teardown(void)
{
    market_close(&m);
}

/* One sync of node n; the refusal, or "". */
static const char *hear(int n, const char *instance, const char *boot, int64_t seq,
                        const char *peer)
{
    static char refused[16];
    json_t *o = json_pack("{s:{s:s,s:s,s:I,s:s},s:[],s:n,s:[],s:[],s:[],s:s}", "agent",
                          "version", "1", "boot_id", boot, "seq", (json_int_t)seq,
                          "address", "127.0.0.1:1", "gpus", "price", "windows",
                          "leases", "probes", "peer", peer);
    if (instance != NULL)
        json_object_set_new(json_object_get(o, "agent"), "instance",
                            json_string(instance));
    const json_t *r = market_ok(&m, STORE_SYNC,
                                STORE_ARGS(S_INT(m.node[n]), S_JSON(o), S_INT(now_us)));
    const char *why = json_string_value(json_object_get(r, "refused"));
    snprintf(refused, sizeof(refused), "%s", why != NULL ? why : "");
    json_decref(o);
    return refused;
}

static void enroll(int n, uint8_t key_byte)
{
    uint8_t code[32], key[32] = {key_byte, 55};
    char name[16];
    snprintf(name, sizeof(name), "n%d", n + 1);
    digest_random(code, sizeof(code));
    json_t *r = market_ok(&m, STORE_NODE_REATTEST,
                          STORE_ARGS(S_TEXT(m.provider), S_TEXT(name), S_NULL,
                                     S_BYTES(code, 32), S_INT(clock_now_us() + HOUR_US),
                                     S_TEXT("p"), S_NULL, S_NULL));
    ck_assert_str_eq(market_text(r, "site"), "fukuoka");
    r = market_ok(
        &m, STORE_ENROLL,
        STORE_ARGS(S_BYTES(code, 32), S_BYTES(key, 32), S_TEXT("test.local")));
    ck_assert_int_eq(market_int(r, "node_id"), m.node[n]);
}

static int64_t events(const char *kind)
{
    return market_sql(&m, "SELECT count(*) FROM ng.event WHERE kind = '%s'", kind);
}

/* A word is a sync: enrolment (a letter), run, '@' boot (a letter), '#' number, and
 * after '+' how many minutes it comes behind the one before (none: a second). '!': this
 * one is refused as a clone; all others are not. "E": enrolled anew. */
static const struct {
    const char *name, *syncs;
} sequences[] = {
    {"one agent", "a1@x#1 a1@x#2 a1@x#3 a1@x#4"},
    {"restarts", "a1@x#1 a1@x#2 a2@x#9 a2@x#10 a3@x#20 a4@x#30 a4@x#31"},
    {"reboots", "a1@x#90 a2@y#1 a2@y#2 a3@z#1 a3@z#2"},
    {"a restart, and a request of the old run that was held up",
     "a1@x#1 a2@x#9 a1@x#2 a2@x#10 a2@x#11 a2@x#12"},
    {"... and one that was done twice", "a1@x#1 a1@x#2 a2@x#9 a1@x#2 a2@x#10 a1@x#1 "
                                        "a1@x#2 a2@x#11 a2@x#12"},
    {"put back from a backup: the run falls once",
     "a5@x#1 a5@x#2 a3@y#1 a3@y#2 a4@y#3"},
    {"put back, and the same run on another boot",
     "a5@x#1 a5@x#2 a5@y#1 a5@y#2 a6@y#3"},
    {"the name of the enrolment was lost", "a1@x#1 b1@x#5 b1@x#6 b2@x#9"},
    {"a copy was started once by mistake", "a1@x#1 a2@y#1 a1@x#2 a1@x#3 a1@x#4+300"},
    {"a copy of the disk on another machine, while the first runs",
     "a1@x#1 a2@y#1 a1@x#2 a2@y#2 !a1@x#3 !a2@y#3 !a1@x#4"},
    {"two copies of one disk, started on two machines",
     "a1@x#1 a2@y#1 a2@z#1 a2@y#2 a2@z#2 !a2@y#3 !a2@z#3"},
    {"a copy that was asleep", "a9@x#1 a3@y#1 a9@x#2 a3@y#2 !a9@x#3"},
    {"one instance, two boots", "a1@x#1 a1@y#1 a1@x#2 a1@y#2 !a1@x#3 !a1@y#3"},
    {"a copy without its name", "a1@x#1 b1@y#1 a1@x#2 b1@y#2 !a1@x#3"},
    {"a thief who speaks once an hour",
     "a1@x#1 a2@y#1+60 a1@x#2 a1@x#3 a2@y#2+60 !a1@x#4 !a2@y#3+60"},
    {"... once in two days: every certificate forgets",
     "a1@x#1 a2@y#1+2880 a1@x#2 a2@y#2+2880 a1@x#3 a2@y#3+2880 a1@x#4"},
    {"each was silent for longer than a certificate lives",
     "a1@x#1 a2@y#1 a1@x#2+1500 a2@y#2+1500 a1@x#3+1500 a2@y#3+1500 a1@x#4+1500"},
    {"a copy restarts all the time", "a1@x#1 a2@y#1 a1@x#2 a3@y#5 !a1@x#3"},
    {"a machine's memory twice, in step",
     "a1@x#1 a1@x#2 a1@x#2 a1@x#3 a1@x#3 a1@x#4 a1@x#4 a1@x#5 !a1@x#5 !a1@x#6"},
    {"one disk twice within a boot",
     "a2@x#100 a2@x#500 a2@x#101 a2@x#501 a2@x#102 a2@x#502 a2@x#103 a2@x#503 "
     "!a2@x#104 !a2@x#504"},
    {"three repeats in an hour, and three in the next",
     "a1@x#5 a1@x#5 a1@x#5 a1@x#5 a1@x#6 a1@x#6+61 a1@x#6 a1@x#6 a1@x#7"},
    {"enrolled anew: the earlier ones are forgotten",
     "a1@x#1 a2@y#1 a1@x#2 a2@y#2 !a1@x#3 E b1@x#1 b1@x#2 b2@x#9"},
    {"enrolled anew, and copied again",
     "a1@x#1 E b1@x#1 b2@y#1 b1@x#2 b2@y#2 !b1@x#3 !b2@y#3"},
};

static void say(const char *name, const char *word)
{
    char letter, boot, instance[64];
    long long run, seq, minutes = 0;
    bool refused = *word == '!';
    int got = sscanf(word + refused, "%c%lld@%c#%lld+%lld", &letter, &run, &boot, &seq,
                     &minutes);
    ck_assert_int_ge(got, 4);
    now_us += got == 5 ? minutes * MINUTE_US : HOUR_US / 3600;
    memset(instance, letter, 32);
    snprintf(instance + 32, sizeof(instance) - 32, ".%lld", run);
    char boot_id[2] = {boot, '\0'};
    const char *why = hear(0, instance, boot_id, seq, "192.0.2.1");
    ck_assert_msg(strcmp(why, refused ? "cloned" : "") == 0, "%s: %s: '%s'", name, word,
                  why);
}

START_TEST(test_sequences)
{
    for (size_t i = 0; i < sizeof(sequences) / sizeof(sequences[0]); i++) {
        char *text = xstrdup(sequences[i].syncs), *save = NULL;
        uint8_t key = (uint8_t)(10 + 2 * i);
        enroll(0, key);
        now_us += 48 * HOUR_US;
        for (char *word = strtok_r(text, " ", &save); word != NULL;
             word = strtok_r(NULL, " ", &save)) {
            if (strcmp(word, "E") == 0)
                enroll(0, (uint8_t)(key + 1));
            else
                say(sequences[i].name, word);
        }
        ck_assert_msg(
            market_sql(&m,
                       "SELECT (cloned_at IS NOT NULL)::int FROM ng.node "
                       "WHERE id = %d",
                       m.node[0]) ==
                (strchr(sequences[i].syncs, '!') != NULL &&
                 strchr(sequences[i].syncs, 'E') < strrchr(sequences[i].syncs, '!')),
            "%s", sequences[i].name);
        free(text);
    }
    ck_assert_int_eq(events("node.cloned"), 11);
}
END_TEST

/* The same request done twice, as after a lost connection to the database: nothing. */
START_TEST(test_done_twice)
{
    enroll(0, 3);
    for (int i = 0; i < 20; i++)
        ck_assert_str_eq(
            hear(0, "0123456789abcdef0123456789abcdef.1", "b", 7, "192.0.2.1"), "");
    /* Agents that say nothing of themselves are not judged. */
    for (int i = 0; i < 20; i++) {
        now_us += MINUTE_US;
        ck_assert_str_eq(hear(1, NULL, i % 2 ? "x" : "y", 7, "192.0.2.1"), "");
    }
    json_t *bad = json_pack("{s:{s:s,s:s,s:i,s:s,s:s}}", "agent", "version", "1",
                            "boot_id", "b", "seq", 1, "address", "", "instance", "me");
    market_refused(&m, ERR_BAD_REQUEST, STORE_SYNC,
                   STORE_ARGS(S_INT(m.node[0]), S_JSON(bad), S_INT(now_us)));
    json_decref(bad);
}
END_TEST

START_TEST(test_speakers_are_bounded)
{
    enroll(0, 3);
    for (int i = 1; i <= 150; i++) {
        char name[64];
        snprintf(name, sizeof(name), "0123456789abcdef0123456789abcdef.%d", i);
        now_us += MINUTE_US / 60;
        ck_assert_str_eq(hear(0, name, "b", i, "192.0.2.1"), "");
    }
    ck_assert_int_eq(market_sql(&m, "SELECT count(*) FROM ng.node_speaker"), 100);
    now_us += 25 * HOUR_US;
    hear(0, "0123456789abcdef0123456789abcdef.900", "b", 900, "192.0.2.1");
    now_us += HOUR_US;
    hear(0, "0123456789abcdef0123456789abcdef.901", "b", 901, "192.0.2.1");
    ck_assert_int_eq(market_sql(&m, "SELECT count(*) FROM ng.node_speaker"), 1);
}
END_TEST

START_TEST(test_moved)
{
    enroll(0, 3);
    hear(0, NULL, "b", 1, "192.0.2.1");
    ck_assert_int_eq(events("node.moved"), 0);
    now_us += MINUTE_US;
    hear(0, NULL, "b", 2, "198.51.100.9");
    ck_assert_int_eq(events("node.moved"), 1);
    for (int i = 0; i < 10; i++) { /* behind two ways out: noted once an hour */
        now_us += MINUTE_US;
        ck_assert_str_eq(
            hear(0, NULL, "b", 3 + i, i % 2 ? "192.0.2.1" : "198.51.100.9"), "");
    }
    ck_assert_int_eq(events("node.moved"), 1);
    now_us += HOUR_US;
    hear(0, NULL, "b", 30, "203.0.113.5");
    ck_assert_int_eq(events("node.moved"), 2);
}
END_TEST

static const char *state_of(int n)
{
    static char text[16];
    const json_t *r =
        market_ok(&m, STORE_NODE_LIST, STORE_ARGS(S_NULL, S_NULL, S_INT(100)));
    snprintf(
        text, sizeof(text), "%s",
        market_text(json_array_get(json_object_get(r, "nodes"), (size_t)n), "state"));
    return text;
}

/* How many a look for what a ban or an outage hits finds, and how many have begun. */
static void hit(int64_t at_us, size_t want, size_t want_begun)
{
    const json_t *list = json_object_get(
        market_ok(&m, STORE_RESV_LOST, STORE_ARGS(S_INT(at_us))), "reservations");
    size_t begun = 0, i;
    const json_t *r;
    json_array_foreach(list, i, r) begun += json_is_true(json_object_get(r, "begun"));
    ck_assert_uint_eq(json_array_size(list), want);
    ck_assert_uint_eq(begun, want_begun);
}

static int64_t booked(int n, int64_t at_us, char id[UUID_TEXT])
{
    struct market_booking b;
    struct market_booked r;
    market_booking(&m, &b, n, 0, 4, at_us, 2 * HOUR_US);
    int64_t start = b.book.start_us;
    market_book_ok(&m, &b, STORE_BOOK_OK, &r);
    memcpy(id, r.id, UUID_TEXT);
    return start;
}

START_TEST(test_ban)
{
    char now[UUID_TEXT], later[UUID_TEXT], other[UUID_TEXT];
    int64_t start = booked(0, HOUR_US, now);
    booked(0, 10 * HOUR_US, later);
    booked(1, HOUR_US, other);
    int64_t at = start + HOUR_US;
    hit(at, 0, 0);
    market_refused(
        &m, ERR_NOT_FOUND, STORE_NODE_BAN,
        STORE_ARGS(S_TEXT("n9"), S_NULL, S_TEXT("x"), S_TEXT("admin:a"), S_INT(at)));
    const json_t *r =
        market_ok(&m, STORE_NODE_BAN,
                  STORE_ARGS(S_TEXT("n1"), S_TEXT("fukuoka"), S_TEXT("forged receipts"),
                             S_TEXT("admin:a"), S_INT(at)));
    ck_assert_str_eq(market_text(r, "state"), "banned");
    /* The first word stays. */
    r = market_ok(&m, STORE_NODE_BAN,
                  STORE_ARGS(S_TEXT("n1"), S_NULL, S_TEXT("other"), S_TEXT("admin:b"),
                             S_INT(at + 1)));
    ck_assert_str_eq(market_text(r, "reason"), "forged receipts");
    ck_assert_int_eq(events("node.banned"), 1);
    now_us = at;
    ck_assert_str_eq(hear(0, NULL, "b", 2, "192.0.2.1"), "banned");
    json_t *none = json_array();
    r = market_ok(&m, STORE_DESIRED,
                  STORE_ARGS(S_INT(m.node[0]), S_JSON(none), S_INT(at)));
    ck_assert_str_eq(market_text(r, "refused"), "banned");
    json_decref(none);
    ck_assert_str_eq(state_of(0), "banned");
    ck_assert_str_eq(state_of(1), "up");
    hit(at, 2, 1);
    r = market_ok(
        &m, STORE_RESV_FAIL,
        STORE_ARGS(S_TEXT(now), S_TEXT("node n1 banned"), S_INT(1), S_INT(at)));
    ck_assert_str_eq(market_text(r, "state"), "failed");
    hit(at, 1, 0);
    r = market_ok(&m, STORE_STATUS, STORE_ARGS(S_INT(at)));
    ck_assert_uint_eq(json_array_size(json_object_get(r, "revoked")), 1);
    /* Nothing enrols it, and nobody makes it a code. */
    uint8_t code[32] = {99}, key[32] = {98};
    market_refused(&m, ERR_BANNED, STORE_NODE_REATTEST,
                   STORE_ARGS(S_TEXT(m.provider), S_TEXT("n1"), S_NULL,
                              S_BYTES(code, 32), S_INT(clock_now_us() + HOUR_US),
                              S_TEXT("p"), S_NULL, S_NULL));
    market_ok(&m, STORE_JOIN_CODE,
              STORE_ARGS(S_TEXT(m.provider), S_TEXT("fukuoka"), S_TEXT("n1"),
                         S_BYTES(code, 32), S_INT(clock_now_us() + HOUR_US),
                         S_TEXT("p"), S_NULL, S_NULL));
    market_refused(
        &m, ERR_BANNED, STORE_ENROLL,
        STORE_ARGS(S_BYTES(code, 32), S_BYTES(key, 32), S_TEXT("test.local")));
    r = market_ok(&m, STORE_NODE_UNBAN, STORE_ARGS(S_TEXT("n1"), S_NULL));
    ck_assert_str_eq(market_text(r, "state"), "up");
    ck_assert_str_eq(hear(0, NULL, "b", 3, "192.0.2.1"), "");
    hit(at, 0, 0);
    market_check(&m);
}
END_TEST

START_TEST(test_reattest)
{
    char id[UUID_TEXT];
    booked(0, HOUR_US, id);
    uint8_t code[32] = {77}, cert[32] = {5};
    int64_t until = clock_now_us() + HOUR_US;
    market_ok(&m, STORE_CERT_SET, STORE_ARGS(S_INT(m.node[0]), S_BYTES(cert, 32)));
    static const char foreign[] = "00000000-0000-7000-8000-000000000000";
    market_refused(&m, ERR_NOT_FOUND, STORE_NODE_REATTEST,
                   STORE_ARGS(S_TEXT(foreign), S_TEXT("n1"), S_NULL, S_BYTES(code, 32),
                              S_INT(until), S_TEXT("p"), S_NULL, S_NULL));
    enroll(0, 200);
    ck_assert_int_eq(market_sql(&m,
                                "SELECT (cert_sha256 IS NULL)::int + attested FROM "
                                "ng.node WHERE id = %d",
                                m.node[0]),
                     3);
    ck_assert_int_eq(events("node.attested"), 1);
    ck_assert_int_eq(
        market_sql(&m,
                   "SELECT count(*) FROM ng.booking WHERE node_id = %d AND NOT "
                   "isempty(during)",
                   m.node[0]),
        1);
    /* Two sites with a node of that name. */
    market_ok(&m, STORE_SITE_CREATE,
              STORE_ARGS(S_TEXT("osaka"), S_TEXT("Osaka"), S_REAL(34.7), S_REAL(135.5),
                         S_TEXT("jp"), S_NULL, S_TEXT("a"), S_NULL, S_NULL));
    market_ok(&m, STORE_JOIN_CODE,
              STORE_ARGS(S_TEXT(m.provider), S_TEXT("osaka"), S_TEXT("n1"),
                         S_BYTES(code, 32), S_INT(until), S_TEXT("p"), S_NULL, S_NULL));
    market_ok(&m, STORE_ENROLL,
              STORE_ARGS(S_BYTES(code, 32), S_BYTES(cert, 32), S_TEXT("test.local")));
    market_refused(&m, ERR_CONFLICT, STORE_NODE_UNBAN,
                   STORE_ARGS(S_TEXT("n1"), S_NULL));
    market_ok(&m, STORE_NODE_UNBAN, STORE_ARGS(S_TEXT("n1"), S_TEXT("osaka")));
}
END_TEST

/* Number seq of a chain, signed with the node's key whose first byte is given. */
static const char *put(const char *id, int seq, uint8_t key_byte, uint8_t second,
                       int64_t from)
{
    static char code[16];
    char hash[SHA256_HEX], prev[SHA256_HEX] = "", hex[SHA256_HEX];
    uint8_t key[32] = {key_byte, second};
    char text[16];
    snprintf(text, sizeof(text), "r%d", seq - 1);
    if (seq > 1)
        digest_sha256_hex(text, strlen(text), prev);
    snprintf(text, sizeof(text), "r%d", seq);
    digest_sha256_hex(text, strlen(text), hash);
    digest_hex(key, sizeof(key), hex);
    json_t *list = json_pack("[{s:s,s:i,s:s,s:s,s:s,s:I,s:I,s:i,s:[],s:s,s:s}]",
                             "reservation", id, "seq", seq, "hash", hash, "prev", prev,
                             "kind", seq == 1 ? "ready" : "interval", "from_us",
                             (json_int_t)from, "to_us", (json_int_t)(from + MINUTE_US),
                             "gpu_ms", seq * 1000, "gaps", "jws", text, "key", hex);
    const json_t *r = market_ok(
        &m, STORE_RECEIPTS, STORE_ARGS(S_INT(m.node[0]), S_JSON(list), S_INT(from)));
    const json_t *bad = json_array_get(json_object_get(r, "rejected"), 0);
    snprintf(code, sizeof(code), "%s", bad != NULL ? market_text(bad, "code") : "");
    json_decref(list);
    return code;
}

START_TEST(test_earlier_keys)
{
    char id[UUID_TEXT], second[UUID_TEXT];
    int64_t start = booked(0, HOUR_US, id);
    booked(1, HOUR_US, second);
    ck_assert_str_eq(put(id, 1, 1, 7, start), ""); /* the key it came with */
    enroll(0, 200);
    ck_assert_str_eq(put(id, 2, 1, 7, start), ""); /* written before, sent after */
    ck_assert_str_eq(put(id, 3, 123, 9, start), "key");
    ck_assert_str_eq(put(id, 3, 2, 7, start), "key"); /* another node's */
    ck_assert_str_eq(put(id, 3, 200, 55, start), "");
    ck_assert_str_eq(put(id, 4, 1, 7, start), "key"); /* never back */
    ck_assert_str_eq(put(id, 4, 200, 55, start), "");
    ck_assert_int_eq(
        market_sql(&m, "SELECT count(DISTINCT receipt_key) FROM ng.receipt"), 2);
    /* A banned node's use before that is evidence. */
    market_ok(
        &m, STORE_NODE_BAN,
        STORE_ARGS(S_TEXT("n1"), S_NULL, S_TEXT("x"), S_TEXT("admin:a"), S_INT(start)));
    ck_assert_str_eq(put(id, 5, 200, 55, start), "");
}
END_TEST

int main(void)
{
    setenv("CK_FORK", "no", 1);
    Suite *suite = suite_create("nodes");
    TCase *tc = tcase_create("nodes");
    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_sequences);
    tcase_add_test(tc, test_done_twice);
    tcase_add_test(tc, test_speakers_are_bounded);
    tcase_add_test(tc, test_moved);
    tcase_add_test(tc, test_ban);
    tcase_add_test(tc, test_reattest);
    tcase_add_test(tc, test_earlier_keys);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
