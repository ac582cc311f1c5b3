/* Tests of the market's CA and of the token signer, on files in a directory of the
 * test's own. */
#include "server/issuer/issuer.h"

#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/keyring.h"
#include "client/lib/timefmt.h"
#include "client/lib/tlsx.h"
#include "client/lib/xalloc.h"
#include "server/issuer/ca.h"
#include "tests/unit/unit.h"

#define URI "spiffe://neargpu.local/site/tokyo/node/n1"

static char dir[64];
static struct err err;

static void setup_dir(void)
{
    snprintf(dir, sizeof(dir), "/tmp/neargpu-issuer.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
}

static X509 *read_cert(const char *pem)
{
    BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    BIO_free(bio);
    ck_assert_ptr_nonnull(cert);
    return cert;
}

static X509 *read_file(const char *name)
{
    char *path = xasprintf("%s/%s", dir, name), *text = NULL;
    ck_assert_int_eq(fsx_read(path, 65536, &text, NULL, &err), 0);
    X509 *cert = read_cert(text);
    free(text);
    free(path);
    return cert;
}

START_TEST(test_ca_is_kept)
{
    struct ca *a, *b;
    struct stat st;
    setup_dir();
    ck_assert_int_eq(ca_open(dir, "neargpu.local", clock_now_us(), &a, &err), 0);
    ck_assert_int_eq(ca_open(dir, "neargpu.local", clock_now_us(), &b, &err), 0);
    ck_assert_str_eq(ca_sha256(a), ca_sha256(b));
    ck_assert_uint_eq(strlen(ca_sha256(a)), 64);
    char *key = xasprintf("%s/ca.key", dir);
    ck_assert_int_eq(stat(key, &st), 0);
    ck_assert_int_eq(st.st_mode & 0777, 0600);
    /* Others may read it: refused, not used. */
    struct ca *c = NULL;
    ck_assert_int_eq(chmod(key, 0644), 0);
    ck_assert_int_eq(ca_open(dir, "neargpu.local", clock_now_us(), &c, &err), -1);
    free(key);
    ca_free(a);
    ca_free(b);
    ck_assert_int_eq(fsx_remove_tree(dir, &err), 0);
}
END_TEST

START_TEST(test_server_certificate)
{
    static const char *const one[] = {"localhost", "127.0.0.1"};
    static const char *const two[] = {"localhost", "127.0.0.1", "::1", "db.example"};
    int64_t now = clock_now_us();
    struct ca *ca;
    setup_dir();
    ck_assert_int_eq(ca_open(dir, "neargpu.local", now, &ca, &err), 0);
    ck_assert_int_eq(ca_ensure_server(ca, one, 2, now, &err), 0);
    X509 *first = read_file("server.pem");
    ck_assert_int_eq(X509_check_ip_asc(first, "127.0.0.1", 0), 1);
    ck_assert_int_eq(X509_check_host(first, "localhost", 0, 0, NULL), 1);
    ck_assert_int_ne(X509_check_host(first, "other.example", 0, 0, NULL), 1);
    ck_assert_int_eq(X509_check_ca(first), 0);
    /* Nothing to do: the same one stays. */
    ck_assert_int_eq(ca_ensure_server(ca, one, 2, now, &err), 0);
    X509 *same = read_file("server.pem");
    ck_assert_int_eq(X509_cmp(first, same), 0);
    /* Another name, or near the end: a new one. */
    ck_assert_int_eq(ca_ensure_server(ca, two, 4, now, &err), 0);
    X509 *named = read_file("server.pem");
    ck_assert_int_ne(X509_cmp(first, named), 0);
    ck_assert_int_eq(X509_check_ip_asc(named, "::1", 0), 1);
    ck_assert_int_eq(
        ca_ensure_server(ca, two, 4, now + (CA_SERVER_S - CA_SERVER_MIN + 1) * US_PER_S,
                         &err),
        0);
    X509 *renewed = read_file("server.pem");
    ck_assert_int_ne(X509_cmp(named, renewed), 0);
    X509_free(first);
    X509_free(same);
    X509_free(named);
    X509_free(renewed);
    ca_free(ca);
    ck_assert_int_eq(fsx_remove_tree(dir, &err), 0);
}
END_TEST

static size_t san_count(X509 *cert, const char *uri)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    ck_assert_ptr_nonnull(names);
    size_t count = (size_t)sk_GENERAL_NAME_num(names);
    int type;
    const ASN1_STRING *s =
        GENERAL_NAME_get0_value(sk_GENERAL_NAME_value(names, 0), &type);
    ck_assert_int_eq(type, GEN_URI);
    ck_assert_int_eq(ASN1_STRING_length(s), strlen(uri));
    ck_assert_mem_eq(ASN1_STRING_get0_data(s), uri, strlen(uri));
    GENERAL_NAMES_free(names);
    return count;
}

