/* cluster_dir: the cluster's directories and files, and what a predecessor left there.
 */
#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/log.h"
#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"
#include "server/db/cluster_priv.h"

#define SOCKET_NAME    "/.s.PGSQL.5432"
#define SHORT_PREFIX   "/tmp/neargpu."
#define STOP_FAST_MS   30000
#define STOP_KILL_MS   10000
#define LOG_ROTATE_MAX (16 << 20)

/* ---- where the socket is ------------------------------------------------------ */

static bool socket_fits(const char *dir)
{
    return strlen(dir) + strlen(SOCKET_NAME) <
           sizeof(((struct sockaddr_un *)0)->sun_path);
}

/* A data directory with a long name has its socket in a short one, named in a file. */
char *cluster_socket_dir(const char *data_dir)
{
    char *dir = xasprintf("%s/run", data_dir);
    if (socket_fits(dir))
        return dir;
    free(dir);
    char *text, *path = xasprintf("%s/socket_dir", data_dir);
    struct err err;
    int rc = fsx_read(path, 200, &text, NULL, &err);
    free(path);
    if (rc != 0)
        return xstrdup(data_dir);
    text[strcspn(text, "\n")] = '\0';
    return text;
}

static int make_short_dir(struct cluster *c, struct err *err)
{
    char *path = xasprintf("%s/socket_dir", c->data_dir);
    char *old = cluster_socket_dir(c->data_dir);
    if (strncmp(old, SHORT_PREFIX, strlen(SHORT_PREFIX)) == 0 &&
        fsx_remove_tree(old, err) != 0)
        log_debug("%s", err->text);
    free(old);
    c->socket_dir = xstrdup(SHORT_PREFIX "XXXXXX");
    int rc = mkdtemp(c->socket_dir) == NULL
                 ? err_sys(err, errno, "making %s", c->socket_dir)
                 : fsx_write(path, c->socket_dir, strlen(c->socket_dir), 0644, err);
    free(path);
    return rc;
}

/* ---- directories -------------------------------------------------------------- */

static int own(const struct cluster *c, const char *path, mode_t mode, struct err *err)
{
    if (c->drop && lchown(path, c->uid, c->gid) != 0)
        return err_sys(err, errno, "giving %s to %s", path, c->user);
    if (chmod(path, mode) != 0)
        return err_sys(err, errno, "setting the mode of %s", path);
    return 0;
}

