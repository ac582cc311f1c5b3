/* run: one job on a reserved node, seen from the tenant (docs/wire.md, "Tenant to
 * agent"). Four parts, bottom up:
 *   run_link.c    a connection that carries frames (TLS to the agent, or its unix
 * socket) run_ask.c     the agent's greeting, the proof, one request and its answer
 *   run_stream.c  standard streams and signals until the job's end or a lost connection
 *   cmd_run.c     tokens, waiting, reconnecting, exit status
 * The agent is trusted only after its certificate named the token's audience. */
#ifndef NEARGPU_RUN_H
#define NEARGPU_RUN_H
#include <jansson.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

#include "client/cli/cli.h"
#include "client/lib/frame.h"
#include "client/lib/jws.h"
#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"

/* ---- run_link.c ------------------------------------------------------------------ */

struct run_link {
    int fd;
    SSL_CTX *ctx;
    SSL *ssl; /* NULL on a unix socket */
    struct strbuf out;
    size_t out_done; /* bytes of out already sent */
    struct frame_reader in;
    bool eof;
    /* While it is being opened without waiting: */
    struct addrinfo *addresses, *next; /* still to be tried */
    bool connecting, shaking;
    short want; /* poll() events that the opening waits for */
};

void run_link_init(struct run_link *l);
void run_link_close(struct run_link *l);
/* Connects and, over TCP, checks that the peer holds a certificate of the market (ca)
 * that names `audience`. */
int run_link_open(struct run_link *l, const char *address, const char *ca_file,
                  const char *audience, struct err *err) MUST_USE;
/* The same without waiting (but for the host's name): start, then step whenever
 * l->want is ready. 1: open; 0: not yet; -1: failed. */
int run_link_start(struct run_link *l, const char *address, struct err *err) MUST_USE;
int run_link_step(struct run_link *l, const char *address, const char *ca_file,
                  const char *audience, struct err *err) MUST_USE;
void run_link_send(struct run_link *l, char type, const void *data, size_t len);
size_t run_link_queued(const struct run_link *l);
/* poll() events of interest. */
short run_link_events(const struct run_link *l, bool want_read);
/* Moves what can be moved without waiting. -1: the connection is lost. eof is set when
 * the peer has closed. */
int run_link_pump(struct run_link *l, bool want_read, struct err *err) MUST_USE;
/* Waits for one frame; the stream is kept whole. */
int run_link_frame(struct run_link *l, int timeout_ms, struct frame *ret,
                   struct err *err) MUST_USE;

/* ---- run_ask.c ------------------------------------------------------------------- */

struct run {
    struct cli *c;
    const char *reservation; /* NULL with --token-file */
    char *token, *audience, *address;
    int64_t expires_us;
    /* A fresh token when renew_us (boot clock) comes, while the job runs; NULL: never.
     */
    void (*renew)(struct run *r);
    int64_t renew_us;
    int64_t start_us; /* of the reservation, 0: not known */
    EVP_PKEY *key;
    char *job;      /* NULL: not known yet */
    int64_t offset; /* of the job's output log: seen so far */
    bool launched;  /* by us: its standard input is ours */
    bool tty;       /* our terminal is the job's */
    bool fed;       /* input was sent over the link; nothing says how much arrived */
    struct run_link link;
};

/* What the agent said when it refused. */
struct run_refusal {
    char error[32], step[32];
};

enum run_request { RUN_LAUNCH, RUN_ATTACH, RUN_JOBS, RUN_ADOPT };
/* Opens the link, proves possession for the request and returns the answer's JSON.
 * body: members beside token and proof (borrowed); argv: of a launch, else NULL. A
 * refusal is ERR_TOKEN and so on by its code, with *refusal filled. */
int run_ask(struct run *r, enum run_request what, const json_t *body,
            const char *const *argv, json_t **ret, struct run_refusal *refusal,
            struct err *err) MUST_USE;
#define RUN_ANSWER_TIMEOUT_MS 30000
/* The steps of run_ask, for those who wait elsewhere. A frame as the answer `type`, or
 * a refusal; the agent's greeting -> nonce; the request with its proof into the link.
 */
int run_take_answer(const struct frame *f, char type, json_t **ret,
                    struct run_refusal *refusal, struct err *err) MUST_USE;
int run_check_greeting(const struct run *r, const json_t *hello,
                       char nonce[JWS_KID_MAX], struct err *err) MUST_USE;
int run_put_request(struct run *r, enum run_request what, const json_t *body,
                    const char *const *argv, const char *nonce,
                    struct err *err) MUST_USE;
/* Reads audience and times out of the token (not verified: the agent does that); it is
 * to be renewed at half of its life from now on. */
int run_take_token(struct run *r, const char *token, struct err *err) MUST_USE;

/* ---- cmd_run.c: what one job and a gang have in common
 * -------------------------------
 */

#define RUN_READY_WAIT_US \
    (15 * US_PER_S) /* from the start until the node has opened it */
#define RUN_LOST_WAIT_US                                                               \
    (60 * US_PER_S)                        /* a lost connection is tried again so long \
                                            */
#define RUN_RENEW_AGAIN_US (60 * US_PER_S) /* after a renewal that did not succeed */
#define RUN_TOKEN_MARGIN_US                                  \
    (30 * US_PER_S) /* a token this near its end is not sent \
                     */

/* Whether the server's no to a renewal is for good. */
bool run_renew_is_vain(const struct err *why);
/* Fetches the reservation and, with --wait, waits for its start. */
int run_check_reservation(struct run *r, json_t **ret, struct err *err) MUST_USE;
/* The user's terminal (run_tty.c). ask: adds "pty" to a launch; ERR_USAGE when there is
 * none. begin: keys go through as typed, until end. size: tells the window's. */
struct termios;
int run_tty_ask(json_t *body, struct err *err) MUST_USE;
bool run_tty_begin(struct termios *ret_before);
void run_tty_end(const struct termios *before);
void run_tty_size(struct run *r);
/* {"argv","env","cwd"?,"stdin"} from the command's options. */
int run_launch_body(struct run *r, const char *const *argv, json_t **ret,
                    struct err *err) MUST_USE;
/* The node's clock may be a little behind, the lease before may still be cleaned up. */
bool run_is_not_ready(const struct run *r, const struct run_refusal *refusal);
/* A request and its answer, again while the node is not ready. */
int run_ask_when_ready(struct run *r, enum run_request what, const json_t *body,
                       const char *const *argv, json_t **ret, struct err *err) MUST_USE;
/* All ranks of a reservation (gang.h): launch, attach or list by the options. */
int run_gang(struct run *r, const json_t *resv, struct err *err) MUST_USE;

/* ---- run_stream.c ---------------------------------------------------------------- */

enum run_end {
    RUN_EXITED,   /* *ret_status is the job's */
    RUN_DETACHED, /* the user left; the job runs on */
    RUN_LOST,     /* connection lost; err says why */
};
/* What the end's `reason` means in words; NULL for an ordinary end. */
const char *run_end_text(const char *reason);
/* {"exit":N} or {"signal":N} -> status as a shell has it. */
int run_end_status(const json_t *end);
/* Streams until one of these. Signals are taken from the process meanwhile. */
enum run_end run_stream(struct run *r, int *ret_status, struct err *err);

#endif
