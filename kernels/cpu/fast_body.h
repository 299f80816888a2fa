/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fast_body.h - the fast kernels, written once over sixteen lanes. Included at the end of each
 * fast_*.c, which says what a lane's operations are on its instruction set. Every operation on
 * floats is an addition, multiplication, division or conversion that IEEE 754 defines to the last
 * bit, products and sums are never fused, and reductions have one tree: all tables give the same
 * bits. Rows, columns and threads change nothing either; see kernels.h.
 *
 * The including file defines LANES_FN and LANES_OUTER (attributes of what is inlined and what is
 * not), TILE_COLS (columns of inputs that go together), DOT_TAKES_128 (ints_dot() takes 128 off
 * weights that may be above 127) and vec, ints, bytes    16 floats, 16 32-bit integers, 64 bytes
 *   vec_load, vec_store, vec_load_part, vec_store_part (the first n; others read as 0), vec_set
 *   vec_add, vec_sub, vec_mul, vec_div, vec_sum (tree: l and l + 8, l + 4, l + 2, l + 1)
 *   vec_max(a, b) (b if either is NaN), vec_select(vec mask source, a, b): a where it is >= 0
 *   vec_halves, vec_upper (halves of another kind: the upper ones of floats), vec_bytes (unsigned)
 *   ints_bytes (signed), vec_of_ints, ints_set, ints_add, ints_mul
 *   vec_round_bytes (nearest, to 16 signed bytes), vec_bits_max (largest bits but for the sign)
 *   vec_power(p, n): p * 2^n for a whole n
 *   bytes_load, bytes_low, bytes_high (nibbles)
 *   ints_dot(start, weights, quads, inputs, largest): adds, for each lane, quads * 4 products
 */
#pragma once

#include <math.h>
#include <string.h>

#include "kernels/cpu/expand.h"
#include "kernels/cpu/kernels.h"
#include "kernels/cpu/packed.h"
#include "kernels/model/fixed.h"

#define LANES     16u
#define QUADS     8u /* of a group */
#define MIX_CHUNK 4u /* vectors of values that are mixed together */
#define HALF_TILE 4u /* columns of plain products */
/* How far ahead of use weights are fetched, and the cache line. */
#define AHEAD_BYTES 8192u
#define LINE_BYTES  64u
/* Inputs beyond this are treated as broken: their group has NaN for a scale. */
#define INPUT_MAX 1e30f
#define INPUT_MIN 1e-30f

/* ---- products of packed weights ---- */

/* A group's weights, spread over eight vectors of four columns each. */
LANES_FN void load_quads(struct packed_format f, const uint8_t *at, bytes w[QUADS])
{
    for (size_t j = 0; j < QUADS; j++) {
        if (f.bits == 8)
            w[j] = bytes_load(at + LINE_BYTES * j);
        else if (j < QUADS / 2)
            w[j] = bytes_low(bytes_load(at + LINE_BYTES * j));
        else
            w[j] = bytes_high(bytes_load(at + LINE_BYTES * (j - QUADS / 2)));
    }
}

struct group_scales {
    vec scale;
    vec min;
    ints first; /* PACKED_TWO_RUNS */
    ints second;
};

LANES_FN struct group_scales load_scales(struct packed_format f, const uint8_t *panel, size_t group)
{
    const uint8_t *at = panel + packed_scales_at(f.scales, group);
    const uint8_t *head = panel + packed_head_at(group);
    struct group_scales s;
    memset(&s, 0, sizeof(s));
    switch (f.scales) {
    case PACKED_HALF:
        s.scale = vec_halves(at);
        break;
    case PACKED_HALF_MIN:
        s.scale = vec_halves(at);
        s.min = vec_halves(at + 2 * LANES);
        break;
    case PACKED_RUN_MIN:
        s.scale = vec_mul(vec_halves(head), vec_bytes(at));
        s.min =
            vec_mul(vec_mul(vec_halves(head + 2 * LANES), vec_set(-1.0f)), vec_bytes(at + LANES));
        break;
    case PACKED_TWO_RUNS:
        s.scale = vec_halves(head);
        s.first = ints_bytes(at);
        s.second = ints_bytes(at + LANES);
        break;
    }
    return s;
}

