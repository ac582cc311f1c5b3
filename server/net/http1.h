/* http1: HTTP/1.1 server connections on bufferevents, plain or TLS.
 *
 * Charter: reads requests strictly (http1_scan, then http_parser over the same bytes),
 * hands each whole one to on_request, and writes the replies in the order of the
 * requests. Keeps every time and size limit of a connection. It knows no paths, roles
 * or flows: dispatch does; it does not accept connections: listen does.
 *
 * Invariants
 *  - Whoever replies names an exchange by its id; when the connection is gone the id
 *    finds nothing and the reply is dropped.
 *  - At most `pipeline_max` requests of a connection are unanswered; more wait unread.
 *  - A refused request is answered once, the rest of its bytes are thrown away, and the
 *    connection ends: after a framing error nobody knows where the next request starts.
 *  - Connections are freed by a timer of the loop, never inside their own callbacks. */
#ifndef NEARGPU_HTTP1_H
#define NEARGPU_HTTP1_H
#include <event2/bufferevent.h>
#include <event2/event.h>

#include "client/lib/uuid.h"
#include "server/flow/flow.h"
#include "server/net/http1_scan.h"

struct http1_server;

struct http1_request {
    uint64_t id; /* of the exchange */
    const struct http1_head *head;
    const char *body; /* NUL added; "" without a body */
    size_t body_len;
    bool has_body; /* framing announced one, even of no bytes */
    const char *remote;
    const char *peer_uri;        /* of a verified client certificate, "" when none */
    const char *peer_thumbprint; /* x5t#S256, "" when none */
    const char *request_id;
    int64_t now_us;
};

/* One line of the access log. */
struct http1_done {
    const char *method, *path; /* "-" when the request could not be read */
    const char *who, *remote, *request_id;
    int status;   /* 499: the client went away first */
    bool is_poll; /* a long poll or stream: its time says nothing */
    int64_t took_us;
    size_t bytes; /* of the body sent */
};

struct http1_opts {
    struct event_base *base;
    void *env;
    /* A whole request. Answer with http1_reply(), now or later. */
    void (*on_request)(void *env, const struct http1_request *rq);
    /* The connection ended before the reply of the flow bound to the exchange. */
    void (*on_gone)(void *env, uint64_t flow_id);
    void (*on_done)(void *env, const struct http1_done *done); /* may be NULL */
    void (*on_closed)(void *closed_env); /* a connection is freed; may be NULL */
    void *closed_env;
    /* 0: the defaults below. */
    int64_t head_us, body_us, idle_us, write_us, linger_us;
    size_t pipeline_max;
};
#define HTTP1_HEAD_US      INT64_C(10000000) /* slow heads are attacks, or hopeless */
#define HTTP1_BODY_US      INT64_C(30000000) /* 256 KiB at 9 kB/s */
#define HTTP1_IDLE_US      INT64_C(75000000) /* as proxies keep connections */
#define HTTP1_WRITE_US     INT64_C(30000000) /* without any progress */
#define HTTP1_LINGER_US    INT64_C(2000000)  /* for the last reply to arrive */
#define HTTP1_PIPELINE_MAX 16
#define HTTP1_OUTPUT_MAX                                        \
    (1024 * 1024) /* unsent bytes past which no request is read \
                   */

struct http1_stats {
    size_t connections, exchanges;
    uint64_t accepted, requests, refused, timeouts;
    uint64_t replies[6]; /* by hundreds of the status; [0]: the client went first */
};

struct http1_server *http1_server_new(const struct http1_opts *opts);
void http1_server_free(struct http1_server *s); /* closes all; NULL is fine */
/* Takes over bev (made with BEV_OPT_CLOSE_ON_FREE). */
void http1_accept(struct http1_server *s, struct bufferevent *bev_take,
                  const char *remote);
size_t http1_connections(const struct http1_server *s);
void http1_stats(const struct http1_server *s, struct http1_stats *ret);
/* Closes idle connections and long polls now, the others after their replies. */
void http1_server_stop(struct http1_server *s);

/* Inside on_request: which flow will answer (for on_gone), whether it is a long poll
 * that a stop may cut short, and what the access log calls the client. */
void http1_bind(struct http1_server *s, uint64_t id, uint64_t flow_id, bool cuttable);
void http1_set_who(struct http1_server *s, uint64_t id, const char *who);

/* All of these do nothing (write: -1) when the exchange is gone. Content-Length, Date,
 * X-Request-Id, Connection and the fixed security headers are added here. */
void http1_reply(struct http1_server *s, uint64_t id, const struct flow_reply *reply);
void http1_stream_begin(struct http1_server *s, uint64_t id,
                        const struct flow_reply *head);
int http1_stream_write(struct http1_server *s, uint64_t id, const void *data,
                       size_t len) MUST_USE;
void http1_stream_end(struct http1_server *s, uint64_t id);

#endif
