/* SPDX-License-Identifier: Apache-2.0 */
/* test_seal.c - sealed datagrams, keys of pairs, rotation, and the replay window. */
#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/swim/seal.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define BODY 40u

static void key_make(uint8_t key[32], uint8_t fill)
{
    memset(key, fill, 32);
}

static size_t sealed(uint8_t *data, const uint8_t key[32], struct swim_header *header)
{
    *header = (struct swim_header){.version = 1,
                                   .kind = SWIM_SEAL_PAIR,
                                   .key_tag = 9,
                                   .session = 0x1020304050607080,
                                   .counter = 0x112233445566,
                                   .receiver = 77};
    memset(data + SWIM_HEADER_BYTES, 'x', BODY);
    return swim_seal(header, key, data, BODY);
}

START_TEST(opens_with_the_same_key_only)
{
    uint8_t key[32];
    uint8_t data[BODY + SWIM_SEAL_BYTES];
    uint8_t body[BODY];
    struct swim_header header;
    struct swim_header read = {.receiver = 77};
    key_make(key, 1);
    size_t size = sealed(data, key, &header);
    ck_assert_uint_eq(size, sizeof(data));
    ck_assert(swim_header_read(&read, data, size));
    ck_assert_uint_eq(read.version, 1);
    ck_assert_uint_eq(read.kind, SWIM_SEAL_PAIR);
    ck_assert_uint_eq(read.key_tag, 9);
    ck_assert_uint_eq(read.session, header.session);
    ck_assert_uint_eq(read.counter, header.counter);
    ck_assert(swim_open(&read, key, data, size, body));
    ck_assert_int_eq(body[0], 'x');
    ck_assert_int_eq(body[BODY - 1], 'x');
    key[31] ^= 1;
    ck_assert(!swim_open(&read, key, data, size, body));
    key[31] ^= 1;
    read.receiver = 78; /* a later life of the receiver */
    ck_assert(!swim_open(&read, key, data, size, body));
}
END_TEST

START_TEST(every_bit_is_authenticated)
{
    uint8_t key[32];
    uint8_t data[BODY + SWIM_SEAL_BYTES];
    uint8_t body[BODY];
    struct swim_header header;
    key_make(key, 1);
    size_t size = sealed(data, key, &header);
    for (size_t bit = 0; bit < 8 * size; bit++) {
        struct swim_header read = {.receiver = 77};
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        ck_assert(!swim_header_read(&read, data, size) || !swim_open(&read, key, data, size, body));
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t less = 0; less < SWIM_SEAL_BYTES; less++) {
        ck_assert(!swim_header_read(&header, data, less));
    }
}
END_TEST

START_TEST(pairs_share_what_others_do_not)
{
    struct swim_identity a, b, c;
    struct swim_keyring ring;
    uint8_t seed[32];
    uint8_t shared[3][32];
    uint8_t key[4][32];
    key_make(seed, 1);
    swim_identity_init(&a, seed);
    key_make(seed, 2);
    swim_identity_init(&b, seed);
    key_make(seed, 3);
    swim_identity_init(&c, seed);
    swim_keyring_init(&ring, seed);
    ck_assert(swim_pair_shared(&a, b.public_key, shared[0]));
    ck_assert(swim_pair_shared(&b, a.public_key, shared[1]));
    ck_assert(swim_pair_shared(&c, a.public_key, shared[2]));
    ck_assert_mem_eq(shared[0], shared[1], 32);
    ck_assert_mem_ne(shared[0], shared[2], 32);
    swim_pair_key(&ring, 0, shared[0], a.public_key, b.public_key, key[0]);
    swim_pair_key(&ring, 0, shared[1], b.public_key, a.public_key, key[1]);
    ck_assert_mem_eq(key[0], key[1], 32);
    key_make(seed, 4);
    swim_keyring_install(&ring, seed);
    swim_pair_key(&ring, 1, shared[0], a.public_key, b.public_key, key[2]);
    ck_assert_mem_ne(key[0], key[2], 32);
    memset(seed, 0, 32); /* no point of the curve worth having */
    ck_assert(!swim_pair_shared(&a, seed, shared[0]));
}
END_TEST

START_TEST(keys_rotate)
{
    struct swim_keyring ring;
    uint8_t old[32], fresh[32], other[32];
    key_make(old, 1);
    key_make(fresh, 2);
    swim_keyring_init(&ring, old);
    uint32_t generation = ring.generation;
    ck_assert_int_eq(swim_keyring_use(&ring, fresh), -ENOENT);
    ck_assert_int_eq(swim_keyring_install(&ring, fresh), 0);
    ck_assert_int_eq(swim_keyring_install(&ring, fresh), 0);
    ck_assert_uint_eq(ring.count, 2);
    ck_assert_int_eq(swim_keyring_remove(&ring, old), -EBUSY);
    ck_assert_int_eq(swim_keyring_use(&ring, fresh), 0);
    ck_assert_uint_ne(ring.generation, generation);
    ck_assert_mem_eq(ring.keys[0].secret, fresh, 32);
    ck_assert_int_eq(swim_keyring_remove(&ring, old), 0);
    ck_assert_int_eq(swim_keyring_remove(&ring, old), -ENOENT);
    ck_assert_uint_eq(ring.count, 1);
    for (uint8_t i = 3; i < 3 + SWIM_KEYS_MAX - 1; i++) {
        key_make(other, i);
        ck_assert_int_eq(swim_keyring_install(&ring, other), 0);
    }
    key_make(other, 99);
    ck_assert_int_eq(swim_keyring_install(&ring, other), -ENOSPC);
}
END_TEST

/* Against one that remembers all: nothing is taken twice, and what is young enough is taken. */
START_TEST(window_against_a_long_memory)
{
    static bool seen[200000];
    struct swim_window window = {0};
    struct rng rng = {.state = (uint64_t)_i + 1};
    uint64_t head = 1;
    memset(seen, 0, sizeof(seen));
    for (unsigned step = 0; step < 60000; step++) {
        head += rng_below(&rng, 100) == 0 ? rng_below(&rng, 400) : rng_below(&rng, 3);
        uint64_t back = rng_below(&rng, 320);
        uint64_t counter = head > back ? head - back : 1;
        bool fresh = swim_window_fresh(&window, counter);
        ck_assert(!(fresh && seen[counter]));
        if (counter + SWIM_WINDOW_BITS - 64 > window.top) {
            ck_assert(fresh || seen[counter]);
        }
        if (fresh) {
            swim_window_mark(&window, counter);
            seen[counter] = true;
            ck_assert(!swim_window_fresh(&window, counter));
        }
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("swim_seal");
    TCase *cases = tcase_create("seal");
    tcase_add_test(cases, opens_with_the_same_key_only);
    tcase_add_test(cases, every_bit_is_authenticated);
    tcase_add_test(cases, pairs_share_what_others_do_not);
    tcase_add_test(cases, keys_rotate);
    tcase_add_loop_test(cases, window_against_a_long_memory, 0, 10);
    suite_add_tcase(suite, cases);
    return suite_main(suite);
}
