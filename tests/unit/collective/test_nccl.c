/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of kernels/collective/nccl.c with a world of one, all that a single GPU can hold: NCCL
 * refuses two ranks on one. Skipped (77) without a GPU. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>

#include "kernels/collective/collective.h"
#include "kernels/cuda/device.h"

#define COUNT 1000u

static struct device device;

START_TEST(world_of_one)
{
    uint8_t id[COLLECTIVE_NCCL_ID_BYTES];
    struct collective *c;
    float data[COUNT];
    float got[COUNT];
    void *there;
    void *all;
    for (uint32_t i = 0; i < COUNT; i++)
        data[i] = (float)i;
    ck_assert_int_eq(collective_nccl_id(id), 0);
    ck_assert_int_eq(collective_nccl_join(&c, id, 1, 1, device.stream), -EINVAL);
    ck_assert_int_eq(collective_nccl_join(&c, id, 0, 1, device.stream), 0);
    ck_assert_int_eq(device_alloc(&there, sizeof(data)), 0);
    ck_assert_int_eq(device_alloc(&all, sizeof(data)), 0);
    ck_assert_int_eq(device_copy(&device, there, data, sizeof(data)), 0);
    ck_assert_int_eq(collective_allreduce(c, there, COUNT), 0);
    ck_assert_int_eq(collective_broadcast(c, there, sizeof(data), 0), 0);
    ck_assert_int_eq(collective_allgather(c, there, sizeof(data), all), 0);
    ck_assert_int_eq(device_copy(&device, got, all, sizeof(got)), 0);
    ck_assert_int_eq(device_wait(&device), 0);
    ck_assert_int_eq(collective_check(c), 0);
    ck_assert_mem_eq(got, data, sizeof(data));
    collective_destroy(c);
    device_free(there);
    device_free(all);
}
END_TEST

int main(void)
{
    if (device_open(&device, 0))
        return 77;
    Suite *suite = suite_create("nccl");
    TCase *tcase = tcase_create("nccl");
    tcase_add_test(tcase, world_of_one);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    device_close(&device);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