START_TEST(test_agent_certificate)
{
    int64_t now = clock_now_us();
    struct ca *ca;
    struct ca_agent_cert out;
    char *key_pem, *csr_pem;
    setup_dir();
    ck_assert_int_eq(ca_open(dir, "neargpu.local", now, &ca, &err), 0);
    /* The CSR asks for another node's name, and does not get it. */
    ck_assert_int_eq(tlsx_make_csr("spiffe://neargpu.local/site/tokyo/node/other",
                                   &key_pem, &csr_pem, &err),
                     0);
    ck_assert_msg(ca_sign_agent(ca, csr_pem, URI, now, &out, &err) == 0, "%s",
                  err.text);
    X509 *cert = read_cert(out.pem);
    ck_assert_uint_eq(san_count(cert, URI), 1);
    ck_assert_uint_eq(X509_get_extended_key_usage(cert),
                      XKU_SSL_SERVER | XKU_SSL_CLIENT);
    ck_assert_uint_eq(X509_get_key_usage(cert), KU_DIGITAL_SIGNATURE);
    ck_assert_int_eq(X509_check_ca(cert), 0);
    X509 *authority = read_cert(ca_pem(ca));
    ck_assert_int_eq(X509_verify(cert, X509_get0_pubkey(authority)), 1);
    int days, seconds;
    ck_assert_int_eq(ASN1_TIME_diff(&days, &seconds, X509_get0_notBefore(cert),
                                    X509_get0_notAfter(cert)),
                     1);
    ck_assert_int_eq(days * 86400 + seconds, CA_AGENT_S + CA_BACKDATE_S);
    uint8_t hash[SHA256_LEN];
    unsigned len;
    ck_assert_int_eq(X509_digest(cert, EVP_sha256(), hash, &len), 1);
    ck_assert_mem_eq(hash, out.sha256, SHA256_LEN);
    X509_free(authority);
    X509_free(cert);
    ca_agent_cert_done(&out);
    free(key_pem);
    free(csr_pem);
    ca_free(ca);
    ck_assert_int_eq(fsx_remove_tree(dir, &err), 0);
}
END_TEST

static char *csr_of(EVP_PKEY *named, EVP_PKEY *signer)
{
    X509_REQ *req = X509_REQ_new();
    X509_REQ_set_pubkey(req, named);
    X509_REQ_sign(req, signer, EVP_sha256());
    BIO *bio = BIO_new(BIO_s_mem());
    PEM_write_bio_X509_REQ(bio, req);
    char *data, *text;
    long len = BIO_get_mem_data(bio, &data);
    text = xstrndup(data, (size_t)len);
    BIO_free(bio);
    X509_REQ_free(req);
    return text;
}

START_TEST(test_csr_refused)
{
    struct ca *ca;
    struct ca_agent_cert out;
    setup_dir();
    ck_assert_int_eq(ca_open(dir, "neargpu.local", clock_now_us(), &ca, &err), 0);
    EVP_PKEY *p256 = EVP_EC_gen("P-256"), *other = EVP_EC_gen("P-256");
    EVP_PKEY *p384 = EVP_EC_gen("P-384"), *rsa = EVP_RSA_gen(2048);
    char *bad[] = {xstrdup("hello"), csr_of(p256, other), csr_of(p384, p384),
                   csr_of(rsa, rsa)};
    for (size_t i = 0; i < 4; i++) {
        ck_assert_int_eq(ca_sign_agent(ca, bad[i], URI, clock_now_us(), &out, &err),
                         -1);
        ck_assert_int_eq(err.code, ERR_BAD_REQUEST);
        free(bad[i]);
    }
    char *good = csr_of(p256, p256);
    ck_assert_int_eq(ca_sign_agent(ca, good, URI, clock_now_us(), &out, &err), 0);
    ca_agent_cert_done(&out);
    free(good);
    EVP_PKEY_free(p256);
    EVP_PKEY_free(other);
    EVP_PKEY_free(p384);
    EVP_PKEY_free(rsa);
    ca_free(ca);
    ck_assert_int_eq(fsx_remove_tree(dir, &err), 0);
}
END_TEST

