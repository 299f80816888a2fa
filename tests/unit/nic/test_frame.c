/* SPDX-License-Identifier: Apache-2.0 */
/* test_frame.c - checksums begun by a kernel and ended by nic/frame.c, against a byte-wise sum
 * of its own; both families, with and without a VLAN tag, every length. */
#include <arpa/inet.h>
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/nic/frame.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define PORT        7400
#define ROUNDS      4000
#define PAYLOAD_MAX 1472u

struct made {
    uint8_t bytes[2048];
    uint32_t len;
    uint32_t ip_at, udp_at;
    bool v6;
};

/* RFC 1071 as it is written: 16-bit words, big-endian, a last byte is the high one. */
static uint32_t add_words(uint32_t sum, const uint8_t *at, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++) {
        sum += i % 2 == 0 ? (uint32_t)at[i] << 8 : at[i];
        sum = (sum & 0xffff) + (sum >> 16);
    }
    return sum;
}

static uint32_t pseudo_sum(const struct made *m)
{
    uint32_t sum = 17 + m->len - m->udp_at;
    return m->v6 ? add_words(sum, m->bytes + m->ip_at + 8, 32)
                 : add_words(sum, m->bytes + m->ip_at + 12, 8);
}

static uint16_t folded(uint32_t sum)
{
    sum = (sum & 0xffff) + (sum >> 16);
    return (uint16_t)((sum & 0xffff) + (sum >> 16));
}

static void set16(uint8_t *at, uint32_t value)
{
    at[0] = (uint8_t)(value >> 8);
    at[1] = (uint8_t)value;
}

static uint16_t get16(const uint8_t *at)
{
    return (uint16_t)(at[0] << 8 | at[1]);
}

static uint16_t true_checksum(struct made *m)
{
    uint8_t *udp = m->bytes + m->udp_at;
    uint16_t was = get16(udp + 6);
    set16(udp + 6, 0);
    uint16_t checksum = (uint16_t)~folded(add_words(pseudo_sum(m), udp, m->len - m->udp_at));
    set16(udp + 6, was);
    return checksum != 0 ? checksum : 0xffff;
}

static void make(struct made *m, struct rng *rng, uint32_t payload, bool v6, bool tagged)
{
    memset(m, 0, sizeof(*m));
    m->v6 = v6;
    m->ip_at = tagged ? 18 : 14;
    m->udp_at = m->ip_at + (v6 ? 40 : 20);
    m->len = m->udp_at + 8 + payload;
    for (uint32_t i = 0; i < m->len; i++) {
        m->bytes[i] = (uint8_t)rng_next(rng);
    }
    if (!v6) {
        set16(m->bytes + m->ip_at + 6, 0x4000); /* no fragment */
    }
    if (tagged) {
        set16(m->bytes + 12, 0x8100);
    }
    set16(m->bytes + m->ip_at - 2, v6 ? 0x86dd : 0x0800);
    m->bytes[m->ip_at] = v6 ? 0x60 : 0x45;
    m->bytes[m->ip_at + (v6 ? 6 : 9)] = 17;
    set16(m->bytes + m->udp_at + 2, PORT);
    set16(m->bytes + m->udp_at + 4, 8 + payload);
    set16(m->bytes + m->udp_at + 6, folded(pseudo_sum(m)));
}

START_TEST(what_was_begun_is_ended)
{
    struct rng rng = {.state = 1};
    struct made m;
    for (int i = 0; i < ROUNDS; i++) {
        make(&m, &rng, rng_below(&rng, PAYLOAD_MAX), i % 2 != 0, i % 4 >= 2);
        uint16_t want = true_checksum(&m);
        ck_assert(frame_is_ours(m.bytes, m.len, htons(PORT)));
        ck_assert(frame_finish_sum(m.bytes, m.len, htons(PORT)));
        ck_assert_uint_eq(get16(m.bytes + m.udp_at + 6), want);
    }
}
END_TEST

START_TEST(whole_and_damaged_ones_stay)
{
    struct rng rng = {.state = 2};
    struct made m, before;
    for (int i = 0; i < ROUNDS; i++) {
        make(&m, &rng, 1 + rng_below(&rng, PAYLOAD_MAX - 1), i % 2 != 0, i % 4 >= 2);
        uint16_t checksum = true_checksum(&m);
        if (checksum == folded(pseudo_sum(&m))) {
            continue;
        }
        set16(m.bytes + m.udp_at + 6, checksum);
        m.bytes[m.udp_at + 8] ^= (uint8_t)(i % 3); /* damage in two thirds */
        before = m;
        ck_assert(!frame_finish_sum(m.bytes, m.len, htons(PORT)));
        ck_assert_mem_eq(m.bytes, before.bytes, m.len);
    }
}
END_TEST

START_TEST(others_are_left_alone)
{
    struct rng rng = {.state = 3};
    struct made m, before;
    const struct {
        int at; /* from the IP header; negative: nothing */
        uint8_t value;
    } changes[] = {{0, 0x46}, {9, 6}, {-2, 0x88}, {7, 0x01}, {6, 0x20}};
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        make(&m, &rng, 100, false, false);
        m.bytes[(int)m.ip_at + changes[i].at] = changes[i].value;
        before = m;
        ck_assert(!frame_is_ours(m.bytes, m.len, htons(PORT)));
        ck_assert(!frame_finish_sum(m.bytes, m.len, htons(PORT)));
        ck_assert_mem_eq(m.bytes, before.bytes, m.len);
    }
    make(&m, &rng, 100, true, false);
    ck_assert(!frame_is_ours(m.bytes, m.len, htons(PORT + 1)));
    ck_assert(!frame_finish_sum(m.bytes, m.len, htons(PORT + 1)));
}
END_TEST

/* Each length in memory of exactly that size, for the address sanitizer. */
START_TEST(cut_frames_are_left_alone)
{
    struct rng rng = {.state = 4};
    struct made m;
    for (int kind = 0; kind < 4; kind++) {
        make(&m, &rng, 64, kind % 2 != 0, kind >= 2);
        for (uint32_t len = 0; len < m.len; len++) {
            uint8_t *copy = malloc(len + 1);
            memcpy(copy, m.bytes, len);
            ck_assert(!frame_finish_sum(copy, len, htons(PORT)));
            ck_assert(frame_is_ours(copy, len, htons(PORT)) == (len >= m.udp_at + 8));
            ck_assert_mem_eq(copy, m.bytes, len);
            free(copy);
        }
        set16(m.bytes + m.udp_at + 4, 7); /* shorter than its own header */
        ck_assert(!frame_finish_sum(m.bytes, m.len, htons(PORT)));
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("frame");
    TCase *tc = tcase_create("frame");
    tcase_add_test(tc, what_was_begun_is_ended);
    tcase_add_test(tc, whole_and_damaged_ones_stay);
    tcase_add_test(tc, others_are_left_alone);
    tcase_add_test(tc, cut_frames_are_left_alone);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
