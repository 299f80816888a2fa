/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lanes.h - the decision among the eight nearest candidates of a request, all of them at once: one
 * lane of a vector each. Load, memory, room and time are looked up, the prediction is computed and
 * the pick is made by masks, so that what the candidates are like steers no branch. choose.c asks
 * here first and goes the long way when eight were not enough, or with radius and avoided nodes.
 *
 * Predictions are computed in double precision and are exact: a prompt's cost is below 2^53
 * nanoseconds, or the sum saturates anyway; microseconds are cut off at (ns + 1/2) / 1000, whose
 * distance from a whole number is more than the error of the product.
 */
#pragma once

#include "dataplane/route/choose.h"

/* Fills in what each look says of its eight (predicted_us, there, pass, tight) and brings their
 * `loads` up to date. Skips looks that are not `near`. */
void lanes_judge(const struct route_table *table, struct route_load *loads,
                 struct route_look *looks, uint32_t count);

/* True: `choice` is decided, exactly as if all candidates had been looked at. False: somebody
 * beyond these eight may matter, or nobody here can take it. The look must be `near`. */
bool lanes_pick(struct route_look *look, const struct route_table *table, struct route_load *loads,
                struct route_choice *choice);
