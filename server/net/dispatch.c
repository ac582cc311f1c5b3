/* dispatch: see the header. A request passes through a table of named checks; the first
 * that refuses answers. */
#include "server/net/dispatch.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "client/lib/digest.h"
#include "client/lib/jsonx.h"
#include "client/lib/log.h"
#include "client/lib/xalloc.h"
#include "server/flow/oauth.h"
#include "server/net/accesslog.h"
#include "server/net/uri.h"

/* What one client may do. A tenant's script that books in a loop stays below; what goes
 * above hurts the others. */
const struct bucket_rate dispatch_default_rates[RATE_CLASSES] = {
    [RATE_FREE] = {0, 0},          [RATE_READ] = {5000, 400}, /* 200/s */
    [RATE_WRITE] = {10000, 200},                              /* 100/s */
    [RATE_SEARCH] = {20000, 100},                             /* 50/s */
    [RATE_AGENT] = {50000, 100},   /* 20/s: syncs, receipts */
    [RATE_SIGNIN] = {1000000, 20}, /* 1/s */
};

const int64_t dispatch_latency_us[DISPATCH_LATENCIES] = {
    250,   500,    1000,   2500,   5000,    10000,
    25000, 100000, 250000, 500000, 1000000, INT64_MAX,
};

struct dispatch {
    struct dispatch_opts opts;
    struct flow_auth auth;
    struct bucket_rate rates[RATE_CLASSES];
    struct bucket_table *buckets;
    struct route_table *routes;
    struct http1_server *http;
    struct flow_sink sink;
    struct dispatch_stats stats;
};

/* One request on its way through the checks. */
struct passage {
    struct dispatch *d;
    const struct http1_request *in;
    struct flow_request *rq;
    const char *query; /* after the "?", "" when none */
    char *path;        /* before it */
    struct route_match match;
    bool bad_key;
    int64_t wait_us; /* for Retry-After */
    int status;      /* 0: by the error's code */
    struct err err;
};

/* ---- checks ---- */

static int check_route(struct passage *p)
{
    return route_find(p->d->routes, p->in->head->method, p->path, p->rq, &p->match,
                      &p->err);
}

static bool key_is_formed(const char *key)
{
    if (strlen(key) != API_KEY_BYTES || strncmp(key, "ngk_", 4) != 0)
        return false;
    for (key += 4; *key != '\0'; key++)
        if (!((*key >= 'a' && *key <= 'z') || (*key >= 'A' && *key <= 'Z') ||
              (*key >= '0' && *key <= '9') || *key == '-' || *key == '_'))
            return false;
    return true;
}

/* Fills rq->who; a key that does not hold is remembered, and refused after the rate
 * limit has counted it. */
static int check_who(struct passage *p)
{
    const struct flow_auth *a = &p->d->auth;
    const char *value = http1_header(p->in->head, "authorization");
    if (value != NULL) {
        uint8_t hash[SHA256_LEN];
        p->bad_key = true;
        if (strncasecmp(value, "Bearer ", 7) != 0 || !key_is_formed(value + 7))
            return 0;
        digest_sha256(value + 7, API_KEY_BYTES, hash);
        p->bad_key = a->auth_lookup(a->env, hash, &p->rq->who) < 0;
        return 0;
    }
    if (p->in->peer_uri[0] != '\0')
        (void)a->agent_lookup(a->env, p->in->peer_uri, p->in->peer_thumbprint,
                              &p->rq->who);
    return 0;
}

/* Without a credential the address counts; of an IPv6 address its /64, which is what
 * one customer of a provider gets. */
static void rate_key(const struct passage *p, enum rate_class class, char *out,
                     size_t cap)
{
    const struct flow_principal *who = &p->rq->who;
    if (!p->bad_key && who->role == ROLE_AGENT) {
        snprintf(out, cap, "%d:node:%s", (int)class, who->node_id);
        return;
    }
    if (!p->bad_key && who->role != ROLE_ANON) {
        snprintf(out, cap, "%d:key:%s", (int)class, who->key_id);
        return;
    }
    const char *remote = p->in->remote;
    size_t len = strlen(remote);
    if (remote[0] == '[') {
        int colons = 0;
        for (len = 0; remote[len] != '\0' && remote[len] != ']'; len++)
            if (remote[len] == ':' && (++colons == 4 || remote[len + 1] == ':'))
                break;
    } else {
        len = strcspn(remote, ":");
    }
    snprintf(out, cap, "%d:addr:%.*s", (int)class, (int)len, remote);
}

