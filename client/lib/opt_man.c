/* opt_man: opt_man() of opt.h: the tables as a manual page in mdoc(7), in the order of
 * sections mdoc asks for. What the tables say is text: every character that roff would
 * act upon is escaped. */
#include "client/lib/opt.h"

#include <stdlib.h>
#include <string.h>

#include "client/lib/strbuf.h"

/* The interface these pages describe is the one of this day; a build date would make
 * two builds of one source differ. */
#define MAN_DATE "November 22, 2026"

/* One line of text: backslashes and dashes as themselves, no control line by accident.
 */
static void man_escape(struct strbuf *b, const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (i == 0 && (c == '.' || c == '\''))
            strbuf_adds(b, "\\&");
        if (c == '\\')
            strbuf_adds(b, "\\e");
        else if (c == '-')
            strbuf_adds(b, "\\-");
        else
            strbuf_addc(b, c);
    }
}

/* As an argument of a macro: quoted, so that words are one and none is a macro. */
static void man_quote(struct strbuf *b, const char *text)
{
    strbuf_addc(b, '"');
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '"')
            strbuf_adds(b, "\\(dq");
        else
            man_escape(b, p, 1);
    }
    strbuf_addc(b, '"');
}

/* Sentences each on their own line, as mdoc wants them; blank lines make paragraphs. */
static void man_text(struct strbuf *b, const char *text)
{
    bool open = false; /* something of this paragraph is written */
    for (const char *p = text; *p != '\0';) {
        size_t line = strcspn(p, "\n");
        if (line == 0) {
            if (open)
                strbuf_adds(b, ".Pp\n");
            open = false;
            p++;
            continue;
        }
        size_t len = 0;
        while (len < line && !(p[len] == '.' && p[len + 1] == ' '))
            len++;
        if (len < line)
            len++; /* the full stop */
        man_escape(b, p, len);
        strbuf_addc(b, '\n');
        open = true;
        p += len;
        while (*p == ' ')
            p++;
        if (*p == '\n')
            p++;
    }
}

static void man_option(struct strbuf *b, const struct opt_def *d)
{
    strbuf_adds(b, ".It ");
    if (d->letter != 0)
        strbuf_addf(b, "Fl %c , ", d->letter);
    strbuf_adds(b, "Fl \\-");
    man_escape(b, d->name, strlen(d->name));
    if (d->arg != NULL) {
        strbuf_adds(b, " Ar ");
        man_quote(b, d->arg);
    }
    strbuf_addc(b, '\n');
    man_text(b, d->help);
}

static void man_options(struct strbuf *b, const struct opt_def *defs, size_t count)
{
    if (count == 0)
        return;
    strbuf_adds(b, ".Bl -tag -width Ds\n");
    for (size_t i = 0; i < count; i++)
        man_option(b, &defs[i]);
    strbuf_adds(b, ".El\n");
}

static void man_synopsis(struct strbuf *b, const struct opt_program *p,
                         const struct opt_command *c)
{
    strbuf_addf(b, ".Nm %s\n", p->name);
    if (c->name[0] != '\0') {
        strbuf_adds(b, ".Cm ");
        man_quote(b, c->name);
        strbuf_addc(b, '\n');
    }
    strbuf_adds(b, ".Op Ar options\n");
    if (c->args != NULL && c->args[0] != '\0') {
        strbuf_adds(b, ".Ar ");
        man_quote(b, c->args);
        strbuf_addc(b, '\n');
    }
}

static bool man_is_single(const struct opt_program *p)
{
    return p->command_count == 1 && p->commands[0].name[0] == '\0';
}

static void man_command(struct strbuf *b, const struct opt_command *c)
{
    strbuf_addf(b, ".Ss %s\n", c->name[0] != '\0' ? c->name : "without a command");
    man_text(b, c->summary);
    if (c->text != NULL) {
        strbuf_adds(b, ".Pp\n");
        man_text(b, c->text);
    }
    man_options(b, c->opts, c->opt_count);
}

