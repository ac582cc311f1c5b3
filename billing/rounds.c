#include "billing/rounds.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "billing/core/invoice.h"
#include "billing/core/rate.h"
#include "billing/pgtx.h"
#include "client/lib/jsonx.h"
#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"

/* Columns of api.billing_claim. */
enum {
    CLAIM_RESERVATION,
    CLAIM_NODE,
    CLAIM_SEQ,
    CLAIM_KIND,
    CLAIM_GPU_MS,
    CLAIM_MAX_MS,
    CLAIM_PRICE,
    CLAIM_FEE_PPM
};

enum { POST_COLUMNS = 6 }; /* parameters of api.billing_post_batch */

/* A claimed receipt, rated: one element of each parameter's array. */
static int add_receipt(const PGresult *claim, int row,
                       struct strbuf arrays[POST_COLUMNS], struct err *err)
{
    struct rate_use use = {
        .gpu_ms = pgtx_i64(claim, row, CLAIM_GPU_MS),
        .max_gpu_ms = pgtx_i64(claim, row, CLAIM_MAX_MS),
        .per_gpu_hour_micro = pgtx_i64(claim, row, CLAIM_PRICE),
        .fee_ppm = pgtx_i64(claim, row, CLAIM_FEE_PPM),
    };
    struct rate_sum sum;
    if (rate_cumulative(&use, &sum, err) != 0)
        return -1;
    for (int i = 0; i < POST_COLUMNS; i++)
        strbuf_addc(&arrays[i], arrays[i].len == 0 ? '{' : ',');
    strbuf_adds(&arrays[0], PQgetvalue(claim, row, CLAIM_RESERVATION));
    strbuf_adds(&arrays[1], PQgetvalue(claim, row, CLAIM_NODE));
    strbuf_adds(&arrays[2], PQgetvalue(claim, row, CLAIM_SEQ));
    strbuf_adds(&arrays[3], PQgetvalue(claim, row, CLAIM_GPU_MS));
    strbuf_addf(&arrays[4], "%lld", (long long)sum.amount_micro);
    strbuf_addf(&arrays[5], "%lld", (long long)sum.fee_micro);
    return 0;
}

/* Columns of the outcomes, in the order of the claim. */
enum { OUTCOME_TEXT, OUTCOME_RESERVATION, OUTCOME_NODE, OUTCOME_SEQ };

/* Posts the arrays in one statement; what was not posted for another reason than its
 * turn is the error, after all that could be. */
static int post_arrays(PGconn *pg, struct strbuf arrays[POST_COLUMNS], int *ret_posted,
                       struct err *err)
{
    static const char sql[] =
        "SELECT o, r, n, s FROM unnest(api.billing_post_batch($1, $2, $3, $4, $5, $6), "
        "$1::uuid[], $2::integer[], $3::integer[]) AS x(o, r, n, s)";
    const char *params[POST_COLUMNS];
    PGresult *r;
    int rc = 0;
    if (arrays[0].len == 0)
        return 0;
    for (int i = 0; i < POST_COLUMNS; i++) {
        strbuf_addc(&arrays[i], '}');
        params[i] = strbuf_str(&arrays[i]);
    }
    if (pgtx_query(pg, sql, params, POST_COLUMNS, &r, err) != 0)
        return err_prefix(err, "posting receipts");
    for (int row = 0; row < PQntuples(r); row++) {
        const char *outcome = PQgetvalue(r, row, OUTCOME_TEXT);
        if (strcmp(outcome, "posted") == 0)
            ++*ret_posted;
        else if (rc == 0 && strcmp(outcome, "again") != 0 &&
                 strcmp(outcome, "gap") != 0)
            rc = err_set(err, ERR_CONFLICT, "receipt %s/%s/%s was not posted: %s",
                         PQgetvalue(r, row, OUTCOME_RESERVATION),
                         PQgetvalue(r, row, OUTCOME_NODE),
                         PQgetvalue(r, row, OUTCOME_SEQ), outcome);
    }
    PQclear(r);
    return rc;
}

