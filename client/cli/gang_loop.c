/* gang_loop: see gang.h. One poll over all connections, standard streams and a
 * signalfd. Each direction has a bound: a slow reader slows the agents' sending, a slow
 * rank that is fed slows the reading of standard input. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "client/cli/gang.h"
#include "client/lib/clock.h"
#include "client/lib/xalloc.h"

#define STDIN_CHUNK (32 * 1024)
#define TWICE_US    US_PER_S /* ^C ^C within this leaves */

static const int passed_on[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};

bool gang_has_room(const struct gang *g)
{
    return sink_queued(&g->out) < SINK_QUEUE_MAX &&
           sink_queued(&g->err) < SINK_QUEUE_MAX;
}

/* To a file of its own at once; a file always takes it. */
static void write_file(int fd, const struct gang_rank *r, const void *data, size_t len)
{
    const char *p = data;
    while (len > 0) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            cli_note("rank %d: output is lost: %s", r->rank, strerror(errno));
            return;
        }
        p += n;
        len -= (size_t)n;
    }
}

void gang_output(struct gang *g, struct gang_rank *r, bool is_err, const void *data,
                 size_t len)
{
    int fd = is_err ? r->err_fd : r->out_fd;
    struct strbuf text = STRBUF_INIT;
    if (g->only_start) /* it is there for who attaches */
        return;
    if (fd >= 0) {
        write_file(fd, r, data, len);
        return;
    }
    lines_take(is_err ? &r->err : &r->out, g->label ? r->label : NULL, data, len,
               &text);
    if (text.len > 0)
        sink_take(is_err ? &g->err : &g->out, text.data, text.len);
    strbuf_done(&text);
}

static void signal_all(struct gang *g, int signo)
{
    for (size_t i = 0; i < g->count; i++)
        gang_rank_signal(&g->ranks[i], signo);
}

/* First by asking, then by force; the ranks not started yet are not started. */
static void begin_ending(struct gang *g)
{
    if (g->ending != 0)
        return;
    g->ending = SIGTERM;
    g->end_us = clock_boot_us() + GANG_GRACE_US;
    signal_all(g, SIGTERM);
}

static void go_on_ending(struct gang *g, int64_t now_us)
{
    if (g->ending == 0 || now_us < g->end_us)
        return;
    g->end_us = now_us + GANG_GRACE_US;
    if (g->ending == SIGTERM) {
        g->ending = SIGKILL;
        signal_all(g, SIGKILL);
        return;
    }
    for (size_t i = 0; i < g->count; i++)
        if (g->ranks[i].state != GANG_ENDED) {
            cli_note("rank %d (%s) cannot be reached to be ended; its lease ends it",
                     g->ranks[i].rank, g->ranks[i].node);
            gang_rank_drop(&g->ranks[i], err_exit_status(ERR_UNKNOWN));
        }
}

/* What ended the job from outside concerns all ranks alike: told once. */
static void tell_reason(struct gang *g, const char *reason)
{
    const char *text = run_end_text(reason);
    size_t len = strlen(g->reasons);
    if (text == NULL || strstr(g->reasons, reason) != NULL || g->ending != 0)
        return;
    if (len + strlen(reason) + 2 < sizeof(g->reasons)) {
        g->reasons[len] = ',';
        memcpy(g->reasons + len + 1, reason, strlen(reason) + 1);
    }
    cli_note("%s", text);
}

void gang_ended(struct gang *g, struct gang_rank *r, const char *reason)
{
    struct strbuf text = STRBUF_INIT;
    const char *label = g->label ? r->label : NULL;
    lines_end(&r->out, label, &text);
    sink_take(&g->out, strbuf_str(&text), text.len);
    strbuf_reset(&text);
    lines_end(&r->err, label, &text);
    sink_take(&g->err, strbuf_str(&text), text.len);
    strbuf_done(&text);
    if (reason != NULL)
        tell_reason(g, reason);
    if (r->status == 0 || g->failed)
        return;
    g->failed = true;
    g->status = r->status;
    size_t others = 0;
    for (size_t i = 0; i < g->count; i++)
        others += g->ranks[i].state != GANG_ENDED;
    bool end = !g->keep_going && others > 0;
    if (g->ending == 0 && (reason != NULL || end))
        cli_note("rank %d (%s) %s with exit status %d%s", r->rank, r->node,
                 reason != NULL ? "failed" : "ended", r->status,
                 end ? "; the other ranks are ended" : "");
    if (end)
        begin_ending(g);
}

/* ---- input and signals ------------------------------------------------------------
 */

/* Fed only when each that is to be fed can take it: what was read is not kept. */
static bool can_feed(const struct gang *g)
{
    bool any = false;
    if (!g->stdin_open || g->ending != 0)
        return false;
    for (size_t i = 0; i < g->count; i++) {
        const struct gang_rank *r = &g->ranks[i];
        if (!r->feed || r->state == GANG_ENDED)
            continue;
        if (r->state != GANG_STREAMING ||
            run_link_queued(&r->run.link) >= SINK_QUEUE_MAX)
            return false;
        any = true;
    }
    return any;
}

static void take_stdin(struct gang *g)
{
    char buf[STDIN_CHUNK];
    ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
        return;
    if (n <= 0)
        g->stdin_open = false;
    for (size_t i = 0; i < g->count && n > 0; i++)
        if (g->ranks[i].feed && g->ranks[i].state == GANG_STREAMING)
            run_link_send(&g->ranks[i].run.link, 'i', buf, (size_t)n);
}

/* The end of input is told on each connection, also one made again. */
static void feed_end(struct gang *g)
{
    for (size_t i = 0; i < g->count && !g->stdin_open; i++) {
        struct gang_rank *r = &g->ranks[i];
        if (r->feed && !r->fed_end && r->state == GANG_STREAMING) {
            run_link_send(&r->run.link, 'I', NULL, 0);
            r->fed_end = true;
        }
    }
}

