/* sync: see sync.h. */
#include "config.h"

#include "client/agent/sync.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/agent/desired.h"
#include "client/agent/probe.h"
#include "client/agent/runsrv.h"
#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/httpc.h"
#include "client/lib/log.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define NO_STATUS_US       INT64_C(500000) /* a market just started has none for a moment */
#define POKE_DELAY_US      INT64_C(50000) /* several changes become one sync */
#define RENEW_RETRY_US     INT64_C(300000000)
#define RECEIPT_TIMEOUT_US INT64_C(30000000)

enum renewal { RENEW_IDLE, RENEW_ASKING, RENEW_PROVING };

struct sync {
    struct front *f;
    struct httpc *http;
    struct httpc_op *poll, *post, *renew, *fetch;
    struct event *timer; /* next poll */
    json_t *observed;    /* NULL: not told yet */
    bool fresh, awaits;  /* the warden's word on the last reply is awaited */
    int64_t seq;
    int64_t poll_started_us;
    int64_t backoff_us;
    bool poked; /* observed state changed since the poll in progress was sent */
    bool was_failing;
    char told[24]; /* code of the refusal that was logged last */
    enum renewal renewal;
    int64_t renew_after_us; /* boot time */
};

static void arm(struct event *ev, int64_t us)
{
    struct timeval tv = {us / US_PER_S, us % US_PER_S};
    event_add(ev, &tv);
}

static int64_t jittered(int64_t us)
{
    uint32_t r;
    digest_random(&r, sizeof(r));
    return us / 2 + (int64_t)((uint64_t)us / 2 * r / UINT32_MAX);
}

static int64_t grown(int64_t backoff_us)
{
    int64_t next = backoff_us == 0 ? SYNC_BACKOFF_MIN : backoff_us * 2;
    return next > SYNC_BACKOFF_MAX ? SYNC_BACKOFF_MAX : next;
}

static int make_http(struct front *f, bool fresh, struct httpc **ret, struct err *err)
{
    struct httpc_conf conf = {
        .base_url = f->conf.server,
        .ca_file = f->ca_path,
        .cert_file = fresh ? f->cert.new_cert_file : f->cert.cert_file,
        .key_file = fresh ? f->cert.new_key_file : f->cert.key_file,
        .user_agent = "neargpu-agent/" PACKAGE_VERSION};
    return httpc_new(&conf, f->base, ret, err);
}

/* --- certificate renewal --- */

static void renew_failed(struct sync *s, const char *why)
{
    log_warn("certificate renewal: %s; tried again later", why);
    nodecert_renew_abort(&s->f->cert);
    s->renewal = RENEW_IDLE;
    s->renew_after_us = clock_boot_us() + jittered(RENEW_RETRY_US);
}

static void cancel(struct httpc_op **op)
{
    if (*op != NULL)
        httpc_cancel(*op);
    *op = NULL;
}

/* Everything goes over the client with this identity from now on. */
static int switch_client(struct sync *s, bool fresh, struct err *err)
{
    struct httpc *http;
    if (make_http(s->f, fresh, &http, err) != 0)
        return -1;
    cancel(&s->poll);
    cancel(&s->renew);
    if (s->post != NULL)
        front_tell(s->f, LINK_ACKED, json_pack("{s:s}", "error", "cut off"));
    if (s->fetch != NULL)
        front_tell(s->f, LINK_KEYS, json_pack("{s:s}", "error", "cut off"));
    cancel(&s->post);
    cancel(&s->fetch);
    httpc_free(s->http);
    s->http = http;
    if (!s->awaits)
        arm(s->timer, 0);
    return 0;
}

static void renew_switch(evutil_socket_t fd, short what, void *arg)
{
    struct sync *s = arg;
    struct err err;
    (void)fd;
    (void)what;
    if (switch_client(s, s->renewal == RENEW_PROVING, &err) != 0)
        renew_failed(s, err.text);
}

static void renew_done(void *arg, const struct httpc_reply *reply,
                       const struct err *err)
{
    struct sync *s = arg;
    struct err why;
    s->renew = NULL;
    if (err != NULL) {
        renew_failed(s, err->text);
        return;
    }
    const char *pem = json_string_value(json_object_get(reply->body, "certificate"));
    if (pem == NULL) {
        renew_failed(s, "the reply has no certificate");
        return;
    }
    if (nodecert_renew_store(&s->f->cert, pem, &why) != 0) {
        renew_failed(s, why.text);
        return;
    }
    s->renewal = RENEW_PROVING;
    /* Not from inside a callback of the client that is to be freed. */
    struct timeval now = {0, 0};
    event_base_once(s->f->base, -1, EV_TIMEOUT, renew_switch, s, &now);
}

