#include "server/conf.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/lib/bounds.h"
#include "client/lib/money.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"
#include "server/flow/pathhook.h"

#define AT(member) offsetof(struct server_conf, member)

const struct conf_key server_conf_keys[] = {
    {"data_dir", CONF_STRING, AT(data_dir), "/var/lib/neargpu",
     "Directory for keys, the private database and its socket; on a local disk.", 0, 0},
    {"pki_dir", CONF_STRING, AT(pki_dir), NULL,
     "Directory for the market's CA and the signing key; default: pki in data_dir. "
     "Servers of one market share one.",
     0, 0},
    {"database", CONF_STRING, AT(database), NULL,
     "libpq connection string of the role neargpu_server; without it a private "
     "PostgreSQL cluster runs in data_dir.",
     0, 0},
    {"admin_database", CONF_STRING, AT(admin_database), NULL,
     "With `database`: connection string of a role that may create roles, for "
     "migrations; without it the database must be up to date already.",
     0, 0},
    {"report_database", CONF_STRING, AT(report_database), NULL,
     "With `database`: connection string of the role neargpu_report, of a replica for "
     "instance; without it there are no reports.",
     0, 0},
    {"cluster_user", CONF_STRING, AT(cluster_user), "postgres",
     "System user of the private cluster when neargpud runs as root.", 0, 0},
    {"shared_buffers_mib", CONF_INT, AT(shared_buffers_mib), "256",
     "Buffer memory of the private cluster.", 16, 1 << 20},
    {"listen", CONF_LIST, AT(listen), "127.0.0.1:7443",
     "Address to serve on, host:port; may be repeated; port 0 takes a free one.", 0, 0},
    {"names", CONF_LIST, AT(names), NULL,
     "DNS name or IP address by which clients reach this server, for its certificate; "
     "may be repeated; the listen addresses are always in it.",
     0, 0},
    {"market", CONF_STRING, AT(market), "neargpu.local",
     "Name of the market, a DNS name; fixed at the first start.", 1, 100},
    {"currency", CONF_STRING, AT(currency), "JPY",
     "Currency of all prices and wallets; fixed at the first start.", 3, 3},
    {"fee_ppm", CONF_INT, AT(fee_ppm), "50000",
     "Share of the market in each sale, parts per million; for the first start.", 0,
     1000000},
    {"tax_ppm", CONF_INT, AT(tax_ppm), "100000",
     "Tax rate on invoices, parts per million; for the first start.", 0, 1000000},
    {"issuer_name", CONF_STRING, AT(issuer_name), "neargpu market",
     "Issuer printed on invoices; for the first start.", 1, 200},
    {"issuer_registration", CONF_STRING, AT(issuer_registration), NULL,
     "Qualified invoice registration number, T and 13 digits; for the first start.", 14,
     14},
    {"issuer_address", CONF_STRING, AT(issuer_address), NULL,
     "Address printed under the issuer; for the first start.", 1, 500},
    {"reader_connections", CONF_INT, AT(readers), "4",
     "Database connections for single operations.", 1, 64},
    {"writer_connections", CONF_INT, AT(writers), "1",
     "Database connections that commit bookings in groups.", 1, 2},
    {"max_connections", CONF_INT, AT(max_connections), "20000",
     "Client connections at one time.", 1, 1000000},
    {"rate_limits", CONF_BOOL, AT(rate_limits), "yes",
     "Whether each client's requests are limited.", 0, 0},
    {"access_log", CONF_BOOL, AT(access_log), "no",
     "Whether each request is logged, without query, keys and bodies.", 0, 0},
    {"probe_interval", CONF_DURATION, AT(probe_interval_us), "60s",
     "How often agents are asked to measure the distance to data sets.", US_PER_S,
     US_PER_HOUR},
    {"receipt_interval", CONF_DURATION, AT(receipt_interval_us), "60s",
     "How often agents are asked for a receipt of running use.", US_PER_S, US_PER_HOUR},
    {"token_life", CONF_DURATION, AT(token_life_us), "15m",
     "How long an access token can begin something; `run` renews it at half of it.",
     20 * US_PER_S, US_PER_HOUR},
    {"unknown_after", CONF_DURATION, AT(unknown_after_us), "90s",
     "A node not heard of for this long is not offered any more.", 10 * US_PER_S,
     24 * US_PER_HOUR},
    {"lost_after", CONF_DURATION, AT(lost_after_us), "15m",
     "A node not heard of for this long is lost: what was booked on it and has not "
     "started is moved elsewhere. A server that has just started waits as long "
     "before it says so.",
     10 * US_PER_S, 7 * 24 * US_PER_HOUR},
    {"waiting_rise_percent", CONF_INT, AT(waiting_rise_percent), "50",
     "How much dearer a waiting order may become, within its bounds and without "
     "starting later, when the list as a whole gets cheaper by more than that; 0: each "
     "order has the best place left when its turn comes.",
     0, 1000},
    {"path_hook", CONF_STRING, AT(path_hook), NULL,
     "Program (absolute path, run as PROGRAM light|release NAME) or https:// URL that "
     "lights and releases booked paths; without it paths count as lit by themselves.",
     1, 1000},
    {"path_hook_ca", CONF_STRING, AT(path_hook_ca),
     "/etc/ssl/certs/ca-certificates.crt",
     "With a URL as path_hook: certificates of the CAs to trust.", 1, 1000},
    {"path_hook_key_file", CONF_STRING, AT(path_hook_key_file), NULL,
     "With a URL as path_hook: file (0600) with the bearer token to send.", 1, 1000},
    {"path_hook_limit", CONF_DURATION, AT(path_hook_limit_us), "30s",
     "A path hook that takes longer is killed and run again later.", US_PER_S,
     600 * US_PER_S},
    {"log_level", CONF_STRING, AT(log_level), "info",
     "Least level that is logged: debug, info, warn or error.", 0, 0},
};
const size_t server_conf_count = sizeof(server_conf_keys) / sizeof(server_conf_keys[0]);
#define KEYS server_conf_keys, server_conf_count

