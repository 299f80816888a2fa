/* SPDX-License-Identifier: Apache-2.0 */
/* registry.c - see registry.h. */
#include "kernels/upstream/registry.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>
#include <weft/wire.h>

static bool copy(char *out, size_t size, const json_t *value)
{
    const char *text = json_string_value(value);
    if (!text || strlen(text) >= size || strlen(text) != json_string_length(value))
        return false;
    memcpy(out, text, strlen(text) + 1);
    return true;
}

static uint32_t number(const json_t *object, const char *key)
{
    const json_int_t value = json_integer_value(json_object_get(object, key));
    if (value < 0)
        return 0;
    return value < (json_int_t)UINT32_MAX ? (uint32_t)value : UINT32_MAX;
}

/* A name that is not known is nothing that anybody could ask for. */
static uint32_t tags_of(const json_t *list)
{
    uint32_t tags = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        tags |= name ? weft_tag_mask(name) : 0;
    }
    return tags;
}

static struct registry_promise promise_of(const json_t *entry)
{
    struct registry_promise promise = {.tags = tags_of(json_object_get(entry, "tags"))};
    if (!copy(promise.jurisdiction, sizeof(promise.jurisdiction),
              json_object_get(entry, "jurisdiction")))
        promise.jurisdiction[0] = 0;
    return promise;
}

static bool is_word(const json_t *object, const char *key, const char *word)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text && strcmp(text, word) == 0;
}

static bool has_model(const json_t *entry, const char *model)
{
    const json_t *models = json_object_get(entry, "models");
    for (size_t i = 0; i < json_array_size(models); i++) {
        const char *name = json_string_value(json_array_get(models, i));
        if (name && strcmp(name, model) == 0)
            return true;
    }
    return false;
}

/* `model` NULL: whichever it has. */
static bool take(const json_t *entry, const char *model, struct registry_service *out)
{
    const json_t *load = json_object_get(entry, "load");
    if (!is_word(entry, "source", "registered") || !is_word(entry, "kind", "openai") ||
        (model && !has_model(entry, model)))
        return false;
    *out = (struct registry_service){
        .promise = promise_of(entry),
        .told = json_is_true(json_object_get(load, "told")),
        .room = number(load, "room"),
        .queue_us = number(load, "queue_us"),
        .age_s = number(entry, "age_s"),
    };
    return copy(out->id, sizeof(out->id), json_object_get(entry, "id")) && out->id[0] &&
           copy(out->url, sizeof(out->url), json_object_get(entry, "address"));
}

/* The list, or NULL with *root set in either case. */
static const json_t *list_of(const char *data, size_t len, json_t **root)
{
    *root = json_loadb(data, len, 0, NULL);
    const json_t *list = json_object_get(*root, "data");
    return json_is_array(list) ? list : NULL;
}

int registry_services(const char *data, size_t len, const char *model, struct registry_service *out,
                      size_t max, size_t *count)
{
    json_t *root;
    const json_t *list = list_of(data, len, &root);
    *count = 0;
    for (size_t i = 0; i < json_array_size(list) && *count < max; i++)
        *count += take(json_array_get(list, i), model, &out[*count]);
    json_decref(root);
    return list ? 0 : -EBADMSG;
}

static void model_add(const json_t *value, char (*out)[REGISTRY_MODEL_MAX], size_t max,
                      size_t *count)
{
    char name[REGISTRY_MODEL_MAX];
    if (!copy(name, sizeof(name), value) || !name[0])
        return;
    for (size_t i = 0; i < *count; i++)
        if (strcmp(out[i], name) == 0)
            return;
    if (*count < max)
        memcpy(out[(*count)++], name, sizeof(name));
}

int registry_models(const char *data, size_t len,
                    bool (*fits)(const struct registry_service *service, void *user), void *user,
                    char (*out)[REGISTRY_MODEL_MAX], size_t max, size_t *count)
{
    json_t *root;
    const json_t *list = list_of(data, len, &root);
    struct registry_service service;
    *count = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        const json_t *models = json_object_get(entry, "models");
        if (!take(entry, NULL, &service) || !fits(&service, user))
            continue;
        for (size_t j = 0; j < json_array_size(models); j++)
            model_add(json_array_get(models, j), out, max, count);
    }
    json_decref(root);
    return list ? 0 : -EBADMSG;
}

int registry_node(const char *data, size_t len, const char *name, struct registry_promise *out)
{
    json_t *root;
    const json_t *list = list_of(data, len, &root);
    int rc = list ? -ENOENT : -EBADMSG;
    for (size_t i = 0; rc == -ENOENT && i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        if (is_word(entry, "source", "mesh") && is_word(entry, "node", name)) {
            *out = promise_of(entry);
            rc = 0;
        }
    }
    json_decref(root);
    return rc;
}

bool registry_keeps(const struct registry_promise *service, const struct registry_promise *node)
{
    return (node->tags & ~service->tags) == 0 &&
           (!node->jurisdiction[0] || strcmp(node->jurisdiction, service->jurisdiction) == 0);
}
