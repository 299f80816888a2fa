/* SPDX-License-Identifier: Apache-2.0 */
/* test_query.c - controlplane/cli/query.c and query_read.c: random meshes against a plain reading
 * of the filters; queries in all their spellings; answers that cannot be used. */
#include "controlplane/cli/query.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "schemas/base/geo.h"
#include "schemas/base/rng.h"
#include "schemas/base/torus.h"
#include "tests/unit/controlplane/main_of.h"

#define NODES 14u
#define MANY  (1000 * NODES)

struct machine {
    char name[16];
    uint32_t tier, tags, room, vram_mib, queue_us, rtt_us;
    double latitude, longitude;
    bool alive, has_model;
    uint32_t prefill_tps, stream_tps; /* with the model "m"; 0: it does not say */
    const char *land;
};

#define OTHER_TPS 77 /* with another model */

static const char *const lands[] = {"", "DE", "FR", "US"};

static json_t *status_of(const struct machine *machines, uint32_t count)
{
    json_t *members = json_array();
    for (uint32_t i = 0; i < count; i++) {
        const struct machine *m = &machines[i];
        json_t *tags = json_array();
        if (m->tags & 1) {
            json_array_append_new(tags, json_string("eu"));
        }
        if (m->tags & 2) {
            json_array_append_new(tags, json_string("us"));
        }
        json_array_append_new(
            members,
            json_pack("{s:s, s:i, s:i, s:o, s:b, s:[s], s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:f, "
                      "s:i, s:s}",
                      "name", m->name, "id", (int)i + 5, "tier", (int)m->tier, "tags", tags,
                      "alive", (int)m->alive, "models", m->has_model ? "m" : "other", "room",
                      (int)m->room, "queue_us", (int)m->queue_us, "free_vram_mib", (int)m->vram_mib,
                      "prefill_tps", 1000, "decode_tps", 100, "rtt_us", (int)m->rtt_us,
                      "latitude_deg", m->latitude, "longitude_deg", m->longitude, "heard_ms_ago",
                      (int)(10 + i), "jurisdiction", m->land));
        json_object_set_new(json_array_get(members, i), "speeds",
                            json_pack("[{s:s, s:i, s:i}, {s:s, s:i, s:i}]", "model", "other",
                                      "prefill_tps", OTHER_TPS, "stream_tps", OTHER_TPS, "model",
                                      "m", "prefill_tps", (int)m->prefill_tps, "stream_tps",
                                      (int)m->stream_tps));
    }
    return json_pack("{s:s, s:o}", "node", machines[0].name, "members", members);
}

/* The node as a whole does 1000 and 100 tokens a second. */
static uint32_t plain_us(const struct machine *m, const struct query *q)
{
    uint64_t prefill_ns = 1000000000 / (m->prefill_tps != 0 ? m->prefill_tps : 1000);
    uint64_t decode_ns = 1000000000 / (m->stream_tps != 0 ? m->stream_tps : 100);
    uint64_t ns = (q->prompt_bytes / 4 + 1) * prefill_ns;
    ns += q->end_to_end ? q->max_tokens * decode_ns : 0;
    return m->rtt_us + m->queue_us + (uint32_t)(ns / 1000);
}

/* The first filter that bars it, NULL if none. */
static const char *plain_verdict(const struct machine *m, const struct query *q)
{
    bool there = q->land_count == 0;
    for (uint32_t i = 0; i < q->land_count; i++) {
        there = there || strcmp(q->lands[i], m->land) == 0;
    }
    double km = geo_distance_km(geo_point_at(q->near_latitude_deg, q->near_longitude_deg),
                                geo_point_at(m->latitude, m->longitude));
    uint32_t us = plain_us(m, q);
    return !m->alive                                               ? "down"
           : !there                                                ? "jurisdiction"
           : !m->has_model                                         ? "model"
           : (m->tags & q->tags) != q->tags                        ? "tags"
           : m->tier < q->tier_min || m->tier > q->tier_max        ? "tier"
           : q->radius_km > 0 && km > q->radius_km                 ? "radius"
           : m->vram_mib < q->vram_mib                             ? "vram"
           : m->room == 0                                          ? "room"
           : q->budget_us != WEFT_BUDGET_NONE && us > q->budget_us ? "budget"
                                                                   : NULL;
}