/* ---- options ---- */

static const struct opt_def global[] = {
    {"conf", 'c', "FILE",
     "configuration file; default: " SERVER_CONF_FILE ", if it is there", false},
    {"data-dir", 'd', "DIR", "directory for keys and the private database", false},
    {"database", 0, "CONNINFO", "libpq connection string of the role neargpu_server",
     false},
    {"listen", 'l', "ADDRESS", "address to serve on, host:port", true},
    {"name", 0, "NAME", "name or address for the server's certificate", true},
    {"market", 0, "NAME", "name of the market, at the first start", false},
    {"currency", 0, "CODE", "currency of the market, at the first start", false},
    {"rate-limits", 0, "YES|NO", "whether each client's requests are limited", false},
    {"log-level", 0, "LEVEL", "debug, info, warn or error", false},
};
static const char *const option_keys[][2] = {
    {"data-dir", "data_dir"},   {"database", "database"},
    {"listen", "listen"},       {"name", "names"},
    {"market", "market"},       {"currency", "currency"},
    {"log-level", "log_level"}, {"rate-limits", "rate_limits"},
};

static const struct opt_example examples[] = {
    {"neargpud --data-dir /var/lib/neargpu", "a market on this machine, port 7443"},
    {"neargpud --database 'host=db1,db2 dbname=neargpu user=neargpu_server'",
     "one of several servers on a database of its own"},
};
static const struct opt_def keys_change_opts[] = {
    {"root", 0, "FILE",
     "the root's private key; default: root.key of the pki directory", false},
    {"request", 0, "FILE", "do not sign: write what the root has to sign to FILE",
     false},
    {"now", 0, NULL, "rotate: use the new key at once, not a day later", false},
};
static const struct opt_def keys_root_opts[] = {
    {"root", 0, "FILE", "the root's private key", false},
};
static const struct opt_example keys_examples[] = {
    {"neargpud keys rotate --request set.req",
     "a new signing key, to be signed where the root is kept"},
    {"neargpud keys sign --root root.key set.req >set.jws",
     "there, on a machine without a network"},
    {"neargpud keys import set.jws", "and back here: running servers take it over"},
};

static const struct opt_command commands[] = {
    {.name = "",
     .args = "",
     .summary = "serve the market until ended",
     .text = "At the first start it makes the market's CA, the signing key, the "
             "database and "
             "the first administrator's API key, which is left in DATA_DIR/admin.key. "
             "SIGTERM and SIGINT end it after the requests in flight were answered.",
     .examples = examples,
     .example_count = 2},
    {.name = "check-conf",
     .args = "",
     .summary = "read the configuration, say what is wrong with it, and end"},
    {.name = "sample-conf",
     .args = "",
     .summary = "print a configuration file with every key and its default"},
    {.name = "keys list",
     .args = "",
     .summary = "show the key set in force: keys, from, to, state"},
    {.name = "keys rotate",
     .args = "[--now] [--root FILE | --request FILE]",
     .summary = "make a new signing key",
     .text = "It is published a day before it signs, and the one before is believed "
             "until its last grants have run out. With --now it signs at once: nodes "
             "that have not heard of it fetch the set.",
     .opts = keys_change_opts,
     .opt_count = 3,
     .examples = keys_examples,
     .example_count = 3},
    {.name = "keys revoke",
     .args = "KID [--root FILE | --request FILE]",
     .summary = "withdraw a signing key that may be in wrong hands",
     .text = "Nothing it signed is believed by a node that has the new set.",
     .opts = keys_change_opts,
     .opt_count = 2,
     .min_args = 1,
     .max_args = 1},
    {.name = "keys sign",
     .args = "--root FILE REQUEST",
     .summary = "sign a request with the root and print the set",
     .opts = keys_root_opts,
     .opt_count = 1,
     .min_args = 1,
     .max_args = 1},
    {.name = "keys import",
     .args = "SET",
     .summary = "put a set into force that the root has signed",
     .min_args = 1,
     .max_args = 1},
    {.name = "keys root-new",
     .args = "FILE",
     .summary = "make a root key and print its thumbprint",
     .min_args = 1,
     .max_args = 1},
    {.name = "post-hook",
     .args = "URL CA_FILE [KEY_FILE]",
     .summary = "post standard input (JSON) to an https:// URL",
     .text = "What a path_hook that is a URL is run as: exit status 0 when the peer "
             "answered 2xx, else 1 with the reason on standard error.",
     .min_args = 2,
     .max_args = 3},
};
const struct opt_program server_program = {
    .name = "neargpud",
    .section = 8,
    .summary = "server of a GPU marketplace near the data",
    .text = "Serves the HTTP API of a market: GPUs lent by providers, reserved by "
            "tenants near their data, booked so that none is sold twice. State is in "
            "PostgreSQL alone; any number of servers may run on one database.",
    .commands = commands,
    .command_count = sizeof(commands) / sizeof(commands[0]),
    .global = global,
    .global_count = sizeof(global) / sizeof(global[0]),
    .files = SERVER_CONF_FILE
    ", DATA_DIR/admin.key, DATA_DIR/listen (addresses actually bound), DATA_DIR/pki, "
    "DATA_DIR/pg",
    .exit_status = "0 ended as asked; 1 failed; 2 usage or configuration",
    .see_also = "neargpu(1), neargpu-agent(8), neargpu-billd(8)",
};

