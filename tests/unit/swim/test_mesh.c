/* SPDX-License-Identifier: Apache-2.0 */
/* test_mesh.c - whole meshes in virtual time: loss, far places, odd clocks; a seed is a run. */
#include <check.h>

#include <stdlib.h>
#include <string.h>

#include "tests/sim/cluster.h"
#include "tests/unit/suite.h"

#define WAKING_BYTES_MAX 20000u /* of 32 nodes: it answers each of them, and its record is news */
#define SLOW_BYTES_S_MAX 1250u  /* of 32 nodes, one of them standing still for 3 of 5 s */

struct tally {
    uint32_t dead;
    uint64_t last_dead_ns;
};

static void count_dead(struct cluster *cluster, uint32_t node, const struct swim_event *event,
                       void *user)
{
    struct tally *tally = user;
    (void)node;
    if (event->type == SWIM_EVENT_DEAD) {
        tally->dead++;
        tally->last_dead_ns = vnet_now_ns(cluster->vnet);
    }
}

static struct cluster *begin(const struct cluster_options *options, struct tally *tally)
{
    struct cluster *cluster;
    struct cluster_hooks hooks = {.event = count_dead, .user = tally};
    memset(tally, 0, sizeof(*tally));
    ck_assert_int_eq(cluster_create(&cluster, options, &hooks), 0);
    for (uint32_t i = 0; i < options->nodes; i++) {
        cluster_start(cluster, i);
    }
    vnet_run(cluster->vnet, 30 * NS_PER_S);
    return cluster;
}

static const struct delay near = {.kind = DELAY_CONSTANT, .constant_ns = 500 * NS_PER_US};
static const struct delay far = {.kind = DELAY_CONSTANT, .constant_ns = 150 * NS_PER_MS};

START_TEST(a_death_is_known_to_all_soon)
{
    struct tally tally;
    struct cluster_options options = {
        .nodes = 32, .seed = 5 + (uint64_t)_i, .delay = &near, .odd_clocks = true};
    struct cluster *cluster = begin(&options, &tally);
    ck_assert(cluster_agrees(cluster));
    ck_assert_uint_eq(tally.dead, 0);
    uint64_t kill_ns = vnet_now_ns(cluster->vnet);
    cluster_crash(cluster, 9);
    vnet_run(cluster->vnet, kill_ns + 10 * NS_PER_S);
    ck_assert_uint_eq(tally.dead, 31);
    ck_assert_uint_le(tally.last_dead_ns, kill_ns + 6 * NS_PER_S);
    ck_assert(cluster_agrees(cluster));
    cluster_destroy(cluster);
}
END_TEST

/* 300 ms there and back, a fifth of all datagrams lost: nobody dies of it in five minutes. */
START_TEST(far_and_lossy_is_not_dead)
{
    struct tally tally;
    struct cluster_options options = {
        .nodes = 16, .seed = 3, .delay = &far, .jitter = 0.2, .loss = 0.2};
    struct cluster *cluster = begin(&options, &tally);
    vnet_run(cluster->vnet, 300 * NS_PER_S);
    ck_assert_uint_eq(tally.dead, 0);
    cluster_destroy(cluster);
}
END_TEST

/* Answers take 1.2 s, six times what is expected of an unknown way: as on a machine with far too
 * much to do. The mesh comes together, and nobody dies. */
START_TEST(a_slow_way_is_learned)
{
    static const struct delay slow = {.kind = DELAY_CONSTANT, .constant_ns = 600 * NS_PER_MS};
    struct tally tally;
    struct cluster_options options = {.nodes = 32, .seed = 7, .delay = &slow, .jitter = 0.1};
    struct cluster *cluster = begin(&options, &tally);
    vnet_run(cluster->vnet, 60 * NS_PER_S);
    ck_assert(cluster_agrees(cluster));
    tally.dead = 0;
    vnet_run(cluster->vnet, 300 * NS_PER_S);
    ck_assert_uint_eq(tally.dead, 0);
    ck_assert(cluster_agrees(cluster));
    cluster_destroy(cluster);
}
END_TEST

/* What a quiet node sends does not grow with the mesh. */
START_TEST(quiet_costs_the_same_at_any_size)
{
    static const uint32_t sizes[] = {4, 16, 64};
    for (unsigned i = 0; i < 3; i++) {
        struct tally tally;
        struct cluster_options options = {.nodes = sizes[i], .seed = 1, .delay = &near};
        struct cluster *cluster = begin(&options, &tally);
        uint64_t before = cluster_bytes(cluster);
        vnet_run(cluster->vnet, 90 * NS_PER_S);
        double rate = (double)(cluster_bytes(cluster) - before) / sizes[i] / 60.0;
        ck_assert_double_le(rate, 325.0);
        ck_assert_double_ge(rate, 100.0);
        cluster_destroy(cluster);
    }
}
END_TEST

static uint64_t run_of(uint64_t seed)
{
    struct tally tally;
    struct cluster_options options = {.nodes = 8,
                                      .seed = seed,
                                      .delay = &near,
                                      .loss = 0.1,
                                      .jitter = 0.3,
                                      .odd_clocks = true,
                                      .corrupted = 0.01,
                                      .replayed = 0.02};
    struct cluster *cluster = begin(&options, &tally);
    cluster_crash(cluster, 3);
    vnet_run(cluster->vnet, 60 * NS_PER_S);
    uint64_t fingerprint = vnet_fingerprint(cluster->vnet);
    cluster_destroy(cluster);
    return fingerprint;
}

