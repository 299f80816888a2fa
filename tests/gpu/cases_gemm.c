/* SPDX-License-Identifier: Apache-2.0 */
/* Cases of gemm.cu: all types of weights, both kinds of numbers, both sizes of tiles, ragged ends,
 * several matrices at once, SwiGLU at the end; a column's sums are the same bits in any company. */
#include <string.h>

#include "kernels/cuda/ops.h"
#include "kernels/cuda/ref.h"
#include "kernels/model/gguf.h"
#include "tests/gpu/cases.h"

#define HALVES    8e-3f /* tolerance: 11 bits times the root of the length */
#define BFLOATS   6e-2f /* 8 bits */
#define EXTRA     2u    /* of a stride */
#define COLS_MOST 700u

/* Each with its smallest number of columns. */
static const struct {
    uint32_t type;
    uint32_t step;
} types[] = {{WEIGHTS_F32, 4},    {WEIGHTS_F16, 4},    {WEIGHTS_BF16, 4},  {WEIGHTS_Q8_0, 32},
             {WEIGHTS_Q4_0, 32},  {WEIGHTS_Q4_1, 32},  {WEIGHTS_Q5_0, 32}, {WEIGHTS_Q5_1, 32},
             {WEIGHTS_Q4_K, 256}, {WEIGHTS_Q5_K, 256}, {WEIGHTS_Q6_K, 256}};
#define TYPES (sizeof(types) / sizeof(types[0]))

struct gemm_scene {
    struct gemm_args op;
    uint32_t cols;
    float tolerance;
    const float *x; /* [columns][cols], as the numbers that are multiplied */
    struct model_tensor w[OP_PARTS_MAX];
    const float *bias[OP_PARTS_MAX];
    const float *before[OP_PARTS_MAX]; /* what y was */
};

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static float value_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

/* A float of 1/1024 to 2, which either kind holds exactly: seven bits behind the first. */
static float random_number(struct lab *lab)
{
    const float value = lab_float(lab);
    const float kept = value_of(bits_of(value) & 0xffff0000u);
    return kept < 0x1p-10f && kept > -0x1p-10f ? 0x1p-10f : kept;
}

static uint16_t half_bits(float value)
{
    const uint32_t bits = bits_of(value);
    return (uint16_t)((bits >> 16 & 0x8000u) | (((bits & 0x7fffffffu) - (112u << 23)) >> 13));
}

static float number_value(uint16_t bits, enum op_number number)
{
    if (number == OP_BF16)
        return value_of((uint32_t)bits << 16);
    const uint32_t sign = (uint32_t)(bits & 0x8000u) << 16;
    const float small = (float)(bits & 0x3ffu) * 0x1p-24f;
    if ((bits >> 10 & 31u) == 0)
        return sign ? -small : small;
    return value_of(sign | ((bits >> 10 & 31u) + 112u) << 23 | (bits & 0x3ffu) << 13);
}

static void make_x(struct lab *lab, struct gemm_scene *s)
{
    const uint32_t stride = (s->cols + 7) / 8 * 8 + 8 * lab_below(lab, EXTRA);
    const size_t numbers = (size_t)s->op.columns * stride;
    float *x = lab_host(lab, (size_t)s->op.columns * s->cols * sizeof(float));
    uint16_t *there = lab_host(lab, numbers * sizeof(*there));
    memset(there, 0xff, numbers * sizeof(*there)); /* behind the cols: no numbers */
    for (size_t c = 0; c < s->op.columns; c++)
        for (size_t i = 0; i < s->cols; i++) {
            const float value = x[c * s->cols + i] = random_number(lab);
            there[c * stride + i] =
                s->op.number == OP_BF16 ? (uint16_t)(bits_of(value) >> 16) : half_bits(value);
        }
    s->x = x;
    s->op.x = lab_upload(lab, there, numbers * sizeof(*there));
    s->op.x_stride = stride;
}

static void make_part(struct lab *lab, struct gemm_scene *s, uint32_t type, uint32_t rows)
{
    const uint32_t p = s->op.part_count++;
    struct matvec_part *part = &s->op.parts[p];
    (void)lab_matrix(lab, type, rows, s->cols, 0.2f, &s->w[p], &part->w);
    part->y_stride = rows + lab_below(lab, EXTRA);
    const size_t count = (size_t)s->op.columns * part->y_stride;
    s->bias[p] = lab_below(lab, 2) ? lab_floats(lab, rows) : NULL;
    part->bias = s->bias[p] ? lab_upload(lab, s->bias[p], rows * sizeof(float)) : NULL;
    s->before[p] = lab_floats(lab, count);
    part->y = lab_upload(lab, s->before[p], count * sizeof(float));
}

static void run(struct lab *lab, const struct gemm_scene *s)
{
    if (lab_is_well(lab))
        lab_check(lab, op_gemm(lab->device, &s->op), "op_gemm");
}

