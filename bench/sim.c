/* SPDX-License-Identifier: Apache-2.0 */
/* sim.c - see sim.h. */
#include "bench/sim.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/rng.h"
#include "tests/unit/route/fixture.h"

#define NONE        UINT32_MAX
#define BACK_OFF_NS UINT64_C(100000000) /* of a refused client that was told no time */
#define FIRST_ID    2u                  /* worker i has node id FIRST_ID + i; 1 is the router */
#define RTT_HOPS    2u

enum event_type {
    EVENT_ARRIVE, /* of a request at its router */
    EVENT_REACH,  /* at a worker */
    EVENT_LEAVE,  /* the worker has finished it */
    EVENT_HEAR,   /* a datagram of the worker's has reached the router */
    EVENT_GOSSIP, /* of a worker */
};

struct event {
    uint64_t at_ns;
    uint64_t order; /* equal times: first made, first run */
    enum event_type type;
    uint32_t request;
    uint32_t node;
    uint32_t in_system; /* HEAR: of the node when it spoke */
    bool last;          /* HEAR: the request is done */
};

struct request {
    uint64_t arrived_ns;
    uint64_t service_ns;
    uint32_t router;
    uint32_t next; /* in a queue */
    uint16_t alternates[ROUTE_ALTERNATES];
};

struct queue {
    uint32_t first, last;
};

struct node {
    uint32_t in_system;
    struct queue waiting;
    uint32_t told; /* in_system as gossiped last */
};

struct router {
    uint32_t turn;
    uint32_t *own; /* its requests at each node */
    struct queue held;
    struct route_load *loads;
};

struct sim {
    const struct sim_options *o;
    struct sim_result *result;
    struct rng rng; /* of decisions; arrivals have their own, the same for all policies */
    struct event *heap;
    size_t heap_count, heap_max;
    uint64_t made;
    uint64_t now_ns;
    struct request *requests;
    struct node *nodes;
    struct router *routers;
    struct route_table *table;
    struct scan *scan;
    uint32_t done;
    bool broken; /* out of memory */
};

/* ---- events ---- */

static bool before(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->order < b->order;
}

static void push(struct sim *s, struct event event)
{
    if (s->heap_count == s->heap_max) {
        size_t max = s->heap_max == 0 ? 1024 : 2 * s->heap_max;
        struct event *heap = realloc(s->heap, max * sizeof(*heap));
        if (heap == NULL) {
            s->broken = true;
            return;
        }
        s->heap = heap;
        s->heap_max = max;
    }
    event.order = s->made++;
    size_t at = s->heap_count++;
    while (at != 0 && before(&event, &s->heap[(at - 1) / 2])) {
        s->heap[at] = s->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    s->heap[at] = event;
}

static struct event pop(struct sim *s)
{
    struct event top = s->heap[0];
    struct event moved = s->heap[--s->heap_count];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= s->heap_count) {
            break;
        }
        if (child + 1 < s->heap_count && before(&s->heap[child + 1], &s->heap[child])) {
            child++;
        }
        if (before(&moved, &s->heap[child])) {
            break;
        }
        s->heap[at] = s->heap[child];
        at = child;
    }
    s->heap[at] = moved;
    return top;
}

static void queue_put(struct sim *s, struct queue *q, uint32_t request)
{
    s->requests[request].next = NONE;
    if (q->first == NONE) {
        q->first = request;
    } else {
        s->requests[q->last].next = request;
    }
    q->last = request;
}

static uint32_t queue_take(struct sim *s, struct queue *q)
{
    uint32_t request = q->first;
    if (request != NONE) {
        q->first = s->requests[request].next;
    }
    return request;
}

/* ---- what a worker says of itself ---- */

static uint32_t room_of(const struct sim *s, uint32_t in_system)
{
    uint32_t all = s->o->slots + s->o->queue_max;
    return in_system < all ? all - in_system : 0;
}

static uint32_t wait_us(const struct sim *s, uint32_t in_system)
{
    if (in_system < s->o->slots) {
        return 0;
    }
    return (uint32_t)((in_system - s->o->slots + 1) * s->o->service_ns / s->o->slots / 1000);
}

/* ---- policies: each returns a node, or NONE ---- */

