/* SPDX-License-Identifier: Apache-2.0 */
/* test_rival.c - stream.h when the worker in the middle of an answer is not heard any more, and may
 * come back: who leads, whose tokens count, what it costs. */
#include "tests/unit/flow/stream_fixture.h"
#include "tests/unit/suite.h"

/* Two tokens, then silence; the rival is ordered. */
static const struct stream_order *open_rival(struct fixture *f, uint32_t paths)
{
    fixture_open(f, paths, false, false);
    expect(f, STREAM_START, 0);
    accept(f, 0, 3, 4, 5);
    ck_assert(token(f, 0, 100, T0 + 10 * MS));
    ck_assert(token(f, 0, 101, T0 + 20 * MS));
    stream_suspect(&f->s, &f->policy, 0);
    return expect(f, STREAM_START, 1);
}

START_TEST(silence_brings_a_rival)
{
    for (uint32_t paths = 1; paths <= 3; paths++) {
        struct fixture f;
        const struct stream_order *o = open_rival(&f, paths);
        ck_assert_uint_eq(o->target, 4);
        ck_assert_uint_eq(o->path, paths > 1); /* another way, if there is one */
        ck_assert_uint_eq(f.policy.retry_purse, STREAM_RETRY_MAX - STREAM_PURSE);
        stream_suspect(&f.s, &f.policy, 0); /* one is enough */
        expect_none(&f);
        stream_deinit(&f.s);
    }
}
END_TEST

/* A rival that computes otherwise would give other tokens: the mesh is asked for one that does not.
 */
START_TEST(a_rival_computes_the_same)
{
    struct fixture f;
    fixture_open(&f, 2, false, false);
    expect(&f, STREAM_START, 0);
    stream_computes(&f.s, 0, 0xa);
    accept(&f, 0, 3, 4, 5);
    ck_assert(token(&f, 0, 100, T0 + 10 * MS));
    stream_suspect(&f.s, &f.policy, 0);
    const struct stream_order *o = expect(&f, STREAM_START, 1);
    ck_assert_uint_eq(o->target, NONE);
    ck_assert_uint_eq(o->arithmetic, 0xa);
    ck_assert_uint_eq(o->avoid_count, 1);
    ck_assert_uint_eq(o->avoid[0], 3);
    ck_assert_uint_eq(f.s.avoid_count, 0); /* it may still turn out to live */
    stream_deinit(&f.s);
}
END_TEST

START_TEST(who_lives_after_all_goes_on)
{
    struct fixture f;
    open_rival(&f, 2);
    accept(&f, 1, 4, NONE, NONE);
    ck_assert(token(&f, 0, 102, T0 + 300 * MS));
    expect(&f, STREAM_CANCEL, 1);
    ck_assert(!token(&f, 1, 102, T0 + 301 * MS));
    ck_assert(token(&f, 0, 103, T0 + 302 * MS));
    expect_none(&f);
    over(&f, 0, 0, T0 + 310 * MS);
    ck_assert_uint_eq(f.s.result.failovers, 0);
    ck_assert_uint_eq(f.policy.failovers, 0);
    ck_assert_uint_eq(f.policy.path, 0);
    expect_end(&f, 0, WEFT_FINISH_STOP, 4);
}
END_TEST

START_TEST(the_rival_takes_over)
{
    struct fixture f;
    open_rival(&f, 2);
    accept(&f, 1, 4, NONE, NONE);
    ck_assert(token(&f, 1, 102, T0 + 300 * MS));
    expect(&f, STREAM_CANCEL, 0);
    ck_assert(!token(&f, 0, 102, T0 + 301 * MS)); /* woke up too late */
    ck_assert_uint_eq(f.policy.path, 1);
    ck_assert_uint_eq(f.s.tokens[2], 102);
    over(&f, 1, WEFT_E_WORKER_LOST, T0 + 310 * MS);
    const struct stream_order *o = expect(&f, STREAM_START, 0);
    ck_assert_uint_eq(o->target, 5);
    ck_assert_uint_eq(o->avoid_count, 2);
    ck_assert(token(&f, 0, 103, T0 + 320 * MS));
    over(&f, 0, 0, T0 + 330 * MS);
    ck_assert_uint_eq(f.s.result.failovers, 2);
    expect_end(&f, 0, WEFT_FINISH_STOP, 4);
}
END_TEST

START_TEST(who_is_lost_leaves_it_to_the_rival)
{
    struct fixture f;
    open_rival(&f, 1);
    accept(&f, 1, 4, NONE, NONE);
    over(&f, 0, WEFT_E_STALLED, T0 + 400 * MS);
    expect_none(&f);
    ck_assert(token(&f, 1, 102, T0 + 500 * MS));
    over(&f, 1, 0, T0 + 510 * MS);
    ck_assert_uint_eq(f.s.result.failovers, 1);
    ck_assert_uint_eq(f.policy.retry_purse, STREAM_RETRY_MAX - STREAM_PURSE); /* paid once */
    expect_end(&f, 0, WEFT_FINISH_STOP, 3);
}
END_TEST

