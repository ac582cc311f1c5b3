/* pathhook: see the header. A process is started by posix_spawn (no copy of our memory)
 * and watched by a pidfd, so that nobody else's children are touched. */
#include "server/flow/pathhook.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/lib/log.h"
#include "client/lib/timefmt.h"
#include "client/lib/xalloc.h"

#define ARGV_MAX 8

struct hook_run {
    struct pathhook *hook; /* NULL: this place is free */
    pid_t pid;
    int pidfd, words_fd;
    struct event *ended, *limit, *said;
    bool killed;
    char words[PATHHOOK_WORDS_MAX + 1];
    size_t words_len;
    pathhook_done_fn *done;
    void *arg;
    uint64_t id;
};
struct pathhook {
    struct event_base *base;
    char *hook, *ca_file, *key_file;
    int64_t limit_us;
    struct hook_run runs[PATHHOOK_RUNNING_MAX];
};

static char *copy_of(const char *text)
{
    return text != NULL ? xstrdup(text) : NULL;
}

bool pathhook_is_url(const char *hook)
{
    return strncmp(hook, "https://", 8) == 0;
}

struct pathhook *pathhook_new(const struct pathhook_opts *opts)
{
    if (opts->hook == NULL)
        return NULL;
    struct pathhook *h = xcalloc(1, sizeof(*h));
    h->base = opts->base;
    h->hook = xstrdup(opts->hook);
    h->ca_file = copy_of(opts->ca_file);
    h->key_file = copy_of(opts->key_file);
    h->limit_us = opts->limit_us > 0 ? opts->limit_us : PATHHOOK_LIMIT_US;
    return h;
}

static void run_done(struct hook_run *r)
{
    event_free(r->ended);
    event_free(r->limit);
    event_free(r->said);
    close(r->pidfd);
    close(r->words_fd);
    memset(r, 0, sizeof(*r));
}

void pathhook_free(struct pathhook *h)
{
    if (h == NULL)
        return;
    for (size_t i = 0; i < PATHHOOK_RUNNING_MAX; i++)
        if (h->runs[i].hook != NULL) {
            kill(-h->runs[i].pid, SIGKILL);
            waitpid(h->runs[i].pid, NULL, 0);
            run_done(&h->runs[i]);
        }
    free(h->hook);
    free(h->ca_file);
    free(h->key_file);
    free(h);
}

size_t pathhook_room(const struct pathhook *h)
{
    size_t room = 0;
    for (size_t i = 0; i < PATHHOOK_RUNNING_MAX; i++)
        room += h->runs[i].hook == NULL;
    return room;
}

/* ---- the end of a run ---- */

/* Keeps the last words. */
static void on_words(evutil_socket_t fd, short what, void *arg)
{
    struct hook_run *r = arg;
    char buf[4096];
    ssize_t n;
    (void)what;
    while ((n = read(fd, buf, sizeof(buf))) > 0) {
        size_t take = (size_t)n > PATHHOOK_WORDS_MAX ? PATHHOOK_WORDS_MAX : (size_t)n;
        size_t keep = PATHHOOK_WORDS_MAX - take < r->words_len
                          ? PATHHOOK_WORDS_MAX - take
                          : r->words_len;
        memmove(r->words, r->words + r->words_len - keep, keep);
        memcpy(r->words + keep, buf + (size_t)n - take, take);
        r->words_len = keep + take;
    }
    if (n == 0)
        event_del(r->said);
}

/* On one line. */
static void clean_words(struct hook_run *r)
{
    for (size_t i = 0; i < r->words_len; i++)
        if (r->words[i] < ' ' || r->words[i] > '~')
            r->words[i] = ' ';
    while (r->words_len > 0 && r->words[r->words_len - 1] == ' ')
        r->words_len--;
    r->words[r->words_len] = '\0';
}

static int outcome(struct hook_run *r, int status, struct err *err)
{
    on_words(r->words_fd, EV_READ, r);
    clean_words(r);
    const char *words = r->words, *colon = words[0] != '\0' ? ": " : "";
    if (r->killed)
        return err_set(err, ERR_TIMEOUT, "not done within %d s%s%s",
                       (int)(r->hook->limit_us / US_PER_S), colon, words);
    if (WIFSIGNALED(status))
        return err_set(err, ERR_UNAVAILABLE, "ended by signal %d%s%s", WTERMSIG(status),
                       colon, words);
    if (WEXITSTATUS(status) != 0)
        return err_set(err, ERR_UNAVAILABLE, "exit status %d%s%s", WEXITSTATUS(status),
                       colon, words);
    return 0;
}

