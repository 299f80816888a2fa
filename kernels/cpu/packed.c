/* SPDX-License-Identifier: Apache-2.0 */
/* Row-major blocks of the model's file to panels. Each group of a row is first spread to 32 plain
 * bytes, the same way for all types, and then put in its lane. */
#include "kernels/cpu/packed.h"

#include <string.h>

#include "kernels/cpu/expand.h"

/* What one group of one row has. */
struct group {
    uint8_t weights[PACKED_GROUP];
    uint8_t head[4];   /* half scale, half minimum, of the super block */
    uint8_t scales[4]; /* halves, or two bytes */
};

bool packed_measure(const struct model_tensor *source, struct packed *out)
{
    struct packed_format format;
    *out = (struct packed){.type = source->type, .rows = source->rows, .cols = source->cols};
    if (!packed_format_of(source->type, &format))
        return false;
    const size_t groups = source->cols / PACKED_GROUP;
    const size_t scales = packed_scales_at(format.scales, groups);
    const bool has_heads = format.scales == PACKED_RUN_MIN || format.scales == PACKED_TWO_RUNS;
    out->quants_at = ((has_heads ? packed_head_at(groups) : scales) + 63) / 64 * 64;
    out->panel_bytes = out->quants_at + groups * packed_group_bytes(format.bits);
    return true;
}

size_t packed_bytes(const struct packed *packed)
{
    size_t bytes;
    if (__builtin_mul_overflow(packed->panel_bytes, (size_t)packed_panels(packed), &bytes))
        return SIZE_MAX;
    return bytes;
}

static void read_q4(const uint8_t *block, size_t quants_at, struct group *out)
{
    memcpy(out->scales, block, quants_at == 4 ? 4 : 2);
    for (size_t i = 0; i < 16; i++) {
        out->weights[i] = block[quants_at + i] & 15u;
        out->weights[i + 16] = block[quants_at + i] >> 4;
    }
}

static void read_q5(const uint8_t *block, size_t quants_at, struct group *out)
{
    uint32_t fifth;
    memcpy(out->scales, block, quants_at == 8 ? 4 : 2);
    memcpy(&fifth, block + quants_at - 4, sizeof(fifth));
    for (size_t i = 0; i < 16; i++) {
        const uint32_t both = block[quants_at + i];
        out->weights[i] = (uint8_t)((both & 15u) | (fifth >> i & 1u) << 4);
        out->weights[i + 16] = (uint8_t)(both >> 4 | (fifth >> (i + 16) & 1u) << 4);
    }
}

static void read_q8_0(const uint8_t *block, struct group *out)
{
    memcpy(out->scales, block, 2);
    for (size_t i = 0; i < PACKED_GROUP; i++)
        out->weights[i] = block[2 + i] ^ 0x80u; /* signed, 128 higher */
}

static void read_k(const uint8_t *block, size_t run, bool has_fifth, struct group *out)
{
    const uint8_t *fifth = block + 16;
    const uint8_t *quants = block + (has_fifth ? 48 : 16) + run / 2 * 32;
    uint8_t scales[8];
    uint8_t mins[8];
    expand_k_scales(block + 4, scales, mins);
    memcpy(out->head, block, 4);
    out->scales[0] = scales[run];
    out->scales[1] = mins[run];
    for (size_t i = 0; i < PACKED_GROUP; i++) {
        uint32_t value = (uint32_t)quants[i] >> (run % 2 * 4) & 15u;
        if (has_fifth)
            value |= ((uint32_t)fifth[i] >> run & 1u) << 4;
        out->weights[i] = (uint8_t)value;
    }
}

static void read_q6_k(const uint8_t *block, size_t run, struct group *out)
{
    const uint8_t *low = block + run / 4 * 64 + run % 2 * 32;
    const uint8_t *high = block + 128 + run / 4 * 32;
    memcpy(out->head, block + 208, 2);
    memcpy(out->scales, block + 192 + run * 2, 2);
    for (size_t i = 0; i < PACKED_GROUP; i++)
        out->weights[i] =
            (uint8_t)((low[i] >> (run % 4 / 2 * 4) & 15u) | (high[i] >> (run % 4 * 2) & 3u) << 4);
}