static uint32_t plain_cells(const struct machine *m, const struct query *q)
{
    return torus_ring_distance(weft_cell_x(m->longitude), weft_cell_x(q->near_longitude_deg)) +
           torus_ring_distance(weft_cell_y(m->latitude), weft_cell_y(q->near_latitude_deg)) +
           TORUS_TIER_CELLS * torus_tier_steps(m->tier, q->tier_min, false);
}

static const json_t *entry_of(const json_t *list, const char *name)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        if (strcmp(json_string_value(json_object_get(entry, "name")), name) == 0) {
            return entry;
        }
    }
    return NULL;
}

static void machines_draw(struct machine *machines, struct rng *rng)
{
    memset(machines, 0, NODES * sizeof(*machines));
    for (uint32_t i = 0; i < NODES; i++) {
        snprintf(machines[i].name, sizeof(machines[i].name), "n%u", i);
        machines[i].tier = rng_below(rng, 8);
        machines[i].tags = rng_below(rng, 4);
        machines[i].room = rng_below(rng, 4);
        machines[i].vram_mib = 64 * rng_below(rng, 200);
        machines[i].queue_us = rng_below(rng, 100000);
        machines[i].rtt_us = i == 0 ? 0 : rng_below(rng, 100000);
        machines[i].latitude = rng_unit(rng) * 20 + 40;
        machines[i].longitude = rng_unit(rng) * 20;
        machines[i].alive = i == 0 || rng_below(rng, 8) != 0;
        machines[i].has_model = rng_below(rng, 5) != 0;
        machines[i].prefill_tps = rng_below(rng, 2) * (1 + rng_below(rng, 5000));
        machines[i].stream_tps = rng_below(rng, 2) * (1 + rng_below(rng, 300));
        machines[i].land = lands[rng_below(rng, 4)];
    }
}

START_TEST(like_a_plain_reading)
{
    uint32_t found = 0;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct rng rng = {seed};
        struct machine machines[NODES];
        machines_draw(machines, &rng);
        struct query q;
        query_init(&q);
        strcpy(q.model, "m");
        q.k = NODES;
        q.has_near = true;
        q.near_latitude_deg = 50;
        q.near_longitude_deg = 10;
        q.tier_min = rng_below(&rng, 4);
        q.tier_max = q.tier_min + rng_below(&rng, 5);
        q.tags = rng_below(&rng, 3) == 0 ? 1 + rng_below(&rng, 3) : 0;
        q.radius_km = rng_below(&rng, 2) ? 200 + rng_below(&rng, 1200) : 0;
        q.vram_mib = rng_below(&rng, 2) ? rng_below(&rng, 9000) / 64 * 64 : 0;
        q.budget_us = rng_below(&rng, 2) ? 20000 + rng_below(&rng, 200000) : WEFT_BUDGET_NONE;
        q.prompt_bytes = rng_below(&rng, 100);
        q.max_tokens = rng_below(&rng, 10);
        q.end_to_end = rng_below(&rng, 2) != 0;
        q.land_count = rng_below(&rng, 4) == 0 ? 1 + rng_below(&rng, 2) : 0;
        for (uint32_t i = 0; i < q.land_count; i++) {
            strcpy(q.lands[i], lands[1 + rng_below(&rng, 3)]);
        }
        json_t *status = status_of(machines, NODES);
        char why[QUERY_WHY_MAX];
        json_t *answer = query_answer(&q, status, why);
        ck_assert_ptr_nonnull(answer);
        const json_t *candidates = json_object_get(answer, "candidates");
        uint32_t down = 0, passed = 0;
        for (uint32_t i = 0; i < NODES; i++) {
            const char *want = plain_verdict(&machines[i], &q);
            const json_t *barred = entry_of(json_object_get(answer, "excluded"), machines[i].name);
            const json_t *in = entry_of(candidates, machines[i].name);
            down += !machines[i].alive;
            passed += want == NULL;
            ck_assert_int_eq(want == NULL, in != NULL);
            ck_assert_int_eq(want != NULL, barred != NULL);
            if (want != NULL) {
                ck_assert_str_eq(json_string_value(json_object_get(barred, "verdict")), want);
            } else {
                ck_assert_int_eq(json_integer_value(json_object_get(in, "distance_cells")),
                                 plain_cells(&machines[i], &q));
                ck_assert_double_eq_tol(json_number_value(json_object_get(in, "predicted_ms")),
                                        plain_us(&machines[i], &q) / 1e3, 1e-6);
            }
        }
        for (size_t i = 1; i < json_array_size(candidates); i++) {
            ck_assert_int_le(json_integer_value(json_object_get(json_array_get(candidates, i - 1),
                                                                "distance_cells")),
                             json_integer_value(
                                 json_object_get(json_array_get(candidates, i), "distance_cells")));
        }
        const char *chosen = json_string_value(json_object_get(answer, "would_choose"));
        ck_assert_int_eq(chosen != NULL, passed > 0);
        ck_assert(chosen == NULL || entry_of(candidates, chosen) != NULL);
        ck_assert_uint_eq(json_array_size(json_object_get(answer, "not_heard")), down);
        ck_assert_int_eq(json_is_true(json_object_get(answer, "complete")), down == 0);
        found += passed;
        json_decref(answer);
        json_decref(status);
    }
    ck_assert_uint_gt(found, 150);
}
END_TEST

