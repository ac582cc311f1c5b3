/* opt: see opt.h. This half parses; opt_text.c writes help and manual from the same
 * tables. Options may stand before and after positional arguments, and those of the
 * whole program also before the command. */
#include "client/lib/opt.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "client/lib/strbuf.h"
#include "client/lib/xalloc.h"

/* Every program has these; a program's own table comes first. */
static const struct opt_def opt_builtin[] = {
    {"help", 'h', NULL, "Print this help and exit.", false},
    {"version", 0, NULL, "Print the version and exit.", false},
    {"man", 0, NULL, "Print the manual page (mdoc) and exit.", false},
};
#define OPT_BUILTIN_COUNT (sizeof(opt_builtin) / sizeof(opt_builtin[0]))

struct opt_run {
    const struct opt_program *program;
    int argc;
    char **argv;
    int at; /* next argument to look at */
    struct opt_values *v;
};

/* The three tables an option may stand in. */
struct opt_table {
    const struct opt_def *defs;
    size_t count;
};

static void opt_tables(const struct opt_run *r, struct opt_table out[3])
{
    const struct opt_command *c = r->v->command;
    out[0] =
        (struct opt_table){c == NULL ? NULL : c->opts, c == NULL ? 0 : c->opt_count};
    out[1] = (struct opt_table){r->program->global, r->program->global_count};
    out[2] = (struct opt_table){opt_builtin, OPT_BUILTIN_COUNT};
}

static const struct opt_def *opt_find(const struct opt_run *r, const char *name,
                                      size_t len, char letter)
{
    struct opt_table tables[3];
    opt_tables(r, tables);
    for (size_t t = 0; t < 3; t++)
        for (size_t i = 0; i < tables[t].count; i++) {
            const struct opt_def *d = &tables[t].defs[i];
            if (name != NULL ? strncmp(d->name, name, len) == 0 && d->name[len] == '\0'
                             : d->letter != 0 && d->letter == letter)
                return d;
        }
    return NULL;
}

/* Levenshtein distance; long texts are never near each other. */
static size_t opt_distance(const char *a, size_t a_len, const char *b)
{
    enum { LONGEST = 40 };
    size_t b_len = strlen(b), row[LONGEST + 1];
    if (a_len > LONGEST || b_len > LONGEST)
        return LONGEST;
    for (size_t j = 0; j <= b_len; j++)
        row[j] = j;
    for (size_t i = 1; i <= a_len; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1] ? 1 : 0);
            diagonal = row[j];
            size_t best = row[j] < row[j - 1] ? row[j] + 1 : row[j - 1] + 1;
            row[j] = best < change ? best : change;
        }
    }
    return row[b_len];
}

/* Near enough to be a slip of the finger: a third of the letters, at least one. */
static bool opt_is_near(size_t distance, size_t len)
{
    return distance <= (len < 6 ? 1 : len / 3);
}

static int opt_unknown(const struct opt_run *r, const char *name, size_t len,
                       struct err *err)
{
    struct opt_table tables[3];
    const char *best = NULL;
    size_t best_distance = SIZE_MAX;
    opt_tables(r, tables);
    for (size_t t = 0; t < 3; t++)
        for (size_t i = 0; i < tables[t].count; i++) {
            size_t d = opt_distance(name, len, tables[t].defs[i].name);
            if (d < best_distance) {
                best_distance = d;
                best = tables[t].defs[i].name;
            }
        }
    if (best != NULL && opt_is_near(best_distance, len))
        return err_set(err, ERR_USAGE, "unknown option --%.*s: did you mean --%s?",
                       (int)(len < 60 ? len : 60), name, best);
    return err_set(err, ERR_USAGE, "unknown option --%.*s: see --help",
                   (int)(len < 60 ? len : 60), name);
}

static int opt_record(struct opt_run *r, const struct opt_def *def, const char *value,
                      struct err *err)
{
    struct opt_values *v = r->v;
    if (def == &opt_builtin[0])
        v->help = true;
    else if (def == &opt_builtin[1])
        v->version = true;
    else if (def == &opt_builtin[2])
        v->man = true;
    else if (!def->repeat && opt_has(v, def->name))
        return err_set(err, ERR_USAGE, "--%s is given twice", def->name);
    else if (v->given_count == OPT_VALUES_MAX)
        return err_set(err, ERR_USAGE, "more than %d options", OPT_VALUES_MAX);
    else {
        v->given[v->given_count].def = def;
        v->given[v->given_count++].value = value;
    }
    return 0;
}

