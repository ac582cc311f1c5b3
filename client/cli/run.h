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
#include "client/lib/strbuf.h"

/* ---- run_link.c ------------------------------------------------------------------ */

struct run_link {
    int fd;
    SSL_CTX *ctx;
    SSL *ssl; /* NULL on a unix socket */
    struct strbuf out;
    size_t out_done; /* bytes of out already sent */
    struct frame_reader in;
    bool eof;
};

void run_link_init(struct run_link *l);
void run_link_close(struct run_link *l);
/* Connects and, over TCP, checks that the peer holds a certificate of the market (ca)
 * that names `audience`. */
int run_link_open(struct run_link *l, const char *address, const char *ca_file,
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
    int64_t start_us; /* of the reservation, 0: not known */
    EVP_PKEY *key;
    char *job;      /* NULL: not known yet */
    int64_t offset; /* of the job's output log: seen so far */
    bool launched;  /* by us: its standard input is ours */
    bool fed;       /* input was sent over the link; nothing says how much arrived */
    struct run_link link;
};

/* What the agent said when it refused. */
struct run_refusal {
    char error[32], step[32];
};

enum run_request { RUN_LAUNCH, RUN_ATTACH, RUN_JOBS };
/* Opens the link, proves possession for the request and returns the answer's JSON.
 * body: members beside token and proof (borrowed); argv: of a launch, else NULL. A
 * refusal is ERR_TOKEN and so on by its code, with *refusal filled. */
int run_ask(struct run *r, enum run_request what, const json_t *body,
            const char *const *argv, json_t **ret, struct run_refusal *refusal,
            struct err *err) MUST_USE;
/* Reads audience and exp out of the token (not verified: the agent does that). */
int run_take_token(struct run *r, const char *token, struct err *err) MUST_USE;

/* ---- run_stream.c ---------------------------------------------------------------- */

enum run_end {
    RUN_EXITED,   /* *ret_status is the job's */
    RUN_DETACHED, /* the user left; the job runs on */
    RUN_LOST,     /* connection lost; err says why */
};
/* Streams until one of these. Signals are taken from the process meanwhile. */
enum run_end run_stream(struct run *r, int *ret_status, struct err *err);

#endif
