/* SPDX-License-Identifier: Apache-2.0 */
/* test_mesh.c - whole meshes with faults in virtual time (mesh.h): an answer is complete, to the
 * byte, or an explicit failure; no token is missing or given twice; all comes to rest. Each seed is
 * one run; WEFT_SEEDS sets how many, WEFT_SEED runs one alone. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/hist.h"
#include "tests/unit/flow/mesh.h"
#include "tests/unit/sanitized.h"
#include "tests/unit/suite.h"

#define SEEDS            (SANITIZED ? 600u : 4000u)
#define LIMIT_NS         (300 * NS_PER_S)
#define UP_MAX           600u /* datagrams of the client per attempt, and ... */
#define UP_PER_TOKEN     6u   /* ... per token */
#define LATE_PER_ATTEMPT 60u  /* datagrams behind the end of all streams */
#define MAX_FAULT_STATUS 20u

struct tally {
    uint64_t streams, complete, failovers, hit, hit_complete;
    uint64_t failed[MAX_FAULT_STATUS];
    struct hist gap_us; /* of answers that went on elsewhere */
};

static struct tally tallies[MESH_FAULT_KINDS];

static uint64_t pick(struct rng *rng, uint64_t low, uint64_t high)
{
    return low + rng_next(rng) % (high - low + 1);
}

static bool one_in(struct rng *rng, uint32_t n)
{
    return rng_below(rng, n) == 0;
}

static struct mesh_fault fault_of(struct rng *rng, const struct mesh_config *c,
                                  enum mesh_fault_kind kind)
{
    uint32_t last = c->tokens < c->max_tokens ? c->tokens : c->max_tokens;
    struct mesh_fault f = {.kind = kind,
                           .token = (uint32_t)pick(rng, 0, last),
                           .wait_ns = pick(rng, 0, 2 * c->step_ns),
                           .heal_ns = pick(rng, 20, 3000) * NS_PER_MS,
                           .variant = (uint32_t)pick(rng, 0, 5999)};
    bool lasts = kind == MESH_FREEZES || kind == MESH_STALLS || kind == MESH_MTU;
    bool may_last = kind == MESH_DIES || kind == MESH_CUT_SERVER || kind == MESH_CUT_CLIENT ||
                    kind == MESH_INGRESS_DIES;
    if (lasts || (may_last && one_in(rng, 2))) {
        f.heal_ns = MESH_NEVER;
    }
    return f;
}

/* The first fault's kind follows from the seed's number, so that all come equally often. */
static struct mesh_config config_of(uint64_t seed)
{
    struct rng rng = {seed * UINT64_C(0x2545f4914f6cdd1d)};
    bool bad_network = one_in(&rng, 2);
    struct mesh_config c = {
        .seed = seed,
        .nodes = (uint32_t)pick(&rng, 2, MESH_NODES_MAX),
        .streams = (uint32_t)pick(&rng, 1, MESH_STREAMS_MAX),
        .jitter_ns = pick(&rng, 0, 3) * NS_PER_MS,
        .prompt_bytes = one_in(&rng, 6) ? rng_below(&rng, 20000) : rng_below(&rng, 800),
        .tokens = (uint32_t)pick(&rng, 0, 60),
        .max_tokens = (uint32_t)pick(&rng, 1, 60),
        .token_bytes = one_in(&rng, 8) ? 3000 : rng_below(&rng, 12),
        .prefill_steps = rng_below(&rng, 12),
        .step_ns = pick(&rng, 2, 40) * NS_PER_MS,
        .hedge = one_in(&rng, 3),
        .once = one_in(&rng, 10),
        .late_done = one_in(&rng, 2),
        .net_refuses = one_in(&rng, 2),
    };
    c.paths = (uint32_t)pick(&rng, 1, c.nodes < MESH_PATHS_MAX ? c.nodes : MESH_PATHS_MAX);
    if (bad_network) {
        c.loss_permille = rng_below(&rng, one_in(&rng, 3) ? 301 : 51);
        c.dup_permille = rng_below(&rng, 100);
        c.flip_permille = rng_below(&rng, 30);
        c.jitter_ns = pick(&rng, 1, 40) * NS_PER_MS;
    }
    if (one_in(&rng, 12)) {
        c.cancel_ns = NS_PER_S + pick(&rng, 1, 1000) * NS_PER_MS;
    }
    c.fault_count = one_in(&rng, 4) ? (uint32_t)pick(&rng, 2, MESH_FAULTS_MAX) : 1;
    c.faults[0] = fault_of(&rng, &c, (enum mesh_fault_kind)(seed % MESH_FAULT_KINDS));
    for (uint32_t i = 1; i < c.fault_count; i++) {
        c.faults[i] = fault_of(&rng, &c, (enum mesh_fault_kind)rng_below(&rng, MESH_FAULT_KINDS));
    }
    return c;
}

