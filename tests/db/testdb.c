/* testdb: see the header. Blocking, single-threaded, for tests only. */
#include "tests/db/testdb.h"

#include <assert.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"

struct testdb {
    char *dir, *data, *conninfo;
    pid_t postmaster;
    pid_t owner; /* the process that removes it */
    uid_t uid;
    gid_t gid;
};
static struct testdb *last; /* for atexit */

/* Becomes the system user and runs argv with its output in log. */
static pid_t spawn(struct testdb *c, char *const argv[])
{
    pid_t pid = fork();
    assert(pid >= 0);
    if (pid > 0)
        return pid;
    char *log = xasprintf("%s/log", c->dir);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd < 0 || dup2(fd, 1) < 0 || dup2(fd, 2) < 0)
        _exit(126);
    if (geteuid() == 0 && (initgroups("postgres", c->gid) != 0 || setgid(c->gid) != 0 ||
                           setuid(c->uid) != 0))
        _exit(126);
    prctl(PR_SET_PDEATHSIG, SIGQUIT);
    if (chdir(c->dir) != 0)
        _exit(126);
    execv(argv[0], argv);
    _exit(127);
}

static void show_log(struct testdb *c)
{
    struct err err;
    char *text, *path = xasprintf("%s/log", c->dir);
    if (fsx_read(path, 1 << 20, &text, NULL, &err) == 0) {
        fputs(text, stderr);
        free(text);
    }
    free(path);
}

static void at_exit(void)
{
    if (last != NULL)
        testdb_remove(last);
}

static void run_initdb(struct testdb *c)
{
    char *argv[] = {(char *)NEARGPU_PG_BINDIR "/initdb",
                    (char *)"-D",
                    c->data,
                    (char *)"--no-sync",
                    (char *)"-A",
                    (char *)"trust",
                    (char *)"-U",
                    (char *)"postgres",
                    (char *)"-E",
                    (char *)"UTF8",
                    (char *)"--locale=C",
                    NULL};
    int status;
    pid_t pid = spawn(c, argv);
    if (waitpid(pid, &status, 0) != pid || status != 0) {
        show_log(c);
        exit(1);
    }
}

void testdb_again(struct testdb *c)
{
    char *socket_arg = xasprintf("unix_socket_directories=%s", c->dir);
    char *argv[] = {(char *)NEARGPU_PG_BINDIR "/postgres",
                    (char *)"-D",
                    c->data,
                    (char *)"-c",
                    (char *)"listen_addresses=",
                    (char *)"-c",
                    socket_arg,
                    (char *)"-c",
                    (char *)"fsync=off",
                    (char *)"-c",
                    (char *)"shared_buffers=64MB",
                    (char *)"-c",
                    (char *)"jit=off",
                    (char *)"-c",
                    (char *)"max_connections=40",
                    NULL};
    c->postmaster = spawn(c, argv);
    free(socket_arg);
    for (int i = 0; i < 600; i++) {
        PGconn *pg = PQconnectdb(testdb_conninfo(c, "postgres", "postgres"));
        bool ok = PQstatus(pg) == CONNECTION_OK;
        PQfinish(pg);
        if (ok)
            return;
        if (waitpid(c->postmaster, NULL, WNOHANG) == c->postmaster)
            break;
        nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    }
    show_log(c);
    exit(1);
}

struct testdb *testdb_start(void)
{
    if (access(NEARGPU_PG_BINDIR "/initdb", X_OK) != 0) {
        fprintf(stderr, "skipped: no PostgreSQL in %s\n", NEARGPU_PG_BINDIR);
        exit(77);
    }
    struct testdb *c = xcalloc(1, sizeof *c);
    const char *tmp = getenv("TMPDIR");
    c->dir = xasprintf("%s/ngdb.XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(c->dir) == NULL)
        abort();
    c->data = xasprintf("%s/pg", c->dir);
    c->owner = getpid();
    if (geteuid() == 0) {
        const struct passwd *pw = getpwnam("postgres");
        assert(pw != NULL);
        c->uid = pw->pw_uid;
        c->gid = pw->pw_gid;
        if (chown(c->dir, c->uid, c->gid) != 0)
            abort();
    }
    last = c;
    atexit(at_exit);
    run_initdb(c);
    testdb_again(c);
    return c;
}

void testdb_kill(struct testdb *c)
{
    kill(c->postmaster, SIGQUIT);
    waitpid(c->postmaster, NULL, 0);
    c->postmaster = 0;
}

void testdb_remove(struct testdb *c)
{
    if (c->owner != getpid())
        return; /* a forked child of the test */
    last = NULL;
    if (c->postmaster > 0)
        testdb_kill(c);
    struct err err;
    if (fsx_remove_tree(c->dir, &err) != 0)
        fprintf(stderr, "%s\n", err.text);
    free(c->dir);
    free(c->data);
    free(c->conninfo);
    free(c);
}

const char *testdb_conninfo(struct testdb *c, const char *user, const char *dbname)
{
    free(c->conninfo);
    c->conninfo = xasprintf("host=%s user=%s dbname=%s", c->dir, user, dbname);
    return c->conninfo;
}

PGconn *testdb_connect(struct testdb *c, const char *user, const char *dbname)
{
    PGconn *pg = PQconnectdb(testdb_conninfo(c, user, dbname));
    if (PQstatus(pg) != CONNECTION_OK) {
        fprintf(stderr, "%s", PQerrorMessage(pg));
        abort();
    }
    return pg;
}

void testdb_sql(PGconn *pg, const char *sql)
{
    PGresult *r = PQexec(pg, sql);
    ExecStatusType st = PQresultStatus(r);
    if (st != PGRES_COMMAND_OK && st != PGRES_TUPLES_OK) {
        fprintf(stderr, "%s\n%s", sql, PQerrorMessage(pg));
        abort();
    }
    PQclear(r);
}

char *testdb_one(PGconn *pg, const char *sql)
{
    PGresult *r = PQexec(pg, sql);
    if (PQresultStatus(r) != PGRES_TUPLES_OK) {
        fprintf(stderr, "%s\n%s", sql, PQerrorMessage(pg));
        abort();
    }
    char *out = xstrdup(PQntuples(r) > 0 ? PQgetvalue(r, 0, 0) : "");
    PQclear(r);
    return out;
}

const char *testdb_state(PGconn *pg, const char *sql)
{
    static char state[6];
    PGresult *r = PQexec(pg, sql);
    const char *s = PQresultErrorField(r, PG_DIAG_SQLSTATE);
    memcpy(state, s != NULL ? s : "00000", 6);
    PQclear(r);
    return state;
}
