/* SPDX-License-Identifier: Apache-2.0 */
/* quantise.h - numbers to weights of a type, the plain way: each block takes the scale that its
 * numbers span and every number the nearest step. For models of tests whose weights were numbers
 * once (tiny_model.h); formats as in reference.c, which reads them back. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* A row of `cols` numbers, whole blocks of the type: F32, F16, BF16, Q4_0, Q4_1, Q8_0, Q4_K, Q6_K.
 * Aborts for another. `out` has the row's bytes. */
void quantise_row(uint32_t type, const float *x, size_t cols, uint8_t *out);

/* To the nearest half, ties to even. */
uint16_t quantise_half(float x);
