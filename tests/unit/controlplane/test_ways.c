/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of controlplane/gossip/ways.c: two sides and the letters between them, which are lost,
 * repeated and forged. */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "controlplane/gossip/ways.h"
#include "schemas/base/rng.h"
#include "tests/unit/suite.h"

#define MODEL      7u
#define ARITHMETIC 9u
#define ASKED      3u /* the slot of who is asked, as the caller has it */
#define CALLER     5u /* the other way round */

static struct ways caller;
static struct ways asked;
static uint64_t now_ns;

static void setup(void)
{
    memset(&caller, 0, sizeof(caller));
    memset(&asked, 0, sizeof(asked));
    now_ns = 1000000000;
}

static void want(uint8_t seed, uint64_t tag)
{
    uint8_t random[WAY_TICKET_BYTES + WAY_KEY_BYTES];
    memset(random, seed, sizeof(random));
    ck_assert_int_eq(ways_want(&caller, ASKED, MODEL, ARITHMETIC, tag, random, now_ns), 0);
}

/* The letter that is due now. */
static struct way_out said(void)
{
    struct way_out out;
    ck_assert(ways_tick(&caller, now_ns, &out));
    ck_assert_int_eq(out.act, WAY_SAY);
    ck_assert_uint_eq(out.slot, ASKED);
    return out;
}

static struct way_out give(struct ways *to, uint32_t slot, const struct way_out *letter, int status)
{
    struct way_out out;
    ways_input(to, slot, letter->letter, sizeof(letter->letter), status, now_ns, &out);
    return out;
}

START_TEST(test_agree)
{
    uint32_t model;
    uint32_t arithmetic;
    struct way came;
    want(1, 42);
    struct way_out ask = said();
    ck_assert(ways_is_ask(ask.letter, sizeof(ask.letter), &model, &arithmetic));
    ck_assert_uint_eq(model, MODEL);
    ck_assert_uint_eq(arithmetic, ARITHMETIC);
    struct way_out answer = give(&asked, CALLER, &ask, 0);
    ck_assert_int_eq(answer.act, WAY_SAY);
    ck_assert_uint_eq(answer.slot, CALLER);
    ck_assert(!ways_is_ask(answer.letter, sizeof(answer.letter), &model, &arithmetic));
    /* An answer tells nobody the key. */
    for (size_t i = 32; i < sizeof(answer.letter); i++) {
        ck_assert_uint_eq(answer.letter[i], 0);
    }
    struct way_out go = give(&caller, ASKED, &answer, 0);
    ck_assert_int_eq(go.act, WAY_CONNECT);
    ck_assert_uint_eq(go.way.tag, 42);
    ck_assert(ways_came(&asked, go.way.ticket, now_ns, &came));
    ck_assert_mem_eq(came.key, go.way.key, sizeof(came.key));
    ck_assert_uint_eq(came.slot, CALLER);
    ck_assert_uint_eq(came.model, MODEL);
    /* Once only. */
    ck_assert(!ways_came(&asked, go.way.ticket, now_ns, &came));
    ways_end(&caller, go.index);
    ck_assert_uint_eq(ways_next_ns(&caller), UINT64_MAX);
    ck_assert_uint_eq(ways_next_ns(&asked), UINT64_MAX);
}
END_TEST

START_TEST(test_refused)
{
    want(1, 42);
    struct way_out ask = said();
    struct way_out answer = give(&asked, CALLER, &ask, -ESTALE);
    ck_assert_int_eq(answer.act, WAY_SAY);
    struct way_out over = give(&caller, ASKED, &answer, 0);
    ck_assert_int_eq(over.act, WAY_FAILED);
    ck_assert_int_eq(over.status, -ESTALE);
    ck_assert_uint_eq(over.way.tag, 42);
    ck_assert_int_eq(give(&caller, ASKED, &answer, 0).act, WAY_NOTHING);
}
END_TEST

