/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rope.h - the angles by which positions turn the heads of queries and keys, with every way of
 * stretching them that model.h lets through. Between model.h and the backends.
 *
 * Pair j of a head turns by position * frequency[j] (RoFormer, https://arxiv.org/abs/2104.09864,
 * eq. 15). frequency[j] = base^(-2j/width), divided by the file's own divisors (rope_freqs, Llama
 * 3.1 and later). Linear: divided by the factor. YaRN (https://arxiv.org/abs/2309.00071, 3.2 and
 * 3.4): pairs that turn often keep their frequency, slow ones are divided by the factor, and sine
 * and cosine grow by 1 + ln(factor) / 10.
 *
 * Which two values make pair j: neighbours 2j and 2j + 1, or j and j + width / 2 if
 * model_rope.is_halves. All numbers are the same bits on every machine (fixed.h).
 *
 * Threads: pure functions.
 */
#pragma once

#include <stdint.h>

#include "kernels/model/model.h"

/* Writes rope_width / 2 frequencies, in radians a position. */
void rope_frequencies(const struct model *model, double *out);

/* What sines and cosines are multiplied with; 1 but for YaRN. */
float rope_magnitude(const struct model *model);

/* Cosines, then sines, `pairs` of each, of one position. */
void rope_angles(const double *frequencies, uint32_t pairs, float magnitude, uint32_t position,
                 float *out);

/* Turns one head in place; `angles` as rope_angles() gives them. */
void rope_turn(float *head, const float *angles, uint32_t pairs, bool is_halves);
