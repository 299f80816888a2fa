/* SPDX-License-Identifier: Apache-2.0 */
/* test_seal.c - siphash.c against libsodium's, with every instruction set; proofs of a burst
 * against one at a time, under keys that change. */
#include <check.h>
#include <sodium.h>
#include <stdlib.h>

#include "dataplane/route/scan.h"
#include "schemas/base/rng.h"
#include "tests/unit/route/fixture.h"
#include "tests/unit/suite.h"

static struct siphash_batch hashes;
static struct seal_batch batch;

START_TEST(batches_hash_as_libsodium_does)
{
    struct rng rng = {.state = 3 + (uint64_t)_i};
    uint8_t key[SIPHASH_KEY_BYTES];
    if (scan_isa_use((enum scan_isa)_i) != 0) {
        return; /* not on this CPU */
    }
    for (int round = 0; round < 2000; round++) {
        uint32_t words = 1 + rng_below(&rng, SIPHASH_WORDS);
        uint32_t size = 8 * (words - 1) + rng_below(&rng, 8);
        uint8_t messages[SIPHASH_BATCH][8 * SIPHASH_WORDS] = {{0}};
        hashes.count = 1 + rng_below(&rng, SIPHASH_BATCH);
        for (uint32_t i = 0; i < SIPHASH_KEY_BYTES; i++) {
            key[i] = (uint8_t)rng_next(&rng);
        }
        for (uint32_t i = 0; i < hashes.count; i++) {
            for (uint32_t k = 0; k < size; k++) {
                messages[i][k] = (uint8_t)rng_next(&rng);
            }
            for (uint32_t w = 0; w < words; w++) {
                memcpy(&hashes.words[w][i], &messages[i][8 * w], sizeof(uint64_t));
            }
            hashes.words[words - 1][i] |= (uint64_t)size << 56;
        }
        siphash_run(&hashes, words, key);
        for (uint32_t i = 0; i < hashes.count; i++) {
            uint64_t expected;
            crypto_shorthash((unsigned char *)&expected, messages[i], size, key);
            ck_assert_uint_eq(hashes.hashes[i], expected);
        }
    }
}
END_TEST

/* Right ones of now and of before, too old ones, damaged and invented ones, in any mixture. */
START_TEST(bursts_of_proofs_equal_single_ones)
{
    struct seal seal, old, older;
    struct seal_master master = {{9}};
    struct rng rng = {.state = 11 + (uint64_t)_i};
    unsigned valid = 0, invalid = 0;
    seal_init(&older, &master, 0);
    seal_init(&old, &master, SEAL_LIFE_NS);
    seal_init(&seal, &master, 2 * SEAL_LIFE_NS);
    const struct seal *makers[] = {&seal, &old, &older};
    for (int round = 0; round < 4000; round++) {
        enum seal_kind kind = (enum seal_kind)rng_below(&rng, SEAL_KINDS);
        struct weft_return blocks[SIPHASH_BATCH];
        bool expected[SIPHASH_BATCH];
        uint64_t made[SIPHASH_BATCH];
        uint32_t count = 1 + rng_below(&rng, SIPHASH_BATCH);
        batch.hash.count = 0;
        for (uint32_t i = 0; i < count; i++) {
            const struct seal *maker = makers[rng_below(&rng, 3)];
            uint64_t conn_id = rng_next(&rng);
            uint16_t port_be = (uint16_t)rng_next(&rng);
            struct in6_addr addr = fixture_addr((uint16_t)rng_next(&rng), kind == SEAL_COOKIE_IP6);
            blocks[i] = (struct weft_return){.port = port_be, .mac = {2, (uint8_t)i}};
            memcpy(blocks[i].addr, &addr, sizeof(addr));
            uint64_t damage = rng_below(&rng, 4) == 0 ? UINT64_C(1) << rng_below(&rng, 64) : 0;
            bool right = maker != &older && damage == 0;
            if (kind == SEAL_RETURN) {
                seal_return(maker, &blocks[i], conn_id);
                blocks[i].tag ^= damage;
                seal_add_return(&batch, &blocks[i], conn_id);
                expected[i] = seal_return_ok(&seal, &blocks[i], conn_id);
                seal_return(&seal, &blocks[i], conn_id);
                made[i] = blocks[i].tag;
            } else {
                uint64_t cookie = seal_cookie(maker, &addr, port_be, conn_id) ^ damage;
                cookie = rng_below(&rng, 8) != 0 ? cookie : 0;
                right = right && cookie != 0;
                seal_add_cookie(&batch, &addr, port_be, conn_id, cookie);
                expected[i] = seal_cookie_ok(&seal, &addr, port_be, conn_id, cookie);
                made[i] = seal_cookie(&seal, &addr, port_be, conn_id);
            }
            ck_assert_int_eq(expected[i], right);
        }
        seal_check(&seal, kind, &batch);
        for (uint32_t i = 0; i < count; i++) {
            ck_assert_int_eq(batch.valid >> i & 1, expected[i]);
            ck_assert_uint_eq(batch.hash.hashes[i], made[i]);
            valid += expected[i];
            invalid += !expected[i];
        }
    }
    ck_assert_uint_gt(valid, 1000);
    ck_assert_uint_gt(invalid, 1000);
}
END_TEST

START_TEST(kinds_of_proofs_differ)
{
    struct seal seal;
    struct seal_master master = {{7}};
    struct weft_return block = {.port = 0};
    const struct in6_addr four = fixture_addr(1, false), six = fixture_addr(1, true);
    seal_init(&seal, &master, 0);
    seal_return(&seal, &block, 5);
    uint64_t a = seal_cookie(&seal, &four, 1, 5), b = seal_cookie(&seal, &six, 1, 5);
    ck_assert_uint_ne(a, b);
    ck_assert_uint_ne(a, block.tag);
    ck_assert_uint_ne(a, seal_cookie(&seal, &four, 2, 5));
    ck_assert_uint_ne(a, seal_cookie(&seal, &four, 1, 6));
    ck_assert_uint_ne(b, seal_cookie(&seal, &six, 2, 5));
    for (uint32_t i = 0; i < 16; i++) { /* each byte of the address counts */
        struct in6_addr other = six;
        other.s6_addr[i] ^= 1;
        ck_assert_uint_ne(b, seal_cookie(&seal, &other, 1, 5));
    }
    for (uint32_t i = 0; i < offsetof(struct weft_return, tag); i++) {
        struct weft_return other = block;
        ((uint8_t *)&other)[i] ^= 1;
        ck_assert(!seal_return_ok(&seal, &other, 5));
    }
    ck_assert(seal_return_ok(&seal, &block, 5));
    ck_assert(!seal_return_ok(&seal, &block, 6));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("seal");
    TCase *tc = tcase_create("seal");
    tcase_add_loop_test(tc, batches_hash_as_libsodium_does, 0, SCAN_ISAS);
    tcase_add_loop_test(tc, bursts_of_proofs_equal_single_ones, 0, 2);
    tcase_add_test(tc, kinds_of_proofs_differ);
    suite_add_tcase(suite, tc);
    return suite_main(suite);
}
