/* keyset: a set under its root as it is read and made; a rotation rehearsed (old, both,
 * new); and what is refused: rollback, another root, expiry, every member that is
 * wrong. */
#include <stdio.h>
#include <string.h>

#include "client/lib/keyset.h"
#include "client/lib/timefmt.h"
#include "client/lib/token.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

#define NOW  (INT64_C(1800000000) * US_PER_S)
#define DAY  (INT64_C(24) * 3600 * US_PER_S)
#define ISS  "https://test.local"
#define KEYS 3

static EVP_PKEY *root, *key[KEYS];
static uint8_t root_pub[JWS_ED25519_LEN], pub[KEYS][JWS_ED25519_LEN];
static char kid[KEYS][JWS_KID_MAX];

static void begin(void)
{
    struct err err;
    ck_assert_int_eq(jws_keygen(&root, &err), 0);
    ck_assert_int_eq(jws_public(root, root_pub, &err), 0);
    for (int i = 0; i < KEYS; i++) {
        ck_assert_int_eq(jws_keygen(&key[i], &err), 0);
        ck_assert_int_eq(jws_public(key[i], pub[i], &err), 0);
        jws_thumbprint(pub[i], kid[i]);
    }
}

static void end(void)
{
    EVP_PKEY_free(root);
    for (int i = 0; i < KEYS; i++)
        EVP_PKEY_free(key[i]);
}

static struct keyset fresh(int64_t seq)
{
    struct keyset s = {
        .iss = ISS, .iat_us = NOW, .exp_us = NOW + KEYSET_LIFE_US, .seq = seq};
    return s;
}

static void add(struct keyset *s, int i, int64_t from_us, int64_t to_us)
{
    struct err err;
    ck_assert_int_eq(keyset_add(s, pub[i], from_us, to_us, &err), 0);
}

static char *sign(const struct keyset *s)
{
    struct err err;
    char *text;
    ck_assert_int_eq(keyset_sign(s, root, &text, &err), 0);
    return text;
}

/* The step it is refused at, NULL: taken. */
static const char *refused(const char *text, int64_t now_us, int64_t min_seq,
                           struct keyset *ret)
{
    struct keyset_want want = {root_pub, ISS, now_us, min_seq};
    struct keyset own;
    const char *step = NULL;
    struct err err;
    if (keyset_check(text, strlen(text), &want, ret != NULL ? ret : &own, &step,
                     &err) == 0)
        return NULL;
    ck_assert_int_eq(err.code, ERR_TOKEN);
    return step;
}

START_TEST(test_round_trip)
{
    struct keyset s = fresh(7), got;
    struct keyring *ring;
    struct err err;
    begin();
    add(&s, 0, NOW - DAY, NOW + DAY);
    add(&s, 1, NOW + DAY, NOW + 30 * DAY);
    s.keys[0].revoked = true;
    char *text = sign(&s);
    ck_assert_ptr_null(refused(text, NOW, 0, &got));
    ck_assert_str_eq(got.iss, ISS);
    ck_assert_int_eq(got.seq, 7);
    ck_assert_uint_eq(got.count, 2);
    ck_assert_int_eq(got.exp_us, s.exp_us);
    ck_assert_int_eq(got.keys[1].not_before_us, NOW + DAY);
    ck_assert(got.keys[0].revoked && !got.keys[1].revoked);
    ck_assert_int_eq(keyset_ring(&got, &ring, &err), 0);
    ck_assert(keyring_find(ring, kid[0])->revoked);
    ck_assert_int_eq(keyring_find(ring, kid[1])->not_after_us, NOW + 30 * DAY);
    keyring_free(ring);
    json_t *jwks = keyset_jwks(&got);
    ck_assert_uint_eq(json_array_size(json_object_get(jwks, "keys")), 1);
    ck_assert_int_eq(keyring_from_jwks(jwks, &ring, &err), 0);
    keyring_free(ring);
    json_decref(jwks);
    ck_assert_int_eq(keyset_read(text, strlen(text), &got, &err), 0);
    ck_assert_int_eq(got.seq, 7);
    free(text);
    end();
}
END_TEST

START_TEST(test_refused)
{
    struct keyset s = fresh(7);
    struct err err;
    EVP_PKEY *own_root;
    char *text, *bad;
    begin();
    add(&s, 0, NOW - DAY, NOW + DAY);
    text = sign(&s);
    ck_assert_str_eq(refused(text, NOW, 8, NULL), "rollback");
    ck_assert_ptr_null(refused(text, NOW, 7, NULL));
    ck_assert_str_eq(refused(text, s.exp_us, 0, NULL), "times");
    ck_assert_str_eq(refused(text, NOW - TOKEN_LEEWAY_US - 1, 0, NULL), "times");
    ck_assert_ptr_null(refused(text, INT64_MIN, 0, NULL)); /* no time known yet */
    for (size_t i = 0; text[i] != '\0'; i++) {             /* no bit of it may change */
        char was = text[i];
        text[i] = was == 'A' ? 'B' : 'A';
        ck_assert_msg(refused(text, NOW, 0, NULL) != NULL, "byte %zu", i);
        text[i] = was;
    }
    free(text);
    /* Another root, and one of the set's own keys as its root. */
    ck_assert_int_eq(jws_keygen(&own_root, &err), 0);
    ck_assert_int_eq(keyset_sign(&s, own_root, &bad, &err), 0);
    ck_assert_str_eq(refused(bad, NOW, 0, NULL), "root");
    free(bad);
    ck_assert_int_eq(keyset_sign(&s, key[0], &bad, &err), 0);
    ck_assert_str_eq(refused(bad, NOW, 0, NULL), "root");
    free(bad);
    EVP_PKEY_free(own_root);
    memcpy(s.iss, "https://other.local", 20);
    bad = sign(&s);
    ck_assert_str_eq(refused(bad, NOW, 0, NULL), "issuer");
    free(bad);
    end();
}
END_TEST

