/* lease: the state table and what a restart decides. */
#include <string.h>

#include "client/agent/lease.h"
#include "tests/unit/unit.h"

START_TEST(test_a_whole_life)
{
    static const struct {
        enum lease_event event;
        enum lease_state to;
        enum lease_action action;
    } rows[] = {
        {LEASE_EV_OPENED, LEASE_READY, LEASE_ACT_SEND_READY},
        {LEASE_EV_JOB_STARTED, LEASE_RUNNING, LEASE_ACT_NONE},
        {LEASE_EV_JOB_STARTED, LEASE_RUNNING, LEASE_ACT_NONE},
        {LEASE_EV_JOBS_GONE, LEASE_READY, LEASE_ACT_NONE},
        {LEASE_EV_JOB_STARTED, LEASE_RUNNING, LEASE_ACT_NONE},
        {LEASE_EV_DRAIN_DUE, LEASE_DRAINING, LEASE_ACT_TERM_JOBS},
        {LEASE_EV_EXTENDED, LEASE_RUNNING, LEASE_ACT_REGATE},
        {LEASE_EV_SHORTENED, LEASE_RUNNING, LEASE_ACT_REGATE},
        {LEASE_EV_DRAIN_DUE, LEASE_DRAINING, LEASE_ACT_TERM_JOBS},
        {LEASE_EV_SHORTENED, LEASE_DRAINING, LEASE_ACT_REGATE},
        {LEASE_EV_END, LEASE_DENIED, LEASE_ACT_DENY_KILL},
        {LEASE_EV_END, LEASE_DENIED, LEASE_ACT_DENY_KILL},
        {LEASE_EV_EMPTIED, LEASE_CLEANING, LEASE_ACT_CLEAN},
        {LEASE_EV_CLEANED, LEASE_DONE, LEASE_ACT_SEND_TEARDOWN},
    };
    enum lease_state s = LEASE_OPENING;
    enum lease_action a;
    struct err err;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        ck_assert_int_eq(lease_apply(s, rows[i].event, &s, &a, &err), 0);
        ck_assert_msg(s == rows[i].to && a == rows[i].action, "row %zu: %s", i,
                      lease_state_name(s));
    }
}
END_TEST

/* From any state, whatever happens: END leads out of the market and never back, DONE is
 * reached only through CLEANED, QUARANTINED left only through RELEASED. */
START_TEST(test_invariants_of_the_table)
{
    size_t count;
    const struct lease_row *rows = lease_rows(&count);
    int seen[LEASE_STATE_COUNT][LEASE_EVENT_COUNT] = {{0}};
    int ends[LEASE_STATE_COUNT] = {0};
    for (size_t i = 0; i < count; i++) {
        const struct lease_row *r = &rows[i];
        ck_assert_int_eq(seen[r->from][r->event]++, 0);
        bool was_open = r->from <= LEASE_DRAINING, is_open = r->to <= LEASE_DRAINING;
        ck_assert_msg(was_open || !is_open, "%s comes back to %s",
                      lease_state_name(r->from), lease_state_name(r->to));
        if (was_open && !is_open)
            ck_assert_int_eq(r->action, LEASE_ACT_DENY_KILL);
        if (r->event == LEASE_EV_END) {
            ends[r->from] = 1;
            ck_assert(!is_open);
        }
        if (r->to == LEASE_DONE && r->from != LEASE_DONE)
            ck_assert_int_eq(r->event, LEASE_EV_CLEANED);
        if (r->from == LEASE_QUARANTINED && r->to != LEASE_QUARANTINED)
            ck_assert_int_eq(r->event, LEASE_EV_RELEASED);
    }
    for (int s = 0; s < LEASE_STATE_COUNT; s++)
        ck_assert_msg(ends[s], "%s has no END", lease_state_name((enum lease_state)s));
}
END_TEST

