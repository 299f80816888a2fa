/* SPDX-License-Identifier: Apache-2.0 */
/* Whose turn it is, in virtual time: the engine over a backend that only takes time. Tenants get
 * even shares whatever they ask for, and deadlines that cannot be met are refused before anything
 * is computed. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <weft/status.h>

#include "kernels/engine/engine.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define VOCAB       8u
#define CONTEXT     1024u
#define SLOTS       4u
#define QUEUE       64u
#define STEP_NS     4000000ull /* a step: the weights are read once ... */
#define ROW_NS      100000ull  /* ... and each row adds a little */
#define TENANTS     4u
#define REQUESTS    20000u
#define SECOND      1000000000ull
#define EVENTS_MAX  256u
#define FLOOD_DEPTH 14u

struct slow {
    struct exec base;
    uint64_t rows;
};

static uint64_t now;
static struct slow slow;
static engine_t *engine;

static int slow_forward(exec_t *self, const struct exec_row *rows, size_t count,
                        const struct exec_out *out, struct exec_watch *watch)
{
    float *logits = out->logits;
    (void)self;
    (void)watch;
    now += STEP_NS + count * ROW_NS;
    slow.rows += count;
    for (size_t i = 0; i < count; i++)
        for (uint32_t v = 0; rows[i].want_logits && v < VOCAB; v++)
            *logits++ = v == rows[i].position % VOCAB ? 1.0f : 0.0f;
    return 0;
}

static void slow_info(const exec_t *self, struct exec_info *out)
{
    (void)self;
    *out = (struct exec_info){.backend = "slow",
                              .detail = "",
                              .slots = SLOTS,
                              .context = CONTEXT,
                              .batch_max = 64,
                              .vocab = VOCAB};
}

static void slow_destroy(exec_t *self)
{
    (void)self;
}

static const struct exec_ops slow_ops = {
    .forward = slow_forward, .info = slow_info, .destroy = slow_destroy};

static uint64_t slow_clock(void *user)
{
    (void)user;
    return now;
}

static void setup(void)
{
    const struct engine_options options = {.queue_max = QUEUE, .clock = slow_clock};
    slow = (struct slow){.base = {&slow_ops}};
    now = SECOND;
    ck_assert_int_eq(engine_create(&engine, &slow.base, NULL, &options), 0);
    ck_assert_int_eq(engine_benchmark(engine, 20000), 0);
    ck_assert_uint_le(engine_events_max(engine), EVENTS_MAX);
}

static void teardown(void)
{
    engine_destroy(engine);
}

/* ---- tenants ---- */

struct asked {
    uint32_t tenant;
    uint64_t at_ns;
    uint64_t first_ns;
};

static struct asked asked[REQUESTS];
static uint32_t asked_count;
static uint32_t open_of[TENANTS];
static uint64_t served[TENANTS]; /* tokens, answers double */
static uint64_t worst_ns[TENANTS];

static int ask(uint32_t tenant, size_t prompt, uint32_t answer, uint64_t deadline_ns, bool last)
{
    static uint32_t tokens[CONTEXT];
    const struct engine_request r = {
        .id = asked_count,
        .tokens = tokens,
        .token_count = prompt,
        .max_tokens = answer,
        .tenant = tenant + 100,
        .deadline_ns = deadline_ns,
        .deadline_is_end_to_end = last,
    };
    const int rc = engine_submit(engine, &r, now);
    if (rc == 0) {
        ck_assert_uint_lt(asked_count, REQUESTS);
        asked[asked_count++] = (struct asked){tenant, now, 0};
        open_of[tenant]++;
    }
    return rc;
}

static void step(void)
{
    static struct engine_event events[EVENTS_MAX];
    const int count = engine_step(engine, now, events, EVENTS_MAX);
    ck_assert_int_ge(count, 0);
    for (int i = 0; i < count; i++) {
        struct asked *a = &asked[events[i].id];
        if (events[i].kind == ENGINE_DONE) {
            open_of[a->tenant]--;
            continue;
        }
        served[a->tenant] += 2;
        if (a->first_ns == 0) {
            a->first_ns = now;
            const uint64_t waited = now - a->at_ns;
            worst_ns[a->tenant] = waited > worst_ns[a->tenant] ? waited : worst_ns[a->tenant];
        }
    }
    if (count == 0 && !engine_busy(engine))
        now += STEP_NS;
}

