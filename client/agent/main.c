/* main: neargpu-agent. Finds the verb and calls it. `keeper` is the program of a
 * running job (keeper.h), `front` the daemon's other process (front.h): not for people,
 * so not in the help. */
#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/agent/commands.h"
#include "client/agent/front.h"
#include "client/agent/keeper.h"
#include "client/lib/err.h"
#include "client/lib/log.h"
#include "client/lib/xalloc.h"

static const struct {
    const char *name;
    int (*run)(const struct opt_values *v);
} verbs[] = {
    {"run", command_run},
    {"enroll", command_enroll},
    {"verify", command_verify},
    {"inventory", command_inventory},
    {"leases", command_leases},
    {"release", command_release},
    {"cleanup", command_cleanup},
    {"ssh-keys", command_ssh_keys},
    {"ssh-session", command_ssh_session},
    {"check-conf", command_check_conf},
    {"sample-conf", command_sample_conf},
    {"front-selftest", command_front_selftest},
};

static int print(char *text)
{
    int rc = fputs(text, stdout) < 0 || fflush(stdout) != 0;
    free(text);
    return rc;
}

static int dispatch(const struct opt_values *v)
{
    if (v->man)
        return print(opt_man(&commands_program));
    if (v->help)
        return print(opt_help(&commands_program, v->command));
    if (v->version) {
        puts("neargpu-agent " PACKAGE_VERSION);
        return 0;
    }
    if (v->command == NULL) {
        (void)print(opt_help(&commands_program, NULL));
        return err_exit_status(ERR_USAGE);
    }
    for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
        if (strcmp(verbs[i].name, v->command->name) == 0)
            return verbs[i].run(v);
    return err_exit_status(ERR_INTERNAL);
}

/* Without a verb it is the daemon. */
static bool wants_run(int argc, char **argv)
{
    return argc == 1 || strncmp(argv[1], "--conf", 6) == 0 ||
           strcmp(argv[1], "-c") == 0;
}

/* Kept for the life of the process. */
static char **with_verb(int argc, char **argv, const char *verb)
{
    char **out = xcalloc((size_t)argc + 2, sizeof(*out));
    out[0] = argv[0];
    out[1] = (char *)verb;
    memcpy(out + 2, argv + 1, (size_t)(argc - 1) * sizeof(*argv));
    return out;
}

int main(int argc, char **argv)
{
    struct opt_values v;
    struct err err;
    if (argc > 1 && strcmp(argv[1], "keeper") == 0)
        return keeper_main(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "front") == 0)
        return front_main(argc - 1, argv + 1);
    log_init("neargpu-agent", LOG_LVL_INFO);
    if (wants_run(argc, argv)) {
        argv = with_verb(argc, argv, "run");
        argc++;
    }
    if (opt_parse(&commands_program, argc, argv, &v, &err) != 0)
        return command_fail(&err);
    int rc = dispatch(&v);
    opt_done(&v);
    return rc;
}
