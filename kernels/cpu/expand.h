/* SPDX-License-Identifier: Apache-2.0 */
/*
 * expand.h - every type of weight to float32, in plain C. The other kernels of this folder expand
 * some types themselves, faster, and are tested against this.
 *
 * Block formats: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h
 *
 * Threads: pure functions.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* IEEE half to float, exact. */
float cpu_half_to_float(uint16_t half);

/* Expands `cols` weights of a row; whole blocks of the type. */
void expand_row(uint32_t type, const uint8_t *row, size_t cols, float *out);

/* The scales and minima, 6 bits each, of the eight runs of a Q4_K or Q5_K block. */
void expand_k_scales(const uint8_t packed[12], uint8_t scales[8], uint8_t mins[8]);
