/* launch: see launch.h. */
#include "client/agent/launch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/agent/cgroup.h"
#include "client/agent/journal.h"
#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"

#define READY_TIMEOUT_MS 30000 /* a cold file system under the command may be slow */
#define CLOSE_WAIT_US    INT64_C(3000000)
#define ATTACH_WAIT_US   INT64_C(1000000)
#define KEEPERS_MAX      4096 /* children remembered for reaping */

static void (*step_hook)(const char *step);
static pid_t children[KEEPERS_MAX];
static size_t child_count;
static int netns_fd = -1;
static int keeper_fd = -1;

void launch_set_step_hook(void (*hook)(const char *step))
{
    step_hook = hook;
}

void launch_set_netns(int fd)
{
    netns_fd = fd;
}

int launch_set_keeper(const char *path, struct err *err)
{
    if (keeper_fd >= 0)
        close(keeper_fd);
    keeper_fd = -1;
    int fd = path != NULL ? open(path, O_PATH | O_CLOEXEC) : -1;
    if (path == NULL)
        return 0;
    /* Out of the way of those that a keeper is given. */
    if (fd >= 0)
        keeper_fd = fcntl(fd, F_DUPFD_CLOEXEC, 16);
    int rc = keeper_fd >= 0 ? 0 : err_sys(err, errno, "open %s", path);
    if (fd >= 0)
        close(fd);
    return rc;
}

static void step(const char *name)
{
    if (step_hook != NULL)
        step_hook(name);
}

static void pause_us(long us)
{
    struct timespec t = {0, us * 1000};
    (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &t, NULL);
}

void launch_reap(void)
{
    size_t left = 0;
    for (size_t i = 0; i < child_count; i++)
        if (waitpid(children[i], NULL, WNOHANG) == 0)
            children[left++] = children[i];
    child_count = left;
}

static char *job_dir_of(const char *lease_dir, const char *job)
{
    return xasprintf("%s/jobs/%s", lease_dir, job);
}

static int make_fifo(int dir_fd, const char *name, const struct launch_spec *spec,
                     struct err *err)
{
    if (mkfifoat(dir_fd, name, 0600) < 0 && errno != EEXIST)
        return err_sys(err, errno, "mkfifo %s", name);
    /* The job may open /dev/stdout again. ctl stays root's. */
    if (strcmp(name, "ctl") != 0 &&
        fchownat(dir_fd, name, spec->uid, spec->gid, AT_SYMLINK_NOFOLLOW) < 0)
        return err_sys(err, errno, "chown %s", name);
    return 0;
}

/* On disk with the mark that the job was started (keeper_start.c). */
static int make_dirs(const char *lease_dir, const char *job_dir, struct err *err)
{
    char *jobs = xasprintf("%s/jobs", lease_dir);
    int rc = 0;
    if ((mkdir(jobs, 0700) < 0 && errno != EEXIST) ||
        (mkdir(job_dir, 0700) < 0 && errno != EEXIST))
        rc = err_sys(err, errno, "mkdir %s", job_dir);
    free(jobs);
    return rc;
}

static int make_files(const char *job_dir, const struct launch_spec *spec,
                      struct err *err)
{
    static const char *const names[] = {"stdin", "stdout", "stderr", "ctl"};
    int fd = open(job_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
    if (fd < 0)
        return err_sys(err, errno, "open %s", job_dir);
    for (size_t i = 0; rc == 0 && i < 4; i++)
        rc = make_fifo(fd, names[i], spec, err);
    close(fd);
    return rc;
}

static void __attribute__((noreturn))
keeper_exec(char *const argv[], int program, int ready, int log)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    sigset_t none;
    sigemptyset(&none);
    setsid();
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (netns_fd >= 0 && setns(netns_fd, CLONE_NEWNET) < 0)
        _exit(127);
    if (null < 0 || dup2(ready, 3) < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 ||
        dup2(log >= 0 ? log : null, 2) < 0)
        _exit(127);
    if (program >= 0 && dup3(program, 4, O_CLOEXEC) < 0)
        _exit(127);
    (void)close_range(program >= 0 ? 5 : 4, UINT_MAX, 0);
    (void)fcntl(3, F_SETFD, 0); /* when `ready` was 3 already, dup2 left the flag */
    if (program >= 0)
        execveat(4, "", argv, environ, AT_EMPTY_PATH);
    else
        execv(argv[0], argv);
    _exit(127);
}

static int take_word(struct launch_ready *r, struct err *err)
{
    char *rest;
    r->text[r->len] = '\0';
    r->text[strcspn(r->text, "\n")] = '\0';
    if (strcmp(r->text, "ok") == 0)
        return 1;
    long code = strtol(r->text, &rest, 10);
    return err_set(err, (enum err_code)code, "%s", *rest == ' ' ? rest + 1 : rest);
}

