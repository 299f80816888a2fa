/* SPDX-License-Identifier: Apache-2.0 */
/* main_of.h - the end of a test file that has one group of cases: MAIN_OF("name", case, ...). */
#pragma once

#include <check.h>
#include <stddef.h>

#include "tests/unit/suite.h"

static inline int main_of(const char *name, const TTest *const *cases, size_t count)
{
    Suite *suite = suite_create(name);
    TCase *tcase = tcase_create(name);
    for (size_t i = 0; i < count; i++) {
        tcase_add_test(tcase, cases[i]);
    }
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}

#define MAIN_OF(name, ...)                                                                         \
    int main(void)                                                                                 \
    {                                                                                              \
        const TTest *const cases[] = {__VA_ARGS__};                                                \
        return main_of(name, cases, sizeof(cases) / sizeof(cases[0]));                             \
    }
