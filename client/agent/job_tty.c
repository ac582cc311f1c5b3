/* job_tty: see job_tty.h. */
#include "client/agent/job_tty.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#define DEFAULT_ROWS 24
#define DEFAULT_COLS 80

void job_tty_init(struct job_tty *t)
{
    memset(t, 0, sizeof(*t));
    t->master = t->slave = t->in = t->out = -1;
}

static int set_nonblock(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return flags < 0 ? -1 : fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

int job_tty_open(struct job_tty *t, const struct launch_spec *spec, int in, int out,
                 struct err *err)
{
    int unlock = 0;
    t->master = open("/dev/pts/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (t->master < 0 || ioctl(t->master, TIOCSPTLCK, &unlock) < 0)
        return err_sys(err, errno, "open a terminal");
    t->slave = ioctl(t->master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (t->slave < 0 || fchown(t->slave, spec->uid, spec->gid) < 0 ||
        set_nonblock(in) < 0 || set_nonblock(out) < 0)
        return err_sys(err, errno, "set up the terminal");
    t->in = in;
    t->out = out;
    t->in_open = true;
    job_tty_window(t, spec->rows > 0 ? spec->rows : DEFAULT_ROWS,
                   spec->cols > 0 ? spec->cols : DEFAULT_COLS);
    return 0;
}

int job_tty_enter(const struct job_tty *t, struct err *err)
{
    /* The slave may stand at 0, 1 or 2 itself, where dup2 would leave it to be closed
     * at exec. */
    int fd = fcntl(t->slave, F_DUPFD_CLOEXEC, 3);
    if (fd < 0 || ioctl(fd, TIOCSCTTY, 0) < 0 || dup2(fd, 0) < 0 || dup2(fd, 1) < 0 ||
        dup2(fd, 2) < 0)
        return err_sys(err, errno, "enter the terminal");
    return 0;
}

void job_tty_window(const struct job_tty *t, unsigned rows, unsigned cols)
{
    struct winsize size = {.ws_row = (unsigned short)rows,
                           .ws_col = (unsigned short)cols};
    if (t->master >= 0)
        (void)ioctl(t->master, TIOCSWINSZ, &size);
}

void job_tty_poll(const struct job_tty *t, struct pollfd fds[JOB_TTY_POLL])
{
    short master = 0;
    if (t->out_len == 0)
        master |= POLLIN;
    if (t->in_len > 0)
        master |= POLLOUT;
    fds[0] = (struct pollfd){master != 0 ? t->master : -1, master, 0};
    fds[1] = (struct pollfd){t->in_open && t->in_len == 0 ? t->in : -1, POLLIN, 0};
    fds[2] = (struct pollfd){t->out_len > 0 ? t->out : -1, POLLOUT, 0};
}

static bool passes(ssize_t n)
{
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

/* Writes what is left of a block; true when it is empty. A side that takes no more (it
 * cannot happen while lease-init holds both ends) loses the block. */
static bool flush(int fd, const char *block, size_t *len, size_t *done)
{
    if (*len == 0)
        return true;
    ssize_t n = write(fd, block + *done, *len - *done);
    if (n > 0)
        *done += (size_t)n;
    if (*done == *len || !passes(n))
        *len = *done = 0;
    return *len == 0;
}

/* Whoever reads lines is told that the input has ended, as a person does it: twice,
 * since the first one only completes a line that has no end. */
static void end_input(struct job_tty *t)
{
    struct termios mode;
    t->in_open = false;
    if (tcgetattr(t->slave, &mode) < 0 || !(mode.c_lflag & ICANON))
        return;
    t->in_block[0] = t->in_block[1] = (char)mode.c_cc[VEOF];
    t->in_len = 2;
    t->in_done = 0;
    (void)flush(t->master, t->in_block, &t->in_len, &t->in_done);
}

static void input(struct job_tty *t)
{
    while (flush(t->master, t->in_block, &t->in_len, &t->in_done) && t->in_open) {
        ssize_t n = read(t->in, t->in_block, sizeof(t->in_block));
        if (n > 0)
            t->in_len = (size_t)n;
        else if (!passes(n))
            end_input(t);
        else
            return;
    }
}

static void output(struct job_tty *t)
{
    for (int i = 0; i < 16; i++) { /* signals and the clock get their turn */
        if (!flush(t->out, t->out_block, &t->out_len, &t->out_done))
            return;
        ssize_t n = read(t->master, t->out_block, sizeof(t->out_block));
        if (n <= 0)
            return;
        t->out_len = (size_t)n;
    }
}

void job_tty_turn(struct job_tty *t)
{
    if (t->master < 0)
        return;
    input(t);
    output(t);
}

bool job_tty_has_output(const struct job_tty *t)
{
    struct pollfd p = {t->master, POLLIN, 0};
    return t->master >= 0 && (t->out_len > 0 || poll(&p, 1, 0) > 0);
}
