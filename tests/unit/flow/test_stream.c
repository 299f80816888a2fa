/* SPDX-License-Identifier: Apache-2.0 */
/* test_stream.c - stream.h's decisions one call at a time: who leads, where to go next, patience,
 * the account. test_purse.c has the purses, test_mesh.c the same machine over a network. */
#include "tests/unit/flow/stream_fixture.h"
#include "tests/unit/suite.h"

/* An attempt has given two tokens and is lost; the next one is ordered. */
static const struct stream_order *lose_after_two(struct fixture *f, uint16_t alt1, uint16_t alt2)
{
    fixture_open(f, 1, false, false);
    expect(f, STREAM_START, 0);
    accept(f, 0, 3, alt1, alt2);
    ck_assert(token(f, 0, 100, T0 + 10 * MS));
    ck_assert(token(f, 0, 101, T0 + 20 * MS));
    over(f, 0, WEFT_E_WORKER_LOST, T0 + 30 * MS);
    return expect(f, STREAM_START, 0);
}

/* ---- what computes ---- */

/* Where it is known the mesh is asked for more of it, and alternates of unknown kind are not. */
START_TEST(goes_on_with_the_same_arithmetic)
{
    struct fixture f;
    fixture_open(&f, 1, false, false);
    ck_assert_uint_eq(expect(&f, STREAM_START, 0)->arithmetic, 0);
    stream_computes(&f.s, 0, 0xa);
    accept(&f, 0, 3, 4, 5);
    ck_assert(token(&f, 0, 100, T0 + 10 * MS));
    over(&f, 0, WEFT_E_WORKER_LOST, T0 + 30 * MS);
    const struct stream_order *o = expect(&f, STREAM_START, 0);
    ck_assert_uint_eq(o->target, NONE);
    ck_assert_uint_eq(o->arithmetic, 0xa);
    ck_assert_uint_eq(o->avoid_count, 1);
    ck_assert_uint_eq(o->avoid[0], 3);
    stream_computes(&f.s, 0, 0xa);
    accept(&f, 0, 6, NONE, NONE);
    ck_assert(token(&f, 0, 101, T0 + 40 * MS));
    over(&f, 0, WEFT_E_WORKER_LOST, T0 + 50 * MS);
    ck_assert_uint_eq(expect(&f, STREAM_START, 0)->arithmetic, 0xa);
    stream_computes(&f.s, 0, 0xb); /* nobody else was there */
    accept(&f, 0, 7, NONE, NONE);
    ck_assert(token(&f, 0, 102, T0 + 60 * MS));
    ck_assert(token(&f, 0, 103, T0 + 60 * MS));
    over(&f, 0, WEFT_E_WORKER_LOST, T0 + 70 * MS);
    ck_assert_uint_eq(expect(&f, STREAM_START, 0)->arithmetic, 0xb);
    accept(&f, 0, 8, NONE, NONE); /* an older worker does not tell */
    ck_assert(token(&f, 0, 104, T0 + 80 * MS));
    over(&f, 0, 0, T0 + 90 * MS);
    ck_assert_uint_eq(f.s.result.mixed, 1);
    expect_end(&f, 0, WEFT_FINISH_STOP, 5);
}
END_TEST

/* Before the first token nothing has been computed that would have to fit. */
START_TEST(begins_anew_with_any_arithmetic)
{
    struct fixture f;
    fixture_open(&f, 1, false, false);
    expect(&f, STREAM_START, 0);
    stream_computes(&f.s, 0, 0xa);
    accept(&f, 0, 3, 4, 5);
    over(&f, 0, WEFT_E_WORKER_LOST, T0 + 30 * MS);
    const struct stream_order *o = expect(&f, STREAM_START, 0);
    ck_assert_uint_eq(o->target, 4);
    ck_assert_uint_eq(o->arithmetic, 0);
    stream_computes(&f.s, 0, 0xb);
    ck_assert(token(&f, 0, 100, T0 + 40 * MS));
    over(&f, 0, 0, T0 + 50 * MS);
    ck_assert_uint_eq(f.s.result.mixed, 0);
    expect_end(&f, 0, WEFT_FINISH_STOP, 1);
}
END_TEST

