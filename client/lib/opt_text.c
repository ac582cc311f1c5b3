/* opt_text: opt_help() of opt.h: the tables as text for a terminal, 80 columns. */
#include "client/lib/opt.h"

#include <stdlib.h>
#include <string.h>

#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"

#define HELP_WIDTH  80
#define HELP_COLUMN 26 /* where an option's sentence starts */

/* Adds words, breaking lines before HELP_WIDTH; `column` is where the cursor stands. A
 * newline in the text starts a new line. */
static void help_wrap(struct strbuf *b, const char *text, size_t indent, size_t column)
{
    bool first = true;
    for (const char *p = text; *p != '\0';) {
        size_t len = strcspn(p, " \n");
        if (!first && column + 1 + len > HELP_WIDTH) {
            strbuf_addf(b, "\n%*s", (int)indent, "");
            column = indent;
        } else if (!first && len > 0) {
            strbuf_addc(b, ' ');
            column++;
        }
        strbuf_add(b, p, len);
        column += len;
        first = false;
        p += len;
        if (*p == '\n') {
            strbuf_addf(b, "\n%*s", (int)indent, "");
            column = indent;
            first = true;
        }
        if (*p != '\0')
            p++;
    }
    strbuf_addc(b, '\n');
}

static void help_option(struct strbuf *b, const struct opt_def *d)
{
    size_t from = b->len;
    if (d->letter != 0)
        strbuf_addf(b, "  -%c, --%s", d->letter, d->name);
    else
        strbuf_addf(b, "      --%s", d->name);
    if (d->arg != NULL)
        strbuf_addf(b, " %s", d->arg);
    size_t width = b->len - from;
    if (width + 2 > HELP_COLUMN) {
        strbuf_addc(b, '\n');
        width = 0;
    }
    strbuf_addf(b, "%*s", (int)(HELP_COLUMN - width), "");
    help_wrap(b, d->help, HELP_COLUMN, HELP_COLUMN);
}

static void help_options(struct strbuf *b, const char *title,
                         const struct opt_def *defs, size_t count)
{
    if (count == 0)
        return;
    strbuf_addf(b, "\n%s:\n", title);
    for (size_t i = 0; i < count; i++)
        help_option(b, &defs[i]);
}

static void help_builtin(struct strbuf *b)
{
    strbuf_adds(b,
                "\nEvery command takes --help; --version and --man print the version "
                "and the\nmanual page.\n");
}

static void help_usage(struct strbuf *b, const struct opt_program *p,
                       const struct opt_command *c)
{
    strbuf_addf(b, "usage: %s%s%s", p->name, c->name[0] == '\0' ? "" : " ", c->name);
    if (c->opt_count + p->global_count > 0)
        strbuf_adds(b, " [options]");
    if (c->args != NULL && c->args[0] != '\0')
        strbuf_addf(b, " %s", c->args);
    strbuf_adds(b, "\n\n");
}

static void help_examples(struct strbuf *b, const struct opt_command *c)
{
    if (c->example_count == 0)
        return;
    strbuf_adds(b, "\nExamples:\n");
    for (size_t i = 0; i < c->example_count; i++) {
        strbuf_adds(b, i == 0 ? "  " : "\n  ");
        help_wrap(b, c->examples[i].what, 2, 2);
        strbuf_addf(b, "    %s\n", c->examples[i].command);
    }
}

static void help_command(struct strbuf *b, const struct opt_program *p,
                         const struct opt_command *c)
{
    help_usage(b, p, c);
    help_wrap(b, c->summary, 0, 0);
    const char *text = c->text;
    if (text == NULL && c->name[0] == '\0')
        text = p->text;
    if (text != NULL) {
        strbuf_addc(b, '\n');
        help_wrap(b, text, 0, 0);
    }
    help_options(b, "Options", c->opts, c->opt_count);
    help_options(b, "Options of every command", p->global, p->global_count);
    help_examples(b, c);
    help_builtin(b);
}

static void help_overview(struct strbuf *b, const struct opt_program *p)
{
    strbuf_addf(b, "usage: %s COMMAND [options]\n\n", p->name);
    help_wrap(b, p->summary, 0, 0);
    if (p->text != NULL) {
        strbuf_addc(b, '\n');
        help_wrap(b, p->text, 0, 0);
    }
    strbuf_adds(b, "\nCommands:\n");
    for (size_t i = 0; i < p->command_count; i++) {
        const struct opt_command *c = &p->commands[i];
        const char *name = c->name[0] != '\0' ? c->name : "(none)";
        size_t width = strlen(name) + 2;
        strbuf_addf(b, "  %s", name);
        if (width + 2 > HELP_COLUMN) {
            strbuf_addc(b, '\n');
            width = 0;
        }
        strbuf_addf(b, "%*s", (int)(HELP_COLUMN - width), "");
        help_wrap(b, c->summary, HELP_COLUMN, HELP_COLUMN);
    }
    for (size_t i = 0; i < p->command_count; i++)
        if (p->commands[i].name[0] == '\0')
            help_options(b, "Options without a command", p->commands[i].opts,
                         p->commands[i].opt_count);
    help_options(b, "Options of every command", p->global, p->global_count);
    help_builtin(b);
}

char *opt_help(const struct opt_program *program, const struct opt_command *command)
{
    struct strbuf b = STRBUF_INIT;
    if (command == NULL && program->command_count == 1 &&
        program->commands[0].name[0] == '\0')
        command = &program->commands[0];
    if (command != NULL)
        help_command(&b, program, command);
    else
        help_overview(&b, program);
    return strbuf_steal(&b);
}
