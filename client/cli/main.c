/* neargpu: what tenants, providers and administrators type. Parses by the table in
 * commands.c, calls one command, prints at most one line of error, exits with the
 * documented status. */
#include <assert.h>
#include <fcntl.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "client/cli/cli.h"
#include "client/lib/clock.h"
#include "client/lib/timefmt.h"
#include "config.h"

static cli_fn *const handlers[CMD_COUNT] = {
    [CMD_LOGIN] = cmd_login,
    [CMD_LOGOUT] = cmd_logout,
    [CMD_WHOAMI] = cmd_whoami,
    [CMD_KEY_LIST] = cmd_key_list,
    [CMD_KEY_ADD] = cmd_key_add,
    [CMD_KEY_RM] = cmd_key_rm,
    [CMD_DATA_ADD] = cmd_data_add,
    [CMD_DATA_LIST] = cmd_data_list,
    [CMD_DATA_SHOW] = cmd_data_show,
    [CMD_DATA_RM] = cmd_data_rm,
    [CMD_PROFILES] = cmd_profiles,
    [CMD_OFFERS] = cmd_offers,
    [CMD_CALENDAR] = cmd_calendar,
    [CMD_EXPLAIN] = cmd_explain,
    [CMD_QUOTE] = cmd_quote,
    [CMD_RESERVE] = cmd_reserve,
    [CMD_LIST] = cmd_list,
    [CMD_SHOW] = cmd_show,
    [CMD_EXTEND] = cmd_extend,
    [CMD_SHRINK] = cmd_shrink,
    [CMD_MOVE] = cmd_move,
    [CMD_CANCEL] = cmd_cancel,
    [CMD_TOKEN] = cmd_token,
    [CMD_RUN] = cmd_run,
    [CMD_SSH] = cmd_ssh,
    [CMD_ADOPT] = cmd_adopt,
    [CMD_USAGE] = cmd_usage,
    [CMD_WALLET] = cmd_wallet,
    [CMD_DISPUTE] = cmd_dispute,
    [CMD_CREDIT_NOTE_LIST] = cmd_credit_note_list,
    [CMD_CREDIT_NOTE_SHOW] = cmd_credit_note_show,
    [CMD_PROVIDER_PAYOUTS] = cmd_provider_payouts,
    [CMD_PROVIDER_STATEMENT] = cmd_provider_statement,
    [CMD_PROVIDER_BANK] = cmd_provider_bank,
    [CMD_PROVIDER_BANK_SET] = cmd_provider_bank_set,
    [CMD_ADMIN_USER_ADD] = cmd_admin_user_add,
    [CMD_ADMIN_USER_LIST] = cmd_admin_user_list,
    [CMD_ADMIN_USER_APPROVE] = cmd_admin_user_approve,
    [CMD_ADMIN_PAYOUT_RESULTS] = cmd_admin_payout_results,
    [CMD_ADMIN_USER_RM] = cmd_admin_user_rm,
    [CMD_ADMIN_TERMS] = cmd_admin_terms,
    [CMD_ADMIN_PAYOUT_REQUEST] = cmd_admin_payout_request,
    [CMD_ADMIN_PAYOUT_LIST] = cmd_admin_payout_list,
    [CMD_ADMIN_PAYOUT_APPROVE] = cmd_admin_payout_approve,
    [CMD_ADMIN_PAYOUT_REJECT] = cmd_admin_payout_reject,
    [CMD_ADMIN_PAYOUT_FILE] = cmd_admin_payout_file,
    [CMD_ADMIN_PAYOUT_DONE] = cmd_admin_payout_done,
    [CMD_ADMIN_PAYOUT_RETURNED] = cmd_admin_payout_returned,
    [CMD_ADMIN_REFUND] = cmd_admin_refund,
    [CMD_ADMIN_WITHDRAW] = cmd_admin_withdraw,
    [CMD_INVOICE_LIST] = cmd_invoice_list,
    [CMD_INVOICE_SHOW] = cmd_invoice_show,
    [CMD_BILLING] = cmd_billing,
    [CMD_VERIFY] = cmd_verify,
    [CMD_WITNESS] = cmd_witness,
    [CMD_PROVIDER_JOIN_CODE] = cmd_provider_join_code,
    [CMD_PROVIDER_NODES] = cmd_provider_nodes,
    [CMD_PROVIDER_REATTEST] = cmd_provider_reattest,
    [CMD_PROVIDER_PRICE] = cmd_provider_price,
    [CMD_ADMIN_TENANT_CREATE] = cmd_admin_tenant_create,
    [CMD_ADMIN_TENANT_LIST] = cmd_admin_tenant_list,
    [CMD_ADMIN_TENANT_SET] = cmd_admin_tenant_set,
    [CMD_BUDGET_SET] = cmd_budget_set,
    [CMD_BUDGET_SHOW] = cmd_budget_show,
    [CMD_BUDGET_RM] = cmd_budget_rm,
    [CMD_ADMIN_PROMO_GRANT] = cmd_admin_promo_grant,
    [CMD_ADMIN_PROMO_LIST] = cmd_admin_promo_list,
    [CMD_ADMIN_INCIDENT_OPEN] = cmd_admin_incident_open,
    [CMD_ADMIN_INCIDENT_CLOSE] = cmd_admin_incident_close,
    [CMD_ADMIN_INCIDENT_LIST] = cmd_admin_incident_list,
    [CMD_ADMIN_SLA_CREDIT] = cmd_admin_sla_credit,
    [CMD_ADMIN_SLA_TERMS] = cmd_admin_sla_terms,
    [CMD_INCIDENTS] = cmd_incidents,
    [CMD_SLA] = cmd_sla,
    [CMD_ADMIN_FX_SET] = cmd_admin_fx_set,
    [CMD_ADMIN_FX_LIST] = cmd_admin_fx_list,
    [CMD_ADMIN_TAX_LIST] = cmd_admin_tax_list,
    [CMD_ADMIN_TAX_RATE] = cmd_admin_tax_rate,
    [CMD_ADMIN_TAX_CLASS] = cmd_admin_tax_class,
    [CMD_ADMIN_TENANT_TOPUP] = cmd_admin_tenant_topup,
    [CMD_ADMIN_PROVIDER_CREATE] = cmd_admin_provider_create,
    [CMD_ADMIN_PROVIDER_LIST] = cmd_admin_provider_list,
    [CMD_ADMIN_SITE_ADD] = cmd_admin_site_add,
    [CMD_ADMIN_SITE_LIST] = cmd_admin_site_list,
    [CMD_ADMIN_NODE_BAN] = cmd_admin_node_ban,
    [CMD_ADMIN_NODE_UNBAN] = cmd_admin_node_unban,
    [CMD_ADMIN_PATH_ADD] = cmd_admin_path_add,
    [CMD_ADMIN_PATH_LIST] = cmd_admin_path_list,
    [CMD_ADMIN_PATH_SET] = cmd_admin_path_set,
    [CMD_ADMIN_DRILL] = cmd_admin_drill,
    [CMD_ADMIN_REPORT] = cmd_admin_report,
    [CMD_ADMIN_STATUS] = cmd_admin_status,
    [CMD_ADMIN_AUDIT] = cmd_admin_audit,
    [CMD_ADMIN_WITNESS_LIST] = cmd_admin_witness_list,
};

