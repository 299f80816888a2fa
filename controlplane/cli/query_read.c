/* SPDX-License-Identifier: Apache-2.0 */
/* query_read.c - queries from JSON; see query.h. */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "controlplane/cli/cli.h"
#include "controlplane/cli/query.h"
#include "dataplane/flow/prompt.h"

#define NUMBER_MAX 4e9

void query_init(struct query *query)
{
    memset(query, 0, sizeof(*query));
    query->tier_max = WEFT_TIER_MAX;
    query->budget_us = WEFT_BUDGET_NONE;
    query->k = QUERY_K_DEFAULT;
}

static bool number_of(const json_t *value, double min, double max, double *out)
{
    *out = json_is_number(value) ? json_number_value(value) : NAN;
    return *out >= min && *out <= max;
}

static bool whole_of(const json_t *value, double max, uint32_t *out)
{
    double number;
    if (!number_of(value, 0, max, &number)) {
        return false;
    }
    *out = (uint32_t)ceil(number);
    return true;
}

static bool is_whole(const json_t *value)
{
    return json_number_value(value) == trunc(json_number_value(value));
}

/* "4-6", [4, 6] or 5. */
static bool tier_of(struct query *query, const json_t *value)
{
    if (json_is_string(value)) {
        return cli_range(json_string_value(value), WEFT_TIER_MAX, &query->tier_min,
                         &query->tier_max);
    }
    const json_t *low = value, *high = value;
    if (json_is_array(value) && json_array_size(value) == 2) {
        low = json_array_get(value, 0);
        high = json_array_get(value, 1);
    }
    return is_whole(low) && is_whole(high) && whole_of(low, WEFT_TIER_MAX, &query->tier_min) &&
           whole_of(high, WEFT_TIER_MAX, &query->tier_max) && query->tier_min <= query->tier_max;
}

/* Two capital letters, as members have them. */
static bool land_add(struct query *query, const char *name)
{
    bool good = strlen(name) == 2 && isupper((unsigned char)name[0]) &&
                isupper((unsigned char)name[1]) && query->land_count < QUERY_LANDS_MAX;
    if (good) {
        strcpy(query->lands[query->land_count++], name);
    }
    return good;
}

static bool tag_add(struct query *query, const char *name)
{
    uint32_t mask = weft_tag_mask(name);
    query->tags |= mask;
    return mask != 0;
}

/* "eu,gdpr" or ["eu", "gdpr"], each name to `add`. */
static bool names_of(struct query *query, const json_t *value,
                     bool (*add)(struct query *query, const char *name))
{
    bool good = json_is_array(value) || json_is_string(value);
    for (size_t i = 0; good && i < json_array_size(value); i++) {
        const char *name = json_string_value(json_array_get(value, i));
        good = name != NULL && add(query, name);
    }
    const char *list = json_string_value(value);
    while (good && list != NULL && *list != '\0') {
        char name[32] = "";
        size_t length = strcspn(list, ",");
        good = length > 0 && length < sizeof(name);
        memcpy(name, list, good ? length : 0);
        good = good && add(query, name);
        list += length;
        list += *list == ',' ? 1 : 0;
    }
    return good;
}

static bool near_of(struct query *query, const json_t *value)
{
    query->has_near = true;
    return json_is_array(value) && json_array_size(value) == 2 &&
           number_of(json_array_get(value, 0), -90, 90, &query->near_latitude_deg) &&
           number_of(json_array_get(value, 1), -180, 180, &query->near_longitude_deg);
}

static bool model_of(struct query *query, const json_t *value)
{
    const char *name = json_string_value(value);
    if (name == NULL || name[0] == '\0' || strlen(name) >= sizeof(query->model)) {
        return false;
    }
    strcpy(query->model, name);
    return true;
}

static bool budget_of(struct query *query, const json_t *value)
{
    double ms;
    bool good = number_of(value, 0, NUMBER_MAX / 1e3, &ms);
    query->budget_us = good ? (uint32_t)(ms * 1e3) : 0;
    return good;
}

