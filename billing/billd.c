/* neargpu-billd: rates signed usage, keeps the ledger moving, issues invoices.
 *
 * One round after the other: rate receipts, bill paths, release holds, credit, issue
 * invoices of months that ended, settle, roll up what reports read (rollup.h). Beside
 * the rounds, however long one takes, two turns with connections of their own (turn.h):
 * one gives what is new its place in the verifiable log, every second (sequencer.h),
 * and one checks what must be empty. State is in the database alone; several billds are
 * safe (an advisory lock orders them) and useless. It decides no price and touches no
 * table: only the api.billing_* functions.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "billing/export.h"
#include "billing/pgtx.h"
#include "billing/rollup.h"
#include "billing/rounds.h"
#include "billing/sequencer.h"
#include "billing/settle.h"
#include "billing/turn.h"
#include "client/lib/clock.h"
#include "client/lib/conf.h"
#include "client/lib/fsx.h"
#include "client/lib/log.h"
#include "client/lib/money.h"
#include "client/lib/opt.h"
#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define CONF_PATH  "/etc/neargpu/billd.conf"
#define CHECK_REST 19 /* checks take at most a twentieth of the time */
#define ONCE_TRIES 5

struct billd_conf {
    char *database, *data_dir, *log_key;
    int64_t interval_us, grace_us, check_us, log_us, rollup_us;
};
static const struct conf_key keys[] = {
    {"database", CONF_STRING, offsetof(struct billd_conf, database), NULL,
     "libpq connection string; default: the private cluster in data_dir", 0, 0},
    {"data_dir", CONF_STRING, offsetof(struct billd_conf, data_dir), "/var/lib/neargpu",
     "neargpud's data directory", 0, 0},
    {"interval", CONF_DURATION, offsetof(struct billd_conf, interval_us), "5s",
     "pause between rounds", 100000, US_PER_HOUR},
    {"release_grace", CONF_DURATION, offsetof(struct billd_conf, grace_us), "1h",
     "a hold is given back this long after a lease's end even without the node's "
     "teardown "
     "receipt",
     0, 48 * US_PER_HOUR},
    {"check_interval", CONF_DURATION, offsetof(struct billd_conf, check_us), "10m",
     "how often the check views are read: they look at the whole ledger; less often "
     "when "
     "that takes long",
     US_PER_S, 48 * US_PER_HOUR},
    {"log_key", CONF_STRING, offsetof(struct billd_conf, log_key), NULL,
     "key that signs the verifiable log, made when it is not there; default: "
     "billd/log.key in data_dir",
     0, 0},
    {"rollup_interval", CONF_DURATION, offsetof(struct billd_conf, rollup_us), "15s",
     "how often the roll-ups that reports read are brought up to date; less often when "
     "that takes long",
     US_PER_S, US_PER_HOUR},
    {"log_interval", CONF_DURATION, offsetof(struct billd_conf, log_us), "1s",
     "how often new records are put into the verifiable log", 10000, 60 * US_PER_S},
};

