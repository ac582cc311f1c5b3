/* sshsrv: the connections of sshd's helpers. See sshsrv.h. Requests are small and
 * answered by one message, so the sockets are used directly; clients are freed by a
 * reaper, never inside a callback. */
#include "client/agent/sshsrv.h"

#include <errno.h>
#include <event2/event.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "client/agent/ssh_proto.h"
#include "client/agent/sshsrv_impl.h"
#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/log.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define HOST_KEY_MAX 1024

static void set_dead(struct ssh_client *c)
{
    c->state = SSH_DEAD;
    event_active(c->srv->reaper, EV_TIMEOUT, 1);
}

static void drop_ready(struct ssh_client *c)
{
    if (c->ready_event != NULL)
        event_free(c->ready_event);
    c->ready_event = NULL;
    if (c->ready.fd >= 0)
        close(c->ready.fd);
    c->ready.fd = -1;
}

static void client_free(struct ssh_client *c)
{
    drop_ready(c);
    event_free(c->event);
    event_free(c->timer);
    close(c->fd);
    frame_reader_done(&c->in);
    free(c);
}

static void reap(evutil_socket_t fd, short what, void *arg)
{
    struct sshsrv *s = arg;
    (void)fd;
    (void)what;
    for (struct ssh_client **p = &s->clients; *p != NULL;) {
        struct ssh_client *c = *p;
        if (c->state != SSH_DEAD) {
            p = &c->next;
            continue;
        }
        *p = c->next;
        s->count--;
        client_free(c);
    }
}

/* One message; a helper that leaves no room for so little is not waited for. */
static bool send_answer(struct ssh_client *c, char type, json_t *take, int passed)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control = {.space = {0}};
    struct strbuf b = STRBUF_INIT;
    char *text = jsonx_dump(take);
    frame_put(&b, type, text, strlen(text));
    struct iovec iov = {b.data, b.len};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    if (passed >= 0) {
        msg.msg_control = &control;
        msg.msg_controllen = sizeof(control);
        struct cmsghdr *h = CMSG_FIRSTHDR(&msg);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(h), &passed, sizeof(int));
    }
    ssize_t n = sendmsg(c->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    bool whole = n == (ssize_t)b.len;
    strbuf_done(&b);
    free(text);
    json_decref(take);
    return whole;
}

static void refuse(struct ssh_client *c, const char *step, const struct err *err)
{
    /* Keys that open nothing come from anybody on the network. */
    if (strcmp(step, "keys") == 0)
        log_debug("ssh: refused at %s: %s", step, err->text);
    else
        log_info("ssh: refused at %s: %s", step, err->text);
    (void)send_answer(c, 'E',
                      json_pack("{s:s, s:s, s:s}", "error", err_code_name(err->code),
                                "step", step, "detail", err->text),
                      -1);
    set_dead(c);
}

/* --- a session --- */

static void hang_up(struct ssh_client *c, int signo)
{
    char *dir = leases_dir(c->srv->a->leases, c->lease);
    struct err err;
    if (launch_signal(dir, c->job, signo, &err) != 0 && err.code != ERR_NOT_FOUND)
        log_warn("lease %s: session %s: %s", c->lease, c->job, err.text);
    free(dir);
}

static void hand_over(struct ssh_client *c)
{
    char *dir = leases_dir(c->srv->a->leases, c->lease);
    struct err err;
    int fd = -1;
    if (launch_attach(dir, c->job, &fd, &err) != 0) {
        refuse(c, "attach", &err);
    } else {
        bool sent = send_answer(
            c, 'r', json_pack("{s:s, s:s}", "reservation", c->lease, "job", c->job),
            fd);
        close(fd);
        if (sent) {
            c->state = SSH_LIVE;
        } else {
            hang_up(c, SIGKILL);
            set_dead(c);
        }
    }
    free(dir);
}

