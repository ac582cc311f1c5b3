/* warden: what a front may ask of it, and that a front which was taken over gets no
 * further than a tenant without his key. */
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/agent/warden_impl.h"
#include "client/lib/digest.h"
#include "client/lib/frame.h"
#include "client/lib/keyset.h"
#include "tests/unit/agent_rig.h"

struct bench {
    struct rig r;
    struct warden w;
    struct link *front; /* what hears the warden's answers */
    json_t *nonce, *answer;
    size_t answers, fetches;
};

static int front_takes(void *arg, enum link_kind kind, const json_t *doc, int fd_take,
                       struct err *err)
{
    struct bench *b = arg;
    if (kind == LINK_FETCH) {
        b->fetches++;
        return 0;
    }
    json_t **at = kind == LINK_NONCE ? &b->nonce : &b->answer;
    (void)err;
    ck_assert(kind == LINK_NONCE || kind == LINK_ANSWER);
    ck_assert_int_eq(fd_take, -1);
    json_decref(*at);
    *at = json_incref((json_t *)(uintptr_t)doc);
    b->answers += kind == LINK_ANSWER;
    return 0;
}

static int never(void *arg, enum link_kind kind, const json_t *doc, int fd_take,
                 struct err *err)
{
    (void)arg;
    (void)kind;
    (void)doc;
    (void)fd_take;
    return err_set(err, ERR_INTERNAL, "the front said something");
}

static void over(void *arg, const struct err *why)
{
    (void)arg;
    ck_abort_msg("%s", why->text);
}

static void bench_init(struct bench *b)
{
    int fds[2];
    memset(b, 0, sizeof(*b));
    rig_init(&b->r);
    b->r.a.base = event_base_new();
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    struct link_conf front = {LINK_FRONT, front_takes, over, b};
    struct link_conf warden = {LINK_WARDEN, never, over, b};
    b->w.a = &b->r.a;
    b->w.link = link_new(b->r.a.base, fds[0], &warden);
    b->front = link_new(b->r.a.base, fds[1], &front);
    b->w.up = true;
    b->w.socket_path = xasprintf("%s/agent.sock", b->r.dir);
    warden_sync_new(&b->w);
}

static void bench_done(struct bench *b)
{
    warden_run_free(&b->w);
    warden_sync_free(&b->w);
    link_free(b->w.link);
    link_free(b->front);
    free(b->w.socket_path);
    json_decref(b->nonce);
    json_decref(b->answer);
    event_base_free(b->r.a.base);
    rig_done(&b->r);
}

static void turn(struct bench *b)
{
    for (int i = 0; i < 20; i++)
        event_base_loop(b->r.a.base, EVLOOP_NONBLOCK);
}

static int greet_over(struct bench *b, int64_t id, int fd_take)
{
    struct err err;
    json_t *o = json_pack("{s:I,s:b}", "client", (json_int_t)id, "fd", fd_take >= 0);
    int rc = warden_take_greet(&b->w, o, fd_take, &err);
    json_decref(o);
    turn(b);
    return rc;
}

static int greet(struct bench *b, int64_t id)
{
    return greet_over(b, id, -1);
}

static int gone(struct bench *b, int64_t id)
{
    struct err err;
    json_t *o = json_pack("{s:I}", "client", (json_int_t)id);
    int rc = warden_take_gone(&b->w, o, &err);
    json_decref(o);
    return rc;
}

static char *sign(EVP_PKEY *key, const char *typ, json_t *take)
{
    char *text;
    struct err err;
    ck_assert_msg(jws_sign(key, typ, take, &text, &err) == 0, "%s", err.text);
    json_decref(take);
    return text;
}

/* A request of the kind 'k' (stop), with the tenant's grant and his proof over a nonce.
 */
static char *stop_request(struct bench *b, EVP_PKEY *prover, const char *nonce)
{
    struct token_pop p = {.iat_us = KIT_NOW + US_PER_S};
    uint8_t pub[JWS_ED25519_LEN], hash[SHA256_LEN];
    struct err err;
    char *token = sign(b->r.kit.key, JWS_TYP_GRANT, token_build(&b->r.claims));
    snprintf(p.nonce, sizeof(p.nonce), "%s", nonce);
    snprintf(p.aud, sizeof(p.aud), "%s", KIT_NODE);
    snprintf(p.action, sizeof(p.action), "stop");
    token_argv_hash(NULL, 0, p.argv_hash);
    digest_sha256(token, strlen(token), hash);
    b64_encode(hash, sizeof(hash), p.ath);
    ck_assert_int_eq(jws_public(prover, pub, &err), 0);
    char *proof = sign(prover, JWS_TYP_POP, token_pop_build(&p, pub));
    json_t *o = json_pack("{s:s,s:s}", "token", token, "proof", proof);
    char *text = jsonx_dump(o);
    json_decref(o);
    free(token);
    free(proof);
    return text;
}