static void forget(void)
{
    memset(open_of, 0, sizeof(open_of));
    memset(served, 0, sizeof(served));
    memset(worst_ns, 0, sizeof(worst_ns));
    asked_count = 0;
}

/* One asks for much at a time, one for little, one has long prompts: each is always waiting, and
 * each gets the same. */
START_TEST(test_even_shares)
{
    static const size_t prompts[] = {10, 10, 200};
    static const uint32_t answers[] = {100, 10, 20};
    uint64_t rng = 3;
    forget();
    const uint64_t end = now + 200 * SECOND;
    while (now < end) {
        for (uint32_t t = 0; t < 3; t++)
            while (open_of[t] < FLOOD_DEPTH) {
                const uint32_t more = (uint32_t)(tiny_random(&rng) % 5);
                ck_assert_int_eq(ask(t, prompts[t] + more, answers[t], 0, false), 0);
                served[t] += prompts[t] + more; /* of what was asked: all comes in the end */
            }
        step();
    }
    for (uint32_t t = 1; t < 3; t++) {
        const double share = (double)served[t] / (double)served[0];
        ck_assert_msg(share > 0.9 && share < 1.1, "tenant %u got %.2f of tenant 0's", t, share);
    }
}
END_TEST

/* Who asks now and then does not wait behind who floods. */
START_TEST(test_a_flood_is_its_own_problem)
{
    uint64_t next = now;
    forget();
    const uint64_t end = now + 100 * SECOND;
    while (now < end) {
        while (open_of[0] < QUEUE - 8)
            ck_assert_int_eq(ask(0, 50, 50, 0, false), 0);
        if (now >= next && open_of[1] == 0) {
            ck_assert_int_eq(ask(1, 50, 20, 0, false), 0);
            next = now + SECOND;
        }
        step();
    }
    ck_assert_uint_gt(worst_ns[0], 3 * SECOND); /* the flood waits for itself */
    ck_assert_uint_lt(worst_ns[1], SECOND);     /* at most for the next slot */
}
END_TEST

/* Idle time is no credit: who comes back does not push the others aside until it has caught up. */
START_TEST(test_no_credit)
{
    forget();
    uint64_t end = now + 50 * SECOND;
    ck_assert_int_eq(ask(1, 10, 10, 0, false), 0);
    while (now < end) {
        while (open_of[0] < FLOOD_DEPTH)
            ck_assert_int_eq(ask(0, 10, 50, 0, false), 0);
        step();
    }
    served[0] = served[1] = 0;
    end = now + 20 * SECOND;
    while (now < end) {
        for (uint32_t t = 0; t < 2; t++)
            while (open_of[t] < FLOOD_DEPTH)
                ck_assert_int_eq(ask(t, 10, 50, 0, false), 0);
        step();
    }
    const double share = (double)served[1] / (double)served[0];
    ck_assert_msg(share > 0.8 && share < 1.25, "%.2f", share);
}
END_TEST

/* ---- deadlines ---- */

START_TEST(test_refused_at_once)
{
    forget();
    const uint64_t rows = slow.rows;
    /* 500 tokens of prompt take about 80 ms, 100 tokens of answer about 400 ms. */
    ck_assert_int_eq(ask(0, 500, 100, now + SECOND / 20, false), WEFT_E_BUDGET_INFEASIBLE);
    ck_assert_int_eq(ask(0, 500, 100, now + SECOND / 4, true), WEFT_E_BUDGET_INFEASIBLE);
    ck_assert_uint_eq(slow.rows, rows);
    ck_assert(!engine_busy(engine));
    ck_assert_int_eq(ask(0, 500, 100, now + SECOND / 4, false), 0);
    while (engine_busy(engine))
        step();
    ck_assert_int_eq(ask(0, 500, 100, now + SECOND, true), 0);
    while (engine_busy(engine))
        step();
    ck_assert_uint_lt(worst_ns[0], SECOND / 4);
    for (uint32_t i = 0; i < 2 * SLOTS; i++) /* now others are before it */
        ck_assert_int_eq(ask(0, 500, 100, 0, false), 0);
    step();
    ck_assert_int_eq(ask(0, 500, 100, now + SECOND / 4, false), WEFT_E_BUDGET_INFEASIBLE);
    while (engine_busy(engine))
        step();
}
END_TEST

