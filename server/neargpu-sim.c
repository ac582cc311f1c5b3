/* neargpu-sim: what would this market have done with that trace? Reads nodes, jobs,
 * round trips, prices and profiles from CSV files, replays them through the server's
 * matching core, prints figures as JSON and, on demand, where each job went. It talks
 * to no server and no database. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/lib/opt.h"
#include "client/lib/strbuf.h"
#include "config.h"
#include "server/sim/engine.h"
#include "server/sim/report.h"
#include "server/sim/world.h"

static const struct opt_def run_opts[] = {
    {"nodes", 'n', "NODES.csv", "node,gpus,gpu_model[,site]: the GPUs on offer", false},
    {"jobs", 'j', "JOBS.csv",
     "submit_s,duration_s,gpus[,job,gpu_model,data,profile], or the openb form "
     "num_gpu,gpu_spec,creation_s,deletion_s[,name,data,profile]",
     false},
    {"rtt", 'r', "RTT.csv",
     "src,dst,rtt_ms: round trip from a site to the data at a site", false},
    {"profiles", 0, "PROFILES.csv",
     "workload profiles instead of the built-in ones: profile,kind,demand_MBps_per_gpu,"
     "request_bytes,outstanding_per_gpu,startup_bytes,checkpoint_bytes,"
     "sync_bytes_per_s_compute,step_s",
     false},
    {"prices", 0, "PRICES.csv",
     "site,gpu_model,price_per_gpu_hour; default: every GPU-hour costs 1", false},
    {"policy", 'p', "POLICY", "neargpu (default), nearest, cheapest or random", false},
    {"wait", 'w', "MODE",
     "what a job does that cannot start when submitted: none (default: it is refused), "
     "fifo or backfill",
     false},
    {"place", 0, "PLACE.csv", "file to write where and when each job ran", false},
    {"seed", 's', "N", "seed of everything drawn by chance; default: 1", false},
    {"fixed-gpus", 0, NULL,
     "a job keeps the run of neighbouring GPUs it was given, as in the market; "
     "default: "
     "any free GPUs of a node serve",
     false},
};
static const struct opt_example examples[] = {
    {"neargpu-sim --nodes nodes.csv --jobs jobs.csv --rtt rtt.csv",
     "place a trace by effective cost and print the figures"},
    {"neargpu-sim --nodes nodes.csv --jobs jobs.csv --rtt rtt.csv --policy cheapest "
     "--wait fifo --place place.csv",
     "how would the cheapest GPUs have done, job by job?"},
};
static const struct opt_command commands[] = {
    {.name = "",
     .args = "--nodes FILE --jobs FILE --rtt FILE",
     .summary = "replay a trace and print JSON",
     .text =
         "Files are CSV (RFC 4180) with a header line; columns that are not named here "
         "are ignored. What does not fit is refused with file and line.\n\n"
         "Sites are the names in RTT.csv. Nodes without a site go round robin over "
         "them; a job without data gets a site drawn by the seed; a job that asks for "
         "more GPUs than a node has gets whole nodes of one site. A job takes its "
         "duration times the slow-down that the model predicts for its profile and the "
         "round trip to its data.\n\n"
         "The same files, options and seed give the same output, but for the members "
         "whose names begin with ns_.",
     .opts = run_opts,
     .opt_count = sizeof run_opts / sizeof run_opts[0],
     .examples = examples,
     .example_count = 2},
};
static const struct opt_program program = {
    .name = "neargpu-sim",
    .section = 1,
    .summary = "replay a trace through the market's matching",
    .text =
        "Answers what-if questions with the same code that places reservations: "
        "other prices, other sites, another policy, a waiting list. docs/simulation.md "
        "explains files and figures.",
    .commands = commands,
    .command_count = 1,
    .exit_status =
        "0\tDone.\n1\tA file could not be read or written.\n"
        "2\tWrong usage, or a file that does not fit.\n5\tA file is missing.",
    .see_also = "neargpu(1), neargpud(8)",
};

static int64_t clock_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

static int read_seed(const char *text, uint64_t *ret, struct err *err)
{
    char *end;
    if (text == NULL) {
        *ret = 1;
        return 0;
    }
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    /* Up to INT64_MAX: JSON says it back as an integer. */
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 ||
        value > INT64_MAX) {
        return err_set(err, ERR_USAGE, "--seed: '%s' is no number 0..%" PRId64, text,
                       INT64_MAX);
    }
    *ret = value;
    return 0;
}