/* The least by `told` among `draws` nodes at random, or among all of them. */
static uint32_t shortest(struct sim *s, uint32_t draws)
{
    uint32_t best = NONE, equals = 0;
    bool all = draws == s->o->nodes;
    for (uint32_t i = 0; i < draws; i++) {
        uint32_t node = all ? i : rng_below(&s->rng, s->o->nodes);
        const struct node *n = &s->nodes[node];
        uint32_t queue = s->o->staleness_ns == 0 ? n->in_system : n->told;
        uint32_t least = best == NONE              ? NONE
                         : s->o->staleness_ns == 0 ? s->nodes[best].in_system
                                                   : s->nodes[best].told;
        if (best == NONE || queue < least) {
            best = node;
            equals = 1;
        } else if (queue == least && rng_below(&s->rng, ++equals) == 0) {
            best = node;
        }
    }
    return best;
}

static uint32_t jbsq_bound(const struct sim_options *o)
{
    return (o->slots + 1 + o->routers - 1) / o->routers;
}

static uint32_t least_own(struct sim *s, const struct router *r)
{
    uint32_t best = NONE, equals = 0;
    for (uint32_t i = 0; i < s->o->nodes; i++) {
        if (r->own[i] >= jbsq_bound(s->o)) {
            continue;
        }
        if (best == NONE || r->own[i] < r->own[best]) {
            best = i;
            equals = 1;
        } else if (r->own[i] == r->own[best] && rng_below(&s->rng, ++equals) == 0) {
            best = i;
        }
    }
    return best;
}

/* The table is this simulation's own: its loads follow the gossip. */
static void tell_table(struct sim *s, uint32_t node)
{
    uint16_t index = route_table_find(s->table, (uint16_t)(FIRST_ID + node));
    struct route_node *n = (struct route_node *)&s->table->nodes[index];
    n->load_ns = s->now_ns + 1;
    n->room = (uint16_t)room_of(s, s->nodes[node].in_system);
    n->queue_us = wait_us(s, s->nodes[node].in_system);
    s->table->generation++; /* what was compared with it is to be compared again */
}

static uint32_t weft(struct sim *s, struct router *r, struct request *request, uint64_t *retry_ns)
{
    struct route_query query = {
        .model = MODEL_A,
        .budget_us = WEFT_BUDGET_NONE,
        .prompt_bytes = 1,
        .tier_max = WEFT_TIER_MAX,
        .lot = (uint32_t)rng_next(&s->rng),
    };
    struct route_choice choice;
    for (uint32_t i = 0; s->o->staleness_ns == 0 && i < s->o->nodes; i++) {
        tell_table(s, i);
    }
    route_choose(s->table, r->loads, s->scan, &query, &choice);
    if (choice.node == ROUTE_INDEX_NONE) {
        *retry_ns = choice.retry_after_us * UINT64_C(1000);
        return NONE;
    }
    const struct route_node *node = &s->table->nodes[choice.node];
    /* As stages.c counts what it has sent. */
    route_load_assign(&r->loads[node->id], node);
    for (uint32_t i = 0; i < ROUTE_ALTERNATES; i++) {
        uint16_t index = choice.alternates[i];
        request->alternates[i] =
            index == ROUTE_INDEX_NONE ? WEFT_NODE_NONE : s->table->nodes[index].id;
    }
    return node->id - FIRST_ID;
}

static uint32_t choose(struct sim *s, struct router *r, struct request *request, uint64_t *retry_ns)
{
    switch (s->o->policy) {
    case SIM_RANDOM:
        return rng_below(&s->rng, s->o->nodes);
    case SIM_ROUND_ROBIN:
        return r->turn++ % s->o->nodes;
    case SIM_JBSQ:
        return least_own(s, r);
    case SIM_SHORTEST:
        return shortest(s, s->o->nodes);
    case SIM_TWO:
        return shortest(s, 2);
    default:
        return weft(s, r, request, retry_ns);
    }
}

/* ---- what happens ---- */

static void place(struct sim *s, uint32_t index)
{
    struct request *request = &s->requests[index];
    struct router *r = &s->routers[request->router];
    uint64_t retry_ns = 0;
    uint32_t node = choose(s, r, request, &retry_ns);
    if (node != NONE) {
        r->own[node]++;
        push(s, (struct event){s->now_ns + s->o->hop_ns, 0, EVENT_REACH, index, node, 0, false});
    } else if (s->o->policy == SIM_JBSQ) {
        queue_put(s, &r->held, index);
    } else {
        s->result->refused++;
        retry_ns = retry_ns != 0 ? retry_ns : BACK_OFF_NS;
        push(s, (struct event){s->now_ns + retry_ns, 0, EVENT_ARRIVE, index, 0, 0, false});
    }
}

