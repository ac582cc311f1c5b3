/* test_tlsx: real handshakes over a socket pair between the contexts of tlsx: who is
 * let in, by which version, under which name. */
#include <openssl/err.h>
#include <sys/stat.h>

#include "client/lib/b64.h"
#include "client/lib/digest.h"
#include "tests/unit/tls_kit.h"
#include "tests/unit/unit.h"

#define SPIFFE "spiffe://neargpu.local/site/fukuoka/node/n1"

static struct tls_kit kit;

static void setup(void)
{
    tls_kit_init(&kit);
    tls_kit_issue(&kit, "server", "IP:127.0.0.1,DNS:localhost");
    tls_kit_issue(&kit, "node", "URI:" SPIFFE ",DNS:n1");
    tls_kit_issue(&kit, "twofold", "URI:" SPIFFE ",URI:spiffe://x");
    tls_kit_issue(&kit, "nameless", "DNS:n1");
}

static void teardown(void)
{
    tls_kit_done(&kit);
}

static struct tlsx_files files(const char *ca, const char *name)
{
    struct tlsx_files f = {0};
    char file[60];
    if (ca != NULL)
        f.ca_file = tls_kit_path(&kit, ca);
    if (name != NULL) {
        snprintf(file, sizeof(file), "%s.pem", name);
        f.cert_file = tls_kit_path(&kit, file);
        snprintf(file, sizeof(file), "%s.key", name);
        f.key_file = tls_kit_path(&kit, file);
    }
    return f;
}

static SSL_CTX *server_ctx(bool ask)
{
    SSL_CTX *ctx;
    struct err err;
    struct tlsx_files f = files("ca.pem", "server");
    ck_assert_msg(tlsx_server_ctx(&f, ask, &ctx, &err) == 0, "%s", err.text);
    return ctx;
}

static SSL_CTX *client_ctx(const char *name)
{
    SSL_CTX *ctx;
    struct err err;
    struct tlsx_files f = files("ca.pem", name);
    ck_assert_msg(tlsx_client_ctx(&f, &ctx, &err) == 0, "%s", err.text);
    return ctx;
}

/* What the server saw of the client. */
struct seen {
    bool ok;
    char uri[100], thumbprint[60];
};

/* One handshake and one byte each way, so that TLS 1.3's late alerts arrive. */
static bool handshake(SSL_CTX *server, SSL_CTX *client, struct seen *seen)
{
    int fd[2];
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    SSL *s = SSL_new(server), *c = SSL_new(client);
    SSL_set_fd(s, fd[0]);
    SSL_set_fd(c, fd[1]);
    int sr = 0, cr = 0;
    for (int i = 0; i < 20 && (sr != 1 || cr != 1); i++) {
        if (cr != 1)
            cr = SSL_connect(c);
        if (sr != 1)
            sr = SSL_accept(s);
    }
    char byte = 'x';
    seen->ok = sr == 1 && cr == 1 && SSL_write(s, &byte, 1) == 1 &&
               SSL_read(c, &byte, 1) == 1 && SSL_write(c, &byte, 1) == 1 &&
               SSL_read(s, &byte, 1) == 1;
    seen->uri[0] = seen->thumbprint[0] = '\0';
    if (seen->ok) {
        ck_assert_str_eq(SSL_get_version(c), "TLSv1.3");
        tlsx_peer_uri(s, seen->uri, sizeof(seen->uri));
        tlsx_peer_thumbprint(s, seen->thumbprint, sizeof(seen->thumbprint));
    }
    SSL_free(s);
    SSL_free(c);
    close(fd[0]);
    close(fd[1]);
    ERR_clear_error();
    return seen->ok;
}

START_TEST(test_names)
{
    static const struct {
        const char *client; /* NULL: no certificate */
        bool ask, ok;
        const char *uri;
        bool thumbprint;
    } table[] = {
        {NULL, false, true, "", false},     {NULL, true, true, "", false},
        {"node", true, true, SPIFFE, true}, {"twofold", true, true, "", true},
        {"nameless", true, true, "", true}, {"node", false, true, "", false},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        SSL_CTX *s = server_ctx(table[i].ask), *c = client_ctx(table[i].client);
        struct seen seen;
        ck_assert_msg(handshake(s, c, &seen) == table[i].ok, "row %zu", i);
        ck_assert_str_eq(seen.uri, table[i].uri);
        ck_assert_uint_eq(strlen(seen.thumbprint), table[i].thumbprint ? 43 : 0);
        SSL_CTX_free(s);
        SSL_CTX_free(c);
    }
}
END_TEST

START_TEST(test_thumbprint)
{
    FILE *f = fopen(tls_kit_path(&kit, "node.pem"), "r");
    X509 *x = PEM_read_X509(f, NULL, NULL, NULL);
    fclose(f);
    uint8_t *der = NULL, hash[SHA256_LEN];
    int len = i2d_X509(x, &der);
    digest_sha256(der, (size_t)len, hash);
    char want[60];
    b64_encode(hash, sizeof(hash), want);
    SSL_CTX *s = server_ctx(true), *c = client_ctx("node");
    struct seen seen;
    ck_assert(handshake(s, c, &seen));
    ck_assert_str_eq(seen.thumbprint, want);
    SSL_CTX_free(s);
    SSL_CTX_free(c);
    OPENSSL_free(der);
    X509_free(x);
}
END_TEST

