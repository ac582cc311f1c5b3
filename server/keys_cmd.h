/* keys_cmd: `neargpud keys …`: the market's root and signing keys, by hand. Works on
 * the files of the pki directory alone, beside running servers, which take a new set
 * over within seconds. */
#ifndef NEARGPU_KEYS_CMD_H
#define NEARGPU_KEYS_CMD_H
#include "client/lib/opt.h"

/* v->command is one of the keys commands; the exit status. */
int keys_cmd(const struct opt_values *v, const char *pki_dir);

#endif
