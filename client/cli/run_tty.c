/* run_tty: the user's terminal as that of a job (run --tty): its size and kind go along
 * with the launch, its keys go through as they are typed, ^C too. */
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "client/cli/run.h"

#define TERM_MAX   64
#define WINDOW_MAX 4096

static bool window(int *rows, int *cols)
{
    struct winsize w;
    if (ioctl(STDIN_FILENO, TIOCGWINSZ, &w) != 0 || w.ws_row == 0 || w.ws_col == 0 ||
        w.ws_row > WINDOW_MAX || w.ws_col > WINDOW_MAX)
        return false;
    *rows = w.ws_row;
    *cols = w.ws_col;
    return true;
}

int run_tty_ask(json_t *body, struct err *err)
{
    const char *term = getenv("TERM");
    int rows = 24, cols = 80;
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
        return err_set(err, ERR_USAGE,
                       "--tty: standard input and output are no terminal");
    (void)window(&rows, &cols);
    if (term == NULL || strlen(term) >= TERM_MAX)
        term = "vt100";
    json_object_set_new(
        body, "pty",
        json_pack("{s:s, s:i, s:i}", "term", term, "rows", rows, "cols", cols));
    return 0;
}

bool run_tty_begin(struct termios *ret_before)
{
    struct termios raw;
    if (tcgetattr(STDIN_FILENO, ret_before) != 0)
        return false;
    raw = *ret_before;
    cfmakeraw(&raw);
    return tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
}

void run_tty_end(const struct termios *before)
{
    (void)tcsetattr(STDIN_FILENO, TCSADRAIN, before);
}

void run_tty_size(struct run *r)
{
    int rows, cols;
    if (!window(&rows, &cols))
        return;
    json_t *size = json_pack("{s:i, s:i}", "rows", rows, "cols", cols);
    char *text = json_dumps(size, JSON_COMPACT);
    run_link_send(&r->link, 'w', text, strlen(text));
    free(text);
    json_decref(size);
}
