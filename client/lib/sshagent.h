/* sshagent: signing by a running ssh-agent (SSH_AUTH_SOCK): the key never comes here,
 * and may be on a token or behind a passphrase. An agent signs Ed25519 over the very
 * bytes, so a JWS can be signed by it (draft-miller-ssh-agent; RFC 8709). An edge;
 * blocks, with a bound on the time, since the agent may ask its owner. */
#ifndef NEARGPU_SSHAGENT_H
#define NEARGPU_SSHAGENT_H
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"
#include "client/lib/sshkey.h"

#define SSHAGENT_KEYS_MAX 64

/* Its Ed25519 keys (others are passed over), at most SSHAGENT_KEYS_MAX. path NULL:
 * SSH_AUTH_SOCK. ERR_UNREACHABLE: no agent there. */
int sshagent_list(const char *path, struct sshkey_public *out, size_t *ret_count,
                  struct err *err) MUST_USE;
/* The key with this fingerprint ("SHA256:…"); ERR_NOT_FOUND with those there are. */
int sshagent_find(const char *path, const char *fingerprint, struct sshkey_public *ret,
                  struct err *err) MUST_USE;
int sshagent_sign(const char *path, const uint8_t pub[JWS_ED25519_LEN],
                  const void *data, size_t len, uint8_t sig[64],
                  struct err *err) MUST_USE;

#endif