static int request(struct bench *b, int64_t id, const char *type, const char *payload)
{
    struct err err;
    json_t *o = json_pack("{s:I,s:s,s:s}", "client", (json_int_t)id, "type", type,
                          "payload", payload);
    int rc = warden_take_request(&b->w, o, &err);
    json_decref(o);
    turn(b);
    return rc;
}

/* "" when it was served, else the step of the refusal. */
static const char *step_of(const struct bench *b)
{
    const json_t *payload = json_object_get(b->answer, "payload");
    const char *step = json_string_value(json_object_get(payload, "step"));
    return step != NULL ? step : "";
}

static const char *nonce_of(const struct bench *b)
{
    return json_string_value(json_object_get(b->nonce, "nonce"));
}

START_TEST(test_a_tenant_is_served)
{
    struct bench b;
    bench_init(&b);
    rig_lease(&b.r);
    ck_assert_int_eq(greet(&b, 1), 0);
    char *text = stop_request(&b, b.r.tenant, nonce_of(&b));
    ck_assert_int_eq(request(&b, 1, "k", text), 0);
    ck_assert_str_eq(step_of(&b), "");
    ck_assert_int_ne(rig_state(&b.r), LEASE_READY);
    ck_assert_int_eq(gone(&b, 1), 0);
    free(text);
    bench_done(&b);
}
END_TEST

START_TEST(test_nonces)
{
    struct bench b;
    char first[JWS_KID_MAX];
    bench_init(&b);
    rig_lease(&b.r);
    ck_assert_int_eq(greet(&b, 1), 0);
    snprintf(first, sizeof(first), "%s", nonce_of(&b));
    ck_assert_int_eq(greet(&b, 2), 0);
    ck_assert_str_ne(first, nonce_of(&b));
    /* A proof that was heard on one connection is worth nothing on another. */
    char *text = stop_request(&b, b.r.tenant, first);
    ck_assert_int_eq(request(&b, 2, "k", text), 0);
    ck_assert_str_eq(step_of(&b), "possession");
    /* Nor a proof by anyone else, over the right nonce. */
    ck_assert_int_eq(greet(&b, 3), 0);
    char *foreign = stop_request(&b, b.r.kit.key, nonce_of(&b));
    ck_assert_int_eq(request(&b, 3, "k", foreign), 0);
    ck_assert_str_eq(step_of(&b), "possession");
    ck_assert_int_eq(rig_state(&b.r), LEASE_READY);
    /* Each is used up by its first request: a second one is no honest front's. */
    ck_assert_int_eq(request(&b, 2, "k", text), -1);
    ck_assert_int_eq(rig_state(&b.r), LEASE_READY);
    ck_assert_int_eq(request(&b, 1, "k", text), 0);
    ck_assert_str_eq(step_of(&b), "");
    ck_assert_int_eq(request(&b, 1, "k", text), -1);
    ck_assert_uint_eq(b.answers, 3);
    free(text);
    free(foreign);
    bench_done(&b);
}
END_TEST

START_TEST(test_what_no_front_says)
{
    struct bench b;
    struct err err;
    bench_init(&b);
    ck_assert_int_eq(gone(&b, 7), -1);
    ck_assert_int_eq(request(&b, 7, "k", "{}"), -1);
    ck_assert_int_eq(greet(&b, 0), -1);
    ck_assert_int_eq(greet(&b, -1), -1);
    ck_assert_int_eq(greet(&b, 7), 0);
    ck_assert_int_eq(greet(&b, 7), -1);
    ck_assert_int_eq(request(&b, 7, "kk", "{}"), -1);
    /* Who he is does not lie with the front. */
    json_t *more = json_pack("{s:i,s:s,s:s,s:i}", "client", 7, "type", "k", "payload",
                             "{}", "uid", 0);
    ck_assert_int_eq(warden_take_request(&b.w, more, &err), -1);
    json_decref(more);
    ck_assert_int_eq(request(&b, 7, "z", "rubbish"), 0); /* a tenant's, that is */
    ck_assert_str_eq(step_of(&b), "request");
    for (int i = 100; b.w.client_count < WARDEN_CLIENTS_MAX; i++)
        ck_assert_int_eq(greet(&b, i), 0);
    ck_assert_int_eq(greet(&b, 9999), -1);
    bench_done(&b);
}
END_TEST

