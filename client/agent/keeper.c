/* keeper: see keeper.h. One poll loop; the job's state is on disk and in the kernel, so
 * that a keeper that died is replaced by another one. */
#include "client/agent/keeper_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/agent/cgroup.h"
#include "client/agent/lease_init.h"
#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/log.h"
#include "client/lib/xalloc.h"

#define LINGER_US                                                          \
    INT64_C(2000000)    /* ended, nobody attached: for those who come late \
                         */
#define REKILL_MS   200 /* killed but not gone (uninterruptible): again */
#define EXIT_MAX    256
#define SOCKET_NAME "attach.sock"

enum { /* poll slots; clients follow */
       SLOT_SIGNAL,
       SLOT_TIMER,
       SLOT_WATCH,
       SLOT_EVENTS,
       SLOT_OUT,
       SLOT_ERR,
       SLOT_STDIN,
       SLOT_LISTEN,
       SLOT_CLIENTS,
       SLOT_COUNT = SLOT_CLIENTS + KEEPER_CLIENTS_MAX
};

static void tell(struct keeper *k, const char *line)
{
    if (k->ready_fd < 0)
        return;
    (void)!write(k->ready_fd, line, strlen(line));
    close(k->ready_fd);
    k->ready_fd = -1;
}

static void tell_error(struct keeper *k, const struct err *err)
{
    char *line = xasprintf("%d %s\n", err->code, err->text);
    log_error("job %s: %s", k->spec.job != NULL ? k->spec.job : "?", err->text);
    tell(k, line);
    free(line);
}

/* "DIR/a/b" without its last n parts. */
static char *parent(const char *path, int n)
{
    char *copy = xstrdup(path);
    for (; n > 0; n--) {
        char *slash = strrchr(copy, '/');
        if (slash == NULL || slash == copy)
            break;
        *slash = '\0';
    }
    return copy;
}

/* fcntl locks, unlike flock, do not go on to the child that becomes lease-init. */
static int take_lock(struct keeper *k, struct err *err)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    k->lock_fd = openat(k->job_fd, "keeper.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (k->lock_fd < 0)
        return err_sys(err, errno, "open keeper.lock");
    if (fcntl(k->lock_fd, F_SETLK, &lock) < 0)
        return err_set(err, ERR_CONFLICT, "the job has a keeper already");
    return 0;
}

/* Relative to the job's directory: its path may be longer than a socket's name. Nobody
 * can connect yet: the child that becomes lease-init has a copy for a moment, and if
 * the keeper died in it, clients would be taken by a socket that nobody serves. */