static void start_told(evutil_socket_t fd, short what, void *arg)
{
    struct ssh_client *c = arg;
    struct err err;
    (void)fd;
    (void)what;
    int rc = launch_take_ready(&c->ready, &err);
    if (rc == 0)
        return;
    drop_ready(c);
    if (rc < 0) {
        refuse(c, "launch", &err);
        return;
    }
    leases_job_started(c->srv->a->leases, c->lease);
    hand_over(c);
}

static void wait_for_start(struct ssh_client *c)
{
    int64_t left_us = c->ready.until_us - clock_boot_us();
    struct timeval tv = {left_us > 0 ? left_us / US_PER_S + 1 : 1, 0};
    event_del(c->timer);
    c->state = SSH_STARTING;
    c->ready_event =
        event_new(c->srv->a->base, c->ready.fd, EV_READ | EV_PERSIST, start_told, c);
    event_add(c->ready_event, &tv);
}

/* --- requests --- */

static void serve_keys(struct ssh_client *c, const json_t *body)
{
    struct ticket_claims claims;
    struct err err;
    json_t *answer = NULL;
    int rc = ssh_answer_keys(c->srv, body, &answer, &claims, &err);
    if (rc == 0 && ssh_watch_add(c->srv, c->pid, &claims, &err) != 0) {
        log_warn("ssh: a key was not let in: %s", err.text);
        rc = -1;
    }
    if (rc != 0) {
        json_decref(answer);
        refuse(c, "keys", &err);
        return;
    }
    (void)send_answer(c, 'r', answer, -1);
    set_dead(c);
}

static void serve_session(struct ssh_client *c, const json_t *body)
{
    const char *step;
    struct err err;
    if (ssh_begin_session(c, body, &step, &err) == 0)
        wait_for_start(c);
    else
        refuse(c, step, &err);
}

static void take_request(struct ssh_client *c, const struct frame *f)
{
    struct err err;
    json_t *body = jsonx_parse((const char *)f->data, f->len, RUN_FRAME_MAX, &err);
    if (body == NULL)
        refuse(c, "request", &err);
    else if (f->type == 'k')
        serve_keys(c, body);
    else if (f->type == 's')
        serve_session(c, body);
    else {
        (void)err_set(&err, ERR_BAD_REQUEST, "a frame of type 0x%02x asks for nothing",
                      (unsigned char)f->type);
        refuse(c, "request", &err);
    }
    json_decref(body);
}

/* After its request a helper says nothing more: what can be read is its end. */
static void gone(struct ssh_client *c)
{
    if (c->state == SSH_STARTING)
        hang_up(c, SIGKILL);
    else if (c->state == SSH_LIVE)
        hang_up(c, SIGHUP);
    set_dead(c);
}

static void readable(evutil_socket_t fd, short what, void *arg)
{
    struct ssh_client *c = arg;
    char buf[16 * 1024];
    struct frame f;
    struct err err;
    (void)what;
    if (c->state == SSH_DEAD)
        return;
    ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        gone(c);
        return;
    }
    if (c->state != SSH_ASKING)
        return;
    frame_feed(&c->in, buf, (size_t)n);
    int got = frame_next(&c->in, &f, &err);
    if (got < 0)
        refuse(c, "request", &err);
    else if (got > 0)
        take_request(c, &f);
}

static void late(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    set_dead(arg);
}

/* --- listening --- */

static void accept_one(evutil_socket_t listen_fd, short what, void *arg)
{
    struct sshsrv *s = arg;
    struct ucred peer = {0};
    socklen_t len = sizeof(peer);
    struct timeval tv = {SSHSRV_FIRST_US / US_PER_S, 0};
    (void)what;
    int fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    if (s->count >= SSHSRV_CLIENTS_MAX ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0 ||
        (peer.uid != 0 && peer.uid != s->user)) {
        close(fd);
        return;
    }
    struct ssh_client *c = xcalloc(1, sizeof(*c));
    c->srv = s;
    c->fd = fd;
    c->pid = peer.pid;
    c->ready.fd = -1;
    frame_reader_init(&c->in);
    c->event = event_new(s->a->base, fd, EV_READ | EV_PERSIST, readable, c);
    c->timer = evtimer_new(s->a->base, late, c);
    event_add(c->event, NULL);
    event_add(c->timer, &tv);
    c->next = s->clients;
    s->clients = c;
    s->count++;
}