/* ---- one attempt ---- */

START_TEST(plain_answer)
{
    struct fixture f;
    fixture_open(&f, 1, false, false);
    const struct stream_order *o = expect(&f, STREAM_START, 0);
    ck_assert_uint_eq(o->target, NONE);
    ck_assert_uint_eq(o->path, 0);
    ck_assert_uint_eq(o->avoid_count, 0);
    expect_none(&f);
    ck_assert_uint_eq(stream_due_ns(&f.s), UINT64_MAX);
    accept(&f, 0, 3, 4, 5);
    ck_assert(token(&f, 0, 7, T0 + 40 * MS));
    ck_assert(token(&f, 0, 8, T0 + 50 * MS));
    ck_assert(token(&f, 0, 9, T0 + 90 * MS));
    weft_result_t done = {.finish = WEFT_FINISH_LENGTH,
                          .prompt_tokens = 11,
                          .new_tokens = 3,
                          .queue_us = 1000,
                          .prefill_us = 30000,
                          .decode_us = 50000};
    stream_over(&f.s, &f.policy, 0, &done, T0 + 100 * MS);
    const weft_result_t *r = &f.s.result;
    ck_assert_uint_eq(r->total_us, 100000);
    ck_assert_uint_eq(r->first_token_us, 40000);
    ck_assert_uint_eq(r->gap_us, 40000); /* between tokens, not before the first */
    ck_assert_uint_eq(r->net_us, 19000);
    ck_assert_uint_eq(r->prompt_tokens, 11);
    ck_assert_uint_eq(r->failovers, 0);
    ck_assert(!r->hedged);
    ck_assert_uint_eq(f.policy.first_us.count, 1);
    expect_none(&f);
    expect_end(&f, 0, WEFT_FINISH_LENGTH, 3);
}
END_TEST

/* The last text of an answer may belong to a token that another attempt has told. */
START_TEST(rest_of_a_text_after_a_loss)
{
    struct fixture f;
    fixture_open(&f, 1, false, false);
    expect(&f, STREAM_START, 0);
    accept(&f, 0, 3, 4, 5);
    ck_assert(!stream_more(&f.s, &f.policy, 0)); /* with no token before */
    ck_assert(token(&f, 0, 7, T0));
    ck_assert(stream_more(&f.s, &f.policy, 0));
    over(&f, 0, WEFT_E_WORKER_LOST, T0 + MS);
    const uint32_t again = expect(&f, STREAM_START, 0)->attempt;
    ck_assert(!stream_more(&f.s, &f.policy, 1 - again));
    ck_assert(stream_more(&f.s, &f.policy, again));
    over(&f, again, 0, T0 + 2 * MS);
    expect_none(&f);
    expect_end(&f, 0, WEFT_FINISH_STOP, 1);
}
END_TEST

START_TEST(refusal_of_a_fresh_request_is_final)
{
    static const int statuses[] = {WEFT_E_MESH_FULL, WEFT_E_UNKNOWN_MODEL, WEFT_E_BUDGET_INFEASIBLE,
                                   WEFT_E_BAD_REQUEST, WEFT_E_TOO_LONG};
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        struct fixture f;
        fixture_open(&f, 2, false, false);
        expect(&f, STREAM_START, 0);
        refuse(&f, 0, statuses[i], 250, T0 + MS);
        expect_none(&f);
        ck_assert_uint_eq(f.s.result.retry_after_ms, 250);
        expect_end(&f, statuses[i], WEFT_FINISH_REFUSED, 0);
    }
}
END_TEST

