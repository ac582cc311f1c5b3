/* reply: the request a flow reads and the reply it makes (contract in flow.h). Nothing
 * here talks to a connection: a reply is drafted in the flow and given to the sink. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/jsonx.h"
#include "client/lib/xalloc.h"
#include "server/flow/flow.h"
#include "server/flow/flow_priv.h"
#include "server/flow/oauth.h"

/* ---- requests ---- */

struct flow_request *flow_request_new(void)
{
    struct flow_request *rq = xcalloc(1, sizeof(*rq));
    rq->method = xstrdup("");
    rq->path = xstrdup("");
    rq->who.role = ROLE_ANON;
    return rq;
}

static void pairs_free(struct flow_pair *pairs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(pairs[i].name);
        free(pairs[i].value);
    }
}

static void request_drop_body(struct flow_request *rq)
{
    json_decref(rq->body);
    free(rq->raw_body);
    rq->body = NULL;
    rq->raw_body = NULL;
    rq->raw_len = 0;
}

void flow_request_free(struct flow_request *rq)
{
    if (rq == NULL)
        return;
    free(rq->method);
    free(rq->path);
    pairs_free(rq->params, rq->param_count);
    pairs_free(rq->query, rq->query_count);
    request_drop_body(rq);
    free(rq);
}

void flow_request_add_param(struct flow_request *rq, const char *name,
                            const char *value)
{
    assert(rq->param_count < FLOW_PARAMS_MAX);
    rq->params[rq->param_count++] = (struct flow_pair){xstrdup(name), xstrdup(value)};
}

void flow_request_add_query(struct flow_request *rq, const char *name,
                            const char *value)
{
    assert(rq->query_count < FLOW_QUERY_MAX);
    rq->query[rq->query_count++] = (struct flow_pair){xstrdup(name), xstrdup(value)};
}

const char *flow_param(const struct flow *f, const char *name)
{
    assert(f->rq != NULL);
    for (size_t i = 0; i < f->rq->param_count; i++)
        if (strcmp(f->rq->params[i].name, name) == 0)
            return f->rq->params[i].value;
    assert(!"flow_param: not a placeholder of this route");
    return "";
}

const char *flow_query(const struct flow *f, const char *name)
{
    assert(f->rq != NULL);
    for (size_t i = 0; i < f->rq->query_count; i++)
        if (strcmp(f->rq->query[i].name, name) == 0)
            return f->rq->query[i].value;
    return NULL;
}

int flow_query_check(const struct flow *f, const char *const *allowed, struct err *err)
{
    assert(f->rq != NULL);
    for (size_t i = 0; i < f->rq->query_count; i++) {
        const char *name = f->rq->query[i].name;
        const char *const *a = allowed;
        while (*a != NULL && strcmp(*a, name) != 0)
            a++;
        if (*a == NULL)
            return err_set(err, ERR_BAD_REQUEST, "unknown query parameter \"%.60s\"",
                           name);
    }
    return 0;
}

void flow_drop_body(struct flow *f)
{
    struct flow_cell *c = cell_of(f);
    if (c->rq != NULL)
        request_drop_body(c->rq);
}

/* ---- drafts ---- */

static struct flow_draft *draft_of(struct flow *f)
{
    struct flow_cell *c = cell_of(f);
    assert(!c->streaming); /* a stream's head is out already */
    if (c->draft == NULL)
        c->draft = xcalloc(1, sizeof(*c->draft));
    return c->draft;
}

