/* turn: work of billd that goes on beside its rounds, in a thread and on a database
 * connection of its own: a round that takes long delays it by nothing.
 *
 * A turn runs its function again and again with a pause after each; an error is logged
 * and tried again, a lost connection is made anew. It shares nothing with other threads
 * but what `arg` points to, which is its own. It ends with the process. */
#ifndef NEARGPU_TURN_H
#define NEARGPU_TURN_H
#include <libpq-fe.h>
#include <stdint.h>

#include "client/lib/err.h"

struct turn {
    const char *conninfo;
    int (*go)(void *arg, PGconn *pg, struct err *err);
    void *arg;
    int64_t pause_us;
    int rest; /* a pause is at least so many times as long as what it follows */
};

void turn_pause(int64_t us);
/* Copies what it is given. */
int turn_start(const struct turn *t, struct err *err) MUST_USE;

#endif
