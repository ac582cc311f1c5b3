/* neargpud: the server of a market. This file wires the parts together, starts and
 * stops them; it decides nothing.
 *
 *   conf → private cluster (unless a database is given) → migrations → store → market's
 *   name and currency → CA, signer, world → world loaded → TLS listeners → flows
 *
 * Ends on SIGTERM and SIGINT: no new connections, requests in flight are answered, then
 * the private cluster is stopped. Test hook: with NEARGPU_CRASH_AT=FLOW:STEP in its
 * environment it kills itself before that step. */
#include "config.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/thread.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "client/lib/addr.h"
#include "client/lib/clock.h"
#include "client/lib/digest.h"
#include "client/lib/fsx.h"
#include "client/lib/httpc.h"
#include "client/lib/jsonx.h"
#include "client/lib/log.h"
#include "client/lib/strbuf.h"
#include "client/lib/timefmt.h"
#include "client/lib/tlsx.h"
#include "client/lib/xalloc.h"
#include "server/conf.h"
#include "server/db/cluster.h"
#include "server/db/migrate.h"
#include "server/db/store.h"
#include "server/flow/audit.h"
#include "server/flow/flows.h"
#include "server/flow/loop.h"
#include "server/flow/pathhook.h"
#include "server/flow/secret.h"
#include "server/flow/world.h"
#include "server/issuer/signer.h"
#include "server/keys_cmd.h"
#include "server/net/net.h"

/* How long the first look at the database may take. */
#define START_WAIT_S 60
#define CERT_CHECK_S (24 * 3600)
#define KEYS_CHECK_S 2 /* a stat of one file */
#define API_KEY_MAX  256

struct app {
    struct server_conf conf;
    struct event_base *base;
    struct cluster *cluster;
    char *conninfo, *admin_conninfo, *report_conninfo;
    struct store *store;
    struct ca *ca;
    struct issuer *issuer;
    struct audit *audit;
    struct world *world;
    struct pathhook *path_hook;
    struct flow_loop *loop;
    struct flow_runner *runner;
    SSL_CTX *ctx;
    struct net *net;
    struct event *on_term, *on_int, *on_day, *on_keys;
    char *market, *currency; /* as the database has them */
    int64_t hold_window_us;
    char *issuer_url;
    const char *crash_at;
    bool ending;
    struct err failed; /* of something that runs in the loop */
};

/* ---- database ---- */

static int start_database(struct app *a, struct err *err)
{
    const struct server_conf *c = &a->conf;
    if (c->database != NULL) {
        a->conninfo = xstrdup(c->database);
        if (c->admin_database != NULL)
            a->admin_conninfo = xstrdup(c->admin_database);
        if (c->report_database != NULL)
            a->report_conninfo = xstrdup(c->report_database);
        return 0;
    }
    struct cluster_opts opts = {.data_dir = c->data_dir,
                                .user = c->cluster_user,
                                .shared_buffers_mib = (int)c->shared_buffers_mib,
                                .base = a->base};
    if (cluster_start(&opts, &a->cluster, err) != 0)
        return -1;
    a->conninfo = cluster_conninfo(a->cluster, "neargpu_server");
    a->admin_conninfo = cluster_conninfo(a->cluster, CLUSTER_ADMIN);
    a->report_conninfo = cluster_conninfo(a->cluster, "neargpu_report");
    return 0;
}

/* The key is on disk before it is in the database: a crash between the two leaves a key
 * that is tried again, never an administrator nobody can be. */
static int admin_key(const char *path, uint8_t hash[SHA256_LEN], struct err *err)
{
    char key[SECRET_TEXT_MAX + 1], *text = NULL;
    struct err why;
    size_t len;
    if (fsx_read_secret(path, API_KEY_MAX, &text, &len, &why) == 0) {
        digest_sha256(text, strcspn(text, "\r\n"), hash);
        free(text);
        return 0;
    }
    if (why.code != ERR_NOT_FOUND) {
        *err = why;
        return -1;
    }
    secret_make(SECRET_API_KEY, key, hash);
    len = strlen(key);
    key[len++] = '\n';
    return fsx_write(path, key, len, 0600, err);
}

