/* tables: RTT matrix, nodes, prices and profiles from their files. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/bounds.h"
#include "client/lib/fsx.h"
#include "client/lib/money.h"
#include "client/lib/xalloc.h"
#include "server/sim/csv.h"
#include "server/sim/world.h"

/* Reads the file and binds its columns; csv_done in any case. */
static int open_bound(struct csv *c, const char *path, struct csv_column *columns,
                      size_t count, struct err *err)
{
    char *text;
    size_t len;
    *c = (struct csv){0};
    if (fsx_read(path, SIM_FILE_MAX, &text, &len, err) != 0) {
        return -1;
    }
    return csv_open_take(c, path, text, len, err) != 0 ||
                   csv_bind(c, columns, count, err) != 0
               ? -1
               : 0;
}

/* Remembers a key made of two names; false when it is there already. */
static bool is_new_pair(struct names *keys, const char *a, const char *b)
{
    char *key = xasprintf("%s\n%s", a, b); /* a name has no line end */
    bool is_new;
    names_add(keys, key, &is_new);
    free(key);
    return is_new;
}

struct rtt_row {
    int src, dst;
    int64_t rtt_us;
};

static int read_rtt_row(struct sim_world *w, const struct csv *c,
                        const struct csv_column *columns, struct names *keys,
                        struct rtt_row *ret, struct err *err)
{
    const char *src, *dst;
    if (csv_name(c, &columns[0], &src, err) != 0 ||
        csv_name(c, &columns[1], &dst, err) != 0) {
        return -1;
    }
    ret->src = names_add(&w->sites, src, NULL);
    ret->dst = names_add(&w->sites, dst, NULL);
    if (w->sites.count > SIM_SITES_MAX) {
        return csv_refuse(c, err, "more than %d sites", SIM_SITES_MAX);
    }
    if (!is_new_pair(keys, src, dst)) {
        return csv_refuse(c, err, "%s to %s stands there twice", src, dst);
    }
    /* Milliseconds with a fraction: read as thousandths of a millionth, kept in us. */
    int64_t nano;
    if (csv_micro(c, &columns[2], SIM_RTT_MAX_US * 1000, &nano, err) != 0) {
        return -1;
    }
    ret->rtt_us = (nano + 500) / 1000;
    return 0;
}

static void fill_matrix(struct sim_world *w, const struct rtt_row *rows, size_t count)
{
    size_t n = (size_t)w->sites.count;
    w->rtt_us = xreallocarray(NULL, n * n, sizeof *w->rtt_us);
    for (size_t i = 0; i < n * n; i++) {
        w->rtt_us[i] = i % (n + 1) == 0 ? 0 : SIM_RTT_UNKNOWN; /* diagonal: 0 */
    }
    for (size_t i = 0; i < count; i++) {
        w->rtt_us[(size_t)rows[i].src * n + (size_t)rows[i].dst] = rows[i].rtt_us;
    }
}

int sim_load_rtt(struct sim_world *w, const char *path, struct err *err)
{
    struct csv_column columns[] = {
        {"src", true, 0}, {"dst", true, 0}, {"rtt_ms", true, 0}};
    struct csv c;
    struct names keys = {0};
    struct rtt_row *rows = NULL;
    size_t count = 0, cap = 0;
    bool more = false;
    int rc = open_bound(&c, path, columns, 3, err);
    while (rc == 0 && (rc = csv_next(&c, &more, err)) == 0 && more) {
        if (count == cap) {
            cap = cap == 0 ? 1024 : cap * 2;
            rows = xreallocarray(rows, cap, sizeof *rows);
        }
        rc = read_rtt_row(w, &c, columns, &keys, &rows[count], err);
        count++;
    }
    if (rc == 0 && count == 0) {
        rc = csv_refuse(&c, err, "no row: without a site there is no market");
    }
    if (rc == 0) {
        fill_matrix(w, rows, count);
    }
    free(rows);
    names_done(&keys);
    csv_done(&c);
    return rc;
}

enum { NODE_NAME, NODE_GPUS, NODE_MODEL, NODE_SITE };

static int node_site(struct sim_world *w, const struct csv *c,
                     const struct csv_column *column, int *ret, struct err *err)
{
    const char *site;
    if (column->index < 0) {
        *ret = (int)(w->node_count % (size_t)w->sites.count);
        return 0;
    }
    if (csv_name(c, column, &site, err) != 0) {
        return -1;
    }
    *ret = names_find(&w->sites, site);
    return *ret >= 0 ? 0
                     : csv_refuse(c, err, "site '%s' is not in the RTT matrix", site);
}

