/* SPDX-License-Identifier: Apache-2.0 */
/* dht.c - see dht.h. */
#include "bench/mesh/dht.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define NONE      UINT32_MAX
#define SHORTLIST 256u
#define FLIGHT    64u

static uint64_t hash(uint64_t value)
{
    struct rng rng = {.state = value * 2 + 1};
    return rng_next(&rng);
}

uint64_t dht_key(uint32_t tile)
{
    return hash((UINT64_C(1) << 40) + tile);
}

struct pair {
    uint64_t id;
    uint32_t node;
};

static int by_id(const void *a, const void *b)
{
    const struct pair *x = a;
    const struct pair *y = b;
    return (x->id > y->id) - (x->id < y->id);
}

/* The first place whose id is at least `id`. */
static uint32_t place_of(const struct dht *d, uint64_t id)
{
    uint32_t lo = 0;
    uint32_t hi = d->count;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (d->ids[mid] < id) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

static uint64_t way_ns(const struct dht *d, uint32_t a, uint32_t b)
{
    return delay_ns(&d->world->delay, a, b);
}

/* What zones wait for a peer they have not measured (zones/peers.h). */
static uint64_t rto_ns(const struct dht *d, uint32_t from, uint32_t to)
{
    struct zone_peers peers;
    memset(&peers, 0, sizeof(peers));
    peers.x = d->world->truth[from].x;
    peers.y = d->world->truth[from].y;
    struct zone_contact contact = zone_contact_of(&d->world->truth[to]);
    return (uint64_t)zone_peers_rto_us(&peers, &contact) * NS_PER_US;
}

static bool lost(struct dht *d)
{
    return d->loss > 0 && rng_unit(&d->rng) < d->loss;
}

/* Picks `want` places from first..first+count, live ones if `alive` is given: drawn, or the nearest
 * of a sample. */
static void choose(struct dht *d, const bool *alive, uint32_t owner, uint32_t first, uint32_t count,
                   uint32_t *out, uint32_t want)
{
    uint64_t away[DHT_PNS_SAMPLE];
    uint32_t sample[DHT_PNS_SAMPLE];
    uint32_t size = d->pns ? DHT_PNS_SAMPLE : want;
    uint32_t have = 0;
    size = count < size ? count : size;
    for (uint32_t i = 0; i < size; i++) {
        /* One of each slice: drawn without repetition. */
        uint32_t lo = (uint32_t)((uint64_t)count * i / size);
        uint32_t hi = (uint32_t)((uint64_t)count * (i + 1) / size);
        uint32_t place = first + lo + rng_below(&d->rng, hi - lo);
        while (alive != NULL && place < first + hi && !alive[d->nodes[place]]) {
            place++;
        }
        if (place == first + hi) {
            continue;
        }
        uint64_t ns = d->pns ? way_ns(d, owner, d->nodes[place]) : i;
        uint32_t at = have++;
        for (; at > 0 && away[at - 1] > ns; at--) {
            away[at] = away[at - 1];
            sample[at] = sample[at - 1];
        }
        away[at] = ns;
        sample[at] = place;
    }
    for (uint32_t i = 0; i < want; i++) {
        out[i] = i < have ? sample[i] : NONE;
    }
}

static void kademlia_row(struct dht *d, const bool *alive, uint32_t place, uint32_t b)
{
    uint64_t bit = UINT64_C(1) << (63 - b);
    uint64_t lo = (d->ids[place] ^ bit) & ~(bit - 1);
    uint32_t first = place_of(d, lo);
    uint32_t end = lo + bit == 0 ? d->count : place_of(d, lo + bit);
    choose(d, alive, d->nodes[place], first, end - first,
           &d->table[((size_t)place * DHT_BUCKETS + b) * DHT_K], DHT_K);
}

/* Finger i: somebody from 2^i to 2^(i+1) ahead; plain Chord: the first of them. */
static void chord_row(struct dht *d, const bool *alive, uint32_t place, uint32_t b)
{
    uint64_t from = d->ids[place] + (UINT64_C(1) << (63 - b));
    uint32_t first = place_of(d, from) % d->count;
    uint32_t end = place_of(d, from + (UINT64_C(1) << (63 - b))) % d->count;
    uint32_t count = (end + d->count - first) % d->count;
    uint32_t *out = &d->finger[(size_t)place * DHT_BUCKETS + b];
    *out = first;
    for (uint32_t i = 1; i < d->count && alive != NULL && !alive[d->nodes[*out]]; i++) {
        *out = (first + i) % d->count;
    }
    if (d->pns && count > 1 && first + count <= d->count) {
        uint32_t near;
        choose(d, alive, d->nodes[place], first, count, &near, 1);
        *out = near != NONE ? near : *out;
    }
}

static void row_make(struct dht *d, const bool *alive, uint32_t place, uint32_t b)
{
    if (d->finger != NULL) {
        chord_row(d, alive, place, b);
    } else {
        kademlia_row(d, alive, place, b);
    }
}

/* When in the round that goes through all its rows a node comes to one, 0..1; row DHT_BUCKETS: its
 * successors. */
static double turn_of(uint32_t place, uint32_t row)
{
    return (double)(hash(((uint64_t)place << 8 | row) ^ 0x7e11) >> 11) * 0x1p-53;
}

void dht_mend(struct dht *d, const bool *alive, double share)
{
    for (uint32_t place = 0; place < d->count; place++) {
        for (uint32_t b = 0; b < DHT_BUCKETS; b++) {
            double turn = turn_of(place, b);
            if (turn >= d->mended && turn < share) {
                row_make(d, alive, place, b);
            }
        }
    }
    d->mended = share > d->mended ? share : d->mended;
}

int dht_create(struct dht *d, const struct world *w, bool chord, bool pns, uint64_t seed)
{
    uint32_t n = w->options.nodes;
    struct pair *pairs = malloc(n * sizeof(*pairs));
    *d = (struct dht){
        .world = w, .count = n, .pns = pns, .loss = w->options.loss, .rng = {.state = seed}};
    d->ids = malloc(n * sizeof(*d->ids));
    d->nodes = malloc(n * sizeof(*d->nodes));
    d->places = malloc(n * sizeof(*d->places));
    d->table = chord ? NULL : malloc((size_t)n * DHT_BUCKETS * DHT_K * sizeof(*d->table));
    d->finger = chord ? malloc((size_t)n * DHT_BUCKETS * sizeof(*d->finger)) : NULL;
    if (pairs == NULL || d->ids == NULL || d->nodes == NULL || d->places == NULL ||
        (d->table == NULL && d->finger == NULL)) {
        free(pairs);
        return -ENOMEM;
    }
    for (uint32_t i = 0; i < n; i++) {
        pairs[i] = (struct pair){hash(i + seed * 77), i};
    }
    qsort(pairs, n, sizeof(*pairs), by_id);
    for (uint32_t i = 0; i < n; i++) {
        d->ids[i] = pairs[i].id;
        d->nodes[i] = pairs[i].node;
        d->places[pairs[i].node] = i;
    }
    free(pairs);
    for (uint32_t i = 0; i < n; i++) {
        for (uint32_t b = 0; b < DHT_BUCKETS; b++) {
            row_make(d, NULL, i, b);
        }
    }
    return 0;
}

void dht_destroy(struct dht *d)
{
    free(d->ids);
    free(d->nodes);
    free(d->places);
    free(d->table);
    free(d->finger);
}

/* ---- Kademlia ---- */

struct lead {
    uint64_t away; /* id xor key */
    uint32_t place;
    uint8_t hops;
    bool asked;
};

struct flight {
    uint64_t at_ns;
    uint32_t place;
    uint32_t hops;
    bool answer; /* else a time-out */
};

struct kademlia {
    struct dht *d;
    const bool *alive;
    uint32_t asker;
    uint64_t key;
    uint64_t holds; /* whoever is as near as this has the value */
    uint64_t now_ns;
    struct lead leads[SHORTLIST];
    uint32_t lead_count;
    struct flight flights[FLIGHT];
    uint32_t flight_count;
    struct dht_lookup result;
};

static void lead_add(struct kademlia *k, uint32_t place, uint32_t hops)
{
    uint64_t away = k->d->ids[place] ^ k->key;
    uint32_t at = k->lead_count;
    for (uint32_t i = 0; i < k->lead_count; i++) {
        if (k->leads[i].place == place) {
            return;
        }
    }
    if (k->lead_count == SHORTLIST) {
        if (k->leads[--at].away < away) {
            return;
        }
    } else {
        k->lead_count++;
    }
    for (; at > 0 && k->leads[at - 1].away > away; at--) {
        k->leads[at] = k->leads[at - 1];
    }
    k->leads[at] = (struct lead){.away = away, .place = place, .hops = (uint8_t)hops};
}

/* The DHT_K that a node knows nearest to the key: its bucket of the key, then deeper ones. */
static void leads_of(struct kademlia *k, uint32_t place, uint32_t hops)
{
    uint64_t differ = k->d->ids[place] ^ k->key;
    uint32_t bucket = differ == 0 ? DHT_BUCKETS - 1 : (uint32_t)__builtin_clzll(differ);
    uint32_t given = 0;
    bucket = bucket < DHT_BUCKETS ? bucket : DHT_BUCKETS - 1;
    for (uint32_t b = bucket; b < DHT_BUCKETS && given < DHT_K; b++) {
        const uint32_t *row = &k->d->table[((size_t)place * DHT_BUCKETS + b) * DHT_K];
        for (uint32_t i = 0; i < DHT_K && row[i] != NONE && given < DHT_K; i++, given++) {
            lead_add(k, row[i], hops);
        }
    }
    for (uint32_t b = bucket; b > 0 && given < DHT_K; b--) {
        const uint32_t *row = &k->d->table[((size_t)place * DHT_BUCKETS + b - 1) * DHT_K];
        for (uint32_t i = 0; i < DHT_K && row[i] != NONE && given < DHT_K; i++, given++) {
            lead_add(k, row[i], hops);
        }
    }
}

static void ask(struct kademlia *k, struct lead *lead)
{
    uint32_t node = k->d->nodes[lead->place];
    bool comes = k->alive[node] && !lost(k->d) && !lost(k->d);
    uint64_t rtt = 2 * way_ns(k->d, k->asker, node);
    uint64_t rto = rto_ns(k->d, k->asker, node);
    lead->asked = true;
    k->result.messages++;
    k->flights[k->flight_count++] = (struct flight){
        .at_ns = k->now_ns + (comes ? rtt : rto),
        .place = lead->place,
        .hops = lead->hops + 1u,
        .answer = comes,
    };
}

/* Sends up to alpha questions at a time, nearest leads first. */
static void ask_more(struct kademlia *k, uint32_t alpha)
{
    for (uint32_t i = 0; i < k->lead_count && k->flight_count < alpha; i++) {
        if (!k->leads[i].asked) {
            ask(k, &k->leads[i]);
        }
    }
}

/* Distance of the DHT_K-th nearest machine to the key: those hold its value. */
static uint64_t holders_reach(const struct dht *d, uint64_t key)
{
    uint64_t best[DHT_K];
    uint32_t have = 0;
    uint32_t at = place_of(d, key);
    uint32_t lo = at > 4 * DHT_K ? at - 4 * DHT_K : 0;
    uint32_t hi = at + 4 * DHT_K < d->count ? at + 4 * DHT_K : d->count;
    for (uint32_t i = lo; i < hi; i++) {
        uint64_t away = d->ids[i] ^ key;
        uint32_t j = have < DHT_K ? have++ : DHT_K;
        for (; j > 0 && best[j - 1] > away; j--) {
            if (j < DHT_K) {
                best[j] = best[j - 1];
            }
        }
        if (j < DHT_K) {
            best[j] = away;
        }
    }
    return best[have - 1];
}

struct dht_lookup dht_kademlia(struct dht *d, const bool *alive, uint32_t asker, uint64_t key,
                               uint32_t alpha, uint64_t budget_ns)
{
    static struct kademlia k;
    k = (struct kademlia){.d = d, .alive = alive, .asker = asker, .key = key};
    k.holds = holders_reach(d, key);
    if ((d->ids[d->places[asker]] ^ key) <= k.holds) {
        k.result.found = true;
        return k.result;
    }
    leads_of(&k, d->places[asker], 0);
    ask_more(&k, alpha);
    while (k.flight_count > 0) {
        uint32_t next = 0;
        for (uint32_t i = 1; i < k.flight_count; i++) {
            next = k.flights[i].at_ns < k.flights[next].at_ns ? i : next;
        }
        struct flight f = k.flights[next];
        k.flights[next] = k.flights[--k.flight_count];
        k.now_ns = f.at_ns;
        if (k.now_ns > budget_ns) {
            break;
        }
        if (f.answer && (d->ids[f.place] ^ key) <= k.holds) {
            k.result.found = true;
            k.result.hops = f.hops;
            k.result.took_ns = k.now_ns;
            return k.result;
        }
        if (f.answer) {
            leads_of(&k, f.place, f.hops);
        }
        ask_more(&k, alpha);
    }
    k.result.took_ns = budget_ns;
    return k.result;
}

/* ---- Chord ---- */

/* One step of a message, with time-outs over the candidates; false: none of them takes it. */
static bool chord_step(struct dht *d, const bool *alive, uint32_t *at, const uint32_t *candidates,
                       uint32_t count, struct dht_lookup *result)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t from = d->nodes[*at];
        uint32_t to = d->nodes[candidates[i]];
        result->messages++;
        if (alive[to] && !lost(d)) {
            result->took_ns += way_ns(d, from, to);
            result->hops++;
            *at = candidates[i];
            return true;
        }
        result->took_ns += rto_ns(d, from, to);
    }
    return false;
}