/* The value that stands in the next argument. */
static int opt_next_value(struct opt_run *r, const struct opt_def *def,
                          const char **ret, struct err *err)
{
    if (r->at >= r->argc)
        return err_set(err, ERR_USAGE, "--%s needs a value: --%s %s", def->name,
                       def->name, def->arg);
    *ret = r->argv[r->at++];
    return 0;
}

static int opt_long(struct opt_run *r, const char *text, struct err *err)
{
    size_t len = strcspn(text, "=");
    const struct opt_def *def = opt_find(r, text, len, 0);
    if (def == NULL)
        return opt_unknown(r, text, len, err);
    const char *value = "";
    if (def->arg == NULL && text[len] == '=')
        return err_set(err, ERR_USAGE, "--%s takes no value", def->name);
    if (def->arg != NULL && text[len] == '=')
        value = text + len + 1;
    else if (def->arg != NULL && opt_next_value(r, def, &value, err) != 0)
        return -1;
    return opt_record(r, def, value, err);
}

/* "-o VALUE", "-oVALUE", or flags together as in "-ab". */
static int opt_short(struct opt_run *r, const char *text, struct err *err)
{
    for (const char *p = text; *p != '\0'; p++) {
        const struct opt_def *def = opt_find(r, NULL, 0, *p);
        if (def == NULL)
            return err_set(err, ERR_USAGE, "unknown option -%c: see --help", *p);
        const char *value = "";
        if (def->arg == NULL) {
            if (opt_record(r, def, value, err) != 0)
                return -1;
            continue;
        }
        if (p[1] != '\0')
            value = p + 1;
        else if (opt_next_value(r, def, &value, err) != 0)
            return -1;
        return opt_record(r, def, value, err);
    }
    return 0;
}

static bool opt_is_option(const char *arg)
{
    return arg[0] == '-' && arg[1] != '\0';
}

static int opt_one(struct opt_run *r, struct err *err)
{
    const char *arg = r->argv[r->at++];
    return arg[1] == '-' ? opt_long(r, arg + 2, err) : opt_short(r, arg + 1, err);
}

/* How many arguments from r->at spell the command's name; 0 when they do not. */
static int opt_command_words(const struct opt_run *r, const char *name)
{
    int words = 0;
    for (const char *p = name; *p != '\0'; words++) {
        size_t len = strcspn(p, " ");
        if (r->at + words >= r->argc)
            return 0;
        const char *arg = r->argv[r->at + words];
        if (strncmp(arg, p, len) != 0 || arg[len] != '\0')
            return 0;
        p += len;
        p += strspn(p, " ");
    }
    return words;
}

/* The commands that start with this word, when it names a group ("data"). */
static int opt_group(const struct opt_run *r, const char *word, struct err *err)
{
    struct strbuf b = STRBUF_INIT;
    size_t len = strlen(word);
    for (size_t i = 0; i < r->program->command_count; i++) {
        const char *name = r->program->commands[i].name;
        if (strncmp(name, word, len) == 0 && name[len] == ' ')
            strbuf_addf(&b, "%s%s", b.len == 0 ? "" : ", ", name + len + 1);
    }
    if (b.len == 0)
        return 0;
    err_set(err, ERR_USAGE, "'%s' needs one of: %s", word, strbuf_str(&b));
    strbuf_done(&b);
    return -1;
}

static int opt_unknown_command(const struct opt_run *r, struct err *err)
{
    const char *word = r->argv[r->at];
    size_t len = strlen(word), best_distance = SIZE_MAX;
    const char *best = NULL;
    if (opt_group(r, word, err) != 0)
        return -1;
    for (size_t i = 0; i < r->program->command_count; i++) {
        const char *name = r->program->commands[i].name;
        /* Compared with the command's first word: the slip is in what was typed. */
        char first[41];
        size_t n = strcspn(name, " ");
        if (n >= sizeof(first))
            continue;
        memcpy(first, name, n);
        first[n] = '\0';
        size_t d = opt_distance(word, len, first);
        if (d < best_distance) {
            best_distance = d;
            best = name;
        }
    }
    if (best != NULL && opt_is_near(best_distance, len))
        return err_set(err, ERR_USAGE, "unknown command '%.60s': did you mean '%s'?",
                       word, best);
    return err_set(err, ERR_USAGE, "unknown command '%.60s': see %s --help", word,
                   r->program->name);
}

