/* SPDX-License-Identifier: Apache-2.0 */
/* test_vnet.c - the virtual network: order, clocks, faults, and that a seed is a run. */
#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/mesh/events.h"
#include "bench/mesh/pairs.h"
#include "bench/mesh/vnet.h"
#include "schemas/base/clock.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define NODES 4u
#define LOG   64u

/* What came out, in order. */
struct log {
    struct vnet *vnet;
    unsigned count;
    struct {
        char kind; /* d, w, s */
        uint32_t node, from;
        uint64_t value, local_ns, true_ns;
    } all[LOG];
    unsigned wakes_left; /* asked for again from the hook */
    uint64_t every_ns;
};

static void log_add(struct log *log, char kind, uint32_t node, uint32_t from, uint64_t value,
                    uint64_t local_ns)
{
    ck_assert_uint_lt(log->count, LOG);
    log->all[log->count].kind = kind;
    log->all[log->count].node = node;
    log->all[log->count].from = from;
    log->all[log->count].value = value;
    log->all[log->count].local_ns = local_ns;
    log->all[log->count++].true_ns = vnet_now_ns(log->vnet);
}

static void on_datagram(uint32_t node, uint32_t from, const void *data, size_t size,
                        uint64_t local_ns, void *user)
{
    ck_assert_uint_ge(size, 1);
    log_add(user, 'd', node, from, *(const uint8_t *)data, local_ns);
}

static void on_wake(uint32_t node, uint64_t local_ns, void *user)
{
    struct log *log = user;
    log_add(log, 'w', node, 0, 0, local_ns);
    if (log->wakes_left > 0) {
        log->wakes_left--;
        vnet_wake(log->vnet, node, local_ns + log->every_ns);
    }
}

static void on_script(uint32_t node, uint64_t value, uint64_t true_ns, void *user)
{
    log_add(user, 's', node, 0, value, true_ns);
}

static const struct delay one_ms = {.kind = DELAY_CONSTANT, .constant_ns = NS_PER_MS};

static void network_begin(struct log *log, const struct vnet_options *options)
{
    struct vnet_hooks hooks = {
        .datagram = on_datagram, .wake = on_wake, .script = on_script, .user = log};
    memset(log, 0, sizeof(*log));
    ck_assert_int_eq(vnet_create(&log->vnet, options, &hooks), 0);
}

static const struct vnet_options plain = {.nodes = NODES, .seed = 1, .delay = &one_ms};

static void send_byte(struct log *log, uint32_t from, uint32_t to, uint8_t byte)
{
    vnet_send(log->vnet, from, to, &byte, 1);
}

START_TEST(events_come_in_order_of_time_then_of_asking)
{
    struct events events = {0};
    struct rng rng = {.state = 7};
    for (unsigned i = 0; i < 5000; i++) {
        struct event event = {.at_ns = rng_below(&rng, 500), .value = i};
        ck_assert_int_eq(events_push(&events, &event), 0);
        if (rng_below(&rng, 4) == 0) {
            events_pop(&events);
        }
    }
    struct event before = events_pop(&events);
    while (events_peek(&events) != NULL) {
        struct event next = events_pop(&events);
        ck_assert(next.at_ns > before.at_ns ||
                  (next.at_ns == before.at_ns && next.value > before.value));
        before = next;
    }
    events_deinit(&events);
}
END_TEST

START_TEST(pairs_are_a_set)
{
    struct pairs pairs = {0};
    struct rng rng = {.state = 3};
    static bool model[32][32];
    memset(model, 0, sizeof(model));
    for (unsigned i = 0; i < 20000; i++) {
        uint32_t a = rng_below(&rng, 32);
        uint32_t b = rng_below(&rng, 32);
        ck_assert_int_eq(pairs_has(&pairs, a, b), model[a][b]);
        model[a][b] = rng_below(&rng, 2) == 0;
        if (model[a][b]) {
            ck_assert_int_eq(pairs_add(&pairs, a, b), 0);
        } else {
            pairs_remove(&pairs, a, b);
        }
    }
    pairs_deinit(&pairs);
}
END_TEST