int rounds_rate(PGconn *pg, int *ret_posted, struct err *err)
{
    struct strbuf arrays[POST_COLUMNS];
    struct err one, first = {.code = ERR_NONE};
    char limit[16];
    const char *params[] = {limit};
    PGresult *claim;
    *ret_posted = 0;
    snprintf(limit, sizeof(limit), "%d", ROUNDS_CLAIM_MAX);
    if (pgtx_query(pg, "SELECT * FROM api.billing_claim($1)", params, 1, &claim, err) !=
        0)
        return err_prefix(err, "claiming receipts");
    for (int i = 0; i < POST_COLUMNS; i++)
        arrays[i] = (struct strbuf)STRBUF_INIT;
    for (int row = 0; row < PQntuples(claim); row++)
        if (add_receipt(claim, row, arrays, &one) != 0 && first.code == ERR_NONE)
            (void)err_set(&first, one.code, "reservation %s, receipt %s: %s",
                          PQgetvalue(claim, row, CLAIM_RESERVATION),
                          PQgetvalue(claim, row, CLAIM_SEQ), one.text);
    PQclear(claim);
    if (post_arrays(pg, arrays, ret_posted, &one) != 0 && first.code == ERR_NONE)
        first = one;
    for (int i = 0; i < POST_COLUMNS; i++)
        strbuf_done(&arrays[i]);
    return first.code == ERR_NONE ? 0 : err_set(err, first.code, "%s", first.text);
}

/* Columns of api.billing_path_claim. */
enum { PATH_BOOKING, PATH_LANE_MS, PATH_PRICE, PATH_FEE_PPM };

static int post_path(PGconn *pg, const PGresult *claim, int row, int *ret_posted,
                     struct err *err)
{
    int64_t lane_ms = pgtx_i64(claim, row, PATH_LANE_MS);
    struct rate_use use = {
        .gpu_ms = lane_ms, /* lanes are rated as GPUs are */
        .max_gpu_ms = lane_ms,
        .per_gpu_hour_micro = pgtx_i64(claim, row, PATH_PRICE),
        .fee_ppm = pgtx_i64(claim, row, PATH_FEE_PPM),
    };
    struct rate_sum sum;
    char amount[24], fee[24];
    const char *params[] = {PQgetvalue(claim, row, PATH_BOOKING),
                            PQgetvalue(claim, row, PATH_LANE_MS), amount, fee};
    PGresult *r;
    if (rate_cumulative(&use, &sum, err) != 0)
        return err_prefix(err, "path booking %s", params[0]);
    snprintf(amount, sizeof(amount), "%lld", (long long)sum.amount_micro);
    snprintf(fee, sizeof(fee), "%lld", (long long)sum.fee_micro);
    if (pgtx_query(pg, "SELECT api.billing_path_post($1, $2, $3, $4)", params, 4, &r,
                   err) != 0)
        return err_prefix(err, "path booking %s", params[0]);
    if (strcmp(PQgetvalue(r, 0, 0), "posted") == 0)
        ++*ret_posted;
    PQclear(r);
    return 0;
}

int rounds_paths(PGconn *pg, int *ret_posted, struct err *err)
{
    char limit[16];
    const char *params[] = {limit};
    PGresult *claim;
    int rc = 0;
    *ret_posted = 0;
    snprintf(limit, sizeof(limit), "%d", ROUNDS_CLAIM_MAX);
    if (pgtx_query(pg, "SELECT * FROM api.billing_path_claim($1)", params, 1, &claim,
                   err) != 0)
        return err_prefix(err, "claiming paths");
    for (int row = 0; row < PQntuples(claim); row++) {
        struct err one;
        if (post_path(pg, claim, row, ret_posted, &one) == 0)
            continue;
        if (rc == 0)
            rc = err_set(err, one.code, "%s", one.text);
        if (one.code == ERR_UNAVAILABLE)
            break;
    }
    PQclear(claim);
    return rc;
}

