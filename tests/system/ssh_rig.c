/* ssh_rig: the part of the agent that lets SSH in, with real leases, journal and kernel
 * gates, GPUs from a file, and no market: the test gives the orders, a line each on
 * standard input, each answered by "ok" or "error: …":
 *   lease ID GPU SECONDS KEYFILE…  opens a lease for these seconds; the files' first
 *                                  lines are its holders
 *   holders ID KEYFILE…            the market names other keys
 *   end ID REASON                  ends it now
 *   stale / fresh                  the market's status is too old from now on / is not
 * Usage: ssh_rig CONF SIM_FILE. Ends at the end of its input. */
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client/agent/agent.h"
#include "client/agent/keeper.h"
#include "client/agent/leases.h"
#include "client/agent/sshsrv.h"
#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/jws.h"
#include "client/lib/log.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define TENANT   "019307d0-7b3a-7c3e-8a5b-0123456789ff"
#define TICK_US  50000
#define WORDS    24
#define STALE_US (120 * US_PER_S)

static struct agent a;
static struct sshsrv *srv;
static bool stale;

static void must(int rc, const struct err *err)
{
    if (rc == 0)
        return;
    fprintf(stderr, "ssh_rig: %s\n", err->text);
    exit(1);
}

static void tick(evutil_socket_t fd, short what, void *arg)
{
    struct event *timer = arg;
    struct timeval tv = {0, TICK_US};
    (void)fd;
    (void)what;
    a.status.iat_us = clock_now_us() - (stale ? STALE_US : 0);
    (void)leases_tick(a.leases, clock_boot_us());
    event_add(timer, &tv);
}

static void look(void)
{
    static struct gpu_info gpus[GPUS_PER_NODE_MAX];
    struct advert_limits limits = {a.conf.busy_memory_mib, 50000};
    struct err err;
    size_t count;
    must(a.gpu_ops->list(a.gpu, gpus, GPUS_PER_NODE_MAX, &count, &err), &err);
    advert_observe(&a.advert, gpus, count, &limits, leases_hold, a.leases);
}

static void start(const char *conf, const char *sim)
{
    struct gpu_source source = {.path = sim};
    struct err err;
    must(settings_load(conf, &a.conf, &err), &err);
    must(fsx_mkdirs(a.conf.state_dir, 0700, &err), &err);
    must(journal_boot_id(a.boot_id, &err), &err);
    must(journal_open(a.conf.state_dir, &a.journal, &err), &err);
    a.id.spiffe_id = xstrdup("spiffe://test/site/s/node/n");
    must(jws_keygen(&a.id.receipt_key, &err), &err);
    must(spool_open(a.conf.state_dir, a.id.receipt_key, &a.spool, &err), &err);
    must(enforce_cgroup_new(a.conf.cgroup_base, &a.enforce, &err), &err);
    a.receipt_interval_us = 60 * US_PER_S;
    a.base = event_base_new();
    signedtime_add(&a.time, clock_now_us(), clock_boot_us());
    a.have_status = true;
    a.gpu_ops = &gpu_sim;
    must(gpu_sim.open(&source, &a.gpu, &err), &err);
    a.leases = leases_new(&a);
    look();
    must(leases_recover(a.leases, &err), &err);
    must(sshsrv_new(&a, &srv, &err), &err);
}

/* --- orders --- */

static int read_holders(char **files, struct order *o, struct err *err)
{
    for (; *files != NULL; files++) {
        char *text;
        if (fsx_read(*files, 4096, &text, NULL, err) != 0)
            return -1;
        snprintf(o->holders[o->holder_count++], JOURNAL_HOLDER_MAX, "%.*s",
                 (int)strcspn(text, "\n"), text);
        free(text);
    }
    return 0;
}

static int do_lease(char **w, struct err *err)
{
    struct order *o = xcalloc(1, sizeof(*o));
    const char *step = "";
    int64_t now;
    (void)agent_now(&a, &now);
    o->epoch = now;
    o->on_lost_us = -1;
    o->generation = 1;
    snprintf(o->id, sizeof(o->id), "%s", w[1]);
    snprintf(o->tenant, sizeof(o->tenant), TENANT);
    snprintf(o->gpus[0], sizeof(o->gpus[0]), "%s", w[2]);
    o->gpu_count = 1;
    o->not_before_us = now - US_PER_S;
    o->not_after_us = now + strtol(w[3], NULL, 10) * US_PER_S;
    int rc = read_holders(w + 4, o, err);
    if (rc == 0)
        rc = leases_open(a.leases, o, &step, err);
    free(o);
    return rc;
}

static int do_holders(char **w, struct err *err)
{
    struct order *o = xcalloc(1, sizeof(*o));
    snprintf(o->id, sizeof(o->id), "%s", w[1]);
    int rc = read_holders(w + 2, o, err);
    if (rc == 0)
        leases_set_holders(a.leases, o);
    free(o);
    return rc;
}

static int obey(char *line, struct err *err)
{
    char *w[WORDS] = {NULL}, *save = NULL;
    size_t n = 0;
    for (char *p = strtok_r(line, " \n", &save); p != NULL && n < WORDS - 1;
         p = strtok_r(NULL, " \n", &save))
        w[n++] = p;
    if (n >= 4 && strcmp(w[0], "lease") == 0)
        return do_lease(w, err);
    if (n >= 2 && strcmp(w[0], "holders") == 0)
        return do_holders(w, err);
    if (n == 3 && strcmp(w[0], "end") == 0)
        leases_end(a.leases, w[1], w[2]);
    else if (n == 1 && strcmp(w[0], "stale") == 0)
        stale = true;
    else if (n == 1 && strcmp(w[0], "fresh") == 0)
        stale = false;
    else
        return err_set(err, ERR_USAGE, "no such order");
    a.status.iat_us = clock_now_us() - (stale ? STALE_US : 0);
    return 0;
}

static void order(evutil_socket_t fd, short what, void *arg)
{
    static char buf[4096];
    static size_t len;
    struct err err;
    char *end;
    (void)what;
    (void)arg;
    ssize_t n = read(fd, buf + len, sizeof(buf) - 1 - len);
    if (n <= 0) {
        event_base_loopbreak(a.base);
        return;
    }
    len += (size_t)n;
    buf[len] = '\0';
    while ((end = strchr(buf, '\n')) != NULL) {
        *end = '\0';
        if (obey(buf, &err) == 0)
            puts("ok");
        else
            printf("error: %s\n", err.text);
        fflush(stdout);
        len -= (size_t)(end + 1 - buf);
        memmove(buf, end + 1, len + 1);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "keeper") == 0)
        return keeper_main(argc - 1, argv + 1);
    if (argc != 3)
        return 2;
    log_init("ssh_rig", LOG_LVL_INFO);
    (void)signal(SIGPIPE, SIG_IGN);
    start(argv[1], argv[2]);
    struct event *timer = evtimer_new(a.base, tick, event_self_cbarg());
    struct event *in = event_new(a.base, 0, EV_READ | EV_PERSIST, order, NULL);
    event_add(in, NULL);
    tick(-1, 0, timer);
    event_base_dispatch(a.base);
    sshsrv_free(srv);
    event_free(in);
    event_free(timer);
    leases_free(a.leases);
    spool_free(a.spool);
    journal_free(a.journal);
    a.gpu_ops->close(a.gpu);
    a.enforce->ops->free(a.enforce);
    EVP_PKEY_free(a.id.receipt_key);
    free(a.id.spiffe_id);
    settings_done(&a.conf);
    event_base_free(a.base);
    return 0;
}