/* What part p should be of column c. */
static void expect(const struct gemm_scene *s, uint32_t p, uint32_t c, float *want)
{
    ref_product(&s->w[p], s->bias[p], s->x + (size_t)c * s->cols, 1, want);
    for (uint32_t r = 0; s->op.mode == OP_ADD && r < s->w[p].rows; r++)
        want[r] += s->before[p][(size_t)c * s->op.parts[p].y_stride + r];
}

static void check_part(struct lab *lab, const struct gemm_scene *s, uint32_t p)
{
    const uint32_t rows = s->w[p].rows;
    const uint32_t stride = s->op.parts[p].y_stride;
    const size_t count = (size_t)s->op.columns * stride;
    float *want = lab_host(lab, rows * sizeof(float));
    float *got = lab_host(lab, count * sizeof(float));
    lab_download(lab, got, s->op.parts[p].y, count * sizeof(float));
    for (uint32_t c = 0; c < s->op.columns; c++) {
        const size_t at = (size_t)c * stride;
        expect(s, p, c, want);
        lab_compare(lab, gguf_tensor_type_name(s->w[p].type), got + at, want, rows, s->tolerance);
        lab_compare(lab, "padding", got + at + rows, s->before[p] + at + rows, stride - rows, 0.0f);
    }
}

static struct gemm_scene scene_of(uint32_t cols, uint32_t columns, enum op_number number,
                                  enum op_mode mode)
{
    return (struct gemm_scene){.op = {.columns = columns, .number = number, .mode = mode},
                               .cols = cols,
                               .tolerance = number == OP_BF16 ? BFLOATS : HALVES};
}

static uint32_t random_cols(struct lab *lab, uint32_t step)
{
    return step * (1 + lab_below(lab, (COLS_MOST + step - 1) / step));
}

/* One matrix of each type and kind; small and large tiles, on few processors and many. */
void case_gemm(struct lab *lab)
{
    for (size_t t = 0; t < TYPES + 1; t++) {
        const bool is_bf16 = t == TYPES;
        const uint32_t type = is_bf16 ? WEIGHTS_BF16 : types[t].type;
        const bool is_large = lab_below(lab, 3) == 0;
        const uint32_t cols = random_cols(lab, is_bf16 ? 4 : types[t].step);
        struct gemm_scene s =
            scene_of(cols, 1 + lab_below(lab, is_large ? 200 : 100), is_bf16 ? OP_BF16 : OP_F16,
                     lab_below(lab, 2) ? OP_ADD : OP_STORE);
        struct device device = *lab->device;
        struct device *real = lab->device;
        device.processors = is_large ? 1 : 1000; /* what the size of tiles is chosen by */
        make_x(lab, &s);
        make_part(lab, &s, type, 1 + lab_below(lab, is_large ? 200 : 100));
        lab->device = &device;
        run(lab, &s);
        lab->device = real;
        check_part(lab, &s, 0);
        lab_deinit(lab);
    }
}

/* Each column of x has one number, and that is 1: the products are the weights themselves, to the
 * bit those that op_expand() writes for a library, and the file's but for their rounding. */
static void check_expanded(struct lab *lab, uint32_t type, uint32_t cols, uint32_t rows)
{
    const uint32_t stride = (cols + 7) / 8 * 8;
    struct gemm_scene s = scene_of(cols, cols, OP_F16, OP_STORE);
    uint16_t *x = lab_host(lab, (size_t)cols * stride * sizeof(*x));
    uint16_t *expanded = lab_host(lab, (size_t)rows * stride * sizeof(*expanded));
    float *one = lab_host(lab, cols * sizeof(*one));
    float *column = lab_host(lab, rows * sizeof(*column));
    float *want = lab_host(lab, rows * sizeof(*want));
    uint16_t *there = lab_device(lab, (size_t)rows * stride * sizeof(*there));
    memset(x, 0, (size_t)cols * stride * sizeof(*x));
    for (size_t c = 0; c < cols; c++)
        x[c * stride + c] = half_bits(1.0f);
    s.op.x = lab_upload(lab, x, (size_t)cols * stride * sizeof(*x));
    s.op.x_stride = stride;
    make_part(lab, &s, type, rows);
    s.op.parts[0].bias = NULL;
    float *got = lab_host(lab, (size_t)cols * s.op.parts[0].y_stride * sizeof(*got));
    run(lab, &s);
    if (lab_is_well(lab))
        lab_check(lab, op_expand(lab->device, &s.op.parts[0].w, there, stride), "op_expand");
    lab_download(lab, got, s.op.parts[0].y, (size_t)cols * s.op.parts[0].y_stride * sizeof(*got));
    lab_download(lab, expanded, there, (size_t)rows * stride * sizeof(*expanded));
    for (size_t c = 0; c < cols; c++) {
        for (size_t r = 0; r < rows; r++)
            column[r] = number_value(expanded[r * stride + c], OP_F16);
        lab_compare(lab, gguf_tensor_type_name(type), got + c * s.op.parts[0].y_stride, column,
                    rows, 0.0f);
        memset(one, 0, cols * sizeof(*one));
        one[c] = 1.0f;
        ref_product(&s.w[0], NULL, one, 1, want);
        lab_compare(lab, gguf_tensor_type_name(type), column, want, rows, 5e-4f);
    }
}

