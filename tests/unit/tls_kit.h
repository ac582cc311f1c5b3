/* tls_kit: certificates made on the spot, and a small real TLS server on loopback that
 * answers HTTP by path, a thread a connection: what tests of TLS and HTTP clients need.
 * Files lie in a directory of its own that tls_kit_done() removes. */
#ifndef NEARGPU_TLS_KIT_H
#define NEARGPU_TLS_KIT_H
#include <arpa/inet.h>
#include <check.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/lib/fsx.h"
#include "client/lib/tlsx.h"

struct tls_kit {
    char dir[40];
    EVP_PKEY *ca_key;
    X509 *ca;
};

static inline const char *tls_kit_path(const struct tls_kit *k, const char *name)
{
    static _Thread_local char path[6][120];
    static _Thread_local int turn;
    turn = (turn + 1) % 6;
    snprintf(path[turn], sizeof(path[0]), "%s/%s", k->dir, name);
    return path[turn];
}

/* A P-256 certificate for pub, signed by issuer's key; san as in openssl's text form.
 */
static inline X509 *tls_kit_cert(const char *name, const char *san, EVP_PKEY *pub,
                                 X509 *issuer, EVP_PKEY *issuer_key)
{
    static long serial = 1;
    X509 *x = X509_new();
    X509_set_version(x, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(x), serial++);
    X509_gmtime_adj(X509_getm_notBefore(x), -60);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_set_pubkey(x, pub);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC,
                               (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(issuer == NULL ? x : issuer));
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer == NULL ? x : issuer, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(
        NULL, &ctx, san == NULL ? NID_basic_constraints : NID_subject_alt_name,
        san == NULL ? "critical,CA:TRUE" : san);
    ck_assert_ptr_nonnull(e);
    X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
    ck_assert_int_gt(X509_sign(x, issuer_key, EVP_sha256()), 0);
    return x;
}

static inline void tls_kit_write(const struct tls_kit *k, const char *name, X509 *cert,
                                 EVP_PKEY *key)
{
    char *data;
    struct err err;
    BIO *bio = BIO_new(BIO_s_mem());
    if (cert != NULL)
        PEM_write_bio_X509(bio, cert);
    else
        PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL);
    long len = BIO_get_mem_data(bio, &data);
    ck_assert_msg(fsx_write(tls_kit_path(k, name), data, (size_t)len, 0600, &err) == 0,
                  "%s", err.text);
    BIO_free(bio);
}

/* NAME.pem and NAME.key, signed by the kit's CA. */
static inline void tls_kit_issue(struct tls_kit *k, const char *name, const char *san)
{
    char file[60];
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *cert = tls_kit_cert(name, san, key, k->ca, k->ca_key);
    snprintf(file, sizeof(file), "%s.pem", name);
    tls_kit_write(k, file, cert, NULL);
    snprintf(file, sizeof(file), "%s.key", name);
    tls_kit_write(k, file, NULL, key);
    X509_free(cert);
    EVP_PKEY_free(key);
}

static inline void tls_kit_init(struct tls_kit *k)
{
    memcpy(k->dir, "/tmp/test_tls.XXXXXX", 21);
    ck_assert_ptr_nonnull(mkdtemp(k->dir));
    k->ca_key = EVP_EC_gen("P-256");
    k->ca = tls_kit_cert("test CA", NULL, k->ca_key, NULL, k->ca_key);
    tls_kit_write(k, "ca.pem", k->ca, NULL);
}

static inline void tls_kit_done(struct tls_kit *k)
{
    X509_free(k->ca);
    EVP_PKEY_free(k->ca_key);
    ck_assert_int_eq(fsx_remove_tree(k->dir, NULL), 0);
}

/* What a connection's thread does with each accepted TLS connection. */
struct tls_server;
typedef void tls_serve_fn(struct tls_server *s, SSL *ssl, int connection);

struct tls_server {
    SSL_CTX *ctx;
    int listener;
    unsigned short port;
    tls_serve_fn *serve;
    pthread_t thread;
    atomic_int connections, requests, busy;
    atomic_bool drop_before_tls;
};

struct tls_connection {
    struct tls_server *s;
    int fd, number;
};

static inline void *tls_server_connection(void *arg)
{
    struct tls_connection c = *(struct tls_connection *)arg;
    free(arg);
    SSL *ssl = SSL_new(c.s->ctx);
    SSL_set_fd(ssl, c.fd);
    if (!c.s->drop_before_tls && SSL_accept(ssl) == 1) {
        c.s->serve(c.s, ssl, c.number);
        SSL_shutdown(ssl);
    }
    SSL_free(ssl);
    close(c.fd);
    c.s->busy--;
    return NULL;
}

static inline void *tls_server_main(void *arg)
{
    struct tls_server *s = arg;
    for (;;) {
        int fd = accept(s->listener, NULL, NULL);
        if (fd < 0)
            return NULL; /* shut down */
        struct tls_connection *c = malloc(sizeof(*c));
        *c = (struct tls_connection){s, fd, ++s->connections};
        pthread_t t;
        s->busy++;
        pthread_create(&t, NULL, tls_server_connection, c);
        pthread_detach(t);
    }
}

static inline void tls_server_start(struct tls_server *s, SSL_CTX *ctx,
                                    tls_serve_fn *serve)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    *s = (struct tls_server){.ctx = ctx, .serve = serve};
    s->listener = socket(AF_INET, SOCK_STREAM, 0);
    ck_assert_int_eq(bind(s->listener, (struct sockaddr *)&a, sizeof(a)), 0);
    ck_assert_int_eq(listen(s->listener, 64), 0);
    ck_assert_int_eq(getsockname(s->listener, (struct sockaddr *)&a, &len), 0);
    s->port = ntohs(a.sin_port);
    ck_assert_int_eq(pthread_create(&s->thread, NULL, tls_server_main, s), 0);
}

/* Connections must be over by now: clients close first. */
static inline void tls_server_stop(struct tls_server *s)
{
    shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->listener);
    for (int i = 0; i < 500 && s->busy > 0; i++)
        poll(NULL, 0, 10);
    SSL_CTX_free(s->ctx);
}

#endif
