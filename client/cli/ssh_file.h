/* ssh_file: keys as OpenSSH's programs want them. ssh of Debian 12 reads no Ed25519 key
 * from PKCS#8, which is how an account keeps its own: so it is written in OpenSSH's
 * form beside it. Source: PROTOCOL.key of OpenSSH, RFC 8709. Pure. */
#ifndef NEARGPU_SSH_FILE_H
#define NEARGPU_SSH_FILE_H
#include <openssl/evp.h>

#include "client/lib/err.h"
#include "client/lib/strbuf.h"

/* An Ed25519 private key, not encrypted, PEM-like text ("-----BEGIN OPENSSH …"). The
 * text is secret: the caller clears it. */
int ssh_file_private(EVP_PKEY *key, struct strbuf *out, struct err *err) MUST_USE;
/* The first two words of a public key's line ("TYPE BASE64 comment"): heap, to be
 * freed; ERR_BAD_REQUEST when they do not look like such. */
int ssh_file_words(const char *line, char **ret_type, char **ret_key,
                   struct err *err) MUST_USE;

#endif
