/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_round.c - the order in which a node asks the others (controlplane/swim/table.c): each once a
 * round, whoever comes and goes meanwhile, and who has been silent for longest before others.
 */
#include <check.h>

#include "controlplane/swim/state.h"
#include "schemas/base/clock.h"
#include "schemas/base/rng.h"
#include "tests/sim/cluster.h"
#include "tests/unit/suite.h"

#define NODES  24u
#define ROUNDS 200u

static const struct delay near = {.kind = DELAY_CONSTANT, .constant_ns = 500 * NS_PER_US};

static struct cluster *met(void)
{
    struct cluster *cluster;
    struct cluster_options options = {.nodes = NODES, .seed = 7, .delay = &near};
    struct cluster_hooks hooks = {0};
    ck_assert_int_eq(cluster_create(&cluster, &options, &hooks), 0);
    for (uint32_t i = 0; i < NODES; i++) {
        cluster_start(cluster, i);
    }
    vnet_run(cluster->vnet, 30 * NS_PER_S);
    ck_assert(cluster_agrees(cluster));
    return cluster;
}

/* Somebody goes, or who was gone comes back. Returns its slot. */
static uint32_t change_one(struct swim *swim, struct rng *rng)
{
    static struct swim_out out;
    uint32_t slot = 1 + rng_below(rng, swim->slots - 1);
    struct member *member = &swim->members[slot];
    out.event_count = out.datagram_count = 0;
    member_set_status(swim, member, member_is_live(member) ? SWIM_DEAD : SWIM_ALIVE, swim->last_ns,
                      &out);
    return slot;
}

START_TEST(everybody_once_a_round)
{
    struct rng rng = {.state = suite_seed(3)};
    struct cluster *cluster = met();
    struct swim *swim = cluster->nodes[0];
    swim->live_next = swim->live_count;
    for (uint32_t round = 0; round < ROUNDS; round++) {
        uint32_t asked[NODES] = {0};
        bool changed[NODES] = {0};
        live_shuffle(swim);
        swim->live_next = 0;
        while (swim->live_next < swim->live_count) {
            if (rng_below(&rng, 4) == 0) {
                changed[change_one(swim, &rng)] = true;
                continue;
            }
            asked[live_take_next(swim)]++;
        }
        changed[change_one(swim, &rng)] = true; /* with nobody left to ask */
        for (uint32_t at = 0; at < swim->live_count; at++) {
            ck_assert_uint_eq(swim->members[swim->live[at]].live_at, at);
        }
        for (uint32_t slot = 1; slot < swim->slots; slot++) {
            if (!changed[slot]) {
                ck_assert_uint_eq(asked[slot], member_is_live(&swim->members[slot]) ? 1 : 0);
            }
        }
    }
    cluster_destroy(cluster);
}
END_TEST

START_TEST(the_silent_first)
{
    struct cluster *cluster = met();
    struct swim *swim = cluster->nodes[0];
    live_shuffle(swim);
    swim->live_next = 0;
    uint32_t last = swim->live[7];
    swim->members[last].heard_ns = 1;
    ck_assert_uint_eq(live_take_next(swim), last);
    cluster_destroy(cluster);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swim_round");
    TCase *cases = tcase_create("round");
    tcase_set_timeout(cases, 60);
    tcase_add_test(cases, everybody_once_a_round);
    tcase_add_test(cases, the_silent_first);
    suite_add_tcase(suite, cases);
    return suite_main(suite);
}
