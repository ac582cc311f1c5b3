/* bench_match: what one question to the calendar costs at 10,000, 100,000 and 1,000,000
 * GPUs, beside a look at each node in the same run (whose answers must be the same).
 *
 * The market: 200 sites with one model each, 8 GPUs a node, 14 days. Each node is
 * booked by jobs of 1, 2, 4 or 8 GPUs whose lengths are spread as in public traces
 * (many of an hour, few of days), half of them starting at any microsecond and half at
 * a quarter of an hour; about 70 % of the time is taken. A single-node question goes
 * through all sites in a random order of cost until one can serve. Only CPU time of one
 * thread.
 *
 * Usage: bench_match [RESULT.json [SEED]]. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "server/core/calendar.h"
#include "server/core/match.h"

#define SITES         200
#define GPUS_PER_NODE 8
#define ORDERS        64
#define ROUNDS        7
#define QUESTIONS     4000 /* a round */
#define DATASETS      20
#define SCANS         300
#define BOOKS         20000
#define GANG_NODES    16

#define SECOND  INT64_C(1000000)
#define HOUR    (3600 * SECOND)
#define DAY     (24 * HOUR)
#define QUARTER (HOUR / 4)

static const int64_t now_us = INT64_C(1795384392000000);
static uint64_t rng_state;

struct job {
    int64_t from_us, to_us;
    int32_t node;
    uint8_t first, count;
};

struct market {
    int node_count;
    struct calendar *calendar;
    struct job *jobs;
    size_t job_count, job_cap;
    double load_s, taken, gpu_jobs;
    int orders[ORDERS][SITES];
    struct topo *topo;
    struct match_offer offers[SITES];
};

struct spread {
    double mean, p50, p99;
};

static void die(const char *what)
{
    fprintf(stderr, "bench_match: %s\n", what);
    exit(1);
}

static uint64_t rng(void)
{
    rng_state ^= rng_state >> 12;
    rng_state ^= rng_state << 25;
    rng_state ^= rng_state >> 27;
    return rng_state * UINT64_C(2685821657736338717);
}

static int below(int n)
{
    return (int)((rng() >> 33) % (uint64_t)n);
}

