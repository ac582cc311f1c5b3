/* cluster_priv: what cluster.c (the process) and cluster_dir.c (the directory) share.
 */
#ifndef NEARGPU_CLUSTER_PRIV_H
#define NEARGPU_CLUSTER_PRIV_H
#include <sys/types.h>

#include "server/db/cluster.h"

struct cluster {
    char *data_dir; /* absolute */
    char *pg_dir, *socket_dir, *log_path, *user;
    uid_t uid;
    gid_t gid;
    bool drop;   /* we are root: become uid */
    bool search; /* uid may not pass the directories above: it is lent that right */
    bool no_sync;
    int shared_buffers_mib;
    int lock_fd;
    pid_t pid; /* 0: not running */
    int pidfd;
    struct event_base *base;
    struct event *ev_exit, *ev_restart;
    int64_t started_us, backoff_us, restarts;
};

/* Runs argv as the cluster's user, output appended to pg.log; dies with us. */
pid_t cluster_spawn(const struct cluster *c, char *const argv[], struct err *err);

/* Directories, initdb, configuration files. */
int cluster_dir_prepare(struct cluster *c, struct err *err) MUST_USE;
/* Waits for (and stops) a predecessor's postmaster that is still there. */
int cluster_dir_clear(struct cluster *c, struct err *err) MUST_USE;

void cluster_pause_ms(int ms);

#endif
