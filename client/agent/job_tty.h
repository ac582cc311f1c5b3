/* job_tty: the terminal of a job that asked for one, kept by lease-init. Master and
 * slave are made in the job's own devpts, so that nothing of the host's terminals is in
 * its reach; bytes go between the master and the job's FIFOs, where the keeper finds
 * them as it finds any job's. A keeper that dies takes no terminal with it.
 *
 * Invariants: never blocks; holds at most one block each way, so a reader that stopped
 * stops the job's writes and nothing else; the slave stays open here, so the master
 * never reports a hang-up while lease-init lives. An edge. */
#ifndef NEARGPU_JOB_TTY_H
#define NEARGPU_JOB_TTY_H
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>

#include "client/agent/launch.h"
#include "client/lib/err.h"

#define JOB_TTY_BLOCK 4096
#define JOB_TTY_POLL  3 /* descriptors to poll */

struct job_tty {
    int master, slave; /* -1: the job has no terminal */
    int in, out;       /* the job's FIFOs, non-blocking; borrowed */
    bool in_open;      /* the end of input was not seen yet */
    char in_block[JOB_TTY_BLOCK], out_block[JOB_TTY_BLOCK];
    size_t in_len, in_done, out_len, out_done;
};

/* No terminal: the other functions then do nothing. */
void job_tty_init(struct job_tty *t);
/* Called as root, inside the job's file tree. The slave belongs to the spec's uid. */
int job_tty_open(struct job_tty *t, const struct launch_spec *spec, int in, int out,
                 struct err *err) MUST_USE;
/* In the child that becomes the job, after setsid(): stdio and controlling terminal. */
int job_tty_enter(const struct job_tty *t, struct err *err) MUST_USE;
void job_tty_window(const struct job_tty *t, unsigned rows, unsigned cols);
void job_tty_poll(const struct job_tty *t, struct pollfd fds[JOB_TTY_POLL]);
void job_tty_turn(struct job_tty *t);
/* Output that has not reached the FIFO. */
bool job_tty_has_output(const struct job_tty *t);

#endif
