/* account: who the user is to which market, kept under ~/.config/neargpu (or
 * NEARGPU_CONFIG_DIR, or XDG_CONFIG_HOME/neargpu):
 *   NAME.json    server, API key, role, market, currency (0600)
 *   NAME.ca.pem  the market's CA: the only trust anchor for this server
 *   NAME.key     Ed25519 possession key (PKCS#8 PEM, 0600): tokens are bound to it;
 *                not there when the account uses a key of the user's own (`key` in
 *                NAME.json: an OpenSSH key file, or one that an SSH agent holds)
 *   NAME.ssh     that key as ssh reads it, made by neargpu ssh (0600); of a key that an
 *                SSH agent holds the public half
 * Files others may read are refused. It talks to nobody. */
#ifndef NEARGPU_ACCOUNT_H
#define NEARGPU_ACCOUNT_H
#include <jansson.h>
#include <openssl/evp.h>

#include "client/lib/err.h"

#define ACCOUNT_AGENT "agent:" /* begins the name of a key that an SSH agent holds */

struct account {
    char *name;
    char *json_path, *ca_path, *key_path, *ssh_path;
    char *server;  /* https://host:port */
    char *api_key; /* secret */
    char *own_key; /* NULL or "": NAME.key; PATH; "agent:SHA256:…" */
    char *role, *who, *market, *currency;
};

/* Fills name and paths; nothing is read. Refuses names that are not [A-Za-z0-9_.-]. */
int account_init(struct account *a, const char *name, struct err *err) MUST_USE;
void account_done(struct account *a);
/* Reads NAME.json. ERR_UNAUTHENTICATED with what to do when there is none. */
int account_load(struct account *a, struct err *err) MUST_USE;
int account_save(const struct account *a, struct err *err) MUST_USE;
/* Stores the market's CA (PEM). */
int account_save_ca(const struct account *a, const char *pem, struct err *err) MUST_USE;
/* The possession key; NAME.key is made when missing and `make` says so. Of a key that
 * an SSH agent holds it is the public half alone. Caller frees. */
int account_key(const struct account *a, int make, EVP_PKEY **ret,
                struct err *err) MUST_USE;
/* An Ed25519 key in a file (PEM or OpenSSH), made when it is not there. Caller frees.
 */
int account_key_file(const struct account *a, const char *path, EVP_PKEY **ret,
                     struct err *err) MUST_USE;
/* A JWS by the possession key (of account_key()), or by the SSH agent that holds it. */
int account_sign(const struct account *a, EVP_PKEY *key, const char *typ,
                 const json_t *payload, char **ret_token, struct err *err) MUST_USE;
/* Removes the account's files; missing ones are fine. */
int account_remove(const struct account *a, struct err *err) MUST_USE;

#endif
