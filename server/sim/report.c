/* report: percentiles are nearest-rank; sums of money are kept in 128 bits and printed
 * in whole units with their fraction. */
#include "server/sim/report.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

struct totals {
    int64_t placed, waited, refused;
    int64_t by_why[SIM_WHY_COUNT];
    int64_t gpus;
    int64_t from_us, to_us; /* first submission, last end */
    __int128 charged_micro, effective_micro;
    __int128 slowdown_ppm, wait_us;
    __int128 gpu_us;   /* occupied */
    int64_t *waits_us; /* of those placed */
};

static void count_placed(const struct sim_job *job, const struct sim_outcome *o,
                         struct totals *t)
{
    int64_t wait_us = o->start_us - job->submit_us;
    t->waits_us[t->placed++] = wait_us;
    t->waited += wait_us > 0;
    t->wait_us += wait_us;
    t->charged_micro += (__int128)o->charged_micro * o->node_count;
    t->effective_micro += (__int128)o->effective_micro * o->node_count;
    t->slowdown_ppm += o->slowdown_ppm;
    t->gpu_us += (__int128)(o->end_us - o->start_us) * o->gpus * o->node_count;
    t->to_us = o->end_us > t->to_us ? o->end_us : t->to_us;
}

static void count(const struct sim_world *w, const struct sim_run *run,
                  struct totals *t)
{
    *t = (struct totals){0};
    t->waits_us = xcalloc(w->job_count + 1, sizeof *t->waits_us);
    t->from_us = t->to_us = w->job_count > 0 ? w->jobs[0].submit_us : 0;
    for (size_t i = 0; i < w->node_count; i++) {
        t->gpus += w->nodes[i].gpus;
    }
    for (size_t i = 0; i < w->job_count; i++) {
        const struct sim_outcome *o = &run->outcomes[i];
        if (o->why == MATCH_OK) {
            count_placed(&w->jobs[i], o, t);
        } else {
            t->refused++;
            t->by_why[o->why]++;
        }
    }
}

static int compare_i64(const void *pa, const void *pb)
{
    int64_t a = *(const int64_t *)pa, b = *(const int64_t *)pb;
    return (a > b) - (a < b);
}

/* Of sorted values: the smallest that `percent` of them do not exceed. */
static int64_t percentile(const int64_t *sorted, int64_t count, int percent)
{
    return count == 0 ? 0 : sorted[(count * percent + 99) / 100 - 1];
}

static json_t *ratio(__int128 a, __int128 b)
{
    return json_real(b == 0 ? 0 : (double)((long double)a / (long double)b));
}

static json_t *seconds(int64_t us)
{
    return ratio(us, US_PER_S);
}

static json_t *reasons(const struct totals *t)
{
    json_t *obj = json_object();
    for (int why = 0; why < SIM_WHY_COUNT; why++) {
        if (t->by_why[why] > 0) {
            json_object_set_new(obj, sim_why_name(why), json_integer(t->by_why[why]));
        }
    }
    return obj;
}

static void set_times(json_t *obj, const struct sim_run *run)
{
    size_t n = run->match_count;
    int64_t *sorted = xcalloc(n + 1, sizeof *sorted);
    for (size_t i = 0; i < n; i++) {
        sorted[i] = run->match_ns[i];
    }
    qsort(sorted, n, sizeof *sorted, compare_i64);
    json_object_set_new(obj, "ns_per_match_p50",
                        json_integer(percentile(sorted, (int64_t)n, 50)));
    json_object_set_new(obj, "ns_per_match_p99",
                        json_integer(percentile(sorted, (int64_t)n, 99)));
    json_object_set_new(obj, "ns_run", json_integer(run->run_ns));
    free(sorted);
}

