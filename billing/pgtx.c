#include "billing/pgtx.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void first_line(char *text)
{
    text[strcspn(text, "\n")] = '\0';
}

int pgtx_connect(const char *conninfo, PGconn **ret, struct err *err)
{
    /* What conninfo says comes later and wins; without these, a host that vanished
     * would be waited for by the hour. */
    static const char *const names[] = {"connect_timeout",
                                        "keepalives_idle",
                                        "keepalives_interval",
                                        "keepalives_count",
                                        "tcp_user_timeout",
                                        "dbname",
                                        NULL};
    const char *const values[] = {"10", "15", "5", "3", "30000", conninfo, NULL};
    PGconn *pg = PQconnectdbParams(names, values, 1);
    if (PQstatus(pg) == CONNECTION_OK) {
        *ret = pg;
        return 0;
    }
    char text[ERR_TEXT_MAX];
    snprintf(text, sizeof(text), "%s", PQerrorMessage(pg));
    first_line(text);
    PQfinish(pg);
    return err_set(err, ERR_UNAVAILABLE, "database: %s", text);
}

/* SQL functions refuse with SQLSTATE NGnnn, nnn an err_code. */
static bool is_refusal(const char *sqlstate)
{
    return sqlstate != NULL && strncmp(sqlstate, "NG", 2) == 0;
}

static enum err_code code_of(const char *sqlstate)
{
    if (is_refusal(sqlstate))
        return (enum err_code)strtol(sqlstate + 2, NULL, 10);
    return ERR_INTERNAL;
}

int pgtx_query(PGconn *pg, const char *sql, const char *const *params, int count,
               PGresult **ret, struct err *err)
{
    PGresult *r = PQexecParams(pg, sql, count, NULL, params, NULL, NULL, 0);
    ExecStatusType status = PQresultStatus(r);
    if (status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK) {
        *ret = r;
        return 0;
    }
    char text[ERR_TEXT_MAX];
    char sqlstate[6] = "";
    if (PQresultErrorField(r, PG_DIAG_SQLSTATE) != NULL)
        snprintf(sqlstate, sizeof(sqlstate), "%s",
                 PQresultErrorField(r, PG_DIAG_SQLSTATE));
    enum err_code code = code_of(sqlstate);
    const char *primary = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
    if (PQstatus(pg) != CONNECTION_OK)
        code = ERR_UNAVAILABLE;
    snprintf(text, sizeof(text), "%s", primary != NULL ? primary : PQerrorMessage(pg));
    first_line(text);
    PQclear(r);
    /* A refusal of ours is complete as it is. */
    return err_set(err, code, "%s%s", is_refusal(sqlstate) ? "" : "database: ", text);
}

int64_t pgtx_i64(const PGresult *r, int row, int col)
{
    return PQgetisnull(r, row, col) ? 0 : strtoll(PQgetvalue(r, row, col), NULL, 10);
}
