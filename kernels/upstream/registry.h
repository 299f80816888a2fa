/* SPDX-License-Identifier: Apache-2.0 */
/*
 * registry.h - reads a gateway's two registries (dataplane/gateway/peers.h): which services that
 * registered there answer for a model, how busy they say they are and what they promise; and what
 * a node promises, so that no service is asked behind a node that promises more.
 *
 * Pure: JSON in, plain data out. The JSON is not trusted: what does not fit is left out. Threads:
 * none.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define REGISTRY_ID_MAX     20u
#define REGISTRY_URL_MAX    256u
#define REGISTRY_MAX        256u /* services of one answer that are looked at */
#define REGISTRY_MODEL_MAX  64u  /* of a name, with its zero: what the wire takes */
#define REGISTRY_MODELS_MAX 64u  /* models of one answer that are looked at */

/* Policy tags and jurisdiction, of a node or a service. */
struct registry_promise {
    uint32_t tags;
    char jurisdiction[3]; /* "" = none */
};

struct registry_service {
    char id[REGISTRY_ID_MAX];
    char url[REGISTRY_URL_MAX];
    struct registry_promise promise;
    bool told; /* it has told its load: */
    uint32_t room;
    uint32_t queue_us;
    uint32_t age_s; /* since it was registered last */
};

/* Reads an answer to GET /v1/compute/peers: those that were registered and have `model`, `max` at
 * most. Sets *count. Returns 0 or -EBADMSG: it is no such list. */
int registry_services(const char *data, size_t len, const char *model, struct registry_service *out,
                      size_t max, size_t *count);

/* Reads the same answer: the models of those that were registered and that `fits` lets through,
 * each once, in the order of the list, `max` at most. Names that a mesh cannot carry are left out.
 * Sets *count. Returns as registry_services(). */
int registry_models(const char *data, size_t len,
                    bool (*fits)(const struct registry_service *service, void *user), void *user,
                    char (*out)[REGISTRY_MODEL_MAX], size_t max, size_t *count);

/* Reads an answer to GET /v1/peers: what the member of that name promises. Returns 0, -ENOENT if
 * there is none, or -EBADMSG. */
int registry_node(const char *data, size_t len, const char *name, struct registry_promise *out);

/* Does `service` promise all that `node` does? */
bool registry_keeps(const struct registry_promise *service, const struct registry_promise *node);
