/* lease_init: see lease_init.h. */
#include "client/agent/lease_init.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/agent/confine.h"
#include "client/agent/image.h"
#include "client/agent/job_tty.h"
#include "client/agent/jobroot.h"
#include "client/lib/clock.h"
#include "client/lib/xalloc.h"

/* Output still in the FIFOs waits this long for a keeper that is being respawned. */
#define DRAIN_WAIT_US INT64_C(30000000)
#define DEFAULT_PATH  "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

struct run { /* what changes while it runs */
    struct lease_init *li;
    struct job_tty tty;
    pid_t job;
    int child_fd; /* signalfd of SIGCHLD */
    bool ended;   /* the job was reaped */
    bool drained; /* SIGTERM was sent because the end is near */
    int status;
};

static void __attribute__((noreturn))
die(const struct lease_init *li, const struct err *err)
{
    (void)dprintf(li->report, "%d %s", err->code, err->text);
    _exit(1);
}

/* Closes every descriptor but those in keep, which is sorted here. */
static void close_except(int *keep, size_t count)
{
    for (size_t i = 1; i < count; i++)
        for (size_t k = i; k > 0 && keep[k - 1] > keep[k]; k--) {
            int t = keep[k];
            keep[k] = keep[k - 1];
            keep[k - 1] = t;
        }
    int from = 0;
    for (size_t i = 0; i < count; i++) {
        if (keep[i] < from)
            continue;
        if (keep[i] > from)
            (void)close_range((unsigned)from, (unsigned)keep[i] - 1, 0);
        from = keep[i] + 1;
    }
    (void)close_range((unsigned)from, UINT_MAX, 0);
}

static void close_inherited(struct lease_init *li)
{
    int keep[] = {li->deadline.dir_fd,
                  li->deadline.watch_fd,
                  li->deadline.timer_fd,
                  li->job_fd,
                  li->ctl,
                  li->in_r,
                  li->in_w,
                  li->out,
                  li->err,
                  li->v1_procs[0],
                  li->v1_procs[1],
                  li->v1_procs[2],
                  li->report};
    close_except(keep, sizeof(keep) / sizeof(keep[0]));
}

/* v1 hierarchies know no CLONE_INTO_CGROUP: enter them before anything else. */
static int enter_v1(const struct lease_init *li, struct err *err)
{
    for (int i = 0; i < LEASE_INIT_V1; i++) {
        if (li->v1_procs[i] < 0)
            continue;
        if (write(li->v1_procs[i], "0", 1) != 1)
            return err_sys(err, errno, "enter the lease's v1 cgroup");
        close(li->v1_procs[i]);
    }
    return 0;
}

static int limit(int what, int64_t value, struct err *err)
{
    struct rlimit now;
    if (value <= 0 || getrlimit(what, &now) < 0)
        return 0;
    rlim_t want = (rlim_t)value;
    if (now.rlim_max != RLIM_INFINITY && want > now.rlim_max)
        want = now.rlim_max; /* raising it needs a privilege we may not have */
    struct rlimit set = {want, want};
    if (setrlimit(what, &set) < 0)
        return err_sys(err, errno, "setrlimit %d", what);
    return 0;
}

static char **environment(const struct launch_spec *spec)
{
    size_t n = 0;
    bool path = false, home = false, term = !spec->pty || spec->term == NULL;
    while (spec->envp != NULL && spec->envp[n] != NULL)
        n++;
    char **env = xcalloc(n + 4, sizeof(*env));
    for (size_t i = 0; i < n; i++) {
        env[i] = spec->envp[i];
        path = path || strncmp(env[i], "PATH=", 5) == 0;
        home = home || strncmp(env[i], "HOME=", 5) == 0;
        term = term || strncmp(env[i], "TERM=", 5) == 0;
    }
    if (!path)
        env[n++] = xstrdup("PATH=" DEFAULT_PATH);
    if (!home)
        env[n++] = xstrdup("HOME=" LAUNCH_WORK);
    if (!term)
        env[n++] = xasprintf("TERM=%s", spec->term);
    return env;
}

