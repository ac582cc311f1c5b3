/* keystore: the market's keys as files: the first start, rotation, revocation, the way
 * to an offline root and back, what is refused, and renewal in time. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/lib/fsx.h"
#include "client/lib/timefmt.h"
#include "client/lib/token.h"
#include "client/lib/xalloc.h"
#include "server/issuer/keystore.h"
#include "tests/unit/unit.h"

#define NOW (INT64_C(1800000000) * US_PER_S)
#define DAY (INT64_C(24) * 3600 * US_PER_S)
#define ISS "https://test.local"

static char dir[64];
static struct err err;

static struct keystore *begin(void)
{
    struct keystore *k;
    snprintf(dir, sizeof(dir), "/tmp/neargpu-keystore.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    ck_assert_msg(keystore_open(dir, ISS, NOW, &k, &err) == 0, "%s", err.text);
    return k;
}

static void end(struct keystore *k)
{
    keystore_free(k);
    ck_assert_int_eq(fsx_remove_tree(dir, &err), 0);
}

static char *in_dir(const char *name)
{
    return xasprintf("%s/%s", dir, name);
}

static int mode_of(const char *name)
{
    char *path = in_dir(name);
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    free(path);
    return (int)(st.st_mode & 0777);
}

/* What a node that pinned the root says of the set: the step, NULL when it takes it. */
static const char *node_says(const struct keystore *k, int64_t now_us, int64_t min_seq)
{
    json_t *jwk = keystore_root_jwk(k);
    uint8_t root[JWS_ED25519_LEN];
    struct keyset set;
    const char *step = NULL;
    ck_assert_int_eq(jws_jwk_parse(jwk, root, &err), 0);
    json_decref(jwk);
    struct keyset_want want = {root, ISS, now_us, min_seq};
    const char *text = keystore_text(k);
    return keyset_check(text, strlen(text), &want, &set, &step, &err) == 0 ? NULL
                                                                           : step;
}

START_TEST(test_first_start)
{
    struct keystore *k = begin(), *again;
    char kid[JWS_KID_MAX], kid_again[JWS_KID_MAX], *name;
    ck_assert(keystore_has_root(k));
    ck_assert_int_eq(mode_of("root.key"), 0600);
    ck_assert(keystore_signer(k, NOW, kid, NULL));
    name = xasprintf("signer/%s.key", kid);
    ck_assert_int_eq(mode_of(name), 0600);
    free(name);
    ck_assert_ptr_null(node_says(k, NOW, 1));
    ck_assert_int_eq(keystore_open(dir, ISS, NOW + DAY, &again, &err), 0);
    ck_assert_str_eq(keystore_text(k), keystore_text(again));
    ck_assert(keystore_signer(again, NOW, kid_again, NULL));
    ck_assert_str_eq(kid, kid_again);
    keystore_free(again);
    ck_assert_int_eq(keystore_open(dir, "https://other.local", NOW, &again, &err), -1);
    ck_assert_int_eq(err.code, ERR_CONFLICT);
    ck_assert_int_eq(keystore_open_existing("/nonexistent", &again, &err), -1);
    ck_assert_int_eq(err.code, ERR_NOT_FOUND);
    end(k);
}
END_TEST

