/* ca: the market's certificate authority. It names the market's servers and agents to
 * each other and signs nothing else: tokens have their own key (issuer.h).
 *
 * Files in its directory: ca.pem and ca.key (made once, P-256, self-signed, 10 years),
 * server.pem and server.key (made again when near their end or when a name is missing).
 * An agent's certificate carries one SPIFFE URI, for 24 hours, whatever the CSR asks
 * for: of a CSR only the public key is taken, and its signature is checked.
 * An edge (reads and writes key files). It keeps no list of what it signed: the
 * database has the thumbprint of each node's certificate. */
#ifndef NEARGPU_CA_H
#define NEARGPU_CA_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/digest.h"
#include "client/lib/err.h"

#define CA_LIFE_S     (INT64_C(3653) * 24 * 3600)
#define CA_SERVER_S   (INT64_C(397) * 24 * 3600) /* what today's clients accept */
#define CA_SERVER_MIN (INT64_C(30) * 24 * 3600)  /* renewed when less is left */
#define CA_AGENT_S    (INT64_C(24) * 3600)
#define CA_BACKDATE_S 300 /* for peers whose clock is behind */
#define CA_PEM_MAX    (64 * 1024)

struct ca;

/* Opens the authority in dir, making it (and dir, 0700) when there is none. */
int ca_open(const char *dir, const char *market, int64_t now_us, struct ca **ret,
            struct err *err) MUST_USE;
void ca_free(struct ca *ca);
/* Certificate in PEM, and SHA-256 of its DER in hex: what agents pin. Borrowed. */
const char *ca_pem(const struct ca *ca);
const char *ca_sha256(const struct ca *ca);

/* Sees that DIR/server.pem and DIR/server.key serve all names (DNS names or IP
 * addresses, without port) for at least CA_SERVER_MIN. */
int ca_ensure_server(struct ca *ca, const char *const *names, size_t name_count,
                     int64_t now_us, struct err *err) MUST_USE;

/* What an agent's CSR becomes. */
struct ca_agent_cert {
    char *pem;                  /* heap */
    uint8_t sha256[SHA256_LEN]; /* of the DER: the thumbprint */
};
/* ERR_BAD_REQUEST for a CSR that is none, is not signed by its own key, or whose key is
 * not P-256. */
int ca_sign_agent(struct ca *ca, const char *csr_pem, const char *spiffe_uri,
                  int64_t now_us, struct ca_agent_cert *ret, struct err *err) MUST_USE;
void ca_agent_cert_done(struct ca_agent_cert *cert);

#endif
