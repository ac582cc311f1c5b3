/* keystore: see keystore.h. keystore_change.c makes new sets. */
#include "server/issuer/keystore_priv.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define PEM_MAX 4096
#define CLOCK_US \
    (INT64_C(300) * US_PER_S) /* a first key is valid for slow clocks too */
#define FILES_MAX KEYRING_KEYS_MAX

char *keystore_path(const struct keystore *k, const char *name)
{
    return xasprintf("%s/%s", k->dir, name);
}

int keystore_read_key(const char *path, EVP_PKEY **ret, struct err *err)
{
    char *pem;
    size_t len;
    if (fsx_read_secret(path, PEM_MAX, &pem, &len, err) != 0)
        return -1;
    int rc = jws_key_from_pem(pem, len, ret, err);
    OPENSSL_cleanse(pem, len);
    free(pem);
    return rc == 0 ? 0 : err_prefix(err, "%s", path);
}

int keystore_make_key(const char *path, EVP_PKEY **ret, struct err *err)
{
    EVP_PKEY *key;
    if (jws_keygen(&key, err) != 0)
        return -1;
    char *pem = jws_key_to_pem(key);
    int rc = fsx_write(path, pem, strlen(pem), 0600, err);
    OPENSSL_cleanse(pem, strlen(pem));
    free(pem);
    if (rc == 0)
        *ret = key;
    else
        EVP_PKEY_free(key);
    return rc;
}

/* --- signing keys --- */

static void forget_signers(struct keystore *k)
{
    for (size_t i = 0; i < k->signer_count; i++)
        EVP_PKEY_free(k->signers[i].key);
    k->signer_count = 0;
}

int keystore_load_signers(struct keystore *k, struct err *err)
{
    char *dir_path = keystore_path(k, "signer");
    DIR *dir = opendir(dir_path);
    struct dirent *e;
    int rc = 0;
    forget_signers(k);
    while (rc == 0 && dir != NULL && (e = readdir(dir)) != NULL) {
        size_t len = strlen(e->d_name);
        struct keystore_signer *s = &k->signers[k->signer_count];
        uint8_t pub[JWS_ED25519_LEN];
        if (len < 5 || strcmp(e->d_name + len - 4, ".key") != 0)
            continue;
        if (k->signer_count == FILES_MAX) {
            rc = err_set(err, ERR_TOO_LARGE, "%s: more than %d keys", dir_path,
                         FILES_MAX);
            break;
        }
        char *path = xasprintf("%s/%s", dir_path, e->d_name);
        rc = keystore_read_key(path, &s->key, err);
        if (rc == 0) {
            k->signer_count++;
            rc = jws_public(s->key, pub, err);
            jws_thumbprint(pub, s->kid);
        }
        free(path);
    }
    if (dir != NULL)
        closedir(dir);
    free(dir_path);
    if (k->forgets)
        keystore_forget(k);
    return rc;
}

static bool have_key(void *arg, const char *kid)
{
    const struct keystore *k = arg;
    for (size_t i = 0; i < k->signer_count; i++)
        if (strcmp(k->signers[i].kid, kid) == 0)
            return true;
    return false;
}

bool keystore_signer(const struct keystore *k, int64_t now_us,
                     char ret_kid[JWS_KID_MAX], EVP_PKEY **ret_key)
{
    const struct keyset_key *key =
        keyset_signer(&k->set, now_us, have_key, (void *)(uintptr_t)k);
    for (size_t i = 0; key != NULL && i < k->signer_count; i++) {
        if (strcmp(k->signers[i].kid, key->kid) != 0)
            continue;
        memcpy(ret_kid, key->kid, JWS_KID_MAX);
        if (ret_key != NULL)
            *ret_key = k->signers[i].key;
        return true;
    }
    return false;
}

void keystore_forget(struct keystore *k)
{
    k->forgets = true;
    for (size_t i = 0; i < k->signer_count; i++) {
        EVP_PKEY_free(k->signers[i].key);
        k->signers[i].key = NULL;
    }
}

/* --- the set --- */

