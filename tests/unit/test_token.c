/* test_token: the offline check of grants. One good token, and every way to spoil it,
 * each with the step that must refuse it. Then random mutations, every single bit,
 * status documents, and the lease's members one by one. */
#include <inttypes.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <time.h>
#include <unistd.h>

#include "client/lib/fsx.h"
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

static int check(const char *token, struct token_claims *out, const char **step,
                 struct err *err)
{
    *step = "";
    *err = (struct err){0};
    return token_check(token, strlen(token), &kit.ctx, out, step, err);
}

/* The text with its first `find` replaced; the find must be there. Caller frees. */
static char *replaced(const char *text, const char *find, const char *with)
{
    const char *at = strstr(text, find);
    ck_assert_msg(at != NULL, "'%s' is not in %s", find, text);
    return xasprintf("%.*s%s%s", (int)(at - text), text, with, at + strlen(find));
}

static void refused(const char *name, const char *token, const char *step)
{
    struct token_claims out;
    const char *got;
    struct err err;
    int rc = check(token, &out, &got, &err);
    ck_assert_msg(rc == -1, "%s: accepted", name);
    ck_assert_msg(strcmp(got, step) == 0, "%s: refused by step %s: %s", name, got,
                  err.text);
    ck_assert_msg(err.code == ERR_TOKEN, "%s: code %d", name, (int)err.code);
    ck_assert_msg(strncmp(err.text, step, strlen(step)) == 0, "%s: %s", name, err.text);
}

START_TEST(test_good)
{
    char *token = kit_grant(&kit);
    struct token_claims out;
    const char *step;
    struct err err;
    ck_assert_msg(check(token, &out, &step, &err) == 0, "%s", err.text);
    ck_assert_str_eq(out.kid, kit.kid);
    ck_assert_uint_eq(strlen(out.ath), 43);
    ck_assert_int_eq(out.lease.not_after_us, kit.claims.lease.not_after_us);
    ck_assert_int_eq(out.lease.actions, TOKEN_LAUNCH | TOKEN_STOP);
    ck_assert_int_eq(out.status_seq, 7);
    /* What was read says the same as what was written. */
    json_t *was = token_build(&kit.claims), *is = token_claims_json(&out);
    ck_assert(json_equal(was, is));
    json_decref(was);
    json_decref(is);
    /* The other name of the same algorithm (RFC 9864). */
    char *header = kit_header(&kit), *payload = kit_payload(&kit);
    char *renamed = replaced(header, "EdDSA", "Ed25519");
    char *other = kit_sign(kit.key, renamed, payload);
    ck_assert_msg(check(other, &out, &step, &err) == 0, "%s", err.text);
    free(other);
    free(renamed);
    free(header);
    free(payload);
    free(token);
}
END_TEST

