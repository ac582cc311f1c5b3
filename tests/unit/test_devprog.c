/* devprog: the program is run here by a small interpreter of the instructions it uses
 * and compared with the rules read plainly. */
#include <stdbool.h>
#include <string.h>

#include "client/agent/devprog.h"
#include "tests/unit/unit.h"

struct ask {
    uint32_t type, access, major, minor; /* as the kernel passes them */
    uint64_t now_ns;
};

/* Returns the verdict; fails the test on anything unexpected. */
static uint64_t run(const struct devprog *p, const struct ask *q)
{
    uint64_t r[11] = {0};
    uint32_t ctx[3] = {q->access << 16 | q->type, q->major, q->minor};
    size_t pc = 0;
    for (int steps = 0; steps < 4096; steps++) {
        ck_assert_uint_lt(pc, p->count);
        const struct bpf_insn *i = &p->insns[pc++];
        uint64_t imm = (uint64_t)(int64_t)i->imm, *dst = &r[i->dst_reg],
                 src = r[i->src_reg];
        switch (i->code) {
        case BPF_LDX | BPF_MEM | BPF_W:
            ck_assert(i->src_reg == 1 && i->off % 4 == 0 && i->off <= 8);
            *dst = ctx[i->off / 4];
            break;
        case BPF_ALU64 | BPF_MOV | BPF_X: *dst = src; break;
        case BPF_ALU64 | BPF_MOV | BPF_K: *dst = imm; break;
        case BPF_ALU64 | BPF_AND | BPF_K: *dst &= imm; break;
        case BPF_ALU64 | BPF_RSH | BPF_K: *dst >>= imm; break;
        case BPF_LD | BPF_IMM | BPF_DW:
            *dst = (uint32_t)i->imm | (uint64_t)(uint32_t)p->insns[pc++].imm << 32;
            break;
        case BPF_JMP | BPF_CALL:
            ck_assert_int_eq(i->imm, BPF_FUNC_ktime_get_boot_ns);
            memset(r, 0xa5, 6 * sizeof(r[0])); /* a call clobbers r1 … r5 */
            r[0] = q->now_ns;
            break;
        case BPF_JMP | BPF_JLT | BPF_X: pc += *dst < src ? (size_t)i->off : 0; break;
        case BPF_JMP | BPF_JNE | BPF_K: pc += *dst != imm ? (size_t)i->off : 0; break;
        case BPF_JMP | BPF_JSET | BPF_K: pc += *dst & imm ? (size_t)i->off : 0; break;
        case BPF_JMP32 | BPF_JNE | BPF_K:
            pc += (uint32_t)*dst != (uint32_t)imm ? (size_t)i->off : 0;
            break;
        case BPF_JMP | BPF_JA: pc += (size_t)i->off; break;
        case BPF_JMP | BPF_EXIT: return r[0];
        default: ck_abort_msg("instruction %zu has code %#x", pc - 1, i->code);
        }
    }
    ck_abort_msg("the program does not end");
    return 0;
}

static bool covers(const struct devprog_rule *r, const struct ask *q)
{
    uint32_t need = 0;
    if (q->access & BPF_DEVCG_ACC_READ)
        need |= DEVPROG_READ;
    if (q->access & BPF_DEVCG_ACC_WRITE)
        need |= DEVPROG_WRITE;
    return (r->type == 'c' ? BPF_DEVCG_DEV_CHAR : BPF_DEVCG_DEV_BLOCK) == q->type &&
           r->major == q->major &&
           (r->minor == DEVPROG_ANY_MINOR || r->minor == q->minor) &&
           (need & ~r->access) == 0;
}

static bool model(const struct devprog_rule *rules, size_t count, int64_t deadline_us,
                  const struct ask *q)
{
    if (q->now_ns >= (uint64_t)deadline_us * 1000 || (q->access & BPF_DEVCG_ACC_MKNOD))
        return false;
    size_t base_count;
    const struct devprog_rule *base = devprog_base_rules(&base_count);
    for (size_t i = 0; i < base_count; i++)
        if (covers(&base[i], q))
            return true;
    for (size_t i = 0; i < count; i++)
        if (covers(&rules[i], q))
            return true;
    return false;
}

#define RD BPF_DEVCG_ACC_READ
#define WR BPF_DEVCG_ACC_WRITE
#define MK BPF_DEVCG_ACC_MKNOD
#define CH BPF_DEVCG_DEV_CHAR
#define BL BPF_DEVCG_DEV_BLOCK

