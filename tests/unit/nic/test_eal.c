/* SPDX-License-Identifier: Apache-2.0 */
/* test_eal.c - what EAL is told of lcores, whatever CPUs a container leaves to the process. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/nic/eal.h"
#include "tests/unit/suite.h"

static char text[EAL_LCORES_BYTES];

static const char *told(uint32_t lcores, const char *cpus)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (size_t i = 0; cpus[i] != '\0'; i++) {
        if (cpus[i] == 'x') {
            CPU_SET(i, &set);
        }
    }
    eal_lcores(text, sizeof(text), lcores, &set);
    return text;
}

START_TEST(ranges_and_single_ones)
{
    ck_assert_str_eq(told(1, "x"), "(0-0)@(0)");
    ck_assert_str_eq(told(2, "xxxx"), "(0-1)@(0-3)");
    ck_assert_str_eq(told(16, ".x.xx..x"), "(0-15)@(1,3-4,7)");
}
END_TEST

/* Every other thread of the largest machine there is, as many lcores as there may be. */
START_TEST(all_have_room)
{
    char cpus[CPU_SETSIZE + 1];
    size_t commas = 0;
    for (size_t i = 0; i < CPU_SETSIZE; i++) {
        cpus[i] = i % 2 == 0 ? 'x' : '.';
    }
    cpus[CPU_SETSIZE] = '\0';
    const char *end = told(NIC_LCORES_MAX, cpus);
    for (size_t i = 0; end[i] != '\0'; i++) {
        commas += end[i] == ',';
    }
    ck_assert_uint_eq(commas, CPU_SETSIZE / 2 - 1);
    ck_assert_str_eq(end + strlen(end) - 5, "1022)");
}
END_TEST

START_TEST(what_does_not_fit_is_left_out_whole)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    for (size_t i = 0; i < CPU_SETSIZE; i += 2) {
        CPU_SET(i, &set);
    }
    for (size_t size = 32; size < 64; size++) {
        eal_lcores(text, size, 4, &set);
        ck_assert_uint_lt(strlen(text), size);
        ck_assert_int_eq(text[strlen(text) - 1], ')');
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("eal");
    TCase *tc = tcase_create("lcores");
    tcase_add_test(tc, ranges_and_single_ones);
    tcase_add_test(tc, all_have_room);
    tcase_add_test(tc, what_does_not_fit_is_left_out_whole);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