/* ---- what must hold ---- */

static void check_stream(const struct mesh *m, uint32_t i)
{
    const struct mesh_stream *s = &m->streams[i];
    const weft_result_t *r = &s->result;
    uint64_t seed = m->config.seed;
    ck_assert_msg(s->done == 1, "seed %lu: stream %u: %u ends", seed, i, s->done);
    ck_assert_msg(r->new_tokens == s->delivered, "seed %lu: stream %u: %u of %u tokens counted",
                  seed, i, r->new_tokens, s->delivered);
    if (r->status == 0) {
        ck_assert_msg(
            s->delivered == s->total && (s->total == 0 || s->text_len == s->ends[s->total - 1]),
            "seed %lu: stream %u: silently cut at %u of %u", seed, i, s->delivered, s->total);
        int finish =
            m->config.tokens <= m->config.max_tokens ? WEFT_FINISH_STOP : WEFT_FINISH_LENGTH;
        ck_assert_msg(r->finish == finish, "seed %lu: stream %u: finish %d", seed, i, r->finish);
        ck_assert_str_eq(r->backend, "sim");
    } else {
        ck_assert_msg(r->status < -1000, "seed %lu: stream %u: status %d", seed, i, r->status);
        ck_assert_msg(r->finish >= WEFT_FINISH_CANCELLED,
                      "seed %lu: stream %u: status %d, finish %d", seed, i, r->status, r->finish);
    }
    ck_assert_msg(m->config.cancel_ns != 0 || r->status != WEFT_E_CANCELLED, "seed %lu: cancelled",
                  seed);
}

static void check_rest(const struct mesh *m)
{
    uint64_t seed = m->config.seed;
    ck_assert_msg(m->attempts == NULL, "seed %lu: attempts left", seed);
    ck_assert_msg(m->packet_count == 0, "seed %lu: datagrams still fly", seed);
    for (uint32_t i = 0; i < m->config.nodes; i++) {
        const struct serve *s = m->nodes[i].serve;
        ck_assert_msg(mesh_node_jobs(&m->nodes[i]) == 0, "seed %lu: node %u holds jobs", seed, i);
        ck_assert_msg(s == NULL || (s->reply_bytes == 0 && s->partial_bytes == 0),
                      "seed %lu: node %u holds memory", seed, i);
    }
    uint64_t tokens =
        (uint64_t)m->config.streams * m->config.tokens * (1 + m->config.token_bytes / 500);
    uint64_t up = m->attempts_made * UP_MAX + tokens * UP_PER_TOKEN;
    ck_assert_msg(m->sent_up <= up, "seed %lu: %lu datagrams up for %lu attempts", seed, m->sent_up,
                  m->attempts_made);
    uint64_t late = m->sent_up - m->up_at_end;
    ck_assert_msg(late <= m->attempts_made * LATE_PER_ATTEMPT,
                  "seed %lu: %lu datagrams after the end of %lu attempts", seed, late,
                  m->attempts_made);
}

