/* commands: see commands.h; the table of verbs is the one source of parsing, help and
 * manual. */
#include "client/agent/commands.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/agent/agent.h"
#include "client/agent/front_confine.h"
#include "client/agent/policy_file.h"
#include "client/agent/ssh_proto.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const struct opt_def conf_opt[] = {
    {"conf", 'c', "FILE", "Configuration file (default " SETTINGS_DEFAULT_PATH ").",
     false},
};
static const struct opt_def enroll_opts[] = {
    {"server", 0, "URL", "The market, https://host:port.", false},
    {"ca-sha256", 0, "HEX",
     "SHA-256 of the market's CA certificate, given with the join code.", false},
    {"ca", 0, "FILE", "The market's CA certificate itself (instead of --ca-sha256).",
     false},
    {"join-code-file", 0, "FILE",
     "File with the join code, or - for standard input; never an argument, where other "
     "users could read it.",
     false},
    {"again", 0, NULL,
     "Give this node a new identity, with a code of `neargpu provider reattest`; its "
     "leases and jobs go on. Restart the agent afterwards.",
     false},
    {"conf", 'c', "FILE", "Configuration file (default " SETTINGS_DEFAULT_PATH ").",
     false},
};
static const struct opt_def verify_opts[] = {
    {"keys", 0, "FILE", "The market's keys: a JWKS, or with --root a signed key set.",
     false},
    {"root", 0, "FILE", "The market's root key (JWK): --keys must be signed by it.",
     false},
    {"audience", 0, "ID", "The agent the token must be for (its SPIFFE ID).", false},
    {"issuer", 0, "URL", "The market that must have issued it (default: not compared).",
     false},
    {"now", 0, "TIME", "Check as of this time (RFC 3339; default: now).", false},
    {"lines", 0, NULL, "One token a line, one JSON line each.", false},
};

static const struct opt_def ssh_opts[] = {
    {"socket", 0, "PATH", "The agent's socket for sshd (default " SSH_SOCKET ").",
     false},
};

static const struct opt_example enroll_examples[] = {
    {"neargpu-agent enroll --server https://market.example:8443 --ca-sha256 5f3c… "
     "--join-code-file /root/join",
     "enrol this node with a code from `neargpu provider join-code`"},
    {"neargpu-agent enroll --again --server https://market.example:8443 --ca-sha256 "
     "5f3c… --join-code-file /root/join",
     "give it a new identity with a code from `neargpu provider reattest`"},
};
static const struct opt_example run_examples[] = {
    {"neargpu-agent run --conf /etc/neargpu/agent.conf",
     "the daemon, in the foreground"},
};
static const struct opt_example verify_examples[] = {
    {"neargpu-agent verify --keys jwks.json --audience "
     "spiffe://neargpu.local/site/fukuoka/node/n1 < token",
     "check a token as this agent would"},
};

