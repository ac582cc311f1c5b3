/* ssh_session: `neargpu-agent ssh-session TICKET`, the forced command of sshd: makes
 * the session a job of the lease and is then a pipe between sshd and the job's keeper.
 *
 * With a terminal: sshd's is made raw and the job gets one of its own, whose window
 * follows. Without: input, output and errors pass as they are, which is all that scp,
 * sftp and rsync need. The exit status is the job's, 128 plus the signal that ended it,
 * 255 when no job was had. Runs as the user sshd logs in, outside the lease, with
 * nothing but its descriptors: it never sees a device or runs what the tenant sent.
 * When it goes away in whatever manner, the agent hangs the job up. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <unistd.h>

#include "client/agent/commands.h"
#include "client/agent/launch.h"
#include "client/agent/ssh_line.h"
#include "client/agent/ssh_proto.h"
#include "client/lib/frame.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"

#define EXIT_REFUSED 255
#define QUEUE_MAX                                                       \
    (256 * 1024) /* waiting for a slow side: then the other is not read \
                  */
#define BLOCK (16 * 1024)

extern char **environ;

struct queue {
    struct strbuf b;
    size_t done;
    bool shut; /* nothing can be written there any more */
};

struct session {
    int agent_fd, keeper_fd, signal_fd;
    bool tty, in_eof, keeper_eof, hung_up;
    struct termios before;
    struct frame_reader in;
    struct queue to_keeper, to_out, to_err;
    json_t *end; /* the job's last frame; NULL: not yet */
};

/* --- the request --- */

static json_t *environment(void)
{
    json_t *env = json_object();
    for (char **e = environ; *e != NULL && json_object_size(env) < SSH_ENV_MAX; e++) {
        const char *eq = strchr(*e, '=');
        size_t len = eq != NULL ? (size_t)(eq - *e) : 0;
        char name[64];
        if (len == 0 || len >= sizeof(name))
            continue;
        memcpy(name, *e, len);
        name[len] = '\0';
        if (strcmp(name, "LANG") == 0 || strncmp(name, "LC_", 3) == 0 ||
            strcmp(name, "SSH_CONNECTION") == 0 || strcmp(name, "SSH_CLIENT") == 0)
            json_object_set_new(env, name, json_string(eq + 1));
    }
    return env;
}

static json_t *window(void)
{
    struct winsize w = {0};
    (void)ioctl(STDIN_FILENO, TIOCGWINSZ, &w);
    if (w.ws_row > LAUNCH_WINDOW_MAX)
        w.ws_row = LAUNCH_WINDOW_MAX;
    if (w.ws_col > LAUNCH_WINDOW_MAX)
        w.ws_col = LAUNCH_WINDOW_MAX;
    return json_pack("{s:i, s:i}", "rows", (int)w.ws_row, "cols", (int)w.ws_col);
}

static json_t *terminal(void)
{
    const char *term = getenv("TERM");
    json_t *o = window();
    if (term != NULL && term[0] != '\0' && strlen(term) <= LAUNCH_TERM_MAX &&
        strspn(term, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
                     "._+-") == strlen(term))
        json_object_set_new(o, "term", json_string(term));
    return o;
}

static int make_request(const char *ticket, bool tty, json_t **ret, struct err *err)
{
    const char *command = getenv("SSH_ORIGINAL_COMMAND"), *res = getenv("NEARGPU_RES");
    json_t *body = json_pack("{s:s, s:o}", "ticket", ticket, "env", environment());
    int rc = 0;
    if (res != NULL && res[0] != '\0' &&
        json_object_set_new(body, "reservation", json_string(res)) != 0)
        rc = err_set(err, ERR_BAD_REQUEST, "NEARGPU_RES is not UTF-8");
    if (command != NULL && ssh_wants_sftp(command))
        json_object_set_new(body, "sftp", json_true());
    else if (command != NULL && strlen(command) > SSH_COMMAND_MAX)
        rc = err_set(err, ERR_TOO_LARGE, "the command is over %d bytes",
                     SSH_COMMAND_MAX);
    else if (command != NULL && command[0] != '\0' &&
             json_object_set_new(body, "command", json_string(command)) != 0)
        rc = err_set(err, ERR_BAD_REQUEST, "the command is not UTF-8");
    if (tty)
        json_object_set_new(body, "pty", terminal());
    if (rc == 0)
        *ret = body;
    else
        json_decref(body);
    return rc;
}

/* --- queues --- */

static size_t queued(const struct queue *q)
{
    return q->b.len - q->done;
}