START_TEST(test_strangers_are_refused)
{
    struct tls_kit other;
    struct seen seen;
    tls_kit_init(&other);
    tls_kit_issue(&other, "stranger", "URI:" SPIFFE);
    /* A client of another CA at our server. */
    struct tlsx_files f = {.ca_file = tls_kit_path(&kit, "ca.pem"),
                           .cert_file = tls_kit_path(&other, "stranger.pem"),
                           .key_file = tls_kit_path(&other, "stranger.key")};
    SSL_CTX *c, *s = server_ctx(true);
    ck_assert_int_eq(tlsx_client_ctx(&f, &c, NULL), 0);
    ck_assert(!handshake(s, c, &seen));
    SSL_CTX_free(s);
    SSL_CTX_free(c);
    /* A server of another CA before our client. */
    ck_assert_int_eq(tlsx_server_ctx(&f, false, &s, NULL), 0);
    c = client_ctx(NULL);
    ck_assert(!handshake(s, c, &seen));
    SSL_CTX_free(s);
    SSL_CTX_free(c);
    tls_kit_done(&other);
}
END_TEST

START_TEST(test_only_tls13)
{
    struct seen seen;
    SSL_CTX *s = server_ctx(false), *c = client_ctx(NULL);
    SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION);
    SSL_CTX_set_max_proto_version(c, TLS1_2_VERSION);
    ck_assert(!handshake(s, c, &seen));
    SSL_CTX_free(c);
    c = client_ctx(NULL);
    SSL_CTX_set_min_proto_version(s, TLS1_2_VERSION);
    SSL_CTX_set_max_proto_version(s, TLS1_2_VERSION);
    ck_assert(!handshake(s, c, &seen));
    SSL_CTX_free(s);
    SSL_CTX_free(c);
}
END_TEST

START_TEST(test_files_refused)
{
    SSL_CTX *ctx = NULL;
    struct err err;
    struct tlsx_files f = files("none.pem", "server");
    ck_assert_int_eq(tlsx_server_ctx(&f, true, &ctx, &err), -1);
    f = files("ca.pem", NULL);
    ck_assert_int_eq(tlsx_server_ctx(&f, true, &ctx, &err), -1);
    f = files(NULL, "server");
    ck_assert_int_eq(tlsx_server_ctx(&f, true, &ctx, &err), -1);
    f = files("ca.pem", "server");
    f.key_file = tls_kit_path(&kit, "node.key");
    ck_assert_int_eq(tlsx_server_ctx(&f, false, &ctx, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "does not fit the certificate"));
    f.key_file = NULL;
    ck_assert_int_eq(tlsx_client_ctx(&f, &ctx, &err), -1);
    f = files("ca.pem", "server");
    ck_assert_int_eq(chmod(f.key_file, 0644), 0);
    ck_assert_int_eq(tlsx_server_ctx(&f, false, &ctx, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "chmod 600"));
    ck_assert_ptr_null(ctx);
}
END_TEST

START_TEST(test_csr)
{
    char *key_pem, *csr_pem;
    struct err err;
    static const char uri[] = "spiffe://m/site/a,DNS:evil/node/b";
    ck_assert_msg(tlsx_make_csr(uri, &key_pem, &csr_pem, &err) == 0, "%s", err.text);
    BIO *bio = BIO_new_mem_buf(csr_pem, -1);
    X509_REQ *req = PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL);
    ck_assert_ptr_nonnull(req);
    BIO_free(bio);
    EVP_PKEY *pub = X509_REQ_get0_pubkey(req);
    ck_assert_int_eq(X509_REQ_verify(req, pub), 1);
    bio = BIO_new_mem_buf(key_pem, -1);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    BIO_free(bio);
    ck_assert_int_eq(EVP_PKEY_eq(key, pub), 1);
    STACK_OF(X509_EXTENSION) *exts = X509_REQ_get_extensions(req);
    ck_assert_int_eq(sk_X509_EXTENSION_num(exts), 1);
    GENERAL_NAMES *names = X509V3_EXT_d2i(sk_X509_EXTENSION_value(exts, 0));
    ck_assert_int_eq(sk_GENERAL_NAME_num(names), 1);
    const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, 0);
    ck_assert_int_eq(name->type, GEN_URI);
    ck_assert_int_eq(ASN1_STRING_length(name->d.uniformResourceIdentifier),
                     (int)strlen(uri));
    ck_assert_mem_eq(ASN1_STRING_get0_data(name->d.uniformResourceIdentifier), uri,
                     strlen(uri));
    GENERAL_NAMES_free(names);
    sk_X509_EXTENSION_pop_free(exts, X509_EXTENSION_free);
    EVP_PKEY_free(key);
    X509_REQ_free(req);
    free(key_pem);
    free(csr_pem);
    ck_assert_int_eq(tlsx_make_csr("a b", &key_pem, &csr_pem, &err), -1);
    ck_assert_int_eq(tlsx_make_csr("n\xc3\xa9", &key_pem, &csr_pem, &err), -1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("tlsx");
    TCase *tc = tcase_create("tlsx");
    tcase_add_checked_fixture(tc, setup, teardown);
    tcase_add_test(tc, test_names);
    tcase_add_test(tc, test_thumbprint);
    tcase_add_test(tc, test_strangers_are_refused);
    tcase_add_test(tc, test_only_tls13);
    tcase_add_test(tc, test_files_refused);
    tcase_add_test(tc, test_csr);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