/* Texts are the names of ours or of a file, which may not be UTF-8: only ours here. */
char *sim_report_json(const struct sim_world *w, const struct sim_options *options,
                      const struct sim_run *run)
{
    struct totals t;
    count(w, run, &t);
    qsort(t.waits_us, (size_t)t.placed, sizeof *t.waits_us, compare_i64);
    json_t *obj = json_object();
    const struct {
        const char *name;
        json_t *value;
    } members[] = {
        {"policy", json_string(sim_policy_name(options->policy))},
        {"wait", json_string(sim_wait_name(options->wait))},
        {"seed", json_integer((json_int_t)options->seed)},
        {"sites", json_integer(w->sites.count)},
        {"nodes", json_integer((json_int_t)w->node_count)},
        {"gpus", json_integer(t.gpus)},
        {"jobs", json_integer((json_int_t)w->job_count)},
        {"placed", json_integer(t.placed)},
        {"waited", json_integer(t.waited)},
        {"refused", json_integer(t.refused)},
        {"refused_reasons", reasons(&t)},
        {"skipped", json_integer((json_int_t)w->skipped_jobs)},
        {"skipped_nodes", json_integer((json_int_t)w->skipped_nodes)},
        {"wait_mean_s", ratio(t.wait_us, (__int128)t.placed * US_PER_S)},
        {"wait_p50_s", seconds(percentile(t.waits_us, t.placed, 50))},
        {"wait_p99_s", seconds(percentile(t.waits_us, t.placed, 99))},
        {"slowdown_mean", ratio(t.slowdown_ppm, (__int128)t.placed * MATCH_PPM)},
        {"charged_cost", ratio(t.charged_micro, 1000000)},
        {"effective_cost", ratio(t.effective_micro, 1000000)},
        {"gpu_hours", ratio(t.gpu_us, US_PER_HOUR)},
        {"utilisation", ratio(t.gpu_us, (__int128)t.gpus * (t.to_us - t.from_us))},
        {"from_s", seconds(t.from_us)},
        {"to_s", seconds(t.to_us)},
        {"matches", json_integer((json_int_t)run->match_count)},
    };
    for (size_t i = 0; i < sizeof members / sizeof members[0]; i++) {
        json_object_set_new(obj, members[i].name, members[i].value);
    }
    set_times(obj, run);
    free(t.waits_us);
    char *text = json_dumps(obj, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
    json_decref(obj);
    char *line = xasprintf("%s\n", text);
    free(text);
    return line;
}

/* ---- PLACE ---- */

/* value / 10^digits, exactly, without zeros at the end. */
static void add_decimal(struct strbuf *out, int64_t value, int digits)
{
    int64_t scale = 1;
    for (int i = 0; i < digits; i++) {
        scale *= 10;
    }
    int64_t rest = value % scale;
    strbuf_addf(out, "%" PRId64, value / scale);
    if (rest > 0) {
        while (rest % 10 == 0) {
            rest /= 10;
            digits--;
        }
        strbuf_addf(out, ".%0*" PRId64, digits, rest);
    }
}

static void add_name(struct strbuf *out, const char *name)
{
    if (strpbrk(name, ",\"\r\n") == NULL) {
        strbuf_adds(out, name);
        return;
    }
    strbuf_addc(out, '"');
    for (; *name != '\0'; name++) {
        if (*name == '"') {
            strbuf_addc(out, '"');
        }
        strbuf_addc(out, *name);
    }
    strbuf_addc(out, '"');
}

static void add_row(const struct sim_world *w, const struct sim_job *job,
                    const struct sim_outcome *o, int node, struct strbuf *out)
{
    const struct sim_node *n = &w->nodes[node];
    add_name(out, job->name);
    strbuf_addc(out, ',');
    add_decimal(out, job->submit_us, 6);
    strbuf_addc(out, ',');
    add_decimal(out, o->start_us, 6);
    strbuf_addc(out, ',');
    add_decimal(out, o->end_us, 6);
    strbuf_addc(out, ',');
    add_name(out, w->sites.items[n->site]);
    strbuf_addc(out, ',');
    add_name(out, n->name);
    strbuf_addf(out, ",%d,", o->gpus);
    add_name(out, w->sites.items[o->data]);
    strbuf_addc(out, ',');
    if (o->rtt_us != SIM_RTT_UNKNOWN) {
        add_decimal(out, o->rtt_us, 3);
    }
    strbuf_addc(out, ',');
    add_decimal(out, o->slowdown_ppm, 6);
    strbuf_addc(out, ',');
    add_decimal(out, o->price_micro, 6);
    strbuf_addc(out, ',');
    add_decimal(out, o->effective_micro, 6);
    strbuf_addc(out, '\n');
}

void sim_report_place(const struct sim_world *w, const struct sim_run *run,
                      struct strbuf *out)
{
    strbuf_adds(out, "job,submit_s,start_s,end_s,site,node,gpus,data,rtt_ms,slowdown,"
                     "price_per_gpu_hour,effective\n");
    for (size_t i = 0; i < w->job_count; i++) {
        const struct sim_outcome *o = &run->outcomes[i];
        for (int k = 0; o->why == MATCH_OK && k < o->node_count; k++) {
            add_row(w, &w->jobs[i], o, o->nodes[k], out);
        }
    }
}
