/* SPDX-License-Identifier: Apache-2.0 */
/* Which models are loaded: a worker is played with made-up models, asks and times, and what the
 * shelf says is done. What must hold is checked at every moment. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "kernels/shelf.h"
#include "tests/unit/suite.h"
#include "tiny_model.h"

#define MS     UINT64_C(1000000)
#define ROUNDS 20u
#define STEPS  4000u

struct play {
    struct shelf shelf;
    uint64_t now_ns;
    uint64_t ends_ns[SHELF_MODELS_MAX]; /* of loading, or leaving */
    uint64_t busy_ns[SHELF_MODELS_MAX]; /* until its requests end */
    uint64_t loads;
    uint64_t longest_ns; /* that anybody has waited */
};

static uint64_t bytes_of(const struct shelf *s)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < s->count; i++)
        sum += s->models[i].state == SHELF_AWAY ? 0 : s->models[i].bytes;
    return sum;
}

static void apply(struct play *p, struct shelf_step step)
{
    struct shelf_model *m = &p->shelf.models[step.model];
    switch (step.act) {
    case SHELF_NOTHING:
        return;
    case SHELF_LOAD:
        ck_assert_int_eq(m->state, SHELF_AWAY);
        ck_assert_uint_gt(m->waiting, 0); /* nothing is loaded for nobody */
        m->state = SHELF_LOADING;
        p->ends_ns[step.model] = p->now_ns + m->load_ns;
        p->loads++;
        break;
    case SHELF_CLOSE:
        ck_assert_int_eq(m->state, SHELF_READY);
        ck_assert_uint_ge(p->now_ns, m->since_ns + SHELF_TURN_NS);
        m->state = SHELF_CLOSING;
        return;
    case SHELF_OPEN:
        ck_assert_int_eq(m->state, SHELF_CLOSING);
        m->state = SHELF_READY;
        return;
    case SHELF_UNLOAD:
        ck_assert_uint_eq(m->open, 0);
        ck_assert(m->state == SHELF_READY || m->state == SHELF_CLOSING);
        m->state = SHELF_LEAVING;
        p->ends_ns[step.model] = p->now_ns + MS;
        break;
    }
    m->since_ns = p->now_ns;
    ck_assert_uint_le(bytes_of(&p->shelf), p->shelf.budget_bytes);
}

static void go_on(struct play *p)
{
    for (uint32_t i = 0; i < p->shelf.count; i++) {
        struct shelf_model *m = &p->shelf.models[i];
        if (m->state == SHELF_LOADING && p->now_ns >= p->ends_ns[i]) {
            m->state = SHELF_READY;
            m->since_ns = p->now_ns;
        } else if (m->state == SHELF_LEAVING && p->now_ns >= p->ends_ns[i]) {
            m->state = SHELF_AWAY;
        }
        if (m->open && p->now_ns >= p->busy_ns[i]) {
            m->open = 0;
            m->used_ns = p->now_ns;
        }
        if (m->waiting && p->now_ns - m->waiting_ns > p->longest_ns)
            p->longest_ns = p->now_ns - m->waiting_ns;
        if (m->state == SHELF_READY && m->waiting) {
            m->open += m->waiting;
            m->waiting = 0;
            if (p->busy_ns[i] < p->now_ns + 50 * MS)
                p->busy_ns[i] = p->now_ns + 50 * MS;
        }
        m->drain_ns = m->open ? p->busy_ns[i] - p->now_ns : 0;
    }
}

static void ask(struct play *p, uint32_t index)
{
    struct shelf_model *m = &p->shelf.models[index];
    if (m->waiting++ == 0)
        m->waiting_ns = p->now_ns;
    m->used_ns = p->now_ns;
}

