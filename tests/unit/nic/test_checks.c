/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_checks.c - what a port says of a frame's checksums reaches the stages: good is believed, bad
 * is let go of and counted, of the rest they are looked at here; a datagram whose sum was never
 * ended is ended. One EAL per process, CK_FORK=no. Skipped (77) where a TAP may not be made.
 */
#include <check.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/nic/nic.h"
#include "tests/unit/nic/ring_port.h"
#include "tests/unit/route/fixture.h"
#include "tests/unit/suite.h"

#define SKIPPED 77
#define POLLS   64 /* the ring also brings back what the kernel says to its neighbours */

static struct nic *nic;
static struct route_core *core;
static struct route_table *table;

struct spoil {
    bool ip, udp; /* made wrong */
    bool unended; /* only the pseudo header is summed */
};

/* A proven request of a client, through the port. */
static enum route_action through(struct spoil spoil, enum ring_verdict ip, enum ring_verdict udp,
                                 bool *whole)
{
    struct {
        uint8_t room[64];
        struct route_frame frame;
    } buffer;
    struct route_packet p;
    struct route_host from = fixture_host(client_addr(), CLIENT_PORT);
    struct route_hop to = {.port_be = htons(PORT_DATA),
                           .addr = fixture_addr(1, fixture_ip6_client)};
    fixture_request(&p, &buffer.frame, 1, 100);
    fixture_cookie(core, &p);
    from.port_sums = spoil.unended;
    packet_compose(&p, &from, &to);
    if (spoil.udp) {
        buffer.frame.weft.bytes[p.weft_len - 1u] ^= 4;
    }
    if (spoil.ip) {
        buffer.frame.ip.ttl ^= 1;
    }
    ck_assert(ring_port_send((const uint8_t *)packet_ether(&p), (uint16_t)p.len, ip, udp));
    uint32_t got = 0;
    for (int i = 0; got == 0 && i < POLLS; i++) {
        got = nic_rx(nic, 0, &p, 1);
    }
    ck_assert_uint_eq(got, 1);
    stage_parse(core, &p, 1);
    enum route_action action = (enum route_action)p.action;
    *whole = action == ROUTE_UNDECIDED && packet_udp_ok(&p);
    p.action = ROUTE_LET_GO;
    nic_tx(nic, 0, &p, 1);
    return action;
}

static uint64_t bad(void)
{
    return atomic_load(&core->counters.drops[ROUTE_DROP_bad_checksum]);
}

static void expect(struct spoil spoil, enum ring_verdict ip, enum ring_verdict udp, bool taken,
                   bool whole)
{
    bool ok;
    uint64_t before = bad();
    enum route_action action = through(spoil, ip, udp, &ok);
    ck_assert_int_eq(action, taken ? ROUTE_UNDECIDED : ROUTE_LET_GO);
    ck_assert_int_eq(ok, whole);
    ck_assert_uint_eq(bad(), before + !taken);
}

static const struct spoil sound;
static const struct spoil udp_wrong = {.udp = true};
static const struct spoil ip_wrong = {.ip = true};
static const struct spoil unended = {.unended = true};

START_TEST(what_is_unknown_is_looked_at)
{
    fixture_ip6_client = _i != 0;
    expect(sound, RING_UNKNOWN, RING_UNKNOWN, true, true);
    expect(udp_wrong, RING_UNKNOWN, RING_UNKNOWN, true, false); /* seen where it ends */
    if (_i == 0) {
        expect(ip_wrong, RING_UNKNOWN, RING_UNKNOWN, false, false);
        expect(ip_wrong, RING_UNKNOWN, RING_GOOD, false, false);
    }
}
END_TEST

START_TEST(good_is_believed)
{
    fixture_ip6_client = _i != 0;
    expect(sound, RING_GOOD, RING_GOOD, true, true);
    expect(udp_wrong, RING_GOOD, RING_GOOD, true, true);
    expect(udp_wrong, RING_GOOD, RING_UNKNOWN, true, false);
    if (_i == 0) {
        expect(ip_wrong, RING_GOOD, RING_UNKNOWN, true, true);
    }
}
END_TEST

START_TEST(bad_is_let_go_of)
{
    fixture_ip6_client = _i != 0;
    expect(sound, RING_GOOD, RING_BAD, false, false);
    expect(sound, RING_BAD, RING_GOOD, false, false);
    expect(sound, RING_UNKNOWN, RING_BAD, false, false);
}
END_TEST

START_TEST(unended_sums_are_ended)
{
    fixture_ip6_client = _i != 0;
    expect(unended, RING_UNKNOWN, RING_NONE, true, true);
    expect(unended, RING_UNKNOWN, RING_UNKNOWN, true, false); /* to this port it is merely wrong */
    expect(sound, RING_UNKNOWN, RING_NONE, true, true);
}
END_TEST

static int start(void)
{
    if (unshare(CLONE_NEWNET) != 0 || system("ip tuntap add wchk mode tap") != 0) {
        return -EPERM;
    }
    struct nic_options options = {
        .name = "test-checks",
        .runtime_dir = "/tmp",
        .driver = NIC_DPDK,
        .device = "net_ring0",
        .interface = "wchk",
        .data_port = PORT_DATA,
        .hugepages = NIC_HUGEPAGES_OFF,
        .memory_mib = 64,
        .lcores = 1,
    };
    return nic_create(&nic, &options);
}

int main(void)
{
    int rc = start();
    if (rc == -EPERM) {
        puts("skipped: needs a network namespace and a TAP");
        return SKIPPED;
    }
    if (rc != 0) {
        fprintf(stderr, "cannot start: %s\n", strerror(-rc));
        return EXIT_FAILURE;
    }
    core = fixture_core(1);
    table = fixture_table(1);
    Suite *suite = suite_create("checks");
    TCase *tc = tcase_create("checks");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, what_is_unknown_is_looked_at, 0, 2);
    tcase_add_loop_test(tc, good_is_believed, 0, 2);
    tcase_add_loop_test(tc, bad_is_let_go_of, 0, 2);
    tcase_add_loop_test(tc, unended_sums_are_ended, 0, 2);
    suite_add_tcase(suite, tc);
    int status = suite_main(suite);
    route_core_destroy(core);
    route_table_destroy(table);
    nic_destroy(nic);
    return status;
}
