/* policy_file: the provider's rules in a file of their own (conf `policy_file`), read
 * again whenever it has changed, so that they can be tightened while the agent runs. An
 * edge.
 *
 *   allowed_tenants = 019307d0-…        # may be repeated; without any: all
 *   denied_tenants = 019307d0-…         # may be repeated; wins
 *   max_gpus_per_tenant = 4
 *   max_duration = 12h
 *   allowed_hours = mon-fri 18:00-08:00 # may be repeated; without any: always
 *   hours_utc_offset = +09:00
 *
 * A file that is missing, cannot be understood, or could have been written by others
 * than root and the agent's user allows nothing: a policy is never guessed and never
 * the one before. */
#ifndef NEARGPU_AGENT_POLICY_FILE_H
#define NEARGPU_AGENT_POLICY_FILE_H
#include "client/agent/policy.h"
#include "client/lib/conf.h"

struct policy_file;

/* Reads nothing yet. */
struct policy_file *policy_file_new(const char *path);
void policy_file_free(struct policy_file *f);
/* The rules as the file says now; valid until the next call. ERR_UNAVAILABLE when it
 * cannot be used; what is wrong with it is the provider's to know and is logged, once.
 */
int policy_file_get(struct policy_file *f, const struct policy **ret,
                    struct err *err) MUST_USE;

/* Reads it once, for `check-conf`: ERR_BAD_REQUEST with what is wrong. */
int policy_file_check(const char *path, struct err *err) MUST_USE;

extern const struct conf_key policy_file_keys[];
extern const size_t policy_file_key_count;

#endif