START_TEST(datagrams_take_their_time)
{
    struct log log;
    network_begin(&log, &plain);
    send_byte(&log, 0, 1, 10);
    vnet_run(log.vnet, NS_PER_MS - 1);
    ck_assert_uint_eq(log.count, 0);
    vnet_run(log.vnet, NS_PER_MS);
    ck_assert_uint_eq(log.count, 1);
    ck_assert_int_eq(log.all[0].kind, 'd');
    ck_assert_uint_eq(log.all[0].node, 1);
    ck_assert_uint_eq(log.all[0].from, 0);
    ck_assert_uint_eq(log.all[0].value, 10);
    ck_assert_uint_eq(vnet_counters(log.vnet, 0)->sent_bytes, 1 + VNET_OVERHEAD);
    ck_assert_uint_eq(vnet_counters(log.vnet, 1)->received, 1);
    vnet_destroy(log.vnet);
}
END_TEST

START_TEST(blocks_are_one_way_and_groups_are_walls)
{
    struct log log;
    network_begin(&log, &plain);
    ck_assert_int_eq(vnet_block(log.vnet, 0, 1, true), 0);
    vnet_set_group(log.vnet, 3, 1);
    ck_assert(!vnet_reaches(log.vnet, 0, 1));
    ck_assert(vnet_reaches(log.vnet, 1, 0));
    ck_assert(!vnet_reaches(log.vnet, 3, 2));
    send_byte(&log, 0, 1, 1);
    send_byte(&log, 1, 0, 2);
    send_byte(&log, 2, 3, 3);
    vnet_run(log.vnet, NS_PER_S);
    ck_assert_uint_eq(log.count, 1);
    ck_assert_uint_eq(log.all[0].value, 2);
    vnet_block(log.vnet, 0, 1, false);
    vnet_set_group(log.vnet, 3, 0);
    send_byte(&log, 0, 1, 4);
    send_byte(&log, 2, 3, 5);
    vnet_run(log.vnet, 2 * NS_PER_S);
    ck_assert_uint_eq(log.count, 3);
    vnet_destroy(log.vnet);
}
END_TEST

/* What arrives is kept, in order; the timer comes late; nothing is lost but what is too much. */
START_TEST(a_frozen_node_gets_it_all_later)
{
    struct log log;
    struct vnet_options options = plain;
    options.inbox_max = 5;
    options.seed = (uint64_t)_i;
    network_begin(&log, &options);
    vnet_wake(log.vnet, 1, 2 * NS_PER_MS);
    vnet_freeze(log.vnet, 1, NS_PER_S);
    ck_assert(vnet_is_frozen(log.vnet, 1));
    for (uint8_t i = 0; i < 8; i++) {
        send_byte(&log, 0, 1, i);
    }
    vnet_run(log.vnet, NS_PER_S - 1);
    ck_assert_uint_eq(log.count, 0);
    vnet_run(log.vnet, NS_PER_S);
    ck_assert_uint_eq(log.count, 6);
    unsigned first = log.all[0].kind == 'w' ? 1 : 0;
    ck_assert_int_eq(log.all[first == 1 ? 0 : 5].kind, 'w');
    for (unsigned i = 0; i < 5; i++) {
        ck_assert_uint_eq(log.all[first + i].value, i);
    }
    vnet_destroy(log.vnet);
}
END_TEST

START_TEST(a_crash_ends_timers_and_waiting_datagrams)
{
    struct log log;
    network_begin(&log, &plain);
    vnet_wake(log.vnet, 1, 5 * NS_PER_MS);
    vnet_freeze(log.vnet, 1, 4 * NS_PER_MS);
    send_byte(&log, 0, 1, 1);
    vnet_run(log.vnet, 2 * NS_PER_MS);
    vnet_crash(log.vnet, 1);
    send_byte(&log, 0, 1, 2);
    vnet_run(log.vnet, 10 * NS_PER_MS);
    ck_assert_uint_eq(log.count, 0);
    send_byte(&log, 0, 1, 3); /* on its way when the node is started again */
    vnet_restart(log.vnet, 1);
    vnet_run(log.vnet, 20 * NS_PER_MS);
    ck_assert_uint_eq(log.count, 1);
    ck_assert_uint_eq(log.all[0].value, 3);
    vnet_destroy(log.vnet);
}
END_TEST