int launch_take_ready(struct launch_ready *r, struct err *err)
{
    int rc = 0;
    while (rc == 0) {
        ssize_t n = read(r->fd, r->text + r->len, sizeof(r->text) - 1 - r->len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            if (clock_boot_us() < r->until_us)
                return 0;
            rc = err_set(err, ERR_TIMEOUT, "the job did not start in time");
        } else if (n <= 0) {
            rc = err_set(err, ERR_UNKNOWN, "the keeper ended without a word");
        } else {
            r->len += (size_t)n;
            if (memchr(r->text, '\n', r->len) != NULL || r->len == sizeof(r->text) - 1)
                rc = take_word(r, err);
        }
    }
    close(r->fd);
    r->fd = -1;
    return rc;
}

int launch_wait_ready(struct launch_ready *r, struct err *err)
{
    int rc;
    while ((rc = launch_take_ready(r, err)) == 0) {
        struct pollfd p = {r->fd, POLLIN, 0};
        int64_t left_us = r->until_us - clock_boot_us();
        (void)poll(&p, 1, left_us > 0 ? (int)(left_us / 1000) + 1 : 0);
    }
    return rc < 0 ? -1 : 0;
}

/* The keepers' own cgroup: a keeper is born there, since moving a process waits for the
 * kernel (10 ms and more). -1: it has to move, or stay, by itself. */
static int open_keepers(const char *base)
{
    struct cgroup_mounts m;
    struct err ignored;
    if (cgroup_find_mounts(&m, &ignored) < 0)
        return -1;
    char *dir = cgroup_path(m.v2, base, CGROUP_KEEPERS, NULL);
    int fd = cgroup_make(dir, &ignored) == 0
                 ? open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
                 : -1;
    free(dir);
    return fd;
}

static pid_t fork_into(int cgroup_fd)
{
    struct clone_args args = {.flags = CLONE_INTO_CGROUP,
                              .exit_signal = SIGCHLD,
                              .cgroup = (uint64_t)cgroup_fd};
    pid_t pid = cgroup_fd >= 0 ? (pid_t)syscall(SYS_clone3, &args, sizeof(args)) : -1;
    return pid >= 0 ? pid : fork();
}

/* cgroup_fd: of the keepers, or -1. */
static int spawn_keeper(const char *job_dir, const char *exe, int cgroup_fd,
                        struct launch_ready *ret, struct err *err)
{
    int program = exe == NULL ? keeper_fd : -1;
    const char *name = program >= 0 ? "neargpu-agent" : exe;
    char *const argv[] = {(char *)(name != NULL ? name : "/proc/self/exe"),
                          (char *)"keeper", (char *)job_dir, (char *)"3", NULL};
    launch_reap();
    if (child_count == KEEPERS_MAX)
        return err_set(err, ERR_QUOTA, "more than %d jobs on this node", KEEPERS_MAX);
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0)
        return err_sys(err, errno, "pipe");
    char *log_path = xasprintf("%s/keeper.log", job_dir);
    int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    free(log_path);
    pid_t pid = fork_into(cgroup_fd);
    if (pid == 0)
        keeper_exec(argv, program, ready[1], log);
    int rc = pid > 0 ? 0 : err_sys(err, errno, "fork");
    close(ready[1]);
    if (log >= 0)
        close(log);
    step("keeper");
    if (rc < 0) {
        close(ready[0]);
        return rc;
    }
    children[child_count++] = pid;
    (void)fcntl(ready[0], F_SETFL, O_NONBLOCK);
    *ret = (struct launch_ready){
        .fd = ready[0], .until_us = clock_boot_us() + READY_TIMEOUT_MS * INT64_C(1000)};
    return 0;
}

/* The directories of earlier jobs stay until the lease does. */
static int check_room(const char *lease_dir, struct err *err)
{
    char *path = xasprintf("%s/jobs", lease_dir);
    DIR *d = opendir(path);
    int count = 0;
    while (d != NULL && readdir(d) != NULL)
        count++;
    if (d != NULL)
        closedir(d);
    free(path);
    if (count - 2 >= LAUNCH_JOBS_MAX)
        return err_set(err, ERR_QUOTA, "this lease has had %d jobs already", count - 2);
    return 0;
}

bool launch_is_started(const char *lease_dir, const char *job)
{
    char *path = xasprintf("%s/jobs/%s/started", lease_dir, job);
    bool is = access(path, F_OK) == 0;
    free(path);
    return is;
}