START_TEST(nothing_is_told_twice)
{
    struct fixture f;
    fixture_open(&f, 1, false, false);
    expect(&f, STREAM_START, 0);
    ck_assert(token(&f, 0, 7, T0 + MS));
    over(&f, 0, 0, T0 + 2 * MS);
    weft_result_t first = f.s.result;
    over(&f, 0, WEFT_E_STALLED, T0 + 3 * MS); /* late, of an attempt that is no longer its own */
    over(&f, 1, WEFT_E_STALLED, T0 + 3 * MS);
    ck_assert(!token(&f, 0, 8, T0 + 3 * MS));
    ck_assert(!token(&f, 1, 8, T0 + 3 * MS));
    stream_cancel(&f.s, T0 + 4 * MS);
    tick(&f, T0 + NS_PER_S);
    ck_assert_mem_eq(&first, &f.s.result, sizeof(first));
    expect_none(&f);
    expect_end(&f, 0, WEFT_FINISH_STOP, 1);
}
END_TEST

/* ---- a second attempt beside the first ---- */

static void open_hedged(struct fixture *f)
{
    fixture_open(f, 1, true, false);
    expect(f, STREAM_START, 0);
    accept(f, 0, 3, 4, 5);
    uint64_t due_ns = stream_due_ns(&f->s);
    ck_assert_uint_ge(due_ns, T0 + 50 * MS);
    ck_assert_uint_le(due_ns, T0 + 52 * MS);
    tick(f, due_ns - 1);
    expect_none(f);
    tick(f, due_ns);
    ck_assert_uint_eq(expect(f, STREAM_START, 1)->target, 4);
    accept(f, 1, 4, NONE, NONE);
}

START_TEST(first_token_decides_for_the_first)
{
    struct fixture f;
    open_hedged(&f);
    ck_assert(token(&f, 0, 7, T0 + 60 * MS));
    expect(&f, STREAM_CANCEL, 1);
    expect_none(&f);
    ck_assert(!token(&f, 1, 7, T0 + 61 * MS));
    over(&f, 1, WEFT_E_CANCELLED, T0 + 62 * MS); /* of no interest */
    ck_assert(token(&f, 0, 8, T0 + 63 * MS));
    over(&f, 0, 0, T0 + 64 * MS);
    expect_none(&f);
    ck_assert(f.s.result.hedged);
    ck_assert_uint_eq(f.policy.hedges, 1);
    ck_assert_uint_eq(f.s.result.failovers, 0);
    expect_end(&f, 0, WEFT_FINISH_STOP, 2);
}
END_TEST

START_TEST(first_token_decides_for_the_hedge)
{
    struct fixture f;
    open_hedged(&f);
    ck_assert(token(&f, 1, 7, T0 + 60 * MS));
    expect(&f, STREAM_CANCEL, 0);
    ck_assert(!token(&f, 0, 7, T0 + 61 * MS));
    over(&f, 1, WEFT_E_WORKER_LOST, T0 + 70 * MS);
    /* the freed place of the first attempt is used; 3 is not known to be bad, 4 is */
    const struct stream_order *o = expect(&f, STREAM_START, 0);
    ck_assert_uint_eq(o->target, 5);
    ck_assert_uint_eq(o->avoid_count, 1);
    ck_assert_uint_eq(o->avoid[0], 4);
    ck_assert(token(&f, 0, 8, T0 + 80 * MS));
    over(&f, 0, 0, T0 + 90 * MS);
    expect_end(&f, 0, WEFT_FINISH_STOP, 2);
}
END_TEST

START_TEST(an_empty_answer_decides_too)
{
    struct fixture f;
    open_hedged(&f);
    over(&f, 0, 0, T0 + 60 * MS);
    expect(&f, STREAM_CANCEL, 1);
    expect_none(&f);
    ck_assert_uint_eq(f.s.result.first_token_us, 0);
    expect_end(&f, 0, WEFT_FINISH_STOP, 0);
}
END_TEST

