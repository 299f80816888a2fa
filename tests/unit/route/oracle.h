/* SPDX-License-Identifier: Apache-2.0 */
/* oracle.h - the choice of a node by brute force, from the rules as they are documented: for
 * test_choose.c. Shares no code with choose.c, and is not clever. */
#pragma once

#include <math.h>
#include <stdlib.h>

#include "dataplane/route/choose.h"
#include "dataplane/route/table.h"

#define SLOWEST_US(best) (floor((best) + fmax(fmin((best) / 2, 25000), (best) / 4)) + 10000)
#define LAND_BITS        0x00fff000u
#define NODES_MAX        600u /* enough for rows, and for many blocks of the scan */

static struct route_load loads[65536];

static double oracle_km(double lat1, double lon1, double lat2, double lon2)
{
    const double rad = acos(-1.0) / 180.0;
    double a = pow(sin((lat2 - lat1) * rad / 2), 2) +
               cos(lat1 * rad) * cos(lat2 * rad) * pow(sin((lon2 - lon1) * rad / 2), 2);
    return 2 * 6371.0088 * asin(fmin(1.0, sqrt(a)));
}

static long wrap(long a, long b)
{
    long d = labs(a - b);
    return d < 65536 - d ? d : 65536 - d;
}

struct oracle_node {
    struct route_node n;
    double lat, lon;
};

struct oracle_entry {
    long distance;
    long turn; /* among equals */
    uint16_t id;
    double predicted;
    uint32_t assigned;
};

static int oracle_compare(const void *a, const void *b)
{
    const struct oracle_entry *x = a;
    const struct oracle_entry *y = b;
    if (x->distance != y->distance) {
        return x->distance < y->distance ? -1 : 1;
    }
    return x->turn < y->turn ? -1 : 1;
}

/* The turn of a node among equals: its place among the model's nodes alive, spread by the golden
 * ratio, from where the lot says. */
static long oracle_turn(const struct oracle_node *nodes, unsigned count, unsigned i,
                        const struct route_query *q)
{
    unsigned place = 0;
    for (unsigned j = 0; j < count; j++) {
        bool has_model = false;
        for (uint32_t m = 0; m < nodes[j].n.model_count; m++) {
            has_model = has_model || nodes[j].n.models[m] == q->model;
        }
        place += has_model && nodes[j].n.alive && nodes[j].n.id < nodes[i].n.id;
    }
    unsigned long start = (q->lot * 2654435761ul) % 4294967296ul / 262144;
    return (long)((place * 10125ul + start) % 16384);
}

struct oracle_answer {
    int node; /* id, -1 = refused */
    int alt1, alt2;
    unsigned constraint;
};

/* First constraint that the node fails, in the order of wire.def; fills in the entry if none. */
static unsigned oracle_judge(const struct oracle_node *o, const struct oracle_node *self,
                             const struct route_query *q, struct oracle_entry *entry)
{
    bool has_model = false;
    for (uint32_t m = 0; m < o->n.model_count; m++) {
        has_model = has_model || o->n.models[m] == q->model;
    }
    if (!o->n.alive || !has_model) {
        return WEFT_C_MODEL;
    }
    uint16_t x = q->has_position ? q->x : self->n.x;
    uint16_t y = q->has_position ? q->y : self->n.y;
    const struct route_load *over = &loads[o->n.id];
    bool fresher = over->heard_ns != 0 && over->heard_ns >= o->n.load_ns;
    uint32_t room = fresher ? over->room : o->n.room;
    uint32_t assigned = fresher ? over->assigned : 0;
    uint32_t vram = fresher ? over->free_vram_64mib : o->n.free_vram_64mib;
    double queue = fresher ? over->queue_us : o->n.queue_us;
    if ((q->tags & ~o->n.tags & ~LAND_BITS) != 0) {
        return WEFT_C_TAGS;
    }
    if ((q->tags & LAND_BITS) != 0 && (q->tags & LAND_BITS) != (o->n.tags & LAND_BITS)) {
        return WEFT_C_JURISDICTION;
    }
    if (o->n.tier < q->tier_min || o->n.tier > q->tier_max) {
        return WEFT_C_TIER;
    }
    if (q->radius_km != 0 &&
        oracle_km(y / 32767.0 * 180 - 90, x / 65536.0 * 360 - 180, o->lat, o->lon) > q->radius_km) {
        return WEFT_C_RADIUS;
    }
    if (vram < q->vram_64mib) {
        return WEFT_C_VRAM;
    }
    if (room <= assigned) {
        return WEFT_C_ROOM;
    }
    struct route_pace pace = {.prefill_ns = 0};
    for (uint32_t m = o->n.model_count; m-- > 0;) { /* named twice: the first counts */
        pace = o->n.models[m] == q->model ? o->n.paces[m] : pace;
    }
    double prefill_ns =
        pace.prefill_ns != 0 ? pace.prefill_ns : floor(1e9 / o->n.prefill_per_second);
    double decode_ns = pace.decode_ns != 0 ? pace.decode_ns : floor(1e9 / o->n.decode_per_second);
    double tokens = floor(q->prompt_bytes / 4.0) + 1;
    double work_ns = tokens * prefill_ns;
    if (q->end_to_end) {
        work_ns += q->max_tokens * decode_ns;
    }
    double predicted = o->n.rtt_us + queue + floor(work_ns / 1000);
    if (predicted > q->budget_us) {
        return WEFT_C_BUDGET;
    }
    *entry = (struct oracle_entry){
        .distance = wrap(x, o->n.x) + wrap(y, o->n.y) + 1638 * labs((long)o->n.tier - q->tier_min),
        .id = o->n.id,
        .predicted = predicted,
        .assigned = assigned,
    };
    return WEFT_C_NONE;
}

