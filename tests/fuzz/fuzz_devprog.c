/* fuzz_devprog: any rules and any question, decided three times: by reading the rules,
 * by the program's instructions one by one, and by the kernel that verified and
 * compiled them (BPF_PROG_TEST_RUN; device programs have none, so they are run as raw
 * tracepoints, whose context is as long and readable by the same loads). Without the
 * right to load programs the kernel is left out. A deny program never allows. */
#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "client/agent/devprog.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BOOT_US_PAST   1
#define BOOT_US_FUTURE (INT64_C(1) << 52) /* 140 years of uptime */

struct question { /* struct bpf_cgroup_dev_ctx, and what a tracepoint's has beyond it */
    uint32_t access_type, major, minor, unused[21];
};

struct input {
    const uint8_t *at;
    size_t left;
};

static uint32_t take(struct input *in, size_t bytes)
{
    uint32_t v = 0;
    for (; bytes > 0 && in->left > 0; bytes--, in->left--)
        v = v << 8 | *in->at++;
    return v;
}

static struct devprog_rule take_rule(struct input *in)
{
    static const char types[] = {'c', 'b', 'c', 'x'};
    uint32_t head = take(in, 1);
    struct devprog_rule r = {.type = types[head & 3],
                             .access = head >> 2 & 7,
                             .major = take(in, 1),
                             .minor = take(in, 1)};
    if (head & 0x20)
        r.major = r.major << 8 | take(in, 1);
    if (head & 0x40)
        r.minor = take(in, 3);
    if (head & 0x80)
        r.minor = DEVPROG_ANY_MINOR;
    return r;
}

/* Near the rules, or nothing would ever be allowed. */
static struct question take_question(struct input *in, const struct devprog_rule *rules,
                                     size_t count)
{
    uint32_t head = take(in, 1);
    struct question q = {.access_type = (head & 15) << 16 | (head >> 4 & 3)};
    if (head & 0x40 && count > 0) {
        const struct devprog_rule *near = &rules[take(in, 1) % count];
        q.major = near->major;
        q.minor = near->minor != DEVPROG_ANY_MINOR ? near->minor : take(in, 3);
        q.minor ^= take(in, 1) & 1;
    } else {
        q.major = take(in, head & 0x80 ? 4 : 1);
        q.minor = take(in, head & 0x80 ? 4 : 1);
    }
    return q;
}

static bool rule_allows(const struct devprog_rule *r, const struct question *q)
{
    uint32_t type = q->access_type & 0xffff, access = q->access_type >> 16;
    uint32_t may = 0;
    if (r->access & DEVPROG_READ)
        may |= BPF_DEVCG_ACC_READ;
    if (r->access & DEVPROG_WRITE)
        may |= BPF_DEVCG_ACC_WRITE;
    return type == (r->type == 'c' ? BPF_DEVCG_DEV_CHAR : BPF_DEVCG_DEV_BLOCK) &&
           (access & ~may & 7) == 0 && r->major == q->major &&
           (r->minor == DEVPROG_ANY_MINOR || r->minor == q->minor);
}

static bool rules_allow(const struct devprog_rule *rules, size_t count, int64_t end_us,
                        const struct question *q)
{
    size_t base_count;
    const struct devprog_rule *base = devprog_base_rules(&base_count);
    if (end_us == BOOT_US_PAST)
        return false;
    for (size_t i = 0; i < base_count; i++)
        if (rule_allows(&base[i], q))
            return true;
    for (size_t i = 0; i < count; i++)
        if (rule_allows(&rules[i], q))
            return true;
    return false;
}

static uint64_t boot_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static bool jumps(const struct bpf_insn *i, const uint64_t *r)
{
    uint64_t a = r[i->dst_reg],
             b = BPF_SRC(i->code) == BPF_X ? r[i->src_reg] : (uint64_t)(int64_t)i->imm;
    if (BPF_CLASS(i->code) == BPF_JMP32) {
        a = (uint32_t)a;
        b = (uint32_t)b;
    }
    switch (BPF_OP(i->code)) {
    case BPF_JA: return true;
    case BPF_JNE: return a != b;
    case BPF_JLT: return a < b;
    case BPF_JSET: return (a & b) != 0;
    default: assert(!"a jump that devprog does not make"); return false;
    }
}

static void arithmetic(const struct bpf_insn *i, uint64_t *r)
{
    uint64_t b = BPF_SRC(i->code) == BPF_X ? r[i->src_reg] : (uint64_t)(int64_t)i->imm;
    switch (BPF_OP(i->code)) {
    case BPF_MOV: r[i->dst_reg] = b; break;
    case BPF_AND: r[i->dst_reg] &= b; break;
    case BPF_RSH: r[i->dst_reg] >>= b; break;
    default: assert(!"arithmetic that devprog does not make");
    }
}

/* The program as its instructions say; every path ends within its length, since it
 * only jumps forward. */
