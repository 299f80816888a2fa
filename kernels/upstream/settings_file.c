/* SPDX-License-Identifier: Apache-2.0 */
/*
 * settings_file.c - the file of `--config`, mapped by libcyaml; see settings.h and the README. Keys
 * that it does not know are errors.
 */
#include <cyaml/cyaml.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "kernels/upstream/settings.h"

/* As libcyaml fills them. */
struct file_endpoint {
    char *url;
    char *name;
    char *model;
    char *key_file;
    char *key_env;
    char *ca;
    char *resume;
    uint32_t slots;
    double price_in;
    double price_out;
};

struct file {
    char *model;
    char *tokenizer;
    char *registry;
    char *registry_key_file;
    uint32_t context;
    uint32_t slots;
    uint32_t first_s;
    uint32_t silence_s;
    struct file_endpoint *cloud_endpoints;
    unsigned cloud_endpoints_count;
    char **models;
    unsigned models_count;
    bool all_models;
};

#define TEXT(owner, key)                                                                           \
    CYAML_FIELD_STRING_PTR(#key, CYAML_FLAG_OPTIONAL | CYAML_FLAG_POINTER, struct owner, key, 1,   \
                           CYAML_UNLIMITED)
#define COUNT(owner, key) CYAML_FIELD_UINT(#key, CYAML_FLAG_OPTIONAL, struct owner, key)
#define PRICE(owner, key) CYAML_FIELD_FLOAT(#key, CYAML_FLAG_OPTIONAL, struct owner, key)

static const cyaml_schema_field_t endpoint_fields[] = {
    TEXT(file_endpoint, url),
    TEXT(file_endpoint, name),
    TEXT(file_endpoint, model),
    TEXT(file_endpoint, key_file),
    TEXT(file_endpoint, key_env),
    TEXT(file_endpoint, ca),
    TEXT(file_endpoint, resume),
    COUNT(file_endpoint, slots),
    PRICE(file_endpoint, price_in),
    PRICE(file_endpoint, price_out),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t endpoint_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct file_endpoint, endpoint_fields),
};
static const cyaml_schema_value_t model_schema = {
    CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char, 1, REGISTRY_MODEL_MAX - 1),
};
static const cyaml_schema_field_t file_fields[] = {
    TEXT(file, model),
    CYAML_FIELD_SEQUENCE("models", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file, models,
                         &model_schema, 1, SERVED_MAX),
    CYAML_FIELD_BOOL("all_models", CYAML_FLAG_OPTIONAL, struct file, all_models),
    TEXT(file, tokenizer),
    TEXT(file, registry),
    TEXT(file, registry_key_file),
    COUNT(file, context),
    COUNT(file, slots),
    COUNT(file, first_s),
    COUNT(file, silence_s),
    CYAML_FIELD_SEQUENCE("cloud_endpoints", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct file,
                         cloud_endpoints, &endpoint_schema, 1, ENDPOINT_ENDPOINTS_MAX),
    CYAML_FIELD_END,
};
static const cyaml_schema_value_t file_schema = {
    CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct file, file_fields),
};

/* The first thing that libcyaml complains of. */
struct complaint {
    char text[SETTINGS_WHY_MAX / 2];
};

static void on_log(cyaml_log_t level, void *user, const char *format, va_list arguments)
{
    struct complaint *complaint = user;
    if (level >= CYAML_LOG_ERROR && !complaint->text[0]) {
        (void)vsnprintf(complaint->text, sizeof(complaint->text), format, arguments);
        complaint->text[strcspn(complaint->text, "\n")] = 0;
    }
}

static cyaml_config_t cyaml_config(struct complaint *complaint)
{
    return (cyaml_config_t){.log_fn = on_log,
                            .log_ctx = complaint,
                            .log_level = CYAML_LOG_ERROR,
                            .mem_fn = cyaml_mem,
                            .flags = CYAML_CFG_DEFAULT};
}

/* What options have not said. */
static int models_take(struct settings *settings, const struct file *file)
{
    if ((file->model != NULL) + (file->models_count != 0) + file->all_models > 1)
        return -EINVAL;
    settings->all_models = file->all_models;
    for (unsigned i = 0; i < file->models_count; i++)
        settings->models[settings->model_count++] = file->models[i];
    if (file->model)
        settings->models[settings->model_count++] = file->model;
    settings->model = settings->models[0];
    return 0;
}

static int take(struct settings *settings, const struct file *file, const char *allowed, char *why,
                size_t why_size)
{
    if (!settings->model_count && !settings->all_models && models_take(settings, file)) {
        (void)snprintf(why, why_size, "it is model, models or all_models, one of them");
        return -EINVAL;
    }
    settings->tokenizer = settings->tokenizer ? settings->tokenizer : file->tokenizer;
    settings->registry_url = settings->registry_url ? settings->registry_url : file->registry;
    settings->registry_key_file =
        settings->registry_key_file ? settings->registry_key_file : file->registry_key_file;
    settings->context = settings->context ? settings->context : file->context;
    settings->slots = settings->slots ? settings->slots : file->slots;
    settings->first_s = settings->first_s ? settings->first_s : file->first_s;
    settings->silence_s = settings->silence_s ? settings->silence_s : file->silence_s;
    int rc = 0;
    for (unsigned i = 0; rc == 0 && i < file->cloud_endpoints_count; i++) {
        const struct file_endpoint *e = &file->cloud_endpoints[i];
        const struct settings_endpoint written = {
            .url = e->url ? e->url : "",
            .name = e->name,
            .model = e->model,
            .key_file = e->key_file,
            .key_env = e->key_env,
            .ca = e->ca,
            .resume = e->resume,
            .slots = e->slots,
            .price_in = e->price_in,
            .price_out = e->price_out,
        };
        rc = settings_add(settings, &written, allowed, why, why_size);
    }
    return rc;
}

int settings_file_read(struct settings *settings, const char *path, const char *allowed, char *why,
                       size_t why_size)
{
    struct complaint complaint = {""};
    const cyaml_config_t config = cyaml_config(&complaint);
    struct file *file = NULL;
    const cyaml_err_t err =
        cyaml_load_file(path, &config, &file_schema, (cyaml_data_t **)&file, NULL);
    if (err != CYAML_OK || !file) { /* an empty file is no error to it */
        (void)snprintf(why, why_size, "%.200s: %s", path,
                       complaint.text[0] ? complaint.text
                       : err             ? cyaml_strerror(err)
                                         : "empty");
        return -EINVAL;
    }
    settings->file = file;
    return take(settings, file, allowed, why, why_size);
}

void settings_file_free(struct settings *settings)
{
    struct complaint complaint = {""};
    const cyaml_config_t config = cyaml_config(&complaint);
    if (settings->file)
        (void)cyaml_free(&config, &file_schema, settings->file, 0);
    settings->file = NULL;
}
