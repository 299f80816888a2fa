/* SPDX-License-Identifier: Apache-2.0 */
/* The kernels with AVX2, FMA and F16C, compiled in by target attributes and chosen at run time.
 *
 * Every product of a row and a column is one chain of fused multiply-adds over eight lanes in
 * ascending order and one fixed reduction, whichever of the shapes below computes it. */
#include "kernels/cpu/kernels.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>
#include <math.h>
#include <string.h>

#define AVX2        __attribute__((target("avx2,fma,f16c")))
#define AVX2_INLINE AVX2 __attribute__((always_inline)) static inline

#define BLOCK     32u /* weights of a Q4_0, Q4_1 or Q8_0 block */
#define TILE_COLS 3u
#define LANES     8u
/* How far ahead of use weights are fetched, and the cache line. The four rows of a tile confuse the
 * processor's own prefetcher; as one stream of bytes they are perfectly regular. */
#define AHEAD_BYTES 4096u
#define LINE_BYTES  64u

AVX2_INLINE float sum_lanes(__m256 v)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
}

/* Lanes below `count` set; for the tail of a row. */
AVX2_INLINE __m256i tail_mask(size_t count)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), lane);
}

AVX2_INLINE __m256 broadcast_half(const uint8_t *p)
{
    uint16_t half;
    memcpy(&half, p, sizeof(half));
    return _mm256_set1_ps(_cvtsh_ss(half));
}

AVX2_INLINE int has_min(uint32_t type)
{
    return type == GGUF_TENSOR_Q4_1;
}

AVX2_INLINE size_t block_bytes(uint32_t type)
{
    return type == GGUF_TENSOR_Q8_0 ? 34 : type == GGUF_TENSOR_Q4_1 ? 20 : 18;
}

/* Expands the quants of one block of 32 into w[0..3]. A byte shuffle widens the nibbles; it works
 * within 128-bit lanes, so both lanes get the same 16 bytes. `min` is used by types that have one.
 */
AVX2_INLINE void expand_block(uint32_t type, const uint8_t *block, __m256 scale, __m256 min,
                              __m256 w[4])
{
    const __m256i first = _mm256_setr_epi32(-256, -255, -254, -253, -252, -251, -250, -249);
    const __m256i second = _mm256_setr_epi32(-248, -247, -246, -245, -244, -243, -242, -241);
    const __m256i low = _mm256_set1_epi8(15);
    __m256i q[4];
    if (type == GGUF_TENSOR_Q8_0) {
        for (size_t i = 0; i < 4; i++)
            q[i] = _mm256_cvtepi8_epi32(
                _mm_loadl_epi64((const __m128i *)(const void *)(block + 2 + 8 * i)));
    } else {
        const uint8_t *quants = block + (has_min(type) ? 4 : 2);
        const __m256i packed =
            _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)quants));
        const __m256i q0 = _mm256_and_si256(packed, low);
        const __m256i q1 = _mm256_and_si256(_mm256_srli_epi16(packed, 4), low);
        q[0] = _mm256_shuffle_epi8(q0, first);
        q[1] = _mm256_shuffle_epi8(q0, second);
        q[2] = _mm256_shuffle_epi8(q1, first);
        q[3] = _mm256_shuffle_epi8(q1, second);
    }
    for (size_t i = 0; i < 4; i++) {
        __m256 f = _mm256_cvtepi32_ps(q[i]);
        if (type == GGUF_TENSOR_Q4_0)
            f = _mm256_sub_ps(f, _mm256_set1_ps(8.0f));
        w[i] = has_min(type) ? _mm256_fmadd_ps(f, scale, min) : _mm256_mul_ps(f, scale);
    }
}

AVX2_INLINE void expand_blocks(uint32_t type, const uint8_t *row, size_t cols, float *out)
{
    for (size_t i = 0; i < cols; i += BLOCK, row += block_bytes(type)) {
        const __m256 scale = broadcast_half(row);
        __m256 w[4];
        expand_block(type, row, scale, has_min(type) ? broadcast_half(row + 2) : scale, w);
        for (size_t j = 0; j < 4; j++)
            _mm256_storeu_ps(out + i + LANES * j, w[j]);
    }
}