static int bind_here(struct keeper *k, struct err *err)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX, .sun_path = SOCKET_NAME};
    (void)unlinkat(k->job_fd, SOCKET_NAME, 0);
    k->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (k->listen_fd < 0 || fchdir(k->job_fd) < 0 ||
        bind(k->listen_fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
        return err_sys(err, errno, "bind " SOCKET_NAME);
    return 0;
}

static int signals(struct keeper *k, struct err *err)
{
    static const int ignored[] = {SIGHUP, SIGINT, SIGQUIT, SIGPIPE, SIGTSTP};
    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        signal(ignored[i], SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    k->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return k->signal_fd >= 0 ? 0 : err_sys(err, errno, "signalfd");
}

/* Born in its cgroup already (launch.c does that): moving would wait for the kernel. */
static bool is_at_home(const struct keeper *k)
{
    struct err ignored;
    char *text, *line = NULL, *rest;
    char *home = xasprintf("/%s/" CGROUP_KEEPERS,
                           k->spec.base != NULL ? k->spec.base : CGROUP_BASE);
    bool is = false;
    if (fsx_read("/proc/self/cgroup", 65536, &text, NULL, &ignored) < 0)
        text = NULL;
    for (line = text; line != NULL && *line != '\0'; line = rest) {
        size_t len = strcspn(line, "\n");
        rest = line + len + (line[len] == '\n');
        is = is || (strncmp(line, "0::", 3) == 0 && len >= 3 + strlen(home) &&
                    strncmp(line + len - strlen(home), home, strlen(home)) == 0);
    }
    free(home);
    free(text);
    return is;
}

/* A keeper is of no service's cgroup: whoever stops the agent must not stop it. Where
 * that is not possible it stays where it is. */
static void leave_cgroup(const struct cgroup_mounts *m, const struct keeper *k)
{
    struct err ignored;
    if (is_at_home(k))
        return;
    char *dir = cgroup_path(m->v2, k->spec.base, CGROUP_KEEPERS, NULL);
    if (cgroup_make(dir, &ignored) == 0)
        cgroup_try_write(dir, "cgroup.procs", "0");
    free(dir);
}

static int setup(struct keeper *k, const char *job_dir, struct err *err)
{
    struct cgroup_mounts m;
    k->job_dir = realpath(job_dir, NULL);
    if (k->job_dir == NULL)
        return err_sys(err, errno, "no job directory %s", job_dir);
    k->lease_dir = parent(k->job_dir, 2);
    k->state_dir = parent(k->job_dir, 4);
    k->job_fd = open(k->job_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (k->job_fd < 0)
        return err_sys(err, errno, "open %s", k->job_dir);
    if (take_lock(k, err) < 0 || launch_spec_read(k->job_dir, &k->spec, err) < 0 ||
        cgroup_find_mounts(&m, err) < 0 ||
        deadline_open(&k->deadline, k->lease_dir, err) < 0 || signals(k, err) < 0)
        return -1;
    deadline_cap(&k->deadline, k->spec.end_boot_us);
    k->cgroup_dir = cgroup_path(m.v2, k->spec.base, k->spec.lease, k->spec.job);
    leave_cgroup(&m, k);
    int64_t max = k->spec.output_max > 0 ? k->spec.output_max : KEEPER_OUTPUT_MAX;
    if (keeper_log_open(&k->log, k->job_fd, "output", max, err) < 0)
        return -1;
    return bind_here(k, err);
}

static void fd_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

/* Reads `exit` into exit_json; a job that has one is over. */
static bool load_exit(struct keeper *k)
{
    char *path = xasprintf("%s/exit", k->job_dir), *text;
    struct err ignored;
    int rc = fsx_read(path, EXIT_MAX, &text, NULL, &ignored);
    free(path);
    if (rc < 0)
        return false;
    text[strcspn(text, "\n")] = '\0';
    k->exit_json = text;
    k->idle_since_us = clock_boot_us();
    return true;
}

/* The job is gone and its output read. Whoever died with it wrote no account: then it
 * was killed from outside. */
static void finish(struct keeper *k, const char *fallback)
{
    char buf[24];
    struct err err;
    const char *why =
        clock_boot_us() >= k->deadline.end_boot_us ? "lease_end" : fallback;
    struct job_exit e = {true, SIGKILL, job_exit_reason(k->deadline.dir_fd, buf, why)};
    if (job_exit_write(k->job_fd, &e, &err) < 0)
        log_error("job %s: %s", k->spec.job, err.text);
    if (!load_exit(k)) {
        /* No disk left for the record: those attached are told all the same. */
        k->exit_json = xasprintf("{\"signal\":9,\"reason\":\"%s\"}", e.reason);
        k->idle_since_us = clock_boot_us();
    }
    if (cgroup_remove(k->cgroup_dir, &err) < 0)
        log_warn("job %s: %s", k->spec.job, err.text);
    fd_close(&k->events_fd);
    fd_close(&k->ctl);
    fd_close(&k->in_w);
}

static int start_new(struct keeper *k, struct err *err)
{
    struct err ignored;
    if (clock_boot_us() >= k->deadline.end_boot_us)
        return err_set(err, ERR_CONFLICT, "the lease has ended");
    if (keeper_start_job(k, err) == 0)
        return 0;
    struct job_exit e = {false, 126, "failed"};
    if (keeper_file_exists(k, "started") && job_exit_write(k->job_fd, &e, &ignored) < 0)
        log_error("job %s: %s", k->spec.job, ignored.text);
    if (cgroup_remove(k->cgroup_dir, &ignored) < 0)
        log_error("job %s: %s", k->spec.job, ignored.text);
    return -1;
}

static void read_fifo(struct keeper *k, int *fd, char type)
{
    static char block[RUN_FRAME_MAX];
    for (int i = 0; i < 4; i++) { /* the other stream and the clients get their turn */
        ssize_t n = read(*fd, block, sizeof(block));
        if (n > 0)
            keeper_log_add(&k->log, type, block, (size_t)n);
        else if (n == 0 || (errno != EAGAIN && errno != EINTR))
            fd_close(fd);
        if (n < (ssize_t)sizeof(block))
            return;
    }
}

/* The job has no process any more: what it wrote last is read, then its end is written
 * down. A FIFO need not say so itself: one that was opened when its last writer had
 * just gone, or that somebody else has open, never does. */
static void end_of_job(struct keeper *k)
{
    if (k->out_r >= 0)
        read_fifo(k, &k->out_r, 'o');
    if (k->err_r >= 0)
        read_fifo(k, &k->err_r, 'e');
    fd_close(&k->out_r);
    fd_close(&k->err_r);
    finish(k, "killed");
}

static int adopt(struct keeper *k, struct err *err)
{
    bool populated = true;
    if (keeper_adopt_job(k, err) < 0 ||
        cgroup_populated(k->cgroup_dir, &populated, err) < 0)
        return -1;
    if (!populated)
        end_of_job(k);
    return 0;
}

/* Start, adopt or only serve, by what is on disk. A job with an `exit` may still have
 * its lease-init, which waits for somebody to read the last output. */
static int begin(struct keeper *k, struct err *err)
{
    if (!keeper_file_exists(k, "started"))
        return start_new(k, err);
    bool populated = false;
    if (cgroup_populated(k->cgroup_dir, &populated, err) < 0)
        return -1;
    if (populated)
        return adopt(k, err);
    if (!load_exit(k))
        finish(k, "lost");
    return 0;
}

static void check_time(struct keeper *k)
{
    deadline_refresh(&k->deadline, 0, clock_boot_us());
    if (k->exit_json != NULL || clock_boot_us() < k->deadline.end_boot_us)
        return;
    struct err err;
    if (cgroup_kill(k->cgroup_dir, &err) < 0)
        log_error("job %s: %s", k->spec.job, err.text);
    k->killed = true;
}

static void check_end(struct keeper *k, bool changed)
{
    bool populated = true;
    if (k->events_fd >= 0) { /* reading it re-arms POLLPRI */
        char text[128];
        (void)!pread(k->events_fd, text, sizeof(text), 0);
    }
    struct err err;
    if (!changed && (k->out_r >= 0 || k->err_r >= 0))
        return;
    if (cgroup_populated(k->cgroup_dir, &populated, &err) < 0)
        log_error("job %s: %s", k->spec.job, err.text);
    if (!populated)
        end_of_job(k);
}

/* True when the keeper has to leave: told to, and the job is over. */
static bool on_signal(struct keeper *k)
{
    struct signalfd_siginfo info;
    bool term = false;
    while (read(k->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
        term = term || info.ssi_signo == SIGTERM;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    return term && k->exit_json != NULL;
}

static int fill_poll(const struct keeper *k, struct pollfd fds[SLOT_COUNT])
{
    bool over = k->exit_json != NULL;
    fds[SLOT_SIGNAL] = (struct pollfd){k->signal_fd, POLLIN, 0};
    fds[SLOT_TIMER] =
        (struct pollfd){over || k->killed ? -1 : k->deadline.timer_fd, POLLIN, 0};
    fds[SLOT_WATCH] = (struct pollfd){over ? -1 : k->deadline.watch_fd, POLLIN, 0};
    fds[SLOT_EVENTS] = (struct pollfd){k->events_fd, POLLPRI, 0};
    fds[SLOT_OUT] = (struct pollfd){k->out_r, POLLIN, 0};
    fds[SLOT_ERR] = (struct pollfd){k->err_r, POLLIN, 0};
    fds[SLOT_STDIN] = (struct pollfd){k->in_wait.len > 0 ? k->in_w : -1, POLLOUT, 0};
    fds[SLOT_LISTEN] = (struct pollfd){k->listen_fd, POLLIN, 0};
    bool busy = false;
    for (int i = 0; i < KEEPER_CLIENTS_MAX; i++) {
        const struct keeper_client *c = &k->clients[i];
        fds[SLOT_CLIENTS + i] =
            (struct pollfd){c->fd, c->fd >= 0 ? keeper_client_events(k, c) : 0, 0};
        busy = busy || c->fd >= 0;
    }
    if (over)
        return busy ? -1 : (int)(LINGER_US / 1000);
    /* Both FIFOs at their end but processes left: cgroup.events may have come before.
     */
    return k->killed || (k->out_r < 0 && k->err_r < 0) ? REKILL_MS : -1;
}

static bool lingered(struct keeper *k)
{
    if (k->exit_json == NULL)
        return false;
    int64_t now = clock_boot_us();
    for (int i = 0; i < KEEPER_CLIENTS_MAX; i++)
        if (k->clients[i].fd >= 0)
            k->idle_since_us = now;
    return now - k->idle_since_us >= LINGER_US;
}

static void loop(struct keeper *k)
{
    struct pollfd fds[SLOT_COUNT];
    while (!lingered(k)) {
        int timeout = fill_poll(k, fds);
        if (poll(fds, SLOT_COUNT, timeout) < 0)
            continue;
        if (fds[SLOT_SIGNAL].revents != 0 && on_signal(k))
            return;
        if (fds[SLOT_TIMER].revents != 0 || fds[SLOT_WATCH].revents != 0 || k->killed)
            check_time(k);
        if (fds[SLOT_OUT].revents != 0)
            read_fifo(k, &k->out_r, 'o');
        if (fds[SLOT_ERR].revents != 0)
            read_fifo(k, &k->err_r, 'e');
        if (fds[SLOT_STDIN].revents != 0)
            keeper_stdin_turn(k);
        if (fds[SLOT_LISTEN].revents != 0)
            keeper_client_accept(k);
        for (int i = 0; i < KEEPER_CLIENTS_MAX; i++)
            if (fds[SLOT_CLIENTS + i].fd >= 0 && fds[SLOT_CLIENTS + i].revents != 0)
                keeper_client_turn(k, &k->clients[i], fds[SLOT_CLIENTS + i].revents);
        if (k->exit_json == NULL)
            check_end(k, fds[SLOT_EVENTS].revents != 0);
    }
}

static void keeper_free(struct keeper *k)
{
    int *fds[] = {&k->job_fd,   &k->lock_fd,   &k->signal_fd, &k->listen_fd,
                  &k->ready_fd, &k->events_fd, &k->ctl,       &k->out_r,
                  &k->err_r,    &k->in_w};
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++)
        fd_close(fds[i]);
    for (int i = 0; i < KEEPER_CLIENTS_MAX; i++)
        keeper_client_close(&k->clients[i]);
    deadline_close(&k->deadline);
    keeper_log_close(&k->log);
    launch_spec_done(&k->spec);
    strbuf_done(&k->in_wait);
    free(k->exit_json);
    free(k->job_dir);
    free(k->lease_dir);
    free(k->state_dir);
    free(k->cgroup_dir);
    free(k);
}

/* Where that is not allowed it stays as it is, and so does the job. */
static void go_first(struct keeper *k)
{
    int before = getpriority(PRIO_PROCESS, 0);
    (void)setpriority(PRIO_PROCESS, 0, before - KEEPER_NICE);
    k->nicer = before - getpriority(PRIO_PROCESS, 0);
}

int keeper_main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: neargpu-agent keeper JOB_DIR [READY_FD]\n");
        return 2;
    }
    struct keeper *k = xcalloc(1, sizeof(*k));
    struct err err;
    k->deadline = (struct deadline){.dir_fd = -1, .watch_fd = -1, .timer_fd = -1};
    k->job_fd = k->lock_fd = k->signal_fd = k->listen_fd = k->events_fd = -1;
    k->ctl = k->out_r = k->err_r = k->in_w = k->log.fd = -1;
    k->ready_fd = argc >= 3 ? (int)strtol(argv[2], NULL, 10) : -1;
    keeper_clients_init(k);
    go_first(k);
    umask(077);
    (void)prctl(PR_SET_NAME, "neargpu-keeper", 0, 0, 0);
    log_init("neargpu-keeper", LOG_LVL_INFO);
    if (k->ready_fd >= 0)
        (void)fcntl(k->ready_fd, F_SETFD, FD_CLOEXEC);
    int rc = setup(k, argv[1], &err);
    if (rc == 0)
        rc = begin(k, &err);
    if (rc == 0 && listen(k->listen_fd, KEEPER_CLIENTS_MAX) < 0)
        log_error("job %s: listen on " SOCKET_NAME ": %m", k->spec.job);
    if (rc < 0) {
        tell_error(k, &err);
        keeper_free(k);
        return err_exit_status(err.code);
    }
    deadline_refresh(&k->deadline, 0, clock_boot_us());
    tell(k, "ok\n");
    loop(k);
    (void)unlinkat(k->job_fd, SOCKET_NAME, 0);
    keeper_free(k);
    return 0;
}
