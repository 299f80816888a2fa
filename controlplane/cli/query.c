/* SPDX-License-Identifier: Apache-2.0 */
/*
 * query.c - see query.h. A node's verdict is the packet path's own: it is put into a routing table
 * in which it alone has models, and the choice among one says what bars it, if anything does.
 */
#include "controlplane/cli/query.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/route/prefixes.h"
#include "schemas/tags.def"

#define LINE_BYTES 64u
#define LOAD_NS    1u               /* any time but 0: the loads of the table are news */
#define LEARNED_NS PREFIXES_LIFE_NS /* any: all are heard at once */

struct asked {
    const struct query *query;
    struct route_query route;
    struct route_node *nodes; /* of all members, in the order of the status */
    const json_t *members;
    uint32_t count;
    uint32_t self;
    struct geo_point near;
    struct route_load *loads;
    struct scan *scratch;
    struct prefixes *known; /* NULL: it is not asked who has how the prompt begins */
    struct prefix_holder holders[PREFIXES_HOLDERS];
    uint32_t holder_count;
    json_t *candidates, *excluded, *not_heard;
    double oldest_ms;
};

/* Zero-filled, on cache lines as the packet path's types ask for; `size` is a multiple of one. */
static void *lines_alloc(size_t count, size_t size)
{
    void *at = aligned_alloc(LINE_BYTES, count * size);
    return at != NULL ? memset(at, 0, count * size) : NULL;
}
WEFT_ASSERT(sizeof(struct route_node) % LINE_BYTES == 0 && sizeof(struct scan) % LINE_BYTES == 0 &&
                (WEFT_NODE_NONE + 1u) * sizeof(struct route_load) % LINE_BYTES == 0,
            "whole lines");

/* ---- from JSON ---- */

static double number_at(const json_t *object, const char *key, double none)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : none;
}

static uint32_t whole_at(const json_t *object, const char *key, uint32_t max)
{
    double value = number_at(object, key, 0);
    return !(value > 0) ? 0 : value < (double)max ? (uint32_t)value : max;
}

