/* test_opt: parsing by table, refusals with what to do, help and manual as text. */
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client/lib/opt.h"
#include "client/lib/xalloc.h"
#include "tests/unit/unit.h"

static const struct opt_def global[] = {
    {"output", 'o', "FORMAT", "Output as table, json or csv.", false},
    {"yes", 0, NULL, "Do not ask.", false},
};
static const struct opt_def reserve_opts[] = {
    {"gpus", 'g', "N", "GPUs on the node.", false},
    {"near", 0, "NAME", "Data set to be near; may be repeated.", true},
    {"wait", 'w', NULL, "Wait until it fits.", false},
    {"quiet", 'q', NULL, "Say nothing.", false},
};
static const struct opt_example reserve_examples[] = {
    {"neargpu reserve --gpus 8 --near genome-tokyo",
     "Reserve eight GPUs near a data set"},
};
static const struct opt_command commands[] = {
    {"reserve", "[NAME]", "Reserve GPUs.",
     "First paragraph.\n\n.Second starts with a dot \\ and a backslash.", reserve_opts,
     4, 0, 1, false, reserve_examples, 1},
    {"data add", "NAME", "Add a data set.", NULL, NULL, 0, 1, 1, false, NULL, 0},
    {"data list", "", "List data sets.", NULL, NULL, 0, 0, 0, false, NULL, 0},
    {"data", "", "About data sets.", NULL, NULL, 0, 0, 0, false, NULL, 0},
    {"run", "ID COMMAND...", "Run a command.", NULL, reserve_opts, 4, 2, -1, true, NULL,
     0},
    {"admin tenant create", "NAME", "Create a tenant.", NULL, NULL, 0, 1, 1, false,
     NULL, 0},
};
static const struct opt_program program = {
    .name = "neargpu",
    .section = 1,
    .summary = "reserve GPUs near your data.",
    .text = "What it is. And more.",
    .commands = commands,
    .command_count = 6,
    .global = global,
    .global_count = 2,
    .files = "/etc/neargpu/x.conf\tThe configuration.\n~/.config/neargpu\tProfiles.",
    .exit_status = "0\tDone.\n1\tFailed.",
    .see_also = "neargpu-agent(8), neargpud(8)",
};

static const struct opt_command single[] = {
    {"", "", "", NULL, reserve_opts, 4, 0, 0, false, NULL, 0}};
static const struct opt_program daemon_program = {
    .name = "neargpud",
    .section = 8,
    .summary = "the market's server",
    .commands = single,
    .command_count = 1,
};

/* Splits a line at spaces into argv; static, one at a time. */
static int split(const char *line, char **argv)
{
    static char copy[500];
    int argc = 0;
    snprintf(copy, sizeof(copy), "%s", line);
    for (char *p = copy; *p != '\0';) {
        argv[argc++] = p;
        p += strcspn(p, " ");
        if (*p != '\0')
            *p++ = '\0';
    }
    argv[argc] = NULL;
    return argc;
}

static int parse_as(const struct opt_program *p, const char *line, struct opt_values *v,
                    struct err *err)
{
    char *argv[100];
    int argc = split(line, argv);
    *err = (struct err){0};
    return opt_parse(p, argc, argv, v, err);
}

static int parse(const char *line, struct opt_values *v, struct err *err)
{
    return parse_as(&program, line, v, err);
}

START_TEST(test_commands)
{
    static const struct {
        const char *line, *command;
        int args;
    } table[] = {
        {"neargpu reserve", "reserve", 0},
        {"neargpu data", "data", 0},
        {"neargpu data list", "data list", 0},
        {"neargpu data add x", "data add", 1},
        {"neargpu --yes -o json data add x", "data add", 1},
        {"neargpu -ojson data add x --yes", "data add", 1},
        {"neargpu admin tenant create --output=csv t", "admin tenant create", 1},
        {"neargpu data add -- --odd", "data add", 1},
        {"neargpu data add -", "data add", 1},
        {"neargpu run r1 ls --color -g 3", "run", 4 + 1},
        {"neargpu run -g 3 r1 ls", "run", 2},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct opt_values v;
        struct err err;
        ck_assert_msg(parse(table[i].line, &v, &err) == 0, "%s: %s", table[i].line,
                      err.text);
        ck_assert_str_eq(v.command->name, table[i].command);
        ck_assert_msg(v.arg_count == table[i].args, "%s: %d", table[i].line,
                      v.arg_count);
        ck_assert_ptr_null(v.args[v.arg_count]);
        opt_done(&v);
    }
}
END_TEST