/* What was open there besides need not pay once more. */
START_TEST(its_rival_paid_for_the_loss)
{
    struct fixture f;
    struct stream other;
    struct stream_order order;
    const uint16_t alternates[2] = {4, 5};
    open_rival(&f, 1);
    stream_init(&other, &f.policy, false, false, T0);
    ck_assert(stream_next(&other, &order));
    stream_accepted(&other, 0, 3, alternates);
    over(&f, 0, WEFT_E_STALLED, T0 + 400 * MS);
    f.policy.retry_purse = 0;
    weft_result_t lost = {.status = WEFT_E_STALLED};
    stream_over(&other, &f.policy, 0, &lost, T0 + 401 * MS);
    ck_assert(stream_next(&other, &order));
    ck_assert_uint_eq(order.target, 4);
    stream_deinit(&other);
    stream_deinit(&f.s);
}
END_TEST

/* It had all tokens but not the account. */
START_TEST(a_rival_may_end_it_without_a_token)
{
    struct fixture f;
    open_rival(&f, 1);
    over(&f, 1, 0, T0 + 300 * MS);
    expect(&f, STREAM_CANCEL, 0);
    expect_end(&f, 0, WEFT_FINISH_STOP, 2);
}
END_TEST

START_TEST(a_lost_rival_changes_nothing)
{
    static const int ends[] = {WEFT_E_WORKER_LOST, WEFT_E_MESH_FULL};
    for (uint32_t i = 0; i < 2; i++) {
        struct fixture f;
        open_rival(&f, 1);
        over(&f, 1, ends[i], T0 + 300 * MS);
        expect_none(&f);
        ck_assert_int_eq(f.s.leader, 0);
        stream_piece(&f.s, 0, true);
        ck_assert(f.s.partial); /* pieces of the token that is under way still count */
        stream_piece(&f.s, 0, false);
        ck_assert(token(&f, 0, 102, T0 + 310 * MS));
        over(&f, 0, 0, T0 + 320 * MS);
        ck_assert_uint_eq(f.s.result.failovers, 0);
        expect_end(&f, 0, WEFT_FINISH_STOP, 3);
    }
}
END_TEST

START_TEST(cancel_ends_both)
{
    struct fixture f;
    open_rival(&f, 1);
    stream_cancel(&f.s, T0 + 300 * MS);
    over(&f, 0, WEFT_E_CANCELLED, T0 + 310 * MS);
    ck_assert(!f.s.ended);
    over(&f, 1, WEFT_E_CANCELLED, T0 + 320 * MS);
    expect_none(&f);
    expect_end(&f, WEFT_E_CANCELLED, WEFT_FINISH_CANCELLED, 2);
}
END_TEST

START_TEST(no_rival_without_need_or_means)
{
    for (uint32_t why = 0; why < 6; why++) {
        struct fixture f;
        fixture_open(&f, 1, false, why == 0);
        expect(&f, STREAM_START, 0);
        accept(&f, 0, 3, why == 1 ? NONE : 4, NONE);
        if (why != 2) { /* no token yet: a hedge's affair */
            ck_assert(token(&f, 0, 100, T0 + 10 * MS));
        }
        f.policy.retry_purse = why == 3 ? STREAM_RIVAL_LEAST - 1 : f.policy.retry_purse;
        stream_piece(&f.s, 0, why == 4); /* half a token: nobody can go on behind it */
        f.s.forgetful = why == 5;
        stream_suspect(&f.s, &f.policy, 0);
        expect_none(&f);
        stream_deinit(&f.s);
    }
}
END_TEST

/* The id of a token that was cut would promise text that never came. */
START_TEST(a_token_that_was_cut_is_a_failure)
{
    struct fixture f;
    fixture_open(&f, 1, false, false);
    expect(&f, STREAM_START, 0);
    accept(&f, 0, 3, 4, 5);
    ck_assert(token(&f, 0, 100, T0 + 10 * MS));
    stream_piece(&f.s, 0, true);
    over(&f, 0, WEFT_E_WORKER_LOST, T0 + 20 * MS);
    expect_none(&f);
    expect_end(&f, WEFT_E_WORKER_LOST, WEFT_FINISH_FAILED, 1);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("flow/rival");
    TCase *t = tcase_create("rival");
    tcase_add_test(t, silence_brings_a_rival);
    tcase_add_test(t, a_rival_computes_the_same);
    tcase_add_test(t, who_lives_after_all_goes_on);
    tcase_add_test(t, the_rival_takes_over);
    tcase_add_test(t, who_is_lost_leaves_it_to_the_rival);
    tcase_add_test(t, its_rival_paid_for_the_loss);
    tcase_add_test(t, a_rival_may_end_it_without_a_token);
    tcase_add_test(t, a_lost_rival_changes_nothing);
    tcase_add_test(t, cancel_ends_both);
    tcase_add_test(t, no_rival_without_need_or_means);
    tcase_add_test(t, a_token_that_was_cut_is_a_failure);
    suite_add_tcase(s, t);
    return suite_main(s);
}
