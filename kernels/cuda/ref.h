/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ref.h - every operation of ops.h once more, on the host, the plain way: loops, float64 sums, the
 * file's own blocks expanded by kernels/cpu. What the kernels are compared with, on a device and on
 * the emulator; never part of a program that serves.
 *
 * Shapes and meaning as in ops.h; matrices are those of the file.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "kernels/model/model.h"

void ref_embed(const struct model_tensor *w, const uint32_t *tokens, uint32_t count, float *out);

/* out[cols] = x / sqrt(mean(x^2) + epsilon) * weight */
void ref_norm(const float *x, const float *weight, uint32_t cols, float epsilon, float *out);

/* y[c][r] = w row r times x column c, plus bias[r] if there is one. x: [count][cols]. */
void ref_product(const struct model_tensor *w, const float *bias, const float *x, uint32_t count,
                 float *y);

/* out[i] = gate / (1 + exp(-gate)) * up */
void ref_swiglu(const float *gate, const float *up, uint32_t count, float *out);

/* One head in place: its norm if `norm` is given, then the rotation of op_rope(). */
void ref_turn(float *head, uint32_t width, const float *norm, float epsilon, const float *angles,
              uint32_t pairs, bool is_halves);

/* One head: softmax(q . k * scale) . v over `count` positions; keys, values: [count][width]. */
void ref_attend(const float *q, const float *keys, const float *values, uint32_t count,
                uint32_t width, float scale, float *out);
