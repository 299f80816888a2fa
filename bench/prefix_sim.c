/* SPDX-License-Identifier: Apache-2.0 */
/* prefix_sim.c - see prefix_sim.h. */
#include "bench/prefix_sim.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/flow/serve.h"
#include "schemas/base/clock.h"
#include "schemas/base/rng.h"
#include "tests/unit/route/fixture.h"

#define FIRST_ID    2u /* worker i has node id FIRST_ID + i; 1 is the router */
#define BLOCK_BYTES (TRACE_BLOCK_TOKENS * ROUTE_BYTES_PER_TOKEN)
#define BEGIN_BYTES (128u << 10) /* more of a prompt is not looked at */
#define ROOM        1000u

struct worker {
    uint64_t free_ns; /* when it has computed what it has */
    uint32_t requests;
    uint64_t work;
    uint64_t *used; /* by block: when it was used last; 0 = not in the cache */
    uint32_t cached;
    struct serve_prefixes prefixes;
    uint64_t told; /* how many of them others have heard of */
};

/* What a router knows of a worker from its own requests there. */
struct view {
    uint64_t heard_ns; /* of `free_ns`: when it accepted the last one */
    uint64_t free_ns;
    uint64_t from_ns, to_ns; /* the answer that lasts longest */
};

struct router {
    struct route_load *loads;
    struct prefixes *prefixes;
    struct view *views;
};

