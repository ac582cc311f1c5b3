/* keeper_parts: what the files of the keeper share; nobody else includes it.
 * keeper.c: life and loop; keeper_start.c: makes or adopts the job; keeper_client.c:
 * those attached. */
#ifndef NEARGPU_KEEPER_PARTS_H
#define NEARGPU_KEEPER_PARTS_H
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "client/agent/deadline.h"
#include "client/agent/keeper.h"
#include "client/agent/keeper_log.h"
#include "client/agent/launch.h"
#include "client/lib/frame.h"
#include "client/lib/strbuf.h"

#define KEEPER_STDIN_MAX                                         \
    (64 * 1024) /* input waiting for the job before clients wait \
                 */

struct keeper_client {
    int fd; /* -1: free slot */
    bool attached;
    bool closing; /* close when `out` is sent */
    int64_t offset;
    struct frame_reader in;
    struct strbuf out; /* x and E frames; the log is sent from its file */
    size_t out_sent;
};

struct keeper {
    char *job_dir, *lease_dir, *state_dir, *cgroup_dir;
    struct launch_spec spec;
    struct deadline deadline;
    struct keeper_log log;
    int job_fd, lock_fd, signal_fd, listen_fd;
    int ready_fd;          /* one line to launch_start; -1 when told */
    int events_fd;         /* cgroup.events of the job */
    int ctl, out_r, err_r; /* FIFOs; -1 once at their end */
    int in_w;              /* -1: not wanted, closed, or the job closed it */
    struct strbuf in_wait; /* not yet taken by the job */
    bool in_eof;           /* close in_w once in_wait is empty */
    int nicer;             /* how much a job is nicer than this process */
    bool killed;           /* the end came and cgroup.kill was written */
    char *exit_json;       /* set when the job has ended: only clients are left */
    int64_t idle_since_us; /* boot clock; ended and nobody attached since */
    struct keeper_client clients[KEEPER_CLIENTS_MAX];
};

/* keeper_start.c */
/* Opens the FIFOs, makes the job. On failure nothing of it runs. */
int keeper_start_job(struct keeper *k, struct err *err) MUST_USE;
/* Opens the FIFOs of a job that runs already. */
int keeper_adopt_job(struct keeper *k, struct err *err) MUST_USE;
bool keeper_file_exists(const struct keeper *k, const char *name);
/* Opens cgroup.events of the job, if its cgroup is there. */
void keeper_watch_cgroup(struct keeper *k);

/* keeper_client.c */
void keeper_clients_init(struct keeper *k);
void keeper_client_accept(struct keeper *k);
/* What to poll for; 0 events is possible. */
short keeper_client_events(const struct keeper *k, const struct keeper_client *c);
void keeper_client_turn(struct keeper *k, struct keeper_client *c, short revents);
void keeper_client_close(struct keeper_client *c);
/* Writes waiting input to the job; closes stdin when that is due. */
void keeper_stdin_turn(struct keeper *k);

#endif