static void renew_if_due(struct sync *s)
{
    int64_t now;
    struct err err;
    char *csr = NULL;
    if (s->renewal != RENEW_IDLE || !front_now(s->f, &now) ||
        !nodecert_is_due(&s->f->cert, now) || clock_boot_us() < s->renew_after_us)
        return;
    if (nodecert_renew_begin(&s->f->cert, &csr, &err) != 0) {
        renew_failed(s, err.text);
        return;
    }
    json_t *body = json_object();
    json_object_set_new(body, "csr", json_string(csr));
    struct httpc_request rq = {.method = "POST",
                               .path = "/v1/agent/renew",
                               .body = body,
                               .timeout_us = RECEIPT_TIMEOUT_US};
    s->renewal = RENEW_ASKING;
    s->renew = httpc_start(s->http, &rq, renew_done, s);
    json_decref(body);
    free(csr);
}

/* A sync came back over the new certificate, or was refused over it. A lost reply says
 * neither: then the new one is tried again, since the market may know only it now. */
static void renew_prove(struct sync *s, bool worked)
{
    struct err err;
    if (s->renewal != RENEW_PROVING)
        return;
    if (worked) {
        s->renewal = RENEW_IDLE;
        if (nodecert_renew_commit(&s->f->cert, &err) != 0)
            log_error("certificate renewal: %s", err.text);
        else
            log_info("certificate renewed");
    } else {
        renew_failed(s, "the new certificate was not accepted");
    }
    struct timeval now = {0, 0};
    event_base_once(s->f->base, -1, EV_TIMEOUT, renew_switch, s, &now);
    if (worked && runsrv_new_identity(s->f->runsrv, &err) != 0)
        log_error("%s", err.text);
}

/* --- receipts, key set: the warden asked, and is told what came --- */

static void post_done(void *arg, const struct httpc_reply *reply, const struct err *err)
{
    struct sync *s = arg;
    json_t *o = json_object();
    s->post = NULL;
    if (err == NULL && json_is_object(reply->body)) {
        json_t *signs = json_object_get(reply->body, "countersigns");
        json_t *rejected = json_object_get(reply->body, "rejected");
        json_object_set(o, "countersigns", signs != NULL ? signs : json_null());
        json_object_set(o, "rejected", rejected != NULL ? rejected : json_null());
    } else {
        json_object_set_new(o, "error",
                            json_string(err != NULL ? err->text : "no JSON came"));
    }
    front_tell(s->f, LINK_ACKED, o);
}

int sync_post(struct sync *s, const json_t *doc, struct err *err)
{
    if (s->post != NULL)
        return err_set(err, ERR_CONFLICT, "receipts are being posted");
    struct httpc_request rq = {.method = "POST",
                               .path = "/v1/agent/receipts",
                               .body = (json_t *)(uintptr_t)doc,
                               .timeout_us = RECEIPT_TIMEOUT_US};
    s->post = httpc_start(s->http, &rq, post_done, s);
    return 0;
}

static void fetch_done(void *arg, const struct httpc_reply *reply,
                       const struct err *err)
{
    struct sync *s = arg;
    json_t *set = json_object_get(reply->body, "key_set");
    json_t *o = json_object();
    s->fetch = NULL;
    if (err == NULL && json_is_string(set))
        json_object_set(o, "key_set", set);
    else
        json_object_set_new(o, "error",
                            json_string(err != NULL ? err->text : "none came"));
    front_tell(s->f, LINK_KEYS, o);
}

void sync_fetch_keys(struct sync *s)
{
    struct httpc_request rq = {
        .method = "GET", .path = "/v1/keyset", .timeout_us = RECEIPT_TIMEOUT_US};
    if (s->fetch == NULL)
        s->fetch = httpc_start(s->http, &rq, fetch_done, s);
}

/* --- the poll --- */

/* The warden's part, and what this process alone knows. */
static json_t *make_body(struct sync *s)
{
    json_t *body = json_copy(s->observed);
    json_t *agent = json_copy(json_object_get(s->observed, "agent"));
    json_object_set_new(agent, "seq", json_integer(++s->seq));
    json_object_set_new(agent, "address", json_string(runsrv_address(s->f->runsrv)));
    json_object_set_new(body, "agent", agent);
    json_object_set_new(body, "probes", probe_json(s->f->probe));
    json_object_set_new(body, "wait", json_string(SYNC_WAIT));
    return body;
}

static void poll_failed(struct sync *s, const char *why)
{
    s->backoff_us = grown(s->backoff_us);
    if (!s->was_failing)
        log_warn("sync: %s; trying again", why);
    s->was_failing = true;
    arm(s->timer, jittered(s->backoff_us));
}

/* A market that answers every poll at once is not asked more often than this. */
static int64_t next_poll_us(const struct sync *s)
{
    if (!s->poked && !s->fresh)
        return NO_STATUS_US;
    bool quick = clock_boot_us() - s->poll_started_us < POKE_DELAY_US;
    return s->poked || quick ? POKE_DELAY_US : 0;
}