/* Payloads that the root signed by mistake. */
START_TEST(test_payloads)
{
    static const struct {
        const char *path, *value;
    } rows[] = {
        {"iss", "\"\""},
        {"iss", "1"},
        {"seq", "0"},
        {"seq", "\"1\""},
        {"exp", "1e3"},
        {"exp", "0"},
        {"keys", "[]"},
        {"keys", "{}"},
        {"keys", "[1]"},
        {"revoked", "[\"x\"]"},
        {"revoked", "{}"},
        {"more", "1"},
        {"keys.kid", "\"x\""},
        {"keys.alg", "\"HS256\""},
        {"keys.use", "\"enc\""},
        {"keys.nbf", "9999999999"},
        {"keys.exp", "0"},
        {"keys.crv", "\"X25519\""},
        {"keys.kty", "\"oct\""},
        {"keys.d", "\"AAAA\""},
        {"keys.x", "\"AAAA\""},
    };
    struct keyset s = fresh(1);
    struct err err;
    begin();
    add(&s, 0, NOW - DAY, NOW + DAY);
    char *text = sign(&s);
    struct jws_parts parts;
    const char *step;
    ck_assert_int_eq(jws_split(text, strlen(text), &parts, &step, &err), 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        json_t *p = json_loads(parts.payload, 0, NULL), *in = p;
        const char *name = rows[i].path;
        char *bad;
        if (strncmp(name, "keys.", 5) == 0) {
            in = json_array_get(json_object_get(p, "keys"), 0);
            name += 5;
        }
        json_object_set_new(in, name, json_loads(rows[i].value, JSON_DECODE_ANY, NULL));
        ck_assert_int_eq(jws_sign(root, JWS_TYP_JWKSET, p, &bad, &err), 0);
        ck_assert_msg(refused(bad, NOW, 0, NULL) != NULL, "%s = %s", rows[i].path,
                      rows[i].value);
        free(bad);
        json_decref(p);
    }
    /* The right payload under another type. */
    json_t *p = json_loads(parts.payload, 0, NULL);
    char *bad;
    ck_assert_int_eq(jws_sign(root, JWS_TYP_STATUS, p, &bad, &err), 0);
    ck_assert_str_eq(refused(bad, NOW, 0, NULL), "header");
    free(bad);
    json_decref(p);
    jws_parts_done(&parts);
    free(text);
    end();
}
END_TEST

static bool have_first(void *arg, const char *id)
{
    (void)arg;
    return strcmp(id, kid[0]) == 0;
}

/* Day 0: the old key. Day 1: the new one is published, and not used before day 2. After
 * the old one's end it is gone. */
START_TEST(test_rotation)
{
    struct keyset s = fresh(1);
    begin();
    add(&s, 0, NOW, NOW + 3 * DAY);
    ck_assert_str_eq(keyset_signer(&s, NOW, NULL, NULL)->kid, kid[0]);
    add(&s, 1, NOW + 2 * DAY, NOW + 90 * DAY);
    s.seq++;
    ck_assert_str_eq(keyset_signer(&s, NOW + DAY, NULL, NULL)->kid, kid[0]);
    ck_assert_str_eq(keyset_signer(&s, NOW + 2 * DAY, NULL, NULL)->kid, kid[1]);
    /* A server that has only the old key goes on with it while it may. */
    ck_assert_str_eq(keyset_signer(&s, NOW + 2 * DAY, have_first, NULL)->kid, kid[0]);
    ck_assert_ptr_null(keyset_signer(&s, NOW + 3 * DAY, have_first, NULL));
    ck_assert_ptr_null(keyset_signer(&s, NOW - 1, NULL, NULL));
    keyset_prune(&s, NOW + 3 * DAY);
    ck_assert_uint_eq(s.count, 1);
    ck_assert_ptr_null(keyset_find(&s, kid[0]));
    keyset_find(&s, kid[1])->revoked = true;
    ck_assert_ptr_null(keyset_signer(&s, NOW + 4 * DAY, NULL, NULL));
    end();
}
END_TEST

START_TEST(test_making_refused)
{
    struct keyset s = fresh(1);
    struct err err;
    char *text;
    begin();
    ck_assert_int_eq(keyset_sign(&s, root, &text, &err), -1); /* no key */
    add(&s, 0, NOW, NOW + DAY);
    ck_assert_int_eq(keyset_add(&s, pub[0], NOW, NOW + DAY, &err), -1);
    ck_assert_int_eq(err.code, ERR_CONFLICT);
    s.exp_us = s.iat_us;
    ck_assert_int_eq(keyset_sign(&s, root, &text, &err), -1);
    s = fresh(0);
    add(&s, 0, NOW, NOW + DAY);
    ck_assert_int_eq(keyset_sign(&s, root, &text, &err), -1); /* no number */
    end();
}
END_TEST

START_TEST(test_fetches)
{
    int64_t last = 0, fetched = 0;
    for (int64_t us = 1; us < 100 * US_PER_S; us += 10000) /* 10,000 unknown kids */
        fetched += keyset_may_fetch(&last, us);
    ck_assert_int_eq(fetched, 4);
}
END_TEST

UNIT_MAIN("keyset", UNIT_CASE(test_round_trip) UNIT_CASE(test_refused)
                        UNIT_CASE(test_payloads) UNIT_CASE(test_rotation)
                            UNIT_CASE(test_making_refused) UNIT_CASE(test_fetches))