static int check_rate(struct passage *p)
{
    enum rate_class class = p->bad_key ? RATE_SIGNIN : p->match.route->rate;
    char key[128];
    rate_key(p, class, key, sizeof(key));
    if (bucket_table_take(p->d->buckets, key, &p->d->rates[class], p->in->now_us,
                          &p->wait_us))
        return 0;
    p->d->stats.limited++;
    return err_set(&p->err, ERR_RATE_LIMITED,
                   "too many requests; the next one is welcome in %.1f s",
                   (double)p->wait_us / 1e6);
}

static int check_role(struct passage *p)
{
    unsigned roles = p->match.route->roles;
    enum flow_role role = p->rq->who.role;
    if (p->bad_key) {
        p->d->stats.unauthenticated++;
        return err_set(&p->err, ERR_UNAUTHENTICATED, "the API key is not valid");
    }
    if ((roles & ROLE_ANON) != 0 || (roles & role) != 0)
        return 0;
    if (role == ROLE_ANON) {
        p->d->stats.unauthenticated++;
        return err_set(&p->err, ERR_UNAUTHENTICATED, "%s",
                       roles == ROLE_AGENT
                           ? "an enrolled node's client certificate is needed"
                           : "an API key is needed (Authorization: Bearer)");
    }
    p->d->stats.forbidden++;
    return err_set(&p->err, ERR_FORBIDDEN, "%s",
                   role == ROLE_WAITING
                       ? "this administrator waits for another one's approval "
                         "(neargpu admin user approve)"
                       : "not allowed for this kind of account");
}

/* One media range of an Accept list against a type we would answer with. */
static bool range_fits(const char *range, size_t len, const char *type)
{
    size_t slash = (size_t)(strchr(type, '/') - type);
    while (len > 0 && (range[len - 1] == ' ' || range[len - 1] == '\t'))
        len--;
    if (len == 3 && memcmp(range, "*/*", 3) == 0)
        return true;
    if (len == slash + 2 && strncasecmp(range, type, slash + 1) == 0)
        return range[len - 1] == '*';
    return len == strlen(type) && strncasecmp(range, type, len) == 0;
}

static bool accept_fits(const char *accept, const char *type)
{
    while (*accept != '\0') {
        accept += strspn(accept, " \t,");
        size_t len = strcspn(accept, ",");
        size_t range = strcspn(accept, ";,");
        if (range > 0 && range_fits(accept, range, type))
            return true;
        accept += len;
    }
    return false;
}

static int check_accept(struct passage *p)
{
    unsigned flags = p->match.route->flags;
    const char *type = "application/json";
    if (flags & ROUTE_EVENTS)
        type = "text/event-stream";
    if (flags & ROUTE_TEXT)
        type = "text/plain";
    bool asked = false;
    for (size_t i = 0; i < p->in->head->header_count; i++) {
        const struct http1_header *h = &p->in->head->headers[i];
        if (strcmp(h->name, "accept") != 0)
            continue;
        if (accept_fits(h->value, type))
            return 0;
        asked = true;
    }
    if (!asked)
        return 0;
    p->status = 406;
    return err_set(&p->err, ERR_BAD_REQUEST, "this path answers %s", type);
}

static bool type_is(const struct http1_request *in, const char *type)
{
    const char *value = http1_header(in->head, "content-type");
    if (value == NULL || strncasecmp(value, type, strlen(type)) != 0)
        return false;
    value += strlen(type);
    value += strspn(value, " \t");
    if (*value == '\0')
        return true;
    if (*value++ != ';')
        return false;
    value += strspn(value, " \t");
    return strcasecmp(value, "charset=utf-8") == 0 ||
           strcasecmp(value, "charset=\"utf-8\"") == 0;
}

static bool is_form(const struct passage *p)
{
    return p->match.route != NULL && (p->match.route->flags & ROUTE_FORM) != 0 &&
           type_is(p->in, "application/x-www-form-urlencoded");
}

static int check_body(struct passage *p)
{
    unsigned flags = p->match.route->flags;
    const struct http1_request *in = p->in;
    if (in->body_len == 0) {
        if (flags & ROUTE_BODY)
            return err_set(&p->err, ERR_BAD_REQUEST, "%s is needed as body",
                           is_form(p) ? "a form" : "a JSON object");
        return 0;
    }
    if ((flags & (ROUTE_BODY | ROUTE_BODY_MAYBE)) == 0)
        return err_set(&p->err, ERR_BAD_REQUEST, "this request takes no body");
    p->rq->is_form = is_form(p);
    if (!p->rq->is_form && !type_is(in, "application/json")) {
        p->status = 415;
        return err_set(&p->err, ERR_BAD_REQUEST,
                       "the body must be Content-Type: application/json%s",
                       flags & ROUTE_FORM ? " or application/x-www-form-urlencoded"
                                          : "");
    }
    p->rq->body = p->rq->is_form
                      ? uri_form(in->body, in->body_len, &p->err)
                      : jsonx_parse(in->body, in->body_len, HTTP_BODY_MAX, &p->err);
    if (p->rq->body == NULL)
        return -1;
    p->rq->raw_body = xstrndup(in->body, in->body_len);
    p->rq->raw_len = in->body_len;
    return 0;
}