static void flush(struct queue *q, int fd)
{
    while (queued(q) > 0 && !q->shut) {
        ssize_t n = write(fd, q->b.data + q->done, queued(q));
        if (n > 0)
            q->done += (size_t)n;
        else if (n < 0 && errno == EAGAIN)
            return;
        else if (n < 0 && errno != EINTR)
            q->shut = true;
    }
    q->done = q->b.len = 0;
}

static void add(struct queue *q, const void *data, size_t len)
{
    if (q->done > 0) {
        memmove(q->b.data, q->b.data + q->done, queued(q));
        q->b.len -= q->done;
        q->done = 0;
    }
    if (!q->shut)
        strbuf_add(&q->b, data, len);
}

static void say(struct session *s, char type, const void *data, size_t len)
{
    struct strbuf b = STRBUF_INIT;
    frame_put(&b, type, data, len);
    add(&s->to_keeper, b.data, b.len);
    strbuf_done(&b);
}

/* --- events --- */

static void read_input(struct session *s)
{
    char buf[BLOCK];
    ssize_t n = read(STDIN_FILENO, buf, sizeof(buf));
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0) {
        say(s, 'i', buf, (size_t)n);
        return;
    }
    s->in_eof = true;
    if (s->tty) /* the terminal is gone */
        s->hung_up = true;
    else
        say(s, 'I', "", 0);
}

static void take_frame(struct session *s, const struct frame *f)
{
    struct err ignored;
    if (f->type == 'o' || f->type == 'e')
        add(f->type == 'o' ? &s->to_out : &s->to_err, f->data, f->len);
    else if ((f->type == 'x' || f->type == 'E') && s->end == NULL)
        s->end = jsonx_parse((const char *)f->data, f->len, RUN_FRAME_MAX, &ignored);
}

static void read_keeper(struct session *s)
{
    char buf[BLOCK];
    struct frame f;
    struct err ignored;
    ssize_t n = read(s->keeper_fd, buf, sizeof(buf));
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0)
        frame_feed(&s->in, buf, (size_t)n);
    int got = 0;
    while (n > 0 && (got = frame_next(&s->in, &f, &ignored)) > 0)
        take_frame(s, &f);
    if (n <= 0 || got < 0)
        s->keeper_eof = true;
}

static void read_signals(struct session *s)
{
    struct signalfd_siginfo info;
    while (read(s->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo != SIGWINCH) {
            s->hung_up = true;
        } else if (s->tty) {
            json_t *w = window();
            /* A terminal without a size has nothing to tell. */
            if (json_integer_value(json_object_get(w, "rows")) > 0 &&
                json_integer_value(json_object_get(w, "cols")) > 0) {
                char *text = jsonx_dump(w);
                say(s, 'w', text, strlen(text));
                free(text);
            }
            json_decref(w);
        }
    }
}

static void turn(struct session *s)
{
    enum { IN, OUT, ERR, KEEPER, SIGNAL, COUNT };
    bool full = queued(&s->to_out) > QUEUE_MAX || queued(&s->to_err) > QUEUE_MAX;
    bool ends = s->keeper_eof;
    short keeper = (short)((full || ends ? 0 : POLLIN) |
                           (queued(&s->to_keeper) > 0 ? POLLOUT : 0));
    struct pollfd fds[COUNT] = {
        [IN] = {s->in_eof || ends || queued(&s->to_keeper) > QUEUE_MAX ? -1 : 0, POLLIN,
                0},
        /* Also without anything to write: that nobody reads any more is told here. */
        [OUT] = {s->to_out.shut ? -1 : 1, queued(&s->to_out) > 0 ? POLLOUT : 0, 0},
        [ERR] = {queued(&s->to_err) > 0 ? 2 : -1, POLLOUT, 0},
        [KEEPER] = {ends ? -1 : s->keeper_fd, keeper, 0},
        [SIGNAL] = {s->signal_fd, POLLIN, 0}};
    if (poll(fds, COUNT, -1) < 0)
        return;
    if (fds[SIGNAL].revents != 0)
        read_signals(s);
    if (fds[IN].revents != 0)
        read_input(s);
    if (fds[KEEPER].revents & (POLLIN | POLLHUP | POLLERR))
        read_keeper(s);
    if (fds[OUT].revents & (POLLERR | POLLHUP | POLLNVAL))
        s->to_out.shut = s->hung_up = true;
    flush(&s->to_out, STDOUT_FILENO);
    flush(&s->to_err, STDERR_FILENO);
    if (!s->keeper_eof)
        flush(&s->to_keeper, s->keeper_fd);
    if (s->to_keeper.shut) /* what it said before is still read */
        s->in_eof = true;
}

