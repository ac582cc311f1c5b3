/* settings: see settings.h. */
#include "client/agent/settings.h"

#include <pwd.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/digest.h"
#include "client/lib/money.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define AT(member) offsetof(struct settings, member)

const struct conf_key settings_keys[] = {
    {"server", CONF_STRING, AT(server), NULL,
     "URL of the market, https://host:port; `enroll` writes down the one it used, "
     "which "
     "is taken when this is not set.",
     0, 0},
    {"state_dir", CONF_STRING, AT(state_dir), SETTINGS_DEFAULT_STATE,
     "Directory for identity, journal of leases and receipts; on a local disk.", 0, 0},
    {"runtime_dir", CONF_STRING, AT(runtime_dir), "/run/neargpu",
     "Directory for the local socket agent.sock.", 0, 0},
    {"listen", CONF_STRING, AT(listen), "0.0.0.0:7443",
     "Address on which tenants reach their jobs, host:port; port 0 takes a free one, "
     "`none` takes only the local socket.",
     0, 0},
    {"advertise", CONF_STRING, AT(advertise), NULL,
     "Address told to tenants, host:port; needed when the listen address is 0.0.0.0 or "
     "behind translation.",
     0, 0},
    {"fabric", CONF_STRING, AT(fabric), NULL,
     "Name of the fast network this node shares with others of its site (NVLink or "
     "InfiniBand domain, rail); nodes of one name make a gang of one domain.",
     0, 0},
    {"inventory", CONF_STRING, AT(inventory), "nvml",
     "Where GPUs are looked up: `nvml`, or `sim` for a simulated list in sim_file.", 0,
     0},
    {"sim_file", CONF_STRING, AT(sim_file), NULL,
     "JSON file with simulated GPUs, read again when it changes.", 0, 0},
    {"nvml_library", CONF_STRING, AT(nvml_library), "libnvidia-ml.so.1",
     "NVIDIA's management library, name or path.", 0, 0},
    {"sample_interval", CONF_DURATION, AT(sample_interval_us), "5s",
     "How often the GPUs are looked at.", 100000, 3600 * US_PER_S},
    {"busy_memory_mib", CONF_INT, AT(busy_memory_mib), "1024",
     "A GPU outside any lease with more memory in use than this is its owner's.", 0,
     INT64_C(1) << 30},
    {"busy_utilisation_percent", CONF_INT, AT(busy_utilisation_percent), "5",
     "A GPU outside any lease with more load than this is its owner's.", 0, 100},
    {"currency", CONF_STRING, AT(currency), NULL,
     "Currency of the price, as JPY; without it prices are set at the market.", 0, 0},
    {"price_per_gpu_hour", CONF_MONEY, AT(price_micro), "0",
     "Asked price of one GPU for one hour.", 0, INT64_MAX},
    {"windows", CONF_LIST, AT(windows), NULL,
     "When GPUs may be lent, as `mon-fri 18:00-08:00` or `sat,sun 00:00-24:00`; may be "
     "repeated; without any: always.",
     0, 0},
    {"windows_utc_offset", CONF_STRING, AT(windows_utc_offset), "Z",
     "Zone of the windows, as +09:00.", 0, 0},
    {"probe_source", CONF_STRING, AT(probe_source), NULL,
     "Local address from which latency is measured (the one jobs will use); without "
     "it the system chooses.",
     0, 0},
    {"probe_interval", CONF_DURATION, AT(probe_interval_us), "0",
     "How often each data set's latency is measured; 0: as the market asks.", 0,
     24 * US_PER_HOUR},
    {"probe_samples", CONF_INT, AT(probe_samples), "9",
     "Round trips of one measurement.", 1, 100},
    {"witness_interval", CONF_DURATION, AT(witness_interval_us), "60s",
     "How often the market's log is looked at and its newest head cosigned "
     "(docs/log.md); "
     "0: never.",
     0, 24 * US_PER_HOUR},
    {"job_user", CONF_STRING, AT(job_user), "nobody",
     "User under whom jobs run; never root.", 0, 0},
    {"front_user", CONF_STRING, AT(front_user), NULL,
     "User of the process that speaks with the network; never root nor job_user; "
     "without it `neargpu-agent` when there is one, else `nobody`.",
     0, 0},
    {"cgroup_base", CONF_STRING, AT(cgroup_base), NULL,
     "Directory of the leases below the cgroup mount; without it `neargpu` for the "
     "default state_dir, and one named after the state_dir for others: what is in it "
     "belongs to this agent alone.",
     0, 0},
    {"job_output_max_mib", CONF_INT, AT(job_output_max_mib), "256",
     "Output kept of one job; more is counted and dropped.", 1, 65536},
    {"max_gpus_per_tenant", CONF_INT, AT(max_gpus_per_tenant), "0",
     "Most GPUs one tenant may hold here at one time; 0: no limit.", 0,
     GPUS_PER_NODE_MAX},
    {"max_duration", CONF_DURATION, AT(max_duration_us), "0",
     "Longest lease accepted here; 0: no limit.", 0, LEASE_MAX_US},
    {"allowed_tenants", CONF_LIST, AT(allowed_tenants), NULL,
     "Ids of the tenants accepted here; may be repeated; without any: all.", 0, 0},
    {"policy_file", CONF_STRING, AT(policy_file), NULL,
     "File with more rules of the provider's own (docs/providers.md), read again when "
     "it "
     "changes; while it cannot be understood, nothing starts.",
     0, 0},
    {"job_cpus", CONF_INT, AT(job_cpus), "0",
     "CPUs the jobs of a lease may use, for each of its GPUs; 0: no limit.", 0, 4096},
    {"job_memory_mib", CONF_INT, AT(job_memory_mib), "0",
     "Memory the jobs of a lease may use, for each of its GPUs, where the lease itself "
     "sets no limit; 0: no limit.",
     0, INT64_C(1) << 30},
    {"job_pids", CONF_INT, AT(job_pids), "0",
     "Processes and threads of a lease at one time, for each of its GPUs, where the "
     "lease itself sets no limit; 0: no limit.",
     0, 4194304},
    {"podman", CONF_STRING, AT(podman), NULL,
     "podman's path, such as /usr/bin/podman: jobs may then run in the container "
     "images "
     "of image_store. Without it: no images.",
     0, 0},
    {"image_store", CONF_STRING, AT(image_store), "/var/lib/containers/storage",
     "Images that jobs may name (podman's storage, driver overlay). None is ever "
     "pulled.",
     0, 0},
    {"scrub_command", CONF_STRING, AT(scrub_command), NULL,
     "Program and arguments (parted by blanks, no shell) that reset or scrub a GPU "
     "after "
     "each lease, as `/usr/bin/nvidia-smi --gpu-reset -i %u`; %u, %p and %m become the "
     "GPU's UUID, PCI address and minor number. Unless it ends with 0 the GPU is "
     "quarantined.",
     0, 0},
    {"scrub_timeout", CONF_DURATION, AT(scrub_timeout_us), "60s",
     "Time scrub_command may take for one GPU.", 100000, US_PER_HOUR},
    {"ssh_user", CONF_STRING, AT(ssh_user), NULL,
     "User that sshd logs tenants in as; with it their SSH keys open their leases "
     "(docs/ssh.md). Without it: no SSH.",
     0, 0},
    {"ssh_forward", CONF_STRING, AT(ssh_forward), "none",
     "Ports an SSH session may forward: `none`, or `local` for connections from the "
     "tenant's machine to this node's loopback.",
     0, 0},
    {"ssh_port", CONF_INT, AT(ssh_port), "22", "Port of sshd, told to tenants.", 1,
     65535},
    {"ssh_host_key", CONF_STRING, AT(ssh_host_key), "/etc/ssh/ssh_host_ed25519_key.pub",
     "Public host key of sshd, told to tenants, who then need not trust the first "
     "connection.",
     0, 0},
    {"log_level", CONF_STRING, AT(log_level), "info",
     "Least level logged: debug, info, warn or error.", 0, 0},
};
const size_t settings_key_count = sizeof(settings_keys) / sizeof(settings_keys[0]);

