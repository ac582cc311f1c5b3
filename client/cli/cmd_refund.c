/* admin refund, dispute, withdraw; dispute; provider statement. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/query.h"
#include "client/lib/xalloc.h"

const struct render_col cli_note_cols[CLI_NOTE_COLS] = {
    {"NUMBER", "number", RENDER_TEXT, NULL},
    {"TENANT", "tenant", RENDER_TEXT, NULL},
    {"INVOICE", "invoice", RENDER_TEXT, NULL},
    {"RESERVATION", "reservation", RENDER_TEXT, NULL},
    {"ISSUED", "issued_at", RENDER_TIME, NULL},
    {"NET", "net", RENDER_MONEY, NULL},
    {"TAX", "tax", RENDER_MONEY, NULL},
    {"TOTAL", "total", RENDER_MONEY, NULL},
    {"REASON", "reason", RENDER_TEXT, NULL},
};

int cmd_admin_refund(struct cli *c, struct err *err)
{
    const char *amount = opt_get(c->opts, "amount"),
               *reason = opt_get(c->opts, "reason"), *by = opt_get(c->opts, "by");
    json_t *body = json_object(), *money = NULL, *reply = NULL;
    int rc = 0;
    if (reason == NULL || (amount != NULL) == opt_has(c->opts, "all"))
        rc = err_set(err, ERR_USAGE,
                     "say how much, and why: --amount AMOUNT | --all, --reason TEXT");
    if (rc == 0 && (rc = cli_check_id(c->opts->args[0], err)) == 0)
        json_object_set_new(body, "reason", json_string(reason));
    if (rc == 0 && amount == NULL)
        json_object_set_new(body, "all", json_true());
    else if (rc == 0 && (rc = cli_open(c, err)) == 0 &&
             (rc = query_money(amount, c->account.currency, &money, err)) == 0)
        json_object_set_new(body, "amount", money);
    if (by != NULL)
        json_object_set_new(body, "by", json_string(by));
    char *path = cli_path("/v1/reservations/", c->opts->args[0], "/refund");
    if (rc == 0)
        rc = cli_post_once(c, path, body, "paying twice", &reply, err);
    if (rc == 0)
        rc = cli_print_list(c, reply, "credit_notes", cli_note_cols, CLI_NOTE_COLS,
                            "nothing was refunded", err);
    free(path);
    json_decref(body);
    json_decref(reply);
    return rc;
}

int cmd_dispute(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"Reservation", "reservation", RENDER_TEXT, NULL},
        {"Reason", "reason", RENDER_TEXT, NULL},
        {"Since", "since", RENDER_TIME, NULL},
        {"By", "by", RENDER_TEXT, NULL},
    };
    const char *reason = opt_get(c->opts, "reason");
    bool close = opt_has(c->opts, "close");
    json_t *body = NULL, *reply = NULL;
    if (close == (reason != NULL))
        return err_set(err, ERR_USAGE, "say why, or close it: --reason TEXT | --close");
    if (cli_check_id(c->opts->args[0], err) < 0)
        return -1;
    char *path = cli_path("/v1/reservations/", c->opts->args[0], "/dispute");
    if (!close)
        body = json_pack("{s:s}", "reason", reason);
    const struct cli_call call = {close ? "DELETE" : "POST", path, body, NULL};
    int rc = cli_call(c, &call, &reply, err);
    if (rc == 0 && !close)
        rc = cli_print_card(c, reply, cols, RENDER_COUNT_OF(cols), err);
    free(path);
    json_decref(body);
    json_decref(reply);
    return rc;
}

int cmd_admin_withdraw(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"Balance", "balance", RENDER_MONEY, NULL}};
    const char *amount = opt_get(c->opts, "amount"),
               *reference = opt_get(c->opts, "reference");
    json_t *money = NULL, *reply = NULL;
    if (amount == NULL)
        return err_set(err, ERR_USAGE, "say how much: --amount AMOUNT");
    if (cli_open(c, err) < 0 ||
        query_money(amount, c->account.currency, &money, err) < 0)
        return -1;
    json_t *body = json_pack("{s:o}", "amount", money);
    if (reference != NULL)
        json_object_set_new(body, "reference", json_string(reference));
    char *path = cli_path("/v1/tenants/", c->opts->args[0], "/withdraw");
    int rc = cli_post_once(c, path, body, "paying twice", &reply, err);
    if (rc == 0)
        rc = cli_print_card(c, reply, cols, RENDER_COUNT_OF(cols), err);
    free(path);
    json_decref(body);
    json_decref(reply);
    return rc;
}

/* ---- the provider's statement ---- */

static int64_t micro(const json_t *obj, const char *name)
{
    return json_integer_value(json_object_get(json_object_get(obj, name), "micro"));
}

static int64_t sum_of(const json_t *obj, const char *of)
{
    static const char *const accounts[] = {"pending", "available", "reserve"};
    int64_t sum = 0;
    for (size_t i = 0; i < 3; i++)
        sum += micro(json_object_get(obj, of), accounts[i]);
    return sum;
}

/* Opening and what moved make closing; what was captured by reservation is what came
 * in. The sums are made here again: a statement that does not add up is told. */
