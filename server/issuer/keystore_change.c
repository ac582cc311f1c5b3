/* keystore_change: new sets: rotation, revocation, renewal, and the way of a set to the
 * root and back; see keystore.h. */
#include "server/issuer/keystore_priv.h"

#include <stdlib.h>
#include <string.h>

#include "client/lib/fsx.h"
#include "client/lib/timefmt.h"
#include "client/lib/token.h"
#include "client/lib/xalloc.h"

/* The last grant by a key ends so long after the key was last used; clocks included. */
#define GRANTS_END_US (TOKEN_LIFE_MAX_US + 2 * TOKEN_LEEWAY_US)

/* The successor of the set: the same keys but those that are over. */
static struct keyset successor(const struct keystore *k, int64_t now_us)
{
    struct keyset set = k->set;
    set.seq++;
    set.iat_us = now_us - now_us % US_PER_S;
    set.exp_us = set.iat_us + KEYSET_LIFE_US;
    keyset_prune(&set, now_us);
    return set;
}

static int add_signer(struct keystore *k, struct keyset *set, int64_t from_us,
                      char ret_kid[JWS_KID_MAX], struct err *err)
{
    EVP_PKEY *key;
    uint8_t pub[JWS_ED25519_LEN];
    char *tmp = keystore_path(k, "signer/new"), *path = NULL;
    int rc = keystore_make_key(tmp, &key, err);
    if (rc == 0) {
        rc = jws_public(key, pub, err);
        EVP_PKEY_free(key);
    }
    if (rc == 0) {
        jws_thumbprint(pub, ret_kid);
        path = xasprintf("%s/signer/%s.key", k->dir, ret_kid);
        if (rename(tmp, path) != 0)
            rc = err_set(err, ERR_IO, "%s cannot be made", path);
    }
    if (rc == 0)
        rc = keyset_add(set, pub, from_us, from_us + KEYSTORE_SIGNER_LIFE_US, err);
    free(path);
    free(tmp);
    return rc;
}

/* What is not signed by the root yet: the same form, signed by nobody who counts. */
static int write_request(const struct keyset *set, const char *file, struct err *err)
{
    EVP_PKEY *nobody;
    char *text = NULL;
    if (jws_keygen(&nobody, err) != 0)
        return -1;
    int rc = keyset_sign(set, nobody, &text, err);
    if (rc == 0)
        rc = fsx_write(file, text, strlen(text), 0644, err);
    free(text);
    EVP_PKEY_free(nobody);
    return rc;
}

static int is_our_root(const struct keystore *k, EVP_PKEY *root, const char *file,
                       struct err *err)
{
    uint8_t pub[JWS_ED25519_LEN];
    if (jws_public(root, pub, err) != 0)
        return -1;
    if (memcmp(pub, k->root, sizeof(pub)) != 0)
        return err_set(err, ERR_CONFLICT,
                       "%s is not the root that this market's nodes have pinned", file);
    return 0;
}

/* Signs and puts into force, or asks for the signature. */
static int put_set(struct keystore *k, const struct keystore_change *how,
                   const struct keyset *set, struct err *err)
{
    char *own = keystore_path(k, "root.key"), *text = NULL;
    const char *file = how->root_file != NULL ? how->root_file : own;
    EVP_PKEY *root = NULL;
    int rc;
    if (how->request != NULL) {
        free(own);
        return write_request(set, how->request, err);
    }
    rc = keystore_read_key(file, &root, err);
    if (rc != 0 && err->code == ERR_NOT_FOUND)
        err_set(err, ERR_NOT_FOUND,
                "%s is not here: give --root FILE, or --request FILE and have that "
                "signed where the root is",
                file);
    if (rc == 0)
        rc = is_our_root(k, root, file, err);
    if (rc == 0)
        rc = keyset_sign(set, root, &text, err);
    if (rc == 0)
        rc = keystore_write_set(k, text, err);
    if (rc == 0)
        rc = keystore_load_signers(k, err);
    free(text);
    free(own);
    EVP_PKEY_free(root);
    return rc;
}

int keystore_rotate(struct keystore *k, const struct keystore_change *how,
                    int64_t publish_us, char ret_kid[JWS_KID_MAX], struct err *err)
{
    struct keyset set = successor(k, how->now_us);
    int64_t from_us = how->now_us + publish_us, end_us = from_us + GRANTS_END_US;
    /* One that is published and begins later still goes on from the new one. */
    for (size_t i = 0; i < set.count; i++)
        if (set.keys[i].not_before_us < from_us && set.keys[i].not_after_us > end_us)
            set.keys[i].not_after_us = end_us - end_us % US_PER_S;
    if (add_signer(k, &set, from_us, ret_kid, err) != 0)
        return -1;
    return put_set(k, how, &set, err);
}

