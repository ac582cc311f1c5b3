/* flow: a request as a table of named steps, and the runner that moves it.
 *
 * Charter: holds all live flows of one event loop, runs the ready ones once a turn,
 * keeps their deadlines, and hands the reply to whoever asked (a sink). It knows
 * nothing of HTTP connections, the database or clocks: net/ is the sink, flows call db/
 * themselves, the loop passes `now`. Pure; server/flow/loop.h binds a runner to
 * libevent.
 *
 * Invariants
 *  - A step runs only from flow_runner_turn(): never inside flow_start, flow_wake,
 *    flow_abandon or a callback of libpq or libevent.
 *  - Whoever answers later (database, timer, change feed) keeps the flow's *id*, and
 *    finds the flow again with flow_find(); ids are never used twice, and an id that
 *    is finished finds nothing, so a late answer is dropped.
 *  - A client that goes away cancels nothing: the flow runs on to its end and its reply
 *    is dropped, unless its kind says `abandon_on_close` (long polls, streams).
 *  - A flow ends exactly once; done_fn is called exactly once, whatever the way.
 *
 * A flow file reads so:
 *     struct pay_state { int64_t amount; struct err err; };
 *     static enum flow_turn pay_send(struct flow *f)
 *     {
 *         struct pay_state *s = f->state;
 *         store_pay(world_db(f->env), s->amount, pay_paid, f->id);
 *         return FLOW_WAIT;
 *     }
 *     static enum flow_turn pay_reply(struct flow *f) { ... return
 * flow_reply_json(...); } static const struct flow_step pay_steps[] = {{"send",
 * pay_send}, {"reply", pay_reply}}; const struct flow_kind flow_pay = FLOW_KIND("pay",
 * struct pay_state, pay_steps); and its database callback: static void pay_paid(void
 * *runner, uint64_t flow_id, ...)
 *     {
 *         struct flow *f = flow_find(runner, flow_id);
 *         if (f == NULL)
 *             return;
 *         ... copy the result into f->state ...
 *         flow_wake(runner, flow_id);
 *     } */
#ifndef NEARGPU_FLOW_H
#define NEARGPU_FLOW_H
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/bounds.h"
#include "client/lib/err.h"
#include "client/lib/uuid.h"

struct flow;
struct flow_runner;

/* ---- who asks ---------------------------------------------------------------- */

enum flow_role {
    ROLE_ANON = 1 << 0, /* no credential */
    ROLE_TENANT = 1 << 1,
    ROLE_PROVIDER = 1 << 2,
    ROLE_ADMIN = 1 << 3,
    ROLE_AGENT = 1 << 4,   /* mutual TLS, spiffe URI */
    ROLE_WAITING = 1 << 5, /* an administrator who is not approved: no route has it */
};
#define ROLE_KEYED (ROLE_TENANT | ROLE_PROVIDER | ROLE_ADMIN)
#define ROLE_ANY   (ROLE_ANON | ROLE_KEYED | ROLE_AGENT)

#define FLOW_URI_MAX        256 /* spiffe://MARKET/site/SITE/node/NODE */
#define FLOW_THUMBPRINT_MAX 44  /* base64url SHA-256, with NUL */
#define FLOW_ADDR_MAX       64  /* "[v6]:port" */
#define FLOW_KEY_MAX        64  /* Idempotency-Key: 1..64 of [A-Za-z0-9_.:-] */
#define FLOW_PARAMS_MAX     4   /* {placeholders} in one path */
#define FLOW_QUERY_MAX      32  /* query parameters of one request */

/* Plain data, copied into the request. Texts are "" where they do not apply; ids are
 * as in the database, written as text. */
struct flow_principal {
    enum flow_role role;
    char name[NAME_BYTES_MAX + 1];        /* of the tenant, provider or node */
    char tenant_id[UUID_TEXT];            /* ROLE_TENANT */
    char provider_id[UUID_TEXT];          /* ROLE_PROVIDER, and an agent's owner */
    char node_id[UUID_TEXT];              /* ROLE_AGENT */
    char site[NAME_BYTES_MAX + 1];        /* ROLE_AGENT */
    char uri[FLOW_URI_MAX];               /* ROLE_AGENT: spiffe id */
    char thumbprint[FLOW_THUMBPRINT_MAX]; /* ROLE_AGENT: x5t#S256 of its certificate */
    char key_id[UUID_TEXT];               /* API key's id (never the key) */
};

