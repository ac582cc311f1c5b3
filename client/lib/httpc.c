/* httpc: see httpc.h. The blocking half keeps one easy handle, the asynchronous half a
 * multi handle driven by libevent; both keep connections alive. libcurl's callbacks
 * only record: completions are queued and handed out from an event of their own, so a
 * completion may start, cancel or free anything. */
#include "client/lib/httpc_internal.h"

#include <assert.h>
#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"

#define HTTPC_KEY_BYTES_MAX 65536

struct httpc_op {
    TAILQ_ENTRY(httpc_op) link; /* in h->running or h->ready */
    struct httpc *h;
    struct httpc_exchange x;
    httpc_done_fn *done;
    void *arg;
    bool attached;        /* the easy handle is in the multi handle */
    bool ready;           /* in h->ready: the transfer is over */
    bool delivering;      /* its callback runs now */
    struct err start_err; /* code set: it never started */
    CURLcode code;
};

TAILQ_HEAD(httpc_ops, httpc_op);

/* A socket libcurl wants watched. */
struct httpc_watch {
    LIST_ENTRY(httpc_watch) link;
    struct event *ev;
};

struct httpc {
    struct httpc_settings settings;
    CURL *blocking;
    struct event_base *base; /* NULL: blocking use only */
    CURLM *multi;
    struct event *timer, *deliver;
    LIST_HEAD(, httpc_watch) watches;
    struct httpc_ops running, ready;
    bool delivering; /* completions are being handed out */
    bool closed;     /* httpc_free() came meanwhile: the struct goes last */
};

/* Moves finished transfers to the ready list; called after every turn of libcurl. */
static void httpc_collect(struct httpc *h)
{
    CURLMsg *msg;
    int left;
    while ((msg = httpc_curl.multi_info_read(h->multi, &left)) != NULL) {
        if (msg->msg != CURLMSG_DONE)
            continue;
        struct httpc_op *op = NULL;
        CURLcode code = msg->data.result; /* msg dies with the removal below */
        httpc_curl.easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &op);
        httpc_curl.multi_remove_handle(h->multi, op->x.easy);
        op->attached = false;
        op->code = code;
        op->ready = true;
        TAILQ_REMOVE(&h->running, op, link);
        TAILQ_INSERT_TAIL(&h->ready, op, link);
    }
    if (!TAILQ_EMPTY(&h->ready))
        event_active(h->deliver, EV_TIMEOUT, 0);
}

static void httpc_turn(struct httpc *h, curl_socket_t fd, int what)
{
    int running;
    httpc_curl.multi_socket_action(h->multi, fd, what, &running);
    httpc_collect(h);
}

static void httpc_on_socket_event(evutil_socket_t fd, short what, void *arg)
{
    httpc_turn(arg, fd,
               (what & EV_READ ? CURL_CSELECT_IN : 0) |
                   (what & EV_WRITE ? CURL_CSELECT_OUT : 0));
}

static void httpc_on_timer(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    httpc_turn(arg, CURL_SOCKET_TIMEOUT, 0);
}

static int httpc_want_timer(CURLM *multi, long timeout_ms, void *arg)
{
    struct httpc *h = arg;
    (void)multi;
    if (timeout_ms < 0) {
        event_del(h->timer);
    } else {
        struct timeval tv = {timeout_ms / 1000, timeout_ms % 1000 * 1000};
        event_add(h->timer, &tv);
    }
    return 0;
}

static void httpc_unwatch(struct httpc_watch *w)
{
    LIST_REMOVE(w, link);
    event_free(w->ev);
    free(w);
}

static int httpc_want_socket(CURL *easy, curl_socket_t fd, int what, void *arg,
                             void *socket_arg)
{
    struct httpc *h = arg;
    struct httpc_watch *w = socket_arg;
    (void)easy;
    if (w != NULL)
        httpc_unwatch(w);
    if (what == CURL_POLL_REMOVE) {
        httpc_curl.multi_assign(h->multi, fd, NULL);
        return 0;
    }
    w = xcalloc(1, sizeof(*w));
    w->ev = event_new(h->base, fd,
                      (short)((what & CURL_POLL_IN ? EV_READ : 0) |
                              (what & CURL_POLL_OUT ? EV_WRITE : 0) | EV_PERSIST),
                      httpc_on_socket_event, h);
    if (w->ev == NULL || event_add(w->ev, NULL) != 0)
        abort();
    LIST_INSERT_HEAD(&h->watches, w, link);
    httpc_curl.multi_assign(h->multi, fd, w);
    return 0;
}