static double cpu_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static double wall_us(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

/* ---- the market ---- */

static int64_t job_len(void)
{
    static const int hours[] = {1, 1, 1, 2, 2, 3, 4, 4, 6, 8, 8, 12, 12, 16, 36};
    int64_t len = hours[below(15)] * HOUR;
    return below(3) == 0 ? len + below(60) * 60 * SECOND : len;
}

/* Exponential: most gaps are short, a few last for days. */
static int64_t job_gap(int count)
{
    double mean_h = count == 8 ? 1.8 : 0.4;
    double u = (double)(rng() >> 11) * 0x1p-53;
    return below(4) == 0 ? 0 : (int64_t)(-log1p(-u) * mean_h * (double)HOUR);
}

static int64_t max_until(const int64_t *until, int first, int count)
{
    int64_t latest = until[first];
    for (int g = first; g < first + count; g++) {
        latest = until[g] > latest ? until[g] : latest;
    }
    return latest;
}

/* The next job of a node, on the place that is free first. */
static struct job next_job(int node, int64_t *until)
{
    static const uint8_t mixed[] = {1, 1, 1, 1, 2, 2, 4, 4, 8, 1};
    static const uint8_t large[] = {8, 8, 8, 8, 8, 4, 4, 2, 8, 8};
    int count = node % 5 < 2 ? large[below(10)] : mixed[below(10)];
    int first = 0;
    for (int at = 0; at < GPUS_PER_NODE; at += count) {
        if (max_until(until, at, count) < max_until(until, first, count)) {
            first = at;
        }
    }
    int64_t from = max_until(until, first, count) + job_gap(count);
    from = below(2) == 0 ? (from / QUARTER + 1) * QUARTER : from;
    struct job j = {from, from + job_len(), node, (uint8_t)first, (uint8_t)count};
    for (int g = first; g < first + count; g++) {
        until[g] = j.to_us;
    }
    return j;
}

static void market_add(struct market *m, const struct job *j)
{
    if (j->from_us >= now_us + 14 * DAY || j->to_us <= now_us) {
        return;
    }
    if (m->job_count == m->job_cap) {
        m->job_cap = m->job_cap * 2 + 1024;
        m->jobs = realloc(m->jobs, m->job_cap * sizeof *m->jobs);
        if (m->jobs == NULL) {
            die("no memory");
        }
    }
    m->jobs[m->job_count++] = *j;
    int64_t to = j->to_us < now_us + 14 * DAY ? j->to_us : now_us + 14 * DAY;
    int64_t from = j->from_us > now_us ? j->from_us : now_us;
    m->taken += (double)(to - from) * j->count;
    m->gpu_jobs += j->count;
}

/* One job of each node in turn: neighbours in time are on different nodes. */
static void market_jobs(struct market *m)
{
    int64_t(*until)[GPUS_PER_NODE] = calloc((size_t)m->node_count, sizeof *until);
    if (until == NULL) {
        die("no memory");
    }
    for (int node = 0; node < m->node_count; node++) {
        for (int g = 0; g < GPUS_PER_NODE; g++) {
            until[node][g] = now_us - below(24 * 3600) * SECOND;
        }
    }
    for (bool more = true; more;) {
        more = false;
        for (int node = 0; node < m->node_count; node++) {
            int64_t first = until[node][0];
            for (int g = 1; g < GPUS_PER_NODE; g++) {
                first = until[node][g] < first ? until[node][g] : first;
            }
            if (first < now_us + 14 * DAY) {
                struct job j = next_job(node, until[node]);
                market_add(m, &j);
                more = true;
            }
        }
    }
    free(until);
    m->taken /= (double)m->node_count * GPUS_PER_NODE * 14 * DAY;
    m->gpu_jobs /= (double)m->node_count * GPUS_PER_NODE;
}

static void market_load(struct market *m)
{
    double from = cpu_us();
    m->calendar = calendar_new();
    for (int node = 0; node < m->node_count; node++) {
        struct calendar_node n = {.site = node % SITES,
                                  .domain = node / SITES / 32,
                                  .gpus = GPUS_PER_NODE,
                                  .offered = 0xff};
        calendar_set_node(m->calendar, node, &n);
    }
    for (size_t i = 0; i < m->job_count; i++) {
        const struct job *j = &m->jobs[i];
        calendar_book(m->calendar, (int64_t)i, j->node, j->first, j->count, j->from_us,
                      j->to_us);
    }
    calendar_expire(m->calendar, now_us);
    m->load_s = (cpu_us() - from) / 1e6;
}

static void market_offers(struct market *m)
{
    m->topo = topo_new();
    for (int data = 0; data < DATASETS; data++) {
        struct topo_place place = {below(120) - 60, below(360) - 180, true};
        topo_set_data(m->topo, data, place);
    }
    for (int site = 0; site < SITES; site++) {
        struct topo_place place = {below(120) - 60, below(360) - 180, true};
        topo_set_site(m->topo, site, place);
        m->offers[site] = (struct match_offer){.site = site,
                                               .site_name = "site",
                                               .provider_name = "provider",
                                               .gpu_model = "H100-SXM5-80GB",
                                               .residency = "jp",
                                               .price_micro = 2000000 + below(2000000),
                                               .gpu_memory_mib = 81920,
                                               .reliability_ppm = 990000,
                                               .bandwidth_Bps = INT64_C(12500000000),
                                               .up = true,
                                               .zone = ""};
    }
}

static struct market *market_new(int gpus)
{
    struct market *m = calloc(1, sizeof *m);
    if (m == NULL) {
        die("no memory");
    }
    m->node_count = gpus / GPUS_PER_NODE;
    for (int i = 0; i < ORDERS; i++) {
        for (int k = 0; k < SITES; k++) {
            int at = below(k + 1);
            m->orders[i][k] = m->orders[i][at];
            m->orders[i][at] = k;
        }
    }
    market_jobs(m);
    market_load(m);
    market_offers(m);
    return m;
}

static void market_free(struct market *m)
{
    calendar_free(m->calendar);
    topo_free(m->topo);
    free(m->jobs);
    free(m);
}

/* ---- questions ---- */

struct question {
    struct calendar_query query;
    const int *order;
    struct calendar_slot slot;
    bool found;
};

enum kind { FIXED, EARLIEST, GANG };

static struct question random_question(const struct market *m, enum kind kind)
{
    static const int hours[] = {1, 1, 2, 2, 4, 4, 8, 12, 24, 3};
    int64_t from = now_us + below(12 * 24 * 3600) * SECOND + below(1000000);
    struct question ask = {.order = m->orders[below(ORDERS)]};
    ask.query = (struct calendar_query){
        .gpus = kind == GANG ? 8 : 1 + below(8),
        .from_us = below(2) == 0 ? from / QUARTER * QUARTER : from,
        .len_us = hours[below(10)] * HOUR,
        .spread = (uint32_t)(rng() >> 40)};
    ask.query.latest_us = ask.query.from_us + (kind == EARLIEST ? DAY : 0);
    if (kind == GANG) {
        ask.query.len_us = hours[below(7)] * HOUR;
    }
    return ask;
}

/* The cheapest site that can serve. */
static bool ask_index(const struct market *m, struct question *ask)
{
    for (int i = 0; i < SITES; i++) {
        ask->query.site = ask->order[i];
        if (calendar_find(m->calendar, &ask->query, &ask->slot)) {
            return true;
        }
    }
    return false;
}

static bool ask_gang(const struct market *m, struct question *ask)
{
    struct calendar_slot slots[GANG_NODES];
    struct calendar_gang gang = {.query = ask->query, .nodes = GANG_NODES};
    for (int i = 0; i < SITES; i++) {
        gang.query.site = ask->order[i];
        if (calendar_find_gang(m->calendar, &gang, slots)) {
            ask->slot = slots[0];
            return true;
        }
    }
    return false;
}

static bool ask_whole(const struct market *m, struct question *ask)
{
    static struct match_plan plan;
    struct match_market market = {.calendar = m->calendar,
                                  .topo = m->topo,
                                  .offers = m->offers,
                                  .offer_count = SITES};
    int data = ask->order[0] % DATASETS;
    struct match_query q = {.gpus = ask->query.gpus,
                            .len_us = ask->query.len_us,
                            .from_us = ask->query.from_us,
                            .latest_us = ask->query.latest_us,
                            .data = &data,
                            .data_count = 1,
                            .profile = slowdown_find("resnet50_h100"),
                            .now_us = now_us,
                            .spread = ask->query.spread};
    return match_best(&market, &q, &plan) == MATCH_OK;
}

/* The same by a look at each node of each site in turn, best fit and smallest key. */
static bool ask_scan(const struct market *m, struct question *ask)
{
    const struct calendar_query *q = &ask->query;
    for (int i = 0; i < SITES; i++) {
        int best = -1, best_first = 0, best_fit = 0;
        for (int node = ask->order[i]; node < m->node_count; node += SITES) {
            uint64_t mask = calendar_free_mask(m->calendar, node, q->from_us,
                                               q->from_us + q->len_us);
            int fit = q->gpus, first = -1;
            while (fit <= GPUS_PER_NODE && first < 0) {
                uint64_t ends = ~mask;
                for (int g = 0; g + fit <= GPUS_PER_NODE && first < 0; g++) {
                    uint64_t run = ((UINT64_C(1) << fit) - 1) << g;
                    bool alone = (mask & run) == run && (ends >> (g + fit) & 1) != 0 &&
                                 (g == 0 || (ends >> (g - 1) & 1) != 0);
                    first = alone ? g : first;
                }
                fit += first < 0;
            }
            if (first >= 0 && (best < 0 || fit < best_fit ||
                               (fit == best_fit && ((uint32_t)node ^ q->spread) <
                                                       ((uint32_t)best ^ q->spread)))) {
                best = node;
                best_first = first;
                best_fit = fit;
            }
        }
        if (best >= 0) {
            ask->slot = (struct calendar_slot){best, best_first, q->from_us};
            return true;
        }
    }
    return false;
}

/* ---- measuring ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static struct spread spread_of(double *values, size_t count)
{
    struct spread s = {0};
    for (size_t i = 0; i < count; i++) {
        s.mean += values[i] / (double)count;
    }
    qsort(values, count, sizeof *values, by_value);
    s.p50 = values[count / 2];
    s.p99 = values[count * 99 / 100];
    return s;
}

typedef bool ask_fn(const struct market *m, struct question *ask);

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof *values, by_value);
    return values[count / 2];
}

/* `count` questions a round. */
static struct spread measure(const struct market *m, const char *what, ask_fn *ask,
                             struct question *questions, size_t count, int rounds)
{
    double mean[ROUNDS], p50[ROUNDS], p99[ROUNDS];
    double *took = calloc(count, sizeof *took);
    size_t found = 0;
    if (took == NULL) {
        die("no memory");
    }
    for (int r = 0; r < rounds; r++) {
        for (size_t i = 0; i < count; i++) {
            struct question *q = &questions[(size_t)r * count + i];
            double from = wall_us();
            q->found = ask(m, q);
            took[i] = wall_us() - from;
            found += q->found;
        }
        struct spread round = spread_of(took, count);
        mean[r] = round.mean;
        p50[r] = round.p50;
        p99[r] = round.p99;
    }
    size_t n = (size_t)rounds;
    struct spread s = {median(mean, n), median(p50, n), median(p99, n)};
    printf("  %-22s mean %9.2f us  p50 %9.2f  p99 %9.2f  (%zu of %zu found)\n", what,
           s.mean, s.p50, s.p99, found, count * n);
    fflush(stdout);
    free(took);
    return s;
}

static void measure_books(const struct market *m, const struct question *questions,
                          double *ret_book_us, double *ret_release_us)
{
    size_t booked = 0;
    double from = cpu_us();
    for (size_t i = 0; i < BOOKS; i++) {
        const struct question *ask = &questions[i % (ROUNDS * QUESTIONS)];
        if (ask->found) {
            calendar_book(m->calendar, -1 - (int64_t)i, ask->slot.node, ask->slot.first,
                          ask->query.gpus, ask->slot.start_us,
                          ask->slot.start_us + ask->query.len_us);
            booked++;
        }
    }
    *ret_book_us = (cpu_us() - from) / (double)(booked > 0 ? booked : 1);
    from = cpu_us();
    for (size_t i = 0; i < BOOKS; i++) {
        calendar_release(m->calendar, -1 - (int64_t)i);
    }
    *ret_release_us = (cpu_us() - from) / (double)(booked > 0 ? booked : 1);
    printf("  %-22s mean %9.2f us, release %.2f us\n", "book", *ret_book_us,
           *ret_release_us);
}

struct figures {
    struct spread fixed, earliest, gang, scan, whole;
    double book_us, release_us, load_s, bytes_per_gpu, vs_scan;
};

static double total(const struct spread *s, size_t count)
{
    return s->mean * (double)count;
}

/* The scan must say what the index says. */
static void measure_scan(const struct market *m, const struct question *questions,
                         struct figures *f)
{
    struct question *scans = calloc(SCANS, sizeof *scans);
    struct question *again = calloc(SCANS, sizeof *again);
    if (scans == NULL || again == NULL) {
        die("no memory");
    }
    memcpy(scans, questions, SCANS * sizeof *scans);
    memcpy(again, questions, SCANS * sizeof *again);
    f->scan = measure(m, "scan, single node", ask_scan, scans, SCANS, 1);
    struct spread index =
        measure(m, "the same by the index", ask_index, again, SCANS, 1);
    f->vs_scan = total(&f->scan, SCANS) / total(&index, SCANS);
    for (size_t i = 0; i < SCANS; i++) {
        if (scans[i].found != again[i].found ||
            (scans[i].found && (scans[i].slot.node != again[i].slot.node ||
                                scans[i].slot.first != again[i].slot.first))) {
            die("index and scan differ");
        }
    }
    free(scans);
    free(again);
}

static struct figures measure_market(int gpus)
{
    struct figures f = {0};
    struct market *m = market_new(gpus);
    struct question *q = calloc(ROUNDS * QUESTIONS, sizeof *q);
    if (q == NULL) {
        die("no memory");
    }
    f.load_s = m->load_s;
    f.bytes_per_gpu = (double)calendar_bytes(m->calendar) / gpus;
    printf("%d GPUs: %zu bookings, %.1f of each GPU, %.1f %% of the time taken, loaded "
           "in %.2f s, %.0f bytes a GPU\n",
           gpus, m->job_count, m->gpu_jobs, 100 * m->taken, f.load_s, f.bytes_per_gpu);
    fflush(stdout);
    for (size_t i = 0; i < ROUNDS * QUESTIONS; i++) {
        q[i] = random_question(m, EARLIEST);
    }
    f.earliest = measure(m, "earliest in a day", ask_index, q, QUESTIONS, ROUNDS);
    for (size_t i = 0; i < ROUNDS * QUESTIONS; i++) {
        q[i] = random_question(m, GANG);
    }
    f.gang = measure(m, "16 nodes of 8", ask_gang, q, QUESTIONS, ROUNDS);
    for (size_t i = 0; i < ROUNDS * QUESTIONS; i++) {
        q[i] = random_question(m, FIXED);
    }
    f.whole = measure(m, "whole match", ask_whole, q, QUESTIONS, ROUNDS);
    f.fixed = measure(m, "single node", ask_index, q, QUESTIONS, ROUNDS);
    measure_scan(m, q, &f);
    measure_books(m, q, &f.book_us, &f.release_us);
    free(q);
    market_free(m);
    return f;
}

static void metric(json_t *metrics, const char *name, const char *size, double value)
{
    char key[64];
    snprintf(key, sizeof key, "match.%s%s", name, size);
    json_object_set_new(metrics, key, json_real(value));
}

static void write_result(const char *path, json_t *metrics)
{
    struct err err;
    json_t *result = json_pack(
        "{s:s, s:o, s:s}", "name", "match", "metrics", metrics, "note",
        "one thread, medians of 7 rounds of 4,000 questions, 200 sites, 8 GPUs a node, "
        "14 days; a single-node question (k = 1 "
        "to 8, 1 to 24 hours) goes through all sites in random order until one can "
        "serve; growth is of the mean; vs_scan: time of a look at each node over time "
        "of the index, same questions, same answers");
    char *text = json_dumps(result, JSON_INDENT(1) | JSON_REAL_PRECISION(6));
    if (fsx_write(path, text, strlen(text), 0644, &err) != 0) {
        die(err.text);
    }
    free(text);
    json_decref(result);
}

int main(int argc, char **argv)
{
    static const struct {
        int gpus;
        const char *suffix;
    } sizes[] = {{10000, "_10k"}, {100000, "_100k"}, {1000000, "_1m"}};
    struct figures f[3];
    uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 20260706;
    json_t *metrics = json_object();
    printf("seed %" PRIu64 "\n", seed);
    for (int i = 0; i < 3; i++) {
        rng_state = seed * 2 + 1;
        f[i] = measure_market(sizes[i].gpus);
        const char *suffix = sizes[i].suffix;
        metric(metrics, "p50_us", suffix, f[i].fixed.p50);
        metric(metrics, "p99_us", suffix, f[i].fixed.p99);
        metric(metrics, "gang16_p99_us", suffix, f[i].gang.p99);
        metric(metrics, "earliest_p99_us", suffix, f[i].earliest.p99);
        metric(metrics, "whole_p50_us", suffix, f[i].whole.p50);
        metric(metrics, "whole_p99_us", suffix, f[i].whole.p99);
        metric(metrics, "book_us", suffix, f[i].book_us);
        metric(metrics, "release_us", suffix, f[i].release_us);
        metric(metrics, "load_s", suffix, f[i].load_s);
    }
    metric(metrics, "bytes_per_gpu", "", f[2].bytes_per_gpu);
    metric(metrics, "growth_10k_1m", "", f[2].fixed.mean / f[0].fixed.mean);
    metric(metrics, "vs_scan", "", f[2].vs_scan);
    if (argc > 1) {
        write_result(argv[1], metrics);
    }
    json_decref(metrics);
    return 0;
}
