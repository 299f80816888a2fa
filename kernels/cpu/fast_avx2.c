/* SPDX-License-Identifier: Apache-2.0 */
/* The fast kernels with AVX2: sixteen lanes are two vectors of eight. */
#include "kernels/cpu/kernels.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>
#include <string.h>

#define TARGET        __attribute__((target("avx2,f16c")))
#define LANES_FN      TARGET CPU_INLINE
#define LANES_OUTER   TARGET
#define DOT_TAKES_128 1
#define TILE_COLS     8u

typedef struct {
    __m256 a, b;
} vec;
typedef struct {
    __m256i a, b;
} ints;
typedef ints bytes;

/* Lanes below `count` set; none or all of the eight where it is out of their range. */
LANES_FN __m256i lane_mask(int count)
{
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lane);
}

LANES_FN vec vec_load(const float *p)
{
    return (vec){_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
}

LANES_FN vec vec_load_part(const float *p, size_t count)
{
    return (vec){_mm256_maskload_ps(p, lane_mask((int)count)),
                 _mm256_maskload_ps(p + 8, lane_mask((int)count - 8))};
}

LANES_FN void vec_store(float *p, vec v)
{
    _mm256_storeu_ps(p, v.a);
    _mm256_storeu_ps(p + 8, v.b);
}

/* `count` may be all. */
LANES_FN void vec_store_part(float *p, vec v, size_t count)
{
    _mm256_maskstore_ps(p, lane_mask((int)count), v.a);
    _mm256_maskstore_ps(p + 8, lane_mask((int)count - 8), v.b);
}

LANES_FN vec vec_set(float x)
{
    return (vec){_mm256_set1_ps(x), _mm256_set1_ps(x)};
}

LANES_FN vec vec_add(vec x, vec y)
{
    return (vec){_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)};
}

LANES_FN vec vec_sub(vec x, vec y)
{
    return (vec){_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)};
}

LANES_FN vec vec_mul(vec x, vec y)
{
    return (vec){_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)};
}

LANES_FN vec vec_div(vec x, vec y)
{
    return (vec){_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)};
}

LANES_FN vec vec_max(vec x, vec y)
{
    return (vec){_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)};
}

LANES_FN vec vec_select(vec source, vec x, vec y)
{
    const __m256 zero = _mm256_setzero_ps();
    return (vec){_mm256_blendv_ps(y.a, x.a, _mm256_cmp_ps(source.a, zero, _CMP_GE_OQ)),
                 _mm256_blendv_ps(y.b, x.b, _mm256_cmp_ps(source.b, zero, _CMP_GE_OQ))};
}

LANES_FN float vec_sum(vec v)
{
    const __m256 eight = _mm256_add_ps(v.a, v.b);
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
}

LANES_FN __m128i load_16(const void *p)
{
    return _mm_loadu_si128((const __m128i *)p);
}

LANES_FN __m128i load_8(const void *p)
{
    return _mm_loadl_epi64((const __m128i *)p);
}

LANES_FN vec vec_halves(const uint8_t *p)
{
    return (vec){_mm256_cvtph_ps(load_16(p)), _mm256_cvtph_ps(load_16(p + 16))};
}

LANES_FN __m256 upper_8(const uint8_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load_16(p)), 16));
}

LANES_FN vec vec_upper(const uint8_t *p)
{
    return (vec){upper_8(p), upper_8(p + 16)};
}

LANES_FN vec vec_of_ints(ints v)
{
    return (vec){_mm256_cvtepi32_ps(v.a), _mm256_cvtepi32_ps(v.b)};
}

LANES_FN vec vec_bytes(const uint8_t *p)
{
    return vec_of_ints(
        (ints){_mm256_cvtepu8_epi32(load_8(p)), _mm256_cvtepu8_epi32(load_8(p + 8))});
}

LANES_FN ints ints_bytes(const uint8_t *p)
{
    return (ints){_mm256_cvtepi8_epi32(load_8(p)), _mm256_cvtepi8_epi32(load_8(p + 8))};
}

LANES_FN ints ints_set(int32_t x)
{
    return (ints){_mm256_set1_epi32(x), _mm256_set1_epi32(x)};
}

LANES_FN ints ints_add(ints x, ints y)
{
    return (ints){_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)};
}

LANES_FN ints ints_mul(ints x, ints y)
{
    return (ints){_mm256_mullo_epi32(x.a, y.a), _mm256_mullo_epi32(x.b, y.b)};
}

/* Returns the sum of the bytes. */
LANES_FN int32_t vec_round_bytes(vec v, int8_t *out)
{
    const __m256i a = _mm256_cvtps_epi32(v.a);
    const __m256i b = _mm256_cvtps_epi32(v.b);
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
    const __m128i packed =
        _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((__m128i *)(void *)out, packed);
    const __m256i eight = _mm256_add_epi32(a, b);
    __m128i s = _mm_add_epi32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256(eight, 1));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_add_epi32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtsi128_si32(s);
}