START_TEST(clocks_are_off_and_drift)
{
    struct log log;
    network_begin(&log, &plain);
    vnet_set_clock(log.vnet, 0, 100 * NS_PER_S, 200);
    vnet_set_clock(log.vnet, 1, 5 * NS_PER_S, -200);
    vnet_wake(log.vnet, 0, 110 * NS_PER_S);
    vnet_wake(log.vnet, 1, 15 * NS_PER_S);
    vnet_run(log.vnet, 20 * NS_PER_S);
    ck_assert_uint_eq(log.count, 2);
    /* The fast clock has counted its ten seconds first. */
    ck_assert_uint_eq(log.all[0].node, 0);
    ck_assert_uint_eq(log.all[0].local_ns, 110 * NS_PER_S);
    ck_assert_uint_eq(log.all[0].true_ns / 100000, 99980004 / 1000);
    ck_assert_uint_ge(log.all[1].local_ns, 15 * NS_PER_S);
    ck_assert_uint_eq(log.all[1].true_ns / 100000, 100020004 / 1000);
    vnet_destroy(log.vnet);
}
END_TEST

START_TEST(a_wake_replaces_the_one_before)
{
    struct log log;
    network_begin(&log, &plain);
    vnet_wake(log.vnet, 0, 10 * NS_PER_MS);
    vnet_wake(log.vnet, 0, 30 * NS_PER_MS);
    vnet_wake(log.vnet, 0, 20 * NS_PER_MS);
    vnet_wake(log.vnet, 1, 15 * NS_PER_MS);
    vnet_wake(log.vnet, 1, UINT64_MAX);
    vnet_at(log.vnet, 12 * NS_PER_MS, 2, 99);
    vnet_run(log.vnet, NS_PER_S);
    ck_assert_uint_eq(log.count, 2);
    ck_assert_int_eq(log.all[0].kind, 's');
    ck_assert_uint_eq(log.all[0].value, 99);
    ck_assert_uint_eq(log.all[1].true_ns, 20 * NS_PER_MS);
    vnet_destroy(log.vnet);
}
END_TEST

/* 100,000 datagrams at 20 %: the share lies within 6 standard deviations. */
START_TEST(loss_is_what_was_asked_for)
{
    struct vnet_options options = plain;
    struct vnet_hooks none = {0};
    struct vnet *vnet;
    options.loss = 0.1;
    ck_assert_int_eq(vnet_create(&vnet, &options, &none), 0);
    vnet_set_node_loss(vnet, 0, 1.0 / 9.0, 0.0);
    for (unsigned i = 0; i < 100000; i++) {
        vnet_send(vnet, 0, 1, "x", 1);
    }
    vnet_run(vnet, NS_PER_S);
    ck_assert_double_eq_tol((double)vnet_counters(vnet, 1)->received, 80000.0, 6 * 126.5);
    ck_assert(vnet_is_sound(vnet));
    vnet_destroy(vnet);
}
END_TEST

/* A random life of a network, for its fingerprint. */
static uint64_t life(uint64_t seed)
{
    static const struct delay slow = {.kind = DELAY_CONSTANT, .constant_ns = 20 * NS_PER_MS};
    struct vnet_options options = {
        .nodes = 16, .seed = seed, .delay = &slow, .jitter = 0.3, .loss = 0.1, .duplicate = 0.05};
    struct vnet_hooks none = {0};
    struct vnet *vnet;
    struct rng rng = {.state = 5};
    ck_assert_int_eq(vnet_create(&vnet, &options, &none), 0);
    for (unsigned i = 0; i < 20000; i++) {
        uint8_t data[VNET_DATAGRAM_MAX] = {0};
        uint32_t node = rng_below(&rng, 16);
        vnet_send(vnet, node, rng_below(&rng, 16), data, 1 + rng_below(&rng, VNET_DATAGRAM_MAX));
        switch (rng_below(&rng, 40)) {
        case 0:
            vnet_freeze(vnet, node, rng_below(&rng, 500) * NS_PER_MS);
            break;
        case 1:
            vnet_crash(vnet, node);
            break;
        case 2:
            vnet_restart(vnet, node);
            break;
        case 3:
            vnet_wake(vnet, node, vnet_local_ns(vnet, node) + rng_below(&rng, 1000) * NS_PER_MS);
            break;
        default:
            vnet_run(vnet, vnet_now_ns(vnet) + rng_below(&rng, 3) * NS_PER_MS);
        }
    }
    ck_assert(vnet_is_sound(vnet));
    uint64_t fingerprint = vnet_fingerprint(vnet);
    vnet_destroy(vnet);
    return fingerprint;
}

