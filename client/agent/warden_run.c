/* warden_run: the requests of tenants, as the front brings them: a nonce for each
 * connection, the check (runauth.h), the act (leases.h), and at most one socket of a
 * job's keeper handed back. See warden.h.
 *
 * A nonce is made here, belongs to one connection and is used up by its first request.
 * What a start of a job waits for is waited for here: a connection, or the whole front,
 * may end meanwhile and the job starts all the same. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/agent/leases.h"
#include "client/agent/runauth.h"
#include "client/agent/runjobs.h"
#include "client/agent/runsrv.h"
#include "client/agent/warden_impl.h"
#include "client/lib/b64.h"
#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/frame.h"
#include "client/lib/jsonx.h"
#include "client/lib/log.h"
#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

struct warden_client {
    struct warden_client *next;
    int64_t id;
    int64_t uid;             /* at the other end of the node's own socket; -1: remote */
    char nonce[JWS_KID_MAX]; /* "": used up */
    char tenant[UUID_TEXT];  /* "": not known, or answered for good */
    struct warden_start *start; /* what it waits for; NULL: nothing */
};

/* A job whose keeper has not said yet that it runs. */
struct warden_start {
    struct warden *w;
    struct warden_start *next;
    struct warden_client *client; /* NULL: gone */
    struct event *event;          /* the keeper's word, or its time is over */
    struct launch_ready ready;
    char lease[JOURNAL_ID_MAX], job[JOURNAL_ID_MAX];
};

static struct warden_client *find(const struct warden *w, int64_t id)
{
    for (struct warden_client *c = w->clients; c != NULL; c = c->next)
        if (c->id == id)
            return c;
    return NULL;
}

/* --- answers --- */

static void answer(struct warden *w, struct warden_client *c, char type, json_t *take,
                   int fd_take)
{
    const char text[2] = {type, '\0'};
    json_t *o = json_object();
    json_object_set_new(o, "client", json_integer(c->id));
    json_object_set_new(o, "type", json_string(text));
    json_object_set_new(o, "payload", take);
    if (fd_take < 0)
        c->tenant[0] = '\0'; /* it is over, and counts no more */
    warden_tell(w, LINK_ANSWER, o, fd_take);
}

static void refuse(struct warden *w, struct warden_client *c, const char *step,
                   const struct err *err)
{
    json_t *o = json_object();
    json_object_set_new(o, "error", json_string(err_code_name(err->code)));
    json_object_set_new(o, "step", json_string(step));
    json_t *text = json_string(err->text);
    json_object_set_new(o, "detail", text != NULL ? text : json_string("?"));
    /* Anyone can send rubbish; only what got as far as a token is worth a line. */
    if (strcmp(step, "request") == 0)
        log_debug("run: refused at %s: %s", step, err->text);
    else
        log_info("run: refused at %s: %s", step, err->text);
    answer(w, c, 'E', o, -1);
}

/* The keeper is told where to begin before anyone else can speak to it. */
static int begin_at(int fd, int64_t offset, struct err *err)
{
    struct strbuf b = STRBUF_INIT;
    char text[64];
    int len = snprintf(text, sizeof(text), "{\"offset\":%" PRId64 "}", offset);
    frame_put(&b, 'a', text, (size_t)len);
    ssize_t n = write(fd, b.data, b.len);
    int rc = n == (ssize_t)b.len ? 0 : err_sys(err, n < 0 ? errno : EIO, "the keeper");
    strbuf_done(&b);
    return rc;
}

static void attach(struct warden *w, struct warden_client *c, const char *dir,
                   const char *job, int64_t offset)
{
    struct err err;
    int fd = -1;
    int rc = launch_attach(dir, job, &fd, &err);
    if (rc == 0)
        rc = begin_at(fd, offset, &err);
    if (rc != 0) {
        if (fd >= 0)
            close(fd);
        refuse(w, c, "attach", &err);
        return;
    }
    json_t *r = json_object();
    json_object_set_new(r, "job", json_string(job));
    json_object_set_new(r, "offset", json_integer(offset));
    json_object_set_new(r, "state", json_string(runjobs_state(dir, job)));
    answer(w, c, 'r', r, fd);
}

/* --- a start that is waited for --- */

static void start_free(struct warden_start *s)
{
    for (struct warden_start **p = &s->w->starts; *p != NULL; p = &(*p)->next) {
        if (*p == s) {
            *p = s->next;
            break;
        }
    }
    if (s->client != NULL)
        s->client->start = NULL;
    if (s->ready.fd >= 0)
        close(s->ready.fd);
    event_free(s->event);
    free(s);
}