int rounds_hold(PGconn *pg, int *ret_count, struct err *err)
{
    char limit[16];
    const char *params[] = {limit};
    PGresult *r;
    snprintf(limit, sizeof(limit), "%d", ROUNDS_HOLD_MAX);
    if (pgtx_query(pg, "SELECT api.billing_hold(clock_timestamp(), $1)", params, 1, &r,
                   err) != 0)
        return err_prefix(err, "holding on");
    *ret_count = (int)pgtx_i64(r, 0, 0);
    PQclear(r);
    return 0;
}

int rounds_release(PGconn *pg, int64_t grace_us, int *ret_count, struct err *err)
{
    char grace[48], limit[16];
    const char *params[] = {grace, limit};
    PGresult *r;
    snprintf(grace, sizeof(grace), "%lld microseconds", (long long)grace_us);
    snprintf(limit, sizeof(limit), "%d", ROUNDS_CLAIM_MAX);
    if (pgtx_query(pg, "SELECT api.billing_release($1, $2)", params, 2, &r, err) != 0)
        return err_prefix(err, "releasing holds");
    *ret_count = (int)pgtx_i64(r, 0, 0);
    PQclear(r);
    return 0;
}

int rounds_collect(PGconn *pg, int *ret_count, struct err *err)
{
    PGresult *r;
    if (pgtx_query(pg, "SELECT api.billing_collect()", NULL, 0, &r, err) != 0)
        return err_prefix(err, "collecting what is receivable");
    *ret_count = (int)pgtx_i64(r, 0, 0);
    PQclear(r);
    return 0;
}

static int count_of(PGconn *pg, const char *sql, int *ret_count, struct err *err)
{
    PGresult *r;
    if (pgtx_query(pg, sql, NULL, 0, &r, err) != 0)
        return -1;
    *ret_count = (int)pgtx_i64(r, 0, 0);
    PQclear(r);
    return 0;
}

int rounds_credit(PGconn *pg, int *ret_count, struct err *err)
{
    int incidents, promos;
    *ret_count = 0;
    if (count_of(pg, "SELECT api.billing_sla(1000)", &incidents, err) != 0)
        return err_prefix(err, "time that was not delivered");
    *ret_count = incidents;
    if (count_of(pg, "SELECT api.billing_promo()", &promos, err) != 0)
        return err_prefix(err, "promotional credit");
    *ret_count += promos;
    return 0;
}

/* Columns of api.billing_open_lines. */
enum {
    LINE_TENANT,
    LINE_CURRENCY,
    LINE_FROM,
    LINE_TO,
    LINE_RESERVATION,
    LINE_TEXT,
    LINE_GPU_MS,
    LINE_AMOUNT,
    LINE_TAX_CLASS,
    LINE_TAX_PPM
};

static json_t *lines_json(const PGresult *lines)
{
    json_t *array = json_array();
    for (int row = 0; row < PQntuples(lines); row++)
        json_array_append_new(
            array, json_pack("{s:s, s:s, s:I}", "reservation_id",
                             PQgetvalue(lines, row, LINE_RESERVATION), "tax_class",
                             PQgetvalue(lines, row, LINE_TAX_CLASS), "amount_micro",
                             (json_int_t)pgtx_i64(lines, row, LINE_AMOUNT)));
    return array;
}

/* Base, rounding and tax of each class; new reference in *ret. */
static int taxes_json(const PGresult *lines, json_t **ret, struct err *err)
{
    struct invoice_tax taxes[INVOICE_CLASSES_MAX];
    size_t n, count = (size_t)PQntuples(lines);
    struct invoice_item *items = xcalloc(count, sizeof(*items));
    for (size_t i = 0; i < count; i++)
        items[i] =
            (struct invoice_item){.class = PQgetvalue(lines, (int)i, LINE_TAX_CLASS),
                                  .rate_ppm = pgtx_i64(lines, (int)i, LINE_TAX_PPM),
                                  .amount_micro = pgtx_i64(lines, (int)i, LINE_AMOUNT)};
    int rc = invoice_taxes(items, count, PQgetvalue(lines, 0, LINE_CURRENCY), taxes, &n,
                           err);
    free(items);
    if (rc != 0)
        return -1;
    *ret = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(
            *ret, json_pack("{s:s, s:I, s:I, s:I, s:I}", "class", taxes[i].class,
                            "rate_ppm", (json_int_t)taxes[i].rate_ppm, "base_micro",
                            (json_int_t)taxes[i].sums.net_micro, "residue_micro",
                            (json_int_t)taxes[i].sums.residue_micro, "tax_micro",
                            (json_int_t)taxes[i].sums.tax_micro));
    return 0;
}