static bool is_clean(const char *s)
{
    for (; *s != '\0'; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            return false;
    return true;
}

void flow_draft_free(struct flow_draft *d)
{
    if (d == NULL)
        return;
    pairs_free(d->headers, d->header_count);
    json_decref(d->details);
    free(d->body);
    free(d);
}

/* Sets the reply; a second one is a bug. */
static enum flow_turn draft_set(struct flow *f, int status, const char *content_type,
                                char *body_take, size_t len)
{
    struct flow_draft *d = draft_of(f);
    assert(d->status == 0 && status >= 200 && status <= 599);
    assert(strlen(content_type) < sizeof(d->content_type) && is_clean(content_type));
    d->status = status;
    memcpy(d->content_type, content_type, strlen(content_type) + 1);
    d->body = body_take;
    d->body_len = len;
    return FLOW_DONE;
}

enum flow_turn flow_reply_json(struct flow *f, int status, json_t *body_take)
{
    char *text = jsonx_dump(body_take);
    json_decref(body_take);
    return draft_set(f, status, "application/json", text, strlen(text));
}

enum flow_turn flow_reply_text(struct flow *f, int status, const char *content_type,
                               const char *data, size_t len)
{
    char *copy = xmalloc(len + 1);
    memcpy(copy, data, len);
    copy[len] = '\0';
    return draft_set(f, status, content_type, copy, len);
}

enum flow_turn flow_reply_empty(struct flow *f, int status)
{
    return draft_set(f, status, "", NULL, 0);
}

void flow_header(struct flow *f, const char *name, const char *value)
{
    struct flow_draft *d = draft_of(f);
    assert(d->header_count < FLOW_HEADERS_MAX && is_clean(name) && is_clean(value));
    d->headers[d->header_count++] = (struct flow_pair){xstrdup(name), xstrdup(value)};
}

/* ---- problems ---- */

static const char *problem_title(enum err_code code)
{
    switch (code) {
    case ERR_NONE:
    case ERR_INTERNAL:
    case ERR_IO: return "Internal error";
    case ERR_USAGE:
    case ERR_BAD_REQUEST: return "Invalid request";
    case ERR_NO_FIT: return "Nothing fits";
    case ERR_FORBIDDEN: return "Not allowed";
    case ERR_NOT_FOUND: return "Not found";
    case ERR_CONFLICT: return "Conflict";
    case ERR_FUNDS: return "Not enough funds";
    case ERR_BUDGET: return "Over the budget";
    case ERR_UNREACHABLE: return "A peer cannot be reached";
    case ERR_UNKNOWN: return "Outcome unknown";
    case ERR_TOO_LARGE: return "Too large";
    case ERR_UNAUTHENTICATED: return "Not authenticated";
    case ERR_RATE_LIMITED: return "Too many requests";
    case ERR_KEY_REUSED: return "Idempotency key used before";
    case ERR_TIMEOUT: return "Timed out";
    case ERR_UNAVAILABLE: return "Not available now";
    case ERR_METHOD: return "Method not allowed";
    case ERR_TOKEN: return "Token refused";
    case ERR_QUOTA: return "Quota reached";
    case ERR_CLONED: return "Two agents have one identity";
    case ERR_BANNED: return "Banned";
    }
    return "Error";
}

char *flow_problem(const struct err *err, const char *request_id, const json_t *extra)
{
    return flow_problem_as(err, err_http_status(err->code), request_id, extra);
}

char *flow_problem_as(const struct err *err, int status, const char *request_id,
                      const json_t *extra)
{
    const char *name = err_code_name(err->code);
    const char *detail = status == 500 ? "the server failed; its log has the reason "
                                         "under this instance"
                                       : err->text;
    json_t *p = json_object();
    json_object_set_new(p, "type", json_sprintf("urn:neargpu:error:%s", name));
    json_object_set_new(p, "title", json_string(problem_title(err->code)));
    json_object_set_new(p, "status", json_integer(status));
    json_t *text =
        json_string(detail); /* NULL when it quotes bytes that are not UTF-8 */
    json_object_set_new(p, "detail", text != NULL ? text : json_string(""));
    json_object_set_new(p, "code", json_string(name));
    if (request_id != NULL && request_id[0] != '\0')
        json_object_set_new(p, "instance", json_sprintf("urn:uuid:%s", request_id));
    if (extra != NULL)
        json_object_update_missing(p, (json_t *)(uintptr_t)extra);
    char *dump = jsonx_dump(p);
    json_decref(p);
    return dump;
}

void flow_report_internal(struct flow_cell *c, const char *text)
{
    const struct flow_runner_opts *o = &c->pub.runner->opts;
    if (o->on_internal != NULL)
        o->on_internal(o->on_internal_arg, &c->pub, text);
}

static enum flow_turn fail_of_form(struct flow *f, const struct err *err)
{
    struct oauth_error as = oauth_error_of(err, draft_of(f)->fail_as);
    char *body = oauth_error_body(err, &as);
    if (as.status == 401)
        flow_header(f, "WWW-Authenticate", "Bearer realm=\"neargpu\"");
    return draft_set(f, as.status, "application/json", body, strlen(body));
}

enum flow_turn flow_fail(struct flow *f, const struct err *err)
{
    struct flow_draft *d = draft_of(f);
    const char *id = f->rq != NULL ? f->rq->request_id : "";
    int status = err_http_status(err->code);
    if (status == 500)
        flow_report_internal(cell_of(f), err->text);
    if (f->rq != NULL && f->rq->is_form)
        return fail_of_form(f, err);
    char *body = flow_problem(err, id, d->details);
    return draft_set(f, status, "application/problem+json", body, strlen(body));
}

void flow_fail_as(struct flow *f, const char *name)
{
    draft_of(f)->fail_as = name;
}

void flow_fail_detail(struct flow *f, const char *name, json_t *value_take)
{
    struct flow_draft *d = draft_of(f);
    if (d->details == NULL)
        d->details = json_object();
    json_object_set_new(d->details, name, value_take);
}

/* ---- to the sink ---- */

static struct flow_reply draft_view(const struct flow_draft *d)
{
    struct flow_reply reply = {
        .status = d->status,
        .content_type = d->content_type,
        .body = d->body != NULL ? d->body : "",
        .body_len = d->body_len,
        .header_count = d->header_count,
    };
    memcpy(reply.headers, d->headers, sizeof(reply.headers));
    return reply;
}

void flow_draft_send(struct flow_cell *c)
{
    struct flow_runner *r = c->pub.runner;
    bool asked = c->rq != NULL || c->to != 0;
    if (asked && !c->streaming && (c->draft == NULL || c->draft->status == 0)) {
        struct err err;
        (void)err_set(&err, ERR_INTERNAL, "the flow ended without a reply");
        (void)flow_fail(&c->pub, &err);
    }
    if (r->opts.on_step != NULL)
        r->opts.on_step(r->opts.on_step_arg, &c->pub, "reply");
    if (r->sink == NULL || !asked || c->orphan)
        return;
    if (c->streaming) {
        r->sink->stream_end(r->sink->env, c->to);
        return;
    }
    struct flow_reply reply = draft_view(c->draft);
    r->sink->reply(r->sink->env, c->to, &reply);
}

void flow_stream_begin(struct flow *f, int status, const char *content_type)
{
    struct flow_cell *c = cell_of(f);
    struct flow_runner *r = f->runner;
    (void)draft_set(f, status, content_type, NULL, 0);
    c->streaming = true;
    if (r->sink == NULL || c->orphan)
        return;
    struct flow_reply head = draft_view(c->draft);
    r->sink->stream_begin(r->sink->env, c->to, &head);
}

int flow_stream_write(struct flow *f, const void *data, size_t len)
{
    struct flow_cell *c = cell_of(f);
    struct flow_runner *r = f->runner;
    assert(c->streaming);
    if (c->orphan)
        return -1;
    if (r->sink == NULL)
        return 0;
    return r->sink->stream_write(r->sink->env, c->to, data, len);
}
