/* topo_model: random changes against a naive model that keeps nothing ready
 * (NEARGPU_SEED); and, with NEARGPU_DATA naming a folder that has them, the public
 * tables of fibre in Japan and of round trips between AWS regions. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "server/core/topo.h"
#include "tests/unit/unit.h"

#define MINUTE INT64_C(60000000)

#define M_SITES 6
#define M_DATA  5

struct naive {
    struct topo_place site[M_SITES], data[M_DATA];
    int stands[M_DATA];
    int64_t rtt[M_SITES][M_DATA], at[M_SITES][M_DATA], declared[M_SITES][M_DATA];
    int64_t path[M_SITES][M_SITES];
    double km[M_SITES][M_SITES], way[M_SITES][M_SITES]; /* way: as of the last relink */
};

static uint64_t rng_state;

static int below(int n)
{
    rng_state ^= rng_state << 13;
    rng_state ^= rng_state >> 7;
    rng_state ^= rng_state << 17;
    return (int)((rng_state * UINT64_C(0x2545f4914f6cdd1d) >> 33) % (uint64_t)n);
}

static struct topo_place some_place(void)
{
    return (struct topo_place){30 + below(15), 130 + below(15), below(4) != 0};
}

static struct topo_place naive_place(const struct naive *n, int data)
{
    return n->stands[data] >= 0 ? n->site[n->stands[data]] : n->data[data];
}

static bool beats_light(struct topo_place a, struct topo_place b, int64_t us)
{
    return a.known && b.known && us < topo_floor_us(a, b);
}

static int64_t naive_way(const struct naive *n, int a, int b)
{
    if (isfinite(n->way[a][b])) {
        return (int64_t)ceil(n->way[a][b] * 9.8 - 1e-6);
    }
    return n->site[a].known && n->site[b].known
               ? topo_estimate_us(n->site[a], n->site[b])
               : -1;
}

static int64_t naive_rtt(const struct naive *n, int site, int data, int64_t now,
                         enum topo_source *source)
{
    struct topo_place a = n->site[site], b = naive_place(n, data);
    int64_t m = n->rtt[site][data], d = n->declared[site][data];
    int stands = n->stands[data];
    bool measured = m > 0 && !beats_light(a, b, m);
    *source = TOPO_MEASURED;
    if (measured && now - n->at[site][data] <= TOPO_FRESH_US) {
        return m;
    }
    *source = TOPO_DECLARED;
    if (d > 0 && !beats_light(a, b, d)) {
        return d;
    }
    if (stands >= 0 && n->path[site][stands] > 0 &&
        !beats_light(a, n->site[stands], n->path[site][stands])) {
        return n->path[site][stands];
    }
    *source = TOPO_MEASURED;
    if (measured) {
        return m;
    }
    int64_t way = stands >= 0          ? naive_way(n, site, stands)
                  : a.known && b.known ? topo_estimate_us(a, b)
                                       : -1;
    *source = way >= 0 ? TOPO_TOPOLOGY : TOPO_UNKNOWN;
    return way >= 0 ? way : 0;
}

/* Floyd and Warshall. */
static void naive_relink(struct naive *n)
{
    bool linked[M_SITES] = {false};
    for (int a = 0; a < M_SITES; a++) {
        for (int b = 0; b < M_SITES; b++) {
            n->way[a][b] = n->km[a][b] > 0 ? n->km[a][b] : INFINITY;
            linked[a] |= n->km[a][b] > 0;
        }
    }
    for (int k = 0; k < M_SITES; k++) {
        n->way[k][k] = linked[k] ? 0 : INFINITY;
        for (int a = 0; a < M_SITES; a++) {
            for (int b = 0; b < M_SITES; b++) {
                n->way[a][b] = fmin(n->way[a][b], n->way[a][k] + n->way[k][b]);
            }
        }
    }
}

