/* admin payout, user, terms, refund, withdraw; provider payouts, statement, bank;
 * credit notes: money out. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/query.h"
#include "client/lib/b64.h"
#include "client/lib/bounds.h"
#include "client/lib/fsx.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

static const struct render_col payout_cols[] = {
    {"ID", "id", RENDER_INT, NULL},
    {"PROVIDER", "provider", RENDER_TEXT, NULL},
    {"AMOUNT", "amount", RENDER_MONEY, NULL},
    {"STATE", "state", RENDER_TEXT, NULL},
    {"ASKED BY", "requested_by", RENDER_TEXT, NULL},
    {"APPROVED BY", "approved_by", RENDER_TEXT, NULL},
    {"FILE", "file", RENDER_INT, NULL},
    {"ASKED", "created_at", RENDER_TIME, NULL},
    {"FEE", "fee", RENDER_MONEY, NULL},
    {"REASON", "reason", RENDER_TEXT, NULL},
};
/* One of them. */
static const struct render_col payout_card[] = {
    {"Payout", "id", RENDER_INT, NULL},
    {"Provider", "provider", RENDER_TEXT, NULL},
    {"Amount", "amount", RENDER_MONEY, NULL},
    {"State", "state", RENDER_TEXT, NULL},
    {"Asked by", "requested_by", RENDER_TEXT, NULL},
    {"Asked", "created_at", RENDER_TIME, NULL},
    {"Approved by", "approved_by", RENDER_TEXT, NULL},
    {"File", "file", RENDER_INT, NULL},
    {"Confirmed by", "confirmed_by", RENDER_TEXT, NULL},
    {"Confirmed", "confirmed_at", RENDER_TIME, NULL},
    {"Ended by", "ended_by", RENDER_TEXT, NULL},
    {"Bank's fee", "fee", RENDER_MONEY, NULL},
    {"Borne by", "fee_by", RENDER_TEXT, NULL},
    {"Reason", "reason", RENDER_TEXT, NULL},
};

static int plain(struct cli *c, const char *method, const char *path, json_t *body,
                 json_t **ret, struct err *err)
{
    const struct cli_call call = {method, path, body, NULL};
    return cli_call(c, &call, ret, err);
}

/* --amount, --fee as a member of the body; absent: not there. */
static int put_money(struct cli *c, json_t *body, const char *option, struct err *err)
{
    const char *amount = opt_get(c->opts, option);
    json_t *money = NULL;
    if (amount == NULL)
        return 0;
    if (cli_open(c, err) < 0 ||
        query_money(amount, c->account.currency, &money, err) < 0)
        return err_prefix(err, "--%s", option);
    json_object_set_new(body, option, money);
    return 0;
}

static void put_text(struct cli *c, json_t *body, const char *option,
                     const char *member)
{
    const char *text = opt_get(c->opts, option);
    if (text != NULL)
        json_object_set_new(body, member, json_string(text));
}

/* ---- payouts ---- */

static int list_payouts(struct cli *c, const struct render_col *cols, size_t count,
                        struct err *err)
{
    static const struct render_col balances[] = {
        {"PROVIDER", "provider", RENDER_TEXT, NULL},
        {"AVAILABLE", "available", RENDER_MONEY, NULL},
        {"RESERVE", "reserve", RENDER_MONEY, NULL},
    };
    json_t *reply = NULL;
    struct strbuf out = STRBUF_INIT;
    int rc = cli_get_list(c, "/v1/payouts", "payouts", &reply, err);
    if (rc == 0 && c->render.format == RENDER_TABLE) {
        render_rows(json_object_get(reply, "balances"), balances,
                    RENDER_COUNT_OF(balances), &c->render, &out);
        strbuf_addc(&out, '\n');
        rc = cli_print(&out, err);
    }
    if (rc == 0)
        rc = cli_print_list(c, reply, "payouts", cols, count, "no payouts so far", err);
    strbuf_done(&out);
    json_decref(reply);
    return rc;
}

int cmd_admin_payout_list(struct cli *c, struct err *err)
{
    return list_payouts(c, payout_cols, RENDER_COUNT_OF(payout_cols), err);
}