static bool opt_informs(const struct opt_values *v)
{
    return v->help || v->man || v->version;
}

/* True when --help stands somewhere in the rest: then no command is needed. */
static bool opt_help_follows(const struct opt_run *r)
{
    for (int i = r->at; i < r->argc && strcmp(r->argv[i], "--") != 0; i++)
        if (strcmp(r->argv[i], "--help") == 0 || strcmp(r->argv[i], "-h") == 0)
            return true;
    return false;
}

static int opt_choose(struct opt_run *r, struct err *err)
{
    const struct opt_program *p = r->program;
    if (p->command_count == 1 && p->commands[0].name[0] == '\0') {
        r->v->command = &p->commands[0];
        return 0;
    }
    /* A command named "" among others is what the program does when no verb is given.
     */
    const struct opt_command *bare = NULL;
    for (size_t i = 0; i < p->command_count; i++)
        if (p->commands[i].name[0] == '\0')
            bare = &p->commands[i];
    r->v->command = bare;
    while (r->at < r->argc && opt_is_option(r->argv[r->at]))
        if (opt_one(r, err) != 0)
            return -1;
    int best = 0;
    for (size_t i = 0; i < p->command_count; i++) {
        int words = opt_command_words(r, p->commands[i].name);
        if (words > best) {
            best = words;
            r->v->command = &p->commands[i];
        }
    }
    r->at += best;
    if (best == 0 && opt_informs(r->v))
        r->v->command = NULL; /* about the whole program */
    if (best > 0 || opt_informs(r->v) || (bare != NULL && r->at >= r->argc))
        return 0;
    if (opt_help_follows(r)) {
        r->v->help = true;
        return 0;
    }
    if (r->at >= r->argc)
        return err_set(err, ERR_USAGE, "which command? see %s --help", p->name);
    return opt_unknown_command(r, err);
}

static int opt_count_args(const struct opt_run *r, struct err *err)
{
    const struct opt_command *c = r->v->command;
    const char *space = c->name[0] == '\0' ? "" : " ";
    int n = r->v->arg_count;
    if (n < c->min_args)
        return err_set(err, ERR_USAGE, "an argument is missing: %s%s%s %s",
                       r->program->name, space, c->name, c->args);
    if (c->max_args >= 0 && n > c->max_args)
        return err_set(err, ERR_USAGE, "unexpected argument '%.60s': %s%s%s%s%s",
                       r->v->args[c->max_args], r->program->name, space, c->name,
                       *c->args != '\0' ? " " : "", c->args);
    return 0;
}

static int opt_arguments(struct opt_run *r, struct err *err)
{
    bool options = true;
    while (r->at < r->argc) {
        const char *arg = r->argv[r->at];
        if (options && strcmp(arg, "--") == 0) {
            options = false;
            r->at++;
        } else if (options && opt_is_option(arg)) {
            if (opt_one(r, err) != 0)
                return -1;
        } else {
            r->v->args[r->v->arg_count++] = arg;
            r->at++;
            if (r->v->command->rest)
                options = false;
        }
    }
    return opt_informs(r->v) ? 0 : opt_count_args(r, err);
}

int opt_parse(const struct opt_program *program, int argc, char **argv,
              struct opt_values *ret, struct err *err)
{
    struct opt_values v = {.args = xcalloc((size_t)argc + 1, sizeof(*v.args))};
    struct opt_run r = {program, argc, argv, 1, &v};
    int rc = opt_choose(&r, err);
    if (rc == 0 && v.command != NULL)
        rc = opt_arguments(&r, err);
    if (rc != 0) {
        opt_done(&v);
        return rc;
    }
    *ret = v;
    return 0;
}

void opt_done(struct opt_values *v)
{
    free(v->args);
    v->args = NULL;
}

const char *opt_nth(const struct opt_values *v, const char *name, size_t n)
{
    for (size_t i = 0; i < v->given_count; i++)
        if (strcmp(v->given[i].def->name, name) == 0 && n-- == 0)
            return v->given[i].value;
    return NULL;
}

const char *opt_get(const struct opt_values *v, const char *name)
{
    return opt_nth(v, name, 0);
}

bool opt_has(const struct opt_values *v, const char *name)
{
    return opt_get(v, name) != NULL;
}
