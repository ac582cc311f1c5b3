/* enforce_agent: the agent's leases, journal, spool and GPU sight as they are, on the
 * real kernel and on a library that answers like NVIDIA's (tests/tools/fake_nvml.c). No
 * market: the test gives the orders. Stands on enforce_rig. */
#ifndef NEARGPU_ENFORCE_AGENT_H
#define NEARGPU_ENFORCE_AGENT_H
#include "client/agent/agent.h"
#include "client/agent/leases.h"
#include "tests/system/enforce_rig.h"

#define EA_ID(n)  "019307d0-7b3a-7c3e-8a5b-0123456789" n
#define EA_TENANT "019307d0-7b3a-7c3e-8a5b-0123456789ff"
#define EA_CAPS   241 /* for capability nodes of MIG: for local use, as RIG_MAJOR */

extern struct agent ea;

/* What NVML says from now on (fake_nvml.c has the lines). */
void ea_nvml(const char *state);
/* DEV/NAME as a character device (replacing one), and its path (static storage). */
const char *ea_node(const char *name, int major_number, int minor_number);
/* /proc/driver/nvidia/capabilities/NAME: the minor of a capability. */
void ea_cap(const char *name, int minor_number);

/* A starting agent, with what is on disk and in the kernel. Change ea.conf after it. */
void ea_start(void);
/* As by kill -9: nothing is told to anyone. */
void ea_die(void);
/* A look at the GPUs, as every few seconds. */
void ea_look(void);

/* A lease of these GPUs (NULL-terminated) that began a minute ago. */
struct order ea_order(const char *id, const char *const *gpus, int seconds);
void ea_open(const char *id, const char *const *gpus, int seconds);
/* A job of the lease, started; `ready` is waited for in its output unless NULL. The
 * probe (RIG_PROBE) is in the work directory. */
void ea_launch(const char *id, const char *job, const char *const *argv,
               const char *ready);
/* The same where it may be too late for it. */
int ea_try_launch(const char *id, const char *job, const char *const *argv,
                  struct err *err) MUST_USE;
enum lease_state ea_state(const char *id);
/* Ticks until the lease is in this state (LEASE_DONE: or forgotten); false after ms. */
bool ea_until(const char *id, enum lease_state state, int ms);
/* One tick with the clock this much further ahead, where it stays until ea_start. */
void ea_tick_ahead(int64_t us);
/* errno of opening `path` from within the lease's cgroup; 0: it opened. */
int ea_open_errno(const char *id, const char *path);

/* What is written to stderr is kept from now on; the text so far. */
void ea_log_begin(void);
char *ea_log(void);

#endif
