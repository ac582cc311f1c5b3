/* keeper_client: those attached to attach.sock. Each reads the log file at its own
 * offset; nothing is queued for it but its end. */
#include "client/agent/keeper_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/jsonx.h"

#define CHUNK (64 * 1024)

void keeper_clients_init(struct keeper *k)
{
    for (int i = 0; i < KEEPER_CLIENTS_MAX; i++)
        k->clients[i] = (struct keeper_client){.fd = -1};
}

void keeper_client_close(struct keeper_client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    frame_reader_done(&c->in);
    strbuf_done(&c->out);
    *c = (struct keeper_client){.fd = -1};
}

static void refuse(struct keeper_client *c, const char *error, const char *detail)
{
    json_t *doc =
        json_pack("{s:s,s:s,s:s}", "error", error, "step", "attach", "detail", detail);
    char *text = jsonx_dump(doc);
    frame_put(&c->out, 'E', text, strlen(text));
    free(text);
    json_decref(doc);
    c->closing = true;
}

void keeper_client_accept(struct keeper *k)
{
    int fd = accept4(k->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    for (int i = 0; i < KEEPER_CLIENTS_MAX; i++) {
        struct keeper_client *c = &k->clients[i];
        if (c->fd >= 0)
            continue;
        *c = (struct keeper_client){.fd = fd};
        frame_reader_init(&c->in);
        return;
    }
    struct keeper_client full = {.fd = fd};
    refuse(&full, "quota", "too many are attached to this job");
    (void)send(fd, full.out.data, full.out.len, MSG_DONTWAIT | MSG_NOSIGNAL);
    keeper_client_close(&full);
}

static void on_attach(struct keeper *k, struct keeper_client *c, const struct frame *f)
{
    struct {
        int64_t offset;
    } args = {0};
    static const struct jsonx_field fields[] = {
        {"offset", JSONX_INT, false, 0, 0, INT64_MAX}};
    struct err err;
    json_t *doc = jsonx_parse((const char *)f->data, f->len, RUN_FRAME_MAX, &err);
    if (doc == NULL || jsonx_decode(doc, fields, 1, &args, "", &err) < 0)
        refuse(c, err_code_name(err.code), err.text);
    else if (!keeper_log_is_boundary(&k->log, args.offset))
        refuse(c, "bad_request", "offset is not the start of a frame of this log");
    else {
        c->offset = args.offset;
        c->attached = true;
    }
    json_decref(doc);
}

static void on_signal(struct keeper *k, struct keeper_client *c, const struct frame *f)
{
    char text[8] = "";
    if (f->len < sizeof(text))
        memcpy(text, f->data, f->len);
    char *end;
    long signo = strtol(text, &end, 10);
    if (end == text || *end != '\0' || signo < 1 || signo > 64) {
        refuse(c, "bad_request", "not a signal number");
        return;
    }
    unsigned char msg[2] = {'s', (unsigned char)signo};
    if (k->ctl >= 0)
        (void)!write(k->ctl, msg, sizeof(msg));
}

static void on_window(struct keeper *k, struct keeper_client *c, const struct frame *f)
{
    struct {
        int64_t rows, cols;
    } args = {0};
    static const struct jsonx_field fields[] = {
        {"rows", JSONX_INT, true, 0, 1, LAUNCH_WINDOW_MAX},
        {"cols", JSONX_INT, true, sizeof(int64_t), 1, LAUNCH_WINDOW_MAX}};
    struct err err;
    json_t *doc = jsonx_parse((const char *)f->data, f->len, RUN_FRAME_MAX, &err);
    if (doc == NULL || jsonx_decode(doc, fields, 2, &args, "", &err) < 0) {
        refuse(c, err_code_name(err.code), err.text);
    } else if (k->spec.pty && k->ctl >= 0) {
        unsigned char msg[6] = {'w',
                                0,
                                (unsigned char)(args.rows >> 8),
                                (unsigned char)args.rows,
                                (unsigned char)(args.cols >> 8),
                                (unsigned char)args.cols};
        (void)!write(k->ctl, msg, sizeof(msg));
    }
    json_decref(doc);
}

static void on_frame(struct keeper *k, struct keeper_client *c, const struct frame *f)
{
    if (!c->attached && f->type != 'a') {
        refuse(c, "bad_request", "the first frame has to be `a`");
        return;
    }
    switch (f->type) {
    case 'a':
        if (c->attached)
            refuse(c, "bad_request", "attached already");
        else
            on_attach(k, c, f);
        break;
    case 'i':
        if (k->in_w >= 0 && !k->in_eof)
            strbuf_add(&k->in_wait, f->data, f->len);
        break;
    case 'I': k->in_eof = true; break;
    case 's': on_signal(k, c, f); break;
    case 'w': on_window(k, c, f); break;
    default: refuse(c, "bad_request", "unknown frame type"); break;
    }
}

/* Reads one block; false when the client is gone. */
static bool take(struct keeper *k, struct keeper_client *c)
{
    char block[16 * 1024];
    ssize_t n = recv(c->fd, block, sizeof(block), 0);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0)
        return false;
    frame_feed(&c->in, block, (size_t)n);
    struct frame f;
    struct err err;
    int got;
    while (!c->closing && (got = frame_next(&c->in, &f, &err)) != 0) {
        if (got < 0)
            refuse(c, err_code_name(err.code), err.text);
        else
            on_frame(k, c, &f);
    }
    keeper_stdin_turn(k);
    return true;
}

