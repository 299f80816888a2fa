/* SPDX-License-Identifier: Apache-2.0 */
/* Takes a file's blocks apart into the planes of weights.h. */
#include "kernels/cuda/weights.h"

#include <errno.h>
#include <string.h>

#include "kernels/model/model.h"

/* One block of a type: where its parts lie in the file. The scales may be two pieces there. */
struct block {
    uint32_t type;
    uint16_t elements;
    uint16_t size;
    uint16_t quants_at;
    uint16_t quants_size;
    uint16_t high_at;
    uint16_t high_size;
    uint16_t scales_at;
    uint16_t scales_size;
    uint16_t tail_at; /* goes behind the scales */
    uint16_t tail_size;
};

static const struct block blocks[] = {
    {WEIGHTS_F32, 1, 4, 0, 4, 0, 0, 0, 0, 0, 0},
    {WEIGHTS_F16, 1, 2, 0, 2, 0, 0, 0, 0, 0, 0},
    {WEIGHTS_BF16, 1, 2, 0, 2, 0, 0, 0, 0, 0, 0},
    {WEIGHTS_Q8_0, 32, 34, 2, 32, 0, 0, 0, 2, 0, 0},
    {WEIGHTS_Q4_0, 32, 18, 2, 16, 0, 0, 0, 2, 0, 0},
    {WEIGHTS_Q4_1, 32, 20, 4, 16, 0, 0, 0, 4, 0, 0},
    {WEIGHTS_Q5_0, 32, 22, 6, 16, 2, 4, 0, 2, 0, 0},
    {WEIGHTS_Q5_1, 32, 24, 8, 16, 4, 4, 0, 4, 0, 0},
    {WEIGHTS_Q4_K, 256, 144, 16, 128, 0, 0, 0, 16, 0, 0},
    {WEIGHTS_Q5_K, 256, 176, 48, 128, 16, 32, 0, 16, 0, 0},
    {WEIGHTS_Q6_K, 256, 210, 0, 128, 128, 64, 192, 16, 208, 2},
};

static const struct block *find_block(uint32_t type)
{
    for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++)
        if (blocks[i].type == type)
            return &blocks[i];
    return NULL;
}

static uint64_t round_up(uint64_t value)
{
    return (value + WEIGHTS_ALIGN - 1) / WEIGHTS_ALIGN * WEIGHTS_ALIGN;
}

int weights_layout(struct weights *out, uint32_t type, uint32_t rows, uint32_t cols)
{
    const struct block *b = find_block(type);
    if (!b)
        return -ENOTSUP;
    if (rows == 0 || cols == 0 || cols % b->elements || cols > UINT32_C(1) << 28)
        return -EINVAL;
    const uint32_t count = cols / b->elements;
    *out = (struct weights){
        .type = type,
        .rows = rows,
        .cols = cols,
        .quants_stride = (uint32_t)round_up((uint64_t)count * b->quants_size),
        .high_stride = count * b->high_size,
        .scales_stride = count * ((uint32_t)b->scales_size + b->tail_size),
    };
    out->high_at = (uint64_t)rows * out->quants_stride;
    out->scales_at = round_up(out->high_at + (uint64_t)rows * out->high_stride);
    out->size_bytes = round_up(out->scales_at + (uint64_t)rows * out->scales_stride);
    return 0;
}

/* Copies `size` bytes of each block, `step` apart in the file, `out_step` apart in the plane. */
static void copy_part(const uint8_t *from, size_t step, size_t size, uint8_t *to, size_t to_step,
                      size_t count)
{
    if (step == size && to_step == size) {
        memcpy(to, from, size * count);
        return;
    }
    for (size_t i = 0; size && i < count; i++)
        memcpy(to + i * to_step, from + i * step, size);
}

void weights_pack(const struct weights *layout, const struct model_tensor *tensor, uint32_t begin,
                  uint32_t end, uint8_t *out)
{
    const struct block *b = find_block(layout->type);
    const size_t count = layout->cols / b->elements;
    const size_t scales = (size_t)b->scales_size + b->tail_size;
    for (size_t r = begin; r < end; r++) {
        const uint8_t *row = tensor->data + r * tensor->row_bytes;
        uint8_t *quants = out + r * layout->quants_stride;
        uint8_t *to = out + layout->scales_at + r * layout->scales_stride;
        copy_part(row + b->quants_at, b->size, b->quants_size, quants, b->quants_size, count);
        memset(quants + count * b->quants_size, 0, layout->quants_stride - count * b->quants_size);
        copy_part(row + b->high_at, b->size, b->high_size,
                  out + layout->high_at + r * layout->high_stride, b->high_size, count);
        copy_part(row + b->scales_at, b->size, b->scales_size, to, scales, count);
        copy_part(row + b->tail_at, b->size, b->tail_size, to + b->scales_size, scales, count);
    }
    if (end == layout->rows) { /* between the planes and behind the last */
        const uint64_t high_end = layout->high_at + (uint64_t)layout->rows * layout->high_stride;
        const uint64_t used = layout->scales_at + (uint64_t)layout->rows * layout->scales_stride;
        memset(out + high_end, 0, layout->scales_at - high_end);
        memset(out + used, 0, layout->size_bytes - used);
    }
}