/* One fault on a good network, and a way around it: every answer must be saved. */
static bool can_be_saved(const struct mesh *m)
{
    const struct mesh_config *c = &m->config;
    enum mesh_fault_kind kind = c->faults[0].kind;
    bool about_the_node = kind == MESH_INGRESS_DIES || kind == MESH_CUT_CLIENT || kind == MESH_MTU;
    bool unheard = c->faults[0].token == 0 && /* nobody can tell which of the two is silent */
                   (kind == MESH_FREEZES || kind == MESH_NAPS || kind == MESH_CUT_SERVER);
    return c->fault_count == 1 && c->loss_permille == 0 && c->flip_permille == 0 && !c->once &&
           c->cancel_ns == 0 && c->nodes >= 3 && c->streams <= MESH_SLOTS &&
           ((!about_the_node && !unheard) || c->paths >= 2);
}

static void check_saved(const struct mesh *m)
{
    for (uint32_t i = 0; i < m->config.streams && can_be_saved(m); i++) {
        const weft_result_t *r = &m->streams[i].result;
        ck_assert_msg(r->status == 0, "seed %lu: stream %u: not saved: %d (%s)", m->config.seed, i,
                      r->status, mesh_fault_name(m->config.faults[0].kind));
    }
}

static void count(const struct mesh *m)
{
    bool alone = m->config.fault_count == 1;
    struct tally *t = &tallies[m->config.faults[0].kind];
    for (uint32_t i = 0; i < m->config.streams; i++) {
        const weft_result_t *r = &m->streams[i].result;
        t->streams++;
        t->complete += r->status == 0;
        t->failovers += r->failovers;
        t->hit += r->failovers != 0;
        t->hit_complete += r->failovers != 0 && r->status == 0;
        t->failed[r->status != 0 ? (uint32_t)(-1000 - r->status) % MAX_FAULT_STATUS : 0]++;
        if (alone && r->failovers != 0 && m->streams[i].delivered > 1 &&
            m->config.loss_permille == 0) {
            hist_add(&t->gap_us, r->gap_us);
        }
    }
}

static void run_seed(uint64_t seed)
{
    struct mesh_config c = config_of(seed);
    struct mesh *m = mesh_create(&c);
    mesh_play(m, NS_PER_S + LIMIT_NS);
    ck_assert_msg(m->wrong == NULL, "seed %lu: %s (%s)", seed, m->wrong,
                  mesh_fault_name(c.faults[0].kind));
    ck_assert_msg(m->open == 0, "seed %lu: %u streams without an end (%s)", seed, m->open,
                  mesh_fault_name(c.faults[0].kind));
    for (uint32_t i = 0; i < c.streams; i++) {
        check_stream(m, i);
    }
    check_rest(m);
    check_saved(m);
    count(m);
    mesh_destroy(m);
}

static void print_tally(const char *name, const struct tally *t)
{
    printf("%-26s %6lu streams, %6lu complete, %5lu failovers, %5lu of %5lu cut ones saved", name,
           t->streams, t->complete, t->failovers, t->hit_complete, t->hit);
    if (t->gap_us.count != 0) {
        printf("; gap p50 %lu p99 %lu ms", hist_quantile(&t->gap_us, 0.5) / 1000,
               hist_quantile(&t->gap_us, 0.99) / 1000);
    }
    for (uint32_t i = 1; i < MAX_FAULT_STATUS; i++) {
        if (t->failed[i] != 0) {
            printf("; -10%02u: %lu", i, t->failed[i]);
        }
    }
    printf("\n");
}

