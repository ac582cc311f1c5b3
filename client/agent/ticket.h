/* ticket: the word that lets one SSH session in. sshd asks for the keys of a user with
 * a public key in hand, and starts the forced command later, without telling it which
 * key it was: the ticket in the command's line says it.
 *
 * Text: base64url of id (16 random bytes) | expiry (boot time, us, 64 bits big-endian)
 * | SHA-256 of the key's text | length of the lease's id and the id ("" when the key
 * holds several) | HMAC-SHA-256 of all of it.
 *
 * Invariants: good for TICKET_LIFE_US and once; bound to its key and lease; nothing is
 * kept of a ticket until it is used, so that whoever only shows keys (anybody can)
 * fills no memory. Used ones are remembered until they expire; when that memory is full
 * none is taken. The secret is made anew at each start: older tickets are worth
 * nothing. Pure: the random bytes and the time are handed in. Does not know leases or
 * holders. */
#ifndef NEARGPU_AGENT_TICKET_H
#define NEARGPU_AGENT_TICKET_H
#include <stddef.h>
#include <stdint.h>

#include "client/agent/journal.h"
#include "client/lib/digest.h"
#include "client/lib/err.h"

#define TICKET_LIFE_US  INT64_C(120000000)
#define TICKET_ID_LEN   16
#define TICKET_TEXT_MAX 256
#define TICKET_USED_MAX 4096 /* sessions begun within TICKET_LIFE_US */

struct ticket_claims {
    uint8_t id[TICKET_ID_LEN];
    uint8_t key[SHA256_LEN];    /* SHA-256 of "TYPE BASE64" */
    char lease[JOURNAL_ID_MAX]; /* "": any lease of the key */
};

struct ticket_used {
    uint8_t id[TICKET_ID_LEN];
    int64_t until_us;
};

struct tickets {
    uint8_t secret[SHA256_LEN];
    struct ticket_used used[TICKET_USED_MAX];
    size_t used_count;
};

void tickets_init(struct tickets *t, const uint8_t secret[SHA256_LEN]);
/* The ticket's text. */
void ticket_make(const struct tickets *t, const struct ticket_claims *claims,
                 int64_t boot_us, char ret[TICKET_TEXT_MAX]);
/* Takes it: never again after this. ERR_TOKEN: forged, expired or used before. */
int ticket_take(struct tickets *t, const char *text, int64_t boot_us,
                struct ticket_claims *ret, struct err *err) MUST_USE;

#endif