/* Which filter is the later one: their numbers say so, but for one that came when those had been
 * given away, and stands behind the tags. */
static bool oracle_later(unsigned a, unsigned b)
{
    double x = a == WEFT_C_JURISDICTION ? WEFT_C_TAGS + 0.5 : a;
    double y = b == WEFT_C_JURISDICTION ? WEFT_C_TAGS + 0.5 : b;
    return x > y;
}

static bool oracle_avoids(const struct route_query *q, uint16_t id)
{
    for (unsigned i = 0; i < q->avoid_count; i++) {
        if (q->avoid[i] == id) {
            return true;
        }
    }
    return false;
}

/* Of those not to be avoided if `picky`, else of all. */
static struct oracle_answer oracle_among(const struct oracle_node *nodes, unsigned count,
                                         unsigned self, const struct route_query *q, bool picky)
{
    struct oracle_entry entries[NODES_MAX];
    unsigned used = 0;
    struct oracle_answer answer = {.node = -1, .alt1 = -1, .alt2 = -1, .constraint = WEFT_C_MODEL};
    for (unsigned i = 0; i < count; i++) {
        unsigned why = oracle_judge(&nodes[i], &nodes[self], q, &entries[used]);
        entries[used].turn = why == WEFT_C_NONE ? oracle_turn(nodes, count, i, q) : 0;
        used += why == WEFT_C_NONE && !(picky && oracle_avoids(q, nodes[i].n.id));
        answer.constraint = oracle_later(why, answer.constraint) ? why : answer.constraint;
    }
    if (used == 0) {
        return answer;
    }
    answer.constraint = WEFT_C_NONE;
    qsort(entries, used, sizeof(entries[0]), oracle_compare);
    used = used > 8 ? 8 : used;
    double best = entries[0].predicted;
    unsigned chosen = 0;
    for (unsigned i = 1; i < used; i++) {
        best = fmin(best, entries[i].predicted);
    }
    while (entries[chosen].predicted > SLOWEST_US(best)) {
        chosen++;
    }
    /* Near-equals: draw two of them by lot, take the sooner, then the one sent less. */
    unsigned equals[8];
    unsigned number = 0;
    for (unsigned i = chosen; i < used; i++) {
        if (entries[i].distance - entries[chosen].distance <= 32 &&
            entries[i].predicted <= SLOWEST_US(best)) {
            equals[number++] = i;
        }
    }
    if (number > 1) {
        unsigned a = (unsigned)floor((q->lot % 65536) / 65536.0 * number);
        unsigned b = (unsigned)floor(floor(q->lot / 65536.0) / 65536.0 * (number - 1));
        b += b >= a;
        a = equals[a];
        b = equals[b];
        bool other = entries[b].predicted < entries[a].predicted ||
                     (entries[b].predicted <= entries[a].predicted &&
                      entries[b].assigned < entries[a].assigned);
        chosen = other ? b : a;
    }
    answer.node = entries[chosen].id;
    for (unsigned i = 0; i < used; i++) {
        if (i != chosen && answer.alt1 < 0) {
            answer.alt1 = entries[i].id;
        } else if (i != chosen && answer.alt2 < 0) {
            answer.alt2 = entries[i].id;
        }
    }
    return answer;
}

static struct oracle_answer oracle(const struct oracle_node *nodes, unsigned count, unsigned self,
                                   const struct route_query *q)
{
    struct oracle_answer answer = oracle_among(nodes, count, self, q, true);
    return answer.node >= 0 ? answer : oracle_among(nodes, count, self, q, false);
}
