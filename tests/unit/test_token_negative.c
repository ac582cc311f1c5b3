/* test_token_negative: grants under keys that a root's key set names: what rotation,
 * withdrawal and an older set do to a token that is good otherwise. What can be done to
 * the token's own text is in test_token.c, the set's own text in test_keyset.c, what
 * the agent adds (replay, GPUs, possession) in test_runauth.c and test_leases.c. */
#include <string.h>

#include "client/lib/digest.h"
#include "client/lib/keyset.h"
#include "tests/unit/token_kit.h"
#include "tests/unit/unit.h"

static struct kit kit;
static EVP_PKEY *root;
static uint8_t root_pub[JWS_ED25519_LEN], foreign_pub[JWS_ED25519_LEN];

static void setup(void)
{
    ck_assert_int_eq(kit_init(&kit), 0);
    ck_assert_int_eq(jws_keygen(&root, NULL), 0);
    ck_assert_int_eq(jws_public(root, root_pub, NULL), 0);
    ck_assert_int_eq(jws_public(kit.foreign, foreign_pub, NULL), 0);
}

static void teardown(void)
{
    EVP_PKEY_free(root);
    kit_done(&kit);
}

/* A set of this number with the issuer's key from..to (seconds from KIT_NOW), signed
 * and read as a node does that has seen min_seq; NULL: refused, step says where. */
struct made {
    int64_t seq, min_seq, from_s, to_s, exp_s;
    bool revoked, other_key, other_root;
};

static struct keyring *ring_of(const struct made *m, const char **step)
{
    struct keyset set = {.iss = KIT_ISSUER,
                         .iat_us = KIT_NOW - 60 * US_PER_S,
                         .exp_us = KIT_NOW + m->exp_s * US_PER_S,
                         .seq = m->seq};
    struct keyset got;
    struct keyset_want want = {root_pub, KIT_ISSUER, kit.ctx.now_us, m->min_seq};
    struct keyring *ring = NULL;
    struct err err;
    char *text;
    ck_assert_int_eq(keyset_add(&set, m->other_key ? foreign_pub : kit.pub,
                                KIT_NOW + m->from_s * US_PER_S,
                                KIT_NOW + m->to_s * US_PER_S, &err),
                     0);
    set.keys[0].revoked = m->revoked;
    ck_assert_msg(keyset_sign(&set, m->other_root ? kit.foreign : root, &text, &err) ==
                      0,
                  "%s", err.text);
    if (keyset_check(text, strlen(text), &want, &got, step, &err) == 0)
        ck_assert_int_eq(keyset_ring(&got, &ring, &err), 0);
    free(text);
    return ring;
}

START_TEST(test_key_sets)
{
    static const struct {
        const char *name;
        struct made made;
        const char *step; /* NULL: accepted */
    } table[] = {
        {"good", {5, 5, -60, 3600, 3600}, NULL},
        {"key-set rollback", {4, 5, -60, 3600, 3600}, "rollback"},
        {"key set past its end", {5, 5, -60, 3600, 1}, "times"},
        {"key set of another root",
         {5, 5, -60, 3600, 3600, .other_root = true},
         "root"},
        {"key outside its dates: not yet", {5, 5, 2, 3600, 3600}, "key"},
        {"key outside its dates: over", {5, 5, -60, 1, 3600}, "key"},
        {"key published before its use", {5, 5, 1, 3600, 3600}, NULL},
        {"revoked kid", {5, 5, -60, 3600, 3600, .revoked = true}, "key"},
        {"unknown kid", {5, 5, -60, 3600, 3600, .other_key = true}, "key"},
    };
    char *token = kit_grant(&kit);
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct token_claims out;
        struct err err = {0};
        const char *step = NULL;
        struct keyring *ring = ring_of(&table[i].made, &step);
        if (ring != NULL) {
            kit.ctx.keys = ring;
            step = NULL;
            (void)(token_check(token, strlen(token), &kit.ctx, &out, &step, &err) == 0);
        }
        if (table[i].step == NULL)
            ck_assert_msg(ring != NULL && err.code == 0, "%s: %s", table[i].name,
                          err.text);
        else
            ck_assert_msg(step != NULL && strcmp(step, table[i].step) == 0,
                          "%s: at step %s", table[i].name, step != NULL ? step : "-");
        keyring_free(ring);
    }
    free(token);
}
END_TEST

/* ES256 naming an Ed25519 key is in test_token.c; the reverse, EdDSA naming a P-256
 * key, cannot be asked: such a key enters no ring. */
START_TEST(test_es256_key_named_by_eddsa)
{
    struct keyring *ring;
    struct err err;
    json_t *jwks = kit_jwks(kit.pub);
    json_t *jwk = json_array_get(json_object_get(jwks, "keys"), 0);
    json_object_set_new(jwk, "kty", json_string("EC"));
    json_object_set_new(jwk, "crv", json_string("P-256"));
    ck_assert_int_eq(keyring_from_jwks(jwks, &ring, &err), -1);
    json_object_set_new(jwk, "kty", json_string("OKP"));
    json_object_set_new(jwk, "crv", json_string("Ed25519"));
    json_object_set_new(jwk, "alg", json_string("ES256"));
    ck_assert_int_eq(keyring_from_jwks(jwks, &ring, &err), -1);
    json_decref(jwks);
}
END_TEST

/* 10,000 unknown kids within 30 s cause one fetch, and the next only after them. */
START_TEST(test_10000_unknown_kids)
{
    char *payload = kit_payload(&kit);
    int64_t last_us = 0, boot_us = 1000 * US_PER_S;
    int fetches = 0;
    for (int i = 0; i < 10000; i++) {
        uint8_t hash[SHA256_LEN];
        char kid[JWS_KID_MAX];
        struct token_claims out;
        const char *step = "";
        digest_sha256(&i, sizeof(i), hash);
        b64_encode(hash, sizeof(hash), kid);
        char *header =
            xasprintf("{\"alg\":\"EdDSA\",\"kid\":\"%s\",\"typ\":\"at+jwt\"}", kid);
        char *token = kit_sign(kit.foreign, header, payload);
        ck_assert_int_eq(token_check(token, strlen(token), &kit.ctx, &out, &step, NULL),
                         -1);
        ck_assert_str_eq(step, "key");
        fetches += keyset_may_fetch(&last_us, boot_us + i * INT64_C(2999));
        free(token);
        free(header);
    }
    ck_assert_int_eq(fetches, 1);
    ck_assert(!keyset_may_fetch(&last_us, boot_us + KEYSET_FETCH_US - 1));
    ck_assert(keyset_may_fetch(&last_us, boot_us + KEYSET_FETCH_US));
    free(payload);
}
END_TEST

UNIT_MAIN("token negative", tcase_add_checked_fixture(tc, setup, teardown);
          UNIT_CASE(test_key_sets) UNIT_CASE(test_es256_key_named_by_eddsa)
              UNIT_CASE(test_10000_unknown_kids))
