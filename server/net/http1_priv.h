/* http1_priv: shared by http1.c (connections, reading) and http1_out.c (replies). */
#ifndef NEARGPU_HTTP1_PRIV_H
#define NEARGPU_HTTP1_PRIV_H
#include <event2/buffer.h>
#include <http_parser.h>
#include <time.h>

#include "client/lib/strbuf.h"
#include "server/flow/ids.h"
#include "server/net/http1.h"

/* A request that was read and whose reply is not wholly handed to the connection. */
struct http1_xchg {
    uint64_t id;
    struct http1_conn *conn;
    struct http1_xchg *next;
    enum { XCHG_WAITING, XCHG_STREAMING, XCHG_DONE } state;
    struct evbuffer *out; /* what it has to say before its turn; NULL: nothing yet */
    uint64_t flow_id;     /* 0: none */
    int64_t started_us;
    size_t bytes;
    int status;
    bool cuttable, last, is_head, chunked; /* last: the connection ends after it */
    int minor;
    char request_id[UUID_TEXT];
    char who[NAME_BYTES_MAX + 12];
    char *method, *path;
};

/* A request being read. */
struct http1_msg {
    char *head_copy;
    size_t head_len;
    struct http1_head head;
    struct http1_chunks chunks;
    http_parser parser;
    bool complete;      /* as the library sees it */
    bool wants_100;     /* "100 Continue" is still to be sent */
    uint64_t body_left; /* with Content-Length */
    struct strbuf body;
    int64_t started_us;
};

/* IDLE: between requests. HEAD, BODY: inside one. SHUT: no more requests are read, what
 * is queued is still answered. LINGER: all is sent, the peer's bytes are thrown away
 * until it has seen the end. DEAD: waits for the reaper. */
enum http1_phase {
    PHASE_IDLE,
    PHASE_HEAD,
    PHASE_BODY,
    PHASE_SHUT,
    PHASE_LINGER,
    PHASE_DEAD
};

struct http1_conn {
    struct http1_server *server;
    struct bufferevent *bev;
    struct event *deadline;
    struct http1_conn *prev, *next; /* the server's list; next also for reaping */
    enum http1_phase phase;
    struct http1_lines lines;
    struct http1_msg *msg; /* PHASE_BODY, and while a head is judged */
    struct http1_xchg *first, **tail;
    size_t pending;
    bool served;  /* had a request: from then on the idle limit counts */
    bool reading; /* conn_read is on the stack */
    char *peer_uri, *peer_thumbprint; /* NULL: none */
    char remote[FLOW_ADDR_MAX];
};

struct http1_server {
    struct http1_opts opts;
    struct ids ids; /* of exchanges */
    struct http1_conn *conns, *dead;
    struct event *reaper;
    bool stopping;
    time_t date_at;
    char date[40];
    struct http1_stats stats;
};

/* http1.c */
void http1_conn_settle(struct http1_conn *c); /* something was answered: what now? */

/* http1_out.c */
struct http1_xchg *http1_xchg_new(struct http1_conn *c, int64_t now_us);
/* Answers a request that could not be read, and lets the connection end. */
void http1_refuse(struct http1_xchg *x, const struct http1_fault *fault);
/* The connection is gone: ends all its exchanges. */
void http1_xchg_drop_all(struct http1_conn *c);
const char *http1_status_text(int status);

#endif