/* A prompt that begins as another one did, with the same words before it: it goes to who has that
 * beginning, though others are nearer; shorter or for another model, or if nobody has it, as ever.
 */
START_TEST(who_has_the_beginning)
{
    static char system[5000], text[6000];
    const uint32_t far = 3;
    struct rng rng = {11};
    struct machine machines[NODES];
    struct query had, q;
    char why[QUERY_WHY_MAX], digits[17];
    machines_draw(machines, &rng);
    for (uint32_t i = 0; i < NODES; i++) {
        machines[i].alive = machines[i].has_model = true;
        machines[i].room = 1;
        machines[i].prefill_tps = machines[i].queue_us = machines[i].rtt_us = 0;
        machines[i].tier = 0;
    }
    memset(system, 's', sizeof(system) - 1);
    query_init(&had);
    strcpy(had.model, "m");
    ck_assert(query_prompt(&had, system, "What is red?"));
    ck_assert_uint_eq(had.prompt_bytes, sizeof(system) - 1 + 12);
    snprintf(digits, sizeof(digits), "%016llx", (unsigned long long)had.prefix);
    json_t *status = status_of(machines, NODES);
    json_t *member = json_array_get(json_object_get(status, "members"), far);
    json_object_set_new(member, "prefixes", json_pack("[s]", digits));
    for (uint32_t has = 0; has < 3; has++) {
        const char *other = has == 1 ? "Hello." : "What is blue?";
        json_t *asked = json_pack("{s:s, s:s}", "model", "m", "prompt", other);
        if (has != 1) {
            json_object_set_new(asked, "system", json_string(system));
        }
        if (has == 2) {
            json_object_set_new(member, "prefixes", json_array());
        }
        query_init(&q);
        ck_assert(query_read(&q, asked, why));
        ck_assert_int_eq(q.prefix != 0, has != 1);
        q.k = NODES;
        json_t *answer = query_answer(&q, status, why);
        const json_t *in = entry_of(json_object_get(answer, "candidates"), machines[far].name);
        const json_t *near = entry_of(json_object_get(answer, "candidates"), machines[0].name);
        const char *chosen = json_string_value(json_object_get(answer, "would_choose"));
        double whole_ms = plain_us(&machines[far], &q) / 1e3;
        double ms = json_number_value(json_object_get(in, "predicted_ms"));
        ck_assert_int_eq(strcmp(chosen, machines[far].name) == 0, has == 0);
        ck_assert_int_eq(json_integer_value(json_object_get(in, "cached_tokens")),
                         has == 0 ? 4096 / 4 : 0);
        ck_assert_double_eq_tol(json_number_value(json_object_get(in, "saved_ms")),
                                has == 0 ? 1024 : 0, 1e-6);
        ck_assert_double_eq_tol(ms, whole_ms - (has == 0 ? 1024 : 0), 1e-6);
        ck_assert_int_eq(json_integer_value(json_object_get(near, "cached_tokens")), 0);
        ck_assert_int_eq(json_object_get(near, "saved_ms") != NULL, has != 1);
        json_decref(answer);
        json_decref(asked);
    }
    memset(text, 'x', sizeof(text) - 1);
    json_t *alone = json_pack("{s:s}", "prompt", text);
    query_init(&q);
    ck_assert(!query_read(&q, alone, why));
    ck_assert_str_eq(why, "a prompt needs its model beside it");
    json_decref(alone);
    json_decref(status);
}
END_TEST

