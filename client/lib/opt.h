/* opt: commands and options as tables: the one source of parsing, `--help` and the man
 * pages (`PROGRAM --man` prints mdoc). Long options `--name VALUE` or `--name=VALUE`,
 * short `-o VALUE`; `--` ends options. An unknown option is refused with the nearest
 * known one. --help (-h), --version and --man are always there. Pure. */
#ifndef NEARGPU_OPT_H
#define NEARGPU_OPT_H
#include <stdbool.h>
#include <stddef.h>

#include "client/lib/err.h"

struct opt_def {
    const char *name; /* long name without dashes */
    char letter;      /* 0: none */
    const char *arg;  /* NULL: a flag; else the metavariable (upper case) */
    const char *help; /* one sentence */
    bool repeat;      /* may be given more than once */
};

struct opt_example {
    const char *command;
    const char *what;
};

struct opt_command {
    const char *name;    /* "reserve", "data add"; "": what is done when no verb is
                            given (the only command of a program without verbs) */
    const char *args;    /* positional synopsis: "NAME --endpoint URL", "" if none */
    const char *summary; /* one line */
    const char *text;    /* paragraphs, NULL: none */
    const struct opt_def *opts;
    size_t opt_count;
    int min_args, max_args; /* positional arguments; -1: no limit */
    bool rest;              /* stop option parsing at the first positional argument */
    const struct opt_example *examples;
    size_t example_count;
};

struct opt_program {
    const char *name;
    int section; /* of the manual: 1 or 8 */
    const char *summary;
    const char *text;
    const struct opt_command *commands;
    size_t command_count;
    const struct opt_def *global; /* accepted by every command */
    size_t global_count;
    /* Manual sections, NULL: none. "ITEM<tab>What it is." a line makes a list; see_also
     * is "name(1), name(8)". */
    const char *files, *exit_status, *see_also;
};

#define OPT_VALUES_MAX 64
struct opt_values {
    const struct opt_command *command; /* NULL when none matched (help wanted) */
    struct {
        const struct opt_def *def;
        const char *value; /* borrowed from argv; "" for flags */
    } given[OPT_VALUES_MAX];
    size_t given_count;
    const char **args; /* positional, borrowed from argv; heap array */
    int arg_count;
    bool help, man, version;
};

/* Finds the longest matching command name ("admin tenant create") and parses the rest.
 * ERR_USAGE with the place and what to do. */
int opt_parse(const struct opt_program *program, int argc, char **argv,
              struct opt_values *ret, struct err *err) MUST_USE;
void opt_done(struct opt_values *v);
const char *opt_get(const struct opt_values *v, const char *name); /* NULL: not given */
bool opt_has(const struct opt_values *v, const char *name);
/* nth value of a repeated option, NULL past the last. */
const char *opt_nth(const struct opt_values *v, const char *name, size_t n);

/* Texts; caller frees. command NULL: the program's overview. */
char *opt_help(const struct opt_program *program, const struct opt_command *command);
char *opt_man(const struct opt_program *program);

#endif