START_TEST(a_lost_attempt_leaves_the_other_alone)
{
    for (uint32_t lost = 0; lost < 2; lost++) {
        struct fixture f;
        open_hedged(&f);
        over(&f, lost, WEFT_E_WORKER_LOST, T0 + 60 * MS);
        expect_none(&f);
        ck_assert(!f.s.ended);
        ck_assert(token(&f, 1 - lost, 7, T0 + 70 * MS));
        expect_none(&f);
        over(&f, 1 - lost, WEFT_E_STALLED, T0 + 80 * MS);
        const struct stream_order *o = expect(&f, STREAM_START, 0);
        ck_assert_uint_eq(o->target, 5); /* both others have failed */
        ck_assert_uint_eq(o->avoid_count, 2);
        over(&f, 0, WEFT_E_BAD_REQUEST, T0 + 90 * MS);
        ck_assert(f.s.ended);
        stream_deinit(&f.s);
    }
}
END_TEST

START_TEST(no_hedge_without_reason)
{
    struct fixture f;
    fixture_open(&f, 1, true, false); /* no alternate: nowhere to hedge */
    expect(&f, STREAM_START, 0);
    stream_accepted(&f.s, 0, 3, no_alternates);
    tick(&f, stream_due_ns(&f.s));
    expect_none(&f);
    ck_assert_uint_eq(stream_due_ns(&f.s), UINT64_MAX);
    stream_deinit(&f.s);
    fixture_open(&f, 1, true, false); /* the token came in time */
    expect(&f, STREAM_START, 0);
    accept(&f, 0, 3, 4, 5);
    ck_assert(token(&f, 0, 7, T0 + 40 * MS));
    ck_assert_uint_eq(stream_due_ns(&f.s), UINT64_MAX);
    tick(&f, T0 + NS_PER_S);
    expect_none(&f);
    stream_deinit(&f.s);
    fixture_open(&f, 1, true, false); /* the purse is empty */
    f.policy.hedge_purse = STREAM_PURSE - 1;
    expect(&f, STREAM_START, 0);
    accept(&f, 0, 3, 4, 5);
    tick(&f, stream_due_ns(&f.s));
    expect_none(&f);
    ck_assert(!f.s.hedged);
    stream_deinit(&f.s);
    fixture_open(&f, 1, true, true); /* `once` */
    ck_assert_uint_eq(stream_due_ns(&f.s), UINT64_MAX);
    stream_deinit(&f.s);
}
END_TEST

/* ---- another node of the mesh ---- */

START_TEST(a_node_without_an_answer_is_not_waited_for)
{
    struct fixture f;
    fixture_open(&f, 3, false, false);
    expect(&f, STREAM_START, 0);
    ck_assert_uint_eq(stream_due_ns(&f.s), T0 + STREAM_PATH_MS * MS);
    tick(&f, T0 + STREAM_PATH_MS * MS);
    const struct stream_order *o = expect(&f, STREAM_START, 1);
    ck_assert_uint_eq(o->path, 1);
    ck_assert_uint_eq(o->target, NONE);
    ck_assert_uint_eq(stream_due_ns(&f.s), UINT64_MAX);
    accept(&f, 1, 3, NONE, NONE);
    ck_assert(token(&f, 1, 7, T0 + 700 * MS));
    expect(&f, STREAM_CANCEL, 0);
    over(&f, 1, 0, T0 + 800 * MS);
    ck_assert(!f.s.result.hedged);
    expect_end(&f, 0, WEFT_FINISH_STOP, 1);
}
END_TEST

START_TEST(an_accepted_attempt_asks_no_other_node)
{
    struct fixture f;
    fixture_open(&f, 2, false, false);
    expect(&f, STREAM_START, 0);
    accept(&f, 0, 3, 4, NONE);
    ck_assert_uint_eq(stream_due_ns(&f.s), UINT64_MAX);
    tick(&f, T0 + 10 * NS_PER_S);
    expect_none(&f);
    stream_deinit(&f.s);
}
END_TEST