static void start_told(evutil_socket_t fd, short what, void *arg)
{
    struct warden_start *s = arg;
    struct leases *leases = s->w->a->leases;
    struct err err;
    (void)fd;
    (void)what;
    int rc = launch_take_ready(&s->ready, &err);
    if (rc == 0)
        return;
    if (rc > 0) {
        log_info("lease %s: job %s started", s->lease, s->job);
        leases_job_started(leases, s->lease);
    }
    if (s->client != NULL && rc < 0) {
        refuse(s->w, s->client, "launch", &err);
    } else if (s->client != NULL) {
        char *dir = leases_dir(leases, s->lease);
        attach(s->w, s->client, dir, s->job, 0);
        free(dir);
    } else if (rc < 0) {
        log_warn("lease %s: job %s: %s", s->lease, s->job, err.text);
    }
    start_free(s);
}

static void wait_for_start(struct warden *w, struct warden_client *c, const char *lease,
                           const struct leases_launched *out)
{
    struct warden_start *s = xcalloc(1, sizeof(*s));
    int64_t left_us = out->ready.until_us - clock_boot_us();
    struct timeval tv = {left_us / US_PER_S + 1, 0};
    s->w = w;
    s->client = c;
    s->ready = out->ready;
    snprintf(s->lease, sizeof(s->lease), "%s", lease);
    snprintf(s->job, sizeof(s->job), "%s", out->job);
    s->next = w->starts;
    w->starts = s;
    s->event = event_new(w->a->base, s->ready.fd, EV_READ | EV_PERSIST, start_told, s);
    event_add(s->event, &tv);
    c->start = s;
}

static bool is_starting(const struct warden *w, const char *job)
{
    const struct warden_start *s = w->starts;
    while (s != NULL && strcmp(s->job, job) != 0)
        s = s->next;
    return s != NULL;
}

/* --- the requests --- */

/* A delegate's, who sees his own jobs only; "": the tenant's. */
static const char *holder_of(const struct runauth *r)
{
    return r->claims.act[0] != '\0' ? r->claims.jkt : "";
}

static int open_for_launch(struct agent *a, const struct runauth *r,
                           const char **ret_step, struct err *err)
{
    struct order *o = xcalloc(1, sizeof(*o));
    order_from_token(&r->claims, o); /* of a delegated one: the lease is open */
    const struct journal_lease *j = leases_find(a->leases, o->id);
    int rc = j != NULL && r->claims.act[0] == '\0' && o->not_after_us > j->not_after_us
                 ? leases_extend(a->leases, o, err)
                 : leases_open(a->leases, o, ret_step, err);
    free(o);
    return rc;
}

static void do_launch(struct warden *w, struct warden_client *c, struct runauth *r)
{
    struct agent *a = w->a;
    struct leases_launch in = {.claims = &r->claims,
                               .argv_hash = r->argv_hash,
                               .argv = r->argv,
                               .envp = r->envp,
                               .pty = r->pty,
                               .rows = r->rows,
                               .cols = r->cols,
                               .term = r->term,
                               .cwd = r->cwd,
                               .want_stdin = r->want_stdin,
                               .image = r->image,
                               .files = r->files,
                               .file_count = r->file_count};
    struct leases_launched out = {0};
    const char *step = "lease", *lease = r->claims.lease.reservation;
    struct err err;
    int rc = is_starting(w, r->claims.jti)
                 ? err_set(&err, ERR_UNAVAILABLE, "the job is being started")
                 : open_for_launch(a, r, &step, &err);
    if (rc == 0) {
        rc = leases_launch(a->leases, &in, &out, &err);
        step = out.step;
    }
    if (rc != 0) {
        refuse(w, c, step, &err);
    } else if (!out.again) {
        wait_for_start(w, c, lease, &out);
    } else {
        char *dir = leases_dir(a->leases, lease);
        log_info("lease %s: job %s asked for again", lease, out.job);
        attach(w, c, dir, out.job, 0);
        free(dir);
    }
}

static void do_attach(struct warden *w, struct warden_client *c, struct runauth *r)
{
    char *dir = leases_dir(w->a->leases, r->claims.lease.reservation);
    char job[JOURNAL_ID_MAX];
    struct err err;
    if (r->job != NULL)
        snprintf(job, sizeof(job), "%s", r->job);
    int rc = r->job == NULL ? runjobs_latest(dir, holder_of(r), job, &err) : 0;
    if (rc == 0 && !runjobs_is_of(dir, job, holder_of(r)))
        rc = err_set(&err, ERR_NOT_FOUND, "no job %s of this holder", job);
    if (rc != 0)
        refuse(w, c, "attach", &err);
    else
        attach(w, c, dir, job, r->offset);
    free(dir);
}

