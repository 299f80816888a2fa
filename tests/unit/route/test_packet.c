/* SPDX-License-Identifier: Apache-2.0 */
/* test_packet.c - checksums against a plain reference, seals over time, names of drops. */
#include <check.h>
#include <stdlib.h>

#include "fixture.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

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
    tcase_add_loop_test(tc, seals_outlive_one_change_of_keys, 0, 2);
    tcase_add_test(tc, drops_have_names);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
