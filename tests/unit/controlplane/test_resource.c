/* SPDX-License-Identifier: Apache-2.0 */
/* test_resource.c - controlplane/maps/resource.c and resource_wire.c: whatever arrives in whatever
 * order, a reader holds what the node said last; credits against a list of requests; age never
 * makes a node look better. */
#include "controlplane/maps/resource.h"

#include <string.h>

#include "schemas/base/rng.h"
#include "tests/unit/controlplane/main_of.h"

#define START_NS (1000 * NS_PER_S)
#define NODE     5u

static struct resource_facts facts_draw(struct rng *rng)
{
    struct resource_facts facts = {.room = rng_below(rng, 40),
                                   .queue_us = rng_below(rng, 2000000),
                                   .free_vram_mib = rng_below(rng, 100000),
                                   .prefill_tps = 900,
                                   .decode_tps = rng_below(rng, 3),
                                   .context_tokens = 4096,
                                   .load_percent = rng_below(rng, 101),
                                   .model_count = rng_below(rng, RESOURCE_MODELS_MAX + 1)};
    for (uint32_t i = 0; i < facts.model_count; i++) {
        facts.models[i] = (uint32_t)rng_next(rng);
    }
    return facts;
}

static bool facts_equal(const struct resource_facts *a, const struct resource_facts *b)
{
    return resource_differ(a, b) == 0;
}

/* Lost, doubled and late messages: what is held is exactly the newest that could be read. */
START_TEST(any_order_ends_at_the_newest)
{
    uint32_t taken = 0;
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct rng rng = {seed};
        struct resource_map map;
        struct resource_source source;
        uint8_t bytes[60][RESOURCE_WIRE_MAX];
        size_t sizes[60];
        struct resource_facts said[60];
        ck_assert_int_eq(resource_init(&map, 4, seed), 0);
        resource_source_init(&source, NODE, 77);
        uint32_t newest = 0, heard = 0;
        struct resource_facts facts = facts_draw(&rng);
        for (uint32_t i = 0; i < 60; i++) {
            facts.queue_us = rng_below(&rng, 1000);
            facts = rng_below(&rng, 4) == 0 ? facts_draw(&rng) : facts;
            said[i] = facts;
            sizes[i] = resource_publish(&source, &facts, false, bytes[i]);
            uint32_t pick = rng_below(&rng, 3) == 0 ? rng_below(&rng, i + 1) : i;
            if (rng_below(&rng, 3) == 0) {
                continue; /* lost */
            }
            uint32_t node = 0;
            enum resource_verdict verdict =
                resource_receive(&map, bytes[pick], sizes[pick], 0, START_NS + i * NS_PER_S, &node);
            ck_assert_int_ne(verdict, RESOURCE_MALFORMED);
            ck_assert_uint_eq(node, NODE);
            if (verdict == RESOURCE_TAKEN) {
                ck_assert(heard == 0 || pick + 1 > newest);
                newest = pick + 1;
                heard++;
            } else if (verdict == RESOURCE_OLD) {
                ck_assert_uint_le(pick + 1, newest);
            }
            if (newest > 0) {
                uint64_t now_ns = map.entries[slots_find(&map.slots, NODE)].reported_ns;
                struct resource_view view = resource_of(&map, NODE, now_ns);
                ck_assert(facts_equal(&view.facts, &said[newest - 1]));
            }
        }
        taken += heard;
        resource_deinit(&map);
    }
    ck_assert_uint_gt(taken, 1000);
}
END_TEST

START_TEST(a_delta_is_small)
{
    struct rng rng = {1};
    struct resource_source source;
    struct resource_facts facts = facts_draw(&rng);
    uint8_t bytes[RESOURCE_WIRE_MAX];
    resource_source_init(&source, NODE, 77);
    resource_publish(&source, &facts, false, bytes);
    facts.queue_us = 100000;
    facts.room = 3;
    ck_assert_uint_le(resource_publish(&source, &facts, false, bytes), 33);
    facts.model_count = RESOURCE_MODELS_MAX;
    memset(&facts, 0xff, offsetof(struct resource_facts, model_count));
    ck_assert_uint_le(resource_publish(&source, &facts, true, bytes), RESOURCE_WIRE_MAX);
}
END_TEST

START_TEST(a_new_start_begins_anew)
{
    struct resource_map map;
    struct resource_source old, new;
    struct resource_facts facts = {.room = 4};
    uint8_t bytes[RESOURCE_WIRE_MAX];
    uint32_t node;
    ck_assert_int_eq(resource_init(&map, 4, 1), 0);
    resource_source_init(&old, NODE, 77);
    resource_source_init(&new, NODE, 78);
    for (uint32_t i = 0; i < 5; i++) {
        size_t size = resource_publish(&old, &facts, false, bytes);
        resource_receive(&map, bytes, size, 0, START_NS, &node);
    }
    resource_credit(&map, NODE, 1000, 0, START_NS + 1);
    size_t size = resource_publish(&new, &facts, false, bytes);
    uint8_t delta[RESOURCE_WIRE_MAX];
    size_t delta_size = resource_publish(&new, &facts, false, delta);
    ck_assert_int_eq(resource_receive(&map, delta, delta_size, 0, START_NS, &node),
                     RESOURCE_NEED_WHOLE);
    ck_assert_int_eq(resource_receive(&map, bytes, size, 0, START_NS + 2, &node), RESOURCE_TAKEN);
    ck_assert_uint_eq(resource_of(&map, NODE, START_NS + 2).in_flight, 0);
    size = resource_publish(&old, &facts, true, bytes);
    ck_assert_int_eq(resource_receive(&map, bytes, size, 0, START_NS + 3, &node), RESOURCE_OLD);
    resource_deinit(&map);
}
END_TEST

