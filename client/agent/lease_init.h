/* lease_init: PID 1 of a job's pid namespace. Forks the job, reaps, forwards signals,
 * ends the namespace when the job is gone or the lease's end has come (by a boot-time
 * timer of its own). A PID 1 cannot be killed or stopped from inside its namespace, and
 * when it exits the kernel kills all that is left: whatever ignores signals or has left
 * its session goes too.
 *
 * It holds an open end of each of the job's FIFOs, so that the job sees neither SIGPIPE
 * nor end of input while no keeper is there. It keeps root's uid with CAP_KILL only.
 *
 * ctl (FIFO): messages of two bytes: 's' signo to the job's process group, 't' signo to
 * every process, 'I' 0: close stdin; and of six: 'w' 0 rows cols (big-endian, 16 bits):
 * the terminal's new window. */
#ifndef NEARGPU_LEASE_INIT_H
#define NEARGPU_LEASE_INIT_H
#include <stdbool.h>
#include <stdint.h>

#include "client/agent/deadline.h"
#include "client/agent/launch.h"
#include "client/lib/err.h"

#define LEASE_INIT_V1 3 /* v1 hierarchies that may limit a job */

struct lease_init {
    const struct launch_spec *spec;
    const char *lease_dir, *state_dir;
    struct deadline deadline;    /* opened on the host's side of the mount namespace */
    int job_fd;                  /* JOB directory, for `exit` */
    int ctl;                     /* O_RDWR, non-blocking */
    int in_r, in_w;              /* stdin FIFO; -1 when not wanted */
    int out, err;                /* O_RDWR */
    int v1_procs[LEASE_INIT_V1]; /* tasks of the lease in v1 memory, pids and
                                    cpu, or -1 */
    int nicer;                   /* how much the job is nicer than its keeper */
    int report; /* error text when the job cannot start; closed when it did */
};

/* The whole life; called in the new process, does not return. */
void lease_init_run(struct lease_init *li) __attribute__((noreturn));

/* How a job ended, as `exit` has it. First writer wins; a second call is no error. */
struct job_exit {
    bool signaled;
    int value;          /* exit code or signal number */
    const char *reason; /* exited, lease_end, revoked, stopped, killed, lost, failed */
};
int job_exit_write(int job_fd, const struct job_exit *e, struct err *err) MUST_USE;
/* LEASE_DIR/reason if there is one, else fallback. buf is the caller's storage. */
const char *job_exit_reason(int lease_fd, char buf[24], const char *fallback);

#endif
