/* test_jws: keys, thumbprints and signatures against RFC 8037's vectors, the ring's
 * refusals, proofs of possession, and that types never interchange. */
#include <openssl/pem.h>

#include "client/lib/jsonr.h"
#include "tests/unit/token_kit.h"
#include "tests/unit/unit.h"

static struct kit kit;

static void setup(void)
{
    ck_assert_int_eq(kit_init(&kit), 0);
}

static void teardown(void)
{
    kit_done(&kit);
}

/* RFC 8037 appendix A.1 to A.4. The example's header has alg alone, so its signature is
 * checked beneath the strict split. */
START_TEST(test_rfc8037)
{
    static const char signed_text[] = "eyJhbGciOiJFZERTQSJ9."
                                      "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    static const char sig[] = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4"
                              "iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    ck_assert_str_eq(kit.kid, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    json_t *jwk = jws_jwk(kit.pub);
    ck_assert_str_eq(json_string_value(json_object_get(jwk, "x")),
                     "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo");
    json_decref(jwk);
    struct jws_parts p = {.signed_text = signed_text,
                          .signed_len = strlen(signed_text)};
    ck_assert_int_eq(b64_decode(sig, strlen(sig), p.sig, sizeof(p.sig)), 64);
    ck_assert_int_eq(jws_verify(&p, kit.key, NULL), 0);
    p.sig[3] ^= 1;
    ck_assert_int_eq(jws_verify(&p, kit.key, NULL), -1);
    const char *step;
    char *whole = xasprintf("%s.%s", signed_text, sig);
    ck_assert_int_eq(jws_split(whole, strlen(whole), &p, &step, NULL), -1);
    ck_assert_str_eq(step, "header");
    free(whole);
}
END_TEST

/* Ed25519 is deterministic, so a token has one known text. */
START_TEST(test_sign_known)
{
    json_t *payload = json_pack("{s:i}", "a", 1);
    char *token;
    ck_assert_int_eq(jws_sign(kit.key, "test", payload, &token, NULL), 0);
    char *header =
        xasprintf("{\"alg\":\"EdDSA\",\"kid\":\"%s\",\"typ\":\"test\"}", kit.kid);
    char *want = kit_sign(kit.key, header, "{\"a\":1}");
    ck_assert_str_eq(token, want);
    struct jws_parts p;
    const char *step;
    ck_assert_int_eq(jws_split(token, strlen(token), &p, &step, NULL), 0);
    ck_assert_str_eq(p.kid, kit.kid);
    ck_assert_str_eq(p.typ, "test");
    ck_assert_str_eq(p.payload, "{\"a\":1}");
    ck_assert_uint_eq(p.payload_len, 7);
    ck_assert_int_eq(jws_verify(&p, kit.key, NULL), 0);
    ck_assert_int_eq(jws_verify(&p, kit.foreign, NULL), -1);
    jws_parts_done(&p);
    free(want);
    free(header);
    free(token);
    json_decref(payload);
}
END_TEST

START_TEST(test_pem)
{
    EVP_PKEY *key, *back;
    struct err err;
    ck_assert_int_eq(jws_keygen(&key, &err), 0);
    char *pem = jws_key_to_pem(key);
    ck_assert_int_eq(strncmp(pem, "-----BEGIN PRIVATE KEY-----", 27), 0);
    ck_assert_int_eq(jws_key_from_pem(pem, strlen(pem), &back, &err), 0);
    ck_assert_int_eq(EVP_PKEY_eq(key, back), 1);
    EVP_PKEY_free(key);
    EVP_PKEY_free(back);
    free(pem);
    ck_assert_int_eq(jws_key_from_pem("junk", 4, &back, &err), -1);
    key = EVP_EC_gen("P-256");
    pem = jws_key_to_pem(key);
    ck_assert_int_eq(jws_key_from_pem(pem, strlen(pem), &back, &err), -1);
    ck_assert_str_eq(err.text, "the private key is not Ed25519");
    uint8_t pub[JWS_ED25519_LEN];
    char *token;
    json_t *payload = json_object();
    ck_assert_int_eq(jws_public(key, pub, &err), -1);
    ck_assert_int_eq(jws_sign(key, "test", payload, &token, &err), -1);
    json_decref(payload);
    free(pem);
    /* An encrypted key is refused, and nobody is asked for a passphrase. */
    BIO *bio = BIO_new(BIO_s_mem());
    ck_assert_int_eq(PEM_write_bio_PKCS8PrivateKey(bio, key, EVP_aes_128_cbc(), "pass",
                                                   4, NULL, NULL),
                     1);
    char *data;
    long len = BIO_get_mem_data(bio, &data);
    ck_assert_int_eq(jws_key_from_pem(data, (size_t)len, &back, &err), -1);
    BIO_free(bio);
    EVP_PKEY_free(key);
}
END_TEST

