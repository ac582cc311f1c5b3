/* keystore_priv: what keystore.c (files) and keystore_change.c (new sets) share. */
#ifndef NEARGPU_KEYSTORE_PRIV_H
#define NEARGPU_KEYSTORE_PRIV_H
#include <sys/stat.h>
#include <unistd.h>

#include "server/issuer/keystore.h"

struct keystore_signer {
    char kid[JWS_KID_MAX];
    EVP_PKEY *key;
};
struct keystore {
    char *dir, *text;
    uint8_t root[JWS_ED25519_LEN];
    struct keyset set;
    struct stat file; /* keyset.jws as it was read */
    struct keystore_signer signers[KEYRING_KEYS_MAX];
    size_t signer_count;
    bool forgets; /* private keys are not kept in memory */
};

char *keystore_path(const struct keystore *k, const char *name); /* caller frees */
int keystore_read_key(const char *path, EVP_PKEY **ret, struct err *err) MUST_USE;
int keystore_make_key(const char *path, EVP_PKEY **ret, struct err *err) MUST_USE;
int keystore_load_signers(struct keystore *k, struct err *err) MUST_USE;
/* Writes the file and takes it over if it verifies and is not older. */
int keystore_write_set(struct keystore *k, const char *text, struct err *err) MUST_USE;

#endif