static void serve(struct sim *s, uint32_t node, uint32_t index)
{
    uint64_t end_ns = s->now_ns + s->requests[index].service_ns;
    push(s, (struct event){end_ns, 0, EVENT_LEAVE, index, node, 0, false});
}

static void speak(struct sim *s, uint32_t node, uint32_t index, bool last)
{
    push(s, (struct event){s->now_ns + s->o->hop_ns, 0, EVENT_HEAR, index, node,
                           s->nodes[node].in_system, last});
}

/* A full worker passes it to the next alternate, the last one refuses. */
static void pass_on(struct sim *s, uint32_t index)
{
    struct request *request = &s->requests[index];
    uint16_t next = request->alternates[0];
    request->alternates[0] = request->alternates[1];
    request->alternates[1] = WEFT_NODE_NONE;
    if (next != WEFT_NODE_NONE) {
        s->result->second_chance++;
        push(s, (struct event){s->now_ns + s->o->hop_ns, 0, EVENT_REACH, index,
                               (uint32_t)next - FIRST_ID, 0, false});
        return;
    }
    s->result->refused++;
    push(s, (struct event){s->now_ns + s->o->hop_ns + BACK_OFF_NS, 0, EVENT_ARRIVE, index, 0, 0,
                           false});
}

static void reach(struct sim *s, uint32_t node, uint32_t index)
{
    struct node *n = &s->nodes[node];
    if (s->o->policy == SIM_WEFT && room_of(s, n->in_system) == 0) {
        pass_on(s, index);
        return;
    }
    n->in_system++;
    if (n->in_system <= s->o->slots) {
        serve(s, node, index);
    } else {
        queue_put(s, &n->waiting, index);
    }
    speak(s, node, index, false);
}

static void leave(struct sim *s, uint32_t node, uint32_t index)
{
    struct node *n = &s->nodes[node];
    n->in_system--;
    uint32_t next = queue_take(s, &n->waiting);
    if (next != NONE) {
        serve(s, node, next);
    }
    speak(s, node, index, true);
}

static void hear(struct sim *s, const struct event *e)
{
    struct request *request = &s->requests[e->request];
    struct router *r = &s->routers[request->router];
    r->loads[FIRST_ID + e->node] = (struct route_load){
        .heard_ns = s->now_ns + 1,
        .queue_us = wait_us(s, e->in_system),
        .room = (uint16_t)room_of(s, e->in_system),
        .free_vram_64mib = UINT16_MAX,
    };
    if (!e->last) {
        return;
    }
    r->own[e->node]--;
    s->done++;
    if (e->request >= s->o->requests / 10) {
        hist_add(&s->result->us, (s->now_ns - request->arrived_ns) / 1000);
    }
    uint32_t held = queue_take(s, &r->held);
    if (held != NONE) {
        place(s, held);
    }
}

static void gossip(struct sim *s, uint32_t node)
{
    s->nodes[node].told = s->nodes[node].in_system;
    tell_table(s, node);
    push(s, (struct event){s->now_ns + s->o->staleness_ns, 0, EVENT_GOSSIP, NONE, node, 0, false});
}

static void run_event(struct sim *s, const struct event *e)
{
    s->now_ns = e->at_ns;
    switch (e->type) {
    case EVENT_ARRIVE:
        place(s, e->request);
        break;
    case EVENT_REACH:
        reach(s, e->node, e->request);
        break;
    case EVENT_LEAVE:
        leave(s, e->node, e->request);
        break;
    case EVENT_HEAR:
        hear(s, e);
        break;
    case EVENT_GOSSIP:
        gossip(s, e->node);
        break;
    }
}

/* ---- setting up ---- */

static double exponential(struct rng *rng)
{
    return -log(1.0 - rng_unit(rng));
}

/* Of mean 1. Box and Muller's normal variate makes the lognormal one. */
static double service(struct rng *rng, enum sim_service kind)
{
    if (kind == SIM_EXPONENTIAL) {
        return exponential(rng);
    }
    double radius = sqrt(2 * exponential(rng));
    double normal = radius * cos(2 * M_PI * rng_unit(rng));
    return exp(SIM_HEAVY_SIGMA * normal - SIM_HEAVY_SIGMA * SIM_HEAVY_SIGMA / 2);
}