START_TEST(test_receipts_nobody_asked_for)
{
    struct bench b;
    struct err err;
    bench_init(&b);
    json_t *o = json_pack("{s:[{s:s,s:i,s:s}]}", "countersigns", "reservation", KIT_RES,
                          "seq", 1, "countersign", "x");
    ck_assert_int_eq(warden_take_acked(&b.w, o, &err), -1);
    b.w.posting = true;
    ck_assert_int_eq(warden_take_acked(&b.w, o, &err), 0);
    ck_assert(!b.w.posting);
    json_decref(o);
    o = json_pack("{s:{}}", "body");
    ck_assert_int_eq(warden_take_reply(&b.w, o, &err), -1);
    json_decref(o);
    bench_done(&b);
}
END_TEST

/* --- who is at the other end --- */

/* A connection to a socket of this name; what accept() gave is returned. */
static int connection(const char *path, int *ret_client)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(at.sun_path, sizeof(at.sun_path), "%s", path);
    (void)unlink(path);
    ck_assert_int_eq(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
    ck_assert_int_eq(listen(listener, 1), 0);
    *ret_client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ck_assert_int_eq(connect(*ret_client, (struct sockaddr *)&at, sizeof(at)), 0);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    ck_assert_int_ge(fd, 0);
    close(listener);
    return fd;
}

static char *other_path(const struct bench *b)
{
    return xasprintf("%s/other.sock", b->r.dir);
}

/* The warden asks the kernel who it is, and he alone hears the nonce. */
START_TEST(test_a_local_peer)
{
    struct bench b;
    struct frame_reader in;
    struct frame f;
    struct err err;
    char bytes[1024];
    int client;
    bench_init(&b);
    rig_lease(&b.r);
    int fd = connection(b.w.socket_path, &client);
    ck_assert_int_eq(greet_over(&b, 1, fd), 0);
    ck_assert_int_eq(b.w.client_count, 1);
    ck_assert_ptr_nonnull(b.nonce);
    ck_assert_ptr_null(json_object_get(b.nonce, "nonce"));
    ssize_t n = recv(client, bytes, sizeof(bytes), MSG_DONTWAIT);
    ck_assert_int_gt(n, 0);
    frame_reader_init(&in);
    frame_feed(&in, bytes, (size_t)n);
    ck_assert_int_eq(frame_next(&in, &f, &err), 1);
    ck_assert_int_eq(f.type, 'n');
    json_t *said = json_loadb((const char *)f.data, f.len, 0, NULL);
    const char *nonce = json_string_value(json_object_get(said, "nonce"));
    ck_assert_ptr_nonnull(nonce);
    char *text = stop_request(&b, b.r.tenant, nonce);
    ck_assert_int_eq(request(&b, 1, "k", text), 0);
    ck_assert_str_eq(step_of(&b), "");
    free(text);
    json_decref(said);
    frame_reader_done(&in);
    close(client);
    bench_done(&b);
}
END_TEST

/* What else a front has, or could make, is not taken for somebody at the socket. */
START_TEST(test_false_peers)
{
    struct bench b;
    int pair[2], client;
    bench_init(&b);
    char *other = other_path(&b);
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    ck_assert_int_eq(greet_over(&b, 1, pair[0]), -1);
    close(pair[1]);
    ck_assert_int_eq(pipe2(pair, O_CLOEXEC), 0);
    ck_assert_int_eq(greet_over(&b, 2, pair[0]), -1);
    close(pair[1]);
    ck_assert_int_eq(greet_over(&b, 3, socket(AF_INET, SOCK_STREAM, 0)), -1);
    ck_assert_int_eq(greet_over(&b, 4, connection(other, &client)), -1);
    close(client);
    int fd = connection(b.w.socket_path, &client);
    ck_assert_int_eq(greet_over(&b, 5, client), -1); /* the wrong end of it */
    close(fd);
    ck_assert_uint_eq(b.w.client_count, 0);
    ck_assert_ptr_null(b.nonce);
    free(other);
    bench_done(&b);
}
END_TEST

/* --- countersigns --- */

static void receipt(struct bench *b, enum usage_kind kind, int64_t s)
{
    struct usage_point p = {.kind = kind,
                            .issuer = KIT_NODE,
                            .now_us = KIT_NOW + s * US_PER_S,
                            .boot_us = s * US_PER_S,
                            .boot_id = "b1",
                            .gpus = b->r.claims.lease.gpus,
                            .gpu_count = 1,
                            .epoch = 1};
    struct err err;
    ck_assert_msg(spool_add(b->r.a.spool, KIT_RES, &p, &err) == 0, "%s", err.text);
}