static int migrate(struct app *a, struct err *err)
{
    const struct server_conf *c = &a->conf;
    if (a->admin_conninfo == NULL)
        return 0;
    char *path = xasprintf("%s/admin.key", c->data_dir);
    uint8_t hash[SHA256_LEN];
    struct migrate_opts opts = {.conninfo = a->admin_conninfo,
                                .market_name = c->market,
                                .currency = c->currency,
                                .issuer_name = c->issuer_name,
                                .issuer_registration = c->issuer_registration,
                                .issuer_address = c->issuer_address,
                                .fee_ppm = c->fee_ppm,
                                .tax_ppm = c->tax_ppm,
                                .admin_key_hash = hash};
    struct migrate_result done;
    int rc = admin_key(path, hash, err);
    if (rc == 0)
        rc = migrate_run(&opts, &done, err);
    if (rc == 0 && done.market_made)
        log_info("a new market; the administrator's API key is in %s", path);
    else if (rc == 0 && done.applied > 0)
        log_info("%d migrations applied", done.applied);
    if (rc == 0 && !done.admin_key_kept)
        unlink(path); /* there is an administrator already: this key opens nothing */
    free(path);
    return rc;
}

/* ---- waiting for something in the loop, before there are clients ---- */

static void on_deadline(evutil_socket_t fd, short what, void *arg)
{
    struct app *a = arg;
    (void)fd, (void)what;
    err_set(&a->failed, ERR_UNAVAILABLE, "the database did not answer within %d s",
            START_WAIT_S);
}

static int run_until(struct app *a, bool (*done)(const struct app *a), struct err *err)
{
    struct timeval limit = {START_WAIT_S, 0};
    struct event *deadline = evtimer_new(a->base, on_deadline, a);
    evtimer_add(deadline, &limit);
    a->failed.code = ERR_NONE;
    while (!done(a) && a->failed.code == ERR_NONE && !a->ending)
        event_base_loop(a->base, EVLOOP_ONCE);
    event_free(deadline);
    if (a->failed.code == ERR_NONE)
        return 0;
    *err = a->failed;
    return -1;
}

static void on_market(void *arg, uint64_t id, const struct store_result *r)
{
    struct app *a = arg;
    (void)id;
    if (r->status != STORE_OK) {
        a->failed = r->err;
        return;
    }
    const char *name = json_string_value(json_object_get(r->json, "name"));
    const char *currency = json_string_value(json_object_get(r->json, "currency"));
    if (name == NULL || currency == NULL) {
        err_set(&a->failed, ERR_INTERNAL, "the database has no market");
        return;
    }
    a->market = xstrdup(name);
    a->currency = xstrdup(currency);
    a->hold_window_us = json_integer_value(json_object_get(r->json, "hold_window_us"));
}

static bool market_known(const struct app *a)
{
    return a->market != NULL;
}

static void on_change(void *arg, bool own)
{
    struct app *a = arg;
    if (a->world != NULL)
        world_hint(a->world, own);
}

static int start_store(struct app *a, struct err *err)
{
    char host[64] = "server", origin[96];
    uint32_t once; /* containers may share host name and process id */
    digest_random(&once, sizeof(once));
    gethostname(host, sizeof(host) - 1);
    snprintf(origin, sizeof(origin), "%.40s/%d/%08x", host, (int)getpid(), once);
    struct store_opts opts = {.conninfo = a->conninfo,
                              .report_conninfo = a->report_conninfo,
                              .readers = (int)a->conf.readers,
                              .writers = (int)a->conf.writers,
                              .origin = origin,
                              .on_change = on_change,
                              .arg = a};
    a->store = store_new(a->base, &opts);
    store_call(a->store, STORE_MARKET, STORE_NO_ARGS, store_to(on_market, a, 0));
    if (run_until(a, market_known, err) != 0)
        return -1;
    if (market_known(a) && strcmp(a->currency, a->conf.currency) != 0)
        log_warn("this market trades in %s since its first start; currency = %s is "
                 "not looked at",
                 a->currency, a->conf.currency);
    return 0;
}

/* ---- keys ---- */

static bool is_wildcard(const char *host)
{
    return strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0 ||
           strcmp(host, "*") == 0 || *host == '\0';
}

static void add_name(const char **names, size_t *count, const char *name)
{
    for (size_t i = 0; i < *count; i++)
        if (strcmp(names[i], name) == 0)
            return;
    names[(*count)++] = name;
}