static int read_node(struct sim_world *w, const struct csv *c,
                     const struct csv_column *columns, struct names *keys,
                     struct err *err)
{
    const char *name, *model;
    int64_t gpus;
    bool is_new;
    struct sim_node node = {0};
    if (csv_name(c, &columns[NODE_NAME], &name, err) != 0 ||
        csv_whole(c, &columns[NODE_GPUS], 0, GPUS_PER_NODE_MAX, &gpus, err) != 0) {
        return -1;
    }
    names_add(keys, name, &is_new);
    if (!is_new) {
        return csv_refuse(c, err, "node '%s' stands there twice", name);
    }
    if (gpus == 0) {
        w->skipped_nodes++;
        return 0;
    }
    if (csv_name(c, &columns[NODE_MODEL], &model, err) != 0 ||
        node_site(w, c, &columns[NODE_SITE], &node.site, err) != 0) {
        return -1;
    }
    node.name = xstrdup(name);
    node.gpus = (int)gpus;
    node.model = names_add(&w->models, model, NULL);
    w->nodes[w->node_count++] = node;
    return 0;
}

int sim_load_nodes(struct sim_world *w, const char *path, struct err *err)
{
    struct csv_column columns[] = {{"node", true, 0},
                                   {"gpus", true, 0},
                                   {"gpu_model", true, 0},
                                   {"site", false, 0}};
    struct csv c;
    struct names keys = {0};
    size_t cap = 0;
    bool more = false;
    int rc = open_bound(&c, path, columns, 4, err);
    while (rc == 0 && (rc = csv_next(&c, &more, err)) == 0 && more) {
        if (w->node_count == cap) {
            cap = cap == 0 ? 1024 : cap * 2;
            w->nodes = xreallocarray(w->nodes, cap, sizeof *w->nodes);
        }
        rc = read_node(w, &c, columns, &keys, err);
    }
    if (rc == 0 && w->node_count == 0) {
        rc = csv_refuse(&c, err, "no node has a GPU");
    }
    names_done(&keys);
    csv_done(&c);
    return rc;
}

int sim_load_prices(struct sim_world *w, const char *path, struct err *err)
{
    size_t models = (size_t)w->models.count;
    size_t cells = (size_t)w->sites.count * models;
    w->price_micro = xreallocarray(NULL, cells, sizeof *w->price_micro);
    for (size_t i = 0; i < cells; i++) {
        w->price_micro[i] = path == NULL ? MONEY_MICRO : SIM_PRICE_UNKNOWN;
    }
    if (path == NULL) {
        return 0;
    }
    struct csv_column columns[] = {
        {"site", true, 0}, {"gpu_model", true, 0}, {"price_per_gpu_hour", true, 0}};
    struct csv c;
    struct names keys = {0};
    bool more = false;
    int rc = open_bound(&c, path, columns, 3, err);
    while (rc == 0 && (rc = csv_next(&c, &more, err)) == 0 && more) {
        const char *site, *model;
        int64_t price;
        if ((rc = csv_name(&c, &columns[0], &site, err)) != 0 ||
            (rc = csv_name(&c, &columns[1], &model, err)) != 0 ||
            (rc = csv_micro(&c, &columns[2], SIM_PRICE_MAX, &price, err)) != 0) {
            break;
        }
        if (!is_new_pair(&keys, site, model)) {
            rc = csv_refuse(&c, err, "%s of %s stands there twice", model, site);
        }
        int s = names_find(&w->sites, site), m = names_find(&w->models, model);
        if (s >= 0 && m >= 0) { /* a price list may know more than this market */
            w->price_micro[(size_t)s * models + (size_t)m] = price;
        }
    }
    names_done(&keys);
    csv_done(&c);
    return rc;
}

enum {
    PROF_NAME,
    PROF_KIND,
    PROF_DEMAND,
    PROF_REQUEST,
    PROF_OUTSTANDING,
    PROF_STARTUP,
    PROF_CHECKPOINT,
    PROF_SYNC,
    PROF_STEP,
    PROF_COLUMNS
};

/* An empty cell is "not known": 0. */
static int real_or_zero(const struct csv *c, const struct csv_column *column,
                        double *ret, struct err *err)
{
    *ret = 0;
    return csv_text(c, column)[0] == '\0' ? 0 : csv_real(c, column, 1e18, ret, err);
}

static int profile_kind(const struct csv *c, const struct csv_column *column,
                        enum slowdown_kind *ret, struct err *err)
{
    const char *kind = csv_text(c, column);
    if (slowdown_kind_find(kind, ret)) {
        return 0;
    }
    return csv_refuse(c, err,
                      "kind is '%.40s', which the slow-down model does not know", kind);
}

/* What loading takes with the data next door: the model itself says, for 0 ms. */
static double local_load_s(const struct slowdown_profile *p, double gpus)
{
    struct slowdown_path path = {.service_s = SLOWDOWN_SERVICE_S};
    struct slowdown_result r;
    slowdown_predict(p, &path, gpus, 0, &r);
    return r.once_s;
}

bool sim_job_profile(const struct sim_world *w, const struct sim_job *job,
                     struct slowdown_profile *ret)
{
    if (job->profile < 0) {
        return false;
    }
    const struct sim_profile *p = &w->profiles[job->profile];
    *ret = p->model;
    if (p->local_is_modelled) {
        ret->startup_local_s = local_load_s(&p->model, job->gpus);
    }
    return true;
}

