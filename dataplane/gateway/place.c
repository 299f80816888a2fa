/* SPDX-License-Identifier: Apache-2.0 */
/* place.c - where a request may run, from headers and from the body's `weft`; see place.def. Both
 * are read as text: what JSON has as number or list is written as a header would have it. */
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <weft/wire.h>

#include "dataplane/gateway/api.h"
#include "dataplane/gateway/place.def"
#include "schemas/base/text.h"

#define HEADER_PREFIX "x-weft-"
#define SLO_PREFIX    "x-slo-"
#define VALUE_MAX     256u

enum place_type { TAGS, COUNTRY, TIERS, POSITION, TEXT, U32, FLAG, MODEL, MODELS };

enum place_id {
#define PLACE_ID_(name, header, type, min, max, text) PLACE_##name,
    GATEWAY_PLACES(PLACE_ID_)
#undef PLACE_ID_
};

static const struct place {
    const char *name;
    const char *header;
    enum place_type type;
    double min;
    double max;
} places[] = {
#define PLACE_ROW_(name, header, type, min, max, text) {#name, header, type, min, max},
    GATEWAY_PLACES(PLACE_ROW_)
#undef PLACE_ROW_
};
#define PLACES (sizeof(places) / sizeof(places[0]))

/* ---- values ---- */

/* A whole text as a number. */
static bool number_read(const char *text, double min, double max, double *out)
{
    char *end;
    if (!isdigit((unsigned char)text[0]) && text[0] != '-') {
        return false;
    }
    *out = strtod(text, &end);
    return *end == '\0' && isfinite(*out) && *out >= min && *out <= max;
}

/* Two numbers with `separator` between them. */
static bool pair_read(const char *text, char separator, double out[2])
{
    char first[32];
    const char *middle = strchr(text + (text[0] == '-'), separator);
    if (middle == NULL || (size_t)(middle - text) >= sizeof(first)) {
        return false;
    }
    memcpy(first, text, (size_t)(middle - text));
    first[middle - text] = '\0';
    middle++;
    middle += *middle == ' ';
    return number_read(first, -180, 180, &out[0]) && number_read(middle, -180, 180, &out[1]);
}

static bool tags_read(struct api_request *r, const char *text)
{
    char copy[sizeof(r->tags)];
    size_t used = 0;
    char *rest = NULL;
    memcpy(copy, text, strlen(text) + 1);
    for (char *tag = strtok_r(copy, ", ", &rest); tag != NULL; tag = strtok_r(NULL, ", ", &rest)) {
        if (weft_tag_mask(tag) == 0) {
            return false;
        }
        used += (size_t)snprintf(r->tags + used, sizeof(r->tags) - used, "%s%s",
                                 used != 0 ? "," : "", tag);
    }
    r->query.tags = r->tags;
    return used != 0;
}

static bool country_read(struct api_request *r, const char *text)
{
    snprintf(r->jurisdiction, sizeof(r->jurisdiction), "%s", text);
    r->more.jurisdiction = r->jurisdiction;
    r->query.more = &r->more;
    return weft_jurisdiction_mask(text) != 0;
}

static bool tiers_read(struct api_request *r, const char *text)
{
    double pair[2];
    if (!pair_read(text, '-', pair)) {
        if (!number_read(text, 0, WEFT_TIER_MAX, &pair[0])) {
            return false;
        }
        pair[1] = pair[0];
    }
    r->query.has_tiers = true;
    r->query.tier_min = (uint32_t)fmax(pair[0], 0);
    r->query.tier_max = (uint32_t)fmax(pair[1], 0);
    return pair[0] >= 0 && pair[0] <= pair[1] && pair[1] <= WEFT_TIER_MAX &&
           pair[0] == trunc(pair[0]) && pair[1] == trunc(pair[1]);
}

static bool position_read(struct api_request *r, const char *text)
{
    double pair[2];
    if (!pair_read(text, ',', pair) || fabs(pair[0]) > 90) {
        return false;
    }
    r->query.has_position = true;
    r->query.latitude_deg = pair[0];
    r->query.longitude_deg = pair[1];
    return true;
}

static bool session_read(struct api_request *r, const char *text)
{
    json_t *kept = json_string(text); /* refuses what is no UTF-8 */
    if (kept == NULL || json_array_append_new(r->kept, kept) != 0) {
        return false;
    }
    r->query.session = json_string_value(kept);
    return text[0] != '\0';
}

static bool model_read(struct api_request *r, const char *text)
{
    size_t len = strlen(text);
    if (len == 0 || len >= sizeof(r->cascade) || !text_is_word(text, len) ||
        strchr(text, ',') != NULL) {
        return false;
    }
    memcpy(r->cascade, text, len + 1);
    return true;
}

static bool models_read(struct api_request *r, const char *text)
{
    char *rest = NULL;
    r->downgrade_count = 0;
    memcpy(r->downgrade, text, strlen(text) + 1);
    for (char *name = strtok_r(r->downgrade, ", ", &rest); name != NULL;
         name = strtok_r(NULL, ", ", &rest)) {
        if (r->downgrade_count == API_DOWNGRADES_MAX || strlen(name) >= WEFT_MODEL_NAME_MAX ||
            !text_is_word(name, strlen(name))) {
            return false;
        }
        r->downgrades[r->downgrade_count++] = name;
    }
    return r->downgrade_count != 0;
}