/* Configured names, hosts of the listen addresses, this machine. */
static int ensure_certificate(struct app *a, struct err *err)
{
    char host[256] = "";
    size_t max = 8, count = 0, host_count = 0;
    for (char **p = a->conf.names; p != NULL && *p != NULL; p++)
        max++;
    for (char **p = a->conf.listen; *p != NULL; p++)
        max++;
    const char **names = xcalloc(max, sizeof(*names));
    struct addr *hosts = xcalloc(max, sizeof(*hosts));
    add_name(names, &count, "localhost");
    add_name(names, &count, "127.0.0.1");
    add_name(names, &count, "::1");
    gethostname(host, sizeof(host) - 1);
    if (host[0] != '\0')
        add_name(names, &count, host);
    for (char **p = a->conf.names; p != NULL && *p != NULL; p++)
        add_name(names, &count, *p);
    for (char **p = a->conf.listen; *p != NULL; p++) {
        struct addr *at = &hosts[host_count++];
        if (addr_split(*p, strlen(*p), at) && !is_wildcard(at->host))
            add_name(names, &count, at->host);
    }
    int rc = ca_ensure_server(a->ca, names, count, clock_now_us(), err);
    free(hosts);
    free(names);
    return rc;
}

static int make_ctx(struct app *a, SSL_CTX **ret, struct err *err)
{
    const char *dir = a->conf.pki_dir;
    char *ca = xasprintf("%s/ca.pem", dir), *cert = xasprintf("%s/server.pem", dir);
    char *key = xasprintf("%s/server.key", dir);
    struct tlsx_files files = {ca, cert, key};
    int rc = tlsx_server_ctx(&files, true, ret, err);
    free(ca);
    free(cert);
    free(key);
    return rc;
}

static void on_day(evutil_socket_t fd, short what, void *arg)
{
    struct app *a = arg;
    SSL_CTX *ctx = NULL;
    struct err err;
    (void)fd, (void)what;
    if (ensure_certificate(a, &err) != 0 || make_ctx(a, &ctx, &err) != 0) {
        log_error("the server's certificate cannot be renewed: %s", err.text);
        return;
    }
    net_set_ctx(a->net, ctx);
    SSL_CTX_free(a->ctx);
    a->ctx = ctx;
}

/* A rotation by hand, by another server, or because it is time. */
static void on_keys(evutil_socket_t fd, short what, void *arg)
{
    struct app *a = arg;
    struct err err;
    bool changed = false;
    (void)fd, (void)what;
    if (issuer_renew(a->issuer, clock_now_us(), &changed, &err) != 0)
        log_error("the key set cannot be renewed: %s", err.text);
    else if (changed)
        log_info("another key set is in force");
    if (changed)
        world_new_keys(a->world);
}

static int open_keys(struct app *a, struct err *err)
{
    a->issuer_url = xasprintf("https://%s", a->market);
    if (ca_open(a->conf.pki_dir, a->market, clock_now_us(), &a->ca, err) != 0 ||
        issuer_open(a->conf.pki_dir, a->issuer_url, clock_now_us(), "", &a->issuer,
                    err) != 0 ||
        ensure_certificate(a, err) != 0)
        return -1;
    return make_ctx(a, &a->ctx, err);
}

/* ---- flows ---- */

static void on_step(void *arg, const struct flow *f, const char *step)
{
    const struct app *a = arg;
    size_t len = strlen(f->kind->name);
    if (strncmp(a->crash_at, f->kind->name, len) == 0 && a->crash_at[len] == ':' &&
        strcmp(a->crash_at + len + 1, step) == 0)
        raise(SIGKILL);
}

static void on_internal(void *arg, const struct flow *f, const char *text)
{
    (void)arg;
    log_error("%s %s: %s", f->kind->name, f->rq != NULL ? f->rq->request_id : "", text);
}