static void do_jobs(struct warden *w, struct warden_client *c, struct runauth *r)
{
    char *dir = leases_dir(w->a->leases, r->claims.lease.reservation);
    json_t *o = json_object();
    json_object_set_new(o, "jobs", runjobs_json(dir, holder_of(r)));
    answer(w, c, 'r', o, -1);
    free(dir);
}

static void do_stop(struct warden *w, struct warden_client *c, struct runauth *r)
{
    leases_end(w->a->leases, r->claims.lease.reservation, "stopped");
    answer(w, c, 'r', json_pack("{s:s}", "state", "stopped"), -1);
}

static void do_adopt(struct warden *w, struct warden_client *c, struct runauth *r)
{
    const char *step = "adopt", *lease = r->claims.lease.reservation;
    struct err err;
    int rc = c->uid < 0 ? err_set(&err, ERR_FORBIDDEN,
                                  "a cgroup is adopted over the node's own socket only")
                        : open_for_launch(w->a, r, &step, &err);
    if (rc == 0)
        rc = leases_adopt(w->a->leases, lease, r->argv[0], (uid_t)c->uid, &step, &err);
    if (rc != 0)
        refuse(w, c, step, &err);
    else
        answer(w, c, 'r', json_pack("{s:s}", "state", "adopted"), -1);
}

/* One tenant's connections leave room for those of the others. */
static int check_share(const struct warden *w, struct warden_client *c,
                       const char *tenant, struct err *err)
{
    size_t same = 0;
    for (const struct warden_client *o = w->clients; o != NULL; o = o->next)
        same += o != c && strcmp(o->tenant, tenant) == 0;
    if (same >= WARDEN_TENANT_MAX)
        return err_set(err, ERR_QUOTA, "%d connections of this tenant are open already",
                       WARDEN_TENANT_MAX);
    snprintf(c->tenant, sizeof(c->tenant), "%s", tenant);
    return 0;
}

static void serve(struct warden *w, struct warden_client *c, char type,
                  const char *payload)
{
    static void (*const acts[])(struct warden *, struct warden_client *,
                                struct runauth *) = {
        [RUNAUTH_LAUNCH] = do_launch, [RUNAUTH_ATTACH] = do_attach,
        [RUNAUTH_JOBS] = do_jobs,     [RUNAUTH_STOP] = do_stop,
        [RUNAUTH_ADOPT] = do_adopt,
    };
    struct runauth *r = xcalloc(1, sizeof(*r));
    char nonce[JWS_KID_MAX];
    const char *step;
    struct err err;
    memcpy(nonce, c->nonce, sizeof(nonce));
    c->nonce[0] = '\0';
    if (runauth_check(w->a, type, payload, strlen(payload), nonce, r, &step, &err) !=
        0) {
        refuse(w, c, step, &err);
        if (strcmp(step, "key") == 0)
            warden_want_keys(w); /* it may be newer than what is known here */
    } else {
        if (check_share(w, c, r->claims.sub, &err) == 0)
            acts[r->kind](w, c, r);
        else
            refuse(w, c, "share", &err);
        runauth_done(r);
    }
    free(r);
}

/* --- messages --- */

static int read_id(const json_t *doc, int64_t *ret, struct err *err)
{
    static const struct jsonx_field fields[] = {
        {"client", JSONX_INT, true, 0, 1, INT64_MAX}};
    return jsonx_decode(doc, fields, 1, ret, "", err);
}

/* Who connected to the node's own socket, as the kernel says. A front may send
 * whatever it has: only what was accepted from that very socket counts. */
static int local_peer(const struct warden *w, int fd, int64_t *ret_uid, struct err *err)
{
    struct sockaddr_un at = {.sun_family = AF_UNSPEC};
    socklen_t at_len = sizeof(at), int_len = sizeof(int), who_len;
    struct ucred who;
    int domain = 0, listens = 1;
    who_len = sizeof(who);
    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &int_len) != 0 ||
        domain != AF_UNIX ||
        getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &int_len) != 0 ||
        listens != 0 || getsockname(fd, (struct sockaddr *)&at, &at_len) != 0 ||
        at_len > sizeof(at) || at_len <= offsetof(struct sockaddr_un, sun_path) ||
        strncmp(at.sun_path, w->socket_path, sizeof(at.sun_path)) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &who_len) != 0)
        return err_set(err, ERR_FORBIDDEN, "not a connection to the node's own socket");
    *ret_uid = who.uid;
    return 0;
}

