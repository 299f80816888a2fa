/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of embed.cu and matvec.cu: all types of weights, ragged sizes, every number of columns. */
#include <string.h>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/ref.h"
#include "kernels/model/gguf.h"
#include "tests/gpu/cases.h"

#define COLUMNS_MAX 11u
#define EPSILON     1e-5f
#define TOLERANCE   2e-5f

static const uint32_t types[] = {WEIGHTS_F32,  WEIGHTS_F16,  WEIGHTS_BF16, WEIGHTS_Q8_0,
                                 WEIGHTS_Q4_0, WEIGHTS_Q4_1, WEIGHTS_Q5_0, WEIGHTS_Q5_1,
                                 WEIGHTS_Q4_K, WEIGHTS_Q5_K, WEIGHTS_Q6_K};
#define TYPES (sizeof(types) / sizeof(types[0]))

/* A number of columns that is whole blocks, and where possible not whole chunks or warps. */
static uint32_t random_cols(struct lab *lab, uint32_t type)
{
    uint32_t elements;
    uint32_t block_bytes;
    if (!gguf_tensor_block(type, &elements, &block_bytes))
        return 0;
    const uint32_t step = elements < 4 ? 4 : elements;
    return step * (1 + lab_below(lab, 1200 / step + 1));
}

void case_embed(struct lab *lab)
{
    for (size_t t = 0; t < TYPES; t++) {
        const uint32_t cols = random_cols(lab, types[t]);
        struct model_tensor w;
        struct embed_args op = {.count = 1 + lab_below(lab, 5)};
        uint32_t tokens[8];
        if (!cols || !lab_matrix(lab, types[t], 19, cols, 1.0f, &w, &op.w))
            continue;
        for (uint32_t c = 0; c < op.count; c++)
            tokens[c] = lab_below(lab, w.rows);
        const size_t count = (size_t)op.count * cols;
        float *want = lab_host(lab, count * sizeof(float));
        float *got = lab_host(lab, count * sizeof(float));
        op.tokens = lab_upload(lab, tokens, sizeof(tokens));
        op.out = lab_device(lab, count * sizeof(float));
        ref_embed(&w, tokens, op.count, want);
        if (lab_is_well(lab))
            lab_check(lab, op_embed(lab->device, &op), "op_embed");
        lab_download(lab, got, op.out, count * sizeof(float));
        lab_compare(lab, gguf_tensor_type_name(types[t]), got, want, count, 1e-6f);
        lab_deinit(lab);
    }
}

/* One matrix of each type, with and without bias, stored or added. */
void case_product(struct lab *lab)
{
    for (size_t t = 0; t < TYPES; t++) {
        const uint32_t cols = random_cols(lab, types[t]);
        const uint32_t rows = 1 + lab_below(lab, 70);
        struct matvec_args op = {.x_stride = cols,
                                 .columns = 1 + lab_below(lab, COLUMNS_MAX),
                                 .part_count = 1,
                                 .mode = lab_below(lab, 2) ? OP_ADD : OP_STORE};
        struct matvec_part *part = &op.parts[0];
        struct model_tensor w;
        if (!cols || !lab_matrix(lab, types[t], rows, cols, 0.2f, &w, &part->w))
            continue;
        const size_t count = (size_t)op.columns * rows;
        const float *x = lab_floats(lab, (size_t)op.columns * cols);
        const float *bias = lab_below(lab, 2) ? lab_floats(lab, rows) : NULL;
        const float *before = lab_floats(lab, count);
        float *want = lab_host(lab, count * sizeof(float));
        float *got = lab_host(lab, count * sizeof(float));
        ref_product(&w, bias, x, op.columns, want);
        for (size_t i = 0; op.mode == OP_ADD && i < count; i++)
            want[i] += before[i];
        op.x = lab_upload(lab, x, (size_t)op.columns * cols * sizeof(float));
        part->bias = bias ? lab_upload(lab, bias, rows * sizeof(float)) : NULL;
        part->y = op.mode == OP_ADD ? lab_upload(lab, before, count * sizeof(float))
                                    : lab_device(lab, count * sizeof(float));
        part->y_stride = rows;
        if (lab_is_well(lab))
            lab_check(lab, op_matvec(lab->device, &op), "op_matvec");
        lab_download(lab, got, part->y, count * sizeof(float));
        lab_compare(lab, gguf_tensor_type_name(types[t]), got, want, count, TOLERANCE);
        lab_deinit(lab);
    }
}

/* A type that the reader knows and whose blocks divide `cols`. */
static uint32_t random_type(struct lab *lab, uint32_t cols)
{
    for (;;) {
        uint32_t elements;
        uint32_t block_bytes;
        const uint32_t type = types[lab_below(lab, TYPES)];
        if (gguf_tensor_block(type, &elements, &block_bytes) && cols % elements == 0)
            return type;
    }
}