/* Lost letters are said again, with the same ticket; then it is given up. */
START_TEST(test_lost)
{
    struct way_out out;
    want(1, 42);
    struct way_out first = said();
    ck_assert(!ways_tick(&caller, now_ns, &out));
    for (uint32_t i = 1; i < WAY_ASKS_MAX; i++) {
        now_ns = ways_next_ns(&caller);
        struct way_out again = said();
        ck_assert_mem_eq(again.letter, first.letter, sizeof(first.letter));
    }
    /* Asked twice, expected once. */
    (void)give(&asked, CALLER, &first, 0);
    (void)give(&asked, CALLER, &first, 0);
    uint32_t expected = 0;
    for (uint32_t i = 0; i < 2 * WAYS_MAX; i++) {
        expected += asked.all[i].state == WAY_EXPECTED;
    }
    ck_assert_uint_eq(expected, 1);
    now_ns = ways_next_ns(&caller);
    ck_assert(ways_tick(&caller, now_ns, &out));
    ck_assert_int_eq(out.act, WAY_FAILED);
    ck_assert_int_eq(out.status, -ETIMEDOUT);
    ck_assert_uint_eq(ways_next_ns(&caller), UINT64_MAX);
}
END_TEST

/* A ticket is good for a while, then nobody's. */
START_TEST(test_late)
{
    struct way came;
    struct way_out out;
    want(1, 42);
    struct way_out ask = said();
    struct way_out answer = give(&asked, CALLER, &ask, 0);
    struct way_out go = give(&caller, ASKED, &answer, 0);
    now_ns += WAY_EXPECT_NS;
    ck_assert(!ways_came(&asked, go.way.ticket, now_ns, &came));
    ck_assert(!ways_tick(&asked, now_ns, &out));
    ck_assert_uint_eq(ways_next_ns(&asked), UINT64_MAX);
}
END_TEST

/* Only who was asked can answer, and only what was asked. */
START_TEST(test_strangers)
{
    struct way came;
    uint8_t ticket[WAY_TICKET_BYTES] = {0};
    want(1, 42);
    struct way_out ask = said();
    struct way_out answer = give(&asked, CALLER, &ask, 0);
    ck_assert_int_eq(give(&caller, ASKED + 1, &answer, 0).act, WAY_NOTHING);
    struct way_out other = answer;
    other.letter[20] ^= 1;
    ck_assert_int_eq(give(&caller, ASKED, &other, 0).act, WAY_NOTHING);
    ck_assert(!ways_came(&asked, ticket, now_ns, &came)); /* free places have no ticket */
    /* A caller's own ticket opens nothing at the caller. */
    ck_assert(!ways_came(&caller, caller.all[0].ticket, now_ns, &came));
    ck_assert_int_eq(give(&caller, ASKED, &answer, 0).act, WAY_CONNECT);
}
END_TEST

START_TEST(test_bounded)
{
    uint8_t random[WAY_TICKET_BYTES + WAY_KEY_BYTES];
    struct way_out ask;
    struct way_out answer;
    for (uint8_t i = 0; i < WAYS_MAX; i++) {
        want(i, i);
        ask = said();
        (void)give(&asked, CALLER + i / WAYS_SHARE, &ask, 0);
    }
    memset(random, 99, sizeof(random));
    ck_assert_int_eq(ways_want(&caller, ASKED, MODEL, ARITHMETIC, 1, random, now_ns), -EBUSY);
    /* One more asks who has no place left: told so, and none of the others lost. */
    memset(&caller, 0, sizeof(caller));
    want(99, 1);
    ask = said();
    answer = give(&asked, CALLER + WAYS_MAX, &ask, 0);
    struct way_out over = give(&caller, ASKED, &answer, 0);
    ck_assert_int_eq(over.act, WAY_FAILED);
    ck_assert_int_eq(over.status, -EBUSY);
}
END_TEST