struct sim {
    const struct prefix_options *o;
    const struct trace *trace;
    struct prefix_result *result;
    uint32_t *blocks; /* of the trace, renumbered from 0 */
    uint32_t block_count;
    uint8_t *seen;
    struct worker *workers;
    struct router *routers;
    struct route_table *table;
    struct scan *scan;
    uint64_t gossip_ns; /* next time */
    uint64_t now_ns;
    uint64_t uses;
};

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Block ids become indexes. */
static int number_blocks(struct sim *s)
{
    uint32_t count = s->trace->block_count;
    uint32_t *sorted = malloc((count + 1) * sizeof(*sorted));
    s->blocks = malloc((count + 1) * sizeof(*s->blocks));
    if (sorted == NULL || s->blocks == NULL) {
        free(sorted);
        return -ENOMEM;
    }
    memcpy(sorted, s->trace->blocks, count * sizeof(*sorted));
    qsort(sorted, count, sizeof(*sorted), by_value);
    for (uint32_t i = 0; i < count; i++) {
        if (i == 0 || sorted[i] != sorted[i - 1]) {
            sorted[s->block_count++] = sorted[i];
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t *at =
            bsearch(&s->trace->blocks[i], sorted, s->block_count, sizeof(*sorted), by_value);
        s->blocks[i] = (uint32_t)(at - sorted);
    }
    free(sorted);
    return 0;
}

static uint32_t wait_us(const struct sim *s, uint64_t free_ns)
{
    return free_ns > s->now_ns ? (uint32_t)((free_ns - s->now_ns) / NS_PER_US) : 0;
}

/* ---- prompts ---- */

static uint32_t usable_blocks(const struct trace_entry *e)
{
    uint32_t whole = e->input_tokens / TRACE_BLOCK_TOKENS;
    return e->block_count < whole ? e->block_count : whole;
}

/* How the prompt begins: text is drawn from the blocks' numbers. */
static uint64_t beginning_of(const struct sim *s, const struct trace_entry *e)
{
    static uint64_t text[BEGIN_BYTES / sizeof(uint64_t)];
    uint64_t size = (uint64_t)e->input_tokens * ROUTE_BYTES_PER_TOKEN;
    size = size < BEGIN_BYTES ? size : BEGIN_BYTES;
    for (uint32_t i = 0; i * BLOCK_BYTES < size && i < e->block_count; i++) {
        struct rng rng = {.state = s->blocks[e->block + i]};
        for (uint32_t w = 0; w < BLOCK_BYTES / sizeof(uint64_t); w++) {
            text[i * BLOCK_BYTES / sizeof(uint64_t) + w] = rng_next(&rng);
        }
    }
    return prefix_of(MODEL_A, text, size);
}

/* ---- workers ---- */

static void forget_oldest(struct sim *s, struct worker *w)
{
    uint32_t oldest = 0;
    for (uint32_t i = 1; i < s->block_count; i++) {
        if (w->used[i] != 0 && (w->used[oldest] == 0 || w->used[i] < w->used[oldest])) {
            oldest = i;
        }
    }
    w->used[oldest] = 0;
    w->cached--;
}

/* Tokens of the prompt that the cache knows; then it knows all of it. */
static uint32_t look_up(struct sim *s, struct worker *w, const struct trace_entry *e)
{
    uint32_t run = 0, count = usable_blocks(e);
    while (run < count && w->used[s->blocks[e->block + run]] != 0) {
        run++;
    }
    for (uint32_t i = count; i-- > 0;) { /* the beginning is what is used last */
        uint64_t *used = &w->used[s->blocks[e->block + i]];
        w->cached += *used == 0;
        *used = ++s->uses;
    }
    while (s->o->cache_blocks != 0 && w->cached > s->o->cache_blocks) {
        forget_oldest(s, w);
    }
    return run * TRACE_BLOCK_TOKENS;
}

static void note_seen(struct sim *s, const struct trace_entry *e)
{
    uint32_t run = 0, count = usable_blocks(e);
    while (run < count && s->seen[s->blocks[e->block + run]]) {
        run++;
    }
    s->result->ceiling += (uint64_t)run * TRACE_BLOCK_TOKENS;
    for (uint32_t i = 0; i < count; i++) {
        s->seen[s->blocks[e->block + i]] = 1;
    }
}

/* The request reaches the worker. */
static void serve(struct sim *s, struct router *r, uint32_t index, const struct trace_entry *e,
                  uint64_t prefix)
{
    struct worker *w = &s->workers[index];
    struct view *view = &r->views[index];
    uint64_t at_ns = s->now_ns + s->o->hop_ns;
    uint32_t known = look_up(s, w, e);
    uint32_t work = e->input_tokens - known;
    uint64_t begin_ns = w->free_ns > at_ns ? w->free_ns : at_ns;
    w->free_ns = begin_ns + work * NS_PER_S / s->o->prefill_tps;
    w->requests++;
    w->work += work;
    if (prefix != 0) {
        w->prefixes.at[w->prefixes.count++ % SERVE_PREFIXES] = prefix;
    }
    uint64_t end_ns = w->free_ns + e->output_tokens * NS_PER_S / s->o->decode_tps;
    view->heard_ns = at_ns + s->o->hop_ns;
    view->free_ns = w->free_ns;
    if (end_ns > view->to_ns) {
        view->from_ns = s->now_ns < view->to_ns ? view->from_ns : w->free_ns + s->o->hop_ns;
        view->to_ns = end_ns + s->o->hop_ns;
    }
    hist_add(&s->result->first_us, (w->free_ns + s->o->hop_ns - s->now_ns) / NS_PER_US);
    s->result->tokens += e->input_tokens;
    s->result->known += known;
}

/* ---- routers ---- */

/* Everybody hears what the workers say of themselves. The table is this simulation's own. */
static void gossip(struct sim *s)
{
    for (uint32_t i = 0; i < s->o->workers; i++) {
        struct worker *w = &s->workers[i];
        uint16_t id = (uint16_t)(FIRST_ID + i);
        struct route_node *n =
            (struct route_node *)&s->table->nodes[route_table_find(s->table, id)];
        n->load_ns = s->now_ns;
        n->queue_us = wait_us(s, w->free_ns);
        uint64_t first =
            w->prefixes.count > SERVE_PREFIXES ? w->prefixes.count - SERVE_PREFIXES : 0;
        for (uint64_t p = first > w->told ? first : w->told; p < w->prefixes.count; p++) {
            for (uint32_t r = 0; r < s->o->routers; r++) {
                prefixes_learn(s->routers[r].prefixes, w->prefixes.at[p % SERVE_PREFIXES], id,
                               s->now_ns);
            }
        }
        w->told = w->prefixes.count;
    }
    s->table->generation++; /* what was compared with it is to be compared again */
}

/* What the router's own requests have told it. */
static void look_at_views(struct sim *s, struct router *r)
{
    for (uint32_t i = 0; i < s->o->workers; i++) {
        const struct view *view = &r->views[i];
        struct route_load *load = &r->loads[FIRST_ID + i];
        bool answering = view->from_ns <= s->now_ns && s->now_ns < view->to_ns;
        uint64_t heard_ns = answering ? s->now_ns : view->heard_ns;
        if (heard_ns > load->heard_ns && heard_ns <= s->now_ns) {
            *load = (struct route_load){
                .heard_ns = heard_ns,
                .queue_us = wait_us(s, answering ? s->workers[i].free_ns : view->free_ns),
                .room = ROOM,
                .free_vram_64mib = UINT16_MAX,
            };
        }
    }
}

static uint32_t weft(struct sim *s, struct router *r, const struct trace_entry *e, uint64_t prefix)
{
    struct rng rng = {.state = e->at_ns ^ e->block};
    struct route_query query = {
        .model = MODEL_A,
        .budget_us = WEFT_BUDGET_NONE,
        .prompt_bytes = e->input_tokens * ROUTE_BYTES_PER_TOKEN,
        .tier_max = WEFT_TIER_MAX,
        .lot = (uint32_t)rng_next(&rng),
    };
    struct route_choice choice;
    uint32_t known = 0;
    look_at_views(s, r);
    route_choose(s->table, r->loads, s->scan, &query, &choice);
    if (prefix != 0 && s->o->policy == PREFIX_LONGEST) {
        struct prefix_holder holders[PREFIXES_HOLDERS];
        if (prefixes_find(r->prefixes, prefix, s->now_ns, holders) != 0) {
            choice.node = route_table_find(s->table, holders[0].node);
        }
    } else if (prefix != 0) {
        known = prefixes_steer(r->prefixes, s->table, r->loads, &query, prefix, s->now_ns, &choice);
    }
    const struct route_node *node = &s->table->nodes[choice.node];
    route_load_assign(&r->loads[node->id], node);
    prefixes_placed(r->prefixes, s->table, r->loads, &query, prefix, choice.node, known, s->now_ns);
    return node->id - FIRST_ID;
}

static void place(struct sim *s, uint32_t index)
{
    const struct trace_entry *e = &s->trace->entries[index];
    struct router *r = &s->routers[index % s->o->routers];
    s->now_ns = NS_PER_S + (uint64_t)((double)e->at_ns / s->o->speed);
    for (; s->gossip_ns <= s->now_ns; s->gossip_ns += s->o->gossip_ns) {
        uint64_t now_ns = s->now_ns;
        s->now_ns = s->gossip_ns;
        gossip(s);
        s->now_ns = now_ns;
    }
    bool tells = s->o->policy == PREFIX_WEFT || s->o->policy == PREFIX_LONGEST;
    uint64_t prefix = tells ? beginning_of(s, e) : 0;
    uint32_t worker = s->o->policy == PREFIX_TURNS ? index % s->o->workers : weft(s, r, e, prefix);
    note_seen(s, e);
    serve(s, r, worker, e, prefix);
}

/* ---- setting up ---- */

static int make_table(struct sim *s)
{
    struct route_node nodes[PREFIX_WORKERS_MAX + 1];
    for (uint32_t i = 0; i <= s->o->workers; i++) {
        nodes[i] = fixture_node((uint16_t)(i + 1), 50.11, 8.68, 3);
        nodes[i].rtt_us = i == 0 ? 0 : (uint32_t)(2 * s->o->hop_ns / NS_PER_US);
        nodes[i].room = ROOM;
        nodes[i].prefill_per_second = s->o->prefill_tps;
        nodes[i].decode_per_second = s->o->decode_tps;
        nodes[i].keeps_prompts = true;
    }
    nodes[0].model_count = 0; /* the router only routes */
    return route_table_create(&s->table, nodes, s->o->workers + 1, 1, 1, false);
}

static int sim_init(struct sim *s)
{
    const struct prefix_options *o = s->o;
    int rc = number_blocks(s);
    s->seen = calloc(s->block_count + 1, 1);
    s->workers = calloc(o->workers, sizeof(*s->workers));
    s->routers = calloc(o->routers, sizeof(*s->routers));
    s->scan = aligned_alloc(_Alignof(struct scan), sizeof(*s->scan));
    if (rc != 0 || s->seen == NULL || s->workers == NULL || s->routers == NULL || s->scan == NULL ||
        make_table(s) != 0) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < o->workers; i++) {
        s->workers[i].used = calloc(s->block_count + 1, sizeof(uint64_t));
        if (s->workers[i].used == NULL) {
            return -ENOMEM;
        }
    }
    for (uint32_t i = 0; i < o->routers; i++) {
        struct router *r = &s->routers[i];
        r->loads = calloc(o->workers + FIRST_ID, sizeof(*r->loads));
        r->views = calloc(o->workers, sizeof(*r->views));
        r->prefixes = aligned_alloc(_Alignof(struct prefixes), sizeof(*r->prefixes));
        if (r->loads == NULL || r->views == NULL || r->prefixes == NULL) {
            return -ENOMEM;
        }
        memset(r->prefixes, 0, sizeof(*r->prefixes));
    }
    s->gossip_ns = o->gossip_ns;
    return 0;
}

