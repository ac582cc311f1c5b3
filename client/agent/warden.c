/* warden: see warden.h. The front's life, and which message goes where. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/agent/warden_impl.h"
#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/jsonx.h"
#include "client/lib/log.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

void warden_tell(struct warden *w, enum link_kind kind, json_t *doc_take, int fd_take)
{
    struct err err;
    if (w->link == NULL) {
        json_decref(doc_take);
        if (fd_take >= 0)
            close(fd_take);
    } else if (link_send(w->link, kind, doc_take, fd_take, &err) != 0) {
        log_error("front: %s", err.text);
    }
}

/* --- what the front says --- */

static int take_up(struct warden *w, const json_t *doc, struct err *err)
{
    const char *address = NULL;
    static const struct jsonx_field fields[] = {
        {"address", JSONX_STRING, true, 0, 0, 299}};
    if (w->up)
        return err_set(err, ERR_CONFLICT, "it was up already");
    if (jsonx_decode(doc, fields, 1, &address, "", err) != 0)
        return -1;
    w->up = true;
    log_info("front %ld is up, %s%s", (long)w->front,
             address[0] != '\0' ? "tenants connect to " : "local socket only", address);
    warden_sync_up(w);
    return 0;
}

static int take(void *arg, enum link_kind kind, const json_t *doc, int fd_take,
                struct err *err)
{
    struct warden *w = arg;
    if (kind != LINK_UP && !w->up) {
        link_drop_fd(fd_take);
        return err_set(err, ERR_CONFLICT, "before it was up");
    }
    switch (kind) {
    case LINK_UP: return take_up(w, doc, err);
    case LINK_REPLY: return warden_take_reply(w, doc, err);
    case LINK_ACKED: return warden_take_acked(w, doc, err);
    case LINK_KEYS: return warden_take_keys(w, doc, err);
    case LINK_BANNED: return warden_take_banned(w, doc, err);
    case LINK_GREET: return warden_take_greet(w, doc, fd_take, err);
    case LINK_REQUEST: return warden_take_request(w, doc, err);
    default: return warden_take_gone(w, doc, err);
    }
}

/* --- its life --- */

static void arm(struct event *ev, int64_t us)
{
    struct timeval tv = {us / US_PER_S, us % US_PER_S};
    event_add(ev, &tv);
}

