/* cluster: a throwaway PostgreSQL cluster for one test program: made with initdb in a
 * temporary directory, run as the system user postgres when the test is root, reached
 * by its unix socket alone, removed at the end. Everything in it may be lost (no
 * fsync), and anyone on the socket may be any role: it is a test's. */
#ifndef TEST_CLUSTER_H
#define TEST_CLUSTER_H
#include <libpq-fe.h>
#include <stdbool.h>

struct cluster;

/* Makes and starts it, and sees that it goes when the program exits. Exits with 77
 * (skip) when PostgreSQL is not installed; with 1 when it does not start. */
struct cluster *cluster_start(void);
/* Stops (immediate) or starts it again: the crash of a database. */
void cluster_kill(struct cluster *c);
void cluster_again(struct cluster *c);
void cluster_remove(struct cluster *c);

/* Owned by the cluster until the next call. */
const char *cluster_conninfo(struct cluster *c, const char *user, const char *dbname);
/* A blocking connection (superuser), asserted to work. */
PGconn *cluster_connect(struct cluster *c, const char *user, const char *dbname);
/* Runs sql (several commands are fine) and asserts that it succeeds. */
void cluster_sql(PGconn *pg, const char *sql);
/* First column of the first row; "" when there is none. Caller frees. */
char *cluster_one(PGconn *pg, const char *sql);
/* The SQLSTATE sql fails with, "00000" when it does not. */
const char *cluster_state(PGconn *pg, const char *sql);

#endif
