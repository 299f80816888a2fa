/* SPDX-License-Identifier: Apache-2.0 */
/* test_resource.c - controlplane/maps/resource.c: what is read is what was written, and nothing
 * else is read. */
#include "controlplane/maps/resource.h"

#include <string.h>

#include "schemas/base/rng.h"
#include "tests/unit/controlplane/main_of.h"

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

MAIN_OF("resource", only_what_can_have_been_written)