/* As the SDK writes it, which hashes it then. */
bool query_prompt(struct query *query, const char *system, const char *user)
{
    weft_job_part_t parts[2];
    struct prompt_spec spec = {.parts = parts, .max_tokens = 1};
    size_t bytes = 0;
    for (int i = 0; i < 2; i++) {
        const char *text = i == 0 ? system : user;
        if (text != NULL) {
            bytes += strlen(text);
            parts[spec.part_count++] =
                (weft_job_part_t){i == 0 ? WEFT_ROLE_SYSTEM : WEFT_ROLE_USER, text, strlen(text)};
        }
    }
    size_t size = prompt_size(&spec);
    uint8_t *body = size != 0 ? malloc(size) : NULL;
    if (body == NULL) {
        return false;
    }
    prompt_write(&spec, body);
    query->prompt_bytes = (uint32_t)bytes;
    query->prefix = prompt_prefix(weft_model_id(query->model), body, size);
    free(body);
    return true;
}

/* Instead of the prompt's length the prompt. */
static bool prompt_read(struct query *query, const json_t *object, char why[QUERY_WHY_MAX])
{
    const json_t *user = json_object_get(object, "prompt");
    const json_t *system = json_object_get(object, "system");
    if (user == NULL && system == NULL) {
        return true;
    }
    if (json_object_get(object, "model") == NULL) {
        snprintf(why, QUERY_WHY_MAX, "a prompt needs its model beside it");
        return false;
    }
    if (!query_prompt(query, json_string_value(system), json_string_value(user))) {
        snprintf(why, QUERY_WHY_MAX, "the prompt is too long");
        return false;
    }
    return true;
}

static bool key_read(struct query *query, const char *key, const json_t *value)
{
    if (strcmp(key, "model") == 0) {
        return model_of(query, value);
    } else if (strcmp(key, "near") == 0) {
        return near_of(query, value);
    } else if (strcmp(key, "radius_km") == 0) {
        return whole_of(value, UINT16_MAX, &query->radius_km);
    } else if (strcmp(key, "tier") == 0) {
        return tier_of(query, value);
    } else if (strcmp(key, "vram_mib") == 0) {
        return whole_of(value, UINT16_MAX * (double)WEFT_VRAM_UNIT_MIB, &query->vram_mib);
    } else if (strcmp(key, "vram_gib") == 0) {
        double gib;
        bool good = number_of(value, 0, UINT16_MAX / 1024.0 * WEFT_VRAM_UNIT_MIB, &gib);
        query->vram_mib = good ? (uint32_t)ceil(gib * 1024.0) : 0;
        return good;
    } else if (strcmp(key, "tags") == 0) {
        query->tags = 0;
        return names_of(query, value, tag_add);
    } else if (strcmp(key, "jurisdiction") == 0) {
        query->land_count = 0;
        return names_of(query, value, land_add);
    } else if (strcmp(key, "budget_ms") == 0) {
        return budget_of(query, value);
    } else if (strcmp(key, "e2e") == 0) {
        query->end_to_end = json_is_true(value);
        return json_is_boolean(value);
    } else if (strcmp(key, "prompt_bytes") == 0) {
        return whole_of(value, WEFT_MESSAGE_MAX, &query->prompt_bytes);
    } else if (strcmp(key, "prompt") == 0 || strcmp(key, "system") == 0) {
        return json_is_string(value); /* prompt_read() */
    } else if (strcmp(key, "max_tokens") == 0) {
        return whole_of(value, UINT16_MAX, &query->max_tokens);
    }
    return strcmp(key, "k") == 0 && whole_of(value, QUERY_K_MAX, &query->k);
}

bool query_read(struct query *query, const json_t *object, char why[QUERY_WHY_MAX])
{
    const char *key;
    json_t *value;
    if (!json_is_object(object)) {
        snprintf(why, QUERY_WHY_MAX, "a query is an object");
        return false;
    }
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        if (!key_read(query, key, value)) {
            snprintf(why, QUERY_WHY_MAX,
                     "%.40s is no key of a query, or has a value that it cannot have", key);
            return false;
        }
    }
    return prompt_read(query, object, why);
}