static void take_signal(struct gang *g)
{
    struct signalfd_siginfo info;
    if (read(g->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return;
    int signo = (int)info.ssi_signo;
    int64_t now_us = clock_boot_us();
    if (signo == SIGINT && g->last_int_us > 0 && now_us - g->last_int_us < TWICE_US) {
        g->left = true;
        return;
    }
    if (signo == SIGINT)
        g->last_int_us = now_us;
    if (g->attached && (signo == SIGTERM || signo == SIGHUP)) {
        g->left = true;
        return;
    }
    signal_all(g, signo);
    /* A gang of which some do not run yet is not to be completed after a ^C. */
    for (size_t i = 0; i < g->count; i++)
        if (g->ranks[i].run.job == NULL && g->ranks[i].state != GANG_ENDED) {
            g->failed = true;
            g->status = 128 + signo;
            begin_ending(g);
            return;
        }
}

/* ---- the loop -------------------------------------------------------------------- */

enum { AT_SIGNAL, AT_STDIN, AT_OUT, AT_ERR, AT_RANKS };

static int64_t renew_due(const struct gang *g)
{
    int64_t due = INT64_MAX;
    for (size_t i = 0; i < g->count; i++) {
        int64_t at = gang_rank_renew_us(&g->ranks[i]);
        due = at < due ? at : due;
    }
    return due;
}

static int timeout_ms(const struct gang *g, int64_t now_us)
{
    int64_t due = renew_due(g);
    if (g->ending != 0 && g->end_us < due)
        due = g->end_us;
    for (size_t i = 0; i < g->count; i++) {
        int64_t at = gang_rank_due(&g->ranks[i]);
        due = at < due ? at : due;
    }
    if (due == INT64_MAX)
        return -1;
    int64_t left = (due - now_us + 999) / 1000;
    return left < 0 ? 0 : left > 60000 ? 60000 : (int)left;
}

static void flush(struct gang *g, struct sink *s)
{
    if (!sink_flush(s))
        signal_all(g, SIGPIPE);
}

static void fill(const struct gang *g, bool room, struct pollfd *p)
{
    p[AT_SIGNAL] = (struct pollfd){g->signal_fd, POLLIN, 0};
    p[AT_STDIN] = (struct pollfd){can_feed(g) ? STDIN_FILENO : -1, POLLIN, 0};
    p[AT_OUT] = (struct pollfd){sink_queued(&g->out) > 0 ? g->out.fd : -1, POLLOUT, 0};
    p[AT_ERR] = (struct pollfd){sink_queued(&g->err) > 0 ? g->err.fd : -1, POLLOUT, 0};
    for (size_t i = 0; i < g->count; i++) {
        struct pollfd *at = &p[AT_RANKS + i];
        *at = (struct pollfd){-1, 0, 0};
        at->fd = gang_rank_poll(&g->ranks[i], room, &at->events);
    }
}

static int turn(struct gang *g, struct pollfd *p, struct err *err)
{
    bool room = gang_has_room(g);
    fill(g, room, p);
    if (poll(p, AT_RANKS + g->count, timeout_ms(g, clock_boot_us())) < 0)
        return errno == EINTR ? 0 : err_sys(err, errno, "poll");
    if (p[AT_SIGNAL].revents != 0)
        take_signal(g);
    if (p[AT_STDIN].revents != 0)
        take_stdin(g);
    if (p[AT_OUT].revents != 0)
        flush(g, &g->out);
    if (p[AT_ERR].revents != 0)
        flush(g, &g->err);
    int64_t now_us = clock_boot_us();
    for (size_t i = 0; i < g->count && !g->left; i++)
        gang_rank_turn(&g->ranks[i], p[AT_RANKS + i].revents, room, now_us);
    if (!g->left && renew_due(g) <= now_us)
        gang_renew(g, now_us);
    feed_end(g);
    go_on_ending(g, now_us);
    return 0;
}

static bool is_over(const struct gang *g)
{
    size_t ended = 0, started = 0;
    for (size_t i = 0; i < g->count; i++) {
        ended += g->ranks[i].state == GANG_ENDED;
        started += g->ranks[i].run.job != NULL;
    }
    if (g->left || (g->only_start && started == g->count))
        return true;
    return ended == g->count && sink_queued(&g->out) == 0 && sink_queued(&g->err) == 0;
}

int gang_loop(struct gang *g, struct err *err)
{
    struct pollfd *p = xcalloc(AT_RANKS + g->count, sizeof(*p));
    sigset_t caught, before;
    int rc = 0;
    sink_init(&g->out, STDOUT_FILENO);
    sink_init(&g->err, STDERR_FILENO);
    sigemptyset(&caught);
    for (size_t i = 0; i < sizeof(passed_on) / sizeof(passed_on[0]); i++)
        if (!cli_ignores(passed_on[i]))
            sigaddset(&caught, passed_on[i]);
    sigprocmask(SIG_BLOCK, &caught, &before);
    g->signal_fd = signalfd(-1, &caught, SFD_CLOEXEC | SFD_NONBLOCK);
    while (rc == 0 && !is_over(g))
        rc = turn(g, p, err);
    while (sink_queued(&g->out) > 0) /* what was counted as seen is shown */
        (void)sink_flush(&g->out);
    while (sink_queued(&g->err) > 0)
        (void)sink_flush(&g->err);
    close(g->signal_fd);
    sigprocmask(SIG_SETMASK, &before, NULL);
    sink_done(&g->out);
    sink_done(&g->err);
    free(p);
    return rc;
}
