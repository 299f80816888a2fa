/* SPDX-License-Identifier: Apache-2.0 */
/* The fast kernels in plain C: sixteen lanes are loops of sixteen. What runs where there is no
 * better table, and what the better ones have to equal in every bit. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "kernels/cpu/expand.h"
#include "kernels/cpu/kernels.h"
#include "kernels/model/fixed.h"

#define LANES_FN CPU_INLINE
#define LANES_OUTER
#define DOT_TAKES_128 0
#define TILE_COLS     2u /* no registers to hold more */
#define EACH_LANE     for (size_t l = 0; l < 16; l++)

typedef struct {
    float l[16];
} vec;
typedef struct {
    int32_t l[16];
} ints;
typedef struct {
    uint8_t l[64];
} bytes;

LANES_FN vec vec_load(const float *p)
{
    vec v;
    memcpy(&v, p, sizeof(v));
    return v;
}

LANES_FN vec vec_load_part(const float *p, size_t count)
{
    vec v = {{0}};
    memcpy(&v, p, count * sizeof(*p));
    return v;
}

LANES_FN void vec_store(float *p, vec v)
{
    memcpy(p, &v, sizeof(v));
}

/* `count` may be all. */
LANES_FN void vec_store_part(float *p, vec v, size_t count)
{
    memcpy(p, &v, count * sizeof(*p));
}

LANES_FN vec vec_set(float x)
{
    vec v;
    EACH_LANE v.l[l] = x;
    return v;
}

LANES_FN vec vec_add(vec a, vec b)
{
    EACH_LANE a.l[l] += b.l[l];
    return a;
}

LANES_FN vec vec_sub(vec a, vec b)
{
    EACH_LANE a.l[l] -= b.l[l];
    return a;
}

LANES_FN vec vec_mul(vec a, vec b)
{
    EACH_LANE a.l[l] *= b.l[l];
    return a;
}

LANES_FN vec vec_div(vec a, vec b)
{
    EACH_LANE a.l[l] /= b.l[l];
    return a;
}

LANES_FN vec vec_max(vec a, vec b)
{
    EACH_LANE a.l[l] = a.l[l] > b.l[l] ? a.l[l] : b.l[l];
    return a;
}

LANES_FN vec vec_select(vec source, vec a, vec b)
{
    EACH_LANE a.l[l] = source.l[l] >= 0.0f ? a.l[l] : b.l[l];
    return a;
}

LANES_FN float vec_sum(vec v)
{
    for (size_t step = 8; step >= 1; step /= 2)
        for (size_t l = 0; l < step; l++)
            v.l[l] += v.l[l + step];
    return v.l[0];
}

LANES_FN vec vec_halves(const uint8_t *p)
{
    vec v;
    EACH_LANE
    {
        uint16_t half;
        memcpy(&half, p + 2 * l, sizeof(half));
        v.l[l] = cpu_half_to_float(half);
    }
    return v;
}

LANES_FN vec vec_upper(const uint8_t *p)
{
    vec v;
    EACH_LANE
    {
        uint16_t upper;
        memcpy(&upper, p + 2 * l, sizeof(upper));
        const uint32_t bits = (uint32_t)upper << 16;
        memcpy(&v.l[l], &bits, sizeof(bits));
    }
    return v;
}

LANES_FN vec vec_bytes(const uint8_t *p)
{
    vec v;
    EACH_LANE v.l[l] = (float)p[l];
    return v;
}

LANES_FN ints ints_bytes(const uint8_t *p)
{
    ints v;
    EACH_LANE v.l[l] = (int8_t)p[l];
    return v;
}

LANES_FN vec vec_of_ints(ints x)
{
    vec v;
    EACH_LANE v.l[l] = (float)x.l[l];
    return v;
}

LANES_FN ints ints_set(int32_t x)
{
    ints v;
    EACH_LANE v.l[l] = x;
    return v;
}

LANES_FN ints ints_add(ints a, ints b)
{
    EACH_LANE a.l[l] += b.l[l];
    return a;
}

LANES_FN ints ints_mul(ints a, ints b)
{
    EACH_LANE a.l[l] *= b.l[l];
    return a;
}

/* Returns the sum of the bytes. */
LANES_FN int32_t vec_round_bytes(vec v, int8_t *out)
{
    int32_t sum = 0;
    EACH_LANE
    {
        out[l] = (int8_t)((v.l[l] + FIXED_ROUND) - FIXED_ROUND);
        sum += out[l];
    }
    return sum;
}

LANES_FN float vec_bits_max(vec a, vec b)
{
    uint32_t most = 0;
    float out;
    EACH_LANE
    {
        uint32_t bits[2];
        memcpy(&bits[0], &a.l[l], sizeof(bits[0]));
        memcpy(&bits[1], &b.l[l], sizeof(bits[1]));
        for (size_t i = 0; i < 2; i++)
            most = (bits[i] & 0x7fffffffu) > most ? bits[i] & 0x7fffffffu : most;
    }
    memcpy(&out, &most, sizeof(out));
    return out;
}

LANES_FN vec vec_power(vec p, vec biased)
{
    EACH_LANE
    {
        uint32_t bits[2];
        memcpy(&bits[0], &p.l[l], sizeof(bits[0]));
        memcpy(&bits[1], &biased.l[l], sizeof(bits[1]));
        bits[0] += bits[1] << 23;
        memcpy(&p.l[l], &bits[0], sizeof(bits[0]));
    }
    return p;
}

LANES_FN bytes bytes_load(const uint8_t *p)
{
    bytes v;
    memcpy(&v, p, sizeof(v));
    return v;
}

LANES_FN bytes bytes_low(bytes v)
{
    for (size_t i = 0; i < 64; i++)
        v.l[i] &= 15u;
    return v;
}

LANES_FN bytes bytes_high(bytes v)
{
    for (size_t i = 0; i < 64; i++)
        v.l[i] = (uint8_t)(v.l[i] >> 4);
    return v;
}

LANES_FN ints ints_dot(ints start, const bytes *w, size_t quads, const int8_t *x, int32_t largest)
{
    (void)largest;
    for (size_t j = 0; j < quads; j++)
        EACH_LANE for (size_t t = 0; t < 4; t++) start.l[l] += w[j].l[4 * l + t] * x[4 * j + t];
    return start;
}

#include "kernels/cpu/fast_body.h"

const struct cpu_kernels cpu_fast_portable = FAST_KERNELS("portable");