static void net_metrics(void *arg, struct strbuf *out)
{
    const struct app *a = arg;
    struct net_stats s;
    if (a->net == NULL)
        return;
    net_stats(a->net, &s);
    strbuf_addf(out,
                "# TYPE neargpu_http_refused_total counter\n"
                "neargpu_http_refused_total{why=\"unauthenticated\"} %" PRIu64 "\n"
                "neargpu_http_refused_total{why=\"forbidden\"} %" PRIu64 "\n"
                "neargpu_http_refused_total{why=\"rate\"} %" PRIu64 "\n"
                "# TYPE neargpu_http_latency_seconds histogram\n",
                s.dispatch.unauthenticated, s.dispatch.forbidden, s.dispatch.limited);
    uint64_t below = 0;
    for (size_t i = 0; i < DISPATCH_LATENCIES; i++) {
        below += s.dispatch.latency[i];
        if (dispatch_latency_us[i] == INT64_MAX)
            strbuf_addf(out, "neargpu_http_latency_seconds_bucket{le=\"+Inf\"}");
        else
            strbuf_addf(out, "neargpu_http_latency_seconds_bucket{le=\"%g\"}",
                        (double)dispatch_latency_us[i] / 1e6);
        strbuf_addf(out, " %" PRIu64 "\n", below);
    }
    strbuf_addf(out,
                "neargpu_http_latency_seconds_sum %.6f\n"
                "neargpu_http_latency_seconds_count %" PRIu64 "\n",
                (double)s.dispatch.latency_sum_us / 1e6, s.dispatch.latency_count);
}

static bool world_known(const struct app *a)
{
    return a->world->loaded;
}

static int start_world(struct app *a, struct err *err)
{
    struct world_opts opts = {.market = a->market,
                              .currency = a->currency,
                              .hold_window_us = a->hold_window_us,
                              .ca = a->ca,
                              .issuer = a->issuer,
                              .probe_interval_us = a->conf.probe_interval_us,
                              .receipt_interval_us = a->conf.receipt_interval_us,
                              .token_life_us = a->conf.token_life_us,
                              .unknown_after_us = a->conf.unknown_after_us,
                              .lost_after_us = a->conf.lost_after_us,
                              .now_us = clock_now_us()};
    struct pathhook_opts hook = {.base = a->base,
                                 .hook = a->conf.path_hook,
                                 .ca_file = a->conf.path_hook_ca,
                                 .key_file = a->conf.path_hook_key_file,
                                 .limit_us = a->conf.path_hook_limit_us};
    a->path_hook = pathhook_new(&hook);
    a->world = world_new(&opts);
    a->world->path_hook = a->path_hook;
    a->world->path_hook_limit_us = a->conf.path_hook_limit_us;
    a->world->waiting_rise_ppm = a->conf.waiting_rise_percent * 10000;
    a->world->more_metrics = net_metrics;
    a->world->more_metrics_arg = a;
    a->loop = flow_loop_new(a->base);
    struct flow_runner_opts ropts = {.env = a->world,
                                     .kick = flow_loop_kick,
                                     .kick_arg = a->loop,
                                     .on_step = a->crash_at != NULL ? on_step : NULL,
                                     .on_step_arg = a,
                                     .on_internal = on_internal};
    a->runner = flow_runner_new(&ropts);
    flow_loop_bind(a->loop, a->runner);
    world_start(a->world, a->store, a->runner);
    if (flow_start(a->runner, &flow_ticker, NULL, 0, clock_now_us(), err) == 0)
        return -1;
    return run_until(a, world_known, err);
}

/* ---- the front ---- */

static const struct bucket_rate no_limits[RATE_CLASSES];

static int write_listen(const struct app *a, struct err *err)
{
    struct strbuf text = STRBUF_INIT;
    char *path = xasprintf("%s/listen", a->conf.data_dir);
    for (size_t i = 0; *net_address(a->net, i) != '\0'; i++) {
        strbuf_addf(&text, "%s\n", net_address(a->net, i));
        log_info("listening on %s", net_address(a->net, i));
    }
    int rc = fsx_write(path, text.data, text.len, 0644, err);
    free(path);
    strbuf_done(&text);
    return rc;
}

static void on_told(void *arg, const struct http1_done *done)
{
    struct app *a = arg;
    const struct audit_row row = {.at_us = clock_now_us(),
                                  .actor = done->who,
                                  .address = done->remote,
                                  .method = done->method,
                                  .path = done->path,
                                  .request_id = done->request_id,
                                  .status = done->status};
    audit_add(a->audit, &row);
}

