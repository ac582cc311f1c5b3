/* signer: signs for the market, and refuses what the market must never sign. Holds the
 * private keys of a keystore and knows nothing else: no database, no network, no
 * clock (the message's own time says which key signs).
 *
 * In neargpud it is a process of its own: `neargpud signer FD DIR`, which reads the
 * keys and then can do nothing but read, write and end (seccomp). signer_link_* is the
 * server's side of it. Both ends are one program of one build, so a grant is the
 * structure itself; every bound of it is checked again by the signer. */
#ifndef NEARGPU_SIGNER_H
#define NEARGPU_SIGNER_H
#include <stdint.h>

#include "client/lib/err.h"
#include "server/issuer/issuer.h"
#include "server/issuer/keystore.h"

/* --- signing ------------------------------------------------------------------- */

/* See issuer.h for what is refused. Caller frees *ret_token. */
int signer_grant(const struct keystore *keys, const struct token_claims *claims,
                 char **ret_token, struct err *err) MUST_USE;
int signer_status(const struct keystore *keys, const struct issuer_status *doc,
                  char **ret_token, struct err *err) MUST_USE;
int signer_ack(const struct keystore *keys, const struct issuer_ack *ack,
               char **ret_token, struct err *err) MUST_USE;

/* --- its own process ----------------------------------------------------------- */

/* The program: serves what comes over fd until it is closed; the exit status. */
int signer_main(int fd, const char *dir);

struct signer_link;
/* Starts `exe signer FD DIR` (exe NULL: this program). */
int signer_link_open(const char *exe, const char *dir, struct signer_link **ret,
                     struct err *err) MUST_USE;
/* Ends it, and waits. */
void signer_link_free(struct signer_link *l);
/* Ends it and starts another, which has read the keys anew. */
int signer_link_restart(struct signer_link *l, struct err *err) MUST_USE;
/* One round trip, some tens of microseconds. A signer that died is started again, once;
 * ERR_UNAVAILABLE when that does not help. */
int signer_link_grant(struct signer_link *l, const struct token_claims *claims,
                      char **ret_token, struct err *err) MUST_USE;
int signer_link_status(struct signer_link *l, const struct issuer_status *doc,
                       char **ret_token, struct err *err) MUST_USE;
int signer_link_ack(struct signer_link *l, const struct issuer_ack *ack,
                    char **ret_token, struct err *err) MUST_USE;

#endif
