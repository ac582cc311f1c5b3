#include "billing/pgtx.h"

#include <stdlib.h>
#include <string.h>

static void first_line(char *text)
{
    text[strcspn(text, "\n")] = '\0';
}

int pgtx_connect(const char *conninfo, PGconn **ret, struct err *err)
{
    PGconn *pg = PQconnectdb(conninfo);
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
static enum err_code code_of(const char *sqlstate)
{
    if (sqlstate != NULL && strncmp(sqlstate, "NG", 2) == 0)
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
    enum err_code code = code_of(PQresultErrorField(r, PG_DIAG_SQLSTATE));
    const char *primary = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
    if (PQstatus(pg) != CONNECTION_OK)
        code = ERR_UNAVAILABLE;
    snprintf(text, sizeof(text), "%s", primary != NULL ? primary : PQerrorMessage(pg));
    first_line(text);
    PQclear(r);
    return err_set(err, code, "database: %s", text);
}

int64_t pgtx_i64(const PGresult *r, int row, int col)
{
    return PQgetisnull(r, row, col) ? 0 : strtoll(PQgetvalue(r, row, col), NULL, 10);
}