static int start_net(struct app *a, struct err *err)
{
    struct flow_auth auth = {a->world, world_auth_lookup, world_agent_lookup};
    size_t count = 0;
    while (a->conf.listen[count] != NULL)
        count++;
    struct net_opts opts = {.base = a->base,
                            .runner = a->runner,
                            .auth = &auth,
                            .routes = net_routes,
                            .route_count = net_route_count,
                            .ctx = a->ctx,
                            .addresses = (const char *const *)a->conf.listen,
                            .address_count = count,
                            .max_connections = (size_t)a->conf.max_connections,
                            .rates = a->conf.rate_limits ? NULL : no_limits,
                            .access_log = a->conf.access_log,
                            .told = on_told,
                            .told_arg = a};
    a->audit = audit_new(a->base, a->store);
    if (net_new(&opts, &a->net, err) != 0)
        return -1;
    struct timeval day = {CERT_CHECK_S, 0};
    a->on_day = event_new(a->base, -1, EV_PERSIST, on_day, a);
    event_add(a->on_day, &day);
    struct timeval keys = {KEYS_CHECK_S, 0};
    a->on_keys = event_new(a->base, -1, EV_PERSIST, on_keys, a);
    event_add(a->on_keys, &keys);
    return write_listen(a, err);
}

/* ---- start and stop ---- */

static void on_stopped(void *arg)
{
    struct app *a = arg;
    event_base_loopexit(a->base, NULL);
}

static void on_signal(evutil_socket_t sig, short what, void *arg)
{
    struct app *a = arg;
    (void)what;
    if (a->ending) { /* asked twice: do not wait for clients */
        event_base_loopexit(a->base, NULL);
        return;
    }
    a->ending = true;
    log_info("%s: ending", sig == SIGTERM ? "SIGTERM" : "SIGINT");
    if (a->net != NULL)
        net_stop(a->net, on_stopped, a);
    else
        event_base_loopexit(a->base, NULL);
}

static int start(struct app *a, struct err *err)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    signal(SIGPIPE, SIG_IGN);
    a->on_term = evsignal_new(a->base, SIGTERM, on_signal, a);
    a->on_int = evsignal_new(a->base, SIGINT, on_signal, a);
    event_add(a->on_term, NULL);
    event_add(a->on_int, NULL);
    if (fsx_mkdirs(a->conf.data_dir, 0755, err) != 0 || start_database(a, err) != 0 ||
        migrate(a, err) != 0 || start_store(a, err) != 0)
        return -1;
    if (a->ending)
        return 0;
    if (open_keys(a, err) != 0 || start_world(a, err) != 0)
        return -1;
    return a->ending ? 0 : start_net(a, err);
}

static void stop(struct app *a)
{
    char *listen = xasprintf("%s/listen", a->conf.data_dir);
    if (a->net != NULL)
        unlink(listen);
    free(listen);
    net_free(a->net);
    pathhook_free(a->path_hook);
    flow_runner_free(a->runner);
    flow_loop_free(a->loop);
    if (a->store != NULL)
        store_free(a->store);
    audit_free(a->audit);
    world_free(a->world);
    SSL_CTX_free(a->ctx);
    ca_free(a->ca);
    issuer_free(a->issuer);
    struct event *events[] = {a->on_term, a->on_int, a->on_day, a->on_keys};
    for (size_t i = 0; i < sizeof(events) / sizeof(events[0]); i++)
        if (events[i] != NULL)
            event_free(events[i]);
    cluster_stop(a->cluster);
    event_base_free(a->base);
    free(a->conninfo);
    free(a->admin_conninfo);
    free(a->report_conninfo);
    free(a->market);
    free(a->currency);
    free(a->issuer_url);
    server_conf_done(&a->conf);
}

static int serve(struct server_conf *conf_take)
{
    struct app a = {.conf = *conf_take, .crash_at = getenv("NEARGPU_CRASH_AT")};
    struct err err = {ERR_NONE, ""};
    log_init("neargpud", server_conf_log_level(&a.conf));
    a.base = event_base_new();
    int rc = start(&a, &err);
    if (rc == 0 && !a.ending)
        event_base_dispatch(a.base);
    if (rc != 0)
        log_error("%s", err.text);
    stop(&a);
    return rc == 0 ? 0 : err_exit_status(err.code);
}

