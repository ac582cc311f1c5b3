/* sshsrv_impl: what the files of sshsrv share: the connections (sshsrv.c), which lease
 * a key opens and how a session becomes a job (sshsrv_lease.c), and the sshd processes
 * that end with their leases (sshsrv_watch.c). Not for other modules. */
#ifndef NEARGPU_AGENT_SSHSRV_IMPL_H
#define NEARGPU_AGENT_SSHSRV_IMPL_H
#include "client/agent/launch.h"
#include "client/agent/leases.h"
#include "client/agent/sshsrv.h"
#include "client/agent/ticket.h"
#include "client/lib/frame.h"

enum ssh_state {
    SSH_ASKING,   /* waiting for the request */
    SSH_STARTING, /* its job is being started */
    SSH_LIVE,     /* its session runs */
    SSH_DEAD
};

struct ssh_client {
    struct sshsrv *srv;
    struct ssh_client *next;
    enum ssh_state state;
    int fd;
    struct event *event, *timer;
    struct frame_reader in;
    pid_t pid;                  /* of the helper */
    struct launch_ready ready;  /* the keeper's word; fd -1: none is awaited */
    struct event *ready_event;  /* NULL: none */
    char lease[JOURNAL_ID_MAX]; /* of its session; "": none yet */
    char job[JOURNAL_ID_MAX];
};

struct ssh_watch;

struct sshsrv {
    struct agent *a;
    int listen_fd;
    char *path;
    uid_t user;
    struct event *listen_event, *reaper, *watch_timer;
    struct tickets tickets;
    struct ssh_client *clients;
    size_t count;
    struct ssh_watch *watches;
    size_t watch_count;
};

/* --- sshsrv_lease.c --- */

/* The open leases that a key opens, or the one of them that `only` names; at most cap.
 */
size_t ssh_leases_of(const struct agent *a, const uint8_t key[SHA256_LEN],
                     const char *only, const struct journal_lease **out, size_t cap);
/* {"type","key"} -> {"ticket","forward"}; ret_key and ret_only: what the ticket is for.
 */
int ssh_answer_keys(struct sshsrv *s, const json_t *body, json_t **ret,
                    struct ticket_claims *ret_claims, struct err *err) MUST_USE;
/* The whole of a session's request: on success the job is being started: c->lease,
 * c->job and c->ready are set. *ret_step names the step otherwise. */
int ssh_begin_session(struct ssh_client *c, const json_t *body, const char **ret_step,
                      struct err *err) MUST_USE;

/* --- sshsrv_watch.c --- */

/* Remembers the sshd that runs the helper `pid`, until it ends by itself. */
int ssh_watch_add(struct sshsrv *s, pid_t pid, const struct ticket_claims *claims,
                  struct err *err) MUST_USE;
void ssh_watch_free_all(struct sshsrv *s);

#endif
