/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_exact.c - weft-bench mesh-sim exact and churn: meshes that live. Machines crash, come back
 * and change their models while searches run; each answer is held against brute force. Small zones
 * (24 members), so that a few hundred machines make many of them.
 *
 * What an answer owes: if `complete`, every record among the k best that was there, and settled in
 * its zone, `age_ms` before the search. A machine that died within the last SILENT_NS may still be
 * in answers.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/figures.h"
#include "bench/mesh/sim_runs.h"

#define SPLIT_ABOVE  24u
#define MERGE_BELOW  8u
#define MEMBER_ROOM  128u
#define RATE         1000u /* searches in a virtual second */
#define CHANGE_NS    (500 * NS_PER_MS)
#define JOIN_GAP_NS  (20 * NS_PER_MS)
#define SETTLE_NS    (60 * NS_PER_S)
#define SETTLED_NS   (ZONE_REPAIR_NS + 2 * NS_PER_S)
#define SILENT_NS    (ZONE_SILENCE_NS + ZONE_REPAIR_NS)
#define PARTITION_NS (60 * NS_PER_S)
#define HEAL_NS      (120 * NS_PER_S)

struct exact {
    struct world *world;
    struct rng rng;
    uint64_t *died_ns;
    uint64_t *marks; /* of each node's claim */
    struct zone_query query[WORLD_SEARCHES];
    uint32_t query_next;
    uint64_t searches, complete, records, found, dead, wrong, age_ms_sum;
    uint32_t age_ms_max;
    uint64_t claims, holes;
    uint64_t first_hole;
    uint32_t up;
};

static bool among(const struct zone_top *top, uint32_t node)
{
    for (uint32_t i = 0; i < top->count; i++) {
        if (top->all[i].node == node) {
            return true;
        }
    }
    return false;
}

static void answer_check(struct exact *e, const struct zone_query *q, const struct zone_result *r,
                         uint64_t started_ns, uint64_t now_ns)
{
    struct zone_top old;
    uint64_t ago_ns = r->age_ms * NS_PER_MS + SETTLED_NS;
    world_oracle(e->world, q, started_ns > ago_ns ? started_ns - ago_ns : 0, &old);
    const struct zone_found *last = r->top.count == q->k ? &r->top.all[q->k - 1] : NULL;
    for (uint32_t i = 0; i < old.count; i++) {
        bool beyond = last != NULL &&
                      (old.all[i].distance > last->distance ||
                       (old.all[i].distance == last->distance && old.all[i].node > last->node));
        if (!beyond) {
            e->records++;
            e->found += among(&r->top, old.all[i].node);
        }
    }
    for (uint32_t i = 0; i < r->top.count; i++) {
        const struct zone_found *f = &r->top.all[i];
        bool up = vnet_is_up(e->world->vnet, f->node);
        e->dead += !up;
        e->wrong += !up && now_ns - e->died_ns[f->node] > SILENT_NS;
        e->wrong += i > 0 && (f->distance < f[-1].distance ||
                              (f->distance == f[-1].distance && f->node <= f[-1].node));
    }
}

static void on_found(struct world *w, struct world_search *s, uint64_t now_ns)
{
    struct exact *e = w->user;
    struct zone_result r;
    zone_search_result(&s->search, &r);
    e->searches++;
    e->complete += r.complete;
    if (r.complete) {
        e->age_ms_sum += r.age_ms;
        e->age_ms_max = r.age_ms > e->age_ms_max ? r.age_ms : e->age_ms_max;
        answer_check(e, &s->search.query, &r, s->started_ns, now_ns);
    }
}

/* A claim has changed: is there still one for each path? */
static void on_event(struct world *w, uint32_t node, uint64_t now_ns)
{
    struct exact *e = w->user;
    const struct zone *z = &w->zones[node];
    uint64_t mark = z->claim.lo * 31 + z->claim.hi * 7 + z->epoch + z->joined;
    uint64_t hole;
    if (e->marks[node] == mark) {
        return;
    }
    e->marks[node] = mark;
    e->claims++;
    if (!world_covered(w, &hole) && e->holes++ == 0) {
        e->first_hole = now_ns;
    }
}

