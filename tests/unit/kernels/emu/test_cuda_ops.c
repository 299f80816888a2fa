/* SPDX-License-Identifier: Apache-2.0 */
/* Every case of tests/gpu/cases.h on the emulator: each round with another seed, and with blocks
 * and threads in another order. */
#include <check.h>
#include <stdlib.h>

#include "tests/emu/emu.h"
#include "tests/gpu/cases.h"
#include "tests/unit/suite.h"

START_TEST(case_holds)
{
    const struct gpu_case *which = &gpu_cases[_i];
    struct device device;
    ck_assert_int_eq(device_open(&device, 0), 0);
    const size_t before = emu_allocated_bytes();
    for (uint32_t round = 0; round < which->rounds; round++) {
        const uint64_t seed = (uint64_t)(_i + 1) * 1000003u + round;
        emu_set_order(round);
        const char *failure = gpu_case_run(which, &device, seed);
        const char *fault = emu_fault();
        ck_assert_msg(!fault, "%s round %u: %s", which->name, round, fault);
        ck_assert_msg(!failure[0], "%s round %u: %s", which->name, round, failure);
        ck_assert_uint_eq(emu_allocated_bytes(), before);
    }
    device_close(&device);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cuda_ops");
    TCase *tcase = tcase_create("cases");
    tcase_add_loop_test(tcase, case_holds, 0, (int)gpu_case_count);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