static void change(struct topo *t, struct naive *n, int64_t now)
{
    int a = below(M_SITES), b = below(M_SITES), d = below(M_DATA);
    int64_t us = below(3) == 0 ? 0 : 1 + below(30000);
    double km = 100 + below(3000);
    struct topo_rtt m = {.rtt_us = us + 1, .count = 9, .at_us = now};
    switch (below(9)) {
    case 0: topo_set_site(t, a, n->site[a] = some_place()); break;
    case 1:
        topo_set_data(t, d, n->data[d] = some_place());
        n->stands[d] = -1;
        break;
    case 2:
        n->stands[d] = below(M_SITES + 1) - 1;
        topo_set_data_site(t, d, n->stands[d]);
        break;
    case 3:
        topo_declared(t, a, d, us, now);
        n->declared[a][d] = us;
        break;
    case 4:
        topo_declare_sites(t, a, b, us, now);
        n->path[a][b] = n->path[b][a] = us;
        break;
    case 5:
        if (topo_link(t, a, b, km, NULL) == 0) {
            n->km[a][b] = n->km[b][a] = km;
        }
        break;
    case 6:
        topo_unlink(t, a, b);
        n->km[a][b] = n->km[b][a] = 0;
        break;
    case 7:
        topo_relink(t);
        naive_relink(n);
        break;
    default:
        if (topo_measured(t, a, d, &m, NULL) == 0) {
            ck_assert(!beats_light(n->site[a], naive_place(n, d), m.rtt_us));
            n->rtt[a][d] = m.rtt_us;
            n->at[a][d] = now;
        } else {
            ck_assert(beats_light(n->site[a], naive_place(n, d), m.rtt_us));
        }
        break;
    }
}

START_TEST(test_against_naive)
{
    const char *text = getenv("NEARGPU_SEED");
    uint64_t seed = text != NULL ? strtoull(text, NULL, 10) : 20261123;
    int seen[TOPO_MEASURED + 1] = {0};
    rng_state = seed * 2 + 1;
    for (int run = 0; run < 300; run++) {
        struct topo *t = topo_new();
        struct naive n = {0};
        memset(n.stands, 0xff, sizeof n.stands);
        naive_relink(&n);
        int64_t now = 1;
        for (int step = 0; step < 200; step++) {
            now += below(5) * MINUTE;
            change(t, &n, now);
            int a = below(M_SITES), b = below(M_SITES), d = below(M_DATA);
            enum topo_source source;
            int64_t want = naive_rtt(&n, a, d, now, &source);
            struct topo_rtt got = topo_rtt(t, a, d, now);
            ck_assert_msg(got.rtt_us == want && got.source == source,
                          "seed %" PRIu64 " run %d step %d: %" PRId64
                          " %s, not %" PRId64 " %s",
                          seed, run, step, got.rtt_us, topo_source_name(got.source),
                          want, topo_source_name(source));
            seen[source]++;
            int64_t path = n.path[a][b];
            bool declared = path > 0 && !beats_light(n.site[a], n.site[b], path);
            int64_t way = naive_way(&n, a, b);
            got = topo_sites(t, a, b);
            ck_assert_int_eq(got.rtt_us, declared ? path : (way >= 0 ? way : 0));
        }
        topo_free(t);
    }
    for (int s = 0; s <= TOPO_MEASURED; s++) {
        ck_assert_int_gt(seen[s], 1000);
    }
}
END_TEST

/* ---- public tables, when at hand ---- */

#define TABLE_NODES 200

struct table {
    char name[TABLE_NODES][48];
    int count;
};

static int named(struct table *table, const char *name)
{
    int i = 0;
    while (i < table->count && strcmp(table->name[i], name) != 0) {
        i++;
    }
    if (i == table->count) {
        ck_assert_int_lt(i, TABLE_NODES);
        snprintf(table->name[table->count++], sizeof table->name[0], "%s", name);
    }
    return i;
}

/* The table without its header line; NULL when no folder was named. */
static FILE *public_table(const char *name)
{
    const char *folder = getenv("NEARGPU_DATA");
    char path[4096], line[512];
    if (folder == NULL) {
        return NULL;
    }
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "r");
    ck_assert_msg(f != NULL && fgets(line, sizeof line, f) != NULL, "no %s", path);
    return f;
}