static void draw_requests(struct sim *s)
{
    const struct sim_options *o = s->o;
    struct rng rng = {.state = o->seed};
    double gap_ns = (double)o->service_ns / (o->load * o->nodes * o->slots);
    double at_ns = 0;
    for (uint32_t i = 0; i < o->requests; i++) {
        at_ns += gap_ns * exponential(&rng);
        s->requests[i] = (struct request){
            .arrived_ns = (uint64_t)at_ns,
            .service_ns = (uint64_t)(service(&rng, o->service) * (double)o->service_ns),
            .router = rng_below(&rng, o->routers),
        };
        push(s, (struct event){(uint64_t)at_ns, 0, EVENT_ARRIVE, i, 0, 0, false});
    }
    for (uint32_t i = 0; o->staleness_ns != 0 && i < o->nodes; i++) {
        uint64_t phase_ns = (uint64_t)(rng_unit(&rng) * (double)o->staleness_ns);
        push(s, (struct event){phase_ns, 0, EVENT_GOSSIP, NONE, i, 0, false});
    }
}

static struct route_table *make_table(const struct sim *s)
{
    struct route_node *nodes = calloc(s->o->nodes + 1, sizeof(*nodes));
    struct route_table *table = NULL;
    for (uint32_t i = 0; nodes != NULL && i <= s->o->nodes; i++) {
        nodes[i] = fixture_node((uint16_t)(i + 1), 50.11, 8.68, 3);
        nodes[i].rtt_us = i == 0 ? 0 : (uint32_t)(RTT_HOPS * s->o->hop_ns / 1000);
        nodes[i].room = (uint16_t)room_of(s, 0);
    }
    if (nodes != NULL) {
        (void)route_table_create(&table, nodes, s->o->nodes + 1, 1, 1, false);
    }
    free(nodes);
    return table;
}

static int sim_init(struct sim *s)
{
    const struct sim_options *o = s->o;
    s->rng.state = o->seed ^ UINT64_C(0x5eed);
    s->requests = calloc(o->requests, sizeof(*s->requests));
    s->nodes = calloc(o->nodes, sizeof(*s->nodes));
    s->routers = calloc(o->routers, sizeof(*s->routers));
    s->scan = aligned_alloc(64, sizeof(*s->scan));
    s->table = make_table(s);
    if (s->requests == NULL || s->nodes == NULL || s->routers == NULL || s->scan == NULL ||
        s->table == NULL) {
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < o->nodes; i++) {
        s->nodes[i].waiting.first = NONE;
    }
    for (uint32_t i = 0; i < o->routers; i++) {
        s->routers[i].held.first = NONE;
        s->routers[i].turn = i * o->nodes / o->routers;
        s->routers[i].own = calloc(o->nodes, sizeof(uint32_t));
        s->routers[i].loads = calloc(o->nodes + FIRST_ID, sizeof(struct route_load));
        if (s->routers[i].own == NULL || s->routers[i].loads == NULL) {
            return -ENOMEM;
        }
    }
    draw_requests(s);
    return s->broken ? -ENOMEM : 0;
}

static void sim_deinit(struct sim *s)
{
    for (uint32_t i = 0; s->routers != NULL && i < s->o->routers; i++) {
        free(s->routers[i].own);
        free(s->routers[i].loads);
    }
    free(s->heap);
    free(s->requests);
    free(s->nodes);
    free(s->routers);
    free(s->scan);
    route_table_destroy(s->table);
}

int sim_run(const struct sim_options *o, struct sim_result *result)
{
    memset(result, 0, sizeof(*result));
    if (o->nodes == 0 || o->nodes > 1000 || o->slots == 0 || o->routers == 0 || o->requests == 0 ||
        o->load <= 0 || o->load >= 1 || o->policy >= SIM_POLICIES || o->service_ns == 0) {
        return -EINVAL;
    }
    struct sim s = {.o = o, .result = result};
    int rc = sim_init(&s);
    while (rc == 0 && s.done < o->requests && !s.broken) {
        struct event event = pop(&s);
        run_event(&s, &event);
    }
    rc = s.broken ? -ENOMEM : rc;
    sim_deinit(&s);
    return rc;
}

bool sim_policy_listens(enum sim_policy policy)
{
    return policy >= SIM_SHORTEST;
}

const char *sim_policy_name(enum sim_policy policy)
{
    static const char *const names[SIM_POLICIES] = {
        [SIM_RANDOM] = "random",           [SIM_ROUND_ROBIN] = "round robin", [SIM_JBSQ] = "JBSQ",
        [SIM_SHORTEST] = "shortest queue", [SIM_TWO] = "two choices",         [SIM_WEFT] = "weft",
    };
    return policy < SIM_POLICIES ? names[policy] : "?";
}

const char *sim_service_name(enum sim_service kind)
{
    return kind == SIM_EXPONENTIAL ? "exponential" : "heavy-tailed";
}