static const struct opt_def common[] = {
    {"conf", 'c', "FILE", "configuration file; default: " CONF_PATH ", if it is there",
     false},
    {"data-dir", 'd', "DIR", "neargpud's data directory (its private cluster is used)",
     false},
    {"database", 0, "CONNINFO", "libpq connection string of the role neargpu_billd",
     false},
    {"log-key", 0, "FILE", "key that signs the verifiable log", false},
};
static const struct opt_def run_opts[] = {
    {"interval", 'i', "DURATION", "pause between rounds", false},
    {"once", '1', NULL, "one round, then exit", false},
};
static const struct opt_def invoice_opts[] = {
    {"tenant", 't', "NAME", "whose use to invoice", false},
    {"until", 'u', "TIME", "RFC 3339 instant, or `now`: use captured before it", false},
};
static const struct opt_def export_opts[] = {
    {"from", 0, "TIME", "RFC 3339 instant: transfers from here on", false},
    {"to", 0, "TIME", "RFC 3339 instant, or `now`: transfers before this", false},
};
static const struct opt_example export_examples[] = {
    {"neargpu-billd export >ledger.journal && hledger -f ledger.journal check --strict",
     "have another program count the whole ledger"},
};
static const struct opt_def reverse_opts[] = {
    {"transfer", 'n', "ID", "the top-up's number, as `neargpu wallet` shows it", false},
};
static const struct opt_def chargeback_opts[] = {
    {"topup", 0, "ID", "the top-up's number, as `neargpu wallet` shows it", false},
    {"reason", 0, "TEXT", "what the bank says", false},
};
static const struct opt_example chargeback_examples[] = {
    {"neargpu-billd chargeback --topup 17 --reason \"card disputed\"",
     "the bank took this top-up back"},
};
static const struct opt_example run_examples[] = {
    {"neargpu-billd --data-dir /var/lib/neargpu", "bill the market of this machine"},
};
static const struct opt_example invoice_examples[] = {
    {"neargpu-billd invoice --tenant kagaku-lab --until now",
     "issue an invoice before the month is over, when a tenant leaves"},
};
static const struct opt_command commands[] = {
    {.name = "",
     .args = "",
     .summary = "rate, release, invoice and check until ended",
     .opts = run_opts,
     .opt_count = 2,
     .examples = run_examples,
     .example_count = 1},
    {.name = "invoice",
     .args = "--tenant NAME --until TIME",
     .summary = "issue one tenant's invoice now and print its number",
     .opts = invoice_opts,
     .opt_count = 2,
     .examples = invoice_examples,
     .example_count = 1},
    {.name = "reverse",
     .args = "--transfer ID",
     .summary = "undo a top-up entered by mistake, by an opposite transfer",
     .opts = reverse_opts,
     .opt_count = 1},
    {.name = "chargeback",
     .args = "--topup ID --reason TEXT",
     .summary =
         "a top-up that the bank took back: out of the wallet as far as it "
         "reaches, the rest is owed and nothing can be reserved until it is paid",
     .opts = chargeback_opts,
     .opt_count = 2,
     .examples = chargeback_examples,
     .example_count = 1},
    {.name = "check",
     .args = "",
     .summary = "print what the check views hold; exit 6 when it is not nothing"},
    {.name = "export",
     .args = "",
     .summary = "print the ledger as a journal of hledger",
     .opts = export_opts,
     .opt_count = 2,
     .examples = export_examples,
     .example_count = 1},
    {.name = "verify-log",
     .args = "",
     .summary = "read the whole verifiable log again: is every record what was logged, "
                "and every signed head the root of its leaves? exit 6 when not"},
    {.name = "sample-conf", .args = "", .summary = "print the sample configuration"},
};
static const struct opt_program program = {
    .name = "neargpu-billd",
    .section = 8,
    .summary = "rates signed usage, keeps the double-entry ledger, issues invoices",
    .text = "Runs beside neargpud on the same database, as its own, smaller role.",
    .commands = commands,
    .command_count = sizeof(commands) / sizeof(commands[0]),
    .global = common,
    .global_count = sizeof(common) / sizeof(common[0]),
    .files = CONF_PATH,
    .exit_status =
        "0 done; 1 failed; 2 usage; 5 no such tenant or transfer; 6 a check view is "
        "not "
        "empty, or the ledger does not allow it; 7 the wallet does not cover it",
    .see_also = "neargpu(1), neargpud(8)",
};

#define KEYS keys, sizeof(keys) / sizeof(keys[0])

static int load_conf(const struct opt_values *v, struct billd_conf *conf,
                     struct err *err)
{
    static const char *const options[][2] = {{"data-dir", "data_dir"},
                                             {"database", "database"},
                                             {"interval", "interval"},
                                             {"log-key", "log_key"}};
    conf_defaults(KEYS, conf);
    const char *file = opt_get(v, "conf");
    if (file == NULL && access(CONF_PATH, F_OK) == 0)
        file = CONF_PATH;
    if (file != NULL && conf_read(file, KEYS, conf, err) != 0)
        return -1;
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        if (opt_has(v, options[i][0]) &&
            conf_set(KEYS, conf, options[i][1], opt_get(v, options[i][0]), err) != 0)
            return -1;
    return 0;
}

static char *database_info(const struct billd_conf *conf)
{
    if (conf->database != NULL)
        return xstrdup(conf->database);
    return xasprintf(
        "host=%s/run dbname=neargpu user=neargpu_billd application_name=neargpu-billd",
        conf->data_dir);
}

static int connect_database(const struct billd_conf *conf, PGconn **ret,
                            struct err *err)
{
    char *info = database_info(conf);
    int rc = pgtx_connect(info, ret, err);
    free(info);
    return rc;
}

/* Until none are left. */
static int rate_all(PGconn *pg, int *ret_count, struct err *err)
{
    int64_t start = clock_boot_us();
    int rc, count;
    *ret_count = 0;
    do {
        rc = rounds_rate(pg, &count, err);
        *ret_count += count;
    } while (rc == 0 && count > 0);
    if (*ret_count > 0)
        log_info("rated %d receipts in %lld ms", *ret_count,
                 (long long)(clock_boot_us() - start) / 1000);
    return rc;
}