AVX2 static void expand_f16(const uint8_t *row, size_t cols, float *out)
{
    size_t i = 0;
    for (; i + LANES <= cols; i += LANES) {
        const __m128i half = _mm_loadu_si128((const __m128i *)(const void *)(row + 2 * i));
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(half));
    }
    cpu_kernels_portable.expand(GGUF_TENSOR_F16, row + 2 * i, cols - i, out + i);
}

AVX2 static void avx2_expand(uint32_t type, const uint8_t *row, size_t cols, float *out)
{
    switch (type) {
    case GGUF_TENSOR_F16:
        expand_f16(row, cols, out);
        break;
    case GGUF_TENSOR_Q4_0:
        expand_blocks(GGUF_TENSOR_Q4_0, row, cols, out);
        break;
    case GGUF_TENSOR_Q4_1:
        expand_blocks(GGUF_TENSOR_Q4_1, row, cols, out);
        break;
    case GGUF_TENSOR_Q8_0:
        expand_blocks(GGUF_TENSOR_Q8_0, row, cols, out);
        break;
    default:
        cpu_kernels_portable.expand(type, row, cols, out);
        break;
    }
}

AVX2_INLINE int load_pair(const uint8_t *p)
{
    int32_t pair;
    memcpy(&pair, p, sizeof(pair));
    return pair;
}

AVX2_INLINE short load_short(const uint8_t *p)
{
    int16_t half;
    memcpy(&half, p, sizeof(half));
    return half;
}

/* The scales (and minima) of four rows' blocks, converted together: {scale, min} per row, or four
 * scales. From memory each is then broadcast by a load alone, which costs no shuffle. */
AVX2_INLINE void load_scales(uint32_t type, const uint8_t *rows, size_t row_bytes, float out[8])
{
    const uint8_t *r1 = rows + row_bytes;
    const uint8_t *r2 = r1 + row_bytes;
    const uint8_t *r3 = r2 + row_bytes;
    if (has_min(type)) {
        const __m128i halves =
            _mm_setr_epi32(load_pair(rows), load_pair(r1), load_pair(r2), load_pair(r3));
        _mm256_storeu_ps(out, _mm256_cvtph_ps(halves));
    } else {
        const __m128i halves = _mm_setr_epi16(load_short(rows), load_short(r1), load_short(r2),
                                              load_short(r3), 0, 0, 0, 0);
        _mm_storeu_ps(out, _mm_cvtph_ps(halves));
    }
}

/* Four rows times one column: expand in registers and multiply at once. The rows share each load
 * of x and give four independent chains, which hides the latency of the multiply-add. */
AVX2_INLINE void four_rows_times_column(uint32_t type, const uint8_t *rows, size_t row_bytes,
                                        const float *x, size_t cols, float *y)
{
    const size_t step = has_min(type) ? 2 : 1;
    const uint8_t *ahead = rows + AHEAD_BYTES; /* a hint only: may lie past the end */
    __m256 acc[CPU_TILE_ROWS];
    for (size_t r = 0; r < CPU_TILE_ROWS; r++)
        acc[r] = _mm256_setzero_ps();
    for (size_t i = 0; i < cols; i += BLOCK, rows += block_bytes(type)) {
        float scales[8];
        for (size_t at = 0; at < CPU_TILE_ROWS * block_bytes(type); at += LINE_BYTES)
            _mm_prefetch((const char *)ahead + at, _MM_HINT_T0);
        ahead += CPU_TILE_ROWS * block_bytes(type);
        load_scales(type, rows, row_bytes, scales);
        for (size_t r = 0; r < CPU_TILE_ROWS; r++) {
            __m256 w[4];
            expand_block(type, rows + r * row_bytes, _mm256_broadcast_ss(scales + r * step),
                         _mm256_broadcast_ss(scales + r * step + step - 1), w);
            for (size_t j = 0; j < 4; j++)
                acc[r] = _mm256_fmadd_ps(w[j], _mm256_loadu_ps(x + i + LANES * j), acc[r]);
        }
    }
    for (size_t r = 0; r < CPU_TILE_ROWS; r++)
        y[r] = sum_lanes(acc[r]);
}

/* What is left over when the rows are no multiple of four. */
AVX2_INLINE void row_times_column(uint32_t type, const uint8_t *row, const float *x, size_t cols,
                                  float *y)
{
    __m256 acc = _mm256_setzero_ps();
    for (size_t i = 0; i < cols; i += BLOCK, row += block_bytes(type)) {
        const __m256 scale = broadcast_half(row);
        __m256 w[4];
        expand_block(type, row, scale, has_min(type) ? broadcast_half(row + 2) : scale, w);
        for (size_t j = 0; j < 4; j++)
            acc = _mm256_fmadd_ps(w[j], _mm256_loadu_ps(x + i + LANES * j), acc);
    }
    *y = sum_lanes(acc);
}

