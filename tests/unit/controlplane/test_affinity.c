/* SPDX-License-Identifier: Apache-2.0 */
/* test_affinity.c - controlplane/maps/affinity.c: digests never deny what they hold, deny nearly
 * all else, and the map forgets in time. */
#include "controlplane/maps/affinity.h"

#include <string.h>

#include "schemas/base/rng.h"
#include "tests/unit/controlplane/main_of.h"

#define BLOCK_TOKENS 512u

START_TEST(never_denies_rarely_invents)
{
    uint32_t wrong = 0, asked = 0;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct rng rng = {seed};
        struct affinity_digest digest;
        uint64_t blocks[AFFINITY_BLOCKS_MAX];
        affinity_digest_init(&digest, BLOCK_TOKENS);
        for (uint32_t i = 0; i < AFFINITY_BLOCKS_MAX; i++) {
            blocks[i] = rng_next(&rng);
            ck_assert(affinity_digest_add(&digest, blocks[i]));
        }
        ck_assert(!affinity_digest_add(&digest, 1));
        for (uint32_t i = 0; i < AFFINITY_BLOCKS_MAX; i++) {
            ck_assert(affinity_digest_has(&digest, blocks[i]));
        }
        for (uint32_t i = 0; i < 2000; i++) {
            wrong += affinity_digest_has(&digest, rng_next(&rng));
            asked++;
        }
    }
    ck_assert_uint_lt(wrong, asked / 25); /* 3.3 % expected */
    ck_assert_uint_gt(wrong, asked / 40);
}
END_TEST

START_TEST(wire)
{
    struct affinity_digest in, out;
    uint8_t bytes[AFFINITY_WIRE_BYTES];
    affinity_digest_init(&in, BLOCK_TOKENS);
    for (uint64_t i = 0; i < 100; i++) {
        affinity_digest_add(&in, i); /* small numbers do as well as good hashes */
    }
    affinity_digest_write(&in, bytes);
    ck_assert(affinity_digest_read(&out, bytes, sizeof(bytes)));
    ck_assert_mem_eq(out.bits, in.bits, sizeof(in.bits));
    ck_assert_uint_eq(out.block_count, 100);
    ck_assert(!affinity_digest_read(&out, bytes, sizeof(bytes) - 1));
    uint8_t full[AFFINITY_WIRE_BYTES];
    memcpy(full, bytes, sizeof(full));
    memset(full + 8, 0xff, AFFINITY_DIGEST_BYTES); /* claims to hold everything */
    ck_assert(!affinity_digest_read(&out, full, sizeof(full)));
    memcpy(full, bytes, sizeof(full));
    full[3] = 2; /* 512 + 100 blocks */
    ck_assert(!affinity_digest_read(&out, full, sizeof(full)));
    memset(bytes + 4, 0, 4);
    ck_assert(!affinity_digest_read(&out, bytes, sizeof(bytes)));
}
END_TEST

START_TEST(longest_run_from_the_first)
{
    struct rng rng = {9};
    struct affinity_map map;
    uint64_t blocks[20], now_ns = NS_PER_S;
    ck_assert_int_eq(affinity_init(&map, 8, 4, 1), 0);
    for (uint32_t i = 0; i < 20; i++) {
        blocks[i] = rng_next(&rng);
    }
    struct affinity_digest digest;
    affinity_digest_init(&digest, BLOCK_TOKENS);
    for (uint32_t i = 0; i < 20; i++) {
        if (i != 7) {
            affinity_digest_add(&digest, blocks[i]);
        }
    }
    affinity_hear(&map, 3, &digest, now_ns);
    ck_assert_uint_eq(affinity_cached_tokens(&map, 3, blocks, 20, BLOCK_TOKENS, now_ns), 7 * 512);
    ck_assert_uint_eq(affinity_cached_tokens(&map, 3, blocks, 5, BLOCK_TOKENS, now_ns), 5 * 512);
    ck_assert_uint_eq(affinity_cached_tokens(&map, 3, blocks, 20, 256, now_ns), 0);
    ck_assert_uint_eq(affinity_cached_tokens(&map, 4, blocks, 20, BLOCK_TOKENS, now_ns), 0);
    now_ns += AFFINITY_DIGEST_NS;
    ck_assert_uint_eq(affinity_cached_tokens(&map, 3, blocks, 20, BLOCK_TOKENS, now_ns), 0);
    affinity_deinit(&map);
}
END_TEST

START_TEST(sessions)
{
    struct affinity_map map;
    uint64_t now_ns = NS_PER_S;
    ck_assert_int_eq(affinity_init(&map, 8, 4, 1), 0);
    affinity_served(&map, 0, 1, now_ns);
    ck_assert_uint_eq(affinity_session_node(&map, 0, now_ns), AFFINITY_NODE_NONE);
    affinity_served(&map, 77, 1, now_ns);
    affinity_served(&map, 77, 2, now_ns);
    affinity_served(&map, 78, 3, now_ns);
    ck_assert_uint_eq(affinity_session_node(&map, 77, now_ns), 2);
    affinity_forget(&map, 2);
    ck_assert_uint_eq(affinity_session_node(&map, 77, now_ns), AFFINITY_NODE_NONE);
    ck_assert_uint_eq(affinity_session_node(&map, 78, now_ns), 3);
    ck_assert_uint_eq(affinity_session_node(&map, 78, now_ns + AFFINITY_SESSION_NS),
                      AFFINITY_NODE_NONE);
    for (uint64_t session = 100; session < 1000; session++) {
        affinity_served(&map, session, 1, now_ns);
        ck_assert_uint_le(map.session_slots.used, 8);
    }
    ck_assert_uint_eq(affinity_session_node(&map, 999, now_ns), 1);
    ck_assert_uint_eq(affinity_session_node(&map, 78, now_ns), AFFINITY_NODE_NONE);
    affinity_deinit(&map);
}
END_TEST

MAIN_OF("affinity", never_denies_rarely_invents, wire, longest_run_from_the_first, sessions)
