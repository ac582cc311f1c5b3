/* scrub: runs the provider's own program (conf `scrub_command`) for each GPU of an
 * ended lease, one after another, each within a time: a reset, an overwriting of
 * memory, a self test. Nothing waits for it: scrub_begin starts the first, scrub_poll
 * looks. An edge.
 *
 * The program is run as root, without a shell, from /, with PATH alone in its
 * environment, nothing on its standard input, in a process group of its own that is
 * killed when its time is over, and dies with the agent (which then begins anew).
 *
 * Does not decide what follows from a failure (leases: quarantine). */
#ifndef NEARGPU_AGENT_SCRUB_H
#define NEARGPU_AGENT_SCRUB_H
#include <stddef.h>
#include <stdint.h>

#include "client/agent/gpu.h"
#include "client/lib/err.h"

#define SCRUB_WORDS_MAX 32 /* program and arguments */

struct scrub;

/* The program's words with %u %p %m (UUID, PCI address, minor) and %% put in; NULL when
 * there are none or too many, or an unknown %. Free with scrub_words_free. */
char **scrub_words(const char *command, const struct gpu_info *gpu);
void scrub_words_free(char **words);

/* GPUs are copied. On failure nothing runs and *ret is untouched. */
int scrub_begin(const char *command, int64_t timeout_us,
                const struct gpu_info *const *gpus, size_t count, struct scrub **ret,
                struct err *err) MUST_USE;
/* 1: all ended with 0; 0: not yet; -1: one failed, with its last words in err. Repeated
 * after 1 or -1 it says the same. */
int scrub_poll(struct scrub *s, struct err *err) MUST_USE;
/* Kills what runs. */
void scrub_free(struct scrub *s);

#endif
