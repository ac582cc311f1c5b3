/* sequencer: gives every record that must be in the verifiable log its place there, and
 * signs the log's head. The only part that holds a log's key.
 *
 * Several at a time are safe and useless: an append names the size it was made for, and
 * the database takes one. Nothing is kept between rounds but the log's edge, which is
 * read again when another has appended. It does not decide what must be logged: rows
 * queue themselves (sql/migrations/0004_log.sql). */
#ifndef NEARGPU_SEQUENCER_H
#define NEARGPU_SEQUENCER_H
#include <libpq-fe.h>
#include <openssl/evp.h>
#include <stdint.h>

#include "client/lib/err.h"

#define SEQUENCER_BATCH 1000 /* leaves an append: bounds memory and one transaction */

struct sequencer;

/* Reads the key file (PEM, 0600), or makes it when it is not there. */
int sequencer_open(const char *key_file, struct sequencer **ret,
                   struct err *err) MUST_USE;
void sequencer_free(struct sequencer *s);
/* Appends what waits in both logs; *ret_count: leaves. */
int sequencer_round(struct sequencer *s, PGconn *pg, int64_t *ret_count,
                    struct err *err) MUST_USE;

/* Reads every leaf with its record as it is now, and every signed head: is each record
 * what was logged, and each head the root of its leaves, signed by the log's key? Each
 * breach is one line in *ret_text (heap, "" none; at most SEQUENCER_BREACHES_MAX). */
#define SEQUENCER_BREACHES_MAX 100
int sequencer_verify(PGconn *pg, char **ret_text, int64_t *ret_leaves,
                     struct err *err) MUST_USE;

#endif
