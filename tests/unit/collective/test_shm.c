/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of kernels/collective/shm.c: real processes that add, gather and broadcast; one that dies,
 * leaves, or stands still. */
#include <check.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/collective/collective.h"
#include "tests/unit/suite.h"

#define COUNT_MAX  3000u
#define PART_BYTES 1024u /* so that long data takes several meetings */
#define ROUNDS     60u
#define STILL_MS   3000u /* they have to find each other in it as well */
#define LIMIT_MS   20000u

/* What a rank does; its return value is the process's status. */
typedef int (*rank_fn)(struct collective *c);

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* Element i of a rank's data in a round: no two sums of it are alike in another order. */
static float value(uint32_t rank, uint32_t round, size_t i)
{
    return (float)(mix(rank * 7919u + round * 104729u + i * 31u + 1) >> 40) * 0x1p-20f - 8.0f;
}

static uint32_t count_of(uint32_t round)
{
    return 1 + (uint32_t)(mix(round + 5) % COUNT_MAX);
}

static bool sums_are_right(struct collective *c, uint32_t round)
{
    static float data[COUNT_MAX];
    const uint32_t count = count_of(round);
    for (uint32_t i = 0; i < count; i++)
        data[i] = value(c->rank, round, i);
    if (collective_allreduce(c, data, count))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        float sum = value(0, round, i);
        for (uint32_t r = 1; r < c->ranks; r++)
            sum += value(r, round, i);
        if (sum != data[i]) /* in every bit */
            return false;
    }
    return true;
}

static bool gathered_is_right(struct collective *c, uint32_t round)
{
    static uint8_t all[COLLECTIVE_RANKS_MAX * COUNT_MAX];
    uint8_t mine[COUNT_MAX];
    const uint32_t size = count_of(round);
    memset(mine, (int)(c->rank * 16 + round % 16), size);
    if (collective_allgather(c, mine, size, all))
        return false;
    for (uint32_t i = 0; i < size * c->ranks; i++)
        if (all[i] != (uint8_t)(i / size * 16 + round % 16))
            return false;
    return true;
}

static bool broadcast_is_right(struct collective *c, uint32_t round)
{
    uint8_t data[COUNT_MAX];
    const uint32_t size = count_of(round);
    const uint32_t root = round % c->ranks;
    memset(data, c->rank == root ? (int)(round % 251) : 255, size);
    if (collective_broadcast(c, data, size, root))
        return false;
    for (uint32_t i = 0; i < size; i++)
        if (data[i] != round % 251)
            return false;
    return true;
}

static int do_all(struct collective *c)
{
    for (uint32_t round = 0; round < ROUNDS; round++)
        if (!sums_are_right(c, round) || !gathered_is_right(c, round) ||
            !broadcast_is_right(c, round))
            return 1;
    return collective_broadcast(c, NULL, 1, c->ranks) == -EINVAL ? 0 : 2;
}

/* Starts the ranks; `pids` gets their processes. */
static void start(uint32_t ranks, uint32_t timeout_ms, rank_fn fn, pid_t *pids)
{
    const int fd = collective_shm_create(ranks, PART_BYTES);
    ck_assert_int_ge(fd, 0);
    for (uint32_t r = 0; r < ranks; r++) {
        pids[r] = fork();
        ck_assert_int_ge(pids[r], 0);
        if (pids[r] == 0) {
            struct collective *c;
            if (collective_shm_join(&c, fd, r, timeout_ms))
                _exit(99);
            const int status = fn(c);
            collective_destroy(c);
            _exit(status);
        }
    }
    close(fd);
}

static void expect(pid_t pid, int status)
{
    int got;
    ck_assert_int_eq(waitpid(pid, &got, 0), pid);
    ck_assert_msg(WIFEXITED(got) && WEXITSTATUS(got) == status, "status 0x%x, not exit %d", got,
                  status);
}

START_TEST(all_ranks_agree)
{
    static const uint32_t sizes[] = {1, 2, 3, 4, 8};
    pid_t pids[COLLECTIVE_RANKS_MAX];
    start(sizes[_i], LIMIT_MS, do_all, pids);
    for (uint32_t r = 0; r < sizes[_i]; r++)
        expect(pids[r], 0);
}
END_TEST

