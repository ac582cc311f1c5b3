/* unit: main() of a one-suite check program. Usage: a file of tcases ending in
 * UNIT_MAIN("module", UNIT_CASE(test_a) UNIT_CASE(test_b)). CK_FORK=no to debug. */
#ifndef NEARGPU_UNIT_H
#define NEARGPU_UNIT_H
#include <check.h>
#include <stdlib.h>

#define UNIT_CASE(fn) tcase_add_test(tc, fn);
#define UNIT_MAIN(name, cases)                                                     \
    int main(int argc, char **argv)                                                \
    {                                                                              \
        /* Code under test may run /proc/self/exe again as a helper: not the whole \
         * suite. */                                                               \
        (void)argv;                                                                \
        if (argc > 1)                                                              \
            return EXIT_FAILURE;                                                   \
        Suite *suite = suite_create(name);                                         \
        TCase *tc = tcase_create(name);                                            \
        tcase_set_timeout(tc, 120);                                                \
        cases suite_add_tcase(suite, tc);                                          \
        SRunner *runner = srunner_create(suite);                                   \
        srunner_run_all(runner, CK_NORMAL);                                        \
        int failed = srunner_ntests_failed(runner);                                \
        srunner_free(runner);                                                      \
        return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;                          \
    }
#endif
