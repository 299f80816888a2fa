/* SPDX-License-Identifier: Apache-2.0 */
/* The fast kernels with AVX-512 and its integer dot product (VNNI): a lane is a lane. */
#include "kernels/cpu/kernels.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#define TARGET        __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,f16c")))
#define LANES_FN      TARGET CPU_INLINE
#define LANES_OUTER   TARGET
#define DOT_TAKES_128 0
#define TILE_COLS     8u

typedef __m512 vec;
typedef __m512i ints;
typedef __m512i bytes;

LANES_FN __mmask16 first_lanes(size_t count)
{
    return (__mmask16)((1u << count) - 1u);
}

LANES_FN vec vec_load(const float *p)
{
    return _mm512_loadu_ps(p);
}

LANES_FN vec vec_load_part(const float *p, size_t count)
{
    return _mm512_maskz_loadu_ps(first_lanes(count), p);
}

LANES_FN void vec_store(float *p, vec v)
{
    _mm512_storeu_ps(p, v);
}

/* `count` may be all. */
LANES_FN void vec_store_part(float *p, vec v, size_t count)
{
    _mm512_mask_storeu_ps(p, first_lanes(count), v);
}

LANES_FN vec vec_set(float x)
{
    return _mm512_set1_ps(x);
}

LANES_FN vec vec_add(vec a, vec b)
{
    return _mm512_add_ps(a, b);
}

LANES_FN vec vec_sub(vec a, vec b)
{
    return _mm512_sub_ps(a, b);
}

LANES_FN vec vec_mul(vec a, vec b)
{
    return _mm512_mul_ps(a, b);
}

LANES_FN vec vec_div(vec a, vec b)
{
    return _mm512_div_ps(a, b);
}

LANES_FN vec vec_max(vec a, vec b)
{
    return _mm512_max_ps(a, b);
}

LANES_FN vec vec_select(vec source, vec a, vec b)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(source, _mm512_setzero_ps(), _CMP_GE_OQ), b, a);
}

LANES_FN float vec_sum(vec v)
{
    const __m256 high = _mm512_extractf32x8_ps(v, 1);
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), high);
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
}

LANES_FN vec vec_halves(const uint8_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}

LANES_FN vec vec_upper(const uint8_t *p)
{
    const __m256i words = _mm256_loadu_si256((const __m256i *)(const void *)p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
}

LANES_FN vec vec_bytes(const uint8_t *p)
{
    const __m128i packed = _mm_loadu_si128((const __m128i *)(const void *)p);
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(packed));
}

LANES_FN ints ints_bytes(const uint8_t *p)
{
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
}

LANES_FN vec vec_of_ints(ints v)
{
    return _mm512_cvtepi32_ps(v);
}

LANES_FN ints ints_set(int32_t x)
{
    return _mm512_set1_epi32(x);
}

LANES_FN ints ints_add(ints a, ints b)
{
    return _mm512_add_epi32(a, b);
}

LANES_FN ints ints_mul(ints a, ints b)
{
    return _mm512_mullo_epi32(a, b);
}

/* Returns the sum of the bytes. */
LANES_FN int32_t vec_round_bytes(vec v, int8_t *out)
{
    const __m512i whole = _mm512_cvtps_epi32(v);
    _mm_storeu_si128((__m128i *)(void *)out, _mm512_cvtepi32_epi8(whole));
    return _mm512_reduce_add_epi32(whole);
}

LANES_FN float vec_bits_max(vec a, vec b)
{
    const __m512i sign = _mm512_set1_epi32(0x7fffffff);
    const __m512i larger = _mm512_max_epu32(_mm512_and_si512(_mm512_castps_si512(a), sign),
                                            _mm512_and_si512(_mm512_castps_si512(b), sign));
    const uint32_t bits = _mm512_reduce_max_epu32(larger);
    float out;
    memcpy(&out, &bits, sizeof(out));
    return out;
}

LANES_FN vec vec_power(vec p, vec biased)
{
    const __m512i power = _mm512_slli_epi32(_mm512_castps_si512(biased), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(p), power));
}

LANES_FN bytes bytes_load(const uint8_t *p)
{
    return _mm512_loadu_si512(p);
}

LANES_FN bytes bytes_low(bytes v)
{
    return _mm512_and_si512(v, _mm512_set1_epi8(15));
}

LANES_FN bytes bytes_high(bytes v)
{
    return _mm512_and_si512(_mm512_srli_epi16(v, 4), _mm512_set1_epi8(15));
}

LANES_FN ints ints_dot(ints start, const bytes *w, size_t quads, const int8_t *x, int32_t largest)
{
    (void)largest;
    for (size_t j = 0; j < quads; j++) {
        int32_t four;
        memcpy(&four, x + 4 * j, sizeof(four));
        start = _mm512_dpbusd_epi32(start, w[j], _mm512_set1_epi32(four));
    }
    return start;
}

#include "kernels/cpu/fast_body.h"

static const struct cpu_kernels table = FAST_KERNELS("avx512");

const struct cpu_kernels *cpu_fast_avx512(void)
{
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl") ||
        !__builtin_cpu_supports("avx512vnni"))
        return NULL;
    return &table;
}

#else

const struct cpu_kernels *cpu_fast_avx512(void)
{
    return NULL;
}

#endif
