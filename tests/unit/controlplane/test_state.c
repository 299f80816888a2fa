/* SPDX-License-Identifier: Apache-2.0 */
/* test_state.c - maps/state.c: what is written is read, and nothing else is. */
#include "controlplane/maps/state.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

#include "schemas/base/rng.h"
#include "tests/unit/controlplane/main_of.h"

/* What the models' workers compute with. */
#define COMPUTES_BYTES(models) (1 + 4 * (size_t)(models))

static struct members_facts facts_make(uint32_t models, size_t name_bytes)
{
    struct members_facts facts = {.room = 7,
                                  .queue_us = 123456,
                                  .free_vram_mib = 81559,
                                  .prefill_tps = 5000,
                                  .decode_tps = 77,
                                  .context_tokens = 131072,
                                  .flags = MEMBERS_FACT_REUSE,
                                  .backend = "cuda",
                                  .prefixes = {0x1234, UINT64_MAX, 3},
                                  .model_count = models};
    for (uint32_t i = 0; i < models; i++) {
        char *name = facts.models[i].name;
        memset(name, 'm', name_bytes);
        name[0] = (char)('a' + i);
        facts.models[i].id = weft_model_id(name);
        facts.models[i].arithmetic = 0x01020304u * (i + 1);
        facts.models[i].speeds = (struct speeds){.prefill = (uint8_t)(100 + i),
                                                 .decode = {1, 2, 255, (uint8_t)i},
                                                 .memory = 3,
                                                 .slots = 4,
                                                 .running = 255};
    }
    return facts;
}

#define PREFIXES_BYTES       (1 + 3 * sizeof(uint64_t))
#define SPEEDS_BYTES(models) (1 + sizeof(struct speeds) * (size_t)(models))

static struct vivaldi_coord coord_make(void)
{
    struct vivaldi_coord coord = vivaldi_origin();
    coord.place[0] = 0.015;
    coord.place[7] = -0.25;
    coord.height = 0.001;
    coord.error = 0.25;
    return coord;
}

static const struct state_doubts doubts = {3, {7, 65534, 9}};
static struct state_doubts told;

START_TEST(comes_back)
{
    for (uint32_t models = 0; models <= MEMBERS_MODELS_MAX; models++) {
        struct members_facts facts = facts_make(models, 12);
        struct members_facts again;
        struct vivaldi_coord coord = coord_make();
        struct vivaldi_coord place;
        uint8_t data[STATE_BYTES_MAX + 8] = {0};
        uint32_t dropped = 9;
        size_t size = state_write(&facts, &coord, &doubts, 5, 1000, 1, data, &dropped);
        ck_assert_uint_eq(dropped, 0);
        memset(&again, 0xff, sizeof(again));
        ck_assert(state_read(&again, &place, &told, data, size));
        ck_assert_mem_eq(&again, &facts, sizeof(facts));
        ck_assert_mem_eq(&told, &doubts, sizeof(doubts));
        ck_assert_double_eq_tol(place.place[7], -0.25, 1e-6);
        ck_assert_double_eq_tol(place.error, 0.25, 1e-3);
        /* A later version appends. */
        ck_assert(state_read(&again, &place, &told, data, size + 8));
        /* Earlier ones end before the speeds, the prefixes, the arithmetic, the doubts, or the
         * flags. */
        size_t begun = size - SPEEDS_BYTES(models);
        size_t computed = begun - PREFIXES_BYTES;
        size_t doubted = computed - COMPUTES_BYTES(models);
        size_t flagged = doubted - 1 - 2 * doubts.count;
        ck_assert(state_read(&again, &place, &told, data, begun));
        ck_assert_mem_eq(again.prefixes, facts.prefixes, sizeof(facts.prefixes));
        ck_assert_uint_eq(again.models[0].speeds.prefill, 0);
        ck_assert_uint_eq(again.prefill_tps, facts.prefill_tps);
        ck_assert(state_read(&again, &place, &told, data, computed));
        ck_assert_uint_eq(again.prefixes[0], 0);
        ck_assert_uint_eq(again.models[0].arithmetic, facts.models[0].arithmetic);
        ck_assert(state_read(&again, &place, &told, data, doubted));
        ck_assert_uint_eq(told.count, doubts.count);
        ck_assert_uint_eq(again.models[0].arithmetic, 0);
        ck_assert(state_read(&again, &place, &told, data, flagged));
        ck_assert_uint_eq(told.count, 0);
        ck_assert_uint_eq(again.flags, facts.flags);
        ck_assert(state_read(&again, &place, &told, data, flagged - 1));
        ck_assert_uint_eq(again.flags, 0);
        /* Cut off anywhere else it is not what was written. */
        for (size_t cut = 0; cut < size; cut++) {
            bool earlier = cut == begun || cut == computed || cut == doubted || cut == flagged ||
                           cut == flagged - 1;
            ck_assert_int_eq(state_read(&again, &place, &told, data, cut), earlier);
        }
    }
}
END_TEST

