/* SPDX-License-Identifier: Apache-2.0 */
/* test_decree.c - controlplane/gossip/decree.c: a policy goes from one node to others, part by
 * part, with losses; what the operator has not signed, or what is old, counts for nothing; what
 * members may call themselves by it. */
#include "controlplane/gossip/decree.h"

#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/rng.h"
#include "tests/unit/controlplane/main_of.h"

#define EU       (1u << 0)
#define US       (1u << 1)
#define GDPR     (1u << 4)
#define START_NS (100 * NS_PER_S)

static uint8_t secret[64], others_secret[64];
static char key_hex[65];

static void keys_make(void)
{
    uint8_t public_key[32], seed[32] = {7};
    ck_assert_int_ge(sodium_init(), 0);
    crypto_sign_seed_keypair(public_key, secret, seed);
    sodium_bin2hex(key_hex, sizeof(key_hex), public_key, 32);
    seed[0] = 8;
    crypto_sign_seed_keypair(public_key, others_secret, seed);
}

/* A signed file of `nodes` further nodes, to be freed. */
static char *file_make(uint64_t version, uint32_t nodes, const uint8_t *by, size_t *size)
{
    size_t room = 4096u + nodes * 64u;
    char *text = malloc(room);
    ck_assert_ptr_nonnull(text);
    size_t used = (size_t)snprintf(text, room,
                                   "weft-policy 1\nversion %llu\nissued 1\nproviders local\n"
                                   "node 1 provider=local jurisdiction=DE tags=eu,gdpr\n"
                                   "node 2 provider=local tags=us key=%064d\n"
                                   "node 3 provider=acme tags=us\n",
                                   (unsigned long long)version, 0);
    for (uint32_t i = 0; i < nodes; i++) {
        used +=
            (size_t)snprintf(text + used, room - used, "node %u provider=local tags=us\n", 100 + i);
    }
    *size = used + policy_sign(text, used, by, text + used);
    return text;
}

static int take(struct decree *d, uint64_t version, uint32_t nodes, const uint8_t *by)
{
    size_t size;
    struct policy_error error;
    char *text = file_make(version, nodes, by, &size);
    int rc = decree_take(d, text, size, &error);
    free(text);
    return rc;
}

/* `from` tells `to` what it has, and both talk until nothing more is said; every letter is lost
 * with the given chance. */
static void talk(struct decree *from, struct decree *to, uint32_t slot, uint64_t now_ns,
                 uint32_t loss_percent, struct rng *rng)
{
    struct decree *ends[2] = {to, from};
    struct letter letter = {.slot = slot, .topic = LETTER_POLICY};
    letter.size = decree_tell(from, now_ns, letter.body);
    for (unsigned turn = 0; letter.size != 0; turn++) {
        struct letter answer = {.slot = slot, .topic = LETTER_POLICY};
        if (rng_below(rng, 100) < loss_percent) {
            return;
        }
        ck_assert_uint_lt(turn, 10000);
        answer.size = decree_input(ends[turn % 2], &letter, now_ns, answer.body);
        ck_assert_uint_le(answer.size, LETTER_MAX);
        letter = answer;
    }
}

START_TEST(spreads_with_losses)
{
    struct rng rng = {.state = 5};
    struct decree a, b;
    uint64_t now_ns = START_NS;
    keys_make();
    ck_assert_int_eq(decree_init(&a, key_hex, NULL), 0);
    ck_assert_int_eq(decree_init(&b, key_hex, NULL), 0);
    ck_assert_int_eq(take(&a, 1, 3000, secret), 0);
    ck_assert_uint_gt(a.size, 50u * DECREE_PART_MAX);
    for (uint32_t i = 0; i < 2000 && b.policy == NULL; i++, now_ns += NS_PER_S) {
        talk(i % 2 == 0 ? &a : &b, i % 2 == 0 ? &b : &a, 3, now_ns, 5, &rng);
    }
    ck_assert_ptr_nonnull(b.policy);
    ck_assert_uint_eq(b.policy->node_count, 3003);
    ck_assert_uint_eq(b.size, a.size);
    ck_assert_mem_eq(b.text, a.text, a.size);
    ck_assert_int_eq(take(&b, 2, 1, secret), 0); /* and back */
    talk(&b, &a, 3, now_ns, 0, &rng);
    ck_assert_uint_eq(a.policy->version, 2);
    ck_assert_ptr_null(a.incoming);
    decree_deinit(&a);
    decree_deinit(&b);
}
END_TEST