int cmd_provider_payouts(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"ID", "id", RENDER_INT, NULL},
        {"AMOUNT", "amount", RENDER_MONEY, NULL},
        {"STATE", "state", RENDER_TEXT, NULL},
        {"ASKED", "created_at", RENDER_TIME, NULL},
        {"FEE", "fee", RENDER_MONEY, NULL},
        {"REASON", "reason", RENDER_TEXT, NULL},
    };
    return list_payouts(c, cols, RENDER_COUNT_OF(cols), err);
}

int cmd_admin_payout_request(struct cli *c, struct err *err)
{
    json_t *body = json_pack("{s:s}", "provider", c->opts->args[0]), *reply = NULL;
    int rc = put_money(c, body, "amount", err);
    if (rc == 0)
        rc = cli_post_once(c, "/v1/payouts", body, "doing it twice", &reply, err);
    if (rc == 0)
        rc = cli_print_card(c, reply, payout_card, RENDER_COUNT_OF(payout_card), err);
    json_decref(body);
    json_decref(reply);
    return rc;
}

static int act(struct cli *c, const char *what, struct err *err)
{
    json_t *body = json_pack("{s:s}", "act", what), *reply = NULL;
    char *path = cli_path("/v1/payouts/", c->opts->args[0], "");
    put_text(c, body, "reason", "reason");
    put_text(c, body, "fee-by", "fee_by");
    int rc = put_money(c, body, "amount", err);
    if (rc == 0)
        rc = put_money(c, body, "fee", err);
    if (rc == 0)
        rc = plain(c, "PATCH", path, body, &reply, err);
    if (rc == 0)
        rc = cli_print_card(c, reply, payout_card, RENDER_COUNT_OF(payout_card), err);
    free(path);
    json_decref(body);
    json_decref(reply);
    return rc;
}

int cmd_admin_payout_approve(struct cli *c, struct err *err)
{
    return act(c, "approve", err);
}
int cmd_admin_payout_reject(struct cli *c, struct err *err)
{
    return act(c, "reject", err);
}
int cmd_admin_payout_done(struct cli *c, struct err *err)
{
    return act(c, "done", err);
}
int cmd_admin_payout_returned(struct cli *c, struct err *err)
{
    return act(c, "returned", err);
}

/* The bank's own bytes, which are no UTF-8. */
static int save_file(const json_t *reply, const char *name, struct err *err)
{
    const char *text = json_string_value(json_object_get(reply, "data"));
    if (text == NULL)
        return err_set(err, ERR_INTERNAL, "the server sent no file");
    size_t cap = B64_DEC_MAX(strlen(text)) + 1;
    uint8_t *data = xcalloc(1, cap);
    ptrdiff_t len = b64_decode(text, strlen(text), data, cap);
    int rc = len < 0 ? err_set(err, ERR_INTERNAL, "the server's file is malformed")
                     : fsx_write(name, data, (size_t)len, 0600, err);
    free(data);
    return rc;
}

static bool is_day(const char *text)
{
    char time[32];
    int64_t us;
    return strlen(text) == 10 &&
           snprintf(time, sizeof(time), "%sT00:00:00Z", text) < (int)sizeof(time) &&
           timefmt_parse(time, &us, NULL) == 0;
}

int cmd_admin_payout_file(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"File", "id", RENDER_INT, NULL},
        {"Format", "format", RENDER_TEXT, NULL},
        {"To be paid on", "pay_on", RENDER_TEXT, NULL},
        {"Payouts", "count", RENDER_INT, NULL},
        {"Total", "total", RENDER_MONEY, NULL},
    };
    const char *on = opt_get(c->opts, "on"), *again = opt_get(c->opts, "again"),
               *out = opt_get(c->opts, "to");
    json_t *body = NULL, *reply = NULL;
    int rc;
    if (out == NULL || (on == NULL) == (again == NULL))
        return err_set(err, ERR_USAGE,
                       "say where to, and when it shall be paid (or which file "
                       "again): --to FILE --on DAY | --again ID");
    if (on != NULL && !is_day(on))
        return err_set(err, ERR_USAGE, "--on: '%.40s' is no day such as 2026-11-30",
                       on);
    if (again != NULL) {
        char *path = cli_path("/v1/payout-files/", again, "");
        rc = cli_get(c, path, &reply, err);
        free(path);
    } else {
        body = json_pack("{s:s}", "pay_on", on);
        rc = cli_post_once(c, "/v1/payout-files", body, "doing it twice", &reply, err);
    }
    if (rc == 0 && (rc = save_file(reply, out, err)) < 0)
        err_prefix(err, "file %" PRId64 " was made (--again gets it)",
                   (int64_t)json_integer_value(json_object_get(reply, "id")));
    if (rc == 0)
        rc = cli_print_card(c, reply, cols, RENDER_COUNT_OF(cols), err);
    json_decref(body);
    json_decref(reply);
    return rc;
}

