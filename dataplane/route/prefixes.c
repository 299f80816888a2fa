/* SPDX-License-Identifier: Apache-2.0 */
/* prefixes.c - see prefixes.h. */
#include "dataplane/route/prefixes.h"

#define TIME_BITS 30u /* of nanoseconds in a unit of a word's time */

static uint64_t hash_of(uint64_t prefix, uint32_t levels)
{
    uint64_t hash = (prefix & prefix_mask(levels)) * UINT64_C(0x9e3779b97f4a7c15);
    return (hash ^ hash >> 32) * UINT64_C(0xd6e8feb86659fd93);
}

static inline uint32_t set_of(uint64_t hash)
{
    return hash >> 20 & (PREFIXES_SETS - 1);
}

static inline uint64_t word_of(uint64_t hash, uint16_t node, uint64_t now_ns)
{
    uint64_t time = now_ns >> TIME_BITS & 0xffff;
    return (hash | UINT64_C(1) << 63) >> 32 << 32 | time << 16 | node;
}

/* Time units since the word was written; a word that is empty is older than any. */
static inline uint32_t age_of(uint64_t word, uint64_t now)
{
    return word == 0 ? UINT32_MAX : (uint16_t)((now >> 16) - (word >> 16));
}

static inline bool same(uint64_t a, uint64_t b, uint64_t but)
{
    return ((a ^ b) & ~but) == 0;
}

#define TIME_MASK UINT64_C(0xffff0000)
#define NODE_MASK UINT64_C(0xffff)

static void learn_one(struct prefixes *prefixes, uint64_t hash, uint16_t node, uint64_t now_ns)
{
    _Atomic uint64_t *set = prefixes->at[set_of(hash)];
    uint64_t word = word_of(hash, node, now_ns);
    uint32_t oldest = 0, oldest_age = 0;
    for (uint32_t i = 0; i < PREFIXES_WAYS; i++) {
        uint64_t old = atomic_load_explicit(&set[i], memory_order_relaxed);
        uint32_t age = same(old, word, TIME_MASK) ? UINT32_MAX : age_of(old, word);
        if (age >= oldest_age) {
            oldest = i;
            oldest_age = age;
        }
        if (same(old, word, TIME_MASK)) {
            break;
        }
    }
    atomic_store_explicit(&set[oldest], word, memory_order_relaxed);
}

void prefixes_learn(struct prefixes *prefixes, uint64_t prefix, uint16_t node, uint64_t now_ns)
{
    for (uint32_t levels = prefix_levels(prefix); levels != 0; levels--) {
        learn_one(prefixes, hash_of(prefix, levels), node, now_ns);
    }
}

static uint32_t holder_add(struct prefix_holder *holders, uint32_t count, uint16_t node,
                           uint32_t levels)
{
    for (uint32_t i = 0; i < count; i++) {
        if (holders[i].node == node) {
            return count; /* has more, as has been found before */
        }
    }
    holders[count] = (struct prefix_holder){node, (uint16_t)levels};
    return count + 1;
}

uint32_t prefixes_find(const struct prefixes *prefixes, uint64_t prefix, uint64_t now_ns,
                       struct prefix_holder holders[PREFIXES_HOLDERS])
{
    uint32_t count = 0;
    for (uint32_t levels = prefix_levels(prefix); levels != 0; levels--) {
        uint64_t hash = hash_of(prefix, levels);
        const _Atomic uint64_t *set = prefixes->at[set_of(hash)];
        uint64_t wanted = word_of(hash, 0, now_ns);
        for (uint32_t i = 0; i < PREFIXES_WAYS && count < PREFIXES_HOLDERS; i++) {
            uint64_t word = atomic_load_explicit(&set[i], memory_order_relaxed);
            if (same(word, wanted, TIME_MASK | NODE_MASK) &&
                age_of(word, wanted) <= PREFIXES_LIFE_NS >> TIME_BITS) {
                count = holder_add(holders, count, (uint16_t)word, levels);
            }
        }
    }
    return count;
}

/* A candidate. What a holder has is worth nothing if the node forgets prompts, or may not take the
 * request. */
struct offer {
    uint64_t us; /* predicted, with what this core has sent there and the node has not told of */
    uint64_t saved_us;
    uint32_t known; /* bytes; 0 = none */
    uint16_t index;
};

static uint64_t prefill_us(const struct route_node *node, uint32_t model, uint32_t bytes)
{
    const struct route_pace *pace = route_pace_of(node, model);
    return (uint64_t)(bytes / ROUTE_BYTES_PER_TOKEN) * pace->prefill_ns / 1000;
}

static struct offer offer_of(const struct route_table *table, struct route_load *loads,
                             const struct route_query *query, const struct prefix_holder *holder)
{
    struct offer offer = {.index = route_table_find(table, holder->node)};
    uint32_t bytes = prefix_bytes(holder->levels);
    uint32_t us;
    if (offer.index == ROUTE_INDEX_NONE || !table->nodes[offer.index].keeps_prompts ||
        !route_predict_known(table, loads, query, offer.index, bytes, &us)) {
        return offer;
    }
    bytes = bytes < query->prompt_bytes ? bytes : query->prompt_bytes;
    offer.us = (uint64_t)us + loads[holder->node].sent_us;
    offer.saved_us = prefill_us(&table->nodes[offer.index], query->model, bytes);
    offer.known = bytes;
    return offer;
}

uint32_t prefixes_steer(const struct prefixes *prefixes, const struct route_table *table,
                        struct route_load *loads, const struct route_query *query, uint64_t prefix,
                        uint64_t now_ns, struct route_choice *choice)
{
    struct prefix_holder holders[PREFIXES_HOLDERS];
    struct offer offers[PREFIXES_HOLDERS];
    const struct route_load *load = &loads[table->nodes[choice->node].id];
    struct offer best = {.us = (uint64_t)choice->predicted_us + load->sent_us,
                         .index = choice->node};
    uint32_t count = prefixes_find(prefixes, prefix, now_ns, holders);
    uint64_t least_us = best.us;
    for (uint32_t i = 0; i < count; i++) {
        offers[i] = offer_of(table, loads, query, &holders[i]);
        least_us = offers[i].known != 0 && offers[i].us < least_us ? offers[i].us : least_us;
    }
    for (uint32_t i = 0; i < count; i++) {
        const struct offer *o = &offers[i];
        bool better = o->known > best.known || (o->known == best.known && o->us < best.us);
        if (o->known != 0 && better && o->us <= least_us + o->saved_us) {
            best = *o;
        }
    }
    if (best.known != 0) {
        route_choice_move(choice, best.index);
        choice->predicted_us =
            best.us < ROUTE_PREDICT_MAX_US ? (uint32_t)best.us : ROUTE_PREDICT_MAX_US;
    }
    return best.known;
}

void prefixes_placed(struct prefixes *prefixes, const struct route_table *table,
                     struct route_load *loads, const struct route_query *query, uint64_t prefix,
                     uint16_t index, uint32_t known, uint64_t now_ns)
{
    const struct route_node *node = &table->nodes[index];
    struct route_load *load = &loads[node->id];
    uint64_t us = load->sent_us + prefill_us(node, query->model, query->prompt_bytes - known);
    load->sent_us = us < ROUTE_PREDICT_MAX_US ? (uint32_t)us : ROUTE_PREDICT_MAX_US;
    prefixes_learn(prefixes, prefix, node->id, now_ns);
}
