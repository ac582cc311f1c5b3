/* ssh_line: the text halves of SSH: a line of authorized_keys (sshd(8), AUTHORIZED_KEYS
 * FILE FORMAT), and public keys compared as people write them (RFC 4253 section 6.6 and
 * RFC 8709 for ssh-ed25519, in base64). Pure. */
#ifndef NEARGPU_AGENT_SSH_LINE_H
#define NEARGPU_AGENT_SSH_LINE_H
#include <stdbool.h>
#include <stdint.h>

#include "client/lib/digest.h"
#include "client/lib/err.h"

struct ssh_line {
    const char *exe,
        *socket; /* [A-Za-z0-9/._+-]: they become part of a shell command */
    const char *ticket, *type, *key;
    bool forward_local; /* connections from the client to the node's own loopback */
};
/* Heap text without newline. ERR_BAD_REQUEST when a part has a character that could
 * mean something to sshd or to a shell. */
int ssh_line_make(const struct ssh_line *in, char **ret, struct err *err) MUST_USE;

/* What a key is known by: SHA-256 of "TYPE BASE64". */
void ssh_key_hash(const char *type, const char *key, uint8_t out[SHA256_LEN]);
/* Is "TYPE BASE64 [comment]" this key? */
bool ssh_holder_is(const char *holder, const uint8_t key[SHA256_LEN]);
/* May this be asked for at all: a plausible type and base64. */
bool ssh_key_is_plausible(const char *type, const char *key);
/* Which program asks for files: the subsystem's command as sshd_config names it. */
bool ssh_wants_sftp(const char *command);

#endif
