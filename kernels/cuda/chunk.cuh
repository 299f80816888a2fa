/* SPDX-License-Identifier: Apache-2.0 */
/*
 * chunk.cuh - 16 bytes of a row's quants, and the weights in them. A chunk is what one thread loads
 * at once: QUADS times four neighbouring weights. column(c, i) says where quad i of chunk c stands
 * in the row, quad(i) gives its four weights, each a multiply-add of its quant, rounded once.
 *
 *   type         weights a chunk   quads of the first half   of the second half
 *   F32          4                 neighbours
 *   F16, BF16    8                 neighbours
 *   Q8_0         16                neighbours
 *   Q4_0, Q4_1,
 *   Q5_0, Q5_1   32                low nibbles               high nibbles, 16 columns further
 *   Q4_K, Q5_K   32                low nibbles               high nibbles, 32 columns further
 *   Q6_K         32                low nibbles               high nibbles, 64 columns further
 *
 * A row whose weights do not fill its last chunk ends with zeros (weights.h).
 *
 * Variants considered (arithmetic per weight of 4 bits):
 *  1. int to float conversion, multiply-add: 16 conversions a cycle and processor are fewer than
 *     the bytes that an H100's memory gives it. No; bytes get the exponent of 2^23 instead.
 *  2. nibble into the mantissa of 1.0, one multiply-add with 16 d and m - 16 d: what is done. As
 *     exact as variant 1 where m - 16 d is, always so without m. Four nibbles at a time are moved
 *     and masked, each then takes one byte permutation.
 *  3. two nibbles at once into halves (0x6400), half2 arithmetic: fewer operations. halves() does
 *     so for gemm.cu where the scale is a half and nothing is added, which is the same bits: the
 *     difference is exact, the product rounded once. Elsewhere halves, which carry 11 bits, would
 *     round the scale, too.
 *  4. activations as int8, four products by dp4a: the fewest operations; other numbers than
 *     float32's, so not for the exact path.
 */
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/weights.h"

#define DEVICE_INLINE __device__ __forceinline__

/* A row of a matrix, found once. */
struct row_view {
    const uint4 *quants;
    const uint8_t *high;
    const uint8_t *scales;
};

static DEVICE_INLINE row_view row_of(const weights &w, uint32_t row)
{
    row_view v;
    v.quants = reinterpret_cast<const uint4 *>(w.data + (uint64_t)row * w.quants_stride);
    v.high = w.data + w.high_at + (uint64_t)row * w.high_stride;
    v.scales = w.data + w.scales_at + (uint64_t)row * w.scales_stride;
    return v;
}

