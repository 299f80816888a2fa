/* SPDX-License-Identifier: Apache-2.0 */
/* synthetic.h - a model of any shape without a file: seeded random weights, the same memory for
 * every layer, so that shapes of gigabytes fit a host. For benches; what it says has no sense. */
#pragma once

#include "kernels/model/model.h"

struct synthetic_shape {
    const char *name;
    uint32_t type; /* of all matrices, enum gguf_tensor_type */
    uint32_t layers;
    uint32_t width;
    uint32_t ffn_width;
    uint32_t heads;
    uint32_t kv_heads;
    uint32_t head_width;
    uint32_t vocab;
    uint32_t context;
};

/* NULL without memory. weight_bytes is what a token reads. */
struct model *synthetic_create(const struct synthetic_shape *shape, uint64_t seed);
void synthetic_destroy(struct model *model);