static const struct opt_command list[] = {
    {.name = "run",
     .args = "",
     .summary = "run the agent (in the foreground, until SIGTERM)",
     .text =
         "Leases and jobs do not depend on the agent's life: they go on while it is "
         "stopped and end when their time is over.",
     .opts = conf_opt,
     .opt_count = COUNT(conf_opt),
     .examples = run_examples,
     .example_count = COUNT(run_examples)},
    {.name = "enroll",
     .args = "--server URL --ca-sha256 HEX --join-code-file FILE",
     .summary = "make this machine a node of the market, once",
     .opts = enroll_opts,
     .opt_count = COUNT(enroll_opts),
     .examples = enroll_examples,
     .example_count = COUNT(enroll_examples)},
    {.name = "verify",
     .args = "--keys FILE --audience ID",
     .summary = "check a token offline, as at a launch",
     .text =
         "Reads a token from standard input; prints its claims as JSON and exits 0, "
         "or prints {\"error\":CODE,\"step\":STEP} and exits 1.",
     .opts = verify_opts,
     .opt_count = COUNT(verify_opts),
     .examples = verify_examples,
     .example_count = COUNT(verify_examples)},
    {.name = "inventory",
     .args = "",
     .summary = "print the GPUs as the agent sees them, as JSON",
     .opts = conf_opt,
     .opt_count = COUNT(conf_opt)},
    {.name = "leases",
     .args = "",
     .summary = "print the leases in this node's journal, as JSON",
     .opts = conf_opt,
     .opt_count = COUNT(conf_opt)},
    {.name = "release",
     .args = "RESERVATION",
     .summary = "release the GPUs of a quarantined lease to the market again",
     .text = "A lease is quarantined when its processes could not be ended or its GPUs "
             "not be cleaned. Look at the GPUs first; then release them. The agent "
             "tries again to end and clean the lease.",
     .opts = conf_opt,
     .opt_count = COUNT(conf_opt),
     .min_args = 1,
     .max_args = 1},
    {.name = "cleanup",
     .args = "",
     .summary = "end every job and lease in the kernel now, and take their gates away",
     .text = "For taking a node out of the market, after the agent was stopped: kills "
             "what still runs in leases and removes their cgroups. The journal and the "
             "receipts stay.",
     .opts = conf_opt,
     .opt_count = COUNT(conf_opt)},
    {.name = "ssh-keys",
     .args = "USER TYPE KEY",
     .summary = "print what sshd is to do with a key (its AuthorizedKeysCommand)",
     .text =
         "Prints a line of authorized_keys when the key holds an open lease of this "
         "node, else nothing. Run by sshd as `AuthorizedKeysCommand "
         "/usr/sbin/neargpu-agent ssh-keys %u %t %k`.",
     .opts = ssh_opts,
     .opt_count = COUNT(ssh_opts),
     .min_args = 3,
     .max_args = 3},
    {.name = "ssh-session",
     .args = "[--] TICKET",
     .summary = "make an SSH session a job of its lease (the forced command)",
     .text =
         "Run by sshd as the forced command of a key. The session's exit status is "
         "the job's, 128 plus the signal that ended it, or 255 when there was none.",
     .opts = ssh_opts,
     .opt_count = COUNT(ssh_opts),
     .min_args = 1,
     .max_args = 1},
    {.name = "check-conf",
     .args = "",
     .summary = "read the configuration and say what is wrong with it",
     .opts = conf_opt,
     .opt_count = COUNT(conf_opt)},
    {.name = "sample-conf",
     .args = "",
     .summary = "print a configuration file with every key and its default"},
    {.name = "front-selftest",
     .args = "",
     .summary = "try what the agent's network process must not be able to do",
     .text = "Confines a process exactly as the agent's front is and lets it try to "
             "load a device program, reach devices, journal, receipt key and the "
             "privileged process, and more; prints each attempt with the kernel's "
             "answer and exits 0 when all were refused.",
     .opts = conf_opt,
     .opt_count = COUNT(conf_opt)},
};

const struct opt_program commands_program = {
    .name = "neargpu-agent",
    .section = 8,
    .summary = "lends this machine's idle GPUs to the market",
    .text =
        "Runs on a GPU node: tells the market which GPUs are idle, measures the way to "
        "data sets, checks grants, gives leases their GPUs by a device gate in the "
        "kernel, ends them on time, and writes signed receipts of what was used.",
    .commands = list,
    .command_count = COUNT(list),
    .files = "/etc/neargpu/agent.conf  configuration\n"
             "/var/lib/neargpu/agent   identity, journal, receipts\n"
             "/run/neargpu/agent.sock  local socket for tenants\n"
             "/run/neargpu/ssh.sock    local socket for sshd's helpers",
    .exit_status =
        "0 done; 1 failed or refused; 2 usage or configuration; 5 not found; "
        "6 conflict; 8 market not reachable.",
    .see_also = "neargpu(1), neargpud(8)",
};

int command_fail(const struct err *err)
{
    fprintf(stderr, "neargpu-agent: %s\n", err->text);
    return err_exit_status(err->code);
}

const char *command_conf_path(const struct opt_values *v)
{
    const char *path = opt_get(v, "conf");
    if (path == NULL && access(SETTINGS_DEFAULT_PATH, F_OK) == 0)
        path = SETTINGS_DEFAULT_PATH;
    return path;
}

int command_run(const struct opt_values *v)
{
    struct agent *a;
    struct err err;
    if (agent_new(command_conf_path(v), &a, &err) != 0)
        return command_fail(&err);
    agent_run(a);
    agent_free(a);
    return 0;
}