START_TEST(silence_moves_on_to_the_next_path)
{
    static const int statuses[] = {WEFT_E_UNREACHABLE, WEFT_E_STALLED};
    for (size_t i = 0; i < 2; i++) {
        struct fixture f;
        fixture_open(&f, 2, false, false);
        expect(&f, STREAM_START, 0);
        over(&f, 0, statuses[i], T0 + 100 * MS);
        ck_assert_uint_eq(expect(&f, STREAM_START, 0)->path, 1);
        ck_assert_uint_eq(f.policy.path, 1); /* for later streams too */
        over(&f, 0, statuses[i], T0 + 200 * MS);
        ck_assert_uint_eq(expect(&f, STREAM_START, 0)->path, 0);
        stream_deinit(&f.s);
    }
    struct fixture f; /* a worker that is gone says nothing about the node that was asked */
    fixture_open(&f, 2, false, false);
    expect(&f, STREAM_START, 0);
    over(&f, 0, WEFT_E_WORKER_LOST, T0 + 100 * MS);
    ck_assert_uint_eq(expect(&f, STREAM_START, 0)->path, 0);
    ck_assert_uint_eq(f.policy.path, 0);
    stream_deinit(&f.s);
}
END_TEST

START_TEST(nowhere_to_go)
{
    struct fixture f;
    fixture_open(&f, 1, false, false);
    expect(&f, STREAM_START, 0);
    over(&f, 0, WEFT_E_UNREACHABLE, T0 + 100 * MS);
    expect_none(&f);
    expect_end(&f, WEFT_E_UNREACHABLE, WEFT_FINISH_FAILED, 0);
}
END_TEST

/* ---- going on elsewhere ---- */

START_TEST(alternates_come_before_discovery)
{
    struct fixture f;
    const struct stream_order *o = lose_after_two(&f, 4, 5);
    ck_assert_uint_eq(o->target, 4);
    ck_assert_uint_eq(o->avoid_count, 1);
    ck_assert_uint_eq(o->avoid[0], 3);
    ck_assert_uint_eq(f.s.tokens[0], 100);
    ck_assert_uint_eq(f.s.tokens[1], 101);
    over(&f, 0, WEFT_E_WORKER_LOST, T0 + 40 * MS); /* never accepted: 4 is to blame */
    o = expect(&f, STREAM_START, 0);
    ck_assert_uint_eq(o->target, 5);
    ck_assert_uint_eq(o->avoid_count, 2);
    over(&f, 0, WEFT_E_WORKER_FAILED, T0 + 50 * MS);
    o = expect(&f, STREAM_START, 0);
    ck_assert_uint_eq(o->target, NONE);
    ck_assert_uint_eq(o->avoid_count, 3);
    ck_assert_uint_eq(o->avoid[2], 5);
    accept(&f, 0, 9, NONE, NONE);
    ck_assert(token(&f, 0, 102, T0 + 60 * MS));
    over(&f, 0, 0, T0 + 70 * MS);
    ck_assert_uint_eq(f.s.result.failovers, 3);
    ck_assert_uint_eq(f.policy.failovers, 3);
    ck_assert_uint_eq(f.s.result.resends, 4);    /* of all attempts */
    ck_assert_uint_eq(f.s.result.gap_us, 40000); /* across the cut */
    expect_end(&f, 0, WEFT_FINISH_STOP, 3);
}
END_TEST

START_TEST(an_alternate_that_has_failed_is_left_out)
{
    struct fixture f;
    lose_after_two(&f, 4, 5);
    accept(&f, 0, 4, 3, 6); /* 3 again, which has failed already */
    over(&f, 0, WEFT_E_STALLED, T0 + 40 * MS);
    ck_assert_uint_eq(expect(&f, STREAM_START, 0)->target, 6);
    stream_deinit(&f.s);
}
END_TEST