struct ack { /* what of it is false; all NULL and 0: nothing */
    const char *iss, *node, *reservation, *hash, *typ;
    int64_t seq;
    bool foreign;
};

static void acked(struct bench *b, const struct ack *a)
{
    char hash[SHA256_HEX];
    struct err err;
    ck_assert_int_eq(spool_hash(b->r.a.spool, KIT_RES, 2, hash, &err), 0);
    char *text = sign(
        a->foreign ? b->r.tenant : b->r.kit.key, a->typ != NULL ? a->typ : JWS_TYP_ACK,
        json_pack("{s:s,s:I,s:s,s:s,s:I,s:s,s:s}", "iss",
                  a->iss != NULL ? a->iss : KIT_ISSUER, "iat", (json_int_t)1,
                  "reservation", a->reservation != NULL ? a->reservation : KIT_RES,
                  "node", a->node != NULL ? a->node : KIT_NODE, "seq",
                  (json_int_t)(a->seq != 0 ? a->seq : 2), "hash",
                  a->hash != NULL ? a->hash : hash, "prev_hash", hash));
    json_t *o = json_pack("{s:[{s:s,s:i,s:s}],s:[]}", "countersigns", "reservation",
                          KIT_RES, "seq", 2, "countersign", text, "rejected");
    b->w.posting = true;
    ck_assert_int_eq(warden_take_acked(&b->w, o, &err), 0);
    json_decref(o);
    free(text);
}

static size_t pending(struct bench *b)
{
    json_t *list = spool_pending(b->r.a.spool, SPOOL_BATCH_MAX, 0);
    size_t n = json_array_size(list);
    json_decref(list);
    return n;
}

/* A front that was taken over says that the market has what it never sent: nothing is
 * dropped but on the market's own signature over that very receipt. */
START_TEST(test_false_acks)
{
    static const char other[] =
        "0000000000000000000000000000000000000000000000000000000000000000";
    static const struct ack lies[] = {
        {.foreign = true},
        {.iss = "https://other.local"},
        {.node = "spiffe://neargpu.local/site/fukuoka/node/n2"},
        {.reservation = "019307d0-7b3a-7c3e-8a5b-0123456789ff"},
        {.hash = other},
        {.typ = JWS_TYP_USAGE},
        {.seq = 1},
        {.seq = 3},
    };
    struct bench b;
    struct err err;
    bench_init(&b);
    receipt(&b, USAGE_READY, 0);
    receipt(&b, USAGE_INTERVAL, 60);
    ck_assert_uint_eq(pending(&b), 2);
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        acked(&b, &lies[i]);
        ck_assert_msg(pending(&b) == 2, "lie %zu was believed", i);
        ck_assert(b.w.post_backoff_us > 0); /* and it is sent again, ever slower */
    }
    json_t *o = json_pack("{s:[{s:s,s:i,s:s}]}", "countersigns", "reservation", KIT_RES,
                          "seq", 2, "countersign", "not.a.jws");
    b.w.posting = true;
    ck_assert_int_eq(warden_take_acked(&b.w, o, &err), 0);
    json_decref(o);
    ck_assert_uint_eq(pending(&b), 2);
    acked(&b, &(struct ack){0});
    ck_assert_uint_eq(pending(&b), 0);
    ck_assert_int_eq(b.w.post_backoff_us, 0);
    bench_done(&b);
}
END_TEST

START_TEST(test_acks_of_a_revoked_key)
{
    struct bench b;
    uint8_t pub[JWS_ED25519_LEN];
    char kid[JWS_KID_MAX];
    struct err err;
    bench_init(&b);
    receipt(&b, USAGE_READY, 0);
    receipt(&b, USAGE_INTERVAL, 60);
    ck_assert_int_eq(jws_public(b.r.kit.key, pub, &err), 0);
    jws_thumbprint(pub, kid);
    keyring_revoke(b.r.a.id.keys, kid);
    acked(&b, &(struct ack){0});
    ck_assert_uint_eq(pending(&b), 2);
    bench_done(&b);
}
END_TEST

/* The connections of a front that died are forgotten; leases are not. */
START_TEST(test_front_dies)
{
    struct bench b;
    bench_init(&b);
    rig_lease(&b.r);
    for (int i = 1; i < 50; i++)
        ck_assert_int_eq(greet(&b, i), 0);
    warden_sync_down(&b.w);
    warden_run_down(&b.w);
    ck_assert_uint_eq(b.w.client_count, 0);
    ck_assert_int_eq(greet(&b, 1), 0);
    ck_assert_int_eq(rig_state(&b.r), LEASE_READY);
    bench_done(&b);
}
END_TEST