/* ---- the signer ---- */

static struct token_claims *claims_new(int64_t now)
{
    struct token_claims *c = xcalloc(1, sizeof(*c));
    snprintf(c->aud, sizeof(c->aud), "%s", URI);
    snprintf(c->sub, sizeof(c->sub), "01890a5d-ac96-774b-bcce-b302099a8001");
    snprintf(c->client_id, sizeof(c->client_id), "%s", c->sub);
    snprintf(c->jti, sizeof(c->jti), "01890a5d-ac96-774b-bcce-b302099a8002");
    snprintf(c->jkt, sizeof(c->jkt), "0123456789012345678901234567890123456789010");
    c->iat_us = c->nbf_us = now;
    c->exp_us = now + TOKEN_LIFE_US;
    struct token_lease *l = &c->lease;
    snprintf(l->reservation, sizeof(l->reservation),
             "01890a5d-ac96-774b-bcce-b302099a8003");
    l->actions = TOKEN_LAUNCH;
    l->gpu_count = 1;
    snprintf(l->gpus[0], TOKEN_GPU_UUID_MAX, "GPU-1");
    l->not_before_us = now;
    l->not_after_us = now + US_PER_HOUR;
    l->epoch = now;
    return c;
}

START_TEST(test_grant)
{
    int64_t now = clock_now_us() / US_PER_S * US_PER_S;
    struct issuer *is, *again;
    char *text, kid[JWS_KID_MAX], kid_again[JWS_KID_MAX];
    const char *step;
    setup_dir();
    ck_assert_int_eq(
        issuer_open(dir, "https://neargpu.local", clock_now_us(), NULL, &is, &err), 0);
    ck_assert_int_eq(
        issuer_open(dir, "https://neargpu.local", clock_now_us(), NULL, &again, &err),
        0);
    issuer_kid(is, now, kid);
    issuer_kid(again, now, kid_again);
    ck_assert_uint_eq(strlen(kid), 43);
    ck_assert_str_eq(kid, kid_again);
    struct token_claims *c = claims_new(now);
    ck_assert_msg(issuer_grant(is, c, &text, &err) == 0, "%s", err.text);
    json_t *jwks = issuer_jwks(again);
    struct keyring *keys;
    ck_assert_int_eq(keyring_from_jwks(jwks, &keys, &err), 0);
    struct token_check ctx = {.keys = keys,
                              .issuer = "https://neargpu.local",
                              .audience = URI,
                              .now_us = now};
    struct token_claims *got = xcalloc(1, sizeof(*got));
    ck_assert_msg(token_check(text, strlen(text), &ctx, got, &step, &err) == 0,
                  "%s: %s", step, err.text);
    ck_assert_str_eq(got->lease.reservation, c->lease.reservation);
    ck_assert_int_eq(got->lease.not_after_us, c->lease.not_after_us);
    ctx.audience = "spiffe://neargpu.local/site/tokyo/node/other";
    ck_assert_int_eq(token_check(text, strlen(text), &ctx, got, &step, &err), -1);
    free(got);
    free(c);
    free(text);
    json_decref(jwks);
    keyring_free(keys);
    issuer_free(is);
    issuer_free(again);
    ck_assert_int_eq(fsx_remove_tree(dir, &err), 0);
}
END_TEST

START_TEST(test_signer_has_limits)
{
    int64_t now = clock_now_us();
    struct issuer *is;
    char *text;
    setup_dir();
    ck_assert_int_eq(
        issuer_open(dir, "https://neargpu.local", clock_now_us(), NULL, &is, &err), 0);
    for (int i = 0; i < 7; i++) {
        struct token_claims *c = claims_new(now);
        switch (i) {
        case 0: c->jkt[0] = '\0'; break;
        case 1: c->exp_us = now + TOKEN_LIFE_MAX_US + 1; break;
        case 2: c->lease.gpu_count = 0; break;
        case 3: c->lease.not_after_us = c->lease.not_before_us; break;
        case 4:
            c->lease.not_after_us = c->lease.not_before_us + LEASE_MAX_US + 1;
            break;
        case 5: c->lease.actions = 0; break;
        case 6: c->aud[0] = '\0'; break;
        }
        ck_assert_msg(issuer_grant(is, c, &text, &err) == -1, "row %d", i);
        free(c);
    }
    issuer_free(is);
    ck_assert_int_eq(fsx_remove_tree(dir, &err), 0);
}
END_TEST