/* How net/ learns who asks, from memory, at once: the world keeps all key hashes and
 * enrolled nodes cached. 0: *ret filled. -1: unknown, *ret untouched. */
struct flow_auth {
    void *env;
    int (*auth_lookup)(void *env, const uint8_t key_hash[32],
                       struct flow_principal *ret);
    int (*agent_lookup)(void *env, const char *uri, const char *thumbprint,
                        struct flow_principal *ret);
};

/* ---- what is asked ------------------------------------------------------------ */

struct flow_pair {
    char *name;
    char *value; /* percent-decoded UTF-8, no NUL inside */
};

/* Made by net/dispatch, owned by the flow. All pointers are heap, none is NULL but
 * where said. */
struct flow_request {
    char *method;
    char *path; /* decoded, without the query */
    struct flow_pair
        params[FLOW_PARAMS_MAX]; /* {name} of the pattern -> decoded value */
    size_t param_count;
    struct flow_pair query[FLOW_QUERY_MAX]; /* in order; a name comes once (checked) */
    size_t query_count;
    json_t *body;   /* strictly parsed, or NULL when the request had none */
    bool is_form;   /* the body came as a form: name -> [text, ...] as uri_form() has
                       it, and failures answer as RFC 6749 has them */
    char *raw_body; /* the same bytes (hash them for idempotency), NUL added, or NULL */
    size_t raw_len;
    char idempotency_key[FLOW_KEY_MAX + 1]; /* "" when none; syntax is checked */
    char if_match[64];                      /* without quotes; "" when none */
    char last_event_id[64];                 /* server-sent events; "" when none */
    char remote[FLOW_ADDR_MAX];             /* peer address and port */
    char request_id[UUID_TEXT];             /* ours, also sent as X-Request-Id */
    struct flow_principal who;
};

struct flow_request *flow_request_new(void); /* zeroed, method and path "" */
void flow_request_free(struct flow_request *rq);
void flow_request_add_param(struct flow_request *rq, const char *name,
                            const char *value);
void flow_request_add_query(struct flow_request *rq, const char *name,
                            const char *value);

/* ---- what a flow is ------------------------------------------------------------ */

enum flow_turn {
    FLOW_MORE,  /* run the next step now */
    FLOW_WAIT,  /* sleep; when woken run the NEXT step */
    FLOW_AGAIN, /* sleep; when woken run THIS step again (several sources of wakes,
                   timers, long polls: look at the state and decide) */
    FLOW_DONE,  /* the end. The last step's MORE means DONE too */
};

typedef enum flow_turn (*flow_step_fn)(struct flow *f);

struct flow_step {
    const char *name;
    flow_step_fn fn;
};

struct flow_kind {
    const char *name;
    const struct flow_step *steps;
    size_t step_count;
    size_t state_size;               /* f->state: zeroed, freed by the runner */
    void (*done_fn)(struct flow *f); /* may be NULL: releases what the state owns; the
                                        reply is already out, f->state still there */
    bool abandon_on_close;           /* the client gone: end now (done_fn is called) */
};

#define FLOW_KIND(kind_name, state_type, step_table)                \
    {                                                               \
        .name = kind_name, .steps = step_table,                     \
        .step_count = sizeof(step_table) / sizeof((step_table)[0]), \
        .state_size = sizeof(state_type)                            \
    }
#define FLOW_KIND_DONE(kind_name, state_type, step_table, done)     \
    {                                                               \
        .name = kind_name, .steps = step_table,                     \
        .step_count = sizeof(step_table) / sizeof((step_table)[0]), \
        .state_size = sizeof(state_type), .done_fn = done           \
    }
/* Long polls and streams: ended when the client goes. */
#define FLOW_KIND_POLL(kind_name, state_type, step_table, done)                     \
    {                                                                               \
        .name = kind_name, .steps = step_table,                                     \
        .step_count = sizeof(step_table) / sizeof((step_table)[0]),                 \
        .state_size = sizeof(state_type), .done_fn = done, .abandon_on_close = true \
    }

