/* sync: see sync.h. */
#include "config.h"

#include "client/agent/sync.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/agent/leases.h"
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
    struct agent *a;
    struct httpc *http;
    struct httpc_op *poll, *post, *renew;
    struct event *timer;      /* next poll */
    struct event *post_timer; /* next posting of receipts */
    int64_t seq;
    int64_t poll_started_us;
    int64_t backoff_us, post_backoff_us;
    bool poked; /* observed state changed since the poll in progress was sent */
    bool was_failing;
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

static int make_http(struct agent *a, bool fresh, struct httpc **ret, struct err *err)
{
    struct httpc_conf conf = {
        .base_url = a->conf.server != NULL ? a->conf.server : a->id.server,
        .ca_file = a->id.ca_file,
        .cert_file = fresh ? a->id.new_cert_file : a->id.cert_file,
        .key_file = fresh ? a->id.new_key_file : a->id.key_file,
        .user_agent = "neargpu-agent/" PACKAGE_VERSION};
    return httpc_new(&conf, a->base, ret, err);
}

/* --- certificate renewal --- */

static void renew_failed(struct sync *s, const char *why)
{
    log_warn("certificate renewal: %s; tried again later", why);
    identity_renew_abort(&s->a->id);
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
    if (make_http(s->a, fresh, &http, err) != 0)
        return -1;
    cancel(&s->poll);
    cancel(&s->post);
    cancel(&s->renew);
    httpc_free(s->http);
    s->http = http;
    arm(s->timer, 0);
    arm(s->post_timer, jittered(US_PER_S));
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
    if (identity_renew_store(&s->a->id, pem, &why) != 0) {
        renew_failed(s, why.text);
        return;
    }
    s->renewal = RENEW_PROVING;
    /* Not from inside a callback of the client that is to be freed. */
    struct timeval now = {0, 0};
    event_base_once(s->a->base, -1, EV_TIMEOUT, renew_switch, s, &now);
}

static void renew_if_due(struct sync *s)
{
    int64_t now;
    struct err err;
    char *csr = NULL;
    if (s->renewal != RENEW_IDLE || !agent_now(s->a, &now) ||
        !identity_is_due(&s->a->id, now) || clock_boot_us() < s->renew_after_us)
        return;
    if (identity_renew_begin(&s->a->id, &csr, &err) != 0) {
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
        if (identity_renew_commit(&s->a->id, &err) != 0)
            log_error("certificate renewal: %s", err.text);
        else
            log_info("certificate renewed");
    } else {
        renew_failed(s, "the new certificate was not accepted");
    }
    struct timeval now = {0, 0};
    event_base_once(s->a->base, -1, EV_TIMEOUT, renew_switch, s, &now);
    if (worked)
        runsrv_new_identity(s->a->runsrv);
}

/* --- receipts --- */

static void take_rejected(struct sync *s, const json_t *list)
{
    size_t i;
    const json_t *v;
    json_array_foreach(list, i, v)
    {
        const char *id = json_string_value(json_object_get(v, "reservation"));
        const char *code = json_string_value(json_object_get(v, "code"));
        const char *detail = json_string_value(json_object_get(v, "detail"));
        if (id == NULL)
            continue;
        log_error("the market refused receipt %lld of %s: %s: %s",
                  (long long)json_integer_value(json_object_get(v, "seq")), id,
                  code != NULL ? code : "?", detail != NULL ? detail : "");
        spool_hold(s->a->spool, id, clock_boot_us() + SPOOL_HOLD_US);
    }
}

static void take_acks(struct agent *a, const struct desired_ack *acks, size_t count)
{
    for (size_t i = 0; i < count; i++)
        spool_ack(a->spool, acks[i].id, acks[i].seq);
}

static void post_done(void *arg, const struct httpc_reply *reply, const struct err *err)
{
    struct sync *s = arg;
    struct err why;
    struct desired_ack *acks = NULL;
    size_t count = 0;
    s->post = NULL;
    if (err != NULL) {
        s->post_backoff_us = grown(s->post_backoff_us);
        log_warn("receipts: %s", err->text);
    } else if (desired_parse_acks(json_object_get(reply->body, "acks"), "/acks", &acks,
                                  &count, &why) != 0) {
        s->post_backoff_us = grown(s->post_backoff_us);
        log_warn("receipts: %s", why.text);
    } else {
        const json_t *rejected = json_object_get(reply->body, "rejected");
        /* An answer about nothing that was sent would come again and again. */
        bool about_none = count == 0 && json_array_size(rejected) == 0;
        s->post_backoff_us = about_none ? grown(s->post_backoff_us) : 0;
        take_acks(s->a, acks, count);
        take_rejected(s, rejected);
        free(acks);
    }
    if (s->post_backoff_us > 0)
        arm(s->post_timer, jittered(s->post_backoff_us));
    else if (spool_has_pending(s->a->spool, clock_boot_us()))
        arm(s->post_timer, 10000);
}