/* Can the cluster's user reach the data directory? Asked as that user. */
static bool can_search(const struct cluster *c)
{
    pid_t pid = fork();
    if (pid == 0) {
        bool ok = setgid(c->gid) == 0 && setuid(c->uid) == 0 &&
                  access(c->data_dir, X_OK) == 0;
        _exit(ok ? 0 : 1);
    }
    int status = 1;
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static int make_dirs(struct cluster *c, struct err *err)
{
    struct stat st;
    if (fsx_mkdirs(c->data_dir, 0711, err) != 0)
        return -1;
    if (c->drop) {
        if (stat(c->data_dir, &st) != 0)
            return err_sys(err, errno, "%s", c->data_dir);
        if ((st.st_mode & 0001) == 0 && chmod(c->data_dir, st.st_mode | 0011) != 0)
            return err_sys(err, errno, "letting %s into %s", c->user, c->data_dir);
        c->search = !can_search(c);
        if (c->search)
            log_warn("user %s cannot pass a directory above %s: the database is given "
                     "the right to pass all (chmod o+x them to avoid it)",
                     c->user, c->data_dir);
    }
    char *run = xasprintf("%s/run", c->data_dir);
    int rc = fsx_mkdirs(run, 0755, err);
    if (rc == 0)
        rc = own(c, run, 0755, err);
    if (rc == 0 && !socket_fits(run)) {
        free(run);
        rc = make_short_dir(c, err);
        return rc == 0 ? own(c, c->socket_dir, 0755, err) : rc;
    }
    if (rc != 0) {
        free(run);
        return -1;
    }
    c->socket_dir = run;
    return 0;
}

static void rotate_log(const struct cluster *c)
{
    struct stat st;
    char *old = xasprintf("%s.1", c->log_path);
    if (stat(c->log_path, &st) == 0 && st.st_size > LOG_ROTATE_MAX &&
        rename(c->log_path, old) != 0)
        log_warn("%s is not rotated: %s", c->log_path, strerror(errno));
    free(old);
}

/* ---- initdb ------------------------------------------------------------------- */

static int run_initdb(struct cluster *c, const char *dir, struct err *err)
{
    const char *argv[] = {NEARGPU_PG_BINDIR "/initdb",
                          "-D",
                          dir,
                          "-U",
                          CLUSTER_ADMIN,
                          "-A",
                          "peer",
                          "-E",
                          "UTF8",
                          "--locale=C",
                          "--data-checksums",
                          c->no_sync ? "--no-sync" : NULL,
                          NULL};
    int status;
    pid_t pid = cluster_spawn(c, (char *const *)argv, err);
    if (pid < 0)
        return -1;
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return err_sys(err, errno, "waiting for initdb");
    if (status != 0)
        return err_set(err, ERR_IO, "initdb failed: see %s", c->log_path);
    return 0;
}

static int write_conf(const struct cluster *c, const char *dir, struct err *err)
{
    struct strbuf b = STRBUF_INIT;
    strbuf_addf(&b,
                "# Written once, when the cluster was made: yours to change.\n"
                "# Socket, addresses and who may connect are set by neargpud.\n"
                "shared_buffers = %dMB\n"
                "max_connections = 100\n"
                "wal_compression = lz4\n"
                "jit = off\n"
                "synchronous_commit = on\n"
                "min_wal_size = 1GB\n"
                "max_wal_size = 2GB\n"
                "checkpoint_timeout = 15min\n"
                "random_page_cost = 1.5\n"
                "timezone = 'UTC'\n"
                "log_timezone = 'UTC'\n"
                "log_min_messages = warning\n"
                "log_line_prefix = '%%m [%%p] %%q%%u '\n"
                "log_checkpoints = off\n"
                "password_encryption = 'scram-sha-256'\n",
                c->shared_buffers_mib);
    if (c->no_sync)
        strbuf_adds(&b, "fsync = off\n");
    char *path = xasprintf("%s/postgresql.conf", dir);
    int rc = fsx_write(path, strbuf_str(&b), b.len, 0600, err);
    if (rc == 0)
        rc = own(c, path, 0600, err);
    free(path);
    strbuf_done(&b);
    return rc;
}

/* Beside its place, then a rename: killed halfway, the next start begins anew. */
static int make_cluster(struct cluster *c, struct err *err)
{
    char *fresh = xasprintf("%s/pg.new", c->data_dir);
    int rc = fsx_remove_tree(fresh, err);
    if (rc == 0 && mkdir(fresh, 0700) != 0)
        rc = err_sys(err, errno, "making %s", fresh);
    if (rc == 0)
        rc = own(c, fresh, 0700, err);
    if (rc == 0) {
        log_info("making the database in %s", c->pg_dir);
        rc = run_initdb(c, fresh, err);
    }
    if (rc == 0)
        rc = write_conf(c, fresh, err);
    if (rc == 0 && rename(fresh, c->pg_dir) != 0)
        rc = err_sys(err, errno, "renaming %s", fresh);
    free(fresh);
    return rc;
}

/* ---- who may connect ---------------------------------------------------------- */

static void add_user(struct strbuf *b, const char *os_user)
{
    static const char *const roles[] = {CLUSTER_ADMIN, "neargpu_server",
                                        "neargpu_billd", "neargpu_report"};
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        strbuf_addf(b, "neargpu \"%s\" %s\n", os_user, roles[i]);
}

static int write_access(const struct cluster *c, struct err *err)
{
    static const char hba[] = "# Written by neargpud at each start.\n"
                              "local all all peer map=neargpu\n";
    struct strbuf ident = STRBUF_INIT;
    char *hba_path = xasprintf("%s/pg_hba.conf", c->pg_dir);
    char *ident_path = xasprintf("%s/pg_ident.conf", c->pg_dir);
    strbuf_adds(&ident, "# Written by neargpud at each start.\n");
    add_user(&ident, "root");
    if (strcmp(c->user, "root") != 0)
        add_user(&ident, c->user);
    int rc = fsx_write(hba_path, hba, strlen(hba), 0600, err);
    if (rc == 0)
        rc = own(c, hba_path, 0600, err);
    if (rc == 0)
        rc = fsx_write(ident_path, strbuf_str(&ident), ident.len, 0600, err);
    if (rc == 0)
        rc = own(c, ident_path, 0600, err);
    free(hba_path);
    free(ident_path);
    strbuf_done(&ident);
    return rc;
}

int cluster_dir_prepare(struct cluster *c, struct err *err)
{
    struct stat st;
    if (make_dirs(c, err) != 0)
        return -1;
    rotate_log(c);
    if (stat(c->pg_dir, &st) != 0 && make_cluster(c, err) != 0)
        return -1;
    return write_access(c, err);
}

/* ---- what a predecessor left -------------------------------------------------- */

void cluster_pause_ms(int ms)
{
    struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    while (nanosleep(&ts, &ts) != 0 && errno == EINTR)
        ;
}

/* Is process pid a postgres working in this directory? The file may be years old and
 * the number long given to another. */
static bool is_ours(const struct cluster *c, pid_t pid)
{
    char link[64], target[4096];
    struct stat a, b;
    snprintf(link, sizeof link, "/proc/%d/exe", (int)pid);
    ssize_t n = readlink(link, target, sizeof target - 1);
    if (n <= 0)
        return false;
    target[n] = '\0';
    const char *name = strrchr(target, '/');
    snprintf(link, sizeof link, "/proc/%d/cwd", (int)pid);
    return name != NULL && strncmp(name, "/postgres", 9) == 0 && stat(link, &a) == 0 &&
           stat(c->pg_dir, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static bool wait_gone(const struct cluster *c, pid_t pid, int ms)
{
    int64_t end_us = clock_boot_us() + ms * INT64_C(1000);
    while (is_ours(c, pid)) {
        if (clock_boot_us() > end_us)
            return false;
        cluster_pause_ms(50);
    }
    return true;
}

int cluster_dir_clear(struct cluster *c, struct err *err)
{
    char *text, *path = xasprintf("%s/postmaster.pid", c->pg_dir);
    int rc = fsx_read(path, 4096, &text, NULL, err);
    if (rc != 0) {
        free(path);
        return err->code == ERR_NOT_FOUND ? 0 : -1;
    }
    pid_t pid = (pid_t)strtol(text, NULL, 10);
    free(text);
    rc = 0;
    if (pid > 1 && is_ours(c, pid)) {
        /* We hold the lock of the directory, so its server is gone. */
        log_info("waiting for the database of the server before (process %d)",
                 (int)pid);
        kill(pid, SIGINT);
        if (!wait_gone(c, pid, STOP_FAST_MS)) {
            kill(pid, SIGQUIT);
            if (!wait_gone(c, pid, STOP_KILL_MS))
                rc = err_set(err, ERR_CONFLICT,
                             "the database process %d of %s does not stop", (int)pid,
                             c->pg_dir);
        }
    } else if (unlink(path) != 0 && errno != ENOENT) {
        rc = err_sys(err, errno, "removing %s", path);
    }
    free(path);
    return rc;
}