/* ---- post-hook: one request, in a process of its own ---- */

#define HOOK_BODY_MAX (64 * 1024)
#define HOOK_POST_US  (600 * US_PER_S) /* who started us has a limit of its own */

static json_t *read_json(struct err *err)
{
    char text[HOOK_BODY_MAX];
    size_t len = fread(text, 1, sizeof(text), stdin);
    return jsonx_parse(text, len, sizeof(text) - 1, err);
}

/* httpc takes https://host[:port] and the path apart. */
static int post(const char *url, const struct httpc_conf *conf, json_t *body,
                struct err *err)
{
    struct httpc_conf c = *conf;
    struct httpc *h = NULL;
    struct httpc_reply reply = {0};
    size_t host = strcspn(url + strlen("https://"), "/?") + strlen("https://");
    char *base = xstrndup(url, host);
    char *path = url[host] == '/' ? xstrdup(url + host) : xasprintf("/%s", url + host);
    struct httpc_request rq = {
        .method = "POST", .path = path, .body = body, .timeout_us = HOOK_POST_US};
    c.base_url = base;
    int rc = httpc_new(&c, NULL, &h, err);
    if (rc == 0)
        rc = httpc_call(h, &rq, &reply, err);
    httpc_reply_done(&reply);
    httpc_free(h);
    free(base);
    free(path);
    return rc;
}

static int post_hook(const struct opt_values *v)
{
    struct err err = {ERR_NONE, ""};
    char *key = NULL;
    size_t len = 0;
    json_t *body = NULL;
    int rc = -1;
    if (!pathhook_is_url(v->args[0])) {
        err_set(&err, ERR_USAGE, "'%.200s' is no https:// URL", v->args[0]);
    } else if (v->arg_count < 3 ||
               (rc = fsx_read_secret(v->args[2], API_KEY_MAX, &key, &len, &err)) == 0) {
        if (key != NULL)
            key[strcspn(key, "\r\n")] = '\0';
        struct httpc_conf conf = {.ca_file = v->args[1],
                                  .bearer = key,
                                  .user_agent = "neargpud/" PACKAGE_VERSION};
        body = read_json(&err);
        rc = body != NULL ? post(v->args[0], &conf, body, &err) : -1;
    }
    json_decref(body);
    free(key);
    if (rc != 0)
        fprintf(stderr, "%s\n", err.text);
    return rc == 0 ? 0 : 1;
}

static int print(char *text)
{
    int rc = fputs(text, stdout) < 0 || fflush(stdout) != 0;
    free(text);
    return rc;
}

static int run(const struct opt_values *v)
{
    struct server_conf conf;
    struct err err;
    if (v->man)
        return print(opt_man(&server_program));
    if (v->help)
        return print(opt_help(&server_program, v->command));
    if (v->version) {
        puts("neargpud " PACKAGE_VERSION);
        return 0;
    }
    if (v->command != NULL && strcmp(v->command->name, "sample-conf") == 0)
        return print(conf_sample(server_conf_keys, server_conf_count));
    if (v->command != NULL && strcmp(v->command->name, "post-hook") == 0)
        return post_hook(v);
    if (server_conf_load(v, &conf, &err) != 0) {
        fprintf(stderr, "neargpud: %s\n", err.text);
        return err_exit_status(ERR_USAGE);
    }
    if (v->command != NULL && strcmp(v->command->name, "check-conf") == 0) {
        server_conf_done(&conf);
        return 0;
    }
    if (v->command != NULL && strncmp(v->command->name, "keys ", 5) == 0) {
        int rc = keys_cmd(v, conf.pki_dir);
        server_conf_done(&conf);
        return rc;
    }
    return serve(&conf);
}

int main(int argc, char **argv)
{
    struct opt_values v;
    struct err err;
    /* The signer process (server/issuer/signer.h): not for people. */
    if (argc == 4 && strcmp(argv[1], "signer") == 0)
        return signer_main((int)strtol(argv[2], NULL, 10), argv[3]);
    if (opt_parse(&server_program, argc, argv, &v, &err) != 0) {
        fprintf(stderr, "neargpud: %s\n", err.text);
        return err_exit_status(err.code);
    }
    int rc = run(&v);
    opt_done(&v);
    return rc;
}