static int read_root_jwk(struct keystore *k, struct err *err)
{
    char *path = keystore_path(k, "root.jwk"), *text = NULL;
    size_t len;
    json_t *jwk = NULL;
    int rc = fsx_read(path, PEM_MAX, &text, &len, err);
    if (rc == 0) {
        jwk = jsonx_parse(text, len, PEM_MAX, err);
        rc = jwk == NULL ? -1 : jws_jwk_parse(jwk, k->root, err);
        if (rc != 0)
            (void)err_prefix(err, "%s", path);
    }
    json_decref(jwk);
    free(text);
    free(path);
    return rc;
}

static int write_root_jwk(struct keystore *k, EVP_PKEY *root, struct err *err)
{
    if (jws_public(root, k->root, err) != 0)
        return -1;
    json_t *jwk = keystore_root_jwk(k);
    char *path = keystore_path(k, "root.jwk"), *text = jsonx_dump(jwk);
    int rc = fsx_write(path, text, strlen(text), 0644, err);
    free(text);
    free(path);
    json_decref(jwk);
    return rc;
}

/* Takes the set in the file if the root signed it. Time is not judged here: a server
 * that starts with an expired set says so (admin status) and can still be mended. */
static int read_set(struct keystore *k, int64_t min_seq, struct err *err)
{
    char *path = keystore_path(k, "keyset.jws"), *text = NULL;
    struct keyset_want want = {k->root, NULL, INT64_MIN, min_seq};
    const char *step;
    size_t len = 0;
    struct stat st = {0};
    int rc = fsx_read(path, KEYSET_BYTES_MAX, &text, &len, err);
    while (rc == 0 && len > 0 && (text[len - 1] == '\n' || text[len - 1] == '\r'))
        text[--len] = '\0';
    if (rc == 0)
        rc = keyset_check(text, len, &want, &k->set, &step, err);
    if (rc == 0 && stat(path, &st) == 0)
        k->file = st;
    if (rc == 0) {
        free(k->text);
        k->text = text;
    } else {
        free(text);
        if (err->code != ERR_NOT_FOUND)
            (void)err_prefix(err, "%s", path);
    }
    free(path);
    return rc;
}

int keystore_write_set(struct keystore *k, const char *text, struct err *err)
{
    char *path = keystore_path(k, "keyset.jws");
    int rc = fsx_write(path, text, strlen(text), 0644, err);
    free(path);
    return rc == 0 ? read_set(k, k->set.seq, err) : -1;
}

/* --- the first start --- */

/* The signing key of a market that had no key set: it goes on under the set. */
static int first_signer(struct keystore *k, EVP_PKEY **ret, struct err *err)
{
    char *old = keystore_path(k, "signer.key"), *path;
    uint8_t pub[JWS_ED25519_LEN];
    char kid[JWS_KID_MAX];
    struct err why;
    int rc = keystore_read_key(old, ret, &why);
    if (rc != 0 && why.code != ERR_NOT_FOUND) {
        *err = why;
        free(old);
        return -1;
    }
    bool had = rc == 0;
    rc = had ? 0 : jws_keygen(ret, err);
    if (rc == 0)
        rc = jws_public(*ret, pub, err);
    if (rc == 0) {
        jws_thumbprint(pub, kid);
        path = xasprintf("%s/signer/%s.key", k->dir, kid);
        char *pem = jws_key_to_pem(*ret);
        rc = fsx_write(path, pem, strlen(pem), 0600, err);
        OPENSSL_cleanse(pem, strlen(pem));
        free(pem);
        free(path);
    }
    if (rc == 0 && had)
        (void)unlink(old);
    free(old);
    return rc;
}

