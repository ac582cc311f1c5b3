/* identity: who this node is to the market: enrolment by a one-time join code, the key
 * and 24-hour certificate, its renewal, the receipt key, and what was pinned.
 *
 *   STATE/identity/node.key      P-256, 0600        STATE/identity/receipt.key  Ed25519
 *   STATE/identity/node.pem      certificate        STATE/identity/ca.pem       pinned
 *   STATE/identity/market.json   server, names, key set
 *
 * Renewal is two-phase: key and certificate are written as node.key.new and
 * node.pem.new, used once, and take the place of the old ones only then. The market
 * drops the old certificate when it sees the new one, so a new pair on disk is never
 * thrown away before the market has refused it; a crash between the two renames is
 * mended at the next load. */
#ifndef NEARGPU_AGENT_IDENTITY_H
#define NEARGPU_AGENT_IDENTITY_H
#include <jansson.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/lib/err.h"
#include "client/lib/keyring.h"

struct identity {
    char *dir; /* STATE/identity */
    char *server, *market, *issuer, *site, *node, *spiffe_id;
    json_t *jwks;
    struct keyring *keys;
    EVP_PKEY *receipt_key;
    char *key_file, *cert_file, *ca_file;
    char *new_key_file, *new_cert_file;
    int64_t cert_from_us, cert_to_us;
    bool has_new; /* a new pair was found that may or may not have been used already */
};

struct identity_enrol {
    const char *state_dir;
    const char *server;
    const char *ca_file;   /* one of these two */
    const char *ca_sha256; /* hex of the CA certificate's DER */
    const char *join_code;
};

/* Talks to the server (blocking). ERR_CONFLICT when the node is already enrolled. */
int identity_enrol(const struct identity_enrol *in, struct err *err) MUST_USE;
/* ERR_NOT_FOUND when the node is not enrolled. */
int identity_load(const char *state_dir, struct identity *ret,
                  struct err *err) MUST_USE;
void identity_done(struct identity *id);

/* The market published other keys: they replace the ones known, on disk too. Does
 * nothing when they are the same. */
int identity_set_jwks(struct identity *id, json_t *jwks, struct err *err) MUST_USE;

/* Past half of the certificate's life? */
bool identity_is_due(const struct identity *id, int64_t now_us);
/* Phase 1: a new key in new_key_file; *ret_csr for the server (caller frees). */
int identity_renew_begin(struct identity *id, char **ret_csr, struct err *err) MUST_USE;
/* The certificate for it, checked against the key, in new_cert_file. */
int identity_renew_store(struct identity *id, const char *cert_pem,
                         struct err *err) MUST_USE;
/* Phase 2: the new pair worked. */
int identity_renew_commit(struct identity *id, struct err *err) MUST_USE;
void identity_renew_abort(struct identity *id);

#endif