static bool program_allows(const struct devprog *p, const struct question *q)
{
    uint64_t r[11] = {0};
    for (size_t pc = 0; pc < p->count; pc++) {
        const struct bpf_insn *i = &p->insns[pc];
        uint32_t word;
        assert(i->off >= 0);
        if (i->code == (BPF_LDX | BPF_MEM | BPF_W)) {
            assert(i->src_reg == 1 && (size_t)i->off + 4 <= sizeof(*q));
            memcpy(&word, (const char *)q + i->off, 4);
            r[i->dst_reg] = word;
        } else if (i->code == (BPF_LD | BPF_IMM | BPF_DW)) {
            r[i->dst_reg] = (uint32_t)i->imm | (uint64_t)(uint32_t)i[1].imm << 32;
            pc++;
        } else if (i->code == (BPF_JMP | BPF_CALL)) {
            assert(i->imm == BPF_FUNC_ktime_get_boot_ns);
            r[0] = boot_ns();
        } else if (i->code == (BPF_JMP | BPF_EXIT)) {
            assert(r[0] <= 1);
            return r[0] == 1;
        } else if (BPF_CLASS(i->code) == BPF_ALU64) {
            arithmetic(i, r);
        } else if (jumps(i, r)) {
            pc += (size_t)i->off;
        }
    }
    assert(!"the program has no end");
    return false;
}

static long bpf(int cmd, union bpf_attr *attr)
{
    return syscall(SYS_bpf, cmd, attr, sizeof(*attr));
}

static int load(const struct devprog *p, uint32_t type)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.prog_type = type;
    attr.insns = (uint64_t)(uintptr_t)p->insns;
    attr.insn_cnt = (uint32_t)p->count;
    attr.license = (uint64_t)(uintptr_t) "Dual MIT/GPL";
    return (int)bpf(BPF_PROG_LOAD, &attr);
}

/* The program as loaded by the kernel; -1: it may not be asked here. What the verifier
 * takes as a tracepoint it must take as a device program. */
static int kernel_load(const struct devprog *p)
{
    int gate = load(p, BPF_PROG_TYPE_CGROUP_DEVICE);
    if (gate < 0) {
        assert(errno == EPERM || errno == ENOSYS);
        return -1;
    }
    close(gate);
    return load(p, BPF_PROG_TYPE_RAW_TRACEPOINT);
}

static int kernel_allows(int fd, const struct question *q)
{
    union bpf_attr attr;
    memset(&attr, 0, sizeof(attr));
    attr.test.prog_fd = (uint32_t)fd;
    attr.test.ctx_in = (uint64_t)(uintptr_t)q;
    attr.test.ctx_size_in = sizeof(*q);
    if (bpf(BPF_PROG_TEST_RUN, &attr) < 0)
        return -1;
    assert(attr.test.retval <= 1);
    return (int)attr.test.retval;
}

static void ask(struct input *in, const struct devprog *p,
                const struct devprog_rule *rules, size_t count, int64_t end_us)
{
    int fd = kernel_load(p);
    for (int i = 0; i < 64 && in->left > 0; i++) {
        struct question q = take_question(in, rules, count);
        bool want = rules_allow(rules, count, end_us, &q);
        assert(!(want && (q.access_type >> 16 & BPF_DEVCG_ACC_MKNOD)));
        assert(program_allows(p, &q) == want);
        int got = fd >= 0 ? kernel_allows(fd, &q) : -1;
        assert(got < 0 || got == (int)want);
    }
    if (fd >= 0)
        close(fd);
}

static void deny(struct input in)
{
    struct devprog p;
    devprog_build_deny(&p);
    int fd = kernel_load(&p);
    struct question q = take_question(&in, NULL, 0);
    assert(!program_allows(&p, &q));
    assert(fd < 0 || kernel_allows(fd, &q) <= 0);
    if (fd >= 0)
        close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct devprog_rule rules[DEVPROG_RULES_MAX + 8];
    static struct devprog p;
    struct input in = {data, size};
    struct err err = {0};
    uint32_t head = take(&in, 1);
    int64_t end_us = head & 0x80 ? BOOT_US_PAST : BOOT_US_FUTURE;
    size_t count = head & 0x7f, base;
    if (count == 0x7f)
        count = DEVPROG_RULES_MAX - 8 + take(&in, 1) % 16;
    (void)devprog_base_rules(&base);
    for (size_t i = 0; i < count; i++)
        rules[i] = take_rule(&in);
    deny(in);
    if (devprog_build(rules, count, end_us, &p, &err) != 0) {
        assert(err.code == ERR_TOO_LARGE || err.code == ERR_BAD_REQUEST);
        assert((err.code == ERR_TOO_LARGE) == (count + base > DEVPROG_RULES_MAX));
        return 0;
    }
    assert(p.count <= DEVPROG_INSNS_MAX);
    ask(&in, &p, rules, count, end_us);
    return 0;
}
