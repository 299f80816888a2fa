/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fixed.h - exp, log, sine and cosine of nothing but additions, multiplications and divisions in a
 * written order. A C library's own differ by a bit between versions and processors, and a stream
 * that moves to another node would then go on with other numbers. Used by rope.c, sampler.c and
 * kernels/cpu, which have to be compiled without contraction of a * b + c.
 *
 * Method: reduction by multiples of ln 2 or pi / 2 in parts (Cody and Waite, "Software Manual for
 * the Elementary Functions", 1980), then Taylor's series.
 *
 * Threads: pure functions.
 */
#pragma once

#include <stdint.h>
#include <string.h>

/* Adding and taking away 1.5 * 2^23 rounds a float to the nearest whole number, ties to even. */
#define FIXED_ROUND 12582912.0f
/* Here and below the result counts as 0. */
#define FIXED_EXP_LEAST -87.0f

/* e^x for x <= 0, within 2 units in the last place; 0 up to FIXED_EXP_LEAST; NaN gives NaN. Lanes
 * of kernels/cpu compute the same, operation by operation. */
static inline float fixed_exp_negative(float x)
{
    const float clamped = x < FIXED_EXP_LEAST ? FIXED_EXP_LEAST : x;
    const float n = (clamped * 1.44269504f + FIXED_ROUND) - FIXED_ROUND;
    float r = clamped - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    const float biased = n + FIXED_ROUND; /* the whole number lies in the low bits */
    uint32_t power;
    uint32_t bits;
    memcpy(&power, &biased, sizeof(power));
    memcpy(&bits, &p, sizeof(bits));
    bits += power << 23;
    memcpy(&p, &bits, sizeof(p));
    return x <= FIXED_EXP_LEAST ? 0.0f : p;
}

/* e^x for |x| < 700 and the natural logarithm of a normal x > 0, within some 1e-15 of the result.
 */
double fixed_exp(double x);
double fixed_log(double x);

/* Sine and cosine for |x| < 2^25; beyond that and for NaN both are NaN. */
void fixed_sin_cos(double x, double *sine, double *cosine);