/* As queries, keys and values are made: normed, three matrices, rows picked from a larger x. */
void case_norm_parts(struct lab *lab)
{
    const uint32_t cols = 256 * (1 + lab_below(lab, 2));
    const uint32_t x_rows = 13;
    struct matvec_args op = {.x_stride = cols + 4,
                             .epsilon = EPSILON,
                             .columns = 1 + lab_below(lab, COLUMNS_MAX),
                             .part_count = 3};
    struct model_tensor w[OP_PARTS_MAX];
    uint32_t picked[COLUMNS_MAX];
    const float *x = lab_floats(lab, (size_t)x_rows * op.x_stride);
    const float *norm = lab_floats(lab, cols);
    float *normed = lab_host(lab, (size_t)op.columns * cols * sizeof(float));
    for (uint32_t c = 0; c < op.columns; c++) {
        picked[c] = lab_below(lab, x_rows);
        ref_norm(x + (size_t)picked[c] * op.x_stride, norm, cols, EPSILON,
                 normed + (size_t)c * cols);
    }
    op.x = lab_upload(lab, x, (size_t)x_rows * op.x_stride * sizeof(float));
    op.x_rows = lab_upload(lab, picked, sizeof(picked));
    op.norm = lab_upload(lab, norm, cols * sizeof(float));
    for (uint32_t p = 0; p < op.part_count; p++) {
        struct matvec_part *part = &op.parts[p];
        const uint32_t rows = 1 + lab_below(lab, 40);
        (void)lab_matrix(lab, random_type(lab, cols), rows, cols, 0.2f, &w[p], &part->w);
        part->y_stride = rows;
        part->y = lab_device(lab, (size_t)op.columns * rows * sizeof(float));
    }
    if (lab_is_well(lab))
        lab_check(lab, op_matvec(lab->device, &op), "op_matvec");
    for (uint32_t p = 0; p < op.part_count; p++) {
        const size_t count = (size_t)op.columns * w[p].rows;
        float *want = lab_host(lab, count * sizeof(float));
        float *got = lab_host(lab, count * sizeof(float));
        ref_product(&w[p], NULL, normed, op.columns, want);
        lab_download(lab, got, op.parts[p].y, count * sizeof(float));
        lab_compare(lab, gguf_tensor_type_name(w[p].type), got, want, count, TOLERANCE);
    }
}

void case_swiglu(struct lab *lab)
{
    const uint32_t cols = 256;
    const uint32_t rows = 1 + lab_below(lab, 60);
    const uint32_t type = random_type(lab, cols);
    struct matvec_args op = {.x_stride = cols,
                             .columns = 1 + lab_below(lab, COLUMNS_MAX),
                             .part_count = 2,
                             .mode = OP_SWIGLU};
    const size_t count = (size_t)op.columns * rows;
    const float *x = lab_floats(lab, (size_t)op.columns * cols);
    float *made[2];
    float *got = lab_host(lab, count * sizeof(float));
    for (uint32_t p = 0; p < 2; p++) {
        struct model_tensor w;
        (void)lab_matrix(lab, type, rows, cols, 0.3f, &w, &op.parts[p].w);
        made[p] = lab_host(lab, count * sizeof(float));
        ref_product(&w, NULL, x, op.columns, made[p]);
    }
    ref_swiglu(made[0], made[1], (uint32_t)count, made[0]);
    op.x = lab_upload(lab, x, (size_t)op.columns * cols * sizeof(float));
    op.parts[0].y = lab_device(lab, count * sizeof(float));
    op.parts[0].y_stride = rows;
    if (lab_is_well(lab))
        lab_check(lab, op_matvec(lab->device, &op), "op_matvec");
    lab_download(lab, got, op.parts[0].y, count * sizeof(float));
    lab_compare(lab, gguf_tensor_type_name(type), got, made[0], count, TOLERANCE);
}

/* A column's products are the same bits alone and with others. */
void case_same_alone(struct lab *lab)
{
    const uint32_t cols = 256 * (1 + lab_below(lab, 3));
    const uint32_t rows = 1 + lab_below(lab, 40);
    const uint32_t type = random_type(lab, cols);
    struct matvec_args op = {
        .x_stride = cols, .epsilon = EPSILON, .columns = COLUMNS_MAX, .part_count = 1};
    struct matvec_part *part = &op.parts[0];
    struct model_tensor w;
    const size_t count = (size_t)op.columns * rows;
    const float *x = lab_floats(lab, (size_t)op.columns * cols);
    const float *norm = lab_floats(lab, cols);
    float *together = lab_host(lab, count * sizeof(float));
    float *alone = lab_host(lab, rows * sizeof(float));
    (void)lab_matrix(lab, type, rows, cols, 0.2f, &w, &part->w);
    float *on_device = lab_upload(lab, x, (size_t)op.columns * cols * sizeof(float));
    op.x = on_device;
    op.norm = lab_upload(lab, norm, cols * sizeof(float));
    part->y = lab_device(lab, count * sizeof(float));
    part->y_stride = rows;
    if (lab_is_well(lab))
        lab_check(lab, op_matvec(lab->device, &op), "op_matvec");
    lab_download(lab, together, part->y, count * sizeof(float));
    for (uint32_t first = 0; first < COLUMNS_MAX && lab_is_well(lab); first++) {
        op.x = on_device + (size_t)first * cols;
        op.columns = 1 + lab_below(lab, COLUMNS_MAX - first);
        lab_check(lab, op_matvec(lab->device, &op), "op_matvec");
        lab_download(lab, alone, part->y, rows * sizeof(float));
        if (memcmp(alone, together + (size_t)first * rows, rows * sizeof(float)) != 0)
            lab_fail(lab, "column %u of %s depends on its neighbours", first,
                     gguf_tensor_type_name(type));
    }
}