/* Header and payload with one text replaced in each (NULL: as it is), well signed. */
static const struct {
    const char *name, *in_header, *header, *in_payload, *payload, *step;
} spoiled[] = {
    {"alg none", "EdDSA", "none", NULL, NULL, "header"},
    {"alg None", "EdDSA", "None", NULL, NULL, "header"},
    {"alg eddsa", "EdDSA", "eddsa", NULL, NULL, "header"},
    {"alg EdDSA with space", "EdDSA", "EdDSA ", NULL, NULL, "header"},
    {"ES256 naming an Ed25519 key", "EdDSA", "ES256", NULL, NULL, "header"},
    {"RS256 naming an Ed25519 key", "EdDSA", "RS256", NULL, NULL, "header"},
    {"alg is a number", "\"EdDSA\"", "1", NULL, NULL, "header"},
    {"no alg", "\"alg\":\"EdDSA\",", "", NULL, NULL, "header"},
    {"no typ", ",\"typ\":\"at+jwt\"", "", NULL, NULL, "header"},
    {"embedded jwk", "{", "{\"jwk\":{\"kty\":\"OKP\"},", NULL, NULL, "header"},
    {"jku", "{", "{\"jku\":\"https://evil/\",", NULL, NULL, "header"},
    {"x5u", "{", "{\"x5u\":\"https://evil/\",", NULL, NULL, "header"},
    {"crit", "{", "{\"crit\":[\"exp\"],", NULL, NULL, "header"},
    {"b64=false", "{", "{\"b64\":false,", NULL, NULL, "header"},
    {"duplicate header member", "{", "{\"typ\":\"JWT\",", NULL, NULL, "header"},
    {"duplicate alg", "{", "{\"alg\":\"EdDSA\",", NULL, NULL, "header"},
    {"escaped member name", "\"alg\"", "\"\\u0061lg\"", NULL, NULL, "header"},
    {"typ JWT", "at+jwt", "JWT", NULL, NULL, "header"},
    {"typ AT+JWT", "at+jwt", "AT+JWT", NULL, NULL, "header"},
    {"typ application/at+jwt", "at+jwt", "application/at+jwt", NULL, NULL, "header"},
    {"receipt as grant", "at+jwt", "neargpu-usage+jwt", NULL, NULL, "header"},
    {"proof as grant", "at+jwt", "neargpu-pop+jwt", NULL, NULL, "header"},
    {"status document as grant", "at+jwt", "neargpu-status+jwt", NULL, NULL, "header"},
    {"header with text after it", "}", "} ,", NULL, NULL, "header"},
    {"header not closed", "}", "", NULL, NULL, "header"},

    {"duplicate exp", NULL, NULL, "\"exp\"", "\"exp\":9999999999,\"exp\"", "payload"},
    {"duplicate aud", NULL, NULL, "\"cnf\"", "\"aud\":\"x\",\"cnf\"", "payload"},
    {"escaped duplicate", NULL, NULL, "\"cnf\"", "\"\\u0061ud\":\"x\",\"cnf\"",
     "payload"},
    {"unknown claim", NULL, NULL, "{", "{\"admin\":true,", "payload"},
    {"scope claim", NULL, NULL, "{", "{\"scope\":\"all\",", "payload"},
    {"aud array", NULL, NULL, "\"" KIT_NODE "\"", "[\"" KIT_NODE "\"]", "payload"},
    {"exp string", NULL, NULL, "\"exp\":1795385292", "\"exp\":\"1795385292\"",
     "payload"},
    {"exp 1e99", NULL, NULL, "\"exp\":1795385292", "\"exp\":1e99", "payload"},
    {"exp 1795385292.0", NULL, NULL, "\"exp\":1795385292", "\"exp\":1795385292.0",
     "payload"},
    {"exp 2^63", NULL, NULL, "\"exp\":1795385292", "\"exp\":9223372036854775808",
     "payload"},
    {"exp 2^64", NULL, NULL, "\"exp\":1795385292", "\"exp\":18446744073709551616",
     "payload"},
    {"exp 2^53+1", NULL, NULL, "\"exp\":1795385292", "\"exp\":9007199254740993",
     "payload"},
    {"exp negative", NULL, NULL, "\"exp\":1795385292", "\"exp\":-1", "payload"},
    {"exp null", NULL, NULL, "\"exp\":1795385292", "\"exp\":null", "payload"},
    {"exp with leading zero", NULL, NULL, "\"exp\":1", "\"exp\":01", "payload"},
    {"exp hexadecimal", NULL, NULL, "\"exp\":1795385292", "\"exp\":0x6b03", "payload"},
    {"exp missing", NULL, NULL, "\"exp\":1795385292,", "", "payload"},
    {"iat missing", NULL, NULL, "\"iat\":1795384392,", "", "payload"},
    {"nbf missing", NULL, NULL, "\"nbf\":1795384392,", "", "payload"},
    {"iss missing", NULL, NULL, "\"iss\":\"" KIT_ISSUER "\",", "", "payload"},
    {"aud missing", NULL, NULL, "\"aud\":\"" KIT_NODE "\",", "", "payload"},
    {"aud empty", NULL, NULL, KIT_NODE, "", "payload"},
    {"no cnf", NULL, NULL, "\"cnf\"", "\"cng\"", "payload"},
    {"act without a name", NULL, NULL, "\"cnf\"", "\"act\":{},\"cnf\"", "payload"},
    {"act of an empty name", NULL, NULL, "\"cnf\"", "\"act\":{\"sub\":\"\"},\"cnf\"",
     "payload"},
    {"act that is no thumbprint", NULL, NULL, "\"cnf\"",
     "\"act\":{\"sub\":\"bob\"},\"cnf\"", "payload"},
    {"act within act", NULL, NULL, "\"cnf\"",
     "\"act\":{\"sub\":\"x\",\"act\":{}},\"cnf\"", "payload"},
    {"cnf without jkt", NULL, NULL, "\"jkt\"", "\"kid\"", "payload"},
    {"cnf of a certificate", NULL, NULL, "\"jkt\"", "\"x5t#S256\"", "payload"},
    {"jkt too short", NULL, NULL, "NzbLsXh8", "NzbLsXh", "payload"},
    {"sub no UUID", NULL, NULL, "\"sub\":\"0", "\"sub\":\"g", "payload"},
    {"jti no UUID", NULL, NULL, "\"jti\":\"0", "\"jti\":\"A", "payload"},
    {"payload with text after it", NULL, NULL, "}]}", "}]} x", "payload"},
    {"two payloads", NULL, NULL, "}]}", "}]}{}", "payload"},
    {"trailing comma", NULL, NULL, "}]}", "}],}", "payload"},
    {"single quotes", NULL, NULL, "\"iss\"", "'iss'", "payload"},
    {"control character", NULL, NULL, KIT_NODE, KIT_NODE "\x01", "payload"},
    {"not ASCII", NULL, NULL, KIT_NODE, "spiffe://n\xc3\xa9", "payload"},

    {"wrong iss", NULL, NULL, KIT_ISSUER, "https://other.local", "issuer"},
    {"iss with slash", NULL, NULL, KIT_ISSUER, KIT_ISSUER "/", "issuer"},
    {"other node", NULL, NULL, "node/n1", "node/n2", "audience"},
    {"aud prefix", NULL, NULL, "node/n1", "node/n", "audience"},
    {"aud longer", NULL, NULL, "node/n1", "node/n11", "audience"},
    {"aud in capitals", NULL, NULL, "node/n1", "node/N1", "audience"},
    {"no life at all", NULL, NULL, "\"exp\":1795385292", "\"exp\":1795384392", "times"},
    {"life over 60 minutes", NULL, NULL, "\"exp\":1795385292", "\"exp\":1795387993",
     "times"},
    {"exp before iat", NULL, NULL, "\"exp\":1795385292", "\"exp\":1", "times"},
    {"iat beyond leeway", NULL, NULL, "\"iat\":1795384392", "\"iat\":1795384399",
     "times"},
    {"nbf beyond leeway", NULL, NULL, "\"nbf\":1795384392", "\"nbf\":1795384399",
     "times"},

    {"unknown detail field", NULL, NULL, "\"epoch\"", "\"boost\":1,\"epoch\"",
     "details"},
    {"duplicate detail field", NULL, NULL, "\"epoch\"", "\"epoch\":1,\"epoch\"",
     "details"},
    {"two leases", NULL, NULL, "}]}", "},{}]}", "details"},
    {"no lease", NULL, NULL, "\"authorization_details\":[",
     "\"authorization_details\":[],\"x\":[", "details"},
    {"details an object", NULL, NULL, "\"authorization_details\":[{",
     "\"authorization_details\":{\"x\":[{", "details"},
    {"other type", NULL, NULL, "gpu_lease", "gpu_leases", "details"},
    {"no type", NULL, NULL, "\"type\":\"gpu_lease\",", "", "details"},
    {"identifier no UUID", NULL, NULL, KIT_RES, "../../etc", "details"},
    {"unknown action", NULL, NULL, "\"launch\"", "\"root\"", "details"},
    {"action twice", NULL, NULL, "\"launch\"", "\"stop\"", "details"},
    {"no actions", NULL, NULL, "[\"launch\",\"stop\"]", "[]", "details"},
    {"action a number", NULL, NULL, "\"launch\"", "1", "details"},
    {"GPU twice", NULL, NULL, "4a01", "4a00", "details"},
    {"GPU with a path", NULL, NULL, "GPU-5f7a", "GPU-../", "details"},
    {"GPU by index", NULL, NULL, "GPU-5f7a0c1e-3b2d-4e6f-8a9b-0c1d2e3f4a00", "0",
     "details"},
    {"GPU name of 64 bytes", NULL, NULL, "GPU-5f7a0c1e",
     "GPU-5f7a0c1e5f7a0c1e5f7a0c1e5f7a0c1e", "details"},
    {"device with another member", NULL, NULL, "{\"uuid\"", "{\"minor\":0,\"uuid\"",
     "details"},
    {"end before start", NULL, NULL, "\"not_after\":\"2026-11-23T01",
     "\"not_after\":\"2026-11-21T01", "details"},
    {"not_after without offset", NULL, NULL, ".123456Z\"", ".123456\"", "details"},
    {"not_after a number", NULL, NULL, "\"2026-11-23T01:53:12.123456Z\"", "1795398792",
     "details"},
    {"no not_after", NULL, NULL, "\"not_after\":\"2026-11-23T01:53:12.123456Z\",", "",
     "details"},
    {"epoch a string", NULL, NULL, "\"epoch\":1795384392000000",
     "\"epoch\":\"1795384392000000\"", "details"},
    {"epoch negative", NULL, NULL, "\"epoch\":1", "\"epoch\":-1", "details"},
    {"no epoch", NULL, NULL, "\"epoch\":1795384392000000,", "", "details"},
    {"unknown limit", NULL, NULL, "\"pids_max\"", "\"cpus_max\"", "details"},
    {"limit 0", NULL, NULL, "\"pids_max\":4096", "\"pids_max\":0", "details"},
    {"unknown on_lost", NULL, NULL, "stop_after", "ask", "details"},
    {"stop_after without after_s", NULL, NULL, ",\"after_s\":300", "", "details"},
    {"run_to_end with after_s", NULL, NULL, "stop_after", "run_to_end", "details"},
    {"unknown drain", NULL, NULL, "before_end_s", "after_end_s", "details"},
    {"drain of a year", NULL, NULL, "\"before_end_s\":10", "\"before_end_s\":31536000",
     "details"},
};

