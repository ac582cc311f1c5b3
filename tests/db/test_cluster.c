/* The private cluster and the migrator: first start, restarts, crashes of everything,
 * two servers at once, edited migrations. */
#include <event2/event.h>
#include <libpq-fe.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"
#include "server/db/cluster.h"
#include "server/db/cluster_priv.h"
#include "server/db/migrate.h"
#include "tests/unit/unit.h"

static char *dir; /* data directory; made by the first case, kept by those after */
static struct err err;

#define OK(call) ck_assert_msg((call) == 0, "%s: %s", #call, err.text)

static struct cluster *start(struct event_base *base)
{
    struct cluster *c = NULL;
    struct cluster_opts o = {
        .data_dir = dir, .shared_buffers_mib = 32, .no_sync = true, .base = base};
    OK(cluster_start(&o, &c, &err));
    return c;
}

static int migrate(const struct cluster *c, const uint8_t *key,
                   const struct sqlfile *files, struct migrate_result *ret)
{
    char *info = cluster_conninfo(c, CLUSTER_ADMIN);
    struct migrate_opts o = {.conninfo = info,
                             .market_name = "test.local",
                             .currency = "JPY",
                             .issuer_name = "Test",
                             .fee_ppm = 50000,
                             .tax_ppm = 100000,
                             .admin_key_hash = key,
                             .files = files};
    int rc = migrate_run(&o, ret, &err);
    free(info);
    return rc;
}

static char *ask(const struct cluster *c, const char *role, const char *sql)
{
    char *info = cluster_conninfo(c, role);
    PGconn *pg = PQconnectdb(info);
    free(info);
    PGresult *r = PQexec(pg, sql);
    char *out;
    if (PQresultStatus(r) == PGRES_TUPLES_OK && PQntuples(r) > 0)
        out = xstrdup(PQgetvalue(r, 0, 0));
    else
        out = xasprintf("error: %s", PQerrorMessage(pg));
    PQclear(r);
    PQfinish(pg);
    return out;
}

#define ASK(c, role, sql, want)        \
    do {                               \
        char *got = ask(c, role, sql); \
        ck_assert_str_eq(got, want);   \
        free(got);                     \
    } while (0)

START_TEST(test_first_start)
{
    struct cluster *c = start(NULL);
    struct migrate_result r;
    uint8_t key[SHA256_LEN] = {1}, other[SHA256_LEN] = {2};
    OK(migrate(c, key, NULL, &r));
    ck_assert_int_gt(r.applied, 0);
    ck_assert(r.functions && r.market_made && r.admin_key_kept);
    OK(migrate(c, other, NULL, &r)); /* a second time changes nothing */
    ck_assert_int_eq(r.applied, 0);
    ck_assert(!r.functions && !r.market_made && !r.admin_key_kept);
    OK(migrate(c, key, NULL, &r));
    ck_assert(r.admin_key_kept);
    ASK(c, CLUSTER_ADMIN, "SELECT count(*) FROM ng.api_key", "1");
    ASK(c, CLUSTER_ADMIN, "SHOW data_checksums", "on");
    ASK(c, CLUSTER_ADMIN, "SHOW listen_addresses", "");
    ASK(c, "neargpu_server", "SELECT api.market()->>'currency'", "JPY");
    ASK(c, "neargpu_report", "SHOW transaction_read_only", "on");
    struct stat st;
    char *pg = xasprintf("%s/pg", dir);
    ck_assert_int_eq(stat(pg, &st), 0);
    ck_assert_int_eq(st.st_mode & 0777, 0700);
    ck_assert(geteuid() != 0 || st.st_uid != 0);
    free(pg);
    cluster_stop(c);
}
END_TEST

START_TEST(test_second_server_refused)
{
    struct cluster *c = start(NULL), *second = NULL;
    struct cluster_opts o = {.data_dir = dir};
    ck_assert_int_eq(cluster_start(&o, &second, &err), -1);
    ck_assert_int_eq(err.code, ERR_CONFLICT);
    ASK(c, "neargpu_server", "SELECT 1", "1");
    cluster_stop(c);
}
END_TEST

