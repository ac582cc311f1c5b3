/* gang: the processes (ranks) of one run, seen from the tenant: one connection each,
 * all in one poll loop, so that a slow or lost one holds up no other. Parts, bottom up:
 *   gang_rank.c  one rank: connect, ask, stream, come back after a loss
 *   gang_loop.c  all of them with standard streams and signals until the end
 *   cmd_gang.c   tokens, environment, what to do by the options
 *
 * All or nothing: the first rank that fails (or cannot be started) decides the exit
 * status, and the others are told to end (SIGTERM), then made to (SIGKILL), unless the
 * user wants them to go on. */
#ifndef NEARGPU_GANG_H
#define NEARGPU_GANG_H
#include "client/cli/gang_plan.h"
#include "client/cli/lines.h"
#include "client/cli/run.h"
#include "client/cli/sink.h"

#define GANG_GRACE_US (10 * US_PER_S) /* from SIGTERM to SIGKILL, and to giving up */

enum gang_state {
    GANG_RESTING,    /* until wake_us, then connects */
    GANG_CONNECTING, /* TCP and TLS */
    GANG_GREETING,   /* the agent's nonce is due */
    GANG_ANSWER,     /* launch or attach was sent */
    GANG_STREAMING,
    GANG_ENDED
};

struct gang;

struct gang_rank {
    struct gang *g;
    struct run run; /* job NULL: to be launched */
    int rank;
    const char *node; /* borrowed from the plan or the list of jobs */
    char label[16];   /* "[3] " */
    enum gang_state state;
    int64_t wake_us, deadline_us, give_up_us; /* boot clock */
    int64_t delay_us;
    json_t *body; /* of the launch; NULL: attach only */
    bool asked;   /* the launch was sent once: the job may exist */
    bool fresh;   /* the token was fetched after the connection was lost */
    bool feed;    /* standard input goes to it */
    bool fed_end; /* and its end was sent over this connection */
    char nonce[JWS_KID_MAX];
    struct lines out, err;
    int out_fd, err_fd; /* files of its own, -1: the shared streams */
    int status;         /* once ended */
};

struct gang {
    struct cli *c;
    const char *reservation;
    int64_t start_us; /* of the reservation */
    EVP_PKEY *key;    /* borrowed */
    const char *run;  /* the run's id */
    const char *const *argv;
    struct gang_rank *ranks;
    size_t count;
    bool label;      /* lines carry their rank */
    bool keep_going; /* a failure ends no other */
    bool only_start; /* leave once all are launched */
    bool attached;   /* looks on; did not launch */

    struct sink out, err;
    int signal_fd;
    bool stdin_open;
    int64_t last_int_us;
    bool left;      /* the user went away */
    int ending;     /* the signal that was sent to all, 0: none */
    int64_t end_us; /* when the next step of the ending is due */
    bool failed;    /* status is that of the rank that failed first */
    int status;
    char reasons[128]; /* of ends already told, ",lease_end," */
};

/* ---- gang_rank.c -------------------------------------------------------------------
 */

void gang_rank_init(struct gang_rank *r, struct gang *g, int rank, const char *node);
void gang_rank_done(struct gang_rank *r);
/* Descriptor and events to poll for; -1: none now. */
int gang_rank_poll(const struct gang_rank *r, bool room, short *ret_events);
/* Does what can be done without waiting. */
void gang_rank_turn(struct gang_rank *r, short revents, bool room, int64_t now_us);
/* When it wants a turn though nothing came; INT64_MAX: never. */
int64_t gang_rank_due(const struct gang_rank *r);
void gang_rank_signal(struct gang_rank *r, int signo);
/* When its token is to be renewed, while it streams; INT64_MAX: not now. */
int64_t gang_rank_renew_us(const struct gang_rank *r);
/* Nothing was started, or it is out of reach: no more of it. */
void gang_rank_drop(struct gang_rank *r, int status);

/* ---- gang_loop.c -------------------------------------------------------------------
 */

/* Until every rank has ended, the user left, or (only_start) all are launched. */
int gang_loop(struct gang *g, struct err *err) MUST_USE;
/* A rank's output, by stream. */
void gang_output(struct gang *g, struct gang_rank *r, bool is_err, const void *data,
                 size_t len);
/* A rank has come to its end; reason NULL: it never began. */
void gang_ended(struct gang *g, struct gang_rank *r, const char *reason);
bool gang_has_room(const struct gang *g);

/* ---- cmd_gang.c --------------------------------------------------------------------
 */

/* A new token for the rank's node, and its address as it is now. */
int gang_refresh(struct gang_rank *r, struct err *err) MUST_USE;
/* At half of their life new tokens for the ranks that run, so that a connection that is
 * lost while the server cannot be asked is taken up again. Says nothing of a failure.
 */
void gang_renew(struct gang *g, int64_t now_us);

#endif