static int read_policy(const char *text, enum sim_policy *ret, struct err *err)
{
    *ret = SIM_NEARGPU;
    for (int i = 0; text != NULL; i++) {
        if (i == SIM_POLICIES) {
            return err_set(err, ERR_USAGE,
                           "--policy: '%s' is none of neargpu, nearest, cheapest, "
                           "random",
                           text);
        }
        *ret = (enum sim_policy)i;
        if (strcmp(text, sim_policy_name(*ret)) == 0) {
            break;
        }
    }
    return 0;
}

static int read_wait(const char *text, enum sim_wait *ret, struct err *err)
{
    *ret = SIM_WAIT_NONE;
    for (int i = 0; text != NULL; i++) {
        if (i == SIM_WAITS) {
            return err_set(err, ERR_USAGE,
                           "--wait: '%s' is none of none, fifo, backfill", text);
        }
        *ret = (enum sim_wait)i;
        if (strcmp(text, sim_wait_name(*ret)) == 0) {
            break;
        }
    }
    return 0;
}

static int read_options(const struct opt_values *v, struct sim_files *files,
                        struct sim_options *options, struct err *err)
{
    *files = (struct sim_files){.nodes = opt_get(v, "nodes"),
                                .jobs = opt_get(v, "jobs"),
                                .rtt = opt_get(v, "rtt"),
                                .profiles = opt_get(v, "profiles"),
                                .prices = opt_get(v, "prices")};
    *options = (struct sim_options){.fixed_gpus = opt_has(v, "fixed-gpus"),
                                    .clock_ns = clock_ns};
    if (files->nodes == NULL || files->jobs == NULL || files->rtt == NULL) {
        return err_set(err, ERR_USAGE,
                       "--%s is missing: --nodes, --jobs and --rtt name the files to "
                       "replay (see --help)",
                       files->nodes == NULL  ? "nodes"
                       : files->jobs == NULL ? "jobs"
                                             : "rtt");
    }
    return read_seed(opt_get(v, "seed"), &options->seed, err) != 0 ||
                   read_policy(opt_get(v, "policy"), &options->policy, err) != 0 ||
                   read_wait(opt_get(v, "wait"), &options->wait, err) != 0
               ? -1
               : 0;
}

/* Not through a temporary file: PLACE may be a pipe. */
static int write_place(const char *path, const struct sim_world *w,
                       const struct sim_run *run, struct err *err)
{
    struct strbuf text = STRBUF_INIT;
    FILE *f = fopen(path, "we");
    if (f == NULL) {
        return err_sys(err, errno, "cannot write %s", path);
    }
    sim_report_place(w, run, &text);
    bool is_short = fwrite(text.data, 1, text.len, f) != text.len;
    strbuf_done(&text);
    return fclose(f) != 0 || is_short ? err_sys(err, errno, "cannot write %s", path)
                                      : 0;
}

static int print(char *text)
{
    int rc = fputs(text, stdout) < 0 || fflush(stdout) != 0;
    free(text);
    return rc;
}

static int replay(const struct opt_values *v, struct err *err)
{
    struct sim_files files;
    struct sim_options options;
    struct sim_world world = {0};
    struct sim_run run = {0};
    const char *place = opt_get(v, "place");
    int rc = read_options(v, &files, &options, err);
    if (rc == 0) {
        rc = sim_load(&world, &files, err);
    }
    if (rc == 0) {
        sim_run(&world, &options, &run);
        rc = place == NULL ? 0 : write_place(place, &world, &run, err);
    }
    if (rc == 0 && print(sim_report_json(&world, &options, &run)) != 0) {
        rc = err_sys(err, errno, "cannot write the report");
    }
    sim_run_done(&run, &world);
    sim_done(&world);
    return rc;
}

int main(int argc, char **argv)
{
    struct opt_values v;
    struct err err;
    int rc;
    if (opt_parse(&program, argc, argv, &v, &err) != 0) {
        fprintf(stderr, "neargpu-sim: %s\n", err.text);
        return err_exit_status(err.code);
    }
    if (v.man) {
        rc = print(opt_man(&program));
    } else if (v.help) {
        rc = print(opt_help(&program, v.command));
    } else if (v.version) {
        rc = puts("neargpu-sim " PACKAGE_VERSION) < 0;
    } else if ((rc = replay(&v, &err)) != 0) {
        fprintf(stderr, "neargpu-sim: %s\n", err.text);
        rc = err_exit_status(err.code);
    }
    opt_done(&v);
    return rc;
}