static uint32_t expected(void)
{
    uint32_t count = 0;
    for (uint32_t i = WAYS_MAX; i < 2 * WAYS_MAX; i++) {
        count += asked.all[i].state == WAY_EXPECTED;
    }
    return count;
}

/* Whoever is on the way may hold an ask up, and reads the ticket when it is shown: the key that
 * sealed one connection seals no other. */
START_TEST(test_spent)
{
    struct way came;
    want(1, 42);
    struct way_out ask = said();
    now_ns = ways_next_ns(&caller);
    struct way_out held_up = said();
    struct way_out answer = give(&asked, CALLER, &ask, 0);
    struct way_out go = give(&caller, ASKED, &answer, 0);
    ck_assert(ways_came(&asked, go.way.ticket, now_ns, &came));
    ck_assert_int_eq(give(&asked, CALLER, &held_up, 0).act, WAY_NOTHING);
    ck_assert_uint_eq(expected(), 0);
    ck_assert(!ways_came(&asked, go.way.ticket, now_ns, &came));
}
END_TEST

/* Neither another member's ticket nor more than a share of the places; and what is refused now is
 * not expected any more. */
START_TEST(test_each_its_own)
{
    struct way came;
    want(1, 42);
    struct way_out ask = said();
    (void)give(&asked, CALLER, &ask, 0);
    struct way_out answer = give(&asked, CALLER + 1, &ask, 0);
    struct way_out over = give(&caller, ASKED, &answer, 0);
    ck_assert_int_eq(over.act, WAY_FAILED);
    ck_assert_int_eq(over.status, -EACCES);
    ck_assert(ways_came(&asked, over.way.ticket, now_ns, &came));
    ck_assert_uint_eq(came.slot, CALLER);
    for (uint8_t i = 2; i < WAYS_MAX; i++) {
        want(i, i);
        ask = said();
        answer = give(&asked, CALLER, &ask, 0);
    }
    ck_assert_uint_eq(expected(), WAYS_SHARE);
    ck_assert_int_eq(give(&caller, ASKED, &answer, 0).status, -EBUSY);
    setup();
    want(1, 42);
    ask = said();
    (void)give(&asked, CALLER, &ask, 0);
    (void)give(&asked, CALLER, &ask, -EACCES);
    ck_assert_uint_eq(expected(), 0);
}
END_TEST

/* Whatever comes changes nothing but what it may. */
START_TEST(test_noise)
{
    struct rng rng = {suite_seed(1)};

    want(1, 42);
    (void)said();
    for (int i = 0; i < 20000; i++) {
        uint8_t letter[WAY_LETTER_BYTES + 8];
        struct way_out out;
        size_t size = (size_t)rng_below(&rng, sizeof(letter) + 1);
        for (size_t j = 0; j < sizeof(letter); j++) {
            letter[j] = (uint8_t)rng_below(&rng, j == 0 ? 4 : 256);
        }
        ways_input(&caller, ASKED, letter, size, -ENOTSUP, now_ns, &out);
        ck_assert(out.act == WAY_NOTHING || out.act == WAY_SAY);
        ck_assert_int_eq(caller.all[0].state, WAY_ASKING);
    }
    for (uint32_t i = 1; i < 2 * WAYS_MAX; i++) {
        ck_assert_int_eq(caller.all[i].state, WAY_FREE);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("ways");
    TCase *tcase = tcase_create("core");
    tcase_add_checked_fixture(tcase, setup, NULL);
    tcase_add_test(tcase, test_agree);
    tcase_add_test(tcase, test_refused);
    tcase_add_test(tcase, test_lost);
    tcase_add_test(tcase, test_late);
    tcase_add_test(tcase, test_strangers);
    tcase_add_test(tcase, test_bounded);
    tcase_add_test(tcase, test_spent);
    tcase_add_test(tcase, test_each_its_own);
    tcase_add_test(tcase, test_noise);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
