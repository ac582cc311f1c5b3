/* warden_sync: what the warden tells the market by way of the front, and what it makes
 * of the answers. See warden.h. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/agent/leases.h"
#include "client/agent/sshsrv.h"
#include "client/agent/warden_impl.h"
#include "client/agent/witness.h"
#include "client/lib/clock.h"
#include "client/lib/countersign.h"
#include "client/lib/digest.h"
#include "client/lib/jsonx.h"
#include "client/lib/keyset.h"
#include "client/lib/log.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define POST_DELAY_US    INT64_C(50000) /* several receipts become one post */
#define POST_NEXT_US     INT64_C(10000)
#define POST_BACKOFF     INT64_C(500000)
#define POST_BACKOFF_MAX INT64_C(30000000)

static void arm(struct event *ev, int64_t us)
{
    struct timeval tv = {us / US_PER_S, us % US_PER_S};
    event_add(ev, &tv);
}

/* --- observed state --- */

static bool has_fresh_status(const struct agent *a)
{
    int64_t now;
    return a->have_want && a->have_status && agent_now(a, &now) &&
           now - a->status.iat_us < TOKEN_STATUS_STALE_US / 2;
}

/* The front adds its address, the figures of its probes and a number. */
static json_t *observed(const struct agent *a)
{
    struct advert_window windows[ADVERT_WINDOWS_MAX];
    struct advert_body b = {
        .version = PACKAGE_VERSION,
        .boot_id = a->boot_id,
        .instance = a->id.instance,
        .address = "",
        .fabric = a->conf.fabric,
        .gpus = &a->advert,
        .currency = a->conf.price_micro > 0 ? a->conf.currency : NULL,
        .price_micro = a->conf.price_micro,
        .windows = windows,
        /* No status, no starts: then the whole is asked for anew. */
        .desired_version = has_fresh_status(a) ? a->want.version : "",
        .wait = ""};
    int64_t now;
    if (!agent_now(a, &now))
        now = clock_now_us(); /* the market sees its own clock in a window's place */
    b.window_count = advert_windows(a->conf.rules, a->conf.rule_count, a->conf.offset_s,
                                    now, windows, ADVERT_WINDOWS_MAX);
    b.leases = leases_json(a->leases);
    b.ssh = sshsrv_observed(&a->conf);
    json_t *body = advert_sync_body(&b);
    json_t *log = a->witness != NULL ? witness_says(a->witness, clock_boot_us()) : NULL;
    if (log != NULL)
        json_object_set_new(body, "log", log);
    return body;
}

static void push(evutil_socket_t fd, short what, void *arg)
{
    struct warden *w = arg;
    const struct agent *a = w->a;
    (void)fd;
    (void)what;
    if (!w->up)
        return;
    json_t *o = json_object();
    json_object_set_new(o, "body", observed(a));
    json_object_set_new(o, "fresh", json_boolean(has_fresh_status(a)));
    json_object_set_new(o, "changed", json_boolean(w->changed));
    if (signedtime_is_known(&a->time))
        json_object_set_new(o, "offset_us", json_integer(signedtime_at(&a->time, 0)));
    w->changed = false;
    warden_tell(w, LINK_OBSERVED, o, -1);
    arm(w->push, WARDEN_PUSH_US);
}

static void post_soon(struct warden *w)
{
    if (w->up && !w->posting && w->post_backoff_us == 0)
        arm(w->post, POST_DELAY_US);
}

void warden_changed(struct warden *w)
{
    if (w == NULL)
        return;
    w->changed = true;
    if (w->up)
        arm(w->push, 0);
    post_soon(w);
}

int warden_take_reply(struct warden *w, const json_t *doc, struct err *err)
{
    struct desired want;
    const json_t *body = NULL;
    static const struct jsonx_field fields[] = {{"body", JSONX_OBJECT, true, 0, 0, 0}};
    if (jsonx_decode(doc, fields, 1, &body, "", err) != 0 ||
        desired_parse(body, &want, err) != 0)
        return -1;
    /* What it says of receipts is not signed: they stay until a countersign came. */
    post_soon(w); /* what running leases have written since the last poll */
    agent_take_desired(w->a, &want, clock_boot_us());
    int64_t now;
    if (w->a->witness != NULL && agent_now(w->a, &now))
        witness_takes(w->a->witness, json_object_get(body, "log"), clock_boot_us(),
                      now);
    arm(w->push, 0); /* the front waits for it */
    return 0;
}

int warden_take_banned(struct warden *w, const json_t *doc, struct err *err)
{
    const char *status = NULL;
    static const struct jsonx_field fields[] = {
        {"status", JSONX_STRING, true, 0, 1, STATUS_BYTES_MAX}};
    if (jsonx_decode(doc, fields, 1, &status, "", err) != 0)
        return -1;
    agent_take_ban(w->a, status, clock_boot_us());
    return 0;
}

/* --- receipts --- */

static void take_rejected(struct warden *w, const json_t *list)
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
        log_error("the market refused receipt %lld of %.40s: %.40s: %.200s",
                  (long long)json_integer_value(json_object_get(v, "seq")), id,
                  code != NULL ? code : "?", detail != NULL ? detail : "");
        spool_hold(w->a->spool, id, clock_boot_us() + SPOOL_HOLD_US);
    }
}

