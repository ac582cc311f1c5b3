/* sync_log: a node as a witness of the log, in what it says and is told in a sync
 * (docs/wire.md): which heads it wants, what it cosigned, what it refused. A
 * cosignature is kept when it is right, by the key that came with it over the node's
 * own connection, and of a head that the log signed. Nothing here fails a sync. Pure.
 */
#ifndef NEARGPU_FLOW_SYNC_LOG_H
#define NEARGPU_FLOW_SYNC_LOG_H
#include <jansson.h>

#include "client/lib/err.h"
#include "client/lib/note.h"

struct sync_log {
    json_t *ask;             /* owned: for STORE_AGENT_LOG; NULL: it said nothing */
    json_t *given, *refused; /* owned: cosignatures as given; what it refused */
    struct note_key key;     /* its own */
    char vkey[NOTE_VKEY_MAX];
    json_t *reply; /* owned: for the answer */
};

/* said: the sync's member "log"; the key's name must be that of this node. */
int sync_log_parse(const json_t *said, const char *spiffe_id, struct sync_log *ret,
                   struct err *err) MUST_USE;
void sync_log_done(struct sync_log *l);

/* What STORE_AGENT_LOG answered: makes the reply, which says what of it was taken, and
 * returns the cosignatures that are right, for STORE_AGENT_COSIGN; caller owns. */
json_t *sync_log_take(struct sync_log *l, const json_t *answer);

#endif
