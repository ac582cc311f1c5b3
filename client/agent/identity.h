/* identity: who this node is to the market, as its warden knows it: enrolment by a
 * one-time join code, the key that signs receipts, and what was pinned then.
 *
 *   STATE/identity/receipt.key  Ed25519, 0600       STATE/identity/ca.pem   pinned
 *   STATE/identity/market.json  server, names, the market's root key, key set
 *   STATE/front/                the key and certificate towards the market (nodecert.h)
 *   STATE/enrol.new, enrol.done an enrolment under way, and one to be put in its place
 *
 * Owned by root and not readable by others, but for ca.pem. */
#ifndef NEARGPU_AGENT_IDENTITY_H
#define NEARGPU_AGENT_IDENTITY_H
#include <jansson.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/lib/err.h"
#include "client/lib/keyring.h"

#define IDENTITY_INSTANCE_MAX 64

struct identity {
    char *dir; /* STATE/identity */
    char *server, *market, *issuer, *site, *node, *spiffe_id;
    json_t *root;        /* the market's offline key, pinned at enrolment */
    char *key_set;       /* the newest that it signed (keyset.h) */
    int64_t keys_seq;    /* an older one is refused */
    int64_t keys_exp_us; /* none of `keys` is believed past it; 0: not known */
    struct keyring *keys;
    EVP_PKEY *receipt_key;
    char *ca_file;
    char instance[IDENTITY_INSTANCE_MAX]; /* "": not asked for yet */
    char *front_dir;
};

struct identity_enrol {
    const char *state_dir;
    const char *server;
    const char *ca_file;   /* one of these two */
    const char *ca_sha256; /* hex of the CA certificate's DER */
    const char *join_code;
    bool again; /* a new identity for the node that this is: leases and jobs go on */
};

/* Talks to the server (blocking). ERR_CONFLICT when the node is already enrolled and
 * `again` is not set, or the code is another node's. On failure the identity there was
 * stays. A running agent has the earlier one until it is started anew. */
int identity_enrol(const struct identity_enrol *in, struct err *err) MUST_USE;
/* ERR_NOT_FOUND when the node is not enrolled. */
int identity_load(const char *state_dir, struct identity *ret,
                  struct err *err) MUST_USE;
void identity_done(struct identity *id);

/* Names this run of the agent: a number that was random at enrolment and a counter of
 * runs, on disk. Two that go on side by side with one identity have different ones,
 * which is how the market sees a clone. */
int identity_next_instance(struct identity *id, struct err *err) MUST_USE;

/* The market published another key set: it replaces the one known, on disk too, if the
 * pinned root signed it and it is not older. Does nothing when it is the same. now_us:
 * INT64_MIN when time is not known. */
int identity_set_keys(struct identity *id, const char *text, int64_t now_us,
                      struct err *err) MUST_USE;

#endif