/* Without a user made for it, as in a test, the front shares one with the jobs: they do
 * not see each other's processes. */
static int check_front_user(struct settings *s, struct err *err)
{
    const char *name = s->front_user != NULL ? s->front_user : "neargpu-agent";
    const struct passwd *pw = getpwnam(name);
    if (pw == NULL && s->front_user == NULL)
        pw = getpwnam(name = "nobody");
    if (pw == NULL)
        return err_set(err, ERR_BAD_REQUEST, "front_user: there is no user %s", name);
    if (pw->pw_uid == 0 || pw->pw_gid == 0)
        return err_set(err, ERR_BAD_REQUEST,
                       "front_user: the front must not run as %s (root's ids)", name);
    if (s->front_user != NULL && pw->pw_uid == s->uid)
        return err_set(err, ERR_BAD_REQUEST,
                       "front_user: the front must not run as the job_user %s", name);
    s->front_uid = pw->pw_uid;
    s->front_gid = pw->pw_gid;
    return 0;
}

static int check_user(struct settings *s, struct err *err)
{
    const struct passwd *pw = getpwnam(s->job_user);
    if (pw == NULL)
        return err_set(err, ERR_BAD_REQUEST, "job_user: there is no user %s",
                       s->job_user);
    if (pw->pw_uid == 0 || pw->pw_gid == 0)
        return err_set(err, ERR_BAD_REQUEST,
                       "job_user: jobs must not run as %s (root's ids)", s->job_user);
    s->uid = pw->pw_uid;
    s->gid = pw->pw_gid;
    return check_front_user(s, err);
}