/* A market of before there were key sets keeps its signing key. */
START_TEST(test_older_market)
{
    EVP_PKEY *key;
    struct keystore *k;
    uint8_t pub[JWS_ED25519_LEN];
    char kid[JWS_KID_MAX], now_kid[JWS_KID_MAX], *path, *pem;
    snprintf(dir, sizeof(dir), "/tmp/neargpu-keystore.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    path = in_dir("signer.key");
    ck_assert_int_eq(jws_keygen(&key, &err), 0);
    ck_assert_int_eq(jws_public(key, pub, &err), 0);
    jws_thumbprint(pub, kid);
    pem = jws_key_to_pem(key);
    ck_assert_int_eq(fsx_write(path, pem, strlen(pem), 0600, &err), 0);
    ck_assert_int_eq(keystore_open(dir, ISS, NOW, &k, &err), 0);
    ck_assert(keystore_signer(k, NOW, now_kid, NULL));
    ck_assert_str_eq(kid, now_kid);
    ck_assert_int_ne(access(path, F_OK), 0);
    free(pem);
    free(path);
    EVP_PKEY_free(key);
    end(k);
}
END_TEST

/* At once, while another is published: that one goes on from it as planned. */
START_TEST(test_rotation_ahead_of_one)
{
    struct keystore *k = begin();
    struct keystore_change how = {.now_us = NOW};
    char later[JWS_KID_MAX], made[JWS_KID_MAX], kid[JWS_KID_MAX];
    ck_assert_int_eq(keystore_rotate(k, &how, DAY, later, &err), 0);
    ck_assert_msg(keystore_rotate(k, &how, 0, made, &err) == 0, "%s", err.text);
    ck_assert_ptr_null(node_says(k, NOW, 3));
    ck_assert(keystore_signer(k, NOW, kid, NULL));
    ck_assert_str_eq(kid, made);
    ck_assert(keystore_signer(k, NOW + DAY, kid, NULL));
    ck_assert_str_eq(kid, later);
    end(k);
}
END_TEST

START_TEST(test_rotation)
{
    struct keystore *k = begin();
    struct keystore_change how = {.now_us = NOW};
    char old[JWS_KID_MAX], made[JWS_KID_MAX], kid[JWS_KID_MAX];
    ck_assert(keystore_signer(k, NOW, old, NULL));
    ck_assert_msg(keystore_rotate(k, &how, DAY, made, &err) == 0, "%s", err.text);
    ck_assert_str_ne(old, made);
    ck_assert_ptr_null(node_says(k, NOW, 2));
    ck_assert(keystore_signer(k, NOW + DAY - 1, kid, NULL)); /* published only */
    ck_assert_str_eq(kid, old);
    ck_assert(keystore_signer(k, NOW + DAY, kid, NULL));
    ck_assert_str_eq(kid, made);
    /* Both are believed until the last grant by the old one has run out, not longer. */
    const struct keyset *set = keystore_set(k);
    ck_assert_uint_eq(set->count, 2);
    ck_assert_int_ge(set->keys[0].not_after_us, NOW + DAY + TOKEN_LIFE_MAX_US);
    ck_assert_int_le(set->keys[0].not_after_us, NOW + DAY + 2 * TOKEN_LIFE_MAX_US);
    how.now_us = NOW + 2 * DAY;
    ck_assert_int_eq(keystore_rotate(k, &how, 0, kid, &err), 0);
    ck_assert_uint_eq(keystore_set(k)->count, 2); /* the first one is gone */
    ck_assert(keystore_signer(k, how.now_us, made, NULL));
    ck_assert_str_eq(kid, made); /* at once */
    end(k);
}
END_TEST

START_TEST(test_revocation)
{
    struct keystore *k = begin();
    struct keystore_change how = {.now_us = NOW};
    char old[JWS_KID_MAX], kid[JWS_KID_MAX];
    ck_assert(keystore_signer(k, NOW, old, NULL));
    ck_assert_int_eq(keystore_revoke(k, &how, "nobody", &err), -1);
    ck_assert_int_eq(err.code, ERR_NOT_FOUND);
    ck_assert_int_eq(keystore_revoke(k, &how, old, &err), 0);
    /* It was the only one: another signs at once. */
    ck_assert(keystore_signer(k, NOW, kid, NULL));
    ck_assert_str_ne(old, kid);
    ck_assert_int_eq(keystore_revoke(k, &how, old, &err), -1);
    ck_assert_int_eq(err.code, ERR_CONFLICT);
    struct keyring *ring;
    ck_assert_int_eq(keyset_ring(keystore_set(k), &ring, &err), 0);
    ck_assert(keyring_find(ring, old)->revoked);
    ck_assert(!keyring_find(ring, kid)->revoked);
    keyring_free(ring);
    end(k);
}
END_TEST

/* The root is elsewhere: a request goes there, a set comes back. */
START_TEST(test_offline_root)
{
    struct keystore *k = begin();
    char *root = in_dir("root.key"), *away = in_dir("away.key"),
         *request = in_dir("set.req"), *file = in_dir("set.jws"), *text;
    struct keystore_change how = {.now_us = NOW};
    struct keyset set;
    char made[JWS_KID_MAX], kid[JWS_KID_MAX];
    bool changed;
    ck_assert_int_eq(rename(root, away), 0);
    ck_assert(!keystore_has_root(k));
    ck_assert_int_eq(keystore_rotate(k, &how, 0, made, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "--request"));
    how.request = request;
    ck_assert_msg(keystore_rotate(k, &how, 0, made, &err) == 0, "%s", err.text);
    ck_assert_int_eq(keystore_set(k)->seq, 1); /* nothing is in force yet */
    ck_assert_int_eq(keystore_import(k, request, NOW, &err), -1); /* not the root's */
    ck_assert_int_eq(keystore_sign(away, request, &text, &set, &err), 0);
    ck_assert_int_eq(set.seq, 2);
    ck_assert_int_eq(fsx_write(file, text, strlen(text), 0644, &err), 0);
    free(text);
    struct keystore *running; /* another process notices */
    ck_assert_int_eq(keystore_open(dir, ISS, NOW, &running, &err), 0);
    ck_assert_int_eq(keystore_import(k, file, NOW, &err), 0);
    ck_assert(keystore_signer(k, NOW, kid, NULL));
    ck_assert_str_eq(kid, made);
    ck_assert_int_eq(keystore_reload(running, NOW, &changed, &err), 0);
    ck_assert(changed);
    ck_assert(keystore_signer(running, NOW, kid, NULL));
    ck_assert_str_eq(kid, made);
    ck_assert_int_eq(keystore_reload(running, NOW, &changed, &err), 0);
    ck_assert(!changed);
    ck_assert_int_eq(keystore_import(k, file, NOW, &err), -1); /* no step back */
    ck_assert_ptr_nonnull(strstr(err.text, "rollback"));
    /* A set in the directory that the root did not sign leaves the old one in force. */
    char *installed = in_dir("keyset.jws");
    ck_assert_int_eq(fsx_read(request, KEYSET_BYTES_MAX, &text, NULL, &err), 0);
    ck_assert_int_eq(fsx_write(installed, text, strlen(text), 0644, &err), 0);
    ck_assert_int_eq(keystore_reload(running, NOW, &changed, &err), -1);
    ck_assert_int_eq(keystore_set(running)->seq, 2);
    /* Another root's key file. */
    char *other = in_dir("other.key");
    how.request = NULL;
    how.root_file = other;
    ck_assert_int_eq(keystore_root_new(other, kid, &err), 0);
    ck_assert_int_eq(keystore_root_new(other, kid, &err), -1);
    ck_assert_int_eq(keystore_rotate(running, &how, 0, made, &err), -1);
    ck_assert_ptr_nonnull(strstr(err.text, "not the root"));
    keystore_free(running);
    free(text);
    free(installed);
    free(other);
    free(root);
    free(away);
    free(request);
    free(file);
    end(k);
}
END_TEST

START_TEST(test_renewal)
{
    struct keystore *k = begin();
    bool changed;
    int64_t now = NOW;
    ck_assert_int_eq(keystore_refresh(k, now, &changed, &err), 0);
    ck_assert(!changed);
    /* A year and more of looking once a day: never without a key, never expired. */
    for (int day = 0; day < 900; day++, now += DAY) {
        char kid[JWS_KID_MAX];
        ck_assert_int_eq(keystore_refresh(k, now, &changed, &err), 0);
        ck_assert(keystore_signer(k, now, kid, NULL));
        ck_assert_ptr_null(node_says(k, now, 1));
    }
    ck_assert_int_ge(keystore_set(k)->seq, 900 / 46);
    /* Without the root nothing is renewed. */
    char *root = in_dir("root.key");
    ck_assert_int_eq(unlink(root), 0);
    free(root);
    ck_assert_int_eq(keystore_refresh(k, now + 80 * DAY, &changed, &err), 0);
    ck_assert(!changed);
    end(k);
}
END_TEST

UNIT_MAIN("keystore", UNIT_CASE(test_first_start) UNIT_CASE(test_older_market)
                          UNIT_CASE(test_rotation_ahead_of_one) UNIT_CASE(test_rotation)
                              UNIT_CASE(test_revocation) UNIT_CASE(test_offline_root)
                                  UNIT_CASE(test_renewal))
