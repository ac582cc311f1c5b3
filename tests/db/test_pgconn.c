/* pgconn against a real database: order, isolation of failures, big results, full
 * sockets, killed backends, a database that goes away and comes back. */
#include <event2/event.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/xalloc.h"
#include "server/db/pgconn.h"
#include "tests/db/testdb.h"
#include "tests/unit/unit.h"

enum { ST_ECHO, ST_DIVIDE, ST_BIG, ST_SLEEP, ST_INSERT, ST_LENGTH, ST_NOTIFY, ST_LATE };
static const struct pgconn_stmt stmts[] = {
    [ST_ECHO] = {"echo", "SELECT $1::text", 1},
    [ST_DIVIDE] = {"divide", "SELECT 1 / $1::int", 1},
    [ST_BIG] = {"big", "SELECT repeat('x', $1::int)", 1},
    [ST_SLEEP] = {"sleep", "SELECT pg_sleep($1::float8)", 1},
    [ST_INSERT] = {"insert", "INSERT INTO seen VALUES ($1::int)", 1},
    [ST_LENGTH] = {"length", "SELECT octet_length($1::bytea)", 1},
    [ST_NOTIFY] = {"notify", "SELECT pg_notify('chan', $1::text)", 1},
    [ST_LATE] = {"late", "INSERT INTO late VALUES ($1::int)", 1},
};

static struct testdb *cl;
static struct event_base *base;
static PGconn *admin;

struct rig {
    struct pgconn *c;
    int answers;
    int64_t order[4096];
    enum pgconn_status status[4096];
    char state[4096][6];
    char text[4096][16];
    size_t bytes;
    int readies, losses;
    char note[32];
};
struct one {
    struct rig *rig;
    int64_t tag;
};

static void answered(void *arg, const struct pgconn_answer *a)
{
    struct one *o = arg;
    struct rig *r = o->rig;
    ck_assert_int_lt(r->answers, 4096);
    int i = r->answers++;
    r->order[i] = o->tag;
    r->status[i] = a->status;
    memcpy(r->state[i], a->sqlstate, 6);
    r->text[i][0] = '\0';
    if (a->status == PGCONN_OK && a->res != NULL && PQntuples(a->res) == 1) {
        snprintf(r->text[i], 16, "%.15s", PQgetvalue(a->res, 0, 0));
        r->bytes += (size_t)PQgetlength(a->res, 0, 0);
    }
    if (a->status == PGCONN_UNKNOWN)
        ck_assert_int_eq(a->err.code, ERR_UNKNOWN);
    if (a->status == PGCONN_UNSENT)
        ck_assert_int_eq(a->err.code, ERR_UNAVAILABLE);
    free(o);
}

static void send_one(struct rig *r, size_t stmt, const char *value, int64_t tag)
{
    struct one *o = xcalloc(1, sizeof *o);
    o->rig = r;
    o->tag = tag;
    pgconn_send(r->c, &(struct pgconn_call){
                          .stmt = stmt, .values = &value, .done = answered, .arg = o});
}

static void on_state(void *arg, bool ready)
{
    struct rig *r = arg;
    if (ready)
        r->readies++;
    else
        r->losses++;
}

static void on_notify(void *arg, const char *payload, int pid)
{
    ck_assert_int_ne(pid, 0);
    struct rig *r = arg;
    snprintf(r->note, sizeof r->note, "%s", payload);
}

static void rig_open(struct rig *r)
{
    memset(r, 0, sizeof *r);
    r->c = pgconn_new(base, &(struct pgconn_opts){
                                .conninfo = testdb_conninfo(cl, "postgres", "postgres"),
                                .stmts = stmts,
                                .stmt_count = sizeof stmts / sizeof stmts[0],
                                .listen = "chan",
                                .on_notify = on_notify,
                                .on_state = on_state,
                                .arg = r});
}

