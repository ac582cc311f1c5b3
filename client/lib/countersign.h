/* countersign: the market's word, signed, that it has a receipt (neargpu-ack+jwt): of
 * which node and reservation, which number, and the SHA-256 of its text. Whoever holds
 * one for a receipt can drop the receipt, and can hold it against the market. Pure. */
#ifndef NEARGPU_COUNTERSIGN_H
#define NEARGPU_COUNTERSIGN_H
#include <stdbool.h>
#include <stdint.h>

#include "client/lib/keyring.h"

struct countersign {
    const char *iss, *node, *reservation;
    const char *hash; /* hex */
    int64_t seq;
};

struct countersign_said {
    bool unknown_key; /* it names a key that is not among those given */
    int64_t log_by;   /* the second by which it promises a place in the log; 0: none */
};

/* Whether the text countersigns exactly this receipt with one of these keys (NULL:
 * there are none), not a revoked one. The keys' dates do not matter: what was
 * acknowledged stays so. log_by is set only where it does. */
bool countersign_is_of(const char *text, const struct countersign *want,
                       const struct keyring *keys, struct countersign_said *ret);

#endif