static int check_query(struct passage *p)
{
    return uri_query(p->query, p->rq, &p->err);
}

/* 1..64 of [A-Za-z0-9_.:-], perhaps in quotes as the draft of the header has it. */
static int check_key(struct passage *p)
{
    const char *v = http1_header(p->in->head, "idempotency-key");
    if (v == NULL)
        return 0;
    size_t len = strlen(v);
    if (len >= 2 && v[0] == '"' && v[len - 1] == '"') {
        v++;
        len -= 2;
    }
    bool good = len >= 1 && len <= FLOW_KEY_MAX;
    for (size_t i = 0; good && i < len; i++)
        good = (v[i] >= 'a' && v[i] <= 'z') || (v[i] >= 'A' && v[i] <= 'Z') ||
               (v[i] >= '0' && v[i] <= '9') || strchr("_.:-", v[i]) != NULL;
    if (!good)
        return err_set(&p->err, ERR_BAD_REQUEST,
                       "Idempotency-Key: 1 to %d of A-Z a-z 0-9 _ . : - are needed",
                       FLOW_KEY_MAX);
    memcpy(p->rq->idempotency_key, v, len);
    return 0;
}

/* Copies an optional header of bounded length, without quotes around it. */
static int copy_header(struct passage *p, const char *name, char *out, size_t cap)
{
    const char *v = http1_header(p->in->head, name);
    if (v == NULL)
        return 0;
    size_t len = strlen(v);
    if (len >= 2 && v[0] == '"' && v[len - 1] == '"') {
        v++;
        len -= 2;
    }
    if (len >= cap || !uri_is_utf8(v, len))
        return err_set(&p->err, ERR_BAD_REQUEST, "%s: malformed value", name);
    memcpy(out, v, len);
    return 0;
}

static int check_conditions(struct passage *p)
{
    if (copy_header(p, "if-match", p->rq->if_match, sizeof(p->rq->if_match)) < 0)
        return -1;
    return copy_header(p, "last-event-id", p->rq->last_event_id,
                       sizeof(p->rq->last_event_id));
}

/* ---- answers ---- */

static void answer(struct passage *p)
{
    int status = p->status != 0 ? p->status : err_http_status(p->err.code);
    struct oauth_error as = oauth_error_of(&p->err, NULL);
    const bool form = is_form(p);
    char *body = form ? oauth_error_body(&p->err, &as)
                      : flow_problem_as(&p->err, status, p->in->request_id, NULL);
    char seconds[24];
    struct flow_reply reply = {
        .status = form ? as.status : status,
        .content_type = form ? "application/json" : "application/problem+json",
        .body = body,
        .body_len = strlen(body),
    };
    if (p->err.code == ERR_UNAUTHENTICATED)
        reply.headers[reply.header_count++] =
            (struct flow_pair){"WWW-Authenticate", "Bearer realm=\"neargpu\""};
    if (p->err.code == ERR_METHOD)
        reply.headers[reply.header_count++] =
            (struct flow_pair){"Allow", p->match.allow};
    if (p->err.code == ERR_RATE_LIMITED || p->err.code == ERR_UNAVAILABLE) {
        snprintf(seconds, sizeof(seconds), "%" PRId64, (p->wait_us + 999999) / 1000000);
        if (p->wait_us <= 0)
            memcpy(seconds, "1", 2);
        reply.headers[reply.header_count++] =
            (struct flow_pair){"Retry-After", seconds};
    }
    http1_reply(p->d->http, p->in->id, &reply);
    free(body);
}

static void name_client(struct passage *p)
{
    const struct flow_principal *who = &p->rq->who;
    const char *kind = "-";
    switch (who->role) {
    case ROLE_ANON: break;
    case ROLE_TENANT: kind = "tenant"; break;
    case ROLE_PROVIDER: kind = "provider"; break;
    case ROLE_ADMIN:
    case ROLE_WAITING: kind = "admin"; break;
    case ROLE_AGENT: kind = "agent"; break;
    }
    char text[NAME_BYTES_MAX + 12];
    snprintf(text, sizeof(text), "%s%s%s", kind, who->name[0] != '\0' ? ":" : "",
             who->name);
    http1_set_who(p->d->http, p->in->id, text);
}

