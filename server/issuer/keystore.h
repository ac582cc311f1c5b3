/* keystore: which keys sign for the market, as files of the pki directory:
 *
 *   root.key          the root (Ed25519, 0600). Made at the first start; belongs on
 *                     another machine: the server runs without it
 *   root.jwk          its public half, which agents pin when they enrol
 *   keyset.jws        the set in force, signed by the root (client/lib/keyset.h)
 *   signer/KID.key    private signing keys (0600), one or more of the set's
 *
 * A change of keys makes a new set with the next number: it is signed at once when the
 * root is at hand, else a request for the signature is written, which is signed
 * elsewhere (keystore_sign) and imported. A new signing key is published for some time
 * before it is used, and an old one believed until the last grant by it has run out.
 * Several servers share a set by sharing the directory's files; each signs with the
 * newest key it has. An edge: reads and writes files, talks to nobody. */
#ifndef NEARGPU_KEYSTORE_H
#define NEARGPU_KEYSTORE_H
#include <jansson.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/lib/err.h"
#include "client/lib/keyset.h"

#define KEYSTORE_SIGNER_LIFE_US (INT64_C(400) * 24 * 3600 * 1000000)
#define KEYSTORE_PUBLISH_US     (INT64_C(24) * 3600 * 1000000)
/* A signing key with less left is followed by a new one, when the root is at hand. */
#define KEYSTORE_ROTATE_US (INT64_C(30) * 24 * 3600 * 1000000)

struct keystore;

/* Makes root, first signing key and set when the directory has none. A set that does
 * not verify under root.jwk is refused: the market would be signing for nobody. */
int keystore_open(const char *dir, const char *issuer, int64_t now_us,
                  struct keystore **ret, struct err *err) MUST_USE;
/* For commands: an existing one only (ERR_NOT_FOUND). */
int keystore_open_existing(const char *dir, struct keystore **ret,
                           struct err *err) MUST_USE;
void keystore_free(struct keystore *k);

const struct keyset *keystore_set(const struct keystore *k);
const char *keystore_text(const struct keystore *k); /* the signed set, borrowed */
json_t *keystore_root_jwk(const struct keystore *k); /* new reference */
bool keystore_has_root(const struct keystore *k);    /* root.key is here */
/* The key to sign with now: its kid and, unless ret_key is NULL, the private key
 * (borrowed; NULL after keystore_forget). False: there is none. */
bool keystore_signer(const struct keystore *k, int64_t now_us,
                     char ret_kid[JWS_KID_MAX], EVP_PKEY **ret_key);
/* From here on this process knows which private keys there are, and holds none: a
 * signer process does. */
void keystore_forget(struct keystore *k);

/* Reads the files again when the set changed (by a command or a copy); *ret_changed. A
 * set that is older or not the root's is refused and the one in memory stays. */
int keystore_reload(struct keystore *k, int64_t now_us, bool *ret_changed,
                    struct err *err) MUST_USE;
/* With the root at hand: a set past half of its life is signed anew, and a signing key
 * near its end is followed by another. Without: nothing. *ret_changed. */
int keystore_refresh(struct keystore *k, int64_t now_us, bool *ret_changed,
                     struct err *err) MUST_USE;

/* --- changes: each ends in a new set ------------------------------------------- */

struct keystore_change {
    const char *root_file; /* NULL: root.key of the directory */
    const char *request;   /* write the unsigned set there instead of signing it */
    int64_t now_us;
};
/* A new signing key, used from now + publish_us on; those before it end when their last
 * grants have. ret_kid: the new one's. */
int keystore_rotate(struct keystore *k, const struct keystore_change *how,
                    int64_t publish_us, char ret_kid[JWS_KID_MAX],
                    struct err *err) MUST_USE;
/* Withdraws a key: nothing it signed is believed from the moment a node has the set.
 * When no other can sign now, a new one begins at once. */
int keystore_revoke(struct keystore *k, const struct keystore_change *how,
                    const char *kid, struct err *err) MUST_USE;
/* Signs a request with the root in root_file: for the machine where the root is kept.
 * *ret_set (caller frees) is the set's text, *ret what it says. */
int keystore_sign(const char *root_file, const char *request, char **ret_set,
                  struct keyset *ret, struct err *err) MUST_USE;
/* Takes a set signed elsewhere: the root's, with a higher number, and one of its keys
 * must be here. */
int keystore_import(struct keystore *k, const char *file, int64_t now_us,
                    struct err *err) MUST_USE;
/* A new root key file (0600), for a directory that has none yet. */
int keystore_root_new(const char *file, char ret_kid[JWS_KID_MAX],
                      struct err *err) MUST_USE;

#endif