/* The integers of one group and one column. */
LANES_FN ints group_dot(struct packed_format f, const bytes w[QUADS], const struct group_scales *s,
                        const struct packed_input *x, size_t group)
{
    const int8_t *b = x->bytes + group * PACKED_GROUP;
    const int32_t *t = x->totals + 2 * group;
    if (f.scales == PACKED_TWO_RUNS) {
        const ints first = ints_dot(ints_set(-f.offset * t[0]), w, QUADS / 2, b, f.largest);
        const ints second = ints_dot(ints_set(-f.offset * t[1]), w + QUADS / 2, QUADS / 2,
                                     b + PACKED_GROUP / 2, f.largest);
        return ints_add(ints_mul(first, s->first), ints_mul(second, s->second));
    }
    const int32_t offset = DOT_TAKES_128 && f.largest > 127 ? 0 : f.offset;
    const int32_t start = offset ? -offset * (t[0] + t[1]) : 0;
    return ints_dot(ints_set(start), w, QUADS, b, f.largest);
}

/* One panel times `count` <= TILE_COLS columns. */
LANES_FN void panel_times(struct packed_format f, const struct packed *w, const uint8_t *panel,
                          const uint8_t *inputs, size_t input_stride, size_t count, float *y,
                          size_t y_stride, size_t rows)
{
    const size_t group_bytes = packed_group_bytes(f.bits);
    const uint8_t *quants = panel + w->quants_at;
    /* The panel's bytes in equal steps, scales included. */
    const size_t ahead_step = group_bytes + packed_scales_at(f.scales, PACKED_SUPER) / PACKED_SUPER;
    const uint8_t *ahead = panel + AHEAD_BYTES;
    struct packed_input x[TILE_COLS];
    vec acc[TILE_COLS];
    for (size_t c = 0; c < count; c++) {
        x[c] = packed_input_at(inputs + c * input_stride, w->cols);
        acc[c] = vec_set(0.0f);
    }
    for (size_t g = 0; g < w->cols / PACKED_GROUP; g++, quants += group_bytes) {
        bytes quads[QUADS];
        for (size_t at = 0; count == 1 && at < ahead_step; at += LINE_BYTES)
            __builtin_prefetch(ahead + at, 0, 2); /* a hint: may lie past the end */
        ahead += ahead_step;
        load_quads(f, quants, quads);
        const struct group_scales s = load_scales(f, panel, g);
        for (size_t c = 0; c < count; c++) {
            const vec sum = vec_of_ints(group_dot(f, quads, &s, &x[c], g));
            acc[c] = vec_add(acc[c], vec_mul(sum, vec_mul(s.scale, vec_set(x[c].scales[g]))));
            if (f.scales == PACKED_HALF_MIN || f.scales == PACKED_RUN_MIN)
                acc[c] = vec_add(acc[c], vec_mul(s.min, vec_set(x[c].sums[g])));
        }
    }
    for (size_t c = 0; c < count; c++)
        vec_store_part(y + c * y_stride, acc[c], rows);
}

LANES_FN void panels_times(uint32_t type, const struct packed *w, uint32_t begin, uint32_t end,
                           const uint8_t *inputs, size_t stride, size_t count, float *y,
                           size_t y_stride)
{
    struct packed_format f;
    if (!packed_format_of(type, &f))
        return;
    for (uint32_t p = begin; p < end; p++) {
        const uint8_t *panel = w->data + p * w->panel_bytes;
        const size_t left = w->rows - (size_t)p * LANES;
        const size_t rows = left < LANES ? left : LANES;
        float *out = y + (size_t)p * LANES;
        size_t c = 0;
        for (; c + TILE_COLS <= count; c += TILE_COLS)
            panel_times(f, w, panel, inputs + c * stride, stride, TILE_COLS, out + c * y_stride,
                        y_stride, rows);
        for (; c + 2 <= count; c += 2)
            panel_times(f, w, panel, inputs + c * stride, stride, 2, out + c * y_stride, y_stride,
                        rows);
        if (c < count)
            panel_times(f, w, panel, inputs + c * stride, stride, 1, out + c * y_stride, y_stride,
                        rows);
    }
}