static int read_profile(struct sim_world *w, const struct csv *c,
                        const struct csv_column *columns, struct err *err)
{
    const char *name;
    bool is_new;
    if (csv_name(c, &columns[PROF_NAME], &name, err) != 0) {
        return -1;
    }
    int index = names_add(&w->profile_names, name, &is_new);
    if (!is_new) {
        return csv_refuse(c, err, "profile '%s' stands there twice", name);
    }
    const struct slowdown_profile *built_in = slowdown_find(name);
    struct slowdown_profile p =
        built_in != NULL ? *built_in : (struct slowdown_profile){0};
    double demand_MBps, startup;
    if (profile_kind(c, &columns[PROF_KIND], &p.kind, err) != 0 ||
        real_or_zero(c, &columns[PROF_DEMAND], &demand_MBps, err) != 0 ||
        real_or_zero(c, &columns[PROF_REQUEST], &p.request_bytes, err) != 0 ||
        real_or_zero(c, &columns[PROF_OUTSTANDING], &p.outstanding_per_gpu, err) != 0 ||
        real_or_zero(c, &columns[PROF_STARTUP], &startup, err) != 0 ||
        real_or_zero(c, &columns[PROF_CHECKPOINT], &p.checkpoint_bytes, err) != 0 ||
        real_or_zero(c, &columns[PROF_SYNC], &p.sync_Bps, err) != 0 ||
        real_or_zero(c, &columns[PROF_STEP], &p.step_s, err) != 0) {
        return -1;
    }
    p.name = w->profile_names.items[index];
    p.demand_Bps_per_gpu = demand_MBps * 1e6;
    /* 0 stands for "not known"; a cold epoch without its bytes would cost nothing. */
    if (startup > 0 || built_in == NULL) {
        p.startup_bytes = startup;
    }
    w->profiles[index] = (struct sim_profile){p, built_in == NULL && startup > 0};
    w->profile_count = (size_t)index + 1;
    return 0;
}

static void built_in_profiles(struct sim_world *w)
{
    w->profiles = xreallocarray(NULL, slowdown_profile_count, sizeof *w->profiles);
    w->profile_count = slowdown_profile_count;
    for (size_t i = 0; i < slowdown_profile_count; i++) {
        w->profiles[i] = (struct sim_profile){slowdown_profiles[i], false};
        names_add(&w->profile_names, slowdown_profiles[i].name, NULL);
    }
}

int sim_load_profiles(struct sim_world *w, const char *path, struct err *err)
{
    struct csv_column columns[PROF_COLUMNS] = {
        [PROF_NAME] = {"profile", true, 0},
        [PROF_KIND] = {"kind", true, 0},
        [PROF_DEMAND] = {"demand_MBps_per_gpu", true, 0},
        [PROF_REQUEST] = {"request_bytes", true, 0},
        [PROF_OUTSTANDING] = {"outstanding_per_gpu", true, 0},
        [PROF_STARTUP] = {"startup_bytes", true, 0},
        [PROF_CHECKPOINT] = {"checkpoint_bytes", true, 0},
        [PROF_SYNC] = {"sync_bytes_per_s_compute", true, 0},
        [PROF_STEP] = {"step_s", true, 0},
    };
    if (path == NULL) {
        built_in_profiles(w);
        return 0;
    }
    struct csv c;
    size_t cap = 0;
    bool more = false;
    int rc = open_bound(&c, path, columns, PROF_COLUMNS, err);
    while (rc == 0 && (rc = csv_next(&c, &more, err)) == 0 && more) {
        if (w->profile_count == cap) {
            cap = cap == 0 ? 32 : cap * 2;
            w->profiles = xreallocarray(w->profiles, cap, sizeof *w->profiles);
        }
        rc = read_profile(w, &c, columns, err);
    }
    csv_done(&c);
    return rc;
}

int sim_load(struct sim_world *w, const struct sim_files *files, struct err *err)
{
    *w = (struct sim_world){0};
    return sim_load_rtt(w, files->rtt, err) != 0 ||
                   sim_load_nodes(w, files->nodes, err) != 0 ||
                   sim_load_prices(w, files->prices, err) != 0 ||
                   sim_load_profiles(w, files->profiles, err) != 0 ||
                   sim_load_jobs(w, files->jobs, err) != 0
               ? -1
               : 0;
}

void sim_done(struct sim_world *w)
{
    names_done(&w->sites);
    names_done(&w->models);
    names_done(&w->wishes);
    names_done(&w->profile_names);
    for (size_t i = 0; i < w->node_count; i++) {
        free(w->nodes[i].name);
    }
    for (size_t i = 0; i < w->job_count; i++) {
        free(w->jobs[i].name);
    }
    free(w->rtt_us);
    free(w->price_micro);
    free(w->nodes);
    free(w->jobs);
    free(w->profiles);
    *w = (struct sim_world){0};
}