START_TEST(test_options)
{
    struct opt_values v;
    struct err err;
    ck_assert_int_eq(
        parse("neargpu reserve --gpus=8 --near a -wq x --near=b=c -o csv", &v, &err),
        0);
    ck_assert_str_eq(opt_get(&v, "gpus"), "8");
    ck_assert_str_eq(opt_nth(&v, "near", 0), "a");
    ck_assert_str_eq(opt_nth(&v, "near", 1), "b=c");
    ck_assert_ptr_null(opt_nth(&v, "near", 2));
    ck_assert(opt_has(&v, "wait") && opt_has(&v, "quiet") && !opt_has(&v, "yes"));
    ck_assert_str_eq(opt_get(&v, "output"), "csv");
    ck_assert_ptr_null(opt_get(&v, "yes"));
    ck_assert_str_eq(v.args[0], "x");
    opt_done(&v);
    ck_assert_int_eq(parse("neargpu reserve -wg8", &v, &err), 0);
    ck_assert_str_eq(opt_get(&v, "gpus"), "8");
    ck_assert(opt_has(&v, "wait"));
    opt_done(&v);
    ck_assert_int_eq(parse("neargpu reserve --gpus -5", &v, &err), 0);
    ck_assert_str_eq(opt_get(&v, "gpus"), "-5");
    opt_done(&v);
    ck_assert_int_eq(parse_as(&daemon_program, "neargpud -g 4", &v, &err), 0);
    ck_assert_ptr_eq(v.command, &single[0]);
    ck_assert_str_eq(opt_get(&v, "gpus"), "4");
    opt_done(&v);
}
END_TEST

START_TEST(test_informs)
{
    static const struct {
        const char *line, *command;
        bool help, man, version;
    } table[] = {
        {"neargpu --help", NULL, true, false, false},
        {"neargpu -h", NULL, true, false, false},
        {"neargpu --man", NULL, false, true, false},
        {"neargpu --version", NULL, false, false, true},
        {"neargpu data add --help", "data add", true, false, false},
        {"neargpu run --help", "run", true, false, false},
        {"neargpu admin --help", NULL, true, false, false},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct opt_values v;
        struct err err;
        ck_assert_msg(parse(table[i].line, &v, &err) == 0, "%s: %s", table[i].line,
                      err.text);
        ck_assert_msg(v.help == table[i].help && v.man == table[i].man &&
                          v.version == table[i].version,
                      "%s", table[i].line);
        if (table[i].command == NULL)
            ck_assert_ptr_null(v.command);
        else
            ck_assert_str_eq(v.command->name, table[i].command);
        opt_done(&v);
    }
    /* After `run ID`, --help belongs to the job. */
    struct opt_values v;
    struct err err;
    ck_assert_int_eq(parse("neargpu run r1 ls --help", &v, &err), 0);
    ck_assert(!v.help);
    opt_done(&v);
}
END_TEST

START_TEST(test_refused)
{
    static const struct {
        const char *line, *message;
    } table[] = {
        {"neargpu", "which command? see neargpu --help"},
        {"neargpu resevre", "unknown command 'resevre': did you mean 'reserve'?"},
        {"neargpu frobnicate", "unknown command 'frobnicate': see neargpu --help"},
        {"neargpu admin", "'admin' needs one of: tenant create"},
        {"neargpu admin tenat", "'admin' needs one of: tenant create"},
        {"neargpu reserve --gpu 8", "unknown option --gpu: did you mean --gpus?"},
        {"neargpu reserve --gpuz=8", "unknown option --gpuz: did you mean --gpus?"},
        {"neargpu reserve --outptu x",
         "unknown option --outptu: did you mean --output?"},
        {"neargpu reserve --flavour x", "unknown option --flavour: see --help"},
        {"neargpu --gpus 8 reserve", "unknown option --gpus: see --help"},
        {"neargpu reserve -x", "unknown option -x: see --help"},
        {"neargpu reserve --gpus", "--gpus needs a value: --gpus N"},
        {"neargpu reserve -g", "--gpus needs a value: --gpus N"},
        {"neargpu reserve --wait=yes", "--wait takes no value"},
        {"neargpu reserve --gpus 1 -g 2", "--gpus is given twice"},
        {"neargpu reserve --yes --yes", "--yes is given twice"},
        {"neargpu reserve a b", "unexpected argument 'b': neargpu reserve [NAME]"},
        {"neargpu data add", "an argument is missing: neargpu data add NAME"},
        {"neargpu run r1", "an argument is missing: neargpu run ID COMMAND..."},
        {"neargpu data lits", "unexpected argument 'lits': neargpu data"},
    };
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct opt_values v;
        struct err err;
        ck_assert_msg(parse(table[i].line, &v, &err) == -1, "accepted: %s",
                      table[i].line);
        ck_assert_int_eq(err.code, ERR_USAGE);
        ck_assert_msg(strcmp(err.text, table[i].message) == 0, "%s: %s", table[i].line,
                      err.text);
    }
    char line[2000] = "neargpu reserve";
    for (int i = 0; i <= OPT_VALUES_MAX; i++)
        memcpy(line + strlen(line), " --near a", 10);
    char *argv[200], *copy = xstrdup(line);
    int argc = 0;
    for (char *p = copy; p != NULL;)
        argv[argc++] = strsep(&p, " ");
    struct opt_values v;
    struct err err;
    ck_assert_int_eq(opt_parse(&program, argc, argv, &v, &err), -1);
    ck_assert_str_eq(err.text, "more than 64 options");
    free(copy);
}
END_TEST

