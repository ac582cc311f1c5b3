/* conf: what neargpud can be told, as one table (client/lib/conf.h). With nothing said
 * at all it runs a market of its own on this machine. */
#ifndef NEARGPU_SERVER_CONF_H
#define NEARGPU_SERVER_CONF_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/conf.h"
#include "client/lib/err.h"
#include "client/lib/log.h"
#include "client/lib/opt.h"

struct server_conf {
    char *data_dir, *pki_dir;
    char *database, *admin_database, *report_database;
    char *cluster_user;
    int64_t shared_buffers_mib;
    char **listen, **names;
    char *market, *currency;
    int64_t fee_ppm, tax_ppm;
    char *issuer_name, *issuer_registration, *issuer_address;
    int64_t readers, writers;
    int64_t max_connections;
    bool rate_limits, access_log;
    int64_t probe_interval_us, receipt_interval_us;
    int64_t token_life_us;
    int64_t unknown_after_us, lost_after_us;
    int64_t waiting_rise_percent;
    char *path_hook, *path_hook_ca, *path_hook_key_file;
    int64_t path_hook_limit_us;
    char *log_level;
};

extern const struct conf_key server_conf_keys[];
extern const size_t server_conf_count;
#define SERVER_CONF_FILE "/etc/neargpu/neargpud.conf"

/* Options of neargpud(8): commands, help, manual. */
extern const struct opt_program server_program;

/* Defaults, then the file (--conf, or SERVER_CONF_FILE when it is there), then options;
 * checks what the table cannot. */
int server_conf_load(const struct opt_values *v, struct server_conf *ret,
                     struct err *err) MUST_USE;
void server_conf_done(struct server_conf *conf);
enum log_level server_conf_log_level(const struct server_conf *conf);

#endif