/* A function for each type, so that the compiler knows the format. */
#define PANELS(type)                                                                               \
    LANES_OUTER static void panels_##type(const struct packed *w, uint32_t begin, uint32_t end,    \
                                          const uint8_t *inputs, size_t stride, size_t count,      \
                                          float *y, size_t y_stride)                               \
    {                                                                                              \
        panels_times(GGUF_TENSOR_##type, w, begin, end, inputs, stride, count, y, y_stride);       \
    }
PANELS(Q4_0)
PANELS(Q4_1)
PANELS(Q5_0)
PANELS(Q5_1)
PANELS(Q8_0)
PANELS(Q4_K)
PANELS(Q5_K)
PANELS(Q6_K)

static void fast_packed(const struct packed *w, uint32_t begin, uint32_t end, const uint8_t *inputs,
                        size_t stride, size_t count, float *y, size_t y_stride)
{
    static void (*const by_type[])(const struct packed *, uint32_t, uint32_t, const uint8_t *,
                                   size_t, size_t, float *, size_t) = {
        [GGUF_TENSOR_Q4_0] = panels_Q4_0, [GGUF_TENSOR_Q4_1] = panels_Q4_1,
        [GGUF_TENSOR_Q5_0] = panels_Q5_0, [GGUF_TENSOR_Q5_1] = panels_Q5_1,
        [GGUF_TENSOR_Q8_0] = panels_Q8_0, [GGUF_TENSOR_Q4_K] = panels_Q4_K,
        [GGUF_TENSOR_Q5_K] = panels_Q5_K, [GGUF_TENSOR_Q6_K] = panels_Q6_K,
    };
    by_type[w->type](w, begin, end, inputs, stride, count, y, y_stride);
}

LANES_OUTER static void fast_quantise(const float *x, size_t cols, size_t begin, size_t end,
                                      uint8_t *input)
{
    const size_t groups = cols / PACKED_GROUP;
    float *scales = (float *)(void *)(input + cols);
    float *sums = scales + groups;
    int32_t *totals = (int32_t *)(void *)(sums + groups);
    for (size_t g = begin / PACKED_GROUP; g < end / PACKED_GROUP; g++) {
        const vec first = vec_load(x + g * PACKED_GROUP);
        const vec second = vec_load(x + g * PACKED_GROUP + LANES);
        int8_t *place = (int8_t *)input + g * PACKED_GROUP;
        const float largest = vec_bits_max(first, second);
        float scale = largest / 127.0f;
        float inverse = 127.0f / largest;
        if (!(largest < INPUT_MAX))
            scale = NAN;
        if (!(largest < INPUT_MAX) || largest < INPUT_MIN)
            inverse = 0.0f;
        if (inverse == 0.0f) {
            memset(place, 0, PACKED_GROUP);
            totals[2 * g] = totals[2 * g + 1] = 0;
        } else {
            totals[2 * g] = vec_round_bytes(vec_mul(first, vec_set(inverse)), place);
            totals[2 * g + 1] = vec_round_bytes(vec_mul(second, vec_set(inverse)), place + LANES);
        }
        scales[g] = scale;
        sums[g] = scale * (float)(totals[2 * g] + totals[2 * g + 1]);
    }
}

/* ---- products of plain weights ---- */

LANES_FN void plain_tile(size_t nr, size_t nc, const float *w, size_t w_stride, const float *x,
                         size_t x_stride, size_t cols, float *y, size_t y_stride)
{
    vec acc[CPU_TILE_ROWS][HALF_TILE];
    for (size_t r = 0; r < nr; r++)
        for (size_t c = 0; c < nc; c++)
            acc[r][c] = vec_set(0.0f);
    for (size_t i = 0; i < cols; i += LANES) {
        const size_t part = cols - i;
        vec xs[HALF_TILE];
        for (size_t c = 0; c < nc; c++)
            xs[c] = part < LANES ? vec_load_part(x + c * x_stride + i, part)
                                 : vec_load(x + c * x_stride + i);
        for (size_t r = 0; r < nr; r++) {
            const vec ws = part < LANES ? vec_load_part(w + r * w_stride + i, part)
                                        : vec_load(w + r * w_stride + i);
            for (size_t c = 0; c < nc; c++)
                acc[r][c] = vec_add(acc[r][c], vec_mul(ws, xs[c]));
        }
    }
    for (size_t r = 0; r < nr; r++)
        for (size_t c = 0; c < nc; c++)
            y[c * y_stride + r] = vec_sum(acc[r][c]);
}

LANES_FN void plain_rows(size_t nr, const float *w, size_t w_stride, const float *x,
                         size_t x_stride, size_t cols, size_t count, float *y, size_t y_stride)
{
    size_t c = 0;
    for (; c + HALF_TILE <= count; c += HALF_TILE)
        plain_tile(nr, HALF_TILE, w, w_stride, x + c * x_stride, x_stride, cols, y + c * y_stride,
                   y_stride);
    for (; c < count; c++)
        plain_tile(nr, 1, w, w_stride, x + c * x_stride, x_stride, cols, y + c * y_stride,
                   y_stride);
}

/* As expand_row(). What large matrices may be of goes many at a time. */
LANES_OUTER static void fast_expand(uint32_t type, const uint8_t *row, size_t cols, float *out)
{
    size_t i = 0;
    if (type == GGUF_TENSOR_F16 || type == GGUF_TENSOR_BF16) {
        for (; i + LANES <= cols; i += LANES) {
            const uint8_t *at = row + 2 * i;
            __builtin_prefetch(at + AHEAD_BYTES, 0, 2); /* a hint: may lie past the end */
            vec_store(out + i, type == GGUF_TENSOR_F16 ? vec_halves(at) : vec_upper(at));
        }
    }
    if (i < cols)
        expand_row(type, row + 2 * i, cols - i, out + i);
}

LANES_OUTER static void fast_matmul(const struct model_tensor *w, uint32_t row_begin,
                                    uint32_t row_end, const float *x, size_t x_stride, size_t count,
                                    float *y, size_t y_stride, float *scratch)
{
    for (uint32_t r = row_begin; r < row_end;) {
        const uint32_t rows = row_end - r < CPU_TILE_ROWS ? 1 : CPU_TILE_ROWS;
        const float *weights = (const float *)(const void *)(w->data + r * w->row_bytes);
        size_t stride = w->row_bytes / sizeof(*weights); /* a part of a matrix has gaps */
        if (w->type != GGUF_TENSOR_F32) {
            for (uint32_t j = 0; j < rows; j++)
                fast_expand(w->type, w->data + (r + j) * w->row_bytes, w->cols,
                            scratch + (size_t)j * w->cols);
            weights = scratch;
            stride = w->cols;
        }
        if (rows == CPU_TILE_ROWS)
            plain_rows(CPU_TILE_ROWS, weights, stride, x, x_stride, w->cols, count, y + r,
                       y_stride);
        else
            plain_rows(1, weights, stride, x, x_stride, w->cols, count, y + r, y_stride);
        r += rows;
    }
}

/* ---- the rest of a layer ---- */

LANES_FN vec load_up_to(const float *x, size_t left)
{
    return left < LANES ? vec_load_part(x, left) : vec_load(x);
}

LANES_FN void store_up_to(float *x, vec v, size_t left)
{
    if (left < LANES)
        vec_store_part(x, v, left);
    else
        vec_store(x, v);
}

LANES_FN float dot(const float *a, const float *b, size_t count)
{
    vec sum = vec_set(0.0f);
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        sum = vec_add(sum, vec_mul(vec_load(a + i), vec_load(b + i)));
    if (i < count)
        sum =
            vec_add(sum, vec_mul(vec_load_part(a + i, count - i), vec_load_part(b + i, count - i)));
    return vec_sum(sum);
}

LANES_OUTER static void fast_rms_norm(const float *x, const float *weight, size_t count,
                                      float epsilon, float *out)
{
    const vec scale = vec_set(1.0f / sqrtf(dot(x, x, count) / (float)count + epsilon));
    for (size_t i = 0; i < count; i += LANES) {
        const vec scaled = vec_mul(load_up_to(x + i, count - i), scale);
        store_up_to(out + i, vec_mul(scaled, load_up_to(weight + i, count - i)), count - i);
    }
}

/* fixed_exp_negative() in lanes. */
LANES_FN vec vec_exp_negative(vec x)
{
    const vec least = vec_set(FIXED_EXP_LEAST);
    const vec round = vec_set(FIXED_ROUND);
    const vec clamped = vec_max(least, x);
    const vec n = vec_sub(vec_add(vec_mul(clamped, vec_set(1.44269504f)), round), round);
    vec r = vec_sub(clamped, vec_mul(n, vec_set(0.693359375f)));
    r = vec_sub(r, vec_mul(n, vec_set(-2.12194440e-4f)));
    vec p = vec_set(1.0f / 5040);
    p = vec_add(vec_mul(p, r), vec_set(1.0f / 720));
    p = vec_add(vec_mul(p, r), vec_set(1.0f / 120));
    p = vec_add(vec_mul(p, r), vec_set(1.0f / 24));
    p = vec_add(vec_mul(p, r), vec_set(1.0f / 6));
    p = vec_add(vec_mul(p, r), vec_set(0.5f));
    p = vec_add(vec_mul(p, r), vec_set(1.0f));
    p = vec_add(vec_mul(p, r), vec_set(1.0f));
    p = vec_power(p, vec_add(n, round));
    return vec_select(vec_sub(least, x), vec_set(0.0f), p);
}

/* e^-|g| keeps within range for either sign: 1 / (1 + e) or e / (1 + e). */
LANES_OUTER static void fast_swiglu(float *gate, const float *up, size_t count)
{
    const vec one = vec_set(1.0f);
    const vec zero = vec_set(0.0f);
    for (size_t i = 0; i < count; i += LANES) {
        const vec g = load_up_to(gate + i, count - i);
        const vec e = vec_exp_negative(vec_select(g, vec_sub(zero, g), g));
        const vec sigmoid = vec_div(vec_select(g, one, e), vec_add(one, e));
        const vec out = vec_mul(vec_mul(g, sigmoid), load_up_to(up + i, count - i));
        store_up_to(gate + i, out, count - i);
    }
}

/* `chunk` whole vectors of the mixed values stay in registers; or one, of which `part` lanes count.
 */
LANES_FN void mix_values(size_t chunk, const float *weights, const struct cpu_rows *values,
                         size_t column, size_t count, size_t width, float scale, size_t part,
                         float *out)
{
    vec acc[MIX_CHUNK];
    for (size_t c = 0; c < chunk; c++)
        acc[c] = vec_set(0.0f);
    for (size_t j = 0, end; j < count;) {
        const float *row = cpu_rows_page(values, j, count, &end) + column;
        for (; j < end; j++, row += width) {
            const vec p = vec_set(weights[j]);
            for (size_t c = 0; c < chunk; c++) {
                const float *at = row + LANES * c;
                const vec v = part < LANES ? vec_load_part(at, part) : vec_load(at);
                acc[c] = vec_add(acc[c], vec_mul(p, v));
            }
        }
    }
    for (size_t c = 0; c < chunk; c++)
        store_up_to(out + LANES * c, vec_mul(acc[c], vec_set(scale)), part);
}

LANES_OUTER static void fast_attend(const float *q, const struct cpu_rows *keys,
                                    const struct cpu_rows *values, size_t count, size_t width,
                                    float scale, float *scores, float *out)
{
    float max = -INFINITY;
    for (size_t j = 0, end; j < count;) {
        const float *row = cpu_rows_page(keys, j, count, &end);
        for (; j < end; j++, row += width) {
            scores[j] = dot(q, row, width) * scale;
            max = scores[j] > max ? scores[j] : max;
        }
    }
    vec sums = vec_set(0.0f);
    for (size_t j = 0; j < count; j += LANES) {
        vec p = vec_exp_negative(vec_sub(load_up_to(scores + j, count - j), vec_set(max)));
        store_up_to(scores + j, p, count - j);
        sums = vec_add(sums, load_up_to(scores + j, count - j));
    }
    const float inverse = 1.0f / vec_sum(sums);
    size_t i = 0;
    for (; i + MIX_CHUNK * LANES <= width; i += MIX_CHUNK * LANES)
        mix_values(MIX_CHUNK, scores, values, i, count, width, inverse, LANES, out + i);
    for (; i + LANES <= width; i += LANES)
        mix_values(1, scores, values, i, count, width, inverse, LANES, out + i);
    if (i < width)
        mix_values(1, scores, values, i, count, width, inverse, width - i, out + i);
}

/* The whole table of an instruction set. */
#define FAST_KERNELS(isa)                                                                          \
    {                                                                                              \
        .name = isa, .expand = fast_expand, .matmul = fast_matmul, .rms_norm = fast_rms_norm,      \
        .swiglu = fast_swiglu, .attend = fast_attend, .quantise = fast_quantise,                   \
        .packed = fast_packed,                                                                     \
    }