static void sim_deinit(struct sim *s)
{
    for (uint32_t i = 0; s->workers != NULL && i < s->o->workers; i++) {
        free(s->workers[i].used);
    }
    for (uint32_t i = 0; s->routers != NULL && i < s->o->routers; i++) {
        free(s->routers[i].loads);
        free(s->routers[i].views);
        free(s->routers[i].prefixes);
    }
    free(s->blocks);
    free(s->seen);
    free(s->workers);
    free(s->routers);
    free(s->scan);
    route_table_destroy(s->table);
}

static void sum_up(const struct sim *s)
{
    uint64_t work = 0, work_most = 0, requests = 0, requests_most = 0;
    for (uint32_t i = 0; i < s->o->workers; i++) {
        const struct worker *w = &s->workers[i];
        work += w->work;
        requests += w->requests;
        work_most = w->work > work_most ? w->work : work_most;
        requests_most = w->requests > requests_most ? w->requests : requests_most;
    }
    double workers = s->o->workers;
    s->result->work_most = (double)work_most * workers / (double)(work != 0 ? work : 1);
    s->result->requests_most = (double)requests_most * workers / (double)requests;
    s->result->busy =
        (double)work / s->o->prefill_tps / workers / ((double)(s->now_ns - NS_PER_S) / 1e9 + 1e-9);
}