/* ---- loading ---- */

static void list_clear(char ***list)
{
    for (char **p = *list; p != NULL && *p != NULL; p++)
        free(*p);
    free(*list);
    *list = NULL;
}

static int apply_options(const struct opt_values *v, struct server_conf *c,
                         struct err *err)
{
    /* As a file's list, a list of options replaces what was there. */
    if (opt_has(v, "listen"))
        list_clear(&c->listen);
    if (opt_has(v, "name"))
        list_clear(&c->names);
    for (size_t i = 0; i < sizeof(option_keys) / sizeof(option_keys[0]); i++) {
        const char *value;
        for (size_t n = 0; (value = opt_nth(v, option_keys[i][0], n)) != NULL; n++)
            if (conf_set(KEYS, c, option_keys[i][1], value, err) != 0)
                return err_prefix(err, "--%s", option_keys[i][0]);
    }
    return 0;
}

static bool is_dns_name(const char *s)
{
    return *s != '\0' && s[strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789.-")] == '\0';
}

static int check(struct server_conf *c, struct err *err)
{
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    size_t i = 0;
    while (i < 4 && strcmp(levels[i], c->log_level) != 0)
        i++;
    if (i == 4)
        return err_set(err, ERR_USAGE,
                       "log_level: '%.30s' is not one of debug, info, "
                       "warn, error",
                       c->log_level);
    if (!money_currency_known(c->currency))
        return err_set(err, ERR_USAGE, "currency: '%s' is not known", c->currency);
    /* It becomes part of every agent's SPIFFE ID. */
    if (!is_dns_name(c->market))
        return err_set(err, ERR_USAGE,
                       "market: '%.60s' is not a DNS name in lower case", c->market);
    if (c->listen == NULL)
        return err_set(err, ERR_USAGE, "listen: no address");
    if (c->database == NULL &&
        (c->admin_database != NULL || c->report_database != NULL))
        return err_set(err, ERR_USAGE,
                       "admin_database and report_database need database");
    if (c->path_hook != NULL && c->path_hook[0] != '/' &&
        !pathhook_is_url(c->path_hook))
        return err_set(err, ERR_USAGE,
                       "path_hook: '%.60s' is neither an absolute path nor an https:// "
                       "URL",
                       c->path_hook);
    if (c->path_hook != NULL && c->path_hook[0] == '/' &&
        access(c->path_hook, X_OK) != 0)
        return err_set(err, ERR_USAGE, "path_hook: %.200s cannot be run: %s",
                       c->path_hook, strerror(errno));
    if (c->lost_after_us <= c->unknown_after_us)
        return err_set(err, ERR_USAGE, "lost_after must be more than unknown_after");
    if (c->pki_dir == NULL)
        c->pki_dir = xasprintf("%s/pki", c->data_dir);
    return 0;
}

int server_conf_load(const struct opt_values *v, struct server_conf *ret,
                     struct err *err)
{
    struct server_conf c = {NULL};
    const char *file = opt_get(v, "conf");
    if (file == NULL && access(SERVER_CONF_FILE, F_OK) == 0)
        file = SERVER_CONF_FILE;
    conf_defaults(KEYS, &c);
    if ((file != NULL && conf_read(file, KEYS, &c, err) != 0) ||
        apply_options(v, &c, err) != 0 || check(&c, err) != 0) {
        server_conf_done(&c);
        return -1;
    }
    *ret = c;
    return 0;
}

void server_conf_done(struct server_conf *conf)
{
    conf_done(KEYS, conf);
}

enum log_level server_conf_log_level(const struct server_conf *conf)
{
    switch (conf->log_level[0]) {
    case 'd': return LOG_LVL_DEBUG;
    case 'w': return LOG_LVL_WARN;
    case 'e': return LOG_LVL_ERROR;
    default: return LOG_LVL_INFO;
    }
}