/* Until none is due. */
static int hold_all(PGconn *pg, int *ret_count, struct err *err)
{
    int rc, count;
    *ret_count = 0;
    do {
        rc = rounds_hold(pg, &count, err);
        *ret_count += count;
    } while (rc == 0 && count == ROUNDS_HOLD_MAX);
    if (*ret_count > 0)
        log_info("looked at the holds of %d leases", *ret_count);
    return rc;
}

/* Every step is tried: one that fails for its own reason keeps no other from its work.
 * The first error is returned; a lost connection ends the round. */
static int one_round(PGconn *pg, const struct billd_conf *conf, struct err *err)
{
    struct err e, first = {.code = ERR_NONE};
    int rated = 0, paths = 0, released = 0, collected = 0, invoices = 0, credits = 0;
    int held = 0;
    int64_t settled = 0;
    for (int step = 0; step < 8 && first.code != ERR_UNAVAILABLE; step++) {
        int rc = 0;
        if (step == 0) /* before the use is rated that they are to pay for */
            rc = hold_all(pg, &held, &e);
        else if (step == 1)
            rc = rate_all(pg, &rated, &e);
        else if (step == 2)
            rc = rounds_paths(pg, &paths, &e);
        else if (step == 3)
            rc = rounds_release(pg, conf->grace_us, &released, &e);
        else if (step == 4)
            rc = rounds_credit(pg, &credits, &e);
        else if (step == 5)
            rc = rounds_invoices_due(pg, &invoices, &e);
        else if (step == 6)
            rc = rounds_collect(pg, &collected, &e);
        else
            rc = settle_all(pg, &settled, &e);
        if (rc != 0 && (first.code == ERR_NONE || e.code == ERR_UNAVAILABLE))
            first = e;
    }
    if (paths + released + collected + invoices + settled > 0)
        log_info(
            "billed %d paths, released %d holds, issued %d invoices, collected from "
            "%d wallets, settled %lld captures and reserves",
            paths, released, invoices, collected, (long long)settled);
    if (credits > 0)
        log_info("credited, or used or took back promotional credit, %d times",
                 credits);
    return first.code == ERR_NONE ? 0 : err_set(err, first.code, "%s", first.text);
}

static int check_turn(void *arg, PGconn *pg, struct err *err)
{
    char *breaches;
    (void)arg;
    if (rounds_check(pg, &breaches, err) != 0)
        return -1;
    for (const char *line = breaches; *line != '\0'; line += strcspn(line, "\n") + 1)
        log_error("what must be empty is not: %.*s", (int)strcspn(line, "\n"), line);
    free(breaches);
    return 0;
}

/* Ends at once, wherever it is: every posting is one statement that the database makes
 * whole or not at all, and repeats nothing. */
static void on_end(int sig)
{
    (void)sig;
    _exit(0);
}

/* NULL in *ret: this market keeps no log. */
static int open_sequencer(const struct billd_conf *conf, struct sequencer **ret,
                          struct err *err)
{
    int rc = 0;
    *ret = NULL;
    if (conf->log_key != NULL)
        return sequencer_open(conf->log_key, ret, err);
    char *dir = xasprintf("%s/billd", conf->data_dir);
    char *file = xasprintf("%s/log.key", dir);
    if (access(conf->data_dir, F_OK) != 0)
        log_warn("no verifiable log is kept: no log_key is set, and %s is not here",
                 conf->data_dir);
    else if (fsx_mkdirs(dir, 0700, err) != 0)
        log_warn("no verifiable log is kept: no log_key is set, and %s", err->text);
    else
        rc = sequencer_open(file, ret, err);
    free(file);
    free(dir);
    return rc;
}

static int log_turn(void *arg, PGconn *pg, struct err *err)
{
    int64_t count;
    return sequencer_round(arg, pg, &count, err);
}

/* Rounds without an end, and the turns beside them. */
static int run_service(const struct billd_conf *conf, struct sequencer *sequencer,
                       struct err *err)
{
    char *info = database_info(conf);
    const struct turn log = {info, log_turn, sequencer, conf->log_us, 0};
    const struct turn check = {info, check_turn, NULL, conf->check_us, CHECK_REST};
    struct rollup rollup = {0};
    PGconn *pg = NULL;
    int days;
    int rc = turn_start(&check, err);
    if (rc == 0 && sequencer != NULL)
        rc = turn_start(&log, err);
    if (rc != 0) {
        free(info);
        return -1;
    }
    for (;;) {
        rc = pg == NULL ? pgtx_connect(info, &pg, err) : 0;
        if (rc == 0)
            rc = one_round(pg, conf, err);
        if (rc == 0)
            rc = rollup_turn(&rollup, pg, conf->rollup_us, false, &days, err);
        if (rc != 0)
            log_warn("%s; trying again", err->text);
        if (rc != 0 && pg != NULL && PQstatus(pg) != CONNECTION_OK) {
            PQfinish(pg);
            pg = NULL;
        }
        turn_pause(conf->interval_us);
    }
}