/* Whoever has stood still finds everybody's votes about it waiting: each sender hears once that it
 * lives, and not for each vote. */
START_TEST(who_is_back_does_not_answer_each_vote)
{
    struct tally tally;
    struct cluster_options options = {.nodes = 32, .seed = 11, .delay = &near};
    struct cluster *cluster = begin(&options, &tally);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < 10; i++) {
        vnet_freeze(cluster->vnet, 7, 2 * NS_PER_S);
        vnet_run(cluster->vnet, vnet_now_ns(cluster->vnet) + 2 * NS_PER_S - NS_PER_US);
        bytes -= vnet_counters(cluster->vnet, 7)->sent_bytes;
        vnet_run(cluster->vnet, vnet_now_ns(cluster->vnet) + 10 * NS_PER_MS);
        bytes += vnet_counters(cluster->vnet, 7)->sent_bytes;
        vnet_run(cluster->vnet, vnet_now_ns(cluster->vnet) + 10 * NS_PER_S);
    }
    ck_assert_uint_lt(bytes / 10, WAKING_BYTES_MAX);
    ck_assert(cluster_agrees(cluster));
    cluster_destroy(cluster);
}
END_TEST

/* Who comes to stand still again and again costs all the others votes and refutations. */
START_TEST(a_member_that_stands_still_costs_little)
{
    struct tally tally;
    struct cluster_options options = {.nodes = 32, .seed = 12, .delay = &near};
    struct cluster *cluster = begin(&options, &tally);
    uint64_t bytes = cluster_bytes(cluster);
    for (uint32_t i = 0; i < 20; i++) {
        vnet_freeze(cluster->vnet, i, 3 * NS_PER_S);
        vnet_run(cluster->vnet, vnet_now_ns(cluster->vnet) + 5 * NS_PER_S);
    }
    bytes = (cluster_bytes(cluster) - bytes) / options.nodes / 100;
    ck_assert_msg(bytes < SLOW_BYTES_S_MAX, "%llu bytes/s a node", (unsigned long long)bytes);
    cluster_destroy(cluster);
}
END_TEST

#define LOST 7u /* in deafness(): dead, */
#define DEAF 3u /* and who hears nothing as soon as it suspects that */

struct deafness {
    uint64_t suspected_ns, dead_ns;
};

static void deaf_set(struct cluster *cluster, bool on)
{
    for (uint32_t i = 0; i < cluster->options.nodes; i++) {
        if (i != DEAF) {
            vnet_block(cluster->vnet, i, DEAF, on);
        }
    }
}

static void deafness(struct cluster *cluster, uint32_t node, const struct swim_event *event,
                     void *user)
{
    struct deafness *deafness = user;
    if (node != DEAF || event->uid != cluster->uids[LOST]) {
        return;
    }
    if (event->type == SWIM_EVENT_SUSPECT && deafness->suspected_ns == 0) {
        deafness->suspected_ns = vnet_now_ns(cluster->vnet);
        deaf_set(cluster, true);
    } else if (event->type == SWIM_EVENT_DEAD && deafness->dead_ns == 0) {
        deafness->dead_ns = vnet_now_ns(cluster->vnet);
    }
}

/* Gossip can miss a node: it asks for the votes that it lacks when others must have come to their
 * verdict, and does not wait as long as one that is alone with its observation. */
START_TEST(who_missed_votes_gets_them)
{
    struct deafness seen = {0};
    struct cluster_hooks hooks = {.event = deafness, .user = &seen};
    struct cluster_options options = {.nodes = 32, .seed = 20 + (uint64_t)_i, .delay = &near};
    struct cluster *cluster;
    ck_assert_int_eq(cluster_create(&cluster, &options, &hooks), 0);
    for (uint32_t i = 0; i < options.nodes; i++) {
        cluster_start(cluster, i);
    }
    vnet_run(cluster->vnet, 60 * NS_PER_S);
    ck_assert(cluster_agrees(cluster));
    cluster_crash(cluster, LOST);
    while (seen.suspected_ns == 0) {
        vnet_run(cluster->vnet, vnet_now_ns(cluster->vnet) + NS_PER_MS);
    }
    vnet_run(cluster->vnet, seen.suspected_ns + SWIM_SUSPECT_MIN_NS);
    deaf_set(cluster, false);
    vnet_run(cluster->vnet, seen.suspected_ns + 2 * SWIM_SUSPECT_MIN_NS);
    ck_assert_uint_ne(seen.dead_ns, 0);
    cluster_destroy(cluster);
}
END_TEST

START_TEST(a_seed_is_a_run)
{
    ck_assert_uint_eq(run_of(1), run_of(1));
    ck_assert_uint_ne(run_of(1), run_of(2));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swim_mesh");
    TCase *cases = tcase_create("mesh");
    tcase_set_timeout(cases, 240);
    tcase_add_loop_test(cases, a_death_is_known_to_all_soon, 0, 3);
    tcase_add_test(cases, far_and_lossy_is_not_dead);
    tcase_add_test(cases, a_slow_way_is_learned);
    tcase_add_test(cases, quiet_costs_the_same_at_any_size);
    tcase_add_test(cases, who_is_back_does_not_answer_each_vote);
    tcase_add_test(cases, a_member_that_stands_still_costs_little);
    tcase_add_loop_test(cases, who_missed_votes_gets_them, 0, 5);
    tcase_add_test(cases, a_seed_is_a_run);
    suite_add_tcase(suite, cases);
    return suite_main(suite);
}