START_TEST(test_edited_migration_refused)
{
    struct cluster *c = start(NULL);
    struct migrate_result r;
    size_t n = 0;
    while (sqlfiles[n].path != NULL)
        n++;
    struct sqlfile *files = xcalloc(n + 3, sizeof(*files)); /* two more and an end */
    memcpy(files, sqlfiles, n * sizeof(*files));
    files[n] = (struct sqlfile){"sql/migrations/9999_more.sql",
                                "CREATE TABLE ng.more (i int);"};
    files[n + 1] = (struct sqlfile){NULL, NULL};
    OK(migrate(c, NULL, files, &r));
    ck_assert_int_eq(r.applied, 1);
    files[n].text = "CREATE TABLE ng.more (i bigint);";
    ck_assert_int_eq(migrate(c, NULL, files, &r), -1);
    ck_assert_int_eq(err.code, ERR_CONFLICT);
    ck_assert_ptr_nonnull(strstr(err.text, "9999_more"));
    /* An older program does not know it. */
    ck_assert_int_eq(migrate(c, NULL, NULL, &r), -1);
    ck_assert_int_eq(err.code, ERR_CONFLICT);
    /* One that fails leaves nothing, not even the part before it. */
    files[n].text = "CREATE TABLE ng.more (i int);";
    files[n + 1] = (struct sqlfile){"sql/migrations/9999_z.sql",
                                    "CREATE TABLE ng.half (i int); SELECT 1 / 0;"};
    files[n + 2] = (struct sqlfile){NULL, NULL};
    ck_assert_int_eq(migrate(c, NULL, files, &r), -1);
    ASK(c, CLUSTER_ADMIN, "SELECT to_regclass('ng.half') IS NULL", "t");
    ASK(c, CLUSTER_ADMIN,
        "WITH x AS (DELETE FROM public.neargpu_migration WHERE name LIKE '%9999%' "
        "RETURNING 1) SELECT count(*) FROM x",
        "1");
    free(files);
    cluster_stop(c);
}
END_TEST

START_TEST(test_many_migrate_at_once)
{
    struct cluster *c = start(NULL);
    ASK(c, CLUSTER_ADMIN,
        "WITH x AS (DELETE FROM public.neargpu_migration WHERE name = 'functions' "
        "RETURNING 1) SELECT count(*) FROM x",
        "1");
    pid_t pids[4];
    for (int i = 0; i < 4; i++) {
        pids[i] = fork();
        if (pids[i] == 0) {
            struct migrate_result r;
            _exit(migrate(c, NULL, NULL, &r) == 0 ? 10 + r.functions : 1);
        }
    }
    int applied = 0;
    for (int i = 0; i < 4; i++) {
        int status;
        ck_assert_int_eq(waitpid(pids[i], &status, 0), pids[i]);
        ck_assert_int_ge(WEXITSTATUS(status), 10);
        applied += WEXITSTATUS(status) - 10;
    }
    ck_assert_int_eq(applied, 1);
    cluster_stop(c);
}
END_TEST

static void turn_until_restarted(struct event_base *base, struct cluster *c)
{
    int64_t end_us = clock_boot_us() + 20000000;
    while (cluster_restarts(c) == 0 && clock_boot_us() < end_us)
        event_base_loop(base, EVLOOP_ONCE);
}

START_TEST(test_restarted_when_it_dies)
{
    struct event_base *base = event_base_new();
    struct cluster *c = start(base);
    int pid = cluster_pid(c);
    ASK(c, CLUSTER_ADMIN,
        "WITH x AS (INSERT INTO ng.site (name, city, lat, lon, residency) VALUES "
        "('kept', 'Kept', 1, 1, 'jp') ON CONFLICT DO NOTHING RETURNING 1) SELECT "
        "count(*) FROM x",
        "1");
    kill(pid, SIGKILL);
    turn_until_restarted(base, c);
    ck_assert_int_ge(cluster_restarts(c), 1);
    char *got = NULL;
    for (int i = 0; i < 200; i++) {
        event_base_loop(base, EVLOOP_NONBLOCK);
        free(got);
        got = ask(c, CLUSTER_ADMIN, "SELECT count(*) FROM ng.site WHERE name = 'kept'");
        if (strcmp(got, "1") == 0)
            break;
        cluster_pause_ms(50);
    }
    ck_assert_str_eq(got, "1");
    ck_assert_int_ne(cluster_pid(c), pid);
    free(got);
    cluster_stop(c);
    event_base_free(base);
}
END_TEST

/* A server in a process of its own; tells its postmaster's number, then waits. */
static pid_t fork_server(int *ret_postmaster)
{
    int p[2];
    ck_assert_int_eq(pipe(p), 0);
    pid_t pid = fork();
    if (pid == 0) {
        close(p[0]);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        struct cluster *c = NULL;
        struct cluster_opts o = {
            .data_dir = dir, .shared_buffers_mib = 32, .no_sync = true};
        if (cluster_start(&o, &c, &err) != 0)
            _exit(1);
        int n = cluster_pid(c);
        if (write(p[1], &n, sizeof n) != sizeof n)
            _exit(1);
        for (;;)
            pause();
    }
    close(p[1]);
    ck_assert_int_eq(read(p[0], ret_postmaster, sizeof(int)), sizeof(int));
    close(p[0]);
    return pid;
}