static bool next_row(FILE *f, char *line, char *col[], int columns)
{
    char *rest = line;
    if (fgets(line, 512, f) == NULL) {
        return false;
    }
    line[strcspn(line, "\n")] = '\0';
    for (int c = 0; c < columns; c++) {
        col[c] = rest != NULL ? strsep(&rest, ",") : (char[]){""};
    }
    return true;
}

/* All shortest paths of the photonic network models. */
START_TEST(test_fibre_of_japan)
{
    static const char *const networks[] = {"JPN12", "JPN25", "JPN48"};
    for (size_t n = 0; n < sizeof networks / sizeof networks[0]; n++) {
        FILE *f = public_table("topology_links.csv");
        struct table cities_of = {.count = 0};
        struct topo *t = topo_new();
        char line[512], *col[6];
        int pairs = 0;
        while (f != NULL && next_row(f, line, col, 6)) {
            if (strcmp(col[0], networks[n]) == 0) {
                int a = named(&cities_of, col[1]), b = named(&cities_of, col[2]);
                ck_assert_int_eq(topo_link(t, a, b, strtod(col[3], NULL), NULL), 0);
            }
        }
        topo_relink(t);
        FILE *paths = public_table("japan_shortest_paths.csv");
        while (paths != NULL && next_row(paths, line, col, 5)) {
            if (strcmp(col[0], networks[n]) == 0) {
                int a = named(&cities_of, col[1]), b = named(&cities_of, col[2]);
                double want_us = strtod(col[4], NULL) * 1000;
                ck_assert_msg(fabs((double)topo_sites(t, a, b).rtt_us - want_us) <= 1.6,
                              "%s %s-%s", col[0], col[1], col[2]);
                pairs++;
            }
        }
        if (f != NULL) {
            ck_assert_int_gt(pairs, 60);
            fclose(f);
            fclose(paths);
        }
        topo_free(t);
    }
}
END_TEST

/* A year of medians between 32 regions: none beats light, and half lie within a third
 * of what the great circle says. */
START_TEST(test_aws_round_trips)
{
    FILE *places = public_table("aws_regions.csv");
    FILE *f = public_table("rtt_aws_p50_ms.csv");
    struct table regions = {.count = 0};
    struct topo *t = topo_new();
    char line[512], *col[4];
    int pairs = 0, near = 0;
    while (places != NULL && next_row(places, line, col, 4)) {
        struct topo_place p = {strtod(col[2], NULL), strtod(col[3], NULL), true};
        int region = named(&regions, col[0]);
        topo_set_site(t, region, p);
        topo_set_data_site(t, region, region);
    }
    while (f != NULL && next_row(f, line, col, 3)) {
        int a = named(&regions, col[0]), b = named(&regions, col[1]);
        struct topo_rtt m = {
            .rtt_us = (int64_t)(strtod(col[2], NULL) * 1000), .count = 100, .at_us = 1};
        double estimate = (double)topo_rtt(t, a, b, 1).rtt_us;
        ck_assert_msg(topo_measured(t, a, b, &m, NULL) == 0, "%s %s", col[0], col[1]);
        if (a != b) {
            double ratio = (double)m.rtt_us / estimate;
            pairs++;
            near += ratio > 0.75 && ratio < 1.34;
        }
    }
    if (f != NULL) {
        ck_assert_int_eq(pairs, 992);
        ck_assert_int_gt(near, pairs / 2);
        for (int i = 0; i < regions.count; i++) {
            ck_assert(!topo_place_contradicted(t, i, NULL));
        }
        fclose(f);
        fclose(places);
    }
    topo_free(t);
}
END_TEST

UNIT_MAIN("topo_model", UNIT_CASE(test_against_naive) UNIT_CASE(test_fibre_of_japan)
                            UNIT_CASE(test_aws_round_trips))