AVX2_INLINE void matvec(uint32_t type, const struct model_tensor *w, uint32_t begin, uint32_t end,
                        const float *x, float *y)
{
    uint32_t r = begin;
    for (; r + CPU_TILE_ROWS <= end; r += CPU_TILE_ROWS)
        four_rows_times_column(type, w->data + r * w->row_bytes, w->row_bytes, x, w->cols, y + r);
    for (; r < end; r++)
        row_times_column(type, w->data + r * w->row_bytes, x, w->cols, y + r);
}

AVX2 static void matvec_q4_0(const struct model_tensor *w, uint32_t begin, uint32_t end,
                             const float *x, float *y)
{
    matvec(GGUF_TENSOR_Q4_0, w, begin, end, x, y);
}

AVX2 static void matvec_q4_1(const struct model_tensor *w, uint32_t begin, uint32_t end,
                             const float *x, float *y)
{
    matvec(GGUF_TENSOR_Q4_1, w, begin, end, x, y);
}

AVX2 static void matvec_q8_0(const struct model_tensor *w, uint32_t begin, uint32_t end,
                             const float *x, float *y)
{
    matvec(GGUF_TENSOR_Q8_0, w, begin, end, x, y);
}

/* NR rows of floats times NC columns, all sums in registers: 4 x 3 of them at most. */
AVX2_INLINE void tile(size_t nr, size_t nc, const float *w, size_t w_stride, const float *x,
                      size_t x_stride, size_t cols, float *y, size_t y_stride)
{
    __m256 acc[CPU_TILE_ROWS][TILE_COLS];
    __m256 xs[TILE_COLS];
    size_t i = 0;
    for (size_t r = 0; r < nr; r++)
        for (size_t c = 0; c < nc; c++)
            acc[r][c] = _mm256_setzero_ps();
    for (; i + LANES <= cols; i += LANES) {
        for (size_t c = 0; c < nc; c++)
            xs[c] = _mm256_loadu_ps(x + c * x_stride + i);
        for (size_t r = 0; r < nr; r++) {
            const __m256 ws = _mm256_loadu_ps(w + r * w_stride + i);
            for (size_t c = 0; c < nc; c++)
                acc[r][c] = _mm256_fmadd_ps(ws, xs[c], acc[r][c]);
        }
    }
    if (i < cols) {
        const __m256i mask = tail_mask(cols - i);
        for (size_t c = 0; c < nc; c++)
            xs[c] = _mm256_maskload_ps(x + c * x_stride + i, mask);
        for (size_t r = 0; r < nr; r++) {
            const __m256 ws = _mm256_maskload_ps(w + r * w_stride + i, mask);
            for (size_t c = 0; c < nc; c++)
                acc[r][c] = _mm256_fmadd_ps(ws, xs[c], acc[r][c]);
        }
    }
    for (size_t r = 0; r < nr; r++)
        for (size_t c = 0; c < nc; c++)
            y[c * y_stride + r] = sum_lanes(acc[r][c]);
}

AVX2_INLINE void tiles(size_t nr, const float *w, size_t w_stride, const float *x, size_t x_stride,
                       size_t cols, size_t count, float *y, size_t y_stride)
{
    size_t c = 0;
    for (; c + TILE_COLS <= count; c += TILE_COLS)
        tile(nr, TILE_COLS, w, w_stride, x + c * x_stride, x_stride, cols, y + c * y_stride,
             y_stride);
    if (count - c == 2)
        tile(nr, 2, w, w_stride, x + c * x_stride, x_stride, cols, y + c * y_stride, y_stride);
    else if (count - c == 1)
        tile(nr, 1, w, w_stride, x + c * x_stride, x_stride, cols, y + c * y_stride, y_stride);
}

AVX2 static void tiles_four_rows(const float *w, size_t w_stride, const float *x, size_t x_stride,
                                 size_t cols, size_t count, float *y, size_t y_stride)
{
    tiles(CPU_TILE_ROWS, w, w_stride, x, x_stride, cols, count, y, y_stride);
}