/* Refusals that a person has to do something about are told once, in his words. */
static void tell_refused(struct sync *s, const struct httpc_reply *reply)
{
    static const struct {
        const char *code, *what;
    } known[] = {
        {"cloned", "two agents go on with the identity of this node: the market speaks "
                   "with neither until the provider attests the node again"},
        {"banned", "the market has banned this node, and revoked its leases"},
        {"unauthenticated", "the market does not know this certificate: it ran out, or "
                            "the node was enrolled anew since"},
    };
    const char *code = json_string_value(json_object_get(reply->body, "code"));
    for (size_t i = 0; code != NULL && i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(code, known[i].code) != 0 || strcmp(code, s->told) == 0)
            continue;
        snprintf(s->told, sizeof(s->told), "%s", code);
        const char *detail = json_string_value(json_object_get(reply->body, "detail"));
        log_error("sync refused (%s): %s. The market says: %.300s", code, known[i].what,
                  detail != NULL ? detail : "nothing");
    }
}

/* What is revoked on a banned node ends: this is the only way that tells it. */
static void tell_banned(struct sync *s, const struct httpc_reply *reply)
{
    const char *code = json_string_value(json_object_get(reply->body, "code"));
    json_t *status = json_object_get(reply->body, "status_document");
    if (code == NULL || strcmp(code, "banned") != 0 || !json_is_string(status))
        return;
    json_t *o = json_object();
    json_object_set(o, "status", status);
    front_tell(s->f, LINK_BANNED, o);
}

static void take_wants(struct sync *s, const struct desired *want)
{
    struct front *f = s->f;
    if (f->conf.probe_interval_us == 0 && want->probe_interval_us > 0)
        probe_set_interval(f->probe, want->probe_interval_us);
    probe_set(f->probe, want->probes, want->probe_count);
}

static void poll_done(void *arg, const struct httpc_reply *reply, const struct err *err)
{
    struct sync *s = arg;
    struct desired want;
    struct err why;
    s->poll = NULL;
    if (err != NULL) {
        tell_refused(s, reply);
        tell_banned(s, reply);
        if (reply->status == 401 || reply->status == 403)
            renew_prove(s, false);
        poll_failed(s, err->text);
        return;
    }
    if (reply->body == NULL || desired_parse(reply->body, &want, &why) != 0) {
        poll_failed(s, reply->body == NULL ? "the reply is no JSON" : why.text);
        return;
    }
    json_t *o = json_object();
    json_object_set(o, "body", reply->body);
    if (link_send(s->f->link, LINK_REPLY, o, -1, &why) != 0) {
        desired_done(&want);
        poll_failed(s, why.text);
        return;
    }
    if (s->was_failing)
        log_info("sync: the market answers again");
    s->was_failing = false;
    s->told[0] = '\0';
    s->backoff_us = 0;
    take_wants(s, &want);
    desired_done(&want);
    s->awaits = true; /* the next poll says what the warden made of it */
    renew_prove(s, true);
    renew_if_due(s);
}

static void poll_now(evutil_socket_t fd, short what, void *arg)
{
    struct sync *s = arg;
    (void)fd;
    (void)what;
    if (s->poll != NULL || s->observed == NULL)
        return;
    json_t *body = make_body(s);
    struct httpc_request rq = {.method = "POST",
                               .path = "/v1/agent/sync",
                               .body = body,
                               .timeout_us = SYNC_TIMEOUT_US};
    s->poked = false;
    s->poll_started_us = clock_boot_us();
    s->poll = httpc_start(s->http, &rq, poll_done, s);
    json_decref(body);
}

void sync_poke(struct sync *s)
{
    if (s == NULL)
        return;
    if (s->poll == NULL || s->poked) {
        s->poked = true; /* not yet sent, or on its way to be given up already */
        return;
    }
    s->poked = true;
    cancel(&s->poll);
    arm(s->timer, POKE_DELAY_US);
}

void sync_observe(struct sync *s, const json_t *body, bool fresh, bool changed)
{
    bool first = s->observed == NULL;
    json_decref(s->observed);
    s->observed = json_incref((json_t *)(uintptr_t)body);
    s->fresh = fresh;
    if (first)
        arm(s->timer, 0);
    else if (s->awaits)
        arm(s->timer, next_poll_us(s));
    s->awaits = false;
    if (changed)
        sync_poke(s);
}

int sync_new(struct front *f, struct sync **ret, struct err *err)
{
    struct sync *s = xcalloc(1, sizeof(*s));
    s->f = f;
    /* Numbers grow within a boot, also from one front to the next: of two machines that
     * are copies to the last bit the market sees that by them alone. */
    s->seq = clock_boot_us();
    s->timer = evtimer_new(f->base, poll_now, s);
    s->renewal = f->cert.has_new ? RENEW_PROVING : RENEW_IDLE;
    if (make_http(f, f->cert.has_new, &s->http, err) != 0) {
        sync_free(s);
        return -1;
    }
    *ret = s;
    return 0;
}

void sync_free(struct sync *s)
{
    if (s == NULL)
        return;
    cancel(&s->poll);
    cancel(&s->post);
    cancel(&s->renew);
    cancel(&s->fetch);
    httpc_free(s->http);
    event_free(s->timer);
    json_decref(s->observed);
    free(s);
}