static void post_receipts(evutil_socket_t fd, short what, void *arg)
{
    struct sync *s = arg;
    (void)fd;
    (void)what;
    if (s->post != NULL || !spool_has_pending(s->a->spool, clock_boot_us()))
        return;
    json_t *list = spool_pending(s->a->spool, SPOOL_BATCH_MAX, clock_boot_us());
    if (json_array_size(list) == 0) {
        json_decref(list);
        return;
    }
    json_t *body = json_object();
    json_object_set_new(body, "receipts", list);
    struct httpc_request rq = {.method = "POST",
                               .path = "/v1/agent/receipts",
                               .body = body,
                               .timeout_us = RECEIPT_TIMEOUT_US};
    s->post = httpc_start(s->http, &rq, post_done, s);
    json_decref(body);
}

static void post_soon(struct sync *s)
{
    if (s->post == NULL && s->post_backoff_us == 0)
        arm(s->post_timer, POKE_DELAY_US);
}

/* --- the poll --- */

static bool has_fresh_status(const struct agent *a)
{
    int64_t now;
    return a->have_want && a->have_status && agent_now(a, &now) &&
           now - a->status.iat_us < TOKEN_STATUS_STALE_US / 2;
}

static json_t *observed(struct sync *s)
{
    struct agent *a = s->a;
    struct advert_window windows[ADVERT_WINDOWS_MAX];
    struct advert_body b = {
        .version = PACKAGE_VERSION,
        .boot_id = a->boot_id,
        .address = runsrv_address(a->runsrv),
        .fabric = a->conf.fabric,
        .seq = ++s->seq,
        .gpus = &a->advert,
        .currency = a->conf.price_micro > 0 ? a->conf.currency : NULL,
        .price_micro = a->conf.price_micro,
        .windows = windows,
        /* No status, no starts: then the whole is asked for anew. */
        .desired_version = has_fresh_status(a) ? a->want.version : "",
        .wait = SYNC_WAIT};
    int64_t now;
    if (!agent_now(a, &now))
        now = clock_now_us(); /* the market sees its own clock in a window's place */
    b.window_count = advert_windows(a->conf.rules, a->conf.rule_count, a->conf.offset_s,
                                    now, windows, ADVERT_WINDOWS_MAX);
    b.leases = leases_json(a->leases);
    b.probes = probe_json(a->probe);
    return advert_sync_body(&b);
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
    if (!s->poked && !has_fresh_status(s->a))
        return NO_STATUS_US;
    bool quick = clock_boot_us() - s->poll_started_us < POKE_DELAY_US;
    return s->poked || quick ? POKE_DELAY_US : 0;
}

static void poll_done(void *arg, const struct httpc_reply *reply, const struct err *err)
{
    struct sync *s = arg;
    struct desired want;
    struct err why;
    s->poll = NULL;
    if (err != NULL) {
        if (reply->status == 401 || reply->status == 403)
            renew_prove(s, false);
        poll_failed(s, err->text);
        return;
    }
    if (reply->body == NULL || desired_parse(reply->body, &want, &why) != 0) {
        poll_failed(s, reply->body == NULL ? "the reply is no JSON" : why.text);
        return;
    }
    if (s->was_failing)
        log_info("sync: the market answers again");
    s->was_failing = false;
    s->backoff_us = 0;
    take_acks(s->a, want.acks, want.ack_count);
    post_soon(s); /* what running leases have written since the last poll */
    agent_take_desired(s->a, &want, clock_boot_us());
    renew_prove(s, true);
    renew_if_due(s);
    arm(s->timer, next_poll_us(s));
}

static void poll_now(evutil_socket_t fd, short what, void *arg)
{
    struct sync *s = arg;
    (void)fd;
    (void)what;
    if (s->poll != NULL)
        return;
    json_t *body = observed(s);
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
    post_soon(s);
    if (s->poll == NULL || s->poked) {
        s->poked = true; /* not yet sent, or on its way to be given up already */
        return;
    }
    s->poked = true;
    cancel(&s->poll);
    arm(s->timer, POKE_DELAY_US);
}

int sync_new(struct agent *a, struct sync **ret, struct err *err)
{
    struct sync *s = xcalloc(1, sizeof(*s));
    s->a = a;
    s->timer = evtimer_new(a->base, poll_now, s);
    s->post_timer = evtimer_new(a->base, post_receipts, s);
    s->renewal = a->id.has_new ? RENEW_PROVING : RENEW_IDLE;
    if (make_http(a, a->id.has_new, &s->http, err) != 0) {
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
    httpc_free(s->http);
    event_free(s->timer);
    event_free(s->post_timer);
    free(s);
}

void sync_start(struct sync *s)
{
    arm(s->timer, 0);
    arm(s->post_timer, US_PER_S);
}
