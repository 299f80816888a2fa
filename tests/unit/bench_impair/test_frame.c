/* SPDX-License-Identifier: Apache-2.0 */
/* test_frame.c - single frames: checksums by a second, plain computation; marks, answers, and
 * frames of any length and content. Bit errors go through the switch, which draws them. */
#include "bench/impair/frame.h"
#include "bench/impair/switch.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define PAYLOAD 1000u
#define ROOM    1600u

static uint8_t frame[ROOM];
static uint32_t size;

static void put(uint32_t at, uint32_t value)
{
    frame[at] = (uint8_t)(value >> 8);
    frame[at + 1] = (uint8_t)value;
}

/* The ones' complement sum of RFC 1071, byte by byte; correct data sums to 0xffff. */
static uint32_t plain_sum(const uint8_t *p, uint32_t count, uint32_t sum)
{
    for (uint32_t i = 0; i < count; i++) {
        sum += i % 2 == 0 ? (uint32_t)p[i] << 8 : p[i];
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

static uint32_t udp_sum(uint32_t ip, int family, uint32_t l4, uint32_t count)
{
    uint32_t sum = plain_sum(frame + ip + (family == 4 ? 12 : 8), family == 4 ? 8 : 32, 0);
    return plain_sum(frame + l4, count, sum + 17 + count);
}

/* A UDP datagram from ...1 to ...2, checksum right. */
static void make_udp(int family, bool tagged, uint32_t payload)
{
    uint32_t ip = tagged ? 18 : 14, l4 = ip + (family == 4 ? 20 : 40);
    memset(frame, 0, sizeof(frame));
    frame[5] = 2;
    frame[11] = 1;
    if (tagged) {
        put(12, 0x8100);
        put(14, 7);
    }
    put(ip - 2, family == 4 ? 0x0800 : 0x86dd);
    if (family == 4) {
        frame[ip] = 0x45;
        put(ip + 2, 28 + payload);
        put(ip + 6, 0x4000); /* must not be fragmented */
        frame[ip + 8] = 64;
        frame[ip + 9] = 17;
        frame[ip + 12] = frame[ip + 16] = 10;
        frame[ip + 15] = 1;
        frame[ip + 19] = 2;
        put(ip + 10, ~plain_sum(frame + ip, 20, 0));
    } else {
        frame[ip] = 0x60;
        put(ip + 4, 8 + payload);
        frame[ip + 6] = 17;
        frame[ip + 7] = 64;
        frame[ip + 8] = frame[ip + 24] = 0xfd;
        frame[ip + 23] = 1;
        frame[ip + 39] = 2;
    }
    put(l4, 4000);
    put(l4 + 2, 7400);
    put(l4 + 4, 8 + payload);
    for (uint32_t i = 0; i < payload; i++) {
        frame[l4 + 8 + i] = (uint8_t)(i * 7);
    }
    put(l4 + 6, ~udp_sum(ip, family, l4, 8 + payload));
    size = l4 + 8 + payload;
}

START_TEST(view_and_payload)
{
    for (int i = 0; i < 4; i++) {
        int family = i % 2 == 0 ? 4 : 6;
        struct impair_view view;
        uint32_t at, length;
        make_udp(family, i >= 2, PAYLOAD);
        impair_frame_view(frame, size, &view);
        ck_assert_int_eq(view.family, family);
        ck_assert_uint_eq(view.proto, 17);
        ck_assert_uint_eq(view.ip_end, size);
        ck_assert_uint_eq(impair_frame_ip_size(frame, size), size - view.ip);
        ck_assert_uint_eq(impair_frame_ip_size(frame, size + 6), size - view.ip); /* padding */
        ck_assert(impair_frame_payload(frame, size, &at, &length));
        ck_assert_uint_eq(length, PAYLOAD);
        ck_assert_uint_eq(at + length, size);
        ck_assert(!impair_frame_payload(frame, size - 1, &at, &length)); /* cut off */
    }
    make_udp(4, false, PAYLOAD);
    put(20, 0x2000); /* more fragments */
    uint32_t at, length;
    ck_assert(!impair_frame_payload(frame, size, &at, &length));
}
END_TEST

START_TEST(finishes_checksums)
{
    make_udp(4, false, PAYLOAD);
    uint32_t whole = (uint32_t)frame[40] << 8 | frame[41];
    /* What a kernel leaves to hardware: the sum of the pseudo-header in the field. */
    put(40, plain_sum(frame + 26, 8, 17 + 8 + PAYLOAD));
    ck_assert_int_eq(impair_frame_finish(frame, size, 34, 6), 0);
    ck_assert_uint_eq((uint32_t)frame[40] << 8 | frame[41], whole);
    ck_assert_uint_eq(udp_sum(14, 4, 34, 8 + PAYLOAD), 0xffff);
    ck_assert_int_lt(impair_frame_finish(frame, size, size - 7, 6), 0);
    ck_assert_int_lt(impair_frame_finish(frame, size, size + 1, 0), 0);
    ck_assert_int_lt(impair_frame_finish(frame, size, 34, UINT32_MAX), 0);
}
END_TEST

START_TEST(repairs_checksums)
{
    for (int family = 4; family <= 6; family += 2) {
        uint32_t l4 = family == 4 ? 34 : 54;
        make_udp(family, false, PAYLOAD);
        frame[l4 + 100] ^= 4;
        ck_assert_uint_ne(udp_sum(14, family, l4, 8 + PAYLOAD), 0xffff);
        impair_frame_repair(frame, size);
        ck_assert_uint_eq(udp_sum(14, family, l4, 8 + PAYLOAD), 0xffff);
    }
    make_udp(4, false, PAYLOAD);
    put(40, 0); /* the sender wants none */
    impair_frame_repair(frame, size);
    ck_assert_uint_eq((uint32_t)frame[40] << 8 | frame[41], 0);
}
END_TEST

START_TEST(marks_congestion)
{
    for (uint32_t ecn = 0; ecn < 4; ecn++) {
        make_udp(4, false, 10);
        frame[15] = (uint8_t)(0x28 | ecn);
        put(24, 0);
        put(24, ~plain_sum(frame + 14, 20, 0));
        ck_assert(impair_frame_mark(frame, size) == (ecn != 0));
        ck_assert_uint_eq(frame[15], ecn != 0 ? 0x2b : 0x28);
        ck_assert_uint_eq(plain_sum(frame + 14, 20, 0), 0xffff);
        make_udp(6, true, 10);
        frame[19] = (uint8_t)(ecn << 4 | 0x0a);
        ck_assert(impair_frame_mark(frame, size) == (ecn != 0));
        ck_assert_uint_eq(frame[19], ecn != 0 ? 0x3a : 0x0a);
    }
}
END_TEST

START_TEST(answers_too_big)
{
    uint8_t out[IMPAIR_ANSWER_BYTES + IMPAIR_ETHER_BYTES];
    make_udp(4, false, PAYLOAD);
    uint32_t n = impair_frame_too_big(frame, size, 500, out);
    ck_assert_uint_eq(n, 14 + 20 + 8 + 548);
    ck_assert_uint_eq(out[5], 1); /* back to the sender */
    ck_assert_uint_eq(out[11], 2);
    ck_assert_uint_eq(out[33], 1);
    ck_assert_uint_eq(out[34], 3);
    ck_assert_uint_eq(out[35], 4);
    ck_assert_uint_eq((uint32_t)out[40] << 8 | out[41], 500);
    ck_assert_uint_eq(plain_sum(out + 14, 20, 0), 0xffff);
    ck_assert_uint_eq(plain_sum(out + 34, n - 34, 0), 0xffff);
    ck_assert_mem_eq(out + 42, frame + 14, 548);
    put(20, 0); /* a router would have fragmented it */
    ck_assert_uint_eq(impair_frame_too_big(frame, size, 500, out), 0);

    make_udp(6, false, PAYLOAD);
    n = impair_frame_too_big(frame, size, 500, out);
    ck_assert_uint_eq(n, 14 + 40 + 8 + 1048);
    ck_assert_uint_eq(out[54], 2);
    ck_assert_uint_eq(plain_sum(out + 54, n - 54, plain_sum(out + 22, 32, 58 + n - 54)), 0xffff);
    make_udp(6, false, 1400);
    ck_assert_uint_eq(impair_frame_too_big(frame, size, 500, out), 14 + IMPAIR_ANSWER_BYTES);
    ck_assert_uint_eq(impair_frame_too_big(out, 14 + IMPAIR_ANSWER_BYTES, 500, frame), 0);
    make_udp(4, true, PAYLOAD);
    ck_assert_uint_eq(impair_frame_too_big(frame, size, 500, out), 0);
}
END_TEST

/* Every length of every kind, then noise: nothing is read or written outside (ASan watches). */
START_TEST(any_bytes)
{
    uint8_t out[IMPAIR_ANSWER_BYTES + IMPAIR_ETHER_BYTES];
    struct rng rng = {9};
    uint32_t outside = 0;
    for (uint32_t i = 0; i < 40000; i++) {
        make_udp(i % 2 == 0 ? 4 : 6, i % 3 == 0, 60);
        uint32_t length = rng_below(&rng, size + 1), at, count;
        for (uint32_t k = rng_below(&rng, 4); k > 0; k--) {
            frame[rng_below(&rng, 64)] = (uint8_t)rng_next(&rng);
        }
        uint8_t *exact = malloc(length != 0 ? length : 1);
        memcpy(exact, frame, length);
        impair_frame_mark(exact, length);
        bool found = impair_frame_payload(exact, length, &at, &count);
        outside += found && at + count > length;
        impair_frame_repair(exact, length);
        impair_frame_too_big(exact, length, 100, out);
        outside += impair_frame_ip_size(exact, length) > length;
        impair_frame_finish(exact, length, rng_below(&rng, 200), rng_below(&rng, 200));
        free(exact);
    }
    ck_assert_uint_eq(outside, 0);
}
END_TEST

/* Sends `count` datagrams over a link that turns bits; returns the share of bytes changed. */
static double flip_share(double share, bool repair, uint32_t count, uint32_t *sums_right)
{
    struct impair_config config = {3, 2, ROOM, 16};
    struct impair_switch *sw = impair_switch_create(&config);
    struct impair_rule rule = {.flip = share, .flip_repair = repair};
    struct impair_out out;
    uint64_t changed = 0, several = 0;
    impair_switch_rule(sw, 0, 1, &rule);
    *sums_right = 0;
    for (uint32_t i = 0; i < count; i++) {
        make_udp(4, false, PAYLOAD);
        impair_switch_push(sw, 0, frame, size, i);
        ck_assert(impair_switch_pop(sw, i, &out));
        ck_assert_uint_eq(out.size, size);
        ck_assert_mem_eq(out.frame, frame, 40); /* headers stay, but for the checksum */
        for (uint32_t k = 42; k < size; k++) {
            uint8_t difference = out.frame[k] ^ frame[k];
            several += (difference & (difference - 1)) != 0;
            changed += difference != 0;
        }
        memcpy(frame, out.frame, size);
        *sums_right += udp_sum(14, 4, 34, 8 + PAYLOAD) == 0xffff;
    }
    ck_assert_uint_eq(several, 0); /* bits in one byte */
    impair_switch_destroy(sw);
    return (double)changed / (count * (double)PAYLOAD);
}

START_TEST(flips_the_share_of_bytes)
{
    uint32_t right;
    double sigma = sqrt(0.001 / (2000.0 * PAYLOAD));
    ck_assert_double_eq_tol(flip_share(0.001, false, 2000, &right), 0.001, 5 * sigma);
    /* 0.999^1000 of the datagrams stay whole. */
    ck_assert_double_eq_tol(right / 2000.0, 0.368, 0.06);
    flip_share(0.001, true, 2000, &right);
    ck_assert_uint_eq(right, 2000);
    ck_assert_double_eq(flip_share(1, true, 10, &right), 1);
    ck_assert_uint_eq(right, 10);
    ck_assert_double_eq(flip_share(0, false, 10, &right), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("impair_frame");
    TCase *tc = tcase_create("frame");
    tcase_add_test(tc, view_and_payload);
    tcase_add_test(tc, finishes_checksums);
    tcase_add_test(tc, repairs_checksums);
    tcase_add_test(tc, marks_congestion);
    tcase_add_test(tc, answers_too_big);
    tcase_add_test(tc, any_bytes);
    tcase_add_test(tc, flips_the_share_of_bytes);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
