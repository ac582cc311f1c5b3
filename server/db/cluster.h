/* cluster: the private PostgreSQL cluster of a server that was given no database.
 *
 * Charter: makes the cluster in DATA_DIR/pg (initdb, checksums, fsync on), runs
 * `postgres` as a child, keeps it running, and stops it. It is reached by its unix
 * socket alone, in DATA_DIR/run; who may be which role is decided by the kernel (peer
 * authentication): root and the server's own user may be neargpu_server, neargpu_billd,
 * neargpu_report, and superuser for migrations; the system user that runs it is
 * superuser; nobody else gets in.
 *
 * Invariants
 *  - One server a data directory: DATA_DIR/pg.lock is held for life.
 *  - A cluster directory is whole or absent: initdb works beside it, then a rename.
 *  - The child goes with the server however that ends (parent-death signal), and the
 *    next start waits for a predecessor that is still stopping.
 * It knows nothing of what is in the database. An edge. */
#ifndef NEARGPU_CLUSTER_H
#define NEARGPU_CLUSTER_H
#include <event2/event.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/lib/err.h"

#define CLUSTER_DATABASE "neargpu"
#define CLUSTER_ADMIN    "postgres" /* role for migrate_run() */

struct cluster_opts {
    const char *data_dir;
    /* System user to run it as when the server is root (postgres refuses to be root);
     * NULL: "postgres". Not used otherwise. */
    const char *user;
    int shared_buffers_mib;  /* 0: 256; takes effect at the first start */
    bool no_sync;            /* tests only: may lose everything */
    struct event_base *base; /* NULL: it is not restarted when it dies */
};

struct cluster;
/* Makes it if need be, starts it, waits until it answers, and sees that the database
 * is there. Blocks (seconds). */
int cluster_start(const struct cluster_opts *opts, struct cluster **ret,
                  struct err *err) MUST_USE;
/* Fast shutdown, waits for it, frees. NULL is fine. */
void cluster_stop(struct cluster *c);
/* libpq conninfo for a role ("neargpu_server", CLUSTER_ADMIN …). Caller frees. */
char *cluster_conninfo(const struct cluster *c, const char *role);
int64_t cluster_restarts(const struct cluster *c);
int cluster_pid(const struct cluster *c); /* 0 while it is down */

/* The same for another program on this machine: where the socket of data_dir's cluster
 * is. Caller frees. */
char *cluster_socket_dir(const char *data_dir);

#endif
