/* scrub: see scrub.h. */
#include "client/agent/scrub.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/lib/clock.h"
#include "client/lib/fsx.h"
#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"

#define TAIL_MAX 160 /* of its output, for the message */

struct scrub {
    char *command;
    int64_t timeout_us;
    struct gpu_info gpus[GPUS_PER_NODE_MAX];
    size_t count, at; /* `at` is being worked on */
    pid_t pid;        /* 0: none runs */
    int out;          /* read end of its output; -1: none */
    int64_t until_us; /* boot time */
    char tail[TAIL_MAX];
    size_t tail_len;
    bool failed;
    struct err why;
};

/* One word with its % filled in; false when it names something unknown. */
static bool fill(struct strbuf *out, const char *word, size_t len,
                 const struct gpu_info *gpu)
{
    for (size_t i = 0; i < len; i++) {
        if (word[i] != '%') {
            strbuf_add(out, &word[i], 1);
            continue;
        }
        switch (++i < len ? word[i] : '\0') {
        case 'u': strbuf_addf(out, "%s", gpu->uuid); break;
        case 'p': strbuf_addf(out, "%s", gpu->pci); break;
        case 'm': strbuf_addf(out, "%d", gpu->minor); break;
        case '%': strbuf_addf(out, "%%"); break;
        default: return false;
        }
    }
    return true;
}

char **scrub_words(const char *command, const struct gpu_info *gpu)
{
    char **words = xcalloc(SCRUB_WORDS_MAX + 1, sizeof(*words));
    size_t n = 0;
    bool good = true;
    for (const char *p = command + strspn(command, " \t"); good && *p != '\0';
         p += strspn(p, " \t")) {
        size_t len = strcspn(p, " \t");
        struct strbuf word = STRBUF_INIT;
        good = n < SCRUB_WORDS_MAX && fill(&word, p, len, gpu);
        if (good)
            words[n++] = xstrdup(strbuf_str(&word));
        strbuf_done(&word);
        p += len;
    }
    if (good && n > 0)
        return words;
    scrub_words_free(words);
    return NULL;
}

void scrub_words_free(char **words)
{
    for (size_t i = 0; words != NULL && words[i] != NULL; i++)
        free(words[i]);
    free(words);
}

static void run(char **words, int out, pid_t agent)
{
    static char *const env[] = {
        (char *)"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        NULL};
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    sigset_t none;
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    /* The agent may have died before the first of these two. */
    if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0 || getppid() != agent ||
        setpgid(0, 0) != 0 || null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 ||
        dup2(out, 2) < 0 || chdir("/") != 0)
        _exit(126);
    execvpe(words[0], words, env);
    dprintf(2, "%s: %s\n", words[0], strerror(errno));
    _exit(127);
}

static int start(struct scrub *s, struct err *err)
{
    const struct gpu_info *g = &s->gpus[s->at];
    char **words = scrub_words(s->command, g);
    int out[2];
    if (words == NULL)
        return err_set(err, ERR_BAD_REQUEST,
                       "scrub_command: not a program with at most %d words",
                       SCRUB_WORDS_MAX);
    if (pipe2(out, O_CLOEXEC) != 0) {
        scrub_words_free(words);
        return err_sys(err, errno, "pipe");
    }
    pid_t agent = getpid();
    pid_t pid = fork();
    if (pid == 0)
        run(words, out[1], agent);
    int rc = pid > 0 ? 0 : err_sys(err, errno, "fork");
    scrub_words_free(words);
    close(out[1]);
    if (rc == 0)
        rc = fsx_set_nonblock(out[0], err);
    s->pid = pid > 0 ? pid : 0;
    s->out = out[0];
    s->tail_len = 0;
    s->until_us = clock_boot_us() + s->timeout_us;
    return rc;
}

/* The last bytes of what it writes, on one line. */
static void read_tail(struct scrub *s)
{
    char block[1024];
    ssize_t n;
    while ((n = read(s->out, block, sizeof(block))) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            if (s->tail_len == TAIL_MAX - 1) {
                s->tail_len = TAIL_MAX / 2;
                memmove(s->tail, s->tail + TAIL_MAX - 1 - s->tail_len, s->tail_len);
            }
            unsigned char c = (unsigned char)block[i];
            s->tail[s->tail_len++] = c >= ' ' && c < 0x7f ? block[i] : ' ';
        }
    }
    while (s->tail_len > 0 && s->tail[s->tail_len - 1] == ' ')
        s->tail_len--;
    s->tail[s->tail_len] = '\0';
}

static void stop(struct scrub *s)
{
    if (s->pid > 0) {
        (void)kill(-s->pid, SIGKILL);
        (void)kill(s->pid, SIGKILL); /* it may not have its group yet */
        while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    s->pid = 0;
    if (s->out >= 0)
        close(s->out);
    s->out = -1;
}

int scrub_begin(const char *command, int64_t timeout_us,
                const struct gpu_info *const *gpus, size_t count, struct scrub **ret,
                struct err *err)
{
    struct scrub *s = xcalloc(1, sizeof(*s));
    s->command = xstrdup(command);
    s->timeout_us = timeout_us;
    s->out = -1;
    for (; s->count < count && s->count < GPUS_PER_NODE_MAX; s->count++)
        s->gpus[s->count] = *gpus[s->count];
    if (s->count > 0 && start(s, err) != 0) {
        scrub_free(s);
        return -1;
    }
    *ret = s;
    return 0;
}

static int fail(struct scrub *s, const char *what, int number)
{
    s->failed = true;
    err_set(&s->why, ERR_UNAVAILABLE, "scrub of %s %s %d: %s", s->gpus[s->at].uuid,
            what, number, s->tail_len > 0 ? s->tail : "it said nothing");
    stop(s);
    return -1;
}

/* As scrub_poll, for the GPU at hand. */
static int poll_one(struct scrub *s)
{
    int status;
    read_tail(s);
    pid_t got = waitpid(s->pid, &status, WNOHANG);
    if (got == 0 && clock_boot_us() < s->until_us)
        return 0;
    if (got == 0)
        return fail(s, "not done in seconds:", (int)(s->timeout_us / 1000000));
    read_tail(s);
    (void)kill(-s->pid, SIGKILL); /* whatever it left behind */
    s->pid = 0;
    if (got < 0)
        return fail(s, "lost its program, errno", errno);
    if (WIFSIGNALED(status))
        return fail(s, "ended by signal", WTERMSIG(status));
    if (WEXITSTATUS(status) != 0)
        return fail(s, "ended with", WEXITSTATUS(status));
    stop(s);
    return 1;
}

int scrub_poll(struct scrub *s, struct err *err)
{
    while (!s->failed && s->at < s->count) {
        int rc = poll_one(s);
        if (rc == 0)
            return 0;
        if (rc > 0 && ++s->at < s->count && start(s, &s->why) != 0)
            s->failed = true;
    }
    if (s->failed)
        return err_set(err, s->why.code, "%s", s->why.text);
    return 1;
}

void scrub_free(struct scrub *s)
{
    if (s == NULL)
        return;
    stop(s);
    free(s->command);
    free(s);
}
