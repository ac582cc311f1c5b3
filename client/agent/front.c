/* front: see front.h. */
#include "client/agent/front.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "client/agent/front_confine.h"
#include "client/agent/probe.h"
#include "client/agent/runsrv.h"
#include "client/agent/sync.h"
#include "client/agent/trim.h"
#include "client/lib/clock.h"
#include "client/lib/httpc.h"
#include "client/lib/jsonx.h"
#include "client/lib/log.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define PROBE_INTERVAL_US (60 * US_PER_S)

#define F(n, t, r, lo, hi)                               \
    {                                                    \
#n, t, r, offsetof(struct front_conf, n), lo, hi \
    }
static const struct jsonx_field conf_fields[] = {
    F(server, JSONX_STRING, true, 1, 1000),
    F(spiffe_id, JSONX_STRING, true, 1, 1000),
    F(dir, JSONX_STRING, true, 1, 4000),
    F(ca_file, JSONX_STRING, true, 1, 4000),
    F(runtime_dir, JSONX_STRING, true, 1, 4000),
    F(listen, JSONX_STRING, true, 1, 1000),
    F(advertise, JSONX_STRING, false, 1, 1000),
    F(probe_source, JSONX_STRING, false, 1, 1000),
    F(probe_samples, JSONX_INT, true, 1, PROBE_SAMPLES_MAX),
    F(probe_interval_us, JSONX_INT, true, 0, INT64_MAX),
    F(uid, JSONX_INT, true, 1, UINT32_MAX),
    F(gid, JSONX_INT, true, 1, UINT32_MAX),
    F(log_level, JSONX_INT, true, 0, 3),
    F(hide, JSONX_ARRAY, true, 0, 16),
};

int front_conf_read(const json_t *doc, struct front_conf *ret, struct err *err)
{
    struct front_conf c = {0};
    if (jsonx_decode(doc, conf_fields, JSONX_COUNT(conf_fields), &c, "", err) != 0)
        return -1;
    c.doc = json_incref((json_t *)(uintptr_t)doc);
    *ret = c;
    return 0;
}

bool front_now(const struct front *f, int64_t *ret_us)
{
    if (f->time_known)
        *ret_us = clock_boot_us() + f->offset_us;
    return f->time_known;
}

void front_tell(struct front *f, enum link_kind kind, json_t *doc_take)
{
    struct err err;
    if (link_send(f->link, kind, doc_take, -1, &err) != 0)
        log_error("front: %s", err.text);
}

/* --- what the warden says --- */

struct observed_row {
    json_t *body;
    bool fresh, changed;
    int64_t offset_us;
};
static const struct jsonx_field observed_fields[] = {
    {"body", JSONX_OBJECT, true, offsetof(struct observed_row, body), 0, 0},
    {"fresh", JSONX_BOOL, true, offsetof(struct observed_row, fresh), 0, 0},
    {"changed", JSONX_BOOL, true, offsetof(struct observed_row, changed), 0, 0},
    {"offset_us", JSONX_INT, false, offsetof(struct observed_row, offset_us), INT64_MIN,
     INT64_MAX},
};

static int take_observed(struct front *f, const json_t *doc, struct err *err)
{
    struct observed_row row = {0};
    if (jsonx_decode(doc, observed_fields, JSONX_COUNT(observed_fields), &row, "",
                     err) != 0)
        return -1;
    f->time_known = json_object_get(doc, "offset_us") != NULL;
    f->offset_us = row.offset_us;
    sync_observe(f->sync, row.body, row.fresh, row.changed);
    return 0;
}

/* Nothing the warden says is believed to be wrong, and yet nothing is taken for
 * granted: a message too early is a bug that ends the front. */
static int take(void *arg, enum link_kind kind, const json_t *doc, int fd_take,
                struct err *err)
{
    struct front *f = arg;
    if (kind == LINK_SETTINGS && f->conf.doc == NULL)
        return front_conf_read(doc, &f->conf, err);
    if (kind == LINK_SETTINGS || f->sync == NULL) {
        if (fd_take >= 0)
            close(fd_take);
        return err_set(err, ERR_CONFLICT, "not now");
    }
    switch (kind) {
    case LINK_OBSERVED: return take_observed(f, doc, err);
    case LINK_RECEIPTS: return sync_post(f->sync, doc, err);
    case LINK_FETCH: sync_fetch_keys(f->sync); return 0;
    case LINK_NONCE: return runsrv_take_nonce(f->runsrv, doc, err);
    default: return runsrv_take_answer(f->runsrv, doc, fd_take, err);
    }
}