START_TEST(what_does_not_fit_is_left_out)
{
    struct members_facts facts = facts_make(MEMBERS_MODELS_MAX, WEFT_MODEL_NAME_MAX - 1);
    struct members_facts again;
    struct vivaldi_coord coord = coord_make();
    uint8_t data[STATE_BYTES_MAX];
    uint32_t dropped;
    size_t size = state_write(&facts, &coord, &doubts, 5, 1000, 1, data, &dropped);
    ck_assert_uint_le(size, STATE_BYTES_MAX);
    ck_assert_uint_gt(dropped, 0);
    ck_assert(state_read(&again, &coord, &told, data, size));
    ck_assert_uint_eq(again.model_count + dropped, MEMBERS_MODELS_MAX);
    ck_assert_str_eq(again.models[0].name, facts.models[0].name);
}
END_TEST

/* Names go before speeds, the first models' speeds before the last ones', and a model that was told
 * without speeds is told as before. */
START_TEST(speeds_give_way)
{
    static const struct speeds none;
    uint32_t partly = 0;
    for (size_t name_bytes = 2; name_bytes < WEFT_MODEL_NAME_MAX; name_bytes++) {
        struct members_facts facts = facts_make(MEMBERS_MODELS_MAX, name_bytes);
        struct members_facts bare = facts;
        struct members_facts again;
        struct vivaldi_coord coord = coord_make();
        uint8_t data[STATE_BYTES_MAX];
        uint32_t dropped, dropped_bare, known = 0;
        for (uint32_t i = 0; i < MEMBERS_MODELS_MAX; i++) {
            bare.models[i].speeds = none;
        }
        (void)state_write(&bare, &coord, &doubts, 5, 1000, 1, data, &dropped_bare);
        size_t size = state_write(&facts, &coord, &doubts, 5, 1000, 1, data, &dropped);
        ck_assert_uint_eq(dropped, dropped_bare);
        ck_assert(state_read(&again, &coord, &told, data, size));
        while (known < again.model_count && again.models[known].speeds.prefill != 0) {
            known++;
        }
        for (uint32_t i = 0; i < again.model_count; i++) {
            ck_assert_mem_eq(&again.models[i].speeds, i < known ? &facts.models[i].speeds : &none,
                             sizeof(none));
        }
        ck_assert(dropped == 0 || known < again.model_count);
        partly += known != 0 && known < again.model_count;
    }
    ck_assert_uint_gt(partly, 10);
}
END_TEST

START_TEST(lies_are_refused)
{
    struct members_facts facts = facts_make(2, 20);
    struct members_facts again;
    struct vivaldi_coord coord = coord_make();
    uint8_t data[STATE_BYTES_MAX];
    uint32_t dropped;
    size_t size = state_write(&facts, &coord, &doubts, 5, 1000, 1, data, &dropped);
    data[0]++;
    ck_assert(!state_read(&again, &coord, &told, data, size));
    data[0]--;
    size_t speeds = size - SPEEDS_BYTES(2);
    size_t computes = speeds - PREFIXES_BYTES - COMPUTES_BYTES(2);
    size_t last = computes - 1 - 2 * doubts.count - 1 - 1; /* byte of a name */
    data[last] ^= 1;                                       /* another name under the same id */
    ck_assert(!state_read(&again, &coord, &told, data, size));
    data[last] ^= 1;
    ck_assert(state_read(&again, &coord, &told, data, size));
    data[computes] -= 4; /* for another number of models */
    ck_assert(!state_read(&again, &coord, &told, data, size));
    data[computes] += 4;
    data[speeds]++; /* of more models than there are */
    ck_assert(!state_read(&again, &coord, &told, data, size));
    data[speeds]--;
    memset(data + speeds - 2 * sizeof(uint64_t), 0, sizeof(uint64_t)); /* no beginning is 0 */
    ck_assert(!state_read(&again, &coord, &told, data, size));
    data[last + 2] = STATE_DOUBTS + 1; /* more doubts than one may have */
    ck_assert(!state_read(&again, &coord, &told, data, size));
    data[last] = ' ';
    ck_assert(!state_read(&again, &coord, &told, data, size));
}
END_TEST

/* Any single change is either refused or still clean. */
START_TEST(noise_is_refused_or_clean)
{
    struct rng rng = {.state = 7};
    struct vivaldi_coord coord = coord_make();
    for (uint32_t round = 0; round < 20000; round++) {
        struct members_facts facts = facts_make(rng_below(&rng, MEMBERS_MODELS_MAX + 1), 12);
        struct members_facts again;
        uint8_t data[STATE_BYTES_MAX];
        uint32_t dropped;
        size_t size = state_write(&facts, &coord, &doubts, 5, 1000, 1, data, &dropped);
        data[rng_below(&rng, (uint32_t)size)] ^= (uint8_t)(1u << rng_below(&rng, 8));
        struct vivaldi_coord place;
        if (state_read(&again, &place, &told, data, size)) {
            ck_assert_uint_le(again.model_count, MEMBERS_MODELS_MAX);
            ck_assert(vivaldi_valid(&place));
            ck_assert_uint_lt(strnlen(again.backend, sizeof(again.backend)), sizeof(again.backend));
            for (uint32_t i = 0; i < again.model_count; i++) {
                ck_assert_uint_eq(weft_model_id(again.models[i].name), again.models[i].id);
            }
        }
    }
}
END_TEST

MAIN_OF("state", comes_back, what_does_not_fit_is_left_out, speeds_give_way, lies_are_refused,
        noise_is_refused_or_clean)