START_TEST(test_help)
{
    char *text = opt_help(&program, &commands[0]);
    static const char *const parts[] = {
        "usage: neargpu reserve [options] [NAME]\n\nReserve GPUs.\n",
        "  -g, --gpus N            GPUs on the node.\n",
        "      --near NAME         Data set",
        "  -o, --output FORMAT     Output as",
        "Examples:\n  Reserve eight GPUs near a data set\n    neargpu reserve --gpus 8",
        "--help",
    };
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        ck_assert_msg(strstr(text, parts[i]) != NULL, "no '%s' in:\n%s", parts[i],
                      text);
    for (const char *p = text; *p != '\0'; p += strcspn(p, "\n") + 1)
        ck_assert_msg(strcspn(p, "\n") <= 80, "long line in:\n%s", text);
    free(text);
    text = opt_help(&program, NULL);
    ck_assert_ptr_nonnull(strstr(text, "usage: neargpu COMMAND [options]\n"));
    ck_assert_ptr_nonnull(strstr(text, "  admin tenant create     Create a tenant.\n"));
    free(text);
    text = opt_help(&daemon_program, NULL);
    ck_assert_ptr_nonnull(strstr(text, "usage: neargpud [options]\n"));
    free(text);
}
END_TEST

/* mandoc's opinion of a page: its number of warnings; -1 when there is no mandoc. */
static int mandoc_status(const char *page)
{
    if (access("/usr/bin/mandoc", X_OK) != 0)
        return -1;
    int fd[2];
    ck_assert_int_eq(pipe(fd), 0);
    pid_t pid = fork();
    ck_assert_int_ge(pid, 0);
    if (pid == 0) {
        dup2(fd[0], STDIN_FILENO);
        close(fd[0]);
        close(fd[1]);
        execl("/usr/bin/mandoc", "mandoc", "-Tlint", "-Wwarning", (char *)NULL);
        _exit(99);
    }
    close(fd[0]);
    ck_assert_int_eq(write(fd[1], page, strlen(page)), (ssize_t)strlen(page));
    close(fd[1]);
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 99;
}

START_TEST(test_man)
{
    char *text = opt_man(&program);
    static const char *const parts[] = {
        ".Dt NEARGPU 1\n",
        ".Nm neargpu\n.Nd reserve GPUs near your data\n",
        ".Ss data add\n",
        ".It Fl g , Fl \\-gpus Ar \"N\"\nGPUs on the node.\n",
        "\n\\&.Second starts with a dot \\e and a backslash.\n",
        ".Sh EXIT STATUS\n",
        ".It \"/etc/neargpu/x.conf\"\nThe configuration.\n",
        ".Xr neargpu-agent 8 ,\n.Xr neargpud 8\n",
        ".Dl neargpu reserve \\-\\-gpus 8 \\-\\-near genome\\-tokyo\n",
    };
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        ck_assert_msg(strstr(text, parts[i]) != NULL, "no '%s' in:\n%s", parts[i],
                      text);
    int status = mandoc_status(text);
    ck_assert_msg(status <= 0, "mandoc warns (%d) about:\n%s", status, text);
    free(text);
    text = opt_man(&daemon_program);
    status = mandoc_status(text);
    ck_assert_msg(status <= 0, "mandoc warns (%d) about:\n%s", status, text);
    free(text);
}
END_TEST

UNIT_MAIN("opt",
          UNIT_CASE(test_commands) UNIT_CASE(test_options) UNIT_CASE(test_informs)
              UNIT_CASE(test_refused) UNIT_CASE(test_help) UNIT_CASE(test_man))
