/* A whole market at random against a naive ledger (history.h): leases that are booked,
 * held, extended, shortened, cancelled, that fail; receipts that are late, repeated,
 * too early, contradicted; paths lit late; money in every way in and out of it; prices,
 * fees and terms that change in the middle; months that end; neargpu-billd killed
 * (SIGKILL) at random before its whole rounds. PostgreSQL runs with a clock that this
 * test moves, so that both know the same now. Every few steps each account is equal to
 * the micro-unit, sums to 0 by currency, and every view that must be empty is. In the
 * end every bundle holds to the agreed prices.
 *
 * test_history [SEED [STEPS]], or NEARGPU_SEED and NEARGPU_STEPS; NEARGPU_TRACE prints
 * each event. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "tests/db/history_run.h"
#include "tests/unit/unit.h"

static int steps = 1000;

START_TEST(market_is_there)
{
    run_plant();
}
END_TEST

START_TEST(histories)
{
    run_steps(steps);
}
END_TEST

START_TEST(prices)
{
    run_check_prices();
}
END_TEST

int main(int argc, char **argv)
{
    const char *text = argc > 1 ? argv[1] : getenv("NEARGPU_SEED"),
               *count = argc > 2 ? argv[2] : getenv("NEARGPU_STEPS");
    unsigned seed =
        text != NULL ? (unsigned)strtoul(text, NULL, 10) : (unsigned)time(NULL);
    setenv("CK_FORK", "no", 1); /* one database for all cases */
    if (count != NULL)
        steps = (int)strtol(count, NULL, 10);
    printf("seed %u\n", seed);
    fflush(stdout);
    run_open(seed);
    Suite *suite = suite_create("history");
    TCase *tc = tcase_create("history");
    tcase_set_timeout(tc, 0);
    tcase_add_test(tc, market_is_there);
    tcase_add_test(tc, histories);
    tcase_add_test(tc, prices);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    run_report();
    run_close();
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