static int job_stdio(const struct run *r, struct err *err)
{
    const struct lease_init *li = r->li;
    if (li->spec->pty)
        return job_tty_enter(&r->tty, err);
    int in = li->in_r >= 0 ? li->in_r : open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (in < 0 || dup2(in, 0) < 0 || dup2(li->out, 1) < 0 || dup2(li->err, 2) < 0)
        return err_sys(err, errno, "stdio");
    return 0;
}

/* When the whole machine runs out of memory the job goes first, not its keeper. */
static void offer_to_oom_killer(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)!write(fd, "500", 3);
    close(fd);
}

static int job_limits(const struct launch_spec *spec, struct err *err)
{
    /* A core would be written by the host's handler, outside of the lease. */
    struct rlimit none = {0, 0};
    if (setrlimit(RLIMIT_CORE, &none) < 0)
        return err_sys(err, errno, "setrlimit core");
    if (limit(RLIMIT_NOFILE, spec->nofile > 0 ? spec->nofile : 65536, err) < 0)
        return -1;
    return limit(RLIMIT_NPROC, spec->nproc, err);
}

/* The child that becomes the job. Reports and exits on failure. */
static void __attribute__((noreturn)) job_exec(const struct run *r)
{
    const struct lease_init *li = r->li;
    const struct launch_spec *spec = li->spec;
    struct err err;
    sigset_t none;
    sigemptyset(&none);
    char **env = environment(spec);
    environ = env; /* execvp looks for the command in the job's PATH */
    setsid();
    if (li->nicer > 0) /* as the agent was started */
        (void)!nice(li->nicer);
    umask(022);
    if (job_stdio(r, &err) < 0)
        die(li, &err);
    confine_fds();
    for (int s = 1; s < NSIG; s++)
        signal(s, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    offer_to_oom_killer();
    if (spec->image != NULL) { /* podman confines what it starts (image.h) */
        if (image_exec(spec, li->lease_dir, &err) < 0)
            die(li, &err);
    }
    if (job_limits(spec, &err) < 0 || confine_user(spec->uid, spec->gid, &err) < 0)
        die(li, &err);
    const char *cwd = spec->cwd != NULL ? spec->cwd : LAUNCH_WORK;
    if (chdir(cwd) < 0) {
        (void)err_sys(&err, errno, "cannot enter directory %s", cwd);
        die(li, &err);
    }
    if (confine_landlock(&err) < 0 || confine_seccomp(&err) < 0)
        die(li, &err);
    execvp(spec->argv[0], spec->argv);
    (void)err_sys(&err, errno, "cannot execute %s", spec->argv[0]);
    die(li, &err);
}

static void reap(struct run *r)
{
    struct signalfd_siginfo info;
    while (read(r->child_fd, &info, sizeof(info)) > 0)
        ;
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid <= 0)
            return;
        if (pid == r->job) {
            r->ended = true;
            r->status = status;
        }
    }
}

static void obey(struct run *r)
{
    unsigned char msg[2], size[4];
    while (read(r->li->ctl, msg, sizeof(msg)) == (ssize_t)sizeof(msg)) {
        if (msg[0] == 's' && msg[1] < NSIG && !r->ended)
            (void)kill(-r->job, msg[1]);
        else if (msg[0] == 't' && msg[1] < NSIG)
            (void)kill(-1, msg[1]);
        else if (msg[0] == 'w' &&
                 read(r->li->ctl, size, sizeof(size)) == (ssize_t)sizeof(size))
            job_tty_window(&r->tty, (unsigned)(size[0] << 8 | size[1]),
                           (unsigned)(size[2] << 8 | size[3]));
        else if (msg[0] == 'I' && r->li->in_w >= 0) {
            close(r->li->in_w);
            r->li->in_w = -1;
        }
    }
}

/* At the end: exits, and the kernel takes with it what could still be there. */
static void check_time(struct run *r)
{
    int64_t now = clock_boot_us();
    struct deadline *d = &r->li->deadline;
    deadline_refresh(d, r->li->spec->drain_us, now);
    if (now >= d->end_boot_us) {
        /* The exit alone would do, but only after our memory and mounts were taken
         * down, which waits for an RCU grace period (some 20 ms): kill first. */
        (void)kill(-1, SIGKILL);
        while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
            ;
        _exit(124);
    }
    if (!r->drained && now >= d->end_boot_us - r->li->spec->drain_us) {
        r->drained = true;
        (void)kill(-1, SIGTERM);
    } else if (now < d->end_boot_us - r->li->spec->drain_us) {
        r->drained = false; /* extended meanwhile: there will be another drain */
    }
}

