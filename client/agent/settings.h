/* settings: agent.conf, as a table (see client/lib/conf.h) and checked as a whole. */
#ifndef NEARGPU_AGENT_SETTINGS_H
#define NEARGPU_AGENT_SETTINGS_H
#include <stdbool.h>
#include <stdint.h>

#include "client/agent/advert.h"
#include "client/lib/conf.h"
#include "client/lib/err.h"

#define SETTINGS_DEFAULT_PATH  "/etc/neargpu/agent.conf"
#define SETTINGS_DEFAULT_STATE "/var/lib/neargpu/agent"
#define SETTINGS_FABRIC_MAX    63 /* as the market stores it */

struct settings {
    char *server, *state_dir, *runtime_dir;
    char *listen, *advertise, *fabric;
    char *inventory, *sim_file, *nvml_library;
    int64_t sample_interval_us, busy_memory_mib, busy_utilisation_percent;
    char *currency;
    int64_t price_micro;
    char **windows;
    char *windows_utc_offset;
    char *probe_source;
    int64_t probe_interval_us, probe_samples;
    int64_t witness_interval_us; /* 0: it is no witness */
    char *job_user, *front_user, *cgroup_base;
    int64_t job_output_max_mib;
    int64_t max_gpus_per_tenant, max_duration_us;
    char **allowed_tenants;
    char *policy_file;
    int64_t job_cpus, job_memory_mib, job_pids; /* per GPU of a lease; 0: no limit */
    char *podman, *image_store;
    char *scrub_command;
    int64_t scrub_timeout_us;
    char *ssh_user, *ssh_forward, *ssh_host_key;
    int64_t ssh_port;
    char *log_level;

    /* made of the above */
    struct advert_rule rules[ADVERT_RULES_MAX];
    size_t rule_count;
    int offset_s;
    uint32_t uid, gid; /* of job_user */
    uint32_t front_uid, front_gid;
};

extern const struct conf_key settings_keys[];
extern const size_t settings_key_count;

/* Defaults, the file, and the checks. path NULL: defaults only. */
int settings_load(const char *path, struct settings *ret, struct err *err) MUST_USE;
void settings_done(struct settings *s);

#endif
