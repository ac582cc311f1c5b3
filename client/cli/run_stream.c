/* run_stream: see run.h. One poll loop over the link, standard streams and a signalfd.
 * Each direction has a bound: a slow reader slows the agent's sending, a slow agent the
 * reading of standard input; nothing is dropped while the connection holds. */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "client/cli/run.h"
#include "client/cli/sink.h"
#include "client/lib/clock.h"
#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"

#define STDIN_CHUNK (32 * 1024)
#define TWICE_US    US_PER_S /* ^C ^C within this leaves */

static const int passed_on[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

struct stream {
    struct run *r;
    struct sink out, err_out;
    int signal_fd;
    bool stdin_open;
    int64_t last_int_us;
    bool ended, left;
    int status;
};

static void send_signal(struct stream *s, int signo)
{
    char text[16];
    int len = snprintf(text, sizeof(text), "%d", signo);
    run_link_send(&s->r->link, 's', text, (size_t)len);
}

/* A reader that has gone is told to the job as the pipe would tell it. */
static void flush(struct stream *st, struct sink *s)
{
    if (!sink_flush(s))
        send_signal(st, SIGPIPE);
}

const char *run_end_text(const char *reason)
{
    static const char *const texts[][2] = {
        {"exited", NULL},
        {"lease_end", "the reservation has ended, and the job with it"},
        {"revoked", "the reservation was revoked, and the job ended"},
        {"stopped", "the reservation was stopped, and the job ended"},
        {"killed", "the job was killed"},
        {"lost", "the job's end was not seen; its exit status is not known"},
    };
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        if (reason != NULL && strcmp(reason, texts[i][0]) == 0)
            return texts[i][1];
    return reason;
}

int run_end_status(const json_t *end)
{
    const json_t *code = json_object_get(end, "exit");
    const json_t *sig = json_object_get(end, "signal");
    return json_is_integer(code)  ? (int)json_integer_value(code)
           : json_is_integer(sig) ? 128 + (int)json_integer_value(sig)
                                  : 1;
}

static void take_end(struct stream *s, const struct frame *f)
{
    json_t *v = jsonx_parse((const char *)f->data, f->len, RUN_FRAME_MAX, NULL);
    const char *text = run_end_text(json_string_value(json_object_get(v, "reason")));
    s->ended = true;
    s->status = run_end_status(v);
    if (text != NULL)
        cli_note("%s", text);
    json_decref(v);
}

static int take_refusal(const struct frame *f, struct err *err)
{
    json_t *v = jsonx_parse((const char *)f->data, f->len, RUN_FRAME_MAX, NULL);
    const char *detail = json_string_value(json_object_get(v, "detail"));
    err_set(err, ERR_UNREACHABLE, "the agent ended the connection%s%s",
            detail != NULL ? ": " : "", detail != NULL ? detail : "");
    json_decref(v);
    return -1;
}

/* The agent's frames; those this version does not know are passed over. */
static int take_frames(struct stream *s, struct err *err)
{
    struct frame f;
    int rc = 0;
    while (!s->ended && sink_queued(&s->out) < SINK_QUEUE_MAX &&
           sink_queued(&s->err_out) < SINK_QUEUE_MAX &&
           (rc = frame_next(&s->r->link.in, &f, err)) == 1) {
        switch (f.type) {
        case 'o':
        case 'e':
            sink_take(f.type == 'o' ? &s->out : &s->err_out, f.data, f.len);
            s->r->offset += (int64_t)f.len + FRAME_HEAD_LEN;
            break;
        case 'x': take_end(s, &f); break;
        case 'E': return take_refusal(&f, err);
        default: break;
        }
    }
    return rc < 0 ? -1 : 0;
}

static void take_signal(struct stream *s)
{
    struct signalfd_siginfo info;
    if (read(s->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    int signo = (int)info.ssi_signo;
    if (signo == SIGWINCH) {
        run_tty_size(s->r);
        return;
    }
    int64_t now_us = clock_boot_us();
    if (signo == SIGINT && s->last_int_us > 0 && now_us - s->last_int_us < TWICE_US) {
        s->left = true;
        return;
    }
    if (signo == SIGINT)
        s->last_int_us = now_us;
    /* Who only looks on does not end the job by closing the window. */
    if (!s->r->launched && (signo == SIGTERM || signo == SIGHUP))
        s->left = true;
    else
        send_signal(s, signo);
}

static void take_stdin(struct stream *s)
{
    char buf[STDIN_CHUNK];
    ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));
    if (n > 0) {
        run_link_send(&s->r->link, 'i', buf, (size_t)n);
        s->r->fed = true;
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
        s->stdin_open = false;
        if (s->r->launched)
            run_link_send(&s->r->link, 'I', NULL, 0);
    }
}

/* How long to wait for anything: until the token is to be renewed. */
static int wait_ms(const struct run *r)
{
    if (r->renew == NULL)
        return -1;
    int64_t left_us = r->renew_us - clock_boot_us();
    return left_us <= 0        ? 0
           : left_us > INT_MAX ? INT_MAX / 1000
                               : (int)(left_us / 1000) + 1;
}

enum { AT_LINK, AT_SIGNAL, AT_STDIN, AT_OUT, AT_ERR, AT_COUNT };

static int turn(struct stream *s, struct err *err)
{
    struct run_link *l = &s->r->link;
    bool room = !s->ended && sink_queued(&s->out) < SINK_QUEUE_MAX &&
                sink_queued(&s->err_out) < SINK_QUEUE_MAX;
    bool feed = s->stdin_open && !s->ended && run_link_queued(l) < SINK_QUEUE_MAX;
    if (l->eof && room)
        return err_set(err, ERR_UNREACHABLE, "the agent closed the connection");
    struct pollfd p[AT_COUNT] = {
        [AT_LINK] = {s->ended || l->eof ? -1 : l->fd, run_link_events(l, room), 0},
        [AT_SIGNAL] = {s->signal_fd, POLLIN, 0},
        [AT_STDIN] = {feed ? STDIN_FILENO : -1, POLLIN, 0},
        [AT_OUT] = {sink_queued(&s->out) > 0 ? s->out.fd : -1, POLLOUT, 0},
        [AT_ERR] = {sink_queued(&s->err_out) > 0 ? s->err_out.fd : -1, POLLOUT, 0},
    };
    if (poll(p, AT_COUNT, wait_ms(s->r)) < 0)
        return errno == EINTR ? 0 : err_sys(err, errno, "poll");
    if (s->r->renew != NULL && clock_boot_us() >= s->r->renew_us)
        s->r->renew(s->r);
    if (p[AT_SIGNAL].revents != 0)
        take_signal(s);
    if (p[AT_STDIN].revents != 0)
        take_stdin(s);
    if (p[AT_OUT].revents != 0)
        flush(s, &s->out);
    if (p[AT_ERR].revents != 0)
        flush(s, &s->err_out);
    if (s->ended || s->left)
        return 0;
    int rc = run_link_pump(l, room, err);
    /* Whole frames that arrived before the loss count. */
    if (take_frames(s, err) < 0)
        return -1;
    return s->ended ? 0 : rc;
}

static void flush_all(struct stream *s, struct sink *sink)
{
    while (sink_queued(sink) > 0)
        flush(s, sink);
}

enum run_end run_stream(struct run *r, int *ret_status, struct err *err)
{
    struct stream s = {.r = r, .stdin_open = true};
    sigset_t caught, before;
    int rc = 0;
    sink_init(&s.out, STDOUT_FILENO);
    sink_init(&s.err_out, STDERR_FILENO);
    sigemptyset(&caught);
    for (size_t i = 0; i < sizeof(passed_on) / sizeof(passed_on[0]); i++)
        if (!cli_ignores(passed_on[i]))
            sigaddset(&caught, passed_on[i]);
    struct termios terminal;
    bool raw = r->tty && run_tty_begin(&terminal);
    if (raw)
        sigaddset(&caught, SIGWINCH);
    sigprocmask(SIG_BLOCK, &caught, &before);
    s.signal_fd = signalfd(-1, &caught, SFD_CLOEXEC | SFD_NONBLOCK);
    if (take_frames(&s, err) < 0) /* came with the answer */
        rc = -1;
    while (rc == 0 && !s.left &&
           !(s.ended && sink_queued(&s.out) == 0 && sink_queued(&s.err_out) == 0))
        rc = turn(&s, err);
    flush_all(&s, &s.out); /* what was counted as seen is shown */
    flush_all(&s, &s.err_out);
    if (raw)
        run_tty_end(&terminal);
    close(s.signal_fd);
    sigprocmask(SIG_SETMASK, &before, NULL);
    sink_done(&s.out);
    sink_done(&s.err_out);
    *ret_status = s.status;
    return rc < 0 ? RUN_LOST : s.left ? RUN_DETACHED : RUN_EXITED;
}