static int zone_utc(int64_t us)
{
    (void)us;
    return 0;
}

static int zone_local(int64_t us)
{
    struct tm tm;
    time_t t = (time_t)(us / US_PER_S);
    return localtime_r(&t, &tm) != NULL ? (int)tm.tm_gmtoff : 0;
}

static int pick_format(const struct opt_values *opts, struct cli *c, struct err *err)
{
    const char *format = opt_get(opts, "output");
    if (format == NULL || strcmp(format, "table") == 0)
        c->render.format = RENDER_TABLE;
    else if (strcmp(format, "json") == 0)
        c->render.format = RENDER_JSON;
    else if (strcmp(format, "csv") == 0)
        c->render.format = RENDER_CSV;
    else
        return err_set(err, ERR_USAGE, "-o %.20s: write table, json or csv", format);
    return 0;
}

static int print_text(char *text)
{
    fputs(text, stdout);
    free(text);
    return fflush(stdout) == 0 ? 0 : 1;
}

/* jansson drops a string that is no UTF-8: a bound or filter would be left out of the
 * request without a word. The arguments of `run` are checked where they are packed. */
static int check_text(const struct opt_values *opts, struct err *err)
{
    for (size_t i = 0; i < opts->given_count; i++) {
        const struct opt_def *def = opts->given[i].def;
        json_t *text = json_string(opts->given[i].value);
        json_decref(text);
        if (text == NULL && def->arg != NULL && strcmp(def->arg, "FILE") != 0)
            return err_set(err, ERR_USAGE, "--%s: is no UTF-8 text", def->name);
    }
    for (int i = 0; i < opts->arg_count && !opts->command->rest; i++) {
        json_t *text = json_string(opts->args[i]);
        json_decref(text);
        if (text == NULL)
            return err_set(err, ERR_USAGE, "argument %d is no UTF-8 text", i + 1);
    }
    return 0;
}