void case_gemm_expanded(struct lab *lab)
{
    for (size_t t = 0; t < TYPES; t++) {
        check_expanded(lab, types[t].type, types[t].step, 1 + lab_below(lab, 20));
        lab_deinit(lab);
    }
}

/* Queries, keys and values: three matrices, neighbours of one type in one launch. */
void case_gemm_parts(struct lab *lab)
{
    static const uint32_t mixes[][OP_PARTS_MAX] = {
        {WEIGHTS_Q4_K, WEIGHTS_Q4_K, WEIGHTS_Q6_K}, {WEIGHTS_Q8_0, WEIGHTS_Q8_0, WEIGHTS_Q8_0},
        {WEIGHTS_BF16, WEIGHTS_BF16, WEIGHTS_BF16}, {WEIGHTS_F16, WEIGHTS_BF16, WEIGHTS_F32},
        {WEIGHTS_Q4_0, WEIGHTS_Q5_0, WEIGHTS_Q4_0},
    };
    const uint32_t mix = lab_below(lab, 5);
    struct gemm_scene s = scene_of(256 * (1 + lab_below(lab, 2)), 1 + lab_below(lab, 90),
                                   mix == 2 ? OP_BF16 : OP_F16, OP_STORE);
    make_x(lab, &s);
    for (uint32_t p = 0; p < OP_PARTS_MAX; p++)
        make_part(lab, &s, mixes[mix][p], 1 + lab_below(lab, 150));
    run(lab, &s);
    for (uint32_t p = 0; p < OP_PARTS_MAX; p++)
        check_part(lab, &s, p);
}

void case_gemm_swiglu(struct lab *lab)
{
    const bool is_bf16 = lab_below(lab, 3) == 0;
    const size_t t = is_bf16 ? 2 : lab_below(lab, TYPES);
    const uint32_t rows = 1 + lab_below(lab, 150);
    struct gemm_scene s = scene_of(random_cols(lab, types[t].step), 1 + lab_below(lab, 150),
                                   is_bf16 ? OP_BF16 : OP_F16, OP_SWIGLU);
    make_x(lab, &s);
    make_part(lab, &s, types[t].type, rows);
    make_part(lab, &s, types[t].type, rows);
    s.op.made_stride = (rows + 7) / 8 * 8;
    const size_t count = (size_t)s.op.columns * s.op.made_stride;
    float *gate = lab_host(lab, rows * sizeof(float));
    float *up = lab_host(lab, rows * sizeof(float));
    float *values = lab_host(lab, rows * sizeof(float));
    uint16_t *got = lab_host(lab, count * sizeof(*got));
    s.op.made = lab_device(lab, count * sizeof(*got));
    run(lab, &s);
    lab_download(lab, got, s.op.made, count * sizeof(*got));
    for (uint32_t c = 0; c < s.op.columns; c++) {
        const uint16_t *row = got + (size_t)c * s.op.made_stride;
        expect(&s, 0, c, gate);
        expect(&s, 1, c, up);
        ref_swiglu(gate, up, rows, gate);
        for (uint32_t r = 0; r < rows; r++)
            values[r] = number_value(row[r], s.op.number);
        lab_compare(lab, gguf_tensor_type_name(types[t].type), values, gate, rows, 4 * s.tolerance);
        if (rows % 2 && row[rows] && lab_is_well(lab))
            lab_fail(lab, "behind the last row stands 0x%04x", row[rows]);
    }
}

/* However a prompt is cut, and whatever tiles that gives. */
void case_gemm_alone(struct lab *lab)
{
    const size_t t = lab_below(lab, TYPES);
    const uint32_t rows = 1 + lab_below(lab, 140);
    struct gemm_scene s =
        scene_of(random_cols(lab, types[t].step), 130 + lab_below(lab, 40), OP_F16, OP_STORE);
    make_x(lab, &s);
    make_part(lab, &s, types[t].type, rows);
    struct matvec_part *part = &s.op.parts[0];
    const size_t stride = part->y_stride;
    const uint32_t columns = s.op.columns;
    const uint16_t *x = s.op.x;
    float *together = lab_host(lab, columns * stride * sizeof(float));
    float *alone = lab_host(lab, rows * sizeof(float));
    struct device few = *lab->device;
    struct device *real = lab->device;
    few.processors = 1;
    lab->device = &few;
    run(lab, &s);
    lab->device = real;
    lab_download(lab, together, part->y, columns * stride * sizeof(float));
    for (uint32_t n = 0; n < 3 && lab_is_well(lab); n++) {
        const uint32_t first = lab_below(lab, columns);
        s.op.x = x + (size_t)first * s.op.x_stride;
        s.op.columns = 1 + lab_below(lab, columns - first < 20 ? columns - first : 20);
        run(lab, &s);
        lab_download(lab, alone, part->y, rows * sizeof(float));
        if (memcmp(alone, together + first * stride, rows * sizeof(float)) != 0)
            lab_fail(lab, "column %u of %s depends on its neighbours", first,
                     gguf_tensor_type_name(types[t].type));
    }
}
