/* place_batch SEED PROBLEM.lp: a random market with free GPUs and 40 waiting requests,
 * placed at once in queue order as the waiting list's planner does, then improved in
 * sum. Writes the same problem as an integer program (CPLEX LP format; x_r_n: request r
 * stands on node n) and prints JSON: how many are served and at what effective cost,
 * in queue order and improved with several limits to what one may pay for the others.
 * All start at once: starts are the same whoever decides, what differs is the place. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/lib/timefmt.h"
#include "server/core/improve.h"
#include "server/core/match.h"

#define SITES      6
#define SITE_NODES 4
#define NODES      (SITES * SITE_NODES)
#define GPUS       8
#define REQUESTS   40
#define ROUNDS     4000

static const char *const profile_names[] = {"resnet50_h100", "cosmoflow_h100",
                                            "unet3d_h100", NULL};

struct batch {
    struct match_offer offers[SITES];
    struct topo *topo;
    struct match_query queries[REQUESTS];
    int data[REQUESTS];
    int64_t cost_micro[REQUESTS][SITES]; /* what each costs at each offer */
};
struct result {
    int served;
    int64_t cost_micro;
    double improve_ms;
    int64_t worst_ppm; /* largest rise of one request's cost over the queue's answer */
};

static uint64_t rng;

static int below(int n)
{
    rng = rng * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (int)((rng >> 33) % (unsigned)n);
}

static void make_batch(struct batch *b)
{
    static const int sizes[] = {1, 1, 2, 2, 4, 8};
    b->topo = topo_new();
    for (int i = 0; i < SITES; i++) {
        b->offers[i] = (struct match_offer){.site = i,
                                            .model = i,
                                            .site_name = "",
                                            .provider_name = "",
                                            .gpu_model = "H100",
                                            .residency = "",
                                            .price_micro = 1000000 + below(2000000),
                                            .up = true};
        for (int d = 0; d < SITES; d++) {
            topo_declared(b->topo, i, d, i == d ? 300 : 2000 + below(28000), 0);
        }
    }
    for (int r = 0; r < REQUESTS; r++) {
        const char *profile = profile_names[below(4)];
        b->data[r] = below(SITES);
        b->queries[r] = (struct match_query){
            .gpus = sizes[below(6)],
            .len_us = (1 + below(8)) * US_PER_HOUR,
            .data = &b->data[r],
            .data_count = 1,
            .profile = profile != NULL ? slowdown_find(profile) : NULL,
            .spread = (uint32_t)r};
    }
}

static struct calendar *make_calendar(void)
{
    struct calendar *c = calendar_new();
    for (int n = 0; n < NODES; n++) {
        calendar_set_node(c, n,
                          &(struct calendar_node){.site = n / SITE_NODES,
                                                  .model = n / SITE_NODES,
                                                  .gpus = GPUS,
                                                  .offered = (1u << GPUS) - 1});
    }
    return c;
}

/* In an empty market every place tells its cost. */
static void ask_costs(struct batch *b)
{
    struct calendar *c = make_calendar();
    for (int r = 0; r < REQUESTS; r++) {
        struct match_place places[SITES];
        size_t fitting =
            match_rank(c, b->topo, b->offers, SITES, &b->queries[r], places);
        assert(fitting == SITES);
        for (int i = 0; i < SITES; i++) {
            b->cost_micro[r][places[i].offer] = places[i].effective_micro;
        }
    }
    calendar_free(c);
}

static struct result sum(const struct backfill_place *places, const int64_t *before)
{
    struct result sum = {0};
    for (int r = 0; r < REQUESTS; r++) {
        if (places[r].why != MATCH_OK) {
            continue;
        }
        int64_t cost = places[r].plan->effective_micro;
        sum.served++;
        sum.cost_micro += cost;
        int64_t rise = cost * MATCH_PPM / before[r] - MATCH_PPM;
        sum.worst_ppm = rise > sum.worst_ppm ? rise : sum.worst_ppm;
    }
    return sum;
}