static int first_set(struct keystore *k, const char *issuer, EVP_PKEY *root,
                     int64_t now_us, struct err *err)
{
    struct keyset set = {.seq = 1, .iat_us = now_us - now_us % US_PER_S};
    EVP_PKEY *signer = NULL;
    uint8_t pub[JWS_ED25519_LEN];
    char *text = NULL;
    if (strlen(issuer) >= sizeof(set.iss))
        return err_set(err, ERR_BAD_REQUEST, "the market's name is too long");
    memcpy(set.iss, issuer, strlen(issuer) + 1);
    set.exp_us = set.iat_us + KEYSET_LIFE_US;
    int rc = first_signer(k, &signer, err);
    if (rc == 0)
        rc = jws_public(signer, pub, err);
    if (rc == 0)
        rc = keyset_add(&set, pub, now_us - CLOCK_US, now_us + KEYSTORE_SIGNER_LIFE_US,
                        err);
    if (rc == 0)
        rc = keyset_sign(&set, root, &text, err);
    if (rc == 0)
        rc = keystore_write_set(k, text, err);
    free(text);
    EVP_PKEY_free(signer);
    return rc;
}

static int make_first(struct keystore *k, const char *issuer, int64_t now_us,
                      struct err *err)
{
    char *path = keystore_path(k, "root.key"), *signers = keystore_path(k, "signer");
    EVP_PKEY *root = NULL;
    int rc = fsx_mkdirs(signers, 0700, err);
    if (rc == 0 && keystore_read_key(path, &root, err) != 0)
        rc = err->code == ERR_NOT_FOUND ? keystore_make_key(path, &root, err) : -1;
    if (rc == 0)
        rc = write_root_jwk(k, root, err);
    if (rc == 0)
        rc = first_set(k, issuer, root, now_us, err);
    EVP_PKEY_free(root);
    free(path);
    free(signers);
    return rc;
}

/* --- life --- */

static int load(struct keystore *k, struct err *err)
{
    if (read_root_jwk(k, err) != 0 || read_set(k, 0, err) != 0)
        return -1;
    return keystore_load_signers(k, err);
}

int keystore_open(const char *dir, const char *issuer, int64_t now_us,
                  struct keystore **ret, struct err *err)
{
    struct keystore *k = xcalloc(1, sizeof(*k));
    char *path;
    k->dir = xstrdup(dir);
    path = keystore_path(k, "keyset.jws");
    int rc = fsx_mkdirs(dir, 0700, err);
    if (rc == 0 && access(path, F_OK) != 0)
        rc = make_first(k, issuer, now_us, err);
    if (rc == 0)
        rc = load(k, err);
    if (rc == 0 && strcmp(k->set.iss, issuer) != 0)
        rc = err_set(err, ERR_CONFLICT, "%s is the key set of %.100s, not of %.100s",
                     path, k->set.iss, issuer);
    free(path);
    if (rc != 0) {
        keystore_free(k);
        return -1;
    }
    *ret = k;
    return 0;
}

int keystore_open_existing(const char *dir, struct keystore **ret, struct err *err)
{
    struct keystore *k = xcalloc(1, sizeof(*k));
    k->dir = xstrdup(dir);
    if (load(k, err) != 0) {
        keystore_free(k);
        return -1;
    }
    *ret = k;
    return 0;
}

void keystore_free(struct keystore *k)
{
    if (k == NULL)
        return;
    forget_signers(k);
    free(k->text);
    free(k->dir);
    free(k);
}

const struct keyset *keystore_set(const struct keystore *k)
{
    return &k->set;
}

const char *keystore_text(const struct keystore *k)
{
    return k->text;
}

json_t *keystore_root_jwk(const struct keystore *k)
{
    return jws_jwk(k->root);
}

bool keystore_has_root(const struct keystore *k)
{
    char *path = keystore_path(k, "root.key");
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

int keystore_reload(struct keystore *k, int64_t now_us, bool *ret_changed,
                    struct err *err)
{
    char *path = keystore_path(k, "keyset.jws");
    struct stat st;
    (void)now_us;
    *ret_changed = false;
    int rc = stat(path, &st);
    free(path);
    /* Files are replaced, so a new one is another inode, however coarse its time. */
    if (rc != 0 ||
        (st.st_ino == k->file.st_ino && st.st_mtim.tv_sec == k->file.st_mtim.tv_sec &&
         st.st_mtim.tv_nsec == k->file.st_mtim.tv_nsec))
        return 0; /* a set that is gone changes nothing: the one in memory is signed */
    if (read_set(k, k->set.seq, err) != 0 || keystore_load_signers(k, err) != 0)
        return -1;
    *ret_changed = true;
    return 0;
}
