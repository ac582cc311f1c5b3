/* migrate: brings a database to what this program needs: roles, numbered migrations,
 * functions, reports, grants, and on the first start the market's row and the first
 * administrator's key.
 *
 * Invariants
 *  - One transaction and one advisory lock for everything: several servers may start at
 *    once, and a failure leaves nothing half done.
 *  - A migration that was applied is compared by its SHA-256: one that was edited
 *    afterwards, is missing, or is newer than this program, is refused.
 *  - Functions and reports are applied anew whenever any of their texts changed.
 * Blocks; for use before the event loop runs. The SQL is built in (sqlfiles.h). */
#ifndef NEARGPU_MIGRATE_H
#define NEARGPU_MIGRATE_H
#include <stdbool.h>
#include <stdint.h>

#include "client/lib/err.h"
#include "server/db/sqlfiles.h"

struct migrate_opts {
    /* A role that may create roles (superuser of the private cluster). */
    const char *conninfo;
    /* The market's row, used when there is none yet. */
    const char *market_name, *currency, *issuer_name;
    const char *issuer_registration, *issuer_address; /* NULL: none */
    int64_t fee_ppm, tax_ppm;
    /* SHA-256 of the first administrator's key, kept when no administrator's key is
     * there yet. NULL: none is made. */
    const uint8_t *admin_key_hash;
    const struct sqlfile *files; /* NULL: those built in (tests give others) */
};
struct migrate_result {
    int applied;         /* migrations */
    bool functions;      /* functions and reports were applied */
    bool market_made;    /* the first start */
    bool admin_key_kept; /* admin_key_hash is an administrator now */
};
int migrate_run(const struct migrate_opts *opts, struct migrate_result *ret,
                struct err *err) MUST_USE;

#endif