static EVP_PKEY *key_of(uint8_t byte)
{
    uint8_t seed[32];
    memset(seed, byte, sizeof(seed));
    return EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof(seed));
}

static char *key_set(EVP_PKEY *root, int64_t seq, int64_t exp_us, EVP_PKEY *signer)
{
    struct keyset *set = xcalloc(1, sizeof(*set));
    uint8_t pub[JWS_ED25519_LEN];
    char *text = NULL;
    struct err err;
    snprintf(set->iss, sizeof(set->iss), "%s", KIT_ISSUER);
    set->seq = seq;
    set->iat_us = KIT_NOW - US_PER_HOUR;
    set->exp_us = exp_us;
    ck_assert_int_eq(jws_public(signer, pub, &err), 0);
    ck_assert_int_eq(
        keyset_add(set, pub, KIT_NOW - US_PER_HOUR, KIT_NOW + 24 * US_PER_HOUR, &err),
        0);
    ck_assert_msg(keyset_sign(set, root, &text, &err) == 0, "%s", err.text);
    free(set);
    return text;
}

static void take_keys(struct bench *b, char *text_take)
{
    json_t *o = json_pack("{s:s}", "key_set", text_take);
    struct err err;
    ck_assert_int_eq(warden_take_keys(&b->w, o, &err), 0);
    json_decref(o);
    free(text_take);
}

/* Whatever the front hands in: only the pinned root's, only newer, only in its time. */
START_TEST(test_key_sets)
{
    struct bench b;
    uint8_t pub[JWS_ED25519_LEN];
    struct err err;
    bench_init(&b);
    struct identity *id = &b.r.a.id;
    EVP_PKEY *root = key_of(7), *other = key_of(8), *signer = key_of(9);
    int64_t later = KIT_NOW + 24 * US_PER_HOUR;
    ck_assert_int_eq(jws_public(root, pub, &err), 0);
    id->dir = xstrdup(b.r.dir);
    id->root = jws_jwk(pub);
    id->key_set = xstrdup("");
    take_keys(&b, key_set(root, 5, later, signer));
    ck_assert_int_eq(id->keys_seq, 5);
    ck_assert_int_eq(id->keys_exp_us, later);
    take_keys(&b, key_set(other, 6, later, signer));             /* another root */
    take_keys(&b, key_set(root, 4, later, signer));              /* older */
    take_keys(&b, key_set(root, 7, KIT_NOW - US_PER_S, signer)); /* over */
    take_keys(&b, xstrdup("rubbish"));
    ck_assert_int_eq(id->keys_seq, 5);
    take_keys(&b, key_set(root, 6, later, other));
    ck_assert_int_eq(id->keys_seq, 6);
    ck_assert_uint_eq(keyring_count(id->keys), 1);
    json_decref(id->root);
    free(id->dir);
    free(id->key_set);
    id->dir = id->key_set = NULL;
    EVP_PKEY_free(root);
    EVP_PKEY_free(other);
    EVP_PKEY_free(signer);
    bench_done(&b);
}
END_TEST

/* Tenants may name as many unknown keys as they like. */
START_TEST(test_unknown_keys_are_asked_for_seldom)
{
    struct bench b;
    bench_init(&b);
    for (int i = 1; i <= 200; i++) {
        EVP_PKEY *stranger = key_of((uint8_t)(10 + i % 100)), *mine = b.r.kit.key;
        ck_assert_int_eq(greet(&b, i), 0);
        b.r.kit.key = stranger;
        char *text = stop_request(&b, b.r.tenant, nonce_of(&b));
        b.r.kit.key = mine;
        ck_assert_int_eq(request(&b, i, "k", text), 0);
        ck_assert_str_eq(step_of(&b), "key");
        ck_assert_int_eq(gone(&b, i), 0);
        free(text);
        EVP_PKEY_free(stranger);
    }
    ck_assert_uint_eq(b.fetches, 1);
    bench_done(&b);
}
END_TEST

UNIT_MAIN("warden",
          UNIT_CASE(test_key_sets) UNIT_CASE(test_unknown_keys_are_asked_for_seldom)
              UNIT_CASE(test_a_tenant_is_served) UNIT_CASE(test_nonces)
                  UNIT_CASE(test_what_no_front_says)
                      UNIT_CASE(test_receipts_nobody_asked_for)
                          UNIT_CASE(test_a_local_peer) UNIT_CASE(test_false_peers)
                              UNIT_CASE(test_false_acks)
                                  UNIT_CASE(test_acks_of_a_revoked_key)
                                      UNIT_CASE(test_front_dies))