START_TEST(test_table)
{
    static const struct devprog_rule rules[] = {
        {'c', 195, 3, 3},  {'c', 195, 255, 3}, {'c', 508, 0, 3},
        {'c', 10, 200, 1}, {'b', 8, 16, 1},    {'c', 4095, DEVPROG_ANY_MINOR, 3},
    };
    static const struct {
        struct ask q;
        uint64_t want;
    } rows[] = {
        {{CH, RD | WR, 195, 3, 0}, 1}, /* the granted GPU */
        {{CH, RD, 195, 3, 0}, 1},
        {{CH, WR, 195, 3, 0}, 1},
        {{CH, RD | WR, 195, 2, 0}, 0},   /* another GPU */
        {{CH, RD | WR, 195, 254, 0}, 0}, /* modeset */
        {{CH, RD | WR, 508, 1, 0}, 0},   /* uvm-tools */
        {{BL, RD | WR, 195, 3, 0}, 0},   /* same numbers, block */
        {{CH, MK, 195, 3, 0}, 0},
        {{CH, MK | RD | WR, 195, 3, 0}, 0},
        {{CH, MK, 1, 3, 0}, 0}, /* not even null may be made */
        {{CH, RD, 10, 200, 0}, 1},
        {{CH, RD | WR, 10, 200, 0}, 0},
        {{BL, RD, 8, 16, 0}, 1},
        {{BL, WR, 8, 16, 0}, 0},
        {{CH, RD, 4095, 1048575, 0}, 1},
        {{CH, RD, 4094, 1, 0}, 0},
        {{CH, RD | WR, 1, 3, 0}, 1},
        {{CH, RD, 1, 1, 0}, 0}, /* null, mem */
        {{CH, RD, 1, 11, 0}, 0},
        {{CH, RD | WR, 136, 77, 0}, 1},
        {{CH, RD | WR, 195, 3, 4999999999}, 1}, /* 1 ns before the end */
        {{CH, RD | WR, 195, 3, 5000000000}, 0}, /* at the end */
        {{CH, RD | WR, 195, 3, UINT64_MAX}, 0},
        {{CH, RD, 1, 3, 5000000000}, 0},
    };
    static struct devprog p;
    struct err err;
    ck_assert_int_eq(devprog_build(rules, 6, 5000000, &p, &err), 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        ck_assert_msg(run(&p, &rows[i].q) == rows[i].want, "row %zu", i);
}
END_TEST

static uint64_t seed = 20261122;
static uint32_t rnd(uint32_t below)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(seed >> 33) % below;
}

START_TEST(test_random_against_the_model)
{
    static const uint32_t majors[] = {1, 5, 136, 195, 195, 508, 0xfff};
    static struct devprog p;
    struct devprog_rule rules[24];
    struct err err;
    for (int round = 0; round < 400; round++) {
        size_t n = rnd(24);
        for (size_t i = 0; i < n; i++)
            rules[i] =
                (struct devprog_rule){rnd(8) ? 'c' : 'b', majors[rnd(7)],
                                      rnd(9) ? rnd(6) : DEVPROG_ANY_MINOR, 1 + rnd(3)};
        int64_t end = 1 + (int64_t)rnd(1u << 30) * 4000000;
        ck_assert_int_eq(devprog_build(rules, n, end, &p, &err), 0);
        for (int i = 0; i < 200; i++) {
            struct ask q = {1 + rnd(2), 1 + rnd(7), majors[rnd(7)], rnd(6),
                            (uint64_t)end * 1000 + rnd(3) - 1};
            ck_assert_msg((run(&p, &q) == 1) == model(rules, n, end, &q),
                          "round %d: type %u access %u %u:%u", round, q.type, q.access,
                          q.major, q.minor);
        }
    }
}
END_TEST

START_TEST(test_deny_refuses_all)
{
    struct devprog p;
    devprog_build_deny(&p);
    struct ask q = {CH, RD, 1, 3, 0};
    ck_assert_uint_eq(run(&p, &q), 0);
}
END_TEST

START_TEST(test_bad_rules_are_refused)
{
    static const struct devprog_rule bad[] = {
        {'x', 1, 1, 3}, {'c', 0x1000, 1, 3}, {'c', 1, 0x100000, 3},
        {'c', 1, 1, 0}, {'c', 1, 1, 4},
    };
    static struct devprog p;
    static struct devprog_rule many[DEVPROG_RULES_MAX];
    struct err err;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        ck_assert_int_eq(devprog_build(&bad[i], 1, 1, &p, &err), -1);
    ck_assert_int_eq(devprog_build(NULL, 0, 0, &p, &err), -1);
    ck_assert_int_eq(devprog_build(NULL, 0, -5, &p, &err), -1);
    ck_assert_int_eq(devprog_build(NULL, 0, INT64_MAX, &p, &err), -1);
    for (size_t i = 0; i < DEVPROG_RULES_MAX; i++)
        many[i] = (struct devprog_rule){'c', 195, (uint32_t)i, 3};
    size_t base;
    (void)devprog_base_rules(&base);
    ck_assert_int_eq(devprog_build(many, DEVPROG_RULES_MAX - base, 1000, &p, &err), 0);
    struct ask last = {CH, RD, 195, (uint32_t)(DEVPROG_RULES_MAX - base - 1), 0};
    ck_assert_uint_eq(run(&p, &last), 1);
    ck_assert_int_eq(devprog_build(many, DEVPROG_RULES_MAX, 1000, &p, &err), -1);
    ck_assert_int_eq(err.code, ERR_TOO_LARGE);
}
END_TEST

UNIT_MAIN("devprog",
          UNIT_CASE(test_table) UNIT_CASE(test_random_against_the_model)
              UNIT_CASE(test_deny_refuses_all) UNIT_CASE(test_bad_rules_are_refused))