/* What a step may read. Nothing here is written by flows but *state. */
struct flow {
    uint64_t id;
    const struct flow_kind *kind;
    void *state;
    const struct flow_request *rq; /* NULL for a flow of the server's own */
    int64_t now_us; /* realtime of this turn; the same in all steps of it */
    int64_t started_us;
    void *env; /* struct world *, the runner's */
    struct flow_runner *runner;
};

/* ---- inside a step --------------------------------------------------------------- */

/* Value of a path placeholder; it must be one of the pattern (assertion). */
const char *flow_param(const struct flow *f, const char *name);
/* Value of a query parameter, NULL when it was not given. */
const char *flow_query(const struct flow *f, const char *name);
/* Refuses query parameters not in the NULL-terminated list, by name. */
int flow_query_check(const struct flow *f, const char *const *allowed,
                     struct err *err) MUST_USE;
/* Frees the request's body and its text, once decoded: what long polls should do. */
void flow_drop_body(struct flow *f);

/* Where the next MORE or WAIT leads instead of the step after this one: loops such as
 * "lost the race, next candidate". fn must be in this kind's table. Returns FLOW_MORE.
 */
enum flow_turn flow_goto(struct flow *f, flow_step_fn fn);

/* Wakes the flow at now >= at_us, once; a later call replaces the earlier one,
 * INT64_MAX removes it. A deadline stays set until it fires, is replaced, or the flow
 * ends. */
void flow_wait_until(struct flow *f, int64_t at_us);

/* Replies. One of them, once; the reply goes out when the flow is DONE (so a step may
 * go on after it only to clean up). All return FLOW_DONE: `return flow_reply_json(…)`.
 * A flow that ends without a reply answers 500 internal, and that is logged as a bug.
 */
enum flow_turn flow_reply_json(struct flow *f, int status, json_t *body_take);
enum flow_turn flow_reply_text(struct flow *f, int status, const char *content_type,
                               const char *data, size_t len);
enum flow_turn flow_reply_empty(struct flow *f, int status); /* 204, 304 */
/* problem+json by err_http_status(). ERR_INTERNAL texts are not shown to the client but
 * passed to the runner's on_internal. */
enum flow_turn flow_fail(struct flow *f, const struct err *err);
/* Which of RFC 6749's errors a later failure is, where the request came as a form;
 * NULL: its code decides. name lives as long as the program. */
void flow_fail_as(struct flow *f, const char *name);
/* Adds a member to the problem body of a later flow_fail ("why": […]). */
void flow_fail_detail(struct flow *f, const char *name, json_t *value_take);
/* An extra response header; before the reply or stream_begin. Name and value are
 * asserted to be free of control characters. At most FLOW_HEADERS_MAX. */
void flow_header(struct flow *f, const char *name, const char *value);
#define FLOW_HEADERS_MAX 8

/* Streams (server-sent events): begin, then any number of writes over many turns, then
 * FLOW_DONE. write returns -1 when the client is gone or has not read
 * FLOW_STREAM_BUFFER_MAX bytes: the flow then ends (the client resumes by event id). */
#define FLOW_STREAM_BUFFER_MAX (256 * 1024) /* a slow reader's share of our memory */
void flow_stream_begin(struct flow *f, int status, const char *content_type);
int flow_stream_write(struct flow *f, const void *data, size_t len) MUST_USE;

/* The client is gone: the reply will be dropped. Only a hint (stop optional work). */
bool flow_is_orphan(const struct flow *f);

/* ---- the reply, as the sink sees it ------------------------------------------------
 */

struct flow_reply {
    int status;
    const char *content_type; /* "" without a body */
    const char *body;
    size_t body_len;
    struct flow_pair headers[FLOW_HEADERS_MAX];
    size_t header_count;
};

/* Called from flow_runner_turn(); must not call back into the runner but for
 * flow_abandon() and flow_wake(). `to` is what flow_start was given: an id, never a
 * pointer to something that may die earlier. Pointers in reply are borrowed. */