static int check_windows(struct settings *s, struct err *err)
{
    if (advert_offset_parse(s->windows_utc_offset, &s->offset_s, err) != 0)
        return err_prefix(err, "windows_utc_offset");
    for (size_t i = 0; s->windows != NULL && s->windows[i] != NULL; i++) {
        if (i == ADVERT_RULES_MAX)
            return err_set(err, ERR_BAD_REQUEST, "windows: at most %d are allowed",
                           ADVERT_RULES_MAX);
        if (advert_rule_parse(s->windows[i], &s->rules[i], err) != 0)
            return err_prefix(err, "windows");
        s->rule_count = i + 1;
    }
    return 0;
}

/* A starting agent ends what it does not know in its directory, so two agents on one
 * machine must never share one. */
static char *default_base(const char *state_dir)
{
    char hex[SHA256_HEX];
    if (strcmp(state_dir, SETTINGS_DEFAULT_STATE) == 0)
        return xstrdup("neargpu");
    digest_sha256_hex(state_dir, strlen(state_dir), hex);
    return xasprintf("neargpu-%.12s", hex);
}

static bool is_fabric(const char *name)
{
    size_t len = strlen(name);
    return len >= 1 && len <= SETTINGS_FABRIC_MAX &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                        "0123456789._-") == len;
}

static int check(struct settings *s, struct err *err)
{
    if (s->server != NULL && strncmp(s->server, "https://", 8) != 0)
        return err_set(err, ERR_BAD_REQUEST, "server: \"%s\" is no https:// URL",
                       s->server);
    if (gpu_ops_find(s->inventory) == NULL)
        return err_set(err, ERR_BAD_REQUEST,
                       "inventory: \"%s\" is neither nvml nor sim", s->inventory);
    if (strcmp(s->inventory, "sim") == 0 && s->sim_file == NULL)
        return err_set(err, ERR_BAD_REQUEST, "inventory = sim needs sim_file");
    if (strcmp(s->ssh_forward, "none") != 0 && strcmp(s->ssh_forward, "local") != 0)
        return err_set(err, ERR_BAD_REQUEST,
                       "ssh_forward: \"%s\" is neither none nor local", s->ssh_forward);
    if (s->currency != NULL && !money_currency_known(s->currency))
        return err_set(err, ERR_BAD_REQUEST, "currency: \"%s\" is not known",
                       s->currency);
    if (s->price_micro > 0 && s->currency == NULL)
        return err_set(err, ERR_BAD_REQUEST, "price_per_gpu_hour needs currency");
    if (s->fabric != NULL && !is_fabric(s->fabric))
        return err_set(err, ERR_BAD_REQUEST,
                       "fabric: \"%s\" is no name of 1 to %d letters, digits, '.', "
                       "'_' and '-'",
                       s->fabric, SETTINGS_FABRIC_MAX);
    if (s->cgroup_base == NULL)
        s->cgroup_base = default_base(s->state_dir);
    if (strchr(s->cgroup_base, '/') != NULL || s->cgroup_base[0] == '.' ||
        s->cgroup_base[0] == '\0')
        return err_set(err, ERR_BAD_REQUEST, "cgroup_base: \"%s\" is no plain name",
                       s->cgroup_base);
    if (check_windows(s, err) != 0)
        return -1;
    return check_user(s, err);
}

int settings_load(const char *path, struct settings *ret, struct err *err)
{
    memset(ret, 0, sizeof(*ret));
    conf_defaults(settings_keys, settings_key_count, ret);
    int rc = 0;
    if (path != NULL)
        rc = conf_read(path, settings_keys, settings_key_count, ret, err);
    if (rc == 0) {
        rc = check(ret, err);
        if (rc != 0 && path != NULL)
            rc = err_prefix(err, "%s", path);
    }
    if (rc != 0)
        settings_done(ret);
    return rc;
}

void settings_done(struct settings *s)
{
    conf_done(settings_keys, settings_key_count, s);
    memset(s, 0, sizeof(*s));
}