/* --- beginning and end --- */

static int make_raw(struct session *s, struct err *err)
{
    struct termios raw;
    if (tcgetattr(STDIN_FILENO, &s->before) < 0)
        return err_sys(err, errno, "terminal");
    raw = s->before;
    cfmakeraw(&raw);
    if (tcsetattr(STDIN_FILENO, TCSANOW, &raw) < 0)
        return err_sys(err, errno, "terminal");
    return 0;
}

static int signals(struct session *s, struct err *err)
{
    sigset_t set;
    (void)signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGWINCH);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return s->signal_fd >= 0 ? 0 : err_sys(err, errno, "signalfd");
}

static int begin(struct session *s, const char *socket, const char *ticket,
                 struct err *err)
{
    json_t *body = NULL, *answer = NULL;
    static const char from_start[] = "{\"offset\":0}";
    s->tty = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO);
    if (signals(s, err) != 0 || make_request(ticket, s->tty, &body, err) != 0)
        return -1;
    int rc = ssh_ask_connect(socket, &s->agent_fd, err);
    if (rc == 0)
        rc = ssh_ask(s->agent_fd, 's', body, &answer, &s->keeper_fd, err);
    json_decref(body);
    json_decref(answer);
    if (rc == 0 && s->tty)
        rc = make_raw(s, err);
    for (int fd = 0; rc == 0 && fd <= 2; fd++)
        rc = fsx_set_nonblock(fd, err);
    if (rc == 0)
        say(s, 'a', from_start, sizeof(from_start) - 1);
    return rc;
}

/* Why it is over, when it is not the job's own doing. */
static const char *reason_text(const char *reason)
{
    static const char *const table[][2] = {
        {"lease_end", "the lease has ended, and this session with it"},
        {"revoked", "the lease was revoked, and this session with it"},
        {"stopped", "the lease was stopped, and this session with it"},
        {"killed", "the session was killed (out of memory, or by the provider)"},
        {"lost", "the session was lost (the node was restarted)"},
    };
    for (size_t i = 0; reason != NULL && i < sizeof(table) / sizeof(table[0]); i++)
        if (strcmp(table[i][0], reason) == 0)
            return table[i][1];
    return NULL;
}

static int finish(struct session *s)
{
    const char *why = reason_text(json_string_value(json_object_get(s->end, "reason")));
    const json_t *code = json_object_get(s->end, "exit");
    const json_t *signo = json_object_get(s->end, "signal");
    if (s->tty)
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &s->before);
    /* Waits, where the terminal does not: the last line is worth it. */
    (void)fcntl(STDERR_FILENO, F_SETFL, fcntl(STDERR_FILENO, F_GETFL) & ~O_NONBLOCK);
    if (s->hung_up)
        return 128 + SIGHUP;
    if (s->end == NULL)
        why = "the connection to the session's job was lost";
    if (why != NULL)
        dprintf(STDERR_FILENO, "%sneargpu: %s\n", s->tty ? "\r\n" : "", why);
    if (json_is_integer(code))
        return (int)json_integer_value(code) & 0xff;
    return json_is_integer(signo) ? 128 + ((int)json_integer_value(signo) & 0x7f)
                                  : EXIT_REFUSED;
}

int command_ssh_session(const struct opt_values *v)
{
    struct session s = {.agent_fd = -1, .keeper_fd = -1, .signal_fd = -1};
    struct err err;
    frame_reader_init(&s.in);
    if (begin(&s, ssh_socket_path(opt_get(v, "socket")), v->args[0], &err) != 0) {
        fprintf(stderr, "neargpu: %s\n", err.text);
        return EXIT_REFUSED;
    }
    while (!s.hung_up && !(s.keeper_eof && (queued(&s.to_out) == 0 || s.to_out.shut) &&
                           (queued(&s.to_err) == 0 || s.to_err.shut)))
        turn(&s);
    if (s.hung_up) {
        say(&s, 's', "1", 1);
        flush(&s.to_keeper, s.keeper_fd);
    }
    int status = finish(&s);
    close(s.keeper_fd);
    close(s.agent_fd);
    close(s.signal_fd);
    json_decref(s.end);
    frame_reader_done(&s.in);
    strbuf_done(&s.to_keeper.b);
    strbuf_done(&s.to_out.b);
    strbuf_done(&s.to_err.b);
    return status;
}