START_TEST(test_spoiled)
{
    char *header = kit_header(&kit), *payload = kit_payload(&kit);
    for (size_t i = 0; i < sizeof(spoiled) / sizeof(spoiled[0]); i++) {
        char *h = spoiled[i].in_header == NULL
                      ? xstrdup(header)
                      : replaced(header, spoiled[i].in_header, spoiled[i].header);
        char *p = spoiled[i].in_payload == NULL
                      ? xstrdup(payload)
                      : replaced(payload, spoiled[i].in_payload, spoiled[i].payload);
        char *token = kit_sign(kit.key, h, p);
        refused(spoiled[i].name, token, spoiled[i].step);
        free(token);
        free(h);
        free(p);
    }
    free(header);
    free(payload);
}
END_TEST

/* Whole headers and payloads, well signed by the known key. */
START_TEST(test_other_shapes)
{
    char *header = kit_header(&kit), *payload = kit_payload(&kit);
    const struct {
        const char *name, *header, *payload, *step;
    } table[] = {
        {"array header", "[\"EdDSA\"]", payload, "header"},
        {"empty header", "{}", payload, "header"},
        {"header a string", "\"EdDSA\"", payload, "header"},
        {"array payload", header, "[1]", "payload"},
        {"empty payload", header, "{}", "payload"},
        {"payload a number", header, "1", "payload"},
        {"payload no JSON", header, "exp=9", "payload"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        char *token = kit_sign(kit.key, table[i].header, table[i].payload);
        refused(table[i].name, token, table[i].step);
        free(token);
    }
    char deep[5801];
    memset(deep, '[', 3000);
    deep[3000] = '\0';
    char *token = kit_sign(kit.key, header, deep);
    refused("3,000 deep", token, "payload");
    free(token);
    memset(deep, '[', 2900); /* closed as well: as deep as fits into 8 KiB */
    memset(deep + 2900, ']', 2900);
    deep[5800] = '\0';
    token = kit_sign(kit.key, header, deep);
    refused("2,900 deep and closed", token, "payload");
    free(token);
    char *aud = replaced(payload, "\"" KIT_NODE "\"", "[[[[[[[[[[[[[[[[[[1");
    token = kit_sign(kit.key, header, aud);
    refused("deep claim", token, "payload");
    free(token);
    free(aud);
    free(header);
    free(payload);
}
END_TEST

START_TEST(test_keys)
{
    char *payload = kit_payload(&kit), *header = kit_header(&kit);
    const struct {
        const char *name, *kid, *step;
    } kids[] = {
        {"path in kid", "../../../../dev/null", "header"},
        {"kid a URL", "https://evil.example/key", "header"},
        {"kid with SQL", "x' OR '1'='1", "header"},
        {"kid empty", "", "header"},
        {"unknown kid", kit.foreign_kid, "key"},
    };
    for (size_t i = 0; i < sizeof(kids) / sizeof(kids[0]); i++) {
        char *h = replaced(header, kit.kid, kids[i].kid);
        char *token = kit_sign(kit.foreign, h, payload);
        refused(kids[i].name, token, kids[i].step);
        free(token);
        free(h);
    }
    char *h = xasprintf("{\"alg\":\"EdDSA\",\"typ\":\"at+jwt\"}");
    char *token = kit_sign(kit.key, h, payload);
    refused("no kid", token, "header");
    free(token);
    free(h);
    token = kit_sign(kit.foreign, header, payload);
    refused("foreign key under a known kid", token, "signature");
    free(token);
    token = kit_sign(kit.key, header, payload);
    keyring_revoke(kit.ring, "no such kid");
    struct token_claims out;
    const char *step;
    struct err err;
    ck_assert_int_eq(check(token, &out, &step, &err), 0);
    keyring_revoke(kit.ring, kit.kid);
    refused("revoked kid", token, "key");
    free(token);
    free(header);
    free(payload);
}
END_TEST

START_TEST(test_key_dates)
{
    char *token = kit_grant(&kit);
    static const struct {
        int64_t nbf_s, exp_s; /* relative to KIT_NOW; the check runs at +1 s */
        bool good;
    } table[] = {{-10, 10, true},
                 {1, 10, true},
                 {2, 10, false},
                 {-10, 1, false},
                 {-10, 2, true}};
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        json_t *jwks = kit_jwks(kit.pub);
        json_t *jwk = json_array_get(json_object_get(jwks, "keys"), 0);
        json_object_set_new(jwk, "nbf",
                            json_integer(KIT_NOW / US_PER_S + table[i].nbf_s));
        json_object_set_new(jwk, "exp",
                            json_integer(KIT_NOW / US_PER_S + table[i].exp_s));
        struct keyring *ring;
        struct err err;
        ck_assert_msg(keyring_from_jwks(jwks, &ring, &err) == 0, "%s", err.text);
        kit.ctx.keys = ring;
        struct token_claims out;
        const char *step;
        if (table[i].good)
            ck_assert_msg(check(token, &out, &step, &err) == 0, "%s", err.text);
        else
            refused("key outside its dates", token, "key");
        keyring_free(ring);
        json_decref(jwks);
    }
    free(token);
}
END_TEST