int launch_begin(const char *lease_dir, const struct launch_spec *spec, const char *exe,
                 struct launch_ready *ret, struct err *err)
{
    if (spec->job == NULL || !journal_id_is_valid(spec->job))
        return err_set(err, ERR_BAD_REQUEST, "launch: job id not usable");
    char *dir = job_dir_of(lease_dir, spec->job);
    int rc = 0;
    if (launch_is_started(lease_dir, spec->job))
        rc = err_set(err, ERR_CONFLICT, "job %s was started already", spec->job);
    if (rc == 0)
        rc = check_room(lease_dir, err);
    if (rc == 0)
        rc = make_dirs(lease_dir, dir, err);
    if (rc == 0) {
        step("dir");
        rc = make_files(dir, spec, err);
    }
    if (rc == 0) {
        step("fifos");
        rc = launch_spec_write(dir, spec, err);
    }
    if (rc == 0) {
        step("spec");
        int keepers = open_keepers(spec->base);
        rc = spawn_keeper(dir, exe, keepers, ret, err);
        if (keepers >= 0)
            close(keepers);
    }
    free(dir);
    return rc;
}

int launch_start(const char *lease_dir, const struct launch_spec *spec, const char *exe,
                 struct err *err)
{
    struct launch_ready ready;
    if (launch_begin(lease_dir, spec, exe, &ready, err) < 0 ||
        launch_wait_ready(&ready, err) < 0)
        return -1;
    step("ready");
    return 0;
}

int launch_respawn_keeper(const char *job_dir, const char *exe, struct err *err)
{
    struct launch_ready ready;
    return spawn_keeper(job_dir, exe, -1, &ready, err) < 0
               ? -1
               : launch_wait_ready(&ready, err);
}

/* Pid of the job's keeper; 0 when there is none. */
static pid_t keeper_pid(const char *job_dir)
{
    char *path = xasprintf("%s/keeper.lock", job_dir);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    free(path);
    if (fd < 0)
        return 0;
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    pid_t pid = 0;
    if (fcntl(fd, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK)
        pid = lock.l_pid;
    close(fd);
    return pid;
}

static char *small_file(const char *dir, const char *name)
{
    char *path = xasprintf("%s/%s", dir, name), *text = NULL;
    struct err ignored;
    if (fsx_read(path, 256, &text, NULL, &ignored) < 0)
        text = NULL;
    else
        text[strcspn(text, "\n")] = '\0';
    free(path);
    return text;
}

static void job_look(const char *lease_dir, const char *name, struct launch_job *job)
{
    char *dir = job_dir_of(lease_dir, name);
    *job = (struct launch_job){.job = xstrdup(name)};
    job->keeper_alive = keeper_pid(dir) > 0;
    char *started = small_file(dir, "started");
    job->started = started != NULL;
    job->started_us = started != NULL ? strtoll(started, NULL, 10) : 0;
    free(started);
    job->exit_json = small_file(dir, "exit");
    job->ended = job->exit_json != NULL;
    free(dir);
}

static int by_start(const void *a, const void *b)
{
    const struct launch_job *x = a, *y = b;
    if (x->started_us != y->started_us)
        return x->started_us < y->started_us ? -1 : 1;
    return strcmp(x->job, y->job);
}

int launch_jobs(const char *lease_dir, struct launch_job **ret, size_t *ret_count,
                struct err *err)
{
    launch_reap();
    char *path = xasprintf("%s/jobs", lease_dir);
    DIR *d = opendir(path);
    struct launch_job *jobs = NULL;
    size_t count = 0;
    int rc = 0;
    if (d == NULL && errno != ENOENT)
        rc = err_sys(err, errno, "open %s", path);
    for (struct dirent *e; d != NULL && (e = readdir(d)) != NULL;) {
        if (!journal_id_is_valid(e->d_name))
            continue;
        jobs = xreallocarray(jobs, count + 1, sizeof(*jobs));
        job_look(lease_dir, e->d_name, &jobs[count++]);
    }
    if (d != NULL)
        closedir(d);
    free(path);
    if (rc < 0)
        return -1;
    if (count > 1)
        qsort(jobs, count, sizeof(*jobs), by_start);
    *ret = jobs;
    *ret_count = count;
    return 0;
}

void launch_jobs_free(struct launch_job *jobs, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        free(jobs[i].job);
        free(jobs[i].exit_json);
    }
    free(jobs);
}

/* -1 with errno. The socket is reached through the directory's descriptor: its path may
 * be longer than a socket's name. */