static bool can_sign(const struct keystore *k, const struct keyset *set, int64_t now_us)
{
    for (size_t i = 0; i < k->signer_count; i++)
        for (size_t n = 0; n < set->count; n++) {
            const struct keyset_key *key = &set->keys[n];
            if (strcmp(key->kid, k->signers[i].kid) == 0 && !key->revoked &&
                key->not_before_us <= now_us && now_us < key->not_after_us)
                return true;
        }
    return false;
}

int keystore_revoke(struct keystore *k, const struct keystore_change *how,
                    const char *kid, struct err *err)
{
    struct keyset set = successor(k, how->now_us);
    struct keyset_key *key = keyset_find(&set, kid);
    char made[JWS_KID_MAX];
    if (key == NULL)
        return err_set(err, ERR_NOT_FOUND,
                       "the key set has no key %.60s: `keys list` shows them", kid);
    if (key->revoked)
        return err_set(err, ERR_CONFLICT, "key %s is revoked already", kid);
    key->revoked = true;
    if (!can_sign(k, &set, how->now_us) &&
        add_signer(k, &set, how->now_us, made, err) != 0)
        return -1;
    return put_set(k, how, &set, err);
}

int keystore_refresh(struct keystore *k, int64_t now_us, bool *ret_changed,
                     struct err *err)
{
    struct keystore_change how = {.now_us = now_us};
    char kid[JWS_KID_MAX];
    int64_t last_us = INT64_MIN;
    *ret_changed = false;
    if (!keystore_has_root(k))
        return 0;
    for (size_t i = 0; i < k->set.count; i++)
        if (!k->set.keys[i].revoked && k->set.keys[i].not_after_us > last_us)
            last_us = k->set.keys[i].not_after_us;
    if (last_us < now_us + KEYSTORE_ROTATE_US) {
        *ret_changed = true;
        return keystore_rotate(k, &how, KEYSTORE_PUBLISH_US, kid, err);
    }
    if (k->set.exp_us - now_us > KEYSET_LIFE_US / 2)
        return 0;
    struct keyset set = successor(k, now_us);
    *ret_changed = true;
    return put_set(k, &how, &set, err);
}

int keystore_sign(const char *root_file, const char *request, char **ret_set,
                  struct keyset *ret, struct err *err)
{
    EVP_PKEY *root = NULL;
    char *text = NULL;
    size_t len;
    if (fsx_read(request, KEYSET_BYTES_MAX, &text, &len, err) != 0)
        return -1;
    while (len > 0 && text[len - 1] == '\n')
        len--;
    int rc = keyset_read(text, len, ret, err);
    if (rc != 0)
        (void)err_prefix(err, "%s", request);
    if (rc == 0)
        rc = keystore_read_key(root_file, &root, err);
    if (rc == 0)
        rc = keyset_sign(ret, root, ret_set, err);
    EVP_PKEY_free(root);
    free(text);
    return rc;
}

int keystore_import(struct keystore *k, const char *file, int64_t now_us,
                    struct err *err)
{
    struct keyset_want want = {k->root, k->set.iss, now_us, k->set.seq + 1};
    struct keyset set;
    const char *step;
    char *text;
    size_t len;
    if (fsx_read(file, KEYSET_BYTES_MAX, &text, &len, err) != 0)
        return -1;
    while (len > 0 && text[len - 1] == '\n')
        text[--len] = '\0';
    int rc = keyset_check(text, len, &want, &set, &step, err);
    if (rc != 0)
        (void)err_prefix(err, "%s (%s)", file, step);
    if (rc == 0)
        rc = keystore_load_signers(k, err); /* made with the request */
    if (rc == 0 && !can_sign(k, &set, now_us))
        rc = err_set(err, ERR_CONFLICT,
                     "%s: none of its keys that are valid now is on this server", file);
    if (rc == 0)
        rc = keystore_write_set(k, text, err);
    free(text);
    return rc;
}

int keystore_root_new(const char *file, char ret_kid[JWS_KID_MAX], struct err *err)
{
    EVP_PKEY *key;
    uint8_t pub[JWS_ED25519_LEN];
    if (access(file, F_OK) == 0)
        return err_set(err, ERR_CONFLICT, "%s is there already", file);
    if (keystore_make_key(file, &key, err) != 0)
        return -1;
    int rc = jws_public(key, pub, err);
    EVP_PKEY_free(key);
    if (rc == 0)
        jws_thumbprint(pub, ret_kid);
    return rc;
}