/* HS256 with the public key as secret, in its raw and PEM forms: what accepting the
 * token's own alg would let through. */
START_TEST(test_hs256_with_the_public_key)
{
    char *payload = kit_payload(&kit), *header = kit_header(&kit);
    char *h = replaced(header, "EdDSA", "HS256");
    BIO *bio = BIO_new(BIO_s_mem());
    ck_assert_int_eq(PEM_write_bio_PUBKEY(bio, kit.key), 1);
    char *pem;
    long pem_len = BIO_get_mem_data(bio, &pem);
    const struct {
        const void *secret;
        size_t len;
    } secrets[] = {{kit.pub, sizeof(kit.pub)}, {pem, (size_t)pem_len}};
    for (size_t i = 0; i < 2; i++) {
        struct strbuf b = STRBUF_INIT;
        uint8_t mac[32];
        b64_encode_to(&b, h, strlen(h));
        strbuf_addc(&b, '.');
        b64_encode_to(&b, payload, strlen(payload));
        HMAC(EVP_sha256(), secrets[i].secret, (int)secrets[i].len,
             (const uint8_t *)b.data, b.len, mac, NULL);
        strbuf_addc(&b, '.');
        b64_encode_to(&b, mac, sizeof(mac));
        refused("HS256 with the public key", b.data, "header");
        strbuf_done(&b);
    }
    BIO_free(bio);
    free(h);
    free(header);
    free(payload);
}
END_TEST

