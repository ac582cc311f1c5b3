/* neargpu-billd: rates signed usage, keeps the ledger moving, issues invoices.
 *
 * One process, one database connection, one round after the other: rate receipts,
 * release holds, issue invoices of months that ended, check what must be empty. State
 * is in the database alone; several billds are safe (an advisory lock orders them) and
 * useless. It decides no price and touches no table: only the api.billing_* functions.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "billing/pgtx.h"
#include "billing/rounds.h"
#include "client/lib/clock.h"
#include "client/lib/conf.h"
#include "client/lib/fsx.h"
#include "client/lib/log.h"
#include "client/lib/opt.h"
#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define BILLD_CHECK_EVERY_US (INT64_C(60) * US_PER_S)

struct billd_conf {
    char *database, *data_dir;
    int64_t interval_us, grace_us;
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
};

static const struct opt_def common[] = {
    {"conf", 'c', "FILE", "configuration file", false},
    {"data-dir", 'd', "DIR", "neargpud's data directory (its private cluster is used)",
     false},
    {"database", 0, "CONNINFO", "libpq connection string of the role neargpu_billd",
     false},
};
static const struct opt_def run_opts[] = {
    {"interval", 'i', "DURATION", "pause between rounds", false},
    {"once", '1', NULL, "one round, then exit", false},
};
static const struct opt_def invoice_opts[] = {
    {"tenant", 't', "NAME", "whose use to invoice", false},
    {"until", 'u', "TIME", "RFC 3339 instant, or `now`: use captured before it", false},
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
    {.name = "check",
     .args = "",
     .summary = "print what the check views hold; exit 1 when it is not nothing"},
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
    .files = "/etc/neargpu/billd.conf",
    .exit_status =
        "0 done; 1 failed, or a check view is not empty; 2 usage; 5 no such tenant",
    .see_also = "neargpud(8), neargpu(1)",
};

#define KEYS keys, sizeof(keys) / sizeof(keys[0])

static int load_conf(const struct opt_values *v, struct billd_conf *conf,
                     struct err *err)
{
    static const char *const options[][2] = {
        {"data-dir", "data_dir"}, {"database", "database"}, {"interval", "interval"}};
    conf_defaults(KEYS, conf);
    if (opt_has(v, "conf") && conf_read(opt_get(v, "conf"), KEYS, conf, err) != 0)
        return -1;
    for (size_t i = 0; i < 3; i++)
        if (opt_has(v, options[i][0]) &&
            conf_set(KEYS, conf, options[i][1], opt_get(v, options[i][0]), err) != 0)
            return -1;
    return 0;
}

static int connect_database(const struct billd_conf *conf, PGconn **ret,
                            struct err *err)
{
    if (conf->database != NULL)
        return pgtx_connect(conf->database, ret, err);
    char *socket_dir = xasprintf("%s/run", conf->data_dir);
    char *info = xasprintf(
        "host=%s dbname=neargpu user=neargpu_billd application_name=neargpu-billd",
        socket_dir);
    int rc = pgtx_connect(info, ret, err);
    free(info);
    free(socket_dir);
    return rc;
}

static int one_round(PGconn *pg, const struct billd_conf *conf, bool check,
                     struct err *err)
{
    int rated, released, invoices;
    do {
        if (rounds_rate(pg, &rated, err) != 0)
            return -1;
    } while (rated == ROUNDS_CLAIM_MAX);
    if (rounds_release(pg, conf->grace_us, &released, err) != 0 ||
        rounds_invoices_due(pg, &invoices, err) != 0)
        return -1;
    if (rated + released + invoices > 0)
        log_info("rated %d receipts, released %d holds, issued %d invoices", rated,
                 released, invoices);
    if (check) {
        char *breaches;
        if (rounds_check(pg, &breaches, err) != 0)
            return -1;
        if (breaches[0] != '\0')
            log_error("what must be empty is not: %s", breaches);
        free(breaches);
    }
    return 0;
}

/* Waits for a signal to end or for the pause to pass. */
static bool wait_or_end(int signals, int64_t pause_us)
{
    struct pollfd p = {.fd = signals, .events = POLLIN};
    return poll(&p, 1, (int)(pause_us / 1000)) > 0;
}

static int run(const struct billd_conf *conf, bool once, struct err *err)
{
    sigset_t set;
    PGconn *pg = NULL;
    int64_t since_check_us = BILLD_CHECK_EVERY_US;
    int rc = 0;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    int signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    for (;;) {
        bool check = since_check_us >= BILLD_CHECK_EVERY_US;
        rc = pg == NULL ? connect_database(conf, &pg, err) : 0;
        if (rc == 0)
            rc = one_round(pg, conf, check, err);
        if (once)
            break;
        if (rc != 0) {
            log_warn("%s; trying again", err->text);
            if (pg != NULL && PQstatus(pg) != CONNECTION_OK) {
                PQfinish(pg);
                pg = NULL;
            }
        }
        since_check_us = check ? 0 : since_check_us + conf->interval_us;
        if (wait_or_end(signals, conf->interval_us)) {
            rc = 0;
            break;
        }
    }
    if (pg != NULL)
        PQfinish(pg);
    close(signals);
    return rc;
}

static int until_text(const char *text, char out[TIMEFMT_MAX], struct err *err)
{
    int64_t us;
    if (strcmp(text, "now") == 0)
        us = clock_now_us();
    else if (timefmt_parse(text, &us, err) != 0)
        return err_prefix(err, "--until");
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
    if (until_text(until, when, err) != 0 || connect_database(conf, &pg, err) != 0)
        return -1;
    int rc = rounds_rate(pg, &rated, err);
    if (rc == 0)
        rc = rounds_invoice(pg, tenant, when, number, sizeof(number), err);
    if (rc == 0)
        puts(number[0] != '\0' ? number : "nothing to invoice");
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
    free(breaches);
    return clean ? 0 : err_set(err, ERR_CONFLICT, "what must be empty is not");
}

static int dispatch(const struct opt_values *v, const struct billd_conf *conf,
                    struct err *err)
{
    const char *name = v->command->name;
    if (strcmp(name, "invoice") == 0)
        return invoice(conf, v, err);
    if (strcmp(name, "check") == 0)
        return check(conf, err);
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