START_TEST(never_cut_silently)
{
    struct rng rng = {5};
    struct machine machines[NODES];
    machines_draw(machines, &rng);
    for (uint32_t i = 0; i < NODES; i++) {
        machines[i].alive = machines[i].has_model = true;
        machines[i].room = 1;
    }
    struct query q;
    char why[QUERY_WHY_MAX];
    query_init(&q);
    strcpy(q.model, "m");
    q.k = 3;
    json_t *status = status_of(machines, NODES);
    json_t *answer = query_answer(&q, status, why);
    ck_assert_int_eq(json_integer_value(json_object_get(answer, "found")), NODES);
    ck_assert_uint_eq(json_array_size(json_object_get(answer, "candidates")), 3);
    ck_assert(json_is_true(json_object_get(answer, "complete")));
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    query_print(out, answer);
    fclose(out);
    ck_assert_ptr_nonnull(strstr(text, "and 11 further"));
    ck_assert_ptr_nonnull(strstr(text, "complete: 14 of the 14 members that n0 knows are heard, "
                                       "oldest record 23 ms"));
    free(text);
    json_decref(answer);
    json_decref(status);
}
END_TEST

/* What is asked of one member does not cost more the more of them there are. */
START_TEST(large_meshes)
{
    struct rng rng = {5};
    struct machine *machines = calloc(MANY, sizeof(*machines));
    for (uint32_t i = 0; i < MANY; i += NODES) {
        machines_draw(&machines[i], &rng);
    }
    for (uint32_t i = 0; i < MANY; i++) {
        machines[i].alive = machines[i].has_model = true;
        snprintf(machines[i].name, sizeof(machines[i].name), "n%u", i);
    }
    struct query q;
    char why[QUERY_WHY_MAX];
    query_init(&q);
    strcpy(q.model, "m");
    json_t *status = status_of(machines, MANY);
    json_t *answer = query_answer(&q, status, why);
    ck_assert_ptr_nonnull(answer);
    ck_assert_int_gt(json_integer_value(json_object_get(answer, "found")), MANY / 2);
    ck_assert(json_is_string(json_object_get(answer, "would_choose")));
    json_decref(answer);
    json_decref(status);
    free(machines);
}
END_TEST