static void start(struct passage *p)
{
    const struct http1_request *in = p->in;
    struct flow_request *rq = p->rq;
    free(rq->method);
    rq->method = xstrdup(in->head->method);
    snprintf(rq->remote, sizeof(rq->remote), "%s", in->remote);
    memcpy(rq->request_id, in->request_id, UUID_TEXT);
    p->rq = NULL; /* the flow's from here on, also when it does not start */
    uint64_t flow = flow_start(p->d->opts.runner, p->match.route->kind, rq, in->id,
                               in->now_us, &p->err);
    if (flow == 0)
        answer(p);
    else
        http1_bind(p->d->http, in->id, flow, p->match.route->kind->abandon_on_close);
}

static const struct {
    const char *name;
    int (*fn)(struct passage *p);
} checks[] = {
    {"route", check_route},
    {"who", check_who},
    {"rate", check_rate},
    {"role", check_role},
    {"accept", check_accept},
    {"body", check_body},
    {"query", check_query},
    {"idempotency key", check_key},
    {"conditions", check_conditions},
};

static void on_request(void *env, const struct http1_request *in)
{
    struct dispatch *d = env;
    const char *target = in->head->target;
    size_t path_len = strcspn(target, "?");
    struct passage p = {
        .d = d,
        .in = in,
        .rq = flow_request_new(),
        .query = target[path_len] == '?' ? target + path_len + 1 : "",
        .path = xstrndup(target, path_len),
    };
    bool passed = true;
    for (size_t i = 0; passed && i < sizeof(checks) / sizeof(checks[0]); i++)
        passed = checks[i].fn(&p) == 0;
    name_client(&p);
    if (passed)
        start(&p);
    else
        answer(&p);
    flow_request_free(p.rq);
    free(p.path);
}

/* ---- the runner's sink, http1's callbacks ---- */

static void sink_reply(void *env, uint64_t to, const struct flow_reply *reply)
{
    struct dispatch *d = env;
    http1_reply(d->http, to, reply);
}

static void sink_stream_begin(void *env, uint64_t to, const struct flow_reply *head)
{
    struct dispatch *d = env;
    http1_stream_begin(d->http, to, head);
}

static int sink_stream_write(void *env, uint64_t to, const void *data, size_t len)
{
    struct dispatch *d = env;
    return http1_stream_write(d->http, to, data, len);
}

static void sink_stream_end(void *env, uint64_t to)
{
    struct dispatch *d = env;
    http1_stream_end(d->http, to);
}

static void on_gone(void *env, uint64_t flow_id)
{
    struct dispatch *d = env;
    flow_abandon(d->opts.runner, flow_id);
}

static void on_done(void *env, const struct http1_done *done)
{
    struct dispatch *d = env;
    if (!done->is_poll && done->status != 499) {
        size_t i = 0;
        while (done->took_us > dispatch_latency_us[i])
            i++;
        d->stats.latency[i]++;
        d->stats.latency_count++;
        d->stats.latency_sum_us += done->took_us > 0 ? (uint64_t)done->took_us : 0;
    }
    if (d->opts.told != NULL)
        d->opts.told(d->opts.told_arg, done);
    if (!d->opts.access_log)
        return;
    struct strbuf line = STRBUF_INIT;
    accesslog_line(done, &line);
    log_at(done->status < 400 ? LOG_LVL_DEBUG : LOG_LVL_INFO, "%s", strbuf_str(&line));
    strbuf_done(&line);
}

/* ---- life ---- */

struct dispatch *dispatch_new(const struct dispatch_opts *opts)
{
    struct dispatch *d = xcalloc(1, sizeof(*d));
    uint64_t seed;
    digest_random(&seed, sizeof(seed));
    d->opts = *opts;
    d->auth = *opts->auth;
    memcpy(d->rates, opts->rates != NULL ? opts->rates : dispatch_default_rates,
           sizeof(d->rates));
    d->buckets = bucket_table_new(DISPATCH_BUCKETS, seed);
    d->routes = route_table_new(opts->routes, opts->route_count);
    d->sink = (struct flow_sink){
        .env = d,
        .reply = sink_reply,
        .stream_begin = sink_stream_begin,
        .stream_write = sink_stream_write,
        .stream_end = sink_stream_end,
    };
    return d;
}

void dispatch_free(struct dispatch *d)
{
    if (d == NULL)
        return;
    flow_runner_set_sink(d->opts.runner, NULL);
    bucket_table_free(d->buckets);
    route_table_free(d->routes);
    free(d);
}

void dispatch_fill(struct dispatch *d, struct http1_opts *opts)
{
    opts->env = d;
    opts->on_request = on_request;
    opts->on_gone = on_gone;
    opts->on_done = on_done;
}

void dispatch_bind(struct dispatch *d, struct http1_server *http)
{
    d->http = http;
    flow_runner_set_sink(d->opts.runner, &d->sink);
}

void dispatch_stats(const struct dispatch *d, struct dispatch_stats *ret)
{
    *ret = d->stats;
}