static void turn(struct run *r, int timeout_ms)
{
    struct pollfd fds[4 + JOB_TTY_POLL] = {{r->child_fd, POLLIN, 0},
                                           {r->li->ctl, POLLIN, 0},
                                           {r->li->deadline.timer_fd, POLLIN, 0},
                                           {r->li->deadline.watch_fd, POLLIN, 0}};
    job_tty_poll(&r->tty, fds + 4);
    if (poll(fds, 4 + JOB_TTY_POLL, timeout_ms) < 0)
        return;
    if (fds[2].revents != 0 || fds[3].revents != 0)
        check_time(r);
    if (fds[1].revents != 0)
        obey(r);
    job_tty_turn(&r->tty);
    if (fds[0].revents != 0)
        reap(r);
}

static void record(const struct run *r)
{
    char buf[24];
    struct job_exit e = {.signaled = WIFSIGNALED(r->status), .reason = "exited"};
    e.value = e.signaled ? WTERMSIG(r->status) : WEXITSTATUS(r->status);
    if (e.signaled || r->drained)
        e.reason = job_exit_reason(r->li->deadline.dir_fd, buf,
                                   r->drained ? "lease_end" : "exited");
    struct err err;
    if (job_exit_write(r->li->job_fd, &e, &err) < 0)
        return; /* the keeper writes one, with less detail */
}

static bool output_waits(const struct run *r)
{
    const struct lease_init *li = r->li;
    int out = 0, err = 0;
    return job_tty_has_output(&r->tty) ||
           (ioctl(li->out, FIONREAD, &out) == 0 && out > 0) ||
           (ioctl(li->err, FIONREAD, &err) == 0 && err > 0);
}

/* The job is gone: so is everything it left behind. Its last output stays readable
 * only while an end of the FIFO is open. */
static void __attribute__((noreturn)) finish(struct run *r)
{
    (void)kill(-1, SIGKILL);
    while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
        ;
    record(r);
    int64_t until = clock_boot_us() + DRAIN_WAIT_US;
    while (output_waits(r) && clock_boot_us() < until)
        turn(r, 5);
    _exit(0);
}

static void start_job(struct run *r, struct err *err)
{
    r->job = fork();
    if (r->job < 0) {
        (void)err_sys(err, errno, "fork");
        die(r->li, err);
    }
    if (r->job == 0)
        job_exec(r);
    close(r->li->report);
    /* Its own copy is the job's; a terminal is fed from this one. */
    if (r->li->in_r >= 0 && !r->li->spec->pty)
        close(r->li->in_r);
}

void lease_init_run(struct lease_init *li)
{
    struct err err;
    struct run r = {.li = li};
    job_tty_init(&r.tty);
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    close_inherited(li);
    deadline_watch(&li->deadline);
    (void)prctl(PR_SET_NAME, "neargpu-init", 0, 0, 0);
    char *work = xasprintf("%s/work", li->lease_dir);
    if (enter_v1(li, &err) < 0)
        die(li, &err);
    if (li->spec->image == NULL && unshare(CLONE_NEWCGROUP) < 0) {
        (void)err_sys(&err, errno, "cgroup namespace");
        die(li, &err);
    }
    if ((li->spec->image != NULL
             ? image_enter(li->spec, li->lease_dir, &err)
             : jobroot_enter(li->spec, li->state_dir, work, &err)) < 0)
        die(li, &err);
    if (li->spec->pty && job_tty_open(&r.tty, li->spec, li->in_r, li->out, &err) < 0)
        die(li, &err);
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    r.child_fd = signalfd(-1, &child, SFD_CLOEXEC | SFD_NONBLOCK);
    if (r.child_fd < 0) {
        (void)err_sys(&err, errno, "signalfd");
        die(li, &err);
    }
    deadline_refresh(&li->deadline, li->spec->drain_us, clock_boot_us());
    start_job(&r, &err);
    if (confine_init(&err) < 0)
        _exit(125);
    check_time(&r);
    while (!r.ended)
        turn(&r, -1);
    finish(&r);
}
