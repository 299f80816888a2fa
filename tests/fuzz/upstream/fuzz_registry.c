/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes registry.h with any answer of a gateway: never more than there is room for, every text
 * ended, and a promise that a node keeps to itself. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/upstream/registry.h"

#define ROOM 3u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void need(int good)
{
    if (!good)
        abort();
}

static bool fits(const struct registry_service *service, void *user)
{
    (void)user;
    need(service->id[0] && memchr(service->url, 0, sizeof(service->url)) != NULL);
    return service->promise.jurisdiction[0] != 'X';
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char models[ROOM][REGISTRY_MODEL_MAX];
    size_t model_count = 0;
    struct registry_service services[ROOM];
    struct registry_promise node;
    size_t count = 0;
    char *copy = malloc(size + (size == 0)); /* of its own, so that the sanitizer sees its end */
    memcpy(copy, data, size);
    const int rc = registry_services(copy, size, "m", services, ROOM, &count);
    need(count <= ROOM && (rc == 0 || count == 0));
    for (size_t i = 0; i < count; i++) {
        need(services[i].id[0] && memchr(services[i].id, 0, sizeof(services[i].id)) != NULL);
        need(memchr(services[i].url, 0, sizeof(services[i].url)) != NULL);
        need(registry_keeps(&services[i].promise, &services[i].promise));
    }
    need(registry_models(copy, size, fits, NULL, models, ROOM, &model_count) == rc);
    for (size_t i = 0; i < model_count; i++) {
        need(models[i][0] && memchr(models[i], 0, sizeof(models[i])) != NULL);
        for (size_t j = 0; j < i; j++)
            need(strcmp(models[i], models[j]) != 0);
    }
    if (registry_node(copy, size, "n", &node) == 0)
        need(node.jurisdiction[2] == 0 && registry_keeps(&node, &node));
    free(copy);
    return 0;
}