static void httpc_op_free(struct httpc_op *op)
{
    if (op->attached)
        httpc_curl.multi_remove_handle(op->h->multi, op->x.easy);
    CURL *easy = op->x.easy;
    httpc_exchange_done(&op->x);
    httpc_curl.easy_cleanup(easy);
    free(op);
}

static void httpc_op_deliver(struct httpc_op *op)
{
    struct err err = {0};
    struct httpc_reply reply = {0};
    int rc = -1;
    if (op->start_err.code != ERR_NONE)
        err = op->start_err;
    else
        rc = httpc_exchange_result(&op->x, op->code, &reply, &err);
    op->delivering = true;
    op->done(op->arg, &reply, rc == 0 ? NULL : &err);
    httpc_reply_done(&reply);
}

static void httpc_on_deliver(evutil_socket_t fd, short what, void *arg)
{
    struct httpc *h = arg;
    struct httpc_op *op;
    (void)fd;
    (void)what;
    h->delivering = true;
    while ((op = TAILQ_FIRST(&h->ready)) != NULL) { /* empty once closed */
        TAILQ_REMOVE(&h->ready, op, link);
        httpc_op_deliver(op);
        httpc_op_free(op);
    }
    h->delivering = false;
    if (h->closed)
        free(h);
}

static char *httpc_copy(const char *text)
{
    return text == NULL ? NULL : xstrdup(text);
}

static void httpc_settings_done(struct httpc_settings *s)
{
    if (s->bearer != NULL)
        OPENSSL_cleanse(s->bearer, strlen(s->bearer));
    free(s->base_url);
    free(s->ca_file);
    free(s->cert_file);
    free(s->key_file);
    free(s->bearer);
    free(s->user_agent);
}

static int httpc_check_conf(const struct httpc_conf *conf, struct err *err)
{
    if (strncmp(conf->base_url, "https://", 8) != 0 || conf->base_url[8] == '\0')
        return err_set(err, ERR_USAGE, "server '%.100s': expected https://HOST:PORT",
                       conf->base_url);
    if (conf->ca_file == NULL)
        return err_set(err, ERR_USAGE, "no CA file for %s", conf->base_url);
    if (conf->bearer != NULL && strpbrk(conf->bearer, "\r\n") != NULL)
        return err_set(err, ERR_USAGE, "the API key holds a line break");
    if (conf->key_file == NULL)
        return 0;
    /* libcurl reads the key itself; this is the check that it is a secret. */
    char *key;
    size_t len;
    if (fsx_read_secret(conf->key_file, HTTPC_KEY_BYTES_MAX, &key, &len, err) != 0)
        return -1;
    OPENSSL_cleanse(key, len);
    free(key);
    return 0;
}

static void httpc_attach_base(struct httpc *h, struct event_base *base)
{
    h->base = base;
    h->multi = httpc_curl.multi_init();
    h->timer = evtimer_new(base, httpc_on_timer, h);
    h->deliver = evtimer_new(base, httpc_on_deliver, h);
    if (h->multi == NULL || h->timer == NULL || h->deliver == NULL ||
        httpc_curl.multi_setopt(h->multi, CURLMOPT_SOCKETFUNCTION, httpc_want_socket) !=
            CURLM_OK ||
        httpc_curl.multi_setopt(h->multi, CURLMOPT_SOCKETDATA, h) != CURLM_OK ||
        httpc_curl.multi_setopt(h->multi, CURLMOPT_TIMERFUNCTION, httpc_want_timer) !=
            CURLM_OK ||
        httpc_curl.multi_setopt(h->multi, CURLMOPT_TIMERDATA, h) != CURLM_OK)
        abort();
}

