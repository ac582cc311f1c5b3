/* resv: the whole table, cell by cell. */
#include <string.h>

#include "server/core/resv.h"
#include "tests/unit/unit.h"

/* Rows: from; columns: book confirm start end cancel fail expire extend, preempt
 * requeue shrink move replace. Letters are the first of the state after; '.' is
 * refused. */
static const char *const table[RESV_STATE_COUNT] = {
    [RESV_WAITING] = "c...xff......",   [RESV_HELD] = ".c..xfx......",
    [RESV_CONFIRMED] = "..a.xf.ccwccc", [RESV_ACTIVE] = "...eef.aa....",
    [RESV_ENDED] = ".............",     [RESV_CANCELLED] = ".............",
    [RESV_FAILED] = ".............",
};

static char letter(enum resv_state s)
{
    return "whcaexf"[s];
}

START_TEST(test_every_cell)
{
    size_t rows = 0;
    for (int s = 0; s < RESV_STATE_COUNT; s++) {
        for (int e = 0; e < RESV_EVENT_COUNT; e++) {
            enum resv_state to = RESV_STATE_COUNT;
            bool has = resv_apply((enum resv_state)s, (enum resv_event)e, &to);
            char got = has ? letter(to) : '.';
            ck_assert_msg(got == table[s][e], "%s --%s-->: %c, expected %c",
                          resv_state_name((enum resv_state)s),
                          resv_event_name((enum resv_event)e), got, table[s][e]);
            rows += has;
        }
    }
    ck_assert_uint_eq(strlen(table[0]), RESV_EVENT_COUNT);
    ck_assert_uint_eq(rows, resv_rule_count);
}
END_TEST

START_TEST(test_final_states_have_no_way_out)
{
    for (size_t i = 0; i < resv_rule_count; i++) {
        ck_assert(!resv_is_final(resv_rules[i].from));
        ck_assert(!resv_is_blocking(resv_rules[i].to) ||
                  !resv_is_final(resv_rules[i].to));
    }
    ck_assert(!resv_is_blocking(RESV_WAITING));
    ck_assert(resv_is_blocking(RESV_HELD) && resv_is_blocking(RESV_CONFIRMED) &&
              resv_is_blocking(RESV_ACTIVE));
}
END_TEST

START_TEST(test_names)
{
    static const char *const names[] = {"waiting", "held",      "confirmed", "active",
                                        "ended",   "cancelled", "failed"};
    for (int s = 0; s < RESV_STATE_COUNT; s++) {
        enum resv_state back;
        ck_assert_str_eq(resv_state_name((enum resv_state)s), names[s]);
        ck_assert(resv_state_from_name(names[s], &back) && (int)back == s);
    }
    enum resv_state untouched = RESV_ACTIVE;
    ck_assert(!resv_state_from_name("Active", &untouched) && untouched == RESV_ACTIVE);
    ck_assert_str_eq(resv_event_name(RESV_EV_EXTEND), "extend");
    ck_assert_str_eq(resv_state_name(RESV_STATE_COUNT), "unknown");
}
END_TEST

UNIT_MAIN("resv",
          UNIT_CASE(test_every_cell) UNIT_CASE(test_final_states_have_no_way_out)
              UNIT_CASE(test_names))
