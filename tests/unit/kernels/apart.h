/* SPDX-License-Identifier: Apache-2.0 */
/* apart.h - how far two implementations' logits are from each other, over many positions. Used by
 * test_tolerance.c and tests/reference. */
#pragma once

#include <stddef.h>

struct apart {
    size_t positions;
    size_t same;    /* of them, where the same token is the likeliest */
    double max_abs; /* of all differences of two logits */
    double kl_sum;  /* nats: the wanted distribution against the one there is */
    double kl_max;  /* of one position */
    double squares; /* of the wanted logits, about their mean */
    size_t logits;
};

/* One position. What is no number makes max_abs and the divergence infinite. */
void apart_add(struct apart *a, const float *wanted, const float *got, size_t vocab);

double apart_kl(const struct apart *a); /* mean */

/* Standard deviation of the wanted logits, for comparison with max_abs. */
double apart_spread(const struct apart *a);