/* Adds until it fails; how, becomes the status. */
static int add_until_broken(struct collective *c)
{
    float data[4] = {0};
    for (;;) {
        const int rc = collective_allreduce(c, data, 4);
        if (rc) {
            const bool again = collective_allreduce(c, data, 4) == rc; /* it stays broken */
            return again && collective_check(c) ? -rc : 98;
        }
    }
}

static int add_then_die(struct collective *c)
{
    float data[4] = {0};
    for (int i = 0; i < 50; i++)
        (void)collective_allreduce(c, data, 4);
    if (c->rank == 1)
        (void)raise(SIGKILL);
    return add_until_broken(c);
}

static int add_then_leave(struct collective *c)
{
    float data[4] = {0};
    for (int i = 0; i < 50; i++)
        (void)collective_allreduce(c, data, 4);
    return c->rank == 1 ? 0 : add_until_broken(c);
}

static int add_then_stop(struct collective *c)
{
    float data[4] = {0};
    for (int i = 0; i < 50; i++)
        (void)collective_allreduce(c, data, 4);
    if (c->rank == 1)
        (void)raise(SIGSTOP);
    return add_until_broken(c);
}

START_TEST(a_dead_rank_is_noticed)
{
    pid_t pids[3];
    int status;
    start(3, 0, add_then_die, pids); /* no limit but death */
    ck_assert_int_eq(waitpid(pids[1], &status, 0), pids[1]);
    ck_assert(WIFSIGNALED(status));
    expect(pids[0], EPIPE);
    expect(pids[2], EPIPE);
}
END_TEST

START_TEST(a_rank_that_leaves_is_noticed)
{
    pid_t pids[3];
    start(3, 0, add_then_leave, pids);
    expect(pids[1], 0);
    expect(pids[0], EPIPE);
    expect(pids[2], EPIPE);
}
END_TEST

START_TEST(a_rank_that_stands_still_is_noticed)
{
    pid_t pids[3];
    int status;
    start(3, STILL_MS, add_then_stop, pids);
    ck_assert_int_eq(waitpid(pids[1], &status, WUNTRACED), pids[1]);
    ck_assert(WIFSTOPPED(status));
    expect(pids[0], ETIMEDOUT);
    expect(pids[2], ETIMEDOUT);
    kill(pids[1], SIGCONT); /* too late */
    expect(pids[1], ETIMEDOUT);
}
END_TEST

START_TEST(bad_joins_are_refused)
{
    struct collective *c;
    struct collective *second;
    ck_assert_int_eq(collective_shm_create(0, 64), -EINVAL);
    ck_assert_int_eq(collective_shm_create(COLLECTIVE_RANKS_MAX + 1, 64), -EINVAL);
    ck_assert_int_eq(collective_shm_create(1, 0), -EINVAL);
    const int fd = collective_shm_create(1, 64);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(collective_shm_join(&c, fd, 1, 100), -EINVAL);
    ck_assert_int_eq(collective_shm_join(&c, fd, 0, 100), 0);
    ck_assert_int_eq(collective_shm_join(&second, fd, 0, 100), -EBUSY);
    collective_destroy(c);
    ck_assert_int_eq(ftruncate(fd, 4096), 0);
    ck_assert_int_eq(collective_shm_join(&c, fd, 0, 100), -EINVAL);
    close(fd);
    const int alone = collective_shm_create(2, 64);
    ck_assert_int_ge(alone, 0);
    ck_assert_int_eq(collective_shm_join(&c, alone, 0, 50), -ETIMEDOUT); /* nobody else comes */
    close(alone);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shm");
    TCase *tcase = tcase_create("shm");
    tcase_add_loop_test(tcase, all_ranks_agree, 0, 5);
    tcase_add_test(tcase, a_dead_rank_is_noticed);
    tcase_add_test(tcase, a_rank_that_leaves_is_noticed);
    tcase_add_test(tcase, a_rank_that_stands_still_is_noticed);
    tcase_add_test(tcase, bad_joins_are_refused);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