/* --- enroll --- */

static int read_stdin(char **ret, size_t max, struct err *err)
{
    char *text = xmalloc(max + 1);
    size_t len = fread(text, 1, max + 1, stdin);
    if (len > max || ferror(stdin)) {
        free(text);
        return err_set(err, ERR_TOO_LARGE, "standard input: more than %zu bytes", max);
    }
    text[len] = '\0';
    *ret = text;
    return 0;
}

static int read_join_code(const char *path, char **ret, struct err *err)
{
    int rc = strcmp(path, "-") == 0 ? read_stdin(ret, 4096, err)
                                    : fsx_read_secret(path, 4096, ret, NULL, err);
    if (rc == 0)
        (*ret)[strcspn(*ret, " \t\r\n")] = '\0';
    return rc;
}

int command_enroll(const struct opt_values *v)
{
    struct settings conf;
    struct err err;
    char *code = NULL;
    const char *code_file = opt_get(v, "join-code-file");
    (void)signal(SIGPIPE, SIG_IGN); /* a server that hangs up is an error like others */
    if (settings_load(command_conf_path(v), &conf, &err) != 0)
        return command_fail(&err);
    struct identity_enrol in = {.state_dir = conf.state_dir,
                                .server = opt_get(v, "server"),
                                .ca_file = opt_get(v, "ca"),
                                .ca_sha256 = opt_get(v, "ca-sha256"),
                                .again = opt_has(v, "again")};
    if (in.server == NULL)
        in.server = conf.server;
    int rc = 0;
    if (in.server == NULL || code_file == NULL ||
        (in.ca_file == NULL) == (in.ca_sha256 == NULL))
        rc = err_set(&err, ERR_USAGE,
                     "enroll needs --server, --join-code-file and one of --ca-sha256 "
                     "and --ca");
    if (rc == 0)
        rc = read_join_code(code_file, &code, &err);
    in.join_code = code;
    if (rc == 0)
        rc = identity_enrol(&in, &err);
    struct identity id;
    if (rc == 0)
        rc = identity_load(conf.state_dir, &id, &err);
    if (rc == 0) {
        printf("enrolled as %s\n", id.spiffe_id);
        identity_done(&id);
    }
    if (code != NULL)
        explicit_bzero(code, strlen(code));
    free(code);
    settings_done(&conf);
    return rc == 0 ? 0 : command_fail(&err);
}

/* --- looking --- */

static void print_json(json_t *take)
{
    char *text = json_dumps(take, JSON_INDENT(2));
    puts(text);
    free(text);
    json_decref(take);
}

int command_inventory(const struct opt_values *v)
{
    struct settings conf;
    struct gpu_info gpus[GPUS_PER_NODE_MAX];
    struct err err;
    size_t count = 0;
    void *backend = NULL;
    if (settings_load(command_conf_path(v), &conf, &err) != 0)
        return command_fail(&err);
    bool sim = strcmp(conf.inventory, "sim") == 0;
    struct gpu_source source = {.path = sim ? conf.sim_file : conf.nvml_library};
    const struct gpu_ops *ops = gpu_ops_find(conf.inventory);
    int rc = ops->open(&source, &backend, &err);
    if (rc == 0)
        rc = ops->list(backend, gpus, GPUS_PER_NODE_MAX, &count, &err);
    if (rc == 0) {
        json_t *o = json_object(), *a = json_array();
        for (size_t i = 0; i < count; i++) {
            json_t *g = gpu_info_json(&gpus[i]);
            json_object_set_new(g, "offered",
                                json_boolean(advert_is_offerable(&gpus[i])));
            json_array_append_new(a, g);
        }
        json_object_set_new(o, "inventory", json_string(ops->name));
        json_object_set_new(o, "gpus", a);
        print_json(o);
    }
    if (backend != NULL)
        ops->close(backend);
    settings_done(&conf);
    return rc == 0 ? 0 : command_fail(&err);
}

