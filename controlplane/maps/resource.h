/* SPDX-License-Identifier: Apache-2.0 */
/*
 * resource.h - what a node has to give, as bytes: the part of a state (state.h) that says it. The
 * format allows for messages that tell only what has changed since a whole one, and for an age that
 * who passes them on adds to; states are always whole, and come from the node itself.
 *
 * Pure functions, any thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "controlplane/maps/resource.def"
#include "schemas/base/clock.h"

#define RESOURCE_MODELS_MAX 16u
#define RESOURCE_WIRE_MAX   152u

struct resource_facts {
#define RESOURCE_DECLARE_(bit, type, name, text) type name;
    RESOURCE_FIELDS(RESOURCE_DECLARE_)
#undef RESOURCE_DECLARE_
    uint32_t model_count;
    uint32_t models[RESOURCE_MODELS_MAX]; /* weft_model_id(); beyond model_count zero */
};

struct resource_message {
    uint32_t node;
    uint64_t incarnation;
    uint32_t version;
    uint32_t whole_version; /* equal to version: a whole message */
    uint64_t age_ns;
    uint32_t mask;               /* bits of RESOURCE_FIELDS, RESOURCE_MODELS_BIT */
    struct resource_facts facts; /* what the mask names; the rest is zero */
};

#define RESOURCE_MODELS_BIT (UINT32_C(1) << 15)
#define RESOURCE_MASK_ALL   (RESOURCE_MODELS_BIT | ((UINT32_C(1) << RESOURCE_FIELD_COUNT) - 1))

/* Returns its length. */
size_t resource_write(const struct resource_message *message, uint8_t out[RESOURCE_WIRE_MAX]);

/* False: not a message that resource_write() can have written. */
bool resource_read(struct resource_message *message, const void *data, size_t size);