START_TEST(test_status)
{
    static const char *const revoked[] = {"01890a5d-ac96-774b-bcce-b302099a8009",
                                          "01890a5d-ac96-774b-bcce-b302099a8001"};
    int64_t now = clock_now_us();
    struct issuer *is;
    char *text;
    setup_dir();
    ck_assert_int_eq(
        issuer_open(dir, "https://neargpu.local", clock_now_us(), NULL, &is, &err), 0);
    json_t *epochs = json_pack("{s:I, s:I}", "GPU-2", (json_int_t)now, "GPU-1",
                               (json_int_t)(now - 5));
    struct issuer_status doc = {now, 7, revoked, 2, epochs};
    ck_assert_int_eq(issuer_status(is, &doc, &text, &err), 0);
    json_t *jwks = issuer_jwks(is);
    struct keyring *keys;
    struct token_status got;
    ck_assert_int_eq(keyring_from_jwks(jwks, &keys, &err), 0);
    ck_assert_msg(token_status_check(text, strlen(text), keys, "https://neargpu.local",
                                     &got, &err) == 0,
                  "%s", err.text);
    ck_assert_int_eq(got.seq, 7);
    ck_assert_uint_eq(got.revoked_count, 2);
    ck_assert_str_eq(got.revoked[0], revoked[1]); /* sorted */
    ck_assert_uint_eq(got.min_epoch_count, 2);
    ck_assert_str_eq(got.min_epochs[0].gpu, "GPU-1");
    ck_assert_int_eq(got.min_epochs[0].epoch, now - 5);
    json_decref(epochs);
    token_status_done(&got);
    ck_assert_int_eq(
        token_status_check(text, strlen(text), keys, "https://other", &got, &err), -1);
    free(text);
    json_decref(jwks);
    keyring_free(keys);
    issuer_free(is);
    ck_assert_int_eq(fsx_remove_tree(dir, &err), 0);
}
END_TEST

START_TEST(test_ack)
{
    static const struct {
        const char *reservation, *node, *hash, *prev;
        int64_t seq;
        int rc;
    } rows[] = {
#define H "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
#define R "01890a5d-ac96-774b-bcce-b302099a8003"
        {R, URI, H, H, 2, 0},
        {R, URI, H, "", 1, 0},
        {R, URI, H, "", 2, -1}, /* the chain has a beginning, once */
        {R, URI, H, H, 0, -1},
        {R, URI, "", H, 2, -1},
        {R, URI, "00", H, 2, -1},
        {"x", URI, H, H, 2, -1},
        {R, "spiffe://other.local/site/tokyo/node/n1", H, H, 2, -1},
        {R, "spiffe://neargpu.local.evil/site/tokyo/node/n1", H, H, 2, -1},
    };
    int64_t now = clock_now_us();
    struct issuer *is;
    setup_dir();
    ck_assert_int_eq(issuer_open(dir, "https://neargpu.local", now, NULL, &is, &err),
                     0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct issuer_ack ack = {now,         rows[i].reservation, rows[i].node,
                                 rows[i].seq, rows[i].hash,        rows[i].prev};
        char *text = NULL;
        ck_assert_msg(issuer_ack(is, &ack, &text, &err) == rows[i].rc, "row %zu", i);
        if (rows[i].rc != 0)
            continue;
        struct jws_parts parts;
        const char *step;
        ck_assert_int_eq(jws_split(text, strlen(text), &parts, &step, &err), 0);
        ck_assert_str_eq(parts.typ, JWS_TYP_ACK);
        ck_assert_ptr_nonnull(strstr(parts.payload, "\"hash\":\"" H "\""));
        jws_parts_done(&parts);
        free(text);
    }
    issuer_free(is);
    ck_assert_int_eq(fsx_remove_tree(dir, &err), 0);
}
END_TEST

UNIT_MAIN("issuer", UNIT_CASE(test_ca_is_kept) UNIT_CASE(test_server_certificate)
                        UNIT_CASE(test_agent_certificate) UNIT_CASE(test_csr_refused)
                            UNIT_CASE(test_grant) UNIT_CASE(test_signer_has_limits)
                                UNIT_CASE(test_status) UNIT_CASE(test_ack))