AVX2 static void tiles_one_row(const float *w, const float *x, size_t x_stride, size_t cols,
                               size_t count, float *y, size_t y_stride)
{
    tiles(1, w, 0, x, x_stride, cols, count, y, y_stride);
}

AVX2 static void matmul_tiled(const struct model_tensor *w, uint32_t begin, uint32_t end,
                              const float *x, size_t x_stride, size_t count, float *y,
                              size_t y_stride, float *scratch)
{
    for (uint32_t r = begin; r < end;) {
        const uint32_t rows = end - r < CPU_TILE_ROWS ? 1 : CPU_TILE_ROWS;
        const float *weights = (const float *)(const void *)(w->data + r * w->row_bytes);
        size_t stride = w->row_bytes / sizeof(*weights); /* a part of a matrix has gaps */
        if (w->type != GGUF_TENSOR_F32) {
            const char *next = (const char *)w->data + (r + rows) * w->row_bytes;
            for (size_t at = 0; at < CPU_TILE_ROWS * w->row_bytes; at += LINE_BYTES)
                _mm_prefetch(next + at, _MM_HINT_T0); /* a hint only: may lie past the end */
            for (uint32_t j = 0; j < rows; j++)
                avx2_expand(w->type, w->data + (r + j) * w->row_bytes, w->cols,
                            scratch + (size_t)j * w->cols);
            weights = scratch;
            stride = w->cols;
        }
        if (rows == CPU_TILE_ROWS)
            tiles_four_rows(weights, stride, x, x_stride, w->cols, count, y + r, y_stride);
        else
            tiles_one_row(weights, x, x_stride, w->cols, count, y + r, y_stride);
        r += rows;
    }
}

AVX2 static void avx2_matmul(const struct model_tensor *w, uint32_t row_begin, uint32_t row_end,
                             const float *x, size_t x_stride, size_t count, float *y,
                             size_t y_stride, float *scratch)
{
    if (count == 1 && w->type == GGUF_TENSOR_Q4_1)
        matvec_q4_1(w, row_begin, row_end, x, y);
    else if (count == 1 && w->type == GGUF_TENSOR_Q4_0)
        matvec_q4_0(w, row_begin, row_end, x, y);
    else if (count == 1 && w->type == GGUF_TENSOR_Q8_0)
        matvec_q8_0(w, row_begin, row_end, x, y);
    else
        matmul_tiled(w, row_begin, row_end, x, x_stride, count, y, y_stride, scratch);
}

AVX2_INLINE float dot(const float *a, const float *b, size_t count)
{
    __m256 acc = _mm256_setzero_ps();
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        acc = _mm256_fmadd_ps(_mm256_loadu_ps(a + i), _mm256_loadu_ps(b + i), acc);
    if (i < count) {
        const __m256i mask = tail_mask(count - i);
        acc =
            _mm256_fmadd_ps(_mm256_maskload_ps(a + i, mask), _mm256_maskload_ps(b + i, mask), acc);
    }
    return sum_lanes(acc);
}

AVX2 static void avx2_rms_norm(const float *x, const float *weight, size_t count, float epsilon,
                               float *out)
{
    const float mean = dot(x, x, count) / (float)count;
    const float scale = 1.0f / sqrtf(mean + epsilon);
    for (size_t i = 0; i < count; i++)
        out[i] = x[i] * scale * weight[i];
}

/* exp(x) to about 2 ulp: x = n ln 2 + r, |r| <= ln(2)/2, Taylor to r^7 (error below 2^-27), then
 * the exponent put in by addition. Below -87.3 the result is 0; above 88 it stays at exp(88). NaN
 * stays NaN. */
AVX2_INLINE __m256 exp_lanes(__m256 x)
{
    const __m256 low = _mm256_set1_ps(-87.3f);
    const __m256 zero_mask = _mm256_cmp_ps(x, low, _CMP_LT_OQ);
    x = _mm256_min_ps(_mm256_set1_ps(88.0f), x); /* a NaN is passed on: it is the second operand */
    x = _mm256_max_ps(low, x);
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(x, _mm256_set1_ps(1.44269504f)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), x);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.0f / 5040);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 720));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 120));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 24));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f / 6));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(0.5f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.0f));
    const __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    p = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), exponent));
    return _mm256_andnot_ps(zero_mask, p);
}