/* Has the node at `at` taken this one out of its list of successors? */
static bool successor_known_dead(const struct dht *d, const bool *alive, uint32_t at,
                                 uint32_t which)
{
    return !alive[d->nodes[which]] && turn_of(at, DHT_BUCKETS) < d->mended;
}

/* Candidates for the next step from `at`: fingers before the key, the farthest first; then the
 * successors before it. Returns how many. */
static uint32_t chord_candidates(const struct dht *d, const bool *alive, uint32_t at, uint64_t key,
                                 uint32_t *out)
{
    uint64_t left = key - d->ids[at];
    uint32_t count = 0;
    for (uint32_t b = 0; b < DHT_BUCKETS; b++) {
        uint32_t f = d->finger[(size_t)at * DHT_BUCKETS + b];
        uint64_t far = d->ids[f] - d->ids[at];
        if (f != at && far < left && (count == 0 || out[count - 1] != f)) {
            out[count++] = f;
        }
    }
    for (uint32_t i = DHT_SUCCESSORS; i > 0; i--) {
        uint32_t s = (at + i) % d->count;
        if (s != at && d->ids[s] - d->ids[at] < left && !successor_known_dead(d, alive, at, s)) {
            out[count++] = s;
        }
    }
    return count;
}

struct dht_lookup dht_chord(struct dht *d, const bool *alive, uint32_t asker, uint64_t key,
                            uint64_t budget_ns)
{
    struct dht_lookup r = {.found = false};
    uint32_t candidates[DHT_BUCKETS + DHT_SUCCESSORS];
    uint32_t at = d->places[asker];
    uint32_t owner = place_of(d, key) % d->count;
    bool arrived = false;
    while (!arrived && r.took_ns <= budget_ns) {
        uint32_t behind = (owner + d->count - at - 1) % d->count;
        if (behind < DHT_SUCCESSORS) { /* the owner and its replicas are among the successors */
            uint32_t holders = 0;
            for (uint32_t i = 0; i < DHT_HOLDERS; i++) {
                candidates[holders] = (owner + i) % d->count;
                holders += successor_known_dead(d, alive, at, candidates[holders]) ? 0 : 1;
            }
            arrived = chord_step(d, alive, &at, candidates, holders, &r);
            break;
        }
        uint32_t count = chord_candidates(d, alive, at, key, candidates);
        if (!chord_step(d, alive, &at, candidates, count, &r)) {
            break;
        }
    }
    if (arrived) {
        r.took_ns += way_ns(d, d->nodes[at], asker);
        if (lost(d)) { /* the answer: all of it again */
            r.took_ns += r.took_ns + rto_ns(d, asker, d->nodes[at]);
        }
    }
    r.found = arrived && r.took_ns <= budget_ns;
    r.took_ns = r.found ? r.took_ns : budget_ns;
    return r;
}
