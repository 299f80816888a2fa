/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of kernels/collective/nccl.c with a world of one, all that a single GPU can hold: NCCL
 * refuses two ranks on one. Skipped (77) without a GPU. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernels/collective/collective.h"
#include "kernels/cuda/device.h"
#include "tests/unit/suite.h"

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
    struct collective_nccl how = {
        .id = id, .rank = 1, .ranks = 1, .stream = device.stream, .timeout_ms = 30000};
    ck_assert_int_eq(collective_nccl_join(&c, &how), -EINVAL);
    how.rank = 0;
    ck_assert_int_eq(collective_nccl_join(&c, &how), 0);
    ck_assert_int_eq(device_alloc(&there, sizeof(data)), 0);
    ck_assert_int_eq(device_alloc(&all, sizeof(data)), 0);
    ck_assert_int_eq(device_copy(&device, there, data, sizeof(data)), 0);
    ck_assert_int_eq(collective_allreduce(c, there, COUNT), 0);
    ck_assert_int_eq(collective_broadcast(c, there, sizeof(data), 0), 0);
    ck_assert_int_eq(collective_allgather(c, there, sizeof(data), all), 0);
    ck_assert_int_eq(device_copy(&device, got, all, sizeof(got)), 0);
    ck_assert_int_eq(device_mark(&device, 0), 0);
    ck_assert_int_eq(collective_wait(c, device.marks[0]), 0);
    ck_assert_int_eq(collective_check(c), 0);
    ck_assert_mem_eq(got, data, sizeof(data));
    void *window = collective_memory(c, sizeof(data));
    if (window) { /* NCCL decides */
        memset(got, 0xff, sizeof(got));
        ck_assert_int_eq(device_copy(&device, window, data, sizeof(data)), 0);
        ck_assert_int_eq(collective_allreduce(c, window, COUNT), 0);
        ck_assert_int_eq(device_copy(&device, got, window, sizeof(got)), 0);
        ck_assert_int_eq(device_wait(&device), 0);
        ck_assert_mem_eq(got, data, sizeof(data));
    }
    collective_destroy(c);
    device_free(there);
    device_free(all);
}
END_TEST

/* A socket whose other end has gone breaks the group, and it stays broken. */
START_TEST(a_line_that_ends)
{
    uint8_t id[COLLECTIVE_NCCL_ID_BYTES];
    struct collective *c;
    int pair[2];
    void *there;
    ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    ck_assert_int_eq(collective_nccl_id(id), 0);
    const struct collective_nccl how = {.id = id,
                                        .ranks = 1,
                                        .stream = device.stream,
                                        .timeout_ms = 30000,
                                        .lines = pair,
                                        .line_count = 1};
    ck_assert_int_eq(collective_nccl_join(&c, &how), 0);
    ck_assert_int_eq(collective_check(c), 0);
    close(pair[1]);
    ck_assert_int_eq(collective_check(c), -EPIPE);
    ck_assert_int_eq(device_alloc(&there, COUNT * sizeof(float)), 0);
    ck_assert_int_eq(collective_allreduce(c, there, COUNT), -EPIPE);
    collective_destroy(c);
    device_free(there);
    close(pair[0]);
}
END_TEST

int main(void)
{
    if (device_open(&device, 0))
        return 77;
    Suite *suite = suite_create("nccl");
    TCase *tcase = tcase_create("nccl");
    tcase_add_test(tcase, world_of_one);
    tcase_add_test(tcase, a_line_that_ends);
    suite_add_tcase(suite, tcase);
    int status = suite_main(suite);
    device_close(&device);
    return status;
}
