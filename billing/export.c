/* export: see export.h. */
#include "billing/export.h"

#include <inttypes.h>
#include <string.h>

#include "billing/pgtx.h"
#include "client/lib/money.h"
#include "client/lib/timefmt.h"

#define EXPORT_PAGE "5000"

/* Columns of api.billing_ledger. */
enum {
    COL_ID,
    COL_AT,
    COL_KIND,
    COL_DR,
    COL_CR,
    COL_CURRENCY,
    COL_AMOUNT,
    COL_RESERVATION,
    COL_REF,
    COL_REVERSES
};

/* One line, whatever somebody wrote into a reference: a newline would begin a posting,
 * a semicolon a comment. */
static void put_clean(FILE *out, const char *text)
{
    for (; *text != '\0'; text++)
        fputc((unsigned char)*text < ' ' || *text == ';' || *text == '|' ? ' ' : *text,
              out);
}

static void put_posting(FILE *out, const char *account, const char *sign,
                        int64_t amount, const char *currency)
{
    char text[MONEY_TEXT_MAX];
    money_format(amount, currency, text);
    fputs("    ", out);
    put_clean(out, account);
    fprintf(out, "  %s%s %s\n", sign, text, currency);
}

static void put_transfer(FILE *out, const PGresult *r, int row)
{
    const char *currency = PQgetvalue(r, row, COL_CURRENCY);
    int64_t amount = pgtx_i64(r, row, COL_AMOUNT);
    char at[TIMEFMT_MAX];
    timefmt_utc(pgtx_i64(r, row, COL_AT), at);
    fprintf(out, "%.10s * (%s) %s", at, PQgetvalue(r, row, COL_ID),
            PQgetvalue(r, row, COL_KIND));
    if (!PQgetisnull(r, row, COL_REF)) {
        fputs(" | ", out);
        put_clean(out, PQgetvalue(r, row, COL_REF));
    }
    fprintf(out, "\n    ; at:%s", at);
    if (!PQgetisnull(r, row, COL_RESERVATION))
        fprintf(out, ", reservation:%s", PQgetvalue(r, row, COL_RESERVATION));
    if (!PQgetisnull(r, row, COL_REVERSES))
        fprintf(out, ", reverses:%s", PQgetvalue(r, row, COL_REVERSES));
    fputc('\n', out);
    put_posting(out, PQgetvalue(r, row, COL_DR), "", amount, currency);
    put_posting(out, PQgetvalue(r, row, COL_CR), "-", amount, currency);
    fputc('\n', out);
}

/* `hledger check --strict` wants to know every name beforehand. */
static int put_names(PGconn *pg, FILE *out, struct err *err)
{
    PGresult *r;
    if (pgtx_query(pg, "SELECT name, currency FROM api.billing_accounts()", NULL, 0, &r,
                   err) != 0)
        return -1;
    for (int row = 0; row < PQntuples(r); row++) {
        if (row == 0 || strcmp(PQgetvalue(r, row, 1), PQgetvalue(r, row - 1, 1)) != 0)
            fprintf(out, "commodity 1.000000 %s\n", PQgetvalue(r, row, 1));
    }
    for (int row = 0; row < PQntuples(r); row++) {
        fputs("account ", out);
        put_clean(out, PQgetvalue(r, row, 0));
        fputc('\n', out);
    }
    fputc('\n', out);
    PQclear(r);
    return 0;
}

int export_hledger(PGconn *pg, const char *from, const char *to, FILE *out,
                   int64_t *ret_count, struct err *err)
{
    char after[24] = "0";
    const char *params[] = {from, to, after, EXPORT_PAGE};
    int rows = 1;
    *ret_count = 0;
    if (put_names(pg, out, err) != 0)
        return -1;
    while (rows > 0) {
        PGresult *r;
        if (pgtx_query(pg, "SELECT * FROM api.billing_ledger($1, $2, $3, $4)", params,
                       4, &r, err) != 0)
            return -1;
        rows = PQntuples(r);
        for (int row = 0; row < rows; row++)
            put_transfer(out, r, row);
        if (rows > 0)
            snprintf(after, sizeof(after), "%s", PQgetvalue(r, rows - 1, COL_ID));
        *ret_count += rows;
        PQclear(r);
    }
    if (fflush(out) != 0 || ferror(out))
        return err_set(err, ERR_IO, "the journal could not be written");
    return 0;
}