/* Asks come all the time, for some models far more than for others. */
START_TEST(test_any_asks)
{
    uint64_t seed = 77 + (uint64_t)_i;
    struct play p = {.now_ns = 1};
    p.shelf.count = 2 + (uint32_t)(tiny_random(&seed) % (SHELF_MODELS_MAX - 1));
    p.shelf.budget_bytes = 100;
    uint64_t most_load_ns = 0;
    for (uint32_t i = 0; i < p.shelf.count; i++) {
        p.shelf.models[i].bytes = 20 + tiny_random(&seed) % 81;
        p.shelf.models[i].load_ns = (1 + tiny_random(&seed) % 500) * MS;
        if (p.shelf.models[i].load_ns > most_load_ns)
            most_load_ns = p.shelf.models[i].load_ns;
    }
    for (uint32_t step = 0; step < STEPS; step++) {
        const uint64_t pick = tiny_random(&seed);
        p.now_ns += (1 + pick % 20) * MS;
        if (pick >> 32 & 1)
            ask(&p, (uint32_t)((pick >> 33) % p.shelf.count));
        else
            ask(&p, 0); /* never rests */
        go_on(&p);
        struct shelf_step next;
        do {
            next = shelf_next(&p.shelf, p.now_ns);
            apply(&p, next);
        } while (next.act == SHELF_CLOSE || next.act == SHELF_OPEN);
        for (uint32_t i = 0; i < p.shelf.count; i++)
            if (shelf_wait_ns(&p.shelf, i, p.now_ns) > 1000000 * MS) /* a check costs a write */
                ck_abort_msg("model %u would wait for ever", i);
    }
    /* Nobody waits longer than everybody else's turn takes. */
    const uint64_t turn_ns = SHELF_TURN_NS + SHELF_TURN_LOADS * most_load_ns + most_load_ns;
    ck_assert_uint_le(p.longest_ns, (p.shelf.count + 1) * (turn_ns + 200 * MS));
    ck_assert_uint_gt(p.loads, p.shelf.count - 1);
}
END_TEST

static struct shelf two(void)
{
    struct shelf s = {.budget_bytes = 100, .count = 2};
    s.models[0] = (struct shelf_model){.state = SHELF_READY, .bytes = 60, .load_ns = 10 * MS};
    s.models[1] = (struct shelf_model){.bytes = 60, .load_ns = 20 * MS};
    return s;
}

START_TEST(test_steps)
{
    struct shelf s = two();
    ck_assert_int_eq(shelf_next(&s, 1).act, SHELF_NOTHING); /* nobody asks */
    s.models[1].waiting = 1;
    s.models[1].waiting_ns = 1;
    ck_assert(shelf_is_wanted(&s));
    struct shelf_step step = shelf_next(&s, 1);
    ck_assert(step.act == SHELF_UNLOAD && step.model == 0); /* at once: nobody uses it */
    s.models[0].open = 1;
    ck_assert_int_eq(shelf_next(&s, 1).act, SHELF_NOTHING); /* its turn */
    ck_assert_uint_ge(shelf_wait_ns(&s, 1, 1), SHELF_TURN_NS - 1);
    step = shelf_next(&s, SHELF_TURN_NS);
    ck_assert(step.act == SHELF_CLOSE && step.model == 0);
    s.models[0].state = SHELF_CLOSING;
    ck_assert_int_eq(shelf_next(&s, SHELF_TURN_NS).act, SHELF_NOTHING); /* it ends what it has */
    s.models[1].waiting = 0;
    ck_assert_int_eq(shelf_next(&s, SHELF_TURN_NS).act, SHELF_OPEN); /* he has gone */
    s.models[1].waiting = 1;
    s.models[0].open = 0;
    s.models[0].waiting = 5; /* come too late for this turn */
    s.models[0].waiting_ns = 2;
    ck_assert_int_eq(shelf_next(&s, SHELF_TURN_NS).act, SHELF_UNLOAD);
    s.models[0].state = SHELF_LEAVING;
    ck_assert_int_eq(shelf_next(&s, SHELF_TURN_NS).act, SHELF_NOTHING);
    s.models[0].state = SHELF_AWAY;
    step = shelf_next(&s, SHELF_TURN_NS);
    ck_assert(step.act == SHELF_LOAD && step.model == 1);
    s.models[1].retry_ns = SHELF_TURN_NS + 1; /* it could not be loaded a moment ago */
    step = shelf_next(&s, SHELF_TURN_NS);
    ck_assert(step.act == SHELF_LOAD && step.model == 0);
}
END_TEST

START_TEST(test_both_fit)
{
    struct shelf s = two();
    s.budget_bytes = 120;
    s.models[0].open = 1;
    s.models[1].waiting = 1;
    ck_assert_uint_eq(shelf_wait_ns(&s, 1, 5), 20 * MS);
    const struct shelf_step step = shelf_next(&s, 1);
    ck_assert(step.act == SHELF_LOAD && step.model == 1);
    s.models[1].state = SHELF_LOADING;
    s.models[1].since_ns = 100;
    ck_assert_uint_eq(shelf_wait_ns(&s, 1, 100 + 5 * MS), 15 * MS);
    ck_assert_uint_eq(shelf_wait_ns(&s, 0, 100), 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("shelf");
    TCase *tcase = tcase_create("core");
    tcase_set_timeout(tcase, 120);
    tcase_add_test(tcase, test_steps);
    tcase_add_test(tcase, test_both_fit);
    tcase_add_loop_test(tcase, test_any_asks, 0, ROUNDS);
    suite_add_tcase(suite, tcase);
    return suite_main(suite);
}
