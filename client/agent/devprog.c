/* devprog: see devprog.h. The shape of the program:
 *
 *   r6 = type, r7 = access, r8 = major, r9 = minor
 *   now >= deadline -> refuse;   mknod asked -> refuse
 *   for each rule: differs -> next; else allow
 *   refuse
 *
 * Access bits of the context are those of linux/bpf.h: MKNOD 1, READ 2, WRITE 4. */
#include "client/agent/devprog.h"

#include <assert.h>

#define RULE_INSNS 7

static void emit(struct devprog *p, uint8_t code, int dst, int src, int off,
                 int32_t imm)
{
    assert(p->count < DEVPROG_INSNS_MAX);
    p->insns[p->count++] = (struct bpf_insn){.code = code,
                                             .dst_reg = (uint8_t)(dst & 15),
                                             .src_reg = (uint8_t)(src & 15),
                                             .off = (int16_t)off,
                                             .imm = imm};
}

static void emit_return(struct devprog *p, int verdict)
{
    emit(p, BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, verdict);
    emit(p, BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
}

static void emit_load_ctx(struct devprog *p)
{
    const int word = BPF_LDX | BPF_MEM | BPF_W;
    emit(p, (uint8_t)word, BPF_REG_7, BPF_REG_1, 0, 0);
    emit(p, (uint8_t)word, BPF_REG_8, BPF_REG_1, 4, 0);
    emit(p, (uint8_t)word, BPF_REG_9, BPF_REG_1, 8, 0);
    emit(p, BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_6, BPF_REG_7, 0, 0);
    emit(p, BPF_ALU64 | BPF_AND | BPF_K, BPF_REG_6, 0, 0, 0xffff);
    emit(p, BPF_ALU64 | BPF_RSH | BPF_K, BPF_REG_7, 0, 0, 16);
}

static void emit_deadline(struct devprog *p, uint64_t deadline_ns)
{
    emit(p, BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_ktime_get_boot_ns);
    emit(p, BPF_LD | BPF_IMM | BPF_DW, BPF_REG_1, 0, 0, (int32_t)(uint32_t)deadline_ns);
    emit(p, 0, 0, 0, 0, (int32_t)(uint32_t)(deadline_ns >> 32));
    emit(p, BPF_JMP | BPF_JLT | BPF_X, BPF_REG_0, BPF_REG_1, 2, 0);
    emit_return(p, 0);
}

/* Always RULE_INSNS long, so that the jump to the next rule is known beforehand. */
static void emit_rule(struct devprog *p, const struct devprog_rule *r)
{
    uint32_t refused = BPF_DEVCG_ACC_MKNOD;
    if (!(r->access & DEVPROG_READ))
        refused |= BPF_DEVCG_ACC_READ;
    if (!(r->access & DEVPROG_WRITE))
        refused |= BPF_DEVCG_ACC_WRITE;
    int type = r->type == 'c' ? BPF_DEVCG_DEV_CHAR : BPF_DEVCG_DEV_BLOCK;
    size_t start = p->count;
    emit(p, BPF_JMP | BPF_JNE | BPF_K, BPF_REG_6, 0, 5, type);
    emit(p, BPF_JMP | BPF_JSET | BPF_K, BPF_REG_7, 0, 4, (int32_t)refused);
    /* 32-bit compare: an immediate is sign-extended in the 64-bit one. */
    emit(p, BPF_JMP32 | BPF_JNE | BPF_K, BPF_REG_8, 0, 3, (int32_t)r->major);
    if (r->minor == DEVPROG_ANY_MINOR)
        emit(p, BPF_JMP | BPF_JA, 0, 0, 0, 0);
    else
        emit(p, BPF_JMP32 | BPF_JNE | BPF_K, BPF_REG_9, 0, 2, (int32_t)r->minor);
    emit_return(p, 1);
    emit(p, BPF_JMP | BPF_JA, 0, 0, 0, 0);
    assert(p->count - start == RULE_INSNS);
}

const struct devprog_rule *devprog_base_rules(size_t *ret_count)
{
    static const struct devprog_rule base[] = {
        {'c', 1, 3, DEVPROG_READ | DEVPROG_WRITE},                   /* null */
        {'c', 1, 5, DEVPROG_READ | DEVPROG_WRITE},                   /* zero */
        {'c', 1, 7, DEVPROG_READ | DEVPROG_WRITE},                   /* full */
        {'c', 1, 8, DEVPROG_READ | DEVPROG_WRITE},                   /* random */
        {'c', 1, 9, DEVPROG_READ | DEVPROG_WRITE},                   /* urandom */
        {'c', 5, 0, DEVPROG_READ | DEVPROG_WRITE},                   /* tty */
        {'c', 5, 2, DEVPROG_READ | DEVPROG_WRITE},                   /* ptmx */
        {'c', 136, DEVPROG_ANY_MINOR, DEVPROG_READ | DEVPROG_WRITE}, /* pts */
    };
    *ret_count = sizeof(base) / sizeof(base[0]);
    return base;
}

static int rule_check(const struct devprog_rule *r, size_t at, struct err *err)
{
    const uint32_t all = DEVPROG_READ | DEVPROG_WRITE;
    if (r->type != 'c' && r->type != 'b')
        return err_set(err, ERR_BAD_REQUEST, "device rule %zu: type must be c or b",
                       at);
    if ((r->access & all) == 0 || (r->access & ~all) != 0)
        return err_set(err, ERR_BAD_REQUEST, "device rule %zu: bad access %u", at,
                       r->access);
    /* Linux: 12 bits of major, 20 bits of minor. */
    if (r->major > 0xfff || (r->minor > 0xfffff && r->minor != DEVPROG_ANY_MINOR))
        return err_set(err, ERR_BAD_REQUEST, "device rule %zu: no device %u:%u", at,
                       r->major, r->minor);
    return 0;
}

int devprog_build(const struct devprog_rule *rules, size_t count,
                  int64_t deadline_boot_us, struct devprog *prog, struct err *err)
{
    size_t base_count;
    const struct devprog_rule *base = devprog_base_rules(&base_count);
    if (count + base_count > DEVPROG_RULES_MAX)
        return err_set(err, ERR_TOO_LARGE, "%zu device rules, at most %zu are allowed",
                       count, DEVPROG_RULES_MAX - base_count);
    if (deadline_boot_us <= 0 || deadline_boot_us > INT64_MAX / 1000)
        return err_set(err, ERR_BAD_REQUEST, "device gate without a possible end");
    for (size_t i = 0; i < count; i++)
        if (rule_check(&rules[i], i, err) < 0)
            return -1;
    prog->count = 0;
    emit_load_ctx(prog);
    emit_deadline(prog, (uint64_t)deadline_boot_us * 1000);
    for (size_t i = 0; i < base_count; i++)
        emit_rule(prog, &base[i]);
    for (size_t i = 0; i < count; i++)
        emit_rule(prog, &rules[i]);
    emit_return(prog, 0);
    return 0;
}

void devprog_build_deny(struct devprog *prog)
{
    prog->count = 0;
    emit_return(prog, 0);
}