/* What the server can take in one request, less what is around the file's text. */
#define RESULTS_BYTES_MAX ((HTTP_BODY_MAX - 1024) / 4 * 3)

static int list_results(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"READ", "at", RENDER_TIME, NULL},
        {"BY", "read_by", RENDER_TEXT, NULL},
        {"FORMAT", "format", RENDER_TEXT, NULL},
        {"DONE", "done", RENDER_INT, NULL},
        {"RETURNED", "returned", RENDER_INT, NULL},
        {"CHANGED", "changed", RENDER_INT, NULL},
        {"SHA-256", "sha256", RENDER_TEXT, NULL},
    };
    json_t *reply = NULL;
    int rc = cli_get_list(c, "/v1/payout-results", "results", &reply, err);
    if (rc == 0)
        rc = cli_print_list(c, reply, "results", cols, RENDER_COUNT_OF(cols),
                            "no file was read so far", err);
    json_decref(reply);
    return rc;
}

int cmd_admin_payout_results(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"LINE", "line", RENDER_INT, NULL},
        {"PAYOUT", "payout", RENDER_INT, NULL},
        {"PROVIDER", "provider", RENDER_TEXT, NULL},
        {"AMOUNT", "amount", RENDER_MONEY, NULL},
        {"STATE", "state", RENDER_TEXT, NULL},
        {"CHANGED", "changed", RENDER_YES, NULL},
        {"REASON", "reason", RENDER_TEXT, NULL},
    };
    char *data = NULL;
    size_t len = 0;
    struct strbuf text = STRBUF_INIT;
    json_t *reply = NULL;
    if (c->opts->arg_count == 0)
        return list_results(c, err);
    if (fsx_read(c->opts->args[0], RESULTS_BYTES_MAX, &data, &len, err) < 0)
        return -1;
    if (len == 0) {
        free(data);
        return err_set(err, ERR_USAGE, "%s is empty", c->opts->args[0]);
    }
    b64_encode_to(&text, data, len);
    free(data);
    json_t *body = json_pack("{s:s}", "data", strbuf_str(&text));
    int rc =
        cli_post_once(c, "/v1/payout-results", body, "doing it twice", &reply, err);
    if (rc == 0)
        rc = cli_print_list(c, reply, "lines", cols, RENDER_COUNT_OF(cols),
                            "the file says nothing", err);
    strbuf_done(&text);
    json_decref(body);
    json_decref(reply);
    return rc;
}

/* ---- administrators ---- */

static void tell_pending(const json_t *admin)
{
    const char *name = json_string_value(json_object_get(admin, "name"));
    if (json_is_true(json_object_get(admin, "pending")))
        cli_note("the key opens nothing until another administrator approves: neargpu "
                 "admin user approve %s",
                 name);
    else if (json_is_true(json_object_get(admin, "alone")))
        cli_note("%s needs nobody's approval: there was no other administrator to ask",
                 name);
}

int cmd_admin_user_add(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"Name", "name", RENDER_TEXT, NULL},
        {"API key", "api_key", RENDER_TEXT, NULL},
    };
    json_t *body = json_pack("{s:s}", "name", c->opts->args[0]), *reply = NULL;
    int rc = plain(c, "POST", "/v1/admins", body, &reply, err);
    const char *file = opt_get(c->opts, "key-file"),
               *key = json_string_value(json_object_get(reply, "api_key"));
    if (rc == 0 && file != NULL && key != NULL) {
        char *line = xasprintf("%s\n", key);
        if (fsx_write(file, line, strlen(line), 0600, err) < 0)
            cli_note("%s; the API key is shown instead", err->text);
        else
            json_object_del(reply, "api_key");
        explicit_bzero(line, strlen(line));
        free(line);
    }
    if (rc == 0)
        rc = cli_print_card(
            c, reply, cols,
            RENDER_COUNT_OF(cols) - (json_object_get(reply, "api_key") == NULL), err);
    if (rc == 0)
        tell_pending(reply);
    json_decref(body);
    json_decref(reply);
    return rc;
}