START_TEST(spellings)
{
    static const char *const good[] = {
        "{\"model\": \"m\", \"tier\": \"4-6\", \"radius_km\": 50, \"vram_gib\": 8, "
        "\"budget_ms\": 50, \"tags\": \"eu,gdpr\", \"near\": [50.1, 8.7], \"k\": 3, "
        "\"jurisdiction\": \"DE,FR\"}",
        "{\"model\": \"m\", \"tier\": [4, 6], \"radius_km\": 49.5, \"vram_mib\": 8192, "
        "\"budget_ms\": 50.0, \"tags\": [\"gdpr\", \"eu\"], \"near\": [50.1, 8.7], \"k\": 3, "
        "\"jurisdiction\": [\"DE\", \"FR\"]}"};
    struct query q[2];
    char why[QUERY_WHY_MAX];
    for (int i = 0; i < 2; i++) {
        json_t *object = json_loads(good[i], 0, NULL);
        query_init(&q[i]);
        ck_assert(query_read(&q[i], object, why));
        json_decref(object);
    }
    ck_assert_mem_eq(&q[0], &q[1], sizeof(q[0]));
    ck_assert_uint_eq(q[0].tier_min, 4);
    ck_assert_uint_eq(q[0].tier_max, 6);
    ck_assert_uint_eq(q[0].vram_mib, 8192);
    ck_assert_uint_eq(q[0].budget_us, 50000);
    ck_assert_uint_eq(q[0].land_count, 2);
    ck_assert_str_eq(q[0].lands[0], "DE");
    ck_assert_str_eq(q[0].lands[1], "FR");
    ck_assert_uint_eq(q[0].tags, weft_tag_mask("eu") | weft_tag_mask("gdpr"));
}
END_TEST

START_TEST(not_queries)
{
    static const char *const bad[] = {"{\"model\": \"\"}",
                                      "{\"model\": 3}",
                                      "{\"tier\": 8}",
                                      "{\"tier\": [5, 4]}",
                                      "{\"tier\": [1]}",
                                      "{\"tier\": \"x\"}",
                                      "{\"radius_km\": -1}",
                                      "{\"radius_km\": 70000}",
                                      "{\"near\": [91, 0]}",
                                      "{\"near\": [1]}",
                                      "{\"tags\": \"nonsense\"}",
                                      "{\"tags\": [1]}",
                                      "{\"tags\": \"eu,,us\"}",
                                      "{\"jurisdiction\": \"de\"}",
                                      "{\"jurisdiction\": \"DEU\"}",
                                      "{\"jurisdiction\": \"DE,,FR\"}",
                                      "{\"jurisdiction\": \"AA,AB,AC,AD,AE,AF,AG,AH,AI\"}",
                                      "{\"jurisdiction\": 7}",
                                      "{\"budget_ms\": \"5\"}",
                                      "{\"vram_gib\": 1e9}",
                                      "{\"anything\": 1}",
                                      "{\"e2e\": 1}",
                                      "[]",
                                      "{\"prompt_bytes\": 1e12}",
                                      "{\"k\": 5000}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct query q;
        char why[QUERY_WHY_MAX] = "";
        json_t *object = json_loads(bad[i], 0, NULL);
        ck_assert_ptr_nonnull(object);
        query_init(&q);
        ck_assert_msg(!query_read(&q, object, why), "%s", bad[i]);
        ck_assert_uint_gt(strlen(why), 0);
        json_decref(object);
    }
}
END_TEST

START_TEST(answers_that_cannot_be_used)
{
    static const char *const bad[] = {
        "{}",
        "{\"node\": \"a\", \"members\": []}",
        "{\"node\": \"a\", \"members\": [1, null]}",
        "{\"node\": \"a\", \"members\": [{\"name\": \"a\", \"id\": 1}]}",
        "{\"node\": \"b\", \"members\": [{\"name\": \"a\", \"id\": 1, \"latitude_deg\": 1}]}",
        ("{\"node\": \"a\", \"members\": [{\"name\": \"a\", \"id\": 1, \"latitude_deg\": 1}, "
         "{\"name\": \"c\", \"id\": 1, \"latitude_deg\": 1, \"alive\": true}]}")};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct query q;
        char why[QUERY_WHY_MAX] = "";
        json_t *status = json_loads(bad[i], 0, NULL);
        ck_assert_ptr_nonnull(status);
        query_init(&q);
        strcpy(q.model, "m");
        ck_assert_msg(query_answer(&q, status, why) == NULL, "%s", bad[i]);
        ck_assert_uint_gt(strlen(why), 0);
        json_decref(status);
    }
}
END_TEST

MAIN_OF("query", like_a_plain_reading, who_has_the_beginning, never_cut_silently, large_meshes,
        spellings, not_queries, answers_that_cannot_be_used)
