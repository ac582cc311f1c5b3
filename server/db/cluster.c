/* cluster: the postgres process of the private cluster; see the header. */
#include "server/db/cluster.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <libpq-fe.h>
#include <linux/capability.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/log.h"
#include "client/lib/xalloc.h"
#include "server/db/cluster_priv.h"

#define START_TRIES    8
#define START_MS       120000 /* recovery after a crash replays at most max_wal_size */
#define STOP_MS        30000
#define BACKOFF_MIN_US INT64_C(100000)
#define BACKOFF_MAX_US INT64_C(5000000)
#define STABLE_US      INT64_C(60000000)

/* ---- the child ---------------------------------------------------------------- */

/* Keeps one capability over setuid and exec: passing directories (nothing but search
 * and read). */
static int lend_search(uid_t uid)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {{0}};
    data[0].effective = data[0].permitted = data[0].inheritable =
        1U << CAP_DAC_READ_SEARCH;
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0 || setuid(uid) != 0 ||
        syscall(SYS_capset, &head, data) != 0)
        return -1;
    return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_DAC_READ_SEARCH, 0, 0);
}

static void child(const struct cluster *c, char *const argv[], pid_t parent, int log_fd)
{
    sigset_t none;
    sigemptyset(&none);
    for (int s = 1; s < 32; s++)
        if (s != SIGKILL && s != SIGSTOP)
            signal(s, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    int in = open("/dev/null", O_RDONLY);
    if (in < 0 || dup2(in, 0) < 0 || dup2(log_fd, 1) < 0 || dup2(log_fd, 2) < 0)
        _exit(126);
    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    setsid(); /* ^C on our terminal is for us to pass on, in order */
    if (c->drop && (initgroups(c->user, c->gid) != 0 || setgid(c->gid) != 0))
        _exit(126);
    if (c->drop && (c->search ? lend_search(c->uid) : setuid(c->uid)) != 0)
        _exit(126);
    /* After setuid, which would clear it. */
    if (prctl(PR_SET_PDEATHSIG, SIGINT) != 0 || getppid() != parent)
        _exit(126);
    umask(077);
    execv(argv[0], argv);
    _exit(127);
}

pid_t cluster_spawn(const struct cluster *c, char *const argv[], struct err *err)
{
    int log_fd = open(c->log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0)
        return err_sys(err, errno, "opening %s", c->log_path);
    pid_t parent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        child(c, argv, parent, log_fd);
    int saved = errno;
    close(log_fd);
    return pid < 0 ? err_sys(err, saved, "fork") : pid;
}

static int spawn_postgres(struct cluster *c, struct err *err)
{
    char *socket_arg = xasprintf("unix_socket_directories=%s", c->socket_dir);
    const char *argv[] = {NEARGPU_PG_BINDIR "/postgres",
                          "-D",
                          c->pg_dir,
                          "-c",
                          "listen_addresses=",
                          "-c",
                          "port=5432",
                          "-c",
                          "unix_socket_permissions=0777",
                          "-c",
                          socket_arg,
                          NULL};
    pid_t pid = cluster_spawn(c, (char *const *)argv, err);
    free(socket_arg);
    if (pid < 0)
        return -1;
    c->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (c->pidfd < 0) {
        int saved = errno;
        kill(pid, SIGQUIT);
        waitpid(pid, NULL, 0);
        return err_sys(err, saved, "pidfd_open");
    }
    c->pid = pid;
    c->started_us = clock_boot_us();
    return 0;
}

/* true: it has ended, and is forgotten. */
static bool reap(struct cluster *c)
{
    int status;
    if (c->pid == 0)
        return true;
    pid_t got = waitpid(c->pid, &status, WNOHANG);
    if (got != c->pid && !(got < 0 && errno == ECHILD))
        return false;
    close(c->pidfd);
    c->pidfd = -1;
    c->pid = 0;
    return true;
}

/* ---- supervision -------------------------------------------------------------- */

static void on_exit_event(evutil_socket_t fd, short what, void *arg);

static void watch_child(struct cluster *c)
{
    if (c->base == NULL)
        return;
    c->ev_exit = event_new(c->base, c->pidfd, EV_READ, on_exit_event, c);
    if (c->ev_exit == NULL)
        abort();
    event_add(c->ev_exit, NULL);
}

static void restart_later(struct cluster *c)
{
    if (clock_boot_us() - c->started_us > STABLE_US)
        c->backoff_us = BACKOFF_MIN_US;
    struct timeval tv = {.tv_sec = c->backoff_us / 1000000,
                         .tv_usec = c->backoff_us % 1000000};
    event_add(c->ev_restart, &tv);
    c->backoff_us =
        c->backoff_us * 2 > BACKOFF_MAX_US ? BACKOFF_MAX_US : c->backoff_us * 2;
}

static void on_exit_event(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct cluster *c = arg;
    event_free(c->ev_exit);
    c->ev_exit = NULL;
    if (!reap(c)) { /* not ended after all */
        watch_child(c);
        return;
    }
    log_error("the database stopped: see %s; starting it again", c->log_path);
    restart_later(c);
}

static void on_restart(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    struct cluster *c = arg;
    struct err err;
    c->restarts++;
    if (spawn_postgres(c, &err) != 0) {
        log_error("the database does not start: %s", err.text);
        restart_later(c);
        return;
    }
    watch_child(c);
}

/* ---- start and stop ----------------------------------------------------------- */

char *cluster_conninfo(const struct cluster *c, const char *role)
{
    /* The directory in quotes; backslash and quote escaped. */
    char *dir = xmalloc(strlen(c->socket_dir) * 2 + 1), *to = dir;
    for (const char *p = c->socket_dir; *p != '\0'; p++) {
        if (*p == '\'' || *p == '\\')
            *to++ = '\\';
        *to++ = *p;
    }
    *to = '\0';
    char *info = xasprintf("host='%s' port=5432 dbname=%s user=%s", dir,
                           strcmp(role, "") == 0 ? "postgres" : CLUSTER_DATABASE,
                           strcmp(role, "") == 0 ? CLUSTER_ADMIN : role);
    free(dir);
    return info;
}

/* 1: it answers; 0: it ended by itself; -1: it takes too long. */
static int wait_ready(struct cluster *c)
{
    char *info = cluster_conninfo(c, "");
    int64_t end_us = clock_boot_us() + START_MS * INT64_C(1000);
    int rc = -1;
    while (clock_boot_us() < end_us) {
        if (reap(c)) {
            rc = 0;
            break;
        }
        if (PQping(info) == PQPING_OK) {
            rc = 1;
            break;
        }
        cluster_pause_ms(30);
    }
    free(info);
    return rc;
}

/* Several tries: the backends of a postmaster that was killed need a moment to notice
 * and let go of the shared memory. */
static int run_postgres(struct cluster *c, struct err *err)
{
    for (int i = 0; i < START_TRIES; i++) {
        if (i > 0)
            cluster_pause_ms(250 * i);
        if (cluster_dir_clear(c, err) != 0 || spawn_postgres(c, err) != 0)
            return -1;
        int rc = wait_ready(c);
        if (rc == 1)
            return 0;
        if (rc < 0)
            return err_set(err, ERR_TIMEOUT, "the database does not answer: see %s",
                           c->log_path);
    }
    return err_set(err, ERR_IO, "the database does not start: see %s", c->log_path);
}

static int make_database(const struct cluster *c, struct err *err)
{
    char *info = cluster_conninfo(c, "");
    PGconn *pg = PQconnectdb(info);
    int rc = 0;
    free(info);
    PGresult *r =
        PQexec(pg, "SELECT FROM pg_database WHERE datname = '" CLUSTER_DATABASE "'");
    if (PQresultStatus(r) == PGRES_TUPLES_OK && PQntuples(r) == 0) {
        PQclear(r);
        r = PQexec(pg, "CREATE DATABASE " CLUSTER_DATABASE);
    }
    if (PQresultStatus(r) != PGRES_TUPLES_OK && PQresultStatus(r) != PGRES_COMMAND_OK)
        rc = err_set(err, ERR_IO, "making the database: %s", PQerrorMessage(pg));
    PQclear(r);
    PQfinish(pg);
    return rc;
}

static int take_lock(struct cluster *c, struct err *err)
{
    char *path = xasprintf("%s/pg.lock", c->data_dir);
    int rc = 0;
    if (fsx_mkdirs(c->data_dir, 0711, err) != 0)
        rc = -1;
    else if ((c->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) < 0)
        rc = err_sys(err, errno, "opening %s", path);
    else if (flock(c->lock_fd, LOCK_EX | LOCK_NB) != 0)
        rc = err_set(err, ERR_CONFLICT,
                     "another server runs with the data directory %s", c->data_dir);
    free(path);
    return rc;
}

static int find_user(struct cluster *c, const char *name, struct err *err)
{
    c->drop = geteuid() == 0;
    errno = 0;
    const struct passwd *pw =
        c->drop ? getpwnam(name != NULL ? name : "postgres") : getpwuid(geteuid());
    if (pw == NULL)
        return err_set(err, ERR_NOT_FOUND,
                       "there is no system user %s to run the database as: install "
                       "postgresql, or name another in cluster_user",
                       name != NULL ? name : "postgres");
    if (c->drop && pw->pw_uid == 0)
        return err_set(err, ERR_USAGE,
                       "the database cannot run as root: name another "
                       "system user in cluster_user");
    c->user = xstrdup(pw->pw_name);
    c->uid = pw->pw_uid;
    c->gid = pw->pw_gid;
    return 0;
}

static void release(struct cluster *c)
{
    if (c->ev_exit != NULL)
        event_free(c->ev_exit);
    if (c->ev_restart != NULL)
        event_free(c->ev_restart);
    if (c->pidfd >= 0)
        close(c->pidfd);
    if (c->lock_fd >= 0)
        close(c->lock_fd);
    free(c->data_dir);
    free(c->pg_dir);
    free(c->socket_dir);
    free(c->log_path);
    free(c->user);
    free(c);
}

static int start(struct cluster *c, const struct cluster_opts *opts, struct err *err)
{
    if (access(NEARGPU_PG_BINDIR "/postgres", X_OK) != 0)
        return err_sys(err, errno,
                       NEARGPU_PG_BINDIR "/postgres (install postgresql-15)");
    if (find_user(c, opts->user, err) != 0 || take_lock(c, err) != 0)
        return -1;
    char *real = realpath(c->data_dir, NULL);
    if (real != NULL) {
        free(c->data_dir);
        c->data_dir = real;
    }
    c->pg_dir = xasprintf("%s/pg", c->data_dir);
    c->log_path = xasprintf("%s/pg.log", c->data_dir);
    if (cluster_dir_prepare(c, err) != 0 || run_postgres(c, err) != 0 ||
        make_database(c, err) != 0)
        return -1;
    if (c->base != NULL) {
        c->ev_restart = event_new(c->base, -1, 0, on_restart, c);
        if (c->ev_restart == NULL)
            abort();
        watch_child(c);
    }
    return 0;
}

int cluster_start(const struct cluster_opts *opts, struct cluster **ret,
                  struct err *err)
{
    struct cluster *c = xcalloc(1, sizeof *c);
    c->data_dir = xstrdup(opts->data_dir);
    c->no_sync = opts->no_sync;
    c->shared_buffers_mib =
        opts->shared_buffers_mib > 0 ? opts->shared_buffers_mib : 256;
    c->base = opts->base;
    c->lock_fd = c->pidfd = -1;
    c->backoff_us = BACKOFF_MIN_US;
    if (start(c, opts, err) != 0) {
        cluster_stop(c);
        return err_prefix(err, "private database in %s", opts->data_dir);
    }
    *ret = c;
    return 0;
}

void cluster_stop(struct cluster *c)
{
    if (c == NULL)
        return;
    static const int signals[] = {SIGINT, SIGQUIT, SIGKILL};
    for (size_t i = 0; c->pid != 0 && i < 3; i++) {
        struct pollfd p = {.fd = c->pidfd, .events = POLLIN};
        kill(c->pid, signals[i]);
        int64_t end_us = clock_boot_us() + STOP_MS * INT64_C(1000);
        while (!reap(c) && clock_boot_us() < end_us)
            if (poll(&p, 1, 200) < 0 && errno != EINTR)
                break;
    }
    char *run = xasprintf("%s/run", c->data_dir);
    struct err err;
    if (c->socket_dir != NULL && strcmp(run, c->socket_dir) != 0 &&
        fsx_remove_tree(c->socket_dir, &err) != 0)
        log_warn("%s", err.text);
    free(run);
    release(c);
}

int64_t cluster_restarts(const struct cluster *c)
{
    return c->restarts;
}

int cluster_pid(const struct cluster *c)
{
    return c->pid;
}