START_TEST(a_seed_is_a_run)
{
    ck_assert_uint_eq(life(1), life(1));
    ck_assert_uint_ne(life(1), life(2));
}
END_TEST

static int matrix_of(const char *text, struct delay *delay)
{
    char path[] = "/tmp/weft-matrix-XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
    int rc = delay_load_matrix(delay, path);
    unlink(path);
    return rc;
}

START_TEST(matrices_are_read_and_bad_ones_refused)
{
    struct delay delay;
    ck_assert_int_eq(matrix_of("0 10\n20 0\n", &delay), 0);
    ck_assert_uint_eq(delay.hosts, 2);
    ck_assert_uint_eq(delay_ns(&delay, 0, 1), DELAY_LOCAL_NS + 5 * NS_PER_MS);
    ck_assert_uint_eq(delay_ns(&delay, 3, 2), DELAY_LOCAL_NS + 10 * NS_PER_MS);
    ck_assert_uint_eq(delay_ns(&delay, 0, 2), DELAY_LOCAL_NS);
    delay_deinit(&delay);
    ck_assert_int_eq(matrix_of("0 10\n20\n", &delay), -EINVAL);
    ck_assert_int_eq(matrix_of("0 x\n20 0\n", &delay), -EINVAL);
    ck_assert_int_eq(matrix_of("0 -1\n20 0\n", &delay), -EINVAL);
    ck_assert_int_eq(matrix_of("0 nan\n20 0\n", &delay), -EINVAL);
    ck_assert_int_eq(matrix_of("", &delay), -EINVAL);
    ck_assert_int_eq(delay_load_matrix(&delay, "/nonexistent"), -ENOENT);
}
END_TEST

START_TEST(places_are_as_far_as_light_says)
{
    struct geo_point places[2] = {geo_point_at(50.11, 8.68), geo_point_at(40.71, -74.01)};
    struct delay delay = {.kind = DELAY_PLACES, .places = places};
    double least_ms = geo_distance_km(places[0], places[1]) / DELAY_FIBRE_KM_MS;
    double sum = 0.0;
    for (uint64_t seed = 0; seed < 2000; seed++) {
        delay.seed = seed;
        double ms = (double)delay_ns(&delay, 0, 1) / 1e6;
        ck_assert_uint_eq(delay_ns(&delay, 0, 1), delay_ns(&delay, 1, 0));
        ck_assert_double_ge(ms, least_ms);
        ck_assert_double_le(ms, 9.0 * least_ms);
        sum += ms < 1.97 * least_ms + 0.1 ? 1.0 : 0.0;
    }
    ck_assert_double_eq_tol(sum, 1000.0, 135.0); /* the median stretch, 6 standard deviations */
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("vnet");
    TCase *cases = tcase_create("vnet");
    tcase_add_test(cases, events_come_in_order_of_time_then_of_asking);
    tcase_add_test(cases, pairs_are_a_set);
    tcase_add_test(cases, datagrams_take_their_time);
    tcase_add_test(cases, blocks_are_one_way_and_groups_are_walls);
    tcase_add_loop_test(cases, a_frozen_node_gets_it_all_later, 0, 8);
    tcase_add_test(cases, a_crash_ends_timers_and_waiting_datagrams);
    tcase_add_test(cases, clocks_are_off_and_drift);
    tcase_add_test(cases, a_wake_replaces_the_one_before);
    tcase_add_test(cases, loss_is_what_was_asked_for);
    tcase_add_test(cases, a_seed_is_a_run);
    tcase_add_test(cases, matrices_are_read_and_bad_ones_refused);
    tcase_add_test(cases, places_are_as_far_as_light_says);
    suite_add_tcase(suite, cases);
    return suite_main(suite);
}