int cmd_admin_user_list(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"NAME", "name", RENDER_TEXT, NULL},
        {"WAITS", "pending", RENDER_YES, NULL},
        {"MADE", "created_at", RENDER_TIME, NULL},
        {"MADE BY", "made_by", RENDER_TEXT, NULL},
        {"APPROVED BY", "approved_by", RENDER_TEXT, NULL},
        {"ID", "id", RENDER_TEXT, NULL},
    };
    json_t *reply = NULL;
    int rc = cli_get(c, "/v1/admins", &reply, err);
    if (rc == 0)
        rc = cli_print_list(c, reply, "admins", cols, RENDER_COUNT_OF(cols), "none",
                            err);
    json_decref(reply);
    return rc;
}

int cmd_admin_user_approve(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"Name", "name", RENDER_TEXT, NULL},
        {"Made by", "made_by", RENDER_TEXT, NULL},
        {"Approved by", "approved_by", RENDER_TEXT, NULL},
    };
    char *path = cli_path("/v1/admins/", c->opts->args[0], "/approve");
    json_t *reply = NULL;
    int rc = plain(c, "POST", path, NULL, &reply, err);
    if (rc == 0)
        rc = cli_print_card(c, reply, cols, RENDER_COUNT_OF(cols), err);
    free(path);
    json_decref(reply);
    return rc;
}

int cmd_admin_user_rm(struct cli *c, struct err *err)
{
    char *path = cli_path("/v1/admins/", c->opts->args[0], "");
    json_t *reply = NULL;
    int rc = plain(c, "DELETE", path, NULL, &reply, err);
    free(path);
    json_decref(reply);
    return rc;
}

/* ---- terms and accounts at banks ---- */

/* As it stands on paper, in groups of four: without them, in capitals. */
static void join_iban(json_t *bank)
{
    const char *text = json_string_value(json_object_get(bank, "iban"));
    if (text == NULL)
        return;
    char *iban = xstrdup(text), *to = iban;
    for (const char *p = text; *p != '\0'; p++)
        if (*p != ' ')
            *to++ = *p >= 'a' && *p <= 'z' ? (char)(*p - 'a' + 'A') : *p;
    *to = '\0';
    json_object_set_new(bank, "iban", json_string(iban));
    free(iban);
}

/* {bank, branch, type, …} from the options; NULL when none was given. */
static json_t *bank_of(struct cli *c)
{
    static const char *const names[][2] = {
        {"bank", "bank"},         {"bank-name", "bank_name"},
        {"branch", "branch"},     {"branch-name", "branch_name"},
        {"type", "type"},         {"number", "number"},
        {"holder", "holder"},     {"client", "client"},
        {"iban", "iban"},         {"bic", "bic"},
        {"account-no", "account"}};
    json_t *bank = json_object();
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        put_text(c, bank, names[i][0], names[i][1]);
    join_iban(bank);
    if (json_object_size(bank) > 0)
        return bank;
    json_decref(bank);
    return NULL;
}

