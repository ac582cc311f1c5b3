/* httpc: HTTPS+JSON client over libcurl, one engine for both uses: asynchronous on a
 * libevent base (agent), and blocking (CLI). Verifies the server against the market CA.
 * A request that was sent but got no complete answer ends as ERR_UNKNOWN; one that
 * never left ends as ERR_UNREACHABLE, and so does any GET (it has no effect whose
 * outcome could be unknown). problem+json replies become err (code by name). No proxy,
 * no redirects, TLS 1.3 only. libcurl sends a request again by itself when a kept
 * connection turns out closed before a byte came back: creates carry a key for that. */
#ifndef NEARGPU_HTTPC_H
#define NEARGPU_HTTPC_H
#include <event2/event.h>
#include <jansson.h>
#include <stdint.h>

#include "client/lib/err.h"

struct httpc;

struct httpc_conf {
    const char *base_url;             /* https://host:port */
    const char *ca_file;              /* market CA */
    const char *cert_file, *key_file; /* client certificate, NULL: none */
    const char *bearer; /* API key, NULL: none; sent as Authorization: Bearer */
    const char *user_agent;
};

struct httpc_request {
    const char *method;          /* GET POST PATCH DELETE */
    const char *path;            /* "/v1/offers?gpu=H100", already encoded */
    json_t *body;                /* borrowed, NULL: none */
    const char *idempotency_key; /* NULL: none */
    int64_t timeout_us;
};

struct httpc_reply {
    int status;            /* HTTP status, 0 when there was no answer */
    json_t *body;          /* NULL when none or not JSON */
    char *text;            /* raw body, NUL-terminated */
    int64_t retry_after_s; /* 0: none */
};
void httpc_reply_done(struct httpc_reply *r);

/* Loads what httpc_new() needs, for processes that give up the files before. */
int httpc_load(struct err *err) MUST_USE;
/* base NULL: blocking use only. Copies conf. */
int httpc_new(const struct httpc_conf *conf, struct event_base *base,
              struct httpc **ret, struct err *err) MUST_USE;
void httpc_free(struct httpc *h); /* cancels what is in flight; no callbacks run */

/* 0 with a 2xx reply; -1 with err otherwise (reply->status says which status). */
int httpc_call(struct httpc *h, const struct httpc_request *rq, struct httpc_reply *ret,
               struct err *err) MUST_USE;

typedef void httpc_done_fn(void *arg, const struct httpc_reply *reply,
                           const struct err *err);
struct httpc_op;
/* err is NULL on 2xx. The callback runs from the event loop, exactly once unless
 * cancelled. */
struct httpc_op *httpc_start(struct httpc *h, const struct httpc_request *rq,
                             httpc_done_fn *done, void *arg);
void httpc_cancel(struct httpc_op *op);
/* Percent-encodes one query value; caller frees. */
char *httpc_escape(const char *text);

#endif