static json_t *lease_json(const struct journal_lease *l)
{
    json_t *o = json_object(), *gpus = json_array();
    for (size_t i = 0; i < l->gpu_count; i++)
        json_array_append_new(gpus, json_string(l->gpus[i]));
    json_object_set_new(o, "reservation", json_string(l->id));
    json_object_set_new(o, "tenant", json_string(l->tenant));
    json_object_set_new(o, "state", json_string(lease_state_name(l->state)));
    json_object_set_new(o, "reason", json_string(l->reason));
    json_object_set_new(o, "not_before", jsonx_time(l->not_before_us));
    json_object_set_new(o, "not_after", jsonx_time(l->not_after_us));
    json_object_set_new(o, "epoch", json_integer(l->epoch));
    json_object_set_new(o, "gpus", gpus);
    return o;
}

/* Reads the journal's files without its lock: the agent may be running, and files are
 * replaced atomically. */
int command_leases(const struct opt_values *v)
{
    struct settings conf;
    struct err err;
    char **ids = NULL;
    size_t count = 0;
    struct journal *j;
    if (settings_load(command_conf_path(v), &conf, &err) != 0)
        return command_fail(&err);
    int rc = journal_open_reader(conf.state_dir, &j, &err);
    settings_done(&conf);
    if (rc != 0)
        return command_fail(&err);
    rc = journal_lease_list(j, &ids, &count, &err);
    json_t *a = json_array(), *o = json_object();
    for (size_t i = 0; i < count; i++) {
        struct journal_lease *l = xcalloc(1, sizeof(*l));
        if (journal_lease_read(j, ids[i], l, &err) == 0)
            json_array_append_new(a, lease_json(l));
        free(l);
        free(ids[i]);
    }
    free(ids);
    journal_free(j);
    json_object_set_new(o, "leases", a);
    if (rc == 0)
        print_json(o);
    else
        json_decref(o);
    return rc == 0 ? 0 : command_fail(&err);
}

/* Only what is quarantined now: a mark left for later would let a GPU go that nobody
 * has looked at. */
static int check_quarantined(struct journal *j, const char *id, struct err *err)
{
    struct journal_lease *l = xcalloc(1, sizeof(*l));
    int rc = journal_lease_read(j, id, l, err);
    if (rc != 0 && err->code != ERR_IO)
        rc = err_set(err, ERR_NOT_FOUND, "no lease %.80s in this node's journal", id);
    else if (rc == 0 && l->state != LEASE_QUARANTINED)
        rc = err_set(err, ERR_CONFLICT, "lease %s is %s, not quarantined", id,
                     lease_state_name(l->state));
    free(l);
    return rc;
}

int command_release(const struct opt_values *v)
{
    struct settings conf;
    struct err err;
    struct journal *j = NULL;
    if (settings_load(command_conf_path(v), &conf, &err) != 0)
        return command_fail(&err);
    int rc = journal_open_reader(conf.state_dir, &j, &err);
    if (rc == 0)
        rc = check_quarantined(j, v->args[0], &err);
    if (rc == 0) {
        char *dir = journal_lease_dir(j, v->args[0]);
        char *mark = xasprintf("%s/released", dir);
        rc = fsx_write(mark, "", 0, 0600, &err);
        free(mark);
        free(dir);
    }
    journal_free(j);
    settings_done(&conf);
    return rc == 0 ? 0 : command_fail(&err);
}

int command_check_conf(const struct opt_values *v)
{
    struct settings conf;
    struct err err;
    if (settings_load(command_conf_path(v), &conf, &err) != 0)
        return command_fail(&err);
    int rc = conf.policy_file != NULL && conf.policy_file[0] != '\0'
                 ? policy_file_check(conf.policy_file, &err)
                 : 0;
    settings_done(&conf);
    if (rc != 0)
        return command_fail(&err);
    puts("ok");
    return 0;
}

int command_sample_conf(const struct opt_values *v)
{
    char *text = conf_sample(settings_keys, settings_key_count);
    (void)v;
    fputs(text, stdout);
    free(text);
    return 0;
}

int command_front_selftest(const struct opt_values *v)
{
    struct settings conf;
    struct err err;
    if (settings_load(command_conf_path(v), &conf, &err) != 0)
        return command_fail(&err);
    int rc = front_selftest(conf.state_dir, conf.front_uid, conf.front_gid);
    settings_done(&conf);
    return rc;
}
