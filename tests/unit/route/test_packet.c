/* SPDX-License-Identifier: Apache-2.0 */
/* test_packet.c - checksums against a plain reference, seals over time, names of drops. */
#include <check.h>
#include <stdlib.h>

#include "fixture.h"
#include "schemas/base/rng.h"

/* RFC 1071 as written, byte by byte. */
static uint16_t reference_sum(const struct route_packet *p)
{
    const struct route_frame *f = p->frame;
    uint32_t len = ntohs(f->udp.len);
    const uint8_t *ip = packet_is_ip6(p) ? f->ip6.src.s6_addr : (const uint8_t *)&f->ip.src;
    const uint8_t *udp = (const uint8_t *)&f->udp;
    uint32_t sum = 17 + len;
    for (int i = 0; i < (packet_is_ip6(p) ? 32 : 8); i += 2) {
        sum += (uint32_t)(ip[i] << 8 | ip[i + 1]);
    }
    for (uint32_t i = 0; i < len; i++) {
        sum += (uint32_t)(i % 2 == 0 ? udp[i] << 8 : udp[i]);
    }
    while (sum > 0xffff) {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return (uint16_t)~sum;
}

START_TEST(checksum_is_rfc_1071)
{
    struct rng rng = {.state = 9};
    struct route_frame f;
    struct route_packet p;
    for (int i = 0; i < 20000; i++) {
        fixture_request(&p, &f, 1, 1 + rng_below(&rng, 1300));
        for (int k = 0; k < 8; k++) {
            f.weft.bytes[rng_below(&rng, p.weft_len)] = (uint8_t)rng_next(&rng);
        }
        ck_assert_uint_eq(htons(packet_udp_sum(&p)), reference_sum(&p));
    }
}
END_TEST

START_TEST(updates_equal_recomputation)
{
    struct rng rng = {.state = 10};
    struct route_frame f;
    struct route_packet p;
    fixture_request(&p, &f, 1, 333);
    for (int i = 0; i < 50000; i++) {
        uint64_t value = rng_below(&rng, 3) != 0 ? rng_next(&rng) : 0;
        if (rng_below(&rng, 2) == 0) {
            packet_set(&f, &f.weft.req.h.conn_id, &value, sizeof(value));
        } else {
            packet_set_u8(&f, &f.weft.bytes[rng_below(&rng, 96)], (uint8_t)value);
        }
        ck_assert(packet_udp_ok(&p));
        ck_assert_uint_eq(reference_sum(&p), 0);
        ck_assert_uint_ne(f.udp.checksum, 0);
    }
}
END_TEST

/* What a seal remembers must not show: a fresh one with the same keys gives each answer too, with
 * connections that share a place, addresses that change, damaged blocks and keys that change. */
START_TEST(memory_of_seals_does_not_show)
{
    static struct seal seal, fresh;
    struct seal_master master = {{9}};
    struct rng rng = {.state = 11};
    uint64_t now_ns = 0;
    struct weft_return blocks[64];
    uint64_t cookies[64];
    memset(blocks, 0, sizeof(blocks));
    memset(cookies, 0, sizeof(cookies));
    seal_init(&seal, &master, now_ns);
    for (int i = 0; i < 20000; i++) {
        now_ns += rng_below(&rng, 400) == 0 ? SEAL_LIFE_NS : 1;
        seal_tick(&seal, now_ns);
        if (i % 16 == 0) {
            seal_init(&fresh, &master, now_ns);
        }
        seal_tick(&fresh, now_ns);
        uint32_t k = rng_below(&rng, 64);
        uint64_t conn_id = k % 8 * SEAL_KNOWN + k % 3; /* few places */
        struct in6_addr addr = fixture_addr((uint16_t)(1 + rng_below(&rng, 2)), false);
        struct weft_return block = {.port = (uint16_t)rng_below(&rng, 2)};
        memcpy(block.addr, &addr, sizeof(addr));
        uint16_t port_be = (uint16_t)rng_below(&rng, 2);
        switch (rng_below(&rng, 4)) {
        case 0:
            cookies[k] = seal_cookie(&seal, &addr, port_be, conn_id);
            break;
        case 1:
            seal_return(&seal, &block, conn_id);
            blocks[k] = block;
            seal_return(&fresh, &block, conn_id);
            ck_assert_uint_eq(block.tag, blocks[k].tag);
            break;
        case 2:
            ck_assert_int_eq(seal_cookie_ok(&seal, &addr, port_be, conn_id, cookies[k]),
                             seal_cookie_ok(&fresh, &addr, port_be, conn_id, cookies[k]));
            break;
        default:
            blocks[k].mac[0] ^= rng_below(&rng, 8) == 0;
            ck_assert_int_eq(seal_return_ok(&seal, &blocks[k], conn_id),
                             seal_return_ok(&fresh, &blocks[k], conn_id));
        }
    }
}
END_TEST

START_TEST(seals_outlive_one_change_of_keys)
{
    struct seal seal;
    struct seal other;
    struct seal_master master;
    struct weft_return block = {.port = 5, .addr = {1}};
    const uint64_t start = 7 * SEAL_LIFE_NS + 1000;
    const struct in6_addr addr = fixture_addr(1, _i != 0);
    seal_master_draw(&master);
    seal_init(&seal, &master, start);
    uint64_t cookie = seal_cookie(&seal, &addr, 2, 3);
    seal_return(&seal, &block, 3);
    seal_init(&other, &master, start + 5); /* another core agrees */
    ck_assert(seal_cookie_ok(&other, &addr, 2, 3, cookie));
    ck_assert(seal_return_ok(&other, &block, 3));
    seal_tick(&seal, 8 * SEAL_LIFE_NS - 1);
    ck_assert_uint_eq(seal_cookie(&seal, &addr, 2, 3), cookie);
    seal_tick(&seal, 8 * SEAL_LIFE_NS);
    ck_assert(seal_cookie_ok(&seal, &addr, 2, 3, cookie));
    ck_assert(seal_return_ok(&seal, &block, 3));
    ck_assert_uint_ne(seal_cookie(&seal, &addr, 2, 3), cookie);
    seal_init(&other, &master, 8 * SEAL_LIFE_NS + 9); /* started later: the same keys */
    ck_assert(seal_cookie_ok(&other, &addr, 2, 3, cookie));
    seal_tick(&seal, 9 * SEAL_LIFE_NS);
    ck_assert(!seal_cookie_ok(&seal, &addr, 2, 3, cookie));
    ck_assert(!seal_return_ok(&seal, &block, 3));
    ck_assert(!seal_cookie_ok(&seal, &addr, 2, 3, 0));
    seal_master_draw(&master);
    seal_init(&other, &master, start);
    ck_assert(!seal_cookie_ok(&other, &addr, 2, 3, cookie)); /* another node */
}
END_TEST

START_TEST(drops_have_names)
{
    ck_assert_str_eq(route_drop_name(ROUTE_DROP_bad_version), "bad_version");
    ck_assert_str_eq(route_drop_name(ROUTE_DROP_COUNT), "?");
    for (unsigned i = 0; i < ROUTE_DROP_COUNT; i++) {
        ck_assert_uint_gt(strlen(route_drop_text(i)), 10);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("packet");
    TCase *tc = tcase_create("packet");
    tcase_add_test(tc, checksum_is_rfc_1071);
    tcase_add_test(tc, updates_equal_recomputation);
    tcase_add_test(tc, memory_of_seals_does_not_show);
    tcase_add_loop_test(tc, seals_outlive_one_change_of_keys, 0, 2);
    tcase_add_test(tc, drops_have_names);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