START_TEST(test_impossible_events_are_refused)
{
    enum lease_state s = LEASE_DONE, to = LEASE_OPENING;
    enum lease_action a = LEASE_ACT_NONE;
    struct err err;
    ck_assert_int_eq(lease_apply(s, LEASE_EV_OPENED, &to, &a, &err), -1);
    ck_assert_int_eq(err.code, ERR_CONFLICT);
    ck_assert_int_eq(to, LEASE_OPENING); /* untouched */
    ck_assert_int_eq(lease_apply(LEASE_DRAINING, LEASE_EV_JOB_STARTED, &to, &a, &err),
                     -1);
    ck_assert_int_eq(lease_apply(LEASE_DENIED, LEASE_EV_EXTENDED, &to, &a, &err), -1);
    ck_assert_int_eq(lease_apply(LEASE_DENIED, LEASE_EV_SHORTENED, &to, &a, &err), -1);
}
END_TEST

START_TEST(test_names)
{
    for (int s = 0; s < LEASE_STATE_COUNT; s++) {
        enum lease_state back;
        ck_assert(lease_state_parse(lease_state_name((enum lease_state)s), &back));
        ck_assert_int_eq(back, s);
    }
    for (int e = 0; e < LEASE_EVENT_COUNT; e++)
        ck_assert_int_gt((int)strlen(lease_event_name((enum lease_event)e)), 2);
    enum lease_state none;
    ck_assert(!lease_state_parse("open", &none));
    ck_assert_str_eq(lease_state_wire(LEASE_DENIED), "cleaning");
    ck_assert_str_eq(lease_state_wire(LEASE_READY), "ready");
    ck_assert(lease_state_may_launch(LEASE_READY));
    ck_assert(lease_state_may_launch(LEASE_RUNNING));
    ck_assert(!lease_state_may_launch(LEASE_DRAINING));
    ck_assert(!lease_state_may_launch(LEASE_OPENING));
}
END_TEST

START_TEST(test_recovery)
{
    static const struct {
        struct lease_found
            f; /* journalled same_boot state cgroup gated populated end */
        enum lease_recovery want;
    } rows[] = {
        {{true, true, LEASE_RUNNING, true, true, true, 1001}, LEASE_REC_KEEP},
        {{true, true, LEASE_RUNNING, true, true, true, 1000}, LEASE_REC_END},
        {{true, true, LEASE_READY, true, true, false, 999}, LEASE_REC_END},
        {{true, true, LEASE_READY, true, true, false, 2000}, LEASE_REC_KEEP},
        {{true, true, LEASE_OPENING, false, false, false, 2000}, LEASE_REC_REOPEN},
        {{true, true, LEASE_OPENING, true, true, false, 2000}, LEASE_REC_REOPEN},
        {{true, true, LEASE_READY, true, false, false, 2000}, LEASE_REC_REOPEN},
        {{true, true, LEASE_READY, true, false, true, 2000}, LEASE_REC_END},
        {{true, true, LEASE_DENIED, true, true, true, 2000}, LEASE_REC_END},
        {{true, true, LEASE_CLEANING, false, false, false, 2000}, LEASE_REC_END},
        {{true, false, LEASE_RUNNING, false, false, false, 2000}, LEASE_REC_REBOOTED},
        {{true, false, LEASE_RUNNING, true, true, true, 2000}, LEASE_REC_END},
        {{true, true, LEASE_DONE, false, false, false, 0}, LEASE_REC_FORGET},
        {{true, true, LEASE_DONE, true, true, true, 2000}, LEASE_REC_ORPHAN},
        {{true, true, LEASE_QUARANTINED, true, true, true, 2000}, LEASE_REC_HOLD},
        {{true, false, LEASE_QUARANTINED, false, false, false, 0}, LEASE_REC_HOLD},
        {{false, false, LEASE_OPENING, true, true, true, 0}, LEASE_REC_ORPHAN},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        ck_assert_msg(lease_recover(&rows[i].f, 1000) == rows[i].want, "row %zu: %d", i,
                      (int)lease_recover(&rows[i].f, 1000));
}
END_TEST

UNIT_MAIN("lease", UNIT_CASE(test_a_whole_life) UNIT_CASE(test_invariants_of_the_table)
                       UNIT_CASE(test_impossible_events_are_refused)
                           UNIT_CASE(test_names) UNIT_CASE(test_recovery))