/* "ITEM<tab>What it is." a line becomes a tagged list; anything else is text. */
static void man_section(struct strbuf *b, const char *title, const char *text)
{
    if (text == NULL)
        return;
    strbuf_addf(b, ".Sh %s\n", title);
    if (strchr(text, '\t') == NULL) {
        man_text(b, text);
        return;
    }
    strbuf_adds(b, ".Bl -tag -width Ds\n");
    for (const char *p = text; *p != '\0';) {
        size_t line = strcspn(p, "\n"), item = strcspn(p, "\t\n");
        if (line > 0) {
            strbuf_adds(b, ".It ");
            strbuf_addc(b, '"');
            man_escape(b, p, item);
            strbuf_adds(b, "\"\n");
            if (item < line) {
                man_escape(b, p + item + 1, line - item - 1);
                strbuf_addc(b, '\n');
            }
        }
        p += line;
        p += *p == '\n' ? 1 : 0;
    }
    strbuf_adds(b, ".El\n");
}

static void man_examples(struct strbuf *b, const struct opt_program *p)
{
    bool any = false;
    for (size_t i = 0; i < p->command_count; i++)
        for (size_t e = 0; e < p->commands[i].example_count; e++) {
            if (!any)
                strbuf_adds(b, ".Sh EXAMPLES\n");
            else
                strbuf_adds(b, ".Pp\n");
            any = true;
            man_text(b, p->commands[i].examples[e].what);
            const char *command = p->commands[i].examples[e].command;
            strbuf_adds(b, ".Dl ");
            man_escape(b, command, strlen(command));
            strbuf_addc(b, '\n');
        }
}

/* "neargpud(8), neargpu(1)" becomes one .Xr each. */
static void man_see_also(struct strbuf *b, const char *text)
{
    if (text == NULL)
        return;
    strbuf_adds(b, ".Sh SEE ALSO\n");
    for (const char *p = text; *p != '\0';) {
        size_t name = strcspn(p, "("), item = strcspn(p, ",");
        if (name < item && p[name + 1] != '\0' && p[name + 2] == ')') {
            strbuf_addf(b, ".Xr %.*s %c", (int)name, p, p[name + 1]);
            strbuf_adds(b, p[item] == ',' ? " ,\n" : "\n");
        } else {
            man_escape(b, p, item);
            strbuf_adds(b, p[item] == ',' ? ",\n" : "\n");
        }
        p += item;
        p += strspn(p, ", \n");
    }
}

static void man_title(struct strbuf *b, const char *name, int section)
{
    strbuf_adds(b, ".Dd " MAN_DATE "\n.Dt ");
    for (const char *p = name; *p != '\0'; p++)
        strbuf_addc(b, *p >= 'a' && *p <= 'z' ? (char)(*p - 'a' + 'A') : *p);
    strbuf_addf(b, " %d\n.Os\n", section);
}

static void man_name(struct strbuf *b, const struct opt_program *p)
{
    size_t len = strlen(p->summary);
    while (len > 0 && p->summary[len - 1] == '.')
        len--; /* mdoc's one-line description has no full stop */
    strbuf_addf(b, ".Sh NAME\n.Nm %s\n.Nd ", p->name);
    man_escape(b, p->summary, len);
    strbuf_addc(b, '\n');
}

char *opt_man(const struct opt_program *p)
{
    struct strbuf b = STRBUF_INIT;
    man_title(&b, p->name, p->section);
    man_name(&b, p);
    strbuf_adds(&b, ".Sh SYNOPSIS\n");
    for (size_t i = 0; i < p->command_count; i++)
        man_synopsis(&b, p, &p->commands[i]);
    strbuf_adds(&b, ".Sh DESCRIPTION\n");
    man_text(&b, p->text != NULL ? p->text : p->summary);
    if (man_is_single(p)) {
        if (p->commands[0].text != NULL) {
            strbuf_adds(&b, ".Pp\n");
            man_text(&b, p->commands[0].text);
        }
        man_options(&b, p->commands[0].opts, p->commands[0].opt_count);
    }
    if (p->global_count > 0) {
        strbuf_adds(&b, ".Ss Options of every command\n");
        man_options(&b, p->global, p->global_count);
    }
    if (!man_is_single(p)) {
        strbuf_adds(&b, ".Sh COMMANDS\n");
        for (size_t i = 0; i < p->command_count; i++)
            man_command(&b, &p->commands[i]);
    }
    man_section(&b, "FILES", p->files);
    man_section(&b, "EXIT STATUS", p->exit_status);
    man_examples(&b, p);
    man_see_also(&b, p->see_also);
    return strbuf_steal(&b);
}
