/* sshsrv_watch: the sshd processes behind the keys that were asked for. A connection
 * that only forwards ports has no session that could end: so its sshd is told to
 * (SIGTERM) when no lease of its key is left. What is watched is a pidfd of the
 * helper's parent: never a number that another process may have by then. */
#include <errno.h>
#include <event2/event.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "client/agent/sshsrv_impl.h"
#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/log.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define WATCHES_MAX 1024 /* above any MaxStartups and MaxSessions in use */
#define LOOK_US     INT64_C(500000)

struct ssh_watch {
    struct sshsrv *srv;
    struct ssh_watch *next;
    int pidfd;
    struct event *event; /* the process has ended */
    struct ticket_claims claims;
    int64_t closed_boot_us; /* since when no lease is left; 0: one is */
};

static void watch_free(struct ssh_watch *w)
{
    for (struct ssh_watch **p = &w->srv->watches; *p != NULL; p = &(*p)->next) {
        if (*p == w) {
            *p = w->next;
            w->srv->watch_count--;
            break;
        }
    }
    event_free(w->event);
    close(w->pidfd);
    free(w);
}

static void ended(evutil_socket_t fd, short what, void *arg)
{
    (void)fd;
    (void)what;
    watch_free(arg);
}

/* Field 4 of /proc/PID/stat; -1: it is gone. The name in field 2 may hold anything. */
static pid_t parent_of(pid_t pid)
{
    char *path = xasprintf("/proc/%d/stat", (int)pid), *text = NULL;
    int parent = -1;
    if (fsx_read(path, 4096, &text, NULL, NULL) == 0) {
        const char *end = strrchr(text, ')');
        if (end == NULL || sscanf(end, ") %*c %d", &parent) != 1)
            parent = -1;
    }
    free(text);
    free(path);
    return parent;
}

/* sshd, or what newer ones call the process of a connection: sshd-session, sshd-auth.
 */
static bool is_sshd(pid_t pid)
{
    char *path = xasprintf("/proc/%d/exe", (int)pid), exe[4096];
    ssize_t n = readlink(path, exe, sizeof(exe) - 1);
    free(path);
    if (n <= 0)
        return false;
    exe[n] = '\0';
    const char *name = strrchr(exe, '/');
    return name != NULL && strncmp(name, "/sshd", 5) == 0;
}

static void look(evutil_socket_t fd, short what, void *arg)
{
    struct sshsrv *s = arg;
    int64_t now = clock_boot_us();
    const struct journal_lease *one[1];
    (void)fd;
    (void)what;
    for (struct ssh_watch *w = s->watches; w != NULL; w = w->next) {
        const struct ticket_claims *c = &w->claims;
        if (ssh_leases_of(s->a, c->key, c->lease, one, 1) > 0)
            w->closed_boot_us = 0;
        else if (w->closed_boot_us == 0)
            w->closed_boot_us = now;
        else if (now - w->closed_boot_us >= SSHSRV_GRACE_US)
            (void)syscall(SYS_pidfd_send_signal, w->pidfd, SIGTERM, NULL, 0);
    }
    struct timeval tv = {LOOK_US / US_PER_S, LOOK_US % US_PER_S};
    if (s->watches != NULL)
        event_add(s->watch_timer, &tv);
}

int ssh_watch_add(struct sshsrv *s, pid_t pid, const struct ticket_claims *claims,
                  struct err *err)
{
    pid_t sshd = parent_of(pid);
    if (sshd <= 1 || !is_sshd(sshd))
        return err_set(err, ERR_FORBIDDEN, "the helper was not started by sshd");
    if (s->watch_count >= WATCHES_MAX)
        return err_set(err, ERR_UNAVAILABLE, "too many connections to sshd");
    int fd = (int)syscall(SYS_pidfd_open, sshd, 0);
    if (fd < 0)
        return err_sys(err, errno, "pidfd of sshd");
    /* Opened by number: it is the parent only if it still is. */
    if (parent_of(pid) != sshd) {
        close(fd);
        return err_set(err, ERR_UNAVAILABLE, "sshd has gone");
    }
    struct ssh_watch *w = xcalloc(1, sizeof(*w));
    w->srv = s;
    w->pidfd = fd;
    w->claims = *claims;
    w->event = event_new(s->a->base, fd, EV_READ, ended, w);
    event_add(w->event, NULL);
    w->next = s->watches;
    s->watches = w;
    s->watch_count++;
    if (s->watch_timer == NULL)
        s->watch_timer = evtimer_new(s->a->base, look, s);
    struct timeval tv = {LOOK_US / US_PER_S, LOOK_US % US_PER_S};
    if (!evtimer_pending(s->watch_timer, NULL))
        event_add(s->watch_timer, &tv);
    return 0;
}

void ssh_watch_free_all(struct sshsrv *s)
{
    while (s->watches != NULL)
        watch_free(s->watches);
    if (s->watch_timer != NULL)
        event_free(s->watch_timer);
    s->watch_timer = NULL;
}