static void over(void *arg, const struct err *why)
{
    struct front *f = arg;
    log_info("front: %s: stopping", why->text);
    event_base_loopbreak(f->base);
    f->conf.uid = 0; /* says so to a loop that waits for settings */
}

/* --- life --- */

static bool probe_now(void *arg, int64_t *ret_us)
{
    return front_now(arg, ret_us);
}

static void probe_changed(void *arg)
{
    const struct front *f = arg;
    sync_poke(f->sync);
}

static char *fd_path(int fd)
{
    return xasprintf("/proc/self/fd/%d", fd);
}

/* Everything that needs root, and the giving up of it. */
static int confine(struct front *f, struct err *err)
{
    struct front_confine c = {.uid = (uid_t)f->conf.uid,
                              .gid = (gid_t)f->conf.gid,
                              .dir_fd = open(f->conf.dir, O_PATH | O_CLOEXEC),
                              .ca_fd = open(f->conf.ca_file, O_PATH | O_CLOEXEC),
                              .hide = f->conf.hide};
    if (c.dir_fd < 0 || c.ca_fd < 0)
        return err_sys(err, errno, "open %s",
                       c.dir_fd < 0 ? f->conf.dir : f->conf.ca_file);
    if (runsrv_new(f, &f->runsrv, err) != 0 || front_confine(&c, err) != 0)
        return -1;
    char *dir = fd_path(c.dir_fd);
    f->ca_path = fd_path(c.ca_fd);
    int rc = nodecert_load(dir, f->conf.spiffe_id, &f->cert, err);
    free(dir);
    return rc;
}

static int open_parts(struct front *f, struct err *err)
{
    struct probe_conf probe = {.source = f->conf.probe_source,
                               .samples = (size_t)f->conf.probe_samples,
                               .interval_us = f->conf.probe_interval_us > 0
                                                  ? f->conf.probe_interval_us
                                                  : PROBE_INTERVAL_US,
                               .now = probe_now,
                               .changed = probe_changed,
                               .arg = f};
    if (confine(f, err) != 0 || runsrv_new_identity(f->runsrv, err) != 0 ||
        probe_new(f->base, &probe, &f->probe, err) != 0)
        return -1;
    return sync_new(f, &f->sync, err);
}

static void front_done(struct front *f)
{
    sync_free(f->sync);
    runsrv_free(f->runsrv);
    probe_free(f->probe);
    nodecert_done(&f->cert);
    link_free(f->link);
    free(f->ca_path);
    json_decref(f->conf.doc);
    event_base_free(f->base);
}

int front_main(int argc, char **argv)
{
    struct front f = {0};
    struct err err;
    pid_t warden = getppid();
    int rc = 0;
    if (argc != 2 || strcmp(argv[1], "3") != 0 || fcntl(3, F_GETFD) < 0)
        return err_exit_status(ERR_USAGE);
    log_init("neargpu-agent", LOG_LVL_INFO);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGINT, SIG_IGN); /* a terminal's, meant for the warden */
    f.base = event_base_new();
    struct link_conf lc = {LINK_FRONT, take, over, &f};
    f.link = link_new(f.base, 3, &lc);
    rc = httpc_load(&err); /* where it is out of reach later */
    while (rc == 0 && f.conf.doc == NULL && !event_base_got_break(f.base))
        event_base_loop(f.base, EVLOOP_ONCE);
    if (rc == 0 && f.conf.doc != NULL && f.conf.uid != 0) {
        log_init("neargpu-agent", (enum log_level)f.conf.log_level);
        rc = open_parts(&f, &err);
        /* Also when this process is stuck or stopped; set behind the change of user,
         * which clears it. */
        if (rc == 0 && prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && getppid() == warden) {
            json_t *o = json_object();
            json_object_set_new(o, "address", json_string(runsrv_address(f.runsrv)));
            front_tell(&f, LINK_UP, o);
            struct trim *trim = trim_new(f.base);
            event_base_dispatch(f.base);
            trim_free(trim);
        }
    }
    if (rc != 0)
        log_error("front: %s", err.text);
    front_done(&f);
    return rc == 0 ? 0 : err_exit_status(err.code);
}