START_TEST(the_last_four_are_avoided)
{
    struct fixture f;
    lose_after_two(&f, NONE, NONE);
    for (uint16_t node = 10; node < 15; node++) {
        accept(&f, 0, node, NONE, NONE);
        over(&f, 0, WEFT_E_WORKER_LOST, T0 + 40 * MS);
        const struct stream_order *o = expect(&f, STREAM_START, 0);
        ck_assert_uint_le(o->avoid_count, WEFT_AVOID_MAX);
        bool listed = false;
        for (uint16_t i = 0; i < o->avoid_count; i++) {
            listed = listed || o->avoid[i] == node;
        }
        ck_assert(listed);
    }
    stream_deinit(&f.s);
}
END_TEST

START_TEST(there_is_an_end_to_it)
{
    struct fixture f;
    lose_after_two(&f, NONE, NONE);
    uint32_t starts = 1;
    while (!f.s.ended) {
        accept(&f, 0, (uint16_t)(20 + starts), NONE, NONE);
        over(&f, 0, WEFT_E_STALLED, T0 + 100 * MS);
        starts += stream_next(&f.s, &f.order);
        ck_assert_uint_le(starts, 100);
    }
    ck_assert_uint_eq(starts, STREAM_FAILOVERS_MAX);
    ck_assert_uint_eq(f.s.result.failovers, STREAM_FAILOVERS_MAX);
    expect_end(&f, WEFT_E_WORKER_LOST, WEFT_FINISH_FAILED, 2); /* the first one's status */
}
END_TEST

START_TEST(once_means_once)
{
    struct fixture f;
    fixture_open(&f, 2, true, true);
    expect(&f, STREAM_START, 0);
    accept(&f, 0, 3, 4, 5);
    ck_assert(token(&f, 0, 7, T0 + MS));
    over(&f, 0, WEFT_E_WORKER_LOST, T0 + 2 * MS);
    expect_none(&f);
    ck_assert_uint_eq(f.policy.failovers, 0);
    expect_end(&f, WEFT_E_WORKER_LOST, WEFT_FINISH_FAILED, 1);
}
END_TEST

START_TEST(without_its_tokens_it_cannot_go_on)
{
    struct fixture f;
    fixture_open(&f, 1, false, false);
    expect(&f, STREAM_START, 0);
    ck_assert(token(&f, 0, 7, T0 + MS));
    f.s.forgetful = true; /* as if there had been no memory */
    for (uint32_t i = 0; i < 1000; i++) {
        ck_assert(token(&f, 0, i, T0 + 2 * MS)); /* the answer itself goes on */
    }
    over(&f, 0, WEFT_E_WORKER_LOST, T0 + 3 * MS);
    expect_none(&f);
    expect_end(&f, WEFT_E_WORKER_LOST, WEFT_FINISH_FAILED, 1001);
}
END_TEST

START_TEST(what_another_attempt_cannot_mend_is_final)
{
    static const int statuses[] = {WEFT_E_BAD_REQUEST, WEFT_E_TOO_LONG, WEFT_E_BUDGET_EXPIRED,
                                   WEFT_E_VERSION};
    for (size_t i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        struct fixture f;
        lose_after_two(&f, 4, 5);
        over(&f, 0, statuses[i], T0 + 40 * MS);
        expect_none(&f);
        expect_end(&f, statuses[i], WEFT_FINISH_FAILED, 2);
    }
}
END_TEST

/* ---- patience ---- */

START_TEST(a_refused_alternate_leads_to_discovery_at_once)
{
    struct fixture f;
    lose_after_two(&f, 4, NONE);
    refuse(&f, 0, WEFT_E_MESH_FULL, 5, T0 + 40 * MS);
    const struct stream_order *o = expect(&f, STREAM_START, 0);
    ck_assert_uint_eq(o->target, NONE);
    ck_assert_uint_eq(o->avoid_count, 2);
    ck_assert_uint_eq(f.s.failovers, 1); /* a refusal is not a loss */
    stream_deinit(&f.s);
}
END_TEST