static int run_command(struct cli *c, struct err *err)
{
    const char *no_colour = getenv("NO_COLOR");
    const char *term = getenv("TERM");
    if (pick_format(c->opts, c, err) < 0 || check_text(c->opts, err) < 0)
        return -1;
    if (opt_has(c->opts, "utc"))
        c->render.zone = c->when.zone = zone_utc;
    c->yes = opt_has(c->opts, "yes");
    c->render.colour = isatty(STDOUT_FILENO) &&
                       (no_colour == NULL || *no_colour == '\0') &&
                       (term == NULL || strcmp(term, "dumb") != 0);
    cli_fn *fn = handlers[c->opts->command - cli_program.commands];
    assert(fn != NULL);
    return fn(c, err);
}

static int fail(const struct cli *c, const struct err *err)
{
    struct strbuf line = STRBUF_INIT; /* may quote the server: keep it one clean line */
    render_sentence(&line, err->text, c->render.zone);
    fprintf(stderr, "neargpu: %s\n", strbuf_str(&line));
    strbuf_done(&line);
    return cli_exit_status(err->code);
}

/* A socket must never get the number of a closed standard stream and then its text. */
static int open_standard(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 &&
            open("/dev/null", fd == 0 ? O_RDONLY : O_WRONLY) != fd)
            return -1;
    return 0;
}

/* `help VERB` is `VERB --help`. */
static void help_is_an_option(int argc, char **argv)
{
    static char option[] = "--help";
    if (argc < 2 || strcmp(argv[1], "help") != 0)
        return;
    memmove(argv + 1, argv + 2, (size_t)(argc - 2) * sizeof(*argv));
    argv[argc - 1] = option;
}

int main(int argc, char **argv)
{
    struct opt_values opts = {0};
    struct err err = {ERR_NONE, ""};
    struct cli c = {.opts = &opts,
                    .render = {RENDER_TABLE, zone_local, false, -1},
                    .when = {clock_now_us(), zone_local}};
    char *made = NULL;
    int status;

    if (open_standard() < 0)
        return 1;
    setlocale(LC_CTYPE, "");
    signal(SIGPIPE, SIG_IGN);
    help_is_an_option(argc, argv);
    argc = when_join_between(argc, argv, &c.when, &made);
    if (opt_parse(&cli_program, argc, argv, &opts, &err) < 0)
        status = fail(&c, &err);
    else if (opts.version)
        status = printf("neargpu %s\n", PACKAGE_VERSION) > 0 ? 0 : 1;
    else if (opts.man)
        status = print_text(opt_man(&cli_program));
    else if (opts.help || opts.command == NULL)
        status = print_text(opt_help(&cli_program, opts.command));
    else if (run_command(&c, &err) < 0)
        status = fail(&c, &err);
    else
        status = c.status;
    cli_done(&c);
    opt_done(&opts);
    free(made);
    return status;
}
