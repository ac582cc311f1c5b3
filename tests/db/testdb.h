/* testdb: a throwaway PostgreSQL cluster for one test program: made with initdb in a
 * temporary directory, run as the system user postgres when the test is root, reached
 * by its unix socket alone, removed at the end. Everything in it may be lost (no
 * fsync), and anyone on the socket may be any role: it is a test's. */
#ifndef TEST_TESTDB_H
#define TEST_TESTDB_H
#include <libpq-fe.h>
#include <stdbool.h>

struct testdb;

/* Makes and starts it, and sees that it goes when the program exits. Exits with 77
 * (skip) when PostgreSQL is not installed; with 1 when it does not start. */
struct testdb *testdb_start(void);
/* Stops (immediate) or starts it again: the crash of a database. */
void testdb_kill(struct testdb *c);
void testdb_again(struct testdb *c);
void testdb_remove(struct testdb *c);

/* Owned by the cluster until the next call. */
const char *testdb_conninfo(struct testdb *c, const char *user, const char *dbname);
/* A blocking connection (superuser), asserted to work. */
PGconn *testdb_connect(struct testdb *c, const char *user, const char *dbname);
/* Runs sql (several commands are fine) and asserts that it succeeds. */
void testdb_sql(PGconn *pg, const char *sql);
/* First column of the first row; "" when there is none. Caller frees. */
char *testdb_one(PGconn *pg, const char *sql);
/* The SQLSTATE sql fails with, "00000" when it does not. */
const char *testdb_state(PGconn *pg, const char *sql);

#endif