static json_t *nonce_json(const struct warden *w, const struct warden_client *c)
{
    json_t *o = json_object();
    json_object_set_new(o, "nonce", json_string(c->nonce));
    json_object_set_new(o, "audience", json_string(w->a->id.spiffe_id));
    return o;
}

/* Over his own connection, past the front: so a request that names the nonce comes from
 * him, and from no other whom the front would like to have his rights. A new connection
 * has room for it; where it has not, he hears nothing and the front gives up. */
static void send_nonce(const struct warden *w, const struct warden_client *c, int fd)
{
    struct strbuf b = STRBUF_INIT;
    json_t *o = nonce_json(w, c);
    json_object_set_new(o, "version", json_integer(RUNSRV_VERSION));
    char *text = jsonx_dump(o);
    frame_put(&b, 'n', text, strlen(text));
    if (send(fd, b.data, b.len, MSG_DONTWAIT | MSG_NOSIGNAL) != (ssize_t)b.len)
        log_debug("run: a local client has left already");
    strbuf_done(&b);
    free(text);
    json_decref(o);
}

static int add_client(struct warden *w, int64_t id, int fd, struct err *err)
{
    uint8_t raw[32];
    int64_t uid = -1;
    if (find(w, id) != NULL || w->client_count >= WARDEN_CLIENTS_MAX)
        return err_set(err, ERR_CONFLICT, "client %lld of %zu", (long long)id,
                       w->client_count);
    if (fd >= 0 && local_peer(w, fd, &uid, err) != 0)
        return -1;
    struct warden_client *c = xcalloc(1, sizeof(*c));
    c->id = id;
    c->uid = uid;
    digest_random(raw, sizeof(raw));
    b64_encode(raw, sizeof(raw), c->nonce);
    c->next = w->clients;
    w->clients = c;
    w->client_count++;
    json_t *o = fd >= 0 ? json_object() : nonce_json(w, c);
    if (fd >= 0)
        send_nonce(w, c, fd);
    json_object_set_new(o, "client", json_integer(id));
    warden_tell(w, LINK_NONCE, o, -1);
    return 0;
}

int warden_take_greet(struct warden *w, const json_t *doc, int fd_take, struct err *err)
{
    struct row {
        int64_t client;
        bool fd;
    } row = {0};
    static const struct jsonx_field fields[] = {
        {"client", JSONX_INT, true, offsetof(struct row, client), 1, INT64_MAX},
        {"fd", JSONX_BOOL, true, offsetof(struct row, fd), 0, 0},
    };
    int rc = jsonx_decode(doc, fields, JSONX_COUNT(fields), &row, "", err);
    if (rc == 0)
        rc = add_client(w, row.client, fd_take, err);
    link_drop_fd(fd_take);
    return rc;
}

int warden_take_request(struct warden *w, const json_t *doc, struct err *err)
{
    struct row {
        int64_t client;
        const char *type, *payload;
    } row = {0};
    static const struct jsonx_field fields[] = {
        {"client", JSONX_INT, true, offsetof(struct row, client), 1, INT64_MAX},
        {"type", JSONX_STRING, true, offsetof(struct row, type), 1, 1},
        {"payload", JSONX_STRING, true, offsetof(struct row, payload), 0,
         RUN_FRAME_MAX},
    };
    if (jsonx_decode(doc, fields, JSONX_COUNT(fields), &row, "", err) != 0)
        return -1;
    struct warden_client *c = find(w, row.client);
    if (c == NULL || c->nonce[0] == '\0')
        return err_set(err, ERR_CONFLICT, "client %lld has no nonce",
                       (long long)row.client);
    serve(w, c, row.type[0], row.payload);
    return 0;
}

static void client_free(struct warden *w, struct warden_client *c)
{
    for (struct warden_client **p = &w->clients; *p != NULL; p = &(*p)->next) {
        if (*p == c) {
            *p = c->next;
            break;
        }
    }
    w->client_count--;
    if (c->start != NULL)
        c->start->client = NULL;
    free(c);
}

int warden_take_gone(struct warden *w, const json_t *doc, struct err *err)
{
    int64_t id = 0;
    if (read_id(doc, &id, err) != 0)
        return -1;
    struct warden_client *c = find(w, id);
    if (c == NULL)
        return err_set(err, ERR_CONFLICT, "client %lld never came", (long long)id);
    client_free(w, c);
    return 0;
}

void warden_run_down(struct warden *w)
{
    while (w->clients != NULL)
        client_free(w, w->clients);
}

void warden_run_free(struct warden *w)
{
    warden_run_down(w);
    while (w->starts != NULL)
        start_free(w->starts);
}