/* What can be done to the text of a good token without the key. */
START_TEST(test_text)
{
    char *good = kit_grant(&kit);
    size_t len = strlen(good);
    char *first = strchr(good, '.'), *last = strrchr(good, '.');
    int head = (int)(first - good), body = (int)(last - good);
    char *flipped = xstrdup(good), *unused = xstrdup(good), *zero = xstrdup(good);
    flipped[head + 20] = flipped[head + 20] == 'A' ? 'B' : 'A';
    /* 64 bytes end in 2 characters of which the last carries 4 unused bits. */
    char *end = unused + len - 1;
    ck_assert_ptr_nonnull(strchr("AQgw", *end));
    *end = (char)(*end + 1);
    memset(zero + body + 1, 'A', strlen(zero + body + 1));
    char *none = xasprintf("%.*s.", body, good);
    char *short_sig = xasprintf("%.*s", (int)len - 6, good);
    char *long_sig = xasprintf("%sAAAA", good);
    char *padded = xasprintf("%s==", good), *newline = xasprintf("%s\n", good);
    char *middle = xasprintf("%.*s\n%s", head + 30, good, good + head + 30);
    char *extra = xasprintf("%s.AAAA", good), *doubled = xasprintf("%s.", good);
    char *two = xasprintf("%.*s", body, good), *space = xasprintf(" %s", good);
    char *nohead = xasprintf("%s", first),
         *nobody = xasprintf("%.*s.%s", head, good, last);
    struct strbuf big = STRBUF_INIT;
    strbuf_adds(&big, good);
    while (big.len < 9 * 1024)
        strbuf_addc(&big, 'A');
    const struct {
        const char *name, *token, *step;
    } table[] = {
        {"bit flip", flipped, "signature"},
        {"unused bits", unused, "base64"},
        {"padding", padded, "base64"},
        {"newline", newline, "base64"},
        {"newline inside", middle, "base64"},
        {"space before", space, "base64"},
        {"extra part", extra, "parts"},
        {"dot at the end", doubled, "parts"},
        {"two parts", two, "parts"},
        {"no header", nohead, "parts"},
        {"no payload", nobody, "parts"},
        {"no signature", none, "parts"},
        {"zero signature", zero, "signature"},
        {"short signature", short_sig, "signature"},
        {"long signature", long_sig, "signature"},
        {"9 KB", big.data, "size"},
        {"empty", "", "parts"},
        {"dots", "..", "parts"},
        {"JSON serialisation", "{\"payload\":\"\",\"signatures\":[]}", "parts"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        refused(table[i].name, table[i].token, table[i].step);
    struct token_claims out;
    const char *step;
    struct err err;
    ck_assert_int_eq(token_check(good, len + 1, &kit.ctx, &out, &step, &err), -1);
    char *all[] = {flipped, unused, zero,    none, short_sig, long_sig, padded, newline,
                   middle,  extra,  doubled, two,  space,     nohead,   nobody, good};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]);
    strbuf_done(&big);
}
END_TEST