static int check_statement(const json_t *s, struct err *err)
{
    int64_t moved = 0, captured = 0;
    const json_t *row;
    const char *kind;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)json_object_get(s, "moved"), kind, row)
        moved += json_integer_value(row);
    json_array_foreach(json_object_get(s, "captured"), i, row) captured +=
        micro(row, "net");
    const json_t *in = json_object_get(json_object_get(s, "moved"), "capture");
    if (captured != json_integer_value(in))
        return err_set(err, ERR_CONFLICT,
                       "captures by reservation are %" PRId64 " micro, the ledger has "
                       "%" JSON_INTEGER_FORMAT,
                       captured, json_integer_value(in));
    if (sum_of(s, "opening") + moved != sum_of(s, "closing"))
        return err_set(err, ERR_CONFLICT,
                       "opening and what moved make %" PRId64
                       " micro, closing is %" PRId64,
                       sum_of(s, "opening") + moved, sum_of(s, "closing"));
    return 0;
}

static void section(struct cli *c, const json_t *s, const char *member,
                    const struct render_col *cols, size_t count, struct strbuf *out)
{
    const json_t *rows = json_object_get(s, member);
    if (json_array_size(rows) == 0)
        return;
    strbuf_addc(out, '\n');
    render_rows(rows, cols, count, &c->render, out);
}

static const struct render_col statement_use[] = {
    {"RESERVATION", "reservation", RENDER_TEXT, NULL},
    {"SITE", "site", RENDER_TEXT, NULL},
    {"GROSS", "gross", RENDER_MONEY, NULL},
    {"FEE", "fee", RENDER_MONEY, NULL},
    {"NET", "net", RENDER_MONEY, NULL},
};

static void render_statement(struct cli *c, const json_t *s, struct strbuf *out)
{
    static const struct render_col head[] = {
        {"Provider", "provider", RENDER_TEXT, NULL},
        {"Registration", "registration", RENDER_TEXT, NULL},
        {"Month", "month", RENDER_TEXT, NULL},
        {"Opening: pending", "opening.pending", RENDER_MONEY, NULL},
        {"Opening: available", "opening.available", RENDER_MONEY, NULL},
        {"Opening: reserve", "opening.reserve", RENDER_MONEY, NULL},
        {"Captured", "moved.capture", RENDER_MICRO, "currency"},
        {"Refunds", "moved.refund", RENDER_MICRO, "currency"},
        {"SLA debits", "moved.sla", RENDER_MICRO, "currency"},
        {"Paid out", "moved.payout", RENDER_MICRO, "currency"},
        {"Came back", "moved.payout_back", RENDER_MICRO, "currency"},
        {"Banks' fees for that", "moved.payout_fee", RENDER_MICRO, "currency"},
        {"Closing: pending", "closing.pending", RENDER_MONEY, NULL},
        {"Closing: available", "closing.available", RENDER_MONEY, NULL},
        {"Closing: reserve", "closing.reserve", RENDER_MONEY, NULL},
    };
    static const struct render_col settled[] = {
        {"SETTLED", "at", RENDER_TIME, NULL},
        {"CAPTURES", "captures", RENDER_INT, NULL},
        {"NET", "gross", RENDER_MONEY, NULL}, /* of the fee, as captured */
        {"REFUNDED", "refunded", RENDER_MONEY, NULL},
        {"RESERVE", "reserve", RENDER_MONEY, NULL},
        {"AVAILABLE", "available", RENDER_MONEY, NULL},
    };
    static const struct render_col refunded[] = {
        {"CREDIT NOTE", "credit_note", RENDER_TEXT, NULL},
        {"RESERVATION", "reservation", RENDER_TEXT, NULL},
        {"AMOUNT", "amount", RENDER_MONEY, NULL},
    };
    static const struct render_col payouts[] = {
        {"PAYOUT", "id", RENDER_TEXT, NULL},
        {"WHEN", "at", RENDER_TIME, NULL},
        {"WHAT", "kind", RENDER_TEXT, NULL},
        {"AMOUNT", "amount", RENDER_MONEY, NULL},
    };
    render_card(s, head, RENDER_COUNT_OF(head), &c->render, out);
    if (json_is_false(json_object_get(s, "over")))
        strbuf_adds(out, "\nThe month is not over: these are its sums so far.\n");
    section(c, s, "captured", statement_use, RENDER_COUNT_OF(statement_use), out);
    section(c, s, "settled", settled, RENDER_COUNT_OF(settled), out);
    section(c, s, "refunded", refunded, RENDER_COUNT_OF(refunded), out);
    section(c, s, "payouts", payouts, RENDER_COUNT_OF(payouts), out);
}

int cmd_provider_statement(struct cli *c, struct err *err)
{
    const char *month = opt_get(c->opts, "month");
    struct strbuf path = STRBUF_INIT, out = STRBUF_INIT;
    json_t *reply = NULL;
    if (month == NULL)
        return err_set(err, ERR_USAGE, "say which month: --month 2026-11");
    strbuf_adds(&path, "/v1/statement");
    cli_query(&path, "month", month);
    int rc = cli_get(c, strbuf_str(&path), &reply, err);
    if (rc == 0 && c->render.format == RENDER_TABLE)
        render_statement(c, reply, &out);
    else if (rc == 0 && c->render.format == RENDER_CSV)
        render_rows(json_object_get(reply, "captured"), statement_use,
                    RENDER_COUNT_OF(statement_use), &c->render, &out);
    else if (rc == 0)
        render_json(reply, &out);
    if (rc == 0)
        rc = cli_print(&out, err);
    if (rc == 0)
        rc = check_statement(reply, err);
    strbuf_done(&path);
    strbuf_done(&out);
    json_decref(reply);
    return rc;
}
