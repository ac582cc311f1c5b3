/* explain: what a reservation would get now, why not elsewhere, and the command lines
 * that would fit where it does not. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "client/cli/cli.h"
#include "client/cli/plan_view.h"
#include "client/cli/query.h"
#include "client/lib/xalloc.h"

#define COMMANDS_MAX 3 /* as many ways out as one reads */

/* A word as a shell takes it. */
static void add_word(struct strbuf *out, const char *word)
{
    bool plain = *word != '\0';
    for (const char *p = word; *p != '\0'; p++)
        plain = plain && (isalnum((unsigned char)*p) || strchr("-_./:,=+@%", *p));
    if (plain) {
        strbuf_adds(out, word);
        return;
    }
    strbuf_addc(out, '\'');
    for (const char *p = word; *p != '\0'; p++)
        if (*p == '\'')
            strbuf_adds(out, "'\\''");
        else
            strbuf_addc(out, *p);
    strbuf_addc(out, '\'');
}

/* Whether `option` says what the changed option says too. */
static bool is_replaced(const char *option, const char *changed)
{
    static const char *const starts[] = {"start", "between"};
    if (strcmp(option, changed) == 0)
        return true;
    for (size_t i = 0; i < 2; i++)
        if (strcmp(option, starts[i]) == 0 && strcmp(changed, starts[1 - i]) == 0)
            return true;
    return false;
}

static bool is_flag(const struct opt_command *command, const char *option)
{
    for (size_t i = 0; i < command->opt_count; i++)
        if (strcmp(command->opts[i].name, option) == 0)
            return command->opts[i].arg == NULL;
    return false;
}

static bool is_of_request(const struct opt_command *command, const struct opt_def *def)
{
    for (size_t i = 0; i < command->opt_count; i++)
        if (&command->opts[i] == def)
            return strcmp(def->name, "key") != 0 && strcmp(def->name, "quote") != 0;
    return strcmp(def->name, "account") == 0 || strcmp(def->name, "server") == 0;
}

/* The changed option with its new value; a value of null or false drops it. */
static void add_changed(struct strbuf *out, const struct cli *c, const char *member,
                        const char *option, const json_t *value)
{
    struct strbuf text = STRBUF_INIT;
    if (value == NULL || json_is_null(value) || json_is_false(value) ||
        (json_is_array(value) && json_array_size(value) == 0))
        return;
    strbuf_addf(out, " --%s", option);
    if (is_flag(c->opts->command, option))
        return;
    if (strcmp(member, "latest") == 0)
        strbuf_adds(&text, "now..");
    query_value(value, &text);
    if (strcmp(member, "min_memory_mib") == 0)
        strbuf_adds(&text, "MiB");
    strbuf_addc(out, ' ');
    add_word(out, strbuf_str(&text));
    strbuf_done(&text);
}

char *cli_relaxed_command(const struct cli *c, const json_t *relax)
{
    const char *member = json_string_value(json_object_get(relax, "member"));
    struct strbuf line = STRBUF_INIT;
    char option[48];
    if (member == NULL || strlen(member) >= sizeof(option))
        return NULL;
    query_option_name(member, option, sizeof(option));
    strbuf_adds(&line, "neargpu reserve");
    for (size_t i = 0; i < c->opts->given_count; i++) {
        const struct opt_def *def = c->opts->given[i].def;
        if (!is_of_request(c->opts->command, def) || is_replaced(def->name, option))
            continue;
        strbuf_addf(&line, " --%s", def->name);
        if (def->arg != NULL) {
            strbuf_addc(&line, ' ');
            add_word(&line, c->opts->given[i].value);
        }
    }
    add_changed(&line, c, member, option, json_object_get(relax, "value"));
    return strbuf_steal(&line);
}

/* Different command lines, in the order of the places. */
static void add_commands(const struct cli *c, const json_t *rejected,
                         struct strbuf *out)
{
    char *seen[COMMANDS_MAX] = {NULL};
    size_t i, count = 0;
    json_t *row;
    json_array_foreach(rejected, i, row)
    {
        char *line = cli_relaxed_command(c, json_object_get(row, "relax"));
        bool again = line == NULL;
        for (size_t k = 0; k < count && !again; k++)
            again = strcmp(seen[k], line) == 0;
        if (again || count == COMMANDS_MAX) {
            free(line);
            continue;
        }
        if (count == 0)
            strbuf_adds(out, "\nWould fit\n");
        strbuf_adds(out, "  ");
        render_clean(out, line);
        strbuf_addc(out, '\n');
        seen[count++] = line;
    }
    for (size_t k = 0; k < count; k++)
        free(seen[k]);
}

static void render_table(const struct cli *c, const json_t *reply, struct strbuf *out)
{
    static const struct render_col price[] = {
        {"Price", "price.total_micro", RENDER_MICRO, "price.currency"},
        {"Effective", "price.effective_micro", RENDER_ABOUT, "price.currency"},
    };
    const json_t *chosen = json_object_get(reply, "chosen");
    const json_t *rejected = json_object_get(reply, "rejected");
    const char *advice = json_string_value(json_object_get(reply, "advice"));
    if (json_is_object(chosen)) {
        strbuf_adds(out, "reserve would take\n");
        plan_view(chosen, false, &c->render, out);
        render_card(chosen, price, RENDER_COUNT_OF(price), &c->render, out);
    }
    if (advice != NULL && *advice != '\0') {
        strbuf_adds(out, "* ");
        render_clean(out, advice);
        strbuf_addc(out, '\n');
    }
    if (json_array_size(rejected) == 0)
        return;
    strbuf_adds(out, out->len > 0 ? "\nNot fitting\n" : "Not fitting\n");
    cli_render_rejected(c, rejected, out);
    if (!json_is_object(chosen))
        add_commands(c, rejected, out);
}

int cmd_explain(struct cli *c, struct err *err)
{
    static const struct render_col cols[] = {
        {"SITE", "site", RENDER_TEXT, NULL},
        {"PROVIDER", "provider", RENDER_TEXT, NULL},
        {"GPU", "gpu_model", RENDER_TEXT, NULL},
        {"RULE", "why", RENDER_TEXT, NULL},
        {"WHY NOT", "reason", RENDER_SENTENCE, NULL},
        {"MEMBER", "relax.member", RENDER_TEXT, NULL},
        {"VALUE", "relax.value", RENDER_TEXT, NULL},
        {"WOULD FIT WITH", "relax.text", RENDER_TEXT, NULL},
    };
    json_t *reply = NULL;
    struct strbuf out = STRBUF_INIT;
    if (cli_request_get(c, "/v1/explain", &reply, err) < 0)
        return -1;
    const json_t *rejected = json_object_get(reply, "rejected");
    bool fits = json_is_object(json_object_get(reply, "chosen"));
    if (c->render.format == RENDER_JSON)
        render_json(reply, &out);
    else if (c->render.format == RENDER_CSV)
        render_rows(rejected, cols, RENDER_COUNT_OF(cols), &c->render, &out);
    else
        render_table(c, reply, &out);
    int rc = cli_print(&out, err);
    if (rc == 0 && !fits) {
        cli_note("nothing fits%s", json_array_size(rejected) > 0
                                       ? "; the reasons are above"
                                       : ": no provider offers GPUs now");
        c->status = err_exit_status(ERR_NO_FIT);
    }
    strbuf_done(&out);
    json_decref(reply);
    return rc;
}