static int listen_at(struct sshsrv *s, gid_t group, struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    if (strlen(s->path) >= sizeof(addr.sun_path))
        return err_set(err, ERR_BAD_REQUEST, "runtime_dir: %s is too long", s->path);
    memcpy(addr.sun_path, s->path, strlen(s->path));
    (void)unlink(s->path);
    s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* Nobody's until its owner is set. */
    mode_t old = umask(0177);
    int rc = s->listen_fd < 0
                 ? -1
                 : bind(s->listen_fd, (struct sockaddr *)&addr, sizeof(addr));
    (void)umask(old);
    if (rc < 0 || chown(s->path, 0, group) < 0 || chmod(s->path, 0660) < 0 ||
        listen(s->listen_fd, 64) < 0)
        return err_sys(err, errno, "%s", s->path);
    return 0;
}

int sshsrv_new(struct agent *a, struct sshsrv **ret, struct err *err)
{
    uint8_t secret[SHA256_LEN];
    *ret = NULL;
    if (a->conf.ssh_user == NULL)
        return 0;
    const struct passwd *pw = getpwnam(a->conf.ssh_user);
    if (pw == NULL)
        return err_set(err, ERR_BAD_REQUEST, "ssh_user: there is no user %s",
                       a->conf.ssh_user);
    struct sshsrv *s = xcalloc(1, sizeof(*s));
    s->a = a;
    s->listen_fd = -1;
    s->user = pw->pw_uid;
    s->path = xasprintf("%s/ssh.sock", a->conf.runtime_dir);
    s->reaper = event_new(a->base, -1, 0, reap, s);
    digest_random(secret, sizeof(secret));
    tickets_init(&s->tickets, secret);
    if (fsx_mkdirs(a->conf.runtime_dir, 0755, err) != 0 ||
        listen_at(s, pw->pw_gid, err) != 0) {
        sshsrv_free(s);
        return -1;
    }
    s->listen_event =
        event_new(a->base, s->listen_fd, EV_READ | EV_PERSIST, accept_one, s);
    event_add(s->listen_event, NULL);
    log_info("SSH sessions of user %s are let into leases", a->conf.ssh_user);
    *ret = s;
    return 0;
}

/* Sessions go on: a keeper and a helper need no agent. */
void sshsrv_free(struct sshsrv *s)
{
    if (s == NULL)
        return;
    while (s->clients != NULL) {
        struct ssh_client *c = s->clients;
        s->clients = c->next;
        client_free(c);
    }
    ssh_watch_free_all(s);
    if (s->listen_event != NULL)
        event_free(s->listen_event);
    if (s->listen_fd >= 0) {
        close(s->listen_fd);
        (void)unlink(s->path);
    }
    event_free(s->reaper);
    explicit_bzero(&s->tickets, sizeof(s->tickets));
    free(s->path);
    free(s);
}

json_t *sshsrv_observed(const struct settings *conf)
{
    char *text = NULL;
    struct err err;
    if (conf->ssh_user == NULL)
        return NULL;
    json_t *o = json_pack("{s:I, s:s}", "port", (json_int_t)conf->ssh_port, "user",
                          conf->ssh_user);
    if (fsx_read(conf->ssh_host_key, HOST_KEY_MAX, &text, NULL, &err) == 0) {
        text[strcspn(text, "\r\n")] = '\0';
        if (text[0] != '\0')
            json_object_set_new(o, "host_key", json_string(text));
    }
    free(text);
    return o;
}