static uint32_t draw(struct exact *e, bool up)
{
    for (uint32_t tries = 0; tries < 10000; tries++) {
        uint32_t node = rng_below(&e->rng, e->world->options.nodes);
        if (vnet_is_up(e->world->vnet, node) == up && (!up || e->world->zones[node].joined)) {
            return node;
        }
    }
    return 0;
}

static void run_for(struct exact *e, uint64_t ns)
{
    vnet_run(e->world->vnet, vnet_now_ns(e->world->vnet) + ns);
}

static int exact_create(struct exact *e, const struct sim_run *run, uint64_t seed)
{
    struct world_options options = run->world;
    options.seed = seed;
    options.upkeep = true;
    options.split_above = SPLIT_ABOVE;
    options.merge_below = MERGE_BELOW;
    options.member_max = MEMBER_ROOM;
    memset(e, 0, sizeof(*e));
    e->rng.state = seed ^ 0xc4a0;
    int rc = world_create(&e->world, &options);
    e->died_ns = calloc(options.nodes, sizeof(*e->died_ns));
    e->marks = calloc(options.nodes, sizeof(*e->marks));
    if (rc < 0 || e->died_ns == NULL || e->marks == NULL) {
        return rc < 0 ? rc : -ENOMEM;
    }
    e->world->user = e;
    e->world->on_found = on_found;
    world_found(e->world, 0);
    e->world->on_event = on_event;
    for (uint32_t i = 1; i < options.nodes; i++) {
        world_join(e->world, i, draw(e, true));
        run_for(e, JOIN_GAP_NS);
    }
    run_for(e, SETTLE_NS);
    e->up = options.nodes;
    return 0;
}

static void exact_destroy(struct exact *e)
{
    world_destroy(e->world);
    free(e->died_ns);
    free(e->marks);
}

/* One machine crashes, comes back, or gets other models. Between 80 and 100 % are up. */
static void change(struct exact *e)
{
    uint32_t turn = rng_below(&e->rng, 3);
    uint32_t nodes = e->world->options.nodes;
    uint64_t now_ns = vnet_now_ns(e->world->vnet);
    if (turn == 0 && e->up > nodes * 4 / 5) {
        uint32_t node = draw(e, true);
        world_crash(e->world, node);
        e->died_ns[node] = now_ns;
        e->up--;
    } else if (turn == 1 && e->up < nodes) {
        world_join(e->world, draw(e, false), draw(e, true));
        e->up++;
    } else {
        uint32_t node = draw(e, true);
        struct zone_record r = population_machine(&e->world->population, node);
        zone_set_self(&e->world->zones[node], &r, now_ns);
        e->world->truth[node] = e->world->zones[node].self;
        e->world->changed_ns[node] = now_ns;
        vnet_wake(e->world->vnet, node, now_ns);
    }
}

int sim_exact(const struct sim_run *run, json_t *out)
{
    struct exact e;
    int rc = exact_create(&e, run, run->world.seed);
    uint64_t next_ns = rc < 0 ? 0 : vnet_now_ns(e.world->vnet);
    for (uint32_t i = 0; rc == 0 && i < run->searches; i++) {
        uint32_t asker = draw(&e, true);
        struct zone_query q =
            population_query(&e.world->population, &e.world->truth[asker],
                             (enum population_workload)(i % POPULATION_WORKLOADS), i % 4 != 0);
        if (vnet_now_ns(e.world->vnet) >= next_ns) {
            next_ns += CHANGE_NS;
            change(&e);
        }
        if (vnet_is_up(e.world->vnet, asker)) {
            world_ask(e.world, asker, &q, 10 * NS_PER_S, 0);
        }
        run_for(&e, NS_PER_S / RATE);
        if (!run->json && i % 100000 == 99999) {
            printf("%9u searches, %.3f %% complete, %llu of %llu records, %llu wrong\n", i + 1,
                   100.0 * (double)e.complete / (double)e.searches, (unsigned long long)e.found,
                   (unsigned long long)e.records, (unsigned long long)e.wrong);
            fflush(stdout);
        }
    }
    if (rc == 0) {
        run_for(&e, 10 * NS_PER_S);
        double recall = e.records > 0 ? (double)e.found / (double)e.records : 1;
        json_object_set_new(
            out, "exact",
            json_pack("{s:I, s:I, s:I, s:I, s:f, s:I, s:I, s:f, s:i, s:I}", "searches",
                      (json_int_t)e.searches, "complete", (json_int_t)e.complete, "records_owed",
                      (json_int_t)e.records, "records_found", (json_int_t)e.found, "recall", recall,
                      "dead_in_answers", (json_int_t)e.dead, "wrong", (json_int_t)e.wrong,
                      "age_ms_mean",
                      e.complete > 0 ? (double)e.age_ms_sum / (double)e.complete : 0.0,
                      "age_ms_max", (int)e.age_ms_max, "holes", (json_int_t)e.holes));
        if (!run->json) {
            printf("\n%llu searches, %llu complete; recall over what is owed %.7f (%llu of %llu); "
                   "%llu wrong\nevidence %.1f s old on average, %.1f s at most; %llu claims "
                   "changed, %llu with a hole\n",
                   (unsigned long long)e.searches, (unsigned long long)e.complete, recall,
                   (unsigned long long)e.found, (unsigned long long)e.records,
                   (unsigned long long)e.wrong,
                   e.complete > 0 ? (double)e.age_ms_sum / (double)e.complete / 1e3 : 0.0,
                   e.age_ms_max / 1e3, (unsigned long long)e.claims, (unsigned long long)e.holes);
        }
        rc = e.found != e.records || e.wrong != 0 || e.holes != 0;
    }
    exact_destroy(&e);
    return rc;
}