START_TEST(every_seed_ends_right)
{
    const char *one = getenv("WEFT_SEED");
    const char *many = getenv("WEFT_SEEDS");
    uint64_t seeds = many != NULL ? strtoull(many, NULL, 10) : SEEDS;
    if (one != NULL) {
        run_seed(strtoull(one, NULL, 10));
        return;
    }
    for (uint64_t i = 0, first = suite_seed(1); i < seeds; i++) {
        run_seed(first + i);
    }
    struct tally *all = calloc(1, sizeof(*all));
    for (uint32_t kind = 0; kind < MESH_FAULT_KINDS; kind++) {
        const struct tally *t = &tallies[kind];
        print_tally(mesh_fault_name((enum mesh_fault_kind)kind), t);
        all->streams += t->streams;
        all->complete += t->complete;
        all->failovers += t->failovers;
        all->hit += t->hit;
        all->hit_complete += t->hit_complete;
        for (uint32_t i = 0; i < MAX_FAULT_STATUS; i++) {
            all->failed[i] += t->failed[i];
        }
    }
    print_tally("all", all);
    free(all);
}
END_TEST

/* Without faults and loss every answer is whole, and nothing is asked for twice. */
START_TEST(a_healthy_mesh_needs_no_second_attempt)
{
    struct mesh_config c = config_of(1);
    c.nodes = 3;
    c.paths = 2;
    c.streams = 4;
    c.tokens = c.max_tokens = 50;
    c.token_bytes = 6;
    c.prompt_bytes = 200;
    c.loss_permille = c.dup_permille = c.flip_permille = 0;
    c.jitter_ns = 0;
    c.fault_count = 0;
    c.hedge = c.once = false;
    c.cancel_ns = 0;
    struct mesh *m = mesh_create(&c);
    mesh_play(m, NS_PER_S + LIMIT_NS);
    ck_assert_ptr_null(m->wrong);
    for (uint32_t i = 0; i < c.streams; i++) {
        check_stream(m, i);
        ck_assert_int_eq(m->streams[i].result.status, 0);
        ck_assert_uint_eq(m->streams[i].result.resends, 0);
    }
    check_rest(m);
    ck_assert_uint_eq(m->attempts_made, c.streams);
    ck_assert_uint_eq(m->executions, c.streams);
    ck_assert_uint_le(m->sent_up, c.streams * 60);
    mesh_destroy(m);
}
END_TEST

/* The first worker pauses, the hedge answers: the first one is stopped, not left to itself. */
START_TEST(the_loser_of_a_hedge_makes_no_tokens)
{
    struct mesh_config c = config_of(1);
    c.nodes = 3;
    c.paths = c.streams = 1;
    c.tokens = c.max_tokens = 50;
    c.token_bytes = 6;
    c.prompt_bytes = 200;
    c.prefill_steps = 4;
    c.step_ns = 20 * NS_PER_MS;
    c.loss_permille = c.dup_permille = c.flip_permille = 0;
    c.jitter_ns = c.cancel_ns = 0;
    c.hedge = true;
    c.once = false;
    c.fault_count = 1;
    c.faults[0] = (struct mesh_fault){
        .kind = MESH_PAUSES, .wait_ns = 30 * NS_PER_MS, .heal_ns = 500 * NS_PER_MS};
    struct mesh *m = mesh_create(&c);
    mesh_play(m, NS_PER_S + LIMIT_NS);
    ck_assert_ptr_null(m->wrong);
    check_stream(m, 0);
    check_rest(m);
    ck_assert_int_eq(m->streams[0].result.status, 0);
    ck_assert(m->streams[0].result.hedged);
    ck_assert_uint_eq(m->executions, 2);
    ck_assert_uint_le(m->tokens, c.tokens + 1);
    mesh_destroy(m);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("flow/mesh");
    TCase *t = tcase_create("mesh");
    tcase_set_timeout(t, 3000);
    tcase_add_test(t, a_healthy_mesh_needs_no_second_attempt);
    tcase_add_test(t, the_loser_of_a_hedge_makes_no_tokens);
    tcase_add_test(t, every_seed_ends_right);
    suite_add_tcase(s, t);
    return suite_main(s);
}