/* Under three times the load that fits, what is admitted is mostly in time. */
START_TEST(test_admitted_is_served)
{
    uint64_t rng = 11;
    uint64_t next = now;
    uint32_t refused = 0;
    uint32_t late = 0;
    forget();
    const uint64_t end = now + 200 * SECOND;
    while (now < end) {
        for (; next <= now; next += SECOND / 30) {
            const int rc =
                ask((uint32_t)(tiny_random(&rng) % TENANTS), 20 + tiny_random(&rng) % 200,
                    20 + (uint32_t)(tiny_random(&rng) % 60), now + SECOND, false);
            ck_assert(rc == 0 || rc == WEFT_E_BUDGET_INFEASIBLE || rc == WEFT_E_MESH_FULL);
            refused += rc != 0;
        }
        step();
    }
    while (engine_busy(engine))
        step();
    for (uint32_t i = 0; i < asked_count; i++)
        late += asked[i].first_ns == 0 || asked[i].first_ns - asked[i].at_ns > SECOND;
    printf("\n%u admitted, %u refused, %u of the admitted late\n", asked_count, refused, late);
    ck_assert_uint_gt(asked_count, 500);
    ck_assert_uint_gt(refused, 500);
    ck_assert_uint_lt(late, asked_count / 5);
}
END_TEST

/* One tenant asks for all there is: the others find room all the same, as many of them as there are
 * places left. Without a reserve it has everything. */
START_TEST(test_nobody_fills_the_queue)
{
    static const struct engine_options options = {
        .queue_max = QUEUE, .reserve = QUEUE / 4, .clock = slow_clock};
    const uint32_t capacity = QUEUE + SLOTS;
    struct engine_load load;
    uint32_t taken = 0;
    while (ask(0, 8, 4, 0, false) == 0)
        taken++;
    ck_assert_uint_eq(taken, capacity);
    engine_destroy(engine);
    ck_assert_int_eq(engine_create(&engine, &slow.base, NULL, &options), 0);
    for (taken = 0; ask(0, 8, 4, 0, false) == 0;)
        taken++;
    ck_assert_uint_eq(taken, capacity - QUEUE / 4);
    engine_load(engine, now, &load);
    ck_assert_uint_eq(load.room, QUEUE / 4);
    for (uint32_t tenant = 1; tenant < TENANTS; tenant++)
        for (uint32_t i = 0; i < 4; i++)
            ck_assert_int_eq(ask(tenant, 8, 4, 0, false), 0);
    ck_assert_int_eq(ask(0, 8, 4, 0, false), WEFT_E_MESH_FULL);
    engine_load(engine, now, &load);
    ck_assert_uint_eq(load.room, QUEUE / 4 - 4 * (TENANTS - 1));
    while (engine_busy(engine))
        step();
    ck_assert_int_eq(ask(0, 8, 4, 0, false), 0); /* who has nothing open is as good as new */
}
END_TEST

START_TEST(test_shares)
{
    ck_assert(engine_share_admits(20, 0, 19, 0, 19));
    ck_assert(!engine_share_admits(20, 0, 20, 3, 0));
    ck_assert(engine_share_admits(20, 4, 15, 0, 15));
    ck_assert(!engine_share_admits(20, 4, 16, 0, 16));
    ck_assert(engine_share_admits(20, 4, 16, 1, 5)); /* a third of twenty is six */
    ck_assert(!engine_share_admits(20, 4, 16, 1, 6));
    ck_assert(engine_share_admits(4, 1, 3, 9, 0)); /* more tenants than places: one each */
    ck_assert(!engine_share_admits(4, 1, 3, 9, 1));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("turn");
    TCase *tcase = tcase_create("core");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_even_shares);
    tcase_add_test(tcase, test_a_flood_is_its_own_problem);
    tcase_add_test(tcase, test_no_credit);
    tcase_add_test(tcase, test_refused_at_once);
    tcase_add_test(tcase, test_admitted_is_served);
    tcase_add_test(tcase, test_nobody_fills_the_queue);
    tcase_add_test(tcase, test_shares);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
