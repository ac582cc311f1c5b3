/* nodecert: the node's key and 24-hour certificate towards the market and its tenants,
 * and their renewal. They are the front's: in a directory of its own, which is all of
 * the disk that it may write.
 *
 *   DIR/node.key  P-256, 0600        DIR/node.pem  certificate
 *
 * Renewal is two-phase: key and certificate are written as node.key.new and
 * node.pem.new, used once, and take the place of the old ones only then. The market
 * drops the old certificate when it sees the new one, so a new pair on disk is never
 * thrown away before the market has refused it; a crash between the two renames is
 * mended at the next load. */
#ifndef NEARGPU_AGENT_NODECERT_H
#define NEARGPU_AGENT_NODECERT_H
#include <stdbool.h>
#include <stdint.h>

#include "client/lib/err.h"

struct nodecert {
    char *dir, *spiffe_id;
    char *key_file, *cert_file;
    char *new_key_file, *new_cert_file;
    int64_t cert_from_us, cert_to_us;
    bool has_new; /* a new pair was found that may or may not have been used already */
};

int nodecert_load(const char *dir, const char *spiffe_id, struct nodecert *ret,
                  struct err *err) MUST_USE;
void nodecert_done(struct nodecert *n);

/* Enrolment: a key in DIR and a CSR for it (caller frees); then its certificate. */
int nodecert_make_first(const char *dir, const char *name, char **ret_csr,
                        struct err *err) MUST_USE;
int nodecert_store_first(const char *dir, const char *pem, struct err *err) MUST_USE;

/* Past half of the certificate's life? */
bool nodecert_is_due(const struct nodecert *n, int64_t now_us);
/* Phase 1: a new key in new_key_file; *ret_csr for the server (caller frees). */
int nodecert_renew_begin(struct nodecert *n, char **ret_csr, struct err *err) MUST_USE;
/* The certificate for it, checked against the key, in new_cert_file. */
int nodecert_renew_store(struct nodecert *n, const char *cert_pem,
                         struct err *err) MUST_USE;
/* Phase 2: the new pair worked. */
int nodecert_renew_commit(struct nodecert *n, struct err *err) MUST_USE;
void nodecert_renew_abort(struct nodecert *n);

#endif