/* Requests sent, ended and reported at random; the oracle keeps each one. Never fewer in flight
 * than are unknown to the node, as long as groups suffice; always none when all has ended or is
 * known. */
START_TEST(credits_like_a_list)
{
    for (uint64_t seed = 1; seed <= 100; seed++) {
        struct rng rng = {seed};
        struct resource_map map;
        struct resource_source source;
        struct resource_facts facts = {.room = 1000, .free_vram_mib = 100000};
        uint8_t bytes[RESOURCE_WIRE_MAX];
        uint32_t node;
        struct {
            uint64_t sent_ns;
            bool open;
        } sent[400];
        uint32_t count = 0;
        uint64_t now_ns = START_NS;
        ck_assert_int_eq(resource_init(&map, 2, seed), 0);
        resource_source_init(&source, NODE, 1);
        size_t size = resource_publish(&source, &facts, true, bytes);
        resource_receive(&map, bytes, size, 0, now_ns, &node);
        for (uint32_t step = 0; step < 400; step++) {
            now_ns += rng_below(&rng, 50) * NS_PER_MS;
            uint32_t what = rng_below(&rng, 10);
            if (what < 6) {
                resource_credit(&map, NODE, 100, 10, now_ns);
                sent[count].sent_ns = now_ns;
                sent[count++].open = true;
            } else if (what < 8 && count > 0) {
                uint32_t pick = rng_below(&rng, count);
                if (sent[pick].open) {
                    sent[pick].open = false;
                    resource_release(&map, NODE, 100, 10, sent[pick].sent_ns);
                }
            } else if (what == 8) {
                /* Arrives 5 ms after it was made; requests took as long. */
                size = resource_publish(&source, &facts, true, bytes);
                resource_receive(&map, bytes, size, 5 * NS_PER_MS, now_ns, &node);
                for (uint32_t i = 0; i < count; i++) {
                    sent[i].open = sent[i].open && sent[i].sent_ns + 10 * NS_PER_MS > now_ns;
                }
            }
            uint32_t open = 0;
            for (uint32_t i = 0; i < count; i++) {
                open += sent[i].open;
            }
            struct resource_view view = resource_of(&map, NODE, now_ns);
            ck_assert_uint_eq(view.facts.queue_us >= 100 * view.in_flight, 1);
            ck_assert_uint_eq(view.facts.room <= 1000 - view.in_flight, 1);
            ck_assert_uint_eq(view.facts.free_vram_mib, 100000 - 10 * view.in_flight);
            ck_assert(open > 0 || view.in_flight <= 1 + count);
            if (map.entries[0].credit_count < RESOURCE_CREDITS) {
                ck_assert_uint_ge(view.in_flight, open > 0);
            }
        }
        size = resource_publish(&source, &facts, true, bytes);
        resource_receive(&map, bytes, size, 0, now_ns + NS_PER_S, &node);
        ck_assert_uint_eq(resource_of(&map, NODE, now_ns + NS_PER_S).in_flight, 0);
        resource_deinit(&map);
    }
}
END_TEST

START_TEST(credited_at_once_until_covered)
{
    struct resource_map map;
    struct resource_source source;
    struct resource_facts facts = {.room = 2, .queue_us = 50};
    uint8_t bytes[RESOURCE_WIRE_MAX];
    uint32_t node;
    uint64_t now_ns = START_NS, path_ns = 20 * NS_PER_MS;
    ck_assert_int_eq(resource_init(&map, 2, 1), 0);
    resource_source_init(&source, NODE, 1);
    size_t size = resource_publish(&source, &facts, true, bytes);
    resource_receive(&map, bytes, size, path_ns, now_ns, &node);
    resource_credit(&map, NODE, 700, 0, now_ns);
    ck_assert_uint_eq(resource_of(&map, NODE, now_ns).facts.room, 1);
    ck_assert_uint_eq(resource_of(&map, NODE, now_ns).facts.queue_us, 750);
    /* Made before the request can have arrived: says nothing of it. */
    size = resource_publish(&source, &facts, true, bytes);
    resource_receive(&map, bytes, size, path_ns, now_ns + 2 * path_ns - 1, &node);
    ck_assert_uint_eq(resource_of(&map, NODE, now_ns).in_flight, 1);
    size = resource_publish(&source, &facts, true, bytes);
    resource_receive(&map, bytes, size, path_ns, now_ns + 2 * path_ns, &node);
    ck_assert_uint_eq(resource_of(&map, NODE, now_ns).in_flight, 0);
    /* It ends later: nothing is taken off twice. */
    resource_release(&map, NODE, 700, 0, now_ns);
    ck_assert_uint_eq(resource_of(&map, NODE, now_ns).facts.room, 2);
    resource_deinit(&map);
}
END_TEST