/* As the waiting list does: planned in queue order, then improved. */
static struct result solve(const struct batch *b, size_t rounds, int64_t max_rise_ppm)
{
    static struct backfill_order orders[REQUESTS];
    static struct match_plan plans[REQUESTS];
    struct backfill_place places[REQUESTS];
    struct improve_limits limits = {rounds, max_rise_ppm, 1};
    struct calendar *c = make_calendar();
    struct match_market market = {
        .calendar = c, .topo = b->topo, .offers = b->offers, .offer_count = SITES};
    struct backfill planner = {.market = &market, .calendar = c, .first_id = -1};
    int64_t before[REQUESTS];
    for (int r = 0; r < REQUESTS; r++) {
        orders[r] =
            (struct backfill_order){.id = r + 1, .since_us = r, .query = b->queries[r]};
        places[r] = (struct backfill_place){.plan = &plans[r]};
    }
    backfill_plan(&planner, orders, REQUESTS, places);
    for (int r = 0; r < REQUESTS; r++) {
        before[r] = plans[r].effective_micro;
    }
    int64_t was = sum(places, before).cost_micro;
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    int64_t saved = improve_plans(&planner, orders, REQUESTS, places, &limits);
    clock_gettime(CLOCK_MONOTONIC, &to);
    struct result is = sum(places, before);
    assert(saved == was - is.cost_micro);
    is.improve_ms = (double)(to.tv_sec - from.tv_sec) * 1e3 +
                    (double)(to.tv_nsec - from.tv_nsec) / 1e6;
    calendar_free(c);
    return is;
}

/* Serving one more is worth more than any cost: the optimum serves as many as can be.
 */
static void write_lp(const struct batch *b, FILE *f)
{
    fprintf(f, "Minimize\n cost:\n");
    for (int r = 0; r < REQUESTS; r++) {
        for (int n = 0; n < NODES; n++) {
            double cost = (double)b->cost_micro[r][n / SITE_NODES] / 1e6;
            fprintf(f, " %+.6f x_%d_%d\n", cost - 10000, r, n);
        }
    }
    fprintf(f, "Subject To\n");
    for (int r = 0; r < REQUESTS; r++) {
        fprintf(f, " request_%d:\n", r);
        for (int n = 0; n < NODES; n++) {
            fprintf(f, " + x_%d_%d\n", r, n);
        }
        fprintf(f, " <= 1\n");
    }
    for (int n = 0; n < NODES; n++) {
        fprintf(f, " node_%d:\n", n);
        for (int r = 0; r < REQUESTS; r++) {
            fprintf(f, " + %d x_%d_%d\n", b->queries[r].gpus, r, n);
        }
        fprintf(f, " <= %d\n", GPUS);
    }
    fprintf(f, "Binary\n");
    for (int r = 0; r < REQUESTS; r++) {
        for (int n = 0; n < NODES; n++) {
            fprintf(f, " x_%d_%d\n", r, n);
        }
    }
    fprintf(f, "End\n");
}

static void print(const char *name, struct result r)
{
    printf("\"%s\": {\"served\": %d, \"cost\": %.6f, \"worst_rise\": %.6f, "
           "\"ms\": %.3f}",
           name, r.served, (double)r.cost_micro / 1e6, (double)r.worst_ppm / 1e6,
           r.improve_ms);
}

int main(int argc, char **argv)
{
    static struct batch b;
    if (argc != 3) {
        fprintf(stderr, "usage: place_batch SEED PROBLEM.lp\n");
        return 2;
    }
    rng = strtoull(argv[1], NULL, 10);
    make_batch(&b);
    ask_costs(&b);
    FILE *f = fopen(argv[2], "w");
    if (f == NULL) {
        perror(argv[2]);
        return 1;
    }
    write_lp(&b, f);
    if (fclose(f) != 0) {
        perror(argv[2]);
        return 1;
    }
    printf("{\"seed\": %s, ", argv[1]);
    print("queue", solve(&b, 0, 0));
    printf(", ");
    print("rise0", solve(&b, ROUNDS, 0));
    printf(", ");
    print("rise25", solve(&b, ROUNDS, 250000));
    printf(", ");
    print("rise50", solve(&b, ROUNDS, 500000));
    printf(", ");
    print("improved", solve(&b, ROUNDS, -1));
    printf("}\n");
    topo_free(b.topo);
    return 0;
}
