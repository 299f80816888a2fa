/* SPDX-License-Identifier: Apache-2.0 */
/* reference.h - the families of model.h written the plain way: every weight expanded to float32
 * when the model is opened, one token at a time, loops and nothing else. Shares no arithmetic with
 * kernels/cpu; what both agree on is likely to be right. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/model/model.h"

struct reference;

/* `context` positions of memory. Aborts if there is not enough of it. */
struct reference *reference_create(const struct model *model, uint32_t context);
void reference_destroy(struct reference *r);

/* One token at the next position, which starts at 0. Returns the logits. */
const float *reference_forward(struct reference *r, uint32_t token);

/* Begins again at position 0. */
void reference_reset(struct reference *r);

/* The id of the largest logit, and by how much it beats the next one. */
uint32_t reference_best(const struct reference *r, float *margin);

/* Expands a row of any supported type. */
void reference_expand(uint32_t type, const uint8_t *row, size_t cols, float *out);