static DEVICE_INLINE unsigned word_of(const uint4 &v, unsigned i)
{
    return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

static DEVICE_INLINE float load_half(const uint8_t *at)
{
    return half_value(*reinterpret_cast<const uint16_t *>(at));
}

/* A word with bit `from` of each byte at bit `to`, among bits of its neighbours. */
static DEVICE_INLINE unsigned moved(unsigned word, unsigned from, unsigned to)
{
    return from > to ? word >> (from - to) : word << (to - from);
}

/* Byte i, less the bit at its top which is set, as the upper bits of a mantissa: 1 + byte / 128. */
static DEVICE_INLINE float byte_in_one(unsigned word, unsigned i)
{
    return __uint_as_float(__byte_perm(word, 0x3f000000u, 0x7044u | i << 8));
}

/* The four of a word times `scale` plus `base`. */
static DEVICE_INLINE float4 bytes_in_one(unsigned word, float scale, float base)
{
    const unsigned set = word | 0x80808080u;
    return make_float4(
        fmaf(scale, byte_in_one(set, 0), base), fmaf(scale, byte_in_one(set, 1), base),
        fmaf(scale, byte_in_one(set, 2), base), fmaf(scale, byte_in_one(set, 3), base));
}

/* Four nibbles of a word, from bit `shift` on, times `d` plus `m`. */
static DEVICE_INLINE float4 nibbles(unsigned word, unsigned shift, float d, float m)
{
    const float d16 = 16.0f * d;
    return bytes_in_one(moved(word, shift, 3) & 0x78787878u, d16, m - d16);
}

/* Four neighbouring bits, one to each byte's lowest; anything may stand above them. */
static DEVICE_INLINE unsigned spread_bits(unsigned bits)
{
    return (bits & 15u) * 0x00204081u & 0x01010101u;
}

/* As nibbles(), with a fifth bit at the bottom of each byte of `high`. */
static DEVICE_INLINE float4 fives(unsigned word, unsigned shift, unsigned high, float d, float m)
{
    const float d32 = 32.0f * d;
    const unsigned five = (moved(word, shift, 2) & 0x3c3c3c3cu) | (high << 6 & 0x40404040u);
    return bytes_in_one(five, d32, m - d32);
}

/* Two neighbouring bytes of a word, from byte `first` on, less `middle` and times `d`, as halves;
 * rounded once, as the product of floats would be. */
static DEVICE_INLINE unsigned byte_halves(unsigned word, unsigned first, unsigned middle, float d)
{
    const unsigned pair = __byte_perm(word, 0x64646464u, first ? 0x4342u : 0x4140u); /* + 1024 */
    return halves_less_times(pair, 0x64006400u | middle << 16 | middle, d);
}

static DEVICE_INLINE uint2 four_halves(unsigned word, unsigned middle, float d)
{
    uint2 both;
    both.x = byte_halves(word, 0, middle, d);
    both.y = byte_halves(word, 2, middle, d);
    return both;
}

/* Byte i of a word, its sign bit turned, as the whole number from -128 on that it was: the lowest
 * bits of 2^23, from which the rest is taken. */
static DEVICE_INLINE float signed_byte(unsigned turned, unsigned i)
{
    return __uint_as_float(__byte_perm(turned, 0x4b000000u, 0x7440u | i)) - 8388736.0f;
}

/* ---- a loaded chunk, per type -------------------------------------------------------------- */

template <uint32_t TYPE> struct chunk;

template <> struct chunk<WEIGHTS_F32> {
    static constexpr unsigned QUADS = 1;
    uint4 q;
    static DEVICE_INLINE unsigned column(unsigned c, unsigned)
    {
        return c * 4;
    }
    DEVICE_INLINE void load(const row_view &row, unsigned c)
    {
        q = row.quants[c];
    }
    DEVICE_INLINE float4 quad(unsigned) const
    {
        return make_float4(__uint_as_float(q.x), __uint_as_float(q.y), __uint_as_float(q.z),
                           __uint_as_float(q.w));
    }
};

template <> struct chunk<WEIGHTS_F16> {
    static constexpr unsigned QUADS = 2;
    uint4 q;
    static DEVICE_INLINE unsigned column(unsigned c, unsigned i)
    {
        return c * 8 + i * 4;
    }
    DEVICE_INLINE void load(const row_view &row, unsigned c)
    {
        q = row.quants[c];
    }
    DEVICE_INLINE float4 quad(unsigned i) const
    {
        const unsigned a = word_of(q, 2 * i);
        const unsigned b = word_of(q, 2 * i + 1);
        return make_float4(half_value((uint16_t)a), half_value((uint16_t)(a >> 16)),
                           half_value((uint16_t)b), half_value((uint16_t)(b >> 16)));
    }
};

template <> struct chunk<WEIGHTS_BF16> {
    static constexpr unsigned QUADS = 2;
    uint4 q;
    static DEVICE_INLINE unsigned column(unsigned c, unsigned i)
    {
        return c * 8 + i * 4;
    }
    DEVICE_INLINE void load(const row_view &row, unsigned c)
    {
        q = row.quants[c];
    }
    DEVICE_INLINE float4 quad(unsigned i) const
    {
        const unsigned a = word_of(q, 2 * i);
        const unsigned b = word_of(q, 2 * i + 1);
        return make_float4(__uint_as_float(a << 16), __uint_as_float(a & 0xffff0000u),
                           __uint_as_float(b << 16), __uint_as_float(b & 0xffff0000u));
    }
};

template <> struct chunk<WEIGHTS_Q8_0> {
    static constexpr unsigned QUADS = 4;
    uint4 q;
    float d;
    static DEVICE_INLINE unsigned column(unsigned c, unsigned i)
    {
        return c * 16 + i * 4;
    }
    DEVICE_INLINE void load(const row_view &row, unsigned c)
    {
        q = row.quants[c];
        d = load_half(row.scales + c / 2 * 2);
    }
    DEVICE_INLINE float4 quad(unsigned i) const
    {
        const unsigned turned = word_of(q, i) ^ 0x80808080u;
        return make_float4(d * signed_byte(turned, 0), d * signed_byte(turned, 1),
                           d * signed_byte(turned, 2), d * signed_byte(turned, 3));
    }
    DEVICE_INLINE uint2 halves(unsigned i) const
    {
        return four_halves(word_of(q, i) ^ 0x80808080u, 128, d);
    }
};

template <bool HAS_MIN> struct chunk_q4 {
    static constexpr unsigned QUADS = 8;
    uint4 q;
    float d;
    float m;
    static DEVICE_INLINE unsigned column(unsigned c, unsigned i)
    {
        return c * 32 + i * 4;
    }
    DEVICE_INLINE void load(const row_view &row, unsigned c)
    {
        q = row.quants[c];
        if (HAS_MIN) {
            const unsigned both = *reinterpret_cast<const unsigned *>(row.scales + c * 4);
            d = half_value((uint16_t)both);
            m = half_value((uint16_t)(both >> 16));
        } else {
            d = load_half(row.scales + c * 2);
            m = -8.0f * d;
        }
    }
    DEVICE_INLINE float4 quad(unsigned i) const
    {
        return nibbles(word_of(q, i & 3u), i & 4u, d, m);
    }
    DEVICE_INLINE uint2 halves(unsigned i) const /* without a minimum */
    {
        return four_halves(word_of(q, i & 3u) >> (i & 4u) & 0x0f0f0f0fu, 8, d);
    }
};
template <> struct chunk<WEIGHTS_Q4_0> : chunk_q4<false> {
};
template <> struct chunk<WEIGHTS_Q4_1> : chunk_q4<true> {
};

/* A word of fifth bits a block, in the order of its weights. */
template <bool HAS_MIN> struct chunk_q5 : chunk_q4<HAS_MIN> {
    unsigned h;
    DEVICE_INLINE void load(const row_view &row, unsigned c)
    {
        chunk_q4<HAS_MIN>::load(row, c);
        if (!HAS_MIN)
            this->m = -16.0f * this->d;
        h = *reinterpret_cast<const unsigned *>(row.high + c * 4);
    }
    DEVICE_INLINE float4 quad(unsigned i) const
    {
        return fives(word_of(this->q, i & 3u), i & 4u, spread_bits(h >> 4 * i), this->d, this->m);
    }
    DEVICE_INLINE uint2 halves(unsigned i) const /* without a minimum */
    {
        const unsigned low = word_of(this->q, i & 3u) >> (i & 4u) & 0x0f0f0f0fu;
        return four_halves(low | spread_bits(h >> 4 * i) << 4, 16, this->d);
    }
};
template <> struct chunk<WEIGHTS_Q5_0> : chunk_q5<false> {
};
template <> struct chunk<WEIGHTS_Q5_1> : chunk_q5<true> {
};

/* Eight chunks a block of 256; two of them hold 64 weights: 32 in low nibbles, 32 in high ones. */
template <> struct chunk<WEIGHTS_Q4_K> {
    static constexpr unsigned QUADS = 8;
    uint4 q;
    float d[2];
    float m[2];
    static DEVICE_INLINE unsigned column(unsigned c, unsigned i)
    {
        return c / 2 * 64 + c % 2 * 16 + (i & 3u) * 4 + (i & 4u) * 8;
    }
    DEVICE_INLINE void load(const row_view &row, unsigned c)
    {
        q = row.quants[c];
        const uint4 s = *reinterpret_cast<const uint4 *>(row.scales + c / 8 * 16);
        const float scale = half_value((uint16_t)s.x);
        const float min = half_value((uint16_t)(s.x >> 16));
        for (unsigned i = 0; i < 2; i++) {
            const unsigned k = c % 8 / 2 * 2 + i; /* of eight pairs of 6 bits */
            const unsigned shift = 8 * (k & 3u);
            const unsigned low = s.y >> shift;  /* byte k, or k - 4 */
            const unsigned mid = s.z >> shift;  /* byte k + 4, or k */
            const unsigned high = s.w >> shift; /* byte k + 4 of the upper pairs */
            const unsigned six = k < 4 ? low & 63u : (high & 15u) | (low >> 6 & 3u) << 4;
            const unsigned less = k < 4 ? mid & 63u : (high >> 4 & 15u) | (mid >> 6 & 3u) << 4;
            d[i] = scale * (float)six;
            m[i] = -min * (float)less;
        }
    }
    DEVICE_INLINE float4 quad(unsigned i) const
    {
        return nibbles(word_of(q, i & 3u), i & 4u, d[i >> 2], m[i >> 2]);
    }
};

/* The same with 32 bytes of fifth bits a block: byte i has those of weight i of every run of 32,
 * the first run's lowest. */
template <> struct chunk<WEIGHTS_Q5_K> : chunk<WEIGHTS_Q4_K> {
    uint4 h;
    unsigned run; /* the first one's; the second is the next */
    DEVICE_INLINE void load(const row_view &row, unsigned c)
    {
        chunk<WEIGHTS_Q4_K>::load(row, c);
        h = *reinterpret_cast<const uint4 *>(row.high + c / 8 * 32 + c % 2 * 16);
        run = c % 8 / 2 * 2;
    }
    DEVICE_INLINE float4 quad(unsigned i) const
    {
        return fives(word_of(q, i & 3u), i & 4u, word_of(h, i & 3u) >> (run + (i >> 2)), d[i >> 2],
                     m[i >> 2]);
    }
};

/* Eight chunks a block of 256: four a half of 128. The two high bits of a weight lie elsewhere. */
template <> struct chunk<WEIGHTS_Q6_K> {
    static constexpr unsigned QUADS = 8;
    uint4 q;
    uint4 h; /* from the first run's two bits on; the second's are two runs further */
    float d[2];
    static DEVICE_INLINE unsigned column(unsigned c, unsigned i)
    {
        return c / 4 * 128 + c % 4 * 16 + (i & 3u) * 4 + (i & 4u) * 16;
    }
    DEVICE_INLINE void load(const row_view &row, unsigned c)
    {
        const unsigned in_half = c % 4;
        const uint8_t *scales = row.scales + c / 8 * 18;
        const uint8_t *eight = scales + c % 8 / 4 * 8;
        const float scale = load_half(scales + 16);
        q = row.quants[c];
        h = *reinterpret_cast<const uint4 *>(row.high + c / 4 * 32 + in_half % 2 * 16);
        const unsigned run = in_half / 2 * 2;
        h = make_uint4(h.x >> run, h.y >> run, h.z >> run, h.w >> run);
        d[0] = scale * (float)(int8_t)eight[in_half];
        d[1] = scale * (float)(int8_t)eight[in_half + 4];
    }
    DEVICE_INLINE float4 quad(unsigned i) const
    {
        const unsigned low = moved(word_of(q, i & 3u), i & 4u, 1) & 0x1e1e1e1eu;
        const unsigned pairs = moved(word_of(h, i & 3u), i & 4u, 5) & 0x60606060u;
        return bytes_in_one(low | pairs, 64.0f * d[i >> 2], -96.0f * d[i >> 2]);
    }
};

static constexpr __host__ __device__ unsigned chunk_columns(uint32_t type)
{
    switch (type) {
    case WEIGHTS_F32:
        return 4;
    case WEIGHTS_F16:
    case WEIGHTS_BF16:
        return 8;
    case WEIGHTS_Q8_0:
        return 16;
    default:
        return 32;
    }
}

/* Calls fn.template run<TYPE>() for a type that is known at run time; uniform over a warp. On the
 * device or the host, wherever run() belongs. */
#ifdef __CUDACC__
#pragma nv_exec_check_disable
#endif
template <typename F> static __host__ DEVICE_INLINE void for_type(uint32_t type, F &fn)
{
    switch (type) {
    case WEIGHTS_F32:
        return fn.template run<WEIGHTS_F32>();
    case WEIGHTS_F16:
        return fn.template run<WEIGHTS_F16>();
    case WEIGHTS_BF16:
        return fn.template run<WEIGHTS_BF16>();
    case WEIGHTS_Q8_0:
        return fn.template run<WEIGHTS_Q8_0>();
    case WEIGHTS_Q4_0:
        return fn.template run<WEIGHTS_Q4_0>();
    case WEIGHTS_Q4_1:
        return fn.template run<WEIGHTS_Q4_1>();
    case WEIGHTS_Q5_0:
        return fn.template run<WEIGHTS_Q5_0>();
    case WEIGHTS_Q5_1:
        return fn.template run<WEIGHTS_Q5_1>();
    case WEIGHTS_Q4_K:
        return fn.template run<WEIGHTS_Q4_K>();
    case WEIGHTS_Q5_K:
        return fn.template run<WEIGHTS_Q5_K>();
    case WEIGHTS_Q6_K:
        return fn.template run<WEIGHTS_Q6_K>();
    default:
        return;
    }
}