START_TEST(refusals_of_a_begun_answer_are_waited_out)
{
    struct fixture f;
    lose_after_two(&f, NONE, NONE);
    uint64_t now_ns = T0 + 40 * MS;
    for (uint32_t i = 0; i < STREAM_REFUSALS_MAX; i++) {
        refuse(&f, 0, WEFT_E_MESH_FULL, i == 1 ? 777 : 1, now_ns);
        expect_none(&f);
        uint64_t wait_ns = (i == 1 ? 777 : (uint64_t)STREAM_BACKOFF_MS << i) * MS;
        ck_assert_uint_eq(stream_due_ns(&f.s), now_ns + wait_ns);
        tick(&f, now_ns + wait_ns - 1);
        expect_none(&f);
        now_ns += wait_ns;
        tick(&f, now_ns);
        ck_assert_uint_eq(expect(&f, STREAM_START, 0)->target, NONE);
    }
    refuse(&f, 0, WEFT_E_MESH_FULL, 1, now_ns);
    expect_none(&f);
    ck_assert_uint_eq(f.s.result.failovers, 1);
    /* What had happened to the answer, not what came of trying to save it. */
    expect_end(&f, WEFT_E_WORKER_LOST, WEFT_FINISH_FAILED, 2);
}
END_TEST

START_TEST(a_token_renews_patience)
{
    struct fixture f;
    lose_after_two(&f, NONE, NONE);
    refuse(&f, 0, WEFT_E_MESH_FULL, 0, T0 + 40 * MS);
    tick(&f, T0 + 140 * MS);
    expect(&f, STREAM_START, 0);
    ck_assert(token(&f, 0, 102, T0 + 200 * MS));
    ck_assert_uint_eq(f.s.refusals, 0);
    over(&f, 0, 0, T0 + 210 * MS);
    expect_end(&f, 0, WEFT_FINISH_STOP, 3);
}
END_TEST

/* ---- cancel ---- */

START_TEST(cancel_of_a_running_attempt)
{
    struct fixture f;
    fixture_open(&f, 2, false, false);
    expect(&f, STREAM_START, 0);
    ck_assert(token(&f, 0, 7, T0 + MS));
    stream_cancel(&f.s, T0 + 2 * MS);
    ck_assert(!f.s.ended); /* its end is waited for */
    ck_assert(!token(&f, 0, 8, T0 + 3 * MS));
    ck_assert_uint_eq(stream_due_ns(&f.s), UINT64_MAX);
    over(&f, 0, WEFT_E_CANCELLED, T0 + 4 * MS);
    expect_none(&f);
    expect_end(&f, WEFT_E_CANCELLED, WEFT_FINISH_CANCELLED, 1);
}
END_TEST

START_TEST(cancel_beats_a_loss)
{
    struct fixture f;
    fixture_open(&f, 2, false, false);
    expect(&f, STREAM_START, 0);
    stream_cancel(&f.s, T0 + 2 * MS);
    over(&f, 0, WEFT_E_STALLED, T0 + 4 * MS);
    expect_none(&f);
    expect_end(&f, WEFT_E_CANCELLED, WEFT_FINISH_CANCELLED, 0);
}
END_TEST

START_TEST(cancel_of_two_attempts)
{
    struct fixture f;
    open_hedged(&f);
    stream_cancel(&f.s, T0 + 60 * MS);
    over(&f, 1, WEFT_E_CANCELLED, T0 + 61 * MS);
    ck_assert(!f.s.ended);
    over(&f, 0, WEFT_E_CANCELLED, T0 + 62 * MS);
    expect_none(&f);
    expect_end(&f, WEFT_E_CANCELLED, WEFT_FINISH_CANCELLED, 0);
}
END_TEST

