/* SPDX-License-Identifier: Apache-2.0 */
/* test_dht.c - the tables that zones are compared with: what is lost by a kill, and mending it. */
#include <check.h>
#include <stdlib.h>

#include "bench/mesh/askers.h"
#include "tests/unit/suite.h"

#define NODES   400u
#define LOOKUPS 200u

static struct askers askers;

static void start(void)
{
    struct world_options options = {.nodes = NODES, .seed = 3};
    ck_assert_int_eq(askers_init(&askers, &options), 0);
}

static void end(void)
{
    askers_deinit(&askers);
}

/* Share of the rows' places that are dead. */
static double dead_share(const struct dht *d)
{
    const uint32_t *all = d->finger != NULL ? d->finger : d->table;
    size_t count = (size_t)NODES * DHT_BUCKETS * (d->finger != NULL ? 1 : DHT_K);
    size_t dead = 0;
    size_t known = 0;
    for (size_t i = 0; i < count; i++) {
        if (all[i] != UINT32_MAX) {
            known++;
            dead += askers.alive[d->nodes[all[i]]] ? 0 : 1;
        }
    }
    return (double)dead / (double)known;
}

static double mean_ms(enum system system)
{
    struct task task = {.cell_count = 1, .holding_count = 1};
    double sum = 0.0;
    for (uint32_t i = 0; i < LOOKUPS; i++) {
        uint32_t cell = i % 5;
        task.cells = &cell;
        task.asker = i;
        while (!askers.alive[task.asker]) {
            task.asker++;
        }
        struct answer answer = askers_table(&askers, system, &task);
        sum += (double)answer.sure_ns / 1e6;
    }
    return sum / LOOKUPS;
}

START_TEST(what_is_mended_is_as_before)
{
    struct dht *tables[] = {&askers.plain, &askers.near, &askers.chord, &askers.chord_near};
    static const enum system systems[] = {KAD3, KAD3_PNS, CHORD, CHORD_PNS};
    double before = mean_ms(systems[_i]);
    ck_assert(dead_share(tables[_i]) == 0.0);
    askers_kill(&askers, 0.2);
    double lost = dead_share(tables[_i]);
    double killed = mean_ms(systems[_i]);
    ck_assert(lost > 0.1 && lost < 0.3);
    ck_assert_msg(killed > 1.1 * before, "%.1f ms before, %.1f after the kill", before, killed);
    dht_mend(tables[_i], askers.alive, 0.5);
    ck_assert(dead_share(tables[_i]) > 0.3 * lost && dead_share(tables[_i]) < 0.7 * lost);
    dht_mend(tables[_i], askers.alive, 1.0);
    ck_assert(dead_share(tables[_i]) == 0.0);
    double mended = mean_ms(systems[_i]);
    ck_assert_msg(mended - before < (killed - before) / 2, "%.1f ms before, %.1f, %.1f after",
                  before, killed, mended);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("dht");
    TCase *cases = tcase_create("dht");
    tcase_add_checked_fixture(cases, start, end);
    tcase_add_loop_test(cases, what_is_mended_is_as_before, 0, 4);
    suite_add_tcase(suite, cases);
    return suite_main(suite);
}