/* ---- churn ---- */

/* Pairs of nodes up whose claims overlap without being one. */
static uint32_t overlaps(const struct exact *e)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < e->world->options.nodes; i++) {
        const struct zone *a = &e->world->zones[i];
        count += vnet_is_up(e->world->vnet, i) && !a->joined;
        for (uint32_t j = 0; j < i; j++) {
            const struct zone *b = &e->world->zones[j];
            count += vnet_is_up(e->world->vnet, i) && vnet_is_up(e->world->vnet, j) &&
                     zone_range_overlap(a->claim, b->claim) &&
                     !zone_range_equal(a->claim, b->claim);
        }
    }
    return count;
}

static int churn_run(const struct sim_run *run, uint64_t seed, json_t *list)
{
    struct exact e;
    int rc = exact_create(&e, run, seed);
    for (uint64_t ns = 0; rc == 0 && ns < run->seconds * NS_PER_S; ns += CHANGE_NS) {
        change(&e);
        run_for(&e, CHANGE_NS);
    }
    if (rc == 0) {
        for (uint32_t i = 0; i < run->world.nodes; i++) {
            vnet_set_group(e.world->vnet, i, rng_below(&e.rng, 2));
        }
        run_for(&e, PARTITION_NS);
        for (uint32_t i = 0; i < run->world.nodes; i++) {
            vnet_set_group(e.world->vnet, i, 0);
        }
        run_for(&e, HEAL_NS);
        uint32_t left = overlaps(&e);
        uint64_t fingerprint = vnet_fingerprint(e.world->vnet);
        rc = e.holes != 0 || left != 0;
        json_array_append_new(list, json_pack("{s:I, s:I, s:I, s:i, s:I}", "seed", (json_int_t)seed,
                                              "claims", (json_int_t)e.claims, "holes",
                                              (json_int_t)e.holes, "overlaps", (int)left,
                                              "fingerprint", (json_int_t)fingerprint));
        if (!run->json) {
            printf("seed %llu: %llu claims changed, %llu with a hole", (unsigned long long)seed,
                   (unsigned long long)e.claims, (unsigned long long)e.holes);
            if (e.holes != 0) {
                printf(" (first at %.3f s)", (double)e.first_hole / 1e9);
            }
            printf(", %u pairs disagree at the end%s; run %016llx\n", left,
                   rc != 0 ? "  <- BROKEN" : "", (unsigned long long)fingerprint);
            fflush(stdout);
        }
    }
    exact_destroy(&e);
    return rc;
}

int sim_churn(const struct sim_run *run, json_t *out)
{
    json_t *list = json_array();
    uint32_t broken = 0;
    json_object_set_new(out, "runs", list);
    for (uint32_t i = 0; i < run->runs; i++) {
        int rc = churn_run(run, run->world.seed + i, list);
        if (rc < 0) {
            return rc;
        }
        broken += rc != 0;
    }
    json_object_set_new(out, "broken", json_integer(broken));
    if (!run->json) {
        printf("%u of %u runs broken\n", broken, run->runs);
    }
    return broken != 0;
}