/* Turns the loop until the condition holds, at most 20 s. */
#define UNTIL(cond)                                         \
    do {                                                    \
        int64_t until_us = clock_boot_us() + 20000000;      \
        while (!(cond) && clock_boot_us() < until_us) {     \
            struct timeval tv = {.tv_usec = 20000};         \
            event_base_loopexit(base, &tv);                 \
            event_base_loop(base, EVLOOP_ONCE);             \
        }                                                   \
        ck_assert_msg(cond, "%s did not come true", #cond); \
    } while (0)

static void rig_ready(struct rig *r)
{
    rig_open(r);
    UNTIL(pgconn_is_ready(r->c));
}

START_TEST(test_order_and_isolation)
{
    struct rig *r = xcalloc(1, sizeof *r);
    rig_ready(r);
    send_one(r, ST_SLEEP, "0.1", -1); /* the others pile up behind it */
    /* Far more than may be in flight; every third one fails. */
    for (int i = 0; i < 1000; i++) {
        char v[16];
        snprintf(v, sizeof v, "%d", i);
        if (i % 3 == 2)
            send_one(r, ST_DIVIDE, "0", i);
        else
            send_one(r, ST_ECHO, v, i);
    }
    ck_assert_int_eq(r->answers, 0);
    struct pgconn_stats st;
    event_base_loop(base, EVLOOP_NONBLOCK);
    pgconn_stats(r->c, &st);
    ck_assert_uint_le(st.in_flight, PGCONN_UNITS_MAX);
    ck_assert_uint_gt(st.waiting, 0);
    UNTIL(r->answers == 1001);
    for (int k = 1; k <= 1000; k++) {
        int i = k - 1;
        ck_assert_int_eq(r->order[k], i);
        if (i % 3 == 2) {
            ck_assert_int_eq(r->status[k], PGCONN_FAILED);
            ck_assert_str_eq(r->state[k], "22012");
        } else {
            ck_assert_int_eq(r->status[k], PGCONN_OK);
            ck_assert_int_eq(strtol(r->text[k], NULL, 10), i);
        }
    }
    pgconn_free(r->c);
    free(r);
}
END_TEST

START_TEST(test_failure_at_commit)
{
    /* A deferred constraint: the statement succeeds, its commit does not. */
    struct rig *r = xcalloc(1, sizeof *r);
    rig_ready(r);
    send_one(r, ST_LATE, "1", 0);
    send_one(r, ST_LATE, "1", 1);
    send_one(r, ST_LATE, "2", 2);
    UNTIL(r->answers == 3);
    ck_assert_int_eq(r->status[0], PGCONN_OK);
    ck_assert_int_eq(r->status[1], PGCONN_FAILED);
    ck_assert_str_eq(r->state[1], "23505");
    ck_assert_int_eq(r->status[2], PGCONN_OK);
    char *n = testdb_one(admin, "SELECT count(*) FROM late");
    ck_assert_str_eq(n, "2");
    free(n);
    pgconn_free(r->c);
    free(r);
}
END_TEST

START_TEST(test_result_larger_than_buffers)
{
    struct rig *r = xcalloc(1, sizeof *r);
    rig_ready(r);
    for (int i = 0; i < 6; i++)
        send_one(r, i % 2 == 0 ? ST_BIG : ST_ECHO, i % 2 == 0 ? "9000000" : "7", i);
    UNTIL(r->answers == 6);
    ck_assert_uint_eq(r->bytes, 3 * 9000000 + 3);
    for (int i = 0; i < 6; i++) {
        ck_assert_int_eq(r->order[i], i);
        ck_assert_int_eq(r->status[i], PGCONN_OK);
    }
    pgconn_free(r->c);
    free(r);
}
END_TEST

START_TEST(test_full_socket_both_ways)
{
    /* Large parameters while large results come back: who writes without reading hangs.
     */
    struct rig *r = xcalloc(1, sizeof *r);
    char *big = xmalloc(2000001);
    memset(big, 'a', 2000000);
    big[2000000] = '\0';
    rig_ready(r);
    for (int i = 0; i < 40; i++)
        send_one(r, ST_ECHO, big, i);
    struct one *o = xcalloc(1, sizeof *o);
    *o = (struct one){.rig = r, .tag = 40};
    int len = 2000000, binary = 1;
    const char *value = big;
    pgconn_send(r->c, &(struct pgconn_call){.stmt = ST_LENGTH,
                                            .values = &value,
                                            .lengths = &len,
                                            .formats = &binary,
                                            .done = answered,
                                            .arg = o});
    UNTIL(r->answers == 41);
    ck_assert_uint_eq(r->bytes, 40 * 2000000 + 7);
    ck_assert_str_eq(r->text[40], "2000000");
    pgconn_free(r->c);
    free(big);
    free(r);
}
END_TEST

START_TEST(test_killed_backend)
{
    struct rig *r = xcalloc(1, sizeof *r);
    testdb_sql(admin, "TRUNCATE seen");
    rig_ready(r);
    int pid = pgconn_backend_pid(r->c);
    ck_assert_int_ne(pid, 0);
    send_one(r, ST_INSERT, "0", 0);
    UNTIL(r->answers == 1);
    send_one(r, ST_SLEEP, "30", 1);
    for (int i = 2; i < 400; i++) { /* more than fit in flight */
        char v[16];
        snprintf(v, sizeof v, "%d", i);
        send_one(r, ST_INSERT, v, i);
    }
    struct pgconn_stats st;
    pgconn_stats(r->c, &st);
    while (st.in_flight < PGCONN_UNITS_MAX) {
        event_base_loop(base, EVLOOP_NONBLOCK);
        pgconn_stats(r->c, &st);
    }
    char sql[80];
    snprintf(sql, sizeof sql, "SELECT pg_terminate_backend(%d)", pid);
    testdb_sql(admin, sql);
    UNTIL(r->answers == 400);
    ck_assert_int_eq(r->losses, 1);
    ck_assert_int_eq(r->readies, 2);
    int unknown = 0, ok = 0;
    for (int i = 0; i < 400; i++) {
        ck_assert_int_eq(r->order[i], i);
        if (r->status[i] == PGCONN_UNKNOWN)
            unknown++;
        else if (r->status[i] == PGCONN_OK)
            ok++;
        else
            ck_abort_msg("unit %d: status %d %s", i, r->status[i], r->state[i]);
    }
    /* What was in flight is unknown; the rest went over the new connection, once. */
    ck_assert_int_eq(unknown, PGCONN_UNITS_MAX);
    ck_assert_int_eq(ok, 400 - PGCONN_UNITS_MAX);
    char *n =
        testdb_one(admin, "SELECT count(*) || ' ' || count(DISTINCT i) FROM seen");
    char want[32];
    snprintf(want, sizeof want, "%d %d", ok, ok);
    ck_assert_str_eq(n, want);
    free(n);
    pgconn_free(r->c);
    free(r);
}
END_TEST

START_TEST(test_database_restart)
{
    struct rig *r = xcalloc(1, sizeof *r);
    PQfinish(admin);
    rig_ready(r);
    send_one(r, ST_SLEEP, "30", 0);
    event_base_loop(base, EVLOOP_NONBLOCK);
    testdb_kill(cl);
    UNTIL(r->answers == 1);
    ck_assert_int_eq(r->status[0], PGCONN_UNKNOWN);
    send_one(r, ST_ECHO, "waits", 1);
    testdb_again(cl);
    UNTIL(r->answers == 2);
    ck_assert_int_eq(r->status[1], PGCONN_OK);
    ck_assert_str_eq(r->text[1], "waits");
    pgconn_free(r->c);
    free(r);
    admin = testdb_connect(cl, "postgres", "postgres");
}
END_TEST

START_TEST(test_free_answers_all)
{
    struct rig *r = xcalloc(1, sizeof *r);
    rig_ready(r);
    send_one(r, ST_SLEEP, "30", 0);
    event_base_loop(base, EVLOOP_NONBLOCK);
    for (int i = 1; i < 300; i++)
        send_one(r, ST_ECHO, "x", i);
    pgconn_free(r->c);
    ck_assert_int_eq(r->answers, 300);
    ck_assert_int_eq(r->status[0], PGCONN_UNKNOWN);
    ck_assert_int_eq(r->status[299], PGCONN_UNSENT);
    free(r);
}
END_TEST

START_TEST(test_notify)
{
    struct rig *r = xcalloc(1, sizeof *r);
    rig_ready(r);
    testdb_sql(admin, "NOTIFY chan, 'hello'");
    UNTIL(strcmp(r->note, "hello") == 0);
    send_one(r, ST_NOTIFY, "self", 0);
    UNTIL(strcmp(r->note, "self") == 0);
    UNTIL(r->answers == 1);
    pgconn_free(r->c);
    free(r);
}
END_TEST

START_TEST(test_setup_refused)
{
    /* A statement that cannot be prepared: never ready, tried again, units wait. */
    static const struct pgconn_stmt bad[] = {{"good", "SELECT 1", 0},
                                             {"bad", "SELECT no_such()", 0}};
    struct rig *r = xcalloc(1, sizeof *r);
    r->c = pgconn_new(base, &(struct pgconn_opts){
                                .conninfo = testdb_conninfo(cl, "postgres", "postgres"),
                                .stmts = bad,
                                .stmt_count = 2});
    int64_t end_us = clock_boot_us() + 700000;
    while (clock_boot_us() < end_us) {
        struct timeval tv = {.tv_usec = 20000};
        event_base_loopexit(base, &tv);
        event_base_loop(base, EVLOOP_ONCE);
        ck_assert(!pgconn_is_ready(r->c));
    }
    testdb_sql(admin,
               "CREATE FUNCTION no_such() RETURNS int LANGUAGE sql AS 'SELECT 1'");
    UNTIL(pgconn_is_ready(r->c));
    testdb_sql(admin, "DROP FUNCTION no_such()");
    pgconn_free(r->c);
    free(r);
}
END_TEST

int main(void)
{
    /* One cluster for all cases: they run in this process. */
    setenv("CK_FORK", "no", 1);
    cl = testdb_start();
    base = event_base_new();
    admin = testdb_connect(cl, "postgres", "postgres");
    testdb_sql(admin, "CREATE TABLE seen (i int)");
    testdb_sql(admin, "CREATE TABLE late (i int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
    Suite *suite = suite_create("pgconn");
    TCase *tc = tcase_create("pgconn");
    tcase_add_test(tc, test_order_and_isolation);
    tcase_add_test(tc, test_failure_at_commit);
    tcase_add_test(tc, test_result_larger_than_buffers);
    tcase_add_test(tc, test_full_socket_both_ways);
    tcase_add_test(tc, test_killed_backend);
    tcase_add_test(tc, test_database_restart);
    tcase_add_test(tc, test_free_answers_all);
    tcase_add_test(tc, test_notify);
    tcase_add_test(tc, test_setup_refused);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    PQfinish(admin);
    event_base_free(base);
    testdb_remove(cl);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