static void read_group(const struct model_tensor *source, uint32_t row, size_t group,
                       struct group *out)
{
    const uint8_t *data = source->data + row * source->row_bytes;
    const size_t run = group % PACKED_SUPER;
    const size_t super = group / PACKED_SUPER;
    switch (source->type) {
    case GGUF_TENSOR_Q4_0:
        read_q4(data + group * 18, 2, out);
        break;
    case GGUF_TENSOR_Q4_1:
        read_q4(data + group * 20, 4, out);
        break;
    case GGUF_TENSOR_Q5_0:
        read_q5(data + group * 22, 6, out);
        break;
    case GGUF_TENSOR_Q5_1:
        read_q5(data + group * 24, 8, out);
        break;
    case GGUF_TENSOR_Q8_0:
        read_q8_0(data + group * 34, out);
        break;
    case GGUF_TENSOR_Q4_K:
        read_k(data + super * 144, run, false, out);
        break;
    case GGUF_TENSOR_Q5_K:
        read_k(data + super * 176, run, true, out);
        break;
    default:
        read_q6_k(data + super * 210, run, out);
        break;
    }
}

static void put_scales(enum packed_scales scales, const struct group *g, size_t group,
                       uint32_t lane, uint8_t *panel)
{
    uint8_t *at = panel + packed_scales_at(scales, group);
    uint8_t *head = panel + packed_head_at(group);
    switch (scales) {
    case PACKED_HALF_MIN:
        memcpy(at + 2 * PACKED_ROWS + 2 * lane, g->scales + 2, 2);
        memcpy(at + 2 * lane, g->scales, 2);
        break;
    case PACKED_HALF:
        memcpy(at + 2 * lane, g->scales, 2);
        break;
    case PACKED_RUN_MIN:
    case PACKED_TWO_RUNS:
        memcpy(head + 2 * lane, g->head, 2);
        memcpy(head + 2 * PACKED_ROWS + 2 * lane, g->head + 2, 2);
        at[lane] = g->scales[0];
        at[PACKED_ROWS + lane] = g->scales[1];
        break;
    }
}

static void put_weights(uint32_t bits, const struct group *g, uint32_t lane, uint8_t *quads)
{
    uint8_t bytes[PACKED_GROUP];
    const size_t count = packed_group_bytes(bits) / PACKED_ROWS;
    memcpy(bytes, g->weights, sizeof(bytes));
    for (size_t i = 0; bits == 4 && i < count; i++)
        bytes[i] = (uint8_t)(g->weights[i] | g->weights[i + count] << 4);
    for (size_t j = 0; j < count / 4; j++)
        memcpy(quads + 4 * (j * PACKED_ROWS + lane), bytes + 4 * j, 4);
}

void packed_write(const struct packed *packed, const struct model_tensor *source, uint32_t begin,
                  uint32_t end, uint8_t *data)
{
    struct packed_format format;
    if (!packed_format_of(packed->type, &format))
        return;
    const size_t groups = packed->cols / PACKED_GROUP;
    const size_t group_bytes = packed_group_bytes(format.bits);
    memset(data + begin * packed->panel_bytes, 0, (end - begin) * packed->panel_bytes);
    for (uint32_t r = begin * PACKED_ROWS; r < end * PACKED_ROWS && r < packed->rows; r++) {
        uint8_t *panel = data + r / PACKED_ROWS * packed->panel_bytes;
        const uint32_t lane = r % PACKED_ROWS;
        struct group g = {0};
        for (size_t i = 0; i < groups; i++) {
            read_group(source, r, i, &g);
            put_scales(format.scales, &g, i, lane, panel);
            put_weights(format.bits, &g, lane, panel + packed->quants_at + i * group_bytes);
        }
    }
}