static int issue(PGconn *pg, const char *tenant, const char *until,
                 const PGresult *lines, char *number, size_t cap, struct err *err)
{
    json_t *array, *taxes;
    PGresult *r = NULL;
    if (taxes_json(lines, &taxes, err) != 0)
        return -1;
    array = lines_json(lines);
    char *text = jsonx_dump(array), *tax_text = jsonx_dump(taxes);
    const char *params[] = {tenant, until, text, tax_text};
    int rc = pgtx_query(pg, "SELECT api.billing_invoice($1, $2, $3, $4)", params, 4, &r,
                        err);
    if (rc == 0) {
        snprintf(number, cap, "%s", PQgetvalue(r, 0, 0));
        PQclear(r);
    }
    free(text);
    free(tax_text);
    json_decref(array);
    json_decref(taxes);
    return rc;
}

int rounds_invoice(PGconn *pg, const char *tenant, const char *until, char *number,
                   size_t cap, struct err *err)
{
    const char *params[] = {tenant, until};
    PGresult *lines;
    int rc = 0;
    number[0] = '\0';
    if (pgtx_query(pg, "SELECT * FROM api.billing_open_lines($1, $2)", params, 2,
                   &lines, err) != 0)
        return err_prefix(err, "invoice of %s", tenant);
    if (PQntuples(lines) > 0)
        rc = issue(pg, tenant, until, lines, number, cap, err);
    PQclear(lines);
    return rc == 0 ? 0 : err_prefix(err, "invoice of %s", tenant);
}

int rounds_invoices_due(PGconn *pg, int *ret_count, struct err *err)
{
    PGresult *due;
    char number[32];
    struct err first = {.code = ERR_NONE};
    *ret_count = 0;
    if (pgtx_query(pg, "SELECT tenant, until FROM api.billing_due(now())", NULL, 0,
                   &due, err) != 0)
        return err_prefix(err, "invoices due");
    for (int row = 0; row < PQntuples(due); row++) {
        struct err one;
        if (rounds_invoice(pg, PQgetvalue(due, row, 0), PQgetvalue(due, row, 1), number,
                           sizeof(number), &one) == 0)
            *ret_count += number[0] != '\0';
        else if (first.code == ERR_NONE)
            first = one;
        if (first.code == ERR_UNAVAILABLE)
            break;
    }
    PQclear(due);
    return first.code == ERR_NONE ? 0 : err_set(err, first.code, "%s", first.text);
}

int rounds_reverse(PGconn *pg, int64_t transfer, int64_t *ret_reversal, struct err *err)
{
    char id[24];
    const char *params[] = {id};
    PGresult *r;
    snprintf(id, sizeof(id), "%lld", (long long)transfer);
    if (pgtx_query(pg, "SELECT api.billing_reverse($1)", params, 1, &r, err) != 0)
        return -1;
    *ret_reversal = pgtx_i64(r, 0, 0);
    PQclear(r);
    return 0;
}

int rounds_check(PGconn *pg, char **ret_text, struct err *err)
{
    struct strbuf text = STRBUF_INIT;
    PGresult *r;
    if (pgtx_query(pg,
                   "SELECT name, breaches FROM api.billing_check() WHERE breaches > 0",
                   NULL, 0, &r, err) != 0)
        return err_prefix(err, "checks");
    for (int row = 0; row < PQntuples(r); row++)
        strbuf_addf(&text, "%s: %s rows\n", PQgetvalue(r, row, 0),
                    PQgetvalue(r, row, 1));
    PQclear(r);
    *ret_text = text.len > 0 ? strbuf_steal(&text) : xstrdup("");
    strbuf_done(&text);
    return 0;
}
