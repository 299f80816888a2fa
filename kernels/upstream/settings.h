/* SPDX-License-Identifier: Apache-2.0 */
/*
 * settings.h - what weft-upstream is told: by options, by a file, by the environment. settings.c
 * reads options and checks the whole, settings_file.c reads the file.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/upstream/endpoint.h"
#include "kernels/upstream/served.h"

#define SETTINGS_WHY_MAX 512u

/* An endpoint as written, before it is checked. Texts belong to the caller; NULL = not given. */
struct settings_endpoint {
    const char *url;
    const char *name;
    const char *model; /* the server's name for it */
    const char *key_file;
    const char *key_env;
    const char *ca;
    const char *resume;
    uint32_t slots;
    double price_in, price_out;
};

struct settings {
    const char *port;  /* the node's port socket */
    const char *model; /* what clients ask for: the first of them; NULL with all_models */
    const char *models[SERVED_MAX];
    size_t model_count;
    bool all_models; /* of the registry */
    const char *tokenizer;
    uint32_t context;
    uint32_t slots;
    uint32_t first_s;
    uint32_t silence_s;
    const char *registry_url;      /* as written; NULL = none */
    const char *registry_key_file; /* NULL = none */
    struct where registry;         /* base "" = none */
    char registry_key[ENDPOINT_KEY_MAX];
    const char *ca;      /* authorities of the registry; NULL = the system's */
    const char *allowed; /* WHERE_VARIABLE's value; NULL = all */
    bool local_only;     /* WHERE_VARIABLE allows local servers and no others */
    struct endpoint_config endpoints[ENDPOINT_ENDPOINTS_MAX];
    size_t endpoint_count;
    void *file; /* settings_file.c's: texts of the file */
};

/* Returns 0 to go on, 1 when done (--help), -EINVAL after a message. */
int settings_read(struct settings *settings, int argc, char **argv);
/* Forgets the keys. */
void settings_deinit(struct settings *settings);

/* Checks an endpoint and adds it, unless `allowed` (the environment's list, may be NULL) forbids
 * it: then it is left out with a warning. `why` gets a sentence on failure. Returns 0 or -EINVAL.
 */
int settings_add(struct settings *settings, const struct settings_endpoint *written,
                 const char *allowed, char *why, size_t why_size);

/* Reads a file (the format is in the README) into what options have not set. */
int settings_file_read(struct settings *settings, const char *path, const char *allowed, char *why,
                       size_t why_size);
void settings_file_free(struct settings *settings);