static bool flag_read(const char *text, bool *out)
{
    *out = strcmp(text, "1") == 0 || strcasecmp(text, "true") == 0;
    return *out || strcmp(text, "0") == 0 || strcasecmp(text, "false") == 0;
}

static bool u32_set(struct api_request *r, enum place_id id, uint32_t value)
{
    switch (id) {
    case PLACE_radius_km:
        r->query.radius_km = value;
        return true;
    case PLACE_vram_mib:
        r->query.vram_mib = value;
        return true;
    case PLACE_budget_ms:
    case PLACE_ttft_ms:
        r->query.budget_ms = value;
        r->has_budget = true;
        return true;
    case PLACE_tpot_ms:
        r->tpot_ms = value;
        return true;
    case PLACE_priority:
        r->query.priority = value;
        return true;
    default:
        return false;
    }
}

static bool flag_set(struct api_request *r, enum place_id id, bool value)
{
    switch (id) {
    case PLACE_e2e:
        r->query.end_to_end = value;
        return true;
    case PLACE_hedge:
        r->query.hedge = value;
        return true;
    case PLACE_once:
        r->query.once = value;
        return true;
    default:
        return false;
    }
}

/* `text` is shorter than VALUE_MAX. */
static bool place_set(struct api_request *r, enum place_id id, const char *text)
{
    const struct place *p = &places[id];
    double number;
    bool flag;
    switch (p->type) {
    case TAGS:
        return tags_read(r, text);
    case COUNTRY:
        return country_read(r, text);
    case TIERS:
        return tiers_read(r, text);
    case POSITION:
        return position_read(r, text);
    case TEXT:
        return session_read(r, text);
    case U32:
        return number_read(text, p->min, p->max, &number) && number == trunc(number) &&
               u32_set(r, id, (uint32_t)number);
    case FLAG:
        return flag_read(text, &flag) && flag_set(r, id, flag);
    case MODEL:
        return model_read(r, text);
    case MODELS:
        return models_read(r, text);
    default:
        return false;
    }
}

/* ---- from JSON ---- */

/* A list as its elements with `separator` between them. */
static bool list_text(const json_t *list, char separator, char out[VALUE_MAX]);

static bool value_text(const json_t *value, char separator, char out[VALUE_MAX])
{
    int wanted = -1;
    if (json_is_string(value)) {
        if (strlen(json_string_value(value)) == json_string_length(value)) {
            wanted = snprintf(out, VALUE_MAX, "%s", json_string_value(value));
        }
    } else if (json_is_integer(value)) {
        wanted = snprintf(out, VALUE_MAX, "%lld", (long long)json_integer_value(value));
    } else if (json_is_real(value)) {
        wanted = snprintf(out, VALUE_MAX, "%.17g", json_real_value(value));
    } else if (json_is_boolean(value)) {
        wanted = snprintf(out, VALUE_MAX, "%d", json_is_true(value));
    } else if (json_is_array(value) && separator != '\0') {
        return list_text(value, separator, out);
    }
    return wanted >= 0 && wanted < (int)VALUE_MAX;
}

static bool list_text(const json_t *list, char separator, char out[VALUE_MAX])
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < json_array_size(list); i++) {
        char part[VALUE_MAX];
        if (!value_text(json_array_get(list, i), '\0', part) ||
            used + strlen(part) + 2 > VALUE_MAX) {
            return false;
        }
        if (i != 0) {
            out[used++] = separator;
        }
        strcpy(out + used, part);
        used += strlen(part);
    }
    return true;
}

bool api_places(struct api_request *r, const json_t *weft, struct api_error *error)
{
    const char *key;
    json_t *value;
    if (!json_is_object(weft)) {
        return error_bad(error, "weft", "`weft` must be an object.");
    }
    json_object_foreach((json_t *)(uintptr_t)weft, key, value)
    {
        char text[VALUE_MAX];
        size_t id = 0;
        while (id < PLACES && strcmp(places[id].name, key) != 0) {
            id++;
        }
        if (id == PLACES) {
            return error_bad(error, "weft", "`weft.%.64s` is no constraint that Weft knows.", key);
        }
        bool fits = places[id].type == MODEL    ? json_is_string(value)
                    : places[id].type == MODELS ? json_is_string(value) || json_is_array(value)
                                                : true;
        if (!fits || !value_text(value, places[id].type == TIERS ? '-' : ',', text) ||
            !place_set(r, (enum place_id)id, text)) {
            return error_bad(error, "weft", "`weft.%s` cannot have that value.", key);
        }
    }
    return true;
}

/* ---- from headers ---- */

bool api_header(struct api_request *r, const char *name, const char *value, struct api_error *error)
{
    bool ours = strncasecmp(name, HEADER_PREFIX, strlen(HEADER_PREFIX)) == 0 ||
                strncasecmp(name, SLO_PREFIX, strlen(SLO_PREFIX)) == 0;
    if (!ours) {
        return true;
    }
    size_t id = 0;
    while (id < PLACES && strcasecmp(places[id].header, name) != 0) {
        id++;
    }
    if (id == PLACES) {
        return error_bad(error, NULL, "%.64s is no constraint that Weft knows.", name);
    }
    if (strlen(value) >= VALUE_MAX || !place_set(r, (enum place_id)id, value)) {
        return error_bad(error, NULL, "%s cannot have that value.", places[id].header);
    }
    return true;
}