int prefix_sim_run(const struct prefix_options *o, const struct trace *trace,
                   struct prefix_result *result)
{
    memset(result, 0, sizeof(*result));
    if (o->workers == 0 || o->workers > PREFIX_WORKERS_MAX || o->routers == 0 ||
        o->routers > PREFIX_ROUTERS_MAX || o->prefill_tps == 0 || o->decode_tps == 0 ||
        !(o->speed > 0) || o->gossip_ns == 0 || trace->count == 0 || trace->block_count == 0) {
        return -EINVAL;
    }
    struct sim s = {.o = o, .trace = trace, .result = result};
    int rc = sim_init(&s);
    for (uint32_t i = 0; rc == 0 && i < trace->count; i++) {
        place(&s, i);
    }
    if (rc == 0) {
        sum_up(&s);
    }
    sim_deinit(&s);
    return rc;
}

const char *prefix_policy_name(enum prefix_policy policy)
{
    static const char *const names[PREFIX_POLICIES] = {
        [PREFIX_TURNS] = "round robin",
        [PREFIX_UNTOLD] = "weft, not told",
        [PREFIX_LONGEST] = "longest prefix",
        [PREFIX_WEFT] = "weft",
    };
    return policy < PREFIX_POLICIES ? names[policy] : "?";
}