START_TEST(test_clock)
{
    char *token = kit_grant(&kit);
    static const struct {
        const char *name;
        int64_t now_us;
        const char *step; /* NULL: good */
    } table[] = {
        {"5 s before iat", KIT_NOW - TOKEN_LEEWAY_US, NULL},
        {"iat beyond leeway", KIT_NOW - TOKEN_LEEWAY_US - 1, "times"},
        {"last microsecond", KIT_NOW + TOKEN_LIFE_US - 1, NULL},
        {"expires now", KIT_NOW + TOKEN_LIFE_US, "times"},
        {"expired 1 s ago", KIT_NOW + TOKEN_LIFE_US + US_PER_S, "times"},
        {"clock set back a day", KIT_NOW - 24 * US_PER_HOUR, "times"},
        {"a year later", KIT_NOW + 8766 * US_PER_HOUR, "times"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct token_claims out;
        const char *step;
        struct err err;
        kit.ctx.now_us = table[i].now_us;
        if (table[i].step != NULL)
            refused(table[i].name, token, table[i].step);
        else
            ck_assert_msg(check(token, &out, &step, &err) == 0, "%s: %s", table[i].name,
                          err.text);
    }
    free(token);
    kit.claims.lease.not_after_us = KIT_NOW + 60 * US_PER_S;
    token = kit_grant(&kit);
    kit.ctx.now_us = KIT_NOW + 60 * US_PER_S;
    refused("lease over", token, "details");
    free(token);
}
END_TEST

START_TEST(test_issuer_is_optional)
{
    char *header = kit_header(&kit), *payload = kit_payload(&kit);
    char *p = replaced(payload, KIT_ISSUER, "https://elsewhere");
    char *token = kit_sign(kit.key, header, p);
    struct token_claims out;
    const char *step;
    struct err err;
    refused("wrong iss", token, "issuer");
    kit.ctx.issuer = NULL;
    ck_assert_msg(check(token, &out, &step, &err) == 0, "%s", err.text);
    free(token);
    free(p);
    free(payload);
    free(header);
}
END_TEST

/* Every mutation must be refused: what is signed is the very text. */
START_TEST(test_mutations)
{
    char *good = kit_grant(&kit);
    size_t len = strlen(good);
    uint64_t seed = (uint64_t)time(NULL) ^ ((uint64_t)getpid() << 32), state = seed;
    printf("token seed %" PRIu64 "\n", seed);
    char *token = xmalloc(len + 8);
    for (int i = 0; i < 10000; i++) {
        size_t n = len;
        memcpy(token, good, len + 1);
        int changes = 1 + i % 3;
        for (int c = 0; c < changes; c++) {
            state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
            size_t at = (size_t)(state >> 20) % n;
            switch (state >> 16 & 3) {
            case 0: token[at] = (char)(token[at] ^ (1 << (state >> 13 & 7))); break;
            case 1: token[at] = (char)(state >> 56); break;
            case 2:
                memmove(token + at, token + at + 1, n - at);
                n--;
                break;
            default:
                memmove(token + at + 1, token + at, n - at + 1);
                token[at] = "AZaz09-_.="[state >> 50 & 7];
                n++;
                break;
            }
        }
        struct token_claims out;
        const char *step;
        if (n == len && memcmp(token, good, len) == 0)
            continue;
        ck_assert_msg(token_check(token, n, &kit.ctx, &out, &step, NULL) == -1,
                      "mutation %d of seed %" PRIu64 " is accepted: %.*s", i, seed,
                      (int)n, token);
    }
    free(token);
    free(good);
}
END_TEST

/* Each prefix and each single-bit flip of the whole text. */
START_TEST(test_every_bit)
{
    char *good = kit_grant(&kit);
    size_t len = strlen(good);
    struct token_claims out;
    const char *step;
    for (size_t n = 0; n < len; n++)
        ck_assert_int_eq(token_check(good, n, &kit.ctx, &out, &step, NULL), -1);
    for (size_t n = 0; n < len; n++)
        for (int bit = 0; bit < 8; bit++) {
            good[n] = (char)(good[n] ^ (1 << bit));
            ck_assert_msg(token_check(good, len, &kit.ctx, &out, &step, NULL) == -1,
                          "byte %zu bit %d", n, bit);
            good[n] = (char)(good[n] ^ (1 << bit));
        }
    ck_assert_int_eq(token_check(good, len, &kit.ctx, &out, &step, NULL), 0);
    free(good);
}
END_TEST

START_TEST(test_status_step)
{
    char revoked[2][UUID_TEXT] = {"009307d0-7b3a-7c3e-8a5b-0123456789ad", KIT_RES};
    char kids[1][JWS_KID_MAX];
    memcpy(kids[0], kit.kid, JWS_KID_MAX);
    char *token = kit_grant(&kit);
    int64_t now = kit.ctx.now_us;
    const struct {
        const char *name;
        struct token_status status;
        const char *step;
    } table[] = {
        {"fresh", {.iat_us = now, .seq = 7}, NULL},
        {"60 s old", {.iat_us = now - TOKEN_STATUS_STALE_US, .seq = 8}, NULL},
        {"stale status",
         {.iat_us = now - TOKEN_STATUS_STALE_US - 1, .seq = 8},
         "status"},
        {"from the future", {.iat_us = now + TOKEN_LEEWAY_US + 1, .seq = 8}, "status"},
        {"older than the token's", {.iat_us = now, .seq = 6}, "status"},
        {"other revoked",
         {.iat_us = now, .seq = 7, .revoked = revoked, .revoked_count = 1},
         NULL},
        {"revoked",
         {.iat_us = now, .seq = 7, .revoked = revoked, .revoked_count = 2},
         "status"},
        {"revoked kid",
         {.iat_us = now, .seq = 7, .revoked_kids = kids, .revoked_kid_count = 1},
         "key"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct token_claims out;
        const char *step;
        struct err err;
        kit.ctx.status = &table[i].status;
        if (table[i].step != NULL)
            refused(table[i].name, token, table[i].step);
        else
            ck_assert_msg(check(token, &out, &step, &err) == 0, "%s: %s", table[i].name,
                          err.text);
    }
    free(token);
}
END_TEST

START_TEST(test_lease_extremes)
{
    struct token_claims out;
    const char *step;
    struct err err;
    kit.claims.lease.gpu_count = GPUS_PER_NODE_MAX;
    for (int i = 0; i < GPUS_PER_NODE_MAX; i++)
        snprintf(kit.claims.lease.gpus[i], TOKEN_GPU_UUID_MAX, "MIG-%02d", i);
    kit.claims.lease.on_lost = TOKEN_RUN_TO_END;
    kit.claims.lease.on_lost_after_us = 0;
    kit.claims.lease.memory_max_bytes = kit.claims.lease.pids_max = 0;
    kit.claims.lease.drain_us = 0;
    char *token = kit_grant(&kit);
    ck_assert_msg(check(token, &out, &step, &err) == 0, "%s", err.text);
    ck_assert_uint_eq(out.lease.gpu_count, GPUS_PER_NODE_MAX);
    ck_assert_int_eq(out.lease.on_lost, TOKEN_RUN_TO_END);
    ck_assert_int_eq(out.lease.memory_max_bytes, 0);
    ck_assert_str_eq(out.lease.gpus[63], "MIG-63");
    free(token);
    char *header = kit_header(&kit), *payload = kit_payload(&kit);
    char *more = replaced(payload, "{\"uuid\":", "{\"uuid\":\"GPU-x\"},{\"uuid\":");
    token = kit_sign(kit.key, header, more);
    refused("65 GPUs", token, "details");
    free(token);
    free(more);
    /* White space where JSON allows it, and members in another order. */
    char *spaced = replaced(payload, "{\"iss\":", " {\n\t\"iss\" :\r ");
    token = kit_sign(kit.key, header, spaced);
    ck_assert_msg(check(token, &out, &step, &err) == 0, "%s", err.text);
    free(token);
    free(spaced);
    json_t *v = token_build(&kit.claims);
    char *sorted = jsonx_canonical(v);
    json_decref(v);
    token = kit_sign(kit.key, header, sorted);
    ck_assert_msg(check(token, &out, &step, &err) == 0, "%s", err.text);
    free(token);
    free(sorted);
    free(header);
    free(payload);
}
END_TEST

static char *vector(const char *name)
{
    const char *src = getenv("srcdir");
    char *path = xasprintf("%s/tests/vectors/%s", src == NULL ? "." : src, name), *text;
    struct err err;
    ck_assert_msg(fsx_read(path, JWKS_BYTES_MAX, &text, NULL, &err) == 0, "%s",
                  err.text);
    free(path);
    return text;
}

/* A grant and key set made by an independent JOSE library. */
START_TEST(test_made_by_another_library)
{
    char *token = vector("grant_jwcrypto.jws"), *jwks = vector("grant_jwcrypto.jwks");
    token[strcspn(token, "\n")] = '\0';
    struct keyring *ring;
    struct err err;
    json_t *v = jsonx_parse(jwks, strlen(jwks), JWKS_BYTES_MAX, &err);
    ck_assert_ptr_nonnull(v);
    ck_assert_msg(keyring_from_jwks(v, &ring, &err) == 0, "%s", err.text);
    kit.ctx.keys = ring;
    struct token_claims out;
    const char *step;
    ck_assert_msg(check(token, &out, &step, &err) == 0, "%s", err.text);
    json_t *was = token_build(&kit.claims), *is = token_claims_json(&out);
    ck_assert(json_equal(was, is));
    json_decref(was);
    json_decref(is);
    json_decref(v);
    keyring_free(ring);
    free(token);
    free(jwks);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("token");
    TCase *tc = tcase_create("token");
    tcase_set_timeout(tc, 120);
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_good);
    tcase_add_test(tc, test_spoiled);
    tcase_add_test(tc, test_other_shapes);
    tcase_add_test(tc, test_keys);
    tcase_add_test(tc, test_key_dates);
    tcase_add_test(tc, test_hs256_with_the_public_key);
    tcase_add_test(tc, test_text);
    tcase_add_test(tc, test_clock);
    tcase_add_test(tc, test_issuer_is_optional);
    tcase_add_test(tc, test_mutations);
    tcase_add_test(tc, test_every_bit);
    tcase_add_test(tc, test_status_step);
    tcase_add_test(tc, test_lease_extremes);
    tcase_add_test(tc, test_made_by_another_library);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