struct flow_sink {
    void *env;
    void (*reply)(void *env, uint64_t to, const struct flow_reply *reply);
    void (*stream_begin)(void *env, uint64_t to, const struct flow_reply *head);
    int (*stream_write)(void *env, uint64_t to, const void *data, size_t len);
    void (*stream_end)(void *env, uint64_t to);
};

/* ---- the runner --------------------------------------------------------------------
 */

struct flow_runner_opts {
    void *env;                    /* f->env of every flow */
    const struct flow_sink *sink; /* may be NULL: all replies are dropped */
    size_t max_live;              /* 0: FLOWS_LIVE_MAX */
    /* Something became ready or the earliest deadline moved: see that
     * flow_runner_turn() is called (again). May be NULL (tests call turn themselves).
     */
    void (*kick)(void *arg);
    void *kick_arg;
    /* Before each step, and with "reply" before a reply goes to the sink: crash tests
     * stop the process here. May be NULL. */
    void (*on_step)(void *arg, const struct flow *f, const char *step);
    void *on_step_arg;
    /* A flow failed with ERR_INTERNAL or without a reply: the text the client does not
     * get. May be NULL. */
    void (*on_internal)(void *arg, const struct flow *f, const char *text);
    void *on_internal_arg;
};
#define FLOWS_LIVE_MAX 200000 /* 100k agents poll, the rest is tenants */

struct flow_stats {
    size_t live, ready;
    uint64_t started, finished, abandoned, steps, refused;
};

struct flow_runner *flow_runner_new(const struct flow_runner_opts *opts);
/* Ends all flows (done_fn called, no replies). NULL is fine. */
void flow_runner_free(struct flow_runner *r);
/* Where replies of flows started from now on go: net/ is made after the runner. */
void flow_runner_set_sink(struct flow_runner *r, const struct flow_sink *sink);

/* Starts a flow; its first step runs in the next turn. Takes rq (freed on failure as
 * well). `to` names the asker for the sink. Returns the id, or 0 when max_live flows
 * are alive (the caller answers 503; *err ERR_UNAVAILABLE). now_us: f->started_us. */
uint64_t flow_start(struct flow_runner *r, const struct flow_kind *kind,
                    struct flow_request *rq_take, uint64_t to, int64_t now_us,
                    struct err *err) MUST_USE;
/* The live flow, or NULL when it ended. Do not keep the pointer over a turn. */
struct flow *flow_find(struct flow_runner *r, uint64_t id);
/* Makes a sleeping flow ready. A wake during its own step counts for the WAIT or AGAIN
 * that step returns; wakes of a ready flow merge into one; of a finished one are lost.
 */
void flow_wake(struct flow_runner *r, uint64_t id);
/* The asker is gone (see abandon_on_close). A finished id is fine. */
void flow_abandon(struct flow_runner *r, uint64_t id);
/* Fires the deadlines that are due, runs the flows that were ready when it was called
 * (each until it sleeps or ends, at most FLOW_STEPS_A_TURN steps), frees the finished.
 * Flows that became ready meanwhile stay for the next turn, after a kick. */
void flow_runner_turn(struct flow_runner *r, int64_t now_us);
#define FLOW_STEPS_A_TURN 64 /* no flow keeps the others waiting */
/* Earliest deadline, INT64_MAX when there is none; now or less while flows are ready.
 */
int64_t flow_runner_next_us(const struct flow_runner *r);
void flow_runner_stats(const struct flow_runner *r, struct flow_stats *ret);
/* Calls fn for every live flow, or those of one kind (kind not NULL): to wake all long
 * polls, for instance. fn may call flow_wake. */
void flow_runner_each(struct flow_runner *r, const struct flow_kind *kind,
                      void (*fn)(void *arg, struct flow *f), void *arg);

/* The problem+json text of an error, as flow_fail sends it; caller frees. extra may be
 * NULL: an object whose members are added. */
char *flow_problem(const struct err *err, const char *request_id, const json_t *extra);
/* The same with a status that no error code stands for (406, 415). */
char *flow_problem_as(const struct err *err, int status, const char *request_id,
                      const json_t *extra);

#endif
