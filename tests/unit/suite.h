/* SPDX-License-Identifier: Apache-2.0 */
/* suite.h - what every main() of a check suite ends with, and the seeds of random cases. Exit
 * statuses are those that CMakeLists.txt tells ctest (weft_test). */
#pragma once

#include <check.h>
#include <stdint.h>
#include <stdlib.h>

#define SUITE_SKIPPED 77

/* Runs and frees the suite; the exit status of the program. CK_VERBOSITY, CK_FORK, CK_RUN_CASE and
 * the like are obeyed. */
static inline int suite_main(Suite *suite)
{
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* The seed of a test whose property holds for any: `usual`, or another one for each value of
 * WEFT_TEST_SEED. */
static inline uint64_t suite_seed(uint64_t usual)
{
    const char *text = getenv("WEFT_TEST_SEED");
    return text == NULL ? usual : usual + 1000003 * strtoull(text, NULL, 10);
}