/* All of it one after the other; what was logged last is what the round made. */
static int run_once(const struct billd_conf *conf, struct sequencer *sequencer,
                    struct err *err)
{
    struct rollup rollup = {0};
    PGconn *pg;
    int days;
    if (connect_database(conf, &pg, err) != 0)
        return -1;
    int rc = one_round(pg, conf, err);
    if (rc == 0)
        rc = rollup_turn(&rollup, pg, conf->rollup_us, true, &days, err);
    if (rc == 0)
        rc = check_turn(NULL, pg, err);
    /* Somebody who was killed may have appended still. */
    for (int tries = 0; rc == 0 && sequencer != NULL && tries < ONCE_TRIES; tries++) {
        if (log_turn(sequencer, pg, err) == 0)
            break;
        log_warn("%s", err->text);
        if (err->code != ERR_CONFLICT)
            break;
    }
    PQfinish(pg);
    return rc;
}

static int run(const struct billd_conf *conf, bool once, struct err *err)
{
    struct sigaction end = {.sa_handler = on_end};
    struct sequencer *sequencer;
    if (open_sequencer(conf, &sequencer, err) != 0)
        return -1;
    sigaction(SIGTERM, &end, NULL);
    sigaction(SIGINT, &end, NULL);
    int rc = once ? run_once(conf, sequencer, err) : run_service(conf, sequencer, err);
    sequencer_free(sequencer);
    return rc;
}

static int until_text(const char *option, const char *text, char out[TIMEFMT_MAX],
                      struct err *err)
{
    int64_t us;
    if (strcmp(text, "now") == 0)
        us = clock_now_us();
    else if (timefmt_parse(text, &us, err) != 0)
        return err_prefix(err, "%s", option);
    timefmt_utc(us, out);
    return 0;
}

static int invoice(const struct billd_conf *conf, const struct opt_values *v,
                   struct err *err)
{
    const char *tenant = opt_get(v, "tenant"), *until = opt_get(v, "until");
    char when[TIMEFMT_MAX], number[32];
    PGconn *pg;
    int rated;
    if (tenant == NULL || until == NULL)
        return err_set(err, ERR_USAGE, "invoice needs --tenant NAME and --until TIME");
    if (until_text("--until", until, when, err) != 0 ||
        connect_database(conf, &pg, err) != 0)
        return -1;
    int rc = rounds_rate(pg, &rated, err);
    if (rc == 0)
        rc = until_text("--until", until, when,
                        err); /* `now` is after what was just rated */
    if (rc == 0)
        rc = rounds_invoice(pg, tenant, when, number, sizeof(number), err);
    if (rc == 0)
        puts(number[0] != '\0' ? number : "nothing to invoice");
    PQfinish(pg);
    return rc;
}

static int transfer_id(const char *option, const char *text, int64_t *ret,
                       struct err *err)
{
    char *end;
    errno = 0;
    long long id = strtoll(text, &end, 10);
    if (errno != 0 || *end != '\0' || id <= 0)
        return err_set(err, ERR_USAGE, "%s: '%.40s' is not a number", option, text);
    *ret = id;
    return 0;
}

static int chargeback(const struct billd_conf *conf, const struct opt_values *v,
                      struct err *err)
{
    const char *text = opt_get(v, "topup"), *reason = opt_get(v, "reason");
    PGconn *pg;
    int64_t id;
    struct settle_chargeback back;
    char wallet[MONEY_TEXT_MAX], owed[MONEY_TEXT_MAX];
    if (text == NULL || reason == NULL)
        return err_set(err, ERR_USAGE, "chargeback needs --topup ID and --reason TEXT");
    if (transfer_id("--topup", text, &id, err) != 0 ||
        connect_database(conf, &pg, err) != 0)
        return -1;
    int rc = settle_chargeback(pg, id, reason, &back, err);
    if (rc == 0) {
        money_format(back.wallet_micro, back.currency, wallet);
        money_format(back.owed_micro, back.currency, owed);
        printf("%s %s from the wallet, %s %s are owed\n", wallet, back.currency, owed,
               back.currency);
    }
    PQfinish(pg);
    return rc;
}