static void post_failed(struct warden *w, const char *why)
{
    uint32_t r;
    digest_random(&r, sizeof(r));
    w->post_backoff_us =
        w->post_backoff_us == 0 ? POST_BACKOFF : w->post_backoff_us * 2;
    if (w->post_backoff_us > POST_BACKOFF_MAX)
        w->post_backoff_us = POST_BACKOFF_MAX;
    if (why != NULL)
        log_warn("receipts: %.200s", why);
    int64_t half = w->post_backoff_us / 2;
    arm(w->post, half + (int64_t)((uint64_t)half * r / UINT32_MAX));
}

/* A front can lie: only what the market signed makes a receipt go. Returns how many
 * were good. */
static size_t take_countersigns(struct warden *w, const json_t *list)
{
    const struct identity *id = &w->a->id;
    size_t i, good = 0;
    const json_t *v;
    json_array_foreach(list, i, v)
    {
        const char *reservation = json_string_value(json_object_get(v, "reservation"));
        const char *text = json_string_value(json_object_get(v, "countersign"));
        char hash[SHA256_HEX];
        struct countersign want = {.iss = id->issuer,
                                   .node = id->spiffe_id,
                                   .reservation = reservation,
                                   .hash = hash,
                                   .seq =
                                       json_integer_value(json_object_get(v, "seq"))};
        struct err err;
        struct countersign_said said;
        if (reservation == NULL || text == NULL ||
            spool_hash(w->a->spool, reservation, want.seq, hash, &err) != 0)
            continue;
        if (countersign_is_of(text, &want, id->keys, &said)) {
            spool_ack(w->a->spool, reservation, want.seq);
            good++;
            continue;
        }
        log_warn("receipt %lld of %.40s is not countersigned by the market: it is kept",
                 (long long)want.seq, reservation);
        if (said.unknown_key)
            warden_want_keys(w);
    }
    return good;
}

int warden_take_acked(struct warden *w, const json_t *doc, struct err *err)
{
    struct row {
        const char *error;
        json_t *countersigns, *rejected;
    } row = {0};
    static const struct jsonx_field fields[] = {
        {"error", JSONX_STRING, false, offsetof(struct row, error), 0, ERR_TEXT_MAX},
        {"countersigns", JSONX_ARRAY, false, offsetof(struct row, countersigns), 0,
         SPOOL_BATCH_MAX},
        {"rejected", JSONX_ARRAY, false, offsetof(struct row, rejected), 0,
         SPOOL_BATCH_MAX},
    };
    if (!w->posting)
        return err_set(err, ERR_CONFLICT, "nothing was posted");
    if (jsonx_decode(doc, fields, JSONX_COUNT(fields), &row, "", err) != 0)
        return -1;
    w->posting = false;
    if (row.error != NULL) {
        post_failed(w, row.error);
        return 0;
    }
    size_t good = take_countersigns(w, row.countersigns);
    take_rejected(w, row.rejected);
    /* An answer about nothing that was sent would come again and again. */
    if (good == 0 && json_array_size(row.rejected) == 0) {
        post_failed(w, NULL);
        return 0;
    }
    w->post_backoff_us = 0;
    if (spool_has_pending(w->a->spool, clock_boot_us()))
        arm(w->post, POST_NEXT_US);
    return 0;
}

static void post(evutil_socket_t fd, short what, void *arg)
{
    struct warden *w = arg;
    (void)fd;
    (void)what;
    if (!w->up || w->posting || !spool_has_pending(w->a->spool, clock_boot_us()))
        return;
    json_t *list = spool_pending(w->a->spool, SPOOL_BATCH_MAX, clock_boot_us());
    if (json_array_size(list) == 0) {
        json_decref(list);
        return;
    }
    json_t *o = json_object();
    json_object_set_new(o, "receipts", list);
    w->posting = true;
    warden_tell(w, LINK_RECEIPTS, o, -1);
}

/* --- keys --- */

void warden_want_keys(struct warden *w)
{
    if (w == NULL || !w->up || !keyset_may_fetch(&w->fetched_us, clock_boot_us()))
        return;
    log_info("a token names a key that is not known: the key set is asked for");
    warden_tell(w, LINK_FETCH, json_object(), -1);
}

int warden_take_keys(struct warden *w, const json_t *doc, struct err *err)
{
    struct row {
        const char *error, *key_set;
    } row = {0};
    static const struct jsonx_field fields[] = {
        {"error", JSONX_STRING, false, offsetof(struct row, error), 0, ERR_TEXT_MAX},
        {"key_set", JSONX_STRING, false, offsetof(struct row, key_set), 0,
         KEYSET_BYTES_MAX},
    };
    if (jsonx_decode(doc, fields, JSONX_COUNT(fields), &row, "", err) != 0)
        return -1;
    if (row.error != NULL)
        log_warn("the market's key set: %.200s", row.error);
    else if (row.key_set != NULL)
        agent_take_keys(w->a, row.key_set);
    return 0;
}

/* --- life --- */

void warden_sync_new(struct warden *w)
{
    w->push = evtimer_new(w->a->base, push, w);
    w->post = evtimer_new(w->a->base, post, w);
}

void warden_sync_free(struct warden *w)
{
    event_free(w->push);
    event_free(w->post);
}

void warden_sync_up(struct warden *w)
{
    w->posting = false;
    w->post_backoff_us = 0;
    arm(w->push, 0);
    arm(w->post, US_PER_S);
}

void warden_sync_down(struct warden *w)
{
    event_del(w->push);
    event_del(w->post);
    w->posting = false;
}
