/* SPDX-License-Identifier: Apache-2.0 */
/* query_zones.c - see query_zones.h. */
#include "controlplane/cli/query_zones.h"

#include <math.h>
#include <string.h>

static double number_at(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : 0;
}

void query_zones_init(struct query_zones *zones)
{
    *zones =
        (struct query_zones){.members = json_array(), .not_heard = json_array(), .complete = true};
}

void query_zones_deinit(struct query_zones *zones)
{
    json_decref(zones->self);
    json_decref(zones->members);
    json_decref(zones->not_heard);
    json_decref(zones->last);
}

json_t *query_zones_request(const struct query_zones *zones, const struct query *query)
{
    uint32_t vram = (query->vram_mib + WEFT_VRAM_UNIT_MIB - 1) / WEFT_VRAM_UNIT_MIB;
    json_t *request =
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "cmd", "query", "model", query->model,
                  "tags", (json_int_t)query->tags, "tier_min", (json_int_t)query->tier_min,
                  "tier_max", (json_int_t)query->tier_max, "radius_km",
                  (json_int_t)query->radius_km, "vram_64mib", (json_int_t)vram);
    if (query->has_near) {
        json_object_set_new(request, "latitude", json_real(query->near_latitude_deg));
        json_object_set_new(request, "longitude", json_real(query->near_longitude_deg));
    }
    if (query->land_count > 0) {
        json_t *lands = json_array();
        for (uint32_t i = 0; i < query->land_count; i++) {
            json_array_append_new(lands, json_string(query->lands[i]));
        }
        json_object_set_new(request, "jurisdictions", lands);
    }
    if (zones->last != NULL) {
        json_object_set(request, "after", zones->last);
    }
    return request;
}

/* A status answer that holds these members, and this node as who asks. */
static json_t *status_of(const struct query_zones *zones, const json_t *members)
{
    json_t *all = json_array();
    json_t *self = json_deep_copy(zones->self);
    const char *name = json_string_value(json_object_get(zones->self, "name"));
    bool found = false;
    for (size_t i = 0; i < json_array_size(members); i++) {
        json_t *member = json_array_get(members, i);
        const char *other = json_string_value(json_object_get(member, "name"));
        found = found || (other != NULL && name != NULL && strcmp(other, name) == 0);
        json_array_append(all, member);
    }
    if (!found) {
        json_object_set_new(self, "asker", json_true());
        json_array_append(all, self);
    }
    json_decref(self);
    return json_pack("{s:s, s:o}", "node", zones->node, "members", all);
}

static json_t *judged(const struct query_zones *zones, const struct query *query,
                      const json_t *members, char why[QUERY_WHY_MAX])
{
    json_t *status = status_of(zones, members);
    json_t *answer = query_answer(query, status, why);
    json_decref(status);
    return answer;
}

static bool page_read(struct query_zones *zones, const json_t *page)
{
    const char *node = json_string_value(json_object_get(page, "node"));
    json_t *self = json_object_get(page, "self");
    const json_t *names = json_object_get(page, "not_heard");
    if (node == NULL || strlen(node) >= sizeof(zones->node) || !json_is_object(self) ||
        !json_is_array(json_object_get(page, "found"))) {
        return false;
    }
    strcpy(zones->node, node);
    json_decref(zones->self);
    zones->self = json_incref(self);
    if (!json_is_true(json_object_get(page, "complete"))) {
        zones->complete = false;
        json_array_clear(zones->not_heard);
        json_array_extend(zones->not_heard, (json_t *)(uintptr_t)names);
        zones->unheard = number_at(page, "unheard");
    }
    zones->age_ms = fmax(zones->age_ms, number_at(page, "age_ms"));
    zones->hops = fmax(zones->hops, number_at(page, "hops"));
    zones->asks += number_at(page, "asks");
    zones->took_ms += number_at(page, "took_ms");
    zones->pages++;
    return true;
}

int query_zones_take(struct query_zones *zones, const struct query *query, const json_t *page,
                     char why[QUERY_WHY_MAX])
{
    const char *error = json_string_value(json_object_get(page, "error"));
    json_t *found = json_object_get(page, "found");
    json_t *last = json_object_get(page, "last");
    if (error != NULL || !page_read(zones, page)) {
        snprintf(why, QUERY_WHY_MAX, "%.120s", error != NULL ? error : "that is no answer");
        return -1;
    }
    json_t *answer = judged(zones, query, found, why);
    if (answer == NULL) {
        return -1;
    }
    zones->fit += (uint64_t)number_at(answer, "found");
    json_decref(answer);
    json_array_extend(zones->members, found);
    bool more = json_is_true(json_object_get(page, "more")) && json_is_array(last);
    if (!more || zones->fit >= query->k) {
        return 0;
    }
    json_decref(zones->last);
    zones->last = json_incref(last);
    zones->cut = zones->pages >= QUERY_PAGES_MAX;
    return !zones->cut;
}

json_t *query_zones_answer(const struct query_zones *zones, const struct query *query,
                           char why[QUERY_WHY_MAX])
{
    json_t *answer = judged(zones, query, zones->members, why);
    if (answer == NULL) {
        return NULL;
    }
    json_object_set_new(answer, "scope", json_string("zones"));
    json_object_set_new(answer, "complete", json_boolean(zones->complete && !zones->cut));
    json_object_set(answer, "not_heard", zones->not_heard);
    json_object_set_new(answer, "unheard", json_integer((json_int_t)zones->unheard));
    json_object_set_new(answer, "cut", json_boolean(zones->cut));
    json_object_set_new(answer, "oldest_record_ms", json_real(zones->age_ms));
    json_object_set_new(answer, "asks", json_integer((json_int_t)zones->asks));
    json_object_set_new(answer, "hops", json_integer((json_int_t)zones->hops));
    json_object_set_new(answer, "pages", json_integer((json_int_t)zones->pages));
    json_object_set_new(answer, "took_ms", json_real(zones->took_ms));
    return answer;
}