static int reverse(const struct billd_conf *conf, const struct opt_values *v,
                   struct err *err)
{
    const char *text = opt_get(v, "transfer");
    PGconn *pg;
    int64_t id, reversal;
    if (text == NULL)
        return err_set(err, ERR_USAGE, "reverse needs --transfer ID");
    if (transfer_id("--transfer", text, &id, err) != 0)
        return -1;
    if (connect_database(conf, &pg, err) != 0)
        return -1;
    int rc = rounds_reverse(pg, id, &reversal, err);
    if (rc == 0)
        printf("%lld\n", (long long)reversal);
    PQfinish(pg);
    return rc;
}

static int check(const struct billd_conf *conf, struct err *err)
{
    PGconn *pg;
    char *breaches = NULL;
    if (connect_database(conf, &pg, err) != 0)
        return -1;
    int rc = rounds_check(pg, &breaches, err);
    PQfinish(pg);
    if (rc != 0)
        return -1;
    bool clean = breaches[0] == '\0';
    fputs(clean ? "all checks are empty\n" : breaches, stdout);
    fflush(stdout); /* before the error, where both go to one place */
    free(breaches);
    return clean ? 0 : err_set(err, ERR_CONFLICT, "what must be empty is not");
}

static int export(const struct billd_conf *conf, const struct opt_values *v,
                  struct err *err)
{
    const char *from = opt_get(v, "from"), *to = opt_get(v, "to");
    char from_text[TIMEFMT_MAX], to_text[TIMEFMT_MAX];
    PGconn *pg;
    int64_t count;
    if (from != NULL && until_text("--from", from, from_text, err) != 0)
        return -1;
    if (to != NULL && until_text("--to", to, to_text, err) != 0)
        return -1;
    if (connect_database(conf, &pg, err) != 0)
        return -1;
    int rc = export_hledger(pg, from != NULL ? from_text : NULL,
                            to != NULL ? to_text : NULL, stdout, &count, err);
    PQfinish(pg);
    return rc;
}

static int verify_log(const struct billd_conf *conf, struct err *err)
{
    PGconn *pg;
    char *breaches = NULL;
    int64_t leaves;
    if (connect_database(conf, &pg, err) != 0)
        return -1;
    int rc = sequencer_verify(pg, &breaches, &leaves, err);
    PQfinish(pg);
    if (rc != 0)
        return -1;
    bool clean = breaches[0] == '\0';
    fputs(breaches, stdout);
    if (clean)
        printf("%lld records are what was logged\n", (long long)leaves);
    fflush(stdout);
    free(breaches);
    return clean ? 0
                 : err_set(err, ERR_CONFLICT, "the records are not what was logged");
}

static int dispatch(const struct opt_values *v, const struct billd_conf *conf,
                    struct err *err)
{
    const char *name = v->command->name;
    if (strcmp(name, "invoice") == 0)
        return invoice(conf, v, err);
    if (strcmp(name, "reverse") == 0)
        return reverse(conf, v, err);
    if (strcmp(name, "chargeback") == 0)
        return chargeback(conf, v, err);
    if (strcmp(name, "check") == 0)
        return check(conf, err);
    if (strcmp(name, "export") == 0)
        return export(conf, v, err);
    if (strcmp(name, "verify-log") == 0)
        return verify_log(conf, err);
    if (strcmp(name, "sample-conf") == 0) {
        char *text = conf_sample(KEYS);
        fputs(text, stdout);
        free(text);
        return 0;
    }
    return run(conf, opt_has(v, "once"), err);
}

int main(int argc, char **argv)
{
    struct opt_values v = {0};
    struct billd_conf conf = {0};
    struct err err;
    log_init("neargpu-billd", LOG_LVL_INFO);
    if (opt_parse(&program, argc, argv, &v, &err) != 0) {
        fprintf(stderr, "neargpu-billd: %s\n", err.text);
        return err_exit_status(err.code);
    }
    if (v.help || v.man) {
        char *text = v.man ? opt_man(&program) : opt_help(&program, v.command);
        fputs(text, stdout);
        free(text);
        opt_done(&v);
        return 0;
    }
    if (v.version) {
        puts("neargpu-billd 0.1.0");
        opt_done(&v);
        return 0;
    }
    int rc = load_conf(&v, &conf, &err);
    if (rc == 0)
        rc = dispatch(&v, &conf, &err);
    if (rc != 0)
        fprintf(stderr, "neargpu-billd: %s\n", err.text);
    conf_done(KEYS, &conf);
    opt_done(&v);
    return rc == 0 ? 0 : err_exit_status(err.code);
}