LANES_FN float vec_bits_max(vec x, vec y)
{
    const __m256i sign = _mm256_set1_epi32(0x7fffffff);
    const __m256i a =
        _mm256_max_epu32(_mm256_castps_si256(x.a) & sign, _mm256_castps_si256(x.b) & sign);
    const __m256i b =
        _mm256_max_epu32(_mm256_castps_si256(y.a) & sign, _mm256_castps_si256(y.b) & sign);
    const __m256i m = _mm256_max_epu32(a, b);
    __m128i s = _mm_max_epu32(_mm256_castsi256_si128(m), _mm256_extracti128_si256(m, 1));
    s = _mm_max_epu32(s, _mm_shuffle_epi32(s, 0x4e));
    s = _mm_max_epu32(s, _mm_shuffle_epi32(s, 0xb1));
    return _mm_cvtss_f32(_mm_castsi128_ps(s));
}

LANES_FN vec vec_power(vec p, vec biased)
{
    const __m256i a = _mm256_slli_epi32(_mm256_castps_si256(biased.a), 23);
    const __m256i b = _mm256_slli_epi32(_mm256_castps_si256(biased.b), 23);
    return (vec){_mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.a), a)),
                 _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p.b), b))};
}

LANES_FN bytes bytes_load(const uint8_t *p)
{
    return (bytes){_mm256_loadu_si256((const __m256i *)(const void *)p),
                   _mm256_loadu_si256((const __m256i *)(const void *)(p + 32))};
}

LANES_FN bytes bytes_low(bytes v)
{
    const __m256i mask = _mm256_set1_epi8(15);
    return (bytes){_mm256_and_si256(v.a, mask), _mm256_and_si256(v.b, mask)};
}

LANES_FN bytes bytes_high(bytes v)
{
    const bytes shifted = {_mm256_srli_epi16(v.a, 4), _mm256_srli_epi16(v.b, 4)};
    return bytes_low(shifted);
}

/* Products of eight lanes. Sums of two products stay within 16 bits up to weights of 128, so that
 * larger ones go in as signed and give their sign to the input; `run` quads fit before widening. */
LANES_FN __m256i dot_half(__m256i start, const __m256i *w, size_t stride, size_t quads,
                          const int8_t *x, int32_t largest)
{
    const __m256i one = _mm256_set1_epi16(1);
    const size_t run = largest > 63 ? 1 : largest > 31 ? 2 : largest > 15 ? 4 : 8;
    for (size_t j = 0; j < quads; j += run) {
        __m256i words = _mm256_setzero_si256();
        for (size_t i = j; i < j + run && i < quads; i++) {
            int32_t four;
            memcpy(&four, x + 4 * i, sizeof(four));
            const __m256i input = _mm256_set1_epi32(four);
            const __m256i weights = w[i * stride];
            words = _mm256_add_epi16(words, _mm256_maddubs_epi16(weights, input));
        }
        start = _mm256_add_epi32(start, _mm256_madd_epi16(words, one));
    }
    return start;
}

/* Stored weights above 127 would overflow 16 bits: they go in as w - 128, see DOT_TAKES_128. */
LANES_FN __m256i dot_half_signed(__m256i start, const __m256i *w, size_t stride, size_t quads,
                                 const int8_t *x)
{
    const __m256i one = _mm256_set1_epi16(1);
    for (size_t j = 0; j < quads; j++) {
        int32_t four;
        memcpy(&four, x + 4 * j, sizeof(four));
        const __m256i weights = _mm256_xor_si256(w[j * stride], _mm256_set1_epi8(-128));
        const __m256i input = _mm256_sign_epi8(_mm256_set1_epi32(four), weights);
        const __m256i words = _mm256_maddubs_epi16(_mm256_abs_epi8(weights), input);
        start = _mm256_add_epi32(start, _mm256_madd_epi16(words, one));
    }
    return start;
}

LANES_FN ints ints_dot(ints start, const bytes *w, size_t quads, const int8_t *x, int32_t largest)
{
    if (largest > 127) {
        start.a = dot_half_signed(start.a, &w->a, 2, quads, x);
        start.b = dot_half_signed(start.b, &w->b, 2, quads, x);
    } else {
        start.a = dot_half(start.a, &w->a, 2, quads, x, largest);
        start.b = dot_half(start.b, &w->b, 2, quads, x, largest);
    }
    return start;
}

#include "kernels/cpu/fast_body.h"

static const struct cpu_kernels table = FAST_KERNELS("avx2");

const struct cpu_kernels *cpu_fast_avx2(void)
{
    unsigned eax, ebx, ecx, edx;
    if (!__builtin_cpu_supports("avx2") || !__get_cpuid(1, &eax, &ebx, &ecx, &edx) ||
        !(ecx & bit_F16C))
        return NULL;
    return &table;
}

#else

const struct cpu_kernels *cpu_fast_avx2(void)
{
    return NULL;
}

#endif
