/* talk: what goes to and comes from the person: results on stdout, notes and questions
 * on stderr, secrets without echo, and the sentence a ^C leaves behind. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "client/cli/cli.h"
#include "client/lib/fsx.h"
#include "client/lib/xalloc.h"
#include "client/lib/timefmt.h"

#define SECRET_BYTES_MAX 4096 /* API keys have 47 */

int cli_print(const struct strbuf *text, struct err *err)
{
    const char *p = strbuf_str(text);
    size_t left = text->len;
    while (left > 0) {
        ssize_t n = write(STDOUT_FILENO, p, left);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EPIPE) /* the reader had enough, such as head(1) */
            return 0;
        if (n < 0)
            return err_sys(err, errno, "write to standard output");
        p += n;
        left -= (size_t)n;
    }
    return 0;
}

int cli_print_list(struct cli *c, const json_t *reply, const char *member,
                   const struct render_col *cols, size_t count, const char *none,
                   struct err *err)
{
    const json_t *rows = json_object_get(reply, member);
    struct strbuf out = STRBUF_INIT;
    if (c->render.format == RENDER_JSON)
        render_json(reply, &out);
    else if (c->render.format == RENDER_TABLE && json_array_size(rows) == 0)
        cli_note("%s", none);
    else
        render_rows(rows, cols, count, &c->render, &out);
    int rc = cli_print(&out, err);
    strbuf_done(&out);
    return rc;
}

int cli_print_card(struct cli *c, const json_t *obj, const struct render_col *cols,
                   size_t count, struct err *err)
{
    struct strbuf out = STRBUF_INIT;
    render_card(obj, cols, count, &c->render, &out);
    int rc = cli_print(&out, err);
    strbuf_done(&out);
    return rc;
}

void cli_note(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("neargpu: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

/* The rows with starts as one reads times here: the server words them in UTC. */
static json_t *with_local_starts(const struct cli *c, const json_t *rejected)
{
    json_t *rows = json_deep_copy(rejected), *row;
    size_t i;
    json_array_foreach(rows, i, row)
    {
        json_t *relax = json_object_get(row, "relax");
        const char *member = json_string_value(json_object_get(relax, "member"));
        const char *value = json_string_value(json_object_get(relax, "value"));
        struct strbuf text = STRBUF_INIT;
        int64_t us;
        if (member == NULL || strcmp(member, "start") != 0 || value == NULL ||
            timefmt_parse(value, &us, NULL) != 0)
            continue;
        strbuf_adds(&text, "start ");
        render_time(&text, us, c->render.zone);
        json_object_set_new(relax, "text", json_string(strbuf_str(&text)));
        strbuf_done(&text);
    }
    return rows;
}

void cli_render_rejected(const struct cli *c, const json_t *rejected,
                         struct strbuf *out)
{
    static const struct render_col cols[] = {
        {"SITE", "site", RENDER_TEXT, NULL},
        {"PROVIDER", "provider", RENDER_TEXT, NULL},
        {"GPU", "gpu_model", RENDER_TEXT, NULL},
        {"WHY NOT", "reason", RENDER_SENTENCE, NULL},
        {"WOULD FIT WITH", "relax.text", RENDER_SENTENCE, NULL},
    };
    struct render_opts o = c->render;
    size_t i, count = RENDER_COUNT_OF(cols) - 1;
    json_t *row;
    o.format = RENDER_TABLE;
    json_array_foreach(rejected, i, row) if (render_at(row, "relax.text") != NULL)
        count = RENDER_COUNT_OF(cols);
    json_t *rows = with_local_starts(c, rejected);
    render_rows(rows, cols, count, &o, out);
    json_decref(rows);
}

void cli_show_rejected(struct cli *c, const struct err *err)
{
    const json_t *rejected = json_object_get(c->problem, "rejected");
    struct strbuf out = STRBUF_INIT;
    if (err->code != ERR_NO_FIT || json_array_size(rejected) == 0)
        return;
    struct cli plain = *c;
    plain.render.colour = false; /* stderr may be a file */
    cli_render_rejected(&plain, rejected, &out);
    fputs(strbuf_str(&out), stderr);
    strbuf_done(&out);
}

int cli_confirm(struct cli *c, const char *question, struct err *err)
{
    char answer[32];
    if (c->yes)
        return 1;
    if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO))
        return err_set(err, ERR_USAGE,
                       "cannot ask for confirmation without a terminal: add --yes");
    fprintf(stderr, "%s [y/N] ", question);
    fflush(stderr);
    if (fgets(answer, sizeof(answer), stdin) == NULL) {
        fputc('\n', stderr);
        answer[0] = '\0';
    }
    answer[strcspn(answer, "\n")] = '\0';
    if (strcmp(answer, "y") == 0 || strcmp(answer, "Y") == 0 ||
        strcmp(answer, "yes") == 0)
        return 1;
    cli_note("nothing was done");
    c->status = 1; /* so that `reserve && run` stops here */
    return 0;
}