AVX2_INLINE __m256 swiglu_lanes(__m256 gate, __m256 up)
{
    const __m256 e = exp_lanes(_mm256_xor_ps(gate, _mm256_set1_ps(-0.0f)));
    return _mm256_mul_ps(_mm256_div_ps(gate, _mm256_add_ps(e, _mm256_set1_ps(1.0f))), up);
}

AVX2 static void avx2_swiglu(float *gate, const float *up, size_t count)
{
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        _mm256_storeu_ps(gate + i,
                         swiglu_lanes(_mm256_loadu_ps(gate + i), _mm256_loadu_ps(up + i)));
    if (i < count) {
        const __m256i mask = tail_mask(count - i);
        const __m256 out =
            swiglu_lanes(_mm256_maskload_ps(gate + i, mask), _mm256_maskload_ps(up + i, mask));
        _mm256_maskstore_ps(gate + i, mask, out);
    }
}

/* out = weighted sum of value rows; `chunk` * 8 columns at a time stay in registers. */
AVX2_INLINE void mix_values(size_t chunk, const float *weights, const struct cpu_rows *values,
                            size_t column, size_t count, size_t width, __m256 scale, float *out)
{
    __m256 acc[8];
    for (size_t c = 0; c < chunk; c++)
        acc[c] = _mm256_setzero_ps();
    for (size_t j = 0, end; j < count;) {
        const float *row = cpu_rows_page(values, j, count, &end) + column;
        for (; j < end; j++, row += width) {
            const __m256 p = _mm256_set1_ps(weights[j]);
            for (size_t c = 0; c < chunk; c++)
                acc[c] = _mm256_fmadd_ps(p, _mm256_loadu_ps(row + LANES * c), acc[c]);
        }
    }
    for (size_t c = 0; c < chunk; c++)
        _mm256_storeu_ps(out + LANES * c, _mm256_mul_ps(acc[c], scale));
}

AVX2_INLINE float find_scores(const float *q, const struct cpu_rows *keys, size_t count,
                              size_t width, float scale, float *scores)
{
    float max = -INFINITY;
    for (size_t j = 0, end; j < count;) {
        const float *row = cpu_rows_page(keys, j, count, &end);
        for (; j < end; j++, row += width) {
            scores[j] = dot(q, row, width) * scale;
            max = scores[j] > max ? scores[j] : max;
        }
    }
    return max;
}

AVX2 static void avx2_attend(const float *q, const struct cpu_rows *keys,
                             const struct cpu_rows *values, size_t count, size_t width, float scale,
                             float *scores, float *out)
{
    const float max = find_scores(q, keys, count, width, scale, scores);
    for (size_t j = count; j % LANES; j++)
        scores[j] = -INFINITY; /* whole vectors below */
    __m256 sums = _mm256_setzero_ps();
    for (size_t j = 0; j < count; j += LANES) {
        const __m256 p = exp_lanes(_mm256_sub_ps(_mm256_loadu_ps(scores + j), _mm256_set1_ps(max)));
        _mm256_storeu_ps(scores + j, p);
        sums = _mm256_add_ps(sums, p);
    }
    const float inverse = 1.0f / sum_lanes(sums);
    const __m256 inverses = _mm256_set1_ps(inverse);
    size_t i = 0;
    for (; i + 8 * LANES <= width; i += 8 * LANES)
        mix_values(8, scores, values, i, count, width, inverses, out + i);
    for (; i + LANES <= width; i += LANES)
        mix_values(1, scores, values, i, count, width, inverses, out + i);
    for (; i < width; i++) {
        float sum = 0.0f;
        for (size_t j = 0, end; j < count;) {
            const float *row = cpu_rows_page(values, j, count, &end) + i;
            for (; j < end; j++, row += width)
                sum = __builtin_fmaf(scores[j], *row, sum);
        }
        out[i] = sum * inverse;
    }
}

static const struct cpu_kernels table = {
    .name = "avx2",
    .expand = avx2_expand,
    .matmul = avx2_matmul,
    .rms_norm = avx2_rms_norm,
    .swiglu = avx2_swiglu,
    .attend = avx2_attend,
};

const struct cpu_kernels *cpu_kernels_avx2(void)
{
    unsigned eax, ebx, ecx, edx;
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return NULL;
    /* Not every compiler's builtin knows f16c by name. */
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx) || !(ecx & bit_F16C))
        return NULL;
    return &table;
}

#else

const struct cpu_kernels *cpu_kernels_avx2(void)
{
    return NULL;
}

#endif