START_TEST(only_what_is_signed_and_newer)
{
    struct rng rng = {.state = 6};
    struct decree a, liar;
    uint32_t changes;
    keys_make();
    ck_assert_int_eq(decree_init(&a, key_hex, NULL), 0);
    ck_assert_int_eq(decree_init(&liar, key_hex, NULL), 0);
    ck_assert_int_eq(take(&a, 5, 2, secret), 0);
    changes = a.changes;
    ck_assert_int_lt(take(&a, 5, 2, secret), 0);
    ck_assert_int_lt(take(&a, 4, 2, secret), 0);
    ck_assert_int_lt(take(&a, 6, 2, others_secret), 0);
    ck_assert_uint_eq(a.changes, changes);
    /* One who makes up a version: asked, found out, and not asked again. */
    ck_assert_int_eq(take(&liar, 4, 2, secret), 0);
    liar.policy->version = 9;
    talk(&liar, &a, 7, START_NS, 0, &rng);
    ck_assert_uint_eq(a.policy->version, 5);
    ck_assert_uint_eq(a.banned_slot, 7);
    ck_assert_ptr_null(a.incoming);
    uint64_t refused = a.refused;
    talk(&liar, &a, 7, START_NS + NS_PER_S, 0, &rng);
    ck_assert_ptr_null(a.incoming);
    ck_assert_uint_eq(a.refused, refused);
    /* One who does not go on is in nobody's way for long. */
    struct letter silent = {.slot = 8};
    uint8_t out[LETTER_MAX];
    silent.size = decree_tell(&liar, START_NS, silent.body);
    ck_assert_uint_gt(decree_input(&a, &silent, START_NS + 2 * NS_PER_S, out), 0);
    struct decree good;
    ck_assert_int_eq(decree_init(&good, key_hex, NULL), 0);
    ck_assert_int_eq(take(&good, 6, 2, secret), 0);
    talk(&good, &a, 9, START_NS + 3 * NS_PER_S, 0, &rng);
    ck_assert_uint_eq(a.policy->version, 5);
    talk(&good, &a, 9, START_NS + 6 * NS_PER_S, 0, &rng);
    ck_assert_uint_eq(a.policy->version, 6);
    /* Nor is it unheard for good: it may have been the network. */
    const uint64_t banned_ns = START_NS + 6 * NS_PER_S;
    ck_assert_int_eq(take(&good, 7, 2, secret), 0);
    talk(&good, &a, 8, banned_ns + DECREE_BAN_NS - 1, 0, &rng);
    ck_assert_uint_eq(a.policy->version, 6);
    talk(&good, &a, 8, banned_ns + DECREE_BAN_NS, 0, &rng);
    ck_assert_uint_eq(a.policy->version, 7);
    decree_deinit(&a);
    decree_deinit(&liar);
    decree_deinit(&good);
}
END_TEST

START_TEST(any_letter)
{
    struct rng rng = {.state = 8};
    struct decree d;
    uint8_t out[LETTER_MAX];
    keys_make();
    ck_assert_int_eq(decree_init(&d, key_hex, NULL), 0);
    ck_assert_int_eq(take(&d, 5, 100, secret), 0);
    for (uint32_t i = 0; i < 200000; i++) {
        struct letter letter = {.slot = rng_below(&rng, 3)};
        letter.size = rng_below(&rng, 40);
        for (size_t at = 0; at < letter.size; at++) {
            letter.body[at] = at < 17 && rng_below(&rng, 3) != 0 ? 0 : (uint8_t)rng_next(&rng);
        }
        letter.body[0] = (uint8_t)rng_below(&rng, 5);
        letter.body[1] = (uint8_t)rng_below(&rng, 8);
        ck_assert_uint_le(decree_input(&d, &letter, START_NS + i * NS_PER_MS, out), LETTER_MAX);
        ck_assert_uint_eq(d.policy->version, 5);
    }
    decree_deinit(&d);
}
END_TEST

START_TEST(what_members_are)
{
    struct decree d;
    uint8_t zeros[SWIM_KEY_BYTES] = {0}, other[SWIM_KEY_BYTES] = {1};
    char jurisdiction[3] = "US";
    uint32_t tags = EU | US | GDPR;
    keys_make();
    ck_assert_int_eq(decree_init(&d, "", NULL), 0); /* none asked for: believed */
    ck_assert(decree_judge(&d, 1, zeros, &tags, jurisdiction));
    ck_assert_uint_eq(tags, EU | US | GDPR);
    ck_assert_str_eq(jurisdiction, "US");
    ck_assert(decree_judge(NULL, 1, zeros, &tags, jurisdiction));
    ck_assert_int_lt(take(&d, 1, 1, secret), 0);
    ck_assert_int_lt(decree_init(&d, "12", NULL), 0);
    ck_assert_int_eq(decree_init(&d, key_hex, NULL), 0); /* none yet: nobody has a tag */
    ck_assert(decree_judge(&d, 1, zeros, &tags, jurisdiction));
    ck_assert_uint_eq(tags, 0);
    ck_assert_str_eq(jurisdiction, "");
    ck_assert_int_eq(take(&d, 1, 0, secret), 0);
    tags = EU | US;
    ck_assert(decree_judge(&d, 1, other, &tags, jurisdiction));
    ck_assert_uint_eq(tags, EU); /* claimed and granted */
    ck_assert_str_eq(jurisdiction, "DE");
    tags = US;
    ck_assert(decree_judge(&d, 2, zeros, &tags, jurisdiction));
    ck_assert_uint_eq(tags, US);
    ck_assert(!decree_judge(&d, 2, other, &tags, jurisdiction)); /* its id, not its key */
    ck_assert_uint_eq(tags, 0);
    tags = US;
    ck_assert(!decree_judge(&d, 3, zeros, &tags, jurisdiction)); /* provider */
    tags = US;
    ck_assert(!decree_judge(&d, 4, zeros, &tags, jurisdiction)); /* not listed */
    ck_assert_uint_eq(tags, 0);
    d.providers = "acme"; /* only takes away */
    ck_assert(!decree_judge(&d, 1, zeros, &tags, jurisdiction));
    ck_assert(!decree_judge(&d, 3, zeros, &tags, jurisdiction));
    decree_deinit(&d);
}
END_TEST

MAIN_OF("decree", spreads_with_losses, only_what_is_signed_and_newer, any_letter, what_members_are)