static bool give_log(struct keeper *k, struct keeper_client *c)
{
    char block[CHUNK];
    int64_t left = k->log.size - c->offset;
    size_t want = left < (int64_t)sizeof(block) ? (size_t)left : sizeof(block);
    ssize_t n = pread(k->log.fd, block, want, c->offset);
    if (n <= 0)
        return false;
    n = send(c->fd, block, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    c->offset += n;
    return true;
}

/* False when the connection is over. */
static bool give(struct keeper *k, struct keeper_client *c)
{
    if (c->attached && !c->closing && c->offset < k->log.size)
        return give_log(k, c);
    if (c->attached && !c->closing && k->exit_json != NULL) {
        frame_put(&c->out, 'x', k->exit_json, strlen(k->exit_json));
        c->closing = true;
    }
    if (c->out_sent < c->out.len) {
        ssize_t n = send(c->fd, c->out.data + c->out_sent, c->out.len - c->out_sent,
                         MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        c->out_sent += (size_t)n;
    }
    return !(c->closing && c->out_sent == c->out.len);
}

short keeper_client_events(const struct keeper *k, const struct keeper_client *c)
{
    short events = 0;
    if (!c->closing && k->in_wait.len < KEEPER_STDIN_MAX)
        events |= POLLIN;
    if (c->out_sent < c->out.len || c->closing ||
        (c->attached && (c->offset < k->log.size || k->exit_json != NULL)))
        events |= POLLOUT;
    return events;
}

void keeper_client_turn(struct keeper *k, struct keeper_client *c, short revents)
{
    bool alive = !(revents & (POLLERR | POLLNVAL));
    if (alive && (revents & POLLIN))
        alive = take(k, c);
    else if (revents & POLLHUP)
        alive = false;
    if (alive && (revents & POLLOUT))
        alive = give(k, c);
    if (!alive)
        keeper_client_close(c);
}

static void stdin_close(struct keeper *k)
{
    if (k->in_w >= 0)
        close(k->in_w);
    k->in_w = -1;
    strbuf_reset(&k->in_wait);
}

void keeper_stdin_turn(struct keeper *k)
{
    while (k->in_w >= 0 && k->in_wait.len > 0) {
        ssize_t n = write(k->in_w, k->in_wait.data, k->in_wait.len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n < 0) { /* the job closed its end */
            stdin_close(k);
            break;
        }
        memmove(k->in_wait.data, k->in_wait.data + n, k->in_wait.len - (size_t)n);
        k->in_wait.len -= (size_t)n;
        k->in_wait.data[k->in_wait.len] = '\0';
    }
    if (!k->in_eof || k->in_w < 0)
        return;
    /* A later keeper must not open it again; lease-init closes its end too. */
    int fd = openat(k->job_fd, "stdin_eof", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (fd >= 0)
        close(fd);
    stdin_close(k);
    unsigned char msg[2] = {'I', 0};
    if (k->ctl >= 0)
        (void)!write(k->ctl, msg, sizeof(msg));
}
