/* SPDX-License-Identifier: Apache-2.0 */
/* models.c - see models.h. */
#include "dataplane/gateway/models.h"

#include <stdlib.h>
#include <string.h>
#include <weft/wire.h>

/* Adds or finds the model; what is known of it is an object {nodes, context_tokens, room}. */
static json_t *entry_of(json_t *models, const char *name)
{
    json_t *entry = json_object_get(models, name);
    if (entry == NULL) {
        entry = json_pack("{s:[], s:i, s:i}", "nodes", "context_tokens", 0, "room", 0);
        json_object_set_new(models, name, entry);
    }
    return json_object_get(models, name);
}

static void member_add(json_t *models, const json_t *member)
{
    const json_t *names = json_object_get(member, "models");
    json_int_t context = json_integer_value(json_object_get(member, "context_tokens"));
    json_int_t room = json_integer_value(json_object_get(member, "room"));
    if (!json_is_true(json_object_get(member, "alive"))) {
        return;
    }
    for (size_t i = 0; i < json_array_size(names); i++) {
        const char *name = json_string_value(json_array_get(names, i));
        json_t *entry = name != NULL ? entry_of(models, name) : NULL;
        json_t *most = json_object_get(entry, "context_tokens");
        if (entry == NULL) {
            continue;
        }
        json_array_append(json_object_get(entry, "nodes"), json_object_get(member, "name"));
        if (context > json_integer_value(most)) {
            json_integer_set(most, context);
        }
        json_t *sum = json_object_get(entry, "room");
        json_integer_set(sum, json_integer_value(sum) + room);
    }
}

static void named_add(json_t *models, const char *more)
{
    for (const char *at = more; at != NULL && *at != '\0';) {
        char name[WEFT_MODEL_NAME_MAX];
        size_t len = strcspn(at, ",");
        if (len > 0 && len < sizeof(name)) {
            memcpy(name, at, len);
            name[len] = '\0';
            (void)entry_of(models, name);
        }
        at += len + (at[len] == ',');
    }
}

/* {name: entry} of all models. */
static json_t *models_of(const json_t *status, const char *more)
{
    json_t *models = json_object();
    const json_t *members = json_object_get(status, "members");
    for (size_t i = 0; i < json_array_size(members); i++) {
        member_add(models, json_array_get(members, i));
    }
    named_add(models, more);
    return models;
}

static void model_write(const char *name, const json_t *entry, uint64_t created_s, struct buf *out)
{
    json_int_t context = json_integer_value(json_object_get(entry, "context_tokens"));
    char *nodes = json_dumps(json_object_get(entry, "nodes"), JSON_COMPACT);
    buf_add_text(out, "{\"id\":");
    buf_add_quoted(out, name);
    buf_add_format(out, ",\"object\":\"model\",\"created\":%llu,\"owned_by\":\"weft\"",
                   (unsigned long long)created_s);
    if (context > 0) {
        buf_add_format(out, ",\"max_model_len\":%lld", (long long)context);
    }
    buf_add_text(out, ",\"weft\":{\"nodes\":");
    buf_add_text(out, nodes != NULL ? nodes : "[]");
    buf_add_format(out, ",\"room\":%lld}}",
                   (long long)json_integer_value(json_object_get(entry, "room")));
    free(nodes);
}

static int names_compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

void models_write_list(const json_t *status, const char *more, uint64_t created_s, struct buf *out)
{
    json_t *models = models_of(status, more);
    const char **names = calloc(json_object_size(models) + 1, sizeof(*names));
    const char *name;
    json_t *entry;
    size_t count = 0;
    json_object_foreach(models, name, entry)
    {
        if (names != NULL) {
            names[count++] = name;
        }
    }
    if (count > 0) {
        qsort(names, count, sizeof(*names), names_compare);
    }
    buf_add_text(out, "{\"object\":\"list\",\"data\":[");
    for (size_t i = 0; i < count; i++) {
        buf_add_text(out, i != 0 ? "," : "");
        model_write(names[i], json_object_get(models, names[i]), created_s, out);
    }
    buf_add_text(out, "]}");
    free(names);
    json_decref(models);
}

bool models_write_one(const json_t *status, const char *more, const char *name, uint64_t created_s,
                      struct buf *out)
{
    json_t *models = models_of(status, more);
    const json_t *entry = json_object_get(models, name);
    if (entry != NULL) {
        model_write(name, entry, created_s, out);
    }
    json_decref(models);
    return entry != NULL;
}