int httpc_new(const struct httpc_conf *conf, struct event_base *base,
              struct httpc **ret, struct err *err)
{
    if (httpc_curl_load(err) != 0 || httpc_check_conf(conf, err) != 0)
        return -1;
    struct httpc *h = xcalloc(1, sizeof(*h));
    h->settings.base_url = httpc_copy(conf->base_url);
    size_t len = strlen(h->settings.base_url);
    if (h->settings.base_url[len - 1] == '/') /* paths bring their own */
        h->settings.base_url[len - 1] = '\0';
    h->settings.ca_file = httpc_copy(conf->ca_file);
    h->settings.cert_file = httpc_copy(conf->cert_file);
    h->settings.key_file = httpc_copy(conf->key_file);
    h->settings.bearer = httpc_copy(conf->bearer);
    h->settings.user_agent =
        httpc_copy(conf->user_agent != NULL ? conf->user_agent : "neargpu");
    TAILQ_INIT(&h->running);
    TAILQ_INIT(&h->ready);
    LIST_INIT(&h->watches);
    if (base != NULL)
        httpc_attach_base(h, base);
    *ret = h;
    return 0;
}

void httpc_free(struct httpc *h)
{
    struct httpc_op *op;
    if (h == NULL)
        return;
    while ((op = TAILQ_FIRST(&h->running)) != NULL)
        httpc_cancel(op);
    while ((op = TAILQ_FIRST(&h->ready)) != NULL)
        httpc_cancel(op);
    httpc_curl.multi_cleanup(h->multi);
    while (!LIST_EMPTY(&h->watches))
        httpc_unwatch(LIST_FIRST(&h->watches));
    if (h->timer != NULL)
        event_free(h->timer);
    if (h->deliver != NULL)
        event_free(h->deliver);
    httpc_curl.easy_cleanup(h->blocking);
    httpc_settings_done(&h->settings);
    h->closed = true;
    if (!h->delivering)
        free(h);
}

void httpc_reply_done(struct httpc_reply *r)
{
    json_decref(r->body);
    free(r->text);
    *r = (struct httpc_reply){0};
}

int httpc_call(struct httpc *h, const struct httpc_request *rq, struct httpc_reply *ret,
               struct err *err)
{
    struct httpc_exchange x;
    *ret = (struct httpc_reply){0};
    if (h->blocking == NULL)
        h->blocking = httpc_curl.easy_init();
    if (h->blocking == NULL)
        abort();
    /* Between calls the handle is reset, which keeps its connections. */
    if (httpc_exchange_init(&x, &h->settings, h->blocking, rq, err) != 0)
        return -1;
    CURLcode code = httpc_curl.easy_perform(h->blocking);
    int rc = httpc_exchange_result(&x, code, ret, err);
    httpc_curl.easy_reset(h->blocking); /* lets go of x before x goes */
    httpc_exchange_done(&x);
    return rc;
}

struct httpc_op *httpc_start(struct httpc *h, const struct httpc_request *rq,
                             httpc_done_fn *done, void *arg)
{
    assert(h->multi != NULL);
    struct httpc_op *op = xcalloc(1, sizeof(*op));
    op->h = h;
    op->done = done;
    op->arg = arg;
    CURL *easy = httpc_curl.easy_init();
    if (easy == NULL)
        abort();
    if (httpc_exchange_init(&op->x, &h->settings, easy, rq, &op->start_err) != 0) {
        op->x.easy = easy;
        op->ready = true;
        TAILQ_INSERT_TAIL(&h->ready, op, link);
        event_active(h->deliver, EV_TIMEOUT, 0);
        return op;
    }
    if (httpc_curl.easy_setopt(easy, CURLOPT_PRIVATE, op) != CURLE_OK ||
        httpc_curl.multi_add_handle(h->multi, easy) != CURLM_OK)
        abort();
    op->attached = true;
    TAILQ_INSERT_TAIL(&h->running, op, link);
    return op;
}

void httpc_cancel(struct httpc_op *op)
{
    if (op == NULL || op->delivering)
        return; /* its callback runs: it ends by itself */
    if (op->ready)
        TAILQ_REMOVE(&op->h->ready, op, link);
    else
        TAILQ_REMOVE(&op->h->running, op, link);
    httpc_op_free(op);
}

int httpc_load(struct err *err)
{
    return httpc_curl_load(err);
}

char *httpc_escape(const char *text)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                "0123456789-._~";
    struct strbuf out = STRBUF_INIT;
    strbuf_adds(&out, "");
    for (const char *p = text; *p != '\0'; p++) {
        if (strchr(plain, *p) != NULL)
            strbuf_addc(&out, *p);
        else
            strbuf_addf(&out, "%%%02X", (unsigned)(unsigned char)*p);
    }
    return strbuf_steal(&out);
}
