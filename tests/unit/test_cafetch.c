/* cafetch: the CA of a real TLS server on loopback that nobody trusts yet. */
#include <signal.h>
#include <stdlib.h>

#include "client/lib/cafetch.h"
#include "tests/unit/tls_kit.h"
#include "tests/unit/unit.h"

struct fixture {
    struct tls_kit kit;
    struct tls_server server;
    char url[64], *ca_pem, print[SHA256_HEX];
};

static void say_nothing(struct tls_server *s, SSL *ssl, int connection)
{
    char c;
    (void)s, (void)connection;
    while (SSL_read(ssl, &c, 1) > 0)
        ;
}

/* A server that shows its certificate and, unless NULL, this one behind it. */
static void setup(struct fixture *f, X509 *(*shown)(struct fixture *f))
{
    struct err err;
    SSL_CTX *ctx;
    (void)signal(SIGPIPE, SIG_IGN); /* as the programs do: peers hang up */
    tls_kit_init(&f->kit);
    tls_kit_issue(&f->kit, "server", "IP:127.0.0.1");
    struct tlsx_files files = {NULL, tls_kit_path(&f->kit, "server.pem"),
                               tls_kit_path(&f->kit, "server.key")};
    ck_assert_msg(tlsx_server_ctx(&files, false, &ctx, &err) == 0, "%s", err.text);
    if (shown != NULL) {
        X509 *x = shown(f);
        ck_assert_int_eq(SSL_CTX_add1_chain_cert(ctx, x), 1);
        X509_free(x);
    }
    ck_assert_int_eq(
        fsx_read(tls_kit_path(&f->kit, "ca.pem"), 65536, &f->ca_pem, NULL, &err), 0);
    ck_assert_int_eq(cafetch_sha256(f->ca_pem, f->print, &err), 0);
    tls_server_start(&f->server, ctx, say_nothing);
    snprintf(f->url, sizeof(f->url), "https://127.0.0.1:%d", f->server.port);
}

static void teardown(struct fixture *f)
{
    tls_server_stop(&f->server);
    tls_kit_done(&f->kit);
    free(f->ca_pem);
}

static X509 *the_ca(struct fixture *f)
{
    X509_up_ref(f->kit.ca);
    return f->kit.ca;
}

/* Self-signed under the same name, but its key has signed nothing else. */
static X509 *another_ca(struct fixture *f)
{
    (void)f;
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = tls_kit_cert("test CA", NULL, key, NULL, key);
    EVP_PKEY_free(key);
    return x;
}

START_TEST(test_found)
{
    struct fixture f;
    struct err err;
    char *pem = NULL;
    setup(&f, the_ca);
    ck_assert_msg(cafetch(f.url, NULL, &pem, &err) == 0, "%s", err.text);
    ck_assert_str_eq(pem, f.ca_pem);
    free(pem);
    ck_assert_msg(cafetch(f.url, f.print, &pem, &err) == 0, "%s", err.text);
    ck_assert_str_eq(pem, f.ca_pem);
    free(pem);
    teardown(&f);
}
END_TEST

static void expect(struct fixture *f, const char *print, enum err_code code)
{
    struct err err;
    char *pem = NULL;
    ck_assert_int_eq(cafetch(f->url, print, &pem, &err), -1);
    ck_assert_msg(err.code == code, "%s", err.text);
    ck_assert_ptr_null(pem);
}

START_TEST(test_refused)
{
    struct fixture f;
    setup(&f, the_ca);
    expect(&f, "5f3c", ERR_USAGE);
    f.print[0] = f.print[0] == '0' ? '1' : '0';
    expect(&f, f.print, ERR_FORBIDDEN);
    f.print[0] = 'g';
    expect(&f, f.print, ERR_USAGE);
    snprintf(f.url, sizeof(f.url), "http://127.0.0.1:%d", f.server.port);
    expect(&f, NULL, ERR_USAGE);
    teardown(&f);
}
END_TEST

START_TEST(test_not_shown)
{
    struct fixture f;
    setup(&f, NULL);
    expect(&f, NULL, ERR_NOT_FOUND);
    expect(&f, f.print, ERR_FORBIDDEN);
    teardown(&f);
    setup(&f, another_ca);
    expect(&f, NULL, ERR_NOT_FOUND);
    expect(&f, f.print, ERR_FORBIDDEN);
    teardown(&f);
}
END_TEST

UNIT_MAIN("cafetch",
          UNIT_CASE(test_found) UNIT_CASE(test_refused) UNIT_CASE(test_not_shown))