static const char *text_at(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

/* What it has told of its speed with that model, as the packet path would predict with it. */
static struct route_pace pace_of(const json_t *member, const char *model)
{
    const json_t *speeds = json_object_get(member, "speeds");
    for (size_t i = 0; i < json_array_size(speeds); i++) {
        const json_t *s = json_array_get(speeds, i);
        if (strcmp(text_at(s, "model"), model) == 0) {
            return (struct route_pace){
                .prefill_ns = route_pace_ns(whole_at(s, "prefill_tps", UINT32_MAX)),
                .decode_ns = route_pace_ns(whole_at(s, "stream_tps", UINT32_MAX)),
            };
        }
    }
    return (struct route_pace){.prefill_ns = 0};
}

static struct route_node node_of(const json_t *member, uint32_t index)
{
    double latitude = number_at(member, "latitude_deg", 0);
    double longitude = number_at(member, "longitude_deg", 0);
    uint32_t vram = whole_at(member, "free_vram_mib", UINT32_MAX) / WEFT_VRAM_UNIT_MIB;
    struct route_node node = {
        .id = (uint16_t)whole_at(member, "id", UINT16_MAX),
        .tier = (uint8_t)whole_at(member, "tier", WEFT_TIER_MAX),
        .alive = json_is_true(json_object_get(member, "alive")),
        .reachable = true,
        .x = weft_cell_x(longitude),
        .y = weft_cell_y(latitude),
        .at = geo_point_at(latitude, longitude),
        .addr = addr_of_v4(htonl(index + 1)), /* stands for its own; no packet goes anywhere */
        .load_ns = LOAD_NS,
        .queue_us = json_is_true(json_object_get(member, "draining"))
                        ? WEFT_QUEUE_DRAINING
                        : whole_at(member, "queue_us", UINT32_MAX),
        .room = (uint16_t)whole_at(member, "room", UINT16_MAX),
        .free_vram_64mib = (uint16_t)(vram < UINT16_MAX ? vram : UINT16_MAX),
        .rtt_us = whole_at(member, "rtt_us", UINT32_MAX),
        .prefill_per_second = whole_at(member, "prefill_tps", UINT32_MAX),
        .decode_per_second = whole_at(member, "decode_tps", UINT32_MAX),
    };
    node.keeps_prompts = json_array_size(json_object_get(member, "prefixes")) != 0;
    const json_t *tags = json_object_get(member, "tags");
    for (size_t i = 0; i < json_array_size(tags); i++) {
        const char *name = json_string_value(json_array_get(tags, i));
        node.tags |= name != NULL ? weft_tag_mask(name) : 0;
    }
    const json_t *models = json_is_true(json_object_get(member, "asker")) ||
                                   json_is_true(json_object_get(member, "barred"))
                               ? NULL
                               : json_object_get(member, "models");
    for (size_t i = 0; i < json_array_size(models) && i < ROUTE_MODELS_PER_NODE; i++) {
        const char *name = json_string_value(json_array_get(models, i));
        node.paces[node.model_count] = pace_of(member, name != NULL ? name : "");
        node.models[node.model_count++] = name != NULL ? weft_model_id(name) : 0;
    }
    return node;
}

static struct route_query route_query_of(const struct query *query)
{
    return (struct route_query){
        .model = weft_model_id(query->model),
        .tags = query->tags,
        .budget_us = query->budget_us,
        .prompt_bytes = query->prompt_bytes,
        .max_tokens = (uint16_t)query->max_tokens,
        .vram_64mib = (uint16_t)((query->vram_mib + WEFT_VRAM_UNIT_MIB - 1) / WEFT_VRAM_UNIT_MIB),
        .radius_km = (uint16_t)query->radius_km,
        .x = weft_cell_x(query->near_longitude_deg),
        .y = weft_cell_y(query->near_latitude_deg),
        .tier_min = (uint8_t)query->tier_min,
        .tier_max = (uint8_t)query->tier_max,
        .has_position = query->has_near,
        .end_to_end = query->end_to_end,
    };
}

/* Is it where the query allows? A query may name several, a request only one. */
static bool land_allowed(const struct query *query, const json_t *member)
{
    const char *land = text_at(member, "jurisdiction");
    bool found = query->land_count == 0;
    for (uint32_t i = 0; i < query->land_count; i++) {
        found = found || strcmp(query->lands[i], land) == 0;
    }
    return found;
}

/* ---- verdicts ---- */

/* The packet path's choice among these nodes, asked at this one. Loads are the nodes' own at each
 * call: none has been heard in between, and no table is like another. */
static int choose_among(struct asked *a, const struct route_node *nodes, uint32_t count,
                        struct route_table **table, struct route_choice *choice)
{
    int rc = route_table_create(table, nodes, count, a->nodes[a->self].id, 1, false);
    if (rc == 0) {
        route_choose(*table, a->loads, a->scratch, &a->route, choice);
    }
    return rc;
}

/* Would it be chosen if nobody else had the model? */
static int choose_alone(struct asked *a, uint32_t index, struct route_table **table,
                        struct route_choice *choice)
{
    struct route_node nodes[2] = {a->nodes[index], a->nodes[a->self]};
    nodes[1].model_count = 0;
    return choose_among(a, nodes, index == a->self ? 1 : 2, table, choice);
}

static void verdict_text(const struct asked *a, uint32_t index, const struct route_choice *choice,
                         char *text, size_t size)
{
    static const char *const tag_names[32] = {
#define TAG_NAME_(name, bit, words) [bit] = #name,
        WEFT_TAGS(TAG_NAME_)};
    const struct route_node *node = &a->nodes[index];
    switch (choice->constraint) {
    case WEFT_C_MODEL:
        snprintf(text, size, "does not have the model");
        break;
    case WEFT_C_TAGS:
        snprintf(text, size, "lacks the tag %s",
                 tag_names[__builtin_ctz(a->query->tags & ~node->tags)]);
        break;
    case WEFT_C_JURISDICTION: /* is known before it comes to a choice */
        snprintf(text, size, "is elsewhere");
        break;
    case WEFT_C_TIER:
        snprintf(text, size, "is tier %u", node->tier);
        break;
    case WEFT_C_RADIUS:
        snprintf(text, size, "is %.0f km away", geo_distance_km(a->near, node->at));
        break;
    case WEFT_C_VRAM:
        snprintf(text, size, "has %u MiB free", node->free_vram_64mib * WEFT_VRAM_UNIT_MIB);
        break;
    case WEFT_C_ROOM:
        snprintf(text, size, "is full");
        break;
    default:
        snprintf(text, size, "would take %.1f ms", choice->best / 1e3);
    }
}

static const char *verdict_name(uint16_t constraint)
{
    static const char *const names[] = {
#define CONSTRAINT_NAME_(name, value, unit, words) [value] = #name,
        WEFT_CONSTRAINTS(CONSTRAINT_NAME_)};
    return constraint < sizeof(names) / sizeof(names[0]) ? names[constraint] : "?";
}

/* "RADIUS" as JSON has it. */
static const char *lower_case(const char *name, char lower[16])
{
    size_t length = 0;
    for (; name[length] != '\0' && length < 15; length++) {
        lower[length] = (char)(name[length] | 0x20);
    }
    lower[length] = '\0';
    return lower;
}

static void exclude(struct asked *a, uint32_t index, const char *verdict, const char *text)
{
    char lower[16];
    json_array_append_new(a->excluded, json_pack("{s:s, s:i, s:s, s:s}", "name",
                                                 text_at(json_array_get(a->members, index), "name"),
                                                 "id", (int)a->nodes[index].id, "verdict",
                                                 lower_case(verdict, lower), "text", text));
}

/* Bytes of the prompt that a node is taken to have. */
static uint32_t known_at(const struct asked *a, const struct route_node *node)
{
    uint32_t bytes = 0;
    for (uint32_t i = 0; i < a->holder_count; i++) {
        bytes = a->holders[i].node == node->id ? prefix_bytes(a->holders[i].levels) : bytes;
    }
    return bytes < a->route.prompt_bytes ? bytes : a->route.prompt_bytes;
}

/* What a candidate has of the prompt, and what that is worth. */
static void include_known(struct asked *a, json_t *candidate, const struct route_table *table,
                          const struct route_node *node, uint32_t whole_us)
{
    const uint32_t bytes = known_at(a, node);
    uint32_t us = whole_us;
    (void)route_predict_known(table, a->loads, &a->route, (uint16_t)(node - table->nodes), bytes,
                              &us);
    json_object_set_new(candidate, "cached_tokens",
                        json_integer((json_int_t)(bytes / ROUTE_BYTES_PER_TOKEN)));
    json_object_set_new(candidate, "saved_ms", json_real((whole_us - us) / 1e3));
    json_object_set_new(candidate, "predicted_ms", json_real(us / 1e3));
}

/* Where a candidate belongs among those that there are: by distance, then id. */
static size_t place_of(const struct asked *a, uint32_t cells, uint16_t id)
{
    size_t from = 0, to = json_array_size(a->candidates);
    while (from < to) {
        size_t middle = from + (to - from) / 2;
        const json_t *other = json_array_get(a->candidates, middle);
        double there = number_at(other, "distance_cells", 0);
        if (there > cells || (there >= cells && number_at(other, "id", 0) > id)) {
            to = middle;
        } else {
            from = middle + 1;
        }
    }
    return from;
}

static void include(struct asked *a, uint32_t index, const struct route_table *table)
{
    const struct route_node *node = &table->nodes[route_table_find(table, a->nodes[index].id)];
    const json_t *member = json_array_get(a->members, index);
    uint32_t cells = route_distance(table, &a->route, node);
    uint32_t us = route_predict_us(&a->route, node, node->queue_us);
    const struct route_pace *pace = route_pace_of(node, a->route.model);
    json_t *age = json_object_get(member, "heard_ms_ago");
    json_t *candidate =
        json_pack("{s:s, s:i, s:f, s:I, s:f, s:i, s:i, s:I, s:f, s:f, s:f, s:O?}", "name",
                  text_at(member, "name"), "id", (int)node->id, "distance_km",
                  geo_distance_km(a->near, node->at), "distance_cells", (json_int_t)cells,
                  "predicted_ms", us / 1e3, "tier", (int)node->tier, "room", (int)node->room,
                  "free_vram_mib", (json_int_t)(node->free_vram_64mib * WEFT_VRAM_UNIT_MIB),
                  "queue_ms", node->queue_us / 1e3, "prefill_tps", round(1e9 / pace->prefill_ns),
                  "decode_tps", round(1e9 / pace->decode_ns), "age_ms", age);
    if (a->known != NULL) {
        include_known(a, candidate, table, node, us);
    }
    json_array_insert_new(a->candidates, place_of(a, cells, node->id), candidate);
}

static int judge(struct asked *a, uint32_t index)
{
    const json_t *member = json_array_get(a->members, index);
    if (json_is_true(json_object_get(member, "asker"))) {
        return 0; /* only to ask from: it was not found */
    }
    if (strcmp(text_at(member, "state"), "left") == 0) {
        exclude(a, index, "left", "has left the mesh"); /* and that is known: nothing is missing */
        return 0;
    }
    if (!a->nodes[index].alive) {
        exclude(a, index, "down", "is not heard");
        json_array_append_new(a->not_heard, json_string(text_at(member, "name")));
        return 0;
    }
    a->oldest_ms = fmax(a->oldest_ms, number_at(member, "heard_ms_ago", 0));
    struct route_table *table = NULL;
    struct route_choice choice;
    int rc = choose_alone(a, index, &table, &choice);
    if (rc == 0 && json_is_true(json_object_get(member, "barred"))) {
        exclude(a, index, "policy", "is excluded by the policy");
    } else if (rc == 0 && !land_allowed(a->query, member)) {
        const char *land = text_at(member, "jurisdiction");
        char text[32];
        snprintf(text, sizeof(text), land[0] != '\0' ? "is in %.2s" : "does not say where it is",
                 land);
        exclude(a, index, "jurisdiction", text);
    } else if (rc == 0 && choice.node == ROUTE_INDEX_NONE) {
        char text[64];
        verdict_text(a, index, &choice, text, sizeof(text));
        exclude(a, index, verdict_name(choice.constraint), text);
    } else if (rc == 0) {
        include(a, index, table);
    }
    route_table_destroy(table);
    return rc;
}

/* ---- the whole ---- */

static json_t *query_json(const struct asked *a)
{
    const struct query *q = a->query;
    json_t *json =
        json_pack("{s:s, s:[i, i]}", "model", q->model, "tier", (int)q->tier_min, (int)q->tier_max);
    json_object_set_new(json, "near",
                        json_pack("[f, f]", q->near_latitude_deg, q->near_longitude_deg));
    if (q->radius_km > 0) {
        json_object_set_new(json, "radius_km", json_integer(q->radius_km));
    }
    json_t *tags = json_array();
#define TAG_APPEND_(name, bit, words)                                                              \
    if ((q->tags & (UINT32_C(1) << (bit))) != 0) {                                                 \
        json_array_append_new(tags, json_string(#name));                                           \
    }
    WEFT_TAGS(TAG_APPEND_)
    json_object_set_new(json, "tags", tags);
    if (q->land_count > 0) {
        json_t *lands = json_array();
        for (uint32_t i = 0; i < q->land_count; i++) {
            json_array_append_new(lands, json_string(q->lands[i]));
        }
        json_object_set_new(json, "jurisdiction", lands);
    }
    if (q->vram_mib > 0) {
        json_object_set_new(json, "vram_mib", json_integer(q->vram_mib));
    }
    if (q->budget_us != WEFT_BUDGET_NONE) {
        json_object_set_new(json, "budget_ms", json_real(q->budget_us / 1e3));
        json_object_set_new(json, "e2e", json_boolean(q->end_to_end));
    }
    return json;
}

static json_t *answer_make(struct asked *a, const char *node)
{
    struct route_table *table = NULL;
    struct route_choice choice;
    if (choose_among(a, a->nodes, a->count, &table, &choice) != 0) {
        return NULL;
    }
    if (a->known != NULL && choice.node != ROUTE_INDEX_NONE) {
        prefixes_steer(a->known, table, a->loads, &a->route, a->query->prefix, LEARNED_NS, &choice);
    }
    json_t *chosen = json_null();
    for (uint32_t i = 0; choice.node != ROUTE_INDEX_NONE && i < a->count; i++) {
        if (a->nodes[i].id == table->nodes[choice.node].id) {
            chosen = json_string(text_at(json_array_get(a->members, i), "name"));
        }
    }
    char lower[16];
    json_t *binding = choice.node == ROUTE_INDEX_NONE
                          ? json_string(lower_case(verdict_name(choice.constraint), lower))
                          : json_null();
    route_table_destroy(table);
    size_t found = json_array_size(a->candidates);
    while (json_array_size(a->candidates) > a->query->k) {
        json_array_remove(a->candidates, json_array_size(a->candidates) - 1);
    }
    return json_pack("{s:s, s:s, s:o, s:I, s:O, s:o, s:o, s:O, s:b, s:O, s:f, s:I}", "node", node,
                     "scope", "local", "query", query_json(a), "found", (json_int_t)found,
                     "candidates", a->candidates, "would_choose", chosen, "binding", binding,
                     "excluded", a->excluded, "complete", (int)(json_array_size(a->not_heard) == 0),
                     "not_heard", a->not_heard, "oldest_record_ms", a->oldest_ms, "members",
                     (json_int_t)a->count);
}

/* Who has how much of how the prompt begins, as they have told. False: no memory. */
static bool learn_prefixes(struct asked *a)
{
    if (a->query->prefix == 0) {
        return true;
    }
    a->known = lines_alloc(1, sizeof(*a->known));
    for (uint32_t i = 0; a->known != NULL && i < a->count; i++) {
        const json_t *told = json_object_get(json_array_get(a->members, i), "prefixes");
        for (size_t n = 0; n < json_array_size(told); n++) {
            const char *digits = json_string_value(json_array_get(told, n));
            uint64_t prefix = digits != NULL ? strtoull(digits, NULL, 16) : 0;
            prefixes_learn(a->known, prefix, a->nodes[i].id, LEARNED_NS);
        }
    }
    a->holder_count =
        a->known != NULL ? prefixes_find(a->known, a->query->prefix, LEARNED_NS, a->holders) : 0;
    return a->known != NULL;
}

/* False: a sentence in `why`. */
static bool asked_fill(struct asked *a, struct query *query, const json_t *status,
                       char why[QUERY_WHY_MAX])
{
    a->members = json_object_get(status, "members");
    a->count = (uint32_t)json_array_size(a->members);
    a->self = a->count;
    a->nodes = lines_alloc(a->count + 1u, sizeof(*a->nodes));
    a->loads = lines_alloc(WEFT_NODE_NONE + 1u, sizeof(*a->loads));
    a->scratch = lines_alloc(1, sizeof(*a->scratch));
    if (a->count > ROUTE_NODES_MAX || a->nodes == NULL || a->loads == NULL || a->scratch == NULL) {
        snprintf(why, QUERY_WHY_MAX, "not enough memory");
        return false;
    }
    for (uint32_t i = 0; i < a->count; i++) {
        const json_t *member = json_array_get(a->members, i);
        a->nodes[i] = node_of(member, i);
        if (!land_allowed(query, member)) {
            a->nodes[i].model_count = 0;
        }
        if (strcmp(text_at(member, "name"), text_at(status, "node")) == 0) {
            a->self = i;
        }
        if (!json_is_number(json_object_get(member, "latitude_deg"))) {
            snprintf(why, QUERY_WHY_MAX, "the node does not tell where its members are");
            return false;
        }
    }
    if (a->self == a->count) {
        snprintf(why, QUERY_WHY_MAX, "the node's answer does not name itself among the members");
        return false;
    }
    if (!query->has_near) {
        const json_t *self = json_array_get(a->members, a->self);
        query->near_latitude_deg = number_at(self, "latitude_deg", 0);
        query->near_longitude_deg = number_at(self, "longitude_deg", 0);
    }
    a->query = query;
    a->near = geo_point_at(query->near_latitude_deg, query->near_longitude_deg);
    a->route = route_query_of(query);
    if (!learn_prefixes(a)) {
        snprintf(why, QUERY_WHY_MAX, "not enough memory");
        return false;
    }
    return true;
}

json_t *query_answer(const struct query *query, const json_t *status, char why[QUERY_WHY_MAX])
{
    struct query filled = *query;
    struct asked a = {
        .candidates = json_array(), .excluded = json_array(), .not_heard = json_array()};
    json_t *answer = NULL;
    if (asked_fill(&a, &filled, status, why)) {
        int rc = 0;
        for (uint32_t i = 0; i < a.count && rc == 0; i++) {
            rc = judge(&a, i);
        }
        answer = rc == 0 ? answer_make(&a, text_at(status, "node")) : NULL;
        if (answer == NULL) {
            snprintf(why, QUERY_WHY_MAX, "the node's members make no routing table");
        }
    }
    json_decref(a.candidates);
    json_decref(a.excluded);
    json_decref(a.not_heard);
    free(a.nodes);
    free(a.loads);
    free(a.scratch);
    free(a.known);
    return answer;
}

/* ---- for people ---- */

/* How far a search over the zones has got. */
static void zones_print(FILE *out, const json_t *answer)
{
    const json_t *not_heard = json_object_get(answer, "not_heard");
    bool complete = json_is_true(json_object_get(answer, "complete"));
    fprintf(out, "%s: oldest record %.0f ms; %.0f questions to other zones, %.1f ms\n",
            complete ? "complete" : "not complete", number_at(answer, "oldest_record_ms", 0),
            number_at(answer, "asks", 0), number_at(answer, "took_ms", 0));
    if (!complete) {
        fprintf(out, "not heard: %.0f parts of the mesh", number_at(answer, "unheard", 0));
        for (size_t i = 0; i < json_array_size(not_heard); i++) {
            fprintf(out, "%s%s", i == 0 ? ", where there are " : ", ",
                    json_string_value(json_array_get(not_heard, i)));
        }
        fputs(json_is_true(json_object_get(answer, "cut")) ? "; too many were found\n" : "\n", out);
    }
}

void query_print(FILE *out, const json_t *answer)
{
    const json_t *candidates = json_object_get(answer, "candidates");
    const json_t *excluded = json_object_get(answer, "excluded");
    const json_t *not_heard = json_object_get(answer, "not_heard");
    size_t found = (size_t)number_at(answer, "found", 0);
    if (json_array_size(candidates) > 0) {
        fprintf(out, "%-4s %-20s %5s %4s %9s %12s %5s %9s %9s %7s\n", "rank", "node", "id", "tier",
                "km", "predicted ms", "room", "free MiB", "queue ms", "age ms");
    }
    for (size_t i = 0; i < json_array_size(candidates); i++) {
        const json_t *c = json_array_get(candidates, i);
        char cached[40] = "";
        if (number_at(c, "cached_tokens", 0) > 0) {
            snprintf(cached, sizeof(cached), "  has %.0f tokens", number_at(c, "cached_tokens", 0));
        }
        fprintf(out, "%-4zu %-20s %5.0f %4.0f %9.1f %12.1f %5.0f %9.0f %9.1f %7.0f%s%s\n", i + 1,
                text_at(c, "name"), number_at(c, "id", 0), number_at(c, "tier", 0),
                number_at(c, "distance_km", 0), number_at(c, "predicted_ms", 0),
                number_at(c, "room", 0), number_at(c, "free_vram_mib", 0),
                number_at(c, "queue_ms", 0), number_at(c, "age_ms", 0), cached,
                strcmp(text_at(c, "name"), text_at(answer, "would_choose")) == 0 ? "  <- chosen"
                                                                                 : "");
    }
    if (found > json_array_size(candidates)) {
        fprintf(out, "and %zu further\n", found - json_array_size(candidates));
    }
    fputs(found == 0 ? "no node can take it\n" : "", out);
    for (size_t i = 0; i < json_array_size(excluded); i++) {
        const json_t *e = json_array_get(excluded, i);
        fprintf(out, "not  %-20s %5.0f %s\n", text_at(e, "name"), number_at(e, "id", 0),
                text_at(e, "text"));
    }
    if (strcmp(text_at(answer, "scope"), "zones") == 0) {
        zones_print(out, answer);
        return;
    }
    fprintf(out, "%s: %.0f of the %.0f members that %s knows are heard, oldest record %.0f ms\n",
            json_array_size(not_heard) == 0 ? "complete" : "not complete",
            number_at(answer, "members", 0) - (double)json_array_size(not_heard),
            number_at(answer, "members", 0), text_at(answer, "node"),
            number_at(answer, "oldest_record_ms", 0));
}