START_TEST(cancel_while_waiting)
{
    struct fixture f;
    lose_after_two(&f, NONE, NONE);
    refuse(&f, 0, WEFT_E_MESH_FULL, 0, T0 + 40 * MS);
    stream_cancel(&f.s, T0 + 50 * MS); /* nothing is live: ends at once */
    tick(&f, T0 + NS_PER_S);
    expect_none(&f);
    expect_end(&f, WEFT_E_CANCELLED, WEFT_FINISH_CANCELLED, 2);
}
END_TEST

START_TEST(cancel_before_a_hedge)
{
    struct fixture f;
    fixture_open(&f, 2, true, false);
    expect(&f, STREAM_START, 0);
    accept(&f, 0, 3, 4, 5);
    stream_cancel(&f.s, T0 + MS);
    stream_cancel(&f.s, T0 + MS);
    tick(&f, T0 + NS_PER_S);
    expect_none(&f);
    over(&f, 0, WEFT_E_CANCELLED, T0 + 2 * NS_PER_S);
    expect_end(&f, WEFT_E_CANCELLED, WEFT_FINISH_CANCELLED, 0);
}
END_TEST

/* An answer that came to its end while the user gave up: it is complete. */
START_TEST(cancel_after_the_last_token)
{
    struct fixture f;
    fixture_open(&f, 1, false, false);
    expect(&f, STREAM_START, 0);
    ck_assert(token(&f, 0, 7, T0 + MS));
    stream_cancel(&f.s, T0 + 2 * MS);
    over(&f, 0, 0, T0 + 3 * MS);
    expect_end(&f, 0, WEFT_FINISH_STOP, 1);
}
END_TEST

static void add_attempts(TCase *t)
{
    tcase_add_test(t, rest_of_a_text_after_a_loss);
    tcase_add_test(t, plain_answer);
    tcase_add_test(t, refusal_of_a_fresh_request_is_final);
    tcase_add_test(t, nothing_is_told_twice);
    tcase_add_test(t, first_token_decides_for_the_first);
    tcase_add_test(t, first_token_decides_for_the_hedge);
    tcase_add_test(t, an_empty_answer_decides_too);
    tcase_add_test(t, a_lost_attempt_leaves_the_other_alone);
    tcase_add_test(t, no_hedge_without_reason);
    tcase_add_test(t, a_node_without_an_answer_is_not_waited_for);
    tcase_add_test(t, an_accepted_attempt_asks_no_other_node);
    tcase_add_test(t, silence_moves_on_to_the_next_path);
    tcase_add_test(t, nowhere_to_go);
}

static void add_elsewhere(TCase *t)
{
    tcase_add_test(t, goes_on_with_the_same_arithmetic);
    tcase_add_test(t, begins_anew_with_any_arithmetic);
    tcase_add_test(t, alternates_come_before_discovery);
    tcase_add_test(t, an_alternate_that_has_failed_is_left_out);
    tcase_add_test(t, the_last_four_are_avoided);
    tcase_add_test(t, there_is_an_end_to_it);
    tcase_add_test(t, once_means_once);
    tcase_add_test(t, without_its_tokens_it_cannot_go_on);
    tcase_add_test(t, what_another_attempt_cannot_mend_is_final);
    tcase_add_test(t, a_refused_alternate_leads_to_discovery_at_once);
    tcase_add_test(t, refusals_of_a_begun_answer_are_waited_out);
    tcase_add_test(t, a_token_renews_patience);
}

int main(void)
{
    Suite *s = suite_create("flow/stream");
    TCase *t = tcase_create("stream");
    add_attempts(t);
    add_elsewhere(t);
    tcase_add_test(t, cancel_of_a_running_attempt);
    tcase_add_test(t, cancel_beats_a_loss);
    tcase_add_test(t, cancel_of_two_attempts);
    tcase_add_test(t, cancel_while_waiting);
    tcase_add_test(t, cancel_before_a_hedge);
    tcase_add_test(t, cancel_after_the_last_token);
    suite_add_tcase(s, t);
    return suite_main(s);
}
