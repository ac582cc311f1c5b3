/* sshkey: Ed25519 keys as OpenSSH keeps them: so that the key a tenant has already can
 * be the one his tokens are bound to. Public: "ssh-ed25519 BASE64 comment" (RFC 8709
 * over RFC 4253 strings). Private: "-----BEGIN OPENSSH PRIVATE KEY-----" (PROTOCOL.key
 * of OpenSSH), not encrypted: what is encrypted is asked of ssh-agent (sshagent.h). Own
 * parser, every length checked against what is left. Pure. */
#ifndef NEARGPU_SSHKEY_H
#define NEARGPU_SSHKEY_H
#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"
#include "client/lib/jws.h"

#define SSHKEY_TYPE        "ssh-ed25519"
#define SSHKEY_FILE_MAX    (16 * 1024)       /* a key file; ours have some 400 bytes */
#define SSHKEY_BLOB_LEN    (4 + 11 + 4 + 32) /* type and key as strings */
#define SSHKEY_TEXT_MAX    96 /* "ssh-ed25519 " + base64 of the blob, and NUL */
#define SSHKEY_FINGER_MAX  64 /* "SHA256:" + 43 characters, and NUL */
#define SSHKEY_COMMENT_MAX 64

struct sshkey_public {
    uint8_t pub[JWS_ED25519_LEN];
    char comment[SSHKEY_COMMENT_MAX]; /* printable ASCII, cut; "" when there is none */
};

/* One line, as in a .pub file (a newline at the end is fine). ERR_BAD_REQUEST: not such
 * a line, options before the key, or another kind of key. */
int sshkey_public(const char *text, size_t len, struct sshkey_public *ret,
                  struct err *err) MUST_USE;
/* A key blob as the agent and files hold it. */
int sshkey_blob_read(const uint8_t *blob, size_t len, uint8_t pub[JWS_ED25519_LEN],
                     struct err *err) MUST_USE;
void sshkey_blob(const uint8_t pub[JWS_ED25519_LEN], uint8_t out[SSHKEY_BLOB_LEN]);
/* "ssh-ed25519 BASE64", without comment. */
void sshkey_text(const uint8_t pub[JWS_ED25519_LEN], char out[SSHKEY_TEXT_MAX]);
/* "SHA256:…" as ssh-keygen -l prints it. */
void sshkey_fingerprint(const uint8_t pub[JWS_ED25519_LEN],
                        char out[SSHKEY_FINGER_MAX]);

/* Is the text OpenSSH's private form at all? (Else it may be PKCS#8.) */
bool sshkey_is_private(const char *text, size_t len);
/* Caller EVP_PKEY_free()s. An encrypted key is refused with what to do. */
int sshkey_private(const char *text, size_t len, EVP_PKEY **ret,
                   struct err *err) MUST_USE;

#endif