static int connect_to(const char *job_dir)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int dir = open(job_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return -1;
    snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d/attach.sock", dir);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
        int saved = errno;
        close(fd);
        fd = -1;
        errno = saved;
    }
    int saved = errno;
    close(dir);
    errno = saved;
    return fd;
}

/* Ended and its keeper gone, or the keeper died: a new one serves the log. ERR_CONFLICT
 * from it: one is there already and only has to get as far as its socket. */
static int attach_new(const char *job_dir, int *ret_fd, struct err *err)
{
    int64_t until = clock_boot_us() + ATTACH_WAIT_US;
    for (;;) {
        struct err why;
        int rc = launch_respawn_keeper(job_dir, NULL, &why);
        int fd = rc == 0 || why.code == ERR_CONFLICT ? connect_to(job_dir) : -1;
        if (fd >= 0) {
            *ret_fd = fd;
            return 0;
        }
        if (rc < 0 && (why.code != ERR_CONFLICT || clock_boot_us() >= until)) {
            if (err != NULL)
                *err = why;
            return -1;
        }
        if (rc == 0 && clock_boot_us() >= until)
            return err_sys(err, errno, "attach to %s", job_dir);
        pause_us(2000);
    }
}

/* The agent died and the keeper it had sent off may be about to start the job: a moment
 * is given to it. A keeper sent now would start what nobody asked for now. */
static bool is_started_soon(const char *lease_dir, const char *job)
{
    int64_t until = clock_boot_us() + ATTACH_WAIT_US;
    while (!launch_is_started(lease_dir, job)) {
        if (clock_boot_us() >= until)
            return false;
        pause_us(2000);
    }
    return true;
}

int launch_attach(const char *lease_dir, const char *job, int *ret_fd, struct err *err)
{
    if (!journal_id_is_valid(job))
        return err_set(err, ERR_BAD_REQUEST, "not a job id: %.80s", job);
    char *dir = job_dir_of(lease_dir, job), *spec = xasprintf("%s/spec.json", dir);
    int rc = 0, fd = connect_to(dir);
    if (fd < 0 && access(spec, F_OK) < 0)
        rc = err_set(err, ERR_NOT_FOUND, "no job %s in this lease", job);
    else if (fd < 0 && !is_started_soon(lease_dir, job))
        rc = err_set(err, ERR_NOT_FOUND, "job %s was never started", job);
    else if (fd < 0)
        rc = attach_new(dir, &fd, err);
    if (rc == 0)
        rc = fsx_set_nonblock(fd, err);
    if (rc == 0)
        *ret_fd = fd;
    else if (fd >= 0)
        close(fd);
    free(spec);
    free(dir);
    return rc;
}

int launch_signal(const char *lease_dir, const char *job, int signo, struct err *err)
{
    if (!journal_id_is_valid(job) || signo < 1 || signo > 64)
        return err_set(err, ERR_BAD_REQUEST, "bad job id or signal number");
    char *path = xasprintf("%s/jobs/%s/ctl", lease_dir, job);
    unsigned char msg[2] = {'t', (unsigned char)signo};
    int fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC), rc = 0;
    if (fd < 0 && (errno == ENXIO || errno == ENOENT))
        rc = err_set(err, ERR_NOT_FOUND, "job %s does not run", job);
    else if (fd < 0 || write(fd, msg, sizeof(msg)) != (ssize_t)sizeof(msg))
        rc = err_sys(err, errno, "signal job %s", job);
    if (fd >= 0)
        close(fd);
    free(path);
    return rc;
}

int launch_set_reason(const char *lease_dir, const char *reason, struct err *err)
{
    char *path = xasprintf("%s/reason", lease_dir);
    int rc = fsx_write(path, reason, strlen(reason), 0600, err);
    free(path);
    return rc;
}

static int close_job(const char *lease_dir, const struct launch_job *job,
                     struct err *err)
{
    char *dir = job_dir_of(lease_dir, job->job);
    int64_t until = clock_boot_us() + CLOSE_WAIT_US;
    pid_t pid;
    int rc = 0;
    while (rc == 0 && (pid = keeper_pid(dir)) > 0) {
        (void)kill(pid, SIGTERM);
        pause_us(2000);
        if (clock_boot_us() >= until)
            rc = err_set(err, ERR_CONFLICT, "job %s has not ended", job->job);
    }
    free(dir);
    return rc;
}

int launch_close(const char *lease_dir, struct err *err)
{
    struct launch_job *jobs;
    size_t count;
    if (launch_jobs(lease_dir, &jobs, &count, err) < 0)
        return -1;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < count; i++)
        rc = close_job(lease_dir, &jobs[i], err);
    launch_jobs_free(jobs, count);
    launch_reap();
    return rc;
}
