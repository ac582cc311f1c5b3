/* commands: the verbs of neargpu-agent. Each returns an exit status and prints its own
 * error. */
#ifndef NEARGPU_AGENT_COMMANDS_H
#define NEARGPU_AGENT_COMMANDS_H
#include "client/lib/opt.h"

extern const struct opt_program commands_program;

int command_run(const struct opt_values *v);
int command_enroll(const struct opt_values *v);
int command_verify(const struct opt_values *v);
int command_inventory(const struct opt_values *v);
int command_leases(const struct opt_values *v);
int command_release(const struct opt_values *v);
int command_ssh_keys(const struct opt_values *v);
int command_ssh_session(const struct opt_values *v);
int command_cleanup(const struct opt_values *v);
int command_check_conf(const struct opt_values *v);
int command_sample_conf(const struct opt_values *v);
int command_front_selftest(const struct opt_values *v);

/* One line on stderr; the exit status for it. */
int command_fail(const struct err *err);
/* --conf, else the default path when it is there, else NULL (defaults). */
const char *command_conf_path(const struct opt_values *v);

#endif
