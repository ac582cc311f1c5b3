/* devprog: builds the BPF_PROG_TYPE_CGROUP_DEVICE program that is a lease's gate. Pure:
 * makes instructions in the caller's memory, loads nothing.
 *
 * The program allows an open when one rule covers type, major, minor and every access
 * asked for, and CLOCK_BOOTTIME is before the deadline; everything else is refused. It
 * never allows mknod. The end is inside the program so that it holds with agent, keeper
 * and lease-init all dead. The check is made at open only: whoever revokes must also
 * kill (see enforce).
 *
 * Source: linux/bpf.h (struct bpf_cgroup_dev_ctx; helper 125, bpf_ktime_get_boot_ns).
 */
#ifndef NEARGPU_DEVPROG_H
#define NEARGPU_DEVPROG_H
#include <linux/bpf.h>
#include <stddef.h>
#include <stdint.h>

#include "client/lib/err.h"

#define DEVPROG_READ      1u
#define DEVPROG_WRITE     2u
#define DEVPROG_ANY_MINOR UINT32_MAX
/* 64 GPUs with caps devices of MIG, plus control nodes and the base devices. */
#define DEVPROG_RULES_MAX 256
#define DEVPROG_INSNS_MAX (16 + 7 * DEVPROG_RULES_MAX)

struct devprog_rule {
    char type; /* 'c' or 'b' */
    uint32_t major;
    uint32_t minor;  /* or DEVPROG_ANY_MINOR */
    uint32_t access; /* DEVPROG_READ | DEVPROG_WRITE */
};

struct devprog {
    struct bpf_insn insns[DEVPROG_INSNS_MAX];
    size_t count;
};

/* null zero full random urandom tty ptmx pts: what any program expects to have. */
const struct devprog_rule *devprog_base_rules(size_t *ret_count);

/* Rules plus the base rules, until deadline_boot_us (> 0). ERR_TOO_LARGE over
 * DEVPROG_RULES_MAX rules, ERR_BAD_REQUEST for a rule that means nothing. */
int devprog_build(const struct devprog_rule *rules, size_t count,
                  int64_t deadline_boot_us, struct devprog *prog,
                  struct err *err) MUST_USE;
/* Refuses every device. */
void devprog_build_deny(struct devprog *prog);

#endif