#define X   "\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\""
#define KID "\"kid\":\"kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k\""
#define OKP "\"kty\":\"OKP\",\"crv\":\"Ed25519\"," X

START_TEST(test_ring)
{
    static const struct {
        const char *jwks, *message; /* NULL: accepted */
    } table[] = {
        {"{\"keys\":[]}", NULL},
        {"{\"keys\":[{" OKP "," KID "}]}", NULL},
        {"{\"keys\":[{" OKP "," KID ",\"alg\":\"EdDSA\",\"use\":\"sig\",\"nbf\":1,"
         "\"exp\":2}]}",
         NULL},
        {"{\"keys\":[{" OKP "," KID ",\"alg\":\"Ed25519\"}]}", NULL},
        {"{}", "key set: /keys: missing"},
        {"{\"keys\":{}}", "key set: /keys: expected array"},
        {"{\"keys\":[],\"x\":1}", "key set: /x: unknown member"},
        {"{\"keys\":[1]}", "key set: /keys/0: expected object"},
        {"{\"keys\":[{" OKP "}]}", "key set: /keys/0/kid: missing"},
        {"{\"keys\":[{" OKP ",\"kid\":\"k1\"}]}", "key set: /keys/0/kid: is not"},
        {"{\"keys\":[{" OKP "," KID "},{" OKP "," KID "}]}",
         "key set: /keys/1/kid: kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k is there "
         "twice"},
        {"{\"keys\":[{" OKP "," KID ",\"d\":\"AA\"}]}",
         "key set: /keys/0/d: unknown member"},
        {"{\"keys\":[{" OKP "," KID ",\"alg\":\"HS256\"}]}",
         "key set: /keys/0/alg: expected EdDSA"},
        {"{\"keys\":[{" OKP "," KID ",\"use\":\"enc\"}]}",
         "key set: /keys/0/use: expected sig"},
        {"{\"keys\":[{" OKP "," KID ",\"nbf\":\"1\"}]}",
         "key set: /keys/0/nbf: expect"},
        {"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\"," X "," KID "}]}",
         "key set: /keys/0: JWK: only kty OKP with crv Ed25519"},
        {"{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"X25519\"," X "," KID "}]}",
         "key set: /keys/0: JWK: only kty OKP with crv Ed25519"},
        {"{\"keys\":[{\"kty\":\"oct\",\"crv\":\"\"," X "," KID "}]}",
         "key set: /keys/0: JWK: only kty OKP with crv Ed25519"},
        {"{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAA\"," KID "}]}",
         "key set: /keys/0: JWK: /x is not 32 bytes"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        json_t *v = json_loads(table[i].jwks, 0, NULL);
        ck_assert_msg(v != NULL, "%s", table[i].jwks);
        struct keyring *ring = NULL;
        struct err err = {0};
        int rc = keyring_from_jwks(v, &ring, &err);
        ck_assert_msg((rc == 0) == (table[i].message == NULL), "%s: %s", table[i].jwks,
                      err.text);
        if (rc != 0)
            ck_assert_msg(
                strncmp(err.text, table[i].message, strlen(table[i].message)) == 0,
                "%s", err.text);
        keyring_free(ring);
        json_decref(v);
    }
    ck_assert_uint_eq(keyring_count(kit.ring), 1);
    const struct keyring_key *key = keyring_find(kit.ring, kit.kid);
    ck_assert_ptr_nonnull(key);
    ck_assert_int_eq(key->not_before_us, INT64_MIN);
    ck_assert_int_eq(key->not_after_us, INT64_MAX);
    ck_assert_ptr_null(keyring_find(kit.ring, "x"));
}
END_TEST

START_TEST(test_ring_is_bounded)
{
    json_t *keys = json_array(), *v = json_pack("{s:O}", "keys", keys);
    struct keyring *ring;
    for (int i = 0; i <= KEYRING_KEYS_MAX; i++) {
        EVP_PKEY *key;
        uint8_t pub[JWS_ED25519_LEN];
        char kid[JWS_KID_MAX];
        ck_assert_int_eq(jws_keygen(&key, NULL), 0);
        ck_assert_int_eq(jws_public(key, pub, NULL), 0);
        jws_thumbprint(pub, kid);
        json_t *jwk = jws_jwk(pub);
        json_object_set_new(jwk, "kid", json_string(kid));
        json_array_append_new(keys, jwk);
        EVP_PKEY_free(key);
        int rc = keyring_from_jwks(v, &ring, NULL);
        ck_assert_int_eq(rc, i < KEYRING_KEYS_MAX ? 0 : -1);
        if (rc == 0) {
            ck_assert_uint_eq(keyring_count(ring), (size_t)i + 1);
            keyring_free(ring);
        }
    }
    json_decref(keys);
    json_decref(v);
}
END_TEST

static struct token_pop pop(void)
{
    static const char *const argv[] = {"train", "--epochs", "90"};
    struct token_pop p = {.nonce = "n0nce",
                          .aud = KIT_NODE,
                          .ath = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
                          .action = "launch",
                          .iat_us = KIT_NOW};
    token_argv_hash(argv, 3, p.argv_hash);
    return p;
}

static char *pop_text(const struct token_pop *p, EVP_PKEY *key, const char *typ)
{
    uint8_t pub[JWS_ED25519_LEN];
    char *text;
    ck_assert_int_eq(jws_public(key, pub, NULL), 0);
    json_t *v = token_pop_build(p, pub);
    ck_assert_int_eq(jws_sign(key, typ, v, &text, NULL), 0);
    json_decref(v);
    return text;
}

START_TEST(test_pop)
{
    struct token_pop want = pop();
    static const struct {
        const char *name, *step; /* NULL: good */
        size_t offset;           /* member changed, with to */
        const char *to;
        int64_t iat_us;
    } table[] = {
        {"good", NULL, 0, NULL, 0},
        {"5 s ahead", NULL, 0, NULL, KIT_NOW + TOKEN_LEEWAY_US},
        {"5 s behind", NULL, 0, NULL, KIT_NOW - TOKEN_LEEWAY_US},
        {"clock ahead", "times", 0, NULL, KIT_NOW + TOKEN_LEEWAY_US + US_PER_S},
        {"clock behind", "times", 0, NULL, KIT_NOW - TOKEN_LEEWAY_US - 2 * US_PER_S},
        {"old nonce", "binding", offsetof(struct token_pop, nonce), "n1", 0},
        {"other node", "binding", offsetof(struct token_pop, aud), "spiffe://x", 0},
        {"other token's hash", "binding", offsetof(struct token_pop, ath), "x", 0},
        {"other action", "binding", offsetof(struct token_pop, action), "stop", 0},
        {"other argv", "binding", offsetof(struct token_pop, argv_hash), "x", 0},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct token_pop p = pop();
        if (table[i].to != NULL)
            memcpy((char *)&p + table[i].offset, table[i].to, strlen(table[i].to) + 1);
        if (table[i].iat_us != 0)
            p.iat_us = table[i].iat_us;
        char *text = pop_text(&p, kit.key, JWS_TYP_POP);
        const char *step = "";
        struct err err = {0};
        int rc =
            token_pop_check(text, strlen(text), kit.kid, &want, KIT_NOW, &step, &err);
        ck_assert_msg((rc == 0) == (table[i].step == NULL), "%s: %s", table[i].name,
                      err.text);
        if (rc != 0) {
            ck_assert_msg(strcmp(step, table[i].step) == 0, "%s: step %s: %s",
                          table[i].name, step, err.text);
            ck_assert_int_eq(err.code, ERR_TOKEN);
        }
        free(text);
    }
}
END_TEST

START_TEST(test_pop_keys)
{
    struct token_pop p = pop();
    const char *step;
    char *text = pop_text(&p, kit.foreign, JWS_TYP_POP);
    ck_assert_int_eq(
        token_pop_check(text, strlen(text), kit.kid, &p, KIT_NOW, &step, NULL), -1);
    ck_assert_str_eq(step, "key"); /* proof by a wrong key */
    free(text);
    /* The right jwk inside, signed by another key that claims its kid. */
    char *header = xasprintf(
        "{\"alg\":\"EdDSA\",\"kid\":\"%s\",\"typ\":\"neargpu-pop+jwt\"}", kit.kid);
    json_t *v = token_pop_build(&p, kit.pub);
    char *payload = jsonx_dump(v);
    text = kit_sign(kit.foreign, header, payload);
    ck_assert_int_eq(
        token_pop_check(text, strlen(text), kit.kid, &p, KIT_NOW, &step, NULL), -1);
    ck_assert_str_eq(step, "signature");
    free(text);
    free(payload);
    /* No key, an unknown member, a private key inside. */
    json_t *jwk = json_object_get(v, "jwk");
    json_object_set_new(jwk, "d", json_string("AA"));
    payload = jsonx_dump(v);
    text = kit_sign(kit.key, header, payload);
    ck_assert_int_eq(
        token_pop_check(text, strlen(text), kit.kid, &p, KIT_NOW, &step, NULL), -1);
    ck_assert_str_eq(step, "key");
    free(text);
    free(payload);
    json_object_del(v, "jwk");
    payload = jsonx_dump(v);
    text = kit_sign(kit.key, header, payload);
    ck_assert_int_eq(
        token_pop_check(text, strlen(text), kit.kid, &p, KIT_NOW, &step, NULL), -1);
    ck_assert_str_eq(step, "payload"); /* proof without its key */
    free(text);
    free(payload);
    json_decref(v);
    free(header);
    text = pop_text(&p, kit.key, JWS_TYP_GRANT);
    ck_assert_int_eq(
        token_pop_check(text, strlen(text), kit.kid, &p, KIT_NOW, &step, NULL), -1);
    ck_assert_str_eq(step, "header"); /* types never interchange */
    free(text);
    ck_assert_int_eq(token_pop_check("", 0, kit.kid, &p, KIT_NOW, &step, NULL), -1);
    ck_assert_str_eq(step, "parts"); /* proof missing */
}
END_TEST

START_TEST(test_argv_hash)
{
    /* sha256("a\0b\0") and sha256(""): where one argument ends matters. */
    static const char *const ab[] = {"a", "b"}, *const joined[] = {"a b"};
    char one[JWS_KID_MAX], two[JWS_KID_MAX], none[JWS_KID_MAX];
    token_argv_hash(ab, 2, one);
    token_argv_hash(joined, 1, two);
    token_argv_hash(NULL, 0, none);
    ck_assert_str_ne(one, two);
    ck_assert_str_eq(none, "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU");
    ck_assert_str_eq(one, "j7IO9jztQUX8Lpg__ll9Hc_zkVTDvyHw-p3eagxQ_ck");
}
END_TEST

START_TEST(test_split_bounds)
{
    struct jws_parts p;
    const char *step;
    struct strbuf b = STRBUF_INIT;
    json_t *payload = json_object();
    strbuf_adds(&b, "x");
    while (b.len < 9000)
        strbuf_addc(&b, 'x');
    json_object_set_new(payload, "long", json_string(b.data));
    char *token;
    ck_assert_int_eq(jws_sign(kit.key, JWS_TYP_USAGE, payload, &token, NULL), 0);
    size_t len = strlen(token);
    ck_assert_int_eq(jws_split(token, len, &p, &step, NULL), -1);
    ck_assert_str_eq(step, "size");
    ck_assert_int_eq(jws_split_max(token, len, len, &p, &step, NULL), 0);
    jws_parts_done(&p);
    ck_assert_int_eq(jws_split_max(token, len, len - 1, &p, &step, NULL), -1);
    free(token);
    json_decref(payload);
    strbuf_done(&b);
}
END_TEST

struct reading {
    char s[4];
    int64_t i, list;
};

static int read_element(struct jsonr *r, void *out, struct err *err)
{
    int64_t *sum = out, v;
    if (jsonr_integer(r, 9, &v, err) != 0)
        return -1;
    *sum = *sum * 10 + v;
    return 0;
}

static int read_list(struct jsonr *r, void *out, struct err *err)
{
    return jsonr_array(r, 3, read_element, out, err);
}

START_TEST(test_jsonr)
{
    static const struct jsonr_field fields[] = {
        {"s", true, offsetof(struct reading, s), sizeof(((struct reading *)NULL)->s)},
        {"i", false, offsetof(struct reading, i), .max = 100},
        {"list", false, offsetof(struct reading, list), .read = read_list},
    };
    static const struct {
        const char *text, *message; /* NULL: accepted */
    } table[] = {
        {"{\"s\":\"abc\",\"i\":100,\"list\":[1,2,3]}", NULL},
        {" { \"list\" : [ 1 , 2 , 3 ] ,\r\n\t\"s\":\"abc\",\"i\":100 } ", NULL},
        {"", "expected an object, got the end"},
        {"{", "expected a string, got the end"},
        {"{\"s\"", "expected ':', got the end"},
        {"{\"s\":\"abc", "/s: expected the end of the string, got the end"},
        {"{\"s\":\"abc\"", "expected ',' or '}', got the end"},
        {"{\"s\":\"abc\" \"i\":1}", "expected ',' or '}', got '\"'"},
        {"{,\"s\":\"abc\"}", "expected a string, got ','"},
        {"{\"s\":\"abc\",}", "expected a string, got '}'"},
        {"{\"s\":\"abcd\"}", "/s: expected 1..3 characters, got 4"},
        {"{\"s\":\"\"}", "/s: expected 1..3 characters, got 0"},
        {"{\"s\":1}", "/s: expected a string, got '1'"},
        {"{\"s\":\"\\n\"}", "/s: expected printable ASCII"},
        {"{\"s\":\"\x7f\"}", "/s: expected printable ASCII"},
        {"{\"i\":1}", "/s: missing"},
        {"{\"s\":\"a\",\"s\":\"a\"}", "/s: is there twice"},
        {"{\"s\":\"a\",\"i\":101}", "/i: expected integer 0..100"},
        {"{\"s\":\"a\",\"i\":99999999999999999999}", "/i: expected integer 0..100"},
        {"{\"s\":\"a\",\"i\":-1}", "/i: expected an integer, got '-'"},
        {"{\"s\":\"a\",\"i\":1.0}", "/i: expected an integer, got a real"},
        {"{\"s\":\"a\",\"i\":1e1}", "/i: expected an integer, got a real"},
        {"{\"s\":\"a\",\"i\":01}", "/i: integer with leading zeros"},
        {"{\"s\":\"a\",\"i\":true}", "/i: expected an integer, got 't'"},
        {"{\"s\":\"a\",\"x\":1}", "/x: unknown member"},
        {"{\"s\":\"a\",\"\":1}", "/: unknown member"},
        {"{\"s\":\"a\",\"ss\":1}", "/ss: unknown member"},
        {"{\"s\":\"a\",\"lis\":1}", "/lis: unknown member"},
        {"{\"s\":\"a\",\"list\":[]}", "/list: /0: expected an integer, got ']'"},
        {"{\"s\":\"a\",\"list\":[1,2,3,4]}", "/list: more than 3 elements"},
        {"{\"s\":\"a\",\"list\":[1,]}", "/list: /1: expected an integer, got ']'"},
        {"{\"s\":\"a\",\"list\":[1 2]}", "/list: expected ',' or ']', got '2'"},
        {"{\"s\":\"a\"}x", "expected nothing more, got 'x'"},
        {"[]", "expected an object, got '['"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct reading out = {0};
        struct err err = {0};
        struct jsonr r = {table[i].text, table[i].text + strlen(table[i].text)};
        int rc = jsonr_object(&r, fields, JSONR_COUNT(fields), &out, &err);
        if (rc == 0)
            rc = jsonr_end(&r, &err);
        ck_assert_msg((rc == 0) == (table[i].message == NULL), "%s: %s", table[i].text,
                      err.text);
        if (rc == 0) {
            ck_assert_str_eq(out.s, "abc");
            ck_assert_int_eq(out.i, 100);
            ck_assert_int_eq(out.list, 123);
        } else {
            ck_assert_msg(
                strncmp(err.text, table[i].message, strlen(table[i].message)) == 0,
                "%s: %s", table[i].text, err.text);
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("jws");
    TCase *tc = tcase_create("jws");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_rfc8037);
    tcase_add_test(tc, test_sign_known);
    tcase_add_test(tc, test_pem);
    tcase_add_test(tc, test_ring);
    tcase_add_test(tc, test_ring_is_bounded);
    tcase_add_test(tc, test_pop);
    tcase_add_test(tc, test_pop_keys);
    tcase_add_test(tc, test_argv_hash);
    tcase_add_test(tc, test_split_bounds);
    tcase_add_test(tc, test_jsonr);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
