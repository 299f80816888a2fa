/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes registry.h with any answer of a gateway: never more than there is room for, every text
 * ended, and a promise that a node keeps to itself. */
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct registry_service services[ROOM];
    struct registry_promise node;
    size_t count = 0;
    char *copy = malloc(size + 1); /* of its own, so that the sanitizer sees its end */
    memcpy(copy, data, size);
    const int rc = registry_services(copy, size, "m", services, ROOM, &count);
    need(count <= ROOM && (rc == 0 || count == 0));
    for (size_t i = 0; i < count; i++) {
        need(services[i].id[0] && memchr(services[i].id, 0, sizeof(services[i].id)) != NULL);
        need(memchr(services[i].url, 0, sizeof(services[i].url)) != NULL);
        need(registry_keeps(&services[i].promise, &services[i].promise));
    }
    if (registry_node(copy, size, "n", &node) == 0)
        need(node.jurisdiction[2] == 0 && registry_keeps(&node, &node));
    free(copy);
    return 0;
}
