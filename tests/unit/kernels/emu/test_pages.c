/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of kernels/cuda/pages.c: random steps against a list of who holds what. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/pages.h"
#include "tests/unit/suite.h"

#define SLOTS   4u
#define CONTEXT 50u
#define SIZE    8u
#define STOCK   17u /* fewer than four whole slots need */
#define ROWS    30u

static uint64_t rng;

static uint32_t below(uint32_t limit)
{
    uint64_t z = (rng += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ (z >> 31)) % limit);
}

static uint32_t pages_of(uint32_t positions)
{
    return (positions + SIZE - 1) / SIZE;
}

/* Every page is in the stock or in one table, once; tables are as long as their positions need. */
static void check_whole(const struct pages *p, const uint32_t *used)
{
    uint32_t seen[STOCK] = {0};
    for (uint32_t i = 0; i < p->stock_count; i++)
        seen[p->stock[i]]++;
    for (uint32_t s = 0; s < SLOTS; s++) {
        ck_assert_uint_eq(p->used[s], used[s]);
        ck_assert_uint_eq(p->held[s], pages_of(used[s]));
        for (uint32_t i = 0; i < p->held[s]; i++)
            seen[p->tables[s * p->stride + i]]++;
    }
    for (uint32_t i = 0; i < STOCK; i++)
        ck_assert_uint_eq(seen[i], 1);
}

/* A slot's rows from a place that is allowed; its table up to there stays as it was. */
static void step(struct pages *p, uint32_t *used)
{
    struct exec_row rows[ROWS];
    uint32_t after[SLOTS];
    uint32_t kept[SLOTS];
    uint32_t old[SLOTS * 8];
    size_t count = 0;
    uint32_t needed = 0;
    memcpy(after, used, sizeof(after));
    memcpy(old, p->tables, SLOTS * p->stride * sizeof(old[0]));
    for (uint32_t s = 0; s < SLOTS; s++)
        kept[s] = pages_of(used[s]);
    for (uint32_t s = below(SLOTS); s < SLOTS; s += 1 + below(2)) {
        uint32_t at = used[s] && below(4) == 0 ? below(used[s]) : used[s];
        const uint32_t begin = at;
        for (uint32_t n = 1 + below(20); n && at < CONTEXT && count < ROWS; n--)
            rows[count++] = (struct exec_row){s, at++, 0, false, false};
        if (at != begin)
            after[s] = at;
    }
    for (uint32_t s = 0; s < SLOTS; s++)
        needed += pages_of(after[s]);
    if (count == 0)
        return;
    const int rc = pages_take(p, rows, count);
    ck_assert_int_eq(rc, needed > STOCK ? -ENOSPC : 0);
    if (rc == 0)
        memcpy(used, after, sizeof(after));
    for (uint32_t s = 0; s < SLOTS; s++)
        for (uint32_t i = 0; i < kept[s] && i < pages_of(used[s]); i++)
            ck_assert_uint_eq(p->tables[s * p->stride + i], old[s * p->stride + i]);
    if (rc == 0 && below(5) == 0) {
        pages_forget(p, rows, count);
        for (size_t i = count; i-- > 0;)
            used[rows[i].slot] = rows[i].position;
    }
}

START_TEST(random_steps)
{
    struct pages p;
    uint32_t used[SLOTS] = {0};
    rng = (uint64_t)_i;
    ck_assert_int_eq(pages_init(&p, SLOTS, CONTEXT, SIZE, STOCK), 0);
    for (int n = 0; n < 300; n++) {
        step(&p, used);
        check_whole(&p, used);
        if (below(10) == 0) { /* a slot begins again */
            const struct exec_row row = {below(SLOTS), 0, 0, false, false};
            ck_assert_int_eq(pages_take(&p, &row, 1), 0);
            used[row.slot] = 1;
        }
    }
    pages_deinit(&p);
}
END_TEST

/* A slot that was placed takes nothing from the stock and gives nothing back. */
START_TEST(placed_slots_leave_the_stock_alone)
{
    struct pages p;
    static const uint32_t list[] = {3, 1};
    static const uint32_t absent[] = {STOCK};
    ck_assert_int_eq(pages_init(&p, SLOTS, CONTEXT, SIZE, STOCK), 0);
    const struct exec_row own = {0, 0, 0, false, false};
    ck_assert_int_eq(pages_take(&p, &own, 1), 0);
    ck_assert_uint_eq(p.stock_count, STOCK - 1);
    p.is_changed = false;
    ck_assert_int_eq(pages_place(&p, 0, list, 2, SIZE), 0);
    ck_assert_uint_eq(p.stock_count, STOCK);
    ck_assert(p.is_changed && p.tables[0] == 3 && p.tables[1] == 1);
    const struct exec_row behind = {0, SIZE, 0, false, false};
    const struct exec_row beyond = {0, SIZE + 1, 0, false, false};
    ck_assert_int_eq(pages_take(&p, &beyond, 1), -EINVAL);
    ck_assert_int_eq(pages_take(&p, &behind, 1), 0);
    pages_forget(&p, &behind, 1);
    ck_assert_int_eq(pages_take(&p, &own, 1), 0);
    ck_assert_uint_eq(p.stock_count, STOCK);
    ck_assert_uint_eq(p.held[0], 2);
    const struct exec_row outside = {0, 2 * SIZE, 0, false, false};
    p.used[0] = 2 * SIZE;
    ck_assert_int_eq(pages_take(&p, &outside, 1), -EINVAL);
    ck_assert_int_eq(pages_place(&p, SLOTS, list, 2, 0), -EINVAL);
    ck_assert_int_eq(pages_place(&p, 0, absent, 1, 0), -EINVAL);
    ck_assert_int_eq(pages_place(&p, 0, list, 2, 2 * SIZE + 1), -EINVAL);
    pages_deinit(&p);
}
END_TEST

START_TEST(bad_rows_change_nothing)
{
    struct pages p;
    const uint32_t used[SLOTS] = {0};
    const struct exec_row bad[][2] = {{{SLOTS, 0, 0, false, false}, {0, 0, 0, false, false}},
                                      {{0, 0, 0, false, false}, {0, 2, 0, false, false}},
                                      {{0, 0, 0, false, false}, {1, 1, 0, false, false}},
                                      {{0, CONTEXT, 0, false, false}, {1, 0, 0, false, false}}};
    ck_assert_int_eq(pages_init(&p, SLOTS, CONTEXT, SIZE, STOCK), 0);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ck_assert_int_eq(pages_take(&p, bad[i], 2), -EINVAL);
        check_whole(&p, used);
        ck_assert(!p.is_changed);
    }
    const struct exec_row split[] = {
        {0, 0, 0, false, false}, {1, 0, 0, false, false}, {0, 1, 0, false, false}};
    ck_assert_int_eq(pages_take(&p, split, 3), -EINVAL);
    check_whole(&p, used);
    pages_deinit(&p);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("cuda_pages");
    TCase *tcase = tcase_create("pages");
    tcase_add_loop_test(tcase, random_steps, 0, 20);
    tcase_add_test(tcase, placed_slots_leave_the_stock_alone);
    tcase_add_test(tcase, bad_rows_change_nothing);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