START_TEST(older_never_looks_better)
{
    struct resource_map map;
    struct resource_source source;
    struct resource_facts facts = {.room = 9, .queue_us = 50};
    uint8_t bytes[RESOURCE_WIRE_MAX];
    uint32_t node;
    ck_assert_int_eq(resource_init(&map, 2, 1), 0);
    resource_source_init(&source, NODE, 1);
    size_t size = resource_publish(&source, &facts, true, bytes);
    ck_assert(resource_message_age(bytes, size, 300 * NS_PER_MS)); /* passed on */
    resource_receive(&map, bytes, size, 200 * NS_PER_MS, START_NS, &node);
    struct resource_view last = resource_of(&map, NODE, START_NS);
    ck_assert_uint_eq(last.age_ns, 500 * NS_PER_MS);
    ck_assert_int_eq(last.freshness, RESOURCE_FRESH);
    for (uint64_t ms = 100; ms < 40000; ms += 100) {
        struct resource_view view = resource_of(&map, NODE, START_NS + ms * NS_PER_MS);
        ck_assert_uint_ge(view.facts.queue_us, last.facts.queue_us);
        ck_assert_uint_le(view.facts.room, last.facts.room);
        ck_assert_int_ge(view.freshness, last.freshness);
        ck_assert(view.freshness < RESOURCE_STALE || view.facts.room <= 1);
        last = view;
    }
    ck_assert_int_eq(last.freshness, RESOURCE_EXPIRED);
    ck_assert_uint_eq(last.facts.room, 0);
    resource_deinit(&map);
}
END_TEST

START_TEST(replies_bring_later_news)
{
    struct resource_map map;
    struct resource_source source;
    struct resource_facts facts = {.room = 9, .queue_us = 50, .decode_tps = 5};
    uint8_t bytes[RESOURCE_WIRE_MAX];
    uint32_t node;
    ck_assert_int_eq(resource_init(&map, 2, 1), 0);
    resource_source_init(&source, NODE, 1);
    size_t size = resource_publish(&source, &facts, true, bytes);
    resource_receive(&map, bytes, size, 0, START_NS, &node);
    resource_observe(&map, NODE, 1, 999, 7, START_NS + 100);
    facts.decode_tps = 6;
    size = resource_publish(&source, &facts, false, bytes);
    resource_receive(&map, bytes, size, 50, START_NS + 120, &node); /* made at 70 */
    struct resource_view view = resource_of(&map, NODE, START_NS + 120);
    ck_assert_uint_eq(view.facts.room, 1);
    ck_assert_uint_eq(view.facts.queue_us, 999);
    ck_assert_uint_eq(view.facts.decode_tps, 6);
    resource_observe(&map, NODE, 5, 5, 5, START_NS); /* late itself */
    ck_assert_uint_eq(resource_of(&map, NODE, START_NS + 120).facts.room, 1);
    resource_deinit(&map);
}
END_TEST

START_TEST(only_what_can_have_been_written)
{
    struct rng rng = {1};
    for (uint32_t i = 0; i < 20000; i++) {
        struct resource_message in = {.node = rng_below(&rng, 9),
                                      .incarnation = rng_next(&rng),
                                      .version = 5 + rng_below(&rng, 9),
                                      .age_ns = rng_below(&rng, 9) * NS_PER_MS,
                                      .facts = facts_draw(&rng)};
        in.whole_version = i % 2 ? in.version : in.version - 1;
        in.mask = i % 2 ? RESOURCE_MASK_ALL : (uint32_t)rng_next(&rng) & RESOURCE_MASK_ALL;
        uint8_t bytes[RESOURCE_WIRE_MAX], again[RESOURCE_WIRE_MAX];
        struct resource_message out;
        size_t size = resource_write(&in, bytes);
        ck_assert(resource_read(&out, bytes, size));
        ck_assert_uint_eq(resource_write(&out, again), size);
        ck_assert_mem_eq(bytes, again, size);
        ck_assert(!resource_read(&out, bytes, size - 1));
        bytes[rng_below(&rng, (uint32_t)size)] ^= (uint8_t)(1 + rng_below(&rng, 255));
        if (resource_read(&out, bytes, size)) {
            ck_assert_uint_eq(resource_write(&out, again), size);
            ck_assert_mem_eq(bytes, again, size);
        }
    }
}
END_TEST

MAIN_OF("resource", any_order_ends_at_the_newest, a_delta_is_small, a_new_start_begins_anew,
        credits_like_a_list, credited_at_once_until_covered, older_never_looks_better,
        replies_bring_later_news, only_what_can_have_been_written)