static void on_ended(evutil_socket_t fd, short what, void *arg)
{
    struct hook_run *r = arg;
    int status;
    (void)fd, (void)what;
    kill(-r->pid, SIGKILL); /* what it left in the background; the number is ours */
    if (waitpid(r->pid, &status, 0) != r->pid)
        status = 0x7f00; /* nobody else may have waited for it */
    struct err err;
    int rc = outcome(r, status, &err);
    pathhook_done_fn *done = r->done;
    void *done_arg = r->arg;
    uint64_t id = r->id;
    run_done(r);
    done(done_arg, id, rc == 0 ? NULL : &err);
}

static void on_limit(evutil_socket_t fd, short what, void *arg)
{
    struct hook_run *r = arg;
    (void)fd, (void)what;
    r->killed = true;
    kill(-r->pid, SIGKILL);
}

/* ---- its start ---- */

static int input_fd(const char *json, struct err *err)
{
    int fd = memfd_create("neargpu-path", MFD_CLOEXEC);
    size_t len = strlen(json);
    if (fd < 0 || write(fd, json, len) != (ssize_t)len || lseek(fd, 0, SEEK_SET) != 0) {
        int saved = errno;
        if (fd >= 0)
            close(fd);
        return err_sys(err, saved, "path hook: its input");
    }
    return fd;
}

static void fill_argv(const struct pathhook *h, const struct pathhook_job *job,
                      const char *argv[ARGV_MAX])
{
    size_t n = 0;
    if (!pathhook_is_url(h->hook)) {
        argv[n++] = h->hook;
        argv[n++] = job->action;
        argv[n++] = job->name;
    } else {
        argv[n++] = "neargpud";
        argv[n++] = "post-hook";
        argv[n++] = h->hook;
        argv[n++] = h->ca_file;
        if (h->key_file != NULL)
            argv[n++] = h->key_file;
    }
    argv[n] = NULL;
}

static int spawn(const char *program, const char *const argv[], int in, int words,
                 pid_t *ret)
{
    static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:"
                         "/bin";
    char *env[] = {path, NULL};
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_adddup2(&files, in, 0);
    posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&files, words, 2);
    posix_spawn_file_actions_addclosefrom_np(&files, 3);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK |
                                        POSIX_SPAWN_SETSIGDEF);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    int rc =
        posix_spawn(ret, program, &files, &attr, (char *const *)(uintptr_t)argv, env);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return rc;
}

static void watch(struct pathhook *h, struct hook_run *r)
{
    struct timeval limit = {h->limit_us / US_PER_S, h->limit_us % US_PER_S};
    r->hook = h;
    r->ended = event_new(h->base, r->pidfd, EV_READ | EV_PERSIST, on_ended, r);
    r->limit = evtimer_new(h->base, on_limit, r);
    r->said = event_new(h->base, r->words_fd, EV_READ | EV_PERSIST, on_words, r);
    event_add(r->ended, NULL);
    event_add(r->said, NULL);
    event_add(r->limit, &limit);
}

int pathhook_start(struct pathhook *h, const struct pathhook_job *job, struct err *err)
{
    struct hook_run *r = h->runs;
    while (r < h->runs + PATHHOOK_RUNNING_MAX && r->hook != NULL)
        r++;
    if (r == h->runs + PATHHOOK_RUNNING_MAX)
        return err_set(err, ERR_UNAVAILABLE, "%d path hooks run already",
                       PATHHOOK_RUNNING_MAX);
    const char *argv[ARGV_MAX];
    int words[2], in = input_fd(job->json, err);
    if (in < 0)
        return -1;
    if (pipe2(words, O_CLOEXEC) != 0) {
        int saved = errno;
        close(in);
        return err_sys(err, saved, "path hook: a pipe");
    }
    fcntl(words[0], F_SETFL, O_NONBLOCK);
    fill_argv(h, job, argv);
    int rc = spawn(pathhook_is_url(h->hook) ? "/proc/self/exe" : h->hook, argv, in,
                   words[1], &r->pid);
    close(in);
    close(words[1]);
    int pidfd = rc == 0 ? pidfd_open(r->pid, 0) : -1;
    if (pidfd < 0) {
        rc = rc != 0 ? rc : errno;
        close(words[0]);
        if (r->pid > 0) {
            kill(-r->pid, SIGKILL);
            waitpid(r->pid, NULL, 0);
        }
        memset(r, 0, sizeof(*r));
        return err_sys(err, rc, "%.200s", h->hook);
    }
    r->pidfd = pidfd;
    r->words_fd = words[0];
    r->done = job->done;
    r->arg = job->arg;
    r->id = job->id;
    watch(h, r);
    return 0;
}