static struct termios saved_tty;
static int saved_fd = -1;

static void restore_tty(int sig)
{
    if (saved_fd >= 0)
        tcsetattr(saved_fd, TCSAFLUSH, &saved_tty);
    _exit(128 + sig);
}

/* One line from the terminal, not shown; ^C and the like give the echo back first. */
static int read_hidden(const char *prompt, char *out, size_t cap, struct err *err)
{
    int fd = open("/dev/tty", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return err_set(err, ERR_USAGE,
                       "cannot ask for the API key without a terminal: give it with "
                       "--api-key-file FILE (or - for standard input)");
    static const int ends[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    struct sigaction catch = {.sa_handler = restore_tty}, before[4];
    struct termios silent;
    size_t len = 0;
    ssize_t n = -1;
    if (tcgetattr(fd, &saved_tty) == 0) {
        saved_fd = fd;
        for (size_t i = 0; i < 4; i++)
            sigaction(ends[i], &catch, &before[i]);
        silent = saved_tty;
        silent.c_lflag &= ~(tcflag_t)ECHO;
        tcsetattr(fd, TCSAFLUSH, &silent);
        fprintf(stderr, "%s: ", prompt);
        fflush(stderr);
        while (len + 1 < cap && (n = read(fd, out + len, 1)) == 1 && out[len] != '\n')
            len++;
        tcsetattr(fd, TCSAFLUSH, &saved_tty);
        saved_fd = -1;
        for (size_t i = 0; i < 4; i++)
            sigaction(ends[i], &before[i], NULL);
        fputc('\n', stderr);
    }
    out[len] = '\0';
    close(fd);
    return n < 0 ? err_set(err, ERR_IO, "the terminal gave no API key") : 0;
}

int cli_read_secret(const char *file, const char *prompt, char **ret, struct err *err)
{
    char line[SECRET_BYTES_MAX] = "";
    char *text = NULL;
    if (file == NULL) {
        if (read_hidden(prompt, line, sizeof(line), err) < 0)
            return -1;
        text = xstrdup(line);
    } else if (strcmp(file, "-") == 0) {
        if (fgets(line, sizeof(line), stdin) == NULL)
            return err_set(err, ERR_USAGE, "standard input holds no API key");
        text = xstrdup(line);
    } else if (fsx_read_secret(file, SECRET_BYTES_MAX, &text, NULL, err) < 0) {
        return -1;
    }
    explicit_bzero(line, sizeof(line));
    size_t len = strlen(text);
    while (len > 0 && strchr(" \t\r\n", text[len - 1]) != NULL)
        text[--len] = '\0';
    *ret = text;
    return 0;
}

/* Only what a signal handler may do: one write, one exit. */
static char unsettled[640];
static size_t unsettled_len;

static void leave_unsettled(int sig)
{
    (void)sig;
    ssize_t n = write(STDERR_FILENO, unsettled, unsettled_len);
    (void)n;
    _exit(9);
}

static const int leaving[] = {SIGINT, SIGTERM, SIGHUP};

bool cli_ignores(int signo)
{
    struct sigaction act;
    return sigaction(signo, NULL, &act) == 0 && act.sa_handler == SIG_IGN;
}

void cli_unsettled(const char *text)
{
    struct sigaction act = {.sa_handler = leave_unsettled};
    int n =
        snprintf(unsettled, sizeof(unsettled), "\nneargpu: interrupted: %s\n", text);
    unsettled_len = n < 0                           ? 0
                    : (size_t)n < sizeof(unsettled) ? (size_t)n
                                                    : sizeof(unsettled) - 1;
    sigfillset(&act.sa_mask);
    for (size_t i = 0; i < sizeof(leaving) / sizeof(leaving[0]); i++)
        if (!cli_ignores(leaving[i]))
            sigaction(leaving[i], &act, NULL);
}

void cli_settled(void)
{
    struct sigaction act = {.sa_handler = SIG_DFL};
    for (size_t i = 0; i < sizeof(leaving) / sizeof(leaving[0]); i++)
        if (!cli_ignores(leaving[i]))
            sigaction(leaving[i], &act, NULL);
}

int cli_post_once(struct cli *c, const char *path, json_t *body, const char *doing,
                  json_t **ret, struct err *err)
{
    char *key = cli_key(c, err);
    if (key == NULL)
        return -1;
    char *text = xasprintf("the outcome is not known; to find out without %s, repeat "
                           "the command with --key %s",
                           doing, key);
    const struct cli_call call = {"POST", path, body, key};
    cli_unsettled(text);
    int rc = cli_call(c, &call, ret, err);
    cli_settled();
    if (rc < 0 && (err->code == ERR_UNKNOWN || err->code == ERR_TIMEOUT))
        err_set(err, ERR_UNKNOWN, "%s", text);
    free(text);
    free(key);
    return rc;
}