/* Whatever it was doing: what matters is with the warden. */
static void end_front(struct warden *w)
{
    link_free(w->link);
    w->link = NULL;
    w->up = false;
    if (w->front > 0) {
        (void)kill(w->front, SIGKILL);
        while (waitpid(w->front, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    w->front = 0;
    warden_sync_down(w);
    warden_run_down(w);
}

static void over(void *arg, const struct err *why)
{
    struct warden *w = arg;
    int64_t lived = clock_boot_us() - w->spawned_us;
    pid_t pid = w->front;
    end_front(w);
    w->backoff_us = lived >= WARDEN_STEADY_US || w->backoff_us == 0 ? WARDEN_RESPAWN_MIN
                                                                    : w->backoff_us * 2;
    if (w->backoff_us > WARDEN_RESPAWN_MAX)
        w->backoff_us = WARDEN_RESPAWN_MAX;
    log_warn("front %ld ended (%s); another is started in %lld ms, leases go on",
             (long)pid, why->text, (long long)(w->backoff_us / 1000));
    arm(w->respawn, w->backoff_us);
}

static json_t *settings_json(const struct warden *w)
{
    const struct agent *a = w->a;
    const struct settings *c = &a->conf;
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    json_t *o = json_object(), *hide = json_array();
    int level = LOG_LVL_INFO;
    for (int i = 0; i < 4; i++)
        if (strcmp(c->log_level, levels[i]) == 0)
            level = i;
    json_object_set_new(o, "server",
                        json_string(c->server != NULL ? c->server : a->id.server));
    json_object_set_new(o, "spiffe_id", json_string(a->id.spiffe_id));
    json_object_set_new(o, "dir", json_string(a->id.front_dir));
    json_object_set_new(o, "ca_file", json_string(a->id.ca_file));
    json_object_set_new(o, "runtime_dir", json_string(c->runtime_dir));
    json_object_set_new(o, "listen", json_string(c->listen));
    json_object_set_new(o, "advertise",
                        c->advertise != NULL ? json_string(c->advertise) : json_null());
    json_object_set_new(o, "probe_source",
                        c->probe_source != NULL ? json_string(c->probe_source)
                                                : json_null());
    json_object_set_new(o, "probe_samples", json_integer(c->probe_samples));
    json_object_set_new(o, "probe_interval_us", json_integer(c->probe_interval_us));
    json_object_set_new(o, "uid", json_integer(c->front_uid));
    json_object_set_new(o, "gid", json_integer(c->front_gid));
    json_object_set_new(o, "log_level", json_integer(level));
    json_array_append_new(hide, json_string(c->state_dir));
    json_array_append_new(hide, json_string(c->runtime_dir));
    json_object_set_new(o, "hide", hide);
    return o;
}

static void __attribute__((noreturn)) front_exec(const struct warden *w, int fd)
{
    char *const argv[] = {(char *)"/proc/self/exe", (char *)"front", (char *)"3", NULL};
    char *const envp[] = {(char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (setns(w->hostnet_fd, CLONE_NEWNET) < 0 || null < 0 || dup2(null, 0) < 0 ||
        dup2(null, 1) < 0 || dup2(fd, 3) < 0)
        _exit(127);
    (void)close_range(4, UINT_MAX, 0);
    (void)fcntl(3, F_SETFD, 0); /* when `fd` was 3 already, dup2 left the flag */
    execve(argv[0], argv, envp);
    _exit(127);
}

static int spawn(struct warden *w, struct err *err)
{
    int pair[2];
    struct link_conf lc = {LINK_WARDEN, take, over, w};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(err, errno, "socketpair");
    w->front = fork();
    if (w->front == 0)
        front_exec(w, pair[1]);
    close(pair[1]);
    if (w->front < 0) {
        close(pair[0]);
        return err_sys(err, errno, "fork");
    }
    w->link = link_new(w->a->base, pair[0], &lc);
    warden_tell(w, LINK_SETTINGS, settings_json(w), -1);
    return 0;
}

static void respawn(evutil_socket_t fd, short what, void *arg)
{
    struct warden *w = arg;
    struct err err;
    (void)fd;
    (void)what;
    w->spawned_us = clock_boot_us();
    if (spawn(w, &err) != 0) {
        log_error("front: %s", err.text);
        w->front = 0;
        arm(w->respawn, WARDEN_RESPAWN_MAX);
    }
}

/* --- the start --- */

/* The front's directory is the front's. Enrolment, as root, wrote into it: only files
 * of root with one name are handed over, whatever a front may have put there. */
static int hand_over(const struct warden *w, struct err *err)
{
    const struct settings *c = &w->a->conf;
    const char *path = w->a->id.front_dir;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), rc = 0;
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (d == NULL)
        return err_sys(err, errno, "%s: enrol again", path);
    for (const struct dirent *e; rc == 0 && (e = readdir(d)) != NULL;) {
        struct stat st;
        if (fstatat(fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            S_ISREG(st.st_mode) && st.st_uid == 0 && st.st_nlink == 1 &&
            fchownat(fd, e->d_name, c->front_uid, c->front_gid, AT_SYMLINK_NOFOLLOW) <
                0)
            rc = err_sys(err, errno, "%s/%s: chown", path, e->d_name);
    }
    if (rc == 0 && fchown(fd, c->front_uid, c->front_gid) < 0)
        rc = err_sys(err, errno, "%s: chown", path);
    closedir(d);
    return rc;
}

/* Beside this program, as it was built, or where it was installed. Without it this
 * program does, only slower and larger. */
static void find_keeper(void)
{
    char self[PATH_MAX];
    struct err err;
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash != NULL)
        *slash = '\0';
    char *beside = xasprintf("%s/neargpu-keeper", self);
    if (launch_set_keeper(beside, &err) != 0 &&
        launch_set_keeper(NEARGPU_KEEPER, &err) != 0)
        log_warn("no program for jobs of its own: %s", err.text);
    free(beside);
}

int warden_new(struct agent *a, struct warden **ret, struct err *err)
{
    struct warden *w = xcalloc(1, sizeof(*w));
    w->a = a;
    w->socket_path = xasprintf("%s/agent.sock", a->conf.runtime_dir);
    w->hostnet_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
    w->respawn = evtimer_new(a->base, respawn, w);
    warden_sync_new(w);
    int rc = hand_over(w, err);
    if (rc == 0 && (w->hostnet_fd < 0 || unshare(CLONE_NEWNET) < 0))
        rc = err_sys(err, errno, "a network namespace without interfaces");
    if (rc != 0) {
        warden_free(w);
        return -1;
    }
    launch_set_netns(w->hostnet_fd);
    find_keeper();
    *ret = w;
    return 0;
}

void warden_start(struct warden *w)
{
    arm(w->respawn, 0);
}

void warden_free(struct warden *w)
{
    if (w == NULL)
        return;
    end_front(w);
    (void)unlink(w->socket_path);
    warden_run_free(w);
    warden_sync_free(w);
    event_free(w->respawn);
    launch_set_netns(-1);
    if (w->hostnet_fd >= 0)
        close(w->hostnet_fd);
    free(w->socket_path);
    free(w);
}