/* Not a zombie either: who adopts it may be slow to take it away. */
static bool runs(int pid)
{
    char link[64], target[8];
    snprintf(link, sizeof link, "/proc/%d/exe", pid);
    return readlink(link, target, sizeof target) > 0;
}

START_TEST(test_server_killed)
{
    /* kill -9 of the server: its database goes too, and a start meanwhile waits. */
    int postmaster;
    pid_t server = fork_server(&postmaster);
    ck_assert(runs(postmaster));
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    struct cluster *c = start(NULL);
    ck_assert(!runs(postmaster));
    ASK(c, "neargpu_server", "SELECT api.market()->>'currency'", "JPY");
    cluster_stop(c);
}
END_TEST

START_TEST(test_everything_killed)
{
    int postmaster;
    pid_t server = fork_server(&postmaster);
    kill(postmaster, SIGKILL);
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    struct cluster *c = start(NULL);
    ASK(c, "neargpu_server", "SELECT api.market()->>'currency'", "JPY");
    cluster_stop(c);
}
END_TEST

START_TEST(test_stale_pid_file)
{
    /* The number in postmaster.pid belongs to another program now: us. */
    char *path = xasprintf("%s/pg/postmaster.pid", dir);
    char *text = xasprintf("%d\n%s/pg\n", (int)getpid(), dir);
    OK(fsx_write(path, text, strlen(text), 0600, &err));
    struct cluster *c = start(NULL);
    ASK(c, "neargpu_server", "SELECT 1", "1");
    cluster_stop(c);
    free(path);
    free(text);
}
END_TEST

START_TEST(test_half_made)
{
    /* initdb was killed: what it left beside is thrown away. */
    char *whole = dir, *half;
    dir = xasprintf("%s-half", whole);
    half = xasprintf("%s/pg.new/base", dir);
    OK(fsx_mkdirs(half, 0700, &err));
    struct cluster *c = start(NULL);
    cluster_stop(c);
    ck_assert_int_ne(access(half, F_OK), 0);
    OK(fsx_remove_tree(dir, &err));
    free(half);
    free(dir);
    dir = whole;
}
END_TEST

START_TEST(test_deep_directory)
{
    /* Longer than a socket's address may be, and below a directory closed to others. */
    char *whole = dir, *parent = xasprintf("%s-deep", whole);
    dir = xasprintf("%s/%0100d", parent, 7);
    OK(fsx_mkdirs(parent, 0700, &err));
    struct cluster *c = start(NULL);
    ASK(c, CLUSTER_ADMIN, "SELECT 1", "1");
    char *socket_dir = cluster_socket_dir(dir);
    char *info = cluster_conninfo(c, CLUSTER_ADMIN);
    ck_assert_ptr_nonnull(strstr(info, socket_dir));
    free(info);
    cluster_stop(c);
    ck_assert_int_ne(access(socket_dir, F_OK), 0);
    OK(fsx_remove_tree(parent, &err));
    free(socket_dir);
    free(parent);
    free(dir);
    dir = whole;
}
END_TEST

int main(void)
{
    if (access(NEARGPU_PG_BINDIR "/initdb", X_OK) != 0)
        return 77;
    setenv("CK_FORK", "no", 1);
    char top[] = "/tmp/ngcluster.XXXXXX";
    if (mkdtemp(top) == NULL)
        return 1;
    if (chmod(top, 0711) != 0)
        return 1;
    dir = xasprintf("%s/data", top);
    Suite *suite = suite_create("cluster");
    TCase *tc = tcase_create("cluster");
    tcase_add_test(tc, test_first_start);
    tcase_add_test(tc, test_second_server_refused);
    tcase_add_test(tc, test_edited_migration_refused);
    tcase_add_test(tc, test_many_migrate_at_once);
    tcase_add_test(tc, test_restarted_when_it_dies);
    tcase_add_test(tc, test_server_killed);
    tcase_add_test(tc, test_everything_killed);
    tcase_add_test(tc, test_stale_pid_file);
    tcase_add_test(tc, test_half_made);
    tcase_add_test(tc, test_deep_directory);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    if (fsx_remove_tree(top, &err) != 0)
        fprintf(stderr, "%s\n", err.text);
    free(dir);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