/* A market in yen has the second, any other the first. */
static const struct render_col abroad_cols[] = {
    {"Holder", "bank.holder", RENDER_TEXT, NULL},
    {"IBAN", "bank.iban", RENDER_TEXT, NULL},
    {"BIC", "bank.bic", RENDER_TEXT, NULL},
    {"Account", "bank.account", RENDER_TEXT, NULL},
    {"Bank", "bank.bank_name", RENDER_TEXT, NULL},
    {"Registration", "registration", RENDER_TEXT, NULL},
    {"Reserve", "reserve_ppm", RENDER_PPM, NULL},
};
static const struct render_col bank_cols[] = {
    {"Bank", "bank.bank", RENDER_TEXT, NULL},
    {"Branch", "bank.branch", RENDER_TEXT, NULL},
    {"Type", "bank.type", RENDER_TEXT, NULL},
    {"Number", "bank.number", RENDER_TEXT, NULL},
    {"Holder", "bank.holder", RENDER_TEXT, NULL},
    {"Registration", "registration", RENDER_TEXT, NULL},
    {"Reserve", "reserve_ppm", RENDER_PPM, NULL},
};
/* The market's own: its registration number is of its configuration. */
static const struct render_col terms_cols[] = {
    {"Bank", "bank.bank", RENDER_TEXT, NULL},
    {"Branch", "bank.branch", RENDER_TEXT, NULL},
    {"Type", "bank.type", RENDER_TEXT, NULL},
    {"Number", "bank.number", RENDER_TEXT, NULL},
    {"Holder", "bank.holder", RENDER_TEXT, NULL},
    {"Reserve", "reserve_ppm", RENDER_PPM, NULL},
    {"Dispute window", "dispute_window_s", RENDER_SECONDS, NULL},
    {"Reserve for", "reserve_for_s", RENDER_SECONDS, NULL},
    {"Hold window", "hold_window_s", RENDER_SECONDS, "the whole lease"},
    {"Issuer's address", "issuer_address", RENDER_TEXT, NULL},
};

static int print_bank(struct cli *c, const json_t *reply, struct err *err)
{
    const json_t *bank = json_object_get(reply, "bank");
    bool abroad = json_is_object(bank) && json_object_get(bank, "branch") == NULL;
    return cli_print_card(c, reply, abroad ? abroad_cols : bank_cols,
                          RENDER_COUNT_OF(bank_cols), err);
}

int cmd_provider_bank(struct cli *c, struct err *err)
{
    json_t *reply = NULL;
    int rc = cli_get(c, "/v1/bank", &reply, err);
    if (rc == 0)
        rc = print_bank(c, reply, err);
    json_decref(reply);
    return rc;
}

int cmd_provider_bank_set(struct cli *c, struct err *err)
{
    json_t *body = json_object(), *bank = bank_of(c), *reply = NULL;
    if (bank != NULL)
        json_object_set_new(body, "bank", bank);
    put_text(c, body, "registration", "registration");
    int rc = plain(c, "PATCH", "/v1/bank", body, &reply, err);
    if (rc == 0)
        rc = print_bank(c, reply, err);
    json_decref(body);
    json_decref(reply);
    return rc;
}

int cmd_admin_terms(struct cli *c, struct err *err)
{
    json_t *body = json_object(), *bank = bank_of(c), *reply = NULL;
    const char *reserve = opt_get(c->opts, "reserve"),
               *provider = opt_get(c->opts, "provider");
    int64_t ppm;
    int rc = 0;
    if (bank != NULL)
        json_object_set_new(body, "bank", bank);
    put_text(c, body, "dispute-window", "dispute_window");
    put_text(c, body, "reserve-for", "reserve_for");
    put_text(c, body, "hold-window", "hold_window");
    if (opt_get(c->opts, "issuer-address") != NULL)
        json_object_set_new(body, "issuer_address",
                            cli_lines(opt_get(c->opts, "issuer-address")));
    if (reserve != NULL && (rc = when_parse_ppm(reserve, &ppm, err)) < 0)
        err_prefix(err, "--reserve");
    else if (reserve != NULL)
        json_object_set_new(body, "reserve_ppm", json_integer(ppm));
    if (rc == 0 && provider != NULL) {
        char *path = cli_path("/v1/providers/", provider, "");
        rc = plain(c, "PATCH", path, body, &reply, err);
        free(path);
    } else if (rc == 0 && json_object_size(body) == 0) {
        rc = cli_get(c, "/v1/terms", &reply, err);
    } else if (rc == 0) {
        rc = plain(c, "PATCH", "/v1/terms", body, &reply, err);
    }
    if (rc == 0 && provider != NULL)
        rc = print_bank(c, reply, err);
    else if (rc == 0)
        rc = cli_print_card(c, reply, terms_cols, RENDER_COUNT_OF(terms_cols), err);
    json_decref(body);
    json_decref(reply);
    return rc;
}
